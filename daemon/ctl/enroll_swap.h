/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* enroll --swap: what it is to be, whether the store could hold it, and the running VM. */
#ifndef BALLAST_CTL_ENROLL_SWAP_H
#define BALLAST_CTL_ENROLL_SWAP_H

#include <libvirt/libvirt.h>

#include "daemon/ctl/ctl.h"
#include "daemon/virt/metadata.h"

/* From the options.  CTL_OK, with *ret_given: is there anything of it?  Else what is wrong, said. */
enum ctl_exit ctl_enroll_swap_options(const struct ctl *c, struct bl_vm_metadata *ret, bool *ret_given);

/* By what ballastd knows of the store, or the store itself where it does not answer.  Would pool and disk hold all VMs'
 * swap uncompressed, with that of the VM of this XML?  A store that cannot be asked is said and no reason to refuse: it
 * refuses itself later. */
enum ctl_exit ctl_enroll_swap_check(struct ctl *c, virConnectPtr conn, const char *xml);

/* For the VM that runs: ballastd hears of it and plugs the disk in, also where it was drained. */
enum ctl_exit ctl_enroll_swap_live(struct ctl *c, virDomainPtr d, const struct bl_vm_metadata *m);

#endif
