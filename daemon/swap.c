// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Guests' swap on ballast-store.  A VM whose metadata says so gets its disk here, live, at
 * each start: it is registered at the store, its disk is plugged in, its agent switches
 * swap on it on; and all that backwards for one that is to have none any more.
 *
 * Nothing is remembered but by those who have it: the monitor knows whether the disk is
 * plugged in, the store who is registered, the agent whether swap is on.  So each look
 * takes one step from what is to what is wanted, and a ballastd that was restarted goes on
 * where the one before was.  With the store away nothing is done; the guests that
 * have swap on it wait by themselves, in QEMU.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "daemon/channel/agent.h"
#include "daemon/manager-private.h"
#include "daemon/storelink.h"
#include "daemon/util/clock.h"
#include "daemon/util/size.h"
#include "daemon/virt/domain_swap.h"

#define AFTER_START  (200 * BL_MSEC)
#define AGAIN        (1 * BL_SEC)
#define BUSY         (5 * BL_SEC) /* it migrates, or does not answer */
#define NOT_NOW      (30 * BL_SEC) /* it was refused; what would change that is somebody's doing */
#define ROOM_AGAIN   (5 * BL_SEC)
#define ASK_AGAIN    (10 * BL_SEC) /* an agent, that has not begun what it said it would */
#define FRESH        (5 * BL_SEC) /* the store's figures */
#define PERIOD_REST  (1 * BL_SEC)
#define PERIOD_BUSY  (100 * BL_MSEC)
#define GIVE_PACE    (60 * BL_SEC)
#define GIVE_WORTH   (64 * BL_MIB)
#define RATIO_SAMPLE 256 /* pages, before a VM's ratio says something */

/* A guest whose swap-ins take longer than this each is better not pressed on: a disk at its worst. */
#define SLOW_READ  (100 * BL_MSEC)
#define SLOW_WRITE (500 * BL_MSEC)
#define SLOW_OLD   (2 * BL_SEC)

/* Why it does not go on; each is said once while it lasts. */
enum why {
        WHY_NONE,
        WHY_STORE,
        WHY_AGENT,
        WHY_FEATURE,
        WHY_REFUSED,
        WHY_NO_PORT,
        WHY_ATTACH,
        WHY_GUEST,
        WHY_NO_ROOM,
        WHY_UNPLUG,
};

/* Whom an answer belongs to: bl_call, and the process that was asked about. */
struct swap_call {
        struct bl_call call;
        uint64_t generation;
};

static void look(struct bl_guest *g);

/* --- when ---------------------------------------------------------------------- */

static void rearm(struct bl_manager *m)
{
        usec_t next = UINT64_MAX;

        for (size_t i = 0; i < m->n_guests; i++)
                if (m->guests[i]->swap.due_at && !m->guests[i]->swap.busy)
                        next = bl_min(next, m->guests[i]->swap.due_at);
        if (!m->swap_timer)
                return;
        (void)sd_event_source_set_time(m->swap_timer, next);
        (void)sd_event_source_set_enabled(m->swap_timer, next == UINT64_MAX ? SD_EVENT_OFF : SD_EVENT_ONESHOT);
}

/* Sooner, where it was due later. */
static void due_in(struct bl_guest *g, usec_t in)
{
        usec_t at = bl_now() + in;

        g->swap.due_at = g->swap.due_at ? bl_min(g->swap.due_at, at) : at;
        rearm(g->m);
}

static struct swap_call *call_new(struct bl_guest *g)
{
        struct swap_call *c = malloc(sizeof *c);

        if (!c)
                return NULL;
        bl_call_init(&c->call, g);
        c->generation = g->swap.generation;
        return c;
}

/* The VM that the answer is for, which is not busy any more; NULL: it is another process now.  Frees `c`. */
static struct bl_guest *call_end(struct swap_call *c)
{
        struct bl_guest *g = bl_call_guest(&c->call);

        if (g && g->swap.generation != c->generation)
                g = NULL;
        if (g)
                g->swap.busy = false;
        free(c);
        return g;
}

/* --- what is said --------------------------------------------------------------- */

static void set_stage(struct bl_guest *g, enum bl_swap_stage s)
{
        struct bl_guest_swap *w = &g->swap;
        char size[BL_SIZE_BUF];

        if (w->stage == s)
                return;
        if (s == BL_SWAP_STAGE_ON)
                bl_manager_note(g->m, g, LOG_INFO, BL_EV_VM, "swap.on", "done", BL_UNSET, BL_UNSET,
                                "%s swaps on the store: %s", g->name, bl_size_format(w->size, size, sizeof size));
        if (s == BL_SWAP_STAGE_NONE && w->stage >= BL_SWAP_STAGE_REGISTERED)
                bl_manager_note(g->m, g, LOG_INFO, BL_EV_VM, "swap.off", "done", BL_UNSET, BL_UNSET,
                                "%s has no swap on the store any more", g->name);
        w->stage = s;
        w->stage_at = bl_now();
}

static void going_on(struct bl_guest *g)
{
        g->swap.why[0] = '\0';
        g->swap.said = WHY_NONE;
}

