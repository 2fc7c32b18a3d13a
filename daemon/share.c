// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Equal pages: what is known of them, for the snapshot, and the beginning and end of it all.
 *
 * With Mode=off nothing is opened, asked or written, except what an earlier daemon left to be put back.
 */
#include <string.h>

#include "daemon/manager-private.h"
#include "daemon/util/clock.h"
#include "daemon/util/size.h"

#define PAGE         UINT64_C(4096)
#define FIGURES_REST (4 * BL_SEC)
#define HUGE_PAGE    (2 * BL_MIB)
/* VMs are measured one after the other, so that it takes a two-thousandth of a CPU (a walk through all page tables of
 * each, 6 ms for half a GiB of small pages), but all within so long. */
#define MEASURE_REST  2000U
#define MEASURE_APART (15 * BL_SEC)
#define MEASURE_ALL   (120 * BL_SEC)
/* So much less is merged than then: they are measured again. */
#define UNDONE (16 * BL_MIB)

/* --- KSM ------------------------------------------------------------------------ */

static void on_yield(void *userdata, const char *knob, const char *ours, const char *now)
{
        struct bl_manager *m = userdata;

        bl_manager_note(m, NULL, LOG_WARNING, BL_EV_CONFLICT, "share.yielded", "seen", BL_UNSET, BL_UNSET,
                        "somebody changed %s from %s to %s: KSM's other settings are put back and it is left alone; "
                        "'ballastctl share resume' takes it again",
                        knob, ours, now);
        bl_manager_notify_status(m);
}

static int save(void *userdata)
{
        return bl_manager_save(userdata, false);
}

static int make_ksm(struct bl_manager *m)
{
        const struct bl_ksm_options o = {
                .root = m->options.root,
                .ledger = m->ledger,
                .save = save,
                .handler = {.on_yield = on_yield},
                .userdata = m,
        };

        return m->share.ksm ? 0 : bl_ksm_new(&o, &m->share.ksm);
}

void bl_share_let_go(struct bl_manager *m)
{
        struct bl_share *s = &m->share;
        int r;

        s->driven_at = 0;
        bl_share_cost_rest(&s->cost);
        if (!s->ksm || !bl_ksm_holds(s->ksm))
                return;
        r = bl_ksm_release(s->ksm);
        if (r < 0 && s->failed != r)
                bl_manager_note(m, NULL, LOG_ERR, BL_EV_PLAIN, "share.release", "failed", BL_UNSET, BL_UNSET,
                                "KSM's settings cannot be put back: %s", bl_ksm_error(r));
        else if (r > 0)
                bl_manager_note(m, NULL, LOG_INFO, BL_EV_PLAIN, "share.release", "done", BL_UNSET, BL_UNSET,
                                "KSM's settings are as they were found (%d put back)", r);
        s->failed = r < 0 ? r : 0;
}

/* --- who with whom ---------------------------------------------------------------- */

static struct bl_share_vm facts_of(const struct bl_guest *g)
{
        const struct bl_domain_info *i = &g->desc->live;

        return (struct bl_share_vm){
                .sharing = i->metadata.sharing,
                .group = i->metadata.group,
                .left_alone = !bl_guest_managed(g),
                .nosharepages = i->nosharepages,
                .shared = i->shared,
                .hugepages = i->hugepages,
                .pinned = i->hostdevs > 0 || i->locked || i->confidential,
                .backends = g->share.merge_looked ? (int)bl_min(g->share.backends, INT32_MAX) : -1,
        };
}

static void say_verdict(struct bl_guest *g, const struct bl_share_verdict *v)
{
        enum bl_no_share was = g->share.said;

        g->share.said = v->loud ? v->no_share : BL_NO_SHARE_OK;
        /* what is wrong with all of them is said once */
        if (!v->loud || v->no_share == was || v->no_share == BL_NO_SHARE_TWO_GROUPS)
                return;
        bl_manager_note(g->m, g, v->no_share == BL_NO_SHARE_HOST ? LOG_INFO : LOG_WARNING, BL_EV_CONFIG,
                        "share.refused", "seen", BL_UNSET, BL_UNSET,
                        "%s asks to be merged with its group, and is not: %s", g->name,
                        bl_no_share_explain(v->no_share));
}

