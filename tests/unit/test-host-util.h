/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A throw-away root directory, and the way to the fixtures.  Tests are run from the project's folder. */
#ifndef BALLAST_TEST_HOST_UTIL_H
#define BALLAST_TEST_HOST_UTIL_H

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <ftw.h>
#include <sys/stat.h>

#include "daemon/util/fs.h"

#define HOST_FIXTURE "tests/data/host-6.18"

static char test_root[64];

static inline int test_root_make(void **state)
{
        (void)state;
        (void)snprintf(test_root, sizeof test_root, "/tmp/ballast-test-XXXXXX");
        return mkdtemp(test_root) ? 0 : -1;
}

static inline int test_remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
        (void)st;
        (void)flag;
        (void)ftw;
        return remove(path);
}

static inline int test_root_remove(void **state)
{
        (void)state;
        return nftw(test_root, test_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* A path below the root; one of four buffers in turn. */
static inline const char *test_path(const char *path)
{
        static char buf[4][PATH_MAX];
        static unsigned turn;
        char *p = buf[turn++ % 4];

        assert_int_equal(bl_path_join(p, PATH_MAX, test_root, path), 0);
        return p;
}

static inline void test_write_bytes(const char *path, const void *data, size_t len)
{
        const char *full = test_path(path);
        char dir[PATH_MAX];
        FILE *f;

        (void)snprintf(dir, sizeof dir, "%s", full);
        *strrchr(dir, '/') = '\0';
        assert_int_equal(bl_fs_mkdir_p(dir, 0755), 0);
        f = fopen(full, "w");
        assert_non_null(f);
        assert_int_equal(fwrite(data, 1, len, f), len);
        assert_int_equal(fclose(f), 0);
}

static inline void test_write(const char *path, const char *text)
{
        test_write_bytes(path, text, strlen(text));
}

#endif