/* Waiting for what comes by itself is no news; being refused is. */
__attribute__((format(printf, 3, 4))) static void stands_still(struct bl_guest *g, enum why why, const char *format,
                                                               ...)
{
        struct bl_guest_swap *w = &g->swap;
        va_list ap;

        va_start(ap, format);
        (void)vsnprintf(w->why, sizeof w->why, format, ap);
        va_end(ap);
        if (w->said == (int)why)
                return;
        w->said = (int)why;
        if (why == WHY_STORE || why == WHY_AGENT)
                return;
        bl_manager_note(g->m, g, LOG_WARNING, BL_EV_VM, "swap.refused", "failed", BL_UNSET, BL_UNSET, "swap of %s: %s",
                        g->name, w->why);
}

/* --- what is wanted --------------------------------------------------------------- */

static uint64_t wanted_size(const struct bl_guest *g)
{
        const struct bl_vm_metadata *md = &g->desc->live.metadata;

        return g->desc->live.metadata_error ? 0 : bl_vm_metadata_swap(md, bl_guest_max(g), bl_guest_reservation(g));
}

/* An administrator took it off: of this process of the VM, until it is enrolled again. */
static bool is_drained(const struct bl_guest *g)
{
        const struct bl_ledger_vm *record = bl_ledger_find(g->m->ledger, g->uuid);

        return record && record->drained.pid != 0 && bl_instance_equal(&record->drained, &g->desc->instance);
}

static const char *wanted_group(const struct bl_guest *g)
{
        const char *own = g->desc->live.metadata.group;

        return *own ? own : g->m->conf->store_default_group;
}

static bool wanted(const struct bl_guest *g)
{
        return g->desc->has_instance && !is_drained(g) && g->m->conf->store_pool > 0 && wanted_size(g) > 0;
}

/* --- the store ---------------------------------------------------------------------- */

static void refused(struct bl_guest *g, int r, const struct bl_store_figures *f)
{
        char size[BL_SIZE_BUF], promised[BL_SIZE_BUF], backing[BL_SIZE_BUF];

        if (r == -ENOSPC && f)
                stands_still(g, WHY_REFUSED,
                             "the store cannot back %s more of swap: %s are promised, pool and disk hold %s "
                             "uncompressed (PoolSize=, DiskSize=)",
                             bl_size_format(g->swap.size, size, sizeof size),
                             bl_size_format(f->promised, promised, sizeof promised),
                             bl_size_format(f->backing, backing, sizeof backing));
        else
                stands_still(g, WHY_REFUSED, "the store refused its swap: %s", strerror(-r));
}

static void on_registered(void *userdata, int r, const struct bl_store_figures *f)
{
        struct bl_guest *g = call_end(userdata);

        if (!g || r == -ENOTCONN)
                return;
        if (r < 0) {
                refused(g, r, f);
                due_in(g, NOT_NOW);
                return;
        }
        g->swap.registered = true;
        /* until it says so itself; what was changed meanwhile is seen then */
        g->swap.held.limit = g->desc->live.metadata.swap_limit;
        (void)snprintf(g->swap.held.group, sizeof g->swap.held.group, "%s", wanted_group(g));
        due_in(g, 0);
}

/*
 * What the store is told to believe: a process that never had the disk starts empty, what an earlier
 * one left is dropped.  One that has it goes on; where the store does not know it, that is another pool,
 * and what it had is lost: errors, never zeros.
 */
static uint64_t incarnation_for(const struct bl_guest *g, uint64_t now)
{
        if (!g->swap.there)
                return 0;
        return g->swap.seen ? now : now ^ 1 ? now ^ 1 : 2;
}

static void register_it(struct bl_guest *g)
{
        const struct bl_vm_metadata *md = &g->desc->live.metadata;
        usec_t at = 0;
        const struct bl_store_reply *f = bl_storelink_figures(g->m->storelink, &at);
        struct bl_store_registration q = {
                .pid = g->desc->instance.pid,
                .start = g->desc->instance.start,
                .limit = md->swap_limit,
                .stamp = BL_UNSET,
        };
        struct swap_call *c;

        /* whether the store knows this process is not seen before it has been asked since we do */
        c = f && at > g->swap.met_at ? call_new(g) : NULL;
        if (!c) {
                due_in(g, AGAIN);
                return;
        }
        /* the disk keeps the size that it was plugged in with */
        if (g->swap.there && g->swap.seen)
                g->swap.size = g->swap.held.size;
        else
                g->swap.size = wanted_size(g);
        memcpy(q.uuid, g->uuid, BL_UUID_LEN);
        q.size = g->swap.size;
        (void)snprintf(q.group, sizeof q.group, "%s", wanted_group(g));
        q.incarnation = incarnation_for(g, f->figures.incarnation);
        if (bl_storelink_register(g->m->storelink, &q, on_registered, c) < 0) {
                free(c);
                due_in(g, AGAIN);
                return;
        }
        g->swap.busy = true;
}

static void on_forgotten(void *userdata, int r, const struct bl_store_figures *f)
{
        struct bl_guest *g = call_end(userdata);

        (void)f;
        if (!g)
                return;
        if (r < 0 && r != -ENOENT) {
                due_in(g, AGAIN);
                return;
        }
        g->swap.registered = g->swap.seen = false;
        g->swap.held = (struct bl_store_vm){0};
        going_on(g);
        set_stage(g, BL_SWAP_STAGE_NONE);
        /* it may be wanted again meanwhile */
        due_in(g, 0);
}

