/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The executor on a made-up /sys; the last test is on the machine's KSM, and puts everything back. */
#include "tests/unit/test-host-util.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "daemon/act/ksm.h"
#include "daemon/act/ksm_knobs.h"
#include "daemon/fault.h"
#include "daemon/util/clock.h"

#define MM         "/sys/kernel/mm/"
#define KSM        MM "ksm/"
#define KHUGEPAGED MM "transparent_hugepage/khugepaged/"

/* As 6.18 has them at the start, without the line's end. */
static const char *const found[_BL_KNOB_MAX] = {
        [BL_KNOB_MAX_PTES_SHARED] = "256",
        [BL_KNOB_MAX_PTES_NONE] = "511",
        [BL_KNOB_ADVISOR_MODE] = "[none] scan-time",
        [BL_KNOB_MAX_PAGE_SHARING] = "256",
        [BL_KNOB_USE_ZERO_PAGES] = "0",
        [BL_KNOB_SMART_SCAN] = "1",
        [BL_KNOB_SLEEP_MILLISECS] = "20",
        [BL_KNOB_PAGES_TO_SCAN] = "100",
        [BL_KNOB_RUN] = "0",
};

static const char *sys_path(enum bl_knob k)
{
        static char path[128];

        snprintf(path, sizeof path, MM "%s", bl_knob_path(k));
        return path;
}

static void put(enum bl_knob k, const char *value)
{
        char line[64];

        snprintf(line, sizeof line, "%s\n", value);
        test_write(sys_path(k), line);
}

static void expect_knob(enum bl_knob k, const char *value)
{
        char text[64];

        assert_true(bl_fs_read(test_root, sys_path(k), text, sizeof text) >= 0);
        text[strcspn(text, "\n")] = '\0';
        if (strcmp(text, value) != 0)
                fail_msg("%s is '%s', not '%s'", bl_knob_path(k), text, value);
}

/* The kernel prints the advisor's choice among all; a file holds what was written. */
static void expect_found(void)
{
        for (int k = 0; k < _BL_KNOB_MAX; k++) {
                char now[BL_KNOB_TEXT], was[BL_KNOB_TEXT];

                snprintf(was, sizeof was, "%s", k == BL_KNOB_ADVISOR_MODE ? "none" : found[k]);
                assert_int_equal(bl_knob_read(test_root, (enum bl_knob)k, now), 0);
                if (strcmp(now, was) != 0)
                        fail_msg("%s is '%s', not '%s'", bl_knob_path((enum bl_knob)k), now, was);
        }
}

/* --- the daemon around it ------------------------------------------------------------ */

static struct {
        struct bl_ledger *ledger;
        struct bl_ksm *ksm;
        int saves, fail_at, die_before, die_after; /* of which save; 0: none */
        int yields;
        char knob[64], ours[32], now[32];
} t;

static const char *state_dir(void)
{
        return test_path("/state");
}

static int save(void *userdata)
{
        int r;

        (void)userdata;
        t.saves++;
        if (t.saves == t.fail_at)
                return -ENOSPC;
        if (t.saves == t.die_before)
                (void)raise(SIGKILL);
        r = bl_ledger_save(t.ledger, false);
        if (t.saves == t.die_after)
                (void)raise(SIGKILL);
        return r;
}

static void on_yield(void *userdata, const char *knob, const char *ours, const char *now)
{
        (void)userdata;
        t.yields++;
        snprintf(t.knob, sizeof t.knob, "%s", knob);
        snprintf(t.ours, sizeof t.ours, "%s", ours);
        snprintf(t.now, sizeof t.now, "%s", now);
}

static void start(const char *root, const char *boot)
{
        const struct bl_ksm_options o = {.root = root, .save = save, .handler = {.on_yield = on_yield}};
        struct bl_ksm_options with = o;
        char *message = NULL;

        memset(&t, 0, sizeof t);
        assert_int_equal(bl_ledger_open(state_dir(), boot, &t.ledger, &message), 0);
        assert_null(message);
        with.ledger = t.ledger;
        assert_int_equal(bl_ksm_new(&with, &t.ksm), 0);
}

static void stop(void)
{
        t.ksm = bl_ksm_free(t.ksm);
        t.ledger = bl_ledger_free(t.ledger);
}

static int setup(void **state)
{
        if (test_root_make(state) < 0)
                return -1;
        for (int k = 0; k < _BL_KNOB_MAX; k++)
                put((enum bl_knob)k, found[k]);
        test_write(KSM "pages_shared", "0\n");
        test_write(MM "transparent_hugepage/enabled", "always [madvise] never\n");
        test_write(MM "transparent_hugepage/hugepages-2048kB/enabled", "always [inherit] madvise never\n");
        test_write("/proc/36/stat", "36 (ksmd) S 2 0 0 0 -1 2097216 0 0 0 0 0 15044 0 0 25 5 1 0 25 0 0\n");
        test_write("/proc/36/schedstat", "0 0 0\n");
        assert_int_equal(bl_fs_mkdir_p(state_dir(), 0700), 0);
        start(test_root, NULL);
        return 0;
}

static int teardown(void **state)
{
        stop();
        return test_root_remove(state);
}

