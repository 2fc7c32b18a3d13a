/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* squeezed's scenarios: ideal, slow and limited guests, alone and mixed. */
#include "sim.h"

/* room for four guests of 2 GiB, their VMMs, and 50 MiB */
#define HOST (8 * BL_GIB + 4 * 40 * BL_MIB + 50 * BL_MIB)
/* minFree: 6 % of 4 GiB and 4 % of the rest */
#define MARK (bl_part(4 * BL_GIB, 600) + bl_part(HOST - 4 * BL_GIB, 400))

/* Four guests of 2 GiB whose caches have filled them, so that the host has next to nothing left. */
static struct sim *crowded(void)
{
        struct sim *s = sim_new(HOST);
        static const char *const names[] = {"web1", "web2", "db1", "db2"};

        for (int i = 0; i < 4; i++)
                sim_add(s, names[i], 2 * BL_GIB, 512 * BL_MIB, true);
        return s;
}

static void test_ideal(void **state)
{
        struct sim *s = crowded();
        usec_t took;

        (void)state;
        took = sim_run_until_free(s, MARK, 10 * BL_SEC);
        assert_between(took, 0, 2 * BL_SEC);
        /* that is the end of it: no further commands, nobody turned round */
        sim_run(s, 5 * BL_SEC);
        sim_at_rest(s);
        sim_run(s, 60 * BL_SEC);
        assert_int_equal(s->faults.reversals, 0);
        assert_int_equal(s->commands, 0);
        assert_int_equal(s->plan.state, BL_STATE_CLEAR);
        sim_assert_kept(s);
        sim_free(s);
}

/* Not much more is taken than was needed. */
static void test_no_overshoot(void **state)
{
        struct sim *s = crowded();

        (void)state;
        sim_run(s, 20 * BL_SEC);
        assert_between(sim_host_free(s), MARK, MARK + MARK / 8 + 16 * BL_MIB);
        sim_assert_kept(s);
        sim_free(s);
}

/* 512 MiB from one guest are one command, and done in twice the balloon's own time and two ticks. */
static void test_one_command(void **state)
{
        struct sim *s = sim_new(2 * BL_GIB + 40 * BL_MIB);
        struct sim_guest *g = sim_add(s, "big", 2 * BL_GIB, 512 * BL_MIB, true);
        usec_t took;

        (void)state;
        s->config.min_free = 512 * BL_MIB;
        g->speed_down = 512 * BL_MIB;
        took = sim_run_until_free(s, 512 * BL_MIB, 10 * BL_SEC);
        assert_between(took, 0, 2 * BL_SEC + s->tick);
        assert_int_equal(g->commands, 1);
        sim_assert_kept(s);
        sim_free(s);
}

/* A slow guest is asked for what it can deliver; the others give the rest at once. */
static void test_slow(void **state)
{
        struct sim *s = crowded();
        usec_t took;

        (void)state;
        s->g[0].speed_down = 8 * BL_MIB;
        took = sim_run_until_free(s, MARK, 30 * BL_SEC);
        assert_between(took, 0, 4 * BL_SEC);
        assert_between(sim_decision(s, &s->g[0])->speed, 4 * BL_MIB, 16 * BL_MIB);
        sim_run(s, 30 * BL_SEC);
        assert_false(sim_decision(s, &s->g[0])->stuck);
        assert_true(s->g[0].actual > s->g[1].actual);
        sim_assert_kept(s);
        sim_free(s);
}

/* Only slow guests: all of them together are as fast as they can be, and it does come. */
static void test_all_slow(void **state)
{
        struct sim *s = crowded();
        usec_t took;

        (void)state;
        for (int i = 0; i < 4; i++)
                s->g[i].speed_down = 8 * BL_MIB;
        took = sim_run_until_free(s, MARK, 60 * BL_SEC);
        assert_between(took, 0, MARK * BL_SEC / (4 * 8 * BL_MIB) * 3 / 2);
        /* what had been asked while it was slow is not far too much */
        sim_run(s, 60 * BL_SEC);
        assert_between(sim_host_free(s), MARK, 2 * MARK);
        for (int i = 0; i < 4; i++)
                assert_false(sim_decision(s, &s->g[i])->stuck);
        sim_assert_kept(s);
        sim_free(s);
}

