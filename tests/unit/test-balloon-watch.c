/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The classifier, driven by small stories and by a simulated guest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/sense/balloon_watch.h"

#define MAX         (2048 * BL_MIB)
#define PHASE       (320 * BL_KIB)
#define SIGNED(mib) ((mib)*BL_MIB + PHASE)
#define PLENTY      (512 * BL_MIB)

struct story {
        struct bl_watch w;
        usec_t now;
        usec_t stats_at;
        uint64_t available;
        uint64_t faults;
        struct bl_watch_report last;
};

static struct story begin(bool autodeflate)
{
        struct story s = {.now = 1000 * BL_SEC, .available = PLENTY, .faults = 5000};
        const struct bl_watch_traits t = {.max = MAX, .boot_size = MAX, .autodeflate = autodeflate};

        bl_watch_init(&s.w, &t, 0);
        return s;
}

static enum bl_watch_verdict see(struct story *s, uint64_t actual)
{
        const struct bl_watch_observation o = {
                .actual = actual,
                .at = s->now,
                .stats_at = s->stats_at,
                .available = s->available,
                .major_faults = s->faults,
        };

        bl_watch_observe(&s->w, &o, &s->last);
        return s->last.verdict;
}

/* The guest reports now. */
static void report(struct story *s)
{
        s->stats_at = s->now;
}

/* Observes the value until it is judged; fresh statistics every two seconds if `reporting`. */
static enum bl_watch_verdict rest(struct story *s, uint64_t actual, bool reporting)
{
        enum bl_watch_verdict v = BL_WATCH_MOVING;

        for (int i = 0; i < 40 && v == BL_WATCH_MOVING; i++) {
                if (reporting && i % 4 == 3)
                        report(s);
                v = see(s, actual);
                s->now += 500 * BL_MSEC;
        }
        return v;
}

static void command(struct story *s, uint64_t from, uint64_t to)
{
        bl_watch_command(&s->w, from, to, s->now);
        s->now += 20 * BL_MSEC;
        bl_watch_answered(&s->w, to, BL_WATCH_ANSWER_DONE, s->now);
}

/* A VM found full, told a target, and there. */
static struct story settled_at(uint64_t target, bool autodeflate)
{
        struct story s = begin(autodeflate);

        report(&s);
        assert_int_equal(rest(&s, MAX, true), BL_WATCH_BASELINE);
        command(&s, MAX, target);
        assert_int_equal(rest(&s, target, true), BL_WATCH_SETTLED);
        return s;
}

static void test_sign(void **state)
{
        (void)state;
        for (uint64_t seed = 0; seed < 64; seed++) {
                uint64_t p = bl_watch_phase(seed);

                assert_true(p > 0 && p < BL_MIB);
                assert_int_equal(p % (64 * BL_KIB), 0);
                assert_int_not_equal(p % (128 * BL_KIB), 0); /* never 128, 256, 512 KiB */
                assert_int_equal(bl_watch_sign(100 * BL_MIB, p), 99 * BL_MIB + p);
                assert_int_equal(bl_watch_sign(100 * BL_MIB + p, p), 100 * BL_MIB + p);
                assert_int_equal(bl_watch_sign(p, p), p);
                assert_int_equal(bl_watch_sign(p - 1, p), 0);
        }
}

static void test_settles(void **state)
{
        struct story s;

        (void)state;
        s = settled_at(SIGNED(1000), true);
        assert_int_equal(s.last.was, MAX);
        assert_int_equal(s.last.now, SIGNED(1000));
        assert_int_equal(s.last.target, SIGNED(1000));
        assert_int_equal(rest(&s, SIGNED(1000), true), BL_WATCH_UNCHANGED);
        /* up again, by way of intermediate values */
        command(&s, SIGNED(1000), SIGNED(1500));
        assert_int_equal(see(&s, SIGNED(1100)), BL_WATCH_MOVING);
        s.now += 900 * BL_MSEC;
        assert_int_equal(see(&s, SIGNED(1400)), BL_WATCH_MOVING);
        assert_true(s.last.look_again > s.now);
        assert_int_equal(rest(&s, SIGNED(1500), true), BL_WATCH_SETTLED);
}

