// SPDX-License-Identifier: LGPL-2.1-or-later
/* Which sampled pages have copies. */
#include "daemon/pages/evidence_count.h"

#include <string.h>

#define MEMBERS_MAX 32768U /* pages in groups that are walked, about: a millisecond or two */
#define FEW         4U /* copies seen: it matters where they are */
#define LARGE       256U /* pages of a group that is counted whatever its hash is */

/* bl_ev_piece.copies: how many are seen elsewhere, up to BL_EV_COPIES */
#define WITH_MANY 0x20U /* of a large group: all but one of its pages are surplus, and none needs an estimate */
#define MERGED    0x40U /* and one of those is merged */
#define SURPLUS   0x80U /* another page of the piece has the content */

/* A class of a group. */
struct content {
        const struct bl_ev_group *group;
        uint8_t class;
        double copies, behind; /* pieces that have it: sampled, and there */
        bool merged;
};

static struct bl_ev_layer *layer_of(const struct bl_ev_count *c, const struct bl_ev_piece *p)
{
        int32_t m = c->member_of[p->vm];

        return m < 0 ? NULL : &c->members[m].layer[p->stratum];
}

/* The next page from `r` on that is of the content, not merged, and of the group of VMs. */
static bl_ev_ref next_page(const struct bl_ev_count *c, const struct content *t, bl_ev_ref r)
{
        for (; r != BL_EV_NONE; r = bl_ev_next(c->e, r)) {
                const struct bl_ev_piece *p;
                unsigned k;

                if (bl_ev_kind(r) == BL_EV_FRAME)
                        continue;
                p = bl_ev_piece_of(c->e, r, &k);
                if (p->state[k] == BL_EV_HELD && p->class[k] == t->class && layer_of(c, p))
                        break;
        }
        return r;
}

static bool first_of_piece(const struct bl_ev_count *c, struct bl_ev_piece *p, struct content *t)
{
        struct bl_ev_layer *l = layer_of(c, p);

        if (p->mark == c->scratch->mark)
                return false;
        p->mark = c->scratch->mark;
        if (l->mark != c->scratch->mark)
                l->here = 0;
        l->mark = c->scratch->mark;
        l->here++;
        t->copies += 1;
        t->behind += l->scale;
        return true;
}

static bool touch(struct bl_ev_count *c, bl_ev_ref page, struct bl_ev_piece *p)
{
        struct bl_ev_scratch *s = c->scratch;

        if (p->touched == s->serial)
                return true;
        if (c->n_touched == s->room) {
                size_t room = s->room ? 2 * s->room : 1024;
                uint32_t *more = reallocarray(s->touched, room, sizeof(*more));

                if (!more)
                        return false;
                s->touched = more;
                s->room = room;
        }
        p->touched = s->serial;
        memset(p->copies, 0, sizeof(p->copies));
        s->touched[c->n_touched++] = (page & BL_EV_INDEX) / BL_EVIDENCE_PIECE;
        return true;
}

static void count_merged(struct bl_ev_count *c, struct content *t)
{
        unsigned k;

        for (bl_ev_ref m = t->group->members; m != BL_EV_NONE; m = bl_ev_next(c->e, m)) {
                const struct bl_ev_frame *f = bl_ev_frame(c->e, m & BL_EV_INDEX);

                if (bl_ev_kind(m) != BL_EV_FRAME || f->class != t->class)
                        continue;
                for (bl_ev_ref r = f->pages; r != BL_EV_NONE; r = bl_ev_next(c->e, r)) {
                        struct bl_ev_piece *p = bl_ev_piece_of(c->e, r, &k);

                        if (!layer_of(c, p))
                                continue;
                        (void)first_of_piece(c, p, t);
                        t->merged = true;
                }
        }
}

