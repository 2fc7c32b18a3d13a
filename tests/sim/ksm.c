/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * KSM as numbers: passes over what is registered, the second of which merges; pages that are written to break
 * apart; what VMs are told takes effect a moment later.  After mm/ksm.c: a VM that comes is put behind the cursor, and
 * ksmd keeps its place when it rests.
 */
#include <inttypes.h>

#include "sim.h"

#define PAGE UINT64_C(4096)

/* A page that is merged costs a pass next to nothing (policy/share_worth.c). */
#define MERGED_NS 200

void sim_share(struct sim *s)
{
        s->ksm = (struct sim_ksm){.mode = BL_SHARE_GROUP,
                                  .usable = true,
                                  .scan_ns = 3800,
                                  .merge_ns = 38000,
                                  .tells = 20 * BL_MSEC,
                                  .pass = 1};
}

void sim_share_guest(struct sim_guest *g, uint64_t dup)
{
        g->share_mode = BL_SHARE_GROUP;
        g->dup = dup;
}

const struct bl_share_decision *sim_share_decision(const struct sim *s, const struct sim_guest *g)
{
        return &s->plan.share.d[g - s->g];
}

/* How many have copies of what is merged; each page is taken to be in all of them. */
static uint64_t copies(const struct sim *s, bool merged)
{
        uint64_t n = 0;

        for (size_t i = 0; i < s->n; i++)
                n += merged ? s->g[i].merged > 0 : s->g[i].dup > 0 && s->g[i].share_mode == BL_SHARE_GROUP;
        return n;
}

/* Of `bytes` in one of so many, the part that is saved when all of them share one. */
static uint64_t part_saved(uint64_t bytes, uint64_t n)
{
        return n < 2 ? 0 : bytes / n * (n - 1);
}

uint64_t sim_merged(const struct sim *s)
{
        uint64_t sum = 0;

        for (size_t i = 0; i < s->n; i++)
                sum += s->g[i].merged;
        return sum;
}

uint64_t sim_saved(const struct sim *s)
{
        return part_saved(sim_merged(s), copies(s, true));
}

uint64_t sim_ksm_metadata(const struct sim *s)
{
        uint64_t sum = 0;

        for (size_t i = 0; i < s->n; i++)
                sum += s->g[i].merging == 1 && s->g[i].passes_seen > 0 ? sim_resident(&s->g[i]) / 64 : 0;
        return sum;
}

/* --- what happens by itself ----------------------------------------------------------------------- */

/* What it gives away was merged, and had copies, as much as the rest of it. */
static void shrink(struct sim_guest *g)
{
        uint64_t is = sim_resident(g), was = g->was_resident;

        if (is < was) {
                g->merged = (uint64_t)((double)g->merged * (double)is / (double)was);
                g->dup = (uint64_t)((double)g->dup * (double)is / (double)was);
        }
        g->was_resident = is;
}

static void rewrite(struct sim *s, struct sim_guest *g)
{
        uint64_t bytes = bl_min(g->merged, bl_rate_times(g->rewrites, s->step));

        g->merged -= bytes;
        s->ksm.broken += bytes;
        if (!g->rewrites_same)
                g->dup -= bl_min(bytes, g->dup);
}

static void told(struct sim *s, struct sim_guest *g)
{
        if (g->told_merge_at == 0 || s->now < g->told_merge_at + s->ksm.tells)
                return;
        g->told_merge_at = 0;
        if (g->merging == (g->told_merge ? 1 : 0))
                return;
        g->merging = g->told_merge;
        g->merged = g->passes_seen = 0;
        g->first_pass = s->ksm.pass + (s->ksm.cursor > 0 || s->ksm.offset > 0);
}

/* Is there another one with copies of what it has, that ksmd has seen? */
static bool has_partner(const struct sim *s, const struct sim_guest *g)
{
        for (size_t i = 0; i < s->n; i++) {
                const struct sim_guest *h = &s->g[i];

                if (h != g && h->merging == 1 && h->dup > 0 && h->passes_seen > 0)
                        return true;
        }
        return false;
}

