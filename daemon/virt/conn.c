/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/virt/conn.h"

#include <errno.h>
#include <libvirt/virterror.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/util/clock.h"
#include "daemon/virt/conn_events.h"
#include "daemon/virt/event_bridge.h"

/* libvirtd's max_client_requests is 5; one is left for closing. */
#define CALLS_PER_LINK   4
#define OVERDUE_PER_LINK 3
#define LINKS_MAX        64
#define LINK_IDLE        (60 * BL_SEC)
#define SWEEP            (20 * BL_SEC)

/* A domain as one connection knows it. */
struct known {
        struct known *next;
        uint8_t uuid[BL_UUID_LEN];
        virDomainPtr dom;
};

/* One connection of libvirt's. */
struct link {
        struct link *next;
        struct bl_conn *c;
        virConnectPtr conn;
        bool first; /* carries the events */
        bool retired; /* no further calls; closed when those under way are back */
        bool closing;
        unsigned calls;
        unsigned overdue;
        usec_t idle_since;
        struct known *known;
        int event_ids[BL_CONN_EVENTS_MAX];
        size_t n_event_ids;
};

struct bl_conn_lease {
        struct bl_conn_lease *next;
        struct bl_conn *c;
        struct link *link;
        bool has_key;
        uint8_t key[BL_UUID_LEN];
        bool overdue;
};

struct bl_conn {
        sd_event *event;
        sd_event_source *retry_timer;
        sd_event_source *sweep_timer;
        struct bl_pool *pool;
        struct bl_conn_options o;
        char *uri;
        char *last_message; /* of a failed attempt */
        usec_t retry;
        bool connecting;
        bool connected;
        bool stopped;

        pthread_mutex_t lock; /* what follows */
        struct link *links;
        unsigned n_links;
        unsigned opening; /* further links that workers are opening */
        struct bl_conn_lease *leases;
        bool usable; /* connected, as the workers see it */
};

/* A job of ours: arg for the pool. */
struct conn_job {
        struct bl_conn *c;
        struct link *link;
        int r;
        char *message;
};

static void connect_begin(struct bl_conn *c);
static void link_maybe_close(struct bl_conn *c, struct link *l);

/* --- errors -------------------------------------------------------------------- */

static void quiet(void *userdata, virErrorPtr error)
{
        (void)userdata;
        (void)error;
}

static int error_to_errno(const virError *e)
{
        switch (e->code) {
        case VIR_ERR_NO_DOMAIN:
                return -ENOENT;
        case VIR_ERR_NO_DOMAIN_METADATA:
                return -ENODATA;
        case VIR_ERR_OPERATION_TIMEOUT:
                return -ETIMEDOUT;
        case VIR_ERR_OPERATION_UNSUPPORTED:
        case VIR_ERR_NO_SUPPORT:
        case VIR_ERR_CONFIG_UNSUPPORTED:
        case VIR_ERR_ARGUMENT_UNSUPPORTED:
                return -EOPNOTSUPP;
        case VIR_ERR_ACCESS_DENIED:
        case VIR_ERR_AUTH_FAILED:
        case VIR_ERR_AUTH_CANCELLED:
        case VIR_ERR_AUTH_UNAVAILABLE:
        case VIR_ERR_OPERATION_DENIED:
                return -EACCES;
        case VIR_ERR_NO_CONNECT:
        case VIR_ERR_INVALID_CONN:
        case VIR_ERR_RPC:
                return -ENOTCONN;
        case VIR_ERR_NO_MEMORY:
                return -ENOMEM;
        case VIR_ERR_OPERATION_INVALID:
                return -EBUSY;
        case VIR_ERR_INVALID_ARG:
        case VIR_ERR_XML_ERROR:
        case VIR_ERR_XML_DETAIL:
        case VIR_ERR_XML_INVALID_SCHEMA:
                return -EINVAL;
        default:
                /* a broken connection is told in several ways, all from these two */
                return e->domain == VIR_FROM_RPC || e->domain == VIR_FROM_REMOTE ? -ENOTCONN : -EIO;
        }
}

int bl_virt_error(char **ret_message)
{
        const virError *e = virGetLastError();

        if (!e || e->code == VIR_ERR_OK) {
                *ret_message = strdup("libvirt gave no reason");
                return -EIO;
        }
        *ret_message = strdup(e->message ?: "libvirt gave no reason");
        return error_to_errno(e);
}

/* --- links, with the lock held ---------------------------------------------------- */

static struct link *link_new(struct bl_conn *c, virConnectPtr conn)
{
        struct link *l = calloc(1, sizeof(*l));

        if (!l)
                return NULL;
        l->c = c;
        l->conn = conn;
        l->idle_since = bl_now();
        return l;
}

