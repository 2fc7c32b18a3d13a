// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * bench-share-touch MIB SECONDS: run inside a guest (built static and put on a disk of it by
 * bench-share.sh): fills MIB of memory with pages that are all different and then reads and
 * writes one word of a random page, again and again, timing each.  Prints
 * "touches=N p50_ns=N p99_ns=N p999_ns=N".
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#define PAGE  4096U
#define WORDS (PAGE / sizeof(uint64_t))
/* A bucket is 1/32 of a power of two wide, so a figure is at most 3 % too high */
#define STEPS   32U
#define BUCKETS (64U * STEPS)

static uint64_t buckets[BUCKETS];

static uint64_t now_ns(void)
{
        struct timespec t;
        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

/* xorshift64* (Vigna 2016) */
static uint64_t next(uint64_t *state)
{
        uint64_t x = *state;
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        *state = x;
        return x * 0x2545F4914F6CDD1DU;
}

static void count(uint64_t ns)
{
        unsigned exponent = 0;
        while (ns >> exponent >= 2 * STEPS)
                exponent++;
        buckets[exponent * STEPS + (ns >> exponent)]++;
}

/* The upper end of the bucket below which PART of all lie */
static uint64_t quantile(uint64_t n, double part)
{
        uint64_t seen = 0, want = (uint64_t)((double)n * part);
        for (unsigned i = 0; i < BUCKETS; i++) {
                unsigned exponent = i < 2 * STEPS ? 0 : i / STEPS - 1;
                seen += buckets[i];
                if (seen > want)
                        return ((uint64_t)(i - exponent * STEPS) + 1) << exponent;
        }
        return 0;
}

int main(int argc, char **argv)
{
        uint64_t pages = argc == 3 ? strtoull(argv[1], NULL, 10) * 256 : 0, n = 0, state = now_ns() | 1;
        double seconds = argc == 3 ? strtod(argv[2], NULL) : 0;
        if (pages == 0 || seconds <= 0) {
                fprintf(stderr, "usage: bench-share-touch MIB SECONDS\n");
                return 2;
        }
        volatile uint64_t *mem = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mem == MAP_FAILED) {
                perror("bench-share-touch: mmap");
                return 1;
        }
        for (uint64_t i = 0; i < pages * WORDS; i++)
                mem[i] = next(&state);
        for (uint64_t t = now_ns(), end = t + (uint64_t)(seconds * 1e9); t < end; n++) {
                volatile uint64_t *word = mem + next(&state) % (pages * WORDS);
                uint64_t from = now_ns();
                *word = *word + 1;
                t = now_ns();
                count(t - from);
        }
        printf("touches=%" PRIu64 " p50_ns=%" PRIu64 " p99_ns=%" PRIu64 " p999_ns=%" PRIu64 "\n", n, quantile(n, 0.5),
               quantile(n, 0.99), quantile(n, 0.999));
        return 0;
}
