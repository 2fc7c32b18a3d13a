/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * 'ballastctl tiers setup' and 'rollback' on a host that is a directory: files for
 * sysfs, and a kernel that makes zram devices and swap areas of them.  Killed at
 * each thing that the kernel is told, before and after it: a rollback leaves the host
 * as it was found.
 */
#include "tests/unit/test-host-util.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/wait.h>

#include "daemon/ctl/tiers.h"

#define HEADING  "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
#define SYSTEM   "/dev/sda2 partition 1048576 0 -2\n"
#define ZSWAP    "/sys/module/zswap/parameters/"
#define SWAPFILE "/var/lib/swapfile"

/* --- the kernel ------------------------------------------------------------------- */

static bool no_lz4; /* the kernel takes it, and does not do it */
static int kill_at, steps; /* the process ends at this step: even before, odd after it is done */
static int fail_at, calls; /* this call fails */

static bool step_fails(void)
{
        if (++steps == kill_at)
                _exit(9);
        return ++calls == fail_at;
}

static int step_done(int r)
{
        if (++steps == kill_at)
                _exit(9);
        return r;
}

static const char *below_root(const char *path)
{
        assert_int_equal(strncmp(path, test_root, strlen(test_root)), 0);
        return path + strlen(test_root);
}

static void text_of(const char *path, char buf[4096])
{
        if (bl_fs_read(test_root, path, buf, 4096) < 0)
                buf[0] = '\0';
}

static void remove_device(const char *number)
{
        static const char *const files[] = {"disksize", "mm_stat", "comp_algorithm", "reset", ""};
        char path[128];

        for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
                snprintf(path, sizeof path, "/sys/block/zram%s/%s", number, files[i]);
                assert_int_equal(remove(test_path(path)), 0);
        }
        snprintf(path, sizeof path, "/dev/zram%s", number);
        assert_int_equal(remove(test_path(path)), 0);
}

static int fake_write(const char *path, const char *value)
{
        const char *p = below_root(path);
        char line[256], name[64], swaps[4096];

        if (step_fails())
                return -EIO;
        if (strstr(p, "hot_remove")) {
                snprintf(name, sizeof name, "/dev/zram%s ", value);
                text_of("/proc/swaps", swaps);
                if (strstr(swaps, name))
                        return -EBUSY;
                remove_device(value);
        } else if (strstr(p, "/reset")) {
                snprintf(line, sizeof line, "%.*sdisksize", (int)(strlen(p) - strlen("reset")), p);
                test_write(line, "0\n");
        } else if (!no_lz4 || strcmp(value, "lz4") != 0) {
                snprintf(line, sizeof line, "%s\n", value);
                test_write(p, line);
        }
        return step_done(0);
}

static int fake_add(const char *root, unsigned *ret)
{
        (void)root;
        if (step_fails())
                return -ENOMEM;
        test_write("/sys/block/zram7/disksize", "0\n");
        test_write("/sys/block/zram7/mm_stat", "0 0 0 0 0 0 0 0 0\n");
        test_write("/sys/block/zram7/comp_algorithm", "[lzo] lz4\n");
        test_write("/sys/block/zram7/reset", "");
        test_write("/dev/zram7", "");
        *ret = 7;
        return step_done(0);
}

static int fake_swapon(const char *path, int flags)
{
        char swaps[4096], more[8192], uuid[37];

        if (step_fails())
                return -EINVAL;
        assert_int_equal(ctl_swap_uuid(path, uuid), 1);
        text_of("/proc/swaps", swaps);
        snprintf(more, sizeof more, "%s%s partition 65532 1000 %d\n", swaps, below_root(path),
                 flags ? flags & 0x7fff : -3);
        test_write("/proc/swaps", more);
        return step_done(0);
}

static int fake_swapoff(const char *path)
{
        char swaps[4096], *line, *end;

        if (step_fails())
                return -ENOMEM;
        text_of("/proc/swaps", swaps);
        line = strstr(swaps, below_root(path));
        assert_non_null(line);
        end = strchr(line, '\n') + 1;
        memmove(line, end, strlen(end) + 1);
        test_write("/proc/swaps", swaps);
        return step_done(0);
}

static const struct ctl_tiers_ops kernel = {
        .write = fake_write, .add_zram = fake_add, .swapon = fake_swapon, .swapoff = fake_swapoff};

/* --- the host ---------------------------------------------------------------------- */

static char state_dir[128];

