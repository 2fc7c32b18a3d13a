/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the programs of bench-store have in common: page sets in memory, time, order. */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PAGE    4096U
#define REQUEST (128U << 10) /* what guests write at a time: research, 137 KiB on average */

static _Noreturn void die(const char *what)
{
        fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
        exit(1);
}

/* One VM's pages, page-aligned (O_DIRECT). */
struct set {
        uint8_t *data;
        size_t size;
};

static inline struct set set_load(const char *path)
{
        struct stat st;
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &st) < 0)
                die(path);
        struct set s = {.size = (size_t)st.st_size / PAGE * PAGE};
        s.data = mmap(NULL, s.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (s.data == MAP_FAILED)
                die(path);
        for (size_t done = 0; done < s.size;) {
                ssize_t n = read(fd, s.data + done, s.size - done);
                if (n <= 0)
                        die(path);
                done += (size_t)n;
        }
        close(fd);
        return s;
}

static inline uint64_t clock_us(clockid_t clock)
{
        struct timespec t;
        clock_gettime(clock, &t);
        return (uint64_t)t.tv_sec * 1000000U + (uint64_t)t.tv_nsec / 1000U;
}

static inline uint64_t clock_ns(clockid_t clock)
{
        struct timespec t;
        clock_gettime(clock, &t);
        return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

/* splitmix64: the same order in each arm */
static inline uint64_t next_random(uint64_t *state)
{
        uint64_t x = *state += 0x9e3779b97f4a7c15U;
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
        return x ^ (x >> 31);
}

static int by_value(const void *a, const void *b)
{
        uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
        return (x > y) - (x < y);
}

/* Sorts; in us. */
static inline double quantile_us(uint64_t *ns, size_t n, double q)
{
        if (n == 0)
                return 0;
        qsort(ns, n, sizeof *ns, by_value);
        size_t i = (size_t)(q * (double)n);
        return (double)ns[i < n ? i : n - 1] / 1000.0;
}
