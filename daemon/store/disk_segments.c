// SPDX-License-Identifier: LGPL-2.1-or-later
#include "daemon/store/disk_segments.h"

#include <string.h>

#define NONE   UINT32_MAX
#define GRAINS ((uint32_t)(BL_DISK_SEGMENT / BL_DISK_GRAIN)) /* of a segment; grain numbers fit into 16 bits */
#define BLOCK  4096U
#define SPARE  64U /* blobs that a table may have room for in vain */

/* One that is nearly all alive is not worth what its cleaning costs. */
#define WORTH_LIVE (GRAINS / 16 * 15)

/* Free segments are short below 1/16, and at 64 at most: that is ahead enough of any writer. */
#define SHORT_PART 16U
#define SHORT_MIN  2U
#define SHORT_MAX  64U

struct blob {
        uint32_t entry;
        uint16_t at; /* grains from the segment's start */
        uint16_t size; /* bytes */
};

struct bl_segment {
        struct blob *blobs; /* by place */
        uint32_t n, room;
        uint32_t live; /* grains */
        uint32_t next; /* in the queue of free ones */
        uint32_t stamp;
        uint16_t holds;
        bool queued, used; /* one that is used may still be in the queue: it is passed over */
};

_Static_assert(sizeof(struct blob) == 8 && sizeof(struct bl_segment) <= 32, "see the promise in disk_segments.h");
_Static_assert(GRAINS <= UINT16_MAX + 1U, "see struct blob");

static uint32_t grains(uint32_t size)
{
        return (size + BL_DISK_GRAIN - 1) / BL_DISK_GRAIN;
}

static uint32_t blob_end(const struct blob *b)
{
        return b->at + grains(b->size);
}

/* --- the queue of free segments ------------------------------------------------- */

static void push(struct bl_segments *s, uint32_t i)
{
        struct bl_segment *g = &s->all[i];

        g->used = false;
        s->n_free++;
        if (g->queued)
                return;
        g->queued = true;
        g->next = NONE;
        if (s->tail == NONE)
                s->head = i;
        else
                s->all[s->tail].next = i;
        s->tail = i;
}

/* There is one. */
static uint32_t pop(struct bl_segments *s)
{
        for (;;) {
                const uint32_t i = s->head;
                struct bl_segment *g = &s->all[i];

                s->head = g->next;
                if (s->head == NONE)
                        s->tail = NONE;
                g->queued = false;
                if (g->used)
                        continue;
                g->used = true;
                s->n_free--;
                return i;
        }
}

/* Its table is as large as it has to be; a hold may have been given more room for what will be added. */
static void trim(struct bl_segments *s, struct bl_segment *g)
{
        struct blob *less;

        if (g->holds > 0 || g->room - g->n <= SPARE + g->n)
                return;
        less = realloc(g->blobs, (g->n + 1) * sizeof(*less));
        if (!less)
                return;
        s->memory -= (g->room - g->n - 1) * sizeof(*less);
        g->blobs = less;
        g->room = g->n + 1;
}

static void free_if_dead(struct bl_segments *s, uint32_t i)
{
        struct bl_segment *g = &s->all[i];

        if (!g->used || g->n > 0 || g->holds > 0)
                return;
        if (s->open == i)
                s->open = NONE;
        if (s->picked == i)
                s->picked = NONE;
        s->memory -= g->room * sizeof(*g->blobs);
        free(g->blobs);
        g->blobs = NULL;
        g->room = 0;
        push(s, i);
}

int bl_segments_init(struct bl_segments *s, uint32_t n)
{
        struct bl_segment *all = calloc(n, sizeof(*all));

        if (!all)
                return -ENOMEM;
        *s = (struct bl_segments){
                .all = all,
                .n = n,
                .head = NONE,
                .tail = NONE,
                .open = NONE,
                .picked = NONE,
                .memory = n * sizeof(*all),
        };
        for (uint32_t i = 0; i < n; i++)
                push(s, i);
        return 0;
}

void bl_segments_done(struct bl_segments *s)
{
        for (uint32_t i = 0; i < s->n; i++)
                free(s->all[i].blobs);
        free(s->all);
        *s = (struct bl_segments){0};
}

/* --- blobs ------------------------------------------------------------------------ */

static int make_room(struct bl_segments *s, struct bl_segment *g, uint32_t n)
{
        const uint32_t room = g->n + n + SPARE / 4;
        struct blob *more;

        if (g->room - g->n >= n)
                return 0;
        more = realloc(g->blobs, room * sizeof(*more));
        if (!more)
                return -ENOMEM;
        s->memory += (room - g->room) * sizeof(*more);
        g->blobs = more;
        g->room = room;
        return 0;
}

