/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A manager that manages nothing: the calls of daemon/control.h answered from
 * a few made-up virtual machines.  For tests/unit/test-bus.c and
 * tests/cli/fake-ballastd.c; header only, as those link nothing of it.
 *
 * VM names with a meaning: "busy" answers -EBUSY to every change, "slow"
 * answers changes after 300 ms, "mute" never answers.
 */
#ifndef BALLAST_TESTS_FAKE_MANAGER_H
#define BALLAST_TESTS_FAKE_MANAGER_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-event.h>
#include <time.h>

#include "daemon/bus/bus.h"

#define FAKE_PENDING_MAX 512

struct fake_pending {
        bl_done_fn done;
        void *userdata;
};

struct bl_manager {
        sd_event *event;
        bool acting;
        bool held;
        const char *state;
        int rollback_polls; /* status calls until the rollback is over; 0: none runs */
        struct bl_vm_settings last_set;
        bool last_live, last_persistent;
        uint64_t last_bytes;
        bool last_take;
        int changes; /* calls that change */
        int reads;
        struct fake_pending mute[FAKE_PENDING_MAX];
        size_t n_mute;
};

static const struct fake_vm {
        const char *name;
        const char *uuid;
        const char *run;
        const char *hold;
        const char *why_not;
        uint64_t max, actual, resident;
        const char *stats;
        bool stuck;
        const char *reason;
        const char *sentence;
} fake_vms[] = {
        {"web1", "6f1c6f9e-0000-4000-8000-000000000001", "running", "none", NULL, 2 * BL_GIB, 1536 * BL_MIB,
         1600 * BL_MIB, "balloon", false, "take.host-soft",
         "takes 256 MiB from web1, as the host is below soft and it uses 700 MiB of its 1.5 GiB"},
        {"web2", "6f1c6f9e-0000-4000-8000-000000000002", "paused", "admin", NULL, 2 * BL_GIB, 2 * BL_GIB, 900 * BL_MIB,
         "none", false, "skip.held", "web2 is held by an administrator and left alone"},
        {"db-with-a-rather-long-name-as-people-give-them", "6f1c6f9e-0000-4000-8000-000000000003", "running", "none",
         "vfio", 64 * BL_GIB, 64 * BL_GIB, 64 * BL_GIB, "balloon", false, "skip.not-reclaimable",
         "a passed-through device pins its memory"},
        {"slow", "6f1c6f9e-0000-4000-8000-000000000004", "running", "none", NULL, BL_GIB, BL_GIB, BL_GIB, "balloon",
         true, "skip.stuck", "slow does not follow its target"},
        {"busy", "6f1c6f9e-0000-4000-8000-000000000005", "migrating", "none", NULL, BL_GIB, BL_GIB, BL_GIB, "agent",
         false, "skip.migrating", "busy is being migrated"},
        {"mute", "6f1c6f9e-0000-4000-8000-000000000006", "running", "hand", NULL, BL_GIB, BL_GIB, BL_GIB, "balloon",
         false, "skip.held", "somebody else has set the balloon of mute"},
};

#define FAKE_N_VMS (sizeof(fake_vms) / sizeof(fake_vms[0]))

static const struct fake_vm *fake_find(const char *name)
{
        for (size_t i = 0; i < FAKE_N_VMS; i++)
                if (strcmp(fake_vms[i].name, name) == 0 || strcmp(fake_vms[i].uuid, name) == 0)
                        return &fake_vms[i];
        return NULL;
}

static json_t *fake_size(uint64_t v)
{
        return json_integer((json_int_t)v);
}

static int fake_give(json_t *doc, json_t **ret)
{
        if (!doc)
                return -ENOMEM;
        *ret = doc;
        return 0;
}

