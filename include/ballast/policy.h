/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The policy: (snapshot, state, config, now) -> plan.
 *
 * Pure: no I/O, no clock, no log, no locale, libc only (a test reads its
 * undefined symbols).  The state holds what can only be learned over time:
 * each VM's speed, whether it is stuck, the host state for hysteresis.  Two
 * equal states given equal input give equal plans.
 */
#ifndef BALLAST_POLICY_H
#define BALLAST_POLICY_H

#include <ballast/config.h>
#include <ballast/plan.h>
#include <ballast/snapshot.h>

struct bl_policy;

/* A policy that has learned nothing.  -ENOMEM. */
int bl_policy_new(struct bl_policy **ret);
struct bl_policy *bl_policy_free(struct bl_policy *p);

/* An independent copy, for a dry run that must not teach the real one.  -ENOMEM. */
int bl_policy_copy(const struct bl_policy *p, struct bl_policy **ret);

/*
 * Decides.  `ret` is filled only on success and then owned by the caller
 * (bl_plan_clear).  Learns from the snapshot: call it once per snapshot.
 * `now` >= every time in the snapshot.  -ENOMEM; never fails otherwise.
 *
 * Sources: host states and sliding-scale minFree: VMware ESXi; min-funding
 * revocation and idle-memory tax: Waldspurger, "Memory Resource Management in
 * VMware ESX Server", OSDI 2002, section 5; two-phase targets and stuck
 * detection: xapi squeezed.
 */
int bl_policy_decide(struct bl_policy *p, const struct bl_snapshot *s, const struct bl_policy_config *c, usec_t now,
                     struct bl_plan *ret);

/* minFree by ESX's sliding scale (6 % of the first 4 GiB, 4 % of the next 8,
 * 2 % of the next 16, 1 % of the rest), or `min_free` if set, and the marks. */
void bl_marks_compute(uint64_t budget, uint64_t min_free, struct bl_marks *ret);

/* The state that follows from `free`, coming from `before`. */
enum bl_host_state bl_state_next(enum bl_host_state before, uint64_t free, const struct bl_marks *m, bool hysteresis);

enum bl_stats_verdict { BL_STATS_GOOD, BL_STATS_MISSING, BL_STATS_ABSURD, BL_STATS_STALE };

/* May a VM be shrunk on these figures?  Stale is older than three periods. */
enum bl_stats_verdict bl_stats_check(const struct bl_guest_stats *s, uint64_t max, usec_t now);

/* One sentence for people about decision `i`, in English, without a newline;
 * sizes in binary units.  Returns the length as snprintf does. */
int bl_explain(const struct bl_plan *p, const struct bl_snapshot *s, size_t i, char *buf, size_t size);

/* The same about what is done to equal pages of VM `i` (plan.share.d), and about ksmd (plan.share). */
int bl_explain_share(const struct bl_plan *p, const struct bl_snapshot *s, size_t i, char *buf, size_t size);
int bl_explain_drive(const struct bl_plan *p, const struct bl_snapshot *s, char *buf, size_t size);

#endif
