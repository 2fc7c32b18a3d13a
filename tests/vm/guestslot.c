/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* guestslot.c: the server's children, and the commands about them (part of guestcmd). */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guestcmd.h"

/* One child: a workload (has an id and lives on) or a job (has no id, ends
 * after its reply). */
struct slot {
        pid_t pid; /* 0: free slot; -1: workload died, kept for "status" */
        bool job;
        char id[ID_MAX];
        int fd; /* our end of the socket pair */
        char tag[TAG_MAX]; /* of the request in flight, "" if none */
        char out[REPLY_MAX]; /* a job's output so far */
        size_t out_len;
        uint64_t want_mib;
        int status; /* wait status of a dead workload */
};

static struct slot slots[SLOTS];
static struct progress *progress; /* SLOTS of them, shared */
static uint64_t guest_seed;
static unsigned workload_deaths;

static struct slot *slot_find(const char *id)
{
        for (size_t i = 0; i < SLOTS; i++) {
                if (slots[i].pid != 0 && !slots[i].job && strcmp(slots[i].id, id) == 0)
                        return &slots[i];
        }
        return NULL;
}

static void slot_clear(struct slot *s)
{
        if (s->fd >= 0)
                close(s->fd);
        *s = (struct slot){.fd = -1};
}

/* Takes a free slot with a socket pair; the child's end is in *ret_fd. */
static struct slot *slot_new(const char *id, const char *tag, bool job, int *ret_fd)
{
        int pair[2];
        for (size_t i = 0; i < SLOTS; i++) {
                struct slot *s = &slots[i];
                if (s->pid != 0)
                        continue;
                /* Workload replies are whole messages, a job's output is a stream. */
                if (socketpair(AF_UNIX, (job ? SOCK_STREAM : SOCK_SEQPACKET) | SOCK_CLOEXEC, 0, pair) < 0)
                        return NULL;
                *s = (struct slot){.fd = pair[0], .job = job};
                snprintf(s->id, sizeof s->id, "%s", id);
                snprintf(s->tag, sizeof s->tag, "%.*s", TAG_MAX - 1, tag);
                progress[i] = (struct progress){0};
                *ret_fd = pair[1];
                return s;
        }
        return NULL;
}

static void slot_reply(struct slot *s, const char *text)
{
        if (s->tag[0] != '\0') {
                reply(s->tag, "%s", text);
                s->tag[0] = '\0';
        }
}

static void died_text(const struct slot *s, char *out, size_t size)
{
        snprintf(out, size, "error %s died %s=%d done_mib=%" PRIu64 " of %" PRIu64 " oom_kill=%lld", s->id,
                 WIFSIGNALED(s->status) ? "signal" : "exit",
                 WIFSIGNALED(s->status) ? WTERMSIG(s->status) : WEXITSTATUS(s->status), progress[s - slots].done_mib,
                 s->want_mib, file_value("/proc/vmstat", "oom_kill"));
}

/* Output of a "sh" job on one line: newlines become the two characters \n. */
static void job_finish(struct slot *s, int status)
{
        static char text[REPLY_MAX];
        size_t n = 0;
        for (size_t i = 0; i < s->out_len && n + 3 < sizeof text; i++) {
                if (s->out[i] == '\n') {
                        if (i + 1 < s->out_len) {
                                text[n++] = '\\';
                                text[n++] = 'n';
                        }
                } else {
                        text[n++] = isprint((unsigned char)s->out[i]) || s->out[i] == '\t' ? s->out[i] : '?';
                }
        }
        text[n] = '\0';
        if (s->tag[0] != '\0') {
                if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
                        reply(s->tag, "ok %s", text);
                } else {
                        reply(s->tag, "error status=%d %s",
                              WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status), text);
                }
        }
        slot_clear(s);
}

/* Reads what a child sent: a workload's reply, or some of a job's output. */
static bool slot_read(struct slot *s)
{
        char buf[1024];
        ssize_t n = recv(s->fd, buf, sizeof buf - 1, MSG_DONTWAIT);
        if (n <= 0)
                return false;
        buf[n] = '\0';
        if (!s->job) {
                slot_reply(s, buf);
                return true;
        }
        size_t room = sizeof s->out - s->out_len;
        size_t take = (size_t)n < room ? (size_t)n : room;
        memcpy(s->out + s->out_len, buf, take);
        s->out_len += take;
        return true;
}

