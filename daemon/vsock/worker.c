/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <ballast/cleanup.h>
#include <ballast/wire.h>

#include "daemon/channel/vhost_user_vsock.h"
#include "daemon/util/clock.h"
#include "daemon/util/sock.h"
#include "daemon/virt/proc.h"
#include "daemon/vsock/keep.h"
#include "daemon/vsock/mux.h"

/* of each direction in one turn: QEMU's messages are looked at between turns */
#define PACKETS_AT_ONCE 32

/* A region that QEMU moves is away between two messages: so long the rings wait for it.  A host under
 * pressure is slow, and a buffer that is in no region would cost the guest its device. */
#define SETTLE (500 * BL_MSEC)

/* The supervisor never blocks; one that does not read for so long is gone. */
#define UP_LIMIT_MS 1000

enum watched {
        WATCH_QEMU,
        WATCH_PIDFD,
        WATCH_KICK, /* one a ring */
        WATCH_MUX = WATCH_KICK + BL_VU_RINGS,
        WATCH_MAX = WATCH_MUX + BL_MUX_CONNECTIONS,
};

struct worker {
        struct bl_keep *keep;
        int *fds; /* enum bl_keep_fd */
        int up;
        const char *host_socket;
        struct bl_gm_process process;
        struct bl_vu *vu;
        struct bl_mux *mux;
        char uuid[37];
        usec_t settled; /* when the rings are served again; BL_UNSET: they are */
        bool transmits; /* the guest's transmit ring may have something */
        bool said; /* one line in a worker's life */
        struct bl_vchain chain;
        uint8_t packet[BL_VSOCK_HEADER + BL_MUX_PAYLOAD];
};

static void say(struct worker *w, const char *what)
{
        if (!w->said)
                (void)fprintf(stderr, "ballast-vsock: %s: %s\n", w->uuid, what);
        w->said = true;
}

/* --- descriptors ----------------------------------------------------------- */

/* A second copy for the one who takes over; without the supervisor there is nobody. */
static void send_up(struct worker *w, enum bl_keep_fd which, int fd)
{
        const uint32_t number = which;
        struct pollfd pfd = {.fd = w->up, .events = POLLOUT};

        while (bl_sock_send_fd(w->up, &number, sizeof number, fd) == -EAGAIN)
                if (poll(&pfd, 1, UP_LIMIT_MS) <= 0)
                        return;
}

static void close_fd(struct worker *w, enum bl_keep_fd which)
{
        if (w->fds[which] >= 0)
                (void)close(bl_take_fd(&w->fds[which]));
}

/* QEMU's eventfds do not block; nothing else may either. */
static void unblock(int fd)
{
        const int flags = fd >= 0 ? fcntl(fd, F_GETFL) : -1;

        if (flags >= 0 && !(flags & O_NONBLOCK))
                (void)fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

static void replace_fd(struct worker *w, enum bl_keep_fd which, int fd)
{
        if (fd < 0 && w->fds[which] < 0)
                return;
        unblock(fd);
        close_fd(w, which);
        w->fds[which] = fd;
        send_up(w, which, fd);
}

/* --- what QEMU's messages change ------------------------------------------- */

static void on_kick(void *userdata, unsigned i, int fd)
{
        replace_fd(userdata, BL_KEEP_KICK_RX + i, fd);
}

static void on_call(void *userdata, unsigned i, int fd)
{
        replace_fd(userdata, BL_KEEP_CALL_RX + i, fd);
}

static void on_ring(void *userdata, unsigned i)
{
        struct worker *w = userdata;

        /* the kick may have been before */
        if (i == BL_VU_TX)
                w->transmits = true;
}

static void on_reset(void *userdata)
{
        struct worker *w = userdata;

        bl_mux_reset(w->mux);
}

/* --- connections ----------------------------------------------------------- */

/* A name says whose call it is (daemon/channel/vhost_user_vsock.h). */
static int bind_name(struct worker *w, int fd)
{
        struct sockaddr_un addr = {.sun_family = AF_UNIX};
        const int n = snprintf(addr.sun_path + 1, sizeof addr.sun_path - 1, BL_VHOST_USER_VSOCK_NAME "%s/%d.%" PRIu32,
                               w->uuid, (int)getpid(), w->keep->calls++);

        if (bind(fd, (const struct sockaddr *)&addr,
                 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1) + (socklen_t)n) < 0)
                return -errno;
        return 0;
}

