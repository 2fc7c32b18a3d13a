/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A report for people. */
#ifndef BALLAST_GUEST_PRINT_H
#define BALLAST_GUEST_PRINT_H

#include <stdio.h>

#include <ballast/wire.h>

/* One line for each statistic.  -EIO: could not be written. */
int guest_print_report(FILE *f, const struct bl_wire_hello *hello, const struct bl_wire_stats *stats);

#endif
