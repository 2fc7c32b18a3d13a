/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/fault.h"
#include "daemon/ledger.h"
#include "daemon/util/fs.h"

static const uint8_t vm_a[BL_UUID_LEN] = {0xaa}, vm_b[BL_UUID_LEN] = {0xbb};
static const struct bl_instance one = {.pid = 100, .start = 5000}, two = {.pid = 200, .start = 6000};

struct dir {
        char path[64];
};

static int setup(void **state)
{
        struct dir *d = calloc(1, sizeof(*d));

        snprintf(d->path, sizeof(d->path), "/tmp/ballast-test-ledger-XXXXXX");
        assert_non_null(mkdtemp(d->path));
        *state = d;
        return 0;
}

static void each_file(const struct dir *d, void (*fn)(const char *path))
{
        DIR *dir = opendir(d->path);
        struct dirent *e;
        char path[400];

        while ((e = readdir(dir)))
                if (e->d_name[0] != '.') {
                        snprintf(path, sizeof(path), "%s/%s", d->path, e->d_name);
                        fn(path);
                }
        closedir(dir);
}

static void remove_file(const char *path)
{
        unlink(path);
}

static int teardown(void **state)
{
        struct dir *d = *state;

        each_file(d, remove_file);
        rmdir(d->path);
        free(d);
        return 0;
}

static struct bl_ledger *open_quiet(const struct dir *d, const char *boot)
{
        struct bl_ledger *l = NULL;
        char *message = NULL;

        assert_int_equal(bl_ledger_open(d->path, boot, &l, &message), 0);
        if (message)
                fail_msg("unexpected: %s", message);
        return l;
}

static void in_dir(const struct dir *d, const char *name, char *buf, size_t size)
{
        snprintf(buf, size, "%s/%s", d->path, name);
}

static void put(const struct dir *d, const char *text, size_t len)
{
        char path[400];
        int fd;

        in_dir(d, "ledger.json", path, sizeof(path));
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        assert_int_equal(write(fd, text, len), (ssize_t)len);
        close(fd);
}

/* Two VMs with everything that there is to remember. */
static void fill(struct bl_ledger *l)
{
        const struct bl_ledger_vm *v = NULL;

        bl_ledger_set_act(l, 1);
        bl_ledger_set_held(l, true);
        assert_int_equal(bl_ledger_add(l, vm_a, "alpha \"quoted\"", &v), 0);
        assert_ptr_equal(v, bl_ledger_find(l, vm_a));
        assert_int_equal(bl_ledger_set_instance(l, vm_a, &one, BL_BIRTH_SEEN, BL_UNSET), 0);
        assert_int_equal(bl_ledger_set_original(l, vm_a, 2 * BL_GIB), 1);
        assert_int_equal(bl_ledger_set_original(l, vm_a, BL_GIB), 0);
        assert_int_equal(bl_ledger_set_original_period(l, vm_a, 0), 1);
        assert_int_equal(bl_ledger_set_original_period(l, vm_a, 9), 0);
        assert_int_equal(bl_ledger_begin(l, vm_a, 2 * BL_GIB, BL_GIB + 4096, 1234), 0);
        assert_int_equal(bl_ledger_end(l, vm_a, BL_GIB + 4096, false, BL_TARGET_DONE), 0);
        assert_int_equal(bl_ledger_begin(l, vm_a, BL_GIB + 4096, 512 * BL_MIB, 5678), 0);
        assert_int_equal(bl_ledger_add(l, vm_b, "beta", NULL), 0);
        assert_int_equal(bl_ledger_set_hold(l, vm_b, BL_HOLD_ADMIN, "because", 99), 0);
}

