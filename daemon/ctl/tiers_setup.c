/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tiers setup: a zram swap device, zswap, a swap file. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/swap.h>

#include "daemon/ctl/tiers.h"
#include "daemon/sense/kernel_tiers.h"
#include "daemon/sense/meminfo.h"
#include "daemon/util/fs.h"
#include "daemon/util/size.h"
#include "daemon/virt/proc.h"

/* Before all other areas, as zram-generator(8) has it. */
#define ZRAM_PRIORITY 100
#define SIZE_LEAST    (16 * BL_MIB)
/* "There is little point creating a zram of greater than twice the size of memory" (zram.rst). */
#define ZRAM_MOST 2U
/* A larger zswap leaves its host too little. */
#define ZSWAP_MOST 50U
/* Of a file system, what a swap file leaves free. */
#define DISK_LEFT 20U

#define ZSWAP        "/sys/module/zswap/parameters/"
#define ZRAM_CONTROL "/sys/class/zram-control"

/* --- the kernel -------------------------------------------------------------- */

static int kernel_write(const char *path, const char *value)
{
        _cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);

        if (fd < 0)
                return -errno;
        return write(fd, value, strlen(value)) < 0 ? -errno : 0;
}

static int kernel_add_zram(const char *root, unsigned *ret_number)
{
        char text[32];
        ssize_t n = bl_fs_read(root, ZRAM_CONTROL "/hot_add", text, sizeof text);

        if (n < 0)
                return (int)n;
        return sscanf(text, "%u", ret_number) == 1 ? 0 : -EBADMSG;
}

static int kernel_swapon(const char *path, int flags)
{
        return swapon(path, flags) < 0 ? -errno : 0;
}

static int kernel_swapoff(const char *path)
{
        return swapoff(path) < 0 ? -errno : 0;
}

const struct ctl_tiers_ops ctl_tiers_kernel = {
        .write = kernel_write,
        .add_zram = kernel_add_zram,
        .swapon = kernel_swapon,
        .swapoff = kernel_swapoff,
};

/* --- what there is ----------------------------------------------------------- */

static int look_at_host(struct ctl_tiers *t, struct bl_kernel_tiers *tiers, struct bl_meminfo *mem)
{
        char text[8192];
        int r = bl_kernel_tiers_read(t->root, tiers);

        if (r >= 0)
                r = bl_fs_read(t->root, "/proc/meminfo", text, sizeof text) < 0 ? -EIO : bl_meminfo_parse(text, mem);
        return r < 0 ? ctl_tiers_say(t, r, "cannot read the host's memory and swap from /proc: %s", strerror(-r)) : 0;
}

static bool is_zram(const struct bl_swap_area *a)
{
        return strncmp(a->path, "/dev/zram", 9) == 0;
}

static int new_uuid(char ret[37])
{
        uint8_t u[16];

        if (getrandom(u, sizeof u, 0) != (ssize_t)sizeof u)
                return -EIO;
        u[6] = (uint8_t)((u[6] & 0x0f) | 0x40);
        u[8] = (uint8_t)((u[8] & 0x3f) | 0x80);
        bl_uuid_to_string(u, ret);
        return 0;
}

static int check_size(struct ctl_tiers *t, uint64_t size, uint64_t most, const char *why)
{
        char a[BL_SIZE_BUF], b[BL_SIZE_BUF];

        if (size >= SIZE_LEAST && size <= most)
                return 0;
        return ctl_tiers_say(t, -ERANGE, "%s is no sensible size: from %s to %s%s",
                             bl_size_format(size, (char[BL_SIZE_BUF]){0}, BL_SIZE_BUF),
                             bl_size_format(SIZE_LEAST, a, sizeof a), bl_size_format(most, b, sizeof b), why);
}

/* --- zram --------------------------------------------------------------------- */

