/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ballast-vsock: starts a worker a VM, holds what outlives it (keep.h), and
 * starts another when one dies by a signal; no more than BL_SUPERVISOR_DEATHS
 * times in BL_SUPERVISOR_WINDOW, then the VM's connection is closed and its guest
 * falls back to virtio-serial.  It touches no guest's bytes and never blocks.
 *
 * When it ends itself, workers live on as long as their QEMU does.
 */
#ifndef BALLAST_VSOCK_SUPERVISOR_H
#define BALLAST_VSOCK_SUPERVISOR_H

#include <ballast/units.h>

#include "daemon/vsock/keep.h"

#define BL_SUPERVISOR_VMS    1024U
#define BL_SUPERVISOR_DEATHS 5U
#define BL_SUPERVISOR_WINDOW (10 * BL_SEC)

/* As bl_worker_run. */
typedef int (*bl_worker_fn)(struct bl_keep *keep, int fds[_BL_KEEP_FD_MAX], int up, const char *host_socket);

struct bl_supervisor_options {
        const char *control; /* path of control.h's socket; its directory is there */
        const char *host_socket; /* ballastd's listener: daemon/channel/vhost_user_vsock.h */
        bl_worker_fn worker; /* NULL: bl_worker_run; tests have their own */
};

/* Serves until SIGTERM or SIGINT.  0, or negative errno, said on standard error. */
int bl_supervisor_run(const struct bl_supervisor_options *o);

#endif
