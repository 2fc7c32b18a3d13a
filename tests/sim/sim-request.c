/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Guests that ask for memory: who gets it and how soon, and who is not heard. */
#include "sim.h"

/* What else the host does squeezes the guests to what they need; all have agents, and `n` hold 2 GiB each. */
static struct sim *squeezed(unsigned int n, uint64_t spare)
{
        struct sim *s = sim_crowded(n);

        for (unsigned int i = 0; i < n; i++)
                s->g[i].asks = SIM_ASKS;
        s->tick = 100 * BL_MSEC;
        s->other_want = n * 1300 * BL_MIB;
        s->other_rate = 400 * BL_MIB;
        sim_run(s, 60 * BL_SEC);
        s->other_want -= spare;
        sim_run(s, 3 * BL_SEC);
        for (unsigned int i = 0; i < n; i++) {
                assert_true(s->g[i].actual < 800 * BL_MIB);
                s->g[i].least = UINT64_MAX;
        }
        sim_at_rest(s);
        return s;
}

static void ramp(struct sim_guest *g, uint64_t rate, uint64_t want)
{
        g->rate = rate;
        g->want = want;
}

/* Idle memory is there: it comes with the tick that the request makes, and long before the last page. */
static void test_ramp(void **state)
{
        struct sim *s = squeezed(4, 1200 * BL_MIB);
        struct sim_guest *g = &s->g[2];

        (void)state;
        ramp(g, 300 * BL_MIB, 1500 * BL_MIB);
        sim_run(s, 10 * BL_SEC);
        assert_int_equal(g->used, 1500 * BL_MIB);
        assert_true(g->waited <= s->step);
        assert_true(g->least >= 32 * BL_MIB);
        assert_false(g->deaf);
        sim_assert_kept(s);
        sim_free(s);
}

/* Nobody hears, and the next report comes too late. */
static void test_switched_off(void **state)
{
        for (int off = 0; off <= 1; off++) {
                struct sim *s = squeezed(4, 1200 * BL_MIB);
                struct sim_guest *g = &s->g[2];

                (void)state;
                s->config.test.no_requests = off == 1;
                /* it knows what it will need: nothing of it shows in its figures */
                sim_ask(s, g, 200 * BL_MIB, false);
                sim_run(s, 200 * BL_MSEC);
                ramp(g, 32 * BL_GIB, g->used + 200 * BL_MIB);
                sim_run(s, BL_SEC);
                assert_int_equal(s->faults.kills > 0, off);
                sim_free(s);
        }
}

/* Four guests, the first of 700 MiB so far, and nothing above the reserve free. */
static struct sim *spoken_for(void)
{
        struct sim *s = sim_crowded(4);
        struct sim_guest *g = &s->g[0];

        s->tick = 100 * BL_MSEC;
        for (int i = 0; i < 4; i++)
                s->g[i].asks = SIM_ASKS;
        g->limit = 700 * BL_MIB;
        s->other_want = 1500 * BL_MIB;
        s->other_rate = 400 * BL_MIB;
        sim_run(s, 30 * BL_SEC);
        g->limit = g->max;
        s->config.min_free = s->plan.marks.min_free + sim_host_free(s) - s->plan.goal;
        return s;
}

/* All that is free is spoken for: the others give, in the same tick, what they do not use. */
static void test_ramp_when_others_must_give(void **state)
{
        struct sim *s = spoken_for();
        struct sim_guest *g = &s->g[0];

        (void)state;
        assert_true(g->actual <= 700 * BL_MIB);
        sim_run(s, 2 * BL_SEC);
        g->least = UINT64_MAX;

        ramp(g, 300 * BL_MIB, 1500 * BL_MIB);
        sim_run(s, 10 * BL_SEC);
        assert_int_equal(g->used, 1500 * BL_MIB);
        assert_true(g->least >= 16 * BL_MIB);
        assert_true(g->waited <= 3 * s->tick);
        for (int i = 1; i < 4; i++)
                assert_true(s->g[i].least >= 32 * BL_MIB);
        sim_assert_kept(s);
        sim_free(s);
}

