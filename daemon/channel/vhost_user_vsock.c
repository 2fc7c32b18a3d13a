/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <ballast/cleanup.h>

#include "daemon/channel/vhost_user_vsock.h"
#include "daemon/util/sock.h"
#include "daemon/virt/proc.h"

#define BACKLOG 128

#define UUID_CHARS 36U

/* Ours of a former run goes; anything else is somebody's. */
static int remove_old(const char *path)
{
        struct stat st;

        if (lstat(path, &st) < 0)
                return errno == ENOENT ? 0 : -errno;
        if (!S_ISSOCK(st.st_mode))
                return -EEXIST;
        return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

static int vhost_user_vsock_listen(const char *place, int *ret_fd)
{
        _cleanup_close_ int fd = -1;
        struct sockaddr_un addr;
        int r = place ? bl_sock_address(place, &addr) : -EINVAL;

        if (r < 0)
                return r;
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        r = remove_old(place);
        if (r < 0)
                return r;
        /* bind(2) makes the file with the mode of the socket (unix_bind_bsd); the umask is of all threads */
        if (fchmod(fd, 0600) < 0)
                return -errno;
        if (bind(fd, (const struct sockaddr *)&addr, sizeof addr) < 0 || listen(fd, BACKLOG) < 0)
                return -errno;
        *ret_fd = bl_take_fd(&fd);
        return 0;
}

/* An abstract name is a NUL and then as many bytes as the length says, with no end of its own (unix(7)). */
static bool parse_name(const struct sockaddr_un *peer, socklen_t len, uint8_t ret_uuid[BL_UUID_LEN])
{
        static const char prefix[] = BL_VHOST_USER_VSOCK_NAME;
        const size_t at = offsetof(struct sockaddr_un, sun_path);
        char name[sizeof peer->sun_path + 1] = "";
        char again[UUID_CHARS + 1];
        char *uuid = name + sizeof prefix - 1;
        size_t n;

        if (peer->sun_family != AF_UNIX || len <= at + 1 || len > sizeof *peer || peer->sun_path[0] != '\0')
                return false;
        n = len - at - 1;
        memcpy(name, peer->sun_path + 1, n);
        if (strlen(name) != n || strncmp(name, prefix, sizeof prefix - 1) != 0)
                return false;
        /* behind the UUID a slash, and something behind that */
        if (n < sizeof prefix - 1 + UUID_CHARS + 2 || uuid[UUID_CHARS] != '/')
                return false;
        uuid[UUID_CHARS] = '\0';
        if (bl_uuid_from_string(uuid, ret_uuid) < 0)
                return false;
        /* the way we write it, and no other: that parser is lenient about hyphens */
        bl_uuid_to_string(ret_uuid, again);
        return strcmp(uuid, again) == 0;
}

static int vhost_user_vsock_accept(int listen_fd, struct bl_agent_caller *ret, int *ret_fd)
{
        struct bl_agent_caller caller = {.has_uuid = true};
        struct sockaddr_un peer = {0};
        socklen_t len = sizeof peer;
        _cleanup_close_ int fd = -1;

        fd = bl_sock_accept(listen_fd, &peer, &len);
        if (fd < 0)
                return fd;
        if (bl_sock_check_peer(fd) < 0 || !parse_name(&peer, len, caller.uuid))
                return -EPERM;
        *ret = caller;
        *ret_fd = bl_take_fd(&fd);
        return 0;
}

const struct bl_transport bl_transport_vhost_user_vsock = {
        .name = "vhost-user-vsock",
        .listen = vhost_user_vsock_listen,
        .accept = vhost_user_vsock_accept,
};
