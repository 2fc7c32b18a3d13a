// SPDX-License-Identifier: LGPL-2.1-or-later
/* The scanner's parts: the sort, the set of pages, the count of frames. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/pages/scan_frames.h"
#include "daemon/pages/scan_marks.h"
#include "daemon/pages/scan_memory.h"
#include "daemon/pages/scan_sort.h"

#define N(a) (sizeof(a) / sizeof((a)[0]))

static uint64_t next(uint64_t *seed)
{
        *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return *seed >> 11 ^ *seed << 40;
}

static int compare(const void *a, const void *b)
{
        const struct bl_scan_entry *x = a, *y = b;

        if (x->key != y->key)
                return x->key < y->key ? -1 : 1;
        return (x->where & BL_SCAN_PAGE_MASK) < (y->where & BL_SCAN_PAGE_MASK)
                       ? -1
                       : (x->where & BL_SCAN_PAGE_MASK) > (y->where & BL_SCAN_PAGE_MASK);
}

/* Keys of all shapes: any, few, all alike, small numbers, only the top bits. */
static uint64_t key(unsigned shape, uint64_t *seed, size_t i)
{
        switch (shape) {
        case 0:
                return next(seed);
        case 1:
                return next(seed) % 7 * UINT64_C(0x123456789abcdef);
        case 2:
                return 42;
        case 3:
                return next(seed) % 1000;
        case 4:
                return next(seed) << 60;
        default:
                return i / 3;
        }
}

static void test_sort(void **state)
{
        static const size_t sizes[] = {0, 1, 2, 39, 40, 41, 300, 5000, 70000};
        struct bl_scan_entry *e = calloc(70000, sizeof(*e)), *want = calloc(70000, sizeof(*want));
        struct bl_scan_sort s;
        uint64_t seed = 1;

        (void)state;
        assert_non_null(e);
        assert_non_null(want);
        for (unsigned shape = 0; shape < 6; shape++)
                for (size_t k = 0; k < N(sizes); k++)
                        for (unsigned slices = 0; slices < 2; slices++) {
                                const size_t n = sizes[k];
                                size_t last = 0;

                                for (size_t i = 0; i < n; i++)
                                        /* a page once, and flags that the order does not see, but that must stay */
                                        e[i] = (struct bl_scan_entry){key(shape, &seed, i),
                                                                      ((i * 7919 % 70001) << 10) | (i & 1) << 63};
                                memcpy(want, e, n * sizeof(*e));
                                qsort(want, n, sizeof(*want), compare);
                                if (slices) {
                                        bl_scan_sort_start(&s, e, n);
                                        while (!bl_scan_sort_go(&s, 500)) {
                                                assert_true(bl_scan_sort_progress(&s) >= last);
                                                last = bl_scan_sort_progress(&s);
                                        }
                                        assert_int_equal(bl_scan_sort_progress(&s), 2 * n);
                                        assert_true(bl_scan_sort_go(&s, 1));
                                } else
                                        bl_scan_sort_all(e, n);
                                assert_memory_equal(e, want, n * sizeof(*e));
                        }
        free(e);
        free(want);
}

static void test_marks(void **state)
{
        static const uint64_t pages[] = {0, 1, 63, 64, 32767, 32768, 100000, 999999};
        struct bl_scan_memory m = {0};
        struct bl_scan_marks k = {0};
        uint64_t page = 0;

        (void)state;
        assert_int_equal(bl_scan_marks_next(&k, 0), UINT64_MAX);
        assert_int_equal(bl_scan_marks_init(&k, &m, 1000000), 0);
        assert_int_equal(bl_scan_marks_next(&k, 0), UINT64_MAX);
        assert_int_equal(bl_scan_marks_reserve(&k, &m, 5, 0), 0);
        for (size_t i = 0; i < N(pages); i++) {
                assert_int_equal(bl_scan_marks_reserve(&k, &m, pages[i], 1), 0);
                bl_scan_marks_set(&k, pages[i]);
                bl_scan_marks_set(&k, pages[i]);
        }
        for (size_t i = 0; i < N(pages); i++, page++) {
                page = bl_scan_marks_next(&k, page);
                assert_int_equal(page, pages[i]);
        }
        assert_int_equal(bl_scan_marks_next(&k, page), UINT64_MAX);
        /* only where there are some: four chunks of 4 KiB */
        assert_in_range(m.now, 4 * 4096, 4 * 4096 + 1000);
        m.fail_in = 1;
        assert_int_equal(bl_scan_marks_reserve(&k, &m, 500000, 1), -ENOMEM);
        bl_scan_marks_free(&k, &m);
        assert_int_equal(m.now, 0);
}

