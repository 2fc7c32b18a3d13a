/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The memory side of page sharing: what is kept free for merged pages that break apart, and who is taken
 * apart when.
 *
 * A VM that must not be merged, by its own settings or the host's, and is registered with KSM, leaves before
 * all else.  KSM has one tree for the whole host, so ksmd is not driven while such a VM is registered, or while
 * it is not known whether it is: that is what a trust group rests on.  Un-merging takes memory at once, in QEMU's
 * main loop, so it is done one VM at a time, and when the host can afford it; guests give idle memory for it.
 */
#include "internal.h"

/* The reserve is never more than this part of the budget: a host on which nearly everything is merged would do
 * nothing else but keep memory free. */
#define RESERVE_MAX 2500 /* permyriad */

/* QEMU sets the property of a running VM within milliseconds, and with many of them there is a queue; one that did not
 * in this time is not waited for, or ksmd would go round for nothing. */
#define CHOSEN_FOR (10 * BL_SEC)

/* What others have registered and merged while page sharing is off. */
static bool is_none_of_ours(const struct bl_share_state *s)
{
        return s->mode == BL_SHARE_OFF && !s->usable;
}

uint64_t bl_sharing_saves(const struct bl_vm *vm)
{
        const struct bl_vm_share *v = &vm->share;

        /* Pss is read seldom, what is merged often.  A frame that is mapped twice saves half of what is mapped
         * to it, and each further one more. */
        return bl_clamp(v->saved, v->merged / 2, v->merged);
}

uint64_t bl_sharing_breaks(const struct bl_vm *vm)
{
        return bl_max(vm->share.breaks, bl_sharing_saves(vm));
}

uint64_t bl_sharing_reserve(const struct bl_snapshot *s, const struct bl_policy_config *c)
{
        uint64_t sum = 0;

        if (c->test.no_share_reserve || is_none_of_ours(&s->share))
                return 0;
        for (size_t i = 0; i < s->n_vms; i++) {
                if (s->vms[i].share.merged > 0)
                        sum = bl_add_sat(sum, bl_sharing_saves(&s->vms[i]));
        }
        return bl_min(bl_part(sum, c->share_reserve), bl_part(s->host.budget, RESERVE_MAX));
}

bool bl_sharing_must_not(const struct bl_snapshot *s, const struct bl_vm *vm)
{
        return s->share.mode < BL_SHARE_GROUP || vm->share.mode < BL_SHARE_GROUP ||
               vm->share.no_share != BL_NO_SHARE_OK;
}

bool bl_sharing_in_the_way(const struct bl_snapshot *s, const struct bl_vm *vm)
{
        /* one that is told something may be about to be registered */
        return bl_sharing_must_not(s, vm) && (vm->share.merging != 0 || vm->share.busy);
}

static void forget(struct bl_vm_sharing *h)
{
        h->chosen = h->entered = h->merged = h->leaving = false;
        h->breaks = 0;
}

static uint64_t learn(struct bl_tick *t, const struct bl_vm *vm, struct bl_vm_sharing *h)
{
        const struct bl_vm_share *v = &vm->share;
        uint64_t taken = 0;

        if (v->merging == 0 && h->registered) {
                taken = h->breaks;
                forget(h);
        }
        if (bl_sharing_must_not(t->s, vm))
                h->chosen = h->entered = false;
        if (v->merging >= 0)
                h->registered = v->merging;
        if (v->evidence_at > 0)
                h->stale = bl_min(h->stale, v->gain_low);

        if (h->chosen && !h->entered && v->merging == 1) {
                h->entered = true;
                h->merged_then = v->merged;
                t->p->sharing.since = t->s->share.full_scans;
        } else if (h->chosen && !h->entered &&
                   (v->refused || vm->hung || bl_sub_sat(t->now, h->chosen_at) > CHOSEN_FOR)) {
                h->chosen = false;
                h->retry_at = bl_add_sat(t->now, bl_sharing_back_off(0));
        }
        if (v->merging != 1)
                return taken;

        h->breaks = bl_sharing_breaks(vm);
        /* as it was found, or by others */
        if (!h->chosen && v->merged >= BL_STEP)
                h->merged = true;
        return taken;
}

uint64_t bl_sharing_learn(struct bl_tick *t)
{
        uint64_t taken = 0;

        for (size_t i = 0; i < t->n; i++) {
                const struct bl_vm *vm = &t->s->vms[i];
                struct bl_vm_sharing *h = &t->w[i].st->sharing;

                if (vm->share.merging == 0 && !h->registered && !h->chosen && vm->share.mode < BL_SHARE_GROUP)
                        continue;
                taken = bl_add_sat(taken, learn(t, vm, h));
        }
        return taken;
}

bool bl_sharing_can_tell(const struct bl_vm *vm)
{
        const struct bl_vm_share *v = &vm->share;

        return !v->busy && !v->refused && !vm->hung && vm->run != BL_RUN_MIGRATING;
}

bool bl_sharing_takes_out(const struct bl_share_state *s)
{
        switch (s->mode) {
        case BL_SHARE_OFF:
                return !is_none_of_ours(s);
        case BL_SHARE_ZERO:
                return true;
        case BL_SHARE_GROUP:
                /* a VM's own settings hold whoever drives KSM */
                return s->usable || s->yielded;
        case _BL_SHARE_MODE_MAX:
                break;
        }
        return false;
}

void bl_sharing_leavers(struct bl_tick *t, uint64_t room)
{
        uint64_t least = UINT64_MAX;

        t->leaver = t->n;
        if (is_none_of_ours(&t->s->share))
                return;
        for (size_t i = 0; i < t->n; i++) {
                const struct bl_vm *vm = &t->s->vms[i];
                const struct bl_vm_share *v = &vm->share;
                uint64_t cost;

                if (v->merging == 1 && v->busy && !vm->hung && t->w[i].st->sharing.leaving) {
                        t->unmerging = true;
                        t->share_aside = bl_add_sat(t->share_aside, bl_sharing_breaks(vm));
                }
                if (!bl_sharing_must_not(t->s, vm))
                        continue;
                t->share_blocked |= bl_sharing_in_the_way(t->s, vm);
                if (v->merging != 1 || !bl_sharing_can_tell(vm) || !bl_sharing_takes_out(&t->s->share))
                        continue;
                cost = bl_sharing_breaks(vm);
                /* one in which nothing is merged does not have to wait for anything */
                if (cost >= BL_STEP && cost < least) {
                        least = cost;
                        t->leaver = i;
                }
        }
        if (t->leaver == t->n)
                return;
        if (t->unmerging) {
                t->leaver = t->n;
                return;
        }
        if (least <= room) {
                t->share_aside = bl_add_sat(t->share_aside, least);
                return;
        }
        t->share_lacks = least - room;
        t->leaver = t->n;
}
