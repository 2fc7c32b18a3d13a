/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is known of sampled pages, found by content.
 *
 *   piece   BL_EVIDENCE_PIECE neighbours of a VM, looked at together; replaced as a whole when looked at again
 *   group   pages and merged frames of one hash, from two on (a single page needs none).  Its members fall into
 *           classes: those of one class were compared byte for byte; a collision of hashes makes two
 *   frame   a merged page, known by its number: one page of it is read, all that map it hang on it
 *
 * All are found by one hash table that grows a bucket at a time (linear hashing; Litwin, VLDB 1980), so that no call
 * takes long.  Records are named by number; `ref` says the kind too.  Everything belongs to the loop's thread.
 */
#ifndef BALLAST_PAGES_EVIDENCE_TABLE_H
#define BALLAST_PAGES_EVIDENCE_TABLE_H

#include "daemon/pages/evidence.h"
#include "daemon/pages/evidence_pool.h"
#include "daemon/pages/evidence_walk.h"

#define BL_EV_STRATA 2U /* 0: not hinted, 1: hinted */
#define BL_EV_VMS    UINT16_MAX
#define BL_EV_ALONE  UINT8_MAX /* a class of its own, beyond those that are numbered */

/* 2 bits of kind, 30 of number. */
typedef uint32_t bl_ev_ref;
#define BL_EV_NONE  UINT32_MAX
#define BL_EV_INDEX ((1U << 30) - 1)
enum bl_ev_kind { BL_EV_PAGE, BL_EV_GROUP, BL_EV_FRAME, BL_EV_PIECE };

static inline bl_ev_ref bl_ev_ref_of(enum bl_ev_kind kind, uint32_t index)
{
        return (uint32_t)kind << 30 | index;
}

static inline enum bl_ev_kind bl_ev_kind(bl_ev_ref r)
{
        return (enum bl_ev_kind)(r >> 30);
}

enum bl_ev_sample {
        BL_EV_ABSENT, /* takes no memory: never touched */
        BL_EV_SWAPPED,
        BL_EV_KERNEL_ZERO,
        BL_EV_UNREADABLE,
        BL_EV_UNKNOWN, /* present, and was not read */
        BL_EV_ZERO,
        BL_EV_MERGED, /* hangs on its frame */
        BL_EV_VOLATILE, /* had changed at the second look */
        BL_EV_SEEN, /* hashed once */
        BL_EV_HELD, /* its hash held at the second look, and it was compared with its like */
        _BL_EV_SAMPLE_MAX,
};

/* A look at a piece.  `state`: enum bl_page_state, and of PRESENT pages what reading them came to, BL_EV_LOOK_*. */
enum { BL_EV_LOOK_ZERO = _BL_PAGE_STATE_MAX, BL_EV_LOOK_FAILED };
struct bl_ev_look {
        uint32_t index;
        uint8_t n;
        uint8_t state[BL_EVIDENCE_PIECE];
        uint64_t what[BL_EVIDENCE_PIECE];
};

struct bl_ev_piece {
        uint64_t what[BL_EVIDENCE_PIECE]; /* hash, or frame */
        bl_ev_ref next[BL_EVIDENCE_PIECE]; /* single pages: hash chain; else members of the group, or pages of the frame
                                            */
        bl_ev_ref prev[BL_EVIDENCE_PIECE];
        uint8_t state[BL_EVIDENCE_PIECE]; /* enum bl_ev_sample */
        uint8_t class[BL_EVIDENCE_PIECE]; /* HELD: of its group, or BL_EV_ALONE */
        uint8_t copies[BL_EVIDENCE_PIECE]; /* figures' scratch */
        usec_t looked_at;
        uint32_t index; /* among its VM's pieces */
        uint32_t round; /* of its VM */
        bl_ev_ref chain;
        uint32_t older, newer; /* pieces of the VM; BL_EV_NONE */
        uint32_t touched, mark; /* figures' scratch */
        uint16_t vm;
        uint8_t n; /* pages */
        uint8_t stratum;
};

struct bl_ev_group {
        uint64_t hash;
        usec_t due;
        bl_ev_ref chain;
        bl_ev_ref members; /* pages not yet looked at twice come before their elders */
        uint32_t n, pages; /* members; those that are pages */
        uint32_t fresh; /* members that were not compared yet: SEEN pages, frames without a class */
        uint32_t sooner, later; /* queue */
        uint8_t classes; /* numbers given, from 1 */
        bool queued;
};

