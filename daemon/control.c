// SPDX-License-Identifier: LGPL-2.1-or-later
/* What an administrator may change. */
#include "daemon/control.h"

#include <string.h>

#include "daemon/act/balloon.h"
#include "daemon/manager-private.h"
#include "daemon/util/clock.h"
#include "daemon/util/size.h"

static const char not_written[] = "it is so now, but could not be written down for a restart";

static struct bl_guest *find_or_say(struct bl_manager *m, const char *vm, bl_done_fn done, void *userdata)
{
        struct bl_guest *g = bl_manager_find_named(m, vm);
        char message[160];

        if (!g) {
                (void)snprintf(message, sizeof message,
                               "no running VM is called '%s'; 'ballastctl list' shows those there are", vm);
                done(userdata, -ENOENT, message);
        }
        return g;
}

/* --- set ------------------------------------------------------------------- */

struct set_call {
        struct bl_manager *m;
        uint8_t uuid[BL_UUID_LEN];
        bl_done_fn done;
        void *userdata;
};

static void on_metadata(void *userdata, int r, const char *message)
{
        struct set_call *c = userdata;
        struct bl_guest *g = bl_manager_find(c->m, c->uuid);

        if (r >= 0 && g) {
                /* the event would tell, too, but a moment later */
                bl_discover_describe(g);
                bl_manager_note(c->m, g, LOG_INFO, BL_EV_ADMIN, "admin.set", "done", BL_UNSET, BL_UNSET,
                                "the settings of %s were changed", g->name);
        }
        c->done(c->userdata, r, message);
        free(c);
}

/* A sentence, or NULL when the settings can be had together. */
static const char *contradiction(const struct bl_guest *g, const struct bl_vm_settings *s)
{
        uint64_t max = bl_guest_max(g);
        uint64_t limit = s->limit == BL_UNSET ? bl_guest_limit(g) : s->limit;

        if (s->limit != BL_UNSET && s->limit > max)
                return "the limit is above the VM's <memory>; raise that first";
        if (s->limit != BL_UNSET && s->limit == 0)
                return "a limit of 0 leaves the VM no memory";
        if (s->reservation != BL_UNSET && s->reservation > limit)
                return "the reservation is above the VM's limit; raise the limit first";
        if (s->reservation == BL_UNSET && bl_guest_reservation(g) > limit)
                return "the limit is below the VM's reservation; lower the reservation first";
        if (s->shares == 0)
                return "0 shares leave the VM nothing; the least is 1";
        return NULL;
}

void bl_control_set_vm(struct bl_manager *m, const char *vm, const struct bl_vm_settings *s, bool live, bool persistent,
                       bl_done_fn done, void *userdata)
{
        struct bl_guest *g = find_or_say(m, vm, done, userdata);
        struct bl_vm_metadata meta = BL_VM_METADATA_NONE;
        struct set_call *c;
        const char *wrong;
        int r;

        if (!g)
                return;
        if (!g->desc) {
                done(userdata, -EAGAIN, "libvirt has not described the VM yet; try again in a moment");
                return;
        }
        wrong = contradiction(g, s);
        if (wrong) {
                done(userdata, -ERANGE, wrong);
                return;
        }
        if (persistent && !g->desc->persistent) {
                done(userdata, -EOPNOTSUPP, "the VM is transient and has no persistent settings; use --live");
                return;
        }
        meta.reservation = s->reservation;
        meta.limit = s->limit;
        meta.manage = s->managed;
        meta.sharing = s->sharing;
        memcpy(meta.group, s->group, sizeof meta.group);
        if (s->shares != BL_UNSET) {
                meta.shares_kind = BL_SHARES_KIND_NUMBER;
                meta.shares = s->shares;
        }
        c = malloc(sizeof *c);
        if (!c) {
                done(userdata, -ENOMEM, "out of memory");
                return;
        }
        *c = (struct set_call){.m = m, .done = done, .userdata = userdata};
        memcpy(c->uuid, g->uuid, BL_UUID_LEN);
        r = bl_domain_set_metadata(m->conn, g->uuid, &meta, live, persistent, on_metadata, c);
        if (r < 0) {
                free(c);
                done(userdata, r, r == -EHOSTDOWN ? "the VM does not answer libvirt" : strerror(-r));
        }
}

/* --- balloon, hold, release -------------------------------------------------- */

static int hold_guest(struct bl_guest *g, enum bl_hold hold, const char *why)
{
        int r = bl_ledger_add(g->m->ledger, g->uuid, g->name, NULL);

        return r < 0 ? r : bl_ledger_set_hold(g->m->ledger, g->uuid, hold, why, bl_now_wall());
}

/* Why a command by hand would come to nothing now; NULL: it would not. */
static const char *no_command_now(struct bl_manager *m, const struct bl_vm *v, int *ret_r)
{
        *ret_r = -EBUSY;
        if (bl_rollback_running(m))
                return "a rollback is running and would undo it; 'ballastctl status' shows how far it is";
        if (v->in_flight)
                return "a command to the VM is under way; try again in a moment";
        *ret_r = -ENOTCONN;
        if (!m->connected)
                return "libvirt is not connected; try again when it is";
        *ret_r = -EHOSTDOWN;
        if (v->hung)
                return "the VM does not answer libvirt";
        *ret_r = -ESTALE;
        if (v->run != BL_RUN_RUNNING)
                return "the VM is paused or being migrated; its balloon cannot move now";
        *ret_r = 0;
        return NULL;
}

/* Held first, so that no tick and no later daemon takes it back; not held for
 * a command that was not given. */
