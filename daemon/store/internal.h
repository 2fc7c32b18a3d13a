/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the parts of the store share.  Unless a comment says otherwise a function
 * wants s->lock held and neither sleeps nor calls out.
 *
 * Order of locks: grow, clean, lock.  The disk is only ever called without
 * `lock`, but for bl_disk_free and bl_disk_claim, which do not block.
 */
#ifndef BALLAST_STORE_INTERNAL_H
#define BALLAST_STORE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "daemon/fault.h"
#include "daemon/store/arena.h"
#include "daemon/store/disk.h"
#include "daemon/store/layout.h"
#include "daemon/store/store.h"

#define BL_BATCH       32U /* pages of a request that are handled at a time */
#define BL_CHUNK_PAGES ((uint32_t)(BL_ARENA_CHUNK / BL_STORE_PAGE))
#define BL_NONE        UINT32_MAX
#define BL_NO_OWNER    UINT16_MAX
#define BL_SPAN_MAX    10U /* pages */
#define BL_OBJECT_MIN  64U /* bytes; so that 64 bits a page tell which objects are taken */
/* What compresses worse is stored as it is: 9 objects of it in 8 pages are the last class that wins. */
#define BL_OBJECT_MAX 3632U
#define BL_CLASSES    240U
#define BL_FULLNESS   4U
#define BL_RECENT     1024U /* pages that the ratio of an export is told of */

/* --- pages.c: which pool pages are free ------------------------------------------------ */

struct bl_page {
        uint64_t taken; /* spans: one bit an object; those of the span go on in its next pages */
        uint32_t prev, next; /* first page of a span: its list */
        uint16_t used; /* spans: objects taken, in the first page; tables: words that are not 0 */
        uint8_t kind, class, pos, len; /* as in the map, which is read at opening only; the last three: of spans */
        bool leaving; /* span: compaction empties it */
        uint8_t list; /* span: which one it is on; BL_FULLNESS: none */
};

/* --- spans.c: size classes ------------------------------------------------------------- */

struct bl_class {
        uint32_t size, pages, objects;
        uint32_t heads[BL_FULLNESS]; /* partly taken spans, emptiest first; BL_NONE: none */
        uint32_t spans, used; /* pages and objects taken, of all its spans */
};

/* --- entries.c ---------------------------------------------------------------------------- */

struct bl_meta {
        uint32_t next; /* hash chain; free list of the page */
        uint32_t refs; /* slot words */
        uint16_t pins : 15;
        uint16_t hashed : 1;
        uint16_t owner; /* export that pays for it; BL_NO_OWNER */
};

struct bl_entry_page {
        struct bl_entry *entries; /* in the arena */
        uint32_t page;
        uint16_t used, free; /* `free`: first of the list, BL_ENTRIES: none */
        struct bl_meta meta[];
};

/* --- ops.c ---------------------------------------------------------------------------------- */

/* One page of a write under way. */
struct bl_op {
        const uint8_t *data;
        uint64_t hash;
        uint64_t place; /* of a new entry's bytes; 0: not yet taken */
        uint32_t entry; /* pinned; BL_NONE: none (yet) */
        uint32_t same; /* an earlier one of this batch has the same content; BL_NONE */
        uint32_t size; /* compressed; 0: nothing to be stored */
        bool zero, filled;
};

/* What a request needs besides its buffer. */
struct bl_work {
        struct bl_work *next; /* free ones */
        struct bl_work *all;
        usec_t started; /* 0: idle */
        struct bl_op ops[BL_BATCH];
        uint8_t page[BL_STORE_PAGE]; /* for comparing */
        uint8_t whole[BL_STORE_PAGE]; /* a page that is written in part */
        uint8_t blob[BL_STORE_PAGE]; /* as it came from the disk */
        uint8_t out[BL_BATCH][BL_OBJECT_MAX];
        _Alignas(16) uint8_t lz4[16416 + 64]; /* LZ4_sizeofState */
};

#define BL_LATENCY_BUCKETS 128U /* 4 for each power of two of a microsecond */
#define BL_LATENCY_SECONDS 8U
struct bl_latency {
        uint64_t second[BL_LATENCY_SECONDS];
        uint32_t counts[BL_LATENCY_SECONDS][BL_LATENCY_BUCKETS];
};

