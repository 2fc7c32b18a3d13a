/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Pure: what a VM's figures mean, and the judgement of one more look. */
#include <string.h>

#include "daemon/virt/domain.h"

/* How much less than what was decided upon still counts as the same need. */
#define FLOOR_SLACK (8 * BL_MIB)

static uint64_t kib(uint64_t v)
{
        return bl_mul_sat(v, BL_KIB);
}

static enum bl_vm_run run_of(int state, int reason)
{
        switch (state) { /* libvirt's numbers */
        case VIR_DOMAIN_RUNNING:
        case VIR_DOMAIN_BLOCKED:
                return BL_RUN_RUNNING;
        case VIR_DOMAIN_PAUSED:
                if (reason == VIR_DOMAIN_PAUSED_MIGRATION || reason == VIR_DOMAIN_PAUSED_SAVE ||
                    reason == VIR_DOMAIN_PAUSED_DUMP || reason == VIR_DOMAIN_PAUSED_SNAPSHOT ||
                    reason == VIR_DOMAIN_PAUSED_POSTCOPY || reason == VIR_DOMAIN_PAUSED_POSTCOPY_FAILED)
                        return BL_RUN_MIGRATING;
                return BL_RUN_PAUSED;
        default:
                return BL_RUN_PAUSED;
        }
}

static void take_number(struct bl_domain_state *s, const char *name, uint64_t v, uint64_t *last_update)
{
        const struct {
                const char *name;
                uint64_t *to;
                bool is_kib;
        } fields[] = {
                {"balloon.current", &s->current, true},
                {"balloon.maximum", &s->maximum, true},
                {"balloon.rss", &s->rss, true},
                {"balloon.available", &s->stats.total, true},
                {"balloon.usable", &s->stats.available, true},
                {"balloon.unused", &s->stats.unused, true},
                {"balloon.disk_caches", &s->stats.caches, true},
                {"balloon.swap_in", &s->stats.swap_in, true},
                {"balloon.swap_out", &s->stats.swap_out, true},
                {"balloon.major_fault", &s->stats.major_faults, false},
                {"balloon.last-update", last_update, false},
        };

        for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
                if (strcmp(fields[i].name, name) == 0)
                        *fields[i].to = fields[i].is_kib ? kib(v) : v;
}

void bl_domain_state_decode(const virTypedParameter *params, int n, usec_t now_wall, usec_t now,
                            struct bl_domain_state *ret)
{
        struct bl_guest_stats none = {
                .source = BL_STATS_NONE,
                .total = BL_UNSET,
                .available = BL_UNSET,
                .unused = BL_UNSET,
                .caches = BL_UNSET,
                .swap_total = BL_UNSET,
                .swap_free = BL_UNSET,
                .swap_in = BL_UNSET,
                .swap_out = BL_UNSET,
                .major_faults = BL_UNSET,
                .unevictable = BL_UNSET,
                .hugetlb = BL_UNSET,
                .psi_some = BL_UNSET,
        };
        struct bl_domain_state s = {
                .at = now,
                .state = -1,
                .current = BL_UNSET,
                .maximum = BL_UNSET,
                .rss = BL_UNSET,
                .stats = none,
        };
        uint64_t last_update = 0, last;

        for (int i = 0; i < n; i++) {
                const virTypedParameter *p = &params[i];

                if (p->type == VIR_TYPED_PARAM_INT && strcmp(p->field, "state.state") == 0)
                        s.state = p->value.i;
                else if (p->type == VIR_TYPED_PARAM_INT && strcmp(p->field, "state.reason") == 0)
                        s.reason = p->value.i;
                else if (p->type == VIR_TYPED_PARAM_ULLONG)
                        take_number(&s, p->field, p->value.ul, &last_update);
        }
        s.run = run_of(s.state, s.reason);
        /* libvirt's own memory of the size is always there; what had to be asked
         * of QEMU is not when the VM is busy, and the process's size goes with that */
        s.incomplete = s.current == BL_UNSET || s.rss == BL_UNSET;
        /* never reported: what QEMU says otherwise is nothing of the guest's */
        last = bl_mul_sat(last_update, BL_SEC);
        if (last_update == 0) {
                s.stats = none;
        } else {
                s.stats.source = BL_STATS_BALLOON;
                /* the wall clock may have been set back meanwhile */
                s.stats.at = bl_sub_sat(now, bl_sub_sat(now_wall, last));
        }
        *ret = s;
}

/*
 * The decision's floor was made of what the guest used then; by what it uses
 * more now, the floor is higher now.  Used is balloon size less what the guest
 * says is available, which holds whether its balloon counts in MemTotal or
 * not (with deflate-on-oom it does not).
 */
static uint64_t fresh_floor(const struct bl_balloon_request *q, const struct bl_domain_state *s)
{
        uint64_t then = bl_sub_sat(q->from, q->available), now_used = bl_sub_sat(s->current, s->stats.available);

        return bl_add_sat(q->floor, bl_sub_sat(now_used, then));
}

enum bl_look bl_balloon_look(const struct bl_balloon_request *q, const struct bl_domain_state *s, uint64_t *ret_floor)
{
        bool shrink = q->to < q->from;

        if (s->run == BL_RUN_MIGRATING)
                return BL_LOOK_MIGRATING;
        if (s->run != BL_RUN_RUNNING)
                return BL_LOOK_NOT_RUNNING;
        if (q->force)
                return BL_LOOK_OK;
        /* giving is never too late and never too much: the room was there */
        if (!shrink)
                return BL_LOOK_OK;
        if (s->incomplete)
                return BL_LOOK_BUSY;
        if (s->current > bl_add_sat(q->from, q->tolerance) ||
            s->current < bl_sub_sat(q->transit ? bl_min(q->from, q->transit) : q->from, q->tolerance))
                return BL_LOOK_MOVED;
        if (q->floor == 0 || q->available == BL_UNSET || s->stats.source == BL_STATS_NONE ||
            s->stats.available == BL_UNSET)
                return BL_LOOK_OK;
        *ret_floor = fresh_floor(q, s);
        return bl_add_sat(q->to, FLOOR_SLACK) < *ret_floor ? BL_LOOK_FLOOR : BL_LOOK_OK;
}

const char *bl_look_to_string(enum bl_look l)
{
        switch (l) {
        case BL_LOOK_OK:
                return "ok";
        case BL_LOOK_NOT_RUNNING:
                return "not-running";
        case BL_LOOK_MIGRATING:
                return "migrating";
        case BL_LOOK_MOVED:
                return "moved";
        case BL_LOOK_FLOOR:
                return "floor";
        case BL_LOOK_INSTANCE:
                return "instance";
        case BL_LOOK_BUSY:
                return "busy";
        }
        return NULL;
}