static void test_intermediate_is_no_rest(void **state)
{
        struct story s = settled_at(SIGNED(1000), true);

        (void)state;
        /* libvirt repeats an intermediate value for a second */
        command(&s, SIGNED(1000), SIGNED(500));
        for (int i = 0; i < 5; i++) {
                assert_int_equal(see(&s, SIGNED(800)), BL_WATCH_MOVING);
                s.now += 200 * BL_MSEC;
        }
        assert_int_equal(rest(&s, SIGNED(500), true), BL_WATCH_SETTLED);
}

static void test_incomplete_then_on(void **state)
{
        struct story s = settled_at(SIGNED(1000), true);

        (void)state;
        s.available = 10 * BL_MIB;
        command(&s, SIGNED(1000), SIGNED(400));
        assert_int_equal(rest(&s, SIGNED(600), true), BL_WATCH_INCOMPLETE);
        /* out of puff stops anywhere, at a whole MiB too */
        assert_int_equal(rest(&s, 550 * BL_MIB, true), BL_WATCH_INCOMPLETE);
        assert_int_equal(rest(&s, 550 * BL_MIB - 12 * BL_KIB, true), BL_WATCH_INCOMPLETE);
        /* parked: our target is put where it stopped, and it stays */
        command(&s, 550 * BL_MIB - 12 * BL_KIB, SIGNED(550));
        assert_int_equal(rest(&s, SIGNED(550), true), BL_WATCH_SETTLED);
}

/* From full, steps are whole MiB: a slow guest is not taken for a person. */
static void test_first_shrink_stops_short(void **state)
{
        struct story s = begin(true);

        (void)state;
        report(&s);
        assert_int_equal(rest(&s, MAX, true), BL_WATCH_BASELINE);
        command(&s, MAX, SIGNED(1000));
        assert_int_equal(rest(&s, 1500 * BL_MIB, true), BL_WATCH_INCOMPLETE);
        for (int i = 0; i < 20; i++)
                assert_int_equal(rest(&s, 1500 * BL_MIB, true), BL_WATCH_UNCHANGED);
        assert_int_equal(rest(&s, SIGNED(1000), true), BL_WATCH_SETTLED);
}

static void test_never_moves(void **state)
{
        struct story s = begin(true);

        (void)state;
        assert_int_equal(rest(&s, MAX, false), BL_WATCH_BASELINE);
        command(&s, MAX, SIGNED(1000));
        assert_int_equal(rest(&s, MAX, false), BL_WATCH_UNCHANGED);
        assert_int_equal(rest(&s, MAX, true), BL_WATCH_UNCHANGED);
}

static void test_page_64k(void **state)
{
        struct story s = settled_at(SIGNED(1000), true);

        (void)state;
        command(&s, SIGNED(1000), SIGNED(900));
        assert_int_equal(rest(&s, SIGNED(900) - 48 * BL_KIB, true), BL_WATCH_SETTLED);
}

static void test_oom(void **state)
{
        struct story s = settled_at(SIGNED(1000), true);

        (void)state;
        assert_int_equal(rest(&s, SIGNED(1001), true), BL_WATCH_OOM);
        assert_int_equal(s.last.was, SIGNED(1000));
        assert_int_equal(rest(&s, SIGNED(1001), true), BL_WATCH_UNCHANGED);
        assert_int_equal(rest(&s, SIGNED(1300), true), BL_WATCH_OOM);
        /* all of it, under pressure */
        s.available = 20 * BL_MIB;
        s.faults += 4000;
        assert_int_equal(rest(&s, MAX, true), BL_WATCH_OOM);
}

/* To an older target by itself: whole steps lead there too. */
static void test_oom_to_an_old_target(void **state)
{
        struct story s = settled_at(SIGNED(1000), true);

        (void)state;
        command(&s, SIGNED(1000), SIGNED(900));
        assert_int_equal(rest(&s, SIGNED(900), true), BL_WATCH_SETTLED);
        s.now += 60 * BL_SEC;
        assert_int_equal(rest(&s, SIGNED(1000), true), BL_WATCH_OOM);
}

