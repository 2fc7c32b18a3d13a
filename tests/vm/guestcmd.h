/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * guestcmd.h: what the parts of guestcmd know of each other.
 *
 *   guestcmd.c    the server: serial line, dispatcher, simple commands
 *   guestslot.c   children: workloads, which live on, and jobs, which end
 *   guestwork.c   what a workload child does: memory with a known pattern
 *   guestagent.c  ballast-agent and its port
 *   guestutil.c   files, logs, fork
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PAGE          4096U
#define PAGES_PER_MIB 256U
#define WORDS         (PAGE / sizeof(uint64_t))
#define REPLY_MAX     4096
#define ID_MAX        24
#define TAG_MAX       24
#define ARGS_MAX      12
#define SLOTS         32

/* One request. `rest` is everything behind the verb, as it came. */
struct request {
        const char *tag;
        char *argv[ARGS_MAX];
        size_t argc;
        const char *rest;
};

enum fill { FILL_RANDOM, FILL_HALF, FILL_ZERO };

/* What a workload child knows of itself. */
struct work {
        const char *id;
        uint64_t *mem;
        uint64_t pages;
        uint64_t seed;
        uint64_t rate; /* MiB/s of the first fill, 0: as fast as it goes */
        enum fill fill;
};

/* Written by a child, read by the server: shared memory, so that "status" needs
 * no answer from a child that is stuck in a page fault. */
struct progress {
        uint64_t done_mib;
        uint64_t churned, wrong; /* pages, of "churn" */
};

/* guestcmd.c: one reply line; only the server may call it */
__attribute__((format(printf, 2, 3))) void reply(const char *tag, const char *format, ...);

/* guestutil.c */
uint64_t now_us(void);
uint64_t mix(uint64_t x);
void write_all(int fd, const char *s, size_t n);
/* To the kernel log at level "err", which "quiet" still prints on the console. */
__attribute__((format(printf, 1, 2))) void klog(const char *format, ...);
/* A line on the console's serial port, at once and whole, or not at all: for who
 * takes the time on the host.  (The kernel's log would first pass its own locks.) */
__attribute__((format(printf, 1, 2))) void console(const char *format, ...);
bool parse_u64(const char *s, uint64_t *ret);
/* A value from a file of "KEY VALUE" lines such as /proc/vmstat; -1 if absent. */
long long file_value(const char *path, const char *key);
void write_file(const char *path, const char *text);
/* fork() for everything but the server: OOM-killable as told, default signals.
 * (Scheduling class and memory locks are not inherited.) */
pid_t fork_child(const char *oom_score_adj);

/* guestwork.c: fills the memory, replies on fd, then serves requests from fd */
_Noreturn void work_main(struct work *w, int fd, struct progress *pr);

/* guestslot.c */
void slots_init(void);
int slot_fd(size_t i); /* to poll, -1: none */
void slot_readable(size_t i);
void slot_child_ended(pid_t pid, int status);
unsigned slot_workload_deaths(void);
void cmd_alloc(const struct request *r);
void cmd_work(const struct request *r);
void cmd_free(const struct request *r);
void cmd_status(const struct request *r);
/* Runs a shell command as a job; its output comes back on one line. */
void run_shell(const char *tag, const char *command);

/* guestagent.c */
void link_ports(void);
const char *agent_start(void); /* NULL or an error text */
bool agent_ended(pid_t pid, int status); /* false: it was not the agent */
void cmd_agent(const struct request *r);
