/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ballast/units.h>

#include "daemon/vsock/vhost_user.h"

#define VERSION    1U
#define REPLY      5U
#define NEED_REPLY 9U
#define CID        4711U
#define GPA        UINT64_C(0x100000)
#define UVA        UINT64_C(0x7f0000000000)
#define RAM        UINT64_C(0x20000)
#define MOST_FDS   64

/* vhost-user.rst */
enum {
        GET_FEATURES = 1,
        SET_FEATURES,
        SET_OWNER,
        RESET_OWNER,
        SET_MEM_TABLE,
        SET_LOG_BASE,
        SET_VRING_NUM = 8,
        SET_VRING_ADDR,
        SET_VRING_BASE,
        GET_VRING_BASE,
        SET_VRING_KICK,
        SET_VRING_CALL,
        SET_VRING_ERR,
        GET_PROTOCOL_FEATURES,
        SET_PROTOCOL_FEATURES,
        GET_QUEUE_NUM,
        SET_VRING_ENABLE,
        GET_CONFIG = 24,
        GET_MAX_MEM_SLOTS = 36,
        ADD_MEM_REG,
        REM_MEM_REG,
};

struct step {
        uint32_t request, flags, size;
        uint64_t body[5];
        unsigned n_fds;
        uint32_t answer_size; /* 0: none comes */
        uint64_t answer[3];
};

#define CONFIG_BODY                     \
        {                               \
                UINT64_C(8) << 32, 0, 0 \
        }
#define CONFIG_REPLY                                      \
        {                                                 \
                UINT64_C(8) << 32, (uint64_t)CID << 32, 0 \
        }

/* What QEMU 7.2 says until the device runs (hw/virtio/vhost.c, vhost-user.c). */
static const struct step handshake[] = {
        {GET_FEATURES, VERSION, .answer_size = 8, .answer = {UINT64_C(1) << 32 | 1U << 30}},
        {GET_PROTOCOL_FEATURES, VERSION, .answer_size = 8, .answer = {0x8209}},
        {SET_PROTOCOL_FEATURES, VERSION, 8, {0x8209}},
        {GET_QUEUE_NUM, VERSION, .answer_size = 8, .answer = {2}},
        {GET_MAX_MEM_SLOTS, VERSION, .answer_size = 8, .answer = {32}},
        {SET_OWNER, VERSION},
        {GET_FEATURES, VERSION, .answer_size = 8, .answer = {UINT64_C(1) << 32 | 1U << 30}},
        {SET_VRING_CALL, VERSION, 8, {0}, 1},
        {SET_VRING_CALL, VERSION, 8, {1}, 1},
        {GET_CONFIG, VERSION, 20, CONFIG_BODY, .answer_size = 20, .answer = CONFIG_REPLY},
        {SET_FEATURES, VERSION, 8, {UINT64_C(1) << 32 | 1U << 30}},
        {ADD_MEM_REG, NEED_REPLY, 40, {0, GPA, RAM, UVA, 0}, 1, 8, {0}},
        {ADD_MEM_REG, NEED_REPLY, 40, {0, UINT64_C(1) << 32, RAM, UVA + RAM, 0}, 1, 8, {0}},
        {SET_VRING_NUM, VERSION, 8, {UINT64_C(128) << 32}},
        {SET_VRING_BASE, VERSION, 8, {0}},
        {SET_VRING_ADDR, VERSION, 40, {0, UVA, UVA + 0x2000, UVA + 0x1000, 0}},
        {SET_VRING_KICK, VERSION, 8, {0}, 1},
        {SET_VRING_CALL, VERSION, 8, {0}, 1},
        {SET_VRING_ERR, VERSION, 8, {0}, 1},
        {SET_VRING_NUM, VERSION, 8, {UINT64_C(128) << 32 | 1}},
        {SET_VRING_BASE, VERSION, 8, {UINT64_C(5) << 32 | 1}},
        {SET_VRING_ADDR, VERSION, 40, {1, UVA + 0x4000, UVA + 0x6000, UVA + 0x5000, 0}},
        {SET_VRING_KICK, VERSION, 8, {1}, 1},
        {SET_VRING_CALL, VERSION, 8, {1}, 1},
        {SET_VRING_ERR, VERSION, 8, {0x101}},
        {SET_VRING_ENABLE, NEED_REPLY, 8, {UINT64_C(1) << 32}, 0, 8, {0}},
        {SET_VRING_ENABLE, VERSION, 8, {UINT64_C(1) << 32 | 1}},
};
#define STEPS (sizeof handshake / sizeof *handshake)

/* What the handler heard; in shared memory, for the workers that die. */
static struct heard {
        unsigned kicks[BL_VU_RINGS], calls[BL_VU_RINGS], rings[BL_VU_RINGS], resets, unkicks;
} * heard;
static struct bl_vu_state *vu_state;
static struct bl_vu *vu;
static int sv[2];

static unsigned count_fds(void)
{
        DIR *d = opendir("/proc/self/fd");
        unsigned n = 0;

        assert_non_null(d);
        while (readdir(d))
                n++;
        closedir(d);
        return n;
}

