/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Numbers and layouts: QEMU 7.2, docs/interop/vhost-user.rst.  Integers are in host byte order. */
#include "daemon/vsock/vhost_user.h"

#include <endian.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include <ballast/cleanup.h>
#include <ballast/units.h>

#define VERSION      1U
#define VERSION_MASK 3U
#define FLAG_REPLY   4U
#define NEED_REPLY   8U

#define F_NOTIFY_ON_EMPTY   (UINT64_C(1) << 24)
#define F_ANY_LAYOUT        (UINT64_C(1) << 27)
#define F_PROTOCOL_FEATURES (UINT64_C(1) << 30)
#define F_VERSION_1         (UINT64_C(1) << 32)
#define F_IN_ORDER          (UINT64_C(1) << 35)
#define F_ORDER_PLATFORM    (UINT64_C(1) << 36)
#define F_RING_RESET        (UINT64_C(1) << 40)
#define FEATURES            (F_VERSION_1 | F_PROTOCOL_FEATURES)
/* QEMU passes on what the driver took from QEMU's own offer: these change nothing in how we use the rings */
#define FEATURES_HARMLESS (F_NOTIFY_ON_EMPTY | F_ANY_LAYOUT | F_IN_ORDER | F_ORDER_PLATFORM | F_RING_RESET)

#define PROTOCOL_MQ        (UINT64_C(1) << 0)
#define PROTOCOL_REPLY_ACK (UINT64_C(1) << 3)
#define PROTOCOL_CONFIG    (UINT64_C(1) << 9) /* QEMU insists on it for vsock */
#define PROTOCOL_MEM_SLOTS (UINT64_C(1) << 15) /* without it 8 regions at most */
#define PROTOCOL_FEATURES  (PROTOCOL_MQ | PROTOCOL_REPLY_ACK | PROTOCOL_CONFIG | PROTOCOL_MEM_SLOTS)

#define INDEX_MASK UINT64_C(0xff)
#define NO_FD      (UINT64_C(1) << 8)

#define CONFIG_HEADER 12U /* offset, size, flags */
#define REGION_SIZE   32U /* gpa, size, uva, offset in the file */
#define TABLE_HEADER  8U

/* in one call, so that the rings come to their turn between them */
#define MESSAGES_AT_ONCE 64

enum request {
        GET_FEATURES = 1,
        SET_FEATURES = 2,
        SET_OWNER = 3,
        RESET_OWNER = 4,
        SET_MEM_TABLE = 5,
        SET_VRING_NUM = 8,
        SET_VRING_ADDR = 9,
        SET_VRING_BASE = 10,
        GET_VRING_BASE = 11,
        SET_VRING_KICK = 12,
        SET_VRING_CALL = 13,
        SET_VRING_ERR = 14,
        GET_PROTOCOL_FEATURES = 15,
        SET_PROTOCOL_FEATURES = 16,
        GET_QUEUE_NUM = 17,
        SET_VRING_ENABLE = 18,
        GET_CONFIG = 24,
        GET_MAX_MEM_SLOTS = 36,
        ADD_MEM_REG = 37,
        REM_MEM_REG = 38,
        _REQUEST_MAX,
};

struct header {
        uint32_t request, flags, size;
};

struct ring_state {
        uint32_t index, num;
};

struct ring_addr {
        uint32_t index, flags;
        uint64_t desc, used, avail, log;
};

struct bl_vu {
        struct bl_vu_state *state;
        struct bl_vu_handler handler;
        struct bl_gm memory;
        int fds[BL_VU_FDS]; /* that came with the message at hand */
        size_t n_fds;
        const char *error;
};

/* A message at work: its descriptors are taken out of `fds` or closed behind it. */
struct call {
        const uint8_t *body;
        size_t size;
        int *fds;
        size_t n_fds;
        uint8_t *answer; /* body of the answer */
        size_t answer_size;
};

static int broke(struct bl_vu *v, const char *how)
{
        v->error = how;
        return -EPROTO;
}

static void close_fds(int *fds, size_t n)
{
        for (size_t i = 0; i < n; i++)
                if (fds[i] >= 0)
                        (void)close(bl_take_fd(&fds[i]));
}

