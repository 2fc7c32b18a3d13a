/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench-channel: what the agents' channel costs and how fast it is, each as one
 * JSON object on standard output.
 *
 *      bench-channel agents N SECONDS
 *              N agents in another process, each on a Unix socket with a report
 *              a second; what this process needs for its end of them
 *      bench-channel rtt TRANSPORT PLACE [PINGS]
 *              round trips to the agent of a guest, from BL_ACTION_PING to its
 *              result.  virtio-serial: PLACE is QEMU's socket; vhost-user-vsock:
 *              where ballastd would listen; vhost-vsock: "-".  No ballastd runs.
 *      bench-channel stamp FILE...
 *              not JSON: a line for each line that is added to one of the files,
 *              "FIRST_US LAST_US FILE LINE": when its first byte and its end were
 *              seen, on the wall clock, which QEMU's trace uses too.  Until it is killed.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <ballast/cleanup.h>

#include "daemon/channel/agent.h"
#include "daemon/channel/vhost_user_vsock.h"
#include "daemon/channel/vhost_vsock.h"
#include "daemon/channel/virtio_serial.h"
#include "daemon/util/clock.h"

#define AGENTS_MAX  10000U
#define SETTLE      (3 * BL_SEC) /* greetings are over, and every agent has reported twice */
#define HELLO_LIMIT (30 * BL_SEC) /* for a guest's agent to come back to a host that went away */
#define PING_LIMIT  (5 * BL_SEC)
#define PING_GAP    (10 * BL_MSEC) /* well below BL_AGENT_RATE, which would slow it down */
#define PINGS       500U
#define PINGS_MAX   100000U
#define FILES_MAX   16

static _Noreturn void die(const char *what, int error)
{
        (void)fprintf(stderr, "bench-channel: %s: %s\n", what, strerror(error));
        exit(1);
}

static uint64_t number(const char *s, uint64_t max)
{
        char *end;
        uint64_t v;

        errno = 0;
        v = strtoull(s, &end, 10);
        if (errno || *end || end == s || v == 0 || v > max) {
                (void)fprintf(stderr, "bench-channel: '%s' is no number from 1 to %" PRIu64 "\n", s, max);
                exit(2);
        }
        return v;
}

static sd_event *loop_new(void)
{
        sd_event *e;
        int r = sd_event_new(&e);

        if (r < 0)
                die("event loop", -r);
        return e;
}

static void loop_run(sd_event *e, usec_t limit)
{
        int r = sd_event_run(e, limit);

        if (r < 0)
                die("event loop", -r);
}

static void loop_until(sd_event *e, usec_t end)
{
        for (usec_t now = bl_now(); now < end; now = bl_now())
                loop_run(e, end - now);
}

/* --- agents: the guests' side, in a process of its own ------------------------------ */

static size_t hello_frame(uint8_t *buf)
{
        struct bl_wire_hello h = {
                .major = BL_WIRE_MAJOR,
                .minor = BL_WIRE_MINOR,
                .features = BL_WIRE_FEATURE_PSI | BL_WIRE_FEATURE_REQUEST,
                .version = BALLAST_VERSION,
                .kernel = "6.1.0-18-cloud-amd64",
        };
        int n = bl_wire_encode_hello(&h, buf, BL_WIRE_FRAME_MAX);

        if (n < 0)
                die("hello", -n);
        return (size_t)n;
}

/* As a Linux 6.1 guest reports: everything is known, and changes a little. */
static size_t stats_frame(uint8_t *buf, uint64_t sequence)
{
        struct bl_wire_stats s;
        int n;

        bl_wire_stats_init(&s);
        for (int i = BL_STAT_UPTIME; i < _BL_STAT_MAX; i++)
                s.v[i] = (uint64_t)i * BL_MIB + sequence * 4 * BL_KIB;
        s.v[BL_STAT_SEQUENCE] = sequence;
        s.v[BL_STAT_MEM_TOTAL] = 2 * BL_GIB;
        s.v[BL_STAT_MEM_AVAILABLE] = BL_GIB + sequence % 64 * BL_MIB;
        n = bl_wire_encode_stats(&s, buf, BL_WIRE_FRAME_MAX);
        if (n < 0)
                die("stats", -n);
        return (size_t)n;
}

static void send_frame(int fd, const uint8_t *buf, size_t size)
{
        if (send(fd, buf, size, MSG_NOSIGNAL) != (ssize_t)size)
                die("send", errno);
}

