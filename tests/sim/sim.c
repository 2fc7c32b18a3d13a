/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <inttypes.h>

#include "sim.h"

#define GUEST_RESERVE (4 * BL_MIB) /* a Linux guest keeps this free, whatever happens */

/* How its agent watches it, whose own figures these are: it asks below three quarters of a margin and what it
 * takes in half a second, for one and a half and what it takes in a second. */
#define AGENT_LOOK   (40 * BL_MSEC)
#define AGENT_MARGIN (64 * BL_MIB)
/* The host decides no more often (daemon/channel/agent.h, BL_AGENT_REQUEST_GAP). */
#define HEARD_GAP (20 * BL_MSEC)

struct sim *sim_new(uint64_t budget)
{
        struct sim *s = calloc(1, sizeof(*s));

        assert_non_null(s);
        s->g = calloc(SIM_VMS_MAX, sizeof(*s->g));
        assert_non_null(s->g);
        bl_policy_config_default(&s->config);
        assert_int_equal(bl_policy_new(&s->policy), 0);
        s->budget = budget;
        s->step = 20 * BL_MSEC;
        s->tick = 250 * BL_MSEC;
        s->now = s->next_tick = 1000 * BL_SEC;
        s->min_free = UINT64_MAX;
        s->talk = getenv("SIM_TALK") != NULL;
        return s;
}

struct sim *sim_free(struct sim *s)
{
        if (!s)
                return NULL;
        bl_plan_clear(&s->plan);
        free(s->snapshot.vms);
        bl_policy_free(s->policy);
        free(s->g);
        free(s);
        return NULL;
}

struct sim_guest *sim_add(struct sim *s, const char *name, uint64_t max, uint64_t used, bool cached)
{
        struct sim_guest *g = &s->g[s->n];

        assert_true(s->n < SIM_VMS_MAX);
        *g = (struct sim_guest){
                .max = max,
                .limit = max,
                .shares = 1000,
                .own = max / 64 + 16 * BL_MIB,
                .overhead = 40 * BL_MIB,
                .speed_down = 2 * BL_GIB,
                .speed_up = 8 * BL_GIB,
                .latency = 10 * BL_MSEC,
                .period = BL_SEC,
                .managed = true,
                .want = used,
                .rate = 256 * BL_MIB,
                .cache_rate = 128 * BL_MIB,
                .actual = max,
                .target = max,
                .used = used,
                .booted_at = s->now - 600 * BL_SEC,
                .evidence = BL_WHOLE,
                .least = UINT64_MAX,
        };
        snprintf(g->name, sizeof(g->name), "%s", name);
        /* looks random, is the same each time */
        for (size_t i = 0; i < BL_UUID_LEN; i++)
                g->uuid[i] = (uint8_t)((s->n * 2654435761U >> (i % 4 * 8)) + i * 37);
        if (cached)
                g->cache = g->cache_want = max - g->own - used - GUEST_RESERVE;
        s->n++;
        return g;
}

struct sim *sim_crowded(unsigned int n)
{
        struct sim *s = sim_new(n * (2 * BL_GIB + 40 * BL_MIB) + 50 * BL_MIB);

        for (unsigned int i = 0; i < n; i++) {
                const char name[] = {(char)('a' + i), '\0'};

                sim_add(s, name, 2 * BL_GIB, 512 * BL_MIB, true);
        }
        return s;
}

void sim_on_store(struct sim_guest *g, uint64_t bytes)
{
        g->stored = true;
        g->swap_total = bytes;
        g->ratio = 3333;
        g->ratio_known = true;
        g->hot = g->used / 2;
}

struct sim *sim_crowded_store(unsigned int n, uint64_t pool, uint64_t disk)
{
        struct sim *s = sim_crowded(n);

        s->store = (struct sim_store){
                .there = true, .pool_size = pool, .disk_size = disk, .rate = BL_GIB, .slow_rate = 256 * BL_KIB};
        for (size_t i = 0; i < s->n; i++)
                sim_on_store(&s->g[i], 640 * BL_MIB);
        return s;
}

uint64_t sim_resident(const struct sim_guest *g)
{
        return bl_sub_sat(g->overhead + g->own + g->used + g->cache + g->touched + g->lied, g->paged_out);
}

