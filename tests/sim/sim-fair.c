/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who gives: equals alike, more shares less, idle memory first. */
#include "sim.h"

#define N 6

static void squeeze(struct sim *s, uint64_t bytes)
{
        s->other_want = bytes;
        s->other_rate = 200 * BL_MIB;
        sim_run(s, 60 * BL_SEC);
        assert_true(sim_host_free(s) >= s->plan.marks.mark[BL_STATE_SOFT]);
        sim_assert_kept(s);
}

static void test_equals(void **state)
{
        struct sim *s = sim_crowded(N);

        (void)state;
        squeeze(s, 4 * BL_GIB);
        for (int i = 1; i < N; i++)
                assert_between(s->g[i].actual, s->g[0].actual - 8 * BL_MIB, s->g[0].actual + 8 * BL_MIB);
        sim_free(s);
}

/* In whatever order they are listed and come to be squeezed. */
static void test_equals_in_small_steps(void **state)
{
        struct sim *s = sim_crowded(N);

        (void)state;
        for (int i = 1; i <= 80; i++) {
                s->other_want = (uint64_t)i * 50 * BL_MIB;
                s->other_rate = 50 * BL_MIB;
                sim_run(s, 2 * BL_SEC);
        }
        for (int i = 1; i < N; i++)
                assert_between(s->g[i].actual, s->g[0].actual - 16 * BL_MIB, s->g[0].actual + 16 * BL_MIB);
        sim_assert_kept(s);
        sim_free(s);
}

static void test_shares(void **state)
{
        struct sim *s = sim_crowded(N);
        uint64_t lost[2] = {};

        (void)state;
        for (int i = 0; i < N / 2; i++)
                s->g[i].shares = 2000;
        squeeze(s, 3 * BL_GIB);
        for (int i = 0; i < N; i++)
                lost[i < N / 2] += s->g[i].max - s->g[i].actual;
        /* [1] have double shares */
        assert_true(lost[1] * 3 < lost[0]);
        sim_free(s);
}

/* The level is the same for all that gave: (active + 4 idle) / shares. */
static void test_shares_of_active_memory(void **state)
{
        struct sim *s = sim_crowded(N);
        uint64_t idle_a, idle_d;

        (void)state;
        for (int i = 0; i < N; i++)
                s->g[i].shares = i < N / 2 ? 1500 : 1000;
        squeeze(s, 4 * BL_GIB);
        idle_a = s->g[0].actual - s->g[0].used - s->g[0].own;
        idle_d = s->g[N - 1].actual - s->g[N - 1].used - s->g[N - 1].own;
        assert_between((s->g[0].used + s->g[0].own + 4 * idle_a) * 100 / 1500,
                       (s->g[N - 1].used + s->g[N - 1].own + 4 * idle_d) * 100 / 1000 * 9 / 10,
                       (s->g[N - 1].used + s->g[N - 1].own + 4 * idle_d) * 100 / 1000 * 11 / 10);
        sim_free(s);
}

static void test_idle_first(void **state)
{
        struct sim *s = sim_crowded(N);

        (void)state;
        for (int i = 0; i < N / 2; i++)
                s->g[i].want = 1500 * BL_MIB;
        s->budget += BL_GIB;
        sim_run(s, 20 * BL_SEC);
        squeeze(s, 3 * BL_GIB);
        for (int i = 0; i < N / 2; i++) {
                assert_true(s->g[i].actual > s->g[N - 1].actual + 300 * BL_MIB);
                assert_int_equal(s->g[i].kills, 0);
        }
        sim_free(s);
}

/* Without the tax the idle keep what their shares give them. */
static void test_no_tax(void **state)
{
        struct sim *taxed = sim_crowded(N), *untaxed = sim_crowded(N);

        (void)state;
        untaxed->config.idle_tax = 0;
        for (int i = 0; i < N / 2; i++)
                taxed->g[i].want = untaxed->g[i].want = 1300 * BL_MIB;
        squeeze(taxed, 2 * BL_GIB);
        squeeze(untaxed, 2 * BL_GIB);
        assert_true(untaxed->g[N - 1].actual > taxed->g[N - 1].actual + 50 * BL_MIB);
        sim_free(taxed);
        sim_free(untaxed);
}

/* One guest wants more than its part: with more shares it gets more of what the others do not use. */
static void test_shares_of_demand(void **state)
{
        uint64_t got[2];

        (void)state;
        for (int more = 0; more <= 1; more++) {
                struct sim *s = sim_crowded(N);
                struct sim_guest *g = &s->g[0];

                g->max = g->limit = 8 * BL_GIB;
                g->own = 2 * BL_GIB / 64 + 16 * BL_MIB;
                g->shares = more ? 4000 : 1000;
                g->swap_total = 16 * BL_GIB;
                squeeze(s, 4 * BL_GIB);
                g->want = 5 * BL_GIB;
                g->rate = 100 * BL_MIB;
                sim_run(s, 120 * BL_SEC);
                got[more] = g->actual;
                for (int i = 1; i < N; i++)
                        assert_true(s->g[i].actual >= s->g[i].used + s->g[i].own + s->config.guest_margin);
                sim_assert_kept(s);
                sim_free(s);
        }
        assert_true(got[1] > got[0] + 200 * BL_MIB);
}

/* A reservation is kept out of it, and a limit too. */
static void test_bounds(void **state)
{
        struct sim *s = sim_crowded(N);

        (void)state;
        s->g[0].reservation = 1900 * BL_MIB;
        s->g[1].limit = 1200 * BL_MIB;
        squeeze(s, 3 * BL_GIB);
        assert_true(s->g[0].actual >= 1900 * BL_MIB);
        assert_true(s->g[1].actual <= 1200 * BL_MIB);
        for (int i = 3; i < N; i++)
                assert_between(s->g[i].actual, s->g[2].actual - 8 * BL_MIB, s->g[2].actual + 8 * BL_MIB);
        sim_free(s);
}

/* What comes back is divided like what was taken. */
static void test_giving_back(void **state)
{
        struct sim *s = sim_crowded(N);

        (void)state;
        s->g[0].shares = 3000;
        squeeze(s, 5 * BL_GIB);
        s->other_want = 3 * BL_GIB;
        s->other_rate = 64 * BL_GIB;
        sim_run(s, 60 * BL_SEC);
        assert_true(s->g[0].actual >= s->g[0].limit - 8 * BL_MIB);
        for (int i = 2; i < N; i++)
                assert_between(s->g[i].actual, s->g[1].actual - 16 * BL_MIB, s->g[1].actual + 16 * BL_MIB);
        sim_assert_kept(s);
        sim_free(s);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_equals),           cmocka_unit_test(test_equals_in_small_steps),
                cmocka_unit_test(test_shares),           cmocka_unit_test(test_shares_of_active_memory),
                cmocka_unit_test(test_idle_first),       cmocka_unit_test(test_no_tax),
                cmocka_unit_test(test_shares_of_demand), cmocka_unit_test(test_bounds),
                cmocka_unit_test(test_giving_back),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
