/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The scanner's judge: the same figures by brute force, without hashing.  Reads every page that takes memory into a
 * copy (an unlinked file of `dir`), sorts page numbers by memcmp of the contents and counts.  Slow, and needs disk
 * for all that it reads: for `scan --verify` and tests.
 */
#ifndef BALLAST_PAGES_ORACLE_H
#define BALLAST_PAGES_ORACLE_H

#include "daemon/pages/scan.h"

/*
 * `dir` NULL: $TMPDIR or /var/tmp.  Fills what scan.h defines except volatile_pages, compress_*, took, cpu and runs;
 * free with bl_oracle_free.  *ret_message (allocated, on error): a sentence.  -ENOSPC: said with how much is needed
 * and where; -ESRCH, -EPERM, -EIO, -ENOMEM.
 */
int bl_oracle_run(struct bl_source **sources, size_t n, const char *dir, struct bl_scan_report **ret,
                  char **ret_message);
struct bl_scan_report *bl_oracle_free(struct bl_scan_report *r);
BL_DEFINE_CLEANUP(struct bl_scan_report *, bl_oracle_free)

/* Compares; NULL: all figures equal; else an allocated sentence about the first difference. */
char *bl_oracle_difference(const struct bl_scan_report *scan, const struct bl_scan_report *oracle);

#endif
