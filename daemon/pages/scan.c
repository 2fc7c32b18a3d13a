/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/pages/scan.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <xxhash.h>
#if defined(__x86_64__) && __has_include(<xxh_x86dispatch.h>)
#include <xxh_x86dispatch.h> /* XXH3 by what the processor has, not by what the build assumes: half the time */
#endif

#include "daemon/pages/scan_private.h"
#include "daemon/util/clock.h"

#define MEMORY_PART   200U /* of what is scanned: 0.5 % */
#define MEMORY_MIN    (3 * BL_MIB) /* less than 0.5 % of 600 MiB would not hold the buffers and all pages */
#define SETTLE        (100 * BL_MSEC)
#define COMPRESS      1000U
#define NAP           (20 * BL_MSEC) /* *stop is seen within it */
#define CREDIT        (50 * BL_MSEC) /* time that was overslept, and may be made good */
#define BATCH_BYTES   (BL_PAGE_SIZE + BL_PAGE_SIZE / BL_SCAN_CLASS_PART + 96) /* a page of batch.room takes */
#define BATCH_PART    16U /* of all pages: few of them need little */
#define RESERVE_BYTES (160 * BL_KIB) /* frames and classes, which come later */

/* Of all the work, in permyriad: where the parts begin. */
#define PART_SORT    7000U
#define PART_COMPARE 7500U

static uint64_t hash_page(const void *page, uint64_t seed)
{
        return XXH3_64bits_withSeed(page, BL_PAGE_SIZE, seed);
}

static unsigned bits_for(uint64_t pages)
{
        return pages <= 2 ? 1 : 64 - (unsigned)__builtin_clzll(pages - 1);
}

/* Everything of a size that is known from the start. */
static int allocate(struct bl_scan *s, struct bl_source **sources, size_t n, uint64_t total)
{
        struct bl_scan_memory *m = &s->memory;
        const size_t room = n > 0 ? n : 1;

        s->n_sources = n;
        s->report.n = n;
        s->sources = bl_scan_alloc(m, room, sizeof(struct bl_source *));
        s->base = bl_scan_alloc(m, room + 1, sizeof(*s->base));
        s->pass = bl_scan_alloc(m, room, sizeof(*s->pass));
        s->in = bl_scan_alloc(m, room, sizeof(*s->in));
        s->copies = bl_scan_alloc(m, room, sizeof(*s->copies));
        s->look = bl_scan_alloc(m, BL_SCAN_WINDOW, sizeof(*s->look));
        s->report.source = bl_scan_alloc(m, room, sizeof(*s->report.source));
        if (!s->sources || !s->base || !s->pass || !s->in || !s->copies || !s->look || !s->report.source)
                return -ENOMEM;
        if (n <= BL_SCAN_MATRIX_MAX && !(s->report.matrix = bl_scan_alloc(m, room * room, sizeof(*s->report.matrix))))
                return -ENOMEM;
        for (size_t i = 0; i < n; i++) {
                s->sources[i] = sources[i];
                s->base[i + 1] = s->base[i] + sources[i]->n_pages;
                s->live = s->live || !sources[i]->still;
        }
        if (s->live && bl_scan_marks_init(&s->marks, m, total) < 0)
                return -ENOMEM;
        return bl_scan_batch_resize(s, BL_SCAN_BATCH_MIN);
}

/* How many entries the table may have. */
static void bound(struct bl_scan *s, size_t memory_max, uint64_t total)
{
        const uint64_t fixed = s->memory.now + RESERVE_BYTES + total / 8;

        s->limit = memory_max > 0 ? memory_max : bl_max(total * BL_PAGE_SIZE / MEMORY_PART, MEMORY_MIN);
        s->table.most = (size_t)bl_max(bl_sub_sat(s->limit, fixed) / sizeof(struct bl_scan_entry),
                                       (uint64_t)2 * BL_SCAN_WINDOW);
}

