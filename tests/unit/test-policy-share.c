/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Page sharing, decision by decision: who is merged, who leaves, when ksmd runs, what is kept free. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "policy/internal.h"

#define MAX_VMS 32
#define NOW     (1000 * BL_SEC)

struct fixture {
        struct bl_policy *p;
        struct bl_policy_config c;
        struct bl_snapshot s;
        struct bl_vm vms[MAX_VMS];
        struct bl_plan plan;
};

/* minFree 1000 MiB, so that marks are easy to see; KSM is ours, and a CPU-second of it is worth 8 MiB. */
static void setup(struct fixture *f, uint64_t free_mib)
{
        memset(f, 0, sizeof(*f));
        assert_int_equal(bl_policy_new(&f->p), 0);
        bl_policy_config_default(&f->c);
        f->c.min_free = 1000 * BL_MIB;
        f->c.share_pays = 8 * BL_MIB;
        f->s.at = NOW;
        f->s.host.budget = 64 * BL_GIB;
        f->s.host.free = free_mib * BL_MIB;
        f->s.host.used = f->s.host.budget - f->s.host.free;
        f->s.share = (struct bl_share_state){
                .mode = BL_SHARE_GROUP, .usable = true, .scan_cost = 3800, .merge_cost = 38000, .ksmd_cpu = BL_SEC};
        f->s.vms = f->vms;
}

static void teardown(struct fixture *f)
{
        bl_plan_clear(&f->plan);
        bl_policy_free(f->p);
}

/* A VM of 1 GiB that could give half of that, is of the group, and of which `gain_mib` have copies. */
static struct bl_vm *add(struct fixture *f, const char *name, uint64_t gain_mib)
{
        struct bl_vm *v = &f->vms[f->s.n_vms++];

        *v = (struct bl_vm){
                .name = name,
                .managed = true,
                .booted_at = NOW - 500 * BL_SEC,
                .max = BL_GIB,
                .limit = BL_GIB,
                .shares = 1000,
                .actual = BL_GIB,
                .target = BL_GIB,
                .resident = BL_GIB + 40 * BL_MIB,
                .resident_at = NOW,
                .overhead = 40 * BL_MIB,
                .stats = {.source = BL_STATS_BALLOON,
                          .at = NOW - BL_SEC,
                          .period = 5 * BL_SEC,
                          .actual = BL_GIB,
                          .total = 980 * BL_MIB,
                          .available = 600 * BL_MIB,
                          .unused = 300 * BL_MIB,
                          .caches = 300 * BL_MIB,
                          .swap_total = BL_UNSET,
                          .swap_free = BL_UNSET,
                          .swap_in = BL_UNSET,
                          .swap_out = BL_UNSET,
                          .major_faults = BL_UNSET,
                          .unevictable = BL_UNSET,
                          .hugetlb = BL_UNSET,
                          .psi_some = BL_UNSET},
                .share = {.mode = BL_SHARE_GROUP,
                          .zero_possible = true,
                          .evidence_at = NOW,
                          .present = BL_GIB,
                          .gain = gain_mib * BL_MIB,
                          .gain_low = gain_mib * BL_MIB,
                          .gain_high = gain_mib * BL_MIB},
        };
        v->offer[BL_ENGINE_BALLOON] = (struct bl_offer){.takes = v->actual};
        for (size_t i = 0; i < BL_UUID_LEN && name[i]; i++)
                v->uuid[i] = (uint8_t)name[i];
        return v;
}

/* It is registered, `merged_mib` of it are merged, which saves half of that. */
static struct bl_vm *merged(struct bl_vm *v, uint64_t merged_mib)
{
        v->share.merging = 1;
        v->share.merging_at = NOW - 100 * BL_SEC;
        v->share.merged = v->share.breaks = merged_mib * BL_MIB;
        v->share.saved = merged_mib * BL_MIB / 2;
        v->share.saved_at = NOW;
        return v;
}

static void decide(struct fixture *f)
{
        bl_plan_clear(&f->plan);
        assert_int_equal(bl_policy_decide(f->p, &f->s, &f->c, f->s.at, &f->plan), 0);
}

static void later(struct fixture *f, usec_t t)
{
        f->s.at += t;
        for (size_t i = 0; i < f->s.n_vms; i++) {
                f->vms[i].stats.at += t;
                f->vms[i].resident_at += t;
        }
        f->s.share.driven = f->plan.share.drive;
        decide(f);
}

/* What VMs were told has been done, and ksmd has completed so many passes that merged so much in all. */
static void ksmd(struct fixture *f, uint64_t passes, uint64_t mib)
{
        for (size_t i = 0; i < f->s.n_vms; i++) {
                struct bl_vm_share *v = &f->vms[i].share;

                if (f->plan.share.d[i].act) {
                        v->merging = f->plan.share.d[i].merge;
                        v->merging_at = f->s.at;
                        v->merged = v->saved = v->breaks = 0;
                }
        }
        f->s.share.full_scans += passes;
        f->s.share.ksmd_cpu += BL_SEC;
        f->s.share.merged += mib * BL_MIB;
        later(f, BL_SEC);
}

static void sentence(struct fixture *f, size_t i, const char *expected)
{
        char text[512];
        int r = bl_explain_share(&f->plan, &f->s, i, text, sizeof(text));

        assert_int_equal(r, strlen(text));
        assert_string_equal(text, expected);
}

static void drive_sentence(struct fixture *f, const char *expected)
{
        char text[512];
        int r = bl_explain_drive(&f->plan, &f->s, text, sizeof(text));

        assert_int_equal(r, strlen(text));
        assert_string_equal(text, expected);
}

#define assert_why(f, i, reason) \
        assert_string_equal(bl_reason_to_string((f)->plan.share.d[i].why), bl_reason_to_string(reason))
#define assert_drive(f, on, reason)                                                                         \
        do {                                                                                                \
                assert_string_equal(bl_reason_to_string((f)->plan.share.why), bl_reason_to_string(reason)); \
                assert_int_equal((f)->plan.share.drive, on);                                                \
        } while (0)
#define assert_told(f, i, on)                                     \
        do {                                                      \
                assert_true((f)->plan.share.d[i].act);            \
                assert_int_equal((f)->plan.share.d[i].merge, on); \
        } while (0)

/* --- words -------------------------------------------------------------------------------------------- */

static void test_strings(void **state)
{
        (void)state;
        assert_string_equal(bl_share_mode_to_string(BL_SHARE_OFF), "off");
        assert_string_equal(bl_share_mode_to_string(BL_SHARE_ZERO), "zero");
        assert_string_equal(bl_share_mode_to_string(BL_SHARE_GROUP), "group");
        assert_string_equal(bl_share_mode_to_string(_BL_SHARE_MODE_MAX), "?");
        for (int i = 0; i < _BL_NO_SHARE_MAX; i++) {
                for (int k = 0; k < i; k++) {
                        assert_string_not_equal(bl_no_share_to_string((enum bl_no_share)i),
                                                bl_no_share_to_string((enum bl_no_share)k));
                        assert_string_not_equal(bl_no_share_explain((enum bl_no_share)i),
                                                bl_no_share_explain((enum bl_no_share)k));
                }
                assert_string_not_equal(bl_no_share_to_string((enum bl_no_share)i), "?");
                assert_string_not_equal(bl_no_share_explain((enum bl_no_share)i), "unknown");
        }
        assert_string_equal(bl_no_share_to_string(_BL_NO_SHARE_MAX), "?");
        assert_string_equal(bl_no_share_explain(_BL_NO_SHARE_MAX), "unknown");
}

/* --- figures ------------------------------------------------------------------------------------------- */

/* By the costs of a nested machine: what it was measured to bring, and what is not worth it. */
static void test_worth(void **state)
{
        static const struct {
                uint64_t gain_mib;
                enum bl_sharing_verdict worth;
                uint64_t low_mib, high_mib; /* for a CPU-second, the kernel's 16 MiB off */
        } cases[] = {
                {460, BL_WORTH_YES, 65, 75}, {61, BL_WORTH_YES, 15, 20}, {40, BL_WORTH_YES, 8, 12},
                {30, BL_WORTH_NO, 4, 7},     {16, BL_WORTH_NO, 0, 0},    {0, BL_WORTH_NO, 0, 0},
        };
        struct fixture f;

        (void)state;
        setup(&f, 8000);
        /* 262,144 pages twice */
        assert_int_equal(bl_sharing_cost(&f.s.share, BL_GIB, 2, 0), 262144ULL * 2 * 3800 / 1000);
        assert_int_equal(bl_sharing_cost(&f.s.share, 0, 2, 4 * BL_MIB), 1024 * 38000 / 1000);
        /* what was not learned is guessed, and what cannot be is not believed */
        f.s.share.scan_cost = f.s.share.merge_cost = 0;
        assert_int_equal(bl_sharing_cost(&f.s.share, BL_GIB, 1, BL_GIB), 262144ULL * 41800 / 1000);
        f.s.share.scan_cost = 1;
        f.s.share.merge_cost = UINT32_MAX;
        assert_int_equal(bl_sharing_cost(&f.s.share, BL_GIB, 1, 0), 262144ULL * 100 / 1000);
        assert_int_equal(bl_sharing_cost(&f.s.share, 0, 1, BL_GIB), 262144ULL * 1000);
        f.s.share.scan_cost = 3800;
        f.s.share.merge_cost = 38000;

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                struct bl_vm *v;
                uint64_t value;

                f.s.n_vms = 0;
                v = add(&f, "a", cases[i].gain_mib);
                assert_int_equal(bl_sharing_worth(&f.s.share, &f.c, v, 0, &value), cases[i].worth);
                assert_in_range(value / BL_MIB, cases[i].low_mib, cases[i].high_mib);
                /* what is about to go is not counted */
                if (cases[i].gain_mib == 61)
                        assert_int_equal(bl_sharing_worth(&f.s.share, &f.c, v, 40 * BL_MIB, &value), BL_WORTH_NO);
                v->share.gain_low = 0;
                v->share.gain_high = 500 * BL_MIB;
                assert_int_equal(bl_sharing_worth(&f.s.share, &f.c, v, 0, &value), BL_WORTH_UNSURE);
                assert_int_equal(bl_sharing_estimate_pays(&f.s.share, &f.c, v, 0), cases[i].worth == BL_WORTH_YES);
        }
        teardown(&f);
}

