/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The stable names of states and reasons. An id never changes its meaning. */
#include <ballast/plan.h>

static const char *const states[_BL_STATE_MAX] = {
        [BL_STATE_HIGH] = "high", [BL_STATE_CLEAR] = "clear", [BL_STATE_SOFT] = "soft",
        [BL_STATE_HARD] = "hard", [BL_STATE_LOW] = "low",
};

static const char *const reasons[_BL_WHY_MAX] = {
        [BL_WHY_NOTHING] = "ok.enough",
        [BL_WHY_DEAD_BAND] = "ok.dead-band",
        [BL_WHY_SETTLING] = "ok.settling",
        [BL_WHY_IN_FLIGHT] = "ok.moving",
        [BL_WHY_TAKE_SOFT] = "take.host-soft",
        [BL_WHY_TAKE_HARD] = "take.host-hard",
        [BL_WHY_TAKE_LOW] = "take.host-low",
        [BL_WHY_TAKE_LEAD] = "take.growth",
        [BL_WHY_TAKE_PSI] = "take.psi",
        [BL_WHY_TAKE_FOR_OTHER] = "take.for-other",
        [BL_WHY_TAKE_LIMIT] = "take.limit",
        [BL_WHY_GRANT_NEED] = "grant.need",
        [BL_WHY_GRANT_RESERVED] = "grant.reservation",
        [BL_WHY_GRANT_REST] = "grant.rest",
        [BL_WHY_WAIT_FREE] = "wait.free",
        [BL_WHY_PARK_STUCK] = "park.stuck",
        [BL_WHY_SKIP_FLOOR] = "skip.floor",
        [BL_WHY_SKIP_STUCK] = "skip.stuck",
        [BL_WHY_SKIP_LYING] = "skip.lying",
        [BL_WHY_SKIP_STATS] = "skip.stats-missing",
        [BL_WHY_SKIP_ABSURD] = "skip.stats-absurd",
        [BL_WHY_SKIP_STALE] = "skip.stats-stale",
        [BL_WHY_SKIP_HELD] = "skip.held",
        [BL_WHY_SKIP_UNMANAGED] = "skip.unmanaged",
        [BL_WHY_SKIP_RECLAIM] = "skip.not-reclaimable",
        [BL_WHY_SKIP_PAUSED] = "skip.paused",
        [BL_WHY_SKIP_MIGRATING] = "skip.migrating",
        [BL_WHY_SKIP_HUNG] = "skip.hung",
        [BL_WHY_SKIP_BOOTING] = "skip.booting",
        [BL_WHY_GRANT_REQUEST] = "grant.request",
        [BL_WHY_STOP_REQUEST] = "stop.request",
        [BL_WHY_SKIP_ASKS] = "skip.asks",
        [BL_WHY_SKIP_ASKS_IDLY] = "skip.asks-idly",
        [BL_WHY_TAKE_PAGEOUT] = "take.pageout",
        [BL_WHY_TAKE_IDLE] = "take.idle",
        [BL_WHY_GRANT_THRASH] = "grant.thrash",
        [BL_WHY_SKIP_STORE_FULL] = "skip.store-full",
        [BL_WHY_SKIP_STORE_SLOW] = "skip.store-slow",
        [BL_WHY_SKIP_INCOMPRESSIBLE] = "skip.incompressible",
        [BL_WHY_SKIP_REFAULTS] = "skip.refaults",
        [BL_WHY_SKIP_DRAINING] = "skip.draining",
        [BL_WHY_STOP_STORE] = "stop.store",
        [BL_WHY_SHARE_OFF] = "share.off",
        [BL_WHY_SHARE_MERGE] = "share.merge",
        [BL_WHY_SHARE_KEEP] = "share.keep",
        [BL_WHY_SHARE_LEAVE] = "share.leave",
        [BL_WHY_SHARE_WAIT_ROOM] = "share.wait-room",
        [BL_WHY_SHARE_WAIT_BALLOON] = "share.wait-balloon",
        [BL_WHY_SHARE_WAIT_EVIDENCE] = "share.wait-evidence",
        [BL_WHY_SHARE_WAIT_TURN] = "share.wait-turn",
        [BL_WHY_SHARE_NO_GAIN] = "share.no-gain",
        [BL_WHY_SHARE_NOT_POSSIBLE] = "share.not-possible",
        [BL_WHY_SHARE_YIELDED] = "share.yielded",
        [BL_WHY_SHARE_DRIVE] = "share.drive",
        [BL_WHY_SHARE_DRIVE_NEW] = "share.drive-new",
        [BL_WHY_SHARE_REST] = "share.rest",
        [BL_WHY_SHARE_REST_NONE] = "share.rest-none",
        [BL_WHY_SHARE_ZERO] = "share.zero",
        [BL_WHY_SHARE_BLOCKED] = "share.blocked",
        [BL_WHY_SHARE_BREAKING] = "share.breaking",
        [BL_WHY_TAKE_UNMERGE] = "take.unmerge",
};