static int fake_status(struct bl_manager *m, json_t **ret)
{
        bool rolling = m->rollback_polls > 0;

        m->reads++;
        if (rolling)
                m->rollback_polls--;
        return fake_give(
                json_pack("{si ss sb ss sb ss si "
                          "s{ss so so so si} s{so so so so so so} s{sb si si} s{ss s{so so so}} s{ss ss so sn} "
                          "s{so so} s{ss sb sn} s{si si si si si} s{so so so so} s[{ss ss}] s[s] s{sb si}}",
                          "schema", BL_SCHEMA_VERSION, "version", BALLAST_VERSION, "acting", m->acting, "acting_from",
                          "config", "held", m->held, "state", m->state, "since_us", 0, "budget", "kind", "ram", "bytes",
                          fake_size(24 * BL_GIB), "used", fake_size(20 * BL_GIB), "free", fake_size(4 * BL_GIB),
                          "growth_per_s", 1048576, "marks", "min_free", fake_size(900 * BL_MIB), "high",
                          fake_size(3600 * BL_MIB), "clear", fake_size(900 * BL_MIB), "soft", fake_size(576 * BL_MIB),
                          "hard", fake_size(288 * BL_MIB), "low", fake_size(144 * BL_MIB), "psi", "known", true,
                          "some_us", 1234, "full_us", 12, "store", "state", "there", "pool", "size",
                          fake_size(4 * BL_GIB), "ready", fake_size(BL_GIB), "used", fake_size(100 * BL_MIB), "sharing",
                          "mode", "group", "state", "rest", "saved", fake_size(293 * BL_MIB), "error", "swap", "total",
                          fake_size(2 * BL_GIB), "free", fake_size(BL_GIB), "libvirt", "uri", "qemu:///system",
                          "connected", true, "error", "vms", "known", (int)FAKE_N_VMS, "managed", 5, "held", 2, "stuck",
                          1, "not_reclaimable", 1, "totals", "max", fake_size(71 * BL_GIB), "actual",
                          fake_size(70 * BL_GIB), "resident", fake_size(69 * BL_GIB), "taken", fake_size(BL_GIB),
                          "conflicts", "name", "ksmtuned", "what", "ksmtuned also steers KSM", "warnings",
                          "vm_swappiness is 100", "rollback", "running", rolling, "vms_left",
                          rolling ? m->rollback_polls : 0),
                ret);
}

/* web1 swaps on the store, web2 waits for room there, and the host's kernel has some of web1 and slow. */
static json_t *fake_store_of(const struct fake_vm *v)
{
        bool on = strcmp(v->name, "web1") == 0, waiting = strcmp(v->name, "web2") == 0;
        uint64_t one = on ? BL_MIB : 0;

        return json_pack("{ss ss? so so? so so so so so so so so so? sn ss so so so}", "stage",
                         on        ? "on"
                         : waiting ? "waiting"
                                   : "none",
                         "why", waiting ? "the store has no room for 640 MiB: 200 MiB are left" : NULL, "size",
                         fake_size(on || waiting ? 640 * BL_MIB : 0), "used", on ? fake_size(300 * BL_MIB) : NULL,
                         "swapped", fake_size(one * 310), "held", fake_size(one * 290), "zero", fake_size(one * 20),
                         "shared", fake_size(one * 110), "stored", fake_size(one * 61), "disk", fake_size(one * 12),
                         "stale", fake_size(one * 10), "twice", fake_size(one * 4), "ratio",
                         on ? fake_size(3100) : NULL, "limit", "group", on ? "web" : "", "writes", fake_size(one / 7),
                         "reads", fake_size(one / 9), "errors", fake_size(0));
}

static json_t *fake_kernel_of(const struct fake_vm *v)
{
        uint64_t swapped = strcmp(v->name, "slow") == 0 ? 128 * BL_MIB : strcmp(v->name, "web1") == 0 ? BL_MIB : 0;

        return json_pack("{so so so so so so sb ss?}", "swapped", fake_size(swapped), "paged_out", fake_size(swapped),
                         "read_back", fake_size(swapped / 64), "read_back_per_s", fake_size(4096), "backoff_us",
                         fake_size(0), "idle_us", fake_size(swapped ? 90 * BL_SEC : 0), "by_cgroup", false, "why",
                         v->why_not);
}