static void link_add(struct bl_conn *c, struct link *l)
{
        l->next = c->links;
        c->links = l;
        c->n_links++;
}

static void link_remove(struct bl_conn *c, const struct link *l)
{
        for (struct link **p = &c->links; *p; p = &(*p)->next)
                if (*p == l) {
                        *p = l->next;
                        c->n_links--;
                        return;
                }
}

static struct link *link_pick(const struct bl_conn *c)
{
        struct link *best = NULL;

        for (struct link *l = c->links; l; l = l->next)
                if (!l->retired && l->calls < CALLS_PER_LINK && l->overdue < OVERDUE_PER_LINK &&
                    (!best || l->calls < best->calls))
                        best = l;
        return best;
}

static struct link *link_first(const struct bl_conn *c)
{
        for (struct link *l = c->links; l; l = l->next)
                if (l->first && !l->retired)
                        return l;
        return NULL;
}

/* --- opening and closing, in workers ------------------------------------------------ */

static virConnectPtr open_one(const struct bl_conn *c)
{
        virConnectPtr conn = virConnectOpen(c->uri);

        /* local drivers have none, and need none */
        if (conn && c->o.keepalive_s > 0 && virConnectSetKeepAlive(conn, c->o.keepalive_s, c->o.keepalive_count) < 0)
                virResetLastError();
        return conn;
}

/* What libvirt holds for us refers to the connection, so it goes first. */
static void close_run(void *arg)
{
        struct conn_job *j = arg;
        struct link *l = j->link;

        while (l->known) {
                struct known *k = l->known;

                l->known = k->next;
                (void)virDomainFree(k->dom);
                free(k);
        }
        if (l->first)
                (void)virConnectUnregisterCloseCallback(l->conn, bl_conn_on_close);
        for (size_t i = 0; i < l->n_event_ids; i++)
                (void)virConnectDomainEventDeregisterAny(l->conn, l->event_ids[i]);
        (void)virConnectClose(l->conn);
        virResetLastError();
}

static void close_done(void *arg, int r)
{
        struct conn_job *j = arg;

        (void)r;
        pthread_mutex_lock(&j->c->lock);
        link_remove(j->c, j->link);
        pthread_mutex_unlock(&j->c->lock);
        free(j->link);
        free(j);
}

/* On the loop. */
static void link_maybe_close(struct bl_conn *c, struct link *l)
{
        struct conn_job *j;
        bool now;

        pthread_mutex_lock(&c->lock);
        now = l->retired && !l->closing && l->calls == 0;
        if (now)
                l->closing = true;
        pthread_mutex_unlock(&c->lock);
        if (!now)
                return;
        j = calloc(1, sizeof(*j));
        if (j) {
                j->c = c;
                j->link = l;
                if (bl_pool_submit(c->pool, NULL, close_run, close_done, j) == 0)
                        return;
                free(j);
        }
        /* the next sweep tries again */
        pthread_mutex_lock(&c->lock);
        l->closing = false;
        pthread_mutex_unlock(&c->lock);
}

/* On the loop: closes what has no further use; true while something is left
 * that a later look may close. */
static bool sweep(struct bl_conn *c)
{
        usec_t now = bl_now();
        struct link *close_me[LINKS_MAX];
        size_t n = 0;
        bool left = false;

        pthread_mutex_lock(&c->lock);
        for (struct link *l = c->links; l; l = l->next) {
                if (!l->first && !l->retired && l->calls == 0 && now - l->idle_since >= LINK_IDLE)
                        l->retired = true;
                if (l->retired && l->calls == 0 && !l->closing && n < LINKS_MAX)
                        close_me[n++] = l;
                left = left || !l->first || l->retired;
        }
        pthread_mutex_unlock(&c->lock);
        for (size_t i = 0; i < n; i++)
                link_maybe_close(c, close_me[i]);
        return left;
}

static int on_sweep(sd_event_source *s, uint64_t usec, void *userdata)
{
        struct bl_conn *c = userdata;

        (void)usec;
        if (sweep(c) && !c->stopped) {
                (void)sd_event_source_set_time_relative(s, SWEEP);
                (void)sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
        }
        return 0;
}

static void sweep_soon(void *arg, int r)
{
        struct bl_conn *c = arg;

        if (r < 0 || c->stopped)
                return;
        if (sweep(c)) {
                (void)sd_event_source_set_time_relative(c->sweep_timer, SWEEP);
                (void)sd_event_source_set_enabled(c->sweep_timer, SD_EVENT_ONESHOT);
        }
}

/* --- connecting ----------------------------------------------------------------------- */

