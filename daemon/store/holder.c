/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/store/holder.h"

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <ballast/cleanup.h>
#include <ballast/units.h>

#include "daemon/store/arena.h"
#include "daemon/store/lock.h"
#include "daemon/store/notify.h"
#include "daemon/store/peers.h"
#include "daemon/util/clock.h"
#include "daemon/util/fs.h"
#include "daemon/util/sock.h"

#define NBD_MODE     0666 /* QEMU runs as whoever it likes; who it is, the store asks the kernel */
#define CONTROL_MODE 0600
#define BACKLOG      1024
#define FIRST_FD     3 /* sd_listen_fds(3) */
#define STACK        (512 * BL_KIB) /* of nbdkit's threads: setrlimit(2), pthread_create(3) */
#define DESCRIPTORS  65536 /* three for each connection */
#define WATCHDOG     (8 * BL_SEC) /* of silence, and it is killed */
#define GONE_WAIT    (10 * BL_SEC) /* for a store that was killed */

/* A store that dies is followed at once, unless that leads nowhere. */
#define STEADY     BL_SEC /* who lived so long died of something else than the last one */
#define QUICK_FREE 30U /* deaths one after the other before STEADY */
#define DELAY_MIN  (100 * BL_MSEC)
#define DELAY_MAX  (5 * BL_SEC)

struct holder {
        const struct bl_holder_options *o;
        struct bl_store_settings settings;
        char *notify_path, *pid_path, *lock_path;
        char *socket, *control; /* as they were bound: SIGHUP does not change them */
        int lock, nbd, control_fd, notify, signals;
        pid_t child; /* 0: none */
        bool ready, was_ready; /* the child; any */
        bool meant; /* we killed it */
        usec_t started, heard; /* the child */
        usec_t restart_at; /* BL_UNSET: not due */
        unsigned quick; /* deaths before STEADY, one after the other */
        unsigned unready; /* deaths before it served, one after the other */
};

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
        va_list ap;

        (void)fputs("ballast-store: ", stderr);
        va_start(ap, format);
        (void)vfprintf(stderr, format, ap);
        va_end(ap);
        (void)fputc('\n', stderr);
}

static char *path_in(const char *dir, const char *name)
{
        char *ret;

        return asprintf(&ret, "%s/%s", dir, name) < 0 ? NULL : ret;
}

/* --- becoming nbdkit -------------------------------------------------------------- */

static void set_limit(__rlimit_resource_t which, rlim_t value)
{
        struct rlimit l;

        if (getrlimit(which, &l) < 0)
                return;
        l.rlim_cur = bl_min(value, l.rlim_max);
        (void)setrlimit(which, &l);
}

/* What children inherit is these two as 3 and 4, and 0 to 2. */
static int place_descriptors(int nbd_fd, int control_fd)
{
        const int nbd = fcntl(nbd_fd, F_DUPFD_CLOEXEC, FIRST_FD + 2);
        const int control = fcntl(control_fd, F_DUPFD_CLOEXEC, FIRST_FD + 2);

        if (nbd < 0 || control < 0)
                return -errno;
        if (dup2(nbd, FIRST_FD) < 0 || dup2(control, FIRST_FD + 1) < 0)
                return -errno;
        if (close_range(FIRST_FD + 2, ~0U, 0) < 0)
                return -errno;
        /* nbdkit polls, then accepts: with EAGAIN it would try again and again */
        return fcntl(FIRST_FD, F_SETFL, 0) < 0 ? -errno : 0;
}

static int set_environment(void)
{
        char pid[16];

        (void)snprintf(pid, sizeof(pid), "%d", (int)getpid());
        return setenv("LISTEN_PID", pid, 1) < 0 || setenv("LISTEN_FDS", "1", 1) < 0 || unsetenv("LISTEN_FDNAMES") < 0
                       ? -errno
                       : 0;
}

/* Best effort: with systemd the unit does it. */
static void spare_from_oom(void)
{
        _cleanup_close_ int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

        if (fd >= 0)
                (void)!write(fd, "-900", 4);
}