/* Gives down to a limit of its own: that is learned, and the others give the rest. */
static void test_lower_limit(void **state)
{
        struct sim *s = crowded();
        unsigned int commands;
        usec_t took;

        (void)state;
        s->g[0].low_stop = 2 * BL_GIB - 40 * BL_MIB;
        took = sim_run_until_free(s, MARK, 30 * BL_SEC);
        assert_between(took, 0, 5 * BL_SEC);
        sim_run(s, 6 * BL_SEC);
        assert_false(sim_decision(s, &s->g[0])->stuck);
        /* more pressure within the time in which it is let alone */
        commands = s->g[0].commands;
        s->other_want = s->other + 400 * BL_MIB;
        s->other_rate = 400 * BL_MIB;
        sim_run(s, 8 * BL_SEC);
        assert_true(sim_host_free(s) >= s->plan.marks.mark[BL_STATE_SOFT]);
        assert_true(s->g[1].actual < 1900 * BL_MIB);
        assert_int_equal(s->g[0].commands, commands);
        assert_int_equal(s->g[0].target, s->g[0].actual);
        sim_assert_kept(s);
        sim_free(s);
}

/* Does not take back what it is given: it is not promised for ever. */
static void test_upper_limit(void **state)
{
        struct sim *s = crowded();

        (void)state;
        sim_run(s, 10 * BL_SEC);
        s->g[0].high_stop = s->g[0].actual;
        /* plenty is free now */
        s->budget += 8 * BL_GIB;
        sim_run(s, 60 * BL_SEC);
        for (int i = 1; i < 4; i++)
                assert_true(s->g[i].actual >= s->g[i].limit - s->config.dead_band);
        assert_between(s->g[0].target, s->g[0].actual, s->g[0].actual + BL_MIB);
        assert_true(s->plan.promised < 64 * BL_MIB);
        sim_assert_kept(s);
        sim_free(s);
}

/* Memory that was never touched frees nothing: the target goes below what is resident. */
static void test_untouched(void **state)
{
        for (int first = 0; first <= 1; first++) {
                struct sim *s = sim_new(4 * BL_GIB);
                struct sim_guest *g = sim_add(s, "empty", 4 * BL_GIB, BL_GIB, false);
                uint64_t mark = bl_part(4 * BL_GIB, 600);

                (void)state;
                g->touched = 512 * BL_MIB;
                g->untouched_first = first == 1;
                s->other = s->other_want = s->budget - sim_resident(g) - mark / 3;
                assert_true(sim_run_until_free(s, mark, 20 * BL_SEC) != BL_UNSET);
                assert_between(g->commands, 1, 2);
                sim_run(s, 20 * BL_SEC);
                sim_at_rest(s);
                sim_run(s, 60 * BL_SEC);
                assert_int_equal(s->faults.reversals, 0);
                assert_true(sim_host_free(s) >= mark);
                sim_assert_kept(s);
                sim_free(s);
        }
}

/* Above its limit is the administrator's word, with plenty free as well. */
static void test_limit(void **state)
{
        struct sim *s = sim_new(16 * BL_GIB);
        struct sim_guest *g = sim_add(s, "fat", 4 * BL_GIB, 512 * BL_MIB, true);

        (void)state;
        sim_run(s, 5 * BL_SEC);
        assert_int_equal(g->commands, 0);
        g->limit = 2 * BL_GIB;
        sim_run(s, 5 * BL_SEC);
        assert_int_equal(g->actual, 2 * BL_GIB);
        assert_int_equal(g->commands, 1);
        sim_run(s, 30 * BL_SEC);
        assert_int_equal(g->commands, 1);
        sim_assert_kept(s);
        sim_free(s);
}

static void test_reservation(void **state)
{
        struct sim *s = crowded();

        (void)state;
        for (int i = 0; i < 4; i++)
                s->g[i].reservation = 2 * BL_GIB - 100 * BL_MIB;
        sim_run(s, 20 * BL_SEC);
        for (int i = 0; i < 4; i++)
                assert_true(s->g[i].actual >= s->g[i].reservation);
        /* what is missing is said */
        assert_true(s->plan.unmet > 0 || sim_host_free(s) >= MARK);

        /* raised in operation: it is brought there, by others */
        s->g[1].reservation = s->g[2].reservation = s->g[3].reservation = 0;
        s->g[0].reservation = 2 * BL_GIB;
        sim_run(s, 20 * BL_SEC);
        assert_int_equal(s->g[0].actual, 2 * BL_GIB);
        sim_assert_kept(s);
        sim_free(s);
}

