// SPDX-License-Identifier: LGPL-2.1-or-later
/* CONFIRM jobs: what is read, and what came of it. */
#include "daemon/pages/evidence_confirm.h"

#include <string.h>

#define CLASSES_MAX 16U /* of a group that are compared with; more than one needs a collision of hashes */
#define MAPPERS_MAX 16U /* pages of a frame that are tried */
#define PARTS       256U
#define TRIES       16384U /* groups and frames that are looked through for a job: bounds its time on the loop */

/* --- the choice ---------------------------------------------------------------------------------- */

struct choice {
        struct bl_evidence *e;
        struct bl_ev_confirm *c;
        uint32_t *vm_of; /* by slot: of the job's, + 1; 0: not among them */
        usec_t now;
};

static void item_add(struct bl_ev_confirm *c, const struct bl_ev_item *item)
{
        c->items[c->n_items++] = *item;
}

/* The item of a page; false: its VM is not at hand. */
static bool item_of(const struct choice *ch, bl_ev_ref page, struct bl_ev_item *ret)
{
        unsigned k;
        const struct bl_ev_piece *p = bl_ev_piece_of(ch->e, page, &k);

        if (ch->vm_of[p->vm] == 0)
                return false;
        *ret = (struct bl_ev_item){.page = (uint64_t)p->index * BL_EVIDENCE_PIECE + k, .vm = ch->vm_of[p->vm] - 1};
        return true;
}

static bool item_of_frame(const struct choice *ch, const struct bl_ev_frame *f, struct bl_ev_item *ret)
{
        bl_ev_ref page = f->pages;

        for (unsigned i = 0; i < MAPPERS_MAX && page != BL_EV_NONE; i++, page = bl_ev_next(ch->e, page))
                if (item_of(ch, page, ret)) {
                        ret->merged = true;
                        ret->frame = f->frame;
                        ret->class = f->class;
                        return true;
                }
        return false;
}

static void group_add(struct bl_ev_confirm *c, uint64_t hash, size_t first, bool unread)
{
        c->groups[c->n_groups++] = (struct bl_ev_items){
                .hash = hash, .first = (uint32_t)first, .n = (uint32_t)(c->n_items - first), .unread = unread};
}

/* What waits for its second look and may have it, one page of each class, and frames that were compared with nothing
 * yet.  False: nothing is due, or a class cannot be read, without which nothing can be said. */
static bool choose_group(const struct choice *ch, const struct bl_ev_group *g)
{
        const struct bl_evidence *e = ch->e;
        struct bl_ev_item stands[CLASSES_MAX + 1], item;
        bool has[CLASSES_MAX + 1] = {false}, lives[CLASSES_MAX + 1] = {false};
        unsigned classes = (unsigned)bl_min(g->classes, CLASSES_MAX), found = 0, chosen = 0, fresh = 0;
        size_t first = ch->c->n_items;

        for (bl_ev_ref r = g->members; r != BL_EV_NONE && (found < classes || fresh < g->fresh); r = bl_ev_next(e, r)) {
                const unsigned limit = BL_EV_BATCH - CLASSES_MAX;
                unsigned class;
                bool at_hand;

                if (bl_ev_kind(r) == BL_EV_PAGE) {
                        unsigned k;
                        const struct bl_ev_piece *p = bl_ev_piece_of(e, r, &k);

                        class = p->class[k];
                        at_hand = item_of(ch, r, &item);
                        if (p->state[k] == BL_EV_SEEN) {
                                fresh++;
                                if (at_hand && chosen < limit && p->looked_at + e->settle <= ch->now) {
                                        item_add(ch->c, &item);
                                        chosen++;
                                }
                                continue;
                        }
                        item.class = (uint8_t) class;
                        if (bl_ev_vm_gone(&e->vms[p->vm]))
                                continue;
                } else {
                        const struct bl_ev_frame *f = bl_ev_frame(e, r & BL_EV_INDEX);

                        class = f->class;
                        at_hand = item_of_frame(ch, f, &item);
                        fresh += class == 0;
                        if (class == 0 && at_hand && chosen < limit) {
                                item_add(ch->c, &item);
                                chosen++;
                        }
                }
                if (class == 0 || class > classes || has[class])
                        continue;
                lives[class] = true;
                if (at_hand) {
                        stands[class] = item;
                        has[class] = true;
                        found++;
                }
        }
        for (unsigned c = 1; c <= classes; c++)
                if (lives[c] && !has[c])
                        chosen = 0;
        if (chosen == 0) {
                ch->c->n_items = first;
                return false;
        }
        for (unsigned c = 1; c <= classes; c++)
                if (has[c])
                        item_add(ch->c, &stands[c]);
        group_add(ch->c, g->hash, first, false);
        return true;
}

