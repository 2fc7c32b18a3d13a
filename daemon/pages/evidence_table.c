// SPDX-License-Identifier: LGPL-2.1-or-later
/* The hash table, and lists that go through its records. */
#include "daemon/pages/evidence_table.h"

#include <string.h>

/* --- the hash table ------------------------------------------------------------------------ */

#define FRAME_SALT UINT64_C(0x9e3779b97f4a7c15)
#define PIECE_SALT UINT64_C(0xd1b54a32d192ed03)

static uint64_t frame_key(uint64_t frame)
{
        return bl_ev_mix(frame ^ FRAME_SALT);
}

static uint64_t piece_key(uint16_t vm, uint32_t index)
{
        return bl_ev_mix(((uint64_t)vm << 32 | index) ^ PIECE_SALT);
}

static uint64_t key_of(const struct bl_evidence *e, bl_ev_ref r)
{
        const struct bl_ev_piece *p;
        unsigned k;

        switch (bl_ev_kind(r)) {
        case BL_EV_PAGE:
                p = bl_ev_piece_of(e, r, &k);
                return bl_ev_mix(p->what[k]);
        case BL_EV_GROUP:
                return bl_ev_mix(bl_ev_group(e, r & BL_EV_INDEX)->hash);
        case BL_EV_FRAME:
                return frame_key(bl_ev_frame(e, r & BL_EV_INDEX)->frame);
        case BL_EV_PIECE:
                p = bl_ev_piece(e, r & BL_EV_INDEX);
                return piece_key(p->vm, p->index);
        }
        return 0;
}

static bl_ev_ref *chain_of(const struct bl_evidence *e, bl_ev_ref r)
{
        struct bl_ev_piece *p;
        unsigned k;

        switch (bl_ev_kind(r)) {
        case BL_EV_PAGE:
                p = bl_ev_piece_of(e, r, &k);
                return &p->next[k];
        case BL_EV_GROUP:
                return &bl_ev_group(e, r & BL_EV_INDEX)->chain;
        case BL_EV_FRAME:
                return &bl_ev_frame(e, r & BL_EV_INDEX)->chain;
        case BL_EV_PIECE:
                return &bl_ev_piece(e, r & BL_EV_INDEX)->chain;
        }
        return NULL;
}

/* Where its key is. */
static const void *record_of(const struct bl_evidence *e, bl_ev_ref r)
{
        unsigned k;

        if (bl_ev_kind(r) == BL_EV_PAGE)
                return &bl_ev_piece_of(e, r, &k)->what[r % BL_EVIDENCE_PIECE];
        return chain_of(e, r);
}

static bl_ev_ref *bucket(const struct bl_evidence *e, uint64_t key)
{
        uint32_t b = (uint32_t)key & e->mask;

        if (b < e->split)
                b = (uint32_t)key & (2 * e->mask + 1);
        return bl_ev_pool_at(&e->heads, b);
}

/* One bucket more, as long as there are more entries than buckets and there is room for it. */
static void grow(struct bl_evidence *e)
{
        uint32_t fresh = e->mask + 1 + e->split;
        bl_ev_ref *from, *to;

        if (e->entries <= fresh || fresh >= BL_EV_INDEX || !bl_ev_pool_spare(&e->heads, 1, &e->memory))
                return;
        (void)bl_ev_pool_take(&e->heads);
        from = bl_ev_pool_at(&e->heads, e->split);
        to = bl_ev_pool_at(&e->heads, fresh);
        *to = BL_EV_NONE;
        while (*from != BL_EV_NONE) {
                bl_ev_ref r = *from, *chain = chain_of(e, r);

                if (key_of(e, r) & (e->mask + 1)) {
                        *from = *chain;
                        *chain = *to;
                        *to = r;
                } else {
                        from = chain;
                }
        }
        if (++e->split > e->mask) {
                e->mask = 2 * e->mask + 1;
                e->split = 0;
        }
}

void bl_ev_chain_add(struct bl_evidence *e, bl_ev_ref r)
{
        bl_ev_ref *head = bucket(e, key_of(e, r));

        *chain_of(e, r) = *head;
        *head = r;
        e->entries++;
        grow(e);
}

void bl_ev_chain_remove(struct bl_evidence *e, bl_ev_ref r)
{
        bl_ev_ref *at = bucket(e, key_of(e, r));

        while (*at != r)
                at = chain_of(e, *at);
        *at = *chain_of(e, r);
        e->entries--;
}

uint32_t bl_ev_find_piece(const struct bl_evidence *e, uint16_t vm, uint32_t index)
{
        for (bl_ev_ref r = *bucket(e, piece_key(vm, index)); r != BL_EV_NONE; r = *chain_of(e, r))
                if (bl_ev_kind(r) == BL_EV_PIECE) {
                        const struct bl_ev_piece *p = bl_ev_piece(e, r & BL_EV_INDEX);

                        if (p->vm == vm && p->index == index)
                                return r & BL_EV_INDEX;
                }
        return BL_EV_NONE;
}

