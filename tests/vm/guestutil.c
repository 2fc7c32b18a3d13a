/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* guestutil.c: files, logs, fork (part of guestcmd). */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "guestcmd.h"

uint64_t now_us(void)
{
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000U + (uint64_t)t.tv_nsec / 1000U;
}

uint64_t mix(uint64_t x)
{ /* splitmix64 */
        x += 0x9e3779b97f4a7c15U;
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
        return x ^ (x >> 31);
}

void write_all(int fd, const char *s, size_t n)
{
        while (n > 0) {
                ssize_t w = write(fd, s, n);
                if (w < 0) {
                        if (errno == EINTR)
                                continue;
                        return;
                }
                s += w;
                n -= (size_t)w;
        }
}

void klog(const char *format, ...)
{
        char line[512];
        int n = snprintf(line, sizeof line, "<3>guestcmd: ");
        va_list args;
        va_start(args, format);
        n += vsnprintf(line + n, sizeof line - (size_t)n, format, args);
        va_end(args);
        int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
        if (fd >= 0) {
                write_all(fd, line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1);
                close(fd);
        }
}

void console(const char *format, ...)
{
        char line[256];
        int n = snprintf(line, sizeof line, "guestcmd: ");
        va_list args;
        va_start(args, format);
        n += vsnprintf(line + n, sizeof line - (size_t)n, format, args);
        va_end(args);
        /* not blocking: a console that nobody reads must not stop PID 1 */
        int fd = open("/dev/ttyS0", O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
        if (fd >= 0) {
                write_all(fd, line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1);
                close(fd);
        }
}

bool parse_u64(const char *s, uint64_t *ret)
{
        char *end;
        if (s == NULL || !isdigit((unsigned char)*s))
                return false;
        errno = 0;
        uint64_t v = strtoull(s, &end, 0);
        if (errno != 0 || *end != '\0')
                return false;
        *ret = v;
        return true;
}

long long file_value(const char *path, const char *key)
{
        char line[256];
        long long v = -1;
        size_t n = strlen(key);
        FILE *f = fopen(path, "re");
        if (f == NULL)
                return -1;
        while (v < 0 && fgets(line, sizeof line, f) != NULL) {
                if (strncmp(line, key, n) == 0 && (line[n] == ' ' || line[n] == ':'))
                        v = atoll(line + n + 1);
        }
        fclose(f);
        return v;
}

void write_file(const char *path, const char *text)
{
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd >= 0) {
                write_all(fd, text, strlen(text));
                close(fd);
        }
}

pid_t fork_child(const char *oom_score_adj)
{
        pid_t pid = fork();
        if (pid == 0) {
                sigset_t none;
                sigemptyset(&none);
                sigprocmask(SIG_SETMASK, &none, NULL);
                write_file("/proc/self/oom_score_adj", oom_score_adj);
        }
        return pid;
}
