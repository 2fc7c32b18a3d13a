/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What guests need themselves is left to them, and found again when they need more. */
#include "sim.h"

/* More is wanted than there is: the guests keep their need and a margin, and live. */
static void test_floor_holds(void **state)
{
        struct sim *s = sim_crowded(4);

        (void)state;
        s->other_want = 7 * BL_GIB;
        s->other_rate = 400 * BL_MIB;
        /* the host runs out, which is what the test is about, so its own faults do not count */
        sim_run(s, 60 * BL_SEC);
        for (int i = 0; i < 4; i++) {
                const struct sim_guest *g = &s->g[i];

                assert_true(g->actual >= g->used + g->own + s->config.guest_margin / 2);
                assert_int_equal(g->kills, 0);
                assert_true(sim_decision(s, g)->floor <= g->actual + s->config.dead_band);
        }
        assert_true(s->plan.unmet > 0);
        assert_int_equal(s->faults.below_need, 0);
        assert_int_equal(s->faults.reversals, 0);
        sim_free(s);
}

/* With the floors off the guests are squeezed to death. */
static void test_switched_off(void **state)
{
        for (int off = 0; off <= 1; off++) {
                struct sim *s = sim_crowded(4);

                (void)state;
                s->config.test.no_floors = off == 1;
                s->other_want = 7 * BL_GIB;
                s->other_rate = 400 * BL_MIB;
                sim_run(s, 20 * BL_SEC);
                for (int i = 0; i < 4; i++)
                        s->g[i].want += 20 * BL_MIB;
                sim_run(s, 40 * BL_SEC);
                if (off) {
                        assert_true(s->faults.below_need > 0);
                        assert_true(s->faults.kills > 0);
                } else {
                        assert_int_equal(s->faults.below_need, 0);
                        assert_int_equal(s->faults.kills, 0);
                }
                sim_free(s);
        }
}

/* A guest wakes up and wants its memory back: it comes from the others within moments. */
static void test_wakes_up(void **state)
{
        struct sim *s = sim_crowded(4);
        struct sim_guest *g = &s->g[2];
        usec_t start;

        (void)state;
        s->other_want = 4 * BL_GIB;
        s->other_rate = 400 * BL_MIB;
        sim_run(s, 60 * BL_SEC);
        assert_true(g->actual < 1300 * BL_MIB);
        g->want = 1200 * BL_MIB;
        g->rate = 60 * BL_MIB;
        start = s->now;
        while (g->used < g->want && s->now < start + 60 * BL_SEC) {
                sim_run(s, s->tick);
                /* that granted memory comes into use is not the host running out of it */
                assert_true(s->plan.lead < 32 * BL_MIB);
        }
        /* as fast as its programs want it, give or take a second */
        assert_between(s->now - start, 0, 13 * BL_SEC);
        sim_assert_kept(s);
        sim_free(s);
}

/* An old guest without MemAvailable: its cache is not mistaken for need, nor MemFree for all it has. */
static void test_no_memavailable(void **state)
{
        struct sim *s = sim_crowded(4);

        (void)state;
        for (int i = 0; i < 4; i++)
                s->g[i].stats = SIM_STATS_NO_AVAILABLE;
        s->other_want = 2 * BL_GIB;
        s->other_rate = 400 * BL_MIB;
        sim_run(s, 60 * BL_SEC);
        assert_true(sim_host_free(s) >= s->plan.marks.mark[BL_STATE_SOFT]);
        for (int i = 0; i < 4; i++)
                assert_true(s->g[i].actual >= s->g[i].used + s->g[i].own + s->config.guest_margin);
        sim_assert_kept(s);
        sim_free(s);
}

/* What is swapped out counts as need: a guest is not squeezed further and further into its swap. */
static void test_swap_is_need(void **state)
{
        struct sim *s = sim_crowded(4);
        struct sim_guest *g = &s->g[0];

        (void)state;
        g->swap_total = BL_GIB;
        g->swapped = 300 * BL_MIB;
        g->used -= 300 * BL_MIB;
        g->want = g->used + g->swapped;
        s->other_want = 5 * BL_GIB;
        s->other_rate = 400 * BL_MIB;
        sim_run(s, 40 * BL_SEC);
        assert_true(g->actual >= g->used + g->swapped + g->own + s->config.guest_margin / 2);
        assert_int_equal(s->faults.below_need, 0);
        assert_int_equal(s->faults.kills, 0);
        sim_free(s);
}

/* A guest without swap keeps the larger margin. */
static void test_margin_without_swap(void **state)
{
        struct sim *s = sim_crowded(4);

        (void)state;
        s->g[0].swap_total = 2 * BL_GIB;
        s->other_want = 7 * BL_GIB;
        s->other_rate = 400 * BL_MIB;
        sim_run(s, 60 * BL_SEC);
        assert_true(s->g[0].actual + s->config.guest_margin / 8 < s->g[1].actual);
        sim_free(s);
}

