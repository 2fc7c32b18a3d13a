/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>

#include "daemon/util/procstat.h"

static void test_parse(void **state)
{
        uint64_t start = 7;
        char letter = 'x';

        (void)state;
        /* a name may hold anything */
        assert_int_equal(bl_proc_stat_parse("1 (a) b) (c 5) S 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 4711 23",
                                            &letter, &start),
                         0);
        assert_int_equal(start, 4711);
        assert_int_equal(letter, 'S');
}

static void test_hostile(void **state)
{
        static const char *const bad[] = {
                "",
                "1 (a",
                "1 (a)",
                "1 (a) S 4 5",
                "1 (a) S 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 471",
                "1 (a) S 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 x 23",
                "1 (a) S 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 99999999999999999999 23",
                "1 (a)  4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 4711 23",
        };
        uint64_t start = 7;
        char letter = 'x';

        (void)state;
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                assert_int_equal(bl_proc_stat_parse(bad[i], &letter, &start), -EBADMSG);
        assert_int_equal(start, 7);
        assert_int_equal(letter, 'x');
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_parse),
                cmocka_unit_test(test_hostile),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
