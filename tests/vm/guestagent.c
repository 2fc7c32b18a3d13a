/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* guestagent.c: ballast-agent in the test guest, and its port (part of guestcmd). */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guestcmd.h"

#define AGENT_PATH "/bin/ballast-agent"
#define AGENT_ARGS "/etc/ballast-agent.args" /* one line, set by build-image.sh */

static pid_t agent_pid;

/* What udev would do: /dev/virtio-ports/NAME -> ../vportNpM. */
void link_ports(void)
{
        char path[300], name[128], target[300];
        DIR *d = opendir("/sys/class/virtio-ports");
        struct dirent *e;
        mkdir("/dev/virtio-ports", 0755);
        while (d != NULL && (e = readdir(d)) != NULL) {
                snprintf(path, sizeof path, "/sys/class/virtio-ports/%.100s/name", e->d_name);
                FILE *f = fopen(path, "re");
                if (f == NULL)
                        continue;
                if (fgets(name, sizeof name, f) != NULL) {
                        name[strcspn(name, "\n")] = '\0';
                        snprintf(target, sizeof target, "../%.100s", e->d_name);
                        snprintf(path, sizeof path, "/dev/virtio-ports/%s", name);
                        if (symlink(target, path) < 0 && errno != EEXIST)
                                klog("symlink %s: %s\n", path, strerror(errno));
                }
                fclose(f);
        }
        if (d != NULL)
                closedir(d);
}

static void agent_exec(void)
{
        static char line[1024];
        char *argv[32] = {(char *)(uintptr_t)AGENT_PATH}, *save = NULL;
        size_t n = 1;
        /* Ports appear a moment after the driver has been loaded. */
        for (int i = 0; i < 40; i++) {
                link_ports();
                if (access("/dev/virtio-ports/org.ballast.agent.0", F_OK) == 0)
                        break;
                usleep(50000);
        }
        FILE *f = fopen(AGENT_ARGS, "re");
        if (f != NULL && fgets(line, sizeof line, f) != NULL) {
                for (char *p = strtok_r(line, " \n", &save); p != NULL && n < 31; p = strtok_r(NULL, " \n", &save))
                        argv[n++] = p;
        }
        int out = open("/dev/console", O_WRONLY), null = open("/dev/null", O_RDONLY);
        dup2(null, 0);
        dup2(out, 1);
        dup2(out, 2);
        execv(AGENT_PATH, argv);
        klog("exec %s: %s\n", AGENT_PATH, strerror(errno));
        _exit(127);
}

/* As a packaged unit would, the agent is
 * started with a low OOM score. */
const char *agent_start(void)
{
        if (agent_pid > 0)
                return "agent runs already";
        if (access(AGENT_PATH, X_OK) < 0)
                return "no agent in this image";
        agent_pid = fork_child("-900");
        if (agent_pid == 0) {
                setsid();
                agent_exec();
        }
        return agent_pid < 0 ? "fork" : NULL;
}

bool agent_ended(pid_t pid, int status)
{
        if (pid != agent_pid)
                return false;
        klog("agent ended, %s %d\n", WIFSIGNALED(status) ? "signal" : "exit",
             WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        agent_pid = 0;
        return true;
}

void cmd_agent(const struct request *r)
{
        const char *what = r->argv[1];
        static const struct {
                const char *name;
                int sig;
        } signals[] = {{"stop", SIGTERM}, {"kill", SIGKILL}, {"freeze", SIGSTOP}, {"thaw", SIGCONT}, {"hup", SIGHUP}};
        if (what != NULL && strcmp(what, "start") == 0) {
                const char *error = agent_start();
                if (error != NULL) {
                        reply(r->tag, "error %s", error);
                } else {
                        reply(r->tag, "ok pid=%d", (int)agent_pid);
                }
                return;
        }
        if (agent_pid <= 0) {
                reply(r->tag, "error no agent runs");
                return;
        }
        if (what == NULL || strcmp(what, "status") == 0) {
                reply(r->tag, "ok pid=%d", (int)agent_pid);
                return;
        }
        for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
                if (strcmp(what, signals[i].name) == 0) {
                        kill(agent_pid, signals[i].sig);
                        reply(r->tag, "ok pid=%d", (int)agent_pid);
                        return;
                }
        }
        reply(r->tag, "error usage: agent start|stop|kill|freeze|thaw|hup|status");
}
