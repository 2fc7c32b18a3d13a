/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A VM's own settings, written into its domain's metadata. */
#include <errno.h>
#include <libvirt/virterror.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/virt/op.h"

struct metadata_op {
        struct bl_op op;
        struct bl_vm_metadata m;
        bool live, persistent;
        bl_domain_done_fn fn;
        void *userdata;
};

/* What is there and cannot be understood is written anew. */
static int read_one(virDomainPtr dom, unsigned flags, struct bl_vm_metadata *ret, char **ret_message)
{
        struct bl_vm_metadata m = BL_VM_METADATA_NONE;
        char *text = virDomainGetMetadata(dom, VIR_DOMAIN_METADATA_ELEMENT, BL_METADATA_URI, flags);
        int r = 0;

        if (text) {
                (void)bl_vm_metadata_parse(text, &m, NULL);
                free(text);
        } else {
                _cleanup_free_ char *why = NULL;

                r = bl_virt_error(&why);
                if (r == -ENODATA)
                        r = 0;
                else
                        *ret_message = BL_TAKE(why);
        }
        if (r == 0)
                *ret = m;
        return r;
}

static int write_one(const struct metadata_op *o, virDomainPtr dom, unsigned flags, char **ret_message)
{
        _cleanup_free_ char *text = NULL;
        struct bl_vm_metadata m;
        int r;

        r = read_one(dom, flags, &m, ret_message);
        if (r < 0)
                return r;
        bl_vm_metadata_merge(&m, &o->m);
        if (m.reservation != BL_UNSET && m.limit != BL_UNSET && m.reservation > m.limit) {
                *ret_message = strdup("the reservation would be larger than the limit: change both");
                return -EINVAL;
        }
        r = bl_vm_metadata_format(&m, &text);
        if (r < 0 || !text)
                return r;
        if (virDomainSetMetadata(dom, VIR_DOMAIN_METADATA_ELEMENT, text, BL_METADATA_KEY, BL_METADATA_URI, flags) < 0)
                return bl_virt_error(ret_message);
        return 0;
}

static int metadata_run(struct bl_op *op, virConnectPtr conn, virDomainPtr dom, char **ret_message)
{
        const struct metadata_op *o = (const struct metadata_op *)op;
        int r = 0;

        (void)conn;
        /* persistent first: a live setting that is not kept would surprise later */
        if (o->persistent)
                r = write_one(o, dom, VIR_DOMAIN_AFFECT_CONFIG, ret_message);
        if (r == 0 && o->live)
                r = write_one(o, dom, VIR_DOMAIN_AFFECT_LIVE, ret_message);
        return r;
}

static void metadata_done(struct bl_op *op, int r, const char *message)
{
        struct metadata_op *o = (struct metadata_op *)op;

        if (o->fn)
                o->fn(o->userdata, r, message);
        free(o);
}

int bl_domain_set_metadata(struct bl_conn *c, const uint8_t uuid[BL_UUID_LEN], const struct bl_vm_metadata *m,
                           bool live, bool persistent, bl_domain_done_fn fn, void *userdata)
{
        struct metadata_op *o = calloc(1, sizeof(*o));

        if (!o)
                return -ENOMEM;
        bl_op_init(&o->op, c, uuid, NULL);
        o->op.run = metadata_run;
        o->op.done = metadata_done;
        o->m = *m;
        o->live = live;
        o->persistent = persistent;
        o->fn = fn;
        o->userdata = userdata;
        return bl_op_submit_or_free(&o->op);
}
