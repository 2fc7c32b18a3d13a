/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Single decisions, their reasons and sentences; what the simulations do not look at one by one. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <ballast/policy.h>

/* The n-th allocation fails; glibc's own under another name. Sanitizers bring allocators of their own. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FAIL_ALLOCATIONS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define FAIL_ALLOCATIONS 0
#endif
#endif
#ifndef FAIL_ALLOCATIONS
#define FAIL_ALLOCATIONS 1
#endif

#if FAIL_ALLOCATIONS
static long fail_at = -1; /* counts down; -1: never */

void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);
void *calloc(size_t n, size_t size);
void *realloc(void *p, size_t size);

static int fails(void)
{
        return fail_at >= 0 && fail_at-- == 0;
}

void *calloc(size_t n, size_t size)
{
        return fails() ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t size)
{
        return fails() ? NULL : __libc_realloc(p, size);
}
#endif

#define MAX_VMS 64
#define NOW     (1000 * BL_SEC)

struct fixture {
        struct bl_policy *p;
        struct bl_policy_config c;
        struct bl_snapshot s;
        struct bl_vm vms[MAX_VMS];
        struct bl_plan plan;
};

static struct bl_vm vm(const char *name, uint64_t actual_mib, uint64_t available_mib)
{
        struct bl_vm v = {
                .name = name,
                .managed = true,
                .booted_at = NOW - 500 * BL_SEC,
                .max = 2 * BL_GIB,
                .limit = 2 * BL_GIB,
                .shares = 1000,
                .actual = actual_mib * BL_MIB,
                .target = actual_mib * BL_MIB,
                .resident = actual_mib * BL_MIB + 40 * BL_MIB,
                .resident_at = NOW,
                .overhead = 40 * BL_MIB,
                .stats = {.source = BL_STATS_BALLOON,
                          .at = NOW - BL_SEC,
                          .period = 5 * BL_SEC,
                          .total = (actual_mib - 40) * BL_MIB,
                          .available = available_mib * BL_MIB,
                          .unused = available_mib / 2 * BL_MIB,
                          .caches = available_mib / 2 * BL_MIB,
                          .swap_total = BL_UNSET,
                          .swap_free = BL_UNSET,
                          .swap_in = BL_UNSET,
                          .swap_out = BL_UNSET,
                          .major_faults = BL_UNSET,
                          .unevictable = BL_UNSET,
                          .hugetlb = BL_UNSET,
                          .psi_some = BL_UNSET,
                          .actual = actual_mib * BL_MIB},
        };

        for (size_t i = 0; i < BL_UUID_LEN && name[i]; i++)
                v.uuid[i] = (uint8_t)name[i];
        v.offer[BL_ENGINE_BALLOON] = (struct bl_offer){.takes = v.actual, .gives = v.max - v.actual};
        return v;
}

/* minFree 1000 MiB, so that marks are easy to see */
static void setup(struct fixture *f, uint64_t free_mib)
{
        memset(f, 0, sizeof(*f));
        assert_int_equal(bl_policy_new(&f->p), 0);
        bl_policy_config_default(&f->c);
        f->c.min_free = 1000 * BL_MIB;
        f->s.at = NOW;
        f->s.host.budget = 64 * BL_GIB;
        f->s.host.free = free_mib * BL_MIB;
        f->s.host.used = f->s.host.budget - f->s.host.free;
        f->s.vms = f->vms;
}

static struct bl_vm *add(struct fixture *f, struct bl_vm v)
{
        f->vms[f->s.n_vms] = v;
        return &f->vms[f->s.n_vms++];
}

static void decide(struct fixture *f)
{
        bl_plan_clear(&f->plan);
        assert_int_equal(bl_policy_decide(f->p, &f->s, &f->c, f->s.at, &f->plan), 0);
}

/* Time goes by; reports and resident sizes stay fresh. */
static void later(struct fixture *f, usec_t t)
{
        f->s.at += t;
        for (size_t i = 0; i < f->s.n_vms; i++) {
                if (f->vms[i].stats.source != BL_STATS_NONE)
                        f->vms[i].stats.at += t;
                f->vms[i].resident_at += t;
        }
        decide(f);
}

static void teardown(struct fixture *f)
{
        bl_plan_clear(&f->plan);
        bl_policy_free(f->p);
}

static void expect(struct fixture *f, size_t i, enum bl_reason why, const char *sentence)
{
        char text[512];
        int r;

        if (f->plan.d[i].why != why)
                print_error("expected %s, got %s\n", bl_reason_to_string(why), bl_reason_to_string(f->plan.d[i].why));
        assert_int_equal(f->plan.d[i].why, why);
        r = bl_explain(&f->plan, &f->s, i, text, sizeof(text));
        assert_int_equal(r, strlen(text));
        assert_string_equal(text, sentence);
}

static void test_strings(void **state)
{
        (void)state;
        for (int i = 0; i < _BL_WHY_MAX; i++) {
                const char *a = bl_reason_to_string((enum bl_reason)i);

                assert_non_null(strchr(a, '.'));
                for (int k = 0; k < i; k++)
                        assert_string_not_equal(a, bl_reason_to_string((enum bl_reason)k));
        }
        assert_string_equal(bl_reason_to_string(BL_WHY_TAKE_SOFT), "take.host-soft");
        assert_string_equal(bl_reason_to_string(BL_WHY_SKIP_RECLAIM), "skip.not-reclaimable");
        assert_string_equal(bl_reason_to_string(_BL_WHY_MAX), "?");
        assert_string_equal(bl_state_to_string(BL_STATE_HARD), "hard");
        assert_string_equal(bl_hold_to_string(BL_HOLD_HAND), "hand");
        assert_string_equal(bl_no_reclaim_to_string(BL_RECLAIM_VFIO), "vfio");
}

static void test_nothing(void **state)
{
        struct fixture f;

        (void)state;
        setup(&f, 8000);
        decide(&f);
        assert_int_equal(f.plan.n, 0);
        add(&f, vm("web1", 2048, 1000));
        decide(&f);
        expect(&f, 0, BL_WHY_NOTHING, "leaves web1 alone: nothing to do");
        assert_false(f.plan.d[0].act);
        assert_int_equal(f.plan.d[0].from, 2 * BL_GIB);
        assert_int_equal(f.plan.d[0].to, 2 * BL_GIB);
        assert_int_equal(f.plan.state, BL_STATE_HIGH);
        assert_int_equal(f.plan.shortfall, 0);
        teardown(&f);
}

static void test_take(void **state)
{
        static const struct {
                uint64_t free;
                enum bl_reason why;
                const char *sentence;
        } cases[] = {
                {600, BL_WHY_TAKE_SOFT,
                 "takes 463 MiB from web1 (2048 MiB to 1585 MiB): host is soft, 600 MiB free of a 1.0 GiB goal; "
                 "web1 has 843 MiB it does not need"},
                {300, BL_WHY_TAKE_HARD,
                 "takes 763 MiB from web1 (2.0 GiB to 1.3 GiB): host is hard, 300 MiB free of a 1.0 GiB goal; "
                 "web1 has 921 MiB it does not need"},
                {100, BL_WHY_TAKE_LOW,
                 "takes 921 MiB from web1 (2.0 GiB to 1.1 GiB): host is low, 100 MiB free of a 1.0 GiB goal; "
                 "web1 has 921 MiB it does not need"},
        };

        (void)state;
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                struct fixture f;

                setup(&f, cases[i].free);
                /* 1048 used, and a margin of 10 % and half of that as it has no swap: 157 */
                add(&f, vm("web1", 2048, 1000));
                decide(&f);
                expect(&f, 0, cases[i].why, cases[i].sentence);
                assert_true(f.plan.d[0].act);
                assert_int_equal(f.plan.goal / BL_MIB, 1062);
                assert_int_equal(f.plan.shortfall, f.plan.goal - f.s.host.free);
                assert_in_range(f.plan.unmet / BL_MIB, i == 2 ? 40 : 0, i == 2 ? 46 : 0);
                teardown(&f);
        }
}

