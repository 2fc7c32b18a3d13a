/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The content store: guests' swapped pages, each content kept once per trust
 * group, compressed, in memory that outlives the process, and on disk below it.
 *
 * Its truth is one atomic 8-byte word a slot (a slot is 4 KiB of an export)
 * plus immutable entries; everything else is rebuilt (ARCHITECTURE.md, "The
 * store").  So a process that is killed between any two instructions leaves a
 * pool from which the next one serves every page that a reply was sent for.
 *
 * Thread-safe.  A reply (a return of 0) means that the content survives the
 * process; it does not survive the host, and need not: swap of a guest does not
 * outlive its VM.
 *
 * Sources: content-based sharing, hash then compare: Waldspurger, OSDI 2002, section
 * 4; size classes and spans of least tail waste: Linux mm/zsmalloc.c; pages that
 * compress to half stay, the rest goes down first: ESXi memory compression.
 */
#ifndef BALLAST_STORE_STORE_H
#define BALLAST_STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <ballast/cleanup.h>
#include <ballast/snapshot.h> /* BL_UUID_LEN */
#include <ballast/units.h>

#define BL_STORE_PAGE  4096U
#define BL_STORE_GROUP 64U /* bytes of a trust group's name with its NUL */

struct bl_arena;
struct bl_store_event;
struct bl_disk;
struct bl_store;
struct bl_export;

struct bl_store_options {
        struct bl_arena *arena; /* becomes the store's, also on failure */
        struct bl_disk *disk; /* likewise; NULL: there is none */
        /* Told, from any thread and with no lock held, of what an administrator should know; may be NULL. */
        void (*on_event)(void *userdata, const struct bl_store_event *ev);
        void *userdata;
};

enum bl_store_event_kind {
        BL_STORE_DAMAGED, /* a page's content is not what was stored: its reader gets an I/O error */
        BL_STORE_LOST, /* the content is gone (the disk cannot read it): likewise */
        BL_STORE_DISK_FAILED, /* the disk tier takes nothing more, or hangs; `disk` is served no more */
        BL_STORE_DISK_BACK,
        BL_STORE_FULL, /* writers wait for room */
        BL_STORE_ROOM, /* no longer */
        _BL_STORE_EVENT_MAX,
};

struct bl_store_event {
        enum bl_store_event_kind kind;
        uint8_t uuid[BL_UUID_LEN]; /* of the VM; zeros: of none */
        uint64_t offset; /* in its export */
};

/*
 * Opens the pool in the arena: makes one where the arena is fresh or holds
 * none, else goes on with what is there: rebuilds references, index and free
 * lists, drops what nothing refers to.  0.5 s and 0.2 s per GiB held at most.
 * -EBADMSG: it is no pool of this version or is damaged beyond the slots (then
 * nothing of it is served: bl_arena_remove); -ENOMEM.
 */
int bl_store_open(const struct bl_store_options *o, struct bl_store **ret, char **ret_message);
/* Every export has to be closed before.  What is held stays in the arena. */
struct bl_store *bl_store_close(struct bl_store *s);
BL_DEFINE_CLEANUP(struct bl_store *, bl_store_close)

/* --- exports ---------------------------------------------------------------------- */

/* Who may open an export, and what it may hold. */
struct bl_store_registration {
        uint8_t uuid[BL_UUID_LEN];
        pid_t pid; /* of its VMM */
        uint64_t start; /* of that process, /proc/PID/stat field 22 */
        uint64_t size; /* bytes, a multiple of BL_STORE_PAGE */
        char group[BL_STORE_GROUP]; /* trust group; "": a group of its own */
        uint64_t limit; /* bytes of pool memory it may hold before its own pages go down first; BL_UNSET: none */
        /* What the caller believes to be there.  0: nothing, a cold boot: what an earlier process of this VM
         * left is dropped.  Else the pool's incarnation as it was told: if the pool is another one, every slot
         * not written since is lost, and reading it is an error, never zeros. */
        uint64_t incarnation;
        /* With an incarnation: the export's stamp (bl_store_vm) as it was told, for a VM that was restored; a
         * stamp that differs is -ESTALE.  BL_UNSET: not asked for (the same process goes on). */
        uint64_t stamp;
};

/*
 * Registers, or changes what is registered: the same process may call again, with
 * another limit.  Kept in the pool, so that a restarted store needs nobody to tell it.
 * -ENOSPC: pool and disk together would not back every export uncompressed (the
 * figures say by how much: bl_store_figures); -ESTALE: see `stamp`; -EBUSY: another
 * process of this VM has it open; -EINVAL; -ENOMEM: no room for its tables.
 */
int bl_store_register(struct bl_store *s, const struct bl_store_registration *r);
/* Drops an export and all that it holds.  An open one: its connection gets errors from
 * now on.  -ENOENT. */
int bl_store_forget(struct bl_store *s, const uint8_t uuid[BL_UUID_LEN]);

/* One opener at a time: waits at most `wait` for the handle before to be closed, since
 * a write of an old connection could land after the one that was sent again.  -EPERM:
 * not registered for this process; -EBUSY: still open. */
int bl_export_open(struct bl_store *s, const uint8_t uuid[BL_UUID_LEN], pid_t pid, uint64_t start, usec_t wait,
                   struct bl_export **ret);
struct bl_export *bl_export_close(struct bl_export *e);
uint64_t bl_export_size(const struct bl_export *e);

/*
 * Any offset and length within the size (-EINVAL otherwise).  Several at a time from any
 * threads; those that overlap may come out in any order, page by page, but a write
 * of a part of a page never loses another one of another part.
 * read: -EIO: a page is damaged or lost; what else was asked for is not filled in then.
 * write: -EIO: no room came within 30 s though the registration promised it; pages
 *        before may have been written.
 * trim, zero: free what they replace at once; whole pages become holes.
 */
int bl_export_read(struct bl_export *e, void *buf, size_t size, uint64_t offset);
int bl_export_write(struct bl_export *e, const void *buf, size_t size, uint64_t offset);
int bl_export_zero(struct bl_export *e, uint64_t size, uint64_t offset); /* also for TRIM */
/* Is [offset, offset + *size) data or hole, from `offset` on: 1 data, 0 reads as zeros; *size is cut to the run. */
int bl_export_extent(struct bl_export *e, uint64_t offset, uint64_t *size);

/* --- figures ------------------------------------------------------------------------ */

/* Bytes unless said.  Counted as they change, so this costs nothing. */
struct bl_store_figures {
        uint64_t incarnation; /* of the pool; random, never 0 */
        uint64_t pool_size; /* may be taken */
        uint64_t pool_ready; /* is taken from the host (populated) */
        uint64_t pool_used; /* of it in use: payload, slack, entries, slot words */
        uint64_t payload; /* compressed bytes in RAM */
        uint64_t slack; /* size classes, tails of spans and free slots in spans */
        uint64_t tables; /* entries and slot words, in the pool */
        uint64_t index; /* hash table, references: in the process, rebuilt */
        uint64_t disk_size, disk_used; /* disk_used: live compressed bytes there */
        bool disk_failed;
        uint64_t held; /* uncompressed bytes of non-zero pages, each reference counted */
        uint64_t zero; /* uncompressed bytes of zero pages */
        uint64_t unique; /* uncompressed bytes of distinct pages */
        uint64_t promised; /* sum of the exports' sizes */
        uint64_t backing; /* what pool and disk together can hold uncompressed */
        uint64_t headroom; /* what can be written uncompressed into RAM now without waiting for the disk */
        uint64_t writes, reads, trims; /* pages since the pool was made or the process began */
        uint64_t dedup_hits; /* pages */
        uint64_t demoted, disk_reads; /* bytes, pages */
        uint64_t errors; /* pages damaged or lost, found so far */
        uint64_t waiting; /* requests that wait for room now */
        usec_t write_p50, write_p99, read_p50,
                read_p99; /* per request (TRIM counts as a write), of the last seconds; 0: none */
        usec_t oldest_request; /* age of the longest request under way; 0: none */
};
void bl_store_figures(struct bl_store *s, struct bl_store_figures *ret);

/* One export.  What is shared is counted once and split between those that refer to it. */
struct bl_store_vm {
        uint8_t uuid[BL_UUID_LEN];
        pid_t pid;
        uint64_t start;
        char group[BL_STORE_GROUP];
        uint64_t size, limit;
        bool open;
        bool lost; /* its pool is another one: see bl_store_registration */
        uint64_t stamp; /* counts its writes and trims */
        uint64_t held; /* uncompressed bytes of its non-zero pages */
        uint64_t zero;
        uint64_t shared; /* of `held`, uncompressed bytes of pages that others, or it itself, refer to too */
        uint64_t stored; /* its part of the RAM: payload + slack + entries, split; and its slot words */
        uint64_t disk; /* its part of the disk */
        uint64_t errors; /* pages */
        uint64_t write_pages, read_pages; /* cumulative */
        uint32_t ratio; /* permyriad: compressed size of its last 1024 pages written, duplicates and zeros as 0 */
};
/* Fills at most `n`; returns how many there are. */
size_t bl_store_vms(struct bl_store *s, struct bl_store_vm *ret, size_t n);

/* Takes pool memory ahead of use, or gives back what is free above it: `bytes` ready,
 * at least what is used.  May take long (it zeroes memory); -ENOMEM: the host has no more. */
int bl_store_reserve(struct bl_store *s, uint64_t bytes);

/* Moves what little there is in sparse spans together and gives whole chunks back to the pool (and
 * those above what was reserved to the host).  At most `budget` of CPU time.  Returns bytes freed. */
uint64_t bl_store_compact(struct bl_store *s, usec_t budget);

#endif
