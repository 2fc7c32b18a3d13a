/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the store does when nobody waits for it: takes memory ahead of use, and moves what is sparse together.
 * One thread. */
#ifndef BALLAST_STORE_UPKEEP_H
#define BALLAST_STORE_UPKEEP_H

#include <stdint.h>

#include <ballast/cleanup.h>

struct bl_store;
struct bl_upkeep;

/* `ready`: bytes of the pool that are taken ahead always.  -ENOMEM; -EAGAIN: no thread. */
int bl_upkeep_start(struct bl_store *s, uint64_t ready, struct bl_upkeep **ret);
struct bl_upkeep *bl_upkeep_stop(struct bl_upkeep *u);
BL_DEFINE_CLEANUP(struct bl_upkeep *, bl_upkeep_stop)

/* So many bytes are to be ready, in a while; tried once.  Never blocks. */
void bl_upkeep_reserve(struct bl_upkeep *u, uint64_t bytes);

#endif
