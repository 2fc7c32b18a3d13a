/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/bus/bus.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <ballast/cleanup.h>

#include "daemon/bus/internal.h"

BL_DEFINE_CLEANUP(struct bl_bus *, bl_bus_free)

void bl_bus_note(struct bl_bus *b, int r, const char *format, ...)
{
        _cleanup_free_ char *s = NULL;
        va_list ap;

        if (!b->note)
                return;
        va_start(ap, format);
        if (vasprintf(&s, format, ap) < 0)
                s = NULL;
        va_end(ap);
        if (s)
                b->note(b->note_userdata, r, s);
}

int bl_bus_new_with(sd_event *event, struct bl_manager *m, const struct bl_bus_options *o, struct bl_bus **ret)
{
        _cleanup_(bl_bus_freep) struct bl_bus *b = calloc(1, sizeof(*b));
        int r;

        if (!b)
                return -ENOMEM;
        b->event = sd_event_ref(event);
        b->manager = m;
        b->ops = o->ops;
        b->group = o->group;
        b->note = o->note;
        b->note_userdata = o->note_userdata;
        b->acting_said = b->held_said = -1;
        r = bl_private_start(b, o);
        if (r < 0)
                return r;
        if (o->system_bus)
                bl_system_start(b);
        bl_property_refresh(b); /* learns what is, so as to know what changes */
        *ret = BL_TAKE(b);
        return 0;
}

struct bl_bus *bl_bus_free(struct bl_bus *b)
{
        if (!b)
                return NULL;
        bl_request_abandon_all(b);
        bl_system_stop(b);
        bl_private_stop(b);
        bl_property_free(b);
        sd_event_unref(b->event);
        free(b);
        return NULL;
}

bool bl_bus_reader_is_slow(sd_bus *conn)
{
        uint64_t n = 0;

        return sd_bus_get_n_queued_write(conn, &n) >= 0 && n > BL_BUS_WQUEUE_MAX;
}

void bl_bus_foreach(struct bl_bus *b, void (*f)(struct bl_link *l, void *userdata), void *userdata)
{
        for (struct bl_client *c = b->clients; c; c = c->next) {
                if (c->dead || c->link.access == BL_ACCESS_NONE || sd_bus_is_ready(c->link.conn) <= 0)
                        continue;
                if (bl_bus_reader_is_slow(c->link.conn))
                        bl_private_drop(c);
                else
                        f(&c->link, userdata);
        }
        if (b->system_named && b->system.conn && sd_bus_is_ready(b->system.conn) > 0)
                f(&b->system, userdata);
}

struct state {
        const char *from;
        const char *to;
};

static void emit_state(struct bl_link *l, void *userdata)
{
        const struct state *s = userdata;

        /* lost on a connection that is about to end, which is as well */
        (void)sd_bus_emit_signal(l->conn, BL_BUS_PATH, BL_BUS_INTERFACE, "HostStateChanged", "ss", s->from, s->to);
        (void)sd_bus_emit_properties_changed(l->conn, BL_BUS_PATH, BL_BUS_INTERFACE, "HostState", NULL);
}

void bl_bus_state_changed(struct bl_bus *b, const char *from, const char *to)
{
        struct state s = {from, to};

        if (!b)
                return;
        bl_property_forget(b);
        bl_bus_foreach(b, emit_state, &s);
}

void bl_bus_refresh(struct bl_bus *b)
{
        if (b)
                bl_property_refresh(b);
}