static void test_oom_needs_autodeflate(void **state)
{
        struct story s = settled_at(SIGNED(1000), false);

        (void)state;
        assert_int_equal(rest(&s, SIGNED(1200), true), BL_WATCH_HAND);
}

static void test_oom_after_incomplete(void **state)
{
        struct story s = settled_at(SIGNED(1000), true);

        (void)state;
        s.available = 4 * BL_MIB;
        command(&s, SIGNED(1000), SIGNED(400));
        assert_int_equal(rest(&s, 500 * BL_MIB + 44 * BL_KIB, true), BL_WATCH_INCOMPLETE);
        assert_int_equal(rest(&s, 520 * BL_MIB + 44 * BL_KIB, true), BL_WATCH_OOM);
}

static void test_hand(void **state)
{
        static const uint64_t values[] = {512 * BL_MIB, 999 * BL_MIB, 1001 * BL_MIB, 1536 * BL_MIB,
                                          /* an odd number of KiB, and below ours though signed */
                                          1234567 * BL_KIB, SIGNED(999), SIGNED(100)};

        (void)state;
        for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
                for (int calm = 0; calm < 2; calm++) {
                        struct story s = settled_at(SIGNED(1000), true);

                        s.available = calm ? PLENTY : BL_MIB;
                        assert_int_equal(rest(&s, values[i], true), BL_WATCH_HAND);
                        /* theirs now: it is the ground to judge from */
                        assert_int_equal(rest(&s, values[i], true), BL_WATCH_UNCHANGED);
                        assert_int_equal(s.last.target, BL_UNSET);
                        s.available = PLENTY;
                        for (int j = 0; j < 2; j++) {
                                report(&s);
                                assert_int_equal(rest(&s, values[i], true), BL_WATCH_UNCHANGED);
                        }
                        assert_int_equal(rest(&s, values[i] + 100 * BL_MIB, true),
                                         values[i] % BL_MIB ? BL_WATCH_OOM : BL_WATCH_HAND);
                }
}

/* Until it is judged nobody may answer it with a command of ours, and what we move ourselves needs no
 * explanation. */
static void test_unexplained(void **state)
{
        struct story s = begin(false);

        (void)state;
        assert_int_equal(rest(&s, MAX, true), BL_WATCH_BASELINE);
        assert_false(bl_watch_is_unexplained(&s.w, s.now));
        assert_int_equal(see(&s, MAX - 64 * BL_MIB), BL_WATCH_MOVING);
        assert_true(bl_watch_is_unexplained(&s.w, s.now));
        assert_false(bl_watch_is_unexplained(&s.w, s.now + 6 * BL_SEC));
        assert_int_equal(rest(&s, MAX - 64 * BL_MIB, true), BL_WATCH_HAND);
        assert_false(bl_watch_is_unexplained(&s.w, s.now));
        command(&s, MAX - 64 * BL_MIB, MAX - 128 * BL_MIB + 4096);
        (void)see(&s, MAX - 100 * BL_MIB);
        assert_false(bl_watch_is_unexplained(&s.w, s.now));
}

static void test_hand_to_full(void **state)
{
        struct story s = settled_at(SIGNED(1000), true);

        (void)state;
        assert_int_equal(rest(&s, MAX, true), BL_WATCH_HAND);
        /* without statistics there is nothing that speaks for the guest */
        s = begin(true);
        assert_int_equal(rest(&s, MAX, false), BL_WATCH_BASELINE);
        command(&s, MAX, SIGNED(1000));
        assert_int_equal(rest(&s, SIGNED(1000), false), BL_WATCH_SETTLED);
        assert_int_equal(rest(&s, MAX, false), BL_WATCH_HAND);
}

