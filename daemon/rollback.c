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

size_t bl_rollback_left(struct bl_manager *m)
{
        size_t left = 0;

        for (size_t i = 0; i < bl_ledger_count(m->ledger); i++) {
                const struct bl_ledger_vm *v = bl_ledger_get(m->ledger, i);

                left += bl_ledger_vm_dirty(v) && bl_manager_find(m, v->uuid) != NULL;
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

static void undo_one(struct bl_manager *m, struct bl_guest *g, const struct bl_vm *vm, uint64_t *left)
{
        uint64_t before = vm->actual;
        int r;

        for (int i = 0; i < _BL_ENGINE_MAX; i++) {
                r = m->engines[i]->ops->undo(m->engines[i], vm, *left);
                if (r < 0 && r != -EBUSY && r != -EAGAIN)
                        bl_log(LOG_WARNING, BL_EV_ROLLBACK, g->name, "rollback", "%s is not restored yet: %s", g->name,
                               strerror(-r));
                if (r == 1)
                        bl_manager_note(m, g, LOG_INFO, BL_EV_ROLLBACK, "rollback", "done", BL_UNSET, before,
                                        "%s is as it was found", g->name);
        }
        /* what was just given is not seen in use yet */
        *left = bl_sub_sat(*left, bl_sub_sat(g->target, before));
}

static int on_step(sd_event_source *s, uint64_t usec, void *userdata)
{
        struct bl_manager *m = userdata;
        uint64_t left;

        (void)usec;
        bl_sample_now(m);
        left = room(m);
        for (size_t i = 0; i < bl_ledger_count(m->ledger); i++) {
                const struct bl_ledger_vm *v = bl_ledger_get(m->ledger, i);
                struct bl_guest *g = bl_manager_find(m, v->uuid);
                struct bl_vm vm;

                if (!g || !bl_ledger_vm_dirty(v))
                        continue;
                /* the balloon that somebody else set is theirs */
                if (by_hand(v))
                        (void)bl_ledger_forget_original(m->ledger, v->uuid);
                /* a VM whose balloon is not known can still get its statistics period back */
                if (!bl_guest_to_vm(g, bl_now(), &vm) && (!g->desc || v->original != BL_UNSET))
                        continue;
                vm.name = g->name;
                undo_one(m, g, &vm, &left);
        }
        if (bl_rollback_left(m) == 0) {
                m->rolling_back = false;
                m->rolled_back = true;
                bl_manager_note(m, NULL, LOG_NOTICE, BL_EV_ROLLBACK, "rollback", "done", BL_UNSET, BL_UNSET,
                                "everything is as it was found; Ballast does not act until 'ballastctl act on'");
                m->rollback_timer = sd_event_source_unref(m->rollback_timer);
                (void)bl_manager_save(m, true);
                return 0;
        }
        (void)sd_event_source_set_time(s, bl_now() + STEP_EVERY);
        return sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
}

int bl_rollback_begin(struct bl_manager *m)
{
        int r;

        bl_ledger_set_act(m->ledger, 0);
        r = bl_manager_save(m, true);
        if (r < 0)
                return r;
        if (m->rolling_back)
                return 0;
        r = sd_event_add_time(m->event, &m->rollback_timer, CLOCK_MONOTONIC, 0, 10 * BL_MSEC, on_step, m);
        if (r < 0)
                return r;
        m->rolling_back = true;
        bl_manager_note(m, NULL, LOG_NOTICE, BL_EV_ROLLBACK, "rollback", "begun", BL_UNSET, BL_UNSET,
                        "automatic action is off; %zu VMs are put back as they were found", bl_rollback_left(m));
        return 0;
}
