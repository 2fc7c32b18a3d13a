/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

#include <ballast/cleanup.h>

#include "daemon/sense/resident.h"
#include "tests/unit/test-host-util.h"

#define PID  808 /* in the fixture */
#define UUID "11111111-2222-4333-8444-555555555555"

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
        char *text = fixture(HOST_FIXTURE "/proc/808/stat");

        (void)state;
        assert_int_equal(bl_proc_start_parse(text, &start), 0);
        free(text);
        assert_int_equal(bl_resident_open(HOST_FIXTURE, PID, start, &r), 0);
        r = bl_resident_free(r);
        assert_int_equal(bl_resident_open(HOST_FIXTURE, PID, start + 1, &r), -ESRCH);
        assert_int_equal(bl_resident_open(HOST_FIXTURE, 1, 0, &r), -ESRCH);
        assert_int_equal(bl_resident_open(HOST_FIXTURE, 0, 0, &r), -ESRCH);
        assert_int_equal(bl_resident_open(HOST_FIXTURE, -1, 0, &r), -ESRCH);
        assert_null(r);

        /* a name may hold anything */
        assert_int_equal(
                bl_proc_start_parse("1 (a) b) (c 5) S 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 4711 23", &start),
                0);
        assert_int_equal(start, 4711);
        assert_int_equal(bl_proc_start_parse("", &start), -EBADMSG);
        assert_int_equal(bl_proc_start_parse("1 (a", &start), -EBADMSG);
        assert_int_equal(bl_proc_start_parse("1 (a) S 4 5", &start), -EBADMSG);
        assert_int_equal(bl_proc_start_parse("1 (a) S 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 471", &start),
                         -EBADMSG);
        assert_int_equal(bl_proc_start_parse("1 (a) S 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 x 23", &start),
                         -EBADMSG);
        assert_int_equal(start, 4711);
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

static void test_pid_files(void **state)
{
        char run[PATH_MAX];
        pid_t pid = 7;

        (void)state;
        assert_int_equal(bl_path_join(run, sizeof run, test_root, "/run"), 0);
        assert_int_equal(bl_vm_pid(HOST_FIXTURE, run, "web1", UUID, &pid), -ENOENT);
        test_write("/run/web1.pid", "808");
        assert_int_equal(bl_vm_pid(HOST_FIXTURE, run, "web1", UUID, &pid), 0);
        assert_int_equal(pid, PID);
        test_write("/run/web1.pid", "808\n");
        assert_int_equal(bl_vm_pid(HOST_FIXTURE, run, "web1", NULL, &pid), 0);

        pid = 7;
        /* the number is another process's now: all of an argument counts, not a part of one */
        assert_int_equal(bl_vm_pid(HOST_FIXTURE, run, "web1", "21111111-2222-4333-8444-555555555555", &pid), -ESRCH);
        assert_int_equal(bl_vm_pid(HOST_FIXTURE, run, "web1", "11111111", &pid), -ESRCH);
        test_write("/run/web1.pid", "809\n");
        assert_int_equal(bl_vm_pid(HOST_FIXTURE, run, "web1", UUID, &pid), -ESRCH);
        test_write("/run/web1.pid", "");
        assert_int_equal(bl_vm_pid(HOST_FIXTURE, run, "web1", UUID, &pid), -EBADMSG);
        test_write("/run/web1.pid", "0");
        assert_int_equal(bl_vm_pid(HOST_FIXTURE, run, "web1", UUID, &pid), -EBADMSG);
        test_write("/run/web1.pid", "-1");
        assert_int_equal(bl_vm_pid(HOST_FIXTURE, run, "web1", UUID, &pid), -EBADMSG);
        test_write("/run/web1.pid", "99999999999");
        assert_int_equal(bl_vm_pid(HOST_FIXTURE, run, "web1", UUID, &pid), -EBADMSG);
        test_write("/run/web1.pid", "808                                                            ");
        assert_int_equal(bl_vm_pid(HOST_FIXTURE, run, "web1", UUID, &pid), -EBADMSG);
        assert_int_equal(bl_vm_pid(HOST_FIXTURE, run, "../web1", UUID, &pid), -EINVAL);
        assert_int_equal(bl_vm_pid(HOST_FIXTURE, run, "", UUID, &pid), -EINVAL);
        assert_int_equal(pid, 7);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_real_qemu),
                cmocka_unit_test(test_start_time),
                cmocka_unit_test(test_hostile),
                cmocka_unit_test(test_a_process_that_ends),
                cmocka_unit_test_setup_teardown(test_pid_files, test_root_make, test_root_remove),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
