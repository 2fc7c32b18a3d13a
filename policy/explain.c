/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A decision in one English sentence, with the figures that led to it. */
#include "internal.h"
#include "text.h"

static void add_change(struct bl_text *t, const struct bl_decision *d)
{
        uint64_t change = bl_distance(d->from, d->to);

        /* "2.0 GiB to 1.9 GiB" would tell less than the change itself */
        if (change < d->from / 4 && change >= BL_MIB && d->from < 1000 * BL_GIB) {
                bl_text_add(t, " (%u MiB to %u MiB)", (unsigned int)(d->from / BL_MIB), (unsigned int)(d->to / BL_MIB));
                return;
        }
        bl_text_add(t, " (");
        bl_text_size(t, d->from);
        bl_text_add(t, " to ");
        bl_text_size(t, d->to);
        bl_text_add(t, ")");
}

static void add_take(struct bl_text *t, const struct bl_decision *d, const char *name)
{
        bl_text_add(t, "takes ");
        bl_text_size(t, bl_sub_sat(d->from, d->to));
        bl_text_add(t, " from ");
        bl_text_name(t, name);
        add_change(t, d);
        bl_text_add(t, ": ");
}

static void add_give(struct bl_text *t, const struct bl_decision *d, const char *name)
{
        bl_text_add(t, "gives ");
        bl_text_size(t, bl_sub_sat(d->to, d->from));
        bl_text_add(t, " to ");
        bl_text_name(t, name);
        add_change(t, d);
        bl_text_add(t, ": ");
}

static void add_put_back(struct bl_text *t, const struct bl_decision *d, const char *name)
{
        bl_text_add(t, "puts the target of ");
        bl_text_name(t, name);
        bl_text_add(t, " back to ");
        bl_text_size(t, d->to);
        bl_text_add(t, ": ");
}

static void add_leave(struct bl_text *t, const char *name)
{
        bl_text_add(t, "leaves ");
        bl_text_name(t, name);
        bl_text_add(t, " alone: ");
}

static void add_host(struct bl_text *t, const struct bl_plan *p, const struct bl_snapshot *s)
{
        bl_text_add(t, "host is %s, ", bl_state_to_string(p->state));
        bl_text_size(t, s->host.free);
        bl_text_add(t, " free of a ");
        bl_text_size(t, p->goal);
        bl_text_add(t, " goal");
}

/* What the guest can spare, or how it can be without it. */
static void add_spare(struct bl_text *t, const struct bl_decision *d, const struct bl_vm *vm,
                      const struct bl_store_state *store)
{
        bl_text_add(t, "; ");
        bl_text_name(t, vm->name);
        if (d->to < d->floor && vm->store.on) {
                bl_text_add(t, " needs ");
                bl_text_size(t, d->floor);
                bl_text_add(t, " and swaps what it lacks into the store, which takes ");
                bl_text_size(t, store->headroom);
                bl_text_add(t, " at once");
                return;
        }
        bl_text_add(t, " has ");
        bl_text_size(t, bl_sub_sat(d->from, d->floor));
        bl_text_add(t, " it does not need");
}

static void add_asks(struct bl_text *t, const struct bl_vm *vm)
{
        bl_text_add(t, "its agent asks for ");
        if (vm->request.bytes > 0 && vm->request.bytes <= vm->max)
                bl_text_size(t, vm->request.bytes);
        else
                bl_text_add(t, "memory");
        if (vm->request.stop)
                bl_text_add(t, ", as its OOM killer is near");
}

/* What the store holds of it. */
static void add_stored(struct bl_text *t, const struct bl_vm *vm)
{
        bl_text_size(t, vm->store.held);
        bl_text_add(t, " in the store");
}

/* Why the store takes no more of it. */
static void add_no_room(struct bl_text *t, const struct bl_vm *vm, const struct bl_store_state *store)
{
        if (vm->store.leaving) {
                bl_text_add(t, "what the store holds of it is being brought back, ");
                bl_text_size(t, vm->store.held);
                bl_text_add(t, " are there still");
        } else if (!store->there) {
                bl_text_add(t, "the store that it swaps on does not answer");
        } else if (store->slow) {
                bl_text_add(t, "the store that it swaps on does not keep up");
        } else if (bl_store_slots(vm) < BL_MIB) {
                bl_text_add(t, "its swap of ");
                bl_text_size(t, vm->store.size);
                bl_text_add(t, " is full");
        } else if (vm->store.limit != BL_UNSET && vm->store.stored + BL_MIB > vm->store.limit) {
                bl_text_add(t, "it has all of its limit of ");
                bl_text_size(t, vm->store.limit);
                bl_text_add(t, " in the store");
        } else {
                bl_text_add(t, "it swaps on the store, which has room for ");
                bl_text_size(t, store->room);
                bl_text_add(t, " in all");
        }
}

