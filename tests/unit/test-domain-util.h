/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The domains, and the answers of QEMU, in tests/data.  Tests are run from the project's folder. */
#ifndef BALLAST_TEST_DOMAIN_UTIL_H
#define BALLAST_TEST_DOMAIN_UTIL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "daemon/util/fs.h"

/* The caller frees it. */
static inline char *read_data(const char *folder, const char *name, const char *ending)
{
        char path[256], *text = NULL;

        snprintf(path, sizeof(path), "tests/data/%s/%s.%s", folder, name, ending);
        if (bl_fs_read_alloc(path, 1 << 20, &text, NULL) < 0)
                fail_msg("%s: not there; run from the top folder", path);
        return text;
}

static inline char *read_fixture(const char *name)
{
        return read_data("domains", name, "xml");
}

static inline char *read_answer(const char *name)
{
        return read_data("qmp", name, "json");
}

#endif
