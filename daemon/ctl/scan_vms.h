/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Running VMs for `ballastctl scan`: from libvirt, their processes from its run directory. */
#ifndef BALLAST_CTL_SCAN_VMS_H
#define BALLAST_CTL_SCAN_VMS_H

#include "daemon/ctl/scan_inputs.h"

/*
 * Opens the VM that `name` (or UUID) is; NULL: all that run, of which those that cannot be opened come into
 * i->left_out.  Connects first, if need be.  As ctl_scan_open(); CTL_OK also when none runs.
 * `again`: one that has ended is left out, too.
 */
enum ctl_exit ctl_scan_open_vms(struct ctl *c, const char *name, bool again, struct ctl_scan_inputs *i);

/* Is the VM still paused (by its UUID)?  false also where libvirt cannot tell. */
bool ctl_scan_vm_is_paused(const struct ctl_scan_inputs *i, const char *uuid);

#endif
