/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The figures of a trust group, made from the table, and kept while it does not change. */
#ifndef BALLAST_PAGES_EVIDENCE_FIGURES_H
#define BALLAST_PAGES_EVIDENCE_FIGURES_H

struct bl_ev_figures_kept;

struct bl_ev_figures_kept *bl_ev_figures_new(void);
struct bl_ev_figures_kept *bl_ev_figures_free(struct bl_ev_figures_kept *k);

#endif
