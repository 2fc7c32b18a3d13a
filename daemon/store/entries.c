// SPDX-License-Identifier: LGPL-2.1-or-later
/* Entries, who refers to them, and the hash table that finds them. */
#include "daemon/store/internal.h"

#include <string.h>

#define SEGMENT 4096U /* heads of hash chains */
#define LOAD    2U /* entries in a chain, on the average */
#define LINE    64U /* of the CPU's caches */

/* Of a number that is known to be taken. */
static struct bl_entry *known(const struct bl_store *s, uint32_t n, struct bl_meta **ret_meta)
{
        struct bl_entry_page *p = s->entry_pages[n / BL_ENTRIES];

        *ret_meta = &p->meta[n % BL_ENTRIES];
        return &p->entries[n % BL_ENTRIES];
}

/* --- the hash table: grows by one bucket at a time (Litwin, "Linear hashing", VLDB 1980) ------------------ */

static uint32_t *head_at(const struct bl_store *s, uint32_t bucket)
{
        return &s->buckets[bucket / SEGMENT][bucket % SEGMENT];
}

static uint32_t bucket_of(const struct bl_store *s, uint64_t hash)
{
        uint32_t b = (uint32_t)(hash & ((UINT64_C(1) << s->level) - 1));

        return b < s->split ? (uint32_t)(hash & ((UINT64_C(2) << s->level) - 1)) : b;
}

static int add_segment(struct bl_store *s)
{
        uint32_t *segment;

        if (s->n_segments == s->most_segments)
                return -ENOSPC;
        segment = malloc(SEGMENT * sizeof(*segment));
        if (!segment)
                return -ENOMEM;
        memset(segment, 0xff, SEGMENT * sizeof(*segment));
        s->buckets[s->n_segments++] = segment;
        return 0;
}

/* One more bucket; where there is no memory for it the chains are longer. */
static void split_one(struct bl_store *s)
{
        uint32_t to = (UINT32_C(1) << s->level) + s->split, n, next;
        uint32_t *from_head, *to_head;

        if (to / SEGMENT >= s->n_segments && add_segment(s) < 0)
                return;
        from_head = head_at(s, s->split);
        to_head = head_at(s, to);
        n = *from_head;
        *from_head = BL_NONE;
        for (; n != BL_NONE; n = next) {
                struct bl_meta *m;
                const struct bl_entry *e = known(s, n, &m);
                uint32_t *head = e->hash >> s->level & 1 ? to_head : from_head;

                next = m->next;
                m->next = *head;
                *head = n;
        }
        if (++s->split == UINT32_C(1) << s->level) {
                s->level++;
                s->split = 0;
        }
}

static void hash_add(struct bl_store *s, uint32_t n)
{
        struct bl_meta *m;
        const struct bl_entry *e = known(s, n, &m);
        uint32_t *head;

        if (s->n_hashed > ((UINT64_C(1) << s->level) + s->split) * LOAD)
                split_one(s);
        head = head_at(s, bucket_of(s, e->hash));
        m->next = *head;
        *head = n;
        m->hashed = 1;
        s->n_hashed++;
}

static bool unchain(struct bl_store *s, uint32_t bucket, uint32_t n)
{
        uint32_t *link = head_at(s, bucket);

        for (uint32_t at = *link; at != BL_NONE; at = *link) {
                struct bl_meta *m;

                known(s, at, &m);
                if (at == n) {
                        *link = m->next;
                        return true;
                }
                link = &m->next;
        }
        return false;
}

static void hash_remove(struct bl_store *s, uint32_t n)
{
        struct bl_meta *m;
        const struct bl_entry *e = known(s, n, &m);
        uint32_t buckets = (UINT32_C(1) << s->level) + s->split;

        /* a hash that was damaged is looked for everywhere */
        if (!unchain(s, bucket_of(s, e->hash), n))
                for (uint32_t b = 0; b < buckets && !unchain(s, b, n); b++)
                        ;
        m->hashed = 0;
        s->n_hashed--;
}

uint32_t bl_entry_find(struct bl_store *s, uint64_t hash, uint16_t group)
{
        struct bl_meta *m;

        for (uint32_t n = *head_at(s, bucket_of(s, hash)); n != BL_NONE; n = m->next) {
                const struct bl_entry *e = known(s, n, &m);

                /* whoever waits for a disk that hangs had better store it again */
                if (e->hash == hash && e->group == group &&
                    !(e->location & BL_LOCATION_DISK && __atomic_load_n(&s->disk_failed, __ATOMIC_RELAXED)))
                        return n;
        }
        return BL_NONE;
}

