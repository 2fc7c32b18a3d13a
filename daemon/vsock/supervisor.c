/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/vsock/supervisor.h"

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <time.h>

#include <ballast/cleanup.h>

#include "daemon/util/clock.h"
#include "daemon/util/fs.h"
#include "daemon/util/procstat.h"
#include "daemon/util/sock.h"
#include "daemon/virt/proc.h"
#include "daemon/vsock/control.h"

#define CLIENTS      16U /* that connected and have not asked yet */
#define CLIENT_LIMIT (2 * BL_SEC)
#define DEAF_TIME    (100 * BL_MSEC) /* after accept(2) failed for want of something: the listener stays readable */
#define UP_AT_ONCE   64 /* messages of one worker before others have their turn */

/* Who may be polled for. */
enum {
        PLACE_SIGNALS,
        PLACE_LISTENER,
        PLACE_CLIENTS,
        PLACE_VMS = PLACE_CLIENTS + CLIENTS,
        PLACES = PLACE_VMS + BL_SUPERVISOR_VMS,
};

struct vm {
        pid_t worker; /* 0: the slot is free */
        struct bl_keep *keep;
        int fds[_BL_KEEP_FD_MAX];
        int up; /* our end; -1: the worker closed its own */
        unsigned n_deaths;
        usec_t deaths[BL_SUPERVISOR_DEATHS]; /* when, a ring */
};

struct client {
        int fd; /* -1: free */
        usec_t since;
};

struct supervisor {
        const struct bl_supervisor_options *options;
        bl_worker_fn run;
        int lock, listener, signals;
        usec_t deaf_until; /* the listener is not polled before */
        struct client clients[CLIENTS];
        struct vm vms[BL_SUPERVISOR_VMS];
        nfds_t n_polled;
        struct pollfd polled[PLACES];
        unsigned place[PLACES]; /* whose each is */
        short came[PLACES]; /* what came of it, by place */
};

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
        va_list ap;

        (void)fputs("ballast-vsock: ", stderr);
        va_start(ap, format);
        (void)vfprintf(stderr, format, ap);
        va_end(ap);
        (void)fputc('\n', stderr);
}

__attribute__((format(printf, 2, 3))) static void say_vm(const struct vm *v, const char *format, ...)
{
        char uuid[37], text[160];
        va_list ap;

        bl_uuid_to_string(v->keep->uuid, uuid);
        va_start(ap, format);
        (void)vsnprintf(text, sizeof(text), format, ap);
        va_end(ap);
        say("%s: %s", uuid, text);
}

static void close_fd(int *fd)
{
        bl_closep(fd);
        *fd = -1;
}

static void vm_clear(struct vm *v)
{
        *v = (struct vm){.up = -1};
        for (unsigned i = 0; i < _BL_KEEP_FD_MAX; i++)
                v->fds[i] = -1;
}

static void vm_free(struct vm *v)
{
        for (unsigned i = 0; i < _BL_KEEP_FD_MAX; i++)
                close_fd(&v->fds[i]);
        close_fd(&v->up);
        if (v->keep)
                (void)munmap(v->keep, sizeof(*v->keep));
        vm_clear(v);
}

/* A worker is exposed to a guest's bytes: what is QEMU's connection and process is not for it to say. */
static void vm_store(struct vm *v, uint32_t which, int *fd)
{
        if (which < BL_KEEP_KICK_RX || which >= _BL_KEEP_FD_MAX)
                return;
        close_fd(&v->fds[which]);
        v->fds[which] = bl_take_fd(fd);
}

/* Takes what a worker sent up, at most `limit` messages. */
static void vm_drain(struct vm *v, unsigned limit)
{
        for (; limit > 0 && v->up >= 0; limit--) {
                _cleanup_close_ int fd = -1;
                uint32_t which;
                const ssize_t n = bl_sock_recv_fd(v->up, &which, sizeof(which), &fd);

                if (n == -EAGAIN || n == -EINTR)
                        return;
                if (n <= 0)
                        close_fd(&v->up);
                else if (n == sizeof(which))
                        vm_store(v, which, &fd);
        }
}

static int compare_fds(const void *a, const void *b)
{
        const int x = *(const int *)a, y = *(const int *)b;

        return (x > y) - (x < y);
}

/* Nothing of other VMs and of the supervisor stays open: only `keep`, and 0 to 2. */
static void close_others(const int *keep, size_t n)
{
        int sorted[_BL_KEEP_FD_MAX + 1];
        unsigned next = STDERR_FILENO + 1;

        memcpy(sorted, keep, n * sizeof(*keep));
        qsort(sorted, n, sizeof(*sorted), compare_fds);
        for (size_t i = 0; i < n; i++) {
                if (sorted[i] < (int)next)
                        continue;
                if (sorted[i] > (int)next)
                        (void)close_range(next, (unsigned)sorted[i] - 1, 0);
                next = (unsigned)sorted[i] + 1;
        }
        (void)close_range(next, ~0U, 0);
}

