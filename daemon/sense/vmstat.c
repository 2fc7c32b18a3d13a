/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/sense/vmstat.h"

#include <errno.h>

#include "daemon/util/fields.h"

/* about 4,000 bytes in 2026 */
#define VMSTAT_MAX 16384

static const struct bl_field fields[] = {
        BL_FIELD(struct bl_vmstat, refault_anon, "workingset_refault_anon"),
        BL_FIELD(struct bl_vmstat, refault_file, "workingset_refault_file"),
        BL_FIELD(struct bl_vmstat, pswpin, "pswpin"),
        BL_FIELD(struct bl_vmstat, pswpout, "pswpout"),
        BL_FIELD_SUM(struct bl_vmstat, allocstall, "allocstall_"),
        BL_FIELD(struct bl_vmstat, pgmajfault, "pgmajfault"),
        BL_FIELD(struct bl_vmstat, pgsteal_kswapd, "pgsteal_kswapd"),
        BL_FIELD(struct bl_vmstat, pgsteal_direct, "pgsteal_direct"),
        BL_FIELD(struct bl_vmstat, pgscan_kswapd, "pgscan_kswapd"),
        BL_FIELD(struct bl_vmstat, pgscan_direct, "pgscan_direct"),
        BL_FIELD(struct bl_vmstat, oom_kill, "oom_kill"),
        BL_FIELD(struct bl_vmstat, thp_collapsed, "thp_collapse_alloc"),
        BL_FIELD(struct bl_vmstat, zswpin, "zswpin"),
        BL_FIELD(struct bl_vmstat, zswpout, "zswpout"),
        BL_FIELD(struct bl_vmstat, cow_ksm, "cow_ksm"),
};

int bl_vmstat_parse(const char *text, struct bl_vmstat *ret)
{
        struct bl_vmstat v;
        int r;

        r = bl_fields_parse(text, fields, sizeof fields / sizeof *fields, &v);
        if (r <= 0)
                return -EBADMSG;
        *ret = v;
        return 0;
}

int bl_vmstat_open(struct bl_reader *r, const char *root)
{
        return bl_reader_open(r, root, "/proc/vmstat");
}

int bl_vmstat_read(const struct bl_reader *r, struct bl_vmstat *ret)
{
        char buf[VMSTAT_MAX];
        const ssize_t n = bl_reader_read(r, buf, sizeof buf);

        return n < 0 ? (int)n : bl_vmstat_parse(buf, ret);
}
