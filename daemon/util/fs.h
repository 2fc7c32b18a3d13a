/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Small files: bounded reads below a root directory, kept-open readers for
 * files that the kernel makes up anew at every read, and atomic writes.
 *
 * `root` is what the path is prefixed with: "" , "/" or NULL in production, a
 * fixture's directory in tests.  All calls return negative errno on failure.
 */
#ifndef BALLAST_UTIL_FS_H
#define BALLAST_UTIL_FS_H

#include <stddef.h>
#include <sys/types.h>

#include <ballast/units.h>

/* root + path (which begins with "/") into buf.  -ENAMETOOLONG. */
int bl_path_join(char *buf, size_t size, const char *root, const char *path);

/* Reads the whole file into buf and ends it with NUL; returns its length
 * (< size).  -EFBIG when it does not fit: then buf holds its beginning, and
 * is ended too.  Never blocks on a FIFO. */
ssize_t bl_fs_read(const char *root, const char *path, char *buf, size_t size);
/* The same below a directory's descriptor; path is relative. */
ssize_t bl_fs_read_at(int dirfd, const char *path, char *buf, size_t size);

/* Reads at most `max` bytes (-EFBIG when there are more) into a new buffer,
 * ended by NUL.  `ret_len` may be NULL. */
int bl_fs_read_alloc(const char *path, size_t max, char **ret, size_t *ret_len);

/* Writes a new file beside `path` and renames it over: readers see the old or
 * the new content, never a part.  `sync`: both are on disk before this
 * returns.  Nothing is left behind on failure.  mode is not changed by umask. */
int bl_fs_write_atomic(const char *path, const void *data, size_t len, mode_t mode, bool sync);

/* mkdir -p; existing directories are left as they are. */
int bl_fs_mkdir_p(const char *path, mode_t mode);

/* A file kept open and read from its start again and again. */
struct bl_reader {
        int fd;
};

#define BL_READER_INIT   \
        {                \
                .fd = -1 \
        }

int bl_reader_open(struct bl_reader *r, const char *root, const char *path);
void bl_reader_close(struct bl_reader *r);

/* As bl_fs_read, from offset 0, without allocation or seek; several threads
 * may use one reader.  -EBADF when it is not open. */
ssize_t bl_reader_read(const struct bl_reader *r, char *buf, size_t size);
/* The same with a single pread: for files that the kernel gives whole (proc's
 * status, stat, statm, meminfo, pressure); half the cost. */
ssize_t bl_reader_read_once(const struct bl_reader *r, char *buf, size_t size);

#endif