static int zram_allowed(struct ctl_tiers *t, uint64_t size)
{
        struct bl_kernel_tiers tiers = {0};
        struct bl_meminfo mem = {0};
        const json_t *ours = ctl_tiers_find(t, "zram");
        char path[PATH_MAX], text[16];
        int r = look_at_host(t, &tiers, &mem);

        if (r < 0)
                return r;
        if (ours)
                return ctl_tiers_say(t, -EALREADY,
                                     "there is a zram tier already: /dev/%s; 'ballastctl tiers rollback' takes it away",
                                     json_string_value(json_object_get(ours, "device")));
        for (size_t i = 0; i < tiers.n_swaps && !t->force; i++)
                if (is_zram(&tiers.swaps[i]))
                        return ctl_tiers_say(t, -EALREADY,
                                             "somebody else has set up %s as swap, which serves as it is; --force adds "
                                             "another",
                                             tiers.swaps[i].path);
        r = bl_path_join(path, sizeof path, t->root, ZRAM_CONTROL "/hot_add");
        if (r < 0 || access(path, R_OK) < 0)
                return ctl_tiers_say(t, -ENOTSUP, "this kernel has no zram, or it is not loaded: 'modprobe zram'");
        ctl_tiers_read(t, ZSWAP "enabled", text, sizeof text);
        if (text[0] == 'Y' && !t->force)
                return ctl_tiers_say(t, -EALREADY,
                                     "zswap is on, and would compress before zram can; switch it off, or choose zswap "
                                     "with a swap file (--force sets zram up nevertheless)");
        return check_size(t, size, bl_mul_sat(mem.mem_total, ZRAM_MOST), ", twice the host's memory");
}

static json_t *zrams_there(const struct ctl_tiers *t)
{
        _cleanup_closedir_ DIR *d = NULL;
        json_t *names = json_array();
        char path[PATH_MAX];

        if (bl_path_join(path, sizeof path, t->root, "/sys/block") >= 0)
                d = opendir(path);
        for (const struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d))
                if (strncmp(e->d_name, "zram", 4) == 0)
                        (void)json_array_append_new(names, json_string(e->d_name));
        return names;
}

/* Which number it gets is known only when it is there: the record says first what was there before. */
static int add_zram(struct ctl_tiers *t, const char *uuid, uint64_t size, char ret_name[16])
{
        unsigned number;
        int r = ctl_tiers_record(
                t, json_pack("{s:s, s:n, s:s, s:o}", "what", "zram", "device", "uuid", uuid, "before", zrams_there(t)));

        if (r < 0)
                return r;
        r = t->ops->add_zram(t->root, &number);
        if (r < 0) {
                (void)ctl_tiers_forget_last(t);
                return ctl_tiers_say(t, r, "the kernel adds no zram device: %s", strerror(-r));
        }
        (void)snprintf(ret_name, 16, "zram%u", number % 1000000);
        (void)json_array_remove(t->changes, json_array_size(t->changes) - 1);
        return ctl_tiers_record(t, json_pack("{s:s, s:s, s:s, s:I}", "what", "zram", "device", ret_name, "uuid", uuid,
                                             "size", (json_int_t)size));
}

