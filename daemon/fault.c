/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/fault.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const names[] = {
#define BL_FAULT_POINT(id, name) [BL_FAULT_##id] = name,
#include "daemon/fault-points.h"
#undef BL_FAULT_POINT
};

const char *const *bl_fault_names(size_t *ret_n)
{
        *ret_n = sizeof(names) / sizeof(names[0]);
        return names;
}

#ifndef BALLAST_FAULTS

int bl_fault_enabled(void)
{
        return 0;
}

int bl_fault_set(const char *rules)
{
        (void)rules;
        return -EOPNOTSUPP;
}

#else

struct rule {
        unsigned long kill_at; /* passing at which it happens; 0: never */
        unsigned long fail_at;
        unsigned long delay_ms;
};

static struct rule rules_now[_BL_FAULT_MAX];
static atomic_ulong passed[_BL_FAULT_MAX];
static pthread_once_t once = PTHREAD_ONCE_INIT;

int bl_fault_enabled(void)
{
        return 1;
}

static int point_of(const char *name, size_t len)
{
        for (int i = 0; i < _BL_FAULT_MAX; i++)
                if (strlen(names[i]) == len && memcmp(names[i], name, len) == 0)
                        return i;
        return -EINVAL;
}

/* One rule: what@NAME[:N], of `len` characters. */
static int parse_rule(const char *s, size_t len, struct rule rules[_BL_FAULT_MAX])
{
        const char *at = memchr(s, '@', len), *colon;
        unsigned long n = 1;
        size_t name_len;
        int p;

        if (!at)
                return -EINVAL;
        colon = memchr(at, ':', len - (size_t)(at - s));
        if (colon) {
                char *end;

                if (colon[1] < '0' || colon[1] > '9')
                        return -EINVAL;
                errno = 0;
                n = strtoul(colon + 1, &end, 10);
                if (errno || end != s + len || n == 0)
                        return -EINVAL;
        }
        name_len = (size_t)((colon ? colon : s + len) - at - 1);
        p = point_of(at + 1, name_len);
        if (p < 0)
                return p;
        if (strncmp(s, "kill@", 5) == 0)
                rules[p].kill_at = n;
        else if (strncmp(s, "fail@", 5) == 0)
                rules[p].fail_at = n;
        else if (strncmp(s, "delay@", 6) == 0 && colon)
                rules[p].delay_ms = n;
        else
                return -EINVAL;
        return 0;
}

static int parse(const char *s, struct rule rules[_BL_FAULT_MAX])
{
        while (s && *s) {
                size_t len = strcspn(s, ",");
                int r = parse_rule(s, len, rules);

                if (r < 0)
                        return r;
                s += len;
                if (*s == ',')
                        s++;
        }
        return 0;
}

static void from_environment(void)
{
        struct rule rules[_BL_FAULT_MAX] = {0};

        /* A test that means to break something and does not is worse than one that stops. */
        if (parse(getenv("BALLAST_FAULT"), rules) < 0)
                abort();
        memcpy(rules_now, rules, sizeof(rules));
}

int bl_fault_set(const char *rules)
{
        struct rule parsed[_BL_FAULT_MAX] = {0};
        int r;

        pthread_once(&once, from_environment);
        r = parse(rules, parsed);
        if (r < 0)
                return r;
        memcpy(rules_now, parsed, sizeof(parsed));
        for (int i = 0; i < _BL_FAULT_MAX; i++)
                atomic_store(&passed[i], 0);
        return 0;
}

int bl_fault(enum bl_fault_point p)
{
        unsigned long n;

        pthread_once(&once, from_environment);
        n = atomic_fetch_add(&passed[p], 1) + 1;
        if (rules_now[p].delay_ms) {
                unsigned long ms = rules_now[p].delay_ms;

                (void)nanosleep(
                        &(struct timespec){.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000},
                        NULL);
        }
        if (rules_now[p].kill_at == n)
                (void)kill(getpid(), SIGKILL);
        return rules_now[p].fail_at == n ? -EIO : 0;
}

#endif
