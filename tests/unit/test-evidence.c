// SPDX-License-Identifier: LGPL-2.1-or-later
/* The rolling sample: what is looked at when, what counts, and what is forgotten. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>

#include "daemon/pages/evidence_estimate.h"
#include "daemon/pages/evidence_walk.h"
#include "tests/unit/test-evidence-util.h"

#define PAGES  256U
#define SETTLE (100 * BL_MSEC)

/* Up to 4 VMs without anything in common, all that they have sampled by the tests' own hand. */
struct fixture {
        struct vm vm[4];
        struct bl_evidence *e;
        usec_t now;
};

static uint64_t same_hash(const void *page, uint64_t seed)
{
        (void)page;
        return seed;
}

static struct bl_evidence *evidence(uint64_t (*hash)(const void *page, uint64_t seed), size_t memory_max)
{
        struct bl_evidence_options o = {.seed = 7, .hash = hash, .memory_max = memory_max};
        struct bl_evidence *e = NULL;

        assert_int_equal(bl_evidence_new(&o, &e), 0);
        return e;
}

static int setup(void **state)
{
        struct fixture *x = calloc(1, sizeof(*x));

        if (!x)
                return -1;
        for (uint32_t v = 0; v < 4; v++) {
                vm_init(&x->vm[v], PAGES);
                for (uint32_t i = 0; i < PAGES; i++)
                        x->vm[v].page[i] = 100000 * (v + 1) + i;
        }
        x->e = evidence(quick_hash, 0);
        x->now = BL_SEC;
        *state = x;
        return 0;
}

static int teardown(void **state)
{
        struct fixture *x = *state;

        for (unsigned v = 0; v < 4; v++) {
                free(x->vm[v].page);
                free(x->vm[v].looked);
        }
        (void)bl_evidence_free(x->e);
        free(x);
        return 0;
}

/* The rest of a round of the first `n` VMs. */
static void fresh_all(struct fixture *x, unsigned n)
{
        for (unsigned v = 0; v < n; v++) {
                struct bl_evidence_done done;

                do {
                        done = fresh(x->e, &x->vm[v], v + 1, x->vm[v].source.n_pages, x->now);
                        assert_int_equal(done.error, 0);
                } while (!done.round);
        }
}

static struct bl_evidence_figures figures(const struct bl_evidence *e, uint64_t id, uint64_t with)
{
        struct bl_evidence_figures f[2];

        bl_evidence_figures(e, (const uint64_t[]){id, with}, with ? 2 : 1, f);
        return f[0];
}

static void share(struct fixture *x, unsigned a, unsigned b, uint32_t first, uint32_t n)
{
        for (uint32_t i = first; i < first + n; i++)
                x->vm[b].page[(i + 37) % PAGES] = x->vm[a].page[i];
}

/* --- second looks ------------------------------------------------------------------------ */

static void test_settles(void **state)
{
        struct fixture *x = *state;
        struct bl_evidence_done done;

        share(x, 0, 1, 10, 64);
        fresh_all(x, 2);
        assert_int_equal(figures(x->e, 1, 2).gain, 0);
        assert_int_equal(bl_evidence_confirm_at(x->e), x->now + SETTLE);
        done = confirm(x->e, x->vm, 2, x->now + SETTLE - 1);
        assert_int_equal(done.looked, 0);
        x->vm[0].reads = x->vm[1].reads = 0;
        x->now += SETTLE;
        done = confirm(x->e, x->vm, 2, x->now);
        assert_int_equal(done.confirmed, 128);
        assert_int_equal(done.refuted, 0);
        /* what matched, and nothing else */
        assert_int_equal(x->vm[0].reads, 64);
        assert_int_equal(x->vm[1].reads, 64);
        assert_int_equal(bl_evidence_confirm_at(x->e), BL_UNSET);
        for (uint64_t id = 1; id <= 2; id++) {
                struct bl_evidence_figures f = figures(x->e, id, 3 - id);

                assert_int_equal(f.pages, PAGES);
                assert_int_equal(f.sampled, PAGES);
                assert_int_equal(f.present, PAGES);
                assert_int_equal(f.matched, 64);
                assert_int_equal(f.gain, 32);
                assert_int_equal(f.gain_low, 32);
                assert_int_equal(f.gain_high, 32);
                assert_int_equal(f.at, BL_SEC);
                assert_int_equal(f.oldest, BL_SEC);
        }
}

static void test_changed(void **state)
{
        struct fixture *x = *state;
        struct bl_evidence_done done;

        share(x, 0, 1, 10, 1);
        fresh_all(x, 2);
        x->vm[0].page[10] = 77;
        done = confirm(x->e, x->vm, 2, x->now + SETTLE);
        assert_int_equal(done.confirmed, 0);
        assert_true(done.refuted > 0);
        assert_int_equal(figures(x->e, 1, 2).matched, 0);
        assert_int_equal(figures(x->e, 1, 2).volatile_pages, 1);
        assert_int_equal(figures(x->e, 2, 1).matched, 0);
        assert_int_equal(figures(x->e, 2, 1).volatile_pages, 0);
        /* the next round finds what it is now */
        x->vm[1].page[200] = 77;
        fresh_all(x, 2);
        x->now += SETTLE;
        confirm_all(x->e, x->vm, 2, &x->now);
        assert_int_equal(figures(x->e, 1, 2).matched, 1);
        assert_int_equal(figures(x->e, 1, 2).volatile_pages, 0);
}

