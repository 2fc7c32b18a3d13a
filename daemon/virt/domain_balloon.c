/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One more look, and the balloon command. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/fault.h"
#include "daemon/util/clock.h"
#include "daemon/util/size.h"
#include "daemon/virt/op.h"

struct balloon_op {
        struct bl_op op;
        struct bl_balloon_request q;
        struct bl_balloon_answer a;
        bl_balloon_fn fn;
        void *userdata;
};

static int refuse(struct balloon_op *o, enum bl_look look, char **ret_message)
{
        char from[BL_SIZE_BUF], found[BL_SIZE_BUF], to[BL_SIZE_BUF], floor[BL_SIZE_BUF];
        char *s = NULL;
        int n = 0;

        (void)bl_size_format(o->q.from, from, sizeof(from));
        (void)bl_size_format(o->q.to, to, sizeof(to));
        (void)bl_size_format(o->a.found, found, sizeof(found));
        (void)bl_size_format(o->a.floor, floor, sizeof(floor));
        o->a.look = look;
        switch (look) {
        case BL_LOOK_OK:
                break;
        case BL_LOOK_NOT_RUNNING:
                n = asprintf(&s, "it does not run now");
                break;
        case BL_LOOK_MIGRATING:
                n = asprintf(&s, "it is being migrated or saved");
                break;
        case BL_LOOK_MOVED:
                n = asprintf(&s, "its balloon is at %s now and was at %s when this was decided", found, from);
                break;
        case BL_LOOK_FLOOR:
                n = asprintf(&s,
                             "it uses more now than when this was decided: %s would be less than the %s that it needs",
                             to, floor);
                break;
        case BL_LOOK_INSTANCE:
                n = asprintf(&s, "it was started again since this was decided");
                break;
        case BL_LOOK_BUSY:
                n = asprintf(&s, "libvirt is busy with it and could not say how it is");
                break;
        }
        *ret_message = n < 0 ? NULL : s;
        return -ESTALE;
}

static int look(struct balloon_op *o, virDomainPtr dom, char **ret_message)
{
        struct bl_domain_state s;
        enum bl_look l;
        char state;
        int r;

        /* the process number may be another's by now */
        if (o->op.has_instance && bl_instance_state(NULL, &o->op.instance, &state) == -ESRCH)
                return refuse(o, BL_LOOK_INSTANCE, ret_message);
        r = bl_op_read_state(dom, &s, ret_message);
        if (r < 0)
                return r;
        if (s.run == BL_RUN_RUNNING && !s.incomplete)
                bl_op_read_actual(dom, &s);
        o->a.found = s.current;
        l = bl_balloon_look(&o->q, &s, &o->a.floor);
        /* libvirt would let the command wait for half a minute and then refuse it */
        if (l == BL_LOOK_OK && bl_op_migrating(dom))
                l = BL_LOOK_MIGRATING;
        return l == BL_LOOK_OK ? 0 : refuse(o, l, ret_message);
}

static int balloon_run(struct bl_op *op, virConnectPtr conn, virDomainPtr dom, char **ret_message)
{
        struct balloon_op *o = (struct balloon_op *)op;
        usec_t begin;
        int r;

        (void)conn;
        r = bl_fault(BL_FAULT_BALLOON_BEFORE_LOOK);
        if (r < 0)
                return r;
        r = look(o, dom, ret_message);
        if (r < 0)
                return r;
        r = bl_fault(BL_FAULT_BALLOON_BEFORE_RPC);
        if (r < 0)
                return r;

        begin = bl_now();
        r = virDomainSetMemoryFlags(dom, (unsigned long)(o->q.to / BL_KIB), VIR_DOMAIN_AFFECT_LIVE);
        if (r < 0)
                r = bl_virt_error(ret_message);
        o->a.t_command = bl_now() - begin;
        o->a.unknown = r == -ENOTCONN;
        if (r == 0) {
                r = bl_fault(BL_FAULT_BALLOON_AFTER_RPC);
                o->a.unknown = r < 0;
        }
        return r;
}

static void balloon_done(struct bl_op *op, int r, const char *message)
{
        struct balloon_op *o = (struct balloon_op *)op;

        o->fn(o->userdata, r, message, &o->a);
        free(o);
}

int bl_domain_set_balloon(struct bl_conn *c, const struct bl_balloon_request *q, bl_balloon_fn fn, void *userdata)
{
        struct balloon_op *o = calloc(1, sizeof(*o));

        if (!o)
                return -ENOMEM;
        bl_op_init(&o->op, c, q->uuid, q->instance);
        o->op.run = balloon_run;
        o->op.done = balloon_done;
        o->q = *q;
        o->q.instance = NULL; /* the caller's; op has a copy */
        o->a.found = o->a.floor = BL_UNSET;
        o->fn = fn;
        o->userdata = userdata;
        return bl_op_submit_or_free(&o->op);
}
