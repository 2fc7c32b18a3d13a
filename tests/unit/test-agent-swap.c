/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ballast-agent: swap on the host's store, in a guest whose /proc, /sys and disks are files of ours. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#include <ballast/cleanup.h>

#include "guestagent/report.h"
#include "guestagent/swap.h"
#include "guestagent/swapdisk.h"
#include "guestagent/swaps.h"

#define DISK (4 * BL_MIB)
#define HEAD "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"

static char root[64];
static struct guest_swap swap;

/* --- the guest ------------------------------------------------------------------------ */

static void path_of(char *buf, size_t size, const char *name)
{
        assert_true((size_t)snprintf(buf, size, "%s%s", root, name) < size);
}

static void put_text(const char *name, const char *text)
{
        char path[160];
        _cleanup_close_ int fd = -1;

        path_of(path, sizeof path, name);
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static void get_text(const char *name, char *buf, size_t size)
{
        char path[160];
        _cleanup_close_ int fd = -1;
        ssize_t n;

        path_of(path, sizeof path, name);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        n = fd < 0 ? 0 : read(fd, buf, size - 1);
        assert_true(n >= 0);
        buf[n] = '\0';
}

static void order(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void order(const char *format, ...)
{
        char command[512], full[640];
        va_list args;

        va_start(args, format);
        (void)vsnprintf(command, sizeof command, format, args);
        va_end(args);
        (void)snprintf(full, sizeof full, "cd %s && %s", root, command);
        assert_int_equal(system(full), 0);
}

static void add_disk(const char *name, const char *serial)
{
        order("mkdir -p sys/block/%s/queue && printf '%%s' '%s' > sys/block/%s/serial && echo 254:16 > "
              "sys/block/%s/dev && "
              "echo %llu > sys/block/%s/size && echo 1 > sys/block/%s/queue/rotational && "
              "echo 512 > sys/block/%s/queue/max_sectors_kb && truncate -s %llu dev/%s",
              name, serial, name, name, (unsigned long long)(DISK / 512), name, name, name, (unsigned long long)DISK,
              name);
}

static void set_memory(uint64_t available_mib)
{
        char text[160];

        (void)snprintf(text, sizeof text, "MemTotal: 1048576 kB\nMemAvailable: %llu kB\nSwapCached: 8192 kB\n",
                       (unsigned long long)(available_mib * 1024));
        put_text("/proc/meminfo", text);
}

/* The line that swapon writes, and swapoff changes. */
static void put_swaps(const char *others, uint64_t used, int priority)
{
        char text[512];

        (void)snprintf(text, sizeof text, HEAD "%s/dev/vdb\t\tpartition\t4092\t\t%llu\t\t%d\n", others,
                       (unsigned long long)used, priority);
        put_text("/proc/swaps", text);
}

/* --- system calls, in the child: what they have seen is in files ------------------------ */

static int fake_on(const char *path, int flags)
{
        char text[160];

        order("echo '%s %x' >> log", path, (unsigned)flags);
        (void)snprintf(text, sizeof text, HEAD "/dev/vdb\tpartition\t4092\t0\t%d\n", flags & 0x7fff);
        put_text("/proc/swaps", text);
        return 0;
}

/* `step` KiB come back, and then there is a signal; what `off-errno` says. */
static int fake_off(const char *path)
{
        struct guest_swaps s;
        char text[64];
        int fd = guest_open_swaps(root);
        uint64_t step;
        int error;

        (void)path;
        assert_int_equal(guest_read_swaps(fd, "vdb", &s), 0);
        (void)close(fd);
        order("echo off >> log");
        get_text("/off-errno", text, sizeof text);
        error = atoi(text);
        get_text("/step", text, sizeof text);
        step = strtoull(text, NULL, 10);
        if (error) {
                errno = error;
                return -1;
        }
        if (s.used / 1024 <= step) {
                put_text("/proc/swaps", HEAD);
                return 0;
        }
        put_swaps("", s.used / 1024 - step, s.priority);
        (void)usleep(1000);
        errno = EINTR;
        return -1;
}

static int fake_discard(int fd, uint64_t size)
{
        order("echo discard >> log");
        return ftruncate(fd, 0) < 0 ? -1 : ftruncate(fd, (off_t)size);
}

static const struct swap_system fake = {.on = fake_on, .off = fake_off, .discard = fake_discard};

/* --- driving it ------------------------------------------------------------------------- */

static void until_idle(void)
{
        for (int i = 0; i < 5000 && swap.child > 0; i++) {
                struct pollfd p;
                usec_t wait = guest_swap_poll(&swap, &p);

                (void)poll(&p, 1, wait == BL_UNSET ? 1000 : 1);
                guest_swap_step(&swap);
        }
        assert_int_equal(swap.child, 0);
        assert_int_equal(swap.pipe, -1);
}

static void begin_agent(void)
{
        guest_swap_init(&swap, root);
        swap.system = &fake;
        until_idle();
}

static struct bl_wire_result ask(uint64_t kind, uint64_t bytes)
{
        struct bl_wire_action a = {.id = 7, .kind = kind, .bytes = bytes};
        struct guest_reader reader;
        struct bl_wire_stats memory;
        struct bl_wire_result r;

        assert_int_equal(guest_reader_open(&reader, root), 0);
        assert_int_equal(guest_reader_glance(&reader, &memory), 0);
        guest_reader_close(&reader);
        guest_swap_begin(&swap, &a, &memory, &r);
        assert_int_equal(r.id, 7);
        return r;
}

static struct bl_wire_stats report(void)
{
        struct bl_wire_stats s;

        bl_wire_stats_init(&s);
        guest_swap_report(&swap, &s);
        return s;
}

static void assert_state(enum bl_wire_store_state state, uint64_t error)
{
        struct bl_wire_stats s = report();

        assert_int_equal(s.v[BL_STAT_STORE_STATE], state);
        assert_int_equal(s.v[BL_STAT_STORE_ERROR], error);
        assert_int_equal(s.v[BL_STAT_STORE_SIZE] != BL_UNSET, state == BL_STORE_SWAP_ON);
}

static void assert_log(const char *want)
{
        char log[1024];

        get_text("/log", log, sizeof log);
        assert_string_equal(log, want);
        put_text("/log", "");
}

static int setup(void **state)
{
        (void)state;
        (void)snprintf(root, sizeof root, "/tmp/test-swap.XXXXXX");
        assert_non_null(mkdtemp(root));
        order("mkdir -p proc/sys/vm sys/block dev && : > log");
        put_text("/proc/swaps", HEAD);
        put_text("/step", "100000");
        set_memory(512);
        add_disk("vda", "admins-own");
        return 0;
}

static int teardown(void **state)
{
        char command[96];

        (void)state;
        guest_swap_end(&swap);
        while (waitpid(-1, NULL, 0) > 0)
                ;
        (void)snprintf(command, sizeof command, "rm -rf '%s'", root);
        return system(command);
}

/* --- /proc/swaps ------------------------------------------------------------------------ */

static void test_swaps(void **state)
{
        static const char text[] = HEAD "/swap\\040file                              file\t\t1000\t\t10\t\t-2\n"
                                        "/dev/vdb                                partition\t2000\t20\t5\n"
                                        "/dev/zram0                              partition\t4000\t40\t100\n"
                                        "/mnt/vdb                                file\t\t8000\t0\t\t5\n"
                                        "short line\n/dev/vdc partition 1";
        char buf[512];
        struct guest_swaps s;

        (void)state;
        (void)snprintf(buf, sizeof buf, "%s", text);
        guest_parse_swaps(buf, "vdb", &s);
        assert_true(s.on && s.priority == 5 && s.size == 2000 * BL_KIB && s.used == 20 * BL_KIB);
        assert_int_equal(s.ahead, 12000 * BL_KIB); /* a file of that name is another's */
        assert_int_equal(s.highest, 100);
        assert_int_equal(s.used_all, 70 * BL_KIB);

        (void)snprintf(buf, sizeof buf, "%s", text);
        guest_parse_swaps(buf, "", &s);
        assert_false(s.on);
        assert_true(s.size == 0 && s.ahead == 0 && s.highest == 100);

        (void)snprintf(buf, sizeof buf, HEAD "/run/ballast-agent/vdb\\040(deleted) partition 8 4 16384\n");
        guest_parse_swaps(buf, "vdb", &s);
        assert_true(s.on && s.used == 4 * BL_KIB && s.ahead == 0 && s.highest == -1);

        buf[0] = '\0';
        guest_parse_swaps(buf, "vdb", &s);
        assert_false(s.on);
}

/* --- on --------------------------------------------------------------------------------- */

static void test_no_disk(void **state)
{
        (void)state;
        begin_agent();
        assert_int_equal(guest_swap_features(&swap), BL_WIRE_FEATURE_SWAP);
        assert_state(BL_STORE_SWAP_NONE, BL_UNSET);
        assert_int_equal(ask(BL_ACTION_SWAP_ON, BL_UNSET).status, BL_RESULT_DONE); /* begun */
        until_idle();
        assert_state(BL_STORE_SWAP_NONE, ENODEV);
        assert_int_equal(ask(BL_ACTION_SWAP_OFF, BL_UNSET).status, BL_RESULT_DONE);
        until_idle();
        assert_state(BL_STORE_SWAP_NONE, BL_UNSET);
        assert_int_equal(ask(BL_ACTION_SWAP_GIVE, BL_UNSET).status, BL_RESULT_DONE);
        assert_int_equal(swap.child, 0); /* there is nothing to give */
        assert_log("");
}

static void test_no_swap_at_all(void **state)
{
        struct bl_wire_stats s;

        (void)state;
        order("rm proc/swaps");
        begin_agent();
        assert_int_equal(guest_swap_features(&swap), 0);
        assert_int_equal(ask(BL_ACTION_SWAP_ON, BL_UNSET).status, BL_RESULT_UNKNOWN);
        s = report();
        assert_int_equal(s.v[BL_STAT_STORE_STATE], BL_UNSET);
}

static void assert_header(void)
{
        static const uint8_t zeros[1024];
        uint8_t page[65536];
        size_t size = (size_t)sysconf(_SC_PAGESIZE);
        char path[96];
        uint32_t info[3];
        _cleanup_close_ int fd = -1;

        path_of(path, sizeof path, "/dev/vdb");
        fd = open(path, O_RDONLY | O_CLOEXEC);
        assert_int_equal(read(fd, page, size), size);
        assert_memory_equal(page + size - 10, "SWAPSPACE2", 10);
        memcpy(info, page + 1024, sizeof info);
        assert_int_equal(info[0], 1);
        assert_int_equal(info[1], DISK / size - 1);
        assert_int_equal(info[2], 0);
        assert_memory_equal(page, zeros, 1024);
        assert_memory_not_equal(page + 1036, zeros, 16); /* the UUID */
        assert_string_equal((const char *)page + 1052, "ballast");
}

static void assert_on_log(int priority)
{
        char want[256];

        /* prefer, discard, discard pages */
        (void)snprintf(want, sizeof want, "discard\n%s/dev/vdb %x\n", root, 0x58000 | (unsigned)priority);
        assert_log(want);
}

static void test_on(void **state)
{
        struct bl_wire_stats s;
        char text[64];

        (void)state;
        add_disk("vdb", BL_WIRE_STORE_SERIAL);
        begin_agent();
        assert_state(BL_STORE_SWAP_NONE, BL_UNSET); /* it is not used */
        assert_int_equal(ask(BL_ACTION_SWAP_ON, BL_UNSET).status, BL_RESULT_DONE);
        assert_int_equal(ask(BL_ACTION_SWAP_ON, BL_UNSET).status, BL_RESULT_DONE); /* it is under way */
        assert_int_equal(ask(BL_ACTION_SWAP_OFF, BL_UNSET).status, BL_RESULT_BUSY);
        assert_true(swap.changed);
        until_idle();
        assert_state(BL_STORE_SWAP_ON, BL_UNSET);
        assert_on_log(16384);
        assert_header();
        get_text("/sys/block/vdb/queue/rotational", text, sizeof text);
        assert_string_equal(text, "0\n");
        get_text("/sys/block/vdb/queue/max_sectors_kb", text, sizeof text);
        assert_string_equal(text, "128\n");
        s = report();
        assert_int_equal(s.v[BL_STAT_STORE_SIZE], 4092 * BL_KIB);
        assert_int_equal(s.v[BL_STAT_STORE_USED], 0);
        assert_int_equal(s.v[BL_STAT_SWAP_AHEAD], 0);
        /* there is nothing more to do */
        assert_int_equal(ask(BL_ACTION_SWAP_ON, BL_UNSET).status, BL_RESULT_DONE);
        assert_int_equal(swap.child, 0);
        get_text("/sys/block/vda/queue/rotational", text, sizeof text);
        assert_string_equal(text, "1\n"); /* another's disk is left alone */
}

static void test_priority(void **state)
{
        static const struct {
                int others, ours;
        } cases[] = {{-2, 16384}, {100, 16384}, {16384, 16385}, {32766, 32767}, {32767, 32767}};

        (void)state;
        add_disk("vdb", BL_WIRE_STORE_SERIAL);
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
                char text[128];

                (void)snprintf(text, sizeof text, HEAD "/dev/sda2 partition 1000 0 %d\n", cases[i].others);
                put_text("/proc/swaps", text);
                begin_agent();
                assert_int_equal(ask(BL_ACTION_SWAP_ON, BL_UNSET).status, BL_RESULT_DONE);
                until_idle();
                assert_on_log(cases[i].ours);
                guest_swap_end(&swap);
        }
}

/* Whatever is on it and not ours stays. */
static void test_foreign(void **state)
{
        static const struct {
                uint64_t at;
                const char *what;
                bool ours;
        } cases[] = {
                {510, "\x55\xaa", false}, /* MBR */
                {1080, "\x53\xef", false}, /* ext4 */
                {65600, "_BHRfS_M", false}, /* btrfs */
                {DISK - 512, "EFI PART", false}, /* the second GPT */
                {DISK - BL_MIB, "x", false},
                {BL_MIB - 1, "x", false},
                {4086, "SWAPSPACE2", false}, /* swap without our label */
                {4086, "S1SUSPEND", false}, /* somebody sleeps there */
                {2 * BL_MIB, "in the middle", true},
        };
        char path[96];

        (void)state;
        add_disk("vdb", BL_WIRE_STORE_SERIAL);
        path_of(path, sizeof path, "/dev/vdb");
        begin_agent();
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
                _cleanup_close_ int fd = open(path, O_RDWR | O_CLOEXEC);
                size_t n = strlen(cases[i].what);
                char got[16];

                assert_int_equal(ftruncate(fd, 0), 0);
                assert_int_equal(ftruncate(fd, (off_t)DISK), 0);
                assert_int_equal(pwrite(fd, cases[i].what, n, (off_t)cases[i].at), n);
                assert_int_equal(ask(BL_ACTION_SWAP_ON, BL_UNSET).status, BL_RESULT_DONE);
                until_idle();
                if (cases[i].ours) {
                        assert_state(BL_STORE_SWAP_ON, BL_UNSET);
                        assert_on_log(16384);
                        continue;
                }
                assert_state(BL_STORE_SWAP_FAILED, EEXIST);
                assert_int_equal(ask(BL_ACTION_SWAP_OFF, BL_UNSET).status, BL_RESULT_DONE);
                until_idle();
                assert_state(BL_STORE_SWAP_FAILED, EEXIST);
                assert_log("");
                assert_int_equal(pread(fd, got, n, (off_t)cases[i].at), n);
                assert_memory_equal(got, cases[i].what, n);
        }
}

