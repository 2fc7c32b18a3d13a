/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which sampled pages have copies among the VMs of a trust group, as far as the sample shows it.
 *
 * Only groups of equal pages are walked, not the pages that are like no other: of those the number is enough.  Where
 * there are very many, only contents are whose hash falls into 1/2^shift of the hash space, all copies of a content
 * together; they then stand for 2^shift as many.  Contents with hundreds of copies are counted all the same.
 */
#ifndef BALLAST_PAGES_EVIDENCE_COUNT_H
#define BALLAST_PAGES_EVIDENCE_COUNT_H

#include "daemon/pages/evidence_estimate.h"
#include "daemon/pages/evidence_table.h"

enum { BL_EV_APART, BL_EV_WITH_MERGED, BL_EV_TYPES };

/* Pages of one VM and stratum, of which no copy is merged, or one is.  Copies are pieces that have the content: pages
 * of one piece are sampled together, so all but one of them are surplus whatever else there is. */
struct bl_ev_alike {
        struct bl_ev_seen by;
        struct bl_ev_fit fit;
        uint32_t matched, few; /* pages; those with less than BL_EV_COPIES, of which all else here is */
        uint32_t inside; /* with a copy in this VM */
        double copies, behind; /* seen, and, by the fractions that were sampled where they lie, there */
        /* over pieces, of p pages with c copies seen together: sums of p^2, c, c^2, p c */
        double pages2, copies1, copies2, both;
};

struct bl_ev_layer {
        double scale; /* pieces that there are for each that was sampled; 0: none was */
        struct bl_ev_alike type[BL_EV_TYPES];
        double sum, squares, heaviest; /* weights of pieces */
        double with_many, many_squares; /* pages of large groups, which need no estimate; over pieces, their squares */
        uint32_t mark, here; /* pieces that have the content at hand, if it has that mark */
};

struct bl_ev_member {
        const struct bl_ev_vm *vm; /* NULL: not known */
        struct bl_ev_layer layer[BL_EV_STRATA];
};

/* Kept between counts. */
struct bl_ev_scratch {
        uint32_t *touched; /* pieces that have copies, or are copies */
        size_t room;
        uint32_t serial, mark; /* of a count; of a content in it: what bl_ev_piece.touched and .mark are of */
};

struct bl_ev_count {
        const struct bl_evidence *e;
        struct bl_ev_scratch *scratch;
        struct bl_ev_member *members;
        int32_t *member_of; /* by slot; -1: not of the group */
        size_t n, n_touched;
        unsigned shift;
        bool large; /* large groups are counted apart, all of them */
        double fraction; /* of all pages of the group that are sampled */
};

static inline uint32_t bl_ev_layer_pieces(const struct bl_ev_vm *v, unsigned stratum)
{
        return stratum == 1 ? v->n_hinted : v->n_pieces - v->n_hinted;
}

/* -ENOMEM.  To be freed with bl_ev_count_done in any case. */
int bl_ev_count(const struct bl_evidence *e, const uint64_t *ids, size_t n, struct bl_ev_scratch *scratch,
                struct bl_ev_count *ret);
void bl_ev_count_done(struct bl_ev_count *c);

/* The sums over pieces that need the fits. */
void bl_ev_count_weigh(struct bl_ev_count *c);

#endif
