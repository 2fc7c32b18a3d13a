/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tiers.json, and swap's header. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "daemon/ctl/tiers.h"
#include "daemon/util/fs.h"
#include "daemon/virt/proc.h"

#define RECORD_VERSION 1
#define RECORD_MAX     (64 * BL_KIB)

int ctl_tiers_say(struct ctl_tiers *t, int r, const char *format, ...)
{
        _cleanup_free_ char *line = NULL;
        char *all = NULL;
        va_list ap;

        va_start(ap, format);
        if (vasprintf(&line, format, ap) < 0)
                line = NULL;
        va_end(ap);
        if (line && asprintf(&all, "%s%s%s", t->said ? t->said : "", t->said ? "; " : "", line) >= 0) {
                free(t->said);
                t->said = all;
        }
        return r;
}

void ctl_tiers_read(const struct ctl_tiers *t, const char *path, char *ret, size_t size)
{
        if (bl_fs_read(t->root, path, ret, size) < 0)
                ret[0] = '\0';
        ret[strcspn(ret, "\n")] = '\0';
}

int ctl_tiers_write(const struct ctl_tiers *t, const char *path, const char *value)
{
        char full[PATH_MAX];
        int r = bl_path_join(full, sizeof full, t->root, path);

        return r < 0 ? r : t->ops->write(full, value);
}

/* --- the file --------------------------------------------------------------- */

static void boot_id(const struct ctl_tiers *t, char ret[64])
{
        ctl_tiers_read(t, "/proc/sys/kernel/random/boot_id", ret, 64);
}

static int save(struct ctl_tiers *t)
{
        _cleanup_free_ char *text = NULL;
        char path[PATH_MAX], boot[64];
        json_t *d;
        int r;

        (void)snprintf(path, sizeof path, "%s/tiers.json", t->state_dir);
        if (json_array_size(t->changes) == 0)
                return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
        boot_id(t, boot);
        d = json_pack("{s:i, s:s, s:O}", "version", RECORD_VERSION, "boot_id", boot, "changes", t->changes);
        text = d ? json_dumps(d, JSON_INDENT(2)) : NULL;
        json_decref(d);
        r = text ? bl_fs_write_atomic(path, text, strlen(text), 0600, true) : -ENOMEM;
        return r < 0 ? ctl_tiers_say(t, r, "cannot write %s: %s", path, strerror(-r)) : 0;
}

/* What does not outlive the host is void on another boot: a swap file does, swapped on or not. */
static void drop_void(struct ctl_tiers *t)
{
        for (size_t i = json_array_size(t->changes); i-- > 0;) {
                const char *what = json_string_value(json_object_get(json_array_get(t->changes, i), "what"));

                if (!what || strcmp(what, "swapfile") != 0)
                        (void)json_array_remove(t->changes, i);
        }
}

static int load(struct ctl_tiers *t)
{
        char path[PATH_MAX], boot[64];
        _cleanup_free_ char *text = NULL;
        const char *then;
        json_t *d, *changes;
        int r;

        (void)snprintf(path, sizeof path, "%s/tiers.json", t->state_dir);
        r = bl_fs_read_alloc(path, RECORD_MAX, &text, NULL);
        if (r == -ENOENT) {
                t->changes = json_array();
                return t->changes ? 0 : -ENOMEM;
        }
        if (r < 0)
                return ctl_tiers_say(t, r, "cannot read %s: %s", path, strerror(-r));
        d = json_loads(text, 0, NULL);
        changes = json_object_get(d, "changes");
        then = json_string_value(json_object_get(d, "boot_id"));
        if (!json_is_array(changes) || !then || json_integer_value(json_object_get(d, "version")) != RECORD_VERSION) {
                json_decref(d);
                return ctl_tiers_say(t, -EBADMSG,
                                     "%s cannot be understood: look at 'swapon --show', undo by hand what is not "
                                     "wanted, and remove the file",
                                     path);
        }
        t->changes = json_incref(changes);
        boot_id(t, boot);
        if (strcmp(then, boot) != 0)
                drop_void(t);
        json_decref(d);
        return 0;
}

int ctl_tiers_open(struct ctl_tiers *t)
{
        char path[PATH_MAX];
        int r;

        t->lock = -1;
        r = bl_fs_mkdir_p(t->state_dir, 0700);
        if (r < 0)
                return ctl_tiers_say(t, r, "cannot make %s: %s", t->state_dir, strerror(-r));
        (void)snprintf(path, sizeof path, "%s/tiers.lock", t->state_dir);
        t->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (t->lock < 0)
                return ctl_tiers_say(t, -errno, "cannot open %s: %s", path, strerror(errno));
        if (flock(t->lock, LOCK_EX | LOCK_NB) < 0)
                return ctl_tiers_say(t, -EBUSY, "another 'ballastctl tiers' is at it; try again when it has ended");
        return load(t);
}

void ctl_tiers_close(struct ctl_tiers *t)
{
        bl_closep(&t->lock);
        json_decref(t->changes);
        free(t->said);
        t->changes = NULL;
        t->said = NULL;
}

int ctl_tiers_record(struct ctl_tiers *t, json_t *change)
{
        return json_array_append_new(t->changes, change) < 0 ? -ENOMEM : save(t);
}

int ctl_tiers_forget_last(struct ctl_tiers *t)
{
        (void)json_array_remove(t->changes, json_array_size(t->changes) - 1);
        return save(t);
}

const json_t *ctl_tiers_find(const struct ctl_tiers *t, const char *what)
{
        const json_t *c;
        size_t i;

        json_array_foreach(t->changes, i, c)
        {
                const char *s = json_string_value(json_object_get(c, "what"));

                if (s && strcmp(s, what) == 0)
                        return c;
        }
        return NULL;
}

/* --- swap's header ---------------------------------------------------------- */

struct header {
        char boot[1024];
        uint32_t version;
        uint32_t last_page;
        uint32_t n_bad;
        uint8_t uuid[16];
        char label[16];
};
/* At the end of the first page; no NUL. */
static const char signature[10] = {'S', 'W', 'A', 'P', 'S', 'P', 'A', 'C', 'E', '2'};

int ctl_swap_format(int fd, uint64_t size, const char *uuid)
{
        const size_t page = (size_t)sysconf(_SC_PAGESIZE);
        _cleanup_free_ char *buf = calloc(1, page);
        struct header h = {.version = 1, .last_page = (uint32_t)(size / page - 1), .label = "ballast-tier"};
        ssize_t n;

        if (!buf)
                return -ENOMEM;
        if (size / page < 10 || size / page - 1 > UINT32_MAX || bl_uuid_from_string(uuid, h.uuid) < 0)
                return -EINVAL;
        memcpy(buf, &h, sizeof h);
        memcpy(buf + page - sizeof signature, signature, sizeof signature);
        n = pwrite(fd, buf, page, 0);
        if (n != (ssize_t)page)
                return n < 0 ? -errno : -EIO;
        return fsync(fd) < 0 ? -errno : 0;
}

int ctl_swap_uuid(const char *path, char ret[37])
{
        const size_t page = (size_t)sysconf(_SC_PAGESIZE);
        _cleanup_free_ char *buf = malloc(page);
        _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        struct header h;
        ssize_t n;

        if (!buf)
                return -ENOMEM;
        if (fd < 0)
                return -errno;
        n = pread(fd, buf, page, 0);
        if (n < 0)
                return -errno;
        if (n != (ssize_t)page || memcmp(buf + page - sizeof signature, signature, sizeof signature) != 0)
                return 0;
        memcpy(&h, buf, sizeof h);
        bl_uuid_to_string(h.uuid, ret);
        return 1;
}