/* --- messages -------------------------------------------------------------- */

static uint64_t get_u64(const struct call *c)
{
        uint64_t x;

        memcpy(&x, c->body, sizeof x);
        return x;
}

static int answer_u64(struct call *c, uint64_t x)
{
        memcpy(c->answer, &x, sizeof x);
        c->answer_size = sizeof x;
        return 0;
}

static int on_get_features(struct bl_vu *v, struct call *c)
{
        (void)v;
        return answer_u64(c, FEATURES);
}

static int on_set_features(struct bl_vu *v, struct call *c)
{
        const uint64_t f = get_u64(c);

        if (f & ~(FEATURES | FEATURES_HARMLESS))
                return broke(v, "it acknowledged features that were not offered");
        /* rings that nobody will enable are enabled */
        if (!(f & F_PROTOCOL_FEATURES))
                for (unsigned i = 0; i < BL_VU_RINGS; i++)
                        v->state->rings[i].enabled = true;
        if (f != v->state->features)
                v->handler.reset(v->handler.userdata);
        v->state->features = f;
        return 0;
}

static int on_set_owner(struct bl_vu *v, struct call *c)
{
        (void)v;
        (void)c;
        return 0;
}

static void stop_ring(struct bl_vu *v, unsigned i)
{
        v->state->rings[i].started = false;
        v->handler.kick(v->handler.userdata, i, -1);
        v->handler.ring(v->handler.userdata, i);
}

static int on_reset_owner(struct bl_vu *v, struct call *c)
{
        (void)c;
        for (unsigned i = 0; i < BL_VU_RINGS; i++)
                stop_ring(v, i);
        v->handler.reset(v->handler.userdata);
        return 0;
}

static int on_get_protocol_features(struct bl_vu *v, struct call *c)
{
        (void)v;
        return answer_u64(c, PROTOCOL_FEATURES);
}

static int on_set_protocol_features(struct bl_vu *v, struct call *c)
{
        const uint64_t f = get_u64(c);

        if (f & ~PROTOCOL_FEATURES)
                return broke(v, "it acknowledged protocol features that were not offered");
        v->state->protocol_features = f;
        return 0;
}

static int on_get_queue_num(struct bl_vu *v, struct call *c)
{
        (void)v;
        return answer_u64(c, BL_VU_RINGS);
}

static int on_get_max_mem_slots(struct bl_vu *v, struct call *c)
{
        (void)v;
        return answer_u64(c, BL_GM_REGIONS);
}

/* The guest's CID, and its four upper bytes, which are reserved (5.10.4). */
static int on_get_config(struct bl_vu *v, struct call *c)
{
        const uint64_t config = htole64(v->state->guest_cid);
        uint32_t at, size;

        if (c->size < CONFIG_HEADER)
                return broke(v, "a request for configuration space was too short");
        memcpy(&at, c->body, sizeof at);
        memcpy(&size, c->body + sizeof at, sizeof size);
        /* an answer without content is this message's way to say no */
        if (size != c->size - CONFIG_HEADER || at > sizeof config || size > sizeof config - at)
                return 0;
        memcpy(c->answer, c->body, CONFIG_HEADER);
        memcpy(c->answer + CONFIG_HEADER, (const uint8_t *)&config + at, size);
        c->answer_size = CONFIG_HEADER + size;
        return 0;
}

static struct bl_gm_region get_region(const uint8_t *p)
{
        struct bl_gm_region r;

        memcpy(&r.gpa, p, sizeof r.gpa);
        memcpy(&r.size, p + 8, sizeof r.size);
        memcpy(&r.uva, p + 16, sizeof r.uva);
        return r;
}

/* The other table first, then the switch: a successor finds the old or the new one. */
static int set_table(struct bl_vu *v, const struct bl_gm_region *regions, size_t n)
{
        struct bl_vu_state *s = v->state;
        struct bl_vu_table *other = &s->tables[!s->table];

        if (bl_gm_set(&v->memory, regions, n) < 0)
                return broke(v, "its memory table has too many regions, or they overlap, are empty or wrap");
        other->n = v->memory.n;
        memcpy(other->regions, v->memory.regions, sizeof other->regions);
        atomic_signal_fence(memory_order_seq_cst);
        s->table = !s->table;
        for (unsigned i = 0; i < BL_VU_RINGS; i++)
                v->handler.ring(v->handler.userdata, i);
        return 0;
}

