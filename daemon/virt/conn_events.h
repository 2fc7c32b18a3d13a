/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* libvirt's events as struct bl_virt_event: the part of conn.c that knows
 * libvirt's callback signatures.  Private to conn.c. */
#ifndef BALLAST_VIRT_CONN_EVENTS_H
#define BALLAST_VIRT_CONN_EVENTS_H

#include "daemon/virt/conn.h"

#define BL_CONN_EVENTS_MAX 16

/* In a worker.  Registers for all that the driver knows; events go to
 * bl_conn_deliver(c).  Fails only if lifecycle events cannot be had. */
int bl_conn_events_register(virConnectPtr conn, struct bl_conn *c, int ret_ids[BL_CONN_EVENTS_MAX], size_t *ret_n,
                            char **ret_message);

/* conn.c: on the loop. */
void bl_conn_deliver(struct bl_conn *c, const struct bl_virt_event *ev);
/* conn.c: virConnectCloseFunc; opaque is the link. */
void bl_conn_on_close(virConnectPtr conn, int reason, void *opaque);

#endif
