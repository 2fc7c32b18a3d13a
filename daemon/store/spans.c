// SPDX-License-Identifier: LGPL-2.1-or-later
/* Size classes in spans of 1 to 10 pages, the length that wastes least (Linux mm/zsmalloc.c). */
#include "daemon/store/internal.h"

/* A class has one span that is half empty on the average, which long ones make more of: its objects, of which a
 * small pool has so many in a class, bear that too. */
#define SHARE_OF_LAST 500U

static uint32_t best_length(uint32_t size)
{
        uint32_t best = 1;
        uint64_t least = UINT64_MAX;

        for (uint32_t n = 1; n <= BL_SPAN_MAX; n++) {
                uint64_t bytes = (uint64_t)n * BL_STORE_PAGE * 1000000;
                /* of an object, in millionths of a byte */
                uint64_t cost = bytes / (n * BL_STORE_PAGE / size) + bytes / 2 / SHARE_OF_LAST;

                if (cost < least) {
                        best = n;
                        least = cost;
                }
        }
        return best;
}

static void add_class(struct bl_store *s, uint32_t size, uint32_t pages)
{
        s->classes[s->n_classes] = (struct bl_class){
                .size = size,
                .pages = pages,
                .objects = pages * BL_STORE_PAGE / size,
        };
        for (uint32_t f = 0; f < BL_FULLNESS; f++)
                s->classes[s->n_classes].heads[f] = BL_NONE;
        s->n_classes++;
}

/* From the largest down: a size that has as many objects in as many pages as the one above is merged into it. */
void bl_spans_init(struct bl_store *s)
{
        uint32_t biggest = BL_STORE_PAGE / 16;

        s->n_classes = 0;
        add_class(s, BL_STORE_PAGE, 1);
        for (uint32_t i = biggest; i > BL_OBJECT_MAX / 16; i--)
                s->class_of[i] = 0;
        for (uint32_t size = BL_OBJECT_MAX; size >= BL_OBJECT_MIN; size -= 16) {
                uint32_t pages = best_length(size), n = pages * BL_STORE_PAGE / size;
                const struct bl_class *last = &s->classes[s->n_classes - 1];

                if (last->pages != pages || last->objects != n)
                        add_class(s, size, pages);
                s->class_of[size / 16] = (uint8_t)(s->n_classes - 1);
        }
        for (uint32_t i = 0; i < BL_OBJECT_MIN / 16; i++)
                s->class_of[i] = (uint8_t)(s->n_classes - 1);
}

static uint32_t class_for(const struct bl_store *s, uint32_t size)
{
        return s->class_of[(size + 15) / 16];
}

uint32_t bl_spans_object_size(const struct bl_store *s, uint32_t size)
{
        return s->classes[class_for(s, size)].size;
}

/* Objects of a span: a short one, where no longer run of pages was free, has fewer. */
static uint32_t objects_of(const struct bl_class *c, const struct bl_page *head)
{
        return head->len * BL_STORE_PAGE / c->size;
}

static void list_remove(struct bl_store *s, struct bl_class *c, uint32_t head)
{
        struct bl_page *p = &s->pages[head];

        if (p->list == BL_FULLNESS)
                return;
        if (p->prev == BL_NONE)
                c->heads[p->list] = p->next;
        else
                s->pages[p->prev].next = p->next;
        if (p->next != BL_NONE)
                s->pages[p->next].prev = p->prev;
        p->list = BL_FULLNESS;
}

/* Puts the span where it belongs now. */
static void list_update(struct bl_store *s, struct bl_class *c, uint32_t head)
{
        struct bl_page *p = &s->pages[head];
        uint32_t n = objects_of(c, p);
        uint8_t to = (uint8_t)(p->used == n || p->leaving ? BL_FULLNESS : p->used * BL_FULLNESS / n);

        if (to == p->list)
                return;
        list_remove(s, c, head);
        if (to == BL_FULLNESS)
                return;
        p->list = to;
        p->prev = BL_NONE;
        p->next = c->heads[to];
        if (p->next != BL_NONE)
                s->pages[p->next].prev = head;
        c->heads[to] = head;
}

static void set_taken(struct bl_store *s, uint32_t head, uint32_t i)
{
        s->pages[head + i / 64].taken |= UINT64_C(1) << i % 64;
        s->pages[head].used++;
}

static uint32_t first_free(const struct bl_store *s, uint32_t head, uint32_t n)
{
        for (uint32_t i = 0; i < n; i += 64) {
                uint64_t taken = s->pages[head + i / 64].taken;

                if (~taken && i + (uint32_t)__builtin_ctzll(~taken) < n)
                        return i + (uint32_t)__builtin_ctzll(~taken);
        }
        return n;
}

uint64_t bl_spans_take(struct bl_store *s, uint32_t size)
{
        uint32_t k = class_for(s, size), head = BL_NONE, i;
        struct bl_class *c = &s->classes[k];

        for (uint32_t f = BL_FULLNESS; f-- > 0 && head == BL_NONE;)
                head = c->heads[f];
        if (head == BL_NONE) {
                head = bl_pages_take(s, c->pages, k);
                if (head == 0 && c->pages > 1)
                        head = bl_pages_take(s, 1, k);
                if (head == 0)
                        return 0;
                s->span_pages += s->pages[head].len;
                c->spans += s->pages[head].len;
        }
        i = first_free(s, head, objects_of(c, &s->pages[head]));
        set_taken(s, head, i);
        c->used++;
        list_update(s, c, head);
        return ((uint64_t)head * BL_STORE_PAGE + (uint64_t)i * c->size) / 16;
}