static int on_set_mem_table(struct bl_vu *v, struct call *c)
{
        struct bl_gm_region regions[BL_GM_REGIONS];
        uint32_t n;

        if (c->size < TABLE_HEADER)
                return broke(v, "a memory table was too short");
        memcpy(&n, c->body, sizeof n);
        if (n > BL_GM_REGIONS || c->size != TABLE_HEADER + n * REGION_SIZE)
                return broke(v, "a memory table's size was wrong");
        for (uint32_t i = 0; i < n; i++)
                regions[i] = get_region(c->body + TABLE_HEADER + i * REGION_SIZE);
        return set_table(v, regions, n);
}

static uint32_t find_region(const struct bl_gm *m, const struct bl_gm_region *r)
{
        uint32_t i = 0;

        while (i < m->n && memcmp(&m->regions[i], r, sizeof *r) != 0)
                i++;
        return i;
}

/* One that is there already was added by a predecessor. */
static int on_add_mem_reg(struct bl_vu *v, struct call *c)
{
        const struct bl_gm_region r = get_region(c->body + TABLE_HEADER);
        struct bl_gm_region regions[BL_GM_REGIONS + 1];
        const uint32_t n = v->memory.n;

        if (find_region(&v->memory, &r) < n)
                return 0;
        memcpy(regions, v->memory.regions, n * sizeof *regions);
        regions[n] = r;
        return set_table(v, regions, n + 1);
}

/* One that is not there was removed by a predecessor. */
static int on_rem_mem_reg(struct bl_vu *v, struct call *c)
{
        const struct bl_gm_region r = get_region(c->body + TABLE_HEADER);
        const uint32_t n = v->memory.n, at = find_region(&v->memory, &r);
        struct bl_gm_region regions[BL_GM_REGIONS];

        v->state->removed = true;
        if (at == n)
                return 0;
        memcpy(regions, v->memory.regions, n * sizeof *regions);
        memmove(regions + at, regions + at + 1, (n - at - 1) * sizeof *regions);
        return set_table(v, regions, n - 1);
}

static struct bl_vring *find_ring(struct bl_vu *v, uint64_t i)
{
        if (i < BL_VU_RINGS)
                return &v->state->rings[i];
        v->error = "it named a ring that there is not";
        return NULL;
}

static struct bl_vring *get_ring_state(struct bl_vu *v, const struct call *c, struct ring_state *ret)
{
        memcpy(ret, c->body, sizeof *ret);
        return find_ring(v, ret->index);
}

static int on_set_vring_num(struct bl_vu *v, struct call *c)
{
        struct ring_state s;
        struct bl_vring *r = get_ring_state(v, c, &s);

        if (!r)
                return -EPROTO;
        if (s.num == 0 || s.num > BL_VRING_MAX || s.num & (s.num - 1))
                return broke(v, "a ring's size was no power of 2, or too large");
        r->num = s.num;
        r->broken = false;
        v->handler.ring(v->handler.userdata, s.index);
        return 0;
}

/* Other addresses, or another position, are another driver's. */
static int on_set_vring_addr(struct bl_vu *v, struct call *c)
{
        struct ring_addr a;
        struct bl_vring *r;

        memcpy(&a, c->body, sizeof a);
        r = find_ring(v, a.index);
        if (!r)
                return -EPROTO;
        if (a.desc != r->desc || a.avail != r->avail || a.used != r->used)
                v->handler.reset(v->handler.userdata);
        if (bl_vring_set_addr(r, a.desc, a.avail, a.used) < 0)
                return broke(v, "a ring was not aligned");
        v->handler.ring(v->handler.userdata, a.index);
        return 0;
}

