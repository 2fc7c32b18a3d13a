// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * VMs that were enrolled with --channel vhost-user-vsock get their device here,
 * live, at each start, and another one when its backend is lost.  Nothing waits for
 * it: until it is there, and where it cannot be, the agent uses virtio-serial.
 */
#include <string.h>

#include "daemon/manager-private.h"
#include "daemon/util/clock.h"
#include "daemon/virt/domain_vsock.h"

#define UNPLUGGING  (1 * BL_SEC)
#define NO_BACKEND  (5 * BL_SEC)
#define NOT_NOW     (60 * BL_SEC)
#define AFTER_LOSS  (500 * BL_MSEC) /* a worker that died has a successor by then */
#define AFTER_START (200 * BL_MSEC)
/* A device whose agent is not heard over it may be dead: nothing else tells. */
#define LOOK_AGAIN (30 * BL_SEC)

static bool wanted(const struct bl_guest *g)
{
        return g->desc && g->desc->live.metadata.channel == BL_CHANNEL_VHOST_USER_VSOCK && g->desc->has_instance;
}

static void rearm(struct bl_manager *m)
{
        usec_t next = UINT64_MAX;

        for (size_t i = 0; i < m->n_guests; i++)
                if (m->guests[i]->attach.due_at && !m->guests[i]->attach.busy)
                        next = bl_min(next, m->guests[i]->attach.due_at);
        if (next == UINT64_MAX) {
                (void)sd_event_source_set_enabled(m->attach_timer, SD_EVENT_OFF);
                return;
        }
        (void)sd_event_source_set_time(m->attach_timer, next);
        (void)sd_event_source_set_enabled(m->attach_timer, SD_EVENT_ONESHOT);
}

static void again_in(struct bl_guest *g, usec_t in)
{
        g->attach.due_at = bl_now() + in;
        rearm(g->m);
}

/* One line a change. */
static void say(struct bl_guest *g, int now, const char *message)
{
        const char *what = NULL;
        int priority = LOG_WARNING;

        if (g->attach.said == now)
                return;
        g->attach.said = now;
        switch (now) {
        case BL_VSOCK_ATTACHED:
        case BL_VSOCK_THERE:
                priority = LOG_INFO;
                what = "has a vhost-user-vsock device for its agent";
                break;
        case BL_VSOCK_UNPLUGGING:
                priority = LOG_INFO;
                what = "lost the backend of its vsock device; it is unplugged, and another one plugged in";
                break;
        case BL_VSOCK_NO_BACKEND:
                what = "cannot have its vsock device: ballast-vsock does not run (systemctl start ballast-vsock)";
                break;
        case BL_VSOCK_NO_ROOM:
                what = "cannot have its vsock device: no free PCI slot to plug it into ('ballastctl enroll' adds a "
                       "root "
                       "port)";
                break;
        case -EMEDIUMTYPE:
                what = "cannot have its vsock device: its memory is no memfd ('ballastctl enroll VM --channel "
                       "vhost-user-vsock --write', then start it anew)";
                break;
        default:
                what = "cannot have its vsock device";
        }
        bl_log(priority, BL_EV_VM, g->name, "vsock.attach", "%s %s%s%s%s", g->name, what, message ? ": " : "",
               message ? message : "", priority == LOG_WARNING ? "; its agent uses virtio-serial" : "");
}

static void on_attached(void *userdata, int r, const char *message, enum bl_vsock_attach a)
{
        struct bl_call *c = userdata;
        struct bl_guest *g = bl_call_guest(c);

        free(c);
        if (!g)
                return;
        g->attach.busy = false;
        if (r < 0) {
                if (r != -ECANCELED && r != -ENOENT) {
                        say(g, r, message ? message : strerror(-r));
                        again_in(g, NO_BACKEND);
                }
                return;
        }
        say(g, (int)a, message);
        switch (a) {
        case BL_VSOCK_ATTACHED:
        case BL_VSOCK_THERE:
                again_in(g, LOOK_AGAIN);
                break;
        case BL_VSOCK_UNPLUGGING:
                again_in(g, UNPLUGGING);
                break;
        case BL_VSOCK_NO_BACKEND:
                again_in(g, NO_BACKEND);
                break;
        case BL_VSOCK_NO_ROOM:
        case BL_VSOCK_FAILED:
                again_in(g, NOT_NOW);
                break;
        }
}

static void attach(struct bl_guest *g)
{
        struct bl_manager *m = g->m;
        struct bl_call *c;
        int r;

        g->attach.due_at = 0;
        if (!wanted(g))
                return;
        if (!g->desc->live.memory_fd) {
                say(g, -EMEDIUMTYPE, NULL);
                return;
        }
        if (bl_guests_called(g)) {
                again_in(g, LOOK_AGAIN);
                return;
        }
        /* a migration would fail for want of a device on the other side */
        if (bl_guest_run(g) == BL_RUN_MIGRATING) {
                again_in(g, NO_BACKEND);
                return;
        }
        c = bl_call_new(g);
        if (!c)
                return;
        r = bl_domain_attach_vsock(m->conn, g->uuid, &g->desc->instance, m->conf->vsock_control, bl_vsock_cid(g->uuid),
                                   on_attached, c);
        if (r < 0) {
                free(c);
                again_in(g, NO_BACKEND);
                return;
        }
        g->attach.busy = g->attach.ours = true;
}

static void on_detached(void *userdata, int r, const char *message)
{
        struct bl_call *c = userdata;
        struct bl_guest *g = bl_call_guest(c);

        (void)r;
        (void)message;
        if (g)
                g->attach.busy = false;
        free(c);
}

void bl_attach_check(struct bl_guest *g)
{
        struct bl_call *c;

        if (wanted(g)) {
                /* described again: only what is not settled is looked at */
                if (!g->attach.ours && !g->attach.busy && !g->attach.due_at)
                        again_in(g, AFTER_START);
                return;
        }
        if (!g->attach.ours || g->attach.busy || !g->desc || !g->desc->has_instance)
                return;
        c = bl_call_new(g);
        if (!c)
                return;
        g->attach = (struct bl_guest_attach){0};
        if (bl_domain_detach_vsock(g->m->conn, g->uuid, &g->desc->instance, on_detached, c) < 0)
                free(c);
        else
                g->attach.busy = true;
}

void bl_attach_lost(struct bl_guest *g)
{
        if (wanted(g) && g->attach.ours && !g->attach.busy)
                again_in(g, AFTER_LOSS);
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
        struct bl_manager *m = userdata;
        usec_t now = bl_now();

        (void)s;
        (void)usec;
        for (size_t i = 0; i < m->n_guests; i++) {
                struct bl_guest *g = m->guests[i];

                if (g->attach.due_at && g->attach.due_at <= now && !g->attach.busy)
                        attach(g);
        }
        rearm(m);
        return 0;
}

int bl_attach_start(struct bl_manager *m)
{
        int r = sd_event_add_time(m->event, &m->attach_timer, CLOCK_MONOTONIC, 0, 20 * BL_MSEC, on_timer, m);

        return r < 0 ? r : sd_event_source_set_enabled(m->attach_timer, SD_EVENT_OFF);
}
