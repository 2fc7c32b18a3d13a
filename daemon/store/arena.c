/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/store/arena.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "daemon/store/lock.h"
#include "daemon/util/fs.h"

#define POOL_MODE    0600
#define MOUNT_FLAGS  (MS_NOSUID | MS_NODEV | MS_NOEXEC)
#define KEY_TRIES    16
#define MOUNTS_LIMIT (8 * BL_MIB) /* of /proc/self/mountinfo */
#define PAGE         4096U

/* What is known of the arena of a directory, in DIR/arena.  It is written before the memory is taken, so that nothing
 * can be left behind that nobody knows of. */
struct record {
        char boot[37];
        enum bl_arena_kind kind;
        uint32_t version;
        uint64_t size;
        int key; /* of the segment */
};

__attribute__((format(printf, 3, 4))) static int fail(int r, char **ret_message, const char *format, ...)
{
        va_list ap;
        char *text;

        va_start(ap, format);
        if (vasprintf(&text, format, ap) < 0)
                text = NULL;
        va_end(ap);
        free(*ret_message);
        *ret_message = text;
        return r;
}

/* --- the record --------------------------------------------------------------- */

static int read_boot(char ret[37])
{
        char text[64];
        const ssize_t n = bl_fs_read(NULL, "/proc/sys/kernel/random/boot_id", text, sizeof(text));

        if (n < 0)
                return (int)n;
        if (n < 36)
                return -EBADMSG;
        memcpy(ret, text, 36);
        ret[36] = '\0';
        return 0;
}

/* -ENOENT: there is none, or none that says anything. */
static int read_record(const char *dir, struct record *ret)
{
        _cleanup_free_ char *path = NULL;
        struct record rec = {};
        char text[512], kind[8];
        ssize_t n;

        if (asprintf(&path, "%s/arena", dir) < 0)
                return -ENOMEM;
        n = bl_fs_read(NULL, path, text, sizeof(text));
        if (n < 0)
                return (int)n;
        if (sscanf(text, "ballast-arena 1 boot=%36s kind=%7s version=%" SCNu32 " size=%" SCNu64 " key=%d", rec.boot,
                   kind, &rec.version, &rec.size, &rec.key) != 5)
                return -ENOENT;
        if (strcmp(kind, "tmpfs") == 0)
                rec.kind = BL_ARENA_TMPFS;
        else if (strcmp(kind, "sysv") == 0)
                rec.kind = BL_ARENA_SYSV;
        else
                return -ENOENT;
        *ret = rec;
        return 0;
}

static int write_record(const char *dir, const struct record *rec)
{
        _cleanup_free_ char *path = NULL;
        char text[512];
        int n;

        if (asprintf(&path, "%s/arena", dir) < 0)
                return -ENOMEM;
        n = snprintf(text, sizeof(text),
                     "ballast-arena 1\nboot=%s\nkind=%s\nversion=%" PRIu32 "\nsize=%" PRIu64 "\nkey=%d\n", rec->boot,
                     rec->kind == BL_ARENA_TMPFS ? "tmpfs" : "sysv", rec->version, rec->size, rec->key);
        return bl_fs_write_atomic(path, text, (size_t)n, POOL_MODE, false);
}

static int lock(const char *dir, usec_t wait, int *ret_fd, char **ret_message)
{
        _cleanup_free_ char *path = NULL;
        int r, pid = 0;

        if (asprintf(&path, "%s/arena.lock", dir) < 0)
                return -ENOMEM;
        r = bl_lock_file(path, wait, ret_fd, &pid);
        if (r == -EBUSY)
                return fail(r, ret_message, "the pool in %s is in use by process %d", dir, pid);
        if (r < 0)
                return fail(r, ret_message, "cannot lock %s: %s", path, strerror(-r));
        return 0;
}

/* --- tmpfs ------------------------------------------------------------------------ */

