// SPDX-License-Identifier: LGPL-2.1-or-later
/* From what a sample shows to what there is. */
#include "daemon/pages/evidence_estimate.h"

#include <stddef.h>

#define X            BL_EV_COPIES
#define Z            1.96
#define UNNOTICED    1.5 /* more of chi-square: other numbers of copies would do nearly as well */
#define NEVER        1e-12 /* so many copies, and fewer than X of them seen */
#define EXPECTED_MIN 1e-3
#define SHARES       20U /* steps of a share */
#define CELL         3 /* pieces' worth of pages expected in a cell of a chi-square */
#define DOUBT        3 /* less of chi-square: what chance makes of it where all have the same number of copies */

/* Copies elsewhere that are told apart; above 16 the gain is within 6 % of a whole page. */
static const unsigned grid[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 22, 32, 48, 80, 160, 400};
#define GRID (sizeof(grid) / sizeof(grid[0]))

static const double inverse[X] = {0,       1,       1.0 / 2,  1.0 / 3,  1.0 / 4,  1.0 / 5,  1.0 / 6,  1.0 / 7,
                                  1.0 / 8, 1.0 / 9, 1.0 / 10, 1.0 / 11, 1.0 / 12, 1.0 / 13, 1.0 / 14, 1.0 / 15};

struct model {
        double p[X][GRID]; /* of x copies seen, given that any is; [0]: that any is; all given that it is less than X */
        double mean[GRID]; /* of copies seen */
        double value[GRID]; /* of a page that was seen to have one */
        size_t n; /* of the grid: with more, less than X are never seen */
        bool merged;
};

double bl_ev_root(double v)
{
        double r = v > 1 ? v : 1;

        if (!(v > 0))
                return 0;
        for (int i = 0; i < 200; i++) {
                double next = 0.5 * (r + v / r);

                if (next >= r)
                        break;
                r = next;
        }
        return r;
}

static double gain_of(double c, bool merged)
{
        return merged ? 1 : c / (c + 1);
}

static void model_make(struct model *m, double f, bool merged)
{
        double odds = f < 1 ? f / (1 - f) : 0, rest = 1;
        unsigned copies = 0;

        *m = (struct model){.merged = merged};
        for (size_t c = 0; c < GRID; c++) {
                double p, few = 0, mean = 0;

                for (; copies < grid[c]; copies++)
                        rest *= 1 - f;
                p = rest;
                for (unsigned x = 1; x < X; x++) {
                        p *= grid[c] >= x ? (grid[c] - x + 1) * inverse[x] * odds : 0;
                        m->p[x][c] = f < 1 ? p : (double)(x == grid[c]);
                        few += m->p[x][c];
                        mean += x * m->p[x][c];
                }
                if (few < NEVER)
                        break;
                for (unsigned x = 1; x < X; x++)
                        m->p[x][c] /= few;
                m->p[0][c] = few / (few + rest);
                m->mean[c] = mean / few;
                m->value[c] = gain_of(grid[c], merged) / m->p[0][c];
                m->n = c + 1;
        }
}

/* Pages with few copies and pages with many: shares, among those that are seen to have any, of at most three of the
 * grid's numbers. */
struct mixture {
        size_t of[3];
        double share[3];
        double misfit, value;
};

/* Two neighbours of the grid that make the mean given: all pages have the same number of copies, or nearly. */
static void same_for_all(const struct model *m, double mean, double share, struct mixture *ret)
{
        size_t c = 0;

        while (c + 1 < m->n && m->mean[c] < mean)
                c++;
        ret->of[0] = c;
        ret->of[1] = c > 0 ? c - 1 : 0;
        ret->share[1] = c > 0 && mean < m->mean[c] ? share * (m->mean[c] - mean) / (m->mean[c] - m->mean[c - 1]) : 0;
        ret->share[0] = share - ret->share[1];
}

static double seen_with(const struct model *m, const struct mixture *mix, unsigned x)
{
        double p = 0;

        for (unsigned i = 0; i < 3; i++)
                p += mix->share[i] * m->p[x][mix->of[i]];
        return p;
}

/* Pearson's chi-square, as if `clusters` pages had been seen, in the cells given. */
static void judge(const struct model *m, const double of_all[X], const uint8_t cell[X], double clusters,
                  struct mixture *mix)
{
        double seen = 0, expected = 0;

        mix->misfit = 0;
        for (unsigned x = 1; x < X; x++) {
                seen += of_all[x];
                expected += seen_with(m, mix, x);
                if (x < X - 1 && cell[x + 1] == cell[x])
                        continue;
                mix->misfit += clusters * (seen - expected) * (seen - expected) / (expected + EXPECTED_MIN);
                seen = expected = 0;
        }
        mix->value = 0;
        for (unsigned i = 0; i < 3; i++)
                mix->value += mix->share[i] * m->value[mix->of[i]];
}

/* Cells in which that mixture expects CELL pages' worth at least. */
static void cells_make(const struct model *m, const struct mixture *mix, double clusters, uint8_t cell[X])
{
        double expected = 0;
        uint8_t n = 0;

        for (unsigned x = 1; x < X; x++) {
                cell[x] = n;
                expected += clusters * seen_with(m, mix, x);
                if (expected < CELL)
                        continue;
                n++;
                expected = 0;
        }
        /* what is left over goes with the last */
        for (unsigned x = 1; x < X; x++)
                if (n > 0 && cell[x] == n)
                        cell[x] = (uint8_t)(n - 1);
}

