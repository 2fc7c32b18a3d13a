/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <ballast/cleanup.h>
#include <ballast/wire.h>

#include "guestagent/job.h"
#include "guestagent/swapdisk.h"

/* So much at either end has to be zeros on a disk that is not ours yet: partition tables, file systems, LVM, md and
 * ZFS all have something there. */
#define LOOK (1 * BL_MIB)
#define PART (64 * BL_KIB)

/* What the store works on at a time.  Linux would send up to 1280. */
#define REQUEST_KIB 128U

/* union swap_header of include/linux/swap.h: pages are 4 to 64 KiB. */
#define PAGE_SMALLEST 4096U
#define PAGE_LARGEST  65536U
#define PAGES_LEAST   10U
static const char magic[] = {'S', 'W', 'A', 'P', 'S', 'P', 'A', 'C', 'E', '2'};
struct swap_info {
        uint8_t boot[1024];
        uint32_t version; /* 1; these are the kernel's own byte order */
        uint32_t last_page;
        uint32_t n_bad;
        uint8_t uuid[16];
        char label[16];
};

/* --- sysfs ------------------------------------------------------------------ */

static int attribute_path(const char *root, const char *name, const char *attribute, char *ret, size_t size)
{
        return (size_t)snprintf(ret, size, "%s/sys/block/%s/%s", root, name, attribute) >= size ? -ENAMETOOLONG : 0;
}

static int read_attribute(const char *root, const char *name, const char *attribute, char *ret, size_t size)
{
        _cleanup_close_ int fd = -1;
        char path[PATH_MAX];
        ssize_t n;
        int r = attribute_path(root, name, attribute, path, sizeof path);

        if (r < 0)
                return r;
        fd = open(path, O_RDONLY | O_CLOEXEC);
        n = fd < 0 ? -1 : read(fd, ret, size - 1);
        if (n < 0)
                return -errno;
        ret[n] = '\0';
        ret[strcspn(ret, "\n")] = '\0';
        return 0;
}

static void write_attribute(const char *root, const char *name, const char *attribute, const char *value)
{
        _cleanup_close_ int fd = -1;
        char path[PATH_MAX];

        if (attribute_path(root, name, attribute, path, sizeof path) < 0)
                return;
        fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd >= 0)
                (void)guest_write_all(fd, value, strlen(value));
}

static bool is_ours(const char *root, const char *name)
{
        char serial[32];

        return strlen(name) < SWAP_DISK_NAME && name[0] != '.' &&
               read_attribute(root, name, "serial", serial, sizeof serial) == 0 &&
               strcmp(serial, BL_WIRE_STORE_SERIAL) == 0;
}

int swap_disk_find(const char *root, struct swap_disk *ret)
{
        _cleanup_closedir_ DIR *dir = NULL;
        const struct dirent *d;
        char path[PATH_MAX], sectors[32];
        struct swap_disk disk = {0};
        int r;

        if ((size_t)snprintf(path, sizeof path, "%s/sys/block", root) >= sizeof path)
                return -ENAMETOOLONG;
        dir = opendir(path);
        if (!dir)
                return errno == ENOENT ? -ENODEV : -errno;
        while ((d = readdir(dir))) {
                if (!is_ours(root, d->d_name))
                        continue;
                if (disk.name[0])
                        return -ENOTUNIQ;
                (void)snprintf(disk.name, sizeof disk.name, "%.*s", (int)sizeof disk.name - 1, d->d_name);
        }
        if (!disk.name[0])
                return -ENODEV;
        r = read_attribute(root, disk.name, "size", sectors, sizeof sectors);
        if (r < 0)
                return r;
        disk.size = bl_mul_sat(strtoull(sectors, NULL, 10), 512);
        *ret = disk;
        return 0;
}

void swap_disk_tune(const char *root, const struct swap_disk *d)
{
        char now[32], most[32];

        /* virtio disks say that they turn, and on what turns the kernel keeps no clusters, so that it never
         * discards one (mm/swapfile.c, SWP_SOLIDSTATE) */
        write_attribute(root, d->name, "queue/rotational", "0");
        (void)snprintf(most, sizeof most, "%u", REQUEST_KIB);
        if (read_attribute(root, d->name, "queue/max_sectors_kb", now, sizeof now) == 0 &&
            strtoull(now, NULL, 10) > REQUEST_KIB)
                write_attribute(root, d->name, "queue/max_sectors_kb", most);
}

/* --- its node --------------------------------------------------------------- */

/* False: there is none, or it is another device's. */
static bool is_node(const char *root, const char *path, dev_t dev)
{
        struct stat st;

        if (stat(path, &st) < 0)
                return false;
        return root[0] ? S_ISREG(st.st_mode) : S_ISBLK(st.st_mode) && st.st_rdev == dev;
}

