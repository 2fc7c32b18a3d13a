/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/act/balloon.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/fault.h"
#include "daemon/sense/balloon_watch.h"
#include "daemon/util/clock.h"

/* One more look: how far the balloon may have moved. */
#define TOLERANCE (32 * BL_MIB)
/* Most that one step of undo gives back. */
#define UNDO_STEP BL_GIB
/* Never below this, whatever is asked. */
#define MINIMUM (32 * BL_MIB)

#define PAGE (4 * BL_KIB)
/* What a guest with 64 KiB pages may be off (balloon_watch.c). */
#define REACHED_SLACK (64 * BL_KIB)
/* A step of undo is not followed by another before it is done, or this has passed. */
#define UNDO_PATIENCE (5 * BL_SEC)
#define UNDO_GIVE_UP  (60 * BL_SEC)
/* Undoing a grant takes from the guest: this much is left available to it. */
#define UNDO_LEAVE      (64 * BL_MIB)
#define UNDO_BLIND_STEP (128 * BL_MIB)

struct vm {
        struct vm *next;
        struct balloon *b;
        uint8_t uuid[BL_UUID_LEN];
        bool has_instance;
        struct bl_instance instance;
        bool in_flight;
        bool period_in_flight;
        int period_error; /* why the last undo of the period failed; 0 */
        usec_t period_retry_at;
        bool gone; /* freed when nothing is in flight */
};

struct balloon {
        struct bl_engine engine;
        struct bl_conn *conn;
        struct bl_ledger *ledger;
        struct bl_balloon_options o;
        struct vm *vms;
};

static struct balloon *of(struct bl_engine *e)
{
        return (struct balloon *)e;
}

/* --- VMs ---------------------------------------------------------------------------- */

static struct vm *vm_find(const struct balloon *b, const uint8_t uuid[BL_UUID_LEN])
{
        for (struct vm *v = b->vms; v; v = v->next)
                if (memcmp(v->uuid, uuid, BL_UUID_LEN) == 0)
                        return v;
        return NULL;
}

static struct vm *vm_get(struct balloon *b, const uint8_t uuid[BL_UUID_LEN])
{
        struct vm *v = vm_find(b, uuid);

        if (v)
                return v;
        v = calloc(1, sizeof(*v));
        if (!v)
                return NULL;
        v->b = b;
        memcpy(v->uuid, uuid, BL_UUID_LEN);
        v->next = b->vms;
        b->vms = v;
        return v;
}

static void vm_drop_if_gone(struct vm *v)
{
        if (!v->gone || v->in_flight || v->period_in_flight)
                return;
        for (struct vm **p = &v->b->vms; *p; p = &(*p)->next)
                if (*p == v) {
                        *p = v->next;
                        break;
                }
        free(v);
}

int bl_balloon_set_instance(struct bl_engine *e, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *i)
{
        struct vm *v = i ? vm_get(of(e), uuid) : vm_find(of(e), uuid);

        if (!v)
                return i ? -ENOMEM : 0;
        v->has_instance = i != NULL;
        v->gone = i == NULL;
        if (i)
                v->instance = *i;
        else
                vm_drop_if_gone(v);
        return 0;
}

bool bl_balloon_in_flight(struct bl_engine *e, const uint8_t uuid[BL_UUID_LEN])
{
        const struct vm *v = vm_find(of(e), uuid);

        return v && v->in_flight;
}

static void save(struct balloon *b)
{
        int r = bl_ledger_save(b->ledger, false);

        if (r < 0 && b->o.handler.on_ledger_error)
                b->o.handler.on_ledger_error(b->o.userdata, r);
}

/* --- one command ---------------------------------------------------------------------- */

struct command {
        struct vm *vm;
        uint64_t from;
        uint64_t to;
        bool first; /* it was this one that recorded the original */
        bool undo;
        bool by_hand;
};

