// SPDX-License-Identifier: LGPL-2.1-or-later
/* Dumps as sources of pages. */
#include "daemon/pages/source.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/pages/dump_layout.h"

struct dump {
        struct bl_source s;
        int fd;
        char *path;
        bool sparse;
        struct bl_dump_layout layout;
        size_t hint; /* of bl_dump_piece_at() */
        uint64_t data_start, data_end; /* a range of the file without holes, found last */
};

static struct dump *dump_of(struct bl_source *s)
{
        return (struct dump *)(void *)s;
}

/* --- reading ---------------------------------------------------------------- */

/* The next range with data at or behind `at`.  A hole before it reads as zeros, and is not read: that would only fill
 * the page cache with them. */
static void find_data(struct dump *d, uint64_t at)
{
        off_t start, end;

        if (!d->sparse || (at >= d->data_start && at < d->data_end))
                return;
        start = lseek(d->fd, (off_t)at, SEEK_DATA);
        if (start < 0 && errno == ENXIO) {
                /* nothing but a hole up to the end of the file, behind which a read finds nothing */
                start = lseek(d->fd, 0, SEEK_END);
                end = INT64_MAX;
        } else {
                end = start < 0 ? -1 : lseek(d->fd, start, SEEK_HOLE);
        }
        if (start < 0 || end < 0) {
                d->sparse = false;
                start = 0;
                end = INT64_MAX;
        }
        d->data_start = (uint64_t)start;
        d->data_end = (uint64_t)end;
}

static int read_range(struct dump *d, char *to, uint64_t at, uint64_t size)
{
        while (size) {
                ssize_t n;

                find_data(d, at);
                if (at < d->data_start) {
                        n = (ssize_t)bl_min(size, d->data_start - at);
                        memset(to, 0, (size_t)n);
                } else {
                        n = pread(d->fd, to, (size_t)bl_min(size, d->data_end - at), (off_t)at);
                        if (n < 0 && errno == EINTR)
                                continue;
                        if (n <= 0)
                                return n < 0 ? -errno : -EIO;
                }
                to += n;
                at += (uint64_t)n;
                size -= (uint64_t)n;
        }
        return 0;
}

/* How many of `pages` are whole neighbours in the file. */
static size_t run_of(const struct bl_dump_piece *p, const uint64_t *pages, size_t n)
{
        size_t run = 0;

        while (run < n && pages[run] == pages[0] + run && pages[run] - p->first < p->n &&
               (pages[run] - p->first + 1) * BL_PAGE_SIZE <= p->there)
                run++;
        return run;
}

static bool read_one(struct dump *d, const struct bl_dump_piece *p, uint64_t k, char *to)
{
        const uint64_t size = bl_dump_page_size(p, k);

        if (bl_dump_page_state(p, k) != BL_PAGE_PRESENT || read_range(d, to, p->offset + k * BL_PAGE_SIZE, size) < 0)
                return false;
        memset(to + size, 0, (size_t)(BL_PAGE_SIZE - size));
        return true;
}

static int dump_read(struct bl_source *s, const uint64_t *pages, size_t n, void *buf, bool *ret_ok)
{
        struct dump *d = dump_of(s);
        char *to = buf;

        while (n > 0 && pages[n - 1] >= s->n_pages)
                ret_ok[--n] = false;
        for (size_t i = 0; i < n;) {
                const struct bl_dump_piece *p = bl_dump_piece_at(&d->layout, pages[i], &d->hint);
                const uint64_t at = p->offset + (pages[i] - p->first) * BL_PAGE_SIZE;
                const size_t run = run_of(p, pages + i, n - i), end = i + (run ? run : 1);

                if (run && read_range(d, to + i * BL_PAGE_SIZE, at, run * BL_PAGE_SIZE) >= 0) {
                        memset(ret_ok + i, true, run);
                        i = end;
                }
                /* a bad block costs the pages that it is in, not their neighbours */
                for (; i < end; i++)
                        ret_ok[i] = read_one(d, p, pages[i] - p->first, to + i * BL_PAGE_SIZE);
        }
        return 0;
}

