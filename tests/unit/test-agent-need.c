/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ballast-agent: does this guest run short?  Guests that ramp, leak, cache, flap and are squeezed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "guestagent/need.h"

/* A guest as its own kernel sees it: without swap, 600 MiB of it in use, squeezed to its margin of 96 MiB. */
static struct guest_need need;
static struct guest_sample guest;
static struct bl_wire_entitlement grant;
static struct bl_wire_request asked;
static usec_t first_at; /* of the first request since the test began; BL_UNSET: none */
static int requests;

static int setup(void **state)
{
        (void)state;
        guest_need_init(&need);
        guest = (struct guest_sample){
                .at = 100 * BL_SEC,
                .total = 696 * BL_MIB,
                .available = 96 * BL_MIB,
                .ballooned = 300 * BL_MIB,
        };
        bl_wire_entitlement_init(&grant);
        grant.v[BL_GRANT_MAX] = grant.v[BL_GRANT_LIMIT] = BL_GIB;
        grant.v[BL_GRANT_ACTUAL] = 700 * BL_MIB;
        first_at = BL_UNSET;
        requests = 0;
        return 0;
}

static bool look(void)
{
        bool ask = guest_need_judge(&need, &guest, &grant, &asked);

        if (ask && requests++ == 0)
                first_at = guest.at;
        return ask;
}

/* Lets the guest use `rate` bytes/s more for a time, looking as the watch does. */
static void use(int64_t rate, usec_t time)
{
        for (usec_t end = guest.at + time; guest.at < end;) {
                usec_t step = need.rising ? 25 * BL_MSEC : 50 * BL_MSEC;
                int64_t more = rate * (int64_t)step / (int64_t)BL_SEC;

                guest.at += step;
                if (more > (int64_t)guest.available)
                        more = (int64_t)guest.available;
                guest.available = (uint64_t)((int64_t)guest.available - more);
                (void)look();
        }
}

static void rest(usec_t time)
{
        use(0, time);
}

static void test_margin(void **state)
{
        (void)state;
        /* need 604 MiB: 64 MiB are more than a tenth of it, and half more without swap */
        assert_int_equal(guest_need_margin(&guest, &grant), 96 * BL_MIB);
        guest.swap_total = guest.swap_free = BL_GIB;
        assert_int_equal(guest_need_margin(&guest, &grant), 64 * BL_MIB);
        /* what was swapped out is needed, too: a tenth of 604 + 896 MiB is more than is left of swap */
        guest.swap_free = 128 * BL_MIB;
        assert_int_equal(guest_need_margin(&guest, &grant), bl_part(1500 * BL_MIB, 1000) * 3 / 2);
        /* a host that has not said how large the balloon leaves us */
        bl_wire_entitlement_init(&grant);
        guest.swap_total = guest.swap_free = 0;
        guest.available = 96 * BL_MIB;
        guest.total = 20 * BL_GIB;
        assert_int_equal(guest_need_margin(&guest, &grant) / BL_MIB, (20 * 1024 - 96) / 10 * 3 / 2);
}

static void test_quiet(void **state)
{
        (void)state;
        for (int i = 0; i < 2000; i++) {
                guest.at += 50 * BL_MSEC;
                guest.available = 96 * BL_MIB - (uint64_t)(i * 7919 % 3000) * BL_KIB;
                assert_false(look());
        }
        /* squeezed to half of its margin by a host in need, it does not ask either */
        for (int i = 0; i < 2000; i++) {
                guest.at += 50 * BL_MSEC;
                guest.available = 48 * BL_MIB - (uint64_t)(i * 7919 % 3000) * BL_KIB;
                guest.ballooned = 348 * BL_MIB;
                assert_false(look());
        }
}

