/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Host states, growth, two-phase freeing and rest. */
#include "sim.h"

static uint64_t mark(const struct sim *s, enum bl_host_state state)
{
        return s->plan.marks.mark[state];
}

/* One guest is due memory that another gives slowly, while the host has none to spare. */
static struct sim *two_phase(bool off)
{
        struct sim *s = sim_new(4 * BL_GIB);
        struct sim_guest *rich, *poor;

        s->config.test.no_two_phase = off;
        rich = sim_add(s, "rich", 3 * BL_GIB, 200 * BL_MIB, true);
        poor = sim_add(s, "poor", 3 * BL_GIB, 400 * BL_MIB, false);
        rich->speed_down = 40 * BL_MIB;
        poor->actual = poor->target = 600 * BL_MIB;
        sim_run(s, BL_MSEC);
        s->other = s->other_want = sim_host_free(s) - mark(s, BL_STATE_CLEAR) - 20 * BL_MIB;
        sim_run(s, 5 * BL_SEC);
        s->min_free = UINT64_MAX;
        /* it uses at once what it gets */
        poor->want = 2 * BL_GIB;
        poor->rate = 400 * BL_MIB;
        poor->swap_total = 4 * BL_GIB;
        sim_run(s, 60 * BL_SEC);
        return s;
}

static void test_two_phase(void **state)
{
        struct sim *s = two_phase(false);

        (void)state;
        assert_true(s->min_free >= mark(s, BL_STATE_SOFT));
        assert_true(s->g[1].actual > BL_GIB);
        sim_assert_kept(s);
        sim_free(s);
}

static void test_two_phase_off(void **state)
{
        struct sim *s = two_phase(true);

        (void)state;
        assert_true(s->faults.overdraft > 0);
        assert_true(s->min_free < mark(s, BL_STATE_LOW));
        sim_free(s);
}

/* Four guests squeezed by something else on the host, which then goes away; nobody touches what they get back. */
static struct sim *relieved(void)
{
        struct sim *s = sim_crowded(4);

        s->other = s->other_want = 0;
        sim_run(s, 10 * BL_SEC);
        s->other_want = 2 * BL_GIB;
        s->other_rate = BL_GIB / 2;
        sim_run(s, 30 * BL_SEC);
        for (int i = 0; i < 4; i++)
                s->g[i].cache_want = 0;
        s->other_want = 0;
        return s;
}

/* Granted a moment ago and not used yet: it is not given a second time. */
static void test_promises_add_up(void **state)
{
        struct sim *s = relieved();
        uint64_t promised = 0;

        (void)state;
        for (int i = 0; i < 100 && promised < 500 * BL_MIB; i++) {
                sim_run(s, 200 * BL_MSEC);
                promised = s->plan.promised;
        }
        assert_true(promised >= 500 * BL_MIB);
        s->min_free = UINT64_MAX;
        /* and now all use it, at once */
        for (int i = 0; i < 4; i++) {
                s->g[i].cache_want = 2 * BL_GIB;
                s->g[i].cache_rate = 2 * BL_GIB;
        }
        sim_run(s, 20 * BL_SEC);
        assert_true(s->min_free >= mark(s, BL_STATE_SOFT));
        sim_assert_kept(s);
        sim_free(s);
}

/* What nobody has touched for seconds is idle and promised again, so that guests do not stay squeezed on a
 * host with plenty; when all want it after all, some give back and none is hurt. */
static void test_promises_fade(void **state)
{
        struct sim *s = relieved();

        (void)state;
        sim_run(s, 120 * BL_SEC);
        for (int i = 0; i < 4; i++)
                assert_true(s->g[i].actual + 64 * BL_MIB >= 2 * BL_GIB);
        assert_true(s->plan.promised < 64 * BL_MIB);
        for (int i = 0; i < 4; i++) {
                s->g[i].cache_want = 2 * BL_GIB;
                s->g[i].cache_rate = BL_GIB / 2;
        }
        sim_run(s, 30 * BL_SEC);
        assert_true(s->snapshot.host.free >= mark(s, BL_STATE_SOFT));
        for (int i = 0; i < 4; i++)
                assert_int_equal(s->g[i].kills, 0);
        sim_free(s);
}

/* The guests have nothing left to give, and free memory swings by a little about the mark of hard. */
static struct sim *swinging(bool off)
{
        struct sim *s = sim_crowded(4);

        s->config.test.no_hysteresis = off;
        for (int i = 0; i < 4; i++) {
                s->g[i].want = s->g[i].used = 2 * BL_GIB - s->g[i].own - 90 * BL_MIB;
                s->g[i].cache = s->g[i].cache_want = 0;
                s->g[i].touched = 86 * BL_MIB;
        }
        s->budget += 500 * BL_MIB;
        sim_run(s, 20 * BL_SEC);
        s->other_rate = 64 * BL_GIB;
        s->other_want = sim_host_free(s) - mark(s, BL_STATE_HARD) + 4 * BL_MIB;
        sim_run(s, 20 * BL_SEC);
        sim_at_rest(s);
        for (int i = 0; i < 100; i++) {
                s->other_want = i % 2 ? s->other + 8 * BL_MIB : s->other - 8 * BL_MIB;
                sim_run(s, BL_SEC);
        }
        return s;
}

