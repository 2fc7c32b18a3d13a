/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/ctl/scan_tables.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/ctl/scan_words.h"
#include "daemon/ctl/table.h"
#include "daemon/pages/page.h"

void ctl_scan_print_sentence(const struct ctl *c, enum ctl_color color, char *sentence)
{
        _cleanup_free_ char *folded = sentence ? ctl_scan_fold(sentence, (size_t)c->width) : NULL;

        if (folded)
                printf("%s%s%s\n", ctl_color(c, color), folded, color != CTL_PLAIN ? ctl_color_end(c) : "");
        free(sentence);
}

static void print_heading(const struct ctl *c, const char *text)
{
        putchar('\n');
        ctl_scan_print_sentence(c, CTL_PLAIN, strdup(text));
}

static const char *upper(const char *s, char *buf, size_t size)
{
        size_t i;

        for (i = 0; s[i] && i + 1 < size; i++)
                buf[i] = s[i] >= 'a' && s[i] <= 'z' ? (char)(s[i] - 'a' + 'A') : s[i];
        buf[i] = 0;
        return buf;
}

/* --- a row a VM --------------------------------------------------------------------- */

enum { NAME, FIRST };

static const struct {
        const char *heading, *field;
        bool always; /* else only where one has any */
} figures[] = {
        {"HELD", "pages", true},          {"ZERO", "zero", true},          {"WITHIN", "duplicate_intra", true},
        {"OTHERS", "with_others", false}, {"MERGED", "merged", true},      {"SWAPPED", "swapped", false},
        {"VOLATILE", "volatile", false},  {"UNREAD", "unreadable", false},
};
#define N_FIGURES (sizeof(figures) / sizeof(figures[0]))

static void fill_row(const struct ctl *c, struct libscols_table *t, const char *name, const json_t *o,
                     const size_t *shown, size_t n)
{
        struct libscols_line *l = ctl_table_line(t);
        bool gone = json_is_string(json_object_get(o, "error"));

        ctl_table_set(c, l, NAME, gone ? CTL_RED : CTL_PLAIN, name);
        for (size_t i = 0; i < n; i++) {
                uint64_t pages = ctl_number(o, figures[shown[i]].field);

                ctl_table_set(c, l, FIRST + i, CTL_PLAIN, gone ? "-" : pages == 0 ? "." : CTL_SCAN_SIZE(pages));
        }
}

static void print_rows(const struct ctl *c, const json_t *d)
{
        _cleanup_(ctl_table_unrefp) struct libscols_table *t = NULL;
        struct ctl_column columns[FIRST + N_FIGURES];
        const json_t *vms = json_object_get(d, "vms"), *vm;
        size_t shown[N_FIGURES], n = 0, i;
        char heading[16], all[64];

        columns[NAME] = (struct ctl_column){upper(ctl_scan_kind(d, false), heading, sizeof(heading)), .trunc = true};
        for (i = 0; i < N_FIGURES; i++)
                if (figures[i].always || ctl_number(d, figures[i].field) > 0) {
                        columns[FIRST + n] = (struct ctl_column){figures[i].heading, .right = true};
                        shown[n++] = i;
                }
        t = ctl_table_new(c, columns, FIRST + n);
        json_array_foreach(vms, i, vm)
        {
                fill_row(c, t, ctl_string(vm, "name"), vm, shown, n);
        }
        if (json_array_size(vms) > 1)
                fill_row(c, t, ctl_scan_count(d, all, sizeof(all)), d, shown, n);
        ctl_table_print(t);
}

/* --- each two ----------------------------------------------------------------------- */

#define PAIRS     10 /* in the list of the best */
#define UNBOUNDED 64 /* columns where nobody says how wide */
#define NAME_MAX_ 20

static uint64_t cell(const json_t *matrix, size_t i, size_t k)
{
        return (uint64_t)json_integer_value(json_array_get(json_array_get(matrix, i), k));
}

/* In MiB, without the unit. */
static const char *mib(uint64_t pages, uint64_t largest, char buf[BL_SIZE_BUF])
{
        double v = (double)pages * BL_PAGE_SIZE / (double)BL_MIB;

        if (pages == 0)
                return ".";
        (void)snprintf(buf, BL_SIZE_BUF, "%.*f", largest * BL_PAGE_SIZE < 100 * BL_MIB ? 1 : 0, v);
        return buf;
}
#define MIB(pages, largest) mib(pages, largest, (char[BL_SIZE_BUF]){0})

