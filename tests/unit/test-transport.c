/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Transports that are called: who may, and who is turned away. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cmocka.h>

#include <linux/vm_sockets.h>

#include <ballast/cleanup.h>
#include <ballast/wire.h>

#include "daemon/channel/vhost_user_vsock.h"
#include "daemon/channel/vhost_vsock.h"

#define UUID "6f1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"

static const uint8_t uuid[BL_UUID_LEN] = {
        0x6f, 0x1b, 0x2c, 0x3d, 0x4e, 0x5f, 0x4a, 0x6b, 0x8c, 0x7d, 0x9e, 0x0f, 0x1a, 0x2b, 0x3c, 0x4d,
};

static const struct bl_transport *const vu = &bl_transport_vhost_user_vsock;
static const struct bl_transport *const vh = &bl_transport_vhost_vsock;

struct place {
        char dir[64];
        char path[96];
        int fd;
};

static int setup(void **state)
{
        struct place *p = calloc(1, sizeof *p);

        assert_non_null(p);
        (void)snprintf(p->dir, sizeof p->dir, "/tmp/test-transport.XXXXXX");
        assert_non_null(mkdtemp(p->dir));
        assert_int_equal(chmod(p->dir, 0755), 0);
        (void)snprintf(p->path, sizeof p->path, "%s/" BL_VHOST_USER_VSOCK_SOCKET, p->dir);
        p->fd = -1;
        *state = p;
        return 0;
}

static int teardown(void **state)
{
        struct place *p = *state;

        bl_closep(&p->fd);
        (void)unlink(p->path);
        assert_int_equal(rmdir(p->dir), 0);
        free(p);
        return 0;
}

static void assert_flags(int fd)
{
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
}

/* Calls `path` with a name of its own of `len` bytes; 0: none. */
static int call(const char *path, const char *name, size_t len)
{
        struct sockaddr_un to = {.sun_family = AF_UNIX}, own = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        assert_true(fd >= 0);
        if (len > 0) {
                memcpy(own.sun_path, name, len);
                assert_int_equal(
                        bind(fd, (struct sockaddr *)&own, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)),
                        0);
        }
        (void)snprintf(to.sun_path, sizeof to.sun_path, "%s", path);
        assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
        return fd;
}

static void test_takes_our_backend(void **state)
{
        static const char name[] = "\0" BL_VHOST_USER_VSOCK_NAME UUID "/12";
        struct place *p = *state;
        struct bl_agent_caller who = {.cid = 77};
        struct stat st;
        char c;

        assert_int_equal(vu->listen(p->path, &p->fd), 0);
        assert_flags(p->fd);
        assert_int_equal(lstat(p->path, &st), 0);
        assert_true(S_ISSOCK(st.st_mode));
        assert_int_equal(st.st_mode & 07777, 0600);
        {
                _cleanup_close_ int guest = call(p->path, name, sizeof name - 1);
                _cleanup_close_ int fd = -1;
                int again = -7;

                assert_int_equal(vu->accept(p->fd, &who, &fd), 0);
                assert_flags(fd);
                assert_true(who.has_uuid && who.cid == 0);
                assert_memory_equal(who.uuid, uuid, sizeof uuid);
                assert_int_equal(send(guest, "x", 1, MSG_NOSIGNAL), 1);
                assert_int_equal(recv(fd, &c, 1, 0), 1);
                assert_int_equal(vu->accept(p->fd, &who, &again), -EAGAIN);
                assert_int_equal(again, -7);
        }
}