/* From the first touched page on: fast enough at any speed and at any phase of the watch. */
static void test_ramp(void **state)
{
        static const struct {
                uint64_t mib_per_s;
                usec_t within;
        } cases[] = {{100, 150 * BL_MSEC},
                     {160, 100 * BL_MSEC},
                     {250, 75 * BL_MSEC},
                     {500, 50 * BL_MSEC},
                     {2048, 50 * BL_MSEC}};

        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
                usec_t start;

                (void)setup(state);
                rest(2 * BL_SEC);
                assert_int_equal(requests, 0);
                start = guest.at;
                use((int64_t)(cases[i].mib_per_s * BL_MIB), 300 * BL_MSEC);
                assert_true(requests > 0);
                if (first_at - start > cases[i].within)
                        fail_msg("at %d MiB/s asked after %d ms", (int)cases[i].mib_per_s,
                                 (int)((first_at - start) / BL_MSEC));
        }
}

/* What is asked for brings back one and a half margins and a second's worth, and says how pressing it is. */
static void test_what_is_asked(void **state)
{
        (void)state;
        rest(BL_SEC);
        use(200 * (int64_t)BL_MIB, 100 * BL_MSEC);
        assert_int_equal(requests, 1);
        assert_true(asked.urgency == BL_URGENCY_SOON);
        assert_true(asked.deadline > 250 * BL_MSEC && asked.deadline < BL_SEC);
        assert_true(asked.bytes > 144 * BL_MIB - 86 * BL_MIB && asked.bytes <= 324 * BL_MIB);
        use(200 * (int64_t)BL_MIB, 150 * BL_MSEC);
        assert_true(asked.urgency >= BL_URGENCY_NOW);
        use(200 * (int64_t)BL_MIB, 250 * BL_MSEC);
        assert_int_equal(asked.urgency, BL_URGENCY_STOP);
        assert_in_range(asked.bytes, 250 * BL_MIB, 324 * BL_MIB); /* no more than the host may give */
        assert_true(requests >= 4 && requests <= 8);
}

/* Bounded by what the VM may have; with nothing to be had only the last word is said. */
static void test_room(void **state)
{
        (void)state;
        grant.v[BL_GRANT_LIMIT] = 720 * BL_MIB;
        rest(BL_SEC);
        use(100 * (int64_t)BL_MIB, 400 * BL_MSEC);
        assert_true(requests > 0);
        assert_int_equal(asked.bytes, 20 * BL_MIB);

        (void)setup(state);
        grant.v[BL_GRANT_ACTUAL] = BL_GIB;
        rest(BL_SEC);
        use(20 * (int64_t)BL_MIB, 3900 * BL_MSEC);
        assert_int_equal(requests, 0);
        use(20 * (int64_t)BL_MIB, BL_SEC);
        assert_true(requests > 0);
        assert_int_equal(asked.urgency, BL_URGENCY_STOP);
        assert_int_equal(asked.bytes, 0);
}

static void test_slow_leak(void **state)
{
        (void)state;
        rest(BL_SEC);
        /* one MiB a second: the first quarter of the margin is gone after 24 s */
        use((int64_t)BL_MIB, 20 * BL_SEC);
        assert_int_equal(requests, 0);
        use((int64_t)BL_MIB, 15 * BL_SEC);
        assert_true(requests > 0);
        assert_int_equal(asked.urgency, BL_URGENCY_SOON);
        /* nobody floods the host for that */
        assert_true(requests < 20);
}

/* The balloon takes, with and without deflate-on-oom: the host's doing. */
static void test_balloon(void **state)
{
        (void)state;
        for (int follows = 0; follows < 2; follows++) {
                (void)setup(state);
                guest.available = 400 * BL_MIB;
                guest.total = 1000 * BL_MIB;
                rest(BL_SEC);
                for (int i = 0; i < 30; i++) {
                        guest.at += 50 * BL_MSEC;
                        guest.available -= 10 * BL_MIB;
                        guest.ballooned += 10 * BL_MIB;
                        guest.total -= follows ? 10 * BL_MIB : 0;
                        assert_false(look());
                }
                rest(5 * BL_SEC);
                assert_int_equal(requests, 0);
        }
        /* a kernel that does not count its balloon's pages, where MemTotal follows */
        (void)setup(state);
        guest.ballooned = BL_UNSET;
        rest(BL_SEC);
        for (int i = 0; i < 6; i++) {
                guest.at += 50 * BL_MSEC;
                guest.available -= 8 * BL_MIB;
                guest.total -= 8 * BL_MIB;
                assert_false(look());
        }
        /* but under its last 16 MiB it says so, whoever it was */
        guest.at += 50 * BL_MSEC;
        guest.available -= 33 * BL_MIB;
        guest.total -= 33 * BL_MIB;
        assert_true(look());
        assert_int_equal(asked.urgency, BL_URGENCY_STOP);
}

