// SPDX-License-Identifier: LGPL-2.1-or-later
/* REFRESH jobs: what the sampled pages of a VM are by now, looked at and not read. */
#include "daemon/pages/evidence_job.h"

#include <string.h>

struct refresh {
        struct bl_evidence_job job;
        uint64_t id, generation;
        struct bl_source *source;
        size_t n;
        struct bl_ev_look look[];
};

static int compare(const void *a, const void *b)
{
        const struct bl_ev_look *x = a, *y = b;

        return (x->index > y->index) - (x->index < y->index);
}

static int look_at(struct refresh *j, struct bl_ev_look *l)
{
        struct bl_page_look seen[BL_EVIDENCE_PIECE];
        int r = j->source->ops->look(j->source, (uint64_t)l->index * BL_EVIDENCE_PIECE, l->n, seen);

        if (r < 0)
                return r;
        for (unsigned k = 0; k < l->n; k++) {
                l->state[k] = seen[k].state;
                l->what[k] = seen[k].frame;
        }
        j->job.looked += l->n;
        return 0;
}

static void refresh_run(struct bl_evidence_job *job)
{
        struct refresh *j = (struct refresh *)job;
        uint64_t pages = j->source->n_pages;
        int r = j->source->ops->again(j->source);

        if (r > 0 || (r == 0 && j->source->n_pages != pages))
                r = -ESTALE;
        qsort(j->look, j->n, sizeof(*j->look), compare);
        for (size_t i = 0; i < j->n && r == 0; i++)
                r = look_at(j, &j->look[i]);
        job->error = r;
}

/* It was merged since: its frame has the content that was hashed, unless the page was written before it merged; a
 * later comparison finds that out, and the frame is read again then. */
static bool merged_since(struct bl_evidence *e, bl_ev_ref page, uint64_t hash, uint64_t frame, usec_t now)
{
        bl_ev_ref f;

        if (!bl_ev_page_merged(e, page, frame, now))
                return false;
        f = bl_ev_find_frame(e, frame);
        return bl_ev_frame(e, f & BL_EV_INDEX)->known || bl_ev_frame_known(e, f & BL_EV_INDEX, hash, now);
}

static bool take_page(struct bl_evidence *e, uint32_t piece, unsigned k, const struct bl_ev_look *l, usec_t now)
{
        const struct bl_ev_piece *p = bl_ev_piece(e, piece);
        enum bl_ev_sample was = p->state[k], is = bl_ev_sample_of(l->state[k]);
        bl_ev_ref page = bl_ev_page(piece, k);

        if (is == BL_EV_MERGED) {
                if (was == BL_EV_MERGED && p->what[k] == l->what[k])
                        return true;
                if (was == BL_EV_SEEN || was == BL_EV_HELD)
                        return merged_since(e, page, p->what[k], l->what[k], now);
                return bl_ev_page_merged(e, page, l->what[k], now);
        }
        /* PRESENT is what SEEN says before the page is read: what was read, or found to be zeros, is left as it is */
        if (is == BL_EV_SEEN && was != BL_EV_MERGED && was != BL_EV_ABSENT && was != BL_EV_SWAPPED)
                return true;
        if (is == BL_EV_SEEN)
                is = BL_EV_UNKNOWN;
        if (was != is)
                bl_ev_page_is(e, page, is);
        return true;
}

static void refresh_take(struct bl_evidence *e, struct bl_evidence_job *job, usec_t now, struct bl_evidence_done *done)
{
        struct refresh *j = (struct refresh *)job;
        struct bl_ev_vm *v = bl_ev_vm_find(e, j->id);

        if (!v || v->generation != j->generation)
                return;
        if (job->error == -ESTALE)
                bl_ev_vm_leave(e, v);
        if (job->error < 0)
                return;
        for (size_t i = 0; i < j->n; i++) {
                uint32_t piece = bl_ev_find_piece(e, bl_ev_vm_slot(e, v), j->look[i].index);

                for (unsigned k = 0; piece != BL_EV_NONE && k < j->look[i].n; k++) {
                        if (bl_ev_room(e, piece) && take_page(e, piece, k, &j->look[i], now))
                                continue;
                        done->error = -ENOMEM;
                        return;
                }
        }
}

static void refresh_free(struct bl_evidence_job *job)
{
        free(job);
}

static const struct bl_ev_job_ops refresh_ops = {refresh_run, refresh_take, refresh_free};

int bl_evidence_refresh_new(struct bl_evidence *e, struct bl_evidence_vm vm, struct bl_evidence_job **ret)
{
        struct bl_ev_vm *v = bl_ev_vm_find(e, vm.id);
        struct refresh *j;
        size_t n = 0;

        *ret = NULL;
        if (!v || v->oldest == BL_EV_NONE)
                return 0;
        for (uint32_t i = v->oldest; i != BL_EV_NONE; i = bl_ev_piece(e, i)->newer)
                n++;
        j = calloc(1, sizeof(*j) + n * sizeof(j->look[0]));
        if (!j)
                return -ENOMEM;
        bl_ev_job_init(&j->job, e, &refresh_ops);
        j->id = v->id;
        j->generation = v->generation;
        j->source = vm.source;
        for (uint32_t i = v->oldest; i != BL_EV_NONE; i = bl_ev_piece(e, i)->newer) {
                const struct bl_ev_piece *p = bl_ev_piece(e, i);

                j->look[j->n].index = p->index;
                j->look[j->n++].n = p->n;
        }
        *ret = &j->job;
        return 0;
}