static void test_hysteresis(void **state)
{
        struct sim *s = swinging(false);

        (void)state;
        assert_int_equal(s->plan.state, BL_STATE_HARD);
        assert_int_equal(s->state_changes, 0);
        assert_int_equal(s->faults.reversals, 0);
        sim_assert_kept(s);
        sim_free(s);
}

static void test_hysteresis_off(void **state)
{
        struct sim *s = swinging(true);

        (void)state;
        assert_true(s->state_changes >= 50);
        sim_free(s);
}

/* One guest gives a part and no more, which lifts free above the mark of soft. With hysteresis the other
 * one is asked for the rest; without it reclaim ends where it began, and the host stays at its edge. */
static void test_hysteresis_goal(void **state)
{
        for (int off = 0; off <= 1; off++) {
                struct sim *s = sim_new(2 * (2 * BL_GIB + 40 * BL_MIB) + 10 * BL_MIB);

                (void)state;
                s->config.test.no_hysteresis = off == 1;
                sim_add(s, "idle", 2 * BL_GIB, 100 * BL_MIB, true)->low_stop = 2 * BL_GIB - 180 * BL_MIB;
                sim_add(s, "busy", 2 * BL_GIB, BL_GIB, true);
                sim_run(s, 30 * BL_SEC);
                assert_true(sim_host_free(s) >= mark(s, BL_STATE_SOFT));
                if (off)
                        assert_true(sim_host_free(s) < mark(s, BL_STATE_CLEAR));
                else
                        assert_true(sim_host_free(s) >= mark(s, BL_STATE_CLEAR));
                sim_free(s);
        }
}

/* The host loses memory fast: ballooning begins before soft, and free never gets near low. */
static void test_growth_is_met_ahead(void **state)
{
        struct sim *s = sim_crowded(4);
        bool lead = false;

        (void)state;
        sim_run(s, 15 * BL_SEC);
        s->min_free = UINT64_MAX;
        for (int i = 0; i < 4; i++)
                s->g[i].speed_down = 256 * BL_MIB;
        s->other_want = 2 * BL_GIB;
        s->other_rate = 300 * BL_MIB;
        for (int i = 0; i < 60; i++) {
                sim_run(s, s->tick);
                for (size_t k = 0; k < s->n; k++)
                        lead |= s->plan.d[k].act && s->plan.d[k].why == BL_WHY_TAKE_LEAD;
        }
        assert_true(lead);
        assert_true(s->min_free >= mark(s, BL_STATE_HARD));
        sim_assert_kept(s);
        sim_free(s);
}

static void test_psi(void **state)
{
        struct sim *s = sim_crowded(4);
        unsigned int before;

        (void)state;
        sim_run(s, 15 * BL_SEC);
        assert_int_equal(s->plan.state, BL_STATE_CLEAR);
        before = s->commands;
        s->psi = true;
        sim_run(s, BL_SEC);
        /* the budget is not the RAM: what the kernel says of the RAM is not about it */
        assert_int_equal(s->commands, before);
        s->is_ram = true;
        sim_run(s, BL_SEC);
        assert_true(s->commands > before);
        s->psi = false;
        sim_run(s, 5 * BL_SEC);
        assert_true(sim_host_free(s) > mark(s, BL_STATE_CLEAR) * 5 / 4);
        sim_assert_kept(s);
        sim_free(s);
}

/* Pressure goes away: the guests have everything back within moments, and then all is quiet. */
static void test_back_at_rest(void **state)
{
        struct sim *s = sim_crowded(4);

        (void)state;
        s->other_want = 2 * BL_GIB;
        s->other_rate = 400 * BL_MIB;
        sim_run(s, 30 * BL_SEC);
        s->other_want = 0;
        s->other_rate = 64 * BL_GIB;
        sim_run(s, s->config.settle + 10 * BL_SEC);
        /* as far as the host has it: down to twice minFree */
        assert_between(sim_host_free(s), 2 * mark(s, BL_STATE_CLEAR) - 32 * BL_MIB, 4 * mark(s, BL_STATE_CLEAR));
        sim_run(s, 20 * BL_SEC);
        sim_at_rest(s);
        sim_run(s, 300 * BL_SEC);
        assert_int_equal(s->faults.reversals, 0);
        assert_int_equal(s->commands, 0);
        sim_assert_kept(s);
        sim_free(s);
}

/* Not to and fro: what was taken a moment ago comes back when things have settled, and when the host is high
 * and not merely clear. */
