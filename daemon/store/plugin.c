/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The store behind NBD: an nbdkit plugin (nbdkit-plugin(3)).  ballast-store(8) starts
 * nbdkit with it.
 *
 * It ends by being killed, always: nbdkit, asked to end, answers what is under way
 * with ESHUTDOWN, which a guest would see as a broken disk.  A connection that
 * breaks, QEMU makes anew, and sends again what was not answered.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "daemon/store/arena.h"
#include "daemon/store/control_server.h"
#include "daemon/store/disk.h"
#include "daemon/store/layout.h"
#include "daemon/store/notify.h"
#include "daemon/store/peers.h"
#include "daemon/store/store.h"
#include "daemon/store/upkeep.h"
#include "daemon/util/clock.h"
#include "daemon/util/fields.h"
#include "daemon/util/fs.h"
#include "daemon/util/size.h"
#include "daemon/util/uuid.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

/* nbdkit keeps a buffer of the largest request in each thread of a connection. */
#define REQUEST_MAX ((uint32_t)(128 * BL_KIB))
#define OPEN_WAIT   (5 * BL_SEC) /* for the connection before */
#define LOCK_WAIT   (10 * BL_SEC) /* for the store before */
#define SAY_EVERY   BL_SEC
#define EXTENTS_MAX 1024U /* in an answer; the client asks on from there */

static struct {
        const char *dir, *disk_path;
        uint64_t pool, disk_size, ready;
        enum bl_arena_kind kind;
        int control_fd;
} config = {.control_fd = -1};

static struct bl_store *store;
static struct bl_peers *peers;
static struct bl_upkeep *upkeep;
static struct bl_control_server *control;
static struct bl_events events;
static uint64_t code; /* our share of the mapped files, bytes */

/* nbdkit's own log tells of every client that goes too early: ballast-store turns it off. */
__attribute__((format(printf, 1, 0))) static void say_list(const char *format, va_list ap)
{
        char text[512];

        (void)vsnprintf(text, sizeof(text), format, ap);
        (void)fprintf(stderr, "ballast-store: %s\n", text);
}

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
        va_list ap;

        va_start(ap, format);
        say_list(format, ap);
        va_end(ap);
}

/* --- parameters ------------------------------------------------------------------- */

static void plugin_load(void)
{
        /* one heap, that gives back what is free: this process is to be small, and rarely allocates */
        (void)mallopt(M_ARENA_MAX, 1);
        (void)mallopt(M_MMAP_THRESHOLD, (int)(128 * BL_KIB));
        (void)mallopt(M_TRIM_THRESHOLD, (int)(128 * BL_KIB));
}

static int parse_size(const char *key, const char *value, uint64_t *ret)
{
        if (bl_size_parse(value, ret) >= 0)
                return 0;
        say("%s=%s is not a size", key, value);
        return -1;
}

static int parse_fd(const char *key, const char *value, int *ret)
{
        uint64_t fd;

        if (bl_uint_parse(value, &fd) >= 0 && fd <= INT_MAX) {
                *ret = (int)fd;
                return 0;
        }
        say("%s=%s is not a descriptor", key, value);
        return -1;
}

static int parse_kind(const char *value)
{
        static const char *const names[] = {
                [BL_ARENA_AUTO] = "auto", [BL_ARENA_TMPFS] = "tmpfs", [BL_ARENA_SYSV] = "sysv"};

        for (unsigned i = 0; i < sizeof(names) / sizeof(*names); i++)
                if (strcmp(value, names[i]) == 0) {
                        config.kind = (enum bl_arena_kind)i;
                        return 0;
                }
        say("arena=%s is none of auto, tmpfs, sysv", value);
        return -1;
}

static int plugin_config(const char *key, const char *value)
{
        if (strcmp(key, "dir") == 0) {
                config.dir = value;
                return 0;
        }
        if (strcmp(key, "pool") == 0)
                return parse_size(key, value, &config.pool);
        if (strcmp(key, "ready") == 0)
                return parse_size(key, value, &config.ready);
        if (strcmp(key, "disk") == 0) {
                config.disk_path = value;
                return 0;
        }
        if (strcmp(key, "disk_size") == 0)
                return parse_size(key, value, &config.disk_size);
        if (strcmp(key, "arena") == 0)
                return parse_kind(value);
        if (strcmp(key, "control_fd") == 0)
                return parse_fd(key, value, &config.control_fd);
        say("unknown parameter %s", key);
        return -1;
}

