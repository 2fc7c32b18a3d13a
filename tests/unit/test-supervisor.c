/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The supervisor in a process of its own, over workers that do what they are told by one byte each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ballast/cleanup.h>

#include "daemon/util/clock.h"
#include "daemon/util/fs.h"
#include "daemon/util/procstat.h"
#include "daemon/util/sock.h"
#include "daemon/vsock/control.h"
#include "daemon/vsock/supervisor.h"

#define LIMIT       (5 * BL_SEC)
#define HOST_SOCKET "/nowhere/vsock.sock"
#define NOBODY      65534

enum order {
        ORDER_TELL = 't', /* answer */
        ORDER_UP = 'u', /* make a file with the next byte in it, send it up as KICK_TX */
        ORDER_UP_DIE = 'U', /* the same, and die at once */
        ORDER_TAKE_AWAY = 'a', /* say that there is no KICK_TX any more */
        ORDER_LIE = 'l', /* send up what is not for a worker to send */
        ORDER_FAIL = 'f', /* end with status 1 */
};

struct told {
        pid_t pid;
        uint32_t calls, fds, shared; /* open descriptors; mappings of shared memory */
        uint64_t cid;
        uint64_t start;
        uint8_t uuid[BL_UUID_LEN];
        char mark; /* in KICK_TX's file; 0: there is none */
        bool host_socket_right, signals_free;
};

struct rig {
        char dir[64], path[80];
        pid_t supervisor;
        struct bl_vsock_request q;
};

/* --- the worker -------------------------------------------------------------- */

static uint32_t count_fds(void)
{
        _cleanup_closedir_ DIR *d = opendir("/proc/self/fd");
        uint32_t n = 0;

        while (d && readdir(d))
                n++;
        return n - 3; /* . and .. and its own */
}

static uint32_t count_shared(void)
{
        _cleanup_fclose_ FILE *f = fopen("/proc/self/maps", "re");
        char line[512];
        uint32_t n = 0;

        while (f && fgets(line, sizeof(line), f))
                n += strstr(line, "/dev/zero") != NULL;
        return n;
}

static void send_up(int up, uint32_t which, int fd)
{
        if (bl_sock_send_fd(up, &which, sizeof(which), fd) < 0)
                _exit(99);
}

static int make_file(char mark)
{
        const int fd = memfd_create("mark", MFD_CLOEXEC);

        if (fd < 0 || write(fd, &mark, 1) != 1)
                _exit(98);
        return fd;
}

static void tell(struct bl_keep *keep, const int *fds, const char *host_socket)
{
        struct told t = {
                .pid = getpid(),
                .calls = keep->calls++,
                .fds = count_fds(),
                .shared = count_shared(),
                .cid = keep->vu.guest_cid,
                .start = keep->start,
                .host_socket_right = strcmp(host_socket, HOST_SOCKET) == 0,
        };
        sigset_t blocked;

        memcpy(t.uuid, keep->uuid, sizeof(t.uuid));
        (void)sigprocmask(SIG_BLOCK, NULL, &blocked);
        t.signals_free = !sigismember(&blocked, SIGTERM) && !sigismember(&blocked, SIGCHLD);
        if (fds[BL_KEEP_KICK_TX] >= 0 && pread(fds[BL_KEEP_KICK_TX], &t.mark, 1, 0) != 1)
                _exit(97);
        if (send(fds[BL_KEEP_QEMU], &t, sizeof(t), MSG_NOSIGNAL) != sizeof(t))
                _exit(96);
}