static void say_conflict(struct bl_manager *m)
{
        struct bl_share *s = &m->share;

        if (s->groups.conflict && !s->groups_said)
                bl_manager_note(m, NULL, LOG_ERR, BL_EV_CONFIG, "share.two-groups", "seen", BL_UNSET, BL_UNSET, "%s",
                                s->groups.error);
        s->groups_said = s->groups.conflict;
}

static void work_out_groups(struct bl_manager *m)
{
        struct bl_share *s = &m->share;
        const struct bl_share_host h = {
                .mode = m->conf->share_mode,
                .group = m->conf->share_group,
                .default_group = m->conf->store_default_group,
                .swap = m->host.swap_total > 0,
        };
        _cleanup_free_ struct bl_share_vm *vms = calloc(m->n_guests ? m->n_guests : 1, sizeof *vms);
        _cleanup_free_ struct bl_share_verdict *v = calloc(m->n_guests ? m->n_guests : 1, sizeof *v);
        size_t n = 0;

        /* tried again with the next tick; until then nobody may be driven (bl_share_may_drive) */
        s->groups_due = !vms || !v;
        if (s->groups_due)
                return;
        s->swap = h.swap;
        for (size_t i = 0; i < m->n_guests; i++)
                if (m->guests[i]->desc)
                        vms[n++] = facts_of(m->guests[i]);
        bl_share_judge(&h, vms, n, v, &s->groups);
        for (size_t i = n = 0; i < m->n_guests; i++) {
                struct bl_guest *g = m->guests[i];
                const struct bl_share_verdict *x = &v[n];

                if (!g->desc)
                        continue;
                n++;
                say_verdict(g, x);
                g->share.asked = x->asked;
                g->share.mode = x->mode;
                g->share.no_share = x->no_share;
                g->share.zero_possible = x->zero_possible;
                memcpy(g->share.group, x->group, sizeof g->share.group);
        }
        say_conflict(m);
}

void bl_share_groups_now(struct bl_manager *m)
{
        if (m->share.groups_due || m->share.swap != (m->host.swap_total > 0))
                work_out_groups(m);
}

void bl_share_check(struct bl_guest *g)
{
        g->m->share.groups_due = true;
        g->share.again = g->share.source != NULL;
        /* somebody may have set it while we did not look */
        g->share.merge_stale = true;
        bl_share_look_merge(g);
}

/* --- figures ---------------------------------------------------------------------- */

uint64_t bl_share_breaks(uint64_t merged, uint64_t saved, uint64_t merged_of_all)
{
        uint64_t frames = bl_sub_sat(merged, saved);

        if (merged == 0 || merged_of_all == 0)
                return 0;
        return merged - (uint64_t)((double)frames * (double)bl_min(merged, merged_of_all) / (double)merged_of_all);
}

static uint64_t present(const struct bl_guest *g)
{
        return bl_sub_sat(bl_shadow_resident(g), g->overhead);
}

static void look_at(struct bl_guest *g)
{
        struct bl_guest_share *s = &g->share;
        struct bl_ksm_process p;
        uint64_t zero;

        if (!g->resident || bl_ksm_process_read(bl_resident_dirfd(g->resident), &p) < 0) {
                s->merged = s->saved = 0;
                return;
        }
        zero = bl_or_zero(p.zero) * PAGE;
        s->merged = bl_add_sat(bl_mul_sat(p.merging, PAGE), zero);
        /* a page that is the kernel's zero page is in no process's memory any more: Pss does not know it */
        s->saved = bl_add_sat(bl_pss_savings(&g->pss, g->mem.anon, bl_mul_sat(p.merging, PAGE)), zero);
}

/* What KSM goes over. */
static uint64_t registered(const struct bl_manager *m)
{
        uint64_t sum = 0;

        for (size_t i = 0; i < m->n_guests; i++)
                if (m->guests[i]->share.merge_on)
                        sum = bl_add_sat(sum, present(m->guests[i]));
        return sum;
}

/* What ksmd took since the last look goes to those that are registered, by their memory. */
static void split_cpu(struct bl_manager *m, usec_t cpu)
{
        uint64_t all = registered(m);

        for (size_t i = 0; i < m->n_guests && all > 0; i++) {
                struct bl_guest *g = m->guests[i];

                if (g->share.merge_on)
                        g->share.ksmd_cpu += (usec_t)((double)cpu * (double)present(g) / (double)all);
        }
}

