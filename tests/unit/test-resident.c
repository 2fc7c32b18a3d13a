/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

#include <ballast/cleanup.h>

#include "daemon/sense/resident.h"
#include "daemon/util/procstat.h"
#include "tests/unit/test-host-util.h"

#define PID 808 /* in the fixture */

static char *fixture(const char *path)
{
        char *text = NULL;

        assert_int_equal(bl_fs_read_alloc(path, 1 << 16, &text, NULL), 0);
        return text;
}

static void test_a_real_qemu(void **state)
{
        _cleanup_(bl_resident_freep) struct bl_resident *r = NULL;
        struct bl_proc_mem m;

        (void)state;
        assert_int_equal(bl_resident_open(HOST_FIXTURE, PID, 0, &r), 0);
        assert_int_equal(bl_resident_pid(r), PID);
        assert_true(bl_resident_start(r) > 0);
        assert_true(bl_resident_dirfd(r) >= 0);
        assert_int_equal(bl_resident_read(r, &m), 0);
        assert_int_equal(m.anon, 276888 * BL_KIB);
        assert_int_equal(m.shmem, 0);
        assert_int_equal(m.file, 11612 * BL_KIB);
        assert_int_equal(bl_proc_mem_resident(&m), 276888 * BL_KIB);
}

static void test_start_time(void **state)
{
        struct bl_resident *r = NULL;
        uint64_t start;
        char letter;
        char *text = fixture(HOST_FIXTURE "/proc/808/stat");

        (void)state;
        assert_int_equal(bl_proc_stat_parse(text, &letter, &start), 0);
        free(text);
        assert_int_equal(bl_resident_open(HOST_FIXTURE, PID, start, &r), 0);
        r = bl_resident_free(r);
        assert_int_equal(bl_resident_open(HOST_FIXTURE, PID, start + 1, &r), -ESRCH);
        assert_int_equal(bl_resident_open(HOST_FIXTURE, 1, 0, &r), -ESRCH);
        assert_int_equal(bl_resident_open(HOST_FIXTURE, 0, 0, &r), -ESRCH);
        assert_int_equal(bl_resident_open(HOST_FIXTURE, -1, 0, &r), -ESRCH);
        assert_null(r);
}

static void test_hostile(void **state)
{
        struct bl_proc_mem m = {.anon = 7};
        char *text = fixture(HOST_FIXTURE "/proc/808/status");

        (void)state;
        /* zombies and kernel threads have no memory lines */
        assert_int_equal(bl_proc_mem_parse("Name:\tqemu\nState:\tZ (zombie)\nPid:\t5\n", &m), -ESRCH);
        assert_int_equal(bl_proc_mem_parse("", &m), -EBADMSG);
        assert_int_equal(bl_proc_mem_parse("nonsense\n", &m), -EBADMSG);
        assert_int_equal(bl_proc_mem_parse("Name:\tx\nRssAnon:\t1 kB\n", &m), -EBADMSG);
        assert_int_equal(bl_proc_mem_parse("Name:\tx\nRssAnon:\t-1 kB\nRssShmem:\t1 kB\n", &m), -EBADMSG);
        assert_int_equal(m.anon, 7);
        for (size_t len = strlen(text) - 1; len > 0; len--) {
                text[len] = '\0';
                if (bl_proc_mem_parse(text, &m) == 0)
                        assert_int_equal(m.anon, 276888 * BL_KIB);
        }
        free(text);

        assert_int_equal(bl_proc_mem_parse("Name:\tx\nRssAnon:\t1 kB\nRssShmem:\t2 kB\n", &m), 0);
        assert_int_equal(bl_proc_mem_resident(&m), 3 * BL_KIB);
        assert_int_equal(m.hugetlb, 0);
}

/* The kept descriptor is the process's, not the number's. */
static void test_a_process_that_ends(void **state)
{
        _cleanup_(bl_resident_freep) struct bl_resident *r = NULL;
        struct bl_resident *again = NULL;
        struct bl_proc_mem m = {.anon = 7};
        pid_t pid;

        (void)state;
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                pause();
                _exit(0);
        }
        assert_int_equal(bl_resident_open("/", pid, 0, &r), 0);
        assert_int_equal(bl_resident_read(r, &m), 0);
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitid(P_PID, (id_t)pid, &(siginfo_t){0}, WEXITED | WNOWAIT), 0);
        m.anon = 7;
        assert_int_equal(bl_resident_read(r, &m), -ESRCH); /* zombie */
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        assert_int_equal(bl_resident_read(r, &m), -ESRCH); /* gone */
        assert_int_equal(bl_resident_open("/", pid, 0, &again), -ESRCH);
        assert_int_equal(m.anon, 7);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_real_qemu),
                cmocka_unit_test(test_start_time),
                cmocka_unit_test(test_hostile),
                cmocka_unit_test(test_a_process_that_ends),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