void bl_entry_expect_head(const struct bl_store *s, uint64_t hash)
{
        __builtin_prefetch(head_at(s, bucket_of(s, hash)));
}

void bl_entry_expect_find(const struct bl_store *s, uint64_t hash)
{
        uint32_t n = *head_at(s, bucket_of(s, hash));
        struct bl_meta *m;

        if (n == BL_NONE)
                return;
        __builtin_prefetch(known(s, n, &m));
        __builtin_prefetch(m, 1);
}

bool bl_entry_holds(const struct bl_store *s, uint32_t n, const void *bytes, uint32_t size)
{
        struct bl_meta *m;
        const struct bl_entry *e = known(s, n, &m);
        const uint8_t *at;

        if (e->size != size || e->location & BL_LOCATION_DISK || !bl_location_ok(e->location, n, e))
                return false;
        at = bl_spans_at(s, e->location & BL_PLACE_MASK, size);
        return at && memcmp(at, bytes, size) == 0;
}

/* --- numbers ---------------------------------------------------------------------------------------------------- */

int bl_entries_init(struct bl_store *s)
{
        s->most_segments = (uint32_t)((uint64_t)s->n_pages * BL_ENTRIES / SEGMENT + 1);
        /* never moved: who has an entry pinned finds it without the lock */
        s->entry_pages = calloc(s->n_pages, sizeof(struct bl_entry_page *));
        s->entry_free = calloc((s->n_pages + 63) / 64, sizeof(*s->entry_free));
        s->buckets = calloc(s->most_segments, sizeof(uint32_t *));
        if (!s->entry_pages || !s->entry_free || !s->buckets)
                return -ENOMEM;
        s->level = (uint32_t)__builtin_ctz(SEGMENT);
        return add_segment(s);
}

void bl_entries_free(struct bl_store *s)
{
        for (uint32_t i = 0; i < s->n_entry_pages; i++)
                free(s->entry_pages[i]);
        for (uint32_t i = 0; i < s->n_segments; i++)
                free(s->buckets[i]);
        free(s->entry_pages);
        free(s->entry_free);
        free(s->buckets);
}

uint64_t bl_entries_memory(const struct bl_store *s)
{
        uint64_t page = sizeof(struct bl_entry_page) + BL_ENTRIES * sizeof(struct bl_meta) + sizeof(void *);

        return s->entry_n_pages * page + s->n_segments * (SEGMENT * sizeof(uint32_t) + sizeof(void *));
}

struct bl_entry *bl_entry_at(const struct bl_store *s, uint32_t n, struct bl_meta **ret_meta)
{
        struct bl_entry_page *p;

        if (n / BL_ENTRIES >= s->n_entry_pages)
                return NULL;
        p = s->entry_pages[n / BL_ENTRIES];
        if (!p)
                return NULL;
        *ret_meta = &p->meta[n % BL_ENTRIES];
        return &p->entries[n % BL_ENTRIES];
}

static struct bl_entry_page *page_new(struct bl_store *s, uint32_t page)
{
        struct bl_entry_page *p = calloc(1, sizeof(*p) + BL_ENTRIES * sizeof(struct bl_meta));

        if (!p)
                return NULL;
        p->entries = bl_page_at(s, page);
        p->page = page;
        for (uint32_t i = 0; i < BL_ENTRIES; i++)
                p->meta[i] = (struct bl_meta){.next = i + 1, .owner = BL_NO_OWNER};
        return p;
}

static void set_free(struct bl_store *s, uint32_t i, bool has_free)
{
        if (!has_free) {
                s->entry_free[i / 64] &= ~(UINT64_C(1) << i % 64);
                return;
        }
        s->entry_free[i / 64] |= UINT64_C(1) << i % 64;
        if (i / 64 < s->entry_hint)
                s->entry_hint = i / 64;
}

/* The directory's page for entry page i; 0: no room. */
static uint32_t middle(struct bl_store *s, uint32_t i)
{
        uint32_t *word = &s->directory[i / BL_NODE];

        if (*word == 0) {
                uint32_t page = bl_pages_take_one(s, bl_map_tag(BL_PAGE_NODE, BL_EXPORTS, i / BL_NODE));

                if (page == 0)
                        return 0;
                memset(bl_page_at(s, page), 0, BL_STORE_PAGE);
                __atomic_store_n(word, page, __ATOMIC_RELEASE);
                s->table_pages++;
        }
        return *word;
}