static void check_filled(const struct bl_ledger *l)
{
        const struct bl_ledger_vm *a = bl_ledger_find(l, vm_a), *b = bl_ledger_find(l, vm_b);

        assert_int_equal(bl_ledger_act(l), 1);
        assert_true(bl_ledger_held(l));
        assert_int_equal(bl_ledger_count(l), 2);
        assert_string_equal(a->name, "alpha \"quoted\"");
        assert_true(bl_instance_equal(&a->instance, &one));
        assert_int_equal(a->original, 2 * BL_GIB);
        assert_int_equal(a->original_period, 0);
        assert_int_equal(a->n_targets, 2);
        assert_int_equal(a->targets[0].to, BL_GIB + 4096);
        assert_int_equal(a->targets[0].state, BL_TARGET_DONE);
        assert_int_equal(a->targets[1].state, BL_TARGET_IN_FLIGHT);
        assert_int_equal(a->targets[1].at_wall, 5678);
        assert_true(bl_ledger_vm_dirty(a));
        assert_int_equal(b->hold, BL_HOLD_ADMIN);
        assert_string_equal(b->hold_reason, "because");
        assert_int_equal(b->hold_at_wall, 99);
        assert_int_equal(bl_ledger_vm_dirty(b), b->merge_was >= 0);
}

static void test_new(void **state)
{
        struct bl_ledger *l = open_quiet(*state, "boot-1");

        assert_int_equal(bl_ledger_found(l), BL_LEDGER_NONE);
        assert_true(bl_ledger_trusted(l));
        assert_int_equal(bl_ledger_act(l), -1);
        assert_false(bl_ledger_held(l));
        assert_in_range(bl_ledger_phase(l), 4096, BL_MIB - 4096);
        assert_null(bl_ledger_find(l, vm_a));
        assert_int_equal(bl_ledger_set_hold(l, vm_a, BL_HOLD_HAND, "x", 1), -ENOENT);
        l = bl_ledger_free(l);
}

static void test_round_trip(void **state)
{
        struct bl_ledger *l = open_quiet(*state, "boot-1");
        uint64_t phase = bl_ledger_phase(l);

        fill(l);
        assert_int_equal(bl_ledger_save(l, true), 0);
        l = bl_ledger_free(l);
        l = open_quiet(*state, "boot-1");
        assert_int_equal(bl_ledger_found(l), BL_LEDGER_READ);
        assert_int_equal(bl_ledger_phase(l), phase);
        check_filled(l);
        l = bl_ledger_free(l);
}

static void test_host_boot(void **state)
{
        struct bl_ledger *l = open_quiet(*state, "boot-1");

        fill(l);
        assert_int_equal(bl_ledger_save(l, true), 0);
        l = bl_ledger_free(l);
        l = open_quiet(*state, "boot-2");
        assert_null(bl_ledger_find(l, vm_a));
        assert_int_equal(bl_ledger_find(l, vm_b)->hold, BL_HOLD_ADMIN);
        assert_int_equal(bl_ledger_act(l), 1);
        assert_true(bl_ledger_trusted(l));
        l = bl_ledger_free(l);
}

static void test_lock(void **state)
{
        struct dir *d = *state;
        struct bl_ledger *l = open_quiet(d, "boot-1"), *second = NULL;
        char *message = NULL, pid[32];

        assert_int_equal(bl_ledger_open(d->path, "boot-1", &second, &message), -EBUSY);
        assert_null(second);
        snprintf(pid, sizeof(pid), "process %d", getpid());
        assert_non_null(strstr(message, pid));
        free(message);
        l = bl_ledger_free(l);
        l = open_quiet(d, "boot-1");
        l = bl_ledger_free(l);

        assert_int_equal(bl_ledger_open("/nonexistent/state", "b", &second, &message), -ENOENT);
        assert_non_null(strstr(message, "/nonexistent/state"));
        free(message);
}

static size_t bad_files(const struct dir *d)
{
        char path[400];
        size_t n = 0;

        for (int i = 1; i < 100; i++) {
                snprintf(path, sizeof(path), "%s/ledger.json.bad-%d", d->path, i);
                if (access(path, F_OK) < 0)
                        break;
                n++;
        }
        return n;
}