static int fake_worker(struct bl_keep *keep, int fds[_BL_KEEP_FD_MAX], int up, const char *host_socket)
{
        for (;;) {
                struct pollfd p = {.fd = fds[BL_KEEP_QEMU], .events = POLLIN};
                char order, mark = 0;

                if (poll(&p, 1, -1) < 0)
                        return 95;
                if (recv(fds[BL_KEEP_QEMU], &order, 1, 0) <= 0)
                        return 0;
                if (order == ORDER_UP || order == ORDER_UP_DIE)
                        if (recv(fds[BL_KEEP_QEMU], &mark, 1, 0) != 1)
                                return 94;
                switch ((enum order)order) {
                case ORDER_TELL:
                        tell(keep, fds, host_socket);
                        break;
                case ORDER_UP:
                case ORDER_UP_DIE:
                        bl_closep(&fds[BL_KEEP_KICK_TX]);
                        fds[BL_KEEP_KICK_TX] = make_file(mark);
                        send_up(up, BL_KEEP_KICK_TX, fds[BL_KEEP_KICK_TX]);
                        if (order == ORDER_UP_DIE)
                                (void)raise(SIGKILL);
                        break;
                case ORDER_TAKE_AWAY:
                        bl_closep(&fds[BL_KEEP_KICK_TX]);
                        fds[BL_KEEP_KICK_TX] = -1;
                        send_up(up, BL_KEEP_KICK_TX, -1);
                        break;
                case ORDER_LIE:
                        send_up(up, BL_KEEP_QEMU, make_file('x'));
                        send_up(up, BL_KEEP_PIDFD, -1);
                        send_up(up, _BL_KEEP_FD_MAX, make_file('x'));
                        send_up(up, UINT32_MAX, -1);
                        (void)send(up, "short", 1, MSG_NOSIGNAL);
                        break;
                case ORDER_FAIL:
                        return 1;
                }
        }
}

/* --- the supervisor's process ------------------------------------------------ */

static pid_t start_supervisor(const struct rig *r)
{
        const pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0) {
                const struct bl_supervisor_options o = {
                        .control = r->path,
                        .host_socket = HOST_SOCKET,
                        .worker = fake_worker,
                };
                const int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

                (void)signal(SIGSEGV, SIG_DFL); /* cmocka's would go on with the next test */
                if (null < 0 || dup2(null, STDERR_FILENO) < 0)
                        _exit(90);
                (void)close_range(STDERR_FILENO + 1, ~0U, 0); /* QEMU's ends are the test's alone */
                _exit(bl_supervisor_run(&o) < 0 ? 1 : 0);
        }
        return pid;
}

static int wait_for_end(pid_t pid)
{
        int status;

        assert_int_equal(waitpid(pid, &status, 0), pid);
        return status;
}

static void stop_supervisor(struct rig *r)
{
        int status;

        if (r->supervisor <= 0)
                return;
        assert_int_equal(kill(r->supervisor, SIGTERM), 0);
        status = wait_for_end(r->supervisor);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
        r->supervisor = 0;
}