/* Each reports once a second, all of them spread over it, until it is killed. */
static _Noreturn void play_agents(const int *fds, size_t n)
{
        uint8_t buf[BL_WIRE_FRAME_MAX], in[BL_WIRE_FRAME_MAX];
        size_t size = hello_frame(buf);
        usec_t start;

        for (size_t i = 0; i < n; i++)
                send_frame(fds[i], buf, size);
        start = bl_now();
        for (uint64_t sequence = 1;; sequence++) {
                for (size_t i = 0; i < n; i++) {
                        usec_t due = start + sequence * BL_SEC + i * BL_SEC / n, now = bl_now();

                        if (due > now)
                                (void)usleep((useconds_t)(due - now));
                        while (recv(fds[i], in, sizeof in, MSG_DONTWAIT) > 0)
                                ;
                        size = stats_frame(buf, sequence);
                        send_frame(fds[i], buf, size);
                }
        }
}

/* --- agents: the host's side -------------------------------------------------------- */

struct crowd {
        uint64_t reports;
        size_t up, closed;
};

static void crowd_hello(struct bl_agent *a, const struct bl_wire_hello *h, void *userdata)
{
        struct crowd *c = userdata;

        (void)h;
        c->up++;
        bl_agent_set_period(a, BL_SEC);
}

/* Its grant changes with each report, as it does where memory moves. */
static void crowd_stats(struct bl_agent *a, const struct bl_guest_stats *s, void *userdata)
{
        struct crowd *c = userdata;
        struct bl_wire_entitlement e;

        c->reports++;
        bl_wire_entitlement_init(&e);
        e.v[BL_GRANT_MAX] = e.v[BL_GRANT_LIMIT] = 2 * BL_GIB;
        e.v[BL_GRANT_RESERVATION] = 0;
        e.v[BL_GRANT_SHARES] = 20480;
        e.v[BL_GRANT_TARGET] = e.v[BL_GRANT_ACTUAL] = 2 * BL_GIB;
        e.v[BL_GRANT_RESIDENT] = s->total - s->available;
        e.v[BL_GRANT_STATE] = 0;
        e.v[BL_GRANT_MANAGED] = 1;
        bl_agent_set_entitlement(a, &e);
}

static void crowd_closed(struct bl_agent *a, int error, void *userdata)
{
        struct crowd *c = userdata;

        (void)a;
        (void)error;
        c->closed++;
}

static const struct bl_agent_handlers crowd_handlers = {
        .hello = crowd_hello, .stats = crowd_stats, .closed = crowd_closed};

static uint64_t heap_bytes(void)
{
        struct mallinfo2 m = mallinfo2();

        return m.uordblks + m.hblkhd;
}

static uint64_t resident_bytes(void)
{
        _cleanup_fclose_ FILE *f = fopen("/proc/self/statm", "re");
        uint64_t pages = 0;

        if (!f || fscanf(f, "%*u %" SCNu64, &pages) != 1)
                die("/proc/self/statm", EIO);
        return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static usec_t cpu_used(void)
{
        struct rusage r;

        (void)getrusage(RUSAGE_SELF, &r);
        return (usec_t)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) * BL_SEC +
               (usec_t)(r.ru_utime.tv_usec + r.ru_stime.tv_usec);
}

/* The sockets, of which each process keeps its half; the other process's pid. */
static pid_t start_agents(int *host, int *guest, size_t n)
{
        struct rlimit l = {.rlim_cur = 2 * n + 64, .rlim_max = 2 * n + 64};
        pid_t pid;

        if (setrlimit(RLIMIT_NOFILE, &l) < 0)
                die("RLIMIT_NOFILE", errno);
        for (size_t i = 0; i < n; i++) {
                int pair[2];

                if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
                        die("socketpair", errno);
                host[i] = pair[0];
                guest[i] = pair[1];
        }
        pid = fork();
        if (pid < 0)
                die("fork", errno);
        for (size_t i = 0; i < n; i++)
                (void)close(pid == 0 ? host[i] : guest[i]);
        if (pid == 0)
                play_agents(guest, n);
        return pid;
}

