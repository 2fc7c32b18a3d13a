/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tiers rollback: what 'tiers setup' changed, last change first. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/ctl/tiers.h"
#include "daemon/sense/kernel_tiers.h"
#include "daemon/sense/meminfo.h"
#include "daemon/util/fs.h"
#include "daemon/util/size.h"

/* Of the host's memory, what is left available when all has come back. */
#define MEMORY_LEFT 16U

static const char *field(const json_t *change, const char *name)
{
        const char *s = json_string_value(json_object_get(change, name));

        return s ? s : "";
}

/* --- swapoff ------------------------------------------------------------------ */

static const struct bl_swap_area *find_area(const struct bl_kernel_tiers *tiers, const char *path)
{
        for (size_t i = 0; i < tiers->n_swaps; i++)
                if (strcmp(tiers->swaps[i].path, path) == 0)
                        return &tiers->swaps[i];
        return NULL;
}

/* What a zram device takes comes free as it is emptied. */
static uint64_t comes_free(const struct bl_kernel_tiers *tiers, const char *path)
{
        for (size_t i = 0; i < tiers->n_zrams; i++)
                if (strcmp(tiers->zrams[i].name, path + strlen("/dev/")) == 0)
                        return tiers->zrams[i].used;
        return 0;
}

/* Brings everything in it back into memory.  0 also when it is no swap now. */
static int swap_off(struct ctl_tiers *t, const char *path)
{
        struct bl_kernel_tiers tiers;
        const struct bl_swap_area *area;
        struct bl_meminfo mem;
        char text[8192], full[PATH_MAX], a[BL_SIZE_BUF], b[BL_SIZE_BUF];
        uint64_t have;
        int r = bl_kernel_tiers_read(t->root, &tiers);

        if (r >= 0)
                r = bl_fs_read(t->root, "/proc/meminfo", text, sizeof text) < 0 ? -EIO : bl_meminfo_parse(text, &mem);
        if (r >= 0)
                r = bl_path_join(full, sizeof full, t->root, path);
        if (r < 0)
                return r;
        area = find_area(&tiers, path);
        if (!area)
                return 0;
        have = bl_sub_sat(bl_add_sat(mem.mem_available, comes_free(&tiers, path)), mem.mem_total / MEMORY_LEFT);
        if (area->used > have)
                return ctl_tiers_say(t, -ENOMEM,
                                     "%s holds %s, which would not fit into memory: there is room for %s; free some "
                                     "first",
                                     path, bl_size_format(area->used, a, sizeof a), bl_size_format(have, b, sizeof b));
        r = t->ops->swapoff(full);
        return r < 0 ? ctl_tiers_say(t, r, "cannot end swapping on %s: %s", path, strerror(-r)) : 0;
}

/* Its swap header is the one that we wrote, or it has none yet. */
static int is_ours(struct ctl_tiers *t, const char *path, const char *uuid)
{
        char full[PATH_MAX], found[37];
        int r = bl_path_join(full, sizeof full, t->root, path);

        if (r >= 0)
                r = ctl_swap_uuid(full, found);
        if (r <= 0)
                return r < 0 ? r : 1;
        return strcmp(found, uuid) == 0;
}

/* --- zram --------------------------------------------------------------------- */

static void zram_path(char ret[64], const char *name, const char *knob)
{
        (void)snprintf(ret, 64, "/sys/block/%.15s/%s", name, knob);
}

static uint64_t disksize(const struct ctl_tiers *t, const char *name)
{
        char path[64], text[32];

        zram_path(path, name, "disksize");
        ctl_tiers_read(t, path, text, sizeof text);
        return *text ? strtoull(text, NULL, 10) : BL_UNSET;
}

static int remove_zram(struct ctl_tiers *t, const char *name)
{
        int r = ctl_tiers_write(t, "/sys/class/zram-control/hot_remove", name + strlen("zram"));

        return r < 0 ? ctl_tiers_say(t, r, "cannot remove /dev/%s: %s", name, strerror(-r)) : 0;
}

/* Killed between the making of a device and the writing down of its number: an empty one that was not there
 * before, if that can be one only. */
