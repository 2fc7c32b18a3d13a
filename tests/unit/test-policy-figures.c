/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Marks, states, the check of statistics, and the floor. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <ballast/policy.h>

#include "policy/internal.h"

static void test_sliding_scale(void **state)
{
        /* worked by hand from ESX's table; 1638 MB for 100 GB is VMware's published example */
        static const struct {
                uint64_t budget_gib, mib;
        } cases[] = {{1, 61}, {4, 245}, {8, 409}, {12, 573}, {28, 901}, {100, 1638}, {1024, 11100}};

        (void)state;
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                struct bl_marks m;

                bl_marks_compute(cases[i].budget_gib * BL_GIB, BL_UNSET, &m);
                assert_int_equal(m.min_free / BL_MIB, cases[i].mib);
        }
}

static void test_marks(void **state)
{
        struct bl_marks m;

        (void)state;
        bl_marks_compute(64 * BL_GIB, 1000 * BL_MIB, &m);
        assert_int_equal(m.min_free, 1000 * BL_MIB);
        assert_int_equal(m.mark[BL_STATE_HIGH], 4000 * BL_MIB);
        assert_int_equal(m.mark[BL_STATE_CLEAR], 1000 * BL_MIB);
        assert_int_equal(m.mark[BL_STATE_SOFT], 640 * BL_MIB);
        assert_int_equal(m.mark[BL_STATE_HARD], 320 * BL_MIB);
        assert_int_equal(m.mark[BL_STATE_LOW], 160 * BL_MIB);
        /* nothing overflows */
        bl_marks_compute(UINT64_MAX, BL_UNSET, &m);
        assert_true(m.min_free > UINT64_MAX / 101 && m.min_free < UINT64_MAX / 99);
        bl_marks_compute(0, BL_UNSET, &m);
        assert_int_equal(m.mark[BL_STATE_HIGH], 0);
}

#define H BL_STATE_HIGH
#define C BL_STATE_CLEAR
#define S BL_STATE_SOFT
#define D BL_STATE_HARD
#define L BL_STATE_LOW

static void test_states(void **state)
{
        static const struct {
                enum bl_host_state before;
                uint64_t free;
                enum bl_host_state after, plain;
        } cases[] = {
                /* entered below its own mark */
                {H, 1000, H, H},
                {H, 999, C, C},
                {C, 640, C, C},
                {C, 639, S, S},
                {S, 320, S, S},
                {S, 319, D, D},
                {D, 160, D, D},
                {D, 159, L, L},
                /* left upwards at the mark of the state above */
                {L, 319, L, D},
                {L, 320, D, S},
                {D, 639, D, S},
                {D, 640, S, C},
                {S, 999, S, C},
                {S, 1000, C, H},
                {C, 3999, C, H},
                {C, 4000, H, H},
                /* several at once */
                {H, 0, L, L},
                {H, 400, S, S},
                {L, 4000, H, H},
                {L, 1000, C, H},
                {L, 3999, C, H},
                {D, 1500, C, H},
                {H, UINT64_MAX, H, H},
        };
        struct bl_marks m;

        (void)state;
        bl_marks_compute(0, 1000, &m);
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                assert_int_equal(bl_state_next(cases[i].before, cases[i].free, &m, true), cases[i].after);
                assert_int_equal(bl_state_next(cases[i].before, cases[i].free, &m, false), cases[i].plain);
        }
}

/* With hysteresis a state is left in one direction only by going a whole step further. */
static void test_states_are_stable(void **state)
{
        struct bl_marks m;

        (void)state;
        bl_marks_compute(0, 1000, &m);
        for (uint64_t free = 0; free < 5000; free++) {
                for (int s = H; s <= L; s++) {
                        enum bl_host_state next = bl_state_next((enum bl_host_state)s, free, &m, true);

                        assert_int_equal(bl_state_next(next, free, &m, true), next);
                }
        }
}

