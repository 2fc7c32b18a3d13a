/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>

#include "daemon/sense/meminfo.h"
#include "tests/unit/test-host-util.h"

static void test_a_real_host(void **state)
{
        struct bl_reader r = BL_READER_INIT;
        struct bl_meminfo m;

        (void)state;
        assert_int_equal(bl_meminfo_open(&r, HOST_FIXTURE), 0);
        assert_int_equal(bl_meminfo_read(&r, &m), 0);
        bl_reader_close(&r);
        assert_int_equal(m.mem_total, 24684084 * BL_KIB);
        assert_true(m.mem_free < m.mem_total && m.mem_available < m.mem_total);
        assert_int_equal(m.swap_total, 0);
        assert_int_equal(m.swap_free, 0);
        assert_int_equal(m.zswap, 0);
        /* all that this kernel says was found */
        assert_true(m.anon_pages != BL_UNSET && m.shmem != BL_UNSET && m.mlocked != BL_UNSET);
        assert_true(m.s_reclaimable != BL_UNSET && m.hugetlb != BL_UNSET && m.buffers != BL_UNSET);
        assert_true(m.cached != BL_UNSET && m.swap_cached != BL_UNSET && m.zswapped != BL_UNSET);
}

static void test_missing_fields(void **state)
{
        struct bl_meminfo m;

        (void)state;
        assert_int_equal(bl_meminfo_parse("MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 500 kB\n", &m), 0);
        assert_int_equal(m.mem_available, 500 * 1024);
        assert_int_equal(m.swap_total, BL_UNSET);

        /* no MemAvailable: free, caches without shmem, half of the slabs */
        assert_int_equal(bl_meminfo_parse("MemTotal: 1000 kB\nMemFree: 100 kB\nBuffers: 10 kB\nCached: 200 kB\n"
                                          "Shmem: 50 kB\nSReclaimable: 20 kB\n",
                                          &m),
                         0);
        assert_int_equal(m.mem_available, (100 + 10 + 150 + 10) * 1024);
        assert_int_equal(bl_meminfo_parse("MemTotal: 1000 kB\nMemFree: 100 kB\nCached: 9999 kB\n", &m), 0);
        assert_int_equal(m.mem_available, 1000 * 1024);
}

static void test_hostile(void **state)
{
        static const char *const bad[] = {
                "",
                "hello\n",
                "MemTotal: 1000 kB\n",
                "MemFree: 1000 kB\n",
                "MemTotal: 0 kB\nMemFree: 0 kB\n",
                "MemTotal: 10 kB\nMemFree: 11 kB\n",
                "MemTotal: 10 kB\nMemFree: 5 kB\nMemAvailable: 11 kB\n",
                "MemTotal: ten kB\nMemFree: 5 kB\n",
                "MemTotal: 10 kB\nMemFree: -5 kB\n",
                "MemTotal: 10 kB\nMemFree: 99999999999999999999999 kB\n",
                "MemTotal: 10 kB\nMemFree: 18446744073709551614 kB\n",
                "MemTotal: 10 kB\nMemFree: 5",
        };
        struct bl_meminfo m = {.mem_total = 7};
        char *text, *big;

        (void)state;
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
                assert_int_equal(bl_meminfo_parse(bad[i], &m), -EBADMSG);
                assert_int_equal(m.mem_total, 7);
        }

        /* a real one, cut off anywhere: an error or a value that is whole, never a part of a number */
        assert_int_equal(bl_fs_read_alloc(HOST_FIXTURE "/proc/meminfo", 1 << 16, &text, NULL), 0);
        for (size_t len = strlen(text) - 1; len > 0; len--) {
                text[len] = '\0';
                if (bl_meminfo_parse(text, &m) == 0) {
                        assert_int_equal(m.mem_total, 24684084 * BL_KIB);
                        assert_true(m.swap_total == BL_UNSET || m.swap_total == 0);
                }
        }
        free(text);

        /* longer than any kernel's */
        big = malloc(1 << 20);
        assert_non_null(big);
        memset(big, 'x', 1 << 20);
        test_write_bytes("/proc/meminfo", big, 1 << 20);
        free(big);
        {
                struct bl_reader r = BL_READER_INIT;

                assert_int_equal(bl_meminfo_open(&r, test_root), 0);
                assert_int_equal(bl_meminfo_read(&r, &m), -EFBIG);
                bl_reader_close(&r);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_real_host),
                cmocka_unit_test(test_missing_fields),
                cmocka_unit_test_setup_teardown(test_hostile, test_root_make, test_root_remove),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
