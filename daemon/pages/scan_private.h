/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The scanner's own parts, one file each, which only scan.c strings together:
 *
 *      scan_hash.c      pass 1
 *      scan_merged.c    pages that KSM merged: one of each frame is read
 *      scan_room.c      where the table is full: half of the hash space goes
 *      scan_group.c     equal hashes become groups, in the order of their first page
 *      scan_batch.c     pages that are read again: in the order of their numbers, a frame once
 *      scan_compare.c   the second look, and classes of equal bytes
 *      scan_zero.c      the second look at zero pages
 *      scan_compress.c  a sample of the contents, by LZ4
 *      scan_count.c     the report, from the table as it is then
 *
 * Nothing is counted by class before the end, so a source that ends is taken back by leaving its entries out.
 */
#ifndef BALLAST_PAGES_SCAN_PRIVATE_H
#define BALLAST_PAGES_SCAN_PRIVATE_H

#include "daemon/pages/scan.h"
#include "daemon/pages/scan_frames.h"
#include "daemon/pages/scan_marks.h"
#include "daemon/pages/scan_memory.h"
#include "daemon/pages/scan_sort.h"

#define BL_SCAN_WINDOW     2048U /* pages looked at in one piece: 1 to 2 ms of reading */
#define BL_SCAN_CHUNK      64U /* pages read in one piece: 256 KiB, which the second-level cache still holds */
#define BL_SCAN_BATCH_MIN  64U /* pages of the second look's buffer */
#define BL_SCAN_BATCH_MAX  256U /* the most: 1 MiB, which that cache holds from the read to the comparison */
#define BL_SCAN_SLICE      65536U /* entries sorted or walked in one piece: about 1 ms */
#define BL_SCAN_CLASS_PART 4U /* of a batch's pages come so many classes of a large group: one in four */
#define BL_SCAN_MATRIX_MAX 256U
#define BL_SCAN_SHIFT_MAX  32U

/* Flags in bl_scan_entry.where. */
#define BL_SCAN_FRAME    (UINT64_C(1) << 63) /* merged: `key` is its frame, its content is not known yet */
#define BL_SCAN_VOLATILE (UINT64_C(1) << 62) /* the second look found another content, or none */
#define BL_SCAN_PENDING  (UINT64_C(1) << 61) /* of a large group, and not in a class yet */
#define BL_SCAN_COPY     (UINT64_C(1) << 60) /* has a copy somewhere */

struct bl_scan_table {
        struct bl_scan_entry *e;
        size_t n, room, most; /* entries; most: that memory_max leaves room for */
};

/* Pages to be read again, all at once. */
struct bl_scan_batch {
        size_t room, n;
        struct bl_scan_entry
                *item; /* key: the page; where: the caller's position.  In any order, and sorted by fetch */
        const uint8_t **at; /* by the caller's position: its bytes; NULL: it is not there any more */
        uint8_t *bytes;
        uint64_t *list; /* what a read() is asked for */
        bool *ok; /* of each place in `bytes` */
        struct bl_scan_batch_frame {
                uint64_t frame; /* + 1; 0: free */
                uint32_t place;
        } * frame; /* 2 * room, by hash */
        uint32_t *first; /* positions of the first of each class, of the group at hand */
};

/* A group that is larger than a batch: the first of each class is kept over the batches. */
struct bl_scan_large {
        size_t begin, end; /* entries; end 0: there is none */
        size_t pending;
        bool again; /* not the first time through: only what is pending */
        size_t room, n; /* classes */
        uint64_t *key;
        uint8_t *bytes;
};

enum bl_scan_state {
        BL_SCAN_AT_HASH,
        BL_SCAN_AT_ROOM,
        BL_SCAN_AT_MERGED,
        BL_SCAN_AT_SORT_HASH,
        BL_SCAN_AT_GROUP,
        BL_SCAN_AT_SORT_GROUP,
        BL_SCAN_AT_SETTLE,
        BL_SCAN_AT_COMPARE,
        BL_SCAN_AT_ZERO,
        BL_SCAN_AT_COMPRESS,
        BL_SCAN_AT_COUNT,
        BL_SCAN_AT_RUNS,
        BL_SCAN_AT_END,
};

struct bl_scan {
        struct bl_source **sources;
        size_t n_sources;
        uint64_t *base; /* of each source's pages in the numbering through all; [n_sources]: the total */
        uint64_t (*hash)(const void *page, uint64_t seed);
        uint64_t seed;
        uint64_t limit; /* bytes */
        permyriad_t cpu;
        usec_t settle;
        unsigned compress_sample;
        unsigned page_bits; /* that a page's number needs */
        bool live; /* a source is not still */