int bl_store_exec(const struct bl_store_settings *s, int nbd_fd, int control_fd)
{
        char threads[16], dir[4096], pool[40], ready[40], disk[4096], disk_size[40], arena[16];
        /* its log would be anybody's to fill who connects; the plugin says itself what there is to say */
        const char *argv[16] = {"nbdkit",  "-f", "--log=null", "-t",  threads,
                                s->plugin, dir,  pool,         ready, "control_fd=4"};
        size_t n = 10;
        int r;

        (void)snprintf(threads, sizeof(threads), "%u", s->threads);
        (void)snprintf(dir, sizeof(dir), "dir=%s", s->dir);
        (void)snprintf(pool, sizeof(pool), "pool=%" PRIu64, s->pool);
        (void)snprintf(ready, sizeof(ready), "ready=%" PRIu64, s->ready);
        if (s->disk[0] != '\0') {
                (void)snprintf(disk, sizeof(disk), "disk=%s", s->disk);
                (void)snprintf(disk_size, sizeof(disk_size), "disk_size=%" PRIu64, s->disk_size);
                argv[n++] = disk;
                argv[n++] = disk_size;
        }
        if (s->arena) {
                (void)snprintf(arena, sizeof(arena), "arena=%s", s->arena);
                argv[n++] = arena;
        }
        r = place_descriptors(nbd_fd, control_fd);
        if (r < 0)
                return r;
        r = set_environment();
        if (r < 0)
                return r;
        set_limit(RLIMIT_STACK, STACK);
        set_limit(RLIMIT_NOFILE, DESCRIPTORS);
        set_limit(RLIMIT_CORE, 0); /* guests' memory */
        spare_from_oom();
        (void)execvp(argv[0], (char *const *)(uintptr_t)argv);
        return -errno;
}

/* --- one store after another -------------------------------------------------------- */

/* In the child.  A session of its own: what a terminal says to us is not for it. */
static _Noreturn void child_main(struct holder *h)
{
        char text[64], watchdog[32];
        sigset_t none;
        uint64_t start;
        int r, n;

        (void)setsid();
        (void)sigemptyset(&none);
        (void)sigprocmask(SIG_SETMASK, &none, NULL);
        (void)signal(SIGPIPE, SIG_DFL);
        (void)snprintf(watchdog, sizeof(watchdog), "%" PRIu64, WATCHDOG);
        r = bl_peer_start(getpid(), &start);
        if (r >= 0) {
                /* for the holder after us, should we be killed */
                n = snprintf(text, sizeof(text), "%d %" PRIu64 "\n", (int)getpid(), start);
                r = bl_fs_write_atomic(h->pid_path, text, (size_t)n, CONTROL_MODE, false);
        }
        if (r >= 0 && (setenv("NOTIFY_SOCKET", h->notify_path, 1) < 0 || setenv("WATCHDOG_USEC", watchdog, 1) < 0 ||
                       unsetenv("WATCHDOG_PID") < 0))
                r = -errno;
        if (r >= 0)
                r = bl_store_exec(&h->settings, h->nbd, h->control_fd);
        say("cannot start nbdkit: %s", strerror(-r));
        _exit(127);
}

static int start_child(struct holder *h)
{
        const pid_t pid = fork();

        if (pid == 0)
                child_main(h);
        if (pid < 0)
                return -errno;
        h->child = pid;
        h->ready = h->meant = false;
        h->started = h->heard = bl_now();
        h->restart_at = BL_UNSET;
        return 0;
}

/* Never SIGTERM: see plugin.c. */
static void kill_child(struct holder *h)
{
        h->meant = true;
        if (h->child > 0)
                (void)kill(h->child, SIGKILL);
}

static usec_t delay_of(const struct holder *h)
{
        if (h->unready > 0)
                return h->unready > 6 ? DELAY_MAX : bl_min(DELAY_MIN << (h->unready - 1), DELAY_MAX);
        return h->quick > QUICK_FREE ? DELAY_MIN : 0;
}

/* -ECHILD: the first one could not start, and nor will others. */
static int child_ended(struct holder *h, int status)
{
        const usec_t now = bl_now();
        const pid_t pid = h->child;
        usec_t delay;

        h->child = 0;
        if (WIFEXITED(status) && !h->was_ready) {
                say("the store could not start");
                return -ECHILD;
        }
        h->unready = h->ready || h->meant ? 0 : h->unready + 1;
        h->quick = now >= h->started + STEADY ? 0 : h->quick + 1;
        delay = delay_of(h);
        h->restart_at = now + delay;
        if (WIFSIGNALED(status))
                say("store %d died (%s), the next one starts in %" PRIu64 " ms", (int)pid,
                    sigdescr_np(WTERMSIG(status)), delay / BL_MSEC);
        else
                say("store %d ended with status %d, the next one starts in %" PRIu64 " ms", (int)pid,
                    WEXITSTATUS(status), delay / BL_MSEC);
        return 0;
}

