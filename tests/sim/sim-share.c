/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Page sharing: what is merged, what that costs, and what it may never do. */
#include "sim.h"

#define PAGE UINT64_C(4096)

/* `n` guests of 1 GiB that use 400 MiB, 200 of which have copies, on a host with plenty. */
static struct sim *dense(unsigned int n)
{
        struct sim *s = sim_new(64 * BL_GIB);

        sim_share(s);
        for (unsigned int i = 0; i < n; i++) {
                const char name[] = {(char)('a' + i), '\0'};

                sim_share_guest(sim_add(s, name, BL_GIB, 400 * BL_MIB, false), 200 * BL_MIB);
        }
        return s;
}

static usec_t pass_cpu(const struct sim *s)
{
        uint64_t pages = 0;

        for (size_t i = 0; i < s->n; i++)
                pages += sim_resident(&s->g[i]) / PAGE;
        return pages * s->ksm.scan_ns / 1000;
}

/* CPU time of ksmd for the least that KSM can do: two passes over all, and the merges. */
static usec_t least_cpu(const struct sim *s)
{
        return 2 * pass_cpu(s) + sim_merged(s) / PAGE * s->ksm.merge_ns / 1000;
}

static usec_t run_until_saved(struct sim *s, uint64_t bytes, usec_t most)
{
        usec_t start = s->now;

        while (s->now < start + most) {
                sim_run(s, s->step);
                if (sim_saved(s) >= bytes)
                        return s->now - start;
        }
        return BL_UNSET;
}

static usec_t run_until_rest(struct sim *s, usec_t most)
{
        usec_t start = s->now;

        do
                sim_run(s, s->tick);
        while (s->ksm.runs && s->now < start + most);
        return s->ksm.runs ? BL_UNSET : s->now - start;
}

/* As fast as ksmd at full speed: nothing is waited for that is not needed. */
static void test_dense(void **state)
{
        struct sim *s = dense(4);
        usec_t took;

        (void)state;
        sim_run(s, s->tick);
        assert_true(s->plan.share.drive);
        assert_int_equal(s->plan.share.why, BL_WHY_SHARE_DRIVE_NEW);
        took = run_until_saved(s, 540 * BL_MIB, 60 * BL_SEC);
        assert_true(took != BL_UNSET);
        assert_true(took <= least_cpu(s) * 11 / 10 + s->ksm.tells + s->tick);
        assert_true(run_until_rest(s, 10 * BL_SEC) != BL_UNSET);
        assert_true(sim_saved(s) >= 595 * BL_MIB);
        assert_true(s->ksm.cpu <= least_cpu(s) * 12 / 10);
        assert_int_equal(s->plan.share.why, BL_WHY_SHARE_REST);
        for (size_t i = 0; i < s->n; i++)
                assert_int_equal(sim_share_decision(s, &s->g[i])->why, BL_WHY_SHARE_KEEP);
        sim_assert_kept(s);
        sim_free(s);
}

/* ksmd in ten minutes after all has been merged; evidence is some time behind. */
static usec_t rest_cpu(bool off)
{
        struct sim *s = dense(4);
        usec_t cpu;

        s->config.test.no_share_rest = off;
        for (size_t i = 0; i < s->n; i++) {
                s->g[i].evidence_lag = 60 * BL_SEC;
                s->g[i].evidence_from = s->now + BL_SEC;
                s->g[i].said_gain = 150 * BL_MIB;
        }
        sim_run(s, 30 * BL_SEC);
        assert_true(sim_saved(s) >= 595 * BL_MIB);
        cpu = s->ksm.cpu;
        sim_run(s, 600 * BL_SEC);
        assert_true(sim_saved(s) >= 595 * BL_MIB);
        cpu = s->ksm.cpu - cpu;
        sim_assert_kept(s);
        sim_free(s);
        return cpu;
}

static void test_rest(void **state)
{
        (void)state;
        assert_int_equal(rest_cpu(false), 0);
}

static void test_rest_off(void **state)
{
        (void)state;
        assert_true(rest_cpu(true) > 300 * BL_SEC);
}

