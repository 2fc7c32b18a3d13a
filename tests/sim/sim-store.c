/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Guests that swap on the store: pressed into it as far as it can bear, and no further. */
#include "sim.h"

/* More is wanted than the guests can give above what they need: 4 x 512 MiB are used, and 900 MiB have to go
 * that cannot be had otherwise. */
static void squeeze(struct sim *s, usec_t time)
{
        s->other_want = s->n * 1480 * BL_MIB;
        s->other_rate = 100 * BL_MIB;
        sim_run(s, time);
}

static uint64_t swapped(const struct sim *s)
{
        uint64_t sum = 0;

        for (size_t i = 0; i < s->n; i++)
                sum += s->g[i].swapped;
        return sum;
}

/* With the store the guests live on less than they need; without it they are left what they need. */
static void test_squeeze(void **state)
{
        for (int with = 0; with <= 1; with++) {
                struct sim *s = sim_crowded_store(4, 2 * BL_GIB, 4 * BL_GIB);

                (void)state;
                if (!with) {
                        for (size_t i = 0; i < s->n; i++)
                                s->g[i].stored = false, s->g[i].swap_total = 0;
                        s->store.there = false;
                }
                squeeze(s, 120 * BL_SEC);
                if (with) {
                        assert_true(swapped(s) > 400 * BL_MIB);
                        assert_true(s->plan.state <= BL_STATE_SOFT);
                        assert_true(s->store.pressed_at > 0);
                } else {
                        assert_int_equal(swapped(s), 0);
                        assert_true(s->plan.state > BL_STATE_SOFT || s->plan.unmet > 0);
                }
                assert_int_equal(s->faults.kills, 0);
                assert_int_equal(s->faults.below_need, 0);
                assert_int_equal(s->faults.pressed, 0);
                assert_int_equal(s->faults.steps, 0);
                assert_int_equal(s->faults.pool, 0);
                sim_free(s);
        }
}

/* A store without room, and guests that go on growing when they have been squeezed. */
static struct sim *full(bool off)
{
        struct sim *s = sim_crowded_store(4, 400 * BL_MIB, 0);

        s->config.test.no_store_room = off;
        for (size_t i = 0; i < s->n; i++)
                s->g[i].ratio = 6000;
        squeeze(s, 80 * BL_SEC);
        for (size_t i = 0; i < s->n; i++)
                s->g[i].want += 30 * BL_MIB;
        sim_run(s, 40 * BL_SEC);
        return s;
}

static void test_full(void **state)
{
        struct sim *s = full(false);
        unsigned int said = 0;

        (void)state;
        assert_int_equal(s->faults.kills, 0);
        assert_int_equal(s->faults.pressed, 0);
        assert_int_equal(s->faults.steps, 0);
        assert_int_equal(s->faults.pool, 0);
        /* none waits for room, and it was used before */
        assert_int_equal(s->store.full, 0);
        assert_true(swapped(s) > 64 * BL_MIB);
        for (size_t i = 0; i < s->n; i++)
                said += sim_decision(s, &s->g[i])->why == BL_WHY_SKIP_STORE_FULL;
        assert_true(said > 0 || s->plan.unmet == 0);
        sim_free(s);
}

/* Without looking at what room there is the guests are squeezed to death. */
static void test_full_off(void **state)
{
        struct sim *s = full(true);

        (void)state;
        assert_true(s->store.full > 0);
        assert_true(s->faults.steps > 0);
        assert_true(s->faults.kills > 0);
        sim_free(s);
}