/* Set by somebody while ours is in progress: below the lowest is theirs at once. */
static void test_hand_during_ours(void **state)
{
        struct story s = settled_at(SIGNED(1500), true);

        (void)state;
        command(&s, SIGNED(1500), SIGNED(1000));
        assert_int_equal(see(&s, SIGNED(1200)), BL_WATCH_MOVING);
        assert_int_equal(rest(&s, 700 * BL_MIB, true), BL_WATCH_HAND);

        /* between the two, a whole MiB, and the guest has memory to go on */
        s = settled_at(SIGNED(1500), true);
        command(&s, SIGNED(1500), SIGNED(1000));
        assert_int_equal(rest(&s, 1200 * BL_MIB, false), BL_WATCH_INCOMPLETE);
        assert_int_equal(rest(&s, 1200 * BL_MIB, true), BL_WATCH_UNCHANGED);
        report(&s);
        assert_int_equal(rest(&s, 1200 * BL_MIB, true), BL_WATCH_HAND);
}

/* Ours goes up again, and a person sets a value that an older target of ours, which is over, had passed. */
static void test_hand_after_a_turn(void **state)
{
        struct story s = settled_at(SIGNED(1000), true);

        (void)state;
        command(&s, SIGNED(1000), SIGNED(2000));
        assert_int_equal(see(&s, SIGNED(2000)), BL_WATCH_SETTLED);
        command(&s, SIGNED(2000), MAX);
        s.now += BL_SEC;
        report(&s);
        assert_int_equal(rest(&s, 1792 * BL_MIB, true), BL_WATCH_HAND);

        /* but one that never got there may be slow to turn round */
        s = begin(true);
        report(&s);
        assert_int_equal(rest(&s, MAX, true), BL_WATCH_BASELINE);
        command(&s, MAX, SIGNED(1000));
        s.now += BL_SEC;
        command(&s, MAX - 100 * BL_MIB, SIGNED(2000));
        assert_int_equal(rest(&s, 1792 * BL_MIB, true), BL_WATCH_INCOMPLETE);
}

static void test_driver_reload(void **state)
{
        struct story s = settled_at(SIGNED(1000), true);

        (void)state;
        /* removed: everything back, and no more statistics */
        assert_int_equal(rest(&s, MAX, false), BL_WATCH_RELOAD);
        /* and loaded again: it goes to the target by itself */
        assert_int_equal(rest(&s, SIGNED(1000), true), BL_WATCH_SETTLED);
}

static void test_reset(void **state)
{
        struct story s = settled_at(SIGNED(1000), true);

        (void)state;
        bl_watch_life(&s.w, BL_WATCH_LIFE_RESET, s.now);
        /* stale until the new driver has written */
        assert_int_equal(rest(&s, SIGNED(1000), false), BL_WATCH_UNCHANGED);
        assert_int_equal(rest(&s, MAX - BL_MIB, false), BL_WATCH_REBOOT);
        assert_int_equal(rest(&s, 1700 * BL_MIB, true), BL_WATCH_INCOMPLETE);
        assert_int_equal(rest(&s, SIGNED(1000), true), BL_WATCH_SETTLED);

        /* a reset that nobody told us of: the counters begin anew */
        s.faults = 10;
        report(&s);
        assert_int_equal(rest(&s, MAX, true), BL_WATCH_REBOOT);
        assert_int_equal(rest(&s, SIGNED(1000), true), BL_WATCH_SETTLED);
        /* by hand, even so soon after */
        assert_int_equal(rest(&s, 800 * BL_MIB, true), BL_WATCH_HAND);
}

static void test_boot(void **state)
{
        struct story s = settled_at(SIGNED(1000), true);
        const struct bl_watch_traits t = {.max = MAX, .boot_size = 1024 * BL_MIB, .autodeflate = true};

        (void)state;
        bl_watch_traits_set(&s.w, &t);
        bl_watch_life(&s.w, BL_WATCH_LIFE_BOOTED, s.now);
        s.stats_at = 0;
        assert_int_equal(rest(&s, MAX, false), BL_WATCH_BASELINE);
        s.now += 20 * BL_SEC;
        /* libvirt has set <currentMemory>, and the driver is there now */
        assert_int_equal(rest(&s, 1500 * BL_MIB, false), BL_WATCH_BASELINE);
        assert_int_equal(rest(&s, 1024 * BL_MIB, false), BL_WATCH_BASELINE);
        assert_int_equal(rest(&s, 512 * BL_MIB, false), BL_WATCH_HAND);

        /* where nothing is to be expected, nothing is excused */
        s = begin(true);
        bl_watch_life(&s.w, BL_WATCH_LIFE_BOOTED, s.now);
        assert_int_equal(rest(&s, MAX, false), BL_WATCH_BASELINE);
        assert_int_equal(rest(&s, 1024 * BL_MIB, false), BL_WATCH_HAND);
}

