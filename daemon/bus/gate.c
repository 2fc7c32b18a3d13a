/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/bus/gate.h"

#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define CHUNK 4096U

struct bl_gate {
        struct bl_gate_parser parser;
        int client_fd;
        int inner_fd;
        sd_event_source *client_source;
        sd_event_source *inner_source;
        uint8_t out[BL_GATE_OUT(CHUNK)];
        size_t out_start;
        size_t out_len;
};

/* sd-bus reads end-of-file, and ends the connection. */
static void hang_up(struct bl_gate *g)
{
        g->client_source = sd_event_source_disable_unref(g->client_source);
        g->inner_source = sd_event_source_disable_unref(g->inner_source);
        bl_closep(&g->inner_fd);
        g->inner_fd = -1;
}

/* Reads no more than it can pass on: either of the two sources is enabled. */
static int push(struct bl_gate *g)
{
        ssize_t n;
        int r;

        while (g->out_len > 0) {
                n = send(g->inner_fd, g->out + g->out_start, g->out_len, MSG_NOSIGNAL | MSG_DONTWAIT);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno == EAGAIN)
                        break;
                if (n < 0)
                        return -errno;
                g->out_start += (size_t)n;
                g->out_len -= (size_t)n;
        }
        r = sd_event_source_set_enabled(g->client_source, g->out_len > 0 ? SD_EVENT_OFF : SD_EVENT_ON);
        if (r < 0)
                return r;
        return sd_event_source_set_enabled(g->inner_source, g->out_len > 0 ? SD_EVENT_ON : SD_EVENT_OFF);
}

static int on_client(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
        struct bl_gate *g = userdata;
        uint8_t in[CHUNK];
        ssize_t n;

        (void)s;
        (void)revents;
        n = recv(fd, in, sizeof(in), MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        if (n > 0)
                n = bl_gate_parse(&g->parser, in, (size_t)n, g->out);
        else
                n = -ECONNRESET;
        if (n < 0) {
                hang_up(g);
                return 0;
        }
        g->out_start = 0;
        g->out_len = (size_t)n;
        if (push(g) < 0)
                hang_up(g);
        return 0;
}

static int on_inner(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
        struct bl_gate *g = userdata;

        (void)s;
        (void)fd;
        (void)revents;
        if (push(g) < 0)
                hang_up(g);
        return 0;
}

int bl_gate_new(sd_event *event, int client_fd, int64_t priority, int *ret_fd, struct bl_gate **ret)
{
        _cleanup_close_ int own_fd = -1, inner_fd = -1, far_fd = -1;
        _cleanup_(bl_gate_freep) struct bl_gate *g = NULL;
        int pair[2], r;

        own_fd = fcntl(client_fd, F_DUPFD_CLOEXEC, 3);
        if (own_fd < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
                return -errno;
        inner_fd = pair[0];
        far_fd = pair[1];
        g = calloc(1, sizeof(*g));
        if (!g)
                return -ENOMEM;
        g->client_fd = bl_take_fd(&own_fd);
        g->inner_fd = bl_take_fd(&inner_fd);
        r = sd_event_add_io(event, &g->client_source, g->client_fd, EPOLLIN, on_client, g);
        if (r < 0)
                return r;
        r = sd_event_add_io(event, &g->inner_source, g->inner_fd, EPOLLOUT, on_inner, g);
        if (r < 0)
                return r;
        r = sd_event_source_set_enabled(g->inner_source, SD_EVENT_OFF);
        if (r < 0)
                return r;
        r = sd_event_source_set_priority(g->client_source, priority);
        if (r < 0)
                return r;
        r = sd_event_source_set_priority(g->inner_source, priority);
        if (r < 0)
                return r;
        *ret_fd = bl_take_fd(&far_fd);
        *ret = BL_TAKE(g);
        return 0;
}

struct bl_gate *bl_gate_free(struct bl_gate *g)
{
        if (!g)
                return NULL;
        hang_up(g);
        bl_closep(&g->client_fd);
        free(g);
        return NULL;
}