int bl_scan_new(struct bl_source **sources, size_t n, const struct bl_scan_options *o, struct bl_scan **ret)
{
        _cleanup_(bl_scan_freep) struct bl_scan *s = NULL;
        struct bl_scan_memory memory = {.fail_in = o->fail_alloc};
        uint64_t total = 0;
        int r;

        if (n > BL_SCAN_SOURCES_MAX)
                return -E2BIG;
        for (size_t i = 0; i < n; i++)
                total = bl_add_sat(total, sources[i]->n_pages);
        if (total > BL_SCAN_PAGE_MASK)
                return -E2BIG;
        s = bl_scan_alloc(&memory, 1, sizeof(*s));
        if (!s)
                return -ENOMEM;
        s->memory = memory;
        s->hash = o->hash ? o->hash : hash_page;
        s->seed = o->seed;
        s->cpu = o->cpu > 0 && o->cpu < BL_WHOLE ? o->cpu : BL_WHOLE;
        s->settle = o->settle > 0 ? o->settle : SETTLE;
        s->compress_sample = o->compress_sample > 0 ? o->compress_sample : COMPRESS;
        s->page_bits = bits_for(total);
        if (s->seed == 0 && getrandom(&s->seed, sizeof(s->seed), 0) != (ssize_t)sizeof(s->seed))
                s->seed = bl_now();
        r = allocate(s, sources, n, total);
        if (r < 0)
                return r;
        bound(s, o->memory_max, total);
        *ret = BL_TAKE(s);
        return 0;
}

struct bl_scan *bl_scan_free(struct bl_scan *s)
{
        struct bl_scan_memory *m = s ? &s->memory : NULL;
        const size_t room = s && s->n_sources > 0 ? s->n_sources : 1;

        if (!s)
                return NULL;
        s->table.n = 0;
        bl_scan_table_fit(s);
        bl_scan_batch_free(s);
        bl_scan_large_free(s);
        bl_scan_marks_free(&s->marks, m);
        bl_scan_frames_free(&s->frames, m);
        (void)bl_scan_release(m, s->sources, room, sizeof(struct bl_source *));
        (void)bl_scan_release(m, s->base, room + 1, sizeof(*s->base));
        (void)bl_scan_release(m, s->pass, room, sizeof(*s->pass));
        (void)bl_scan_release(m, s->in, room, sizeof(*s->in));
        (void)bl_scan_release(m, s->copies, room, sizeof(*s->copies));
        (void)bl_scan_release(m, s->look, BL_SCAN_WINDOW, sizeof(*s->look));
        (void)bl_scan_release(m, s->report.source, room, sizeof(*s->report.source));
        (void)bl_scan_release(m, s->report.matrix, room * room, sizeof(*s->report.matrix));
        free(s);
        return NULL;
}

size_t bl_scan_source_of(const struct bl_scan *s, uint64_t page, size_t hint)
{
        size_t low = hint, high = s->n_sources;

        if (page < s->base[hint + 1])
                return hint;
        /* the last one that begins at or below the page: those without pages are passed over */
        while (high - low > 1) {
                const size_t mid = low + (high - low) / 2;

                if (s->base[mid] <= page)
                        low = mid;
                else
                        high = mid;
        }
        return low;
}

void bl_scan_lose(struct bl_scan *s, size_t source, int error)
{
        if (!bl_scan_lost(s, source))
                s->report.source[source].error = error;
        memset(&s->pass[source], 0, sizeof(s->pass[source]));
}

void bl_scan_ask_again(struct bl_scan *s)
{
        for (size_t i = 0; i < s->n_sources; i++) {
                int r = bl_scan_lost(s, i) ? 0 : s->sources[i]->ops->again(s->sources[i]);

                if (r != 0)
                        bl_scan_lose(s, i, r > 0 ? -ESTALE : r);
        }
}