static uint64_t since(uint64_t now, uint64_t before)
{
        return now == BL_UNSET || before == BL_UNSET ? 0 : bl_sub_sat(now, before);
}

static uint64_t merged_of_all(const struct bl_manager *m)
{
        uint64_t sum = 0;

        for (size_t i = 0; i < m->n_guests; i++)
                sum = bl_add_sat(sum, m->guests[i]->share.merged);
        return sum;
}

/* A pass is over, or a drive begins: what the pass took teaches what passes cost.  Of the pages that it went over those
 * that had been merged before cost next to nothing. */
static void learn_of_pass(struct bl_manager *m)
{
        struct bl_share *s = &m->share;
        uint64_t all = registered(m), scanned = since(s->figures.pages_scanned, s->pass_scanned);

        if (all > 0)
                s->worked_on += (uint64_t)((double)scanned * (double)bl_sub_sat(all, s->pass_merged) / (double)all);
        s->pass_scanned = s->figures.pages_scanned;
        s->pass_merged = merged_of_all(m);
        if (s->figures.pages_scanned != BL_UNSET && s->figures.ksmd_cpu != BL_UNSET)
                bl_share_cost_see(&s->cost, s->figures.ksmd_cpu, s->worked_on, s->pass_merged / PAGE);
}

void bl_share_measure_soon(struct bl_manager *m)
{
        const usec_t now = bl_now(), apart = bl_min(MEASURE_APART, MEASURE_ALL / bl_max(m->n_guests, 1));
        usec_t at = now;

        for (size_t i = 0; i < m->n_guests; i++) {
                struct bl_guest *g = m->guests[i];

                if (!g->share.merge_on)
                        continue;
                g->pss.next = g->pss.next > now ? bl_min(g->pss.next, at) : at;
                g->pss.doubted = true;
                at += bl_min(bl_max(bl_mul_sat(g->pss.cost, MEASURE_REST), BL_SEC), apart);
        }
        m->share.measured.until = bl_add_sat(now, MEASURE_ALL);
        m->share.measured.merged = merged_of_all(m);
        m->share.measured.copied = m->share.figures.cow;
        m->share.measured.collapsed = m->share.figures.collapsed;
}

/* At rest what is merged gets less when VMs end or leave, when guests free or write their pages, and by khugepaged. The
 * savings of others fall with it, which shows nowhere else. */
static void look_undone(struct bl_manager *m, usec_t at)
{
        const struct bl_share *s = &m->share;
        uint64_t gone;

        if (s->measured.until == 0 || at < s->measured.until || bl_share_busy(m))
                return;
        gone = bl_sub_sat(s->measured.merged, merged_of_all(m));
        gone = bl_add_sat(gone, bl_mul_sat(since(s->figures.cow, s->measured.copied), PAGE));
        gone = bl_add_sat(gone, bl_mul_sat(since(s->figures.collapsed, s->measured.collapsed), HUGE_PAGE));
        if (gone >= UNDONE)
                bl_share_measure_soon(m);
}

static void account(struct bl_manager *m, const struct bl_ksm_figures *before)
{
        struct bl_share *s = &m->share;
        const struct bl_ksm_figures *f = &s->figures;
        usec_t cpu = since(f->ksmd_cpu, before->ksmd_cpu);

        if (s->driven_at == 0)
                return;
        if (before->there) {
                s->ksmd_cpu += cpu;
                s->khugepaged_cpu += since(f->khugepaged_cpu, before->khugepaged_cpu);
                split_cpu(m, cpu);
        }
        if (!s->cost.begun || f->full_scans != before->full_scans)
                learn_of_pass(m);
}

static void look_at_vms(struct bl_manager *m)
{
        uint64_t merged;

        for (size_t i = 0; i < m->n_guests; i++)
                look_at(m->guests[i]);
        merged = merged_of_all(m);
        for (size_t i = 0; i < m->n_guests; i++) {
                struct bl_guest_share *g = &m->guests[i]->share;

                g->breaks = bl_share_breaks(g->merged, g->saved, merged);
        }
}

