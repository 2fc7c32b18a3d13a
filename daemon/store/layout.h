/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What lies in the arena.  Private to the store; tests look at it to damage it.
 *
 * Pages of BL_STORE_PAGE bytes, numbered from 0: superblock, entry directory's
 * root, groups, export records, page map, then the pool.  Numbers of the machine
 * that wrote them: an arena never leaves its host.
 *
 * Every word that refers to something carries bits of a check, because a bit that
 * flips must cost one page, never another page's content.
 */
#ifndef BALLAST_STORE_LAYOUT_H
#define BALLAST_STORE_LAYOUT_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/store/store.h"

#define BL_LAYOUT_VERSION 1U
#define BL_LAYOUT_MAGIC   UINT64_C(0x31306c6f6f706c42) /* "Blpool01" */

#define BL_EXPORTS 1024U /* at most */
#define BL_GROUPS  2048U /* twice that: what is left of a group that an export has left */
#define BL_NODE    1024U /* page numbers in a page */
#define BL_TABLE   512U /* slot words in a page: 2 MiB of an export */
/* Two levels of nodes above the tables. */
#define BL_EXPORT_MAX ((uint64_t)BL_NODE * BL_NODE * BL_TABLE * BL_STORE_PAGE)

/* Written once; `magic` last. */
struct bl_super {
        uint64_t magic;
        uint32_t version, pages; /* `pages`: of the arena */
        uint64_t incarnation;
        uint32_t directory, groups, exports, map, first; /* page numbers; `first`: of the pool */
        uint32_t unused;
        uint64_t check; /* XXH3 of all above */
};

/* A trust group: the seed of its hashes. Counts only while an export or an entry names it. */
struct bl_group {
        char name[BL_STORE_GROUP];
        uint64_t seed; /* never 0 once used */
};

#define BL_RECORD_LIVE UINT64_C(0x6c69766565787074)

/* One export; nothing in it counts unless `state` is BL_RECORD_LIVE, which is stored last and taken back first. */
struct bl_record {
        uint64_t state;
        uint8_t uuid[BL_UUID_LEN];
        uint64_t pid, start, size, limit;
        uint64_t stamp;
        uint32_t root; /* page of the upper node; 0: nothing was ever written */
        uint16_t group;
        uint16_t lost; /* holes are not known to be zeros: reading one is an error */
        uint64_t unused[6];
};

/*
 * A slot word.  0: hole.  Else bits 56..63 say what it is; of BL_SLOT_DATA bits 0..31 are
 * the entry's number and 32..55 the upper bits of its hash.
 */
#define BL_SLOT_HOLE UINT64_C(0)
#define BL_SLOT_DATA UINT64_C(0xb5)
#define BL_SLOT_ZERO UINT64_C(0xc9) /* a page of zeros was written */
#define BL_SLOT_LOST UINT64_C(0xe3) /* what was there is gone */

static inline uint64_t bl_slot_word(uint64_t kind, uint32_t entry, uint64_t hash)
{
        return kind << 56 | hash >> 40 << 32 | entry;
}

static inline uint64_t bl_slot_kind(uint64_t word)
{
        return word >> 56;
}

static inline uint32_t bl_slot_entry(uint64_t word)
{
        return (uint32_t)word;
}

/* Do slot and entry belong together? */
static inline bool bl_slot_fits(uint64_t word, uint64_t hash)
{
        return (word >> 32 & 0xffffff) == hash >> 40;
}

/* Immutable but for `location` (a move) and `age`. */
struct bl_entry {
        uint64_t location;
        uint64_t hash; /* XXH3 of the page as it was written, seeded by its group */
        uint16_t size; /* of what is stored; BL_STORE_PAGE: as it is */
        uint16_t group;
        uint32_t age; /* clock of the store when it was last touched */
};

#define BL_ENTRIES ((uint32_t)(BL_STORE_PAGE / sizeof(struct bl_entry))) /* in a page: 170 */

/* Location: bits 0..45 a place in units of 16 bytes (arena offset or disk place), bit 46 it is on disk,
 * bits 48..63 a check of all that and of the entry. */
#define BL_PLACE_BITS    46U
#define BL_PLACE_MASK    ((UINT64_C(1) << BL_PLACE_BITS) - 1)
#define BL_LOCATION_DISK (UINT64_C(1) << BL_PLACE_BITS)

static inline uint64_t bl_location(uint64_t place, bool disk, uint32_t entry, const struct bl_entry *e)
{
        uint64_t v = (place & BL_PLACE_MASK) | (disk ? BL_LOCATION_DISK : 0);
        uint64_t m = v ^ (uint64_t)entry << 32 ^ (uint64_t)e->size << 16 ^ e->group ^ e->hash;

        m *= UINT64_C(0x9e3779b97f4a7c15);
        m ^= m >> 29;
        m *= UINT64_C(0xbf58476d1ce4e5b9);
        return v | m >> 48 << 48;
}

/* Is the location whole? */
static inline bool bl_location_ok(uint64_t location, uint32_t entry, const struct bl_entry *e)
{
        return location == bl_location(location & BL_PLACE_MASK, location & BL_LOCATION_DISK, entry, e);
}

/* A pool page's word in the map: kind; of a span its class, the pages before it and all its pages. */
enum bl_page_kind {
        BL_PAGE_FREE,
        BL_PAGE_SPAN,
        BL_PAGE_ENTRIES,
        BL_PAGE_NODE, /* of the radix trees and of the entry directory */
        BL_PAGE_TABLE,
        BL_PAGE_FIXED,
};

static inline uint32_t bl_map_span(uint32_t class, uint32_t pos, uint32_t len)
{
        return (uint32_t)BL_PAGE_SPAN | class << 8 | pos << 16 | len << 24;
}

/* Other pages: what they are part of, so that no damaged number makes one export's table another's. */
static inline uint32_t bl_map_tag(enum bl_page_kind kind, uint32_t of, uint32_t i)
{
        return (uint32_t)kind | (of * UINT32_C(0x9e3779b1) ^ i * UINT32_C(0x85ebca77)) << 8;
}

#endif
