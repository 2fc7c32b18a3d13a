/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From what a sample shows to what there is.  Pure arithmetic.
 *
 * A page has c copies elsewhere (in other pieces, of its VM or of others).  Each of them is in the sample with
 * probability f, so x of them are seen, x binomial, and most often none.  Wanted is the sum of g(c), which is
 * c / (c + 1), or 1 where one of the copies is merged, over all pages.
 *
 *   1. How many pages have c = 1, 2, 3, ... copies is fitted to how many were seen with x = 1, 2, 3, ...: the same c
 * for all, or, as far as that is significantly better (chi-square), a mixture of two numbers.  (Harnik, Khaitzin,
 *      Sotnikov, "Estimating unseen deduplication", FAST 2016, fit the same kind of histogram, at larger samples; their
 *      method is Valiant and Valiant's, STOC 2011.)
 *   2. A page that was seen with x copies then stands for weight[x] = E[g(c) / P(x > 0 | c) | x] pages' worth of gain.
 *      With f equal in all VMs that is all; else f is the harmonic mean over the copies that were seen, which makes the
 *      number of copies right whatever the mixture (Horvitz and Thompson 1952).
 *   3. The gain is the sum of the weights over the sampled pieces, scaled to all pieces.  Neighbours are alike, so the
 *      variance is that between pieces, not pages (cluster sampling: Cochran, Sampling Techniques, chapter 9), less
 *      what is known of a finite whole; the interval is Fay and Feuer's for weighted Poisson sums (Statistics in
 *      Medicine 16, 1997), which is right for few, heavy pieces, and for none seen at all.
 *   4. What the histogram does not tell about c is added in quadrature: the weights of all mixtures that fit nearly as
 *      well, and for a mean x that is 2 standard errors, also between pieces, smaller or larger.
 */
#ifndef BALLAST_PAGES_EVIDENCE_ESTIMATE_H
#define BALLAST_PAGES_EVIDENCE_ESTIMATE_H

#include <stdbool.h>
#include <stdint.h>

#define BL_EV_COPIES 16U /* seen; the last stands for all above it too */

struct bl_ev_seen {
        uint32_t count[BL_EV_COPIES + 1]; /* sampled pages by copies seen; [0] not used */
        double many; /* mean gain of a page with BL_EV_COPIES or more: so many are not missed, and their number is known
                      */
        /* of those with less: */
        double mean, error; /* copies seen, and its standard error */
        double clusters; /* how many pages that have nothing to do with each other would say as much */
};

struct bl_ev_fit {
        double weight[BL_EV_COPIES + 1]; /* what a page that was seen with x copies stands for */
        double seen; /* of the pages that have copies, the share of which one was seen */
        double sum; /* of the weights of pages with less than BL_EV_COPIES */
        double less, more; /* how much it may be off by what is not known of the number of copies */
};

/* 0 < f <= 1. */
void bl_ev_fit(const struct bl_ev_seen *in, double f, bool merged, struct bl_ev_fit *ret);

/* About 95 % for a sum of weights with variance `v`, the heaviest of which is `heaviest`; sum 0: nothing was seen. */
void bl_ev_interval(double sum, double v, double heaviest, double *ret_low, double *ret_high);

double bl_ev_root(double v);

#endif
