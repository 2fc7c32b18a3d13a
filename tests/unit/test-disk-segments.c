// SPDX-License-Identifier: LGPL-2.1-or-later
/* The log's bookkeeping against a model: a map of who has which 16 bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/store/disk_segments.h"

#define SEGMENTS 12U
#define GRAINS   ((uint32_t)(BL_DISK_SEGMENT / BL_DISK_GRAIN))
#define ENTRIES  8192U
#define MOST     1024U
#define ROUNDS   4000U

struct model {
        struct bl_segments s;
        uint32_t *map; /* entry number + 1 of each grain; 0: nobody's */
        struct bl_disk_blob entries[ENTRIES]; /* size 0: not there */
        uint64_t live;
        uint32_t seed;
};

static uint32_t below(struct model *m, uint32_t n)
{
        m->seed = m->seed * 1664525U + 1013904223U;
        return (m->seed >> 8) % n;
}

static uint32_t grains(uint32_t size)
{
        return (size + BL_DISK_GRAIN - 1) / BL_DISK_GRAIN;
}

static void take(struct model *m, const struct bl_disk_blob *b)
{
        for (uint32_t i = 0; i < grains(b->size); i++) {
                assert_int_equal(m->map[b->place + i], 0);
                m->map[b->place + i] = b->entry + 1;
        }
        assert_int_equal(b->place / GRAINS, (b->place + grains(b->size) - 1) / GRAINS);
        m->live += b->size;
        m->entries[b->entry] = *b;
}

static void give(struct model *m, uint32_t entry)
{
        struct bl_disk_blob *b = &m->entries[entry];

        for (uint32_t i = 0; i < grains(b->size); i++)
                m->map[b->place + i] = 0;
        bl_segments_free(&m->s, b->place, b->size);
        m->live -= b->size;
        b->size = 0;
}

static int add(struct model *m, struct bl_disk_blob *blobs, size_t n, bool succeeds)
{
        struct bl_segments_part parts[BL_SEGMENTS_PARTS];
        const int k = bl_segments_plan(&m->s, blobs, n, parts);
        uint32_t sum = 0;

        for (int i = 0; i < k; i++) {
                assert_int_equal(parts[i].first, sum);
                assert_int_equal(parts[i].start % 4096 + parts[i].size % 4096, 0);
                assert_true(parts[i].start + parts[i].size <= BL_DISK_SEGMENT);
                /* nothing that lives is written over, nor shares a block with what is written */
                for (uint32_t j = 0; j < parts[i].size / BL_DISK_GRAIN; j++)
                        assert_int_equal(m->map[parts[i].segment * GRAINS + parts[i].start / BL_DISK_GRAIN + j], 0);
                sum += parts[i].n;
        }
        if (k < 0)
                return k;
        assert_int_equal(sum, n);
        for (int i = 0; i < k; i++)
                if (succeeds)
                        bl_segments_add(&m->s, &parts[i], blobs);
                else
                        bl_segments_give_up(&m->s, &parts[i]);
        return 0;
}

/* New blobs of entries that are not there; how many, and their bytes are `budget` at most. */
static size_t make(struct model *m, struct bl_disk_blob *ret, uint32_t budget)
{
        const bool raw = below(m, 4) == 0;
        size_t n = 0;

        for (uint32_t i = 0; i < ENTRIES && n < MOST; i++) {
                const uint32_t size = raw ? 4096 : 1 + below(m, 4096);

                if (m->entries[i].size > 0)
                        continue;
                if (size > budget)
                        break;
                ret[n++] = (struct bl_disk_blob){.entry = i, .size = size};
                budget -= size;
        }
        return n;
}

static void check(const struct model *m)
{
        bool used[SEGMENTS] = {false};
        uint32_t n_used = 0;

        assert_int_equal(m->s.live, m->live);
        for (uint32_t i = 0; i < SEGMENTS * GRAINS; i++)
                if (m->map[i] != 0)
                        used[i / GRAINS] = true;
        for (uint32_t i = 0; i < SEGMENTS; i++)
                n_used += used[i];
        assert_int_equal(m->s.n_free, SEGMENTS - n_used);
}