struct bl_ev_frame {
        uint64_t frame, hash;
        usec_t read_at, due; /* known: when; queued: when it is to be read (again) */
        bl_ev_ref chain;
        bl_ev_ref pages; /* that map it */
        uint32_t n;
        bl_ev_ref next, prev; /* members of the group */
        uint32_t sooner, later; /* queue */
        uint8_t class; /* 0: not yet compared */
        bool known, queued;
};

struct bl_ev_run {
        uint32_t first, n; /* pieces */
        uint32_t before; /* hinted pieces before it */
};

struct bl_ev_stratum {
        uint32_t pieces; /* sampled */
        uint64_t pages;
        uint64_t count[_BL_EV_SAMPLE_MAX];
        uint64_t zero_squares; /* sum of the squares of zero pages a piece */
};

struct bl_ev_vm {
        uint64_t id; /* 0: it left; the slot is free when its last sample is gone */
        uint64_t generation; /* of the slot's use: the result of a job that was begun before is not taken */
        uint64_t n_pages;
        uint32_t n_pieces, n_hinted;
        uint32_t round, drawn; /* drawn: pieces of this round */
        bool round_done;
        struct bl_ev_walk all, hinted;
        struct bl_ev_run *runs; /* hinted; ascending, apart from each other; beyond n_pieces too */
        size_t n_runs;
        uint32_t oldest, newest; /* pieces */
        usec_t at;
        struct bl_ev_stratum stratum[BL_EV_STRATA];
};

struct bl_ev_queue {
        uint32_t first, last;
};

struct bl_ev_figures_kept;

struct bl_evidence {
        uint64_t seed;
        usec_t settle, life;
        uint64_t (*hash)(const void *page, uint64_t seed);
        uint64_t random; /* state of what walks and slots are made from */
        struct bl_ev_memory memory;
        struct bl_ev_pool pieces, groups, frames, heads;
        uint32_t mask, split; /* heads: mask + 1 + split of them */
        uint64_t entries; /* in the chains */
        uint64_t members; /* pages in groups */
        struct bl_ev_queue due; /* groups, by `due` */
        struct bl_ev_queue unread; /* frames */
        struct bl_ev_vm *vms;
        size_t n_vms;
        uint64_t version; /* of what figures are made from */
        struct bl_ev_figures_kept *kept;
};

static inline struct bl_ev_piece *bl_ev_piece(const struct bl_evidence *e, uint32_t i)
{
        return bl_ev_pool_at(&e->pieces, i);
}

static inline struct bl_ev_group *bl_ev_group(const struct bl_evidence *e, uint32_t i)
{
        return bl_ev_pool_at(&e->groups, i);
}

static inline struct bl_ev_frame *bl_ev_frame(const struct bl_evidence *e, uint32_t i)
{
        return bl_ev_pool_at(&e->frames, i);
}

static inline bl_ev_ref bl_ev_page(uint32_t piece, unsigned k)
{
        return bl_ev_ref_of(BL_EV_PAGE, piece * BL_EVIDENCE_PIECE + k);
}

static inline struct bl_ev_piece *bl_ev_piece_of(const struct bl_evidence *e, bl_ev_ref page, unsigned *ret_k)
{
        *ret_k = page % BL_EVIDENCE_PIECE;
        return bl_ev_piece(e, (page & BL_EV_INDEX) / BL_EVIDENCE_PIECE);
}

/* --- evidence_table.c: the hash table, and lists that go through records -------------------- */

int bl_ev_table_init(struct bl_evidence *e);
void bl_ev_table_done(struct bl_evidence *e);

/* By its key, which must not change while it is in. */
void bl_ev_chain_add(struct bl_evidence *e, bl_ev_ref r);
void bl_ev_chain_remove(struct bl_evidence *e, bl_ev_ref r);

/* Numbers; BL_EV_NONE: none. */
uint32_t bl_ev_find_piece(const struct bl_evidence *e, uint16_t vm, uint32_t index);
uint32_t bl_ev_find_frame(const struct bl_evidence *e, uint64_t frame);
/* A single page or a group; BL_EV_NONE. */
bl_ev_ref bl_ev_find_content(const struct bl_evidence *e, uint64_t hash);

/* Brings into the cache what bl_ev_store will want: the buckets, and, once they are there, what they lead to. */
void bl_ev_prefetch(const struct bl_evidence *e, const struct bl_ev_look *look, bool deep);

