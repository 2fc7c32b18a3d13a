/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who moved the balloon?  Pure: a VM's observed balloon sizes, our commands
 * and its lifecycle in; a verdict out.  No I/O, no clock, no allocation.
 *
 * Our targets are signed: they are `phase` modulo 1 MiB (bl_watch_phase), not
 * whole MiB.  Linux's virtio_balloon moves 256 pages of 4 KiB, 1 MiB, at a
 * time: towards a target (fill_balloon, leak_balloon: VIRTIO_BALLOON_ARRAY_
 * PFNS_MAX) and when it gives pages back so that the guest's OOM killer need not
 * run (virtio_balloon_oom_notify: VIRTIO_BALLOON_OOM_NR_PAGES).  So from one
 * of our targets the guest by itself reaches only values congruent to it, or
 * full; a person's value is a whole MiB.
 *
 * QEMU reports intermediate values, at most one a second (BALLOON_CHANGE is
 * rate-limited, and libvirt's statistics repeat the last one), so a value is
 * judged only at rest: seen twice, at least `rest` apart, unchanged.  Where
 * only the guest's own figures can tell, its next report is waited for.
 *
 * A guest that reboots keeps its target: QEMU's device reset leaves num_pages
 * and the reported size alone, the new driver starts full and inflates again.
 *
 * Source: Linux drivers/virtio/virtio_balloon.c; QEMU hw/virtio/virtio-balloon.c.
 */
#ifndef BALLAST_SENSE_BALLOON_WATCH_H
#define BALLAST_SENSE_BALLOON_WATCH_H

#include <stddef.h>

#include <ballast/snapshot.h>
#include <ballast/units.h>

#define BL_BALLOON_GRAIN  BL_MIB
#define BL_WATCH_COMMANDS 8

/* A phase for a new installation from any number: an odd multiple of 64 KiB
 * (so that guests with 64 KiB pages can reach it), below 1 MiB. */
static inline uint64_t bl_watch_phase(uint64_t seed)
{
        return (seed % 8 * 2 + 1) * 64 * BL_KIB;
}

/* `bytes` signed: the largest value <= bytes that is `phase` modulo the grain;
 * 0 if there is none. */
static inline uint64_t bl_watch_sign(uint64_t bytes, uint64_t phase)
{
        return bytes < phase ? 0 : bytes - (bytes - phase) % BL_BALLOON_GRAIN;
}

enum bl_watch_verdict {
        BL_WATCH_MOVING, /* not at rest; judge later */
        BL_WATCH_UNCHANGED, /* at rest where it was judged before */
        BL_WATCH_BASELINE, /* first rest of this instance; nobody is to blame */
        BL_WATCH_SETTLED, /* came to rest at our target */
        BL_WATCH_INCOMPLETE, /* came to rest short of our target */
        BL_WATCH_LATE, /* at an earlier target of ours: its command took effect late */
        BL_WATCH_OOM, /* the guest took memory back by itself (deflate-on-oom) */
        BL_WATCH_REBOOT, /* full, or on its way back to our target, after a reset or a restart */
        BL_WATCH_RELOAD, /* full because the guest's driver went or was reloaded; statistics stopped or restarted */
        BL_WATCH_HAND, /* somebody else set it */
        _BL_WATCH_MAX,
};

enum bl_watch_life {
        BL_WATCH_LIFE_BOOTED, /* a new QEMU process, started from nothing */
        BL_WATCH_LIFE_RESTORED, /* a new QEMU process: restored, migrated in, reverted */
        BL_WATCH_LIFE_RESET, /* the guest was reset */
        BL_WATCH_LIFE_PAUSED, /* vCPUs stopped: the balloon cannot move */
        BL_WATCH_LIFE_RESUMED,
};

enum bl_watch_answer {
        BL_WATCH_ANSWER_DONE, /* libvirt has set it */
        BL_WATCH_ANSWER_REFUSED, /* it surely was not set */
        BL_WATCH_ANSWER_UNKNOWN, /* it may have been set, or may yet be */
};

struct bl_watch_traits {
        uint64_t max; /* full balloon size */
        uint64_t boot_size; /* <currentMemory> of the persistent XML: libvirt sets it at every start; BL_UNSET */
        bool autodeflate; /* the device offers deflate-on-oom */
};

struct bl_watch_command {
        uint64_t from;
        uint64_t to;
        usec_t at;
        usec_t superseded_at; /* a newer command was given; 0: newest */
        bool answered;
        bool certain; /* answered, and the answer was DONE */
        bool reached; /* the balloon was seen at rest there */
};

/* All fields private to balloon_watch.c; here so that it can be embedded. */
struct bl_watch {
        struct bl_watch_traits traits;
        usec_t rest;
        struct bl_watch_command cmd[BL_WATCH_COMMANDS]; /* oldest first */
        size_t n_cmd;
        bool has_judged;
        uint64_t judged; /* last value judged at rest */
        bool has_seen;
        uint64_t seen; /* last value observed, whatever it was */
        usec_t seen_since;
        usec_t seen_at;
        usec_t booted_at; /* 0: not since we watch */
        usec_t restored_at;
        usec_t reset_at;
        bool paused;
        usec_t stats_at; /* last report of the guest */
        uint64_t available; /* by it */
        uint64_t available_before; /* by the last one before it came to rest */
        uint64_t faults; /* major faults between those two */
        uint64_t stats_counter; /* cumulative, to see it restart */
        bool stats_restarted; /* since the last verdict */
};

struct bl_watch_observation {
        uint64_t actual;
        usec_t at; /* when it was true */
        /* From the guest's statistics, where there are any; else BL_UNSET / 0. */
        usec_t stats_at; /* when the guest reported */
        uint64_t available; /* its MemAvailable */
        uint64_t major_faults; /* or any counter that only a reboot resets */
};

struct bl_watch_report {
        enum bl_watch_verdict verdict;
        uint64_t was; /* last judged value; BL_UNSET before the first */
        uint64_t now; /* the value judged */
        uint64_t target; /* our target in force; BL_UNSET: none */
        usec_t look_again; /* MOVING: a poll at this time will decide; else 0 */
};

/* rest 0: 1.3 s. */
void bl_watch_init(struct bl_watch *w, const struct bl_watch_traits *t, usec_t rest);

/* The device or the XML changed; the history stays. */
void bl_watch_traits_set(struct bl_watch *w, const struct bl_watch_traits *t);

/* Before the command is given; `from` is the size at that time.  After a
 * restart of the daemon: once per target in the ledger, oldest first, followed
 * by bl_watch_answered with what the ledger knows. */
void bl_watch_command(struct bl_watch *w, uint64_t from, uint64_t to, usec_t at);
void bl_watch_answered(struct bl_watch *w, uint64_t to, enum bl_watch_answer a, usec_t at);

void bl_watch_life(struct bl_watch *w, enum bl_watch_life l, usec_t at);

/*
 * One observation, by poll or event.  Each move is reported once: after a
 * verdict other than MOVING the value is the new baseline and the same value
 * gives UNCHANGED (or HAND after an INCOMPLETE that turns out to be set).
 * After HAND and BASELINE our earlier commands are forgotten: the value is
 * somebody else's.  A paused VM and observations older than the last give MOVING.
 */
void bl_watch_observe(struct bl_watch *w, const struct bl_watch_observation *o, struct bl_watch_report *ret);

/* It was seen smaller than where it was judged last, none of our commands is on its way
 * there, and the judgement is still to come: a hand may be at work, and must not be
 * overruled before it is known.  False 5 s after it was first seen there. */
bool bl_watch_is_unexplained(const struct bl_watch *w, usec_t now);

const char *bl_watch_verdict_to_string(enum bl_watch_verdict v);

#endif