/* Some have `few` copies, the others the more: the mixture that fits best, and the values of those that fit nearly as
 * well, which may be as true. */
static void mixtures(const struct model *m, const struct bl_ev_seen *in, const double of_all[X], struct mixture *same,
                     struct mixture *best, double *ret_least, double *ret_most)
{
        static const size_t few[] = {0, 1, 3, 7}; /* in the grid */
        struct mixture mix[sizeof(few) / sizeof(few[0]) * SHARES] = {0};
        uint8_t cell[X];
        size_t n = 0;

        cells_make(m, same, in->clusters, cell);
        judge(m, of_all, cell, in->clusters, same);
        *best = *same;
        for (size_t i = 0; i < sizeof(few) / sizeof(few[0]); i++)
                for (unsigned k = 1; k < SHARES && few[i] < m->n && m->mean[few[i]] < in->mean; k++) {
                        double share = (double)k / SHARES;

                        same_for_all(m, (in->mean - share * m->mean[few[i]]) / (1 - share), 1 - share, &mix[n]);
                        mix[n].of[2] = few[i];
                        mix[n].share[2] = share;
                        judge(m, of_all, cell, in->clusters, &mix[n]);
                        if (mix[n].misfit < best->misfit)
                                *best = mix[n];
                        n++;
                }
        *ret_least = *ret_most = best->value;
        for (size_t i = 0; i < n; i++) {
                if (mix[i].misfit > best->misfit + UNNOTICED)
                        continue;
                if (mix[i].value < *ret_least)
                        *ret_least = mix[i].value;
                if (mix[i].value > *ret_most)
                        *ret_most = mix[i].value;
        }
}

/* The worth of a seen page if the mean were another. */
static double value_at(const struct model *m, double mean)
{
        struct mixture mix;

        same_for_all(m, mean, 1, &mix);
        return mix.share[0] * m->value[mix.of[0]] + mix.share[1] * m->value[mix.of[1]];
}

/* What a page that was seen with x copies stands for, by both mixtures, of which `part` is the second's. */
static void weigh(const struct model *m, double f, const struct mixture *a, const struct mixture *b, double part,
                  double weight[X])
{
        for (unsigned x = 1; x < X; x++) {
                double all = 0, value = 0;

                for (unsigned i = 0; i < 3; i++) {
                        double of_a = (1 - part) * a->share[i] * m->p[x][a->of[i]];
                        double of_b = part * b->share[i] * m->p[x][b->of[i]];

                        all += of_a + of_b;
                        value += of_a * m->value[a->of[i]] + of_b * m->value[b->of[i]];
                }
                weight[x] = all > 0 ? value / all : gain_of(x / f, m->merged);
        }
}

static double pages_behind(const struct model *m, const struct mixture *mix)
{
        double there = 0;

        for (unsigned i = 0; i < 3; i++)
                there += mix->share[i] / m->p[0][mix->of[i]];
        return there;
}

static double squared(double v)
{
        return v > 0 ? v * v : 0;
}

void bl_ev_fit(const struct bl_ev_seen *in, double f, bool merged, struct bl_ev_fit *ret)
{
        double of_all[X], pages = 0, part, worth, least, most, there;
        struct mixture same = {0}, best;
        struct model m;

        *ret = (struct bl_ev_fit){.seen = f};
        ret->weight[X] = merged ? 1 : in->many;
        for (unsigned x = 1; x < X; x++)
                pages += in->count[x];
        if (pages == 0)
                return;
        for (unsigned x = 1; x < X; x++)
                of_all[x] = in->count[x] / pages;
        model_make(&m, f, merged);
        same_for_all(&m, in->mean, 1, &same);
        mixtures(&m, in, of_all, &same, &best, &least, &most);
        part = same.misfit - best.misfit > DOUBT ? 1 - DOUBT / (same.misfit - best.misfit) : 0;
        weigh(&m, f, &same, &best, part, ret->weight);
        there = (1 - part) * pages_behind(&m, &same) + part * pages_behind(&m, &best);
        ret->seen = (pages + in->count[X]) / (pages * there + in->count[X]);
        for (unsigned x = 1; x < X; x++)
                ret->sum += in->count[x] * ret->weight[x];
        worth = ret->sum / pages;
        /* where all copies are in the sample nothing is hidden */
        ret->less = (1 - f) * pages *
                    bl_ev_root(squared(worth - least) +
                               squared(value_at(&m, in->mean) - value_at(&m, in->mean + 2 * in->error)));
        ret->more = (1 - f) * pages *
                    bl_ev_root(squared(most - worth) +
                               squared(value_at(&m, in->mean - 2 * in->error) - value_at(&m, in->mean)));
}

/* The quantile of chi-square by Wilson and Hilferty (1931): within 1 % from 2 degrees on. */
static double chi_square(double degrees, double z)
{
        double t = 2 / (9 * degrees), r = 1 - t + z * bl_ev_root(t);

        return r > 0 ? degrees * r * r * r : 0;
}

void bl_ev_interval(double sum, double v, double heaviest, double *ret_low, double *ret_high)
{
        double up = sum + heaviest, v_up = v + heaviest * heaviest;

        *ret_low = sum > 0 && v > 0 ? v / (2 * sum) * chi_square(2 * sum * sum / v, -Z) : sum;
        *ret_high = up > 0 && v_up > 0 ? v_up / (2 * up) * chi_square(2 * up * up / v_up, Z) : up;
}
