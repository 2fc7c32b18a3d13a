/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A host and guests that exist only as numbers, for the policy to be tried on.
 * After squeezed's simulator (xapi squeeze_test.ml): ideal, slow, limited,
 * stuck and lying guests, and the promises that hold for all of them, counted
 * at each step in struct sim_faults.
 */
#ifndef BALLAST_SIM_H
#define BALLAST_SIM_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <ballast/policy.h>

#define SIM_VMS_MAX 1024

enum sim_stats {
        SIM_STATS_GOOD,
        SIM_STATS_MISSING,
        SIM_STATS_STALE, /* the last report stays as it is */
        SIM_STATS_ABSURD, /* available above total */
        SIM_STATS_STARVING, /* claims that nothing is available, always */
        SIM_STATS_NO_AVAILABLE, /* an old kernel: no MemAvailable */
};

/* What its agent asks for. */
enum sim_asks {
        SIM_ASKS_NEVER, /* it has none: its figures come from the balloon */
        SIM_ASKS, /* when it is short, for what it is short of */
        SIM_ASKS_ALWAYS, /* for `ask_bytes` each time that it looks */
};

struct sim_guest {
        char name[24];
        uint8_t uuid[BL_UUID_LEN];

        /* what it is */
        uint64_t max, limit, reservation, shares;
        uint64_t own; /* kernel's own, not in MemTotal */
        uint64_t overhead; /* of the VMM */
        uint64_t swap_total;
        uint64_t speed_down, speed_up; /* bytes/s of its balloon */
        usec_t latency;
        usec_t period; /* of reports */
        uint64_t grain, phase;

        /* how it behaves */
        bool stuck;
        usec_t on, off; /* moves for `on`, stands still for `off`; 0: always moves */
        uint64_t low_stop; /* gives down to here and no further */
        uint64_t high_stop; /* takes back up to here; 0: all */
        bool lying; /* says it gave; the host gets nothing */
        bool deflate_oom;
        bool untouched_first; /* gives pages first that it never used */
        enum sim_stats stats;
        enum sim_asks asks;
        uint64_t ask_bytes;
        bool ask_stop; /* says that its OOM killer is near */
        enum bl_vm_run run;
        bool managed, hung;
        enum bl_hold hold;
        enum bl_no_reclaim no_reclaim;

        /* what it does */
        uint64_t want; /* memory that its programs want */
        uint64_t rate; /* bytes/s at which they get it */
        uint64_t cache_want; /* page cache that it would build */
        uint64_t cache_rate;
        bool psi; /* reports stalls all the time */

        /* its swap on the store: `swap_total` bytes */
        bool stored, leaving;
        permyriad_t ratio; /* that its pages shrink to */
        bool ratio_known;
        uint64_t hot; /* of what it uses, touched again and again: read back when it is swapped out; 0: all is,
                       * where there is room, and nothing else */
        uint64_t store_limit; /* 0: none */
        usec_t idle_since;
        uint64_t pageout; /* that the host's kernel could page out; taken at once */

        /* page sharing (ksm.c) */
        enum bl_share_mode share_mode;
        enum bl_no_share no_share;
        int merging; /* as bl_vm_share has it */
        uint64_t dup; /* of its memory other VMs of the group have copies */
        bool dup_fleeting; /* which never stand still for two passes: KSM does not get them */
        uint64_t zero; /* full of zeros */
        uint64_t rewrites; /* bytes/s of its merged pages that it writes to */
        bool rewrites_same; /* and what it writes has copies again */
        permyriad_t evidence; /* what evidence says of its gain; BL_WHOLE: as it is */
        permyriad_t spread; /* bounds of that, both ways */
        usec_t evidence_from; /* there is some from then on */
        usec_t evidence_lag; /* it follows what is so within about this time */

        /* where it is */
        uint64_t merged; /* mapped to KSM pages */
        uint64_t passes_seen; /* of ksmd over it */
        uint64_t first_pass; /* that sees it */
        uint64_t pass_merges; /* what the pass under way is to merge */
        uint64_t said_gain;
        uint64_t was_resident;
        usec_t told_merge_at; /* 0: nothing is under way */
        bool told_merge;
        unsigned int merge_commands;
        uint64_t actual, target;
        usec_t target_at, booted_at;
        uint64_t used, cache, touched /* free, but resident */, swapped, swap_in;
        uint64_t paged_out;
        uint64_t lied; /* in the balloon, and still resident */
        uint64_t psi_some;
        bool oom_deflated;
        struct bl_guest_stats report;
        struct bl_guest_request request;
        usec_t looked_at; /* by its agent */
        uint64_t looked_used;
        uint64_t true_need, true_swapped; /* at the last report */
        unsigned int kills; /* by its OOM killer while the balloon held memory */
        uint64_t least; /* available to it, ever */

        /* what was done to it */
        unsigned int commands;
        int last_dir;
        unsigned int reversals;
        usec_t asked_at; /* it waits since then; 0: it does not */
        usec_t waited; /* longest from a request to a grant */
        unsigned int turned_back; /* told to keep what it was told to give */
        bool deaf; /* ever */
        uint64_t missed; /* bytes read back while there was no room for them, ever */
};

