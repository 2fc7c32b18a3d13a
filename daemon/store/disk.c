// SPDX-License-Identifier: LGPL-2.1-or-later
#include "daemon/store/disk.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>

#include "daemon/store/disk_link.h"
#include "daemon/store/disk_segments.h"
#include "daemon/util/clock.h"

#define HANG_AFTER   (10 * BL_SEC)
#define SEGMENTS_MIN 4U

struct bl_disk {
        struct bl_link *link;
        usec_t hang_after;
        pthread_mutex_t lock; /* of what follows; never held over anything that waits */
        pthread_cond_t appended;
        bool appending, failed;
        struct bl_segments segments;
        uint64_t written, read;
};

__attribute__((format(printf, 3, 4))) static int fail(int r, char **ret_message, const char *format, ...)
{
        va_list ap;
        char *text;

        va_start(ap, format);
        if (vasprintf(&text, format, ap) < 0)
                text = NULL;
        va_end(ap);
        free(*ret_message);
        *ret_message = text;
        return r;
}

/* --- opening ------------------------------------------------------------------------ */

/* Takes its room now, so that it is not wanting later.  What is there is not touched: a filesystem call would
 * wait behind a hanging write of the store before us. */
static int take_room(int fd, const struct stat *st, const struct bl_disk_options *o, char **ret_message)
{
        int r;

        if ((uint64_t)st->st_size >= o->size && (uint64_t)st->st_blocks * 512 >= o->size)
                return 0;
        do
                r = fallocate(fd, 0, 0, (off_t)o->size) < 0 ? -errno : 0;
        while (r == -EINTR);
        if (r == -EOPNOTSUPP && (uint64_t)st->st_size < o->size)
                r = ftruncate(fd, (off_t)o->size) < 0 ? -errno : 0;
        if (r < 0 && r != -EOPNOTSUPP)
                return fail(r, ret_message, "%s: there is no room for %" PRIu64 " MiB: %s", o->path, o->size / BL_MIB,
                            strerror(-r));
        return 0;
}

static int open_file(const struct bl_disk_options *o, int *ret_fd, char **ret_message)
{
        _cleanup_close_ int fd = -1;
        struct stat st;
        int r;

        if (o->size < SEGMENTS_MIN * BL_DISK_SEGMENT)
                return fail(-EINVAL, ret_message, "%s: a file needs a size of 4 MiB or more", o->path);
        fd = open(o->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0600);
        if ((fd >= 0 && fstat(fd, &st) == 0 && !S_ISREG(st.st_mode)) || (fd < 0 && (errno == EISDIR || errno == ENXIO)))
                return fail(-EINVAL, ret_message, "%s: neither a file nor a block device", o->path);
        if (fd < 0)
                return fail(-errno, ret_message, "%s: %s", o->path, strerror(errno));
        r = take_room(fd, &st, o, ret_message);
        if (r < 0)
                return r;
        *ret_fd = bl_take_fd(&fd);
        return 0;
}

/* O_EXCL on a block device (open(2)): it is nobody else's.  A dead store's worker has it without. */
static int open_device(const struct bl_disk_options *o, int *ret_fd, uint64_t *ret_size, char **ret_message)
{
        _cleanup_close_ int fd = open(o->path, O_RDWR | O_EXCL | O_CLOEXEC | O_NONBLOCK);
        uint64_t size;

        if (fd < 0 && errno == EBUSY)
                return fail(-EINVAL, ret_message, "%s: it is mounted or in use", o->path);
        if (fd < 0 || ioctl(fd, BLKGETSIZE64, &size) < 0)
                return fail(-errno, ret_message, "%s: %s", o->path, strerror(errno));
        if (o->size > size)
                return fail(-EINVAL, ret_message, "%s: it has %" PRIu64 " MiB only", o->path, size / BL_MIB);
        if (o->size > 0)
                size = o->size;
        if (size < SEGMENTS_MIN * BL_DISK_SEGMENT)
                return fail(-EINVAL, ret_message, "%s: 4 MiB are the least", o->path);
        *ret_size = size;
        *ret_fd = bl_take_fd(&fd);
        return 0;
}

static void settled(void *userdata, uint32_t segment)
{
        struct bl_disk *d = userdata;

        (void)pthread_mutex_lock(&d->lock);
        bl_segments_release(&d->segments, segment, 1);
        (void)pthread_mutex_unlock(&d->lock);
}

static struct bl_disk *disk_free(struct bl_disk *d)
{
        bl_segments_done(&d->segments);
        (void)pthread_cond_destroy(&d->appended);
        (void)pthread_mutex_destroy(&d->lock);
        free(d);
        return NULL;
}