static void test_growth(void **state)
{
        struct fixture f;

        (void)state;
        setup(&f, 800);
        add(&f, vm("web1", 2048, 1000));
        decide(&f);
        assert_int_equal(f.plan.lead, 0);
        assert_int_equal(f.plan.d[0].why, BL_WHY_NOTHING);
        /* 1000 MiB/s: in the 0.45 s that the guests need it is below soft */
        f.s.host.growth = 1000 * BL_MIB;
        decide(&f);
        assert_int_equal(f.plan.d[0].why, BL_WHY_TAKE_LEAD);
        assert_int_equal(f.plan.state, BL_STATE_CLEAR);
        assert_in_range(f.plan.lead / BL_MIB, 400, 500);
        /* absurd growth is bounded in time */
        f.s.host.growth = UINT64_MAX;
        decide(&f);
        assert_true(f.plan.d[0].act);
        teardown(&f);
}

static void test_skips(void **state)
{
        struct fixture f;
        struct bl_vm *v;

        (void)state;
        setup(&f, 600);
        add(&f, vm("ok", 2048, 1000));
        add(&f, vm("unmanaged", 2048, 1000))->managed = false;
        add(&f, vm("vfio", 2048, 1000))->no_reclaim = BL_RECLAIM_VFIO;
        add(&f, vm("hand", 2048, 1000))->hold = BL_HOLD_HAND;
        add(&f, vm("paused", 2048, 1000))->run = BL_RUN_PAUSED;
        add(&f, vm("leaving", 2048, 1000))->run = BL_RUN_MIGRATING;
        add(&f, vm("hung", 2048, 1000))->hung = true;
        v = add(&f, vm("booting", 2048, 1000));
        v->stats = (struct bl_guest_stats){};
        v->offer[BL_ENGINE_BALLOON].takes = 0;
        add(&f, vm("silent", 2048, 1000))->stats = (struct bl_guest_stats){};
        add(&f, vm("absurd", 2048, 5000));
        add(&f, vm("stale", 2048, 1000))->stats.at = NOW - 16 * BL_SEC;
        add(&f, vm("full", 2048, 100));
        decide(&f);
        expect(&f, 1, BL_WHY_SKIP_UNMANAGED, "leaves unmanaged alone: it is not managed");
        expect(&f, 2, BL_WHY_SKIP_RECLAIM, "leaves vfio alone: a passed-through device pins its memory");
        expect(&f, 3, BL_WHY_SKIP_HELD, "leaves hand alone: somebody else set its balloon");
        expect(&f, 4, BL_WHY_SKIP_PAUSED, "leaves paused alone: it is paused, and its balloon cannot move");
        expect(&f, 5, BL_WHY_SKIP_MIGRATING, "leaves leaving alone: it is being migrated");
        expect(&f, 6, BL_WHY_SKIP_HUNG, "leaves hung alone: a call to it has not come back");
        expect(&f, 7, BL_WHY_SKIP_BOOTING, "leaves booting alone: its balloon driver has not been seen yet");
        expect(&f, 8, BL_WHY_SKIP_STATS,
               "leaves silent alone: it reports no memory statistics, so what it needs is not known");
        expect(&f, 9, BL_WHY_SKIP_ABSURD, "leaves absurd alone: its memory statistics contradict themselves");
        expect(&f, 10, BL_WHY_SKIP_STALE, "leaves stale alone: its memory statistics are 16 s old");
        expect(&f, 11, BL_WHY_SKIP_FLOOR, "leaves full alone: at 2.0 GiB it has nothing to spare");
        assert_true(f.plan.d[0].act);
        for (size_t i = 1; i < f.plan.n; i++)
                assert_false(f.plan.d[i].act);
        /* what is not known is not made up */
        assert_int_equal(f.plan.d[8].floor, f.plan.d[8].from);
        teardown(&f);
}

static void test_waits_and_grants(void **state)
{
        struct fixture f;
        struct bl_vm *poor, *rich;

        (void)state;
        setup(&f, 1000);
        poor = add(&f, vm("poor", 512, 20));
        rich = add(&f, vm("rich", 2048, 1500));
        decide(&f);
        expect(&f, 0, BL_WHY_WAIT_FREE,
               "leaves poor alone: it is short of 124 MiB; it needs 588 MiB and has 512 MiB, "
               "and must wait until memory is free (1000 MiB of a 1.0 GiB goal)");
        expect(&f, 1, BL_WHY_TAKE_FOR_OTHER,
               "takes 124 MiB from rich (2048 MiB to 1923 MiB): another VM is short of memory and entitled to it; "
               "rich has 1.4 GiB it does not need");
        assert_false(f.plan.d[0].act);

        /* taken, and seen to be free: now it is given */
        rich->target = rich->actual = f.plan.d[1].to;
        rich->stats.actual = rich->actual;
        rich->stats.total -= 124 * BL_MIB;
        rich->stats.available -= 124 * BL_MIB;
        rich->target_at = f.s.at + 1;
        rich->resident = rich->actual + rich->overhead;
        f.s.host.free = 1200 * BL_MIB;
        later(&f, BL_SEC);
        expect(&f, 0, BL_WHY_GRANT_NEED,
               "gives 124 MiB to poor (512 MiB to 636 MiB): it is short of 124 MiB; it needs 588 MiB and has 512 MiB");
        assert_true(f.plan.d[0].act);

        /* below its reservation, which is a promise */
        poor->reservation = BL_GIB;
        f.s.host.free = 8000 * BL_MIB;
        later(&f, 5 * BL_SEC);
        expect(&f, 0, BL_WHY_GRANT_RESERVED,
               "gives 512 MiB to poor (512 MiB to 1.0 GiB): it is below its reservation of 1.0 GiB");
        poor->reservation = 0;
        poor->stats.available = 400 * BL_MIB;
        later(&f, 30 * BL_SEC);
        assert_int_equal(f.plan.d[0].why, BL_WHY_GRANT_REST);
        assert_true(f.plan.d[0].act);
        teardown(&f);
}

/* A command that has not been answered, or was just given, is not followed by another. */
static void test_in_flight(void **state)
{
        struct fixture f;
        struct bl_vm *v;
        uint64_t to;

        (void)state;
        setup(&f, 600);
        v = add(&f, vm("web1", 2048, 1000));
        v->in_flight = true;
        decide(&f);
        assert_int_equal(f.plan.d[0].why, BL_WHY_IN_FLIGHT);
        assert_false(f.plan.d[0].act);
        v->in_flight = false;
        later(&f, BL_SEC / 10);
        assert_true(f.plan.d[0].act);
        to = f.plan.d[0].to;
        v->target = to;
        v->target_at = f.s.at;
        later(&f, BL_SEC / 10);
        assert_false(f.plan.d[0].act);
        assert_int_equal(f.plan.d[0].why, BL_WHY_IN_FLIGHT);
        assert_in_range(f.plan.coming / BL_MIB, 461, 463);
        teardown(&f);
}

/* What was granted and not used yet is not given to somebody else. */
static void test_promises(void **state)
{
        for (int told = 0; told <= 1; told++) {
                struct fixture f;
                struct bl_vm *a, *b;

                (void)state;
                /* room for one and a half of what each is short of */
                setup(&f, 1063 + 190);
                a = add(&f, vm("a", 512, 20));
                b = add(&f, vm("b", 512, 200));
                decide(&f);
                assert_int_equal(f.plan.d[0].why, BL_WHY_GRANT_NEED);
                assert_in_range(f.plan.d[0].to / BL_MIB, 635, 637);
                assert_false(f.plan.d[1].act);
                if (told) {
                        /* it has grown, and not touched any of it */
                        a->actual = a->target = f.plan.d[0].to;
                        a->target_at = f.s.at;
                        a->stats.available += 124 * BL_MIB;
                        a->stats.total += 124 * BL_MIB;
                        a->stats.actual = a->actual;
                } else {
                        /* the command is still on its way */
                        a->in_flight = true;
                }
                b->stats.available = 20 * BL_MIB;
                later(&f, BL_SEC / 4);
                assert_in_range(f.plan.promised / BL_MIB, 123, 125);
                if (f.plan.d[1].act)
                        assert_in_range((f.plan.d[1].to - f.plan.d[1].from) / BL_MIB, 0, 67);
                assert_true(f.s.host.free >= f.plan.goal + f.plan.promised);
                teardown(&f);
        }
}

