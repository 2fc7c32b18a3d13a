// SPDX-License-Identifier: LGPL-2.1-or-later
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/history.h"

static void test_order_and_bound(void **state)
{
        _cleanup_(bl_history_freep) struct bl_history *h = NULL;

        (void)state;
        assert_int_equal(bl_history_new(&h), 0);
        assert_null(bl_history_get(h, 0));
        for (size_t i = 0; i < BL_HISTORY_MAX + 100; i++) {
                struct bl_history_event e = {.at_wall = i};

                bl_history_add(h, &e);
                assert_int_equal(bl_history_get(h, bl_history_count(h) - 1)->at_wall, i);
        }
        assert_int_equal(bl_history_count(h), BL_HISTORY_MAX);
        for (size_t i = 0; i < BL_HISTORY_MAX; i++)
                assert_int_equal(bl_history_get(h, i)->at_wall, i + 100);
        assert_null(bl_history_get(h, BL_HISTORY_MAX));
}

int main(void)
{
        const struct CMUnitTest tests[] = {cmocka_unit_test(test_order_and_bound)};

        return cmocka_run_group_tests(tests, NULL, NULL);
}
