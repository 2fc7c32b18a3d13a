/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/util/procstat.h"

#include <errno.h>
#include <string.h>

int bl_proc_stat_parse(const char *text, char *ret_state, uint64_t *ret_start)
{
        uint64_t start = 0;
        const char *p;
        char state;

        /* field 2 is the name in parentheses, and may hold blanks and parentheses itself */
        p = strrchr(text, ')');
        if (!p || p[1] != ' ' || p[2] < 'A')
                return -EBADMSG;
        state = p[2];
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
        *ret_state = state;
        *ret_start = start;
        return 0;
}