static int plugin_config_complete(void)
{
        if (config.dir && config.dir[0] == '/' && config.pool > 0)
                return 0;
        say("dir=, an absolute path, and pool= are needed; ballast-store(8) gives them");
        return -1;
}

/* --- starting ------------------------------------------------------------------------ */

static void die_at_once(void)
{
        (void)prctl(PR_SET_PDEATHSIG, 0); /* nbdkit may end with its parent, but not we */
        (void)signal(SIGTERM, SIG_DFL);
        (void)signal(SIGINT, SIG_DFL);
        (void)signal(SIGHUP, SIG_DFL);
        (void)signal(SIGQUIT, SIG_DFL);
}

static int say_failed(int r, char *message)
{
        say("%s", message ?: strerror(-r));
        free(message);
        return -1;
}

static int open_disk(struct bl_disk **ret)
{
        const struct bl_disk_options o = {.path = config.disk_path, .size = config.disk_size};
        char *message = NULL;
        int r;

        if (!config.disk_path || config.disk_path[0] == '\0')
                return 0;
        r = bl_disk_open(&o, ret, &message);
        return r < 0 ? say_failed(r, message) : 0;
}

/* Opens the pool as it is; *ret_resize: it is of another size than it is to have. */
static int open_store(bool *ret_resize, char **ret_note)
{
        const struct bl_arena_options o = {
                .kind = config.kind,
                .dir = config.dir,
                .size = config.pool,
                .version = BL_LAYOUT_VERSION,
                .lock_wait = LOCK_WAIT,
        };
        struct bl_store_options so = {.on_event = bl_events_push, .userdata = &events};
        char *message = NULL;
        int r;

        r = bl_arena_open(&o, &so.arena, ret_note);
        if (r < 0) {
                message = *ret_note;
                *ret_note = NULL;
                return say_failed(r, message);
        }
        *ret_resize = *ret_note != NULL;
        if (open_disk(&so.disk) < 0) {
                (void)bl_arena_close(so.arena);
                return -1;
        }
        r = bl_store_open(&so, &store, &message);
        return r < 0 ? say_failed(r, message) : 0;
}

/* A pool that nobody has anything in may as well be made anew. */
static int open_resized(void)
{
        char *note = NULL, *message = NULL;
        bool resize;
        int r;

        if (open_store(&resize, &note) < 0)
                return -1;
        if (resize && bl_store_vms(store, NULL, 0) == 0) {
                free(note);
                note = NULL;
                store = bl_store_close(store);
                r = bl_arena_remove(config.dir, &message);
                if (r < 0)
                        return say_failed(r, message);
                if (open_store(&resize, &note) < 0)
                        return -1;
        }
        if (note)
                say("%s", note);
        free(note);
        return 0;
}

static void registered(void *userdata)
{
        (void)userdata;
        if (bl_peers_refresh(peers, store) < 0)
                say("out of memory: a VM may be refused");
}

static void reserve(void *userdata, uint64_t bytes)
{
        (void)userdata;
        bl_upkeep_reserve(upkeep, bytes);
}

/* One line of a file that the kernel makes up; 0: it is not there. */
static uint64_t read_field(const char *path, const char *key)
{
        const struct bl_field field = {.key = key, .len = strlen(key)};
        char text[4096];
        uint64_t ret;

        if (bl_fs_read(NULL, path, text, sizeof(text)) < 0 || bl_fields_parse(text, &field, 1, &ret) != 1)
                return 0;
        return ret;
}

/* What of this process is neither the pool nor its index. */
static uint64_t fixed_bytes(void *userdata, const struct bl_store_figures *f)
{
        (void)userdata;
        return code + bl_sub_sat(read_field("/proc/self/status", "RssAnon"), f->index);
}

