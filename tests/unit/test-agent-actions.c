/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ballast-agent: what the host may ask for, in a guest whose /proc and /sys are files of ours. */
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

#include "guestagent/actions.h"
#include "guestagent/hints.h"

#define CACHE (HINT_KPF_LRU | HINT_KPF_UPTODATE)

static char root[64];
static struct guest_actions actions;
static usec_t now;

static int setup(void **state)
{
        char command[512];

        (void)state;
        (void)snprintf(root, sizeof root, "/tmp/test-agent.XXXXXX");
        assert_non_null(mkdtemp(root));
        (void)snprintf(command, sizeof command,
                       "cd %s && mkdir -p proc/sys/vm proc/1 proc/self sys/fs/cgroup/a.slice sys/fs/cgroup/b.slice "
                       "sys/fs/cgroup/.hidden && : > proc/self/pagemap",
                       root);
        assert_int_equal(system(command), 0);
        guest_actions_init(&actions, root);
        now = 1000 * BL_SEC;
        return 0;
}

static int teardown(void **state)
{
        char command[96];

        (void)state;
        guest_actions_cancel(&actions);
        for (int i = 0; i < 1000 && actions.child > 0; i++) {
                (void)usleep(1000);
                guest_actions_step(&actions, now);
        }
        assert_int_equal(actions.child, 0);
        assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* nobody is left behind */
        (void)snprintf(command, sizeof command, "rm -rf '%s'", root);
        return system(command);
}

static void put_file(const char *name, const void *data, size_t size)
{
        char path[160];
        _cleanup_close_ int fd = -1;

        (void)snprintf(path, sizeof path, "%s%s", root, name);
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, data, size), size);
}

static void put_text(const char *name, const char *text)
{
        put_file(name, text, strlen(text));
}

static void get_text(const char *name, char *buf, size_t size)
{
        char path[160];
        _cleanup_close_ int fd = -1;
        ssize_t n;

        (void)snprintf(path, sizeof path, "%s%s", root, name);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        n = fd < 0 ? -1 : read(fd, buf, size - 1);
        assert_true(n >= 0);
        buf[n] = '\0';
}

static void begin(uint64_t id, uint64_t kind, uint64_t bytes)
{
        struct bl_wire_action a = {.id = id, .kind = kind, .bytes = bytes};

        guest_actions_begin(&actions, &a, now);
}

/* --- what arrives --------------------------------------------------------------------- */

static struct {
        int hints;
        uint64_t bytes; /* of messages of hints */
        uint64_t scan;
        uint64_t pages[_BL_HINT_MAX];
        struct bl_wire_run first[_BL_HINT_MAX];
        uint64_t flags; /* of the last */
        bool after_last;
        struct bl_wire_result result;
} got;

static void take_hints(const struct bl_wire_frame *f)
{
        struct bl_wire_hints h;
        struct bl_wire_run run;
        size_t pos = 0;
        uint64_t pfn = 0;
        int r;

        assert_int_equal(bl_wire_decode_hints(f, &h), 0);
        assert_true(h.kind > 0 && h.kind < _BL_HINT_MAX);
        got.after_last |= (got.flags & BL_HINTS_LAST) != 0;
        got.flags = h.flags;
        got.scan = h.scan;
        got.hints++;
        got.bytes += f->size + BL_WIRE_HEADER;
        while ((r = bl_wire_run_next(&h, &pos, &pfn, &run)) > 0) {
                if (got.pages[h.kind] == 0)
                        got.first[h.kind] = run;
                got.pages[h.kind] += run.pages;
        }
        assert_int_equal(r, 0);
}