static json_t *fake_vm_json(const struct fake_vm *v)
{
        bool known = strcmp(v->stats, "none") != 0;
        json_t *stats = json_pack("{ss sI sn sn sn sn sn sn sn sn sn sn}", "source", v->stats, "age_us",
                                  (json_int_t)1500000, "total", "available", "unused", "caches", "swap_total",
                                  "swap_free", "swap_in", "swap_out", "major_faults", "psi_some_us");

        if (known) {
                (void)json_object_set_new(stats, "total", fake_size(v->actual - 64 * BL_MIB));
                (void)json_object_set_new(stats, "available", fake_size(v->actual / 2));
                (void)json_object_set_new(stats, "unused", fake_size(v->actual / 4));
                (void)json_object_set_new(stats, "caches", fake_size(v->actual / 4));
                (void)json_object_set_new(stats, "swap_in", fake_size(0));
        }
        return json_pack(
                "{so so ss ss si ss sb ss sb ss? so so so so so so so so so so so so sb sb sb sb so sn s{ss ss "
                "sb so so}}",
                "store", fake_store_of(v), "kernel", fake_kernel_of(v), "name", v->name, "uuid", v->uuid, "pid", 4711,
                "run", v->run, "managed", !v->why_not, "hold", v->hold, "reclaimable", !v->why_not, "why_not",
                v->why_not, "max", fake_size(v->max), "limit", fake_size(v->max), "reservation", fake_size(v->max / 4),
                "shares", fake_size(1000), "actual", fake_size(v->actual), "target", fake_size(v->actual), "original",
                fake_size(v->max), "resident", fake_size(v->resident), "overhead", fake_size(64 * BL_MIB), "floor",
                fake_size(v->actual / 2), "want", fake_size(v->actual), "speed", fake_size(100 * BL_MIB), "stuck",
                v->stuck, "lying", false, "hung", false, "oom_deflates", false, "stats", stats, "agent", "decision",
                "reason", v->reason, "sentence", v->sentence, "act", strncmp(v->reason, "take", 4) == 0, "from",
                fake_size(v->actual), "to", fake_size(v->actual - 256 * BL_MIB));
}

static int fake_list(struct bl_manager *m, json_t **ret)
{
        json_t *vms = json_array();

        m->reads++;
        for (size_t i = 0; i < FAKE_N_VMS; i++)
                (void)json_array_append_new(vms, fake_vm_json(&fake_vms[i]));
        return fake_give(json_pack("{si so}", "schema", BL_SCHEMA_VERSION, "vms", vms), ret);
}

static json_t *fake_event(uint64_t ago, const char *vm, const char *reason, const char *sentence, const char *outcome)
{
        struct timespec ts;

        (void)clock_gettime(CLOCK_REALTIME, &ts);
        return json_pack("{sI ss? ss ss so so ss}", "at_us",
                         (json_int_t)(((uint64_t)ts.tv_sec - ago) * BL_SEC + (uint64_t)ts.tv_nsec / 1000), "vm", vm,
                         "reason", reason, "sentence", sentence, "from", fake_size(2 * BL_GIB), "to",
                         fake_size(1792 * BL_MIB), "outcome", outcome);
}

static json_t *fake_events(const char *vm)
{
        json_t *a = json_array();

        if (!vm)
                (void)json_array_append_new(
                        a, fake_event(86400, NULL, "state.soft", "free memory fell below soft", "seen"));
        if (!vm || strcmp(vm, "web1") == 0) {
                (void)json_array_append_new(
                        a, fake_event(120, "web1", "take.host-soft", "took 256 MiB from web1", "done"));
                (void)json_array_append_new(a,
                                            fake_event(60, "web1", "grant.need", "web1 is short of memory", "failed"));
        }
        return a;
}

static int fake_show(struct bl_manager *m, const char *vm, json_t **ret)
{
        const struct fake_vm *v = fake_find(vm);
        json_t *doc;

        m->reads++;
        if (!v)
                return -ENOENT;
        doc = fake_vm_json(v);
        (void)json_object_set_new(doc, "schema", json_integer(BL_SCHEMA_VERSION));
        (void)json_object_set_new(doc, "history", fake_events(v->name));
        return fake_give(doc, ret);
}

static json_t *fake_named(json_t *doc, const struct fake_vm *v)
{
        (void)json_object_set_new(doc, "name", json_string(v->name));
        (void)json_object_set_new(doc, "uuid", json_string(v->uuid));
        return doc;
}

