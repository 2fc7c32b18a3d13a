/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/sense/resident.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "daemon/util/fields.h"
#include "daemon/util/fs.h"
#include "daemon/util/size.h"

/* about 1,400 bytes in 2026, more with hundreds of CPUs or memory nodes */
#define STATUS_MAX 8192
#define STAT_MAX   2048
/* QEMU's command line grows with its devices; the uuid stands near its beginning */
#define CMDLINE_MAX (64 * 1024)

/*
 * Why status and not statm.  Kernel 6.18, a process of 0.5 GiB, kept open,
 * without parsing: status 2.4 us, statm 0.4 us (opened anew each time: 3.6 and
 * 1.5 us).  But statm has RssShmem and RssFile in one figure, and they must be
 * told apart: a guest's memory may be a memfd, and QEMU's own program text is
 * not the guest's.  With parsing a read of status is 3.6 us, far below the 25 us
 * that a sample of one VM may cost.
 */
struct bl_resident {
        pid_t pid;
        uint64_t start;
        int dirfd;
        struct bl_reader status;
};

static const struct bl_field fields[] = {
        BL_FIELD(struct bl_proc_mem, locked, "VmLck"),         BL_FIELD(struct bl_proc_mem, pinned, "VmPin"),
        BL_FIELD(struct bl_proc_mem, anon, "RssAnon"),         BL_FIELD(struct bl_proc_mem, file, "RssFile"),
        BL_FIELD(struct bl_proc_mem, shmem, "RssShmem"),       BL_FIELD(struct bl_proc_mem, swap, "VmSwap"),
        BL_FIELD(struct bl_proc_mem, hugetlb, "HugetlbPages"),
};

static uint64_t or_zero(uint64_t v)
{
        return v == BL_UNSET ? 0 : v;
}

int bl_proc_mem_parse(const char *text, struct bl_proc_mem *ret)
{
        struct bl_proc_mem m;
        int r;

        r = bl_fields_parse(text, fields, sizeof fields / sizeof *fields, &m);
        if (r < 0)
                return -EBADMSG;
        if (r == 0)
                /* a process that has given up its memory, but not its number yet, or something else */
                return strncmp(text, "Name:", 5) == 0 ? -ESRCH : -EBADMSG;
        if (m.anon == BL_UNSET || m.shmem == BL_UNSET)
                return -EBADMSG;

        m.file = or_zero(m.file);
        m.swap = or_zero(m.swap);
        m.hugetlb = or_zero(m.hugetlb);
        m.locked = or_zero(m.locked);
        m.pinned = or_zero(m.pinned);
        *ret = m;
        return 0;
}

int bl_proc_start_parse(const char *text, uint64_t *ret)
{
        uint64_t start = 0;
        const char *p;

        /* field 2 is the name in parentheses, and may hold blanks and parentheses itself */
        p = strrchr(text, ')');
        if (!p)
                return -EBADMSG;
        for (int field = 2; field < 22; field++) {
                p = strchr(p + 1, ' ');
                if (!p)
                        return -EBADMSG;
        }
        p++;
        if (*p < '0' || *p > '9')
                return -EBADMSG;
        for (; *p >= '0' && *p <= '9'; p++)
                if (__builtin_mul_overflow(start, 10U, &start) ||
                    __builtin_add_overflow(start, (uint64_t)(*p - '0'), &start))
                        return -EBADMSG;
        if (*p != ' ')
                return -EBADMSG;
        *ret = start;
        return 0;
}

/* The kernel says ENOENT for a process that is not there and ESRCH for one that went. */
static int gone(int r)
{
        return r == -ENOENT ? -ESRCH : r;
}

int bl_resident_open(const char *root, pid_t pid, uint64_t start, struct bl_resident **ret)
{
        _cleanup_(bl_resident_freep) struct bl_resident *p = NULL;
        char path[PATH_MAX], dir[32], stat[STAT_MAX];
        ssize_t n;
        int r;

        if (pid <= 0)
                return -ESRCH;
        p = calloc(1, sizeof *p);
        if (!p)
                return -ENOMEM;
        p->pid = pid;
        p->dirfd = p->status.fd = -1;

        (void)snprintf(dir, sizeof dir, "/proc/%d", (int)pid);
        r = bl_path_join(path, sizeof path, root, dir);
        if (r < 0)
                return r;
        p->dirfd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (p->dirfd < 0)
                return gone(-errno);
        p->status.fd = openat(p->dirfd, "status", O_RDONLY | O_CLOEXEC);
        if (p->status.fd < 0)
                return gone(-errno);

        n = bl_fs_read_at(p->dirfd, "stat", stat, sizeof stat);
        if (n < 0)
                return gone((int)n);
        r = bl_proc_start_parse(stat, &p->start);
        if (r < 0)
                return r;
        if (start && start != p->start)
                return -ESRCH;

        *ret = BL_TAKE(p);
        return 0;
}

struct bl_resident *bl_resident_free(struct bl_resident *r)
{
        if (!r)
                return NULL;
        bl_reader_close(&r->status);
        bl_closep(&r->dirfd);
        free(r);
        return NULL;
}

int bl_resident_read(const struct bl_resident *r, struct bl_proc_mem *ret)
{
        char buf[STATUS_MAX];
        const ssize_t n = bl_reader_read_once(&r->status, buf, sizeof buf);

        return n < 0 ? gone((int)n) : bl_proc_mem_parse(buf, ret);
}

pid_t bl_resident_pid(const struct bl_resident *r)
{
        return r->pid;
}

uint64_t bl_resident_start(const struct bl_resident *r)
{
        return r->start;
}

int bl_resident_dirfd(const struct bl_resident *r)
{
        return r->dirfd;
}

/* Is `word` one of the arguments, which are ended by NUL each? */
static bool has_argument(const char *cmdline, size_t len, const char *word)
{
        const size_t word_len = strlen(word);

        for (const char *p = cmdline; p < cmdline + len;) {
                const size_t n = strnlen(p, len - (size_t)(p - cmdline));

                if (n == word_len && memcmp(p, word, n) == 0)
                        return true;
                p += n + 1;
        }
        return false;
}

int bl_vm_pid(const char *root, const char *run_dir, const char *name, const char *uuid, pid_t *ret)
{
        char path[PATH_MAX], text[32];
        uint64_t pid;
        ssize_t n;
        int k;

        /* libvirt refuses such names; a path would be built from it */
        if (!*name || strchr(name, '/'))
                return -EINVAL;
        k = snprintf(path, sizeof path, "%s/%s.pid", run_dir, name);
        if (k < 0 || (size_t)k >= sizeof path)
                return -ENAMETOOLONG;
        n = bl_fs_read(NULL, path, text, sizeof text);
        if (n == -EFBIG)
                return -EBADMSG;
        if (n < 0)
                return (int)n;
        text[strcspn(text, "\n")] = '\0';
        if (bl_uint_parse(text, &pid) < 0 || pid == 0 || pid > INT_MAX)
                return -EBADMSG;

        if (uuid) {
                _cleanup_free_ char *cmdline = malloc(CMDLINE_MAX);

                if (!cmdline)
                        return -ENOMEM;
                (void)snprintf(path, sizeof path, "/proc/%d/cmdline", (int)pid);
                n = bl_fs_read(root, path, cmdline, CMDLINE_MAX);
                if (n == -EFBIG)
                        n = CMDLINE_MAX - 1;
                if (n < 0)
                        return gone((int)n);
                if (!has_argument(cmdline, (size_t)n, uuid))
                        return -ESRCH;
        }

        *ret = (pid_t)pid;
        return 0;
}
