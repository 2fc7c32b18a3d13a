/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>

#include "daemon/sense/vmstat.h"
#include "tests/unit/test-host-util.h"

static void test_a_real_host(void **state)
{
        struct bl_reader r = BL_READER_INIT;
        struct bl_vmstat v;
        uint64_t *all = (uint64_t *)&v;

        (void)state;
        assert_int_equal(bl_vmstat_open(&r, HOST_FIXTURE), 0);
        assert_int_equal(bl_vmstat_read(&r, &v), 0);
        bl_reader_close(&r);
        assert_true(v.pgmajfault > 0);
        assert_true(v.refault_file > 0);
        assert_int_equal(v.pswpout, 0);
        assert_int_equal(v.allocstall, 0);
        for (size_t i = 0; i < sizeof v / sizeof *all; i++)
                assert_true(all[i] != BL_UNSET);
}

static void test_sums_and_missing(void **state)
{
        struct bl_vmstat v = {.pswpin = 7};

        (void)state;
        assert_int_equal(bl_vmstat_parse("allocstall_dma 1\nallocstall_normal 2\nallocstall_movable 4\npswpin 3\n", &v),
                         0);
        assert_int_equal(v.allocstall, 7);
        assert_int_equal(v.pswpin, 3);
        assert_int_equal(v.cow_ksm, BL_UNSET);

        v.pswpin = 7;
        assert_int_equal(bl_vmstat_parse("", &v), -EBADMSG);
        assert_int_equal(bl_vmstat_parse("nr_free_pages 5\n", &v), -EBADMSG);
        assert_int_equal(bl_vmstat_parse("pswpin many\n", &v), -EBADMSG);
        assert_int_equal(bl_vmstat_parse("pswpin 1", &v), -EBADMSG);
        assert_int_equal(v.pswpin, 7);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_real_host),
                cmocka_unit_test(test_sums_and_missing),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