static void count_page(struct bl_ev_count *c, const struct content *t, struct bl_ev_piece *p, unsigned k)
{
        struct bl_ev_layer *l = layer_of(c, p);
        struct bl_ev_alike *a = &l->type[t->merged ? BL_EV_WITH_MERGED : BL_EV_APART];
        double behind = t->behind - l->scale;
        unsigned copies = (unsigned)bl_min((uint64_t)t->copies - 1, BL_EV_COPIES);

        p->copies[k] = (uint8_t)(copies > 0 && t->merged ? copies | MERGED : copies);
        if (copies == 0)
                return;
        a->by.count[copies]++;
        a->matched++;
        if (copies == BL_EV_COPIES) {
                a->by.many += behind / (behind + 1);
                return;
        }
        a->few++;
        a->inside += l->here > 1 && copies < FEW;
        a->copies += copies;
        a->behind += behind;
}

/* Merged pages come first, so that one beside a merged page of the same piece is surplus. */
static bool count_content(struct bl_ev_count *c, struct content *t)
{
        bl_ev_ref first = next_page(c, t, t->group->members);
        unsigned k;

        if (first == BL_EV_NONE)
                return true;
        c->scratch->mark++;
        if (t->group->pages < t->group->n)
                count_merged(c, t);
        for (bl_ev_ref r = first; r != BL_EV_NONE; r = next_page(c, t, bl_ev_next(c->e, r))) {
                struct bl_ev_piece *p = bl_ev_piece_of(c->e, r, &k);

                if (!touch(c, r, p))
                        return false;
                p->copies[k] = first_of_piece(c, p, t) ? 0 : SURPLUS;
        }
        for (bl_ev_ref r = first; r != BL_EV_NONE; r = next_page(c, t, bl_ev_next(c->e, r))) {
                struct bl_ev_piece *p = bl_ev_piece_of(c->e, r, &k);

                if (p->copies[k] != SURPLUS)
                        count_page(c, t, p, k);
        }
        return true;
}

static bool is_large(const struct bl_ev_group *g)
{
        return g->pages >= LARGE && g->n >= LARGE && g->classes == 1;
}

/* Marks its pages.  False: there are less than that, as most are of other VMs or wait for a second look. */
static bool count_large(struct bl_ev_count *c, const struct bl_ev_group *g, bool *ret_done)
{
        const struct content t = {.group = g, .class = 1};
        bl_ev_ref first = next_page(c, &t, g->members);
        size_t n = 0;
        unsigned k;

        for (bl_ev_ref r = first; r != BL_EV_NONE && n < LARGE; r = next_page(c, &t, bl_ev_next(c->e, r)))
                n++;
        *ret_done = n >= LARGE;
        for (bl_ev_ref r = first; r != BL_EV_NONE && *ret_done; r = next_page(c, &t, bl_ev_next(c->e, r))) {
                struct bl_ev_piece *p = bl_ev_piece_of(c->e, r, &k);

                if (!touch(c, r, p))
                        return false;
                p->copies[k] = WITH_MANY;
                layer_of(c, p)->with_many++;
        }
        return true;
}

/* A content with so many copies is much of all there is, and chance must not leave it out, or take it for several.  As
 * long as they are not too many themselves. */
static void find_large(struct bl_ev_count *c)
{
        uint64_t pages = 0;

        for (uint32_t i = 0; i < c->e->groups.used; i++)
                if (is_large(bl_ev_group(c->e, i)))
                        pages += bl_ev_group(c->e, i)->pages;
        c->large = pages > 0 && pages <= MEMBERS_MAX;
        while ((c->e->members - (c->large ? pages : 0)) >> c->shift > MEMBERS_MAX)
                c->shift++;
}

/* (A free record has less than two members.) */
static bool count_all(struct bl_ev_count *c)
{
        uint64_t part = (UINT64_C(1) << c->shift) - 1;

        for (uint32_t i = 0; i < c->e->groups.used; i++) {
                const struct bl_ev_group *g = bl_ev_group(c->e, i);
                bool done = false;

                if (g->n < 2 || g->pages == 0)
                        continue;
                if (c->large && is_large(g) && !count_large(c, g, &done))
                        return false;
                if (done || (bl_ev_mix(g->hash) >> 32 & part) != 0)
                        continue;
                for (unsigned class = 1; class <= g->classes; class += 1) {
                        struct content t = {.group = g, .class = (uint8_t) class};

                        if (!count_content(c, &t))
                                return false;
                }
        }
        return true;
}