/* It leaves at half of what it would have to bring to come, so that none comes and goes. */
static void test_hysteresis(void **state)
{
        struct fixture f;
        struct bl_vm *v;
        uint64_t value, comes = 0, leaves = UINT64_MAX;

        (void)state;
        setup(&f, 8000);
        v = merged(add(&f, "a", 0), 0);
        for (uint64_t mib = 100; mib > 0; mib--) {
                v->share.gain = v->share.gain_low = v->share.gain_high = mib * BL_MIB;
                if (bl_sharing_worth(&f.s.share, &f.c, v, 0, &value) == BL_WORTH_YES)
                        comes = mib;
        }
        for (uint64_t mib = 1; mib < 100; mib++) {
                v->share.saved = v->share.merged = mib * BL_MIB;
                if (!bl_sharing_pays_no_more(&f.s.share, &f.c, v, 0, 100 * BL_SHARING_PASS)) {
                        leaves = mib;
                        break;
                }
        }
        assert_in_range(leaves, 10, comes / 2);
        /* at rest the kernel's own is all that it costs; and what it is about to merge counts */
        v->share.saved = v->share.merged = 17 * BL_MIB;
        assert_false(bl_sharing_pays_no_more(&f.s.share, &f.c, v, 0, 0));
        v->share.saved = v->share.merged = 15 * BL_MIB;
        assert_true(bl_sharing_pays_no_more(&f.s.share, &f.c, v, 0, 0));
        assert_false(bl_sharing_pays_no_more(&f.s.share, &f.c, v, 30 * BL_MIB, 0));
        teardown(&f);
}

/* A tenth of what breaking apart would cost is kept free, in all states; never more than a quarter of the budget. */
static void test_reserve(void **state)
{
        struct fixture f;
        struct bl_marks m;

        (void)state;
        setup(&f, 8000);
        merged(add(&f, "a", 0), 400);
        merged(add(&f, "b", 0), 200);
        decide(&f);
        bl_marks_compute(f.s.host.budget, f.c.min_free, &m);
        assert_int_equal(f.plan.share.reserve / BL_MIB, 30);
        for (int i = 0; i < _BL_STATE_MAX; i++)
                assert_int_equal(f.plan.marks.mark[i], m.mark[i] + f.plan.share.reserve);
        assert_int_equal(f.plan.marks.min_free, m.min_free);

        /* Pss may be old: what is merged now bounds it, both ways */
        f.vms[0].share.saved = 0;
        assert_int_equal(bl_sharing_saves(&f.vms[0]), 200 * BL_MIB);
        f.vms[0].share.saved = 900 * BL_MIB;
        assert_int_equal(bl_sharing_saves(&f.vms[0]), 400 * BL_MIB);
        f.vms[0].share.merged = f.vms[0].share.saved = 300 * BL_GIB;
        decide(&f);
        assert_int_equal(f.plan.share.reserve, 16 * BL_GIB);

        /* the states are judged with it */
        f.vms[0].share.merged = f.vms[0].share.saved = 10 * BL_GIB;
        f.s.host.free = 60 * BL_GIB;
        decide(&f);
        f.s.host.free = 1500 * BL_MIB;
        decide(&f);
        assert_int_equal(f.plan.state, BL_STATE_SOFT);
        f.c.test.no_share_reserve = true;
        decide(&f);
        assert_int_equal(f.plan.share.reserve, 0);
        assert_int_equal(f.plan.state, BL_STATE_CLEAR);
        f.c.test.no_share_reserve = false;

        /* what others merge is no business of ours */
        f.s.share.mode = BL_SHARE_OFF;
        f.s.share.usable = false;
        decide(&f);
        assert_int_equal(f.plan.share.reserve, 0);
        teardown(&f);
}

/* Half of a VM is merged: what its balloon takes frees half, and it pays for half. */
static void test_market(void **state)
{
        struct bl_policy_config c;
        struct bl_work w[2] = {
                {.base = 1000 * BL_MIB, .active = 200 * BL_MIB, .shares = 1000, .room = 700 * BL_MIB},
                {.base = 1000 * BL_MIB, .active = 200 * BL_MIB, .shares = 1000, .room = 700 * BL_MIB},
        };
        struct bl_work both[2];
        struct bl_pick picks[2];

        (void)state;
        bl_policy_config_default(&c);
        w[0].merged_part = BL_MERGED_WHOLE / 2;
        w[0].paying = 2000;
        memcpy(both, w, sizeof(w));
        assert_in_range(bl_revoke(w, 2, 300 * BL_MIB, 0, false, &c, picks), 300 * BL_MIB, 305 * BL_MIB);
        assert_int_equal(w[0].take, 0);
        assert_in_range(w[1].take, 300 * BL_MIB, 305 * BL_MIB);

        /* all that there is: 700 of one and half of that of the other */
        assert_in_range(bl_revoke(both, 2, 2000 * BL_MIB, 0, false, &c, picks), 1049 * BL_MIB, 1050 * BL_MIB);
        assert_int_equal(both[0].take, 700 * BL_MIB);
        assert_int_equal(both[1].take, 700 * BL_MIB);
}

static void test_balloon(void **state)
{
        struct fixture f;
        uint64_t taken[2] = {};

        (void)state;
        for (int on = 0; on <= 1; on++) {
                setup(&f, 500);
                f.c.test.no_share_reserve = true;
                for (int i = 0; i < 8; i++) {
                        char name[2] = {(char)('a' + i), '\0'};

                        add(&f, name, 0)->name = "vm";
                        if (on)
                                merged(&f.vms[i], 512);
                }
                decide(&f);
                for (int i = 0; i < 8; i++)
                        taken[on] += f.plan.d[i].act ? f.plan.d[i].from - f.plan.d[i].to : 0;
                teardown(&f);
        }
        assert_in_range(taken[0], 560 * BL_MIB, 620 * BL_MIB);
        assert_in_range(taken[1], 2 * taken[0] - 16 * BL_MIB, 2 * taken[0] + 16 * BL_MIB);
}

/* One that is merged all over has nothing to give, however much is needed. */
static void test_all_merged(void **state)
{
        struct fixture f;

        (void)state;
        setup(&f, 200);
        merged(add(&f, "a", 0), 1022);
        add(&f, "b", 0);
        decide(&f);
        assert_false(f.plan.d[0].act);
        assert_true(f.plan.d[1].act && f.plan.d[1].to < f.plan.d[1].from);
        assert_true(f.plan.unmet > 0);
        teardown(&f);
}

/* What is on its way brings half, and the guests need twice as long to free something. */
static void test_coming(void **state)
{
        uint64_t lead[2], coming[2];

        (void)state;
        for (int on = 0; on <= 1; on++) {
                struct fixture f;

                setup(&f, 900);
                f.c.test.no_share_reserve = true;
                f.c.first_speed = 100 * BL_MIB;
                f.s.host.growth = 10 * BL_MIB;
                add(&f, "a", 0);
                if (on)
                        merged(&f.vms[0], 512);
                f.vms[0].target = 900 * BL_MIB;
                f.vms[0].target_at = NOW;
                decide(&f);
                lead[on] = f.plan.lead;
                coming[on] = f.plan.coming;
                teardown(&f);
        }
        assert_int_equal(coming[0], 124 * BL_MIB);
        assert_int_equal(coming[1], 62 * BL_MIB);
        assert_in_range(lead[1], lead[0] * 17 / 10, lead[0] * 2);
}