/* The store becomes slow, or goes, in the middle of a squeeze: that ends at once, and nobody is pressed on. */
static void test_slow(void **state)
{
        for (int gone = 0; gone <= 1; gone++) {
                struct sim *s = sim_crowded_store(4, 2 * BL_GIB, 4 * BL_GIB);
                uint64_t least[4], said = 0;

                (void)state;
                for (size_t i = 0; i < s->n; i++)
                        s->g[i].speed_down = 20 * BL_MIB;
                squeeze(s, 0);
                s->other_rate = 40 * BL_MIB;
                for (int i = 0; i < 10000 && swapped(s) < 50 * BL_MIB; i++)
                        sim_run(s, s->step);
                assert_true(swapped(s) >= 50 * BL_MIB);
                s->store.slow = !gone;
                s->store.there = !gone ? true : false;
                sim_run(s, BL_SEC);
                for (size_t i = 0; i < s->n; i++)
                        least[i] = bl_min(s->g[i].actual, s->g[i].target);
                sim_run(s, 20 * BL_SEC);
                for (size_t i = 0; i < s->n; i++) {
                        assert_true(s->g[i].actual + BL_MIB >= least[i]);
                        assert_true(s->g[i].target + BL_MIB >= least[i]);
                        said += sim_decision(s, &s->g[i])->why == BL_WHY_SKIP_STORE_SLOW;
                }
                assert_int_equal(said, s->n);
                assert_int_equal(s->faults.kills, 0);
                assert_int_equal(s->faults.pressed, 0);

                /* and when it is back it goes on */
                s->store.slow = false;
                s->store.there = true;
                sim_run(s, 60 * BL_SEC);
                assert_true(s->plan.state <= BL_STATE_SOFT);
                assert_int_equal(s->faults.kills, 0);
                sim_free(s);
        }
}

/* What does not shrink is not pressed; those whose pages do give instead. */
static void test_incompressible(void **state)
{
        struct sim *s = sim_crowded_store(4, 2 * BL_GIB, 4 * BL_GIB);

        (void)state;
        s->g[0].ratio = s->g[1].ratio = 9500;
        s->other_want = 4 * 1400 * BL_MIB;
        s->other_rate = 100 * BL_MIB;
        sim_run(s, 75 * BL_SEC);
        assert_int_equal(s->g[0].swapped, 0);
        assert_int_equal(s->g[1].swapped, 0);
        assert_true(s->g[2].swapped > 64 * BL_MIB);
        assert_true(s->g[3].swapped > 64 * BL_MIB);
        s->other_want = 4 * 1500 * BL_MIB;
        sim_run(s, 20 * BL_SEC);
        assert_int_equal(sim_decision(s, &s->g[0])->why, BL_WHY_SKIP_INCOMPRESSIBLE);
        assert_int_equal(s->g[0].swapped, 0);
        assert_int_equal(s->faults.kills, 0);
        assert_int_equal(s->faults.pressed, 0);
        sim_free(s);
}

/* A guest that uses nearly all of what it has, again and again, among others that do not. */
static struct sim *thrashing(bool off)
{
        struct sim *s = sim_crowded_store(4, 2 * BL_GIB, 4 * BL_GIB);

        s->config.test.no_thrash_check = off;
        s->g[1].hot = s->g[1].used * 9 / 10;
        s->other_want = 4 * 1360 * BL_MIB;
        s->other_rate = 100 * BL_MIB;
        sim_run(s, 120 * BL_SEC);
        s->g[1].missed = 0;
        sim_at_rest(s);
        sim_run(s, 60 * BL_SEC);
        return s;
}

static void test_thrash(void **state)
{
        struct sim *s = thrashing(false);

        (void)state;
        /* it has its working set back, from the others, and nobody is turned round any more */
        assert_true(s->g[1].missed < 64 * BL_MIB);
        assert_true(s->g[1].actual > s->g[0].actual);
        assert_true(s->g[0].swapped > s->g[1].swapped);
        assert_true(s->plan.state <= BL_STATE_SOFT);
        assert_true(s->g[1].reversals <= 1);
        assert_int_equal(s->faults.kills, 0);
        assert_int_equal(s->faults.pressed, 0);
        sim_free(s);
}

static void test_thrash_off(void **state)
{
        struct sim *s = thrashing(true);

        (void)state;
        assert_true(s->g[1].missed > 256 * BL_MIB);
        sim_free(s);
}