static int fake_tiers(struct bl_manager *m, json_t **ret)
{
        json_t *vms = json_array(), *kernel_vms = json_array(), *store, *kernel;

        m->reads++;
        for (size_t i = 0; i < FAKE_N_VMS; i++) {
                (void)json_array_append_new(vms, fake_named(fake_store_of(&fake_vms[i]), &fake_vms[i]));
                (void)json_array_append_new(kernel_vms, fake_named(fake_kernel_of(&fake_vms[i]), &fake_vms[i]));
        }
        store = json_pack("{ss so so s{so so so} so so so so so so so so so s{so so sb} so so so so so so so so so so "
                          "so so so so s{so so so so so}}",
                          "state", "there", "age_us", fake_size(200000), "incarnation", fake_size(4711), "pool", "size",
                          fake_size(4 * BL_GIB), "ready", fake_size(BL_GIB), "used", fake_size(100 * BL_MIB), "stored",
                          fake_size(103 * BL_MIB), "payload", fake_size(90 * BL_MIB), "slack", fake_size(6 * BL_MIB),
                          "tables", fake_size(4 * BL_MIB), "index", fake_size(3 * BL_MIB), "fixed",
                          fake_size(5 * BL_MIB), "held", fake_size(290 * BL_MIB), "zero", fake_size(20 * BL_MIB),
                          "unique", fake_size(180 * BL_MIB), "disk", "size", fake_size(20 * BL_GIB), "used",
                          fake_size(12 * BL_MIB), "failed", false, "headroom", fake_size(3 * BL_GIB), "promised",
                          fake_size(640 * BL_MIB), "backing", fake_size(24 * BL_GIB), "ratio", fake_size(3100), "dedup",
                          fake_size(6200), "overall", fake_size(2400), "writes",
                          fake_size(120000 + 500 * (uint64_t)m->reads), "reads", fake_size(30000), "trims",
                          fake_size(9000), "dedup_hits", fake_size(41000), "demoted", fake_size(12 * BL_MIB),
                          "disk_reads", fake_size(12), "errors", fake_size(0), "waiting", fake_size(0), "latency",
                          "write_p50_us", fake_size(180), "write_p99_us", fake_size(2100), "read_p50_us", fake_size(70),
                          "read_p99_us", fake_size(12800), "oldest_us", fake_size(0));
        kernel = json_pack(
                "{s[{ss ss so so so so so so}] s{sb sb ss so so so so} s[{ss ss so so si}] so s{so so so} so}", "zram",
                "name", "zram0", "algorithm", "lz4", "size", fake_size(2 * BL_GIB), "held", fake_size(100 * BL_MIB),
                "same", fake_size(20 * BL_MIB), "compressed", fake_size(38 * BL_MIB), "used", fake_size(40 * BL_MIB),
                "ratio", fake_size(4000), "zswap", "there", true, "enabled", true, "compressor", "lz4",
                "max_pool_percent", fake_size(20), "held", fake_size(8 * BL_MIB), "used", fake_size(3 * BL_MIB),
                "ratio", fake_size(3750), "swaps", "path", "/dev/zram0", "kind", "device", "size",
                fake_size(2 * BL_GIB), "used", fake_size(129 * BL_MIB), "priority", 100, "vms", kernel_vms, "all",
                "swapped", fake_size(129 * BL_MIB), "paged_out", fake_size(129 * BL_MIB), "read_back",
                fake_size(2 * BL_MIB), "cpu_us", fake_size(123456));
        return fake_give(json_pack("{si so so s{so so so so so so so so} so}", "schema", BL_SCHEMA_VERSION, "store",
                                   store, "vms", vms, "all", "swapped", fake_size(310 * BL_MIB), "held",
                                   fake_size(290 * BL_MIB), "zero", fake_size(20 * BL_MIB), "shared",
                                   fake_size(110 * BL_MIB), "stored", fake_size(61 * BL_MIB), "disk",
                                   fake_size(12 * BL_MIB), "stale", fake_size(10 * BL_MIB), "twice",
                                   fake_size(4 * BL_MIB), "kernel", kernel),
                         ret);
}

