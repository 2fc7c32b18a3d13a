/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * guestcmd - the test guest's init and command server.
 *
 * Runs as PID 1 of the test guest (started by /init after the modules are
 * loaded) and answers one-line commands on a serial line:
 *
 *     @TAG COMMAND...      ->      @TAG ok ...   |   @TAG error ...
 *
 * The tag is chosen by the caller, so that a reply that comes after the
 * caller's time limit is never taken for the answer to the next command.
 *
 * The server is mlocked, real-time and exempt from the OOM killer, so that it
 * answers while the guest has no memory left. Everything that costs memory or
 * time happens in child processes, and their replies come when they are done:
 * the server never waits.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "guestcmd.h"

static int tty = -1;

void reply(const char *tag, const char *format, ...)
{
        static char line[REPLY_MAX + 64];
        int n = snprintf(line, sizeof line, "%s ", tag), m;
        size_t len;
        va_list args;

        va_start(args, format);
        m = vsnprintf(line + n, sizeof line - (size_t)n - 1, format, args);
        va_end(args);
        len = (size_t)n + (m > 0 ? (size_t)m : 0);
        if (len > sizeof line - 2)
                len = sizeof line - 2;
        line[len++] = '\n';
        write_all(tty, line, len);
}

static void cmd_meminfo(const struct request *r)
{
        char line[128], out[REPLY_MAX] = "";
        size_t n = 0;
        FILE *f = fopen("/proc/meminfo", "re");
        while (f != NULL && fgets(line, sizeof line, f) != NULL && n < sizeof out) {
                char *colon = strchr(line, ':');
                if (colon != NULL) {
                        *colon = '\0';
                        n += (size_t)snprintf(out + n, sizeof out - n, " %s=%lld", line, atoll(colon + 1));
                }
        }
        if (f != NULL)
                fclose(f);
        reply(r->tag, "ok%s", out);
}

static void cmd_ping(const struct request *r)
{
        reply(r->tag, "ok pong");
}

static void cmd_vmstat(const struct request *r)
{
        long long v = r->argc == 2 ? file_value("/proc/vmstat", r->argv[1]) : -1;

        if (v < 0)
                reply(r->tag, "error no such key");
        else
                reply(r->tag, "ok %lld", v);
}

static void cmd_oom(const struct request *r)
{
        reply(r->tag, "ok oom_kill=%lld workload_deaths=%u", file_value("/proc/vmstat", "oom_kill"),
              slot_workload_deaths());
}

static void cmd_shell(const struct request *r)
{
        run_shell(r->tag, r->rest);
}

/* Clean page cache needs a disk behind it (what lives in a ramfs cannot be
 * dropped): reads MIB from the read-only disk attached by vm_define --disk. */
static void cmd_cache(const struct request *r)
{
        static int held = -1; /* the kernel drops a device's pages at its last close */
        uint64_t mib;
        char command[160];
        const char *dev = r->argc > 2 ? r->argv[2] : "/dev/vda";
        if (r->argc < 2 || !parse_u64(r->argv[1], &mib)) {
                reply(r->tag, "error usage: cache MIB [DEVICE]");
                return;
        }
        int fd = open(dev, O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
                reply(r->tag, "error %s: %s (vm_define --disk)", dev, strerror(errno));
                return;
        }
        if (held >= 0)
                close(held);
        held = fd;
        snprintf(command, sizeof command,
                 "dd if=%.40s of=/dev/null bs=1M count=%" PRIu64 " 2>/dev/null && echo mib=%" PRIu64, dev, mib, mib);
        run_shell(r->tag, command);
}

/* reboot and poweroff */
static void cmd_end(const struct request *r)
{
        reply(r->tag, "ok");
        (void)tcdrain(tty);
        usleep(100000); /* the reply must leave before the machine does */
        (void)reboot(strcmp(r->argv[0], "reboot") == 0 ? RB_AUTOBOOT : RB_POWER_OFF);
}

static const struct {
        const char *verb;
        void (*run)(const struct request *r);
        const char *usage;
} commands[] = {
        {"ping", cmd_ping, ""},
        {"alloc", cmd_alloc, "ID MIB [MIB_PER_S] [seed=N] [fill=random|half|zero]"},
        {"bg", cmd_alloc, "alloc ..."},
        {"touch", cmd_work, "ID [FROM_MIB COUNT_MIB]"},
        {"read", cmd_work, "ID [FROM_MIB COUNT_MIB]"},
        {"sum", cmd_work, "ID [FROM_MIB COUNT_MIB]"},
        {"churn", cmd_work, "ID"},
        {"mlock", cmd_work, "ID"},
        {"free", cmd_free, "ID"},
        {"status", cmd_status, "[ID]"},
        {"meminfo", cmd_meminfo, ""},
        {"vmstat", cmd_vmstat, "KEY"},
        {"oom", cmd_oom, ""},
        {"cache", cmd_cache, "MIB [DEVICE]"},
        {"agent", cmd_agent, "start|stop|kill|freeze|thaw|hup|status"},
        {"sh", cmd_shell, "COMMAND"},
        {"reboot", cmd_end, ""},
        {"poweroff", cmd_end, ""},
};

