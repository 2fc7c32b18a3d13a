/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A child with known memory, and what a source says of it. */
#ifndef BALLAST_TEST_SOURCE_UTIL_H
#define BALLAST_TEST_SOURCE_UTIL_H

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/pages/regions.h"
#include "daemon/pages/source.h"

#define PAGE  ((size_t)BL_PAGE_SIZE)
#define RAM   ((size_t)(32 * BL_MIB))
#define PAGES (RAM / PAGE)
#define HUGE  ((size_t)(2 * BL_MIB))
#define N(a)  (sizeof(a) / sizeof((a)[0]))

/* A page full of what belongs to `n`: no two are equal, none is zero. */
static inline void fill_page(void *page, uint64_t n)
{
        uint64_t *w = page;

        for (size_t i = 0; i < PAGE / sizeof *w; i++)
                w[i] = (n + 1) * UINT64_C(0x9e3779b97f4a7c15) + i;
}

static inline bool is_page(const void *page, uint64_t n)
{
        unsigned char want[BL_PAGE_SIZE];

        fill_page(want, n);
        return memcmp(page, want, PAGE) == 0;
}

struct child {
        pid_t pid;
        int sock; /* one byte each way for a step */
        unsigned char *ram; /* RAM bytes, the same address in both */
};

/* What the child does at step `step`, counted from 0. */
typedef void child_func(struct child *c, int step);

static inline void child_run(struct child *c, child_func *f)
{
        char b;

        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (int step = 0;; step++) {
                f(c, step);
                if (write(c->sock, "", 1) != 1 || read(c->sock, &b, 1) != 1)
                        _exit(0);
        }
}

/* The next step of it. */
static inline void child_step(struct child *c)
{
        char b = 0;

        assert_int_equal(write(c->sock, &b, 1), 1);
        assert_int_equal(read(c->sock, &b, 1), 1);
}

/* `ram`: RAM bytes at an address that is a multiple of 2 MiB, with small pages, none of them touched. */
static inline unsigned char *map_ram(void)
{
        unsigned char *p = mmap(NULL, RAM + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        unsigned char *aligned;

        assert_ptr_not_equal(p, MAP_FAILED);
        aligned = (unsigned char *)(((uintptr_t)p + HUGE - 1) / HUGE * HUGE);
        p = mmap(aligned, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
        assert_ptr_equal(p, aligned);
        (void)madvise(p, RAM, MADV_NOHUGEPAGE);
        return p;
}

/* `ram` NULL: a new one. */
static inline void child_start(struct child *c, unsigned char *ram, child_func *f)
{
        int pair[2];
        char b;

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        c->ram = ram ? ram : map_ram();
        (void)fflush(NULL);
        c->pid = fork();
        assert_true(c->pid >= 0);
        if (c->pid == 0) {
                (void)close(pair[0]);
                c->sock = pair[1];
                child_run(c, f);
        }
        (void)close(pair[1]);
        c->sock = pair[0];
        assert_int_equal(read(c->sock, &b, 1), 1);
}

static inline void child_end(struct child *c)
{
        if (c->pid > 0) {
                (void)kill(c->pid, SIGKILL);
                (void)waitpid(c->pid, NULL, 0);
                (void)close(c->sock);
                (void)munmap(c->ram, RAM);
        }
        c->pid = 0;
}

/* The number of the page at `address`, as the source has it. */
static inline uint64_t page_at(pid_t pid, uint64_t guest_ram, const void *address)
{
        char path[32];
        struct bl_regions r;
        uint64_t page = UINT64_MAX;
        int fd;

        (void)snprintf(path, sizeof path, "/proc/%d", (int)pid);
        fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        assert_true(fd >= 0);
        assert_int_equal(bl_regions_find(fd, guest_ram, &r), 0);
        for (size_t i = 0; i < r.n; i++)
                if ((uintptr_t)address - r.r[i].start < r.r[i].n * PAGE)
                        page = r.r[i].first + ((uintptr_t)address - r.r[i].start) / PAGE;
        bl_regions_done(&r);
        (void)close(fd);
        assert_true(page != UINT64_MAX);
        return page;
}

static inline struct bl_source *source_of(pid_t pid, uint64_t guest_ram)
{
        struct bl_source *s = NULL;
        char *message = NULL;
        int r = bl_source_process(pid, 0, guest_ram, "child", &s, &message);

        if (r < 0)
                fail_msg("%d: %s", r, message);
        assert_null(message);
        return s;
}

static inline struct bl_page_look look_at(struct bl_source *s, uint64_t page)
{
        struct bl_page_look l;

        assert_int_equal(s->ops->look(s, page, 1, &l), 0);
        return l;
}

/* Reads one page; whether it was ok. */
static inline bool read_at(struct bl_source *s, uint64_t page, void *buf)
{
        bool ok = true;

        assert_int_equal(s->ops->read(s, &page, 1, buf, &ok), 0);
        return ok;
}

/* What the kernel has in /proc/PID/pagemap, by the number of a page of `ram`. */
static inline void read_pagemap(const struct child *c, uint64_t *ret, size_t n)
{
        char path[32];
        int fd;

        (void)snprintf(path, sizeof path, "/proc/%d/pagemap", (int)c->pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        assert_true(fd >= 0);
        assert_int_equal(pread(fd, ret, n * sizeof *ret, (off_t)((uintptr_t)c->ram / PAGE * sizeof *ret)),
                         n * sizeof *ret);
        (void)close(fd);
}

#endif