/* Is the file system of `path` a tmpfs that is never swapped?  1, 0 or negative errno. */
static int is_noswap(const char *path)
{
        _cleanup_free_ char *text = NULL;
        char device[32];
        struct stat st;
        int r;

        if (stat(path, &st) < 0)
                return -errno;
        (void)snprintf(device, sizeof(device), "%u:%u", major(st.st_dev), minor(st.st_dev));
        r = bl_fs_read_alloc("/proc/self/mountinfo", MOUNTS_LIMIT, &text, NULL);
        if (r < 0)
                return r;
        /* proc_pid_mountinfo(5): the third field is the device; " - TYPE SOURCE OPTIONS" ends a line */
        for (char *next, *line = text; *line; line = next) {
                char found[32], *options;

                next = strchrnul(line, '\n');
                if (*next)
                        *next++ = '\0';
                options = strstr(line, " - tmpfs ");
                if (!options || sscanf(line, "%*d %*d %31s", found) != 1 || strcmp(found, device) != 0)
                        continue;
                options = strrchr(options, ' ') + 1;
                for (char *o = strtok(options, ","); o; o = strtok(NULL, ","))
                        if (strcmp(o, "noswap") == 0)
                                return 1;
        }
        return 0;
}

static int is_mount_point(const char *path)
{
        _cleanup_free_ char *parent = NULL;
        struct stat st, up;

        if (asprintf(&parent, "%s/..", path) < 0)
                return -ENOMEM;
        if (stat(path, &st) < 0 || stat(parent, &up) < 0)
                return -errno;
        return st.st_dev != up.st_dev;
}

/* A mount in a namespace of a service's own would end with the service, and the pool with it. */
static bool mounts_outlive_us(void)
{
        struct stat mine, first;

        return stat("/proc/self/ns/mnt", &mine) == 0 && stat("/proc/1/ns/mnt", &first) == 0 &&
               mine.st_dev == first.st_dev && mine.st_ino == first.st_ino;
}

/* Makes sure of a tmpfs that is never swapped at DIR/pool.  -EOPNOTSUPP: it cannot be had. */
static int tmpfs_prepare(const char *dir, uint64_t size, bool mount_anywhere, char **ret_path)
{
        _cleanup_free_ char *path = NULL;
        char options[96];
        int r;

        if (asprintf(&path, "%s/pool", dir) < 0)
                return -ENOMEM;
        if (mkdir(path, 0700) < 0 && errno != EEXIST)
                return -errno;
        r = is_noswap(path);
        if (r < 0)
                return r;
        if (r == 0) {
                if (!mount_anywhere && !mounts_outlive_us())
                        return -EOPNOTSUPP;
                (void)snprintf(options, sizeof(options), "noswap,huge=never,mode=0700,size=%" PRIu64, size + BL_MIB);
                if (mount("ballast-pool", path, "tmpfs", MOUNT_FLAGS, options) < 0)
                        return errno == EPERM || errno == EINVAL || errno == EACCES ? -EOPNOTSUPP : -errno;
        }
        *ret_path = BL_TAKE(path);
        return 0;
}

/* Opens the arena's file, or makes it anew when it is not there, or nothing is said of it. */
static int tmpfs_open(struct bl_arena *a, const char *path, bool known, uint64_t wanted)
{
        _cleanup_free_ char *name = NULL;
        struct stat st;

        if (asprintf(&name, "%s/arena", path) < 0)
                return -ENOMEM;
        if (!known && unlink(name) < 0 && errno != ENOENT)
                return -errno;
        a->fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY, POOL_MODE);
        if (a->fd < 0 || fstat(a->fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode) || st.st_uid != geteuid())
                return -EEXIST;
        a->size = (size_t)st.st_size;
        a->fresh = a->size == 0;
        if (!a->fresh)
                return a->size % BL_ARENA_CHUNK == 0 ? 0 : -EIO;
        if (ftruncate(a->fd, (off_t)wanted) < 0)
                return -errno;
        a->size = wanted;
        return 0;
}