/* A report that is made while the balloon moves says by its MemTotal how large the balloon was. */
static void test_report_tells_its_balloon(void **state)
{
        static const struct {
                uint64_t actual, available;
                usec_t after;
        } steps[] = {{1024, 300, 0}, {1024, 300, 3}, {1100, 370, 1}, {1100, 370, 3}, {1300, 20, 60}};

        (void)state;
        for (int deflate = 0; deflate <= 1; deflate++) {
                struct fixture f;
                struct bl_vm *v;

                setup(&f, 1400);
                v = add(&f, vm("a", 1024, 300));
                v->stats.actual = 0;
                v->stats.period = BL_SEC;
                for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
                        v->actual = v->target = steps[i].actual * BL_MIB;
                        v->stats.available = steps[i].available * BL_MIB;
                        v->stats.unused = v->stats.caches = 0;
                        /* with deflate-on-oom it does not: nothing is to be read from it */
                        v->stats.total = deflate ? 2008 * BL_MIB : v->actual - 40 * BL_MIB;
                        later(&f, steps[i].after * BL_SEC);
                }
                if (deflate)
                        assert_int_equal(f.plan.d[0].why, BL_WHY_NOTHING);
                else
                        assert_int_equal(f.plan.d[0].why, BL_WHY_GRANT_NEED);
                teardown(&f);
        }
}

/* What the engine offers bounds what it is asked for. */
static void test_offers(void **state)
{
        struct fixture f;
        struct bl_vm *v;

        (void)state;
        setup(&f, 600);
        v = add(&f, vm("web1", 2048, 1500));
        v->offer[BL_ENGINE_BALLOON].takes = 100 * BL_MIB;
        decide(&f);
        assert_true(f.plan.d[0].act);
        assert_int_equal(f.plan.d[0].to, 1948 * BL_MIB);
        teardown(&f);

        setup(&f, 9000);
        v = add(&f, vm("web1", 1024, 500));
        v->offer[BL_ENGINE_BALLOON].gives = 100 * BL_MIB;
        decide(&f);
        assert_int_equal(f.plan.d[0].why, BL_WHY_GRANT_REST);
        assert_int_equal(f.plan.d[0].to, 1124 * BL_MIB);
        teardown(&f);
}

/* Told to grow a moment ago: asked to give only when the others are not enough, and the host is soft. */
static void test_settling(void **state)
{
        struct fixture f;
        struct bl_vm *v;

        (void)state;
        setup(&f, 9000);
        v = add(&f, vm("a", 1024, 500));
        add(&f, vm("b", 2048, 1500));
        decide(&f);
        assert_int_equal(f.plan.d[0].why, BL_WHY_GRANT_REST);
        v->target = v->actual = v->stats.actual = f.plan.d[0].to;
        v->target_at = f.s.at;
        v->stats.total += BL_GIB;
        v->stats.available += BL_GIB;
        v->resident = v->actual + v->overhead;
        v->shares = 100; /* it would be the first to give */
        f.s.host.free = 600 * BL_MIB;
        later(&f, BL_SEC);
        assert_int_equal(f.plan.d[0].why, BL_WHY_SETTLING);
        assert_int_equal(f.plan.d[1].why, BL_WHY_TAKE_SOFT);
        /* the others cannot */
        f.vms[1].stats.available = 50 * BL_MIB;
        later(&f, BL_SEC);
        assert_int_equal(f.plan.d[0].why, BL_WHY_TAKE_SOFT);
        /* time has passed */
        f.vms[1].stats.available = 1500 * BL_MIB;
        later(&f, f.c.settle);
        assert_int_equal(f.plan.d[0].why, BL_WHY_TAKE_SOFT);
        assert_false(f.plan.d[1].act);
        teardown(&f);
}

/* VMs that are gone for long are forgotten, and the others are still found. */
static void test_forgets_the_gone(void **state)
{
        struct fixture f;
        struct bl_vm all[12];

        (void)state;
        setup(&f, 8000);
        for (int i = 0; i < 12; i++) {
                all[i] = vm("x", 2048, 1500);
                all[i].uuid[0] = (uint8_t)(i * 11);
                all[i].limit = BL_GIB;
                add(&f, all[i]);
        }
        decide(&f);
        for (int i = 0; i < 12; i++) {
                f.vms[i].target = f.plan.d[i].to;
                f.vms[i].target_at = f.s.at;
        }
        later(&f, BL_SEC);
        later(&f, 5 * BL_SEC);
        for (int i = 0; i < 12; i++)
                assert_true(f.plan.d[i].stuck);
        /* six go away, the others come in another order */
        for (int i = 0; i < 6; i++) {
                all[i] = f.vms[i];
                f.vms[i] = f.vms[11 - i];
        }
        f.s.n_vms = 6;
        for (int i = 0; i < 40; i++) {
                later(&f, 2 * BL_SEC);
                for (int k = 0; k < 6; k++) {
                        assert_true(f.plan.d[k].stuck);
                        f.vms[k].target = f.vms[k].actual;
                }
        }
        for (int i = 0; i < 6; i++) {
                all[i].stats.at = f.s.at;
                all[i].target = all[i].actual;
                add(&f, all[i]);
        }
        later(&f, BL_SEC);
        for (int i = 0; i < 12; i++)
                assert_int_equal(f.plan.d[i].stuck, i < 6);
        teardown(&f);
}

/* --- requests ------------------------------------------------------------------------------------ */

static void ask(struct fixture *f, struct bl_vm *v, uint64_t bytes, bool stop)
{
        v->request = (struct bl_guest_request){.at = f->s.at, .bytes = bytes, .stop = stop, .deadline = BL_UNSET};
        v->stats.at = f->s.at;
        v->stats.source = BL_STATS_AGENT;
}

/* The command is given, and the guest there at once. */
static void follow(struct fixture *f, size_t i)
{
        struct bl_vm *v = &f->vms[i];
        uint64_t to = f->plan.d[i].to;

        assert_true(f->plan.d[i].act);
        v->stats.total += to - v->actual;
        v->stats.available += to - v->actual;
        v->stats.actual = v->actual = v->target = to;
        v->target_at = f->s.at;
}