static int undo_unnamed_zram(struct ctl_tiers *t, const json_t *before)
{
        _cleanup_closedir_ DIR *d = NULL;
        char path[PATH_MAX], found[16] = "";
        unsigned n = 0;

        if (bl_path_join(path, sizeof path, t->root, "/sys/block") >= 0)
                d = opendir(path);
        for (const struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
                bool known = false;
                const json_t *name;
                size_t i;

                if (strncmp(e->d_name, "zram", 4) != 0 || strlen(e->d_name) >= sizeof found)
                        continue;
                json_array_foreach(before, i, name)
                {
                        known = known || strcmp(json_string_value(name), e->d_name) == 0;
                }
                if (known || disksize(t, e->d_name) != 0)
                        continue;
                (void)snprintf(found, sizeof found, "%.15s", e->d_name);
                n++;
        }
        if (n > 1)
                return ctl_tiers_say(t, 0, "an empty zram device may be left of a setup that was killed");
        return n == 1 ? remove_zram(t, found) : 0;
}

static int undo_zram(struct ctl_tiers *t, const json_t *change)
{
        const char *name = field(change, "device");
        char node[32], path[64];
        int r;

        if (!*name)
                return undo_unnamed_zram(t, json_object_get(change, "before"));
        if (disksize(t, name) == BL_UNSET)
                return ctl_tiers_say(t, 0, "/dev/%s is gone already", name);
        (void)snprintf(node, sizeof node, "/dev/%.15s", name);
        r = disksize(t, name) == 0 ? 1 : is_ours(t, node, field(change, "uuid"));
        if (r == 0)
                return ctl_tiers_say(t, 0, "/dev/%s is somebody else's by now, and left", name);
        r = swap_off(t, node);
        if (r < 0)
                return r;
        zram_path(path, name, "reset");
        r = ctl_tiers_write(t, path, "1");
        if (r < 0)
                return ctl_tiers_say(t, r, "cannot reset /dev/%s: %s", name, strerror(-r));
        r = remove_zram(t, name);
        return r < 0 ? r : ctl_tiers_say(t, 0, "/dev/%s is removed", name);
}

/* --- the others --------------------------------------------------------------- */

static int undo_knob(struct ctl_tiers *t, const json_t *change)
{
        const char *path = field(change, "path"), *old = field(change, "old"), *new = field(change, "new");
        char now[64];
        int r;

        ctl_tiers_read(t, path, now, sizeof now);
        if (strcmp(now, old) == 0)
                return 0;
        if (strcmp(now, new) != 0)
                return ctl_tiers_say(t, 0, "%s is '%s' by now, which somebody else has set; it is left (it was '%s')",
                                     path, now, old);
        r = ctl_tiers_write(t, path, old);
        if (r < 0)
                return ctl_tiers_say(t, r, "cannot write '%s' to %s: %s", old, path, strerror(-r));
        return ctl_tiers_say(t, 0, "%s is '%s' again", path, old);
}

static int undo_swapfile(struct ctl_tiers *t, const json_t *change)
{
        const char *path = field(change, "path");
        char full[PATH_MAX];
        struct stat st;
        int r = bl_path_join(full, sizeof full, t->root, path);

        if (r < 0)
                return r;
        if (lstat(full, &st) < 0)
                return errno == ENOENT ? 0 : ctl_tiers_say(t, -errno, "cannot look at %s: %s", path, strerror(errno));
        r = S_ISREG(st.st_mode) ? is_ours(t, path, field(change, "uuid")) : 0;
        if (r == 0)
                return ctl_tiers_say(t, 0, "%s is somebody else's by now, and left", path);
        if (r > 0)
                r = swap_off(t, path);
        if (r >= 0 && unlink(full) < 0)
                r = ctl_tiers_say(t, -errno, "cannot remove %s: %s", path, strerror(errno));
        return r < 0 ? r : ctl_tiers_say(t, 0, "%s is removed", path);
}

static int undo(struct ctl_tiers *t, const json_t *change)
{
        const char *what = field(change, "what");

        if (strcmp(what, "zram") == 0)
                return undo_zram(t, change);
        if (strcmp(what, "knob") == 0)
                return undo_knob(t, change);
        if (strcmp(what, "swapfile") == 0)
                return undo_swapfile(t, change);
        return ctl_tiers_say(t, -EBADMSG, "tiers.json has a change '%s' that this ballastctl does not know", what);
}

int ctl_tiers_rollback_to(struct ctl_tiers *t, size_t n)
{
        while (json_array_size(t->changes) > n) {
                int r = undo(t, json_array_get(t->changes, json_array_size(t->changes) - 1));

                if (r >= 0)
                        r = ctl_tiers_forget_last(t);
                if (r < 0)
                        return r;
        }
        return 0;
}

int ctl_tiers_rollback(struct ctl_tiers *t)
{
        if (json_array_size(t->changes) == 0)
                return ctl_tiers_say(t, 0, "nothing is to be undone: 'ballastctl tiers setup' has changed nothing");
        return ctl_tiers_rollback_to(t, 0);
}
