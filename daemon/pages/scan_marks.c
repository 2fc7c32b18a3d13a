/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/pages/scan_marks.h"

#include <errno.h>

/* 4 KiB of bits: 128 MiB of pages */
#define CHUNK_SHIFT 15
#define CHUNK_PAGES (UINT64_C(1) << CHUNK_SHIFT)
#define CHUNK_WORDS (CHUNK_PAGES / 64)

int bl_scan_marks_init(struct bl_scan_marks *k, struct bl_scan_memory *m, uint64_t pages)
{
        k->n = (size_t)(pages >> CHUNK_SHIFT) + 1;
        k->chunk = bl_scan_alloc(m, k->n, sizeof(*k->chunk));
        return k->chunk ? 0 : -ENOMEM;
}

void bl_scan_marks_free(struct bl_scan_marks *k, struct bl_scan_memory *m)
{
        for (size_t i = 0; k->chunk && i < k->n; i++)
                k->chunk[i] = bl_scan_release(m, k->chunk[i], CHUNK_WORDS, sizeof(**k->chunk));
        k->chunk = bl_scan_release(m, k->chunk, k->n, sizeof(*k->chunk));
}

int bl_scan_marks_reserve(struct bl_scan_marks *k, struct bl_scan_memory *m, uint64_t from, uint64_t n)
{
        for (uint64_t i = from >> CHUNK_SHIFT; n > 0 && i <= (from + n - 1) >> CHUNK_SHIFT; i++)
                if (!k->chunk[i] && !(k->chunk[i] = bl_scan_alloc(m, CHUNK_WORDS, sizeof(**k->chunk))))
                        return -ENOMEM;
        return 0;
}

void bl_scan_marks_set(struct bl_scan_marks *k, uint64_t page)
{
        k->chunk[page >> CHUNK_SHIFT][page % CHUNK_PAGES / 64] |= UINT64_C(1) << page % 64;
}

uint64_t bl_scan_marks_next(const struct bl_scan_marks *k, uint64_t page)
{
        for (uint64_t c = page >> CHUNK_SHIFT; k->chunk && c < k->n; page = ++c << CHUNK_SHIFT) {
                if (!k->chunk[c])
                        continue;
                for (uint64_t w = page % CHUNK_PAGES / 64; w < CHUNK_WORDS; w++) {
                        uint64_t bits = k->chunk[c][w];

                        if (w == page % CHUNK_PAGES / 64)
                                bits &= UINT64_MAX << page % 64;
                        if (bits)
                                return (c << CHUNK_SHIFT) + w * 64 + (uint64_t)__builtin_ctzll(bits);
                }
        }
        return UINT64_MAX;
}

uint64_t bl_scan_marks_end(const struct bl_scan_marks *k, uint64_t page)
{
        for (uint64_t c = page >> CHUNK_SHIFT; c < k->n && k->chunk[c]; page = ++c << CHUNK_SHIFT) {
                for (uint64_t w = page % CHUNK_PAGES / 64; w < CHUNK_WORDS; w++) {
                        uint64_t clear = ~k->chunk[c][w];

                        if (w == page % CHUNK_PAGES / 64)
                                clear &= UINT64_MAX << page % 64;
                        if (clear)
                                return (c << CHUNK_SHIFT) + w * 64 + (uint64_t)__builtin_ctzll(clear);
                }
        }
        return page;
}