/* Cleans one segment; false: none is worth it. */
static bool clean(struct model *m)
{
        static struct bl_disk_blob picked[BL_DISK_BLOBS];
        const size_t n = bl_segments_pick(&m->s, picked, BL_DISK_BLOBS);

        if (n == 0)
                return false;
        for (size_t i = 0; i < n; i++) {
                const struct bl_disk_blob *b = &m->entries[picked[i].entry];

                assert_int_equal(b->place, picked[i].place);
                assert_int_equal(b->size, picked[i].size);
        }
        assert_int_equal(add(m, picked, n, true), 0);
        for (size_t i = 0; i < n; i++) {
                give(m, picked[i].entry);
                take(m, &picked[i]);
        }
        return true;
}

static void start(struct model *m)
{
        memset(m, 0, sizeof(*m));
        m->map = calloc(SEGMENTS * GRAINS, sizeof(*m->map));
        assert_non_null(m->map);
        assert_int_equal(bl_segments_init(&m->s, SEGMENTS), 0);
}

static void stop(struct model *m)
{
        bl_segments_done(&m->s);
        free(m->map);
}

/* As long as no more lives than bl_disk_capacity promises, cleaning makes room for every append. */
static void test_random(void **state)
{
        static struct model m;
        static struct bl_disk_blob blobs[MOST];
        const uint64_t capacity = (SEGMENTS - 2) * (BL_DISK_SEGMENT / 16 * 15);
        unsigned refused = 0, cleaned = 0;

        (void)state;
        start(&m);
        m.seed = 4;
        for (unsigned round = 0; round < ROUNDS; round++) {
                size_t n = make(&m, blobs, below(&m, (uint32_t)BL_DISK_SEGMENT + 1));
                unsigned tries = 0;
                int r;

                while (n > 0 && m.live + BL_DISK_SEGMENT > capacity) {
                        const uint32_t i = below(&m, ENTRIES);

                        if (m.entries[i].size > 0)
                                give(&m, i);
                }
                if (n == 0)
                        continue;
                if (below(&m, 10) == 0) {
                        (void)add(&m, blobs, n, false);
                        if (round % 50 == 0)
                                check(&m);
                        continue;
                }
                while ((r = add(&m, blobs, n, true)) == -ENOSPC) {
                        refused++;
                        assert_true(clean(&m));
                        cleaned++;
                        assert_true(++tries < 64);
                }
                assert_int_equal(r, 0);
                for (size_t i = 0; i < n; i++)
                        take(&m, &blobs[i]);
                if (round % 50 == 0)
                        check(&m);
        }
        assert_true(refused > 100 && cleaned > 100);
        for (uint32_t i = 0; i < ENTRIES; i++)
                if (m.entries[i].size > 0)
                        give(&m, i);
        check(&m);
        assert_int_equal(m.s.n_free, SEGMENTS);
        assert_int_equal(m.s.memory, SEGMENTS * 32);
        stop(&m);
}

/* What one rebuilds with is what was there; nothing over another, nothing outside. */
static void test_claim(void **state)
{
        static struct model m;
        const bl_disk_place end = SEGMENTS * GRAINS;

        (void)state;
        start(&m);
        assert_int_equal(bl_segments_claim(&m.s, 100, 4096, 1), 0);
        assert_int_equal(m.s.n_free, SEGMENTS - 1);
        assert_int_equal(bl_segments_claim(&m.s, 100, 4096, 2), -EINVAL);
        assert_int_equal(bl_segments_claim(&m.s, 99, 17, 2), -EINVAL);
        assert_int_equal(bl_segments_claim(&m.s, 99, 16, 2), 0);
        assert_int_equal(bl_segments_claim(&m.s, 355, 1, 3), -EINVAL);
        assert_int_equal(bl_segments_claim(&m.s, 356, 1, 3), 0);
        assert_int_equal(bl_segments_claim(&m.s, GRAINS - 1, 17, 4), -EINVAL);
        assert_int_equal(bl_segments_claim(&m.s, GRAINS - 1, 16, 4), 0);
        assert_int_equal(bl_segments_claim(&m.s, end, 16, 5), -EINVAL);
        assert_int_equal(bl_segments_claim(&m.s, UINT64_MAX, 16, 5), -EINVAL);
        assert_int_equal(bl_segments_claim(&m.s, end - 1, 16, 5), 0);
        assert_int_equal(bl_segments_claim(&m.s, 5000, 0, 5), -EINVAL);
        assert_int_equal(bl_segments_claim(&m.s, 5000, 65536, 5), -EINVAL);
        assert_int_equal(m.s.live, 4096 + 16 + 1 + 16 + 16);
        bl_segments_free(&m.s, 100, 4095); /* is not there */
        bl_segments_free(&m.s, 101, 4096);
        bl_segments_free(&m.s, end, 16);
        assert_int_equal(m.s.live, 4096 + 16 + 1 + 16 + 16);
        bl_segments_free(&m.s, 100, 4096);
        bl_segments_free(&m.s, 99, 16);
        bl_segments_free(&m.s, 356, 1);
        assert_int_equal(m.s.n_free, SEGMENTS - 2);
        bl_segments_free(&m.s, GRAINS - 1, 16);
        bl_segments_free(&m.s, end - 1, 16);
        assert_int_equal(m.s.n_free, SEGMENTS);
        assert_int_equal(m.s.live, 0);
        stop(&m);
}

