/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/store/control_server.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "daemon/store/notify.h"
#include "daemon/util/clock.h"
#include "daemon/util/sock.h"

#define CLIENTS    16U
#define SEND_LIMIT (5 * BL_SEC) /* for a client to take the next packet of its answer */
#define DEAF_TIME  (100 * BL_MSEC) /* after accept(2) failed for want of something: the listener stays readable */

struct client {
        int fd; /* -1: free */
        usec_t since; /* it said or took something */
        uint64_t cursor; /* events that it had */
        struct bl_store_reply *out; /* what is being sent; NULL: it is its turn */
        struct bl_store_vm *vms; /* that are to follow, from `at` on */
        size_t n_vms, at;
};

struct bl_control_server {
        struct bl_control_server_options o;
        pthread_t thread;
        int stop; /* eventfd */
        usec_t deaf_until, told;
        struct client clients[CLIENTS];
};

static void answer_end(struct client *c)
{
        free(c->out);
        free(c->vms);
        c->out = NULL;
        c->vms = NULL;
        c->n_vms = c->at = 0;
}

static void client_close(struct client *c)
{
        answer_end(c);
        bl_closep(&c->fd);
        c->fd = -1;
}

/* Fills a packet up with what is left of the VMs. */
static void fill_vms(struct client *c)
{
        const size_t n = bl_min(c->n_vms - c->at, (size_t)BL_STORE_REPLY_VMS);

        if (n > 0)
                memcpy(c->out->vms, c->vms + c->at, n * sizeof(*c->vms));
        c->out->n_vms = (uint32_t)n;
        c->at += n;
        c->out->more = c->at < c->n_vms;
}