/* One that starts later wakes ksmd and is merged in the second pass that sees it. */
static void test_late(void **state)
{
        for (int found = 0; found <= 1; found++) {
                struct sim *s = dense(4);
                struct sim_guest *late;
                uint64_t passes;

                (void)state;
                sim_run(s, 120 * BL_SEC);
                assert_false(s->ksm.runs);
                late = sim_add(s, "late", BL_GIB, 400 * BL_MIB, false);
                sim_share_guest(late, 200 * BL_MIB);
                /* QEMU registers it by itself */
                late->merging = found;
                late->evidence_from = s->now + BL_SEC;
                sim_run(s, s->tick);
                assert_int_equal(sim_share_decision(s, late)->why, BL_WHY_SHARE_WAIT_EVIDENCE);
                passes = s->ksm.full_scans;
                sim_run(s, BL_SEC);
                assert_true(s->ksm.runs);
                assert_int_equal(s->plan.share.why, BL_WHY_SHARE_DRIVE_NEW);
                assert_true(run_until_saved(s, 4 * 198 * BL_MIB, 20 * BL_SEC) != BL_UNSET);
                assert_true(s->ksm.full_scans - passes <= 3);
                assert_true(run_until_rest(s, 10 * BL_SEC) != BL_UNSET);
                assert_int_equal(late->merge_commands, !found);
                assert_int_equal(s->ksm.drives, 2);
                sim_run(s, 120 * BL_SEC);
                assert_int_equal(s->ksm.drives, 2);
                sim_assert_kept(s);
                sim_free(s);
        }
}

/* What grows in those that are merged wakes ksmd when it is enough. */
static void test_wake(void **state)
{
        struct sim *s = dense(4);

        (void)state;
        sim_run(s, 60 * BL_SEC);
        assert_int_equal(s->ksm.drives, 1);
        for (size_t i = 0; i < s->n; i++)
                s->g[i].dup += 5 * BL_MIB;
        sim_run(s, 60 * BL_SEC);
        assert_int_equal(s->ksm.drives, 1);
        for (size_t i = 0; i < s->n; i++)
                s->g[i].dup += 20 * BL_MIB;
        sim_run(s, BL_SEC);
        assert_int_equal(s->plan.share.why, BL_WHY_SHARE_DRIVE);
        sim_run(s, 60 * BL_SEC);
        assert_int_equal(s->ksm.drives, 2);
        assert_true(sim_saved(s) >= 670 * BL_MIB);
        assert_int_equal(s->plan.share.why, BL_WHY_SHARE_REST);
        sim_assert_kept(s);
        sim_free(s);
}

/* VMs of two groups ask, and nobody says which is served: QEMU has registered all of them, and nothing runs. */
static void test_two_groups(void **state)
{
        struct sim *s = dense(4);

        (void)state;
        for (size_t i = 0; i < s->n; i++) {
                s->g[i].share_mode = BL_SHARE_ZERO;
                s->g[i].no_share = BL_NO_SHARE_TWO_GROUPS;
                s->g[i].merging = 1;
        }
        sim_run(s, 60 * BL_SEC);
        assert_int_equal(s->ksm.drives, 0);
        for (size_t i = 0; i < s->n; i++) {
                assert_int_equal(s->g[i].merging, 0);
                assert_int_equal(s->g[i].merge_commands, 1);
                assert_int_equal(sim_share_decision(s, &s->g[i])->why, BL_WHY_SHARE_NOT_POSSIBLE);
        }
        sim_assert_kept(s);
        sim_free(s);
}

/* Nobody is merged while a VM that must not be is registered, or while that is not known. */
static void test_foreign(void **state)
{
        struct sim *s = dense(4);
        struct sim_guest *foreign = sim_add(s, "foreign", BL_GIB, 400 * BL_MIB, false);

        (void)state;
        foreign->merging = -1;
        sim_run(s, 10 * BL_SEC);
        assert_int_equal(s->ksm.drives, 0);
        assert_int_equal(s->plan.share.why, BL_WHY_SHARE_BLOCKED);
        assert_int_equal(sim_share_decision(s, &s->g[0])->why, BL_WHY_SHARE_BLOCKED);
        assert_int_equal(s->g[0].merge_commands, 0);

        foreign->merging = 1;
        foreign->hung = true;
        sim_run(s, 10 * BL_SEC);
        assert_int_equal(s->ksm.drives, 0);
        assert_int_equal(foreign->merge_commands, 0);

        /* it leaves at once, and the others come right behind it */
        foreign->hung = false;
        sim_run(s, 2 * s->tick);
        assert_int_equal(foreign->merging, 0);
        assert_true(s->ksm.runs);
        sim_run(s, 20 * BL_SEC);
        assert_true(sim_saved(s) >= 595 * BL_MIB);
        assert_int_equal(foreign->merged, 0);

        /* and while they are merged another one starts, which its QEMU has registered */
        s->g[0].dup += 100 * BL_MIB;
        s->g[1].dup += 100 * BL_MIB;
        sim_run(s, s->tick);
        assert_true(s->ksm.runs);
        sim_add(s, "next", BL_GIB, 400 * BL_MIB, false)->merging = 1;
        sim_run(s, s->tick);
        assert_false(s->ksm.runs);
        sim_run(s, 10 * BL_SEC);
        assert_true(sim_saved(s) >= 700 * BL_MIB);
        sim_assert_kept(s);
        sim_free(s);
}

