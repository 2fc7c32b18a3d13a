/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/test-host-util.h"

#include <errno.h>
#include <fcntl.h>

#include "daemon/sense/ksm.h"

#define KSM        "/sys/kernel/mm/ksm/"
#define KHUGEPAGED "/sys/kernel/mm/transparent_hugepage/khugepaged/"

/* 6.18 */
static void make_host(void)
{
        test_write(KSM "run", "1\n");
        test_write(KSM "full_scans", "7\n");
        test_write(KSM "pages_shared", "1000\n");
        test_write(KSM "pages_sharing", "5000\n");
        test_write(KSM "pages_unshared", "20\n");
        test_write(KSM "pages_volatile", "3\n");
        test_write(KSM "ksm_zero_pages", "44\n");
        test_write(KSM "pages_scanned", "123456789012\n");
        test_write(KSM "pages_skipped", "99\n");
        test_write(KHUGEPAGED "pages_collapsed", "12\n");
        test_write("/proc/vmstat", "pswpin 1\ncow_ksm 321\npswpout 2\n");
        /* a program that calls itself so, before the thread of the kernel */
        test_write("/proc/20/stat", "20 (ksmd) S 1 20 20 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 25 0 0\n");
        test_write("/proc/20/schedstat", "1 1 1\n");
        test_write("/proc/36/stat", "36 (ksmd) S 2 0 0 0 -1 2097216 0 0 0 0 0 15044 0 0 25 5 1 0 25 0 0\n");
        test_write("/proc/36/schedstat", "150449803314 24151339712 27506\n");
        test_write("/proc/37/stat", "37 (khugepaged) S 2 0 0 0 -1 2097216 0 0 0 0 1 343 0 0 39 19 1 0 25 0 0\n");
        test_write("/proc/37/schedstat", "3440907090 217504311538 7554\n");
}

static void test_figures(void **state)
{
        struct bl_ksm_sensor *s = NULL;
        struct bl_ksm_figures f;

        (void)state;
        make_host();
        assert_int_equal(bl_ksm_sensor_new(test_root, &s), 0);
        assert_int_equal(bl_ksm_sensor_read(s, &f), 0);
        assert_true(f.there);
        assert_int_equal(f.run, 1);
        assert_int_equal(f.full_scans, 7);
        assert_int_equal(f.pages_shared, 1000);
        assert_int_equal(f.pages_sharing, 5000);
        assert_int_equal(f.pages_unshared, 20);
        assert_int_equal(f.pages_volatile, 3);
        assert_int_equal(f.zero_pages, 44);
        assert_int_equal(f.pages_scanned, UINT64_C(123456789012));
        assert_int_equal(f.pages_skipped, 99);
        assert_int_equal(f.cow, 321);
        assert_int_equal(f.ksmd_cpu, 150449803);
        assert_int_equal(f.khugepaged_cpu, 3440907);
        assert_int_equal(f.collapsed, 12);
        /* read anew each time */
        test_write(KSM "full_scans", "8\n");
        test_write("/proc/36/schedstat", "150450803314 24151339712 27507\n");
        assert_int_equal(bl_ksm_sensor_read(s, &f), 0);
        assert_int_equal(f.full_scans, 8);
        assert_int_equal(f.ksmd_cpu, 150450803);
        assert_null(bl_ksm_sensor_free(s));
}

/* What a kernel does not have, or a container does not show, is not 0. */
static void test_older(void **state)
{
        struct bl_ksm_sensor *s = NULL;
        struct bl_ksm_figures f;

        (void)state;
        test_write(KSM "run", "0\n");
        test_write(KSM "pages_shared", "5\n");
        assert_int_equal(bl_ksm_sensor_new(test_root, &s), 0);
        assert_int_equal(bl_ksm_sensor_read(s, &f), 0);
        assert_true(f.there);
        assert_int_equal(f.pages_shared, 5);
        assert_int_equal(f.pages_skipped, BL_UNSET);
        assert_int_equal(f.zero_pages, BL_UNSET);
        assert_int_equal(f.cow, BL_UNSET);
        assert_int_equal(f.ksmd_cpu, BL_UNSET);
        assert_int_equal(f.khugepaged_cpu, BL_UNSET);
        (void)bl_ksm_sensor_free(s);
}

