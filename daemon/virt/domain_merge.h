/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * May the kernel merge a running VM's memory?  QEMU's memory backends have a `merge` property that can be set at run
 * time (backends/hostmem.c): madvise(MADV_MERGEABLE or MADV_UNMERGEABLE) of the whole backend.  Reached by libvirt's
 * monitor passthrough, since libvirt has no call for it; all backends of a VM (NUMA nodes, DIMMs) are set alike.
 *
 * Turning it off un-merges at once, in QEMU's main loop with its lock held: 65 ms per 100 MB merged (QEMU 7.2, Linux
 * 6.18), in which the guest's I/O stands still, and its page faults too (the mmap lock is held for writing).  Turning
 * it on takes no time.  /proc/PID/ksm_merging_pages keeps its old value until ksmd passes there again: Pss tells. Other
 * memory of the process (2.5 MiB of video RAM and ROMs in a `pc`, more with a large video RAM) follows `mem-merge` of
 * the machine and not this; it can be excluded by <nosharepages/> in the domain's XML only.
 *
 * QEMU's word is not taken for it: up to 9.0 a madvise() that failed was not noticed, and 9.1 did not call it at all
 * ("hostmem: Apply merge property after the memory region is initialized" mended that).  So each time the kernel's own
 * flags are read too (VmFlags in /proc/PID/smaps, proc(5)), which walks the page tables once: 20 ms for a GiB.
 */
#ifndef BALLAST_VIRT_DOMAIN_MERGE_H
#define BALLAST_VIRT_DOMAIN_MERGE_H

#include <stdio.h>

#include "daemon/virt/domain.h"

struct bl_merge_state {
        unsigned backends; /* with the property; 0: none */
        unsigned on; /* of those registered */
        bool machine; /* mem-merge of the machine: also video RAM and ROMs */
        int registered; /* backends that are by the kernel's word; -1: that cannot be told */
};

/* `s` counts only if r is 0. */
typedef void (*bl_domain_merge_fn)(void *userdata, int r, const char *message, const struct bl_merge_state *s);

/* Looks only.  `on` is what the kernel says, where that can be told. */
int bl_domain_read_merge(struct bl_conn *c, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *inst,
                         bl_domain_merge_fn fn, void *userdata);
/* Sets all backends; the state told is that afterwards.  r: -EOPNOTSUPP: there is none with the property, or QEMU took
 * it and the kernel does not know of it; the message says which. */
int bl_domain_set_merge(struct bl_conn *c, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *inst, bool on,
                        bl_domain_merge_fn fn, void *userdata);

/* Pure, for the reader of /proc/PID/smaps: how many mappings of these sizes are registered ("mg" in their VmFlags).
 * -1: they are not all there. */
int bl_merge_flags(FILE *smaps, const uint64_t *sizes, size_t n);

#endif
