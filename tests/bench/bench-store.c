/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The store in process, on page sets of real guests: one export a VM, all in one trust group.
 *
 *   bench-store inproc FILE...   writes every page in requests of 128 KiB, reads at random
 *                                by 4 KiB, compares all that it holds with the files
 *   bench-store disk DISK FILE...   a pool too small for them, the rest on the file
 *                                DISK: see disk_arm
 *
 * One JSON object each.  CPU time is the process's: what the store does in threads of its
 * own counts.  Footprint is what bl_store_figures says is used in the pool and beside it;
 * `rss` is there to see that nothing is left out (it has the page sets in it, too).
 */
#include <pthread.h>

#include "daemon/store/arena.h"
#include "daemon/store/disk.h"
#include "daemon/store/store.h"
#include "tests/bench/store-bench.h"

#define READS    20000U
#define VMS_MAX  64U
#define PEER_PID 1 /* nobody is asked in process */

struct vm {
        struct set set;
        struct bl_export *export;
};

static struct vm vms[VMS_MAX + 1]; /* and one for disk_arm */
static size_t n_vms;
static uint64_t total; /* bytes of all sets */

static void check(int r, const char *what)
{
        if (r < 0) {
                errno = -r;
                die(what);
        }
}

static void load(char **files)
{
        for (; *files != NULL && n_vms < VMS_MAX; files++) {
                vms[n_vms].set = set_load(*files);
                total += vms[n_vms++].set.size;
        }
}

static struct bl_store *store_open(uint64_t pool, struct bl_disk *disk)
{
        struct bl_arena_options ao = {.kind = BL_ARENA_PRIVATE, .size = pool, .version = 1};
        struct bl_store_options so = {.disk = disk};
        struct bl_store *s = NULL;
        char *message = NULL;
        int r = bl_arena_open(&ao, &so.arena, &message);
        if (r >= 0)
                r = bl_store_open(&so, &s, &message);
        if (r < 0 && message != NULL)
                fprintf(stderr, "%s\n", message);
        check(r, "open");
        check(bl_store_reserve(s, pool), "reserve");
        return s;
}

static void export_open(struct bl_store *s, size_t i)
{
        struct bl_store_registration r = {.uuid = {(uint8_t)(i + 1)},
                                          .pid = PEER_PID,
                                          .start = i + 1,
                                          .size = vms[i].set.size,
                                          .group = "bench",
                                          .limit = BL_UNSET};
        check(bl_store_register(s, &r), "register");
        check(bl_export_open(s, r.uuid, r.pid, r.start, BL_SEC, &vms[i].export), "open an export");
}

static void write_all(const struct vm *v)
{
        for (size_t at = 0; at < v->set.size; at += REQUEST) {
                size_t n = v->set.size - at < REQUEST ? v->set.size - at : REQUEST;
                check(bl_export_write(v->export, v->set.data + at, n, at), "write");
        }
}

/* A page of any of them. */
static const struct vm *random_page(uint64_t *order, uint64_t *ret_offset)
{
        uint64_t at = next_random(order) % (total / PAGE) * PAGE;
        size_t i = 0;
        for (; at >= vms[i].set.size; i++)
                at -= vms[i].set.size;
        *ret_offset = at;
        return &vms[i];
}

static uint64_t compare_vm(const struct vm *v)
{
        static uint8_t buf[REQUEST];
        uint64_t wrong = 0;
        for (size_t at = 0; at < v->set.size; at += REQUEST) {
                size_t n = v->set.size - at < REQUEST ? v->set.size - at : REQUEST;
                check(bl_export_read(v->export, buf, n, at), "read");
                wrong += memcmp(buf, v->set.data + at, n) != 0;
        }
        return wrong;
}

static uint64_t compare_all(void)
{
        uint64_t wrong = 0;
        for (size_t i = 0; i < n_vms; i++)
                wrong += compare_vm(&vms[i]);
        return wrong;
}

