/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * store-client NBD CONTROL UUID BYTES: what a VM is to ballast-store, and ballastd for it.
 *
 * Registers itself, connects when it is first needed, and again whenever the connection is gone, as QEMU
 * does.  Reads commands, one a line, and answers each with one:
 *
 *      register        "registered", or "refused WHY"; done once at the start, with its answer
 *      write SEED      fills the export: no two pages alike, every second one compresses to a quarter
 *      check SEED      reads it back: "wrong=PAGES"
 *      hold SECONDS    reads until a connection was lost and another one served: "gap=MILLISECONDS", or "none"
 *      status          "incarnation=N pool_used=N held=N disk_used=N demoted=N disk_reads=N disk_failed=0|1 vms=N"
 *      forget          "forgotten", or "refused WHY"
 *
 * What cannot be is said on standard error, with exit status 1.
 */
#include <errno.h>
#include <inttypes.h>
#include <libnbd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "daemon/store/control.h"
#include "daemon/util/clock.h"
#include "daemon/util/fs.h"
#include "daemon/util/procstat.h"
#include "daemon/util/uuid.h"

#define REQUEST  (128U << 10) /* the largest that the store takes */
#define PATIENCE (60 * BL_SEC) /* with one request, over any number of connections */

struct client {
        const char *nbd_path, *control_path, *name;
        struct bl_store_registration registration;
        struct nbd_handle *nbd; /* NULL: not connected */
        unsigned connections;
};

static _Noreturn void die(const char *what, const char *why)
{
        (void)fprintf(stderr, "store-client: %s: %s\n", what, why);
        exit(EXIT_FAILURE);
}

static void pause_ms(long ms)
{
        (void)nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

/* --- ballastd's part --------------------------------------------------------- */

static void ask(const struct client *c, enum bl_store_op op, struct bl_store_reply *ret)
{
        const struct bl_store_request q = {.magic = BL_STORE_CONTROL_MAGIC, .op = op, .registration = c->registration};
        const struct timeval limit = {.tv_sec = 30};
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

        (void)snprintf(a.sun_path, sizeof a.sun_path, "%s", c->control_path);
        if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0 ||
            connect(fd, (const struct sockaddr *)&a, sizeof a) < 0 || send(fd, &q, sizeof q, MSG_NOSIGNAL) < 0 ||
            recv(fd, ret, sizeof *ret, 0) != (ssize_t)sizeof *ret)
                die(c->control_path, strerror(errno));
        (void)close(fd);
}

static void say_done(const struct client *c, enum bl_store_op op, const char *done)
{
        struct bl_store_reply r;

        ask(c, op, &r);
        if (r.status < 0)
                printf("refused %s\n", strerror(-r.status));
        else
                puts(done);
}

static void say_status(const struct client *c)
{
        struct bl_store_reply r;
        const struct bl_store_figures *f = &r.figures;

        ask(c, BL_STORE_OP_STATUS, &r);
        printf("incarnation=%" PRIu64 " pool_used=%" PRIu64 " held=%" PRIu64 " disk_used=%" PRIu64 " demoted=%" PRIu64
               " disk_reads=%" PRIu64 " disk_failed=%d vms=%" PRIu32 "\n",
               f->incarnation, f->pool_used, f->held, f->disk_used, f->demoted, f->disk_reads, f->disk_failed, r.n_vms);
}

/* --- the VM's ----------------------------------------------------------------- */

static void hang_up(struct client *c)
{
        nbd_close(c->nbd);
        c->nbd = NULL;
}

static bool is_connected(struct client *c)
{
        struct nbd_handle *h;

        if (c->nbd)
                return true;
        h = nbd_create();
        if (!h)
                die("nbd", nbd_get_error());
        if (nbd_set_export_name(h, c->name) < 0 || nbd_connect_unix(h, c->nbd_path) < 0) {
                nbd_close(h);
                return false;
        }
        c->nbd = h;
        c->connections++;
        return true;
}

