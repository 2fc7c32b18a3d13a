/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <inttypes.h>

#include "guestagent/print.h"

enum unit { UNIT_BYTES, UNIT_TIME, UNIT_COUNT };

static const struct row {
        enum bl_wire_stat stat;
        enum unit unit;
        const char *label;
} rows[] = {
        {BL_STAT_UPTIME, UNIT_TIME, "uptime"},
        {BL_STAT_MEM_TOTAL, UNIT_BYTES, "memory"},
        {BL_STAT_MEM_AVAILABLE, UNIT_BYTES, "available"},
        {BL_STAT_MEM_FREE, UNIT_BYTES, "free"},
        {BL_STAT_BUFFERS, UNIT_BYTES, "buffers"},
        {BL_STAT_CACHED, UNIT_BYTES, "page cache"},
        {BL_STAT_SHMEM, UNIT_BYTES, "shared memory"},
        {BL_STAT_SRECLAIMABLE, UNIT_BYTES, "reclaimable slab"},
        {BL_STAT_SWAP_CACHED, UNIT_BYTES, "swap cache"},
        {BL_STAT_SWAP_TOTAL, UNIT_BYTES, "swap"},
        {BL_STAT_SWAP_FREE, UNIT_BYTES, "free swap"},
        {BL_STAT_UNEVICTABLE, UNIT_BYTES, "unevictable"},
        {BL_STAT_MLOCKED, UNIT_BYTES, "locked"},
        {BL_STAT_HUGETLB, UNIT_BYTES, "huge pages"},
        {BL_STAT_SWAP_IN, UNIT_BYTES, "swapped in"},
        {BL_STAT_SWAP_OUT, UNIT_BYTES, "swapped out"},
        {BL_STAT_MAJOR_FAULTS, UNIT_COUNT, "major faults"},
        {BL_STAT_OOM_KILLS, UNIT_COUNT, "OOM kills"},
        {BL_STAT_BALLOON_INFLATE, UNIT_BYTES, "balloon inflated"},
        {BL_STAT_BALLOON_DEFLATE, UNIT_BYTES, "balloon deflated"},
        {BL_STAT_PSI_SOME, UNIT_TIME, "some stalled"},
        {BL_STAT_PSI_FULL, UNIT_TIME, "all stalled"},
        {BL_STAT_ZSWAPPED, UNIT_BYTES, "in zswap"},
};

static void print_value(FILE *f, enum unit unit, uint64_t v)
{
        switch (unit) {
        case UNIT_BYTES:
                (void)fprintf(f, "%" PRIu64 ".%" PRIu64 " MiB", v / BL_MIB, v % BL_MIB * 10 / BL_MIB);
                break;
        case UNIT_TIME:
                (void)fprintf(f, "%" PRIu64 ".%03" PRIu64 " s", v / BL_SEC, v % BL_SEC / BL_MSEC);
                break;
        case UNIT_COUNT:
                (void)fprintf(f, "%" PRIu64, v);
                break;
        }
}

int guest_print_report(FILE *f, const struct bl_wire_hello *hello, const struct bl_wire_stats *stats)
{
        (void)fprintf(f, "%-17s %s\n", "agent", hello->version);
        (void)fprintf(f, "%-17s %s\n", "kernel", hello->kernel[0] ? hello->kernel : "not known");
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
                uint64_t v = stats->v[rows[i].stat];

                (void)fprintf(f, "%-17s ", rows[i].label);
                if (v == BL_UNSET)
                        (void)fputs("not known", f);
                else
                        print_value(f, rows[i].unit, v);
                (void)fputc('\n', f);
        }
        return fflush(f) != 0 || ferror(f) ? -EIO : 0;
}
