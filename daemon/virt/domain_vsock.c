/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A vhost-user-vsock device for a running VM.  libvirt marks a VM as tainted
 * ("custom-monitor") when its monitor is passed through, as here: it says no more
 * than that, and a line in the VM's log. */
#include "daemon/virt/domain_vsock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/virt/monitor.h"
#include "daemon/virt/op.h"
#include "daemon/virt/pci_place.h"
#include "daemon/virt/qmp.h"
#include "daemon/vsock/control.h"

#define CONTROL_LIMIT (2 * BL_SEC)
/* a guest at work lets go of a device within 200 ms */
#define UNPLUG_LIMIT (2 * BL_SEC)

struct attach_op {
        struct bl_op op;
        char *control;
        uint32_t cid;
        enum bl_vsock_attach a;
        bl_domain_vsock_fn fn;
        void *userdata;
};

const char *bl_vsock_attach_to_string(enum bl_vsock_attach a)
{
        switch (a) {
        case BL_VSOCK_ATTACHED:
                return "attached";
        case BL_VSOCK_THERE:
                return "there";
        case BL_VSOCK_UNPLUGGING:
                return "unplugging";
        case BL_VSOCK_NO_BACKEND:
                return "no-backend";
        case BL_VSOCK_NO_ROOM:
                return "no-room";
        case BL_VSOCK_FAILED:
                return "failed";
        }
        return "unknown";
}

/* FNV-1a: spread over what is neither special (0 to 2, VMADDR_CID_ANY). */
uint32_t bl_vsock_cid(const uint8_t uuid[BL_UUID_LEN])
{
        uint32_t h = 2166136261U;

        for (size_t i = 0; i < BL_UUID_LEN; i++)
                h = (h ^ uuid[i]) * 16777619U;
        return 3U + h % (UINT32_MAX - 3U);
}

/* --- what is there ---------------------------------------------------------------- */

static json_t *with_id(const char *key)
{
        return json_pack("{s:s}", key, BL_VSOCK_ID);
}

struct found {
        bool device;
        enum bl_qmp_chardev chardev;
};

static int look(virDomainPtr dom, struct found *ret, char **ret_message)
{
        json_t *list = NULL;
        struct found f;
        int r;

        r = bl_monitor_has_device(dom, BL_VSOCK_ID, &f.device, ret_message);
        if (r < 0)
                return r;
        r = bl_monitor_ask(dom, "query-chardev", json_object(), &list, ret_message);
        if (r < 0)
                return r;
        f.chardev = bl_qmp_chardev(list, BL_VSOCK_ID);
        json_decref(list);
        *ret = f;
        return 0;
}

static int remove_chardev(virDomainPtr dom, const struct found *f, char **ret_message)
{
        return f->chardev == BL_QMP_CHARDEV_NONE ? 0
                                                 : bl_monitor_tell(dom, "chardev-remove", with_id("id"), ret_message);
}

/* --- attach -------------------------------------------------------------------------- */

static int add_chardev(virDomainPtr dom, int fd, char **ret_message)
{
        json_t *chardev = json_pack("{s:s, s:{s:s, s:{s:{s:s, s:{s:s}}, s:b}}}", "id", BL_VSOCK_ID, "backend", "type",
                                    "socket", "data", "addr", "type", "fd", "data", "str", BL_VSOCK_ID, "server", 0);
        int r;

        /* one that was left over under this name is closed */
        r = bl_monitor(dom, "getfd", with_id("fdname"), fd, NULL, ret_message);
        if (r < 0) {
                json_decref(chardev);
                return r;
        }
        r = bl_monitor_tell(dom, "chardev-add", chardev, ret_message);
        if (r < 0)
                bl_monitor_tell_anyway(dom, "closefd", with_id("fdname"));
        return r;
}

static int add_device(virDomainPtr dom, const struct bl_pci_place *p, char **ret_message)
{
        int r = bl_monitor_tell(dom, "device_add",
                                json_pack("{s:s, s:s, s:s, s:s, s:s}", "driver", "vhost-user-vsock-pci", "id",
                                          BL_VSOCK_ID, "chardev", BL_VSOCK_ID, "bus", p->bus, "addr", p->addr),
                                ret_message);

        if (r < 0)
                bl_monitor_tell_anyway(dom, "chardev-remove", with_id("id"));
        return r;
}

static int plug(virDomainPtr dom, int fd, const struct bl_pci_place *p, char **ret_message)
{
        struct found f;
        int r;

        r = add_chardev(dom, fd, ret_message);
        if (r < 0)
                return r;
        r = add_device(dom, p, ret_message);
        if (r < 0)
                return r;
        r = look(dom, &f, ret_message);
        if (r < 0)
                return r;
        if (f.device && f.chardev == BL_QMP_CHARDEV_CONNECTED)
                return 0;
        bl_monitor_tell_anyway(dom, "device_del", with_id("id"));
        *ret_message = strdup("its backend ended as soon as it was plugged in");
        return -EREMOTEIO;
}

