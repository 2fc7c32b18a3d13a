// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The agents in the guests: connected where the VM has a channel, again when one
 * is lost.  A guest has one link that counts, and at most one newcomer beside
 * it, which takes its place by saying hello: so the agent chooses its way, a
 * dead connection never stands in the way of a live one, and a guest that opens
 * many has two.
 */
#include <string.h>
#include <sys/epoll.h>

#include "daemon/channel/agent.h"
#include "daemon/channel/vhost_user_vsock.h"
#include "daemon/channel/vhost_vsock.h"
#include "daemon/channel/virtio_serial.h"
#include "daemon/manager-private.h"
#include "daemon/util/clock.h"

#define RETRY         (5 * BL_SEC)
#define REPORT_PERIOD (1 * BL_SEC)

/* A guest whose link says nothing for so long is tried by another way too. */
#define SILENT (10 * BL_SEC)

/* Calls of one guest closer together than this are hung up. */
#define CALL_GAP (200 * BL_MSEC)

/* Calls taken per wake-up; the rest waits its turn among the loop's other sources. */
#define CALLS_PER_WAKE 16

/* The tick after a request: at once, but not more often than this. */
#define REQUEST_TICK_GAP (20 * BL_MSEC)

/* A guest that comes and goes is worth so many lines in a while. */
#define SAY_LINES 6
#define SAY_AGAIN (60 * BL_SEC)

/* Those that wait for calls, then those that are tried in this order. */
static const struct bl_transport *const transports[] = {
        &bl_transport_vhost_vsock,
        &bl_transport_vhost_user_vsock,
        &bl_transport_virtio_serial,
};
_Static_assert(sizeof transports / sizeof *transports == BL_TRANSPORTS, "listeners are kept by index");

static void drop(struct bl_guest_link *l)
{
        l->agent = bl_agent_free(l->agent);
        *l = (struct bl_guest_link){0};
}

void bl_guests_drop(struct bl_guest *g)
{
        struct bl_guest_agent *a = &g->agent;

        bl_actions_lost(g);
        drop(&a->link);
        drop(&a->trial);
        a->hello = a->refused = false;
        a->retry_at = a->call_at = 0;
        a->hints = (struct bl_guest_hints){0};
        g->swap.state = BL_UNSET;
        g->agent_stats = (struct bl_guest_stats){0};
        g->request = (struct bl_guest_request){0};
}

const char *bl_guests_channel(const struct bl_guest *g)
{
        return g->agent.hello ? g->agent.link.via->name : NULL;
}

bool bl_guests_called(const struct bl_guest *g)
{
        return g->agent.hello && !g->agent.link.via->connect;
}

/* --- what an agent says ---------------------------------------------------- */

static bool may_say(struct bl_guest *g, usec_t now)
{
        if (now >= g->agent.say_at) {
                g->agent.say_at = now + SAY_AGAIN;
                g->agent.say_left = SAY_LINES;
        }
        if (g->agent.say_left == 0)
                return false;
        g->agent.say_left--;
        return true;
}

static void on_hello(struct bl_agent *a, const struct bl_wire_hello *h, void *userdata)
{
        struct bl_guest *g = userdata;
        struct bl_guest_agent *ga = &g->agent;
        bool first = !ga->hello;
        usec_t now = bl_now();

        if (a == ga->trial.agent) {
                bl_actions_lost(g);
                drop(&ga->link);
                ga->link = ga->trial;
                ga->trial = (struct bl_guest_link){0};
                first = true;
        }
        ga->hello = true;
        ga->features = h->features;
        ga->heard_at = now;
        bl_swap_check(g);
        (void)snprintf(ga->version, sizeof ga->version, "%s", h->version);
        (void)snprintf(ga->kernel, sizeof ga->kernel, "%s", h->kernel);
        if (!first || !may_say(g, now))
                return;
        ga->said = ga->link.via;
        bl_log(LOG_INFO, BL_EV_VM, g->name, "agent.hello", "the agent of %s answers over %s: version %s, kernel %s",
               g->name, ga->link.via->name, ga->version, ga->kernel);
}

