/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The backend's side of vhost-user (QEMU, docs/interop/vhost-user.rst) for a
 * virtio-vsock device: two rings (0 receives in the guest, 1 transmits; the event
 * ring is QEMU's), and the configuration space with the guest's CID.
 *
 * Its state is plain data in memory shared with the supervisor, so that a worker
 * that takes over from one that died goes on where that one stopped: QEMU waits
 * for some answers with its main loop, and one that never came would be the VM's
 * end.  A message stays in the socket until it is handled, and its descriptors
 * with it; so it may be handled twice, but is answered once.
 *
 * The other side is QEMU, which is trusted with this VM's memory and nothing
 * else: sizes and indices are checked, and what is wrong ends the connection.
 */
#ifndef BALLAST_VSOCK_VHOST_USER_H
#define BALLAST_VSOCK_VHOST_USER_H

#include <sys/socket.h>

#include "daemon/vsock/guest_memory.h"
#include "daemon/vsock/vring.h"

#define BL_VU_RINGS    2U
#define BL_VU_RX       0U /* to the guest */
#define BL_VU_TX       1U /* from the guest */
#define BL_VU_HEADER   12U
#define BL_VU_BODY_MAX 2048U /* the largest is SET_MEM_TABLE */
#define BL_VU_FDS      BL_GM_REGIONS /* descriptors in one message; surplus ones are closed */

/*
 * How far the message at hand is.  A death by signal is never seen by a system
 * call that does not block half-way, and recvmmsg(2) and sendmmsg(2) write how
 * many bytes they moved into memory before they return: into this state.  So
 * taking and answering are each noted by the very call that does them: every
 * message is answered once, however its workers die.
 */
enum bl_vu_stage {
        BL_VU_COLLECT, /* `pending` bytes of it were taken from the socket */
        BL_VU_TAKE, /* more are being taken behind `before` bytes: received.msg_len */
        BL_VU_HANDLED, /* it is handled, its answer ready; all of it is being taken: received.msg_len */
        BL_VU_ANSWER, /* it is taken; the answer is being sent: sent.msg_len */
};

struct bl_vu_table {
        uint32_t n;
        struct bl_gm_region regions[BL_GM_REGIONS];
};

/* Survives a worker (keep.h).  All zeros is a new connection. */
struct bl_vu_state {
        uint64_t guest_cid; /* set by who starts the connection */
        uint64_t features; /* acknowledged by the driver */
        uint64_t protocol_features;
        uint32_t table; /* which of the two counts; a new one is written to the other */
        struct bl_vu_table tables[2];
        bool removed; /* a region went a moment ago: the one in its place may come with the next message */
        struct bl_vring rings[BL_VU_RINGS];
        uint32_t stage; /* enum bl_vu_stage */
        uint32_t before;
        uint32_t pending; /* bytes of `message` that came */
        uint32_t answer_size;
        struct mmsghdr received, sent; /* msg_len counts; the pointers are the caller's */
        uint8_t message[BL_VU_HEADER + BL_VU_BODY_MAX];
        uint8_t answer[BL_VU_HEADER + BL_VU_BODY_MAX];
};

struct bl_vu;

/* What the worker has to know of a message that was handled. */
struct bl_vu_handler {
        /* Ring `i` has another kick or call descriptor (owned by the callee; -1: none). */
        void (*kick)(void *userdata, unsigned i, int fd);
        void (*call)(void *userdata, unsigned i, int fd);
        /* Ring `i` starts or stops, or its state was changed otherwise.  After a stop
         * nothing of it may be touched. */
        void (*ring)(void *userdata, unsigned i);
        /* The device is reset or its driver changed: forget all connections. */
        void (*reset)(void *userdata);
        void *userdata;
};

/* `state` must outlive it.  `access` reaches the VMM's memory; the table in
 * `state` (a predecessor's) is taken over. */
int bl_vu_new(struct bl_vu_state *state, const struct bl_gm_access *access, const struct bl_vu_handler *h,
              struct bl_vu **ret);
struct bl_vu *bl_vu_free(struct bl_vu *v);

/*
 * Reads what `fd`, a Unix stream socket, has and handles the messages that are
 * whole; answers on `fd`.  0: come back when there is more; -EPIPE: the other
 * side closed; -EPROTO: it broke the protocol, `bl_vu_error` says how; others
 * from the socket.  After an error the connection is over.
 */
int bl_vu_receive(struct bl_vu *v, int fd);

/* Takes over from a predecessor, at the start: its rings, and what it left of a
 * message; same results.  With a new connection it does nothing more than
 * bl_vu_receive. */
int bl_vu_resume(struct bl_vu *v, int fd);

/* The same without a socket, for tests and fuzzers: one message, `fds` become the
 * callee's; the answer's bytes in `answer` (BL_VU_HEADER + BL_VU_BODY_MAX), their
 * number returned; -EPROTO. */
int bl_vu_handle(struct bl_vu *v, const uint8_t *message, size_t size, const int *fds, size_t n_fds, uint8_t *answer);

const struct bl_gm *bl_vu_memory(const struct bl_vu *v);
const char *bl_vu_error(const struct bl_vu *v); /* a sentence, or "" */

#endif