static int format_at(const struct ctl_tiers *t, const char *path, uint64_t size, const char *uuid)
{
        _cleanup_close_ int fd = -1;
        char full[PATH_MAX];
        int r = bl_path_join(full, sizeof full, t->root, path);

        if (r < 0)
                return r;
        fd = open(full, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        return fd < 0 ? -errno : ctl_swap_format(fd, size, uuid);
}

static int swap_on(const struct ctl_tiers *t, const char *path, int flags)
{
        char full[PATH_MAX];
        int r = bl_path_join(full, sizeof full, t->root, path);

        return r < 0 ? r : t->ops->swapon(full, flags);
}

/* A device node is made by udev or devtmpfs, a moment later. */
static int wait_for(const struct ctl_tiers *t, const char *path)
{
        char full[PATH_MAX];

        if (bl_path_join(full, sizeof full, t->root, path) < 0)
                return -ENAMETOOLONG;
        for (int i = 0; i < 100 && access(full, F_OK) < 0; i++)
                (void)usleep(20 * BL_MSEC);
        return access(full, F_OK) < 0 ? -errno : 0;
}

/* It is ours, so that nothing of it has to be put back but itself. */
static int fill_zram(struct ctl_tiers *t, const char *name, const char *uuid, uint64_t size)
{
        char path[64], text[32], node[32];
        int r;

        (void)snprintf(path, sizeof path, "/sys/block/%s/comp_algorithm", name);
        /* an algorithm that is not built in is no reason to do without */
        if (ctl_tiers_write(t, path, "lz4") < 0)
                (void)ctl_tiers_say(t, 0, "this kernel's zram has no lz4, so it keeps its own algorithm");
        (void)snprintf(path, sizeof path, "/sys/block/%s/disksize", name);
        (void)snprintf(text, sizeof text, "%" PRIu64, size);
        (void)snprintf(node, sizeof node, "/dev/%s", name);
        r = ctl_tiers_write(t, path, text);
        if (r >= 0)
                r = wait_for(t, node);
        if (r >= 0)
                r = format_at(t, node, size, uuid);
        if (r >= 0)
                r = swap_on(t, node, SWAP_FLAG_PREFER | ZRAM_PRIORITY);
        return r < 0 ? ctl_tiers_say(t, r, "cannot make /dev/%s swap: %s", name, strerror(-r)) : 0;
}

static int setup_zram(struct ctl_tiers *t, uint64_t size)
{
        char uuid[37], name[16], text[BL_SIZE_BUF];
        int r;

        size -= size % (4 * BL_KIB);
        r = zram_allowed(t, size);
        if (r >= 0)
                r = new_uuid(uuid);
        if (r >= 0)
                r = add_zram(t, uuid, size, name);
        if (r < 0)
                return r;
        r = fill_zram(t, name, uuid, size);
        if (r < 0)
                return r;
        return ctl_tiers_say(t, 0, "/dev/%s is swap of %s now, before all other; it takes memory as it fills", name,
                             bl_size_format(size, text, sizeof text));
}

/* --- zswap -------------------------------------------------------------------- */

static int zswap_allowed(struct ctl_tiers *t, uint64_t size, uint64_t *ret_percent)
{
        struct bl_kernel_tiers tiers = {0};
        struct bl_meminfo mem = {0};
        bool behind = false;
        char text[BL_SIZE_BUF];
        int r = look_at_host(t, &tiers, &mem);

        if (r < 0)
                return r;
        if (!tiers.zswap.there)
                return ctl_tiers_say(t, -ENOTSUP, "this kernel has no zswap");
        if (tiers.zswap.enabled)
                return ctl_tiers_say(t, -EALREADY, "zswap is on already: %" PRIu64 " %% of memory at most, with %s",
                                     tiers.zswap.max_pool_percent, tiers.zswap.compressor);
        for (size_t i = 0; i < tiers.n_swaps; i++)
                behind = behind || !is_zram(&tiers.swaps[i]);
        if (!behind)
                return ctl_tiers_say(t, -ENOENT,
                                     "zswap needs swap on a disk behind it, and there is none: 'ballastctl tiers "
                                     "setup swapfile SIZE' makes some");
        r = check_size(t, size, bl_part(mem.mem_total, ZSWAP_MOST * 100), ", half of the host's memory");
        if (r < 0)
                return r;
        /* the kernel takes whole percents */
        *ret_percent = bl_max(1, (bl_mul_sat(size, 100) + mem.mem_total / 2) / bl_max(mem.mem_total, 1));
        if (bl_mul_sat(size, 100) < mem.mem_total)
                (void)ctl_tiers_say(t, 0, "the kernel knows whole percents only: the least is %s here",
                                    bl_size_format(mem.mem_total / 100, text, sizeof text));
        return 0;
}

/* Old and new value are on record before. */
static int turn_knob(struct ctl_tiers *t, const char *path, const char *value)
{
        char old[64], now[64];
        int r;

        ctl_tiers_read(t, path, old, sizeof old);
        if (strcmp(old, value) == 0)
                return 0;
        r = ctl_tiers_record(t,
                             json_pack("{s:s, s:s, s:s, s:s}", "what", "knob", "path", path, "old", old, "new", value));
        if (r < 0)
                return r;
        r = ctl_tiers_write(t, path, value);
        /* 6.18 takes a compressor that it does not have, and goes on with the one before */
        ctl_tiers_read(t, path, now, sizeof now);
        if (r >= 0 && strcmp(now, value) != 0)
                r = -ENOTSUP;
        if (r < 0)
                (void)ctl_tiers_forget_last(t);
        return r;
}

static int setup_zswap(struct ctl_tiers *t, uint64_t size)
{
        uint64_t percent = 0;
        char text[32];
        int r = zswap_allowed(t, size, &percent);

        if (r < 0)
                return r;
        if (turn_knob(t, ZSWAP "compressor", "lz4") < 0)
                (void)ctl_tiers_say(t, 0, "this kernel's zswap has no lz4, so it keeps its own compressor");
        (void)snprintf(text, sizeof text, "%" PRIu64, percent);
        r = turn_knob(t, ZSWAP "max_pool_percent", text);
        if (r >= 0)
                r = turn_knob(t, ZSWAP "enabled", "Y");
        if (r < 0)
                return ctl_tiers_say(t, r, "cannot switch zswap on: %s", strerror(-r));
        return ctl_tiers_say(t, 0, "zswap is on: up to %" PRIu64 " %% of memory", percent);
}

/* --- swap file ---------------------------------------------------------------- */

static int swapfile_allowed(struct ctl_tiers *t, const char *path, uint64_t size)
{
        char full[PATH_MAX], dir[PATH_MAX], a[BL_SIZE_BUF], b[BL_SIZE_BUF];
        const json_t *ours = ctl_tiers_find(t, "swapfile");
        uint64_t left, whole;
        struct statvfs fs;
        struct stat st;
        int r;

        if (path[0] != '/')
                return ctl_tiers_say(t, -EINVAL, "the path of a swap file must begin with '/'");
        if (ours)
                return ctl_tiers_say(t, -EALREADY,
                                     "there is a swap file already: %s; 'ballastctl tiers rollback' takes it away",
                                     json_string_value(json_object_get(ours, "path")));
        r = check_size(t, size, UINT64_C(16) * 1024 * BL_GIB, "");
        if (r >= 0)
                r = bl_path_join(full, sizeof full, t->root, path);
        if (r < 0)
                return r;
        if (lstat(full, &st) == 0)
                return ctl_tiers_say(t, -EALREADY, "%s is there already; choose another --path", path);
        (void)snprintf(dir, sizeof dir, "%s", full);
        *strrchr(dir, '/') = '\0';
        if (statvfs(*dir ? dir : "/", &fs) < 0)
                return ctl_tiers_say(t, -errno, "cannot look at the file system of %s: %s", path, strerror(errno));
        left = bl_mul_sat(fs.f_bavail, fs.f_frsize);
        whole = bl_mul_sat(fs.f_blocks, fs.f_frsize);
        if (left < bl_add_sat(size, whole / DISK_LEFT))
                return ctl_tiers_say(t, -ENOSPC,
                                     "%s has %s free, and a twentieth (%s) of it must stay so: choose another --path, "
                                     "or a smaller size",
                                     *dir ? dir : "/", bl_size_format(left, a, sizeof a),
                                     bl_size_format(whole / DISK_LEFT, b, sizeof b));
        return 0;
}

/* Not copied on write: btrfs takes no other for swap. */
static void no_cow(int fd)
{
        unsigned flags = 0;

        if (ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0)
                return;
        flags |= FS_NOCOW_FL;
        (void)ioctl(fd, FS_IOC_SETFLAGS, &flags);
}

static int make_file(const char *path, uint64_t size, const char *uuid)
{
        _cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);

        if (fd < 0)
                return -errno;
        no_cow(fd);
        if (fallocate(fd, 0, 0, (off_t)size) < 0)
                return -errno;
        return ctl_swap_format(fd, size, uuid);
}

