/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest's memory as its VMM has it mapped.  vhost-user hands a backend file
 * descriptors to map; those of a private memfd show another memory than the
 * guest's as soon as it writes, so they are closed unread and everything goes
 * through the VMM's own mapping by process_vm_readv(2) and process_vm_writev(2),
 * at the userspace address that comes with each region.
 *
 * Nothing stays mapped here, so nothing can change between a check and its use:
 * what is read is a copy.  A call may block as long as the page is not there
 * (host swap): that is why each VM has a process of its own.
 */
#ifndef BALLAST_VSOCK_GUEST_MEMORY_H
#define BALLAST_VSOCK_GUEST_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define BL_GM_REGIONS 32 /* VHOST_MEMORY_BASELINE_NREGIONS is 8; more by CONFIGURE_MEM_SLOTS only */

struct bl_gm_region {
        uint64_t gpa; /* guest physical address */
        uint64_t size; /* bytes, not 0; neither range wraps */
        uint64_t uva; /* in the VMM */
};

/* How the VMM's memory is reached; tests and fuzzers have their own. */
struct bl_gm_access {
        /* 0: all of it; -EFAULT: not all is mapped; -ESRCH: the process is gone. */
        int (*read)(void *userdata, uint64_t uva, void *buf, size_t size);
        int (*write)(void *userdata, uint64_t uva, const void *buf, size_t size);
        void *userdata;
};

struct bl_gm {
        struct bl_gm_access access;
        uint32_t n;
        struct bl_gm_region regions[BL_GM_REGIONS]; /* sorted by gpa, without overlap */
};

/* The table from a VMM.  -EINVAL: too many, empty, wrapping or overlapping;
 * then the old table stays. */
int bl_gm_set(struct bl_gm *m, const struct bl_gm_region *regions, size_t n);

/* Where [gpa, gpa + size) is in the VMM.  A range may not cross regions that
 * are not contiguous on both sides: *ret_size is how much of it lies there in
 * one piece, at least 1.  -EFAULT: none. */
int bl_gm_translate(const struct bl_gm *m, uint64_t gpa, uint64_t size, uint64_t *ret_uva, uint64_t *ret_size);

/* Does [uva, uva + size) of the VMM lie within one region?  What does not is the VMM's own and never touched. */
bool bl_gm_contains(const struct bl_gm *m, uint64_t uva, uint64_t size);

/* By guest address, across regions.  -EFAULT, and as access. */
int bl_gm_read(const struct bl_gm *m, uint64_t gpa, void *buf, size_t size);
int bl_gm_write(const struct bl_gm *m, uint64_t gpa, const void *buf, size_t size);

/*
 * The real access: process `pid`, which `pidfd` refers to and which is asked
 * (poll(2)) whether it lives before each access, so that a pid that was given
 * out again is never touched.  `userdata` is the struct.
 */
struct bl_gm_process {
        pid_t pid;
        int pidfd;
};
struct bl_gm_access bl_gm_process_access(struct bl_gm_process *p);

#endif