/* Four guests of one image and four that hold private data, all registered by their QEMU. */
static struct sim *herd(uint64_t private_dup)
{
        struct sim *s = dense(4);

        for (unsigned int i = 0; i < 4; i++) {
                const char name[] = {(char)('p' + i), '\0'};

                sim_share_guest(sim_add(s, name, BL_GIB, 800 * BL_MIB, false), private_dup);
        }
        for (size_t i = 0; i < s->n; i++)
                s->g[i].merging = 1;
        return s;
}

/* Those that do not pay are left out, and no pass goes over them. */
static void test_herd(void **state)
{
        struct sim *s = herd(4 * BL_MIB);
        usec_t all;

        (void)state;
        sim_run(s, 60 * BL_SEC);
        all = least_cpu(s);
        assert_true(sim_saved(s) >= 595 * BL_MIB);
        for (size_t i = 4; i < 8; i++) {
                assert_int_equal(s->g[i].merging, 0);
                assert_int_equal(s->g[i].passes_seen, 0);
                assert_int_equal(sim_share_decision(s, &s->g[i])->why, BL_WHY_SHARE_NO_GAIN);
        }
        assert_true(s->ksm.cpu <= all * 3 / 4);
        assert_int_equal(s->ksm.drives, 1);
        sim_assert_kept(s);
        sim_free(s);
}

/* Those that bring less come when the others are merged, in the same drive; all at once where what they bring is a good
 * part of the whole, or the others would be gone over twice as often for it. */
static void test_batches(void **state)
{
        for (int part = 0; part <= 1; part++) {
                struct sim *s = herd((part ? 60 : 20) * BL_MIB);

                (void)state;
                s->config.share_pays = BL_MIB;
                sim_run(s, 2 * s->tick);
                for (size_t i = 0; i < 8; i++)
                        assert_int_equal(s->g[i].merging, i < 4 || part);
                for (size_t i = 4; i < 8; i++)
                        assert_int_equal(sim_share_decision(s, &s->g[i])->why,
                                         part ? BL_WHY_SHARE_MERGE : BL_WHY_SHARE_WAIT_TURN);
                for (int i = 0; i < 1000 && s->g[4].merging == 0; i++)
                        sim_run(s, s->step);
                assert_int_equal(s->g[4].merging, 1);
                for (size_t i = 0; i < 4 && !part; i++)
                        assert_true(s->g[i].merged >= 199 * BL_MIB);
                sim_run(s, 120 * BL_SEC);
                for (size_t i = 4; i < 8; i++)
                        assert_true(s->g[i].merged >= s->g[i].dup - BL_MIB);
                assert_int_equal(s->ksm.drives, 1);
                assert_false(s->ksm.runs);
                assert_true(!part || s->ksm.full_scans <= 3);
                sim_assert_kept(s);
                sim_free(s);
        }
}

/* Evidence that is wrong for ever costs three passes now and then, and rarer and rarer. */
static void test_wrong_evidence(void **state)
{
        struct sim *s = dense(4);
        usec_t cpu;

        (void)state;
        for (size_t i = 0; i < s->n; i++)
                s->g[i].dup_fleeting = true;
        sim_run(s, 20 * BL_SEC);
        assert_false(s->ksm.runs);
        assert_in_range(s->ksm.full_scans, 2, 3);
        cpu = s->ksm.cpu;
        sim_run(s, 10 * BL_SEC);
        assert_int_equal(s->ksm.cpu, cpu);
        sim_run(s, 3600 * BL_SEC);
        assert_in_range(s->ksm.drives, 4, 12);
        /* from then on every ten minutes at most */
        cpu = s->ksm.cpu;
        sim_run(s, 3600 * BL_SEC);
        cpu = s->ksm.cpu - cpu;
        assert_in_range(cpu, pass_cpu(s), 7 * 3 * pass_cpu(s));
        /* nor does it keep memory */
        assert_int_equal(sim_ksm_metadata(s), 0);
        /* and when it comes true after all it is merged */
        for (size_t i = 0; i < s->n; i++)
                s->g[i].dup_fleeting = false;
        assert_true(run_until_saved(s, 590 * BL_MIB, 700 * BL_SEC) != BL_UNSET);
        sim_assert_kept(s);
        sim_free(s);
}

