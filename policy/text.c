/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sentences for people, put together in a buffer of the caller. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "text.h"

#define NAME_MAX_LEN 64

void bl_text_add(struct bl_text *t, const char *format, ...)
{
        bool room = t->len < t->size;
        va_list ap;
        int r;

        va_start(ap, format);
        r = vsnprintf(room ? t->buf + t->len : NULL, room ? t->size - t->len : 0, format, ap);
        va_end(ap);
        if (r > 0)
                t->len += (size_t)r;
}

/* "812 MiB", "1.0 GiB": by integers, as floating point would be printed by the locale. */
void bl_text_size(struct bl_text *t, uint64_t bytes)
{
        static const char *const units[] = {"MiB", "GiB", "TiB", "PiB", "EiB"};
        uint64_t unit = BL_MIB;
        size_t i = 0;

        if (bytes < BL_KIB) {
                bl_text_add(t, "%u bytes", (unsigned int)bytes);
                return;
        }
        if (bytes < BL_MIB) {
                bl_text_add(t, "%u KiB", (unsigned int)(bytes / BL_KIB));
                return;
        }
        /* to the nearest MiB, and from there on to the nearest tenth */
        if (bytes < BL_GIB - BL_MIB / 2) {
                bl_text_add(t, "%u MiB", (unsigned int)((bytes + BL_MIB / 2) / BL_MIB));
                return;
        }
        do {
                unit *= 1024;
                i++;
        } while (i + 1 < sizeof(units) / sizeof(units[0]) && bytes / 1024 >= unit - unit / 20);
        {
                /* tenths, without overflow for any size */
                uint64_t tenths = bytes / unit * 10 + (bytes % unit / 16 * 10 + unit / 32) / (unit / 16);

                bl_text_add(t, "%u.%u %s", (unsigned int)(tenths / 10), (unsigned int)(tenths % 10), units[i]);
        }
}

/* The name comes from an administrator of the VM, who need not be the one of the host. */
void bl_text_name(struct bl_text *t, const char *name)
{
        char clean[NAME_MAX_LEN + 4];
        size_t n = 0;

        for (; name && name[n] && n < NAME_MAX_LEN; n++)
                clean[n] = (unsigned char)name[n] < 0x20 || name[n] == 0x7f ? '?' : name[n];
        if (name && name[n]) {
                /* not in the middle of a UTF-8 character */
                while (n > 0 && ((unsigned char)name[n] & 0xc0) == 0x80)
                        n--;
                memcpy(clean + n, "...", 3);
                n += 3;
        }
        clean[n] = '\0';
        bl_text_add(t, "%s", n > 0 ? clean : "(unnamed)");
}

void bl_text_time(struct bl_text *t, usec_t time)
{
        uint64_t s = (time + BL_SEC - 1) / BL_SEC;

        if (s < 120)
                bl_text_add(t, "%u s", (unsigned int)s);
        else
                bl_text_add(t, "%u min", (unsigned int)bl_min((s + 59) / 60, 1000000));
}
