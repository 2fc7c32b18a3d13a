// SPDX-License-Identifier: LGPL-2.1-or-later
/* The scan against a judge that compares all pages with all, and against the oracle. */
#include "test-scan-util.h"

static void check_oracle(struct fakes *s, const struct bl_scan_report *r)
{
        struct bl_scan_report *oracle = NULL;
        char *message = NULL, *difference;

        assert_int_equal(bl_oracle_run(s->source, s->n, NULL, &oracle, &message), 0);
        difference = bl_oracle_difference(r, oracle);
        if (difference)
                fail_msg("%s", difference);
        (void)bl_oracle_free(oracle);
}

static void scan_and_judge(struct fakes *s, const struct bl_scan_options *o)
{
        struct bl_scan *scan = scan_of(s, o);

        run_to_the_end(scan);
        judge(s, NULL, bl_scan_report(scan));
        check_oracle(s, bl_scan_report(scan));
        (void)bl_scan_free(scan);
}

static void test_random(void **state)
{
        static const size_t sources[] = {1, 2, 5};

        (void)state;
        for (uint64_t seed = 1; seed <= 240; seed++) {
                struct bl_scan_options o = {.settle = 1, .seed = seed & 1 ? seed : 0};
                uint64_t dice = seed;
                struct fakes s = {0};

                for (size_t k = 0; k < sources[seed % N(sources)]; k++) {
                        fakes_add(&s, fake_new(below(&dice, 90), below(&dice, 2) == 0));
                        fake_random(s.fake[k], &dice, 1 + below(&dice, 150), true);
                }
                o.hash = seed % 8 == 3 ? hash_constant : seed % 8 == 4 ? hash_4_bits : NULL;
                scan_and_judge(&s, &o);
                fakes_free(&s);
        }
}

/* Groups larger than a batch (64 pages), and with more classes than are kept over batches (16). */
static void test_collisions(void **state)
{
        uint64_t (*const hash[])(const void *, uint64_t) = {hash_constant, hash_4_bits, hash_word};

        (void)state;
        for (uint64_t seed = 1; seed <= 12; seed++) {
                const struct bl_scan_options o = {
                        .seed = seed, .settle = 1, .memory_max = 1, .hash = hash[seed % N(hash)]};
                uint64_t dice = seed * 77;
                struct fakes s = {0};

                for (size_t k = 0; k < 3; k++) {
                        fakes_add(&s, fake_new(150, k == 0));
                        fake_random(s.fake[k], &dice, seed & 4 ? 400 : 3, true);
                }
                scan_and_judge(&s, &o);
                fakes_free(&s);
        }
}

/* Nothing at all, and the least there is. */
static void test_small(void **state)
{
        const struct bl_scan_options o = {.settle = 1};
        struct bl_scan *scan = NULL;
        struct fakes s = {0};

        (void)state;
        scan = scan_of(&s, &o);
        run_to_the_end(scan);
        assert_int_equal(bl_scan_report(scan)->n, 0);
        assert_int_equal(bl_scan_report(scan)->all.pages, 0);
        (void)bl_scan_free(scan);
        fakes_add(&s, fake_new(0, false));
        scan_and_judge(&s, &o);
        fakes_add(&s, fake_new(1, false));
        s.fake[1]->content[0] = 5;
        scan_and_judge(&s, &o);
        fakes_add(&s, fake_new(0, true));
        fakes_add(&s, fake_new(1, true));
        s.fake[3]->content[0] = 5;
        scan_and_judge(&s, &o);
        fakes_free(&s);
}

static void test_zeros(void **state)
{
        const struct bl_scan_options o = {.settle = 1};
        struct fakes s = {0};
        struct bl_scan *scan;

        (void)state;
        fakes_add(&s, fake_new(100, false));
        fakes_add(&s, fake_new(3, true));
        scan = scan_of(&s, &o);
        run_to_the_end(scan);
        assert_int_equal(bl_scan_report(scan)->all.zero, 103);
        assert_int_equal(bl_scan_report(scan)->all.saved_pages, 103);
        assert_int_equal(bl_scan_report(scan)->all.unique, 0);
        assert_true(bl_scan_report(scan)->compress_ratio == 0);
        judge(&s, NULL, bl_scan_report(scan));
        (void)bl_scan_free(scan);
        fakes_free(&s);
}

