/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Properties are fields of the status document, under other names. */
#include <errno.h>
#include <string.h>

#include "daemon/bus/errors.h"
#include "daemon/bus/internal.h"

/* GetAll asks for every property by itself; one document per turn of the loop
 * is enough for all. */
static int status(struct bl_bus *b, json_t **ret)
{
        uint64_t iteration = 0;
        json_t *doc = NULL;
        int r;

        r = sd_event_get_iteration(b->event, &iteration);
        if (r < 0)
                return r;
        if (!b->status || b->status_iteration != iteration) {
                r = b->ops->status(b->manager, &doc);
                if (r < 0)
                        return r;
                bl_property_forget(b);
                b->status = doc;
                b->status_iteration = iteration;
        }
        *ret = b->status;
        return 0;
}

static const struct {
        const char *property;
        const char *section; /* NULL: at the top */
        const char *field;
        char type;
} properties[] = {
        {"Version", NULL, "version", 's'},
        {"Acting", NULL, "acting", 'b'},
        {"Held", NULL, "held", 'b'},
        {"HostState", NULL, "state", 's'},
        {"BudgetBytes", "budget", "bytes", 't'},
        {"UsedBytes", "budget", "used", 't'},
        {"FreeBytes", "budget", "free", 't'},
};

#define N_PROPERTIES (sizeof(properties) / sizeof(properties[0]))

static int append(sd_bus_message *reply, char type, const json_t *v)
{
        uint64_t t = json_is_integer(v) ? (uint64_t)json_integer_value(v) : 0;
        const char *s = json_string_value(v);
        int b = json_is_true(v);

        switch (type) {
        case 's':
                return sd_bus_message_append_basic(reply, 's', s ? s : "");
        case 'b':
                return sd_bus_message_append_basic(reply, 'b', &b);
        case 't':
                return sd_bus_message_append_basic(reply, 't', &t);
        default:
                return -EINVAL;
        }
}

int bl_property_get(sd_bus *conn, const char *path, const char *interface, const char *property, sd_bus_message *reply,
                    void *userdata, sd_bus_error *e)
{
        struct bl_link *l = userdata;
        json_t *doc = NULL;
        int r;

        (void)conn;
        (void)path;
        (void)interface;
        r = status(l->bus, &doc);
        if (r < 0)
                return sd_bus_error_set(e, bl_bus_error_name(r), bl_bus_error_sentence(r));
        for (size_t i = 0; i < N_PROPERTIES; i++)
                if (strcmp(properties[i].property, property) == 0) {
                        if (properties[i].section)
                                doc = json_object_get(doc, properties[i].section);
                        return append(reply, properties[i].type, json_object_get(doc, properties[i].field));
                }
        return -ENOENT;
}

struct changed {
        bool acting;
        bool held;
};

static void emit_changed(struct bl_link *l, void *userdata)
{
        const struct changed *c = userdata;

        /* lost on a connection that is about to end, which is as well */
        if (c->acting)
                (void)sd_bus_emit_properties_changed(l->conn, BL_BUS_PATH, BL_BUS_INTERFACE, "Acting", NULL);
        if (c->held)
                (void)sd_bus_emit_properties_changed(l->conn, BL_BUS_PATH, BL_BUS_INTERFACE, "Held", NULL);
}

static int on_refresh(sd_event_source *s, void *userdata)
{
        struct bl_bus *b = userdata;
        struct changed c;
        json_t *doc = NULL;
        int acting, held;

        (void)s;
        bl_property_forget(b);
        if (status(b, &doc) < 0)
                return 0; /* the next change says it */
        acting = json_is_true(json_object_get(doc, "acting"));
        held = json_is_true(json_object_get(doc, "held"));
        c = (struct changed){.acting = acting != b->acting_said, .held = held != b->held_said};
        b->acting_said = acting;
        b->held_said = held;
        if (c.acting || c.held)
                bl_bus_foreach(b, emit_changed, &c);
        return 0;
}

void bl_property_refresh(struct bl_bus *b)
{
        if (b->refresh_source)
                (void)sd_event_source_set_enabled(b->refresh_source, SD_EVENT_ONESHOT);
        else if (sd_event_add_defer(b->event, &b->refresh_source, on_refresh, b) >= 0)
                (void)sd_event_source_set_priority(b->refresh_source, BL_BUS_PRIORITY);
}

void bl_property_forget(struct bl_bus *b)
{
        json_decref(b->status);
        b->status = NULL;
}

void bl_property_free(struct bl_bus *b)
{
        b->refresh_source = sd_event_source_disable_unref(b->refresh_source);
        bl_property_forget(b);
}
