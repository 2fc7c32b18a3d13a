/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How much of a VMM's resident memory is its own and not the guest's, from
 * /proc/PID/smaps: all anonymous and shared memory outside the mapping that is
 * the guest's RAM (the largest one that can hold it).  Under TCG the
 * translation cache alone may be hundreds of MiB.
 *
 * The kernel walks every page table for it (about 20 us per MiB): for a worker
 * thread, and seldom.
 */
#ifndef BALLAST_SENSE_OVERHEAD_H
#define BALLAST_SENSE_OVERHEAD_H

#include <stdio.h>
#include <sys/types.h>

#include <ballast/units.h>

/* `guest_ram`: the configured memory.  A guest with more than one memory
 * backend (NUMA cells) has its RAM in several mappings; all that are at least
 * a quarter of it count.  -ENODATA: no mapping looks like guest RAM. */
int bl_overhead_parse(FILE *smaps, uint64_t guest_ram, uint64_t *ret);

/* -ESRCH, -EACCES, -ENODATA. `root` may be NULL. */
int bl_overhead_measure(const char *root, pid_t pid, uint64_t guest_ram, uint64_t *ret);

#endif
