/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The store's control socket, over a real store: right requests, wrong ones, clients that hang or go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/store/arena.h"
#include "daemon/store/control_server.h"
#include "daemon/store/peers.h"
#include "daemon/util/sock.h"

#define VMS    300U
#define LIMIT  5000 /* ms for an answer */
#define NOBODY 65534

struct rig {
        char dir[64], path[80];
        struct bl_store *store;
        struct bl_events events;
        struct bl_control_server *server;
        int notify;
        atomic_uint registered;
        _Atomic uint64_t reserved;
};

/* --- help ----------------------------------------------------------------------- */

static void registered(void *userdata)
{
        struct rig *g = userdata;

        g->registered++;
}

static void reserve(void *userdata, uint64_t bytes)
{
        struct rig *g = userdata;

        g->reserved = bytes;
}

static uint64_t fixed(void *userdata, const struct bl_store_figures *f)
{
        (void)userdata;
        return f->incarnation ^ 1;
}

static int listen_at(const char *path, int type)
{
        const int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
        struct sockaddr_un a;

        if (fd < 0 || bl_sock_address(path, &a) < 0 || bind(fd, (const struct sockaddr *)&a, sizeof(a)) < 0)
                return -1;
        if (type == SOCK_SEQPACKET && (chmod(path, 0666) < 0 || listen(fd, 64) < 0))
                return -1;
        return fd;
}

static int setup(void **state)
{
        const struct bl_arena_options ao = {.kind = BL_ARENA_PRIVATE, .size = 64 * BL_MIB, .version = 1};
        struct bl_store_options so = {.on_event = bl_events_push};
        struct bl_control_server_options o = {.registered = registered, .reserve = reserve, .fixed = fixed};
        struct rig *g = calloc(1, sizeof(*g));
        char *message = NULL, notify[80];

        if (!g)
                return -1;
        bl_events_init(&g->events);
        so.userdata = &g->events;
        (void)snprintf(g->dir, sizeof(g->dir), "/tmp/ballast-control-XXXXXX");
        if (!mkdtemp(g->dir) || chmod(g->dir, 0755) < 0)
                return -1;
        (void)snprintf(g->path, sizeof(g->path), "%s/control.sock", g->dir);
        (void)snprintf(notify, sizeof(notify), "%s/notify.sock", g->dir);
        g->notify = listen_at(notify, SOCK_DGRAM);
        (void)setenv("NOTIFY_SOCKET", notify, 1);
        if (bl_arena_open(&ao, &so.arena, &message) < 0 || bl_store_open(&so, &g->store, &message) < 0)
                return -1;
        o.fd = listen_at(g->path, SOCK_SEQPACKET);
        o.store = g->store;
        o.events = &g->events;
        o.watchdog = 50 * BL_MSEC;
        o.userdata = g;
        if (o.fd < 0 || g->notify < 0 || bl_control_server_start(&o, &g->server) < 0)
                return -1;
        *state = g;
        return 0;
}

static int teardown(void **state)
{
        struct rig *g = *state;
        char notify[80];

        (void)bl_control_server_stop(g->server);
        (void)bl_store_close(g->store);
        (void)close(g->notify);
        (void)snprintf(notify, sizeof(notify), "%s/notify.sock", g->dir);
        (void)unlink(notify);
        (void)unlink(g->path);
        (void)unsetenv("NOTIFY_SOCKET");
        if (rmdir(g->dir) < 0)
                return -1;
        free(g);
        return 0;
}

static int call(const struct rig *g)
{
        const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        struct sockaddr_un a;

        assert_int_equal(bl_sock_address(g->path, &a), 0);
        assert_int_equal(connect(fd, (const struct sockaddr *)&a, sizeof(a)), 0);
        return fd;
}

/* False: the other side has closed. */
static bool receive(int fd, struct bl_store_reply *ret)
{
        struct pollfd p = {.fd = fd, .events = POLLIN};
        ssize_t n;

        assert_int_equal(poll(&p, 1, LIMIT), 1);
        n = recv(fd, ret, sizeof(*ret), MSG_TRUNC);
        if (n == 0 || (n < 0 && errno == ECONNRESET))
                return false;
        assert_int_equal(n, sizeof(*ret));
        assert_int_equal(ret->magic, BL_STORE_CONTROL_MAGIC);
        assert_true(ret->n_vms <= BL_STORE_REPLY_VMS);
        return true;
}

