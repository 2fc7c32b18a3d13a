/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench-scan: what scanning costs beside the reading that it cannot do without.
 *
 *      bench-scan [--seconds S] PID[:MIB]...
 *
 * MIB: it is a VMM, and its guest has so much memory; only that is scanned.  The processes should stand still (a paused
 * VM, SIGSTOP).  Repeats, in turns, for S seconds (20) and three times at least, on one core:
 *
 *      readv   process_vm_readv alone of all pages that take memory of their own, found before, 256 KiB at a time
 *      scan    the whole scan of the same processes: look, read, hash, second look, comparison, report
 *      look    looks at all pages, 2,048 at a time
 *
 * Prints one JSON object of medians: GB/s of those pages by CPU time of the thread (readv_gbps, scan_gbps, ratio) and
 * by the wall clock (readv_wall_gbps, scan_wall_gbps); what a look costs a page where nothing is merged, and where
 * something is (look_ksm_ns_per_page; null: nothing is merged).
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "daemon/pages/scan.h"
#include "daemon/util/clock.h"

#define CHUNK       64U /* pages: 256 KiB */
#define WINDOW      2048U
#define SECONDS     20U
#define REPEATS_MIN 3U
#define REPEATS_MAX 1000U

struct target {
        pid_t pid;
        struct bl_source *source;
        uint64_t *address; /* of the pages that are read */
        size_t n;
};

static struct target *targets;
static struct bl_source **sources;
static size_t n_targets;

static _Noreturn void die(const char *what, int error)
{
        (void)fprintf(stderr, "bench-scan: %s: %s\n", what, strerror(error));
        exit(1);
}

/* --- what there is -------------------------------------------------------------- */

static void list_pages(struct target *t)
{
        static struct bl_page_look look[WINDOW];

        t->address = calloc(t->source->n_pages ? t->source->n_pages : 1, sizeof *t->address);
        if (!t->address)
                die("memory", ENOMEM);
        for (uint64_t first = 0; first < t->source->n_pages; first += WINDOW) {
                const size_t n = (size_t)bl_min(WINDOW, t->source->n_pages - first);
                int k = t->source->ops->look(t->source, first, n, look);

                if (k < 0)
                        die("look", -k);
                for (size_t i = 0; i < n; i++)
                        if (look[i].state == BL_PAGE_PRESENT)
                                t->address[t->n++] = bl_source_process_address(t->source, first + i);
        }
}

static void add_target(struct target *t, const char *arg)
{
        char *end, *message;
        uint64_t mib = 0;
        int r;

        t->pid = (pid_t)strtol(arg, &end, 10);
        if (*end == ':')
                mib = strtoull(end + 1, &end, 10);
        if (*end || end == arg)
                die(arg, EINVAL);
        r = bl_source_process(t->pid, 0, mib * BL_MIB, NULL, &t->source, &message);
        if (r < 0) {
                (void)fprintf(stderr, "bench-scan: %s\n", message ? message : strerror(-r));
                exit(1);
        }
        list_pages(t);
}

/* --- measuring -------------------------------------------------------------------- */

struct times {
        usec_t cpu, wall;
};

static struct times begin(void)
{
        return (struct times){.cpu = bl_now_thread_cpu(), .wall = bl_now()};
}

static struct times since(struct times t)
{
        return (struct times){.cpu = bl_now_thread_cpu() - t.cpu, .wall = bl_now() - t.wall};
}

static uint64_t read_chunk(pid_t pid, const uint64_t *address, size_t n)
{
        static unsigned char buf[CHUNK * BL_PAGE_SIZE];
        const struct iovec local = {.iov_base = buf, .iov_len = n * BL_PAGE_SIZE};
        struct iovec remote[CHUNK];
        size_t ranges = 0;
        ssize_t got;

        for (size_t i = 0; i < n; i++) {
                if (i > 0 && address[i] == address[i - 1] + BL_PAGE_SIZE)
                        remote[ranges - 1].iov_len += BL_PAGE_SIZE;
                else
                        remote[ranges++] =
                                (struct iovec){.iov_base = (void *)(uintptr_t)address[i], .iov_len = BL_PAGE_SIZE};
        }
        got = process_vm_readv(pid, &local, 1, remote, ranges, 0);
        if (got < 0)
                die("process_vm_readv", errno);
        return (uint64_t)got;
}

static uint64_t read_all(struct times *ret)
{
        const struct times t = begin();
        uint64_t bytes = 0;

        for (size_t i = 0; i < n_targets; i++)
                for (size_t k = 0; k < targets[i].n; k += CHUNK)
                        bytes += read_chunk(targets[i].pid, targets[i].address + k,
                                            (size_t)bl_min(CHUNK, targets[i].n - k));
        *ret = since(t);
        return bytes;
}

/* Bytes that it read. */
static uint64_t scan_all(struct times *ret)
{
        const struct bl_scan_options o = {0};
        const struct times t = begin();
        const atomic_bool stop = false;
        uint64_t bytes;
        struct bl_scan *s;
        int r = bl_scan_new(sources, n_targets, &o, &s);

        while (r == 0)
                r = bl_scan_step(s, BL_UNSET, &stop);
        if (r < 0)
                die("scan", -r);
        *ret = since(t);
        for (size_t i = 0; i < n_targets; i++)
                if (bl_scan_report(s)->source[i].error < 0)
                        die(sources[i]->name, -bl_scan_report(s)->source[i].error);
        bytes = bl_scan_report(s)->bytes_read;
        (void)bl_scan_free(s);
        return bytes;
}