/* Plays the session until a result is there: the time that it took, by `now`. */
static usec_t until_result(void)
{
        usec_t start = now;

        memset(&got, 0, sizeof got);
        for (int i = 0; i < 100000; i++) {
                uint8_t buf[BL_WIRE_FRAME_MAX];
                struct pollfd p;
                struct bl_wire_iter it;
                struct bl_wire_frame f;
                usec_t wait = guest_actions_poll(&actions, &p, now);
                size_t n;

                if (p.fd >= 0)
                        (void)poll(&p, 1, 1);
                else if (actions.frame > 0)
                        now += bl_min(wait, BL_SEC);
                guest_actions_step(&actions, now);
                n = guest_actions_message(&actions, buf, sizeof buf, now);
                if (n == 0)
                        continue;
                bl_wire_iter_init(&it, buf, n);
                assert_int_equal(bl_wire_next(&it, &f), 1);
                assert_int_equal(it.pos, n); /* whole messages only */
                guest_actions_sent(&actions, now);
                if (f.type == BL_WIRE_RESULT) {
                        assert_int_equal(bl_wire_decode_result(&f, &got.result), 0);
                        return now - start;
                }
                take_hints(&f);
        }
        fail_msg("no result");
        return 0;
}

/* Reaps the child, which ends a moment after its result. */
static void until_idle(void)
{
        for (int i = 0; i < 1000 && actions.child > 0; i++) {
                (void)usleep(1000);
                guest_actions_step(&actions, now);
        }
        assert_int_equal(actions.child, 0);
}

/* --- hints ----------------------------------------------------------------------------- */

static void test_kinds(void **state)
{
        (void)state;
        assert_int_equal(hint_kind(0), 0);
        assert_int_equal(hint_kind(HINT_KPF_BUDDY), BL_HINT_FREE);
        assert_int_equal(hint_kind(HINT_KPF_BUDDY | HINT_KPF_HWPOISON), 0);
        assert_int_equal(hint_kind(HINT_KPF_NOPAGE), 0);
        assert_int_equal(hint_kind(CACHE), BL_HINT_INACTIVE_FILE);
        assert_int_equal(hint_kind(HINT_KPF_LRU), 0); /* being read */
        for (int bit = 0; bit < 21; bit++) {
                static const uint64_t harmless = HINT_KPF(2) | HINT_KPF(3) | HINT_KPF(5) | HINT_KPF(7) | HINT_KPF(9) |
                                                 HINT_KPF(10) | HINT_KPF(11) | HINT_KPF(15) | HINT_KPF(16) |
                                                 HINT_KPF(17);

                if (!(harmless & HINT_KPF(bit)))
                        assert_int_equal(hint_kind(CACHE | HINT_KPF(bit)), 0);
        }
}

static void put_flags(const uint64_t *flags, size_t n)
{
        put_file("/proc/kpageflags", flags, n * sizeof *flags);
}

static void test_scan(void **state)
{
        uint64_t flags[40000] = {0}; /* more than is read at once */

        (void)state;
        for (size_t i = 8000; i < 8500; i++) /* across the border of two reads */
                flags[i] = HINT_KPF_BUDDY;
        for (size_t i = 8500; i < 8600; i++)
                flags[i] = CACHE;
        flags[39999] = HINT_KPF_BUDDY;
        put_flags(flags, 40000);
        assert_int_equal(guest_actions_features(&actions), BL_WIRE_FEATURE_HINTS);
        begin(5, BL_ACTION_HINTS, BL_UNSET);
        (void)until_result();
        assert_int_equal(got.result.id, 5);
        assert_int_equal(got.result.status, BL_RESULT_DONE);
        assert_int_equal(got.result.bytes, 601 * 4096);
        assert_true(got.result.took != BL_UNSET);
        assert_int_equal(got.hints, 2);
        assert_int_equal(got.flags, BL_HINTS_LAST);
        assert_false(got.after_last);
        assert_int_equal(got.pages[BL_HINT_FREE], 501);
        assert_int_equal(got.first[BL_HINT_FREE].pfn, 8000);
        assert_int_equal(got.first[BL_HINT_FREE].pages, 500);
        assert_int_equal(got.pages[BL_HINT_INACTIVE_FILE], 100);
        assert_int_equal(got.first[BL_HINT_INACTIVE_FILE].pfn, 8500);
        until_idle();
}