/* The same of what is swapped into the store: it brings less, and takes no less room there. */
static void test_store(void **state)
{
        struct bl_work w = {.swaps_below = 500 * BL_MIB, .merged_part = BL_MERGED_WHOLE / 4};
        struct bl_vm v = {.store = {.ratio = 2500, .ratio_known = true}};

        (void)state;
        w.vm = &v;
        assert_int_equal(bl_store_gain(&w, 600 * BL_MIB, 100 * BL_MIB), 75 * BL_MIB);
        assert_int_equal(bl_store_gain(&w, 500 * BL_MIB, 100 * BL_MIB), 50 * BL_MIB);
        v.store.ratio = 9000;
        assert_int_equal(bl_store_gain(&w, 500 * BL_MIB, 100 * BL_MIB), 0);

        for (int on = 0; on <= 2; on++) {
                struct fixture f;
                uint64_t swaps = 0;

                setup(&f, 100);
                f.c.test.no_share_reserve = true;
                f.s.store = (struct bl_store_state){.there = true,
                                                    .pool_size = 2 * BL_GIB,
                                                    .pool_ready = BL_GIB,
                                                    .headroom = 200 * BL_MIB,
                                                    .room = 4 * BL_GIB};
                for (int i = 0; i < 4; i++) {
                        char name[2] = {(char)('a' + i), '\0'};
                        struct bl_vm *g = add(&f, name, 0);

                        g->name = "vm";
                        g->stats.available = 20 * BL_MIB;
                        g->stats.swap_total = g->stats.swap_free = 512 * BL_MIB;
                        g->store = (struct bl_vm_store){.on = true,
                                                        .size = 512 * BL_MIB,
                                                        .limit = BL_UNSET,
                                                        .ratio = 2000,
                                                        .ratio_known = true};
                        if (on)
                                merged(g, on == 1 ? 512 : 600);
                }
                decide(&f);
                for (int i = 0; i < 4; i++)
                        swaps += f.plan.d[i].act ? bl_sub_sat(f.plan.d[i].from, f.plan.d[i].to) : 0;
                /* of one that is merged mostly it would take more room than it frees */
                assert_in_range(swaps, on < 2 ? 60 * BL_MIB : 0, on < 2 ? 100 * BL_MIB : 0);
                teardown(&f);
        }
}

/* Squeezed guests get back what is above twice minFree and the reserve, not more. */
static void test_rest(void **state)
{
        for (int on = 0; on <= 1; on++) {
                struct fixture f;

                (void)state;
                setup(&f, 60000);
                add(&f, "a", 0);
                merged(add(&f, "b", 0), 1000);
                f.vms[1].share.saved = 500 * BL_MIB;
                f.c.share_reserve = 10000;
                f.c.test.no_share_reserve = !on;
                f.vms[0].actual = f.vms[0].target = f.vms[0].stats.actual = 800 * BL_MIB;
                f.vms[0].resident = 840 * BL_MIB;
                f.vms[0].stats.total = 760 * BL_MIB;
                f.vms[0].offer[BL_ENGINE_BALLOON].gives = 224 * BL_MIB;
                f.vms[0].hold = BL_HOLD_ADMIN;
                decide(&f);
                assert_int_equal(f.plan.state, BL_STATE_HIGH);
                f.vms[0].hold = BL_HOLD_NONE;
                f.s.host.free = 2400 * BL_MIB;
                later(&f, 20 * BL_SEC);
                assert_int_equal(f.plan.state, BL_STATE_HIGH);
                assert_int_equal(f.plan.d[0].act, !on);
                teardown(&f);
        }
}

/* The kernel pages out nothing that others map, too. */
static void test_pageout(void **state)
{
        struct fixture f;
        struct bl_vm *v;

        (void)state;
        setup(&f, 200);
        v = merged(add(&f, "a", 0), 900);
        v->no_reclaim = BL_RECLAIM_NO_BALLOON;
        v->offer[BL_ENGINE_PAGEOUT].takes = BL_GIB;
        decide(&f);
        assert_int_equal(f.plan.d[0].engine, BL_ENGINE_PAGEOUT);
        assert_true(f.plan.d[0].act);
        assert_int_equal(f.plan.d[0].to, 900 * BL_MIB);
        teardown(&f);
}

/* --- nobody against his will ----------------------------------------------------------------------------- */

/* Page sharing is off, as it is shipped: what QEMU or others have registered stays as it is. */
static void test_off(void **state)
{
        struct fixture f;

        (void)state;
        setup(&f, 8000);
        f.s.share.mode = BL_SHARE_OFF;
        f.s.share.usable = false;
        merged(add(&f, "a", 300), 300)->share.mode = BL_SHARE_OFF;
        add(&f, "b", 300)->share.zero = 100 * BL_MIB;
        decide(&f);
        assert_drive(&f, false, BL_WHY_SHARE_OFF);
        drive_sentence(&f, "does not use KSM: page sharing is off (Mode= of [Sharing] in ballast.conf)");
        for (size_t i = 0; i < 2; i++) {
                assert_why(&f, i, BL_WHY_SHARE_OFF);
                assert_false(f.plan.share.d[i].act);
                assert_int_equal(f.plan.share.d[i].zero_out, 0);
        }
        sentence(&f, 0, "does not merge a: page sharing is off (Mode= of [Sharing] in ballast.conf)");
        /* what is ours is taken back */
        f.s.share.usable = true;
        decide(&f);
        assert_told(&f, 0, false);
        sentence(
                &f, 0,
                "takes a out of merging: page sharing is off (Mode= of [Sharing] in ballast.conf); that takes 300 MiB");
        teardown(&f);
}

/* One tree for the whole host: nobody is merged while one that must not be is in it, or may be. */
static void test_blocked(void **state)
{
        static const struct {
                enum bl_share_mode mode;
                enum bl_no_share no_share;
        } cases[] = {
                {BL_SHARE_OFF, BL_NO_SHARE_OK},           {BL_SHARE_ZERO, BL_NO_SHARE_OK},
                {BL_SHARE_ZERO, BL_NO_SHARE_OTHER_GROUP}, {BL_SHARE_GROUP, BL_NO_SHARE_TWO_GROUPS},
                {BL_SHARE_ZERO, BL_NO_SHARE_XML},
        };

        (void)state;
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                struct fixture f;
                struct bl_vm *v;

                setup(&f, 8000);
                add(&f, "a", 400);
                v = add(&f, "foreign", 400);
                v->share.mode = cases[i].mode;
                v->share.no_share = cases[i].no_share;

                v->share.merging = -1;
                decide(&f);
                assert_drive(&f, false, BL_WHY_SHARE_BLOCKED);
                assert_why(&f, 0, BL_WHY_SHARE_BLOCKED);
                assert_false(f.plan.share.d[0].act);
                assert_false(f.plan.share.d[1].act);
                drive_sentence(&f,
                               "keeps ksmd still: foreign must not be merged, and it is not known yet whether it is "
                               "registered");

                v->share.merging = 1;
                later(&f, BL_SEC);
                assert_drive(&f, false, BL_WHY_SHARE_BLOCKED);
                assert_false(f.plan.share.d[0].act);
                assert_why(&f, 1, BL_WHY_SHARE_LEAVE);
                assert_told(&f, 1, false);
                sentence(&f, 0, "does not merge a yet: foreign must not be merged, and is still registered");

                /* not before it is out, and not while it is told something */
                v->share.busy = true;
                later(&f, BL_SEC);
                assert_drive(&f, false, BL_WHY_SHARE_BLOCKED);
                assert_false(f.plan.share.d[1].act);
                sentence(&f, 1, "waits for foreign: it is being told to leave merging, which takes 0 bytes");
                v->share.merging = 0;
                later(&f, BL_SEC);
                assert_drive(&f, false, BL_WHY_SHARE_BLOCKED);
                v->share.busy = false;
                later(&f, BL_SEC);
                assert_drive(&f, true, BL_WHY_SHARE_DRIVE_NEW);
                assert_told(&f, 0, true);

                /* it comes back in the middle of a drive, as after a reboot */
                v->share.merging = 1;
                v->share.refused = true;
                later(&f, BL_SEC);
                assert_drive(&f, false, BL_WHY_SHARE_BLOCKED);
                assert_false(f.plan.share.d[1].act);
                sentence(&f, 1, "leaves foreign merged for now: its QEMU refused to take it out, and is asked again");
                teardown(&f);
        }
}

/* Somebody else sets KSM's knobs, or there is none: nothing is merged; a VM's own settings hold all the same. */
static void test_yielded(void **state)
{
        struct fixture f;

        (void)state;
        setup(&f, 8000);
        add(&f, "a", 400);
        merged(add(&f, "foreign", 0), 100)->share.mode = BL_SHARE_OFF;
        f.s.share.yielded = true;
        f.s.share.usable = false;
        decide(&f);
        assert_drive(&f, false, BL_WHY_SHARE_YIELDED);
        drive_sentence(&f, "leaves KSM alone: somebody else drives it ('ballastctl share resume' takes it back)");
        assert_why(&f, 0, BL_WHY_SHARE_YIELDED);
        sentence(&f, 0, "leaves a as it is: somebody else drives KSM");
        assert_false(f.plan.share.d[0].act);
        assert_told(&f, 1, false);
        f.s.share.yielded = false;
        decide(&f);
        assert_drive(&f, false, BL_WHY_SHARE_NOT_POSSIBLE);
        drive_sentence(&f, "cannot use KSM on this host");
        assert_why(&f, 0, BL_WHY_SHARE_NOT_POSSIBLE);
        sentence(&f, 0, "does not merge a: KSM cannot be used on this host");
        assert_false(f.plan.share.d[1].act);
        teardown(&f);
}

/* --- room ------------------------------------------------------------------------------------------------- */

/* To the byte: what is above the goal may be used, nothing else. */
static void test_room(void **state)
{
        struct fixture f;
        uint64_t goal;

        (void)state;
        setup(&f, 8000);
        merged(add(&f, "a", 0), 300)->share.mode = BL_SHARE_OFF;
        f.vms[0].hold = BL_HOLD_ADMIN;
        decide(&f);
        goal = f.plan.goal;
        assert_int_equal(goal, 1062 * BL_MIB + 512 * BL_KIB + f.plan.share.reserve * 17 / 16);
        f.s.host.free = goal + 300 * BL_MIB;
        decide(&f);
        assert_told(&f, 0, false);
        f.s.host.free--;
        decide(&f);
        assert_why(&f, 0, BL_WHY_SHARE_WAIT_ROOM);
        assert_false(f.plan.share.d[0].act);
        sentence(&f, 0,
                 "leaves a merged for now: taking it apart needs 300 MiB at once, and the host has 1.3 GiB free of a "
                 "1.1 GiB goal");
        f.c.test.no_share_room = true;
        decide(&f);
        assert_told(&f, 0, false);
        teardown(&f);
}

