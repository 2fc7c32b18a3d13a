/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/virt/conn.h"

#include <errno.h>
#include <libvirt/virterror.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/virt/conn_private.h"
#include "daemon/virt/event_bridge.h"

/* A job that connects: arg for the pool. */
struct conn_job {
        struct bl_conn *c;
        struct link *link;
        int r;
        char *message;
};

/* --- connecting ----------------------------------------------------------------------- */

static void drop_link(struct conn_job *j)
{
        bl_link_close(j->link);
        free(j->link);
        j->link = NULL;
}

static void connect_run(void *arg)
{
        struct conn_job *j = arg;
        virConnectPtr conn = bl_link_open(j->c, true);
        bool ending;

        if (!conn) {
                j->r = bl_virt_error(&j->message);
                return;
        }
        j->link = bl_link_new(j->c, conn);
        if (!j->link) {
                (void)virConnectClose(conn);
                j->r = -ENOMEM;
                return;
        }
        j->link->first = true;
        /* without it a loss is noticed by the next call */
        if (virConnectRegisterCloseCallback(conn, bl_conn_on_close, j->link, NULL) < 0)
                virResetLastError();
        j->r = bl_conn_events_register(conn, j->c, j->link->event_ids, &j->link->n_event_ids, &j->message);
        if (j->r < 0) {
                drop_link(j);
                return;
        }
        pthread_mutex_lock(&j->c->lock);
        ending = j->c->ending;
        if (!ending)
                bl_link_add(j->c, j->link);
        pthread_mutex_unlock(&j->c->lock);
        if (ending) {
                drop_link(j);
                j->r = -ECANCELED;
        }
}

static void retry_later(struct bl_conn *c)
{
        if (c->stopped)
                return;
        (void)sd_event_source_set_time_relative(c->retry_timer, c->retry);
        (void)sd_event_source_set_enabled(c->retry_timer, SD_EVENT_ONESHOT);
        c->retry = bl_min(c->retry * 2, c->o.retry_max);
}

static void report_failure(struct bl_conn *c, const char *message)
{
        if (c->last_message && strcmp(c->last_message, message) == 0)
                return;
        free(c->last_message);
        c->last_message = strdup(message);
        if (c->o.handler.state && !c->stopped)
                c->o.handler.state(c->o.userdata, false, message);
}

static void connect_done(void *arg, int r)
{
        struct conn_job *j = arg;
        struct bl_conn *c = j->c;

        c->connecting = false;
        if (r == 0)
                r = j->r;
        if (r == 0) {
                pthread_mutex_lock(&c->lock);
                c->usable = !c->stopped;
                pthread_mutex_unlock(&c->lock);
                if (!c->stopped) {
                        c->connected = true;
                        c->retry = c->o.retry_first;
                        free(c->last_message);
                        c->last_message = NULL;
                        if (c->o.handler.state)
                                c->o.handler.state(c->o.userdata, true, NULL);
                }
        } else if (!c->stopped) {
                report_failure(c, j->message ?: strerror(-r));
                retry_later(c);
        }
        free(j->message);
        free(j);
}

static void connect_begin(struct bl_conn *c)
{
        struct conn_job *j;

        if (c->connecting || c->connected || c->stopped)
                return;
        j = calloc(1, sizeof(*j));
        if (j) {
                j->c = c;
                c->connecting = true;
                if (bl_pool_submit(c->pool, NULL, connect_run, connect_done, j) == 0)
                        return;
                c->connecting = false;
                free(j);
        }
        retry_later(c);
}

static int on_retry(sd_event_source *s, uint64_t usec, void *userdata)
{
        (void)s;
        (void)usec;
        connect_begin(userdata);
        return 0;
}

/* On the loop: the connection that carries the events is gone, and with it,
 * since they lead to the same daemon, the others. */
static void lost(struct bl_conn *c, const char *message)
{
        if (!c->connected)
                return;
        c->connected = false;
        pthread_mutex_lock(&c->lock);
        c->usable = false;
        for (struct link *l = c->links; l; l = l->next)
                l->retired = true;
        pthread_mutex_unlock(&c->lock);
        bl_links_sweep_soon(c, 0);
        report_failure(c, message);
        retry_later(c);
}

struct loss {
        struct bl_conn *c;
        const struct link *link; /* compared only */
        int reason;
};