static uint64_t largest_cell(const json_t *matrix)
{
        uint64_t max = 0;

        for (size_t i = 0; i < json_array_size(matrix); i++)
                for (size_t k = 0; k < json_array_size(matrix); k++)
                        max = bl_max(max, cell(matrix, i, k));
        return max;
}

static bool has_room(const struct ctl *c, const json_t *vms, uint64_t largest)
{
        size_t n = json_array_size(vms), name = 2, width = strlen(MIB(largest, largest)), i;
        const json_t *vm;

        json_array_foreach(vms, i, vm)
        {
                name = bl_max(name, strlen(ctl_string(vm, "name")));
        }
        width = bl_max(width, n < 10 ? 1 : n < 100 ? 2 : 3);
        if (c->width <= 0)
                return n <= UNBOUNDED;
        /* names give way down to some length; a number before each */
        return 4 + bl_min(name, NAME_MAX_) + n * (width + 1) <= (size_t)c->width;
}

static void print_matrix(const struct ctl *c, const json_t *d, uint64_t largest)
{
        const json_t *vms = json_object_get(d, "vms"), *matrix = json_object_get(d, "matrix");
        _cleanup_(ctl_table_unrefp) struct libscols_table *t = NULL;
        _cleanup_free_ struct ctl_column *columns = NULL;
        _cleanup_free_ char(*number)[24] = NULL;
        size_t n = json_array_size(vms);
        char heading[16];

        columns = calloc(n + 2, sizeof(*columns));
        number = calloc(n, sizeof(*number));
        if (!columns || !number)
                return;
        columns[0] = (struct ctl_column){"#", .right = true};
        columns[1] = (struct ctl_column){upper(ctl_scan_kind(d, false), heading, sizeof(heading)), .trunc = true};
        for (size_t i = 0; i < n; i++) {
                (void)snprintf(number[i], sizeof(number[i]), "%zu", i + 1);
                columns[2 + i] = (struct ctl_column){number[i], .right = true};
        }
        t = ctl_table_new(c, columns, n + 2);
        for (size_t i = 0; i < n; i++) {
                struct libscols_line *l = ctl_table_line(t);

                ctl_table_set(c, l, 0, CTL_PLAIN, number[i]);
                ctl_table_set(c, l, 1, CTL_PLAIN, ctl_string(json_array_get(vms, i), "name"));
                for (size_t k = 0; k < n; k++)
                        ctl_table_set(c, l, 2 + k, i == k ? CTL_BOLD : CTL_PLAIN, MIB(cell(matrix, i, k), largest));
        }
        print_heading(c, "Equal memory of each two, in MiB (on the diagonal: surplus within one):");
        ctl_table_print(t);
}

/* The beginning of a name, of so many characters; allocated. */
static char *cut(const char *name, size_t characters)
{
        const char *p = name;

        while (*p && characters > 0) {
                p++;
                while (((unsigned char)*p & 0xc0) == 0x80)
                        p++;
                characters--;
        }
        return strndup(name, (size_t)(p - name));
}

struct pair {
        size_t a, b;
        uint64_t pages;
};

static int by_pages(const void *a, const void *b)
{
        const struct pair *p = a, *q = b;

        if (p->pages != q->pages)
                return p->pages < q->pages ? 1 : -1;
        return p->a != q->a ? (p->a < q->a ? -1 : 1) : p->b < q->b ? -1 : 1;
}