/* Nothing to hint at is said, too. */
static void test_scan_empty(void **state)
{
        uint64_t flags[16] = {0};

        (void)state;
        put_flags(flags, 16);
        begin(1, BL_ACTION_HINTS, BL_UNSET);
        (void)until_result();
        assert_int_equal(got.hints, 1);
        assert_int_equal(got.flags, BL_HINTS_LAST);
        assert_int_equal(got.result.status, BL_RESULT_DONE);
        assert_int_equal(got.result.bytes, 0);
}

/* Memory in crumbs: never more than was asked for, nor than 256 KiB, nor faster than 32 KiB/s. */
static void test_budget(void **state)
{
        static uint64_t flags[600000];
        static const uint64_t budgets[] = {0, 10, 100, 300, 5000, 100000, BL_UNSET};

        (void)state;
        for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i += 2)
                flags[i] = i % 4 ? HINT_KPF_BUDDY : CACHE;
        put_flags(flags, sizeof flags / sizeof flags[0]);
        for (size_t i = 0; i < sizeof budgets / sizeof budgets[0]; i++) {
                usec_t took;

                begin(1, BL_ACTION_HINTS, budgets[i]);
                took = until_result();
                assert_int_equal(got.result.status, BL_RESULT_PARTLY);
                assert_int_equal(got.flags, BL_HINTS_LAST | BL_HINTS_CUT);
                /* the message that says that it was the last is free */
                assert_true(got.bytes <= bl_max(bl_min(budgets[i], 256 * BL_KIB), 100));
                assert_int_equal(got.scan, i + 1);
                if (i > 0 && budgets[i] >= 100000) {
                        assert_true(got.bytes > 40000);
                        assert_true(got.pages[BL_HINT_FREE] > 1000 && got.pages[BL_HINT_INACTIVE_FILE] > 1000);
                        assert_true(took >= got.bytes * BL_SEC / (33 * BL_KIB));
                }
                until_idle();
                now += GUEST_HINTS_GAP;
        }
}

static void test_too_soon(void **state)
{
        uint64_t flags[16] = {HINT_KPF_BUDDY};

        (void)state;
        put_flags(flags, 16);
        begin(1, BL_ACTION_HINTS, BL_UNSET);
        /* two at once */
        begin(2, BL_ACTION_HINTS, BL_UNSET);
        (void)until_result();
        assert_int_equal(got.result.id, 2);
        assert_int_equal(got.result.status, BL_RESULT_BUSY);
        (void)until_result();
        assert_int_equal(got.result.id, 1);
        assert_int_equal(got.result.status, BL_RESULT_DONE);
        until_idle();
        begin(3, BL_ACTION_HINTS, BL_UNSET);
        (void)until_result();
        assert_int_equal(got.result.status, BL_RESULT_BUSY);
        now += GUEST_HINTS_GAP;
        begin(4, BL_ACTION_HINTS, BL_UNSET);
        (void)until_result();
        assert_int_equal(got.result.status, BL_RESULT_DONE);
}

/* A child that never gets anywhere, in the place of one that guest_actions_begin made. */
static void begin_stuck(uint64_t id)
{
        int fds[2];

        assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
        actions.child = fork();
        if (actions.child == 0)
                for (;;)
                        (void)pause();
        assert_true(actions.child > 0);
        (void)close(fds[1]);
        actions.pipe = fds[0];
        actions.id = id;
        actions.kind = BL_ACTION_HINTS;
        actions.killed = false;
        actions.began_at = now;
        actions.kill_at = now + GUEST_ACTION_TIME;
}