static void on_kick(void *userdata, unsigned i, int fd)
{
        (void)userdata;
        assert_true(i < BL_VU_RINGS);
        if (fd >= 0) {
                heard->kicks[i]++;
                close(fd);
        } else {
                heard->unkicks++;
        }
}

static void on_call(void *userdata, unsigned i, int fd)
{
        (void)userdata;
        assert_true(i < BL_VU_RINGS);
        heard->calls[i]++;
        if (fd >= 0)
                close(fd);
}

static void on_ring(void *userdata, unsigned i)
{
        (void)userdata;
        assert_true(i < BL_VU_RINGS);
        heard->rings[i]++;
}

static void on_reset(void *userdata)
{
        (void)userdata;
        heard->resets++;
}

static int no_read(void *userdata, uint64_t uva, void *buf, size_t size)
{
        (void)userdata;
        (void)uva;
        memset(buf, 0, size);
        return 0;
}

static int no_write(void *userdata, uint64_t uva, const void *buf, size_t size)
{
        (void)userdata;
        (void)uva;
        (void)buf;
        (void)size;
        return -EFAULT;
}

static const struct bl_vu_handler handler = {.kick = on_kick, .call = on_call, .ring = on_ring, .reset = on_reset};
static const struct bl_gm_access no_access = {.read = no_read, .write = no_write};

static void take_over(void)
{
        vu = bl_vu_free(vu);
        assert_int_equal(bl_vu_new(vu_state, &no_access, &handler, &vu), 0);
}

