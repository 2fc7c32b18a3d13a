/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* guestwork.c: a workload child, memory with a known pattern (part of guestcmd). */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "guestcmd.h"

static uint64_t base_page[WORDS];

/* Each word of page N is a random word XOR a key of the page: no page
 * compresses, no two pages are equal, and a fill costs hardly more than the
 * page faults. FILL_HALF leaves the second half of a page zero. */
static inline uint64_t pattern_key(const struct work *w, uint64_t page)
{
        return mix(w->seed ^ mix(page));
}

static void pattern_fill(const struct work *w, uint64_t page)
{
        uint64_t *p = w->mem + page * WORDS;
        uint64_t key = pattern_key(w, page);
        size_t n = w->fill == FILL_HALF ? WORDS / 2 : WORDS;
        if (w->fill == FILL_ZERO) {
                memset(p, 0, PAGE);
                return;
        }
        for (size_t i = 0; i < n; i++)
                p[i] = base_page[i] ^ key;
        if (n < WORDS)
                memset(p + n, 0, PAGE - n * sizeof *p);
}

/* Verifies the page and adds it to the sum. */
static bool pattern_sum(const struct work *w, uint64_t page, uint64_t *sum)
{
        const uint64_t *p = w->mem + page * WORDS;
        uint64_t key = pattern_key(w, page), bad = 0, s = *sum;
        size_t n = w->fill == FILL_HALF ? WORDS / 2 : WORDS;
        if (w->fill == FILL_ZERO)
                n = 0;
        for (size_t i = 0; i < WORDS; i++) {
                bad |= p[i] ^ (i < n ? base_page[i] ^ key : 0);
                s = s * 31 + p[i];
        }
        *sum = s;
        return bad == 0;
}

/* Which rewriting of "churn" a page holds before pass `pass` (from 1 on): every third page is
 * rewritten in turn; 0: as it was filled. */
static uint64_t churn_version(uint64_t page, uint64_t pass)
{
        uint64_t last = pass - 1;
        while (last > 0 && last % 3 != page % 3)
                last--;
        return last;
}

/* Verifies all pages and rewrites a third of them with other content, for ever: swapped
 * memory is read and written, and a write that was lost is seen. */
static _Noreturn void churn(const struct work *w, struct progress *pr)
{
        for (uint64_t pass = 1;; pass++) {
                for (uint64_t page = 0; page < w->pages; page++) {
                        struct work as = *w;
                        uint64_t sum = 0;
                        as.seed ^= churn_version(page, pass);
                        if (!pattern_sum(&as, page, &sum)) {
                                if (__atomic_fetch_add(&pr->wrong, 1, __ATOMIC_RELAXED) == 0)
                                        klog("churn %s: page %" PRIu64 " is wrong in pass %" PRIu64 "\n", w->id, page,
                                             pass);
                        }
                        if (pass % 3 == page % 3) {
                                as.seed = w->seed ^ pass;
                                pattern_fill(&as, page);
                        }
                        __atomic_fetch_add(&pr->churned, 1, __ATOMIC_RELAXED);
                }
        }
}

static void work_fill(const struct work *w, struct progress *pr, char *out, size_t size)
{
        uint64_t start = now_us();
        for (uint64_t page = 0; page < w->pages; page++) {
                pattern_fill(w, page);
                if ((page + 1) % PAGES_PER_MIB == 0) {
                        uint64_t mib = (page + 1) / PAGES_PER_MIB;
                        __atomic_store_n(&pr->done_mib, mib, __ATOMIC_RELAXED);
                        if (w->rate > 0) {
                                uint64_t due = start + mib * 1000000U / w->rate, now = now_us();
                                if (due > now)
                                        usleep((useconds_t)(due - now));
                        }
                }
        }
        snprintf(out, size, "ok %s mib=%" PRIu64 " us=%" PRIu64, w->id, w->pages / PAGES_PER_MIB, now_us() - start);
}

/* Handles "touch [FROM COUNT]", "read [FROM COUNT]", "sum" and "mlock". */
static void work_command(const struct work *w, char *line, char *out, size_t size)
{
        char *save = NULL;
        const char *verb = strtok_r(line, " ", &save);
        uint64_t from = 0, count = w->pages / PAGES_PER_MIB, start = now_us();
        const char *a = strtok_r(NULL, " ", &save), *b = strtok_r(NULL, " ", &save);
        if (a != NULL && (!parse_u64(a, &from) || !parse_u64(b, &count) || from > w->pages || count > w->pages ||
                          (from + count) * PAGES_PER_MIB > w->pages)) {
                snprintf(out, size, "error %s: range", w->id);
                return;
        }
        uint64_t first = from * PAGES_PER_MIB, last = first + count * PAGES_PER_MIB;
        if (strcmp(verb, "sum") == 0) {
                uint64_t sum = 0, bad = 0, bad_page = 0;
                for (uint64_t page = first; page < last; page++) {
                        if (!pattern_sum(w, page, &sum))
                                bad_page = bad++ == 0 ? page : bad_page;
                }
                if (bad > 0) {
                        snprintf(out, size, "error %s: %" PRIu64 " corrupt pages, first %" PRIu64, w->id, bad,
                                 bad_page);
                } else {
                        snprintf(out, size, "ok %s sum=%016" PRIx64 " mib=%" PRIu64 " us=%" PRIu64, w->id, sum, count,
                                 now_us() - start);
                }
        } else if (strcmp(verb, "mlock") == 0) {
                if (mlock(w->mem, w->pages * PAGE) < 0) {
                        snprintf(out, size, "error %s: mlock: %s", w->id, strerror(errno));
                } else {
                        snprintf(out, size, "ok %s us=%" PRIu64, w->id, now_us() - start);
                }
        } else { /* touch dirties, read does not; the slowest page is reported */
                bool dirty = strcmp(verb, "touch") == 0;
                uint64_t worst = 0, t = start;
                for (uint64_t page = first; page < last; page++) {
                        volatile uint64_t *p = w->mem + page * WORDS;
                        uint64_t v = *p;
                        if (dirty)
                                *p = v;
                        uint64_t t2 = now_us();
                        worst = t2 - t > worst ? t2 - t : worst;
                        t = t2;
                }
                snprintf(out, size, "ok %s mib=%" PRIu64 " us=%" PRIu64 " worst_page_us=%" PRIu64, w->id, count,
                         now_us() - start, worst);
        }
}

_Noreturn void work_main(struct work *w, int fd, struct progress *pr)
{
        char line[256], out[512];

        for (size_t i = 0; i < WORDS; i++)
                base_page[i] = mix(i * 0x100000001U);
        w->mem =
                mmap(NULL, w->pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (w->mem == MAP_FAILED) {
                snprintf(out, sizeof out, "error %s: mmap: %s", w->id, strerror(errno));
                write_all(fd, out, strlen(out));
                _exit(1);
        }
        console("alloc %s %" PRIu64 " start\n", w->id, w->pages / PAGES_PER_MIB);
        work_fill(w, pr, out, sizeof out);
        console("alloc %s %" PRIu64 " done\n", w->id, w->pages / PAGES_PER_MIB);
        for (;;) {
                write_all(fd, out, strlen(out));
                ssize_t n = read(fd, line, sizeof line - 1);
                if (n <= 0)
                        _exit(0);
                line[n] = '\0';
                if (strncmp(line, "churn", 5) == 0) {
                        snprintf(out, sizeof out, "ok %s churns", w->id);
                        write_all(fd, out, strlen(out));
                        churn(w, pr);
                }
                work_command(w, line, out, sizeof out);
        }
}
