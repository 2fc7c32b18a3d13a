// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The estimates against worlds whose gain is known: how far off they are on average, and how often the interval holds
 * the truth.  Contents lie in runs of neighbours, as page cache and programs do, at other places in each VM.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/test-evidence-util.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SEEDS(n) 20U
#define ROUGH    true
#else
#define SEEDS(n) (n)
#define ROUGH    false
#endif
#define PAGES    16384U
#define RUNS_MAX (PAGES + 64)
#define CONTENTS (WORLD_VMS * PAGES + 1)

/* What `part` of `pages` of each VM in `vms` (a bit each) has in common, in runs of `run` pages on average. */
struct shared {
        unsigned part; /* of 1000, of the VM's pages */
        unsigned run;
        unsigned times; /* copies in each of them; 0: one */
        uint32_t vms; /* 0: those of `each` that chance chooses */
        unsigned each; /* VMs that have a run; 0: all of `vms` */
        uint32_t merged; /* in these it is merged */
};

struct scenario {
        const char *name;
        unsigned seeds, vms;
        unsigned zero, absent; /* of 1000 */
        unsigned sampled[WORLD_VMS]; /* of 1000; 0: 125 */
        struct shared shared[6];
        unsigned hinted; /* the first so many of `shared`, to one after the other, of VM 0 */
};

struct world {
        struct vm vm[WORLD_VMS];
        uint32_t run[WORLD_VMS][RUNS_MAX], length[WORLD_VMS][RUNS_MAX]; /* first content, and so on upwards */
        size_t runs[WORLD_VMS], pages[WORLD_VMS];
        uint8_t of[WORLD_VMS][RUNS_MAX]; /* scenario.shared, from 1 */
        uint32_t contents;
        uint32_t copies[CONTENTS], merged[CONTENTS]; /* not merged; merged */
        double gain[WORLD_VMS];
};

static void put(struct world *w, unsigned vm, uint32_t content, uint32_t n, uint8_t of)
{
        n = (uint32_t)bl_min(n, PAGES - w->pages[vm]);
        if (n == 0)
                return;
        w->run[vm][w->runs[vm]] = content;
        w->of[vm][w->runs[vm]] = of;
        w->length[vm][w->runs[vm]++] = n;
        w->pages[vm] += n;
}

static uint32_t length_of(uint64_t *seed, unsigned mean)
{
        return 1 + (uint32_t)(test_random(seed) % (2 * mean - 1));
}

static void put_shared(struct world *w, const struct scenario *s, unsigned i, uint64_t *seed)
{
        const struct shared *sh = &s->shared[i];
        unsigned members = sh->vms ? (unsigned)__builtin_popcount(sh->vms) : s->vms;
        unsigned each = sh->each ? sh->each : members, times = sh->times ? sh->times : 1;
        uint64_t pages = (uint64_t)sh->part * PAGES / 1000 * members / each / times;

        while (pages > 0) {
                uint32_t n = (uint32_t)bl_min(length_of(seed, sh->run), pages), left = each, of = members;

                for (unsigned v = 0; v < s->vms; v++) {
                        if (sh->vms && !(sh->vms >> v & 1))
                                continue;
                        if (test_random(seed) % of-- >= left)
                                continue;
                        left--;
                        for (unsigned t = 0; t < times; t++)
                                put(w, v, w->contents | (sh->merged >> v & 1 ? MERGED : 0), n, (uint8_t)(i + 1));
                }
                w->contents += n;
                pages -= n;
        }
}

