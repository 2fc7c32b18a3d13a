// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The memory of each VM as something to sample: opened in a worker, since reading the map of a process may wait for its
 * lock, and kept until the last job that uses it is over.
 */
#include <string.h>

#include "daemon/share_private.h"
#include "daemon/util/clock.h"

#define OPEN_AGAIN (10 * BL_SEC)
/* Of one VM by itself: 10,000 samples of zero pages are within 1 %. */
#define ALONE_MEMORY ((size_t)BL_MIB)

struct bl_share_source *bl_share_source_unref(struct bl_share_source *s)
{
        if (s && --s->users == 0) {
                (void)bl_source_free(s->source);
                (void)bl_evidence_free(s->alone);
                free(s);
        }
        return NULL;
}

struct opening {
        struct bl_call call;
        struct bl_manager *m;
        uint64_t id;
        pid_t pid;
        uint64_t start, guest_ram;
        char *name;
        struct bl_source *source;
        char *message;
        int r;
};

static void opening_free(struct opening *o)
{
        (void)bl_source_free(o->source);
        free(o->message);
        free(o->name);
        free(o);
}

static void run_open(void *arg)
{
        struct opening *o = arg;

        o->r = bl_source_process(o->pid, o->start, o->guest_ram, o->name, &o->source, &o->message);
}

void bl_share_source_put_off(struct bl_guest *g)
{
        g->share.open_at = bl_now() + OPEN_AGAIN;
}

/* Shared memory and the like is said by the groups already; what cannot be read is not. */
static void cannot_open(struct bl_guest *g, const struct opening *o)
{
        bl_share_source_put_off(g);
        if (o->r == -ESRCH || o->r == -ECANCELED || g->share.open_said == o->r)
                return;
        g->share.open_said = o->r;
        bl_log(LOG_WARNING, BL_EV_PLAIN, g->name, "share.unreadable", "the memory of %s is not looked at: %s", g->name,
               o->message ? o->message : strerror(-o->r));
}

static struct bl_share_source *source_new(struct opening *o, bool alone)
{
        const struct bl_evidence_options options = {.memory_max = ALONE_MEMORY};
        struct bl_share_source *s = calloc(1, sizeof *s);

        if (!s)
                return NULL;
        if (alone && bl_evidence_new(&options, &s->alone) < 0) {
                free(s);
                return NULL;
        }
        s->source = BL_TAKE(o->source);
        s->users = 1;
        return s;
}

static void done_open(void *arg, int r)
{
        struct opening *o = arg;
        struct bl_guest *g = bl_call_guest(&o->call);
        struct bl_manager *m = o->m;

        m->share.jobs--;
        if (g && g->share.scan_id == o->id) {
                g->share.opening = false;
                if (r < 0)
                        o->r = r;
                if (o->r >= 0)
                        g->share.source = source_new(o, g->share.mode == BL_SHARE_ZERO);
                if (g->share.source) {
                        g->share.open_said = 0;
                        bl_share_burst_begin(g);
                        bl_share_hints_again(g);
                        bl_share_hints_apply(g, bl_now());
                } else {
                        cannot_open(g, o);
                }
        }
        opening_free(o);
        if (r >= 0)
                bl_share_work(m);
}

void bl_share_source_open(struct bl_guest *g)
{
        const struct bl_instance *i = &g->desc->instance;
        struct opening *o = calloc(1, sizeof *o);

        if (!o)
                return;
        bl_call_init(&o->call, g);
        o->m = g->m;
        o->id = g->share.scan_id;
        o->pid = i->pid;
        o->start = i->start;
        o->guest_ram = bl_guest_max(g);
        o->name = strdup(g->name);
        if (!o->name || bl_pool_submit(g->m->pool, NULL, run_open, done_open, o) < 0) {
                opening_free(o);
                bl_share_source_put_off(g);
                return;
        }
        g->share.opening = true;
        g->m->share.jobs++;
}

void bl_share_source_close(struct bl_guest *g)
{
        struct bl_guest_share *s = &g->share;

        if (s->source) {
                atomic_store(&s->source->stop, true);
                if (!s->source->alone && g->m->share.evidence)
                        bl_evidence_forget(g->m->share.evidence, s->scan_id);
        }
        s->source = bl_share_source_unref(s->source);
        s->burst = 0;
        s->met = s->again = s->renew = s->zero_busy = false;
        s->figures = (struct bl_evidence_figures){0};
        g->m->share.fresh = true;
}
