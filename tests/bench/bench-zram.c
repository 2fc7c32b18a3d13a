/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the kernel's own means hold page sets in: the arms that the store is compared with.
 *
 *   bench-zram zram FILE...   a zram device of our own, lz4: every page is written in
 *                             requests of 128 KiB and then read at random by 4 KiB, both
 *                             O_DIRECT; the device compresses in the caller's context, so
 *                             the caller's CPU time is the cost
 *   bench-zram ksm FILE...    one process a VM holds its pages in mergeable memory until
 *                             ksmd has been over it thrice; then each distinct page frame
 *                             is written to a zram device once, as swapping it out would;
 *                             KSM's own table is counted (64 bytes a page: ksm_rmap_item)
 *
 * One JSON object each.  The device is taken away and KSM's settings are put back
 * however this ends, but for SIGKILL.
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "tests/bench/store-bench.h"

/* sizeof(struct zram_table_entry) up to Linux 6.18: a handle and a word of flags and lock a slot */
#define ZRAM_SLOT   16U
#define RMAP_ITEM   64U /* sizeof(struct ksm_rmap_item), mm/ksm.c: one a page that was looked at */
#define STABLE_NODE 64U /* struct ksm_stable_node: one a page that is shared */
#define READS       20000U

static int zram = -1;

static const char *ksm_knobs[] = {"run", "pages_to_scan", "sleep_millisecs"};
static char ksm_were[3][32];

static bool put_text(const char *path, const char *text)
{
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
        if (fd >= 0)
                close(fd);
        return ok;
}

static bool get_text(const char *path, char *buf, size_t size)
{
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? -1 : read(fd, buf, size - 1);
        if (fd >= 0)
                close(fd);
        if (n < 0)
                return false;
        buf[n] = '\0';
        return true;
}

static uint64_t ksm_value(const char *name)
{
        char path[128], text[32];
        snprintf(path, sizeof path, "/sys/kernel/mm/ksm/%s", name);
        return get_text(path, text, sizeof text) ? strtoull(text, NULL, 10) : 0;
}

static void ksm_set(const char *name, const char *value)
{
        char path[128];
        snprintf(path, sizeof path, "/sys/kernel/mm/ksm/%s", name);
        if (!put_text(path, value))
                die(path);
}

static void ksm_begin(void)
{
        static const char *values[] = {"1", "8192", "1"};
        char path[128];
        for (size_t i = 0; i < 3; i++) {
                snprintf(path, sizeof path, "/sys/kernel/mm/ksm/%s", ksm_knobs[i]);
                if (!get_text(path, ksm_were[i], sizeof ksm_were[i]))
                        die(path);
        }
        for (size_t i = 3; i-- > 0;)
                ksm_set(ksm_knobs[i], values[i]);
}

static void zram_path(char *buf, size_t size, const char *name)
{
        snprintf(buf, size, "/sys/block/zram%d/%s", zram, name);
}

static void clean_up(void)
{
        char path[128], number[16];
        for (size_t i = 0; i < 3; i++) {
                if (ksm_were[i][0] != '\0')
                        ksm_set(ksm_knobs[i], ksm_were[i]);
                ksm_were[i][0] = '\0';
        }
        if (zram >= 0) {
                zram_path(path, sizeof path, "reset");
                (void)put_text(path, "1");
                snprintf(number, sizeof number, "%d", zram);
                zram = -1;
                (void)put_text("/sys/class/zram-control/hot_remove", number);
        }
}

static void on_signal(int sig)
{
        exit(128 + sig);
}

/* Opens the new device. */
static int zram_begin(uint64_t bytes)
{
        char path[128], text[32];
        /* reading makes one and tells its number */
        if (!get_text("/sys/class/zram-control/hot_add", text, sizeof text))
                die("zram hot_add");
        zram = atoi(text);
        zram_path(path, sizeof path, "comp_algorithm");
        if (!put_text(path, "lz4"))
                die(path);
        snprintf(text, sizeof text, "%" PRIu64, bytes);
        zram_path(path, sizeof path, "disksize");
        if (!put_text(path, text))
                die(path);
        snprintf(path, sizeof path, "/dev/zram%d", zram);
        int fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
        if (fd < 0)
                die(path);
        return fd;
}

struct mm_stat {
        uint64_t orig, compressed, used, limit, max, same, compacted, huge;
};

