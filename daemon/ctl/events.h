/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef BALLAST_CTL_EVENTS_H
#define BALLAST_CTL_EVENTS_H

#include "daemon/ctl/ctl.h"

/* The last `max` events (0: all) of an array as explain and show have it, a
 * line each: when, who, what, [reason, outcome]. */
void ctl_print_events(const struct ctl *c, const json_t *events, size_t max);

#endif
