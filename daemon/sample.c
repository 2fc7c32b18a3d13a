// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The fast path: how much of the budget is in use, tens of times a second when
 * that matters.  It reads /proc only and never waits for libvirt or a guest.
 */
#include <string.h>
#include <sys/epoll.h>

#include "daemon/act/pageout.h"
#include "daemon/manager-private.h"
#include "daemon/sense/overhead.h"
#include "daemon/sense/sampler.h"
#include "daemon/util/clock.h"

/* Looking for other controllers reads all of /proc. */
#define CONFLICTS_EVERY (300 * BL_SEC)

/* Pressure is over when no trigger has fired for so long. */
#define PSI_OVER (30 * BL_SEC)

/* A tick at once, but not more often than this, when memory falls. */
#define TICK_AT_MOST_EVERY (20 * BL_MSEC)

#define OVERHEAD_ANYWAY (600 * BL_SEC)

/* So much more free memory is worth a tick while a VM waits for some. */
#define WORTH_A_TICK (8 * BL_MIB)

void bl_sample_host_mem(struct bl_guest *g, usec_t now)
{
        struct bl_proc_mem mem;

        if (!g->resident)
                return;
        if (bl_resident_read(g->resident, &mem) < 0) {
                /* it ended; libvirt will say so in a moment */
                g->resident = bl_resident_free(g->resident);
                g->mem = (struct bl_proc_mem){0};
                g->describe_due = true;
                return;
        }
        g->mem = mem;
        g->mem_at = now;
}

static struct bl_usage add_up(struct bl_manager *m, usec_t now)
{
        struct bl_usage u = {0};

        for (size_t i = 0; i < m->n_guests; i++) {
                struct bl_guest *g = m->guests[i];
                uint64_t bound = BL_UNSET;

                bl_sample_host_mem(g, now);
                if (g->pss.savings > 0 && g->resident)
                        (void)bl_pss_bound(bl_resident_dirfd(g->resident), &bound);
                u.resident = bl_add_sat(u.resident, bl_add_sat(bl_shadow_resident(g), g->mem.hugetlb));
                u.savings = bl_add_sat(u.savings, bl_pss_savings(&g->pss, g->mem.anon, bound));
        }
        /* zeroed pages of it that were never used count too: they are taken */
        u.resident = bl_add_sat(u.resident, bl_swap_host_memory(m));
        /* and what the kernel's tiers take for what was paged out */
        u.resident = bl_add_sat(u.resident, bl_pageout_ram(m->engines[BL_ENGINE_PAGEOUT]));
        return u;
}

/* Would the policy see another world than at its last look? */
static bool matters(const struct bl_manager *m)
{
        const struct bl_marks *marks = &m->plan.marks;
        uint64_t in_a_second = bl_sub_sat(m->host.free, m->host.growth);

        if (!m->planned)
                return false;
        if (bl_state_next(m->plan.state, m->host.free, marks, true) > m->plan.state)
                return true;
        /* what a VM waits for has come free */
        if (m->waiting && m->host.free >= bl_add_sat(m->free_at_tick, WORTH_A_TICK))
                return true;
        return m->host.growth > 0 && in_a_second < marks->mark[BL_STATE_SOFT];
}

/* --- slow calibration, in a worker ---------------------------------------- */

struct calibration {
        struct bl_manager *m;
        uint8_t uuid[BL_UUID_LEN];
        const char *root;
        struct bl_instance inst;
        uint64_t guest_ram; /* 0: its overhead is known already */
        uint64_t bound; /* of the savings, before */
        int r_pss, r_overhead;
        struct bl_pss pss;
        uint64_t overhead;
};

static void calibrate_run(void *arg)
{
        struct calibration *c = arg;
        usec_t begin = bl_now_thread_cpu();

        c->r_pss = bl_pss_measure(c->root, c->inst.pid, c->inst.start, &c->pss);
        if (c->guest_ram > 0)
                c->r_overhead = bl_overhead_measure(c->root, c->inst.pid, c->guest_ram, &c->overhead);
        /* both walk the page tables: the pacing has to pay for both */
        c->pss.cost = bl_now_thread_cpu() - begin;
}

static void calibrate_done(void *arg, int r)
{
        struct calibration *c = arg;
        struct bl_guest *g = bl_manager_find(c->m, c->uuid);
        usec_t now = bl_now();

        c->m->calibrating = false;
        if (g && g->desc && g->desc->has_instance && bl_instance_equal(&g->desc->instance, &c->inst)) {
                if (r < 0 || c->r_pss < 0)
                        bl_pss_failed(&g->pss, now);
                else
                        bl_pss_note(&g->pss, &c->pss, c->bound, c->m->n_guests, now);
                if (r >= 0 && c->guest_ram > 0 && c->r_overhead >= 0) {
                        g->overhead = c->overhead;
                        g->overhead_at = now;
                        g->overhead_anon = c->pss.anon;
                }
        }
        free(c);
}

/* How much of a QEMU is QEMU takes twice as long to find out as what sharing saves, and seldom changes. */
static bool overhead_due(const struct bl_guest *g, usec_t now)
{
        return g->overhead_at == 0 || now - g->overhead_at > OVERHEAD_ANYWAY ||
               bl_distance(g->mem.anon, g->overhead_anon) > g->overhead_anon / 50;
}

