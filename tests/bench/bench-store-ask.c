/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Asks ballast-store what it holds, past ballastd: for tests and benchmarks.
 *
 *   bench-store-ask CONTROL                            one JSON object: figures, VMs, events
 *   bench-store-ask CONTROL register UUID PID BYTES [GROUP]
 *   bench-store-ask CONTROL forget UUID
 *   bench-store-ask CONTROL reserve BYTES
 *
 * Waits 10 s at most.  Exit: 0, 1 the store refused (its errno is printed), 2 no answer.
 */
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include "daemon/store/control.h"
#include "daemon/util/uuid.h"
#include "tests/bench/store-bench.h"

static uint64_t start_of(pid_t pid)
{
        char path[64], text[1024];
        unsigned long long start;
        snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
        FILE *f = fopen(path, "re");
        if (f == NULL || fgets(text, sizeof text, f) == NULL ||
            sscanf(strrchr(text, ')') + 1,
                   " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &start) != 1)
                die(path);
        fclose(f);
        return start;
}

static int call(const char *path)
{
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        struct timeval limit = {.tv_sec = 10};
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
        if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0 ||
            connect(fd, (struct sockaddr *)&a, sizeof a) < 0) {
                fprintf(stderr, "bench-store-ask: %s: %s\n", path, strerror(errno));
                exit(2);
        }
        return fd;
}

static void hear(int fd, struct bl_store_reply *r)
{
        if (recv(fd, r, sizeof *r, 0) != (ssize_t)sizeof *r) {
                fprintf(stderr, "bench-store-ask: no answer\n");
                exit(2);
        }
}

#define U(name) printf("\"" #name "\": %" PRIu64 ", ", f->name)

static void print_figures(const struct bl_store_reply *r)
{
        const struct bl_store_figures *f = &r->figures;
        U(incarnation);
        U(pool_size);
        U(pool_ready);
        U(pool_used);
        U(payload);
        U(slack);
        U(tables);
        U(index);
        U(disk_size);
        U(disk_used);
        U(held);
        U(zero);
        U(unique);
        U(promised);
        U(backing);
        U(headroom);
        U(writes);
        U(reads);
        U(trims);
        U(dedup_hits);
        U(demoted);
        U(disk_reads);
        U(errors);
        U(waiting);
        U(write_p50);
        U(write_p99);
        U(read_p50);
        U(read_p99);
        U(oldest_request);
        printf("\"disk_failed\": %s, \"fixed\": %" PRIu64 ", \"events_lost\": %" PRIu64 ", \"events\": [",
               f->disk_failed ? "true" : "false", r->fixed, r->events_lost);
        for (uint32_t i = 0; i < r->n_events && i < BL_STORE_REPLY_EVENTS; i++)
                printf("%s{\"kind\": %d, \"offset\": %" PRIu64 "}", i > 0 ? ", " : "", (int)r->events[i].kind,
                       r->events[i].offset);
        printf("], \"vms\": [");
}

static void print_vm(const struct bl_store_vm *f, bool first)
{
        char uuid[37];
        bl_uuid_to_string(f->uuid, uuid);
        printf("%s{\"uuid\": \"%s\", \"pid\": %d, \"group\": \"%.*s\", \"open\": %s, \"lost\": %s, ", first ? "" : ", ",
               uuid, (int)f->pid, (int)sizeof f->group, f->group, f->open ? "true" : "false",
               f->lost ? "true" : "false");
        U(size);
        U(stamp);
        U(held);
        U(zero);
        U(shared);
        U(stored);
        U(disk);
        U(errors);
        U(write_pages);
        U(read_pages);
        printf("\"ratio\": %u}", f->ratio);
}

int main(int argc, char **argv)
{
        static struct bl_store_reply r;
        struct bl_store_request q = {.magic = BL_STORE_CONTROL_MAGIC, .op = BL_STORE_OP_STATUS};
        struct bl_store_registration *g = &q.registration;
        bool first = true, ok = argc == 2;
        g->limit = g->stamp = BL_UNSET;
        if ((argc == 6 || argc == 7) && strcmp(argv[2], "register") == 0) {
                q.op = BL_STORE_OP_REGISTER;
                ok = bl_uuid_from_string(argv[3], g->uuid) >= 0;
                g->pid = atoi(argv[4]);
                g->start = start_of(g->pid);
                g->size = strtoull(argv[5], NULL, 10);
                snprintf(g->group, sizeof g->group, "%s", argc == 7 ? argv[6] : "");
        } else if (argc == 4 && strcmp(argv[2], "forget") == 0) {
                q.op = BL_STORE_OP_FORGET;
                ok = bl_uuid_from_string(argv[3], g->uuid) >= 0;
        } else if (argc == 4 && strcmp(argv[2], "reserve") == 0) {
                q.op = BL_STORE_OP_RESERVE;
                q.bytes = strtoull(argv[3], NULL, 10);
                ok = true;
        }
        if (!ok) {
                fprintf(stderr, "usage: bench-store-ask CONTROL [register UUID PID BYTES [GROUP] | forget UUID | "
                                "reserve BYTES]\n");
                return 2;
        }
        int fd = call(argv[1]);
        if (send(fd, &q, sizeof q, MSG_NOSIGNAL) != (ssize_t)sizeof q) {
                fprintf(stderr, "bench-store-ask: %s\n", strerror(errno));
                return 2;
        }
        hear(fd, &r);
        int status = r.status;
        if (q.op == BL_STORE_OP_STATUS) {
                printf("{");
                print_figures(&r);
                for (;;) {
                        for (uint32_t i = 0; i < r.n_vms && i < BL_STORE_REPLY_VMS; i++, first = false)
                                print_vm(&r.vms[i], first);
                        if (!r.more)
                                break;
                        hear(fd, &r);
                }
                printf("]}\n");
        } else if (status < 0) {
                printf("%s\n", strerror(-status));
        }
        close(fd);
        return status < 0;
}
