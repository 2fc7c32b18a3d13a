/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/perf_event.h>

#include <ballast/cleanup.h>

#include "guestagent/alarm.h"

/* 4 MiB where they are huge pages; otherwise anything that a program does. */
#define ALARM_FAULTS 2

/* Queued, and says which descriptor; SIGIO comes in its place where the queue is full. */
#define ALARM_SIGNAL SIGRTMIN

static int open_signals(void)
{
        sigset_t set;
        int fd;

        (void)sigemptyset(&set);
        (void)sigaddset(&set, ALARM_SIGNAL);
        (void)sigaddset(&set, SIGIO);
        if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
                return -errno;
        fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        return fd < 0 ? -errno : fd;
}

static int open_cpu(int cpu)
{
        struct perf_event_attr attr = {
                .type = PERF_TYPE_SOFTWARE,
                .size = PERF_ATTR_SIZE_VER5,
                .config = PERF_COUNT_SW_PAGE_FAULTS,
                .sample_period = ALARM_FAULTS,
                .disabled = 1,
        };
        _cleanup_close_ int fd = (int)syscall(SYS_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC);

        if (fd < 0)
                return -errno;
        if (fcntl(fd, F_SETSIG, ALARM_SIGNAL) < 0 || fcntl(fd, F_SETOWN, getpid()) < 0 ||
            fcntl(fd, F_SETFL, O_ASYNC | O_NONBLOCK) < 0)
                return -errno;
        return bl_take_fd(&fd);
}

int guest_alarm_open(struct guest_alarm *a)
{
        long cpus = sysconf(_SC_NPROCESSORS_CONF);

        *a = (struct guest_alarm){.signals = -1};
        if (cpus < 1 || cpus > GUEST_ALARM_CPUS)
                return -E2BIG;
        for (int cpu = 0; cpu < cpus; cpu++) {
                int fd = open_cpu(cpu);

                if (fd == -ENODEV) /* that one is offline */
                        continue;
                if (fd < 0) {
                        guest_alarm_close(a);
                        return fd;
                }
                a->rang[a->cpus] = true;
                a->fd[a->cpus++] = fd;
        }
        a->signals = open_signals();
        if (a->signals < 0) {
                int r = a->signals;

                guest_alarm_close(a);
                return r;
        }
        return 0;
}

void guest_alarm_close(struct guest_alarm *a)
{
        for (int i = 0; i < a->cpus; i++)
                bl_closep(&a->fd[i]);
        bl_closep(&a->signals);
        a->cpus = 0;
        a->signals = -1;
}

/* Only those that rang: arming another CPU's wakes it. */
void guest_alarm_arm(struct guest_alarm *a)
{
        for (int i = 0; i < a->cpus; i++) {
                if (a->rang[i])
                        (void)ioctl(a->fd[i], PERF_EVENT_IOC_REFRESH, 1);
                a->rang[i] = false;
        }
}

bool guest_alarm_rang(struct guest_alarm *a)
{
        struct signalfd_siginfo info[8];
        bool rang = false;
        ssize_t n;

        while (a->signals >= 0 && (n = read(a->signals, info, sizeof info)) > 0) {
                rang = true;
                for (size_t k = 0; k < (size_t)n / sizeof info[0]; k++)
                        for (int i = 0; i < a->cpus; i++)
                                a->rang[i] |= info[k].ssi_signo == SIGIO || info[k].ssi_fd == a->fd[i];
        }
        return rang;
}