static int run_agents(int argc, char **argv)
{
        size_t n = argc == 2 ? number(argv[0], AGENTS_MAX) : 0;
        usec_t span = argc == 2 ? number(argv[1], 3600) * BL_SEC : 0, from, cpu;
        static int host[AGENTS_MAX], guest[AGENTS_MAX];
        static struct bl_agent *agents[AGENTS_MAX];
        uint64_t heap, resident;
        struct crowd c = {0};
        sd_event *e;
        pid_t pid;

        if (n == 0)
                return 2;
        pid = start_agents(host, guest, n);
        e = loop_new();
        loop_run(e, 0);
        heap = heap_bytes();
        resident = resident_bytes();
        for (size_t i = 0; i < n; i++) {
                int r = bl_agent_open(e, host[i], &crowd_handlers, &c, &agents[i]);

                if (r < 0)
                        die("agent", -r);
        }
        loop_until(e, bl_now() + SETTLE);
        heap = bl_sub_sat(heap_bytes(), heap);
        resident = bl_sub_sat(resident_bytes(), resident);
        c.reports = 0;
        from = bl_now();
        cpu = cpu_used();
        loop_until(e, from + span);
        cpu = cpu_used() - cpu;
        span = bl_now() - from;
        (void)printf("{\"agents\": %zu, \"up\": %zu, \"lost\": %zu, \"seconds\": %.1f, \"reports_per_s\": %.1f, "
                     "\"cpu_percent\": %.3f, \"us_per_report\": %.2f, \"heap_bytes_per_agent\": %.0f, "
                     "\"rss_bytes_per_agent\": %.0f}\n",
                     n, c.up, c.closed, (double)span / 1e6, (double)c.reports * 1e6 / (double)span,
                     (double)cpu * 100 / (double)span, (double)cpu / (double)bl_max(c.reports, 1U),
                     (double)heap / (double)n, (double)resident / (double)n);
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, 0);
        for (size_t i = 0; i < n; i++)
                (void)bl_agent_free(agents[i]);
        (void)sd_event_unref(e);
        return c.up == n && c.closed == 0 ? 0 : 1;
}

/* --- rtt ---------------------------------------------------------------------------- */

static const struct bl_transport *const transports[] = {
        &bl_transport_virtio_serial,
        &bl_transport_vhost_user_vsock,
        &bl_transport_vhost_vsock,
};

struct trip {
        bool up, answered, closed;
        uint64_t status;
        usec_t at;
};

static void trip_hello(struct bl_agent *a, const struct bl_wire_hello *h, void *userdata)
{
        (void)a;
        ((struct trip *)userdata)->up = h->major == BL_WIRE_MAJOR;
}

static void trip_result(struct bl_agent *a, enum bl_wire_action_kind kind, const struct bl_wire_result *r,
                        void *userdata)
{
        struct trip *t = userdata;

        (void)a;
        (void)kind;
        t->at = bl_now();
        t->status = r->status;
        t->answered = true;
}

static void trip_closed(struct bl_agent *a, int error, void *userdata)
{
        (void)a;
        (void)error;
        ((struct trip *)userdata)->closed = true;
}

static const struct bl_agent_handlers trip_handlers = {
        .hello = trip_hello, .result = trip_result, .closed = trip_closed};

/* Waits for whichever guest calls first. */
static int wait_for_call(const struct bl_transport *t, const char *place, usec_t end)
{
        int listener, fd, r = t->listen(place, &listener);

        if (r < 0)
                die(t->name, -r);
        while (bl_now() < end) {
                struct bl_agent_caller caller;

                r = t->accept(listener, &caller, &fd);
                if (r >= 0) {
                        (void)close(listener);
                        return fd;
                }
                if (r != -EAGAIN && r != -EPERM)
                        die(t->name, -r);
                (void)usleep(10000);
        }
        die("no guest has called", ETIMEDOUT);
}

static int reach(const struct bl_transport *t, const char *place, usec_t end)
{
        struct bl_agent_address address = {.socket_path = place};
        int fd, r;

        if (!t->connect)
                return wait_for_call(t, place, end);
        r = t->connect(&address, &fd);
        if (r < 0)
                die(place, -r);
        return fd;
}

/* One round trip; 0: the agent did not do it. */
static usec_t ping(sd_event *e, struct bl_agent *a, struct trip *t)
{
        const struct bl_wire_action action = {.kind = BL_ACTION_PING, .bytes = BL_UNSET};
        usec_t from = bl_now();
        int r;

        t->answered = false;
        r = bl_agent_act(a, &action);
        if (r < 0)
                die("ping", -r);
        while (!t->answered && !t->closed && bl_now() < from + PING_LIMIT)
                loop_run(e, PING_LIMIT);
        if (!t->answered)
                die("ping", t->closed ? EPIPE : ETIMEDOUT);
        return t->status == BL_RESULT_DONE ? t->at - from : 0;
}

static int compare(const void *a, const void *b)
{
        usec_t x = *(const usec_t *)a, y = *(const usec_t *)b;

        return x < y ? -1 : x > y;
}

static const struct bl_transport *find_transport(const char *name)
{
        for (size_t i = 0; i < sizeof transports / sizeof *transports; i++)
                if (strcmp(transports[i]->name, name) == 0)
                        return transports[i];
        return NULL;
}

