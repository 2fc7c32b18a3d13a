/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One split virtqueue (Virtual I/O Device 1.2, section 2.7), the device's side,
 * in memory that its driver may change at any moment.  Each descriptor is read
 * once, into a copy, and the copy is what is checked and used; chains are
 * bounded by the ring's size and by BL_VRING_CHAIN; indirect descriptors and
 * event indices are not offered.  A ring that breaks the rules is broken until
 * the driver resets the device: nothing is written to it any more.
 */
#ifndef BALLAST_VSOCK_VRING_H
#define BALLAST_VSOCK_VRING_H

#include <stdbool.h>

#include "daemon/vsock/guest_memory.h"

#define BL_VRING_MAX   1024U /* entries; QEMU's vhost-vsock has 128 */
#define BL_VRING_CHAIN 64U /* descriptors in one chain; Linux uses 2, or 1 + 17 for large packets */

/* Plain data, which a worker that takes over another's finds as it was. */
struct bl_vring {
        uint32_t num; /* entries, a power of 2 (checked); 0: not set up */
        uint64_t desc, avail, used; /* in the VMM (userspace addresses, as vhost-user gives them) */
        uint16_t last_avail; /* the next entry to look at */
        uint16_t used_idx; /* as we wrote it last */
        bool enabled; /* SET_VRING_ENABLE, or no protocol features */
        bool started; /* has a kick descriptor */
        bool broken; /* the driver broke the rules */
};

struct bl_vring_buffer {
        uint64_t gpa;
        uint32_t size;
};

/* A chain: the driver's readable buffers, then its writable ones. */
struct bl_vchain {
        uint16_t head;
        unsigned n_out, n_in; /* readable by us; writable by us */
        struct bl_vring_buffer out[BL_VRING_CHAIN], in[BL_VRING_CHAIN];
        uint64_t out_size, in_size; /* sums */
};

bool bl_vring_ready(const struct bl_vring *r); /* set up, started, enabled, not broken */

/* Where the driver's memory is now: -EINVAL: not aligned.  As for the others below, nothing is used that does
 * not lie in the table whole; then they return -EFAULT, and the ring is not broken: the table may come yet. */
int bl_vring_set_addr(struct bl_vring *r, uint64_t desc, uint64_t avail, uint64_t used);
/* Both positions; every chain is given back before the next is taken, so that they are one. */
void bl_vring_set_base(struct bl_vring *r, uint16_t base);

/*
 * A predecessor died somewhere in the middle: the chain that it had taken and
 * not given back comes again, and one that it gave back without having noted so
 * does not.
 */
int bl_vring_take_over(struct bl_vring *r, const struct bl_gm *m);

/* The next chain that the driver made available: 1, and the ring goes on to the
 * one after; 0: none; -EBADMSG: it broke the rules, and `broken` is set; others as
 * guest memory. */
int bl_vring_next(struct bl_vring *r, const struct bl_gm *m, struct bl_vchain *ret);

/* The chain that was taken last comes again with the next bl_vring_next. */
void bl_vring_put_back(struct bl_vring *r);

/* Is there one?  As above, and nothing moves. */
int bl_vring_available(struct bl_vring *r, const struct bl_gm *m);

/* Gives a chain back, `written` bytes of its writable part filled. */
int bl_vring_give_back(struct bl_vring *r, const struct bl_gm *m, uint16_t head, uint32_t written);

/* Does the driver want to be told (VRING_AVAIL_F_NO_INTERRUPT)? */
bool bl_vring_wants_call(const struct bl_vring *r, const struct bl_gm *m);

/* Copies out of and into a chain's buffers from `offset` on.  -ENOBUFS: there
 * is less than that; others as guest memory. */
int bl_vchain_read(const struct bl_vchain *c, const struct bl_gm *m, uint64_t offset, void *buf, size_t size);
int bl_vchain_write(const struct bl_vchain *c, const struct bl_gm *m, uint64_t offset, const void *buf, size_t size);

#endif
