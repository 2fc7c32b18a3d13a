/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a scan found, as text for people; from its document (scan_json.h). */
#ifndef BALLAST_CTL_SCAN_TABLES_H
#define BALLAST_CTL_SCAN_TABLES_H

#include "daemon/ctl/ctl.h"

/* Headline, a row a VM, the matrix or its best pairs, and what else is to be said. */
void ctl_scan_print(const struct ctl *c, const json_t *d);

/* A round of --watch in one line, with the time; `heading`: that before it.  `brief`: in less than 80 columns. */
void ctl_scan_print_line(const json_t *d, bool heading, bool brief);

/* A sentence of those of scan_words.h, folded to the terminal; frees it.  NULL: nothing. */
void ctl_scan_print_sentence(const struct ctl *c, enum ctl_color color, char *sentence);

#endif
