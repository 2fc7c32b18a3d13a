// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The observer: looks from outside at how much memory QEMU processes have,
 * every few milliseconds, and says on the wall clock (QEMU's trace uses that
 * too) when the sum rises above a mark.  It shares no code with the daemon, so
 * that a mistake there is not made here again.
 *
 *      bench-observe --interval-us N --mark BYTES [--mark BYTES] --raw FILE PID...
 *
 * Prints "cross MARK T_US USED" each time that a mark is crossed upwards, and
 * "below MARK T_US USED" downwards.  Ends at SIGTERM; then prints "end SAMPLES
 * LONGEST_GAP_US", so that whoever uses the figures can see that it kept up.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define MAX_PIDS  64
#define MAX_MARKS 8

static volatile sig_atomic_t ending;

static void on_term(int sig)
{
        (void)sig;
        ending = 1;
}

static uint64_t wall_us(void)
{
        struct timespec t;

        (void)clock_gettime(CLOCK_REALTIME, &t);
        return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static uint64_t field(const char *text, const char *name)
{
        const char *p = strstr(text, name);

        return p ? strtoull(p + strlen(name), NULL, 10) * 1024 : 0;
}

/* RssAnon + RssShmem; 0 for a process that has ended. */
static uint64_t resident(int fd)
{
        char text[4096];
        ssize_t n = pread(fd, text, sizeof text - 1, 0);

        if (n <= 0)
                return 0;
        text[n] = '\0';
        return field(text, "\nRssAnon:") + field(text, "\nRssShmem:");
}

static uint64_t number(const char *s, const char *what)
{
        char *end;
        uint64_t v;

        errno = 0;
        v = strtoull(s, &end, 10);
        if (errno || *end || end == s) {
                fprintf(stderr, "bench-observe: %s: '%s' is no number\n", what, s);
                exit(2);
        }
        return v;
}

int main(int argc, char **argv)
{
        static const struct option options[] = {
                {"interval-us", required_argument, NULL, 'i'},
                {"mark", required_argument, NULL, 'm'},
                {"raw", required_argument, NULL, 'r'},
                {0},
        };
        struct sigaction sa = {.sa_handler = on_term};
        uint64_t interval = 4000, marks[MAX_MARKS], samples = 0, gap = 0, last = 0;
        bool above[MAX_MARKS] = {0};
        int n_marks = 0, n = 0, fds[MAX_PIDS], c;
        struct timespec next;
        FILE *raw = NULL;

        while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0)
                switch (c) {
                case 'i':
                        interval = number(optarg, "interval");
                        break;
                case 'm':
                        if (n_marks < MAX_MARKS)
                                marks[n_marks++] = number(optarg, "mark");
                        break;
                case 'r':
                        raw = fopen(optarg, "we");
                        if (!raw) {
                                perror(optarg);
                                return 1;
                        }
                        break;
                default:
                        return 2;
                }
        for (int i = optind; i < argc && n < MAX_PIDS; i++) {
                char path[64];

                (void)snprintf(path, sizeof path, "/proc/%" PRIu64 "/status", number(argv[i], "pid"));
                fds[n] = open(path, O_RDONLY | O_CLOEXEC);
                if (fds[n] < 0) {
                        perror(path);
                        return 1;
                }
                n++;
        }
        (void)sigaction(SIGTERM, &sa, NULL);
        (void)sigaction(SIGINT, &sa, NULL);
        /* it must not be late because the guests are busy */
        (void)setpriority(PRIO_PROCESS, 0, -20);
        (void)setvbuf(stdout, NULL, _IOLBF, 0);
        (void)clock_gettime(CLOCK_MONOTONIC, &next);
        while (!ending) {
                uint64_t used = 0, now;

                for (int i = 0; i < n; i++)
                        used += resident(fds[i]);
                now = wall_us();
                if (last && now - last > gap)
                        gap = now - last;
                last = now;
                samples++;
                if (raw)
                        fprintf(raw, "%" PRIu64 " %" PRIu64 "\n", now, used);
                for (int i = 0; i < n_marks; i++)
                        if ((used > marks[i]) != above[i]) {
                                above[i] = !above[i];
                                printf("%s %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", above[i] ? "cross" : "below",
                                       marks[i], now, used);
                        }
                next.tv_nsec += (long)(interval * 1000);
                while (next.tv_nsec >= 1000000000) {
                        next.tv_nsec -= 1000000000;
                        next.tv_sec++;
                }
                (void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
        }
        printf("end %" PRIu64 " %" PRIu64 "\n", samples, gap);
        if (raw)
                (void)fclose(raw);
        return 0;
}