static int reap(struct holder *h)
{
        pid_t pid;
        int status;

        while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
                if (pid == h->child) {
                        const int r = child_ended(h, status);

                        if (r < 0)
                                return r;
                }
        return 0;
}

static void reload(struct holder *h)
{
        struct bl_store_settings s = {};

        if (h->o->load(h->o->userdata, &s) < 0) {
                say("the settings stay as they were");
                return;
        }
        if (strcmp(s.dir, h->settings.dir) != 0 || strcmp(s.socket, h->socket) != 0 ||
            strcmp(s.control, h->control) != 0)
                say("directory and sockets stay as they were until ballast-store itself is started anew");
        s.dir = h->settings.dir;
        h->o->unload(&h->settings);
        h->settings = s;
        say("new settings: the store is started anew");
        kill_child(h);
}

/* 1: go on; 0: it is time to end; negative errno. */
static int take_signals(struct holder *h)
{
        struct signalfd_siginfo info;
        int r;

        while (read(h->signals, &info, sizeof(info)) == sizeof(info)) {
                if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT)
                        return 0;
                if (info.ssi_signo == SIGHUP)
                        reload(h);
        }
        r = reap(h);
        return r < 0 ? r : 1;
}

static void take_notes(struct holder *h)
{
        char text[256];
        ssize_t n;

        while ((n = recv(h->notify, text, sizeof(text) - 1, MSG_DONTWAIT)) > 0) {
                text[n] = '\0';
                h->heard = bl_now();
                if (!strstr(text, "READY=1"))
                        continue;
                if (!h->was_ready) {
                        say("serving at %s", h->socket);
                        (void)bl_notify(text);
                }
                h->ready = h->was_ready = true;
        }
}

/* What has become due. */
static int look_around(struct holder *h)
{
        const usec_t now = bl_now();

        if (h->child > 0 && h->ready && !h->meant && now >= h->heard + WATCHDOG) {
                say("store %d has been silent for %" PRIu64 " s and is killed", (int)h->child,
                    (now - h->heard) / BL_SEC);
                kill_child(h);
        }
        if (h->child == 0 && now >= h->restart_at)
                return start_child(h);
        return 0;
}

static int wait_ms(const struct holder *h)
{
        const usec_t now = bl_now();
        usec_t at = h->restart_at;

        if (h->child > 0)
                at = h->ready && !h->meant ? h->heard + WATCHDOG : BL_UNSET;
        return at == BL_UNSET ? -1 : (int)((bl_sub_sat(at, now) + BL_MSEC - 1) / BL_MSEC);
}

static int loop(struct holder *h)
{
        for (;;) {
                struct pollfd fds[] = {{.fd = h->signals, .events = POLLIN}, {.fd = h->notify, .events = POLLIN}};
                int r;

                if (poll(fds, 2, wait_ms(h)) < 0 && errno != EINTR)
                        return -errno;
                take_notes(h);
                r = take_signals(h);
                if (r <= 0)
                        return r;
                r = look_around(h);
                if (r == -EAGAIN || r == -ENOMEM) {
                        h->restart_at = bl_now() + DELAY_MAX;
                        say("cannot fork, trying again: %s", strerror(-r));
                } else if (r < 0) {
                        return r;
                }
        }
}

/* --- beginning and end ----------------------------------------------------------------- */

/* The store that a holder which was killed left behind; its pidfd.  -ESRCH: there is none. */
static int find_orphan(const char *pid_path, pid_t *ret_pid)
{
        _cleanup_close_ int fd = -1;
        uint64_t start, found;
        char text[64];
        int pid;

        if (bl_fs_read(NULL, pid_path, text, sizeof(text)) < 0 || sscanf(text, "%d %" SCNu64, &pid, &start) != 2 ||
            pid <= 0)
                return -ESRCH;
        fd = pidfd_open(pid, 0);
        if (fd < 0 || bl_peer_start(pid, &found) < 0 || found != start)
                return -ESRCH;
        *ret_pid = pid;
        return bl_take_fd(&fd);
}