static void forget_it(struct bl_guest *g)
{
        struct swap_call *c = call_new(g);

        if (c && bl_storelink_forget(g->m->storelink, g->uuid, on_forgotten, c) >= 0) {
                g->swap.busy = true;
                return;
        }
        free(c);
        due_in(g, AGAIN);
}

/* --- the disk ------------------------------------------------------------------------ */

static void on_looked(void *userdata, int r, const char *message, enum bl_swap_attach a)
{
        struct bl_guest *g = call_end(userdata);

        (void)message;
        if (!g)
                return;
        if (r < 0) {
                if (r != -ECANCELED && r != -ENOENT)
                        due_in(g, AGAIN);
                return;
        }
        g->swap.looked = a == BL_SWAP_THERE || a == BL_SWAP_ABSENT;
        g->swap.there = a == BL_SWAP_THERE;
        due_in(g, g->swap.looked ? 0 : NOT_NOW);
}

static void on_attached(void *userdata, int r, const char *message, enum bl_swap_attach a)
{
        struct bl_guest *g = call_end(userdata);

        if (!g || r == -ECANCELED || r == -ENOENT)
                return;
        if (r < 0)
                a = BL_SWAP_FAILED;
        switch (a) {
        case BL_SWAP_THERE:
        case BL_SWAP_ATTACHED:
                g->swap.there = true;
                due_in(g, 0);
                break;
        case BL_SWAP_NO_ROOM:
                stands_still(g, WHY_NO_PORT,
                             "no free PCI slot for its swap disk ('ballastctl enroll VM --swap --write' adds a root "
                             "port, at its next start)");
                due_in(g, NOT_NOW);
                break;
        case BL_SWAP_ABSENT:
        case BL_SWAP_FAILED:
                stands_still(g, WHY_ATTACH, "its swap disk cannot be plugged in: %s",
                             message ? message
                             : r < 0 ? strerror(-r)
                                     : "QEMU refused");
                due_in(g, NOT_NOW);
                break;
        }
}

static void attach(struct bl_guest *g, bool only_look)
{
        struct bl_manager *m = g->m;
        struct swap_call *c = call_new(g);
        int r = -ENOMEM;

        if (c && only_look)
                r = bl_domain_look_swap(m->conn, g->uuid, &g->desc->instance, on_looked, c);
        else if (c)
                r = bl_domain_attach_swap(m->conn, g->uuid, &g->desc->instance, m->conf->store_socket, on_attached, c);
        if (r < 0) {
                free(c);
                due_in(g, AGAIN);
                return;
        }
        g->swap.busy = true;
}

static void on_detached(void *userdata, int r, const char *message)
{
        struct bl_guest *g = call_end(userdata);

        if (!g || r == -ECANCELED || r == -ENOENT)
                return;
        if (r < 0) {
                stands_still(g, WHY_UNPLUG, "its swap disk cannot be unplugged yet: %s",
                             message ? message : strerror(-r));
                due_in(g, AGAIN);
                return;
        }
        g->swap.there = false;
        due_in(g, 0);
}

static void detach(struct bl_guest *g)
{
        struct swap_call *c = call_new(g);

        set_stage(g, BL_SWAP_STAGE_UNPLUGGING);
        if (c && bl_domain_detach_swap(g->m->conn, g->uuid, &g->desc->instance, on_detached, c) >= 0) {
                g->swap.busy = true;
                return;
        }
        free(c);
        due_in(g, AGAIN);
}

/* --- the agent ------------------------------------------------------------------------ */

/* It says how it stands since it was last asked. */
static bool told(const struct bl_guest *g)
{
        return g->agent.hello && g->swap.state != BL_UNSET && g->swap.told_at > g->swap.asked_at;
}

static void ask(struct bl_guest *g, enum bl_wire_action_kind kind, uint64_t bytes)
{
        const struct bl_wire_action a = {.kind = kind, .bytes = bytes};

        /* busy with something else: later */
        if (bl_agent_act(g->agent.link.agent, &a) < 0) {
                due_in(g, AGAIN);
                return;
        }
        g->swap.asked_at = bl_now();
        due_in(g, ASK_AGAIN);
}

/* 0: its agent can be asked; it is said where not. */
static int agent_there(struct bl_guest *g)
{
        if (!g->agent.hello) {
                stands_still(g, WHY_AGENT, "its agent is not heard (yet)");
                return -ENOTCONN;
        }
        if (!(g->agent.features & BL_WIRE_FEATURE_SWAP)) {
                stands_still(g, WHY_FEATURE, "its agent (%s) or its kernel cannot swap on the store", g->agent.version);
                return -EOPNOTSUPP;
        }
        return 0;
}

/* It can be asked, and has said how it stands; where not, it is looked at again. */
static bool agent_stands(struct bl_guest *g)
{
        struct bl_guest_swap *w = &g->swap;

        if (agent_there(g) < 0)
                return false;
        if (told(g))
                return true;
        if (w->asked_at && bl_now() - w->asked_at > ASK_AGAIN)
                w->asked_at = 0;
        due_in(g, AGAIN);
        return false;
}

