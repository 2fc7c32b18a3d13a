/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * KSM as the executor of page sharing: its knobs, and how they come back.
 *
 * One rule for each file that is written (/sys/kernel/mm/ksm/ and, where the administrator allows host-wide knobs,
 * /sys/kernel/mm/transparent_hugepage/khugepaged/): its value before our first write goes into the ledger, which is
 * saved before that write.  A value that is not what we wrote last is somebody else's (ksmtuned, an administrator, a
 * tuned profile), also when it is what we found: it stays, all others go back to what they were, and KSM is left alone
 * ("yielded") until bl_ksm_take_again().  A daemon that was killed between saving and writing leaves both values in the
 * ledger: its successor takes either for its own.
 *
 * Merged pages stay merged while ksmd rests (run=0; mm/ksm.c), so resting costs nothing.  run=2 is never written: it
 * un-merges everything on the host.
 *
 * All of this is a few reads and writes of sysfs on the loop's thread: none blocks, but run=0 and max_page_sharing wait
 * for ksmd to end its batch (ksm_thread_mutex).  A batch takes CPU time of ksmd, which has nice 5: where others want
 * the CPU too it takes several times as long.  Measured on 6.18 with 2 CPUs, beside guests; the longest of 6 to 24
 * times:
 *
 *   pages/sleep   of a core       run=0 took   with 10 to 19 others waiting for a CPU
 *   200 / 0       all it gets     62 ms        192 ms     what bl_ksm_drive() sets
 *   2000 / 0      all it gets     47 ms        359 ms
 *   5000 / 0      all it gets     182 ms
 *   30000 / 20    82 % at best    917 ms       1,094 ms   the fastest that is seen recommended
 *
 * sleep_millisecs=0 means no sleep at all: ksmd only yields its CPU when it has to (cond_resched), so small batches
 * cost nothing.  A page takes it 1.4 to 4 us, a merge up to 38, whatever the batch.
 *
 * What khugepaged did in 15 to 30 s, hurried, with merged pages of regions of 2 MiB (share that stayed merged):
 *
 *   max_ptes_shared  max_ptes_none   more than half shared   up to half   pages of zeros
 *   256              511             100 %                   0 %          0 % (100 % where all 512 are)
 *   0                511             100 %                   100 %        0 % (the same)
 *   0                0               100 %                   100 %        100 %
 *
 * The same with use_zero_pages 0 or 1: from 6.12 on ksmd's splitting of a huge page maps its zero pages to the
 * kernel's own, whatever the knob says.
 */
#ifndef BALLAST_ACT_KSM_H
#define BALLAST_ACT_KSM_H

#include <ballast/cleanup.h>
#include <ballast/units.h>

#include "daemon/ledger.h"
#include "daemon/sense/ksm.h"

struct bl_ksm;

struct bl_ksm_handler {
        /* Somebody changed `knob` (a path below /sys/kernel/mm) from what we wrote to `now`: we have yielded. */
        void (*on_yield)(void *userdata, const char *knob, const char *ours, const char *now);
};

struct bl_ksm_options {
        const char *root; /* of /sys and /proc; NULL: the machine's */
        struct bl_ledger *ledger;
        int (*save)(void *userdata); /* writes the ledger; negative errno: then nothing is written to sysfs */
        struct bl_ksm_handler handler;
        void *userdata;
};

/* What a negative errno of these means and what mends it, for people: a sentence without an end. */
const char *bl_ksm_error(int r);

/* -ENOMEM.  Writes nothing.  What an earlier daemon left recorded is taken over: known as ours. */
int bl_ksm_new(const struct bl_ksm_options *o, struct bl_ksm **ret);
/* Does not release. */
struct bl_ksm *bl_ksm_free(struct bl_ksm *k);
BL_DEFINE_CLEANUP(struct bl_ksm *, bl_ksm_free)

/* What a drive is to be like. */
struct bl_ksm_drive {
        bool host_knobs; /* khugepaged's may be set too (HostKnobs=) */
        bool thorough; /* smart_scan off: a newcomer waits, or this is the first time */
        unsigned vms; /* that share, for max_page_sharing */
        /* of one core that ksmd may take; 10000: all.  Less is reached by sleep_millisecs, by what ksmd was seen to
         * take: so bl_ksm_drive() is to be called again and again, as it may be anyway */
        permyriad_t cpu;
};

/*
 * ksmd runs, as fast as that allows.  Idempotent: writes only what is not so already.  Chooses pages_to_scan and
 * sleep_millisecs (a batch takes < 100 ms), smart_scan, use_zero_pages (only with host_knobs, or where THP is off:
 * khugepaged would fill zero pages again), max_page_sharing (only upwards, for more than 128 VMs, and only while
 * nothing is merged: the kernel refuses otherwise, also to put it back), advisor_mode=none, and with host_knobs, where
 * THP is on, khugepaged's max_ptes_shared=0 and max_ptes_none=0. -ENODEV: no KSM in this kernel; -EBUSY: yielded;
 * -EACCES, -EROFS; errors of saving the ledger.
 */
int bl_ksm_drive(struct bl_ksm *k, const struct bl_ksm_drive *d);
/* ksmd stops; everything stays merged, the knobs that keep it so stay.  Errors as above. */
int bl_ksm_rest(struct bl_ksm *k);
/* Every knob is as it was found, except those that somebody else has changed since; the record goes.  Returns how
 * many were put back, or the first negative errno (the others are tried all the same): then what could not be put back
 * stays recorded.  -EBUSY of max_page_sharing: something is merged still.  A run=2 that was found is put back as 0. */
int bl_ksm_release(struct bl_ksm *k);
/* After a yield: an administrator says that KSM is Ballast's again; the values found now are the new originals. */
void bl_ksm_take_again(struct bl_ksm *k);
bool bl_ksm_yielded(const struct bl_ksm *k);
/* The sentence about it: who changed what; NULL: not yielded. */
const char *bl_ksm_yield_reason(const struct bl_ksm *k);
/* It runs at our word. */
bool bl_ksm_driven(const struct bl_ksm *k);
/* Knobs are recorded as ours. */
bool bl_ksm_holds(const struct bl_ksm *k);
/* What keeping khugepaged out would need and is not allowed, a sentence for people with the figures; NULL: nothing. */
const char *bl_ksm_thp_warning(const struct bl_ksm *k);

/* Reads the figures, and sees whether somebody changed a knob of ours (then on_yield comes from here).  A knob's
 * file costs 2 us, so all of this once a tick is no matter.  -ENODEV. */
int bl_ksm_look(struct bl_ksm *k, struct bl_ksm_figures *ret);

/* For `ballastd --restore-host` (ExecStopPost=): puts back what the ledger in `state_dir` records of this boot,
 * without a daemon.  Returns how many knobs (0: also where there is no such directory); negative errno: -EBUSY with
 * a sentence in *ret_message (allocated; NULL otherwise, mostly): a daemon is at work there. */
int bl_ksm_restore_host(const char *root, const char *state_dir, char **ret_message);

#endif
