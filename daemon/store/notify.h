/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sd_notify(3) without its library, which would be a third of the store's own memory. */
#ifndef BALLAST_STORE_NOTIFY_H
#define BALLAST_STORE_NOTIFY_H

#include <ballast/units.h>

/* "READY=1", "WATCHDOG=1" to $NOTIFY_SOCKET.  0, also when nobody asked for it; negative errno. */
int bl_notify(const char *state);

/* How often somebody waits for WATCHDOG=1 at least (sd_watchdog_enabled(3)); 0: nobody does. */
usec_t bl_notify_watchdog(void);

#endif
