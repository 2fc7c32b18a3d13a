/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A store in memory of the test's own, which may be shared with a child that is killed. */
#ifndef BALLAST_TEST_STORE_UTIL_H
#define BALLAST_TEST_STORE_UTIL_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/store/internal.h"

#define START 4711U /* of the process that the tests pretend to be */

/* xorshift64*: the same seed, the same run. */
static inline uint64_t next_random(uint64_t *state)
{
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        return *state * UINT64_C(2685821657736338717);
}

/* Content number `n` (0: zeros): the same number, the same bytes; every fourth does not compress, the others
 * to between a twentieth and a half. */
static inline void fill_page(uint8_t *page, uint64_t n)
{
        uint64_t state = n * UINT64_C(0x9e3779b97f4a7c15) + 1;
        size_t random = n % 4 == 3 ? BL_STORE_PAGE : 64 + n % 37 * 48;

        memset(page, 0, BL_STORE_PAGE);
        if (n == 0)
                return;
        for (size_t i = 0; i < random; i += sizeof(uint64_t)) {
                uint64_t v = next_random(&state);

                memcpy(page + i, &v, sizeof(v));
        }
        for (size_t i = random; i < BL_STORE_PAGE; i++)
                page[i] = (uint8_t)(n >> i % 4 * 8);
}

/* Memory that outlives who works in it. */
static inline int memory_new(size_t size)
{
        int fd = memfd_create("pool", MFD_CLOEXEC);

        if (fd >= 0 && ftruncate(fd, (off_t)size) < 0) {
                close(fd);
                return -1;
        }
        return fd;
}