static const struct bl_ksm_drive full = {.host_knobs = true, .thorough = true, .vms = 8, .cpu = BL_WHOLE},
                                 modest = {.thorough = true, .vms = 8, .cpu = BL_WHOLE};

static void drive(void)
{
        assert_int_equal(bl_ksm_drive(t.ksm, &full), 0);
}

static void expect_driven(void)
{
        expect_knob(BL_KNOB_MAX_PTES_SHARED, "0");
        expect_knob(BL_KNOB_MAX_PTES_NONE, "0");
        expect_knob(BL_KNOB_USE_ZERO_PAGES, "1");
        expect_knob(BL_KNOB_SMART_SCAN, "0");
        expect_knob(BL_KNOB_SLEEP_MILLISECS, "0");
        expect_knob(BL_KNOB_PAGES_TO_SCAN, "200");
        expect_knob(BL_KNOB_MAX_PAGE_SHARING, "256");
        expect_knob(BL_KNOB_RUN, "1");
}

static int look(void)
{
        struct bl_ksm_figures f;

        return bl_ksm_look(t.ksm, &f);
}

/* --- drive, rest, release --------------------------------------------------------------- */

static void test_life(void **state)
{
        (void)state;
        assert_false(bl_ksm_holds(t.ksm));
        assert_false(bl_ksm_driven(t.ksm));
        drive();
        expect_driven();
        /* it was "none" already: not written */
        expect_knob(BL_KNOB_ADVISOR_MODE, found[BL_KNOB_ADVISOR_MODE]);
        assert_true(bl_ksm_driven(t.ksm));
        assert_true(bl_ksm_holds(t.ksm));
        assert_null(bl_ksm_thp_warning(t.ksm));
        /* again and again: nothing is written, to no file */
        t.saves = 0;
        drive();
        assert_int_equal(t.saves, 0);
        assert_int_equal(bl_ksm_rest(t.ksm), 0);
        assert_false(bl_ksm_driven(t.ksm));
        expect_knob(BL_KNOB_RUN, "0");
        expect_knob(BL_KNOB_MAX_PTES_SHARED, "0");
        assert_int_equal(bl_ksm_rest(t.ksm), 0);
        assert_true(bl_ksm_holds(t.ksm));
        assert_int_equal(look(), 0);
        drive();
        expect_driven();
        assert_int_equal(bl_ksm_release(t.ksm), 7);
        expect_found();
        assert_false(bl_ksm_holds(t.ksm));
        assert_false(bl_ksm_driven(t.ksm));
        assert_int_equal(bl_ledger_count_knobs(t.ledger), 0);
        assert_int_equal(bl_ksm_release(t.ksm), 0);
        assert_int_equal(t.yields, 0);
}

/* What was found is in the file before anything is written to /sys. */
static int check_then_save(void *userdata)
{
        const struct bl_ledger_knob *run = bl_ledger_find_knob(t.ledger, "ksm/run");

        if (t.saves == 0) {
                expect_found();
                assert_string_equal(run->was, "0");
                assert_string_equal(run->ours, "1");
        }
        return save(userdata);
}

static void test_ledger_first(void **state)
{
        const struct bl_ksm_options o = {.root = test_root, .ledger = t.ledger, .save = check_then_save};

        (void)state;
        (void)bl_ksm_free(t.ksm);
        assert_int_equal(bl_ksm_new(&o, &t.ksm), 0);
        drive();
        assert_int_equal(t.saves, 2);
        stop();
        start(test_root, NULL);
        assert_string_equal(bl_ledger_find_knob(t.ledger, "ksm/pages_to_scan")->was, "100");
        assert_null(bl_ledger_find_knob(t.ledger, "ksm/pages_to_scan")->before);
        /* known as ours */
        assert_true(bl_ksm_driven(t.ksm));
        assert_true(bl_ksm_holds(t.ksm));
        assert_int_equal(look(), 0);
        assert_int_equal(t.yields, 0);
        assert_int_equal(bl_ksm_release(t.ksm), 7);
        expect_found();
}

/* An administrator's KSM that ran: it rests at our word, and runs again after. */
static void test_ran_before(void **state)
{
        (void)state;
        put(BL_KNOB_RUN, "1");
        put(BL_KNOB_ADVISOR_MODE, "none [scan-time]");
        put(BL_KNOB_PAGES_TO_SCAN, "734");
        assert_int_equal(bl_ksm_rest(t.ksm), 0);
        expect_knob(BL_KNOB_RUN, "0");
        drive();
        expect_knob(BL_KNOB_ADVISOR_MODE, "none");
        expect_knob(BL_KNOB_RUN, "1");
        assert_int_equal(bl_ksm_rest(t.ksm), 0);
        assert_true(bl_ksm_release(t.ksm) > 0);
        expect_knob(BL_KNOB_RUN, "1");
        expect_knob(BL_KNOB_PAGES_TO_SCAN, "734");
        expect_knob(BL_KNOB_ADVISOR_MODE, "scan-time");
}

/* 2 was written once by somebody: writing it again would un-merge everything. */
static void test_never_unmerges(void **state)
{
        (void)state;
        put(BL_KNOB_RUN, "2");
        drive();
        assert_int_equal(bl_ksm_rest(t.ksm), 0);
        assert_true(bl_ksm_release(t.ksm) > 0);
        expect_knob(BL_KNOB_RUN, "0");
        assert_false(bl_ksm_holds(t.ksm));
}