static void say_what_is_ahead(struct bl_guest *g)
{
        struct bl_guest_swap *w = &g->swap;
        char size[BL_SIZE_BUF];

        if (!w->said_ahead && w->stage == BL_SWAP_STAGE_ON && bl_or_zero(w->ahead) > 0) {
                w->said_ahead = true;
                bl_manager_note(g->m, g, LOG_NOTICE, BL_EV_VM, "swap.ahead", "seen", BL_UNSET, BL_UNSET,
                                "%s has other swap of its own before the store: %s fill first", g->name,
                                bl_size_format(w->ahead, size, sizeof size));
        }
        if (!w->said_zswap && w->stage == BL_SWAP_STAGE_ON && w->zswap == 1) {
                w->said_zswap = true;
                bl_manager_note(g->m, g, LOG_NOTICE, BL_EV_VM, "swap.zswap", "seen", BL_UNSET, BL_UNSET,
                                "%s has zswap on: it compresses in the guest what the store could share", g->name);
        }
}

static void switch_on(struct bl_guest *g)
{
        struct bl_guest_swap *w = &g->swap;

        if (w->stage < BL_SWAP_STAGE_PLUGGED || w->stage > BL_SWAP_STAGE_ON)
                set_stage(g, BL_SWAP_STAGE_PLUGGED);
        if (!agent_stands(g))
                return;
        switch (w->state) {
        case BL_STORE_SWAP_ON:
                going_on(g);
                set_stage(g, BL_SWAP_STAGE_ON);
                say_what_is_ahead(g);
                break;
        case BL_STORE_SWAP_PREPARING:
                set_stage(g, BL_SWAP_STAGE_PLUGGED);
                break;
        case BL_STORE_SWAP_FAILED:
                set_stage(g, BL_SWAP_STAGE_PLUGGED);
                stands_still(g, WHY_GUEST, "its guest could not switch swap on the store on: %s",
                             w->error == BL_UNSET || w->error > 4095 ? "for a reason it does not say"
                                                                     : strerror((int)w->error));
                if (bl_now() - w->asked_at >= NOT_NOW)
                        ask(g, BL_ACTION_SWAP_ON, BL_UNSET);
                else
                        due_in(g, NOT_NOW);
                break;
        default: /* none, off, being brought back, or what a newer agent says */
                set_stage(g, BL_SWAP_STAGE_PLUGGED);
                ask(g, BL_ACTION_SWAP_ON, BL_UNSET);
        }
}

static void switch_off(struct bl_guest *g)
{
        struct bl_guest_swap *w = &g->swap;

        if (w->stage != BL_SWAP_STAGE_UNPLUGGING)
                set_stage(g, BL_SWAP_STAGE_DRAINING);
        if (!agent_stands(g))
                return;
        switch (w->state) {
        case BL_STORE_SWAP_OFF:
        case BL_STORE_SWAP_NONE:
                detach(g);
                break;
        case BL_STORE_SWAP_LEAVING:
                set_stage(g, BL_SWAP_STAGE_DRAINING);
                going_on(g);
                break;
        default:
                set_stage(g, BL_SWAP_STAGE_DRAINING);
                /* its memory may have grown meanwhile */
                if (w->said != WHY_NO_ROOM || bl_now() - w->asked_at >= ROOM_AGAIN)
                        ask(g, BL_ACTION_SWAP_OFF, BL_UNSET);
                else
                        due_in(g, ROOM_AGAIN);
        }
}

void bl_swap_result(struct bl_guest *g, enum bl_wire_action_kind kind, const struct bl_wire_result *r)
{
        char need[BL_SIZE_BUF], have[BL_SIZE_BUF];

        g->swap.asked_at = bl_now();
        if (kind == BL_ACTION_SWAP_GIVE)
                return;
        if (r->status == BL_RESULT_NO_ROOM)
                stands_still(g, WHY_NO_ROOM,
                             "what it has swapped does not fit into its memory: it takes %s, there are %s; give it "
                             "more ('ballastctl balloon', 'ballastctl set')",
                             bl_size_format(r->need, need, sizeof need), bl_size_format(r->have, have, sizeof have));
        else if (r->status == BL_RESULT_UNKNOWN)
                stands_still(g, WHY_FEATURE, "its agent cannot do that");
        due_in(g, AGAIN);
}

void bl_swap_stats(struct bl_guest *g, const struct bl_wire_stats *s)
{
        struct bl_guest_swap *w = &g->swap;
        uint64_t before = w->state;

        w->state = s->v[BL_STAT_STORE_STATE];
        w->used = s->v[BL_STAT_STORE_USED];
        w->cached = s->v[BL_STAT_SWAP_CACHED];
        w->ahead = s->v[BL_STAT_SWAP_AHEAD];
        w->zswap = s->v[BL_STAT_ZSWAP];
        w->error = s->v[BL_STAT_STORE_ERROR];
        w->told_at = bl_now();
        if (w->state != before || (w->due_at && w->due_at <= w->told_at + AGAIN))
                due_in(g, 0);
        say_what_is_ahead(g);
}

/* --- one step -------------------------------------------------------------------------- */

