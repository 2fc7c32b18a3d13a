// SPDX-License-Identifier: LGPL-2.1-or-later
/* The VMs of the sample: which piece comes next, and what was hinted. */
#include "daemon/pages/evidence_table.h"

#include <string.h>

#define HINTED_OF_FOUR 3U
/* Pieces of this round that may be passed over for each that is drawn: bounds the time of a call. */
#define SKIPS          16U
#define SKIPS_AT_LEAST 4096U

static uint64_t random_next(struct bl_evidence *e)
{
        return bl_ev_mix(e->random += UINT64_C(0x9e3779b97f4a7c15));
}

/* --- slots ------------------------------------------------------------------------------------- */

struct bl_ev_vm *bl_ev_vm_find(struct bl_evidence *e, uint64_t id)
{
        for (size_t i = 0; i < e->n_vms; i++)
                if (e->vms[i].id == id)
                        return id != 0 ? &e->vms[i] : NULL;
        return NULL;
}

static int free_slot(struct bl_evidence *e, struct bl_ev_vm **ret)
{
        struct bl_ev_vm *more;
        size_t i = 0;

        while (i < e->n_vms && (!bl_ev_vm_gone(&e->vms[i]) || e->vms[i].oldest != BL_EV_NONE))
                i++;
        if (i == BL_EV_VMS)
                return -ENOSPC;
        if (i == e->n_vms) {
                more = reallocarray(e->vms, e->n_vms + 1, sizeof(*more));
                if (!more)
                        return -ENOMEM;
                e->vms = more;
                e->n_vms++;
        }
        *ret = &e->vms[i];
        return 0;
}

int bl_ev_vm_get(struct bl_evidence *e, uint64_t id, struct bl_ev_vm **ret)
{
        struct bl_ev_vm *v = bl_ev_vm_find(e, id);
        int r;

        if (!v) {
                r = free_slot(e, &v);
                if (r < 0)
                        return r;
                *v = (struct bl_ev_vm){.id = id, .oldest = BL_EV_NONE, .newest = BL_EV_NONE, .round_done = true};
                v->generation = random_next(e);
        }
        *ret = v;
        return 0;
}

void bl_ev_vm_leave(struct bl_evidence *e, struct bl_ev_vm *v)
{
        v->id = 0;
        free(v->runs);
        v->runs = NULL;
        v->n_runs = 0;
        e->version++;
}

/* --- hints --------------------------------------------------------------------------------------- */

static int run_compare(const void *a, const void *b)
{
        const struct bl_ev_run *x = a, *y = b;

        return (x->first > y->first) - (x->first < y->first);
}

/* Page runs as runs of whole pieces, ascending and apart; of any length, also beyond the end. */
static size_t runs_make(const uint64_t *first, const uint64_t *n, size_t n_runs, struct bl_ev_run *ret)
{
        const uint64_t pieces = BL_EV_INDEX / BL_EVIDENCE_PIECE;
        size_t made = 0, kept = 0;

        for (size_t i = 0; i < n_runs; i++) {
                uint64_t from = first[i] / BL_EVIDENCE_PIECE;
                uint64_t end = bl_add_sat(bl_add_sat(first[i], n[i]), BL_EVIDENCE_PIECE - 1) / BL_EVIDENCE_PIECE;

                end = bl_min(end, pieces);
                if (n[i] > 0 && from < end)
                        ret[made++] = (struct bl_ev_run){.first = (uint32_t)from, .n = (uint32_t)(end - from)};
        }
        qsort(ret, made, sizeof(*ret), run_compare);
        for (size_t i = 0; i < made; i++) {
                struct bl_ev_run *last = kept > 0 ? &ret[kept - 1] : NULL;

                if (last && ret[i].first <= last->first + last->n)
                        last->n = (uint32_t)bl_max(last->n, ret[i].first + ret[i].n - last->first);
                else
                        ret[kept++] = ret[i];
        }
        return kept;
}

/* The last run that begins at or before `piece`, by `before` if by_number; NULL: none. */
static const struct bl_ev_run *run_find(const struct bl_ev_vm *v, uint32_t key, bool by_number)
{
        size_t low = 0, high = v->n_runs;

        while (low < high) {
                size_t mid = low + (high - low) / 2;

                if ((by_number ? v->runs[mid].before : v->runs[mid].first) <= key)
                        low = mid + 1;
                else
                        high = mid;
        }
        return low > 0 ? &v->runs[low - 1] : NULL;
}

bool bl_ev_vm_hinted(const struct bl_ev_vm *v, uint32_t piece)
{
        const struct bl_ev_run *r = run_find(v, piece, false);

        return r && piece - r->first < r->n;
}

/* Counts the hinted pieces that there are, and lets both walks begin again: what was looked at in this round is passed
 * over, so nothing is left out and nothing comes twice. */
static void walks_start(struct bl_evidence *e, struct bl_ev_vm *v)
{
        v->n_hinted = 0;
        for (size_t i = 0; i < v->n_runs; i++) {
                struct bl_ev_run *r = &v->runs[i];

                r->before = v->n_hinted;
                if (r->first < v->n_pieces)
                        v->n_hinted += (uint32_t)bl_min(r->n, v->n_pieces - r->first);
        }
        bl_ev_walk_start(&v->all, v->n_pieces, random_next(e));
        bl_ev_walk_start(&v->hinted, v->n_hinted, random_next(e));
}