/* --- the store ------------------------------------------------------------------------------------- */

static uint64_t stored_by(const struct sim_guest *g)
{
        return g->stored ? bl_part(g->swapped, g->ratio) : 0;
}

uint64_t sim_store_used(const struct sim *s)
{
        uint64_t used = 0;

        for (size_t i = 0; i < s->n; i++)
                used += stored_by(&s->g[i]);
        return used;
}

/* Uncompressed, as if nothing shrank: what fits into the pool that is ready, and what fits at all. */
static uint64_t store_headroom(const struct sim *s)
{
        return bl_sub_sat(bl_min(s->store.pool_ready, s->store.pool_size), sim_store_used(s));
}

static uint64_t store_room(const struct sim *s)
{
        return bl_sub_sat(s->store.pool_size + s->store.disk_size, sim_store_used(s));
}

/* What a guest can swap out in this step, of `bytes`. */
static uint64_t swaps_out(struct sim *s, struct sim_guest *g, uint64_t bytes)
{
        uint64_t part = bl_min(bytes, bl_min(g->used, bl_sub_sat(g->swap_total, g->swapped))), takes;

        if (!g->stored)
                return part;
        takes = store_room(s);
        if (!s->store.there || g->leaving)
                takes = 0;
        else if (s->store.slow)
                takes = bl_min(takes, bl_rate_times(s->store.slow_rate, s->step));
        /* what the pool has not ready it takes from the host; the rest goes to the disk at its pace */
        else
                takes = bl_min(takes, bl_sub_sat(s->store.pool_size, sim_store_used(s)) +
                                              bl_rate_times(100 * BL_MIB, s->step));
        if (bytes > 0 && takes < part)
                s->store.full += part - takes;
        return bl_min(part, takes);
}

static void store_step(struct sim *s)
{
        struct sim_store *b = &s->store;
        uint64_t to = s->plan.pool_to;

        b->pool_ready = bl_max(b->pool_ready, bl_min(sim_store_used(s), b->pool_size));
        if (!b->there || to == 0)
                return;
        if (to > b->pool_ready)
                b->pool_ready += bl_min(to - b->pool_ready, bl_rate_times(b->rate, s->step));
        else
                b->pool_ready = bl_max(to, bl_min(b->pool_ready, sim_store_used(s)));
}

static uint64_t guest_free(const struct sim_guest *g)
{
        return bl_sub_sat(g->actual, g->own + g->used + g->cache);
}

uint64_t sim_host_free(const struct sim *s)
{
        uint64_t used = s->other + s->store.pool_ready;

        for (size_t i = 0; i < s->n; i++)
                used += sim_resident(&s->g[i]);
        return bl_sub_sat(s->budget, bl_sub_sat(used + sim_ksm_metadata(s), sim_saved(s)));
}

const struct bl_decision *sim_decision(const struct sim *s, const struct sim_guest *g)
{
        size_t i = (size_t)(g - s->g);

        assert_true(i < s->plan.n);
        return &s->plan.d[i];
}

/* --- guests --------------------------------------------------------------------------------------- */

static uint64_t per_step(const struct sim *s, uint64_t rate)
{
        return bl_rate_times(rate, s->step);
}

/* The guest lets go of free memory; what of it was resident comes back to the host. */
static void give_free(struct sim_guest *g, uint64_t bytes)
{
        uint64_t untouched = bl_sub_sat(guest_free(g), g->touched), resident;

        if (g->untouched_first)
                resident = bl_sub_sat(bytes, untouched);
        else
                resident = bl_min(bytes, g->touched);
        resident = bl_min(resident, g->touched);
        g->touched -= resident;
        g->actual -= bytes;
        if (g->lying)
                g->lied += resident;
}

