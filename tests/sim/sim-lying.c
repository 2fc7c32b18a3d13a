/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Guests whose words and deeds differ. */
#include "sim.h"

/* Says that it gave, and the host holds the memory as before: the others give what is missing. */
static void test_kept_what_it_gave(void **state)
{
        struct sim *s = sim_crowded(4);
        struct sim_guest *g = &s->g[0];
        unsigned int commands;

        (void)state;
        g->lying = true;
        s->other_want = 400 * BL_MIB;
        s->other_rate = 100 * BL_MIB;
        sim_run(s, 15 * BL_SEC);
        assert_true(sim_host_free(s) >= s->plan.marks.mark[BL_STATE_SOFT]);
        assert_true(sim_decision(s, g)->lying);
        assert_int_equal(sim_decision(s, g)->why, BL_WHY_SKIP_LYING);
        for (int i = 1; i < 4; i++)
                assert_false(sim_decision(s, &s->g[i])->lying);

        /* nothing more is asked of it, and nothing is given to it */
        commands = g->commands;
        s->budget += 16 * BL_GIB;
        sim_run(s, 30 * BL_SEC);
        assert_int_equal(g->commands, commands);
        for (int i = 1; i < 4; i++)
                assert_true(s->g[i].actual >= s->g[i].limit - s->config.dead_band);

        /* honest again: forgiven */
        g->lied = 0;
        g->lying = false;
        sim_run(s, 10 * BL_SEC);
        assert_false(sim_decision(s, g)->lying);
        sim_assert_kept(s);
        sim_free(s);
}

/* An honest one whose resident size is read late is not called a liar. */
static void test_honest_is_not_accused(void **state)
{
        struct sim *s = sim_crowded(4);

        (void)state;
        for (int i = 0; i < 4; i++)
                s->g[i].overhead = 100 * BL_MIB; /* more than anyone thinks: the snapshot says so too */
        s->budget += 4 * 60 * BL_MIB;
        for (int i = 0; i < 10; i++) {
                s->other_want = i % 2 ? 0 : 800 * BL_MIB;
                s->other_rate = 200 * BL_MIB;
                sim_run(s, 20 * BL_SEC);
                for (int k = 0; k < 4; k++)
                        assert_false(sim_decision(s, &s->g[k])->lying);
        }
        sim_assert_kept(s);
        sim_free(s);
}

/* "I have nothing left", always: believed as far as its shares go, and no further. */
static void test_always_starving(void **state)
{
        struct sim *s = sim_new(4 * BL_GIB);
        struct sim_guest *liar, *busy[3];

        (void)state;
        liar = sim_add(s, "liar", 3 * BL_GIB, 300 * BL_MIB, false);
        for (int i = 0; i < 3; i++)
                busy[i] = sim_add(s, i == 0 ? "busy0" : i == 1 ? "busy1" : "busy2", 3 * BL_GIB, 600 * BL_MIB, false);
        for (int i = 0; i < 3; i++) {
                busy[i]->actual = busy[i]->target = 800 * BL_MIB;
                busy[i]->touched = 0;
        }
        liar->actual = liar->target = 500 * BL_MIB;
        liar->stats = SIM_STATS_STARVING;
        /* it fills whatever it gets, and has nothing of it */
        liar->cache_want = 3 * BL_GIB;
        for (int i = 0; i < 3; i++)
                busy[i]->cache_want = 100 * BL_MIB;
        s->other = s->other_want = 700 * BL_MIB;
        sim_run(s, 120 * BL_SEC);

        /* the busy ones keep what they need, and what they do not need is all that it could get */
        for (int i = 0; i < 3; i++) {
                assert_true(busy[i]->actual >= busy[i]->used + busy[i]->own + s->config.guest_margin / 2);
                assert_true(busy[i]->actual * 3 / 2 >= liar->actual);
        }
        sim_assert_kept(s);
        sim_free(s);
}

/* The same with memory pressure that never ends: it protects what its shares entitle it to. */
static void test_always_pressed(void **state)
{
        for (int pressed = 0; pressed <= 1; pressed++) {
                struct sim *s = sim_new(4 * (2 * BL_GIB + 40 * BL_MIB) + 50 * BL_MIB);
                uint64_t others = 0;

                (void)state;
                for (int i = 0; i < 4; i++)
                        sim_add(s, i == 0 ? "liar" : "other", 2 * BL_GIB, 700 * BL_MIB, true);
                s->g[0].psi = pressed == 1;
                /* and now a good part of the host goes elsewhere */
                s->other_want = 3 * BL_GIB;
                s->other_rate = 200 * BL_MIB;
                sim_run(s, 120 * BL_SEC);
                for (int i = 1; i < 4; i++)
                        others += s->g[i].actual;
                others /= 3;
                assert_true(sim_host_free(s) >= s->plan.marks.mark[BL_STATE_SOFT]);
                if (pressed) {
                        /* at 75 % an idle page costs four active ones: it may have as much as they pay for */
                        uint64_t active = s->g[1].used + s->g[1].own;

                        assert_between(s->g[0].actual, others, active + 4 * (others - active) + 64 * BL_MIB);
                        assert_true(others >= active + s->config.guest_margin);
                        assert_true(s->g[0].actual < s->g[0].max - 200 * BL_MIB);
                } else {
                        assert_between(s->g[0].actual, others - 32 * BL_MIB, others + 32 * BL_MIB);
                }
                sim_assert_kept(s);
                sim_free(s);
        }
}

/* Claims plenty and has none: hurts itself alone, and its reservation still holds. */
static void test_generous(void **state)
{
        struct sim *s = sim_crowded(4);

        (void)state;
        s->g[0].reservation = BL_GIB;
        s->g[0].cache = 0;
        s->g[0].cache_want = 0;
        s->g[0].touched = BL_GIB;
        s->other_want = 3 * BL_GIB;
        s->other_rate = 200 * BL_MIB;
        sim_run(s, 60 * BL_SEC);
        assert_true(s->g[0].actual >= BL_GIB);
        sim_assert_kept(s);
        sim_free(s);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_kept_what_it_gave), cmocka_unit_test(test_honest_is_not_accused),
                cmocka_unit_test(test_always_starving),   cmocka_unit_test(test_always_pressed),
                cmocka_unit_test(test_generous),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
