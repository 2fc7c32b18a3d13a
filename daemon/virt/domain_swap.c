// SPDX-License-Identifier: LGPL-2.1-or-later
#include "daemon/virt/domain_swap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <ballast/wire.h>

#include "daemon/util/uuid.h"
#include "daemon/virt/monitor.h"
#include "daemon/virt/op.h"
#include "daemon/virt/pci_place.h"
#include "daemon/virt/qmp.h"

/* seconds; the most that QEMU takes: for ever */
#define RECONNECT_DELAY UINT32_MAX
/* seconds in which a store that answers takes the connection: QEMU's loop stands still meanwhile */
#define OPEN_TIMEOUT 1

/* a guest at work lets go of a device within 300 ms */
#define UNPLUG_LIMIT (3 * BL_SEC)

/* QEMU's set of passed descriptors; libvirt numbers its own from 0 on. */
#define FDSET 0xba11a57

struct swap_op {
        struct bl_op op;
        char *socket; /* NULL: only look */
        enum bl_swap_attach a;
        bl_domain_swap_fn fn;
        void *userdata;
};

/* --- what is there ------------------------------------------------------------------ */

struct found {
        bool device, node, blocker;
};

static int look(virDomainPtr dom, struct found *ret, char **ret_message)
{
        json_t *list = NULL;
        int r;

        r = bl_monitor_has_device(dom, BL_SWAP_ID, &ret->device, ret_message);
        if (r < 0)
                return r;
        r = bl_monitor_ask(dom, "query-named-block-nodes", json_pack("{s:b}", "flat", 1), &list, ret_message);
        if (r < 0)
                return r;
        ret->node = bl_qmp_has_node(list, BL_SWAP_ID);
        ret->blocker = bl_qmp_has_node(list, BL_SWAP_BLOCKER);
        json_decref(list);
        return 0;
}

static int remove_node(virDomainPtr dom, const char *name, char **ret_message)
{
        return bl_monitor_tell(dom, "blockdev-del", json_pack("{s:s}", "node-name", name), ret_message);
}

static void remove_node_anyway(virDomainPtr dom, const char *name)
{
        bl_monitor_tell_anyway(dom, "blockdev-del", json_pack("{s:s}", "node-name", name));
}

/* --- the node that refuses migration -------------------------------------------------- */

/* An empty VDI image (VirtualBox), of which QEMU's driver says that it cannot be migrated, read-only too;
 * QEMU's block/vdi.c has the fields.  Opened anew, as QEMU looks at the descriptor's mode. */
static int vdi_image(int *ret_fd)
{
        static const struct {
                size_t offset;
                uint8_t value[4];
        } fields[] = {
                {0x040, {0x7f, 0x10, 0xda, 0xbe}}, /* signature */
                {0x044, {0x01, 0x00, 0x01, 0x00}}, /* version 1.1 */
                {0x048, {0x80, 0x01, 0x00, 0x00}}, /* header size */
                {0x04c, {0x01, 0x00, 0x00, 0x00}}, /* dynamic */
                {0x154, {0x00, 0x02, 0x00, 0x00}}, /* block map at */
                {0x158, {0x00, 0x04, 0x00, 0x00}}, /* data at */
                {0x168, {0x00, 0x02, 0x00, 0x00}}, /* sector size */
                {0x170, {0x00, 0x00, 0x10, 0x00}}, /* disk size: 1 MiB */
                {0x178, {0x00, 0x00, 0x10, 0x00}}, /* block size: the same */
                {0x180, {0x01, 0x00, 0x00, 0x00}}, /* blocks in the image */
                {0x188, {0x01, 0x00, 0x00, 0x00}}, /* UUID: must be one */
                {0x198, {0x01, 0x00, 0x00, 0x00}}, /* UUID of the last snapshot: likewise */
                {0x200, {0xff, 0xff, 0xff, 0xff}}, /* block map: not allocated */
        };
        _cleanup_close_ int rw = memfd_create(BL_SWAP_BLOCKER, MFD_CLOEXEC);
        uint8_t image[1024] = {0};
        char path[64];
        int fd;

        if (rw < 0)
                return -errno;
        for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++)
                memcpy(image + fields[i].offset, fields[i].value, sizeof(fields[i].value));
        if (pwrite(rw, image, sizeof(image), 0) != (ssize_t)sizeof(image))
                return -EIO;
        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", rw);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        *ret_fd = fd;
        return 0;
}