/* Again and again over new connections; an answer that is an error is final. */
static void transfer(struct client *c, bool is_write, uint8_t *buf, uint64_t at, size_t size)
{
        const usec_t deadline = bl_now() + PATIENCE;

        while (bl_now() < deadline) {
                if (!is_connected(c)) {
                        pause_ms(20);
                        continue;
                }
                if ((is_write ? nbd_pwrite(c->nbd, buf, size, at, 0) : nbd_pread(c->nbd, buf, size, at, 0)) == 0)
                        return;
                if (nbd_aio_is_ready(c->nbd) > 0)
                        break;
                hang_up(c);
        }
        die(is_write ? "write" : "read", nbd_get_error() ?: "no connection");
}

/* splitmix64 of seed and place */
static void fill(uint8_t *buf, uint64_t seed, uint64_t at, size_t size)
{
        const size_t words = BL_STORE_PAGE / sizeof(uint64_t);

        for (size_t i = 0; i < size / sizeof(uint64_t); i++) {
                uint64_t x = (seed << 40) + (at / sizeof(uint64_t) + i) * 0x9e3779b97f4a7c15U;
                const bool is_flat = (at / BL_STORE_PAGE + i / words) % 2 && i % words >= words / 4;

                x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
                x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
                x = is_flat ? seed : x ^ (x >> 31);
                memcpy(buf + i * sizeof x, &x, sizeof x);
        }
}

static uint64_t walk(struct client *c, bool is_write, uint64_t seed)
{
        static uint8_t buf[REQUEST], right[REQUEST];
        uint64_t wrong = 0;

        for (uint64_t at = 0; at < c->registration.size; at += REQUEST) {
                const size_t size = bl_min(REQUEST, c->registration.size - at);

                fill(right, seed, at, size);
                if (is_write)
                        memcpy(buf, right, size);
                transfer(c, is_write, buf, at, size);
                for (size_t i = 0; i < size; i += BL_STORE_PAGE)
                        wrong += memcmp(buf + i, right + i, BL_STORE_PAGE) != 0;
        }
        return wrong;
}

static void hold(struct client *c, uint64_t seconds)
{
        const usec_t deadline = bl_now() + seconds * BL_SEC;
        static uint8_t page[BL_STORE_PAGE];
        usec_t served;
        unsigned before;

        transfer(c, false, page, 0, sizeof page);
        served = bl_now();
        before = c->connections;
        while (bl_now() < deadline) {
                transfer(c, false, page, 0, sizeof page);
                if (c->connections != before) {
                        printf("gap=%" PRIu64 "\n", (bl_now() - served) / BL_MSEC);
                        return;
                }
                served = bl_now();
                pause_ms(5);
        }
        puts("none");
}

static void obey(struct client *c, const char *line)
{
        char word[16];
        uint64_t number = 0;

        if (sscanf(line, "%15s %" SCNu64, word, &number) < 1)
                return;
        if (strcmp(word, "register") == 0)
                say_done(c, BL_STORE_OP_REGISTER, "registered");
        else if (strcmp(word, "forget") == 0)
                say_done(c, BL_STORE_OP_FORGET, "forgotten");
        else if (strcmp(word, "status") == 0)
                say_status(c);
        else if (strcmp(word, "hold") == 0)
                hold(c, number);
        else if (strcmp(word, "write") == 0 || strcmp(word, "check") == 0)
                printf("wrong=%" PRIu64 "\n", walk(c, word[0] == 'w', number));
        else
                die(word, "unknown command");
}

int main(int argc, char **argv)
{
        struct client c = {.registration = {.pid = getpid(), .limit = BL_UNSET, .stamp = BL_UNSET}};
        char line[64], text[1024], state;

        if (argc != 5 || bl_uuid_from_string(argv[3], c.registration.uuid) < 0) {
                (void)fputs("usage: store-client NBD CONTROL UUID BYTES\n", stderr);
                return 2;
        }
        if (bl_fs_read(NULL, "/proc/self/stat", text, sizeof text) < 0 ||
            bl_proc_stat_parse(text, &state, &c.registration.start) < 0)
                die("/proc/self/stat", "unreadable");
        c.nbd_path = argv[1];
        c.control_path = argv[2];
        c.name = argv[3];
        c.registration.size = strtoull(argv[4], NULL, 10);
        setvbuf(stdout, NULL, _IOLBF, 0);
        obey(&c, "register");
        while (fgets(line, sizeof line, stdin))
                obey(&c, line);
        if (c.nbd)
                hang_up(&c);
        return EXIT_SUCCESS;
}
