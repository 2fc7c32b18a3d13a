/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Levels, revocation, grants and steps, on numbers worked by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "policy/internal.h"

static struct bl_policy_config config(void)
{
        struct bl_policy_config c;

        bl_policy_config_default(&c);
        return c;
}

static struct bl_vm vm_of(uint64_t limit)
{
        return (struct bl_vm){.max = limit, .limit = limit};
}

static struct bl_work giver(uint64_t base, uint64_t active, uint64_t shares, uint64_t room)
{
        return (struct bl_work){.base = base, .base_up = base, .active = active, .shares = shares, .room = room};
}

static void test_levels(void **state)
{
        static const uint64_t sizes[] = {1, 4096, 300 * BL_MIB, 2 * BL_GIB, 900 * BL_GIB, 16 * 1024 * BL_GIB};
        static const uint64_t shares[] = {1, 3, 1000, 81920, 1000000};
        static const permyriad_t taxes[] = {0, 5000, 7500, 9900, 10000};

        (void)state;
        for (size_t i = 0; i < 6; i++) {
                for (size_t k = 0; k < 5; k++) {
                        for (size_t t = 0; t < 5; t++) {
                                for (uint64_t part = 0; part <= 4; part++) {
                                        uint64_t active = sizes[i] / 4 * part;
                                        bl_level l = bl_level_of(sizes[i], shares[k], active, taxes[t]);
                                        uint64_t back = bl_level_size(l, shares[k], active, taxes[t]);

                                        /* what saturates are terabytes for one share */
                                        if (l == UINT64_MAX)
                                                continue;
                                        assert_true(back >= sizes[i]);
                                        assert_true(back - sizes[i] <= 2 + shares[k] / 1024 + sizes[i] / BL_MIB);
                                }
                        }
                }
        }
        /* rho = S / (P (f + k (1 - f))), k = 4: 1 GiB of which a quarter is active costs like 3.25 GiB */
        assert_int_equal(bl_level_of(BL_GIB, 1, BL_GIB / 4, 7500) >> 12, BL_GIB / 4 * 13);
        assert_int_equal(bl_level_of(BL_GIB, 2, BL_GIB / 4, 7500) >> 12, BL_GIB / 8 * 13);
}

/* The taxed idle VM gives until it pays as much as the active one. */
static void test_revoke_idle_first(void **state)
{
        struct bl_policy_config c = config();
        struct bl_work w[] = {
                giver(1000 * BL_MIB, 1000 * BL_MIB, 1000, 900 * BL_MIB),
                giver(1000 * BL_MIB, 200 * BL_MIB, 1000, 700 * BL_MIB),
        };
        struct bl_pick picks[2];

        (void)state;
        /* level of the idle one: 200 + 4 * 800 = 3400; it gives 600 to come to 1000 */
        assert_in_range(bl_revoke(w, 2, 600 * BL_MIB, 0, false, &c, picks), 600 * BL_MIB, 601 * BL_MIB);
        assert_in_range(w[0].take, 0, 4 * BL_MIB);
        assert_in_range(w[1].take, 596 * BL_MIB, 601 * BL_MIB);

        /* and from there on the active one gives four times as much */
        assert_in_range(bl_revoke(w, 2, 100 * BL_MIB, 0, false, &c, picks), 100 * BL_MIB, 101 * BL_MIB);
        assert_in_range(w[0].take, 76 * BL_MIB, 84 * BL_MIB);
}

static void test_revoke_by_shares(void **state)
{
        struct bl_policy_config c = config();
        struct bl_work w[] = {
                giver(1200 * BL_MIB, 1200 * BL_MIB, 2000, 1200 * BL_MIB),
                giver(1200 * BL_MIB, 1200 * BL_MIB, 1000, 1200 * BL_MIB),
        };
        struct bl_pick picks[2];

        (void)state;
        bl_revoke(w, 2, 900 * BL_MIB, 0, false, &c, picks);
        /* 1500 are left: two to one */
        assert_in_range(w[0].base, 999 * BL_MIB, 1001 * BL_MIB);
        assert_in_range(w[1].base, 499 * BL_MIB, 501 * BL_MIB);
}

static void test_revoke_bounds(void **state)
{
        struct bl_policy_config c = config();
        struct bl_work w[] = {
                giver(1000 * BL_MIB, 500 * BL_MIB, 1000, 50 * BL_MIB),
                giver(1000 * BL_MIB, 500 * BL_MIB, 1000, 0),
                giver(1000 * BL_MIB, 500 * BL_MIB, 1000, 300 * BL_MIB),
        };
        struct bl_pick picks[3];

        (void)state;
        assert_in_range(bl_revoke(w, 3, 200 * BL_MIB, 0, false, &c, picks), 200 * BL_MIB, 201 * BL_MIB);
        assert_int_equal(w[0].take, 50 * BL_MIB);
        assert_int_equal(w[1].take, 0);
        /* more than there is: all that there is */
        assert_in_range(bl_revoke(w, 3, 9 * BL_GIB, 0, false, &c, picks), 149 * BL_MIB, 150 * BL_MIB);
        assert_int_equal(w[2].take, 300 * BL_MIB);
        /* what is coming need not be taken again */
        w[2].room = 300 * BL_MIB;
        w[2].base = 1000 * BL_MIB;
        assert_int_equal(bl_revoke(w, 3, 100 * BL_MIB, 100 * BL_MIB, false, &c, picks), 0);
}

