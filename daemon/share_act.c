// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * plan.share carried out: the VMs' `merge` property, ksmd driven or at rest, zero pages paged out.
 *
 * The trust guarantee is kept here, not in the policy: whatever the plan says, ksmd runs only while each VM that may
 * be registered with KSM is in the group that it serves, by the descriptions at that moment (bl_share_may_drive), and
 * it is stopped as soon as a VM comes of which that is not known yet.
 */
#include <string.h>

#include "daemon/manager-private.h"
#include "daemon/util/clock.h"
#include "daemon/util/size.h"
#include "daemon/virt/domain_merge.h"

#define AGAIN   (1 * BL_SEC)
#define NOT_NOW (30 * BL_SEC) /* QEMU refused; what would change that is somebody's doing */

/* VMs that start, and questions that are being asked, are waited for in silence. */
#define GATE_PATIENCE (5 * BL_SEC)

/* ksmd waits for VMs that are just being registered, or taken out.  The kernel puts a VM behind the one that ksmd is
 * at: one that comes a moment after the start is first seen a whole pass later.  And one that goes a moment later was
 * gone over for nothing.  Not for long: a QEMU may be slow to answer. */
#define START_PATIENCE (2 * BL_SEC)

/* Whom an answer belongs to: bl_call, and the process that was asked about. */
struct merge_call {
        struct bl_call call;
        uint64_t id;
        bool set, on;
};

/* --- the `merge` property --------------------------------------------------------- */

static const struct bl_ledger_vm *record_of(const struct bl_guest *g)
{
        const struct bl_ledger_vm *r = bl_ledger_find(g->m->ledger, g->uuid);

        return r && r->merge_was >= 0 ? r : NULL;
}

/* One that was put back to what it was is nobody's business any more. */
static void settle_record(struct bl_guest *g)
{
        const struct bl_ledger_vm *r = record_of(g);

        if (!r || r->merge_was != g->share.merge_on)
                return;
        (void)bl_ledger_forget_merge_was(g->m->ledger, g->uuid);
        (void)bl_manager_save(g->m, false);
}

static void take_state(struct bl_guest *g, const struct bl_merge_state *s)
{
        struct bl_guest_share *w = &g->share;

        w->merge_looked = true;
        w->merge_stale = w->merge_refused = false;
        w->backends = s->backends;
        /* a QEMU without the property registers all memory or none, as its machine says */
        w->merge_on = s->on > 0 || (s->backends == 0 && s->machine);
        if (!w->merge_on)
                w->merging_at = 0;
        else if (w->merging_at == 0)
                w->merging_at = bl_now();
        g->m->share.groups_due = true;
}

static void failed(struct bl_guest *g, const struct merge_call *c, int r, const char *message)
{
        struct bl_guest_share *w = &g->share;

        w->merge_again_at = bl_now() + AGAIN;
        /* it may have been carried out all the same */
        w->merge_stale = true;
        if (r == -ECANCELED || r == -ENOTCONN || r == -ENOENT || r == -EHOSTDOWN)
                return;
        w->merge_again_at = bl_now() + NOT_NOW;
        if (!w->merge_refused)
                bl_manager_note(g->m, g, LOG_WARNING, BL_EV_PLAIN, "share.failed", "failed", BL_UNSET, BL_UNSET,
                                "%s cannot be %s: %s", g->name,
                                !c->set ? "asked whether it may be merged"
                                : c->on ? "made mergeable"
                                        : "made un-mergeable",
                                message ? message : strerror(-r));
        w->merge_refused = true;
}

static void on_merge(void *userdata, int r, const char *message, const struct bl_merge_state *s)
{
        struct merge_call *c = userdata;
        struct bl_guest *g = bl_call_guest(&c->call);

        if (g && g->share.id == c->id) {
                g->share.merge_busy = g->share.merge_setting = false;
                if (r < 0) {
                        failed(g, c, r, message);
                } else {
                        take_state(g, s);
                        settle_record(g);
                }
                bl_tick_soon(g->m, 0);
        }
        free(c);
}

static struct merge_call *call_new(struct bl_guest *g, bool set, bool on)
{
        struct merge_call *c = malloc(sizeof *c);

        if (!c)
                return NULL;
        *c = (struct merge_call){.id = g->share.id, .set = set, .on = on};
        bl_call_init(&c->call, g);
        return c;
}

