// SPDX-License-Identifier: LGPL-2.1-or-later
/* Sources that change, end, stand still or are laid out anew while they are scanned. */
#include "test-scan-util.h"

static const struct bl_scan_options settle_soon = {.settle = 1};

/* Pages, over all sources, that held this content when the scan began. */
static size_t had(const struct fakes *s, uint32_t content)
{
        size_t n = 0;

        for (size_t k = 0; k < s->n; k++)
                for (uint64_t i = 0; i < s->source[k]->n_pages; i++)
                        n += s->fake[k]->first[i] == content && !s->fake[k]->refused[i] &&
                             (s->fake[k]->first_look[i].state == BL_PAGE_PRESENT ||
                              s->fake[k]->first_look[i].state == BL_PAGE_MERGED);
        return n;
}

/* Frame numbers all move on to another content, as if each had been given back and taken again. */
static void pass_frames_on(struct fakes *s)
{
        for (size_t k = 0; k < s->n; k++)
                for (uint64_t i = 0; i < s->source[k]->n_pages; i++)
                        if (s->fake[k]->look[i].state == BL_PAGE_MERGED)
                                s->fake[k]->look[i].frame = (uint64_t)s->fake[k]->content[i] * 2 + 2;
}

/* One page that had copies is written between its two looks: it is in no class, and its copies are. */
static void test_written_between(void **state)
{
        struct fakes s = {0};
        struct bl_scan *scan;
        const struct bl_scan_report *r;

        (void)state;
        fakes_add(&s, fake_new(4, false));
        fakes_add(&s, fake_new(4, false));
        for (uint32_t i = 0; i < 4; i++)
                s.fake[0]->content[i] = s.fake[1]->content[i] = i;
        scan = scan_of(&s, &settle_soon);
        run_to(scan, BL_SCAN_COMPARE);
        s.fake[0]->content[1] = 77; /* alone now */
        s.fake[1]->content[2] = 3; /* another one's copy now */
        s.fake[0]->content[0] = 3; /* was zero */
        run_to_the_end(scan);
        s.fake[0]->is_volatile[1] = s.fake[1]->is_volatile[2] = s.fake[0]->is_volatile[0] = true;
        r = bl_scan_report(scan);
        judge(&s, NULL, r);
        assert_int_equal(r->all.volatile_pages, 3);
        assert_int_equal(r->all.duplicate_inter, 1);
        assert_int_equal(r->all.zero, 1);
        assert_false(r->still);
        (void)bl_scan_free(scan);
        fakes_free(&s);
}

/* Zero pages have their second look too, however many batches they fill. */
static void test_zeros_written(void **state)
{
        struct fakes s = {0};
        struct bl_scan *scan;
        const struct bl_scan_report *r;

        (void)state;
        fakes_add(&s, fake_new(900, false));
        fakes_add(&s, fake_new(900, true));
        scan = scan_of(&s, &settle_soon);
        run_to(scan, BL_SCAN_COMPARE);
        for (uint32_t i = 0; i < 900; i += 3) {
                s.fake[0]->content[i] = i + 1;
                s.fake[0]->look[i + 1].state = BL_PAGE_KERNEL_ZERO; /* takes no memory any more */
        }
        run_to_the_end(scan);
        r = bl_scan_report(scan);
        assert_int_equal(r->source[0].f.zero, 300);
        assert_int_equal(r->source[0].f.volatile_pages, 600);
        assert_int_equal(r->source[1].f.zero, 900);
        adds_up(&r->all);
        /* a still source is not asked again */
        assert_int_equal(s.fake[1]->pages_read, 900);
        (void)bl_scan_free(scan);
        fakes_free(&s);
}

/* As before, with hashes that are all alike: the hash held, so the bytes decide, and the last ones count. */
static void test_written_under_a_collision(void **state)
{
        const struct bl_scan_options o = {.settle = 1, .hash = hash_constant};
        struct fakes s = {0};
        struct bl_scan *scan;

        (void)state;
        fakes_add(&s, fake_new(4, false));
        fakes_add(&s, fake_new(4, false));
        for (uint32_t i = 0; i < 4; i++)
                s.fake[0]->content[i] = s.fake[1]->content[i] = i + 1;
        scan = scan_of(&s, &o);
        run_to(scan, BL_SCAN_COMPARE);
        s.fake[0]->content[1] = 77;
        s.fake[1]->content[2] = 4;
        fakes_remember(&s);
        run_to_the_end(scan);
        judge(&s, NULL, bl_scan_report(scan));
        (void)bl_scan_free(scan);
        fakes_free(&s);
}

