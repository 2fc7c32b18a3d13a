/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who may share with whom. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/share_cost.h"
#include "daemon/share_groups.h"

#define N(a) (sizeof(a) / sizeof(*(a)))

static const struct bl_share_host any_group = {.mode = BL_SHARE_GROUP, .group = "", .default_group = "", .swap = true};

/* A VM that asks for its group and has nothing against it. */
static struct bl_share_vm asker(const char *group)
{
        return (struct bl_share_vm){.sharing = BL_SHARE_GROUP, .group = group, .backends = 1};
}

static struct bl_share_verdict judge_alone(const struct bl_share_host *h, struct bl_share_vm vm)
{
        struct bl_share_verdict v;
        struct bl_share_groups g;

        bl_share_judge(h, &vm, 1, &v, &g);
        return v;
}

#define IS(v, m, why)                                 \
        do {                                          \
                struct bl_share_verdict _v = (v);     \
                assert_int_equal(_v.mode, (m));       \
                assert_int_equal(_v.no_share, (why)); \
        } while (0)

/* --- one VM ------------------------------------------------------------------- */

static void test_what_a_vm_asks_for(void **state)
{
        struct bl_share_vm silent = {.sharing = -1, .group = "", .backends = 1};
        struct bl_share_host h = any_group;
        struct bl_share_vm vm;

        (void)state;
        assert_int_equal(judge_alone(&h, silent).asked, BL_SHARE_ZERO);
        IS(judge_alone(&h, silent), BL_SHARE_ZERO, BL_NO_SHARE_OK);
        /* one that names its group wants to share with it */
        silent.group = "web";
        assert_int_equal(judge_alone(&h, silent).asked, BL_SHARE_GROUP);
        IS(judge_alone(&h, silent), BL_SHARE_GROUP, BL_NO_SHARE_OK);
        /* the group of all the rest is nothing that a VM said */
        silent.group = "";
        h.default_group = "all";
        IS(judge_alone(&h, silent), BL_SHARE_ZERO, BL_NO_SHARE_OK);
        assert_string_equal(judge_alone(&h, silent).group, "all");
        vm = asker("");
        IS(judge_alone(&h, vm), BL_SHARE_GROUP, BL_NO_SHARE_OK);
        h.default_group = "";
        IS(judge_alone(&h, vm), BL_SHARE_ZERO, BL_NO_SHARE_NO_GROUP);
        assert_true(judge_alone(&h, vm).loud);
        vm.sharing = BL_SHARE_OFF;
        IS(judge_alone(&h, vm), BL_SHARE_OFF, BL_NO_SHARE_OK);
        vm = asker("web");
        vm.left_alone = true;
        IS(judge_alone(&h, vm), BL_SHARE_OFF, BL_NO_SHARE_OK);
}

static void test_what_the_host_allows(void **state)
{
        struct bl_share_host h = any_group;
        struct bl_share_vm vm = asker("web");

        (void)state;
        h.mode = BL_SHARE_OFF;
        IS(judge_alone(&h, vm), BL_SHARE_OFF, BL_NO_SHARE_HOST);
        h.mode = BL_SHARE_ZERO;
        IS(judge_alone(&h, vm), BL_SHARE_ZERO, BL_NO_SHARE_HOST);
        vm.sharing = BL_SHARE_ZERO;
        IS(judge_alone(&h, vm), BL_SHARE_ZERO, BL_NO_SHARE_OK);
        h.swap = false;
        IS(judge_alone(&h, vm), BL_SHARE_ZERO, BL_NO_SHARE_NO_SWAP);
        /* merging needs no swap */
        h.mode = BL_SHARE_GROUP;
        IS(judge_alone(&h, asker("web")), BL_SHARE_GROUP, BL_NO_SHARE_OK);
}

