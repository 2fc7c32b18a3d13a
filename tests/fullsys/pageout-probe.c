/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pageout-probe hold MIB
 * pageout-probe walk PID ADDRESS MIB BYTES_MIB
 *
 * hold: a stand-in for a VMM.  Fills MIB of memory, prints its pid and address and
 * then touches the first half again and again, and never the second; ends with the
 * status of its content: 0 right, 1 wrong, on SIGTERM.
 *
 * walk: has BYTES_MIB of it paged out as the page-out engine does, and prints
 * "by_cgroup=B error=E freed=MIB hot=PAGES cold=PAGES": pages that are still there of
 * either half.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "daemon/act/pageout_walk.h"

static volatile sig_atomic_t over;

static void on_term(int signo)
{
        (void)signo;
        over = 1;
}

/* Compresses well, and tells pages apart. */
static void fill(unsigned char *page, size_t n)
{
        memset(page, 0, 4096);
        for (size_t i = 0; i < 512; i++)
                page[i] = (unsigned char)(n * 31 + i * 7 + 1);
}

static int hold(size_t mib)
{
        const size_t pages = mib * 256;
        unsigned char *p = mmap(NULL, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        const struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
        unsigned char want[4096];
        unsigned sum = 0;

        if (p == MAP_FAILED)
                return 2;
        (void)madvise(p, pages * 4096, MADV_NOHUGEPAGE);
        for (size_t i = 0; i < pages; i++)
                fill(p + i * 4096, i);
        (void)signal(SIGTERM, on_term);
        printf("%d %" PRIuPTR "\n", (int)getpid(), (uintptr_t)p);
        (void)fflush(stdout);
        while (!over) {
                for (size_t i = 0; i < pages / 2; i++)
                        sum += *(volatile unsigned char *)(p + i * 4096);
                (void)nanosleep(&pause, NULL);
        }
        for (size_t i = 0; i < pages; i++) {
                fill(want, i);
                if (memcmp(want, p + i * 4096, 4096) != 0)
                        return 1;
        }
        return sum == 0; /* so that it is not left out */
}

static long present(int pid, uint64_t address, size_t pages)
{
        _cleanup_free_ uint64_t *words = calloc(pages, sizeof *words);
        _cleanup_close_ int fd = -1;
        char path[64];
        long n = 0;

        (void)snprintf(path, sizeof path, "/proc/%d/pagemap", pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (!words || fd < 0 || pread(fd, words, pages * 8, (off_t)(address / 4096 * 8)) != (ssize_t)(pages * 8))
                return -1;
        for (size_t i = 0; i < pages; i++)
                n += (words[i] >> 63) != 0;
        return n;
}

static int walk(int pid, uint64_t address, uint64_t mib, uint64_t bytes_mib)
{
        const struct bl_walk_options o = {0};
        _cleanup_(bl_walk_freep) struct bl_walk *w = NULL;
        _cleanup_close_ int dirfd = -1;
        atomic_bool stop = false;
        struct bl_walk_result res;
        char path[64];

        (void)snprintf(path, sizeof path, "/proc/%d", pid);
        dirfd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (dirfd < 0 || bl_walk_new(&o, pid, dirfd, mib * BL_MIB, &w) < 0)
                return 1;
        bl_walk_run(w, bytes_mib * BL_MIB, 20 * BL_SEC, &stop, &res);
        printf("by_cgroup=%d error=%d freed=%" PRIu64 " hot=%ld cold=%ld\n", bl_walk_by_cgroup(w), res.error,
               res.freed / BL_MIB, present(pid, address, mib * 128),
               present(pid, address + mib * BL_MIB / 2, mib * 128));
        return res.error != 0;
}

int main(int argc, char **argv)
{
        if (argc == 3 && strcmp(argv[1], "hold") == 0)
                return hold(strtoul(argv[2], NULL, 10));
        if (argc == 6 && strcmp(argv[1], "walk") == 0)
                return walk(atoi(argv[2]), strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10),
                            strtoull(argv[5], NULL, 10));
        return 2;
}
