/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A store behind NBD, as guests see it, and the transport's floor, nbdkit-memory-plugin(1), on
 * page sets of real guests, one client a VM.
 *
 *   bench-nbd run MEMORY STORE CONTROL CLIENTS FILE...   sockets of the two servers, and where
 *                                        ballast-store is told that this process is all those VMs
 *   bench-nbd turns STORE CONTROL CLIENTS FILE...   only writes to the store, one client after
 *                                        the other, and compares: what it holds then
 *   bench-nbd forget CONTROL CLIENTS     what it left there
 *
 * Each client writes the pages of a file in requests of 128 KiB, one at a time, reads 4 KiB
 * and then 32 KiB at random, and compares everything at last.  All clients are in the same
 * phase at a time, and go from one server to the other and back every few milliseconds,
 * so that what else the machine does meets both.  One JSON object a server.
 */
#include <libnbd.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "daemon/store/control.h"
#include "daemon/util/uuid.h"
#include "tests/bench/store-bench.h"

#define CLIENTS_MAX 16U
#define READS       4000U
#define READS_LARGE 2000U
#define LARGE       (32U << 10)
#define ROUNDS      40U

enum arm { MEMORY, STORE, ARMS };

struct client {
        struct set set;
        struct nbd_handle *nbd[ARMS];
        uint64_t base[ARMS]; /* where its part of the export begins */
        uint64_t write_us[ARMS], wrong;
        uint64_t small[ARMS][READS], large[ARMS][READS_LARGE];
        unsigned index;
};

static pthread_barrier_t barrier;

static _Noreturn void nbd_die(const char *what)
{
        fprintf(stderr, "bench-nbd: %s: %s\n", what, nbd_get_error());
        exit(1);
}

static void uuid_of(unsigned i, uint8_t ret[BL_UUID_LEN])
{
        memset(ret, 0, BL_UUID_LEN);
        memcpy(ret, "bench-nbd", 9);
        ret[BL_UUID_LEN - 1] = (uint8_t)(i + 1);
}

static uint64_t own_start(void)
{
        static char text[1024];
        unsigned long long start = 0;
        FILE *f = fopen("/proc/self/stat", "re");
        if (f == NULL || fgets(text, sizeof text, f) == NULL ||
            sscanf(strrchr(text, ')') + 1,
                   " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &start) != 1)
                die("/proc/self/stat");
        fclose(f);
        return start;
}

static struct bl_store_reply ask(const char *path, const struct bl_store_request *q)
{
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        struct bl_store_reply r;
        static struct bl_store_reply more;
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
        if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) < 0 ||
            send(fd, q, sizeof *q, MSG_NOSIGNAL) != sizeof *q || recv(fd, &r, sizeof r, 0) != sizeof r)
                die(path);
        more = r;
        while (more.more && recv(fd, &more, sizeof more, 0) == sizeof more)
                continue;
        close(fd);
        return r;
}

static struct nbd_handle *enter(const char *path, const char *name)
{
        struct nbd_handle *h = nbd_create();
        if (h == NULL || nbd_set_export_name(h, name) < 0 || nbd_connect_unix(h, path) < 0)
                nbd_die(path);
        return h;
}

static void enter_store(struct client *c, const char *path, const char *control)
{
        struct bl_store_request q = {.magic = BL_STORE_CONTROL_MAGIC,
                                     .op = BL_STORE_OP_REGISTER,
                                     .registration = {.pid = getpid(),
                                                      .start = own_start(),
                                                      .size = c->set.size,
                                                      .group = "bench",
                                                      .limit = BL_UNSET,
                                                      .stamp = BL_UNSET}};
        char name[37];
        uuid_of(c->index, q.registration.uuid);
        struct bl_store_reply r = ask(control, &q);
        if (r.status < 0) {
                errno = -r.status;
                die("register");
        }
        bl_uuid_to_string(q.registration.uuid, name);
        c->nbd[STORE] = enter(path, name);
}

static void all_here(void)
{
        pthread_barrier_wait(&barrier);
}