/* What cannot be said for sure is looked at for longer, and not for ever. */
static void test_unsure(void **state)
{
        for (int more = 0; more <= 1; more++) {
                struct sim *s = dense(4);

                (void)state;
                for (size_t i = 0; i < s->n; i++) {
                        s->g[i].dup = more ? 40 * BL_MIB : 12 * BL_MIB;
                        s->g[i].spread = 9000;
                }
                sim_run(s, 4 * BL_SEC);
                assert_int_equal(s->ksm.drives, 0);
                assert_int_equal(sim_share_decision(s, &s->g[0])->why, BL_WHY_SHARE_WAIT_EVIDENCE);
                sim_run(s, 20 * BL_SEC);
                assert_int_equal(s->ksm.drives, more);
                assert_int_equal(sim_share_decision(s, &s->g[0])->why, more ? BL_WHY_SHARE_KEEP : BL_WHY_SHARE_NO_GAIN);
                sim_assert_kept(s);
                sim_free(s);
        }
}

/* One whose copies go does not stay registered for nothing, and does not come and go. */
static void test_leaves(void **state)
{
        struct sim *s = dense(5);
        struct sim_guest *g = &s->g[4];

        (void)state;
        sim_run(s, 60 * BL_SEC);
        assert_true(g->merged >= 199 * BL_MIB);
        g->rewrites = 100 * BL_MIB;
        sim_run(s, 60 * BL_SEC);
        assert_int_equal(g->merged, 0);
        assert_int_equal(g->merging, 0);
        assert_int_equal(g->merge_commands, 2);
        assert_int_equal(sim_share_decision(s, g)->why, BL_WHY_SHARE_NO_GAIN);
        sim_run(s, 1200 * BL_SEC);
        assert_int_equal(g->merge_commands, 2);
        for (size_t i = 0; i < 4; i++)
                assert_int_equal(s->g[i].merging, 1);
        sim_assert_kept(s);
        sim_free(s);
}

/* --- the host's memory ------------------------------------------------------------------------------ */

/* A host that `n` guests of 2 GiB fill, which use a quarter of that, cache the rest, and have 300 MiB in common. */
static struct sim *crowd(unsigned int n)
{
        struct sim *s = sim_crowded(n);

        sim_share(s);
        for (size_t i = 0; i < s->n; i++)
                sim_share_guest(&s->g[i], 300 * BL_MIB);
        return s;
}

/* Its marks without anything for what is merged. */
static struct bl_marks plain(const struct sim *s)
{
        struct bl_marks m;

        bl_marks_compute(s->budget, s->config.min_free, &m);
        return m;
}

/* All is merged, and others fill the host slowly; when guests have to give, a third of what is merged is written to
 * within a second. */
static struct sim *storm(bool off)
{
        struct sim *s = crowd(4);

        s->config.test.no_share_reserve = off;
        for (size_t i = 0; i < s->n; i++)
                s->g[i].speed_down = 40 * BL_MIB;
        sim_run(s, 120 * BL_SEC);
        assert_true(sim_saved(s) >= 700 * BL_MIB);
        s->other_want = s->budget;
        s->other_rate = 10 * BL_MIB;
        sim_at_rest(s);
        while (s->commands == 0)
                sim_run(s, s->step);
        s->other_want = s->other;

        s->min_free = UINT64_MAX;
        for (size_t i = 0; i < s->n; i++)
                s->g[i].rewrites = 115 * BL_MIB;
        sim_run(s, BL_SEC);
        for (size_t i = 0; i < s->n; i++)
                s->g[i].rewrites = 0;
        sim_run(s, 60 * BL_SEC);
        return s;
}

static void test_reserve(void **state)
{
        struct sim *s = storm(false);

        (void)state;
        assert_true(s->min_free >= plain(s).mark[BL_STATE_HARD]);
        sim_assert_kept(s);
        sim_free(s);
}

