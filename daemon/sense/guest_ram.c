// SPDX-License-Identifier: LGPL-2.1-or-later
#include "daemon/sense/guest_ram.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>

#include <ballast/cleanup.h>

int bl_guest_ram_parse(FILE *maps, uint64_t guest_ram, struct bl_guest_ram *ret)
{
        struct bl_guest_ram ram = {0};
        char line[512];

        while (fgets(line, sizeof line, maps)) {
                uint64_t start, end;
                char mode[8];

                if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s", &start, &end, mode) != 3 || end <= start)
                        continue;
                if (mode[1] != 'w' || end - start < guest_ram / 4 || end - start < 16 * BL_MIB)
                        continue;
                if (ram.n == BL_GUEST_RAM_MAX)
                        break;
                ram.part[ram.n].start = start;
                ram.part[ram.n++].end = end;
                ram.shared = ram.shared || mode[3] == 's';
        }
        if (ferror(maps))
                return -errno;
        if (ram.n == 0)
                return -ENODATA;
        *ret = ram;
        return 0;
}

int bl_guest_ram_find(int dirfd, uint64_t guest_ram, struct bl_guest_ram *ret)
{
        _cleanup_close_ int fd = openat(dirfd, "maps", O_RDONLY | O_CLOEXEC);
        _cleanup_fclose_ FILE *f = NULL;

        if (fd < 0)
                return errno == ENOENT ? -ESRCH : -errno;
        f = fdopen(fd, "r");
        if (!f)
                return -ENOMEM;
        (void)bl_take_fd(&fd);
        return bl_guest_ram_parse(f, guest_ram, ret);
}

bool bl_guest_ram_equal(const struct bl_guest_ram *a, const struct bl_guest_ram *b)
{
        bool same = a->n == b->n && a->shared == b->shared;

        for (size_t i = 0; same && i < a->n; i++)
                same = a->part[i].start == b->part[i].start && a->part[i].end == b->part[i].end;
        return same;
}