/* A third copy is compared with one of those that were compared before; if that one has changed, with another. */
static void test_later_copies(void **state)
{
        struct fixture *x = *state;

        share(x, 0, 1, 10, 1);
        share(x, 0, 2, 10, 1);
        fresh_all(x, 2);
        confirm_all(x->e, x->vm, 2, &x->now);
        fresh(x->e, &x->vm[2], 3, PAGES, x->now);
        x->vm[1].page[47] = 78;
        confirm_all(x->e, x->vm, 3, &x->now);
        assert_int_equal(figures(x->e, 3, 1).matched, 1);
        /* nobody knows yet, or it was found out: what counts is that VM 3 has a copy in VM 1 */
        assert_int_equal(figures(x->e, 1, 3).matched, 1);
        x->vm[0].page[10] = 79;
        share(x, 2, 3, 47, 1);
        fresh(x->e, &x->vm[3], 4, PAGES, x->now);
        confirm_all(x->e, x->vm, 4, &x->now);
        assert_int_equal(figures(x->e, 3, 4).matched, 1);
        assert_int_equal(figures(x->e, 4, 3).matched, 1);
}

static void test_collision(void **state)
{
        struct fixture *x = *state;
        struct bl_evidence_done done;

        (void)bl_evidence_free(x->e);
        x->e = evidence(same_hash, 0);
        x->vm[0].source.n_pages = x->vm[1].source.n_pages = 8;
        fresh_all(x, 2);
        done = confirm_all(x->e, x->vm, 2, &x->now);
        assert_int_equal(done.confirmed, 0);
        assert_int_equal(done.refuted, 16);
        assert_int_equal(figures(x->e, 1, 2).matched, 0);
        assert_int_equal(figures(x->e, 1, 2).gain, 0);
}

/* Pairs are found among pages that all have one hash. */
static void test_collision_pairs(void **state)
{
        struct fixture *x = *state;

        (void)bl_evidence_free(x->e);
        x->e = evidence(same_hash, 0);
        x->vm[0].source.n_pages = x->vm[1].source.n_pages = 8;
        for (unsigned i = 0; i < 4; i++)
                x->vm[1].page[7 - i] = x->vm[0].page[i];
        fresh_all(x, 2);
        confirm_all(x->e, x->vm, 2, &x->now);
        assert_int_equal(figures(x->e, 1, 2).matched, 4);
        assert_int_equal(figures(x->e, 2, 1).gain, 2);
}

/* More contents of one hash than are numbered: nothing is matched that is not equal. */
static void test_collisions_many(void **state)
{
        struct fixture *x = *state;
        struct bl_evidence_figures f;

        (void)bl_evidence_free(x->e);
        x->e = evidence(same_hash, 0);
        share(x, 0, 1, 0, 4);
        fresh_all(x, 3);
        confirm_all(x->e, x->vm, 3, &x->now);
        f = figures(x->e, 1, 2);
        assert_true(f.matched <= 4);
        assert_int_equal(figures(x->e, 3, 1).matched, 0);
}

/* More copies of a content than are compared at a time do not wait for each other. */
static void test_many_copies(void **state)
{
        struct fixture *x = *state;
        struct bl_evidence_done done;
        uint64_t confirmed = 0;

        for (unsigned v = 0; v < 4; v++)
                for (uint32_t i = 0; i < PAGES; i++)
                        x->vm[v].page[i] = 5;
        fresh_all(x, 4);
        x->now += SETTLE;
        while (bl_evidence_confirm_at(x->e) <= x->now) {
                done = confirm(x->e, x->vm, 4, x->now);
                assert_true(done.confirmed > 0);
                confirmed += done.confirmed;
        }
        assert_int_equal(confirmed, 4 * PAGES);
        assert_int_equal(bl_evidence_confirm_at(x->e), BL_UNSET);
        assert_in_range(figures(x->e, 1, 0).gain, PAGES - 1, PAGES);
}

static void test_group(void **state)
{
        struct fixture *x = *state;

        share(x, 0, 1, 0, 16);
        share(x, 2, 3, 0, 16);
        fresh_all(x, 4);
        confirm_all(x->e, x->vm, 4, &x->now);
        assert_int_equal(figures(x->e, 1, 2).gain, 8);
        assert_int_equal(figures(x->e, 1, 3).gain, 0);
        assert_int_equal(figures(x->e, 3, 4).gain, 8);
        assert_int_equal(figures(x->e, 3, 0).gain, 0);
        /* one that is not known */
        assert_int_equal(figures(x->e, 99, 1).pages, 0);
        assert_int_equal(figures(x->e, 99, 1).gain_high, 0);
}