/* What others are due is taken only from those who pay less than they will. */
static void test_revoke_for_others(void **state)
{
        struct bl_policy_config c = config();
        struct bl_work w[] = {
                giver(1000 * BL_MIB, 500 * BL_MIB, 1000, 400 * BL_MIB), /* level 2500 */
                giver(800 * BL_MIB, 800 * BL_MIB, 1000, 0),
        };
        struct bl_pick picks[2];
        uint64_t taken;

        (void)state;
        w[1].due = 10 * BL_GIB;
        taken = bl_revoke(w, 2, 0, 0, true, &c, picks);
        /* at level x one has left 500 + (x - 500) / 4 and the other x: together 1800 at 1140 */
        assert_in_range(taken, 336 * BL_MIB, 345 * BL_MIB);

        /* twice as rich as anybody: nothing is due */
        w[0] = giver(1000 * BL_MIB, 950 * BL_MIB, 1000, 400 * BL_MIB);
        w[1] = giver(2500 * BL_MIB, 2500 * BL_MIB, 1000, 0);
        w[1].due = BL_GIB;
        assert_int_equal(bl_revoke(w, 2, 0, 0, true, &c, picks), 0);
        /* but a reservation is due in any case */
        w[1].due_reserved = true;
        w[1].due = 300 * BL_MIB;
        assert_in_range(bl_revoke(w, 2, 0, 0, true, &c, picks), 300 * BL_MIB, 301 * BL_MIB);
}

/* A thousand VMs and a need of a few MiB: a few commands, and the sum is right. */
static void test_steps(void **state)
{
        enum { N = 1000 };
        static struct bl_work w[N];
        static struct bl_pick picks[N];
        struct bl_policy_config c = config();
        uint64_t sum = 0;
        unsigned int n = 0;

        (void)state;
        for (int i = 0; i < N; i++)
                w[i] = giver(BL_GIB, 500 * BL_MIB, 1000, 400 * BL_MIB);
        bl_revoke(w, N, 50 * BL_MIB, 0, false, &c, picks);
        for (int i = 0; i < N; i++) {
                assert_true(w[i].take == 0 || w[i].take >= c.dead_band);
                sum += w[i].take;
                n += w[i].take > 0;
        }
        assert_in_range(sum, 50 * BL_MIB, 60 * BL_MIB);
        assert_in_range(n, 12, 15);

        /* and the next few come from others */
        bl_revoke(w, N, 50 * BL_MIB, 0, false, &c, picks);
        for (int i = 0; i < N; i++)
                assert_true(w[i].take <= c.dead_band);
}

/* Where parts are too small for a command each, whoever pays least moves a whole step. */
static void test_small_parts(void **state)
{
        struct bl_policy_config c = config();
        struct bl_work w[] = {
                giver(1001 * BL_MIB, 2 * BL_GIB, 1000, 500 * BL_MIB),
                giver(1003 * BL_MIB, 2 * BL_GIB, 1000, 500 * BL_MIB),
                giver(1002 * BL_MIB, 2 * BL_GIB, 1000, 500 * BL_MIB),
        };
        struct bl_pick picks[3];

        (void)state;
        assert_int_equal(bl_revoke(w, 3, 5 * BL_MIB, 0, false, &c, picks), 2 * c.dead_band);
        assert_int_equal(w[0].take, 0);
        assert_int_equal(w[1].take, c.dead_band);
        assert_int_equal(w[2].take, c.dead_band);
}

static void test_grant(void **state)
{
        struct bl_policy_config c = config();
        struct bl_vm vm = vm_of(2 * BL_GIB);
        struct bl_vm_state st = {};
        struct bl_work w[3] = {
                giver(300 * BL_MIB, 300 * BL_MIB, 1000, 0),
                giver(500 * BL_MIB, 500 * BL_MIB, 1000, 0),
                giver(500 * BL_MIB, 500 * BL_MIB, 1000, 0),
        };
        struct bl_pick picks[3];

        (void)state;
        for (int i = 0; i < 3; i++) {
                w[i].vm = &vm;
                w[i].st = &st;
                w[i].highest = 2 * BL_GIB;
                w[i].may_grant = i != 2;
                w[i].due = 400 * BL_MIB;
        }
        /* whoever has least comes first, and nothing beyond the amount */
        assert_in_range(bl_grant(w, 3, 300 * BL_MIB, BL_WHY_GRANT_NEED, &c, picks), 296 * BL_MIB, 300 * BL_MIB);
        assert_in_range(w[0].grant, 248 * BL_MIB, 251 * BL_MIB);
        assert_in_range(w[1].grant, 48 * BL_MIB, 51 * BL_MIB);
        assert_int_equal(w[2].grant, 0);
        /* more than is due is not given */
        assert_in_range(bl_grant(w, 3, 9 * BL_GIB, BL_WHY_GRANT_NEED, &c, picks), 496 * BL_MIB, 504 * BL_MIB);
        assert_int_equal(w[0].due, 0);
        /* at rest up to the limit, in a tick of its own */
        assert_int_equal(bl_grant(w, 3, 9 * BL_GIB, BL_WHY_GRANT_REST, &c, picks), 0);
        w[0].grant = w[1].grant = 0;
        bl_grant(w, 3, 9 * BL_GIB, BL_WHY_GRANT_REST, &c, picks);
        assert_int_equal(w[0].base_up, 2 * BL_GIB);
        assert_int_equal(w[1].base_up, 2 * BL_GIB);
}