static int add_blocker(virDomainPtr dom, char **ret_message)
{
        _cleanup_close_ int fd = -1;
        char path[64];
        int r;

        r = vdi_image(&fd);
        if (r < 0)
                return r;
        /* what was left over under this number is not ours to use */
        bl_monitor_tell_anyway(dom, "remove-fd", json_pack("{s:i}", "fdset-id", FDSET));
        r = bl_monitor(dom, "add-fd", json_pack("{s:i, s:s}", "fdset-id", FDSET, "opaque", BL_SWAP_ID), fd, NULL,
                       ret_message);
        if (r < 0)
                return r;
        (void)snprintf(path, sizeof(path), "/dev/fdset/%d", FDSET);
        r = bl_monitor_tell(dom, "blockdev-add",
                            json_pack("{s:s, s:s, s:b, s:{s:s, s:s}}", "driver", "vdi", "node-name", BL_SWAP_BLOCKER,
                                      "read-only", 1, "file", "driver", "file", "filename", path),
                            ret_message);
        /* the node has its own by now */
        bl_monitor_tell_anyway(dom, "remove-fd", json_pack("{s:i}", "fdset-id", FDSET));
        return r;
}

/* --- attach --------------------------------------------------------------------------- */

static int add_node(const struct swap_op *o, virDomainPtr dom, char **ret_message)
{
        char uuid[37];

        bl_uuid_to_string(o->op.uuid, uuid);
        return bl_monitor_tell(dom, "blockdev-add",
                               json_pack("{s:s, s:s, s:{s:s, s:s}, s:s, s:I, s:i, s:s, s:s, s:{s:b, s:b}}", "driver",
                                         "nbd", "node-name", BL_SWAP_ID, "server", "type", "unix", "path", o->socket,
                                         "export", uuid, "reconnect-delay", (json_int_t)RECONNECT_DELAY, "open-timeout",
                                         OPEN_TIMEOUT, "discard", "unmap", "detect-zeroes", "off", "cache", "direct", 1,
                                         "no-flush", 1),
                               ret_message);
}

static int add_device(virDomainPtr dom, const struct bl_pci_place *p, char **ret_message)
{
        return bl_monitor_tell(dom, "device_add",
                               json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:b, s:i, s:s, s:s}", "driver",
                                         "virtio-blk-pci", "id", BL_SWAP_ID, "drive", BL_SWAP_ID, "serial",
                                         BL_WIRE_STORE_SERIAL, "werror", "report", "rerror", "report", "discard", 1,
                                         "write-zeroes", 1, "num-queues", 1, "bus", p->bus, "addr", p->addr),
                               ret_message);
}

static int plug(const struct swap_op *o, virDomainPtr dom, const struct found *f, char **ret_message)
{
        struct bl_pci_place p;
        int r;

        r = bl_pci_place_find(dom, &p, ret_message);
        if (r < 0)
                return r;
        /* of an attempt that ended half-way */
        if (f->node)
                remove_node_anyway(dom, BL_SWAP_ID);
        if (!f->blocker) {
                r = add_blocker(dom, ret_message);
                if (r < 0)
                        return r;
        }
        r = add_node(o, dom, ret_message);
        if (r == 0) {
                r = add_device(dom, &p, ret_message);
                if (r < 0)
                        remove_node_anyway(dom, BL_SWAP_ID);
        }
        if (r < 0)
                remove_node_anyway(dom, BL_SWAP_BLOCKER);
        return r;
}

