/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The system bus, if there is one: now, later, or again after it restarted. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/bus/internal.h"

#define SOCKET_DEFAULT "/run/dbus/system_bus_socket"
#define ADDRESS        "unix:path="

static const char *address(void)
{
        const char *a = secure_getenv("DBUS_SYSTEM_BUS_ADDRESS");

        return a && *a ? a : ADDRESS SOCKET_DEFAULT;
}

static int on_named(sd_bus_message *m, void *userdata, sd_bus_error *e)
{
        struct bl_bus *b = userdata;
        const sd_bus_error *error = sd_bus_message_get_error(m);
        uint32_t result = 0;

        (void)e;
        if (error) {
                bl_bus_note(b, -EACCES, "the system bus refuses the name " BL_BUS_NAME " (%s); is %s installed?",
                            error->message ? error->message : error->name,
                            "/usr/share/dbus-1/system.d/" BL_BUS_NAME ".conf");
                return 0;
        }
        if (sd_bus_message_read_basic(m, 'u', &result) < 0 || (result != 1 && result != 4)) {
                bl_bus_note(b, -EEXIST, "another process owns " BL_BUS_NAME " on the system bus");
                return 0;
        }
        b->system_named = true;
        bl_bus_note(b, 0, "serving on the system bus as " BL_BUS_NAME);
        return 0;
}

static int on_again(sd_event_source *s, uint64_t usec, void *userdata)
{
        struct bl_bus *b = userdata;

        (void)s;
        (void)usec;
        bl_system_stop(b);
        bl_system_start(b);
        return 0;
}

static void again(struct bl_bus *b, uint64_t in)
{
        b->system_again = sd_event_source_disable_unref(b->system_again);
        (void)sd_event_add_time_relative(b->event, &b->system_again, CLOCK_MONOTONIC, in, 0, on_again, b);
}

static int on_disconnected(sd_bus_message *m, void *userdata, sd_bus_error *e)
{
        struct bl_bus *b = userdata;

        (void)m;
        (void)e;
        if (b->system_named)
                bl_bus_note(b, -ECONNRESET, "the system bus went away; coming back with it");
        b->system_named = false;
        again(b, BL_SEC);
        return 0;
}

/* Said, not failed: sd-bus waits for the socket to appear. */
static void say_missing(struct bl_bus *b)
{
        const char *a = address();

        if (b->system_said || strncmp(a, ADDRESS, strlen(ADDRESS)) != 0 || strchr(a, ',') ||
            access(a + strlen(ADDRESS), F_OK) == 0)
                return;
        b->system_said = true;
        bl_bus_note(b, -ENOENT, "no system bus at %s; ballastctl uses the private socket", a + strlen(ADDRESS));
}

static int connect_bus(struct bl_bus *b)
{
        sd_bus *conn;
        int r;

        r = sd_bus_new(&b->system.conn);
        if (r < 0)
                return r;
        conn = b->system.conn;
        r = sd_bus_set_address(conn, address());
        if (r < 0)
                return r;
        r = sd_bus_set_bus_client(conn, 1);
        if (r < 0)
                return r;
        r = sd_bus_set_watch_bind(conn, 1);
        if (r < 0)
                return r;
        r = sd_bus_set_description(conn, "ballast-system");
        if (r < 0)
                return r;
        r = sd_bus_start(conn);
        if (r < 0)
                return r;
        r = sd_bus_match_signal(conn, NULL, "org.freedesktop.DBus.Local", "/org/freedesktop/DBus/Local",
                                "org.freedesktop.DBus.Local", "Disconnected", on_disconnected, b);
        if (r < 0)
                return r;
        r = bl_vtable_add(&b->system);
        if (r < 0)
                return r;
        r = sd_bus_request_name_async(conn, NULL, BL_BUS_NAME, 0, on_named, b);
        if (r < 0)
                return r;
        return sd_bus_attach_event(conn, b->event, BL_BUS_PRIORITY);
}

void bl_system_start(struct bl_bus *b)
{
        int r;

        say_missing(b);
        b->system = (struct bl_link){.bus = b};
        r = connect_bus(b);
        if (r >= 0)
                return;
        if (!b->system_said)
                bl_bus_note(b, r, "cannot use the system bus at %s; trying now and then", address());
        b->system_said = true;
        bl_system_stop(b);
        again(b, 30 * BL_SEC);
}

void bl_system_stop(struct bl_bus *b)
{
        b->system_again = sd_event_source_disable_unref(b->system_again);
        b->system_named = false;
        if (!b->system.conn)
                return;
        sd_bus_detach_event(b->system.conn);
        b->system.conn = sd_bus_close_unref(b->system.conn);
}
