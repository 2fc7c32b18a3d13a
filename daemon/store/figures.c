// SPDX-License-Identifier: LGPL-2.1-or-later
#include "daemon/store/internal.h"

#include <string.h>

#include "daemon/util/clock.h"

void bl_store_tell(struct bl_store *s, enum bl_store_event_kind kind, const uint8_t *uuid, uint64_t offset)
{
        struct bl_store_event ev = {.kind = kind, .offset = offset};

        if (!s->on_event)
                return;
        if (uuid)
                memcpy(ev.uuid, uuid, BL_UUID_LEN);
        s->on_event(s->userdata, &ev);
}

/* --- latencies ------------------------------------------------------------------------------------------- */

/* 4 buckets for each power of two. */
static uint32_t bucket_of(usec_t t)
{
        uint32_t log;

        if (t < 4)
                return (uint32_t)t;
        log = 63 - (uint32_t)__builtin_clzll(t);
        return (uint32_t)bl_min(log * 4 + (uint32_t)(t >> (log - 2) & 3), BL_LATENCY_BUCKETS - 1);
}

static usec_t middle_of(uint32_t b)
{
        if (b < 8)
                return b;
        return (UINT64_C(4) + b % 4) << (b / 4 - 2) | UINT64_C(1) << (b / 4 - 2) >> 1;
}

void bl_latency_add(struct bl_latency *l, usec_t now, usec_t took)
{
        uint64_t second = now / BL_SEC;
        uint32_t i = (uint32_t)(second % BL_LATENCY_SECONDS);

        if (l->second[i] != second) {
                memset(l->counts[i], 0, sizeof(l->counts[i]));
                l->second[i] = second;
        }
        l->counts[i][bucket_of(took)]++;
}

/* 0 where there was nothing. */
static usec_t quantile(const struct bl_latency *l, usec_t now, uint64_t permyriad)
{
        uint64_t sums[BL_LATENCY_BUCKETS] = {0}, all = 0, seen = 0;

        for (uint32_t i = 0; i < BL_LATENCY_SECONDS; i++) {
                if (l->second[i] + BL_LATENCY_SECONDS <= now / BL_SEC)
                        continue;
                for (uint32_t b = 0; b < BL_LATENCY_BUCKETS; b++) {
                        sums[b] += l->counts[i][b];
                        all += l->counts[i][b];
                }
        }
        for (uint32_t b = 0; all > 0 && b < BL_LATENCY_BUCKETS; b++) {
                seen += sums[b];
                if (seen * BL_WHOLE >= all * permyriad)
                        return bl_max(middle_of(b), 1);
        }
        return 0;
}

/* --- the whole --------------------------------------------------------------------------------------------- */

uint64_t bl_index_memory(const struct bl_store *s)
{
        uint64_t tables = 0;

        for (uint32_t i = 0; i < BL_EXPORTS; i++)
                if (s->exports[i])
                        tables += (uint64_t)(s->exports[i]->n_tables + s->exports[i]->n_nodes) * sizeof(uint32_t);
        /* of the page table, that of pages in use */
        return bl_entries_memory(s) + tables + (uint64_t)(s->ready_pages - s->free_pages) * sizeof(struct bl_page);
}

void bl_store_figures(struct bl_store *s, struct bl_store_figures *ret)
{
        struct bl_store_figures f = {0};
        usec_t now = bl_now();
        uint64_t room;

        pthread_mutex_lock(&s->lock);
        f.incarnation = s->super->incarnation;
        f.pool_size = (uint64_t)s->n_pages * BL_STORE_PAGE;
        f.pool_ready = (uint64_t)s->ready_pages * BL_STORE_PAGE;
        f.pool_used = (s->span_pages + s->table_pages + s->entry_n_pages) * BL_STORE_PAGE;
        f.payload = s->payload;
        f.slack = s->span_pages * BL_STORE_PAGE - s->payload;
        f.tables = (s->table_pages + s->entry_n_pages) * BL_STORE_PAGE;
        f.index = bl_index_memory(s);
        f.disk_size = s->disk_size;
        f.disk_used = s->disk_used;
        f.disk_failed = __atomic_load_n(&s->disk_failed, __ATOMIC_RELAXED);
        f.held = s->held * BL_STORE_PAGE;
        f.zero = s->zero * BL_STORE_PAGE;
        f.unique = s->unique * BL_STORE_PAGE;
        f.promised = s->promised;
        f.backing = bl_exports_backing(s);
        room = s->free_pages + (uint64_t)(s->n_pages - s->ready_pages);
        f.headroom = bl_sub_sat(room * BL_STORE_PAGE, room * BL_STORE_PAGE / 100 + UINT64_C(16) * BL_STORE_PAGE);
        f.writes = s->writes;
        f.reads = s->reads;
        f.trims = s->trims;
        f.dedup_hits = s->hits;
        f.demoted = s->demoted;
        f.disk_reads = __atomic_load_n(&s->disk_reads, __ATOMIC_RELAXED);
        f.errors = s->errors;
        f.waiting = s->waiting;
        f.write_p50 = quantile(&s->write_latency, now, 5000);
        f.write_p99 = quantile(&s->write_latency, now, 9900);
        f.read_p50 = quantile(&s->read_latency, now, 5000);
        f.read_p99 = quantile(&s->read_latency, now, 9900);
        for (const struct bl_work *w = s->all; w; w = w->all)
                if (w->started != 0)
                        f.oldest_request = bl_max(f.oldest_request, bl_sub_sat(now, w->started));
        pthread_mutex_unlock(&s->lock);
        *ret = f;
}