/* One at a time, the smallest first; one in which nothing is merged has nothing to wait for. */
static void test_one_at_a_time(void **state)
{
        struct fixture f;

        (void)state;
        setup(&f, 8000);
        merged(add(&f, "a", 0), 300)->share.mode = BL_SHARE_ZERO;
        merged(add(&f, "b", 0), 200)->share.mode = BL_SHARE_ZERO;
        merged(add(&f, "c", 0), 0)->share.mode = BL_SHARE_ZERO;
        decide(&f);
        assert_why(&f, 0, BL_WHY_SHARE_WAIT_TURN);
        sentence(&f, 0, "leaves a merged for now: another VM is taken apart first");
        assert_told(&f, 1, false);
        sentence(
                &f, 1,
                "takes b out of merging: only its pages of zeros may go, and nothing of it is merged with others; that "
                "takes 200 MiB");
        assert_told(&f, 2, false);

        /* while it is under way nobody else is told, and its memory is nobody else's */
        f.vms[1].share.busy = true;
        f.vms[2].share.merging = 0;
        later(&f, BL_SEC);
        assert_why(&f, 0, BL_WHY_SHARE_WAIT_TURN);
        assert_false(f.plan.share.d[0].act);
        f.vms[1].share.busy = false;
        f.vms[1].share.merging = 0;
        f.vms[1].share.merged = f.vms[1].share.saved = f.vms[1].share.breaks = 0;
        later(&f, BL_SEC);
        assert_told(&f, 0, false);
        teardown(&f);
}

/* Guests give idle memory for it, where that is enough, and nobody gets it before. */
static void test_take_for_it(void **state)
{
        struct fixture f;
        uint64_t taken = 0;
        char text[300];

        (void)state;
        setup(&f, 1200);
        merged(add(&f, "a", 0), 400)->share.mode = BL_SHARE_OFF;
        add(&f, "b", 0);
        add(&f, "c", 0);
        f.vms[0].hold = BL_HOLD_ADMIN;
        decide(&f);
        assert_why(&f, 0, BL_WHY_SHARE_WAIT_ROOM);
        for (size_t i = 1; i < 3; i++) {
                assert_true(f.plan.d[i].act);
                assert_int_equal(f.plan.d[i].why, BL_WHY_TAKE_UNMERGE);
                taken += f.plan.d[i].from - f.plan.d[i].to;
        }
        /* 400 of which 1200 - goal are there */
        assert_in_range(taken, f.plan.goal + 400 * BL_MIB - 1200 * BL_MIB,
                        f.plan.goal + 400 * BL_MIB - 1200 * BL_MIB + 4 * BL_MIB);
        bl_explain(&f.plan, &f.s, 1, text, sizeof(text));
        assert_non_null(strstr(text, "merged memory of another VM is to be taken apart, which needs room"));

        /* it would not be enough */
        f.vms[0].share.merged = f.vms[0].share.breaks = 990 * BL_MIB;
        f.vms[0].share.saved = 495 * BL_MIB;
        f.vms[1].stats.available = f.vms[2].stats.available = 180 * BL_MIB;
        decide(&f);
        assert_false(f.plan.d[1].act || f.plan.d[2].act);
        teardown(&f);
}

/* Memory that one is taken apart into is not given to another one. */
static void test_set_aside(void **state)
{
        struct fixture f;

        (void)state;
        setup(&f, 8000);
        merged(add(&f, "a", 0), 300)->share.mode = BL_SHARE_OFF;
        add(&f, "b", 0);
        f.vms[1].actual = f.vms[1].target = f.vms[1].stats.actual = 700 * BL_MIB;
        f.vms[1].resident = 740 * BL_MIB;
        f.vms[1].stats.total = 660 * BL_MIB;
        f.vms[1].stats.available = 20 * BL_MIB;
        f.vms[1].offer[BL_ENGINE_BALLOON].gives = 324 * BL_MIB;
        f.vms[0].hold = BL_HOLD_ADMIN;
        /* the goal and 310 MiB */
        f.s.host.free = 1062 * BL_MIB + 512 * BL_KIB + 16 * BL_MIB + 310 * BL_MIB;
        for (int busy = 0; busy <= 1; busy++) {
                f.vms[0].share.busy = busy;
                decide(&f);
                assert_int_equal(f.plan.share.d[0].act, !busy);
                assert_true(!f.plan.d[1].act || f.plan.d[1].to - f.plan.d[1].from <= 11 * BL_MIB);
        }
        /* and it is when that is over */
        f.vms[0].share = (struct bl_vm_share){};
        later(&f, BL_SEC);
        assert_true(f.plan.d[1].act && f.plan.d[1].to - f.plan.d[1].from > 50 * BL_MIB);
        teardown(&f);
}

/* What un-merging took is no growth that others would have to make room for. */
static void test_not_growth(void **state)
{
        struct fixture f;

        (void)state;
        for (int known = 0; known <= 1; known++) {
                setup(&f, 3000);
                add(&f, "a", 0);
                add(&f, "b", 0);
                if (known)
                        merged(&f.vms[0], 400)->share.mode = BL_SHARE_OFF;
                decide(&f);
                assert_int_equal(f.plan.share.d[0].act, known);
                f.vms[0].share.merging = 0;
                f.vms[0].share.merged = f.vms[0].share.saved = f.vms[0].share.breaks = 0;
                f.s.host.free -= 400 * BL_MIB;
                f.s.host.growth = 400 * BL_MIB;
                later(&f, BL_SEC);
                if (known)
                        assert_int_equal(f.plan.lead, 0);
                else
                        assert_true(f.plan.lead >= 40 * BL_MIB);
                teardown(&f);
        }
}

/* --- who comes -------------------------------------------------------------------------------------------- */

static void test_merge(void **state)
{
        struct fixture f;
        struct bl_vm *v;

        (void)state;
        setup(&f, 8000);
        add(&f, "a", 400);
        add(&f, "b", 300);
        add(&f, "private", 3);
        v = add(&f, "new", 0);
        v->share.evidence_at = 0;
        v = add(&f, "unsure", 20);
        v->share.gain_high = 300 * BL_MIB;
        decide(&f);
        assert_drive(&f, true, BL_WHY_SHARE_DRIVE_NEW);
        assert_int_equal(f.plan.share.gain, 700 * BL_MIB);
        drive_sentence(&f, "drives ksmd: VMs have come of which about 700 MiB are to be merged still");
        assert_told(&f, 0, true);
        assert_told(&f, 1, true);
        sentence(&f, 0, "merges a: about 400 MiB of its 1.0 GiB have copies, 68 MiB for a CPU-second of ksmd");
        assert_why(&f, 2, BL_WHY_SHARE_NO_GAIN);
        sentence(&f, 2,
                 "does not merge private: about 3 MiB of its 1.0 GiB have copies, which is too little, or was promised "
                 "before and did not come");
        assert_why(&f, 3, BL_WHY_SHARE_WAIT_EVIDENCE);
        sentence(&f, 3, "does not merge new yet: not enough of it was looked at");
        assert_why(&f, 4, BL_WHY_SHARE_WAIT_EVIDENCE);
        sentence(
                &f, 4,
                "does not merge unsure yet: between 20 MiB and 300 MiB of it have copies, and more of it is looked at");

        /* told once; what is under way is waited for, and so is what can be told nothing now */
        f.vms[0].share.busy = true;
        f.vms[1].run = BL_RUN_MIGRATING;
        later(&f, BL_SEC);
        assert_false(f.plan.share.d[1].act);
        assert_why(&f, 0, BL_WHY_SHARE_MERGE);
        assert_false(f.plan.share.d[0].act);
        sentence(
                &f, 0,
                "waits for a, which is being merged: about 400 MiB of its 1.0 GiB have copies, 68 MiB for a CPU-second "
                "of ksmd");
        /* not for ever: the estimate decides */
        later(&f, 5 * BL_SEC);
        assert_why(&f, 3, BL_WHY_SHARE_WAIT_EVIDENCE);
        assert_why(&f, 4, BL_WHY_SHARE_NO_GAIN);
        teardown(&f);
}

/* Left as they are, whatever they would bring. */
static void test_not_now(void **state)
{
        struct fixture f;

        (void)state;
        setup(&f, 8000);
        add(&f, "hung", 400)->hung = true;
        add(&f, "moving", 400)->run = BL_RUN_MIGRATING;
        add(&f, "refused", 400)->share.refused = true;
        add(&f, "unknown", 400)->share.merging = -1;
        add(&f, "going", 400);
        f.vms[4].target = 900 * BL_MIB;
        f.vms[4].target_at = NOW;
        decide(&f);
        assert_drive(&f, false, BL_WHY_SHARE_REST_NONE);
        drive_sentence(&f, "lets ksmd rest: there is nothing to merge");
        assert_why(&f, 0, BL_WHY_SKIP_HUNG);
        sentence(&f, 0, "does not merge hung yet: a call to it has not come back");
        assert_why(&f, 1, BL_WHY_SKIP_MIGRATING);
        sentence(&f, 1, "does not merge moving yet: it is being migrated");
        assert_why(&f, 2, BL_WHY_SHARE_NOT_POSSIBLE);
        sentence(&f, 2, "does not merge refused: its QEMU refused, and is asked again");
        assert_why(&f, 3, BL_WHY_SHARE_WAIT_EVIDENCE);
        sentence(&f, 3, "does not merge unknown yet: it is not known yet whether it is registered");
        assert_why(&f, 4, BL_WHY_SHARE_WAIT_BALLOON);
        sentence(&f, 4, "does not merge going yet: a part of its memory is about to be taken");
        for (size_t i = 0; i < 5; i++)
                assert_false(f.plan.share.d[i].act);
        /* it has arrived */
        f.vms[4].actual = f.vms[4].stats.actual = 900 * BL_MIB;
        f.vms[4].resident = 940 * BL_MIB;
        later(&f, BL_SEC);
        assert_told(&f, 4, true);
        teardown(&f);
}

