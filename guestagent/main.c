/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ballast-agent: tells the host what this guest's memory is doing.  Static, so
 * that it runs in any guest; single-threaded; allocates nothing once it runs.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include <ballast/cleanup.h>

#include "guestagent/print.h"
#include "guestagent/session.h"

#define DEVICE_DEFAULT "/dev/virtio-ports/" BL_WIRE_PORT_NAME

struct options {
        const char *device;
        const char *root;
        bool print;
        bool once;
};

static const char help_text[] = "Usage: ballast-agent [OPTION]...\n"
                                "Report this virtual machine's memory to ballastd on its host.\n"
                                "\n"
                                "  --device PATH  virtio-serial port (default " DEVICE_DEFAULT ")\n"
                                "  --print        print reports for people instead of sending them\n"
                                "  --once         with --print: one report, then exit\n"
                                "  --root DIR     read /proc, /sys and /dev below DIR (for tests)\n"
                                "  --help         show this\n"
                                "  --version      show the version\n"
                                "\n"
                                "See ballast-agent(8).\n";

static void log_text(const char *text)
{
        (void)fprintf(stderr, "ballast-agent: %s\n", text);
}

static usec_t monotonic(void)
{
        struct timespec t;

        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        return (usec_t)t.tv_sec * BL_SEC + (usec_t)t.tv_nsec / 1000;
}

/* 1: go on; 0: done; -EINVAL: wrong usage, and said so. */
static int parse_args(int argc, char **argv, struct options *o)
{
        enum { OPT_DEVICE = 1, OPT_PRINT, OPT_ONCE, OPT_ROOT, OPT_HELP, OPT_VERSION };
        static const struct option longopts[] = {
                {"device", required_argument, NULL, OPT_DEVICE},
                {"print", no_argument, NULL, OPT_PRINT},
                {"once", no_argument, NULL, OPT_ONCE},
                {"root", required_argument, NULL, OPT_ROOT},
                {"help", no_argument, NULL, OPT_HELP},
                {"version", no_argument, NULL, OPT_VERSION},
                {NULL},
        };
        int c;

        while ((c = getopt_long(argc, argv, "", longopts, NULL)) >= 0)
                switch (c) {
                case OPT_DEVICE:
                        o->device = optarg;
                        break;
                case OPT_PRINT:
                        o->print = true;
                        break;
                case OPT_ONCE:
                        o->once = true;
                        break;
                case OPT_ROOT:
                        o->root = optarg;
                        break;
                case OPT_HELP:
                        (void)fputs(help_text, stdout);
                        return 0;
                case OPT_VERSION:
                        (void)printf("ballast-agent %s, protocol %d.%d\n", BALLAST_VERSION, BL_WIRE_MAJOR,
                                     BL_WIRE_MINOR);
                        return 0;
                default:
                        (void)fputs("Try 'ballast-agent --help'.\n", stderr);
                        return -EINVAL;
                }
        if (optind < argc || (o->once && !o->print)) {
                (void)fprintf(stderr, "ballast-agent: %s\n",
                              optind < argc ? "no arguments expected" : "--once needs --print");
                return -EINVAL;
        }
        return 1;
}

/*
 * The agent has to answer when the guest is short of memory: it must not be
 * swapped out, and must not be what the guest kills to get memory back.
 */
static void hold_on(void)
{
        _cleanup_close_ int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

        if (fd < 0 || write(fd, "-1000", 5) != 5)
                (void)fprintf(stderr, "ballast-agent: cannot exempt ourselves from the OOM killer, ignoring: %m\n");
        if (mlockall(MCL_CURRENT | MCL_FUTURE) < 0)
                (void)fprintf(stderr, "ballast-agent: cannot lock our memory, ignoring: %m\n");
}

static int open_signals(void)
{
        sigset_t set;
        int fd;

        (void)sigemptyset(&set);
        (void)sigaddset(&set, SIGTERM);
        (void)sigaddset(&set, SIGINT);
        (void)signal(SIGPIPE, SIG_IGN);
        (void)signal(SIGHUP, SIG_IGN); /* there is no configuration; and busybox starts us from a console */
        if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
                return -errno;
        fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        return fd < 0 ? -errno : fd;
}

/* False: a signal says that we should end, or poll failed. */
static bool wait_for(struct pollfd fds[2], usec_t timeout)
{
        struct timespec t = {
                .tv_sec = (time_t)(timeout / BL_SEC),
                .tv_nsec = (long)(timeout % BL_SEC) * 1000,
        };

        if (ppoll(fds, 2, &t, NULL) < 0)
                return errno == EINTR || errno == ENOMEM;
        return fds[0].revents == 0;
}

static int print_loop(struct guest_reader *reader, const struct bl_wire_hello *hello, int signals, bool once)
{
        for (;;) {
                struct pollfd fds[2] = {{.fd = signals, .events = POLLIN}, {.fd = -1}};
                struct bl_wire_stats stats;
                int r = guest_reader_read(reader, &stats);

                if (r >= 0)
                        r = guest_print_report(stdout, hello, &stats);
                if (r < 0 || once)
                        return r;
                if (!wait_for(fds, BL_WIRE_PERIOD_DEFAULT))
                        return 0;
                (void)putchar('\n');
        }
}

static void report_loop(struct guest_session *session, int signals)
{
        struct pollfd fds[2] = {{.fd = signals, .events = POLLIN}, {.fd = -1}};

        do {
                guest_session_step(session, fds[1].revents, monotonic());
                fds[1].revents = 0;
        } while (wait_for(fds, guest_session_poll(session, &fds[1], monotonic())));
}

static int run(const struct options *o)
{
        static struct guest_reader reader;
        static struct guest_session session;
        struct guest_transport transport = {.ops = &guest_virtio_serial, .device = o->device, .root = o->root};
        struct bl_wire_hello hello;
        _cleanup_close_ int signals = -1;
        int r = guest_reader_open(&reader, o->root);

        if (r < 0)
                return r;
        guest_identity(&reader, o->root, &hello);
        signals = open_signals();
        if (signals < 0)
                return signals;
        if (o->print) {
                r = print_loop(&reader, &hello, signals, o->once);
        } else {
                hold_on();
                guest_session_init(&session, &transport, &reader, &hello, log_text);
                report_loop(&session, signals);
                guest_session_end(&session);
        }
        guest_reader_close(&reader);
        return r;
}

int main(int argc, char **argv)
{
        struct options o = {.device = DEVICE_DEFAULT, .root = ""};
        int r = parse_args(argc, argv, &o);

        if (r == 0)
                return fflush(stdout) != 0 ? EXIT_FAILURE : EXIT_SUCCESS;
        if (r < 0)
                return 2;
        r = run(&o);
        if (r < 0)
                (void)fprintf(stderr, "ballast-agent: cannot report: %s\n", strerror(-r));
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