/* A child that hangs is killed, one that dies has failed; either way the next one can begin. */
static void test_lost_child(void **state)
{
        uint64_t flags[16] = {HINT_KPF_BUDDY};
        struct pollfd p;

        (void)state;
        put_flags(flags, 16);
        begin_stuck(9);
        assert_int_equal(guest_actions_poll(&actions, &p, now), GUEST_ACTION_TIME);
        guest_actions_step(&actions, now + GUEST_ACTION_TIME - 1);
        assert_false(actions.killed);
        now += GUEST_ACTION_TIME;
        guest_actions_step(&actions, now);
        assert_true(actions.killed);
        (void)until_result();
        assert_int_equal(got.result.id, 9);
        assert_int_equal(got.result.status, BL_RESULT_FAILED);
        until_idle();

        begin_stuck(10);
        (void)kill(actions.child, SIGKILL);
        (void)until_result();
        assert_int_equal(got.result.id, 10);
        assert_int_equal(got.result.status, BL_RESULT_FAILED);
        until_idle();

        /* whoever asked is gone: no result, and no child */
        begin_stuck(11);
        guest_actions_cancel(&actions);
        until_idle();
        assert_false(actions.reply_due);
        assert_int_equal(actions.pipe, -1);

        begin(12, BL_ACTION_HINTS, BL_UNSET);
        (void)until_result();
        assert_int_equal(got.result.id, 12);
        assert_int_equal(got.result.status, BL_RESULT_DONE);
}

static void test_stream(void **state)
{
        struct hint_sink sink = {.fd = -1, .left = 1000};
        struct hint_stream s = {.kind = BL_HINT_FILE, .file = 7};
        struct bl_wire_run run = {.pfn = 100, .pages = 1, .index = 5};

        (void)state;
        assert_int_equal(hint_add(&sink, &s, &run), 0);
        run.pfn = 50; /* back: never within a message */
        assert_int_equal(hint_add(&sink, &s, &run), -EINVAL);
        hint_flush(&sink, &s);
        assert_int_equal(hint_add(&sink, &s, &run), 0);
        hint_flush(&sink, &s); /* nobody reads: noticed, and no more is written */
        assert_int_equal(sink.error, -EBADF);
        assert_int_equal(hint_add(&sink, &s, &run), -EBADF);
        assert_int_equal(sink.given, 2 * 4096);
        assert_true(sink.left <= 1000 - 2 * HINT_OVERHEAD);
}

static void test_mappings(void **state)
{
        char good[] = "5581a0000000-5581a0002000 r-xp 00002000 fe:01 1234                       /usr/lib/x y.so\n";
        static const char *const bad[] = {
                "5581a0000000-5581a0002000 r--p 00002000 fe:01 1234 /usr/bin/env\n",
                "5581a0000000-5581a0002000 r-xp 00000000 00:00 0 \n",
                "7ffd1000-7ffd2000 r-xp 00000000 00:00 0 [vdso]\n",
                "5581a0000000-5581a0002000 r-xp 00002000 fe:01 1234 anon_inode:x\n",
                "5581a000-5581c000 r-x 0 fe:01 1 /x\n",
                "",
                "x",
                "\n",
        };
        struct hint_mapping m;

        (void)state;
        assert_true(hint_parse_mapping(good, &m));
        assert_int_equal(m.major, 0xfe);
        assert_int_equal(m.minor, 1);
        assert_int_equal(m.inode, 1234);
        assert_string_equal(m.path, "/usr/lib/x y.so");
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
                _cleanup_free_ char *line = strdup(bad[i]);

                if (hint_parse_mapping(line, &m))
                        fail_msg("%s", bad[i]);
        }
}

/* The same on both sides of the wire, and in every version: FNV-1a 64 of "/bin/sh\0" "125640\0" "17\0". */
static void test_identity(void **state)
{
        static const char text[] = "/bin/sh\0"
                                   "125640\0"
                                   "17";
        uint64_t hash = UINT64_C(14695981039346656037);

        (void)state;
        for (size_t i = 0; i < sizeof text; i++)
                hash = (hash ^ (uint8_t)text[i]) * UINT64_C(1099511628211);
        assert_int_equal(hint_identity("/bin/sh", 125640, 17), hash);
        assert_int_not_equal(hint_identity("/bin/sh", 125640, 18), hash);
        assert_int_not_equal(hint_identity("/bin/sh1", 25640, 17), hash);
}

/* --- trim and compact ------------------------------------------------------------------- */

