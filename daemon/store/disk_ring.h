/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a store and its disk's worker share: requests in slots, and the bytes
 * that they carry.
 *
 * A slot goes IDLE -> QUEUED (by the store, which filled it) -> RUNNING (by the
 * process of the worker that took it) -> DONE (by the same), and is the store's
 * again.  LOST is put by the store into all slots when the worker is dead.  A
 * state is a futex (futex(2)); a doorbell counts the requests of its kind.
 *
 * A worker has a ring of its own, which its successor never sees: what a dead
 * worker's last I/O still brings goes to memory that nobody reads.
 */
#ifndef BALLAST_STORE_DISK_RING_H
#define BALLAST_STORE_DISK_RING_H

#include <stdatomic.h>
#include <stdint.h>

#include <ballast/units.h>

/* What O_DIRECT asks for in offset, length and memory: 4 KiB do for every disk (statx(2), STATX_DIOALIGN). */
#define BL_RING_ALIGN 4096U

/* A compressed page lies in two blocks at most. */
#define BL_RING_READ_SIZE  (2 * BL_RING_ALIGN)
#define BL_RING_WRITE_SIZE (256U * 1024)

#define BL_RING_READS  32U
#define BL_RING_WRITES 4U

enum bl_ring_kind {
        BL_RING_READ,
        BL_RING_WRITE,
        _BL_RING_KIND_MAX,
};

enum bl_ring_state {
        BL_RING_IDLE,
        BL_RING_QUEUED,
        BL_RING_RUNNING,
        BL_RING_DONE,
        BL_RING_LOST,
};

struct bl_ring_slot {
        _Atomic uint32_t state;
        _Atomic uint32_t order; /* the lowest of those queued is next; wraps */
        int32_t result; /* 0 or negative errno */
        uint32_t size; /* offset and size are multiples of BL_RING_ALIGN */
        uint64_t offset; /* on the disk */
};

struct bl_ring {
        _Atomic uint32_t locked; /* the worker has the disk's lock and works */
        _Atomic uint32_t bell[_BL_RING_KIND_MAX];
        struct bl_ring_slot reads[BL_RING_READS], writes[BL_RING_WRITES];
        _Alignas(BL_RING_ALIGN) uint8_t read_bytes[BL_RING_READS][BL_RING_READ_SIZE];
        _Alignas(BL_RING_ALIGN) uint8_t write_bytes[BL_RING_WRITES][BL_RING_WRITE_SIZE];
};

static inline struct bl_ring_slot *bl_ring_slots(struct bl_ring *r, enum bl_ring_kind kind)
{
        return kind == BL_RING_READ ? r->reads : r->writes;
}

static inline uint32_t bl_ring_count(enum bl_ring_kind kind)
{
        return kind == BL_RING_READ ? BL_RING_READS : BL_RING_WRITES;
}

static inline uint8_t *bl_ring_bytes(struct bl_ring *r, enum bl_ring_kind kind, uint32_t i)
{
        return kind == BL_RING_READ ? r->read_bytes[i] : r->write_bytes[i];
}

/* Waits while *word is `seen`, at most until `deadline` (CLOCK_MONOTONIC; BL_UNSET: for ever).  May return early. */
void bl_ring_wait(_Atomic uint32_t *word, uint32_t seen, usec_t deadline);
void bl_ring_wake(_Atomic uint32_t *word, int n);

#endif