static struct bl_guest_stats good_stats(void)
{
        return (struct bl_guest_stats){
                .source = BL_STATS_BALLOON,
                .at = 100 * BL_SEC,
                .period = 5 * BL_SEC,
                .total = 960 * BL_MIB,
                .available = 500 * BL_MIB,
                .unused = 100 * BL_MIB,
                .caches = 450 * BL_MIB,
                .swap_total = BL_GIB,
                .swap_free = BL_GIB,
                .swap_in = 0,
                .swap_out = 0,
                .major_faults = 0,
                .unevictable = 0,
                .hugetlb = 0,
                .psi_some = BL_UNSET,
        };
}

#define CHECK(field, value, verdict)                                                  \
        do {                                                                          \
                struct bl_guest_stats _s = good_stats();                              \
                _s.field = (value);                                                   \
                assert_int_equal(bl_stats_check(&_s, BL_GIB, 101 * BL_SEC), verdict); \
        } while (0)

static void test_stats_check(void **state)
{
        struct bl_guest_stats s = good_stats();

        (void)state;
        assert_int_equal(bl_stats_check(&s, BL_GIB, 100 * BL_SEC), BL_STATS_GOOD);
        CHECK(source, BL_STATS_NONE, BL_STATS_MISSING);
        CHECK(at, 0, BL_STATS_MISSING);
        CHECK(at, BL_UNSET, BL_STATS_MISSING);
        CHECK(total, BL_UNSET, BL_STATS_MISSING);
        CHECK(available, BL_UNSET, BL_STATS_GOOD);
        s.available = s.unused = BL_UNSET;
        assert_int_equal(bl_stats_check(&s, BL_GIB, 100 * BL_SEC), BL_STATS_MISSING);
        CHECK(caches, BL_UNSET, BL_STATS_GOOD);

        CHECK(total, 0, BL_STATS_ABSURD);
        CHECK(total, 2 * BL_GIB, BL_STATS_ABSURD);
        CHECK(total, BL_GIB + 4 * BL_MIB, BL_STATS_GOOD);
        CHECK(available, 961 * BL_MIB, BL_STATS_ABSURD);
        CHECK(available, UINT64_MAX - 4095, BL_STATS_ABSURD); /* -4096 */
        CHECK(unused, 961 * BL_MIB, BL_STATS_ABSURD);
        CHECK(unused, 600 * BL_MIB, BL_STATS_GOOD); /* more than available: Linux does that */
        CHECK(caches, 2 * BL_GIB, BL_STATS_ABSURD);
        CHECK(unevictable, 2 * BL_GIB, BL_STATS_ABSURD);
        CHECK(hugetlb, 2 * BL_GIB, BL_STATS_ABSURD);
        CHECK(swap_free, 2 * BL_GIB, BL_STATS_ABSURD);
        CHECK(swap_total, BL_UNSET, BL_STATS_ABSURD); /* free swap of nothing */
        CHECK(swap_total, UINT64_MAX - 4095, BL_STATS_ABSURD);
}

static void test_stats_age(void **state)
{
        struct bl_guest_stats s = good_stats();

        (void)state;
        assert_int_equal(bl_stats_check(&s, BL_GIB, 115 * BL_SEC), BL_STATS_GOOD);
        assert_int_equal(bl_stats_check(&s, BL_GIB, 115 * BL_SEC + 1), BL_STATS_STALE);
        assert_int_equal(bl_stats_check(&s, BL_GIB, 99 * BL_SEC), BL_STATS_STALE);
        s.period = 0;
        assert_int_equal(bl_stats_check(&s, BL_GIB, 110 * BL_SEC), BL_STATS_GOOD);
        assert_int_equal(bl_stats_check(&s, BL_GIB, 1000 * BL_SEC), BL_STATS_STALE);
        s.period = UINT64_MAX / 2;
        assert_int_equal(bl_stats_check(&s, BL_GIB, UINT64_MAX), BL_STATS_GOOD);
}

