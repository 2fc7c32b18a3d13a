/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Shares no code with the scanner: pages are copied, sorted by their bytes, and counted. */
#include "daemon/pages/oracle.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>

#define WINDOW 256U /* pages looked at and read at once: 1 MiB */

/* What is known of one copied page: its place in the file is its index. */
struct oracle {
        struct bl_source **sources;
        size_t n;
        const char *dir;
        int fd;
        uint32_t *source; /* of each copy */
        uint64_t copies, room;
        uint64_t *frame; /* of merged pages, with `frame_source`, in the order of the sources */
        uint32_t *frame_source;
        uint64_t frames, frame_room;
        uint8_t *bytes; /* the file, mapped */
        struct bl_scan_report *report;
        char **message;
};

struct bl_scan_report *bl_oracle_free(struct bl_scan_report *r)
{
        if (!r)
                return NULL;
        free(r->source);
        free(r->matrix);
        free(r);
        return NULL;
}

/* Room for one more in two arrays that grow together. */
static int grow(uint64_t **wide, uint32_t **narrow, uint64_t n, uint64_t *room)
{
        const uint64_t more = *room ? *room * 2 : 1024;
        void *p;

        if (n < *room)
                return 0;
        if (wide) {
                p = reallocarray(*wide, more, sizeof(**wide));
                if (!p)
                        return -ENOMEM;
                *wide = p;
        }
        p = reallocarray(*narrow, more, sizeof(**narrow));
        if (!p)
                return -ENOMEM;
        *narrow = p;
        *room = more;
        return 0;
}

static int say_space(struct oracle *o)
{
        uint64_t pages = 0;
        struct statvfs v;

        for (size_t i = 0; i < o->n; i++)
                pages += o->sources[i]->n_pages;
        if (fstatvfs(o->fd, &v) < 0)
                v.f_bavail = 0;
        if (asprintf(o->message,
                     "not enough room in %s to copy what is to be verified: up to %" PRIu64 " MiB are needed, %" PRIu64
                     " MiB are left; set TMPDIR to a place with more",
                     o->dir, pages * BL_PAGE_SIZE / BL_MIB,
                     (o->copies * BL_PAGE_SIZE + v.f_bavail * v.f_frsize) / BL_MIB) < 0)
                *o->message = NULL;
        return -ENOSPC;
}

static int keep(struct oracle *o, const uint8_t *page, uint32_t source)
{
        int r = grow(NULL, &o->source, o->copies, &o->room);

        for (size_t done = 0; r >= 0 && done < BL_PAGE_SIZE;) {
                ssize_t k = pwrite(o->fd, page + done, BL_PAGE_SIZE - done, (off_t)(o->copies * BL_PAGE_SIZE + done));

                if (k < 0 && errno == EINTR)
                        continue;
                if (k < 0)
                        return errno == ENOSPC || errno == EDQUOT || errno == EFBIG ? say_space(o) : -errno;
                done += (size_t)k;
        }
        if (r >= 0)
                o->source[o->copies++] = source;
        return r;
}

static int keep_frame(struct oracle *o, uint64_t frame, uint32_t source)
{
        int r = grow(&o->frame, &o->frame_source, o->frames, &o->frame_room);

        if (r < 0)
                return r;
        o->frame_source[o->frames] = source;
        o->frame[o->frames++] = frame;
        return 0;
}

static bool is_zero(const uint8_t *page)
{
        return page[0] == 0 && memcmp(page, page + 1, BL_PAGE_SIZE - 1) == 0;
}

/* Counts what the window's pages are, and lists those to be read. */
static int sort_out(struct oracle *o, uint32_t k, uint64_t first, const struct bl_page_look *look, size_t n,
                    uint64_t *list, size_t *ret_n)
{
        struct bl_scan_figures *f = &o->report->source[k].f;
        size_t listed = 0;

        for (size_t i = 0; i < n; i++) {
                switch ((enum bl_page_state)look[i].state) {
                case BL_PAGE_ABSENT:
                case _BL_PAGE_STATE_MAX:
                        f->absent++;
                        continue;
                case BL_PAGE_SWAPPED:
                        f->swapped++;
                        continue;
                case BL_PAGE_KERNEL_ZERO:
                        f->kernel_zero++;
                        continue;
                case BL_PAGE_UNREADABLE:
                        f->pages++;
                        f->unreadable++;
                        continue;
                case BL_PAGE_MERGED:
                        f->merged++;
                        int r = keep_frame(o, look[i].frame, k);

                        if (r < 0)
                                return r;
                        break;
                case BL_PAGE_PRESENT:
                        break;
                }
                f->pages++;
                list[listed++] = first + i;
        }
        *ret_n = listed;
        return 0;
}

