/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is asked of libvirt and changes nothing (but the statistics period);
 * the balloon and the metadata have files of their own. */
#include "daemon/virt/domain.h"

#include <errno.h>
#include <libvirt/virterror.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/fault.h"
#include "daemon/virt/op.h"

/* --- list ------------------------------------------------------------------------- */

struct list_op {
        struct bl_op op;
        bl_domain_list_fn fn;
        void *userdata;
        struct bl_domain_ref *refs;
        size_t n;
};

static void refs_free(struct bl_domain_ref *refs, size_t n)
{
        for (size_t i = 0; i < n; i++)
                free(refs[i].name);
        free(refs);
}

static int list_run(struct bl_op *op, virConnectPtr conn, virDomainPtr dom, char **ret_message)
{
        struct list_op *l = (struct list_op *)op;
        virDomainPtr *doms = NULL;
        int n, r = 0;

        (void)dom;
        n = virConnectListAllDomains(conn, &doms, VIR_CONNECT_LIST_DOMAINS_ACTIVE);
        if (n < 0)
                return bl_virt_error(ret_message);
        l->refs = calloc((size_t)n + 1, sizeof(*l->refs));
        for (int i = 0; i < n; i++) {
                const char *name = virDomainGetName(doms[i]);

                if (l->refs && r == 0) {
                        struct bl_domain_ref *ref = &l->refs[l->n];

                        ref->name = strdup(name ?: "");
                        if (!ref->name)
                                r = -ENOMEM;
                        else if (virDomainGetUUID(doms[i], ref->uuid) == 0)
                                l->n++;
                        else
                                free(BL_TAKE(ref->name));
                }
                (void)virDomainFree(doms[i]);
        }
        free(doms);
        return l->refs ? r : -ENOMEM;
}

static void list_done(struct bl_op *op, int r, const char *message)
{
        struct list_op *l = (struct list_op *)op;

        l->fn(l->userdata, r, message, r < 0 ? NULL : l->refs, r < 0 ? 0 : l->n);
        refs_free(l->refs, l->n);
        free(l);
}

int bl_domain_list(struct bl_conn *c, bl_domain_list_fn fn, void *userdata)
{
        struct list_op *l = calloc(1, sizeof(*l));

        if (!l)
                return -ENOMEM;
        bl_op_init(&l->op, c, NULL, NULL);
        l->op.run = list_run;
        l->op.done = list_done;
        l->fn = fn;
        l->userdata = userdata;
        return bl_op_submit_or_free(&l->op);
}

/* --- describe ----------------------------------------------------------------------- */

struct desc_op {
        struct bl_op op;
        bl_domain_desc_fn fn;
        void *userdata;
        char *run_dir;
        struct bl_domain_desc *desc;
};

struct bl_domain_desc *bl_domain_desc_free(struct bl_domain_desc *d)
{
        if (!d)
                return NULL;
        (void)bl_domain_info_clear(&d->live);
        (void)bl_domain_info_clear(&d->config);
        free(d);
        return NULL;
}

static int read_xml(virDomainPtr dom, unsigned flags, struct bl_domain_info *ret, char **ret_message)
{
        char *xml = virDomainGetXMLDesc(dom, flags);
        int r;

        if (!xml)
                return bl_virt_error(ret_message);
        r = bl_domain_info_parse(xml, ret, ret_message);
        free(xml);
        return r;
}

static int desc_run(struct bl_op *op, virConnectPtr conn, virDomainPtr dom, char **ret_message)
{
        struct desc_op *o = (struct desc_op *)op;
        _cleanup_(bl_domain_desc_freep) struct bl_domain_desc *d = calloc(1, sizeof(*d));
        int r;

        (void)conn;
        if (!d)
                return -ENOMEM;
        r = read_xml(dom, 0, &d->live, ret_message);
        if (r < 0)
                return r;
        /* the one that was found is off already: nothing to act on */
        if (virDomainIsActive(dom) == 0)
                return -ENOENT;
        if (virDomainIsPersistent(dom) == 1) {
                r = read_xml(dom, VIR_DOMAIN_XML_INACTIVE, &d->config, ret_message);
                if (r < 0)
                        return r;
                d->persistent = true;
        }
        d->migrating = bl_op_migrating(dom);
        d->instance_error = bl_instance_find(o->run_dir, NULL, d->live.name, d->live.uuid, &d->instance);
        d->has_instance = d->instance_error == 0;
        o->desc = BL_TAKE(d);
        return 0;
}

