// SPDX-License-Identifier: LGPL-2.1-or-later
/* Pages of one content, and pages that map one frame. */
#include "daemon/pages/evidence_table.h"

static bool fresh(const struct bl_evidence *e, bl_ev_ref member)
{
        unsigned k;
        const struct bl_ev_piece *p;

        if (bl_ev_kind(member) == BL_EV_FRAME)
                return bl_ev_frame(e, member & BL_EV_INDEX)->class == 0;
        p = bl_ev_piece_of(e, member, &k);
        return p->state[k] == BL_EV_SEEN;
}

static void member_add(struct bl_evidence *e, struct bl_ev_group *g, bl_ev_ref r)
{
        bl_ev_list_add(e, &g->members, r);
        g->n++;
        g->fresh += fresh(e, r);
        if (bl_ev_kind(r) == BL_EV_PAGE) {
                g->pages++;
                e->members++;
        }
}

/* The group of a hash, of which `r` is what there is so far: a single page becomes its first member. */
static uint32_t group_get(struct bl_evidence *e, bl_ev_ref r, uint64_t hash)
{
        struct bl_ev_group *g;
        uint32_t i;

        if (r != BL_EV_NONE && bl_ev_kind(r) == BL_EV_GROUP)
                return r & BL_EV_INDEX;
        i = bl_ev_pool_take(&e->groups);
        g = bl_ev_group(e, i);
        *g = (struct bl_ev_group){.hash = hash, .members = BL_EV_NONE, .sooner = BL_EV_NONE, .later = BL_EV_NONE};
        if (r != BL_EV_NONE) {
                unsigned k;
                struct bl_ev_piece *p = bl_ev_piece_of(e, r, &k);

                bl_ev_chain_remove(e, r);
                if (p->state[k] == BL_EV_HELD)
                        g->classes = p->class[k] = 1;
                member_add(e, g, r);
        }
        bl_ev_chain_add(e, bl_ev_ref_of(BL_EV_GROUP, i));
        return i;
}

static void member_remove(struct bl_evidence *e, uint32_t group, bl_ev_ref r)
{
        struct bl_ev_group *g = bl_ev_group(e, group);
        bl_ev_ref last;

        bl_ev_list_remove(e, &g->members, r);
        g->n--;
        g->fresh -= fresh(e, r);
        if (bl_ev_kind(r) == BL_EV_PAGE) {
                g->pages--;
                e->members--;
        }
        last = g->members;
        if (g->n > 1 || (g->n == 1 && bl_ev_kind(last) == BL_EV_FRAME)) {
                if (g->fresh == 0 || g->n == 1 || g->pages == 0)
                        bl_ev_group_unschedule(e, group);
                return;
        }
        bl_ev_group_unschedule(e, group);
        bl_ev_chain_remove(e, bl_ev_ref_of(BL_EV_GROUP, group));
        bl_ev_pool_give(&e->groups, group);
        if (last != BL_EV_NONE) {
                e->members--;
                bl_ev_chain_add(e, last);
        }
}

void bl_ev_content_add(struct bl_evidence *e, bl_ev_ref page, usec_t now)
{
        unsigned k;
        const struct bl_ev_piece *p = bl_ev_piece_of(e, page, &k);
        bl_ev_ref r = bl_ev_find_content(e, p->what[k]);
        uint32_t g;

        if (r == BL_EV_NONE) {
                bl_ev_chain_add(e, page);
                return;
        }
        g = group_get(e, r, p->what[k]);
        member_add(e, bl_ev_group(e, g), page);
        bl_ev_group_schedule(e, g, now + e->settle);
}

void bl_ev_content_remove(struct bl_evidence *e, bl_ev_ref page)
{
        unsigned k;
        const struct bl_ev_piece *p = bl_ev_piece_of(e, page, &k);
        bl_ev_ref r = bl_ev_find_content(e, p->what[k]);

        if (bl_ev_kind(r) == BL_EV_GROUP)
                member_remove(e, r & BL_EV_INDEX, page);
        else
                bl_ev_chain_remove(e, page);
}

/* --- frames ------------------------------------------------------------------------------------ */

static void frame_leave_group(struct bl_evidence *e, uint32_t i)
{
        struct bl_ev_frame *f = bl_ev_frame(e, i);

        if (!f->known)
                return;
        member_remove(e, bl_ev_find_content(e, f->hash) & BL_EV_INDEX, bl_ev_ref_of(BL_EV_FRAME, i));
        f->known = false;
        f->class = 0;
}

void bl_ev_merged_add(struct bl_evidence *e, bl_ev_ref page, usec_t now)
{
        unsigned k;
        const struct bl_ev_piece *p = bl_ev_piece_of(e, page, &k);
        uint32_t i = bl_ev_find_frame(e, p->what[k]);
        struct bl_ev_frame *f;

        if (i == BL_EV_NONE) {
                i = bl_ev_pool_take(&e->frames);
                f = bl_ev_frame(e, i);
                *f = (struct bl_ev_frame){.frame = p->what[k], .pages = BL_EV_NONE};
                f->sooner = f->later = BL_EV_NONE;
                bl_ev_chain_add(e, bl_ev_ref_of(BL_EV_FRAME, i));
                bl_ev_frame_schedule(e, i, now);
        } else {
                f = bl_ev_frame(e, i);
                /* the kernel may have given the frame to another content since */
                if (f->known && now - f->read_at >= e->life)
                        bl_ev_frame_schedule(e, i, now);
        }
        bl_ev_list_add(e, &f->pages, page);
        f->n++;
}

void bl_ev_merged_remove(struct bl_evidence *e, bl_ev_ref page)
{
        unsigned k;
        const struct bl_ev_piece *p = bl_ev_piece_of(e, page, &k);
        uint32_t i = bl_ev_find_frame(e, p->what[k]);
        struct bl_ev_frame *f = bl_ev_frame(e, i);

        bl_ev_list_remove(e, &f->pages, page);
        if (--f->n > 0)
                return;
        frame_leave_group(e, i);
        bl_ev_frame_unschedule(e, i);
        bl_ev_chain_remove(e, bl_ev_ref_of(BL_EV_FRAME, i));
        bl_ev_pool_give(&e->frames, i);
}

bool bl_ev_frame_known(struct bl_evidence *e, uint32_t frame, uint64_t hash, usec_t now)
{
        struct bl_ev_frame *f = bl_ev_frame(e, frame);
        uint32_t g;

        if (!bl_ev_pool_spare(&e->groups, 1, &e->memory))
                return false;
        bl_ev_frame_unschedule(e, frame);
        f->read_at = now;
        if (f->known && f->hash == hash)
                return true;
        frame_leave_group(e, frame);
        f->hash = hash;
        f->known = true;
        g = group_get(e, bl_ev_find_content(e, hash), hash);
        member_add(e, bl_ev_group(e, g), bl_ev_ref_of(BL_EV_FRAME, frame));
        bl_ev_group_schedule(e, g, now + e->settle);
        return true;
}

void bl_ev_frame_class(struct bl_evidence *e, uint32_t frame, uint8_t class)
{
        struct bl_ev_frame *f = bl_ev_frame(e, frame);

        if (f->class == 0)
                bl_ev_group(e, bl_ev_find_content(e, f->hash) & BL_EV_INDEX)->fresh--;
        f->class = class;
        e->version++;
}