static int32_t ask(int fd, struct bl_store_request *q, struct bl_store_reply *ret)
{
        q->magic = BL_STORE_CONTROL_MAGIC;
        assert_int_equal(send(fd, q, sizeof(*q), MSG_NOSIGNAL), sizeof(*q));
        assert_true(receive(fd, ret));
        return ret->status;
}

static struct bl_store_request registration(unsigned i)
{
        struct bl_store_request q = {
                .op = BL_STORE_OP_REGISTER,
                .registration = {.pid = (pid_t)(1000 + i),
                                 .start = 7 + i,
                                 .size = 4 * BL_STORE_PAGE,
                                 .limit = BL_UNSET},
        };

        memcpy(q.registration.uuid, &i, sizeof(i));
        q.registration.uuid[15] = 1;
        q.registration.stamp = BL_UNSET;
        return q;
}

/* The whole answer to STATUS; returns how many VMs, each seen once. */
static unsigned ask_status(int fd, struct bl_store_reply *ret_first)
{
        struct bl_store_request q = {.op = BL_STORE_OP_STATUS};
        struct bl_store_reply r;
        bool seen[VMS] = {};
        unsigned n = 0;

        assert_int_equal(ask(fd, &q, ret_first), 0);
        r = *ret_first;
        for (;;) {
                for (unsigned i = 0; i < r.n_vms; i++) {
                        unsigned which;

                        memcpy(&which, r.vms[i].uuid, sizeof(which));
                        assert_true(which < VMS);
                        assert_false(seen[which]);
                        seen[which] = true;
                        assert_int_equal(r.vms[i].pid, 1000 + which);
                        n++;
                }
                if (!r.more)
                        return n;
                assert_true(receive(fd, &r));
        }
}

static void alive(const struct rig *g)
{
        struct bl_store_reply r;
        const int fd = call(g);

        (void)ask_status(fd, &r);
        (void)close(fd);
}

/* --- tests ------------------------------------------------------------------------- */

static void test_requests(void **state)
{
        struct rig *g = *state;
        struct bl_store_request q = registration(3);
        struct bl_store_reply r;
        const int fd = call(g);

        assert_int_equal(ask_status(fd, &r), 0);
        assert_int_not_equal(r.figures.incarnation, 0);
        assert_int_equal(r.figures.pool_size, 64 * BL_MIB);
        assert_int_equal(r.fixed, r.figures.incarnation ^ 1);

        assert_int_equal(ask(fd, &q, &r), 0);
        assert_int_equal(r.figures.promised, 4 * BL_STORE_PAGE);
        assert_int_equal(g->registered, 1);
        assert_int_equal(ask_status(fd, &r), 1);
        assert_int_equal(r.vms[0].size, 4 * BL_STORE_PAGE);

        q.op = BL_STORE_OP_FORGET;
        assert_int_equal(ask(fd, &q, &r), 0);
        assert_int_equal(g->registered, 2);
        assert_int_equal(ask(fd, &q, &r), -ENOENT);
        assert_int_equal(g->registered, 2);
        assert_int_equal(ask_status(fd, &r), 0);

        q.op = BL_STORE_OP_RESERVE;
        q.bytes = 12345;
        assert_int_equal(ask(fd, &q, &r), 0);
        assert_int_equal(g->reserved, 12345);
        (void)close(fd);
}

static void test_refused(void **state)
{
        struct rig *g = *state;
        struct bl_store_request q;
        struct bl_store_reply r;
        const int fd = call(g);

        q = registration(1);
        memset(q.registration.group, 'x', sizeof(q.registration.group));
        assert_int_equal(ask(fd, &q, &r), -EINVAL);
        q = registration(1);
        q.registration.pid = 0;
        assert_int_equal(ask(fd, &q, &r), -EINVAL);
        q = registration(1);
        q.registration.size = 1000 * BL_GIB;
        assert_int_equal(ask(fd, &q, &r), -ENOSPC);
        assert_true(r.figures.backing < q.registration.size);
        q = (struct bl_store_request){.op = _BL_STORE_OP_MAX};
        assert_int_equal(ask(fd, &q, &r), -EOPNOTSUPP);
        q.op = 0;
        assert_int_equal(ask(fd, &q, &r), -EOPNOTSUPP);
        q.op = UINT32_MAX;
        assert_int_equal(ask(fd, &q, &r), -EOPNOTSUPP);
        assert_int_equal(g->registered, 0);
        (void)close(fd);
}