static void lay_out(struct world *w, unsigned v, uint64_t *seed)
{
        size_t at = 0;

        for (size_t i = w->runs[v]; i > 1; i--) {
                size_t k = test_random(seed) % i;
                uint32_t run = w->run[v][i - 1], length = w->length[v][i - 1];
                uint8_t of = w->of[v][i - 1];

                w->run[v][i - 1] = w->run[v][k];
                w->length[v][i - 1] = w->length[v][k];
                w->of[v][i - 1] = w->of[v][k];
                w->run[v][k] = run;
                w->length[v][k] = length;
                w->of[v][k] = of;
        }
        for (size_t i = 0; i < w->runs[v]; i++)
                for (uint32_t k = 0; k < w->length[v][i]; k++) {
                        uint32_t c = w->run[v][i];

                        if (c != ZERO && c != ABSENT)
                                c += k;
                        w->vm[v].page[at++] = c;
                }
}

static void world_make(struct world *w, const struct scenario *s, uint64_t *seed)
{
        w->contents = 1;
        memset(w->copies, 0, sizeof(w->copies));
        memset(w->merged, 0, sizeof(w->merged));
        for (unsigned v = 0; v < s->vms; v++) {
                w->runs[v] = w->pages[v] = 0;
                w->gain[v] = 0;
                if (!w->vm[v].page)
                        vm_init(&w->vm[v], PAGES);
        }
        for (unsigned i = 0; s->shared[i].part > 0; i++)
                put_shared(w, s, i, seed);
        for (unsigned v = 0; v < s->vms; v++) {
                size_t end = w->pages[v] + PAGES * s->zero / 1000;

                while (w->pages[v] < end)
                        put(w, v, ZERO, (uint32_t)bl_min(length_of(seed, 8), end - w->pages[v]), 0);
                end += PAGES * s->absent / 1000;
                while (w->pages[v] < end)
                        put(w, v, ABSENT, (uint32_t)bl_min(length_of(seed, 200), end - w->pages[v]), 0);
                while (w->pages[v] < PAGES) {
                        uint32_t n = length_of(seed, 16);

                        put(w, v, w->contents, n, 0);
                        w->contents += n;
                }
                lay_out(w, v, seed);
                for (size_t i = 0; i < PAGES; i++) {
                        uint32_t c = w->vm[v].page[i];

                        if (c == ABSENT)
                                continue;
                        if (c & MERGED)
                                w->merged[c & ~MERGED]++;
                        else
                                w->copies[c]++;
                }
        }
        for (unsigned v = 0; v < s->vms; v++)
                for (size_t i = 0; i < PAGES; i++) {
                        uint32_t c = w->vm[v].page[i];

                        if (c == ABSENT || c & MERGED)
                                continue;
                        w->gain[v] += w->merged[c] || c == ZERO ? 1 : (double)(w->copies[c] - 1) / w->copies[c];
                }
}

/* Tells of the runs of one of `shared`. */
static void hint(const struct world *w, struct bl_evidence *e, unsigned v, unsigned of)
{
        static uint64_t first[RUNS_MAX], n[RUNS_MAX];
        uint64_t at = 0;
        size_t runs = 0;

        for (size_t i = 0; i < w->runs[v]; at += w->length[v][i++])
                if (w->of[v][i] == of) {
                        first[runs] = at;
                        n[runs++] = w->length[v][i];
                }
        assert_int_equal(bl_evidence_hint(e, v + 1, first, n, runs), 0);
}

struct score {
        double truth, gain, low, high;
        unsigned held;
};

static struct world world;

static void sample(const struct scenario *s, struct bl_evidence *e, usec_t now)
{
        for (unsigned v = 0; v < s->vms; v++) {
                size_t pages = (size_t)PAGES * (s->sampled[v] ? s->sampled[v] : 125) / 1000;
                unsigned hints = v == 0 && s->hinted > 0 ? s->hinted : 1;

                for (unsigned h = 1; h <= hints; h++) {
                        if (v == 0 && s->hinted > 0)
                                hint(&world, e, v, h);
                        assert_int_equal(fresh(e, &world.vm[v], v + 1, pages / hints, now).error, 0);
                }
        }
}

