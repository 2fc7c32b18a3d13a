// SPDX-License-Identifier: LGPL-2.1-or-later
#include "daemon/pages/dump_layout.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ballast/cleanup.h>

#include "daemon/pages/elfcore.h"

__attribute__((format(printf, 3, 4))) static int fail(char **ret_message, int error, const char *format, ...)
{
        va_list ap;

        va_start(ap, format);
        if (vasprintf(ret_message, format, ap) < 0)
                *ret_message = NULL;
        va_end(ap);
        return error;
}

/* --- kinds of files --------------------------------------------------------- */

/* What people have at hand, and is no memory. */
static const struct {
        const char *magic;
        size_t len;
        const char *what;
} refused[] = {
#define M(s)     s, sizeof(s) - 1
#define ELF_DUMP "make an ELF dump: virsh dump --memory-only --format elf"
        {M("KDUMP   "), "is a kdump-compressed dump; " ELF_DUMP},
        {M("DISKDUMP"), "is a compressed kernel dump; " ELF_DUMP},
        {M("makedumpfile"), "is a kdump-compressed dump (flattened); " ELF_DUMP},
        {M("QEVM"), "is a QEMU migration stream (virsh dump without --memory-only); " ELF_DUMP},
        {M("LibvirtQemud"), "is a saved VM (virsh save); " ELF_DUMP},
        {M("\x1f\x8b\x08"), "is compressed (gzip); unpack it first"},
        {M("\xfd\x37zXZ"), "is compressed (xz); unpack it first"},
        {M("\x28\xb5\x2f\xfd"), "is compressed (zstd); unpack it first"},
        {M("\x89LZO"), "is compressed (lzop); unpack it first"},
        {M("BZh91AY&SY"), "is compressed (bzip2); unpack it first"},
#undef M
#undef ELF_DUMP
};

static int read_at(void *userdata, void *buf, size_t size, uint64_t at)
{
        const int *fd = userdata;

        for (size_t done = 0; done < size;) {
                ssize_t n = pread(*fd, (char *)buf + done, size - done, (off_t)(at + done));

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return n < 0 ? -errno : -EIO;
                done += (size_t)n;
        }
        return 0;
}

static int size_of(int fd, const char *path, uint64_t *ret, char **ret_message)
{
        struct stat st;
        off_t end;

        if (fstat(fd, &st) < 0)
                return fail(ret_message, -errno, "%s cannot be looked at: %m", path);
        if (S_ISDIR(st.st_mode))
                return fail(ret_message, -EISDIR, "%s is a directory; name a dump's file", path);
        if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
                return fail(ret_message, -EBADMSG,
                            "%s is no regular file; a dump is read more than once, so store it first", path);
        /* a block device has its size only here */
        end = lseek(fd, 0, SEEK_END);
        if (end < 0)
                return fail(ret_message, -errno, "%s has no size: %m", path);
        *ret = (uint64_t)end;
        return 0;
}

/* --- pieces ----------------------------------------------------------------- */

enum bl_page_state bl_dump_page_state(const struct bl_dump_piece *p, uint64_t k)
{
        const uint64_t size = bl_dump_page_size(p, k);

        if (size == 0)
                return BL_PAGE_ABSENT;
        return k * BL_PAGE_SIZE + size <= p->there ? BL_PAGE_PRESENT : BL_PAGE_UNREADABLE;
}

/* Pages that begin within the first `bytes` of a piece. */
static uint64_t pages_begun(const struct bl_dump_piece *p, uint64_t bytes)
{
        return bl_min(p->n, bytes / BL_PAGE_SIZE + (bytes % BL_PAGE_SIZE != 0));
}