static void test_trim(void **state)
{
        char text[128];

        (void)state;
        begin(1, BL_ACTION_TRIM, BL_MIB);
        (void)until_result();
        assert_int_equal(got.result.status, BL_RESULT_UNKNOWN);
        /* 100 MiB of cache, 60 of them idle, of which 20 are dirty; another cgroup has none */
        put_text("/sys/fs/cgroup/a.slice/memory.stat",
                 "anon 7\nfile 104857600\nfile_mapped 99\nfile_dirty 10485760\n"
                 "file_writeback 10485760\ninactive_anon 5\ninactive_file 62914560\n");
        put_text("/sys/fs/cgroup/b.slice/memory.stat", "file 1048576\ninactive_file 1048576\n");
        put_text("/sys/fs/cgroup/a.slice/memory.reclaim", "");
        put_text("/sys/fs/cgroup/b.slice/memory.reclaim", "");
        put_text("/sys/fs/cgroup/.hidden/memory.reclaim", "");
        assert_int_equal(guest_actions_features(&actions), BL_WIRE_FEATURE_TRIM);
        begin(2, BL_ACTION_TRIM, BL_GIB);
        (void)until_result();
        until_idle();
        /* these files give nothing back: that is what is said, after one slice */
        assert_int_equal(got.result.status, BL_RESULT_PARTLY);
        assert_int_equal(got.result.bytes, 0);
        get_text("/sys/fs/cgroup/a.slice/memory.reclaim", text, sizeof text);
        assert_string_equal(text, "16777216 swappiness=0");
        get_text("/sys/fs/cgroup/b.slice/memory.reclaim", text, sizeof text);
        assert_string_equal(text, "");
        get_text("/sys/fs/cgroup/.hidden/memory.reclaim", text, sizeof text);
        assert_string_equal(text, "");
        /* never more than was asked for */
        put_text("/sys/fs/cgroup/a.slice/memory.reclaim", "");
        begin(3, BL_ACTION_TRIM, 3 * BL_MIB);
        (void)until_result();
        until_idle();
        get_text("/sys/fs/cgroup/a.slice/memory.reclaim", text, sizeof text);
        assert_string_equal(text, "3145728 swappiness=0");
        /* and nothing where what is idle is dirty */
        put_text("/sys/fs/cgroup/a.slice/memory.stat", "file 104857600\nfile_dirty 104857600\ninactive_file 62914560");
        put_text("/sys/fs/cgroup/a.slice/memory.reclaim", "");
        begin(4, BL_ACTION_TRIM, 3 * BL_MIB);
        (void)until_result();
        until_idle();
        get_text("/sys/fs/cgroup/a.slice/memory.reclaim", text, sizeof text);
        assert_string_equal(text, "");
}

static void test_compact(void **state)
{
        char text[16];

        (void)state;
        put_text("/proc/sys/vm/compact_memory", "");
        put_text("/proc/sys/vm/drop_caches", "0");
        assert_int_equal(guest_actions_features(&actions), BL_WIRE_FEATURE_COMPACT);
        begin(1, BL_ACTION_COMPACT, BL_UNSET);
        (void)until_result();
        until_idle();
        assert_int_equal(got.result.status, BL_RESULT_DONE);
        get_text("/proc/sys/vm/compact_memory", text, sizeof text);
        assert_string_equal(text, "1");
        now += 59 * BL_SEC;
        begin(2, BL_ACTION_COMPACT, BL_UNSET);
        (void)until_result();
        assert_int_equal(got.result.status, BL_RESULT_BUSY);
        now += BL_SEC;
        begin(3, BL_ACTION_COMPACT, BL_UNSET);
        (void)until_result();
        until_idle();
        assert_int_equal(got.result.status, BL_RESULT_DONE);
        get_text("/proc/sys/vm/drop_caches", text, sizeof text);
        assert_string_equal(text, "0");
}

#define action_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_kinds),  action_test(test_scan),          action_test(test_scan_empty),
                action_test(test_budget),      action_test(test_too_soon),      action_test(test_lost_child),
                cmocka_unit_test(test_stream), cmocka_unit_test(test_mappings), cmocka_unit_test(test_identity),
                action_test(test_trim),        action_test(test_compact),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
