/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Cleanup attributes: a type's _free is NULL-safe and returns NULL, so that
 * `p = thing_free(p)` and `_cleanup_(thing_freep)` both read well. */
#ifndef BALLAST_CLEANUP_H
#define BALLAST_CLEANUP_H

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(f) __attribute__((cleanup(f)))

#define BL_DEFINE_CLEANUP(type, func)       \
        static inline void func##p(type *p) \
        {                                   \
                if (*p)                     \
                        (void)func(*p);     \
        }

static inline void bl_freep(void *p)
{
        free(*(void **)p);
}

/* Closes and keeps errno, so that an error path reports the first cause. */
static inline void bl_closep(int *fd)
{
        int saved = errno;

        if (*fd >= 0)
                (void)close(*fd);
        errno = saved;
}

static inline void bl_fclosep(FILE **f)
{
        if (*f)
                (void)fclose(*f);
}

static inline void bl_closedirp(DIR **d)
{
        if (*d)
                (void)closedir(*d);
}

#define _cleanup_free_     _cleanup_(bl_freep)
#define _cleanup_close_    _cleanup_(bl_closep)
#define _cleanup_fclose_   _cleanup_(bl_fclosep)
#define _cleanup_closedir_ _cleanup_(bl_closedirp)

/* Hands a pointer over to the caller and keeps the cleanup from freeing it. */
#define BL_TAKE(p)                         \
        __extension__({                    \
                __typeof__(p) *_pp = &(p); \
                __typeof__(p) _v = *_pp;   \
                *_pp = NULL;               \
                _v;                        \
        })

static inline int bl_take_fd(int *fd)
{
        int v = *fd;

        *fd = -1;
        return v;
}

#endif
