/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The host's end of one guest's agent: a connected stream socket on an sd_event
 * loop, whatever transport it came from.  Protocol: include/ballast/wire.h.
 *
 * Nothing that comes in is trusted.  A guest that sends garbage, floods or
 * stops half-way costs at most
 *
 *      memory  one struct of less than 6 KiB, and two sd_event sources: less than
 *              8 KiB in all;
 *      CPU     BL_AGENT_RATE bytes of work a second (read, put through a
 *              checksum, or woken up for; some 5 ns each: about 0.03 % of a
 *              core) after a burst of BL_AGENT_BURST.  Beyond that its socket
 *              is left alone until the bucket has filled again, so that the
 *              guest's own sends fail;
 *      calls   one `hello`, `stats` and `request` per wake-up, the newest of
 *              each (of requests the most urgent); a hello that is handed on
 *              counts as 16 KiB of work and a request as 2 KiB, so that there
 *              are 4 and 32 a second at most.  What is superseded costs its
 *              bytes only, so that what a flood left behind is soon read.
 *              `hints`: one for each 40 bytes.
 *
 * Statistics count only when nothing newer waits behind them, so that what lay
 * in the socket while we were stopped does not look fresh, and a guest that
 * floods has no statistics at all.  Hellos and requests wait for the same, but
 * no longer than to the next pause.
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

#define BL_AGENT_REQUEST_GAP  (20 * BL_MSEC)
#define BL_AGENT_ACTION_LIMIT (30 * BL_SEC)

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

        /* It asks for memory, or says that it stalls (then `bytes` is 0).  The
         * statistics that came with it were delivered before.  At most one a
         * BL_AGENT_REQUEST_GAP; the most urgent of those between. */
        void (*request)(struct bl_agent *a, const struct bl_wire_request *r, void *userdata);

        /* Hints as they come; within BL_AGENT_RATE like everything else. */
        void (*hints)(struct bl_agent *a, const struct bl_wire_hints *h, void *userdata);

        /* What came of bl_agent_act: `status` BL_RESULT_FAILED also when the
         * guest has not answered within BL_AGENT_ACTION_LIMIT.  Not called for
         * an action that is under way when the stream ends.  Those of swap are
         * answered when they are begun; how they go on, bl_agent_figures says. */
        void (*result)(struct bl_agent *a, enum bl_wire_action_kind kind, const struct bl_wire_result *r,
                       void *userdata);

        /* The stream has ended: 0, or failed: negative errno.  The last call;
         * the descriptor is closed already, the agent is still to be freed. */
        void (*closed)(struct bl_agent *a, int error, void *userdata);
};

/* For the status of a VM and for metrics; all count from the connection. */
struct bl_agent_counters {
        uint64_t bytes;
        uint64_t hellos;
        uint64_t reports; /* statistics delivered */
        uint64_t requests; /* of memory, and pressure: delivered */
        uint64_t hints; /* messages */
        uint64_t lost; /* numbers missing between two of them: dropped by the guest, or superseded here */
        uint64_t garbage; /* bytes that belonged to no frame */
        uint64_t spoilt; /* frames that could not be decoded */
        uint64_t unknown; /* frames of unknown type, hints of an unknown kind */
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

/* What the guest is told of its grant: sent at once where it differs from what
 * was sent last, but once a second at most, the newest.  Agents of minor version
 * 0 are told nothing. */
void bl_agent_set_entitlement(struct bl_agent *a, const struct bl_wire_entitlement *e);

/* Asks the guest for `action` (its `id` is filled in here).  0; -EBUSY: one is
 * under way; -ENOTCONN: it has not said hello; -EOPNOTSUPP: it did not claim
 * the feature that this needs, or is of minor version 0; -ENOMEM. */
int bl_agent_act(struct bl_agent *a, const struct bl_wire_action *action);

/* All that the last statistics said that the handler `stats` was called for, as it was said: for what struct
 * bl_guest_stats has no place for (BL_STAT_STORE_...).  Nothing of it is checked: enums may be beyond what is known
 * here.  All BL_UNSET before the first. */
const struct bl_wire_stats *bl_agent_figures(const struct bl_agent *a);

/* Has it said hello, in our major version? */
bool bl_agent_is_up(const struct bl_agent *a);

const struct bl_agent_counters *bl_agent_counters(const struct bl_agent *a);

/* The wire's statistics in the policy's terms. */
void bl_agent_convert(const struct bl_wire_stats *w, usec_t at, usec_t period, struct bl_guest_stats *ret);

#endif
