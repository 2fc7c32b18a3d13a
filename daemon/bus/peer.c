/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/bus/peer.h"

#include <errno.h>
#include <sys/socket.h>

#include <ballast/cleanup.h>

#include "daemon/bus/bus.h"

/* Linux allows 65536 supplementary groups (NGROUPS_MAX). */
#define GROUPS_BYTES_MAX (65536U * sizeof(gid_t))

enum bl_access bl_access_for(uid_t uid, const gid_t *groups, size_t n_groups, gid_t group)
{
        if (uid == 0)
                return BL_ACCESS_CHANGE;
        if (group == BL_BUS_NO_GROUP)
                return BL_ACCESS_NONE;
        for (size_t i = 0; i < n_groups; i++)
                if (groups[i] == group)
                        return BL_ACCESS_READ;
        return BL_ACCESS_NONE;
}

/* The kernel answers -ERANGE with the size that it needs. */
static int peer_groups(int fd, gid_t **ret, size_t *ret_n)
{
        socklen_t len = 64 * sizeof(gid_t);

        for (int round = 0; round < 3; round++) {
                _cleanup_free_ gid_t *groups = malloc(len);

                if (!groups)
                        return -ENOMEM;
                if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) == 0) {
                        *ret_n = len / sizeof(gid_t);
                        *ret = BL_TAKE(groups);
                        return 0;
                }
                if (errno != ERANGE || len > GROUPS_BYTES_MAX)
                        return -errno;
        }
        return -ERANGE;
}

int bl_peer_from_fd(int fd, gid_t group, struct bl_peer *ret)
{
        struct ucred cred = {};
        socklen_t len = sizeof(cred);
        _cleanup_free_ gid_t *groups = NULL;
        enum bl_access access;
        size_t n_groups = 0;
        int r;

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
                return -errno;
        if (len != sizeof(cred))
                return -EBADMSG;
        access = bl_access_for(cred.uid, &cred.gid, 1, group);
        if (access == BL_ACCESS_NONE) {
                r = peer_groups(fd, &groups, &n_groups);
                if (r < 0)
                        return r;
                access = bl_access_for(cred.uid, groups, n_groups, group);
        }
        *ret = (struct bl_peer){.uid = cred.uid, .pid = cred.pid, .access = access};
        return 0;
}