/* Windows, chunks and batches end where they end: sizes around all of them. */
static void test_sizes(void **state)
{
        static const uint64_t sizes[] = {63, 64, 65, 2047, 2048, 2049, 4097};

        (void)state;
        for (size_t i = 0; i < N(sizes); i++) {
                const struct bl_scan_options o = {.settle = 1, .hash = hash_word};
                struct fakes s = {0};
                struct bl_scan *scan;
                const struct bl_scan_report *r;

                fakes_add(&s, fake_new(sizes[i], true));
                fakes_add(&s, fake_new(sizes[i] + 1, false));
                for (uint64_t p = 0; p <= sizes[i]; p++) {
                        if (p < sizes[i])
                                s.fake[0]->content[p] = (uint32_t)p + 1;
                        s.fake[1]->content[p] = (uint32_t)(sizes[i] - p) + 1;
                }
                scan = scan_of(&s, &o);
                run_to_the_end(scan);
                r = bl_scan_report(scan);
                assert_int_equal(r->all.unique, sizes[i] + 1);
                assert_int_equal(r->all.duplicate_inter, sizes[i]);
                assert_int_equal(r->all.duplicate_intra, 0);
                assert_int_equal(r->matrix[1], sizes[i]);
                assert_int_equal(r->source[1].f.with_copy_elsewhere, sizes[i]);
                adds_up(&r->all);
                assert_int_equal(r->all.volatile_pages, 0);
                (void)bl_scan_free(scan);
                fakes_free(&s);
        }
}

/* One content with more copies than a batch ever has. */
static void test_many_copies(void **state)
{
        const struct bl_scan_options o = {.settle = 1};
        struct fakes s = {0};
        struct bl_scan *scan;

        (void)state;
        fakes_add(&s, fake_new(9000, false));
        fakes_add(&s, fake_new(5, false));
        for (uint64_t p = 0; p < 9000; p++)
                s.fake[0]->content[p] = p % 1000 == 999 ? (uint32_t)p : 4;
        s.fake[1]->content[2] = 4;
        s.fake[1]->content[3] = 999;
        scan = scan_of(&s, &o);
        run_to_the_end(scan);
        assert_int_equal(bl_scan_report(scan)->all.unique, 10);
        assert_int_equal(bl_scan_report(scan)->all.duplicate_intra, 8990);
        assert_int_equal(bl_scan_report(scan)->all.duplicate_inter, 2);
        assert_int_equal(bl_scan_report(scan)->all.zero, 3);
        assert_int_equal(bl_scan_report(scan)->source[0].f.with_copy_elsewhere, 8992);
        assert_int_equal(bl_scan_report(scan)->source[0].f.run[9], 7 * 999);
        assert_int_equal(bl_scan_report(scan)->source[0].f.run[10], 1999); /* 999 has a copy too */
        (void)bl_scan_free(scan);
        fakes_free(&s);
}

/* More sources than a matrix is made for; each has one content that all have. */
static void test_many_sources(void **state)
{
        const struct bl_scan_options o = {.settle = 1};
        struct fakes s = {0};
        struct bl_scan *scan = NULL;
        const struct bl_scan_report *r;

        (void)state;
        for (size_t k = 0; k < 300; k++) {
                fakes_add(&s, fake_new(3, k & 1));
                s.fake[k]->content[0] = (uint32_t)k + 10;
                s.fake[k]->content[2] = 9;
        }
        scan = scan_of(&s, &o);
        run_to_the_end(scan);
        r = bl_scan_report(scan);
        assert_null(r->matrix);
        judge(&s, NULL, r);
        check_oracle(&s, r);
        assert_int_equal(r->all.duplicate_inter, 299);
        scan = bl_scan_free(scan);
        fakes_free(&s);
}

