// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * bench-share-watch: what guests cost their host while something shares their pages, from outside.
 *
 *      bench-share-watch [OPTIONS] --guest PID... -- COMMAND...
 *
 * Takes a first look, runs COMMAND (that is time 0) and then looks --hz times a second at
 *   saved       the sum of Pss of the guests and of the blocks of their memfds, against the first look
 *   available   MemAvailable of the host, against the first look
 *   ksmd, khugepaged, own   CPU since time 0; own: the processes after --own with their children,
 *               and COMMAND
 *   guests, other   CPU of the guests and of the processes after --other
 * No counter of KSM decides about any figure.
 *
 * The guests are at rest when saved has grown by less than --rest-bytes in --rest seconds, having
 * reached --begun bytes; it looks for --after seconds more and ends, or at --limit.
 * Prints one JSON object; times in seconds, CPU in seconds, the rest in bytes.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_PIDS    64
#define MAX_MEMFDS  128
#define MAX_SAMPLES 8192

extern char **environ;

struct processes {
        pid_t pid[MAX_PIDS];
        size_t n;
};

enum cpu { CPU_KSMD, CPU_KHUGEPAGED, CPU_OWN, CPU_GUESTS, CPU_OTHER, _CPU_MAX };

static const char *const cpu_names[_CPU_MAX] = {"ksmd", "khugepaged", "own", "guests", "other"};

struct sample {
        double t;
        int64_t used, available; /* bytes */
        double cpu[_CPU_MAX];
};

static struct processes of[_CPU_MAX]; /* of[CPU_GUESTS] are the guests */
static char memfds[MAX_MEMFDS][64]; /* /proc/PID/fd/N */
static size_t n_memfds;
static struct sample samples[MAX_SAMPLES];
static size_t n_samples;
static double command_cpu;

static _Noreturn void die(const char *what)
{
        fprintf(stderr, "bench-share-watch: %s: %s\n", what, strerror(errno));
        exit(1);
}

