/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vsock-host CID: the host's end of the kernel's vsock, as daemon/guests.c has it:
 * the daemon's own transport and agent on a loop, and one VM whose CID is CID.
 *
 * Prints a line for all that happens: "listening", "refused port", "refused cid=N",
 * "caller cid=N", "hello ...", "stats ...", "request ...", "hints ...", "result ..."
 * and "closed error=N"; `at` is in milliseconds.  Reads commands, one a line:
 *
 *      ping | compact | trim BYTES | hints BYTES | swap-on | swap-off       asks the agent for it
 *      grant BYTES                                     tells it that its limit is that
 *
 * Exit status: 0 at SIGTERM; 3 where it cannot listen ("cannot listen: WHY"), 1
 * when something else fails.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/signalfd.h>

#include <ballast/cleanup.h>

#include "daemon/channel/agent.h"
#include "daemon/channel/vhost_vsock.h"
#include "daemon/util/clock.h"

struct host {
        sd_event *event;
        uint32_t cid;
        struct bl_agent *agent;
        char line[128];
        size_t line_len;
};

static const char *const kinds[_BL_ACTION_MAX] = {
        [BL_ACTION_PING] = "ping",   [BL_ACTION_TRIM] = "trim",       [BL_ACTION_COMPACT] = "compact",
        [BL_ACTION_HINTS] = "hints", [BL_ACTION_SWAP_ON] = "swap-on", [BL_ACTION_SWAP_OFF] = "swap-off",
};

/* How often the kernel here, which is the agent's too, killed for want of memory. */
static uint64_t oom_kills(void)
{
        _cleanup_fclose_ FILE *f = fopen("/proc/vmstat", "re");
        char name[64];
        uint64_t value;

        while (f && fscanf(f, "%63s %" SCNu64, name, &value) == 2)
                if (strcmp(name, "oom_kill") == 0)
                        return value;
        return 0;
}

/* --- what the agent says --------------------------------------------------- */

static void on_hello(struct bl_agent *a, const struct bl_wire_hello *h, void *userdata)
{
        (void)a;
        (void)userdata;
        printf("hello version=%s protocol=%" PRIu64 ".%" PRIu64 " features=%#" PRIx64 " kernel=%s\n", h->version,
               h->major, h->minor, h->features, h->kernel);
}

static void on_stats(struct bl_agent *a, const struct bl_guest_stats *s, void *userdata)
{
        (void)a;
        (void)userdata;
        printf("stats total=%" PRIu64 " available=%" PRIu64 " at=%" PRIu64 "\n", s->total, s->available,
               s->at / BL_MSEC);
}

static void on_request(struct bl_agent *a, const struct bl_wire_request *r, void *userdata)
{
        (void)a;
        (void)userdata;
        printf("request bytes=%" PRIu64 " urgency=%" PRIu64 " at=%" PRIu64 " oom_kills=%" PRIu64 "\n", r->bytes,
               r->urgency, bl_now() / BL_MSEC, oom_kills());
}

static void on_hints(struct bl_agent *a, const struct bl_wire_hints *h, void *userdata)
{
        uint64_t pfn = 0, pages = 0, runs = 0;
        struct bl_wire_run run;
        size_t pos = 0;
        int r;

        (void)a;
        (void)userdata;
        while ((r = bl_wire_run_next(h, &pos, &pfn, &run)) > 0) {
                pages += run.pages;
                runs++;
        }
        printf("hints scan=%" PRIu64 " kind=%" PRIu64 " pages=%" PRIu64 " runs=%" PRIu64 " last=%d cut=%d end=%" PRIu64
               " error=%d\n",
               h->scan, h->kind, pages, runs, (h->flags & BL_HINTS_LAST) != 0, (h->flags & BL_HINTS_CUT) != 0, pfn, r);
}

static void on_result(struct bl_agent *a, enum bl_wire_action_kind kind, const struct bl_wire_result *r, void *userdata)
{
        (void)a;
        (void)userdata;
        printf("result kind=%s status=%" PRIu64 " bytes=%" PRIu64 " took=%" PRIu64 "\n", kinds[kind], r->status,
               r->bytes == BL_UNSET ? 0 : r->bytes, r->took == BL_UNSET ? 0 : r->took);
}

static void on_closed(struct bl_agent *a, int error, void *userdata)
{
        struct host *h = userdata;

        h->agent = bl_agent_free(a);
        printf("closed error=%d\n", error);
}

