/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The methods of org.ballast1.Manager: reading arguments, asking the manager. */
#ifndef BALLAST_BUS_METHODS_H
#define BALLAST_BUS_METHODS_H

#include <systemd/sd-bus.h>

#include "daemon/bus/bus.h"

/* Reading: gives the text to answer with (allocated).  On failure `ret_error`
 * may get a sentence (allocated). */
typedef int (*bl_read_fn)(struct bl_bus *b, sd_bus_message *m, char **ret_text, char **ret_error);

/* Changing: 0 when `done` has been or will be called; on failure it will not
 * be, and `ret_error` may get a sentence (allocated). */
typedef int (*bl_change_fn)(struct bl_bus *b, sd_bus_message *m, bl_done_fn done, void *userdata, char **ret_error);

struct bl_method {
        const char *name;
        bl_read_fn read; /* either this */
        bl_change_fn change; /* or that; the callers differ: peer.h */
};

/* NULL: no such method. */
const struct bl_method *bl_method_find(const char *name);

#endif
