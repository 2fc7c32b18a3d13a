/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/share_groups.h"

#include <stdio.h>
#include <string.h>

#include <ballast/units.h>

/* What keeps KSM from a VM's memory whatever its settings say. */
static enum bl_no_share obstacle(const struct bl_share_vm *vm)
{
        if (vm->nosharepages)
                return BL_NO_SHARE_XML;
        if (vm->pinned)
                return BL_NO_SHARE_PINNED;
        if (vm->hugepages)
                return BL_NO_SHARE_HUGEPAGES;
        if (vm->shared)
                return BL_NO_SHARE_SHARED;
        return vm->backends == 0 ? BL_NO_SHARE_BACKEND : BL_NO_SHARE_OK;
}

/* The same where nothing is merged, and zero pages go out by the kernel's paging. */
static enum bl_no_share obstacle_to_zero(const struct bl_share_host *h, const struct bl_share_vm *vm)
{
        if (vm->pinned)
                return BL_NO_SHARE_PINNED;
        if (vm->hugepages)
                return BL_NO_SHARE_HUGEPAGES;
        if (vm->shared)
                return BL_NO_SHARE_SHARED;
        return h->swap ? BL_NO_SHARE_OK : BL_NO_SHARE_NO_SWAP;
}

static const char *group_of(const struct bl_share_host *h, const struct bl_share_vm *vm)
{
        return *vm->group ? vm->group : h->default_group;
}

static enum bl_share_mode asked(const struct bl_share_vm *vm)
{
        if (vm->left_alone)
                return BL_SHARE_OFF;
        if (vm->sharing >= 0)
                return (enum bl_share_mode)vm->sharing;
        return *vm->group ? BL_SHARE_GROUP : BL_SHARE_ZERO;
}

/* It would be merged if its group was the one: it counts when it is found out which that is. */
static bool is_candidate(const struct bl_share_host *h, const struct bl_share_vm *vm)
{
        return asked(vm) == BL_SHARE_GROUP && *group_of(h, vm) && obstacle(vm) == BL_NO_SHARE_OK;
}

static void put(char to[BL_METADATA_GROUP], const char *name)
{
        (void)snprintf(to, BL_METADATA_GROUP, "%s", name);
}

static void find_served(const struct bl_share_host *h, const struct bl_share_vm *vms, size_t n,
                        struct bl_share_groups *g)
{
        if (h->mode != BL_SHARE_GROUP)
                return;
        if (*h->group) {
                put(g->served, h->group);
                return;
        }
        for (size_t i = 0; i < n; i++) {
                const char *name = group_of(h, &vms[i]);

                if (!is_candidate(h, &vms[i]))
                        continue;
                if (!*g->first)
                        put(g->first, name);
                else if (strcmp(g->first, name) != 0 && (!*g->other || strcmp(name, g->other) < 0))
                        put(g->other, name);
        }
        g->conflict = *g->other;
        if (!g->conflict) {
                put(g->served, g->first);
                return;
        }
        (void)snprintf(g->error, sizeof g->error,
                       "VMs of two trust groups, '%s' and '%s', ask for page sharing, and KSM can serve one: nobody is "
                       "merged; name it in ballast.conf ([Sharing] Group=)",
                       g->first, g->other);
}

/* Why it is not merged; OK: it is. */
static enum bl_no_share why_not_merged(const struct bl_share_host *h, const struct bl_share_groups *g,
                                       const struct bl_share_vm *vm)
{
        const char *name = group_of(h, vm);
        enum bl_no_share why = obstacle(vm);

        if (h->mode < BL_SHARE_GROUP)
                return BL_NO_SHARE_HOST;
        if (!*name)
                return BL_NO_SHARE_NO_GROUP;
        if (why != BL_NO_SHARE_OK)
                return why;
        if (g->conflict)
                return BL_NO_SHARE_TWO_GROUPS;
        return strcmp(name, g->served) == 0 ? BL_NO_SHARE_OK : BL_NO_SHARE_OTHER_GROUP;
}

static void judge_one(const struct bl_share_host *h, const struct bl_share_groups *g, const struct bl_share_vm *vm,
                      struct bl_share_verdict *v)
{
        *v = (struct bl_share_verdict){.asked = asked(vm), .mode = BL_SHARE_OFF};
        put(v->group, group_of(h, vm));
        if (v->asked == BL_SHARE_OFF)
                return;
        if (h->mode == BL_SHARE_OFF) {
                v->no_share = BL_NO_SHARE_HOST;
                return;
        }
        v->mode = BL_SHARE_ZERO;
        v->zero_possible = obstacle_to_zero(h, vm) == BL_NO_SHARE_OK;
        if (v->asked == BL_SHARE_ZERO) {
                v->no_share = obstacle_to_zero(h, vm);
                return;
        }
        v->no_share = why_not_merged(h, g, vm);
        if (v->no_share == BL_NO_SHARE_OK)
                v->mode = BL_SHARE_GROUP;
        v->loud = v->no_share != BL_NO_SHARE_OK && vm->sharing == BL_SHARE_GROUP;
}

void bl_share_judge(const struct bl_share_host *h, const struct bl_share_vm *vms, size_t n,
                    struct bl_share_verdict *verdicts, struct bl_share_groups *ret)
{
        struct bl_share_groups g = {0};

        find_served(h, vms, n, &g);
        for (size_t i = 0; i < n; i++)
                judge_one(h, &g, &vms[i], &verdicts[i]);
        *ret = g;
}