static struct bl_vm good_vm(void)
{
        return (struct bl_vm){.max = BL_GIB, .actual = BL_GIB, .stats = good_stats()};
}

static struct bl_policy_config config(void)
{
        struct bl_policy_config c;

        bl_policy_config_default(&c);
        c.guest_margin = 64 * BL_MIB;
        c.guest_margin_ratio = 1000;
        return c;
}

static uint64_t floor_of(const struct bl_vm *vm, const struct bl_policy_config *c, bool hard)
{
        struct bl_need n;

        bl_guest_need(vm, c, vm->actual, bl_or_zero(vm->stats.swap_free), hard, &n);
        return n.floor;
}

static void test_floor(void **state)
{
        struct bl_policy_config c = config();
        struct bl_vm vm = good_vm();

        (void)state;
        /* 460 used, 64 of the kernel's own, and a margin of at least 64 */
        assert_int_equal(floor_of(&vm, &c, false), (460 + 64 + 64) * BL_MIB);
        assert_int_equal(floor_of(&vm, &c, true), (460 + 64 + 32) * BL_MIB);

        /* the ratio where that is more */
        c.guest_margin_ratio = 5000;
        assert_int_equal(floor_of(&vm, &c, false), (460 + 64) * BL_MIB * 3 / 2);
        c = config();

        /* swapped out: it would be needed */
        vm.stats.swap_free -= 200 * BL_MIB;
        assert_int_equal(floor_of(&vm, &c, false), (460 + 64 + 200) * BL_MIB + (460 + 64 + 200) * BL_MIB / 10);

        /* no swap, or none left */
        vm = good_vm();
        vm.stats.swap_total = vm.stats.swap_free = 0;
        assert_int_equal(floor_of(&vm, &c, false), (460 + 64 + 96) * BL_MIB);
        vm.stats.swap_total = vm.stats.swap_free = BL_UNSET;
        assert_int_equal(floor_of(&vm, &c, false), (460 + 64 + 96) * BL_MIB);

        /* what cannot move stays, whatever is said to be available */
        vm = good_vm();
        vm.stats.available = vm.stats.total;
        vm.stats.unevictable = 300 * BL_MIB;
        vm.stats.hugetlb = 200 * BL_MIB;
        assert_int_equal(floor_of(&vm, &c, false), (300 + 200 + 64 + 96) * BL_MIB);
}

/* Swap stands in for memory as far as it has room, and as there is what can go there. */
static void test_floor_and_swap(void **state)
{
        struct bl_policy_config c = config();
        struct bl_vm vm = good_vm();

        (void)state;
        /* full: as good as none, and what is in it would come back */
        vm.stats.swap_total = 100 * BL_MIB;
        vm.stats.swap_free = 0;
        assert_int_equal(floor_of(&vm, &c, false), (460 + 64 + 100 + 96) * BL_MIB);
        /* nearly full: room for 16 MiB, so three quarters of the half margin */
        vm.stats.swap_total = 116 * BL_MIB;
        vm.stats.swap_free = 16 * BL_MIB;
        assert_int_equal(floor_of(&vm, &c, false), (460 + 64 + 100 + 64 + 24) * BL_MIB);
        /* what is left until its OOM killer comes is one margin and a half at least, wherever swap stands */
        for (uint64_t room = 0; room < 200; room++) {
                vm.stats.swap_free = room * BL_MIB;
                vm.stats.swap_total = vm.stats.swap_free;
                assert_true(floor_of(&vm, &c, false) + vm.stats.swap_free >= (460 + 64 + 96) * BL_MIB);
        }

        /* how much of it is free is not said: it is neither room nor need */
        vm.stats.swap_total = BL_GIB;
        vm.stats.swap_free = BL_UNSET;
        assert_int_equal(floor_of(&vm, &c, false), (460 + 64 + 96) * BL_MIB);
}

