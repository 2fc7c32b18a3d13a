/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Thousands of hosts that nobody thought of.  A failure prints its seed;
 * BALLAST_SEED=n runs that one alone, SIM_TALK=1 shows what was done, and
 * BALLAST_RUNS=n changes how many there are.
 */
#include <inttypes.h>

#include "sim.h"

static uint64_t range(uint64_t *seed, uint64_t low, uint64_t high)
{
        return sim_random_range(seed, low, high);
}

static bool chance(uint64_t *seed, unsigned int percent)
{
        return range(seed, 1, 100) <= percent;
}

static void kept(uint64_t seed, bool ok, const char *what)
{
        if (!ok)
                fail_msg("BALLAST_SEED=%" PRIu64 ": %s", seed, what);
}

static unsigned int runs(void)
{
        const char *e = getenv("BALLAST_RUNS");

        return e ? (unsigned int)strtoul(e, NULL, 10) : 1000;
}

/* Each test walks over seeds of its own; a seed that is given is the only one. */
static void each(uint64_t first, void (*run)(uint64_t seed))
{
        const char *e = getenv("BALLAST_SEED");

        if (e) {
                run(strtoull(e, NULL, 10));
                return;
        }
        for (uint64_t i = 0; i < runs(); i++)
                run(first + i);
}

static unsigned int pressed_ever; /* runs of hostile() in which somebody was pressed into the store */

static void add_guest(struct sim *s, uint64_t *seed, bool cooperative)
{
        uint64_t max = range(seed, 4, 32) * 128 * BL_MIB;
        uint64_t used = range(seed, 64 * BL_MIB, max / 2);
        char name[16];
        struct sim_guest *g;

        snprintf(name, sizeof(name), "vm%zu", s->n);
        g = sim_add(s, name, max, used, chance(seed, 70));
        g->shares = range(seed, 1, 8) * 500;
        g->speed_down = range(seed, 16, 2048) * BL_MIB;
        g->speed_up = range(seed, 256, 8192) * BL_MIB;
        g->latency = range(seed, 0, 200) * BL_MSEC;
        g->period = range(seed, 1, 3) * BL_SEC;
        g->untouched_first = chance(seed, 50);
        g->deflate_oom = chance(seed, 30);
        if (chance(seed, 50))
                g->swap_total = max;
        /* its swap is on the store */
        if (s->store.there && chance(seed, 60)) {
                sim_on_store(g, range(seed, 8, 64) * 16 * BL_MIB);
                g->ratio = (permyriad_t)range(seed, 500, 10000);
                g->ratio_known = chance(seed, 70);
                g->hot = used * range(seed, 20, 100) / 100;
                if (chance(seed, 20))
                        g->store_limit = range(seed, 1, 256) * BL_MIB;
        }
        if (chance(seed, 20))
                g->reservation = range(seed, 0, max);
        if (chance(seed, 30)) {
                g->grain = BL_MIB;
                g->phase = range(seed, 0, 255) * 4 * BL_KIB;
        }
        if (!g->cache)
                g->touched = range(seed, 0, max - g->own - used);
        g->rate = range(seed, 1, 15) * BL_MIB;
        if (chance(seed, 20))
                g->stats = SIM_STATS_NO_AVAILABLE;
        if (chance(seed, 50))
                g->asks = SIM_ASKS;
        if (cooperative)
                return;

        if (chance(seed, 15)) {
                g->asks = SIM_ASKS_ALWAYS;
                g->ask_bytes = sim_random(seed) >> range(seed, 0, 63);
        }
        g->ask_stop = chance(seed, 20);
        if (chance(seed, 15))
                g->limit = range(seed, used + g->own + 128 * BL_MIB, max);
        g->reservation = bl_min(g->reservation, g->limit);
        g->rate = range(seed, 1, 2048) * BL_MIB;
        if (chance(seed, 10))
                g->stuck = true;
        if (chance(seed, 10)) {
                g->on = range(seed, 1, 40) * 100 * BL_MSEC;
                g->off = range(seed, 1, 80) * 100 * BL_MSEC;
        }
        if (chance(seed, 10))
                g->low_stop = range(seed, max / 2, max);
        if (chance(seed, 5))
                g->high_stop = range(seed, max / 2, max);
        if (chance(seed, 10))
                g->lying = true;
        if (chance(seed, 30))
                g->stats = (enum sim_stats)range(seed, 0, 5);
        if (chance(seed, 5))
                g->hold = BL_HOLD_HAND;
        if (chance(seed, 5))
                g->managed = false;
        if (chance(seed, 5))
                g->no_reclaim = BL_RECLAIM_VFIO;
}

