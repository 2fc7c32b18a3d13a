/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The host's end of one guest's agent: a connected stream socket on an sd_event
 * loop, whatever transport it came from.  Protocol: include/ballast/wire.h.
 *
 * Nothing that comes in is trusted.  A guest that sends garbage, floods or
 * stops half-way costs at most
 *
 *      memory  one struct of less than 6 KiB, and three sd_event sources;
 *      CPU     BL_AGENT_RATE bytes of work a second (read, put through a
 *              checksum, or woken up for; some 5 ns each: about 0.03 % of a
 *              core) after a burst of BL_AGENT_BURST.  Beyond that its socket
 *              is left alone until the bucket has filled again, so that the
 *              guest's own sends fail;
 *      calls   one `hello` and one `stats` per wake-up, the newest of each; a
 *              hello counts as 16 KiB, so that there are four a second at most.
 *
 * Statistics count only when nothing newer waits behind them, so that what lay
 * in the socket while we were stopped does not look fresh, and a guest that
 * floods has no statistics at all.
 *
 * A guest that freezes or vanishes is not noticed here: its statistics grow
 * stale (bl_stats_check).
 */
#ifndef BALLAST_DAEMON_CHANNEL_AGENT_H
#define BALLAST_DAEMON_CHANNEL_AGENT_H

#include <systemd/sd-event.h>

#include <ballast/snapshot.h>
#include <ballast/wire.h>

#define BL_AGENT_RATE  (64 * BL_KIB)
#define BL_AGENT_BURST (128 * BL_KIB)

struct bl_agent;

/* Any of them may free the agent; any may be NULL.  They are called from the
 * loop only, never from within a call below. */
struct bl_agent_handlers {
        /* The guest says who it is: once for each connection, and again where
         * it says something else.  `h->major` may be another than ours: then
         * nothing else comes. */
        void (*hello)(struct bl_agent *a, const struct bl_wire_hello *h, void *userdata);

        /* `s->at` is when it arrived here, `s->period` what we asked for. */
        void (*stats)(struct bl_agent *a, const struct bl_guest_stats *s, void *userdata);

        /* The stream has ended: 0, or failed: negative errno.  The last call;
         * the descriptor is closed already, the agent is still to be freed. */
        void (*closed)(struct bl_agent *a, int error, void *userdata);
};

/* For the status of a VM and for metrics; all count from the connection. */
struct bl_agent_counters {
        uint64_t bytes;
        uint64_t hellos;
        uint64_t reports; /* statistics delivered */
        uint64_t lost; /* numbers missing between two of them: dropped by the guest, or superseded here */
        uint64_t garbage; /* bytes that belonged to no frame */
        uint64_t spoilt; /* frames that could not be decoded */
        uint64_t unknown; /* frames of unknown type */
        uint64_t early; /* frames before a hello of our major version */
        uint64_t throttled; /* times that it was left alone for a while */
};

/* Takes `fd`, a stream socket, whatever comes of it.  Asks the guest for its
 * hello as soon as the loop runs.  `h` must outlive the agent.  -ENOMEM, or what
 * sd_event answers. */
int bl_agent_open(sd_event *e, int fd, const struct bl_agent_handlers *h, void *userdata, struct bl_agent **ret);
struct bl_agent *bl_agent_free(struct bl_agent *a);

/* How often the guest should report, within BL_WIRE_PERIOD_MIN and _MAX; told
 * to it at once where it has said hello, otherwise as soon as it does. */
void bl_agent_set_period(struct bl_agent *a, usec_t period);

/* Has it said hello, in our major version? */
bool bl_agent_is_up(const struct bl_agent *a);

const struct bl_agent_counters *bl_agent_counters(const struct bl_agent *a);

/* The wire's statistics in the policy's terms. */
void bl_agent_convert(const struct bl_wire_stats *w, usec_t at, usec_t period, struct bl_guest_stats *ret);

#endif