static int setup(void **state)
{
        if (test_root_make(state) < 0)
                return -1;
        snprintf(state_dir, sizeof state_dir, "%s/state", test_root);
        kill_at = steps = fail_at = calls = 0;
        test_write("/proc/meminfo", "MemTotal: 8388608 kB\nMemFree: 4194304 kB\nMemAvailable: 6291456 kB\n");
        test_write("/proc/swaps", HEADING SYSTEM);
        test_write("/proc/sys/kernel/random/boot_id", "this-boot\n");
        test_write("/sys/class/zram-control/hot_add", "");
        test_write("/sys/class/zram-control/hot_remove", "");
        test_write("/sys/block/zram0/disksize", "0\n");
        test_write(ZSWAP "enabled", "N\n");
        test_write(ZSWAP "compressor", "lzo\n");
        test_write(ZSWAP "max_pool_percent", "20\n");
        test_write("/var/lib/other", "");
        return 0;
}

/* All that the kernel and others see. */
static void assert_as_found(void)
{
        static const struct {
                const char *path, *text;
        } files[] = {
                {"/proc/swaps", HEADING SYSTEM},
                {ZSWAP "enabled", "N\n"},
                {ZSWAP "compressor", "lzo\n"},
                {ZSWAP "max_pool_percent", "20\n"},
        };
        char text[4096];

        for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
                text_of(files[i].path, text);
                assert_string_equal(text, files[i].text);
        }
        assert_int_not_equal(access(test_path("/sys/block/zram7"), F_OK), 0);
        assert_int_not_equal(access(test_path("/dev/zram7"), F_OK), 0);
        assert_int_not_equal(access(test_path(SWAPFILE), F_OK), 0);
        assert_int_not_equal(access(test_path("/state/tiers.json"), F_OK), 0);
}

static char said[1024];

/* One invocation; what it says is in `said`. */
static int call(bool set, enum ctl_tier_kind kind, uint64_t size, bool force)
{
        struct ctl_tiers t = {
                .root = test_root, .state_dir = state_dir, .ops = &kernel, .force = force, .path = SWAPFILE};
        int r = ctl_tiers_open(&t);

        if (r == 0)
                r = set ? ctl_tiers_setup(&t, kind, size) : ctl_tiers_rollback(&t);
        snprintf(said, sizeof said, "%s", t.said ? t.said : "");
        ctl_tiers_close(&t);
        return r;
}

static int make(enum ctl_tier_kind kind, uint64_t size)
{
        return call(true, kind, size, false);
}

static int undo(void)
{
        return call(false, CTL_TIER_ZRAM, 0, false);
}

#define SAYS(words)                                                         \
        do {                                                                \
                if (!strstr(said, words))                                   \
                        fail_msg("'%s' does not have '%s'", said, (words)); \
        } while (0)

/* --- tests -------------------------------------------------------------------------- */

static void test_zram(void **state)
{
        char text[4096], uuid[37];

        (void)state;
        assert_int_equal(make(CTL_TIER_ZRAM, 256 * BL_MIB), 0);
        text_of("/proc/swaps", text);
        assert_string_equal(text, HEADING SYSTEM "/dev/zram7 partition 65532 1000 100\n");
        text_of("/sys/block/zram7/disksize", text);
        assert_string_equal(text, "268435456\n");
        text_of("/sys/block/zram7/comp_algorithm", text);
        assert_string_equal(text, "lz4\n");
        assert_int_equal(ctl_swap_uuid(test_path("/dev/zram7"), uuid), 1);
        assert_int_equal(make(CTL_TIER_ZRAM, 256 * BL_MIB), -EALREADY);
        SAYS("/dev/zram7");
        assert_int_equal(undo(), 0);
        assert_as_found();
        assert_int_equal(undo(), 0);
        SAYS("nothing is to be undone");
}

static void test_zram_refused(void **state)
{
        (void)state;
        assert_int_equal(make(CTL_TIER_ZRAM, BL_MIB), -ERANGE);
        assert_int_equal(make(CTL_TIER_ZRAM, 17 * BL_GIB), -ERANGE);
        SAYS("to 16 GiB");
        test_write(ZSWAP "enabled", "Y\n");
        assert_int_equal(make(CTL_TIER_ZRAM, BL_GIB), -EALREADY);
        SAYS("zswap is on");
        test_write(ZSWAP "enabled", "N\n");
        test_write("/proc/swaps", HEADING "/dev/zram0 partition 65532 1000 100\n");
        assert_int_equal(make(CTL_TIER_ZRAM, BL_GIB), -EALREADY);
        SAYS("--force");
        assert_int_equal(call(true, CTL_TIER_ZRAM, BL_GIB, true), 0);
        assert_int_equal(undo(), 0);
        test_write("/proc/swaps", HEADING SYSTEM);
        assert_int_equal(unlink(test_path("/sys/class/zram-control/hot_add")), 0);
        assert_int_equal(make(CTL_TIER_ZRAM, BL_GIB), -ENOTSUP);
        SAYS("modprobe zram");
        assert_as_found();
}