static void on_stats(struct bl_agent *a, const struct bl_guest_stats *s, void *userdata)
{
        struct bl_guest *g = userdata;

        if (a != g->agent.link.agent)
                return;
        g->agent.heard_at = s->at;
        g->agent_stats = *s;
        /* The balloon's size at the very moment of the report: while it moves,
         * nothing else tells the guest's own use from what it has just given. */
        g->agent_stats.actual = BL_UNSET;
        if (s->ballooned != BL_UNSET && g->desc)
                g->agent_stats.actual = bl_sub_sat(g->desc->live.memory, s->ballooned);
        bl_swap_stats(g, bl_agent_figures(a));
}

static bool is_alive(const struct bl_guest_request *r, usec_t now)
{
        return r->at > 0 && bl_sub_sat(now, r->at) <= BL_WIRE_REQUEST_LIFE;
}

static void on_request(struct bl_agent *a, const struct bl_wire_request *r, void *userdata)
{
        struct bl_guest *g = userdata;
        struct bl_manager *m = g->m;
        usec_t now = bl_now();

        if (a != g->agent.link.agent)
                return;
        /* that it stalls adds nothing to what it has just asked for */
        if (r->bytes == 0 && is_alive(&g->request, now))
                return;
        g->request = (struct bl_guest_request){
                .at = now,
                .bytes = r->bytes,
                .stop = r->urgency >= BL_URGENCY_STOP,
                .deadline = r->deadline,
        };
        bl_tick_soon(m, bl_sub_sat(bl_add_sat(m->tick_at, REQUEST_TICK_GAP), now));
}

static uint64_t *hint_pages(struct bl_guest_hints *h, uint64_t kind)
{
        switch (kind) {
        case BL_HINT_FREE:
                return &h->free;
        case BL_HINT_INACTIVE_FILE:
                return &h->inactive_file;
        default:
                return &h->file;
        }
}

static void on_hints(struct bl_agent *a, const struct bl_wire_hints *w, void *userdata)
{
        struct bl_guest *g = userdata;
        struct bl_guest_hints *h = &g->agent.hints;
        uint64_t pfn = 0, *pages;
        struct bl_wire_run run;
        size_t pos = 0;

        if (a != g->agent.link.agent)
                return;
        if (h->at == 0 || h->scan != w->scan)
                *h = (struct bl_guest_hints){.scan = w->scan};
        pages = hint_pages(h, w->kind);
        while (bl_wire_run_next(w, &pos, &pfn, &run) > 0) {
                *pages = bl_add_sat(*pages, run.pages);
                h->runs++;
        }
        bl_share_hints(g, w);
        h->at = bl_now();
        h->complete = w->flags & BL_HINTS_LAST;
        h->cut = h->cut || (w->flags & BL_HINTS_CUT);
}

static void on_result(struct bl_agent *a, enum bl_wire_action_kind kind, const struct bl_wire_result *r, void *userdata)
{
        struct bl_guest *g = userdata;

        if (a != g->agent.link.agent)
                return;
        if (kind == BL_ACTION_SWAP_ON || kind == BL_ACTION_SWAP_OFF || kind == BL_ACTION_SWAP_GIVE)
                bl_swap_result(g, kind, r);
        else
                bl_actions_result(g, kind, r);
}