static void test_what_it_is_made_of(void **state)
{
        struct bl_share_vm vm = asker("web");

        (void)state;
        vm.nosharepages = true;
        IS(judge_alone(&any_group, vm), BL_SHARE_ZERO, BL_NO_SHARE_XML);
        /* that is about merging: zero pages of it may go */
        vm.sharing = BL_SHARE_ZERO;
        IS(judge_alone(&any_group, vm), BL_SHARE_ZERO, BL_NO_SHARE_OK);
        vm = asker("web");
        vm.shared = true;
        IS(judge_alone(&any_group, vm), BL_SHARE_ZERO, BL_NO_SHARE_SHARED);
        vm.hugepages = true;
        IS(judge_alone(&any_group, vm), BL_SHARE_ZERO, BL_NO_SHARE_HUGEPAGES);
        vm.pinned = true;
        IS(judge_alone(&any_group, vm), BL_SHARE_ZERO, BL_NO_SHARE_PINNED);
        vm.sharing = BL_SHARE_ZERO;
        IS(judge_alone(&any_group, vm), BL_SHARE_ZERO, BL_NO_SHARE_PINNED);
        vm = asker("web");
        vm.backends = 0;
        IS(judge_alone(&any_group, vm), BL_SHARE_ZERO, BL_NO_SHARE_BACKEND);
        vm.backends = -1;
        IS(judge_alone(&any_group, vm), BL_SHARE_GROUP, BL_NO_SHARE_OK);
}

/* Merging is one thing, and zero pages that go out to swap another: what keeps a VM from the one need not from both. */
static void test_zero_pages(void **state)
{
        static const struct {
                bool nosharepages, shared, hugepages, pinned, left_alone;
                int sharing;
                bool possible;
        } cases[] = {
                {.sharing = BL_SHARE_ZERO, .possible = true},
                {.sharing = BL_SHARE_GROUP, .possible = true},
                {.sharing = BL_SHARE_GROUP, .nosharepages = true, .possible = true},
                {.sharing = BL_SHARE_GROUP, .shared = true},
                {.sharing = BL_SHARE_ZERO, .hugepages = true},
                {.sharing = BL_SHARE_GROUP, .pinned = true},
                {.sharing = BL_SHARE_OFF},
                {.sharing = BL_SHARE_ZERO, .left_alone = true},
        };

        (void)state;
        for (size_t i = 0; i < N(cases); i++)
                for (int mode = BL_SHARE_OFF; mode <= BL_SHARE_GROUP; mode++)
                        for (int swap = 0; swap <= 1; swap++) {
                                const struct bl_share_host h = {.mode = (enum bl_share_mode)mode,
                                                                .group = "",
                                                                .default_group = "",
                                                                .swap = swap};
                                struct bl_share_vm vm = asker("web");

                                vm.sharing = cases[i].sharing;
                                vm.nosharepages = cases[i].nosharepages;
                                vm.shared = cases[i].shared;
                                vm.hugepages = cases[i].hugepages;
                                vm.pinned = cases[i].pinned;
                                vm.left_alone = cases[i].left_alone;
                                assert_int_equal(judge_alone(&h, vm).zero_possible,
                                                 cases[i].possible && swap && mode > BL_SHARE_OFF);
                        }
}

/* --- several ------------------------------------------------------------------ */

static void test_two_groups(void **state)
{
        struct bl_share_vm vms[] = {asker("web"), asker("db"), asker("web")};
        struct bl_share_host h = any_group;
        struct bl_share_verdict v[N(vms)];
        struct bl_share_groups g;

        (void)state;
        bl_share_judge(&h, vms, N(vms), v, &g);
        assert_true(g.conflict);
        assert_string_equal(g.served, "");
        assert_non_null(strstr(g.error, "'web'"));
        assert_non_null(strstr(g.error, "'db'"));
        assert_non_null(strstr(g.error, "Group="));
        for (size_t i = 0; i < N(vms); i++)
                IS(v[i], BL_SHARE_ZERO, BL_NO_SHARE_TWO_GROUPS);

        h.group = "db";
        bl_share_judge(&h, vms, N(vms), v, &g);
        assert_false(g.conflict);
        assert_string_equal(g.served, "db");
        assert_string_equal(g.error, "");
        IS(v[0], BL_SHARE_ZERO, BL_NO_SHARE_OTHER_GROUP);
        IS(v[1], BL_SHARE_GROUP, BL_NO_SHARE_OK);
        assert_true(v[0].loud);
        /* one that only belongs to another group did not ask */
        vms[0].sharing = -1;
        bl_share_judge(&h, vms, N(vms), v, &g);
        IS(v[0], BL_SHARE_ZERO, BL_NO_SHARE_OTHER_GROUP);
        assert_false(v[0].loud);
        /* a group that nobody is of is served all the same: nobody is merged */
        h.group = "none";
        bl_share_judge(&h, vms, N(vms), v, &g);
        for (size_t i = 0; i < N(vms); i++)
                IS(v[i], BL_SHARE_ZERO, BL_NO_SHARE_OTHER_GROUP);
}

