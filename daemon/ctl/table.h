/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Tables for people, by libsmartcols; all of ballastctl's look alike. */
#ifndef BALLAST_CTL_TABLE_H
#define BALLAST_CTL_TABLE_H

#include <libsmartcols.h>

#include "daemon/ctl/ctl.h"

struct ctl_column {
        const char *name;
        bool right; /* numbers */
        bool trunc; /* may be cut where the terminal is narrow */
        bool wrap; /* may be wrapped there */
};

struct libscols_table *ctl_table_new(const struct ctl *c, const struct ctl_column *columns, size_t n);
struct libscols_line *ctl_table_line(struct libscols_table *t);
void ctl_table_set(const struct ctl *c, struct libscols_line *l, size_t column, enum ctl_color color, const char *text);
/* Folds `text` between words so that no line is longer than `width`, where its
 * words allow (0: not at all).  Allocated, NULL when out of memory. */
char *ctl_table_fold(const char *text, size_t width);
void ctl_table_print(struct libscols_table *t);

static inline void ctl_table_unrefp(struct libscols_table **t)
{
        scols_unref_table(*t);
}

#endif