static int get_backend(const struct attach_op *o, int *ret_fd, char **ret_message)
{
        struct bl_vsock_request q = {
                .magic = BL_VSOCK_CONTROL_MAGIC,
                .cid = o->cid,
                .pid = o->op.instance.pid,
                .start = o->op.instance.start,
        };
        int r;

        memcpy(q.uuid, o->op.uuid, BL_UUID_LEN);
        r = bl_vsock_control_serve(o->control, &q, CONTROL_LIMIT, ret_fd);
        if (r == -ENOENT || r == -ECONNREFUSED || r == -ECONNRESET)
                return -EHOSTUNREACH;
        if (r < 0 && asprintf(ret_message, "ballast-vsock gave no backend: %s", strerror(-r)) < 0)
                *ret_message = NULL;
        return r < 0 ? -EREMOTEIO : 0;
}

static int attach(struct attach_op *o, virDomainPtr dom, char **ret_message)
{
        _cleanup_close_ int fd = -1;
        struct bl_pci_place p;
        struct found f;
        int r;

        r = look(dom, &f, ret_message);
        if (r < 0)
                return r;
        if (f.device) {
                o->a = f.chardev == BL_QMP_CHARDEV_CONNECTED ? BL_VSOCK_THERE : BL_VSOCK_UNPLUGGING;
                return o->a == BL_VSOCK_THERE ? 0 : bl_monitor_unplug(dom, BL_VSOCK_ID, ret_message);
        }
        r = remove_chardev(dom, &f, ret_message);
        if (r < 0)
                return r;
        r = bl_pci_place_find(dom, &p, ret_message);
        if (r < 0)
                return r;
        r = get_backend(o, &fd, ret_message);
        if (r < 0)
                return r;
        r = plug(dom, fd, &p, ret_message);
        if (r == 0)
                o->a = BL_VSOCK_ATTACHED;
        return r;
}

static int attach_run(struct bl_op *op, virConnectPtr conn, virDomainPtr dom, char **ret_message)
{
        struct attach_op *o = (struct attach_op *)op;
        int r;

        (void)conn;
        r = attach(o, dom, ret_message);
        switch (r) {
        case -EHOSTUNREACH:
                o->a = BL_VSOCK_NO_BACKEND;
                return 0;
        case -ENOSPC:
                o->a = BL_VSOCK_NO_ROOM;
                return 0;
        case -EREMOTEIO: /* QEMU refused */
        case -ENODEV:
                o->a = BL_VSOCK_FAILED;
                return 0;
        default:
                return r;
        }
}

static struct attach_op *attach_op_free(struct attach_op *o)
{
        free(o->control);
        free(o);
        return NULL;
}

static void attach_done(struct bl_op *op, int r, const char *message)
{
        struct attach_op *o = (struct attach_op *)op;

        o->fn(o->userdata, r, message, o->a);
        (void)attach_op_free(o);
}

int bl_domain_attach_vsock(struct bl_conn *c, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *inst,
                           const char *control, uint32_t cid, bl_domain_vsock_fn fn, void *userdata)
{
        struct attach_op *o = calloc(1, sizeof(*o));
        int r;

        if (!o)
                return -ENOMEM;
        bl_op_init(&o->op, c, uuid, inst);
        o->op.run = attach_run;
        o->op.done = attach_done;
        o->control = strdup(control);
        o->cid = cid;
        o->a = BL_VSOCK_FAILED;
        o->fn = fn;
        o->userdata = userdata;
        r = o->control ? bl_op_submit(&o->op) : -ENOMEM;
        if (r < 0)
                (void)attach_op_free(o);
        return r;
}

/* --- detach -------------------------------------------------------------------------- */

static int detach_run(struct bl_op *op, virConnectPtr conn, virDomainPtr dom, char **ret_message)
{
        struct found f;
        int r;

        (void)op;
        (void)conn;
        r = look(dom, &f, ret_message);
        if (r == 0 && f.device)
                r = bl_monitor_unplug_wait(dom, BL_VSOCK_ID, UNPLUG_LIMIT, &f.device, ret_message);
        if (r < 0)
                return r;
        if (f.device) {
                *ret_message = strdup("its guest has not let go of the vsock device yet");
                return -EAGAIN;
        }
        return remove_chardev(dom, &f, ret_message);
}

int bl_domain_detach_vsock(struct bl_conn *c, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *inst,
                           bl_domain_done_fn fn, void *userdata)
{
        return bl_op_submit_done(c, uuid, inst, detach_run, fn, userdata);
}