/* Only who could be merged has a say in which group it is. */
static void test_who_has_a_say(void **state)
{
        struct bl_share_vm vms[] = {asker("web"), asker("db")};
        struct bl_share_verdict v[N(vms)];
        struct bl_share_groups g;

        (void)state;
        vms[1].sharing = BL_SHARE_ZERO;
        bl_share_judge(&any_group, vms, N(vms), v, &g);
        assert_string_equal(g.served, "web");
        assert_int_equal(v[0].mode, BL_SHARE_GROUP);
        vms[1] = asker("db");
        vms[1].hugepages = true;
        bl_share_judge(&any_group, vms, N(vms), v, &g);
        assert_false(g.conflict);
        assert_int_equal(v[0].mode, BL_SHARE_GROUP);
        vms[1] = asker("db");
        vms[1].left_alone = true;
        bl_share_judge(&any_group, vms, N(vms), v, &g);
        assert_false(g.conflict);
        vms[1] = asker("db");
        vms[1].sharing = -1;
        bl_share_judge(&any_group, vms, N(vms), v, &g);
        assert_true(g.conflict);
}

/* --- all of them ----------------------------------------------------------------- */

static const char *const groups[] = {"", "a", "b"};

/* The n-th VM of all kinds that there are; false: there is none. */
static bool vm_number(unsigned n, struct bl_share_vm *ret)
{
        static const int backends[] = {-1, 0, 1};
        struct bl_share_vm vm = {.sharing = (int)(n % 4) - 1};

        n /= 4;
        vm.group = groups[n % 3];
        n /= 3;
        vm.left_alone = n & 1;
        vm.nosharepages = n & 2;
        vm.shared = n & 4;
        vm.hugepages = n & 8;
        vm.pinned = n & 16;
        n /= 32;
        if (n >= N(backends))
                return false;
        vm.backends = backends[n];
        *ret = vm;
        return true;
}

static void check_one(const struct bl_share_host *h, const struct bl_share_groups *g, const struct bl_share_vm *vm,
                      const struct bl_share_verdict *v)
{
        const char *group = *vm->group ? vm->group : h->default_group;

        assert_true(v->mode <= h->mode);
        assert_true(v->mode <= v->asked);
        assert_true(!vm->left_alone || v->mode == BL_SHARE_OFF);
        assert_true(v->mode == BL_SHARE_GROUP || v->asked != BL_SHARE_GROUP || v->no_share != BL_NO_SHARE_OK);
        assert_true(!v->loud || vm->sharing == BL_SHARE_GROUP);
        assert_string_equal(v->group, group);
        if (v->mode != BL_SHARE_GROUP)
                return;
        assert_int_equal(v->no_share, BL_NO_SHARE_OK);
        assert_false(g->conflict || vm->nosharepages || vm->shared || vm->hugepages || vm->pinned);
        assert_int_not_equal(vm->backends, 0);
        assert_true(*group);
        /* so all that are merged are of one group */
        assert_string_equal(group, g->served);
        assert_true(!*h->group || strcmp(group, h->group) == 0);
}

