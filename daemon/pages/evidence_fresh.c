// SPDX-License-Identifier: LGPL-2.1-or-later
/* FRESH jobs: pieces of a VM that were not looked at for the longest time. */
#include "daemon/pages/evidence_job.h"

#include <string.h>

/* Pages read at a time: what was read is still in the second-level cache when it is hashed. */
#define BATCH        64U
#define BATCH_PIECES (BATCH / BL_EVIDENCE_PIECE)
/* Old samples that a job clears away for each piece of its own, and at least: what is left over goes with the next. */
#define SWEEP          2U
#define SWEEP_AT_LEAST 32U

struct fresh {
        struct bl_evidence_job job;
        uint64_t id, generation;
        struct bl_source *source;
        bool round;
        size_t n;
        struct bl_ev_look look[];
};

struct batch {
        struct fresh *j;
        uint8_t *buf;
        struct bl_page_look seen[BL_EVIDENCE_PIECE];
        uint64_t pages[BATCH];
        bool ok[BATCH];
        uint16_t of[BATCH]; /* piece of the job's from the first of the batch on, and page */
        size_t n;
};

static int look_at(struct batch *b, struct bl_ev_look *l, size_t at)
{
        struct bl_source *s = b->j->source;
        uint64_t first = (uint64_t)l->index * BL_EVIDENCE_PIECE;
        int r = s->ops->look(s, first, l->n, b->seen);

        if (r < 0)
                return r;
        for (unsigned k = 0; k < l->n; k++) {
                l->state[k] = b->seen[k].state;
                if (l->state[k] == BL_PAGE_MERGED)
                        l->what[k] = b->seen[k].frame;
                if (l->state[k] != BL_PAGE_PRESENT)
                        continue;
                b->pages[b->n] = first + k;
                b->of[b->n++] = (uint16_t)(at * BL_EVIDENCE_PIECE + k);
        }
        b->j->job.looked += l->n;
        return 0;
}

static int read_batch(struct batch *b, struct bl_ev_look *looks)
{
        struct bl_source *s = b->j->source;
        int r;

        if (b->n == 0)
                return 0;
        r = s->ops->read(s, b->pages, b->n, b->buf, b->ok);
        if (r < 0)
                return r;
        for (size_t i = 0; i < b->n; i++) {
                struct bl_ev_look *l = &looks[b->of[i] / BL_EVIDENCE_PIECE];
                unsigned k = b->of[i] % BL_EVIDENCE_PIECE;
                const uint8_t *page = b->buf + i * BL_PAGE_SIZE;

                if (!b->ok[i])
                        l->state[k] = BL_EV_LOOK_FAILED;
                else if (bl_page_is_zero(page))
                        l->state[k] = BL_EV_LOOK_ZERO;
                else
                        l->what[k] = bl_ev_job_hash(&b->j->job, page);
                b->j->job.read += b->ok[i];
        }
        return 0;
}

static int compare(const void *a, const void *b)
{
        const struct bl_ev_look *x = a, *y = b;

        return (x->index > y->index) - (x->index < y->index);
}

static int run_all(struct fresh *j)
{
        struct batch b = {.j = j};
        uint64_t pages = j->source->n_pages;
        int r = j->source->ops->again(j->source);

        if (r < 0)
                return r;
        if (r > 0 || j->source->n_pages != pages)
                return -ESTALE;
        b.buf = aligned_alloc(BL_PAGE_SIZE, (size_t)BATCH * BL_PAGE_SIZE);
        if (!b.buf)
                return -ENOMEM;
        /* by address: neighbours share page tables */
        qsort(j->look, j->n, sizeof(*j->look), compare);
        r = 0;
        for (size_t i = 0; i < j->n && r == 0; i += BATCH_PIECES) {
                b.n = 0;
                for (size_t p = 0; p < bl_min(BATCH_PIECES, j->n - i) && r == 0; p++)
                        r = look_at(&b, &j->look[i + p], p);
                if (r == 0)
                        r = read_batch(&b, &j->look[i]);
        }
        free(b.buf);
        return r;
}

static void fresh_run(struct bl_evidence_job *job)
{
        struct fresh *j = (struct fresh *)job;

        job->error = run_all(j);
        if (job->error < 0)
                job->looked = job->read = 0;
}

static void fresh_take(struct bl_evidence *e, struct bl_evidence_job *job, usec_t now, struct bl_evidence_done *done)
{
        struct fresh *j = (struct fresh *)job;
        struct bl_ev_vm *v = bl_ev_vm_find(e, j->id);

        bl_ev_sweep(e, now, SWEEP * j->n + SWEEP_AT_LEAST);
        done->round = j->round;
        if (!v || v->generation != j->generation)
                return;
        if (job->error == -ESTALE)
                bl_ev_vm_leave(e, v);
        if (job->error < 0)
                return;
        for (size_t i = 0; i < j->n; i++) {
                if (i + 2 < j->n)
                        bl_ev_prefetch(e, &j->look[i + 2], false);
                if (i + 1 < j->n)
                        bl_ev_prefetch(e, &j->look[i + 1], true);
                if (!bl_ev_store(e, bl_ev_vm_slot(e, v), &j->look[i], now)) {
                        done->error = -ENOMEM;
                        return;
                }
                v->at = now;
        }
}

static void fresh_free(struct bl_evidence_job *job)
{
        free(job);
}

static const struct bl_ev_job_ops fresh_ops = {fresh_run, fresh_take, fresh_free};

int bl_evidence_fresh_new(struct bl_evidence *e, struct bl_evidence_vm vm, size_t pages, struct bl_evidence_job **ret)
{
        size_t want = (pages + BL_EVIDENCE_PIECE - 1) / BL_EVIDENCE_PIECE, n;
        _cleanup_free_ uint32_t *drawn = NULL;
        struct bl_ev_vm *v;
        struct fresh *j;
        bool round;
        int r;

        if (vm.source->n_pages == 0)
                return -ENODATA;
        r = bl_ev_vm_get(e, vm.id, &v);
        if (r < 0)
                return r;
        r = bl_ev_vm_resize(e, &v, vm.source->n_pages);
        if (r < 0)
                return r;
        want = bl_min(want, v->n_pieces);
        drawn = calloc(want + 1, sizeof(*drawn));
        j = calloc(1, sizeof(*j) + want * sizeof(j->look[0]));
        if (!drawn || !j) {
                free(j);
                return -ENOMEM;
        }
        n = bl_ev_vm_draw(e, v, want, drawn, &round);
        bl_ev_job_init(&j->job, e, &fresh_ops);
        j->id = v->id;
        j->generation = v->generation;
        j->source = vm.source;
        j->round = round;
        j->n = n;
        for (size_t i = 0; i < n; i++) {
                uint64_t first = (uint64_t)drawn[i] * BL_EVIDENCE_PIECE;

                j->look[i].index = drawn[i];
                j->look[i].n = (uint8_t)bl_min(BL_EVIDENCE_PIECE, v->n_pages - first);
        }
        *ret = &j->job;
        return 0;
}
