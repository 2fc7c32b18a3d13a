// SPDX-License-Identifier: LGPL-2.1-or-later
/* An export's slot words: tables of them below a tree of page numbers. */
#include "daemon/store/internal.h"

#include <string.h>

int bl_slots_init(struct bl_export *e)
{
        e->n_tables = (uint32_t)((e->size / BL_STORE_PAGE + BL_TABLE - 1) / BL_TABLE);
        e->n_nodes = (e->n_tables + BL_NODE - 1) / BL_NODE;
        e->tables = calloc(e->n_tables + 1, sizeof(*e->tables));
        e->nodes = calloc(e->n_nodes + 1, sizeof(*e->nodes));
        return e->tables && e->nodes ? 0 : -ENOMEM;
}

/* Tags of the map: the upper node, then the lower ones, then the tables. */
static uint32_t node_word(const struct bl_export *e, uint32_t i)
{
        return bl_map_tag(BL_PAGE_NODE, e->index, i);
}

static uint32_t table_word(const struct bl_export *e, uint32_t i)
{
        return bl_map_tag(BL_PAGE_TABLE, e->index, i);
}

/* A zeroed page whose number is then published at *where. */
static uint32_t add(struct bl_store *s, uint32_t word, uint32_t *where)
{
        uint32_t page = bl_pages_take_one(s, word);

        if (page == 0)
                return 0;
        memset(bl_page_at(s, page), 0, BL_STORE_PAGE);
        __atomic_store_n(where, page, __ATOMIC_RELEASE);
        s->table_pages++;
        return page;
}

static bool create_table(struct bl_export *e, uint32_t t)
{
        struct bl_store *s = e->store;
        uint32_t *upper, *lower;

        if (e->record->root == 0 && add(s, node_word(e, BL_NODE), &e->record->root) == 0)
                return false;
        upper = bl_page_at(s, e->record->root);
        if (e->nodes[t / BL_NODE] == 0) {
                e->nodes[t / BL_NODE] = add(s, node_word(e, t / BL_NODE), &upper[t / BL_NODE]);
                if (e->nodes[t / BL_NODE] == 0)
                        return false;
        }
        lower = bl_page_at(s, e->nodes[t / BL_NODE]);
        e->tables[t] = add(s, table_word(e, t), &lower[t % BL_NODE]);
        return e->tables[t] != 0;
}

uint64_t *bl_slots_at(struct bl_export *e, uint64_t slot, bool create)
{
        uint32_t t = (uint32_t)(slot / BL_TABLE);

        if (e->tables[t] == 0 && (!create || !create_table(e, t)))
                return NULL;
        return (uint64_t *)bl_page_at(e->store, e->tables[t]) + slot % BL_TABLE;
}

uint64_t bl_slots_get(struct bl_export *e, uint64_t slot)
{
        const uint64_t *word = bl_slots_at(e, slot, false);
        uint64_t v = word ? __atomic_load_n(word, __ATOMIC_ACQUIRE) : BL_SLOT_HOLE;

        return v == BL_SLOT_HOLE && e->record->lost ? bl_slot_word(BL_SLOT_LOST, 0, 0) : v;
}

static void count(struct bl_export *e, uint64_t word, bool add_it)
{
        struct bl_store *s = e->store;
        uint64_t d = add_it ? 1 : UINT64_MAX;

        if (bl_slot_kind(word) == BL_SLOT_DATA) {
                e->held += d;
                s->held += d;
        } else if (bl_slot_kind(word) == BL_SLOT_ZERO) {
                e->zero += d;
                s->zero += d;
        }
}

void bl_slots_set(struct bl_export *e, uint64_t slot, uint64_t to)
{
        struct bl_store *s = e->store;
        uint64_t *word = bl_slots_at(e, slot, false), old = *word;
        struct bl_page *table = &s->pages[e->tables[slot / BL_TABLE]];

        if (bl_slot_kind(to) == BL_SLOT_DATA)
                bl_entry_ref(s, bl_slot_entry(to), e->index);
        __atomic_store_n(word, to, __ATOMIC_RELEASE);
        (void)bl_fault(BL_FAULT_STORE_COMMITTED);
        table->used = (uint16_t)(table->used + (to != BL_SLOT_HOLE) - (old != BL_SLOT_HOLE));
        count(e, to, true);
        count(e, old, false);
        if (bl_slot_kind(old) == BL_SLOT_DATA)
                bl_entry_unref(s, old, e->index);
        (void)bl_fault(BL_FAULT_STORE_DROPPED);
}