static struct mm_stat zram_stat(void)
{
        struct mm_stat m = {0};
        char path[128], text[256];
        zram_path(path, sizeof path, "mm_stat");
        if (!get_text(path, text, sizeof text) ||
            sscanf(text, "%" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64,
                   &m.orig, &m.compressed, &m.used, &m.limit, &m.max, &m.same, &m.compacted, &m.huge) != 8)
                die(path);
        return m;
}

static void write_out(int fd, const uint8_t *data, size_t size, uint64_t at)
{
        for (size_t done = 0; done < size;) {
                size_t n = size - done < REQUEST ? size - done : REQUEST;
                if (pwrite(fd, data + done, n, (off_t)(at + done)) != (ssize_t)n)
                        die("zram write");
                done += n;
        }
}

static int arm_zram(char **files)
{
        struct set sets[64];
        size_t n = 0;
        uint64_t bytes = 0;
        for (; files[n] != NULL && n < 64; n++) {
                sets[n] = set_load(files[n]);
                bytes += sets[n].size;
        }
        int fd = zram_begin(bytes);
        uint64_t at = 0, cpu = clock_us(CLOCK_THREAD_CPUTIME_ID), begun = clock_us(CLOCK_MONOTONIC);
        for (size_t i = 0; i < n; at += sets[i++].size)
                write_out(fd, sets[i].data, sets[i].size, at);
        uint64_t write_cpu = clock_us(CLOCK_THREAD_CPUTIME_ID) - cpu, write_us = clock_us(CLOCK_MONOTONIC) - begun;

        static uint64_t took[READS];
        uint8_t *page = aligned_alloc(PAGE, PAGE);
        uint64_t order = 1, pages = bytes / PAGE;
        if (page == NULL)
                die("memory");
        cpu = clock_us(CLOCK_THREAD_CPUTIME_ID);
        for (size_t i = 0; i < READS; i++) {
                uint64_t t = clock_ns(CLOCK_MONOTONIC);
                if (pread(fd, page, PAGE, (off_t)(next_random(&order) % pages * PAGE)) != (ssize_t)PAGE)
                        die("zram read");
                took[i] = clock_ns(CLOCK_MONOTONIC) - t;
        }
        uint64_t read_cpu = clock_us(CLOCK_THREAD_CPUTIME_ID) - cpu;
        struct mm_stat m = zram_stat();
        close(fd);
        printf("{\"arm\": \"zram-lz4\", \"pages\": %" PRIu64 ", \"mem_used_total\": %" PRIu64
               ", \"compressed\": %" PRIu64 ", \"same_pages\": %" PRIu64 ", \"table\": %" PRIu64
               ", \"footprint\": %" PRIu64
               ", \"cpu_per_write_us\": %.3f, \"cpu_per_read_us\": %.3f, \"write_mb_s\": %.1f, "
               "\"read_p50_us\": %.2f, \"read_p99_us\": %.2f}\n",
               pages, m.used, m.compressed, m.same, pages * ZRAM_SLOT, m.used + pages * ZRAM_SLOT,
               (double)write_cpu / (double)pages, (double)read_cpu / READS, (double)bytes / (double)write_us,
               quantile_us(took, READS, 0.5), quantile_us(took, READS, 0.99));
        return 0;
}

/* --- KSM ------------------------------------------------------------------------------ */

struct holder {
        pid_t pid;
        struct set set;
};