/* What is chosen goes to the end of the queue: if nothing comes of it, it is tried again. */
static void choose(const struct choice *ch, size_t pages)
{
        struct bl_evidence *e = ch->e;
        struct bl_ev_item item;
        size_t tries = TRIES;

        while (ch->c->n_items < pages && e->unread.first != BL_EV_NONE && tries-- > 0) {
                uint32_t i = e->unread.first;
                const struct bl_ev_frame *f = bl_ev_frame(e, i);

                if (f->due > ch->now)
                        break;
                if (item_of_frame(ch, f, &item)) {
                        item_add(ch->c, &item);
                        group_add(ch->c, 0, ch->c->n_items - 1, true);
                }
                bl_ev_frame_unschedule(e, i);
                bl_ev_frame_schedule(e, i, ch->now + e->settle);
        }
        tries = TRIES;
        while (ch->c->n_items < pages && e->due.first != BL_EV_NONE && tries-- > 0) {
                uint32_t i = e->due.first;

                if (bl_ev_group(e, i)->due > ch->now)
                        break;
                (void)choose_group(ch, bl_ev_group(e, i));
                bl_ev_group_unschedule(e, i);
                bl_ev_group_schedule(e, i, ch->now + e->settle);
        }
}

/* --- what came of it -------------------------------------------------------------------------------- */

/* The page that was read; BL_EV_NONE: it is not what it was when the job was made. */
static bl_ev_ref page_of(struct bl_evidence *e, const struct bl_ev_confirm_vm *v, const struct bl_ev_item *item,
                         uint64_t hash)
{
        const struct bl_ev_vm *vm = bl_ev_vm_find(e, v->id);
        unsigned k = item->page % BL_EVIDENCE_PIECE;
        const struct bl_ev_piece *p;
        uint32_t i;

        if (!vm || vm->generation != v->generation)
                return BL_EV_NONE;
        i = bl_ev_find_piece(e, bl_ev_vm_slot(e, vm), (uint32_t)(item->page / BL_EVIDENCE_PIECE));
        if (i == BL_EV_NONE)
                return BL_EV_NONE;
        p = bl_ev_piece(e, i);
        if (item->merged ? p->state[k] != BL_EV_MERGED || p->what[k] != item->frame
                         : (p->state[k] != BL_EV_SEEN && p->state[k] != BL_EV_HELD) || p->what[k] != hash)
                return BL_EV_NONE;
        return bl_ev_page(i, k);
}

/* It is no longer what it was: what it is now. */
static void page_differs(struct bl_evidence *e, bl_ev_ref page, const struct bl_ev_item *item, usec_t now)
{
        if (item->result == BL_EV_CHANGED)
                bl_ev_page_is(e, page, BL_EV_VOLATILE);
        else if (item->result == BL_EV_LOST || item->state == BL_PAGE_PRESENT)
                bl_ev_page_is(e, page, BL_EV_UNKNOWN);
        else if (item->state != BL_PAGE_MERGED)
                bl_ev_page_is(e, page, bl_ev_sample_of(item->state));
        else if (!bl_ev_page_merged(e, page, item->moved_to, now))
                bl_ev_page_is(e, page, BL_EV_UNKNOWN);
}