static void check_pair(const struct bl_share_host *h, const struct bl_share_vm *a, const struct bl_share_vm *b)
{
        const struct bl_share_vm there[] = {*a, *b}, back[] = {*b, *a};
        struct bl_share_verdict v[2], w[2];
        struct bl_share_groups g, k;

        bl_share_judge(h, there, 2, v, &g);
        bl_share_judge(h, back, 2, w, &k);
        check_one(h, &g, a, &v[0]);
        check_one(h, &g, b, &v[1]);
        /* the order says nothing */
        assert_int_equal(v[0].mode, w[1].mode);
        assert_int_equal(v[1].mode, w[0].mode);
        assert_int_equal(v[0].no_share, w[1].no_share);
        assert_int_equal(g.conflict, k.conflict);
        assert_string_equal(g.served, k.served);
        assert_int_equal(g.conflict, *g.error != '\0');
        assert_true(!g.conflict || (!*h->group && !*g.served));
}

static void test_every_pair(void **state)
{
        /* each kind beside those that may have a say */
        const struct bl_share_vm others[] = {
                asker("a"),
                asker("b"),
                asker(""),
                {.sharing = -1, .group = "a", .backends = -1},
                {.sharing = BL_SHARE_OFF, .group = "b", .backends = 1},
        };
        struct bl_share_vm vm;
        unsigned n = 0;

        (void)state;
        for (unsigned i = 0; vm_number(i, &vm); i++)
                for (unsigned k = 0; k < 3 * 3 * 3 * 2; k++) {
                        const struct bl_share_host h = {
                                .mode = (enum bl_share_mode)(k % 3),
                                .group = groups[k / 3 % 3],
                                .default_group = groups[k / 9 % 3],
                                .swap = k / 27,
                        };

                        for (size_t o = 0; o < N(others); o++, n++)
                                check_pair(&h, &vm, &others[o]);
                }
        assert_int_equal(n, 4 * 3 * 32 * 3 * 54 * 5);
}

static void test_nobody(void **state)
{
        struct bl_share_groups g;

        (void)state;
        bl_share_judge(&any_group, NULL, 0, NULL, &g);
        assert_false(g.conflict);
        assert_string_equal(g.served, "");
}

/* --- what ksmd costs --------------------------------------------------------------- */

static void test_cost(void **state)
{
        struct bl_share_cost c;
        uint64_t scanned = 1000, merged = 0;
        usec_t cpu = 5000;
        uint32_t first;

        (void)state;
        bl_share_cost_init(&c);
        first = c.scan;
        bl_share_cost_see(&c, cpu, scanned, merged);
        assert_int_equal(c.scan, first);
        /* 10,000 pages in 10 ms, nothing merged: 1 us each */
        for (int i = 0; i < 30; i++)
                bl_share_cost_see(&c, cpu += 10000, scanned += 10000, merged);
        assert_in_range(c.scan, 990, 1100);
        /* half of them merged, at 9 us each */
        for (int i = 0; i < 30; i++)
                bl_share_cost_see(&c, cpu += 10000 + 45000, scanned += 10000, merged += 5000);
        assert_in_range(c.merge, 8700, 9300);
        assert_in_range(c.scan, 990, 1100);
}

/* What happens while it rests, or too little of anything, teaches nothing. */
static void test_cost_of_nothing(void **state)
{
        struct bl_share_cost c;
        uint32_t scan, merge;

        (void)state;
        bl_share_cost_init(&c);
        scan = c.scan;
        merge = c.merge;
        bl_share_cost_see(&c, 0, 0, 0);
        bl_share_cost_see(&c, 1000000, 100, 10);
        bl_share_cost_rest(&c);
        bl_share_cost_see(&c, 100000000, 100000, 50000);
        assert_int_equal(c.scan, scan);
        assert_int_equal(c.merge, merge);
        /* merged pages that were freed meanwhile, and a clock that stands still */
        bl_share_cost_see(&c, 100000000, 200000, 10);
        assert_true(c.scan >= 50 && c.scan < scan);
        assert_int_equal(c.merge, merge);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_what_a_vm_asks_for),
                cmocka_unit_test(test_what_the_host_allows),
                cmocka_unit_test(test_what_it_is_made_of),
                cmocka_unit_test(test_zero_pages),
                cmocka_unit_test(test_two_groups),
                cmocka_unit_test(test_who_has_a_say),
                cmocka_unit_test(test_every_pair),
                cmocka_unit_test(test_nobody),
                cmocka_unit_test(test_cost),
                cmocka_unit_test(test_cost_of_nothing),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
