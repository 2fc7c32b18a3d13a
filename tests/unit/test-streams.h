/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The stored streams of the guest protocol: tests/data/wire/make-streams.py. */
#ifndef BALLAST_TEST_STREAMS_H
#define BALLAST_TEST_STREAMS_H

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <ballast/cleanup.h>

/* Two hex digits a byte; white space and "# ..." are passed over. */
static inline size_t load_hex(const char *name, uint8_t *buf, size_t size)
{
        char path[256];
        _cleanup_fclose_ FILE *f = NULL;
        size_t n = 0;
        int c, high = -1;

        (void)snprintf(path, sizeof path, "tests/data/wire/%s.hex", name);
        f = fopen(path, "re");
        if (!f)
                fail_msg("%s: %m (run from the top of the tree)", path);
        while ((c = fgetc(f)) != EOF) {
                if (c == '#') {
                        while (c != '\n' && c != EOF)
                                c = fgetc(f);
                        continue;
                }
                if (isspace(c))
                        continue;
                assert_true(isxdigit(c));
                c = isdigit(c) ? c - '0' : tolower(c) - 'a' + 10;
                if (high < 0) {
                        high = c;
                        continue;
                }
                assert_true(n < size);
                buf[n++] = (uint8_t)(high << 4 | c);
                high = -1;
        }
        assert_int_equal(high, -1);
        return n;
}

#endif
