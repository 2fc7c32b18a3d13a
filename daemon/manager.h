/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The manager joins the parts: sense -> snapshot -> policy -> plan -> act,
 * once per tick or event, on one sd-event loop.  ARCHITECTURE.md has the
 * picture; what it can be asked is in control.h.
 */
#ifndef BALLAST_DAEMON_MANAGER_H
#define BALLAST_DAEMON_MANAGER_H

#include <systemd/sd-event.h>

#include <ballast/cleanup.h>

#include "daemon/conf.h"

struct bl_manager;

/* A setting given on the command line: it outlives reloads. */
struct bl_override {
        const char *section;
        const char *key;
        const char *value;
};

struct bl_manager_options {
        const char *root; /* prefix of /proc and /sys; NULL: none */
        const char *conf_file; /* --config; NULL: the standard places */
        const struct bl_override *overrides; /* kept by reference */
        size_t n_overrides;
        bool system_bus;
};

/* Loads the configuration with the overrides laid over it; messages go to the
 * log, too.  As bl_conf_load. */
int bl_manager_load_conf(const struct bl_manager_options *o, struct bl_conf **ret, struct bl_conf_report *rep);

/*
 * Takes the state directory (lock and ledger), serves the private socket,
 * begins to connect to libvirt.  `conf` passes to the manager; `rep` (may be
 * NULL) is what reading it said, for the status.
 * -EADDRINUSE, -EBUSY: another ballastd runs; the log says where.
 */
int bl_manager_new(sd_event *event, const struct bl_manager_options *o, struct bl_conf *conf,
                   const struct bl_conf_report *rep, struct bl_manager **ret);

/* Leaves the guests as they are.  Where calls to libvirt hang, what they use is
 * lost rather than freed: for the end of the process. */
struct bl_manager *bl_manager_free(struct bl_manager *m);
BL_DEFINE_CLEANUP(struct bl_manager *, bl_manager_free)

#endif