static int tmpfs_map(struct bl_arena *a)
{
        void *base = mmap(NULL, a->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, a->fd, 0);

        if (base == MAP_FAILED)
                return -errno;
        a->base = base;
        return 0;
}

/* --- System V --------------------------------------------------------------------- */

/* Is the segment one that we made, and alive? */
static int sysv_check(int id, struct shmid_ds *ret)
{
        struct shmid_ds ds;

        if (shmctl(id, IPC_STAT, &ds) < 0)
                return -errno;
        if (ds.shm_perm.cuid != geteuid() || ds.shm_perm.uid != geteuid() || (ds.shm_perm.mode & 077) != 0 ||
            (ds.shm_perm.mode & SHM_DEST) != 0)
                return -ENOENT;
        *ret = ds;
        return 0;
}

static int sysv_find(struct bl_arena *a, const struct record *rec)
{
        struct shmid_ds ds = {};
        const int id = shmget(rec->key, 0, 0);
        int r;

        if (id < 0)
                return -errno;
        r = sysv_check(id, &ds);
        if (r < 0)
                return r;
        a->shmid = id;
        a->size = ds.shm_segsz;
        return ds.shm_segsz > 0 && ds.shm_segsz % BL_ARENA_CHUNK == 0 ? 0 : -ENOENT;
}

static int sysv_make(struct bl_arena *a, const char *dir, struct record *rec)
{
        for (int i = 0; i < KEY_TRIES; i++) {
                int r;

                if (getrandom(&rec->key, sizeof(rec->key), 0) != sizeof(rec->key))
                        return -errno;
                if (rec->key == IPC_PRIVATE)
                        continue;
                r = write_record(dir, rec);
                if (r < 0)
                        return r;
                a->shmid = shmget(rec->key, rec->size, IPC_CREAT | IPC_EXCL | SHM_NORESERVE | POOL_MODE);
                if (a->shmid >= 0) {
                        a->size = rec->size;
                        a->fresh = true;
                        return 0;
                }
                if (errno != EEXIST)
                        return -errno;
        }
        return -EEXIST;
}

/* The lock is the segment's, and is looked after at each opening: an administrator may have undone it. */
static int sysv_map(struct bl_arena *a)
{
        void *base;

        if (shmctl(a->shmid, SHM_LOCK, NULL) < 0)
                return -errno;
        base = shmat(a->shmid, NULL, 0);
        if (base == (void *)-1)
                return -errno;
        a->base = base;
        return 0;
}

/* --- opening ----------------------------------------------------------------------- */

static struct bl_arena *arena_new(enum bl_arena_kind kind)
{
        struct bl_arena *a = calloc(1, sizeof(*a));

        if (!a)
                return NULL;
        a->kind = kind;
        a->lock_fd = a->fd = a->shmid = -1;
        return a;
}

/* What lies in it is guests' memory: not for core files, not for children. */
static int advise(struct bl_arena *a)
{
        /* what is locked by the page cannot be given back by MADV_REMOVE */
        (void)munlock(a->base, a->size);
        (void)madvise(a->base, a->size, MADV_NOHUGEPAGE); /* EINVAL: a kernel without */
        if (madvise(a->base, a->size, MADV_DONTDUMP) < 0)
                return -errno;
        if (a->kind != BL_ARENA_PRIVATE && madvise(a->base, a->size, MADV_DONTFORK) < 0)
                return -errno;
        return 0;
}

static int finish(struct bl_arena *a)
{
        int r = advise(a);

        if (r < 0)
                return r;
        a->populated = calloc(a->size / BL_ARENA_CHUNK, 1);
        if (!a->populated)
                return -ENOMEM;
        return a->fresh ? 0 : bl_arena_survey(a);
}