static enum bl_outcome outcome_of(int r, const struct bl_balloon_answer *a)
{
        if (r == 0)
                return BL_OUTCOME_DONE;
        if (a->look != BL_LOOK_OK)
                return BL_OUTCOME_REFUSED;
        return a->unknown ? BL_OUTCOME_UNKNOWN : BL_OUTCOME_FAILED;
}

/* What the answer means for what is to be remembered. */
static void record(struct balloon *b, const struct command *c, enum bl_outcome outcome)
{
        bool refused = false;
        enum bl_ledger_target_state state = BL_TARGET_DONE;

        switch (outcome) {
        case BL_OUTCOME_DONE:
                break;
        case BL_OUTCOME_UNKNOWN:
                state = BL_TARGET_UNKNOWN;
                break;
        case BL_OUTCOME_REFUSED:
        case BL_OUTCOME_FAILED:
                refused = true;
                break;
        }
        (void)bl_ledger_end(b->ledger, c->vm->uuid, c->to, refused, state);
        if (refused && c->first)
                (void)bl_ledger_forget_original(b->ledger, c->vm->uuid);
}

static void on_answer(void *userdata, int r, const char *message, const struct bl_balloon_answer *a)
{
        struct command *c = userdata;
        struct vm *v = c->vm;
        struct balloon *b = v->b;
        struct bl_balloon_result result = {
                .from = c->from,
                .to = c->to,
                .outcome = outcome_of(r, a),
                .error = r,
                .look = a->look,
                .found = a->found,
                .message = message,
                .t_command = a->t_command,
                .undo = c->undo,
                .by_hand = c->by_hand,
        };
        int fault;

        memcpy(result.uuid, v->uuid, BL_UUID_LEN);
        v->in_flight = false;
        fault = bl_fault(BL_FAULT_BALLOON_BEFORE_RESULT);
        if (fault == 0) {
                record(b, c, result.outcome);
                save(b);
                fault = bl_fault(BL_FAULT_BALLOON_AFTER_RESULT);
        }
        if (fault < 0 && b->o.handler.on_ledger_error)
                b->o.handler.on_ledger_error(b->o.userdata, fault);
        if (b->o.handler.on_result)
                b->o.handler.on_result(b->o.userdata, &result);
        free(c);
        vm_drop_if_gone(v);
}

/* The record that undo needs is on disk when this returns 0. */
static int write_ahead(struct balloon *b, const struct bl_vm *vm, struct command *c)
{
        int r;

        r = bl_ledger_add(b->ledger, vm->uuid, vm->name, NULL);
        if (r < 0)
                return r;
        r = bl_ledger_set_original(b->ledger, vm->uuid, vm->actual);
        if (r < 0)
                return r;
        c->first = r > 0;
        r = bl_ledger_begin(b->ledger, vm->uuid, c->from, c->to, bl_now_wall());
        if (r == 0)
                r = bl_ledger_save(b->ledger, false);
        if (r < 0)
                record(b, c, BL_OUTCOME_REFUSED);
        return r;
}

static int command(struct balloon *b, const struct bl_vm *vm, struct bl_balloon_request *q, bool undo, bool by_hand)
{
        struct command *c;
        struct vm *v;
        int r;

        v = vm_get(b, vm->uuid);
        if (!v)
                return -ENOMEM;
        if (v->in_flight || bl_pool_hung(bl_conn_pool(b->conn), vm->uuid))
                return -EBUSY;
        c = calloc(1, sizeof(*c));
        if (!c)
                return -ENOMEM;
        memcpy(q->uuid, vm->uuid, BL_UUID_LEN);
        q->instance = v->has_instance ? &v->instance : NULL;
        q->tolerance = TOLERANCE;
        q->force = by_hand;
        *c = (struct command){.vm = v, .from = q->from, .to = q->to, .undo = undo, .by_hand = by_hand};

        r = write_ahead(b, vm, c);
        if (r < 0)
                goto fail;
        r = bl_domain_set_balloon(b->conn, q, on_answer, c);
        if (r < 0) {
                record(b, c, BL_OUTCOME_REFUSED);
                save(b);
                if (r == -EHOSTDOWN)
                        r = -EBUSY;
                goto fail;
        }
        v->in_flight = true;
        /* the answer comes by way of the loop, so this is always before it */
        if (b->o.handler.on_command)
                b->o.handler.on_command(b->o.userdata, vm->uuid, q->from, q->to);
        return 0;

fail:
        free(c);
        return r;
}

