/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is done about equal pages, in one English sentence, with the figures that led to it. */
#include "internal.h"
#include "text.h"

static void add_out(struct bl_text *t, const struct bl_vm *vm)
{
        bl_text_add(t, "takes ");
        bl_text_name(t, vm->name);
        bl_text_add(t, " out of merging: ");
}

static void add_kept(struct bl_text *t, const struct bl_vm *vm)
{
        bl_text_add(t, "leaves ");
        bl_text_name(t, vm->name);
        bl_text_add(t, " merged for now: ");
}

static void add_not(struct bl_text *t, const struct bl_vm *vm, bool yet)
{
        bl_text_add(t, "does not merge ");
        bl_text_name(t, vm->name);
        bl_text_add(t, yet ? " yet: " : ": ");
}

static void add_gain(struct bl_text *t, const struct bl_vm *vm)
{
        bl_text_add(t, "about ");
        bl_text_size(t, vm->share.gain);
        bl_text_add(t, " of its ");
        bl_text_size(t, bl_sharing_present(vm));
        bl_text_add(t, " have copies");
}

/* What a CPU-second of ksmd would bring. */
static void add_value(struct bl_text *t, const struct bl_share_state *s, const struct bl_vm *vm)
{
        usec_t cost = bl_sharing_cost(s, bl_sharing_present(vm), BL_SHARING_PASSES, vm->share.gain);

        bl_text_size(t, bl_mul_sat(vm->share.gain, BL_SEC) / bl_max(cost, 1));
        bl_text_add(t, " for a CPU-second of ksmd");
}

static void add_host(struct bl_text *t, const struct bl_plan *p, const struct bl_snapshot *s)
{
        bl_text_add(t, "the host has ");
        bl_text_size(t, s->host.free);
        bl_text_add(t, " free of a ");
        bl_text_size(t, p->goal);
        bl_text_add(t, " goal");
}

/* Why it must not be merged. */
static void add_must_not(struct bl_text *t, const struct bl_snapshot *s, const struct bl_vm *vm)
{
        if (vm->share.no_share != BL_NO_SHARE_OK && vm->share.no_share != BL_NO_SHARE_HOST)
                bl_text_add(t, "%s", bl_no_share_explain(vm->share.no_share));
        else if (s->share.mode == BL_SHARE_OFF)
                bl_text_add(t, "page sharing is off (Mode= of [Sharing] in ballast.conf)");
        else if (vm->share.mode == BL_SHARE_OFF)
                bl_text_add(t, "it is not to be");
        else
                bl_text_add(t, "only its pages of zeros may go, and nothing of it is merged with others");
}

/* Who keeps ksmd from being driven. */
static void add_blocker(struct bl_text *t, const struct bl_snapshot *s)
{
        for (size_t i = 0; i < s->n_vms; i++) {
                const struct bl_vm *vm = &s->vms[i];

                if (!bl_sharing_in_the_way(s, vm))
                        continue;
                bl_text_name(t, vm->name);
                bl_text_add(t, vm->share.merging < 0
                                       ? " must not be merged, and it is not known yet whether it is registered"
                                       : " must not be merged, and is still registered");
                return;
        }
        bl_text_add(t, "a VM that must not be merged is registered");
}

static void add_leave(struct bl_text *t, const struct bl_snapshot *s, const struct bl_share_decision *d,
                      const struct bl_vm *vm)
{
        uint64_t breaks = bl_sharing_breaks(vm);

        if (!d->act && vm->share.busy) {
                bl_text_add(t, "waits for ");
                bl_text_name(t, vm->name);
                bl_text_add(t, ": it is being told to leave merging, which takes ");
                bl_text_size(t, breaks);
                return;
        }
        if (!d->act) {
                add_kept(t, vm);
                bl_text_add(t, vm->share.refused ? "its QEMU refused to take it out, and is asked again"
                                                 : "it can be told nothing at the moment");
                return;
        }
        add_out(t, vm);
        if (bl_sharing_must_not(s, vm)) {
                add_must_not(t, s, vm);
        } else {
                bl_text_add(t, "it saves ");
                bl_text_size(t, bl_sharing_saves(vm));
                bl_text_add(t, ", less than the kernel keeps for its ");
                bl_text_size(t, bl_sharing_present(vm));
                bl_text_add(t, ", or a quarter of that and of what passes over it cost");
        }
        if (breaks >= BL_MIB) {
                bl_text_add(t, "; that takes ");
                bl_text_size(t, breaks);
        }
}

static void add_evidence(struct bl_text *t, const struct bl_vm *vm)
{
        const struct bl_vm_share *v = &vm->share;

        if (v->merging < 0) {
                bl_text_add(t, "it is not known yet whether it is registered");
        } else if (v->evidence_at == 0) {
                bl_text_add(t, "not enough of it was looked at");
        } else {
                bl_text_add(t, "between ");
                bl_text_size(t, v->gain_low);
                bl_text_add(t, " and ");
                bl_text_size(t, v->gain_high);
                bl_text_add(t, " of it have copies, and more of it is looked at");
        }
}