static void balloon_down(struct sim *s, struct sim_guest *g)
{
        uint64_t step = bl_min(per_step(s, g->speed_down), g->actual - g->target), drop, spare;

        if (g->low_stop > 0)
                step = bl_min(step, bl_sub_sat(g->actual, g->low_stop));

        spare = bl_sub_sat(guest_free(g), GUEST_RESERVE);
        if (spare < step) {
                /* clean cache is dropped, and anonymous memory goes to swap */
                drop = bl_min(step - spare, g->cache);
                g->cache -= drop;
                g->touched += drop;
                spare += drop;
        }
        if (spare < step) {
                drop = swaps_out(s, g, step - spare);
                g->used -= drop;
                g->swapped += drop;
                g->touched += drop;
                spare += drop;
        }
        give_free(g, bl_min(step, spare));
}

static void balloon_up(struct sim *s, struct sim_guest *g)
{
        uint64_t step = bl_min(per_step(s, g->speed_up), bl_sub_sat(g->target, g->actual)), back;

        if (g->high_stop > 0)
                step = bl_min(step, bl_sub_sat(g->high_stop, g->actual));
        g->actual += step;
        /* a liar's pages were never let go of */
        back = bl_min(step, g->lied);
        g->lied -= back;
        g->touched += back;
}

static void balloon(struct sim *s, struct sim_guest *g)
{
        usec_t cycle = g->on + g->off;

        if (g->target == g->actual || g->stuck || s->now < g->target_at + g->latency)
                return;
        if (cycle > 0 && s->now % cycle >= g->on)
                return;
        if (g->target < g->actual && !g->oom_deflated)
                balloon_down(s, g);
        else if (g->target > g->actual)
                balloon_up(s, g);
}

static void allocate(struct sim *s, struct sim_guest *g, uint64_t bytes)
{
        uint64_t part, drop;

        if (guest_free(g) < bytes + GUEST_RESERVE) {
                drop = bl_min(bytes + GUEST_RESERVE - guest_free(g), g->cache);
                g->cache -= drop;
                g->touched += drop;
        }
        if (guest_free(g) < bytes + GUEST_RESERVE) {
                drop = swaps_out(s, g, bytes + GUEST_RESERVE - guest_free(g));
                g->used -= drop;
                g->swapped += drop;
                g->touched += drop;
        }
        if (guest_free(g) < bytes && g->deflate_oom && g->actual < g->max) {
                g->actual += bl_min(bytes - guest_free(g), g->max - g->actual);
                g->oom_deflated = true;
        }
        if (guest_free(g) < bytes) {
                /* its largest program dies; ours to answer for only while the balloon held memory */
                if (g->actual + 8 * BL_MIB < g->max)
                        g->kills++;
                g->touched += g->used / 2;
                g->used -= g->used / 2;
                g->want = g->used;
                return;
        }

        /* pages that were used before come first, as from the kernel's per-CPU lists */
        part = bl_min(bytes, g->touched);
        g->touched -= part;
        g->used += bytes;
}

/* It touches what is hot and is not there: pages come in, others go out for them, and it stalls meanwhile. */
static void thrash(struct sim *s, struct sim_guest *g, uint64_t came_back)
{
        uint64_t misses = bl_min(g->swapped, bl_sub_sat(g->hot, g->used + came_back)), part;

        if (misses == 0)
                return;
        part = bl_min(per_step(s, 100 * BL_MIB), misses * 4 / (s->step > 0 ? BL_SEC / s->step : 1));
        g->swap_in += part;
        g->missed += part;
        g->psi_some += bl_min(s->step, s->step * 4 * misses / g->hot);
}

static void work(struct sim *s, struct sim_guest *g)
{
        uint64_t part, swapped;

        if (g->used + g->swapped < g->want) {
                allocate(s, g, bl_min(per_step(s, g->rate), g->want - g->used - g->swapped));
        } else if (g->used + g->swapped > g->want) {
                part = bl_min(per_step(s, g->rate), g->used + g->swapped - g->want);
                swapped = bl_min(part, g->swapped);
                g->swapped -= swapped;
                part -= swapped;
                g->used -= part;
                g->touched += part;
        }

        /* what was swapped out comes back where there is room; of one that has hot and cold memory the hot */
        part = bl_min(g->swapped, bl_min(per_step(s, 100 * BL_MIB), bl_sub_sat(guest_free(g), 4 * GUEST_RESERVE)));
        if (g->hot > 0 && !g->leaving)
                part = bl_min(part, bl_sub_sat(g->hot, g->used));
        if (g->stored && !s->store.there)
                part = 0;
        thrash(s, g, part);
        if (part > 0) {
                g->swapped -= part;
                g->swap_in += part;
                g->used += part;
                g->touched -= bl_min(part, g->touched);
        }

        /* a swapoff drops cache for what it reads */
        if (g->leaving && g->swapped > 0) {
                part = bl_min(g->cache, per_step(s, 100 * BL_MIB));
                g->cache -= part;
                g->touched += part;
                return;
        }
        part = bl_sub_sat(guest_free(g), 4 * GUEST_RESERVE);
        part = bl_min(part, bl_min(per_step(s, g->cache_rate), bl_sub_sat(g->cache_want, g->cache)));
        g->cache += part;
        g->touched -= bl_min(part, g->touched);
        if (g->psi)
                g->psi_some += s->step / 2;
}

