/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Page sets of real guests' swap: files of 4 KiB pages, one a VM, in a directory.
 *
 *   bench-pageset pack OUT FILE        what a sparse swap file holds: all but holes and
 *                                      the header (page 0) -> OUT
 *   bench-pageset unique DIR FILE...   copies the files into DIR, leaving out every page
 *                                      that an earlier one, or the same, has too
 *   bench-pageset stat FILE...         one JSON object: pages, zero, duplicate, and what
 *                                      they take by LZ4
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <lz4.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define PAGE 4096U

static _Noreturn void die(const char *what)
{
        fprintf(stderr, "bench-pageset: %s: %s\n", what, strerror(errno));
        exit(1);
}

static FILE *open_or_die(const char *path, const char *mode)
{
        FILE *f = fopen(path, mode);
        if (f == NULL)
                die(path);
        return f;
}

static void put(FILE *f, const void *page)
{
        if (fwrite(page, PAGE, 1, f) != 1)
                die("write");
}

static int pack(const char *out, const char *in)
{
        static uint8_t page[PAGE];
        uint64_t n = 0;
        int fd = open(in, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                die(in);
        FILE *f = open_or_die(out, "we");
        for (off_t at = 0; (at = lseek(fd, at, SEEK_DATA)) >= 0;) {
                off_t end = lseek(fd, at, SEEK_HOLE);
                for (at -= at % (off_t)PAGE; at < end; at += PAGE) {
                        if (at == 0)
                                continue; /* mkswap's */
                        if (pread(fd, page, PAGE, at) != (ssize_t)PAGE)
                                die(in);
                        put(f, page);
                        n++;
                }
        }
        if (errno != ENXIO)
                die(in);
        close(fd);
        if (fclose(f) != 0)
                die(out);
        printf("%" PRIu64 "\n", n);
        return 0;
}

/* Contents seen so far: open addressing over their XXH3; two contents of one 64-bit
 * hash would count as one, at 2^-20 for a set of a million pages even once. */
struct seen {
        uint64_t *table;
        uint64_t mask;
};

static struct seen seen_new(uint64_t pages)
{
        uint64_t size = 1024;
        while (size < pages * 2)
                size *= 2;
        struct seen s = {.table = calloc(size, sizeof(uint64_t)), .mask = size - 1};
        if (s.table == NULL)
                die("memory");
        return s;
}

/* true: it was there */
static bool seen_add(struct seen *s, const void *page)
{
        uint64_t h = XXH3_64bits(page, PAGE) | 1;
        for (uint64_t i = h & s->mask;; i = (i + 1) & s->mask) {
                if (s->table[i] == h)
                        return true;
                if (s->table[i] == 0) {
                        s->table[i] = h;
                        return false;
                }
        }
}

static uint64_t pages_of(char **files)
{
        uint64_t n = 0;
        struct stat st;
        for (; *files != NULL; files++) {
                if (stat(*files, &st) < 0)
                        die(*files);
                n += (uint64_t)st.st_size / PAGE;
        }
        return n;
}

static bool is_zero(const uint8_t *page)
{
        return page[0] == 0 && memcmp(page, page + 1, PAGE - 1) == 0;
}

static int unique(const char *dir, char **files)
{
        static uint8_t page[PAGE];
        char path[4096];
        uint64_t n = 0;
        struct seen s = seen_new(pages_of(files));
        for (; *files != NULL; files++) {
                const char *base = strrchr(*files, '/');
                snprintf(path, sizeof path, "%s/%s", dir, base != NULL ? base + 1 : *files);
                FILE *in = open_or_die(*files, "re"), *out = open_or_die(path, "we");
                while (fread(page, PAGE, 1, in) == 1) {
                        if (!seen_add(&s, page)) {
                                put(out, page);
                                n++;
                        }
                }
                fclose(in);
                if (fclose(out) != 0)
                        die(path);
        }
        free(s.table);
        printf("%" PRIu64 "\n", n);
        return 0;
}

static int stat_set(char **files)
{
        static uint8_t page[PAGE];
        static char packed[LZ4_COMPRESSBOUND(PAGE)];
        uint64_t pages = 0, zero = 0, duplicate = 0, lz4 = 0, lz4_unique = 0, half = 0;
        struct seen s = seen_new(pages_of(files));
        for (; *files != NULL; files++) {
                FILE *in = open_or_die(*files, "re");
                while (fread(page, PAGE, 1, in) == 1) {
                        pages++;
                        if (is_zero(page)) {
                                zero++;
                                continue;
                        }
                        int n = LZ4_compress_default((char *)page, packed, PAGE, sizeof packed);
                        uint64_t size = n > 0 && n < (int)PAGE ? (uint64_t)n : PAGE;
                        lz4 += size;
                        half += size <= PAGE / 2;
                        if (seen_add(&s, page)) {
                                duplicate++;
                        } else {
                                lz4_unique += size;
                        }
                }
                fclose(in);
        }
        free(s.table);
        printf("{\"pages\": %" PRIu64 ", \"zero_pages\": %" PRIu64 ", \"duplicate_pages\": %" PRIu64
               ", \"pages_that_halve\": %" PRIu64 ", \"lz4_bytes\": %" PRIu64 ", \"lz4_bytes_of_distinct\": %" PRIu64
               "}\n",
               pages, zero, duplicate, half, lz4, lz4_unique);
        return 0;
}

int main(int argc, char **argv)
{
        if (argc == 4 && strcmp(argv[1], "pack") == 0)
                return pack(argv[2], argv[3]);
        if (argc >= 4 && strcmp(argv[1], "unique") == 0)
                return unique(argv[2], argv + 3);
        if (argc >= 3 && strcmp(argv[1], "stat") == 0)
                return stat_set(argv + 2);
        fprintf(stderr, "usage: bench-pageset pack OUT FILE | unique DIR FILE... | stat FILE...\n");
        return 2;
}
