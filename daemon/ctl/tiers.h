/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Kernel tiers made and unmade by 'ballastctl tiers setup|rollback': a zram swap
 * device, zswap's settings, a swap file.
 *
 * STATE_DIR/tiers.json says what was changed and what was there before, and is
 * written (and synced) before each change; so a rollback undoes exactly that, also
 * when the setup was killed half-way.  It is undone last change first; what somebody
 * else has changed since is left, and said.
 */
#ifndef BALLAST_CTL_TIERS_H
#define BALLAST_CTL_TIERS_H

#include <jansson.h>
#include <stdbool.h>

#include <ballast/cleanup.h>
#include <ballast/units.h>

#define CTL_TIERS_SWAPFILE "/var/lib/ballast/swapfile"

enum ctl_tier_kind {
        CTL_TIER_ZRAM,
        CTL_TIER_ZSWAP,
        CTL_TIER_SWAPFILE,
};

/* What the kernel is told, as a table, so that a test can be the kernel; and be killed
 * at each step.  Paths have the root before them.  Negative errno. */
struct ctl_tiers_ops {
        int (*write)(const char *path, const char *value); /* a knob of sysfs */
        int (*add_zram)(const char *root, unsigned *ret_number); /* hot_add */
        int (*swapon)(const char *path, int flags);
        int (*swapoff)(const char *path);
};
extern const struct ctl_tiers_ops ctl_tiers_kernel;

struct ctl_tiers {
        const char *root; /* prefix of /proc, /sys, /dev; "" in earnest */
        const char *state_dir;
        const struct ctl_tiers_ops *ops;
        bool force; /* beside what others have set up */
        const char *path; /* of a swap file */

        /* private */
        int lock;
        json_t *changes; /* array, oldest first */
        char *said; /* sentences, with semicolons between */
};

/* Locks the state directory's tiers.lock and reads the record.  -EBUSY: another one is at it; -EBADMSG: the record
 * cannot be read.  Whatever fails, there is a sentence in `said`. */
int ctl_tiers_open(struct ctl_tiers *t);
void ctl_tiers_close(struct ctl_tiers *t);

/* -EALREADY: there is one; -ENOTSUP: this kernel cannot; -ENOSPC: no room for it; -ERANGE: no sensible size;
 * -ENOENT: something that it needs is missing; others from the kernel. */
int ctl_tiers_setup(struct ctl_tiers *t, enum ctl_tier_kind kind, uint64_t size);

/* -ENOMEM: what is swapped would not fit into memory; nothing of that area was touched; others from the kernel.
 * What was undone is off the record in any case. */
int ctl_tiers_rollback(struct ctl_tiers *t);
/* The same, for what was changed after the first `n`. */
int ctl_tiers_rollback_to(struct ctl_tiers *t, size_t n);

/* --- tiers_record.c, for the others --- */

/* Adds a change to the record, on disk, before it is made; takes `change`. */
int ctl_tiers_record(struct ctl_tiers *t, json_t *change);
/* The last one is undone, or was not made. */
int ctl_tiers_forget_last(struct ctl_tiers *t);
/* One of this kind was made since the host booted; NULL. */
const json_t *ctl_tiers_find(const struct ctl_tiers *t, const char *what);
/* A sentence for whoever asked; returns `r`. */
__attribute__((format(printf, 3, 4))) int ctl_tiers_say(struct ctl_tiers *t, int r, const char *format, ...);
/* A file below the root, first line; "" where it cannot be read. */
void ctl_tiers_read(const struct ctl_tiers *t, const char *path, char *ret, size_t size);
/* Writes a knob below the root. */
int ctl_tiers_write(const struct ctl_tiers *t, const char *path, const char *value);

/* Swap's header (mm/swapfile.c, union swap_header): 36 characters and a NUL of the UUID.  `fd` is a whole area of
 * `size` bytes. */
int ctl_swap_format(int fd, uint64_t size, const char *uuid);
/* 1: it is one with a UUID, 0: it has no header.  Negative errno. */
int ctl_swap_uuid(const char *path, char ret[37]);

#endif