static int setup(void **state)
{
        (void)state;
        vu_state = mmap(NULL, sizeof *vu_state, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        heard = mmap(NULL, sizeof *heard, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        assert_ptr_not_equal(vu_state, MAP_FAILED);
        assert_ptr_not_equal(heard, MAP_FAILED);
        vu_state->guest_cid = CID;
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
        take_over();
        return 0;
}

static int teardown(void **state)
{
        (void)state;
        vu = bl_vu_free(vu);
        close(sv[0]);
        close(sv[1]);
        munmap(vu_state, sizeof *vu_state);
        munmap(heard, sizeof *heard);
        return 0;
}

static void restart(void)
{
        teardown(NULL);
        setup(NULL);
}

/* --- QEMU's side ----------------------------------------------------------- */

static void send_bytes(const void *data, size_t size, unsigned n_fds)
{
        union {
                struct cmsghdr header;
                char space[CMSG_SPACE(MOST_FDS * sizeof(int))];
        } control;
        struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
        struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
        int fds[MOST_FDS];

        assert_true(n_fds <= MOST_FDS);
        for (unsigned i = 0; i < n_fds; i++) {
                fds[i] = eventfd(0, EFD_CLOEXEC);
                assert_true(fds[i] >= 0);
        }
        if (n_fds > 0) {
                memset(&control, 0, sizeof control);
                control.header.cmsg_level = SOL_SOCKET;
                control.header.cmsg_type = SCM_RIGHTS;
                control.header.cmsg_len = CMSG_LEN(n_fds * sizeof(int));
                memcpy(CMSG_DATA(&control.header), fds, n_fds * sizeof(int));
                m.msg_control = &control;
                m.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        }
        assert_int_equal(sendmsg(sv[1], &m, MSG_NOSIGNAL), size);
        for (unsigned i = 0; i < n_fds; i++)
                close(fds[i]);
}

static size_t encode(uint8_t *out, uint32_t request, uint32_t flags, uint32_t size, const void *body)
{
        const uint32_t header[3] = {request, flags, size};

        memcpy(out, header, sizeof header);
        if (size > 0)
                memcpy(out + sizeof header, body, size);
        return sizeof header + size;
}

static void tell(uint32_t request, uint32_t flags, uint32_t size, const void *body, unsigned n_fds)
{
        uint8_t out[BL_VU_HEADER + 4096];

        send_bytes(out, encode(out, request, flags, size, body), n_fds);
}

static void tell_step(const struct step *s)
{
        tell(s->request, s->flags, s->size, s->body, s->n_fds);
}

static void assert_silent(void)
{
        char byte;

        assert_int_equal(recv(sv[1], &byte, 1, MSG_DONTWAIT), -1);
        assert_int_equal(errno, EAGAIN);
}

static void assert_answer(uint32_t request, uint32_t size, const void *body)
{
        uint8_t expected[BL_VU_HEADER + 64], got[BL_VU_HEADER + 64];
        const size_t n = encode(expected, request, REPLY, size, body);

        assert_int_equal(recv(sv[1], got, n, MSG_DONTWAIT), n);
        assert_memory_equal(got, expected, n);
        assert_silent();
}

static void assert_answered(const struct step *s)
{
        if (s->answer_size > 0)
                assert_answer(s->request, s->answer_size, s->answer);
        else
                assert_silent();
}

static void run_steps(size_t n)
{
        for (size_t i = 0; i < n; i++) {
                tell_step(&handshake[i]);
                assert_int_equal(bl_vu_receive(vu, sv[0]), 0);
                assert_answered(&handshake[i]);
        }
}

static int ask(uint32_t request, uint32_t size, const void *body, unsigned n_fds)
{
        tell(request, VERSION, size, body, n_fds);
        return bl_vu_receive(vu, sv[0]);
}

static int ask_ring(uint32_t request, uint32_t index, uint32_t num)
{
        const uint32_t body[2] = {index, num};

        return ask(request, sizeof body, body, 0);
}

/* The connection is over, nothing was answered, and it is said why. */
static void assert_ends(int r)
{
        assert_int_equal(r, -EPROTO);
        assert_string_not_equal(bl_vu_error(vu), "");
        assert_silent();
        restart();
}

static void assert_set_up(void)
{
        const struct bl_vring *r = vu_state->rings;

        assert_int_equal(vu_state->pending, 0);
        assert_int_equal(vu_state->stage, BL_VU_COLLECT);
        assert_int_equal(bl_vu_memory(vu)->n, 2);
        assert_true(bl_vring_ready(&r[0]));
        assert_true(bl_vring_ready(&r[1]));
        assert_int_equal(r[0].num, 128);
        assert_true(r[0].desc == UVA && r[0].used == UVA + 0x2000 && r[0].avail == UVA + 0x1000);
        assert_true(r[1].desc == UVA + 0x4000);
        assert_int_equal(r[1].last_avail, 5);
        assert_int_equal(r[1].used_idx, 5);
}

/* --- tests ----------------------------------------------------------------- */

static void test_handshake(void **state)
{
        const unsigned before = count_fds();

        (void)state;
        run_steps(STEPS);
        assert_set_up();
        for (unsigned i = 0; i < BL_VU_RINGS; i++) {
                assert_int_equal(heard->kicks[i], 1);
                assert_int_equal(heard->calls[i], 2);
        }
        assert_int_equal(count_fds(), before);
        assert_string_equal(bl_vu_error(vu), "");
}

/* Many at once are handled as if they came one by one. */
static void test_at_once(void **state)
{
        (void)state;
        for (size_t i = 0; i < STEPS; i++)
                tell_step(&handshake[i]);
        assert_int_equal(bl_vu_receive(vu, sv[0]), 0);
        assert_set_up();
        for (size_t i = 0; i < STEPS; i++) {
                uint8_t got[BL_VU_HEADER + 64];
                const struct step *s = &handshake[i];

                if (s->answer_size > 0) {
                        assert_int_equal(recv(sv[1], got, BL_VU_HEADER + s->answer_size, MSG_DONTWAIT),
                                         BL_VU_HEADER + s->answer_size);
                        assert_memory_equal(got + BL_VU_HEADER, s->answer, s->answer_size);
                }
        }
        assert_silent();
}

/* The stream may be cut anywhere; `replace`: by the death of the worker, too. */
static void run_in_bytes(bool replace)
{
        for (size_t i = 0; i < STEPS; i++) {
                const struct step *s = &handshake[i];
                uint8_t out[BL_VU_HEADER + 64];
                const size_t n = encode(out, s->request, s->flags, s->size, s->body);

                if (replace && s->n_fds > 0) {
                        tell_step(s);
                        take_over();
                        assert_int_equal(bl_vu_resume(vu, sv[0]), 0);
                        assert_answered(s);
                        continue;
                }
                for (size_t at = 0; at < n; at++) {
                        assert_silent();
                        send_bytes(out + at, 1, at == 0 ? s->n_fds : 0);
                        if (replace)
                                take_over();
                        assert_int_equal(replace ? bl_vu_resume(vu, sv[0]) : bl_vu_receive(vu, sv[0]), 0);
                }
                assert_answered(s);
        }
        assert_set_up();
}

static void test_pieces(void **state)
{
        const unsigned before = count_fds();

        (void)state;
        run_in_bytes(false);
        assert_int_equal(heard->kicks[0], 1);
        assert_int_equal(count_fds(), before);
}

static void test_take_over_pieces(void **state)
{
        const unsigned before = count_fds();

        (void)state;
        run_in_bytes(true);
        assert_int_equal(count_fds(), before);
}

static void test_lost_descriptor(void **state)
{
        const uint64_t body = 1;
        const unsigned before = count_fds();
        uint8_t out[64];
        const size_t n = encode(out, SET_VRING_KICK, VERSION, 8, &body);

        (void)state;
        send_bytes(out, 13, 1);
        assert_int_equal(bl_vu_receive(vu, sv[0]), 0);
        assert_int_equal(vu_state->pending, 13);
        assert_int_equal(count_fds(), before + 1);
        take_over();
        assert_int_equal(count_fds(), before);
        assert_int_equal(bl_vu_resume(vu, sv[0]), 0);
        send_bytes(out + 13, n - 13, 0);
        assert_ends(bl_vu_receive(vu, sv[0]));
}

/* --- workers that are killed ----------------------------------------------- */

static void serve_and_exit(void)
{
        struct bl_vu *v;
        int r;

        if (bl_vu_new(vu_state, &no_access, &handler, &v) < 0)
                _exit(1);
        r = bl_vu_resume(v, sv[0]);
        while (r == 0)
                r = bl_vu_receive(v, sv[0]);
        _exit(r == -EPIPE ? 0 : 2);
}

/* A worker that dies at its stop number `kill_at` (each system call has two, before and behind), or
 * ends; true: it died. */
static bool run_worker(unsigned kill_at)
{
        const pid_t pid = fork();
        int status;

        if (pid == 0) {
                close(sv[1]);
                if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
                        _exit(77);
                raise(SIGSTOP);
                serve_and_exit();
        }
        assert_true(pid > 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
                skip();
        for (unsigned stop = 0; WIFSTOPPED(status); stop++) {
                if (stop == kill_at)
                        kill(pid, SIGKILL);
                else
                        ptrace(PTRACE_SYSCALL, pid, NULL, NULL);
                assert_int_equal(waitpid(pid, &status, 0), pid);
        }
        if (!WIFSIGNALED(status))
                assert_int_equal(WEXITSTATUS(status), 0);
        return WIFSIGNALED(status);
}

static void assert_all_answered_once(void)
{
        uint8_t expected[4096], got[4096];
        size_t n = 0;

        for (size_t i = 0; i < STEPS; i++)
                if (handshake[i].answer_size > 0)
                        n += encode(expected + n, handshake[i].request, REPLY, handshake[i].answer_size,
                                    handshake[i].answer);
        assert_int_equal(recv(sv[1], got, sizeof got, MSG_DONTWAIT), n);
        assert_memory_equal(got, expected, n);
        for (unsigned i = 0; i < BL_VU_RINGS; i++)
                assert_true(heard->kicks[i] >= 1 && heard->kicks[i] <= 2 && heard->calls[i] >= 2);
        take_over();
        assert_set_up();
}

/* `pieces`: those that need no descriptor come in two, and one that is of no use keeps a look at the
 * first from reaching into the second. */
static void tell_all(bool pieces)
{
        for (size_t i = 0; i < STEPS; i++) {
                const struct step *s = &handshake[i];
                uint8_t out[BL_VU_HEADER + 64];
                const size_t n = encode(out, s->request, s->flags, s->size, s->body), cut = 1 + i % (n - 1);

                if (!pieces || s->n_fds > 0) {
                        tell_step(s);
                        continue;
                }
                send_bytes(out, cut, 1);
                send_bytes(out + cut, n - cut, 0);
        }
        shutdown(sv[1], SHUT_WR);
}

/* One dies at each of its system calls in turn, and the next goes on: every
 * message is answered once, and no descriptor is lost. */
static void kill_anywhere(bool pieces)
{
        bool died = true;
        unsigned kill_at = 1;

        for (; died; kill_at++) {
                tell_all(pieces);
                died = run_worker(kill_at);
                if (died)
                        assert_false(run_worker(UINT32_MAX));
                assert_all_answered_once();
                restart();
        }
        assert_true(kill_at > STEPS * 4);
}

static void test_killed_anywhere(void **state)
{
        (void)state;
        kill_anywhere(false);
}

static void test_killed_anywhere_in_pieces(void **state)
{
        (void)state;
        kill_anywhere(true);
}

/* Each worker dies soon, and there is progress all the same. */
static void test_killed_often(void **state)
{
        (void)state;
        for (unsigned kill_at = 12; kill_at < 40; kill_at += 3) {
                unsigned deaths = 0;

                tell_all(kill_at % 2);
                while (run_worker(kill_at))
                        assert_true(++deaths < 200);
                assert_true(deaths > 2);
                assert_all_answered_once();
                restart();
        }
}

/* --- what is wrong --------------------------------------------------------- */

static void test_wrong_headers(void **state)
{
        static const uint32_t flags[] = {0, 2, 3, 4, 5, 8, 12, 13};
        static const uint32_t unknown[] = {0,  SET_LOG_BASE, 7,  19, 20, 21, 22, 23,  25,
                                           31, 34,           35, 39, 40, 41, 99, 256, UINT32_MAX};
        static const uint8_t body[64];
        uint8_t out[BL_VU_HEADER] = {0};

        (void)state;
        for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
                tell(GET_FEATURES, flags[i], 0, NULL, 0);
                assert_ends(bl_vu_receive(vu, sv[0]));
        }
        for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
                assert_ends(ask(unknown[i], 8, body, 1));
                tell(unknown[i], NEED_REPLY, 0, body, 0);
                assert_ends(bl_vu_receive(vu, sv[0]));
        }
        /* too long is said as soon as the header is there */
        encode(out, SET_MEM_TABLE, VERSION, 0, NULL);
        memcpy(out + 8, &(uint32_t){BL_VU_BODY_MAX + 1}, 4);
        send_bytes(out, sizeof out, 2);
        assert_ends(bl_vu_receive(vu, sv[0]));
        memcpy(out + 8, &(uint32_t){UINT32_MAX}, 4);
        for (size_t i = 0; i < sizeof out; i++) {
                assert_int_equal(bl_vu_receive(vu, sv[0]), 0);
                send_bytes(out + i, 1, 0);
        }
        assert_ends(bl_vu_receive(vu, sv[0]));
}

static void test_wrong_sizes(void **state)
{
        static const uint32_t right[][2] = {
                {GET_FEATURES, 0},          {SET_FEATURES, 8},    {SET_OWNER, 0},        {RESET_OWNER, 0},
                {SET_VRING_NUM, 8},         {SET_VRING_ADDR, 40}, {SET_VRING_BASE, 8},   {GET_VRING_BASE, 8},
                {SET_VRING_KICK, 8},        {SET_VRING_CALL, 8},  {SET_VRING_ERR, 8},    {GET_PROTOCOL_FEATURES, 0},
                {SET_PROTOCOL_FEATURES, 8}, {GET_QUEUE_NUM, 0},   {SET_VRING_ENABLE, 8}, {GET_MAX_MEM_SLOTS, 0},
                {ADD_MEM_REG, 40},          {REM_MEM_REG, 40},
        };
        const unsigned before = count_fds();
        uint8_t body[BL_VU_BODY_MAX] = {0};

        (void)state;
        for (size_t i = 0; i < sizeof right / sizeof *right; i++) {
                const uint32_t sizes[] = {right[i][1] - 1, right[i][1] + 1, right[i][1] + 8, 0, 7, BL_VU_BODY_MAX};

                for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++)
                        if (sizes[k] <= BL_VU_BODY_MAX && sizes[k] != right[i][1])
                                assert_ends(ask(right[i][0], sizes[k], body, 1));
        }
        for (uint32_t size = 0; size < 12; size++)
                assert_ends(ask(GET_CONFIG, size, body, 0));
        /* tables: the size must be that of the number of regions */
        for (uint32_t size = 0; size < 8; size++)
                assert_ends(ask(SET_MEM_TABLE, size, body, 0));
        memcpy(body, &(uint32_t){1}, 4);
        assert_ends(ask(SET_MEM_TABLE, 8, body, 0));
        assert_ends(ask(SET_MEM_TABLE, 8 + 31, body, 1));
        assert_ends(ask(SET_MEM_TABLE, 8 + 64, body, 1));
        memcpy(body, &(uint32_t){BL_GM_REGIONS + 1}, 4);
        assert_ends(ask(SET_MEM_TABLE, 8 + 32 * (BL_GM_REGIONS + 1), body, 8));
        /* times 32 it is 32, once more around */
        memcpy(body, &(uint32_t){0x08000001}, 4);
        assert_ends(ask(SET_MEM_TABLE, 8 + 32, body, 1));
        assert_int_equal(count_fds(), before);
}

