/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <unistd.h>

#include <ballast/cleanup.h>

#include "daemon/sense/pss.h"
#include "daemon/sense/resident.h"
#include "tests/unit/test-host-util.h"

#define PID 808

static void test_a_real_qemu(void **state)
{
        _cleanup_(bl_resident_freep) struct bl_resident *r = NULL;
        uint64_t bound = 7;
        struct bl_pss p;

        (void)state;
        assert_int_equal(bl_pss_measure(HOST_FIXTURE, PID, 0, &p), 0);
        assert_int_equal(p.rss, 288500 * BL_KIB);
        assert_int_equal(p.pss, 286805 * BL_KIB);
        assert_int_equal(p.anon, 276888 * BL_KIB);
        assert_int_equal(p.ksm, 0);
        /* its shared text is no saving of page sharing */
        assert_int_equal(bl_pss_saved(&p), 0);
        assert_int_equal(bl_pss_measure(HOST_FIXTURE, PID, 1, &p), -ESRCH);
        assert_int_equal(bl_pss_measure(HOST_FIXTURE, 5, 0, &p), -ESRCH);

        assert_int_equal(bl_resident_open(HOST_FIXTURE, PID, 0, &r), 0);
        assert_int_equal(bl_pss_bound(bl_resident_dirfd(r), &bound), 0);
        assert_int_equal(bound, 0);
}

static void test_ourselves(void **state)
{
        struct bl_pss p;

        (void)state;
        assert_int_equal(bl_pss_measure("/", getpid(), 0, &p), 0);
        assert_true(p.rss > 0 && p.pss > 0);
}

static void test_parse(void **state)
{
        struct bl_pss p = {.rss = 7};

        (void)state;
        /* merged: 100 MiB of it are shared with another VM */
        assert_int_equal(
                bl_pss_parse("Rss: 1024000 kB\nPss: 970000 kB\nPss_Anon: 960000 kB\nAnonymous: 1011200 kB\n", &p), 0);
        assert_int_equal(bl_pss_saved(&p), 51200 * BL_KIB);
        assert_int_equal(p.ksm, BL_UNSET);
        /* an old kernel: nothing is claimed */
        assert_int_equal(bl_pss_parse("Rss: 1024000 kB\nPss: 970000 kB\nAnonymous: 1011200 kB\n", &p), 0);
        assert_int_equal(bl_pss_saved(&p), 0);

        p.rss = 7;
        assert_int_equal(bl_pss_parse("", &p), -EBADMSG);
        assert_int_equal(bl_pss_parse("Rss: 10 kB\n", &p), -EBADMSG);
        assert_int_equal(bl_pss_parse("Rss: 10 kB\nPss: 9 kB\nAnonymous: x kB\n", &p), -EBADMSG);
        assert_int_equal(p.rss, 7);
}