static void stay_away(struct bl_guest *g)
{
        struct bl_guest_swap *w = &g->swap;

        if (w->there)
                switch_off(g);
        else if (w->registered || w->seen)
                forget_it(g);
        else {
                going_on(g);
                set_stage(g, BL_SWAP_STAGE_NONE);
        }
}

/* Has what was registered changed? */
static bool differs(const struct bl_guest *g)
{
        return g->swap.seen && (g->swap.held.limit != g->desc->live.metadata.swap_limit ||
                                strncmp(g->swap.held.group, wanted_group(g), sizeof g->swap.held.group) != 0);
}

static void come(struct bl_guest *g)
{
        struct bl_guest_swap *w = &g->swap;

        if (w->registered && differs(g))
                w->registered = false;
        if (!w->there) {
                if (w->stage != BL_SWAP_STAGE_REGISTERED)
                        set_stage(g, BL_SWAP_STAGE_WAITING);
                if (agent_there(g) < 0)
                        return;
        }
        if (!w->registered) {
                register_it(g);
                return;
        }
        if (!w->there) {
                set_stage(g, BL_SWAP_STAGE_REGISTERED);
                attach(g, false);
                return;
        }
        switch_on(g);
}

static void step(struct bl_guest *g)
{
        struct bl_guest_swap *w = &g->swap;
        bool want;

        w->due_at = 0;
        if (!g->desc || !g->desc->has_instance)
                return;
        want = wanted(g);
        /* one that never had it is not asked: the monitor's passthrough taints */
        if (!want && !w->seen && !w->there && !w->registered) {
                going_on(g);
                set_stage(g, BL_SWAP_STAGE_NONE);
                return;
        }
        if (bl_guest_run(g) == BL_RUN_MIGRATING || bl_guest_hung(g)) {
                due_in(g, BUSY);
                return;
        }
        if (!w->looked) {
                attach(g, true);
                return;
        }
        if (bl_storelink_state(g->m->storelink) != BL_STORELINK_THERE) {
                if (want && !w->there)
                        set_stage(g, BL_SWAP_STAGE_WAITING);
                stands_still(g, WHY_STORE, "ballast-store does not answer (systemctl start ballast-store)");
                return;
        }
        if (want)
                come(g);
        else
                stay_away(g);
}

static void look(struct bl_guest *g)
{
        if (!g->swap.busy)
                step(g);
        rearm(g->m);
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
        struct bl_manager *m = userdata;
        usec_t now = bl_now();

        (void)s;
        (void)usec;
        for (size_t i = 0; i < m->n_guests; i++)
                if (m->guests[i]->swap.due_at && m->guests[i]->swap.due_at <= now)
                        look(m->guests[i]);
        rearm(m);
        return 0;
}

void bl_swap_check(struct bl_guest *g)
{
        if (!g->m->storelink)
                return;
        if (!g->swap.met_at)
                g->swap.met_at = bl_now();
        due_in(g, AFTER_START);
}

void bl_swap_forget(struct bl_guest *g)
{
        /* what the store holds of the process that is gone, on_figures finds */
        g->swap = (struct bl_guest_swap){
                .generation = g->swap.generation + 1,
                .state = BL_UNSET,
                .used = BL_UNSET,
                .cached = BL_UNSET,
                .ahead = BL_UNSET,
                .zswap = BL_UNSET,
                .error = BL_UNSET,
        };
}

/* --- what the store says --------------------------------------------------------------- */

/* Of a process that is gone: nobody can ever read it again. */
static bool is_left_over(struct bl_manager *m, const struct bl_store_vm *vm)
{
        const struct bl_guest *g = bl_manager_find(m, vm->uuid);
        const struct bl_instance inst = {.pid = vm->pid, .start = vm->start};
        char proc[256], state;

        /* one that is just being met is not judged */
        if (!m->listed || (g && (!g->desc || g->describing)))
                return false;
        (void)snprintf(proc, sizeof proc, "%s/proc", m->options.root ? m->options.root : "");
        return bl_instance_state(proc, &inst, &state) < 0 || state == 'Z' || state == 'X';
}

/* Its VM, where the export is of the process that runs now. */
static struct bl_guest *owner(struct bl_manager *m, const struct bl_store_vm *vm)
{
        struct bl_guest *g = bl_manager_find(m, vm->uuid);

        if (!g || !g->desc || !g->desc->has_instance || g->desc->instance.pid != vm->pid ||
            g->desc->instance.start != vm->start)
                return NULL;
        return g;
}

static void take_figures(struct bl_guest *g, const struct bl_store_vm *vm)
{
        struct bl_guest_swap *w = &g->swap;

        if (vm->lost && !w->held.lost)
                bl_manager_note(g->m, g, LOG_ERR, BL_EV_VM, "store.lost", "seen", BL_UNSET, BL_UNSET,
                                "the store's pool is another one: what %s had swapped is lost, and reading it is an "
                                "I/O error in the guest",
                                g->name);
        if (!w->seen)
                due_in(g, 0);
        w->seen = true;
        w->held = *vm;
        w->held_at = bl_now();
        if (wanted(g) && differs(g))
                due_in(g, 0);
}

