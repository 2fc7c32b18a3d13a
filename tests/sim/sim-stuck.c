/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Guests that do not follow: found out, worked around, not rewarded, and asked again. */
#include "sim.h"

static uint64_t mark(const struct sim *s)
{
        return s->plan.marks.mark[BL_STATE_CLEAR];
}

static void test_one_stuck(void **state)
{
        struct sim *s = sim_crowded(4);
        unsigned int asked;

        (void)state;
        s->g[0].stuck = true;
        sim_run(s, BL_MSEC);
        /* the others make up for it long before it is called stuck */
        assert_between(sim_run_until_free(s, mark(s), 10 * BL_SEC), 0, s->config.stuck_after);
        sim_run(s, s->config.stuck_after + BL_SEC);
        assert_true(sim_decision(s, &s->g[0])->stuck);
        assert_int_equal(sim_decision(s, &s->g[0])->why, BL_WHY_SKIP_STUCK);
        assert_true(sim_decision(s, &s->g[0])->retry_at > s->now);
        /* so that it does not give later, at a bad time */
        assert_int_equal(s->g[0].target, s->g[0].actual);

        /* more pressure: it is not asked before its time */
        asked = s->g[0].commands;
        s->other_want = s->other + 300 * BL_MIB;
        s->other_rate = 300 * BL_MIB;
        sim_run(s, 8 * BL_SEC);
        assert_int_equal(s->g[0].commands, asked);
        assert_true(sim_host_free(s) >= s->plan.marks.mark[BL_STATE_SOFT]);
        sim_assert_kept(s);
        sim_free(s);
}

/* Without the detection the host waits for it for ever: nobody else is asked for its part. */
static void test_switched_off(void **state)
{
        for (int off = 0; off <= 1; off++) {
                struct sim *s = sim_new(2 * (2 * BL_GIB + 40 * BL_MIB) + 10 * BL_MIB);

                (void)state;
                s->config.test.no_stuck_detection = off == 1;
                sim_add(s, "rich", 2 * BL_GIB, 100 * BL_MIB, true)->stuck = true;
                sim_add(s, "poor", 2 * BL_GIB, BL_GIB, true);
                sim_run(s, 60 * BL_SEC);
                if (off) {
                        assert_true(s->plan.state >= BL_STATE_SOFT);
                        assert_true(sim_host_free(s) < s->plan.marks.mark[BL_STATE_SOFT]);
                        assert_int_equal(s->g[1].commands, 0);
                } else {
                        assert_true(sim_host_free(s) >= mark(s));
                        assert_true(s->g[1].commands > 0);
                }
                sim_free(s);
        }
}

/* Asked again after 20 s, 40 s, 80 s...; and at most every ten minutes. */
static void test_retry_doubles(void **state)
{
        struct sim *s = sim_new(2 * BL_GIB + 40 * BL_MIB + 10 * BL_MIB);
        struct sim_guest *g = sim_add(s, "alone", 2 * BL_GIB, 512 * BL_MIB, true);
        usec_t times[16], last = 0;
        unsigned int n = 0;

        (void)state;
        g->stuck = true;
        while (n < 10 && s->now < 1000 * BL_SEC + 7200 * BL_SEC) {
                unsigned int before = g->commands;

                sim_run(s, s->tick);
                if (g->commands > before)
                        times[n++] = s->now;
        }
        assert_int_equal(n, 10);
        for (unsigned int i = 1; i < n; i++) {
                usec_t gap = times[i] - times[i - 1];

                assert_true(gap + BL_SEC >= last);
                assert_true(gap >= s->config.retry_first);
                assert_true(gap <= s->config.retry_max + s->config.stuck_after + 2 * BL_SEC);
                last = gap;
        }
        assert_true(last > 500 * BL_SEC);
        /* and when it can, it takes part again, with nothing left of the past */
        g->stuck = false;
        assert_true(sim_run_until_free(s, mark(s), 700 * BL_SEC) != BL_UNSET);
        assert_false(sim_decision(s, g)->stuck);
        assert_int_equal(sim_decision(s, g)->retry_at, 0);
        sim_assert_kept(s);
        sim_free(s);
}

