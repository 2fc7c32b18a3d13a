/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/util/uuid.h"

#include <errno.h>
#include <string.h>

void bl_uuid_to_string(const uint8_t uuid[BL_UUID_LEN], char ret[37])
{
        static const char hex[] = "0123456789abcdef";
        char *p = ret;

        for (int i = 0; i < BL_UUID_LEN; i++) {
                if (i == 4 || i == 6 || i == 8 || i == 10)
                        *p++ = '-';
                *p++ = hex[uuid[i] >> 4];
                *p++ = hex[uuid[i] & 15];
        }
        *p = '\0';
}

static int hex_digit(char c)
{
        if (c >= '0' && c <= '9')
                return c - '0';
        if (c >= 'a' && c <= 'f')
                return c - 'a' + 10;
        if (c >= 'A' && c <= 'F')
                return c - 'A' + 10;
        return -1;
}

int bl_uuid_from_string(const char *s, uint8_t ret[BL_UUID_LEN])
{
        uint8_t uuid[BL_UUID_LEN];

        if (!s)
                return -EINVAL;
        for (int i = 0; i < BL_UUID_LEN; i++) {
                int high, low;

                if (*s == '-')
                        s++;
                high = hex_digit(s[0]);
                low = high < 0 ? -1 : hex_digit(s[1]);
                if (low < 0)
                        return -EINVAL;
                uuid[i] = (uint8_t)(high << 4 | low);
                s += 2;
        }
        if (*s)
                return -EINVAL;
        memcpy(ret, uuid, sizeof(uuid));
        return 0;
}
