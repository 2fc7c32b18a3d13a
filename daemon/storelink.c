// SPDX-License-Identifier: LGPL-2.1-or-later
#include "daemon/storelink.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <ballast/cleanup.h>

#include "daemon/util/clock.h"

#define PERIOD     (1 * BL_SEC)
#define CONNECT_IN (500 * BL_MSEC) /* where nobody answers */
/* One that hangs on this connection only is called on another. */
#define HANG_UP_AFTER (30 * BL_SEC)

struct job {
        struct job *next;
        struct bl_store_request request;
        bl_storelink_fn fn; /* NULL: none of a caller */
        void *userdata;
};

struct bl_storelink {
        sd_event *event;
        struct sockaddr_un address;
        const struct bl_storelink_handler *handler;
        void *userdata;

        int fd;
        sd_event_source *io, *timer;
        enum bl_storelink_state state;
        usec_t period;
        usec_t connect_at, status_at;

        struct job *first, **last; /* that wait */
        struct job *under_way;
        usec_t sent_at;
        bool has_first; /* of the answer under way, its first packet is here */

        uint64_t reserve; /* 0: nothing was said */
        bool reserve_due;

        struct bl_store_reply figures; /* of the last answer that was whole */
        usec_t figures_at;
        struct bl_store_reply reply; /* the first packet of the answer under way */
        struct bl_store_vm *vms;
        size_t n_vms, room;
};

static void advance(struct bl_storelink *l);

static void set_state(struct bl_storelink *l, enum bl_storelink_state s)
{
        if (l->state == s)
                return;
        l->state = s;
        if (l->handler->state)
                l->handler->state(l->userdata, s);
}

static void finish(struct job *j, int r, const struct bl_store_figures *f)
{
        if (j->fn)
                j->fn(j->userdata, r, f);
        free(j);
}

static int queue(struct bl_storelink *l, const struct bl_store_request *r, bl_storelink_fn fn, void *userdata)
{
        struct job *j = calloc(1, sizeof *j);

        if (!j)
                return -ENOMEM;
        j->request = *r;
        j->request.magic = BL_STORE_CONTROL_MAGIC;
        j->fn = fn;
        j->userdata = userdata;
        *l->last = j;
        l->last = &j->next;
        return 0;
}

/* Takes all that waits out first: what it calls may ask for more. */
static void drop(struct bl_storelink *l)
{
        struct job *j = l->under_way, *rest = l->first;

        l->under_way = NULL;
        l->first = NULL;
        l->last = &l->first;
        l->io = sd_event_source_unref(l->io);
        if (l->fd >= 0)
                (void)close(l->fd);
        l->fd = -1;
        l->has_first = false;
        l->n_vms = 0;
        if (j)
                finish(j, -ENOTCONN, NULL);
        while ((j = rest)) {
                rest = j->next;
                finish(j, -ENOTCONN, NULL);
        }
}

static void lost(struct bl_storelink *l)
{
        l->connect_at = bl_now() + CONNECT_IN;
        /* before the callers hear of it, so that they find no store to ask again */
        set_state(l, BL_STORELINK_AWAY);
        drop(l);
}

/* --- answers ---------------------------------------------------------------------- */

static int keep_vms(struct bl_storelink *l, const struct bl_store_reply *r)
{
        if (l->n_vms + r->n_vms > l->room) {
                const size_t room = (l->n_vms + r->n_vms) * 2;
                struct bl_store_vm *more = realloc(l->vms, room * sizeof *more);

                if (!more)
                        return -ENOMEM;
                l->vms = more;
                l->room = room;
        }
        if (r->n_vms > 0)
                memcpy(l->vms + l->n_vms, r->vms, r->n_vms * sizeof *l->vms);
        l->n_vms += r->n_vms;
        return 0;
}

static void on_status(struct bl_storelink *l)
{
        const struct bl_storelink_handler *h = l->handler;

        l->figures = l->reply;
        l->figures_at = bl_now();
        set_state(l, BL_STORELINK_THERE);
        if (h->figures)
                h->figures(l->userdata, &l->figures, l->vms, l->n_vms);
        for (uint32_t i = 0; h->event && i < l->figures.n_events; i++)
                h->event(l->userdata, &l->figures.events[i]);
}

