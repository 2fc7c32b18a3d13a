// SPDX-License-Identifier: LGPL-2.1-or-later
#include "daemon/sense/kernel_tiers.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ballast/cleanup.h>

#include "daemon/sense/meminfo.h"
#include "daemon/util/fs.h"
#include "daemon/util/size.h"

#define SWAPS_BYTES 16384

/* --- /proc/swaps ------------------------------------------------------------ */

/* Blanks, newlines and backslashes of a name are "\040" and so on. */
static void unescape(char *s)
{
        char *to = s;

        for (; *s; s++) {
                if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' && s[3] >= '0' &&
                    s[3] <= '7') {
                        *to++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
                        s += 3;
                } else {
                        *to++ = *s;
                }
        }
        *to = '\0';
}

static int parse_swap(const char *line, struct bl_swap_area *ret)
{
        struct bl_swap_area a = {0};
        char type[16];
        uint64_t size, used;

        if (sscanf(line, "%255s %15s %" SCNu64 " %" SCNu64 " %d", a.path, type, &size, &used, &a.priority) != 5)
                return -EBADMSG;
        unescape(a.path);
        a.file = strcmp(type, "file") == 0;
        a.size = bl_mul_sat(size, BL_KIB);
        a.used = bl_mul_sat(used, BL_KIB);
        *ret = a;
        return 0;
}

int bl_swaps_parse(const char *text, struct bl_kernel_tiers *ret)
{
        struct bl_kernel_tiers t = *ret;
        const char *line = strchr(text, '\n');

        if (strncmp(text, "Filename", 8) != 0 || !line)
                return -EBADMSG;
        t.n_swaps = 0;
        t.swap_size = t.swap_used = 0;
        for (line++; *line; line = strchr(line, '\n') + 1) {
                struct bl_swap_area a;

                if (!strchr(line, '\n') || parse_swap(line, &a) < 0)
                        return -EBADMSG;
                t.swap_size = bl_add_sat(t.swap_size, a.size);
                t.swap_used = bl_add_sat(t.swap_used, a.used);
                if (t.n_swaps < BL_SWAPS_MAX)
                        t.swaps[t.n_swaps++] = a;
        }
        *ret = t;
        return 0;
}

/* --- zram ------------------------------------------------------------------- */

int bl_zram_parse(const char *mm_stat, struct bl_zram *ret)
{
        uint64_t orig, compressed, used, limit, most, same;

        if (sscanf(mm_stat, "%" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, &orig, &compressed,
                   &used, &limit, &most, &same) != 6)
                return -EBADMSG;
        /* same_pages is a count, and orig_data_size does not have them */
        ret->same = bl_mul_sat(same, (uint64_t)sysconf(_SC_PAGESIZE));
        ret->held = orig;
        ret->compressed = compressed;
        ret->used = used;
        return 0;
}

void bl_zram_algorithm(const char *text, char *ret, size_t size)
{
        const char *from = strchr(text, '['), *to = from ? strchr(from, ']') : NULL;

        (void)snprintf(ret, size, "%.*s", to ? (int)(to - from - 1) : 0, to ? from + 1 : "");
}

static bool read_zram(const char *root, const char *name, struct bl_zram *ret)
{
        struct bl_zram z = {0};
        char path[64], buf[256];

        (void)snprintf(path, sizeof path, "/sys/block/%.15s/disksize", name);
        if (bl_fs_read(root, path, buf, sizeof buf) < 0)
                return false;
        z.disksize = strtoull(buf, NULL, 10);
        (void)snprintf(path, sizeof path, "/sys/block/%.15s/mm_stat", name);
        if (z.disksize == 0 || bl_fs_read(root, path, buf, sizeof buf) < 0 || bl_zram_parse(buf, &z) < 0)
                return false;
        (void)snprintf(path, sizeof path, "/sys/block/%.15s/comp_algorithm", name);
        if (bl_fs_read(root, path, buf, sizeof buf) >= 0)
                bl_zram_algorithm(buf, z.algorithm, sizeof z.algorithm);
        (void)snprintf(z.name, sizeof z.name, "%s", name);
        *ret = z;
        return true;
}

static int by_name(const void *a, const void *b)
{
        const struct bl_zram *x = a, *y = b;
        size_t n = strlen(x->name), k = strlen(y->name);

        return n != k ? (n < k ? -1 : 1) : strcmp(x->name, y->name);
}

static void read_zrams(const char *root, struct bl_kernel_tiers *t)
{
        _cleanup_closedir_ DIR *d = NULL;
        char path[PATH_MAX];

        if (bl_path_join(path, sizeof path, root, "/sys/block") < 0)
                return;
        d = opendir(path);
        if (!d)
                return;
        for (const struct dirent *e = readdir(d); e && t->n_zrams < BL_ZRAMS_MAX; e = readdir(d))
                if (strncmp(e->d_name, "zram", 4) == 0 && strlen(e->d_name) < sizeof t->zrams[0].name &&
                    read_zram(root, e->d_name, &t->zrams[t->n_zrams]))
                        t->n_zrams++;
        qsort(t->zrams, t->n_zrams, sizeof t->zrams[0], by_name);
}

/* --- zswap ------------------------------------------------------------------ */

#define PARAMETERS "/sys/module/zswap/parameters/"

static void chomp(char *s)
{
        s[strcspn(s, "\n")] = '\0';
}

static void read_zswap(const char *root, struct bl_zswap *z)
{
        char buf[8192];
        struct bl_meminfo mem;

        if (bl_fs_read(root, PARAMETERS "enabled", buf, sizeof buf) < 0)
                return;
        z->there = true;
        z->enabled = buf[0] == 'Y';
        if (bl_fs_read(root, PARAMETERS "compressor", z->compressor, sizeof z->compressor) >= 0)
                chomp(z->compressor);
        if (bl_fs_read(root, PARAMETERS "max_pool_percent", buf, sizeof buf) >= 0)
                z->max_pool_percent = strtoull(buf, NULL, 10);
        z->used = z->held = BL_UNSET;
        if (bl_fs_read(root, "/proc/meminfo", buf, sizeof buf) < 0 || bl_meminfo_parse(buf, &mem) < 0)
                return;
        z->used = mem.zswap;
        z->held = mem.zswapped;
}

int bl_kernel_tiers_read(const char *root, struct bl_kernel_tiers *ret)
{
        _cleanup_free_ char *buf = malloc(SWAPS_BYTES);
        struct bl_kernel_tiers t = {0};
        ssize_t n;
        int r = 0;

        if (!buf)
                return -ENOMEM;
        n = bl_fs_read(root, "/proc/swaps", buf, SWAPS_BYTES);
        if (n >= 0)
                r = bl_swaps_parse(buf, &t);
        else if (n != -ENOENT)
                r = (int)n;
        if (r < 0)
                return r;
        read_zrams(root, &t);
        read_zswap(root, &t.zswap);
        *ret = t;
        return 0;
}

uint64_t bl_kernel_tiers_ram(const struct bl_kernel_tiers *t)
{
        uint64_t sum = t->zswap.there ? bl_or_zero(t->zswap.used) : 0;

        for (size_t i = 0; i < t->n_zrams; i++)
                sum = bl_add_sat(sum, t->zrams[i].used);
        return sum;
}
