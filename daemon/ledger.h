/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What must survive kill -9 of the daemon: what we changed and what it was
 * before, what the administrator told us, and what was under way.
 *
 * One JSON file, STATE_DIR/ledger.json, replaced whole (temporary file,
 * rename), so that it is always either the old or the new one.  The setters
 * change memory only; bl_ledger_save makes it so.  Single-threaded.
 */
#ifndef BALLAST_LEDGER_H
#define BALLAST_LEDGER_H

#include <stddef.h>

#include <ballast/cleanup.h>
#include <ballast/snapshot.h>
#include <ballast/units.h>

#include "daemon/virt/proc.h"

#define BL_LEDGER_VERSION 1
#define BL_LEDGER_TARGETS 8

struct bl_ledger;

enum bl_ledger_target_state {
        BL_TARGET_IN_FLIGHT, /* written before the command; it may or may not have been given */
        BL_TARGET_DONE,
        BL_TARGET_UNKNOWN, /* libvirt's answer does not say */
};

struct bl_ledger_target {
        uint64_t from;
        uint64_t to;
        usec_t at_wall;
        enum bl_ledger_target_state state;
};

struct bl_ledger_vm {
        uint8_t uuid[BL_UUID_LEN];
        char *name;
        struct bl_instance instance; /* pid 0: unknown */

        uint64_t original; /* balloon size before our first command; BL_UNSET: nothing changed */
        int original_period; /* statistics period before ours, seconds; -1: nothing changed */

        size_t n_targets; /* oldest first */
        struct bl_ledger_target targets[BL_LEDGER_TARGETS];

        enum bl_hold hold;
        char *hold_reason; /* sentence, or NULL */
        usec_t hold_at_wall;

        struct bl_instance drained; /* this process is to have no swap on the store; pid 0: none was drained */

        int merge_was; /* its `merge` property (domain_merge.h) before we first set it: 1, 0; -1: nothing changed */
        struct bl_instance merge_of; /* the process that this is of; pid 0: none */
};

/* A knob of the host: a file that the kernel answers reads and writes of (sysfs). */
struct bl_ledger_knob {
        char *path; /* below /sys/kernel/mm: "ksm/run" */
        char *was; /* before our first write */
        char *ours; /* what we wrote last, or are about to */
        char *before; /* not NULL: `ours` may not be written yet, and then this is there still */
};

/* What the file was like. */
enum bl_ledger_found {
        BL_LEDGER_NONE, /* there was none: a new installation */
        BL_LEDGER_READ,
        BL_LEDGER_DAMAGED, /* kept aside; do not act until told */
        BL_LEDGER_NEWER, /* written by a later version; kept aside; do not act until told */
        BL_LEDGER_INVALID, /* readable, but its contents make no sense; kept aside, likewise */
};

/*
 * Opens (and locks) the state directory, which must exist, and reads the
 * ledger.  -EBUSY with *ret_message: another ballastd has it (its pid is
 * named); other errors with *ret_message: the directory cannot be used.
 * A bad file is no error: it is renamed to ledger.json.bad-1 (-2, ...), the
 * ledger starts empty, bl_ledger_trusted() is false and *ret_message says
 * what happened, where the file is and how to go on.  On a host that booted
 * since, the VMs' originals and targets and the host's knobs are dropped (they are
 * gone); settings and holds stay.  *ret_message is NULL when there is nothing to say.
 * `boot_id` NULL: read from /proc.
 */
int bl_ledger_open(const char *state_dir, const char *boot_id, struct bl_ledger **ret, char **ret_message);

/* Unlocks.  Does not save. */
struct bl_ledger *bl_ledger_free(struct bl_ledger *l);

enum bl_ledger_found bl_ledger_found(const struct bl_ledger *l);

/* False after a bad file, also in later runs, until bl_ledger_trust: VMs may
 * carry balloons of ours that nobody remembers. */
bool bl_ledger_trusted(const struct bl_ledger *l);
void bl_ledger_trust(struct bl_ledger *l);

/* Writes the file if anything changed.  durable: survives a crash of the host
 * (fsync; may take long under I/O load, so only for what an administrator
 * said); otherwise it survives the daemon, which is enough for what concerns
 * running VMs.  On error the old file stays, and the change stays pending. */
int bl_ledger_save(struct bl_ledger *l, bool durable);

/* 1 on, 0 off, -1 not set (the configuration decides). */
int bl_ledger_act(const struct bl_ledger *l);
void bl_ledger_set_act(struct bl_ledger *l, int act);

bool bl_ledger_held(const struct bl_ledger *l);
void bl_ledger_set_held(struct bl_ledger *l, bool held);

/* Whether everything is being, or has been, put back as it was found; a killed
 * daemon's rollback is to be gone on with. */
enum bl_ledger_rollback {
        BL_ROLLBACK_NONE,
        BL_ROLLBACK_RUNNING,
        BL_ROLLBACK_DONE, /* nothing is to be touched until `act on` */
};
enum bl_ledger_rollback bl_ledger_rollback(const struct bl_ledger *l);
void bl_ledger_set_rollback(struct bl_ledger *l, enum bl_ledger_rollback r);

/* This installation's phase (balloon_watch.h); chosen when the ledger was made. */
uint64_t bl_ledger_phase(const struct bl_ledger *l);