static void test_restored(void **state)
{
        struct story s = settled_at(SIGNED(1000), true);

        (void)state;
        /* with our target */
        bl_watch_life(&s.w, BL_WATCH_LIFE_RESTORED, s.now);
        assert_int_equal(rest(&s, SIGNED(1000), true), BL_WATCH_SETTLED);
        s.now += 60 * BL_SEC;
        assert_int_equal(rest(&s, SIGNED(1100), true), BL_WATCH_OOM);

        /* to something of long ago */
        bl_watch_life(&s.w, BL_WATCH_LIFE_RESTORED, s.now);
        assert_int_equal(rest(&s, 700 * BL_MIB, true), BL_WATCH_BASELINE);
        assert_int_equal(s.w.n_cmd, 0);
        s.now += 60 * BL_SEC;
        assert_int_equal(rest(&s, 600 * BL_MIB, true), BL_WATCH_HAND);
}

static void test_paused(void **state)
{
        struct story s = settled_at(SIGNED(1000), true);

        (void)state;
        bl_watch_life(&s.w, BL_WATCH_LIFE_PAUSED, s.now);
        command(&s, SIGNED(1000), SIGNED(700));
        for (int i = 0; i < 10; i++) {
                assert_int_equal(see(&s, SIGNED(1000)), BL_WATCH_MOVING);
                s.now += BL_SEC;
        }
        bl_watch_life(&s.w, BL_WATCH_LIFE_RESUMED, s.now);
        assert_int_equal(rest(&s, SIGNED(700), true), BL_WATCH_SETTLED);
}

static void test_answers(void **state)
{
        struct story s = settled_at(SIGNED(1000), true);

        (void)state;
        /* refused: the one before is in force again */
        bl_watch_command(&s.w, SIGNED(1000), SIGNED(500), s.now);
        bl_watch_answered(&s.w, SIGNED(500), BL_WATCH_ANSWER_REFUSED, s.now);
        assert_int_equal(rest(&s, SIGNED(1000), true), BL_WATCH_UNCHANGED);
        assert_int_equal(s.last.target, SIGNED(1000));
        assert_int_equal(rest(&s, SIGNED(500), true), BL_WATCH_HAND);

        /* not known: it may take effect much later, after another */
        s = settled_at(SIGNED(1000), true);
        bl_watch_command(&s.w, SIGNED(1000), SIGNED(500), s.now);
        bl_watch_answered(&s.w, SIGNED(500), BL_WATCH_ANSWER_UNKNOWN, s.now);
        command(&s, SIGNED(1000), SIGNED(1200));
        assert_int_equal(rest(&s, SIGNED(1200), true), BL_WATCH_SETTLED);
        s.now += 300 * BL_SEC;
        assert_int_equal(rest(&s, SIGNED(500), true), BL_WATCH_LATE);
}

static void test_superseded(void **state)
{
        struct story s = settled_at(SIGNED(1000), true);

        (void)state;
        /* down, and at once up: it may go a bit further down first */
        command(&s, SIGNED(1000), SIGNED(500));
        s.now += 100 * BL_MSEC;
        command(&s, SIGNED(900), SIGNED(950));
        assert_int_equal(rest(&s, SIGNED(800), true), BL_WATCH_INCOMPLETE);
        assert_int_equal(rest(&s, SIGNED(950), true), BL_WATCH_SETTLED);
        /* long after, the old one explains nothing */
        s.now += 60 * BL_SEC;
        assert_int_equal(rest(&s, SIGNED(800), true), BL_WATCH_HAND);
}