/* Is the pool somebody's?  Then it must be the orphan's. */
static int check_pool(const struct holder *h, pid_t orphan)
{
        _cleanup_free_ char *path = path_in(h->settings.dir, "arena.lock");
        _cleanup_close_ int fd = -1;
        int r, pid = 0;

        if (!path)
                return -ENOMEM;
        if (orphan > 0)
                return 0;
        r = bl_lock_file(path, GONE_WAIT, &fd, &pid);
        if (r == -EBUSY)
                say("the pool in %s is in use by process %d", h->settings.dir, pid);
        else if (r < 0)
                say("cannot lock %s: %s", path, strerror(-r));
        return r;
}

static void end_orphan(int pidfd, pid_t pid)
{
        struct pollfd p = {.fd = pidfd, .events = POLLIN};

        (void)pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
        if (poll(&p, 1, (int)(GONE_WAIT / BL_MSEC)) > 0)
                say("ended store %d of an earlier ballast-store", (int)pid);
        else
                say("store %d of an earlier ballast-store does not end", (int)pid);
}

/* Listens at `path` in place of what was there: whoever connects finds the old one or the new. */
static int listen_at(const char *path, int type, mode_t mode)
{
        _cleanup_free_ char *made = NULL;
        _cleanup_close_ int fd = -1;
        struct sockaddr_un a;
        struct stat st;
        int r;

        if (asprintf(&made, "%s.new", path) < 0)
                return -ENOMEM;
        r = bl_sock_address(made, &a);
        if (r < 0)
                return r;
        if (lstat(path, &st) == 0 && !S_ISSOCK(st.st_mode))
                return -EEXIST;
        if (unlink(made) < 0 && errno != ENOENT)
                return -errno;
        fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
        if (fd < 0 || bind(fd, (const struct sockaddr *)&a, sizeof(a)) < 0)
                return -errno;
        /* nobody can connect before listen(2), so the mode is right in time */
        if (chmod(made, mode) < 0 || listen(fd, BACKLOG) < 0 || rename(made, path) < 0) {
                r = -errno;
                (void)unlink(made);
                return r;
        }
        return bl_take_fd(&fd);
}

static int listen_said(const char *path, int type, mode_t mode)
{
        const int r = listen_at(path, type, mode);

        if (r == -EEXIST)
                say("%s is not a socket", path);
        else if (r < 0)
                say("cannot listen at %s: %s", path, strerror(-r));
        return r;
}

static int open_notify(const char *path)
{
        _cleanup_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        struct sockaddr_un a;
        int r = bl_sock_address(path, &a);

        if (r < 0)
                return r;
        if (fd < 0 || (unlink(path) < 0 && errno != ENOENT))
                return -errno;
        if (bind(fd, (const struct sockaddr *)&a, sizeof(a)) < 0 || chmod(path, CONTROL_MODE) < 0)
                return -errno;
        return bl_take_fd(&fd);
}

static int open_signals(void)
{
        sigset_t set;
        int fd;

        (void)sigemptyset(&set);
        (void)sigaddset(&set, SIGTERM);
        (void)sigaddset(&set, SIGINT);
        (void)sigaddset(&set, SIGHUP);
        (void)sigaddset(&set, SIGCHLD);
        (void)signal(SIGPIPE, SIG_IGN);
        if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
                return -errno;
        fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        return fd < 0 ? -errno : fd;
}

static int lock_said(const char *dir, const char *path, int *ret_fd)
{
        int pid = 0;
        const int r = bl_lock_file(path, 0, ret_fd, &pid);

        if (r == -EBUSY)
                say("another ballast-store, process %d, runs in %s", pid, dir);
        else if (r < 0)
                say("cannot lock %s: %s", path, strerror(-r));
        return r;
}

static int make_paths(struct holder *h)
{
        h->notify_path = path_in(h->settings.dir, "notify.sock");
        h->pid_path = path_in(h->settings.dir, "store.pid");
        h->lock_path = path_in(h->settings.dir, "holder.lock");
        h->socket = strdup(h->settings.socket);
        h->control = strdup(h->settings.control);
        return h->notify_path && h->pid_path && h->lock_path && h->socket && h->control ? 0 : -ENOMEM;
}

