/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <unistd.h>

#include "daemon/sense/psi.h"
#include "tests/unit/test-host-util.h"

#define SOME "some avg10=1.50 avg60=0.22 avg300=0.00 total=123456\n"
#define FULL "full avg10=100.00 avg60=0.00 avg300=0.00 total=789\n"

static void test_parse(void **state)
{
        struct bl_psi p;

        (void)state;
        assert_int_equal(bl_psi_parse(SOME FULL, &p), 0);
        assert_int_equal(p.some, 123456);
        assert_int_equal(p.full, 789);
        assert_int_equal(p.some_avg10, 150);
        assert_int_equal(p.full_avg10, 10000);
        assert_int_equal(bl_psi_parse(FULL SOME, &p), 0);
        assert_int_equal(p.some, 123456);
}

static void test_hostile(void **state)
{
        static const char *const bad[] = {
                "",
                "some\n",
                SOME,
                FULL,
                SOME "full avg10=0.00 avg60=0.00 avg300=0.00 total=12", /* cut off */
                SOME "full avg10=0.00 avg60=0.00 avg300=0.00 total=\n",
                SOME "full avg10=0.00 avg60=0.00 avg300=0.00 total=-1\n",
                SOME "full avg10=0.00 avg60=0.00 avg300=0.00 total=18446744073709551616\n",
                SOME "full avg10=101.00 avg60=0.00 avg300=0.00 total=1\n",
                SOME "full avg10=x avg60=0.00 avg300=0.00 total=1\n",
                SOME "full total=1\n",
                SOME "fuller avg10=0.00 avg60=0.00 avg300=0.00 total=1\n",
                ("xsome avg10=0.00 avg60=0.00 avg300=0.00 total=1\n" FULL),
        };
        struct bl_psi p = {.some = 7};

        (void)state;
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
                assert_int_equal(bl_psi_parse(bad[i], &p), -EBADMSG);
                assert_int_equal(p.some, 7);
        }
}

static void test_a_host_with_and_one_without(void **state)
{
        struct bl_reader r = BL_READER_INIT;
        struct bl_psi p;

        (void)state;
        assert_int_equal(bl_psi_open(&r, HOST_FIXTURE), 0);
        assert_int_equal(bl_psi_read(&r, &p), 0);
        bl_reader_close(&r);

        assert_int_equal(bl_psi_open(&r, test_root), -ENOENT);
        assert_int_equal(bl_psi_trigger_open(test_root, "some", 100000, 1000000), -ENOENT);
        test_write("/proc/pressure/memory", "");
        assert_int_equal(bl_psi_open(&r, test_root), -EBADMSG);
        assert_int_equal(r.fd, -1);
        assert_non_null(strstr(bl_psi_why_not(-ENOENT), "psi=0"));
        assert_non_null(strstr(bl_psi_why_not(-EOPNOTSUPP), "psi=1"));
}

static void test_trigger_is_written_as_the_kernel_wants_it(void **state)
{
        char buf[64];
        int fd;

        (void)state;
        test_write("/proc/pressure/memory", "");
        fd = bl_psi_trigger_open(test_root, "some", 100 * BL_MSEC, BL_SEC);
        assert_true(fd >= 0);
        assert_int_equal(close(fd), 0);
        assert_int_equal(bl_fs_read(test_root, "/proc/pressure/memory", buf, sizeof buf), 20);
        assert_memory_equal(buf, "some 100000 1000000", 20); /* with its NUL */
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_parse),
                cmocka_unit_test(test_hostile),
                cmocka_unit_test_setup_teardown(test_a_host_with_and_one_without, test_root_make, test_root_remove),
                cmocka_unit_test_setup_teardown(test_trigger_is_written_as_the_kernel_wants_it, test_root_make,
                                                test_root_remove),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