/* Given what it asked for, a guest is silent; and it asks again when it needs more. */
static void test_satisfied(void **state)
{
        int before;

        (void)state;
        rest(BL_SEC);
        use(200 * (int64_t)BL_MIB, 200 * BL_MSEC);
        assert_true(requests > 0);
        before = requests;
        guest.available += 200 * BL_MIB;
        guest.ballooned -= 200 * BL_MIB;
        rest(10 * BL_SEC);
        assert_int_equal(requests, before);
        use(200 * (int64_t)BL_MIB, 900 * BL_MSEC);
        assert_true(requests > before);
}

/* A host that does not give is asked at growing distances, and not for ever. */
static void test_refused(void **state)
{
        int at_once, later;

        (void)state;
        rest(BL_SEC);
        use(100 * (int64_t)BL_MIB, 500 * BL_MSEC);
        at_once = requests;
        rest(9 * BL_SEC);
        later = requests - at_once;
        assert_in_range(later, 4, 8);
        rest(60 * BL_SEC);
        assert_true(requests - at_once - later <= 2);
        /* but what is eaten on top of it is said at once */
        later = requests;
        use(100 * (int64_t)BL_MIB, 200 * BL_MSEC);
        assert_true(requests > later);
}

/* Up and down around the mark: at most what a need that lasts is worth. */
static void test_flapping(void **state)
{
        (void)state;
        rest(BL_SEC);
        for (int i = 0; i < 100; i++) {
                use(40 * (int64_t)BL_MIB, 500 * BL_MSEC);
                use(-40 * (int64_t)BL_MIB, 500 * BL_MSEC);
        }
        assert_true(requests < 100 * 6);
        /* small waves that stay above three quarters say nothing */
        (void)setup(state);
        rest(BL_SEC);
        for (int i = 0; i < 100; i++) {
                use(30 * (int64_t)BL_MIB, 300 * BL_MSEC);
                use(-30 * (int64_t)BL_MIB, 300 * BL_MSEC);
        }
        assert_int_equal(requests, 0);
}

/* With swap nothing seems to be missing: available memory stays low, and swap fills. */
static void test_swap(void **state)
{
        (void)state;
        guest.swap_total = guest.swap_free = BL_GIB;
        guest.available = 40 * BL_MIB;
        rest(BL_SEC);
        assert_int_equal(requests, 0);
        for (int i = 0; i < 20; i++) {
                guest.at += 50 * BL_MSEC;
                guest.swap_free -= BL_MIB;
                (void)look();
        }
        assert_true(requests > 0);
        assert_true(first_at <= guest.at - 600 * BL_MSEC);
}

/* A guest that allocates much but has plenty has no reason to ask. */
/* The host presses it into its swap on the store: that is no reason to ask, while there is room. */
static void test_pressed(void **state)
{
        (void)state;
        guest.swap_total = guest.swap_free = guest.store_free = 400 * BL_MIB;
        rest(BL_SEC);
        for (int i = 0; i < 150; i++) {
                guest.total -= BL_MIB;
                guest.ballooned += BL_MIB;
                if (guest.available > 2 * BL_MIB) {
                        guest.available -= BL_MIB;
                } else {
                        guest.swap_free -= BL_MIB;
                        guest.store_free -= BL_MIB;
                }
                rest(50 * BL_MSEC);
        }
        assert_int_equal(requests, 0);
        /* the store has none for it, whatever its disk has: it is near its OOM killer now */
        grant.v[BL_GRANT_STORE_ROOM] = 4 * BL_MIB;
        rest(BL_SEC);
        assert_true(requests > 0);
        assert_int_equal(asked.urgency, BL_URGENCY_STOP);
}

