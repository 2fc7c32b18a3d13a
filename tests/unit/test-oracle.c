// SPDX-License-Identifier: LGPL-2.1-or-later
/* The oracle against the naive judge; what it says of a difference, and of a place without room. */
#include <sys/mount.h>
#include <sys/stat.h>

#include "test-scan-util.h"

/* What the naive judge counts, in the form of a report, and the figures that an oracle has none of left out. */
static struct bl_scan_report *naive_report(const struct fakes *s)
{
        static const bool none[512];
        struct bl_scan_report *r = calloc(1, sizeof(*r));
        struct naive *v = calloc(1, sizeof(*v));

        assert_non_null(r);
        assert_non_null(v);
        r->n = s->n;
        r->source = calloc(s->n, sizeof(*r->source));
        r->matrix = v->matrix = calloc(s->n * s->n, sizeof(*r->matrix));
        for (size_t k = 0; k < s->n; k++) {
                naive_source(v, s, none, k);
                r->source[k].f = v->source[k];
#define X(name) r->all.name += v->source[k].name;
                SUMMED
#undef X
        }
        free(v);
        return r;
}

static void test_random(void **state)
{
        (void)state;
        for (uint64_t seed = 1; seed <= 60; seed++) {
                struct bl_scan_report *oracle = NULL, *naive;
                struct fakes s = {0};
                char *message = NULL, *difference;
                uint64_t dice = seed;

                for (size_t k = 0; k <= seed % 4; k++) {
                        fakes_add(&s, fake_new(below(&dice, 300), true));
                        fake_random(s.fake[k], &dice, 1 + below(&dice, 200), seed % 3 > 0);
                        if (seed % 5 == 0 && s.source[k]->n_pages > 0)
                                s.fake[k]->refused[0] = true;
                }
                fakes_remember(&s);
                assert_int_equal(bl_oracle_run(s.source, s.n, NULL, &oracle, &message), 0);
                naive = naive_report(&s);
                difference = bl_oracle_difference(naive, oracle);
                if (difference)
                        fail_msg("%s", difference);
                adds_up(&oracle->all);
                assert_true(oracle->still);
                (void)bl_oracle_free(naive);
                (void)bl_oracle_free(oracle);
                fakes_free(&s);
        }
}

