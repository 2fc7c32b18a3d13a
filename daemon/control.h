/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What an administrator can ask of the daemon: the calls behind the D-Bus
 * methods (daemon/bus) and behind nothing else.  All run on the event loop
 * and return at once.
 *
 * Reading calls return a JSON document (jansson; a new reference).  Every
 * document has "schema": BL_SCHEMA_VERSION; fields are only ever added within
 * a version.  Sizes are bytes, times are microseconds since the epoch
 * ("_at_us"), ages and durations microseconds, ratios permyriad.
 * ballastctl-json(7) describes the documents.
 *
 * A changing call that must ask libvirt finishes later: it takes a `done`
 * callback that is called exactly once, from the event loop, also on failure.
 */
#ifndef BALLAST_DAEMON_CONTROL_H
#define BALLAST_DAEMON_CONTROL_H

#include <jansson.h>

#include <ballast/units.h>

#include "daemon/virt/metadata.h"

#define BL_SCHEMA_VERSION 1

struct bl_manager;

/* Called once with 0 and an optional sentence, or with a negative errno and a
 * sentence that says what is wrong and how to mend it. */
typedef void (*bl_done_fn)(void *userdata, int r, const char *message);

/*
 * {schema, version, acting: bool, acting_from: "config"|"ballastctl",
 *  held: bool,                      all automatic action is on hold
 *  state: "high".."low", since_us,
 *  budget: {kind: "ram"|"size", bytes, used, free, growth_per_s},
 *  marks: {min_free, high, clear, soft, hard, low},
 *  psi: {known, some_us, full_us}, swap: {total, free},
 *  store: {state: "none"|"away"|"deaf"|"there", pool: null | {size, ready, used}},
 *  sharing: {mode, state, saved, error} as in bl_control_sharing,
 *  libvirt: {uri, connected, error},
 *  vms: {known, managed, held, stuck, not_reclaimable},
 *  totals: {max, actual, resident, taken},
 *  conflicts: [ {name, what} ],     other controllers at work, sentences
 *  warnings: [ "..." ],             configuration and sensing, sentences
 *  rollback: {running, done, vms_left}}  done: nothing is touched until `act on`
 */
int bl_control_status(struct bl_manager *m, json_t **ret);

/*
 * {schema, vms: [ {name, uuid, pid, run: "running"|"paused"|"migrating",
 *   managed, hold: "none"|"hand"|"admin"|"manual", hold_reason, reclaimable: bool, why_not,
 *   settings_error, max, limit, reservation, shares, actual, target, original, resident, overhead,
 *   held_twice, held_twice_freed, shared_saved, floor, want, speed, asked, deaf_us, stuck, lying, hung, oom_deflates,
 *   stats: {source: "none"|"balloon"|"agent", age_us, total, available, unused, caches,
 *           swap_total, swap_free, swap_in, swap_out, major_faults, psi_some_us}  (missing: null),
 *   agent: null | {channel, version, kernel, connected_us, reports, requests, spoilt, throttled,
 *           request: null | {age_us, bytes, stop},
 *           hints: null | {age_us, free_pages, inactive_file_pages, file_pages, runs, complete, cut}},
 *   store: as in bl_control_tiers' vms, kernel: as in its kernel.vms, both without name and uuid,
 *   decision: null | {reason, sentence, act, from, to}} ]}
 * A figure that is not known (yet) is null.
 */
int bl_control_list(struct bl_manager *m, json_t **ret);

/* One VM by name or uuid, as in list, plus "history": its last events.  -ENOENT. */
int bl_control_show(struct bl_manager *m, const char *vm, json_t **ret);

/*
 * What is held where.
 * {schema,
 *  store: {state: "none"|"away"|"deaf"|"there",
 *   the rest only once it has answered, and as it was then:
 *   age_us, incarnation, pool: {size, ready, used}, stored, payload, slack, tables, index, fixed,
 *   held, zero, unique, disk: {size, used, failed}, headroom, promised, backing, ratio, dedup, overall,
 *   writes, reads, trims, dedup_hits, demoted, disk_reads, errors, waiting,
 *   latency: {write_p50_us, write_p99_us, read_p50_us, read_p99_us, oldest_us}},
 *  vms: [ {name, uuid, stage: "none"|"waiting"|"registered"|"plugged"|"on"|"draining"|"unplugging", why,
 *   size, used, swapped, held, zero, shared, stored, disk, stale, twice, ratio, limit, group, writes, reads, errors} ],
 *  all: {swapped, held, zero, shared, stored, disk, stale, twice},
 *  kernel: {zram: [ {name, algorithm, size, held, same, compressed, used, ratio} ],
 *   zswap: {there, enabled, compressor, max_pool_percent, held, used, ratio},
 *   swaps: [ {path, kind: "file"|"device", size, used, priority} ],
 *   vms: [ {name, uuid, swapped, paged_out, read_back, read_back_per_s, backoff_us, idle_us, by_cgroup, why} ],
 *   all: {swapped, paged_out, read_back}, cpu_us}}
 * Of `ratio`, `dedup` and `overall` (permyriad) 10000 is nothing gained, 0 nothing there; what a guest or
 * kernel does not say is null.
 */