static int copy_source(struct oracle *o, uint32_t k, uint8_t *buffer)
{
        struct bl_source *s = o->sources[k];
        struct bl_scan_figures *f = &o->report->source[k].f;
        struct bl_page_look look[WINDOW];
        uint64_t list[WINDOW];
        bool ok[WINDOW];
        size_t listed = 0;

        for (uint64_t first = 0; first < s->n_pages; first += WINDOW) {
                const size_t n = (size_t)bl_min(WINDOW, s->n_pages - first);
                int r = s->ops->look(s, first, n, look);

                if (r >= 0)
                        r = sort_out(o, k, first, look, n, list, &listed);
                if (r >= 0 && listed > 0)
                        r = s->ops->read(s, list, listed, buffer, ok);
                for (size_t i = 0; r >= 0 && i < listed; i++) {
                        const uint8_t *page = buffer + i * BL_PAGE_SIZE;

                        if (!ok[i])
                                f->unreadable++;
                        else if (is_zero(page))
                                f->zero++;
                        else
                                r = keep(o, page, k);
                }
                if (r < 0)
                        return r;
        }
        return 0;
}

static int compare_pages(const void *a, const void *b, void *data)
{
        const struct oracle *o = data;
        const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
        const int r = memcmp(o->bytes + x * BL_PAGE_SIZE, o->bytes + y * BL_PAGE_SIZE, BL_PAGE_SIZE);

        if (r != 0)
                return r;
        return x < y ? -1 : x > y;
}

static int compare_frames(const void *a, const void *b, void *data)
{
        const struct oracle *o = data;
        const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

        if (o->frame[x] != o->frame[y])
                return o->frame[x] < o->frame[y] ? -1 : 1;
        return x < y ? -1 : x > y;
}

static uint64_t *numbers(uint64_t n)
{
        uint64_t *order = calloc(n > 0 ? n : 1, sizeof(*order));

        for (uint64_t i = 0; order && i < n; i++)
                order[i] = i;
        return order;
}

/* order[0..n) are copies of one content, in the order of the sources; `has`: room for all sources. */
static void count_content(struct oracle *o, const uint64_t *order, uint64_t n, uint32_t *has)
{
        struct bl_scan_report *r = o->report;
        size_t sources = 0;

        for (uint64_t i = 0; i < n; i++) {
                const uint32_t k = o->source[order[i]];

                if (sources > 0 && has[sources - 1] == k) {
                        r->source[k].f.duplicate_intra++;
                        continue;
                }
                if (sources == 0)
                        r->source[k].f.unique++;
                else
                        r->source[k].f.duplicate_inter++;
                has[sources++] = k;
        }
        for (uint64_t i = 0; sources > 1 && i < n; i++)
                r->source[o->source[order[i]]].f.with_copy_elsewhere++;
        for (size_t i = 0; r->matrix && i < sources; i++)
                for (size_t j = 0; j < sources; j++)
                        if (j != i)
                                r->matrix[has[i] * o->n + has[j]]++;
}

static int count_contents(struct oracle *o)
{
        _cleanup_free_ uint64_t *order = numbers(o->copies);
        _cleanup_free_ uint32_t *has = calloc(o->n, sizeof(*has));

        if (!order || !has)
                return -ENOMEM;
        qsort_r(order, o->copies, sizeof(*order), compare_pages, o);
        for (uint64_t i = 0, j; i < o->copies; i = j) {
                for (j = i + 1; j < o->copies && memcmp(o->bytes + order[i] * BL_PAGE_SIZE,
                                                        o->bytes + order[j] * BL_PAGE_SIZE, BL_PAGE_SIZE) == 0;
                     j++)
                        ;
                count_content(o, order + i, j - i, has);
        }
        return 0;
}

static int count_frames(struct oracle *o)
{
        _cleanup_free_ uint64_t *order = numbers(o->frames);

        if (!order)
                return -ENOMEM;
        qsort_r(order, o->frames, sizeof(*order), compare_frames, o);
        for (uint64_t i = 0; i < o->frames; i++)
                if (i == 0 || o->frame[order[i]] != o->frame[order[i - 1]])
                        o->report->source[o->frame_source[order[i]]].f.merged_frames++;
        return 0;
}

#define FIGURES            \
        X(pages)           \
        X(zero)            \
        X(unique)          \
        X(duplicate_intra) \
        X(duplicate_inter) \
        X(unreadable)      \
        X(saved_pages)     \
        X(merged)          \
        X(merged_frames)   \
        X(merged_saved)    \
        X(absent)          \
        X(swapped)         \
        X(kernel_zero)

static void sum_up(struct oracle *o)
{
        struct bl_scan_report *r = o->report;

        r->still = true;
        for (size_t i = 0; i < o->n; i++) {
                struct bl_scan_figures *f = &r->source[i].f;

                f->saved_pages = f->zero + f->duplicate_intra + f->duplicate_inter;
                f->merged_saved = f->merged - f->merged_frames;
                if (r->matrix)
                        r->matrix[i * o->n + i] = f->duplicate_intra;
#define X(name) r->all.name += f->name;
                FIGURES
#undef X
                r->still = r->still && o->sources[i]->still;
                r->blind = r->blind || o->sources[i]->blind;
        }
}