/* -EBADMSG: another version, or no store at all */
static int on_packet(struct bl_storelink *l, const struct bl_store_reply *r)
{
        struct job *j = l->under_way;

        if (!j || r->magic != BL_STORE_CONTROL_MAGIC || r->n_vms > BL_STORE_REPLY_VMS ||
            r->n_events > BL_STORE_REPLY_EVENTS)
                return -EBADMSG;
        if (!l->has_first)
                l->reply = *r;
        l->has_first = true;
        if (keep_vms(l, r) < 0)
                return -ENOMEM;
        if (r->more)
                return 0;
        l->under_way = NULL;
        l->has_first = false;
        if (j->request.op == BL_STORE_OP_STATUS && l->reply.status == 0)
                on_status(l);
        else if (l->state == BL_STORELINK_DEAF)
                set_state(l, BL_STORELINK_THERE);
        l->n_vms = 0;
        finish(j, l->reply.status, &l->reply.figures);
        return 0;
}

static int on_io(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
        struct bl_storelink *l = userdata;
        struct bl_store_reply r;
        ssize_t n;

        (void)s;
        (void)revents;
        n = recv(fd, &r, sizeof r, MSG_TRUNC);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        if (n != (ssize_t)sizeof r || on_packet(l, &r) < 0) {
                lost(l);
                advance(l);
                return 0;
        }
        advance(l);
        return 0;
}

/* --- questions --------------------------------------------------------------------- */

static int connect_to(struct bl_storelink *l)
{
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), r = 0;

        if (fd < 0)
                return -errno;
        if (connect(fd, (struct sockaddr *)&l->address, sizeof l->address) < 0)
                r = -errno;
        if (r == 0)
                r = sd_event_add_io(l->event, &l->io, fd, EPOLLIN, on_io, l);
        if (r < 0) {
                (void)close(fd);
                return r;
        }
        l->fd = fd;
        l->status_at = 0;
        l->reserve_due = l->reserve > 0;
        return 0;
}

/* What is next to be sent; NULL: nothing yet. */
static struct job *next_job(struct bl_storelink *l, usec_t now)
{
        struct job *j = l->first;

        if (!j && l->status_at <= now) {
                if (queue(l, &(struct bl_store_request){.op = BL_STORE_OP_STATUS}, NULL, NULL) == 0)
                        l->status_at = now + l->period;
                j = l->first;
        }
        if (!j && l->reserve_due) {
                if (queue(l, &(struct bl_store_request){.op = BL_STORE_OP_RESERVE, .bytes = l->reserve}, NULL, NULL) ==
                    0)
                        l->reserve_due = false;
                j = l->first;
        }
        if (!j)
                return NULL;
        l->first = j->next;
        if (!l->first)
                l->last = &l->first;
        j->next = NULL;
        return j;
}

static int send_next(struct bl_storelink *l, usec_t now)
{
        struct job *j = l->under_way ? NULL : next_job(l, now);

        if (!j)
                return 0;
        l->under_way = j;
        l->sent_at = now;
        return send(l->fd, &j->request, sizeof j->request, MSG_NOSIGNAL) == (ssize_t)sizeof j->request ? 0 : -EPIPE;
}

static usec_t next_at(const struct bl_storelink *l)
{
        if (l->fd < 0)
                return l->connect_at;
        if (!l->under_way)
                return l->status_at;
        return l->sent_at + (l->state == BL_STORELINK_DEAF ? HANG_UP_AFTER : BL_STORELINK_DEAF_AFTER);
}

/* Does what is due, and wakes up when the next thing is. */
static void advance(struct bl_storelink *l)
{
        usec_t now = bl_now();

        if (l->fd < 0 && l->connect_at <= now && connect_to(l) < 0)
                lost(l);
        if (l->fd >= 0 && l->under_way && now >= l->sent_at + HANG_UP_AFTER)
                lost(l);
        else if (l->fd >= 0 && l->under_way && now >= l->sent_at + BL_STORELINK_DEAF_AFTER)
                set_state(l, BL_STORELINK_DEAF);
        if (l->fd >= 0 && send_next(l, now) < 0)
                lost(l);
        (void)sd_event_source_set_time(l->timer, next_at(l));
        (void)sd_event_source_set_enabled(l->timer, SD_EVENT_ONESHOT);
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
        (void)s;
        (void)usec;
        advance(userdata);
        return 0;
}