static void test_pacing(void **state)
{
        const struct bl_pss cheap = {.anon = BL_GIB, .pss_anon = BL_GIB, .cost = BL_MSEC};
        const struct bl_pss dear = {.anon = 8 * BL_GIB, .pss_anon = 6 * BL_GIB, .cost = 160 * BL_MSEC};
        struct bl_pss_pace p = {0};
        usec_t now = 100 * BL_SEC;

        (void)state;
        assert_true(bl_pss_due(&p, BL_GIB, 0, now));
        p.busy = true;
        assert_false(bl_pss_due(&p, BL_GIB, 0, now));
        bl_pss_note(&p, &cheap, BL_UNSET, 8, now);
        assert_false(p.busy);
        assert_false(bl_pss_due(&p, BL_GIB, 0, now + 9 * BL_SEC));
        assert_true(bl_pss_due(&p, BL_GIB, 0, now + 10 * BL_SEC));

        /* one that stands still is measured every five minutes, unless it is doubted */
        bl_pss_note(&p, &cheap, BL_MIB, 8, now);
        assert_false(bl_pss_due(&p, BL_GIB, BL_MIB, now + 299 * BL_SEC));
        assert_true(bl_pss_due(&p, BL_GIB, BL_MIB, now + 300 * BL_SEC));
        p.doubted = true;
        assert_false(bl_pss_due(&p, BL_GIB, BL_MIB, now + 9 * BL_SEC));
        assert_true(bl_pss_due(&p, BL_GIB, BL_MIB, now + 10 * BL_SEC));
        bl_pss_note(&p, &cheap, BL_MIB, 8, now);
        assert_true(bl_pss_due(&p, BL_GIB, 2 * BL_MIB, now + 10 * BL_SEC));
        assert_true(bl_pss_due(&p, BL_GIB, 0, now + 10 * BL_SEC));
        assert_true(bl_pss_due(&p, BL_GIB, BL_UNSET, now + 10 * BL_SEC));
        assert_true(bl_pss_due(&p, BL_GIB - 30 * BL_MIB, BL_MIB, now + 10 * BL_SEC));
        assert_false(bl_pss_due(&p, BL_GIB - 10 * BL_MIB, BL_MIB, now + 10 * BL_SEC));

        /* 8 VMs of 8 GiB: each is measured so seldom that all cost 0.2 % */
        bl_pss_note(&p, &dear, 0, 8, now);
        assert_int_equal(p.next - now, 640 * BL_SEC);
        assert_true(8 * dear.cost * 1000 <= 2 * (p.next - now));
        bl_pss_note(&p, &dear, 0, 0, now);
        assert_int_equal(p.next - now, 80 * BL_SEC);

        p.busy = true;
        bl_pss_failed(&p, now);
        assert_false(p.busy);
        assert_true(p.next >= now + 10 * BL_SEC);
}

static void test_savings_are_never_more_than_likely(void **state)
{
        struct bl_pss_pace p = {0};

        (void)state;
        assert_int_equal(bl_pss_savings(&p, BL_GIB, BL_UNSET), 0);
        bl_pss_note(&p, &(struct bl_pss){.anon = 4 * BL_GIB, .pss_anon = 3 * BL_GIB}, 0, 1, BL_SEC);
        assert_int_equal(bl_pss_savings(&p, 4 * BL_GIB, BL_UNSET), BL_GIB);
        assert_int_equal(bl_pss_savings(&p, 6 * BL_GIB, BL_UNSET), BL_GIB);
        assert_int_equal(bl_pss_savings(&p, 2 * BL_GIB, BL_UNSET), BL_GIB / 2);
        assert_int_equal(bl_pss_savings(&p, 0, BL_UNSET), 0);
        /* KSM has let go since */
        assert_int_equal(bl_pss_savings(&p, 4 * BL_GIB, 100 * BL_MIB), 100 * BL_MIB);
        assert_int_equal(bl_pss_savings(&p, 4 * BL_GIB, 0), 0);
}

static void test_bound_of_hostile_files(void **state)
{
        static const char *const bad[] = {"", "\n", "x\n", "-1\n", "12", "1234567890123456789012345678901234567890\n"};
        _cleanup_(bl_resident_freep) struct bl_resident *r = NULL;
        uint64_t bound = 7;

        (void)state;
        test_write("/proc/5/status", "Name:\tx\n");
        test_write("/proc/5/stat", "5 (x) S 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23\n");
        assert_int_equal(bl_resident_open(test_root, 5, 0, &r), 0);
        assert_int_equal(bl_pss_bound(bl_resident_dirfd(r), &bound), -ENOENT);
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
                test_write("/proc/5/ksm_merging_pages", bad[i]);
                assert_int_equal(bl_pss_bound(bl_resident_dirfd(r), &bound), -EBADMSG);
        }
        assert_int_equal(bound, 7);
        test_write("/proc/5/ksm_merging_pages", "3\n");
        assert_int_equal(bl_pss_bound(bl_resident_dirfd(r), &bound), 0);
        assert_int_equal(bound, 3 * (uint64_t)sysconf(_SC_PAGESIZE));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_real_qemu),
                cmocka_unit_test(test_ourselves),
                cmocka_unit_test(test_parse),
                cmocka_unit_test(test_pacing),
                cmocka_unit_test(test_savings_are_never_more_than_likely),
                cmocka_unit_test_setup_teardown(test_bound_of_hostile_files, test_root_make, test_root_remove),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