/* --- what it is to be like ------------------------------------------------------------- */

static void test_host_knobs(void **state)
{
        (void)state;
        assert_int_equal(bl_ksm_drive(t.ksm, &modest), 0);
        expect_knob(BL_KNOB_MAX_PTES_SHARED, "256");
        expect_knob(BL_KNOB_MAX_PTES_NONE, "511");
        expect_knob(BL_KNOB_USE_ZERO_PAGES, "0");
        expect_knob(BL_KNOB_RUN, "1");
        assert_non_null(strstr(bl_ksm_thp_warning(t.ksm), "no more than 256 of 512"));
        assert_non_null(strstr(bl_ksm_thp_warning(t.ksm), "no more than 511 of 512"));
        drive();
        expect_driven();
        assert_null(bl_ksm_thp_warning(t.ksm));
        /* taken back by the administrator */
        assert_int_equal(bl_ksm_drive(t.ksm, &modest), 0);
        expect_knob(BL_KNOB_MAX_PTES_SHARED, "256");
        expect_knob(BL_KNOB_MAX_PTES_NONE, "511");
        expect_knob(BL_KNOB_USE_ZERO_PAGES, "0");
        expect_knob(BL_KNOB_SMART_SCAN, "0");
        assert_non_null(bl_ksm_thp_warning(t.ksm));
        /* the administrator has seen to it */
        put(BL_KNOB_MAX_PTES_SHARED, "0");
        put(BL_KNOB_MAX_PTES_NONE, "0");
        assert_int_equal(bl_ksm_drive(t.ksm, &modest), 0);
        assert_null(bl_ksm_thp_warning(t.ksm));
        assert_int_equal(t.yields, 0);
}

static void test_no_thp(void **state)
{
        static const struct {
                const char *all, *size;
                bool on;
        } table[] = {
                {"always madvise [never]\n", NULL, false},
                {"always madvise [never]\n", "always [inherit] madvise never\n", false},
                {"always madvise [never]\n", "[always] inherit madvise never\n", true},
                {"[always] madvise never\n", "always inherit madvise [never]\n", false},
                {"[always] madvise never\n", "always [inherit] madvise never\n", true},
                {"always [madvise] never\n", NULL, true},
        };

        (void)state;
        for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
                test_write(MM "transparent_hugepage/enabled", table[i].all);
                (void)unlink(test_path(MM "transparent_hugepage/hugepages-2048kB/enabled"));
                if (table[i].size)
                        test_write(MM "transparent_hugepage/hugepages-2048kB/enabled", table[i].size);
                assert_int_equal(bl_ksm_drive(t.ksm, &modest), 0);
                expect_knob(BL_KNOB_USE_ZERO_PAGES, table[i].on ? "0" : "1");
                assert_int_equal(bl_ksm_thp_warning(t.ksm) != NULL, table[i].on);
                assert_int_equal(bl_ksm_drive(t.ksm, &full), 0);
                expect_knob(BL_KNOB_USE_ZERO_PAGES, "1");
                expect_knob(BL_KNOB_MAX_PTES_SHARED, table[i].on ? "0" : "256");
                assert_true(bl_ksm_release(t.ksm) > 0);
                expect_found();
        }
}

static void test_smart_scan(void **state)
{
        struct bl_ksm_drive d = full;

        (void)state;
        d.thorough = false;
        assert_int_equal(bl_ksm_drive(t.ksm, &d), 0);
        expect_knob(BL_KNOB_SMART_SCAN, "1");
        drive();
        expect_knob(BL_KNOB_SMART_SCAN, "0");
        assert_int_equal(bl_ksm_drive(t.ksm, &d), 0);
        expect_knob(BL_KNOB_SMART_SCAN, "1");
}

static void test_max_page_sharing(void **state)
{
        struct bl_ksm_drive d = full;

        (void)state;
        d.vms = 128;
        assert_int_equal(bl_ksm_drive(t.ksm, &d), 0);
        expect_knob(BL_KNOB_MAX_PAGE_SHARING, "256");
        /* the kernel would refuse */
        d.vms = 300;
        test_write(KSM "pages_shared", "1\n");
        assert_int_equal(bl_ksm_drive(t.ksm, &d), 0);
        expect_knob(BL_KNOB_MAX_PAGE_SHARING, "256");
        test_write(KSM "pages_shared", "0\n");
        assert_int_equal(bl_ksm_drive(t.ksm, &d), 0);
        expect_knob(BL_KNOB_MAX_PAGE_SHARING, "600");
        d.vms = 100000;
        assert_int_equal(bl_ksm_drive(t.ksm, &d), 0);
        expect_knob(BL_KNOB_MAX_PAGE_SHARING, "1024");
        /* fewer VMs are no reason for less */
        d.vms = 8;
        assert_int_equal(bl_ksm_drive(t.ksm, &d), 0);
        expect_knob(BL_KNOB_MAX_PAGE_SHARING, "1024");
        assert_true(bl_ksm_release(t.ksm) > 0);
        expect_found();
        /* the administrator's is larger */
        put(BL_KNOB_MAX_PAGE_SHARING, "4096");
        d.vms = 300;
        assert_int_equal(bl_ksm_drive(t.ksm, &d), 0);
        expect_knob(BL_KNOB_MAX_PAGE_SHARING, "4096");
}