/* NULL if not there.  Pointers are valid until that entry is removed. */
const struct bl_ledger_vm *bl_ledger_find(const struct bl_ledger *l, const uint8_t uuid[BL_UUID_LEN]);
size_t bl_ledger_count(const struct bl_ledger *l);
const struct bl_ledger_vm *bl_ledger_get(const struct bl_ledger *l, size_t i);

/* Finds or adds.  name may be NULL for an existing one.  -ENOMEM. */
int bl_ledger_add(struct bl_ledger *l, const uint8_t uuid[BL_UUID_LEN], const char *name,
                  const struct bl_ledger_vm **ret);

/* The setters: -ENOENT for an unknown VM (add first), -ENOMEM; nothing else. */
int bl_ledger_set_name(struct bl_ledger *l, const uint8_t uuid[BL_UUID_LEN], const char *name);

enum bl_ledger_birth {
        BL_BIRTH_SEEN, /* found running (daemon start, reconnect) */
        BL_BIRTH_BOOTED, /* started from nothing: what we did to its predecessor is void */
        BL_BIRTH_MOVED, /* restored or migrated in: its balloon came with it */
};

/*
 * The VM runs as this instance, with this balloon size (BL_UNSET: not known).
 * Same instance as before: nothing changes.  Another: BOOTED voids originals
 * and targets; MOVED keeps them if `actual` is our last target; SEEN is judged
 * like MOVED, since which of the two it was is not known.  Holds by hand end
 * with their instance when it booted; the administrator's stay.
 * Returns 1 when something was voided, 0 if not.
 */
int bl_ledger_set_instance(struct bl_ledger *l, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *i,
                           enum bl_ledger_birth birth, uint64_t actual);

/* Records what was found before our first change; later calls change nothing
 * (return 0; 1 when recorded). */
int bl_ledger_set_original(struct bl_ledger *l, const uint8_t uuid[BL_UUID_LEN], uint64_t bytes);
int bl_ledger_set_original_period(struct bl_ledger *l, const uint8_t uuid[BL_UUID_LEN], int seconds);
/* It is as it was: nothing is to be undone. */
int bl_ledger_forget_original(struct bl_ledger *l, const uint8_t uuid[BL_UUID_LEN]);
int bl_ledger_forget_original_period(struct bl_ledger *l, const uint8_t uuid[BL_UUID_LEN]);

/* A command is about to be given: adds a target in flight (the oldest goes when there are too many). */
int bl_ledger_begin(struct bl_ledger *l, const uint8_t uuid[BL_UUID_LEN], uint64_t from, uint64_t to, usec_t at_wall);
/* It was answered.  refused: it surely was not given; the entry goes. */
int bl_ledger_end(struct bl_ledger *l, const uint8_t uuid[BL_UUID_LEN], uint64_t to, bool refused,
                  enum bl_ledger_target_state state);
/* Somebody else set the balloon: our targets mean nothing any more (the original stays). */
int bl_ledger_forget_targets(struct bl_ledger *l, const uint8_t uuid[BL_UUID_LEN]);

int bl_ledger_set_hold(struct bl_ledger *l, const uint8_t uuid[BL_UUID_LEN], enum bl_hold hold, const char *reason,
                       usec_t at_wall);

/* This process is to have no swap on the store any more; NULL: it may again.  Ends with the process. */
int bl_ledger_set_drained(struct bl_ledger *l, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *i);

/* This process had `merge` set to `was` before our first change; later calls for the same process change nothing
 * (return 0; 1 when recorded).  Ends with the process. */
int bl_ledger_set_merge_was(struct bl_ledger *l, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *i,
                            bool was);
int bl_ledger_forget_merge_was(struct bl_ledger *l, const uint8_t uuid[BL_UUID_LEN]);

/* The VM is gone (undefined, or off): its originals are void.  The entry goes
 * unless a hold by the administrator is to be kept.  `defined`: it may come back. */
void bl_ledger_gone(struct bl_ledger *l, const uint8_t uuid[BL_UUID_LEN], bool defined);

/* Is anything of this VM to be undone? */
bool bl_ledger_vm_dirty(const struct bl_ledger_vm *v);

/*
 * Knobs of the host, at most BL_LEDGER_KNOBS; void after a boot.  begin: `to` is about to be written where `from` is
 * now, which is the original if the knob is not known yet.  end: that was done.  Between the two a killed daemon's
 * successor finds either value.  forget: it is as it was, or somebody else's.
 * begin: -ENOMEM, -ENOSPC; end, forget: -ENOENT.
 */
#define BL_LEDGER_KNOBS 32
int bl_ledger_begin_knob(struct bl_ledger *l, const char *path, const char *from, const char *to);
int bl_ledger_end_knob(struct bl_ledger *l, const char *path);
int bl_ledger_forget_knob(struct bl_ledger *l, const char *path);
/* NULL if not there.  Valid until the next of the three above. */
const struct bl_ledger_knob *bl_ledger_find_knob(const struct bl_ledger *l, const char *path);
size_t bl_ledger_count_knobs(const struct bl_ledger *l);

const char *bl_ledger_path(const struct bl_ledger *l);

BL_DEFINE_CLEANUP(struct bl_ledger *, bl_ledger_free)

#endif