/* --- one VM ------------------------------------------------------------------------------------------------- */

/* Not walked again before this many times what the last walk took. */
#define WALK_REST 50U

struct split {
        uint64_t shared, stored, disk; /* bytes */
};

static void add_slot(const struct bl_store *s, uint64_t word, struct split *to)
{
        struct bl_meta *m;
        const struct bl_entry *e;

        if (bl_slot_kind(word) != BL_SLOT_DATA || !bl_entry_is(s, word))
                return;
        e = bl_entry_at(s, bl_slot_entry(word), &m);
        if (!bl_location_ok(e->location, bl_slot_entry(word), e))
                return;
        if (m->refs > 1)
                to->shared += BL_STORE_PAGE;
        to->stored += sizeof(*e) * 256 / m->refs;
        if (e->location & BL_LOCATION_DISK)
                to->disk += (uint64_t)e->size * 256 / m->refs;
        else
                to->stored += (uint64_t)bl_spans_object_size(s, e->size) * 256 / m->refs;
}

/* With the lock held, given up between tables: exact while nothing is written. */
static void walk(struct bl_store *s, struct bl_export *e)
{
        struct split sum = {0};

        bl_export_hold(e);
        for (uint32_t t = 0; t < e->n_tables && !e->gone; t++) {
                const uint64_t *words;

                if (e->tables[t] == 0)
                        continue;
                words = bl_page_at(s, e->tables[t]);
                for (uint32_t i = 0; i < BL_TABLE; i++)
                        add_slot(s, words[i], &sum);
                sum.stored += UINT64_C(256) * BL_STORE_PAGE;
                if (t % 8 == 7) {
                        pthread_mutex_unlock(&s->lock);
                        pthread_mutex_lock(&s->lock);
                }
        }
        e->shared = sum.shared;
        e->stored = sum.stored / 256;
        e->disk = sum.disk / 256;
        bl_export_let_go(e);
}

static void walk_all(struct bl_store *s)
{
        usec_t start = bl_now();

        if (s->walking || (s->walked != 0 && start - s->walked < s->walk_took * WALK_REST))
                return;
        s->walking = true;
        for (uint32_t i = 0; i < BL_EXPORTS; i++)
                if (s->exports[i] && !s->exports[i]->gone)
                        walk(s, s->exports[i]);
        s->walking = false;
        s->walked = bl_now();
        s->walk_took = s->walked - start;
}

static void describe(const struct bl_store *s, const struct bl_export *e, struct bl_store_vm *v)
{
        *v = (struct bl_store_vm){
                .pid = (pid_t)e->record->pid,
                .start = e->record->start,
                .size = e->size,
                .limit = e->record->limit,
                .open = e->open,
                .lost = e->record->lost != 0,
                .stamp = e->record->stamp,
                .held = e->held * BL_STORE_PAGE,
                .zero = e->zero * BL_STORE_PAGE,
                .shared = e->shared,
                .stored = e->stored,
                .disk = e->disk,
                .errors = e->errors,
                .write_pages = e->writes,
                .read_pages = e->reads,
        };
        memcpy(v->uuid, e->record->uuid, BL_UUID_LEN);
        memcpy(v->group, s->groups[e->record->group].name, BL_STORE_GROUP);
        if (e->n_recent > 0)
                v->ratio = (uint32_t)(e->sum_recent * BL_WHOLE / ((uint64_t)e->n_recent * BL_STORE_PAGE));
}

size_t bl_store_vms(struct bl_store *s, struct bl_store_vm *ret, size_t n)
{
        size_t seen = 0;

        pthread_mutex_lock(&s->lock);
        walk_all(s);
        for (uint32_t i = 0; i < BL_EXPORTS; i++) {
                if (!s->exports[i] || s->exports[i]->gone)
                        continue;
                if (seen < n)
                        describe(s, s->exports[i], &ret[seen]);
                seen++;
        }
        pthread_mutex_unlock(&s->lock);
        return seen;
}
