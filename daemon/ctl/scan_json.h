/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The document of `ballastctl scan`, ballastctl-json(7).  Table and picture are made of it, so that all say the same.
 */
#ifndef BALLAST_CTL_SCAN_JSON_H
#define BALLAST_CTL_SCAN_JSON_H

#include "daemon/ctl/scan_inputs.h"

struct ctl_scan_verdict {
        bool ran;
        bool equal;
        bool binding; /* nothing moved and nothing was sampled: a difference is an error */
        char *difference; /* NULL: equal */
        char *failed; /* why it did not run to its end; NULL: it did, or was not asked for */
        uint64_t saved_pages; /* by brute force */
};

struct ctl_scan_outcome {
        const struct ctl_scan_inputs *inputs;
        const struct bl_scan_report *report; /* NULL: there was nothing to scan */
        usec_t at; /* wall clock, when it began */
        uint64_t seed;
        struct ctl_scan_verdict verdict;
};

/* Did no source move, and was everything looked at?  Then the figures are exact. */
bool ctl_scan_is_exact(const struct ctl_scan_outcome *o);

/* A new reference; NULL: out of memory. */
json_t *ctl_scan_json(const struct ctl_scan_outcome *o);

#endif