/* --- the vtable ------------------------------------------------------------------------- */

static enum bl_no_reclaim balloon_probe(struct bl_engine *e, const struct bl_vm *vm)
{
        (void)e;
        return vm->no_reclaim;
}

static void balloon_propose(struct bl_engine *e, const struct bl_vm *vm, struct bl_offer *ret)
{
        const struct balloon *b = of(e);
        struct bl_offer offer = {.grain = BL_BALLOON_GRAIN, .phase = bl_ledger_phase(b->ledger)};

        if (vm->no_reclaim == BL_RECLAIM_OK) {
                offer.takes = bl_sub_sat(vm->actual, bl_max(vm->reservation, MINIMUM));
                offer.gives = bl_sub_sat(bl_min(vm->max, vm->limit), vm->actual);
        }
        *ret = offer;
}

/* The target in whole pages, within what the VM has. */
static uint64_t clamp_target(const struct bl_vm *vm, uint64_t to)
{
        to = bl_min(to, vm->max);
        return bl_max(to - to % PAGE, bl_min(MINIMUM, vm->max));
}

static int balloon_apply(struct bl_engine *e, const struct bl_vm *vm, const struct bl_decision *d)
{
        struct balloon *b = of(e);
        struct bl_balloon_request q = {
                .from = d->from,
                .to = clamp_target(vm, d->to),
                .transit = vm->target_at && vm->target < d->from ? vm->target : 0,
                .floor = bl_sub_sat(d->floor, d->swaps),
                .available = vm->stats.source == BL_STATS_NONE ? BL_UNSET : vm->stats.available,
        };

        if (!d->act || d->engine != BL_ENGINE_BALLOON)
                return -EINVAL;
        if (vm->no_reclaim != BL_RECLAIM_OK)
                return -EOPNOTSUPP;
        if (q.to < q.from &&
            (vm->actual > bl_add_sat(d->from, TOLERANCE) || vm->actual < bl_sub_sat(d->from, TOLERANCE)))
                return -ESTALE;
        return command(b, vm, &q, false, false);
}

int bl_balloon_set_by_hand(struct bl_engine *e, const struct bl_vm *vm, uint64_t to)
{
        struct balloon *b = of(e);
        struct bl_balloon_request q = {.from = vm->actual, .to = clamp_target(vm, to), .available = BL_UNSET};

        if (vm->no_reclaim == BL_RECLAIM_NO_BALLOON)
                return -EOPNOTSUPP;
        return command(b, vm, &q, false, true);
}

/* --- undo --------------------------------------------------------------------------------- */

static void on_period_undone(void *userdata, int r, const char *message)
{
        struct vm *v = userdata;
        struct balloon *b = v->b;

        (void)message;
        v->period_in_flight = false;
        v->period_error = r == -ENOENT ? 0 : r;
        /* a VM that is gone has nothing to be undone */
        if ((r == 0 || r == -ENOENT) && bl_fault(BL_FAULT_UNDO_BEFORE_FORGET) == 0) {
                (void)bl_ledger_forget_original_period(b->ledger, v->uuid);
                save(b);
        }
        vm_drop_if_gone(v);
}

static int undo_period(struct balloon *b, struct vm *v, int seconds)
{
        int r;

        if (v->period_in_flight || bl_now() < v->period_retry_at)
                return 0;
        if (v->period_error < 0) {
                r = v->period_error;
                v->period_error = 0;
                v->period_retry_at = bl_now() + UNDO_PATIENCE;
                return r;
        }
        r = bl_domain_set_period(b->conn, v->uuid, v->has_instance ? &v->instance : NULL, (unsigned)seconds,
                                 on_period_undone, v);
        if (r < 0)
                return r;
        v->period_in_flight = true;
        return 0;
}

