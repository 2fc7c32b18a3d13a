/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * guestcall SOCKET SECONDS COMMAND - one request to guestcmd in a guest.
 *
 * Connects to the Unix socket behind the guest's second serial line, sends the
 * command with a tag of its own and prints the reply that carries that tag, so
 * that a late reply to an earlier request is passed over. Debian's base has
 * nothing that speaks to a Unix socket with a time limit; a shell would need
 * socat.
 *
 * Exit: 0 "ok ...", 1 "error ...", 2 usage or no connection, 124 time limit.
 */
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static int64_t now_ms(void)
{
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* True when fd is ready for `events` before the deadline. */
static bool wait_for(int fd, short events, int64_t deadline)
{
        struct pollfd p = {.fd = fd, .events = events};
        int64_t left = deadline - now_ms();
        return left > 0 && poll(&p, 1, (int)left) > 0;
}

int main(int argc, char **argv)
{
        struct sockaddr_un addr = {.sun_family = AF_UNIX};
        char request[4096], line[8192];
        size_t len = 0;
        if (argc != 4 || strlen(argv[1]) >= sizeof addr.sun_path || strchr(argv[3], '\n') != NULL) {
                fprintf(stderr, "usage: guestcall SOCKET SECONDS COMMAND\n");
                return 2;
        }
        memcpy(addr.sun_path, argv[1], strlen(argv[1]));
        int64_t deadline = now_ms() + (int64_t)(strtod(argv[2], NULL) * 1000);
        int tag_len = snprintf(request, sizeof request, "@%lx.%d ", (long)time(NULL), (int)getpid());
        int n = snprintf(request + tag_len, sizeof request - (size_t)tag_len, "%s\n", argv[3]) + tag_len;
        if (n >= (int)sizeof request) {
                fprintf(stderr, "guestcall: command too long\n");
                return 2;
        }
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof addr) < 0) {
                fprintf(stderr, "guestcall: %s: %s\n", argv[1], strerror(errno));
                return 2;
        }
        /* A request fits the socket's buffer: no partial write. */
        if (!wait_for(fd, POLLOUT, deadline) || send(fd, request, (size_t)n, MSG_NOSIGNAL) != n) {
                fprintf(stderr, "guestcall: cannot send\n");
                return 124;
        }
        while (wait_for(fd, POLLIN, deadline)) {
                ssize_t got = read(fd, line + len, sizeof line - len - 1);
                if (got <= 0) {
                        fprintf(stderr, "guestcall: guest went away\n");
                        return 2;
                }
                len += (size_t)got;
                line[len] = '\0';
                char *start = line, *end;
                while ((end = strchr(start, '\n')) != NULL) {
                        *end = '\0';
                        if (strncmp(start, request, (size_t)tag_len) == 0) {
                                puts(start + tag_len);
                                return strncmp(start + tag_len, "ok", 2) == 0 ? 0 : 1;
                        }
                        start = end + 1;
                }
                len = strlen(start);
                memmove(line, start, len + 1);
                len = len < sizeof line - 1 ? len : 0;
        }
        fprintf(stderr, "guestcall: no reply within %s s: %s\n", argv[2], argv[3]);
        return 124;
}