static const char *const holds[_BL_HOLD_MAX] = {
        [BL_HOLD_NONE] = "none",
        [BL_HOLD_HAND] = "hand",
        [BL_HOLD_ADMIN] = "admin",
        [BL_HOLD_MANUAL] = "manual",
};

static const char *const no_reclaims[_BL_RECLAIM_MAX] = {
        [BL_RECLAIM_OK] = "ok",         [BL_RECLAIM_NO_BALLOON] = "no-balloon",
        [BL_RECLAIM_VFIO] = "vfio",     [BL_RECLAIM_HUGEPAGES] = "hugepages",
        [BL_RECLAIM_LOCKED] = "locked", [BL_RECLAIM_CONFIDENTIAL] = "confidential",
};

static const char *const share_modes[_BL_SHARE_MODE_MAX] = {
        [BL_SHARE_OFF] = "off",
        [BL_SHARE_ZERO] = "zero",
        [BL_SHARE_GROUP] = "group",
};

static const char *const no_shares[_BL_NO_SHARE_MAX] = {
        [BL_NO_SHARE_OK] = "ok",
        [BL_NO_SHARE_HOST] = "host",
        [BL_NO_SHARE_NO_GROUP] = "no-group",
        [BL_NO_SHARE_OTHER_GROUP] = "other-group",
        [BL_NO_SHARE_TWO_GROUPS] = "two-groups",
        [BL_NO_SHARE_XML] = "xml",
        [BL_NO_SHARE_SHARED] = "shared-memory",
        [BL_NO_SHARE_HUGEPAGES] = "hugepages",
        [BL_NO_SHARE_PINNED] = "pinned",
        [BL_NO_SHARE_BACKEND] = "no-backend",
        [BL_NO_SHARE_NO_SWAP] = "no-swap",
};

static const char *name(const char *const *names, unsigned n, unsigned i)
{
        return i < n && names[i] ? names[i] : "?";
}

const char *bl_state_to_string(enum bl_host_state s)
{
        return name(states, _BL_STATE_MAX, s);
}

const char *bl_reason_to_string(enum bl_reason r)
{
        return name(reasons, _BL_WHY_MAX, r);
}

const char *bl_hold_to_string(enum bl_hold h)
{
        return name(holds, _BL_HOLD_MAX, h);
}

const char *bl_no_reclaim_to_string(enum bl_no_reclaim r)
{
        return name(no_reclaims, _BL_RECLAIM_MAX, r);
}

const char *bl_no_reclaim_explain(enum bl_no_reclaim r)
{
        switch (r) {
        case BL_RECLAIM_OK:
                return "it can";
        case BL_RECLAIM_NO_BALLOON:
                return "it has no virtio balloon device ('ballastctl enroll' shows what it needs)";
        case BL_RECLAIM_VFIO:
                return "a passed-through device pins all of its memory";
        case BL_RECLAIM_HUGEPAGES:
                return "its memory is in huge pages, of which a balloon frees none";
        case BL_RECLAIM_LOCKED:
                return "its memory is locked";
        case BL_RECLAIM_CONFIDENTIAL:
                return "its memory is encrypted and pinned";
        case _BL_RECLAIM_MAX:
                break;
        }
        return "unknown";
}

const char *bl_share_mode_to_string(enum bl_share_mode m)
{
        return name(share_modes, _BL_SHARE_MODE_MAX, m);
}

const char *bl_no_share_to_string(enum bl_no_share n)
{
        return name(no_shares, _BL_NO_SHARE_MAX, n);
}

const char *bl_no_share_explain(enum bl_no_share n)
{
        switch (n) {
        case BL_NO_SHARE_OK:
                return "it can";
        case BL_NO_SHARE_HOST:
                return "the host allows less than it asks for (Mode= of [Sharing] in ballast.conf)";
        case BL_NO_SHARE_NO_GROUP:
                return "it asks to be merged with its trust group and names none (group= in its metadata, or "
                       "DefaultGroup= in ballast.conf)";
        case BL_NO_SHARE_OTHER_GROUP:
                return "its trust group is not the one that KSM serves (Group= in ballast.conf)";
        case BL_NO_SHARE_TWO_GROUPS:
                return "VMs of two trust groups ask, and KSM can serve one only (name it by Group= in ballast.conf)";
        case BL_NO_SHARE_XML:
                return "<nosharepages/> in its XML forbids it";
        case BL_NO_SHARE_SHARED:
                return "its memory is a shared mapping, which the kernel does not merge (<access mode='private'/> in "
                       "its XML)";
        case BL_NO_SHARE_HUGEPAGES:
                return "its memory is in huge pages of hugetlbfs, which the kernel does not merge";
        case BL_NO_SHARE_PINNED:
                return "its memory is pinned by a passed-through device, locked or encrypted";
        case BL_NO_SHARE_BACKEND:
                return "its QEMU has no memory backend whose merging could be switched (QEMU 5.0 or later, and a new "
                       "machine type)";
        case BL_NO_SHARE_NO_SWAP:
                return "the host has no swap, which pages of zeros need to go out ('ballastctl tiers setup' makes one)";
        case _BL_NO_SHARE_MAX:
                break;
        }
        return "unknown";
}