static uint32_t *directory_word(const struct bl_store *s, uint32_t i)
{
        return (uint32_t *)bl_page_at(s, s->directory[i / BL_NODE]) + i % BL_NODE;
}

static bool add_page(struct bl_store *s)
{
        struct bl_entry_page *p;
        uint32_t i = 0, page;

        while (i < s->n_entry_pages && s->entry_pages[i])
                i++;
        if (i >= s->n_pages || i >= BL_NODE * BL_NODE || middle(s, i) == 0)
                return false;
        page = bl_pages_take_one(s, bl_map_tag(BL_PAGE_ENTRIES, 0, i));
        if (page == 0)
                return false;
        p = page_new(s, page);
        if (!p) {
                bl_pages_give(s, page, 1);
                return false;
        }
        s->entry_pages[i] = p;
        if (i >= s->n_entry_pages)
                s->n_entry_pages = i + 1;
        s->entry_n_pages++;
        s->n_free_entries += BL_ENTRIES;
        set_free(s, i, true);
        __atomic_store_n(directory_word(s, i), page, __ATOMIC_RELEASE);
        return true;
}

static void drop_page(struct bl_store *s, uint32_t i)
{
        struct bl_entry_page *p = s->entry_pages[i];

        __atomic_store_n(directory_word(s, i), 0, __ATOMIC_RELEASE);
        set_free(s, i, false);
        s->entry_pages[i] = NULL;
        s->entry_n_pages--;
        s->n_free_entries -= BL_ENTRIES;
        bl_pages_give(s, p->page, 1);
        free(p);
}

uint32_t bl_entry_take(struct bl_store *s)
{
        uint32_t words = (s->n_pages + 63) / 64, i, at;
        struct bl_entry_page *p;

        if (s->n_free_entries == 0 && !add_page(s))
                return BL_NONE;
        while (s->entry_hint < words && s->entry_free[s->entry_hint] == 0)
                s->entry_hint++;
        i = s->entry_hint * 64 + (uint32_t)__builtin_ctzll(s->entry_free[s->entry_hint]);
        p = s->entry_pages[i];
        at = p->free;
        p->free = (uint16_t)p->meta[at].next;
        p->used++;
        s->n_free_entries--;
        set_free(s, i, p->free < BL_ENTRIES);
        p->meta[at] = (struct bl_meta){.next = BL_NONE, .pins = 1, .owner = BL_NO_OWNER};
        /* what it was before says nothing about it now */
        __atomic_store_n(&p->entries[at].location, 0, __ATOMIC_RELEASE);
        return i * BL_ENTRIES + at;
}

void bl_entry_fill(struct bl_store *s, uint32_t n, uint64_t place, uint64_t hash, uint32_t size, uint16_t group)
{
        struct bl_meta *m;
        struct bl_entry *e = known(s, n, &m);

        e->hash = hash;
        e->size = (uint16_t)size;
        e->group = group;
        e->age = s->clock;
        __atomic_store_n(&e->location, bl_location(place, false, n, e), __ATOMIC_RELEASE);
        s->payload += size;
        s->unique++;
        s->group_uses[group]++;
        hash_add(s, n);
}

/* --- references --------------------------------------------------------------------------------------------------- */

static bool in_ram(uint32_t n, const struct bl_entry *e)
{
        return bl_location_ok(e->location, n, e) && !(e->location & BL_LOCATION_DISK);
}

static void uncharge(struct bl_store *s, uint32_t n, const struct bl_entry *e, struct bl_meta *m)
{
        struct bl_export *x = m->owner < BL_EXPORTS ? s->exports[m->owner] : NULL;

        if (x && in_ram(n, e))
                x->charge = bl_sub_sat(x->charge, bl_spans_object_size(s, e->size));
}

static void free_place(struct bl_store *s, uint32_t n, const struct bl_entry *e, uint64_t location)
{
        uint64_t place = location & BL_PLACE_MASK;

        /* what is damaged leads nowhere: it is lost until the pool is opened again */
        if (!bl_location_ok(location, n, e))
                return;
        if (location & BL_LOCATION_DISK) {
                s->disk_used = bl_sub_sat(s->disk_used, e->size);
                bl_disk_free(s->disk, place, e->size);
                return;
        }
        s->payload = bl_sub_sat(s->payload, e->size);
        bl_spans_give(s, place);
}