static bool can_ask(const struct bl_guest *g)
{
        return g->m->connected && g->desc && g->desc->has_instance && !g->share.merge_busy &&
               bl_now() >= g->share.merge_again_at && bl_guest_run(g) != BL_RUN_MIGRATING && !bl_guest_hung(g);
}

void bl_share_look_merge(struct bl_guest *g)
{
        struct bl_guest_share *w = &g->share;
        struct merge_call *c;

        /* the monitor's passthrough taints the VM: not where nothing follows from the answer */
        if (g->m->conf->share_mode != BL_SHARE_GROUP && !record_of(g))
                return;
        if ((w->merge_looked && !w->merge_stale) || !can_ask(g))
                return;
        c = call_new(g, false, false);
        if (c && bl_domain_read_merge(g->m->conn, g->uuid, &g->desc->instance, on_merge, c) >= 0) {
                w->merge_busy = true;
                return;
        }
        free(c);
        w->merge_again_at = bl_now() + AGAIN;
}

/* What it was is on disk before it is changed. */
static int record(struct bl_guest *g)
{
        struct bl_manager *m = g->m;
        int r = bl_ledger_add(m->ledger, g->uuid, g->name, NULL);

        if (r >= 0)
                r = bl_ledger_set_merge_was(m->ledger, g->uuid, &g->desc->instance, g->share.merge_on);
        return r < 0 ? r : bl_manager_save(m, false);
}

static int set_merge(struct bl_guest *g, bool on)
{
        struct merge_call *c;
        int r;

        if (!can_ask(g) || !g->share.merge_looked)
                return -EBUSY;
        r = record(g);
        if (r < 0)
                return r;
        c = call_new(g, true, on);
        if (!c)
                return -ENOMEM;
        r = bl_domain_set_merge(g->m->conn, g->uuid, &g->desc->instance, on, on_merge, c);
        if (r < 0) {
                free(c);
                g->share.merge_again_at = bl_now() + AGAIN;
                return r;
        }
        g->share.merge_busy = g->share.merge_setting = true;
        /* from now on it may be */
        g->share.merge_on = g->share.merge_on || on;
        if (on && g->share.merging_at == 0)
                g->share.merging_at = bl_now();
        return 0;
}

int bl_share_undo(struct bl_guest *g, uint64_t *room)
{
        const struct bl_ledger_vm *r = record_of(g);
        struct bl_manager *m = g->m;
        int done;

        if (!r || !g->desc)
                return 0;
        if (g->desc->has_instance && !bl_instance_equal(&r->merge_of, &g->desc->instance)) {
                (void)bl_ledger_forget_merge_was(m->ledger, g->uuid);
                return 0;
        }
        bl_share_look_merge(g);
        if (!g->share.merge_looked || g->share.merge_busy)
                return -EBUSY;
        if (r->merge_was == g->share.merge_on) {
                settle_record(g);
                return 0;
        }
        if (!r->merge_was) {
                if (g->share.breaks > *room)
                        return -EAGAIN;
                /* what un-merging takes is seen in use only later: one VM at a time */
                for (size_t i = 0; i < m->n_guests; i++)
                        if (m->guests[i]->share.merge_busy)
                                return -EBUSY;
        }
        done = set_merge(g, r->merge_was);
        if (done >= 0 && !r->merge_was)
                *room = bl_sub_sat(*room, g->share.breaks);
        return done;
}

/* --- one VM ------------------------------------------------------------------------- */

static void note_not_acting(struct bl_guest *g)
{
        struct bl_guest_share *w = &g->share;

        if (w->told_why == w->decision.why)
                return;
        w->told_why = w->decision.why;
        bl_manager_note(g->m, g, LOG_INFO, BL_EV_PLAIN, bl_reason_to_string(w->decision.why), "not-acting", BL_UNSET,
                        BL_UNSET, "would act: %s", w->sentence);
}

