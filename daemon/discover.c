// SPDX-License-Identifier: LGPL-2.1-or-later
/* Which VMs there are, and what they are. */
#include <string.h>

#include "daemon/act/balloon.h"
#include "daemon/manager-private.h"
#include "daemon/util/clock.h"
#include "daemon/util/size.h"

/* After libvirt did not list its VMs. */
#define LIST_RETRY (1 * BL_SEC)

/* An event is milliseconds behind an answer, more on a busy host. */
#define EVENT_WAIT (5 * BL_SEC)

/* How often a VM's process is looked for before it is taken to have none. */
#define LOOK_FOR_PROCESS 5

static struct bl_guest *add_guest(struct bl_manager *m, const uint8_t uuid[BL_UUID_LEN], const char *name)
{
        struct bl_guest *g = bl_manager_find(m, uuid);
        struct bl_guest **bigger;
        size_t at = 0;

        if (g)
                return g;
        bigger = reallocarray(m->guests, m->n_guests + 1, sizeof *bigger);
        if (!bigger)
                return NULL;
        m->guests = bigger;
        if (bl_guest_new(m, uuid, name, &g) < 0)
                return NULL;
        while (at < m->n_guests && memcmp(m->guests[at]->uuid, uuid, BL_UUID_LEN) < 0)
                at++;
        memmove(&m->guests[at + 1], &m->guests[at], (m->n_guests - at) * sizeof *m->guests);
        m->guests[at] = g;
        m->n_guests++;
        bl_share_newcomer(m);
        return g;
}

void bl_discover_forget(struct bl_guest *g, enum bl_departure how)
{
        struct bl_manager *m = g->m;

        /* A saved VM comes back with its balloon as it is, so its record stays. */
        if (how != BL_DEPARTURE_SAVED) {
                bl_ledger_gone(m->ledger, g->uuid, how == BL_DEPARTURE_OFF);
                (void)bl_manager_save(m, false);
        }
        (void)bl_balloon_set_instance(m->balloon, g->uuid, NULL);
        for (size_t i = 0; i < m->n_guests; i++)
                if (m->guests[i] == g) {
                        memmove(&m->guests[i], &m->guests[i + 1], (m->n_guests - i - 1) * sizeof *m->guests);
                        m->n_guests--;
                        break;
                }
        bl_guest_free(g);
        bl_host_growth_forget(m->host_sensor);
        bl_tick_soon(m, 0);
}

void bl_discover_not_there(struct bl_guest *g)
{
        usec_t now = bl_now();

        if (g->not_there_at == 0)
                g->not_there_at = now;
        if (now - g->not_there_at < EVENT_WAIT)
                return;
        bl_manager_note(g->m, g, LOG_INFO, BL_EV_VM, "vm.gone", "seen", BL_UNSET, BL_UNSET,
                        "%s ended; libvirt did not say how", g->name);
        /* it may have been saved, balloon included */
        bl_discover_forget(g, BL_DEPARTURE_SAVED);
}

/* --- what a VM is -------------------------------------------------------- */

static void on_period(void *userdata, int r, const char *message)
{
        struct bl_call *c = userdata;
        struct bl_guest *g = bl_call_guest(c);

        if (g && r < 0 && r != -ECANCELED && r != -ENOTCONN && r != -ENOENT)
                bl_log(LOG_WARNING, BL_EV_PLAIN, g->name, "stats.period",
                       "cannot set the balloon statistics period of %s: %s; without statistics it is not shrunk",
                       g->name, message ? message : strerror(-r));
        free(c);
}

/* A VM that is not looked after (any more) has the period that it had. */
static void put_period_back(struct bl_guest *g)
{
        const struct bl_ledger_vm *record = bl_ledger_find(g->m->ledger, g->uuid);

        if (!record || record->original_period < 0)
                return;
        if (bl_balloon_undo_period(g->m->balloon, g->uuid) >= 0)
                g->desc->live.stats_period = (unsigned)record->original_period;
        else
                g->describe_due = true;
}

/* Statistics are off until somebody sets a period: we do, live, and remember
 * what it was.  Not before the ledger was told which process this is (poll.c),
 * or that would void the record. */
void bl_discover_period(struct bl_guest *g)
{
        unsigned want = (unsigned)((g->m->conf->stats_period + BL_SEC - 1) / BL_SEC);
        unsigned now = g->desc->live.stats_period;
        struct bl_call *c;
        int r;

        if (!g->watching || !g->desc->live.balloon || bl_ledger_rollback(g->m->ledger) != BL_ROLLBACK_NONE)
                return;
        if (want == 0 || !bl_guest_managed(g)) {
                put_period_back(g);
                return;
        }
        if (now == want)
                return;
        c = bl_call_new(g);
        if (!c)
                return;
        r = bl_balloon_set_period(g->m->balloon, g->uuid, g->name, now, want, on_period, c);
        if (r < 0)
                free(c);
        else
                g->desc->live.stats_period = want;
        /* the one before has not been answered */
        if (r == -EBUSY)
                g->describe_due = true;
}

