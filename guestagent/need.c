/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stddef.h>
#include <string.h>

#include "guestagent/need.h"

/* policy/defaults.c, guest_margin and guest_margin_ratio */
#define MARGIN       (64 * BL_MIB)
#define MARGIN_RATIO 1000U

#define LARGEST (UINT64_C(1) << 56) /* so that sums of them fit int64_t */

/* Over which own use is measured, and by how much it grows in it at least where
 * somebody allocates in earnest: 80 MiB/s. */
#define WINDOW (100 * BL_MSEC)
#define BURST  (8 * BL_MIB)

#define EATEN     (4 * BL_MIB) /* less is noise: a program more or less */
#define RISING    (1 * BL_MIB) /* from one look to the next */
#define DIRE      (16 * BL_MIB)
#define STOP_TIME (250 * BL_MSEC)
#define SOON_TIME (1 * BL_SEC)

/* Until a request is repeated: while own use grows, else, and at most (less than BL_WIRE_REQUEST_LIFE). */
#define GAP_RISING (100 * BL_MSEC)
#define GAP        (500 * BL_MSEC)
#define GAP_MAX    (2 * BL_SEC)
/* The host has heard it often enough, and sees the rest by the statistics. */
#define ASK_TIME (10 * BL_SEC)

void guest_need_init(struct guest_need *n)
{
        *n = (struct guest_need){.gap = GAP};
}

bool guest_sample_from(const struct bl_wire_stats *s, int64_t drift, usec_t at, struct guest_sample *ret)
{
        uint64_t in = s->v[BL_STAT_BALLOON_INFLATE], out = s->v[BL_STAT_BALLOON_DEFLATE];

        if (s->v[BL_STAT_MEM_TOTAL] == BL_UNSET || s->v[BL_STAT_MEM_AVAILABLE] == BL_UNSET)
                return false;
        *ret = (struct guest_sample){
                .at = at,
                .total = bl_min(s->v[BL_STAT_MEM_TOTAL], LARGEST),
                .available = bl_min(s->v[BL_STAT_MEM_AVAILABLE], bl_min(s->v[BL_STAT_MEM_TOTAL], LARGEST)),
                .ballooned = in == BL_UNSET || out == BL_UNSET ? BL_UNSET : bl_min(bl_sub_sat(in, out), LARGEST),
                .drift = drift,
                .swap_total = bl_min(bl_or_zero(s->v[BL_STAT_SWAP_TOTAL]), LARGEST),
                .swap_free = bl_min(bl_or_zero(s->v[BL_STAT_SWAP_FREE]), LARGEST),
        };
        if (s->v[BL_STAT_STORE_STATE] == BL_STORE_SWAP_ON)
                ret->store_free =
                        bl_min(bl_sub_sat(bl_or_zero(s->v[BL_STAT_STORE_SIZE]), bl_or_zero(s->v[BL_STAT_STORE_USED])),
                               LARGEST);
        return true;
}

uint64_t guest_need_margin(const struct guest_sample *s, const struct bl_wire_entitlement *grant)
{
        uint64_t actual = grant->v[BL_GRANT_ACTUAL] == BL_UNSET ? s->total : grant->v[BL_GRANT_ACTUAL];
        uint64_t need = bl_add_sat(bl_sub_sat(actual, s->available), bl_sub_sat(s->swap_total, s->swap_free));
        uint64_t margin = bl_max(MARGIN, bl_part(need, MARGIN_RATIO));

        return s->swap_free < margin ? bl_add_sat(margin, margin / 2) : margin;
}

/*
 * With deflate-on-oom MemTotal does not follow the balloon, without it does.
 * Either way what is available and what is in the balloon together change only
 * by what the guest uses itself.
 */
static int64_t own_use(const struct guest_sample *s)
{
        int64_t swapped = (int64_t)bl_sub_sat(s->swap_total, s->swap_free);

        if (s->ballooned == BL_UNSET)
                return (int64_t)(s->total - s->available) + swapped;
        return swapped - (int64_t)s->available - s->drift - (int64_t)s->ballooned;
}

static void remember(struct guest_need *n, usec_t at, int64_t use)
{
        n->past[n->seen % GUEST_NEED_PAST].at = at;
        n->past[n->seen % GUEST_NEED_PAST].use = use;
        n->seen++;
        if (n->seen >= 2 * GUEST_NEED_PAST)
                n->seen -= GUEST_NEED_PAST;
}

/* How far own use grew, and in how long: in the window, or since the look before
 * where that is longer ago. */
static uint64_t growth(const struct guest_need *n, usec_t *ret_time)
{
        unsigned kept = n->seen < GUEST_NEED_PAST ? n->seen : GUEST_NEED_PAST;
        unsigned newest = (n->seen - 1) % GUEST_NEED_PAST, first = newest;

        *ret_time = 0;
        for (unsigned back = 1; back < kept; back++) {
                unsigned i = (n->seen - 1 - back) % GUEST_NEED_PAST;

                if (back > 1 && n->past[newest].at - n->past[i].at > WINDOW)
                        break;
                first = i;
        }
        *ret_time = n->past[newest].at - n->past[first].at;
        return n->past[newest].use > n->past[first].use ? (uint64_t)(n->past[newest].use - n->past[first].use) : 0;
}