uint32_t bl_ev_find_frame(const struct bl_evidence *e, uint64_t frame)
{
        for (bl_ev_ref r = *bucket(e, frame_key(frame)); r != BL_EV_NONE; r = *chain_of(e, r))
                if (bl_ev_kind(r) == BL_EV_FRAME && bl_ev_frame(e, r & BL_EV_INDEX)->frame == frame)
                        return r & BL_EV_INDEX;
        return BL_EV_NONE;
}

bl_ev_ref bl_ev_find_content(const struct bl_evidence *e, uint64_t hash)
{
        unsigned k;

        for (bl_ev_ref r = *bucket(e, bl_ev_mix(hash)); r != BL_EV_NONE; r = *chain_of(e, r)) {
                if (bl_ev_kind(r) == BL_EV_PAGE && bl_ev_piece_of(e, r, &k)->what[k] == hash)
                        return r;
                if (bl_ev_kind(r) == BL_EV_GROUP && bl_ev_group(e, r & BL_EV_INDEX)->hash == hash)
                        return r;
        }
        return BL_EV_NONE;
}

void bl_ev_prefetch(const struct bl_evidence *e, const struct bl_ev_look *look, bool deep)
{
        for (unsigned k = 0; k < look->n; k++) {
                const bl_ev_ref *head;

                if (look->state[k] == BL_PAGE_PRESENT)
                        head = bucket(e, bl_ev_mix(look->what[k]));
                else if (look->state[k] == BL_PAGE_MERGED)
                        head = bucket(e, frame_key(look->what[k]));
                else
                        continue;
                if (!deep)
                        __builtin_prefetch(head);
                else if (*head != BL_EV_NONE)
                        __builtin_prefetch(record_of(e, *head));
        }
}

/* --- lists --------------------------------------------------------------- */

static void links(const struct bl_evidence *e, bl_ev_ref r, bl_ev_ref **ret_next, bl_ev_ref **ret_prev)
{
        unsigned k;

        if (bl_ev_kind(r) == BL_EV_PAGE) {
                struct bl_ev_piece *p = bl_ev_piece_of(e, r, &k);

                *ret_next = &p->next[k];
                *ret_prev = &p->prev[k];
        } else {
                struct bl_ev_frame *f = bl_ev_frame(e, r & BL_EV_INDEX);

                *ret_next = &f->next;
                *ret_prev = &f->prev;
        }
}

bl_ev_ref bl_ev_next(const struct bl_evidence *e, bl_ev_ref member)
{
        bl_ev_ref *next, *prev;

        links(e, member, &next, &prev);
        return *next;
}

void bl_ev_list_add(const struct bl_evidence *e, bl_ev_ref *head, bl_ev_ref r)
{
        bl_ev_ref *next, *prev, *n, *p;

        links(e, r, &next, &prev);
        *next = *head;
        *prev = BL_EV_NONE;
        if (*head != BL_EV_NONE) {
                links(e, *head, &n, &p);
                *p = r;
        }
        *head = r;
}

void bl_ev_list_remove(const struct bl_evidence *e, bl_ev_ref *head, bl_ev_ref r)
{
        bl_ev_ref *next, *prev, *n, *p;

        links(e, r, &next, &prev);
        if (*next != BL_EV_NONE) {
                links(e, *next, &n, &p);
                *p = *prev;
        }
        if (*prev != BL_EV_NONE) {
                links(e, *prev, &n, &p);
                *n = *next;
        } else {
                *head = *next;
        }
}

/* --- all of it ----------------------------------------------------------------------------------- */

int bl_ev_table_init(struct bl_evidence *e)
{
        bl_ev_pool_init(&e->pieces, sizeof(struct bl_ev_piece), 6);
        bl_ev_pool_init(&e->groups, sizeof(struct bl_ev_group), 8);
        bl_ev_pool_init(&e->frames, sizeof(struct bl_ev_frame), 7);
        bl_ev_pool_init(&e->heads, sizeof(bl_ev_ref), 12);
        e->due = e->unread = (struct bl_ev_queue){BL_EV_NONE, BL_EV_NONE};
        if (!bl_ev_pool_spare(&e->pieces, 1, &e->memory) || !bl_ev_pool_spare(&e->groups, 1, &e->memory) ||
            !bl_ev_pool_spare(&e->frames, 1, &e->memory) || !bl_ev_pool_spare(&e->heads, 1, &e->memory))
                return -ENOMEM;
        for (uint32_t i = 0; i <= e->mask; i++)
                *(bl_ev_ref *)bl_ev_pool_at(&e->heads, bl_ev_pool_take(&e->heads)) = BL_EV_NONE;
        return 0;
}

void bl_ev_table_done(struct bl_evidence *e)
{
        bl_ev_pool_free(&e->pieces, &e->memory);
        bl_ev_pool_free(&e->groups, &e->memory);
        bl_ev_pool_free(&e->frames, &e->memory);
        bl_ev_pool_free(&e->heads, &e->memory);
}