struct bl_export {
        struct bl_store *store;
        struct bl_record *record;
        uint16_t index;
        bool open;
        bool gone; /* forgotten */
        uint32_t users; /* who gives the lock up while he looks at it */
        uint64_t size;
        uint32_t n_nodes, n_tables;
        uint32_t *nodes, *tables; /* pages; as in the arena, which is read at opening only */
        uint64_t held, zero; /* pages */
        uint64_t charge; /* bytes of RAM of the entries it owns */
        uint64_t errors, writes, reads; /* pages */
        uint16_t recent[BL_RECENT];
        uint32_t n_recent, at_recent;
        uint64_t sum_recent;
        /* of the last walk over its slots */
        uint64_t shared, stored, disk;
};

struct bl_store {
        struct bl_arena *arena;
        struct bl_disk *disk;
        uint64_t disk_size;
        void (*on_event)(void *userdata, const struct bl_store_event *ev);
        void *userdata;

        pthread_mutex_t lock;
        uint32_t wanted; /* requests that wait for it, see bl_lock */
        pthread_cond_t room; /* pages became free */
        pthread_cond_t closed; /* an export was closed */
        pthread_cond_t spare; /* a bl_work is free */
        pthread_mutex_t grow; /* populating and releasing chunks */
        pthread_mutex_t clean; /* moving: compaction and demotion, one at a time */

        struct bl_super *super;
        uint32_t *map;
        struct bl_group *groups;
        struct bl_record *records;
        uint32_t *directory;

        uint32_t n_pages, n_chunks, first;
        struct bl_page *pages;
        uint64_t *free_map; /* one bit a page: free and populated */
        uint32_t free_hint[BL_SPAN_MAX + 1]; /* no run of so many pages below this word */
        uint32_t free_pages, ready_pages;
        uint16_t *chunk_free;
        uint8_t *chunk_ready;
        uint32_t reserved; /* chunks, asked for by bl_store_reserve */

        struct bl_class classes[BL_CLASSES];
        uint32_t n_classes;
        uint8_t class_of[BL_STORE_PAGE / 16 + 1];

        struct bl_entry_page **entry_pages;
        uint64_t *entry_free; /* one bit an entry page: it has a free one */
        uint32_t n_entry_pages, entry_hint;
        uint64_t n_free_entries;
        uint32_t **buckets; /* in segments */
        uint32_t n_segments, most_segments, split, level; /* linear hashing */
        uint64_t n_hashed;

        struct bl_export *exports[BL_EXPORTS];
        uint32_t group_uses[BL_GROUPS];
        uint32_t n_exports;
        uint64_t promised;

        struct bl_work *idle, *all;
        uint32_t n_work;

        /* counters: pages, or bytes where said */
        uint64_t payload, span_pages, table_pages, entry_n_pages;
        uint64_t unique, held, zero, disk_used; /* disk_used: bytes */
        uint64_t writes, reads, trims, hits, demoted, disk_reads, errors;
        uint64_t waiting;
        uint32_t clock; /* seconds */
        struct bl_latency write_latency, read_latency;
        usec_t walked, walk_took;
        bool full, disk_failed, walking;

        pthread_t tier;
        pthread_cond_t work; /* something for it */
        bool tier_runs, stop;
        /* of who holds `clean` */
        uint8_t *segment; /* BL_DISK_SEGMENT bytes */
        struct bl_disk_blob *blobs;
        uint64_t *old_places;
        size_t n_blobs; /* room for */
        uint32_t hand; /* entry page where the walk goes on */
        uint32_t cut; /* what ranks as much goes down; 0: to be found anew */
        uint64_t cut_left; /* bytes that it is good for */
};

/* store.c: for requests, and who holds the lock for long lets them go first. */
void bl_lock(struct bl_store *s);
void bl_lock_breathe(struct bl_store *s);