static void test_request(void **state)
{
        struct fixture f;
        struct bl_vm *v;

        (void)state;
        setup(&f, 3000);
        /* it is not short: 324 used, a margin of 96, 200 available */
        v = add(&f, vm("web1", 524, 200));
        add(&f, vm("web2", 524, 200));
        decide(&f);
        assert_false(f.plan.d[0].act);

        later(&f, BL_SEC);
        ask(&f, v, 300 * BL_MIB, false);
        decide(&f);
        expect(&f, 0, BL_WHY_GRANT_REQUEST, "gives 300 MiB to web1 (524 MiB to 824 MiB): its agent asks for 300 MiB");
        assert_true(f.plan.d[0].asked);
        assert_int_equal(f.plan.d[0].due, 300 * BL_MIB);

        /* on its way: neither the same request nor one that says the same again asks for more */
        v->target = f.plan.d[0].to;
        v->target_at = f.s.at;
        later(&f, BL_SEC / 10);
        assert_false(f.plan.d[0].act);
        ask(&f, v, 300 * BL_MIB, false);
        later(&f, BL_SEC / 10);
        assert_false(f.plan.d[0].act);
        /* one for more asks for the difference */
        ask(&f, v, 350 * BL_MIB, false);
        decide(&f);
        assert_true(f.plan.d[0].act);
        assert_int_equal(f.plan.d[0].to, 874 * BL_MIB);
        follow(&f, 0);

        /* it is there: satisfied, and not asked for again in each tick */
        for (int i = 0; i < 20; i++) {
                later(&f, BL_SEC / 10);
                assert_false(f.plan.d[0].act);
                assert_false(f.plan.d[0].asked);
        }
        /* a new one counts from there */
        ask(&f, v, 100 * BL_MIB, true);
        decide(&f);
        expect(&f, 0, BL_WHY_GRANT_REQUEST,
               "gives 100 MiB to web1 (874 MiB to 974 MiB): its agent asks for 100 MiB, as its OOM killer is near");
        /* less than is worth a command */
        follow(&f, 0);
        ask(&f, v, f.c.dead_band - 1, false);
        later(&f, BL_SEC);
        assert_false(f.plan.d[0].act);
        teardown(&f);
}

/* A request that was not answered is forgotten, and one from the future is none. */
static void test_request_is_forgotten(void **state)
{
        struct fixture f;
        struct bl_vm *v;

        (void)state;
        setup(&f, 900);
        f.c.test.no_reserve = true;
        v = add(&f, vm("web1", 524, 200));
        add(&f, vm("rich", 2048, 1500));
        ask(&f, v, 300 * BL_MIB, false);
        v->stats.source = BL_STATS_BALLOON; /* its agent is not heard any more */
        v->request.at = f.s.at + BL_SEC;
        decide(&f);
        assert_int_equal(f.plan.d[0].why, BL_WHY_NOTHING);
        /* when its time has come it counts */
        later(&f, BL_SEC);
        expect(&f, 0, BL_WHY_WAIT_FREE,
               "leaves web1 alone: its agent asks for 300 MiB, and must wait until memory is free (900 MiB of a "
               "1.0 GiB goal)");
        later(&f, f.c.request_life - 1);
        assert_int_equal(f.plan.d[0].why, BL_WHY_WAIT_FREE);
        later(&f, 1);
        assert_int_equal(f.plan.d[0].why, BL_WHY_NOTHING);
        assert_int_equal(f.plan.d[0].due, 0);
        teardown(&f);
}

/* Others give in the same tick, in a host that is not in need. */
static void test_request_makes_others_give(void **state)
{
        struct fixture f;
        struct bl_vm *v;

        (void)state;
        setup(&f, 1062);
        f.c.test.no_reserve = true;
        v = add(&f, vm("poor", 524, 200));
        add(&f, vm("rich", 2048, 1500));
        decide(&f);
        assert_false(f.plan.d[1].act);
        ask(&f, v, 300 * BL_MIB, false);
        decide(&f);
        assert_int_equal(f.plan.state, BL_STATE_CLEAR);
        assert_int_equal(f.plan.d[0].why, BL_WHY_WAIT_FREE);
        assert_int_equal(f.plan.d[1].why, BL_WHY_TAKE_FOR_OTHER);
        assert_in_range((f.plan.d[1].from - f.plan.d[1].to) / BL_MIB, 298, 301);
        teardown(&f);
}

/* What is kept free goes to one that asks, down to the mark of hard, while the others begin to give. */
static void test_request_uses_reserve(void **state)
{
        struct fixture f;
        struct bl_vm *v;

        (void)state;
        setup(&f, 1062);
        v = add(&f, vm("poor", 524, 200));
        add(&f, vm("rich", 2048, 1500));
        ask(&f, v, 300 * BL_MIB, false);
        decide(&f);
        assert_int_equal(f.plan.d[0].why, BL_WHY_GRANT_REQUEST);
        assert_in_range((f.plan.d[0].to - f.plan.d[0].from) / BL_MIB, 298, 301);
        teardown(&f);
        /* and not below */
        setup(&f, 420);
        v = add(&f, vm("poor", 524, 200));
        add(&f, vm("rich", 2048, 1500));
        ask(&f, v, 300 * BL_MIB, false);
        decide(&f);
        assert_true(f.plan.d[0].to - f.plan.d[0].from <= 420 * BL_MIB - f.plan.marks.mark[BL_STATE_HARD]);
        assert_int_equal(f.plan.d[1].act, true);
        teardown(&f);
}

/* It asked, got it, and reports that it has plenty: nobody is spared for what is over. */
static void test_request_is_over(void **state)
{
        struct fixture f;
        struct bl_vm *v;

        (void)state;
        setup(&f, 600);
        v = add(&f, vm("web1", 2048, 1000));
        v->limit = v->actual;
        ask(&f, v, 8 * BL_MIB, true);
        decide(&f);
        assert_int_equal(f.plan.d[0].why, BL_WHY_SKIP_ASKS);
        later(&f, 100 * BL_MSEC);
        assert_int_equal(f.plan.d[0].why, BL_WHY_SKIP_ASKS);
        later(&f, 200 * BL_MSEC);
        assert_int_equal(f.plan.d[0].why, BL_WHY_TAKE_SOFT);
        teardown(&f);
}

/* One that has what it asks for, near its limit, does not stop others' waiting for what it gives. */
static void test_request_for_nothing(void **state)
{
        struct fixture f;
        struct bl_vm *v;

        (void)state;
        setup(&f, 600);
        v = add(&f, vm("web1", 2048, 1000));
        ask(&f, v, BL_MIB, false);
        decide(&f);
        assert_int_equal(f.plan.d[0].why, BL_WHY_TAKE_SOFT);
        teardown(&f);
}

/* Not taken from while it asks; near its OOM killer for a while longer; never in the way of a host in need. */
static void test_request_spares(void **state)
{
        struct fixture f;
        struct bl_vm *v;

        (void)state;
        for (int stop = 0; stop <= 1; stop++) {
                for (int hard = 0; hard <= 1; hard++) {
                        setup(&f, hard ? 300 : 600);
                        v = add(&f, vm("web1", 2048, 1000));
                        v->limit = v->actual;
                        ask(&f, v, 8 * BL_MIB, stop == 1);
                        v->stats.source = BL_STATS_BALLOON; /* its agent is not heard any more */
                        decide(&f);
                        if (hard && !stop) {
                                assert_int_equal(f.plan.d[0].why, BL_WHY_TAKE_HARD);
                                teardown(&f);
                                continue;
                        }
                        expect(&f, 0, BL_WHY_SKIP_ASKS,
                               stop ? "leaves web1 alone: its agent asks for 8 MiB, as its OOM killer is near"
                                    : "leaves web1 alone: its agent asks for 8 MiB");
                        assert_true(f.plan.unmet > 0);
                        later(&f, f.c.request_life);
                        if (!stop) {
                                assert_int_equal(f.plan.d[0].why, BL_WHY_TAKE_SOFT);
                                teardown(&f);
                                continue;
                        }
                        assert_int_equal(f.plan.d[0].why, BL_WHY_SKIP_ASKS);
                        v->request.at = 0; /* its agent has gone, which changes nothing */
                        later(&f, f.c.stop_hold);
                        assert_true(f.plan.d[0].act);
                        teardown(&f);
                }
        }
}