static void on_closed(struct bl_agent *a, int error, void *userdata)
{
        struct bl_guest *g = userdata;
        struct bl_guest_agent *ga = &g->agent;
        usec_t now = bl_now();

        if (a == ga->trial.agent) {
                drop(&ga->trial);
                return;
        }
        if (ga->hello && ga->said == ga->link.via && may_say(g, now))
                bl_log(LOG_INFO, BL_EV_VM, g->name, "agent.lost",
                       "the agent of %s is not heard any more over %s%s%s; its balloon statistics are used until it is",
                       g->name, ga->link.via->name, error ? ": " : "", error ? strerror(-error) : "");
        /* one that called may fall back to a channel where we have to call */
        ga->retry_at = ga->link.via->connect ? now + RETRY : 0;
        bl_actions_lost(g);
        drop(&ga->link);
        ga->hello = false;
        bl_attach_lost(g);
        bl_poll_soon(g, now);
}

static const struct bl_agent_handlers handlers = {
        .hello = on_hello,
        .stats = on_stats,
        .request = on_request,
        .hints = on_hints,
        .result = on_result,
        .closed = on_closed,
};

/* --- connecting ------------------------------------------------------------ */

/* Takes `fd`.  A newcomer takes the place of another newcomer. */
static void take(struct bl_guest *g, const struct bl_transport *via, int fd, usec_t now)
{
        struct bl_guest_link *l = g->agent.link.agent ? &g->agent.trial : &g->agent.link;
        struct bl_guest_link new = {.via = via, .at = now};

        if (bl_agent_open(g->m->event, fd, &handlers, g, &new.agent) < 0)
                return;
        drop(l);
        *l = new;
        bl_agent_set_period(l->agent, REPORT_PERIOD);
}

static void say_refused(struct bl_guest *g, const struct bl_agent_address *address, int r)
{
        bool refused = r == -EACCES || r == -EPERM || r == -ENOSYS;

        if (r == -ENOTSOCK) {
                g->agent.retry_at = UINT64_MAX;
                bl_log(LOG_WARNING, BL_EV_VM, g->name, "agent.not-a-socket",
                       "%s of %s is no socket; its agent is not used", address->socket_path, g->name);
        }
        if (refused && !g->agent.refused)
                bl_log(LOG_WARNING, BL_EV_VM, g->name, "agent.refused",
                       "cannot reach the agent of %s at %s: %s; its balloon statistics are used", g->name,
                       address->socket_path, strerror(-r));
        g->agent.refused = refused;
}

/* Is there need of a way that we have to make ourselves? */
static bool wants_link(const struct bl_guest *g, usec_t now)
{
        const struct bl_guest_agent *a = &g->agent;

        if (!a->link.agent)
                return true;
        return !a->trial.agent && !a->link.via->connect && bl_sub_sat(now, bl_max(a->heard_at, a->link.at)) > SILENT;
}

void bl_guests_connect(struct bl_guest *g)
{
        usec_t now = bl_now();
        struct bl_agent_address address;

        if (g->agent.retry_at > now || !g->desc || !g->desc->live.agent_path || !wants_link(g, now))
                return;
        g->agent.retry_at = now + RETRY;
        address = (struct bl_agent_address){
                .socket_path = g->desc->live.agent_path,
                .vmm_pid = g->desc->has_instance ? g->desc->instance.pid : 0,
        };
        for (size_t i = 0; i < BL_TRANSPORTS; i++) {
                int fd, r;

                if (!transports[i]->connect)
                        continue;
                r = transports[i]->connect(&address, &fd);
                say_refused(g, &address, r);
                if (r < 0)
                        continue;
                take(g, transports[i], fd, now);
                return;
        }
}

/* --- being called ---------------------------------------------------------- */

static struct bl_guest *who(struct bl_manager *m, const struct bl_agent_caller *c)
{
        if (c->has_uuid)
                return bl_manager_find(m, c->uuid);
        for (size_t i = 0; i < m->n_guests && c->cid > 0; i++)
                if (m->guests[i]->desc && m->guests[i]->desc->live.vsock_cid == c->cid)
                        return m->guests[i];
        return NULL;
}

