// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * What agents say of their page cache: clean pages of files, of which other guests of the same image are likely to
 * have copies.  Asked for when a VM has come or grown.  Kept a VM, bounded, until there is a source to name pages of;
 * then the sampler looks there first.
 *
 * A guest names its pages by guest-physical number; the scanner by their place in the VM's memory.  QEMU has the
 * memory of a `pc` or `q35` in one backend, its first part below a hole for devices, the rest from 4 GiB on
 * (hw/i386/pc_piix.c, pc_q35.c; the same since 2.x).  Where that is not so (other machines, NUMA, DIMMs) hints are
 * dropped.  They are a guest's word: wrong ones cost time only.
 */
#include <errno.h>
#include <stdlib.h>

#include "daemon/channel/agent.h"
#include "daemon/manager-private.h"

#define RUNS_MAX 4096U
/* A guest that hints all the time is listened to so often. */
#define PACE (10 * BL_SEC)
/* It takes a guest some tens of milliseconds to find them: each is asked no more often, and one after the other. */
#define ASK_PACE  (300 * BL_SEC)
#define ASK_APART (5 * BL_SEC)
#define ASK_BYTES (64 * BL_KIB)

struct bl_share_hints {
        uint64_t scan; /* of the agent, that these are of */
        bool fresh; /* the sampler was not told of them yet */
        usec_t told_at;
        size_t n;
        struct bl_share_run run[RUNS_MAX]; /* of the guest */
};

struct bl_share_hints *bl_share_hints_free(struct bl_share_hints *h)
{
        free(h);
        return NULL;
}

/* Bytes of a guest's memory that lie below its hole for devices; 0: not known. */
static uint64_t below_4g(enum bl_machine machine, uint64_t ram)
{
        switch (machine) {
        case BL_MACHINE_PC:
                return ram >= UINT64_C(0xe0000000) ? UINT64_C(0xc0000000) : ram;
        case BL_MACHINE_Q35:
                return ram >= UINT64_C(0xb0000000) ? UINT64_C(0x80000000) : ram;
        case BL_MACHINE_OTHER:
                break;
        }
        return 0;
}

/* The part of a run that lies in [low, high) of the guest, moved to `to` of the source. */
static void put(struct bl_share_run *runs, size_t *n, struct bl_share_run r, uint64_t low, uint64_t high, uint64_t to)
{
        uint64_t first = bl_max(r.first, low), end = bl_min(bl_add_sat(r.first, r.n), high);

        if (first < end)
                runs[(*n)++] = (struct bl_share_run){.first = to + (first - low), .n = end - first};
}

static int by_first(const void *a, const void *b)
{
        const struct bl_share_run *x = a, *y = b;

        return x->first < y->first ? -1 : x->first > y->first;
}

/* Sorted, without overlaps; how many are left. */
static size_t tidy(struct bl_share_run *runs, size_t n)
{
        size_t k = 0;

        if (n > 0)
                qsort(runs, n, sizeof *runs, by_first);
        for (size_t i = 0; i < n; i++) {
                uint64_t end = runs[i].first + runs[i].n;

                if (k > 0 && runs[i].first <= runs[k - 1].first + runs[k - 1].n)
                        runs[k - 1].n = bl_max(runs[k - 1].first + runs[k - 1].n, end) - runs[k - 1].first;
                else
                        runs[k++] = runs[i];
        }
        return k;
}

void bl_share_hints_again(struct bl_guest *g)
{
        if (!g->share.hints)
                return;
        g->share.hints->fresh = true;
        g->share.hints->told_at = 0;
}

size_t bl_share_translate(enum bl_machine machine, uint64_t ram, const struct bl_share_run *runs, size_t n,
                          struct bl_share_run *ret)
{
        const uint64_t gib4 = 4 * BL_GIB / BL_PAGE_SIZE, pages = ram / BL_PAGE_SIZE;
        uint64_t below = below_4g(machine, ram) / BL_PAGE_SIZE;
        size_t k = 0;

        for (size_t i = 0; i < n && below > 0; i++) {
                put(ret, &k, runs[i], 0, below, 0);
                put(ret, &k, runs[i], gib4, gib4 + (pages - below), below);
        }
        return tidy(ret, k);
}

void bl_share_hints_apply(struct bl_guest *g, usec_t now)
{
        const struct bl_share_source *s = g->share.source;
        struct bl_share_hints *h = g->share.hints;
        _cleanup_free_ struct bl_share_run *runs = NULL;
        _cleanup_free_ uint64_t *first = NULL, *pages = NULL;
        size_t n;

        if (!s || s->alone || !h || !h->fresh || now < bl_add_sat(h->told_at, PACE) || !g->desc ||
            !g->m->share.evidence)
                return;
        h->fresh = false;
        h->told_at = now;
        if (s->source->n_pages != bl_guest_max(g) / BL_PAGE_SIZE)
                return;
        /* one run may lie on both sides of the hole */
        runs = calloc(2 * (size_t)RUNS_MAX, sizeof *runs);
        first = calloc(2 * (size_t)RUNS_MAX, sizeof *first);
        pages = calloc(2 * (size_t)RUNS_MAX, sizeof *pages);
        if (!runs || !first || !pages)
                return;
        n = bl_share_translate(g->desc->live.machine, bl_guest_max(g), h->run, h->n, runs);
        for (size_t i = 0; i < n; i++) {
                first[i] = runs[i].first;
                pages[i] = runs[i].n;
        }
        (void)bl_evidence_hint(g->m->share.evidence, g->share.scan_id, first, pages, n);
}

void bl_share_hints_ask(struct bl_guest *g, usec_t now)
{
        const struct bl_wire_action a = {.kind = BL_ACTION_HINTS, .bytes = ASK_BYTES};
        struct bl_guest_share *s = &g->share;
        struct bl_share *all = &g->m->share;
        int r;

        /* its first samples are there already, and what is to be merged now is known */
        if (s->mode != BL_SHARE_GROUP || !s->met || bl_share_busy(g->m) || now < all->hints_next || !g->agent.hello ||
            s->burst_at <= s->hints_at || (s->hints_at > 0 && now < bl_add_sat(s->hints_at, ASK_PACE)))
                return;
        r = bl_agent_act(g->agent.link.agent, &a);
        /* one that is asked for something else just now is asked with the next look */
        if (r == -EBUSY || r == -ENOTCONN)
                return;
        s->hints_at = now;
        all->hints_next = bl_add_sat(now, ASK_APART);
}

void bl_share_hints(struct bl_guest *g, const struct bl_wire_hints *w)
{
        struct bl_share_hints *h = g->share.hints;
        uint64_t pfn = 0;
        struct bl_wire_run run;
        size_t pos = 0;

        if (g->m->conf->share_mode != BL_SHARE_GROUP)
                return;
        if (!h)
                h = g->share.hints = calloc(1, sizeof *h);
        if (!h)
                return;
        if (h->scan != w->scan) {
                h->scan = w->scan;
                h->n = 0;
        }
        /* free pages have no content that anybody needs */
        while (w->kind != BL_HINT_FREE && h->n < RUNS_MAX && bl_wire_run_next(w, &pos, &pfn, &run) > 0)
                h->run[h->n++] = (struct bl_share_run){.first = run.pfn, .n = run.pages};
        h->fresh = h->fresh || (w->flags & BL_HINTS_LAST);
}