/* Samples change sides with the hints.  Hinted pieces were looked at more often: of those that no longer are, as many
 * stay as would have been looked at without the hint, or their like would count too much among the rest. */
static void restratify(struct bl_evidence *e, struct bl_ev_vm *v, uint32_t n_hinted_before)
{
        const struct bl_ev_stratum *s = v->stratum;
        double rest = v->n_pieces > n_hinted_before ? (double)s[0].pieces / (v->n_pieces - n_hinted_before) : 1;
        double hinted = n_hinted_before > 0 ? (double)s[1].pieces / n_hinted_before : 1;
        double keep = hinted > rest ? rest / hinted : 1;

        v->drawn = 0;
        for (uint32_t i = v->oldest, newer; i != BL_EV_NONE; i = newer) {
                struct bl_ev_piece *p = bl_ev_piece(e, i);
                uint8_t now = bl_ev_vm_hinted(v, p->index);

                newer = p->newer;
                if (p->stratum != now && now == 0 && (double)(random_next(e) >> 11) * 0x1p-53 >= keep) {
                        bl_ev_drop_piece(e, i);
                        continue;
                }
                if (p->stratum != now)
                        bl_ev_restratify(e, p, now);
                v->drawn += p->round == v->round;
        }
}

int bl_evidence_hint(struct bl_evidence *e, uint64_t id, const uint64_t *first, const uint64_t *n, size_t n_runs)
{
        struct bl_ev_run *runs = NULL;
        uint32_t n_hinted;
        struct bl_ev_vm *v;
        int r;

        if (n_runs > 0) {
                runs = calloc(n_runs, sizeof(*runs));
                if (!runs)
                        return -ENOMEM;
        }
        r = bl_ev_vm_get(e, id, &v);
        if (r < 0) {
                free(runs);
                return r;
        }
        free(v->runs);
        v->runs = runs;
        v->n_runs = runs ? runs_make(first, n, n_runs, runs) : 0;
        n_hinted = v->n_hinted;
        walks_start(e, v);
        restratify(e, v, n_hinted);
        return 0;
}

/* --- what comes next -------------------------------------------------------------------------------- */

int bl_ev_vm_resize(struct bl_evidence *e, struct bl_ev_vm **v, uint64_t n_pages)
{
        uint64_t pieces = (n_pages + BL_EVIDENCE_PIECE - 1) / BL_EVIDENCE_PIECE;
        uint64_t id = (*v)->id;
        int r;

        if ((*v)->n_pages == n_pages)
                return 0;
        if ((*v)->n_pages != 0) {
                bl_ev_vm_leave(e, *v);
                r = bl_ev_vm_get(e, id, v);
                if (r < 0)
                        return r;
        }
        (*v)->n_pages = n_pages;
        (*v)->n_pieces = (uint32_t)bl_min(pieces, BL_EV_INDEX);
        walks_start(e, *v);
        return 0;
}

static bool draw_hinted(struct bl_ev_vm *v, uint32_t *ret)
{
        const struct bl_ev_run *r;
        uint32_t number;

        if (!bl_ev_walk_next(&v->hinted, &number))
                return false;
        r = run_find(v, number, true);
        *ret = r->first + (number - r->before);
        return true;
}

static bool in_this_round(const struct bl_evidence *e, const struct bl_ev_vm *v, uint32_t index)
{
        uint32_t p = bl_ev_find_piece(e, bl_ev_vm_slot(e, v), index);

        return p != BL_EV_NONE && bl_ev_piece(e, p)->round == v->round;
}

size_t bl_ev_vm_draw(struct bl_evidence *e, struct bl_ev_vm *v, size_t want, uint32_t *ret, bool *ret_done)
{
        size_t n = 0, skips = SKIPS_AT_LEAST + SKIPS * want;
        bool hinted_left = true, left = true;

        if (v->round_done) {
                v->round++;
                v->drawn = 0;
                v->round_done = false;
                walks_start(e, v);
        }
        while (n < want && (left || hinted_left) && v->drawn < v->n_pieces && skips-- > 0) {
                bool hinted = hinted_left && (v->drawn % 4 < HINTED_OF_FOUR || !left);
                uint32_t piece;

                if (hinted) {
                        hinted_left = draw_hinted(v, &piece);
                        if (!hinted_left)
                                continue;
                } else {
                        left = bl_ev_walk_next(&v->all, &piece);
                        if (!left || bl_ev_vm_hinted(v, piece))
                                continue;
                }
                if (in_this_round(e, v, piece))
                        continue;
                ret[n++] = piece;
                v->drawn++;
        }
        v->round_done = (!left && !hinted_left) || v->drawn >= v->n_pieces;
        *ret_done = v->round_done;
        return n;
}

/* --- forgetting ----------------------------------------------------------------------------------------- */

void bl_evidence_forget(struct bl_evidence *e, uint64_t id)
{
        struct bl_ev_vm *v = bl_ev_vm_find(e, id);

        if (v)
                bl_ev_vm_leave(e, v);
}

void bl_ev_sweep(struct bl_evidence *e, usec_t now, size_t pieces)
{
        for (size_t i = 0; i < e->n_vms && pieces > 0; i++) {
                struct bl_ev_vm *v = &e->vms[i];

                while (pieces > 0 && v->oldest != BL_EV_NONE &&
                       (bl_ev_vm_gone(v) || bl_sub_sat(now, bl_ev_piece(e, v->oldest)->looked_at) >= e->life)) {
                        bl_ev_drop_piece(e, v->oldest);
                        pieces--;
                }
        }
}
