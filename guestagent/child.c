/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <ballast/cleanup.h>

#include "guestagent/child.h"
#include "guestagent/job.h"

/* Nothing of the agent's stays open in the child: a port has one opener. */
static void close_all_but(int fd)
{
        for (int i = STDERR_FILENO + 1; i < 256; i++)
                if (i != fd)
                        (void)close(i);
}

/* Whoever needs memory takes it from this process, not from the agent. */
static void be_humble(void)
{
        _cleanup_close_ int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

        (void)setpriority(PRIO_PROCESS, 0, 19);
        if (fd >= 0)
                (void)guest_write_all(fd, "1000", 4);
}

void guest_child_begin(int fd, int signal)
{
        sigset_t none;

        close_all_but(fd);
        (void)prctl(PR_SET_PDEATHSIG, signal);
        (void)sigemptyset(&none);
        (void)sigprocmask(SIG_SETMASK, &none, NULL);
        be_humble();
}
