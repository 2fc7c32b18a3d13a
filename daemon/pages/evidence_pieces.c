// SPDX-License-Identifier: LGPL-2.1-or-later
/* Pieces: what came of looks at them, and which go when there is no more room. */
#include "daemon/pages/evidence_table.h"

static void account(struct bl_evidence *e, const struct bl_ev_piece *p, bool add)
{
        struct bl_ev_stratum *s = &e->vms[p->vm].stratum[p->stratum];
        uint64_t zeros = 0, one = add ? 1 : UINT64_MAX;

        for (unsigned k = 0; k < p->n; k++) {
                s->count[p->state[k]] += one;
                zeros += p->state[k] == BL_EV_ZERO;
        }
        s->zero_squares += one * zeros * zeros;
        s->pages += one * p->n;
        s->pieces += (uint32_t)one;
}

void bl_ev_restratify(struct bl_evidence *e, struct bl_ev_piece *p, uint8_t stratum)
{
        account(e, p, false);
        p->stratum = stratum;
        account(e, p, true);
        e->version++;
}

static void page_unlink(struct bl_evidence *e, const struct bl_ev_piece *p, bl_ev_ref page)
{
        uint8_t state = p->state[page % BL_EVIDENCE_PIECE];

        if (state == BL_EV_SEEN || state == BL_EV_HELD)
                bl_ev_content_remove(e, page);
        else if (state == BL_EV_MERGED)
                bl_ev_merged_remove(e, page);
}

/* In the VM's order of age. */
static void age_add(struct bl_evidence *e, uint32_t i)
{
        struct bl_ev_piece *p = bl_ev_piece(e, i);
        struct bl_ev_vm *v = &e->vms[p->vm];

        p->older = v->newest;
        p->newer = BL_EV_NONE;
        if (v->newest != BL_EV_NONE)
                bl_ev_piece(e, v->newest)->newer = i;
        else
                v->oldest = i;
        v->newest = i;
}

static void age_remove(struct bl_evidence *e, uint32_t i)
{
        const struct bl_ev_piece *p = bl_ev_piece(e, i);
        struct bl_ev_vm *v = &e->vms[p->vm];

        if (p->older != BL_EV_NONE)
                bl_ev_piece(e, p->older)->newer = p->newer;
        else
                v->oldest = p->newer;
        if (p->newer != BL_EV_NONE)
                bl_ev_piece(e, p->newer)->older = p->older;
        else
                v->newest = p->older;
}

void bl_ev_drop_piece(struct bl_evidence *e, uint32_t piece)
{
        struct bl_ev_piece *p = bl_ev_piece(e, piece);

        account(e, p, false);
        for (unsigned k = 0; k < p->n; k++)
                page_unlink(e, p, bl_ev_page(piece, k));
        age_remove(e, piece);
        bl_ev_chain_remove(e, bl_ev_ref_of(BL_EV_PIECE, piece));
        bl_ev_pool_give(&e->pieces, piece);
        e->version++;
}

/* The oldest of all but `keep`; false: there is none. */
static bool drop_oldest(struct bl_evidence *e, uint32_t keep)
{
        uint32_t oldest = BL_EV_NONE;

        for (size_t i = 0; i < e->n_vms; i++) {
                uint32_t o = e->vms[i].id != 0 ? e->vms[i].oldest : BL_EV_NONE;

                if (o != BL_EV_NONE && o == keep)
                        o = bl_ev_piece(e, o)->newer;
                if (o != BL_EV_NONE &&
                    (oldest == BL_EV_NONE || bl_ev_piece(e, o)->looked_at < bl_ev_piece(e, oldest)->looked_at))
                        oldest = o;
        }
        if (oldest == BL_EV_NONE)
                return false;
        bl_ev_drop_piece(e, oldest);
        return true;
}

bool bl_ev_room(struct bl_evidence *e, uint32_t keep)
{
        while (!bl_ev_pool_spare(&e->pieces, 1, &e->memory) ||
               !bl_ev_pool_spare(&e->groups, BL_EVIDENCE_PIECE, &e->memory) ||
               !bl_ev_pool_spare(&e->frames, BL_EVIDENCE_PIECE, &e->memory))
                if (!drop_oldest(e, keep))
                        return false;
        return true;
}