/* Pressure within the guest: it is spared while others have something to give, and then helped. */
static void test_pressed_guest(void **state)
{
        struct sim *s = sim_crowded(4);
        struct sim_guest *g = &s->g[0];
        uint64_t before;

        (void)state;
        s->other_want = BL_GIB;
        s->other_rate = 200 * BL_MIB;
        sim_run(s, 30 * BL_SEC);
        g->psi = true;
        sim_run(s, 3 * BL_SEC);
        before = g->actual;
        s->other_want = 2 * BL_GIB;
        sim_run(s, 30 * BL_SEC);
        assert_true(g->actual >= before);
        assert_true(s->g[1].actual < before);
        assert_true(sim_host_free(s) >= s->plan.marks.mark[BL_STATE_SOFT]);
        sim_assert_kept(s);
        sim_free(s);
}

/* Nobody else can give: still it is not the one under pressure that is squeezed, within its fair part. */
static void test_pressed_is_spared(void **state)
{
        struct sim *s = sim_crowded(4);
        struct sim_guest *g = &s->g[0];
        uint64_t before;

        (void)state;
        for (int i = 0; i < 4; i++)
                s->g[i].period = 2 * BL_SEC;
        sim_run(s, 20 * BL_SEC);
        g->psi = true;
        for (int i = 1; i < 4; i++)
                s->g[i].reservation = s->g[i].actual;
        /* from the first report on that tells of it */
        for (usec_t last = g->report.at; g->report.at < last + 3 * BL_SEC;)
                sim_run(s, s->step);
        before = g->actual;
        s->other_want = s->other + 200 * BL_MIB;
        s->other_rate = 64 * BL_GIB;
        sim_run(s, 10 * BL_SEC);
        assert_true(s->plan.unmet > 0);
        assert_true(g->actual + 8 * BL_MIB >= before);
        sim_assert_kept(s);
        sim_free(s);
}

/* It grows by more between two reports than its margin is: what comes is reckoned with. */
static void test_growth_of_a_guest(void **state)
{
        struct sim *s = sim_crowded(4);
        struct sim_guest *g = &s->g[2];

        (void)state;
        for (int i = 0; i < 4; i++)
                s->g[i].period = 2 * BL_SEC;
        s->other_want = 4 * BL_GIB;
        s->other_rate = 400 * BL_MIB;
        sim_run(s, 60 * BL_SEC);
        g->rate = 60 * BL_MIB;
        g->want = 1150 * BL_MIB;
        sim_run(s, 40 * BL_SEC);
        assert_int_equal(g->kills, 0);
        assert_int_equal(g->used, g->want);
        sim_assert_kept(s);
        sim_free(s);
}

/* Deflate-on-oom leaves MemTotal as it is and counts the balloon as used: that is not need. */
static void test_deflate_on_oom_figures(void **state)
{
        struct sim *s = sim_crowded(4);

        (void)state;
        for (int i = 0; i < 4; i++)
                s->g[i].deflate_oom = true;
        s->other_want = 4 * BL_GIB;
        s->other_rate = 400 * BL_MIB;
        sim_run(s, 60 * BL_SEC);
        assert_true(sim_host_free(s) >= s->plan.marks.mark[BL_STATE_SOFT]);
        sim_assert_kept(s);
        sim_free(s);
}

/* Reports that come seldom are read against the balloon of their time, not of now. */
static void test_late_reports(void **state)
{
        struct sim *s = sim_crowded(4);

        (void)state;
        for (int i = 0; i < 4; i++) {
                s->g[i].period = 5 * BL_SEC;
                s->g[i].cache_want = 0;
                s->g[i].touched = s->g[i].cache;
                s->g[i].cache = 0;
        }
        s->other_want = 6 * BL_GIB;
        s->other_rate = 800 * BL_MIB;
        sim_run(s, 60 * BL_SEC);
        assert_int_equal(s->faults.below_need, 0);
        assert_int_equal(s->faults.kills, 0);
        sim_free(s);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_floor_holds),       cmocka_unit_test(test_switched_off),
                cmocka_unit_test(test_wakes_up),          cmocka_unit_test(test_no_memavailable),
                cmocka_unit_test(test_swap_is_need),      cmocka_unit_test(test_margin_without_swap),
                cmocka_unit_test(test_pressed_guest),     cmocka_unit_test(test_pressed_is_spared),
                cmocka_unit_test(test_growth_of_a_guest), cmocka_unit_test(test_deflate_on_oom_figures),
                cmocka_unit_test(test_late_reports),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
