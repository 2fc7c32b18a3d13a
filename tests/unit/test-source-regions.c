/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which mappings count, by texts like /proc/PID/maps. */
#include "tests/unit/test-source-util.h"

static const char maps[] =
        "555500000000-555500400000 r-xp 00000000 fe:00 1234                       /usr/bin/qemu-system-x86_64\n"
        "555500400000-555500410000 rw-p 00400000 fe:00 1234                       /usr/bin/qemu-system-x86_64\n"
        "555501000000-555509000000 rw-p 00000000 00:00 0                          [heap]\n"
        "7f0000000000-7f0020000000 rw-p 00000000 00:00 0 \n"
        "7f0020000000-7f0028000000 rwxp 00000000 00:00 0 \n"
        "7f0030000000-7f0050000000 rw-p 00000000 00:01 77                         /memfd:memory-backend-memfd "
        "(deleted)\n"
        "7f0050000000-7f0060000000 rw-s 00000000 00:01 78                         /memfd:memory-backend-memfd "
        "(deleted)\n"
        "7f0060000000-7f0070000000 rw-s 00000000 00:31 79                         /dev/hugepages/libvirt/qemu/ram "
        "(deleted)\n"
        "7f0070000000-7f0080000000 rw-s 00000000 00:0e 80                         /dev/vfio/12\n"
        "7f0080000000-7f0090000000 rw-s 00000000 00:0e 81                         anon_inode:[vfio-device]\n"
        "7f0090000000-7f00a0000000 rw-s 00000000 fe:00 82                         /var/lib/a file with blanks\n"
        "7f00a0000000-7f00b0000000 rw-p 00000000 fe:00 83                         /var/lib/private\n"
        "7f00b0000000-7f00b0001000 rw-p 00000000 00:05 5                          /dev/zero\n"
        "7f00b0001000-7f00b0003000 rw-s 00000000 00:01 84                         /dev/zero (deleted)\n"
        "7f00b0003000-7f00b0004000 rw-s 00000000 00:01 85                         /SYSV00000000 (deleted)\n"
        "7f00b0004000-7f00b0005000 rw-s 00000000 00:01 86                         [anon_shmem:pool]\n"
        "7f00b0005000-7f00b0006000 rw-p 00000000 00:00 0                          [anon:cache]\n"
        "7f00b0006000-7f00b0007000 r--p 00000000 00:00 0 \n"
        "7f00b0007000-7f00b0008000 ---p 00000000 00:00 0 \n"
        "7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                          [stack]\n"
        "7ffd00030000-7ffd00034000 r--p 00000000 00:00 0                          [vvar]\n"
        "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n";

static int parse(const char *text, uint64_t guest_ram, struct bl_regions *ret)
{
        _cleanup_fclose_ FILE *f = fmemopen((void *)(uintptr_t)text, strlen(text), "r");

        assert_non_null(f);
        return bl_regions_parse(f, -1, guest_ram, ret);
}

struct want {
        uint64_t start, size;
        enum bl_pagemap_files files;
};

static void check(const struct bl_regions *r, const struct want *want, size_t n)
{
        uint64_t pages = 0;

        for (size_t i = 0; i < n && i < r->n; i++) {
                assert_int_equal(r->r[i].start, want[i].start);
                assert_int_equal(r->r[i].n, want[i].size / PAGE);
                assert_int_equal(r->r[i].first, pages);
                assert_int_equal(r->r[i].files, want[i].files);
                pages += r->r[i].n;
        }
        assert_int_equal(r->n, n);
        assert_int_equal(r->pages, pages);
        assert_int_equal(r->bytes, pages * PAGE);
}