static void test_states(void **state)
{
        struct fixture *x = *state;
        struct bl_evidence_figures f;

        for (unsigned i = 0; i < 32; i++)
                x->vm[0].page[i] = ZERO;
        for (unsigned i = 32; i < 48; i++)
                x->vm[0].page[i] = ABSENT;
        for (unsigned i = 48; i < 56; i++)
                x->vm[0].page[i] = SWAPPED;
        for (unsigned i = 56; i < 64; i++)
                x->vm[0].page[i] = KERNEL_ZERO;
        fresh_all(x, 1);
        f = figures(x->e, 1, 0);
        assert_int_equal(x->vm[0].reads, PAGES - 32);
        assert_int_equal(f.present, PAGES - 32);
        assert_int_equal(f.zero, 32);
        assert_int_equal(f.swapped, 8);
        assert_int_equal(f.gain, 32);
        assert_int_equal(f.matched, 0);
        assert_int_equal(bl_evidence_confirm_at(x->e), BL_UNSET);
}

/* Copies beside each other are surplus but for one. */
static void test_neighbours(void **state)
{
        struct fixture *x = *state;

        for (unsigned i = 0; i < 8; i++)
                x->vm[0].page[i] = 5;
        fresh_all(x, 1);
        confirm_all(x->e, x->vm, 1, &x->now);
        assert_int_equal(figures(x->e, 1, 0).gain, 7);
}

/* --- merged pages ---------------------------------------------------------------------------- */

static void merge(struct vm *v, uint32_t page, uint32_t frame)
{
        v->page[page] = frame | MERGED;
}

static void test_merged(void **state)
{
        struct fixture *x = *state;
        struct bl_evidence_figures f;

        for (uint32_t i = 0; i < 32; i++)
                for (unsigned v = 0; v < 3; v++)
                        merge(&x->vm[v], 3 * i + 20 * v, 5000 + i);
        fresh_all(x, 3);
        assert_int_equal(x->vm[0].reads + x->vm[1].reads + x->vm[2].reads, 3 * (PAGES - 32));
        /* one page of each frame, at once */
        assert_int_equal(bl_evidence_confirm_at(x->e), x->now);
        confirm_all(x->e, x->vm, 3, &x->now);
        assert_int_equal(x->vm[0].reads + x->vm[1].reads + x->vm[2].reads, 3 * (PAGES - 32) + 32);
        f = figures(x->e, 1, 2);
        assert_int_equal(f.merged, 32);
        assert_int_equal(f.gain, 0);
        /* a late one: each of its pages is worth a page; the others gain nothing */
        for (uint32_t i = 0; i < 32; i++)
                x->vm[3].page[100 + i] = 5000 + i;
        x->vm[0].reads = x->vm[1].reads = x->vm[2].reads = 0;
        fresh(x->e, &x->vm[3], 4, PAGES, x->now);
        confirm_all(x->e, x->vm, 4, &x->now);
        assert_int_equal(x->vm[0].reads + x->vm[1].reads + x->vm[2].reads, 32);
        f = figures(x->e, 4, 1);
        assert_int_equal(f.matched, 32);
        assert_int_equal(f.gain, 32);
        assert_int_equal(figures(x->e, 1, 4).gain, 0);
        /* again sampled, known frames need no reading */
        x->vm[0].reads = 0;
        fresh(x->e, &x->vm[0], 1, PAGES, x->now);
        assert_int_equal(x->vm[0].reads, PAGES - 32);
        assert_int_equal(bl_evidence_confirm_at(x->e), BL_UNSET);
}

/* ksmd is faster than the second look; and a frame's page is written before it is read. */
static void test_merged_meanwhile(void **state)
{
        struct fixture *x = *state;

        share(x, 0, 1, 10, 4);
        merge(&x->vm[2], 0, 6000);
        fresh_all(x, 3);
        for (uint32_t i = 10; i < 14; i++) {
                merge(&x->vm[0], i, 5000 + i);
                merge(&x->vm[1], i + 37, 5000 + i);
        }
        x->vm[2].page[0] = 123456;
        confirm_all(x->e, x->vm, 3, &x->now);
        assert_int_equal(figures(x->e, 1, 2).merged, 4);
        assert_int_equal(figures(x->e, 1, 2).gain, 0);
        assert_int_equal(figures(x->e, 1, 2).present, PAGES);
        assert_int_equal(figures(x->e, 3, 1).merged, 0);
        assert_int_equal(figures(x->e, 3, 1).present, PAGES);
}

/* A frame that has another content by now is no partner. */
static void test_merged_reused(void **state)
{
        struct fixture *x = *state;
        uint32_t a = x->vm[1].page[5];

        /* frame 5000 holds what VM 1's page 5 is */
        merge(&x->vm[0], 3, 5000);
        x->vm[1].page[5] = 5000;
        fresh_all(x, 1);
        confirm_all(x->e, x->vm, 1, &x->now);
        fresh(x->e, &x->vm[1], 2, PAGES, x->now);
        x->vm[0].page[3] = a;
        confirm_all(x->e, x->vm, 2, &x->now);
        assert_int_equal(figures(x->e, 2, 1).matched, 0);
        assert_int_equal(figures(x->e, 1, 2).merged, 0);
}