static uint64_t available(const struct sim_guest *g)
{
        return bl_sub_sat(guest_free(g) + g->cache, GUEST_RESERVE);
}

static void report(struct sim *s, struct sim_guest *g)
{
        struct bl_guest_stats *r = &g->report;
        bool deflate = g->deflate_oom;

        if (g->stats == SIM_STATS_STALE)
                return;

        g->true_need = g->used + g->own;
        g->true_swapped = g->swapped;
        *r = (struct bl_guest_stats){
                .source = g->asks == SIM_ASKS_NEVER ? BL_STATS_BALLOON : BL_STATS_AGENT,
                .at = s->now,
                .period = g->period,
                /* with deflate-on-oom Linux counts the balloon as used memory */
                .total = (deflate ? g->max : g->actual) - g->own,
                .actual = g->asks == SIM_ASKS_NEVER ? 0 : g->actual,
                .available = available(g),
                .unused = guest_free(g),
                .caches = g->cache,
                .swap_total = g->swap_total,
                .swap_free = g->swap_total - g->swapped,
                .swap_in = g->swap_in,
                .swap_out = 0,
                .major_faults = BL_UNSET,
                .unevictable = BL_UNSET,
                .hugetlb = BL_UNSET,
                .psi_some = g->psi_some,
        };
        switch (g->stats) {
        case SIM_STATS_GOOD:
        case SIM_STATS_STALE:
                break;
        case SIM_STATS_MISSING:
                *r = (struct bl_guest_stats){.at = s->now};
                break;
        case SIM_STATS_ABSURD:
                r->available = r->total + BL_GIB;
                break;
        case SIM_STATS_STARVING:
                r->available = 0;
                break;
        case SIM_STATS_NO_AVAILABLE:
                r->available = BL_UNSET;
                break;
        }
}

void sim_ask(struct sim *s, struct sim_guest *g, uint64_t bytes, bool stop)
{
        report(s, g);
        g->request = (struct bl_guest_request){.at = s->now, .bytes = bytes, .stop = stop, .deadline = BL_UNSET};
        if (g->asked_at == 0 && g->target <= g->actual && g->actual < g->limit)
                g->asked_at = s->now;
        if (!s->config.test.no_requests && s->now >= s->last_tick + HEARD_GAP)
                s->next_tick = s->now;
}

static void agent(struct sim *s, struct sim_guest *g)
{
        uint64_t used = g->used + g->swapped, rate;
        usec_t dt = s->now - g->looked_at;

        if (g->asks == SIM_ASKS_NEVER || dt < AGENT_LOOK)
                return;
        rate = g->looked_at == 0 ? 0 : bl_sub_sat(used, g->looked_used) * BL_SEC / dt;
        g->looked_at = s->now;
        g->looked_used = used;

        if (g->asks == SIM_ASKS_ALWAYS)
                sim_ask(s, g, g->ask_bytes, g->ask_stop);
        else if (available(g) < AGENT_MARGIN * 3 / 4 + rate / 2)
                sim_ask(s, g, AGENT_MARGIN * 3 / 2 + rate - available(g), g->ask_stop);
}

/* --- the host ------------------------------------------------------------------------------------- */