static void drop_table(struct bl_export *e, uint32_t t)
{
        struct bl_store *s = e->store;
        uint32_t *lower = bl_page_at(s, e->nodes[t / BL_NODE]);

        (void)bl_fault(BL_FAULT_STORE_TABLE);
        __atomic_store_n(&lower[t % BL_NODE], 0, __ATOMIC_RELEASE);
        bl_pages_give(s, e->tables[t], 1);
        e->tables[t] = 0;
        s->table_pages--;
}

void bl_slots_tidy(struct bl_export *e, uint64_t slot)
{
        uint32_t t = (uint32_t)(slot / BL_TABLE);

        if (e->tables[t] != 0 && e->store->pages[e->tables[t]].used == 0)
                drop_table(e, t);
}

void bl_slots_drop(struct bl_export *e)
{
        struct bl_store *s = e->store;

        for (uint32_t t = 0; t < e->n_tables; t++) {
                uint64_t slot = (uint64_t)t * BL_TABLE;

                if (e->tables[t] == 0)
                        continue;
                for (uint32_t i = 0; i < BL_TABLE; i++)
                        if (*bl_slots_at(e, slot + i, false) != BL_SLOT_HOLE)
                                bl_slots_set(e, slot + i, BL_SLOT_HOLE);
                drop_table(e, t);
                pthread_mutex_unlock(&s->lock);
                pthread_mutex_lock(&s->lock);
        }
        for (uint32_t i = 0; i < e->n_nodes; i++) {
                if (e->nodes[i] == 0)
                        continue;
                bl_pages_give(s, e->nodes[i], 1);
                e->nodes[i] = 0;
                s->table_pages--;
        }
        if (e->record->root != 0) {
                bl_pages_give(s, e->record->root, 1);
                e->record->root = 0;
                s->table_pages--;
        }
}

/* --- recovery ------------------------------------------------------------------------------------------------------
 */

/* A page that the tree refers to; what cannot be it is forgotten, and then no hole is known for one. */
static uint32_t claim(struct bl_export *e, uint32_t *where, uint32_t word)
{
        if (*where == 0)
                return 0;
        if (!bl_pages_claim(e->store, *where, word)) {
                e->record->lost = 1;
                __atomic_store_n(where, 0, __ATOMIC_RELEASE);
                return 0;
        }
        e->store->table_pages++;
        return *where;
}

void bl_slots_load(struct bl_export *e)
{
        struct bl_store *s = e->store;
        uint32_t *upper;

        if (claim(e, &e->record->root, node_word(e, BL_NODE)) == 0)
                return;
        upper = bl_page_at(s, e->record->root);
        for (uint32_t i = 0; i < e->n_nodes; i++) {
                uint32_t *lower;

                e->nodes[i] = claim(e, &upper[i], node_word(e, i));
                if (e->nodes[i] == 0)
                        continue;
                lower = bl_page_at(s, e->nodes[i]);
                for (uint32_t j = 0; j < BL_NODE && i * BL_NODE + j < e->n_tables; j++)
                        e->tables[i * BL_NODE + j] = claim(e, &lower[j], table_word(e, i * BL_NODE + j));
        }
}

void bl_slots_claim(struct bl_export *e)
{
        struct bl_store *s = e->store;

        for (uint32_t t = 0; t < e->n_tables; t++) {
                uint64_t *words;

                if (e->tables[t] == 0)
                        continue;
                words = bl_page_at(s, e->tables[t]);
                for (uint32_t i = 0; i < BL_TABLE; i++) {
                        uint64_t kind = bl_slot_kind(words[i]);

                        if (words[i] == BL_SLOT_HOLE)
                                continue;
                        if (kind == BL_SLOT_DATA ? !bl_entry_claim(s, words[i], e->index)
                                                 : kind != BL_SLOT_ZERO && kind != BL_SLOT_LOST) {
                                words[i] = bl_slot_word(BL_SLOT_LOST, 0, 0);
                                e->errors++;
                                s->errors++;
                        }
                        count(e, words[i], true);
                        s->pages[e->tables[t]].used++;
                }
        }
}