/* Every guest is as busy: nobody is pressed to death for the others, and it does not go to and fro. */
static void test_all_busy(void **state)
{
        struct sim *s = sim_crowded_store(4, 2 * BL_GIB, 4 * BL_GIB);

        (void)state;
        for (size_t i = 0; i < s->n; i++)
                s->g[i].hot = s->g[i].used * 9 / 10;
        s->other_want = 4 * 1360 * BL_MIB;
        s->other_rate = 100 * BL_MIB;
        sim_run(s, 120 * BL_SEC);
        for (size_t i = 0; i < s->n; i++)
                s->g[i].missed = 0;
        sim_at_rest(s);
        sim_run(s, 60 * BL_SEC);
        for (size_t i = 0; i < s->n; i++) {
                assert_true(s->g[i].reversals <= 2);
                assert_true(s->g[i].missed < 64 * BL_MIB);
        }
        assert_int_equal(s->faults.kills, 0);
        sim_free(s);
}

/* All that a drained VM has in the store comes back as soon as there is memory for it, and before the others'. */
static void test_drain(void **state)
{
        struct sim *s = sim_crowded_store(4, 2 * BL_GIB, 4 * BL_GIB);
        struct sim_guest *g = &s->g[2];
        usec_t start;

        (void)state;
        s->other_want = 4 * 1360 * BL_MIB;
        s->other_rate = 100 * BL_MIB;
        sim_run(s, 90 * BL_SEC);
        assert_true(g->swapped > 32 * BL_MIB);
        s->other_want -= 800 * BL_MIB;
        g->leaving = true;
        start = s->now;
        while (g->swapped > 0 && s->now < start + 60 * BL_SEC)
                sim_run(s, s->tick);
        assert_int_equal(g->swapped, 0);
        assert_true(s->g[0].swapped > 0);
        g->stored = g->leaving = false;
        g->swap_total = 0;
        sim_run(s, 60 * BL_SEC);
        assert_int_equal(g->swapped, 0);
        assert_int_equal(s->faults.kills, 0);
        assert_int_equal(s->faults.pressed, 0);
        sim_free(s);
}

/* The pool is ready before anybody is told to swap into it, and given back when nobody can be. */
static void test_pool(void **state)
{
        struct sim *s = sim_crowded_store(4, BL_GIB, 4 * BL_GIB);

        (void)state;
        squeeze(s, 30 * BL_SEC);
        assert_int_equal(s->store.pressed_at, 0);
        assert_true(s->store.pool_ready >= 128 * BL_MIB);
        sim_run(s, 60 * BL_SEC);
        assert_true(s->store.grown_at > 0 && s->store.pressed_at > s->store.grown_at);
        assert_int_equal(s->faults.pool, 0);

        for (size_t i = 0; i < s->n; i++)
                s->g[i].ratio = 9500;
        s->other_want += 500 * BL_MIB;
        sim_run(s, 60 * BL_SEC);
        assert_true(s->store.pool_ready <= sim_store_used(s) * 9 / 8 + 64 * BL_MIB);
        assert_int_equal(s->faults.pool, 0);
        sim_free(s);
}

/* A VM's part of the pool is bounded, and counts in its own limit. */
static void test_limits(void **state)
{
        struct sim *s = sim_crowded_store(4, 2 * BL_GIB, 4 * BL_GIB);

        (void)state;
        s->g[0].store_limit = 40 * BL_MIB;
        s->g[1].limit = s->g[1].max - 100 * BL_MIB;
        squeeze(s, 90 * BL_SEC);
        assert_true(s->g[0].swapped > 0);
        assert_true(bl_part(s->g[0].swapped, s->g[0].ratio) <= 40 * BL_MIB + BL_MIB);
        assert_true(s->g[2].swapped > s->g[0].swapped);
        /* plenty again, and all of it stays in the store, as the guest does not touch it */
        s->other_want = 0;
        s->other_rate = 10 * BL_GIB;
        s->budget += 4 * BL_GIB;
        sim_run(s, 60 * BL_SEC);
        assert_true(s->g[1].swapped > 0);
        assert_true(s->g[1].actual + bl_part(s->g[1].swapped, s->g[1].ratio) <= s->g[1].limit + BL_MIB);
        assert_true(s->g[2].actual + 8 * BL_MIB >= s->g[2].max - bl_part(s->g[2].swapped, s->g[2].ratio));
        assert_int_equal(s->faults.kills, 0);
        sim_free(s);
}