/* An arena on it, as bl_arena_open would have it; all of it is there. */
static inline struct bl_arena *arena_on(int fd, bool fresh)
{
        struct bl_arena *a = calloc(1, sizeof(*a));
        off_t size = lseek(fd, 0, SEEK_END);

        if (!a)
                return NULL;
        a->size = (size_t)size;
        a->kind = BL_ARENA_PRIVATE;
        a->fresh = fresh;
        a->lock_fd = -1;
        a->fd = dup(fd);
        a->populated = calloc(a->size / BL_ARENA_CHUNK, 1);
        a->base = mmap(NULL, a->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
        if (!a->populated || a->base == MAP_FAILED)
                abort();
        return a;
}

static inline struct bl_store *store_on(int fd, bool fresh, struct bl_disk *disk)
{
        struct bl_store_options o = {.arena = arena_on(fd, fresh), .disk = disk};
        struct bl_store *s = NULL;

        return bl_store_open(&o, &s, NULL) < 0 ? NULL : s;
}

static inline void uuid_of(uint8_t n, uint8_t uuid[BL_UUID_LEN])
{
        memset(uuid, 0, BL_UUID_LEN);
        uuid[0] = 0xb1;
        uuid[BL_UUID_LEN - 1] = n;
}

static inline struct bl_store_registration registration(uint8_t n, uint64_t size, const char *group)
{
        struct bl_store_registration r = {
                .pid = getpid(), .start = START, .size = size, .limit = BL_UNSET, .stamp = BL_UNSET};

        uuid_of(n, r.uuid);
        snprintf(r.group, sizeof(r.group), "%s", group);
        return r;
}

static inline int register_vm(struct bl_store *s, uint8_t n, uint64_t size, const char *group)
{
        struct bl_store_registration r = registration(n, size, group);

        return bl_store_register(s, &r);
}

static inline struct bl_export *open_vm(struct bl_store *s, uint8_t n)
{
        uint8_t uuid[BL_UUID_LEN];
        struct bl_export *e = NULL;

        uuid_of(n, uuid);
        return bl_export_open(s, uuid, getpid(), START, 0, &e) < 0 ? NULL : e;
}

#define CHECK(x)                                                                     \
        do {                                                                         \
                if (!(x)) {                                                          \
                        fprintf(stderr, "store_check: line %d: %s\n", __LINE__, #x); \
                        return -1;                                                   \
                }                                                                    \
        } while (0)

/* Is what the store keeps in the process right about what lies in the arena, with nobody at work?  Nothing
 * leaks: every page and object that is taken is referred to.  Quadratic: for small pools. */
static inline int store_check(struct bl_store *s)
{
        uint64_t span_pages = 0, entry_pages = 0, table_pages = 0, fixed = 0, free_pages = 0, objects = 0, in_ram = 0;
        uint64_t payload = 0, unique = 0, held = 0, zero = 0, disk_used = 0;
        uint32_t *refs = calloc((size_t)s->n_entry_pages * BL_ENTRIES + 1, sizeof(*refs));

        CHECK(refs);
        for (uint32_t i = 0; i < BL_EXPORTS; i++) {
                struct bl_export *e = s->exports[i];
                uint64_t e_held = 0, e_zero = 0;

                for (uint32_t t = 0; e && t < e->n_tables; t++) {
                        const uint64_t *words = bl_page_at(s, e->tables[t]);
                        uint32_t used = 0;

                        if (e->tables[t] == 0)
                                continue;
                        for (uint32_t k = 0; k < BL_TABLE; k++) {
                                used += words[k] != 0;
                                e_zero += bl_slot_kind(words[k]) == BL_SLOT_ZERO;
                                if (bl_slot_kind(words[k]) != BL_SLOT_DATA || !bl_entry_is(s, words[k]))
                                        continue;
                                e_held++;
                                refs[bl_slot_entry(words[k])]++;
                        }
                        CHECK(used == s->pages[e->tables[t]].used);
                }
                if (!e)
                        continue;
                CHECK(e->held == e_held && e->zero == e_zero);
                held += e_held;
                zero += e_zero;
        }
        for (uint32_t n = 0; n < s->n_entry_pages * BL_ENTRIES; n++) {
                struct bl_meta *m;
                const struct bl_entry *e = bl_entry_at(s, n, &m);

                if (!e)
                        continue;
                CHECK(m->pins == 0);
                CHECK(m->refs == refs[n]);
                if (m->refs == 0)
                        continue;
                CHECK(m->hashed);
                CHECK(bl_location_ok(e->location, n, e));
                unique++;
                if (e->location & BL_LOCATION_DISK) {
                        disk_used += e->size;
                } else {
                        in_ram++;
                        payload += e->size;
                        CHECK(bl_spans_at(s, e->location & BL_PLACE_MASK, e->size));
                }
        }
        free(refs);
        for (uint32_t p = 0; p < s->n_pages; p++) {
                bool is_free = s->free_map[p / 64] >> p % 64 & 1;

                if (is_free || !s->chunk_ready[p / BL_CHUNK_PAGES]) {
                        free_pages += is_free;
                        continue;
                }
                fixed += s->pages[p].kind == BL_PAGE_FIXED;
                span_pages += s->pages[p].kind == BL_PAGE_SPAN;
                entry_pages += s->pages[p].kind == BL_PAGE_ENTRIES;
                table_pages += s->pages[p].kind == BL_PAGE_NODE || s->pages[p].kind == BL_PAGE_TABLE;
                if (s->pages[p].kind == BL_PAGE_SPAN && s->pages[p].pos == 0) {
                        CHECK(s->pages[p].used > 0);
                        objects += s->pages[p].used;
                }
        }
        CHECK(objects == in_ram);
        CHECK(payload == s->payload && unique == s->unique && unique == s->n_hashed);
        CHECK(held == s->held && zero == s->zero && disk_used == s->disk_used);
        CHECK(span_pages == s->span_pages && entry_pages == s->entry_n_pages && table_pages == s->table_pages);
        CHECK(free_pages == s->free_pages && fixed == s->first);
        CHECK(fixed + span_pages + entry_pages + table_pages + free_pages == s->ready_pages);
        return 0;
}

#endif
