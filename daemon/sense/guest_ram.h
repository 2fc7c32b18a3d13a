/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where a VMM has its guest's memory, from /proc/PID/maps: the mappings that are
 * large enough to hold it, as overhead.h has it. */
#ifndef BALLAST_SENSE_GUEST_RAM_H
#define BALLAST_SENSE_GUEST_RAM_H

#include <stddef.h>
#include <stdio.h>

#include <ballast/units.h>

#define BL_GUEST_RAM_MAX 16

struct bl_guest_ram {
        size_t n; /* in the order of their addresses */
        struct {
                uint64_t start, end;
        } part[BL_GUEST_RAM_MAX];
        bool shared; /* some of it is a shared mapping: other processes may have it too */
};

/* A guest with more than one memory backend has its RAM in several mappings: all that are at least a quarter of
 * `guest_ram` count.  -ENODATA: no mapping looks like guest RAM; errors of reading. */
int bl_guest_ram_parse(FILE *maps, uint64_t guest_ram, struct bl_guest_ram *ret);

/* Of the process of /proc/PID that `dirfd` is (resident.h).  -ESRCH, -EACCES, -ENODATA. */
int bl_guest_ram_find(int dirfd, uint64_t guest_ram, struct bl_guest_ram *ret);

bool bl_guest_ram_equal(const struct bl_guest_ram *a, const struct bl_guest_ram *b);

#endif
