/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/sense/growth.h"
#include "tests/unit/test-host-util.h"

#define BUDGET (24 * BL_GIB)
#define FREE   (16 * BL_GIB)

static void test_nothing_known(void **state)
{
        struct bl_growth g;

        (void)state;
        bl_growth_init(&g, BUDGET);
        assert_int_equal(bl_growth_rate(&g), 0);
        bl_growth_add(&g, BL_SEC, FREE);
        assert_int_equal(bl_growth_rate(&g), 0);
        /* the same instant again replaces */
        bl_growth_add(&g, BL_SEC, FREE / 2);
        assert_int_equal(bl_growth_rate(&g), 0);
}

static void test_steady_growth(void **state)
{
        static const uint64_t rates[] = {50 * BL_MIB, BL_GIB, 4 * BL_GIB};

        (void)state;
        for (size_t k = 0; k < 3; k++) {
                struct bl_growth g;

                bl_growth_init(&g, BUDGET);
                for (uint64_t i = 0; i < 40; i++)
                        bl_growth_add(&g, (i + 1) * 20 * BL_MSEC, FREE - rates[k] / 50 * i);
                assert_true(bl_growth_rate(&g) > rates[k] / 100 * 99 && bl_growth_rate(&g) <= rates[k]);
        }
}

static void test_seen_in_the_second_sample(void **state)
{
        struct bl_growth g;

        (void)state;
        bl_growth_init(&g, BUDGET);
        for (uint64_t i = 0; i < 8; i++)
                bl_growth_add(&g, (i + 1) * 250 * BL_MSEC, FREE);
        assert_int_equal(bl_growth_rate(&g), 0);
        /* growth of 2 GiB/s began 125 ms before this one */
        bl_growth_add(&g, 9 * 250 * BL_MSEC, FREE - 256 * BL_MIB);
        assert_int_equal(bl_growth_rate(&g), BL_GIB);
        bl_growth_add(&g, 9 * 250 * BL_MSEC + 20 * BL_MSEC, FREE - 297 * BL_MIB);
        assert_true(bl_growth_rate(&g) > BL_GIB);
}

static void test_rest_and_release_are_nought(void **state)
{
        struct bl_growth g;
        unsigned seed = 1;

        (void)state;
        bl_growth_init(&g, BUDGET);
        for (uint64_t i = 0; i < 200; i++) {
                /* per-CPU counters: up to 2 MiB to either side */
                seed = seed * 1103515245 + 12345;
                bl_growth_add(&g, (i + 1) * 50 * BL_MSEC, FREE + (seed >> 16) % (4 * BL_MIB) - 2 * BL_MIB);
                assert_int_equal(bl_growth_rate(&g), 0);
        }
        bl_growth_init(&g, BUDGET);
        for (uint64_t i = 0; i < 20; i++) {
                bl_growth_add(&g, (i + 1) * 50 * BL_MSEC, FREE / 2 + i * 100 * BL_MIB);
                assert_int_equal(bl_growth_rate(&g), 0);
        }
}

static void test_one_jump_is_soon_forgotten(void **state)
{
        struct bl_growth g;
        uint64_t t = 0;

        (void)state;
        bl_growth_init(&g, BUDGET);
        for (int i = 0; i < 8; i++)
                bl_growth_add(&g, t += 250 * BL_MSEC, FREE);
        bl_growth_add(&g, t += 250 * BL_MSEC, FREE - BL_GIB);
        assert_true(bl_growth_rate(&g) > 0);
        for (int i = 0; i < 4; i++)
                bl_growth_add(&g, t += 20 * BL_MSEC, FREE - BL_GIB);
        assert_int_equal(bl_growth_rate(&g), 0);
}

static void test_a_wild_sample_does_not_count(void **state)
{
        struct bl_growth g;

        (void)state;
        bl_growth_init(&g, BUDGET);
        for (uint64_t i = 0; i < 12; i++)
                bl_growth_add(&g, (i + 1) * 20 * BL_MSEC, FREE - i * 20 * BL_MIB - (i == 7 ? 4 * BL_GIB : 0));
        assert_true(bl_growth_rate(&g) > 900 * BL_MIB && bl_growth_rate(&g) < 1100 * BL_MIB);
}

static void test_old_samples_and_extremes(void **state)
{
        struct bl_growth g;

        (void)state;
        bl_growth_init(&g, 0);
        bl_growth_add(&g, BL_SEC, UINT64_MAX - 1);
        bl_growth_add(&g, 4 * BL_SEC, 0); /* three seconds ago says nothing about now */
        assert_int_equal(bl_growth_rate(&g), 0);
        bl_growth_add(&g, 4 * BL_SEC + 10 * BL_MSEC, UINT64_MAX - 1);
        assert_int_equal(bl_growth_rate(&g), 0);
        bl_growth_init(&g, 0);
        bl_growth_add(&g, BL_SEC, UINT64_MAX - 1);
        bl_growth_add(&g, BL_SEC + 10 * BL_MSEC, 0);
        assert_int_equal(bl_growth_rate(&g), INT64_MAX);
        /* too close together to say anything */
        bl_growth_init(&g, 0);
        bl_growth_add(&g, BL_SEC, BL_GIB);
        bl_growth_add(&g, BL_SEC + 1, 0);
        assert_int_equal(bl_growth_rate(&g), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_nothing_known),
                cmocka_unit_test(test_steady_growth),
                cmocka_unit_test(test_seen_in_the_second_sample),
                cmocka_unit_test(test_rest_and_release_are_nought),
                cmocka_unit_test(test_one_jump_is_soon_forgotten),
                cmocka_unit_test(test_a_wild_sample_does_not_count),
                cmocka_unit_test(test_old_samples_and_extremes),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