/* Goes over one guest for at most `ns`; returns what is left of that. */
static double scan(struct sim *s, struct sim_guest *g, double ns)
{
        struct sim_ksm *k = &s->ksm;
        double all = (double)bl_max(sim_resident(g), PAGE), left = all - (double)k->offset, density, cost, bytes;
        double merged = g->merged < (uint64_t)all ? (double)g->merged / all : 1;

        if (k->offset == 0)
                g->pass_merges =
                        g->passes_seen > 0 && !g->dup_fleeting && has_partner(s, g) ? bl_sub_sat(g->dup, g->merged) : 0;
        density = (double)g->pass_merges / all;
        cost = ((1 - merged) * (double)k->scan_ns + merged * MERGED_NS + density * (double)k->merge_ns) / PAGE;
        bytes = ns / cost;
        if (left < 0)
                left = 0;
        if (bytes > left)
                bytes = left;
        k->offset += (uint64_t)bytes + 1;
        g->merged = bl_min(g->merged + (uint64_t)(bytes * density), bl_max(g->dup, g->merged));
        if (bytes >= left) {
                g->passes_seen++;
                k->offset = 0;
                k->cursor++;
        }
        return ns - bytes * cost;
}

static void ksmd(struct sim *s)
{
        struct sim_ksm *k = &s->ksm;
        double ns = (double)s->step * 1000;
        bool any = true;

        k->cpu += s->step;
        while (ns > 1) {
                if (k->cursor >= s->n) {
                        k->cursor = 0;
                        k->offset = 0;
                        /* nothing is registered: it sleeps */
                        if (!any)
                                break;
                        k->full_scans++;
                        k->pass++;
                        any = false;
                        continue;
                }
                if (s->g[k->cursor].merging != 1 || s->g[k->cursor].first_pass > k->pass) {
                        any |= s->g[k->cursor].merging == 1;
                        k->cursor++;
                        k->offset = 0;
                        continue;
                }
                any = true;
                ns = scan(s, &s->g[k->cursor], ns);
        }
        k->cpu -= (usec_t)(ns / 1000);
}

static void look(const struct sim *s, struct sim_guest *g)
{
        uint64_t is = part_saved(bl_sub_sat(g->dup, g->merged), copies(s, false)), to = bl_part(is, g->evidence);
        int64_t off = (int64_t)to - (int64_t)g->said_gain;

        if (g->evidence_lag == 0)
                g->said_gain = to;
        else
                g->said_gain = (uint64_t)((int64_t)g->said_gain +
                                          off * (int64_t)bl_min(s->step, g->evidence_lag) / (int64_t)g->evidence_lag);
}

void sim_ksm_step(struct sim *s)
{
        if (s->ksm.mode == BL_SHARE_OFF)
                return;
        for (size_t i = 0; i < s->n; i++) {
                shrink(&s->g[i]);
                rewrite(s, &s->g[i]);
                told(s, &s->g[i]);
                look(s, &s->g[i]);
        }
        if (s->ksm.runs)
                ksmd(s);
}

/* --- what is seen of it, and done about it --------------------------------------------------------- */

void sim_ksm_sense(const struct sim *s, struct bl_share_state *ret)
{
        const struct sim_ksm *k = &s->ksm;

        *ret = (struct bl_share_state){.mode = k->mode,
                                       .usable = k->usable,
                                       .yielded = k->yielded,
                                       .driven = k->runs,
                                       .full_scans = k->full_scans,
                                       .merged = sim_merged(s),
                                       .ksmd_cpu = k->cpu,
                                       .broken = k->broken,
                                       .scan_cost = (uint32_t)k->scan_ns,
                                       .merge_cost = (uint32_t)k->merge_ns};
        for (size_t i = 0; i < s->n; i++)
                ret->registered += s->g[i].merging == 1 ? sim_resident(&s->g[i]) : 0;
}

