/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where in a dump its pages are: an ELF core has a piece for each of its segments, a raw file is one. */
#ifndef BALLAST_PAGES_DUMP_LAYOUT_H
#define BALLAST_PAGES_DUMP_LAYOUT_H

#include <ballast/units.h>

#include "daemon/pages/page.h"

/* A range of memory; its pages are numbered from `first`. */
struct bl_dump_piece {
        uint64_t first, n;
        uint64_t offset; /* of the first page in the file */
        uint64_t dumped; /* bytes that are in the file by the headers: what is behind them was left out */
        uint64_t there; /* bytes that are in the file: less than `dumped` where it was cut off */
};

struct bl_dump_layout {
        struct bl_dump_piece *pieces;
        size_t n;
        uint64_t pages, tail_bytes; /* source.h */
        uint64_t present; /* pages that can be read */
        uint64_t missing; /* pages that are UNREADABLE */
        uint64_t size; /* of the file */
};

/*
 * Of the open file or block device `fd`; `path` is for *ret_message (allocated on error, NULL if there is no memory for
 * it).  Errors of bl_source_file().
 */
int bl_dump_layout_read(int fd, const char *path, struct bl_dump_layout *ret, char **ret_message);
void bl_dump_layout_done(struct bl_dump_layout *l);

/* The piece that page `page` (< pages) is in; *hint: its number, where the search starts. */
const struct bl_dump_piece *bl_dump_piece_at(const struct bl_dump_layout *l, uint64_t page, size_t *hint);

/* Of page `k` of a piece: bytes that were dumped; those behind them are zeros, if anything (elf(5)). */
static inline uint64_t bl_dump_page_size(const struct bl_dump_piece *p, uint64_t k)
{
        return bl_min(BL_PAGE_SIZE, bl_sub_sat(p->dumped, k * BL_PAGE_SIZE));
}

/* PRESENT, ABSENT (not dumped) or UNREADABLE (cut off). */
enum bl_page_state bl_dump_page_state(const struct bl_dump_piece *p, uint64_t k);

#endif