static void look_at_ksm(struct bl_manager *m, usec_t at)
{
        struct bl_share *s = &m->share;
        struct bl_ksm_figures before = s->figures, now = {0};
        int r = bl_ksm_look(s->ksm, &now);

        s->there = r >= 0;
        if (r < 0)
                return;
        s->figures = now;
        /* at rest what is merged only falls, page by page */
        if (bl_share_busy(m) || at - s->vms_at >= FIGURES_REST) {
                s->vms_at = at;
                look_at_vms(m);
        }
        account(m, &before);
        look_undone(m, at);
}

void bl_share_look(struct bl_manager *m, usec_t now)
{
        bl_share_groups_now(m);
        if (m->conf->share_mode == BL_SHARE_GROUP && make_ksm(m) < 0)
                return;
        if (m->share.ksm && (m->conf->share_mode == BL_SHARE_GROUP || bl_ksm_holds(m->share.ksm)))
                look_at_ksm(m, now);
        bl_share_evidence_check(m, now);
        /* they are sums over all samples: at rest not with each few that come */
        if (m->share.fresh &&
            (bl_share_busy(m) || now - m->share.burst_at < FIGURES_REST || now - m->share.figures_at > FIGURES_REST))
                bl_share_evidence_figures(m);
}

/* --- for the snapshot --------------------------------------------------------------- */

void bl_share_to_vm(const struct bl_guest *g, struct bl_vm_share *ret)
{
        const struct bl_guest_share *s = &g->share;
        const struct bl_evidence_figures *f = &s->figures;
        uint64_t known;

        *ret = (struct bl_vm_share){
                .mode = s->mode,
                .no_share = s->no_share,
                .zero_possible = s->zero_possible,
                .merging = s->merge_looked && g->m->conf->share_mode == BL_SHARE_GROUP ? s->merge_on : -1,
                .busy = s->merge_setting,
                .refused = s->merge_refused,
                .merging_at = s->merging_at,
                .evidence_at = s->met ? f->at : 0,
                .present = present(g),
                .merged = s->merged,
                .saved = s->saved,
                .saved_at = g->pss.at,
                .breaks = s->breaks,
        };
        if (!s->met)
                return;
        ret->zero = bl_mul_sat(f->zero, PAGE);
        /* without the right to see frames (CAP_SYS_ADMIN; the unit has it not) what is merged looks like any other
         * page with copies, and is no gain */
        known = s->source && s->source->source->blind ? s->merged : 0;
        ret->gain = bl_sub_sat(bl_mul_sat(f->gain, PAGE), known);
        ret->gain_low = bl_sub_sat(bl_mul_sat(f->gain_low, PAGE), known);
        ret->gain_high = bl_sub_sat(bl_mul_sat(f->gain_high, PAGE), known);
}

void bl_share_state(const struct bl_manager *m, struct bl_share_state *ret)
{
        const struct bl_share *s = &m->share;
        struct bl_share_state t = {
                .mode = m->conf->share_mode,
                .scan_cost = s->cost.scan,
                .merge_cost = s->cost.merge,
                .merged = merged_of_all(m),
                .registered = registered(m),
        };

        if (t.mode == BL_SHARE_GROUP && s->ksm) {
                t.yielded = bl_ksm_yielded(s->ksm);
                t.usable = s->there && !t.yielded;
                t.driven = bl_ksm_driven(s->ksm);
                t.full_scans = s->figures.full_scans;
                t.ksmd_cpu = s->figures.ksmd_cpu;
                t.broken = bl_mul_sat(s->figures.cow, PAGE);
        }
        *ret = t;
}