/* A bad file is kept as it is, said, and nothing is trusted until told. */
static void check_bad(struct dir *d, const char *text, size_t len, enum bl_ledger_found expected)
{
        char path[400], name[64], *message = NULL, *kept = NULL;
        size_t before = bad_files(d), kept_len;
        struct bl_ledger *l = NULL;

        put(d, text, len);
        assert_int_equal(bl_ledger_open(d->path, "boot-1", &l, &message), 0);
        if (bl_ledger_found(l) != expected)
                fail_msg("found %d, not %d: %.*s", bl_ledger_found(l), expected, (int)len, text);
        assert_false(bl_ledger_trusted(l));
        assert_non_null(message);
        assert_int_equal(bl_ledger_count(l), 0);
        snprintf(name, sizeof(name), "ledger.json.bad-%zu", before + 1);
        assert_non_null(strstr(message, name));
        in_dir(d, name, path, sizeof(path));
        assert_int_equal(bl_fs_read_alloc(path, 1 << 20, &kept, &kept_len), 0);
        assert_int_equal(kept_len, len);
        assert_memory_equal(kept, text, len);
        free(kept);
        free(message);

        /* the next run still does not trust it, until told */
        assert_int_equal(bl_ledger_save(l, false), 0);
        l = bl_ledger_free(l);
        l = open_quiet(d, "boot-1");
        assert_false(bl_ledger_trusted(l));
        bl_ledger_trust(l);
        assert_int_equal(bl_ledger_save(l, false), 0);
        l = bl_ledger_free(l);
        l = open_quiet(d, "boot-1");
        assert_true(bl_ledger_trusted(l));
        l = bl_ledger_free(l);
}

static void test_truncated(void **state)
{
        struct dir *d = *state;
        struct bl_ledger *l = open_quiet(d, "boot-1");
        char path[400], *text = NULL;
        size_t len;

        fill(l);
        assert_int_equal(bl_ledger_save(l, false), 0);
        l = bl_ledger_free(l);
        in_dir(d, "ledger.json", path, sizeof(path));
        assert_int_equal(bl_fs_read_alloc(path, 1 << 20, &text, &len), 0);
        for (size_t i = 0; i < len; i += i < 40 || i + 40 > len ? 1 : 37) {
                check_bad(d, text, i, BL_LEDGER_DAMAGED);
                if (i % 5 == 0) { /* so that there are not a thousand of them */
                        each_file(d, remove_file);
                }
        }
        /* and whole */
        put(d, text, len);
        l = open_quiet(d, "boot-1");
        check_filled(l);
        l = bl_ledger_free(l);
        free(text);
}

/* Any byte changed: read, or refused and kept; never a crash. */
static void test_any_byte(void **state)
{
        struct dir *d = *state;
        struct bl_ledger *l = open_quiet(d, "boot-1");
        char path[400], *text = NULL;
        size_t len;

        fill(l);
        assert_int_equal(bl_ledger_save(l, false), 0);
        l = bl_ledger_free(l);
        in_dir(d, "ledger.json", path, sizeof(path));
        assert_int_equal(bl_fs_read_alloc(path, 1 << 20, &text, &len), 0);
        for (size_t i = 0; i < len; i++) {
                char *message = NULL, was = text[i];

                text[i] = (char)(i % 3 == 0 ? '-' : i % 3 == 1 ? '9' : 0xff);
                put(d, text, len);
                text[i] = was;
                assert_int_equal(bl_ledger_open(d->path, "boot-1", &l, &message), 0);
                assert_true((bl_ledger_found(l) == BL_LEDGER_READ) == (message == NULL));
                free(message);
                l = bl_ledger_free(l);
                if (i % 50 == 0)
                        each_file(d, remove_file);
        }
        free(text);
}

