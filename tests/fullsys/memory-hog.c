/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * memory-hog MIB SECONDS: takes MIB of memory (half of each page random, so
 * that zram halves it) and goes over it again and again.  Prints "full" once it
 * has all of it and "rounds N" at the end.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define PAGE 4096U

int main(int argc, char **argv)
{
        const size_t size = argc == 3 ? strtoull(argv[1], NULL, 10) << 20 : 0;
        const time_t end = time(NULL) + (argc == 3 ? atol(argv[2]) : 0);
        uint64_t seed = 88172645463325252U, rounds = 0;
        unsigned char *memory;

        if (!size) {
                fputs("usage: memory-hog MIB SECONDS\n", stderr);
                return 2;
        }
        memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) {
                perror("memory-hog: mmap");
                return 1;
        }
        for (size_t at = 0; at < size && time(NULL) < end; at += PAGE)
                for (size_t i = 0; i < PAGE / 2; i += sizeof seed) {
                        seed ^= seed << 13;
                        seed ^= seed >> 7;
                        seed ^= seed << 17;
                        memcpy(memory + at + i, &seed, sizeof seed);
                }
        puts("full");
        fflush(stdout);
        for (; time(NULL) < end; rounds++)
                for (size_t at = 0; at < size && ((at & 0xfffff) || time(NULL) < end); at += PAGE)
                        memory[at + PAGE - 1]++;
        printf("rounds %llu\n", (unsigned long long)rounds);
        return 0;
}