void sim_ksm_sense_guest(const struct sim *s, const struct sim_guest *g, struct bl_vm_share *ret)
{
        bool known = s->ksm.mode != BL_SHARE_OFF && s->now >= g->evidence_from;

        *ret = (struct bl_vm_share){.mode = g->share_mode,
                                    .no_share = g->no_share,
                                    .zero_possible = true,
                                    .merging = g->merging,
                                    .busy = g->told_merge_at != 0,
                                    .merged = g->merged,
                                    .saved = part_saved(g->merged, copies(s, true)),
                                    .saved_at = s->now,
                                    .breaks = g->merged};
        if (!known)
                return;
        ret->evidence_at = s->now;
        ret->present = sim_resident(g);
        ret->zero = g->zero;
        ret->gain = g->said_gain;
        ret->gain_low = bl_sub_sat(g->said_gain, bl_part(g->said_gain, g->spread));
        ret->gain_high = g->said_gain + bl_part(g->said_gain, g->spread);
}

static void check_sentence(struct sim *s, int r, const char *text, size_t size, const char *name)
{
        if (r < 10 || (size_t)r >= size || (size_t)r != strlen(text) || strchr(text, '\n') ||
            (name && !strstr(text, name)))
                s->faults.nonsense++;
}

static bool may_merge(const struct sim *s, const struct sim_guest *g)
{
        return s->ksm.mode == BL_SHARE_GROUP && g->share_mode == BL_SHARE_GROUP && g->no_share == BL_NO_SHARE_OK;
}

/* What is taken apart now and what is being, together. */
static void check_room(struct sim *s)
{
        uint64_t takes = 0;
        bool any = false;

        for (size_t i = 0; i < s->n; i++) {
                const struct sim_guest *g = &s->g[i];
                const struct bl_share_decision *d = &s->plan.share.d[i];

                if (g->merging != 1 || g->merged < BL_MIB)
                        continue;
                any |= d->act && !d->merge;
                if ((d->act && !d->merge) || (g->told_merge_at != 0 && !g->told_merge))
                        takes += g->merged;
        }
        if (any && s->snapshot.host.free < s->plan.marks.mark[BL_STATE_CLEAR] + takes)
                s->faults.dear++;
}

void sim_ksm_act(struct sim *s)
{
        struct bl_share_plan *p = &s->plan.share;
        bool runs = p->drive && s->ksm.usable && !s->ksm.yielded;
        char text[512];

        check_sentence(s, bl_explain_drive(&s->plan, &s->snapshot, text, sizeof(text)), text, sizeof(text), NULL);
        if (s->talk && runs != s->ksm.runs)
                fprintf(stderr, "%8.2f %-18s %s\n", (double)(s->now - 1000 * BL_SEC) / 1e6, bl_reason_to_string(p->why),
                        text);
        check_room(s);
        s->ksm.drives += runs && !s->ksm.runs;
        s->ksm.runs = runs;
        for (size_t i = 0; i < s->n; i++) {
                struct sim_guest *g = &s->g[i];
                const struct bl_share_decision *d = &p->d[i];

                check_sentence(s, bl_explain_share(&s->plan, &s->snapshot, i, text, sizeof(text)), text, sizeof(text),
                               g->name);
                if (runs && !may_merge(s, g) && g->merging != 0)
                        s->faults.mixed++;
                if (d->zero_out > g->zero || (d->act && g->told_merge_at != 0))
                        s->faults.nonsense++;
                g->paged_out += d->zero_out;
                g->zero -= bl_min(d->zero_out, g->zero);
                if (!d->act)
                        continue;
                if (d->merge && !may_merge(s, g))
                        s->faults.mixed++;
                if (s->talk)
                        fprintf(stderr, "%8.2f %-18s %s\n", (double)(s->now - 1000 * BL_SEC) / 1e6,
                                bl_reason_to_string(d->why), text);
                g->told_merge_at = s->now;
                g->told_merge = d->merge;
                g->merge_commands++;
        }
}