static void sense(struct sim *s)
{
        uint64_t free_now = sim_host_free(s), fell;
        usec_t dt = s->now - s->seen_at;
        struct bl_snapshot *p = &s->snapshot;

        if (s->seen_at != 0 && dt > 0) {
                fell = bl_sub_sat(s->seen_free, free_now) * BL_SEC / dt;
                s->growth = free_now > s->seen_free ? 0 : (s->growth + fell) / 2;
        }
        s->seen_free = free_now;
        s->seen_at = s->now;

        free(p->vms);
        *p = (struct bl_snapshot){
                .at = s->now,
                .host = {.budget_is_ram = s->is_ram,
                         .budget = s->budget,
                         .used = s->budget - free_now,
                         .free = free_now,
                         .growth = s->growth,
                         .psi_known = true,
                         .psi_pressure = s->psi},
                .store = {.there = s->store.there,
                          .slow = s->store.slow,
                          .pool_size = s->store.pool_size,
                          .pool_ready = s->store.pool_ready,
                          .pool_used = sim_store_used(s),
                          .headroom = store_headroom(s),
                          .room = store_room(s)},
                .n_vms = s->n,
                .vms = calloc(s->n + 1, sizeof(*p->vms)),
        };
        assert_non_null(p->vms);
        sim_ksm_sense(s, &p->share);
        for (size_t i = 0; i < s->n; i++) {
                struct sim_guest *g = &s->g[i];
                struct bl_vm *vm = &p->vms[i];

                *vm = (struct bl_vm){
                        .name = g->name,
                        .run = g->run,
                        .no_reclaim = g->no_reclaim,
                        .hold = g->hold,
                        .managed = g->managed,
                        .hung = g->hung,
                        .oom_deflate = g->oom_deflated,
                        .booted_at = g->booted_at,
                        .max = g->max,
                        .limit = g->limit,
                        .reservation = g->reservation,
                        .shares = g->shares,
                        .actual = g->actual,
                        .target = g->target,
                        .target_at = g->target_at,
                        .resident = sim_resident(g),
                        .resident_at = s->now,
                        .overhead = g->overhead,
                        .stats = g->report,
                        .request = g->request,
                        .idle_since = g->idle_since,
                        .store = {.on = g->stored,
                                  .leaving = g->leaving,
                                  .size = g->stored ? g->swap_total : 0,
                                  .used = g->stored ? g->swapped : 0,
                                  .held = g->stored ? g->swapped : 0,
                                  .stored = stored_by(g),
                                  .limit = g->store_limit == 0 ? BL_UNSET : g->store_limit,
                                  .ratio = g->ratio_known ? g->ratio : BL_WHOLE,
                                  .ratio_known = g->ratio_known},
                };
                memcpy(vm->uuid, g->uuid, BL_UUID_LEN);
                sim_ksm_sense_guest(s, g, &vm->share);
                vm->offer[BL_ENGINE_BALLOON] = (struct bl_offer){
                        .takes = g->actual, .gives = g->max - g->actual, .grain = g->grain, .phase = g->phase};
                vm->offer[BL_ENGINE_PAGEOUT] = (struct bl_offer){.takes = g->pageout};
        }
}

/* May it be told to be smaller than what it uses? */
static void check_pressed(struct sim *s, const struct sim_guest *g, const struct bl_decision *d)
{
        uint64_t all = g->true_need + g->true_swapped;

        if (!g->stored) {
                s->faults.below_need++;
                return;
        }
        if (s->store.pressed_at == 0)
                s->store.pressed_at = s->now;
        if (!s->store.there || s->store.slow || g->leaving || d->to < bl_min(all / 2, g->true_need) ||
            (g->ratio_known && g->ratio > s->config.worth_ratio)) {
                s->faults.pressed++;
                if (s->talk)
                        fprintf(stderr, "%8s pressed too far: of %" PRIu64 " MiB to %" PRIu64 "%s%s%s, ratio %u\n", "",
                                all >> 20, d->to >> 20, s->store.there ? "" : ", no store",
                                s->store.slow ? ", slow" : "", g->leaving ? ", leaving" : "", g->ratio);
        }
}