static int on_set_vring_base(struct bl_vu *v, struct call *c)
{
        struct ring_state s;
        struct bl_vring *r = get_ring_state(v, c, &s);

        if (!r)
                return -EPROTO;
        if (s.num > UINT16_MAX)
                return broke(v, "a ring's position was out of range");
        if (s.num != r->used_idx)
                v->handler.reset(v->handler.userdata);
        bl_vring_set_base(r, (uint16_t)s.num);
        v->handler.ring(v->handler.userdata, s.index);
        return 0;
}

/* Stops the ring, too.  A chain that a broken ring did not get back comes again. */
static int on_get_vring_base(struct bl_vu *v, struct call *c)
{
        struct ring_state s;
        const struct bl_vring *r = get_ring_state(v, c, &s);

        if (!r)
                return -EPROTO;
        stop_ring(v, s.index);
        s.num = r->used_idx;
        memcpy(c->answer, &s, sizeof s);
        c->answer_size = sizeof s;
        return 0;
}

static int on_set_vring_enable(struct bl_vu *v, struct call *c)
{
        struct ring_state s;
        struct bl_vring *r = get_ring_state(v, c, &s);

        if (!r)
                return -EPROTO;
        if (s.num > 1)
                return broke(v, "a ring was to be neither enabled nor disabled");
        r->enabled = s.num;
        v->handler.ring(v->handler.userdata, s.index);
        return 0;
}

/* The ring and the descriptor (-1: none is to be used) of kick, call or err. */
static struct bl_vring *get_ring_fd(struct bl_vu *v, struct call *c, unsigned *ret_index, int *ret_fd)
{
        const uint64_t x = get_u64(c);
        struct bl_vring *r = find_ring(v, x & INDEX_MASK);

        if (!r)
                return NULL;
        if (!(x & NO_FD) && c->n_fds == 0) {
                v->error = "a message came without its descriptor, or its descriptor was lost";
                return NULL;
        }
        *ret_index = (unsigned)(x & INDEX_MASK);
        *ret_fd = x & NO_FD ? -1 : bl_take_fd(&c->fds[0]);
        return r;
}

static int on_set_vring_kick(struct bl_vu *v, struct call *c)
{
        unsigned i;
        int fd;
        struct bl_vring *r = get_ring_fd(v, c, &i, &fd);

        if (!r)
                return -EPROTO;
        r->started = fd >= 0;
        v->handler.kick(v->handler.userdata, i, fd);
        v->handler.ring(v->handler.userdata, i);
        return 0;
}

static int on_set_vring_call(struct bl_vu *v, struct call *c)
{
        unsigned i;
        int fd;

        if (!get_ring_fd(v, c, &i, &fd))
                return -EPROTO;
        v->handler.call(v->handler.userdata, i, fd);
        return 0;
}

/* Nothing is ever said there: a broken ring is the driver's own doing. */
static int on_set_vring_err(struct bl_vu *v, struct call *c)
{
        _cleanup_close_ int fd = -1;
        unsigned i;

        return get_ring_fd(v, c, &i, &fd) ? 0 : -EPROTO;
}

#define ANY_SIZE UINT32_MAX

static const struct command {
        int (*run)(struct bl_vu *v, struct call *c);
        uint32_t size; /* of the body */
        bool answers; /* by itself: no REPLY_ACK */
} commands[_REQUEST_MAX] = {
        [GET_FEATURES] = {on_get_features, 0, true},
        [SET_FEATURES] = {on_set_features, 8},
        [SET_OWNER] = {on_set_owner, 0},
        [RESET_OWNER] = {on_reset_owner, 0},
        [SET_MEM_TABLE] = {on_set_mem_table, ANY_SIZE},
        [SET_VRING_NUM] = {on_set_vring_num, sizeof(struct ring_state)},
        [SET_VRING_ADDR] = {on_set_vring_addr, sizeof(struct ring_addr)},
        [SET_VRING_BASE] = {on_set_vring_base, sizeof(struct ring_state)},
        [GET_VRING_BASE] = {on_get_vring_base, sizeof(struct ring_state), true},
        [SET_VRING_KICK] = {on_set_vring_kick, 8},
        [SET_VRING_CALL] = {on_set_vring_call, 8},
        [SET_VRING_ERR] = {on_set_vring_err, 8},
        [GET_PROTOCOL_FEATURES] = {on_get_protocol_features, 0, true},
        [SET_PROTOCOL_FEATURES] = {on_set_protocol_features, 8},
        [GET_QUEUE_NUM] = {on_get_queue_num, 0, true},
        [SET_VRING_ENABLE] = {on_set_vring_enable, sizeof(struct ring_state)},
        [GET_CONFIG] = {on_get_config, ANY_SIZE, true},
        [GET_MAX_MEM_SLOTS] = {on_get_max_mem_slots, 0, true},
        [ADD_MEM_REG] = {on_add_mem_reg, TABLE_HEADER + REGION_SIZE},
        [REM_MEM_REG] = {on_rem_mem_reg, TABLE_HEADER + REGION_SIZE},
};

