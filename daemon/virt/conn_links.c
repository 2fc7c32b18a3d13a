/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The connections that calls are made on: opening, lending, closing. */
#include <errno.h>
#include <libvirt/virterror.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/util/clock.h"
#include "daemon/virt/conn_private.h"

/* The pool's threads, hung ones included, and some. */
#define LINKS_MAX 300
#define LINK_IDLE (60 * BL_SEC)
#define SWEEP     (20 * BL_SEC)
/* Seconds between probes, and unanswered ones until the connection is lost. */
#define KEEPALIVE_S     2
#define KEEPALIVE_COUNT 3
/* The first one tells for all.  A probe wakes the loop five times, and there are as many further ones as VMs were asked
 * at once: with 8 of them probes were half of what the daemon does at rest.  It is for a call that was under way when
 * libvirt stopped answering. */
#define KEEPALIVE_FURTHER_S 10

/* --- links, with the lock held ---------------------------------------------------- */

struct link *bl_link_new(struct bl_conn *c, virConnectPtr conn)
{
        struct link *l = calloc(1, sizeof(*l));

        if (!l)
                return NULL;
        l->c = c;
        l->conn = conn;
        l->idle_since = bl_now();
        return l;
}

void bl_link_add(struct bl_conn *c, struct link *l)
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

/* The first one last, so that it is idle where others can do. */
static struct link *link_pick(const struct bl_conn *c)
{
        struct link *first = NULL;

        for (struct link *l = c->links; l; l = l->next) {
                if (l->retired || l->busy)
                        continue;
                if (!l->first)
                        return l;
                first = l;
        }
        return first;
}

struct link *bl_link_first(const struct bl_conn *c)
{
        for (struct link *l = c->links; l; l = l->next)
                if (l->first && !l->retired)
                        return l;
        return NULL;
}

/* --- opening and closing, in workers ------------------------------------------------ */

virConnectPtr bl_link_open(const struct bl_conn *c, bool first)
{
        virConnectPtr conn = virConnectOpen(c->uri);

        /* local drivers have none, and need none */
        if (conn && virConnectSetKeepAlive(conn, first ? KEEPALIVE_S : KEEPALIVE_FURTHER_S, KEEPALIVE_COUNT) < 0)
                virResetLastError();
        return conn;
}

/* What libvirt holds for us refers to the connection, so it goes first. */
void bl_link_close(struct link *l)
{
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

static void close_run(void *arg)
{
        bl_link_close(arg);
}

static void close_done(void *arg, int r)
{
        struct link *l = arg;
        struct bl_conn *c = l->c;

        (void)r;
        pthread_mutex_lock(&c->lock);
        link_remove(c, l);
        pthread_mutex_unlock(&c->lock);
        free(l);
}

/* On the loop: closes what has no further use; true while something is left
 * that a later look may close. */
bool bl_links_sweep(struct bl_conn *c)
{
        usec_t now = bl_now();
        struct link *close_me[LINKS_MAX];
        size_t n = 0;
        bool left = false;

        pthread_mutex_lock(&c->lock);
        for (struct link *l = c->links; l; l = l->next) {
                if (!l->first && !l->retired && !l->busy && bl_sub_sat(now, l->idle_since) >= LINK_IDLE)
                        l->retired = true;
                if (l->retired && !l->busy && !l->closing && n < LINKS_MAX) {
                        l->closing = true;
                        close_me[n++] = l;
                }
                left = left || !l->first || l->retired;
        }
        pthread_mutex_unlock(&c->lock);
        for (size_t i = 0; i < n; i++) {
                if (bl_pool_submit(c->pool, NULL, close_run, close_done, close_me[i]) == 0)
                        continue;
                /* the next sweep tries again */
                pthread_mutex_lock(&c->lock);
                close_me[i]->closing = false;
                pthread_mutex_unlock(&c->lock);
        }
        return left;
}

void bl_links_sweep_soon(void *arg, int r)
{
        struct bl_conn *c = arg;

        if (r < 0 || c->stopped)
                return;
        if (bl_links_sweep(c)) {
                (void)sd_event_source_set_time_relative(c->sweep_timer, SWEEP);
                (void)sd_event_source_set_enabled(c->sweep_timer, SD_EVENT_ONESHOT);
        }
}

int bl_links_on_sweep(sd_event_source *s, uint64_t usec, void *userdata)
{
        (void)s;
        (void)usec;
        bl_links_sweep_soon(userdata, 0);
        return 0;
}

/* --- leases ----------------------------------------------------------------------------- */

/* In a worker, without the lock: one more connection to the same daemon. */
static int open_further(struct bl_conn *c, struct link **ret, char **ret_message)
{
        virConnectPtr conn = bl_link_open(c, false);
        struct link *l;

        if (!conn) {
                const int r = bl_virt_error(ret_message);

                /* it is never 0, but clang's analyzer cannot see that from here */
                return r < 0 ? r : -EIO;
        }
        l = bl_link_new(c, conn);
        if (!l) {
                (void)virConnectClose(conn);
                return -ENOMEM;
        }
        *ret = l;
        return 0;
}

int bl_conn_acquire(struct bl_conn *c, struct bl_conn_lease **ret, char **ret_message)
{
        struct bl_conn_lease *lease = calloc(1, sizeof(*lease));
        bool opened = false;
        struct link *l;
        int r = 0;

        if (!lease)
                return -ENOMEM;
        lease->c = c;

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
                                bl_link_add(c, l);
                                l->retired = !c->usable;
                                opened = true;
                        }
                }
        }
        if (r == 0) {
                l->busy = true;
                lease->link = l;
        }
        pthread_mutex_unlock(&c->lock);

        if (opened)
                (void)bl_pool_post(c->pool, bl_links_sweep_soon, c);
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