/* After ksmd has run: what it merged is known without reading, and is no longer to be gained. */
static void test_refresh(void **state)
{
        struct fixture *x = *state;
        struct bl_evidence_job *j = NULL;
        struct bl_evidence_done done;

        share(x, 0, 1, 10, 64);
        fresh_all(x, 2);
        confirm_all(x->e, x->vm, 2, &x->now);
        assert_int_equal(figures(x->e, 1, 2).gain, 32);
        for (uint32_t i = 10; i < 42; i++) {
                merge(&x->vm[0], i, x->vm[0].page[i]);
                merge(&x->vm[1], i + 37, x->vm[1].page[i + 37]);
        }
        x->vm[0].page[200] = ABSENT;
        for (unsigned v = 0; v < 2; v++) {
                x->vm[v].reads = 0;
                assert_int_equal(bl_evidence_refresh_new(x->e, (struct bl_evidence_vm){v + 1, &x->vm[v].source}, &j),
                                 0);
                assert_non_null(j);
                bl_evidence_job_run(j);
                bl_evidence_job_take(x->e, j, x->now, &done);
                assert_int_equal(done.error, 0);
                assert_int_equal(done.looked, PAGES);
                assert_int_equal(x->vm[v].reads, 0);
        }
        assert_int_equal(figures(x->e, 1, 2).merged, 32);
        assert_int_equal(figures(x->e, 1, 2).gain, 16);
        assert_int_equal(figures(x->e, 1, 2).present, PAGES - 1);
        assert_int_equal(bl_evidence_refresh_new(x->e, (struct bl_evidence_vm){3, &x->vm[2].source}, &j), 0);
        assert_null(j);
}

/* --- rounds ---------------------------------------------------------------------------------- */

static void test_walk(void **state)
{
        static uint8_t seen[70000];
        static const uint32_t sizes[] = {1, 2, 3, 4, 5, 15, 16, 17, 255, 256, 257, 1000, 65536, 65537, 70000};
        struct bl_ev_walk w;
        unsigned equal = 0;
        uint32_t at, first;

        (void)state;
        bl_ev_walk_start(&w, 0, 1);
        assert_false(bl_ev_walk_next(&w, &at));
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
                memset(seen, 0, sizeof(seen));
                bl_ev_walk_start(&w, sizes[i], i + 5);
                for (uint32_t k = 0; k < sizes[i]; k++) {
                        assert_true(bl_ev_walk_next(&w, &at));
                        assert_true(at < sizes[i]);
                        assert_int_equal(seen[at]++, 0);
                }
                assert_false(bl_ev_walk_next(&w, &at));
        }
        /* neither in order nor the same for another key */
        for (uint64_t key = 1; key <= 100; key++) {
                bl_ev_walk_start(&w, 1000, key);
                assert_true(bl_ev_walk_next(&w, &first));
                assert_true(bl_ev_walk_next(&w, &at));
                equal += at == first + 1;
                bl_ev_walk_start(&w, 1000, key + 1);
                assert_true(bl_ev_walk_next(&w, &at));
                equal += at == first;
        }
        assert_true(equal < 5);
}

/* Each page once a round, also of a piece that is not whole; then anew, in another order. */
static void test_round(void **state)
{
        struct fixture *x = *state;
        struct vm *v = &x->vm[0];
        struct bl_evidence_done done;
        uint64_t looked = 0;

        v->source.n_pages = PAGES - 5;
        v->looked = calloc(PAGES, 1);
        for (unsigned round = 1; round <= 3; round++) {
                looked = 0;
                do {
                        done = fresh(x->e, v, 1, 40, x->now++);
                        assert_int_equal(done.error, 0);
                        assert_true(done.looked <= 48);
                        looked += done.looked;
                } while (!done.round);
                assert_int_equal(looked, PAGES - 5);
                for (unsigned i = 0; i < PAGES - 5; i++)
                        assert_int_equal(v->looked[i], round);
        }
        assert_int_equal(figures(x->e, 1, 0).sampled, PAGES - 5);
}

/* What was looked at again is what it is now. */
static void test_replaced(void **state)
{
        struct fixture *x = *state;

        share(x, 0, 1, 10, 64);
        fresh_all(x, 2);
        confirm_all(x->e, x->vm, 2, &x->now);
        assert_int_equal(figures(x->e, 1, 2).gain, 32);
        for (uint32_t i = 10; i < 42; i++)
                x->vm[0].page[i] = 900000 + i;
        x->vm[0].reads = 0;
        x->now += BL_SEC;
        fresh_all(x, 2);
        /* what is as it was needs no second look again */
        assert_int_equal(bl_evidence_confirm_at(x->e), BL_UNSET);
        assert_int_equal(x->vm[0].reads, PAGES);
        assert_int_equal(figures(x->e, 1, 2).gain, 16);
        assert_int_equal(figures(x->e, 2, 1).matched, 32);
        assert_int_equal(figures(x->e, 2, 1).oldest, x->now);
}