/* Those that its balloon decision of the same tick takes from wait, too. */
static void test_same_tick(void **state)
{
        struct fixture f;

        (void)state;
        setup(&f, 500);
        add(&f, "a", 300);
        decide(&f);
        assert_true(f.plan.d[0].act && f.plan.d[0].to < f.plan.d[0].from);
        assert_why(&f, 0, BL_WHY_SHARE_WAIT_BALLOON);
        assert_drive(&f, false, BL_WHY_SHARE_REST_NONE);
        teardown(&f);
}

/* Densest first; the rest when those are merged, and if it pays for a pass over all of them. */
static void test_batches(void **state)
{
        struct fixture f;

        (void)state;
        setup(&f, 8000);
        add(&f, "a", 400);
        add(&f, "b", 20)->share.present = 256 * BL_MIB;
        add(&f, "c", 20)->share.present = 256 * BL_MIB;
        f.c.share_pays = 3 * BL_MIB;
        /* registered by its QEMU: it is in the way of the others */
        f.vms[2].share.merging = 1;
        decide(&f);
        assert_told(&f, 0, true);
        assert_why(&f, 1, BL_WHY_SHARE_WAIT_TURN);
        assert_false(f.plan.share.d[1].act);
        sentence(&f, 1,
                 "does not merge b yet: about 20 MiB of its 256 MiB have copies, and others bring more for the time of "
                 "ksmd");
        assert_why(&f, 2, BL_WHY_SHARE_WAIT_TURN);
        assert_told(&f, 2, false);
        sentence(&f, 2,
                 "takes c out of merging: about 20 MiB of its 256 MiB have copies, and others bring more for the time "
                 "of "
                 "ksmd");

        ksmd(&f, 0, 0);
        f.vms[0].share.merged = f.vms[0].share.saved = 400 * BL_MIB;
        ksmd(&f, 1, 0);
        ksmd(&f, 1, 400);
        f.vms[0].share.gain = f.vms[0].share.gain_low = f.vms[0].share.gain_high = 0;
        assert_why(&f, 0, BL_WHY_SHARE_MERGE);
        assert_why(&f, 1, BL_WHY_SHARE_WAIT_TURN);
        /* the last window did not bring anything: the next batch, without a rest */
        ksmd(&f, 0, 0);
        assert_drive(&f, true, BL_WHY_SHARE_DRIVE_NEW);
        assert_why(&f, 0, BL_WHY_SHARE_KEEP);
        sentence(&f, 0, "keeps a merged: 400 MiB of its 1.0 GiB are, which saves 400 MiB");
        assert_told(&f, 1, true);
        assert_told(&f, 2, true);
        teardown(&f);
}

/* One of which it is not certain whether it pays is not gone over meanwhile; one of which nothing is known yet stays.
 */
static void test_unsure_in_the_way(void **state)
{
        struct fixture f;

        (void)state;
        setup(&f, 8000);
        add(&f, "a", 400);
        add(&f, "b", 20)->share.merging = 1;
        add(&f, "c", 0)->share.merging = 1;
        f.vms[1].share.gain_low = 0;
        f.vms[1].share.gain_high = 200 * BL_MIB;
        f.vms[2].share.evidence_at = 0;
        decide(&f);
        assert_told(&f, 0, true);
        assert_why(&f, 1, BL_WHY_SHARE_WAIT_EVIDENCE);
        assert_told(&f, 1, false);
        sentence(&f, 1,
                 "takes b out of merging: between 0 bytes and 200 MiB of it have copies, and more of it is looked at");
        assert_why(&f, 2, BL_WHY_SHARE_WAIT_EVIDENCE);
        assert_false(f.plan.share.d[2].act);
        teardown(&f);
}

/* A pass goes over all that is registered and not merged: one small VM more is not worth that, several are. */
static void test_alone_not_worth_it(void **state)
{
        struct fixture f;

        (void)state;
        setup(&f, 60000);
        for (int i = 0; i < 20; i++) {
                char name[2] = {(char)('a' + i), '\0'};

                merged(add(&f, name, 0), 400)->name = "old";
        }
        add(&f, "late", 200)->share.present = 400 * BL_MIB;
        decide(&f);
        assert_drive(&f, false, BL_WHY_SHARE_REST_NONE);
        assert_why(&f, 20, BL_WHY_SHARE_WAIT_TURN);
        sentence(&f, 20,
                 "does not merge late yet: about 200 MiB of its 400 MiB have copies, which alone is not worth a pass "
                 "over "
                 "all that is merged");
        for (int i = 1; i < 4; i++)
                add(&f, i == 1 ? "late1" : i == 2 ? "late2" : "late3", 200)->share.present = 400 * BL_MIB;
        later(&f, BL_SEC);
        assert_drive(&f, true, BL_WHY_SHARE_DRIVE_NEW);
        for (size_t i = 20; i < 24; i++)
                assert_told(&f, i, true);
        teardown(&f);
}

/* What is merged costs ksmd next to nothing: among VMs of which nearly all is, one more is worth it. */
static void test_merged_is_cheap(void **state)
{
        struct fixture f;
        struct bl_vm *v;

        (void)state;
        setup(&f, 60000);
        for (int i = 0; i < 20; i++) {
                char name[2] = {(char)('a' + i), '\0'};

                v = merged(add(&f, name, 0), 924);
                v->name = "old";
                assert_int_equal(bl_sharing_effort(v), 100 * BL_MIB + 924 * BL_MIB / 20);
        }
        add(&f, "late", 200)->share.present = 400 * BL_MIB;
        assert_int_equal(bl_sharing_effort(&f.vms[20]), 400 * BL_MIB);
        decide(&f);
        assert_drive(&f, true, BL_WHY_SHARE_DRIVE_NEW);
        assert_told(&f, 20, true);
        teardown(&f);
}

/* --- rounds ----------------------------------------------------------------------------------------------- */

/* Two passes from when the last VM came; a third where what was promised is still to be seen. */
static void test_passes(void **state)
{
        struct fixture f;

        (void)state;
        for (int comes = 0; comes <= 1; comes++) {
                setup(&f, 8000);
                f.s.share.full_scans = 7;
                add(&f, "a", 400);
                add(&f, "b", 400);
                decide(&f);
                ksmd(&f, 0, 0);
                ksmd(&f, 1, 0);
                assert_drive(&f, true, BL_WHY_SHARE_DRIVE_NEW);
                /* another one comes in the middle */
                add(&f, "c", 400);
                later(&f, BL_SEC);
                assert_told(&f, 2, true);
                ksmd(&f, 0, 0);
                ksmd(&f, 1, 0);
                if (comes) {
                        for (size_t i = 0; i < 3; i++)
                                f.vms[i].share.merged = 400 * BL_MIB;
                        ksmd(&f, 1, 1200);
                        ksmd(&f, 0, 0);
                        assert_drive(&f, false, BL_WHY_SHARE_REST);
                        drive_sentence(
                                &f, "lets ksmd rest: what is left does not pay for its time; 1.2 GiB are merged, and "
                                    "stay so");
                        assert_int_equal(f.plan.share.gain, 0);
                } else {
                        ksmd(&f, 1, 0);
                        assert_drive(&f, true, BL_WHY_SHARE_DRIVE_NEW);
                        ksmd(&f, 1, 0);
                        assert_drive(&f, false, BL_WHY_SHARE_REST);
                }
                teardown(&f);
        }
}

/* Of VMs that come to others what the others have merged is merged at once, and what only they have at the second look:
 * a pass later than in a drive that begins with them. */
static void test_third_pass(void **state)
{
        struct fixture f;

        (void)state;
        for (int missing = 100; missing >= 0; missing -= 95) {
                setup(&f, 8000);
                merged(add(&f, "a", 0), 900);
                add(&f, "b", 400);
                decide(&f);
                ksmd(&f, 0, 0);
                assert_drive(&f, true, BL_WHY_SHARE_DRIVE_NEW);
                f.vms[1].share.merged = (uint64_t)(400 - missing) * BL_MIB;
                ksmd(&f, 1, (uint64_t)(400 - missing));
                ksmd(&f, 1, 0);
                assert_int_equal(f.plan.share.drive, missing == 100);
                if (missing == 100) {
                        ksmd(&f, 1, 0);
                        assert_false(f.plan.share.drive);
                }
                teardown(&f);
        }
}