/* Members of a group, or pages of a frame. */
bl_ev_ref bl_ev_next(const struct bl_evidence *e, bl_ev_ref r);
void bl_ev_list_add(const struct bl_evidence *e, bl_ev_ref *head, bl_ev_ref r);
void bl_ev_list_remove(const struct bl_evidence *e, bl_ev_ref *head, bl_ev_ref r);

/* --- evidence_groups.c ------------------------------------------------------------------------ */

/* A page whose state and hash are set.  Before an add there must be room for a group or frame (bl_ev_room). */
void bl_ev_content_add(struct bl_evidence *e, bl_ev_ref page, usec_t now);
void bl_ev_content_remove(struct bl_evidence *e, bl_ev_ref page);
void bl_ev_merged_add(struct bl_evidence *e, bl_ev_ref page, usec_t now);
void bl_ev_merged_remove(struct bl_evidence *e, bl_ev_ref page);

/* A frame was read.  False: no room. */
bool bl_ev_frame_known(struct bl_evidence *e, uint32_t frame, uint64_t hash, usec_t now);
/* A known frame was compared. */
void bl_ev_frame_class(struct bl_evidence *e, uint32_t frame, uint8_t class);

/* --- evidence_pieces.c ------------------------------------------------------------------------ */

/* Room for a piece of any content; the oldest samples go for it, but not `keep`.  False: there is none even so. */
bool bl_ev_room(struct bl_evidence *e, uint32_t keep);
/* From now on that is what its pages are.  False: no room. */
bool bl_ev_store(struct bl_evidence *e, uint16_t vm, const struct bl_ev_look *look, usec_t now);
void bl_ev_drop_piece(struct bl_evidence *e, uint32_t piece);
void bl_ev_restratify(struct bl_evidence *e, struct bl_ev_piece *p, uint8_t stratum);

/* A SEEN page's second look: it held, and is of that class. */
void bl_ev_page_held(struct bl_evidence *e, bl_ev_ref page, uint8_t class);
/* It is something else now. */
void bl_ev_page_is(struct bl_evidence *e, bl_ev_ref page, enum bl_ev_sample state);
/* It maps another merged frame than it did, or one for the first time.  False: no room. */
bool bl_ev_page_merged(struct bl_evidence *e, bl_ev_ref page, uint64_t frame, usec_t now);
enum bl_ev_sample bl_ev_sample_of(uint8_t looked);

/* --- evidence_queue.c: what waits for a CONFIRM ---------------------------------------------- */

/* To the end of the queue if something of it waits for its second look and has a partner, else off it. */
void bl_ev_group_schedule(struct bl_evidence *e, uint32_t group, usec_t due);
void bl_ev_group_unschedule(struct bl_evidence *e, uint32_t group);
void bl_ev_frame_schedule(struct bl_evidence *e, uint32_t frame, usec_t due);
void bl_ev_frame_unschedule(struct bl_evidence *e, uint32_t frame);

/* --- evidence_vm.c ------------------------------------------------------------------------------ */

struct bl_ev_vm *bl_ev_vm_find(struct bl_evidence *e, uint64_t id);
/* Makes it where there is none.  -ENOMEM; -ENOSPC: more than BL_EV_VMS. */
int bl_ev_vm_get(struct bl_evidence *e, uint64_t id, struct bl_ev_vm **ret);
/* How many pages it has.  Where it had another number it begins anew, without samples and hints: *v changes. */
int bl_ev_vm_resize(struct bl_evidence *e, struct bl_ev_vm **v, uint64_t n_pages);
/* It is gone for everybody; its samples go bit by bit (bl_ev_sweep). */
void bl_ev_vm_leave(struct bl_evidence *e, struct bl_ev_vm *v);
bool bl_ev_vm_hinted(const struct bl_ev_vm *v, uint32_t piece);
/* Up to `want` pieces to look at next.  *ret_done: with them the round is done; the next call begins another. */
size_t bl_ev_vm_draw(struct bl_evidence *e, struct bl_ev_vm *v, size_t want, uint32_t *ret, bool *ret_done);
/* Drops samples of VMs that left, and those that are too old, up to `pieces`. */
void bl_ev_sweep(struct bl_evidence *e, usec_t now, size_t pieces);

static inline bool bl_ev_vm_gone(const struct bl_ev_vm *v)
{
        return v->id == 0;
}

static inline uint16_t bl_ev_vm_slot(const struct bl_evidence *e, const struct bl_ev_vm *v)
{
        return (uint16_t)(v - e->vms);
}

#endif
