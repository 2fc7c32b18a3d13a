// SPDX-License-Identifier: LGPL-2.1-or-later
/* Figures: what the copies that the sample shows say about all pages. */
#include "daemon/pages/evidence_figures.h"
#include "daemon/pages/evidence_count.h"

#include <string.h>

struct bl_ev_figures_kept {
        uint64_t version; /* of the table; 0: none are kept */
        size_t n;
        uint64_t *ids;
        struct bl_evidence_figures *figures;
        struct bl_ev_scratch scratch;
};

struct bl_ev_figures_kept *bl_ev_figures_new(void)
{
        return calloc(1, sizeof(struct bl_ev_figures_kept));
}

struct bl_ev_figures_kept *bl_ev_figures_free(struct bl_ev_figures_kept *k)
{
        if (!k)
                return NULL;
        free(k->scratch.touched);
        free(k->ids);
        free(k->figures);
        free(k);
        return NULL;
}

/* --- one VM ---------------------------------------------------------------------------------- */

/* The mean of copies seen is a ratio of sums over pieces (Cochran, chapter 6): its error is that of pieces. */
static void fit(struct bl_ev_alike *a, double fraction, bool merged)
{
        double f = fraction;

        if (a->matched > a->few)
                a->by.many /= a->matched - a->few;
        if (a->few > 0) {
                double mean = a->copies1 / a->few;
                /* a further piece, as large as the mean one, where one copy more is seen: never wholly sure */
                double further = a->pages2 / a->few;
                double squares = a->copies2 - 2 * mean * a->both + mean * mean * a->pages2 + further * further;

                f = a->copies / a->behind;
                a->by.mean = mean;
                a->by.error = bl_ev_root(squares) / a->few;
                a->by.clusters = (double)a->few * a->few / a->pages2;
        }
        bl_ev_fit(&a->by, f < 1 ? f : 1, merged, &a->fit);
}

struct estimate {
        double gain, v, heaviest;
        double less2, more2; /* by what is not known of the number of copies, squared */
};

static double between_pieces(double sum, double squares, double pieces)
{
        return pieces > 1 ? (squares - sum * sum / pieces) * pieces / (pieces - 1) : squares;
}

static void estimate_layer(const struct bl_ev_count *c, const struct bl_ev_stratum *s, const struct bl_ev_layer *l,
                           struct estimate *to)
{
        double zeros = (double)s->count[BL_EV_ZERO], f = 1 / l->scale, each = l->scale * (double)(1U << c->shift);
        double matched = 0, there = 0, inside = 0, heaviest, known, v;

        for (unsigned t = 0; t < BL_EV_TYPES; t++) {
                const struct bl_ev_alike *a = &l->type[t];

                if (a->matched == 0)
                        continue;
                matched += a->matched;
                inside += a->inside;
                there += a->matched / a->fit.seen;
                to->less2 += each * each * a->fit.less * a->fit.less;
                to->more2 += each * each * a->fit.more * a->fit.more;
        }
        to->gain += each * l->sum + l->scale * (zeros + l->with_many);
        /* known of a finite whole: pages that are sampled, and of which a copy is seen */
        known = (matched > 0 ? matched / there : c->fraction) / each;
        v = each * each * between_pieces(l->sum, l->squares, s->pieces) * (1 - known);
        /* two neighbouring pieces of this VM may have found their copies in one piece of another: half of that more on
         * average, where both are sampled; and a copy inside the VM has been found twice */
        v *= (1 + f / 2) * (1 + (matched > 0 ? inside / matched : 0));
        to->v += v + l->scale * l->scale * (1 - f) *
                             (between_pieces(zeros, (double)s->zero_squares, s->pieces) +
                              between_pieces(l->with_many, l->many_squares, s->pieces));
        /* a piece that was not seen may be full of pages with one copy */
        heaviest = l->type[BL_EV_APART].fit.weight[1] > 0 ? l->type[BL_EV_APART].fit.weight[1] : 0.5 / c->fraction;
        heaviest *= BL_EVIDENCE_PIECE;
        if (l->heaviest > heaviest)
                heaviest = l->heaviest;
        heaviest *= each * (1 - known);
        if (heaviest > to->heaviest)
                to->heaviest = heaviest;
}

static uint64_t rounded(double v)
{
        return v > 0 ? (uint64_t)(v + 0.5) : 0;
}

