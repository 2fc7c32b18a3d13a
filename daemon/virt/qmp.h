/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What QEMU's monitor answers (QEMU, docs/interop/qmp-spec and qemu-qmp-ref), as
 * libvirt's passthrough hands it over.  Pure.
 */
#ifndef BALLAST_VIRT_QMP_H
#define BALLAST_VIRT_QMP_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* The answer's "return", owned by the caller (`ret` may be NULL).  -EREMOTEIO: QEMU
 * refused, *ret_message (allocated) is its sentence; -ENODEV: the same, for want of
 * the device; -EBADMSG: this is no answer. */
int bl_qmp_answer(const char *text, json_t **ret, char **ret_message);

/* qom-list: is there a child of this name? */
bool bl_qmp_has_child(const json_t *list, const char *name);
/* query-named-block-nodes: is there a node of this name? */
bool bl_qmp_has_node(const json_t *list, const char *name);
/* qom-list of a PCI bus: does it have devices? */
bool bl_qmp_bus_is_used(const json_t *list);

enum bl_qmp_chardev {
        BL_QMP_CHARDEV_NONE,
        BL_QMP_CHARDEV_LOST, /* nobody at the other end */
        BL_QMP_CHARDEV_CONNECTED,
};
/* query-chardev */
enum bl_qmp_chardev bl_qmp_chardev(const json_t *list, const char *label);

/* query-pci of an i440fx: the highest free slot of its root bus (which is "pci.0"), 1
 * to 31; 0: all are taken; -ENODEV: it is another machine. */
int bl_qmp_free_slot(const json_t *pci);
/* query-pci: the n-th root port, counted from the last one, in which nothing is
 * seen; its id, which is `pci`'s, or NULL: there are no more.  Before the firmware
 * has numbered the buses QEMU does not tell what is in a port: ask bl_qmp_bus_is_used. */
const char *bl_qmp_root_port(const json_t *pci, size_t n);

#endif