/* Nothing above the reserve is free, and it grows as fast as the others can give: the reserve bridges the time
 * until they have. */
static void test_reserve(void **state)
{
        for (int off = 0; off <= 1; off++) {
                struct sim *s = spoken_for();
                struct sim_guest *g = &s->g[0];

                (void)state;
                sim_run(s, 2 * BL_SEC);
                for (int i = 1; i < 4; i++)
                        s->g[i].speed_down = 100 * BL_MIB;
                s->config.test.no_reserve = off == 1;

                ramp(g, 600 * BL_MIB, 900 * BL_MIB);
                sim_run(s, 5 * BL_SEC);
                assert_int_equal(s->faults.kills > 0, off);
                if (!off)
                        assert_int_equal(g->used, 900 * BL_MIB);
                sim_free(s);
        }
}

/* All at once, in a host that has not got as much: each gets its part, at once, and nobody dies of it. */
static void test_eight_ramps(void **state)
{
        struct sim *s = squeezed(8, 3 * BL_GIB);

        (void)state;
        for (int i = 0; i < 8; i++)
                ramp(&s->g[i], 300 * BL_MIB, 750 * BL_MIB);
        sim_run(s, 20 * BL_SEC);
        for (int i = 0; i < 8; i++) {
                const struct sim_guest *g = &s->g[i];

                assert_int_equal(g->used, 750 * BL_MIB);
                assert_true(g->waited <= s->tick);
                assert_true(g->least >= 16 * BL_MIB);
                assert_between(g->actual, s->g[0].actual - 64 * BL_MIB, s->g[0].actual + 64 * BL_MIB);
        }
        sim_assert_kept(s);
        sim_free(s);
}

/* It is being squeezed when it asks, and nothing is free: it keeps what it still has, the others give. */
static void test_turned_back(void **state)
{
        for (int off = 0; off <= 1; off++) {
                struct sim *s = sim_crowded(4);
                struct sim_guest *g = &s->g[0];
                uint64_t had;

                (void)state;
                s->config.test.no_turn_back = off == 1;
                s->tick = 100 * BL_MSEC;
                for (int i = 0; i < 4; i++)
                        s->g[i].asks = SIM_ASKS;
                g->speed_down = 100 * BL_MIB;
                sim_run(s, 10 * BL_SEC);
                s->other_want = 500 * BL_MIB;
                s->other_rate = 2 * BL_GIB;
                while (g->actual < g->target + 100 * BL_MIB)
                        sim_run(s, s->step);
                had = g->actual;
                sim_ask(s, g, 0, true);
                sim_run(s, 3 * BL_SEC);
                if (off) {
                        assert_int_equal(g->turned_back, 0);
                        assert_true(g->actual + 80 * BL_MIB < had);
                } else {
                        assert_int_equal(g->turned_back, 1);
                        assert_true(g->actual + 16 * BL_MIB >= had);
                        assert_true(sim_host_free(s) >= s->plan.marks.mark[BL_STATE_SOFT]);
                        sim_assert_kept(s);
                }
                sim_free(s);
        }
}

/* What the three that do not lie are left with. */
static uint64_t others(const struct sim *s)
{
        uint64_t least = UINT64_MAX;

        for (int i = 1; i < 4; i++)
                least = bl_min(least, s->g[i].actual);
        return least;
}

