/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * reaper OWNER SWEEP DIR COMMAND... - runs COMMAND (libvirtd in its namespace)
 * and looks after what it leaves behind.
 *
 * Dead guests: QEMU detaches itself, so its parent becomes PID 1. In containers
 * and small VMs PID 1 may collect dead children late or never, and libvirt takes
 * a zombie for a live process: each probe of QEMU and each "virsh destroy" then
 * waits 25 s and more (measured). A child subreaper between the two ends that.
 *
 * Living guests: when the process OWNER (the test, 0 for none) is gone and we
 * still have children, it was killed before it could clean up. We then become
 * "SWEEP DIR", which ends the environment.
 *
 * Ends when no child is left. QEMU outlives a killed libvirtd, and so do we.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ARG_OWNER = 1, ARG_SWEEP, ARG_DIR, ARG_COMMAND };

int main(int argc, char **argv)
{
        struct pollfd fds[2] = {{.events = POLLIN}, {.events = POLLIN}};
        struct signalfd_siginfo info;
        sigset_t chld;
        int owner;

        if (argc <= ARG_COMMAND || prctl(PR_SET_CHILD_SUBREAPER, 1) < 0 || prctl(PR_SET_NAME, "vm-reaper") < 0) {
                perror("reaper");
                return 2;
        }
        (void)sigemptyset(&chld);
        (void)sigaddset(&chld, SIGCHLD);
        (void)sigprocmask(SIG_BLOCK, &chld, NULL);
        fds[0].fd = signalfd(-1, &chld, SFD_CLOEXEC);
        owner = (int)strtol(argv[ARG_OWNER], NULL, 10);
        fds[1].fd = owner > 0 ? pidfd_open(owner, 0) : -1;
        if (fds[0].fd < 0 || (owner > 0 && fds[1].fd < 0)) {
                perror("reaper");
                return 2;
        }
        if (fork() == 0) {
                (void)sigprocmask(SIG_UNBLOCK, &chld, NULL);
                execvp(argv[ARG_COMMAND], argv + ARG_COMMAND);
                perror(argv[ARG_COMMAND]);
                _exit(127);
        }
        for (;;) {
                pid_t pid;

                while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
                        ;
                if (pid < 0)
                        return 0;
                if (poll(fds, 2, -1) < 0)
                        continue;
                if (fds[0].revents != 0)
                        (void)read(fds[0].fd, &info, sizeof info);
                if (fds[1].revents != 0) {
                        (void)sigprocmask(SIG_UNBLOCK, &chld, NULL);
                        execl(argv[ARG_SWEEP], argv[ARG_SWEEP], argv[ARG_DIR], (char *)NULL);
                        perror(argv[ARG_SWEEP]);
                        return 1;
                }
        }
}