static void test_too_much(void **state)
{
        const struct bl_scan_options o = {0};
        struct bl_source *sources[BL_SCAN_SOURCES_MAX + 1];
        struct fakes s = {0};
        struct bl_scan *scan = NULL;

        (void)state;
        fakes_add(&s, fake_new(1, true));
        for (size_t i = 0; i < N(sources); i++)
                sources[i] = s.source[0];
        assert_int_equal(bl_scan_new(sources, N(sources), &o, &scan), -E2BIG);
        s.source[0]->n_pages = UINT64_C(1) << 48;
        assert_int_equal(bl_scan_new(sources, 1, &o, &scan), -E2BIG);
        assert_null(scan);
        fakes_free(&s);
}

/* Stopped and gone on with at every piece, it says the same; what it says of its progress never goes back. */
static void test_resume(void **state)
{
        (void)state;
        for (uint64_t seed = 1; seed <= 6; seed++) {
                const struct bl_scan_options o = {
                        .seed = seed, .settle = 1, .memory_max = 1, .hash = seed & 1 ? hash_4_bits : NULL};
                uint64_t dice = seed;
                struct fakes s = {0};
                struct bl_scan *scan;
                struct bl_scan_progress p = {0}, last = {0};
                atomic_bool stop = false;
                unsigned steps = 0;
                int r;

                for (size_t k = 0; k < 3; k++) {
                        fakes_add(&s, fake_new(200, k == 1));
                        fake_random(s.fake[k], &dice, 300, true);
                }
                scan = scan_of(&s, &o);
                do {
                        const unsigned calls = s.fake[0]->calls;

                        atomic_store(&stop, true);
                        assert_int_equal(bl_scan_step(scan, BL_UNSET, &stop), 0);
                        assert_int_equal(s.fake[0]->calls, calls);
                        atomic_store(&stop, false);
                        r = bl_scan_step(scan, 0, &stop);
                        assert_true(r >= 0);
                        bl_scan_progress(scan, &p);
                        assert_true(p.part >= last.part && p.part <= BL_WHOLE);
                        assert_true(p.phase > last.phase || p.done >= last.done);
                        assert_true(p.done <= p.total);
                        last = p;
                        steps++;
                } while (r == 0);
                assert_true(steps > 8);
                assert_int_equal(p.phase, BL_SCAN_DONE);
                assert_int_equal(p.part, BL_WHOLE);
                judge(&s, NULL, bl_scan_report(scan));
                assert_int_equal(bl_scan_step(scan, BL_UNSET, NULL), 1);
                (void)bl_scan_free(scan);
                fakes_free(&s);
        }
}

/* Wherever memory is short, it says so, loses nothing, and goes on when there is some. */
static void test_no_memory(void **state)
{
        unsigned failures = 0, steps_failed = 0;

        (void)state;
        for (unsigned nth = 1; nth < 200; nth++) {
                const struct bl_scan_options o = {
                        .seed = 3, .settle = 1, .fail_alloc = nth, .hash = hash_4_bits, .memory_max = 1};
                uint64_t dice = 5;
                struct fakes s = {0};
                struct bl_scan *scan = NULL;
                int r;

                for (size_t k = 0; k < 2; k++) {
                        fakes_add(&s, fake_new(120, false));
                        fake_random(s.fake[k], &dice, 200, true);
                }
                fakes_remember(&s);
                r = bl_scan_new(s.source, s.n, &o, &scan);
                if (r < 0) {
                        assert_int_equal(r, -ENOMEM);
                        assert_null(scan);
                        failures++;
                        fakes_free(&s);
                        continue;
                }
                r = bl_scan_step(scan, BL_UNSET, NULL);
                if (r < 0) {
                        assert_int_equal(r, -ENOMEM);
                        failures++;
                        steps_failed++;
                        r = bl_scan_step(scan, BL_UNSET, NULL);
                }
                assert_int_equal(r, 1);
                judge(&s, NULL, bl_scan_report(scan));
                (void)bl_scan_free(scan);
                fakes_free(&s);
        }
        assert_true(failures > 20 && failures < 100);
        assert_true(steps_failed > 5);
}

