// SPDX-License-Identifier: LGPL-2.1-or-later
/* CONFIRM jobs in the worker: pages are read again, hashed again, and compared. */
#include "daemon/pages/evidence_confirm.h"

#include <string.h>

#define SPAN 64U /* pages that one look may cover */

struct batch {
        struct bl_ev_confirm *c;
        uint8_t *buf;
        struct bl_ev_item *item[BL_EV_BATCH]; /* by VM and page */
        const uint8_t *bytes[BL_EV_BATCH]; /* by number from the first of the batch on; NULL: was not read */
        uint32_t first;
        size_t n, filled;
};

static int compare(const void *a, const void *b)
{
        const struct bl_ev_item *x = *(struct bl_ev_item *const *)a, *y = *(struct bl_ev_item *const *)b;

        if (x->vm != y->vm)
                return x->vm > y->vm ? 1 : -1;
        return (x->page > y->page) - (x->page < y->page);
}

static void judge_look(struct bl_ev_item *item, const struct bl_page_look *look)
{
        item->state = look->state;
        item->moved_to = look->frame;
        if (item->merged ? look->state != BL_PAGE_MERGED || look->frame != item->frame : look->state != BL_PAGE_PRESENT)
                item->result = BL_EV_MOVED;
        else
                item->result = BL_EV_LOST; /* unless it can be read */
}

/* Items from..end are of one VM. */
static int look_at(struct batch *b, struct bl_source *s, size_t from, size_t end)
{
        struct bl_page_look look[SPAN];

        while (from < end) {
                uint64_t first = b->item[from]->page;
                size_t i = from;
                int r;

                while (i < end && b->item[i]->page - first < SPAN)
                        i++;
                r = s->ops->look(s, first, (size_t)(b->item[i - 1]->page - first) + 1, look);
                if (r < 0)
                        return r;
                b->c->job.looked += i - from;
                for (; from < i; from++)
                        judge_look(b->item[from], &look[b->item[from]->page - first]);
        }
        return 0;
}

static int read_vm(struct batch *b, struct bl_source *s, size_t from, size_t end)
{
        uint64_t pages[BL_EV_BATCH];
        struct bl_ev_item *of[BL_EV_BATCH];
        bool ok[BL_EV_BATCH];
        size_t n = 0;
        int r = look_at(b, s, from, end);

        if (r < 0)
                return r;
        for (size_t i = from; i < end; i++)
                if (b->item[i]->result == BL_EV_LOST) {
                        of[n] = b->item[i];
                        pages[n++] = b->item[i]->page;
                }
        if (n == 0)
                return 0;
        r = s->ops->read(s, pages, n, b->buf + b->filled * BL_PAGE_SIZE, ok);
        if (r < 0)
                return r;
        for (size_t i = 0; i < n; i++) {
                if (!ok[i])
                        continue;
                of[i]->result = BL_EV_CHANGED; /* unless it is found to be as it was */
                b->bytes[of[i] - b->c->items - b->first] = b->buf + (b->filled + i) * BL_PAGE_SIZE;
                b->c->job.read++;
        }
        b->filled += n;
        return 0;
}

static void read_batch(struct batch *b)
{
        qsort(b->item, b->n, sizeof(b->item[0]), compare);
        memset(b->bytes, 0, sizeof(b->bytes));
        b->filled = 0;
        for (size_t from = 0, end; from < b->n; from = end) {
                struct bl_ev_confirm_vm *v = &b->c->vms[b->item[from]->vm];

                for (end = from; end < b->n && b->item[end]->vm == b->item[from]->vm;)
                        end++;
                if (v->error == 0)
                        v->error = read_vm(b, v->source, from, end);
                for (size_t i = from; i < end && v->error < 0; i++)
                        b->item[i]->result = BL_EV_NOT_READ;
        }
}

static const uint8_t *bytes_of(const struct batch *b, const struct bl_ev_item *item)
{
        return item->result == BL_EV_CHANGED || item->result == BL_EV_SAME ? b->bytes[item - b->c->items - b->first]
                                                                           : NULL;
}

/* Equal bytes are a part.  What equals a page whose hash held has held too; else its own hash must be as it was. */
static void compare_group(const struct batch *b, const struct bl_ev_items *g)
{
        struct bl_ev_item *items = &b->c->items[g->first];
        const uint8_t *like[BL_EV_BATCH];
        uint8_t parts = 0;

        for (uint32_t i = 0; i < g->n; i++) {
                const uint8_t *bytes = bytes_of(b, &items[i]);
                uint8_t part = 0;

                if (!bytes)
                        continue;
                while (part < parts && memcmp(bytes, like[part], BL_PAGE_SIZE) != 0)
                        part++;
                if (part == parts) {
                        if (bl_ev_job_hash(&b->c->job, bytes) != g->hash)
                                continue;
                        like[parts++] = bytes;
                }
                items[i].part = (uint8_t)(part + 1);
                items[i].result = BL_EV_SAME;
        }
}

static void hash_frame(const struct batch *b, const struct bl_ev_items *g)
{
        struct bl_ev_item *item = &b->c->items[g->first];
        const uint8_t *bytes = bytes_of(b, item);

        if (!bytes)
                return;
        item->hash = bl_ev_job_hash(&b->c->job, bytes);
        item->result = BL_EV_SAME;
}

static void again(struct bl_ev_confirm_vm *v)
{
        uint64_t pages = v->source->n_pages;
        int r = v->source->ops->again(v->source);

        v->error = r > 0 || (r == 0 && v->source->n_pages != pages) ? -ESTALE : r;
}

static int run_all(struct bl_ev_confirm *c)
{
        struct batch b = {.c = c};

        b.buf = aligned_alloc(BL_PAGE_SIZE, (size_t)BL_EV_BATCH * BL_PAGE_SIZE);
        if (!b.buf)
                return -ENOMEM;
        for (size_t i = 0; i < c->n_vms; i++)
                again(&c->vms[i]);
        for (size_t i = 0, end; i < c->n_groups; i = end) {
                b.first = c->groups[i].first;
                b.n = 0;
                for (end = i; end < c->n_groups && b.n + c->groups[end].n <= BL_EV_BATCH; end++)
                        for (uint32_t k = 0; k < c->groups[end].n; k++)
                                b.item[b.n++] = &c->items[c->groups[end].first + k];
                read_batch(&b);
                for (; i < end; i++) {
                        if (c->groups[i].unread)
                                hash_frame(&b, &c->groups[i]);
                        else
                                compare_group(&b, &c->groups[i]);
                }
        }
        free(b.buf);
        return 0;
}

void bl_ev_confirm_run(struct bl_evidence_job *job)
{
        job->error = run_all((struct bl_ev_confirm *)job);
}