static void take_frame(struct bl_evidence *e, const struct bl_ev_confirm *c, const struct bl_ev_item *item, usec_t now)
{
        bl_ev_ref page;

        if (item->result == BL_EV_NOT_READ || !bl_ev_room(e, BL_EV_NONE))
                return;
        page = page_of(e, &c->vms[item->vm], item, 0);
        if (page == BL_EV_NONE)
                return;
        if (item->result != BL_EV_SAME)
                page_differs(e, page, item, now);
        else
                (void)bl_ev_frame_known(e, bl_ev_find_frame(e, item->frame), item->hash, now);
}

/* The classes of the parts, known ones first; 0: none yet. */
static bool parts_of(const struct bl_ev_item *items, uint32_t n, uint8_t class[PARTS], unsigned count[PARTS])
{
        bool sure = true;

        for (uint32_t i = 0; i < n; i++) {
                if (items[i].result == BL_EV_SAME) {
                        count[items[i].part]++;
                        if (items[i].class != 0)
                                class[items[i].part] = items[i].class;
                } else if (items[i].class != 0) {
                        sure = false;
                }
        }
        return sure;
}

static void take_same(struct bl_evidence *e, const struct bl_ev_item *item, bl_ev_ref page, uint64_t hash,
                      uint8_t class)
{
        unsigned k;
        const struct bl_ev_piece *p = bl_ev_piece_of(e, page, &k);
        uint32_t frame;

        if (!item->merged) {
                if (p->state[k] == BL_EV_SEEN)
                        bl_ev_page_held(e, page, class);
                return;
        }
        frame = bl_ev_find_frame(e, item->frame);
        if (bl_ev_frame(e, frame)->known && bl_ev_frame(e, frame)->hash == hash)
                bl_ev_frame_class(e, frame, class);
}

static struct bl_ev_group *group_of(struct bl_evidence *e, uint64_t hash, uint32_t *ret)
{
        bl_ev_ref r = bl_ev_find_content(e, hash);

        if (r == BL_EV_NONE || bl_ev_kind(r) != BL_EV_GROUP)
                return NULL;
        *ret = r & BL_EV_INDEX;
        return bl_ev_group(e, *ret);
}

static void take_group(struct bl_evidence *e, const struct bl_ev_confirm *c, const struct bl_ev_items *g, usec_t now,
                       struct bl_evidence_done *done)
{
        const struct bl_ev_item *items = &c->items[g->first];
        uint8_t class[PARTS] = {0};
        unsigned count[PARTS] = {0};
        bool sure = parts_of(items, g->n, class, count);
        struct bl_ev_group *group;
        bool news = false;
        uint32_t number;

        for (uint32_t i = 0; i < g->n; i++) {
                const struct bl_ev_item *item = &items[i];
                bl_ev_ref page = page_of(e, &c->vms[item->vm], item, g->hash);
                bool first = !item->merged && item->class == 0; /* its second look, that is */

                if (page == BL_EV_NONE || item->result == BL_EV_NOT_READ)
                        continue;
                done->confirmed += first && item->result == BL_EV_SAME && count[item->part] > 1;
                done->refuted += item->result == BL_EV_SAME ? first && sure && count[item->part] == 1
                                                            : item->result == BL_EV_CHANGED && !item->merged;
                if (item->result != BL_EV_SAME) {
                        if (item->merged && item->result == BL_EV_CHANGED)
                                bl_ev_frame_schedule(e, bl_ev_find_frame(e, item->frame), now);
                        else
                                page_differs(e, page, item, now);
                        news |= first;
                        continue;
                }
                if (item->class != 0 || (class[item->part] == 0 && !sure))
                        continue;
                group = group_of(e, g->hash, &number);
                if (class[item->part] == 0 && group)
                        class[item->part] = group->classes < BL_EV_ALONE - 1 ? ++group->classes : BL_EV_ALONE;
                take_same(e, item, page, g->hash, class[item->part]);
                news |= first;
        }
        /* a content with many copies goes on at once: others may have waited long enough, too */
        group = group_of(e, g->hash, &number);
        if (group) {
                bl_ev_group_unschedule(e, number);
                bl_ev_group_schedule(e, number, news ? now : now + e->settle);
        }
}