static void put(struct bl_store *s, uint32_t n)
{
        struct bl_entry_page *p = s->entry_pages[n / BL_ENTRIES];
        uint32_t i = n % BL_ENTRIES;
        struct bl_meta *m = &p->meta[i];
        const struct bl_entry *e = &p->entries[i];

        if (m->refs > 0 || m->pins > 0)
                return;
        if (e->location != 0) {
                uncharge(s, n, e, m);
                if (m->hashed)
                        hash_remove(s, n);
                s->unique--;
                if (e->group < BL_GROUPS && s->group_uses[e->group] > 0)
                        s->group_uses[e->group]--;
                free_place(s, n, e, e->location);
        }
        *m = (struct bl_meta){.next = p->free, .owner = BL_NO_OWNER};
        p->free = (uint16_t)i;
        p->used--;
        s->n_free_entries++;
        set_free(s, n / BL_ENTRIES, true);
        if (p->used == 0 && s->n_free_entries >= UINT64_C(3) * BL_ENTRIES)
                drop_page(s, n / BL_ENTRIES);
}

void bl_entry_pin(struct bl_store *s, uint32_t n)
{
        struct bl_meta *m;
        struct bl_entry *e = known(s, n, &m);

        m->pins++;
        if (e->age != s->clock)
                e->age = s->clock;
}

void bl_entry_unpin(struct bl_store *s, uint32_t n)
{
        struct bl_meta *m;

        known(s, n, &m);
        m->pins--;
        put(s, n);
}

void bl_entry_ref(struct bl_store *s, uint32_t n, uint16_t owner)
{
        struct bl_meta *m;
        const struct bl_entry *e = known(s, n, &m);

        m->refs++;
        if (m->owner != BL_NO_OWNER)
                return;
        m->owner = owner;
        if (s->exports[owner] && in_ram(n, e))
                s->exports[owner]->charge += bl_spans_object_size(s, e->size);
}

bool bl_entry_is(const struct bl_store *s, uint64_t word)
{
        struct bl_meta *m;
        const struct bl_entry *e = bl_entry_at(s, bl_slot_entry(word), &m);

        return e && m->refs > 0 && bl_slot_fits(word, e->hash);
}

void bl_entry_unref(struct bl_store *s, uint64_t word, uint16_t from)
{
        uint32_t n = bl_slot_entry(word);
        const struct bl_entry *e;
        struct bl_meta *m;

        if (!bl_entry_is(s, word))
                return;
        e = known(s, n, &m);
        if (m->owner == from) {
                /* who refers to it next pays */
                uncharge(s, n, e, m);
                m->owner = BL_NO_OWNER;
        }
        m->refs--;
        put(s, n);
}

void bl_entry_flip(struct bl_store *s, uint32_t n, uint64_t place, bool disk)
{
        struct bl_meta *m;
        struct bl_entry *e = known(s, n, &m);
        struct bl_export *x = m->owner < BL_EXPORTS ? s->exports[m->owner] : NULL;
        uint64_t old = e->location;

        uncharge(s, n, e, m);
        (void)bl_fault(BL_FAULT_STORE_MOVED);
        __atomic_store_n(&e->location, bl_location(place, disk, n, e), __ATOMIC_RELEASE);
        (void)bl_fault(BL_FAULT_STORE_FLIPPED);
        if (disk)
                s->disk_used += e->size;
        else
                s->payload += e->size;
        if (x && !disk)
                x->charge += bl_spans_object_size(s, e->size);
        free_place(s, n, e, old);
}

void bl_entry_expect(const struct bl_store *s, uint64_t word)
{
        struct bl_meta *m;
        const struct bl_entry *e = bl_slot_kind(word) == BL_SLOT_DATA ? bl_entry_at(s, bl_slot_entry(word), &m) : NULL;

        if (!e)
                return;
        __builtin_prefetch(m, 1);
        __builtin_prefetch(e);
}

void bl_entry_expect_load(const struct bl_store *s, uint32_t n)
{
        const struct bl_entry *e = &s->entry_pages[n / BL_ENTRIES]->entries[n % BL_ENTRIES];
        uint64_t location = __atomic_load_n(&e->location, __ATOMIC_RELAXED);
        uint64_t at = (location & BL_PLACE_MASK) * 16;

        if (location & BL_LOCATION_DISK || at / BL_STORE_PAGE >= s->n_pages)
                return;
        __builtin_prefetch(&s->pages[at / BL_STORE_PAGE]);
        for (uint32_t i = 0; i < e->size; i += LINE)
                __builtin_prefetch(s->arena->base + at + i);
}