        enum bl_scan_state state;
        size_t source; /* at hand, of hash */
        uint64_t window; /* next page of it */
        size_t at; /* next entry, of whatever walks the table */
        uint64_t mark; /* next page, of zero */
        usec_t hashed; /* when the last page had its first look */
        usec_t rest_until; /* what was done is paid for by then */
        uint64_t zeros, zeros_done; /* zero pages that have a second look */
        unsigned shift; /* 1/2^shift of the hash space is kept */
        size_t unresolved; /* merged pages in the table */
        size_t entries; /* of the table, as sorted */
        size_t grouped; /* of those, that are not alone with their hash: the first ones */
        size_t classes; /* found by compare */
        uint64_t chosen; /* of compress: what has come together for the next one */
        uint64_t compressed_bytes;
        bool runs; /* `marks` is of pages with copies */

        struct bl_scan_memory memory;
        struct bl_scan_table table;
        struct bl_scan_sort sort;
        struct bl_scan_marks marks; /* zero pages of sources that are not still; in the end pages with copies */
        struct bl_scan_frames frames;
        struct bl_scan_batch batch;
        struct bl_scan_large large;
        struct {
                enum { BL_MERGED_PART, BL_MERGED_SORT, BL_MERGED_READ } stage;
                size_t begin; /* where what is known ends */
                size_t at, end; /* those that are not */
                uint64_t frame, holders; /* the frame that is gone through, and who has it */
        } merged;
        struct bl_page_look *look; /* WINDOW */
        uint32_t *in; /* n_sources: those that have a class */
        uint64_t *copies; /* n_sources: how many of its pages each of them has in it */

        struct bl_scan_figures
                *pass; /* of each source: what pass 1 counted, and second looks that count page by page */
        double variance;
        struct bl_scan_report report;
};

/*
 * Each does a piece of work of a few milliseconds.  1: this part is finished; 0: it goes on; negative: -ENOMEM.
 * Nothing is lost by a failure: the piece may be tried again.
 */
int bl_scan_hash_go(struct bl_scan *s);
int bl_scan_room_go(struct bl_scan *s);
int bl_scan_merged_go(struct bl_scan *s);
int bl_scan_group_go(struct bl_scan *s);
int bl_scan_compare_go(struct bl_scan *s);
int bl_scan_zero_go(struct bl_scan *s);
int bl_scan_compress_go(struct bl_scan *s);
int bl_scan_count_go(struct bl_scan *s);
int bl_scan_runs_go(struct bl_scan *s);

void bl_scan_large_free(struct bl_scan *s);

/* The source that a page is of; `hint`: one at or below it, 0 always is. */
size_t bl_scan_source_of(const struct bl_scan *s, uint64_t page, size_t hint);

/* The source is left out from now on, and what pass 1 counted of it forgotten. */
void bl_scan_lose(struct bl_scan *s, size_t source, int error);
/* Loses those that have ended or were laid out anew. */
void bl_scan_ask_again(struct bl_scan *s);

/* A zero page, for its second look where it may change. */
static inline void bl_scan_mark_zero(struct bl_scan *s, size_t source, uint64_t page)
{
        s->pass[source].zero++;
        if (s->sources[source]->still)
                return;
        bl_scan_marks_set(&s->marks, page);
        s->zeros++;
}

static inline bool bl_scan_lost(const struct bl_scan *s, size_t source)
{
        return s->report.source[source].error != 0;
}

static inline uint64_t bl_scan_page(const struct bl_scan_entry *e)
{
        return e->where & BL_SCAN_PAGE_MASK;
}

/* Is it in the part of the hash space that is kept? */
static inline bool bl_scan_kept(const struct bl_scan *s, uint64_t hash)
{
        return (hash & ((UINT64_C(1) << s->shift) - 1)) == 0;
}

/* A group's key: its first page, and below it as many bits of the hash as there is room for. */
static inline uint64_t bl_scan_group_key(const struct bl_scan *s, uint64_t page, uint64_t hash)
{
        const unsigned free_bits = 64 - s->page_bits;

        return page << free_bits | (hash & ((UINT64_C(1) << free_bits) - 1));
}

/* Is it the hash that the group had, as far as the key knows it? */
static inline bool bl_scan_key_fits(const struct bl_scan *s, uint64_t key, uint64_t hash)
{
        return (key ^ hash) << s->page_bits == 0;
}

/* scan_table.c.  Room for `more` entries; -ENOMEM; -ENOSPC: `most` is reached. */
int bl_scan_table_reserve(struct bl_scan *s, size_t more);
void bl_scan_table_fit(struct bl_scan *s);
static inline void bl_scan_table_add(struct bl_scan_table *t, uint64_t key, uint64_t where)
{
        t->e[t->n++] = (struct bl_scan_entry){key, where};
}

/* scan_batch.c.  What was in it is gone.  -ENOMEM. */
int bl_scan_batch_resize(struct bl_scan *s, size_t room);
void bl_scan_batch_free(struct bl_scan *s);
/* Adds a page; its position is the number of those before it. */
void bl_scan_batch_add(struct bl_scan_batch *b, uint64_t page);
/* Reads all; then at[] is right until the next one. */
void bl_scan_batch_fetch(struct bl_scan *s);

#endif