static int start_control(void)
{
        const struct bl_control_server_options o = {
                .fd = config.control_fd,
                .store = store,
                .events = &events,
                .watchdog = bl_notify_watchdog() / 4,
                .registered = registered,
                .reserve = reserve,
                .fixed = fixed_bytes,
        };
        int r;

        if (config.control_fd < 0)
                return 0;
        r = bl_control_server_start(&o, &control);
        return r < 0 ? say_failed(r, NULL) : 0;
}

static int plugin_after_fork(void)
{
        int r;

        die_at_once();
        /* before the pool is mapped: the kernel would walk over that too */
        code = read_field("/proc/self/smaps_rollup", "Pss_File");
        /* before the pool is mapped: that is locked already, and by the page it could not be given back */
        if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) < 0)
                say("cannot lock the process into memory, ignoring: %m");
        bl_events_init(&events);
        if (open_resized() < 0)
                return -1;
        r = bl_peers_new(&peers);
        if (r >= 0)
                r = bl_peers_refresh(peers, store);
        if (r >= 0)
                r = bl_upkeep_start(store, config.ready, &upkeep);
        if (r < 0)
                return say_failed(r, NULL);
        if (start_control() < 0)
                return -1;
        (void)bl_notify("READY=1");
        return 0;
}

/* --- connections ----------------------------------------------------------------------- */

/* Says why somebody was refused, but not to everybody who tries all day. */
__attribute__((format(printf, 1, 2))) static void say_refused(const char *format, ...)
{
        static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
        static usec_t said;
        static unsigned unsaid;
        const usec_t now = bl_now();
        unsigned others = 0;
        bool aloud;
        va_list ap;

        (void)pthread_mutex_lock(&lock);
        aloud = said == 0 || now >= said + SAY_EVERY;
        if (aloud) {
                said = now;
                others = unsaid;
                unsaid = 0;
        } else {
                unsaid++;
        }
        (void)pthread_mutex_unlock(&lock);
        if (!aloud)
                return;
        va_start(ap, format);
        say_list(format, ap);
        va_end(ap);
        if (others > 0)
                say("%u more were refused", others);
}

static int plugin_preconnect(int readonly)
{
        const int64_t pid = nbdkit_peer_pid();
        int r;

        (void)readonly;
        r = pid > 0 ? bl_peers_admit(peers, (pid_t)pid) : -EPERM;
        if (r < 0)
                say_refused("process %" PRId64 " is refused: %s", pid,
                            r == -EPERM    ? "it is no VM's that was registered"
                            : r == -EAGAIN ? "it has too many connections"
                                           : strerror(-r));
        return r < 0 ? -1 : 0;
}

/* Nobody is told what others there are. */
static int plugin_list_exports(int readonly, int is_tls, struct nbdkit_exports *exports)
{
        (void)readonly;
        (void)is_tls;
        (void)exports;
        return 0;
}

static const char *plugin_default_export(int readonly, int is_tls)
{
        (void)readonly;
        (void)is_tls;
        return NULL;
}

static void *plugin_open(int readonly)
{
        const int64_t pid = nbdkit_peer_pid();
        const char *name = nbdkit_export_name();
        uint8_t uuid[BL_UUID_LEN];
        struct bl_export *e;
        uint64_t start;
        int r;

        if (readonly || pid <= 0 || !name || bl_uuid_from_string(name, uuid) < 0) {
                say_refused("process %" PRId64 " asks for what there is not", pid);
                return NULL;
        }
        r = bl_peer_start((pid_t)pid, &start);
        if (r >= 0)
                r = bl_export_open(store, uuid, (pid_t)pid, start, OPEN_WAIT, &e);
        if (r < 0) {
                say_refused("process %" PRId64 " is refused %s: %s", pid, name,
                            r == -EBUSY   ? "another connection has it"
                            : r == -EPERM ? "it is not registered for it"
                                          : strerror(-r));
                return NULL;
        }
        return e;
}

static void plugin_close(void *handle)
{
        (void)bl_export_close(handle);
}

static int64_t plugin_get_size(void *handle)
{
        return (int64_t)bl_export_size(handle);
}

