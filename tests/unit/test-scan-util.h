/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sources whose every page the test knows, and the figures that a scan of them must have, by comparing all with all. */
#ifndef BALLAST_TEST_SCAN_UTIL_H
#define BALLAST_TEST_SCAN_UTIL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/pages/oracle.h"
#include "daemon/pages/scan.h"

#define N(a) (sizeof(a) / sizeof((a)[0]))

struct fake {
        struct bl_source source;
        /* of each page: what it holds (0: zeros), and what look() says */
        uint32_t *content;
        struct bl_page_look *look;
        bool *refused; /* read() says that it is not ok */
        /* what the judge goes by: both as they were when the scan began, and what became of the page since */
        uint32_t *first;
        struct bl_page_look *first_look;
        bool *is_volatile;
        unsigned calls; /* of look, read and again together */
        unsigned dies_at; /* so manieth call; 0: never */
        unsigned error; /* with it */
        unsigned resized_at; /* so manieth again(); 0: never */
        unsigned agains;
        unsigned sleep_us; /* of each read */
        uint64_t pages_read;
        void (*on_read)(struct fake *f, const uint64_t *pages, size_t n);
};

static inline uint32_t below(uint64_t *seed, uint32_t n)
{
        *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return (uint32_t)((*seed >> 33) % n);
}

/* Contents are alike but for their number, at the end or in the middle, so that a comparison has to go there. */
static inline void fake_fill(uint8_t *page, uint32_t content)
{
        memset(page, 0, BL_PAGE_SIZE);
        if (content == 0)
                return;
        memset(page + 100, 7, 1000);
        memcpy(page + (content % 3 == 0 ? 2000 : BL_PAGE_SIZE - sizeof(content)), &content, sizeof(content));
}

static inline int fake_call(struct fake *f)
{
        f->calls++;
        return f->dies_at > 0 && f->calls >= f->dies_at ? -(int)f->error : 0;
}

static inline int fake_look(struct bl_source *s, uint64_t first, size_t n, struct bl_page_look *ret)
{
        struct fake *f = (struct fake *)s;
        int r = fake_call(f);

        if (r < 0)
                return r;
        assert_true(n > 0 && first + n <= s->n_pages);
        memcpy(ret, f->look + first, n * sizeof(*ret));
        return 0;
}

static inline int fake_read(struct bl_source *s, const uint64_t *pages, size_t n, void *buf, bool *ret_ok)
{
        struct fake *f = (struct fake *)s;
        int r = fake_call(f);

        if (r < 0)
                return r;
        if (f->on_read)
                f->on_read(f, pages, n);
        if (f->sleep_us > 0)
                (void)nanosleep(&(struct timespec){.tv_nsec = (long)f->sleep_us * 1000}, NULL);
        assert_true(n > 0);
        for (size_t i = 0; i < n; i++) {
                const uint8_t state = f->look[pages[i]].state;

                assert_true(pages[i] < s->n_pages);
                assert_true(i == 0 || pages[i] > pages[i - 1]);
                /* nothing is brought back into memory */
                assert_true(state == BL_PAGE_PRESENT || state == BL_PAGE_MERGED);
                ret_ok[i] = !f->refused[pages[i]];
                if (ret_ok[i])
                        fake_fill((uint8_t *)buf + i * BL_PAGE_SIZE, f->content[pages[i]]);
        }
        f->pages_read += n;
        return 0;
}

static inline int fake_again(struct bl_source *s)
{
        struct fake *f = (struct fake *)s;
        int r = fake_call(f);

        return r < 0 ? r : ++f->agains == f->resized_at;
}

static inline struct bl_source *fake_free(struct bl_source *s)
{
        struct fake *f = (struct fake *)s;

        free(f->content);
        free(f->look);
        free(f->refused);
        free(f->first);
        free(f->first_look);
        free(f->is_volatile);
        free(f);
        return NULL;
}

static const struct bl_source_ops fake_ops = {
        .look = fake_look,
        .read = fake_read,
        .again = fake_again,
        .free = fake_free,
};

