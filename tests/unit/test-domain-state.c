/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What libvirt's figures become, and the judgement of one more look. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <libvirt/libvirt.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/virt/domain.h"

#define NOW  (1000 * BL_SEC)
#define WALL (UINT64_C(1700000000) * BL_SEC)

struct params {
        virTypedParameterPtr p;
        int n, max;
};

static void add_int(struct params *p, const char *name, int v)
{
        assert_int_equal(virTypedParamsAddInt(&p->p, &p->n, &p->max, name, v), 0);
}

static void add(struct params *p, const char *name, unsigned long long v)
{
        assert_int_equal(virTypedParamsAddULLong(&p->p, &p->n, &p->max, name, v), 0);
}

static struct bl_domain_state decode(struct params *p)
{
        struct bl_domain_state s;

        bl_domain_state_decode(p->p, p->n, WALL, NOW, &s);
        virTypedParamsFree(p->p, p->n);
        return s;
}

static void test_full(void **state)
{
        struct params p = {0};
        struct bl_domain_state s;

        (void)state;
        add_int(&p, "state.state", VIR_DOMAIN_RUNNING);
        add_int(&p, "state.reason", VIR_DOMAIN_RUNNING_BOOTED);
        add(&p, "balloon.current", 1024);
        add(&p, "balloon.maximum", 2048);
        add(&p, "balloon.swap_in", 1);
        add(&p, "balloon.swap_out", 2);
        add(&p, "balloon.major_fault", 3);
        add(&p, "balloon.minor_fault", 4);
        add(&p, "balloon.unused", 5);
        add(&p, "balloon.available", 6);
        add(&p, "balloon.usable", 7);
        add(&p, "balloon.disk_caches", 8);
        add(&p, "balloon.last-update", WALL / BL_SEC - 4);
        add(&p, "balloon.rss", 9);
        add(&p, "balloon.something_new", 10);
        s = decode(&p);
        assert_int_equal(s.at, NOW);
        assert_int_equal(s.run, BL_RUN_RUNNING);
        assert_false(s.incomplete);
        assert_int_equal(s.current, BL_MIB);
        assert_int_equal(s.maximum, 2 * BL_MIB);
        assert_int_equal(s.rss, 9 * BL_KIB);
        assert_int_equal(s.stats.source, BL_STATS_BALLOON);
        assert_int_equal(s.stats.at, NOW - 4 * BL_SEC);
        assert_int_equal(s.stats.swap_in, BL_KIB);
        assert_int_equal(s.stats.swap_out, 2 * BL_KIB);
        assert_int_equal(s.stats.major_faults, 3);
        assert_int_equal(s.stats.unused, 5 * BL_KIB);
        assert_int_equal(s.stats.total, 6 * BL_KIB);
        assert_int_equal(s.stats.available, 7 * BL_KIB);
        assert_int_equal(s.stats.caches, 8 * BL_KIB);
        assert_int_equal(s.stats.swap_free, BL_UNSET);
        assert_int_equal(s.stats.psi_some, BL_UNSET);
}

static void test_missing(void **state)
{
        struct params p = {0};
        struct bl_domain_state s = decode(&p);

        (void)state;
        assert_int_equal(s.state, -1);
        assert_int_equal(s.run, BL_RUN_PAUSED);
        assert_true(s.incomplete);
        assert_int_equal(s.current, BL_UNSET);
        assert_int_equal(s.stats.source, BL_STATS_NONE);

        /* busy: libvirt's own figures only */
        p = (struct params){0};
        add_int(&p, "state.state", VIR_DOMAIN_RUNNING);
        add(&p, "balloon.current", 1024);
        add(&p, "balloon.maximum", 2048);
        s = decode(&p);
        assert_true(s.incomplete);
        assert_int_equal(s.current, BL_MIB);

        /* the guest never reported: what QEMU answers is no report */
        p = (struct params){0};
        add_int(&p, "state.state", VIR_DOMAIN_RUNNING);
        add(&p, "balloon.current", 1024);
        add(&p, "balloon.unused", 0);
        add(&p, "balloon.last-update", 0);
        add(&p, "balloon.rss", 77);
        s = decode(&p);
        assert_false(s.incomplete);
        assert_int_equal(s.stats.source, BL_STATS_NONE);
        assert_int_equal(s.stats.unused, BL_UNSET);
}

static void test_absurd(void **state)
{
        struct params p = {0};
        struct bl_domain_state s;

        (void)state;
        add(&p, "balloon.current", UINT64_MAX);
        add(&p, "balloon.usable", UINT64_MAX / 2);
        add(&p, "balloon.last-update", UINT64_MAX); /* later than now: now */
        add_int(&p, "balloon.unused", 5); /* not the type that it should be */
        s = decode(&p);
        assert_int_equal(s.stats.available, BL_UNSET);
        assert_int_equal(s.stats.at, NOW);
        assert_int_equal(s.stats.unused, BL_UNSET);

        /* older than our clock */
        p = (struct params){0};
        add(&p, "balloon.last-update", 1);
        s = decode(&p);
        assert_int_equal(s.stats.at, 0);
}

