/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A decision in one English sentence, with the figures that led to it. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "internal.h"

#define SIZE_MAX_LEN 24
#define NAME_MAX_LEN 64

struct text {
        char *buf;
        size_t size;
        size_t len; /* that it would have with room enough, as snprintf counts */
};

static void add(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void add(struct text *t, const char *format, ...)
{
        bool room = t->len < t->size;
        va_list ap;
        int r;

        va_start(ap, format);
        r = vsnprintf(room ? t->buf + t->len : NULL, room ? t->size - t->len : 0, format, ap);
        va_end(ap);
        if (r > 0)
                t->len += (size_t)r;
}

/* "812 MiB", "1.0 GiB": by integers, as floating point would be printed by the locale. */
static void add_size(struct text *t, uint64_t bytes)
{
        static const char *const units[] = {"MiB", "GiB", "TiB", "PiB", "EiB"};
        uint64_t unit = BL_MIB;
        size_t i = 0;

        if (bytes < BL_KIB) {
                add(t, "%u bytes", (unsigned int)bytes);
                return;
        }
        if (bytes < BL_MIB) {
                add(t, "%u KiB", (unsigned int)(bytes / BL_KIB));
                return;
        }
        /* to the nearest MiB, and from there on to the nearest tenth */
        if (bytes < BL_GIB - BL_MIB / 2) {
                add(t, "%u MiB", (unsigned int)((bytes + BL_MIB / 2) / BL_MIB));
                return;
        }
        do {
                unit *= 1024;
                i++;
        } while (i + 1 < sizeof(units) / sizeof(units[0]) && bytes / 1024 >= unit - unit / 20);
        {
                /* tenths, without overflow for any size */
                uint64_t tenths = bytes / unit * 10 + (bytes % unit / 16 * 10 + unit / 32) / (unit / 16);

                add(t, "%u.%u %s", (unsigned int)(tenths / 10), (unsigned int)(tenths % 10), units[i]);
        }
}

/* The name comes from an administrator of the VM, who need not be the one of the host. */
static void add_name(struct text *t, const char *name)
{
        char clean[NAME_MAX_LEN + 4];
        size_t n = 0;

        for (; name && name[n] && n < NAME_MAX_LEN; n++)
                clean[n] = (unsigned char)name[n] < 0x20 || name[n] == 0x7f ? '?' : name[n];
        if (name && name[n]) {
                /* not in the middle of a UTF-8 character */
                while (n > 0 && ((unsigned char)name[n] & 0xc0) == 0x80)
                        n--;
                memcpy(clean + n, "...", 3);
                n += 3;
        }
        clean[n] = '\0';
        add(t, "%s", n > 0 ? clean : "(unnamed)");
}

static void add_time(struct text *t, usec_t time)
{
        uint64_t s = (time + BL_SEC - 1) / BL_SEC;

        if (s < 120)
                add(t, "%u s", (unsigned int)s);
        else
                add(t, "%u min", (unsigned int)bl_min((s + 59) / 60, 1000000));
}

static void add_change(struct text *t, const struct bl_decision *d)
{
        uint64_t change = bl_distance(d->from, d->to);

        /* "2.0 GiB to 1.9 GiB" would tell less than the change itself */
        if (change < d->from / 4 && change >= BL_MIB && d->from < 1000 * BL_GIB) {
                add(t, " (%u MiB to %u MiB)", (unsigned int)(d->from / BL_MIB), (unsigned int)(d->to / BL_MIB));
                return;
        }
        add(t, " (");
        add_size(t, d->from);
        add(t, " to ");
        add_size(t, d->to);
        add(t, ")");
}

static void add_take(struct text *t, const struct bl_decision *d, const char *name)
{
        add(t, "takes ");
        add_size(t, bl_sub_sat(d->from, d->to));
        add(t, " from ");
        add_name(t, name);
        add_change(t, d);
        add(t, ": ");
}

static void add_give(struct text *t, const struct bl_decision *d, const char *name)
{
        add(t, "gives ");
        add_size(t, bl_sub_sat(d->to, d->from));
        add(t, " to ");
        add_name(t, name);
        add_change(t, d);
        add(t, ": ");
}

static void add_put_back(struct text *t, const struct bl_decision *d, const char *name)
{
        add(t, "puts the target of ");
        add_name(t, name);
        add(t, " back to ");
        add_size(t, d->to);
        add(t, ": ");
}

static void add_leave(struct text *t, const char *name)
{
        add(t, "leaves ");
        add_name(t, name);
        add(t, " alone: ");
}

static void add_host(struct text *t, const struct bl_plan *p, const struct bl_snapshot *s)
{
        add(t, "host is %s, ", bl_state_to_string(p->state));
        add_size(t, s->host.free);
        add(t, " free of a ");
        add_size(t, p->goal);
        add(t, " goal");
}

/* What the guest can spare, or how it can be without it. */
static void add_spare(struct text *t, const struct bl_decision *d, const struct bl_vm *vm,
                      const struct bl_store_state *store)
{
        add(t, "; ");
        add_name(t, vm->name);
        if (d->to < d->floor && vm->store.on) {
                add(t, " needs ");
                add_size(t, d->floor);
                add(t, " and swaps what it lacks into the store, which takes ");
                add_size(t, store->headroom);
                add(t, " at once");
                return;
        }
        add(t, " has ");
        add_size(t, bl_sub_sat(d->from, d->floor));
        add(t, " it does not need");
}

static void add_asks(struct text *t, const struct bl_vm *vm)
{
        add(t, "its agent asks for ");
        if (vm->request.bytes > 0 && vm->request.bytes <= vm->max)
                add_size(t, vm->request.bytes);
        else
                add(t, "memory");
        if (vm->request.stop)
                add(t, ", as its OOM killer is near");
}

/* What the store holds of it. */
static void add_stored(struct text *t, const struct bl_vm *vm)
{
        add_size(t, vm->store.held);
        add(t, " in the store");
}

/* Why the store takes no more of it. */
static void add_no_room(struct text *t, const struct bl_vm *vm, const struct bl_store_state *store)
{
        if (vm->store.leaving) {
                add(t, "what the store holds of it is being brought back, ");
                add_size(t, vm->store.held);
                add(t, " are there still");
        } else if (!store->there) {
                add(t, "the store that it swaps on does not answer");
        } else if (store->slow) {
                add(t, "the store that it swaps on does not keep up");
        } else if (bl_store_slots(vm) < BL_MIB) {
                add(t, "its swap of ");
                add_size(t, vm->store.size);
                add(t, " is full");
        } else if (vm->store.limit != BL_UNSET && vm->store.stored + BL_MIB > vm->store.limit) {
                add(t, "it has all of its limit of ");
                add_size(t, vm->store.limit);
                add(t, " in the store");
        } else {
                add(t, "it swaps on the store, which has room for ");
                add_size(t, store->room);
                add(t, " in all");
        }
}

static void add_short(struct text *t, const struct bl_decision *d, const struct bl_vm *vm)
{
        if (vm->store.leaving) {
                add_stored(t, vm);
                add(t, " are brought back into its memory");
                return;
        }
        if (d->asked) {
                add_asks(t, vm);
                return;
        }
        add(t, "it is short of ");
        add_size(t, d->due);
        if (d->floor > d->from) {
                add(t, "; it needs ");
                add_size(t, d->floor);
                add(t, " and has ");
                add_size(t, d->from);
        } else {
                add(t, " by its growth or memory pressure at ");
                add_size(t, d->from);
        }
}

static void add_pageout(struct text *t, const struct bl_decision *d, const char *name)
{
        add(t, "pages ");
        add_size(t, bl_sub_sat(d->from, d->to));
        add(t, " of ");
        add_name(t, name);
        add(t, " out: ");
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

static void sentence(struct text *t, const struct bl_plan *p, const struct bl_snapshot *s, const struct bl_decision *d,
                     const struct bl_vm *vm)
{
        switch (d->why) {
        case BL_WHY_NOTHING:
                add_leave(t, vm->name);
                if (d->want > d->from && d->want - d->from >= BL_MIB) {
                        add(t, "it has ");
                        add_size(t, d->from);
                        add(t, " of ");
                        add_size(t, d->want);
                        add(t, " and is not short of memory");
                } else {
                        add(t, "nothing to do");
                }
                break;
        case BL_WHY_DEAD_BAND:
                add_leave(t, vm->name);
                add(t, "the change would be too small to be worth a command");
                break;
        case BL_WHY_SETTLING:
                add_leave(t, vm->name);
                add(t, "it was told to %s ", vm->target < d->want ? "shrink" : "grow");
                add_time(t, bl_sub_sat(p->at, vm->target_at));
                add(t, " ago and is not turned round yet");
                break;
        case BL_WHY_IN_FLIGHT:
                add(t, "waits for ");
                add_name(t, vm->name);
                add(t, ": it is on its way from ");
                add_size(t, d->from);
                add(t, " to ");
                add_size(t, vm->target);
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
                add(t, "free memory falls by ");
                add_size(t, s->host.growth);
                add(t, " per second, ");
                add_size(t, s->host.free);
                add(t, " are left, and below ");
                add_size(t, bl_add_sat(p->marks.mark[BL_STATE_SOFT], p->lead));
                add(t, " the guests could not give in time");
                add_spare(t, d, vm, &s->store);
                break;
        case BL_WHY_TAKE_PSI:
                add_take(t, d, vm->name);
                add(t, "the kernel reports memory stalls with ");
                add_size(t, s->host.free);
                add(t, " free");
                add_spare(t, d, vm, &s->store);
                break;
        case BL_WHY_TAKE_FOR_OTHER:
                add_take(t, d, vm->name);
                add(t, "another VM is short of memory and entitled to it");
                add_spare(t, d, vm, &s->store);
                break;
        case BL_WHY_TAKE_LIMIT:
                add_take(t, d, vm->name);
                add(t, "it is above its limit of ");
                add_size(t, vm->limit);
                if (vm->store.stored > 0) {
                        add(t, ", of which the store takes ");
                        add_size(t, vm->store.stored);
                }
                break;
        case BL_WHY_GRANT_NEED:
                add_give(t, d, vm->name);
                add_short(t, d, vm);
                break;
        case BL_WHY_GRANT_RESERVED:
                add_give(t, d, vm->name);
                add(t, "it is below its reservation of ");
                add_size(t, vm->reservation);
                break;
        case BL_WHY_GRANT_REST:
                add_give(t, d, vm->name);
                add(t, "the host has memory to spare, ");
                add_size(t, s->host.free);
                add(t, " free");
                break;
        case BL_WHY_WAIT_FREE:
                add_leave(t, vm->name);
                if (d->from < vm->reservation) {
                        add(t, "it is below its reservation of ");
                        add_size(t, vm->reservation);
                } else {
                        add_short(t, d, vm);
                }
                add(t, ", and must wait until memory is free (");
                add_size(t, s->host.free);
                add(t, " of a ");
                add_size(t, p->goal);
                add(t, " goal)");
                break;
        case BL_WHY_PARK_STUCK:
                add(t, "puts the target of ");
                add_name(t, vm->name);
                add(t, " back to ");
                add_size(t, d->to);
                add(t, ", where it stopped: it was told to be ");
                add_size(t, vm->target);
                break;
        case BL_WHY_SKIP_FLOOR:
                add_leave(t, vm->name);
                add(t, "at ");
                add_size(t, d->from);
                add(t, " it has nothing to spare");
                if (d->floor <= d->from + BL_MIB) {
                        add(t, "; it needs ");
                        add_size(t, d->floor);
                }
                break;
        case BL_WHY_SKIP_STUCK:
                add_leave(t, vm->name);
                if (d->stuck) {
                        add(t, "it does not follow its balloon target");
                        if (d->retry_at > p->at) {
                                add(t, "; it is asked again in ");
                                add_time(t, d->retry_at - p->at);
                        }
                } else {
                        add(t, "it gave down to ");
                        add_size(t, d->from);
                        add(t, " and no further");
                }
                break;
        case BL_WHY_SKIP_LYING:
                add_leave(t, vm->name);
                add(t, "its balloon says ");
                add_size(t, d->from);
                add(t, ", but the host still holds ");
                add_size(t, bl_held(vm));
                add(t, " for it");
                break;
        case BL_WHY_SKIP_STATS:
                add_leave(t, vm->name);
                add(t, "it reports no memory statistics, so what it needs is not known");
                break;
        case BL_WHY_SKIP_ABSURD:
                add_leave(t, vm->name);
                add(t, "its memory statistics contradict themselves");
                break;
        case BL_WHY_SKIP_STALE:
                add_leave(t, vm->name);
                add(t, "its memory statistics are ");
                add_time(t, bl_sub_sat(p->at, vm->stats.at));
                add(t, " old");
                break;
        case BL_WHY_SKIP_HELD:
                add_leave(t, vm->name);
                add(t, "%s", hold_text(vm->hold));
                break;
        case BL_WHY_SKIP_UNMANAGED:
                add_leave(t, vm->name);
                add(t, "it is not managed");
                break;
        case BL_WHY_SKIP_RECLAIM:
                add_leave(t, vm->name);
                add(t, "%s", no_reclaim_text(vm->no_reclaim));
                break;
        case BL_WHY_SKIP_PAUSED:
                add_leave(t, vm->name);
                add(t, "it is paused, and its balloon cannot move");
                break;
        case BL_WHY_SKIP_MIGRATING:
                add_leave(t, vm->name);
                add(t, "it is being migrated");
                break;
        case BL_WHY_SKIP_HUNG:
                add_leave(t, vm->name);
                add(t, "a call to it has not come back");
                break;
        case BL_WHY_SKIP_BOOTING:
                add_leave(t, vm->name);
                add(t, "its balloon driver has not been seen yet");
                break;
        case BL_WHY_GRANT_REQUEST:
                add_give(t, d, vm->name);
                add_asks(t, vm);
                break;
        case BL_WHY_STOP_REQUEST:
                add_put_back(t, d, vm->name);
                add_asks(t, vm);
                add(t, ", and it was told to be ");
                add_size(t, vm->target);
                break;
        case BL_WHY_SKIP_ASKS:
                add_leave(t, vm->name);
                add_asks(t, vm);
                break;
        case BL_WHY_SKIP_ASKS_IDLY:
                add_leave(t, vm->name);
                add_asks(t, vm);
                add(t, ", but it does not use what it gets");
                if (d->deaf_until > p->at) {
                        add(t, "; it is heard again in ");
                        add_time(t, d->deaf_until - p->at);
                }
                break;
        case BL_WHY_TAKE_PAGEOUT:
                add_pageout(t, d, vm->name);
                add_host(t, p, s);
                add(t, ", and its balloon cannot give that");
                break;
        case BL_WHY_TAKE_IDLE:
                add_pageout(t, d, vm->name);
                add(t, "it has been idle for ");
                add_time(t, bl_sub_sat(p->at, vm->idle_since));
                break;
        case BL_WHY_GRANT_THRASH:
                if (d->to > bl_add_sat(d->from, BL_MIB))
                        add_give(t, d, vm->name);
                else
                        add_put_back(t, d, vm->name);
                add(t, "it reads back what was pressed out of it");
                if (vm->store.on) {
                        add(t, ", with ");
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
                add(t, "it would have to swap, and its last pages shrank to %u %% only",
                    (unsigned int)(bl_min(vm->store.ratio, BL_WHOLE) / 100));
                break;
        case BL_WHY_SKIP_REFAULTS:
                add_leave(t, vm->name);
                add(t, "it read back what was paged out of it");
                break;
        case BL_WHY_SKIP_DRAINING:
                add_leave(t, vm->name);
                add_no_room(t, vm, &s->store);
                break;
        case BL_WHY_STOP_STORE:
                add_put_back(t, d, vm->name);
                add_no_room(t, vm, &s->store);
                break;
        case _BL_WHY_MAX:
                break;
        }
}

int bl_explain(const struct bl_plan *p, const struct bl_snapshot *s, size_t i, char *buf, size_t size)
{
        struct text t = {.buf = buf, .size = size};

        if (size > 0)
                buf[0] = '\0';
        if (i >= p->n || i >= s->n_vms)
                return 0;
        sentence(&t, p, s, &p->d[i], &s->vms[i]);
        return (int)t.len;
}