static int on_connect(void *userdata, uint32_t src_port, uint32_t dst_port)
{
        struct worker *w = userdata;
        _cleanup_close_ int fd = -1;
        struct sockaddr_un addr;
        int r;

        if (dst_port != BL_WIRE_VSOCK_PORT || src_port >= BL_WIRE_VSOCK_PORT_ROOT)
                return -ECONNREFUSED;
        r = bl_sock_address(w->host_socket, &addr);
        if (r < 0)
                return r;
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        r = bind_name(w, fd);
        if (r < 0)
                return r;
        /* unix(7): never EINPROGRESS; EAGAIN when the backlog is full */
        if (connect(fd, (const struct sockaddr *)&addr, sizeof addr) < 0)
                return -errno;
        return bl_take_fd(&fd);
}

/* --- rings ----------------------------------------------------------------- */

static void call_guest(struct worker *w, unsigned i)
{
        const uint64_t one = 1;
        const int fd = w->fds[BL_KEEP_CALL_RX + i];

        /* a counter that is full has been heard of */
        if (fd >= 0 && bl_vring_wants_call(&w->keep->vu.rings[i], bl_vu_memory(w->vu)) &&
            write(fd, &one, sizeof one) < 0 && errno != EAGAIN)
                say(w, "the guest cannot be told of packets");
}

static void broken(struct worker *w, struct bl_vring *r)
{
        r->broken = true;
        say(w, "the guest's driver broke a ring, which is left alone until the device is reset");
}

/* A length that is not there, or too much, costs the connection: as no operation it is answered with RST. */
static int read_packet(struct worker *w, struct bl_vsock_packet *ret)
{
        const struct bl_gm *m = bl_vu_memory(w->vu);
        uint64_t there;
        int r;

        r = bl_vchain_read(&w->chain, m, 0, w->packet, BL_VSOCK_HEADER);
        if (r < 0)
                return r;
        bl_vsock_packet_decode(w->packet, ret);
        there = bl_min(w->chain.out_size - BL_VSOCK_HEADER, BL_MUX_PAYLOAD);
        if (ret->len > there) {
                ret->op = BL_VSOCK_OP_INVALID;
                ret->len = 0;
        }
        return bl_vchain_read(&w->chain, m, BL_VSOCK_HEADER, w->packet + BL_VSOCK_HEADER, ret->len);
}

/* One chain from the guest: 1; 0: there is none. */
static int transmit_one(struct worker *w, usec_t now)
{
        const struct bl_gm *m = bl_vu_memory(w->vu);
        struct bl_vring *ring = &w->keep->vu.rings[BL_VU_TX];
        struct bl_vsock_packet p;
        int r;

        r = bl_vring_next(ring, m, &w->chain);
        if (r <= 0)
                return r;
        r = read_packet(w, &p);
        if (r >= 0)
                bl_mux_receive(w->mux, &p, w->packet + BL_VSOCK_HEADER, now);
        /* what is too short for a packet is none */
        else if (r != -ENOBUFS)
                return r;
        r = bl_vring_give_back(ring, m, w->chain.head, 0);
        return r < 0 ? r : 1;
}

/* One packet to the guest: 1; 0: there is none, or no room for it. */
static int receive_one(struct worker *w, usec_t now)
{
        const struct bl_gm *m = bl_vu_memory(w->vu);
        struct bl_vring *ring = &w->keep->vu.rings[BL_VU_RX];
        struct bl_vsock_packet p;
        size_t room;
        int r;

        if (!bl_mux_has_next(w->mux))
                return 0;
        r = bl_vring_next(ring, m, &w->chain);
        if (r <= 0)
                return r;
        if (w->chain.in_size < BL_VSOCK_HEADER)
                return -EBADMSG;
        room = (size_t)bl_min(w->chain.in_size - BL_VSOCK_HEADER, BL_MUX_PAYLOAD);
        if (bl_mux_next(w->mux, room, &p, w->packet + BL_VSOCK_HEADER, now) == 0) {
                bl_vring_put_back(ring);
                return 0;
        }
        bl_vsock_packet_encode(&p, w->packet);
        r = bl_vchain_write(&w->chain, m, 0, w->packet, BL_VSOCK_HEADER + p.len);
        if (r >= 0)
                r = bl_vring_give_back(ring, m, w->chain.head, BL_VSOCK_HEADER + p.len);
        return r < 0 ? r : 1;
}