/* A swap area of ours is no obstacle, whatever its pages hold: the host attached it anew. */
static void test_our_old_swap(void **state)
{
        char path[96];
        _cleanup_close_ int fd = -1;

        (void)state;
        add_disk("vdb", BL_WIRE_STORE_SERIAL);
        path_of(path, sizeof path, "/dev/vdb");
        fd = open(path, O_RDWR | O_CLOEXEC);
        /* of a guest with pages of 64 KiB */
        assert_int_equal(pwrite(fd, "SWAPSPACE2", 10, 65536 - 10), 10);
        assert_int_equal(pwrite(fd, "ballast", 8, 1052), 8);
        assert_int_equal(pwrite(fd, "a page", 6, 65536), 6);
        begin_agent();
        assert_int_equal(ask(BL_ACTION_SWAP_ON, BL_UNSET).status, BL_RESULT_DONE);
        until_idle();
        assert_state(BL_STORE_SWAP_ON, BL_UNSET);
        assert_header();
}

static void test_two_disks(void **state)
{
        (void)state;
        add_disk("vdb", BL_WIRE_STORE_SERIAL);
        add_disk("vdc", BL_WIRE_STORE_SERIAL);
        begin_agent();
        assert_int_equal(ask(BL_ACTION_SWAP_ON, BL_UNSET).status, BL_RESULT_DONE);
        until_idle();
        /* not "none": it may be one that is swapped on */
        assert_int_equal(report().v[BL_STAT_STORE_STATE], BL_UNSET);
        assert_int_equal(report().v[BL_STAT_STORE_ERROR], ENOTUNIQ);
        assert_log("");
}