static struct header get_header(const uint8_t *message)
{
        struct header h;

        memcpy(&h, message, sizeof h);
        return h;
}

static int check_header(struct bl_vu *v, const struct header *h)
{
        if ((h->flags & (VERSION_MASK | FLAG_REPLY)) != VERSION)
                return broke(v, "a message was of another version, or an answer");
        if (h->size > BL_VU_BODY_MAX)
                return broke(v, "a message was too long");
        return 0;
}

/* Handles one whole message; the size of its answer. */
static int run(struct bl_vu *v, const uint8_t *message, int *fds, size_t n_fds, uint8_t *answer)
{
        const struct header h = get_header(message);
        const struct command *command = h.request < _REQUEST_MAX ? &commands[h.request] : NULL;
        struct call c = {
                .body = message + BL_VU_HEADER,
                .size = h.size,
                .fds = fds,
                .n_fds = n_fds,
                .answer = answer + BL_VU_HEADER,
        };
        struct header reply = {.request = h.request, .flags = VERSION | FLAG_REPLY};
        int r;

        if (!command || !command->run)
                return broke(v, "a message is not known here");
        if (command->size != ANY_SIZE && command->size != h.size)
                return broke(v, "a message's size was wrong");
        v->state->removed = false;
        r = command->run(v, &c);
        if (r < 0)
                return r;
        if (!command->answers) {
                if (!(h.flags & NEED_REPLY) || !(v->state->protocol_features & PROTOCOL_REPLY_ACK))
                        return 0;
                (void)answer_u64(&c, 0);
        }
        reply.size = (uint32_t)c.answer_size;
        memcpy(answer, &reply, sizeof reply);
        return (int)(BL_VU_HEADER + c.answer_size);
}

int bl_vu_handle(struct bl_vu *v, const uint8_t *message, size_t size, const int *fds, size_t n_fds, uint8_t *answer)
{
        const size_t n = (size_t)bl_min(n_fds, BL_VU_FDS);
        int own[BL_VU_FDS], r;
        struct header h;

        for (size_t i = 0; i < n_fds; i++) {
                if (i < n)
                        own[i] = fds[i];
                else if (fds[i] >= 0)
                        (void)close(fds[i]);
        }
        if (size < BL_VU_HEADER) {
                r = broke(v, "a message was too short");
        } else {
                h = get_header(message);
                r = check_header(v, &h);
                if (r >= 0)
                        r = size == BL_VU_HEADER + h.size ? run(v, message, own, n, answer)
                                                          : broke(v, "a message was not whole");
        }
        close_fds(own, n);
        return r;
}

/* --- the socket ------------------------------------------------------------ */

static void drop_fds(struct bl_vu *v)
{
        close_fds(v->fds, v->n_fds);
        v->n_fds = 0;
}

static void keep_fds(struct bl_vu *v, struct msghdr *m)
{
        for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
                const size_t bytes = c->cmsg_len - CMSG_LEN(0);

                if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
                        continue;
                for (size_t at = 0; at + sizeof(int) <= bytes; at += sizeof(int)) {
                        int fd;

                        memcpy(&fd, CMSG_DATA(c) + at, sizeof fd);
                        if (v->n_fds < BL_VU_FDS)
                                v->fds[v->n_fds++] = fd;
                        else
                                (void)close(fd);
                }
        }
}