/* In the child.  A session of its own, so that what a terminal says to the supervisor is not for workers. */
static _Noreturn void worker_main(const struct supervisor *s, const struct vm *v, int up)
{
        int fds[_BL_KEEP_FD_MAX], kept[_BL_KEEP_FD_MAX + 1];
        sigset_t none;

        memcpy(fds, v->fds, sizeof(fds));
        memcpy(kept, fds, sizeof(fds));
        kept[_BL_KEEP_FD_MAX] = up;
        close_others(kept, _BL_KEEP_FD_MAX + 1);
        (void)setsid();
        (void)sigemptyset(&none);
        (void)sigprocmask(SIG_SETMASK, &none, NULL);
        _exit(s->run(v->keep, fds, up, s->options->host_socket));
}

/* Forks a worker over what there is.  The state of VMs is shared memory, and only this one's is for it. */
static int vm_start(struct supervisor *s, struct vm *v)
{
        _cleanup_close_ int ours = -1, up = -1;
        int pair[2];
        pid_t pid;

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
                return -errno;
        ours = pair[0];
        up = pair[1];
        if (madvise(v->keep, sizeof(*v->keep), MADV_DOFORK) < 0)
                return -errno;
        pid = fork();
        if (pid == 0)
                worker_main(s, v, up);
        if (pid < 0)
                return -errno;
        (void)madvise(v->keep, sizeof(*v->keep), MADV_DONTFORK);
        close_fd(&v->up);
        v->up = bl_take_fd(&ours);
        v->worker = pid;
        return 0;
}

