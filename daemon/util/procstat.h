/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The two fields of /proc/PID/stat (proc(5)) by which a process is known and judged. */
#ifndef BALLAST_UTIL_PROCSTAT_H
#define BALLAST_UTIL_PROCSTAT_H

#include <stdint.h>

/*
 * State letter (field 3: R S D T t Z X) and start time in clock ticks since
 * the host booted (field 22).  `text` is the whole file, NUL-ended.
 * -EBADMSG: cut off or something else.
 */
int bl_proc_stat_parse(const char *text, char *ret_state, uint64_t *ret_start);

#endif
