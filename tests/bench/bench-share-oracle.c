// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * bench-share-oracle: what storing each page once could save, by brute force.
 *
 *      bench-share-oracle NAME=PID... [--without NAME=PID...]
 *
 * Every present page of the guest RAM of every process (paused by the caller) is read through
 * /proc/PID/mem and hashed by XXH3-128; pages of one hash are then compared byte for byte.  It
 * shares no code with the scanner that it is the reference for.  Guest RAM are the mappings of at
 * least 16 MiB that the process has declared mergeable (VmFlags "mg"), as QEMU does by default.
 * Pages that map the kernel's own zero page cost nothing and are left out.
 *
 * Prints one JSON object.  surplus_bytes is what one copy of each content would save;
 * left_out_bytes what of it would not be there without the processes after --without.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#define PAGE         4096U
#define RAM_AT_LEAST (16U << 20)
#define BATCH        512U /* pages of pagemap, kpageflags and memory at a time */
#define MAX_GUESTS   64U

/* Documentation/admin-guide/mm/pagemap.rst */
#define PM_PRESENT        (1ULL << 63)
#define PM_SWAPPED        (1ULL << 62)
#define PM_PFN            ((1ULL << 55) - 1)
#define KPF_KSM_BIT       21
#define KPF_THP_BIT       22
#define KPF_ZERO_PAGE_BIT 24

struct page {
        XXH128_hash_t hash;
        uint64_t address;
        uint32_t guest;
        bool first; /* of its content, in the order of the sort */
};

struct guest {
        const char *name;
        int mem, pagemap;
        bool without;
        uint64_t ram, pages, kernel_zero, swapped, zero, huge, ksm, distinct;
};

static struct guest guests[MAX_GUESTS];
static size_t n_guests;
static struct page *pages;
static size_t n_pages, room;
static uint64_t changed, collisions;
static int kpageflags;

static _Noreturn void die(const char *what)
{
        fprintf(stderr, "bench-share-oracle: %s: %s\n", what, strerror(errno));
        exit(1);
}

static void read_at(int fd, void *to, size_t size, uint64_t at, const char *what)
{
        for (size_t done = 0; done < size;) {
                ssize_t n = pread(fd, (char *)to + done, size - done, (off_t)(at + done));
                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0) {
                        errno = n == 0 ? EIO : errno;
                        die(what);
                }
                done += (size_t)n;
        }
}

static bool is_zero(const uint8_t *page)
{
        return page[0] == 0 && memcmp(page, page + 1, PAGE - 1) == 0;
}

static void add(uint32_t guest, uint64_t address, const uint8_t *page)
{
        if (n_pages == room) {
                room = room == 0 ? 1U << 16 : room * 2;
                pages = realloc(pages, room * sizeof *pages);
                if (pages == NULL)
                        die("memory");
        }
        pages[n_pages++] = (struct page){.hash = XXH3_128bits(page, PAGE), .address = address, .guest = guest};
        guests[guest].zero += is_zero(page);
}

/* Is the page at entry E of pagemap one whose content counts? */
static bool counts(struct guest *g, uint64_t e)
{
        uint64_t flags, pfn = e & PM_PFN;
        if (e & PM_SWAPPED)
                g->swapped++;
        if (!(e & PM_PRESENT))
                return false;
        if (pfn == 0) {
                errno = EPERM;
                die("pagemap hides frame numbers");
        }
        read_at(kpageflags, &flags, sizeof flags, pfn * sizeof flags, "/proc/kpageflags");
        if (flags >> KPF_ZERO_PAGE_BIT & 1) {
                g->kernel_zero++;
                return false;
        }
        g->ksm += flags >> KPF_KSM_BIT & 1;
        g->huge += flags >> KPF_THP_BIT & 1;
        return true;
}

static void scan_range(uint32_t guest, uint64_t from, uint64_t to)
{
        static uint8_t content[BATCH * PAGE];
        uint64_t entries[BATCH];
        struct guest *g = &guests[guest];
        g->ram += to - from;
        for (uint64_t at = from; at < to; at += (uint64_t)BATCH * PAGE) {
                size_t n = (size_t)((to - at) / PAGE < BATCH ? (to - at) / PAGE : BATCH);
                bool wanted[BATCH];
                read_at(g->pagemap, entries, n * sizeof *entries, at / PAGE * sizeof *entries, "pagemap");
                for (size_t i = 0; i < n; i++)
                        wanted[i] = counts(g, entries[i]);
                /* runs of wanted pages: nothing that is absent is faulted in */
                for (size_t i = 0, end; i < n; i = end) {
                        for (end = i; end < n && wanted[end]; end++)
                                ;
                        if (end == i) {
                                end++;
                                continue;
                        }
                        read_at(g->mem, content, (end - i) * PAGE, at + i * PAGE, "mem");
                        for (size_t k = i; k < end; k++)
                                add(guest, at + k * PAGE, content + (k - i) * PAGE);
                        g->pages += end - i;
                }
        }
}