static void test_wrong_values(void **state)
{
        static const uint32_t ring_requests[] = {SET_VRING_NUM, SET_VRING_BASE, GET_VRING_BASE, SET_VRING_ENABLE};
        static const uint32_t fd_requests[] = {SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR};
        static const uint32_t nums[] = {0, 3, 127, 129, BL_VRING_MAX * 2, UINT32_MAX, 0x80000000};
        static const uint32_t indices[] = {2, 3, 255, 256, UINT32_MAX};
        static const uint64_t unaligned[][5] = {
                {0, UVA + 8, UVA, UVA, 0}, {0, UVA, UVA + 2, UVA, 0}, {0, UVA, UVA, UVA + 1, 0}, {2, UVA, UVA, UVA, 0}};
        const unsigned before = count_fds();
        uint64_t body;

        (void)state;
        for (size_t i = 0; i < sizeof indices / sizeof *indices; i++)
                for (size_t k = 0; k < sizeof ring_requests / sizeof *ring_requests; k++)
                        assert_ends(ask_ring(ring_requests[k], indices[i], 1));
        for (size_t k = 0; k < sizeof fd_requests / sizeof *fd_requests; k++) {
                body = 2;
                assert_ends(ask(fd_requests[k], 8, &body, 1));
                body = 0x1ff;
                assert_ends(ask(fd_requests[k], 8, &body, 0));
                /* its descriptor is missing */
                body = 0;
                assert_ends(ask(fd_requests[k], 8, &body, 0));
        }
        for (size_t i = 0; i < sizeof nums / sizeof *nums; i++)
                assert_ends(ask_ring(SET_VRING_NUM, 0, nums[i]));
        for (size_t i = 0; i < sizeof unaligned / sizeof *unaligned; i++)
                assert_ends(ask(SET_VRING_ADDR, 40, unaligned[i], 0));
        assert_ends(ask_ring(SET_VRING_BASE, 0, 0x10000));
        assert_ends(ask_ring(SET_VRING_ENABLE, 0, 2));
        /* indirect descriptors, event indices, packed rings, seqpacket, logging */
        for (unsigned bit = 0; bit < 64; bit++) {
                body = UINT64_C(1) << bit;
                if (bit == 0 || bit == 26 || bit == 28 || bit == 29 || bit == 33 || bit == 34)
                        assert_ends(ask(SET_FEATURES, 8, &body, 0));
                if (!(0x8209 & body))
                        assert_ends(ask(SET_PROTOCOL_FEATURES, 8, &body, 0));
        }
        assert_int_equal(count_fds(), before);
}