static void act_on(struct bl_guest *g, usec_t now)
{
        struct bl_guest_share *w = &g->share;
        const struct bl_share_decision *d = &w->decision;
        int r;

        if (d->zero_out > 0)
                bl_share_zero(g, d->zero_out, now);
        /* in other modes VMs are what they were found to be: take_back() */
        if (g->m->conf->share_mode != BL_SHARE_GROUP || !d->act || (w->merge_looked && w->merge_on == d->merge))
                return;
        r = set_merge(g, d->merge);
        if (r >= 0)
                bl_manager_note(g->m, g, LOG_INFO, BL_EV_PLAIN, bl_reason_to_string(d->why), "begun", BL_UNSET,
                                BL_UNSET, "%s", w->sentence);
        else if (r != -EBUSY && !w->merge_refused)
                bl_log(LOG_WARNING, BL_EV_PLAIN, g->name, "share.failed", "nothing was done about the pages of %s: %s",
                       g->name, strerror(-r));
}

/* Mode is not group any more: what was done for it is taken back. */
static void take_back(struct bl_manager *m)
{
        uint64_t room = bl_sub_sat(m->host.free, m->plan.marks.mark[BL_STATE_SOFT]);

        for (size_t i = 0; i < m->n_guests; i++)
                (void)bl_share_undo(m->guests[i], &room);
}

/* --- ksmd --------------------------------------------------------------------------- */

/* Why a VM keeps ksmd from running; NULL: it does not. */
static const char *stands_in_the_way(const struct bl_guest *g)
{
        const struct bl_guest_share *w = &g->share;

        if (!g->desc || !w->merge_looked)
                return "it is not known yet whether it may be merged";
        if (!w->merge_on)
                return NULL;
        return w->mode == BL_SHARE_GROUP ? NULL : "it may be merged by the kernel, and is not in the group";
}

static bool find_gate(struct bl_manager *m, char *buf, size_t size)
{
        bl_share_groups_now(m);
        *buf = '\0';
        if (!m->connected || !m->listed || m->listing)
                (void)snprintf(buf, size, "libvirt does not say which VMs there are");
        else if (m->share.groups.conflict || m->share.groups_due)
                (void)snprintf(buf, size, "it is not known which trust group KSM is to serve");
        for (size_t i = 0; i < m->n_guests && !*buf; i++) {
                const char *why = stands_in_the_way(m->guests[i]);

                if (why)
                        (void)snprintf(buf, size, "%.64s: %s", m->guests[i]->name, why);
        }
        return !*buf;
}

bool bl_share_may_drive(struct bl_manager *m)
{
        return find_gate(m, m->share.gate, sizeof m->share.gate);
}

static void failed_to(struct bl_manager *m, const char *what, int r)
{
        if (r >= 0 || r == -EBUSY)
                m->share.failed = 0;
        else if (m->share.failed != r) {
                m->share.failed = r;
                bl_manager_note(m, NULL, LOG_WARNING, BL_EV_PLAIN, "share.failed", "failed", BL_UNSET, BL_UNSET,
                                "ksmd cannot be %s: %s", what, bl_ksm_error(r));
        }
}

static bool waits_to_start(struct bl_manager *m, usec_t now)
{
        struct bl_share *s = &m->share;

        if (bl_ksm_driven(s->ksm))
                return false;
        if (s->start_at == 0)
                s->start_at = now;
        if (now - s->start_at >= START_PATIENCE)
                return false;
        for (size_t i = 0; i < m->n_guests; i++)
                if (m->guests[i]->share.merge_setting && !bl_guest_hung(m->guests[i]))
                        return true;
        return false;
}

static unsigned registered(const struct bl_manager *m)
{
        unsigned n = 0;

        for (size_t i = 0; i < m->n_guests; i++)
                n += m->guests[i]->share.merge_on;
        return n;
}

static void drive(struct bl_manager *m)
{
        struct bl_share *s = &m->share;
        const struct bl_ksm_drive d = {
                .host_knobs = m->conf->share_host_knobs,
                /* it is driven only while there is something new, which is what smart_scan would skip */
                .thorough = true,
                .vms = registered(m),
                .cpu = m->conf->share_ksmd_cpu,
        };
        int r = bl_ksm_drive(s->ksm, &d);

        failed_to(m, "driven", r);
        s->start_at = 0;
        if (r < 0 || s->driven_at)
                return;
        s->driven_at = bl_now();
        s->drives++;
        bl_manager_note(m, NULL, LOG_INFO, BL_EV_PLAIN, bl_reason_to_string(m->plan.share.why), "done", BL_UNSET,
                        BL_UNSET, "%s", s->sentence);
}