static void confirm_take(struct bl_evidence *e, struct bl_evidence_job *job, usec_t now, struct bl_evidence_done *done)
{
        struct bl_ev_confirm *c = (struct bl_ev_confirm *)job;

        for (size_t i = 0; i < c->n_vms; i++) {
                struct bl_ev_vm *v = bl_ev_vm_find(e, c->vms[i].id);

                if (c->vms[i].error < 0 && done->error == 0)
                        done->error = c->vms[i].error;
                if (c->vms[i].error == -ESTALE && v && v->generation == c->vms[i].generation)
                        bl_ev_vm_leave(e, v);
        }
        for (size_t i = 0; job->error == 0 && i < c->n_groups; i++) {
                if (c->groups[i].unread)
                        take_frame(e, c, &c->items[c->groups[i].first], now);
                else
                        take_group(e, c, &c->groups[i], now, done);
        }
        bl_ev_sweep(e, now, c->n_items / BL_EVIDENCE_PIECE + 1);
}

/* --- all of it ----------------------------------------------------------------------------------------- */

static void confirm_free(struct bl_evidence_job *job)
{
        struct bl_ev_confirm *c = (struct bl_ev_confirm *)job;

        free(c->vms);
        free(c->items);
        free(c->groups);
        free(c);
}

static const struct bl_ev_job_ops confirm_ops = {bl_ev_confirm_run, confirm_take, confirm_free};

static struct bl_ev_confirm *confirm_alloc(const struct bl_evidence *e, size_t n_vms, size_t pages)
{
        struct bl_ev_confirm *c = calloc(1, sizeof(*c));
        size_t most = bl_min(pages, e->members + 2 * (uint64_t)e->frames.live) + BL_EV_BATCH;

        if (!c)
                return NULL;
        bl_ev_job_init(&c->job, e, &confirm_ops);
        c->vms = calloc(n_vms + 1, sizeof(*c->vms));
        c->items = calloc(most, sizeof(*c->items));
        c->groups = calloc(most, sizeof(*c->groups));
        if (c->vms && c->items && c->groups)
                return c;
        confirm_free(&c->job);
        return NULL;
}

int bl_evidence_confirm_new(struct bl_evidence *e, const struct bl_evidence_vm *vms, size_t n, usec_t now, size_t pages,
                            struct bl_evidence_job **ret)
{
        _cleanup_free_ uint32_t *vm_of = calloc(e->n_vms + 1, sizeof(*vm_of));
        struct bl_ev_confirm *c = confirm_alloc(e, n, pages);
        struct choice ch = {.e = e, .c = c, .vm_of = vm_of, .now = now};

        if (!vm_of || !c) {
                (void)bl_evidence_job_free(c ? &c->job : NULL);
                return -ENOMEM;
        }
        for (size_t i = 0; i < n; i++) {
                const struct bl_ev_vm *v = bl_ev_vm_find(e, vms[i].id);

                if (!v || v->n_pages != vms[i].source->n_pages)
                        continue;
                c->vms[c->n_vms] = (struct bl_ev_confirm_vm){vms[i].source, v->id, v->generation, 0};
                vm_of[bl_ev_vm_slot(e, v)] = (uint32_t)++c->n_vms;
        }
        choose(&ch, pages);
        if (c->n_items == 0)
                c = (struct bl_ev_confirm *)bl_evidence_job_free(&c->job);
        *ret = c ? &c->job : NULL;
        return 0;
}

usec_t bl_evidence_confirm_at(const struct bl_evidence *e)
{
        usec_t at = BL_UNSET;

        if (e->due.first != BL_EV_NONE)
                at = bl_ev_group(e, e->due.first)->due;
        if (e->unread.first != BL_EV_NONE)
                at = bl_min(at, bl_ev_frame(e, e->unread.first)->due);
        return at;
}