static void test_descriptors(void **state)
{
        static const unsigned numbers[] = {1, 2, 8, BL_VU_FDS, BL_VU_FDS + 1, MOST_FDS};
        const unsigned before = count_fds();
        const uint64_t body[5] = {0};
        const uint64_t none = 0x101;
        unsigned kicks = 0;

        (void)state;
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
                /* where none belongs, and where one does */
                assert_int_equal(ask(SET_OWNER, 0, NULL, numbers[i]), 0);
                assert_int_equal(ask(SET_VRING_KICK, 8, body, numbers[i]), 0);
                assert_int_equal(heard->kicks[0], ++kicks);
                assert_int_equal(count_fds(), before);
        }
        assert_true(vu_state->rings[0].started);
        assert_int_equal(ask(SET_VRING_KICK, 8, &none, 1), 0);
        assert_false(vu_state->rings[1].started);
        assert_int_equal(heard->unkicks, 1);
        assert_int_equal(count_fds(), before);
        /* with each byte of a message */
        for (size_t i = 0; i < BL_VU_HEADER; i++) {
                const uint32_t header[3] = {SET_OWNER, VERSION, 0};

                send_bytes((const uint8_t *)header + i, 1, 8);
                assert_int_equal(bl_vu_receive(vu, sv[0]), 0);
                assert_true(count_fds() <= before + BL_VU_FDS);
        }
        assert_int_equal(count_fds(), before);
}