static void disturb(struct sim *s, uint64_t *seed, bool cooperative)
{
        struct sim_guest *g = &s->g[range(seed, 0, s->n - 1)];

        switch (range(seed, 0, cooperative ? 2 : 14)) {
        case 0:
        case 1:
                g->want = range(seed, 64 * BL_MIB, g->max / 2);
                break;
        case 2:
                s->other_want = range(seed, 0, s->budget / 4);
                s->other_rate = range(seed, 1, cooperative ? 60 : 1000) * BL_MIB;
                break;
        case 3:
                g->stuck = !g->stuck;
                break;
        case 4:
                g->stats = (enum sim_stats)range(seed, 0, 5);
                break;
        case 5:
                g->run = g->run == BL_RUN_RUNNING ? BL_RUN_PAUSED : BL_RUN_RUNNING;
                break;
        case 6:
                sim_reboot(s, g);
                break;
        case 7:
                g->psi = !g->psi;
                break;
        case 8:
                g->limit = range(seed, g->max / 2, g->max);
                g->reservation = bl_min(g->reservation, g->limit);
                break;
        case 9:
                g->want = range(seed, 64 * BL_MIB, g->max);
                g->hung = !g->hung && chance(seed, 20);
                break;
        case 10:
                g->asks = (enum sim_asks)range(seed, 0, 2);
                g->ask_bytes = range(seed, 0, g->max);
                break;
        case 11:
                sim_ask(s, g, sim_random(seed) >> range(seed, 0, 63), chance(seed, 50));
                break;
        case 12:
                s->store.slow = !s->store.slow;
                break;
        case 13:
                g->leaving = g->stored && chance(seed, 50);
                break;
        case 14:
                s->store.disk_size = range(seed, 0, 4) * BL_GIB;
                g->hot = g->used * range(seed, 20, 100) / 100;
                g->ratio = g->stored ? (permyriad_t)range(seed, 500, 10000) : 0;
                break;
        }
}

/* Some hosts have a store. */
static void add_store(struct sim *s, uint64_t *seed)
{
        if (!chance(seed, 50))
                return;
        s->store = (struct sim_store){
                .there = true,
                .pool_size = range(seed, 1, 32) * 64 * BL_MIB,
                .disk_size = range(seed, 0, 4) * BL_GIB,
                .rate = BL_GIB,
                .slow_rate = range(seed, 1, 1024) * BL_KIB,
        };
}

/* Anything at all: what is promised for every case holds. */
static void hostile(uint64_t first)
{
        uint64_t seed = first * 2654435761U + 1;
        struct sim *s = sim_new(range(&seed, 2, 24) * BL_GIB);
        const struct sim_faults *f = &s->faults;
        size_t n = range(&seed, 1, 10);

        s->tick = range(&seed, 1, 10) * 100 * BL_MSEC;
        add_store(s, &seed);
        for (size_t i = 0; i < n; i++)
                add_guest(s, &seed, false);
        for (int i = 0; i < 12; i++) {
                sim_run(s, range(&seed, 1, 40) * 100 * BL_MSEC);
                disturb(s, &seed, false);
        }
        kept(first, f->out_of_range == 0, "a target outside of [reservation, limit]");
        kept(first, f->overdraft == 0, "a grant of memory that was not free");
        kept(first, f->blind == 0, "a guest shrunk on bad figures");
        kept(first, f->untouchable == 0, "a command to a VM that must be left alone");
        kept(first, f->grain == 0, "a target that is not the daemon's own");
        kept(first, f->nonsense == 0, "a decision that contradicts itself");
        kept(first, f->below_need == 0, "a guest told to be smaller than it needs");
        kept(first, f->pressed == 0, "a guest pressed into a store that cannot take it, or too far");
        kept(first, f->steps == 0, "a step into the store above half of its headroom");
        kept(first, f->pool == 0, "a pool above its size, or at the cost of the host");
        pressed_ever += s->store.pressed_at > 0;
        sim_free(s);
}

/* Guests that follow, and a host that can hold what they need, but not what they would like to have: nobody
 * dies, the host comes out of it, and then all is quiet. */
static unsigned int squeezed; /* runs of benign() in which anything had to be done */

