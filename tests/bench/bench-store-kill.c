/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench-store-kill CONTROL PID: kills a serving ballast-store (SIGKILL) when requests are under way
 * in it, and waits for the next one to serve one.
 *
 * Prints one JSON object: what the store said last (bytes held, of which VM, age of the oldest
 * request under way, 0 if none was seen in 200 ms), and how long it was from the kill to the first
 * request that the next one has served, as it says itself (its counters begin at 0).  Exit: 1 when
 * nothing was served within 60 s.
 */
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include "daemon/store/control.h"
#include "tests/bench/store-bench.h"

#define LIMIT          (60 * BL_SEC)
#define IN_FLIGHT_WAIT (200 * BL_MSEC)

static int call(const char *path)
{
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        struct timeval limit = {.tv_sec = 60};
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
        if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0 ||
            connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
                die(path);
        return fd;
}

/* Every packet of an answer; the first is kept.  false: the connection broke. */
static bool status(int fd, struct bl_store_reply *ret)
{
        static struct bl_store_reply r;
        const struct bl_store_request q = {.magic = BL_STORE_CONTROL_MAGIC, .op = BL_STORE_OP_STATUS};
        if (send(fd, &q, sizeof q, MSG_NOSIGNAL) != (ssize_t)sizeof q)
                return false;
        for (bool first = true;; first = false) {
                if (recv(fd, &r, sizeof r, 0) != (ssize_t)sizeof r)
                        return false;
                if (first)
                        *ret = r;
                if (!r.more)
                        return true;
        }
}

int main(int argc, char **argv)
{
        static struct bl_store_reply before, after;
        if (argc != 3) {
                fprintf(stderr, "usage: bench-store-kill CONTROL PID\n");
                return 2;
        }
        pid_t pid = atoi(argv[2]);
        int fd = call(argv[1]);
        usec_t begun = clock_us(CLOCK_MONOTONIC);
        do {
                if (!status(fd, &before))
                        die("status");
        } while (before.figures.oldest_request == 0 && clock_us(CLOCK_MONOTONIC) - begun < IN_FLIGHT_WAIT);
        if (kill(pid, SIGKILL) < 0)
                die("kill");
        usec_t killed = clock_us(CLOCK_MONOTONIC);
        close(fd);
        for (bool served = false; !served;) {
                if (clock_us(CLOCK_MONOTONIC) - killed > LIMIT)
                        break;
                fd = call(argv[1]);
                /* the old one's last words, or the next one's */
                while (!served && status(fd, &after)) {
                        served = after.figures.reads + after.figures.writes + after.figures.trims > 0 &&
                                 kill(pid, 0) < 0;
                        if (!served)
                                usleep(1000);
                        if (clock_us(CLOCK_MONOTONIC) - killed > LIMIT)
                                break;
                }
                close(fd);
        }
        usec_t took = clock_us(CLOCK_MONOTONIC) - killed;
        printf("{\"held\": %" PRIu64 ", \"zero\": %" PRIu64 ", \"pool_used\": %" PRIu64
               ", \"oldest_request_us\": %" PRIu64 ", \"resume_us\": %" PRIu64 ", \"held_by\": {",
               before.figures.held, before.figures.zero, before.figures.pool_used, before.figures.oldest_request, took);
        for (uint32_t i = 0; i < before.n_vms && i < BL_STORE_REPLY_VMS; i++)
                printf("%s\"%d\": %" PRIu64, i > 0 ? ", " : "", (int)before.vms[i].pid, before.vms[i].held);
        printf("}}\n");
        return took > LIMIT;
}