static void test_zswap(void **state)
{
        char text[4096];

        (void)state;
        assert_int_equal(make(CTL_TIER_ZSWAP, 5 * BL_GIB), -ERANGE);
        assert_int_equal(make(CTL_TIER_ZSWAP, BL_GIB), 0);
        text_of(ZSWAP "max_pool_percent", text);
        assert_string_equal(text, "13\n");
        text_of(ZSWAP "compressor", text);
        assert_string_equal(text, "lz4\n");
        text_of(ZSWAP "enabled", text);
        assert_string_equal(text, "Y\n");
        assert_int_equal(make(CTL_TIER_ZSWAP, BL_GIB), -EALREADY);
        SAYS("13 %");
        assert_int_equal(undo(), 0);
        assert_as_found();
        /* what somebody else has set since stays, and is said */
        assert_int_equal(make(CTL_TIER_ZSWAP, BL_GIB), 0);
        test_write(ZSWAP "max_pool_percent", "33\n");
        assert_int_equal(undo(), 0);
        SAYS("max_pool_percent is '33'");
        text_of(ZSWAP "max_pool_percent", text);
        assert_string_equal(text, "33\n");
        test_write(ZSWAP "max_pool_percent", "20\n");
        assert_as_found();
        no_lz4 = true;
        assert_int_equal(make(CTL_TIER_ZSWAP, BL_GIB), 0);
        no_lz4 = false;
        SAYS("no lz4");
        text_of(ZSWAP "compressor", text);
        assert_string_equal(text, "lzo\n");
        assert_int_equal(undo(), 0);
        assert_as_found();
        /* nothing behind it */
        test_write("/proc/swaps", HEADING "/dev/zram0 partition 65532 1000 100\n");
        assert_int_equal(make(CTL_TIER_ZSWAP, BL_GIB), -ENOENT);
        SAYS("swapfile");
        assert_int_equal(unlink(test_path(ZSWAP "enabled")), 0);
        assert_int_equal(make(CTL_TIER_ZSWAP, BL_GIB), -ENOTSUP);
}

static void test_swapfile(void **state)
{
        struct stat st;

        (void)state;
        assert_int_equal(make(CTL_TIER_SWAPFILE, UINT64_C(15) * 1024 * BL_GIB), -ENOSPC);
        SAYS("a twentieth");
        assert_int_equal(make(CTL_TIER_SWAPFILE, 16 * BL_MIB), 0);
        assert_int_equal(stat(test_path(SWAPFILE), &st), 0);
        assert_int_equal(st.st_size, 16 * BL_MIB);
        assert_int_equal(st.st_mode & 0777, 0600);
        assert_int_equal(make(CTL_TIER_SWAPFILE, 16 * BL_MIB), -EALREADY);
        /* another boot: it is no swap any more, but is there, and ours */
        test_write("/proc/sys/kernel/random/boot_id", "next-boot\n");
        test_write("/proc/swaps", HEADING SYSTEM);
        assert_int_equal(undo(), 0);
        assert_as_found();
        /* a file of somebody else's */
        test_write(SWAPFILE, "mine");
        assert_int_equal(make(CTL_TIER_SWAPFILE, 16 * BL_MIB), -EALREADY);
        assert_int_equal(unlink(test_path(SWAPFILE)), 0);
}

/* A number that another has by now, a file that was replaced. */
static void test_not_ours(void **state)
{
        int fd;

        (void)state;
        assert_int_equal(make(CTL_TIER_SWAPFILE, 16 * BL_MIB), 0);
        fd = open(test_path(SWAPFILE), O_RDWR | O_CLOEXEC);
        assert_int_equal(ctl_swap_format(fd, 16 * BL_MIB, "6f1c6f9e-0000-4000-8000-000000000001"), 0);
        close(fd);
        assert_int_equal(undo(), 0);
        SAYS("somebody else's");
        assert_int_equal(access(test_path(SWAPFILE), F_OK), 0);
        assert_int_equal(unlink(test_path(SWAPFILE)), 0);
        test_write("/proc/swaps", HEADING SYSTEM);
        assert_as_found();
        /* what another boot made void is not looked for in this one */
        assert_int_equal(make(CTL_TIER_ZRAM, 256 * BL_MIB), 0);
        test_write("/proc/sys/kernel/random/boot_id", "next-boot\n");
        assert_int_equal(undo(), 0);
        assert_int_equal(access(test_path("/sys/block/zram7"), F_OK), 0);
}

