/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What was sensed, at one instant: the only thing that the policy sees.
 *
 * A snapshot is plain data.  The sensing side fills it, nobody changes it
 * afterwards, and the results of actions come back through the next one.
 * All times are CLOCK_MONOTONIC; all sizes are bytes.
 */
#ifndef BALLAST_SNAPSHOT_H
#define BALLAST_SNAPSHOT_H

#include <stddef.h>

#include <ballast/engine-id.h>
#include <ballast/units.h>

#define BL_UUID_LEN 16

/* Why the balloon cannot take memory from a VM: properties of the VM, not of
 * the moment. */
enum bl_no_reclaim {
        BL_RECLAIM_OK,
        BL_RECLAIM_NO_BALLOON, /* no virtio balloon device */
        BL_RECLAIM_VFIO, /* a passed-through device pins all guest memory */
        BL_RECLAIM_HUGEPAGES, /* hugetlbfs backing: 4 KiB holes free nothing */
        BL_RECLAIM_LOCKED, /* <memoryBacking><locked/> */
        BL_RECLAIM_CONFIDENTIAL, /* SEV, TDX: memory is pinned and encrypted */
        _BL_RECLAIM_MAX,
};

enum bl_vm_run {
        BL_RUN_RUNNING,
        BL_RUN_PAUSED, /* vCPUs stopped: its balloon cannot move, which is not its fault */
        BL_RUN_MIGRATING, /* outgoing; left alone until it ends */
        _BL_RUN_MAX,
};

/* Why automatic action leaves a VM alone. */
enum bl_hold {
        BL_HOLD_NONE,
        BL_HOLD_HAND, /* somebody else set its balloon (virsh setmem) */
        BL_HOLD_ADMIN, /* ballastctl hold VM */
        BL_HOLD_MANUAL, /* ballastctl balloon VM --leave/--take */
        _BL_HOLD_MAX,
};

enum bl_stats_source {
        BL_STATS_NONE,
        BL_STATS_BALLOON, /* virtio-balloon statistics queue */
        BL_STATS_AGENT, /* ballast-agent */
        _BL_STATS_MAX,
};

/*
 * What a guest says about itself.  Untrusted: any value may come.  A field
 * that the guest did not report is BL_UNSET.  `at` is when the guest made the
 * report, not when we asked for it.
 */
struct bl_guest_stats {
        enum bl_stats_source source;
        usec_t at;
        usec_t period; /* how often a fresh report is due */
        uint64_t actual; /* balloon size when the report was made; 0 or BL_UNSET: the policy reckons it itself */
        uint64_t total; /* MemTotal: what the guest's kernel manages now */
        uint64_t available; /* MemAvailable */
        uint64_t unused; /* MemFree */
        uint64_t caches; /* page cache */
        uint64_t swap_total;
        uint64_t swap_free;
        uint64_t swap_in; /* cumulative bytes since the guest booted */
        uint64_t swap_out; /* cumulative */
        uint64_t major_faults;
        uint64_t unevictable; /* mlocked and the like */
        uint64_t hugetlb; /* reserved for huge pages in the guest */
        uint64_t psi_some; /* memory pressure: cumulative stall time, usec */
        uint64_t ballooned; /* agent only: what the guest's kernel counts as being in its balloon */
};

/* What a guest's agent asked for (wire.h, bl_wire_request).  Untrusted. */
struct bl_guest_request {
        usec_t at; /* when it arrived; 0: never */
        uint64_t bytes; /* more than it had then; 0: it only says that it stalls */
        bool stop; /* it is near its OOM killer: nothing may be taken from it */
        usec_t deadline; /* from `at` on, until it has nothing left; BL_UNSET: it does not say */
};

/* What the store (daemon/store/) holds of a VM's swap, and what its guest says of it. */
struct bl_vm_store {
        bool on; /* its guest swaps on the store */
        bool leaving; /* it is being drained: nothing may be pressed into it */
        uint64_t size; /* of its swap area */
        uint64_t used; /* slots in use, by the guest's word (a hint only) */
        uint64_t held; /* uncompressed bytes of its non-zero pages in the store */
        uint64_t zero;
        uint64_t stored; /* host RAM behind them, its part */
        uint64_t disk; /* disk behind them */
        uint64_t stale; /* slots that the store holds and the guest freed: held + zero above `used` */
        uint64_t twice; /* slots that are in the guest's memory too (SwapCached) */
        uint64_t limit; /* of `stored`; BL_UNSET: none */
        permyriad_t ratio; /* to which its last pages were compressed; 10000: not at all, or not known yet */
        bool ratio_known;
};

/* What may be done about equal pages of a VM.  Each includes the one before. */
enum bl_share_mode {
        BL_SHARE_OFF,
        BL_SHARE_ZERO, /* its zero pages only, and nothing with other VMs */
        BL_SHARE_GROUP, /* with the VMs of its trust group, by KSM */
        _BL_SHARE_MODE_MAX,
};

/* Why a VM's mode is below what it asks for, or nothing can come of it: properties of the VM and of the
 * configuration, not of the moment. */
enum bl_no_share {
        BL_NO_SHARE_OK,
        BL_NO_SHARE_HOST, /* Mode= of the host allows less */
        BL_NO_SHARE_NO_GROUP, /* it asks for its group, and has none */
        BL_NO_SHARE_OTHER_GROUP, /* KSM serves another group (Group=) */
        BL_NO_SHARE_TWO_GROUPS, /* VMs of two groups ask, and Group= does not say which is served */
        BL_NO_SHARE_XML, /* <nosharepages/> */
        BL_NO_SHARE_SHARED, /* its RAM is a shared mapping, which the kernel does not merge */
        BL_NO_SHARE_HUGEPAGES, /* hugetlbfs */
        BL_NO_SHARE_PINNED, /* a passed-through device pins its memory; or it is locked, or encrypted */
        BL_NO_SHARE_BACKEND, /* QEMU has no memory backend with a `merge` property for it */
        BL_NO_SHARE_NO_SWAP, /* mode zero, and the host has no swap to account zero pages to */
        _BL_NO_SHARE_MAX,
};