static void test_none(void **state)
{
        struct bl_ksm_sensor *s = NULL;
        struct bl_ksm_figures f = {.there = true};

        (void)state;
        assert_int_equal(bl_ksm_sensor_new(test_root, &s), 0);
        assert_int_equal(bl_ksm_sensor_read(s, &f), -ENODEV);
        assert_false(f.there);
        (void)bl_ksm_sensor_free(s);
        assert_null(bl_ksm_sensor_free(NULL));
}

static int process(struct bl_ksm_process *ret)
{
        int fd = open(test_path("/proc/808"), O_PATH | O_DIRECTORY | O_CLOEXEC), r;

        assert_true(fd >= 0);
        r = bl_ksm_process_read(fd, ret);
        close(fd);
        return r;
}

static void test_process(void **state)
{
        struct bl_ksm_process p = {0};

        (void)state;
        test_write("/proc/808/stat", "808 (qemu) S 1 808 808 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 25 0 0\n");
        assert_int_equal(process(&p), -ENOENT);
        test_write("/proc/808/ksm_merging_pages", "77\n");
        assert_int_equal(process(&p), 0);
        assert_int_equal(p.merging, 77);
        assert_int_equal(p.zero, BL_UNSET);
        assert_int_equal(p.rmap_items, BL_UNSET);
        assert_int_equal(p.mergeable, -1);
        /* 6.1 */
        test_write("/proc/808/ksm_stat", "ksm_rmap_items 101311\n");
        assert_int_equal(process(&p), 0);
        assert_int_equal(p.merging, 77);
        assert_int_equal(p.rmap_items, 101311);
        assert_int_equal(p.zero, BL_UNSET);
        /* 6.18; its profit may be a loss */
        test_write("/proc/808/ksm_stat", "ksm_rmap_items 101311\nksm_zero_pages 6\nksm_merging_pages 86789\n"
                                         "ksm_process_profit -6483904\nksm_merge_any: no\nksm_mergeable: yes\n");
        assert_int_equal(process(&p), 0);
        assert_int_equal(p.merging, 86789);
        assert_int_equal(p.zero, 6);
        assert_int_equal(p.mergeable, 1);
        test_write("/proc/808/ksm_stat", "ksm_rmap_items 0\nksm_zero_pages 0\nksm_merging_pages 0\n"
                                         "ksm_process_profit 0\nksm_merge_any: no\nksm_mergeable: no\n");
        assert_int_equal(process(&p), 0);
        assert_int_equal(p.mergeable, 0);
        test_write("/proc/808/ksm_merging_pages", "many\n");
        assert_int_equal(process(&p), -EBADMSG);
        assert_int_equal(p.merging, 0);
        test_write("/proc/808/ksm_merging_pages", "1\n");
        test_write("/proc/808/ksm_stat", "ksm_rmap_items x\n");
        assert_int_equal(process(&p), -EBADMSG);
}

/* One that has ended shows nothing at all. */
static void test_ended(void **state)
{
        struct bl_ksm_process p;

        (void)state;
        test_write("/proc/808/cmdline", "");
        assert_int_equal(process(&p), -ESRCH);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_figures, test_root_make, test_root_remove),
                cmocka_unit_test_setup_teardown(test_older, test_root_make, test_root_remove),
                cmocka_unit_test_setup_teardown(test_none, test_root_make, test_root_remove),
                cmocka_unit_test_setup_teardown(test_process, test_root_make, test_root_remove),
                cmocka_unit_test_setup_teardown(test_ended, test_root_make, test_root_remove),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
