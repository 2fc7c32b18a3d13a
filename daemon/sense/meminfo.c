/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/sense/meminfo.h"

#include <errno.h>

#include "daemon/util/fields.h"

/* about 1,500 bytes in 2026 */
#define MEMINFO_MAX 8192

static const struct bl_field fields[] = {
        BL_FIELD(struct bl_meminfo, mem_total, "MemTotal"),
        BL_FIELD(struct bl_meminfo, mem_free, "MemFree"),
        BL_FIELD(struct bl_meminfo, mem_available, "MemAvailable"),
        BL_FIELD(struct bl_meminfo, buffers, "Buffers"),
        BL_FIELD(struct bl_meminfo, cached, "Cached"),
        BL_FIELD(struct bl_meminfo, swap_cached, "SwapCached"),
        BL_FIELD(struct bl_meminfo, mlocked, "Mlocked"),
        BL_FIELD(struct bl_meminfo, swap_total, "SwapTotal"),
        BL_FIELD(struct bl_meminfo, swap_free, "SwapFree"),
        BL_FIELD(struct bl_meminfo, zswap, "Zswap"),
        BL_FIELD(struct bl_meminfo, zswapped, "Zswapped"),
        BL_FIELD(struct bl_meminfo, anon_pages, "AnonPages"),
        BL_FIELD(struct bl_meminfo, shmem, "Shmem"),
        BL_FIELD(struct bl_meminfo, s_reclaimable, "SReclaimable"),
        BL_FIELD(struct bl_meminfo, hugetlb, "Hugetlb"),
};

int bl_meminfo_parse(const char *text, struct bl_meminfo *ret)
{
        struct bl_meminfo m;
        int r;

        r = bl_fields_parse(text, fields, sizeof fields / sizeof *fields, &m);
        if (r < 0)
                return -EBADMSG;
        if (m.mem_total == BL_UNSET || m.mem_total == 0 || m.mem_free == BL_UNSET || m.mem_free > m.mem_total)
                return -EBADMSG;

        /* Without MemAvailable (kernels before 3.14, some containers): free and
         * what the kernel can drop, shmem is not. */
        if (m.mem_available == BL_UNSET)
                m.mem_available =
                        bl_min(bl_add_sat(bl_add_sat(m.mem_free, bl_sub_sat(bl_or_zero(m.cached), bl_or_zero(m.shmem))),
                                          bl_add_sat(bl_or_zero(m.buffers), bl_or_zero(m.s_reclaimable) / 2)),
                               m.mem_total);
        if (m.mem_available > m.mem_total)
                return -EBADMSG;

        *ret = m;
        return 0;
}

int bl_meminfo_open(struct bl_reader *r, const char *root)
{
        return bl_reader_open(r, root, "/proc/meminfo");
}

int bl_meminfo_read(const struct bl_reader *r, struct bl_meminfo *ret)
{
        char buf[MEMINFO_MAX];
        const ssize_t n = bl_reader_read_once(r, buf, sizeof buf);

        return n < 0 ? (int)n : bl_meminfo_parse(buf, ret);
}