static void test_hints(void **state)
{
        struct fixture *x = *state;
        struct vm *v = &x->vm[0];
        unsigned inside = 0, all = 0;

        v->looked = calloc(PAGES, 1);
        /* pieces 2, 3 and 4, 8, and the last; some of it said twice, some of it beyond the end */
        assert_int_equal(bl_evidence_hint(x->e, 1, (const uint64_t[]){130, 33, 50, PAGES - 1, 100000, 7},
                                          (const uint64_t[]){2, 20, 20, UINT64_MAX, 16, 0}, 6),
                         0);
        assert_int_equal(fresh(x->e, v, 1, 6 * 16, x->now).looked, 6 * 16);
        for (unsigned i = 0; i < PAGES; i += 16) {
                all += v->looked[i];
                inside += (i / 16 >= 2 && i / 16 <= 4) || i / 16 == 8 || i / 16 == 15 ? v->looked[i] : 0;
        }
        assert_int_equal(all, 6);
        assert_int_equal(inside, 5);
        /* new hints in the middle of a round: still each page once */
        assert_int_equal(bl_evidence_hint(x->e, 1, (const uint64_t[]){0}, (const uint64_t[]){96}, 1), 0);
        while (!fresh(x->e, v, 1, 32, x->now).round)
                assert_true(v->looked[0] < 2);
        for (unsigned i = 0; i < PAGES; i++)
                assert_int_equal(v->looked[i] > 0, 1);
        assert_int_equal(bl_evidence_hint(x->e, 1, NULL, NULL, 0), 0);
        assert_int_equal(figures(x->e, 1, 0).gain_high, 0);
}

/* --- forgetting ------------------------------------------------------------------------------ */

static void test_forget(void **state)
{
        struct fixture *x = *state;
        struct bl_evidence_job *j = NULL;
        struct bl_evidence_done done;

        share(x, 0, 1, 10, 64);
        fresh_all(x, 2);
        confirm_all(x->e, x->vm, 2, &x->now);
        assert_int_equal(figures(x->e, 2, 1).gain, 32);
        assert_int_equal(bl_evidence_fresh_new(x->e, (struct bl_evidence_vm){1, &x->vm[0].source}, PAGES, &j), 0);
        bl_evidence_job_run(j);
        bl_evidence_forget(x->e, 1);
        assert_int_equal(figures(x->e, 1, 2).pages, 0);
        assert_int_equal(figures(x->e, 2, 1).gain, 0);
        assert_int_equal(figures(x->e, 2, 1).sampled, PAGES);
        /* what was under way then is not taken for what comes under the same number */
        assert_int_equal(fresh(x->e, &x->vm[0], 1, 16, x->now).looked, 16);
        bl_evidence_job_take(x->e, j, x->now, &done);
        assert_int_equal(figures(x->e, 1, 2).sampled, 16);
        bl_evidence_forget(x->e, 1);
        bl_evidence_forget(x->e, 55);
        fresh_all(x, 2);
        confirm_all(x->e, x->vm, 2, &x->now);
        assert_int_equal(figures(x->e, 2, 1).gain, 32);
}

static void test_life(void **state)
{
        struct fixture *x = *state;

        share(x, 0, 1, 10, 64);
        fresh_all(x, 2);
        confirm_all(x->e, x->vm, 2, &x->now);
        x->now = BL_SEC + 599 * BL_SEC;
        fresh(x->e, &x->vm[2], 3, 16, x->now);
        assert_int_equal(figures(x->e, 1, 2).gain, 32);
        x->now += 2 * BL_SEC;
        fresh(x->e, &x->vm[2], 3, 16, x->now);
        assert_int_equal(figures(x->e, 1, 2).sampled, 0);
        assert_int_equal(figures(x->e, 2, 1).sampled, 0);
        assert_int_equal(figures(x->e, 3, 1).sampled, 32);
}

/* Memory is bounded, and the newest samples stay. */
static void test_memory(void **state)
{
        const uint32_t pages = 65536;
        const size_t max = BL_MIB;
        struct fixture *x = *state;
        struct bl_evidence_figures f[2];
        struct bl_evidence_done done;
        struct bl_evidence_job *j;
        struct vm big[2];

        (void)bl_evidence_free(x->e);
        x->e = evidence(quick_hash, max);
        for (uint32_t v = 0; v < 2; v++) {
                vm_init(&big[v], pages);
                for (uint32_t i = 0; i < pages; i++)
                        big[v].page[i] = i % 3 == 0   ? (i / 3) | MERGED
                                         : i % 3 == 1 ? 1000000 + i
                                                      : (v + 2) * 1000000 + i;
        }
        for (unsigned i = 0; i < 64; i++) {
                assert_int_equal(fresh(x->e, &big[i % 2], i % 2 + 1, 2048, x->now).error, 0);
                confirm(x->e, big, 2, x->now);
                assert_true(bl_evidence_memory(x->e) <= max);
                x->now += SETTLE;
        }
        assert_true(bl_evidence_memory(x->e) > max / 2);
        bl_evidence_figures(x->e, (const uint64_t[]){1, 2}, 2, f);
        /* nor does it fail when ksmd has merged half of it, and all those frames are new */
        for (uint32_t i = 1; i < pages; i += 3)
                big[0].page[i] = (30000 + i) | MERGED;
        assert_int_equal(bl_evidence_refresh_new(x->e, (struct bl_evidence_vm){1, &big[0].source}, &j), 0);
        bl_evidence_job_run(j);
        bl_evidence_job_take(x->e, j, x->now, &done);
        assert_int_equal(done.error, 0);
        assert_true(bl_evidence_memory(x->e) <= max);
        for (unsigned v = 0; v < 2; v++) {
                assert_true(f[v].sampled >= 4096 && f[v].sampled < pages / 2);
                assert_true(f[v].oldest > BL_SEC + 10 * SETTLE);
                free(big[v].page);
        }
}