/* What is locked or in huge pages, used or free, is need, and cannot go to swap. */
static void test_floor_and_pinned(void **state)
{
        struct bl_policy_config c = config();
        struct bl_vm vm = good_vm();

        (void)state;
        /* of 460 used 400 are free huge pages: not in MemAvailable, so they are counted once */
        vm.stats.hugetlb = 400 * BL_MIB;
        assert_int_equal(floor_of(&vm, &c, false), (460 + 64 + 64 + 2) * BL_MIB);
        /* 30 of the rest are mlocked: there are 30 left for the swap of 1 GiB */
        vm.stats.unevictable = 30 * BL_MIB;
        assert_int_equal(floor_of(&vm, &c, false), (460 + 64 + 64 + 17) * BL_MIB);
        vm.stats.unevictable = 60 * BL_MIB;
        assert_int_equal(floor_of(&vm, &c, false), (460 + 64 + 64 + 32) * BL_MIB);
        /* more than it has is as much as it has */
        vm.stats.hugetlb = vm.stats.unevictable = 900 * BL_MIB;
        assert_int_equal(floor_of(&vm, &c, false), BL_GIB + 2 * (BL_GIB / 10 / 2) + BL_GIB / 10 / 2);
}

static void test_floor_without_memavailable(void **state)
{
        struct bl_policy_config c = config();
        struct bl_vm vm = good_vm();

        (void)state;
        vm.stats.available = BL_UNSET;
        /* 100 free and half of 450 cached */
        assert_int_equal(floor_of(&vm, &c, false), (1024 - 100 - 225) * BL_MIB + (1024 - 100 - 225) * BL_MIB / 10);
        vm.stats.caches = BL_UNSET;
        assert_true(floor_of(&vm, &c, false) > (1024 - 100) * BL_MIB);
        /* mlocked pages are not cache to be dropped */
        vm.stats.caches = 450 * BL_MIB;
        vm.stats.unevictable = 450 * BL_MIB;
        assert_true(floor_of(&vm, &c, false) > (1024 - 100) * BL_MIB);
}

/* Any figures that pass the check give a floor without overflow. */
static void test_floor_of_anything(void **state)
{
        uint64_t seed = 88172645463325252U;
        struct bl_policy_config c = config();

        (void)state;
        for (int i = 0; i < 200000; i++) {
                struct bl_vm vm = good_vm();
                uint64_t *fields[] = {&vm.stats.total,       &vm.stats.available,  &vm.stats.unused,
                                      &vm.stats.caches,      &vm.stats.swap_total, &vm.stats.swap_free,
                                      &vm.stats.unevictable, &vm.stats.hugetlb,    &vm.actual};

                for (size_t k = 0; k < sizeof(fields) / sizeof(fields[0]); k++) {
                        seed ^= seed << 13;
                        seed ^= seed >> 7;
                        seed ^= seed << 17;
                        if (seed % 3 == 0)
                                *fields[k] = seed >> (seed % 60);
                        else if (seed % 7 == 0)
                                *fields[k] = BL_UNSET;
                }
                if (bl_stats_check(&vm.stats, vm.max, 101 * BL_SEC) == BL_STATS_GOOD) {
                        uint64_t floor = floor_of(&vm, &c, false);

                        assert_true(floor >= c.guest_margin);
                        assert_true(floor >= floor_of(&vm, &c, true));
                }
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_sliding_scale),
                cmocka_unit_test(test_marks),
                cmocka_unit_test(test_states),
                cmocka_unit_test(test_states_are_stable),
                cmocka_unit_test(test_stats_check),
                cmocka_unit_test(test_stats_age),
                cmocka_unit_test(test_floor),
                cmocka_unit_test(test_floor_and_swap),
                cmocka_unit_test(test_floor_and_pinned),
                cmocka_unit_test(test_floor_without_memavailable),
                cmocka_unit_test(test_floor_of_anything),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