static int plugin_block_size(void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
        (void)handle;
        *minimum = 1;
        *preferred = BL_STORE_PAGE;
        *maximum = REQUEST_MAX;
        return 0;
}

static int yes(void *handle)
{
        (void)handle;
        return 1;
}

static int no(void *handle)
{
        (void)handle;
        return 0;
}

static int fua_native(void *handle)
{
        (void)handle;
        return NBDKIT_FUA_NATIVE;
}

/* --- requests ---------------------------------------------------------------------------- */

/* Never ENOSPC: QEMU may be told to pause a guest for it.  The store has told of it as an event. */
static int reply(int r)
{
        if (r >= 0)
                return 0;
        nbdkit_set_error(r == -EINVAL || r == -ENOMEM ? -r : EIO);
        return -1;
}

/* Refuses what the client was told not to ask for, and empties the buffer that nbdkit has made for it, and keeps. */
static int reply_too_large(void *buf, uint32_t count)
{
        const uintptr_t from = ((uintptr_t)buf + BL_STORE_PAGE - 1) / BL_STORE_PAGE * BL_STORE_PAGE;
        const uintptr_t to = ((uintptr_t)buf + count) / BL_STORE_PAGE * BL_STORE_PAGE;

        if (madvise((void *)from, to - from, MADV_DONTNEED_LOCKED) < 0) /* Linux 5.18 */
                (void)madvise((void *)from, to - from, MADV_DONTNEED);
        return reply(-EINVAL);
}

static int plugin_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
        (void)flags;
        if (count > REQUEST_MAX)
                return reply_too_large(buf, count);
        return reply(bl_export_read(handle, buf, count, offset));
}

static int plugin_pwrite(void *handle, const void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
        (void)flags; /* a reply means that the content outlives us: FUA is always meant */
        if (count > REQUEST_MAX)
                return reply_too_large((void *)(uintptr_t)buf, count);
        return reply(bl_export_write(handle, buf, count, offset));
}

static int plugin_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
        (void)flags; /* it is always fast, and frees what was there */
        return reply(bl_export_zero(handle, count, offset));
}

static int plugin_flush(void *handle, uint32_t flags)
{
        (void)handle;
        (void)flags;
        return 0;
}

static int plugin_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags, struct nbdkit_extents *extents)
{
        const uint64_t end = offset + count;

        for (unsigned i = 0; offset < end && i < EXTENTS_MAX; i++) {
                uint64_t size = end - offset;
                const int r = bl_export_extent(handle, offset, &size);

                if (r < 0)
                        return reply(r);
                if (size == 0)
                        return reply(-EIO);
                if (nbdkit_add_extent(extents, offset, size, r > 0 ? 0 : NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO) < 0)
                        return -1;
                offset += size;
                if ((flags & NBDKIT_FLAG_REQ_ONE) != 0)
                        break;
        }
        return 0;
}

static struct nbdkit_plugin plugin = {
        .name = "ballast-store",
        .version = BALLAST_VERSION,
        .longname = "Ballast's store of guests' swap",
        .load = plugin_load,
        .config = plugin_config,
        .config_complete = plugin_config_complete,
        .config_help = "Started by ballast-store(8), which gives the parameters.",
        .after_fork = plugin_after_fork,
        .preconnect = plugin_preconnect,
        .list_exports = plugin_list_exports,
        .default_export = plugin_default_export,
        .open = plugin_open,
        .close = plugin_close,
        .get_size = plugin_get_size,
        .block_size = plugin_block_size,
        .can_write = yes,
        .can_flush = yes,
        .is_rotational = no,
        .can_trim = yes,
        .can_zero = yes,
        .can_fast_zero = yes,
        .can_extents = yes,
        .can_fua = fua_native,
        .can_multi_conn = no,
        .can_cache = no, /* NBDKIT_CACHE_NONE */
        .pread = plugin_pread,
        .pwrite = plugin_pwrite,
        .zero = plugin_zero,
        .trim = plugin_zero,
        .flush = plugin_flush,
        .extents = plugin_extents,
};
struct nbdkit_plugin *plugin_init(void); /* which the macro defines */
NBDKIT_REGISTER_PLUGIN(plugin)