static void test_bad_contents(void **state)
{
        static const struct {
                const char *text;
                enum bl_ledger_found found;
        } table[] = {
                {"", BL_LEDGER_DAMAGED},
                {"not json", BL_LEDGER_DAMAGED},
                {"{\"version\": 1, \"version\": 2}", BL_LEDGER_DAMAGED},
                {"[]", BL_LEDGER_INVALID},
                {"{}", BL_LEDGER_INVALID},
                {"{\"version\": 0}", BL_LEDGER_INVALID},
                {"{\"version\": \"1\"}", BL_LEDGER_INVALID},
                {"{\"version\": 1}", BL_LEDGER_INVALID},
                {"{\"version\": 2, \"anything\": [1, 2]}", BL_LEDGER_NEWER},
#define HEAD "{\"version\": 1, \"boot_id\": \"boot-1\", \"act\": null, \"held\": false, \"trusted\": true, "
                {HEAD "\"phase\": 4096, \"vms\": []}", BL_LEDGER_INVALID},
                {HEAD "\"phase\": 0, \"vms\": {}}", BL_LEDGER_INVALID},
                {HEAD "\"phase\": 1048576, \"vms\": {}}", BL_LEDGER_INVALID},
                {HEAD "\"phase\": 4096, \"vms\": {\"x\": {}}}", BL_LEDGER_INVALID},
#define VM HEAD "\"phase\": 4096, \"vms\": {\"aa000000-0000-0000-0000-000000000000\": {\"name\": \"a\", "
                {VM "\"hold\": \"sometimes\"}}}", BL_LEDGER_INVALID},
                {VM "\"hold\": \"none\", \"original\": -1}}}", BL_LEDGER_INVALID},
                {VM "\"hold\": \"none\", \"original\": 1.5}}}", BL_LEDGER_INVALID},
                {VM "\"hold\": \"none\", \"pid\": 99999999999}}}", BL_LEDGER_INVALID},
                {VM "\"hold\": \"none\", \"targets\": [1]}}}", BL_LEDGER_INVALID},
                {VM "\"hold\": \"none\", \"merge_was\": 1}}}", BL_LEDGER_INVALID},
                {VM "\"hold\": \"none\", \"merge_was\": true}}}", BL_LEDGER_INVALID},
                {VM "\"hold\": \"none\", \"merge_was\": true, \"merge_pid\": -1}}}", BL_LEDGER_INVALID},
                {HEAD "\"phase\": 4096, \"vms\": {}, \"knobs\": []}", BL_LEDGER_INVALID},
                {HEAD "\"phase\": 4096, \"vms\": {}, \"knobs\": {\"ksm/run\": 1}}", BL_LEDGER_INVALID},
                {HEAD "\"phase\": 4096, \"vms\": {}, \"knobs\": {\"ksm/run\": {\"was\": \"0\"}}}", BL_LEDGER_INVALID},
                {HEAD "\"phase\": 4096, \"vms\": {}, \"knobs\": {\"ksm/run\": {\"was\": \"0\", \"ours\": \"1\", "
                      "\"before\": 0}}}",
                 BL_LEDGER_INVALID},
                {VM "\"hold\": \"none\", \"targets\": [{\"state\": \"done\"}]}}}", BL_LEDGER_INVALID},
                {VM "\"hold\": \"none\", \"targets\": [{},{},{},{},{},{},{},{},{}]}}}", BL_LEDGER_INVALID},
        };

        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
                check_bad(*state, table[i].text, strlen(table[i].text), table[i].found);
}

static void test_instances(void **state)
{
        struct bl_ledger *l = open_quiet(*state, "boot-1");
        const uint64_t last = 512 * BL_MIB;

        for (int keep = 0; keep < 2; keep++)
                for (int birth = 0; birth < 3; birth++) {
                        bool kept = keep && birth != BL_BIRTH_BOOTED;

                        fill(l);
                        assert_int_equal(bl_ledger_set_hold(l, vm_a, BL_HOLD_HAND, "setmem", 7), 0);
                        /* the same instance: nothing */
                        assert_int_equal(bl_ledger_set_instance(l, vm_a, &one, (enum bl_ledger_birth)birth, BL_UNSET),
                                         0);
                        assert_int_equal(bl_ledger_find(l, vm_a)->n_targets, 2);
                        assert_int_equal(bl_ledger_set_instance(l, vm_a, &two, (enum bl_ledger_birth)birth,
                                                                keep ? last : last + BL_MIB),
                                         !kept);
                        assert_int_equal(bl_ledger_vm_dirty(bl_ledger_find(l, vm_a)), kept);
                        assert_int_equal(bl_ledger_find(l, vm_a)->n_targets, kept ? 2 : 0);
                        assert_int_equal(bl_ledger_find(l, vm_a)->hold,
                                         birth == BL_BIRTH_BOOTED ? BL_HOLD_NONE : BL_HOLD_HAND);
                        bl_ledger_gone(l, vm_a, false);
                        assert_null(bl_ledger_find(l, vm_a));
                }
        /* off: forgotten, but for what the administrator said */
        fill(l);
        bl_ledger_gone(l, vm_a, true);
        bl_ledger_gone(l, vm_b, true);
        assert_null(bl_ledger_find(l, vm_a));
        assert_int_equal(bl_ledger_find(l, vm_b)->hold, BL_HOLD_ADMIN);
        bl_ledger_gone(l, vm_b, false);
        assert_int_equal(bl_ledger_count(l), 0);
        l = bl_ledger_free(l);
}

