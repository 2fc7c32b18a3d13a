/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Gives a running VM its swap disk on ballast-store, live, through libvirt's monitor
 * passthrough: blockdev-add (NBD over the store's Unix socket, export = the VM's UUID)
 * and device_add (virtio-blk, serial BL_WIRE_STORE_SERIAL).  Not in the persistent XML,
 * because a VM has to start when the store is down; and not by libvirt's attach, which
 * drops the reconnect delay (9.0).
 *
 * The store's death means waiting: QEMU reconnects for ever and sends again what was not
 * answered.  An error that the store answers with is the guest's: it is reported, so that
 * neither QEMU nor we repeat it.
 *
 * Beside the disk stands a node that does nothing but keep QEMU from migrating: migration,
 * save and snapshots are refused with its name, which says what to do.  An image made
 * with pages in the store could not be restored elsewhere or later.
 */
#ifndef BALLAST_VIRT_DOMAIN_SWAP_H
#define BALLAST_VIRT_DOMAIN_SWAP_H

#include "daemon/virt/domain.h"

#define BL_SWAP_ID "ballast-swap" /* of device and node */
/* The name that QEMU gives as the reason; at most 31 bytes. */
#define BL_SWAP_BLOCKER "ballast-swap-in-use-drain-first"

enum bl_swap_attach {
        BL_SWAP_ABSENT, /* of bl_domain_look_swap: it has none */
        BL_SWAP_THERE, /* it had one already */
        BL_SWAP_ATTACHED, /* it has one now */
        BL_SWAP_NO_ROOM, /* no free slot or root port to plug it in */
        BL_SWAP_FAILED, /* QEMU refused: see the message */
};

/* r as in domain.h; `a` counts only if r is 0. `message` says more, or NULL. */
typedef void (*bl_domain_swap_fn)(void *userdata, int r, const char *message, enum bl_swap_attach a);

/* Does it have the disk? */
int bl_domain_look_swap(struct bl_conn *c, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *inst,
                        bl_domain_swap_fn fn, void *userdata);

/* `socket`: where the store serves, copied.  The store has to know the VM already, and to
 * answer: QEMU stands still while it connects, for a second at most. */
int bl_domain_attach_swap(struct bl_conn *c, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *inst,
                          const char *socket, bl_domain_swap_fn fn, void *userdata);

/* Unplugs it, if there is one.  Only when the guest does not swap on it any more, and the store answers.
 * -EAGAIN: the guest has not let go of it yet. */
int bl_domain_detach_swap(struct bl_conn *c, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *inst,
                          bl_domain_done_fn fn, void *userdata);

#endif
