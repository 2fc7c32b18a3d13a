/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Rings when programs of this guest begin to touch memory: so the agent may
 * sleep while nobody does.  A wake-up costs far more than a look.
 *
 * One software event a CPU counts page faults and raises a signal after
 * ALARM_FAULTS of them, once, until it is armed again (perf_event_open(2),
 * "Overflow handling", PERF_EVENT_IOC_REFRESH).  What takes memory without a
 * fault, as write(2) into tmpfs, does not ring.
 */
#ifndef BALLAST_GUEST_ALARM_H
#define BALLAST_GUEST_ALARM_H

#include <stdbool.h>

#include <ballast/units.h>

#define GUEST_ALARM_CPUS 64

struct guest_alarm {
        int signals; /* readable when it rings; -1: there is no alarm */
        int cpus;
        int fd[GUEST_ALARM_CPUS];
        bool rang[GUEST_ALARM_CPUS]; /* and is to be armed again */
};

/* Not armed yet.  Negative errno: not here (no right to it, too many CPUs), and
 * the other calls do nothing. */
int guest_alarm_open(struct guest_alarm *a);
void guest_alarm_close(struct guest_alarm *a);

void guest_alarm_arm(struct guest_alarm *a);

/* Takes what has come.  True: it rang. */
bool guest_alarm_rang(struct guest_alarm *a);

#endif
