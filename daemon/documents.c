// SPDX-License-Identifier: LGPL-2.1-or-later
/* The JSON documents of control.h. */
#include <string.h>

#include "daemon/channel/agent.h"
#include "daemon/control.h"
#include "daemon/documents.h"
#include "daemon/manager-private.h"
#include "daemon/util/clock.h"

/* --- VMs ------------------------------------------------------------------- */

static const char *run_to_string(enum bl_vm_run r)
{
        switch (r) {
        case BL_RUN_RUNNING:
                return "running";
        case BL_RUN_PAUSED:
                return "paused";
        case BL_RUN_MIGRATING:
                return "migrating";
        case _BL_RUN_MAX:
                break;
        }
        return "?";
}

static const char *source_to_string(enum bl_stats_source s)
{
        switch (s) {
        case BL_STATS_NONE:
                return "none";
        case BL_STATS_BALLOON:
                return "balloon";
        case BL_STATS_AGENT:
                return "agent";
        case _BL_STATS_MAX:
                break;
        }
        return "?";
}

static json_t *stats_document(const struct bl_guest_stats *s, usec_t now)
{
        json_t *j = json_pack("{s:s}", "source", source_to_string(s->source));

        if (!j || s->source == BL_STATS_NONE)
                return j;
        json_object_set_new(j, "age_us", number(bl_sub_sat(now, s->at)));
        json_object_set_new(j, "total", number_or_null(s->total));
        json_object_set_new(j, "available", number_or_null(s->available));
        json_object_set_new(j, "unused", number_or_null(s->unused));
        json_object_set_new(j, "caches", number_or_null(s->caches));
        json_object_set_new(j, "swap_total", number_or_null(s->swap_total));
        json_object_set_new(j, "swap_free", number_or_null(s->swap_free));
        json_object_set_new(j, "swap_in", number_or_null(s->swap_in));
        json_object_set_new(j, "swap_out", number_or_null(s->swap_out));
        json_object_set_new(j, "major_faults", number_or_null(s->major_faults));
        json_object_set_new(j, "psi_some_us", number_or_null(s->psi_some));
        return j;
}

static json_t *hints_document(const struct bl_guest_hints *h, usec_t now)
{
        if (h->at == 0)
                return json_null();
        return json_pack("{s:o, s:o, s:o, s:o, s:o, s:b, s:b}", "age_us", number(bl_sub_sat(now, h->at)), "free_pages",
                         number(h->free), "inactive_file_pages", number(h->inactive_file), "file_pages",
                         number(h->file), "runs", number(h->runs), "complete", (int)h->complete, "cut", (int)h->cut);
}

static json_t *request_document(const struct bl_guest_request *r, usec_t now)
{
        if (r->at == 0)
                return json_null();
        return json_pack("{s:o, s:o, s:b}", "age_us", number(bl_sub_sat(now, r->at)), "bytes", number(r->bytes), "stop",
                         (int)r->stop);
}

static json_t *agent_document(const struct bl_guest *g, usec_t now)
{
        const struct bl_agent_counters *n;

        if (!g->agent.hello)
                return json_null();
        n = bl_agent_counters(g->agent.link.agent);
        return json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "channel", bl_guests_channel(g),
                         "version", text(g->agent.version), "kernel", text(g->agent.kernel), "connected_us",
                         number(bl_sub_sat(now, g->agent.link.at)), "reports", number(n->reports), "requests",
                         number(n->requests), "spoilt", number(n->spoilt + n->early), "throttled", number(n->throttled),
                         "request", request_document(&g->request, now), "hints", hints_document(&g->agent.hints, now));
}

static json_t *decision_document(const struct bl_guest *g)
{
        if (!g->decided)
                return json_null();
        return json_pack("{s:s, s:o, s:b, s:o, s:o}", "reason", bl_reason_to_string(g->decision.why), "sentence",
                         text(g->sentence), "act", (int)g->decision.act, "from", number(g->decision.from), "to",
                         number(g->decision.to));
}

