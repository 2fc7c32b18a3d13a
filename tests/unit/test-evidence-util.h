/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* VMs in numbers: a page is the number of its content, so that worlds of many pages are made and counted quickly. */
#ifndef BALLAST_TEST_EVIDENCE_UTIL_H
#define BALLAST_TEST_EVIDENCE_UTIL_H

#include <string.h>

#include "daemon/pages/evidence.h"

#define WORLD_VMS 16U

/* A content, or one of these: */
#define ZERO        0U
#define ABSENT      UINT32_MAX
#define SWAPPED     (UINT32_MAX - 1)
#define KERNEL_ZERO (UINT32_MAX - 2)
#define MERGED      (UINT32_C(1) << 31) /* a bit: of content and frame alike */

struct vm {
        struct bl_source source;
        uint32_t *page;
        int fails; /* look and read, with that */
        int again;
        uint64_t looks, reads; /* pages */
        uint8_t *looked; /* how often each was, where that is wanted */
};

static int vm_look(struct bl_source *s, uint64_t first, size_t n, struct bl_page_look *ret)
{
        struct vm *v = (struct vm *)s;

        if (v->fails < 0)
                return v->fails;
        v->looks += n;
        for (size_t i = 0; i < n; i++) {
                uint32_t p = v->page[first + i];

                if (v->looked)
                        v->looked[first + i]++;
                ret[i] = (struct bl_page_look){.state = BL_PAGE_PRESENT};
                if (p == ABSENT)
                        ret[i].state = BL_PAGE_ABSENT;
                else if (p == SWAPPED)
                        ret[i].state = BL_PAGE_SWAPPED;
                else if (p == KERNEL_ZERO)
                        ret[i].state = BL_PAGE_KERNEL_ZERO;
                else if (p & MERGED)
                        ret[i] = (struct bl_page_look){.state = BL_PAGE_MERGED, .frame = p & ~MERGED};
        }
        return 0;
}

static int vm_read(struct bl_source *s, const uint64_t *pages, size_t n, void *buf, bool *ret_ok)
{
        struct vm *v = (struct vm *)s;

        if (v->fails < 0)
                return v->fails;
        v->reads += n;
        for (size_t i = 0; i < n; i++) {
                uint64_t content = v->page[pages[i]] & ~MERGED;
                char *to = (char *)buf + i * BL_PAGE_SIZE;

                memset(to, 0, BL_PAGE_SIZE);
                memcpy(to, &content, sizeof(content));
                ret_ok[i] = v->page[pages[i]] < KERNEL_ZERO;
        }
        return 0;
}

static int vm_again(struct bl_source *s)
{
        struct vm *v = (struct vm *)s;
        int r = v->again;

        v->again = 0;
        return v->fails < 0 ? v->fails : r;
}

static struct bl_source *vm_free(struct bl_source *s)
{
        (void)s;
        return NULL;
}

static const struct bl_source_ops vm_ops = {vm_look, vm_read, vm_again, vm_free};

static void vm_init(struct vm *v, uint64_t n_pages)
{
        *v = (struct vm){.source = {.ops = &vm_ops, .n_pages = n_pages}};
        v->page = malloc(n_pages * sizeof(*v->page));
        if (!v->page)
                abort();
}

/* The content's number, spread: what a good hash would make of it. */
static uint64_t quick_hash(const void *page, uint64_t seed)
{
        uint64_t x;

        memcpy(&x, page, sizeof(x));
        x = (x + seed) * UINT64_C(0x9e3779b97f4a7c15);
        return x ^ x >> 29;
}

static inline uint64_t test_random(uint64_t *seed)
{
        uint64_t z = (*seed += UINT64_C(0x9e3779b97f4a7c15));

        z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
        return z ^ (z >> 31);
}

/* --- jobs ------------------------------------------------------------------------------- */

/* One FRESH job from beginning to end. */
static inline struct bl_evidence_done fresh(struct bl_evidence *e, struct vm *v, uint64_t id, size_t pages, usec_t now)
{
        struct bl_evidence_done done = {.error = -1};
        struct bl_evidence_job *j = NULL;
        int r = bl_evidence_fresh_new(e, (struct bl_evidence_vm){id, &v->source}, pages, &j);

        if (r < 0) {
                done.error = r;
                return done;
        }
        bl_evidence_job_run(j);
        bl_evidence_job_take(e, j, now, &done);
        return done;
}

/* All CONFIRM jobs that are due by now; VM i has the id i + 1. */
static inline struct bl_evidence_done confirm(struct bl_evidence *e, struct vm *v, size_t n, usec_t now)
{
        struct bl_evidence_done all = {0}, done;
        struct bl_evidence_vm vms[WORLD_VMS];
        struct bl_evidence_job *j;

        for (size_t i = 0; i < n; i++)
                vms[i] = (struct bl_evidence_vm){i + 1, &v[i].source};
        while (bl_evidence_confirm_new(e, vms, n, now, 4096, &j) == 0 && j) {
                bl_evidence_job_run(j);
                bl_evidence_job_take(e, j, now, &done);
                all.looked += done.looked;
                all.read += done.read;
                all.confirmed += done.confirmed;
                all.refuted += done.refuted;
                all.error = done.error;
        }
        return all;
}

/* Second looks until nothing waits for one. */
static inline struct bl_evidence_done confirm_all(struct bl_evidence *e, struct vm *v, size_t n, usec_t *now)
{
        struct bl_evidence_done all = {0};

        for (unsigned i = 0; i < 100 && bl_evidence_confirm_at(e) != BL_UNSET; i++) {
                struct bl_evidence_done done;

                *now = bl_max(*now, bl_evidence_confirm_at(e));
                done = confirm(e, v, n, *now);
                all.looked += done.looked;
                all.read += done.read;
                all.confirmed += done.confirmed;
                all.refuted += done.refuted;
        }
        return all;
}

#endif