static void test_any_process(void **state)
{
        static const struct want want[] = {
                {0x555500400000, 0x10000, BL_PAGEMAP_FILES_SKIP},
                {0x555501000000, 0x8000000, BL_PAGEMAP_FILES_SHARED},
                {0x7f0000000000, 0x20000000, BL_PAGEMAP_FILES_SHARED},
                {0x7f0020000000, 0x8000000, BL_PAGEMAP_FILES_SHARED},
                {0x7f0030000000, 0x20000000, BL_PAGEMAP_FILES_SHARED},
                {0x7f0050000000, 0x10000000, BL_PAGEMAP_FILES_SHARED},
                {0x7f0060000000, 0x10000000, BL_PAGEMAP_FILES_SHARED},
                {0x7f00a0000000, 0x10000000, BL_PAGEMAP_FILES_SKIP},
                {0x7f00b0000000, 0x1000, BL_PAGEMAP_FILES_SHARED},
                {0x7f00b0001000, 0x2000, BL_PAGEMAP_FILES_SHARED},
                {0x7f00b0003000, 0x1000, BL_PAGEMAP_FILES_SHARED},
                {0x7f00b0004000, 0x1000, BL_PAGEMAP_FILES_SHARED},
                {0x7f00b0005000, 0x1000, BL_PAGEMAP_FILES_SHARED},
                {0x7ffd00000000, 0x21000, BL_PAGEMAP_FILES_SHARED},
        };
        _cleanup_(bl_regions_done) struct bl_regions r = {0};

        (void)state;
        assert_int_equal(parse(maps, 0, &r), 0);
        check(&r, want, N(want));
        assert_int_equal(r.shared_bytes, 0x10000000 + 0x10000000 + 0x2000 + 0x1000 + 0x1000);
}

/* A guest of 512 MiB: its RAM and what is at least a quarter of it, but no code, no heap and no device. */
static void test_guest(void **state)
{
        static const struct want want[] = {
                {0x7f0000000000, 0x20000000, BL_PAGEMAP_FILES_COUNT},
                {0x7f0030000000, 0x20000000, BL_PAGEMAP_FILES_COUNT},
                {0x7f0050000000, 0x10000000, BL_PAGEMAP_FILES_COUNT},
                {0x7f0060000000, 0x10000000, BL_PAGEMAP_FILES_COUNT},
                {0x7f0090000000, 0x10000000, BL_PAGEMAP_FILES_COUNT},
                {0x7f00a0000000, 0x10000000, BL_PAGEMAP_FILES_COUNT},
        };
        _cleanup_(bl_regions_done) struct bl_regions r = {0}, other = {0};

        (void)state;
        assert_int_equal(parse(maps, 512 * BL_MIB, &r), 0);
        check(&r, want, N(want));
        assert_int_equal(r.shared_bytes, 0x30000000);
        assert_int_equal(parse(maps, 512 * BL_MIB, &other), 0);
        assert_true(bl_regions_equal(&r, &other));
        other.r[2].start += PAGE;
        assert_false(bl_regions_equal(&r, &other));
}

static void test_found(void **state)
{
        _cleanup_(bl_regions_done) struct bl_regions r = {0};
        size_t hint = 0;

        (void)state;
        assert_int_equal(parse(maps, 0, &r), 0);
        for (size_t i = 0; i < r.n; i++) {
                assert_ptr_equal(bl_regions_at(&r, r.r[i].first, &hint), &r.r[i]);
                assert_int_equal(hint, i);
                assert_ptr_equal(bl_regions_at(&r, r.r[i].first + r.r[i].n - 1, &hint), &r.r[i]);
        }
        for (size_t i = r.n; i-- > 0; hint = i * 7 % (r.n + 2))
                assert_ptr_equal(bl_regions_at(&r, r.r[i].first + r.r[i].n / 2, &hint), &r.r[i]);
}

static void test_nothing(void **state)
{
        struct bl_regions r;

        (void)state;
        assert_int_equal(parse("\n", 0, &r), -ENODATA);
        assert_int_equal(parse("1000-2000 r--p 0 00:00 0 \n", 0, &r), -ENODATA);
        assert_int_equal(parse("2000-1000 rw-p 0 00:00 0 \n1000 rw-p\nrw-p\n1000-2000 rw 0 00:00 0 \n", 0, &r),
                         -ENODATA);
        assert_int_equal(parse(maps, 64 * BL_GIB, &r), -ENODATA);
        /* only what is executable is large enough */
        assert_int_equal(parse("7f0020000000-7f0028000000 rwxp 00000000 00:00 0 \n", 128 * BL_MIB, &r), -ENODATA);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_any_process),
                cmocka_unit_test(test_guest),
                cmocka_unit_test(test_found),
                cmocka_unit_test(test_nothing),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
