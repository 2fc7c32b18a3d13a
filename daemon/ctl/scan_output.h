/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The file of --svg: whether it can be written is found before a scan that may take long. */
#ifndef BALLAST_CTL_SCAN_OUTPUT_H
#define BALLAST_CTL_SCAN_OUTPUT_H

#include <stddef.h>

/* Can the file be made, or replaced?  Changes nothing.  Negative errno. */
int ctl_scan_output_check(const char *path);
/* Readers see the old or the new content, never a part; a device or FIFO is written to.  Negative errno. */
int ctl_scan_output_write(const char *path, const char *text, size_t len);

#endif