static void test_request_turns_back(void **state)
{
        struct fixture f;
        struct bl_vm *v;

        (void)state;
        setup(&f, 600);
        v = add(&f, vm("web1", 2048, 1000));
        add(&f, vm("web2", 2048, 1000));
        decide(&f);
        assert_int_equal(f.plan.d[0].why, BL_WHY_TAKE_SOFT);
        v->target = f.plan.d[0].to;
        v->target_at = f.s.at;
        v->actual = v->stats.actual = 2000 * BL_MIB;
        v->stats.total -= 48 * BL_MIB;
        v->stats.available -= 48 * BL_MIB;
        f.s.at += BL_SEC / 10;
        ask(&f, v, 100 * BL_MIB, false);
        /* a command that is not answered yet comes first */
        v->in_flight = true;
        decide(&f);
        assert_int_equal(f.plan.d[0].why, BL_WHY_IN_FLIGHT);
        v->in_flight = false;
        decide(&f);
        expect(&f, 0, BL_WHY_STOP_REQUEST,
               "puts the target of web1 back to 2.0 GiB: its agent asks for 100 MiB, and it was told to be 1.8 GiB");
        assert_int_equal(f.plan.d[0].to, 2000 * BL_MIB);
        /* and the other one is asked for its part */
        assert_true(f.plan.d[1].act);
        assert_true(f.plan.d[1].from - f.plan.d[1].to > 300 * BL_MIB);
        v->target = f.plan.d[0].to;
        v->target_at = f.s.at;
        later(&f, BL_SEC / 10);
        assert_false(f.plan.d[0].act);
        teardown(&f);

        /* above its limit: that is the administrator's word */
        setup(&f, 8000);
        v = add(&f, vm("web1", 2048, 1500));
        v->limit = BL_GIB;
        ask(&f, v, 100 * BL_MIB, true);
        decide(&f);
        assert_int_equal(f.plan.d[0].why, BL_WHY_TAKE_LIMIT);
        v->target = f.plan.d[0].to;
        v->target_at = f.s.at;
        later(&f, BL_SEC / 10);
        assert_false(f.plan.d[0].act);
        teardown(&f);
}

/* Goes on asking and does not use what it got: not heard, for twice as long each time. */
static void test_asks_idly(void **state)
{
        struct fixture f;
        struct bl_vm *v;
        usec_t times[6], last = 0;
        int n = 0;

        (void)state;
        setup(&f, 3000);
        v = add(&f, vm("web1", 524, 200));
        v->limit = BL_GIB;
        decide(&f);
        for (int i = 0; i < 7000 && n < 6; i++) {
                ask(&f, v, 20 * BL_MIB, true);
                later(&f, 150 * BL_MSEC);
                if (f.plan.d[0].act)
                        follow(&f, 0);
                if (f.plan.d[0].deaf_until > last) {
                        last = f.plan.d[0].deaf_until;
                        times[n++] = last - f.s.at;
                        assert_false(f.plan.d[0].act);
                }
        }
        assert_int_equal(n, 6);
        for (int i = 0; i < 6; i++)
                assert_int_equal(times[i], f.c.deaf_first << i);
        expect(&f, 0, BL_WHY_SKIP_ASKS_IDLY,
               "leaves web1 alone: its agent asks for 20 MiB, as its OOM killer is near, but it does not use what "
               "it gets; it is heard again in 6 min");
        /* not spared either */
        v->resident = v->actual + v->overhead;
        later(&f, 3 * BL_SEC);
        f.s.host.free = 600 * BL_MIB;
        later(&f, BL_SEC);
        assert_int_equal(f.plan.d[0].why, BL_WHY_TAKE_SOFT);
        /* and short by its figures it is helped as ever */
        f.s.host.free = 3000 * BL_MIB;
        v->limit = v->max;
        v->stats.available = 10 * BL_MIB;
        later(&f, 20 * BL_SEC);
        assert_int_equal(f.plan.d[0].why, BL_WHY_GRANT_NEED);
        teardown(&f);

        /* one that uses what it gets is heard for ever */
        setup(&f, 3000);
        v = add(&f, vm("web1", 524, 200));
        add(&f, vm("web2", 1500, 1000));
        decide(&f);
        for (int i = 0; i < 400; i++) {
                if (i % 4 == 0)
                        ask(&f, v, 20 * BL_MIB, false);
                later(&f, 150 * BL_MSEC);
                assert_int_equal(f.plan.d[0].deaf_until, 0);
                if (f.plan.d[0].act && v->actual < 900 * BL_MIB) {
                        follow(&f, 0);
                        v->resident += 16 * BL_MIB;
                }
                if (v->actual >= 900 * BL_MIB)
                        break;
        }
        assert_true(v->actual >= 900 * BL_MIB);
        teardown(&f);
}

/* It only says that it stalls: a sign of pressure, and no reason to give or to turn anything back. */
static void test_stalls(void **state)
{
        struct fixture f;
        struct bl_vm *v;

        (void)state;
        setup(&f, 600);
        v = add(&f, vm("stalls", 1500, 700));
        add(&f, vm("other", 1500, 700));
        ask(&f, v, 0, false);
        decide(&f);
        assert_false(f.plan.d[0].act);
        assert_int_equal(f.plan.d[1].why, BL_WHY_TAKE_SOFT);
        assert_int_equal(f.plan.d[0].due, 0);
        teardown(&f);
}

static void test_limit_and_park(void **state)
{
        struct fixture f;
        struct bl_vm *v;

        (void)state;
        setup(&f, 8000);
        v = add(&f, vm("web1", 2048, 1500));
        v->limit = BL_GIB;
        decide(&f);
        expect(&f, 0, BL_WHY_TAKE_LIMIT,
               "takes 1.0 GiB from web1 (2.0 GiB to 1.0 GiB): it is above its limit of 1.0 GiB");
        v->target = BL_GIB;
        v->target_at = f.s.at;
        later(&f, BL_SEC);
        assert_int_equal(f.plan.d[0].why, BL_WHY_IN_FLIGHT);
        later(&f, 4 * BL_SEC);
        expect(&f, 0, BL_WHY_PARK_STUCK,
               "puts the target of web1 back to 2.0 GiB, where it stopped: it was told to be 1.0 GiB");
        assert_true(f.plan.d[0].act);
        assert_true(f.plan.d[0].stuck);
        v->target = f.plan.d[0].to;
        v->target_at = f.s.at;
        later(&f, BL_SEC);
        expect(&f, 0, BL_WHY_SKIP_STUCK,
               "leaves web1 alone: it does not follow its balloon target; it is asked again in 19 s");
        /* and then it is */
        later(&f, 20 * BL_SEC);
        assert_int_equal(f.plan.d[0].why, BL_WHY_TAKE_LIMIT);
        assert_true(f.plan.d[0].act);
        teardown(&f);

        /* what it has not touched counts against its limit too, and not more than that is taken */
        setup(&f, 8000);
        v = add(&f, vm("web1", 2048, 1500));
        v->limit = BL_GIB;
        v->resident = 700 * BL_MIB;
        decide(&f);
        assert_int_equal(f.plan.d[0].why, BL_WHY_TAKE_LIMIT);
        assert_int_equal(f.plan.d[0].to, BL_GIB);
        teardown(&f);
}

/* Balloons far from each other in a list in another order each time: each keeps what was learned of it. */
static void test_order_and_memory(void **state)
{
        struct fixture f;
        struct bl_vm all[40];
        uint64_t seed = 1;

        (void)state;
        setup(&f, 8000);
        for (int i = 0; i < 40; i++) {
                char *name = malloc(8);

                assert_non_null(name);
                snprintf(name, 8, "vm%d", i);
                all[i] = vm(name, 2048, 1500);
                all[i].limit = BL_GIB; /* all are asked */
        }
        for (int round = 0; round < 30; round++) {
                f.s.n_vms = 0;
                for (int i = 0; i < 40; i++) {
                        seed = seed * 6364136223846793005U + 1442695040888963407U;
                        /* some are missing now and then */
                        if (seed >> 60 > 2)
                                add(&f, all[(i + round * 7) % 40]);
                }
                f.s.at += BL_SEC / 2;
                for (size_t i = 0; i < f.s.n_vms; i++)
                        f.vms[i].stats.at = f.s.at;
                decide(&f);
                for (size_t i = 0; i < f.s.n_vms; i++) {
                        int n = atoi(f.vms[i].name + 2);

                        if (!f.plan.d[i].act)
                                continue;
                        all[n].target = f.plan.d[i].to;
                        all[n].target_at = f.s.at;
                        /* even ones follow, odd ones are stuck */
                        if (n % 2 == 0) {
                                all[n].actual = all[n].target;
                                all[n].resident = all[n].actual + all[n].overhead;
                                all[n].stats.actual = all[n].actual;
                                all[n].stats.total = all[n].actual - 40 * BL_MIB;
                                all[n].stats.available = all[n].actual - 548 * BL_MIB;
                        }
                }
        }
        for (size_t i = 0; i < f.s.n_vms; i++)
                assert_int_equal(f.plan.d[i].stuck, atoi(f.vms[i].name + 2) % 2);
        for (int i = 0; i < 40; i++)
                free((char *)(uintptr_t)all[i].name);
        teardown(&f);
}

