/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/ctl/table.h"

#include <string.h>

/* Out of memory only: then a table has holes, or is not there. */

struct libscols_table *ctl_table_new(const struct ctl *c, const struct ctl_column *columns, size_t n)
{
        struct libscols_table *t = scols_new_table();

        if (!t)
                return NULL;
        for (size_t i = 0; i < n; i++) {
                int flags = (columns[i].right ? SCOLS_FL_RIGHT : 0) | (columns[i].trunc ? SCOLS_FL_TRUNC : 0) |
                            (columns[i].wrap ? SCOLS_FL_WRAP : 0);

                /* a hint below 1 is a part of the width: the one that gives way takes the rest */
                struct libscols_column *cl =
                        scols_table_new_column(t, columns[i].name, columns[i].trunc ? 0.2 : 1, flags);

                if (cl && columns[i].wrap) {
                        (void)scols_column_set_wrapfunc(cl, scols_wrapnl_chunksize, scols_wrapnl_nextchunk, NULL);
                        (void)scols_column_set_safechars(cl, "\n");
                }
        }
        (void)scols_table_enable_colors(t, c->color);
        if (c->width > 0) {
                (void)scols_table_set_termforce(t, SCOLS_TERMFORCE_ALWAYS);
                (void)scols_table_set_termwidth(t, (size_t)c->width);
        } else
                (void)scols_table_set_termforce(t, SCOLS_TERMFORCE_NEVER);
        return t;
}

struct libscols_line *ctl_table_line(struct libscols_table *t)
{
        return t ? scols_table_new_line(t, NULL) : NULL;
}

void ctl_table_set(const struct ctl *c, struct libscols_line *l, size_t column, enum ctl_color color, const char *text)
{
        if (!l)
                return;
        (void)scols_line_set_data(l, column, text);
        if (c->color && color != CTL_PLAIN)
                (void)scols_cell_set_color(scols_line_get_cell(l, column), ctl_color(c, color));
}

char *ctl_table_fold(const char *text, size_t width)
{
        char *s = strdup(text), *line = s, *space;

        if (!s || width == 0)
                return s;
        while (strlen(line) > width) {
                space = memrchr(line, ' ', width + 1);
                if (!space)
                        space = strchr(line, ' ');
                if (!space)
                        break;
                *space = '\n';
                line = space + 1;
        }
        return s;
}

void ctl_table_print(struct libscols_table *t)
{
        if (t)
                (void)scols_print_table(t);
}