static int made_path(const char *root, const struct swap_disk *d, char *ret, size_t size)
{
        return (size_t)snprintf(ret, size, "%s" SWAP_NODE_DIR "/%s", root, d->name) >= size ? -ENAMETOOLONG : 0;
}

int swap_disk_node(const char *root, struct swap_disk *d)
{
        unsigned major_number, minor_number;
        char number[32];
        dev_t dev;
        int r = read_attribute(root, d->name, "dev", number, sizeof number);

        if (r < 0)
                return r;
        if (sscanf(number, "%u:%u", &major_number, &minor_number) != 2)
                return -EINVAL;
        dev = makedev(major_number, minor_number);
        if ((size_t)snprintf(d->path, sizeof d->path, "%s/dev/%s", root, d->name) >= sizeof d->path)
                return -ENAMETOOLONG;
        if (is_node(root, d->path, dev))
                return 0;
        r = made_path(root, d, d->path, sizeof d->path);
        if (r < 0 || is_node(root, d->path, dev))
                return r;
        /* its directories may be there; what is wrong, mknod will say */
        (void)mkdir("/run", 0755);
        (void)mkdir(SWAP_NODE_DIR, 0755);
        (void)unlink(d->path);
        return mknod(d->path, S_IFBLK | 0600, dev) < 0 ? -errno : 0;
}

void swap_disk_forget(const char *root, const struct swap_disk *d)
{
        char path[PATH_MAX];

        if (made_path(root, d, path, sizeof path) == 0)
                (void)unlink(path);
}

int swap_disk_open(const struct swap_disk *d)
{
        /* O_EXCL without O_CREAT is for block devices: open(2) */
        int fd = open(d->path, O_RDWR | O_EXCL | O_CLOEXEC);

        return fd < 0 ? -errno : fd;
}

/* --- its content ------------------------------------------------------------ */

static int read_at(int fd, void *buf, size_t size, uint64_t at)
{
        uint8_t *p = buf;

        while (size > 0) {
                ssize_t n = pread(fd, p, size, (off_t)at);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return n < 0 ? -errno : -EIO;
                p += n;
                at += (uint64_t)n;
                size -= (size_t)n;
        }
        return 0;
}

/* Of whatever size the pages were when it was made. */
static bool is_our_swap(const uint8_t *start)
{
        const struct swap_info *info = (const void *)start;

        for (size_t page = PAGE_SMALLEST; page <= PAGE_LARGEST; page *= 2)
                if (memcmp(start + page - sizeof magic, magic, sizeof magic) == 0)
                        return strncmp(info->label, SWAP_LABEL, sizeof info->label) == 0;
        return false;
}

static bool is_zero(const uint8_t *p, size_t size)
{
        return size == 0 || (p[0] == 0 && memcmp(p, p + 1, size - 1) == 0);
}

int swap_disk_check(int fd, const struct swap_disk *d)
{
        static uint8_t buf[PART] __attribute__((aligned(8)));
        uint64_t look = bl_min(LOOK, d->size);

        if (d->size < PART)
                return -ENOSPC;
        for (uint64_t at = 0; at < d->size; at += PART) {
                int r;

                if (at >= look && at < d->size - look) /* the middle */
                        at = d->size - look;
                r = read_at(fd, buf, bl_min(PART, d->size - at), at);
                if (r < 0)
                        return r;
                if (at == 0 && is_our_swap(buf))
                        return 0;
                if (!is_zero(buf, bl_min(PART, d->size - at)))
                        return -EEXIST;
        }
        return 0;
}

int swap_disk_format(int fd, const struct swap_disk *d, uint64_t page)
{
        static uint8_t header[PAGE_LARGEST] __attribute__((aligned(8)));
        struct swap_info *info = (void *)header;
        uint64_t pages = d->size / page;
        size_t done = 0;

        if (page > sizeof header || pages <= PAGES_LEAST || pages > UINT32_MAX)
                return -ENOSPC;
        memset(header, 0, sizeof header);
        info->version = 1;
        info->last_page = (uint32_t)(pages - 1);
        (void)getrandom(info->uuid, sizeof info->uuid, GRND_NONBLOCK);
        info->uuid[6] = (uint8_t)((info->uuid[6] & 0x0f) | 0x40); /* RFC 4122: random */
        info->uuid[8] = (uint8_t)((info->uuid[8] & 0x3f) | 0x80);
        memcpy(info->label, SWAP_LABEL, sizeof SWAP_LABEL);
        memcpy(header + page - sizeof magic, magic, sizeof magic);
        while (done < page) {
                ssize_t n = pwrite(fd, header + done, page - done, (off_t)done);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return n < 0 ? -errno : -EIO;
                done += (size_t)n;
        }
        return fsync(fd) < 0 ? -errno : 0;
}
