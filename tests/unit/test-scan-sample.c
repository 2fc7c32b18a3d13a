// SPDX-License-Identifier: LGPL-2.1-or-later
/* Where memory is too small for all pages: a sample of the hash space, its figures and their error; and the bound. */
#include <math.h>

#include "test-scan-util.h"

#define PAGES 12000U
#define RUNS  120U

/* Contents with one copy, two, a few and many, in two sources. */
static void fill(struct fakes *s, bool merged)
{
        for (uint32_t i = 0; i < PAGES; i++)
                for (uint32_t k = 0; k < 2; k++) {
                        struct fake *f = s->fake[k];
                        uint32_t content = (k + 1) * 1000000 + i;

                        if (i < 2000)
                                content = i + 1; /* the other source's too */
                        else if (i < 4000)
                                content = 500000 + k * 10000 + i / 2; /* twice in one */
                        else if (i < 4500)
                                content = 700000 + i / 10; /* ten times in each */
                        else if (i < 5000)
                                content = 0;
                        f->content[i] = content;
                        if (merged && i < 2000)
                                f->look[i] = (struct bl_page_look){.state = BL_PAGE_MERGED, .frame = 3000000 + i};
                }
}

struct moments {
        double sum, squares;
};

static void take(struct moments *m, double x)
{
        m->sum += x;
        m->squares += x * x;
}

/* The mean of RUNS is the truth, but for four of its own standard errors. */
static void is_unbiased(const struct moments *m, double truth)
{
        const double mean = m->sum / RUNS, variance = m->squares / RUNS - mean * mean;

        assert_true(fabs(mean - truth) <= 4 * sqrt(variance / RUNS) + 1e-6);
}

static void check_unbiased(bool merged)
{
        struct moments saved = {0}, intra = {0}, inter = {0}, unique = {0}, common = {0}, elsewhere = {0}, frames = {0};
        unsigned covered = 0;
        struct fakes s = {0};

        fakes_add(&s, fake_new(PAGES, false));
        fakes_add(&s, fake_new(PAGES, true));
        fill(&s, merged);
        for (uint64_t seed = 1; seed <= RUNS; seed++) {
                const struct bl_scan_options o = {.seed = seed * UINT64_C(0xd1342543de82ef95),
                                                  .settle = 1,
                                                  .memory_max = 1,
                                                  .hash = hash_word,
                                                  .compress_sample = 10};
                struct bl_scan *scan = scan_of(&s, &o);
                const struct bl_scan_report *r;

                run_to_the_end(scan);
                r = bl_scan_report(scan);
                assert_in_range(r->sample_shift, 2, 5);
                /* what needs no content is exact */
                assert_int_equal(r->all.pages, 2 * PAGES);
                assert_int_equal(r->all.zero, 1000);
                assert_int_equal(r->all.merged, merged ? 4000 : 0);
                assert_int_equal(r->all.volatile_pages, 0);
                assert_int_equal(r->source[0].f.run[0], 0);
                adds_up(&r->all);
                take(&saved, (double)r->all.saved_pages);
                take(&intra, (double)r->all.duplicate_intra);
                take(&inter, (double)r->all.duplicate_inter);
                take(&unique, (double)r->all.unique);
                take(&common, (double)r->matrix[1]);
                take(&elsewhere, (double)r->source[1].f.with_copy_elsewhere);
                take(&frames, (double)r->all.merged_frames);
                covered += fabs((double)r->all.saved_pages - 5950) <= 2 * r->saved_error;
                (void)bl_scan_free(scan);
        }
        /* 1,000 zero; 2,000 contents in both; 1,000 pairs in each; 50 contents ten times in each */
        is_unbiased(&intra, 2000 + 900);
        is_unbiased(&inter, 2000 + 50);
        is_unbiased(&saved, 1000 + 2900 + 2050);
        is_unbiased(&unique, 2 * PAGES - 5950);
        is_unbiased(&common, 2050);
        is_unbiased(&elsewhere, 2500);
        if (merged)
                is_unbiased(&frames, 2000);
        /* two standard errors cover 95 % */
        assert_true(covered >= RUNS * 85 / 100);
        fakes_free(&s);
}

static void test_unbiased(void **state)
{
        (void)state;
        check_unbiased(false);
}

/* Merged pages, whose content is not known when the table is full. */
static void test_unbiased_merged(void **state)
{
        (void)state;
        check_unbiased(true);
}

