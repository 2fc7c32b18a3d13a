/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What was done, when and why: a bounded ring in memory for `ballastctl
 * explain`.  The journal keeps the rest.
 */
#ifndef BALLAST_DAEMON_HISTORY_H
#define BALLAST_DAEMON_HISTORY_H

#include <stddef.h>

#include <ballast/cleanup.h>
#include <ballast/snapshot.h>
#include <ballast/units.h>

/* Enough for an afternoon's questions; 256 bytes each, so 256 KiB in all. */
#define BL_HISTORY_MAX 1024

struct bl_history_event {
        usec_t at_wall; /* since the epoch */
        bool has_vm;
        uint8_t uuid[BL_UUID_LEN];
        char vm[48]; /* name, cut if longer */
        char reason[24];
        char outcome[16]; /* "done", "failed", "not-acting", "seen", ... */
        char sentence[200];
        uint64_t from, to; /* BL_UNSET where the event is not about a size */
};

struct bl_history;

/* -ENOMEM */
int bl_history_new(struct bl_history **ret);
struct bl_history *bl_history_free(struct bl_history *h);
BL_DEFINE_CLEANUP(struct bl_history *, bl_history_free)

/* Copies; the oldest goes when the ring is full. */
void bl_history_add(struct bl_history *h, const struct bl_history_event *e);

/* Events kept, and the i-th, oldest first; NULL past the end. */
size_t bl_history_count(const struct bl_history *h);
const struct bl_history_event *bl_history_get(const struct bl_history *h, size_t i);

#endif