static inline struct fake *fake_new(uint64_t n, bool still)
{
        struct fake *f = calloc(1, sizeof(*f));
        const size_t room = n > 0 ? n : 1;

        assert_non_null(f);
        f->source = (struct bl_source){.ops = &fake_ops, .name = (char *)"fake", .n_pages = n, .still = still};
        f->content = calloc(room, sizeof(*f->content));
        f->look = calloc(room, sizeof(*f->look));
        f->refused = calloc(room, sizeof(*f->refused));
        f->first = calloc(room, sizeof(*f->first));
        f->first_look = calloc(room, sizeof(*f->first_look));
        f->is_volatile = calloc(room, sizeof(*f->is_volatile));
        f->error = ESRCH;
        for (uint64_t i = 0; i < n; i++)
                f->look[i].state = BL_PAGE_PRESENT;
        return f;
}

/* A set of them. */
struct fakes {
        struct fake *fake[512];
        struct bl_source *source[512];
        size_t n;
};

static inline void fakes_add(struct fakes *s, struct fake *f)
{
        s->fake[s->n] = f;
        s->source[s->n++] = &f->source;
}

static inline void fakes_free(struct fakes *s)
{
        while (s->n > 0)
                (void)bl_source_free(s->source[--s->n]);
}

/* Random contents out of `contents`, in runs; every eighth page, or none, is something special. */
static inline void fake_random(struct fake *f, uint64_t *seed, uint32_t contents, bool special)
{
        uint32_t content = 0;

        for (uint64_t i = 0; i < f->source.n_pages; i++) {
                content = below(seed, 3) == 0 ? below(seed, contents) : content + (content < contents - 1);
                f->content[i] = content;
                if (!special || below(seed, 8) > 0)
                        continue;
                f->look[i].state = (uint8_t)below(seed, _BL_PAGE_STATE_MAX);
                if (f->look[i].state == BL_PAGE_MERGED)
                        f->look[i].frame = (uint64_t)content * 2 + below(seed, 2);
        }
}

static inline void fakes_remember(struct fakes *s)
{
        for (size_t k = 0; k < s->n; k++) {
                struct fake *f = s->fake[k];

                memcpy(f->first, f->content, s->source[k]->n_pages * sizeof(*f->first));
                memcpy(f->first_look, f->look, s->source[k]->n_pages * sizeof(*f->look));
        }
}

/* --- the naive judge: all pages against all pages ---------------------------- */

struct naive {
        struct bl_scan_figures source[512], all;
        uint64_t *matrix;
        size_t n;
};

/* Is the page one of a content, as the first look knows it? */
static inline bool naive_counts(const struct fake *f, uint64_t i)
{
        return (f->first_look[i].state == BL_PAGE_PRESENT || f->first_look[i].state == BL_PAGE_MERGED) &&
               !f->refused[i] && !f->is_volatile[i] && f->first[i] != 0;
}

static inline void naive_page(struct naive *v, const struct fakes *s, const bool *lost, size_t k, uint64_t i)
{
        const struct fake *f = s->fake[k];
        struct bl_scan_figures *g = &v->source[k];
        bool here = false, before = false, after = false;

        for (size_t j = 0; j < s->n; j++)
                for (uint64_t x = 0; !lost[j] && x < s->source[j]->n_pages; x++) {
                        if ((j == k && x == i) || !naive_counts(s->fake[j], x) || s->fake[j]->first[x] != f->first[i])
                                continue;
                        here |= j == k && x < i;
                        before |= j < k;
                        after |= j > k;
                }
        if (here)
                g->duplicate_intra++;
        else if (before)
                g->duplicate_inter++;
        else
                g->unique++;
        g->with_copy_elsewhere += before || after;
}

static inline bool naive_has_copy(const struct fakes *s, const bool *lost, size_t k, uint64_t i)
{
        if (i >= s->source[k]->n_pages || !naive_counts(s->fake[k], i))
                return false;
        for (size_t j = 0; j < s->n; j++)
                for (uint64_t x = 0; !lost[j] && x < s->source[j]->n_pages; x++)
                        if ((j != k || x != i) && naive_counts(s->fake[j], x) &&
                            s->fake[j]->first[x] == s->fake[k]->first[i])
                                return true;
        return false;
}

