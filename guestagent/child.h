/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How the agent's children begin. */
#ifndef BALLAST_GUEST_CHILD_H
#define BALLAST_GUEST_CHILD_H

/* Keeps of the agent's descriptors only `fd` and the first three, lets other programs go
 * first, is the first that the OOM killer takes, and gets `signal` when the agent dies. */
void guest_child_begin(int fd, int signal);

#endif