static int open_private(const struct bl_arena_options *o, uint64_t size, struct bl_arena **ret)
{
        _cleanup_(bl_arena_closep) struct bl_arena *a = arena_new(o->kind);
        void *base;
        int r;

        if (!a)
                return -ENOMEM;
        base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (base == MAP_FAILED)
                return -errno;
        a->base = base;
        a->size = size;
        a->fresh = true;
        r = finish(a);
        if (r < 0)
                return r;
        *ret = BL_TAKE(a);
        return 0;
}

/* The arena that the record speaks of.  -ENOENT: it is gone. */
static int open_known(struct bl_arena *a, const char *dir, const struct record *rec, uint64_t wanted)
{
        _cleanup_free_ char *path = NULL;
        int r;

        if (rec->kind == BL_ARENA_SYSV) {
                r = sysv_find(a, rec);
                return r < 0 ? r : sysv_map(a);
        }
        if (asprintf(&path, "%s/pool", dir) < 0)
                return -ENOMEM;
        r = is_noswap(path);
        if (r <= 0)
                return r < 0 ? r : -ENOENT;
        r = tmpfs_open(a, path, true, wanted);
        return r < 0 ? r : tmpfs_map(a);
}

static int make_tmpfs(struct bl_arena *a, const char *dir, struct record *rec, bool mount_anywhere)
{
        _cleanup_free_ char *path = NULL;
        int r;

        a->kind = rec->kind = BL_ARENA_TMPFS;
        r = tmpfs_prepare(dir, rec->size, mount_anywhere, &path);
        if (r < 0)
                return r;
        r = write_record(dir, rec);
        if (r < 0)
                return r;
        r = tmpfs_open(a, path, false, rec->size);
        return r < 0 ? r : tmpfs_map(a);
}

static int make_sysv(struct bl_arena *a, const char *dir, struct record *rec)
{
        int r;

        a->kind = rec->kind = BL_ARENA_SYSV;
        r = sysv_make(a, dir, rec);
        if (r < 0)
                return r;
        r = sysv_map(a);
        if (r < 0)
                (void)shmctl(a->shmid, IPC_RMID, NULL);
        return r;
}

static int make(struct bl_arena *a, const struct bl_arena_options *o, struct record *rec, char **ret_message)
{
        int r = -EOPNOTSUPP;

        if (o->kind != BL_ARENA_SYSV)
                r = make_tmpfs(a, o->dir, rec, o->kind == BL_ARENA_TMPFS);
        if (r == -EOPNOTSUPP && o->kind == BL_ARENA_TMPFS)
                return fail(r, ret_message, "cannot mount a tmpfs with noswap (Linux 6.4) at %s/pool", o->dir);
        if (r == -EOPNOTSUPP) {
                r = make_sysv(a, o->dir, rec);
                if (r == -EPERM || r == -ENOMEM)
                        return fail(
                                r, ret_message,
                                "cannot lock the pool's memory (shmctl: %s); it takes CAP_IPC_LOCK or a noswap tmpfs",
                                strerror(-r));
        }
        if (r < 0)
                return fail(r, ret_message, "cannot make the pool's memory in %s: %s", o->dir, strerror(-r));
        return 0;
}

/* What is recorded, if it is of this boot; else *ret_known is false. */
static int look_up(const struct bl_arena_options *o, struct record *ret, bool *ret_known, char **ret_message)
{
        char boot[sizeof(ret->boot)];
        int r = read_boot(boot);

        if (r < 0)
                return fail(r, ret_message, "cannot tell this boot of the host from others: %s", strerror(-r));
        r = read_record(o->dir, ret);
        if (r < 0 && r != -ENOENT)
                return fail(r, ret_message, "cannot read %s/arena: %s", o->dir, strerror(-r));
        *ret_known = r >= 0 && strcmp(ret->boot, boot) == 0;
        if (!*ret_known)
                memcpy(ret->boot, boot, sizeof(boot));
        return 0;
}