static void connect_run(void *arg)
{
        struct conn_job *j = arg;
        virConnectPtr conn = open_one(j->c);

        if (!conn) {
                j->r = bl_virt_error(&j->message);
                return;
        }
        j->link = link_new(j->c, conn);
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
                close_run(j);
                free(j->link);
                j->link = NULL;
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
        struct link *l = j->link;

        c->connecting = false;
        if (r == 0)
                r = j->r;
        if (r == 0) {
                pthread_mutex_lock(&c->lock);
                l->retired = c->stopped;
                link_add(c, l);
                c->usable = !c->stopped;
                pthread_mutex_unlock(&c->lock);
                if (c->stopped) {
                        link_maybe_close(c, l);
                } else {
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
        sweep_soon(c, 0);
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
                first = link_first(c);
                pthread_mutex_unlock(&c->lock);
                if (first && first == loss->link)
                        lost(c, loss->reason >= 0 && loss->reason < 4 ? reasons[loss->reason] : reasons[0]);
        }
        free(loss);
}

/* Any thread. */
static void post_loss(struct bl_conn *c, const struct link *l, int reason)
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
        post_loss(l->c, l, reason);
}

void bl_conn_deliver(struct bl_conn *c, const struct bl_virt_event *ev)
{
        if (c->connected && !c->stopped && c->o.handler.event)
                c->o.handler.event(c->o.userdata, ev);
}

/* --- leases ----------------------------------------------------------------------------- */

static void on_overdue(void *userdata, const uint8_t key[BL_UUID_LEN], bool hung)
{
        struct bl_conn *c = userdata;

        pthread_mutex_lock(&c->lock);
        for (struct bl_conn_lease *l = c->leases; l; l = l->next)
                if (hung && l->has_key && !l->overdue && memcmp(l->key, key, BL_UUID_LEN) == 0) {
                        l->overdue = true;
                        l->link->overdue++;
                }
        pthread_mutex_unlock(&c->lock);
        if (!c->stopped && c->o.handler.hung)
                c->o.handler.hung(c->o.userdata, key, hung);
}

/* In a worker, without the lock: one more connection to the same daemon. */
static int open_further(struct bl_conn *c, struct link **ret, char **ret_message)
{
        virConnectPtr conn = open_one(c);
        struct link *l;

        if (!conn)
                return bl_virt_error(ret_message);
        l = link_new(c, conn);
        if (!l) {
                (void)virConnectClose(conn);
                return -ENOMEM;
        }
        *ret = l;
        return 0;
}

int bl_conn_acquire(struct bl_conn *c, const uint8_t *key, struct bl_conn_lease **ret, char **ret_message)
{
        struct bl_conn_lease *lease = calloc(1, sizeof(*lease));
        bool opened = false;
        struct link *l;
        int r = 0;

        if (!lease)
                return -ENOMEM;
        lease->c = c;
        if (key) {
                lease->has_key = true;
                memcpy(lease->key, key, BL_UUID_LEN);
        }

        pthread_mutex_lock(&c->lock);
        if (!c->usable) {
                r = -ENOTCONN;
        } else {
                l = link_pick(c);
                if (!l && c->n_links + c->opening >= LINKS_MAX)
                        r = -EBUSY;
                else if (!l) {
                        c->opening++;
                        pthread_mutex_unlock(&c->lock);
                        r = open_further(c, &l, ret_message);
                        pthread_mutex_lock(&c->lock);
                        c->opening--;
                        if (r == 0) {
                                link_add(c, l);
                                l->retired = !c->usable;
                                opened = true;
                        }
                }
        }
        if (r == 0) {
                l->calls++;
                lease->link = l;
                lease->next = c->leases;
                c->leases = lease;
        }
        pthread_mutex_unlock(&c->lock);

        if (opened)
                (void)bl_pool_post(c->pool, sweep_soon, c);
        if (r < 0) {
                free(lease);
                return r;
        }
        *ret = lease;
        return 0;
}

virConnectPtr bl_conn_lease_get(const struct bl_conn_lease *l)
{
        return l->link->conn;
}

/* With the lock held; a new reference or NULL. */
static virDomainPtr known_find(const struct link *l, const uint8_t uuid[BL_UUID_LEN])
{
        for (const struct known *k = l->known; k; k = k->next)
                if (memcmp(k->uuid, uuid, BL_UUID_LEN) == 0)
                        return virDomainRef(k->dom) == 0 ? k->dom : NULL;
        return NULL;
}

