/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the host grants this guest, and how its swap on the host's store stands, for its
 * administrator: the agent keeps it in a small JSON file, `ballast-agent status` prints that.
 */
#ifndef BALLAST_GUEST_STATUS_H
#define BALLAST_GUEST_STATUS_H

#include <stdio.h>

#include <ballast/wire.h>

#define GUEST_STATUS_FILE "/run/ballast-agent/status.json"
#define GUEST_STATUS_GAP  (1 * BL_SEC)

struct guest_status {
        const char *path;
        void (*log)(const char *text);
        bool failed; /* could not be written, and that has been said */
        bool due; /* there is something new */
        usec_t next_at; /* written again, not before */
        struct bl_wire_stats swap; /* of it the part that is about the store; as written, or to be */
};

void guest_status_init(struct guest_status *s, const char *path, void (*log)(const char *text));

/* How swap on the store stands; of small changes nothing is written. */
void guest_status_swap(struct guest_status *s, const struct bl_wire_stats *stats);

/* Writes what is new, at once or when its time comes.  `transport` NULL: no
 * host; `grant` NULL: the host has said nothing. */
void guest_status_step(struct guest_status *s, const char *transport, const struct bl_wire_entitlement *grant,
                       usec_t now);

/* How long until guest_status_step has something to do. */
usec_t guest_status_wait(const struct guest_status *s, usec_t now);

/* The agent ends: no file. */
void guest_status_end(const struct guest_status *s);

/*
 * Prints the file, as it is or for people.  1: no agent runs, or the host has
 * said nothing, and a sentence about it is in *ret_why; -EIO: could not be
 * printed; other negative errno: could not be read.
 */
int guest_status_print(FILE *f, const char *path, bool json, const char **ret_why);

#endif
