/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The ledger in memory, its lock and its life; ledger_file.c has the file's form. */
#include "daemon/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/fault.h"
#include "daemon/ledger_file.h"
#include "daemon/sense/balloon_watch.h"
#include "daemon/util/clock.h"
#include "daemon/util/fs.h"

/* A ledger of 10,000 VMs has some 10 MB. */
#define FILE_SIZE_MAX ((size_t)64 * 1024 * 1024)
#define BAD_FILES_MAX 1000

struct bl_ledger {
        int dir_fd;
        int lock_fd;
        char *path;
        enum bl_ledger_found found;
        bool dirty;
        bool dirty_durable; /* an earlier durable save failed */
        struct bl_ledger_data d;
};

static int say(char **ret_message, const char *format, ...) __attribute__((format(printf, 2, 3)));

static int say(char **ret_message, const char *format, ...)
{
        va_list ap;
        char *s = NULL;
        int n;

        va_start(ap, format);
        n = vasprintf(&s, format, ap);
        va_end(ap);
        if (n < 0)
                return -ENOMEM;
        free(*ret_message);
        *ret_message = s;
        return 0;
}

/* --- the state directory -------------------------------------------------------------- */

static int lock_dir(struct bl_ledger *l, const char *state_dir, char **ret_message)
{
        char buf[32];
        int r, n;

        l->dir_fd = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (l->dir_fd < 0) {
                r = -errno;
                (void)say(ret_message, "the state directory %s cannot be opened: %s", state_dir, strerror(-r));
                return r;
        }
        l->lock_fd = openat(l->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (l->lock_fd < 0) {
                r = -errno;
                (void)say(ret_message, "the state directory %s cannot be written to: %s", state_dir, strerror(-r));
                return r;
        }
        if (flock(l->lock_fd, LOCK_EX | LOCK_NB) < 0) {
                ssize_t len;

                r = errno == EWOULDBLOCK ? -EBUSY : -errno;
                len = pread(l->lock_fd, buf, sizeof(buf) - 1, 0);
                buf[len > 0 ? len : 0] = '\0';
                buf[strcspn(buf, "\n")] = '\0';
                (void)say(ret_message,
                          "another ballastd (process %s) uses the state directory %s: two would work against each "
                          "other; stop it, or give this one a state directory of its own",
                          *buf ? buf : "unknown", state_dir);
                return r;
        }
        n = snprintf(buf, sizeof(buf), "%d\n", (int)getpid());
        if (ftruncate(l->lock_fd, 0) < 0 || pwrite(l->lock_fd, buf, (size_t)n, 0) != n) {
                r = -errno;
                (void)say(ret_message, "the state directory %s cannot be written to: %s", state_dir, strerror(-r));
                return r;
        }
        return 0;
}

/* Renames the file to the first free ledger.json.bad-N. */
static int keep_aside(struct bl_ledger *l, char *ret_name, size_t size)
{
        for (int i = 1; i <= BAD_FILES_MAX; i++) {
                (void)snprintf(ret_name, size, "ledger.json.bad-%d", i);
                if (renameat2(l->dir_fd, "ledger.json", l->dir_fd, ret_name, RENAME_NOREPLACE) == 0)
                        return 0;
                if (errno == EEXIST)
                        continue;
                /* a file system that knows no flags */
                if (errno == EINVAL && faccessat(l->dir_fd, ret_name, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
                        return renameat(l->dir_fd, "ledger.json", l->dir_fd, ret_name) < 0 ? -errno : 0;
                if (errno != EINVAL)
                        return -errno;
        }
        return -EEXIST;
}

static uint64_t choose_phase(void)
{
        uint64_t seed = 0;

        if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) != sizeof(seed))
                seed = bl_now() ^ (uint64_t)getpid();
        return bl_watch_phase(seed);
}

static int start_empty(struct bl_ledger *l, const char *boot_id)
{
        bl_ledger_data_clear(&l->d);
        l->d.boot_id = strdup(boot_id);
        if (!l->d.boot_id)
                return -ENOMEM;
        l->d.act = -1;
        l->d.trusted = true;
        l->d.phase = choose_phase();
        l->dirty = true;
        return 0;
}

/* Nothing that was done to it is to be undone, or recognised. */
static void void_changes(struct bl_ledger *l, struct bl_ledger_vm *v)
{
        v->original = BL_UNSET;
        v->original_period = -1;
        v->n_targets = 0;
        l->dirty = true;
}

static bool void_merge(struct bl_ledger *l, struct bl_ledger_vm *v)
{
        bool had = v->merge_was >= 0;

        v->merge_was = -1;
        v->merge_of = (struct bl_instance){0};
        l->dirty = l->dirty || had;
        return had;
}

/* The host booted since: no VM of then runs now. */
static int host_booted(struct bl_ledger *l, const char *boot_id)
{
        char *id = strdup(boot_id);

        if (!id)
                return -ENOMEM;
        free(l->d.boot_id);
        l->d.boot_id = id;
        while (l->d.n_knobs > 0)
                bl_ledger_data_remove_knob(&l->d, l->d.n_knobs - 1);
        for (size_t i = l->d.n; i-- > 0;) {
                struct bl_ledger_vm *v = l->d.vms[i];

                void_changes(l, v);
                (void)void_merge(l, v);
                v->instance = v->drained = (struct bl_instance){0};
                if (v->hold != BL_HOLD_ADMIN)
                        bl_ledger_data_remove(&l->d, i);
        }
        l->dirty = true;
        return 0;
}

/* A bad file is no error of ours; what cannot be kept aside is. */
static int bad_file(struct bl_ledger *l, const char *boot_id, const char *why, char **ret_message)
{
        char name[64];
        int r;

        r = keep_aside(l, name, sizeof(name));
        if (r < 0) {
                (void)say(ret_message, "%s %s, and it cannot be kept aside: %s", l->path, why, strerror(-r));
                return r;
        }
        r = start_empty(l, boot_id);
        if (r < 0)
                return r;
        l->d.trusted = false;
        return say(ret_message,
                   "%s %s; it is kept as %s.  What was changed before is not known, so nothing is done by itself: look "
                   "at the VMs' balloons with 'ballastctl list', then go on with 'ballastctl act on'",
                   l->path, why, name);
}

static int load(struct bl_ledger *l, const char *boot_id, char **ret_message)
{
        _cleanup_free_ char *text = NULL, *why = NULL;
        char sentence[512];
        size_t len;
        int r;

        r = bl_fs_read_alloc(l->path, FILE_SIZE_MAX, &text, &len);
        if (r == -ENOENT) {
                l->found = BL_LEDGER_NONE;
                return start_empty(l, boot_id);
        }
        if (r < 0 && r != -EFBIG) {
                (void)say(ret_message, "%s cannot be read: %s", l->path, strerror(-r));
                return r;
        }
        l->found = r == -EFBIG ? BL_LEDGER_DAMAGED : bl_ledger_data_parse(text, len, &l->d, &why);
        switch (l->found) {
        case BL_LEDGER_NONE:
        case BL_LEDGER_READ:
                return strcmp(l->d.boot_id, boot_id) == 0 ? 0 : host_booted(l, boot_id);
        case BL_LEDGER_DAMAGED:
                (void)snprintf(sentence, sizeof(sentence), "is damaged (%s)", why ?: "too large");
                break;
        case BL_LEDGER_NEWER:
                (void)snprintf(sentence, sizeof(sentence), "was written by a newer ballastd (%s)", why ?: "?");
                break;
        case BL_LEDGER_INVALID:
                (void)snprintf(sentence, sizeof(sentence), "makes no sense (%s)", why ?: "?");
                break;
        }
        return bad_file(l, boot_id, sentence, ret_message);
}

static int read_boot_id(char *buf, size_t size)
{
        ssize_t n = bl_fs_read(NULL, "/proc/sys/kernel/random/boot_id", buf, size);

        if (n < 0)
                return (int)n;
        buf[strcspn(buf, "\n")] = '\0';
        return 0;
}

int bl_ledger_open(const char *state_dir, const char *boot_id, struct bl_ledger **ret, char **ret_message)
{
        _cleanup_(bl_ledger_freep) struct bl_ledger *l = calloc(1, sizeof(*l));
        _cleanup_free_ char *message = NULL;
        char id[64];
        int r;

        *ret_message = NULL;
        if (!l)
                return -ENOMEM;
        l->dir_fd = l->lock_fd = -1;
        if (!boot_id) {
                r = read_boot_id(id, sizeof(id));
                if (r < 0)
                        return r;
                boot_id = id;
        }
        if (asprintf(&l->path, "%s/ledger.json", state_dir) < 0) {
                l->path = NULL;
                return -ENOMEM;
        }
        r = lock_dir(l, state_dir, &message);
        if (r == 0)
                r = load(l, boot_id, &message);
        *ret_message = BL_TAKE(message);
        if (r < 0)
                return r;
        *ret = BL_TAKE(l);
        return 0;
}

struct bl_ledger *bl_ledger_free(struct bl_ledger *l)
{
        if (!l)
                return NULL;
        bl_ledger_data_clear(&l->d);
        bl_closep(&l->lock_fd); /* ends the lock */
        bl_closep(&l->dir_fd);
        free(l->path);
        free(l);
        return NULL;
}

/* --- saving --------------------------------------------------------------------------- */

static int write_all(int fd, const char *s, size_t len)
{
        while (len > 0) {
                ssize_t n = write(fd, s, len);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                s += n;
                len -= (size_t)n;
        }
        return 0;
}

static int write_tmp(const struct bl_ledger *l, const char *text, size_t len, bool durable)
{
        _cleanup_close_ int fd = -1;
        int r;

        fd = openat(l->dir_fd, "ledger.json.tmp", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return -errno;
        r = write_all(fd, text, len);
        if (r == 0 && durable && fsync(fd) < 0)
                r = -errno;
        return r;
}

int bl_ledger_save(struct bl_ledger *l, bool durable)
{
        _cleanup_free_ char *text = NULL;
        size_t len;
        int r;

        durable = durable || l->dirty_durable;
        if (!l->dirty)
                return 0;
        l->dirty_durable = durable;
        r = bl_fault(BL_FAULT_LEDGER_BEFORE_WRITE);
        if (r < 0)
                return r;
        r = bl_ledger_data_format(&l->d, &text, &len);
        if (r < 0)
                return r;
        r = write_tmp(l, text, len, durable);
        if (r == 0)
                r = bl_fault(BL_FAULT_LEDGER_TMP_WRITTEN);
        if (r == 0 && renameat(l->dir_fd, "ledger.json.tmp", l->dir_fd, "ledger.json") < 0)
                r = -errno;
        if (r < 0) {
                (void)unlinkat(l->dir_fd, "ledger.json.tmp", 0);
                return r;
        }
        r = bl_fault(BL_FAULT_LEDGER_RENAMED);
        if (r < 0)
                return r;
        if (durable && fsync(l->dir_fd) < 0)
                return -errno;
        l->dirty = l->dirty_durable = false;
        return 0;
}

/* --- settings ------------------------------------------------------------------------- */

enum bl_ledger_found bl_ledger_found(const struct bl_ledger *l)
{
        return l->found;
}

bool bl_ledger_trusted(const struct bl_ledger *l)
{
        return l->d.trusted;
}

void bl_ledger_trust(struct bl_ledger *l)
{
        l->dirty = l->dirty || !l->d.trusted;
        l->d.trusted = true;
}

int bl_ledger_act(const struct bl_ledger *l)
{
        return l->d.act;
}

void bl_ledger_set_act(struct bl_ledger *l, int act)
{
        l->dirty = l->dirty || l->d.act != act;
        l->d.act = act;
}

bool bl_ledger_held(const struct bl_ledger *l)
{
        return l->d.held;
}

void bl_ledger_set_held(struct bl_ledger *l, bool held)
{
        l->dirty = l->dirty || l->d.held != held;
        l->d.held = held;
}

enum bl_ledger_rollback bl_ledger_rollback(const struct bl_ledger *l)
{
        return l->d.rollback;
}

void bl_ledger_set_rollback(struct bl_ledger *l, enum bl_ledger_rollback r)
{
        l->dirty = l->dirty || l->d.rollback != r;
        l->d.rollback = r;
}

uint64_t bl_ledger_phase(const struct bl_ledger *l)
{
        return l->d.phase;
}

const char *bl_ledger_path(const struct bl_ledger *l)
{
        return l->path;
}

/* --- knobs of the host ---------------------------------------------------------------- */

static size_t knob_index(const struct bl_ledger *l, const char *path)
{
        size_t i = 0;

        while (i < l->d.n_knobs && strcmp(l->d.knobs[i].path, path) != 0)
                i++;
        return i;
}

static struct bl_ledger_knob *find_knob(struct bl_ledger *l, const char *path)
{
        size_t i = knob_index(l, path);

        return i < l->d.n_knobs ? &l->d.knobs[i] : NULL;
}

const struct bl_ledger_knob *bl_ledger_find_knob(const struct bl_ledger *l, const char *path)
{
        size_t i = knob_index(l, path);

        return i < l->d.n_knobs ? &l->d.knobs[i] : NULL;
}

size_t bl_ledger_count_knobs(const struct bl_ledger *l)
{
        return l->d.n_knobs;
}

int bl_ledger_begin_knob(struct bl_ledger *l, const char *path, const char *from, const char *to)
{
        struct bl_ledger_knob *k = find_knob(l, path);
        _cleanup_free_ char *before = NULL, *ours = NULL;
        int r;

        if (!k) {
                r = bl_ledger_data_add_knob(&l->d, path, from, to, from);
                l->dirty = l->dirty || r == 0;
                return r;
        }
        before = strdup(from);
        ours = strdup(to);
        if (!before || !ours)
                return -ENOMEM;
        free(k->before);
        free(k->ours);
        k->before = BL_TAKE(before);
        k->ours = BL_TAKE(ours);
        l->dirty = true;
        return 0;
}

int bl_ledger_end_knob(struct bl_ledger *l, const char *path)
{
        struct bl_ledger_knob *k = find_knob(l, path);

        if (!k)
                return -ENOENT;
        l->dirty = l->dirty || k->before;
        free(BL_TAKE(k->before));
        return 0;
}

int bl_ledger_forget_knob(struct bl_ledger *l, const char *path)
{
        struct bl_ledger_knob *k = find_knob(l, path);

        if (!k)
                return -ENOENT;
        bl_ledger_data_remove_knob(&l->d, (size_t)(k - l->d.knobs));
        l->dirty = true;
        return 0;
}

/* --- VMs ------------------------------------------------------------------------------ */

static struct bl_ledger_vm *find(const struct bl_ledger *l, const uint8_t uuid[BL_UUID_LEN], size_t *ret_i)
{
        for (size_t i = 0; i < l->d.n; i++)
                if (memcmp(l->d.vms[i]->uuid, uuid, BL_UUID_LEN) == 0) {
                        if (ret_i)
                                *ret_i = i;
                        return l->d.vms[i];
                }
        return NULL;
}

const struct bl_ledger_vm *bl_ledger_find(const struct bl_ledger *l, const uint8_t uuid[BL_UUID_LEN])
{
        return find(l, uuid, NULL);
}

size_t bl_ledger_count(const struct bl_ledger *l)
{
        return l->d.n;
}

const struct bl_ledger_vm *bl_ledger_get(const struct bl_ledger *l, size_t i)
{
        return i < l->d.n ? l->d.vms[i] : NULL;
}

static int replace(char **s, const char *with)
{
        char *copy = with ? strdup(with) : NULL;

        if (with && !copy)
                return -ENOMEM;
        free(*s);
        *s = copy;
        return 0;
}

int bl_ledger_set_name(struct bl_ledger *l, const uint8_t uuid[BL_UUID_LEN], const char *name)
{
        struct bl_ledger_vm *v = find(l, uuid, NULL);

        if (!v)
                return -ENOENT;
        if (v->name && strcmp(v->name, name) == 0)
                return 0;
        l->dirty = true;
        return replace(&v->name, name);
}

int bl_ledger_add(struct bl_ledger *l, const uint8_t uuid[BL_UUID_LEN], const char *name,
                  const struct bl_ledger_vm **ret)
{
        struct bl_ledger_vm *v = find(l, uuid, NULL);
        int r;

        if (v) {
                r = name ? bl_ledger_set_name(l, uuid, name) : 0;
                if (r < 0)
                        return r;
        } else {
                r = bl_ledger_data_add(&l->d, uuid, name ?: "", &v);
                if (r < 0)
                        return r;
                l->dirty = true;
        }
        if (ret)
                *ret = v;
        return 0;
}

bool bl_ledger_vm_dirty(const struct bl_ledger_vm *v)
{
        return v->original != BL_UNSET || v->original_period >= 0 || v->merge_was >= 0;
}

int bl_ledger_set_instance(struct bl_ledger *l, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *i,
                           enum bl_ledger_birth birth, uint64_t actual)
{
        struct bl_ledger_vm *v = find(l, uuid, NULL);
        const struct bl_ledger_target *last;
        bool keep, had, had_merge = false;

        if (!v)
                return -ENOENT;
        if (bl_instance_equal(&v->instance, i))
                return 0;
        last = v->n_targets > 0 ? &v->targets[v->n_targets - 1] : NULL;
        had = v->n_targets > 0 || v->original != BL_UNSET || v->original_period >= 0;
        keep = birth != BL_BIRTH_BOOTED && last && actual == last->to;
        /* a VM whose process was not known before is no other one */
        keep = keep || (v->instance.pid == 0 && birth == BL_BIRTH_SEEN);
        v->instance = *i;
        if (!bl_instance_equal(&v->drained, i))
                v->drained = (struct bl_instance){0};
        /* it is a property of the process, and does not migrate */
        if (!bl_instance_equal(&v->merge_of, i))
                had_merge = void_merge(l, v);
        l->dirty = true;
        if (!keep)
                void_changes(l, v);
        if (birth == BL_BIRTH_BOOTED && (v->hold == BL_HOLD_HAND || v->hold == BL_HOLD_MANUAL))
                return bl_ledger_set_hold(l, uuid, BL_HOLD_NONE, NULL, 0) < 0 ? -ENOMEM : had || had_merge;
        return (had && !keep) || had_merge;
}

int bl_ledger_set_original(struct bl_ledger *l, const uint8_t uuid[BL_UUID_LEN], uint64_t bytes)
{
        struct bl_ledger_vm *v = find(l, uuid, NULL);

        if (!v)
                return -ENOENT;
        if (v->original != BL_UNSET)
                return 0;
        v->original = bytes;
        l->dirty = true;
        return 1;
}

int bl_ledger_set_original_period(struct bl_ledger *l, const uint8_t uuid[BL_UUID_LEN], int seconds)
{
        struct bl_ledger_vm *v = find(l, uuid, NULL);

        if (!v)
                return -ENOENT;
        if (v->original_period >= 0)
                return 0;
        v->original_period = seconds;
        l->dirty = true;
        return 1;
}

int bl_ledger_forget_original(struct bl_ledger *l, const uint8_t uuid[BL_UUID_LEN])
{
        struct bl_ledger_vm *v = find(l, uuid, NULL);

        if (!v)
                return -ENOENT;
        l->dirty = l->dirty || v->original != BL_UNSET;
        v->original = BL_UNSET;
        return 0;
}

int bl_ledger_forget_original_period(struct bl_ledger *l, const uint8_t uuid[BL_UUID_LEN])
{
        struct bl_ledger_vm *v = find(l, uuid, NULL);

        if (!v)
                return -ENOENT;
        l->dirty = l->dirty || v->original_period >= 0;
        v->original_period = -1;
        return 0;
}

static void drop_target(struct bl_ledger_vm *v, size_t i)
{
        memmove(&v->targets[i], &v->targets[i + 1], (v->n_targets - i - 1) * sizeof(v->targets[0]));
        v->n_targets--;
}

int bl_ledger_begin(struct bl_ledger *l, const uint8_t uuid[BL_UUID_LEN], uint64_t from, uint64_t to, usec_t at_wall)
{
        struct bl_ledger_vm *v = find(l, uuid, NULL);

        if (!v)
                return -ENOENT;
        if (v->n_targets == BL_LEDGER_TARGETS)
                drop_target(v, 0);
        v->targets[v->n_targets++] = (struct bl_ledger_target){
                .from = from,
                .to = to,
                .at_wall = at_wall,
                .state = BL_TARGET_IN_FLIGHT,
        };
        l->dirty = true;
        return 0;
}

int bl_ledger_end(struct bl_ledger *l, const uint8_t uuid[BL_UUID_LEN], uint64_t to, bool refused,
                  enum bl_ledger_target_state state)
{
        struct bl_ledger_vm *v = find(l, uuid, NULL);

        if (!v)
                return -ENOENT;
        for (size_t i = v->n_targets; i-- > 0;) {
                if (v->targets[i].to != to || v->targets[i].state != BL_TARGET_IN_FLIGHT)
                        continue;
                if (refused)
                        drop_target(v, i);
                else
                        v->targets[i].state = state;
                l->dirty = true;
                return 0;
        }
        return 0;
}

int bl_ledger_forget_targets(struct bl_ledger *l, const uint8_t uuid[BL_UUID_LEN])
{
        struct bl_ledger_vm *v = find(l, uuid, NULL);

        if (!v)
                return -ENOENT;
        l->dirty = l->dirty || v->n_targets > 0;
        v->n_targets = 0;
        return 0;
}

int bl_ledger_set_hold(struct bl_ledger *l, const uint8_t uuid[BL_UUID_LEN], enum bl_hold hold, const char *reason,
                       usec_t at_wall)
{
        struct bl_ledger_vm *v = find(l, uuid, NULL);
        int r;

        if (!v)
                return -ENOENT;
        r = replace(&v->hold_reason, hold == BL_HOLD_NONE ? NULL : reason);
        if (r < 0)
                return r;
        v->hold = hold;
        v->hold_at_wall = hold == BL_HOLD_NONE ? 0 : at_wall;
        l->dirty = true;
        return 0;
}

int bl_ledger_set_drained(struct bl_ledger *l, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *i)
{
        const struct bl_instance to = i ? *i : (struct bl_instance){0};
        struct bl_ledger_vm *v = find(l, uuid, NULL);

        if (!v)
                return -ENOENT;
        l->dirty = l->dirty || !bl_instance_equal(&v->drained, &to);
        v->drained = to;
        return 0;
}

int bl_ledger_set_merge_was(struct bl_ledger *l, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *i, bool was)
{
        struct bl_ledger_vm *v = find(l, uuid, NULL);

        if (!v)
                return -ENOENT;
        if (v->merge_was >= 0 && bl_instance_equal(&v->merge_of, i))
                return 0;
        v->merge_was = was;
        v->merge_of = *i;
        l->dirty = true;
        return 1;
}

int bl_ledger_forget_merge_was(struct bl_ledger *l, const uint8_t uuid[BL_UUID_LEN])
{
        struct bl_ledger_vm *v = find(l, uuid, NULL);

        if (!v)
                return -ENOENT;
        (void)void_merge(l, v);
        return 0;
}

void bl_ledger_gone(struct bl_ledger *l, const uint8_t uuid[BL_UUID_LEN], bool defined)
{
        size_t i;
        struct bl_ledger_vm *v = find(l, uuid, &i);

        if (!v)
                return;
        l->dirty = true;
        if (!defined || v->hold != BL_HOLD_ADMIN) {
                bl_ledger_data_remove(&l->d, i);
                return;
        }
        void_changes(l, v);
        (void)void_merge(l, v);
        v->instance = v->drained = (struct bl_instance){0};
}
