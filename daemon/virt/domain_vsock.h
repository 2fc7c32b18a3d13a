/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Gives a running VM a vhost-user-vsock device of ours, live, through libvirt's
 * monitor passthrough: getfd + chardev-add + device_add with ids BL_VSOCK_ID.
 * Not in the persistent XML, because a VM has to start when our backend is
 * down; the price is that each start of the VM attaches it anew.
 *
 * QEMU 7.2 does not take a device up again on a new connection: where the backend
 * is gone, the device is unplugged (the guest has to let go of it) and another one
 * is plugged in.
 */
#ifndef BALLAST_VIRT_DOMAIN_VSOCK_H
#define BALLAST_VIRT_DOMAIN_VSOCK_H

#include "daemon/virt/domain.h"

#define BL_VSOCK_ID "ballast-vsock"

enum bl_vsock_attach {
        BL_VSOCK_ATTACHED, /* it has one now */
        BL_VSOCK_THERE, /* it had one already, with its backend at the other end */
        BL_VSOCK_UNPLUGGING, /* a dead one is being unplugged: come back in a second */
        BL_VSOCK_NO_BACKEND, /* the supervisor (ballast-vsock) does not run */
        BL_VSOCK_NO_ROOM, /* no free slot or root port to plug it in */
        BL_VSOCK_FAILED, /* see the message */
};
const char *bl_vsock_attach_to_string(enum bl_vsock_attach a);

/* r as in domain.h; `a` counts only if r is 0. `message` says more, or NULL. */
typedef void (*bl_domain_vsock_fn)(void *userdata, int r, const char *message, enum bl_vsock_attach a);

/* `control`: the supervisor's socket, copied.  `cid`: the guest's.  Its memory must
 * have a descriptor (memfd, file, hugepages), which the caller has checked. */
int bl_domain_attach_vsock(struct bl_conn *c, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *inst,
                           const char *control, uint32_t cid, bl_domain_vsock_fn fn, void *userdata);

/* Unplugs it, if there is one (the VM is enrolled otherwise now). */
int bl_domain_detach_vsock(struct bl_conn *c, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *inst,
                           bl_domain_done_fn fn, void *userdata);

/* The CID for a VM: 3 or more, the same for the same UUID.  Two VMs may have the same
 * one: the backend tells them apart by their process, not by CID. */
uint32_t bl_vsock_cid(const uint8_t uuid[BL_UUID_LEN]);

#endif