/* What is known of a VM's equal pages.  Bytes; what evidence says is estimated from a sample. */
struct bl_vm_share {
        enum bl_share_mode mode; /* in force */
        enum bl_no_share no_share;
        bool zero_possible; /* pages of zeros may be paged out of it, and can be */
        int merging; /* its RAM is registered with KSM: 1, 0; -1: not known yet */
        bool busy; /* a command about that was not answered yet */
        bool refused; /* QEMU would not; asked again later */
        usec_t merging_at; /* registered, by our word or as it was found, since; 0: it is not */

        usec_t evidence_at; /* the newest sample; 0: there is none, or not enough to say anything */
        uint64_t present; /* memory of its own, merged or not */
        uint64_t zero; /* of that full of zeros, and not merged */
        uint64_t gain; /* merging it with its group would free beyond what is merged now */
        uint64_t gain_low, gain_high; /* 95 % bounds of that */

        uint64_t merged; /* mapped to KSM pages now */
        uint64_t saved; /* its part of what that saves (Pss) */
        usec_t saved_at; /* when that was measured; 0: never */
        uint64_t breaks; /* host memory that un-merging it would take at once */
};

/* What an engine could do for a VM now (engine.h, propose). */
struct bl_offer {
        uint64_t takes; /* bytes it could take from this VM at most; 0: nothing */
        uint64_t gives; /* bytes it could give back at most */
        uint64_t grain; /* targets are multiples of this plus `phase` */
        uint64_t phase; /* bytes, < grain; see daemon/sense/balloon_watch.h */
};

struct bl_vm {
        uint8_t uuid[BL_UUID_LEN];
        const char *name; /* owned by the snapshot */

        enum bl_vm_run run;
        enum bl_no_reclaim no_reclaim;
        enum bl_hold hold;
        bool managed;
        bool hung; /* a call to it has not come back for seconds */
        bool in_flight; /* a command to it has not been answered yet */
        bool oom_deflate; /* it took pages back by itself (deflate-on-oom) since the last command */
        usec_t booted_at;

        uint64_t max; /* <memory>: the largest the balloon allows */
        uint64_t limit; /* never granted more than this, <= max */
        uint64_t reservation; /* never squeezed below this */
        uint64_t shares;

        uint64_t actual; /* balloon size now: memory left to the guest */
        uint64_t target; /* what it was last told to be; == actual if never told */
        usec_t target_at; /* when it was told; 0: never */

        uint64_t resident; /* host memory behind the VM: RssAnon + RssShmem */
        usec_t resident_at;
        uint64_t overhead; /* part of `resident` that is the VMM's own, estimated */

        usec_t idle_since; /* its VMM has used next to no CPU since then; 0: it is at work, or that is not known */

        struct bl_guest_stats stats;
        struct bl_guest_request request;
        struct bl_vm_store store;
        struct bl_vm_share share;
        struct bl_offer offer[_BL_ENGINE_MAX];
};

struct bl_host {
        bool budget_is_ram; /* the budget is all of the host's RAM */
        uint64_t budget; /* bytes we are judged against */
        uint64_t used; /* of the budget */
        uint64_t free; /* budget - used, or MemAvailable where the budget is RAM; saturates at 0 */
        uint64_t growth; /* bytes/s by which `free` has been falling lately; 0 when it rises */
        bool psi_known;
        bool psi_pressure; /* a PSI trigger fired since the last snapshot */
        uint64_t psi_some; /* cumulative stall, usec */
        uint64_t psi_full;
        uint64_t swap_total;
        uint64_t swap_free;
};

/* The store as a whole. */
struct bl_store_state {
        bool there; /* it is configured, and has answered within the last seconds */
        bool slow; /* its requests take longer than a guest can bear, its disk hangs, or writers wait for room */
        uint64_t pool_size; /* of RAM that it may take */
        uint64_t pool_ready; /* has taken: counts in host.used already where the budget is a size */
        uint64_t pool_used;
        uint64_t headroom; /* uncompressed bytes that it can take now without waiting for its disk */
        uint64_t room; /* uncompressed bytes that it can take at all, disk included */
};

/* Page sharing as a whole. */
struct bl_share_state {
        enum bl_share_mode mode; /* Mode= of the host; OFF: nothing is done, and what was done is taken back */
        bool usable; /* KSM is there, and its knobs are ours to set; with OFF: something of ours is still merged */
        bool yielded; /* somebody else sets them: it is left alone until told */
        bool driven; /* ksmd runs at our word */
        uint64_t full_scans; /* passes that ksmd has completed, ever */
        uint64_t merged; /* bytes that are mapped to KSM pages, of all: how far a drive is */
        uint64_t registered; /* present bytes of VMs that are registered */
        usec_t ksmd_cpu; /* CPU time of ksmd, ever; BL_UNSET: not known */
        uint64_t broken; /* bytes of merged pages that were copied on write, ever (vmstat cow_ksm) */
        uint32_t scan_cost; /* nanoseconds of ksmd a page and pass without a merge, learned */
        uint32_t merge_cost; /* and a merge */
};

struct bl_snapshot {
        usec_t at;
        struct bl_host host;
        struct bl_store_state store;
        struct bl_share_state share;
        size_t n_vms;
        struct bl_vm *vms;
};

/* Frees the VM array and the names. NULL-safe on the array; returns NULL. */
struct bl_snapshot *bl_snapshot_clear(struct bl_snapshot *s);

#endif
