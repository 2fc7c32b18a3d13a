/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A file that says who has something: locked as long as that process, or who inherited the descriptor, is there. */
#ifndef BALLAST_STORE_LOCK_H
#define BALLAST_STORE_LOCK_H

#include <ballast/units.h>

/* Waits at most `wait`.  Who holds it may remove the file.  -EBUSY: *ret_pid has it (0: it does not say);
 * others from open(2) and flock(2). */
int bl_lock_file(const char *path, usec_t wait, int *ret_fd, int *ret_pid);

#endif