/* Asks always, and uses nothing: it gets its part once, and when others need memory it is not spared. */
static void test_asks_always(void **state)
{
        for (int off = 0; off <= 1; off++) {
                struct sim *s = sim_crowded(4);
                struct sim_guest *liar = &s->g[0];
                usec_t heard = 0;

                (void)state;
                s->config.test.no_idle_askers = off == 1;
                s->tick = 100 * BL_MSEC;
                liar->asks = SIM_ASKS_ALWAYS;
                liar->ask_bytes = 2 * BL_GIB;
                liar->ask_stop = true;
                liar->touched = liar->cache;
                liar->cache = liar->cache_want = 0;
                for (int i = 1; i < 4; i++)
                        s->g[i].asks = SIM_ASKS;
                s->other_want = 3 * BL_GIB;
                s->other_rate = 20 * BL_MIB;
                sim_run(s, 60 * BL_SEC);
                for (int i = 0; i < 600; i++) {
                        sim_run(s, s->tick);
                        heard += sim_decision(s, liar)->deaf_until == 0 ? s->tick : 0;
                }
                for (int i = 1; i < 4; i++) {
                        assert_true(s->g[i].actual >= s->g[i].used + s->g[i].own + s->config.guest_margin);
                        assert_false(s->g[i].deaf);
                }
                assert_true(sim_host_free(s) >= s->plan.marks.mark[BL_STATE_SOFT]);
                if (off) {
                        assert_true(liar->actual >= others(s) + 300 * BL_MIB);
                } else {
                        /* its idle memory went before that of those that use theirs */
                        assert_true(liar->actual <= others(s) + 32 * BL_MIB);
                        assert_true(heard <= 15 * BL_SEC);
                        sim_assert_kept(s);
                }
                sim_free(s);
        }
}

/* Gives no figures worth the name, and asks for everything: a margin above what the host sees it use. */
static void test_asks_blindly(void **state)
{
        static const enum sim_stats kinds[] = {SIM_STATS_MISSING, SIM_STATS_STALE, SIM_STATS_ABSURD};

        (void)state;
        for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
                struct sim *s = squeezed(4, 1200 * BL_MIB);
                struct sim_guest *g = &s->g[1];
                uint64_t had;

                g->stats = kinds[k];
                g->cache_want = g->cache;
                sim_run(s, 5 * BL_SEC);
                had = g->actual;
                g->asks = SIM_ASKS_ALWAYS;
                g->ask_bytes = UINT64_MAX / 2;
                for (int i = 0; i < 300; i++) {
                        sim_run(s, s->tick);
                        assert_true(g->actual <= had + s->config.guest_margin + BL_MIB);
                }
                assert_true(g->actual >= had + s->config.guest_margin / 2);
                assert_true(g->deaf);
                sim_assert_kept(s);
                sim_free(s);
        }
}

/* Starving by its figures, asking always and stopped always: bounded by its shares, and others live. */
static void test_flood(void **state)
{
        struct sim *s = squeezed(4, 600 * BL_MIB);
        struct sim_guest *liar = &s->g[0], *honest = &s->g[3];

        (void)state;
        liar->asks = SIM_ASKS_ALWAYS;
        liar->ask_bytes = 64 * BL_MIB;
        liar->ask_stop = true;
        liar->stats = SIM_STATS_STARVING;
        liar->cache_want = 0;
        sim_run(s, 10 * BL_SEC);
        ramp(honest, 300 * BL_MIB, honest->used + 200 * BL_MIB);
        sim_run(s, 30 * BL_SEC);
        assert_int_equal(honest->used, honest->want);
        assert_true(honest->least >= 16 * BL_MIB);
        for (int i = 1; i < 4; i++)
                assert_true(s->g[i].actual >= s->g[i].used + s->g[i].own + s->config.guest_margin / 2);
        sim_assert_kept(s);
        sim_free(s);
}

/* Asks and is gone: what it was promised goes to others as soon as it fades. */
static void test_vanishes(void **state)
{
        for (int how = 0; how <= 2; how++) {
                struct sim *s = squeezed(4, 500 * BL_MIB);
                struct sim_guest *g = &s->g[3];

                (void)state;
                sim_ask(s, g, 400 * BL_MIB, true);
                sim_run(s, s->step);
                assert_true(g->target > g->actual);
                switch (how) {
                case 0:
                        s->n--;
                        break;
                case 1:
                        g->run = BL_RUN_PAUSED;
                        break;
                case 2:
                        g->hung = g->stuck = true;
                        break;
                }
                ramp(&s->g[1], 100 * BL_MIB, s->g[1].used + 300 * BL_MIB);
                sim_run(s, 20 * BL_SEC);
                assert_int_equal(s->g[1].used, s->g[1].want);
                assert_true(s->plan.promised < 300 * BL_MIB);
                sim_assert_kept(s);
                sim_free(s);
        }
}