static uint64_t rss(void)
{
        unsigned long pages = 0;
        FILE *f = fopen("/proc/self/statm", "re");
        if (f == NULL || fscanf(f, "%*u %lu", &pages) != 1)
                pages = 0;
        if (f != NULL)
                fclose(f);
        return pages * PAGE;
}

static int inproc_arm(void)
{
        static uint64_t took[READS];
        static uint8_t page[PAGE];
        struct bl_store *s = store_open(total + total / 4 + 64 * BL_MIB, NULL);
        for (size_t i = 0; i < n_vms; i++)
                export_open(s, i);
        struct bl_store_figures f;
        bl_store_figures(s, &f);
        uint64_t empty = f.pool_used + f.index;

        uint64_t cpu = clock_us(CLOCK_PROCESS_CPUTIME_ID), begun = clock_us(CLOCK_MONOTONIC);
        for (size_t i = 0; i < n_vms; i++)
                write_all(&vms[i]);
        uint64_t write_us = clock_us(CLOCK_MONOTONIC) - begun, write_cpu = clock_us(CLOCK_PROCESS_CPUTIME_ID) - cpu;
        bl_store_figures(s, &f);

        uint64_t order = 1, offset;
        cpu = clock_us(CLOCK_PROCESS_CPUTIME_ID);
        for (size_t i = 0; i < READS; i++) {
                const struct vm *v = random_page(&order, &offset);
                uint64_t t = clock_ns(CLOCK_MONOTONIC);
                check(bl_export_read(v->export, page, PAGE, offset), "read");
                took[i] = clock_ns(CLOCK_MONOTONIC) - t;
        }
        uint64_t read_cpu = clock_us(CLOCK_PROCESS_CPUTIME_ID) - cpu, wrong = compare_all(), pages = total / PAGE;
        printf("{\"arm\": \"ballast\", \"pages\": %" PRIu64 ", \"payload\": %" PRIu64 ", \"slack\": %" PRIu64
               ", \"tables\": %" PRIu64 ", \"index\": %" PRIu64 ", \"pool_used\": %" PRIu64
               ", \"used_when_empty\": %" PRIu64 ", \"footprint\": %" PRIu64 ", \"held\": %" PRIu64
               ", \"zero\": %" PRIu64 ", \"unique\": %" PRIu64 ", \"dedup_hits\": %" PRIu64 ", \"rss\": %" PRIu64
               ", \"wrong_requests\": %" PRIu64
               ", \"cpu_per_write_us\": %.3f, \"cpu_per_read_us\": %.3f, \"write_mb_s\": %.1f, \"read_p50_us\": %.2f, "
               "\"read_p99_us\": %.2f}\n",
               pages, f.payload, f.slack, f.tables, f.index, f.pool_used, empty, f.pool_used + f.index, f.held, f.zero,
               f.unique, f.dedup_hits, rss(), wrong, (double)write_cpu / (double)pages, (double)read_cpu / READS,
               (double)total / (double)write_us, quantile_us(took, READS, 0.5), quantile_us(took, READS, 0.99));
        for (size_t i = 0; i < n_vms; i++)
                bl_export_close(vms[i].export);
        bl_store_close(s);
        return wrong != 0;
}

/* --- the disk tier ------------------------------------------------------------------- */

/* Readers that need only RAM: their pages are zero and small, written last. */
struct reader {
        struct bl_store *store;
        struct bl_export *export;
        uint64_t size;
        uint64_t *took;
        size_t n, room;
        uint64_t from_disk; /* reads that found their page there, and so do not count */
        bool stop;
};

static void *read_ram(void *arg)
{
        struct reader *r = arg;
        static uint8_t page[PAGE];
        struct bl_store_figures f;
        uint64_t order = 3, seen;
        bl_store_figures(r->store, &f);
        while (!__atomic_load_n(&r->stop, __ATOMIC_ACQUIRE) && r->n < r->room) {
                uint64_t t = clock_ns(CLOCK_MONOTONIC);
                check(bl_export_read(r->export, page, PAGE, next_random(&order) % (r->size / PAGE) * PAGE), "read");
                r->took[r->n] = clock_ns(CLOCK_MONOTONIC) - t;
                seen = f.disk_reads; /* nobody else reads */
                bl_store_figures(r->store, &f);
                if (f.disk_reads > seen) {
                        r->from_disk++;
                } else {
                        r->n++;
                }
                usleep(200); /* as a guest faults, not as a loop does */
        }
        return NULL;
}