static void say_what_it_is(struct bl_guest *g, const struct bl_domain_desc *before)
{
        enum bl_no_reclaim why = bl_domain_info_no_reclaim(&g->desc->live);
        const char *error = g->desc->live.metadata_error;

        if (why != BL_RECLAIM_OK && (!before || bl_domain_info_no_reclaim(&before->live) != why))
                bl_manager_note(g->m, g, LOG_NOTICE, BL_EV_NOT_RECLAIMABLE, "vm.not-reclaimable", "seen", BL_UNSET,
                                BL_UNSET, "%s cannot give memory back: %s", g->name, bl_no_reclaim_explain(why));
        if (error && (!before || !before->live.metadata_error || strcmp(before->live.metadata_error, error) != 0))
                bl_manager_note(g->m, g, LOG_WARNING, BL_EV_CONFIG, "vm.metadata", "seen", BL_UNSET, BL_UNSET,
                                "the settings in the metadata of %s are not used, and it is left alone: %s", g->name,
                                error);
}

static struct bl_watch_traits traits_of(const struct bl_domain_desc *d)
{
        return (struct bl_watch_traits){
                .max = d->live.memory,
                .boot_size = d->persistent ? d->config.current : BL_UNSET,
                .autodeflate = d->live.autodeflate,
        };
}

/* A process that we have not met: forget what the last one said. */
static void begin_instance(struct bl_guest *g)
{
        struct bl_watch_traits t = traits_of(g->desc);
        const struct bl_instance *inst = g->desc->has_instance ? &g->desc->instance : NULL;
        int r = -ESRCH;

        g->resident = bl_resident_free(g->resident);
        g->mem = (struct bl_proc_mem){0};
        g->pss = (struct bl_pss_pace){0};
        g->overhead_at = 0;
        g->balloon_stats = (struct bl_guest_stats){0};
        g->actual_at = 0;
        g->target_at = 0;
        g->oom_deflate = false;
        g->watching = false;
        g->restoring = false;
        bl_guests_drop(g);
        bl_swap_forget(g);
        bl_share_forget(g);
        g->shadow = (struct bl_guest_shadow){0};
        g->attach = (struct bl_guest_attach){.busy = g->attach.busy, .said = -1};
        bl_watch_init(&g->watch, &t, 0);
        if (g->run == BL_RUN_PAUSED)
                bl_watch_life(&g->watch, BL_WATCH_LIFE_PAUSED, bl_now());
        if (inst) {
                g->booted_at = bl_instance_started_at(inst);
                r = bl_resident_open(g->m->options.root, inst->pid, inst->start, &g->resident);
        } else {
                g->booted_at = bl_now();
        }
        if (r < 0)
                bl_log(LOG_WARNING, BL_EV_VM, g->name, "vm.no-process",
                       "the process of %s is not found (%s/%s.pid): its memory is not counted, so it is left alone",
                       g->name, g->m->conf->libvirt_run_dir, g->name);
        (void)bl_balloon_set_instance(g->m->balloon, g->uuid, inst);
        bl_host_growth_forget(g->m->host_sensor);
        bl_sample_host_mem(g, bl_now());
}

static void take_name(struct bl_guest *g)
{
        char *name = strcmp(g->name, g->desc->live.name) == 0 ? NULL : strdup(g->desc->live.name);

        if (!name)
                return;
        free(g->name);
        g->name = name;
}

/* Reading it failed once (sample.c), or opening it did. */
static void count_again(struct bl_guest *g)
{
        const struct bl_instance *inst = &g->desc->instance;

        if (g->resident)
                bl_resident_refresh(g->resident); /* memory may have been plugged in */
        else if (g->desc->has_instance)
                (void)bl_resident_open(g->m->options.root, inst->pid, inst->start, &g->resident);
}

static bool same_process(const struct bl_domain_desc *a, const struct bl_domain_desc *b)
{
        return a && a->has_instance == b->has_instance &&
               (!a->has_instance || bl_instance_equal(&a->instance, &b->instance));
}

