/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The answers in tests/data/qmp.  Tests are run from the project's folder. */
#ifndef BALLAST_TEST_QMP_UTIL_H
#define BALLAST_TEST_QMP_UTIL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "daemon/util/fs.h"

/* The caller frees it. */
static inline char *read_answer(const char *name)
{
        char path[256], *text = NULL;

        snprintf(path, sizeof(path), "tests/data/qmp/%s.json", name);
        if (bl_fs_read_alloc(path, 1 << 20, &text, NULL) < 0)
                fail_msg("%s: not there; run from the top folder", path);
        return text;
}

#endif