static void figures_of(const struct bl_ev_count *c, const struct bl_ev_member *m, struct bl_evidence_figures *ret)
{
        const struct bl_ev_vm *v = m->vm;
        double state[_BL_EV_SAMPLE_MAX] = {0}, present = 0, unknown = 0, low, high, less, more;
        struct estimate all = {0};

        for (unsigned i = 0; i < BL_EV_STRATA; i++) {
                const struct bl_ev_stratum *s = &v->stratum[i];
                const struct bl_ev_layer *l = &m->layer[i];

                if (s->pieces == 0) {
                        unknown += (double)bl_ev_layer_pieces(v, i) * BL_EVIDENCE_PIECE;
                        continue;
                }
                for (unsigned k = 0; k < _BL_EV_SAMPLE_MAX; k++)
                        state[k] += l->scale * (double)s->count[k];
                ret->sampled += s->pages;
                for (unsigned t = 0; t < BL_EV_TYPES; t++)
                        ret->matched += (uint64_t)l->type[t].matched << c->shift;
                ret->matched += (uint64_t)l->with_many;
                estimate_layer(c, s, l, &all);
        }
        if (ret->sampled == 0)
                return;
        for (unsigned k = BL_EV_UNKNOWN; k < _BL_EV_SAMPLE_MAX; k++)
                present += state[k];
        bl_ev_interval(all.gain, all.v, all.heaviest, &low, &high);
        less = bl_ev_root((all.gain - low) * (all.gain - low) + all.less2);
        more = bl_ev_root((high - all.gain) * (high - all.gain) + all.more2);
        ret->pages = v->n_pages;
        ret->present = bl_min(rounded(present), v->n_pages);
        ret->merged = rounded(state[BL_EV_MERGED]);
        ret->zero = rounded(state[BL_EV_ZERO]);
        ret->swapped = rounded(state[BL_EV_SWAPPED]);
        ret->volatile_pages = rounded(state[BL_EV_VOLATILE]);
        ret->gain = bl_min(rounded(all.gain), rounded(present - state[BL_EV_MERGED]));
        ret->gain_low = bl_min(rounded(all.gain - less), ret->gain);
        ret->gain_high = bl_min(bl_max(rounded(all.gain + more + unknown), ret->gain), v->n_pages);
        ret->at = v->at;
        ret->oldest = bl_ev_piece(c->e, v->oldest)->looked_at;
}

/* --- all of them ------------------------------------------------------------------------------- */

static bool figures_make(const struct bl_evidence *e, struct bl_ev_figures_kept *k)
{
        struct bl_ev_count c;
        int r = bl_ev_count(e, k->ids, k->n, &k->scratch, &c);

        memset(k->figures, 0, k->n * sizeof(*k->figures));
        if (r == 0) {
                for (size_t i = 0; i < c.n; i++)
                        for (unsigned s = 0; s < BL_EV_STRATA; s++)
                                for (unsigned t = 0; t < BL_EV_TYPES; t++)
                                        fit(&c.members[i].layer[s].type[t], c.fraction, t == BL_EV_WITH_MERGED);
                bl_ev_count_weigh(&c);
                for (size_t i = 0; i < c.n; i++)
                        if (c.members[i].vm)
                                figures_of(&c, &c.members[i], &k->figures[i]);
        }
        bl_ev_count_done(&c);
        return r == 0;
}

static bool same_question(const struct bl_ev_figures_kept *k, uint64_t version, const uint64_t *ids, size_t n)
{
        return k->version == version && k->n == n && memcmp(k->ids, ids, n * sizeof(*ids)) == 0;
}

static bool keep_question(struct bl_ev_figures_kept *k, const uint64_t *ids, size_t n)
{
        uint64_t *more_ids = reallocarray(k->ids, n, sizeof(*more_ids));
        struct bl_evidence_figures *more;

        if (!more_ids)
                return false;
        k->ids = more_ids;
        more = reallocarray(k->figures, n, sizeof(*more));
        if (!more)
                return false;
        k->figures = more;
        memcpy(k->ids, ids, n * sizeof(*ids));
        k->n = n;
        return true;
}

void bl_evidence_figures(const struct bl_evidence *e, const uint64_t *ids, size_t n, struct bl_evidence_figures *ret)
{
        struct bl_ev_figures_kept *k = e->kept;

        if (n == 0)
                return;
        if (!same_question(k, e->version, ids, n)) {
                k->version = 0;
                if (!keep_question(k, ids, n)) {
                        memset(ret, 0, n * sizeof(*ret));
                        return;
                }
                if (figures_make(e, k))
                        k->version = e->version;
        }
        memcpy(ret, k->figures, n * sizeof(*ret));
}
