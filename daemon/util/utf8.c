/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/util/utf8.h"

#include <stddef.h>

/* Bytes of the character at `s`; 0: it is none.  By the table of RFC 3629, section 4. */
static size_t character(const unsigned char *s)
{
        unsigned char low = 0x80, high = 0xbf;
        size_t n;

        if (s[0] < 0x80)
                return 1;
        if (s[0] >= 0xc2 && s[0] <= 0xdf)
                n = 2;
        else if ((s[0] & 0xf0) == 0xe0)
                n = 3;
        else if (s[0] >= 0xf0 && s[0] <= 0xf4)
                n = 4;
        else
                return 0;
        /* longer than need be, surrogates, above U+10FFFF */
        if (s[0] == 0xe0)
                low = 0xa0;
        else if (s[0] == 0xed)
                high = 0x9f;
        else if (s[0] == 0xf0)
                low = 0x90;
        else if (s[0] == 0xf4)
                high = 0x8f;
        if (s[1] < low || s[1] > high)
                return 0;
        for (size_t i = 2; i < n; i++)
                if ((s[i] & 0xc0) != 0x80)
                        return 0;
        return n;
}

void bl_utf8_clean(char *s)
{
        while (*s) {
                size_t n = character((const unsigned char *)s);

                if (n == 0)
                        *s = '?';
                s += n ? n : 1;
        }
}