/* -ESRCH: QEMU has ended; -EFAULT without a chain at hand: the ring is not in the table of the moment. */
static bool is_broken(const struct bl_vring *r, int error)
{
        if (error >= 0 || error == -ESRCH)
                return false;
        return r->broken || error != -EFAULT || r->last_avail != r->used_idx;
}

/* No more than one turn has. */
static void transmit(struct worker *w, usec_t now)
{
        struct bl_vring *ring = &w->keep->vu.rings[BL_VU_TX];
        int n = 0;

        while (n < PACKETS_AT_ONCE && w->transmits && bl_mux_may_receive(w->mux)) {
                const int r = transmit_one(w, now);

                if (is_broken(ring, r))
                        broken(w, ring);
                if (r > 0)
                        n++;
                else
                        w->transmits = false;
        }
        if (n > 0)
                call_guest(w, BL_VU_TX);
}

/* How many. */
static int receive(struct worker *w, usec_t now)
{
        struct bl_vring *ring = &w->keep->vu.rings[BL_VU_RX];
        int n = 0, r = 1;

        for (; n < PACKETS_AT_ONCE && r > 0; n += r > 0) {
                r = receive_one(w, now);
                if (is_broken(ring, r))
                        broken(w, ring);
        }
        if (n > 0)
                call_guest(w, BL_VU_RX);
        return n;
}

/* Is there more to be done at once? */
static bool serve(struct worker *w)
{
        const usec_t now = bl_now();
        int n;

        transmit(w, now);
        n = receive(w, now);
        /* what was given may have made room to take */
        return n == PACKETS_AT_ONCE || (w->transmits && bl_mux_may_receive(w->mux));
}

/* --- the loop -------------------------------------------------------------- */

/* What cannot be read as a counter would wake us for ever. */
static void drain_kick(struct worker *w, unsigned i)
{
        uint64_t count;
        const ssize_t n = read(w->fds[BL_KEEP_KICK_RX + i], &count, sizeof count);

        if (n != sizeof count && !(n < 0 && errno == EAGAIN)) {
                close_fd(w, BL_KEEP_KICK_RX + i);
                say(w, "a kick descriptor is no eventfd; its ring is left alone");
        }
        on_ring(w, i);
}

static int poll_timeout(const struct worker *w, bool again, usec_t at)
{
        at = bl_min(at, w->settled);
        if (again)
                return 0;
        if (at == BL_UNSET)
                return -1;
        return (int)bl_min(bl_sub_sat(at, bl_now()) / BL_MSEC + 1, INT_MAX);
}

/* May the rings be touched? */
static bool settled(struct worker *w)
{
        bool *removed = &w->keep->vu.removed;

        if (*removed && w->settled == BL_UNSET)
                w->settled = bl_now() + SETTLE;
        if (*removed && bl_now() >= w->settled)
                *removed = false;
        if (!*removed)
                w->settled = BL_UNSET;
        return !*removed;
}

/* 1: go on; 0: QEMU has closed or ended. */
static int turn(struct worker *w, bool *again)
{
        struct pollfd pfds[WATCH_MAX] = {
                [WATCH_QEMU] = {.fd = w->fds[BL_KEEP_QEMU], .events = POLLIN},
                [WATCH_PIDFD] = {.fd = w->process.pidfd, .events = POLLIN},
        };
        usec_t at;
        size_t n;
        int r;

        for (unsigned i = 0; i < BL_VU_RINGS; i++)
                pfds[WATCH_KICK + i] = (struct pollfd){.fd = w->fds[BL_KEEP_KICK_RX + i], .events = POLLIN};
        n = bl_mux_poll(w->mux, pfds + WATCH_MUX, BL_MUX_CONNECTIONS, &at);
        r = poll(pfds, WATCH_MUX + n, poll_timeout(w, *again, at));
        if (r < 0)
                return errno == EINTR ? 1 : -errno;
        if (pfds[WATCH_PIDFD].revents)
                return 0;
        /* before QEMU's messages, which may reset the connections that these were */
        bl_mux_polled(w->mux, pfds + WATCH_MUX, n, bl_now());
        bl_mux_expire(w->mux, bl_now());
        for (unsigned i = 0; i < BL_VU_RINGS; i++)
                if (pfds[WATCH_KICK + i].revents)
                        drain_kick(w, i);
        if (pfds[WATCH_QEMU].revents) {
                r = bl_vu_receive(w->vu, w->fds[BL_KEEP_QEMU]);
                if (r < 0)
                        return r == -EPIPE ? 0 : r;
        }
        *again = settled(w) && serve(w);
        return 1;
}