/* Tries what is known first.  What another version left is not ours to drop: VMs may live by it. */
static int attach(struct bl_arena *a, const struct bl_arena_options *o, const struct record *rec, uint64_t wanted,
                  char **ret_message)
{
        int r;

        a->kind = rec->kind;
        r = open_known(a, o->dir, rec, wanted);
        if (r == -ENOENT || r == -EIDRM || r == -EINVAL)
                return -ENOENT;
        if (r < 0)
                return fail(r, ret_message, "cannot open the pool's memory in %s: %s", o->dir, strerror(-r));
        if (rec->version != o->version)
                return fail(-EBADMSG, ret_message,
                            "the pool in %s is of another version (%" PRIu32 ", this is %" PRIu32
                            "): drain all VMs with that version, then 'ballast-store --remove'",
                            o->dir, rec->version, o->version);
        if (o->kind != BL_ARENA_AUTO && o->kind != rec->kind)
                return fail(-EEXIST, ret_message,
                            "the pool in %s is of another kind: drain all VMs, then 'ballast-store --remove'", o->dir);
        if (a->size != wanted)
                (void)fail(0, ret_message,
                           "the pool in %s stays at %zu MiB instead of %" PRIu64
                           " MiB: drain all VMs, then 'ballast-store --remove', to change it",
                           o->dir, a->size / BL_MIB, wanted / BL_MIB);
        return 0;
}

int bl_arena_open(const struct bl_arena_options *o, struct bl_arena **ret, char **ret_message)
{
        const uint64_t size = (o->size + BL_ARENA_CHUNK - 1) / BL_ARENA_CHUNK * BL_ARENA_CHUNK;
        _cleanup_(bl_arena_closep) struct bl_arena *a = NULL;
        _cleanup_free_ char *message = NULL;
        struct record rec = {};
        bool known = false;
        int r;

        if (o->size == 0 || size < o->size || size > INT64_MAX / 2)
                return -EINVAL;
        if (o->kind == BL_ARENA_PRIVATE)
                return open_private(o, size, ret);
        a = arena_new(o->kind);
        if (!a)
                return -ENOMEM;
        r = bl_fs_mkdir_p(o->dir, 0755);
        if (r < 0)
                return fail(r, ret_message, "cannot make %s: %s", o->dir, strerror(-r));
        r = lock(o->dir, o->lock_wait, &a->lock_fd, ret_message);
        if (r < 0)
                return r;
        r = look_up(o, &rec, &known, ret_message);
        if (r < 0)
                return r;
        r = known ? attach(a, o, &rec, size, &message) : -ENOENT;
        if (r == -ENOENT) {
                rec.size = size;
                rec.version = o->version;
                r = make(a, o, &rec, &message);
        }
        if (r >= 0)
                r = finish(a);
        if (message)
                *ret_message = BL_TAKE(message);
        if (r < 0)
                return r;
        *ret = BL_TAKE(a);
        return 0;
}

struct bl_arena *bl_arena_close(struct bl_arena *a)
{
        if (!a)
                return NULL;
        if (a->base && a->kind == BL_ARENA_SYSV)
                (void)shmdt(a->base);
        else if (a->base)
                (void)munmap(a->base, a->size);
        if (a->fd >= 0)
                (void)close(a->fd);
        free(a->populated);
        /* last: who takes it may map what was ours */
        if (a->lock_fd >= 0)
                (void)close(a->lock_fd);
        free(a);
        return NULL;
}

/* --- removal ------------------------------------------------------------------------ */

static int remove_name(const char *dir, const char *name)
{
        _cleanup_free_ char *path = NULL;

        if (asprintf(&path, "%s/%s", dir, name) < 0)
                return -ENOMEM;
        return remove(path) < 0 && errno != ENOENT ? -errno : 0;
}

