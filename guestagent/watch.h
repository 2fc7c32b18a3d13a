/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Watches this guest's memory: often where it could get short quickly, seldom
 * where it cannot, and cheaply: sysinfo(2) each time, /proc only where that
 * shows that something has changed; and where an alarm tells when programs begin
 * to touch memory, hardly ever before it rings.  And the kernel's own word, a
 * PSI trigger (Documentation/accounting/psi.rst), where there is one (Linux 5.2).
 */
#ifndef BALLAST_GUEST_WATCH_H
#define BALLAST_GUEST_WATCH_H

#include <poll.h>

#include <ballast/wire.h>

#include "guestagent/alarm.h"
#include "guestagent/need.h"
#include "guestagent/report.h"

struct guest_watch {
        struct guest_reader *reader;
        uint64_t (*free_ram)(struct guest_watch *w); /* the cheap look; BL_UNSET: none, read /proc each time */
        int psi; /* the trigger; -1: none */
        uint64_t psi_stall, psi_window; /* usec */

        struct guest_alarm alarm;
        bool armed; /* nothing moves, and the alarm tells when that ends */
        usec_t armed_at;
        usec_t hold; /* how long it stays silent after it rang */
        usec_t arm_at; /* when that is over */

        struct guest_need need;
        usec_t look_at;
        uint64_t available; /* at the last full look */
        uint64_t free; /* then */
};

enum guest_watch_event {
        GUEST_WATCH_PRESSURE = 1, /* the trigger fired */
        GUEST_WATCH_REQUEST = 2, /* the guest runs short: ask */
};

/* `root` is put before /proc; with one that is not empty there is no cheap look. */
void guest_watch_init(struct guest_watch *w, struct guest_reader *r, const char *root);
void guest_watch_end(struct guest_watch *w);

/* What to poll for (fd -1: nothing) and, returned, for how long at most. */
usec_t guest_watch_poll(const struct guest_watch *w, struct pollfd *ret_psi, struct pollfd *ret_alarm, usec_t now);

/* Looks, if it is time.  Bits of enum guest_watch_event; with the second one
 * *ret is what to ask for. */
unsigned guest_watch_step(struct guest_watch *w, short psi_revents, short alarm_revents, usec_t now,
                          const struct bl_wire_entitlement *grant, struct bl_wire_request *ret);

/* Statistics that were read for a report are a look, too.  True: ask. */
bool guest_watch_seen(struct guest_watch *w, const struct bl_wire_stats *stats, usec_t now,
                      const struct bl_wire_entitlement *grant, struct bl_wire_request *ret);

#endif
