/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* After ksmd has run: what it merged is no gain any more, what it did not merge still is, and nothing is read for it.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/test-evidence-util.h"

#define PAGES 4096U

static struct bl_evidence_done refresh(struct bl_evidence *e, struct vm *v, uint64_t id, usec_t now)
{
        struct bl_evidence_done done = {.error = -1};
        struct bl_evidence_job *j = NULL;

        assert_int_equal(bl_evidence_refresh_new(e, (struct bl_evidence_vm){id, &v->source}, &j), 0);
        assert_non_null(j);
        bl_evidence_job_run(j);
        bl_evidence_job_take(e, j, now, &done);
        return done;
}

/* Two VMs, the first half of each the same; all of it sampled and confirmed. */
struct world {
        struct bl_evidence *e;
        struct vm v[2];
        usec_t now;
};

static void settle_all(struct world *w)
{
        (void)confirm_all(w->e, w->v, 2, &w->now);
        assert_int_equal(bl_evidence_confirm_at(w->e), BL_UNSET);
}

static void begin(struct world *w)
{
        const struct bl_evidence_options o = {.seed = 1, .hash = quick_hash};

        *w = (struct world){.now = BL_SEC};
        assert_int_equal(bl_evidence_new(&o, &w->e), 0);
        for (uint32_t i = 0; i < 2; i++) {
                vm_init(&w->v[i], PAGES);
                for (uint32_t p = 0; p < PAGES; p++)
                        w->v[i].page[p] = p < PAGES / 2 ? 1000 + p : 100000 * (i + 1) + p;
                assert_int_equal(fresh(w->e, &w->v[i], i + 1, PAGES, w->now).error, 0);
        }
        settle_all(w);
}

static void end(struct world *w)
{
        bl_evidence_free(w->e);
        for (int i = 0; i < 2; i++)
                free(w->v[i].page);
}

static uint64_t gain(struct world *w, struct bl_evidence_figures f[2])
{
        static const uint64_t ids[] = {1, 2};

        bl_evidence_figures(w->e, ids, 2, f);
        return f[0].gain + f[1].gain;
}

static void test_what_is_merged_is_no_gain(void **state)
{
        struct bl_evidence_figures f[2];
        struct world w;
        uint64_t reads;

        (void)state;
        begin(&w);
        assert_int_equal(gain(&w, f), PAGES / 2);
        reads = w.v[0].reads + w.v[1].reads;
        for (int i = 0; i < 2; i++)
                for (uint32_t p = 0; p < PAGES / 2; p++)
                        w.v[i].page[p] |= MERGED;
        assert_int_equal(gain(&w, f), PAGES / 2);
        for (uint64_t i = 0; i < 2; i++)
                assert_int_equal(refresh(w.e, &w.v[i], i + 1, w.now).error, 0);
        settle_all(&w);
        assert_int_equal(gain(&w, f), 0);
        assert_int_equal(f[0].merged, PAGES / 2);
        assert_int_equal(f[1].merged, PAGES / 2);
        assert_int_equal(f[0].present, PAGES);
        assert_int_equal(w.v[0].reads + w.v[1].reads, reads);
        end(&w);
}

static void test_what_was_left_is_gain_still(void **state)
{
        struct bl_evidence_figures f[2];
        struct world w;

        (void)state;
        begin(&w);
        /* of the first VM nothing was merged, of the second a quarter, with a third one's pages */
        for (uint32_t p = 0; p < PAGES / 4; p++)
                w.v[1].page[p] |= MERGED;
        for (uint64_t i = 0; i < 2; i++)
                (void)refresh(w.e, &w.v[i], i + 1, w.now);
        settle_all(&w);
        (void)gain(&w, f);
        /* a page whose copy is merged is gained whole, one of two that are not by half */
        assert_int_equal(f[0].gain, PAGES / 4 + PAGES / 8);
        assert_int_equal(f[1].gain, PAGES / 8);
        end(&w);
}

static void test_what_went_is_gone(void **state)
{
        struct bl_evidence_figures f[2];
        struct world w;

        (void)state;
        begin(&w);
        for (uint32_t p = 0; p < PAGES / 2; p++)
                w.v[1].page[p] = p % 2 ? ABSENT : KERNEL_ZERO;
        (void)refresh(w.e, &w.v[1], 2, w.now);
        settle_all(&w);
        assert_int_equal(gain(&w, f), 0);
        assert_int_equal(f[1].present, PAGES / 2);
        assert_int_equal(f[0].present, PAGES);
        end(&w);
}

/* It broke apart: what it is now was not read. */
static void test_what_broke_apart_is_not_known(void **state)
{
        struct bl_evidence_figures f[2];
        struct world w;

        (void)state;
        begin(&w);
        for (int i = 0; i < 2; i++)
                for (uint32_t p = 0; p < PAGES / 2; p++)
                        w.v[i].page[p] |= MERGED;
        for (uint64_t i = 0; i < 2; i++)
                (void)refresh(w.e, &w.v[i], i + 1, w.now);
        for (uint32_t p = 0; p < PAGES / 2; p++)
                w.v[1].page[p] = 900000 + p;
        (void)refresh(w.e, &w.v[1], 2, w.now);
        settle_all(&w);
        assert_int_equal(gain(&w, f), 0);
        assert_int_equal(f[1].merged, 0);
        assert_int_equal(f[1].present, PAGES);
        end(&w);
}

static void test_failures(void **state)
{
        struct bl_evidence_figures f[2];
        struct bl_evidence_job *j = NULL;
        struct world w;

        (void)state;
        begin(&w);
        /* of a VM without samples there is nothing to look at */
        assert_int_equal(bl_evidence_refresh_new(w.e, (struct bl_evidence_vm){77, &w.v[0].source}, &j), 0);
        assert_null(j);
        w.v[0].fails = -ESRCH;
        assert_int_equal(refresh(w.e, &w.v[0], 1, w.now).error, -ESRCH);
        assert_int_equal(gain(&w, f), PAGES / 2);
        /* laid out anew: its pages have other numbers */
        w.v[0].fails = 0;
        w.v[0].again = 1;
        assert_int_equal(refresh(w.e, &w.v[0], 1, w.now).error, -ESTALE);
        assert_int_equal(gain(&w, f), 0);
        end(&w);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_what_is_merged_is_no_gain),
                cmocka_unit_test(test_what_was_left_is_gain_still),
                cmocka_unit_test(test_what_went_is_gone),
                cmocka_unit_test(test_what_broke_apart_is_not_known),
                cmocka_unit_test(test_failures),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
