/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Errors as they travel: an errno inside, org.ballast1.Error.* on the bus, an
 * exit code at the shell.  One table, used by the daemon and by ballastctl.
 *
 *   errno                  org.ballast1.Error.   exit code of ballastctl
 *   ENOENT                 NoSuchVm              4
 *   EPERM, EACCES          NotPermitted          5
 *   EBUSY, EAGAIN          Busy                  6   try again: something is under way
 *   EHOSTDOWN              NotAnswering          6   libvirt cannot reach the VM now
 *   ESTALE                 State                 6   not in this state (VM off, not reclaimable, held...)
 *   EOPNOTSUPP             NotSupported          6   this VM or host cannot
 *   ERANGE                 OutOfRange            6   a size that the VM's bounds forbid
 *   ENOTCONN               NoLibvirt             6   libvirt is not connected
 *   ETIMEDOUT              Timeout               1
 *   EINVAL                 InvalidArgument       1
 *   ENOMEM                 NoMemory              1
 *   anything else          Failed                1
 */
#ifndef BALLAST_BUS_ERRORS_H
#define BALLAST_BUS_ERRORS_H

#define BL_BUS_ERROR_PREFIX "org.ballast1.Error."

/* The D-Bus error name for a negative (or positive) errno; never NULL. */
const char *bl_bus_error_name(int r);

/* The negative errno for a D-Bus error name, our own or the bus's; -EIO if unknown. */
int bl_bus_error_errno(const char *name);

/* A sentence for an errno that came without one; never NULL. */
const char *bl_bus_error_sentence(int r);

#endif