static void test_direct(void **state)
{
        const unsigned before = count_fds();
        uint8_t out[64], answer[BL_VU_HEADER + BL_VU_BODY_MAX];
        int fds[MOST_FDS];
        const uint64_t body = 0;
        size_t n = encode(out, SET_VRING_KICK, VERSION, 8, &body);

        (void)state;
        for (unsigned i = 0; i < MOST_FDS; i++)
                fds[i] = dup(0);
        assert_int_equal(bl_vu_handle(vu, out, n, fds, MOST_FDS, answer), 0);
        assert_int_equal(count_fds(), before);
        assert_int_equal(heard->kicks[0], 1);
        n = encode(out, GET_QUEUE_NUM, VERSION, 0, NULL);
        assert_int_equal(bl_vu_handle(vu, out, n, NULL, 0, answer), 20);
        for (size_t k = 0; k < n; k++) {
                fds[0] = dup(0);
                assert_int_equal(bl_vu_handle(vu, out, k, fds, 1, answer), -EPROTO);
        }
        assert_int_equal(bl_vu_handle(vu, out, n + 1, NULL, 0, answer), -EPROTO);
        assert_int_equal(count_fds(), before);
}

/* --- memory ---------------------------------------------------------------- */

static int add_region(uint32_t request, uint64_t gpa, uint64_t size, uint64_t uva)
{
        const uint64_t body[5] = {0, gpa, size, uva, 0};

        return ask(request, sizeof body, body, request == ADD_MEM_REG);
}

static void test_mem_table(void **state)
{
        /* number, then gpa, size, uva, offset each */
        static const uint64_t good[] = {2, 0x1000, 0x1000, UVA, 0, 0x100000, 0x5000, UVA + 0x1000, 0x1000};
        static const uint64_t bad[][9] = {
                {2, 0x1000, 0x1000, UVA, 0, 0x1fff, 0x1000, UVA + 0x9000, 0},
                {2, 0x1000, 0x1000, UVA, 0, 0x1000, 0x1000, UVA, 0},
                {2, 0x1000, 0, UVA, 0, 0x100000, 1, UVA, 0},
                {2, 0x1000, 1, UVA, 0, UINT64_MAX, 1, UVA, 0},
                {2, 0x1000, 1, UVA, 0, 0x2000, UINT64_MAX - 0x1000, UVA, 0},
                {2, 0x1000, 1, UVA, 0, 0x2000, 2, UINT64_MAX, 0},
        };
        const unsigned before = count_fds();
        uint64_t uva, size;

        (void)state;
        assert_int_equal(ask(SET_MEM_TABLE, sizeof good, good, 2), 0);
        assert_int_equal(bl_vu_memory(vu)->n, 2);
        take_over();
        assert_int_equal(bl_vu_resume(vu, sv[0]), 0);
        assert_int_equal(bl_gm_translate(bl_vu_memory(vu), 0x100010, 0x10, &uva, &size), 0);
        assert_true(uva == UVA + 0x1010);
        assert_int_equal(ask(SET_MEM_TABLE, 8, (const uint64_t[]){0}, 0), 0);
        assert_int_equal(bl_vu_memory(vu)->n, 0);
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
                assert_ends(ask(SET_MEM_TABLE, sizeof bad[i], bad[i], 2));
        assert_int_equal(count_fds(), before);
}

