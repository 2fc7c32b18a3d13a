/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Does this guest run short?  A pure function of what was seen: no clock, no
 * file.
 *
 * What counts is what the guest itself uses more, its "own use": MemAvailable
 * that the balloon took is the host's doing, and no reason to ask the host.  The
 * host leaves each guest a margin above its need (policy/floor.c); the guest
 * asks as soon as it is clear that it is eating that.  A guest that the host presses
 * into the store has next to nothing available, and is not near its OOM killer as long
 * as there is room in the store.
 */
#ifndef BALLAST_GUEST_NEED_H
#define BALLAST_GUEST_NEED_H

#include <ballast/wire.h>

/* One look.  Bytes. */
struct guest_sample {
        usec_t at;
        uint64_t total;
        uint64_t available;
        uint64_t ballooned; /* BL_UNSET: not known; then the total is taken to follow the balloon */
        int64_t drift; /* how much more was available when that was counted: it is another file */
        uint64_t swap_total, swap_free; /* 0: none, or not known */
        uint64_t store_free; /* of its swap on the host's store, which is nearly as good as memory; 0: it has none */
};

#define GUEST_NEED_PAST 8U

struct guest_need {
        struct {
                usec_t at;
                int64_t use; /* own use, but for a constant */
        } past[GUEST_NEED_PAST];
        unsigned seen; /* samples so far; the newest is past[(seen - 1) % GUEST_NEED_PAST] */

        int64_t calm; /* own use when there was enough; what was used since has been eaten */
        uint64_t rate; /* bytes/s that own use grows */
        bool rising; /* by so much that it is worth looking again soon */

        bool asking; /* since it ran short, until it has enough */
        bool balloon_known;
        uint64_t urgency; /* of the last request */
        usec_t asked_at; /* when that was */
        usec_t gap; /* and how long until it is repeated */
        usec_t risen_at; /* when own use grew last */
};

void guest_need_init(struct guest_need *n);

/* False: the statistics do not say enough. */
bool guest_sample_from(const struct bl_wire_stats *s, int64_t drift, usec_t at, struct guest_sample *ret);

/*
 * Takes a sample.  True: ask the host for *ret now.  `grant` is what the host
 * said last; all may be BL_UNSET.  Is false while a request is young enough.
 */
bool guest_need_judge(struct guest_need *n, const struct guest_sample *s, const struct bl_wire_entitlement *grant,
                      struct bl_wire_request *ret);

/* A look that found free memory where it was: own use is taken to be, too. */
void guest_need_still(struct guest_need *n, usec_t now);

/* What is to be asked for at this sample; for one that has had to wait since
 * guest_need_judge. */
void guest_need_request(const struct guest_need *n, const struct guest_sample *s,
                        const struct bl_wire_entitlement *grant, struct bl_wire_request *ret);

/* What the host keeps for this guest above its need, at rest. */
uint64_t guest_need_margin(const struct guest_sample *s, const struct bl_wire_entitlement *grant);

#endif