/* First the sockets, then the end of the one that had them before: nobody finds a door shut in between. */
static int prepare(struct holder *h)
{
        _cleanup_close_ int orphan = -1;
        pid_t pid = 0;
        int r;

        r = make_paths(h);
        if (r < 0)
                return r;
        r = bl_fs_mkdir_p(h->settings.dir, 0755);
        if (r < 0) {
                say("cannot make %s: %s", h->settings.dir, strerror(-r));
                return r;
        }
        r = lock_said(h->settings.dir, h->lock_path, &h->lock);
        if (r < 0)
                return r;
        orphan = find_orphan(h->pid_path, &pid);
        r = check_pool(h, pid);
        if (r < 0)
                return r;
        h->signals = open_signals();
        h->notify = open_notify(h->notify_path);
        if (h->signals < 0 || h->notify < 0) {
                r = h->signals < 0 ? h->signals : h->notify;
                say("cannot begin: %s", strerror(-r));
                return r;
        }
        h->nbd = listen_said(h->socket, SOCK_STREAM, NBD_MODE);
        if (h->nbd < 0)
                return h->nbd;
        h->control_fd = listen_said(h->control, SOCK_SEQPACKET, CONTROL_MODE);
        if (h->control_fd < 0)
                return h->control_fd;
        if (orphan >= 0)
                end_orphan(orphan, pid);
        return 0;
}

static void unlink_if(int fd, const char *path)
{
        if (fd >= 0)
                (void)unlink(path);
}

static void close_fd(int fd)
{
        if (fd >= 0)
                (void)close(fd);
}

static struct holder *holder_free(struct holder *h)
{
        if (!h)
                return NULL;
        if (h->child > 0) {
                kill_child(h);
                (void)waitpid(h->child, NULL, 0);
        }
        unlink_if(h->nbd, h->socket);
        unlink_if(h->control_fd, h->control);
        unlink_if(h->notify, h->notify_path);
        if (h->nbd >= 0)
                (void)unlink(h->pid_path);
        unlink_if(h->lock, h->lock_path);
        close_fd(h->nbd);
        close_fd(h->control_fd);
        close_fd(h->notify);
        close_fd(h->signals);
        close_fd(h->lock);
        free(h->notify_path);
        free(h->pid_path);
        free(h->lock_path);
        free(h->socket);
        free(h->control);
        h->o->unload(&h->settings);
        free(h);
        return NULL;
}
BL_DEFINE_CLEANUP(struct holder *, holder_free)

int bl_holder_run(const struct bl_holder_options *o)
{
        _cleanup_(holder_freep) struct holder *h = calloc(1, sizeof(*h));
        int r;

        if (!h)
                return -ENOMEM;
        h->o = o;
        h->lock = h->nbd = h->control_fd = h->notify = h->signals = -1;
        h->restart_at = BL_UNSET;
        r = o->load(o->userdata, &h->settings);
        if (r < 0)
                return r;
        r = prepare(h);
        if (r < 0)
                return r;
        r = start_child(h);
        if (r >= 0)
                r = loop(h);
        if (r < 0 && r != -ECHILD)
                say("cannot go on: %s", strerror(-r));
        return r;
}

/* --- off for good ------------------------------------------------------------------------- */

/* Does anybody listen there?  A socket that nobody has is removed. */
static int remove_socket(const char *path, int type)
{
        _cleanup_close_ int fd = -1;
        struct sockaddr_un a;
        int r = bl_sock_address(path, &a);

        if (r < 0)
                return r;
        fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        if (connect(fd, (const struct sockaddr *)&a, sizeof(a)) == 0 || errno == EAGAIN) {
                say("somebody listens at %s: stop it first", path);
                return -EBUSY;
        }
        if (errno != ECONNREFUSED)
                return errno == ENOENT ? 0 : -errno;
        return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

int bl_holder_remove(const struct bl_store_settings *s)
{
        _cleanup_free_ char *lock_path = path_in(s->dir, "holder.lock"), *pid_path = path_in(s->dir, "store.pid"),
                            *notify_path = path_in(s->dir, "notify.sock"), *message = NULL;
        _cleanup_close_ int lock = -1;
        int r;

        if (!lock_path || !pid_path || !notify_path)
                return -ENOMEM;
        if (access(s->dir, F_OK) < 0 && errno == ENOENT)
                return 0;
        r = lock_said(s->dir, lock_path, &lock);
        if (r < 0)
                return r;
        r = bl_arena_remove(s->dir, &message);
        if (r < 0) {
                say("%s", message ?: strerror(-r));
                return r;
        }
        r = remove_socket(s->socket, SOCK_STREAM);
        if (r >= 0)
                r = remove_socket(s->control, SOCK_SEQPACKET);
        if (r < 0)
                return r;
        (void)unlink(notify_path);
        (void)unlink(pid_path);
        (void)unlink(lock_path);
        (void)rmdir(s->dir); /* ENOTEMPTY: there is something of somebody else's */
        return 0;
}