static void test_targets(void **state)
{
        struct bl_ledger *l = open_quiet(*state, "boot-1");
        const struct bl_ledger_vm *v = NULL;

        assert_int_equal(bl_ledger_add(l, vm_a, "a", &v), 0);
        for (uint64_t i = 1; i <= 20; i++) {
                assert_int_equal(bl_ledger_begin(l, vm_a, i, i * BL_MIB, i), 0);
                assert_int_equal(bl_ledger_end(l, vm_a, i * BL_MIB, i % 4 == 0, BL_TARGET_DONE), 0);
        }
        assert_int_equal(v->n_targets, BL_LEDGER_TARGETS - 1);
        assert_int_equal(v->targets[v->n_targets - 1].to, 19 * BL_MIB);
        assert_int_equal(bl_ledger_forget_targets(l, vm_a), 0);
        assert_int_equal(v->n_targets, 0);
        /* an answer to nothing */
        assert_int_equal(bl_ledger_end(l, vm_a, BL_MIB, false, BL_TARGET_DONE), 0);
        l = bl_ledger_free(l);
}

#ifdef BALLAST_FAULTS /* make FAULTS=1 */
/* Killed or failing at every step of a save: the old or the new one, whole. */
static void test_faults(void **state)
{
        static const char *const points[] = {"ledger-before-write", "ledger-tmp-written", "ledger-renamed"};
        struct dir *d = *state;

        for (int i = 0; i < 6; i++) {
                struct bl_ledger *l = open_quiet(d, "boot-1");
                int status;
                pid_t pid;
                char rule[64];

                bl_ledger_set_act(l, 0);
                assert_int_equal(bl_ledger_save(l, true), 0);
                l = bl_ledger_free(l);
                pid = fork();
                if (pid == 0) {
                        char *message = NULL;

                        snprintf(rule, sizeof(rule), "%s@%s", i % 2 ? "kill" : "fail", points[i / 2]);
                        if (bl_ledger_open(d->path, "boot-1", &l, &message) < 0 || bl_fault_set(rule) < 0)
                                _exit(9);
                        bl_ledger_set_act(l, 1);
                        _exit(bl_ledger_save(l, true) < 0 ? 1 : 0);
                }
                assert_int_equal(waitpid(pid, &status, 0), pid);
                assert_true(i % 2 ? WIFSIGNALED(status) : WIFEXITED(status) && WEXITSTATUS(status) == 1);
                l = open_quiet(d, "boot-1");
                assert_int_equal(bl_ledger_act(l), i / 2 == 2);
                l = bl_ledger_free(l);
        }
}
#endif

/* A save that failed is tried again by the next one. */
static void test_save_fails(void **state)
{
        struct dir *d = *state;
        struct bl_ledger *l = open_quiet(d, "boot-1");
        char path[400];

        in_dir(d, "ledger.json.tmp", path, sizeof(path));
        assert_int_equal(mkdir(path, 0700), 0);
        bl_ledger_set_act(l, 1);
        assert_true(bl_ledger_save(l, true) < 0);
        assert_int_equal(rmdir(path), 0);
        assert_int_equal(bl_ledger_save(l, false), 0);
        l = bl_ledger_free(l);
        l = open_quiet(d, "boot-1");
        assert_int_equal(bl_ledger_act(l), 1);
        l = bl_ledger_free(l);
}

