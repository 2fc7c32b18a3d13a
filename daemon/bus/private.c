/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The private socket: every connection is a D-Bus connection of its own. */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#include <ballast/cleanup.h>

#include "daemon/bus/errors.h"
#include "daemon/bus/internal.h"

/* What the kernel may hold for a reader who does not read. */
#define SEND_BUFFER (256 * 1024)

static struct bl_client *client_free(struct bl_client *c)
{
        struct bl_client **p;

        if (!c)
                return NULL;
        for (p = &c->link.bus->clients; *p; p = &(*p)->next)
                if (*p == c) {
                        *p = c->next;
                        c->link.bus->n_clients--;
                        break;
                }
        c->gate = bl_gate_free(c->gate);
        if (c->link.conn) {
                sd_bus_detach_event(c->link.conn);
                sd_bus_close_unref(c->link.conn);
        }
        free(c);
        return NULL;
}
BL_DEFINE_CLEANUP(struct bl_client *, client_free)

/* Not from within a handler of the connection itself: here. */
static int on_reap(sd_event_source *s, void *userdata)
{
        struct bl_bus *b = userdata;
        struct bl_client *c, *next;

        (void)s;
        for (c = b->clients; c; c = next) {
                next = c->next;
                if (c->dead)
                        (void)client_free(c);
        }
        return 0;
}

void bl_private_drop(struct bl_client *c)
{
        c->dead = true;
        (void)sd_event_source_set_enabled(c->link.bus->reap_source, SD_EVENT_ONESHOT);
}

static int on_disconnected(sd_bus_message *m, void *userdata, sd_bus_error *e)
{
        (void)m;
        (void)e;
        bl_private_drop(userdata);
        return 0;
}

/* Those who may not even read get this answer to whatever they call. */
static int on_refused(sd_bus_message *m, void *userdata, sd_bus_error *e)
{
        uint8_t type = 0;

        (void)userdata;
        (void)e;
        if (sd_bus_message_get_type(m, &type) < 0 || type != SD_BUS_MESSAGE_METHOD_CALL)
                return 0;
        (void)sd_bus_reply_method_errorf(m, bl_bus_error_name(-EPERM), BL_BUS_MAY_NOT_READ);
        return 1;
}

static int client_connect(struct bl_client *c, int *fd)
{
        struct bl_bus *b = c->link.bus;
        _cleanup_close_ int in_fd = -1;
        sd_id128_t id;
        int r, size = SEND_BUFFER, out_fd = *fd;

        r = bl_gate_new(b->event, *fd, BL_BUS_PRIORITY, &in_fd, &c->gate);
        if (r < 0)
                return r;
        r = sd_id128_randomize(&id);
        if (r < 0)
                return r;
        r = sd_bus_new(&c->link.conn);
        if (r < 0)
                return r;
        r = sd_bus_set_description(c->link.conn, "ballast-private");
        if (r < 0)
                return r;
        r = sd_bus_set_fd(c->link.conn, in_fd, out_fd);
        if (r < 0)
                return r;
        /* sd-bus closes them from here on */
        in_fd = -1;
        *fd = -1;
        r = sd_bus_set_server(c->link.conn, 1, id);
        if (r < 0)
                return r;
        /* The kernel has said who this is; at sd-bus's end of the gate it
         * would say that it is us, so the peer's own claim is not compared. */
        r = sd_bus_set_anonymous(c->link.conn, 1);
        if (r < 0)
                return r;
        r = sd_bus_negotiate_fds(c->link.conn, 0);
        if (r < 0)
                return r;
        r = sd_bus_start(c->link.conn);
        if (r < 0)
                return r;
        /* sd-bus asks for 8 MiB */
        if (setsockopt(out_fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) < 0)
                return -errno;
        r = sd_bus_match_signal(c->link.conn, NULL, "org.freedesktop.DBus.Local", "/org/freedesktop/DBus/Local",
                                "org.freedesktop.DBus.Local", "Disconnected", on_disconnected, c);
        if (r < 0)
                return r;
        if (c->link.access == BL_ACCESS_NONE)
                r = sd_bus_add_filter(c->link.conn, NULL, on_refused, c);
        else
                r = bl_vtable_add(&c->link);
        if (r < 0)
                return r;
        return sd_bus_attach_event(c->link.conn, b->event, BL_BUS_PRIORITY);
}