/* --- life -------------------------------------------------------------------------- */

int bl_storelink_new(sd_event *event, const char *path, const struct bl_storelink_handler *h, void *userdata,
                     struct bl_storelink **ret)
{
        struct bl_storelink *l;
        int r = 0;

        if (strlen(path) >= sizeof l->address.sun_path)
                return -ENAMETOOLONG;
        l = calloc(1, sizeof *l);
        if (!l)
                return -ENOMEM;
        l->event = sd_event_ref(event);
        l->address.sun_family = AF_UNIX;
        memcpy(l->address.sun_path, path, strlen(path) + 1);
        l->handler = h;
        l->userdata = userdata;
        l->fd = -1;
        l->period = PERIOD;
        l->last = &l->first;
        if (*path) {
                l->state = BL_STORELINK_AWAY;
                r = sd_event_add_time(event, &l->timer, CLOCK_MONOTONIC, 0, 5 * BL_MSEC, on_timer, l);
        }
        if (r < 0) {
                (void)bl_storelink_free(l);
                return r;
        }
        *ret = l;
        return 0;
}

struct bl_storelink *bl_storelink_free(struct bl_storelink *l)
{
        static const struct bl_storelink_handler nobody = {0};

        if (!l)
                return NULL;
        l->handler = &nobody;
        l->state = BL_STORELINK_AWAY;
        drop(l);
        sd_event_source_unref(l->timer);
        sd_event_unref(l->event);
        free(l->vms);
        free(l);
        return NULL;
}

enum bl_storelink_state bl_storelink_state(const struct bl_storelink *l)
{
        return l ? l->state : BL_STORELINK_NONE;
}

const struct bl_store_reply *bl_storelink_figures(const struct bl_storelink *l, usec_t *ret_at)
{
        if (!l || !l->figures_at)
                return NULL;
        if (ret_at)
                *ret_at = l->figures_at;
        return &l->figures;
}

void bl_storelink_set_period(struct bl_storelink *l, usec_t period)
{
        if (l->period == period)
                return;
        l->period = period;
        l->status_at = bl_min(l->status_at, bl_now() + period);
        if (l->timer && l->fd >= 0 && !l->under_way)
                (void)sd_event_source_set_time(l->timer, next_at(l));
}

static int ask(struct bl_storelink *l, const struct bl_store_request *q, bl_storelink_fn fn, void *userdata)
{
        int r;

        if (bl_storelink_state(l) != BL_STORELINK_THERE)
                return -ENOTCONN;
        r = queue(l, q, fn, userdata);
        /* sent from the loop, so that no callback comes from within this call */
        if (r == 0 && !l->under_way)
                (void)sd_event_source_set_time(l->timer, 0);
        return r;
}

int bl_storelink_register(struct bl_storelink *l, const struct bl_store_registration *r, bl_storelink_fn fn,
                          void *userdata)
{
        return ask(l, &(struct bl_store_request){.op = BL_STORE_OP_REGISTER, .registration = *r}, fn, userdata);
}

int bl_storelink_forget(struct bl_storelink *l, const uint8_t uuid[BL_UUID_LEN], bl_storelink_fn fn, void *userdata)
{
        struct bl_store_request q = {.op = BL_STORE_OP_FORGET};

        memcpy(q.registration.uuid, uuid, BL_UUID_LEN);
        return ask(l, &q, fn, userdata);
}

int bl_storelink_reserve(struct bl_storelink *l, uint64_t bytes)
{
        if (bl_storelink_state(l) == BL_STORELINK_NONE)
                return -ENOTCONN;
        if (l->reserve == bytes)
                return 0;
        l->reserve = bytes;
        l->reserve_due = true;
        if (l->fd >= 0 && !l->under_way)
                (void)sd_event_source_set_time(l->timer, 0);
        return 0;
}