/* A new reference or NULL. */
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
        struct link *l = lease->link;
        virDomainPtr dom = known_find(l, uuid);
        struct known *k;

        if (dom) {
                *ret = dom;
                return 0;
        }
        dom = virDomainLookupByUUID(l->conn, uuid);
        if (!dom)
                return bl_virt_error(ret_message);
        k = calloc(1, sizeof(*k));
        if (k && virDomainRef(dom) == 0) {
                k->dom = dom;
                memcpy(k->uuid, uuid, BL_UUID_LEN);
                k->next = l->known;
                l->known = BL_TAKE(k);
        }
        free(k);
        *ret = dom;
        return 0;
}

void bl_conn_lease_forget(struct bl_conn_lease *lease, const uint8_t uuid[BL_UUID_LEN])
{
        for (struct known **p = &lease->link->known; *p; p = &(*p)->next)
                if (memcmp((*p)->uuid, uuid, BL_UUID_LEN) == 0) {
                        struct known *k = *p;

                        *p = k->next;
                        (void)virDomainFree(k->dom);
                        free(k);
                        return;
                }
}

void bl_conn_release(struct bl_conn_lease *lease)
{
        struct bl_conn *c = lease->c;
        struct link *l = lease->link;
        bool dead = virConnectIsAlive(l->conn) == 0, close_it, close_here, first = l->first;

        pthread_mutex_lock(&c->lock);
        l->busy = false;
        l->idle_since = bl_now();
        if (dead && !l->first)
                l->retired = true;
        close_it = l->retired;
        close_here = close_it && c->ending && !l->closing;
        l->closing = l->closing || close_here;
        pthread_mutex_unlock(&c->lock);

        /* only the pointer is compared, so it does not matter if the link goes meanwhile */
        if (dead && first)
                bl_conn_post_loss(c, l, VIR_CONNECT_CLOSE_REASON_ERROR);
        if (close_here) {
                bl_link_close(l);
                close_done(l, 0);
        } else if (close_it)
                (void)bl_pool_post(c->pool, bl_links_sweep_soon, c);
        free(lease);
}

unsigned bl_conn_links(struct bl_conn *c)
{
        unsigned n;

        pthread_mutex_lock(&c->lock);
        n = c->n_links;
        pthread_mutex_unlock(&c->lock);
        return n;
}
