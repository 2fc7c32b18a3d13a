// SPDX-License-Identifier: LGPL-2.1-or-later
/* What waits for a CONFIRM job. */
#include "daemon/pages/evidence_table.h"

void bl_ev_group_unschedule(struct bl_evidence *e, uint32_t group)
{
        struct bl_ev_group *g = bl_ev_group(e, group);

        if (!g->queued)
                return;
        if (g->sooner != BL_EV_NONE)
                bl_ev_group(e, g->sooner)->later = g->later;
        else
                e->due.first = g->later;
        if (g->later != BL_EV_NONE)
                bl_ev_group(e, g->later)->sooner = g->sooner;
        else
                e->due.last = g->sooner;
        g->queued = false;
}

void bl_ev_group_schedule(struct bl_evidence *e, uint32_t group, usec_t due)
{
        struct bl_ev_group *g = bl_ev_group(e, group);

        if (g->fresh == 0 || g->n < 2 || g->pages == 0) {
                bl_ev_group_unschedule(e, group);
                return;
        }
        if (g->queued)
                return;
        g->due = due;
        g->queued = true;
        g->later = BL_EV_NONE;
        g->sooner = e->due.last;
        if (e->due.last != BL_EV_NONE)
                bl_ev_group(e, e->due.last)->later = group;
        else
                e->due.first = group;
        e->due.last = group;
}

void bl_ev_frame_unschedule(struct bl_evidence *e, uint32_t frame)
{
        struct bl_ev_frame *f = bl_ev_frame(e, frame);

        if (!f->queued)
                return;
        if (f->sooner != BL_EV_NONE)
                bl_ev_frame(e, f->sooner)->later = f->later;
        else
                e->unread.first = f->later;
        if (f->later != BL_EV_NONE)
                bl_ev_frame(e, f->later)->sooner = f->sooner;
        else
                e->unread.last = f->sooner;
        f->queued = false;
}

void bl_ev_frame_schedule(struct bl_evidence *e, uint32_t frame, usec_t due)
{
        struct bl_ev_frame *f = bl_ev_frame(e, frame);

        if (f->queued)
                return;
        f->due = due;
        f->queued = true;
        f->later = BL_EV_NONE;
        f->sooner = e->unread.last;
        if (e->unread.last != BL_EV_NONE)
                bl_ev_frame(e, e->unread.last)->later = frame;
        else
                e->unread.first = frame;
        e->unread.last = frame;
}