/* It goes on while it pays, and no longer. */
static void test_window(void **state)
{
        struct fixture f;

        (void)state;
        setup(&f, 8000);
        add(&f, "a", 400);
        decide(&f);
        ksmd(&f, 0, 0);
        f.vms[0].share.merged = 400 * BL_MIB;
        ksmd(&f, 2, 400);
        drive_sentence(&f, "drives ksmd: what was promised is merged, and the passes are not over");
        for (int i = 0; i < 20; i++) {
                ksmd(&f, 0, 9);
                assert_drive(&f, true, BL_WHY_SHARE_DRIVE_NEW);
        }
        /* too short a time to judge by */
        f.s.share.ksmd_cpu += 100 * BL_MSEC;
        later(&f, BL_SEC);
        assert_true(f.plan.share.drive);
        f.s.share.ksmd_cpu += 100 * BL_MSEC;
        f.s.share.merged += BL_MIB;
        later(&f, BL_SEC);
        assert_drive(&f, false, BL_WHY_SHARE_REST);
        teardown(&f);
}

/* Where ksmd's time cannot be read, its passes tell. */
static void test_no_cpu_time(void **state)
{
        struct fixture f;

        (void)state;
        setup(&f, 8000);
        f.s.share.ksmd_cpu = BL_UNSET;
        f.s.share.registered = BL_GIB;
        add(&f, "a", 400);
        decide(&f);
        f.vms[0].share.merging = 1;
        later(&f, BL_SEC);
        f.vms[0].share.merged = 400 * BL_MIB;
        f.s.share.merged = 400 * BL_MIB;
        f.s.share.full_scans += 2;
        later(&f, BL_SEC);
        assert_true(f.plan.share.drive);
        later(&f, 100 * BL_SEC);
        assert_true(f.plan.share.drive);
        f.s.share.full_scans++;
        later(&f, BL_SEC);
        assert_drive(&f, false, BL_WHY_SHARE_REST);
        teardown(&f);
}

/* ksmd does nothing: QEMU says that it is registered, and the kernel does not know of it. */
static void test_idle_ksmd(void **state)
{
        struct fixture f;

        (void)state;
        setup(&f, 8000);
        add(&f, "a", 400);
        decide(&f);
        f.vms[0].share.merging = 1;
        for (int i = 0; i < 5; i++) {
                later(&f, BL_SEC);
                assert_true(f.plan.share.drive);
        }
        later(&f, 6 * BL_SEC);
        assert_drive(&f, false, BL_WHY_SHARE_REST);
        /* it leaves, and is tried again later */
        later(&f, 11 * BL_SEC);
        assert_told(&f, 0, false);
        ksmd(&f, 0, 0);
        assert_why(&f, 0, BL_WHY_SHARE_NO_GAIN);
        later(&f, 30 * BL_SEC);
        assert_told(&f, 0, true);
        teardown(&f);
}

/* A VM that does not come is not waited for. */
static void test_does_not_come(void **state)
{
        struct fixture f;

        (void)state;
        for (int how = 0; how <= 3; how++) {
                setup(&f, 8000);
                add(&f, "a", 400);
                decide(&f);
                assert_true(f.plan.share.drive);
                f.vms[0].share.busy = how < 3;
                if (how == 0)
                        f.vms[0].share.refused = true;
                else if (how == 1)
                        f.vms[0].hung = true;
                else if (how == 3)
                        f.vms[0].share.mode = BL_SHARE_OFF;
                later(&f, how == 2 ? 9 * BL_SEC : BL_SEC);
                if (how == 2) {
                        assert_true(f.plan.share.drive);
                        later(&f, 2 * BL_SEC);
                }
                assert_false(f.plan.share.drive);
                /* and told again when it can be */
                f.vms[0].share.busy = f.vms[0].share.refused = f.vms[0].hung = false;
                f.vms[0].share.mode = BL_SHARE_GROUP;
                later(&f, 31 * BL_SEC);
                assert_told(&f, 0, true);
                teardown(&f);
        }
}

/* Two VMs of which 400 MiB have copies came, and in so many passes so much of each was merged: ksmd rests. */
static void two_merged(struct fixture *f, uint64_t passes, uint64_t mib)
{
        setup(f, 8000);
        add(f, "a", 400);
        add(f, "b", 400);
        decide(f);
        ksmd(f, 0, 0);
        f->vms[0].share.merged = f->vms[1].share.merged = mib * BL_MIB;
        ksmd(f, passes, 2 * mib);
        ksmd(f, 0, 0);
        assert_drive(f, false, BL_WHY_SHARE_REST);
}

/* Samples are older than the drive: what it left behind wakes nobody, what grows does. */
static void test_stale_evidence(void **state)
{
        struct fixture f;

        (void)state;
        two_merged(&f, 2, 400);
        for (int i = 0; i < 100; i++) {
                later(&f, BL_SEC);
                assert_false(f.plan.share.drive);
        }
        /* the samples catch up, and then something grows */
        f.vms[0].share.gain_low = f.vms[0].share.gain = 10 * BL_MIB;
        later(&f, BL_SEC);
        f.vms[0].share.gain_low = f.vms[0].share.gain = 25 * BL_MIB;
        later(&f, BL_SEC);
        assert_false(f.plan.share.drive);
        f.vms[0].share.gain_low = f.vms[0].share.gain = 48 * BL_MIB;
        later(&f, BL_SEC);
        assert_drive(&f, true, BL_WHY_SHARE_DRIVE);
        drive_sentence(&f, "drives ksmd: duplicates have grown of which about 38 MiB are to be merged still");
        /* nobody comes; and the other's old promise is still none */
        ksmd(&f, 3, 38);
        ksmd(&f, 0, 0);
        assert_drive(&f, false, BL_WHY_SHARE_REST);
        for (int i = 0; i < 9; i++)
                later(&f, 60 * BL_SEC);
        assert_false(f.plan.share.drive);
        /* by then all samples are new */
        later(&f, 60 * BL_SEC);
        assert_true(f.plan.share.drive);
        teardown(&f);
}

/* ksmd goes on where it stopped: what has grown anywhere is merged after two whole passes and the rest of one. */
static void test_grown_passes(void **state)
{
        struct fixture f;

        (void)state;
        setup(&f, 8000);
        merged(add(&f, "a", 60), 400);
        merged(add(&f, "b", 60), 400);
        decide(&f);
        assert_drive(&f, true, BL_WHY_SHARE_DRIVE);
        later(&f, BL_SEC);
        /* more than was sure to come, and all that lay behind the cursor is still to come */
        ksmd(&f, 1, 0);
        ksmd(&f, 1, 130);
        ksmd(&f, 0, 0);
        assert_drive(&f, true, BL_WHY_SHARE_DRIVE);
        ksmd(&f, 1, 60);
        ksmd(&f, 0, 0);
        assert_drive(&f, false, BL_WHY_SHARE_REST);
        teardown(&f);
}

/* While a VM is sampled anew nothing is known of it: what a drive has left behind is no news afterwards, either. */
static void test_left_behind(void **state)
{
        struct fixture f;

        (void)state;
        two_merged(&f, 3, 300);
        for (int known = 0; known <= 1; known++) {
                uint64_t mib = known ? 100 : 0;

                for (size_t i = 0; i < 2; i++) {
                        f.vms[i].share.evidence_at = known ? f.s.at : 0;
                        f.vms[i].share.gain = f.vms[i].share.gain_low = mib * BL_MIB;
                }
                later(&f, BL_SEC);
                assert_false(f.plan.share.drive);
        }
        f.vms[0].share.gain = f.vms[0].share.gain_low = 150 * BL_MIB;
        later(&f, BL_SEC);
        assert_drive(&f, true, BL_WHY_SHARE_DRIVE);
        drive_sentence(&f, "drives ksmd: duplicates have grown of which about 50 MiB are to be merged still");
        teardown(&f);
}

/* Evidence that does not come true is believed later and later; ten minutes at most. */
static void test_back_off(void **state)
{
        static const usec_t waits[] = {30, 60, 120, 240, 480, 600, 600};
        struct fixture f;

        (void)state;
        setup(&f, 8000);
        merged(add(&f, "a", 60), 400);
        merged(add(&f, "b", 0), 400);
        decide(&f);
        assert_drive(&f, true, BL_WHY_SHARE_DRIVE);
        for (size_t i = 0; i < sizeof(waits) / sizeof(waits[0]); i++) {
                usec_t ended;

                later(&f, BL_SEC);
                for (int k = 0; k < 2; k++) {
                        ksmd(&f, 1, 0);
                        assert_true(f.plan.share.drive);
                }
                ksmd(&f, 1, 0);
                assert_drive(&f, false, BL_WHY_SHARE_REST);
                ended = f.s.at;
                /* however much more is promised */
                f.vms[0].share.gain_low = f.vms[0].share.gain += BL_MIB * 40;
                later(&f, waits[i] * BL_SEC - BL_SEC);
                assert_false(f.plan.share.drive);
                later(&f, BL_SEC);
                assert_true(f.plan.share.drive);
                assert_int_equal(f.s.at - ended, waits[i] * BL_SEC);
        }
        /* one that comes true is believed at once again */
        later(&f, BL_SEC);
        f.vms[0].share.merged += 300 * BL_MIB;
        ksmd(&f, 2, 300);
        ksmd(&f, 1, 0);
        assert_drive(&f, false, BL_WHY_SHARE_REST);
        f.vms[0].share.gain_low = f.vms[0].share.gain += 40 * BL_MIB;
        later(&f, BL_SEC);
        assert_drive(&f, true, BL_WHY_SHARE_DRIVE);
        teardown(&f);
}

