/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a scan found, in sentences; all from its document (scan_json.h).  Allocated; NULL where there is nothing to
 * say, or memory is out. */
#ifndef BALLAST_CTL_SCAN_WORDS_H
#define BALLAST_CTL_SCAN_WORDS_H

#include "daemon/ctl/ctl.h"

/* A number of pages of the document as a size, "812 MiB". */
const char *ctl_scan_size(uint64_t pages, char *buf, size_t size);
#define CTL_SCAN_SIZE(pages) ctl_scan_size(pages, (char[BL_SIZE_BUF]){0}, BL_SIZE_BUF)

/* "43 %", "4.3 %", "0.04 %": of `whole`; "0 %" of nothing. */
const char *ctl_scan_percent(uint64_t part, uint64_t whole, char *buf, size_t size);
#define CTL_SCAN_PERCENT(part, whole) ctl_scan_percent(part, whole, (char[BL_SIZE_BUF]){0}, BL_SIZE_BUF)

/* ctl_table_fold(), but figures keep their units. */
char *ctl_scan_fold(const char *text, size_t width);

/* "8 VMs": those that the sums are of. */
const char *ctl_scan_count(const json_t *d, char *buf, size_t size);
/* "VM", "process", "dump", or "source" where they are mixed; the same of several. */
const char *ctl_scan_kind(const json_t *d, bool many);

/* Can it be told what is merged already?  Not of dumps, and not without the right to see page frames. */
bool ctl_scan_sees_merged(const json_t *d);
/* Is that KSM's doing?  Processes also share pages since a fork, or in shared memory. */
bool ctl_scan_only_ksm(const json_t *d);

/* "8 VMs hold 1.9 GiB; merging equal pages would free 812 MiB (43 %): ... KSM frees 0 B of that now." */
char *ctl_scan_headline(const json_t *d);
/* Whether duplicates lie together. */
char *ctl_scan_say_runs(const json_t *d);
char *ctl_scan_say_compression(const json_t *d);
char *ctl_scan_say_sampling(const json_t *d);
char *ctl_scan_say_verdict(const json_t *d);
/* What it took. */
char *ctl_scan_say_cost(const json_t *d);

/* What else is to be known: what was left out, not read, changed meanwhile.  The i-th, while there is one. */
char *ctl_scan_note(const json_t *d, size_t i);

#endif
