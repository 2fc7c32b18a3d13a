/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the policy wants done, and why.  One decision per VM of the snapshot,
 * in the snapshot's order; each carries a stable reason id, so that an
 * administrator can search for it, and the figures that led to it.
 */
#ifndef BALLAST_PLAN_H
#define BALLAST_PLAN_H

#include <stddef.h>

#include <ballast/engine-id.h>
#include <ballast/snapshot.h>
#include <ballast/units.h>

/* ESX's ladder.  A state is entered when free memory falls below its mark and
 * left upwards when free reaches the mark of the state above. */
enum bl_host_state {
        BL_STATE_HIGH,
        BL_STATE_CLEAR,
        BL_STATE_SOFT,
        BL_STATE_HARD,
        BL_STATE_LOW,
        _BL_STATE_MAX,
};

/* Stable ids, shown as strings ("take.host-soft"); never renumbered in
 * meaning, only added to.  policy/reason.c holds the strings. */
enum bl_reason {
        BL_WHY_NOTHING, /* ok.enough: nothing to do */
        BL_WHY_DEAD_BAND, /* ok.dead-band: the change is not worth a command */
        BL_WHY_SETTLING, /* ok.settling: it was told something a moment ago */
        BL_WHY_IN_FLIGHT, /* ok.moving: it is on its way to its target */
        BL_WHY_TAKE_SOFT, /* take.host-soft: host below soft */
        BL_WHY_TAKE_HARD, /* take.host-hard */
        BL_WHY_TAKE_LOW, /* take.host-low */
        BL_WHY_TAKE_LEAD, /* take.growth: still clear, but soft comes before the guests could give */
        BL_WHY_TAKE_PSI, /* take.psi: the kernel reports memory stalls */
        BL_WHY_TAKE_FOR_OTHER, /* take.for-other: another VM needs it more */
        BL_WHY_TAKE_LIMIT, /* take.limit: it is above its own limit */
        BL_WHY_GRANT_NEED, /* grant.need: its own memory is short */
        BL_WHY_GRANT_RESERVED, /* grant.reservation: it is below its reservation */
        BL_WHY_GRANT_REST, /* grant.rest: the host has memory to spare */
        BL_WHY_WAIT_FREE, /* wait.free: it is due memory, which is not free yet */
        BL_WHY_PARK_STUCK, /* park.stuck: target put back to where it stopped */
        BL_WHY_SKIP_FLOOR, /* skip.floor: at what it needs itself */
        BL_WHY_SKIP_STUCK, /* skip.stuck: it does not follow */
        BL_WHY_SKIP_LYING, /* skip.lying: it says it gave, the host saw nothing */
        BL_WHY_SKIP_STATS, /* skip.stats-missing */
        BL_WHY_SKIP_ABSURD, /* skip.stats-absurd */
        BL_WHY_SKIP_STALE, /* skip.stats-stale */
        BL_WHY_SKIP_HELD, /* skip.held */
        BL_WHY_SKIP_UNMANAGED, /* skip.unmanaged */
        BL_WHY_SKIP_RECLAIM, /* skip.not-reclaimable */
        BL_WHY_SKIP_PAUSED, /* skip.paused */
        BL_WHY_SKIP_MIGRATING, /* skip.migrating */
        BL_WHY_SKIP_HUNG, /* skip.hung */
        BL_WHY_SKIP_BOOTING, /* skip.booting: its balloon driver has not been seen yet */
        BL_WHY_GRANT_REQUEST, /* grant.request: its agent asks for it */
        BL_WHY_STOP_REQUEST, /* stop.request: its agent asks for memory while some is being taken from it */
        BL_WHY_SKIP_ASKS, /* skip.asks: its agent asks for memory */
        BL_WHY_SKIP_ASKS_IDLY, /* skip.asks-idly: its agent asks, and it does not use what it gets */
        BL_WHY_TAKE_PAGEOUT, /* take.pageout: the host's kernel is to page its coldest memory out */
        BL_WHY_TAKE_IDLE, /* take.idle: it is proven idle; its cold memory goes ahead of pressure */
        BL_WHY_GRANT_THRASH, /* grant.thrash: it reads back what was pressed out of it */
        BL_WHY_SKIP_STORE_FULL, /* skip.store-full: it would have to swap, and the store has no room */
        BL_WHY_SKIP_STORE_SLOW, /* skip.store-slow: the same, and the store does not keep up */
        BL_WHY_SKIP_INCOMPRESSIBLE, /* skip.incompressible: what it swaps does not shrink */
        BL_WHY_SKIP_REFAULTS, /* skip.refaults: it read back what was paged out */
        BL_WHY_SKIP_DRAINING, /* skip.draining: what the store holds of it is being brought back */
        BL_WHY_STOP_STORE, /* stop.store: the store takes no more of what it was told to give */
        BL_WHY_SHARE_OFF, /* share.off: it is not to be merged */
        BL_WHY_SHARE_MERGE, /* share.merge: its duplicates pay */
        BL_WHY_SHARE_KEEP, /* share.keep: merged, and pays */
        BL_WHY_SHARE_LEAVE, /* share.leave: registered, and pays no more; or not in the group any more */
        BL_WHY_SHARE_WAIT_ROOM, /* share.wait-room: it is to be un-merged, which the host cannot afford now */
        BL_WHY_SHARE_WAIT_BALLOON, /* share.wait-balloon: part of it is about to be ballooned away */
        BL_WHY_SHARE_WAIT_EVIDENCE, /* share.wait-evidence: not enough of it was looked at */
        BL_WHY_SHARE_WAIT_TURN, /* share.wait-turn: denser ones come first */
        BL_WHY_SHARE_NO_GAIN, /* share.no-gain: too little of it has copies */
        BL_WHY_SHARE_NOT_POSSIBLE, /* share.not-possible: bl_no_share says why */
        BL_WHY_SHARE_YIELDED, /* share.yielded: somebody else drives KSM */
        BL_WHY_SHARE_DRIVE, /* share.drive: ksmd runs: there are duplicates that pay */
        BL_WHY_SHARE_DRIVE_NEW, /* share.drive-new: a VM has come */
        BL_WHY_SHARE_REST, /* share.rest: ksmd rests: the last pass did not pay */
        BL_WHY_SHARE_REST_NONE, /* share.rest-none: there is nothing to merge */
        BL_WHY_SHARE_ZERO, /* share.zero: its zero pages go out */
        BL_WHY_SHARE_BLOCKED, /* share.blocked: a VM that must not be merged is registered, or that is not known */
        BL_WHY_SHARE_BREAKING, /* share.breaking: what is merged breaks apart faster than it is worth merging */
        BL_WHY_TAKE_UNMERGE, /* take.unmerge: merged memory of another VM is to be taken apart, and needs room */
        _BL_WHY_MAX,
};

