/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* This process plays QEMU, the guest's driver, the supervisor and ballastd; the worker is a child. */
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
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ballast/units.h>
#include <ballast/wire.h>

#include "daemon/util/clock.h"
#include "daemon/util/fs.h"
#include "daemon/util/procstat.h"
#include "daemon/vsock/keep.h"
#include "daemon/vsock/mux.h"
#include "daemon/vsock/vsock_packet.h"

#define CID    42U
#define GPA    UINT64_C(0x40000000)
#define RAM    0x100000U
#define NUM    16U
#define BUFFER 0x1000U
#define LIMIT  (5 * BL_SEC)
#define PORT   77U
#define UUID   "00010203-0405-0607-0809-0a0b0c0d0e0f"

#define NEXT  1U
#define WRITE 2U

enum { RX, TX };

/* where a ring has what, in `ram` */
#define DESC(i)  (0x3000U * (i))
#define AVAIL(i) (0x3000U * (i) + 0x1000U)
#define USED(i)  (0x3000U * (i) + 0x2000U)
#define DATA(i)  (0x10000U + 0x20000U * (i))

static struct {
        uint8_t *ram; /* the guest's, private to this process */
        struct bl_keep *keep;
        int fds[_BL_KEEP_FD_MAX]; /* the supervisor's */
        int qemu, up; /* our ends */
        int worker_up;
        int kick[2], call[2];
        uint16_t avail[2], used[2]; /* the driver's positions */
        unsigned room; /* for data in each receive buffer */
        pid_t worker;
        int listener;
        char dir[32], path[64];
} t;

/* --- the guest's driver ---------------------------------------------------- */

static void put16(uint32_t at, uint16_t v)
{
        __atomic_store_n((uint16_t *)(void *)(t.ram + at), v, __ATOMIC_SEQ_CST);
}

static uint16_t get16(uint32_t at)
{
        return __atomic_load_n((uint16_t *)(void *)(t.ram + at), __ATOMIC_SEQ_CST);
}

static void describe(unsigned ring, unsigned i, uint64_t gpa, uint32_t size, unsigned flags, unsigned next)
{
        uint8_t *d = t.ram + DESC(ring) + (size_t)i * 16;
        const uint16_t tail[2] = {(uint16_t)flags, (uint16_t)next};

        memcpy(d, &gpa, 8);
        memcpy(d + 8, &size, 4);
        memcpy(d + 12, tail, 4);
}

static void offer(unsigned ring, unsigned head)
{
        put16(AVAIL(ring) + 4 + t.avail[ring] % NUM * 2, (uint16_t)head);
        put16(AVAIL(ring) + 2, ++t.avail[ring]);
}

static void kick(unsigned ring)
{
        const uint64_t one = 1;

        assert_int_equal(write(t.kick[ring], &one, sizeof one), sizeof one);
}

static void post_buffer(unsigned i)
{
        describe(RX, i, GPA + DATA(RX) + i * BUFFER, BL_VSOCK_HEADER + t.room, WRITE, 0);
        offer(RX, i);
}

/* All of a ring's chains are back, each once. */
static bool is_used(unsigned ring, uint16_t up_to)
{
        const uint16_t idx = get16(USED(ring) + 2);

        assert_true((uint16_t)(idx - t.used[ring]) <= NUM);
        return idx == up_to;
}

static void wait_for_used(unsigned ring)
{
        const usec_t end = bl_now() + LIMIT;

        while (!is_used(ring, t.avail[ring])) {
                assert_true(bl_now() < end);
                usleep(100);
        }
        t.used[ring] = t.avail[ring];
}

/* Header and payload in one buffer each; `there` bytes of payload really are. */
static void transmit_raw(const struct bl_vsock_packet *p, const void *payload, uint32_t there)
{
        const unsigned i = t.avail[TX] % (NUM / 2) * 2;
        uint8_t *at = t.ram + DATA(TX) + (size_t)i * BUFFER;

        bl_vsock_packet_encode(p, at);
        describe(TX, i, GPA + DATA(TX) + i * BUFFER, BL_VSOCK_HEADER, there > 0 ? NEXT : 0, i + 1);
        describe(TX, i + 1, GPA + DATA(TX) + (i + 1) * BUFFER, there, 0, 0);
        if (there > 0)
                memcpy(at + BUFFER, payload, there);
        offer(TX, i);
}

