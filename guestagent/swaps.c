/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <ballast/cleanup.h>

#include "guestagent/swaps.h"

/* MAX_SWAPFILES is 32, and a line some 100 bytes; what is cut off counts as not there. */
#define SWAPS_TEXT 8192U

struct area {
        const char *name; /* the last part of its path */
        bool is_device;
        uint64_t size, used;
        int priority;
};

/* "PATH TYPE SIZE USED PRIORITY" in KiB; blanks in a path are escaped (mm/swapfile.c, swap_show). */
static bool parse_area(char *line, struct area *ret)
{
        static const char blanks[] = " \t";
        char *rest = NULL;
        char *path = strtok_r(line, blanks, &rest);
        const char *type = strtok_r(NULL, blanks, &rest);
        const char *size = strtok_r(NULL, blanks, &rest);
        const char *used = strtok_r(NULL, blanks, &rest);
        const char *priority = strtok_r(NULL, blanks, &rest);
        char *deleted, *slash;

        if (!path || !priority || path[0] != '/')
                return false;
        deleted = strstr(path, "\\040(deleted)");
        if (deleted)
                *deleted = '\0';
        slash = strrchr(path, '/');
        *ret = (struct area){
                .name = slash + 1,
                .is_device = strcmp(type, "partition") == 0,
                .size = bl_mul_sat(strtoull(size, NULL, 10), BL_KIB),
                .used = bl_mul_sat(strtoull(used, NULL, 10), BL_KIB),
                .priority = (int)strtol(priority, NULL, 10),
        };
        return true;
}

/* Ours in `*ret`, then what the others are to it: it may come after them. */
static void add_area(const struct area *a, const char *disk, bool others, struct guest_swaps *ret)
{
        bool ours = a->is_device && disk[0] && strcmp(a->name, disk) == 0;

        if (ours && !others) {
                ret->on = true;
                ret->priority = a->priority;
                ret->size = a->size;
                ret->used = a->used;
        } else if (!ours && others) {
                if (a->priority > ret->highest)
                        ret->highest = a->priority;
                if (ret->on && a->priority >= ret->priority)
                        ret->ahead = bl_add_sat(ret->ahead, a->size);
        }
        if (others)
                ret->used_all = bl_add_sat(ret->used_all, a->used);
}

void guest_parse_swaps(char *text, const char *disk, struct guest_swaps *ret)
{
        struct area areas[32];
        struct guest_swaps swaps = {.highest = -1};
        char *rest = NULL;
        size_t n = 0;

        for (char *line = strtok_r(text, "\n", &rest); line && n < sizeof areas / sizeof areas[0];
             line = strtok_r(NULL, "\n", &rest))
                n += parse_area(line, &areas[n]);
        for (size_t i = 0; i < n; i++)
                add_area(&areas[i], disk, false, &swaps);
        for (size_t i = 0; i < n; i++)
                add_area(&areas[i], disk, true, &swaps);
        *ret = swaps;
}

int guest_open_swaps(const char *root)
{
        char path[PATH_MAX];
        int fd;

        if ((size_t)snprintf(path, sizeof path, "%s/proc/swaps", root) >= sizeof path)
                return -ENAMETOOLONG;
        fd = open(path, O_RDONLY | O_CLOEXEC);
        return fd < 0 ? -errno : fd;
}

int guest_read_swaps(int fd, const char *disk, struct guest_swaps *ret)
{
        char text[SWAPS_TEXT];
        size_t len = 0;

        while (len < sizeof text - 1) {
                ssize_t n = pread(fd, text + len, sizeof text - 1 - len, (off_t)len);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                if (n == 0)
                        break;
                len += (size_t)n;
        }
        text[len] = '\0';
        guest_parse_swaps(text, disk, ret);
        return 0;
}