/* What the table does not take of the memory is for the second look. */
static int make_batch(struct bl_scan *s)
{
        uint64_t pages = 0, room;

        bl_scan_table_fit(s);
        bl_scan_batch_free(s);
        for (size_t i = 0; i < s->n_sources; i++)
                pages += s->pass[i].pages;
        room = bl_max(pages * BL_PAGE_SIZE / MEMORY_PART, MEMORY_MIN);
        room = bl_sub_sat(bl_min(room, s->limit), s->memory.now + RESERVE_BYTES) / BATCH_BYTES;
        room = bl_min(bl_min(room, BL_SCAN_BATCH_MAX), pages / BATCH_PART);
        return bl_scan_batch_resize(s, (size_t)bl_max(room, BL_SCAN_BATCH_MIN));
}

static void next(struct bl_scan *s, enum bl_scan_state state)
{
        s->state = state;
        s->at = 0;
}

/* One piece of work.  -ENOMEM, and then it is as it was. */
static int piece(struct bl_scan *s)
{
        int r = 0;

        switch (s->state) {
        case BL_SCAN_AT_HASH:
                r = bl_scan_hash_go(s);
                if (r > 0)
                        r = make_batch(s);
                else
                        break;
                if (r >= 0)
                        next(s, BL_SCAN_AT_MERGED);
                break;
        case BL_SCAN_AT_ROOM:
                r = bl_scan_room_go(s);
                if (r > 0)
                        next(s, BL_SCAN_AT_HASH);
                break;
        case BL_SCAN_AT_MERGED:
                r = bl_scan_merged_go(s);
                if (r <= 0)
                        break;
                s->hashed = bl_now();
                s->entries = s->table.n;
                bl_scan_sort_start(&s->sort, s->table.e, s->table.n);
                next(s, BL_SCAN_AT_SORT_HASH);
                break;
        case BL_SCAN_AT_SORT_HASH:
                if (bl_scan_sort_go(&s->sort, BL_SCAN_SLICE))
                        next(s, BL_SCAN_AT_GROUP);
                break;
        case BL_SCAN_AT_GROUP:
                if (bl_scan_group_go(s) == 0)
                        break;
                bl_scan_sort_start(&s->sort, s->table.e, s->grouped);
                next(s, BL_SCAN_AT_SORT_GROUP);
                break;
        case BL_SCAN_AT_SORT_GROUP:
                if (bl_scan_sort_go(&s->sort, BL_SCAN_SLICE))
                        next(s, BL_SCAN_AT_SETTLE);
                break;
        case BL_SCAN_AT_SETTLE:
                if (s->live)
                        s->rest_until = bl_max(s->rest_until, s->hashed + s->settle);
                bl_scan_ask_again(s);
                next(s, BL_SCAN_AT_COMPARE);
                break;
        case BL_SCAN_AT_COMPARE:
                r = bl_scan_compare_go(s);
                if (r > 0)
                        next(s, BL_SCAN_AT_ZERO);
                break;
        case BL_SCAN_AT_ZERO:
                r = bl_scan_zero_go(s);
                if (r > 0)
                        next(s, BL_SCAN_AT_COMPRESS);
                break;
        case BL_SCAN_AT_COMPRESS:
                r = bl_scan_compress_go(s);
                if (r <= 0)
                        break;
                /* from here on no source is touched: who is there now is in the report */
                bl_scan_ask_again(s);
                next(s, BL_SCAN_AT_COUNT);
                break;
        case BL_SCAN_AT_COUNT:
                r = bl_scan_count_go(s);
                if (r > 0)
                        next(s, BL_SCAN_AT_RUNS);
                break;
        case BL_SCAN_AT_RUNS:
                r = bl_scan_runs_go(s);
                if (r > 0)
                        next(s, BL_SCAN_AT_END);
                break;
        case BL_SCAN_AT_END:
                break;
        }
        return r < 0 ? r : 0;
}