static struct bl_vsock_packet packet(unsigned port, enum bl_vsock_op op)
{
        return (struct bl_vsock_packet){
                .src_cid = CID,
                .dst_cid = BL_VSOCK_HOST,
                .src_port = port,
                .dst_port = BL_WIRE_VSOCK_PORT,
                .type = BL_VSOCK_STREAM,
                .op = (uint16_t)op,
                .buf_alloc = 1U << 18,
        };
}

static void transmit(unsigned port, enum bl_vsock_op op, const char *payload)
{
        struct bl_vsock_packet p = packet(port, op);

        p.len = (uint32_t)strlen(payload);
        transmit_raw(&p, payload, p.len);
        kick(TX);
        wait_for_used(TX);
}

/* The next packet that came, of any kind; its buffer is posted again. */
static struct bl_vsock_packet receive_any(char *payload)
{
        const usec_t end = bl_now() + LIMIT;
        struct bl_vsock_packet p;
        uint32_t element[2];
        const uint8_t *at;

        while (is_used(RX, t.used[RX])) {
                assert_true(bl_now() < end);
                usleep(100);
        }
        memcpy(element, t.ram + USED(RX) + 4 + (size_t)(t.used[RX]++ % NUM) * 8, sizeof element);
        assert_true(element[0] < NUM);
        at = t.ram + DATA(RX) + (size_t)element[0] * BUFFER;
        bl_vsock_packet_decode(at, &p);
        assert_int_equal(element[1], BL_VSOCK_HEADER + p.len);
        assert_true(p.len <= t.room);
        assert_true(p.src_cid == BL_VSOCK_HOST && p.dst_cid == CID);
        memcpy(payload, at + BL_VSOCK_HEADER, p.len);
        payload[p.len] = '\0';
        post_buffer(element[0]);
        kick(RX);
        return p;
}

/* Credit is of no matter here. */
static void expect(unsigned port, enum bl_vsock_op op, const char *payload)
{
        char got[BUFFER + 1];
        struct bl_vsock_packet p;

        do
                p = receive_any(got);
        while (p.op == BL_VSOCK_OP_CREDIT_UPDATE && op != BL_VSOCK_OP_CREDIT_UPDATE);
        assert_int_equal(p.op, op);
        assert_int_equal(p.dst_port, port);
        assert_string_equal(got, payload);
}

static void start_driver(void)
{
        memset(t.ram, 0, RAM);
        for (unsigned ring = RX; ring <= TX; ring++)
                t.avail[ring] = t.used[ring] = 0;
        for (unsigned i = 0; i < NUM; i++)
                post_buffer(i);
}

/* --- QEMU ------------------------------------------------------------------ */

static void tell(uint32_t request, uint32_t flags, uint32_t size, const void *body, int fd)
{
        union {
                struct cmsghdr header;
                char space[CMSG_SPACE(sizeof(int))];
        } control = {0};
        uint8_t out[128];
        const uint32_t header[3] = {request, flags, size};
        struct iovec iov = {.iov_base = out, .iov_len = sizeof header + size};
        struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

        memcpy(out, header, sizeof header);
        memcpy(out + sizeof header, body, size);
        if (fd >= 0) {
                control.header.cmsg_level = SOL_SOCKET;
                control.header.cmsg_type = SCM_RIGHTS;
                control.header.cmsg_len = CMSG_LEN(sizeof fd);
                memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
                m.msg_control = &control;
                m.msg_controllen = sizeof control;
        }
        assert_int_equal(sendmsg(t.qemu, &m, MSG_NOSIGNAL), iov.iov_len);
}

static void tell_u32(uint32_t request, uint32_t a, uint32_t b, int fd)
{
        const uint32_t body[2] = {a, b};

        tell(request, 1, sizeof body, body, fd);
}

static uint64_t get_answer(uint32_t request)
{
        struct pollfd pfd = {.fd = t.qemu, .events = POLLIN};
        uint32_t got[5] = {0};

        assert_int_equal(poll(&pfd, 1, (int)(LIMIT / BL_MSEC)), 1);
        assert_int_equal(recv(t.qemu, got, sizeof got, MSG_WAITALL), sizeof got);
        assert_int_equal(got[0], request);
        return got[3] | (uint64_t)got[4] << 32;
}

static uint64_t ask(uint32_t request, uint32_t flags, uint32_t size, const void *body)
{
        tell(request, flags, size, body, -1);
        return get_answer(request);
}

