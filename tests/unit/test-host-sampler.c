/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/sense/growth.h"
#include "daemon/sense/sampler.h"
#include "tests/unit/test-host-util.h"

#define SHORTEST (20 * BL_MSEC)
#define LONGEST  (250 * BL_MSEC)

static usec_t interval(uint64_t free, uint64_t mark, uint64_t growth)
{
        return bl_sample_interval(free, mark, growth, SHORTEST, LONGEST);
}

static void test_bounds(void **state)
{
        (void)state;
        assert_int_equal(interval(16 * BL_GIB, BL_GIB, 0), LONGEST);
        assert_int_equal(interval(BL_GIB, BL_GIB, 0), 50 * BL_MSEC);
        assert_int_equal(interval(0, BL_GIB, 0), 50 * BL_MSEC);
        assert_int_equal(interval(0, BL_GIB, BL_GIB), SHORTEST);
        assert_int_equal(interval(BL_GIB + 10 * BL_MIB, BL_GIB, 4 * BL_GIB), SHORTEST);
        assert_int_equal(interval(UINT64_MAX - 1, 0, 1), LONGEST);
        assert_int_equal(interval(0, UINT64_MAX - 1, UINT64_MAX), SHORTEST);
        assert_int_equal(bl_sample_interval(0, 0, 0, 30, 20), 30);
}

static void test_nearer_and_faster_is_sooner(void **state)
{
        usec_t last = 0;

        (void)state;
        for (uint64_t free = BL_GIB; free < 3 * BL_GIB; free += 64 * BL_MIB) {
                assert_true(interval(free, BL_GIB, BL_GIB) >= last);
                last = interval(free, BL_GIB, BL_GIB);
        }
        last = LONGEST;
        for (uint64_t growth = BL_MIB; growth < 8 * BL_GIB; growth *= 2) {
                assert_true(interval(2 * BL_GIB, BL_GIB, growth) <= last);
                last = interval(2 * BL_GIB, BL_GIB, growth);
        }
}

/* The promise: out of rest, from any distance, at any moment between two
 * samples, growth up to 4 GiB/s is seen within 50 ms of crossing the mark. */
static void test_a_crossing_is_seen_within_50_ms(void **state)
{
        static const uint64_t rates[] = {100 * BL_MIB, BL_GIB, 2 * BL_GIB, 4 * BL_GIB};
        const uint64_t mark = 2 * BL_GIB;
        usec_t worst = 0;

        (void)state;
        for (size_t k = 0; k < sizeof rates / sizeof *rates; k++)
                for (uint64_t distance = BL_MIB; distance < 4 * BL_GIB; distance += 37 * BL_MIB)
                        for (usec_t begin = 0; begin < LONGEST; begin += 7 * BL_MSEC) {
                                const usec_t start = 2 * BL_SEC + begin;
                                const usec_t crossing =
                                        start + distance * 1000 / (rates[k] / 1000) + 1; /* usec, rounded up */
                                struct bl_growth g;
                                usec_t now = 0;

                                bl_growth_init(&g, 24 * BL_GIB);
                                for (;;) {
                                        const uint64_t gone = now > start ? bl_rate_times(rates[k], now - start) : 0;
                                        const uint64_t free = bl_sub_sat(mark + distance, gone);

                                        bl_growth_add(&g, now, free);
                                        if (free < mark)
                                                break;
                                        now += interval(free, mark, bl_growth_rate(&g));
                                }
                                if (now > crossing)
                                        worst = bl_max(worst, now - crossing);
                        }
        assert_true(worst <= 50 * BL_MSEC);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_bounds),
                cmocka_unit_test(test_nearer_and_faster_is_sooner),
                cmocka_unit_test(test_a_crossing_is_seen_within_50_ms),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