/* The span and number of the object at a place; false: there can be none. */
static bool find(const struct bl_store *s, uint64_t place, uint32_t *ret_head, uint32_t *ret_i)
{
        uint64_t at = place * 16, page = at / BL_STORE_PAGE;
        const struct bl_class *c;
        uint32_t head, offset;

        if (page < s->first || page >= s->n_pages || s->pages[page].kind != BL_PAGE_SPAN)
                return false;
        head = (uint32_t)page - s->pages[page].pos;
        c = &s->classes[s->pages[page].class];
        offset = (uint32_t)(at - (uint64_t)head * BL_STORE_PAGE);
        if (offset % c->size != 0 || offset / c->size >= objects_of(c, &s->pages[head]))
                return false;
        *ret_head = head;
        *ret_i = offset / c->size;
        return true;
}

void bl_spans_give(struct bl_store *s, uint64_t place)
{
        uint32_t head, i;
        struct bl_class *c;
        struct bl_page *p;

        if (!find(s, place, &head, &i) || !(s->pages[head + i / 64].taken & UINT64_C(1) << i % 64))
                return;
        p = &s->pages[head];
        c = &s->classes[p->class];
        s->pages[head + i / 64].taken &= ~(UINT64_C(1) << i % 64);
        p->used--;
        c->used--;
        if (p->used > 0) {
                list_update(s, c, head);
                return;
        }
        list_remove(s, c, head);
        s->span_pages -= p->len;
        c->spans -= p->len;
        bl_pages_give(s, head, p->len);
}

const uint8_t *bl_spans_at(const struct bl_store *s, uint64_t place, uint32_t size)
{
        uint32_t head, i;

        if (!find(s, place, &head, &i) || s->classes[s->pages[head].class].size < size)
                return NULL;
        return s->arena->base + place * 16;
}

/* Takes the span's pages where they are not taken yet: all its words in the map must agree. */
static bool claim_span(struct bl_store *s, uint32_t page)
{
        uint32_t word = s->map[page], class = word >> 8 & 0xff, pos = word >> 16 & 0xff, len = word >> 24, head;

        if ((word & 0xff) != BL_PAGE_SPAN || class >= s->n_classes || pos >= len || pos > page ||
            (len != s->classes[class].pages && len != 1))
                return false;
        head = page - pos;
        if (head < s->first || head + len > s->n_pages)
                return false;
        for (uint32_t i = 0; i < len; i++)
                if (s->map[head + i] != bl_map_span(class, i, len) ||
                    !(s->free_map[(head + i) / 64] & UINT64_C(1) << (head + i) % 64))
                        return false;
        for (uint32_t i = 0; i < len; i++)
                if (!bl_pages_claim(s, head + i, bl_map_span(class, i, len)))
                        return false;
        s->span_pages += len;
        s->classes[class].spans += len;
        return true;
}

bool bl_spans_claim(struct bl_store *s, uint64_t place, uint32_t size)
{
        uint64_t page = place * 16 / BL_STORE_PAGE;
        uint32_t head, i;

        if (page < s->first || page >= s->n_pages)
                return false;
        if (s->pages[page].kind == BL_PAGE_FREE && !claim_span(s, (uint32_t)page))
                return false;
        if (!find(s, place, &head, &i) || s->classes[s->pages[head].class].size < size ||
            s->pages[head + i / 64].taken & UINT64_C(1) << i % 64)
                return false;
        set_taken(s, head, i);
        s->classes[s->pages[head].class].used++;
        list_update(s, &s->classes[s->pages[head].class], head);
        return true;
}

/* Of each class, the emptiest spans as far as what they hold fits into the free objects of the others. */
uint32_t bl_spans_evacuate(struct bl_store *s, uint32_t at_most)
{
        uint32_t marked = 0;

        for (uint32_t k = 1; k < s->n_classes && marked < at_most; k++) {
                struct bl_class *c = &s->classes[k];
                uint32_t room = 0, moved = 0;

                for (uint32_t f = 0; f < BL_FULLNESS; f++)
                        for (uint32_t h = c->heads[f]; h != BL_NONE; h = s->pages[h].next)
                                room += objects_of(c, &s->pages[h]) - s->pages[h].used;
                for (uint32_t f = 0; f < BL_FULLNESS && marked < at_most; f++) {
                        uint32_t next;

                        for (uint32_t h = c->heads[f]; h != BL_NONE && marked < at_most; h = next) {
                                uint32_t free_here = objects_of(c, &s->pages[h]) - s->pages[h].used;

                                next = s->pages[h].next;
                                /* its own room leaves with it */
                                if (moved + s->pages[h].used > room - free_here)
                                        continue;
                                room -= free_here;
                                moved += s->pages[h].used;
                                s->pages[h].leaving = true;
                                list_update(s, c, h);
                                marked++;
                        }
                }
        }
        return marked;
}

void bl_spans_settle(struct bl_store *s)
{
        for (uint32_t p = s->first; p < s->n_pages; p++) {
                if (s->pages[p].kind != BL_PAGE_SPAN || !s->pages[p].leaving)
                        continue;
                s->pages[p].leaving = false;
                list_update(s, &s->classes[s->pages[p].class], p);
        }
}

bool bl_spans_leaving(const struct bl_store *s, uint64_t place)
{
        uint32_t head, i;

        return find(s, place, &head, &i) && s->pages[head].leaving;
}