/* pages.c */
int bl_pages_init(struct bl_store *s);
void bl_pages_free(struct bl_store *s);
/* It is there: its pages are free. */
void bl_pages_add_chunk(struct bl_store *s, uint32_t chunk);
/* First page of a span of n, marked in the map; 0: there is no such run. */
uint32_t bl_pages_take(struct bl_store *s, uint32_t n, uint32_t class);
/* One page that is no span's, with its word for the map (bl_map_tag). */
uint32_t bl_pages_take_one(struct bl_store *s, uint32_t word);
/* Recovery: takes a page that is referred to; false: the map says otherwise, or it is taken. */
bool bl_pages_claim(struct bl_store *s, uint32_t page, uint32_t word);
void bl_pages_give(struct bl_store *s, uint32_t page, uint32_t n);
/* Without the lock. One more chunk is populated; -ENOSPC: all are. */
int bl_pages_grow(struct bl_store *s);
/* Without the lock. Gives back chunks that are free, above `keep` chunks; returns bytes. */
uint64_t bl_pages_shrink(struct bl_store *s, uint32_t keep);

static inline void *bl_page_at(const struct bl_store *s, uint32_t page)
{
        return s->arena->base + (size_t)page * BL_STORE_PAGE;
}

/* spans.c */
void bl_spans_init(struct bl_store *s);
/* Room for `size` bytes: its offset in the arena / 16; 0: none. */
uint64_t bl_spans_take(struct bl_store *s, uint32_t size);
void bl_spans_give(struct bl_store *s, uint64_t place);
/* Recovery. */
bool bl_spans_claim(struct bl_store *s, uint64_t place, uint32_t size);
/* The object at `place`, of at least `size` bytes, or NULL where it cannot be one. */
const uint8_t *bl_spans_at(const struct bl_store *s, uint64_t place, uint32_t size);
uint32_t bl_spans_object_size(const struct bl_store *s, uint32_t size);
/* Marks the emptier spans of classes with room for at least one span less; returns how many. */
uint32_t bl_spans_evacuate(struct bl_store *s, uint32_t at_most);
void bl_spans_settle(struct bl_store *s);
bool bl_spans_leaving(const struct bl_store *s, uint64_t place);

/* codec.c: without the lock */
extern uint64_t bl_codec_hash_mask; /* tests weaken the hash */
uint64_t bl_codec_hash(const void *page, uint64_t seed);
uint64_t bl_codec_check(const void *p, size_t size);
bool bl_codec_is_zero(const void *page);
/* Compressed size, at most BL_OBJECT_MAX; BL_STORE_PAGE: it is best stored as it is. */
uint32_t bl_codec_compress(void *state, const void *page, void *out);
/* -EBADMSG. */
int bl_codec_decompress(const void *in, uint32_t size, void *page);

/* entries.c */
/* NULL: the number is of none. */
struct bl_entry *bl_entry_at(const struct bl_store *s, uint32_t n, struct bl_meta **ret_meta);
/* A number, with one pin and nothing in it; BL_NONE: no room, or no memory. */
uint32_t bl_entry_take(struct bl_store *s);
/* What a taken entry is; its bytes are at `place`. */
void bl_entry_fill(struct bl_store *s, uint32_t n, uint64_t place, uint64_t hash, uint32_t size, uint16_t group);
/* Does a slot word refer to an entry that is what it says? */
bool bl_entry_is(const struct bl_store *s, uint64_t word);
void bl_entry_pin(struct bl_store *s, uint32_t n);
/* These free what is neither referred to nor pinned. */
void bl_entry_unpin(struct bl_store *s, uint32_t n);
void bl_entry_unref(struct bl_store *s, uint64_t word, uint16_t from);
void bl_entry_ref(struct bl_store *s, uint32_t n, uint16_t owner);
/* It is somewhere else now, complete; the old place is free then. Not pinned by anybody else. */
void bl_entry_flip(struct bl_store *s, uint32_t n, uint64_t place, bool disk);
/* An entry that may have this content, or BL_NONE. */
uint32_t bl_entry_find(struct bl_store *s, uint64_t hash, uint16_t group);
/* Fetch ahead what bl_entry_find will look at: the second some time after the first. */
void bl_entry_expect_head(const struct bl_store *s, uint64_t hash);
void bl_entry_expect_find(const struct bl_store *s, uint64_t hash);
/* Is this what an entry's bytes in RAM are? */
bool bl_entry_holds(const struct bl_store *s, uint32_t n, const void *bytes, uint32_t size);
int bl_entries_init(struct bl_store *s);
void bl_entries_free(struct bl_store *s);
/* Recovery: what lies in the directory; -ENOMEM.  A slot's reference to an entry: false: it is damaged or gone.
 * Last: what nothing refers to is free. */
