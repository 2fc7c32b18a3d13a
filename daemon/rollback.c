// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Everything back as it was found, at a pace that the host can bear: giving
 * memory back to guests takes it from the host as they use it.
 */
#include <string.h>

#include "daemon/act/balloon.h"
#include "daemon/manager-private.h"
#include "daemon/util/clock.h"

#define STEP_EVERY (200 * BL_MSEC)

static bool by_hand(const struct bl_ledger_vm *v)
{
        return v->hold == BL_HOLD_HAND;
}

bool bl_rollback_running(const struct bl_manager *m)
{
        return bl_ledger_rollback(m->ledger) == BL_ROLLBACK_RUNNING;
}

/* Those that are off now count only as long as it is not known that they are. */
size_t bl_rollback_left(struct bl_manager *m)
{
        size_t left = 0;

        for (size_t i = 0; i < bl_ledger_count(m->ledger); i++) {
                const struct bl_ledger_vm *v = bl_ledger_get(m->ledger, i);

                left += bl_ledger_vm_dirty(v) && (!m->listed || bl_manager_find(m, v->uuid) != NULL);
        }
        return left;
}

/* What may be given now: the host's memory above its soft mark.  The host's own,
 * not the budget's: a budget that is too small for what was there before must
 * not keep Ballast from being taken away. */
static uint64_t room(const struct bl_manager *m)
{
        const struct bl_meminfo *mem = bl_host_meminfo(m->host_sensor);
        struct bl_marks marks;

        if (!mem)
                return 0;
        bl_marks_compute(mem->mem_total, BL_UNSET, &marks);
        return bl_sub_sat(mem->mem_available, marks.mark[BL_STATE_SOFT]);
}

/* Why a VM keeps the whole waiting, once; `why` is a negative errno, or 1: it does not run. */
static void say_it_waits(struct bl_guest *g, int why)
{
        if (g->restore_said == why)
                return;
        g->restore_said = why;
        bl_manager_note(g->m, g, LOG_WARNING, BL_EV_ROLLBACK, "rollback", "waits", BL_UNSET, BL_UNSET,
                        "%s is not restored yet, trying on: %s", g->name,
                        why < 0 ? strerror(-why) : "it is paused, busy or does not answer");
}

static void undo_one(struct bl_manager *m, struct bl_guest *g, const struct bl_vm *vm, uint64_t *left)
{
        g->restoring = true;
        for (int i = 0; i < _BL_ENGINE_MAX; i++) {
                int r = m->engines[i]->ops->undo(m->engines[i], vm, *left);

                if (r < 0 && r != -EBUSY && r != -EAGAIN)
                        say_it_waits(g, r);
        }
        /* what was just given is not seen in use yet */
        *left = bl_sub_sat(*left, bl_sub_sat(g->target, vm->actual));
        /* last: un-merging takes memory that a balloon may need to give */
        (void)bl_share_undo(g, left);
}

/* A record of another process than the one that runs now is not undone to this one. */
static bool is_of(const struct bl_ledger_vm *v, const struct bl_guest *g)
{
        return g->watching || v->instance.pid == 0 || !g->desc || !g->desc->has_instance ||
               bl_instance_equal(&v->instance, &g->desc->instance);
}

static void step(struct bl_manager *m, const struct bl_ledger_vm *v, uint64_t *left)
{
        struct bl_guest *g = bl_manager_find(m, v->uuid);
        struct bl_vm vm;

        if (!g)
                return;
        /* the balloon that somebody else set is theirs */
        if (by_hand(v))
                (void)bl_ledger_forget_original(m->ledger, v->uuid);
        if (!bl_ledger_vm_dirty(v)) {
                if (g->restoring)
                        bl_manager_note(m, g, LOG_INFO, BL_EV_ROLLBACK, "rollback", "done", BL_UNSET, g->actual,
                                        "%s is as it was found", g->name);
                g->restoring = false;
                return;
        }
        /* a VM whose balloon is not known can still get its statistics period back */
        if (!is_of(v, g) || (!bl_guest_to_vm(g, bl_now(), &vm) && (!g->desc || v->original != BL_UNSET)))
                return;
        vm.name = g->name;
        if (v->original != BL_UNSET && (vm.run != BL_RUN_RUNNING || vm.hung))
                say_it_waits(g, 1);
        undo_one(m, g, &vm, left);
}

static int on_step(sd_event_source *s, uint64_t usec, void *userdata)
{
        struct bl_manager *m = userdata;
        uint64_t left;

        (void)usec;
        bl_sample_now(m);
        left = room(m);
        /* without libvirt each step would fail, and be told */
        for (size_t i = 0; i < bl_ledger_count(m->ledger) && m->connected; i++)
                step(m, bl_ledger_get(m->ledger, i), &left);
        if (m->listed && bl_rollback_left(m) == 0) {
                bl_ledger_set_rollback(m->ledger, BL_ROLLBACK_DONE);
                m->rollback_timer = sd_event_source_disable_unref(m->rollback_timer);
                bl_manager_note(m, NULL, LOG_NOTICE, BL_EV_ROLLBACK, "rollback", "done", BL_UNSET, BL_UNSET,
                                "everything is as it was found; Ballast does not act until 'ballastctl act on'");
                (void)bl_manager_save(m, true);
                return 0;
        }
        (void)sd_event_source_set_time(s, bl_now() + STEP_EVERY);
        return sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
}

static int start(struct bl_manager *m)
{
        bl_share_let_go(m);
        for (size_t i = 0; i < m->n_guests; i++) {
                m->guests[i]->restoring = false;
                m->guests[i]->restore_said = 0;
        }
        return sd_event_add_time(m->event, &m->rollback_timer, CLOCK_MONOTONIC, 0, 10 * BL_MSEC, on_step, m);
}

int bl_rollback_resume(struct bl_manager *m)
{
        if (!bl_rollback_running(m))
                return 0;
        bl_manager_note(m, NULL, LOG_NOTICE, BL_EV_RECOVERED, "recover.rollback", "begun", BL_UNSET, BL_UNSET,
                        "a rollback that an earlier ballastd began goes on: %zu VMs are to be put back",
                        bl_rollback_left(m));
        return start(m);
}

void bl_rollback_end(struct bl_manager *m)
{
        bl_ledger_set_rollback(m->ledger, BL_ROLLBACK_NONE);
        m->rollback_timer = sd_event_source_disable_unref(m->rollback_timer);
}

int bl_rollback_begin(struct bl_manager *m)
{
        enum bl_ledger_rollback was = bl_ledger_rollback(m->ledger);
        int act = bl_ledger_act(m->ledger), r;

        bl_ledger_set_act(m->ledger, 0);
        bl_ledger_set_rollback(m->ledger, BL_ROLLBACK_RUNNING);
        r = bl_manager_save(m, true);
        if (r >= 0 && !m->rollback_timer) {
                r = start(m);
                if (r >= 0)
                        bl_manager_note(m, NULL, LOG_NOTICE, BL_EV_ROLLBACK, "rollback", "begun", BL_UNSET, BL_UNSET,
                                        "automatic action is off; %zu VMs are put back as they were found",
                                        bl_rollback_left(m));
        }
        if (r < 0) {
                bl_ledger_set_act(m->ledger, act);
                bl_ledger_set_rollback(m->ledger, was);
        }
        bl_manager_notify_status(m);
        return r;
}
