/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The swap disk: found by its serial number, and formatted only where nothing else can
 * be on it.  Everything here may wait for the disk: for children only.
 */
#ifndef BALLAST_GUEST_SWAPDISK_H
#define BALLAST_GUEST_SWAPDISK_H

#include <limits.h>

#include <ballast/units.h>

#include "guestagent/swapjob.h"

#define SWAP_LABEL "ballast"

struct swap_disk {
        char name[SWAP_DISK_NAME]; /* below /sys/block */
        char path[PATH_MAX]; /* its node, found or made */
        uint64_t size; /* bytes */
};

/* Where a node is made when /dev has none: a guest without udev and devtmpfs. */
#define SWAP_NODE_DIR "/run/ballast-agent"

/* -ENODEV: there is none with our serial number; -ENOTUNIQ: there are two. */
int swap_disk_find(const char *root, struct swap_disk *ret);

/* Has it, or makes it.  Negative errno. */
int swap_disk_node(const char *root, struct swap_disk *d);
/* Takes away what swap_disk_node made. */
void swap_disk_forget(const char *root, const struct swap_disk *d);

/* For us alone: -EBUSY where it is mounted, swapped on or part of something. */
int swap_disk_open(const struct swap_disk *d);

/* -EEXIST: something is on it that is not ours.  Ours are a swap area with SWAP_LABEL, and
 * zeros at the start and at the end, where all that is known has its signatures. */
int swap_disk_check(int fd, const struct swap_disk *d);

/* Makes the kernel discard slots that are freed, and keep requests small.  What cannot be set is left. */
void swap_disk_tune(const char *root, const struct swap_disk *d);

/* A swap area of the whole disk, for pages of `page` bytes. */
int swap_disk_format(int fd, const struct swap_disk *d, uint64_t page);

#endif