static void test_wrong_packets(void **state)
{
        struct rig *g = *state;
        uint8_t junk[2 * sizeof(struct bl_store_request)];
        const size_t sizes[] = {1,
                                3,
                                sizeof(struct bl_store_request) - 1,
                                sizeof(struct bl_store_request),
                                sizeof(struct bl_store_request) + 1,
                                sizeof(junk)};
        struct bl_store_reply r;

        memset(junk, 0xa5, sizeof(junk));
        for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
                const int fd = call(g);

                assert_int_equal(send(fd, junk, sizes[i], MSG_NOSIGNAL), sizes[i]);
                assert_true(receive(fd, &r));
                assert_int_equal(r.status, -EPROTO);
                assert_false(receive(fd, &r));
                (void)close(fd);
        }
        alive(g);
}

/* Random requests of the right size and magic: whatever they say, it answers. */
static void test_random_requests(void **state)
{
        struct rig *g = *state;
        struct bl_store_reply r;
        const int fd = call(g);
        uint64_t x = 88172645463325252;

        for (unsigned i = 0; i < 2000; i++) {
                struct bl_store_request q;

                for (size_t k = 0; k < sizeof(q); k += sizeof(uint32_t)) {
                        const uint32_t word = (uint32_t)(x >> 16);

                        memcpy((char *)&q + k, &word, sizeof(word));
                        x ^= x << 13;
                        x ^= x >> 7;
                        x ^= x << 17;
                }
                q.op = (uint32_t)(x >> 8) % (_BL_STORE_OP_MAX + 1);
                if (q.op == BL_STORE_OP_REGISTER && i % 2 == 0)
                        q.registration.group[BL_STORE_GROUP - 1] = '\0';
                q.magic = BL_STORE_CONTROL_MAGIC;
                assert_int_equal(send(fd, &q, sizeof(q), MSG_NOSIGNAL), sizeof(q));
                do
                        assert_true(receive(fd, &r));
                while (r.more);
                assert_true(r.status <= 0);
        }
        (void)close(fd);
        alive(g);
}

static void test_many_vms(void **state)
{
        struct rig *g = *state;
        struct bl_store_reply r;
        const int fd = call(g);

        for (unsigned i = 0; i < VMS; i++) {
                struct bl_store_request q = registration(i);

                assert_int_equal(ask(fd, &q, &r), 0);
        }
        assert_int_equal(ask_status(fd, &r), VMS);
        assert_int_equal(ask_status(fd, &r), VMS);
        (void)close(fd);
}