static void test_entitlement(void **state)
{
        struct bl_policy_config c = config();
        struct bl_vm small = vm_of(500 * BL_MIB), large = vm_of(4 * BL_GIB), idle;
        struct bl_vm_state st = {};
        struct bl_work w[3] = {
                giver(500 * BL_MIB, 500 * BL_MIB, 1000, 0),
                giver(1000 * BL_MIB, 1000 * BL_MIB, 1000, 0),
                giver(1500 * BL_MIB, 1500 * BL_MIB, 1000, 0),
        };
        bl_level fair;

        (void)state;
        for (int i = 0; i < 3; i++) {
                w[i].vm = i == 0 ? &small : &large;
                w[i].st = &st;
                w[i].highest = w[i].vm->limit;
                w[i].may_grant = true;
                w[i].due = BL_GIB;
        }
        /* 3000: the small one is full at 500, the others have 1250 each */
        fair = bl_fair_level(w, 3, 3000 * BL_MIB);
        assert_in_range(bl_fair_size(&w[0], fair), 500 * BL_MIB, 500 * BL_MIB);
        assert_in_range(bl_fair_size(&w[1], fair), 1249 * BL_MIB, 1250 * BL_MIB);
        bl_entitle(w, 3, fair, &c);
        assert_in_range(w[1].due, 249 * BL_MIB, 250 * BL_MIB);
        assert_int_equal(w[2].due, 0);

        /* while somebody holds idle memory, more is due: up to what that one pays */
        w[0].room = 100 * BL_MIB;
        w[0].active = 100 * BL_MIB; /* level 1700 */
        w[1].due = w[2].due = BL_GIB;
        large.resident = 1500 * BL_MIB;
        bl_entitle(w, 3, fair, &c);
        assert_in_range(w[1].due, 627 * BL_MIB, 701 * BL_MIB);
        assert_in_range(w[2].due, 127 * BL_MIB, 201 * BL_MIB);

        /* but not to one that the host does not see use what it has: two margins beyond that */
        large.resident = 1200 * BL_MIB;
        w[1].due = w[2].due = BL_GIB;
        bl_entitle(w, 3, fair, &c);
        assert_int_equal(w[1].due, 328 * BL_MIB);
        assert_int_equal(w[2].due, 0);

        /* what is asked for is due within its part, and beyond that as far as figures call for it */
        large.resident = 8 * BL_GIB;
        w[1].due_asked = true;
        w[1].due = BL_GIB;
        bl_entitle(w, 3, fair, &c);
        assert_in_range(w[1].due, 249 * BL_MIB, 250 * BL_MIB);
        w[1].due = BL_GIB;
        w[1].called_for = 1300 * BL_MIB;
        bl_entitle(w, 3, fair, &c);
        assert_int_equal(w[1].due, 300 * BL_MIB);

        /* nobody is squeezed, and one leaves what it could have to the others: at the price of idle memory */
        idle = vm_of(4 * BL_GIB);
        w[0] = giver(500 * BL_MIB, 500 * BL_MIB, 1000, 0);
        w[0].vm = &idle;
        w[0].st = &st;
        w[0].highest = idle.limit;
        w[0].may_grant = true;
        w[1].due = 0;
        w[1].due_asked = false;
        w[2].due = 4 * BL_GIB;
        fair = bl_fair_level(w, 3, 4500 * BL_MIB);
        bl_entitle(w, 3, fair, &c);
        /* 500 active and 1000 idle: 4500 */
        assert_in_range(w[2].due, 2999 * BL_MIB, 3001 * BL_MIB);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_levels),
                cmocka_unit_test(test_revoke_idle_first),
                cmocka_unit_test(test_revoke_by_shares),
                cmocka_unit_test(test_revoke_bounds),
                cmocka_unit_test(test_revoke_for_others),
                cmocka_unit_test(test_steps),
                cmocka_unit_test(test_small_parts),
                cmocka_unit_test(test_grant),
                cmocka_unit_test(test_entitlement),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