/* How many copies the page was seen to have. */
static unsigned copies_of(const struct bl_ev_piece *p, unsigned k, unsigned *ret_type)
{
        *ret_type = p->copies[k] & MERGED ? BL_EV_WITH_MERGED : BL_EV_APART;
        return p->copies[k] == SURPLUS || p->copies[k] == WITH_MANY ? 0 : p->copies[k] & ~MERGED;
}

static void sum_pieces(struct bl_ev_count *c)
{
        for (size_t i = 0; i < c->n_touched; i++) {
                const struct bl_ev_piece *p = bl_ev_piece(c->e, c->scratch->touched[i]);
                struct bl_ev_layer *l = layer_of(c, p);
                double pages[BL_EV_TYPES] = {0}, copies[BL_EV_TYPES] = {0};

                for (unsigned k = 0; k < p->n; k++) {
                        unsigned t, x = copies_of(p, k, &t);

                        if (x == 0 || x == BL_EV_COPIES)
                                continue;
                        pages[t] += 1;
                        copies[t] += x;
                }
                for (unsigned t = 0; t < BL_EV_TYPES; t++) {
                        l->type[t].pages2 += pages[t] * pages[t];
                        l->type[t].copies1 += copies[t];
                        l->type[t].copies2 += copies[t] * copies[t];
                        l->type[t].both += pages[t] * copies[t];
                }
        }
}

void bl_ev_count_weigh(struct bl_ev_count *c)
{
        for (size_t i = 0; i < c->n_touched; i++) {
                const struct bl_ev_piece *p = bl_ev_piece(c->e, c->scratch->touched[i]);
                struct bl_ev_layer *l = layer_of(c, p);
                double sum = 0, many = 0;

                for (unsigned k = 0; k < p->n; k++) {
                        unsigned t, x = copies_of(p, k, &t);

                        if (p->copies[k] == WITH_MANY)
                                many += 1;
                        else
                                sum += p->copies[k] == SURPLUS ? 1 : l->type[t].fit.weight[x];
                }
                l->many_squares += many * many;
                l->sum += sum;
                l->squares += sum * sum;
                if (sum > l->heaviest)
                        l->heaviest = sum;
        }
}

static void find_members(struct bl_ev_count *c, const uint64_t *ids)
{
        double sampled = 0, there = 0;

        for (size_t i = 0; i < c->e->n_vms; i++) {
                const struct bl_ev_vm *v = &c->e->vms[i];
                size_t m = 0;

                while (m < c->n && (bl_ev_vm_gone(v) || ids[m] != v->id))
                        m++;
                c->member_of[i] = m < c->n ? (int32_t)m : -1;
                if (m == c->n)
                        continue;
                c->members[m].vm = v;
                for (unsigned s = 0; s < BL_EV_STRATA; s++)
                        if (v->stratum[s].pieces > 0)
                                c->members[m].layer[s].scale = (double)bl_ev_layer_pieces(v, s) / v->stratum[s].pieces;
                sampled += v->stratum[0].pieces + v->stratum[1].pieces;
                there += v->n_pieces;
        }
        c->fraction = sampled > 0 ? sampled / there : 1;
}

int bl_ev_count(const struct bl_evidence *e, const uint64_t *ids, size_t n, struct bl_ev_scratch *scratch,
                struct bl_ev_count *ret)
{
        *ret = (struct bl_ev_count){.e = e, .n = n, .scratch = scratch};
        ret->members = calloc(n + 1, sizeof(*ret->members));
        ret->member_of = calloc(e->n_vms + 1, sizeof(*ret->member_of));
        if (!ret->members || !ret->member_of)
                return -ENOMEM;
        find_members(ret, ids);
        find_large(ret);
        scratch->serial++;
        if (!count_all(ret))
                return -ENOMEM;
        sum_pieces(ret);
        return 0;
}

void bl_ev_count_done(struct bl_ev_count *c)
{
        free(c->members);
        free(c->member_of);
}