static void on_described(void *userdata, int r, const char *message, struct bl_domain_desc *d)
{
        struct bl_call *c = userdata;
        struct bl_guest *g = bl_call_guest(c);
        _cleanup_(bl_domain_desc_freep) struct bl_domain_desc *before = NULL, *now = d;

        free(c);
        if (!g)
                return;
        g->describing = false;
        if (r == -ENOENT || (r >= 0 && now->live.id < 0)) {
                g->describe_due = true;
                bl_discover_not_there(g);
                return;
        }
        if (r < 0) {
                bool said = g->describe_failed;

                g->describe_due = true;
                g->describe_failed = r != -ECANCELED && r != -ENOTCONN;
                if (g->describe_failed && !said)
                        bl_log(LOG_WARNING, BL_EV_VM, g->name, "vm.not-described",
                               "libvirt does not say what %s is, trying again: %s", g->name,
                               message ? message : strerror(-r));
                return; /* poll.c asks again */
        }
        before = BL_TAKE(g->desc);
        g->desc = BL_TAKE(now);
        g->describe_failed = false;
        g->not_there_at = 0;
        take_name(g);
        /* its file may be a moment behind libvirt's event */
        g->looked_for_process = g->desc->has_instance ? 0 : g->looked_for_process + 1;
        g->describe_due = !g->desc->has_instance && g->looked_for_process < LOOK_FOR_PROCESS;
        if (!same_process(before, g->desc)) {
                begin_instance(g);
        } else {
                struct bl_watch_traits t = traits_of(g->desc);

                bl_watch_traits_set(&g->watch, &t);
                count_again(g);
        }
        say_what_it_is(g, before);
        bl_discover_period(g);
        bl_attach_check(g);
        bl_swap_check(g);
        bl_share_check(g);
        bl_guests_connect(g);
        bl_poll_soon(g, 0);
        if (g->describe_again) {
                g->describe_again = false;
                bl_discover_describe(g);
        }
}

void bl_discover_describe(struct bl_guest *g)
{
        struct bl_call *c;

        if (g->describing) {
                g->describe_again = true;
                return;
        }
        g->describe_due = true;
        c = bl_call_new(g);
        if (!c)
                return;
        if (bl_domain_describe(g->m->conn, g->uuid, g->m->conf->libvirt_run_dir, on_described, c) < 0) {
                free(c);
                return;
        }
        g->describing = true;
        g->describe_due = false;
}

/* --- which VMs there are ------------------------------------------------- */

static void list_later(struct bl_manager *m, usec_t in)
{
        m->list_at = bl_now() + in;
        bl_poll_rearm(m);
}

static void on_list(void *userdata, int r, const char *message, const struct bl_domain_ref *refs, size_t n)
{
        struct bl_manager *m = userdata;

        m->listing = false;
        if (r < 0) {
                if (r != -ECANCELED && r != -ENOTCONN)
                        bl_log(LOG_WARNING, BL_EV_LIBVIRT, NULL, "libvirt.list", "libvirt does not list the VMs: %s",
                               message ? message : strerror(-r));
                /* the connection of before may have been asked, and another be there by now */
                if (m->connected)
                        list_later(m, m->list_again ? 0 : LIST_RETRY);
                m->list_again = false;
                return;
        }
        m->listed = true;
        for (size_t i = 0; i < n; i++) {
                struct bl_guest *g = add_guest(m, refs[i].uuid, refs[i].name);

                if (!g)
                        continue;
                g->seen = true;
                bl_discover_describe(g);
        }
        for (size_t i = m->n_guests; i-- > 0;)
                if (!m->guests[i]->seen) {
                        bl_manager_note(m, m->guests[i], LOG_INFO, BL_EV_VM, "vm.gone", "seen", BL_UNSET, BL_UNSET,
                                        "%s ended while libvirt was away", m->guests[i]->name);
                        /* it may have been saved, balloon included */
                        bl_discover_forget(m->guests[i], BL_DEPARTURE_SAVED);
                }
        if (m->list_again) {
                m->list_again = false;
                bl_discover_all(m);
        }
}

void bl_discover_all(struct bl_manager *m)
{
        if (m->listing) {
                m->list_again = true;
                return;
        }
        /* one that starts while libvirt makes the list is not in it */
        for (size_t i = 0; i < m->n_guests; i++)
                m->guests[i]->seen = false;
        m->list_at = 0;
        m->listing = bl_domain_list(m->conn, on_list, m) >= 0;
        if (!m->listing)
                list_later(m, LIST_RETRY);
}

/* --- events -------------------------------------------------------------- */