/* A share of a core is what it takes at most, and a step ends in time although it sleeps. */
static void test_pace(void **state)
{
        const struct bl_scan_options o = {.settle = 1, .cpu = 1000};
        struct fakes s = {0};
        struct bl_scan *scan;
        const struct bl_scan_report *r;
        unsigned steps = 1;

        (void)state;
        fakes_add(&s, fake_new(40000, true));
        for (uint64_t p = 0; p < 40000; p++)
                s.fake[0]->content[p] = (uint32_t)p / 2 + 1;
        scan = scan_of(&s, &o);
        for (; bl_scan_step(scan, 50 * BL_MSEC, NULL) == 0; steps++)
                ;
        r = bl_scan_report(scan);
        assert_int_equal(r->all.duplicate_intra, 20000);
        assert_true(r->cpu > 0);
        /* less 50 ms that it may have to make good */
        assert_true(r->took + 50 * BL_MSEC >= r->cpu * 95 / 10);
        assert_true(steps >= 3);
        (void)bl_scan_free(scan);
        fakes_free(&s);
}

/* Distinct contents are sampled, each as often as any other. */
static void test_compress(void **state)
{
        static uint8_t bytes[6000][BL_PAGE_SIZE];
        struct bl_source *source = NULL;
        struct bl_scan *scan = NULL;
        const struct bl_scan_report *r;
        uint64_t dice = 9;

        (void)state;
        /* a quarter of the contents cannot be compressed, and has one page each; the others shrink to nearly nothing */
        for (size_t i = 0; i < N(bytes); i++)
                for (size_t k = 0; k < BL_PAGE_SIZE; k += 4) {
                        const uint32_t w = i < 1000 ? below(&dice, UINT32_MAX) : (uint32_t)(i - 1000) / 5 * 3 + 1;

                        memcpy(&bytes[i][k], &w, sizeof(w));
                }
        for (size_t i = 4000; i < N(bytes); i++)
                for (size_t k = 0; k < BL_PAGE_SIZE; k += 4)
                        memcpy(&bytes[i][k], &(uint32_t){(uint32_t)i * 3}, 4);
        assert_int_equal(bl_source_memory("pages", bytes, N(bytes), &source), 0);
        assert_int_equal(bl_scan_new(&source, 1, &(struct bl_scan_options){.compress_sample = 900}, &scan), 0);
        run_to_the_end(scan);
        r = bl_scan_report(scan);
        assert_int_equal(r->all.unique, 1000 + 600 + 2000);
        assert_int_equal(r->all.duplicate_intra, 2400);
        assert_int_equal(r->compressed, 900);
        /* 1 : 2.6 of those that shrink to 33 bytes: (3600 * 4096) / (1000 * 4096 + 2600 * 33) */
        /* 250 of the sample do not shrink, give or take 13: bounds at four and a half times that */
        assert_true(r->compress_ratio > 2.8 && r->compress_ratio < 4.6);
        assert_true(r->still);
        (void)bl_scan_free(scan);
        (void)bl_source_free(source);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_random),       cmocka_unit_test(test_collisions),
                cmocka_unit_test(test_small),        cmocka_unit_test(test_zeros),
                cmocka_unit_test(test_sizes),        cmocka_unit_test(test_many_copies),
                cmocka_unit_test(test_many_sources), cmocka_unit_test(test_too_much),
                cmocka_unit_test(test_resume),       cmocka_unit_test(test_no_memory),
                cmocka_unit_test(test_pace),         cmocka_unit_test(test_compress),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