static void same(const struct bl_plan *a, const struct bl_plan *b)
{
        assert_int_equal(a->n, b->n);
        assert_int_equal(a->goal, b->goal);
        assert_int_equal(a->lead, b->lead);
        for (size_t i = 0; i < a->n; i++) {
                assert_int_equal(a->d[i].why, b->d[i].why);
                assert_int_equal(a->d[i].to, b->d[i].to);
                assert_int_equal(a->d[i].act, b->d[i].act);
                assert_int_equal(a->d[i].stuck, b->d[i].stuck);
                assert_int_equal(a->d[i].speed, b->d[i].speed);
        }
}

/* A copy decides like the original, and a dry run on it teaches the original nothing. */
static void test_copy(void **state)
{
        struct fixture f;
        struct bl_policy *copy = NULL, *dry = NULL;
        struct bl_plan plan = {};

        (void)state;
        setup(&f, 500);
        for (int i = 0; i < 20; i++) {
                char name[8] = "vm";

                name[2] = (char)('a' + i);
                add(&f, vm(name, 2048, (uint64_t)(500 + i * 50)))->name = "vm";
        }
        decide(&f);
        for (size_t i = 0; i < f.s.n_vms; i++) {
                if (f.plan.d[i].act) {
                        f.vms[i].target = f.plan.d[i].to;
                        f.vms[i].target_at = f.s.at;
                }
        }
        later(&f, BL_SEC);
        assert_int_equal(bl_policy_copy(f.p, &copy), 0);
        for (int i = 0; i < 10; i++) {
                /* dry runs in between */
                assert_int_equal(bl_policy_copy(f.p, &dry), 0);
                for (int k = 0; k < 3; k++) {
                        assert_int_equal(bl_policy_decide(dry, &f.s, &f.c, f.s.at + 10 * BL_SEC, &plan), 0);
                        bl_plan_clear(&plan);
                }
                dry = bl_policy_free(dry);
                later(&f, BL_SEC);
                assert_int_equal(bl_policy_decide(copy, &f.s, &f.c, f.s.at, &plan), 0);
                same(&f.plan, &plan);
                bl_plan_clear(&plan);
        }
        bl_policy_free(copy);
        teardown(&f);
}

/* Any snapshot at all: no crash, no overflow, and every command within bounds. */
static void test_anything(void **state)
{
        uint64_t seed = 88172645463325252U;
        struct fixture f;
        char text[600];

        (void)state;
        setup(&f, 500);
        for (int i = 0; i < 16; i++)
                add(&f, vm((const char *[]){"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o",
                                            "p"}[i],
                           2048, 900));
        for (int round = 0; round < 20000; round++) {
                uint64_t *host = &f.s.host.budget;

                f.s.at += BL_SEC / 4;
                for (int k = 0; k < 12; k++) {
                        struct bl_vm *v = &f.vms[seed % 16];
                        uint64_t *fields[] = {&v->max,
                                              &v->limit,
                                              &v->reservation,
                                              &v->shares,
                                              &v->actual,
                                              &v->target,
                                              &v->target_at,
                                              &v->resident,
                                              &v->overhead,
                                              &v->booted_at,
                                              &v->stats.at,
                                              &v->stats.period,
                                              &v->stats.actual,
                                              &v->stats.total,
                                              &v->stats.available,
                                              &v->stats.unused,
                                              &v->stats.caches,
                                              &v->stats.swap_total,
                                              &v->stats.swap_free,
                                              &v->stats.swap_in,
                                              &v->stats.psi_some,
                                              &v->stats.unevictable,
                                              &v->stats.hugetlb,
                                              &v->request.at,
                                              &v->request.bytes,
                                              &v->request.deadline,
                                              &v->offer[0].takes,
                                              &v->offer[0].gives,
                                              &v->offer[0].grain,
                                              &v->offer[0].phase,
                                              &v->offer[1].takes,
                                              &v->offer[1].gives,
                                              &v->idle_since,
                                              &v->store.size,
                                              &v->store.used,
                                              &v->store.held,
                                              &v->store.zero,
                                              &v->store.stored,
                                              &v->store.twice,
                                              &v->store.limit,
                                              &f.s.store.pool_size,
                                              &f.s.store.pool_ready,
                                              &f.s.store.pool_used,
                                              &f.s.store.headroom,
                                              &f.s.store.room,
                                              &host[0],
                                              &f.s.host.free,
                                              &f.s.host.growth};
                        size_t n = sizeof(fields) / sizeof(fields[0]);

                        seed ^= seed << 13;
                        seed ^= seed >> 7;
                        seed ^= seed << 17;
                        switch (seed >> 61) {
                        case 0:
                        case 1:
                                *fields[(seed >> 8) % n] = seed >> (seed % 64);
                                break;
                        case 2:
                                *fields[(seed >> 8) % n] = UINT64_MAX;
                                break;
                        case 3:
                                v->oom_deflate = seed >> 20 & 1;
                                v->in_flight = seed >> 21 & 1;
                                v->hung = seed >> 22 & 1;
                                v->run = seed >> 23 & 1 ? BL_RUN_PAUSED : BL_RUN_RUNNING;
                                v->request.stop = seed >> 24 & 1;
                                v->request.at = f.s.at - (seed >> 25) % BL_SEC;
                                v->store.on = seed >> 45 & 1;
                                v->store.leaving = seed >> 46 & seed >> 47 & 1;
                                v->store.ratio_known = seed >> 48 & 1;
                                v->store.ratio = (permyriad_t)(seed >> 49 & 0x3fff);
                                f.s.store.there = seed >> 60 & 1;
                                f.s.store.slow = seed >> 59 & seed >> 58 & 1;
                                break;
                        default: {
                                struct bl_vm fresh = vm(v->name, 512 + (seed >> 30) % 1536, (seed >> 40) % 500);

                                fresh.stats.at = f.s.at;
                                fresh.target = (512 + (seed >> 50) % 1536) * BL_MIB;
                                fresh.target_at = f.s.at;
                                *v = fresh;
                                f.s.host.budget = 64 * BL_GIB;
                                f.s.host.free = (seed >> 32) % 4000 * BL_MIB;
                                f.s.host.growth = (seed >> 42) % 400 * BL_MIB;
                                break;
                        }
                        }
                }
                f.s.host.psi_pressure = seed >> 11 & 1;
                f.s.host.budget_is_ram = seed >> 12 & 1;
                decide(&f);
                if (f.plan.pool_to > f.s.store.pool_ready)
                        assert_true(f.plan.pool_to <= f.s.store.pool_size);
                for (size_t i = 0; i < f.plan.n; i++) {
                        const struct bl_decision *d = &f.plan.d[i];
                        const struct bl_vm *v = &f.vms[i];

                        assert_int_equal(d->from, d->engine == BL_ENGINE_BALLOON ? v->actual : v->resident);
                        assert_true(bl_explain(&f.plan, &f.s, i, text, sizeof(text)) > 0);
                        assert_true(bl_explain(&f.plan, &f.s, i, text, 20) > 0);
                        assert_true(bl_explain(&f.plan, &f.s, i, NULL, 0) > 0);
                        if (!d->act)
                                continue;
                        if (d->engine == BL_ENGINE_PAGEOUT) {
                                assert_true(d->to < d->from && d->from - d->to <= v->offer[1].takes);
                                assert_true(d->to >= bl_min(v->reservation, v->limit));
                                continue;
                        }
                        if (v->offer[0].grain > 0)
                                assert_int_equal((d->to - v->offer[0].phase % v->offer[0].grain) % v->offer[0].grain,
                                                 0);
                        if (d->why == BL_WHY_PARK_STUCK)
                                continue;
                        assert_true(d->to != v->target);
                        if (d->why == BL_WHY_STOP_STORE) {
                                assert_true(d->to > v->target && d->to <= v->max);
                                continue;
                        }
                        if (d->why == BL_WHY_STOP_REQUEST) {
                                assert_true(v->actual <= v->limit);
                                assert_true(d->to > v->target);
                                assert_true(d->to <= v->max);
                                continue;
                        }
                        if (d->to < d->from)
                                assert_true(d->to >= bl_min(v->reservation, v->limit));
                        if (d->to > d->from)
                                assert_true(d->to <= v->limit && d->to <= v->max);
                }
        }
        teardown(&f);
}

