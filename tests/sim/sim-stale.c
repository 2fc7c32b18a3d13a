/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Guests whose figures cannot be used are never shrunk. */
#include "sim.h"

static void bad_figures(enum sim_stats kind, enum bl_reason why)
{
        struct sim *s = sim_crowded(4);

        s->g[0].stats = s->g[2].stats = kind;
        sim_run(s, 20 * BL_SEC);
        assert_true(sim_host_free(s) >= s->plan.marks.mark[BL_STATE_CLEAR]);
        assert_int_equal(s->g[0].commands, 0);
        assert_int_equal(s->g[2].commands, 0);
        assert_int_equal(sim_decision(s, &s->g[0])->why, why);
        assert_true(s->g[1].commands > 0);
        sim_assert_kept(s);
        sim_free(s);
}

static void test_missing(void **state)
{
        (void)state;
        bad_figures(SIM_STATS_MISSING, BL_WHY_SKIP_STATS);
}

static void test_absurd(void **state)
{
        (void)state;
        bad_figures(SIM_STATS_ABSURD, BL_WHY_SKIP_ABSURD);
}

/* A guest that has stopped reporting fills up behind its last report, which said that it was idle. */
static struct sim *silent(bool off)
{
        struct sim *s = sim_crowded(4);
        struct sim_guest *g = &s->g[0];

        s->config.test.no_stale_check = off;
        g->want = g->used = 200 * BL_MIB;
        s->other_want = BL_GIB;
        s->other_rate = 200 * BL_MIB;
        sim_run(s, 20 * BL_SEC);
        g->stats = SIM_STATS_STALE;
        g->want = g->actual - g->own - 50 * BL_MIB;
        sim_run(s, 20 * BL_SEC);
        s->other_want = 2 * BL_GIB;
        sim_run(s, 30 * BL_SEC);
        /* and still a little more */
        g->want += 30 * BL_MIB;
        sim_run(s, 10 * BL_SEC);
        return s;
}

static void test_stale(void **state)
{
        struct sim *s = silent(false);

        (void)state;
        assert_int_equal(sim_decision(s, &s->g[0])->why, BL_WHY_SKIP_STALE);
        assert_true(sim_host_free(s) >= s->plan.marks.mark[BL_STATE_SOFT]);
        sim_assert_kept(s);
        sim_free(s);
}

static void test_switched_off(void **state)
{
        struct sim *s = silent(true);

        (void)state;
        assert_true(s->faults.blind > 0);
        assert_true(s->g[0].actual < s->g[0].want + s->g[0].own || s->g[0].kills > 0);
        assert_true(s->faults.kills > 0);
        sim_free(s);
}

/* Giving memory back is safe without figures. */
static void test_grants_without_figures(void **state)
{
        struct sim *s = sim_crowded(4);

        (void)state;
        sim_run(s, 10 * BL_SEC);
        assert_true(s->g[0].actual < s->g[0].max);
        s->g[0].stats = SIM_STATS_MISSING;
        s->budget += 8 * BL_GIB;
        sim_run(s, 60 * BL_SEC);
        assert_true(s->g[0].actual >= s->g[0].limit - s->config.dead_band);
        sim_assert_kept(s);
        sim_free(s);
}

/* Comes and goes between good and bad: no harm, and no to and fro. */
static void test_flapping(void **state)
{
        struct sim *s = sim_crowded(4);

        (void)state;
        sim_run(s, 10 * BL_SEC);
        sim_at_rest(s);
        for (int i = 0; i < 40; i++) {
                s->g[i % 4].stats = i % 8 < 4 ? SIM_STATS_ABSURD : SIM_STATS_GOOD;
                sim_run(s, 2 * BL_SEC);
        }
        assert_int_equal(s->faults.reversals, 0);
        sim_assert_kept(s);
        sim_free(s);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_missing),
                cmocka_unit_test(test_absurd),
                cmocka_unit_test(test_stale),
                cmocka_unit_test(test_switched_off),
                cmocka_unit_test(test_grants_without_figures),
                cmocka_unit_test(test_flapping),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