static const struct bl_agent_handlers handlers = {
        .hello = on_hello,
        .stats = on_stats,
        .request = on_request,
        .hints = on_hints,
        .result = on_result,
        .closed = on_closed,
};

/* --- being called ---------------------------------------------------------- */

static int on_call(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
        struct host *h = userdata;
        struct bl_agent_caller caller = {0};
        _cleanup_close_ int call = -1;
        int r = bl_transport_vhost_vsock.accept(fd, &caller, &call);

        (void)s;
        (void)revents;
        if (r == -EPERM) {
                puts("refused port");
        } else if (r < 0) {
                printf("accept error=%d\n", r);
        } else if (caller.has_uuid || caller.cid != h->cid) {
                printf("refused cid=%" PRIu32 "\n", caller.cid);
        } else {
                printf("caller cid=%" PRIu32 "\n", caller.cid);
                h->agent = bl_agent_free(h->agent);
                r = bl_agent_open(h->event, bl_take_fd(&call), &handlers, h, &h->agent);
                if (r < 0)
                        printf("agent error=%d\n", r);
        }
        return 0;
}

/* --- commands -------------------------------------------------------------- */

static void command(struct host *h, const char *text)
{
        char name[sizeof h->line];
        uint64_t bytes = BL_UNSET;

        if (sscanf(text, "%127s %" SCNu64, name, &bytes) < 1)
                return;
        if (strcmp(name, "grant") == 0 && h->agent) {
                struct bl_wire_entitlement e;

                bl_wire_entitlement_init(&e);
                e.v[BL_GRANT_LIMIT] = bytes;
                bl_agent_set_entitlement(h->agent, &e);
                return;
        }
        for (uint64_t k = 0; k < _BL_ACTION_MAX; k++)
                if (kinds[k] && strcmp(name, kinds[k]) == 0) {
                        const struct bl_wire_action action = {.kind = k, .bytes = bytes};

                        printf("act kind=%s error=%d\n", name, h->agent ? bl_agent_act(h->agent, &action) : -ENOTCONN);
                        return;
                }
        printf("unknown command %s\n", name);
}

static int on_input(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
        struct host *h = userdata;
        ssize_t n = read(fd, h->line + h->line_len, sizeof h->line - 1 - h->line_len);
        char *end;

        (void)revents;
        if (n <= 0)
                return sd_event_source_set_enabled(s, SD_EVENT_OFF);
        h->line_len += (size_t)n;
        while ((end = memchr(h->line, '\n', h->line_len))) {
                *end++ = '\0';
                command(h, h->line);
                h->line_len -= (size_t)(end - h->line);
                memmove(h->line, end, h->line_len);
        }
        if (h->line_len == sizeof h->line - 1)
                h->line_len = 0;
        return 0;
}

static int run(struct host *h)
{
        int r, fd = -1;
        sigset_t term;

        (void)sigemptyset(&term);
        (void)sigaddset(&term, SIGTERM);
        (void)sigprocmask(SIG_BLOCK, &term, NULL);
        r = bl_transport_vhost_vsock.listen(NULL, &fd);
        if (r < 0) {
                printf("cannot listen: %s\n", strerror(-r));
                return 3;
        }
        r = sd_event_default(&h->event);
        if (r >= 0)
                r = sd_event_add_signal(h->event, NULL, SIGTERM, NULL, NULL);
        if (r >= 0)
                r = sd_event_add_io(h->event, NULL, fd, EPOLLIN, on_call, h);
        if (r >= 0)
                r = sd_event_add_io(h->event, NULL, STDIN_FILENO, EPOLLIN, on_input, h);
        if (r >= 0) {
                puts("listening");
                r = sd_event_loop(h->event);
        }
        if (r < 0)
                printf("loop: %s\n", strerror(-r));
        bl_agent_free(h->agent);
        sd_event_unref(h->event);
        (void)close(fd);
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
        struct host h = {.cid = argc == 2 ? (uint32_t)strtoul(argv[1], NULL, 10) : 0};

        if (h.cid == 0) {
                fputs("usage: vsock-host CID\n", stderr);
                return 2;
        }
        setvbuf(stdout, NULL, _IOLBF, 0);
        /* it has most to say while the memory that it shares with the agent is at its end */
        (void)mlockall(MCL_CURRENT | MCL_FUTURE);
        return run(&h);
}
