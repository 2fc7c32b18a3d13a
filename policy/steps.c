/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A part of less than a step is not worth a command.  With many VMs such parts
 * can still be all that is needed, so they are put together: the first in the
 * queue move a whole step each, the others nothing.
 */
#include <stdlib.h>

#include "internal.h"

static int compare(const void *a, const void *b)
{
        const struct bl_pick *x = a, *y = b;

        if (x->order != y->order)
                return x->order < y->order ? -1 : 1;
        return x->index < y->index ? -1 : x->index > y->index;
}

void bl_in_steps(struct bl_work *w, size_t n, uint64_t step, struct bl_pick *picks)
{
        uint64_t left = 0;
        size_t k = 0;

        for (size_t i = 0; i < n; i++) {
                if (w[i].part == 0 || w[i].part >= step)
                        continue;
                left = bl_add_sat(left, w[i].part);
                w[i].part = 0;
                if (w[i].part_max >= step)
                        picks[k++] = (struct bl_pick){.order = w[i].order, .index = i};
        }
        if (left == 0)
                return;

        /* those that move anyway first: that costs no further command */
        for (size_t i = 0; i < n && left > 0; i++) {
                uint64_t more;

                if (w[i].part == 0)
                        continue;
                more = bl_min(left, bl_sub_sat(w[i].part_max, w[i].part));
                /* by a step at most, or the first in the list would pay for all */
                more = bl_min(more, step);
                w[i].part += more;
                left -= more;
        }

        if (left > 0 && k > 1)
                qsort(picks, k, sizeof(*picks), compare);
        for (size_t i = 0; i < k && left > 0; i++) {
                w[picks[i].index].part = step;
                left = bl_sub_sat(left, step);
        }
}