static int setup_swapfile(struct ctl_tiers *t, uint64_t size)
{
        const char *path = t->path ? t->path : CTL_TIERS_SWAPFILE;
        char uuid[37], full[PATH_MAX], text[BL_SIZE_BUF];
        int r;

        size -= size % (4 * BL_KIB);
        r = swapfile_allowed(t, path, size);
        if (r >= 0)
                r = new_uuid(uuid);
        if (r >= 0)
                r = bl_path_join(full, sizeof full, t->root, path);
        if (r >= 0)
                r = ctl_tiers_record(t, json_pack("{s:s, s:s, s:s, s:I}", "what", "swapfile", "path", path, "uuid",
                                                  uuid, "size", (json_int_t)size));
        if (r < 0)
                return r;
        r = make_file(full, size, uuid);
        if (r >= 0)
                r = t->ops->swapon(full, 0);
        if (r < 0)
                return ctl_tiers_say(t, r, "cannot make %s swap: %s%s", path, strerror(-r),
                                     r == -EINVAL || r == -EOPNOTSUPP ? "; its file system may not be fit for swap"
                                                                      : "");
        return ctl_tiers_say(t, 0, "%s is swap of %s now, until the host is rebooted", path,
                             bl_size_format(size, text, sizeof text));
}

/* --- all ---------------------------------------------------------------------- */

int ctl_tiers_setup(struct ctl_tiers *t, enum ctl_tier_kind kind, uint64_t size)
{
        size_t before = json_array_size(t->changes);
        int r = -EINVAL;

        switch (kind) {
        case CTL_TIER_ZRAM:
                r = setup_zram(t, size);
                break;
        case CTL_TIER_ZSWAP:
                r = setup_zswap(t, size);
                break;
        case CTL_TIER_SWAPFILE:
                r = setup_swapfile(t, size);
                break;
        }
        /* nothing is left half-made; what was there before stays */
        if (r < 0 && json_array_size(t->changes) > before)
                (void)ctl_tiers_rollback_to(t, before);
        return r;
}
