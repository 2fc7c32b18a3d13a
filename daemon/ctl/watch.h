/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* --watch: the same view again and again. */
#ifndef BALLAST_CTL_WATCH_H
#define BALLAST_CTL_WATCH_H

#include "daemon/ctl/ctl.h"

/* What --watch[=SEC] says: 0 where it was not given. */
enum ctl_exit ctl_watch_every(const struct ctl *c, usec_t *ret);

/* Reads `method` every so often until interrupted, and prints it: a terminal is redrawn, --json gives a document a
 * line.  `now` is CLOCK_MONOTONIC.  Returns when something fails. */
typedef void (*ctl_watch_fn)(struct ctl *c, json_t *d, usec_t now, void *userdata);
enum ctl_exit ctl_watch(struct ctl *c, const char *method, usec_t every, ctl_watch_fn print, void *userdata);

/* A round of --watch is shown on a terminal, which is cleared for each. */
bool ctl_watch_redraws(void);

#endif