/* One of these for each reason. */
struct about {
        struct bl_text *t;
        const struct bl_plan *p;
        const struct bl_snapshot *s;
        const struct bl_share_decision *d; /* of the VM; NULL: it is about ksmd */
        const struct bl_vm *vm;
};

static void say_off(const struct about *a)
{
        add_not(a->t, a->vm, false);
        add_must_not(a->t, a->s, a->vm);
}

static void say_merge(const struct about *a)
{
        bl_text_add(a->t, a->d->act ? "merges " : "waits for ");
        bl_text_name(a->t, a->vm->name);
        bl_text_add(a->t, a->d->act ? ": " : ", which is being merged: ");
        add_gain(a->t, a->vm);
        bl_text_add(a->t, ", ");
        add_value(a->t, &a->s->share, a->vm);
}

static void say_keep(const struct about *a)
{
        bl_text_add(a->t, "keeps ");
        bl_text_name(a->t, a->vm->name);
        bl_text_add(a->t, " merged: ");
        bl_text_size(a->t, a->vm->share.merged);
        bl_text_add(a->t, " of its ");
        bl_text_size(a->t, bl_sharing_present(a->vm));
        bl_text_add(a->t, " are, which saves ");
        bl_text_size(a->t, bl_sharing_saves(a->vm));
}

static void say_leave(const struct about *a)
{
        add_leave(a->t, a->s, a->d, a->vm);
}

static void say_wait_room(const struct about *a)
{
        add_kept(a->t, a->vm);
        bl_text_add(a->t, "taking it apart needs ");
        bl_text_size(a->t, bl_sharing_breaks(a->vm));
        bl_text_add(a->t, " at once, and ");
        add_host(a->t, a->p, a->s);
}

/* It is not merged, or it is registered and leaves until it can be. */
static void add_not_yet(const struct about *a)
{
        if (a->d->act)
                add_out(a->t, a->vm);
        else
                add_not(a->t, a->vm, true);
}

static void say_wait_balloon(const struct about *a)
{
        add_not_yet(a);
        bl_text_add(a->t, "a part of its memory is about to be taken");
}

static void say_wait_evidence(const struct about *a)
{
        add_not_yet(a);
        add_evidence(a->t, a->vm);
}

static void say_wait_turn(const struct about *a)
{
        if (bl_sharing_must_not(a->s, a->vm)) {
                add_kept(a->t, a->vm);
                bl_text_add(a->t, "another VM is taken apart first");
                return;
        }
        add_not_yet(a);
        add_gain(a->t, a->vm);
        bl_text_add(a->t, a->p->share.drive ? ", and others bring more for the time of ksmd"
                                            : ", which alone is not worth a pass over all that is merged");
}

static void say_no_gain(const struct about *a)
{
        if (a->d->act)
                add_out(a->t, a->vm);
        else
                add_not(a->t, a->vm, false);
        add_gain(a->t, a->vm);
        bl_text_add(a->t, ", which is too little, or was promised before and did not come");
}

static void say_not_possible(const struct about *a)
{
        if (!a->vm) {
                bl_text_add(a->t, "cannot use KSM on this host");
                return;
        }
        add_not(a->t, a->vm, false);
        if (bl_sharing_must_not(a->s, a->vm))
                add_must_not(a->t, a->s, a->vm);
        else
                bl_text_add(a->t, a->vm->share.refused ? "its QEMU refused, and is asked again"
                                                       : "KSM cannot be used on this host");
}

static void say_yielded(const struct about *a)
{
        if (!a->vm) {
                bl_text_add(a->t, "leaves KSM alone: somebody else drives it ('ballastctl share resume' takes it "
                                  "back)");
                return;
        }
        bl_text_add(a->t, "leaves ");
        bl_text_name(a->t, a->vm->name);
        bl_text_add(a->t, " as it is: somebody else drives KSM");
}

static void say_zero(const struct about *a)
{
        bl_text_add(a->t, "pages ");
        bl_text_size(a->t, a->d->zero_out);
        bl_text_add(a->t, " of ");
        bl_text_name(a->t, a->vm->name);
        bl_text_add(a->t, " out, which are zeros");
}

static void say_blocked(const struct about *a)
{
        if (a->vm)
                add_not(a->t, a->vm, true);
        else
                bl_text_add(a->t, "keeps ksmd still: ");
        add_blocker(a->t, a->s);
}

static void say_breaking(const struct about *a)
{
        if (a->vm)
                add_not(a->t, a->vm, true);
        else
                bl_text_add(a->t, "lets ksmd rest: ");
        bl_text_add(a->t, "what is merged breaks apart fast, and ");
        add_host(a->t, a->p, a->s);
}