/* --- an agent that was started anew ------------------------------------------------------- */

static void test_found_again(void **state)
{
        struct bl_wire_stats s;

        (void)state;
        add_disk("vdb", BL_WIRE_STORE_SERIAL);
        put_swaps("/dev/sda2 partition 1000 0 20000\n", 2048, 16384);
        begin_agent();
        assert_state(BL_STORE_SWAP_ON, BL_UNSET);
        s = report();
        assert_int_equal(s.v[BL_STAT_STORE_USED], 2 * BL_MIB);
        assert_int_equal(s.v[BL_STAT_SWAP_AHEAD], 1000 * BL_KIB);
        put_text("/proc/swaps", HEAD);
        assert_state(BL_STORE_SWAP_NONE, BL_UNSET); /* somebody switched it off */
        put_swaps("", 0, 1);
        assert_state(BL_STORE_SWAP_ON, BL_UNSET);
        /* another of that name, which is looked at before anything is said */
        order("mv sys/block/vdb sys/old && cp -r sys/old sys/block/vdb");
        assert_int_equal(report().v[BL_STAT_STORE_STATE], BL_UNSET);
        until_idle();
        assert_state(BL_STORE_SWAP_ON, BL_UNSET);
        order("mv sys/block/vdb sys/older && cp -r sys/older sys/block/vdb && echo admins > sys/block/vdb/serial");
        (void)report();
        until_idle();
        assert_state(BL_STORE_SWAP_NONE, BL_UNSET);
        assert_string_equal(swap.disk, "");
}