/* The `round`th part of a file, of ROUNDS. */
static void write_part(struct client *c, enum arm arm, unsigned round)
{
        size_t part = (c->set.size / ROUNDS / REQUEST + 1) * REQUEST, at = part * round;
        size_t end = at + part < c->set.size ? at + part : c->set.size;
        uint64_t begun = clock_us(CLOCK_MONOTONIC);
        for (; at < end; at += REQUEST) {
                size_t n = end - at < REQUEST ? end - at : REQUEST;
                if (nbd_pwrite(c->nbd[arm], c->set.data + at, n, c->base[arm] + at, 0) < 0)
                        nbd_die("write");
        }
        c->write_us[arm] += clock_us(CLOCK_MONOTONIC) - begun;
}

static void read_part(struct client *c, enum arm arm, uint32_t size, uint64_t *took, size_t n, uint64_t order)
{
        static _Thread_local uint8_t buf[LARGE];
        uint64_t places = c->set.size / size;
        for (size_t i = 0; i < n; i++) {
                uint64_t at = next_random(&order) % places * size, t = clock_ns(CLOCK_MONOTONIC);
                if (nbd_pread(c->nbd[arm], buf, size, c->base[arm] + at, 0) < 0)
                        nbd_die("read");
                took[i] = clock_ns(CLOCK_MONOTONIC) - t;
        }
}

static void compare(struct client *c)
{
        static _Thread_local uint8_t buf[REQUEST];
        for (size_t at = 0; at < c->set.size; at += REQUEST) {
                size_t n = c->set.size - at < REQUEST ? c->set.size - at : REQUEST;
                if (nbd_pread(c->nbd[STORE], buf, n, c->base[STORE] + at, 0) < 0)
                        nbd_die("read");
                c->wrong += memcmp(buf, c->set.data + at, n) != 0;
        }
}

static void *client_main(void *arg)
{
        struct client *c = arg;
        for (unsigned round = 0; round < ROUNDS; round++) {
                for (enum arm arm = 0; arm < ARMS; arm++) {
                        all_here();
                        write_part(c, arm, round);
                }
        }
        for (unsigned round = 0; round < ROUNDS; round++) {
                for (enum arm arm = 0; arm < ARMS; arm++) {
                        size_t n = READS / ROUNDS, large = READS_LARGE / ROUNDS;
                        uint64_t order = c->index * ROUNDS + round;
                        all_here();
                        read_part(c, arm, PAGE, c->small[arm] + round * n, n, order);
                        all_here();
                        read_part(c, arm, LARGE, c->large[arm] + round * large, large, order);
                }
        }
        all_here();
        compare(c);
        return NULL;
}

static void forget(const char *control, unsigned n)
{
        for (unsigned i = 0; i < n; i++) {
                struct bl_store_request q = {.magic = BL_STORE_CONTROL_MAGIC, .op = BL_STORE_OP_FORGET};
                uuid_of(i, q.registration.uuid);
                (void)ask(control, &q);
        }
}

static struct client clients[CLIENTS_MAX];

static void print_held(const char *control)
{
        struct bl_store_request q = {.magic = BL_STORE_CONTROL_MAGIC, .op = BL_STORE_OP_STATUS};
        struct bl_store_reply r = ask(control, &q);
        const struct bl_store_figures *f = &r.figures;
        printf(", \"payload\": %" PRIu64 ", \"slack\": %" PRIu64 ", \"tables\": %" PRIu64 ", \"index\": %" PRIu64
               ", \"pool_used\": %" PRIu64 ", \"footprint\": %" PRIu64 ", \"fixed_bytes\": %" PRIu64,
               f->payload, f->slack, f->tables, f->index, f->pool_used, f->pool_used + f->index, r.fixed);
}