/* What it allocates itself while it is pressed it asks for, and swaps meanwhile. */
static void test_pressed_and_busy(void **state)
{
        (void)state;
        guest.available = 4 * BL_MIB;
        guest.swap_total = 400 * BL_MIB;
        guest.swap_free = guest.store_free = 300 * BL_MIB;
        rest(BL_SEC);
        requests = 0;
        for (int i = 0; i < 20; i++) {
                guest.swap_free -= 2 * BL_MIB;
                guest.store_free -= 2 * BL_MIB;
                rest(50 * BL_MSEC);
        }
        assert_true(requests > 0);
        assert_int_equal(asked.urgency, BL_URGENCY_NOW);
}

static void test_plenty(void **state)
{
        (void)state;
        guest.available = 8 * BL_GIB;
        guest.total = 9 * BL_GIB;
        rest(BL_SEC);
        use(500 * (int64_t)BL_MIB, 10 * BL_SEC);
        assert_int_equal(requests, 0);
}

/* What has waited is asked for in today's figures. */
static void test_fresh(void **state)
{
        struct bl_wire_request r;

        (void)state;
        rest(BL_SEC);
        use(200 * (int64_t)BL_MIB, 100 * BL_MSEC);
        assert_int_equal(requests, 1);
        guest.available = 10 * BL_MIB;
        guest_need_request(&need, &guest, &grant, &r);
        assert_int_equal(r.urgency, BL_URGENCY_STOP);
        assert_true(r.bytes > asked.bytes);
        guest.available = 8 * BL_GIB;
        guest_need_request(&need, &guest, &grant, &r);
        assert_int_equal(r.bytes, 0);
}

/* After a long rest without a full look a ramp has its own rate, not that of the rest. */
static void test_still(void **state)
{
        (void)state;
        rest(BL_SEC);
        for (int i = 0; i < 100; i++) {
                guest.at += 50 * BL_MSEC;
                guest_need_still(&need, guest.at);
        }
        guest.at += 50 * BL_MSEC;
        guest.available -= 16 * BL_MIB;
        assert_true(look());
        assert_true(need.rate >= 100 * BL_MIB);
        guest_need_init(&need);
        guest_need_still(&need, guest.at); /* before any look: nothing */
        assert_int_equal(need.seen, 0);
}

static void test_samples(void **state)
{
        struct bl_wire_stats s;
        struct guest_sample sample = {.at = 7};

        (void)state;
        bl_wire_stats_init(&s);
        assert_false(guest_sample_from(&s, 0, 1, &sample));
        s.v[BL_STAT_MEM_TOTAL] = BL_GIB;
        assert_false(guest_sample_from(&s, 0, 1, &sample));
        assert_int_equal(sample.at, 7);
        s.v[BL_STAT_MEM_AVAILABLE] = 2 * BL_GIB;
        assert_true(guest_sample_from(&s, 0, 1, &sample));
        assert_int_equal(sample.available, BL_GIB);
        assert_int_equal(sample.ballooned, BL_UNSET);
        assert_int_equal(sample.swap_total, 0);
        /* absurd figures overflow nothing (under UBSan) */
        for (int tag = 1; tag < _BL_STAT_MAX; tag++)
                s.v[tag] = UINT64_MAX - 1;
        assert_true(guest_sample_from(&s, 0, 1, &sample));
        (void)guest_need_judge(&need, &sample, &grant, &asked);
        sample.available = 0;
        sample.swap_free = 0;
        sample.at = 2;
        assert_true(guest_need_judge(&need, &sample, &grant, &asked));
}

#define need_test(f) cmocka_unit_test_setup(f, setup)

int main(void)
{
        const struct CMUnitTest tests[] = {
                need_test(test_margin),
                need_test(test_quiet),
                need_test(test_ramp),
                need_test(test_what_is_asked),
                need_test(test_room),
                need_test(test_slow_leak),
                need_test(test_balloon),
                need_test(test_satisfied),
                need_test(test_refused),
                need_test(test_flapping),
                need_test(test_swap),
                need_test(test_pressed),
                need_test(test_pressed_and_busy),
                need_test(test_plenty),
                need_test(test_fresh),
                need_test(test_still),
                need_test(test_samples),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