static void benign(uint64_t first)
{
        uint64_t seed = first * 2654435761U + 1, need = 0, used = 0, other, spare;
        struct sim *s = sim_new(0);
        const struct sim_faults *f = &s->faults;
        size_t n = range(&seed, 2, 10);

        s->tick = range(&seed, 1, 5) * 100 * BL_MSEC;
        for (size_t i = 0; i < n; i++) {
                struct sim_guest *g;
                uint64_t most;

                add_guest(s, &seed, true);
                g = &s->g[i];
                /* as ESX gives them by default: otherwise a guest may be entitled to less than it needs */
                g->shares = g->max / BL_MIB * 10;
                /* slower growth than a guest can give: otherwise nobody could keep the host alive */
                g->speed_down = range(&seed, 128, 2048) * BL_MIB;
                g->cache_rate = range(&seed, 1, 20) * BL_MIB;
                /* at most half of it by its programs, and half as much again as the margin */
                most = g->max / 2 + g->own;
                most += 3 * bl_max(s->config.guest_margin, most / 10);
                need += bl_max(most, g->reservation) + g->overhead;
                used += sim_resident(g) - g->cache - g->touched;
        }
        other = need / range(&seed, 4, 10);
        /* and minFree, the way up to it, and what is on its way */
        s->budget = (need + other) * 110 / 100 + 400 * BL_MIB;
        spare = s->budget - used - 500 * BL_MIB;
        for (size_t i = 0; i < n; i++) {
                struct sim_guest *g = &s->g[i];

                g->cache = bl_min(g->cache, spare / n);
                g->touched = bl_min(g->touched, spare / n);
        }
        for (int i = 0; i < 20; i++) {
                sim_run(s, range(&seed, 1, 80) * 100 * BL_MSEC);
                disturb(s, &seed, true);
                s->other_want = bl_min(s->other_want, other);
        }
        /* now everybody has what he wants */
        for (size_t i = 0; i < n; i++)
                s->g[i].want = s->g[i].used + s->g[i].swapped;
        s->other_want = s->other;
        sim_run(s, 100 * BL_SEC);
        for (size_t i = 0; i < n; i++)
                s->g[i].cache_want = s->g[i].cache;
        sim_run(s, 40 * BL_SEC);
        squeezed += s->commands > 0;
        for (size_t i = 0; i < n; i++)
                kept(first, !s->g[i].deaf || s->g[i].asks != SIM_ASKS, "one that asks for what it needs was not heard");
        kept(first, f->kills == 0, "a guest was squeezed to death");
        kept(first, f->below_need == 0, "a guest told to be smaller than it needs");
        kept(first, f->overdraft == 0, "a grant of memory that was not free");
        kept(first, f->out_of_range == 0, "a target outside of [reservation, limit]");
        kept(first, f->nonsense == 0, "a decision that contradicts itself");
        kept(first, f->host_oom == 0, "the host had no memory left");
        kept(first, s->plan.state <= BL_STATE_CLEAR, "the host stayed under pressure");
        sim_at_rest(s);
        sim_run(s, 60 * BL_SEC);
        kept(first, f->reversals == 0, "somebody was turned round at rest");
        kept(first, s->commands == 0, "somebody was told something at rest");
        sim_free(s);
}

/* Equals are squeezed equally; more shares lose no more; the same plan comes out twice. */
static void fair(uint64_t first)
{
        uint64_t seed = first * 2654435761U + 1, max, used, squeeze, level = 0;
        struct sim *s = sim_new(0);
        size_t n = range(&seed, 2, 8);

        max = range(&seed, 8, 24) * 128 * BL_MIB;
        used = range(&seed, 64 * BL_MIB, max / 2);
        for (size_t i = 0; i < n; i++) {
                struct sim_guest *g = sim_add(s, "equal", max, used, true);

                g->speed_down = range(&seed, 512, 2048) * BL_MIB;
                g->period = BL_SEC;
                if (i + 1 == n)
                        g->shares = range(&seed, 1000, 4000);
        }
        s->budget = n * (max + 40 * BL_MIB) + 60 * BL_MIB;
        squeeze = n * (max - used) / 3;
        s->other_want = range(&seed, squeeze / 4, squeeze);
        s->other_rate = range(&seed, 20, 400) * BL_MIB;
        sim_run(s, s->other_want * BL_SEC / s->other_rate + 10 * BL_SEC);
        for (size_t i = 0; i + 1 < n; i++)
                level += s->g[i].actual / (n - 1);
        for (size_t i = 0; i + 1 < n; i++)
                kept(first,
                     s->g[i].actual <= level + max / 32 + 16 * BL_MIB &&
                             s->g[i].actual + max / 32 + 16 * BL_MIB >= level,
                     "equals were not squeezed equally");
        kept(first, s->g[n - 1].actual + 16 * BL_MIB >= level, "more shares lost more");
        kept(first, s->faults.kills == 0 && s->faults.below_need == 0, "a guest was squeezed too far");
        sim_free(s);
}

static void test_hostile(void **state)
{
        (void)state;
        each(1, hostile);
        if (!getenv("BALLAST_SEED"))
                assert_true(pressed_ever * 100 > runs());
}

static void test_benign(void **state)
{
        (void)state;
        each(1000001, benign);
        if (!getenv("BALLAST_SEED"))
                assert_true(squeezed * 2 > runs());
}

static void test_fair(void **state)
{
        (void)state;
        each(2000001, fair);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_hostile),
                cmocka_unit_test(test_benign),
                cmocka_unit_test(test_fair),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