static void simulate(const struct scenario *s, struct score score[WORLD_VMS])
{
        memset(score, 0, WORLD_VMS * sizeof(*score));
        for (unsigned seed = 1; seed <= SEEDS(s->seeds); seed++) {
                _cleanup_(bl_evidence_freep) struct bl_evidence *e = NULL;
                struct bl_evidence_options o = {.seed = seed, .hash = quick_hash};
                struct bl_evidence_figures f[WORLD_VMS];
                uint64_t random = seed * UINT64_C(1000003), ids[WORLD_VMS];
                usec_t now = BL_SEC;

                world_make(&world, s, &random);
                assert_int_equal(bl_evidence_new(&o, &e), 0);
                sample(s, e, now);
                confirm_all(e, world.vm, s->vms, &now);
                for (unsigned v = 0; v < s->vms; v++)
                        ids[v] = v + 1;
                bl_evidence_figures(e, ids, s->vms, f);
                for (unsigned v = 0; v < s->vms; v++) {
                        double t = world.gain[v];

                        score[v].truth += t / SEEDS(s->seeds);
                        score[v].gain += (double)f[v].gain / SEEDS(s->seeds);
                        score[v].low += (double)f[v].gain_low / SEEDS(s->seeds);
                        score[v].high += (double)f[v].gain_high / SEEDS(s->seeds);
                        /* figures are whole pages */
                        score[v].held += (double)f[v].gain_high + 0.5 >= t && (double)f[v].gain_low - 0.5 <= t;
                }
        }
}

/* The mean within `bias` of the truth, and the truth in 90 % of the intervals at least.  Few seeds, where every page
 * takes long, find what is broken, not what is a few per cent off. */
static void expect(const struct scenario *s, const struct score *score, unsigned from, unsigned to, double bias)
{
        for (unsigned v = from; v < to; v++) {
                double off = score[v].truth > 0 ? score[v].gain / score[v].truth - 1 : 0;
                double held = (double)score[v].held / SEEDS(s->seeds), most = ROUGH ? bias + 0.3 : bias;

                print_message("# %s, VM %u: gain %.0f, estimated %.0f (%+.1f %%), %.0f to %.0f, held %.1f %%\n",
                              s->name, v, score[v].truth, score[v].gain, 100 * off, score[v].low, score[v].high,
                              100 * held);
                assert_true(off < most && off > -most);
                assert_true(held >= (ROUGH ? 0.75 : 0.9));
        }
}

/* Eight VMs of 64 MiB, an eighth of each sampled.  VM 0 has nothing in common with anybody, VM 1 has 5 % in common with
 * the others, those have 45 % in common, with zero pages besides. */
static void test_eight(void **state)
{
        static const struct scenario s = {"eight", 500, 8,
                                          0,       150, .shared = {{400, 24, .vms = 0xfc}, {50, 12, .vms = 0xfe}}};
        struct score score[WORLD_VMS];

        (void)state;
        simulate(&s, score);
        assert_true(score[0].truth == 0 && score[0].gain == 0 && score[0].low == 0);
        assert_true(score[0].high > 0 && score[0].high < 2000);
        expect(&s, score, 1, 2, 0.15);
        expect(&s, score, 2, 4, 0.04);
}

/* As real images: most of what is shared is in all, some in a few, some in two; some of it is zero. */
static void test_dense(void **state)
{
        static const struct scenario s = {
                "dense", 120, 8, 20, 150, .shared = {{360, 24}, {50, 24, .each = 4}, {40, 16, .each = 2}}};
        struct score score[WORLD_VMS];

        (void)state;
        simulate(&s, score);
        expect(&s, score, 0, 2, 0.06);
}

/* Half is in two VMs, half in eight: an eighth sampled cannot tell that from six copies each, but must allow for it. */
static void test_uneven(void **state)
{
        static const struct scenario s = {"uneven", 120, 8, 0, 100, .shared = {{200, 24}, {200, 24, .each = 2}}};
        struct score score[WORLD_VMS];

        (void)state;
        simulate(&s, score);
        expect(&s, score, 0, 2, 0.20);
}