static double clock_s(clockid_t clock)
{
        struct timespec t;
        return clock_gettime(clock, &t) < 0 ? 0 : (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static size_t read_file(const char *path, char *to, size_t size)
{
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        size_t done = 0;
        ssize_t n = 0;
        while (fd >= 0 && done < size - 1 && (n = read(fd, to + done, size - 1 - done)) > 0)
                done += (size_t)n;
        if (fd >= 0)
                close(fd);
        to[done] = '\0';
        return done;
}

/* "NAME:  N kB" in a file of /proc */
static int64_t kib_of(const char *path, const char *name)
{
        char text[8192];
        read_file(path, text, sizeof text);
        const char *p = strstr(text, name);
        return p == NULL ? 0 : strtoll(p + strlen(name), NULL, 10) * 1024;
}

/* By the process's own clock: all threads, those that have ended too, in ns */
static double cpu_of(pid_t pid)
{
        clockid_t clock;
        return clock_getcpuclockid(pid, &clock) != 0 ? 0 : clock_s(clock);
}

/* CPU of children that have been waited for (fields 16 and 17 of stat) */
static double cpu_of_ended(pid_t pid)
{
        char path[64], text[1024];
        unsigned long long user = 0, system = 0;
        snprintf(path, sizeof path, "/proc/%d/stat", pid);
        read_file(path, text, sizeof text);
        const char *p = strrchr(text, ')');
        if (p == NULL ||
            sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %llu %llu", &user, &system) != 2)
                return 0;
        return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static double cpu_of_tree(pid_t pid)
{
        char path[64], text[4096];
        double sum = cpu_of(pid) + cpu_of_ended(pid);
        snprintf(path, sizeof path, "/proc/%d/task/%d/children", pid, pid);
        read_file(path, text, sizeof text);
        for (char *p = text, *end; *p != '\0'; p = end) {
                long child = strtol(p, &end, 10);
                if (end == p)
                        break;
                sum += cpu_of_tree((pid_t)child);
        }
        return sum;
}

static void add_pid(struct processes *list, const char *text)
{
        long pid = strtol(text, NULL, 10);
        if (pid <= 0 || list->n == MAX_PIDS) {
                fprintf(stderr, "bench-share-watch: no process %s\n", text);
                exit(2);
        }
        list->pid[list->n++] = (pid_t)pid;
}

static void find_kernel_threads(void)
{
        DIR *proc = opendir("/proc");
        char path[300], name[64];
        if (proc == NULL)
                die("/proc");
        for (const struct dirent *e; (e = readdir(proc)) != NULL;) {
                if (e->d_name[0] < '1' || e->d_name[0] > '9')
                        continue;
                snprintf(path, sizeof path, "/proc/%s/comm", e->d_name);
                read_file(path, name, sizeof name);
                if (strcmp(name, "ksmd\n") == 0)
                        add_pid(&of[CPU_KSMD], e->d_name);
                else if (strcmp(name, "khugepaged\n") == 0)
                        add_pid(&of[CPU_KHUGEPAGED], e->d_name);
        }
        closedir(proc);
}

/* The memfds that guests hold: each file once */
static void find_memfds(void)
{
        static struct stat seen[MAX_MEMFDS];
        char path[64], file[400], to[64];
        for (size_t i = 0; i < of[CPU_GUESTS].n; i++) {
                snprintf(path, sizeof path, "/proc/%d/fd", of[CPU_GUESTS].pid[i]);
                DIR *fds = opendir(path);
                if (fds == NULL)
                        die(path);
                for (const struct dirent *e; (e = readdir(fds)) != NULL;) {
                        struct stat st;
                        bool known = false;
                        snprintf(file, sizeof file, "%s/%s", path, e->d_name);
                        ssize_t n = readlink(file, to, sizeof to - 1);
                        if (n < 0 || strncmp(to, "/memfd:", 7) != 0 || stat(file, &st) < 0 || n_memfds == MAX_MEMFDS)
                                continue;
                        for (size_t k = 0; k < n_memfds; k++)
                                known |= seen[k].st_ino == st.st_ino && seen[k].st_dev == st.st_dev;
                        if (known)
                                continue;
                        seen[n_memfds] = st;
                        snprintf(memfds[n_memfds++], sizeof memfds[0], "%.63s", file);
                }
                closedir(fds);
        }
}

static int64_t used_bytes(void)
{
        int64_t sum = 0;
        char path[64];
        for (size_t i = 0; i < of[CPU_GUESTS].n; i++) {
                snprintf(path, sizeof path, "/proc/%d/smaps_rollup", of[CPU_GUESTS].pid[i]);
                int64_t pss = kib_of(path, "\nPss:");
                if (pss == 0) {
                        fprintf(stderr, "bench-share-watch: guest %d has ended\n", of[CPU_GUESTS].pid[i]);
                        exit(1);
                }
                sum += pss;
        }
        for (size_t i = 0; i < n_memfds; i++) {
                struct stat st;
                sum += stat(memfds[i], &st) < 0 ? 0 : (int64_t)st.st_blocks * 512;
        }
        return sum;
}

/* The time is that of the middle of the look at Pss */
static struct sample look(double zero)
{
        struct sample s;
        double from = clock_s(CLOCK_MONOTONIC);
        s.used = used_bytes();
        s.t = (from + clock_s(CLOCK_MONOTONIC)) / 2 - zero;
        s.available = kib_of("/proc/meminfo", "\nMemAvailable:");
        for (int c = 0; c < _CPU_MAX; c++) {
                s.cpu[c] = c == CPU_OWN ? command_cpu : 0;
                for (size_t i = 0; i < of[c].n; i++)
                        s.cpu[c] += c == CPU_OWN ? cpu_of_tree(of[c].pid[i]) : cpu_of(of[c].pid[i]);
        }
        return s;
}

/* Its output is not wanted among ours */
static void run(char **argv)
{
        posix_spawn_file_actions_t quiet;
        struct rusage usage;
        pid_t pid;
        int status;
        if (posix_spawn_file_actions_init(&quiet) != 0 ||
            posix_spawn_file_actions_addopen(&quiet, STDOUT_FILENO, "/dev/null", O_WRONLY, 0) != 0 ||
            posix_spawnp(&pid, argv[0], &quiet, NULL, argv, environ) != 0 || wait4(pid, &status, 0, &usage) != pid ||
            status != 0) {
                fprintf(stderr, "bench-share-watch: %s failed\n", argv[0]);
                exit(1);
        }
        posix_spawn_file_actions_destroy(&quiet);
        command_cpu = (double)usage.ru_utime.tv_sec + (double)usage.ru_stime.tv_sec +
                      (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static double cpu_total(const struct sample *s)
{
        return s->cpu[CPU_KSMD] + s->cpu[CPU_KHUGEPAGED] + s->cpu[CPU_OWN];
}

/* The sample at or before T */
static const struct sample *sample_at(double t)
{
        size_t i = n_samples - 1;
        while (i > 0 && samples[i].t > t)
                i--;
        return &samples[i];
}

static double option_value(const char *text)
{
        char *end;
        double v = strtod(text, &end);
        if (end == text || *end != '\0' || v < 0) {
                fprintf(stderr, "bench-share-watch: %s is no number\n", text);
                exit(2);
        }
        return v;
}

static json_t *rounded(double v)
{
        return json_real(round(v * 1e4) / 1e4);
}

static void print(const struct sample *base, double rest_at, double after, double cost)
{
        json_t *series = json_array(), *columns = json_pack("[s, s, s]", "t", "saved", "available"), *o;
        for (int c = 0; c < _CPU_MAX; c++)
                json_array_append_new(columns, json_string(cpu_names[c]));
        for (size_t i = 0; i < n_samples; i++) {
                json_t *row = json_array();
                json_array_append_new(row, rounded(samples[i].t));
                json_array_append_new(row, json_integer(base->used - samples[i].used));
                json_array_append_new(row, json_integer(samples[i].available - base->available));
                for (int c = 0; c < _CPU_MAX; c++)
                        json_array_append_new(row, rounded(samples[i].cpu[c] - base->cpu[c]));
                json_array_append_new(series, row);
        }
        const struct sample *last = &samples[n_samples - 1];
        o = json_pack("{s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "used_before", (json_int_t)base->used,
                      "saved_bytes", (json_int_t)(base->used - last->used), "available_bytes",
                      (json_int_t)(last->available - base->available), "seconds", rounded(last->t), "rest_s",
                      rest_at < 0 ? json_null() : rounded(rest_at), "rest_cpu_s",
                      rest_at < 0 || last->t < rest_at + after - 0.5
                              ? json_null()
                              : rounded(cpu_total(last) - cpu_total(sample_at(rest_at))),
                      "watch_cpu_s", rounded(cost), "columns", columns, "series", series);
        json_dumpf(o, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(o);
}

int main(int argc, char **argv)
{
        enum { LIMIT = 256, HZ, REST, REST_BYTES, AFTER, BEGUN, GUEST, OWN, OTHER };
        static const struct option options[] = {
                {"limit", required_argument, NULL, LIMIT}, {"hz", required_argument, NULL, HZ},
                {"rest", required_argument, NULL, REST},   {"rest-bytes", required_argument, NULL, REST_BYTES},
                {"after", required_argument, NULL, AFTER}, {"begun", required_argument, NULL, BEGUN},
                {"guest", required_argument, NULL, GUEST}, {"own", required_argument, NULL, OWN},
                {"other", required_argument, NULL, OTHER}, {0},
        };
        double limit = 120, hz = 4, rest = 5, rest_bytes = 1 << 20, after = 15, begun = 0, rest_at = -1;
        for (int c; (c = getopt_long(argc, argv, "+", options, NULL)) != -1;) {
                switch (c) {
                case LIMIT:
                        limit = option_value(optarg);
                        break;
                case HZ:
                        hz = option_value(optarg);
                        break;
                case REST:
                        rest = option_value(optarg);
                        break;
                case REST_BYTES:
                        rest_bytes = option_value(optarg);
                        break;
                case AFTER:
                        after = option_value(optarg);
                        break;
                case BEGUN:
                        begun = option_value(optarg);
                        break;
                case GUEST:
                        add_pid(&of[CPU_GUESTS], optarg);
                        break;
                case OWN:
                        add_pid(&of[CPU_OWN], optarg);
                        break;
                case OTHER:
                        add_pid(&of[CPU_OTHER], optarg);
                        break;
                default:
                        return 2;
                }
        }
        if (optind == argc || of[CPU_GUESTS].n == 0 || hz <= 0) {
                fprintf(stderr, "usage: bench-share-watch [OPTIONS] --guest PID... -- COMMAND...\n");
                return 2;
        }
        find_kernel_threads();
        find_memfds();
        double own_from = clock_s(CLOCK_PROCESS_CPUTIME_ID), zero = clock_s(CLOCK_MONOTONIC);
        struct sample base = look(zero);
        zero = clock_s(CLOCK_MONOTONIC);
        run(argv + optind);
        while (n_samples < MAX_SAMPLES) {
                struct sample s = samples[n_samples++] = look(zero);
                int64_t saved = base.used - s.used, before = base.used - sample_at(s.t - rest)->used;
                if (rest_at < 0 && s.t >= rest && (double)saved >= begun && (double)(saved - before) < rest_bytes)
                        rest_at = s.t;
                if (s.t >= limit || (rest_at >= 0 && s.t >= rest_at + after))
                        break;
                double wait = zero + (double)n_samples / hz - clock_s(CLOCK_MONOTONIC);
                if (wait > 0)
                        usleep((useconds_t)(wait * 1e6));
        }
        print(&base, rest_at, after, clock_s(CLOCK_PROCESS_CPUTIME_ID) - own_from);
        return 0;
}
