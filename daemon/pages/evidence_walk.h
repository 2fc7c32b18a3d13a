/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * All numbers below n, each once, in an order that looks random: a Feistel network over the next power of four, walked
 * on until it falls below n ("cycle walking"; Black and Rogaway, Ciphers with Arbitrary Finite Domains, CT-RSA 2002).
 * Needs no memory, so a VM of any size is gone through without repetition.
 */
#ifndef BALLAST_PAGES_EVIDENCE_WALK_H
#define BALLAST_PAGES_EVIDENCE_WALK_H

#include <stdbool.h>
#include <stdint.h>

struct bl_ev_walk {
        uint64_t key;
        uint32_t n, pos;
        unsigned half; /* bits */
};

void bl_ev_walk_start(struct bl_ev_walk *w, uint32_t n, uint64_t key);

/* False: all were given. */
bool bl_ev_walk_next(struct bl_ev_walk *w, uint32_t *ret);

/* MurmurHash3's finalizer: every bit of the result hangs on every bit of `x`. */
static inline uint64_t bl_ev_mix(uint64_t x)
{
        x ^= x >> 33;
        x *= UINT64_C(0xff51afd7ed558ccd);
        x ^= x >> 33;
        x *= UINT64_C(0xc4ceb9fe1a85ec53);
        return x ^ (x >> 33);
}

#endif
