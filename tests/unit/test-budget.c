/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/sense/budget.h"
#include "tests/unit/test-host-util.h"

static const struct bl_meminfo mem = {.mem_total = 24 * BL_GIB, .mem_free = 2 * BL_GIB, .mem_available = 10 * BL_GIB};

static void test_ram(void **state)
{
        const struct bl_budget_conf conf = {.kind = BL_BUDGET_RAM};
        struct bl_budget b;

        (void)state;
        assert_false(bl_budget_needs_usage(&conf));
        bl_budget_compute(&conf, &mem, &(struct bl_usage){.resident = 5}, &b);
        assert_true(b.is_ram);
        assert_int_equal(b.total, 24 * BL_GIB);
        assert_int_equal(b.free, 10 * BL_GIB);
        assert_int_equal(b.used, 14 * BL_GIB);
}

static void test_size(void **state)
{
        struct bl_budget_conf conf = {.kind = BL_BUDGET_SIZE, .bytes = 8 * BL_GIB};
        struct bl_budget b;

        (void)state;
        assert_true(bl_budget_needs_usage(&conf));
        bl_budget_compute(&conf, &mem, &(struct bl_usage){.resident = 5 * BL_GIB, .savings = 2 * BL_GIB, .own = BL_GIB},
                          &b);
        assert_false(b.is_ram);
        assert_int_equal(b.total, 8 * BL_GIB);
        assert_int_equal(b.used, 4 * BL_GIB);
        assert_int_equal(b.free, 4 * BL_GIB);

        /* over the budget */
        bl_budget_compute(&conf, &mem, &(struct bl_usage){.resident = 9 * BL_GIB}, &b);
        assert_int_equal(b.used, 9 * BL_GIB);
        assert_int_equal(b.free, 0);

        /* somebody else uses the host's memory */
        conf.bytes = 20 * BL_GIB;
        bl_budget_compute(&conf, &mem, &(struct bl_usage){.resident = BL_GIB}, &b);
        assert_int_equal(b.free, 10 * BL_GIB);

        /* more than there is */
        conf.bytes = 999 * BL_GIB;
        bl_budget_compute(&conf, &mem, &(struct bl_usage){.resident = BL_GIB}, &b);
        assert_int_equal(b.total, 24 * BL_GIB);

        /* absurd sums saturate */
        bl_budget_compute(&conf, &mem, &(struct bl_usage){.resident = UINT64_MAX, .own = UINT64_MAX}, &b);
        assert_int_equal(b.used, UINT64_MAX);
        assert_int_equal(b.free, 0);
        bl_budget_compute(&conf, &mem, &(struct bl_usage){.resident = 1, .savings = UINT64_MAX}, &b);
        assert_int_equal(b.used, 0);
}

static void test_percent(void **state)
{
        const struct bl_budget_conf conf = {.kind = BL_BUDGET_PERCENT, .ratio = 7500};
        struct bl_budget b;

        (void)state;
        assert_true(bl_budget_needs_usage(&conf));
        bl_budget_compute(&conf, &mem, &(struct bl_usage){.resident = 17 * BL_GIB}, &b);
        assert_int_equal(b.total, 18 * BL_GIB);
        assert_int_equal(b.free, BL_GIB);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_ram),
                cmocka_unit_test(test_size),
                cmocka_unit_test(test_percent),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