/* Of the first blob that begins at `at` or behind it. */
static uint32_t find(const struct bl_segment *g, uint32_t at)
{
        uint32_t low = 0, high = g->n;

        while (low < high) {
                const uint32_t mid = low + (high - low) / 2;

                if (g->blobs[mid].at < at)
                        low = mid + 1;
                else
                        high = mid;
        }
        return low;
}

static void insert(struct bl_segments *s, struct bl_segment *g, uint32_t where, struct blob b)
{
        memmove(&g->blobs[where + 1], &g->blobs[where], (g->n - where) * sizeof(b));
        g->blobs[where] = b;
        g->n++;
        g->live += grains(b.size);
        s->live += b.size;
}

int bl_segments_claim(struct bl_segments *s, bl_disk_place place, uint32_t size, uint32_t entry)
{
        const uint64_t i = place / GRAINS;
        const uint32_t at = (uint32_t)(place % GRAINS);
        struct bl_segment *g;
        uint32_t where;
        int r;

        if (i >= s->n || size == 0 || size > UINT16_MAX || at + grains(size) > GRAINS || i == s->open)
                return -EINVAL;
        g = &s->all[i];
        where = find(g, at);
        if ((where > 0 && blob_end(&g->blobs[where - 1]) > at) ||
            (where < g->n && g->blobs[where].at < at + grains(size)) || g->n >= BL_DISK_BLOBS)
                return -EINVAL;
        r = make_room(s, g, 1);
        if (r < 0)
                return r;
        if (!g->used) {
                g->used = true;
                s->n_free--;
        }
        insert(s, g, where, (struct blob){.entry = entry, .at = (uint16_t)at, .size = (uint16_t)size});
        return 0;
}

void bl_segments_free(struct bl_segments *s, bl_disk_place place, uint32_t size)
{
        const uint64_t i = place / GRAINS;
        const uint32_t at = (uint32_t)(place % GRAINS);
        struct bl_segment *g;
        uint32_t where;

        if (i >= s->n)
                return;
        g = &s->all[i];
        where = find(g, at);
        if (where == g->n || g->blobs[where].at != at || g->blobs[where].size != size)
                return;
        memmove(&g->blobs[where], &g->blobs[where + 1], (g->n - where - 1) * sizeof(*g->blobs));
        g->n--;
        g->live -= grains(size);
        s->live -= size;
        trim(s, g);
        free_if_dead(s, (uint32_t)i);
}

/* --- appending -------------------------------------------------------------------- */

/* Is this what lives in the segment picked last?  What is elsewhere is nowhere else, so the first one tells. */
static bool is_moved(const struct bl_segments *s, const struct bl_disk_blob *b)
{
        const struct bl_segment *g;

        if (s->picked == NONE)
                return false;
        g = &s->all[s->picked];
        for (uint32_t i = 0; i < g->n; i++)
                if (g->blobs[i].entry == b->entry)
                        return true;
        return false;
}

static int check(const struct bl_disk_blob *blobs, size_t n)
{
        uint64_t sum = 0;

        if (n == 0 || n > BL_DISK_BLOBS)
                return -EINVAL;
        for (size_t i = 0; i < n; i++) {
                if (blobs[i].size == 0 || blobs[i].size > UINT16_MAX)
                        return -EINVAL;
                sum += blobs[i].size;
        }
        return sum > BL_DISK_SEGMENT ? -EINVAL : 0;
}

static uint32_t round_block(uint32_t bytes)
{
        return (bytes + BLOCK - 1) / BLOCK * BLOCK;
}

/* As many of the blobs from `first` on as go behind `start` in a segment that has `had` already. */
static struct bl_segments_part cut(const struct bl_disk_blob *blobs, size_t n, size_t first, uint32_t start,
                                   uint32_t had)
{
        struct bl_segments_part p = {.start = start, .first = (uint32_t)first};
        uint32_t end = start;

        for (size_t i = first; i < n && had + p.n < BL_DISK_BLOBS; i++) {
                const uint32_t next = end + grains(blobs[i].size) * BL_DISK_GRAIN;

                if (next > BL_DISK_SEGMENT)
                        break;
                end = next;
                p.n++;
        }
        p.size = round_block(end - start);
        return p;
}

int bl_segments_plan(struct bl_segments *s, const struct bl_disk_blob *blobs, size_t n,
                     struct bl_segments_part ret[static BL_SEGMENTS_PARTS])
{
        struct bl_segments_part parts[BL_SEGMENTS_PARTS];
        uint32_t n_parts = 0, fresh = 0;
        size_t done = 0;
        int r = check(blobs, n);

