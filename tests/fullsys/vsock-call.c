/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vsock-call CID PORT FROM: connects from port FROM (0: any) over vsock, sends
 * nothing, and waits for two seconds.  Prints "closed, N bytes" (N came before),
 * "open, N bytes", or "refused: WHY".
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

static int call(unsigned cid, unsigned port, unsigned from)
{
        const struct sockaddr_vm me = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = from};
        const struct sockaddr_vm peer = {.svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port};
        const struct timeval limit = {.tv_sec = 2};
        const int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

        if (fd < 0)
                return -errno;
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        if ((from > 0 && bind(fd, (const struct sockaddr *)&me, sizeof me) < 0) ||
            connect(fd, (const struct sockaddr *)&peer, sizeof peer) < 0) {
                const int r = -errno;

                (void)close(fd);
                return r;
        }
        return fd;
}

int main(int argc, char **argv)
{
        unsigned arg[3] = {0};
        size_t bytes = 0;
        char buf[4096];
        ssize_t n;
        int fd;

        if (argc != 4) {
                fputs("usage: vsock-call CID PORT FROM\n", stderr);
                return 2;
        }
        for (int i = 0; i < 3; i++)
                arg[i] = (unsigned)strtoul(argv[i + 1], NULL, 10);
        fd = call(arg[0], arg[1], arg[2]);
        if (fd < 0) {
                printf("refused: %s\n", strerror(-fd));
                return 0;
        }
        while ((n = recv(fd, buf, sizeof buf, 0)) > 0)
                bytes += (size_t)n;
        printf("%s, %zu bytes\n", n == 0 || errno == ECONNRESET ? "closed" : "open", bytes);
        (void)close(fd);
        return 0;
}