union control {
        struct cmsghdr align;
        char space[CMSG_SPACE(BL_VU_FDS * sizeof(int))];
};

static int socket_error(void)
{
        return errno == ECONNRESET ? -EPIPE : -errno;
}

/*
 * Looks at the next message and its descriptors (a peek has copies of its own)
 * and leaves it in the socket.  1: it is whole and in `message`; 0: it is not, or
 * there is nothing; `ret_more`: there are bytes of it.
 */
static int peek(struct bl_vu *v, int fd, bool *ret_more)
{
        union control control;
        struct iovec iov = {.iov_base = v->state->message, .iov_len = sizeof v->state->message};
        struct msghdr m = {
                .msg_iov = &iov,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = sizeof control,
        };
        const ssize_t n = recvmsg(fd, &m, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        struct header h;
        int r;

        *ret_more = false;
        if (n < 0)
                return errno == EAGAIN ? 0 : socket_error();
        keep_fds(v, &m);
        if (n == 0)
                return -EPIPE;
        *ret_more = true;
        if ((size_t)n < BL_VU_HEADER)
                return 0;
        h = get_header(v->state->message);
        r = check_header(v, &h);
        if (r < 0)
                return r;
        return (size_t)n >= BL_VU_HEADER + h.size;
}

/* Takes `size` bytes at most from the socket; s->received.msg_len says how many, by the kernel's hand. */
static int take(struct bl_vu_state *s, int fd, void *buf, size_t size, union control *control)
{
        struct iovec iov = {.iov_base = buf, .iov_len = size};

        s->received.msg_hdr = (struct msghdr){
                .msg_iov = &iov,
                .msg_iovlen = 1,
                .msg_control = control,
                .msg_controllen = control ? sizeof *control : 0,
        };
        if (recvmmsg(fd, &s->received, 1, MSG_DONTWAIT | MSG_CMSG_CLOEXEC, NULL) < 0)
                return errno == EAGAIN ? 0 : socket_error();
        return s->received.msg_len > 0 ? (int)s->received.msg_len : -EPIPE;
}

static void set_stage(struct bl_vu_state *s, enum bl_vu_stage stage)
{
        atomic_signal_fence(memory_order_seq_cst);
        s->stage = stage;
        atomic_signal_fence(memory_order_seq_cst);
}

static void end_take(struct bl_vu_state *s)
{
        s->pending = s->before + s->received.msg_len;
        set_stage(s, BL_VU_COLLECT);
}

static void begin_answer(struct bl_vu_state *s)
{
        s->sent.msg_len = 0;
        set_stage(s, BL_VU_ANSWER);
}

static void end_message(struct bl_vu_state *s)
{
        s->pending = 0;
        set_stage(s, BL_VU_COLLECT);
}

/* How long the message is that `pending` bytes are there of, as far as they tell. */
static int message_size(struct bl_vu *v)
{
        const struct bl_vu_state *s = v->state;
        struct header h;
        int r;

        if (s->pending < BL_VU_HEADER)
                return BL_VU_HEADER;
        h = get_header(s->message);
        r = check_header(v, &h);
        return r < 0 ? r : (int)(BL_VU_HEADER + h.size);
}

/* What came in more than one piece, which QEMU never sends, cannot wait in the
 * socket: it is collected here.  Its descriptors die with this worker, and then
 * the connection ends.  1: it is whole; 0: not yet. */
static int collect(struct bl_vu *v, int fd)
{
        struct bl_vu_state *s = v->state;
        union control control;
        int size, r;

        for (size = message_size(v); size > (int)s->pending; size = message_size(v)) {
                s->before = s->pending;
                s->received.msg_len = 0;
                set_stage(s, BL_VU_TAKE);
                r = take(s, fd, s->message + s->before, (uint32_t)size - s->before, &control);
                if (r > 0)
                        keep_fds(v, &s->received.msg_hdr);
                end_take(s);
                if (r <= 0)
                        return r;
        }
        return size < 0 ? size : 1;
}

static int answer(struct bl_vu *v, int fd)
{
        struct bl_vu_state *s = v->state;
        struct iovec iov = {.iov_base = s->answer, .iov_len = s->answer_size};

        if (s->answer_size > 0) {
                s->sent.msg_hdr = (struct msghdr){.msg_iov = &iov, .msg_iovlen = 1};
                if (sendmmsg(fd, &s->sent, 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
                        return errno == EAGAIN ? broke(v, "it does not read its answers") : socket_error();
                if (s->sent.msg_len != s->answer_size)
                        return broke(v, "it does not read its answers");
        }
        end_message(s);
        return 1;
}

/* The message is in `message`, whole; `waits`: in the socket, too. */
static int handle(struct bl_vu *v, int fd, bool waits)
{
        struct bl_vu_state *s = v->state;
        int r = run(v, s->message, v->fds, v->n_fds, s->answer);

        drop_fds(v);
        if (r < 0)
                return r;
        s->answer_size = (uint32_t)r;
        if (waits) {
                const int size = (int)(BL_VU_HEADER + get_header(s->message).size);

                s->received.msg_len = 0;
                set_stage(s, BL_VU_HANDLED);
                r = take(s, fd, s->message, (size_t)size, NULL);
                if (r != size)
                        return r < 0 ? r : broke(v, "what it had sent was gone again");
        }
        begin_answer(s);
        return answer(v, fd);
}

/* 1: a message was handled; 0: there is none. */
static int receive_one(struct bl_vu *v, int fd)
{
        bool more = true;
        int r = 0;

        if (v->state->pending == 0) {
                r = peek(v, fd, &more);
                if (r > 0)
                        return handle(v, fd, true);
                drop_fds(v);
        }
        if (r >= 0 && more)
                r = collect(v, fd);
        return r > 0 ? handle(v, fd, false) : r;
}

int bl_vu_receive(struct bl_vu *v, int fd)
{
        int r = 1;

        for (int i = 0; i < MESSAGES_AT_ONCE && r > 0; i++)
                r = receive_one(v, fd);
        return r < 0 ? r : 0;
}

/* A step that was noted by the kernel is done; one that was not is done again. */
static int settle(struct bl_vu *v, int fd)
{
        struct bl_vu_state *s = v->state;

        switch ((enum bl_vu_stage)s->stage) {
        case BL_VU_COLLECT:
                return 0;
        case BL_VU_TAKE:
                end_take(s);
                return 0;
        case BL_VU_HANDLED:
                if (s->received.msg_len == 0) {
                        end_message(s);
                        return 0;
                }
                begin_answer(s);
                return answer(v, fd);
        case BL_VU_ANSWER:
                if (s->sent.msg_len == 0)
                        return answer(v, fd);
                end_message(s);
                return 0;
        }
        return broke(v, "what a predecessor left makes no sense");
}

int bl_vu_resume(struct bl_vu *v, int fd)
{
        int r;

        /* one whose memory is not in the table is not served either */
        for (unsigned i = 0; i < BL_VU_RINGS; i++)
                (void)bl_vring_take_over(&v->state->rings[i], &v->memory);
        r = settle(v, fd);
        return r < 0 ? r : bl_vu_receive(v, fd);
}

int bl_vu_new(struct bl_vu_state *state, const struct bl_gm_access *access, const struct bl_vu_handler *h,
              struct bl_vu **ret)
{
        const struct bl_vu_table *t = &state->tables[state->table & 1];
        _cleanup_free_ struct bl_vu *v = calloc(1, sizeof *v);
        int r;

        if (!v)
                return -ENOMEM;
        r = bl_gm_set(&v->memory, t->regions, t->n);
        if (r < 0)
                return r;
        v->memory.access = *access;
        v->handler = *h;
        v->state = state;
        v->error = "";
        *ret = BL_TAKE(v);
        return 0;
}

struct bl_vu *bl_vu_free(struct bl_vu *v)
{
        if (v)
                drop_fds(v);
        free(v);
        return NULL;
}

const struct bl_gm *bl_vu_memory(const struct bl_vu *v)
{
        return &v->memory;
}

const char *bl_vu_error(const struct bl_vu *v)
{
        return v->error;
}