static void on_started(struct bl_manager *m, const struct bl_virt_event *ev)
{
        struct bl_guest *g = add_guest(m, ev->uuid, ev->name);

        if (!g)
                return;
        g->seen = true;
        g->looked_for_process = 0;
        switch (ev->detail) {
        case VIR_DOMAIN_EVENT_STARTED_BOOTED:
                g->birth = BL_BIRTH_BOOTED;
                break;
        case VIR_DOMAIN_EVENT_STARTED_MIGRATED:
        case VIR_DOMAIN_EVENT_STARTED_RESTORED:
        case VIR_DOMAIN_EVENT_STARTED_FROM_SNAPSHOT:
                g->birth = BL_BIRTH_MOVED;
                break;
        default:
                g->birth = BL_BIRTH_SEEN;
        }
        bl_manager_note(m, g, LOG_INFO, BL_EV_VM, "vm.started", "seen", BL_UNSET, BL_UNSET, "%s %s", g->name,
                        g->birth == BL_BIRTH_MOVED ? "was restored or migrated in" : "started");
        bl_discover_describe(g);
}

static void on_stopped(struct bl_guest *g, int detail)
{
        bool saved = detail == VIR_DOMAIN_EVENT_STOPPED_SAVED;
        /* a snapshot that it goes back to may have its balloon as we left it; the ledger judges that */
        bool kept = saved || detail == VIR_DOMAIN_EVENT_STOPPED_FROM_SNAPSHOT;
        struct bl_manager *m = g->m;

        bl_manager_note(m, g, LOG_INFO, BL_EV_VM, "vm.stopped", "seen", BL_UNSET, BL_UNSET, "%s %s", g->name,
                        saved                                         ? "was saved"
                        : detail == VIR_DOMAIN_EVENT_STOPPED_MIGRATED ? "was migrated away"
                        : detail == VIR_DOMAIN_EVENT_STOPPED_CRASHED  ? "crashed"
                                                                      : "stopped");
        bl_discover_forget(g, kept ? BL_DEPARTURE_SAVED : BL_DEPARTURE_OFF);
}

static void on_reset(struct bl_guest *g)
{
        usec_t now = bl_now();

        bl_watch_life(&g->watch, BL_WATCH_LIFE_RESET, now);
        g->booted_at = now;
        g->balloon_stats = g->agent_stats = (struct bl_guest_stats){0};
        bl_share_evidence_forget(g);
        bl_manager_note(g->m, g, LOG_INFO, BL_EV_REBOOT, "vm.reboot", "seen", BL_UNSET, BL_UNSET,
                        "%s rebooted; what was learned of it is forgotten", g->name);
        bl_poll_soon(g, 0);
}

void bl_discover_run(struct bl_guest *g, enum bl_vm_run run)
{
        if (g->run == run)
                return;
        g->run = run;
        bl_watch_life(&g->watch, run == BL_RUN_PAUSED ? BL_WATCH_LIFE_PAUSED : BL_WATCH_LIFE_RESUMED, bl_now());
        bl_poll_soon(g, 0);
        bl_tick_soon(g->m, 0);
}

void bl_discover_event(struct bl_manager *m, const struct bl_virt_event *ev)
{
        struct bl_guest *g = bl_manager_find(m, ev->uuid);

        if (ev->kind == BL_VIRT_STARTED) {
                on_started(m, ev);
                return;
        }
        if (!g) {
                /* whoever defines it again does not mean the old one's hold; a new name is no new VM */
                if (ev->kind == BL_VIRT_UNDEFINED && ev->detail == VIR_DOMAIN_EVENT_UNDEFINED_REMOVED) {
                        bl_ledger_gone(m->ledger, ev->uuid, false);
                        (void)bl_manager_save(m, false);
                }
                return;
        }
        switch (ev->kind) {
        case BL_VIRT_STOPPED:
                on_stopped(g, ev->detail);
                break;
        case BL_VIRT_SUSPENDED:
                bl_discover_run(g, BL_RUN_PAUSED);
                break;
        case BL_VIRT_RESUMED:
                bl_discover_run(g, BL_RUN_RUNNING);
                break;
        case BL_VIRT_REBOOT:
                on_reset(g);
                break;
        case BL_VIRT_BALLOON:
                bl_poll_balloon_seen(g, ev->actual, bl_now());
                break;
        case BL_VIRT_MIGRATION:
                if (g->desc)
                        g->desc->migrating = true;
                break;
        case BL_VIRT_DEFINED:
        case BL_VIRT_UNDEFINED:
        case BL_VIRT_METADATA:
        case BL_VIRT_DEVICE_ADDED:
        case BL_VIRT_DEVICE_REMOVED:
        case BL_VIRT_TUNABLE:
        case BL_VIRT_JOB_DONE:
                bl_discover_describe(g);
                break;
        case BL_VIRT_STARTED:
        case BL_VIRT_OTHER:
        case _BL_VIRT_EVENT_MAX:
                break;
        }
}