json_t *bl_document_vm(struct bl_guest *g)
{
        const struct bl_ledger_vm *record = bl_ledger_find(g->m->ledger, g->uuid);
        enum bl_no_reclaim why = g->desc ? bl_domain_info_no_reclaim(&g->desc->live) : BL_RECLAIM_OK;
        usec_t now = bl_now();
        json_t *j = json_object();

        json_object_set_new(j, "name", text(g->name));
        json_object_set_new(j, "uuid", text(g->uuid_text));
        json_object_set_new(j, "pid", number(g->desc && g->desc->has_instance ? (uint64_t)g->desc->instance.pid : 0));
        json_object_set_new(j, "run", text(run_to_string(bl_guest_run(g))));
        json_object_set_new(j, "managed", json_boolean(bl_guest_managed(g)));
        json_object_set_new(j, "hold", text(bl_hold_to_string(record ? record->hold : BL_HOLD_NONE)));
        json_object_set_new(j, "hold_reason", text_or_null(record ? record->hold_reason : NULL));
        json_object_set_new(j, "reclaimable", json_boolean(why == BL_RECLAIM_OK));
        json_object_set_new(j, "why_not", why == BL_RECLAIM_OK ? json_null() : text(bl_no_reclaim_to_string(why)));
        json_object_set_new(j, "settings_error", text_or_null(g->desc ? g->desc->live.metadata_error : NULL));
        json_object_set_new(j, "max", number(bl_guest_max(g)));
        json_object_set_new(j, "limit", number(bl_guest_limit(g)));
        json_object_set_new(j, "reservation", number(g->desc ? bl_guest_reservation(g) : 0));
        json_object_set_new(j, "shares", number(bl_guest_shares(g)));
        json_object_set_new(j, "actual", number_or_null(bl_guest_actual(g)));
        json_object_set_new(j, "target", number_or_null(bl_guest_target(g)));
        json_object_set_new(j, "original", record ? number_or_null(record->original) : json_null());
        json_object_set_new(j, "resident", number(bl_proc_mem_resident(&g->mem)));
        json_object_set_new(j, "overhead", number(g->overhead));
        json_object_set_new(j, "held_twice", number(bl_sub_sat(g->mem.memfd, g->mem.shmem)));
        json_object_set_new(j, "held_twice_freed", number(g->shadow.freed));
        json_object_set_new(j, "shared_saved", number(g->pss.savings));
        json_object_set_new(j, "floor", number(g->decided ? g->decision.floor : 0));
        json_object_set_new(j, "want", number(g->decided ? g->decision.want : 0));
        json_object_set_new(j, "speed", number(g->decided ? g->decision.speed : 0));
        json_object_set_new(j, "asked", json_boolean(g->decided && g->decision.asked));
        json_object_set_new(j, "deaf_us", number(g->decided ? bl_sub_sat(g->decision.deaf_until, now) : 0));
        json_object_set_new(j, "stuck", json_boolean(g->decided && g->decision.stuck));
        json_object_set_new(j, "lying", json_boolean(g->decided && g->decision.lying));
        json_object_set_new(j, "hung", json_boolean(bl_guest_hung(g)));
        json_object_set_new(j, "oom_deflates", number(g->oom_deflates));
        json_object_set_new(j, "stats", stats_document(bl_guest_stats_best(g, now), now));
        json_object_set_new(j, "agent", agent_document(g, now));
        json_object_set_new(j, "store", bl_document_store_of(g));
        json_object_set_new(j, "kernel", bl_document_kernel_of(g, now));
        json_object_set_new(j, "decision", decision_document(g));
        return j;
}

int bl_control_list(struct bl_manager *m, json_t **ret)
{
        json_t *d = document(), *vms = json_array();
        int failed = 0;

        for (size_t i = 0; i < m->n_guests; i++)
                failed |= json_array_append_new(vms, bl_document_vm(m->guests[i]));
        failed |= json_object_set_new(d, "vms", vms);
        return finish(d, failed, ret);
}

/* --- history --------------------------------------------------------------- */

/* uuid NULL: of all. */
static json_t *events_of(struct bl_manager *m, const uint8_t *uuid)
{
        json_t *events = json_array();

        for (size_t i = 0; i < bl_history_count(m->history); i++) {
                const struct bl_history_event *e = bl_history_get(m->history, i);

                if (uuid && !(e->has_vm && memcmp(e->uuid, uuid, BL_UUID_LEN) == 0))
                        continue;
                json_array_append_new(events,
                                      json_pack("{s:o, s:o, s:s, s:o, s:o, s:o, s:s}", "at_us", number(e->at_wall),
                                                "vm", e->has_vm ? text(e->vm) : json_null(), "reason", e->reason,
                                                "sentence", text(e->sentence), "from", number_or_null(e->from), "to",
                                                number_or_null(e->to), "outcome", e->outcome));
        }
        return events;
}

/* A VM that has stopped is most worth explaining. */
static const uint8_t *find_in_history(struct bl_manager *m, const char *vm)
{
        struct bl_guest *g = bl_manager_find_named(m, vm);
        uint8_t uuid[BL_UUID_LEN];
        bool is_uuid = bl_uuid_from_string(vm, uuid) == 0;

        if (g)
                return g->uuid;
        for (size_t i = bl_history_count(m->history); i-- > 0;) {
                const struct bl_history_event *e = bl_history_get(m->history, i);

                if (e->has_vm && (strcmp(e->vm, vm) == 0 || (is_uuid && memcmp(e->uuid, uuid, BL_UUID_LEN) == 0)))
                        return e->uuid;
        }
        return NULL;
}