/* A segment that a write may still land in is nobody's. */
static void test_hold(void **state)
{
        static struct model m;
        struct bl_segments_part parts[BL_SEGMENTS_PARTS];
        struct bl_disk_blob b = {.entry = 1, .size = 4096};

        (void)state;
        start(&m);
        assert_int_equal(bl_segments_plan(&m.s, &b, 1, parts), 1);
        bl_segments_hold(&m.s, parts[0].segment, 2);
        bl_segments_give_up(&m.s, &parts[0]);
        assert_int_equal(m.s.n_free, SEGMENTS - 1);
        for (unsigned i = 0; i < 3 * SEGMENTS; i++) {
                struct bl_segments_part other[BL_SEGMENTS_PARTS];

                assert_int_equal(bl_segments_plan(&m.s, &b, 1, other), 1);
                assert_int_not_equal(other[0].segment, parts[0].segment);
                bl_segments_give_up(&m.s, &other[0]);
        }
        bl_segments_release(&m.s, parts[0].segment, 1);
        assert_int_equal(m.s.n_free, SEGMENTS - 1);
        bl_segments_release(&m.s, parts[0].segment, 1);
        assert_int_equal(m.s.n_free, SEGMENTS);
        stop(&m);
}

static void test_limits(void **state)
{
        static struct model m;
        static struct bl_disk_blob blobs[BL_DISK_BLOBS + 1];
        struct bl_segments_part parts[BL_SEGMENTS_PARTS];

        (void)state;
        start(&m);
        for (size_t i = 0; i <= BL_DISK_BLOBS; i++)
                blobs[i] = (struct bl_disk_blob){.entry = (uint32_t)i, .size = 1};
        assert_int_equal(bl_segments_plan(&m.s, blobs, 0, parts), -EINVAL);
        assert_int_equal(bl_segments_plan(&m.s, blobs, BL_DISK_BLOBS + 1, parts), -EINVAL);
        blobs[0].size = 65536;
        assert_int_equal(bl_segments_plan(&m.s, blobs, 1, parts), -EINVAL);
        blobs[0].size = 0;
        assert_int_equal(bl_segments_plan(&m.s, blobs, 1, parts), -EINVAL);
        for (size_t i = 0; i < 17; i++)
                blobs[i].size = 65535;
        assert_int_equal(bl_segments_plan(&m.s, blobs, 17, parts), -EINVAL);
        /* 257 blobs of 4081 bytes are less than a segment, and with their places rounded up more */
        for (size_t i = 0; i < 256; i++)
                blobs[i].size = 4081;
        blobs[256] = (struct bl_disk_blob){.entry = 256, .size = 3840};
        assert_int_equal(bl_segments_plan(&m.s, blobs, 257, parts), 2);
        bl_segments_add(&m.s, &parts[0], blobs);
        bl_segments_add(&m.s, &parts[1], blobs);
        assert_int_equal(blobs[255].place / GRAINS, blobs[0].place / GRAINS);
        assert_int_not_equal(blobs[256].place / GRAINS, blobs[0].place / GRAINS);
        /* goes on where that ended */
        blobs[300] = (struct bl_disk_blob){.entry = 300, .size = 10};
        assert_int_equal(bl_segments_plan(&m.s, &blobs[300], 1, parts), 1);
        assert_int_equal(parts[0].segment, blobs[256].place / GRAINS);
        assert_int_equal(parts[0].start, 4096);
        bl_segments_give_up(&m.s, &parts[0]);
        stop(&m);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_random),
                cmocka_unit_test(test_claim),
                cmocka_unit_test(test_hold),
                cmocka_unit_test(test_limits),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