static void test_reserve_off(void **state)
{
        struct sim *s = storm(true);

        (void)state;
        assert_true(s->min_free < plain(s).mark[BL_STATE_HARD]);
        sim_free(s);
}

/* Others use all but `bytes`, slowly enough not to look like growth. */
static void fill(struct sim *s, uint64_t bytes)
{
        s->other_want = s->other + bl_sub_sat(sim_host_free(s), bytes);
        s->other_rate = 4 * BL_MIB;
        while (s->other < s->other_want)
                sim_run(s, s->step);
        sim_run(s, 10 * BL_SEC);
}

/* An administrator ends page sharing for all VMs, on a host that has little more than it would take. */
static struct sim *unmerge(bool off)
{
        struct sim *s = crowd(4);

        s->config.test.no_share_room = off;
        sim_run(s, 120 * BL_SEC);
        assert_true(sim_saved(s) >= 700 * BL_MIB);
        fill(s, 600 * BL_MIB);
        s->min_free = UINT64_MAX;
        for (size_t i = 0; i < s->n; i++)
                s->g[i].share_mode = BL_SHARE_ZERO;
        sim_run(s, 60 * BL_SEC);
        return s;
}

static unsigned int registered(const struct sim *s)
{
        unsigned int n = 0;

        for (size_t i = 0; i < s->n; i++)
                n += s->g[i].merging == 1;
        return n;
}

/* They are taken apart one by one, and guests give idle memory for it; the host stays where it is. */
static void test_room(void **state)
{
        struct sim *s = unmerge(false);

        (void)state;
        assert_int_equal(registered(s), 0);
        assert_true(s->min_free >= plain(s).mark[BL_STATE_CLEAR]);
        sim_assert_kept(s);
        sim_free(s);
}

static void test_room_off(void **state)
{
        struct sim *s = unmerge(true);

        (void)state;
        assert_int_equal(registered(s), 0);
        assert_true(s->min_free < plain(s).mark[BL_STATE_LOW]);
        assert_true(s->faults.dear > 0);
        sim_free(s);
}

/* Where nobody can give, they stay merged, and that is said. */
static void test_no_room(void **state)
{
        struct sim *s = crowd(4);
        unsigned int waits = 0;
        unsigned int commands;

        (void)state;
        sim_run(s, 120 * BL_SEC);
        for (size_t i = 0; i < s->n; i++)
                s->g[i].managed = false;
        fill(s, 600 * BL_MIB);
        for (size_t i = 0; i < s->n; i++)
                s->g[i].share_mode = BL_SHARE_OFF;
        commands = s->commands;
        sim_run(s, 60 * BL_SEC);
        assert_int_equal(registered(s), 4);
        for (size_t i = 0; i < s->n; i++)
                waits += sim_share_decision(s, &s->g[i])->why == BL_WHY_SHARE_WAIT_ROOM;
        assert_int_equal(waits, 4);
        assert_int_equal(s->plan.share.why, BL_WHY_SHARE_BLOCKED);
        assert_int_equal(s->commands, commands);
        /* and when others go there is room */
        s->budget += BL_GIB;
        sim_run(s, 20 * BL_SEC);
        assert_int_equal(registered(s), 0);
        sim_assert_kept(s);
        sim_free(s);
}

/* A host under pressure with merging, ballooning and writing to merged pages all at once comes to rest. */
static void test_all_at_once(void **state)
{
        struct sim *s = crowd(6);
        unsigned int drives;

        (void)state;
        for (size_t i = 0; i < s->n; i++) {
                s->g[i].evidence_lag = 20 * BL_SEC;
                s->g[i].speed_down = 200 * BL_MIB;
                s->g[i].rewrites = BL_MIB;
                s->g[i].rewrites_same = i % 2;
        }
        sim_run(s, 60 * BL_SEC);
        s->other_want = 4 * BL_GIB;
        s->other_rate = 100 * BL_MIB;
        sim_run(s, 180 * BL_SEC);
        for (size_t i = 0; i < s->n; i++)
                s->g[i].rewrites = 0;
        sim_run(s, 60 * BL_SEC);
        for (size_t i = 0; i < s->n; i++) {
                const struct bl_decision *d = sim_decision(s, &s->g[i]);

                assert_false(d->lying);
                assert_false(d->stuck);
        }
        assert_true(s->plan.state <= BL_STATE_CLEAR);
        assert_true(sim_saved(s) > 0);
        drives = s->ksm.drives;
        sim_at_rest(s);
        sim_run(s, 300 * BL_SEC);
        assert_true(s->commands <= s->n);
        assert_int_equal(s->faults.reversals, 0);
        assert_true(s->ksm.drives - drives <= 1);
        sim_assert_kept(s);
        sim_free(s);
}