static int on_call(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
        const struct bl_agent_listener *l = userdata;

        (void)s;
        (void)revents;
        for (int i = 0; i < CALLS_PER_WAKE; i++) {
                _cleanup_close_ int call = -1;
                struct bl_agent_caller caller = {0};
                usec_t now = bl_now();
                struct bl_guest *g;
                int r = l->via->accept(fd, &caller, &call);

                if (r == -EPERM)
                        continue;
                if (r < 0)
                        break;
                g = who(l->m, &caller);
                /* of nobody that we know (yet): its agent tries again */
                if (!g || now < bl_add_sat(g->agent.call_at, CALL_GAP))
                        continue;
                g->agent.call_at = now;
                take(g, l->via, bl_take_fd(&call), now);
        }
        return 0;
}

static int listen_for(struct bl_manager *m, size_t i)
{
        struct bl_agent_listener *l = &m->listeners[i];
        _cleanup_close_ int fd = -1;
        char place[PATH_MAX];
        int r;

        (void)snprintf(place, sizeof place, "%s/" BL_VHOST_USER_VSOCK_SOCKET, m->conf->runtime_dir);
        r = transports[i]->listen(place, &fd);
        if (r == -EAFNOSUPPORT || r == -ENODEV)
                return 0;
        if (r < 0) {
                bl_log_warning("cannot wait for agents over %s, ignoring: %s", transports[i]->name, strerror(-r));
                return 0;
        }
        *l = (struct bl_agent_listener){.m = m, .via = transports[i]};
        r = sd_event_add_io(m->event, &l->source, fd, EPOLLIN, on_call, l);
        if (r < 0)
                return r;
        (void)sd_event_source_set_io_fd_own(l->source, 1);
        /* a guest that does nothing but call costs no more than this */
        (void)sd_event_source_set_ratelimit(l->source, BL_SEC, 100);
        bl_take_fd(&fd);
        return 0;
}

int bl_guests_start(struct bl_manager *m)
{
        int r = 0;

        for (size_t i = 0; i < BL_TRANSPORTS && r >= 0; i++)
                if (transports[i]->listen)
                        r = listen_for(m, i);
        return r;
}

void bl_guests_stop(struct bl_manager *m)
{
        for (size_t i = 0; i < BL_TRANSPORTS; i++)
                m->listeners[i].source = sd_event_source_disable_unref(m->listeners[i].source);
}

/* --- what a guest is told --------------------------------------------------- */

void bl_guests_tell(struct bl_guest *g)
{
        struct bl_wire_entitlement e;

        if (!g->agent.hello)
                return;
        bl_wire_entitlement_init(&e);
        e.v[BL_GRANT_MAX] = bl_guest_max(g);
        e.v[BL_GRANT_LIMIT] = bl_guest_limit(g);
        e.v[BL_GRANT_RESERVATION] = bl_guest_reservation(g);
        e.v[BL_GRANT_SHARES] = bl_guest_shares(g);
        e.v[BL_GRANT_TARGET] = bl_guest_target(g);
        e.v[BL_GRANT_ACTUAL] = bl_guest_actual(g);
        /* in MiB, or it would be news each second */
        e.v[BL_GRANT_RESIDENT] = bl_proc_mem_resident(&g->mem) / BL_MIB * BL_MIB;
        e.v[BL_GRANT_SWAPPED] = g->mem.swap;
        e.v[BL_GRANT_SHARED] = g->pss.savings / BL_MIB * BL_MIB;
        e.v[BL_GRANT_STATE] = g->m->plan.state;
        if (g->swap.seen) {
                e.v[BL_GRANT_COMPRESSED] = g->swap.held.stored / BL_MIB * BL_MIB;
                e.v[BL_GRANT_STORE_HELD] = g->swap.held.held / BL_MIB * BL_MIB;
                e.v[BL_GRANT_STORE_ROOM] = bl_swap_room_left(g) / BL_MIB * BL_MIB;
        }
        e.v[BL_GRANT_MANAGED] = bl_guest_managed(g) && bl_manager_acting(g->m);
        bl_agent_set_entitlement(g->agent.link.agent, &e);
}