static void on_figures(void *userdata, const struct bl_store_reply *r, const struct bl_store_vm *vms, size_t n)
{
        struct bl_manager *m = userdata;
        usec_t now = bl_now();

        (void)r;
        for (size_t i = 0; i < n; i++) {
                struct bl_guest *g = owner(m, &vms[i]);

                if (g)
                        take_figures(g, &vms[i]);
                else if (is_left_over(m, &vms[i]))
                        (void)bl_storelink_forget(m->storelink, vms[i].uuid, NULL, NULL);
        }
        for (size_t i = 0; i < m->n_guests; i++) {
                struct bl_guest_swap *w = &m->guests[i]->swap;

                if (w->held_at >= now || (!w->registered && !w->seen))
                        continue;
                /* it knew of it, and does not any more: another pool */
                w->seen = false;
                w->registered = false;
                w->held = (struct bl_store_vm){0};
                due_in(m->guests[i], 0);
        }
}

static void on_state(void *userdata, enum bl_storelink_state s)
{
        struct bl_manager *m = userdata;

        switch (s) {
        case BL_STORELINK_NONE:
                return;
        case BL_STORELINK_AWAY:
                bl_manager_note(m, NULL, LOG_WARNING, BL_EV_PLAIN, "store.away", "seen", BL_UNSET, BL_UNSET,
                                "ballast-store is gone; guests that swap on it wait until it is back");
                break;
        case BL_STORELINK_DEAF:
                bl_manager_note(m, NULL, LOG_ERR, BL_EV_PLAIN, "store.deaf", "seen", BL_UNSET, BL_UNSET,
                                "ballast-store does not answer: it hangs or is stopped, and guests that swap on it "
                                "wait");
                break;
        case BL_STORELINK_THERE:
        case _BL_STORELINK_MAX:
                bl_manager_note(m, NULL, LOG_INFO, BL_EV_PLAIN, "store.back", "seen", BL_UNSET, BL_UNSET,
                                "ballast-store answers");
                break;
        }
        for (size_t i = 0; i < m->n_guests; i++)
                if (s == BL_STORELINK_THERE)
                        due_in(m->guests[i], 0);
        bl_tick_soon(m, 0);
}

static void on_event(void *userdata, const struct bl_store_event *ev)
{
        struct bl_manager *m = userdata;
        struct bl_guest *g = bl_manager_find(m, ev->uuid);
        const char *name = g ? g->name : "a VM that is gone";

        switch (ev->kind) {
        case BL_STORE_DAMAGED:
                bl_manager_note(m, g, LOG_ERR, BL_EV_VM, "store.damaged", "seen", BL_UNSET, BL_UNSET,
                                "a swapped page of %s (at %" PRIu64
                                ") is not what was stored: reading it is an I/O error in the guest",
                                name, ev->offset);
                break;
        case BL_STORE_LOST:
                bl_manager_note(m, g, LOG_ERR, BL_EV_VM, "store.lost", "seen", BL_UNSET, BL_UNSET,
                                "a swapped page of %s (at %" PRIu64
                                ") cannot be read back from the disk: reading it is an I/O error in the guest",
                                name, ev->offset);
                break;
        case BL_STORE_DISK_FAILED:
                bl_manager_note(m, NULL, LOG_ERR, BL_EV_PLAIN, "store.disk-failed", "seen", BL_UNSET, BL_UNSET,
                                "the store's disk fails or hangs: nothing more goes there");
                break;
        case BL_STORE_DISK_BACK:
                bl_manager_note(m, NULL, LOG_INFO, BL_EV_PLAIN, "store.disk-back", "seen", BL_UNSET, BL_UNSET,
                                "the store's disk works again");
                break;
        case BL_STORE_FULL:
                bl_manager_note(m, NULL, LOG_WARNING, BL_EV_PLAIN, "store.full", "seen", BL_UNSET, BL_UNSET,
                                "the store's pool is full: guests that swap wait for its disk");
                break;
        case BL_STORE_ROOM:
                bl_manager_note(m, NULL, LOG_INFO, BL_EV_PLAIN, "store.room", "seen", BL_UNSET, BL_UNSET,
                                "the store's pool has room again");
                break;
        case _BL_STORE_EVENT_MAX:
                break;
        }
}

/* --- for the policy ------------------------------------------------------------------------ */

void bl_swap_to_vm(const struct bl_guest *g, struct bl_vm_store *ret)
{
        const struct bl_guest_swap *w = &g->swap;
        struct bl_vm_store s = {.limit = BL_UNSET, .ratio = BL_WHOLE};

        if (g->desc)
                s.limit = g->desc->live.metadata.swap_limit;
        s.on = w->stage == BL_SWAP_STAGE_ON;
        s.leaving = w->stage == BL_SWAP_STAGE_DRAINING || w->stage == BL_SWAP_STAGE_UNPLUGGING;
        s.size = w->size;
        s.used = bl_or_zero(w->used);
        if (w->seen) {
                s.held = w->held.held;
                s.zero = w->held.zero;
                s.stored = w->held.stored;
                s.disk = w->held.disk;
                s.ratio_known = w->held.write_pages >= RATIO_SAMPLE;
                if (s.ratio_known)
                        s.ratio = w->held.ratio;
        }
        /* what it says of itself counts only as far as the store holds anything */
        if (w->used != BL_UNSET)
                s.stale = bl_sub_sat(bl_add_sat(s.held, s.zero), s.used);
        s.twice = bl_min(bl_or_zero(w->cached), bl_min(s.used, bl_add_sat(s.held, s.zero)));
        *ret = s;
}