static uint32_t piece_new(struct bl_evidence *e, uint16_t vm, const struct bl_ev_look *look)
{
        uint32_t i = bl_ev_pool_take(&e->pieces);
        struct bl_ev_piece *p = bl_ev_piece(e, i);

        p->vm = vm;
        p->index = look->index;
        p->n = look->n;
        bl_ev_chain_add(e, bl_ev_ref_of(BL_EV_PIECE, i));
        return i;
}

enum bl_ev_sample bl_ev_sample_of(uint8_t looked)
{
        switch (looked) {
        case BL_PAGE_SWAPPED:
                return BL_EV_SWAPPED;
        case BL_PAGE_KERNEL_ZERO:
                return BL_EV_KERNEL_ZERO;
        case BL_PAGE_MERGED:
                return BL_EV_MERGED;
        case BL_PAGE_PRESENT:
                return BL_EV_SEEN;
        case BL_PAGE_UNREADABLE:
                return BL_EV_UNREADABLE;
        case BL_EV_LOOK_ZERO:
                return BL_EV_ZERO;
        case BL_EV_LOOK_FAILED:
                return BL_EV_UNKNOWN;
        default:
                return BL_EV_ABSENT;
        }
}

bool bl_ev_store(struct bl_evidence *e, uint16_t vm, const struct bl_ev_look *look, usec_t now)
{
        uint32_t i = bl_ev_find_piece(e, vm, look->index);
        struct bl_ev_piece *p;

        if (!bl_ev_room(e, i))
                return false;
        if (i == BL_EV_NONE) {
                i = piece_new(e, vm, look);
                p = bl_ev_piece(e, i);
        } else {
                p = bl_ev_piece(e, i);
                account(e, p, false);
                age_remove(e, i);
        }
        p->stratum = bl_ev_vm_hinted(&e->vms[vm], look->index);
        p->round = e->vms[vm].round;
        p->looked_at = now;
        for (unsigned k = 0; k < p->n; k++) {
                enum bl_ev_sample s = bl_ev_sample_of(look->state[k]);
                bool same = (p->state[k] == s || (p->state[k] == BL_EV_HELD && s == BL_EV_SEEN)) &&
                            p->what[k] == look->what[k];

                /* what held, and is found as it was, needs no other second look */
                if (same)
                        continue;
                page_unlink(e, p, bl_ev_page(i, k));
                p->state[k] = (uint8_t)s;
                p->what[k] = look->what[k];
                if (s == BL_EV_SEEN)
                        bl_ev_content_add(e, bl_ev_page(i, k), now);
                else if (s == BL_EV_MERGED)
                        bl_ev_merged_add(e, bl_ev_page(i, k), now);
        }
        account(e, p, true);
        age_add(e, i);
        e->version++;
        return true;
}

void bl_ev_page_held(struct bl_evidence *e, bl_ev_ref page, uint8_t class)
{
        unsigned k;
        struct bl_ev_piece *p = bl_ev_piece_of(e, page, &k);
        uint64_t *count = e->vms[p->vm].stratum[p->stratum].count;
        bl_ev_ref r = bl_ev_find_content(e, p->what[k]);

        if (bl_ev_kind(r) == BL_EV_GROUP)
                bl_ev_group(e, r & BL_EV_INDEX)->fresh--;
        p->state[k] = BL_EV_HELD;
        p->class[k] = class;
        count[BL_EV_SEEN]--;
        count[BL_EV_HELD]++;
        e->version++;
}

void bl_ev_page_is(struct bl_evidence *e, bl_ev_ref page, enum bl_ev_sample state)
{
        unsigned k;
        struct bl_ev_piece *p = bl_ev_piece_of(e, page, &k);
        uint64_t *count = e->vms[p->vm].stratum[p->stratum].count;

        page_unlink(e, p, page);
        count[p->state[k]]--;
        count[state]++;
        p->state[k] = (uint8_t)state;
        p->what[k] = 0;
        e->version++;
}

bool bl_ev_page_merged(struct bl_evidence *e, bl_ev_ref page, uint64_t frame, usec_t now)
{
        unsigned k;
        struct bl_ev_piece *p = bl_ev_piece_of(e, page, &k);

        if (!bl_ev_pool_spare(&e->frames, 1, &e->memory))
                return false;
        bl_ev_page_is(e, page, BL_EV_MERGED);
        p->what[k] = frame;
        bl_ev_merged_add(e, page, now);
        return true;
}