/* Those who do not take their answer hold up nobody, and are let go. */
static void test_client_that_does_not_read(void **state)
{
        struct rig *g = *state;
        struct bl_store_request q;
        struct bl_store_reply r;
        const int one = 1;
        const int fd = call(g), stuck = call(g);

        for (unsigned i = 0; i < VMS; i++) {
                q = registration(i);
                assert_int_equal(ask(fd, &q, &r), 0);
        }
        assert_int_equal(setsockopt(stuck, SOL_SOCKET, SO_RCVBUF, &one, sizeof(one)), 0);
        q = (struct bl_store_request){.magic = BL_STORE_CONTROL_MAGIC, .op = BL_STORE_OP_STATUS};
        for (unsigned i = 0; i < 64; i++)
                if (send(stuck, &q, sizeof(q), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
                        break;
        for (unsigned i = 0; i < 20; i++)
                assert_int_equal(ask_status(fd, &r), VMS);
        /* what it was sent is still there, but not all of it */
        (void)usleep(6000000);
        while (receive(stuck, &r))
                ;
        assert_int_equal(ask_status(fd, &r), VMS);
        (void)close(stuck);
        (void)close(fd);
}

/* Many who say nothing: who asks again and again is not the one that gives way. */
static void test_silent_clients(void **state)
{
        struct rig *g = *state;
        struct bl_store_reply r;
        const int fd = call(g);
        int others[100];

        for (unsigned i = 0; i < 100; i++) {
                others[i] = call(g);
                (void)ask_status(fd, &r);
        }
        (void)ask_status(fd, &r);
        for (unsigned i = 0; i < 100; i++)
                (void)close(others[i]);
        (void)ask_status(fd, &r);
        (void)close(fd);
}

/* Gone between question and answer. */
static void test_clients_that_go(void **state)
{
        struct rig *g = *state;
        const struct bl_store_request q = {.magic = BL_STORE_CONTROL_MAGIC, .op = BL_STORE_OP_STATUS};

        for (unsigned i = 0; i < 500; i++) {
                const int fd = call(g);

                assert_int_equal(send(fd, &q, sizeof(q), MSG_NOSIGNAL), sizeof(q));
                (void)close(fd);
        }
        alive(g);
}

static void test_not_root(void **state)
{
        struct rig *g = *state;
        pid_t pid;
        int status;

        if (geteuid() != 0)
                skip();
        pid = fork();
        if (pid == 0) {
                struct bl_store_request q = registration(1);
                struct sockaddr_un a;
                char c;
                int fd;

                q.magic = BL_STORE_CONTROL_MAGIC;
                if (setuid(NOBODY) < 0 || bl_sock_address(g->path, &a) < 0)
                        _exit(1);
                fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
                if (connect(fd, (const struct sockaddr *)&a, sizeof(a)) < 0)
                        _exit(2);
                (void)send(fd, &q, sizeof(q), MSG_NOSIGNAL);
                _exit(recv(fd, &c, 1, 0) <= 0 ? 42 : 3);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 42);
        assert_int_equal(g->registered, 0);
}

static void push(struct rig *g, unsigned from, unsigned n)
{
        for (unsigned i = from; i < from + n; i++) {
                const struct bl_store_event ev = {.kind = BL_STORE_DAMAGED, .offset = i};

                bl_events_push(&g->events, &ev);
        }
}

static void expect(int fd, unsigned from, unsigned n)
{
        struct bl_store_reply r;

        while (n > 0) {
                (void)ask_status(fd, &r);
                assert_true(r.n_events > 0 && r.n_events <= n);
                for (unsigned i = 0; i < r.n_events; i++)
                        assert_int_equal(r.events[i].offset, from + i);
                from += r.n_events;
                n -= r.n_events;
        }
        (void)ask_status(fd, &r);
        assert_int_equal(r.n_events, 0);
}

/* Who comes back finds what happened meanwhile, once; another one does not take it from who is there. */
static void test_events(void **state)
{
        struct rig *g = *state;
        struct bl_store_reply r;
        int fd = call(g), other;

        push(g, 0, 20);
        expect(fd, 0, 20);
        push(g, 20, 3);
        other = call(g);
        expect(other, 20, 3);
        expect(fd, 20, 3);
        (void)close(fd);
        (void)close(other);
        push(g, 23, 2);
        fd = call(g);
        expect(fd, 23, 2);
        push(g, 25, BL_EVENTS + 10);
        expect(fd, 35, BL_EVENTS);
        (void)ask_status(fd, &r);
        assert_int_equal(r.events_lost, 10);
        (void)close(fd);
}

static void test_watchdog(void **state)
{
        struct rig *g = *state;
        struct pollfd p = {.fd = g->notify, .events = POLLIN};
        char text[64];

        for (unsigned i = 0; i < 3; i++) {
                ssize_t n;

                assert_int_equal(poll(&p, 1, LIMIT), 1);
                n = recv(g->notify, text, sizeof(text) - 1, 0);
                assert_true(n > 0);
                text[n] = '\0';
                assert_string_equal(text, "WATCHDOG=1");
        }
}

static void *admit(void *p)
{
        return (void *)(intptr_t)bl_peers_admit(p, getpid());
}

static void test_peers(void **state)
{
        struct rig *g = *state;
        struct bl_store_request q = registration(1);
        struct bl_store_reply r;
        struct bl_peers *p;
        const int fd = call(g);
        pthread_t thread;
        pid_t child;
        int status;
        void *ret;

        assert_int_equal(bl_peers_new(&p), 0);
        assert_int_equal(bl_peers_refresh(p, g->store), 0);
        assert_int_equal(bl_peers_admit(p, getpid()), -EPERM);
        q.registration.pid = getpid();
        assert_int_equal(bl_peer_start(getpid(), &q.registration.start), 0);
        q.registration.start++; /* one that had our number */
        assert_int_equal(ask(fd, &q, &r), 0);
        assert_int_equal(bl_peers_refresh(p, g->store), 0);
        assert_int_equal(bl_peers_admit(p, getpid()), -EPERM);
        q.registration.start--;
        assert_int_equal(ask(fd, &q, &r), 0);
        assert_int_equal(bl_peers_refresh(p, g->store), 0);
        assert_int_equal(pthread_create(&thread, NULL, admit, p), 0);
        assert_int_equal(pthread_join(thread, &ret), 0);
        assert_null(ret);
        child = fork();
        if (child == 0)
                _exit(bl_peers_admit(p, getpid()) == -EPERM ? 42 : 1);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(WEXITSTATUS(status), 42);
        assert_int_equal(bl_peer_start(child, &q.registration.start), -ESRCH);
        (void)close(fd);
        assert_null(bl_peers_free(p));
        assert_null(bl_peers_free(NULL));
}

struct crowd {
        struct bl_peers *peers;
        pthread_barrier_t all, done;
};

static void *admit_and_stay(void *userdata)
{
        struct crowd *c = userdata;
        const int r = bl_peers_admit(c->peers, getpid());

        (void)pthread_barrier_wait(&c->all);
        (void)pthread_barrier_wait(&c->done);
        return (void *)(intptr_t)r;
}

/* So many and no more; those that ended do not count. */
static void test_crowd(void **state)
{
        struct rig *g = *state;
        struct bl_store_request q = registration(1);
        pthread_t threads[BL_PEER_CONNECTIONS];
        struct bl_store_reply r;
        struct crowd c;
        const int fd = call(g);
        void *ret;

        assert_int_equal(bl_peers_new(&c.peers), 0);
        q.registration.pid = getpid();
        assert_int_equal(bl_peer_start(getpid(), &q.registration.start), 0);
        assert_int_equal(ask(fd, &q, &r), 0);
        assert_int_equal(bl_peers_refresh(c.peers, g->store), 0);
        (void)pthread_barrier_init(&c.all, NULL, BL_PEER_CONNECTIONS + 1);
        (void)pthread_barrier_init(&c.done, NULL, BL_PEER_CONNECTIONS + 1);
        for (unsigned i = 0; i < BL_PEER_CONNECTIONS; i++)
                assert_int_equal(pthread_create(&threads[i], NULL, admit_and_stay, &c), 0);
        (void)pthread_barrier_wait(&c.all);
        assert_int_equal((intptr_t)admit(c.peers), -EAGAIN);
        /* another VM comes meanwhile */
        q = registration(2);
        assert_int_equal(ask(fd, &q, &r), 0);
        assert_int_equal(bl_peers_refresh(c.peers, g->store), 0);
        assert_int_equal((intptr_t)admit(c.peers), -EAGAIN);
        (void)pthread_barrier_wait(&c.done);
        for (unsigned i = 0; i < BL_PEER_CONNECTIONS; i++) {
                assert_int_equal(pthread_join(threads[i], &ret), 0);
                assert_null(ret);
        }
        for (unsigned i = 0; i < 3 * BL_PEER_CONNECTIONS; i++) {
                assert_int_equal(pthread_create(&threads[0], NULL, admit, c.peers), 0);
                assert_int_equal(pthread_join(threads[0], &ret), 0);
                assert_null(ret);
        }
        (void)pthread_barrier_destroy(&c.all);
        (void)pthread_barrier_destroy(&c.done);
        (void)bl_peers_free(c.peers);
        (void)close(fd);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_requests, setup, teardown),
                cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
                cmocka_unit_test_setup_teardown(test_wrong_packets, setup, teardown),
                cmocka_unit_test_setup_teardown(test_random_requests, setup, teardown),
                cmocka_unit_test_setup_teardown(test_many_vms, setup, teardown),
                cmocka_unit_test_setup_teardown(test_client_that_does_not_read, setup, teardown),
                cmocka_unit_test_setup_teardown(test_silent_clients, setup, teardown),
                cmocka_unit_test_setup_teardown(test_clients_that_go, setup, teardown),
                cmocka_unit_test_setup_teardown(test_not_root, setup, teardown),
                cmocka_unit_test_setup_teardown(test_events, setup, teardown),
                cmocka_unit_test_setup_teardown(test_watchdog, setup, teardown),
                cmocka_unit_test_setup_teardown(test_peers, setup, teardown),
                cmocka_unit_test_setup_teardown(test_crowd, setup, teardown),
        };

        cmocka_set_message_output(CM_OUTPUT_TAP);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