void slot_child_ended(pid_t pid, int status)
{
        char text[256];

        for (size_t i = 0; i < SLOTS; i++) {
                struct slot *s = &slots[i];

                if (s->pid != pid)
                        continue;
                while (slot_read(s))
                        ;
                if (s->job) {
                        job_finish(s, status);
                        return;
                }
                s->status = status;
                died_text(s, text, sizeof text);
                console("alloc %s %s\n", s->id, WIFSIGNALED(status) ? "killed" : "ended");
                klog("workload: %s\n", text);
                workload_deaths++;
                close(s->fd);
                s->fd = -1;
                s->pid = -1;
                slot_reply(s, text);
                return;
        }
}

unsigned slot_workload_deaths(void)
{
        return workload_deaths;
}

void slots_init(void)
{
        for (size_t i = 0; i < SLOTS; i++)
                slots[i].fd = -1;
        progress = mmap(NULL, SLOTS * sizeof *progress, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        memcpy(&guest_seed, (const void *)getauxval(AT_RANDOM), sizeof guest_seed); /* another one each boot */
}

int slot_fd(size_t i)
{
        return slots[i].pid > 0 ? slots[i].fd : -1;
}

void slot_readable(size_t i)
{
        if (!slot_read(&slots[i]))
                usleep(1000); /* end of file: the child closed it, SIGCHLD tells the rest */
}

static void fork_failed(struct slot *s, const char *tag)
{
        reply(tag, "error fork: %s", strerror(errno));
        s->pid = 0;
        slot_clear(s);
}

/* What "alloc ID MIB ..." asks for; false: a bad argument. */
static bool parse_alloc(const struct request *r, struct work *w, uint64_t *ret_mib)
{
        if (r->argc < 3 || strlen(r->argv[1]) >= ID_MAX || !parse_u64(r->argv[2], ret_mib) || *ret_mib == 0 ||
            *ret_mib > (1U << 24))
                return false;
        /* Another seed for each guest and id, so that no page is shared by
         * accident; seed=N gives equal pages in every guest, on purpose. */
        *w = (struct work){.fill = FILL_RANDOM, .pages = *ret_mib * PAGES_PER_MIB, .seed = guest_seed};
        for (const char *p = r->argv[1]; *p != '\0'; p++)
                w->seed = mix(w->seed ^ (uint64_t)*p);
        for (size_t i = 3; i < r->argc; i++) {
                const char *arg = r->argv[i];

                if (strcmp(arg, "fill=zero") == 0)
                        w->fill = FILL_ZERO;
                else if (strcmp(arg, "fill=half") == 0)
                        w->fill = FILL_HALF;
                else if (strcmp(arg, "fill=random") == 0)
                        w->fill = FILL_RANDOM;
                else if (strncmp(arg, "seed=", 5) == 0 ? !parse_u64(arg + 5, &w->seed) : !parse_u64(arg, &w->rate))
                        return false;
        }
        return true;
}

/* "alloc ..." replies when the memory is filled, "bg alloc ..." at once. */
void cmd_alloc(const struct request *r)
{
        bool background = strcmp(r->argv[0], "bg") == 0;
        struct request inner = *r;
        uint64_t mib;
        struct work w;
        struct slot *s;
        int fd;

        if (background) {
                inner.argc--;
                memmove(inner.argv, inner.argv + 1, inner.argc * sizeof *inner.argv);
        }
        if (inner.argc < 1 || strcmp(inner.argv[0], "alloc") != 0 || !parse_alloc(&inner, &w, &mib)) {
                reply(r->tag, "error usage: [bg] alloc ID MIB [MIB_PER_S] [seed=N] [fill=random|half|zero]");
                return;
        }
        s = slot_find(inner.argv[1]);
        if (s != NULL && s->pid == -1) {
                slot_clear(s);
        } else if (s != NULL) {
                reply(r->tag, "error %s exists", s->id);
                return;
        }
        s = slot_new(inner.argv[1], background ? "" : r->tag, false, &fd);
        if (s == NULL) {
                reply(r->tag, "error no slot");
                return;
        }
        s->want_mib = mib;
        w.id = s->id;
        s->pid = fork_child("500");
        if (s->pid == 0)
                work_main(&w, fd, &progress[s - slots]);
        close(fd);
        if (s->pid < 0)
                fork_failed(s, r->tag);
        else if (background)
                reply(r->tag, "ok started %s", s->id);
}

/* touch, read, sum, churn, mlock: passed to the child, which replies. */
void cmd_work(const struct request *r)
{
        char line[128];
        struct slot *s = r->argc < 2 ? NULL : slot_find(r->argv[1]);
        if (s == NULL) {
                reply(r->tag, "error no such workload");
        } else if (s->pid == -1) {
                died_text(s, line, sizeof line);
                reply(r->tag, "%s", line);
        } else if (s->tag[0] != '\0' || progress[s - slots].done_mib < s->want_mib) {
                reply(r->tag, "error %s busy", r->argv[1]);
        } else {
                int n = snprintf(line, sizeof line, "%s %s %s", r->argv[0], r->argc > 2 ? r->argv[2] : "",
                                 r->argc > 3 ? r->argv[3] : "");
                snprintf(s->tag, sizeof s->tag, "%.*s", TAG_MAX - 1, r->tag);
                if (send(s->fd, line, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
                        slot_reply(s, "error workload does not listen");
        }
}

void cmd_free(const struct request *r)
{
        struct slot *s = r->argc < 2 ? NULL : slot_find(r->argv[1]);
        if (s == NULL) {
                reply(r->tag, "error no such workload");
                return;
        }
        if (s->pid > 0) {
                kill(s->pid, SIGKILL);
                /* Killed on purpose: no longer ours to report. init reaps it. */
                slot_reply(s, "error freed");
        }
        slot_clear(s);
        reply(r->tag, "ok freed");
}

void cmd_status(const struct request *r)
{
        char text[256];
        if (r->argc < 2) {
                static char all[REPLY_MAX];
                size_t n = 0;
                all[0] = '\0';
                for (size_t i = 0; i < SLOTS && n < sizeof all; i++) {
                        if (slots[i].pid != 0 && !slots[i].job) {
                                n += (size_t)snprintf(all + n, sizeof all - n, " %s=%" PRIu64 "/%" PRIu64 "%s",
                                                      slots[i].id, progress[i].done_mib, slots[i].want_mib,
                                                      slots[i].pid < 0 ? "!" : "");
                        }
                }
                reply(r->tag, "ok%s", all);
                return;
        }
        struct slot *s = slot_find(r->argv[1]);
        if (s == NULL) {
                reply(r->tag, "error no such workload");
        } else if (s->pid == -1) {
                died_text(s, text, sizeof text);
                reply(r->tag, "%s", text);
        } else {
                uint64_t done = progress[s - slots].done_mib;
                reply(r->tag,
                      "ok %s done_mib=%" PRIu64 " of %" PRIu64 " state=%s pid=%d churned=%" PRIu64 " wrong=%" PRIu64,
                      s->id, done, s->want_mib,
                      done < s->want_mib  ? "filling"
                      : s->tag[0] != '\0' ? "busy"
                                          : "ready",
                      (int)s->pid, progress[s - slots].churned, progress[s - slots].wrong);
        }
}

/* Runs a shell command as a job; its output comes back on one line. */
void run_shell(const char *tag, const char *command)
{
        int fd;
        struct slot *s = slot_new("sh", tag, true, &fd);
        if (s == NULL) {
                reply(tag, "error no slot");
                return;
        }
        s->pid = fork_child("0");
        if (s->pid == 0) {
                int null = open("/dev/null", O_RDONLY);
                link_ports();
                dup2(null, 0);
                dup2(fd, 1);
                dup2(fd, 2);
                execl("/bin/busybox", "sh", "-c", command, (char *)NULL);
                _exit(127);
        }
        close(fd);
        if (s->pid < 0)
                fork_failed(s, tag);
}
