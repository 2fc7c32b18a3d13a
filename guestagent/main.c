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
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <ballast/cleanup.h>

#include <linux/vm_sockets.h>

#include "guestagent/clock.h"
#include "guestagent/print.h"
#include "guestagent/session.h"

#define DEVICE_DEFAULT "/dev/virtio-ports/" BL_WIRE_PORT_NAME

#ifndef MCL_ONFAULT
#define MCL_ONFAULT 4
#endif

struct options {
        const char *device;
        const char *root;
        const char *status_file;
        uint32_t cid;
        bool vsock, virtio_serial;
        bool print;
        bool once;
        bool status;
        bool json;
};

static const char help_text[] = "Usage: ballast-agent [OPTION]...\n"
                                "       ballast-agent status [--json] [--status-file PATH]\n"
                                "Report this virtual machine's memory to ballastd on its host, and ask for more\n"
                                "where it runs short; or show what the host grants it.\n"
                                "\n"
                                "  --transport NAME    auto: vsock, else virtio-serial (default); or one of them\n"
                                "  --device PATH       virtio-serial port (default " DEVICE_DEFAULT ")\n"
                                "  --cid N             vsock: whom to call (default 2, the host)\n"
                                "  --status-file PATH  what the host said (default " GUEST_STATUS_FILE ")\n"
                                "  --json              with status: as JSON\n"
                                "  --print             print reports for people instead of sending them\n"
                                "  --once              with --print: one report, then exit\n"
                                "  --root DIR          read /proc, /sys and /dev below DIR (for tests)\n"
                                "  --help              show this\n"
                                "  --version           show the version\n"
                                "\n"
                                "See ballast-agent(8).\n";

static void log_text(const char *text)
{
        (void)fprintf(stderr, "ballast-agent: %s\n", text);
}

static bool parse_cid(const char *text, uint32_t *ret)
{
        char *end;
        unsigned long v;

        errno = 0;
        v = strtoul(text, &end, 10);
        if (errno != 0 || end == text || *end != '\0' || *text == '-' || v >= UINT32_MAX)
                return false;
        *ret = (uint32_t)v;
        return true;
}

static bool parse_transport(const char *text, struct options *o)
{
        bool all = strcmp(text, "auto") == 0;

        o->vsock = all || strcmp(text, guest_vsock.name) == 0;
        o->virtio_serial = all || strcmp(text, guest_virtio_serial.name) == 0;
        return o->vsock || o->virtio_serial;
}

/* What does not go together; NULL: nothing. */
static const char *check_args(int argc, char **argv, struct options *o)
{
        if (optind < argc && strcmp(argv[optind], "status") == 0) {
                o->status = true;
                optind++;
        }
        if (optind < argc)
                return "no such command, or too many";
        if (o->once && !o->print)
                return "--once needs --print";
        if (o->json && !o->status)
                return "--json needs status";
        return o->print && o->status ? "--print does not go with status" : NULL;
}

/* 1: go on; 0: done; -EINVAL: wrong usage, and said so. */
static int parse_args(int argc, char **argv, struct options *o)
{
        enum {
                OPT_TRANSPORT = 1,
                OPT_DEVICE,
                OPT_CID,
                OPT_STATUS_FILE,
                OPT_JSON,
                OPT_PRINT,
                OPT_ONCE,
                OPT_ROOT,
                OPT_HELP,
                OPT_VERSION
        };
        static const struct option longopts[] = {
                {"transport", required_argument, NULL, OPT_TRANSPORT},
                {"device", required_argument, NULL, OPT_DEVICE},
                {"cid", required_argument, NULL, OPT_CID},
                {"status-file", required_argument, NULL, OPT_STATUS_FILE},
                {"json", no_argument, NULL, OPT_JSON},
                {"print", no_argument, NULL, OPT_PRINT},
                {"once", no_argument, NULL, OPT_ONCE},
                {"root", required_argument, NULL, OPT_ROOT},
                {"help", no_argument, NULL, OPT_HELP},
                {"version", no_argument, NULL, OPT_VERSION},
                {NULL},
        };
        const char *wrong = NULL;
        int c;

        while (!wrong && (c = getopt_long(argc, argv, "", longopts, NULL)) >= 0)
                switch (c) {
                case OPT_TRANSPORT:
                        if (!parse_transport(optarg, o))
                                wrong = "--transport is auto, vsock or virtio-serial";
                        break;
                case OPT_DEVICE:
                        o->device = optarg;
                        break;
                case OPT_CID:
                        if (!parse_cid(optarg, &o->cid))
                                wrong = "--cid is a number";
                        break;
                case OPT_STATUS_FILE:
                        o->status_file = optarg;
                        break;
                case OPT_JSON:
                        o->json = true;
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
        if (!wrong)
                wrong = check_args(argc, argv, o);
        if (!wrong)
                return 1;
        (void)fprintf(stderr, "ballast-agent: %s\n", wrong);
        return -EINVAL;
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
        /* what it has touched stays; Linux before 4.4 cannot leave the rest out */
        if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) < 0 && mlockall(MCL_CURRENT | MCL_FUTURE) < 0)
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
static bool wait_for(struct pollfd *fds, nfds_t n, int signals, usec_t timeout)
{
        struct timespec t = {
                .tv_sec = (time_t)(timeout / BL_SEC),
                .tv_nsec = (long)(timeout % BL_SEC) * 1000,
        };

        fds[n - 1] = (struct pollfd){.fd = signals, .events = POLLIN};
        if (ppoll(fds, n, &t, NULL) >= 0)
                return fds[n - 1].revents == 0;
        for (nfds_t i = 0; i < n; i++)
                fds[i].revents = 0;
        return errno == EINTR || errno == ENOMEM;
}

