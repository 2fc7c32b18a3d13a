/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* To the daemon: by its private socket, else by the system bus. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "daemon/bus/bus.h"
#include "daemon/ctl/ctl.h"
#include "daemon/util/sock.h"

#define SOCKET_DEFAULT "/run/ballast/ballast.sock"

static int connect_socket(const char *path, int *ret_fd)
{
        _cleanup_close_ int fd = -1;
        struct sockaddr_un a;

        if (bl_sock_address(path, &a) < 0)
                return -ENAMETOOLONG;
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -errno;
        if (connect(fd, (const struct sockaddr *)&a, sizeof(a)) < 0)
                return -errno;
        *ret_fd = bl_take_fd(&fd);
        return 0;
}

static int connect_private(struct ctl *c, const char *path)
{
        _cleanup_(sd_bus_unrefp) sd_bus *bus = NULL;
        _cleanup_close_ int fd = -1;
        int r;

        r = connect_socket(path, &fd);
        if (r < 0)
                return r;
        r = sd_bus_new(&bus);
        if (r < 0)
                return r;
        r = sd_bus_set_fd(bus, fd, fd);
        if (r < 0)
                return r;
        fd = -1;
        r = sd_bus_start(bus);
        if (r < 0)
                return r;
        c->where = strdup(path);
        if (!c->where)
                return -ENOMEM;
        c->bus = BL_TAKE(bus);
        return 0;
}

/* Only where the daemon is on it: asking must not start it. */
static int connect_system(struct ctl *c)
{
        _cleanup_(sd_bus_unrefp) sd_bus *bus = NULL;
        int r;

        r = sd_bus_open_system(&bus);
        if (r < 0)
                return r;
        r = sd_bus_get_name_creds(bus, BL_BUS_NAME, 0, NULL);
        if (r < 0)
                return r;
        c->where = strdup("the system bus");
        if (!c->where)
                return -ENOMEM;
        c->bus = BL_TAKE(bus);
        return 0;
}

bool ctl_is_reachable(struct ctl *c)
{
        return c->bus || connect_private(c, c->socket ? c->socket : SOCKET_DEFAULT) >= 0 ||
               (!c->socket && connect_system(c) >= 0);
}

enum ctl_exit ctl_connect(struct ctl *c)
{
        const char *path = c->socket ? c->socket : SOCKET_DEFAULT;
        int r;

        if (c->bus)
                return CTL_OK;
        r = connect_private(c, path);
        if (r >= 0)
                return CTL_OK;
        if (!c->socket && connect_system(c) >= 0)
                return CTL_OK;
        if (r == -EACCES || r == -EPERM) {
                ctl_error("not permitted to connect to ballastd at %s: only root and members of group '%s' may; "
                          "try with sudo",
                          path, BL_BUS_GROUP);
                return CTL_NOT_PERMITTED;
        }
        ctl_error("cannot reach ballastd at %s: %s; is it running? (systemctl status ballastd)", path, strerror(-r));
        return CTL_UNREACHABLE;
}