static void calibrate_one(struct bl_manager *m, usec_t now)
{
        for (size_t i = 0; i < m->n_guests && !m->calibrating; i++) {
                struct bl_guest *g = m->guests[i];
                struct calibration *c;
                uint64_t bound = BL_UNSET;

                if (!g->desc || !g->desc->has_instance || now < g->pss.next)
                        continue;
                if (g->resident)
                        (void)bl_pss_bound(bl_resident_dirfd(g->resident), &bound);
                if (!bl_pss_due(&g->pss, g->mem.anon, bound, now))
                        continue;
                c = calloc(1, sizeof *c);
                if (!c)
                        return;
                c->m = m;
                c->bound = bound;
                memcpy(c->uuid, g->uuid, BL_UUID_LEN);
                c->root = m->options.root;
                c->inst = g->desc->instance;
                c->guest_ram = overhead_due(g, now) ? bl_guest_max(g) : 0;
                if (bl_pool_submit(m->pool, NULL, calibrate_run, calibrate_done, c) < 0)
                        free(c);
                else
                        m->calibrating = g->pss.busy = true;
        }
}

/* --- sampling ------------------------------------------------------------- */

static void look_for_conflicts(struct bl_manager *m, usec_t now)
{
        struct bl_controller found[BL_CONTROLLERS_MAX];
        int n;

        if (m->conflicts_at && now - m->conflicts_at < CONFLICTS_EVERY)
                return;
        m->conflicts_at = now;
        n = bl_controllers_find(m->options.root, getpid(), found, BL_CONTROLLERS_MAX);
        for (int i = 0; i < n; i++) {
                bool known = false;

                for (size_t k = 0; k < m->n_conflicts; k++)
                        known = known || strcmp(m->conflicts[k].name, found[i].name) == 0;
                if (!known)
                        bl_log(LOG_WARNING, BL_EV_CONFLICT, NULL, "conflict", "%s is at work too: %s", found[i].name,
                               found[i].what);
        }
        m->n_conflicts = n > 0 ? (size_t)n : 0;
        memcpy(m->conflicts, found, m->n_conflicts * sizeof *found);
}

void bl_sample_now(struct bl_manager *m)
{
        usec_t now = bl_now();
        struct bl_usage usage = {0};
        struct bl_host host;

        if (bl_host_needs_usage(m->host_sensor))
                usage = add_up(m, now);
        if (bl_host_sense(m->host_sensor, &usage, now, &host) >= 0)
                m->host = host;
}

static int on_sample(sd_event_source *s, uint64_t usec, void *userdata)
{
        struct bl_manager *m = userdata;
        usec_t now, next;

        (void)usec;
        bl_sample_now(m);
        now = bl_now();
        if (matters(m) && now - m->tick_at >= TICK_AT_MOST_EVERY)
                bl_tick_now(m);
        calibrate_one(m, now);
        look_for_conflicts(m, now);
        next = bl_sample_interval(m->host.free, bl_add_sat(m->plan.marks.mark[BL_STATE_SOFT], m->plan.lead),
                                  m->host.growth, m->conf->sample_min, m->conf->sample_max);
        (void)sd_event_source_set_time(s, bl_now() + next);
        return sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
}

/* --- PSI ------------------------------------------------------------------ */

static void drop_psi(struct bl_manager *m)
{
        m->psi_source = sd_event_source_unref(m->psi_source);
        if (m->psi_fd < 0)
                return;
        (void)close(m->psi_fd);
        m->psi_fd = -1;
        bl_host_psi_lost(m->host_sensor);
}

static int on_psi(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
        struct bl_manager *m = userdata;

        (void)s;
        (void)fd;
        if (revents & EPOLLERR) {
                drop_psi(m);
                bl_log_warning("the kernel's memory pressure trigger is gone, polling instead");
                return 0;
        }
        bl_host_psi_fired(m->host_sensor);
        /* it fires once a window while it lasts: said when it begins */
        if (!m->psi_at || bl_now() - m->psi_at > PSI_OVER)
                bl_manager_note(m, NULL, LOG_NOTICE, BL_EV_STATE, "host.psi", "seen", BL_UNSET, BL_UNSET,
                                "the kernel reports that tasks stall for want of memory");
        m->psi_at = bl_now();
        bl_sample_now(m);
        bl_tick_now(m);
        return 0;
}

static void watch_psi(struct bl_manager *m)
{
        const char *why;
        int r = 0;

        drop_psi(m);
        if (!m->conf->psi)
                return;
        m->psi_fd = r = bl_host_psi_open(m->host_sensor);
        if (m->psi_fd >= 0) {
                r = sd_event_add_io(m->event, &m->psi_source, m->psi_fd, EPOLLPRI, on_psi, m);
                if (r >= 0)
                        return;
                drop_psi(m);
        }
        why = bl_host_psi_why_not(m->host_sensor);
        bl_log(LOG_NOTICE, BL_EV_PLAIN, NULL, "psi.none",
               "no trigger for memory pressure: %s; memory is polled instead", why ? why : strerror(-r));
}

void bl_sample_reconfigure(struct bl_manager *m)
{
        bl_host_sensor_configure(m->host_sensor, m->conf);
        watch_psi(m);
}

int bl_sample_start(struct bl_manager *m)
{
        int r = bl_host_sensor_new(m->options.root, m->conf, &m->host_sensor);

        if (r < 0) {
                bl_log_error("cannot read the host's memory from /proc/meminfo: %s", strerror(-r));
                return r;
        }
        watch_psi(m);
        bl_sample_now(m);
        return sd_event_add_time(m->event, &m->sample_timer, CLOCK_MONOTONIC, 0, 1 * BL_MSEC, on_sample, m);
}