static void test_mem_slots(void **state)
{
        const unsigned before = count_fds();
        uint64_t uva, size;

        (void)state;
        for (uint32_t i = 0; i < BL_GM_REGIONS; i++)
                assert_int_equal(add_region(ADD_MEM_REG, i * 0x10000, 0x1000, UVA + i * 0x1000), 0);
        assert_int_equal(bl_vu_memory(vu)->n, BL_GM_REGIONS);
        /* twice, as after a death */
        assert_int_equal(add_region(ADD_MEM_REG, 0x10000, 0x1000, UVA + 0x1000), 0);
        assert_int_equal(bl_vu_memory(vu)->n, BL_GM_REGIONS);
        assert_false(vu_state->removed);
        assert_int_equal(add_region(REM_MEM_REG, 0x10000, 0x1000, UVA + 0x1000), 0);
        assert_true(vu_state->removed);
        assert_int_equal(add_region(REM_MEM_REG, 0x10000, 0x1000, UVA + 0x1000), 0);
        assert_int_equal(bl_vu_memory(vu)->n, BL_GM_REGIONS - 1);
        assert_int_equal(bl_gm_translate(bl_vu_memory(vu), 0x10000, 1, &uva, &size), -EFAULT);
        take_over();
        assert_int_equal(bl_vu_memory(vu)->n, BL_GM_REGIONS - 1);
        assert_int_equal(add_region(ADD_MEM_REG, 0x10000, 0x1000, UVA + 0x77000), 0);
        assert_false(vu_state->removed);
        assert_int_equal(bl_gm_translate(bl_vu_memory(vu), 0x10fff, 1, &uva, &size), 0);
        assert_true(uva == UVA + 0x77fff);
        assert_ends(add_region(ADD_MEM_REG, UINT64_C(1) << 40, 0x1000, UVA));

        assert_int_equal(add_region(ADD_MEM_REG, 0x10000, 0x1000, UVA), 0);
        assert_ends(add_region(ADD_MEM_REG, 0x10fff, 0x1000, UVA + 0x5000));
        assert_ends(add_region(ADD_MEM_REG, 0x10000, 0, UVA));
        assert_ends(add_region(ADD_MEM_REG, UINT64_MAX, 2, UVA));
        assert_int_equal(count_fds(), before);
}

/* --- rings ----------------------------------------------------------------- */

static void test_stop(void **state)
{
        const uint32_t answer[2] = {1, 7};

        (void)state;
        run_steps(STEPS);
        vu_state->rings[1].last_avail = vu_state->rings[1].used_idx = 7;
        heard->rings[1] = heard->unkicks = 0;
        assert_int_equal(ask_ring(GET_VRING_BASE, 1, 0), 0);
        assert_answer(GET_VRING_BASE, 8, answer);
        assert_false(vu_state->rings[1].started);
        assert_false(bl_vring_ready(&vu_state->rings[1]));
        assert_true(bl_vring_ready(&vu_state->rings[0]));
        assert_int_equal(heard->rings[1], 1);
        assert_int_equal(heard->unkicks, 1);
        /* and again: the same */
        assert_int_equal(ask_ring(GET_VRING_BASE, 1, 0), 0);
        assert_answer(GET_VRING_BASE, 8, answer);
        /* a chain that never came back comes again */
        vu_state->rings[1].last_avail = 8;
        assert_int_equal(ask_ring(GET_VRING_BASE, 1, 0), 0);
        assert_answer(GET_VRING_BASE, 8, answer);

        assert_int_equal(ask(RESET_OWNER, 0, NULL, 0), 0);
        assert_false(bl_vring_ready(&vu_state->rings[0]));
}

/* A pause keeps the connections; another driver does not. */
static void test_reset(void **state)
{
        uint64_t addr[5] = {1, UVA + 0x4000, UVA + 0x6000, UVA + 0x5000, 0};
        uint64_t features = UINT64_C(1) << 32 | 1U << 30;

        (void)state;
        run_steps(STEPS);
        heard->resets = 0;
        vu_state->rings[1].broken = true;
        assert_int_equal(ask(SET_FEATURES, 8, &features, 0), 0);
        assert_int_equal(ask_ring(SET_VRING_NUM, 1, 128), 0);
        assert_int_equal(ask_ring(SET_VRING_BASE, 1, 5), 0);
        assert_int_equal(ask(SET_VRING_ADDR, 40, addr, 0), 0);
        assert_int_equal(heard->resets, 0);
        assert_false(vu_state->rings[1].broken);
        assert_int_equal(ask_ring(SET_VRING_BASE, 1, 0), 0);
        assert_int_equal(heard->resets, 1);
        addr[3] += 0x1000;
        assert_int_equal(ask(SET_VRING_ADDR, 40, addr, 0), 0);
        assert_int_equal(heard->resets, 2);
        features |= 1U << 27;
        assert_int_equal(ask(SET_FEATURES, 8, &features, 0), 0);
        assert_int_equal(heard->resets, 3);
        assert_int_equal(ask(RESET_OWNER, 0, NULL, 0), 0);
        assert_int_equal(heard->resets, 4);
}

static void test_enabled_without_protocol_features(void **state)
{
        const uint64_t features = UINT64_C(1) << 32;

        (void)state;
        assert_false(vu_state->rings[0].enabled);
        assert_int_equal(ask(SET_FEATURES, 8, &features, 0), 0);
        assert_true(vu_state->rings[0].enabled && vu_state->rings[1].enabled);
}

