// SPDX-License-Identifier: LGPL-2.1-or-later
/* Records of one size, by number. */
#include "daemon/pages/evidence_pool.h"

#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX

void bl_ev_pool_init(struct bl_ev_pool *p, size_t size, unsigned shift)
{
        *p = (struct bl_ev_pool){.size = size, .shift = shift, .free = NONE};
}

static size_t chunk_bytes(const struct bl_ev_pool *p)
{
        return p->size << p->shift;
}

void bl_ev_pool_free(struct bl_ev_pool *p, struct bl_ev_memory *m)
{
        for (uint32_t i = 0; i < p->n_chunks; i++)
                free(p->chunk[i]);
        m->now -= p->n_chunks * chunk_bytes(p);
        free(p->chunk);
        *p = (struct bl_ev_pool){.size = p->size, .shift = p->shift, .free = NONE};
}

static bool grow(struct bl_ev_pool *p, struct bl_ev_memory *m)
{
        uint8_t *c;

        if (m->now + chunk_bytes(p) > m->max)
                return false;
        if (p->n_chunks == p->room) {
                uint32_t room = p->room ? 2 * p->room : 16;
                uint8_t **more = reallocarray(p->chunk, room, sizeof(*more));

                if (!more)
                        return false;
                p->chunk = more;
                p->room = room;
        }
        c = malloc(chunk_bytes(p));
        if (!c)
                return false;
        p->chunk[p->n_chunks++] = c;
        m->now += chunk_bytes(p);
        return true;
}

bool bl_ev_pool_spare(struct bl_ev_pool *p, uint32_t n, struct bl_ev_memory *m)
{
        while ((p->n_chunks << p->shift) - p->live < n)
                if (!grow(p, m))
                        return false;
        return true;
}

uint32_t bl_ev_pool_take(struct bl_ev_pool *p)
{
        uint32_t i = p->free;

        if (i == NONE)
                i = p->used++;
        else
                memcpy(&p->free, bl_ev_pool_at(p, i), sizeof(p->free));
        p->live++;
        memset(bl_ev_pool_at(p, i), 0, p->size);
        return i;
}

void bl_ev_pool_give(struct bl_ev_pool *p, uint32_t i)
{
        memcpy(bl_ev_pool_at(p, i), &p->free, sizeof(p->free));
        p->free = i;
        p->live--;
}