/* What all of them have been told to swap out, and have not yet. */
static void check_store(struct sim *s)
{
        const struct bl_store_state *b = &s->snapshot.store;
        uint64_t under_way = 0, room = b->headroom / 2;
        bool any = false;

        for (size_t i = 0; i < s->n; i++) {
                const struct sim_guest *g = &s->g[i];
                const struct bl_decision *d = &s->plan.d[i];

                if (!g->stored || g->report.source == BL_STATS_NONE)
                        continue;
                under_way += bl_sub_sat(bl_min(g->actual, g->used + g->own), g->target);
                any |= d->act && d->engine == BL_ENGINE_BALLOON && d->to < d->from && d->to < g->true_need;
        }
        /* only a command can break it: the store may lose room by itself */
        if (any && under_way > room) {
                s->faults.steps++;
                if (s->talk)
                        fprintf(stderr,
                                "%8s %" PRIu64 " MiB are to be swapped out, and half of the headroom is %" PRIu64 "\n",
                                "", under_way >> 20, room >> 20);
        }
        if (s->plan.pool_to > b->pool_size)
                s->faults.pool++;
        if (s->plan.pool_to > b->pool_ready) {
                if (s->snapshot.host.free < s->plan.marks.mark[BL_STATE_HARD] + (s->plan.pool_to - b->pool_ready))
                        s->faults.pool++;
                if (s->store.grown_at == 0)
                        s->store.grown_at = s->now;
        }
}

static void page_out(struct sim *s, struct sim_guest *g, const struct bl_vm *vm, const struct bl_decision *d)
{
        if (d->from != vm->resident || d->to >= d->from || d->from - d->to > g->pageout ||
            d->to < bl_min(g->reservation, g->limit) || (d->why != BL_WHY_TAKE_PAGEOUT && d->why != BL_WHY_TAKE_IDLE))
                s->faults.nonsense++;
        g->paged_out += d->from - d->to;
        g->pageout -= bl_min(g->pageout, d->from - d->to);
        s->commands++;
        g->commands++;
}

/* It may keep what it was told to give; the next target of our own may be a grain above that. */
static bool is_put_back(const struct sim_guest *g, const struct bl_decision *d)
{
        return d->why == BL_WHY_STOP_REQUEST || d->why == BL_WHY_STOP_STORE ||
               (d->why == BL_WHY_GRANT_THRASH && d->to <= d->from + g->grain);
}

static void check(struct sim *s, const struct sim_guest *g, const struct bl_vm *vm, const struct bl_decision *d,
                  size_t i)
{
        struct sim_faults *f = &s->faults;
        char text[512];
        int r;

        r = bl_explain(&s->plan, &s->snapshot, i, text, sizeof(text));
        if (r < 10 || (size_t)r >= sizeof(text) || (size_t)r != strlen(text) || strchr(text, '\n') ||
            !strstr(text, g->name))
                f->nonsense++;
        if ((d->engine == BL_ENGINE_BALLOON && d->from != vm->actual) || d->why >= _BL_WHY_MAX)
                f->nonsense++;
        if (!d->act)
                return;

        if (s->talk)
                fprintf(stderr, "%8.2f %-18s %s\n", (double)(s->now - 1000 * BL_SEC) / 1e6, bl_reason_to_string(d->why),
                        text);
        if (!g->managed || g->hung || g->hold != BL_HOLD_NONE || g->run != BL_RUN_RUNNING ||
            (g->no_reclaim != BL_RECLAIM_OK && d->engine == BL_ENGINE_BALLOON))
                f->untouchable++;
        if (d->engine == BL_ENGINE_PAGEOUT)
                return;
        if (g->grain > 0 && d->to % g->grain != g->phase % g->grain)
                f->grain++;
        if (d->why == BL_WHY_PARK_STUCK)
                return;
        if (is_put_back(g, d) && d->why != BL_WHY_STOP_REQUEST) {
                if (d->to + g->grain < d->from || d->to <= vm->target)
                        f->nonsense++;
                return;
        }
        if (d->why == BL_WHY_STOP_REQUEST) {
                /* at the top there may be no target of our own but the one below */
                if (d->to + g->grain < d->from || d->to <= vm->target || g->request.at == 0)
                        f->nonsense++;
                return;
        }

        if (d->to == vm->target)
                f->nonsense++;
        if (d->to < bl_min(g->reservation, g->limit) && d->to < d->from)
                f->out_of_range++;
        if (d->to > g->limit && d->to > d->from)
                f->out_of_range++;
        if (d->to < d->from) {
                if (d->to < g->true_need) {
                        unsigned int before = f->below_need;

                        check_pressed(s, g, d);
                        if (s->talk && f->below_need > before)
                                fprintf(stderr,
                                        "%8s below the need of %" PRIu64 " MiB: actual %" PRIu64 " used %" PRIu64
                                        " cache %" PRIu64 " own %" PRIu64 " swapped %" PRIu64 "; report of %" PRIu64
                                        " ms ago: total %" PRIu64 " available %" PRIu64 " floor %" PRIu64 "%s\n",
                                        "", g->true_need >> 20, g->actual >> 20, g->used >> 20, g->cache >> 20,
                                        g->own >> 20, g->swapped >> 20, (s->now - g->report.at) / BL_MSEC,
                                        g->report.total >> 20, g->report.available >> 20, d->floor >> 20,
                                        g->deflate_oom ? " deflate" : "");
                }
                if (g->report.source == BL_STATS_NONE ||
                    (g->report.available != BL_UNSET && g->report.available > g->report.total) ||
                    s->now > g->report.at + 3 * g->period)
                        f->blind++;
        }
}