static uint64_t start_time(pid_t pid)
{
        char path[32], text[1024], letter;
        uint64_t start;

        (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
        assert_true(bl_fs_read(NULL, path, text, sizeof(text)) > 0);
        assert_int_equal(bl_proc_stat_parse(text, &letter, &start), 0);
        return start;
}

static int setup(void **state)
{
        struct rig *r = calloc(1, sizeof(*r));

        assert_non_null(r);
        (void)snprintf(r->dir, sizeof(r->dir), "/tmp/ballast-supervisor.XXXXXX");
        assert_non_null(mkdtemp(r->dir));
        (void)snprintf(r->path, sizeof(r->path), "%s/control.sock", r->dir);
        r->q = (struct bl_vsock_request){
                .magic = BL_VSOCK_CONTROL_MAGIC,
                .cid = 42,
                .uuid = {1, 2, 3},
                .pid = getpid(),
                .start = start_time(getpid()),
        };
        r->supervisor = start_supervisor(r);
        for (int i = 0; i < 500 && access(r->path, F_OK) < 0; i++)
                (void)usleep(10000);
        *state = r;
        return 0;
}

static int teardown(void **state)
{
        struct rig *r = *state;
        char lock[100];

        stop_supervisor(r);
        (void)snprintf(lock, sizeof(lock), "%s.lock", r->path);
        (void)unlink(lock);
        (void)unlink(r->path);
        assert_int_equal(rmdir(r->dir), 0);
        free(r);
        return 0;
}

/* The supervisor is a process that has just been started: it may not listen yet. */
static int serve(const struct rig *r, int *ret_fd)
{
        const struct timeval limit = {.tv_sec = 5};
        int n = -ECONNREFUSED;

        for (int i = 0; i < 500 && (n == -ECONNREFUSED || n == -ENOENT); i++) {
                n = bl_vsock_control_serve(r->path, &r->q, LIMIT, ret_fd);
                if (n < 0)
                        (void)usleep(10000);
        }
        if (n >= 0)
                assert_int_equal(setsockopt(*ret_fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), 0);
        return n;
}

static void order(int qemu, enum order o, char mark)
{
        const char text[2] = {(char)o, mark};

        assert_int_equal(send(qemu, text, mark ? 2 : 1, MSG_NOSIGNAL), mark ? 2 : 1);
}

static struct told ask(int qemu)
{
        struct told t;

        order(qemu, ORDER_TELL, 0);
        assert_int_equal(recv(qemu, &t, sizeof(t), MSG_WAITALL), sizeof(t));
        return t;
}

static void expect_closed(int qemu)
{
        char c;
        const ssize_t n = recv(qemu, &c, 1, 0);

        assert_true(n == 0 || (n < 0 && errno == ECONNRESET));
}

/* --- tests --------------------------------------------------------------------- */

static void test_serve(void **state)
{
        struct rig *r = *state;
        _cleanup_close_ int qemu = -1;
        struct told t;
        struct stat st;

        assert_int_equal(serve(r, &qemu), 0);
        assert_int_equal(fcntl(qemu, F_GETFD), FD_CLOEXEC);
        assert_int_equal(fcntl(qemu, F_GETFL) & O_NONBLOCK, 0);
        t = ask(qemu);
        assert_int_not_equal(t.pid, r->supervisor);
        assert_int_equal(t.cid, 42);
        assert_int_equal(t.start, r->q.start);
        assert_memory_equal(t.uuid, r->q.uuid, BL_UUID_LEN);
        assert_true(t.host_socket_right);
        assert_true(t.signals_free);
        /* 0 to 2, QEMU, its pidfd, the way up; and one state */
        assert_int_equal(t.fds, 6);
        assert_int_equal(t.shared, 1);
        assert_int_equal(stat(r->path, &st), 0);
        assert_int_equal(st.st_mode & 07777, 0600);
}

static void test_successor(void **state)
{
        struct rig *r = *state;
        _cleanup_close_ int qemu = -1;
        struct told a, b;

        assert_int_equal(serve(r, &qemu), 0);
        order(qemu, ORDER_UP, 'm');
        order(qemu, ORDER_LIE, 0);
        a = ask(qemu);
        assert_int_equal(a.mark, 'm');
        assert_int_equal(kill(a.pid, SIGKILL), 0);
        b = ask(qemu);
        assert_int_not_equal(b.pid, a.pid);
        assert_int_equal(b.calls, a.calls + 1);
        assert_int_equal(b.cid, 42);
        assert_int_equal(b.mark, 'm');
        assert_int_equal(b.fds, 7);
        assert_int_equal(b.shared, 1);
        /* what was sent at the last moment */
        order(qemu, ORDER_UP_DIE, 'n');
        b = ask(qemu);
        assert_int_equal(b.mark, 'n');
        order(qemu, ORDER_TAKE_AWAY, 0);
        b = ask(qemu);
        assert_int_equal(kill(b.pid, SIGSEGV), 0);
        b = ask(qemu);
        assert_int_equal(b.mark, 0);
        assert_int_equal(b.fds, 6);
}

static void test_deaths(void **state)
{
        struct rig *r = *state;
        _cleanup_close_ int qemu = -1, again = -1;

        assert_int_equal(serve(r, &qemu), 0);
        for (unsigned i = 0; i < BL_SUPERVISOR_DEATHS; i++)
                assert_int_equal(kill(ask(qemu).pid, SIGKILL), 0);
        assert_int_equal(kill(ask(qemu).pid, SIGKILL), 0);
        expect_closed(qemu);
        /* the next connection of the same VM begins anew */
        assert_int_equal(serve(r, &again), 0);
        assert_int_equal(ask(again).calls, 0);
}

static void test_worker_ends(void **state)
{
        struct rig *r = *state;
        _cleanup_close_ int qemu = -1;

        assert_int_equal(serve(r, &qemu), 0);
        order(qemu, ORDER_FAIL, 0);
        expect_closed(qemu);
}

static void test_isolated(void **state)
{
        struct rig *r = *state;
        _cleanup_close_ int one = -1, two = -1;
        struct told a, b;

        assert_int_equal(serve(r, &one), 0);
        order(one, ORDER_UP, 'a');
        a = ask(one);
        r->q.cid = 43;
        r->q.uuid[0] = 9;
        assert_int_equal(serve(r, &two), 0);
        b = ask(two);
        assert_int_equal(b.cid, 43);
        assert_int_equal(b.uuid[0], 9);
        assert_int_equal(b.mark, 0);
        assert_int_equal(b.fds, 6);
        assert_int_equal(b.shared, 1);
        assert_int_equal(kill(b.pid, SIGKILL), 0);
        b = ask(two);
        assert_int_equal(b.fds, 6);
        assert_int_equal(b.shared, 1);
        assert_int_equal(ask(one).pid, a.pid);
        bl_closep(&two);
        two = -1;
        a = ask(one);
        assert_int_equal(a.mark, 'a');
        assert_int_equal(a.cid, 42);
}

static void expect_refused(const struct rig *r, int error)
{
        int fd = -7;

        assert_int_equal(serve(r, &fd), error);
        assert_int_equal(fd, -7);
}

static void test_wrong_process(void **state)
{
        struct rig *r = *state;
        const struct bl_vsock_request q = r->q;
        pid_t pid = fork();

        if (pid == 0)
                _exit(0);
        r->q.start++;
        expect_refused(r, -ESRCH);
        /* a zombie is no process that could be served */
        r->q.pid = pid;
        assert_int_equal(waitid(P_PID, (id_t)pid, &(siginfo_t){}, WEXITED | WNOWAIT), 0);
        r->q.start = start_time(pid);
        expect_refused(r, -ESRCH);
        (void)wait_for_end(pid);
        expect_refused(r, -ESRCH);
        r->q = q;
        for (uint32_t cid = 0; cid < 3; cid++) {
                r->q.cid = cid;
                expect_refused(r, -EINVAL);
        }
        r->q.cid = UINT32_MAX;
        expect_refused(r, -EINVAL);
        r->q = q;
        r->q.pid = -1;
        expect_refused(r, -EINVAL);
        r->q = q;
        r->q.magic++;
        expect_refused(r, -EPROTO);
}

static int connect_raw(const struct rig *r)
{
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        assert_true(fd >= 0);
        (void)snprintf(a.sun_path, sizeof(a.sun_path), "%s", r->path);
        while (connect(fd, (const struct sockaddr *)&a, sizeof(a)) < 0) {
                assert_true(errno == EAGAIN || errno == ECONNREFUSED || errno == ENOENT);
                (void)usleep(1000);
        }
        return fd;
}

static void test_silent_clients(void **state)
{
        struct rig *r = *state;
        _cleanup_close_ int qemu = -1;
        struct pollfd silent[50];
        struct bl_vsock_reply reply;
        usec_t began;

        for (int i = 0; i < 50; i++)
                silent[i] = (struct pollfd){.fd = connect_raw(r), .events = POLLIN};
        began = bl_now();
        assert_int_equal(serve(r, &qemu), 0);
        assert_true(bl_now() - began < BL_SEC);
        assert_int_equal(ask(qemu).cid, 42);
        /* one of those that may still speak says too little, and hears so */
        assert_int_equal(send(silent[49].fd, &r->q, sizeof(r->q) - 1, MSG_NOSIGNAL), sizeof(r->q) - 1);
        assert_int_equal(poll(&silent[49], 1, 5000), 1);
        assert_int_equal(recv(silent[49].fd, &reply, sizeof(reply), 0), sizeof(reply));
        assert_int_equal(reply.error, -EPROTO);
        /* the others are turned away: the first at once, to make room */
        assert_int_equal(poll(&silent[0], 1, 0), 1);
        assert_int_equal(recv(silent[0].fd, &reply, sizeof(reply), 0), 0);
        for (int i = 0; i < 50; i++)
                (void)close(silent[i].fd);
}

/* Who asks and goes away leaves no worker behind. */
static void test_gone_client(void **state)
{
        struct rig *r = *state;
        _cleanup_close_ int qemu = -1;
        struct told t;

        for (int i = 0; i < 5; i++) {
                const int fd = connect_raw(r);

                assert_int_equal(send(fd, &r->q, sizeof(r->q), MSG_NOSIGNAL), sizeof(r->q));
                (void)close(fd);
        }
        assert_int_equal(serve(r, &qemu), 0);
        t = ask(qemu);
        assert_int_equal(t.fds, 6);
        assert_int_equal(t.shared, 1);
}

static void test_other_users(void **state)
{
        struct rig *r = *state;
        pid_t pid;
        int status;

        if (geteuid() != 0)
                skip();
        (void)close(connect_raw(r));
        assert_int_equal(chmod(r->dir, 0755), 0);
        assert_int_equal(chmod(r->path, 0666), 0);
        pid = fork();
        if (pid == 0) {
                int fd = -1;

                if (setuid(NOBODY) < 0)
                        _exit(90);
                _exit(bl_vsock_control_serve(r->path, &r->q, LIMIT, &fd) == -EPERM && fd < 0 ? 0 : 1);
        }
        status = wait_for_end(pid);
        assert_int_equal(status, 0);
}

static void test_supervisor_ends(void **state)
{
        struct rig *r = *state;
        _cleanup_close_ int qemu = -1;
        struct told a;

        assert_int_equal(serve(r, &qemu), 0);
        a = ask(qemu);
        stop_supervisor(r);
        assert_int_equal(access(r->path, F_OK), -1);
        assert_int_equal(ask(qemu).pid, a.pid);
        assert_int_equal(ask(qemu).fds, a.fds);
        bl_closep(&qemu);
        qemu = -1;
        assert_int_equal(wait_for_end(a.pid), 0); /* ours since its parent is gone */
}

static void test_supervisor_killed(void **state)
{
        struct rig *r = *state;
        _cleanup_close_ int qemu = -1, other = -1;
        struct told a;

        assert_int_equal(serve(r, &qemu), 0);
        a = ask(qemu);
        assert_int_equal(kill(r->supervisor, SIGKILL), 0);
        (void)wait_for_end(r->supervisor);
        assert_int_equal(access(r->path, F_OK), 0);
        /* the old socket is replaced, though a worker of the old one lives */
        r->supervisor = start_supervisor(r);
        r->q.cid = 44;
        assert_int_equal(serve(r, &other), 0);
        assert_int_equal(ask(other).cid, 44);
        assert_int_equal(ask(qemu).pid, a.pid);
        bl_closep(&qemu);
        qemu = -1;
        assert_int_equal(wait_for_end(a.pid), 0);
}

static void test_second_supervisor(void **state)
{
        struct rig *r = *state;
        _cleanup_close_ int qemu = -1;
        int status;

        assert_int_equal(serve(r, &qemu), 0);
        status = wait_for_end(start_supervisor(r));
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 1);
        bl_closep(&qemu);
        qemu = -1;
        assert_int_equal(serve(r, &qemu), 0);
        assert_int_equal(ask(qemu).cid, 42);
        /* a file of somebody's is not removed */
        stop_supervisor(r);
        assert_int_equal(bl_fs_write_atomic(r->path, "x", 1, 0600, false), 0);
        status = wait_for_end(start_supervisor(r));
        assert_int_equal(WEXITSTATUS(status), 1);
        assert_int_equal(access(r->path, F_OK), 0);
}