static void test_refuses_names(void **state)
{
#define NAME(s)                    \
        {                          \
                (s), sizeof(s) - 1 \
        }
        static const struct {
                const char *name;
                size_t len;
        } wrong[] = {
                {NULL, 0},
                NAME("\0ballast-vsock/"),
                NAME("\0ballast-vsock/" UUID),
                NAME("\0ballast-vsock/" UUID "/"),
                NAME("\0ballast-vsock/" UUID "-/1"),
                NAME("\0ballast-vsock/6f1b2c3d4e5f4a6b8c7d9e0f1a2b3c4d/1"),
                NAME("\0ballast-vsock/6F1B2C3D-4E5F-4A6B-8C7D-9E0F1A2B3C4D/1"),
                NAME("\0ballast-vsock/6f1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4/11"),
                NAME("\0ballast-vsock/6f1b2c3-d4e5f-4a6b-8c7d-9e0f1a2b3c4d/1"),
                NAME("\0ballast-vsock/6f1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3cxx/1"),
                NAME("\0ballast-vsock/" UUID "\0/1"),
                NAME("\0ballast-vsock/" UUID "/1\0"),
                NAME("\0Ballast-vsock/" UUID "/1"),
                NAME("\0ballast-vsocks" UUID "/1"),
                NAME("\0x"),
                /* all of sun_path, without an end */
                NAME("\0ballast-vsock/" UUID "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
        };
        struct place *p = *state;
        char in_files[128];

        assert_int_equal(vu->listen(p->path, &p->fd), 0);
        for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
                _cleanup_close_ int guest = call(p->path, wrong[i].name, wrong[i].len);
                struct bl_agent_caller who = {.cid = 77};
                int fd = -7;
                char c;

                assert_int_equal(vu->accept(p->fd, &who, &fd), -EPERM);
                assert_int_equal(fd, -7);
                assert_true(who.cid == 77 && !who.has_uuid); /* untouched */
                assert_int_equal(recv(guest, &c, 1, 0), 0); /* closed without a word */
                assert_int_equal(vu->accept(p->fd, &who, &fd), -EAGAIN);
        }
        /* a name among files is anybody's who may write there */
        (void)snprintf(in_files, sizeof in_files, "%s/x", p->dir);
        {
                _cleanup_close_ int guest = call(p->path, in_files, strlen(in_files) + 1);
                struct bl_agent_caller who;
                int fd = -7;

                assert_true(guest >= 0);
                assert_int_equal(vu->accept(p->fd, &who, &fd), -EPERM);
        }
        assert_int_equal(unlink(in_files), 0);
}