static void desc_done(struct bl_op *op, int r, const char *message)
{
        struct desc_op *o = (struct desc_op *)op;

        o->fn(o->userdata, r, message, r < 0 ? bl_domain_desc_free(o->desc) : o->desc);
        free(o->run_dir);
        free(o);
}

int bl_domain_describe(struct bl_conn *c, const uint8_t uuid[BL_UUID_LEN], const char *run_dir, bl_domain_desc_fn fn,
                       void *userdata)
{
        struct desc_op *o = calloc(1, sizeof(*o));
        int r;

        if (!o)
                return -ENOMEM;
        bl_op_init(&o->op, c, uuid, NULL);
        o->op.run = desc_run;
        o->op.done = desc_done;
        o->fn = fn;
        o->userdata = userdata;
        o->run_dir = run_dir ? strdup(run_dir) : NULL;
        r = run_dir && !o->run_dir ? -ENOMEM : bl_op_submit(&o->op);
        if (r < 0) {
                free(o->run_dir);
                free(o);
        }
        return r;
}

/* --- sense -------------------------------------------------------------------------- */

struct sense_op {
        struct bl_op op;
        bl_domain_state_fn fn;
        void *userdata;
        bool exact;
        struct bl_domain_state state;
};

static int sense_run(struct bl_op *op, virConnectPtr conn, virDomainPtr dom, char **ret_message)
{
        struct sense_op *s = (struct sense_op *)op;
        int r = bl_op_read_state(dom, &s->state, ret_message);

        (void)conn;
        if (r >= 0 && s->exact && s->state.run == BL_RUN_RUNNING && !s->state.incomplete)
                bl_op_read_actual(dom, &s->state);
        return r;
}

static void sense_done(struct bl_op *op, int r, const char *message)
{
        struct sense_op *s = (struct sense_op *)op;

        s->fn(s->userdata, r, message, r < 0 ? NULL : &s->state);
        free(s);
}

int bl_domain_sense(struct bl_conn *c, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *inst, bool exact,
                    bl_domain_state_fn fn, void *userdata)
{
        struct sense_op *s = calloc(1, sizeof(*s));

        if (!s)
                return -ENOMEM;
        bl_op_init(&s->op, c, uuid, inst);
        s->op.run = sense_run;
        s->op.done = sense_done;
        s->exact = exact;
        s->fn = fn;
        s->userdata = userdata;
        return bl_op_submit_or_free(&s->op);
}

/* --- statistics period ----------------------------------------------------------------- */

struct period_op {
        struct bl_op op;
        bl_domain_done_fn fn;
        void *userdata;
        unsigned seconds;
};

static int period_run(struct bl_op *op, virConnectPtr conn, virDomainPtr dom, char **ret_message)
{
        const struct period_op *s = (const struct period_op *)op;
        int r;

        (void)conn;
        r = bl_fault(BL_FAULT_PERIOD_BEFORE_RPC);
        if (r < 0)
                return r;
        if (virDomainSetMemoryStatsPeriod(dom, (int)s->seconds, VIR_DOMAIN_AFFECT_LIVE) < 0)
                return bl_virt_error(ret_message);
        return bl_fault(BL_FAULT_PERIOD_AFTER_RPC);
}

static void period_done(struct bl_op *op, int r, const char *message)
{
        struct period_op *s = (struct period_op *)op;

        if (s->fn)
                s->fn(s->userdata, r, message);
        free(s);
}

int bl_domain_set_period(struct bl_conn *c, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *inst,
                         unsigned seconds, bl_domain_done_fn fn, void *userdata)
{
        struct period_op *s;

        if (seconds > INT32_MAX)
                return -ERANGE;
        s = calloc(1, sizeof(*s));
        if (!s)
                return -ENOMEM;
        bl_op_init(&s->op, c, uuid, inst);
        s->op.run = period_run;
        s->op.done = period_done;
        s->fn = fn;
        s->userdata = userdata;
        s->seconds = seconds;
        return bl_op_submit_or_free(&s->op);
}