/* --- off ---------------------------------------------------------------------------------- */

static void test_off(void **state)
{
        static const char zeros[4096];
        char page[4096], path[96];
        _cleanup_close_ int fd = -1;

        (void)state;
        add_disk("vdb", BL_WIRE_STORE_SERIAL);
        begin_agent();
        (void)ask(BL_ACTION_SWAP_ON, BL_UNSET);
        until_idle();
        assert_on_log(16384);
        put_swaps("", 3000, 16384);
        put_text("/step", "1000");
        assert_int_equal(ask(BL_ACTION_SWAP_OFF, BL_UNSET).status, BL_RESULT_DONE);
        assert_int_equal(report().v[BL_STAT_STORE_STATE], BL_STORE_SWAP_LEAVING);
        assert_int_equal(ask(BL_ACTION_SWAP_OFF, BL_UNSET).status, BL_RESULT_DONE);
        assert_int_equal(ask(BL_ACTION_SWAP_GIVE, BL_UNSET).status, BL_RESULT_BUSY);
        until_idle();
        assert_state(BL_STORE_SWAP_OFF, BL_UNSET);
        assert_log("off\noff\noff\ndiscard\n");
        path_of(path, sizeof path, "/dev/vdb");
        fd = open(path, O_RDONLY | O_CLOEXEC);
        assert_int_equal(read(fd, page, sizeof page), sizeof page);
        assert_memory_equal(page, zeros, sizeof page);
        /* asked again: the same again, for an agent that was started anew cannot know */
        assert_int_equal(ask(BL_ACTION_SWAP_OFF, BL_UNSET).status, BL_RESULT_DONE);
        until_idle();
        assert_state(BL_STORE_SWAP_OFF, BL_UNSET);
        assert_log("discard\n");
        /* and on again */
        assert_int_equal(ask(BL_ACTION_SWAP_ON, BL_UNSET).status, BL_RESULT_DONE);
        until_idle();
        assert_state(BL_STORE_SWAP_ON, BL_UNSET);
}