int bl_entries_load(struct bl_store *s);
bool bl_entry_claim(struct bl_store *s, uint64_t word, uint16_t owner);
void bl_entries_sweep(struct bl_store *s);
/* Bytes of the process. */
uint64_t bl_entries_memory(const struct bl_store *s);
/* Fetches ahead what bl_entry_is, and then bl_entry_load, will look at. */
void bl_entry_expect(const struct bl_store *s, uint64_t word);
/* Pinned; also without the lock. */
void bl_entry_expect_load(const struct bl_store *s, uint32_t n);
/* Without the lock, pinned: the entry's page into `page` (`blob` is for what is on disk).
 * -EBADMSG: damaged; -EIO, -ETIMEDOUT: as bl_disk_read. */
int bl_entry_load(struct bl_store *s, uint32_t n, void *page, void *blob);

/* slots.c */
int bl_slots_init(struct bl_export *e);
/* The word, or NULL: there is no table; with `create` it is made (NULL: no room). */
uint64_t *bl_slots_at(struct bl_export *e, uint64_t slot, bool create);
/* The slot's word; of a lost export a hole is BL_SLOT_LOST. */
uint64_t bl_slots_get(struct bl_export *e, uint64_t slot);
/* The commit: exchanges the word, counts, drops what it replaced. */
void bl_slots_set(struct bl_export *e, uint64_t slot, uint64_t to);
/* Frees the slot's table if it holds nothing any more. */
void bl_slots_tidy(struct bl_export *e, uint64_t slot);
/* Recovery: claims the pages of the tree, then all that the words refer to. */
void bl_slots_load(struct bl_export *e);
void bl_slots_claim(struct bl_export *e);
/* Frees it all; gives the lock up between tables. */
void bl_slots_drop(struct bl_export *e);

/* exports.c */
int bl_export_new(struct bl_store *s, uint16_t index, struct bl_export **ret);
/* It stays while the lock is given up; then it may be gone. */
void bl_export_hold(struct bl_export *e);
void bl_export_let_go(struct bl_export *e);
uint64_t bl_exports_backing(const struct bl_store *s);
void bl_exports_free(struct bl_store *s);

/* ops.c */
/* -ENOMEM only for the first. */
int bl_work_init(struct bl_store *s);
void bl_work_free(struct bl_store *s);

/* recover.c */
int bl_recover(struct bl_store *s);

/* tier.c */
extern usec_t bl_tier_patience; /* of who waits for room; tests have less */
/* Waits, with the lock held (and given up meanwhile), until there may be room; -EIO: it has taken too long
 * since `since`. */
int bl_tier_wait(struct bl_export *e, usec_t since);
/* Somebody who waited goes on; the lock is given up to tell it. */
void bl_tier_roomy(struct bl_store *s);
/* May a write of the export take pages now? */
bool bl_tier_allows(const struct bl_export *e);
/* Without the lock: how the disk did. */
void bl_tier_disk_did(struct bl_store *s, int r);
int bl_tier_start(struct bl_store *s);
void bl_tier_stop_thread(struct bl_store *s); /* tests go on without it */
void bl_tier_stop(struct bl_store *s);
/* Without the lock. One segment goes down, or is cleaned: entries moved, or -errno. */
int bl_tier_demote(struct bl_store *s);
int bl_tier_clean(struct bl_store *s);

/* figures.c */
/* Without the lock. */
void bl_store_tell(struct bl_store *s, enum bl_store_event_kind kind, const uint8_t *uuid, uint64_t offset);
void bl_latency_add(struct bl_latency *l, usec_t now, usec_t took);
uint64_t bl_index_memory(const struct bl_store *s);

#endif