static int disk_new(const struct bl_disk_options *o, uint64_t size, struct bl_disk **ret)
{
        struct bl_disk *d = calloc(1, sizeof(*d));
        pthread_condattr_t attr;
        int r;

        if (!d)
                return -ENOMEM;
        d->hang_after = o->hang_after > 0 ? o->hang_after : HANG_AFTER;
        (void)pthread_mutex_init(&d->lock, NULL);
        (void)pthread_condattr_init(&attr);
        (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        (void)pthread_cond_init(&d->appended, &attr);
        (void)pthread_condattr_destroy(&attr);
        r = bl_segments_init(&d->segments, (uint32_t)bl_min(size / BL_DISK_SEGMENT, UINT32_MAX - 1));
        if (r < 0) {
                (void)disk_free(d);
                return r;
        }
        *ret = d;
        return 0;
}

int bl_disk_open(const struct bl_disk_options *o, struct bl_disk **ret, char **ret_message)
{
        _cleanup_close_ int fd = -1;
        uint64_t size = o->size;
        struct bl_disk *d;
        struct stat st;
        int r;

        if (stat(o->path, &st) == 0 && S_ISBLK(st.st_mode))
                r = open_device(o, &fd, &size, ret_message);
        else
                r = open_file(o, &fd, ret_message);
        if (r < 0)
                return r;
        r = disk_new(o, size, &d);
        if (r < 0)
                return fail(r, ret_message, "%s: no memory for its tables", o->path);
        r = bl_link_open(
                &(struct bl_link_options){.fd = fd, .hang_after = d->hang_after, .settled = settled, .userdata = d},
                &d->link);
        if (r < 0) {
                (void)disk_free(d);
                return fail(r, ret_message, "%s: its worker cannot be started: %s", o->path, strerror(-r));
        }
        (void)bl_take_fd(&fd);
        *ret = d;
        return 0;
}

struct bl_disk *bl_disk_close(struct bl_disk *d)
{
        if (!d)
                return NULL;
        (void)bl_link_close(d->link);
        return disk_free(d);
}

/* --- what lives there ----------------------------------------------------------------- */

uint64_t bl_disk_capacity(const struct bl_disk *d)
{
        /* one segment is being filled, the reserve is for cleaning, and one that is 15/16 alive is not cleaned */
        return (d->segments.n - 1 - BL_SEGMENTS_RESERVE) * (BL_DISK_SEGMENT / 16 * 15);
}

int bl_disk_claim(struct bl_disk *d, bl_disk_place place, uint32_t size, uint32_t entry)
{
        int r;

        (void)pthread_mutex_lock(&d->lock);
        r = bl_segments_claim(&d->segments, place, size, entry);
        (void)pthread_mutex_unlock(&d->lock);
        return r;
}

void bl_disk_free(struct bl_disk *d, bl_disk_place place, uint32_t size)
{
        (void)pthread_mutex_lock(&d->lock);
        bl_segments_free(&d->segments, place, size);
        (void)pthread_mutex_unlock(&d->lock);
}

size_t bl_disk_pick(struct bl_disk *d, struct bl_disk_blob *ret, size_t n)
{
        size_t k;

        (void)pthread_mutex_lock(&d->lock);
        k = bl_segments_pick(&d->segments, ret, n);
        (void)pthread_mutex_unlock(&d->lock);
        return k;
}

size_t bl_disk_most_blobs(const struct bl_disk *d)
{
        (void)d;
        return BL_DISK_BLOBS;
}

/* --- appending --------------------------------------------------------------------------- */

struct image {
        const struct bl_disk_blob *blobs;
        size_t n;
};

/* The blobs one behind the other, zeros between them and behind the last. */
static void fill(const void *userdata, uint8_t *dst, size_t from, size_t size)
{
        const struct image *m = userdata;
        size_t begin = 0;

        memset(dst, 0, size);
        for (size_t i = 0; i < m->n && begin < from + size; i++) {
                const struct bl_disk_blob *b = &m->blobs[i];
                const size_t end = begin + b->size, low = bl_max(begin, from), high = bl_min(end, from + size);

                if (low < high)
                        memcpy(dst + (low - from), (const uint8_t *)b->data + (low - begin), high - low);
                begin += (b->size + BL_DISK_GRAIN - 1) / BL_DISK_GRAIN * BL_DISK_GRAIN;
        }
}

static int write_part(struct bl_disk *d, const struct bl_disk_blob *blobs, const struct bl_segments_part *p,
                      usec_t deadline)
{
        const struct image image = {.blobs = blobs + p->first, .n = p->n};
        const uint32_t pieces = bl_link_pieces(p->size);
        uint32_t open = 0;
        int r;

        /* before any of them can be settled */
        (void)pthread_mutex_lock(&d->lock);
        bl_segments_hold(&d->segments, p->segment, pieces);
        (void)pthread_mutex_unlock(&d->lock);
        r = bl_link_write(d->link,
                          &(struct bl_link_write){
                                  .offset = (uint64_t)p->segment * BL_DISK_SEGMENT + p->start,
                                  .size = p->size,
                                  .segment = p->segment,
                                  .deadline = deadline,
                                  .fill = fill,
                                  .userdata = &image,
                          },
                          &open);
        (void)pthread_mutex_lock(&d->lock);
        bl_segments_release(&d->segments, p->segment, pieces - open);
        if (r == 0)
                d->written += p->size;
        (void)pthread_mutex_unlock(&d->lock);
        return r;
}

/* One try.  -EPIPE: the worker died. */
static int append(struct bl_disk *d, struct bl_disk_blob *blobs, size_t n, usec_t deadline)
{
        struct bl_segments_part parts[BL_SEGMENTS_PARTS];
        int n_parts, r = 0;

        (void)pthread_mutex_lock(&d->lock);
        n_parts = bl_segments_plan(&d->segments, blobs, n, parts);
        (void)pthread_mutex_unlock(&d->lock);
        if (n_parts < 0)
                return n_parts;
        for (int i = 0; i < n_parts && r == 0; i++)
                r = write_part(d, blobs, &parts[i], deadline);

        (void)pthread_mutex_lock(&d->lock);
        for (int i = 0; i < n_parts; i++)
                if (r == 0)
                        bl_segments_add(&d->segments, &parts[i], blobs);
                else
                        bl_segments_give_up(&d->segments, &parts[i]);
        if (r != -EPIPE)
                d->failed = r < 0;
        (void)pthread_mutex_unlock(&d->lock);
        return r;
}

/* -ETIMEDOUT: another one waits for a hanging disk. */
static int begin_append(struct bl_disk *d, usec_t deadline)
{
        const struct timespec t = {.tv_sec = (time_t)(deadline / BL_SEC), .tv_nsec = (long)(deadline % BL_SEC * 1000)};
        int r = 0;

        (void)pthread_mutex_lock(&d->lock);
        while (d->appending && r == 0)
                r = pthread_cond_timedwait(&d->appended, &d->lock, &t);
        if (!d->appending) {
                d->appending = true;
                r = 0;
        }
        (void)pthread_mutex_unlock(&d->lock);
        return r == 0 ? 0 : -ETIMEDOUT;
}

static void end_append(struct bl_disk *d)
{
        (void)pthread_mutex_lock(&d->lock);
        d->appending = false;
        (void)pthread_cond_signal(&d->appended);
        (void)pthread_mutex_unlock(&d->lock);
}

int bl_disk_append(struct bl_disk *d, struct bl_disk_blob *blobs, size_t n)
{
        const usec_t deadline = bl_now() + d->hang_after;
        int r;

        r = begin_append(d, deadline);
        if (r < 0)
                return r;
        do
                r = append(d, blobs, n, deadline);
        while (r == -EPIPE);
        end_append(d);
        return r;
}

/* --- reading and figures -------------------------------------------------------------------- */

int bl_disk_read(struct bl_disk *d, bl_disk_place place, uint32_t size, void *buf)
{
        int r;

        if (place >= (uint64_t)d->segments.n * (BL_DISK_SEGMENT / BL_DISK_GRAIN) ||
            place % (BL_DISK_SEGMENT / BL_DISK_GRAIN) * BL_DISK_GRAIN + size > BL_DISK_SEGMENT)
                return -EIO;
        r = bl_link_read(d->link, place * BL_DISK_GRAIN, size, buf);
        if (r < 0)
                return r;
        (void)pthread_mutex_lock(&d->lock);
        d->read += size;
        (void)pthread_mutex_unlock(&d->lock);
        return 0;
}

void bl_disk_figures(struct bl_disk *d, struct bl_disk_figures *ret)
{
        struct bl_link_figures l;

        bl_link_figures(d->link, &l);
        (void)pthread_mutex_lock(&d->lock);
        *ret = (struct bl_disk_figures){
                .size = d->segments.n * BL_DISK_SEGMENT,
                .live = d->segments.live,
                .free = d->segments.n_free * BL_DISK_SEGMENT,
                .written = d->written,
                .read = d->read,
                .memory = sizeof(*d) + d->segments.memory + l.memory,
                .hangs = l.hangs,
                .failed = d->failed,
                .read_p50 = l.read_p50,
                .read_p99 = l.read_p99,
                .oldest = l.oldest,
                .worker = l.worker,
        };
        (void)pthread_mutex_unlock(&d->lock);
}
