// SPDX-License-Identifier: LGPL-2.1-or-later
#include "daemon/sense/activity.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/util/fs.h"

#define STAT_MAX 2048

int bl_activity_parse(const char *stat, struct bl_activity *ret)
{
        uint64_t major, user, system;
        const char *p = strrchr(stat, ')'); /* field 2 may hold blanks and parentheses itself */
        long hz = sysconf(_SC_CLK_TCK);

        /* fields 3 to 15: state, 8 of no interest, majflt, cmajflt, utime, stime */
        if (!p || hz <= 0 ||
            sscanf(p + 1, " %*c %*s %*s %*s %*s %*s %*s %*s %*s %" SCNu64 " %*s %" SCNu64 " %" SCNu64, &major, &user,
                   &system) != 3)
                return -EBADMSG;
        ret->major_faults = major;
        ret->cpu = bl_mul_sat(bl_add_sat(user, system), BL_SEC / (uint64_t)hz);
        return 0;
}

int bl_activity_read(int dirfd, struct bl_activity *ret)
{
        char buf[STAT_MAX];
        ssize_t n = bl_fs_read_at(dirfd, "stat", buf, sizeof buf);

        if (n < 0)
                return n == -ENOENT ? -ESRCH : (int)n;
        return bl_activity_parse(buf, ret);
}

void bl_idle_note(struct bl_idle *i, uint64_t cpu, usec_t now)
{
        const uint64_t allowed = bl_part(BL_IDLE_WINDOW, BL_IDLE_SHARE);
        bool busy;

        if (i->from == 0) {
                *i = (struct bl_idle){.from = now, .cpu = cpu};
                return;
        }
        busy = bl_sub_sat(cpu, i->cpu) > allowed;
        if (!busy && bl_sub_sat(now, i->from) < BL_IDLE_WINDOW)
                return;
        i->since = busy ? 0 : i->since ? i->since : i->from;
        i->from = now;
        i->cpu = cpu;
}