static void region(uint32_t request, uint64_t gpa, uint64_t size, uint64_t uva)
{
        const uint64_t body[5] = {0, gpa, size, uva, 0};

        assert_int_equal(ask(request, 9, sizeof body, body), 0);
}

static void start_device(uint16_t base)
{
        for (uint32_t i = RX; i <= TX; i++) {
                const uintptr_t uva = (uintptr_t)t.ram;
                const uint64_t addr[5] = {i, uva + DESC(i), uva + USED(i), uva + AVAIL(i), 0};

                tell_u32(8, i, NUM, -1);
                tell_u32(10, i, base, -1);
                tell(9, 1, sizeof addr, addr, -1);
                tell_u32(12, i, 0, t.kick[i]);
                tell_u32(13, i, 0, t.call[i]);
        }
        for (uint32_t i = RX; i <= TX; i++)
                assert_int_equal(ask(18, 9, 8, (const uint32_t[]){i, 1}), 0);
}

static void stop_device(void)
{
        for (uint32_t i = RX; i <= TX; i++) {
                const uint64_t position = ask(11, 1, 8, (const uint32_t[]){i, 0});

                /* nothing is written behind it */
                assert_true(position == (i | (uint64_t)get16(USED(i) + 2) << 32));
        }
}

static void handshake(void)
{
        const uint64_t features = UINT64_C(1) << 32 | 1U << 30;

        assert_true(ask(1, 1, 0, "") == features);
        tell(16, 1, 8, &(uint64_t){ask(15, 1, 0, "")}, -1);
        assert_int_equal(ask(36, 1, 0, ""), BL_GM_REGIONS);
        tell(2, 1, 8, &features, -1);
        region(37, GPA, RAM, (uintptr_t)t.ram);
        start_device(0);
}

/* --- the supervisor -------------------------------------------------------- */