/* Whether a rollback was under way is known to the next daemon, also on the
 * next boot; a file from before there was this has none. */
static void test_rollback(void **state)
{
        struct dir *d = *state;
        struct bl_ledger *l = open_quiet(d, "boot-1");
        char path[128];
        FILE *f;

        assert_int_equal(bl_ledger_rollback(l), BL_ROLLBACK_NONE);
        bl_ledger_set_rollback(l, BL_ROLLBACK_RUNNING);
        assert_int_equal(bl_ledger_save(l, true), 0);
        (void)bl_ledger_free(l);
        l = open_quiet(d, "boot-1");
        assert_int_equal(bl_ledger_rollback(l), BL_ROLLBACK_RUNNING);
        bl_ledger_set_rollback(l, BL_ROLLBACK_DONE);
        assert_int_equal(bl_ledger_save(l, true), 0);
        (void)bl_ledger_free(l);
        l = open_quiet(d, "boot-2");
        assert_int_equal(bl_ledger_rollback(l), BL_ROLLBACK_DONE);
        (void)bl_ledger_free(l);

        in_dir(d, "ledger.json", path, sizeof(path));
        f = fopen(path, "we");
        assert_non_null(f);
        fputs("{\"version\": 1, \"boot_id\": \"boot-2\", \"act\": null, \"held\": false, \"trusted\": true, "
              "\"phase\": 4096, \"vms\": {}}",
              f);
        fclose(f);
        l = open_quiet(d, "boot-2");
        assert_int_equal(bl_ledger_rollback(l), BL_ROLLBACK_NONE);
        assert_int_equal(bl_ledger_phase(l), 4096);
        (void)bl_ledger_free(l);
}

/* A drain is of one process of the VM, and known to the next daemon. */
static void test_drained(void **state)
{
        struct bl_ledger *l = open_quiet(*state, "boot-1");

        assert_int_equal(bl_ledger_set_drained(l, vm_a, &one), -ENOENT);
        fill(l);
        assert_int_equal(bl_ledger_find(l, vm_a)->drained.pid, 0);
        assert_int_equal(bl_ledger_set_drained(l, vm_a, &one), 0);
        assert_int_equal(bl_ledger_set_drained(l, vm_b, &two), 0);
        assert_int_equal(bl_ledger_save(l, true), 0);
        (void)bl_ledger_free(l);
        l = open_quiet(*state, "boot-1");
        check_filled(l);
        assert_true(bl_instance_equal(&bl_ledger_find(l, vm_a)->drained, &one));
        assert_true(bl_instance_equal(&bl_ledger_find(l, vm_b)->drained, &two));
        /* said before the VM's process was known, and kept then */
        assert_int_equal(bl_ledger_set_instance(l, vm_b, &two, BL_BIRTH_BOOTED, BL_UNSET), 0);
        assert_true(bl_instance_equal(&bl_ledger_find(l, vm_b)->drained, &two));
        assert_int_equal(bl_ledger_set_instance(l, vm_a, &two, BL_BIRTH_MOVED, 512 * BL_MIB), 0);
        assert_int_equal(bl_ledger_find(l, vm_a)->drained.pid, 0);
        bl_ledger_gone(l, vm_b, true);
        assert_int_equal(bl_ledger_find(l, vm_b)->drained.pid, 0);
        assert_int_equal(bl_ledger_set_drained(l, vm_b, &two), 0);
        assert_int_equal(bl_ledger_set_drained(l, vm_a, &two), 0);
        assert_int_equal(bl_ledger_set_drained(l, vm_a, NULL), 0);
        assert_int_equal(bl_ledger_find(l, vm_a)->drained.pid, 0);
        assert_int_equal(bl_ledger_save(l, true), 0);
        (void)bl_ledger_free(l);
        l = open_quiet(*state, "boot-2");
        assert_int_equal(bl_ledger_find(l, vm_b)->drained.pid, 0);
        (void)bl_ledger_free(l);
}