static void test_allocation_failures(void **state)
{
#if FAIL_ALLOCATIONS
        struct fixture f;
        struct bl_policy *copy;
        struct bl_plan plan, untouched;
        int failed = 0, r;

        (void)state;
        setup(&f, 500);
        for (int i = 0; i < 20; i++) {
                char name[8] = "vm";

                name[2] = (char)('a' + i);
                add(&f, vm(name, 2048, 1000))->name = "vm";
        }
        memset(&plan, 0x5a, sizeof(plan));
        untouched = plan;
        for (long n = 0;; n++) {
                fail_at = n;
                r = bl_policy_decide(f.p, &f.s, &f.c, NOW, &plan);
                fail_at = -1;
                if (r == 0)
                        break;
                assert_int_equal(r, -ENOMEM);
                assert_memory_equal(&plan, &untouched, sizeof(plan));
                failed++;
        }
        assert_int_equal(failed, 6);
        assert_int_equal(plan.n, 20);
        assert_true(plan.d[0].act);
        bl_plan_clear(&plan);

        for (long n = 0, done = 0; !done; n++) {
                copy = NULL;
                fail_at = n;
                r = bl_policy_copy(f.p, &copy);
                fail_at = -1;
                assert_true(r == 0 ? copy != NULL : r == -ENOMEM && copy == NULL);
                done = r == 0;
        }
        bl_policy_free(copy);
        fail_at = 0;
        copy = NULL;
        assert_int_equal(bl_policy_new(&copy), -ENOMEM);
        fail_at = -1;
        assert_null(copy);
        teardown(&f);
#else
        (void)state;
        skip();
#endif
}

/* Names are shown as they are, as far as a terminal can take it. */
static void test_names(void **state)
{
        struct fixture f;
        char text[512];

        (void)state;
        setup(&f, 8000);
        add(&f, vm("x", 2048, 1000))->name = "ev\x1b[2Jil\n";
        add(&f, vm("y", 2048, 1000))->name = NULL;
        add(&f, vm("z", 2048, 1000))->name =
                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\xc3\xa4\xc3\xa4";
        decide(&f);
        bl_explain(&f.plan, &f.s, 0, text, sizeof(text));
        assert_string_equal(text, "leaves ev?[2Jil? alone: nothing to do");
        bl_explain(&f.plan, &f.s, 1, text, sizeof(text));
        assert_string_equal(text, "leaves (unnamed) alone: nothing to do");
        bl_explain(&f.plan, &f.s, 2, text, sizeof(text));
        assert_string_equal(text, "leaves aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa... alone: "
                                  "nothing to do");
        assert_int_equal(bl_explain(&f.plan, &f.s, 3, text, sizeof(text)), 0);
        assert_string_equal(text, "");
        teardown(&f);
}

static void test_clear(void **state)
{
        struct bl_snapshot s = {.n_vms = 1};

        (void)state;
        s.vms = calloc(1, sizeof(*s.vms));
        assert_non_null(s.vms);
        s.vms[0].name = strdup("x");
        assert_null(bl_snapshot_clear(&s));
        assert_null(s.vms);
        assert_null(bl_snapshot_clear(&s));
        assert_null(bl_snapshot_clear(NULL));
        assert_null(bl_plan_clear(NULL));
        assert_null(bl_policy_free(NULL));
}

/* A guest of 1100 MiB that uses 1000 and has 1 GiB of swap on a store with plenty of room. */
static struct bl_vm *on_store(struct fixture *f, const char *name)
{
        struct bl_vm v = vm(name, 1100, 60);

        v.stats.source = BL_STATS_AGENT;
        v.stats.swap_total = v.stats.swap_free = BL_GIB;
        v.stats.swap_in = v.stats.psi_some = 0;
        v.store =
                (struct bl_vm_store){.on = true, .size = BL_GIB, .limit = BL_UNSET, .ratio = 3000, .ratio_known = true};
        f->s.store = (struct bl_store_state){.there = true,
                                             .pool_size = 4 * BL_GIB,
                                             .pool_ready = 2 * BL_GIB,
                                             .headroom = 2 * BL_GIB,
                                             .room = 8 * BL_GIB};
        return add(f, v);
}

static void test_store_press(void **state)
{
        struct fixture f;
        struct bl_vm *v;

        (void)state;
        setup(&f, 600);
        v = on_store(&f, "web1");
        decide(&f);
        /* 462 are missing, for which it would have to swap 660; half of what it uses, and a little, stays */
        expect(&f, 0, BL_WHY_TAKE_SOFT,
               "takes 528 MiB from web1 (1.1 GiB to 572 MiB): host is soft, 600 MiB free of a 1.0 GiB goal; web1 needs "
               "1.1 GiB and swaps what it lacks into the store, which takes 2.0 GiB at once");
        assert_in_range(f.plan.unmet / BL_MIB, 85, 95);

        /* at most half of the headroom a step, less what is under way */
        f.s.store.headroom = 200 * BL_MIB;
        decide(&f);
        assert_in_range((f.plan.d[0].from - f.plan.d[0].to) / BL_MIB, 80, 100);
        v->target = f.plan.d[0].to;
        v->target_at = f.s.at;
        f.s.at += 20 * BL_MSEC;
        decide(&f);
        assert_false(f.plan.d[0].act);
        teardown(&f);
}

static void test_store_skips(void **state)
{
        struct fixture f;
        struct bl_vm *v;

        (void)state;
        setup(&f, 600);
        v = on_store(&f, "web1");
        v->store.ratio = 9000;
        decide(&f);
        expect(&f, 0, BL_WHY_SKIP_INCOMPRESSIBLE,
               "leaves web1 alone: it would have to swap, and its last pages shrank to 90 % only");
        v->store.ratio_known = false;
        decide(&f);
        assert_int_equal(f.plan.d[0].why, BL_WHY_TAKE_SOFT);
        f.s.store.slow = true;
        decide(&f);
        expect(&f, 0, BL_WHY_SKIP_STORE_SLOW, "leaves web1 alone: the store that it swaps on does not keep up");
        f.s.store.slow = false;
        f.s.store.there = false;
        decide(&f);
        expect(&f, 0, BL_WHY_SKIP_STORE_SLOW, "leaves web1 alone: the store that it swaps on does not answer");
        f.s.store.there = true;
        f.s.store.room = 50 * BL_MIB;
        decide(&f);
        expect(&f, 0, BL_WHY_SKIP_STORE_FULL,
               "leaves web1 alone: it swaps on the store, which has room for 50 MiB in all");
        f.s.store.room = 8 * BL_GIB;
        v->store.used = v->store.size;
        decide(&f);
        expect(&f, 0, BL_WHY_SKIP_STORE_FULL, "leaves web1 alone: its swap of 1.0 GiB is full");
        v->store.used = 0;
        v->store.limit = v->store.stored = 100 * BL_MIB;
        decide(&f);
        expect(&f, 0, BL_WHY_SKIP_STORE_FULL, "leaves web1 alone: it has all of its limit of 100 MiB in the store");
        v->store.limit = BL_UNSET;
        v->store.held = 300 * BL_MIB;
        v->store.leaving = true;
        v->stats.available = 300 * BL_MIB;
        decide(&f);
        expect(&f, 0, BL_WHY_SKIP_DRAINING,
               "leaves web1 alone: what the store holds of it is being brought back, 300 MiB are there still");
        teardown(&f);
}