static void test_reply_ack(void **state)
{
        const uint64_t features = UINT64_C(1) << 32, protocol = 0x8, zero = 0;

        (void)state;
        /* not agreed on */
        tell(SET_FEATURES, NEED_REPLY, 8, &features, 0);
        assert_int_equal(bl_vu_receive(vu, sv[0]), 0);
        assert_silent();
        tell(SET_PROTOCOL_FEATURES, NEED_REPLY, 8, &protocol, 0);
        assert_int_equal(bl_vu_receive(vu, sv[0]), 0);
        assert_answer(SET_PROTOCOL_FEATURES, 8, &zero);
        tell(SET_OWNER, NEED_REPLY, 0, NULL, 0);
        assert_int_equal(bl_vu_receive(vu, sv[0]), 0);
        assert_answer(SET_OWNER, 8, &zero);
        /* one answer is enough */
        tell(GET_QUEUE_NUM, NEED_REPLY, 0, NULL, 0);
        assert_int_equal(bl_vu_receive(vu, sv[0]), 0);
        assert_answer(GET_QUEUE_NUM, 8, &(uint64_t){2});
}

static void test_config(void **state)
{
        static const uint32_t refused[][2] = {{1, 8}, {0, 9}, {8, 1}, {9, 0}, {UINT32_MAX, 8}, {UINT32_MAX, 1}};
        uint32_t body[8] = {4, 4}, answer[4] = {4, 4, 0, 0};

        (void)state;
        assert_int_equal(ask(GET_CONFIG, 16, body, 0), 0);
        assert_answer(GET_CONFIG, 16, answer);
        body[0] = answer[0] = 0;
        answer[3] = CID;
        assert_int_equal(ask(GET_CONFIG, 16, body, 0), 0);
        assert_answer(GET_CONFIG, 16, answer);
        for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
                body[0] = refused[i][0];
                body[1] = refused[i][1];
                assert_int_equal(ask(GET_CONFIG, 12 + refused[i][1], body, 0), 0);
                assert_answer(GET_CONFIG, 0, NULL);
        }
        body[0] = 0;
        body[1] = 8;
        assert_int_equal(ask(GET_CONFIG, 16, body, 0), 0);
        assert_answer(GET_CONFIG, 0, NULL);
}

/* --- the socket ------------------------------------------------------------ */

static void test_closed(void **state)
{
        (void)state;
        assert_int_equal(bl_vu_receive(vu, sv[0]), 0);
        tell(SET_OWNER, VERSION, 0, NULL, 0);
        shutdown(sv[1], SHUT_WR);
        assert_int_equal(bl_vu_receive(vu, sv[0]), -EPIPE);
        assert_string_equal(bl_vu_error(vu), "");
        restart();
        /* in the middle of a message */
        send_bytes("\1\0\0\0\1", 5, 0);
        shutdown(sv[1], SHUT_WR);
        assert_int_equal(bl_vu_receive(vu, sv[0]), -EPIPE);
        restart();
        /* without waiting for the answer */
        tell(GET_FEATURES, VERSION, 0, NULL, 0);
        close(sv[1]);
        sv[1] = dup(0);
        assert_int_equal(bl_vu_receive(vu, sv[0]), -EPIPE);
}

static void test_answers_unread(void **state)
{
        int r = 0;

        (void)state;
        for (int i = 0; i < 100000 && r == 0; i++)
                r = ask(GET_FEATURES, 0, NULL, 0);
        assert_int_equal(r, -EPROTO);
        assert_string_not_equal(bl_vu_error(vu), "");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_handshake, setup, teardown),
                cmocka_unit_test_setup_teardown(test_at_once, setup, teardown),
                cmocka_unit_test_setup_teardown(test_pieces, setup, teardown),
                cmocka_unit_test_setup_teardown(test_take_over_pieces, setup, teardown),
                cmocka_unit_test_setup_teardown(test_lost_descriptor, setup, teardown),
                cmocka_unit_test_setup_teardown(test_killed_anywhere, setup, teardown),
                cmocka_unit_test_setup_teardown(test_killed_anywhere_in_pieces, setup, teardown),
                cmocka_unit_test_setup_teardown(test_killed_often, setup, teardown),
                cmocka_unit_test_setup_teardown(test_wrong_headers, setup, teardown),
                cmocka_unit_test_setup_teardown(test_wrong_sizes, setup, teardown),
                cmocka_unit_test_setup_teardown(test_wrong_values, setup, teardown),
                cmocka_unit_test_setup_teardown(test_descriptors, setup, teardown),
                cmocka_unit_test_setup_teardown(test_direct, setup, teardown),
                cmocka_unit_test_setup_teardown(test_mem_table, setup, teardown),
                cmocka_unit_test_setup_teardown(test_mem_slots, setup, teardown),
                cmocka_unit_test_setup_teardown(test_stop, setup, teardown),
                cmocka_unit_test_setup_teardown(test_reset, setup, teardown),
                cmocka_unit_test_setup_teardown(test_enabled_without_protocol_features, setup, teardown),
                cmocka_unit_test_setup_teardown(test_reply_ack, setup, teardown),
                cmocka_unit_test_setup_teardown(test_config, setup, teardown),
                cmocka_unit_test_setup_teardown(test_closed, setup, teardown),
                cmocka_unit_test_setup_teardown(test_answers_unread, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
