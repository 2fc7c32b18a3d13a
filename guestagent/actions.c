/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ballast/cleanup.h>

#include "guestagent/actions.h"
#include "guestagent/child.h"
#include "guestagent/clock.h"
#include "guestagent/job.h"

/* Holds all of an action's hints, so that the child need not wait for the host.  Each message may waste the end of a
 * page. */
#define PIPE_SIZE (2 * GUEST_HINTS_MOST)
#define REAP_TIME (10 * BL_MSEC)

typedef enum bl_wire_status (*job_fn)(struct guest_job *j);

void guest_actions_init(struct guest_actions *a, const char *root)
{
        *a = (struct guest_actions){.root = root, .pipe = -1};
}

uint64_t guest_actions_features(const struct guest_actions *a)
{
        return (guest_can_hint(a->root) ? BL_WIRE_FEATURE_HINTS : 0) |
               (guest_can_trim(a->root) ? BL_WIRE_FEATURE_TRIM : 0) |
               (guest_can_compact(a->root) ? BL_WIRE_FEATURE_COMPACT : 0);
}

static void reply(struct guest_actions *a, uint64_t id, enum bl_wire_status status, uint64_t took)
{
        a->reply = (struct bl_wire_result){
                .id = id,
                .status = status,
                .bytes = BL_UNSET,
                .took = took,
                .need = BL_UNSET,
                .have = BL_UNSET,
        };
        a->reply_due = true;
}

static _Noreturn void work(const struct guest_actions *a, job_fn fn, struct guest_job *job)
{
        struct bl_wire_result result = {.id = a->id, .need = BL_UNSET, .have = BL_UNSET};
        uint8_t frame[BL_WIRE_HEADER + 64];
        usec_t start = guest_clock(CLOCK_MONOTONIC);
        int n;

        guest_child_begin(job->out, SIGKILL);
        job->until = start + GUEST_SCAN_TIME;
        result.status = fn(job);
        result.bytes = job->given;
        result.took = guest_clock(CLOCK_MONOTONIC) - start;
        n = bl_wire_encode_result(&result, frame, sizeof frame);
        if (n > 0)
                n = guest_write_all(job->out, frame, (size_t)n);
        _exit(n < 0);
}

static int start(struct guest_actions *a, job_fn fn, uint64_t bytes, usec_t now)
{
        _cleanup_close_ int in = -1, out = -1;
        int fds[2];
        pid_t pid;

        if (pipe2(fds, O_CLOEXEC) < 0)
                return -errno;
        in = fds[0];
        out = fds[1];
        /* only the reader may not wait; smaller than wished for it still works, more slowly */
        (void)fcntl(in, F_SETFL, O_NONBLOCK);
        (void)fcntl(in, F_SETPIPE_SZ, (int)PIPE_SIZE);
        a->scan++;
        pid = fork();
        if (pid < 0)
                return -errno;
        if (pid == 0)
                work(a, fn, &(struct guest_job){.root = a->root, .out = out, .bytes = bytes, .scan = a->scan});
        a->child = pid;
        a->pipe = bl_take_fd(&in);
        a->killed = false;
        a->len = a->frame = 0;
        a->kill_at = now + GUEST_ACTION_TIME;
        a->relay_at = now;
        return 0;
}

void guest_actions_begin(struct guest_actions *a, const struct bl_wire_action *action, usec_t now)
{
        uint64_t bytes = action->bytes;
        usec_t *not_before = NULL, gap = 0;
        job_fn fn = NULL;
        bool can = false;

        if (action->kind == BL_ACTION_PING) {
                reply(a, action->id, BL_RESULT_DONE, 0);
                return;
        }
        if (action->kind == BL_ACTION_TRIM) {
                fn = guest_job_trim;
                can = guest_can_trim(a->root);
        } else if (action->kind == BL_ACTION_COMPACT) {
                fn = guest_job_compact;
                can = guest_can_compact(a->root);
                not_before = &a->compact_at;
                gap = GUEST_COMPACT_GAP;
        } else if (action->kind == BL_ACTION_HINTS) {
                fn = guest_job_hints;
                can = guest_can_hint(a->root);
                bytes = bl_min(bytes, GUEST_HINTS_MOST);
                not_before = &a->hints_at;
                gap = GUEST_HINTS_GAP;
        }
        if (!can) {
                reply(a, action->id, BL_RESULT_UNKNOWN, BL_UNSET);
                return;
        }
        if (a->kind || a->child || (not_before && now < *not_before)) {
                reply(a, action->id, BL_RESULT_BUSY, BL_UNSET);
                return;
        }
        a->id = action->id;
        a->began_at = now;
        if (start(a, fn, bytes, now) < 0) {
                reply(a, action->id, BL_RESULT_FAILED, BL_UNSET);
                return;
        }
        a->kind = action->kind;
        if (not_before)
                *not_before = now + gap;
}