static void test_memory(void **state)
{
        struct bl_scan_memory m = {.fail_in = 2};
        void *a = bl_scan_alloc(&m, 10, 10), *b = bl_scan_alloc(&m, 1, 1), *c = NULL, *d = NULL;

        (void)state;
        assert_non_null(a);
        assert_null(b);
        assert_int_equal(m.now, 100);
        c = bl_scan_remap(&m, NULL, 0, 8192);
        assert_non_null(c);
        memset(c, 7, 8192);
        m.fail_in = 1;
        d = bl_scan_remap(&m, c, 8192, UINT64_C(1) << 20);
        assert_null(d);
        c = bl_scan_remap(&m, c, 8192, UINT64_C(1) << 20);
        assert_non_null(c);
        assert_int_equal(((uint8_t *)c)[8191], 7);
        assert_int_equal(m.now, 100 + (1 << 20));
        c = bl_scan_remap(&m, c, UINT64_C(1) << 20, 4096);
        assert_non_null(c);
        c = bl_scan_remap(&m, c, 4096, 0);
        a = bl_scan_release(&m, a, 10, 10);
        assert_null(a);
        assert_null(c);
        assert_int_equal(m.now, 0);
        assert_int_equal(m.most, 100 + (1 << 20));
}

static void test_holders(void **state)
{
        uint64_t h = 0;

        (void)state;
        h = bl_scan_holders_with(h, 0);
        assert_int_equal(bl_scan_holders_with(h, 0), h);
        h = bl_scan_holders_with(h, 4095);
        h = bl_scan_holders_with(h, 7);
        h = bl_scan_holders_with(h, 7);
        assert_int_equal(h >> 48, 0);
        h = bl_scan_holders_with(h, 9);
        assert_int_equal(h, bl_scan_holders_with(h, 11));
        assert_int_equal(h, UINT64_C(10) << 48 | UINT64_C(8) << 32 | UINT64_C(4096) << 16 | 1);
}

/* Frames count for the first of their sources that is still there. */
static void test_frames(void **state)
{
        struct bl_scan_memory m = {0};
        struct bl_scan_frames f = {0};
        struct bl_scan_source source[40] = {0};

        (void)state;
        assert_int_equal(bl_scan_frames_init(&f, &m, N(source)), 0);
        bl_scan_frames_add(&f, 1, 0, 0);
        for (size_t i = 0; i < 100; i++)
                bl_scan_frames_add(&f, i, 0, bl_scan_holders_with(bl_scan_holders_with(0, 3), 5));
        for (size_t i = 0; i < 10; i++)
                bl_scan_frames_add(&f, i, 0, bl_scan_holders_with(0, 5));
        bl_scan_frames_count(&f, source);
        assert_int_equal(source[3].f.merged_frames, 100);
        assert_int_equal(source[5].f.merged_frames, 10);
        memset(source, 0, sizeof(source));
        source[3].error = -ESRCH;
        bl_scan_frames_count(&f, source);
        assert_int_equal(source[3].f.merged_frames, 0);
        assert_int_equal(source[5].f.merged_frames, 110);
        /* more sets than there is room for: 40 * 39 pairs; nothing is lost but who comes second */
        memset(source, 0, sizeof(source));
        for (size_t a = 0; a < N(source); a++)
                for (size_t b = 0; b < N(source); b++)
                        if (b != a)
                                bl_scan_frames_add(&f, a * 100 + b, 0,
                                                   bl_scan_holders_with(bl_scan_holders_with(0, a), b));
        bl_scan_frames_count(&f, source);
        for (size_t a = 0; a < N(source); a++)
                assert_int_equal(source[a].f.merged_frames, 39 + (a == 3 ? 100 : a == 5 ? 10 : 0));
        bl_scan_frames_free(&f, &m);
        assert_int_equal(m.now, 0);
}

/* A stream that repeats: each once, exactly while they are few, about 2 % off when they are many. */
static void test_frames_sample(void **state)
{
        struct bl_scan_memory m = {0};

        (void)state;
        for (uint64_t n = 1000; n <= 100000; n *= 10) {
                struct bl_scan_frames f = {0};
                struct bl_scan_source source[2] = {0};

                assert_int_equal(bl_scan_frames_init_sample(&f, &m), 0);
                for (unsigned round = 0; round < 3; round++)
                        for (uint64_t i = 0; i < n; i++)
                                bl_scan_frames_add(&f, i + (UINT64_C(1) << 20), 99, bl_scan_holders_with(0, round % 2));
                bl_scan_frames_count(&f, source);
                assert_int_equal(source[1].f.merged_frames, 0);
                if (n == 1000)
                        assert_int_equal(source[0].f.merged_frames, n);
                assert_in_range(source[0].f.merged_frames, n - n / 10, n + n / 10);
                /* the second one takes over what the first one leaves */
                source[0].error = -ESRCH;
                bl_scan_frames_count(&f, source);
                assert_int_equal(source[1].f.merged_frames, source[0].f.merged_frames);
                bl_scan_frames_free(&f, &m);
        }
        assert_int_equal(m.now, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_sort),    cmocka_unit_test(test_marks),  cmocka_unit_test(test_memory),
                cmocka_unit_test(test_holders), cmocka_unit_test(test_frames), cmocka_unit_test(test_frames_sample),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
