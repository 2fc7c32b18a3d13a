/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/store/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <ballast/cleanup.h>

#include "daemon/util/size.h"
#include "daemon/util/sock.h"

int bl_notify(const char *state)
{
        const char *name = getenv("NOTIFY_SOCKET");
        _cleanup_close_ int fd = -1;
        struct sockaddr_un a;
        socklen_t len;
        int r;

        if (!name)
                return 0;
        r = bl_sock_address(name, &a);
        if (r < 0)
                return r;
        len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name));
        if (a.sun_path[0] == '@')
                a.sun_path[0] = '\0'; /* of the abstract name space: unix(7) */
        else
                len++;
        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -errno;
        return sendto(fd, state, strlen(state), MSG_NOSIGNAL | MSG_DONTWAIT, (struct sockaddr *)&a, len) < 0 ? -errno
                                                                                                             : 0;
}

usec_t bl_notify_watchdog(void)
{
        const char *interval = getenv("WATCHDOG_USEC"), *whose = getenv("WATCHDOG_PID");
        uint64_t ret, pid;

        if (!interval || bl_uint_parse(interval, &ret) < 0)
                return 0;
        if (whose && (bl_uint_parse(whose, &pid) < 0 || pid != (uint64_t)getpid()))
                return 0;
        return ret;
}