static void act(struct sim *s)
{
        uint64_t granted = 0, asked = 0;
        const uint64_t *mark = s->plan.marks.mark;

        if (s->plan.state != s->plan.state_before)
                s->state_changes++;
        for (size_t i = 0; i < s->n; i++) {
                struct sim_guest *g = &s->g[i];
                const struct bl_decision *d = &s->plan.d[i];
                uint64_t had = bl_max(g->actual, g->target);
                int dir;

                check(s, g, &s->snapshot.vms[i], d, i);
                g->deaf |= d->deaf_until != 0;
                if (!d->act)
                        continue;

                if (d->engine == BL_ENGINE_PAGEOUT) {
                        page_out(s, g, &s->snapshot.vms[i], d);
                        continue;
                }
                if (is_put_back(g, d)) {
                        g->turned_back++;
                } else if (d->why != BL_WHY_PARK_STUCK) {
                        if (d->to > d->from) {
                                granted += bl_sub_sat(d->to, had);
                                /* what a guest asks for comes out of the reserve */
                                if (d->why == BL_WHY_GRANT_REQUEST || d->why == BL_WHY_GRANT_THRASH)
                                        asked += bl_sub_sat(d->to, had);
                                if (g->asked_at != 0)
                                        g->waited = bl_max(g->waited, s->now - g->asked_at);
                                g->asked_at = 0;
                        }
                        dir = d->to < d->from ? -1 : 1;
                        if (g->last_dir != 0 && dir != g->last_dir) {
                                g->reversals++;
                                s->faults.reversals++;
                        }
                        g->last_dir = dir;
                        g->commands++;
                        s->commands++;
                }
                g->target = d->to;
                g->target_at = s->now;
                g->oom_deflated = false;
        }
        check_store(s);
        sim_ksm_act(s);
        if (granted > asked && s->snapshot.host.free < mark[BL_STATE_CLEAR] + granted - asked)
                s->faults.overdraft++;
        if (asked > 0 && s->snapshot.host.free < mark[BL_STATE_HARD] + granted)
                s->faults.overdraft++;
}

static void talk_host(const struct sim *s)
{
        const struct bl_plan *p = &s->plan;

        fprintf(stderr,
                "%8.2f free %" PRIu64 " goal %" PRIu64 " lead %" PRIu64 " short %" PRIu64 " coming %" PRIu64
                " unmet %" PRIu64 " promised %" PRIu64 " %s; pool %" PRIu64 " of %" PRIu64 " to %" PRIu64
                "; merged %" PRIu64 " saved %" PRIu64 " reserve %" PRIu64 " %s pass %" PRIu64 "\n",
                (double)(s->now - 1000 * BL_SEC) / 1e6, s->snapshot.host.free >> 20, p->goal >> 20, p->lead >> 20,
                p->shortfall >> 20, p->coming >> 20, p->unmet >> 20, p->promised >> 20, bl_state_to_string(p->state),
                sim_store_used(s) >> 20, s->store.pool_ready >> 20, p->pool_to >> 20, sim_merged(s) >> 20,
                sim_saved(s) >> 20, p->share.reserve >> 20, bl_reason_to_string(p->share.why), s->ksm.full_scans);
}