static unsigned sleep_now(void)
{
        char text[BL_KNOB_TEXT];

        assert_int_equal(bl_knob_read(test_root, BL_KNOB_SLEEP_MILLISECS, text), 0);
        return (unsigned)strtoul(text, NULL, 10);
}

static void ksmd_used(usec_t t_us)
{
        char line[64];

        snprintf(line, sizeof line, "%llu 0 0\n", (unsigned long long)t_us * 1000);
        test_write("/proc/36/schedstat", line);
}

/* Half a core: the sleep follows what ksmd was seen to take. */
static void test_cpu(void **state)
{
        struct bl_ksm_drive d = full;

        (void)state;
        d.cpu = BL_WHOLE / 2;
        assert_int_equal(bl_ksm_drive(t.ksm, &d), 0);
        assert_int_equal(sleep_now(), 8);
        expect_knob(BL_KNOB_PAGES_TO_SCAN, "2000");
        /* 90 % though: batches take nine times the sleep */
        usleep(1050 * 1000);
        ksmd_used(945 * 1000);
        assert_int_equal(bl_ksm_drive(t.ksm, &d), 0);
        assert_in_range(sleep_now(), 50, 80);
        /* as it is to be */
        usleep(1050 * 1000);
        ksmd_used((945 + 525) * 1000);
        t.saves = 0;
        assert_int_equal(bl_ksm_drive(t.ksm, &d), 0);
        assert_in_range(sleep_now(), 50, 80);
        assert_int_equal(t.saves, 0);
        /* not judged too soon */
        assert_int_equal(bl_ksm_drive(t.ksm, &d), 0);
        assert_int_equal(t.saves, 0);
        /* all of it again, and a tenth */
        drive();
        assert_int_equal(sleep_now(), 0);
        d.cpu = BL_WHOLE / 10;
        assert_int_equal(bl_ksm_drive(t.ksm, &d), 0);
        assert_int_equal(sleep_now(), 72);
        /* it had nothing to do: still within bounds */
        usleep(1050 * 1000);
        assert_int_equal(bl_ksm_drive(t.ksm, &d), 0);
        assert_int_equal(sleep_now(), 1);
        assert_int_equal(t.yields, 0);
}

/* A kernel that has fewer knobs: 6.1. */
static void test_missing(void **state)
{
        (void)state;
        (void)unlink(test_path(sys_path(BL_KNOB_SMART_SCAN)));
        (void)unlink(test_path(sys_path(BL_KNOB_ADVISOR_MODE)));
        drive();
        assert_true(access(test_path(sys_path(BL_KNOB_SMART_SCAN)), F_OK) < 0);
        expect_knob(BL_KNOB_RUN, "1");
        assert_int_equal(look(), 0);
        assert_int_equal(bl_ksm_rest(t.ksm), 0);
        assert_int_equal(bl_ksm_release(t.ksm), 5);
        put(BL_KNOB_SMART_SCAN, "1");
        put(BL_KNOB_ADVISOR_MODE, "[none] scan-time");
        expect_found();
}

static void test_no_ksm(void **state)
{
        struct bl_ksm_figures f;

        (void)state;
        stop();
        (void)unlink(test_path(KSM "run"));
        start(test_root, NULL);
        assert_int_equal(bl_ksm_drive(t.ksm, &full), -ENODEV);
        assert_int_equal(bl_ksm_rest(t.ksm), -ENODEV);
        assert_int_equal(bl_ksm_look(t.ksm, &f), -ENODEV);
        assert_int_equal(bl_ksm_release(t.ksm), 0);
        assert_int_equal(bl_ledger_count_knobs(t.ledger), 0);
        expect_knob(BL_KNOB_PAGES_TO_SCAN, "100");
}

/* --- somebody else ------------------------------------------------------------------------ */

static void foreign(enum bl_knob changed, const char *value, bool by_look)
{
        drive();
        put(changed, value);
        if (by_look)
                assert_int_equal(look(), 0);
        else
                assert_int_equal(bl_ksm_rest(t.ksm), -EBUSY);
        assert_int_equal(t.yields, 1);
        assert_string_equal(t.knob, bl_knob_path(changed));
        assert_true(bl_ksm_yielded(t.ksm));
        assert_false(bl_ksm_driven(t.ksm));
        assert_non_null(strstr(bl_ksm_yield_reason(t.ksm), t.knob));
        /* theirs stays, all others are as they were */
        expect_knob(changed, value);
        put(changed, found[changed]);
        expect_found();
        put(changed, value);
        assert_int_equal(bl_ledger_count_knobs(t.ledger), 0);
        assert_int_equal(bl_ksm_drive(t.ksm, &full), -EBUSY);
        assert_int_equal(bl_ksm_rest(t.ksm), -EBUSY);
        assert_int_equal(look(), 0);
        assert_int_equal(bl_ksm_release(t.ksm), 0);
        expect_knob(changed, value);
        assert_int_equal(t.yields, 1);
        /* ours again: what is there now is what is put back */
        bl_ksm_take_again(t.ksm);
        assert_false(bl_ksm_yielded(t.ksm));
        assert_null(bl_ksm_yield_reason(t.ksm));
        drive();
        expect_knob(BL_KNOB_RUN, "1");
        assert_true(bl_ksm_release(t.ksm) > 0);
        expect_knob(changed, changed == BL_KNOB_RUN ? "0" : value);
        put(changed, found[changed]);
        expect_found();
        t.yields = 0;
}