static bool reached(uint64_t actual, uint64_t target)
{
        return actual <= bl_add_sat(target, REACHED_SLACK) && actual >= bl_sub_sat(target, REACHED_SLACK);
}

/* One step from `at` towards `original`; BL_UNSET: not now. */
static uint64_t undo_target(const struct balloon *b, const struct bl_vm *vm, uint64_t at, uint64_t original,
                            uint64_t room)
{
        uint64_t step, to;

        if (at < original) {
                step = bl_min(UNDO_STEP, room);
                if (original - at <= step)
                        return original;
                to = bl_watch_sign(at + step, bl_ledger_phase(b->ledger));
                return to > at ? to : BL_UNSET;
        }
        /* it had less before than it has now */
        if (vm->stats.source != BL_STATS_NONE && vm->stats.available != BL_UNSET)
                step = bl_min(UNDO_STEP, bl_sub_sat(vm->stats.available, UNDO_LEAVE));
        else
                step = UNDO_BLIND_STEP;
        if (at - original <= step)
                return original;
        to = bl_watch_sign(at - step, bl_ledger_phase(b->ledger)) + BL_BALLOON_GRAIN;
        return to < at ? to : BL_UNSET;
}

/* The balloon is as it was. */
static int undo_finish(struct balloon *b, const struct bl_vm *vm)
{
        if (bl_fault(BL_FAULT_UNDO_BEFORE_FORGET) < 0)
                return -EIO;
        (void)bl_ledger_forget_original(b->ledger, vm->uuid);
        (void)bl_ledger_forget_targets(b->ledger, vm->uuid);
        save(b);
        return 1;
}

static int undo_balloon(struct balloon *b, const struct vm *v, const struct bl_vm *vm, const struct bl_ledger_vm *lv,
                        uint64_t room)
{
        const struct bl_ledger_target *last = lv->n_targets > 0 ? &lv->targets[lv->n_targets - 1] : NULL;
        bool told = last && last->to == lv->original && last->state == BL_TARGET_DONE;
        struct bl_balloon_request q = {.from = vm->actual, .available = BL_UNSET};
        uint64_t at = vm->actual, waited;
        int r;

        if (v->in_flight)
                return 0;
        /* as it was, and not on its way to somewhere else */
        if (reached(vm->actual, lv->original) && (!last || last->to == lv->original))
                return undo_finish(b, vm);
        waited = vm->target_at == 0 ? UNDO_GIVE_UP : bl_sub_sat(bl_now(), vm->target_at);
        /* it was told, and that is all that can be done for a guest that does not follow */
        if (told)
                return waited < UNDO_GIVE_UP ? 0 : undo_finish(b, vm);
        if (vm->run != BL_RUN_RUNNING)
                return 0;
        if (last && last->state == BL_TARGET_DONE && !reached(vm->actual, last->to)) {
                if (waited < UNDO_PATIENCE)
                        return 0;
                /* it may follow yet, so the next step is one further */
                at = last->to;
        }
        q.to = undo_target(b, vm, at, lv->original, room);
        if (q.to == BL_UNSET)
                return 0;
        r = bl_fault(BL_FAULT_UNDO_BEFORE_STEP);
        if (r == 0)
                r = command(b, vm, &q, true, false);
        return r == -EBUSY ? 0 : r;
}

static int balloon_undo(struct bl_engine *e, const struct bl_vm *vm, uint64_t room)
{
        struct balloon *b = of(e);
        const struct bl_ledger_vm *lv = bl_ledger_find(b->ledger, vm->uuid);
        struct vm *v;
        int r;

        if (!lv || !bl_ledger_vm_dirty(lv))
                return 1;
        v = vm_get(b, vm->uuid);
        if (!v)
                return -ENOMEM;
        if (lv->original != BL_UNSET) {
                r = undo_balloon(b, v, vm, lv, room);
                if (r <= 0)
                        return r;
        }
        if (lv->original_period < 0)
                return 1;
        return undo_period(b, v, lv->original_period);
}

