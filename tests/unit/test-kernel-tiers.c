/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The host's swap, zram and zswap; where a VMM has its guest's memory; what it does. */
#include "tests/unit/test-host-util.h"

#include <errno.h>
#include <string.h>

#include <ballast/cleanup.h>

#include "daemon/sense/activity.h"
#include "daemon/sense/guest_ram.h"
#include "daemon/sense/kernel_tiers.h"

#define HEADING "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"

static void test_swaps(void **state)
{
        struct bl_kernel_tiers t = {0};
        char many[8192] = HEADING;

        (void)state;
        assert_int_equal(bl_swaps_parse(HEADING, &t), 0);
        assert_int_equal(t.n_swaps, 0);
        assert_int_equal(t.swap_size, 0);
        assert_int_equal(bl_swaps_parse(HEADING
                                        "/dev/zram1                              partition\t262140\t\t4\t\t100\n"
                                        "/a\\040b\\134c\\012 file\t1024\t\t1024\t\t-2\n",
                                        &t),
                         0);
        assert_int_equal(t.n_swaps, 2);
        assert_string_equal(t.swaps[0].path, "/dev/zram1");
        assert_false(t.swaps[0].file);
        assert_int_equal(t.swaps[0].size, 262140 * BL_KIB);
        assert_int_equal(t.swaps[0].used, 4 * BL_KIB);
        assert_int_equal(t.swaps[0].priority, 100);
        assert_string_equal(t.swaps[1].path, "/a b\\c\n");
        assert_true(t.swaps[1].file);
        assert_int_equal(t.swaps[1].priority, -2);
        assert_int_equal(t.swap_size, (262140 + 1024) * BL_KIB);
        assert_int_equal(t.swap_used, 1028 * BL_KIB);
        /* more than are shown count */
        for (int i = 0; i < BL_SWAPS_MAX + 3; i++)
                strcat(many, "/s file 8 4 1\n");
        assert_int_equal(bl_swaps_parse(many, &t), 0);
        assert_int_equal(t.n_swaps, BL_SWAPS_MAX);
        assert_int_equal(t.swap_size, (BL_SWAPS_MAX + 3) * 8 * BL_KIB);
        /* nothing is changed by what is something else */
        assert_int_equal(bl_swaps_parse("", &t), -EBADMSG);
        assert_int_equal(bl_swaps_parse("Filename", &t), -EBADMSG);
        assert_int_equal(bl_swaps_parse(HEADING "/s file 8 4\n", &t), -EBADMSG);
        assert_int_equal(bl_swaps_parse(HEADING "/s file 8 4 1", &t), -EBADMSG);
        assert_int_equal(t.n_swaps, BL_SWAPS_MAX);
}

static void test_zram(void **state)
{
        struct bl_zram z = {0};
        char a[8];

        (void)state;
        assert_int_equal(
                bl_zram_parse("376901632 282368446 285937664        0 285937664     8089        0    55362\n", &z), 0);
        assert_int_equal(z.held, 376901632);
        assert_int_equal(z.compressed, 282368446);
        assert_int_equal(z.used, 285937664);
        assert_int_equal(z.same, 8089 * sysconf(_SC_PAGESIZE));
        assert_int_equal(bl_zram_parse("1 2 3", &z), -EBADMSG);
        bl_zram_algorithm("lzo-rle lzo [lz4] zstd\n", a, sizeof a);
        assert_string_equal(a, "lz4");
        bl_zram_algorithm("lzo [lz4-of-a-long-name]", a, sizeof a);
        assert_string_equal(a, "lz4-of-");
        bl_zram_algorithm("lzo lz4", a, sizeof a);
        assert_string_equal(a, "");
        bl_zram_algorithm("lzo [lz4", a, sizeof a);
        assert_string_equal(a, "");
}