static int command_by_hand(struct bl_guest *g, const struct bl_vm *v, uint64_t to)
{
        struct bl_manager *m = g->m;
        const struct bl_ledger_vm *record = bl_ledger_find(m->ledger, g->uuid);
        enum bl_hold was = record ? record->hold : BL_HOLD_NONE;
        _cleanup_free_ char *why = record && record->hold_reason ? strdup(record->hold_reason) : NULL;
        int r = 0;

        /* one that "ballastctl hold" made outlives the VM's process, and is not weakened */
        if (was != BL_HOLD_ADMIN)
                r = hold_guest(g, BL_HOLD_MANUAL, "its balloon was set with ballastctl balloon");
        if (r >= 0)
                r = bl_manager_save(m, true);
        if (r >= 0)
                r = bl_balloon_set_by_hand(m->balloon, v, to);
        if (r < 0 && was != BL_HOLD_ADMIN) {
                (void)hold_guest(g, was, why);
                (void)bl_manager_save(m, true);
        }
        return r;
}

void bl_control_balloon(struct bl_manager *m, const char *vm, uint64_t bytes, bool take, bl_done_fn done,
                        void *userdata)
{
        struct bl_guest *g = find_or_say(m, vm, done, userdata);
        struct bl_vm v;
        char size[32], message[200];
        const char *why_not;
        uint64_t to;
        int r;

        if (!g)
                return;
        if (!bl_guest_to_vm(g, bl_now(), &v)) {
                done(userdata, -EAGAIN, "the VM's balloon is not known yet; try again in a moment");
                return;
        }
        v.name = g->name;
        if (v.no_reclaim != BL_RECLAIM_OK) {
                (void)snprintf(message, sizeof message, "%s cannot give memory back: %s", g->name,
                               bl_no_reclaim_explain(v.no_reclaim));
                done(userdata, -EOPNOTSUPP, message);
                return;
        }
        to = take ? bl_sub_sat(v.actual, bytes) : bytes;
        if (to > v.max) {
                done(userdata, -ERANGE, "that is more than the VM's <memory>");
                return;
        }
        if (to < 64 * BL_MIB) {
                done(userdata, -ERANGE, "that leaves the VM less than 64 MiB, with which it would not live");
                return;
        }
        why_not = no_command_now(m, &v, &r);
        if (!why_not)
                r = command_by_hand(g, &v, to);
        if (r < 0) {
                done(userdata, r, why_not ? why_not : strerror(-r));
                return;
        }
        (void)snprintf(message, sizeof message,
                       "%s is told to go to %s, and held there; 'ballastctl release %s' ends that", g->name,
                       bl_size_format(to, size, sizeof size), g->name);
        done(userdata, 0, message);
}

void bl_control_hold(struct bl_manager *m, const char *vm, bool hold, bl_done_fn done, void *userdata)
{
        struct bl_guest *g = NULL;
        int r = 0;

        if (vm && *vm) {
                g = find_or_say(m, vm, done, userdata);
                if (!g)
                        return;
                r = hold_guest(g, hold ? BL_HOLD_ADMIN : BL_HOLD_NONE, hold ? "ballastctl hold" : NULL);
                if (r < 0) {
                        done(userdata, r, NULL);
                        return;
                }
        } else {
                bl_ledger_set_held(m->ledger, hold);
        }
        r = bl_manager_save(m, true);
        if (r >= 0)
                bl_manager_note(m, g, LOG_NOTICE, BL_EV_ADMIN, hold ? "admin.hold" : "admin.release", "done", BL_UNSET,
                                BL_UNSET, "%s %s", g ? g->name : "all automatic action",
                                hold ? "is held" : "is released");
        bl_manager_notify_status(m);
        bl_tick_soon(m, 0);
        done(userdata, r, r < 0 ? not_written : NULL);
}

void bl_control_act(struct bl_manager *m, bool on, bl_done_fn done, void *userdata)
{
        enum bl_ledger_rollback rollback = bl_ledger_rollback(m->ledger);
        size_t left = rollback == BL_ROLLBACK_RUNNING ? bl_rollback_left(m) : 0;
        char message[160] = "";
        int r;

        bl_ledger_set_act(m->ledger, on);
        if (on) {
                bl_ledger_trust(m->ledger);
                bl_rollback_end(m);
        }
        r = bl_manager_save(m, true);
        for (size_t i = 0; i < m->n_guests && on && rollback != BL_ROLLBACK_NONE; i++)
                bl_discover_describe(m->guests[i]); /* statistics on again */
        if (on && bl_ledger_held(m->ledger))
                (void)snprintf(message, sizeof message,
                               "Ballast may act, but all automatic action is on hold: 'ballastctl release' ends that");
        else if (on && left > 0)
                (void)snprintf(message, sizeof message,
                               "Ballast acts from now on; the rollback ends with %zu VMs not put back", left);
        bl_manager_note(m, NULL, LOG_NOTICE, BL_EV_ADMIN, on ? "admin.act-on" : "admin.act-off", "done", BL_UNSET,
                        BL_UNSET, "%s",
                        *message ? message
                        : on     ? "Ballast acts now"
                                 : "Ballast only observes now; the guests stay as they are");
        bl_manager_notify_status(m);
        bl_tick_soon(m, 0);
        done(userdata, r, r < 0 ? not_written : *message ? message : NULL);
}

void bl_control_rollback(struct bl_manager *m, bl_done_fn done, void *userdata)
{
        char message[160];
        int r = bl_rollback_begin(m);

        if (r < 0) {
                (void)snprintf(message, sizeof message, "the ledger cannot be written, so nothing was begun: %s",
                               strerror(-r));
                done(userdata, r, message);
                return;
        }
        (void)snprintf(message, sizeof message,
                       "automatic action is off; %zu VMs are being put back as they were found", bl_rollback_left(m));
        bl_bus_refresh(m->bus);
        done(userdata, 0, message);
}