static void scan(uint32_t guest, const char *pid)
{
        char path[64], line[512];
        uint64_t from = 0, to = 0, a, b;
        snprintf(path, sizeof path, "/proc/%s/mem", pid);
        guests[guest].mem = open(path, O_RDONLY | O_CLOEXEC);
        snprintf(path, sizeof path, "/proc/%s/pagemap", pid);
        guests[guest].pagemap = open(path, O_RDONLY | O_CLOEXEC);
        snprintf(path, sizeof path, "/proc/%s/smaps", pid);
        FILE *smaps = fopen(path, "re");
        if (guests[guest].mem < 0 || guests[guest].pagemap < 0 || smaps == NULL)
                die(path);
        while (fgets(line, sizeof line, smaps) != NULL) {
                if (sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &a, &b) == 2) {
                        from = a;
                        to = b;
                } else if (strncmp(line, "VmFlags:", 8) == 0 && strstr(line, " mg") != NULL &&
                           to - from >= RAM_AT_LEAST) {
                        scan_range(guest, from, to);
                }
        }
        fclose(smaps);
}

static int by_content(const void *a, const void *b)
{
        const struct page *p = a, *q = b;
        if (p->hash.high64 != q->hash.high64)
                return p->hash.high64 < q->hash.high64 ? -1 : 1;
        if (p->hash.low64 != q->hash.low64)
                return p->hash.low64 < q->hash.low64 ? -1 : 1;
        if (p->guest != q->guest)
                return p->guest < q->guest ? -1 : 1;
        return p->address < q->address ? -1 : p->address > q->address;
}

static bool same_hash(const struct page *a, const struct page *b)
{
        return a->hash.low64 == b->hash.low64 && a->hash.high64 == b->hash.high64;
}

/* Bytes decide: a page that differs from the first of its hash is a content of its own; so is
 * one that has changed since it was hashed, which is said, because nothing should have run. */
static void compare(void)
{
        static uint8_t first[PAGE], other[PAGE];
        size_t head = 0;
        for (size_t i = 0; i < n_pages; i++) {
                if (i == 0 || !same_hash(&pages[i], &pages[head])) {
                        head = i;
                        pages[i].first = true;
                        continue;
                }
                if (i == head + 1)
                        read_at(guests[pages[head].guest].mem, first, PAGE, pages[head].address, "mem");
                read_at(guests[pages[i].guest].mem, other, PAGE, pages[i].address, "mem");
                if (memcmp(first, other, PAGE) == 0)
                        continue;
                pages[i].first = true;
                XXH128_hash_t now = XXH3_128bits(other, PAGE);
                if (XXH128_isEqual(now, pages[i].hash))
                        collisions++;
                else
                        changed++;
        }
}

struct sums {
        uint64_t pages, distinct, intra; /* intra: surplus inside one guest */
};

/* Contents among those guests only for which (without is false or all is asked for) */
static struct sums sum_up(bool all)
{
        struct sums s = {0};
        uint32_t last = UINT32_MAX;
        bool seen = false;
        for (size_t i = 0; i < n_pages; i++) {
                struct guest *g = &guests[pages[i].guest];
                if (pages[i].first) {
                        seen = false;
                        last = UINT32_MAX;
                }
                if (!all && g->without)
                        continue;
                s.pages++;
                s.distinct += !seen;
                s.intra += seen && pages[i].guest == last;
                if (all && pages[i].guest != last)
                        g->distinct++;
                seen = true;
                last = pages[i].guest;
        }
        return s;
}

static json_t *bytes_of(uint64_t n)
{
        return json_integer((json_int_t)(n * PAGE));
}

static json_t *guest_json(const struct guest *g)
{
        return json_pack("{s:s, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "name", g->name, "ram_bytes",
                         (json_int_t)g->ram, "present_bytes", bytes_of(g->pages), "kernel_zero_bytes",
                         bytes_of(g->kernel_zero), "swapped_bytes", bytes_of(g->swapped), "zero_bytes",
                         bytes_of(g->zero), "huge_bytes", bytes_of(g->huge), "ksm_bytes", bytes_of(g->ksm),
                         "intra_bytes", bytes_of(g->pages - g->distinct));
}

int main(int argc, char **argv)
{
        bool without = false;
        kpageflags = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
        if (kpageflags < 0)
                die("/proc/kpageflags");
        for (int i = 1; i < argc; i++) {
                char *pid = strchr(argv[i], '=');
                if (strcmp(argv[i], "--without") == 0) {
                        without = true;
                } else if (pid == NULL || n_guests == MAX_GUESTS) {
                        fprintf(stderr, "usage: bench-share-oracle NAME=PID... [--without NAME=PID...]\n");
                        return 2;
                } else {
                        *pid++ = '\0';
                        guests[n_guests] = (struct guest){.name = argv[i], .without = without};
                        scan((uint32_t)n_guests++, pid);
                }
        }
        qsort(pages, n_pages, sizeof *pages, by_content);
        compare();
        struct sums all = sum_up(true), some = sum_up(false);
        json_t *list = json_array();
        for (size_t i = 0; i < n_guests; i++)
                json_array_append_new(list, guest_json(&guests[i]));
        json_t *o = json_pack("{s:o, s:o, s:o, s:o, s:I, s:I, s:o}", "present_bytes", bytes_of(all.pages),
                              "surplus_bytes", bytes_of(all.pages - all.distinct), "surplus_intra_bytes",
                              bytes_of(all.intra), "left_out_bytes",
                              bytes_of((all.pages - all.distinct) - (some.pages - some.distinct)), "changed_pages",
                              (json_int_t)changed, "hash_collisions", (json_int_t)collisions, "guests", list);
        json_dumpf(o, stdout, JSON_INDENT(1));
        putchar('\n');
        json_decref(o);
        return 0;
}