struct waits {
        double p50, p99;
        size_t n;
        uint64_t from_disk;
};

/* What readers of RAM wait, us, while `during` runs. */
static struct waits ram_readers(struct bl_store *s, struct bl_export *export, uint64_t size, void (*during)(void *),
                                void *arg)
{
        struct reader r = {.store = s, .export = export, .size = size, .room = 1000000};
        pthread_t thread;
        r.took = calloc(r.room, sizeof *r.took);
        if (r.took == NULL || pthread_create(&thread, NULL, read_ram, &r) != 0)
                die("a reader");
        during(arg);
        __atomic_store_n(&r.stop, true, __ATOMIC_RELEASE);
        pthread_join(thread, NULL);
        struct waits w = {.p50 = quantile_us(r.took, r.n, 0.5),
                          .p99 = quantile_us(r.took, r.n, 0.99),
                          .n = r.n,
                          .from_disk = r.from_disk};
        free(r.took);
        return w;
}

static void rest(void *arg)
{
        (void)arg;
        sleep(4);
}

struct flood {
        struct bl_store *store;
        double demote_mb_s, write_mb_s;
};

/* Pages of noise, over and over: they do not compress, so they are what goes down first, and
 * what does not fit goes to the disk as fast as that takes it. */
static void flood(void *arg)
{
        static uint64_t noise[REQUEST / sizeof(uint64_t)];
        struct flood *f = arg;
        struct bl_store_figures before, after;
        uint64_t state = 7, n = 0;
        for (size_t i = 0; i < REQUEST / sizeof(uint64_t); i++)
                noise[i] = next_random(&state);
        bl_store_figures(f->store, &before);
        uint64_t begun = clock_us(CLOCK_MONOTONIC);
        for (size_t at = 0, i = 0; clock_us(CLOCK_MONOTONIC) - begun < 5000000U; at += REQUEST) {
                if (at + REQUEST > vms[i].set.size) {
                        at = 0;
                        i = (i + 1) % n_vms;
                }
                n++;
                for (size_t page = 0; page < REQUEST / PAGE; page++)
                        noise[page * (PAGE / sizeof(uint64_t))] = next_random(&state);
                check(bl_export_write(vms[i].export, noise, REQUEST, at), "write");
        }
        bl_store_figures(f->store, &after);
        f->demote_mb_s = (double)(after.demoted - before.demoted) / (double)(clock_us(CLOCK_MONOTONIC) - begun);
        f->write_mb_s = (double)(n * REQUEST) / (double)(clock_us(CLOCK_MONOTONIC) - begun);
}

/* A VM of its own with 2,048 pages that compress well, written last: what readers of RAM read. */
static struct vm *small_vm(struct bl_store *s)
{
        struct vm *small = &vms[n_vms];
        if (small->set.data == NULL) {
                small->set.size = (size_t)2048 * PAGE;
                small->set.data = calloc(2048, PAGE);
                if (small->set.data == NULL)
                        die("memory");
                for (size_t i = 0; i < 2048; i++)
                        memset(small->set.data + i * PAGE, (int)(i % 250) + 1, 200 + i % 300);
        }
        export_open(s, n_vms);
        write_all(small);
        return small;
}

static void close_all(struct bl_store *s)
{
        for (size_t i = 0; i <= n_vms; i++)
                bl_export_close(vms[i].export);
        bl_store_close(s);
}

static void print_waits(const char *name, struct waits w)
{
        printf(", \"%s\": {\"p50\": %.1f, \"p99\": %.1f, \"samples\": %zu, \"from_disk\": %" PRIu64 "}", name, w.p50,
               w.p99, w.n, w.from_disk);
}

