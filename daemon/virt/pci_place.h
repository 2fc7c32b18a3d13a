/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where a device can be plugged into a running VM, such that libvirt, which does not know of it, comes last to
 * want that place.  In a worker. */
#ifndef BALLAST_VIRT_PCI_PLACE_H
#define BALLAST_VIRT_PCI_PLACE_H

#include <libvirt/libvirt.h>

struct bl_pci_place {
        char bus[64];
        char addr[16];
};

/* -ENOSPC: there is none; others as in monitor.h. */
int bl_pci_place_find(virDomainPtr dom, struct bl_pci_place *ret, char **ret_message);

#endif
