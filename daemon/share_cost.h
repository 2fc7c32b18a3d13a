/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What ksmd costs, learned while it runs, a pass at a time.  Pure.  Its time is taken to be scanned * scan + merged *
 * merge; passes in which next to nothing was merged tell the first, the others the second.
 */
#ifndef BALLAST_DAEMON_SHARE_COST_H
#define BALLAST_DAEMON_SHARE_COST_H

#include <ballast/units.h>

struct bl_share_cost {
        uint32_t scan, merge; /* nanoseconds a page */
        /* the stretch under way */
        bool begun;
        usec_t cpu;
        uint64_t scanned, merged;
};

void bl_share_cost_init(struct bl_share_cost *c);
/* Cumulative figures of ksmd at a moment while it runs: CPU time, pages scanned (that were not merged yet), pages
 * merged (of those there are now, so a fall counts as none). */
void bl_share_cost_see(struct bl_share_cost *c, usec_t cpu, uint64_t scanned, uint64_t merged);
/* It rests: what follows is another stretch. */
void bl_share_cost_rest(struct bl_share_cost *c);

#endif