/* What a page may become.  Pages that leave memory must not be read again: the fake source asserts that. */
static void change(struct fake *f, uint64_t i, uint64_t *dice, uint32_t contents)
{
        switch (below(dice, 5)) {
        case 0:
                f->look[i].state = BL_PAGE_ABSENT;
                break;
        case 1:
                f->look[i].state = BL_PAGE_SWAPPED;
                break;
        case 2:
                f->look[i].state = BL_PAGE_KERNEL_ZERO;
                break;
        case 3: /* the content stays, whether the page is merged or broken out */
                f->look[i].state = f->look[i].state == BL_PAGE_MERGED ? BL_PAGE_PRESENT : BL_PAGE_MERGED;
                break;
        default:
                f->look[i].state = BL_PAGE_PRESENT;
                f->content[i] = below(dice, contents);
        }
}

/* Many changes between the looks: what becomes of each page is known. */
static void test_changes(void **state)
{
        (void)state;
        for (uint64_t seed = 1; seed <= 150; seed++) {
                const struct bl_scan_options o = {.settle = 1, .memory_max = seed & 1};
                uint64_t dice = seed;
                struct fakes s = {0};
                struct bl_scan *scan;

                for (size_t k = 0; k < 3; k++) {
                        fakes_add(&s, fake_new(80, k == 2));
                        fake_random(s.fake[k], &dice, 60, true);
                }
                scan = scan_of(&s, &o);
                run_to(scan, BL_SCAN_COMPARE);
                for (size_t n = below(&dice, 60); n > 0; n--) {
                        struct fake *f = s.fake[below(&dice, 2)];
                        const uint64_t i = below(&dice, 80);

                        if (f->first_look[i].state == BL_PAGE_PRESENT || f->first_look[i].state == BL_PAGE_MERGED)
                                change(f, i, &dice, 60);
                }
                pass_frames_on(&s);
                run_to_the_end(scan);
                for (size_t k = 0; k < 2; k++)
                        for (uint64_t i = 0; i < 80; i++) {
                                struct fake *f = s.fake[k];
                                const bool there =
                                        f->look[i].state == BL_PAGE_PRESENT || f->look[i].state == BL_PAGE_MERGED;

                                /* zero pages and those with copies have a second look */
                                f->is_volatile[i] = (f->first[i] == 0 || had(&s, f->first[i]) > 1) &&
                                                    (f->first_look[i].state == BL_PAGE_PRESENT ||
                                                     f->first_look[i].state == BL_PAGE_MERGED) &&
                                                    (!there || f->content[i] != f->first[i]);
                        }
                judge(&s, NULL, bl_scan_report(scan));
                (void)bl_scan_free(scan);
                fakes_free(&s);
        }
}

/* Merged pages that change before one of each frame is read: what was looked at counts for nothing by then. */
static void test_frames_change(void **state)
{
        (void)state;
        for (uint64_t seed = 1; seed <= 100; seed++) {
                uint64_t dice = seed;
                struct fakes s = {0};
                struct bl_scan *scan;

                for (size_t k = 0; k < 3; k++) {
                        fakes_add(&s, fake_new(60, k == 2));
                        fake_random(s.fake[k], &dice, 20, true);
                        for (uint64_t i = 0; i < 60; i += 2)
                                s.fake[k]->look[i] = (struct bl_page_look){
                                        .state = BL_PAGE_MERGED, .frame = (uint64_t)s.fake[k]->content[i] * 2 + 1};
                }
                scan = scan_of(&s, &settle_soon);
                run_to(scan, BL_SCAN_SORT);
                for (size_t n = 0; n < 25; n++) {
                        struct fake *f = s.fake[below(&dice, 2)];
                        const uint64_t i = below(&dice, 30) * 2;

                        change(f, i, &dice, 20);
                        f->first[i] = f->content[i];
                        f->is_volatile[i] = f->look[i].state != BL_PAGE_PRESENT && f->look[i].state != BL_PAGE_MERGED;
                }
                pass_frames_on(&s);
                run_to_the_end(scan);
                judge(&s, NULL, bl_scan_report(scan));
                (void)bl_scan_free(scan);
                fakes_free(&s);
        }
}

/* One page of each frame is read in each of the two looks, whoever has it. */
static void test_frames_are_read_once(void **state)
{
        struct fakes s = {0};
        struct bl_scan *scan;

        (void)state;
        for (size_t k = 0; k < 2; k++) {
                fakes_add(&s, fake_new(64, false));
                for (uint32_t i = 0; i < 64; i++) {
                        s.fake[k]->content[i] = i / 2 + 1;
                        s.fake[k]->look[i] = (struct bl_page_look){.state = BL_PAGE_MERGED, .frame = i / 2 + 500};
                }
        }
        scan = scan_of(&s, &settle_soon);
        run_to(scan, BL_SCAN_COMPARE);
        assert_int_equal(s.fake[0]->pages_read + s.fake[1]->pages_read, 32);
        run_to_the_end(scan);
        /* and once more for the sample that is compressed */
        assert_int_equal(s.fake[0]->pages_read + s.fake[1]->pages_read, 96);
        assert_int_equal(bl_scan_report(scan)->all.merged_frames, 32);
        assert_int_equal(bl_scan_report(scan)->all.merged_saved, 96);
        judge(&s, NULL, bl_scan_report(scan));
        (void)bl_scan_free(scan);
        fakes_free(&s);
}

