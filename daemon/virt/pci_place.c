// SPDX-License-Identifier: LGPL-2.1-or-later
#include "daemon/virt/pci_place.h"

#include <errno.h>
#include <stdio.h>

#include "daemon/virt/monitor.h"
#include "daemon/virt/qmp.h"

static int set_place(struct bl_pci_place *p, const char *bus, int slot)
{
        if ((size_t)snprintf(p->bus, sizeof(p->bus), "%s", bus) >= sizeof(p->bus))
                return -ENOSPC;
        (void)snprintf(p->addr, sizeof(p->addr), "0x%x", (unsigned)slot);
        return 0;
}

/* 1, 0 or negative errno. */
static int port_is_free(virDomainPtr dom, const char *port, char **ret_message)
{
        json_t *list = NULL;
        int r;

        /* a port's bus is named as the port */
        r = bl_monitor_ask(dom, "qom-list", json_pack("{s:s+++}", "path", BL_MONITOR_PERIPHERAL "/", port, "/", port),
                           &list, ret_message);
        if (r < 0)
                return r;
        r = !bl_qmp_bus_is_used(list);
        json_decref(list);
        return r;
}

/* The last one: libvirt, which does not know of our device, takes the first. */
static int find_port(virDomainPtr dom, const json_t *pci, struct bl_pci_place *ret, char **ret_message)
{
        const char *port;
        int r = 0;

        for (size_t n = 0; r == 0; n++) {
                port = bl_qmp_root_port(pci, n);
                if (!port)
                        return -ENOSPC;
                r = port_is_free(dom, port, ret_message);
        }
        /* a port has one slot; QEMU would give a higher one, which no guest looks at */
        return r < 0 ? r : set_place(ret, port, 0);
}

int bl_pci_place_find(virDomainPtr dom, struct bl_pci_place *ret, char **ret_message)
{
        json_t *pci = NULL;
        int slot, r;

        r = bl_monitor_ask(dom, "query-pci", json_object(), &pci, ret_message);
        if (r < 0)
                return r;
        slot = bl_qmp_free_slot(pci);
        if (slot == -ENODEV)
                r = find_port(dom, pci, ret, ret_message);
        else
                r = slot == 0 ? -ENOSPC : set_place(ret, "pci.0", slot);
        json_decref(pci);
        return r;
}