static int dump_look(struct bl_source *s, uint64_t first, size_t n, struct bl_page_look *ret)
{
        struct dump *d = dump_of(s);
        const size_t known = (size_t)bl_min(n, bl_sub_sat(s->n_pages, first));

        memset(ret + known, 0, (n - known) * sizeof *ret);
        for (size_t i = 0; i < known; i++) {
                const struct bl_dump_piece *p = bl_dump_piece_at(&d->layout, first + i, &d->hint);

                ret[i] = (struct bl_page_look){.state = (uint8_t)bl_dump_page_state(p, first + i - p->first)};
        }
        return 0;
}

/* --- life ------------------------------------------------------------------- */

static int take_layout(struct dump *d, struct bl_dump_layout *l)
{
        _cleanup_free_ char *warning = NULL;
        struct stat st;

        if (l->missing &&
            asprintf(&warning, "%s was cut off at byte %" PRIu64 ": %" PRIu64 " of its %" PRIu64 " pages are missing.",
                     d->path, l->size, l->missing, l->pages) < 0)
                return -ENOMEM;
        bl_dump_layout_done(&d->layout);
        d->layout = *l;
        *l = (struct bl_dump_layout){0};
        d->hint = 0;
        d->data_start = 0;
        d->sparse = fstat(d->fd, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_blocks * 512 < d->layout.size;
        d->data_end = d->sparse ? 0 : INT64_MAX;
        free(d->s.warning);
        d->s.warning = BL_TAKE(warning);
        d->s.n_pages = d->layout.pages;
        d->s.tail_bytes = d->layout.tail_bytes;
        return 0;
}

static int dump_again(struct bl_source *s)
{
        struct dump *d = dump_of(s);
        _cleanup_(bl_dump_layout_done) struct bl_dump_layout l = {0};
        _cleanup_free_ char *message = NULL;
        int r;

        if (lseek(d->fd, 0, SEEK_END) == (off_t)d->layout.size)
                return 0;
        r = bl_dump_layout_read(d->fd, d->path, &l, &message);
        if (r >= 0)
                r = take_layout(d, &l);
        return r < 0 ? r : 1;
}

static struct bl_source *dump_free(struct bl_source *s)
{
        struct dump *d = dump_of(s);

        bl_closep(&d->fd);
        bl_dump_layout_done(&d->layout);
        free(d->path);
        free(d->s.name);
        free(d->s.warning);
        free(d);
        return NULL;
}

static const struct bl_source_ops dump_ops = {
        .look = dump_look,
        .read = dump_read,
        .again = dump_again,
        .free = dump_free,
};

static const char *base_of(const char *path)
{
        const char *slash = strrchr(path, '/');

        return slash && slash[1] ? slash + 1 : path;
}

static int open_dump(struct dump *d, const char *name, char **ret_message)
{
        _cleanup_(bl_dump_layout_done) struct bl_dump_layout l = {0};
        int r;

        d->s.name = strdup(name ? name : base_of(d->path));
        if (!d->s.name)
                return -ENOMEM;
        /* a FIFO would wait for its writer */
        d->fd = open(d->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        if (d->fd < 0) {
                r = -errno;
                if (asprintf(ret_message, "%s cannot be opened: %s%s", d->path, strerror(-r),
                             r == -EACCES || r == -EPERM ? "; run it as root, or as the file's owner" : "") < 0)
                        *ret_message = NULL;
                return r;
        }
        r = bl_dump_layout_read(d->fd, d->path, &l, ret_message);
        return r < 0 ? r : take_layout(d, &l);
}

int bl_source_file(const char *path, const char *name, struct bl_source **ret, char **ret_message)
{
        struct dump *d = calloc(1, sizeof *d);
        int r = -ENOMEM;

        *ret_message = NULL;
        if (d) {
                d->s.ops = &dump_ops;
                d->s.still = true;
                d->fd = -1;
                d->path = strdup(path);
                if (d->path)
                        r = open_dump(d, name, ret_message);
        }
        if (r < 0) {
                if (!*ret_message && asprintf(ret_message, "%s: %s", path, strerror(-r)) < 0)
                        *ret_message = NULL;
                (void)(d ? dump_free(&d->s) : NULL);
                return r;
        }
        *ret = &d->s;
        return 0;
}