static uint64_t torn_seed;
static unsigned torn;

/* Each read finds some page changed since, one that is being read just now or another. */
static void tear(struct fake *f, const uint64_t *pages, size_t n)
{
        const uint64_t i = below(&torn_seed, 2) ? pages[below(&torn_seed, (uint32_t)n)]
                                                : below(&torn_seed, (uint32_t)f->source.n_pages);

        if (f->look[i].state != BL_PAGE_PRESENT || f->source.still)
                return;
        f->content[i] = below(&torn_seed, 40);
        torn += !f->is_volatile[i];
        f->is_volatile[i] = true;
}

/* Changes at any moment: no page is counted that is not there, and what stands still is counted as it is. */
static void test_torn(void **state)
{
        (void)state;
        for (uint64_t seed = 1; seed <= 100; seed++) {
                const struct bl_scan_options o = {
                        .settle = 1, .memory_max = seed & 1, .hash = seed % 3 == 0 ? hash_constant : NULL};
                uint64_t dice = seed;
                struct fakes s = {0};
                struct bl_scan *scan;
                const struct bl_scan_report *r;
                uint64_t saved = 0, unique = 0;

                for (size_t k = 0; k < 2; k++) {
                        fakes_add(&s, fake_new(150, k == 1 && seed & 2));
                        fake_random(s.fake[k], &dice, 40, false);
                        s.fake[k]->on_read = tear;
                }
                torn_seed = seed;
                torn = 0;
                scan = scan_of(&s, &o);
                run_to_the_end(scan);
                r = bl_scan_report(scan);
                adds_up(&r->all);
                assert_int_equal(r->all.pages, 300);
                assert_true(r->all.volatile_pages <= torn);
                /* what those that nobody wrote to have among themselves */
                for (uint32_t content = 0; content < 40; content++) {
                        uint64_t n = 0;

                        for (size_t k = 0; k < 2; k++)
                                for (size_t i = 0; i < 150; i++)
                                        n += s.fake[k]->first[i] == content && !s.fake[k]->is_volatile[i];
                        saved += content == 0 ? n : n - (n > 0);
                        unique += content != 0 && n > 0;
                }
                assert_in_range(r->all.saved_pages, saved, saved + torn);
                assert_in_range(r->all.unique, unique, unique + torn);
                (void)bl_scan_free(scan);
                fakes_free(&s);
        }
}

/* A source ends at any of the calls to it: the others' figures are as if it had never been there. */
static void test_dies(void **state)
{
        static const int errors[] = {ESRCH, EIO, EPERM};
        unsigned most = 0;

        (void)state;
        for (uint64_t seed = 1; seed <= 6; seed++)
                for (unsigned at = 1; at < 60; at++) {
                        const struct bl_scan_options o = {.settle = 1, .memory_max = seed & 1};
                        const unsigned dying = (unsigned)seed % 3;
                        uint64_t dice = seed;
                        bool lost[3] = {false};
                        struct fakes s = {0};
                        struct bl_scan *scan;

                        for (size_t k = 0; k < 3; k++) {
                                fakes_add(&s, fake_new(70, k == 0));
                                fake_random(s.fake[k], &dice, 50, true);
                        }
                        s.fake[dying]->dies_at = at;
                        s.fake[dying]->error = (unsigned)errors[seed % N(errors)];
                        scan = scan_of(&s, &o);
                        run_to_the_end(scan);
                        lost[dying] = s.fake[dying]->calls >= at;
                        if (lost[dying])
                                assert_int_equal(bl_scan_report(scan)->source[dying].error, -errors[seed % N(errors)]);
                        judge(&s, lost, bl_scan_report(scan));
                        /* it is left alone afterwards */
                        assert_true(s.fake[dying]->calls <= at);
                        if (lost[dying] && at > most)
                                most = at;
                        (void)bl_scan_free(scan);
                        fakes_free(&s);
                }
        /* all passes were met */
        assert_true(most >= 8);
}

static void test_all_die(void **state)
{
        bool lost[2] = {true, true};
        struct fakes s = {0};
        struct bl_scan *scan;

        (void)state;
        for (unsigned k = 0; k < 2; k++) {
                fakes_add(&s, fake_new(70, false));
                for (uint32_t i = 0; i < 70; i++)
                        s.fake[k]->content[i] = i;
                s.fake[k]->dies_at = 4 + k;
        }
        scan = scan_of(&s, &settle_soon);
        run_to_the_end(scan);
        assert_int_equal(bl_scan_report(scan)->all.pages, 0);
        judge(&s, lost, bl_scan_report(scan));
        (void)bl_scan_free(scan);
        fakes_free(&s);
}