static int fake_sharing(struct bl_manager *m, json_t **ret)
{
        json_t *vms = json_array();

        m->reads++;
        for (size_t i = 0; i < FAKE_N_VMS; i++) {
                const struct fake_vm *v = &fake_vms[i];
                json_t *vm = json_pack(
                        "{ss ss ss ss? sb so so so so so so so so so so so ss ss}", "group", "web", "asked", "group",
                        "mode", v->why_not ? "off" : "group", "why_not", v->why_not ? "KSM serves another group" : NULL,
                        "merging", !v->why_not, "evidence_age_us", fake_size(300000), "present", fake_size(v->resident),
                        "zero", fake_size(3 * BL_MIB), "gain", fake_size(12 * BL_MIB), "gain_low",
                        fake_size(9 * BL_MIB), "gain_high", fake_size(16 * BL_MIB), "merged",
                        fake_size(v->why_not ? 0 : 120 * BL_MIB), "saved", fake_size(v->why_not ? 0 : 96 * BL_MIB),
                        "breaks", fake_size(v->why_not ? 0 : 110 * BL_MIB), "zero_out", fake_size(0), "cpu_us",
                        fake_size(1200000), "reason", v->why_not ? "share.not-possible" : "share.keep", "sentence",
                        "its duplicates are merged");

                (void)json_array_append_new(vms, fake_named(vm, v));
        }
        return fake_give(
                json_pack("{si ss ss sn ss ss ss s[s] s{si so so so so so so so si si} s{so so so} so so so s{so so so "
                          "so so "
                          "so} so}",
                          "schema", BL_SCHEMA_VERSION, "mode", "group", "group", "web", "error", "state", "rest",
                          "reason", "share.rest", "sentence", "ksmd rests: the last pass did not pay", "warnings",
                          "khugepaged may undo merges", "ksm", "run", 0, "full_scans", fake_size(12), "shared",
                          fake_size(20000), "sharing", fake_size(80000), "zero", fake_size(10), "unshared",
                          fake_size(90000), "volatile", fake_size(100), "cow", fake_size(1234), "scan_cost_ns", 3800,
                          "merge_cost_ns", 38000, "cpu_us", "ksmd", fake_size(3500000), "khugepaged", fake_size(20000),
                          "scan", fake_size(240000), "cpu_us_per_mib", fake_size(12500), "gain", fake_size(0),
                          "reserve", fake_size(30 * BL_MIB), "all", "present", fake_size(9 * BL_GIB), "merged",
                          fake_size(360 * BL_MIB), "saved", fake_size(293 * BL_MIB), "gain", fake_size(40 * BL_MIB),
                          "zero", fake_size(18 * BL_MIB), "breaks", fake_size(330 * BL_MIB), "vms", vms),
                ret);
}

static int fake_plan(struct bl_manager *m, json_t **ret)
{
        json_t *d = json_array();

        m->reads++;
        for (size_t i = 0; i < FAKE_N_VMS; i++)
                (void)json_array_append_new(d, json_pack("{ss sb ss ss so so so}", "vm", fake_vms[i].name, "act",
                                                         strncmp(fake_vms[i].reason, "take", 4) == 0, "reason",
                                                         fake_vms[i].reason, "sentence", fake_vms[i].sentence, "from",
                                                         fake_size(fake_vms[i].actual), "to",
                                                         fake_size(fake_vms[i].actual - 256 * BL_MIB), "floor",
                                                         fake_size(fake_vms[i].actual / 2)));
        return fake_give(json_pack("{si ss so so so so sb so}", "schema", BL_SCHEMA_VERSION, "state", m->state,
                                   "shortfall", fake_size(512 * BL_MIB), "coming", fake_size(128 * BL_MIB), "unmet",
                                   fake_size(0), "lead", fake_size(64 * BL_MIB), "acting", m->acting, "decisions", d),
                         ret);
}

static int fake_explain(struct bl_manager *m, const char *vm, json_t **ret)
{
        m->reads++;
        if (vm && !fake_find(vm))
                return -ENOENT;
        return fake_give(json_pack("{si so}", "schema", BL_SCHEMA_VERSION, "events", fake_events(vm)), ret);
}

static int fake_config(struct bl_manager *m, json_t **ret)
{
        m->reads++;
        return fake_give(json_pack("{si s[{ss ss ss ss} {ss ss ss ss} {ss ss ss ss}]}", "schema", BL_SCHEMA_VERSION,
                                   "settings", "section", "daemon", "key", "act", "value", "yes", "source",
                                   "/etc/ballast/ballast.conf:3", "section", "daemon", "key", "log_level", "value",
                                   "info", "source", "default", "section", "policy", "key", "idle_tax", "value", "75%",
                                   "source", "default"),
                         ret);
}