/* Told to give, and then the store takes no more. */
static void test_store_stop(void **state)
{
        struct fixture f;
        struct bl_vm *v;

        (void)state;
        setup(&f, 600);
        v = on_store(&f, "web1");
        decide(&f);
        v->target = f.plan.d[0].to;
        v->target_at = f.s.at;
        v->actual -= 100 * BL_MIB;
        f.s.store.slow = true;
        later(&f, 100 * BL_MSEC);
        expect(&f, 0, BL_WHY_STOP_STORE,
               "puts the target of web1 back to 1000 MiB: the store that it swaps on does not keep up");
        assert_true(f.plan.d[0].act);
        assert_int_equal(f.plan.d[0].to, v->actual);
        teardown(&f);
}

/* It reads back what it has no room for: it gets memory in steps, and is not pressed to where it was. */
static void test_thrash(void **state)
{
        struct fixture f;
        struct bl_vm *v;
        uint64_t kept;

        (void)state;
        setup(&f, 600);
        v = on_store(&f, "web1");
        decide(&f);
        v->target = v->actual = f.plan.d[0].to;
        v->target_at = f.s.at;
        v->stats.actual = v->actual;
        v->stats.total = v->actual - 40 * BL_MIB;
        v->stats.available = v->stats.unused = v->stats.caches = 0;
        v->resident = v->actual + 40 * BL_MIB;
        v->store.used = v->store.held = 300 * BL_MIB;
        v->stats.swap_free = v->stats.swap_total - v->store.used;
        f.s.host.free = 1100 * BL_MIB;
        later(&f, BL_SEC);
        assert_false(f.plan.d[0].act);
        v->stats.swap_in += 40 * BL_MIB;
        later(&f, BL_SEC);
        expect(&f, 0, BL_WHY_GRANT_THRASH,
               "gives 44 MiB to web1 (572 MiB to 615 MiB): it reads back what was pressed out of it, with 300 MiB in "
               "the store");
        kept = f.plan.d[0].to;
        assert_true(kept > v->actual + 40 * BL_MIB);

        /* the host is in need again: it is not pressed below what it showed to need */
        v->target = v->actual = v->stats.actual = kept;
        v->target_at = f.s.at;
        v->stats.total = kept - 40 * BL_MIB;
        v->resident = kept + 40 * BL_MIB;
        f.s.host.free = 200 * BL_MIB;
        later(&f, 20 * BL_SEC);
        assert_false(f.plan.d[0].act);
        later(&f, 600 * BL_SEC);
        assert_true(f.plan.d[0].act);
        teardown(&f);
}

/* The pool is made ready above hard, within what it may be, and counts as used. */
static void test_pool_to(void **state)
{
        struct fixture f;
        struct bl_vm *v;

        (void)state;
        setup(&f, 8000);
        v = on_store(&f, "web1");
        v->limit = v->actual;
        f.s.store.pool_ready = f.s.store.headroom = 0;
        decide(&f);
        assert_in_range(f.plan.pool_to / BL_MIB, 900, 1300);
        f.s.store.pool_size = 256 * BL_MIB;
        decide(&f);
        assert_int_equal(f.plan.pool_to, 256 * BL_MIB);
        /* 640 is the mark of soft */
        f.s.host.free = 900 * BL_MIB;
        decide(&f);
        assert_int_equal(f.plan.pool_to, 256 * BL_MIB);
        f.s.host.free = 760 * BL_MIB;
        decide(&f);
        assert_int_equal(f.plan.pool_to, 64 * BL_MIB);
        f.s.host.free = 300 * BL_MIB;
        decide(&f);
        assert_int_equal(f.plan.pool_to, 0);
        teardown(&f);
}

static void test_pageout(void **state)
{
        struct fixture f;
        struct bl_vm *v;

        (void)state;
        setup(&f, 300);
        v = add(&f, vm("old", 2048, 1000));
        v->no_reclaim = BL_RECLAIM_NO_BALLOON;
        v->offer[BL_ENGINE_BALLOON] = (struct bl_offer){};
        v->offer[BL_ENGINE_PAGEOUT].takes = 256 * BL_MIB;
        v->idle_since = f.s.at - 700 * BL_SEC;
        decide(&f);
        expect(&f, 0, BL_WHY_TAKE_PAGEOUT,
               "pages 256 MiB of old out: host is hard, 300 MiB free of a 1.0 GiB goal, and its balloon cannot give "
               "that");
        assert_int_equal(f.plan.d[0].engine, BL_ENGINE_PAGEOUT);
        assert_int_equal(f.plan.d[0].from, v->resident);
        assert_int_equal(f.plan.d[0].to, v->resident - 256 * BL_MIB);
        v->offer[BL_ENGINE_PAGEOUT] = (struct bl_offer){.gives = 50 * BL_MIB};
        decide(&f);
        expect(&f, 0, BL_WHY_SKIP_REFAULTS, "leaves old alone: it read back what was paged out of it");
        v->offer[BL_ENGINE_PAGEOUT] = (struct bl_offer){.takes = 256 * BL_MIB};
        f.s.host.free = 2000 * BL_MIB;
        decide(&f);
        expect(&f, 0, BL_WHY_TAKE_IDLE, "pages 16 MiB of old out: it has been idle for 12 min");
        v->hold = BL_HOLD_ADMIN;
        decide(&f);
        assert_int_equal(f.plan.d[0].engine, BL_ENGINE_BALLOON);
        assert_false(f.plan.d[0].act);
        teardown(&f);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_strings),
                cmocka_unit_test(test_nothing),
                cmocka_unit_test(test_take),
                cmocka_unit_test(test_growth),
                cmocka_unit_test(test_skips),
                cmocka_unit_test(test_waits_and_grants),
                cmocka_unit_test(test_in_flight),
                cmocka_unit_test(test_promises),
                cmocka_unit_test(test_offers),
                cmocka_unit_test(test_report_tells_its_balloon),
                cmocka_unit_test(test_settling),
                cmocka_unit_test(test_forgets_the_gone),
                cmocka_unit_test(test_request),
                cmocka_unit_test(test_request_is_forgotten),
                cmocka_unit_test(test_request_makes_others_give),
                cmocka_unit_test(test_request_uses_reserve),
                cmocka_unit_test(test_request_for_nothing),
                cmocka_unit_test(test_request_is_over),
                cmocka_unit_test(test_request_spares),
                cmocka_unit_test(test_request_turns_back),
                cmocka_unit_test(test_asks_idly),
                cmocka_unit_test(test_stalls),
                cmocka_unit_test(test_limit_and_park),
                cmocka_unit_test(test_order_and_memory),
                cmocka_unit_test(test_copy),
                cmocka_unit_test(test_anything),
                cmocka_unit_test(test_allocation_failures),
                cmocka_unit_test(test_names),
                cmocka_unit_test(test_clear),
                cmocka_unit_test(test_store_press),
                cmocka_unit_test(test_store_skips),
                cmocka_unit_test(test_store_stop),
                cmocka_unit_test(test_thrash),
                cmocka_unit_test(test_pool_to),
                cmocka_unit_test(test_pageout),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