static void test_run(void **state)
{
        static const struct {
                int state, reason;
                enum bl_vm_run run;
        } table[] = {
                {VIR_DOMAIN_RUNNING, VIR_DOMAIN_RUNNING_MIGRATED, BL_RUN_RUNNING},
                {VIR_DOMAIN_BLOCKED, 0, BL_RUN_RUNNING},
                {VIR_DOMAIN_PAUSED, VIR_DOMAIN_PAUSED_USER, BL_RUN_PAUSED},
                {VIR_DOMAIN_PAUSED, VIR_DOMAIN_PAUSED_IOERROR, BL_RUN_PAUSED},
                {VIR_DOMAIN_PAUSED, VIR_DOMAIN_PAUSED_MIGRATION, BL_RUN_MIGRATING},
                {VIR_DOMAIN_PAUSED, VIR_DOMAIN_PAUSED_SAVE, BL_RUN_MIGRATING},
                {VIR_DOMAIN_SHUTDOWN, 0, BL_RUN_PAUSED},
                {VIR_DOMAIN_SHUTOFF, 0, BL_RUN_PAUSED},
                {VIR_DOMAIN_PMSUSPENDED, 0, BL_RUN_PAUSED},
                {99, 99, BL_RUN_PAUSED},
        };

        (void)state;
        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
                struct params p = {0};

                add_int(&p, "state.state", table[i].state);
                add_int(&p, "state.reason", table[i].reason);
                assert_int_equal(decode(&p).run, table[i].run);
        }
}

static void test_look(void **state)
{
        const struct bl_balloon_request q0 = {.from = 2 * BL_GIB,
                                              .to = BL_GIB,
                                              .tolerance = 32 * BL_MIB,
                                              .floor = 900 * BL_MIB,
                                              .available = 1200 * BL_MIB};
        const struct bl_domain_state s0 = {
                .run = BL_RUN_RUNNING,
                .current = 2 * BL_GIB,
                .stats = {.source = BL_STATS_BALLOON, .available = 1200 * BL_MIB},
        };
        struct bl_balloon_request q = q0;
        struct bl_domain_state s = s0;
        uint64_t floor = 0;

        (void)state;
        assert_int_equal(bl_balloon_look(&q, &s, &floor), BL_LOOK_OK);
        assert_int_equal(floor, 900 * BL_MIB);

        s.run = BL_RUN_PAUSED;
        assert_int_equal(bl_balloon_look(&q, &s, &floor), BL_LOOK_NOT_RUNNING);
        s.run = BL_RUN_MIGRATING;
        assert_int_equal(bl_balloon_look(&q, &s, &floor), BL_LOOK_MIGRATING);

        s = s0;
        s.incomplete = true;
        assert_int_equal(bl_balloon_look(&q, &s, &floor), BL_LOOK_BUSY);

        s = s0;
        s.current -= 33 * BL_MIB;
        assert_int_equal(bl_balloon_look(&q, &s, &floor), BL_LOOK_MOVED);
        s.current = q.from + 33 * BL_MIB;
        assert_int_equal(bl_balloon_look(&q, &s, &floor), BL_LOOK_MOVED);
        s.current = q.from + 31 * BL_MIB;
        assert_int_equal(bl_balloon_look(&q, &s, &floor), BL_LOOK_OK);
        /* on its way down to a target of ours it is where it should be; below that it is not */
        q.transit = 700 * BL_MIB;
        s.current = 720 * BL_MIB;
        assert_int_equal(bl_balloon_look(&q, &s, &floor), BL_LOOK_OK);
        s.current = 600 * BL_MIB;
        assert_int_equal(bl_balloon_look(&q, &s, &floor), BL_LOOK_MOVED);
        s.current = q.from + 64 * BL_MIB;
        assert_int_equal(bl_balloon_look(&q, &s, &floor), BL_LOOK_MOVED);
        q.transit = 0;
        /* giving is not refused for that */
        q.to = 3 * BL_GIB;
        s.current = BL_GIB;
        assert_int_equal(bl_balloon_look(&q, &s, &floor), BL_LOOK_OK);

        /* it uses 300 MiB more than it did */
        q = q0;
        s = s0;
        s.stats.available = 900 * BL_MIB;
        assert_int_equal(bl_balloon_look(&q, &s, &floor), BL_LOOK_FLOOR);
        assert_int_equal(floor, 1200 * BL_MIB);
        /* less, or a little more, is fine */
        s.stats.available = 1150 * BL_MIB;
        assert_int_equal(bl_balloon_look(&q, &s, &floor), BL_LOOK_OK);
        s.stats.available = 1800 * BL_MIB;
        assert_int_equal(bl_balloon_look(&q, &s, &floor), BL_LOOK_OK);
        /* not known, not checked */
        s.stats.available = 1;
        q.available = BL_UNSET;
        assert_int_equal(bl_balloon_look(&q, &s, &floor), BL_LOOK_OK);
        q = q0;
        q.floor = 0;
        assert_int_equal(bl_balloon_look(&q, &s, &floor), BL_LOOK_OK);
        q = q0;
        q.force = true;
        assert_int_equal(bl_balloon_look(&q, &s, &floor), BL_LOOK_OK);
        s.run = BL_RUN_PAUSED;
        assert_int_equal(bl_balloon_look(&q, &s, &floor), BL_LOOK_NOT_RUNNING);
}

static void test_strings(void **state)
{
        (void)state;
        for (int l = BL_LOOK_OK; l <= BL_LOOK_BUSY; l++)
                assert_non_null(bl_look_to_string((enum bl_look)l));
        for (int k = 0; k < _BL_VIRT_EVENT_MAX; k++)
                assert_non_null(bl_virt_event_to_string((enum bl_virt_event_kind)k));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_full), cmocka_unit_test(test_missing), cmocka_unit_test(test_absurd),
                cmocka_unit_test(test_run),  cmocka_unit_test(test_look),    cmocka_unit_test(test_strings),
        };

        /* its thread-local error is not usable before */
        if (virInitialize() < 0)
                return 1;
        return cmocka_run_group_tests(tests, NULL, NULL);
}