static void say_hung(const struct about *a)
{
        add_not(a->t, a->vm, true);
        bl_text_add(a->t, "a call to it has not come back");
}

static void say_migrating(const struct about *a)
{
        add_not(a->t, a->vm, true);
        bl_text_add(a->t, "it is being migrated");
}

static void say_drive(const struct about *a)
{
        bl_text_add(a->t, "drives ksmd: ");
        if (a->p->share.gain < BL_MIB) {
                bl_text_add(a->t, "what was promised is merged, and the passes are not over");
                return;
        }
        bl_text_add(a->t, a->p->share.why == BL_WHY_SHARE_DRIVE_NEW ? "VMs have come of which about "
                                                                    : "duplicates have grown of which about ");
        bl_text_size(a->t, a->p->share.gain);
        bl_text_add(a->t, " are to be merged still");
}

static void say_rest(const struct about *a)
{
        bl_text_add(a->t, "lets ksmd rest: what is left does not pay for its time; ");
        bl_text_size(a->t, a->s->share.merged);
        bl_text_add(a->t, " are merged, and stay so");
}

static void say_rest_none(const struct about *a)
{
        bl_text_add(a->t, "lets ksmd rest: there is nothing to merge");
}

static void say_off_drive(const struct about *a)
{
        bl_text_add(a->t, a->s->share.mode == BL_SHARE_ZERO
                                  ? "does not use KSM: only pages of zeros go out, and nothing is merged"
                                  : "does not use KSM: page sharing is off (Mode= of [Sharing] in ballast.conf)");
}

typedef void (*say_fn)(const struct about *a);

static const say_fn of_vms[_BL_WHY_MAX] = {
        [BL_WHY_SHARE_OFF] = say_off,
        [BL_WHY_SHARE_MERGE] = say_merge,
        [BL_WHY_SHARE_KEEP] = say_keep,
        [BL_WHY_SHARE_LEAVE] = say_leave,
        [BL_WHY_SHARE_WAIT_ROOM] = say_wait_room,
        [BL_WHY_SHARE_WAIT_BALLOON] = say_wait_balloon,
        [BL_WHY_SHARE_WAIT_EVIDENCE] = say_wait_evidence,
        [BL_WHY_SHARE_WAIT_TURN] = say_wait_turn,
        [BL_WHY_SHARE_NO_GAIN] = say_no_gain,
        [BL_WHY_SHARE_NOT_POSSIBLE] = say_not_possible,
        [BL_WHY_SHARE_YIELDED] = say_yielded,
        [BL_WHY_SHARE_ZERO] = say_zero,
        [BL_WHY_SHARE_BLOCKED] = say_blocked,
        [BL_WHY_SHARE_BREAKING] = say_breaking,
        [BL_WHY_SKIP_HUNG] = say_hung,
        [BL_WHY_SKIP_MIGRATING] = say_migrating,
};

static const say_fn of_ksmd[_BL_WHY_MAX] = {
        [BL_WHY_SHARE_OFF] = say_off_drive,
        [BL_WHY_SHARE_DRIVE] = say_drive,
        [BL_WHY_SHARE_DRIVE_NEW] = say_drive,
        [BL_WHY_SHARE_REST] = say_rest,
        [BL_WHY_SHARE_REST_NONE] = say_rest_none,
        [BL_WHY_SHARE_BLOCKED] = say_blocked,
        [BL_WHY_SHARE_BREAKING] = say_breaking,
        [BL_WHY_SHARE_YIELDED] = say_yielded,
        [BL_WHY_SHARE_NOT_POSSIBLE] = say_not_possible,
};

static int say(const say_fn *table, enum bl_reason why, const struct about *a)
{
        if (a->t->size > 0)
                a->t->buf[0] = '\0';
        if (why < _BL_WHY_MAX && table[why])
                table[why](a);
        return (int)a->t->len;
}

int bl_explain_share(const struct bl_plan *p, const struct bl_snapshot *s, size_t i, char *buf, size_t size)
{
        struct bl_text t = {.buf = buf, .size = size};
        struct about a = {.t = &t, .p = p, .s = s};

        if (i >= p->n || i >= s->n_vms) {
                if (size > 0)
                        buf[0] = '\0';
                return 0;
        }
        a.d = &p->share.d[i];
        a.vm = &s->vms[i];
        return say(of_vms, a.d->why, &a);
}

int bl_explain_drive(const struct bl_plan *p, const struct bl_snapshot *s, char *buf, size_t size)
{
        struct bl_text t = {.buf = buf, .size = size};
        const struct about a = {.t = &t, .p = p, .s = s};

        return say(of_ksmd, p->share.why, &a);
}