static int run_rtt(int argc, char **argv)
{
        const struct bl_transport *transport = argc == 2 || argc == 3 ? find_transport(argv[0]) : NULL;
        size_t pings = argc == 3 ? number(argv[2], PINGS_MAX) : PINGS, n = 0;
        static usec_t us[PINGS_MAX];
        struct bl_agent *a;
        struct trip t = {0};
        sd_event *e;
        usec_t end;
        int r;

        if (!transport)
                return 2;
        e = loop_new();
        end = bl_now() + HELLO_LIMIT;
        r = bl_agent_open(e, reach(transport, argv[1], end), &trip_handlers, &t, &a);
        if (r < 0)
                die("agent", -r);
        while (!t.up && !t.closed && bl_now() < end)
                loop_run(e, 100 * BL_MSEC);
        if (!t.up)
                die("no hello", t.closed ? EPIPE : ETIMEDOUT);
        for (size_t i = 0; i < pings; i++) {
                loop_until(e, bl_now() + PING_GAP);
                us[n] = ping(e, a, &t);
                n += us[n] > 0;
        }
        (void)bl_agent_free(a);
        (void)sd_event_unref(e);
        if (n == 0)
                die("the agent does not answer pings", EOPNOTSUPP);
        qsort(us, n, sizeof *us, compare);
        (void)printf("{\"transport\": \"%s\", \"p50\": %" PRIu64 ", \"p99\": %" PRIu64 ", \"max\": %" PRIu64
                     ", \"n\": %zu, \"refused\": %zu}\n",
                     transport->name, us[n / 2], us[(n * 99 + 99) / 100 - 1], us[n - 1], n, pings - n);
        return n == pings ? 0 : 1;
}

/* --- stamp -------------------------------------------------------------------------- */

struct watched {
        const char *path;
        int fd, wd;
        char line[512];
        size_t len;
        usec_t first;
};

/* What is new in the file, cut into lines; a long one loses its end. */
static void read_new(struct watched *w)
{
        usec_t now = bl_now_wall();
        char buf[4096];
        ssize_t n;

        while ((n = read(w->fd, buf, sizeof buf)) > 0)
                for (ssize_t i = 0; i < n; i++) {
                        if (w->first == 0)
                                w->first = now;
                        if (buf[i] == '\n') {
                                (void)printf("%" PRIu64 " %" PRIu64 " %s %.*s\n", w->first, now, w->path, (int)w->len,
                                             w->line);
                                w->first = 0;
                                w->len = 0;
                        } else if (buf[i] != '\r' && w->len < sizeof w->line) {
                                w->line[w->len++] = buf[i];
                        }
                }
}

static void read_events(int fd, struct watched *w, int n)
{
        _Alignas(struct inotify_event) char buf[4096];
        ssize_t size = read(fd, buf, sizeof buf);

        for (ssize_t i = 0; i < size;) {
                const struct inotify_event *event = (const struct inotify_event *)(const void *)(buf + i);

                for (int k = 0; k < n; k++)
                        if (w[k].wd == event->wd)
                                read_new(&w[k]);
                i += (ssize_t)(sizeof *event + event->len);
        }
}

static int run_stamp(int argc, char **argv)
{
        static struct watched w[FILES_MAX];
        int fd = inotify_init1(IN_CLOEXEC);

        if (argc < 1 || argc > FILES_MAX)
                return 2;
        if (fd < 0)
                die("inotify", errno);
        for (int i = 0; i < argc; i++) {
                w[i].path = argv[i];
                w[i].fd = open(argv[i], O_RDONLY | O_CLOEXEC);
                if (w[i].fd < 0 || lseek(w[i].fd, 0, SEEK_END) < 0)
                        die(argv[i], errno);
                w[i].wd = inotify_add_watch(fd, argv[i], IN_MODIFY);
                if (w[i].wd < 0)
                        die(argv[i], errno);
        }
        /* it must not be late because the guests are busy */
        (void)setpriority(PRIO_PROCESS, 0, -20);
        (void)setvbuf(stdout, NULL, _IOLBF, 0);
        for (;;)
                read_events(fd, w, argc);
}

int main(int argc, char **argv)
{
        static const struct {
                const char *name;
                int (*run)(int argc, char **argv);
                const char *usage;
        } modes[] = {
                {"agents", run_agents, "N SECONDS"},
                {"rtt", run_rtt, "TRANSPORT PLACE [PINGS]"},
                {"stamp", run_stamp, "FILE..."},
        };
        int r = 2;

        for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
                if (argc > 1 && strcmp(argv[1], modes[i].name) == 0)
                        r = modes[i].run(argc - 2, argv + 2);
        if (r == 2)
                for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
                        (void)fprintf(stderr, "usage: bench-channel %s %s\n", modes[i].name, modes[i].usage);
        return r;
}