        if (r < 0)
                return r;
        if (s->open != NONE) {
                parts[0] = cut(blobs, n, 0, s->fill, s->all[s->open].n);
                parts[0].segment = s->open;
                if (parts[0].n > 0)
                        n_parts = 1;
                done = n_parts * parts[0].n;
        }
        for (; done < n; fresh++) {
                if (n_parts == BL_SEGMENTS_PARTS)
                        return -EINVAL; /* check() leaves none such */
                parts[n_parts] = cut(blobs, n, done, 0, 0);
                parts[n_parts].segment = NONE;
                done += parts[n_parts++].n;
        }
        if (s->n_free < fresh || (s->n_free < fresh + BL_SEGMENTS_RESERVE && fresh > 0 && !is_moved(s, blobs)))
                return -ENOSPC;

        for (uint32_t i = 0; i < n_parts; i++) {
                struct bl_segment *g;

                if (parts[i].segment == NONE) {
                        parts[i].segment = pop(s);
                        s->all[parts[i].segment].stamp = ++s->stamp;
                }
                g = &s->all[parts[i].segment];
                g->holds++;
                if (r == 0)
                        r = make_room(s, g, parts[i].n);
                s->open = parts[i].segment;
                s->fill = parts[i].start + parts[i].size;
        }
        if (r < 0) {
                for (uint32_t i = 0; i < n_parts; i++)
                        bl_segments_give_up(s, &parts[i]);
                return r;
        }
        memcpy(ret, parts, n_parts * sizeof(*parts));
        return (int)n_parts;
}

void bl_segments_add(struct bl_segments *s, const struct bl_segments_part *p, struct bl_disk_blob *blobs)
{
        struct bl_segment *g = &s->all[p->segment];
        uint32_t at = p->start / BL_DISK_GRAIN;

        for (uint32_t i = p->first; i < p->first + p->n; i++) {
                struct bl_disk_blob *b = &blobs[i];

                /* what is behind the open segment's end is the last in its table: insertion is at the end */
                insert(s, g, g->n, (struct blob){.entry = b->entry, .at = (uint16_t)at, .size = (uint16_t)b->size});
                b->place = (bl_disk_place)p->segment * GRAINS + at;
                at += grains(b->size);
        }
        bl_segments_release(s, p->segment, 1);
}

void bl_segments_give_up(struct bl_segments *s, const struct bl_segments_part *p)
{
        if (s->open == p->segment)
                s->open = NONE;
        bl_segments_release(s, p->segment, 1);
}

void bl_segments_hold(struct bl_segments *s, uint32_t segment, uint32_t n)
{
        s->all[segment].holds = (uint16_t)(s->all[segment].holds + n);
}

void bl_segments_release(struct bl_segments *s, uint32_t segment, uint32_t n)
{
        s->all[segment].holds = (uint16_t)(s->all[segment].holds - n);
        trim(s, &s->all[segment]);
        free_if_dead(s, segment);
}

/* --- cleaning ------------------------------------------------------------------------ */

/*
 * What cleaning it is worth: the room that it gives, for as long as that will stay free (what has been left alone
 * for long will be), by what it costs to read all and write what lives.  Rosenblum and Ousterhout, section 3.6.
 * When nothing but the reserve is left, only the room counts.
 */
static uint64_t worth(const struct bl_segments *s, const struct bl_segment *g)
{
        const uint64_t dead = GRAINS - g->live, age = (uint64_t)(s->stamp - g->stamp) + 1;

        if (s->n_free <= BL_SEGMENTS_RESERVE)
                return dead;
        return dead * age * 1024 / (GRAINS + g->live);
}

size_t bl_segments_pick(struct bl_segments *s, struct bl_disk_blob *ret, size_t n)
{
        const uint32_t low = (uint32_t)bl_clamp(s->n / SHORT_PART, SHORT_MIN, SHORT_MAX);
        const struct bl_segment *g;
        uint64_t most = 0;
        uint32_t best = NONE;

        if (s->n_free > low || n == 0)
                return 0;
        for (uint32_t i = 0; i < s->n; i++) {
                uint64_t w;

                g = &s->all[i];
                /* the one that was picked and not touched since holds what cannot be moved now */
                if (!g->used || g->holds > 0 || i == s->open || g->live > WORTH_LIVE ||
                    (i == s->picked && g->n == s->picked_blobs))
                        continue;
                w = worth(s, g);
                if (w > most) {
                        most = w;
                        best = i;
                }
        }
        s->picked = best;
        if (best == NONE)
                return 0;
        g = &s->all[best];
        s->picked_blobs = g->n;
        for (uint32_t i = 0; i < g->n && i < n; i++)
                ret[i] = (struct bl_disk_blob){
                        .entry = g->blobs[i].entry,
                        .size = g->blobs[i].size,
                        .place = (bl_disk_place)best * GRAINS + g->blobs[i].at,
                };
        return bl_min(g->n, n);
}