/* The daemon's own targets can be told from somebody else's, and no bound is broken for it. */
static void test_grain(void **state)
{
        struct sim *s = crowded();

        (void)state;
        for (int i = 0; i < 4; i++) {
                s->g[i].grain = BL_MIB;
                s->g[i].phase = 52 * BL_KIB;
                s->g[i].reservation = 512 * BL_MIB;
        }
        s->g[0].stuck = true;
        sim_run(s, 20 * BL_SEC);
        assert_true(sim_host_free(s) >= MARK);
        s->budget += 8 * BL_GIB;
        sim_run(s, 60 * BL_SEC);
        for (int i = 1; i < 4; i++)
                assert_true(s->g[i].actual >= s->g[i].limit - s->config.dead_band);
        assert_true(s->commands > 4);
        sim_assert_kept(s);
        sim_free(s);
}

/* Slow, limited, stuck and ideal ones together, with the host growing on. */
static void test_mixed(void **state)
{
        struct sim *s = crowded();

        (void)state;
        s->g[0].speed_down = 16 * BL_MIB;
        s->g[1].low_stop = 1900 * BL_MIB;
        s->g[2].stuck = true;
        assert_true(sim_run_until_free(s, MARK, 20 * BL_SEC) != BL_UNSET);
        s->other_want = s->other + 300 * BL_MIB;
        s->other_rate = 50 * BL_MIB;
        sim_run(s, 30 * BL_SEC);
        assert_true(sim_host_free(s) >= s->plan.marks.mark[BL_STATE_SOFT]);
        sim_assert_kept(s);
        sim_free(s);
}

/* VMs that must be left alone are. */
static void test_hands_off(void **state)
{
        struct sim *s = crowded();

        (void)state;
        sim_add(s, "held", BL_GIB, 100 * BL_MIB, true)->hold = BL_HOLD_ADMIN;
        sim_add(s, "byhand", BL_GIB, 100 * BL_MIB, true)->hold = BL_HOLD_HAND;
        sim_add(s, "unmanaged", BL_GIB, 100 * BL_MIB, true)->managed = false;
        sim_add(s, "vfio", BL_GIB, 100 * BL_MIB, true)->no_reclaim = BL_RECLAIM_VFIO;
        sim_add(s, "paused", BL_GIB, 100 * BL_MIB, true)->run = BL_RUN_PAUSED;
        sim_add(s, "leaving", BL_GIB, 100 * BL_MIB, true)->run = BL_RUN_MIGRATING;
        sim_add(s, "hung", BL_GIB, 100 * BL_MIB, true)->hung = true;
        s->budget += 7 * (BL_GIB + 40 * BL_MIB);
        sim_run(s, 20 * BL_SEC);
        assert_true(sim_host_free(s) >= s->plan.marks.mark[BL_STATE_CLEAR]);
        for (size_t i = 4; i < s->n; i++)
                assert_int_equal(s->g[i].commands, 0);
        assert_int_equal(sim_decision(s, &s->g[4])->why, BL_WHY_SKIP_HELD);
        assert_int_equal(sim_decision(s, &s->g[5])->why, BL_WHY_SKIP_HELD);
        assert_int_equal(sim_decision(s, &s->g[6])->why, BL_WHY_SKIP_UNMANAGED);
        assert_int_equal(sim_decision(s, &s->g[7])->why, BL_WHY_SKIP_RECLAIM);
        assert_int_equal(sim_decision(s, &s->g[8])->why, BL_WHY_SKIP_PAUSED);
        assert_int_equal(sim_decision(s, &s->g[9])->why, BL_WHY_SKIP_MIGRATING);
        assert_int_equal(sim_decision(s, &s->g[10])->why, BL_WHY_SKIP_HUNG);
        sim_assert_kept(s);
        sim_free(s);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_ideal),       cmocka_unit_test(test_no_overshoot),
                cmocka_unit_test(test_one_command), cmocka_unit_test(test_slow),
                cmocka_unit_test(test_all_slow),    cmocka_unit_test(test_lower_limit),
                cmocka_unit_test(test_upper_limit), cmocka_unit_test(test_untouched),
                cmocka_unit_test(test_limit),       cmocka_unit_test(test_reservation),
                cmocka_unit_test(test_grain),       cmocka_unit_test(test_mixed),
                cmocka_unit_test(test_hands_off),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