void guest_actions_reply(struct guest_actions *a, const struct bl_wire_result *r)
{
        a->reply = *r;
        a->reply_due = true;
}

static void end(struct guest_actions *a)
{
        bl_closep(&a->pipe);
        a->pipe = -1;
        a->kind = 0;
        a->len = a->frame = 0;
}

static void kill_child(struct guest_actions *a)
{
        if (a->child > 0 && !a->killed)
                (void)kill(a->child, SIGKILL);
        a->killed = true;
}

static void reap(struct guest_actions *a)
{
        if (a->child > 0 && waitpid(a->child, NULL, WNOHANG) != 0)
                a->child = 0;
}

void guest_actions_cancel(struct guest_actions *a)
{
        kill_child(a);
        end(a);
        a->reply_due = false;
        reap(a);
}

usec_t guest_actions_poll(const struct guest_actions *a, struct pollfd *ret, usec_t now)
{
        usec_t next = BL_UNSET;

        *ret = (struct pollfd){.fd = -1};
        if (a->child > 0)
                next = a->killed || !a->kind ? now + REAP_TIME : a->kill_at;
        if (a->kind && a->frame > 0 && a->relay_at > now) /* after that it waits for the stream, not for us */
                next = bl_min(next, a->relay_at);
        else if (a->kind && a->frame == 0)
                *ret = (struct pollfd){.fd = a->pipe, .events = POLLIN};
        return bl_sub_sat(next, now);
}

/* The pipe has ended, or the child writes nonsense: without a result that is one. */
static void failed(struct guest_actions *a, usec_t now)
{
        reply(a, a->id, BL_RESULT_FAILED, now - a->began_at);
        kill_child(a);
        end(a);
}

/* Until a whole message is there. */
static void read_message(struct guest_actions *a, usec_t now)
{
        while (a->frame == 0) {
                struct bl_wire_iter it;
                struct bl_wire_frame f;
                ssize_t n;

                bl_wire_iter_init(&it, a->in, a->len);
                if (bl_wire_next(&it, &f) > 0) {
                        a->frame = it.pos;
                        return;
                }
                n = read(a->pipe, a->in + a->len, sizeof a->in - a->len);
                if (n < 0 && (errno == EAGAIN || errno == EINTR))
                        return;
                if (n <= 0) {
                        failed(a, now);
                        return;
                }
                a->len += (size_t)n;
        }
}

void guest_actions_step(struct guest_actions *a, usec_t now)
{
        if (a->kind)
                read_message(a, now);
        /* what it has written is passed on all the same; without a result it has failed */
        if (a->child > 0 && now >= a->kill_at)
                kill_child(a);
        reap(a);
}

size_t guest_actions_message(struct guest_actions *a, void *buf, size_t size, usec_t now)
{
        int n;

        if (a->reply_due) {
                n = bl_wire_encode_result(&a->reply, buf, size);
                return n < 0 ? 0 : (size_t)n;
        }
        if (a->frame == 0 || a->frame > size || now < a->relay_at)
                return 0;
        memcpy(buf, a->in, a->frame);
        return a->frame;
}

static bool is_result(const struct guest_actions *a)
{
        struct bl_wire_iter it;
        struct bl_wire_frame f;

        bl_wire_iter_init(&it, a->in, a->frame);
        return bl_wire_next(&it, &f) > 0 && f.type == BL_WIRE_RESULT;
}

void guest_actions_sent(struct guest_actions *a, usec_t now)
{
        if (a->reply_due) {
                a->reply_due = false;
                return;
        }
        if (is_result(a)) {
                end(a);
                return;
        }
        a->relay_at = now + a->frame * BL_SEC / GUEST_HINTS_RATE;
        memmove(a->in, a->in + a->frame, a->len - a->frame);
        a->len -= a->frame;
        a->frame = 0;
        read_message(a, now);
}
