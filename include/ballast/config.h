/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Settings that the policy reads.  Where they come from (ballast.conf, its
 * drop-ins) is the daemon's business: daemon/conf.h.
 */
#ifndef BALLAST_CONFIG_H
#define BALLAST_CONFIG_H

#include <ballast/units.h>

struct bl_policy_config {
        uint64_t min_free; /* bytes; BL_UNSET: ESX's sliding scale of the budget */
        permyriad_t idle_tax; /* Waldspurger 2002, section 5.3; ESX ships 7500 */
        uint64_t guest_margin; /* bytes left above a guest's need, at least */
        permyriad_t guest_margin_ratio; /* and at least this part of its need */
        uint64_t dead_band; /* bytes; smaller corrections are not worth a command */
        usec_t stuck_after; /* no progress for this long: stuck */
        usec_t retry_first; /* first retry of a stuck guest; doubles */
        usec_t retry_max;
        usec_t settle; /* after a command, a VM is not turned round within this time */
        uint64_t first_speed; /* bytes/s that a guest is taken to give before it was seen to */
        usec_t horizon; /* a guest is asked for what it gives within this time, the rest comes from others */
        usec_t lead_min; /* growth is met at least this far ahead */
        usec_t lead_max; /* and at most this far */
        usec_t lying_after; /* it says it gave, and the host has seen nothing for this long */
        usec_t request_life; /* what a guest's agent asked for is forgotten after this */
        usec_t stop_hold; /* nothing is taken for this much longer from one that was near its OOM killer */
        usec_t idle_asker_after; /* it asks, and has not used what it got, for this long */
        permyriad_t worth_ratio; /* a VM whose last swapped pages shrank to no less than this is not pressed into the
                                    store */
        usec_t idle_after; /* a VM that did nothing for so long may be paged out ahead of pressure; 0: none ever is */
        usec_t deaf_first; /* it is not heard then; doubles, up to retry_max */
        uint64_t share_pays; /* bytes that a CPU-second of ksmd has to free at least */
        uint64_t share_wake; /* bytes of new duplicates that are worth waking ksmd */
        permyriad_t share_reserve; /* part of what breaking apart could cost that is kept free */

        /* Safety mechanisms off: tests only, never set from a file.  Each has
         * a scenario in tests/sim that fails when it is set. */
        struct {
                bool no_two_phase;
                bool no_stuck_detection;
                bool no_floors;
                bool no_hysteresis;
                bool no_stale_check;
                bool no_requests; /* nobody is heard */
                bool no_reserve; /* the part of the host that is kept free is kept from those that ask, too */
                bool no_turn_back; /* one that asks is given to, but what is being taken from it is taken */
                bool no_idle_askers; /* everybody is heard for ever */
                bool no_store_room; /* swap counts as room whatever is behind it */
                bool no_thrash_check; /* what a guest reads back counts for nothing */
                bool no_share_rest; /* ksmd is never stopped */
                bool no_share_reserve; /* nothing is kept free for merged pages that break apart */
                bool no_share_room; /* un-merging is never too dear */
        } test;
};

/* The shipped values, each with its reason in policy/defaults.c. */
void bl_policy_config_default(struct bl_policy_config *ret);

#endif