/* Is process `pid` the one that started then, and alive?  `pidfd` was opened before. */
static int check_process(pid_t pid, uint64_t start)
{
        char path[32], text[1024], state;
        uint64_t found;
        ssize_t n;

        (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
        n = bl_fs_read(NULL, path, text, sizeof(text));
        if (n < 0 || bl_proc_stat_parse(text, &state, &found) < 0)
                return -ESRCH;
        return found != start || state == 'Z' || state == 'X' ? -ESRCH : 0;
}

static struct vm *find_free(struct supervisor *s)
{
        for (unsigned i = 0; i < BL_SUPERVISOR_VMS; i++)
                if (s->vms[i].worker == 0)
                        return &s->vms[i];
        return NULL;
}

static int make_keep(struct vm *v, const struct bl_vsock_request *q)
{
        struct bl_keep *keep = mmap(NULL, sizeof(*keep), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

        if (keep == MAP_FAILED)
                return -errno;
        v->keep = keep;
        memcpy(keep->uuid, q->uuid, sizeof(keep->uuid));
        keep->pid = q->pid;
        keep->start = q->start;
        keep->vu.guest_cid = q->cid;
        return madvise(keep, sizeof(*keep), MADV_DONTFORK) < 0 ? -errno : 0;
}

static int vm_prepare(struct vm *v, const struct bl_vsock_request *q, int *ret_qemu)
{
        int pair[2], r;

        v->fds[BL_KEEP_PIDFD] = pidfd_open(q->pid, 0);
        if (v->fds[BL_KEEP_PIDFD] < 0)
                return errno == EINVAL ? -ESRCH : -errno; /* EINVAL: a thread */
        r = check_process(q->pid, q->start);
        if (r < 0)
                return r;
        r = make_keep(v, q);
        if (r < 0)
                return r;
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
                return -errno;
        v->fds[BL_KEEP_QEMU] = pair[0];
        *ret_qemu = pair[1];
        /* ours only: QEMU finds its end as it would find one that it connected itself */
        return fcntl(pair[0], F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
}

static int serve(struct supervisor *s, const struct bl_vsock_request *q, int *ret_qemu)
{
        _cleanup_close_ int qemu = -1;
        struct vm *v = find_free(s);
        int r;

        if (!v)
                return -EAGAIN;
        r = vm_prepare(v, q, &qemu);
        if (r >= 0)
                r = vm_start(s, v);
        if (r < 0) {
                vm_free(v);
                return r;
        }
        say_vm(v, "worker %d started for QEMU %d, CID %" PRIu32, (int)v->worker, (int)q->pid, q->cid);
        *ret_qemu = bl_take_fd(&qemu);
        return 0;
}

/* May another one follow?  Counts this death. */
static bool vm_may_follow(struct vm *v, usec_t now)
{
        usec_t *oldest = &v->deaths[v->n_deaths % BL_SUPERVISOR_DEATHS];

        if (v->n_deaths >= BL_SUPERVISOR_DEATHS && bl_sub_sat(now, *oldest) < BL_SUPERVISOR_WINDOW)
                return false;
        *oldest = now;
        v->n_deaths++;
        return true;
}

static void vm_died(struct supervisor *s, struct vm *v, int signal_number)
{
        const pid_t dead = v->worker;
        int r;

        if (!vm_may_follow(v, bl_now())) {
                say_vm(v, "worker %d died (%s) too soon after others, closing the connection", (int)dead,
                       sigdescr_np(signal_number));
                vm_free(v);
                return;
        }
        /* what it sent before it died is all that there will be */
        vm_drain(v, UINT32_MAX);
        r = vm_start(s, v);
        if (r < 0) {
                say_vm(v, "worker %d died (%s), and no other can be started: %s", (int)dead, sigdescr_np(signal_number),
                       strerror(-r));
                vm_free(v);
                return;
        }
        say_vm(v, "worker %d died (%s), %d goes on", (int)dead, sigdescr_np(signal_number), (int)v->worker);
}

static void reap(struct supervisor *s)
{
        pid_t pid;
        int status;

        while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
                for (unsigned i = 0; i < BL_SUPERVISOR_VMS; i++) {
                        struct vm *v = &s->vms[i];

                        if (v->worker != pid)
                                continue;
                        if (WIFSIGNALED(status)) {
                                vm_died(s, v, WTERMSIG(status));
                        } else {
                                say_vm(v, "worker %d ended with status %d", (int)pid, WEXITSTATUS(status));
                                vm_free(v);
                        }
                        break;
                }
}

/* False: it is time to end. */
static bool take_signals(struct supervisor *s)
{
        struct signalfd_siginfo info;

        while (read(s->signals, &info, sizeof(info)) == sizeof(info))
                if (info.ssi_signo != SIGCHLD)
                        return false;
        /* one SIGCHLD may stand for several */
        reap(s);
        return true;
}

/* The oldest silent one gives way: it had its time, or somebody is making too many. */
static struct client *client_slot(struct supervisor *s)
{
        struct client *oldest = &s->clients[0];

        for (unsigned i = 0; i < CLIENTS; i++) {
                struct client *c = &s->clients[i];

                if (c->fd < 0)
                        return c;
                if (c->since < oldest->since)
                        oldest = c;
        }
        close_fd(&oldest->fd);
        return oldest;
}

static void accept_clients(struct supervisor *s, usec_t now)
{
        for (unsigned i = 0; i < CLIENTS; i++) {
                const int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

                if (fd < 0) {
                        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
                                s->deaf_until = now + DEAF_TIME;
                        return;
                }
                *client_slot(s) = (struct client){.fd = fd, .since = now};
        }
}

static void client_step(struct supervisor *s, struct client *c)
{
        _cleanup_close_ int qemu = -1;
        struct bl_vsock_request q;
        int r = bl_vsock_control_receive(c->fd, &q);

        if (r == -EAGAIN)
                return;
        if (r >= 0)
                r = serve(s, &q, &qemu);
        /* who is gone has no use for an answer; its worker sees that the other end is closed */
        if (r != -EPIPE)
                (void)bl_vsock_control_reply(c->fd, r, qemu);
        close_fd(&c->fd);
}

static void expire_clients(struct supervisor *s, usec_t now)
{
        for (unsigned i = 0; i < CLIENTS; i++)
                if (s->clients[i].fd >= 0 && bl_sub_sat(now, s->clients[i].since) >= CLIENT_LIMIT)
                        close_fd(&s->clients[i].fd);
}

static void watch(struct supervisor *s, unsigned place, int fd)
{
        s->came[place] = 0;
        if (fd < 0)
                return;
        s->polled[s->n_polled] = (struct pollfd){.fd = fd, .events = POLLIN};
        s->place[s->n_polled++] = place;
}

/* Only what there is: poll(2) refuses more than RLIMIT_NOFILE.  `*ret_at`: when to look again. */
static void watch_all(struct supervisor *s, usec_t now, usec_t *ret_at)
{
        const bool deaf = now < s->deaf_until;

        *ret_at = deaf ? s->deaf_until : BL_UNSET;
        s->n_polled = 0;
        watch(s, PLACE_SIGNALS, s->signals);
        watch(s, PLACE_LISTENER, deaf ? -1 : s->listener);
        for (unsigned i = 0; i < CLIENTS; i++) {
                watch(s, PLACE_CLIENTS + i, s->clients[i].fd);
                if (s->clients[i].fd >= 0)
                        *ret_at = bl_min(*ret_at, s->clients[i].since + CLIENT_LIMIT);
        }
        for (unsigned i = 0; i < BL_SUPERVISOR_VMS; i++)
                watch(s, PLACE_VMS + i, s->vms[i].up);
}

/* Descriptors from below first: a reap starts successors over what is there. */
static bool step(struct supervisor *s)
{
        const usec_t now = bl_now();

        for (nfds_t i = 0; i < s->n_polled; i++)
                s->came[s->place[i]] = s->polled[i].revents;
        for (unsigned i = 0; i < BL_SUPERVISOR_VMS; i++)
                if (s->came[PLACE_VMS + i] != 0)
                        vm_drain(&s->vms[i], UP_AT_ONCE);
        if (s->came[PLACE_SIGNALS] != 0 && !take_signals(s))
                return false;
        for (unsigned i = 0; i < CLIENTS; i++)
                if (s->came[PLACE_CLIENTS + i] != 0)
                        client_step(s, &s->clients[i]);
        expire_clients(s, now);
        if (s->came[PLACE_LISTENER] != 0)
                accept_clients(s, now);
        return true;
}

static int loop(struct supervisor *s)
{
        for (;;) {
                const usec_t now = bl_now();
                struct timespec t;
                usec_t at, left;

                watch_all(s, now, &at);
                left = bl_sub_sat(at, now);
                t.tv_sec = (time_t)(left / BL_SEC);
                t.tv_nsec = (long)(left % BL_SEC) * 1000;
                if (ppoll(s->polled, s->n_polled, at == BL_UNSET ? NULL : &t, NULL) < 0) {
                        if (errno != EINTR && errno != ENOMEM)
                                return -errno;
                        continue;
                }
                if (!step(s))
                        return 0;
        }
}

static int open_signals(void)
{
        sigset_t set;
        int fd;

        (void)sigemptyset(&set);
        (void)sigaddset(&set, SIGTERM);
        (void)sigaddset(&set, SIGINT);
        (void)sigaddset(&set, SIGCHLD);
        (void)signal(SIGPIPE, SIG_IGN);
        (void)signal(SIGHUP, SIG_IGN); /* there is no configuration */
        if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
                return -errno;
        fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        return fd < 0 ? -errno : fd;
}

/* Each VM has up to seven descriptors here. */
static void raise_limit(void)
{
        struct rlimit l;

        if (getrlimit(RLIMIT_NOFILE, &l) < 0)
                return;
        l.rlim_cur = l.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &l);
}

static int prepare(struct supervisor *s)
{
        int r;

        raise_limit();
        s->signals = open_signals();
        if (s->signals < 0) {
                say("cannot wait for signals: %s", strerror(-s->signals));
                return s->signals;
        }
        r = bl_vsock_control_listen(s->options->control, &s->lock, &s->listener);
        if (r == -EADDRINUSE)
                say("another supervisor serves at %s", s->options->control);
        else if (r == -EEXIST)
                say("%s is not a socket", s->options->control);
        else if (r < 0)
                say("cannot listen at %s: %s", s->options->control, strerror(-r));
        return r;
}

static struct supervisor *supervisor_free(struct supervisor *s)
{
        if (!s)
                return NULL;
        for (unsigned i = 0; i < BL_SUPERVISOR_VMS; i++)
                vm_free(&s->vms[i]);
        for (unsigned i = 0; i < CLIENTS; i++)
                close_fd(&s->clients[i].fd);
        if (s->listener >= 0)
                (void)unlink(s->options->control);
        close_fd(&s->listener);
        close_fd(&s->signals);
        /* the lock file stays: removing it would let two supervisors lock two files of one name */
        close_fd(&s->lock);
        free(s);
        return NULL;
}
BL_DEFINE_CLEANUP(struct supervisor *, supervisor_free)

int bl_supervisor_run(const struct bl_supervisor_options *o)
{
        _cleanup_(supervisor_freep) struct supervisor *s = calloc(1, sizeof(*s));
        int r;

        if (!s) {
                say("out of memory");
                return -ENOMEM;
        }
        s->options = o;
        s->run = o->worker ? o->worker : bl_worker_run;
        s->lock = s->listener = s->signals = -1;
        for (unsigned i = 0; i < CLIENTS; i++)
                s->clients[i].fd = -1;
        for (unsigned i = 0; i < BL_SUPERVISOR_VMS; i++)
                vm_clear(&s->vms[i]);
        r = prepare(s);
        if (r < 0)
                return r;
        (void)sd_notify(1, "READY=1");
        r = loop(s);
        if (r < 0)
                say("cannot go on: %s", strerror(-r));
        return r;
}