void guest_need_still(struct guest_need *n, usec_t now)
{
        if (n->seen == 0)
                return;
        /* the newest is true until now; where it was just taken that keeps it as the end of a rise, too */
        remember(n, now, n->past[(n->seen - 1) % GUEST_NEED_PAST].use);
        n->rising = false;
}

/* What is between it and its OOM killer: what is available, and what the store has room for. */
static uint64_t left(const struct guest_sample *s, const struct bl_wire_entitlement *grant)
{
        return bl_add_sat(s->available, bl_min(s->store_free, grant->v[BL_GRANT_STORE_ROOM]));
}

/* usec until nothing is left of so much. */
static usec_t deadline(const struct guest_need *n, uint64_t bytes)
{
        return n->rate == 0 ? BL_UNSET : bl_mul_sat(bytes, BL_SEC) / n->rate;
}

/* What the host could still give, as far as that is known. */
static uint64_t room(const struct bl_wire_entitlement *grant)
{
        uint64_t most = bl_min(grant->v[BL_GRANT_MAX], grant->v[BL_GRANT_LIMIT]);

        if (most == BL_UNSET || grant->v[BL_GRANT_ACTUAL] == BL_UNSET)
                return BL_UNSET;
        return bl_sub_sat(most, grant->v[BL_GRANT_ACTUAL]);
}

void guest_need_request(const struct guest_need *n, const struct guest_sample *s,
                        const struct bl_wire_entitlement *grant, struct bl_wire_request *ret)
{
        uint64_t margin = guest_need_margin(s, grant);
        uint64_t wanted = bl_add_sat(bl_add_sat(margin, margin / 2), bl_rate_times(n->rate, SOON_TIME));

        *ret = (struct bl_wire_request){
                .bytes = bl_min(bl_sub_sat(wanted, s->available), room(grant)),
                .urgency = BL_URGENCY_SOON,
                .deadline = deadline(n, left(s, grant)),
        };
        if (left(s, grant) < DIRE || ret->deadline < STOP_TIME)
                ret->urgency = BL_URGENCY_STOP;
        else if (s->available < margin / 2)
                ret->urgency = BL_URGENCY_NOW;
}

/* Is the guest short of memory, or about to be, by its own doing? */
static bool is_short(struct guest_need *n, const struct guest_sample *s, const struct bl_wire_entitlement *grant,
                     int64_t use, uint64_t grown)
{
        uint64_t margin = guest_need_margin(s, grant);
        bool fast = grown >= BURST && n->rate >= BURST * (BL_SEC / WINDOW);

        if (fast && (s->available < margin || deadline(n, s->available) < SOON_TIME))
                return true;
        /* whoever took it: that is too near; but where no balloon is there is nobody to ask */
        if (left(s, grant) < DIRE && s->ballooned != 0)
                return true;
        if (s->available >= margin / 4 * 3) {
                n->calm = use;
                return n->asking && s->available < margin;
        }
        if (use < n->calm)
                n->calm = use;
        return n->asking || use - n->calm >= (int64_t)EATEN;
}

bool guest_need_judge(struct guest_need *n, const struct guest_sample *s, const struct bl_wire_entitlement *grant,
                      struct bl_wire_request *ret)
{
        uint64_t grown;
        int64_t use = own_use(s);
        bool known = n->seen > 0 && n->balloon_known == (s->ballooned != BL_UNSET);
        bool was_rising = n->rising;
        usec_t time;

        if (!known) {
                guest_need_init(n);
                n->balloon_known = s->ballooned != BL_UNSET;
                n->calm = use;
        }
        n->rising = known && use - n->past[(n->seen - 1) % GUEST_NEED_PAST].use >= (int64_t)RISING;
        remember(n, s->at, use);
        grown = growth(n, &time);
        n->rate = time == 0 ? 0 : bl_mul_sat(grown, BL_SEC) / time;
        if (n->rising || !n->asking)
                n->risen_at = s->at;

        if (!is_short(n, s, grant, use, grown)) {
                n->asking = false;
                return false;
        }
        if (n->asking && s->at - n->risen_at >= ASK_TIME) {
                n->asking = false;
                n->calm = use;
                return false;
        }
        guest_need_request(n, s, grant, ret);
        if (ret->bytes == 0 && ret->urgency != BL_URGENCY_STOP)
                return false;
        if (n->asking && ret->urgency <= n->urgency &&
            s->at - n->asked_at < (n->rising || was_rising ? GAP_RISING : n->gap))
                return false;
        n->gap = !n->asking || n->rising ? GAP : bl_min(n->gap * 2, GAP_MAX);
        n->asking = true;
        n->urgency = ret->urgency;
        n->asked_at = s->at;
        return true;
}