/* Those that promised in vain come together, or each would have a drive of its own. */
static void test_back_off_together(void **state)
{
        struct fixture f;
        usec_t ended;

        (void)state;
        setup(&f, 8000);
        add(&f, "a", 400);
        add(&f, "b", 400)->share.evidence_at = 0;
        for (size_t i = 0; i < 2; i++) {
                f.vms[1].share.evidence_at = i;
                decide(&f);
                assert_told(&f, i, true);
                ksmd(&f, 0, 0);
                ksmd(&f, 3, 0);
                assert_false(f.plan.share.drive);
        }
        ended = f.s.at;
        /* the first one's half minute is over, the second failure is remembered for a minute */
        for (int i = 0; i < 59; i++) {
                ksmd(&f, 0, 0);
                assert_false(f.plan.share.drive);
        }
        ksmd(&f, 0, 0);
        assert_int_equal(f.s.at - ended, 60 * BL_SEC);
        assert_true(f.plan.share.drive);
        for (size_t i = 0; i < 2; i++)
                assert_why(&f, i, BL_WHY_SHARE_MERGE);
        teardown(&f);
}

/* While our word has not reached ksmd no pass counts. */
static void test_not_driven_yet(void **state)
{
        struct fixture f;

        (void)state;
        setup(&f, 8000);
        add(&f, "a", 400);
        decide(&f);
        f.vms[0].share.merging = 1;
        for (int i = 0; i < 20; i++) {
                /* somebody else's passes, as it were */
                f.s.share.full_scans++;
                later(&f, BL_SEC);
                f.s.share.driven = false;
                decide(&f);
                assert_true(f.plan.share.drive);
        }
        ksmd(&f, 2, 0);
        assert_true(f.plan.share.drive);
        ksmd(&f, 1, 0);
        assert_false(f.plan.share.drive);
        teardown(&f);
}

/* Merged pages are written to fast, and the host is short: they are not merged again and again. */
static void test_breaking(void **state)
{
        struct fixture f;

        (void)state;
        setup(&f, 500);
        merged(add(&f, "a", 100), 400);
        add(&f, "b", 300);
        f.vms[0].hold = f.vms[1].hold = BL_HOLD_ADMIN;
        f.s.share.broken = BL_GIB;
        f.vms[0].share.gain_low = 0;
        f.vms[1].share.evidence_at = 0;
        decide(&f);
        assert_int_equal(f.plan.state, BL_STATE_SOFT);
        assert_false(f.plan.share.drive);
        f.s.share.broken += 20 * BL_MIB;
        f.vms[0].share.gain_low = 100 * BL_MIB;
        f.vms[1].share.evidence_at = NOW;
        later(&f, BL_SEC);
        assert_drive(&f, false, BL_WHY_SHARE_BREAKING);
        drive_sentence(&f,
                       "lets ksmd rest: what is merged breaks apart fast, and the host has 500 MiB free of a 1.1 GiB "
                       "goal");
        assert_why(&f, 1, BL_WHY_SHARE_BREAKING);
        sentence(&f, 1,
                 "does not merge b yet: what is merged breaks apart fast, and the host has 500 MiB free of a 1.1 GiB "
                 "goal");
        /* it is over within seconds */
        later(&f, BL_SEC);
        assert_true(f.plan.share.drive);
        assert_told(&f, 1, true);
        teardown(&f);
}

/* One that is not worth it any more leaves, alone, and if there is room; and does not come back at once. */
static void test_pays_no_more(void **state)
{
        struct fixture f;
        struct bl_vm *v;

        (void)state;
        setup(&f, 8000);
        merged(add(&f, "a", 0), 4);
        merged(add(&f, "b", 0), 4);
        merged(add(&f, "c", 0), 400);
        decide(&f);
        assert_why(&f, 0, BL_WHY_SHARE_LEAVE);
        assert_told(&f, 0, false);
        sentence(&f, 0,
                 "takes a out of merging: it saves 2 MiB, less than the kernel keeps for its 1.0 GiB, or a quarter of "
                 "that and of "
                 "what passes over it cost; that takes 4 MiB");
        assert_why(&f, 1, BL_WHY_SHARE_KEEP);
        ksmd(&f, 0, 0);
        assert_told(&f, 1, false);
        assert_why(&f, 2, BL_WHY_SHARE_KEEP);
        f.vms[0].share.gain = f.vms[0].share.gain_low = f.vms[0].share.gain_high = 300 * BL_MIB;
        later(&f, 20 * BL_SEC);
        assert_why(&f, 0, BL_WHY_SHARE_NO_GAIN);
        later(&f, 20 * BL_SEC);
        assert_told(&f, 0, true);
        teardown(&f);

        /* one that has just come has time, as figures of what is merged are some seconds behind */
        setup(&f, 8000);
        merged(add(&f, "a", 0), 4)->share.merging_at = NOW - 5 * BL_SEC;
        decide(&f);
        assert_why(&f, 0, BL_WHY_SHARE_KEEP);
        later(&f, 6 * BL_SEC);
        assert_told(&f, 0, false);
        teardown(&f);

        /* nor is it judged by what was saved before; for as long as it takes to measure that */
        setup(&f, 8000);
        v = merged(add(&f, "a", 0), 4);
        v->share.saved_at = v->share.merging_at - 1;
        decide(&f);
        assert_why(&f, 0, BL_WHY_SHARE_KEEP);
        later(&f, 40 * BL_SEC);
        assert_why(&f, 0, BL_WHY_SHARE_KEEP);
        v->share.saved_at = f.s.at;
        later(&f, BL_SEC);
        assert_told(&f, 0, false);
        v->share.saved_at = v->share.merging_at - 1;
        later(&f, 20 * BL_SEC);
        assert_told(&f, 0, false);
        teardown(&f);

        /* without room it stays; so does one of which nothing is known */
        setup(&f, 1060);
        merged(add(&f, "a", 0), 4);
        f.vms[0].hold = BL_HOLD_ADMIN;
        decide(&f);
        assert_why(&f, 0, BL_WHY_SHARE_KEEP);
        f.s.host.free = 8 * BL_GIB;
        f.vms[0].share.evidence_at = 0;
        decide(&f);
        assert_why(&f, 0, BL_WHY_SHARE_KEEP);
        teardown(&f);
}

/* --- zero pages ------------------------------------------------------------------------------------------- */

static void test_zero(void **state)
{
        struct fixture f;

        (void)state;
        for (int host = BL_SHARE_OFF; host <= BL_SHARE_GROUP; host++) {
                setup(&f, 8000);
                f.s.share.mode = (enum bl_share_mode)host;
                f.s.share.usable = host == BL_SHARE_GROUP;
                add(&f, "zero", 0)->share.mode = BL_SHARE_ZERO;
                add(&f, "refused", 0)->share.mode = BL_SHARE_ZERO;
                add(&f, "off", 0)->share.mode = BL_SHARE_OFF;
                add(&f, "noswap", 0)->share.mode = BL_SHARE_ZERO;
                add(&f, "busy", 0)->share.mode = BL_SHARE_ZERO;
                add(&f, "little", 0)->share.mode = BL_SHARE_ZERO;
                add(&f, "dense", 300);
                add(&f, "private", 0);
                for (size_t i = 0; i < f.s.n_vms; i++)
                        f.vms[i].share.zero = 50 * BL_MIB;
                f.vms[1].share.no_share = BL_NO_SHARE_OTHER_GROUP;
                f.vms[3].share.no_share = BL_NO_SHARE_NO_SWAP;
                f.vms[3].share.zero_possible = false;
                f.vms[4].share.busy = true;
                f.vms[5].share.zero = 3 * BL_MIB;
                decide(&f);
                for (size_t i = 0; i < f.s.n_vms; i++) {
                        const struct bl_share_decision *d = &f.plan.share.d[i];
                        bool out = host > BL_SHARE_OFF && (i < 2 || i == 7 || (i == 6 && host == BL_SHARE_ZERO));

                        /* busy: it might be about to be registered, so nobody comes */
                        if (host == BL_SHARE_GROUP && i == 6)
                                assert_int_equal(d->why, BL_WHY_SHARE_BLOCKED);
                        assert_int_equal(d->zero_out, out ? 50 * BL_MIB : 0);
                        assert_int_equal(d->why == BL_WHY_SHARE_ZERO, out);
                        assert_false(d->act);
                }
                if (host == BL_SHARE_ZERO) {
                        sentence(&f, 0, "pages 50 MiB of zero out, which are zeros");
                        sentence(&f, 3,
                                 "does not merge noswap: the host has no swap, which pages of zeros need to go out "
                                 "('ballastctl tiers setup' makes one)");
                        drive_sentence(&f, "does not use KSM: only pages of zeros go out, and nothing is merged");
                }
                teardown(&f);
        }
}

/* --- anything --------------------------------------------------------------------------------------------- */

static uint64_t next(uint64_t *seed)
{
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        return *seed;
}

/* Sizes of all magnitudes, and those at which arithmetic breaks. */
static uint64_t any_size(uint64_t *seed)
{
        static const uint64_t odd[] = {0, 1, 4095, BL_MIB, UINT64_MAX, UINT64_MAX - 1, UINT64_MAX / 2};
        uint64_t r = next(seed);

        if (r % 16 == 0)
                return odd[next(seed) % (sizeof(odd) / sizeof(odd[0]))];
        return r >> (r % 53 + 8);
}