/* Of 1 GiB 51.2 MiB stay available; 8 MiB are in the swap cache. */
static void test_no_room(void **state)
{
        struct bl_wire_result r;

        (void)state;
        add_disk("vdb", BL_WIRE_STORE_SERIAL);
        put_swaps("", 108 * 1024, 16384);
        set_memory(150);
        begin_agent();
        r = ask(BL_ACTION_SWAP_OFF, BL_UNSET);
        assert_int_equal(r.status, BL_RESULT_NO_ROOM);
        assert_int_equal(r.need, 100 * BL_MIB);
        assert_int_equal(r.have, 150 * BL_MIB - BL_GIB / 20);
        r = ask(BL_ACTION_SWAP_GIVE, BL_UNSET);
        assert_int_equal(r.status, BL_RESULT_NO_ROOM);
        assert_int_equal(swap.child, 0);
        assert_state(BL_STORE_SWAP_ON, BL_UNSET);
        /* of the swap cache only ours counts: half */
        put_swaps("/dev/sda2 partition 999999 110592 -2\n", 108 * 1024, 16384);
        r = ask(BL_ACTION_SWAP_OFF, BL_UNSET);
        assert_int_equal(r.need, 104 * BL_MIB);
        set_memory(152);
        put_swaps("", 108 * 1024, 16384);
        assert_int_equal(ask(BL_ACTION_SWAP_OFF, BL_UNSET).status, BL_RESULT_DONE);
        until_idle();
        assert_state(BL_STORE_SWAP_OFF, BL_UNSET);
}