/* When it is asked again, the others are asked for all that is needed as well. */
static void test_not_relied_on(void **state)
{
        struct sim *s = sim_crowded(4);
        struct sim_guest *g = &s->g[0];

        (void)state;
        g->stuck = true;
        /* it would be the first to give, and has all that is needed */
        g->want = g->used = 100 * BL_MIB;
        g->cache = g->cache_want = g->max - g->own - g->used - 4 * BL_MIB;
        sim_run(s, 40 * BL_SEC);
        assert_true(sim_decision(s, g)->stuck);
        assert_true(sim_decision(s, g)->retry_at < s->now);
        g->commands = 0;
        s->other_rate = 64 * BL_GIB;
        s->other_want = s->other + sim_host_free(s) - s->plan.marks.mark[BL_STATE_HARD];
        sim_run(s, s->step);
        assert_between(sim_run_until_free(s, mark(s), 10 * BL_SEC), 0, BL_SEC);
        assert_int_equal(g->commands, 1);
        sim_run(s, BL_SEC / 2);
        assert_true(g->target < g->actual);
        assert_int_equal(s->plan.coming, 0);
        sim_assert_kept(s);
        sim_free(s);
}

/* One that stops and goes gives what it can in the end, and the host is not harmed meanwhile. */
static void test_intermittent(void **state)
{
        struct sim *s = sim_crowded(4);

        (void)state;
        s->g[0].on = 2 * BL_SEC;
        s->g[0].off = 9 * BL_SEC;
        s->g[1].on = BL_SEC / 2;
        s->g[1].off = 6 * BL_SEC;
        sim_run(s, BL_MSEC);
        assert_between(sim_run_until_free(s, mark(s), 10 * BL_SEC), 0, 8 * BL_SEC);
        for (int i = 0; i < 6; i++) {
                s->other_want = s->other + 200 * BL_MIB;
                s->other_rate = 40 * BL_MIB;
                sim_run(s, 30 * BL_SEC);
                assert_true(sim_host_free(s) >= s->plan.marks.mark[BL_STATE_SOFT]);
        }
        sim_assert_kept(s);
        sim_free(s);
}

/* A stuck guest that claims to be short gets nothing while others are squeezed for its sake. */
static void test_not_rewarded(void **state)
{
        struct sim *s = sim_crowded(4);
        struct sim_guest *g = &s->g[0];
        uint64_t had;

        (void)state;
        /* small, so that its shares would entitle it to more */
        g->actual = g->target = BL_GIB;
        g->cache = g->cache_want = BL_GIB - g->own - g->used - 4 * BL_MIB;
        g->shares = 200;
        g->stuck = true;
        s->budget -= BL_GIB;
        s->other_rate = 200 * BL_MIB;
        sim_run(s, 5 * BL_SEC);
        s->other_want = 400 * BL_MIB;
        sim_run(s, 15 * BL_SEC);
        assert_true(sim_decision(s, g)->stuck);
        had = g->target;
        g->shares = 1000;
        g->stats = SIM_STATS_STARVING;
        s->budget += 150 * BL_MIB;
        for (int k = 0; k < 240; k++) {
                sim_run(s, s->tick);
                assert_true(g->target <= had);
                for (int i = 1; i < 4; i++)
                        assert_true(sim_decision(s, &s->g[i])->why != BL_WHY_TAKE_FOR_OTHER);
        }
        sim_assert_kept(s);
        sim_free(s);
}

/* When there is plenty again, those come first that gave. */
static void test_last_at_rest(void **state)
{
        struct sim *s = sim_crowded(4);
        struct sim_guest *g = &s->g[0];
        bool others = true;

        (void)state;
        g->actual = g->target = BL_GIB;
        g->cache = g->cache_want = BL_GIB - g->own - g->used - 4 * BL_MIB;
        g->shares = 200;
        g->stuck = true;
        s->budget -= BL_GIB;
        s->other_want = BL_GIB;
        s->other_rate = 200 * BL_MIB;
        sim_run(s, 30 * BL_SEC);
        assert_true(sim_decision(s, g)->stuck);
        g->shares = 1000;
        s->budget += 4 * BL_GIB;
        for (int i = 0; i < 240; i++) {
                sim_run(s, s->tick);
                if (g->target > BL_GIB + BL_MIB)
                        break;
                others = false;
                for (int k = 1; k < 4; k++)
                        others |= s->g[k].target + s->config.dead_band < s->g[k].limit;
        }
        assert_true(g->target > BL_GIB + BL_MIB);
        assert_false(others);
        sim_assert_kept(s);
        sim_free(s);
}