static void test_would_not_fit(void **state)
{
        (void)state;
        assert_int_equal(make(CTL_TIER_ZRAM, 256 * BL_MIB), 0);
        test_write("/proc/swaps", HEADING SYSTEM "/dev/zram7 partition 4194304 2097152 100\n");
        test_write("/proc/meminfo", "MemTotal: 8388608 kB\nMemFree: 10000 kB\nMemAvailable: 1572864 kB\n");
        assert_int_equal(undo(), -ENOMEM);
        SAYS("holds 2 GiB");
        SAYS("room for 1 GiB");
        /* it takes memory itself, which comes free */
        test_write("/sys/block/zram7/mm_stat", "0 0 1073741824 0 0 0 0 0 0\n");
        assert_int_equal(undo(), 0);
        assert_as_found();
}

static void test_damaged_record(void **state)
{
        (void)state;
        test_write("/state/tiers.json", "{\"version\": 1, ");
        assert_int_equal(undo(), -EBADMSG);
        SAYS("swapon --show");
        test_write("/state/tiers.json", "{\"version\": 2, \"boot_id\": \"this-boot\", \"changes\": []}");
        assert_int_equal(make(CTL_TIER_ZRAM, BL_GIB), -EBADMSG);
        test_write("/state/tiers.json",
                   "{\"version\": 1, \"boot_id\": \"this-boot\", \"changes\": [{\"what\": \"later\"}]}");
        assert_int_equal(undo(), -EBADMSG);
        SAYS("'later'");
}

static void test_one_at_a_time(void **state)
{
        struct ctl_tiers t = {.root = test_root, .state_dir = state_dir, .ops = &kernel};

        (void)state;
        assert_int_equal(ctl_tiers_open(&t), 0);
        assert_int_equal(make(CTL_TIER_ZRAM, BL_GIB), -EBUSY);
        ctl_tiers_close(&t);
        assert_as_found();
}

static const struct {
        enum ctl_tier_kind kind;
        uint64_t size;
} kinds[] = {{CTL_TIER_ZRAM, BL_GIB}, {CTL_TIER_ZSWAP, BL_GIB}, {CTL_TIER_SWAPFILE, 16 * BL_MIB}};

/* Each call to the kernel fails in turn: what was made before is gone again. */
static void test_failures(void **state)
{
        (void)state;
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
                for (int i = 1;; i++) {
                        int r;

                        fail_at = i;
                        calls = 0;
                        r = make(kinds[k].kind, kinds[k].size);
                        fail_at = 0;
                        if (r == 0) {
                                /* no algorithm is worth failing for; the last round saw no failure */
                                bool over = calls < i;

                                assert_int_equal(undo(), 0);
                                assert_as_found();
                                if (over)
                                        break;
                                continue;
                        }
                        assert_true(*said != 0);
                        assert_as_found();
                }
}

/* Ended with -9 at each step of setup; and at each step of the rollback after. */
static int killed(int at, bool set, size_t k)
{
        pid_t pid = fork();
        int status;

        if (pid == 0) {
                kill_at = at;
                steps = 0;
                (void)(set ? make(kinds[k].kind, kinds[k].size) : undo());
                _exit(0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        return WEXITSTATUS(status);
}

static void test_killed(void **state)
{
        int kills = 0;

        (void)state;
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
                for (int i = 1; killed(i, true, k) == 9; i++, kills++) {
                        assert_int_equal(undo(), 0);
                        assert_as_found();
                }
                assert_int_equal(undo(), 0);
                for (int i = 1;; i++, kills++) {
                        int r;

                        assert_int_equal(make(kinds[k].kind, kinds[k].size), 0);
                        r = killed(i, false, k);
                        if (r == 9)
                                assert_int_equal(undo(), 0);
                        assert_as_found();
                        if (r != 9)
                                break;
                }
        }
        assert_true(kills >= 30);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_zram, setup, test_root_remove),
                cmocka_unit_test_setup_teardown(test_zram_refused, setup, test_root_remove),
                cmocka_unit_test_setup_teardown(test_zswap, setup, test_root_remove),
                cmocka_unit_test_setup_teardown(test_swapfile, setup, test_root_remove),
                cmocka_unit_test_setup_teardown(test_not_ours, setup, test_root_remove),
                cmocka_unit_test_setup_teardown(test_would_not_fit, setup, test_root_remove),
                cmocka_unit_test_setup_teardown(test_damaged_record, setup, test_root_remove),
                cmocka_unit_test_setup_teardown(test_one_at_a_time, setup, test_root_remove),
                cmocka_unit_test_setup_teardown(test_failures, setup, test_root_remove),
                cmocka_unit_test_setup_teardown(test_killed, setup, test_root_remove),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