static void nap(usec_t t)
{
        const struct timespec ts = {.tv_sec = (time_t)(t / BL_SEC), .tv_nsec = (long)(t % BL_SEC * 1000)};

        (void)nanosleep(&ts, NULL);
}

/* What took `cpu` is paid for by so much time, from `began` on. */
static void pay(struct bl_scan *s, usec_t began, usec_t cpu)
{
        if (s->cpu < BL_WHOLE)
                s->rest_until = bl_max(s->rest_until, bl_sub_sat(began, CREDIT)) + cpu * BL_WHOLE / s->cpu;
}

int bl_scan_step(struct bl_scan *s, usec_t time, const atomic_bool *stop)
{
        const usec_t began = bl_now(), cpu_began = bl_now_thread_cpu(), until = bl_add_sat(began, time);
        usec_t now = began, cpu = cpu_began;
        int r = 0;

        while (s->state != BL_SCAN_AT_END && r >= 0 && !(stop && atomic_load(stop))) {
                if (now < s->rest_until)
                        nap(bl_min(bl_min(s->rest_until, until) - now, NAP));
                else {
                        const usec_t cpu_before = cpu;

                        r = piece(s);
                        cpu = bl_now_thread_cpu();
                        pay(s, now, cpu - cpu_before);
                }
                now = bl_now();
                if (now >= until)
                        break;
        }
        s->report.took += now - began;
        s->report.cpu += bl_now_thread_cpu() - cpu_began;
        s->report.memory = s->memory.most;
        return r < 0 ? r : s->state == BL_SCAN_AT_END;
}

void bl_scan_progress(const struct bl_scan *s, struct bl_scan_progress *ret)
{
        struct bl_scan_progress p = {.total = 2 * s->entries};
        permyriad_t from = PART_SORT, to = PART_COMPARE;

        switch (s->state) {
        case BL_SCAN_AT_HASH:
        case BL_SCAN_AT_ROOM:
                p.phase = BL_SCAN_HASH;
                p.total = s->base[s->n_sources];
                p.done = s->base[s->source] + s->window;
                from = 0;
                to = PART_SORT;
                break;
        case BL_SCAN_AT_MERGED:
                p.phase = BL_SCAN_SORT;
                break;
        case BL_SCAN_AT_SORT_HASH:
                p.phase = BL_SCAN_SORT;
                p.done = bl_scan_sort_progress(&s->sort) / 2;
                break;
        case BL_SCAN_AT_GROUP:
                p.phase = BL_SCAN_SORT;
                p.done = s->entries;
                break;
        case BL_SCAN_AT_SORT_GROUP:
                p.phase = BL_SCAN_SORT;
                p.done = s->entries + bl_scan_sort_progress(&s->sort) / 2;
                break;
        case BL_SCAN_AT_SETTLE:
        case BL_SCAN_AT_COMPARE:
        case BL_SCAN_AT_ZERO:
        case BL_SCAN_AT_COMPRESS:
        case BL_SCAN_AT_COUNT:
        case BL_SCAN_AT_RUNS:
                p.phase = BL_SCAN_COMPARE;
                p.total = s->grouped + s->zeros;
                p.done = s->grouped + s->zeros_done;
                /* a large group may be gone through more than once */
                if (s->state <= BL_SCAN_AT_COMPARE)
                        p.done = s->large.end > 0 && s->large.again ? s->large.end : s->at;
                from = PART_COMPARE;
                to = BL_WHOLE;
                break;
        case BL_SCAN_AT_END:
                p.phase = BL_SCAN_DONE;
                p.total = p.done = s->base[s->n_sources];
                from = to = BL_WHOLE;
                break;
        }
        p.part = from + (p.total > 0 ? (permyriad_t)((double)(to - from) * (double)p.done / (double)p.total) : 0);
        *ret = p;
}

const struct bl_scan_report *bl_scan_report(const struct bl_scan *s)
{
        return &s->report;
}