int bl_conn_lease_domain(struct bl_conn_lease *lease, const uint8_t uuid[BL_UUID_LEN], virDomainPtr *ret,
                         char **ret_message)
{
        struct bl_conn *c = lease->c;
        virDomainPtr dom, other;
        struct known *k;

        pthread_mutex_lock(&c->lock);
        dom = known_find(lease->link, uuid);
        pthread_mutex_unlock(&c->lock);
        if (dom) {
                *ret = dom;
                return 0;
        }
        dom = virDomainLookupByUUID(lease->link->conn, uuid);
        if (!dom)
                return bl_virt_error(ret_message);
        k = calloc(1, sizeof(*k));
        if (k && virDomainRef(dom) == 0) {
                k->dom = dom;
                memcpy(k->uuid, uuid, BL_UUID_LEN);
                pthread_mutex_lock(&c->lock);
                other = known_find(lease->link, uuid);
                if (!other) {
                        k->next = lease->link->known;
                        lease->link->known = k;
                        k = NULL;
                }
                pthread_mutex_unlock(&c->lock);
                if (other) {
                        (void)virDomainFree(other);
                        (void)virDomainFree(dom);
                }
        }
        free(k);
        *ret = dom;
        return 0;
}

void bl_conn_lease_forget(struct bl_conn_lease *lease, const uint8_t uuid[BL_UUID_LEN])
{
        struct bl_conn *c = lease->c;
        struct known *k = NULL;

        pthread_mutex_lock(&c->lock);
        for (struct known **p = &lease->link->known; *p; p = &(*p)->next)
                if (memcmp((*p)->uuid, uuid, BL_UUID_LEN) == 0) {
                        k = *p;
                        *p = k->next;
                        break;
                }
        pthread_mutex_unlock(&c->lock);
        if (k)
                (void)virDomainFree(k->dom);
        free(k);
}

void bl_conn_release(struct bl_conn_lease *lease)
{
        struct bl_conn *c = lease->c;
        struct link *l = lease->link;
        bool dead = virConnectIsAlive(l->conn) == 0, close_it, first = l->first;

        pthread_mutex_lock(&c->lock);
        for (struct bl_conn_lease **p = &c->leases; *p; p = &(*p)->next)
                if (*p == lease) {
                        *p = lease->next;
                        break;
                }
        if (lease->overdue)
                l->overdue--;
        l->calls--;
        l->idle_since = bl_now();
        if (dead && !l->first)
                l->retired = true;
        close_it = l->retired && l->calls == 0;
        pthread_mutex_unlock(&c->lock);

        /* only the pointer is compared, so it does not matter if the link goes meanwhile */
        if (dead && first)
                post_loss(c, l, VIR_CONNECT_CLOSE_REASON_ERROR);
        if (close_it)
                (void)bl_pool_post(c->pool, sweep_soon, c);
        free(lease);
}

/* --- life --------------------------------------------------------------------------------- */

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
        c->o.keepalive_s = o->keepalive_s ?: 2;
        c->o.keepalive_count = o->keepalive_count ?: 3;
        c->o.retry_first = o->retry_first ?: 200 * BL_MSEC;
        c->o.retry_max = o->retry_max ?: 5 * BL_SEC;
        c->retry = c->o.retry_first;
        r = sd_event_add_time(e, &c->retry_timer, CLOCK_MONOTONIC, 0, 10 * BL_MSEC, on_retry, c);
        if (r < 0)
                goto fail;
        (void)sd_event_source_set_enabled(c->retry_timer, SD_EVENT_OFF);
        r = sd_event_add_time(e, &c->sweep_timer, CLOCK_MONOTONIC, 0, BL_SEC, on_sweep, c);
        if (r < 0)
                goto fail;
        (void)sd_event_source_set_enabled(c->sweep_timer, SD_EVENT_OFF);
        (void)pthread_mutex_init(&c->lock, NULL);
        c->event = sd_event_ref(e);
        c->pool = pool;
        bl_pool_set_overdue_handler(pool, on_overdue, c);
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
        for (struct link *l = c->links; l; l = l->next)
                l->retired = true;
        pthread_mutex_unlock(&c->lock);
        (void)sweep(c);
}

struct bl_conn *bl_conn_free(struct bl_conn *c)
{
        struct link *l, *next;

        if (!c)
                return NULL;
        bl_conn_stop(c);
        bl_pool_set_overdue_handler(c->pool, NULL, NULL);
        for (l = c->links; l; l = next) {
                next = l->next;
                free(l);
        }
        (void)sd_event_source_disable_unref(c->retry_timer);
        (void)sd_event_source_disable_unref(c->sweep_timer);
        (void)sd_event_unref(c->event);
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

unsigned bl_conn_links(struct bl_conn *c)
{
        unsigned n;

        pthread_mutex_lock(&c->lock);
        n = c->n_links;
        pthread_mutex_unlock(&c->lock);
        return n;
}
