// SPDX-License-Identifier: LGPL-2.1-or-later
#include "daemon/history.h"

struct bl_history {
        size_t first, n, allocated;
        struct bl_history_event *ring;
};

int bl_history_new(struct bl_history **ret)
{
        struct bl_history *h = calloc(1, sizeof *h);

        if (!h)
                return -ENOMEM;
        *ret = h;
        return 0;
}

struct bl_history *bl_history_free(struct bl_history *h)
{
        if (h)
                free(h->ring);
        free(h);
        return NULL;
}

/* Grows by doubling up to the bound: an idle host does not pay for a full ring. */
static bool make_room(struct bl_history *h)
{
        size_t want = h->allocated ? h->allocated * 2 : 32;
        struct bl_history_event *bigger;

        if (h->n < h->allocated)
                return true;
        if (h->allocated >= BL_HISTORY_MAX)
                return false;
        bigger = reallocarray(h->ring, want, sizeof *bigger);
        if (!bigger)
                return false;
        h->ring = bigger;
        h->allocated = want;
        return true;
}

void bl_history_add(struct bl_history *h, const struct bl_history_event *e)
{
        if (make_room(h)) {
                h->ring[h->n++] = *e;
        } else if (h->n > 0) {
                h->ring[h->first] = *e;
                h->first = (h->first + 1) % h->n;
        }
}

size_t bl_history_count(const struct bl_history *h)
{
        return h->n;
}

const struct bl_history_event *bl_history_get(const struct bl_history *h, size_t i)
{
        return i < h->n ? &h->ring[(h->first + i) % h->n] : NULL;
}