/* What is merged frees nothing when a balloon takes it: it is not counted, others are asked first, and nobody is
 * squeezed for it. */
static void test_balloon(void **state)
{
        struct sim *s = crowd(4);
        uint64_t private_gave, merged_gave;

        (void)state;
        for (size_t i = 0; i < s->n; i++) {
                if (i < 2)
                        s->g[i].dup = 1200 * BL_MIB;
                else
                        s->g[i].share_mode = BL_SHARE_OFF;
        }
        sim_run(s, 200 * BL_SEC);
        assert_true(sim_saved(s) >= 900 * BL_MIB);
        s->other_want = sim_host_free(s) + 100 * BL_MIB;
        s->other_rate = 20 * BL_MIB;
        merged_gave = s->g[0].actual;
        private_gave = s->g[2].actual;
        sim_run(s, 180 * BL_SEC);
        merged_gave -= s->g[0].actual;
        private_gave -= s->g[2].actual;
        assert_true(s->plan.state <= BL_STATE_SOFT);
        assert_true(private_gave > merged_gave + 100 * BL_MIB);
        for (size_t i = 0; i < s->n; i++)
                assert_false(sim_decision(s, &s->g[i])->lying || sim_decision(s, &s->g[i])->stuck);
        sim_assert_kept(s);
        sim_free(s);
}

/* Mode zero: pages of zeros go out, of VMs that are not about to be ballooned, and nothing else is done. */
static void test_zero(void **state)
{
        struct sim *s = dense(3);
        uint64_t before;

        (void)state;
        s->ksm.mode = BL_SHARE_ZERO;
        s->ksm.usable = false;
        s->g[0].zero = 100 * BL_MIB;
        s->g[1].zero = 3 * BL_MIB;
        s->g[2].zero = 100 * BL_MIB;
        s->g[2].share_mode = BL_SHARE_OFF;
        before = sim_host_free(s);
        sim_run(s, s->tick);
        sim_run(s, BL_SEC);
        assert_int_equal(s->g[0].zero, 0);
        assert_int_equal(s->g[1].zero, 3 * BL_MIB);
        assert_int_equal(s->g[2].zero, 100 * BL_MIB);
        assert_int_equal(sim_host_free(s), before + 100 * BL_MIB);
        assert_int_equal(s->ksm.drives, 0);
        assert_int_equal(s->plan.share.why, BL_WHY_SHARE_OFF);
        sim_assert_kept(s);
        sim_free(s);
}

/* --- hosts that nobody thought of ------------------------------------------------------------------- */

static uint64_t range(uint64_t *seed, uint64_t low, uint64_t high)
{
        return sim_random_range(seed, low, high);
}

static void disturb(struct sim *s, uint64_t *seed)
{
        struct sim_guest *g = &s->g[range(seed, 0, s->n - 1)];

        switch (range(seed, 0, 9)) {
        case 0:
                g->share_mode = (enum bl_share_mode)range(seed, 0, 2);
                break;
        case 1:
                g->dup = range(seed, 0, sim_resident(g) / 2);
                g->merged = bl_min(g->merged, g->dup);
                break;
        case 2:
                g->rewrites = range(seed, 0, 1) * range(seed, 0, 50) * BL_MIB;
                g->rewrites_same = range(seed, 0, 1);
                break;
        case 3:
                g->dup_fleeting = range(seed, 0, 1);
                break;
        case 4:
                s->other_want = range(seed, 0, s->budget / 3);
                s->other_rate = range(seed, 1, 60) * BL_MIB;
                break;
        case 5:
                g->hung = !g->hung;
                break;
        case 6:
                s->ksm.yielded = range(seed, 0, 3) == 0;
                break;
        case 7:
                if (s->n < 12) {
                        g = sim_add(s, "new", BL_GIB, 200 * BL_MIB, true);
                        sim_share_guest(g, range(seed, 0, 200) * BL_MIB);
                        g->merging = (int)range(seed, 0, 1);
                        g->share_mode = (enum bl_share_mode)range(seed, 0, 2);
                }
                break;
        case 8:
                g->zero = range(seed, 0, 50) * BL_MIB;
                break;
        default:
                s->ksm.mode = range(seed, 0, 4) == 0 ? BL_SHARE_ZERO : BL_SHARE_GROUP;
                break;
        }
}