static void test_two(void **state)
{
        static const struct scenario eighth = {"two", 500, 2, 0, 100, .shared = {{500, 24}}};
        static const struct scenario uneven = {"two, one wholly", 200, 2, 0, 100, {1000, 125}, {{500, 24}}};
        static const struct scenario whole = {"two wholly", 20, 2, 0, 100, {1000, 1000}, {{500, 24}}};
        struct score score[WORLD_VMS];

        (void)state;
        simulate(&eighth, score);
        expect(&eighth, score, 0, 2, 0.05);
        simulate(&uneven, score);
        expect(&uneven, score, 0, 2, 0.03);
        simulate(&whole, score);
        expect(&whole, score, 0, 2, 0.0001);
        assert_true(score[0].high - score[0].low < 1);
}

static void test_within(void **state)
{
        static const struct scenario one = {"within", 500, 1, 0, 100, .shared = {{300, 24, .times = 2}}};
        static const struct scenario many = {"within, many",
                                             200,
                                             2,
                                             0,
                                             100,
                                             {250, 250},
                                             {{300, 4, .times = 3, .vms = 1}, {100, 1, .times = 200, .vms = 1}}};
        struct score score[WORLD_VMS];

        (void)state;
        simulate(&one, score);
        expect(&one, score, 0, 1, 0.08);
        simulate(&many, score);
        expect(&many, score, 0, 1, 0.05);
        assert_true(score[1].gain == 0 && score[1].high < 1000);
}

/* A content with hundreds of copies, beside more contents than are all counted: it is neither left out nor taken for
 * two. */
static void test_one_content(void **state)
{
        static const struct scenario s = {
                "one content",
                60,
                16,
                0,
                100,
                {500, 500, 500, 500, 500, 500, 500, 500, 500, 500, 500, 500, 500, 500, 500, 500},
                {{50, 1, .times = 819, .vms = 1}, {600, 24, .vms = 0xfffe}}};
        struct score score[WORLD_VMS];

        (void)state;
        simulate(&s, score);
        assert_true(score[0].truth >= 800);
        expect(&s, score, 0, 1, 0.03);
}

/* Seven VMs are merged, the eighth comes late; and what grew since is not merged yet. */
static void test_late(void **state)
{
        static const struct scenario s = {"late", 200, 8, 0, 100, .shared = {{400, 24, .merged = 0xfe}, {50, 8}}};
        static const struct scenario known = {"late, others known",
                                              100,
                                              8,
                                              20,
                                              100,
                                              {125, 600, 600, 600, 600, 600, 600, 600},
                                              {{360, 24, .merged = 0xfe}, {90, 16, .each = 2}}};
        struct score score[WORLD_VMS];

        (void)state;
        simulate(&s, score);
        expect(&s, score, 0, 1, 0.06);
        expect(&s, score, 1, 2, 0.15);
        simulate(&known, score);
        expect(&known, score, 0, 2, 0.05);
}

/* Hints lead to what is shared, first to one half of it, then to the other; the estimate must not be led. */
static void test_hints(void **state)
{
        static const struct scenario s = {
                "hinted", 120, 8, 20, 100, {250}, {{200, 24}, {100, 16}, {50, 8, .each = 3}}, .hinted = 2};
        struct score score[WORLD_VMS];

        (void)state;
        simulate(&s, score);
        expect(&s, score, 0, 1, 0.08);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_eight), cmocka_unit_test(test_dense),       cmocka_unit_test(test_uneven),
                cmocka_unit_test(test_two),   cmocka_unit_test(test_within),      cmocka_unit_test(test_late),
                cmocka_unit_test(test_hints), cmocka_unit_test(test_one_content),
        };
        int r = cmocka_run_group_tests(tests, NULL, NULL);

        for (unsigned v = 0; v < WORLD_VMS; v++)
                free(world.vm[v].page);
        return r;
}