static int attach(struct swap_op *o, virDomainPtr dom, char **ret_message)
{
        struct found f = {0};
        int r;

        if (!o->socket) {
                r = bl_monitor_has_device(dom, BL_SWAP_ID, &f.device, ret_message);
                if (r == 0)
                        o->a = f.device ? BL_SWAP_THERE : BL_SWAP_ABSENT;
                return r;
        }
        r = look(dom, &f, ret_message);
        if (r < 0)
                return r;
        if (f.device) {
                o->a = BL_SWAP_THERE;
                return f.blocker ? 0 : add_blocker(dom, ret_message);
        }
        r = plug(o, dom, &f, ret_message);
        if (r == 0)
                o->a = BL_SWAP_ATTACHED;
        return r;
}

static int swap_run(struct bl_op *op, virConnectPtr conn, virDomainPtr dom, char **ret_message)
{
        struct swap_op *o = (struct swap_op *)op;
        int r;

        (void)conn;
        r = attach(o, dom, ret_message);
        switch (r) {
        case -ENOSPC:
                o->a = BL_SWAP_NO_ROOM;
                return 0;
        case -EREMOTEIO: /* QEMU refused */
        case -ENODEV:
                o->a = BL_SWAP_FAILED;
                return 0;
        default:
                return r;
        }
}

static struct swap_op *swap_op_free(struct swap_op *o)
{
        free(o->socket);
        free(o);
        return NULL;
}

static void swap_done(struct bl_op *op, int r, const char *message)
{
        struct swap_op *o = (struct swap_op *)op;

        o->fn(o->userdata, r, message, o->a);
        (void)swap_op_free(o);
}

static int submit(struct bl_conn *c, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *inst,
                  const char *socket, bl_domain_swap_fn fn, void *userdata)
{
        struct swap_op *o = calloc(1, sizeof(*o));
        int r = 0;

        if (!o)
                return -ENOMEM;
        bl_op_init(&o->op, c, uuid, inst);
        o->op.run = swap_run;
        o->op.done = swap_done;
        o->a = BL_SWAP_FAILED;
        o->fn = fn;
        o->userdata = userdata;
        if (socket && !(o->socket = strdup(socket)))
                r = -ENOMEM;
        if (r == 0)
                r = bl_op_submit(&o->op);
        if (r < 0)
                (void)swap_op_free(o);
        return r;
}

int bl_domain_look_swap(struct bl_conn *c, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *inst,
                        bl_domain_swap_fn fn, void *userdata)
{
        return submit(c, uuid, inst, NULL, fn, userdata);
}

int bl_domain_attach_swap(struct bl_conn *c, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *inst,
                          const char *socket, bl_domain_swap_fn fn, void *userdata)
{
        return submit(c, uuid, inst, socket, fn, userdata);
}

/* --- detach --------------------------------------------------------------------------- */

static int detach_run(struct bl_op *op, virConnectPtr conn, virDomainPtr dom, char **ret_message)
{
        struct found f = {0};
        int r;

        (void)op;
        (void)conn;
        r = look(dom, &f, ret_message);
        if (r == 0 && f.device)
                r = bl_monitor_unplug_wait(dom, BL_SWAP_ID, UNPLUG_LIMIT, &f.device, ret_message);
        if (r < 0)
                return r;
        if (f.device) {
                *ret_message = strdup("its guest has not let go of the swap disk yet");
                return -EAGAIN;
        }
        if (f.node)
                r = remove_node(dom, BL_SWAP_ID, ret_message);
        if (r == 0 && f.blocker)
                r = remove_node(dom, BL_SWAP_BLOCKER, ret_message);
        return r;
}

int bl_domain_detach_swap(struct bl_conn *c, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *inst,
                          bl_domain_done_fn fn, void *userdata)
{
        return bl_op_submit_done(c, uuid, inst, detach_run, fn, userdata);
}
