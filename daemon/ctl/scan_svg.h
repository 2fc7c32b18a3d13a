/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a scan found, as a picture for a report: a bar a VM, a heat map of what each two have in common, totals.
 * One SVG file without scripts, fonts or links; light or dark as the reader's viewer is.
 */
#ifndef BALLAST_CTL_SCAN_SVG_H
#define BALLAST_CTL_SCAN_SVG_H

#include <jansson.h>
#include <stddef.h>

#define CTL_SVG_MAX 64 /* of more VMs the largest */

/* Of the document (scan_json.h).  *ret is allocated, UTF-8, ended by NUL.  -ENOMEM. */
int ctl_scan_svg(const json_t *d, char **ret, size_t *ret_len);

#endif
