/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/pages/scan_memory.h"

#include <ballast/units.h>
#include <stdlib.h>
#include <sys/mman.h>

static bool fails(struct bl_scan_memory *m)
{
        return m->fail_in > 0 && --m->fail_in == 0;
}

static void count(struct bl_scan_memory *m, uint64_t more, uint64_t less)
{
        m->now += more;
        m->now -= less;
        m->most = bl_max(m->most, m->now);
}

void *bl_scan_alloc(struct bl_scan_memory *m, size_t n, size_t size)
{
        void *p = fails(m) ? NULL : calloc(n, size);

        if (p)
                count(m, n * size, 0);
        return p;
}

void *bl_scan_release(struct bl_scan_memory *m, void *p, size_t n, size_t size)
{
        if (p)
                count(m, 0, n * size);
        free(p);
        return NULL;
}

void *bl_scan_remap(struct bl_scan_memory *m, void *p, size_t from, size_t to)
{
        void *q;

        if (to == 0) {
                if (p)
                        (void)munmap(p, from);
                count(m, 0, from);
                return NULL;
        }
        if (to > from && fails(m))
                return NULL;
        if (p)
                q = mremap(p, from, to, MREMAP_MAYMOVE);
        else
                q = mmap(NULL, to, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (q == MAP_FAILED)
                return NULL;
        count(m, to, from);
        return q;
}
