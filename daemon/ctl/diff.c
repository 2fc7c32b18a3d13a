/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/ctl/diff.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <ballast/cleanup.h>
#include <ballast/units.h>

#define LINES_MAX 20000U
#define CONTEXT   ((size_t)3)
#define HUNK_GAP  (2 * CONTEXT + 1) /* changes nearer than this share a hunk */

struct line {
        const char *s;
        size_t len;
};

struct text {
        size_t n;
        struct line *lines;
};

/* Lines of the result: of both, of the first, of the second. */
struct edit {
        char mark; /* ' ', '-', '+' */
        const struct line *line;
};

static void text_clear(struct text *t)
{
        free(t->lines);
}

static int split(const char *s, struct text *t)
{
        size_t n = 0;

        for (const char *p = s; *p; n++) {
                p += strcspn(p, "\n");
                p += *p == '\n';
        }
        if (n > LINES_MAX)
                return -EFBIG;
        t->lines = calloc(n ? n : 1, sizeof(*t->lines));
        if (!t->lines)
                return -ENOMEM;
        for (const char *p = s; *p; t->n++) {
                size_t len = strcspn(p, "\n");

                t->lines[t->n] = (struct line){p, len};
                p += len + (p[len] == '\n');
        }
        return 0;
}

static bool equal(const struct line *a, const struct line *b)
{
        return a->len == b->len && memcmp(a->s, b->s, a->len) == 0;
}

/* The longest common subsequence by its table; beginning and end that are
 * equal are put aside before, so that the table is small where little changed. */
static int compare(const struct text *a, const struct text *b, struct edit *edits, size_t *ret_n)
{
        size_t head = 0, tail = 0, n = 0, na, nb, i, j;
        _cleanup_free_ uint32_t *table = NULL;

        while (head < a->n && head < b->n && equal(&a->lines[head], &b->lines[head]))
                head++;
        while (head + tail < a->n && head + tail < b->n &&
               equal(&a->lines[a->n - 1 - tail], &b->lines[b->n - 1 - tail]))
                tail++;
        na = a->n - head - tail;
        nb = b->n - head - tail;
        if ((na + 1) * (nb + 1) > ((size_t)16 << 20))
                return -EFBIG;
        table = calloc((na + 1) * (nb + 1), sizeof(*table));
        if (!table)
                return -ENOMEM;
#define AT(x, y) table[(x) * (nb + 1) + (y)]
        for (i = na; i-- > 0;)
                for (j = nb; j-- > 0;) {
                        if (equal(&a->lines[head + i], &b->lines[head + j]))
                                AT(i, j) = AT(i + 1, j + 1) + 1;
                        else
                                AT(i, j) = AT(i + 1, j) >= AT(i, j + 1) ? AT(i + 1, j) : AT(i, j + 1);
                }
        for (i = 0; i < head; i++)
                edits[n++] = (struct edit){' ', &a->lines[i]};
        for (i = j = 0; i < na || j < nb;) {
                if (i < na && j < nb && equal(&a->lines[head + i], &b->lines[head + j])) {
                        edits[n++] = (struct edit){' ', &a->lines[head + i]};
                        i++, j++;
                } else if (i < na && (j >= nb || AT(i + 1, j) >= AT(i, j + 1)))
                        edits[n++] = (struct edit){'-', &a->lines[head + i++]};
                else
                        edits[n++] = (struct edit){'+', &b->lines[head + j++]};
        }
#undef AT
        for (i = 0; i < tail; i++)
                edits[n++] = (struct edit){' ', &a->lines[a->n - tail + i]};
        *ret_n = n;
        return 0;
}

/* `line_a`, `line_b`: lines of the two texts before it, and then behind it. */
static void print_hunk(FILE *f, const struct edit *edits, size_t from, size_t to, size_t *line_a, size_t *line_b)
{
        size_t n_a = 0, n_b = 0;

        for (size_t i = from; i < to; i++) {
                n_a += edits[i].mark != '+';
                n_b += edits[i].mark != '-';
        }
        fprintf(f, "@@ -%zu,%zu +%zu,%zu @@\n", *line_a + (n_a > 0), n_a, *line_b + (n_b > 0), n_b);
        for (size_t i = from; i < to; i++)
                fprintf(f, "%c%.*s\n", edits[i].mark, (int)edits[i].line->len, edits[i].line->s);
        *line_a += n_a;
        *line_b += n_b;
}

/* Changes that are at most two contexts apart share a hunk. */
static void print_all(FILE *f, const struct edit *edits, size_t n)
{
        size_t line_a = 0, line_b = 0, done = 0;

        for (size_t i = 0; i < n; i++) {
                size_t from, last = i;

                if (edits[i].mark == ' ')
                        continue;
                for (size_t k = i; k < n && k <= last + HUNK_GAP; k++)
                        if (edits[k].mark != ' ')
                                last = k;
                from = i > done + CONTEXT ? i - CONTEXT : done;
                line_a += from - done;
                line_b += from - done;
                done = bl_min(last + 1 + CONTEXT, n);
                print_hunk(f, edits, from, done, &line_a, &line_b);
                i = done - 1;
        }
}

int ctl_diff(const char *name, const char *before, const char *after, char **ret)
{
        _cleanup_(text_clear) struct text a = {0}, b = {0};
        _cleanup_free_ struct edit *edits = NULL;
        _cleanup_free_ char *buf = NULL;
        size_t n = 0, size = 0;
        FILE *f;
        int r;

        r = split(before, &a);
        if (r < 0)
                return r;
        r = split(after, &b);
        if (r < 0)
                return r;
        edits = calloc(a.n + b.n + 1, sizeof(*edits));
        if (!edits)
                return -ENOMEM;
        r = compare(&a, &b, edits, &n);
        if (r < 0)
                return r;
        f = open_memstream(&buf, &size);
        if (!f)
                return -ENOMEM;
        for (size_t i = 0; i < n; i++)
                if (edits[i].mark != ' ') {
                        fprintf(f, "--- %s (now)\n+++ %s (for Ballast)\n", name, name);
                        break;
                }
        print_all(f, edits, n);
        if (fclose(f) != 0)
                return -ENOMEM;
        *ret = BL_TAKE(buf);
        return 0;
}