/* The right name from the wrong user, whom a mistake has let come to the socket. */
static void test_refuses_other_users(void **state)
{
        static const char name[] = "\0" BL_VHOST_USER_VSOCK_NAME UUID "/other";
        struct place *p = *state;
        struct bl_agent_caller who;
        int fd = -7, status;
        pid_t pid;

        if (geteuid() != 0)
                skip();
        assert_int_equal(vu->listen(p->path, &p->fd), 0);
        assert_int_equal(chmod(p->path, 0666), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* else a failed assertion leaves it behind */
                if (setgid(65534) < 0 || setuid(65534) < 0)
                        _exit(1);
                _exit(call(p->path, name, sizeof name - 1) >= 0 ? 0 : 1);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        assert_int_equal(vu->accept(p->fd, &who, &fd), -EPERM);
        assert_int_equal(vu->accept(p->fd, &who, &fd), -EAGAIN);

        /* nor does the mode of the file let one come */
        assert_int_equal(chmod(p->path, 0600), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                struct sockaddr_un to = {.sun_family = AF_UNIX};
                int s = socket(AF_UNIX, SOCK_STREAM, 0);

                (void)snprintf(to.sun_path, sizeof to.sun_path, "%s", p->path);
                if (setgid(65534) < 0 || setuid(65534) < 0)
                        _exit(1);
                _exit(connect(s, (struct sockaddr *)&to, sizeof to) < 0 && errno == EACCES ? 0 : 1);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void test_replaces_a_stale_socket(void **state)
{
        static const char name[] = "\0" BL_VHOST_USER_VSOCK_NAME UUID "/stale";
        struct place *p = *state;
        struct bl_agent_caller who;
        int old = -1;

        assert_int_equal(vu->listen(p->path, &old), 0);
        bl_closep(&old); /* as after kill -9: the file is still there */
        assert_int_equal(access(p->path, F_OK), 0);
        assert_int_equal(vu->listen(p->path, &p->fd), 0);
        {
                _cleanup_close_ int guest = call(p->path, name, sizeof name - 1);
                _cleanup_close_ int fd = -1;

                assert_true(guest >= 0);
                assert_int_equal(vu->accept(p->fd, &who, &fd), 0);
        }
}

static void test_keeps_what_is_no_socket(void **state)
{
        struct place *p = *state;
        char target[128], longest[200];
        struct stat st;
        int fd = open(p->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644), got = -7;

        assert_true(fd >= 0);
        assert_int_equal(write(fd, "mine", 4), 4);
        bl_closep(&fd);
        assert_int_equal(vu->listen(p->path, &got), -EEXIST);
        assert_int_equal(stat(p->path, &st), 0);
        assert_true(S_ISREG(st.st_mode) && st.st_size == 4);
        assert_int_equal(unlink(p->path), 0);
        /* nor what a link leads to */
        (void)snprintf(target, sizeof target, "%s/target", p->dir);
        assert_int_equal(symlink(target, p->path), 0);
        assert_int_equal(vu->listen(p->path, &got), -EEXIST);
        assert_int_equal(unlink(p->path), 0);

        memset(longest, 'a', sizeof longest - 1);
        longest[sizeof longest - 1] = '\0';
        assert_int_equal(vu->listen(longest, &got), -ENAMETOOLONG);
        assert_int_equal(vu->listen("", &got), -EINVAL);
        assert_int_equal(vu->listen(NULL, &got), -EINVAL);
        (void)snprintf(target, sizeof target, "%s/no/s", p->dir);
        assert_int_equal(vu->listen(target, &got), -ENOENT);
        assert_int_equal(got, -7);
}

/* --- vhost-vsock ---------------------------------------------------------------------- */

/* CID 1 is this machine itself; it can be had where the kernel has vsock_loopback, and
 * only then, so that no other machine is called.  -1: it has not. */
static int call_loopback(unsigned int from_port)
{
        struct sockaddr_vm own = {.svm_family = AF_VSOCK, .svm_port = from_port, .svm_cid = VMADDR_CID_LOCAL};
        struct sockaddr_vm to = {
                .svm_family = AF_VSOCK,
                .svm_port = BL_WIRE_VSOCK_PORT,
                .svm_cid = VMADDR_CID_LOCAL,
        };
        _cleanup_close_ int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

        assert_true(fd >= 0);
        if (bind(fd, (struct sockaddr *)&own, sizeof own) < 0) {
                assert_int_equal(errno, EADDRNOTAVAIL);
                return -1;
        }
        assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
        return bl_take_fd(&fd);
}

/* The port is one for the whole machine, network namespaces or not: a daemon or another test may have it. */
static int listen_in_turn(int *ret_fd)
{
        int r = vh->listen(NULL, ret_fd);

        for (int i = 0; i < 20 && r == -EADDRINUSE; i++) {
                (void)usleep(50000);
                r = vh->listen(NULL, ret_fd);
        }
        return r;
}

static void test_vsock(void **state)
{
        struct place *p = *state;
        struct bl_agent_caller who = {.has_uuid = true};
        int r = listen_in_turn(&p->fd);

        if (r < 0) {
                print_message("no vsock here: %s\n", strerror(-r));
                assert_int_equal(p->fd, -1);
                assert_true(r == -EAFNOSUPPORT || r == -ENODEV || r == -EADDRINUSE || (r == -EACCES && geteuid() != 0));
                return;
        }
        assert_flags(p->fd);
        {
                _cleanup_close_ int guest = call_loopback(BL_WIRE_VSOCK_PORT_ROOT - 1);
                _cleanup_close_ int anybody = call_loopback(BL_WIRE_VSOCK_PORT_ROOT);
                _cleanup_close_ int fd = -1;
                int other = -7;
                char c;

                assert_int_equal(guest < 0, anybody < 0);
                if (guest < 0) {
                        print_message("no vsock_loopback here\n");
                        assert_int_equal(vh->accept(p->fd, &who, &other), -EAGAIN);
                        assert_true(who.has_uuid && other == -7);
                        return;
                }
                assert_int_equal(vh->accept(p->fd, &who, &fd), 0);
                assert_flags(fd);
                assert_true(who.cid == VMADDR_CID_LOCAL && !who.has_uuid);
                assert_int_equal(vh->accept(p->fd, &who, &other), -EPERM);
                assert_int_equal(vh->accept(p->fd, &who, &other), -EAGAIN);
                assert_int_equal(other, -7);
                assert_int_equal(send(guest, "x", 1, MSG_NOSIGNAL), 1);
                assert_int_equal(recv(fd, &c, 1, 0), 1);
                assert_int_equal(recv(anybody, &c, 1, 0), 0);
        }
}

static void test_peers(void **state)
{
        (void)state;
        assert_null(vu->connect);
        assert_null(vh->connect);
        assert_string_equal(vu->name, "vhost-user-vsock");
        assert_string_equal(vh->name, "vhost-vsock");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_takes_our_backend, setup, teardown),
                cmocka_unit_test_setup_teardown(test_refuses_names, setup, teardown),
                cmocka_unit_test_setup_teardown(test_refuses_other_users, setup, teardown),
                cmocka_unit_test_setup_teardown(test_replaces_a_stale_socket, setup, teardown),
                cmocka_unit_test_setup_teardown(test_keeps_what_is_no_socket, setup, teardown),
                cmocka_unit_test_setup_teardown(test_vsock, setup, teardown),
                cmocka_unit_test(test_peers),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
