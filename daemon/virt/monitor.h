/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Commands to QEMU's monitor through libvirt's passthrough, from a worker.  libvirt
 * marks such a VM as tainted ("custom-monitor"): it says no more than that, and a
 * line in the VM's log.
 *
 * `arguments` becomes the callee's; NULL: out of memory.  Errors as bl_qmp_answer, or
 * libvirt's; -ENOMEM.
 */
#ifndef BALLAST_VIRT_MONITOR_H
#define BALLAST_VIRT_MONITOR_H

#include <jansson.h>
#include <libvirt/libvirt.h>
#include <stdbool.h>

#include <ballast/units.h>

#define BL_MONITOR_PERIPHERAL "/machine/peripheral" /* where QEMU keeps the devices that have an id */

/* `fd` goes with it; -1: none. */
int bl_monitor(virDomainPtr dom, const char *command, json_t *arguments, int fd, json_t **ret, char **ret_message);
int bl_monitor_ask(virDomainPtr dom, const char *command, json_t *arguments, json_t **ret, char **ret_message);
int bl_monitor_tell(virDomainPtr dom, const char *command, json_t *arguments, char **ret_message);
/* Where something has failed already, and that is what is reported. */
void bl_monitor_tell_anyway(virDomainPtr dom, const char *command, json_t *arguments);

/* device_del.  The guest takes its time, and one that is in its firmware or boots forgets it was
 * asked; so it is asked again each time, which QEMU may refuse: that is no error. */
int bl_monitor_unplug(virDomainPtr dom, const char *id, char **ret_message);
/* The same, and then looks until the device is gone, or `limit` is over: *ret_there says which. */
int bl_monitor_unplug_wait(virDomainPtr dom, const char *id, usec_t limit, bool *ret_there, char **ret_message);

/* Is there a device of this id? */
int bl_monitor_has_device(virDomainPtr dom, const char *id, bool *ret, char **ret_message);

#endif
