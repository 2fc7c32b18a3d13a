/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A VM's QEMU process.  Process numbers are reused, so an instance is the
 * number and the start time (proc(5), stat field 22).
 */
#ifndef BALLAST_VIRT_PROC_H
#define BALLAST_VIRT_PROC_H

#include <sys/types.h>

#include <ballast/snapshot.h>
#include <ballast/units.h>

#include "daemon/util/uuid.h"

struct bl_instance {
        pid_t pid;
        uint64_t start; /* clock ticks since the host booted */
};

static inline bool bl_instance_equal(const struct bl_instance *a, const struct bl_instance *b)
{
        return a->pid == b->pid && a->start == b->start;
}

/* When the process started, on CLOCK_MONOTONIC's scale (proc(5) counts on
 * CLOCK_BOOTTIME; 0 where it would be negative). */
usec_t bl_instance_started_at(const struct bl_instance *i);

/*
 * The process behind a VM: `run_dir`/NAME.pid, checked against the UUID in
 * `proc_dir`/PID/cmdline.  Either dir may be NULL (/run/libvirt/qemu, /proc).
 * -ENOENT no pid file, -ESRCH no such process or not this VM's, -EINVAL not a number.
 */
int bl_instance_find(const char *run_dir, const char *proc_dir, const char *name, const uint8_t uuid[BL_UUID_LEN],
                     struct bl_instance *ret);

/* State letter (R S D T t Z X) of the instance.  -ESRCH when it is gone or the number is another's now. */
int bl_instance_state(const char *proc_dir, const struct bl_instance *i, char *ret);

#endif