/* Copies of what came from QEMU. */
static void take_from_worker(void)
{
        for (;;) {
                union {
                        struct cmsghdr header;
                        char space[CMSG_SPACE(sizeof(int))];
                } control = {0};
                uint32_t which;
                struct iovec iov = {.iov_base = &which, .iov_len = sizeof which};
                struct msghdr m = {
                        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
                int fd = -1;

                if (recvmsg(t.up, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != sizeof which)
                        return;
                assert_true(which >= BL_KEEP_KICK_RX && which < _BL_KEEP_FD_MAX);
                if (CMSG_FIRSTHDR(&m))
                        memcpy(&fd, CMSG_DATA(&control.header), sizeof fd);
                if (t.fds[which] >= 0)
                        close(t.fds[which]);
                t.fds[which] = fd;
        }
}

static void start_worker(void)
{
        take_from_worker();
        t.worker = fork();
        assert_true(t.worker >= 0);
        if (t.worker == 0)
                _exit(bl_worker_run(t.keep, t.fds, t.worker_up, t.path));
}

static int wait_for_worker(struct rusage *ret)
{
        const usec_t end = bl_now() + LIMIT;
        struct rusage usage;
        int status;
        pid_t r;

        while ((r = wait4(t.worker, &status, WNOHANG, &usage)) == 0) {
                assert_true(bl_now() < end);
                usleep(200);
        }
        assert_int_equal(r, t.worker);
        t.worker = 0;
        if (ret)
                *ret = usage;
        return status;
}

static void kill_worker(void)
{
        assert_int_equal(kill(t.worker, SIGKILL), 0);
        assert_true(WIFSIGNALED(wait_for_worker(NULL)));
}

static uint64_t own_start(void)
{
        char text[1024], letter;
        uint64_t start;

        assert_true(bl_fs_read(NULL, "/proc/self/stat", text, sizeof text) > 0);
        assert_int_equal(bl_proc_stat_parse(text, &letter, &start), 0);
        return start;
}

/* --- ballastd -------------------------------------------------------------- */

static int accept_call(unsigned *ret_number)
{
        struct pollfd pfd = {.fd = t.listener, .events = POLLIN};
        struct sockaddr_un addr = {0};
        socklen_t size = sizeof addr;
        int pid, n = 0, fd;

        assert_int_equal(poll(&pfd, 1, (int)(LIMIT / BL_MSEC)), 1);
        fd = accept4(t.listener, (struct sockaddr *)&addr, &size, SOCK_CLOEXEC);
        assert_true(fd >= 0);
        assert_int_equal(addr.sun_path[0], 0);
        assert_int_equal(sscanf(addr.sun_path + 1, "ballast-vsock/" UUID "/%d.%u%n", &pid, ret_number, &n), 2);
        assert_int_equal(size, offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
        assert_int_equal(pid, t.worker);
        return fd;
}

static void assert_host_gets(int fd, const char *what)
{
        struct pollfd pfd = {.fd = fd, .events = POLLIN};
        char got[BUFFER] = "";

        assert_int_equal(poll(&pfd, 1, (int)(LIMIT / BL_MSEC)), 1);
        assert_int_equal(recv(fd, got, sizeof got - 1, 0), strlen(what));
        assert_string_equal(got, what);
}

static int connect_guest(unsigned port)
{
        unsigned number;
        int fd;

        transmit(port, BL_VSOCK_OP_REQUEST, "");
        fd = accept_call(&number);
        expect(port, BL_VSOCK_OP_RESPONSE, "");
        return fd;
}

/* --- fixture --------------------------------------------------------------- */

static int setup(void **state)
{
        struct sockaddr_un addr = {.sun_family = AF_UNIX};
        int sv[2], up[2];

        (void)state;
        memset(&t, 0, sizeof t);
        t.room = 256;
        t.ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        t.keep = mmap(NULL, sizeof *t.keep, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        assert_ptr_not_equal(t.ram, MAP_FAILED);
        assert_ptr_not_equal(t.keep, MAP_FAILED);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, up), 0);
        for (unsigned i = 0; i < _BL_KEEP_FD_MAX; i++)
                t.fds[i] = -1;
        t.qemu = sv[1];
        t.fds[BL_KEEP_QEMU] = sv[0];
        t.fds[BL_KEEP_PIDFD] = (int)syscall(SYS_pidfd_open, getpid(), 0);
        t.up = up[0];
        t.worker_up = up[1];
        for (unsigned i = 0; i < 2; i++) {
                t.kick[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
                t.call[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        }
        for (unsigned i = 0; i < BL_UUID_LEN; i++)
                t.keep->uuid[i] = (uint8_t)i;
        t.keep->pid = getpid();
        t.keep->start = own_start();
        t.keep->vu.guest_cid = CID;

        strcpy(t.dir, "/tmp/ballast-test-XXXXXX");
        assert_non_null(mkdtemp(t.dir));
        snprintf(t.path, sizeof t.path, "%s/vsock.sock", t.dir);
        strcpy(addr.sun_path, t.path);
        t.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(t.listener, (struct sockaddr *)&addr, sizeof addr), 0);
        assert_int_equal(listen(t.listener, 16), 0);
        start_driver();
        return 0;
}

static int teardown(void **state)
{
        (void)state;
        if (t.worker > 0)
                kill_worker();
        take_from_worker();
        for (unsigned i = 0; i < _BL_KEEP_FD_MAX; i++)
                if (t.fds[i] >= 0)
                        close(t.fds[i]);
        for (unsigned i = 0; i < 2; i++) {
                close(t.kick[i]);
                close(t.call[i]);
        }
        close(t.qemu);
        close(t.up);
        close(t.worker_up);
        close(t.listener);
        unlink(t.path);
        rmdir(t.dir);
        munmap(t.ram, RAM);
        munmap(t.keep, sizeof *t.keep);
        return 0;
}

static int setup_running(void **state)
{
        setup(state);
        start_worker();
        handshake();
        return 0;
}

/* --- tests ----------------------------------------------------------------- */

static void test_both_ways(void **state)
{
        uint64_t calls;
        unsigned number;
        char big[1000];
        int fd;

        (void)state;
        transmit(PORT, BL_VSOCK_OP_REQUEST, "");
        fd = accept_call(&number);
        expect(PORT, BL_VSOCK_OP_RESPONSE, "");
        assert_int_equal(read(t.call[RX], &calls, sizeof calls), sizeof calls);
        transmit(PORT, BL_VSOCK_OP_RW, "from the guest");
        assert_host_gets(fd, "from the guest");
        assert_int_equal(write(fd, "from the host", 13), 13);
        expect(PORT, BL_VSOCK_OP_RW, "from the host");

        /* more than a buffer takes, and far more packets than the ring has */
        for (int i = 0; i < 30; i++) {
                size_t got = 0;

                memset(big, 'a' + i % 26, sizeof big);
                assert_int_equal(write(fd, big, sizeof big), sizeof big);
                while (got < sizeof big) {
                        char payload[BUFFER + 1];
                        const struct bl_vsock_packet p = receive_any(payload);

                        if (p.op != BL_VSOCK_OP_RW)
                                continue;
                        assert_memory_equal(payload, big, p.len);
                        got += p.len;
                }
                assert_int_equal(got, sizeof big);
        }

        /* the host ends it */
        close(fd);
        expect(PORT, BL_VSOCK_OP_SHUTDOWN, "");
        transmit(PORT, BL_VSOCK_OP_RST, "");

        /* the guest does */
        fd = connect_guest(PORT + 1);
        transmit_raw(&(struct bl_vsock_packet){.src_cid = CID,
                                               .dst_cid = BL_VSOCK_HOST,
                                               .src_port = PORT + 1,
                                               .dst_port = BL_WIRE_VSOCK_PORT,
                                               .type = BL_VSOCK_STREAM,
                                               .op = BL_VSOCK_OP_SHUTDOWN,
                                               .flags = 3},
                     "", 0);
        kick(TX);
        assert_host_gets(fd, "");
        expect(PORT + 1, BL_VSOCK_OP_RST, "");
        close(fd);

        /* an interrupt that is not wanted does not come */
        fd = connect_guest(PORT + 2);
        (void)!read(t.call[TX], &calls, sizeof calls);
        put16(AVAIL(TX), 1);
        transmit(PORT + 2, BL_VSOCK_OP_RW, "x");
        assert_host_gets(fd, "x");
        assert_int_equal(read(t.call[TX], &calls, sizeof calls), -1);
        close(fd);
}

static void test_refused(void **state)
{
        struct bl_vsock_packet p = packet(PORT, BL_VSOCK_OP_REQUEST);
        char payload[BUFFER + 1];

        (void)state;
        /* another port of the host, and one of the guest that anybody may have */
        p.dst_port = 22;
        transmit_raw(&p, "", 0);
        kick(TX);
        p = receive_any(payload);
        assert_int_equal(p.op, BL_VSOCK_OP_RST);
        assert_int_equal(p.src_port, 22);
        transmit(BL_WIRE_VSOCK_PORT_ROOT, BL_VSOCK_OP_REQUEST, "");
        expect(BL_WIRE_VSOCK_PORT_ROOT, BL_VSOCK_OP_RST, "");
        /* ballastd is not there */
        unlink(t.path);
        transmit(PORT, BL_VSOCK_OP_REQUEST, "");
        expect(PORT, BL_VSOCK_OP_RST, "");
}

/* Lengths that are not true. */
static void test_lengths(void **state)
{
        struct bl_vsock_packet p = packet(PORT, BL_VSOCK_OP_RW);
        int fd = connect_guest(PORT);

        (void)state;
        p.len = 5;
        transmit_raw(&p, "four", 4);
        kick(TX);
        expect(PORT, BL_VSOCK_OP_RST, "");
        assert_host_gets(fd, "");
        close(fd);
        fd = connect_guest(PORT);
        p.len = UINT32_MAX;
        transmit_raw(&p, "four", 4);
        kick(TX);
        expect(PORT, BL_VSOCK_OP_RST, "");
        close(fd);
        wait_for_used(TX);

        /* shorter than a header: given back, and nothing more */
        describe(TX, 0, GPA + DATA(TX), BL_VSOCK_HEADER - 1, 0, 0);
        offer(TX, 0);
        kick(TX);
        wait_for_used(TX);
        fd = connect_guest(PORT);
        close(fd);
}

static void test_reset_device(void **state)
{
        int fd = connect_guest(PORT);

        (void)state;
        /* the guest reboots */
        stop_device();
        start_driver();
        start_device(0);
        assert_host_gets(fd, "");
        close(fd);
        fd = connect_guest(PORT);

        /* the VM is paused, and meanwhile the host speaks */
        stop_device();
        assert_int_equal(write(fd, "later", 5), 5);
        for (uint32_t i = RX; i <= TX; i++) {
                tell_u32(10, i, t.avail[i] - (i == RX ? NUM : 0), -1);
                tell_u32(12, i, 0, t.kick[i]);
        }
        expect(PORT, BL_VSOCK_OP_RW, "later");
        transmit(PORT, BL_VSOCK_OP_RW, "still there");
        assert_host_gets(fd, "still there");
        close(fd);
}

/* Memory moves: a region goes and another comes for it.  Rings, buffers, or both are away meanwhile. */
static void test_moved_memory(void **state)
{
        const uintptr_t uva = (uintptr_t)t.ram;
        int fd = connect_guest(PORT);

        (void)state;
        region(38, GPA, RAM, uva);
        region(37, GPA, DATA(RX), uva);
        region(37, GPA + DATA(RX), RAM - DATA(RX), uva + DATA(RX));
        for (int i = 0; i < 21; i++) {
                if (i % 3 != 0)
                        region(38, GPA, DATA(RX), uva);
                if (i % 3 != 1)
                        region(38, GPA + DATA(RX), RAM - DATA(RX), uva + DATA(RX));
                assert_int_equal(write(fd, "moved", 5), 5);
                usleep(2000);
                if (i % 3 != 1)
                        region(37, GPA + DATA(RX), RAM - DATA(RX), uva + DATA(RX));
                if (i % 3 != 0)
                        region(37, GPA, DATA(RX), uva);
                expect(PORT, BL_VSOCK_OP_RW, "moved");
                transmit(PORT, BL_VSOCK_OP_RW, "indeed");
                assert_host_gets(fd, "indeed");
        }
        /* one that goes for good holds nothing up for long */
        region(37, GPA + RAM, 0x1000, uva);
        region(38, GPA + RAM, 0x1000, uva);
        transmit(PORT, BL_VSOCK_OP_RW, "on");
        assert_host_gets(fd, "on");
        close(fd);
}

static void test_broken_ring(void **state)
{
        int fd = connect_guest(PORT);

        (void)state;
        describe(TX, 0, GPA + RAM, 100, 0, 0);
        offer(TX, 0);
        kick(TX);
        usleep(20000);
        /* QEMU is served on, and the other ring */
        assert_true(ask(17, 1, 0, "") == 2);
        assert_int_equal(write(fd, "hear", 4), 4);
        expect(PORT, BL_VSOCK_OP_RW, "hear");
        transmit_raw(&(struct bl_vsock_packet){0}, "", 0);
        kick(TX);
        usleep(20000);
        assert_int_equal(get16(USED(TX) + 2), t.used[TX]);
        /* until the driver begins anew */
        stop_device();
        start_driver();
        start_device(0);
        close(fd);
        fd = connect_guest(PORT);
        close(fd);
        /* a buffer without room for a header */
        expect(PORT, BL_VSOCK_OP_SHUTDOWN, "");
        stop_device();
        start_driver();
        describe(RX, 0, GPA + DATA(RX), BL_VSOCK_HEADER - 1, WRITE, 0);
        start_device(0);
        transmit(PORT, BL_VSOCK_OP_REQUEST, "");
        usleep(20000);
        assert_int_equal(get16(USED(RX) + 2), 0);
        assert_true(ask(17, 1, 0, "") == 2);
}

/* Each worker dies at once or in the midst of traffic. */
static void test_killed(void **state)
{
        unsigned number, last = 0;
        int fd = connect_guest(PORT);

        (void)state;
        for (unsigned i = 0; i < 25; i++) {
                for (unsigned k = 0; k < i % 5; k++) {
                        const struct bl_vsock_packet p = packet(PORT, BL_VSOCK_OP_CREDIT_REQUEST);

                        transmit_raw(&p, "", 0);
                }
                kick(TX);
                usleep(i * 37 % 400);
                kill_worker();
                assert_host_gets(fd, "");
                close(fd);
                start_worker();
                /* what the dead one had not given back comes back, and nothing twice */
                wait_for_used(TX);
                /* of what was, the guest learns as soon as it speaks */
                transmit(PORT, BL_VSOCK_OP_RW, "hello?");
                for (;;) {
                        char payload[BUFFER + 1];

                        if (receive_any(payload).op == BL_VSOCK_OP_RST)
                                break;
                }
                transmit(1 + i, BL_VSOCK_OP_REQUEST, "");
                fd = accept_call(&number);
                assert_true(i == 0 || number > last);
                last = number;
                for (;;) {
                        char payload[BUFFER + 1];
                        const struct bl_vsock_packet p = receive_any(payload);

                        if (p.dst_port == 1 + i && p.op == BL_VSOCK_OP_RESPONSE)
                                break;
                        assert_int_equal(p.op, BL_VSOCK_OP_RST);
                }
                transmit(1 + i, BL_VSOCK_OP_RST, "");
                assert_host_gets(fd, "");
                close(fd);
                fd = connect_guest(PORT);
        }
        close(fd);
        /* QEMU noticed nothing */
        assert_true(ask(17, 1, 0, "") == 2);
        stop_device();
}

/* A worker that dies while QEMU waits for it. */
static void test_killed_before_answer(void **state)
{
        (void)state;
        for (unsigned i = 0; i < 30; i++) {
                tell(17, 1, 0, "", -1);
                tell_u32(13, RX, 0, t.call[RX]);
                tell(1, 1, 0, "", -1);
                usleep(i * 5);
                kill_worker();
                start_worker();
                assert_int_equal(get_answer(17), 2);
                assert_true(get_answer(1) == (UINT64_C(1) << 32 | 1U << 30));
        }
        assert_true(ask(17, 1, 0, "") == 2);
}

/* Neither what the guest does not take nor what it floods keeps a CPU busy or QEMU waiting. */
static void test_frozen_guest(void **state)
{
        struct rusage usage;
        char big[4096] = "";
        int fd;

        (void)state;
        t.room = 1;
        stop_device();
        start_driver();
        start_device(0);
        fd = connect_guest(PORT);
        /* it reads no more */
        fcntl(fd, F_SETFL, O_NONBLOCK);
        while (write(fd, big, sizeof big) > 0)
                ;
        for (unsigned i = 0; i < 2 * BL_MUX_ANSWERS; i++) {
                const struct bl_vsock_packet p = packet(500 + i, BL_VSOCK_OP_RW);

                if ((uint16_t)(t.avail[TX] - get16(USED(TX) + 2)) == NUM / 2)
                        break;
                transmit_raw(&p, "", 0);
                kick(TX);
                usleep(100);
        }
        usleep(200000);
        assert_true(ask(17, 1, 0, "") == 2);
        shutdown(t.qemu, SHUT_WR);
        assert_int_equal(wait_for_worker(&usage), 0);
        assert_true(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec == 0);
        assert_true(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec < 100000);
        close(fd);
}

/* Where answers stood in the way of what the guest sends, it goes on as soon as they are gone. */
static void test_room_again(void **state)
{
        (void)state;
        stop_device();
        start_driver();
        t.avail[RX] = 0;
        put16(AVAIL(RX) + 2, 0);
        start_device(0);
        for (unsigned i = 0; i < BL_MUX_ANSWERS; i++)
                transmit(500 + i, BL_VSOCK_OP_RW, "");
        for (unsigned i = 0; i < NUM / 2; i++) {
                const struct bl_vsock_packet p = packet(600 + i, BL_VSOCK_OP_RW);

                transmit_raw(&p, "", 0);
        }
        kick(TX);
        usleep(20000);
        assert_int_equal(get16(USED(TX) + 2), BL_MUX_ANSWERS);
        for (unsigned i = 0; i < NUM / 2; i++)
                post_buffer(i);
        kick(RX);
        wait_for_used(TX);
        for (unsigned i = 0; i < BL_MUX_ANSWERS; i++)
                expect(500 + i, BL_VSOCK_OP_RST, "");
        for (unsigned i = 0; i < NUM / 2; i++)
                expect(600 + i, BL_VSOCK_OP_RST, "");
}

static void test_endless_kicks(void **state)
{
        const usec_t end = bl_now() + 50 * BL_MSEC;
        unsigned n = 0;

        (void)state;
        while (bl_now() < end) {
                kick(TX);
                kick(RX);
                if (n++ % 64 == 0)
                        assert_true(ask(17, 1, 0, "") == 2);
        }
}

static void test_hygiene(void **state)
{
        char path[64], text[4096];
        int stray[8], n = 0;
        struct dirent *e;
        DIR *d;

        (void)state;
        for (unsigned i = 0; i < 8; i++)
                stray[i] = dup(0);
        kill_worker();
        signal(SIGUSR1, SIG_IGN);
        start_worker();
        assert_true(ask(17, 1, 0, "") == 2);
        snprintf(path, sizeof path, "/proc/%d/fd", (int)t.worker);
        d = opendir(path);
        assert_non_null(d);
        while ((e = readdir(d)))
                n += e->d_name[0] != '.';
        closedir(d);
        assert_true(n <= 3 + _BL_KEEP_FD_MAX + 1);
        snprintf(path, sizeof path, "/%d/status", (int)t.worker);
        assert_true(bl_fs_read("/proc", path, text, sizeof text) > 0);
        assert_non_null(strstr(text, "NoNewPrivs:\t1"));
        assert_non_null(strstr(text, "Name:\tvsock-00010203\n"));
        snprintf(path, sizeof path, "/%d/limits", (int)t.worker);
        assert_true(bl_fs_read("/proc", path, text, sizeof text) > 0);
        assert_non_null(strstr(text, "Max core file size        0 "));
        assert_int_equal(kill(t.worker, SIGUSR1), 0);
        assert_true(WIFSIGNALED(wait_for_worker(NULL)));
        signal(SIGUSR1, SIG_DFL);
        for (unsigned i = 0; i < 8; i++)
                close(stray[i]);
}

/* --- how it ends ----------------------------------------------------------- */

static void quiet(void)
{
        const int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);

        fflush(stderr);
        dup2(fd, STDERR_FILENO);
        close(fd);
}

static void test_end(void **state)
{
        int saved = dup(STDERR_FILENO), fd = connect_guest(PORT);

        (void)state;
        close(t.qemu);
        t.qemu = dup(0);
        assert_int_equal(wait_for_worker(NULL), 0);
        assert_host_gets(fd, "");
        close(fd);

        /* it breaks the protocol */
        teardown(NULL);
        setup(NULL);
        quiet();
        start_worker();
        tell(99, 1, 0, "", -1);
        assert_int_equal(WEXITSTATUS(wait_for_worker(NULL)), 1);
        /* another process than was meant */
        t.keep->start++;
        start_worker();
        assert_int_equal(WEXITSTATUS(wait_for_worker(NULL)), 1);
        dup2(saved, STDERR_FILENO);
        close(saved);
}

static void test_vmm_ends(void **state)
{
        const pid_t vmm = fork();
        char path[64], text[1024], letter;

        (void)state;
        if (vmm == 0) {
                pause();
                _exit(0);
        }
        assert_true(vmm > 0);
        close(t.fds[BL_KEEP_PIDFD]);
        t.fds[BL_KEEP_PIDFD] = (int)syscall(SYS_pidfd_open, vmm, 0);
        snprintf(path, sizeof path, "/%d/stat", (int)vmm);
        assert_true(bl_fs_read("/proc", path, text, sizeof text) > 0);
        assert_int_equal(bl_proc_stat_parse(text, &letter, &t.keep->start), 0);
        t.keep->pid = vmm;
        start_worker();
        assert_int_equal(ask(17, 1, 0, ""), 2);
        kill(vmm, SIGKILL);
        assert_int_equal(wait_for_worker(NULL), 0);
        /* gone before it began, reaped or not */
        start_worker();
        assert_int_equal(wait_for_worker(NULL), 0);
        assert_int_equal(waitpid(vmm, NULL, 0), vmm);
        start_worker();
        assert_int_equal(wait_for_worker(NULL), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_both_ways, setup_running, teardown),
                cmocka_unit_test_setup_teardown(test_refused, setup_running, teardown),
                cmocka_unit_test_setup_teardown(test_lengths, setup_running, teardown),
                cmocka_unit_test_setup_teardown(test_reset_device, setup_running, teardown),
                cmocka_unit_test_setup_teardown(test_moved_memory, setup_running, teardown),
                cmocka_unit_test_setup_teardown(test_broken_ring, setup_running, teardown),
                cmocka_unit_test_setup_teardown(test_killed, setup_running, teardown),
                cmocka_unit_test_setup_teardown(test_killed_before_answer, setup_running, teardown),
                cmocka_unit_test_setup_teardown(test_frozen_guest, setup_running, teardown),
                cmocka_unit_test_setup_teardown(test_room_again, setup_running, teardown),
                cmocka_unit_test_setup_teardown(test_endless_kicks, setup_running, teardown),
                cmocka_unit_test_setup_teardown(test_hygiene, setup_running, teardown),
                cmocka_unit_test_setup_teardown(test_end, setup_running, teardown),
                cmocka_unit_test_setup_teardown(test_vmm_ends, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