struct bl_marks {
        uint64_t min_free;
        uint64_t mark[_BL_STATE_MAX]; /* [HIGH] = 4x, [CLEAR] = 1x, 0.64x, 0.32x, 0.16x */
};

struct bl_decision {
        enum bl_engine_id engine;
        enum bl_reason why;
        bool act; /* false: leave it, `why` says why */
        bool stuck;
        bool lying;
        bool asked; /* `due` is what its agent asks for, not what its figures say */
        uint64_t from; /* balloon when decided: what one more look must still find; of BL_ENGINE_PAGEOUT what is
                          resident */
        uint64_t to; /* new balloon target; of BL_ENGINE_PAGEOUT `from` less what is to be paged out */
        uint64_t floor; /* least that this guest needs by its own figures; `from` where those are not good */
        uint64_t swaps; /* of the floor, what it is to swap into the store: `to` is below by so much */
        uint64_t want; /* what it would have with memory to spare */
        uint64_t due; /* bytes that it is short of and entitled to; 0: not short */
        uint64_t speed; /* bytes/s that it was seen to give */
        usec_t retry_at; /* when a stuck one is asked again; 0: not stuck */
        usec_t deaf_until; /* its requests count for nothing until then; 0: they count */
};

/* What is to be done about equal pages of a VM; beside what is done about its balloon. */
struct bl_share_decision {
        bool act; /* false: leave it, `why` says why */
        bool merge; /* with `act`: what its `merge` property is to be */
        enum bl_reason why;
        uint64_t zero_out; /* bytes of zero pages that are to go out (mode zero); 0: none */
};

struct bl_share_plan {
        bool drive; /* ksmd is to run; else to rest.  Counts only where the snapshot's share.usable is set */
        enum bl_reason why;
        uint64_t gain; /* bytes that the drive is to merge still, estimated; 0: none */
        uint64_t reserve; /* bytes kept free for pages that break apart; part of the marks */
        struct bl_share_decision *d; /* as many as the plan has, same order */
};

struct bl_plan {
        usec_t at;
        enum bl_host_state state;
        enum bl_host_state state_before;
        struct bl_marks marks;
        uint64_t lead; /* bytes by which the mark leads, for growth */
        uint64_t goal; /* free memory that reclaim works towards, and that no grant may touch */
        uint64_t promised; /* bytes of free memory that guests were granted and have not used yet */
        uint64_t shortfall; /* bytes to be freed to reach the goal, before what is already on its way */
        uint64_t coming; /* bytes on their way from earlier commands */
        uint64_t unmet; /* of the shortfall, what no guest can give */
        uint64_t pool_to; /* bytes of its pool that the store is to have ready; 0: as it is */
        size_t n;
        struct bl_decision *d; /* as many as the snapshot has VMs, same order */
        struct bl_share_plan share;
};

/* Frees the decisions; NULL-safe; returns NULL. */
struct bl_plan *bl_plan_clear(struct bl_plan *p);

const char *bl_state_to_string(enum bl_host_state s);
const char *bl_reason_to_string(enum bl_reason r);
const char *bl_hold_to_string(enum bl_hold h);
const char *bl_share_mode_to_string(enum bl_share_mode m);
const char *bl_no_share_to_string(enum bl_no_share n);
/* The same for people, with what mends it: "its trust group is not the one that KSM serves (Group= in ballast.conf)".
 */
const char *bl_no_share_explain(enum bl_no_share n);
const char *bl_no_reclaim_to_string(enum bl_no_reclaim r);
/* The same for people: "it has no virtio balloon device". */
const char *bl_no_reclaim_explain(enum bl_no_reclaim r);

#endif