static void test_off_fails(void **state)
{
        (void)state;
        add_disk("vdb", BL_WIRE_STORE_SERIAL);
        put_swaps("", 3000, 16384);
        begin_agent();
        put_text("/off-errno", "1"); /* EPERM */
        assert_int_equal(ask(BL_ACTION_SWAP_OFF, BL_UNSET).status, BL_RESULT_DONE);
        until_idle();
        assert_state(BL_STORE_SWAP_ON, EPERM);
        put_text("/off-errno", "0");
        assert_int_equal(ask(BL_ACTION_SWAP_OFF, BL_UNSET).status, BL_RESULT_DONE);
        until_idle();
        assert_state(BL_STORE_SWAP_OFF, BL_UNSET);
}

/* The host has thought better of it; and one that the OOM killer took. */
static void test_interrupted(void **state)
{
        (void)state;
        add_disk("vdb", BL_WIRE_STORE_SERIAL);
        put_swaps("", 3000, 16384);
        put_text("/off-errno", "12"); /* memory is short, again and again */
        begin_agent();
        assert_int_equal(ask(BL_ACTION_SWAP_OFF, BL_UNSET).status, BL_RESULT_DONE);
        assert_int_equal(ask(BL_ACTION_SWAP_ON, BL_UNSET).status, BL_RESULT_BUSY);
        until_idle();
        assert_state(BL_STORE_SWAP_ON, BL_UNSET);
        assert_int_equal(ask(BL_ACTION_SWAP_ON, BL_UNSET).status, BL_RESULT_DONE);
        assert_int_equal(swap.child, 0);

        assert_int_equal(ask(BL_ACTION_SWAP_GIVE, BL_UNSET).status, BL_RESULT_DONE);
        assert_int_equal(ask(BL_ACTION_SWAP_ON, BL_UNSET).status, BL_RESULT_BUSY);
        assert_int_equal(ask(BL_ACTION_SWAP_OFF, BL_UNSET).status, BL_RESULT_BUSY);
        until_idle();
        assert_state(BL_STORE_SWAP_ON, BL_UNSET);

        assert_int_equal(ask(BL_ACTION_SWAP_OFF, BL_UNSET).status, BL_RESULT_DONE);
        assert_int_equal(kill(swap.child, SIGKILL), 0);
        until_idle();
        assert_state(BL_STORE_SWAP_ON, ENOMEM);
}

/* --- give ----------------------------------------------------------------------------------- */

static void test_give(void **state)
{
        (void)state;
        add_disk("vdb", BL_WIRE_STORE_SERIAL);
        put_swaps("", 3000, 7);
        put_text("/step", "1000");
        begin_agent();
        /* off, and on again where it was */
        assert_int_equal(ask(BL_ACTION_SWAP_GIVE, BL_MIB).status, BL_RESULT_DONE);
        until_idle();
        assert_state(BL_STORE_SWAP_ON, BL_UNSET);
        assert_int_equal(report().v[BL_STAT_STORE_USED], 0);
        {
                char want[256];

                (void)snprintf(want, sizeof want, "off\noff\noff\ndiscard\n%s/dev/vdb %x\n", root, 0x58007U);
                assert_log(want);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_swaps, setup, teardown),
                cmocka_unit_test_setup_teardown(test_no_disk, setup, teardown),
                cmocka_unit_test_setup_teardown(test_no_swap_at_all, setup, teardown),
                cmocka_unit_test_setup_teardown(test_on, setup, teardown),
                cmocka_unit_test_setup_teardown(test_priority, setup, teardown),
                cmocka_unit_test_setup_teardown(test_foreign, setup, teardown),
                cmocka_unit_test_setup_teardown(test_our_old_swap, setup, teardown),
                cmocka_unit_test_setup_teardown(test_two_disks, setup, teardown),
                cmocka_unit_test_setup_teardown(test_found_again, setup, teardown),
                cmocka_unit_test_setup_teardown(test_off, setup, teardown),
                cmocka_unit_test_setup_teardown(test_no_room, setup, teardown),
                cmocka_unit_test_setup_teardown(test_off_fails, setup, teardown),
                cmocka_unit_test_setup_teardown(test_interrupted, setup, teardown),
                cmocka_unit_test_setup_teardown(test_give, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