static int serve_all(struct worker *w)
{
        bool again = true;
        int r;

        /* of a predecessor's ring nobody will kick for what it had not seen */
        w->transmits = true;
        r = bl_vu_resume(w->vu, w->fds[BL_KEEP_QEMU]);
        if (r < 0)
                return r == -EPIPE ? 0 : r;
        do
                r = turn(w, &again);
        while (r > 0);
        return r;
}

/* --- the process ----------------------------------------------------------- */

static int compare_fds(const void *a, const void *b)
{
        const int x = *(const int *)a, y = *(const int *)b;

        return (x > y) - (x < y);
}

static void close_others(const struct worker *w)
{
        int own[_BL_KEEP_FD_MAX + 1], from = STDERR_FILENO + 1;

        memcpy(own, w->fds, _BL_KEEP_FD_MAX * sizeof *own);
        own[_BL_KEEP_FD_MAX] = w->up;
        qsort(own, _BL_KEEP_FD_MAX + 1, sizeof *own, compare_fds);
        for (size_t i = 0; i <= _BL_KEEP_FD_MAX; i++) {
                if (own[i] < from)
                        continue;
                if (own[i] > from)
                        (void)close_range((unsigned)from, (unsigned)own[i] - 1, 0);
                from = own[i] + 1;
        }
        (void)close_range((unsigned)from, UINT_MAX, 0);
}

static void settle_process(const struct worker *w)
{
        const struct rlimit none = {0};
        sigset_t all;
        char name[16];

        /* of 15 characters */
        (void)snprintf(name, sizeof name, "vsock-%.8s", w->uuid);
        (void)prctl(PR_SET_NAME, name);
        (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        (void)setrlimit(RLIMIT_CORE, &none);
        for (int s = 1; s < _NSIG; s++)
                (void)signal(s, s == SIGPIPE ? SIG_IGN : SIG_DFL);
        (void)sigemptyset(&all);
        (void)sigprocmask(SIG_SETMASK, &all, NULL);
        close_others(w);
}

/* 1: it lives and is the one that was meant. */
static int check_process(const struct worker *w)
{
        const struct bl_instance qemu = {.pid = w->keep->pid, .start = w->keep->start};
        struct pollfd pfd = {.fd = w->process.pidfd, .events = POLLIN};
        char state;
        int r = bl_instance_state(NULL, &qemu, &state);

        if (pfd.fd < 0)
                return -EBADF;
        if (poll(&pfd, 1, 0) != 0)
                return 0;
        return r < 0 ? r : 1;
}

static int start(struct worker *w)
{
        const struct bl_gm_access access = bl_gm_process_access(&w->process);
        const struct bl_vu_handler handler = {
                .kick = on_kick, .call = on_call, .ring = on_ring, .reset = on_reset, .userdata = w};
        const struct bl_mux_options options = {
                .guest_cid = (uint32_t)w->keep->vu.guest_cid,
                .connect = on_connect,
                .userdata = w,
        };
        int r = check_process(w);

        if (r > 0)
                r = bl_mux_new(&options, &w->mux);
        if (r >= 0 && w->mux)
                r = bl_vu_new(&w->keep->vu, &access, &handler, &w->vu);
        if (r < 0 || !w->vu)
                return r;
        unblock(w->fds[BL_KEEP_QEMU]);
        return serve_all(w);
}

int bl_worker_run(struct bl_keep *keep, int fds[_BL_KEEP_FD_MAX], int up, const char *host_socket)
{
        _cleanup_free_ struct worker *w = calloc(1, sizeof *w);
        int r;

        if (!w)
                return 1;
        w->keep = keep;
        w->fds = fds;
        w->up = up;
        w->settled = BL_UNSET;
        w->host_socket = host_socket;
        w->process = (struct bl_gm_process){.pid = keep->pid, .pidfd = fds[BL_KEEP_PIDFD]};
        bl_uuid_to_string(keep->uuid, w->uuid);
        settle_process(w);
        r = start(w);
        if (r < 0)
                say(w, w->vu && *bl_vu_error(w->vu) ? bl_vu_error(w->vu) : strerror(-r));
        w->mux = bl_mux_free(w->mux);
        w->vu = bl_vu_free(w->vu);
        return r < 0;
}