/*
 * A pool of a sixth of the sets, so that the rest is on disk; then what a read from disk
 * takes (a read is one of the disk when the store counted it so), how fast pages go down,
 * and what readers of RAM see of it.  Theirs is compared with the same flood of writes
 * into a pool that is large enough: on two cores the flood itself costs them something,
 * and that is not the disk's.
 */
static int disk_arm(const char *path)
{
        static uint64_t took[READS];
        static uint8_t page[PAGE];
        struct bl_disk_options o = {.path = path, .size = 4 * total + 64 * BL_MIB};
        struct bl_disk *disk;
        struct bl_store_figures before, f;
        char *message = NULL;

        struct bl_store *s = store_open(total + total / 4 + 64 * BL_MIB, NULL);
        for (size_t i = 0; i < n_vms; i++)
                export_open(s, i);
        const struct vm *small = small_vm(s);
        struct flood fl = {.store = s};
        struct waits in_ram = ram_readers(s, small->export, small->set.size, flood, &fl);
        close_all(s);

        int r = bl_disk_open(&o, &disk, &message);
        if (r < 0 && message != NULL)
                fprintf(stderr, "%s\n", message);
        check(r, path);
        s = store_open((total / 6 + 32 * BL_MIB) / BL_ARENA_CHUNK * BL_ARENA_CHUNK, disk);
        for (size_t i = 0; i < n_vms; i++)
                export_open(s, i);
        for (size_t i = 0; i < n_vms; i++)
                write_all(&vms[i]);
        size_t n = 0;
        uint64_t order = 1, offset;
        for (uint64_t begun = clock_us(CLOCK_MONOTONIC); n < READS && clock_us(CLOCK_MONOTONIC) - begun < 5000000U;) {
                const struct vm *v = random_page(&order, &offset);
                bl_store_figures(s, &before);
                uint64_t t = clock_ns(CLOCK_MONOTONIC);
                check(bl_export_read(v->export, page, PAGE, offset), "read");
                t = clock_ns(CLOCK_MONOTONIC) - t;
                bl_store_figures(s, &f);
                if (f.disk_reads > before.disk_reads)
                        took[n++] = t;
        }
        uint64_t wrong = compare_all();
        small = small_vm(s);
        fl.store = s;
        struct waits at_rest = ram_readers(s, small->export, small->set.size, rest, NULL);
        struct waits on_disk = ram_readers(s, small->export, small->set.size, flood, &fl);
        bl_store_figures(s, &f);
        wrong += compare_vm(small);
        printf("{\"pool\": %" PRIu64 ", \"disk_used\": %" PRIu64
               ", \"disk_reads\": %zu, \"read_p50_us\": %.1f, \"read_p99_us\": %.1f, \"demote_mb_s\": %.1f",
               f.pool_size, f.disk_used, n, quantile_us(took, n, 0.5), quantile_us(took, n, 0.99), fl.demote_mb_s);
        print_waits("ram_readers_at_rest_us", at_rest);
        print_waits("ram_readers_flood_in_ram_us", in_ram);
        print_waits("ram_readers_disk_saturated_us", on_disk);
        printf(", \"flood_write_mb_s\": %.1f", fl.write_mb_s);
        printf(", \"ram_readers_p99_ratio\": %.3f, \"ram_readers_p99_ratio_to_rest\": %.3f, \"wrong_requests\": "
               "%" PRIu64 ", \"disk_failed\": %s}\n",
               on_disk.p99 / in_ram.p99, on_disk.p99 / at_rest.p99, wrong, f.disk_failed ? "true" : "false");
        close_all(s);
        return wrong != 0;
}

int main(int argc, char **argv)
{
        if (argc >= 3 && strcmp(argv[1], "inproc") == 0) {
                load(argv + 2);
                return inproc_arm();
        }
        if (argc >= 4 && strcmp(argv[1], "disk") == 0) {
                load(argv + 3);
                return disk_arm(argv[2]);
        }
        fprintf(stderr, "usage: bench-store inproc FILE... | disk DISK FILE...\n");
        return 2;
}
