/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * psi-probe [--root DIR] [--kind some|full] [--stall US] [--window US] [--seconds N]
 * psi-probe --read
 *
 * Shows what the daemon's pressure reader does on the kernel it runs on.
 * Prints "totals some=US full=US", then "ready" when the trigger is armed, a
 * line "psi-event US" (since the start) each time it fires, "psi-gone" when its
 * source has gone, and last "done events=N some=US full=US".
 *
 * Exit status: 0; 3 when there is no PSI ("unsupported: WHY"), 4 when the
 * trigger is refused ("refused: WHY"), 1 when something else fails.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#include <ballast/cleanup.h>

#include "daemon/sense/psi.h"

static usec_t now(void)
{
        struct timespec t;

        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        return (usec_t)t.tv_sec * 1000000U + (usec_t)t.tv_nsec / 1000U;
}

static int fail(const char *what, int error)
{
        fprintf(stderr, "psi-probe: %s: %s\n", what, strerror(-error));
        return EXIT_FAILURE;
}

/* Until `end`: returns the number of events, or negative errno. */
static int64_t watch(int trigger, usec_t begin, usec_t end)
{
        _cleanup_close_ int loop = epoll_create1(EPOLL_CLOEXEC);
        struct epoll_event wanted = {.events = EPOLLPRI};
        int64_t events = 0;

        if (loop < 0 || epoll_ctl(loop, EPOLL_CTL_ADD, trigger, &wanted) < 0)
                return -errno;
        for (usec_t t = now(); t < end; t = now()) {
                struct epoll_event got;
                const int n = epoll_wait(loop, &got, 1, (int)((end - t + 999) / 1000));

                if (n < 0 && errno != EINTR)
                        return -errno;
                if (n <= 0)
                        continue;
                if (got.events & EPOLLERR) {
                        puts("psi-gone");
                        break;
                }
                if (got.events & EPOLLPRI) {
                        events++;
                        printf("psi-event %" PRIu64 "\n", now() - begin);
                }
        }
        return events;
}

int main(int argc, char **argv)
{
        static const struct option options[] = {
                {"root", required_argument, NULL, 'r'},
                {"kind", required_argument, NULL, 'k'},
                {"stall", required_argument, NULL, 's'},
                {"window", required_argument, NULL, 'w'},
                {"seconds", required_argument, NULL, 'n'},
                {"read", no_argument, NULL, 'R'},
                {NULL, 0, NULL, 0},
        };
        const char *root = "", *kind = "some";
        usec_t stall = 100000, window = 1000000, seconds = 10;
        const usec_t begin = now();
        struct bl_reader reader = BL_READER_INIT;
        struct bl_psi psi;
        bool only_read = false;
        int64_t events = 0;
        int c, r;

        while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
                switch (c) {
                case 'r':
                        root = optarg;
                        break;
                case 'k':
                        kind = optarg;
                        break;
                case 's':
                        stall = strtoull(optarg, NULL, 10);
                        break;
                case 'w':
                        window = strtoull(optarg, NULL, 10);
                        break;
                case 'n':
                        seconds = strtoull(optarg, NULL, 10);
                        break;
                case 'R':
                        only_read = true;
                        break;
                default:
                        return 2;
                }
        setvbuf(stdout, NULL, _IOLBF, 0);

        r = bl_psi_open(&reader, root);
        if (r == -ENOENT || r == -EOPNOTSUPP) {
                printf("unsupported: %s\n", bl_psi_why_not(r));
                return 3;
        }
        if (r < 0)
                return fail("reading memory pressure", r);
        r = bl_psi_read(&reader, &psi);
        if (r < 0)
                return fail("reading memory pressure again", r);
        printf("totals some=%" PRIu64 " full=%" PRIu64 "\n", psi.some, psi.full);

        if (!only_read) {
                _cleanup_close_ int trigger = bl_psi_trigger_open(root, kind, stall, window);

                if (trigger < 0) {
                        printf("refused: %s (%s)\n", bl_psi_why_not(trigger), strerror(-trigger));
                        return 4;
                }
                puts("ready");
                events = watch(trigger, begin, begin + seconds * 1000000U);
                if (events < 0)
                        return fail("watching", (int)events);
                /* its source may have gone meanwhile: then the totals stay what they were */
                (void)bl_psi_read(&reader, &psi);
                printf("done events=%" PRId64 " some=%" PRIu64 " full=%" PRIu64 "\n", events, psi.some, psi.full);
        }
        bl_reader_close(&reader);
        return EXIT_SUCCESS;
}