/* --- statistics period ---------------------------------------------------------------------- */

struct period {
        struct vm *vm;
        bool first;
        bl_domain_done_fn fn;
        void *userdata;
};

static void on_period(void *userdata, int r, const char *message)
{
        struct period *p = userdata;
        struct vm *v = p->vm;
        struct balloon *b = v->b;

        v->period_in_flight = false;
        /* not when the connection broke: then it may have been set */
        if (r < 0 && r != -ENOTCONN && p->first) {
                (void)bl_ledger_forget_original_period(b->ledger, v->uuid);
                save(b);
        }
        if (p->fn)
                p->fn(p->userdata, r, message);
        free(p);
        vm_drop_if_gone(v);
}

int bl_balloon_set_period(struct bl_engine *e, const uint8_t uuid[BL_UUID_LEN], const char *name, unsigned now,
                          unsigned seconds, bl_domain_done_fn fn, void *userdata)
{
        struct balloon *b = of(e);
        struct period *p;
        struct vm *v;
        int r = 0;

        if (now > INT32_MAX)
                return -ERANGE;
        v = vm_get(b, uuid);
        p = v ? calloc(1, sizeof(*p)) : NULL;
        if (!p)
                return -ENOMEM;
        *p = (struct period){.vm = v, .fn = fn, .userdata = userdata};
        if (v->period_in_flight) {
                free(p);
                return -EBUSY;
        }
        if (now != seconds) {
                r = bl_ledger_add(b->ledger, uuid, name, NULL);
                if (r == 0)
                        r = bl_ledger_set_original_period(b->ledger, uuid, (int)now);
                p->first = r > 0;
                if (r >= 0)
                        r = bl_ledger_save(b->ledger, false);
        }
        if (r == 0)
                r = bl_domain_set_period(b->conn, uuid, v->has_instance ? &v->instance : NULL, seconds, on_period, p);
        if (r < 0) {
                if (p->first)
                        (void)bl_ledger_forget_original_period(b->ledger, uuid);
                free(p);
                return r;
        }
        v->period_in_flight = true;
        return 0;
}

int bl_balloon_undo_period(struct bl_engine *e, const uint8_t uuid[BL_UUID_LEN])
{
        struct balloon *b = of(e);
        const struct bl_ledger_vm *lv = bl_ledger_find(b->ledger, uuid);
        struct vm *v;

        if (!lv || lv->original_period < 0)
                return 0;
        v = vm_get(b, uuid);
        return v ? undo_period(b, v, lv->original_period) : -ENOMEM;
}

/* --- life ----------------------------------------------------------------------------------- */

int bl_balloon_engine_new(struct bl_conn *conn, struct bl_ledger *ledger, const struct bl_balloon_options *o,
                          struct bl_engine **ret)
{
        static const struct bl_engine_ops ops = {
                .id = BL_ENGINE_BALLOON,
                .name = "balloon",
                .probe = balloon_probe,
                .propose = balloon_propose,
                .apply = balloon_apply,
                .undo = balloon_undo,
        };
        struct balloon *b = calloc(1, sizeof(*b));

        if (!b)
                return -ENOMEM;
        b->engine.ops = &ops;
        b->conn = conn;
        b->ledger = ledger;
        b->o = *o;
        *ret = &b->engine;
        return 0;
}

struct bl_engine *bl_balloon_engine_free(struct bl_engine *e)
{
        struct vm *v, *next;

        if (!e)
                return NULL;
        for (v = of(e)->vms; v; v = next) {
                next = v->next;
                free(v);
        }
        free(of(e));
        return NULL;
}

const char *bl_outcome_to_string(enum bl_outcome o)
{
        switch (o) {
        case BL_OUTCOME_DONE:
                return "done";
        case BL_OUTCOME_REFUSED:
                return "refused";
        case BL_OUTCOME_FAILED:
                return "failed";
        case BL_OUTCOME_UNKNOWN:
                return "unknown";
        }
        return NULL;
}