int bl_control_explain(struct bl_manager *m, const char *vm, json_t **ret)
{
        const uint8_t *uuid = NULL;
        json_t *d;

        if (vm && *vm) {
                uuid = find_in_history(m, vm);
                if (!uuid)
                        return -ENOENT;
        }
        d = document();
        return finish(d, json_object_set_new(d, "events", events_of(m, uuid)), ret);
}

int bl_control_show(struct bl_manager *m, const char *vm, json_t **ret)
{
        struct bl_guest *g = bl_manager_find_named(m, vm);
        json_t *d;
        int failed;

        if (!g)
                return -ENOENT;
        d = document();
        failed = json_object_update_new(d, bl_document_vm(g));
        failed |= json_object_set_new(d, "history", events_of(m, g->uuid));
        return finish(d, failed, ret);
}

/* --- plan ------------------------------------------------------------------ */

/* What it would do now: on a copy of the policy, so that asking teaches it nothing. */
int bl_control_plan(struct bl_manager *m, json_t **ret)
{
        struct bl_policy *copy = NULL;
        struct bl_snapshot s = {0};
        struct bl_plan plan = {0};
        json_t *d = NULL, *list;
        usec_t now;
        char sentence[200];
        int r, failed = 0;

        bl_sample_now(m);
        now = bl_now();
        r = bl_policy_copy(m->policy, &copy);
        if (r >= 0)
                r = bl_snapshot_build(m, now, &s);
        if (r >= 0)
                r = bl_policy_decide(copy, &s, &m->conf->policy, now, &plan);
        if (r < 0)
                goto out;
        d = document();
        list = json_array();
        for (size_t i = 0; i < plan.n; i++) {
                const struct bl_decision *x = &plan.d[i];

                (void)bl_explain(&plan, &s, i, sentence, sizeof sentence);
                failed |= json_array_append_new(
                        list, json_pack("{s:o, s:b, s:s, s:o, s:o, s:o, s:o}", "vm", text(s.vms[i].name), "act",
                                        (int)x->act, "reason", bl_reason_to_string(x->why), "sentence", text(sentence),
                                        "from", number(x->from), "to", number(x->to), "floor", number(x->floor)));
        }
        failed |= json_object_set_new(d, "acting", json_boolean(bl_manager_acting(m)));
        failed |= json_object_set_new(d, "state", text(bl_state_to_string(plan.state)));
        failed |= json_object_set_new(d, "shortfall", number(plan.shortfall));
        failed |= json_object_set_new(d, "coming", number(plan.coming));
        failed |= json_object_set_new(d, "unmet", number(plan.unmet));
        failed |= json_object_set_new(d, "lead", number(plan.lead));
        failed |= json_object_set_new(d, "decisions", list);
        r = finish(d, failed, ret);
out:
        bl_plan_clear(&plan);
        bl_snapshot_clear(&s);
        bl_policy_free(copy);
        return r;
}

/* --- status ---------------------------------------------------------------- */

static json_t *counts_document(struct bl_manager *m)
{
        uint64_t managed = 0, held = 0, stuck = 0, not_reclaimable = 0;

        for (size_t i = 0; i < m->n_guests; i++) {
                struct bl_guest *g = m->guests[i];
                const struct bl_ledger_vm *record = bl_ledger_find(m->ledger, g->uuid);

                managed += bl_guest_managed(g);
                held += record && record->hold != BL_HOLD_NONE;
                stuck += g->decided && g->decision.stuck;
                not_reclaimable += g->desc && bl_domain_info_no_reclaim(&g->desc->live) != BL_RECLAIM_OK;
        }
        return json_pack("{s:o, s:o, s:o, s:o, s:o}", "known", number(m->n_guests), "managed", number(managed), "held",
                         number(held), "stuck", number(stuck), "not_reclaimable", number(not_reclaimable));
}

static json_t *totals_document(struct bl_manager *m)
{
        uint64_t max = 0, actual = 0, resident = 0, taken = 0;

        for (size_t i = 0; i < m->n_guests; i++) {
                const struct bl_guest *g = m->guests[i];

                max = bl_add_sat(max, bl_guest_max(g));
                resident = bl_add_sat(resident, bl_proc_mem_resident(&g->mem));
                if (!g->actual_at)
                        continue;
                actual = bl_add_sat(actual, g->actual);
                taken = bl_add_sat(taken, bl_sub_sat(bl_guest_max(g), g->actual));
        }
        return json_pack("{s:o, s:o, s:o, s:o}", "max", number(max), "actual", number(actual), "resident",
                         number(resident), "taken", number(taken));
}