/* All ask at once to be spared, in a host that runs out: their figures spare them, their words do not. */
static void test_all_ask_to_be_spared(void **state)
{
        for (int stop = 0; stop <= 1; stop++) {
                struct sim *s = sim_crowded(4);
                usec_t hard = 0;

                (void)state;
                s->tick = 100 * BL_MSEC;
                for (int i = 0; i < 4; i++) {
                        s->g[i].asks = SIM_ASKS_ALWAYS;
                        s->g[i].ask_bytes = 100 * BL_MIB;
                        s->g[i].ask_stop = stop == 1;
                }
                sim_run(s, 30 * BL_SEC);
                s->other_want = 3 * BL_GIB;
                s->other_rate = 20 * BL_MIB;
                for (int i = 0; i < 2000; i++) {
                        sim_run(s, s->tick);
                        hard += s->plan.state >= BL_STATE_HARD ? s->tick : 0;
                }
                /* once they have been found out, they are heard for moments only */
                assert_true(hard <= (stop ? 30 : 5) * BL_SEC);
                assert_true(s->plan.state <= BL_STATE_CLEAR);
                sim_assert_kept(s);
                sim_free(s);
        }
}

/* Found out once, and then in earnest: its figures help it even while it is not heard, and then it is forgiven. */
static void test_forgiven(void **state)
{
        struct sim *s = squeezed(4, 1200 * BL_MIB);
        struct sim_guest *g = &s->g[2];

        (void)state;
        g->asks = SIM_ASKS_ALWAYS;
        g->ask_bytes = 200 * BL_MIB;
        while (!g->deaf)
                sim_run(s, s->tick);
        g->asks = SIM_ASKS;
        ramp(g, 100 * BL_MIB, 1300 * BL_MIB);
        sim_run(s, 15 * BL_SEC);
        assert_int_equal(g->used, g->want);
        assert_int_equal(sim_decision(s, g)->deaf_until, 0);
        sim_assert_kept(s);
        sim_free(s);
}

/* Another's reservation comes before what is asked for. */
static void test_reservation_comes_first(void **state)
{
        struct sim *s = squeezed(4, 0);
        struct sim_guest *g = &s->g[0], *reserved = &s->g[1];

        (void)state;
        reserved->reservation = reserved->actual + 300 * BL_MIB;
        s->other_want -= 350 * BL_MIB;
        s->other_rate = 64 * BL_GIB;
        g->ask_bytes = 300 * BL_MIB;
        g->ask_stop = true;
        g->asks = SIM_ASKS_ALWAYS;
        sim_run(s, BL_SEC);
        assert_true(reserved->target >= reserved->reservation - s->config.dead_band);
        sim_run(s, 10 * BL_SEC);
        assert_true(reserved->actual >= reserved->reservation - s->config.dead_band);
        sim_assert_kept(s);
        sim_free(s);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_ramp),
                cmocka_unit_test(test_switched_off),
                cmocka_unit_test(test_ramp_when_others_must_give),
                cmocka_unit_test(test_reserve),
                cmocka_unit_test(test_eight_ramps),
                cmocka_unit_test(test_turned_back),
                cmocka_unit_test(test_asks_always),
                cmocka_unit_test(test_asks_blindly),
                cmocka_unit_test(test_flood),
                cmocka_unit_test(test_vanishes),
                cmocka_unit_test(test_all_ask_to_be_spared),
                cmocka_unit_test(test_forgiven),
                cmocka_unit_test(test_reservation_comes_first),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