/* --- what fails ---------------------------------------------------------------------------------- */

static void test_gone(void **state)
{
        struct fixture *x = *state;
        struct bl_evidence_figures before;
        struct bl_evidence_done done;
        struct bl_evidence_job *j = NULL;

        share(x, 0, 1, 10, 64);
        share(x, 2, 3, 10, 64);
        fresh_all(x, 4);
        x->vm[0].fails = -ESRCH;
        done = confirm(x->e, x->vm, 4, x->now + SETTLE);
        assert_int_equal(done.error, -ESRCH);
        /* the others go on without it */
        assert_int_equal(done.confirmed, 128);
        assert_int_equal(figures(x->e, 3, 4).gain, 32);
        assert_int_equal(figures(x->e, 2, 1).gain, 0);
        before = figures(x->e, 1, 2);
        done = fresh(x->e, &x->vm[0], 1, 64, x->now);
        assert_int_equal(done.error, -ESRCH);
        assert_int_equal(done.looked + done.read, 0);
        assert_int_equal(figures(x->e, 1, 2).sampled, before.sampled);
        x->vm[0].fails = 0;
        confirm_all(x->e, x->vm, 4, &x->now);
        assert_int_equal(figures(x->e, 1, 2).gain, 32);
        /* neither run nor taken */
        assert_int_equal(bl_evidence_fresh_new(x->e, (struct bl_evidence_vm){1, &x->vm[0].source}, 16, &j), 0);
        j = bl_evidence_job_free(j);
        assert_null(j);
        assert_int_equal(bl_evidence_fresh_new(x->e, (struct bl_evidence_vm){1, &x->vm[0].source}, 16, &j), 0);
        bl_evidence_job_take(x->e, j, x->now, &done);
        assert_int_equal(done.error, -ECANCELED);
        assert_int_equal(figures(x->e, 1, 2).gain, 32);
}

static void test_laid_out_anew(void **state)
{
        struct fixture *x = *state;
        struct bl_evidence_vm none = {1, &x->vm[0].source};
        struct bl_evidence_done done;
        struct bl_evidence_job *j = NULL;

        share(x, 0, 1, 10, 64);
        fresh_all(x, 2);
        confirm_all(x->e, x->vm, 2, &x->now);
        x->vm[0].again = 1;
        done = fresh(x->e, &x->vm[0], 1, 64, x->now);
        assert_int_equal(done.error, -ESTALE);
        assert_int_equal(done.looked, 0);
        assert_int_equal(figures(x->e, 1, 2).sampled, 0);
        assert_int_equal(figures(x->e, 2, 1).gain, 0);
        assert_int_equal(fresh(x->e, &x->vm[0], 1, 64, x->now).looked, 64);
        /* found by a second look; by another number of pages */
        fresh_all(x, 2);
        x->vm[0].again = 1;
        done = confirm(x->e, x->vm, 2, x->now + SETTLE);
        assert_int_equal(done.error, -ESTALE);
        assert_int_equal(figures(x->e, 1, 2).sampled, 0);
        fresh_all(x, 1);
        x->vm[0].source.n_pages = PAGES / 2;
        assert_int_equal(fresh(x->e, &x->vm[0], 1, 16, x->now).error, 0);
        assert_int_equal(figures(x->e, 1, 2).sampled, 16);
        assert_int_equal(figures(x->e, 1, 2).pages, PAGES / 2);
        x->vm[0].source.n_pages = 0;
        assert_int_equal(bl_evidence_fresh_new(x->e, none, 16, &j), -ENODATA);
        assert_null(j);
}

/* --- all together ------------------------------------------------------------------------------ */

static double gain_of(const struct vm *vm, unsigned n)
{
        static uint32_t copies[1000], merged[1000];
        double gain = 0;

        memset(copies, 0, sizeof(copies));
        memset(merged, 0, sizeof(merged));
        for (unsigned v = 0; v < n; v++)
                for (unsigned i = 0; i < PAGES; i++)
                        if (vm[v].page[i] < 1000)
                                copies[vm[v].page[i]]++;
                        else if (vm[v].page[i] < KERNEL_ZERO)
                                merged[vm[v].page[i] & ~MERGED]++;
        for (unsigned c = 0; c < 1000; c++)
                if (copies[c] > 0)
                        gain += c == ZERO || merged[c] ? copies[c] : copies[c] - 1;
        return gain;
}