/* An agent asks when its guest is short, as one that is squeezed is: that alone does not undo the squeeze. */
static void test_agents(void **state)
{
        struct sim *s = sim_crowded_store(4, 2 * BL_GIB, 4 * BL_GIB);

        (void)state;
        for (size_t i = 0; i < s->n; i++)
                s->g[i].asks = SIM_ASKS;
        squeeze(s, 120 * BL_SEC);
        assert_true(swapped(s) > 400 * BL_MIB);
        assert_true(s->plan.state <= BL_STATE_SOFT);
        sim_at_rest(s);
        sim_run(s, 60 * BL_SEC);
        assert_true(s->faults.reversals <= s->n);
        assert_int_equal(s->faults.kills, 0);
        assert_int_equal(s->faults.pressed, 0);
        assert_int_equal(s->faults.steps, 0);
        sim_free(s);
}

/* The host's kernel pages VMs out that have no balloon, the idlest first, and only in need. */
static void test_pageout(void **state)
{
        struct sim *s = sim_crowded(4);

        (void)state;
        for (size_t i = 0; i < s->n; i++) {
                s->g[i].no_reclaim = i < 2 ? BL_RECLAIM_NO_BALLOON : BL_RECLAIM_VFIO;
                s->g[i].pageout = i < 2 ? BL_GIB : 0;
        }
        s->g[1].idle_since = s->now - 60 * BL_SEC;
        sim_run(s, 10 * BL_SEC);
        assert_true(s->plan.state <= BL_STATE_SOFT);
        assert_int_equal(s->g[0].paged_out, 0);
        assert_true(s->g[1].paged_out > 0);
        assert_int_equal(s->g[2].paged_out + s->g[3].paged_out, 0);
        sim_assert_kept(s);
        sim_free(s);
}

/* Ahead of pressure: a little at a time, of those that have been idle for long, and not with plenty free. */
static void test_idle(void **state)
{
        struct sim *s = sim_crowded(4);

        (void)state;
        s->budget += 8 * BL_GIB;
        for (size_t i = 0; i < s->n; i++)
                s->g[i].pageout = 40 * BL_MIB;
        s->g[1].idle_since = s->now - 900 * BL_SEC;
        s->g[2].idle_since = s->now - 300 * BL_SEC;
        sim_run(s, 10 * BL_SEC);
        assert_int_equal(s->g[1].paged_out, 0);
        s->other_want = sim_host_free(s) - 2 * BL_GIB;
        s->other_rate = 50 * BL_MIB;
        sim_run(s, 150 * BL_SEC);
        assert_int_equal(s->plan.state, BL_STATE_HIGH);
        assert_int_equal(s->g[1].paged_out, 40 * BL_MIB);
        assert_int_equal(s->g[0].paged_out + s->g[2].paged_out + s->g[3].paged_out, 0);
        s->config.idle_after = 0;
        s->g[1].pageout = 40 * BL_MIB;
        sim_run(s, 10 * BL_SEC);
        assert_int_equal(s->g[1].paged_out, 40 * BL_MIB);
        sim_assert_kept(s);
        sim_free(s);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_squeeze),        cmocka_unit_test(test_full),
                cmocka_unit_test(test_full_off),       cmocka_unit_test(test_slow),
                cmocka_unit_test(test_incompressible), cmocka_unit_test(test_thrash),
                cmocka_unit_test(test_thrash_off),     cmocka_unit_test(test_all_busy),
                cmocka_unit_test(test_drain),          cmocka_unit_test(test_pool),
                cmocka_unit_test(test_limits),         cmocka_unit_test(test_agents),
                cmocka_unit_test(test_pageout),        cmocka_unit_test(test_idle),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