static void test_foreign(void **state)
{
        static const struct {
                enum bl_knob k;
                const char *value;
        } table[] = {
                {BL_KNOB_MAX_PTES_SHARED, "100"},
                {BL_KNOB_MAX_PTES_NONE, "7"},
                {BL_KNOB_ADVISOR_MODE, "scan-time"},
                {BL_KNOB_USE_ZERO_PAGES, "0"},
                {BL_KNOB_SMART_SCAN, "1"},
                {BL_KNOB_SLEEP_MILLISECS, "10"},
                {BL_KNOB_PAGES_TO_SCAN, "1250"},
                {BL_KNOB_PAGES_TO_SCAN, "100"},
                {BL_KNOB_RUN, "0"},
                {BL_KNOB_RUN, "2"},
                {BL_KNOB_MAX_PTES_SHARED, "256"},
        };

        (void)state;
        for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
                foreign(table[i].k, table[i].value, true);
                foreign(table[i].k, table[i].value, false);
        }
}

static void test_foreign_text(void **state)
{
        (void)state;
        drive();
        put(BL_KNOB_PAGES_TO_SCAN, "1250");
        assert_int_equal(look(), 0);
        assert_string_equal(t.ours, "200");
        assert_string_equal(t.now, "1250");
        assert_string_equal(bl_ksm_yield_reason(t.ksm),
                            "somebody changed ksm/pages_to_scan from 200 to 1250 (ksmtuned, tuned, an administrator); "
                            "KSM is left to them");
}

/* While no daemon ran. */
static void test_foreign_meanwhile(void **state)
{
        (void)state;
        drive();
        stop();
        put(BL_KNOB_RUN, "0");
        start(test_root, NULL);
        assert_false(bl_ksm_driven(t.ksm));
        assert_int_equal(bl_ksm_drive(t.ksm, &full), -EBUSY);
        assert_int_equal(t.yields, 1);
        expect_found();
}

/* Knobs that happened to be right already are watched too: an advisor that is switched on later. */
static void test_foreign_unwritten(void **state)
{
        (void)state;
        drive();
        put(BL_KNOB_ADVISOR_MODE, "none [scan-time]");
        put(BL_KNOB_PAGES_TO_SCAN, "500");
        assert_int_equal(look(), 0);
        assert_true(bl_ksm_yielded(t.ksm));
        assert_string_equal(t.knob, "ksm/advisor_mode");
        assert_string_equal(t.ours, "none");
        assert_string_equal(t.now, "scan-time");
        expect_knob(BL_KNOB_PAGES_TO_SCAN, "500");
        expect_knob(BL_KNOB_RUN, "0");
}

/* --- what fails ------------------------------------------------------------------------------ */

static void test_cannot_save(void **state)
{
        (void)state;
        t.fail_at = 1;
        assert_int_equal(bl_ksm_drive(t.ksm, &full), -ENOSPC);
        expect_found();
        assert_int_equal(bl_ledger_count_knobs(t.ledger), 0);
        assert_false(bl_ksm_driven(t.ksm));
        drive();
        t.saves = 0;
        assert_int_equal(bl_ksm_rest(t.ksm), -ENOSPC);
        expect_knob(BL_KNOB_RUN, "1");
        assert_true(bl_ksm_driven(t.ksm));
        assert_int_equal(look(), 0);
        assert_int_equal(t.yields, 0);
        /* knobs go back whatever becomes of the ledger */
        t.saves = 0;
        assert_int_equal(bl_ksm_release(t.ksm), 7);
        expect_found();
}

/* Root may write to any file: so it is a directory, which nobody can. */
static void break_knob(enum bl_knob k, bool broken)
{
        char path[PATH_MAX];

        snprintf(path, sizeof path, "%s", test_path(sys_path(k)));
        if (broken) {
                /* readable, and not to be opened for writing: O_NOFOLLOW */
                char target[PATH_MAX + 16];

                snprintf(target, sizeof target, "%s.target", path);
                assert_int_equal(rename(path, target), 0);
                assert_int_equal(symlink(target, path), 0);
        } else {
                assert_int_equal(unlink(path), 0);
                put(k, found[k]);
        }
}