static void anything(struct fixture *f, uint64_t *seed)
{
        struct bl_share_state *s = &f->s.share;

        for (size_t i = 0; i < f->s.n_vms; i++) {
                struct bl_vm *v = &f->vms[i];
                struct bl_vm_share *h = &v->share;

                if (next(seed) % 3 == 0)
                        continue;
                if (next(seed) % 8 == 0)
                        h->mode = (enum bl_share_mode)(next(seed) % _BL_SHARE_MODE_MAX);
                else if (next(seed) % 4 == 0)
                        h->mode = BL_SHARE_GROUP;
                h->no_share = next(seed) % 16 ? BL_NO_SHARE_OK : (enum bl_no_share)(next(seed) % _BL_NO_SHARE_MAX);
                if (next(seed) % 4 == 0)
                        h->merging = (int)(next(seed) % 8 ? next(seed) % 2 : 0) - (next(seed) % 32 == 0);
                h->merging = h->merging < -1 ? -1 : h->merging;
                h->busy = next(seed) % 8 == 0;
                h->refused = next(seed) % 32 == 0;
                h->evidence_at = next(seed) % 8 ? f->s.at : 0;
                h->present = next(seed) % 4 ? BL_GIB : any_size(seed);
                h->zero = any_size(seed);
                h->gain = next(seed) % 2 ? next(seed) % BL_GIB : any_size(seed);
                h->gain_low = any_size(seed);
                h->gain_high = any_size(seed);
                h->merged = any_size(seed);
                h->saved = any_size(seed);
                h->breaks = any_size(seed);
                v->hung = next(seed) % 32 == 0;
                v->run = next(seed) % 16 ? BL_RUN_RUNNING : (enum bl_vm_run)(next(seed) % _BL_RUN_MAX);
                v->actual = next(seed) % 4 ? BL_GIB : 256 * BL_MIB + next(seed) % (768 * BL_MIB);
                v->resident = v->actual + v->overhead;
        }
        s->mode = next(seed) % 16 ? BL_SHARE_GROUP : (enum bl_share_mode)(next(seed) % _BL_SHARE_MODE_MAX);
        s->usable = next(seed) % 16 != 0;
        s->yielded = next(seed) % 16 == 0;
        s->driven = f->plan.share.drive && next(seed) % 8;
        s->full_scans += next(seed) % 3;
        s->merged = any_size(seed);
        s->registered = any_size(seed);
        s->ksmd_cpu = next(seed) % 16 ? f->s.at - NOW : any_size(seed);
        s->broken = any_size(seed);
        s->scan_cost = (uint32_t)any_size(seed);
        s->merge_cost = (uint32_t)any_size(seed);
        f->s.host.free = next(seed) % (8 * BL_GIB);
        f->s.host.growth = next(seed) % 4 ? 0 : next(seed) % BL_GIB;
}

static void assert_equal_plans(const struct bl_plan *a, const struct bl_plan *b)
{
        assert_int_equal(a->n, b->n);
        assert_int_equal(a->share.drive, b->share.drive);
        assert_int_equal(a->share.why, b->share.why);
        assert_int_equal(a->share.gain, b->share.gain);
        assert_int_equal(a->share.reserve, b->share.reserve);
        assert_memory_equal(a->share.d, b->share.d, a->n * sizeof(*a->share.d));
        assert_memory_equal(a->d, b->d, a->n * sizeof(*a->d));
}

static void check_anything(struct fixture *f)
{
        char text[512];
        size_t leave = 0;

        for (size_t i = 0; i < f->s.n_vms; i++) {
                const struct bl_vm *v = &f->vms[i];
                const struct bl_share_decision *d = &f->plan.share.d[i];
                bool may = f->s.share.mode == BL_SHARE_GROUP && v->share.mode == BL_SHARE_GROUP &&
                           v->share.no_share == BL_NO_SHARE_OK;
                int r;

                assert_false(d->merge && !d->act);
                if (d->merge) {
                        assert_true(may);
                        assert_true(f->s.share.usable && !f->s.share.yielded && f->plan.share.drive);
                        assert_int_equal(v->share.merging, 0);
                }
                /* nobody is told anything that cannot be, or is so already */
                if (d->act) {
                        assert_false(v->share.busy || v->share.refused || v->hung || v->run == BL_RUN_MIGRATING);
                        assert_int_equal(v->share.merging, !d->merge);
                }
                /* ksmd does not run over one that must not be merged */
                if (f->plan.share.drive)
                        assert_true(may || v->share.merging == 0);
                if (d->act && !d->merge && bl_sharing_breaks(v) >= BL_MIB && !may)
                        leave++;
                assert_true(d->zero_out <= v->share.zero);
                assert_false(d->zero_out > 0 && (v->share.merging == 1 || v->share.mode < BL_SHARE_ZERO ||
                                                 f->s.share.mode < BL_SHARE_ZERO));
                r = bl_explain_share(&f->plan, &f->s, i, text, sizeof(text));
                assert_true(r > 10 && (size_t)r == strlen(text));
                assert_non_null(strstr(text, v->name));
                assert_true(bl_explain_share(&f->plan, &f->s, i, text, 10) == r);
                assert_true(bl_explain_share(&f->plan, &f->s, i, NULL, 0) == r);
        }
        assert_true(leave <= 1);
        if (f->plan.share.drive)
                assert_true(f->s.share.mode == BL_SHARE_GROUP && f->s.share.usable && !f->s.share.yielded);
        assert_true(f->plan.share.reserve <= f->s.host.budget / 4);
        assert_true(bl_explain_drive(&f->plan, &f->s, text, sizeof(text)) > 10);
        assert_int_equal(bl_explain_share(&f->plan, &f->s, f->s.n_vms, text, sizeof(text)), 0);
        assert_string_equal(text, "");
}

/* Whatever it is told: nobody is merged against his settings, and equal states make equal plans. */
static void test_anything(void **state)
{
        uint64_t seed = 4101842887655102017ULL;
        size_t drives = 0, merges = 0, leaves = 0;

        (void)state;
        for (int run = 0; run < 200; run++) {
                struct fixture f;

                setup(&f, 4000);
                for (int i = 0; i < 12; i++) {
                        char name[2] = {(char)('a' + i), '\0'};

                        add(&f, name, next(&seed) % 500)->name = "vm";
                }
                for (int k = 0; k < 60; k++) {
                        struct bl_policy *copy;
                        struct bl_plan plan = {};

                        /* quiet stretches, so that rounds come to their end */
                        if (k % 12 < 4)
                                anything(&f, &seed);
                        f.s.share.full_scans += (uint64_t)k % 2;
                        f.s.share.driven = f.plan.share.drive;
                        f.s.at += next(&seed) % (3 * BL_SEC);
                        assert_int_equal(bl_policy_copy(f.p, &copy), 0);
                        assert_int_equal(bl_policy_decide(copy, &f.s, &f.c, f.s.at, &plan), 0);
                        decide(&f);
                        assert_equal_plans(&f.plan, &plan);
                        check_anything(&f);
                        drives += f.plan.share.drive;
                        for (size_t i = 0; i < f.s.n_vms; i++) {
                                merges += f.plan.share.d[i].merge;
                                leaves += f.plan.share.d[i].act && !f.plan.share.d[i].merge;
                                if (f.plan.share.d[i].act && next(&seed) % 4)
                                        f.vms[i].share.merging = f.plan.share.d[i].merge;
                        }
                        bl_plan_clear(&plan);
                        bl_policy_free(copy);
                }
                teardown(&f);
        }
        /* it was not all in vain */
        assert_true(drives > 400 && merges > 150 && leaves > 400);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_strings),
                cmocka_unit_test(test_worth),
                cmocka_unit_test(test_hysteresis),
                cmocka_unit_test(test_reserve),
                cmocka_unit_test(test_market),
                cmocka_unit_test(test_balloon),
                cmocka_unit_test(test_coming),
                cmocka_unit_test(test_all_merged),
                cmocka_unit_test(test_store),
                cmocka_unit_test(test_rest),
                cmocka_unit_test(test_set_aside),
                cmocka_unit_test(test_back_off_together),
                cmocka_unit_test(test_not_driven_yet),
                cmocka_unit_test(test_pageout),
                cmocka_unit_test(test_off),
                cmocka_unit_test(test_blocked),
                cmocka_unit_test(test_yielded),
                cmocka_unit_test(test_room),
                cmocka_unit_test(test_one_at_a_time),
                cmocka_unit_test(test_take_for_it),
                cmocka_unit_test(test_not_growth),
                cmocka_unit_test(test_merge),
                cmocka_unit_test(test_not_now),
                cmocka_unit_test(test_same_tick),
                cmocka_unit_test(test_batches),
                cmocka_unit_test(test_unsure_in_the_way),
                cmocka_unit_test(test_alone_not_worth_it),
                cmocka_unit_test(test_merged_is_cheap),
                cmocka_unit_test(test_passes),
                cmocka_unit_test(test_third_pass),
                cmocka_unit_test(test_window),
                cmocka_unit_test(test_no_cpu_time),
                cmocka_unit_test(test_idle_ksmd),
                cmocka_unit_test(test_does_not_come),
                cmocka_unit_test(test_stale_evidence),
                cmocka_unit_test(test_grown_passes),
                cmocka_unit_test(test_left_behind),
                cmocka_unit_test(test_back_off),
                cmocka_unit_test(test_breaking),
                cmocka_unit_test(test_pays_no_more),
                cmocka_unit_test(test_zero),
                cmocka_unit_test(test_anything),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