static void on_loss(void *arg, int r)
{
        static const char *const reasons[] = {
                [VIR_CONNECT_CLOSE_REASON_ERROR] = "the connection to libvirt broke",
                [VIR_CONNECT_CLOSE_REASON_EOF] = "libvirt closed the connection",
                [VIR_CONNECT_CLOSE_REASON_KEEPALIVE] = "libvirt does not answer any more",
                [VIR_CONNECT_CLOSE_REASON_CLIENT] = "the connection to libvirt was closed",
        };
        struct loss *loss = arg;
        struct bl_conn *c = loss->c;
        const struct link *first;

        if (r == 0) {
                pthread_mutex_lock(&c->lock);
                first = bl_link_first(c);
                pthread_mutex_unlock(&c->lock);
                if (first && first == loss->link)
                        lost(c, loss->reason >= 0 && loss->reason < 4 ? reasons[loss->reason] : reasons[0]);
        }
        free(loss);
}

/* Any thread. */
void bl_conn_post_loss(struct bl_conn *c, const struct link *l, int reason)
{
        struct loss *loss = calloc(1, sizeof(*loss));

        if (!loss)
                return;
        loss->c = c;
        loss->link = l;
        loss->reason = reason;
        if (bl_pool_post(c->pool, on_loss, loss) < 0)
                free(loss);
}

void bl_conn_on_close(virConnectPtr conn, int reason, void *opaque)
{
        const struct link *l = opaque;

        (void)conn;
        bl_conn_post_loss(l->c, l, reason);
}

void bl_conn_deliver(struct bl_conn *c, const struct bl_virt_event *ev)
{
        if (c->connected && !c->stopped && c->o.handler.event)
                c->o.handler.event(c->o.userdata, ev);
}

/* --- life --------------------------------------------------------------------------------- */

static void quiet(void *userdata, virErrorPtr error)
{
        (void)userdata;
        (void)error;
}

int bl_conn_new(sd_event *e, struct bl_pool *pool, const struct bl_conn_options *o, struct bl_conn **ret)
{
        struct bl_conn *c;
        int r;

        if (!bl_event_bridge_active())
                return -ENOTCONN;
        if (virInitialize() < 0)
                return -EIO;
        virSetErrorFunc(NULL, quiet);

        c = calloc(1, sizeof(*c));
        if (!c)
                return -ENOMEM;
        c->o = *o;
        c->uri = strdup(o->uri);
        if (!c->uri) {
                r = -ENOMEM;
                goto fail;
        }
        c->o.uri = c->uri;
        c->o.retry_first = o->retry_first ?: 200 * BL_MSEC;
        c->o.retry_max = o->retry_max ?: 5 * BL_SEC;
        c->retry = c->o.retry_first;
        r = sd_event_add_time(e, &c->retry_timer, CLOCK_MONOTONIC, 0, 10 * BL_MSEC, on_retry, c);
        if (r < 0)
                goto fail;
        (void)sd_event_source_set_enabled(c->retry_timer, SD_EVENT_OFF);
        r = sd_event_add_time(e, &c->sweep_timer, CLOCK_MONOTONIC, 0, BL_SEC, bl_links_on_sweep, c);
        if (r < 0)
                goto fail;
        (void)sd_event_source_set_enabled(c->sweep_timer, SD_EVENT_OFF);
        (void)pthread_mutex_init(&c->lock, NULL);
        c->pool = pool;
        *ret = c;
        return 0;

fail:
        (void)sd_event_source_disable_unref(c->retry_timer);
        free(c->uri);
        free(c);
        return r;
}

int bl_conn_start(struct bl_conn *c)
{
        if (c->stopped)
                return -ESHUTDOWN;
        connect_begin(c);
        return 0;
}

void bl_conn_stop(struct bl_conn *c)
{
        if (c->stopped)
                return;
        c->stopped = true;
        c->connected = false;
        (void)sd_event_source_set_enabled(c->retry_timer, SD_EVENT_OFF);
        (void)sd_event_source_set_enabled(c->sweep_timer, SD_EVENT_OFF);
        pthread_mutex_lock(&c->lock);
        c->usable = false;
        c->ending = true;
        for (struct link *l = c->links; l; l = l->next)
                l->retired = true;
        pthread_mutex_unlock(&c->lock);
        (void)bl_links_sweep(c);
}

struct bl_conn *bl_conn_free(struct bl_conn *c)
{
        struct link *l, *next;

        if (!c)
                return NULL;
        bl_conn_stop(c);
        for (l = c->links; l; l = next) {
                next = l->next;
                free(l);
        }
        (void)sd_event_source_disable_unref(c->retry_timer);
        (void)sd_event_source_disable_unref(c->sweep_timer);
        (void)pthread_mutex_destroy(&c->lock);
        free(c->last_message);
        free(c->uri);
        free(c);
        return NULL;
}

bool bl_conn_connected(const struct bl_conn *c)
{
        return c->connected;
}

const char *bl_conn_uri(const struct bl_conn *c)
{
        return c->uri;
}

struct bl_pool *bl_conn_pool(struct bl_conn *c)
{
        return c->pool;
}