/* One look each at windows without merged pages, and with some. */
struct looks {
        uint64_t pages[2];
        usec_t cpu[2];
};

static void look_all(struct looks *l)
{
        static struct bl_page_look look[WINDOW];

        for (size_t i = 0; i < n_targets; i++) {
                struct bl_source *s = sources[i];

                for (uint64_t first = 0; first < s->n_pages; first += WINDOW) {
                        const size_t n = (size_t)bl_min(WINDOW, s->n_pages - first);
                        usec_t cpu;
                        bool merged = false;
                        int r;

                        /* the clock counts whole microseconds, so the window is looked at more than once */
                        cpu = bl_now_thread_cpu();
                        for (unsigned k = 0; k < 4; k++) {
                                r = s->ops->look(s, first, n, look);
                                if (r < 0)
                                        die("look", -r);
                        }
                        cpu = bl_now_thread_cpu() - cpu;
                        for (size_t k = 0; k < n; k++)
                                merged = merged || look[k].state == BL_PAGE_MERGED;
                        l->pages[merged] += 4 * n;
                        l->cpu[merged] += cpu;
                }
        }
}

/* --- figures ------------------------------------------------------------------------ */

static int compare(const void *a, const void *b)
{
        const double x = *(const double *)a, y = *(const double *)b;

        return x < y ? -1 : x > y;
}

static double median(double *v, size_t n)
{
        qsort(v, n, sizeof *v, compare);
        return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static double rate(uint64_t bytes, usec_t t)
{
        return (double)bytes / 1e3 / (double)bl_max(t, 1);
}

static void print_ns(const char *name, uint64_t pages, usec_t cpu)
{
        if (pages)
                (void)printf(", \"%s\": %.1f", name, (double)cpu * 1e3 / (double)pages);
        else
                (void)printf(", \"%s\": null", name);
}

/* Each repeat's, to be sorted. */
static struct {
        double readv, scan, ratio, readv_wall, scan_wall, scan_read, read_ratio;
} figures[REPEATS_MAX];
static size_t n_figures;

static double median_of(size_t offset)
{
        static double v[REPEATS_MAX];

        for (size_t i = 0; i < n_figures; i++)
                memcpy(&v[i], (const char *)&figures[i] + offset, sizeof v[i]);
        return median(v, n_figures);
}
#define MEDIAN(name) median_of(offsetof(typeof(figures[0]), name))

static void run(usec_t time)
{
        const usec_t until = bl_now() + time;
        struct looks looks = {0};
        uint64_t bytes = 0, scanned = 0;

        while (n_figures < REPEATS_MIN || (n_figures < REPEATS_MAX && bl_now() < until)) {
                struct times r, s;

                bytes = read_all(&r);
                scanned = scan_all(&s);
                look_all(&looks);
                figures[n_figures].readv = rate(bytes, r.cpu);
                figures[n_figures].readv_wall = rate(bytes, r.wall);
                figures[n_figures].scan = rate(bytes, s.cpu);
                figures[n_figures].scan_wall = rate(bytes, s.wall);
                figures[n_figures].scan_read = rate(scanned, s.cpu);
                figures[n_figures].ratio = figures[n_figures].scan / figures[n_figures].readv;
                figures[n_figures].read_ratio = figures[n_figures].scan_read / figures[n_figures].readv;
                n_figures++;
        }
        (void)printf("{\"readv_gbps\": %.3f, \"scan_gbps\": %.3f, \"ratio\": %.3f, \"bytes\": %" PRIu64, MEDIAN(readv),
                     MEDIAN(scan), MEDIAN(ratio), bytes);
        (void)printf(", \"scan_read_gbps\": %.3f, \"read_ratio\": %.3f, \"scan_bytes\": %" PRIu64, MEDIAN(scan_read),
                     MEDIAN(read_ratio), scanned);
        (void)printf(", \"readv_wall_gbps\": %.3f, \"scan_wall_gbps\": %.3f, \"repeats\": %zu", MEDIAN(readv_wall),
                     MEDIAN(scan_wall), n_figures);
        print_ns("look_ns_per_page", looks.pages[false], looks.cpu[false]);
        print_ns("look_ksm_ns_per_page", looks.pages[true], looks.cpu[true]);
        (void)printf("}\n");
}

int main(int argc, char **argv)
{
        unsigned long seconds = SECONDS;
        cpu_set_t one;
        int arg = 1, cpu = sched_getcpu();

        if (argc > 2 && strcmp(argv[1], "--seconds") == 0) {
                seconds = strtoul(argv[2], NULL, 10);
                arg = 3;
        }
        if (arg >= argc) {
                (void)fprintf(stderr, "usage: bench-scan [--seconds S] PID[:MIB]...\n");
                return 2;
        }
        CPU_ZERO(&one);
        CPU_SET((size_t)(cpu < 0 ? 0 : cpu), &one);
        (void)sched_setaffinity(0, sizeof one, &one);
        n_targets = (size_t)(argc - arg);
        targets = calloc(n_targets, sizeof *targets);
        sources = calloc(n_targets, sizeof *sources);
        if (!targets || !sources)
                die("memory", ENOMEM);
        for (size_t i = 0; i < n_targets; i++) {
                add_target(&targets[i], argv[arg + (int)i]);
                sources[i] = targets[i].source;
        }
        run(seconds * BL_SEC);
        for (size_t i = 0; i < n_targets; i++) {
                (void)bl_source_free(sources[i]);
                free(targets[i].address);
        }
        free(targets);
        free(sources);
        return 0;
}