static void churn(struct fixture *x, uint64_t *seed)
{
        for (unsigned i = 0; i < 64; i++) {
                uint32_t *p = &x->vm[test_random(seed) % 4].page[test_random(seed) % PAGES];

                switch (test_random(seed) % 8) {
                case 0:
                        *p = ABSENT;
                        break;
                case 1:
                        *p = ZERO;
                        break;
                case 2:
                        /* what is merged has one frame, here of the content's number */
                        *p = (1 + (uint32_t)(test_random(seed) % 100)) | MERGED;
                        break;
                default:
                        *p = 1 + (uint32_t)(test_random(seed) % 999);
                }
        }
}

static void hint_any(struct fixture *x, uint64_t *seed)
{
        uint64_t first[3], n[3];

        for (unsigned i = 0; i < 3; i++) {
                first[i] = test_random(seed) % PAGES;
                n[i] = test_random(seed) % 64;
        }
        assert_int_equal(bl_evidence_hint(x->e, 1 + test_random(seed) % 4, first, n, test_random(seed) % 4), 0);
}

/* Whatever happened before: when all pages have been looked at as they are, all is known exactly. */
static void test_any_order(void **state)
{
        struct fixture *x = *state;
        struct bl_evidence_figures f[4];

        for (uint64_t seed = 1; seed <= 60; seed++) {
                uint64_t r = seed;
                double sum = 0, truth;

                for (unsigned i = 0; i < 4 * PAGES; i++)
                        x->vm[i % 4].page[i / 4] = 1 + (uint32_t)(test_random(&r) % 999);
                (void)bl_evidence_free(x->e);
                x->e = evidence(seed % 10 == 0 ? same_hash : quick_hash, seed % 3 == 0 ? 256 * BL_KIB : 0);
                for (unsigned i = 0; i < 60; i++) {
                        unsigned v = (unsigned)(test_random(&r) % 4);

                        churn(x, &r);
                        x->now += test_random(&r) % (2 * SETTLE);
                        if (test_random(&r) % 4 != 0)
                                (void)fresh(x->e, &x->vm[v], v + 1, test_random(&r) % PAGES, x->now);
                        if (test_random(&r) % 3 == 0)
                                confirm(x->e, x->vm, 1 + test_random(&r) % 4, x->now);
                        if (test_random(&r) % 10 == 0)
                                hint_any(x, &r);
                        if (test_random(&r) % 10 == 0)
                                bl_evidence_forget(x->e, 1 + test_random(&r) % 4);
                        if (test_random(&r) % 20 == 0)
                                x->now += 700 * BL_SEC;
                        x->vm[v].fails = test_random(&r) % 20 == 0 ? -ESRCH : 0;
                        x->vm[v].again = test_random(&r) % 20 == 0;
                        bl_evidence_figures(x->e, (const uint64_t[]){1, 2, 3, 4}, 4, f);
                }
                for (unsigned v = 0; v < 4; v++) {
                        x->vm[v].fails = x->vm[v].again = 0;
                        bl_evidence_forget(x->e, v + 1);
                }
                fresh_all(x, 4);
                confirm_all(x->e, x->vm, 4, &x->now);
                bl_evidence_figures(x->e, (const uint64_t[]){1, 2, 3, 4}, 4, f);
                for (unsigned v = 0; v < 4; v++)
                        sum += (double)f[v].gain;
                truth = gain_of(x->vm, 4);
                /* (of one hash for all not all classes are told apart) */
                if (seed % 10 == 0)
                        assert_true(sum <= truth + 2);
                else
                        assert_true(sum <= truth + 2 && sum >= truth - 2);
        }
}

/* Real bytes and the real hash; jobs run in a thread while the loop goes on. */
static void *run(void *job)
{
        bl_evidence_job_run(job);
        return NULL;
}

static void test_threads(void **state)
{
        uint64_t *bytes[2] = {NULL, NULL};
        struct bl_source *s[2] = {NULL, NULL};
        _cleanup_(bl_evidence_freep) struct bl_evidence *e = NULL;
        struct bl_evidence_figures f;
        struct bl_evidence_vm vms[2];
        struct bl_evidence_job *j[2];
        uint64_t seed = 3;
        usec_t now = BL_SEC;
        pthread_t t[2];

        (void)state;
        assert_int_equal(bl_evidence_new(NULL, &e), 0);
        for (unsigned v = 0; v < 2; v++) {
                bytes[v] = malloc((size_t)PAGES * BL_PAGE_SIZE);
                assert_non_null(bytes[v]);
                for (size_t i = 0; i < (size_t)PAGES * BL_PAGE_SIZE / 8; i++)
                        bytes[v][i] = test_random(&seed);
        }
        memcpy(bytes[1] + 8192, bytes[0], 100 * (size_t)BL_PAGE_SIZE);
        /* one byte off, at the end of a page */
        bytes[1][8192 + 512 * 50 - 1] ^= 1;
        for (unsigned v = 0; v < 2; v++) {
                assert_int_equal(bl_source_memory("x", bytes[v], PAGES, &s[v]), 0);
                vms[v] = (struct bl_evidence_vm){v + 1, s[v]};
        }
        for (unsigned round = 0; round < 8; round++) {
                for (unsigned v = 0; v < 2; v++) {
                        assert_int_equal(bl_evidence_fresh_new(e, vms[v], PAGES / 4, &j[v]), 0);
                        assert_int_equal(pthread_create(&t[v], NULL, run, j[v]), 0);
                }
                f = figures(e, 1, 2);
                (void)bl_evidence_hint(e, 1, (const uint64_t[]){round * 16}, (const uint64_t[]){16}, 1);
                for (unsigned v = 0; v < 2; v++) {
                        pthread_join(t[v], NULL);
                        bl_evidence_job_take(e, j[v], now, NULL);
                }
                now += SETTLE;
                assert_int_equal(bl_evidence_confirm_new(e, vms, 2, now, 1000, &j[0]), 0);
                if (!j[0])
                        continue;
                assert_int_equal(pthread_create(&t[0], NULL, run, j[0]), 0);
                assert_int_equal(bl_evidence_confirm_new(e, NULL, 0, now, 1000, &j[1]), 0);
                assert_null(j[1]);
                pthread_join(t[0], NULL);
                bl_evidence_job_take(e, j[0], now, NULL);
        }
        f = figures(e, 1, 2);
        assert_int_equal(f.matched, 99);
        assert_in_range(f.gain, 49, 50);
        for (unsigned v = 0; v < 2; v++) {
                (void)bl_source_free(s[v]);
                free(bytes[v]);
        }
}

