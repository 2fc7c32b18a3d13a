/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/act/zero_pages.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>

#include "daemon/util/clock.h"

#define SETTLE (100 * BL_MSEC)
/* pages between two looks: 128 MiB, which take 35 ms */
#define WINDOW 32768U
#define BLOCK  512U /* pages of 2 MiB */
#define CHUNK  64U /* 256 KiB a read: a smaller one costs more a page */
#define RUNS   64U /* ranges a call; the kernel copies up to 8 to its stack, more cost an allocation */
/* the thread looks at *stop so often while it sleeps */
#define NAP (20 * BL_MSEC)
/* That many were asked for and none went: the kernel would not. */
#define ENOUGH_TO_TELL 256U

struct work {
        struct bl_source *s;
        usec_t until;
        permyriad_t cpu;
        usec_t owed; /* sleep that has not been slept yet */
        usec_t cpu_at; /* of the thread, when it was last counted */
        const atomic_bool *stop;
        uint64_t asked;
        struct bl_zero_result *res;

        uint8_t *bytes; /* CHUNK pages */
        bool zero[WINDOW];
        struct bl_page_look look[BLOCK];
};

/* --- pace --------------------------------------------------------------------------- */

static void sleep_for(const struct work *w, usec_t t)
{
        while (t > 0 && !atomic_load(w->stop)) {
                const usec_t nap = bl_min(t, NAP);
                const struct timespec ts = {.tv_nsec = (long)(nap * 1000)};

                (void)nanosleep(&ts, NULL);
                t -= nap;
        }
}

/* After each piece of work; naps below a millisecond would be longer than asked for. */
static void pace(struct work *w)
{
        const usec_t now = bl_now_thread_cpu(), used = bl_sub_sat(now, w->cpu_at);

        w->cpu_at = now;
        w->owed = bl_add_sat(w->owed, bl_mul_sat(used, BL_WHOLE - w->cpu) / w->cpu);
        if (w->owed < BL_MSEC)
                return;
        sleep_for(w, bl_min(w->owed, bl_sub_sat(w->until, bl_now())));
        w->owed = 0;
}

static bool is_over(const struct work *w)
{
        return atomic_load(w->stop) || bl_now() >= w->until;
}

/* --- looking ---------------------------------------------------------------------------- */

/* Reads pages first .. first + n of which look says that they are there, and of which `zero` is set if `again`, and
 * says in `zero` which are zeros. */
static int read_block(struct work *w, uint64_t first, size_t n, bool *zero, bool again)
{
        uint64_t pages[CHUNK];
        bool ok[CHUNK];
        int r = w->s->ops->look(w->s, first, n, w->look);

        for (size_t i = 0, k = 0; r >= 0 && i < n; i++) {
                const bool wanted = w->look[i].state == BL_PAGE_PRESENT && (!again || zero[i]);

                zero[i] = false;
                if (wanted)
                        pages[k++] = first + i;
                if (k == 0 || (k < CHUNK && i + 1 < n))
                        continue;
                r = w->s->ops->read(w->s, pages, k, w->bytes, ok);
                for (size_t p = 0; r >= 0 && p < k; p++)
                        zero[pages[p] - first] = ok[p] && bl_page_is_zero(w->bytes + p * BL_PAGE_SIZE);
                k = 0;
        }
        return r < 0 ? r : 0;
}

/* Pages up to where the next 2 MiB of addresses begin. */
static size_t block_at(const struct work *w, uint64_t page, uint64_t left)
{
        const uint64_t address = bl_source_process_address(w->s, page);

        return (size_t)bl_min(BLOCK - (address >> BL_PAGE_SHIFT) % BLOCK, left);
}

static size_t count(const bool *zero, size_t n)
{
        size_t k = 0;

        for (size_t i = 0; i < n; i++)
                k += zero[i];
        return k;
}

/* --- out with them ------------------------------------------------------------------------ */

static int advise(const struct work *w, const struct iovec *v, size_t n)
{
        for (size_t i = 0; i < n;) {
                ssize_t k = process_madvise(bl_source_process_pidfd(w->s), v + i, n - i, MADV_PAGEOUT, 0);

                if (k < 0 && errno != ENOMEM && errno != EAGAIN && errno != EINTR)
                        return errno == EINVAL || errno == ENOSYS ? -EOPNOTSUPP : -errno;
                /* it stops at a range of which part is no memory any more, which is passed by */
                for (size_t done = k > 0 ? (size_t)k : v[i].iov_len; i < n && done > 0; i++)
                        done = (size_t)bl_sub_sat(done, v[i].iov_len);
        }
        return 0;
}