int bl_entry_load(struct bl_store *s, uint32_t n, void *page, void *blob)
{
        /* it is pinned: so is its page */
        const struct bl_entry *e = &s->entry_pages[n / BL_ENTRIES]->entries[n % BL_ENTRIES];
        uint64_t location = __atomic_load_n(&e->location, __ATOMIC_ACQUIRE);
        uint64_t place = location & BL_PLACE_MASK;
        uint32_t size = e->size;
        const uint8_t *from;
        int r;

        if (!bl_location_ok(location, n, e) || size > BL_STORE_PAGE || e->group >= BL_GROUPS)
                return -EBADMSG;
        if (location & BL_LOCATION_DISK) {
                if (!s->disk)
                        return -EIO;
                __atomic_add_fetch(&s->disk_reads, 1, __ATOMIC_RELAXED);
                r = bl_disk_read(s->disk, place, size, blob);
                if (r == -ETIMEDOUT)
                        bl_tier_disk_did(s, r);
                if (r < 0)
                        return r;
                from = blob;
        } else {
                from = bl_spans_at(s, place, size);
                if (!from)
                        return -EBADMSG;
        }
        r = bl_codec_decompress(from, size, page);
        if (r < 0)
                return r;
        return bl_codec_hash(page, s->groups[e->group].seed) == e->hash ? 0 : -EBADMSG;
}

/* --- recovery ------------------------------------------------------------------------------------------------------
 */

int bl_entries_load(struct bl_store *s)
{
        for (uint32_t k = 0; k < BL_NODE; k++) {
                uint32_t *words, page = s->directory[k];

                if (page == 0)
                        continue;
                if (!bl_pages_claim(s, page, bl_map_tag(BL_PAGE_NODE, BL_EXPORTS, k))) {
                        s->directory[k] = 0;
                        continue;
                }
                s->table_pages++;
                words = bl_page_at(s, page);
                for (uint32_t j = 0; j < BL_NODE; j++) {
                        uint32_t i = k * BL_NODE + j;

                        if (words[j] == 0)
                                continue;
                        if (i >= s->n_pages || !bl_pages_claim(s, words[j], bl_map_tag(BL_PAGE_ENTRIES, 0, i))) {
                                words[j] = 0;
                                continue;
                        }
                        s->entry_pages[i] = page_new(s, words[j]);
                        if (!s->entry_pages[i])
                                return -ENOMEM;
                        s->n_entry_pages = i + 1;
                        s->entry_n_pages++;
                }
        }
        return 0;
}

bool bl_entry_claim(struct bl_store *s, uint64_t word, uint16_t owner)
{
        uint32_t n = bl_slot_entry(word);
        struct bl_meta *m;
        struct bl_entry *e = bl_entry_at(s, n, &m);
        uint64_t place;

        if (!e || !bl_slot_fits(word, e->hash) || !bl_location_ok(e->location, n, e) || e->size == 0 ||
            e->size > BL_STORE_PAGE || e->group >= BL_GROUPS || s->groups[e->group].seed == 0)
                return false;
        if (m->refs == 0) {
                place = e->location & BL_PLACE_MASK;
                if (e->location & BL_LOCATION_DISK) {
                        if (!s->disk || bl_disk_claim(s->disk, place, e->size, n) < 0)
                                return false;
                        s->disk_used += e->size;
                } else {
                        if (!bl_spans_claim(s, place, e->size))
                                return false;
                        s->payload += e->size;
                }
                m->next = BL_NONE;
                s->unique++;
                s->group_uses[e->group]++;
                hash_add(s, n);
        }
        bl_entry_ref(s, n, owner);
        return true;
}

void bl_entries_sweep(struct bl_store *s)
{
        s->entry_hint = (s->n_pages + 63) / 64;
        for (uint32_t i = 0; i < s->n_entry_pages; i++) {
                struct bl_entry_page *p = s->entry_pages[i];

                if (!p)
                        continue;
                p->used = 0;
                p->free = (uint16_t)BL_ENTRIES;
                for (uint32_t j = BL_ENTRIES; j-- > 0;) {
                        if (p->meta[j].refs > 0) {
                                p->used++;
                                continue;
                        }
                        p->meta[j].next = p->free;
                        p->free = (uint16_t)j;
                }
                s->n_free_entries += BL_ENTRIES - p->used;
                set_free(s, i, p->free < BL_ENTRIES);
                if (p->used == 0)
                        drop_page(s, i);
        }
}