/* A child that holds the pages; the parent lets go of them. */
static void holder_begin(struct holder *h)
{
        int ready[2];
        if (pipe(ready) < 0)
                die("pipe");
        h->pid = fork();
        if (h->pid < 0)
                die("fork");
        if (h->pid == 0) {
                signal(SIGTERM, SIG_DFL);
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                uint8_t *p = mmap(NULL, h->set.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                if (p == MAP_FAILED || madvise(p, h->set.size, MADV_NOHUGEPAGE) < 0 ||
                    madvise(p, h->set.size, MADV_MERGEABLE) < 0)
                        _exit(1);
                memcpy(p, h->set.data, h->set.size);
                if (write(ready[1], &p, sizeof p) != (ssize_t)sizeof p)
                        _exit(1);
                for (;;)
                        pause();
        }
        close(ready[1]);
        void *p;
        if (read(ready[0], &p, sizeof p) != (ssize_t)sizeof p)
                die("a process that holds pages");
        close(ready[0]);
        munmap(h->set.data, h->set.size);
        h->set.data = p; /* in the child */
}

/* Page frames of all: sorted, so that those that are shared lie together. */
struct frame {
        uint64_t pfn;
        size_t holder, offset;
};

static int by_pfn(const void *a, const void *b)
{
        return by_value(&((const struct frame *)a)->pfn, &((const struct frame *)b)->pfn);
}

static void frames_of(const struct holder *h, size_t index, struct frame *f)
{
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/pagemap", (int)h->pid);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                die(path);
        for (size_t i = 0; i < h->set.size / PAGE; i++) {
                uint64_t entry;
                off_t at = (off_t)(((uintptr_t)h->set.data / PAGE + i) * sizeof entry);
                if (pread(fd, &entry, sizeof entry, at) != (ssize_t)sizeof entry || (entry >> 63) == 0)
                        die(path);
                f[i] = (struct frame){.pfn = entry & ((UINT64_C(1) << 55) - 1), .holder = index, .offset = i * PAGE};
        }
        close(fd);
}

static int arm_ksm(char **files)
{
        struct holder h[64] = {0};
        size_t n = 0;
        uint64_t pages = 0;
        char path[64];
        ksm_begin();
        uint64_t before = ksm_value("pages_shared"), begun = clock_us(CLOCK_MONOTONIC);
        for (; files[n] != NULL && n < 64; n++) {
                h[n].set = set_load(files[n]);
                pages += h[n].set.size / PAGE;
                holder_begin(&h[n]);
        }
        /* the first pass notes a checksum, the second merges what kept it, the third what smart_scan left */
        uint64_t scans = ksm_value("full_scans");
        while (ksm_value("full_scans") < scans + 4 && clock_us(CLOCK_MONOTONIC) - begun < 300000000U)
                usleep(100000);
        uint64_t merge_us = clock_us(CLOCK_MONOTONIC) - begun, shared = ksm_value("pages_shared");
        shared = shared > before ? shared - before : 0;

        struct frame *f = calloc(pages, sizeof *f);
        if (f == NULL)
                die("memory");
        int mem[64];
        for (size_t i = 0, at = 0; i < n; at += h[i++].set.size / PAGE) {
                frames_of(&h[i], i, f + at);
                snprintf(path, sizeof path, "/proc/%d/mem", (int)h[i].pid);
                mem[i] = open(path, O_RDONLY | O_CLOEXEC);
                if (mem[i] < 0)
                        die(path);
        }
        qsort(f, pages, sizeof *f, by_pfn);
        int fd = zram_begin(pages * PAGE);
        uint8_t *page = aligned_alloc(PAGE, PAGE);
        uint64_t distinct = 0;
        for (uint64_t i = 0; page != NULL && i < pages; i++) {
                if (i > 0 && f[i].pfn == f[i - 1].pfn)
                        continue;
                off_t at = (off_t)((uintptr_t)h[f[i].holder].set.data + f[i].offset);
                if (pread(mem[f[i].holder], page, PAGE, at) != (ssize_t)PAGE)
                        die("/proc/PID/mem");
                write_out(fd, page, PAGE, distinct++ * PAGE);
        }
        struct mm_stat m = zram_stat();
        close(fd);
        for (size_t i = 0; i < n; i++) {
                kill(h[i].pid, SIGKILL);
                waitpid(h[i].pid, NULL, 0);
        }
        uint64_t table = distinct * ZRAM_SLOT, ksm = pages * RMAP_ITEM + shared * STABLE_NODE;
        printf("{\"arm\": \"ksm-then-zram\", \"pages\": %" PRIu64 ", \"distinct\": %" PRIu64
               ", \"mem_used_total\": %" PRIu64 ", \"table\": %" PRIu64 ", \"ksm_tables\": %" PRIu64
               ", \"footprint\": %" PRIu64 ", \"merge_s\": %.2f}\n",
               pages, distinct, m.used, table, ksm, m.used + table + ksm, (double)merge_us / 1e6);
        return 0;
}

int main(int argc, char **argv)
{
        atexit(clean_up);
        signal(SIGTERM, on_signal);
        signal(SIGINT, on_signal);
        if (argc >= 3 && strcmp(argv[1], "zram") == 0)
                return arm_zram(argv + 2);
        if (argc >= 3 && strcmp(argv[1], "ksm") == 0)
                return arm_ksm(argv + 2);
        fprintf(stderr, "usage: bench-zram zram|ksm FILE...\n");
        return 2;
}