void bl_share_status(const struct bl_manager *m, struct bl_share_status *ret)
{
        const struct bl_share *s = &m->share;
        bool group = m->conf->share_mode == BL_SHARE_GROUP && s->ksm;
        struct bl_share_status t = {
                .mode = m->conf->share_mode,
                .group = s->groups.served,
                .error = s->groups.conflict ? s->groups.error : NULL,
                .there = s->there,
                .acting = bl_manager_acting(m),
                .yielded = group && bl_ksm_yielded(s->ksm),
                .driven = group && bl_ksm_driven(s->ksm),
                .yield_reason = group ? bl_ksm_yield_reason(s->ksm) : NULL,
                .gate = *s->gate ? s->gate : NULL,
                .thp_warning = group ? bl_ksm_thp_warning(s->ksm) : NULL,
                .why = m->planned ? m->plan.share.why : BL_WHY_NOTHING,
                .sentence = s->sentence,
                .ksm = group && s->there ? &s->figures : NULL,
                .scan_cost = s->cost.scan,
                .merge_cost = s->cost.merge,
                .ksmd_cpu = s->ksmd_cpu,
                .khugepaged_cpu = s->khugepaged_cpu,
                .scan_cpu = s->scan_cpu,
                .drives = s->drives,
                .reserve = m->planned ? m->plan.share.reserve : 0,
                .cpu_per_mib = BL_UNSET,
                .evidence_memory = s->evidence ? bl_evidence_memory(s->evidence) : 0,
        };

        for (size_t i = 0; i < m->n_guests; i++) {
                struct bl_vm_share vm;

                bl_share_to_vm(m->guests[i], &vm);
                if (vm.mode == BL_SHARE_GROUP)
                        t.gain = bl_add_sat(t.gain, vm.gain);
                t.merged = bl_add_sat(t.merged, vm.merged);
                t.saved = bl_add_sat(t.saved, vm.saved);
                t.present = bl_add_sat(t.present, vm.present);
                t.zero = bl_add_sat(t.zero, vm.zero);
                t.breaks = bl_add_sat(t.breaks, vm.breaks);
        }
        if (t.saved >= BL_MIB)
                t.cpu_per_mib = (t.ksmd_cpu + t.khugepaged_cpu + t.scan_cpu) / (t.saved / BL_MIB);
        *ret = t;
}

/* --- life --------------------------------------------------------------------------- */

static void forget(struct bl_guest *g)
{
        bl_share_evidence_forget(g);
        g->share.hints = bl_share_hints_free(g->share.hints);
}

void bl_share_forget(struct bl_guest *g)
{
        forget(g);
        g->share = (struct bl_guest_share){
                .id = ++g->m->share.last_id,
                .scan_id = ++g->m->share.last_id,
                .told_why = _BL_WHY_MAX,
        };
        g->m->share.groups_due = true;
}

void bl_share_drop(struct bl_guest *g)
{
        forget(g);
        g->m->share.groups_due = true;
}

void bl_share_newcomer(struct bl_manager *m)
{
        struct bl_share *s = &m->share;

        if (s->ksm && bl_ksm_driven(s->ksm))
                (void)bl_ksm_rest(s->ksm);
}

int bl_share_resume(struct bl_manager *m)
{
        struct bl_share *s = &m->share;

        if (m->conf->share_mode != BL_SHARE_GROUP)
                return -ESRCH;
        if (!s->ksm || !s->there)
                return -ENODEV;
        if (!bl_ksm_yielded(s->ksm))
                return -EALREADY;
        bl_ksm_take_again(s->ksm);
        bl_manager_note(m, NULL, LOG_NOTICE, BL_EV_ADMIN, "admin.share-resume", "done", BL_UNSET, BL_UNSET,
                        "KSM is Ballast's again");
        bl_tick_soon(m, 0);
        return 0;
}

void bl_share_reconfigure(struct bl_manager *m)
{
        m->share.groups_due = true;
        if (m->conf->share_mode != BL_SHARE_GROUP)
                bl_share_let_go(m);
}

int bl_share_start(struct bl_manager *m)
{
        int r;

        bl_share_cost_init(&m->share.cost);
        m->share.groups_due = true;
        r = bl_share_evidence_start(m);
        /* an earlier daemon was killed */
        if (r >= 0 && bl_ledger_count_knobs(m->ledger) > 0)
                r = make_ksm(m);
        if (r >= 0 && (m->conf->share_mode != BL_SHARE_GROUP || !bl_manager_acting(m)))
                bl_share_let_go(m);
        /* it was killed in the middle of a drive, and which VMs have come since is not known yet */
        if (r >= 0)
                bl_share_newcomer(m);
        return r;
}

void bl_share_release(struct bl_manager *m)
{
        bl_share_let_go(m);
}

void bl_share_stop(struct bl_manager *m)
{
        for (size_t i = 0; i < m->n_guests; i++)
                bl_share_drop(m->guests[i]);
        bl_share_evidence_stop(m);
        m->share.ksm = bl_ksm_free(m->share.ksm);
}