static json_t *marks_document(const struct bl_marks *m)
{
        json_t *j = json_pack("{s:o}", "min_free", number(m->min_free));

        for (int i = 0; i < _BL_STATE_MAX; i++)
                json_object_set_new(j, bl_state_to_string((enum bl_host_state)i), number(m->mark[i]));
        return j;
}

static json_t *conflicts_document(const struct bl_manager *m)
{
        json_t *j = json_array();

        for (size_t i = 0; i < m->n_conflicts; i++)
                json_array_append_new(
                        j, json_pack("{s:s, s:s}", "name", m->conflicts[i].name, "what", m->conflicts[i].what));
        return j;
}

static json_t *warnings_document(const struct bl_manager *m)
{
        json_t *j = json_array();
        const char *psi = bl_host_psi_why_not(m->host_sensor);

        for (size_t i = 0; m->warnings && m->warnings[i]; i++)
                json_array_append_new(j, text(m->warnings[i]));
        if (psi && m->conf->psi)
                json_array_append_new(j, text(psi));
        if (!bl_ledger_trusted(m->ledger))
                json_array_append_new(j, text("the ledger was damaged and is kept aside: VMs may carry balloons that "
                                              "are not remembered; look at them, then 'ballastctl act on'"));
        return j;
}

int bl_control_status(struct bl_manager *m, json_t **ret)
{
        const struct bl_host *h = &m->host;
        bool running = bl_rollback_running(m);
        json_t *d = document();
        int failed = 0;

        failed |= json_object_set_new(d, "version", text(BALLAST_VERSION));
        failed |= json_object_set_new(d, "acting", json_boolean(bl_manager_acting(m)));
        failed |= json_object_set_new(d, "acting_from", text(bl_ledger_act(m->ledger) < 0 ? "config" : "ballastctl"));
        failed |= json_object_set_new(d, "held", json_boolean(bl_ledger_held(m->ledger)));
        failed |= json_object_set_new(d, "state", text(bl_state_to_string(m->plan.state)));
        failed |= json_object_set_new(d, "since_us", number(m->state_since));
        failed |= json_object_set_new(d, "budget",
                                      json_pack("{s:s, s:o, s:o, s:o, s:o}", "kind", h->budget_is_ram ? "ram" : "size",
                                                "bytes", number(h->budget), "used", number(h->used), "free",
                                                number(h->free), "growth_per_s", number(h->growth)));
        failed |= json_object_set_new(d, "marks", marks_document(&m->plan.marks));
        failed |= json_object_set_new(d, "psi",
                                      json_pack("{s:b, s:o, s:o}", "known", (int)h->psi_known, "some_us",
                                                number(h->psi_some), "full_us", number(h->psi_full)));
        failed |= json_object_set_new(d, "store", bl_document_store_in_short(m));
        failed |= json_object_set_new(d, "sharing", bl_document_sharing_in_short(m));
        failed |= json_object_set_new(
                d, "swap", json_pack("{s:o, s:o}", "total", number(h->swap_total), "free", number(h->swap_free)));
        failed |= json_object_set_new(d, "libvirt",
                                      json_pack("{s:o, s:b, s:o}", "uri", text(bl_conn_uri(m->conn)), "connected",
                                                (int)m->connected, "error", text_or_null(m->conn_error)));
        failed |= json_object_set_new(d, "vms", counts_document(m));
        failed |= json_object_set_new(d, "totals", totals_document(m));
        failed |= json_object_set_new(d, "conflicts", conflicts_document(m));
        failed |= json_object_set_new(d, "warnings", warnings_document(m));
        failed |= json_object_set_new(d, "rollback",
                                      json_pack("{s:b, s:b, s:o}", "running", (int)running, "done",
                                                (int)(bl_ledger_rollback(m->ledger) == BL_ROLLBACK_DONE), "vms_left",
                                                number(running ? bl_rollback_left(m) : 0)));
        return finish(d, failed, ret);
}

int bl_control_config(struct bl_manager *m, json_t **ret)
{
        json_t *d = document(), *list = json_array();
        struct bl_conf_setting s;
        int failed = 0;

        for (size_t i = 0; bl_conf_setting(m->conf, i, &s); i++) {
                bool told = strcmp(s.key, "Act") == 0 && bl_ledger_act(m->ledger) >= 0;

                failed |= json_array_append_new(
                        list, json_pack("{s:s, s:s, s:o, s:o}", "section", s.section, "key", s.key, "value",
                                        text(told ? (bl_ledger_act(m->ledger) ? "yes" : "no") : s.value), "source",
                                        text(told ? "ballastctl" : s.source)));
        }
        failed |= json_object_set_new(d, "settings", list);
        return finish(d, failed, ret);
}