/* The daemon was killed with a command in flight; the ledger's targets are told again. */
static void test_after_kill(void **state)
{
        static const struct {
                uint64_t actual;
                enum bl_watch_verdict expected;
        } table[] = {
                {SIGNED(600), BL_WATCH_SETTLED}, /* it was carried out */
                {SIGNED(1000), BL_WATCH_LATE}, /* it was not */
                {SIGNED(700), BL_WATCH_INCOMPLETE}, {SIGNED(1010), BL_WATCH_OOM},
                {500 * BL_MIB, BL_WATCH_HAND},      {1200 * BL_MIB, BL_WATCH_HAND},
        };

        (void)state;
        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
                struct story s = begin(true);

                bl_watch_command(&s.w, MAX, SIGNED(1000), s.now - 100 * BL_SEC);
                bl_watch_answered(&s.w, SIGNED(1000), BL_WATCH_ANSWER_DONE, s.now - 100 * BL_SEC);
                bl_watch_command(&s.w, SIGNED(1000), SIGNED(600), s.now - 5 * BL_SEC);
                bl_watch_answered(&s.w, SIGNED(600), BL_WATCH_ANSWER_UNKNOWN, s.now - 5 * BL_SEC);
                report(&s);
                assert_int_equal(rest(&s, table[i].actual, true), table[i].expected);
        }
}

static void test_old_observations(void **state)
{
        struct story s = settled_at(SIGNED(1000), true);

        (void)state;
        s.now -= 5 * BL_SEC;
        assert_int_equal(see(&s, MAX), BL_WATCH_MOVING);
        s.now += 5 * BL_SEC;
        assert_int_equal(rest(&s, SIGNED(1000), true), BL_WATCH_UNCHANGED);
}

static void test_strings(void **state)
{
        (void)state;
        for (int v = 0; v < _BL_WATCH_MAX; v++)
                assert_non_null(bl_watch_verdict_to_string((enum bl_watch_verdict)v));
        assert_null(bl_watch_verdict_to_string(_BL_WATCH_MAX));
}

/* --- a simulated guest: no history of our own commands, at any speed, with OOM
 * deflations and resets in between, may ever look like a person's -------------- */

struct guest {
        uint64_t target;
        uint64_t actual; /* the driver's */
        uint64_t reported; /* the last event's */
        usec_t event_at;
        uint64_t faults;
        uint64_t available;
        usec_t stats_at;
        uint64_t floor; /* it is out of puff here */
        bool idle; /* after an OOM deflation: nothing is done until the next command */
};

static uint32_t rnd(uint32_t *seed)
{
        *seed = *seed * 1664525u + 1013904223u;
        return *seed >> 8;
}

/* 100 ms of guest: up to `steps` times 256 pages, then perhaps an event. */
static void guest_run(struct guest *g, usec_t now, unsigned steps)
{
        for (unsigned i = 0; i < steps && !g->idle; i++) {
                uint64_t step;

                if (g->actual < g->target)
                        step = bl_min(BL_MIB, g->target - g->actual), g->actual += step;
                else if (g->actual > g->target && g->actual > g->floor)
                        step = bl_min(bl_min(BL_MIB, g->actual - g->target), g->actual - g->floor), g->actual -= step;
        }
        if (g->reported != g->actual && now - g->event_at >= BL_SEC) {
                g->reported = g->actual;
                g->event_at = now;
        }
}