static void test_read(void **state)
{
        struct bl_kernel_tiers t;

        (void)state;
        /* a kernel with nothing of all that */
        assert_int_equal(bl_kernel_tiers_read(test_root, &t), 0);
        assert_int_equal(t.n_swaps + t.n_zrams, 0);
        assert_false(t.zswap.there);
        assert_int_equal(bl_kernel_tiers_ram(&t), 0);

        test_write("/proc/swaps", HEADING "/dev/zram10 partition 262140 4 100\n");
        test_write("/sys/block/zram10/disksize", "268435456\n");
        test_write("/sys/block/zram10/mm_stat", "1000 500 700 0 0 2 0 0 0\n");
        test_write("/sys/block/zram10/comp_algorithm", "lzo [lz4]\n");
        test_write("/sys/block/zram2/disksize", "4096\n");
        test_write("/sys/block/zram2/mm_stat", "1 1 4096 0 0 0 0 0 0\n");
        test_write("/sys/block/zram0/disksize", "0\n"); /* not set up */
        test_write("/sys/block/zram0/mm_stat", "0 0 0 0 0 0 0 0 0\n");
        test_write("/sys/block/sda/size", "1\n");
        test_write("/sys/module/zswap/parameters/enabled", "Y\n");
        test_write("/sys/module/zswap/parameters/compressor", "lzo\n");
        test_write("/sys/module/zswap/parameters/max_pool_percent", "20\n");
        test_write("/proc/meminfo", "MemTotal: 1000 kB\nMemFree: 10 kB\nZswap: 3 kB\nZswapped: 9 kB\n");
        assert_int_equal(bl_kernel_tiers_read(test_root, &t), 0);
        assert_int_equal(t.n_swaps, 1);
        assert_int_equal(t.n_zrams, 2);
        assert_string_equal(t.zrams[0].name, "zram2");
        assert_string_equal(t.zrams[0].algorithm, "");
        assert_string_equal(t.zrams[1].name, "zram10");
        assert_string_equal(t.zrams[1].algorithm, "lz4");
        assert_int_equal(t.zrams[1].disksize, 268435456);
        assert_int_equal(t.zrams[1].used, 700);
        assert_true(t.zswap.there && t.zswap.enabled);
        assert_string_equal(t.zswap.compressor, "lzo");
        assert_int_equal(t.zswap.max_pool_percent, 20);
        assert_int_equal(t.zswap.used, 3 * BL_KIB);
        assert_int_equal(t.zswap.held, 9 * BL_KIB);
        assert_int_equal(bl_kernel_tiers_ram(&t), 700 + 4096 + 3 * BL_KIB);
        /* an older kernel does not count zswap */
        test_write("/proc/meminfo", "MemTotal: 1000 kB\nMemFree: 10 kB\n");
        test_write("/sys/module/zswap/parameters/enabled", "N\n");
        assert_int_equal(bl_kernel_tiers_read(test_root, &t), 0);
        assert_true(t.zswap.there && !t.zswap.enabled);
        assert_int_equal(t.zswap.used, BL_UNSET);
        assert_int_equal(bl_kernel_tiers_ram(&t), 700 + 4096);
        test_write("/proc/swaps", "what?\n");
        assert_int_equal(bl_kernel_tiers_read(test_root, &t), -EBADMSG);
}

/* --- guest RAM ---------------------------------------------------------------- */

static int ram_of(const char *maps, uint64_t size, struct bl_guest_ram *ret)
{
        _cleanup_fclose_ FILE *f = fmemopen((void *)(uintptr_t)maps, strlen(maps), "r");

        assert_non_null(f);
        return bl_guest_ram_parse(f, size, ret);
}