static void print_times(enum arm arm, unsigned n, uint64_t bytes)
{
        static uint64_t small[CLIENTS_MAX * READS], large[CLIENTS_MAX * READS_LARGE];
        uint64_t slowest = 1;
        for (unsigned i = 0; i < n; i++) {
                memcpy(small + (size_t)i * READS, clients[i].small[arm], sizeof clients[i].small[arm]);
                memcpy(large + (size_t)i * READS_LARGE, clients[i].large[arm], sizeof clients[i].large[arm]);
                slowest = clients[i].write_us[arm] > slowest ? clients[i].write_us[arm] : slowest;
        }
        printf(", \"write128k_mb_s\": %.1f, \"read_p50_us\": %.1f, \"read_p99_us\": %.1f, \"read32k_p50_us\": %.1f, "
               "\"read32k_p99_us\": %.1f",
               (double)bytes / (double)slowest, quantile_us(small, (size_t)n * READS, 0.5),
               quantile_us(small, (size_t)n * READS, 0.99), quantile_us(large, (size_t)n * READS_LARGE, 0.5),
               quantile_us(large, (size_t)n * READS_LARGE, 0.99));
}

static int run(const char *memory, const char *store, const char *control, unsigned n, char **files)
{
        pthread_t threads[CLIENTS_MAX];
        uint64_t bytes = 0, base = 0, wrong = 0;
        pthread_barrier_init(&barrier, NULL, n);
        for (unsigned i = 0; i < n; i++) {
                struct client *c = &clients[i];
                c->index = i;
                c->set = set_load(files[i]);
                c->base[MEMORY] = base;
                base += c->set.size;
                bytes += c->set.size;
                enter_store(c, store, control);
                if (memory != NULL)
                        c->nbd[MEMORY] = enter(memory, "");
        }
        for (unsigned i = 0; i < n; i++) {
                if (memory == NULL) {
                        for (unsigned round = 0; round < ROUNDS; round++)
                                write_part(&clients[i], STORE, round);
                } else if (pthread_create(&threads[i], NULL, client_main, &clients[i]) != 0) {
                        die("a thread");
                }
        }
        for (unsigned i = 0; i < n; i++) {
                if (memory == NULL) {
                        compare(&clients[i]);
                } else {
                        pthread_join(threads[i], NULL);
                }
                wrong += clients[i].wrong;
        }
        if (memory != NULL) {
                printf("{\"arm\": \"nbdkit-memory\", \"clients\": %u, \"pages\": %" PRIu64, n, bytes / PAGE);
                print_times(MEMORY, n, bytes);
                printf("}\n");
        }
        printf("{\"arm\": \"%s\", \"clients\": %u, \"pages\": %" PRIu64 ", \"wrong_requests\": %" PRIu64,
               memory != NULL ? "ballast-nbd" : "ballast-nbd-turns", n, bytes / PAGE, wrong);
        if (memory != NULL)
                print_times(STORE, n, bytes);
        print_held(control);
        printf("}\n");
        for (unsigned i = 0; i < n; i++) {
                for (enum arm arm = 0; arm < ARMS; arm++) {
                        if (clients[i].nbd[arm] != NULL) {
                                nbd_shutdown(clients[i].nbd[arm], 0);
                                nbd_close(clients[i].nbd[arm]);
                        }
                }
        }
        return wrong != 0;
}

int main(int argc, char **argv)
{
        const char *verb = argc > 1 ? argv[1] : "";
        unsigned n;
        if (strcmp(verb, "run") == 0 && argc > 6) {
                n = (unsigned)atoi(argv[5]);
                if (n > 0 && n <= CLIENTS_MAX && n <= (unsigned)(argc - 6))
                        return run(argv[2], argv[3], argv[4], n, argv + 6);
        } else if (strcmp(verb, "turns") == 0 && argc > 5) {
                n = (unsigned)atoi(argv[4]);
                if (n > 0 && n <= CLIENTS_MAX && n <= (unsigned)(argc - 5))
                        return run(NULL, argv[2], argv[3], n, argv + 5);
        } else if (strcmp(verb, "forget") == 0 && argc == 4) {
                forget(argv[2], (unsigned)atoi(argv[3]));
                return 0;
        }
        fprintf(stderr,
                "usage: bench-nbd run MEMORY STORE CONTROL CLIENTS FILE... | turns STORE CONTROL CLIENTS FILE... | "
                "forget CONTROL CLIENTS\n");
        return 2;
}