static inline void naive_runs(struct naive *v, const struct fakes *s, const bool *lost, size_t k)
{
        for (uint64_t i = 0, n; i < s->source[k]->n_pages; i += n + 1) {
                unsigned power = 0;

                for (n = 0; naive_has_copy(s, lost, k, i + n); n++)
                        ;
                while (n >> (power + 1) > 0 && power < BL_SCAN_RUNS - 1)
                        power++;
                v->source[k].run[power] += n;
        }
}

/* Contents that j and k both have. */
static inline uint64_t naive_common(const struct fakes *s, size_t j, size_t k)
{
        uint64_t n = 0;

        for (uint64_t i = 0; i < s->source[j]->n_pages; i++) {
                bool first = naive_counts(s->fake[j], i), both = false;

                for (uint64_t x = 0; first && x < i; x++)
                        first = !naive_counts(s->fake[j], x) || s->fake[j]->first[x] != s->fake[j]->first[i];
                for (uint64_t x = 0; first && !both && x < s->source[k]->n_pages; x++)
                        both = naive_counts(s->fake[k], x) && s->fake[k]->first[x] == s->fake[j]->first[i];
                n += both;
        }
        return n;
}

static inline bool naive_frame_is_new(const struct fakes *s, const bool *lost, size_t k, uint64_t i)
{
        for (size_t j = 0; j <= k; j++)
                for (uint64_t x = 0; !lost[j] && x < (j == k ? i : s->source[j]->n_pages); x++)
                        if (s->fake[j]->first_look[x].state == BL_PAGE_MERGED &&
                            s->fake[j]->first_look[x].frame == s->fake[k]->first_look[i].frame)
                                return false;
        return true;
}

static inline void naive_source(struct naive *v, const struct fakes *s, const bool *lost, size_t k)
{
        const struct fake *f = s->fake[k];
        struct bl_scan_figures *g = &v->source[k];

        for (uint64_t i = 0; i < f->source.n_pages; i++) {
                const uint8_t state = f->first_look[i].state;

                g->absent += state == BL_PAGE_ABSENT;
                g->swapped += state == BL_PAGE_SWAPPED;
                g->kernel_zero += state == BL_PAGE_KERNEL_ZERO;
                if (state != BL_PAGE_PRESENT && state != BL_PAGE_MERGED && state != BL_PAGE_UNREADABLE)
                        continue;
                g->pages++;
                if (state == BL_PAGE_MERGED) {
                        g->merged++;
                        g->merged_frames += naive_frame_is_new(s, lost, k, i);
                }
                if (state == BL_PAGE_UNREADABLE || (f->refused[i] && f->source.still))
                        g->unreadable++;
                else if (f->is_volatile[i] || f->refused[i])
                        g->volatile_pages++;
                else if (f->first[i] == 0)
                        g->zero++;
                else
                        naive_page(v, s, lost, k, i);
        }
        g->saved_pages = g->zero + g->duplicate_intra + g->duplicate_inter;
        g->merged_saved = g->merged - g->merged_frames;
        naive_runs(v, s, lost, k);
        for (size_t j = 0; j < s->n; j++)
                if (!lost[j])
                        v->matrix[k * s->n + j] = j == k ? g->duplicate_intra : naive_common(s, k, j);
}

#define SUMMED             \
        X(pages)           \
        X(zero)            \
        X(unique)          \
        X(duplicate_intra) \
        X(duplicate_inter) \
        X(volatile_pages)  \
        X(unreadable)      \
        X(saved_pages)     \
        X(merged)          \
        X(merged_frames)   \
        X(merged_saved)    \
        X(absent)          \
        X(swapped)         \
        X(kernel_zero)