/* Nothing but merged pages: they are read as often as the table is full of them, and each frame counts once. */
static void test_all_merged(void **state)
{
        const struct bl_scan_options o = {.seed = 1, .settle = 1, .memory_max = 1, .hash = hash_word};
        struct fakes s = {0};
        struct bl_scan *scan;
        const struct bl_scan_report *r;

        (void)state;
        for (uint32_t k = 0; k < 3; k++) {
                fakes_add(&s, fake_new(9000, false));
                for (uint32_t i = 0; i < 9000; i++) {
                        /* each frame is found by all three sources */
                        s.fake[k]->content[i] = i / 6 + 1;
                        s.fake[k]->look[i] = (struct bl_page_look){.state = BL_PAGE_MERGED, .frame = i / 6 + 77};
                }
        }
        scan = scan_of(&s, &o);
        run_to_the_end(scan);
        r = bl_scan_report(scan);
        assert_true(r->sample_shift > 0);
        assert_int_equal(r->all.merged, 27000);
        /* fewer than are sampled: all are known, and that the first source has them first */
        assert_int_equal(r->all.merged_frames, 1500);
        assert_int_equal(r->source[0].f.merged_frames, 1500);
        assert_int_equal(r->all.merged_saved, 25500);
        assert_true(r->saved_error > 0 && r->saved_error < 5000);
        assert_true(fabs((double)r->all.saved_pages - 25500) <= 3 * r->saved_error);
        (void)bl_scan_free(scan);
        fakes_free(&s);
}

/* The sample holds its copies together: where a content is in, all of it is. */
static void test_whole_contents(void **state)
{
        struct fakes s = {0};

        (void)state;
        fakes_add(&s, fake_new(20000, true));
        for (uint32_t i = 0; i < 20000; i++)
                s.fake[0]->content[i] = i % 4000 + 1;
        for (uint64_t seed = 1; seed <= 10; seed++) {
                const struct bl_scan_options o = {.seed = seed, .memory_max = 1, .hash = hash_word};
                struct bl_scan *scan = scan_of(&s, &o);
                const struct bl_scan_report *r;

                run_to_the_end(scan);
                r = bl_scan_report(scan);
                assert_true(r->sample_shift >= 3);
                /* five copies of each: four of them are surplus */
                assert_int_equal(r->all.duplicate_intra % (UINT64_C(4) << r->sample_shift), 0);
                assert_true(r->all.duplicate_intra > 0);
                (void)bl_scan_free(scan);
        }
        fakes_free(&s);
}

static uint64_t memory_of(uint64_t pages, size_t sources, size_t memory_max, bool still, unsigned *ret_shift)
{
        const struct bl_scan_options o = {.settle = 1, .memory_max = memory_max, .hash = hash_word};
        struct fakes s = {0};
        struct bl_scan *scan;
        uint64_t memory;

        for (uint32_t k = 0; k < sources; k++) {
                fakes_add(&s, fake_new(pages / sources, still));
                for (uint32_t i = 0; i < pages / sources; i++)
                        s.fake[k]->content[i] = i / 3 * (1 + k % 2);
        }
        scan = scan_of(&s, &o);
        run_to_the_end(scan);
        memory = bl_scan_report(scan)->memory;
        *ret_shift = bl_scan_report(scan)->sample_shift;
        (void)bl_scan_free(scan);
        fakes_free(&s);
        return memory;
}

/* By default everything is kept, in 0.5 % of what is scanned or 3 MiB. */
static void test_memory(void **state)
{
        static const uint64_t pages[] = {1, 1000, 50000, 110000, 160000, 260000};
        unsigned shift = 0;

        (void)state;
        for (size_t i = 0; i < N(pages); i++)
                for (unsigned still = 0; still < 2; still++) {
                        assert_true(memory_of(pages[i], 1, 0, still, &shift) <=
                                    bl_max(pages[i] * BL_PAGE_SIZE / 200, 3 * BL_MIB));
                        assert_int_equal(shift, 0);
                }
        assert_true(memory_of(1000, 1, 0, true, &shift) < BL_MIB);
        /* a bound that is given holds, and costs the exactness */
        assert_true(memory_of(160000, 1, BL_MIB, false, &shift) <= BL_MIB);
        assert_true(shift > 0);
        assert_true(memory_of(60000, 200, 2 * BL_MIB, true, &shift) <= 2 * BL_MIB);
        assert_int_equal(shift, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_unbiased),   cmocka_unit_test(test_unbiased_merged),
                cmocka_unit_test(test_all_merged), cmocka_unit_test(test_whole_contents),
                cmocka_unit_test(test_memory),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