/* --- arithmetic ------------------------------------------------------------------------------------ */

static void test_interval(void **state)
{
        double low, high;

        (void)state;
        /* exact for Poisson: 10 events, tables give 4.80 to 18.39; none, 0 to 3.69; 100, 81.4 to 121.6 */
        bl_ev_interval(10, 10, 1, &low, &high);
        assert_true(low > 4.75 && low < 4.85 && high > 18.3 && high < 18.5);
        bl_ev_interval(0, 0, 1, &low, &high);
        assert_true(low == 0 && high > 3.6 && high < 3.75);
        bl_ev_interval(100, 100, 1, &low, &high);
        assert_true(low > 81.2 && low < 81.6 && high > 121.4 && high < 121.9);
        bl_ev_interval(5, 0, 0, &low, &high);
        assert_true(low == 5 && high == 5);
        assert_true(bl_ev_root(0) == 0 && bl_ev_root(-1) == 0);
        for (double v = 1e-9; v < 1e12; v *= 7)
                assert_true(bl_ev_root(v) * bl_ev_root(v) / v - 1 < 1e-9 &&
                            bl_ev_root(v) * bl_ev_root(v) / v - 1 > -1e-9);
}

/* 100,000 pages with 7 copies each, an eighth sampled: as many are seen with 1, 2, ... as are expected. */
static void test_fit(void **state)
{
        struct bl_ev_seen in = {.clusters = 10000};
        double p = 1, f = 0.125, pages = 0, sum = 0;
        struct bl_ev_fit fit;

        (void)state;
        for (unsigned i = 0; i < 7; i++)
                p *= 1 - f;
        for (unsigned x = 1; x <= 7; x++) {
                p *= (8 - x) / (double)x * f / (1 - f);
                in.count[x] = (uint32_t)(100000 * p + 0.5);
                pages += in.count[x];
                in.mean += in.count[x] * (double)x;
        }
        in.mean /= pages;
        in.error = 0.005;
        bl_ev_fit(&in, f, false, &fit);
        for (unsigned x = 1; x <= 7; x++)
                sum += in.count[x] * fit.weight[x];
        assert_true(sum > 87000 && sum < 88000); /* 7/8 of 100,000 */
        assert_true(fit.seen > 0.60 && fit.seen < 0.62);
        bl_ev_fit(&in, f, true, &fit);
        assert_true(fit.sum > 99500 && fit.sum < 100500);
        /* half of them, and as many that have one copy: 0.5 * 50,000 more */
        for (unsigned x = 1; x <= 7; x++)
                in.count[x] /= 2;
        in.count[1] += (uint32_t)(50000 * f);
        in.mean = (in.mean * pages / 2 + 50000 * f) / (pages / 2 + 50000 * f);
        bl_ev_fit(&in, f, false, &fit);
        assert_true(fit.sum > 62000 && fit.sum < 75000);
        assert_true(fit.sum + fit.more >= 68750 && fit.sum - fit.less <= 68750);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        const struct CMUnitTest tests[] = {
                T(test_settles),
                T(test_changed),
                T(test_later_copies),
                T(test_collision),
                T(test_collision_pairs),
                T(test_collisions_many),
                T(test_many_copies),
                T(test_group),
                T(test_states),
                T(test_neighbours),
                T(test_merged),
                T(test_merged_meanwhile),
                T(test_merged_reused),
                T(test_refresh),
                cmocka_unit_test(test_walk),
                T(test_round),
                T(test_replaced),
                T(test_hints),
                T(test_forget),
                T(test_life),
                T(test_memory),
                T(test_gone),
                T(test_laid_out_anew),
                T(test_any_order),
                cmocka_unit_test(test_threads),
                cmocka_unit_test(test_interval),
                cmocka_unit_test(test_fit),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