/* Every figure that the oracle has is compared. */
static void test_difference(void **state)
{
        struct bl_scan_report *a = NULL, *b = NULL;
        struct fakes s = {0};
        char *message = NULL, *d;
        uint64_t dice = 4;

        (void)state;
        for (size_t k = 0; k < 2; k++) {
                fakes_add(&s, fake_new(100, true));
                fake_random(s.fake[k], &dice, 50, true);
        }
        assert_int_equal(bl_oracle_run(s.source, 2, "/tmp", &a, &message), 0);
        assert_int_equal(bl_oracle_run(s.source, 2, "/tmp", &b, &message), 0);
        assert_null(bl_oracle_difference(a, b));
#define CHANGED(field, word)                      \
        do {                                      \
                (field)++;                        \
                d = bl_oracle_difference(a, b);   \
                assert_non_null(d);               \
                assert_non_null(strstr(d, word)); \
                free(d);                          \
                (field)--;                        \
        } while (0)
#define X(name)                                      \
        if (strcmp(#name, "volatile_pages") != 0) {  \
                CHANGED(a->all.name, #name);         \
                CHANGED(a->source[1].f.name, #name); \
        }
        SUMMED
#undef X
        CHANGED(a->source[0].f.with_copy_elsewhere, "with_copy_elsewhere");
        CHANGED(a->matrix[2], "sources 2 and 1");
        CHANGED(a->n, "sources");
        CHANGED(a->sample_shift, "1/2 of the hash space");
        CHANGED(a->source[1].error, "source 2 was left out");
        /* a scan that lost pages says so with the difference */
        a->all.volatile_pages = 7;
        assert_null(bl_oracle_difference(a, b));
        CHANGED(a->all.zero, "7 pages changed");
        (void)bl_oracle_free(a);
        (void)bl_oracle_free(b);
        fakes_free(&s);
}

static void test_failures(void **state)
{
        struct bl_scan_report *r = NULL;
        struct fakes s = {0};
        char *message = NULL;

        (void)state;
        fakes_add(&s, fake_new(10, true));
        s.fake[0]->content[3] = 1;
        assert_int_equal(bl_oracle_run(s.source, 1, "/nonexistent/place", &r, &message), -ENOENT);
        assert_non_null(strstr(message, "/nonexistent/place"));
        free(message);
        s.fake[0]->dies_at = 2;
        message = NULL;
        assert_int_equal(bl_oracle_run(s.source, 1, "/tmp", &r, &message), -ESRCH);
        assert_non_null(strstr(message, "fake"));
        free(message);
        assert_null(r);
        fakes_free(&s);
}

/* A place that is too small is named, with what it would take. */
static void test_no_room(void **state)
{
        char dir[] = "/tmp/ballast-oracle-XXXXXX";
        struct bl_scan_report *r = NULL;
        struct fakes s = {0};
        char *message = NULL;
        int e;

        (void)state;
        assert_non_null(mkdtemp(dir));
        if (mount("tmpfs", dir, "tmpfs", 0, "size=2m") < 0) {
                assert_int_equal(rmdir(dir), 0);
                skip();
        }
        fakes_add(&s, fake_new(1024, true));
        for (uint32_t i = 0; i < 1024; i++)
                s.fake[0]->content[i] = i + 1;
        e = bl_oracle_run(s.source, 1, dir, &r, &message);
        assert_int_equal(umount(dir), 0);
        assert_int_equal(rmdir(dir), 0);
        assert_int_equal(e, -ENOSPC);
        assert_non_null(strstr(message, dir));
        assert_non_null(strstr(message, "4 MiB"));
        assert_non_null(strstr(message, "2 MiB"));
        free(message);
        fakes_free(&s);
}

/* The memory source, which is what copies are looked at through. */
static void test_memory_source(void **state)
{
        static uint8_t bytes[6][BL_PAGE_SIZE];
        struct bl_source *source = NULL;
        struct bl_scan_report *r = NULL;
        char *message = NULL;
        struct bl_page_look look[4];
        uint8_t buffer[2][BL_PAGE_SIZE];
        bool ok[2] = {false, true};

        (void)state;
        memset(bytes[1], 1, BL_PAGE_SIZE);
        memset(bytes[2], 2, BL_PAGE_SIZE);
        memset(bytes[4], 1, BL_PAGE_SIZE);
        bytes[5][4095] = 9;
        assert_int_equal(bl_source_memory("here", bytes, 6, &source), 0);
        assert_string_equal(source->name, "here");
        assert_true(source->still);
        assert_int_equal(source->ops->look(source, 4, 4, look), 0);
        assert_int_equal(look[1].state, BL_PAGE_PRESENT);
        assert_int_equal(look[2].state, BL_PAGE_ABSENT);
        assert_int_equal(source->ops->read(source, (const uint64_t[]){2, 6}, 2, buffer, ok), 0);
        assert_true(ok[0] && !ok[1]);
        assert_memory_equal(buffer[0], bytes[2], BL_PAGE_SIZE);
        assert_int_equal(source->ops->again(source), 0);
        assert_int_equal(bl_oracle_run(&source, 1, NULL, &r, &message), 0);
        assert_int_equal(r->all.pages, 6);
        assert_int_equal(r->all.zero, 2);
        assert_int_equal(r->all.unique, 3);
        assert_int_equal(r->all.duplicate_intra, 1);
        assert_int_equal(r->matrix[0], 1);
        (void)bl_oracle_free(r);
        assert_null(bl_source_free(source));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_random),  cmocka_unit_test(test_difference),    cmocka_unit_test(test_failures),
                cmocka_unit_test(test_no_room), cmocka_unit_test(test_memory_source),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