#define COMMANDS (sizeof commands / sizeof *commands)

static void reply_usage(const char *tag)
{
        char text[REPLY_MAX];
        size_t n = 0;

        for (size_t i = 0; i < COMMANDS; i++)
                n += (size_t)snprintf(text + n, sizeof text - n, " | %s %s", commands[i].verb, commands[i].usage);
        reply(tag, "error usage: %s", text + 3);
}

static void run_command(char *line)
{
        struct request r = {.tag = line};
        char words[REPLY_MAX], *save = NULL, *rest = strchr(line, ' ');

        /* Without a tag it is no request: line noise, or a firmware's message */
        if (line[0] != '@' || rest == NULL || rest - line >= TAG_MAX)
                return;
        *rest++ = '\0';
        (void)snprintf(words, sizeof words, "%s", rest);
        for (char *p = strtok_r(words, " ", &save); p != NULL && r.argc < ARGS_MAX - 1; p = strtok_r(NULL, " ", &save))
                r.argv[r.argc++] = p;
        if (r.argc == 0)
                return;
        r.rest = rest + strspn(rest, " ") + strlen(r.argv[0]);
        for (size_t i = 0; i < COMMANDS; i++) {
                if (strcmp(r.argv[0], commands[i].verb) == 0) {
                        commands[i].run(&r);
                        return;
                }
        }
        reply_usage(r.tag);
}

static void read_tty(void)
{
        static char line[REPLY_MAX];
        static size_t len;
        char buf[512];
        ssize_t n = read(tty, buf, sizeof buf);

        for (ssize_t i = 0; i < n; i++) {
                if (buf[i] == '\n') {
                        line[len] = '\0';
                        len = 0;
                        run_command(line);
                } else if (len < sizeof line - 1) {
                        line[len++] = buf[i];
                }
        }
}

static void reap(int sigfd)
{
        struct signalfd_siginfo info;
        int status;
        pid_t pid;

        if (read(sigfd, &info, sizeof info) < 0)
                return;
        while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
                if (!agent_ended(pid, status))
                        slot_child_ended(pid, status);
        }
}

static _Noreturn void serve(int sigfd)
{
        for (;;) {
                struct pollfd p[SLOTS + 2] = {{.fd = tty, .events = POLLIN}, {.fd = sigfd, .events = POLLIN}};

                for (size_t i = 0; i < SLOTS; i++)
                        p[i + 2] = (struct pollfd){.fd = slot_fd(i), .events = POLLIN};
                if (poll(p, SLOTS + 2, -1) < 0)
                        continue;
                for (size_t i = 0; i < SLOTS; i++) {
                        if (p[i + 2].revents != 0)
                                slot_readable(i);
                }
                if (p[1].revents != 0)
                        reap(sigfd);
                if (p[0].revents != 0)
                        read_tty();
        }
}

static void protect_self(void)
{
        struct sched_param p = {.sched_priority = 50};

        write_file("/proc/self/oom_score_adj", "-1000");
        if (mlockall(MCL_CURRENT | MCL_FUTURE) < 0)
                klog("mlockall: %s\n", strerror(errno));
        if (sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &p) < 0)
                klog("sched_setscheduler: %s\n", strerror(errno));
}

static bool open_tty(const char *path)
{
        struct termios t;

        tty = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
        if (tty < 0 || tcgetattr(tty, &t) < 0)
                return false;
        cfmakeraw(&t);
        (void)cfsetspeed(&t, B115200);
        t.c_cflag |= CLOCAL | CREAD;
        return tcsetattr(tty, TCSANOW, &t) == 0;
}

int main(int argc, char **argv)
{
        sigset_t chld;
        int sigfd;

        if (argc != 2) {
                (void)fprintf(stderr, "usage: guestcmd TTY\n");
                return 2;
        }
        (void)sigemptyset(&chld);
        (void)sigaddset(&chld, SIGCHLD);
        (void)sigprocmask(SIG_BLOCK, &chld, NULL);
        sigfd = signalfd(-1, &chld, SFD_CLOEXEC);
        slots_init();
        if (sigfd < 0 || !open_tty(argv[1])) {
                klog("cannot start: %s\n", strerror(errno));
                (void)pause(); /* PID 1 must not end: that would hide the message */
        }
        protect_self();
        klog("up\n");
        (void)agent_start();
        serve(sigfd);
}