/* Its vCPUs stand still: its balloon cannot move, which is not its fault. */
static void test_paused_is_not_stuck(void **state)
{
        struct sim *s = sim_crowded(4);
        struct sim_guest *g = &s->g[0];

        (void)state;
        g->speed_down = 4 * BL_MIB;
        sim_run(s, BL_SEC / 2);
        assert_true(g->commands > 0);
        g->run = BL_RUN_PAUSED;
        sim_run(s, 60 * BL_SEC);
        assert_false(sim_decision(s, g)->stuck);
        g->run = BL_RUN_RUNNING;
        for (int i = 0; i < 12; i++) {
                sim_run(s, s->tick);
                assert_false(sim_decision(s, g)->stuck);
                assert_true(sim_decision(s, g)->why != BL_WHY_PARK_STUCK);
        }
        sim_assert_kept(s);
        sim_free(s);
}

/* What was learned of the kernel that ran before does not hold for the one that runs now. */
static void test_reboot_forgets(void **state)
{
        struct sim *s = sim_crowded(4);
        struct sim_guest *g = &s->g[0];

        (void)state;
        g->stuck = true;
        sim_run(s, 10 * BL_SEC);
        assert_true(sim_decision(s, g)->stuck);
        g->stuck = false;
        sim_reboot(s, g);
        sim_run(s, BL_SEC);
        assert_false(sim_decision(s, g)->stuck);
        assert_int_equal(sim_decision(s, g)->speed, s->config.first_speed);
        sim_assert_kept(s);
        sim_free(s);
}

/* All are stuck: nothing can be done, and that is said. */
static void test_all_stuck(void **state)
{
        struct sim *s = sim_crowded(4);

        (void)state;
        for (int i = 0; i < 4; i++)
                s->g[i].stuck = true;
        sim_run(s, 15 * BL_SEC);
        assert_true(s->plan.unmet > 0);
        assert_int_equal(s->plan.coming, 0);
        for (int i = 0; i < 4; i++) {
                assert_true(sim_decision(s, &s->g[i])->stuck);
                assert_int_equal(s->g[i].target, s->g[i].actual);
        }
        sim_assert_kept(s);
        sim_free(s);
}

/* Takes its pages back by itself when it runs out (deflate-on-oom): not told to give them again, although
 * the host is in need and its last report still says that it is idle. */
static void test_deflate_on_oom(void **state)
{
        struct sim *s = sim_crowded(4);
        struct sim_guest *g = &s->g[0];

        (void)state;
        for (int i = 0; i < 4; i++) {
                s->g[i].deflate_oom = true;
                s->g[i].period = 5 * BL_SEC;
                s->g[i].speed_down = 100 * BL_MIB;
        }
        s->other_want = BL_GIB;
        s->other_rate = 200 * BL_MIB;
        sim_run(s, 30 * BL_SEC);
        assert_true(g->actual < g->max - 200 * BL_MIB);
        while (s->now > g->report.at + BL_SEC / 4)
                sim_run(s, s->step);
        /* all at once, faster than any report: the balloon is all that it has left */
        g->rate = 64 * BL_GIB;
        g->want = 2 * BL_GIB - 60 * BL_MIB;
        s->other_want += 200 * BL_MIB;
        for (int i = 0; i < 14; i++) {
                sim_run(s, s->tick);
                assert_false(sim_decision(s, g)->act && sim_decision(s, g)->why != BL_WHY_PARK_STUCK &&
                             sim_decision(s, g)->to < sim_decision(s, g)->from);
                assert_false(sim_decision(s, g)->stuck);
        }
        sim_run(s, 20 * BL_SEC);
        assert_int_equal(g->kills, 0);
        assert_true(g->target >= g->used + g->own);
        sim_assert_kept(s);
        sim_free(s);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_one_stuck),      cmocka_unit_test(test_switched_off),
                cmocka_unit_test(test_retry_doubles),  cmocka_unit_test(test_intermittent),
                cmocka_unit_test(test_not_relied_on),  cmocka_unit_test(test_last_at_rest),

                cmocka_unit_test(test_not_rewarded),   cmocka_unit_test(test_paused_is_not_stuck),
                cmocka_unit_test(test_reboot_forgets), cmocka_unit_test(test_all_stuck),
                cmocka_unit_test(test_deflate_on_oom),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