static void rest(struct bl_manager *m)
{
        struct bl_share *s = &m->share;

        if (bl_ksm_driven(s->ksm) || s->figures.run == 1)
                failed_to(m, "stopped", bl_ksm_rest(s->ksm));
        if (!s->driven_at)
                return;
        s->driven_at = 0;
        bl_share_cost_rest(&s->cost);
        bl_share_measure_soon(m);
        bl_share_evidence_renew(m);
        /* who changed what was said already */
        if (bl_ksm_yielded(s->ksm))
                return;
        if (*s->gate)
                bl_manager_note(m, NULL, LOG_INFO, BL_EV_PLAIN, "share.gate", "done", BL_UNSET, BL_UNSET,
                                "lets ksmd rest: %s", s->gate);
        else
                bl_manager_note(m, NULL, LOG_INFO, BL_EV_PLAIN, bl_reason_to_string(m->plan.share.why), "done",
                                BL_UNSET, BL_UNSET, "%s", s->sentence);
}

/* What keeps it from running though it should is said once while it lasts; what passes by itself is not. */
static void say_gate(struct bl_manager *m, usec_t now)
{
        struct bl_share *s = &m->share;

        if (!*s->gate) {
                s->gate_at = 0;
                s->gate_said = false;
                return;
        }
        if (s->gate_at == 0)
                s->gate_at = now;
        if (s->gate_said || now - s->gate_at < GATE_PATIENCE)
                return;
        s->gate_said = true;
        bl_manager_note(m, NULL, LOG_WARNING, BL_EV_PLAIN, "share.gate", "seen", BL_UNSET, BL_UNSET,
                        "ksmd should run, and may not: %s", s->gate);
}

static void work_ksmd(struct bl_manager *m, bool acting, usec_t now)
{
        struct bl_share *s = &m->share;
        bool want = m->plan.share.drive && s->there && !bl_ksm_yielded(s->ksm);

        if (!acting) {
                bl_share_let_go(m);
                if (want && !s->told_drive)
                        bl_manager_note(m, NULL, LOG_INFO, BL_EV_PLAIN, bl_reason_to_string(m->plan.share.why),
                                        "not-acting", BL_UNSET, BL_UNSET, "would act: %s", s->sentence);
                s->told_drive = want;
                return;
        }
        s->gate[0] = '\0';
        if (!want || !bl_share_may_drive(m)) {
                s->start_at = 0;
                rest(m);
        } else if (!waits_to_start(m, now)) {
                drive(m);
        }
        say_gate(m, now);
}

/* --- all ---------------------------------------------------------------------------- */

static void explain(struct bl_manager *m, const struct bl_snapshot *s)
{
        (void)bl_explain_drive(&m->plan, s, m->share.sentence, sizeof m->share.sentence);
        for (size_t i = 0; i < m->plan.n && m->plan.share.d; i++) {
                struct bl_guest *g = bl_manager_find(m, s->vms[i].uuid);

                if (!g)
                        continue;
                g->share.decision = m->plan.share.d[i];
                g->share.decided = true;
                (void)bl_explain_share(&m->plan, s, i, g->share.sentence, sizeof g->share.sentence);
        }
}

void bl_share_carry_out(struct bl_manager *m, const struct bl_snapshot *s)
{
        bool acting = bl_manager_acting(m);
        usec_t now = bl_now();

        explain(m, s);
        if (m->conf->share_mode != BL_SHARE_GROUP) {
                bl_share_let_go(m);
                if (acting)
                        take_back(m);
        }
        if (m->conf->share_mode == BL_SHARE_OFF)
                return;
        for (size_t i = 0; i < m->plan.n && m->plan.share.d; i++) {
                struct bl_guest *g = bl_manager_find(m, s->vms[i].uuid);

                if (!g)
                        continue;
                bl_share_look_merge(g);
                if (acting && m->connected)
                        act_on(g, now);
                else if (!acting && (g->share.decision.act || g->share.decision.zero_out > 0))
                        note_not_acting(g);
        }
        if (m->conf->share_mode == BL_SHARE_GROUP && m->share.ksm)
                work_ksmd(m, acting, now);
}

bool bl_share_busy(const struct bl_manager *m)
{
        return m->share.driven_at > 0;
}