/* What `merge` of a VM was is of one process, whatever becomes of its balloon. */
static void test_merge_was(void **state)
{
        struct bl_ledger *l = open_quiet(*state, "boot-1");
        const uint64_t last = 512 * BL_MIB;

        assert_int_equal(bl_ledger_set_merge_was(l, vm_a, &one, true), -ENOENT);
        assert_int_equal(bl_ledger_forget_merge_was(l, vm_a), -ENOENT);
        fill(l);
        assert_int_equal(bl_ledger_find(l, vm_a)->merge_was, -1);
        assert_int_equal(bl_ledger_set_merge_was(l, vm_a, &one, true), 1);
        assert_int_equal(bl_ledger_set_merge_was(l, vm_a, &one, false), 0);
        assert_int_equal(bl_ledger_find(l, vm_a)->merge_was, 1);
        /* this alone is something to be undone */
        assert_false(bl_ledger_vm_dirty(bl_ledger_find(l, vm_b)));
        assert_int_equal(bl_ledger_set_merge_was(l, vm_b, &two, false), 1);
        assert_true(bl_ledger_vm_dirty(bl_ledger_find(l, vm_b)));
        assert_int_equal(bl_ledger_save(l, false), 0);
        (void)bl_ledger_free(l);

        l = open_quiet(*state, "boot-1");
        check_filled(l);
        assert_int_equal(bl_ledger_find(l, vm_a)->merge_was, 1);
        assert_true(bl_instance_equal(&bl_ledger_find(l, vm_a)->merge_of, &one));
        assert_int_equal(bl_ledger_find(l, vm_b)->merge_was, 0);
        assert_true(bl_instance_equal(&bl_ledger_find(l, vm_b)->merge_of, &two));
        /* recorded before the ledger knew the process, which has booted since the ledger last saw the VM */
        assert_int_equal(bl_ledger_set_instance(l, vm_b, &two, BL_BIRTH_BOOTED, BL_UNSET), 0);
        assert_int_equal(bl_ledger_find(l, vm_b)->merge_was, 0);
        assert_int_equal(bl_ledger_forget_merge_was(l, vm_b), 0);
        assert_int_equal(bl_ledger_find(l, vm_b)->merge_was, -1);
        assert_false(bl_ledger_vm_dirty(bl_ledger_find(l, vm_b)));
        /* migrated in: the balloon came with it, the property did not */
        assert_int_equal(bl_ledger_set_instance(l, vm_a, &two, BL_BIRTH_MOVED, last), 1);
        assert_int_equal(bl_ledger_find(l, vm_a)->merge_was, -1);
        assert_int_equal(bl_ledger_find(l, vm_a)->original, 2 * BL_GIB);
        /* another process of the same VM is another original */
        assert_int_equal(bl_ledger_set_merge_was(l, vm_a, &two, false), 1);
        assert_int_equal(bl_ledger_set_merge_was(l, vm_a, &one, true), 1);
        assert_int_equal(bl_ledger_find(l, vm_a)->merge_was, 1);
        assert_int_equal(bl_ledger_set_merge_was(l, vm_b, &two, true), 1);
        bl_ledger_gone(l, vm_b, true);
        assert_int_equal(bl_ledger_find(l, vm_b)->merge_was, -1);
        assert_int_equal(bl_ledger_set_merge_was(l, vm_b, &two, true), 1);
        assert_int_equal(bl_ledger_save(l, false), 0);
        (void)bl_ledger_free(l);

        l = open_quiet(*state, "boot-2");
        assert_int_equal(bl_ledger_find(l, vm_b)->merge_was, -1);
        (void)bl_ledger_free(l);
}

static void check_knob(const struct bl_ledger *l, const char *path, const char *was, const char *ours,
                       const char *before)
{
        const struct bl_ledger_knob *k = bl_ledger_find_knob(l, path);

        assert_non_null(k);
        assert_string_equal(k->path, path);
        assert_string_equal(k->was, was);
        assert_string_equal(k->ours, ours);
        assert_int_equal(k->before != NULL, before != NULL);
        if (before)
                assert_string_equal(k->before, before);
}