/* Was a person's value (if any) overlooked? */
static bool random_story(uint32_t seed, bool by_hand)
{
        const struct bl_watch_traits t = {.max = MAX, .boot_size = MAX, .autodeflate = true};
        struct guest g = {.target = MAX, .actual = MAX, .reported = MAX, .available = PLENTY};
        const uint32_t first = seed;
        unsigned steps = 1 + rnd(&seed) % 60, verdicts[_BL_WATCH_MAX] = {0};
        usec_t now = 1000 * BL_SEC, hand_at = 0;
        struct bl_watch_report r;
        struct bl_watch w;

        bl_watch_init(&w, &t, 0);
        for (int tick = 0; tick < 3000; tick++) {
                uint32_t dice = rnd(&seed) % 1000;

                now += 100 * BL_MSEC;
                g.faults += rnd(&seed) % 3;
                if (tick % 20 == 0)
                        g.stats_at = now;
                if (by_hand && tick == 2000) {
                        /* at rest since a while; a whole MiB, not where it is */
                        g.target = (200 + rnd(&seed) % 1700) * BL_MIB;
                        g.idle = false;
                        hand_at = now;
                }
                if (tick >= 1900)
                        dice = 999; /* let it come to rest, and then only the person */
                if (dice < 8) {
                        uint64_t to = SIGNED(200 + rnd(&seed) % 1800);

                        bl_watch_command(&w, g.reported, to, now);
                        bl_watch_answered(&w, to, rnd(&seed) % 8 ? BL_WATCH_ANSWER_DONE : BL_WATCH_ANSWER_UNKNOWN, now);
                        g.target = to;
                        g.idle = false;
                } else if (dice < 10 && g.actual == g.target && g.actual + BL_MIB <= MAX) {
                        /* the OOM notifier; the driver stays there until told anew */
                        g.actual = bl_min(MAX, g.actual + (1 + rnd(&seed) % 30) * BL_MIB);
                        g.idle = true;
                        g.faults += 1000;
                        g.available = 5 * BL_MIB;
                } else if (dice == 10) {
                        bl_watch_life(&w, BL_WATCH_LIFE_RESET, now);
                        g.idle = false;
                        g.actual = MAX; /* what is reported stays */
                } else if (dice < 14) {
                        g.available = PLENTY;
                        g.floor = rnd(&seed) % 4 ? 0 : (rnd(&seed) % 400) * BL_MIB + (rnd(&seed) % 256) * 4096;
                }
                guest_run(&g, now, steps);
                if (tick % 5 == 0) {
                        const struct bl_watch_observation o = {.actual = g.reported,
                                                               .at = now,
                                                               .stats_at = g.stats_at,
                                                               .available = g.available,
                                                               .major_faults = g.faults};

                        bl_watch_observe(&w, &o, &r);
                        verdicts[r.verdict]++;
                        if (r.verdict == BL_WATCH_HAND && !hand_at)
                                fail_msg("seed %u: by hand at tick %d: %llu KiB was %llu KiB", first, tick,
                                         (unsigned long long)r.now / 1024, (unsigned long long)r.was / 1024);
                }
        }
        assert_true(verdicts[BL_WATCH_UNCHANGED] > 0);
        return w.n_cmd > 0 && g.actual == g.target;
}

static void test_random_ours(void **state)
{
        (void)state;
        for (uint32_t seed = 1; seed <= 300; seed++)
                (void)random_story(seed, false);
}

static void test_random_hand(void **state)
{
        int missed = 0;

        (void)state;
        for (uint32_t seed = 1; seed <= 300; seed++)
                missed += random_story(seed * 7919, true);
        /* what may be missed: a person's value on the way to a target that was not reached yet */
        assert_in_range(missed, 0, 20);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_sign),
                cmocka_unit_test(test_settles),
                cmocka_unit_test(test_intermediate_is_no_rest),
                cmocka_unit_test(test_incomplete_then_on),
                cmocka_unit_test(test_first_shrink_stops_short),
                cmocka_unit_test(test_never_moves),
                cmocka_unit_test(test_page_64k),
                cmocka_unit_test(test_oom),
                cmocka_unit_test(test_oom_to_an_old_target),
                cmocka_unit_test(test_oom_needs_autodeflate),
                cmocka_unit_test(test_oom_after_incomplete),
                cmocka_unit_test(test_hand),
                cmocka_unit_test(test_unexplained),
                cmocka_unit_test(test_hand_to_full),
                cmocka_unit_test(test_hand_during_ours),
                cmocka_unit_test(test_hand_after_a_turn),
                cmocka_unit_test(test_driver_reload),
                cmocka_unit_test(test_reset),
                cmocka_unit_test(test_boot),
                cmocka_unit_test(test_restored),
                cmocka_unit_test(test_paused),
                cmocka_unit_test(test_answers),
                cmocka_unit_test(test_superseded),
                cmocka_unit_test(test_after_kill),
                cmocka_unit_test(test_old_observations),
                cmocka_unit_test(test_strings),
                cmocka_unit_test(test_random_ours),
                cmocka_unit_test(test_random_hand),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