static void add_short(struct bl_text *t, const struct bl_decision *d, const struct bl_vm *vm)
{
        if (vm->store.leaving) {
                add_stored(t, vm);
                bl_text_add(t, " are brought back into its memory");
                return;
        }
        if (d->asked) {
                add_asks(t, vm);
                return;
        }
        bl_text_add(t, "it is short of ");
        bl_text_size(t, d->due);
        if (d->floor > d->from) {
                bl_text_add(t, "; it needs ");
                bl_text_size(t, d->floor);
                bl_text_add(t, " and has ");
                bl_text_size(t, d->from);
        } else {
                bl_text_add(t, " by its growth or memory pressure at ");
                bl_text_size(t, d->from);
        }
}

static void add_pageout(struct bl_text *t, const struct bl_decision *d, const char *name)
{
        bl_text_add(t, "pages ");
        bl_text_size(t, bl_sub_sat(d->from, d->to));
        bl_text_add(t, " of ");
        bl_text_name(t, name);
        bl_text_add(t, " out: ");
}

static const char *no_reclaim_text(enum bl_no_reclaim r)
{
        switch (r) {
        case BL_RECLAIM_OK:
                return "its memory can be taken";
        case BL_RECLAIM_NO_BALLOON:
                return "it has no virtio balloon device";
        case BL_RECLAIM_VFIO:
                return "a passed-through device pins its memory";
        case BL_RECLAIM_HUGEPAGES:
                return "it is backed by huge pages, of which a balloon frees nothing";
        case BL_RECLAIM_LOCKED:
                return "its memory is locked";
        case BL_RECLAIM_CONFIDENTIAL:
                return "its memory is encrypted and pinned";
        case _BL_RECLAIM_MAX:
                break;
        }
        return "its memory cannot be taken";
}

static const char *hold_text(enum bl_hold h)
{
        switch (h) {
        case BL_HOLD_NONE:
                return "it is held";
        case BL_HOLD_HAND:
                return "somebody else set its balloon";
        case BL_HOLD_ADMIN:
                return "it was put on hold with ballastctl";
        case BL_HOLD_MANUAL:
                return "its balloon was set with ballastctl";
        case _BL_HOLD_MAX:
                break;
        }
        return "it is held";
}