/* Promises broken so far. */
struct sim_faults {
        unsigned int kills; /* guests' OOM killers, while the balloon held memory */
        unsigned int below_need; /* told to be smaller than the report's true need */
        unsigned int out_of_range; /* told to be outside [reservation, limit] */
        unsigned int overdraft; /* grants of one tick that would take free below the mark */
        unsigned int blind; /* shrunk on statistics that are stale, absurd or missing */
        unsigned int untouchable; /* a command to a VM that must be left alone */
        unsigned int reversals; /* told to go down, then up, or the other way round */
        unsigned int grain; /* a target that is not the daemon's own */
        unsigned int nonsense; /* decisions that contradict themselves */
        unsigned int pressed; /* pressed into a store that cannot take it, or too far */
        unsigned int steps; /* more under way into the store than half of what it takes */
        unsigned int pool; /* the pool told to be larger than it may, or than the host can bear */
        unsigned int host_oom; /* steps without any free memory */
        unsigned int dear; /* VMs taken apart for which the host had no room above clear */
        unsigned int mixed; /* ksmd was driven, or a VM told to merge, against a VM's settings or the host's */
};

/* The store's own. */
struct sim_store {
        bool there, slow;
        uint64_t pool_size, pool_ready, disk_size;
        uint64_t rate; /* bytes/s by which the pool grows */
        uint64_t slow_rate; /* bytes/s that it takes at all when it is slow */
        uint64_t full; /* bytes that were to be swapped out and had no room, ever */
        usec_t grown_at; /* first seen to be told to grow */
        usec_t pressed_at; /* first command below what a guest needs */
};

/* The kernel's KSM, and how long ksmd needs. */
struct sim_ksm {
        enum bl_share_mode mode;
        bool usable, yielded;
        bool runs;
        uint64_t scan_ns, merge_ns; /* a page */
        usec_t tells; /* how long QEMU takes to do what it is told */
        uint64_t full_scans;
        usec_t cpu;
        uint64_t broken;
        uint64_t pass; /* under way */
        size_t cursor; /* guest that it is at */
        uint64_t offset; /* bytes of it that it has been over */
        unsigned int drives; /* times that it was set going */
};

struct sim {
        struct bl_policy_config config;
        struct sim_store store;
        struct sim_ksm ksm;
        struct bl_policy *policy;
        uint64_t budget;
        uint64_t other; /* used by what is not a guest */
        uint64_t other_want; /* and what it goes to, at `other_rate` */
        uint64_t other_rate;
        bool is_ram, psi;
        usec_t step, tick;
        usec_t now, next_tick, last_tick;

        size_t n;
        struct sim_guest *g;

        uint64_t seen_free; /* for growth */
        usec_t seen_at;
        uint64_t growth;

        struct bl_snapshot snapshot;
        struct bl_plan plan;
        struct sim_faults faults;
        uint64_t min_free;
        unsigned int state_changes;
        unsigned int commands;
        bool talk; /* SIM_TALK=1: every command on standard error */
};

/* A host at rest, default settings, no guests. */
struct sim *sim_new(uint64_t budget);
struct sim *sim_free(struct sim *s);

/* A host that `n` guests of 2 GiB, called a, b, c and so on, fill to 50 MiB with what they use and cache. */
struct sim *sim_crowded(unsigned int n);

/* An ideal guest: `max` bytes, uses `used`, its cache fills it up if `cached`. */
struct sim_guest *sim_add(struct sim *s, const char *name, uint64_t max, uint64_t used, bool cached);

/* Its swap is on the store from now on: `bytes` of it, half of what it uses is touched seldom. */
void sim_on_store(struct sim_guest *g, uint64_t bytes);

/* A host of sim_crowded() whose guests swap on a store with a pool of `pool` bytes and a disk of `disk`. */
struct sim *sim_crowded_store(unsigned int n, uint64_t pool, uint64_t disk);

/* Page sharing is on, as fast as measured on a nested machine. */
void sim_share(struct sim *s);
/* It is of the group, `dup` bytes of what it has have copies, and evidence says so. */
void sim_share_guest(struct sim_guest *g, uint64_t dup);
/* What merging saves now, of all. */
uint64_t sim_saved(const struct sim *s);
uint64_t sim_merged(const struct sim *s);
const struct bl_share_decision *sim_share_decision(const struct sim *s, const struct sim_guest *g);

/* ksm.c, for sim.c */
void sim_ksm_step(struct sim *s);
void sim_ksm_sense(const struct sim *s, struct bl_share_state *ret);
void sim_ksm_sense_guest(const struct sim *s, const struct sim_guest *g, struct bl_vm_share *ret);
void sim_ksm_act(struct sim *s);
/* What merging takes of the host besides: the kernel's own. */
uint64_t sim_ksm_metadata(const struct sim *s);

/* Its agent reports and asks, and the host decides at once. */
void sim_ask(struct sim *s, struct sim_guest *g, uint64_t bytes, bool stop);

uint64_t sim_resident(const struct sim_guest *g);
uint64_t sim_store_used(const struct sim *s);
uint64_t sim_host_free(const struct sim *s);
const struct bl_decision *sim_decision(const struct sim *s, const struct sim_guest *g);

void sim_run(struct sim *s, usec_t time);

/* Runs until the host has `free` bytes or the time is over; returns what it took, or BL_UNSET. */
usec_t sim_run_until_free(struct sim *s, uint64_t free, usec_t most);

/* From here on nothing changes by itself: forgets reversals so far. */
void sim_at_rest(struct sim *s);

void sim_reboot(struct sim *s, struct sim_guest *g);

/* Fails the test if a promise is broken. */
void sim_assert_kept(const struct sim *s);

/* xorshift64*; never 0 as seed */
uint64_t sim_random(uint64_t *seed);
uint64_t sim_random_range(uint64_t *seed, uint64_t low, uint64_t high);

#define assert_between(x, low, high) assert_in_range((uintmax_t)(x), (uintmax_t)(low), (uintmax_t)(high))

#endif