/* --- the client against others than a supervisor ------------------------------- */

/* Answers one request with `n` bytes of `reply` and a descriptor if `fd` is one. */
static int serve_wrongly(const struct rig *r, const void *reply, size_t n, int fd, int *ret_fd)
{
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        _cleanup_close_ int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        pid_t pid;
        int result;

        (void)snprintf(a.sun_path, sizeof(a.sun_path), "%s", r->path);
        assert_int_equal(bind(listener, (const struct sockaddr *)&a, sizeof(a)), 0);
        assert_int_equal(listen(listener, 1), 0);
        pid = fork();
        if (pid == 0) {
                union {
                        char buf[CMSG_SPACE(sizeof(int))];
                        struct cmsghdr align;
                } control = {.align = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(4)}};
                struct iovec part = {.iov_base = (void *)(uintptr_t)reply, .iov_len = n};
                struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
                const int client = accept(listener, NULL, NULL);
                char buf[64];

                if (client < 0 || recv(client, buf, sizeof(buf), 0) != sizeof(struct bl_vsock_request))
                        _exit(1);
                memcpy(CMSG_DATA(&control.align), &fd, sizeof(fd));
                if (fd >= 0) {
                        m.msg_control = &control;
                        m.msg_controllen = sizeof(control);
                }
                _exit(n > 0 && sendmsg(client, &m, MSG_NOSIGNAL) < 0);
        }
        result = bl_vsock_control_serve(r->path, &r->q, LIMIT, ret_fd);
        assert_int_equal(wait_for_end(pid), 0);
        assert_int_equal(unlink(r->path), 0);
        return result;
}