/* Root always finds room. */
static bool has_room(const struct bl_bus *b, uid_t uid)
{
        size_t readers = 0, his = 0;

        if (uid == 0)
                return b->n_clients < BL_BUS_MAX_CLIENTS;
        for (const struct bl_client *c = b->clients; c; c = c->next) {
                readers += c->uid != 0;
                his += c->uid == uid;
        }
        return b->n_clients < BL_BUS_MAX_CLIENTS && readers < BL_BUS_MAX_READERS && his < BL_BUS_MAX_PER_USER;
}

static int client_new(struct bl_bus *b, int *fd)
{
        _cleanup_(client_freep) struct bl_client *c = NULL;
        struct bl_peer peer;
        int r;

        r = bl_peer_from_fd(*fd, b->group, &peer);
        if (r < 0)
                return r;
        if (!has_room(b, peer.uid)) {
                if (!b->full_said)
                        bl_bus_note(b, -EUSERS,
                                    "too many connections to the private socket, the last by user %u (process %d); "
                                    "refusing more",
                                    peer.uid, peer.pid);
                b->full_said = true;
                return -EUSERS;
        }
        b->full_said = false;
        c = calloc(1, sizeof(*c));
        if (!c)
                return -ENOMEM;
        c->link = (struct bl_link){.bus = b, .known = true, .access = peer.access};
        c->uid = peer.uid;
        r = client_connect(c, fd);
        if (r < 0)
                return r;
        c->next = b->clients;
        b->clients = c;
        b->n_clients++;
        (void)BL_TAKE(c);
        return 0;
}

static int on_accept_again(sd_event_source *s, uint64_t usec, void *userdata)
{
        struct bl_bus *b = userdata;

        (void)s;
        (void)usec;
        (void)sd_event_source_set_enabled(b->accept_source, SD_EVENT_ON);
        return 0;
}

/* No descriptor or memory for a moment: do not spin on it. */
static void rest(struct bl_bus *b, int r)
{
        bl_bus_note(b, r, "cannot accept a connection on the private socket; trying again in a second");
        (void)sd_event_source_set_enabled(b->accept_source, SD_EVENT_OFF);
        (void)sd_event_source_set_time_relative(b->accept_again, BL_SEC);
        (void)sd_event_source_set_enabled(b->accept_again, SD_EVENT_ONESHOT);
}

static int on_accept(sd_event_source *s, int listen_fd, uint32_t revents, void *userdata)
{
        struct bl_bus *b = userdata;
        _cleanup_close_ int fd = -1;

        (void)s;
        (void)revents;
        fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
                if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
                        rest(b, -errno);
                return 0; /* else: it has left already */
        }
        /* closed unless it was taken; its end sees that */
        (void)client_new(b, &fd);
        return 0;
}

int bl_private_start(struct bl_bus *b, const struct bl_bus_options *o)
{
        mode_t mode = o->mode ? o->mode : o->group == BL_BUS_NO_GROUP ? 0600 : 0660;
        int r;

        r = bl_listener_new(o->socket_path, o->group, mode, &b->listener);
        if (r < 0)
                return r;
        if (!bl_listener_has_group(b->listener))
                bl_bus_note(b, -EPERM,
                            "cannot give the private socket to group '" BL_BUS_GROUP "' (that needs CAP_CHOWN); only "
                            "root can use it");
        r = sd_event_add_defer(b->event, &b->reap_source, on_reap, b);
        if (r < 0)
                return r;
        r = sd_event_add_time_relative(b->event, &b->accept_again, CLOCK_MONOTONIC, BL_SEC, 0, on_accept_again, b);
        if (r < 0)
                return r;
        r = sd_event_source_set_enabled(b->accept_again, SD_EVENT_OFF);
        if (r < 0)
                return r;
        r = sd_event_add_io(b->event, &b->accept_source, bl_listener_fd(b->listener), EPOLLIN, on_accept, b);
        if (r < 0)
                return r;
        return sd_event_source_set_priority(b->accept_source, BL_BUS_PRIORITY);
}

void bl_private_stop(struct bl_bus *b)
{
        b->accept_source = sd_event_source_disable_unref(b->accept_source);
        b->accept_again = sd_event_source_disable_unref(b->accept_again);
        b->reap_source = sd_event_source_disable_unref(b->reap_source);
        while (b->clients)
                (void)client_free(b->clients);
        b->listener = bl_listener_free(b->listener);
}