static int page_out(struct work *w, uint64_t first, size_t n, const bool *zero)
{
        struct iovec v[RUNS];
        size_t k = 0;
        int r = 0;

        for (size_t i = 0; i < n && r == 0; i++) {
                const uint64_t address = bl_source_process_address(w->s, first + i);
                struct iovec *last = k > 0 ? &v[k - 1] : NULL;

                if (!zero[i])
                        continue;
                if (last && (uint64_t)(uintptr_t)last->iov_base + last->iov_len == address) {
                        last->iov_len += BL_PAGE_SIZE;
                        continue;
                }
                if (k == RUNS) {
                        r = advise(w, v, k);
                        k = 0;
                }
                v[k++] = (struct iovec){.iov_base = (void *)(uintptr_t)address, .iov_len = BL_PAGE_SIZE};
        }
        return r == 0 && k > 0 ? advise(w, v, k) : r;
}

/* The second look at 2 MiB, and what follows from it. */
static int finish_block(struct work *w, uint64_t first, size_t n, bool *zero)
{
        size_t found;
        int r;

        if (count(zero, n) <= BL_ZERO_WORTH)
                return 0;
        r = read_block(w, first, n, zero, true);
        if (r < 0)
                return r;
        found = count(zero, n);
        if (found <= BL_ZERO_WORTH)
                return 0;
        w->res->zero += found;
        r = page_out(w, first, n, zero);
        if (r == 0)
                r = w->s->ops->look(w->s, first, n, w->look);
        if (r < 0)
                return r;
        w->asked += found;
        for (size_t i = 0; i < n; i++)
                w->res->out += zero[i] && w->look[i].state != BL_PAGE_PRESENT && w->look[i].state != BL_PAGE_MERGED;
        return 0;
}

/* --- a window ------------------------------------------------------------------------------ */

/* The first look, until `enough` were found.  Returns how many pages were looked at; negative errno. */
static int64_t find(struct work *w, uint64_t first, uint64_t n, uint64_t enough)
{
        const usec_t half = bl_now() + bl_sub_sat(w->until, bl_now()) / 2;
        uint64_t at = 0, found = 0;

        while (at < n && found < enough && bl_now() < half && !is_over(w)) {
                const size_t block = block_at(w, first + at, n - at);
                const int r = read_block(w, first + at, block, w->zero + at, false);
                size_t zeros;

                if (r < 0)
                        return r;
                zeros = count(w->zero + at, block);
                found += zeros > BL_ZERO_WORTH ? zeros : 0;
                at += block;
                pace(w);
        }
        return (int64_t)at;
}

static int64_t do_window(struct work *w, uint64_t first, uint64_t n, uint64_t enough, usec_t settle)
{
        const int64_t found = find(w, first, n, enough);
        uint64_t at = 0;

        if (found <= 0)
                return found;
        if (count(w->zero, (size_t)found) > BL_ZERO_WORTH)
                sleep_for(w, settle);
        while (at < (uint64_t)found && !is_over(w)) {
                const size_t block = block_at(w, first + at, (uint64_t)found - at);
                const int r = finish_block(w, first + at, block, w->zero + at);

                if (r < 0)
                        return r;
                at += block;
                w->res->looked += block;
                pace(w);
        }
        return (int64_t)at;
}

static int work(struct work *w, uint64_t at, uint64_t pages, uint64_t want, usec_t settle)
{
        struct bl_zero_result *res = w->res;

        while (res->looked < pages && res->out < want && !is_over(w)) {
                const uint64_t left = bl_min(w->s->n_pages - at, pages - res->looked);
                const int64_t n = do_window(w, at, bl_min(left, WINDOW), want - res->out, settle);

                if (n < 0)
                        return (int)n;
                at += (uint64_t)n;
                res->next = at;
                if (at < w->s->n_pages)
                        continue;
                res->next = 0;
                res->round = true;
                break;
        }
        return w->asked >= ENOUGH_TO_TELL && res->out == 0 ? -EOPNOTSUPP : 0;
}

void bl_zero_pages_out(struct bl_source *s, uint64_t first, uint64_t pages, uint64_t bytes, usec_t time,
                       permyriad_t cpu, usec_t settle, const atomic_bool *stop, struct bl_zero_result *ret)
{
        const usec_t begin = bl_now_thread_cpu();
        struct work *w = malloc(sizeof *w);
        struct bl_zero_result res = {.next = first < s->n_pages ? first : 0};

        if (w) {
                *w = (struct work){
                        .s = s,
                        .until = bl_add_sat(bl_now(), time),
                        .cpu = (permyriad_t)bl_clamp(cpu, 1, BL_WHOLE),
                        .cpu_at = begin,
                        .stop = stop,
                        .res = &res,
                        .bytes = malloc((size_t)CHUNK * BL_PAGE_SIZE),
                };
        }
        if (!w || !w->bytes)
                res.error = -ENOMEM;
        else if (bl_source_process_pidfd(s) < 0)
                res.error = -EINVAL;
        else
                res.error = work(w, res.next, pages, bytes / BL_PAGE_SIZE, settle ? settle : SETTLE);
        if (w)
                free(w->bytes);
        free(w);
        res.cpu = bl_sub_sat(bl_now_thread_cpu(), begin);
        *ret = res;
}