static void print_pairs(const struct ctl *c, const json_t *d)
{
        const json_t *vms = json_object_get(d, "vms"), *matrix = json_object_get(d, "matrix");
        _cleanup_(ctl_table_unrefp) struct libscols_table *t = NULL;
        _cleanup_free_ struct pair *pairs = NULL;
        size_t n = json_array_size(vms), m = 0;
        char heading[16], text[96];
        const struct ctl_column columns[] = {
                {upper(ctl_scan_kind(d, false), heading, sizeof(heading))}, {"AND"}, {"EQUAL", .right = true}};
        size_t room = c->width > 0 ? (size_t)(c->width - 12) / 2 : SIZE_MAX;

        pairs = calloc(n * n / 2 + 1, sizeof(*pairs));
        t = ctl_table_new(c, columns, 3);
        if (!pairs)
                return;
        for (size_t i = 0; i < n; i++)
                for (size_t k = i + 1; k < n; k++)
                        if (cell(matrix, i, k) > 0)
                                pairs[m++] = (struct pair){i, k, cell(matrix, i, k)};
        if (m == 0)
                return;
        qsort(pairs, m, sizeof(*pairs), by_pages);
        for (size_t i = 0; i < m && i < PAIRS; i++) {
                _cleanup_free_ char *a = cut(ctl_string(json_array_get(vms, pairs[i].a), "name"), room);
                _cleanup_free_ char *b = cut(ctl_string(json_array_get(vms, pairs[i].b), "name"), room);
                struct libscols_line *l = ctl_table_line(t);

                ctl_table_set(c, l, 0, CTL_PLAIN, a);
                ctl_table_set(c, l, 1, CTL_PLAIN, b);
                ctl_table_set(c, l, 2, CTL_PLAIN, CTL_SCAN_SIZE(pairs[i].pages));
        }
        (void)snprintf(text, sizeof(text), "The %d of %zu pairs that have most in common (--json has all):", PAIRS, m);
        print_heading(c, m > PAIRS ? text : "What each two have in common:");
        ctl_table_print(t);
}

static void print_each_two(const struct ctl *c, const json_t *d)
{
        const json_t *matrix = json_object_get(d, "matrix");
        uint64_t largest = largest_cell(matrix);

        if (json_array_size(matrix) < 2 || largest == 0)
                return;
        if (has_room(c, json_object_get(d, "vms"), largest))
                print_matrix(c, d, largest);
        else
                print_pairs(c, d);
}

/* --- all ---------------------------------------------------------------------------- */

void ctl_scan_print(const struct ctl *c, const json_t *d)
{
        bool wrong = json_is_false(json_object_get(json_object_get(d, "verify"), "equal")) &&
                     ctl_true(json_object_get(d, "verify"), "binding");
        char *note;

        ctl_scan_print_sentence(c, CTL_BOLD, ctl_scan_headline(d));
        if (json_array_size(json_object_get(d, "vms")) > 0) {
                putchar('\n');
                print_rows(c, d);
                print_each_two(c, d);
                putchar('\n');
        }
        for (size_t i = 0; (note = ctl_scan_note(d, i)); i++)
                ctl_scan_print_sentence(c, CTL_YELLOW, note);
        ctl_scan_print_sentence(c, CTL_PLAIN, ctl_scan_say_runs(d));
        ctl_scan_print_sentence(c, CTL_PLAIN, ctl_scan_say_compression(d));
        ctl_scan_print_sentence(c, CTL_YELLOW, ctl_scan_say_sampling(d));
        ctl_scan_print_sentence(c, wrong ? CTL_RED : CTL_GREEN, ctl_scan_say_verdict(d));
        if (ctl_number(d, "read") > 0)
                ctl_scan_print_sentence(c, CTL_PLAIN, ctl_scan_say_cost(d));
}

/* --- a line a round ----------------------------------------------------------------- */

static const struct {
        const char *heading, *field;
} over_time[] = {
        {"HELD", "pages"}, {"SAVABLE", "saved_pages"}, {"BETWEEN", "duplicate_inter"}, {"WITHIN", "duplicate_intra"},
        {"ZERO", "zero"},  {"FREED", "merged_saved"}};
#define N_OVER_TIME (sizeof(over_time) / sizeof(over_time[0]))

/* Widths are fixed: lines come one at a time. */
void ctl_scan_print_line(const json_t *d, bool heading, bool brief)
{
        size_t n = json_array_size(json_object_get(d, "vms"));
        char buf[32];
        const char *now = ctl_time(ctl_number(d, "at_us"), buf, sizeof(buf));
        int width = brief ? 8 : 19;

        if (heading) {
                printf("%-*s %4s", width, "TIME", "OF");
                for (size_t i = 0; i < N_OVER_TIME; i++)
                        printf(" %9s", over_time[i].heading);
                printf("%s\n", brief ? "" : "     TOOK");
        }
        printf("%-*s %4zu", width, brief && strlen(now) > 11 ? now + 11 : now, n);
        for (size_t i = 0; i < N_OVER_TIME; i++)
                printf(" %9s", CTL_SCAN_SIZE(ctl_number(d, over_time[i].field)));
        if (!brief)
                printf(" %6.1f s", (double)ctl_number(d, "took_us") / 1e6);
        putchar('\n');
}
