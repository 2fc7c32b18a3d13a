/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A ballast-store that holds what the test says, on the test's loop. */
#ifndef BALLAST_TEST_STORE_FAKE_H
#define BALLAST_TEST_STORE_FAKE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "daemon/store/control.h"

#define FAKE_STORE_VMS 80

struct fake_store {
        sd_event *event;
        char path[108];
        int listening, fd;
        sd_event_source *accepts, *reads;

        /* how it is set up */
        struct bl_store_figures figures;
        struct bl_store_vm vms[FAKE_STORE_VMS];
        size_t n_vms;
        struct bl_store_event events[BL_STORE_REPLY_EVENTS];
        uint32_t n_events;
        bool mute; /* reads nothing */
        int refuse; /* what a registration is answered with */
        uint32_t magic;

        /* what it was told */
        int n_status, n_register, n_forget, n_reserve;
        uint64_t reserved;
        struct bl_store_registration registration; /* the last */
        uint8_t forgotten[BL_UUID_LEN];
};

static inline void fake_store_hang_up(struct fake_store *s)
{
        s->reads = sd_event_source_disable_unref(s->reads);
        if (s->fd >= 0)
                (void)close(s->fd);
        s->fd = -1;
}

static inline struct bl_store_vm *fake_store_find(struct fake_store *s, const uint8_t uuid[BL_UUID_LEN])
{
        for (size_t i = 0; i < s->n_vms; i++)
                if (memcmp(s->vms[i].uuid, uuid, BL_UUID_LEN) == 0)
                        return &s->vms[i];
        return NULL;
}

static inline int fake_store_register(struct fake_store *s, const struct bl_store_registration *r)
{
        struct bl_store_vm *vm = fake_store_find(s, r->uuid);

        s->n_register++;
        s->registration = *r;
        if (s->refuse < 0)
                return s->refuse;
        if (!vm) {
                assert_true(s->n_vms < FAKE_STORE_VMS);
                vm = &s->vms[s->n_vms++];
                *vm = (struct bl_store_vm){0};
        }
        memcpy(vm->uuid, r->uuid, BL_UUID_LEN);
        memcpy(vm->group, r->group, sizeof(vm->group));
        vm->pid = r->pid;
        vm->start = r->start;
        vm->size = r->size;
        vm->limit = r->limit;
        vm->lost = r->incarnation != 0 && r->incarnation != s->figures.incarnation;
        return 0;
}

static inline int fake_store_forget(struct fake_store *s, const uint8_t uuid[BL_UUID_LEN])
{
        struct bl_store_vm *vm = fake_store_find(s, uuid);

        s->n_forget++;
        memcpy(s->forgotten, uuid, BL_UUID_LEN);
        if (!vm)
                return -ENOENT;
        *vm = s->vms[--s->n_vms];
        return 0;
}

static inline void fake_store_answer(struct fake_store *s, int status, bool vms)
{
        size_t at = 0;

        do {
                struct bl_store_reply r = {.magic = s->magic, .status = status, .figures = s->figures};

                for (; vms && at < s->n_vms && r.n_vms < BL_STORE_REPLY_VMS; at++)
                        r.vms[r.n_vms++] = s->vms[at];
                r.more = vms && at < s->n_vms;
                if (vms && at <= BL_STORE_REPLY_VMS) {
                        r.n_events = s->n_events;
                        memcpy(r.events, s->events, sizeof(r.events));
                        s->n_events = 0;
                }
                assert_int_equal(send(s->fd, &r, sizeof(r), MSG_NOSIGNAL), sizeof(r));
        } while (vms && at < s->n_vms);
}

static inline int fake_store_on_request(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
        struct fake_store *s = userdata;
        struct bl_store_request q;
        ssize_t n;
        int r = 0;

        (void)source;
        (void)revents;
        if (s->mute)
                return sd_event_source_set_enabled(s->reads, SD_EVENT_OFF);
        n = recv(fd, &q, sizeof(q), 0);
        if (n <= 0) {
                fake_store_hang_up(s);
                return 0;
        }
        assert_int_equal(n, sizeof(q));
        assert_int_equal(q.magic, BL_STORE_CONTROL_MAGIC);
        switch (q.op) {
        case BL_STORE_OP_STATUS:
                s->n_status++;
                break;
        case BL_STORE_OP_REGISTER:
                r = fake_store_register(s, &q.registration);
                break;
        case BL_STORE_OP_FORGET:
                r = fake_store_forget(s, q.registration.uuid);
                break;
        case BL_STORE_OP_RESERVE:
                s->n_reserve++;
                s->reserved = q.bytes;
                break;
        default:
                fail_msg("no request has number %u", q.op);
        }
        fake_store_answer(s, r, q.op == BL_STORE_OP_STATUS);
        return 0;
}

static inline int fake_store_on_call(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
        struct fake_store *s = userdata;

        (void)source;
        (void)revents;
        fake_store_hang_up(s);
        s->fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        assert_true(s->fd >= 0);
        assert_true(sd_event_add_io(s->event, &s->reads, s->fd, EPOLLIN, fake_store_on_request, s) >= 0);
        return 0;
}

static inline void fake_store_start(struct fake_store *s)
{
        struct sockaddr_un a = {.sun_family = AF_UNIX};

        snprintf(a.sun_path, sizeof(a.sun_path), "%s", s->path);
        (void)unlink(s->path);
        s->fd = -1;
        s->listening = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        assert_true(s->listening >= 0);
        assert_int_equal(bind(s->listening, (struct sockaddr *)&a, sizeof(a)), 0);
        assert_int_equal(listen(s->listening, 8), 0);
        assert_true(sd_event_add_io(s->event, &s->accepts, s->listening, EPOLLIN, fake_store_on_call, s) >= 0);
}

static inline void fake_store_stop(struct fake_store *s)
{
        fake_store_hang_up(s);
        s->accepts = sd_event_source_disable_unref(s->accepts);
        if (s->listening >= 0)
                (void)close(s->listening);
        s->listening = -1;
        (void)unlink(s->path);
}

static inline void fake_store_init(struct fake_store *s, sd_event *event, const char *path)
{
        *s = (struct fake_store){.event = event,
                                 .listening = -1,
                                 .fd = -1,
                                 .magic = BL_STORE_CONTROL_MAGIC,
                                 .figures = {.incarnation = 1000,
                                             .pool_size = 1024 * BL_MIB,
                                             .backing = 1024 * BL_MIB,
                                             .pool_ready = 64 * BL_MIB}};
        snprintf(s->path, sizeof(s->path), "%s", path);
}

static inline void fake_store_unmute(struct fake_store *s)
{
        s->mute = false;
        if (s->reads)
                assert_true(sd_event_source_set_enabled(s->reads, SD_EVENT_ON) >= 0);
}

#endif