static void test_cannot_write(void **state)
{
        (void)state;
        /* half way through: what was written is known, nothing after it was */
        break_knob(BL_KNOB_SLEEP_MILLISECS, true);
        assert_int_equal(bl_ksm_drive(t.ksm, &full), -ELOOP);
        assert_false(bl_ksm_driven(t.ksm));
        expect_knob(BL_KNOB_MAX_PTES_SHARED, "0");
        expect_knob(BL_KNOB_SMART_SCAN, "0");
        expect_knob(BL_KNOB_PAGES_TO_SCAN, "100");
        expect_knob(BL_KNOB_RUN, "0");
        assert_string_equal(bl_ledger_find_knob(t.ledger, "ksm/smart_scan")->was, "1");
        assert_null(bl_ledger_find_knob(t.ledger, "ksm/smart_scan")->before);
        assert_null(bl_ledger_find_knob(t.ledger, "ksm/sleep_millisecs"));
        assert_null(bl_ledger_find_knob(t.ledger, "ksm/run"));
        assert_int_equal(look(), 0);
        assert_int_equal(t.yields, 0);
        assert_int_equal(bl_ksm_release(t.ksm), 4);
        break_knob(BL_KNOB_SLEEP_MILLISECS, false);
        expect_found();
        /* and back: the others go back, it stays known, and goes with the next try */
        drive();
        break_knob(BL_KNOB_SLEEP_MILLISECS, true);
        assert_int_equal(bl_ksm_release(t.ksm), -ELOOP);
        expect_knob(BL_KNOB_RUN, "0");
        expect_knob(BL_KNOB_MAX_PTES_SHARED, "256");
        assert_int_equal(bl_ledger_count_knobs(t.ledger), 1);
        assert_true(bl_ksm_holds(t.ksm));
        break_knob(BL_KNOB_SLEEP_MILLISECS, false);
        put(BL_KNOB_SLEEP_MILLISECS, "0");
        assert_int_equal(bl_ksm_release(t.ksm), 1);
        expect_found();
        assert_false(bl_ksm_holds(t.ksm));
}

static void test_errors(void **state)
{
        (void)state;
        assert_non_null(strstr(bl_ksm_error(-EROFS), "read-only"));
        assert_non_null(strstr(bl_ksm_error(-EROFS), "ReadWritePaths="));
        assert_non_null(strstr(bl_ksm_error(-EACCES), "root"));
        assert_non_null(strstr(bl_ksm_error(-ENODEV), "CONFIG_KSM"));
        assert_string_equal(bl_ksm_error(-ENOSPC), strerror(ENOSPC));
}

/* --- killed ------------------------------------------------------------------------------------ */

static void drive_and_rest_and_release(void)
{
        drive();
        assert_int_equal(bl_ksm_rest(t.ksm), 0);
        assert_int_equal(bl_ksm_drive(t.ksm, &modest), 0);
        assert_true(bl_ksm_release(t.ksm) > 0);
}