int bl_control_tiers(struct bl_manager *m, json_t **ret);

/*
 * Page sharing.
 * {schema, mode: "off"|"zero"|"group", group: "" | the one that KSM serves, error: null | why nobody is served,
 *  state: "off"|"unavailable"|"yielded"|"driven"|"rest", reason, sentence,
 *  warnings: ["..."],               what the kernel may undo, and what would keep it from that
 *  ksm: null | {run, full_scans, shared, sharing, zero, unshared, volatile, cow, scan_cost_ns, merge_cost_ns},
 *  cpu_us: {ksmd, khugepaged, scan}: since ballastd drives it; cpu_us_per_mib: null | of all that is saved,
 *  gain, reserve,
 *  all: {present, merged, saved, gain, zero, breaks},
 *  vms: [ {name, uuid, group, asked, mode: "off"|"zero"|"group", why_not: null | sentence, merging: null | bool,
 *    evidence_age_us, present, zero, gain, gain_low, gain_high, merged, saved, breaks, zero_out, cpu_us,
 *    reason, sentence} ]}
 * `gain` is what merging would free beyond what is merged, estimated from a sample; `saved` is by Pss; `breaks` is
 * what un-merging would take at once.  What is not known is null.
 */
int bl_control_sharing(struct bl_manager *m, json_t **ret);

/* {schema, state, shortfall, coming, unmet, lead, acting, decisions: [{vm, act, reason, sentence, from, to, floor}]} */
int bl_control_plan(struct bl_manager *m, json_t **ret);

/* {schema, events: [{at_us, vm|null, reason, sentence, from, to, outcome: "done"|"failed"|"not-acting"|...}]}
 * newest last; vm NULL: all.  A VM that stopped is found while the history has something of it.  -ENOENT. */
int bl_control_explain(struct bl_manager *m, const char *vm, json_t **ret);

/* {schema, settings: [{section, key, value, source: "default"|"FILE:LINE"|"ballastctl"}]} */
int bl_control_config(struct bl_manager *m, json_t **ret);

/* OpenMetrics text, allocated. */
int bl_control_metrics(struct bl_manager *m, char **ret);

/* What `set VM` may change; BL_UNSET / -1 leaves a field. */
struct bl_vm_settings {
        uint64_t reservation;
        uint64_t limit;
        uint64_t shares;
        int managed; /* 1, 0, -1 */
        int sharing; /* enum bl_share_mode; -1 */
        char group[BL_METADATA_GROUP]; /* its trust group; "" */
};

#define BL_VM_SETTINGS_NONE                                                                                  \
        {                                                                                                    \
                .reservation = BL_UNSET, .limit = BL_UNSET, .shares = BL_UNSET, .managed = -1, .sharing = -1 \
        }

void bl_control_set_vm(struct bl_manager *m, const char *vm, const struct bl_vm_settings *s, bool live, bool persistent,
                       bl_done_fn done, void *userdata);

/* By hand: `leave` bytes to the guest, or (`take`) take that many from what it has now.  The VM is held afterwards. */
void bl_control_balloon(struct bl_manager *m, const char *vm, uint64_t bytes, bool take, bl_done_fn done,
                        void *userdata);

/* Brings back what `vm` has swapped on the store and unplugs the disk; answered as soon as it is begun: how it goes
 * on, `show` says (store.stage, store.why).  It gets none until it is started anew or `undo`.  -ENOMEM: the host
 * has not the memory. */
void bl_control_drain(struct bl_manager *m, const char *vm, bool undo, bl_done_fn done, void *userdata);

/* vm NULL: all automatic action. */
void bl_control_hold(struct bl_manager *m, const char *vm, bool hold, bl_done_fn done, void *userdata);

/* Asks the agent of `vm` for something: "ping", "trim" (`bytes` of page cache), "compact", "hints" (`bytes` of
 * messages at most; BL_UNSET: as the agent sees fit); done when it has answered. */
void bl_control_ask(struct bl_manager *m, const char *vm, const char *what, uint64_t bytes, bl_done_fn done,
                    void *userdata);

/* After somebody else changed KSM's settings: Ballast drives it again. */
void bl_control_resume_sharing(struct bl_manager *m, bl_done_fn done, void *userdata);

void bl_control_act(struct bl_manager *m, bool on, bl_done_fn done, void *userdata);

/* Act off, then every VM back to what it was, paced; done is called when it
 * has begun, status tells of its progress. */
void bl_control_rollback(struct bl_manager *m, bl_done_fn done, void *userdata);

/* As SIGHUP does: -EINVAL with the message keeps the old configuration.  0 may
 * come with one, too: what takes a restart. */
int bl_control_reload(struct bl_manager *m, char **ret_message);

#endif