static int remove_tmpfs(const char *dir)
{
        _cleanup_free_ char *path = NULL;
        int r;

        if (asprintf(&path, "%s/pool", dir) < 0)
                return -ENOMEM;
        r = is_noswap(path);
        if (r == -ENOENT)
                return 0;
        if (r > 0) {
                r = remove_name(path, "arena");
                if (r < 0)
                        return r;
                r = is_mount_point(path);
                if (r > 0 && umount2(path, UMOUNT_NOFOLLOW) < 0)
                        return -errno;
        }
        return r < 0 ? r : remove_name(dir, "pool");
}

static int remove_sysv(const struct record *rec)
{
        struct bl_arena a = {};
        const int r = sysv_find(&a, rec);

        if (r == -ENOENT || r == -EIDRM || r == -EINVAL || r == -EACCES)
                return 0;
        if (r < 0)
                return r;
        return shmctl(a.shmid, IPC_RMID, NULL) < 0 ? -errno : 0;
}

int bl_arena_remove(const char *dir, char **ret_message)
{
        const struct bl_arena_options o = {.dir = dir};
        _cleanup_close_ int lock_fd = -1;
        struct record rec = {};
        bool known = false;
        int r;

        if (access(dir, F_OK) < 0 && errno == ENOENT)
                return 0;
        r = lock(dir, 0, &lock_fd, ret_message);
        if (r < 0)
                return r;
        r = look_up(&o, &rec, &known, ret_message);
        if (r < 0)
                return r;
        if (known && rec.kind == BL_ARENA_SYSV)
                r = remove_sysv(&rec);
        if (r >= 0)
                r = remove_tmpfs(dir);
        if (r >= 0)
                r = remove_name(dir, "arena");
        if (r >= 0)
                r = remove_name(dir, "arena.lock");
        return r < 0 ? fail(r, ret_message, "cannot remove the pool in %s: %s", dir, strerror(-r)) : 0;
}

/* --- chunks ---------------------------------------------------------------------------- */

/* Every page of it is there and will not be waited for, or there is no memory: then as much as came stays. */
int bl_arena_populate(struct bl_arena *a, size_t i)
{
        if (i >= a->size / BL_ARENA_CHUNK)
                return -EINVAL;
        if (a->populated[i])
                return 0;
        while (madvise(a->base + i * BL_ARENA_CHUNK, BL_ARENA_CHUNK, MADV_POPULATE_WRITE) < 0) {
                if (errno == EINTR || errno == EAGAIN)
                        continue;
                /* EFAULT: what would have been SIGBUS, a tmpfs that is full */
                return errno == EFAULT ? -ENOMEM : -errno;
        }
        a->populated[i] = 1;
        return 0;
}

int bl_arena_release(struct bl_arena *a, size_t i)
{
        const off_t at = (off_t)(i * BL_ARENA_CHUNK);

        if (i >= a->size / BL_ARENA_CHUNK)
                return -EINVAL;
        if (a->fd >= 0) {
                if (fallocate(a->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, BL_ARENA_CHUNK) < 0)
                        return -errno;
        } else if (madvise(a->base + at, BL_ARENA_CHUNK, MADV_REMOVE) < 0) {
                return -errno;
        }
        a->populated[i] = 0;
        return 0;
}

bool bl_arena_is_populated(const struct bl_arena *a, size_t i)
{
        return i < a->size / BL_ARENA_CHUNK && a->populated[i];
}

/* mincore(2) says of shared memory whether a page exists, mapped here or not. */
int bl_arena_survey(struct bl_arena *a)
{
        unsigned char there[BL_ARENA_CHUNK / PAGE];

        for (size_t i = 0; i < a->size / BL_ARENA_CHUNK; i++) {
                if (mincore(a->base + i * BL_ARENA_CHUNK, BL_ARENA_CHUNK, there) < 0)
                        return -errno;
                a->populated[i] = 1;
                for (size_t k = 0; k < sizeof(there); k++)
                        if ((there[k] & 1) == 0)
                                a->populated[i] = 0;
        }
        return 0;
}