static int open_copy(struct oracle *o)
{
        o->fd = open(o->dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        if (o->fd >= 0)
                return 0;
        if (asprintf(o->message, "no file can be made in %s: %m", o->dir) < 0)
                *o->message = NULL;
        return -errno;
}

static int run(struct oracle *o)
{
        _cleanup_free_ uint8_t *buffer = malloc((size_t)WINDOW * BL_PAGE_SIZE);
        const size_t room = o->n > 0 ? o->n : 1;
        int r;

        o->report->n = o->n;
        o->report->source = calloc(room, sizeof(*o->report->source));
        if (o->n <= 256)
                o->report->matrix = calloc(room * room, sizeof(*o->report->matrix));
        if (!buffer || !o->report->source || (o->n <= 256 && !o->report->matrix))
                return -ENOMEM;
        r = open_copy(o);
        for (uint32_t i = 0; r >= 0 && i < o->n; i++) {
                r = copy_source(o, i, buffer);
                if (r < 0 && !*o->message &&
                    asprintf(o->message, "%s cannot be read: %s", o->sources[i]->name, strerror(-r)) < 0)
                        *o->message = NULL;
        }
        if (r >= 0 && o->copies > 0) {
                o->bytes = mmap(NULL, o->copies * BL_PAGE_SIZE, PROT_READ, MAP_SHARED, o->fd, 0);
                if (o->bytes == MAP_FAILED)
                        return -errno;
                r = count_contents(o);
                (void)munmap(o->bytes, o->copies * BL_PAGE_SIZE);
        }
        if (r >= 0)
                r = count_frames(o);
        if (r >= 0)
                sum_up(o);
        return r;
}

int bl_oracle_run(struct bl_source **sources, size_t n, const char *dir, struct bl_scan_report **ret,
                  char **ret_message)
{
        _cleanup_(bl_oracle_freep) struct bl_scan_report *report = calloc(1, sizeof(*report));
        char *message = NULL;
        struct oracle o = {.sources = sources, .n = n, .dir = dir, .fd = -1, .report = report, .message = &message};
        int r;

        if (!o.dir)
                o.dir = getenv("TMPDIR");
        if (!o.dir || !*o.dir)
                o.dir = "/var/tmp";
        r = report ? run(&o) : -ENOMEM;
        free(o.source);
        free(o.frame);
        free(o.frame_source);
        bl_closep(&o.fd);
        if (r < 0) {
                if (!message && asprintf(&message, "verifying failed: %s", strerror(-r)) < 0)
                        message = NULL;
                *ret_message = message;
                return r;
        }
        *ret = BL_TAKE(report);
        return 0;
}

static char *say(const char *what, const char *name, uint64_t scan, uint64_t oracle)
{
        char *s = NULL;

        if (asprintf(&s, "%s of %s: the scan says %" PRIu64 ", the oracle %" PRIu64, name, what, scan, oracle) < 0)
                return NULL;
        return s;
}

static char *figures_difference(const char *what, const struct bl_scan_figures *a, const struct bl_scan_figures *b)
{
#define X(name)                 \
        if (a->name != b->name) \
                return say(what, #name, a->name, b->name);
        FIGURES
#undef X
        return NULL;
}

static char *first_difference(const struct bl_scan_report *scan, const struct bl_scan_report *oracle)
{
        char what[64], *s = NULL;

        if (scan->n != oracle->n)
                return say("the report", "sources", scan->n, oracle->n);
        for (size_t i = 0; i < scan->n; i++)
                if (scan->source[i].error) {
                        if (asprintf(&s, "source %zu was left out of the scan: %s", i + 1,
                                     strerror(-scan->source[i].error)) < 0)
                                return NULL;
                        return s;
                }
        s = figures_difference("all", &scan->all, &oracle->all);
        for (size_t i = 0; !s && i < scan->n; i++) {
                const struct bl_scan_figures *a = &scan->source[i].f, *b = &oracle->source[i].f;

                (void)snprintf(what, sizeof(what), "source %zu", i + 1);
                s = figures_difference(what, a, b);
                if (!s && a->with_copy_elsewhere != b->with_copy_elsewhere)
                        s = say(what, "with_copy_elsewhere", a->with_copy_elsewhere, b->with_copy_elsewhere);
        }
        for (size_t i = 0; !s && scan->matrix && oracle->matrix && i < scan->n * scan->n; i++) {
                (void)snprintf(what, sizeof(what), "sources %zu and %zu", i / scan->n + 1, i % scan->n + 1);
                if (scan->matrix[i] != oracle->matrix[i])
                        s = say(what, "matrix", scan->matrix[i], oracle->matrix[i]);
        }
        return s;
}

char *bl_oracle_difference(const struct bl_scan_report *scan, const struct bl_scan_report *oracle)
{
        _cleanup_free_ char *first = NULL;
        char *s = NULL;

        if (scan->sample_shift > 0) {
                if (asprintf(&s, "the scan kept 1/%" PRIu64 " of the hash space: estimates cannot be compared",
                             UINT64_C(1) << scan->sample_shift) < 0)
                        return NULL;
                return s;
        }
        first = first_difference(scan, oracle);
        if (!first || scan->all.volatile_pages == 0)
                return BL_TAKE(first);
        if (asprintf(&s, "%s (%" PRIu64 " pages changed while they were scanned)", first, scan->all.volatile_pages) < 0)
                return NULL;
        return s;
}