static int print_loop(struct guest_reader *reader, const struct bl_wire_hello *hello, int signals, bool once)
{
        for (;;) {
                struct pollfd fd;
                struct bl_wire_stats stats;
                int r = guest_reader_read(reader, &stats);

                if (r >= 0)
                        r = guest_print_report(stdout, hello, &stats);
                if (r < 0 || once)
                        return r;
                if (!wait_for(&fd, 1, signals, BL_WIRE_PERIOD_DEFAULT))
                        return 0;
                (void)putchar('\n');
        }
}

static void report_loop(struct guest_session *session, int signals)
{
        struct pollfd fds[_GUEST_POLL_MAX + 1] = {0};
        usec_t wait;

        do {
                guest_session_step(session, fds, guest_clock(CLOCK_MONOTONIC));
                wait = guest_session_poll(session, fds, guest_clock(CLOCK_MONOTONIC));
        } while (wait_for(fds, _GUEST_POLL_MAX + 1, signals, wait));
}

static void report(const struct options *o, struct guest_reader *reader, const struct bl_wire_hello *hello, int signals)
{
        static struct guest_session session;
        struct guest_transport vsock = {.ops = &guest_vsock, .device = "vsock", .root = o->root, .cid = o->cid};
        struct guest_transport port = {.ops = &guest_virtio_serial, .device = o->device, .root = o->root};
        struct guest_transport *transports[GUEST_LINES];
        unsigned n = 0;

        if (o->vsock)
                transports[n++] = &vsock;
        if (o->virtio_serial)
                transports[n++] = &port;
        hold_on();
        guest_session_init(&session, &(struct guest_setup){
                                             .transports = transports,
                                             .n_transports = n,
                                             .reader = reader,
                                             .hello = hello,
                                             .root = o->root,
                                             .status_file = o->status_file,
                                             .log = log_text,
                                     });
        report_loop(&session, signals);
        guest_session_end(&session);
}

static int run(const struct options *o)
{
        static struct guest_reader reader;
        struct bl_wire_hello hello;
        _cleanup_close_ int signals = -1;
        int r = guest_reader_open(&reader, o->root);

        if (r < 0)
                return r;
        guest_identity(&reader, o->root, &hello);
        signals = open_signals();
        if (signals < 0)
                return signals;
        if (o->print)
                r = print_loop(&reader, &hello, signals, o->once);
        else
                report(o, &reader, &hello, signals);
        guest_reader_close(&reader);
        return r;
}

static int show_status(const struct options *o)
{
        const char *why = NULL;
        int r = guest_status_print(stdout, o->status_file, o->json, &why);

        if (r == 1)
                (void)fprintf(stderr, "ballast-agent: %s\n", why);
        else if (r < 0)
                (void)fprintf(stderr, "ballast-agent: %s: %s\n", o->status_file, strerror(-r));
        return r == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
        struct options o = {
                .device = DEVICE_DEFAULT,
                .root = "",
                .status_file = GUEST_STATUS_FILE,
                .cid = VMADDR_CID_HOST,
                .vsock = true,
                .virtio_serial = true,
        };
        int r = parse_args(argc, argv, &o);

        if (r == 0)
                return fflush(stdout) != 0 ? EXIT_FAILURE : EXIT_SUCCESS;
        if (r < 0)
                return 2;
        if (o.status)
                return show_status(&o);
        r = run(&o);
        if (r < 0)
                (void)fprintf(stderr, "ballast-agent: cannot report: %s\n", strerror(-r));
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
