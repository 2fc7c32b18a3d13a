/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdlib.h>

#include "daemon/virt/op.h"

static void told(struct bl_op *op, int r, const char *message)
{
        struct bl_done_op *o = (struct bl_done_op *)op;

        if (o->fn)
                o->fn(o->userdata, r, message);
        free(o);
}

int bl_op_submit_done(struct bl_conn *c, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *instance,
                      int (*run)(struct bl_op *op, virConnectPtr conn, virDomainPtr dom, char **ret_message),
                      bl_domain_done_fn fn, void *userdata)
{
        struct bl_done_op *o = calloc(1, sizeof(*o));

        if (!o)
                return -ENOMEM;
        bl_op_init(&o->op, c, uuid, instance);
        o->op.run = run;
        o->op.done = told;
        o->fn = fn;
        o->userdata = userdata;
        return bl_op_submit_or_free(&o->op);
}