static int fake_metrics(struct bl_manager *m, char **ret)
{
        char *s = strdup("# TYPE ballast_host_free_bytes gauge\n"
                         "# UNIT ballast_host_free_bytes bytes\n"
                         "# HELP ballast_host_free_bytes Free memory of the budget.\n"
                         "ballast_host_free_bytes 4294967296\n"
                         "# EOF\n");

        m->reads++;
        if (!s)
                return -ENOMEM;
        *ret = s;
        return 0;
}

struct fake_timer {
        bl_done_fn done;
        void *userdata;
};

static int fake_on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
        struct fake_timer *t = userdata;

        (void)s;
        (void)usec;
        t->done(t->userdata, 0, "done, slowly");
        free(t);
        return 0;
}

static void fake_answer(struct bl_manager *m, const char *vm, const char *sentence, bl_done_fn done, void *userdata)
{
        struct fake_timer *t;

        m->changes++;
        if (vm && !fake_find(vm))
                done(userdata, -ENOENT, "no virtual machine of that name is known to ballastd");
        else if (vm && strcmp(vm, "busy") == 0)
                done(userdata, -EBUSY, "busy is being migrated; try again when it has ended");
        else if (vm && strcmp(vm, "mute") == 0 && m->n_mute < FAKE_PENDING_MAX)
                m->mute[m->n_mute++] = (struct fake_pending){done, userdata};
        else if (vm && strcmp(vm, "slow") == 0) {
                t = malloc(sizeof(*t));
                *t = (struct fake_timer){done, userdata};
                (void)sd_event_add_time_relative(m->event, NULL, CLOCK_MONOTONIC, 300 * BL_MSEC, 0, fake_on_timer, t);
        } else
                done(userdata, 0, sentence);
}

static void fake_set_vm(struct bl_manager *m, const char *vm, const struct bl_vm_settings *s, bool live,
                        bool persistent, bl_done_fn done, void *userdata)
{
        m->last_set = *s;
        m->last_live = live;
        m->last_persistent = persistent;
        if (s->limit != BL_UNSET && s->reservation != BL_UNSET && s->limit < s->reservation)
                done(userdata, -ERANGE, "the limit is below the reservation");
        else
                fake_answer(m, vm, "set", done, userdata);
}

static void fake_balloon(struct bl_manager *m, const char *vm, uint64_t bytes, bool take, bl_done_fn done,
                         void *userdata)
{
        m->last_bytes = bytes;
        m->last_take = take;
        fake_answer(m, vm, "the balloon is on its way", done, userdata);
}

static void fake_hold(struct bl_manager *m, const char *vm, bool hold, bl_done_fn done, void *userdata)
{
        if (!vm)
                m->held = hold;
        fake_answer(m, vm, hold ? "held" : "released", done, userdata);
}

static void fake_drain(struct bl_manager *m, const char *vm, bool undo, bl_done_fn done, void *userdata)
{
        fake_answer(m, vm, undo ? "not drained" : "draining", done, userdata);
}

static void fake_resume_sharing(struct bl_manager *m, bl_done_fn done, void *userdata)
{
        fake_answer(m, NULL, "KSM is driven again", done, userdata);
}

static void fake_act(struct bl_manager *m, bool on, bl_done_fn done, void *userdata)
{
        m->acting = on;
        fake_answer(m, NULL, on ? "acting" : "no longer acting", done, userdata);
}

static void fake_rollback(struct bl_manager *m, bl_done_fn done, void *userdata)
{
        m->acting = false;
        m->rollback_polls = 4;
        fake_answer(m, NULL, "rolling back 3 virtual machines", done, userdata);
}

static int fake_reload(struct bl_manager *m, char **ret_message)
{
        char *s = strdup("/etc/ballast/ballast.conf:7: bad size '12 apples'; the old configuration is kept");

        m->changes++;
        if (!s)
                return -ENOMEM;
        *ret_message = s;
        return -EINVAL;
}

static const struct bl_control_ops fake_ops = {
        .status = fake_status,
        .list = fake_list,
        .show = fake_show,
        .tiers = fake_tiers,
        .sharing = fake_sharing,
        .plan = fake_plan,
        .explain = fake_explain,
        .config = fake_config,
        .metrics = fake_metrics,
        .set_vm = fake_set_vm,
        .balloon = fake_balloon,
        .hold = fake_hold,
        .drain = fake_drain,
        .resume_sharing = fake_resume_sharing,
        .act = fake_act,
        .rollback = fake_rollback,
        .reload = fake_reload,
};

#endif
