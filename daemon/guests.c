// SPDX-License-Identifier: LGPL-2.1-or-later
/* The agents in the guests: connected where the VM has a channel, again when one is lost. */
#include <string.h>

#include "daemon/channel/agent.h"
#include "daemon/channel/virtio_serial.h"
#include "daemon/manager-private.h"
#include "daemon/util/clock.h"

#define RETRY         (5 * BL_SEC)
#define REPORT_PERIOD (1 * BL_SEC)

/* In the order they are tried. */
static const struct bl_transport *const transports[] = {
        &bl_transport_virtio_serial,
};

static void on_hello(struct bl_agent *a, const struct bl_wire_hello *h, void *userdata)
{
        struct bl_guest *g = userdata;
        bool first = !g->agent.hello;

        (void)a;
        g->agent.hello = true;
        (void)snprintf(g->agent.version, sizeof g->agent.version, "%s", h->version);
        (void)snprintf(g->agent.kernel, sizeof g->agent.kernel, "%s", h->kernel);
        if (first)
                bl_log(LOG_INFO, BL_EV_VM, g->name, "agent.hello", "the agent of %s answers: version %s, kernel %s",
                       g->name, g->agent.version, g->agent.kernel);
}

static void on_stats(struct bl_agent *a, const struct bl_guest_stats *s, void *userdata)
{
        struct bl_guest *g = userdata;

        (void)a;
        g->agent_stats = *s;
        /* The balloon's size at the very moment of the report: while it moves,
         * nothing else tells the guest's own use from what it has just given. */
        g->agent_stats.actual = BL_UNSET;
        if (s->ballooned != BL_UNSET && g->desc)
                g->agent_stats.actual = bl_sub_sat(g->desc->live.memory, s->ballooned);
}

static void on_closed(struct bl_agent *a, int error, void *userdata)
{
        struct bl_guest *g = userdata;

        (void)a;
        if (g->agent.hello)
                bl_log(LOG_INFO, BL_EV_VM, g->name, "agent.lost",
                       "the channel to the agent of %s is closed%s%s; its balloon statistics are used", g->name,
                       error ? ": " : "", error ? strerror(-error) : "");
        g->agent.link = bl_agent_free(g->agent.link);
        g->agent.hello = false;
        g->agent.retry_at = bl_now() + RETRY;
}

static const struct bl_agent_handlers handlers = {.hello = on_hello, .stats = on_stats, .closed = on_closed};

void bl_guests_connect(struct bl_guest *g)
{
        usec_t now = bl_now();
        struct bl_agent_address address;

        if (g->agent.link || g->agent.retry_at > now || !g->desc || !g->desc->live.agent_path)
                return;
        g->agent.retry_at = now + RETRY;
        address = (struct bl_agent_address){
                .socket_path = g->desc->live.agent_path,
                .vmm_pid = g->desc->has_instance ? g->desc->instance.pid : 0,
        };
        for (size_t i = 0; i < sizeof transports / sizeof *transports; i++) {
                bool refused;
                int fd, r;

                r = transports[i]->connect(&address, &fd);
                if (r == -ENOTSOCK) {
                        g->agent.retry_at = UINT64_MAX;
                        bl_log(LOG_WARNING, BL_EV_VM, g->name, "agent.not-a-socket",
                               "%s of %s is no socket; its agent is not used", address.socket_path, g->name);
                }
                refused = r == -EACCES || r == -EPERM || r == -ENOSYS;
                if (refused && !g->agent.refused)
                        bl_log(LOG_WARNING, BL_EV_VM, g->name, "agent.refused",
                               "cannot reach the agent of %s at %s: %s; its balloon statistics are used", g->name,
                               address.socket_path, strerror(-r));
                g->agent.refused = refused;
                if (r < 0)
                        continue;
                r = bl_agent_open(g->m->event, fd, &handlers, g, &g->agent.link);
                if (r >= 0) {
                        g->agent.connected_at = now;
                        bl_agent_set_period(g->agent.link, REPORT_PERIOD);
                        return;
                }
        }
}
