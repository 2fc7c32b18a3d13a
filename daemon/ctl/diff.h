/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A unified diff of two texts, by lines; three lines of context. */
#ifndef BALLAST_CTL_DIFF_H
#define BALLAST_CTL_DIFF_H

/* Allocated, empty when they are equal.  `name` is what the heads say.
 * -ENOMEM, -EFBIG (more than 20000 lines). */
int ctl_diff(const char *name, const char *before, const char *after, char **ret);

#endif
