/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Records of one size in chunks: they never move, grow without copying, and are named by number. */
#ifndef BALLAST_PAGES_EVIDENCE_POOL_H
#define BALLAST_PAGES_EVIDENCE_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bl_ev_pool {
        uint8_t **chunk;
        size_t size; /* bytes of a record, at least 4 */
        unsigned shift; /* 2^shift records a chunk */
        uint32_t n_chunks, room; /* room: for pointers */
        uint32_t used; /* records that were ever taken: those from here on were never touched */
        uint32_t live;
        uint32_t free; /* first of the list that goes through the records' first 4 bytes */
};

/* What all pools of a table take together. */
struct bl_ev_memory {
        size_t now, max; /* bytes */
};

static inline void *bl_ev_pool_at(const struct bl_ev_pool *p, uint32_t i)
{
        return p->chunk[i >> p->shift] + (size_t)(i & ((1U << p->shift) - 1)) * p->size;
}

void bl_ev_pool_init(struct bl_ev_pool *p, size_t size, unsigned shift);
void bl_ev_pool_free(struct bl_ev_pool *p, struct bl_ev_memory *m);

/* Makes sure that the next `n` takes succeed.  False: memory's bound is reached, or there is none. */
bool bl_ev_pool_spare(struct bl_ev_pool *p, uint32_t n, struct bl_ev_memory *m);

/* Zeroed; only after bl_ev_pool_spare. */
uint32_t bl_ev_pool_take(struct bl_ev_pool *p);
void bl_ev_pool_give(struct bl_ev_pool *p, uint32_t i);

#endif