static inline void same_figures(const char *what, const struct bl_scan_figures *a, const struct bl_scan_figures *b)
{
#define X(name)                                                                                          \
        if (a->name != b->name)                                                                          \
                fail_msg("%s: %s is %" PRIu64 " and should be %" PRIu64, what, #name, (uint64_t)a->name, \
                         (uint64_t)b->name);
        SUMMED
        X(with_copy_elsewhere)
        for (size_t i = 0; i < BL_SCAN_RUNS; i++)
                X(run[i])
#undef X
}

static inline void adds_up(const struct bl_scan_figures *f)
{
        assert_int_equal(f->pages, f->zero + f->unique + f->duplicate_intra + f->duplicate_inter + f->volatile_pages +
                                           f->unreadable);
        assert_int_equal(f->saved_pages, f->zero + f->duplicate_intra + f->duplicate_inter);
        assert_int_equal(f->merged_saved, f->merged - f->merged_frames);
}

/* The report is what the naive judge says of the first looks; `lost` NULL: every source counts. */
static inline void judge(const struct fakes *s, const bool *lost, const struct bl_scan_report *r)
{
        static const bool none[512];
        struct naive *v = calloc(1, sizeof(*v));
        char what[32];

        lost = lost ? lost : none;
        assert_non_null(v);
        v->matrix = calloc(s->n * s->n + 1, sizeof(*v->matrix));
        assert_non_null(v->matrix);
        assert_int_equal(r->n, s->n);
        assert_int_equal(r->sample_shift, 0);
        for (size_t k = 0; k < s->n; k++) {
                if (!lost[k])
                        naive_source(v, s, lost, k);
#define X(name) v->all.name += v->source[k].name;
                SUMMED
#undef X
                assert_int_equal(r->source[k].error != 0, lost[k]);
                (void)snprintf(what, sizeof(what), "source %zu", k);
                same_figures(what, &r->source[k].f, &v->source[k]);
                adds_up(&r->source[k].f);
        }
        same_figures("all", &r->all, &v->all);
        adds_up(&r->all);
        for (size_t i = 0; r->matrix && i < s->n * s->n; i++) {
                if (r->matrix[i] != v->matrix[i])
                        fail_msg("matrix[%zu][%zu] is %" PRIu64 " and should be %" PRIu64, i / s->n, i % s->n,
                                 r->matrix[i], v->matrix[i]);
                assert_int_equal(r->matrix[i], r->matrix[i % s->n * s->n + i / s->n]);
        }
        free(v->matrix);
        free(v);
}

static inline void run_to_the_end(struct bl_scan *s)
{
        assert_int_equal(bl_scan_step(s, BL_UNSET, NULL), 1);
}

/* Steps piece by piece up to the first one of `phase`. */
static inline void run_to(struct bl_scan *s, enum bl_scan_phase phase)
{
        struct bl_scan_progress p;
        int r = 0;

        for (bl_scan_progress(s, &p); p.phase < phase; bl_scan_progress(s, &p)) {
                assert_int_equal(r, 0);
                r = bl_scan_step(s, 0, NULL);
                assert_true(r >= 0);
        }
        assert_int_equal(p.phase, phase);
}

static inline struct bl_scan *scan_of(struct fakes *s, const struct bl_scan_options *o)
{
        struct bl_scan *scan = NULL;

        fakes_remember(s);
        assert_int_equal(bl_scan_new(s->source, s->n, o, &scan), 0);
        return scan;
}

/* Hashes that collide. */
static inline uint64_t hash_constant(const void *page, uint64_t seed)
{
        (void)page;
        return seed;
}

static inline uint64_t hash_word(const void *page, uint64_t seed)
{
        const uint8_t *p = page;
        uint32_t a, b;

        memcpy(&a, p + 2000, sizeof(a));
        memcpy(&b, p + BL_PAGE_SIZE - sizeof(b), sizeof(b));
        seed = ((uint64_t)(a ^ b) + seed) * UINT64_C(0x9e3779b97f4a7c15);
        seed = (seed ^ seed >> 32) * UINT64_C(0xff51afd7ed558ccd);
        return seed ^ seed >> 29;
}

static inline uint64_t hash_4_bits(const void *page, uint64_t seed)
{
        return hash_word(page, seed) & 15;
}

#endif
