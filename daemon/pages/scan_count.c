/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <math.h>
#include <string.h>

#include "daemon/pages/scan_private.h"

static void begin(struct bl_scan *s)
{
        for (size_t i = 0; i < s->n_sources; i++)
                s->report.source[i].f = s->pass[i];
        if (s->report.matrix)
                memset(s->report.matrix, 0, s->n_sources * s->n_sources * sizeof(*s->report.matrix));
        s->variance = 0;
}

/* Entries from..to are all of one class, in the order of pages, so of sources. */
static void count_class(struct bl_scan *s, size_t from, size_t to)
{
        const uint64_t weight = UINT64_C(1) << s->shift;
        struct bl_scan_entry *e = s->table.e;
        size_t n = 0, source = 0;
        uint64_t pages = 0;

        for (size_t i = from; i < to; i++) {
                source = bl_scan_source_of(s, bl_scan_page(&e[i]), source);
                if (bl_scan_lost(s, source))
                        continue;
                if (e[i].where & BL_SCAN_VOLATILE) {
                        s->report.source[source].f.volatile_pages += weight;
                        continue;
                }
                if (n == 0 || s->in[n - 1] != source) {
                        s->in[n] = (uint32_t)source;
                        s->copies[n++] = 0;
                }
                s->copies[n - 1]++;
                pages++;
        }
        for (size_t a = 0; a < n; a++) {
                struct bl_scan_figures *f = &s->report.source[s->in[a]].f;

                if (a == 0)
                        f->unique += weight;
                else
                        f->duplicate_inter += weight;
                f->duplicate_intra += (s->copies[a] - 1) * weight;
                if (n > 1)
                        f->with_copy_elsewhere += s->copies[a] * weight;
                for (size_t b = a + 1; s->report.matrix && b < n; b++)
                        s->report.matrix[s->in[a] * s->n_sources + s->in[b]] += weight;
        }
        for (size_t i = from; pages > 1 && i < to; i++)
                e[i].where |= BL_SCAN_COPY;
        if (pages > 1)
                s->variance += (double)(pages - 1) * (double)(pages - 1) * (double)weight * (double)(weight - 1);
}

static void add(struct bl_scan_figures *sum, const struct bl_scan_figures *f)
{
        sum->pages += f->pages;
        sum->zero += f->zero;
        sum->unique += f->unique;
        sum->duplicate_intra += f->duplicate_intra;
        sum->duplicate_inter += f->duplicate_inter;
        sum->volatile_pages += f->volatile_pages;
        sum->unreadable += f->unreadable;
        sum->saved_pages += f->saved_pages;
        sum->merged += f->merged;
        sum->merged_frames += f->merged_frames;
        sum->merged_saved += f->merged_saved;
        sum->absent += f->absent;
        sum->swapped += f->swapped;
        sum->kernel_zero += f->kernel_zero;
}

static void finish(struct bl_scan *s)
{
        struct bl_scan_report *r = &s->report;

        memset(&r->all, 0, sizeof(r->all));
        bl_scan_frames_count(&s->frames, r->source);
        r->still = true;
        r->blind = false;
        for (size_t i = 0; i < s->n_sources; i++) {
                struct bl_scan_figures *f = &r->source[i].f;

                if (bl_scan_lost(s, i))
                        continue;
                /* of a sample: how many pages there are is known, so the estimates add up to that */
                if (s->shift > 0)
                        f->unique = bl_sub_sat(f->pages, f->zero + f->duplicate_intra + f->duplicate_inter +
                                                                 f->volatile_pages + f->unreadable);
                f->saved_pages = f->zero + f->duplicate_intra + f->duplicate_inter;
                f->merged_saved = bl_sub_sat(f->merged, f->merged_frames);
                add(&r->all, f);
                r->still = r->still && s->sources[i]->still;
                r->blind = r->blind || s->sources[i]->blind;
                for (size_t j = i; r->matrix && j < s->n_sources; j++)
                        if (j == i)
                                r->matrix[i * s->n_sources + i] = f->duplicate_intra;
                        else
                                r->matrix[j * s->n_sources + i] = r->matrix[i * s->n_sources + j];
        }
        r->sample_shift = s->shift;
        r->saved_error = sqrt(s->variance);
        r->compress_ratio =
                s->compressed_bytes ? (double)r->compressed * BL_PAGE_SIZE / (double)s->compressed_bytes : 0;
}

int bl_scan_count_go(struct bl_scan *s)
{
        struct bl_scan_table *t = &s->table;
        const size_t stop = (size_t)bl_min(t->n, s->at + BL_SCAN_SLICE);

        if (s->at == 0)
                begin(s);
        while (s->at < stop) {
                const size_t from = s->at;

                while (s->at < t->n && t->e[s->at].key == t->e[from].key)
                        s->at++;
                count_class(s, from, s->at);
        }
        if (s->at < t->n)
                return 0;
        finish(s);
        return 1;
}

/* The zero pages had their second look: `marks` is for pages with a copy from here on. */
static int begin_runs(struct bl_scan *s)
{
        const uint64_t total = s->base[s->n_sources];
        int r;

        bl_scan_marks_free(&s->marks, &s->memory);
        r = bl_scan_marks_init(&s->marks, &s->memory, total);
        if (r >= 0)
                r = bl_scan_marks_reserve(&s->marks, &s->memory, 0, total);
        if (r < 0)
                return r;
        s->at = 0;
        s->runs = true;
        return 0;
}

static void count_runs(struct bl_scan *s)
{
        size_t source = 0;

        for (uint64_t from = bl_scan_marks_next(&s->marks, 0), to; from != UINT64_MAX;
             from = bl_scan_marks_next(&s->marks, to)) {
                unsigned power;

                source = bl_scan_source_of(s, from, source);
                to = bl_min(bl_scan_marks_end(&s->marks, from), s->base[source + 1]);
                power = 63 - (unsigned)__builtin_clzll(to - from);
                if (!bl_scan_lost(s, source))
                        s->report.source[source].f.run[bl_min(power, BL_SCAN_RUNS - 1)] += to - from;
        }
}

int bl_scan_runs_go(struct bl_scan *s)
{
        const struct bl_scan_table *t = &s->table;
        const size_t stop = (size_t)bl_min(t->n, s->at + BL_SCAN_SLICE);

        /* a sample has no neighbours */
        if (s->shift > 0)
                return 1;
        if (!s->runs)
                return begin_runs(s);
        for (; s->at < stop; s->at++)
                if ((t->e[s->at].where & (BL_SCAN_COPY | BL_SCAN_VOLATILE)) == BL_SCAN_COPY)
                        bl_scan_marks_set(&s->marks, bl_scan_page(&t->e[s->at]));
        if (s->at < t->n)
                return 0;
        count_runs(s);
        return 1;
}