static void add(struct bl_dump_layout *l, const struct bl_elf_segment *s)
{
        /* what lies before the first page boundary is as little a page as what lies behind the last one */
        const uint64_t head = bl_min(-s->address % BL_PAGE_SIZE, s->memsz);
        struct bl_dump_piece *p = &l->pieces[l->n];
        uint64_t begun, readable;

        p->first = l->pages;
        p->n = (s->memsz - head) / BL_PAGE_SIZE;
        p->offset = s->offset + head;
        p->dumped = bl_sub_sat(s->filesz, head);
        p->there = bl_min(p->dumped, bl_sub_sat(l->size, p->offset));
        l->tail_bytes += s->memsz - p->n * BL_PAGE_SIZE;
        if (p->n == 0)
                return;
        begun = pages_begun(p, p->dumped);
        readable = p->there == p->dumped ? begun : bl_min(p->n, p->there / BL_PAGE_SIZE);
        l->present += readable;
        l->missing += begun - readable;
        l->pages += p->n;
        l->n++;
}

static int lay_out(const struct bl_elf_segment *s, size_t n, struct bl_dump_layout *l)
{
        l->pieces = calloc(n, sizeof *l->pieces);
        if (!l->pieces)
                return -ENOMEM;
        for (size_t i = 0; i < n; i++)
                add(l, &s[i]);
        return 0;
}

static int read_elf(int fd, const char *path, struct bl_dump_layout *l, char **ret_message)
{
        const struct bl_elf_file f = {.read = read_at, .userdata = &fd, .size = l->size};
        _cleanup_free_ struct bl_elf_segment *s = NULL;
        char why[256];
        size_t n;
        int r = bl_elfcore_parse(&f, &s, &n, why, sizeof why);

        if (why[0])
                return fail(ret_message, r == -ENOTSUP ? -EBADMSG : r, "%s is no dump that can be used: %s", path, why);
        if (r >= 0)
                r = lay_out(s, n, l);
        if (r < 0)
                return fail(ret_message, r, "%s cannot be read: %s", path, strerror(-r));
        if (l->present == 0 && l->missing)
                return fail(ret_message, -ENODATA,
                            "%s ends at byte %" PRIu64 ", before its first page: the dump was cut off; make it again",
                            path, l->size);
        if (l->present == 0)
                return fail(ret_message, -ENODATA, "%s has no whole page of memory in it", path);
        return 0;
}

static int read_raw(const char *path, struct bl_dump_layout *l, char **ret_message)
{
        const struct bl_elf_segment all = {.memsz = l->size, .filesz = l->size};

        if (l->size < BL_PAGE_SIZE)
                return fail(ret_message, -ENODATA, "%s has %" PRIu64 " bytes, less than a page of memory", path,
                            l->size);
        return lay_out(&all, 1, l) < 0 ? fail(ret_message, -ENOMEM, "no memory to read %s", path) : 0;
}

int bl_dump_layout_read(int fd, const char *path, struct bl_dump_layout *ret, char **ret_message)
{
        _cleanup_(bl_dump_layout_done) struct bl_dump_layout l = {0};
        char magic[16] = "";
        int r;

        r = size_of(fd, path, &l.size, ret_message);
        if (r < 0)
                return r;
        r = read_at(&fd, magic, (size_t)bl_min(sizeof magic, l.size), 0);
        if (r < 0)
                return fail(ret_message, r, "%s cannot be read: %s", path, strerror(-r));
        for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
                if (memcmp(magic, refused[i].magic, refused[i].len) == 0)
                        return fail(ret_message, -EBADMSG, "%s %s", path, refused[i].what);
        r = memcmp(magic, "\177ELF", 4) == 0 ? read_elf(fd, path, &l, ret_message) : read_raw(path, &l, ret_message);
        if (r < 0)
                return r;
        *ret = l;
        l = (struct bl_dump_layout){0};
        return 0;
}

void bl_dump_layout_done(struct bl_dump_layout *l)
{
        free(l->pieces);
        *l = (struct bl_dump_layout){0};
}

const struct bl_dump_piece *bl_dump_piece_at(const struct bl_dump_layout *l, uint64_t page, size_t *hint)
{
        size_t low = 0, high = l->n;

        if (*hint < l->n && page - l->pieces[*hint].first < l->pieces[*hint].n)
                return &l->pieces[*hint];
        while (high - low > 1) {
                const size_t middle = low + (high - low) / 2;

                if (l->pieces[middle].first <= page)
                        low = middle;
                else
                        high = middle;
        }
        *hint = low;
        return &l->pieces[low];
}