static void test_client(void **state)
{
        struct rig *r = *state;
        struct bl_vsock_reply reply = {.magic = BL_VSOCK_CONTROL_MAGIC};
        const char *path = r->path;
        uint32_t fds;
        usec_t began;
        int error, fd = -7;

        (void)close(connect_raw(r));
        stop_supervisor(r);
        fds = count_fds();
        assert_int_equal(bl_vsock_control_serve(path, &r->q, LIMIT, &fd), -ENOENT);
        assert_int_equal(bl_vsock_control_serve("", &r->q, LIMIT, &fd), -EINVAL);
        assert_int_equal(serve_wrongly(r, NULL, 0, -1, &fd), -EPROTO);
        assert_int_equal(serve_wrongly(r, &reply, sizeof(reply), -1, &fd), -EPROTO);
        assert_int_equal(serve_wrongly(r, &reply, sizeof(reply) - 1, 0, &fd), -EPROTO);
        reply.error = 1;
        assert_int_equal(serve_wrongly(r, &reply, sizeof(reply), -1, &fd), -EPROTO);
        reply.error = INT32_MIN;
        assert_int_equal(serve_wrongly(r, &reply, sizeof(reply), -1, &fd), -EPROTO);
        reply.error = -EAGAIN;
        assert_int_equal(serve_wrongly(r, &reply, sizeof(reply), 0, &fd), -EPROTO);
        assert_int_equal(serve_wrongly(r, &reply, sizeof(reply), -1, &fd), -EAGAIN);
        reply.magic++;
        assert_int_equal(serve_wrongly(r, &reply, sizeof(reply), -1, &fd), -EPROTO);
        assert_int_equal(fd, -7);
        assert_int_equal(count_fds(), fds);
        /* one that is stopped is waited for as long as the caller says */
        r->supervisor = start_supervisor(r);
        (void)close(connect_raw(r));
        assert_int_equal(kill(r->supervisor, SIGSTOP), 0);
        began = bl_now();
        assert_int_equal(bl_vsock_control_serve(path, &r->q, 100 * BL_MSEC, &fd), -ETIMEDOUT);
        assert_true(bl_now() - began >= 100 * BL_MSEC);
        assert_int_equal(kill(r->supervisor, SIGCONT), 0);
        /* one that died left its socket */
        assert_int_equal(kill(r->supervisor, SIGKILL), 0);
        (void)wait_for_end(r->supervisor);
        r->supervisor = 0;
        /* a worker that it was just making may have the socket for a moment */
        began = bl_now();
        do
                error = bl_vsock_control_serve(path, &r->q, LIMIT, &fd);
        while (error == -ECONNRESET && bl_now() - began < 5 * BL_SEC);
        assert_int_equal(error, -ECONNREFUSED);
        assert_int_equal(fd, -7);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_serve),           TEST(test_successor),         TEST(test_deaths),
                TEST(test_worker_ends),     TEST(test_isolated),          TEST(test_wrong_process),
                TEST(test_silent_clients),  TEST(test_gone_client),       TEST(test_other_users),
                TEST(test_supervisor_ends), TEST(test_supervisor_killed), TEST(test_second_supervisor),
                TEST(test_client),
        };

        /* workers that outlive their supervisor are waited for here */
        if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
                return 1;
        return cmocka_run_group_tests(tests, NULL, NULL);
}