/* Laid out anew, and seen whenever it is asked. */
static void test_resized(void **state)
{
        unsigned lost_at = 0;

        (void)state;
        for (unsigned at = 1; at <= 5; at++) {
                uint64_t dice = at;
                bool lost[2] = {false};
                struct fakes s = {0};
                struct bl_scan *scan;

                for (size_t k = 0; k < 2; k++) {
                        fakes_add(&s, fake_new(50, false));
                        fake_random(s.fake[k], &dice, 50, true);
                }
                s.fake[1]->resized_at = at;
                scan = scan_of(&s, &settle_soon);
                run_to_the_end(scan);
                lost[1] = s.fake[1]->agains >= at;
                if (lost[1]) {
                        assert_int_equal(bl_scan_report(scan)->source[1].error, -ESTALE);
                        lost_at = at;
                }
                judge(&s, lost, bl_scan_report(scan));
                (void)bl_scan_free(scan);
                fakes_free(&s);
        }
        /* after the first look, before the second one, and at the end */
        assert_int_equal(lost_at, 3);
}

/* Pages that cannot be read: of a dump they are unreadable, of a guest they went. */
static void test_refused(void **state)
{
        (void)state;
        for (uint64_t seed = 1; seed <= 30; seed++) {
                uint64_t dice = seed;
                struct fakes s = {0};
                struct bl_scan *scan;

                for (size_t k = 0; k < 2; k++) {
                        fakes_add(&s, fake_new(80, k == 1));
                        fake_random(s.fake[k], &dice, 40, false);
                        for (size_t n = 0; n < 12; n++)
                                s.fake[k]->refused[below(&dice, 80)] = true;
                }
                scan = scan_of(&s, &settle_soon);
                run_to_the_end(scan);
                judge(&s, NULL, bl_scan_report(scan));
                assert_true(bl_scan_report(scan)->source[1].f.unreadable > 0);
                assert_true(bl_scan_report(scan)->source[0].f.volatile_pages > 0);
                (void)bl_scan_free(scan);
                fakes_free(&s);
        }
}

/* A page has its second look not before it settled; nobody waits where all stand still. */
static void test_settles(void **state)
{
        (void)state;
        for (unsigned still = 0; still < 2; still++) {
                const struct bl_scan_options o = {.settle = still ? 20 * BL_SEC : 60 * BL_MSEC};
                struct fakes s = {0};
                struct bl_scan *scan;

                fakes_add(&s, fake_new(10, still));
                for (uint32_t i = 0; i < 10; i++)
                        s.fake[0]->content[i] = i / 2 + 1;
                scan = scan_of(&s, &o);
                run_to_the_end(scan);
                judge(&s, NULL, bl_scan_report(scan));
                if (still)
                        assert_true(bl_scan_report(scan)->took < 10 * BL_SEC);
                else
                        assert_true(bl_scan_report(scan)->took >= 60 * BL_MSEC);
                (void)bl_scan_free(scan);
                fakes_free(&s);
        }
}

/* A source that blocks for a while (a VM that is paused) costs time and nothing else. */
static void test_pauses(void **state)
{
        struct fakes s = {0};
        struct bl_scan *scan;
        uint64_t dice = 3;
        unsigned steps = 1;

        (void)state;
        for (size_t k = 0; k < 2; k++) {
                fakes_add(&s, fake_new(100, false));
                fake_random(s.fake[k], &dice, 30, true);
                s.fake[k]->sleep_us = 20000;
        }
        scan = scan_of(&s, &settle_soon);
        for (; bl_scan_step(scan, BL_MSEC, NULL) == 0; steps++)
                ;
        judge(&s, NULL, bl_scan_report(scan));
        assert_true(steps > 4);
        assert_true(bl_scan_report(scan)->took > 100 * BL_MSEC);
        assert_true(bl_scan_report(scan)->cpu < bl_scan_report(scan)->took / 2);
        (void)bl_scan_free(scan);
        fakes_free(&s);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_written_between),
                cmocka_unit_test(test_zeros_written),
                cmocka_unit_test(test_written_under_a_collision),
                cmocka_unit_test(test_changes),
                cmocka_unit_test(test_frames_change),
                cmocka_unit_test(test_frames_are_read_once),
                cmocka_unit_test(test_torn),
                cmocka_unit_test(test_dies),
                cmocka_unit_test(test_all_die),
                cmocka_unit_test(test_resized),
                cmocka_unit_test(test_refused),
                cmocka_unit_test(test_settles),
                cmocka_unit_test(test_pauses),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