static bool is_slow(const struct bl_store_figures *f)
{
        return f->read_p99 > SLOW_READ || f->write_p99 > SLOW_WRITE || f->oldest_request > SLOW_OLD || f->waiting > 0;
}

/* Uncompressed, as if nothing of it were to shrink; what is held is counted as it is. */
static uint64_t room(const struct bl_store_figures *f)
{
        return bl_sub_sat(f->backing, bl_add_sat(bl_add_sat(f->payload, f->slack), f->disk_used));
}

void bl_swap_store_state(const struct bl_manager *m, usec_t now, struct bl_store_state *ret)
{
        usec_t at = 0;
        const struct bl_store_reply *r = bl_storelink_figures(m->storelink, &at);
        struct bl_store_state s = {0};

        if (r) {
                const struct bl_store_figures *f = &r->figures;

                s.there = bl_storelink_state(m->storelink) == BL_STORELINK_THERE && bl_sub_sat(now, at) < FRESH;
                s.slow = is_slow(f);
                s.pool_size = f->pool_size;
                s.pool_ready = f->pool_ready;
                s.pool_used = f->pool_used;
                s.headroom = f->headroom;
                s.room = room(f);
        }
        *ret = s;
}

uint64_t bl_swap_host_memory(const struct bl_manager *m)
{
        const struct bl_store_reply *r = bl_storelink_figures(m->storelink, NULL);

        /* also while no store runs: the pool outlives it */
        return r ? bl_add_sat(r->figures.pool_ready, bl_add_sat(r->figures.index, r->fixed)) : 0;
}

uint64_t bl_swap_room_left(const struct bl_guest *g)
{
        const struct bl_store_reply *r = bl_storelink_figures(g->m->storelink, NULL);

        if (!r || g->swap.stage != BL_SWAP_STAGE_ON)
                return 0;
        return bl_min(room(&r->figures), bl_sub_sat(g->swap.size, bl_or_zero(g->swap.used)));
}

/* --- each tick ----------------------------------------------------------------------------- */

/* Slots that hold what nobody will read, or what the guest has in its memory too, cost the host more than they
 * are worth when it is short. */
static void give(struct bl_guest *g, usec_t now)
{
        struct bl_vm_store s;
        uint64_t idle;

        if (g->swap.stage != BL_SWAP_STAGE_ON || !g->agent.hello ||
            (g->swap.give_at && now - g->swap.give_at < GIVE_PACE))
                return;
        bl_swap_to_vm(g, &s);
        idle = bl_add_sat(s.stale, s.twice);
        if (idle <= GIVE_WORTH || idle <= s.held / 4)
                return;
        g->swap.give_at = now;
        (void)bl_agent_act(g->agent.link.agent, &(struct bl_wire_action){.kind = BL_ACTION_SWAP_GIVE, .bytes = idle});
}

void bl_swap_tick(struct bl_manager *m, usec_t now)
{
        const struct bl_store_reply *r = bl_storelink_figures(m->storelink, NULL);
        bool short_of = m->plan.state >= BL_STATE_SOFT || m->plan.shortfall > 0, on = false, full;

        if (!r)
                return;
        full = r->figures.pool_used > r->figures.pool_size / 8 * 7;
        for (size_t i = 0; i < m->n_guests; i++) {
                on = on || m->guests[i]->swap.stage == BL_SWAP_STAGE_ON;
                if ((short_of || full) && bl_manager_acting(m))
                        give(m->guests[i], now);
        }
        if (m->plan.pool_to > 0 && bl_manager_acting(m))
                (void)bl_storelink_reserve(m->storelink, bl_max(m->plan.pool_to, m->conf->store_ready));
        bl_storelink_set_period(m->storelink, on && short_of ? PERIOD_BUSY : PERIOD_REST);
}

/* --- by hand -------------------------------------------------------------------------------- */

/* What its agent leaves available while slots are brought back (guestagent/swapjob.c). */
static uint64_t margin_of(uint64_t total)
{
        return bl_max(32 * BL_MIB, total / 20);
}

/* What the policy could give back to it: nothing where it is not ours to move. */
static uint64_t could_get_back(const struct bl_guest *g)
{
        const struct bl_ledger_vm *record = bl_ledger_find(g->m->ledger, g->uuid);
        uint64_t actual = bl_guest_actual(g);

        if (actual == BL_UNSET || !bl_manager_acting(g->m) || !bl_guest_managed(g) ||
            (record && record->hold != BL_HOLD_NONE))
                return 0;
        return bl_min(bl_sub_sat(bl_min(bl_guest_max(g), bl_guest_limit(g)), actual), g->m->host.free);
}