/* The host's knobs: the first value is the original; between begin and end there are two that may be there. */
static void test_knobs(void **state)
{
        struct bl_ledger *l = open_quiet(*state, "boot-1");
        char path[32];

        assert_null(bl_ledger_find_knob(l, "ksm/run"));
        assert_int_equal(bl_ledger_end_knob(l, "ksm/run"), -ENOENT);
        assert_int_equal(bl_ledger_forget_knob(l, "ksm/run"), -ENOENT);
        assert_int_equal(bl_ledger_begin_knob(l, "ksm/run", "0", "1"), 0);
        check_knob(l, "ksm/run", "0", "1", "0");
        assert_int_equal(bl_ledger_end_knob(l, "ksm/run"), 0);
        check_knob(l, "ksm/run", "0", "1", NULL);
        assert_int_equal(bl_ledger_begin_knob(l, "ksm/pages_to_scan", "100", "2000"), 0);
        assert_int_equal(bl_ledger_end_knob(l, "ksm/pages_to_scan"), 0);
        assert_int_equal(bl_ledger_begin_knob(l, "ksm/pages_to_scan", "2000", "500"), 0);
        check_knob(l, "ksm/pages_to_scan", "100", "500", "2000");
        assert_int_equal(bl_ledger_save(l, false), 0);
        (void)bl_ledger_free(l);

        l = open_quiet(*state, "boot-1");
        assert_int_equal(bl_ledger_count_knobs(l), 2);
        check_knob(l, "ksm/run", "0", "1", NULL);
        check_knob(l, "ksm/pages_to_scan", "100", "500", "2000");
        assert_int_equal(bl_ledger_forget_knob(l, "ksm/run"), 0);
        assert_null(bl_ledger_find_knob(l, "ksm/run"));
        check_knob(l, "ksm/pages_to_scan", "100", "500", "2000");
        for (int i = 1; i < BL_LEDGER_KNOBS; i++) {
                snprintf(path, sizeof(path), "knob-%d", i);
                assert_int_equal(bl_ledger_begin_knob(l, path, "a", "b \"c\""), 0);
        }
        assert_int_equal(bl_ledger_begin_knob(l, "one-too-many", "a", "b"), -ENOSPC);
        assert_int_equal(bl_ledger_save(l, false), 0);
        (void)bl_ledger_free(l);

        l = open_quiet(*state, "boot-1");
        assert_int_equal(bl_ledger_count_knobs(l), BL_LEDGER_KNOBS);
        check_knob(l, "knob-31", "a", "b \"c\"", "a");
        (void)bl_ledger_free(l);
        /* a boot has put them back */
        l = open_quiet(*state, "boot-2");
        assert_int_equal(bl_ledger_count_knobs(l), 0);
        (void)bl_ledger_free(l);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_rollback, setup, teardown),
                cmocka_unit_test_setup_teardown(test_drained, setup, teardown),
                cmocka_unit_test_setup_teardown(test_merge_was, setup, teardown),
                cmocka_unit_test_setup_teardown(test_knobs, setup, teardown),
                cmocka_unit_test_setup_teardown(test_new, setup, teardown),
                cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
                cmocka_unit_test_setup_teardown(test_host_boot, setup, teardown),
                cmocka_unit_test_setup_teardown(test_lock, setup, teardown),
                cmocka_unit_test_setup_teardown(test_truncated, setup, teardown),
                cmocka_unit_test_setup_teardown(test_any_byte, setup, teardown),
                cmocka_unit_test_setup_teardown(test_bad_contents, setup, teardown),
                cmocka_unit_test_setup_teardown(test_instances, setup, teardown),
                cmocka_unit_test_setup_teardown(test_targets, setup, teardown),
#ifdef BALLAST_FAULTS
                cmocka_unit_test_setup_teardown(test_faults, setup, teardown),
#endif
                cmocka_unit_test_setup_teardown(test_save_fails, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
