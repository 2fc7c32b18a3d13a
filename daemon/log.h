/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The daemon's log: structured fields to the journal when it is there,
 * otherwise one line to standard error.  Only main, manager and the event
 * handlers log; library-like code returns errors instead (STYLE: logs or
 * returns, never both).
 */
#ifndef BALLAST_DAEMON_LOG_H
#define BALLAST_DAEMON_LOG_H

#include <stddef.h>
#include <syslog.h>

/* One id per kind of event, so that `journalctl MESSAGE_ID=` finds them all.
 * The ids are listed in ballastd(8). */
enum bl_event {
        BL_EV_PLAIN, /* no MESSAGE_ID */
        BL_EV_STARTED,
        BL_EV_STOPPED,
        BL_EV_STATE, /* the host state changed */
        BL_EV_BALLOON, /* a balloon target was set */
        BL_EV_BALLOON_FAILED,
        BL_EV_STUCK,
        BL_EV_HAND, /* somebody else set a balloon */
        BL_EV_OOM_DEFLATE,
        BL_EV_REBOOT,
        BL_EV_VM, /* a VM came or went */
        BL_EV_NOT_RECLAIMABLE,
        BL_EV_LIBVIRT, /* connection lost or back */
        BL_EV_CONFIG,
        BL_EV_RECOVERED, /* what an earlier daemon left behind */
        BL_EV_ROLLBACK,
        BL_EV_CONFLICT,
        BL_EV_ADMIN, /* act, hold, release, set, balloon */
        _BL_EV_MAX,
};

/* Lines below `level` (a syslog priority) are dropped. */
void bl_log_init(int level);

/* `vm` may be NULL.  Field VM= and REASON= go with the line in the journal. */
void bl_log(int priority, enum bl_event ev, const char *vm, const char *reason, const char *format, ...)
        __attribute__((format(printf, 5, 6)));

#define bl_log_error(...)   bl_log(LOG_ERR, BL_EV_PLAIN, NULL, NULL, __VA_ARGS__)
#define bl_log_warning(...) bl_log(LOG_WARNING, BL_EV_PLAIN, NULL, NULL, __VA_ARGS__)
#define bl_log_info(...)    bl_log(LOG_INFO, BL_EV_PLAIN, NULL, NULL, __VA_ARGS__)
#define bl_log_debug(...)   bl_log(LOG_DEBUG, BL_EV_PLAIN, NULL, NULL, __VA_ARGS__)

/* The 128-bit id as 32 hex digits, or NULL for BL_EV_PLAIN. */
const char *bl_event_message_id(enum bl_event ev);

#endif
