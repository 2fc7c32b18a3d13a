// SPDX-License-Identifier: LGPL-2.1-or-later
/* The pool's pages and chunks: a bit a page says that it is free and there. */
#include "daemon/store/internal.h"

#include <string.h>

int bl_pages_init(struct bl_store *s)
{
        uint32_t words = (s->n_pages + 63) / 64;

        s->pages = calloc(s->n_pages, sizeof(*s->pages));
        s->free_map = calloc(words, sizeof(*s->free_map));
        s->chunk_free = calloc(s->n_chunks, sizeof(*s->chunk_free));
        s->chunk_ready = calloc(s->n_chunks, sizeof(*s->chunk_ready));
        return s->pages && s->free_map && s->chunk_free && s->chunk_ready ? 0 : -ENOMEM;
}

void bl_pages_free(struct bl_store *s)
{
        free(s->pages);
        free(s->free_map);
        free(s->chunk_free);
        free(s->chunk_ready);
}

static void mark_free(struct bl_store *s, uint32_t page)
{
        uint32_t w = page / 64;

        s->free_map[w] |= UINT64_C(1) << page % 64;
        s->free_pages++;
        s->chunk_free[page / BL_CHUNK_PAGES]++;
        for (uint32_t n = 1; n <= BL_SPAN_MAX; n++)
                if (w < s->free_hint[n])
                        s->free_hint[n] = w;
}

static void mark_taken(struct bl_store *s, uint32_t page)
{
        s->free_map[page / 64] &= ~(UINT64_C(1) << page % 64);
        s->free_pages--;
        s->chunk_free[page / BL_CHUNK_PAGES]--;
}

void bl_pages_add_chunk(struct bl_store *s, uint32_t chunk)
{
        uint32_t from = chunk * BL_CHUNK_PAGES, to = from + BL_CHUNK_PAGES;

        s->chunk_ready[chunk] = 1;
        s->ready_pages += BL_CHUNK_PAGES;
        for (uint32_t p = from; p < to; p++) {
                if (p < s->first)
                        s->pages[p].kind = BL_PAGE_FIXED;
                else
                        mark_free(s, p);
        }
}

/* First of n free pages in a row within a word, or 64. */
static uint32_t run_in(uint64_t bits, uint32_t n)
{
        uint64_t starts = bits;

        for (uint32_t i = 1; i < n; i++)
                starts &= bits >> i;
        return starts ? (uint32_t)__builtin_ctzll(starts) : 64;
}

static uint32_t take_run(struct bl_store *s, uint32_t n)
{
        uint32_t words = (s->n_pages + 63) / 64, w, at = 64;

        for (w = s->free_hint[n]; w < words; w++) {
                if (s->free_map[w] == 0)
                        continue;
                at = run_in(s->free_map[w], n);
                if (at < 64)
                        break;
        }
        s->free_hint[n] = w;
        if (at >= 64)
                return 0;
        at += w * 64;
        for (uint32_t i = 0; i < n; i++)
                mark_taken(s, at + i);
        return at;
}

static void set_kind(struct bl_store *s, uint32_t page, uint32_t word)
{
        struct bl_page *p = &s->pages[page];

        *p = (struct bl_page){
                .kind = (uint8_t)word,
                .prev = BL_NONE,
                .next = BL_NONE,
                .list = BL_FULLNESS,
        };
        if (p->kind != BL_PAGE_SPAN)
                return;
        p->class = (uint8_t)(word >> 8);
        p->pos = (uint8_t)(word >> 16);
        p->len = (uint8_t)(word >> 24);
}

uint32_t bl_pages_take(struct bl_store *s, uint32_t n, uint32_t class)
{
        uint32_t at = take_run(s, n);

        for (uint32_t i = 0; at != 0 && i < n; i++) {
                uint32_t word = bl_map_span(class, i, n);

                set_kind(s, at + i, word);
                __atomic_store_n(&s->map[at + i], word, __ATOMIC_RELEASE);
        }
        return at;
}

uint32_t bl_pages_take_one(struct bl_store *s, uint32_t word)
{
        uint32_t at = take_run(s, 1);

        if (at == 0)
                return 0;
        set_kind(s, at, word);
        __atomic_store_n(&s->map[at], word, __ATOMIC_RELEASE);
        return at;
}

bool bl_pages_claim(struct bl_store *s, uint32_t page, uint32_t word)
{
        if (page < s->first || page >= s->n_pages || !(s->free_map[page / 64] & UINT64_C(1) << page % 64) ||
            s->map[page] != word)
                return false;
        set_kind(s, page, word);
        mark_taken(s, page);
        return true;
}

/* The map keeps what it said: it counts only for what is referred to, and is written anew before that. */
void bl_pages_give(struct bl_store *s, uint32_t page, uint32_t n)
{
        for (uint32_t i = 0; i < n; i++) {
                s->pages[page + i].kind = BL_PAGE_FREE;
                mark_free(s, page + i);
        }
        if (s->waiting > 0)
                pthread_cond_broadcast(&s->room);
}

int bl_pages_grow(struct bl_store *s)
{
        uint32_t chunk;
        int r;

        pthread_mutex_lock(&s->grow);
        /* only who holds `grow` changes it */
        for (chunk = 0; chunk < s->n_chunks && s->chunk_ready[chunk]; chunk++)
                ;
        if (chunk == s->n_chunks) {
                pthread_mutex_unlock(&s->grow);
                return -ENOSPC;
        }
        r = bl_arena_populate(s->arena, chunk);
        if (r >= 0) {
                pthread_mutex_lock(&s->lock);
                bl_pages_add_chunk(s, chunk);
                if (s->waiting > 0)
                        pthread_cond_broadcast(&s->room);
                pthread_mutex_unlock(&s->lock);
                r = 0;
        }
        pthread_mutex_unlock(&s->grow);
        return r;
}

uint64_t bl_pages_shrink(struct bl_store *s, uint32_t keep)
{
        uint32_t ready = 0;
        uint64_t freed = 0;

        pthread_mutex_lock(&s->grow);
        for (uint32_t i = 0; i < s->n_chunks; i++)
                ready += s->chunk_ready[i];
        for (uint32_t i = s->n_chunks; i-- > 0 && ready > keep;) {
                bool take;

                pthread_mutex_lock(&s->lock);
                take = s->chunk_ready[i] && s->chunk_free[i] == BL_CHUNK_PAGES;
                if (take) {
                        for (uint32_t p = i * BL_CHUNK_PAGES; p < (i + 1) * BL_CHUNK_PAGES; p++)
                                mark_taken(s, p);
                        s->chunk_ready[i] = 0;
                        s->ready_pages -= BL_CHUNK_PAGES;
                }
                pthread_mutex_unlock(&s->lock);
                if (!take)
                        continue;
                ready--;
                if (bl_arena_release(s->arena, i) >= 0) {
                        freed += BL_ARENA_CHUNK;
                        continue;
                }
                pthread_mutex_lock(&s->lock);
                bl_pages_add_chunk(s, i);
                pthread_mutex_unlock(&s->lock);
        }
        pthread_mutex_unlock(&s->grow);
        return freed;
}
