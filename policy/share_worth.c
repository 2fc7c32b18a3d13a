/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What merging a VM is worth: bytes of the host's memory against CPU time of ksmd, and against what the
 * kernel keeps for each registered page.
 */
#include "internal.h"

#define PAGE UINT64_C(4096)

/* Nanoseconds a page, until they were learned: measured on a nested machine, where both are dear.  And what
 * is taken for a learned value at all. */
#define SCAN_GUESS  3800
#define MERGE_GUESS 38000
#define COST_MIN    100
#define COST_MAX    1000000

/* struct ksm_rmap_item is 64 bytes for a page of 4,096 (Documentation/admin-guide/mm/ksm.rst). */
#define METADATA_PART 64

/* ksmd passes over a page that it has merged in 0.2 us, where another one costs it 4 to 5 (measured on 6.18: it
 * neither hashes nor looks for it again). */
#define MERGED_PART 20

/* A VM stays until it costs so many times what it brings: so that none comes and goes. */
#define HYSTERESIS 4

static uint64_t nanoseconds(uint32_t learned, uint64_t guess)
{
        return learned == 0 ? guess : bl_clamp(learned, COST_MIN, COST_MAX);
}

usec_t bl_sharing_cost(const struct bl_share_state *s, uint64_t bytes, unsigned int passes, uint64_t gain)
{
        uint64_t scans = bl_mul_sat(bl_mul_sat(bytes / PAGE, passes), nanoseconds(s->scan_cost, SCAN_GUESS));
        uint64_t merges = bl_mul_sat(gain / PAGE, nanoseconds(s->merge_cost, MERGE_GUESS));

        return bl_add_sat(scans, merges) / 1000;
}

uint64_t bl_sharing_present(const struct bl_vm *vm)
{
        return vm->share.present > 0 ? vm->share.present : bl_held(vm);
}

uint64_t bl_sharing_effort(const struct bl_vm *vm)
{
        uint64_t merged = bl_min(vm->share.merged, bl_sharing_present(vm));

        return bl_sharing_present(vm) - merged + merged / MERGED_PART;
}

uint64_t bl_sharing_metadata(uint64_t present)
{
        return present / METADATA_PART;
}

bool bl_sharing_pays(const struct bl_policy_config *c, uint64_t gain, usec_t cost)
{
        return gain > 0 && gain >= bl_rate_times(c->share_pays, cost);
}

static bool worth(const struct bl_share_state *s, const struct bl_policy_config *c, uint64_t present, uint64_t gain)
{
        return bl_sharing_pays(c, bl_sub_sat(gain, bl_sharing_metadata(present)),
                               bl_sharing_cost(s, present, BL_SHARING_PASSES, gain));
}

enum bl_sharing_verdict bl_sharing_worth(const struct bl_share_state *s, const struct bl_policy_config *c,
                                         const struct bl_vm *vm, uint64_t going, uint64_t *ret_value)
{
        const struct bl_vm_share *v = &vm->share;
        uint64_t present = bl_sharing_present(vm), gain = bl_sub_sat(v->gain, going), low, high;
        usec_t cost = bl_sharing_cost(s, present, BL_SHARING_PASSES, gain);

        *ret_value = bl_mul_sat(bl_sub_sat(gain, bl_sharing_metadata(present)), BL_SEC) / bl_max(cost, 1);
        low = bl_min(bl_sub_sat(v->gain_low, going), gain);
        high = bl_max(bl_sub_sat(v->gain_high, going), gain);
        if (worth(s, c, present, low))
                return BL_WORTH_YES;
        return worth(s, c, present, high) ? BL_WORTH_UNSURE : BL_WORTH_NO;
}

bool bl_sharing_estimate_pays(const struct bl_share_state *s, const struct bl_policy_config *c, const struct bl_vm *vm,
                              uint64_t going)
{
        return worth(s, c, bl_sharing_present(vm), bl_sub_sat(vm->share.gain, going));
}

bool bl_sharing_pays_no_more(const struct bl_share_state *s, const struct bl_policy_config *c, const struct bl_vm *vm,
                             uint64_t credible, uint64_t passes)
{
        uint64_t present = bl_sharing_present(vm), brings = bl_add_sat(bl_sharing_saves(vm), credible), costs;
        usec_t cpu;

        /* taking it apart gives the host more than it takes */
        if (brings < bl_sharing_metadata(present))
                return true;
        /* Others come again and again; that is what they have to pay for. */
        passes = bl_min(passes, BL_SHARING_PASSES * BL_SHARING_PASS);
        cpu = bl_mul_sat(bl_sharing_cost(s, bl_sharing_effort(vm), 1, 0), passes) / BL_SHARING_PASS;

        costs = bl_add_sat(bl_sharing_metadata(present), bl_rate_times(c->share_pays, cpu));
        return bl_mul_sat(brings, HYSTERESIS) < costs;
}
