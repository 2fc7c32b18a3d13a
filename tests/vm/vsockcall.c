/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vsockcall: what a hostile guest can do with its vsock, for the tests.
 *
 *   vsockcall once PORT LOCAL      connects from local port LOCAL (0: any) to the
 *                                  host, sends nothing; "closed", "open" (2 s) or
 *                                  "refused: ..."
 *   vsockcall flood PORT SECONDS   connects and closes as fast as it can; a count
 *   vsockcall noise PORT SECONDS   random bytes as fast as they are taken; how many
 *   vsockcall many PORT N          makes N connections; how many are open a second later
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

static unsigned next_local = 1023;

static int call_from(unsigned port, unsigned local)
{
        struct sockaddr_vm me = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = local};
        struct sockaddr_vm host = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = port};
        const struct timeval limit = {.tv_sec = 2};
        int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

        if (fd < 0)
                return -errno;
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        if ((local != 0 && bind(fd, (struct sockaddr *)&me, sizeof me) < 0) ||
            connect(fd, (struct sockaddr *)&host, sizeof host) < 0) {
                int r = -errno;

                close(fd);
                return r;
        }
        return fd;
}

/* From a port as an agent would have. */
static int call(unsigned port)
{
        int fd = -EADDRINUSE;

        for (int i = 0; i < 300 && fd == -EADDRINUSE; i++) {
                next_local = next_local > 700 ? next_local - 1 : 1023;
                fd = call_from(port, next_local);
        }
        return fd;
}

static void once(unsigned port, unsigned local)
{
        int fd = call_from(port, local);
        char buf[256];
        ssize_t n;

        if (fd < 0) {
                printf("refused: %s\n", strerror(-fd));
                return;
        }
        while ((n = recv(fd, buf, sizeof buf, 0)) > 0)
                ;
        puts(n == 0 || errno == ECONNRESET ? "closed" : "open");
        close(fd);
}

static void flood(unsigned port, unsigned seconds)
{
        time_t end = time(NULL) + (time_t)seconds;
        unsigned made = 0, failed = 0;

        while (time(NULL) < end) {
                int fd = call(port);

                if (fd >= 0) {
                        made++;
                        close(fd);
                } else {
                        failed++;
                }
        }
        printf("made=%u failed=%u\n", made, failed);
}

static void noise(unsigned port, unsigned seconds)
{
        time_t end = time(NULL) + (time_t)seconds;
        static unsigned char buf[16384];
        unsigned long long sent = 0;
        int fd = -1;

        for (size_t i = 0; i < sizeof buf; i++)
                buf[i] = (unsigned char)rand();
        while (time(NULL) < end) {
                ssize_t n;

                if (fd < 0)
                        fd = call(port);
                n = fd < 0 ? -1 : send(fd, buf, sizeof buf, MSG_NOSIGNAL | MSG_DONTWAIT);
                sent += n > 0 ? (unsigned long long)n : 0;
                if (n < 0 && fd >= 0 && errno != EAGAIN) {
                        close(fd);
                        fd = -1;
                }
                if (n < 0)
                        usleep(fd < 0 ? 300000 : 1000);
        }
        printf("sent=%llu\n", sent);
        if (fd >= 0)
                close(fd);
}

static void many(unsigned port, unsigned n)
{
        static int fds[1024];
        unsigned open = 0;
        char c;

        for (unsigned i = 0; i < n && i < 1024; i++)
                fds[i] = call(port);
        sleep(1);
        for (unsigned i = 0; i < n && i < 1024; i++)
                while (fds[i] >= 0) {
                        ssize_t r = recv(fds[i], &c, 1, MSG_DONTWAIT);

                        if (r > 0)
                                continue;
                        open += r < 0 && errno == EAGAIN;
                        break;
                }
        printf("open=%u\n", open);
}

int main(int argc, char **argv)
{
        unsigned port, arg;

        if (argc != 4)
                return 2;
        port = (unsigned)strtoul(argv[2], NULL, 10);
        arg = (unsigned)strtoul(argv[3], NULL, 10);
        if (strcmp(argv[1], "once") == 0)
                once(port, arg);
        else if (strcmp(argv[1], "flood") == 0)
                flood(port, arg);
        else if (strcmp(argv[1], "noise") == 0)
                noise(port, arg);
        else if (strcmp(argv[1], "many") == 0)
                many(port, arg);
        else
                return 2;
        return 0;
}