/* Where it does not fit into what the guest has: 0, its balloon has to grow first, or it never will. */
static int fits_guest(const struct bl_guest *g, char *why, size_t size)
{
        const struct bl_wire_stats *s = g->agent.hello ? bl_agent_figures(g->agent.link.agent) : NULL;
        const struct bl_guest_swap *w = &g->swap;
        char takes[BL_SIZE_BUF], there[BL_SIZE_BUF], more[BL_SIZE_BUF];
        uint64_t need, have, back;

        *why = '\0';
        if (!w->there || !s || w->used == BL_UNSET || s->v[BL_STAT_MEM_AVAILABLE] == BL_UNSET)
                return 0;
        need = bl_sub_sat(w->used, bl_or_zero(w->cached));
        have = bl_sub_sat(s->v[BL_STAT_MEM_AVAILABLE], margin_of(bl_or_zero(s->v[BL_STAT_MEM_TOTAL])));
        if (need <= have)
                return 0;
        back = could_get_back(g);
        (void)bl_size_format(need, takes, sizeof takes);
        (void)bl_size_format(have, there, sizeof there);
        (void)bl_size_format(back, more, sizeof more);
        if (need - have > back) {
                (void)snprintf(why, size,
                               "bringing back what %s has swapped takes %s of its memory, %s of it are available, and "
                               "its balloon can give %s back: give it more ('ballastctl balloon', 'ballastctl set')",
                               g->name, takes, there, more);
                return -ESTALE;
        }
        (void)snprintf(why, size,
                       "it takes %s of its memory, %s of it are available, and it waits for its balloon to give more "
                       "back (up to %s)",
                       takes, there, more);
        return 0;
}

static int fits_host(const struct bl_guest *g, char *why, size_t size)
{
        uint64_t coming =
                g->swap.seen ? bl_sub_sat(bl_add_sat(g->swap.held.held, g->swap.held.zero), g->swap.held.stored) : 0;
        char need[BL_SIZE_BUF], have[BL_SIZE_BUF];

        if (coming <= g->m->host.free)
                return 0;
        (void)snprintf(why, size, "bringing back what %s has swapped takes %s of the host's memory, and %s are free",
                       g->name, bl_size_format(coming, need, sizeof need),
                       bl_size_format(g->m->host.free, have, sizeof have));
        return -ESTALE;
}

static int remember_drained(struct bl_guest *g, const struct bl_instance *process)
{
        int r = bl_ledger_add(g->m->ledger, g->uuid, g->name, NULL);

        if (r >= 0)
                r = bl_ledger_set_drained(g->m->ledger, g->uuid, process);
        if (r >= 0)
                r = bl_manager_save(g->m, true);
        return r;
}

static void drain(struct bl_guest *g)
{
        g->swap.said = WHY_NONE;
        if (g->swap.there)
                set_stage(g, BL_SWAP_STAGE_DRAINING);
        due_in(g, 0);
        bl_manager_note(g->m, g, LOG_NOTICE, BL_EV_ADMIN, "swap.drain", "done", BL_UNSET, BL_UNSET,
                        "%s is to bring back what it has swapped, by ballastctl", g->name);
}

static void end_drain(struct bl_guest *g)
{
        g->swap.said = WHY_NONE;
        bl_swap_check(g);
}

void bl_control_drain(struct bl_manager *m, const char *vm, bool undo, bl_done_fn done, void *userdata)
{
        struct bl_guest *g = bl_manager_find_named(m, vm);
        char sentence[400], wait[256] = "";
        int r;

        if (!g || !m->storelink) {
                done(userdata, g ? -ESTALE : -ENOENT, g ? "there is no store (PoolSize= in ballast.conf)" : NULL);
                return;
        }
        if (!g->desc || !g->desc->has_instance) {
                done(userdata, -ESTALE, "its process is not known (yet)");
                return;
        }
        r = undo ? 0 : fits_host(g, sentence, sizeof sentence);
        if (r == 0 && !undo) {
                r = fits_guest(g, wait, sizeof wait);
                if (r < 0)
                        (void)snprintf(sentence, sizeof sentence, "%s", wait);
        }
        if (r < 0) {
                done(userdata, r, sentence);
                return;
        }
        r = remember_drained(g, undo ? NULL : &g->desc->instance);
        if (r < 0) {
                done(userdata, r, NULL);
                return;
        }
        if (undo) {
                end_drain(g);
                done(userdata, 0, NULL);
                return;
        }
        drain(g);
        (void)snprintf(sentence, sizeof sentence,
                       "%s %s%s%s; it gets no swap on the store until it is started anew, or 'ballastctl drain --undo'",
                       g->name, g->swap.there ? "brings back what it has swapped" : "has no swap on the store",
                       *wait ? ": " : "", wait);
        done(userdata, 0, sentence);
}

/* --- life ------------------------------------------------------------------------------------ */

static const struct bl_storelink_handler handler = {
        .state = on_state,
        .figures = on_figures,
        .event = on_event,
};

int bl_swap_start(struct bl_manager *m)
{
        int r;

        if (m->conf->store_pool == 0)
                return 0;
        r = sd_event_add_time(m->event, &m->swap_timer, CLOCK_MONOTONIC, 0, 20 * BL_MSEC, on_timer, m);
        if (r >= 0)
                r = sd_event_source_set_enabled(m->swap_timer, SD_EVENT_OFF);
        if (r >= 0)
                r = bl_storelink_new(m->event, m->conf->store_control, &handler, m, &m->storelink);
        return r;
}

void bl_swap_stop(struct bl_manager *m)
{
        m->storelink = bl_storelink_free(m->storelink);
        m->swap_timer = sd_event_source_disable_unref(m->swap_timer);
}
