/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libvirt's event loop on an sd_event loop (virEventRegisterImpl).
 *
 * libvirt calls the add, update and remove functions from any thread: its
 * remote client passes the reading of the socket to whichever thread waits.
 * sd-event is not thread-safe, so every change is queued under a mutex, an
 * eventfd wakes the loop, and only the loop touches its sources.  Callbacks
 * and the free functions of removed watches run on the loop, never inside
 * add/update/remove (libvirt would deadlock).
 *
 * A watch holds a duplicate of the descriptor, so that a descriptor which
 * libvirt closes before the loop has seen the removal cannot take another
 * source's number, and the same descriptor may be watched twice.
 *
 * Source: libvirt/libvirt-event.h, "Event loop" in libvirt's event.c.
 */
#ifndef BALLAST_VIRT_EVENT_BRIDGE_H
#define BALLAST_VIRT_EVENT_BRIDGE_H

#include <stdbool.h>
#include <systemd/sd-event.h>

#include <ballast/cleanup.h>

struct bl_event_bridge;

/* Registers the loop with libvirt; to be called on the loop's thread, before
 * the first connection.  libvirt keeps the functions for the life of the
 * process, so there is one bridge at a time: -EBUSY for a second.  A new one
 * may follow after _free.  Takes a reference to `e`. */
int bl_event_bridge_new(sd_event *e, struct bl_event_bridge **ret);

/* To be called on the loop's thread after the last connection is closed and
 * the last worker is gone.  Calls the free functions that are still due;
 * later calls by libvirt fail or are ignored. */
struct bl_event_bridge *bl_event_bridge_free(struct bl_event_bridge *b);

/* Is one registered? */
bool bl_event_bridge_active(void);

BL_DEFINE_CLEANUP(struct bl_event_bridge *, bl_event_bridge_free)

#endif