static void sentence(struct bl_text *t, const struct bl_plan *p, const struct bl_snapshot *s,
                     const struct bl_decision *d, const struct bl_vm *vm)
{
        switch (d->why) {
        case BL_WHY_NOTHING:
                add_leave(t, vm->name);
                if (d->want > d->from && d->want - d->from >= BL_MIB) {
                        bl_text_add(t, "it has ");
                        bl_text_size(t, d->from);
                        bl_text_add(t, " of ");
                        bl_text_size(t, d->want);
                        bl_text_add(t, " and is not short of memory");
                } else {
                        bl_text_add(t, "nothing to do");
                }
                break;
        case BL_WHY_DEAD_BAND:
                add_leave(t, vm->name);
                bl_text_add(t, "the change would be too small to be worth a command");
                break;
        case BL_WHY_SETTLING:
                add_leave(t, vm->name);
                bl_text_add(t, "it was told to %s ", vm->target < d->want ? "shrink" : "grow");
                bl_text_time(t, bl_sub_sat(p->at, vm->target_at));
                bl_text_add(t, " ago and is not turned round yet");
                break;
        case BL_WHY_IN_FLIGHT:
                bl_text_add(t, "waits for ");
                bl_text_name(t, vm->name);
                bl_text_add(t, ": it is on its way from ");
                bl_text_size(t, d->from);
                bl_text_add(t, " to ");
                bl_text_size(t, vm->target);
                break;
        case BL_WHY_TAKE_SOFT:
        case BL_WHY_TAKE_HARD:
        case BL_WHY_TAKE_LOW:
                add_take(t, d, vm->name);
                add_host(t, p, s);
                add_spare(t, d, vm, &s->store);
                break;
        case BL_WHY_TAKE_LEAD:
                add_take(t, d, vm->name);
                bl_text_add(t, "free memory falls by ");
                bl_text_size(t, s->host.growth);
                bl_text_add(t, " per second, ");
                bl_text_size(t, s->host.free);
                bl_text_add(t, " are left, and below ");
                bl_text_size(t, bl_add_sat(p->marks.mark[BL_STATE_SOFT], p->lead));
                bl_text_add(t, " the guests could not give in time");
                add_spare(t, d, vm, &s->store);
                break;
        case BL_WHY_TAKE_PSI:
                add_take(t, d, vm->name);
                bl_text_add(t, "the kernel reports memory stalls with ");
                bl_text_size(t, s->host.free);
                bl_text_add(t, " free");
                add_spare(t, d, vm, &s->store);
                break;
        case BL_WHY_TAKE_FOR_OTHER:
                add_take(t, d, vm->name);
                bl_text_add(t, "another VM is short of memory and entitled to it");
                add_spare(t, d, vm, &s->store);
                break;
        case BL_WHY_TAKE_LIMIT:
                add_take(t, d, vm->name);
                bl_text_add(t, "it is above its limit of ");
                bl_text_size(t, vm->limit);
                if (vm->store.stored > 0) {
                        bl_text_add(t, ", of which the store takes ");
                        bl_text_size(t, vm->store.stored);
                }
                break;
        case BL_WHY_GRANT_NEED:
                add_give(t, d, vm->name);
                add_short(t, d, vm);
                break;
        case BL_WHY_GRANT_RESERVED:
                add_give(t, d, vm->name);
                bl_text_add(t, "it is below its reservation of ");
                bl_text_size(t, vm->reservation);
                break;
        case BL_WHY_GRANT_REST:
                add_give(t, d, vm->name);
                bl_text_add(t, "the host has memory to spare, ");
                bl_text_size(t, s->host.free);
                bl_text_add(t, " free");
                break;
        case BL_WHY_WAIT_FREE:
                add_leave(t, vm->name);
                if (d->from < vm->reservation) {
                        bl_text_add(t, "it is below its reservation of ");
                        bl_text_size(t, vm->reservation);
                } else {
                        add_short(t, d, vm);
                }
                bl_text_add(t, ", and must wait until memory is free (");
                bl_text_size(t, s->host.free);
                bl_text_add(t, " of a ");
                bl_text_size(t, p->goal);
                bl_text_add(t, " goal)");
                break;
        case BL_WHY_PARK_STUCK:
                bl_text_add(t, "puts the target of ");
                bl_text_name(t, vm->name);
                bl_text_add(t, " back to ");
                bl_text_size(t, d->to);
                bl_text_add(t, ", where it stopped: it was told to be ");
                bl_text_size(t, vm->target);
                break;
        case BL_WHY_SKIP_FLOOR:
                add_leave(t, vm->name);
                bl_text_add(t, "at ");
                bl_text_size(t, d->from);
                bl_text_add(t, " it has nothing to spare");
                if (d->floor <= d->from + BL_MIB) {
                        bl_text_add(t, "; it needs ");
                        bl_text_size(t, d->floor);
                }
                break;
        case BL_WHY_SKIP_STUCK:
                add_leave(t, vm->name);
                if (d->stuck) {
                        bl_text_add(t, "it does not follow its balloon target");
                        if (d->retry_at > p->at) {
                                bl_text_add(t, "; it is asked again in ");
                                bl_text_time(t, d->retry_at - p->at);
                        }
                } else {
                        bl_text_add(t, "it gave down to ");
                        bl_text_size(t, d->from);
                        bl_text_add(t, " and no further");
                }
                break;
        case BL_WHY_SKIP_LYING:
                add_leave(t, vm->name);
                bl_text_add(t, "its balloon says ");
                bl_text_size(t, d->from);
                bl_text_add(t, ", but the host still holds ");
                bl_text_size(t, bl_held(vm));
                bl_text_add(t, " for it");
                break;
        case BL_WHY_SKIP_STATS:
                add_leave(t, vm->name);
                bl_text_add(t, "it reports no memory statistics, so what it needs is not known");
                break;
        case BL_WHY_SKIP_ABSURD:
                add_leave(t, vm->name);
                bl_text_add(t, "its memory statistics contradict themselves");
                break;
        case BL_WHY_SKIP_STALE:
                add_leave(t, vm->name);
                bl_text_add(t, "its memory statistics are ");
                bl_text_time(t, bl_sub_sat(p->at, vm->stats.at));
                bl_text_add(t, " old");
                break;
        case BL_WHY_SKIP_HELD:
                add_leave(t, vm->name);
                bl_text_add(t, "%s", hold_text(vm->hold));
                break;
        case BL_WHY_SKIP_UNMANAGED:
                add_leave(t, vm->name);
                bl_text_add(t, "it is not managed");
                break;
        case BL_WHY_SKIP_RECLAIM:
                add_leave(t, vm->name);
                bl_text_add(t, "%s", no_reclaim_text(vm->no_reclaim));
                break;
        case BL_WHY_SKIP_PAUSED:
                add_leave(t, vm->name);
                bl_text_add(t, "it is paused, and its balloon cannot move");
                break;
        case BL_WHY_SKIP_MIGRATING:
                add_leave(t, vm->name);
                bl_text_add(t, "it is being migrated");
                break;
        case BL_WHY_SKIP_HUNG:
                add_leave(t, vm->name);
                bl_text_add(t, "a call to it has not come back");
                break;
        case BL_WHY_SKIP_BOOTING:
                add_leave(t, vm->name);
                bl_text_add(t, "its balloon driver has not been seen yet");
                break;
        case BL_WHY_GRANT_REQUEST:
                add_give(t, d, vm->name);
                add_asks(t, vm);
                break;
        case BL_WHY_STOP_REQUEST:
                add_put_back(t, d, vm->name);
                add_asks(t, vm);
                bl_text_add(t, ", and it was told to be ");
                bl_text_size(t, vm->target);
                break;
        case BL_WHY_SKIP_ASKS:
                add_leave(t, vm->name);
                add_asks(t, vm);
                break;
        case BL_WHY_SKIP_ASKS_IDLY:
                add_leave(t, vm->name);
                add_asks(t, vm);
                bl_text_add(t, ", but it does not use what it gets");
                if (d->deaf_until > p->at) {
                        bl_text_add(t, "; it is heard again in ");
                        bl_text_time(t, d->deaf_until - p->at);
                }
                break;
        case BL_WHY_TAKE_PAGEOUT:
                add_pageout(t, d, vm->name);
                add_host(t, p, s);
                bl_text_add(t, ", and its balloon cannot give that");
                break;
        case BL_WHY_TAKE_IDLE:
                add_pageout(t, d, vm->name);
                bl_text_add(t, "it has been idle for ");
                bl_text_time(t, bl_sub_sat(p->at, vm->idle_since));
                break;
        case BL_WHY_GRANT_THRASH:
                if (d->to > bl_add_sat(d->from, BL_MIB))
                        add_give(t, d, vm->name);
                else
                        add_put_back(t, d, vm->name);
                bl_text_add(t, "it reads back what was pressed out of it");
                if (vm->store.on) {
                        bl_text_add(t, ", with ");
                        add_stored(t, vm);
                }
                break;
        case BL_WHY_SKIP_STORE_FULL:
        case BL_WHY_SKIP_STORE_SLOW:
                add_leave(t, vm->name);
                add_no_room(t, vm, &s->store);
                break;
        case BL_WHY_SKIP_INCOMPRESSIBLE:
                add_leave(t, vm->name);
                bl_text_add(t, "it would have to swap, and its last pages shrank to %u %% only",
                            (unsigned int)(bl_min(vm->store.ratio, BL_WHOLE) / 100));
                break;
        case BL_WHY_SKIP_REFAULTS:
                add_leave(t, vm->name);
                bl_text_add(t, "it read back what was paged out of it");
                break;
        case BL_WHY_SKIP_DRAINING:
                add_leave(t, vm->name);
                add_no_room(t, vm, &s->store);
                break;
        case BL_WHY_STOP_STORE:
                add_put_back(t, d, vm->name);
                add_no_room(t, vm, &s->store);
                break;
        case BL_WHY_TAKE_UNMERGE:
                add_take(t, d, vm->name);
                bl_text_add(t, "merged memory of another VM is to be taken apart, which needs room");
                add_spare(t, d, vm, &s->store);
                break;
        /* of bl_explain_share() and bl_explain_drive() */
        case BL_WHY_SHARE_OFF:
        case BL_WHY_SHARE_MERGE:
        case BL_WHY_SHARE_KEEP:
        case BL_WHY_SHARE_LEAVE:
        case BL_WHY_SHARE_WAIT_ROOM:
        case BL_WHY_SHARE_WAIT_BALLOON:
        case BL_WHY_SHARE_WAIT_EVIDENCE:
        case BL_WHY_SHARE_WAIT_TURN:
        case BL_WHY_SHARE_NO_GAIN:
        case BL_WHY_SHARE_NOT_POSSIBLE:
        case BL_WHY_SHARE_YIELDED:
        case BL_WHY_SHARE_DRIVE:
        case BL_WHY_SHARE_DRIVE_NEW:
        case BL_WHY_SHARE_REST:
        case BL_WHY_SHARE_REST_NONE:
        case BL_WHY_SHARE_ZERO:
        case BL_WHY_SHARE_BLOCKED:
        case BL_WHY_SHARE_BREAKING:
        case _BL_WHY_MAX:
                break;
        }
}

int bl_explain(const struct bl_plan *p, const struct bl_snapshot *s, size_t i, char *buf, size_t size)
{
        struct bl_text t = {.buf = buf, .size = size};

        if (size > 0)
                buf[0] = '\0';
        if (i >= p->n || i >= s->n_vms)
                return 0;
        sentence(&t, p, s, &p->d[i], &s->vms[i]);
        return (int)t.len;
}