/* In a child that dies there; false: it came to its end. */
static bool die_at(int before, int after, const char *fault)
{
        int status;
        pid_t pid;

        stop();
        pid = fork();
        if (pid == 0) {
                start(test_root, NULL);
                t.die_before = before;
                t.die_after = after;
                if (fault)
                        (void)bl_fault_set(fault);
                drive_and_rest_and_release();
                _exit(0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (WIFEXITED(status))
                assert_int_equal(WEXITSTATUS(status), 0);
        return WIFSIGNALED(status);
}

/* A successor finds what it left, and goes on, or puts it back; nothing is taken for somebody else's. */
static void check_after(void)
{
        char *message = NULL;

        start(test_root, NULL);
        assert_int_equal(look(), 0);
        assert_int_equal(t.yields, 0);
        drive();
        expect_driven();
        assert_true(bl_ksm_release(t.ksm) > 0);
        expect_found();
        stop();
        assert_int_equal(bl_ksm_restore_host(test_root, state_dir(), &message), 0);
        assert_null(message);
        start(test_root, NULL);
}

static void check_restore(void)
{
        char *message = NULL;

        assert_true(bl_ksm_restore_host(test_root, state_dir(), &message) >= 0);
        assert_null(message);
        expect_found();
        start(test_root, NULL);
        assert_int_equal(bl_ledger_count_knobs(t.ledger), 0);
}

static void test_killed(void **state)
{
        int died = 0;

        (void)state;
        for (int i = 1, alive = 0; alive < 4; i++)
                for (int way = 0; way < 4; way++) {
                        if (!die_at(way & 1 ? i : 0, way & 1 ? 0 : i, NULL)) {
                                alive++;
                                start(test_root, NULL);
                                expect_found();
                                continue;
                        }
                        died++;
                        if (way & 2)
                                check_after();
                        else
                                check_restore();
                }
        /* each of the writes above is written down before and after */
        assert_in_range(died, 4 * 8, 4 * 32);
}

/* Killed after the j-th write of a drive: the file knows of all of them. */
static void test_killed_half_way(void **state)
{
        static const char *const driven[_BL_KNOB_MAX] = {
                [BL_KNOB_MAX_PTES_SHARED] = "0",
                [BL_KNOB_MAX_PTES_NONE] = "0",
                [BL_KNOB_USE_ZERO_PAGES] = "1",
                [BL_KNOB_SMART_SCAN] = "0",
                [BL_KNOB_SLEEP_MILLISECS] = "0",
                [BL_KNOB_PAGES_TO_SCAN] = "200",
                [BL_KNOB_RUN] = "1",
        };

        (void)state;
        for (int j = 0; j <= _BL_KNOB_MAX; j++)
                for (int way = 0; way < 2; way++) {
                        assert_true(die_at(0, 1, NULL));
                        expect_found();
                        for (int k = 0; k < j; k++)
                                if (driven[k])
                                        put((enum bl_knob)k, driven[k]);
                        if (way)
                                check_after();
                        else
                                check_restore();
                }
}

#ifdef BALLAST_FAULTS /* make FAULTS=1 */
static void test_fault_points(void **state)
{
        static const char *const points[] = {"knob-before-write", "knob-written", "knob-put-back"};
        char rule[64];
        int died = 0;

        (void)state;
        for (size_t p = 0; p < sizeof points / sizeof *points; p++)
                for (int n = 1, way = 0; n < 32; n += way, way = !way) {
                        snprintf(rule, sizeof rule, "kill@%s:%d", points[p], n);
                        if (!die_at(0, 0, rule)) {
                                start(test_root, NULL);
                                break;
                        }
                        died++;
                        if (way)
                                check_after();
                        else
                                check_restore();
                }
        assert_true(died > 30);
        /* a write that fails at any knob: what is known is what is there */
        for (int n = 1; n <= 7; n++) {
                snprintf(rule, sizeof rule, "fail@knob-written:%d", n);
                assert_int_equal(bl_fault_set(rule), 0);
                assert_int_equal(bl_ksm_drive(t.ksm, &full), -EIO);
                assert_int_equal(bl_fault_set(NULL), 0);
                assert_int_equal(look(), 0);
                assert_int_equal(t.yields, 0);
                assert_int_equal(bl_ksm_release(t.ksm), n);
                expect_found();
        }
}
#endif

/* --- another boot, and no daemon -------------------------------------------------------------------- */

static void test_other_boot(void **state)
{
        (void)state;
        drive();
        stop();
        for (int k = 0; k < _BL_KNOB_MAX; k++)
                put((enum bl_knob)k, found[k]);
        put(BL_KNOB_PAGES_TO_SCAN, "333");
        start(test_root, "another-boot");
        assert_false(bl_ksm_holds(t.ksm));
        assert_int_equal(look(), 0);
        assert_int_equal(t.yields, 0);
        assert_int_equal(bl_ksm_release(t.ksm), 0);
        expect_knob(BL_KNOB_PAGES_TO_SCAN, "333");
}

static void test_restore_host(void **state)
{
        char *message = NULL;

        (void)state;
        drive();
        /* a daemon is at work */
        assert_int_equal(bl_ksm_restore_host(test_root, state_dir(), &message), -EBUSY);
        assert_non_null(strstr(message, "another ballastd"));
        free(message);
        expect_driven();
        stop();
        put(BL_KNOB_PAGES_TO_SCAN, "1250");
        message = NULL;
        /* what somebody changed since stays */
        assert_int_equal(bl_ksm_restore_host(test_root, state_dir(), &message), 6);
        assert_null(message);
        expect_knob(BL_KNOB_PAGES_TO_SCAN, "1250");
        put(BL_KNOB_PAGES_TO_SCAN, "100");
        expect_found();
        assert_int_equal(bl_ksm_restore_host(test_root, state_dir(), &message), 0);
        assert_int_equal(bl_ksm_restore_host(test_root, "/none/such", &message), 0);
        assert_null(message);
        start(test_root, NULL);
}

/* The next daemon must not take an empty ledger for the truth. */
static void test_restore_damaged(void **state)
{
        char *message = NULL;

        (void)state;
        drive();
        stop();
        test_write("/state/ledger.json", "{\"version\"");
        assert_int_equal(bl_ksm_restore_host(test_root, state_dir(), &message), 0);
        assert_non_null(strstr(message, "is damaged"));
        free(message);
        expect_driven();
        start(test_root, NULL);
        assert_false(bl_ledger_trusted(t.ledger));
}

/* --- the machine's ------------------------------------------------------------------------------------- */

#define PAGES 4096

static char *memory;
static pid_t twins[2];

/* A process whose pages are as the other's. */
static pid_t twin(int ready)
{
        pid_t pid = fork();

        if (pid != 0)
                return pid;
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)madvise(memory, PAGES * 4096, MADV_NOHUGEPAGE);
        for (uint64_t p = 0, x = 0x9e3779b97f4a7c15U; p < PAGES; p++)
                for (uint64_t w = 0; w < 512; w++) {
                        x ^= x << 13;
                        x ^= x >> 7;
                        x ^= x << 17;
                        ((uint64_t *)(void *)memory)[p * 512 + w] = x;
                }
        (void)madvise(memory, PAGES * 4096, MADV_MERGEABLE);
        (void)!write(ready, "x", 1);
        for (;;)
                (void)pause();
}

static uint64_t merged(pid_t pid)
{
        struct bl_ksm_process p;
        char path[64];
        int fd;

        snprintf(path, sizeof path, "/proc/%d", (int)pid);
        fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        assert_true(fd >= 0);
        assert_int_equal(bl_ksm_process_read(fd, &p), 0);
        close(fd);
        return p.merging;
}

static usec_t ksmd_cpu(void)
{
        struct bl_ksm_figures f;

        assert_int_equal(bl_ksm_look(t.ksm, &f), 0);
        return f.ksmd_cpu;
}

static uint64_t full_scans(void)
{
        struct bl_ksm_figures f;

        assert_int_equal(bl_ksm_look(t.ksm, &f), 0);
        return f.full_scans;
}

static void all_knobs(char text[_BL_KNOB_MAX][BL_KNOB_TEXT])
{
        for (int k = 0; k < _BL_KNOB_MAX; k++)
                if (bl_knob_read(NULL, (enum bl_knob)k, text[k]) < 0)
                        text[k][0] = '\0';
}

static void test_real(void **state)
{
        char before[_BL_KNOB_MAX][BL_KNOB_TEXT], after[_BL_KNOB_MAX][BL_KNOB_TEXT];
        int lock, ready[2];
        pid_t *const pid = twins;
        usec_t cpu, longest = 0;
        uint64_t passes;
        char c;

        (void)state;
        if (access(KSM "run", W_OK) < 0)
                skip();
        /* there is one KSM, and others who use it */
        lock = open("/tmp/ksm.lock", O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        assert_true(lock >= 0);
        assert_int_equal(flock(lock, LOCK_EX), 0);
        all_knobs(before);
        stop();
        start(NULL, NULL);

        memory = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_ptr_not_equal(memory, MAP_FAILED);
        assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
        for (int i = 0; i < 2; i++)
                pid[i] = twin(ready[1]);
        for (int i = 0; i < 2; i++)
                assert_int_equal(read(ready[0], &c, 1), 1);

        drive();
        passes = full_scans();
        for (int i = 0; i < 600 && merged(pid[0]) + merged(pid[1]) < 2 * PAGES; i++) {
                usec_t begin;

                usleep(50 * 1000);
                if (i % 10 != 9)
                        continue;
                /* stopping and going on, in the middle of it */
                begin = bl_now();
                if (bl_ksm_rest(t.ksm) < 0)
                        fail_msg("%s", bl_ksm_yield_reason(t.ksm));
                longest = bl_max(longest, bl_now() - begin);
                drive();
        }
        /* two passes are enough, begun and ended; where guests of other tests keep ksmd busy they may take long */
        if (merged(pid[0]) + merged(pid[1]) < 2 * PAGES && full_scans() - passes < 4)
                skip();
        assert_int_equal(merged(pid[0]), PAGES);
        assert_int_equal(merged(pid[1]), PAGES);
        assert_int_equal(bl_ksm_rest(t.ksm), 0);
        cpu = ksmd_cpu();
        usleep(300 * 1000);
        if (cpu != BL_UNSET)
                assert_in_range(ksmd_cpu() - cpu, 0, 1000);
        assert_int_equal(merged(pid[0]), PAGES);
        if (t.yields > 0)
                fail_msg("%s", bl_ksm_yield_reason(t.ksm));
        /* a batch is below 100 ms; a busy machine may make us wait for a CPU too */
        assert_in_range(longest, 0, BL_SEC);

        assert_true(bl_ksm_release(t.ksm) > 0);
        all_knobs(after);
        for (int k = 0; k < _BL_KNOB_MAX; k++)
                assert_string_equal(after[k], before[k]);
        close(ready[0]);
        close(ready[1]);
        close(lock);
}

/* Whatever became of it, the machine is as it was. */
static int real_teardown(void **state)
{
        int r = bl_ksm_release(t.ksm);

        for (int i = 0; i < 2; i++)
                if (twins[i] > 0) {
                        kill(twins[i], SIGKILL);
                        (void)waitpid(twins[i], NULL, 0);
                }
        if (memory)
                munmap(memory, PAGES * 4096);
        return teardown(state) < 0 || r < 0 ? -1 : 0;
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_life, setup, teardown),
                cmocka_unit_test_setup_teardown(test_ledger_first, setup, teardown),
                cmocka_unit_test_setup_teardown(test_ran_before, setup, teardown),
                cmocka_unit_test_setup_teardown(test_never_unmerges, setup, teardown),
                cmocka_unit_test_setup_teardown(test_host_knobs, setup, teardown),
                cmocka_unit_test_setup_teardown(test_no_thp, setup, teardown),
                cmocka_unit_test_setup_teardown(test_smart_scan, setup, teardown),
                cmocka_unit_test_setup_teardown(test_max_page_sharing, setup, teardown),
                cmocka_unit_test_setup_teardown(test_cpu, setup, teardown),
                cmocka_unit_test_setup_teardown(test_missing, setup, teardown),
                cmocka_unit_test_setup_teardown(test_no_ksm, setup, teardown),
                cmocka_unit_test_setup_teardown(test_foreign, setup, teardown),
                cmocka_unit_test_setup_teardown(test_foreign_text, setup, teardown),
                cmocka_unit_test_setup_teardown(test_foreign_meanwhile, setup, teardown),
                cmocka_unit_test_setup_teardown(test_foreign_unwritten, setup, teardown),
                cmocka_unit_test_setup_teardown(test_cannot_save, setup, teardown),
                cmocka_unit_test_setup_teardown(test_cannot_write, setup, teardown),
                cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
                cmocka_unit_test_setup_teardown(test_killed, setup, teardown),
                cmocka_unit_test_setup_teardown(test_killed_half_way, setup, teardown),
#ifdef BALLAST_FAULTS
                cmocka_unit_test_setup_teardown(test_fault_points, setup, teardown),
#endif
                cmocka_unit_test_setup_teardown(test_other_boot, setup, teardown),
                cmocka_unit_test_setup_teardown(test_restore_host, setup, teardown),
                cmocka_unit_test_setup_teardown(test_restore_damaged, setup, teardown),
                cmocka_unit_test_setup_teardown(test_real, setup, real_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