static void test_settles(void **state)
{
        struct sim *s = sim_crowded(4);
        usec_t told = 0;

        (void)state;
        s->budget += 4 * BL_GIB;
        s->other = s->other_want = 4 * BL_GIB;
        s->other_rate = 64 * BL_GIB;
        sim_run(s, 20 * BL_SEC);
        s->other_want += 350 * BL_MIB;
        sim_run(s, BL_SEC);
        for (int i = 0; i < 4; i++)
                told = bl_max(told, s->g[i].target_at);
        assert_true(told + 2 * BL_SEC > s->now);
        s->other_want = s->other - 4 * BL_GIB;
        while (s->now < told + s->config.settle - s->tick) {
                sim_run(s, s->tick);
                for (int i = 0; i < 4; i++)
                        assert_true(s->g[i].target_at <= told);
        }
        assert_int_equal(s->plan.state, BL_STATE_HIGH);
        sim_run(s, 10 * BL_SEC);
        for (int i = 0; i < 4; i++)
                assert_true(s->g[i].target_at > told);
        sim_assert_kept(s);
        sim_free(s);
}

static void test_clear_is_not_high(void **state)
{
        struct sim *s = sim_crowded(4);

        (void)state;
        s->other_want = 2 * BL_GIB;
        s->other_rate = 400 * BL_MIB;
        sim_run(s, 30 * BL_SEC);
        sim_at_rest(s);
        s->other_want -= 3 * mark(s, BL_STATE_CLEAR) - sim_host_free(s);
        sim_run(s, 60 * BL_SEC);
        assert_int_equal(s->plan.state, BL_STATE_CLEAR);
        assert_int_equal(s->commands, 0);
        s->other_want -= 11 * mark(s, BL_STATE_CLEAR) / 10;
        sim_run(s, 5 * BL_SEC);
        assert_true(s->commands > 0);
        sim_assert_kept(s);
        sim_free(s);
}

/* Rest with life in it: workloads that go up and down a little inside their guests move nothing. */
static void test_noise_at_rest(void **state)
{
        struct sim *s = sim_crowded(4);
        uint64_t seed = 4711;

        (void)state;
        sim_run(s, 20 * BL_SEC);
        sim_at_rest(s);
        for (int i = 0; i < 600; i++) {
                struct sim_guest *g = &s->g[sim_random(&seed) % 4];

                g->want = 512 * BL_MIB + sim_random(&seed) % (30 * BL_MIB);
                sim_run(s, BL_SEC / 2);
        }
        assert_int_equal(s->faults.reversals, 0);
        assert_between(s->commands, 0, 8);
        sim_assert_kept(s);
        sim_free(s);
}

/* Up and down by a lot, every half minute: what is done is right each time, and not done twice. */
static void test_tides(void **state)
{
        struct sim *s = sim_crowded(4);

        (void)state;
        sim_run(s, 20 * BL_SEC);
        for (int i = 0; i < 10; i++) {
                s->other_want = i % 2 ? 0 : 3 * BL_GIB / 2;
                s->other_rate = 150 * BL_MIB;
                sim_run(s, 40 * BL_SEC);
                assert_true(sim_host_free(s) >= mark(s, BL_STATE_SOFT));
        }
        for (int i = 0; i < 4; i++)
                assert_between(s->g[i].reversals, 0, 10);
        sim_assert_kept(s);
        sim_free(s);
}

/* A VM comes and boots, another one goes. */
static void test_coming_and_going(void **state)
{
        struct sim *s = sim_crowded(4);
        struct sim_guest gone, *g;

        (void)state;
        sim_run(s, 10 * BL_SEC);
        gone = s->g[1];
        s->g[1] = s->g[2];
        s->g[2] = s->g[3];
        s->n = 3;
        sim_run(s, 20 * BL_SEC);
        s->g[3] = gone;
        s->n = 4;
        g = &s->g[3];
        snprintf(g->name, sizeof(g->name), "new");
        g->uuid[0] ^= 0xff;
        g->target = g->max;
        sim_reboot(s, g);
        g->want = 700 * BL_MIB;
        g->cache_want = 2 * BL_GIB;
        sim_run(s, 60 * BL_SEC);
        assert_true(sim_host_free(s) >= mark(s, BL_STATE_SOFT));
        assert_true(g->used >= 700 * BL_MIB);
        sim_assert_kept(s);
        sim_free(s);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_two_phase),
                cmocka_unit_test(test_two_phase_off),
                cmocka_unit_test(test_promises_add_up),
                cmocka_unit_test(test_promises_fade),
                cmocka_unit_test(test_hysteresis),
                cmocka_unit_test(test_hysteresis_off),
                cmocka_unit_test(test_hysteresis_goal),
                cmocka_unit_test(test_growth_is_met_ahead),
                cmocka_unit_test(test_psi),
                cmocka_unit_test(test_back_at_rest),
                cmocka_unit_test(test_settles),
                cmocka_unit_test(test_clear_is_not_high),

                cmocka_unit_test(test_noise_at_rest),
                cmocka_unit_test(test_tides),
                cmocka_unit_test(test_coming_and_going),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