static void tick(struct sim *s)
{
        s->last_tick = s->now;
        sense(s);
        bl_plan_clear(&s->plan);
        assert_int_equal(bl_policy_decide(s->policy, &s->snapshot, &s->config, s->now, &s->plan), 0);
        assert_int_equal(s->plan.n, s->n);
        if (s->talk)
                talk_host(s);
        act(s);
}

static void step(struct sim *s)
{
        uint64_t free_now;

        s->now += s->step;
        if (s->other < s->other_want)
                s->other += bl_min(per_step(s, s->other_rate), s->other_want - s->other);
        else
                s->other -= bl_min(per_step(s, s->other_rate), s->other - s->other_want);

        store_step(s);
        for (size_t i = 0; i < s->n; i++) {
                struct sim_guest *g = &s->g[i];
                unsigned int kills = g->kills;

                if (g->run == BL_RUN_RUNNING) {
                        balloon(s, g);
                        work(s, g);
                        g->least = bl_min(g->least, available(g));
                        if (s->now >= g->report.at + g->period)
                                report(s, g);
                        agent(s, g);
                }
                s->faults.kills += g->kills - kills;
        }
        sim_ksm_step(s);
        free_now = sim_host_free(s);
        s->min_free = bl_min(s->min_free, free_now);
        if (free_now == 0)
                s->faults.host_oom++;

        if (s->now >= s->next_tick) {
                s->next_tick = s->now + s->tick;
                tick(s);
        }
}

void sim_run(struct sim *s, usec_t time)
{
        for (usec_t end = s->now + time; s->now < end;)
                step(s);
}

usec_t sim_run_until_free(struct sim *s, uint64_t free_wanted, usec_t most)
{
        usec_t start = s->now;

        while (s->now < start + most) {
                step(s);
                if (sim_host_free(s) >= free_wanted)
                        return s->now - start;
        }
        return BL_UNSET;
}

void sim_at_rest(struct sim *s)
{
        s->faults.reversals = 0;
        s->state_changes = 0;
        s->commands = 0;
        for (size_t i = 0; i < s->n; i++) {
                s->g[i].reversals = 0;
                s->g[i].last_dir = 0;
                s->g[i].commands = 0;
        }
}

void sim_reboot(struct sim *s, struct sim_guest *g)
{
        /* the balloon is empty until the driver is back, which then goes to the old target */
        g->booted_at = s->now;
        g->actual = g->max;
        g->used = 64 * BL_MIB;
        g->cache = g->touched = g->swapped = g->swap_in = g->lied = g->psi_some = 0;
        g->report = (struct bl_guest_stats){};
        g->request = (struct bl_guest_request){};
        g->looked_at = 0;
}

void sim_assert_kept(const struct sim *s)
{
        const struct sim_faults *f = &s->faults;

        assert_int_equal(f->kills, 0);
        assert_int_equal(f->below_need, 0);
        assert_int_equal(f->out_of_range, 0);
        assert_int_equal(f->overdraft, 0);
        assert_int_equal(f->blind, 0);
        assert_int_equal(f->untouchable, 0);
        assert_int_equal(f->grain, 0);
        assert_int_equal(f->nonsense, 0);
        assert_int_equal(f->pressed, 0);
        assert_int_equal(f->steps, 0);
        assert_int_equal(f->pool, 0);
        assert_int_equal(f->host_oom, 0);
        assert_int_equal(f->dear, 0);
        assert_int_equal(f->mixed, 0);
}

uint64_t sim_random(uint64_t *seed)
{
        *seed ^= *seed >> 12;
        *seed ^= *seed << 25;
        *seed ^= *seed >> 27;
        return *seed * UINT64_C(2685821657736338717);
}

uint64_t sim_random_range(uint64_t *seed, uint64_t low, uint64_t high)
{
        return low + sim_random(seed) % (high - low + 1);
}