/* Sends as much of the answer as goes. */
static void answer(struct client *c)
{
        for (;;) {
                if (send(c->fd, c->out, sizeof(*c->out), MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
                        if (errno == EINTR)
                                continue;
                        /* ENOBUFS: the host has no memory for it now */
                        if (errno != EAGAIN && errno != ENOBUFS)
                                client_close(c);
                        return;
                }
                c->since = bl_now();
                if (!c->out->more)
                        break;
                memset(c->out, 0, sizeof(*c->out));
                c->out->magic = BL_STORE_CONTROL_MAGIC;
                fill_vms(c);
        }
        answer_end(c);
}

static int take_vms(struct client *c, struct bl_store *store)
{
        size_t n = 0, there;

        while ((there = bl_store_vms(store, c->vms, n)) > n) {
                free(c->vms);
                n = there;
                c->vms = calloc(n, sizeof(*c->vms));
                if (!c->vms)
                        return -ENOMEM;
        }
        c->n_vms = there;
        return 0;
}

static int status(struct bl_control_server *s, struct client *c)
{
        const int r = take_vms(c, s->o.store);

        if (r < 0)
                return r;
        fill_vms(c);
        c->out->n_events = (uint32_t)bl_events_fetch(s->o.events, &c->cursor, c->out->events, BL_STORE_REPLY_EVENTS);
        return 0;
}

static int change(struct bl_control_server *s, const struct bl_store_request *q)
{
        const struct bl_store_registration *r = &q->registration;
        int ret;

        if (q->op == BL_STORE_OP_FORGET)
                ret = bl_store_forget(s->o.store, r->uuid);
        else if (r->pid <= 0 || !memchr(r->group, '\0', sizeof(r->group)))
                ret = -EINVAL;
        else
                ret = bl_store_register(s->o.store, r);
        if (ret >= 0 && s->o.registered)
                s->o.registered(s->o.userdata);
        return ret;
}

static int carry_out(struct bl_control_server *s, struct client *c, const struct bl_store_request *q)
{
        switch ((enum bl_store_op)q->op) {
        case BL_STORE_OP_STATUS:
                return status(s, c);
        case BL_STORE_OP_REGISTER:
        case BL_STORE_OP_FORGET:
                return change(s, q);
        case BL_STORE_OP_RESERVE:
                if (s->o.reserve)
                        s->o.reserve(s->o.userdata, q->bytes);
                return 0;
        case _BL_STORE_OP_MAX:
                break;
        }
        return -EOPNOTSUPP;
}

/* Who says what we do not understand is of another version: it is told, and let go. */
static void client_step(struct bl_control_server *s, struct client *c)
{
        struct bl_store_request q;
        const ssize_t n = recv(c->fd, &q, sizeof(q), MSG_DONTWAIT | MSG_TRUNC);
        const bool right = n == sizeof(q) && q.magic == BL_STORE_CONTROL_MAGIC;

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        if (n <= 0 || bl_sock_check_peer(c->fd) < 0) {
                client_close(c);
                return;
        }
        c->out = calloc(1, sizeof(*c->out));
        if (!c->out) {
                client_close(c);
                return;
        }
        c->out->magic = BL_STORE_CONTROL_MAGIC;
        c->since = bl_now();
        c->out->status = right ? carry_out(s, c, &q) : -EPROTO;
        bl_store_figures(s->o.store, &c->out->figures);
        c->out->fixed = s->o.fixed ? s->o.fixed(s->o.userdata, &c->out->figures) : 0;
        c->out->events_lost = bl_events_lost(s->o.events);
        answer(c);
        if (!right)
                client_close(c);
}

/* The one that was silent longest gives way: ballastd asks every second. */
static struct client *client_slot(struct bl_control_server *s)
{
        struct client *oldest = &s->clients[0];

        for (unsigned i = 0; i < CLIENTS; i++) {
                struct client *c = &s->clients[i];

                if (c->fd < 0)
                        return c;
                if (c->since < oldest->since)
                        oldest = c;
        }
        client_close(oldest);
        return oldest;
}

/* One at a time: those that are there already have their say in between. */
static void accept_client(struct bl_control_server *s)
{
        const int fd = bl_sock_accept(s->o.fd, NULL, NULL);

        if (fd == -EAGAIN || fd == -EACCES)
                return;
        if (fd < 0) {
                s->deaf_until = bl_now() + DEAF_TIME;
                return;
        }
        if (bl_sock_check_peer(fd) < 0) {
                (void)close(fd);
                return;
        }
        *client_slot(s) = (struct client){.fd = fd, .since = bl_now(), .cursor = bl_events_begin(s->o.events)};
}

static void tell_watchdog(struct bl_control_server *s, usec_t now)
{
        struct bl_store_figures f;

        if (s->o.watchdog == 0 || now < s->told + s->o.watchdog)
                return;
        bl_store_figures(s->o.store, &f); /* it comes back: the store is alive */
        (void)bl_notify("WATCHDOG=1");
        s->told = now;
}

/* What is due next, in milliseconds from now; -1: nothing. */
static int next_due(const struct bl_control_server *s, usec_t now)
{
        usec_t at = s->o.watchdog > 0 ? s->told + s->o.watchdog : BL_UNSET;

        if (s->deaf_until > now)
                at = bl_min(at, s->deaf_until);
        for (unsigned i = 0; i < CLIENTS; i++)
                if (s->clients[i].out)
                        at = bl_min(at, s->clients[i].since + SEND_LIMIT);
        return at == BL_UNSET ? -1 : (int)(bl_sub_sat(at, now) / BL_MSEC + 1);
}

static void *serve(void *userdata)
{
        struct bl_control_server *s = userdata;
        struct pollfd fds[CLIENTS + 2];

        for (;;) {
                usec_t now = bl_now();

                tell_watchdog(s, now);
                fds[0] = (struct pollfd){.fd = s->stop, .events = POLLIN};
                fds[1] = (struct pollfd){.fd = now < s->deaf_until ? -1 : s->o.fd, .events = POLLIN};
                for (unsigned i = 0; i < CLIENTS; i++)
                        fds[2 + i] =
                                (struct pollfd){.fd = s->clients[i].fd, .events = s->clients[i].out ? POLLOUT : POLLIN};
                if (poll(fds, CLIENTS + 2, next_due(s, now)) < 0)
                        continue;
                if (fds[0].revents != 0)
                        return NULL;
                now = bl_now();
                for (unsigned i = 0; i < CLIENTS; i++) {
                        struct client *c = &s->clients[i];

                        if (fds[2 + i].revents != 0 && c->out)
                                answer(c);
                        else if (fds[2 + i].revents != 0)
                                client_step(s, c);
                        else if (c->out && now >= c->since + SEND_LIMIT)
                                client_close(c);
                }
                if (fds[1].revents != 0)
                        accept_client(s);
        }
}

static struct bl_control_server *server_free(struct bl_control_server *s)
{
        if (!s)
                return NULL;
        for (unsigned i = 0; i < CLIENTS; i++)
                client_close(&s->clients[i]);
        if (s->stop >= 0)
                (void)close(s->stop);
        (void)close(s->o.fd);
        free(s);
        return NULL;
}

int bl_control_server_start(const struct bl_control_server_options *o, struct bl_control_server **ret)
{
        struct bl_control_server *s = calloc(1, sizeof(*s));
        int r;

        if (!s) {
                (void)close(o->fd);
                return -ENOMEM;
        }
        s->o = *o;
        for (unsigned i = 0; i < CLIENTS; i++)
                s->clients[i].fd = -1;
        s->stop = eventfd(0, EFD_CLOEXEC);
        /* whoever made the socket: a client that goes before accept(2) must not stop us */
        if (s->stop < 0 || fcntl(o->fd, F_SETFL, O_NONBLOCK) < 0 || fcntl(o->fd, F_SETFD, FD_CLOEXEC) < 0) {
                r = -errno;
                (void)server_free(s);
                return r;
        }
        r = -pthread_create(&s->thread, NULL, serve, s);
        if (r < 0) {
                (void)server_free(s);
                return r;
        }
        *ret = s;
        return 0;
}

struct bl_control_server *bl_control_server_stop(struct bl_control_server *s)
{
        if (!s)
                return NULL;
        (void)eventfd_write(s->stop, 1);
        (void)pthread_join(s->thread, NULL);
        return server_free(s);
}