/* Whatever happens nobody is merged against his settings, nobody is taken apart without room, and ksmd comes to
 * rest. */
static void random_host(uint64_t number)
{
        uint64_t seed = number * UINT64_C(0x9e3779b97f4a7c15) + 1, n = range(&seed, 2, 8);
        struct sim *s = sim_new(n * (BL_GIB + 40 * BL_MIB) + range(&seed, 0, 1000) * BL_MIB);
        uint64_t merged;
        usec_t cpu, most;

        sim_share(s);
        s->ksm.scan_ns = range(&seed, 300, 5000);
        s->ksm.merge_ns = range(&seed, 3000, 50000);
        for (uint64_t i = 0; i < n; i++) {
                struct sim_guest *g = sim_add(s, "vm", BL_GIB, range(&seed, 64, 400) * BL_MIB, range(&seed, 0, 1));

                sim_share_guest(g, range(&seed, 0, 300) * BL_MIB);
                g->share_mode = range(&seed, 0, 4) == 0 ? BL_SHARE_OFF : BL_SHARE_GROUP;
                g->merging = (int)range(&seed, 0, 2) - 1;
                g->evidence_lag = range(&seed, 0, 30) * BL_SEC;
                g->spread = (permyriad_t)range(&seed, 0, 9000);
                g->speed_down = range(&seed, 50, 1000) * BL_MIB;
        }
        for (int k = 0; k < 30; k++) {
                sim_run(s, range(&seed, 1, 20) * BL_SEC);
                disturb(s, &seed);
        }
        s->ksm.mode = BL_SHARE_GROUP;
        s->ksm.yielded = false;
        for (size_t i = 0; i < s->n; i++) {
                s->g[i].rewrites = 0;
                s->g[i].hung = false;
                if (s->g[i].merging < 0)
                        s->g[i].merging = 0;
        }
        s->budget += 4 * BL_GIB;
        sim_run(s, 300 * BL_SEC);
        cpu = s->ksm.cpu;
        merged = sim_merged(s);
        sim_run(s, 300 * BL_SEC);
        cpu = s->ksm.cpu - cpu;
        /* two rounds of three passes in vain, and what was merged after all */
        most = 7 * pass_cpu(s) + bl_sub_sat(sim_merged(s), merged) / PAGE * (s->ksm.merge_ns + 1) / 1000;
        if (s->faults.mixed > 0 || s->faults.nonsense > 0 || s->faults.kills > 0 || s->faults.dear > 0 || cpu > most)
                fail_msg("host %d: mixed %u, nonsense %u, kills %u, dear %u, ksmd %lu of %lu us", (int)number,
                         s->faults.mixed, s->faults.nonsense, s->faults.kills, s->faults.dear, (unsigned long)cpu,
                         (unsigned long)most);
        for (size_t i = 0; i < s->n; i++) {
                if (s->g[i].share_mode != BL_SHARE_GROUP && s->g[i].merging != 0)
                        fail_msg("host %d: a VM that must not be merged is", (int)number);
        }
        sim_free(s);
}

static void test_random(void **state)
{
        const char *one = getenv("BALLAST_SEED");

        (void)state;
        if (one)
                random_host(strtoull(one, NULL, 10));
        for (uint64_t i = 1; i <= 100 && !one; i++)
                random_host(i);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_dense),    cmocka_unit_test(test_rest),
                cmocka_unit_test(test_rest_off), cmocka_unit_test(test_late),
                cmocka_unit_test(test_wake),     cmocka_unit_test(test_two_groups),
                cmocka_unit_test(test_foreign),  cmocka_unit_test(test_herd),
                cmocka_unit_test(test_batches),  cmocka_unit_test(test_wrong_evidence),
                cmocka_unit_test(test_unsure),   cmocka_unit_test(test_leaves),
                cmocka_unit_test(test_reserve),  cmocka_unit_test(test_reserve_off),
                cmocka_unit_test(test_room),     cmocka_unit_test(test_room_off),
                cmocka_unit_test(test_no_room),  cmocka_unit_test(test_all_at_once),
                cmocka_unit_test(test_balloon),  cmocka_unit_test(test_zero),
                cmocka_unit_test(test_random),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
