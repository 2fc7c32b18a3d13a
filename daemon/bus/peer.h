/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who is asking, and what they may do. */
#ifndef BALLAST_BUS_PEER_H
#define BALLAST_BUS_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum bl_access {
        BL_ACCESS_NONE,
        BL_ACCESS_READ,
        BL_ACCESS_CHANGE,
};

struct bl_peer {
        uid_t uid;
        pid_t pid;
        enum bl_access access;
};

/* Root changes; a member of `group` reads (BL_BUS_NO_GROUP: nobody does). */
enum bl_access bl_access_for(uid_t uid, const gid_t *groups, size_t n_groups, gid_t group);

/* Asks the kernel who connected `fd` (SO_PEERCRED, SO_PEERGROUPS; unix(7)).
 * It answers for the moment of connect(2).  Negative errno. */
int bl_peer_from_fd(int fd, gid_t group, struct bl_peer *ret);

#endif