static void test_guest_ram(void **state)
{
        static const char one[] = "555500000000-555501000000 r-xp 00000000 fe:00 123 /usr/bin/qemu-system-x86_64\n"
                                  "7f0000000000-7f0020000000 rw-p 00000000 00:00 0 \n"
                                  "7f1000000000-7f1040000000 r--p 00000000 00:00 0 \n" /* not written to: not RAM */
                                  "7f2000000000-7f2000021000 rw-p 00000000 00:00 0 [heap]\n";
        static const char cells[] = "7f0000000000-7f0010000000 rw-p 00000000 00:01 7 /memfd:a (deleted)\n"
                                    "7f0010000000-7f0020000000 rw-s 00000000 00:01 8 /memfd:b (deleted)\n";
        struct bl_guest_ram r = {0}, other;

        (void)state;
        assert_int_equal(ram_of(one, 512 * BL_MIB, &r), 0);
        assert_int_equal(r.n, 1);
        assert_int_equal(r.part[0].start, 0x7f0000000000);
        assert_int_equal(r.part[0].end, 0x7f0020000000);
        assert_false(r.shared);
        assert_int_equal(ram_of(one, 4096 * BL_MIB, &r), -ENODATA);
        assert_int_equal(ram_of("", 16 * BL_MIB, &r), -ENODATA);
        other = r;
        assert_true(bl_guest_ram_equal(&r, &other));
        assert_int_equal(ram_of(cells, 512 * BL_MIB, &other), 0);
        assert_int_equal(other.n, 2);
        assert_true(other.shared);
        assert_false(bl_guest_ram_equal(&r, &other));
        other = r;
        other.part[0].end++;
        assert_false(bl_guest_ram_equal(&r, &other));
}

/* --- activity ------------------------------------------------------------------ */

static void test_activity(void **state)
{
        struct bl_activity a;
        uint64_t tick = BL_SEC / (uint64_t)sysconf(_SC_CLK_TCK);

        (void)state;
        assert_int_equal(bl_activity_parse("7 (a) b) S 1 7 7 0 -1 4194560 100 200 31 4 500 60 0 0 20 0 1 0 99 1 1", &a),
                         0);
        assert_int_equal(a.major_faults, 31);
        assert_int_equal(a.cpu, 560 * tick);
        assert_int_equal(bl_activity_parse("7 (qemu) S 1 7 7 0 -1 4194560 100 200 31 4 500", &a), -EBADMSG);
        assert_int_equal(bl_activity_parse("", &a), -EBADMSG);
}

static void test_idle(void **state)
{
        const usec_t t0 = 1000 * BL_SEC;
        struct bl_idle i = {0};
        uint64_t cpu = 50 * BL_SEC;
        usec_t t = t0;

        (void)state;
        /* 0.5 % of a core: known to be idle after a minute, and since then */
        for (; t < t0 + 59 * BL_SEC; t += BL_SEC, cpu += 5 * BL_MSEC) {
                bl_idle_note(&i, cpu, t);
                assert_int_equal(i.since, 0);
        }
        for (; t < t0 + 300 * BL_SEC; t += BL_SEC, cpu += 5 * BL_MSEC)
                bl_idle_note(&i, cpu, t);
        assert_int_equal(i.since, t0);
        /* one that works is seen at once, and not only at the end of the minute */
        for (int k = 0; k < 2; k++, t += BL_SEC, cpu += BL_SEC)
                bl_idle_note(&i, cpu, t);
        bl_idle_note(&i, cpu, t);
        assert_int_equal(i.since, 0);
        /* and is idle a minute after it has ended */
        bl_idle_note(&i, cpu, t + 59 * BL_SEC);
        assert_int_equal(i.since, 0);
        bl_idle_note(&i, cpu, t + 61 * BL_SEC);
        assert_int_equal(i.since, t);
        /* 1.5 % is too much */
        i = (struct bl_idle){0};
        for (usec_t k = 0; k < 300; k++, t += BL_SEC, cpu += 15 * BL_MSEC)
                bl_idle_note(&i, cpu, t);
        assert_int_equal(i.since, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_swaps),
                cmocka_unit_test(test_zram),
                cmocka_unit_test_setup_teardown(test_read, test_root_make, test_root_remove),
                cmocka_unit_test(test_guest_ram),
                cmocka_unit_test(test_activity),
                cmocka_unit_test(test_idle),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
