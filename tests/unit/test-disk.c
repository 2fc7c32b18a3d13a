// SPDX-License-Identifier: LGPL-2.1-or-later
/* The disk tier over real files and real workers, which are killed, stopped, and made to fail and to hang. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ballast/cleanup.h>

#include "daemon/store/disk.h"
#include "daemon/store/disk_worker.h"
#include "daemon/util/clock.h"
#include "daemon/util/fs.h"
#include "daemon/util/procstat.h"

#define SIZE    (12 * BL_MIB)
#define HANG    (300 * BL_MSEC)
#define LIMIT   (10 * BL_SEC)
#define ENTRIES 3000U
#define PAGE    4096U
#define BATCH   300U
#define KILLS   50U

/* Paths are static: a worker has them, and nothing else of the test. */
static char dir[64], disk_path[80], flag_path[80], mark_path[80];

/* --- I/O that misbehaves while the flag is there ------------------------------------- */

static bool flag(void)
{
        return access(flag_path, F_OK) == 0;
}

static void set_flag(bool on)
{
        if (!on) {
                assert_int_equal(unlink(flag_path), 0);
                return;
        }
        const int fd = open(flag_path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
        (void)close(fd);
}

static ssize_t failing_pwrite(int fd, const void *buf, size_t size, off_t offset)
{
        if (flag()) {
                errno = EIO;
                return -1;
        }
        return pwrite(fd, buf, size, offset);
}

static ssize_t failing_pread(int fd, void *buf, size_t size, off_t offset)
{
        if (flag()) {
                errno = EIO;
                return -1;
        }
        return pread(fd, buf, size, offset);
}

static ssize_t short_pread(int fd, void *buf, size_t size, off_t offset)
{
        return flag() ? 0 : pread(fd, buf, size > PAGE ? PAGE : size, offset);
}

static ssize_t hanging_pwrite(int fd, const void *buf, size_t size, off_t offset)
{
        while (flag())
                (void)usleep(1000);
        return pwrite(fd, buf, size, offset);
}

/* As one in D state: outlives its store, does its write when the disk comes back, and is gone then. */
static ssize_t undying_pwrite(int fd, const void *buf, size_t size, off_t offset)
{
        ssize_t n;
        int mark;

        (void)prctl(PR_SET_PDEATHSIG, 0);
        while (flag())
                (void)usleep(1000);
        n = pwrite(fd, buf, size, offset);
        mark = open(mark_path, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
        if (mark < 0 || n != (ssize_t)size || write(mark, "w", 1) != 1)
                abort();
        _exit(0);
}

/* --- contents ---------------------------------------------------------------------------- */

static uint32_t next(uint32_t *seed)
{
        *seed = *seed * 1664525U + 1013904223U;
        return *seed >> 8;
}

/* Every entry's every version has bytes of its own. */
static void make(uint8_t *buf, uint32_t size, uint32_t entry, uint32_t version)
{
        uint32_t seed = entry * 2654435761U ^ version * 40503U;

        for (uint32_t i = 0; i < size; i++)
                buf[i] = (uint8_t)next(&seed);
}

struct entry {
        bl_disk_place place;
        uint32_t size; /* 0: not on the disk */
        uint32_t version;
};

struct rig {
        struct bl_disk *d;
        struct entry e[ENTRIES];
        uint8_t bytes[BATCH][PAGE];
        struct bl_disk_blob blobs[BATCH];
        uint32_t seed, version;
        uint64_t live;
};

static struct bl_disk *open_disk(uint64_t size, usec_t hang_after)
{
        const struct bl_disk_options o = {.path = disk_path, .size = size, .hang_after = hang_after};
        struct bl_disk *d = NULL;
        char *message = NULL;

        assert_int_equal(bl_disk_open(&o, &d, &message), 0);
        assert_null(message);
        return d;
}

static void drop(struct rig *g, uint32_t i)
{
        bl_disk_free(g->d, g->e[i].place, g->e[i].size);
        g->live -= g->e[i].size;
        g->e[i].size = 0;
}

static int read_entry(struct rig *g, uint32_t i)
{
        uint8_t got[PAGE], wanted[PAGE];
        const int r = bl_disk_read(g->d, g->e[i].place, g->e[i].size, got);

        if (r < 0)
                return r;
        make(wanted, g->e[i].size, i, g->e[i].version);
        assert_memory_equal(got, wanted, g->e[i].size);
        return 0;
}

/* New blobs for up to n entries that have none; how many. */
static size_t prepare(struct rig *g, size_t n)
{
        size_t k = 0;

        g->version++;
        for (uint32_t i = next(&g->seed) % ENTRIES, seen = 0; seen < ENTRIES && k < n; i = (i + 1) % ENTRIES, seen++) {
                if (g->e[i].size > 0)
                        continue;
                g->blobs[k] = (struct bl_disk_blob){
                        .entry = i, .size = 1 + next(&g->seed) % PAGE, .data = g->bytes[k], .place = BL_UNSET};
                make(g->bytes[k], g->blobs[k].size, i, g->version);
                k++;
        }
        return k;
}

static void take(struct rig *g, size_t n)
{
        for (size_t k = 0; k < n; k++) {
                const struct bl_disk_blob *b = &g->blobs[k];

                g->e[b->entry] = (struct entry){.place = b->place, .size = b->size, .version = g->version};
                g->live += b->size;
        }
}

static int append(struct rig *g, size_t n)
{
        const size_t k = prepare(g, n);
        const int r = k > 0 ? bl_disk_append(g->d, g->blobs, k) : 0;

        if (r == 0)
                take(g, k);
        return r;
}

/* As the store does it; false: there is nothing to clean. */
static bool clean(struct rig *g)
{
        static struct bl_disk_blob picked[BL_DISK_BLOBS];
        static uint8_t bytes[BL_DISK_BLOBS / 8][PAGE];
        const size_t n = bl_disk_pick(g->d, picked, bl_disk_most_blobs(g->d));
        struct bl_disk_blob old;

        assert_true(n <= BL_DISK_BLOBS / 8);
        for (size_t k = 0; k < n; k++) {
                const struct entry *e = &g->e[picked[k].entry];

                assert_int_equal(picked[k].place, e->place);
                assert_int_equal(picked[k].size, e->size);
                assert_int_equal(bl_disk_read(g->d, e->place, e->size, bytes[k]), 0);
                picked[k].data = bytes[k];
        }
        if (n == 0)
                return false;
        assert_int_equal(bl_disk_append(g->d, picked, n), 0);
        for (size_t k = 0; k < n; k++) {
                struct entry *e = &g->e[picked[k].entry];

                old = (struct bl_disk_blob){.place = e->place, .size = e->size};
                e->place = picked[k].place;
                bl_disk_free(g->d, old.place, old.size);
        }
        return true;
}

static void check_all(struct rig *g)
{
        struct bl_disk_figures f;

        for (uint32_t i = 0; i < ENTRIES; i++)
                if (g->e[i].size > 0)
                        assert_int_equal(read_entry(g, i), 0);
        bl_disk_figures(g->d, &f);
        assert_int_equal(f.live, g->live);
}

static struct rig *begin(uint64_t size, usec_t hang_after)
{
        struct rig *g = calloc(1, sizeof(*g));

        assert_non_null(g);
        g->seed = 7;
        g->d = open_disk(size, hang_after);
        return g;
}

static void finish(struct rig *g)
{
        assert_null(bl_disk_close(g->d));
        free(g);
        bl_worker_io = (struct bl_worker_io){.pread = pread, .pwrite = pwrite};
}

static bool hangs(struct bl_disk *d)
{
        struct bl_disk_figures f;

        bl_disk_figures(d, &f);
        return f.hangs;
}

static pid_t worker_of(struct bl_disk *d)
{
        struct bl_disk_figures f;

        bl_disk_figures(d, &f);
        return f.worker;
}

/* --- tests ------------------------------------------------------------------------------------ */

static void test_open(void **state)
{
        const struct {
                const char *path;
                uint64_t size;
        } bad[] = {{disk_path, 4 * BL_MIB - 1}, {disk_path, 0}, {dir, SIZE}, {"/dev/null", SIZE}};
        struct bl_disk_figures f;
        struct rig *g;
        struct stat st;

        (void)state;
        for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
                const struct bl_disk_options o = {.path = bad[i].path, .size = bad[i].size};
                _cleanup_free_ char *message = NULL;
                struct bl_disk *d = NULL;

                assert_int_equal(bl_disk_open(&o, &d, &message), -EINVAL);
                assert_null(d);
                assert_non_null(message);
        }
        assert_int_equal(stat(disk_path, &st), -1);
        g = begin(SIZE + 5, 0);
        assert_int_equal(stat(disk_path, &st), 0);
        assert_int_equal(st.st_mode & 07777, 0600);
        assert_true((uint64_t)st.st_blocks * 512 >= SIZE);
        bl_disk_figures(g->d, &f);
        assert_int_equal(f.size, SIZE);
        assert_int_equal(f.free, SIZE);
        assert_int_equal(f.live, 0);
        assert_true(f.worker > 0 && !f.hangs && !f.failed);
        assert_true(f.memory < 2 * BL_MIB);
        assert_int_equal(append(g, 200), 0);
        check_all(g);
        bl_disk_figures(g->d, &f);
        assert_int_equal(f.read, g->live);
        assert_true(f.written >= g->live && f.written < g->live + 200 * BL_DISK_GRAIN + 2 * PAGE);
        assert_true(f.read_p50 > 0 && f.read_p99 >= f.read_p50);
        assert_int_equal(f.oldest, 0);
        assert_int_equal(bl_disk_read(g->d, SIZE / BL_DISK_GRAIN, 1, g->bytes), -EIO);
        finish(g);
}

/* A rebuilt store claims what its entries say. */
static void test_claim(void **state)
{
        struct rig *g = begin(SIZE, 0);

        (void)state;
        assert_int_equal(append(g, BATCH), 0);
        assert_null(bl_disk_close(g->d));
        g->d = open_disk(SIZE, 0);
        for (uint32_t i = 0; i < ENTRIES; i++)
                if (g->e[i].size > 0)
                        assert_int_equal(bl_disk_claim(g->d, g->e[i].place, g->e[i].size, i), 0);
        check_all(g);
        for (int i = 0; i < 20; i++)
                assert_int_equal(append(g, 20), 0);
        check_all(g);
        finish(g);
}

static void test_model(void **state)
{
        struct rig *g = begin(SIZE / 2, 0);
        const uint64_t capacity = bl_disk_capacity(g->d);
        unsigned cleaned = 0;

        (void)state;
        for (unsigned round = 0; round < 200; round++) {
                int r;

                while (g->live + BATCH * PAGE > capacity) {
                        const uint32_t i = next(&g->seed) % ENTRIES;

                        if (g->e[i].size > 0)
                                drop(g, i);
                }
                while ((r = append(g, 1 + next(&g->seed) % (BATCH * 5 / 6))) == -ENOSPC) {
                        assert_true(clean(g));
                        cleaned++;
                }
                assert_int_equal(r, 0);
                for (unsigned i = 0; i < 5; i++) {
                        const uint32_t k = next(&g->seed) % ENTRIES;

                        if (g->e[k].size > 0)
                                assert_int_equal(read_entry(g, k), 0);
                }
        }
        assert_true(cleaned > 10);
        check_all(g);
        finish(g);
}

static void test_full(void **state)
{
        struct rig *g = begin(4 * BL_MIB, 0);
        struct bl_disk_figures f;
        int r;

        (void)state;
        while ((r = append(g, 100)) == 0)
                ;
        assert_int_equal(r, -ENOSPC);
        bl_disk_figures(g->d, &f);
        assert_int_equal(f.free, BL_DISK_SEGMENT); /* kept for cleaning */
        assert_false(f.failed);
        check_all(g);
        for (uint32_t i = 0; i < ENTRIES; i += 2)
                if (g->e[i].size > 0)
                        drop(g, i);
        while ((r = append(g, 100)) == -ENOSPC)
                assert_true(clean(g));
        assert_int_equal(r, 0);
        check_all(g);
        finish(g);
}

static void test_failing(void **state)
{
        struct bl_disk_figures f;
        uint32_t one = 0;
        struct rig *g;

        (void)state;
        bl_worker_io = (struct bl_worker_io){.pread = failing_pread, .pwrite = failing_pwrite};
        g = begin(SIZE, 0);
        assert_int_equal(append(g, BATCH), 0);
        while (g->e[one].size == 0)
                one++;
        set_flag(true);
        for (unsigned i = 0; i < 3 * SIZE / BL_DISK_SEGMENT; i++)
                assert_int_equal(append(g, BATCH), -EIO);
        assert_int_equal(read_entry(g, one), -EIO);
        bl_disk_figures(g->d, &f);
        assert_true(f.failed && !f.hangs);
        assert_int_equal(f.live, g->live);
        set_flag(false);
        assert_int_equal(append(g, BATCH), 0);
        bl_disk_figures(g->d, &f);
        assert_false(f.failed);
        check_all(g);
        finish(g);

        bl_worker_io.pread = short_pread;
        g = begin(SIZE, 0);
        assert_int_equal(append(g, BATCH), 0);
        check_all(g);
        set_flag(true);
        for (one = 0; g->e[one].size == 0;)
                one++;
        assert_int_equal(read_entry(g, one), -EIO);
        set_flag(false);
        finish(g);
}

struct load {
        struct rig *g;
        uint32_t first; /* entries of which it reads the even ones */
        _Atomic bool *stop;
        _Atomic unsigned *reads;
        int r;
};

static void *read_on(void *userdata)
{
        struct load *l = userdata;

        for (uint32_t i = l->first; l->r == 0 && !atomic_load(l->stop); i = (i + 2) % ENTRIES) {
                if (l->g->e[i].size == 0)
                        continue;
                l->r = read_entry(l->g, i);
                atomic_fetch_add(l->reads, 1);
        }
        return NULL;
}

/* What was acknowledged before the worker died is read after it, and nobody sees that it died. */
static void test_kill(void **state)
{
        static struct load loads[3];
        _Atomic bool stop = false;
        _Atomic unsigned reads = 0;
        struct rig *g = begin(SIZE, LIMIT), *w = calloc(1, sizeof(*w));
        pthread_t threads[3];
        unsigned appended = 0;

        (void)state;
        assert_non_null(w);
        for (unsigned i = 0; i < 4; i++)
                assert_int_equal(append(g, BATCH / 2), 0);
        for (unsigned i = 0; i < 3; i++) {
                loads[i] = (struct load){.g = g, .first = i, .stop = &stop, .reads = &reads};
                assert_int_equal(pthread_create(&threads[i], NULL, read_on, &loads[i]), 0);
        }
        w->d = g->d; /* the same disk, entries of its own: cleaning would have to know both */
        w->seed = 11;
        for (unsigned kills = 0; kills < KILLS;) {
                const usec_t until = bl_now() + 1000 + next(&w->seed) % 20000;
                const pid_t worker = worker_of(g->d);

                /* right behind the last death, or under way, with some answered meanwhile */
                do {
                        const int r = append(w, 1 + next(&w->seed) % BATCH);

                        appended += r == 0;
                        if (r < 0)
                                assert_int_equal(r, -ENOSPC);
                        for (uint32_t i = 0; (r < 0 || w->live > 3 * BL_MIB) && i < ENTRIES; i++)
                                if (w->e[i].size > 0 && (r < 0 || next(&w->seed) % 2))
                                        drop(w, i);
                } while (bl_now() < until);
                if (worker > 0 && worker == worker_of(g->d) && kill(worker, SIGKILL) == 0)
                        kills++;
        }
        atomic_store(&stop, true);
        for (unsigned i = 0; i < 3; i++) {
                assert_int_equal(pthread_join(threads[i], NULL), 0);
                assert_int_equal(loads[i].r, 0);
        }
        assert_true(appended > KILLS / 2 && atomic_load(&reads) > KILLS);
        for (uint32_t i = 0; i < ENTRIES; i++) {
                if (g->e[i].size > 0)
                        assert_int_equal(read_entry(g, i), 0);
                if (w->e[i].size > 0)
                        assert_int_equal(read_entry(w, i), 0);
        }
        free(w);
        finish(g);
}

/* A worker that stands still is waited for as long as was said, and goes on where it stopped. */
static void test_stop(void **state)
{
        struct rig *g = begin(SIZE, HANG);
        struct bl_disk_figures f;
        uint32_t one = 0;
        usec_t at, limit;
        pid_t worker;

        (void)state;
        assert_int_equal(append(g, BATCH), 0);
        while (g->e[one].size == 0)
                one++;
        worker = worker_of(g->d);
        assert_int_equal(kill(-worker, SIGSTOP), 0);
        at = bl_now();
        assert_int_equal(read_entry(g, one), -ETIMEDOUT);
        assert_true(bl_now() - at >= HANG && bl_now() - at < HANG + 2 * BL_SEC);
        assert_int_equal(append(g, BATCH), -ETIMEDOUT);
        /* more than there are slots for */
        for (unsigned i = 0; i < BL_RING_WRITES; i++)
                assert_int_equal(append(g, 10), -ETIMEDOUT);
        at = bl_now();
        bl_disk_figures(g->d, &f);
        assert_true(f.hangs && f.oldest >= HANG);
        assert_int_equal(f.worker, worker);
        assert_int_equal(f.live, g->live);
        bl_disk_free(g->d, g->e[one].place, g->e[one].size);
        assert_int_equal(bl_disk_claim(g->d, g->e[one].place, g->e[one].size, one), 0);
        assert_true(bl_now() - at < HANG);
        assert_int_equal(kill(-worker, SIGCONT), 0);
        for (limit = bl_now() + LIMIT; hangs(g->d) && bl_now() < limit;)
                (void)usleep(1000);
        assert_false(hangs(g->d));
        check_all(g);
        assert_int_equal(append(g, BATCH), 0);
        check_all(g);
        /* what was given up has given its room back */
        for (uint32_t i = 0; i < ENTRIES; i++)
                if (g->e[i].size > 0)
                        drop(g, i);
        bl_disk_figures(g->d, &f);
        for (limit = bl_now() + LIMIT; f.free < SIZE && bl_now() < limit; bl_disk_figures(g->d, &f))
                (void)usleep(1000);
        assert_int_equal(f.free, SIZE);

        assert_int_equal(kill(-worker, SIGSTOP), 0);
        at = bl_now();
        finish(g);
        assert_true(bl_now() - at < 2 * BL_SEC);
}

/* A write that was given up may land late: on nothing that was written since. */
static void test_late_write(void **state)
{
        struct rig *g;
        struct bl_disk_figures f;
        usec_t limit;

        (void)state;
        bl_worker_io.pwrite = hanging_pwrite;
        g = begin(SIZE, HANG);
        set_flag(true);
        assert_int_equal(append(g, BATCH / 3), -ETIMEDOUT);
        bl_disk_figures(g->d, &f);
        assert_true(f.hangs);
        assert_int_equal(f.live, 0);
        assert_int_equal(f.free, SIZE - BL_DISK_SEGMENT);
        set_flag(false);
        /* at once: the first one's pieces are landing now */
        for (unsigned i = 0; i < 8; i++)
                assert_int_equal(append(g, BATCH / 3), 0);
        check_all(g);
        for (limit = bl_now() + LIMIT; hangs(g->d) && bl_now() < limit;)
                (void)usleep(1000);
        assert_false(hangs(g->d));
        finish(g);
}

/* A write of the worker before hangs: nothing is written before it has landed, and then all is well.  Ends the rig. */
static void goes_on_when_it_landed(struct rig *g)
{
        struct stat st;
        usec_t limit;
        int r;

        assert_int_equal(stat(mark_path, &st), -1);
        set_flag(false);
        for (limit = bl_now() + LIMIT; (r = append(g, BATCH / 3)) == -ETIMEDOUT && bl_now() < limit;)
                ;
        assert_int_equal(r, 0);
        assert_int_equal(stat(mark_path, &st), 0);
        for (int i = 0; i < 20; i++)
                assert_int_equal(append(g, 20), 0);
        check_all(g);
        assert_false(hangs(g->d));
        finish(g);
}

/* The same of a worker that was killed and could not die: its successor waits for it. */
static void test_undying(void **state)
{
        struct rig *g;

        (void)state;
        bl_worker_io.pwrite = undying_pwrite;
        g = begin(SIZE, HANG);
        set_flag(true);
        assert_int_equal(append(g, BATCH / 3), -ETIMEDOUT);
        bl_worker_io.pwrite = pwrite;
        assert_int_equal(kill(worker_of(g->d), SIGKILL), 0);
        for (unsigned i = 0; i < 3; i++) {
                assert_int_equal(append(g, BATCH / 3), -ETIMEDOUT);
                assert_true(hangs(g->d));
        }
        goes_on_when_it_landed(g);
}

static int reap(void)
{
        int n = 0;

        while (waitpid(-1, NULL, WNOHANG) > 0)
                n++;
        return n;
}

/* A store in a process of its own, which says its worker's pid, appends (`more`), and waits to be killed. */
static pid_t start_store(bool more, pid_t *ret_worker)
{
        int pair[2];
        pid_t pid;

        assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
        pid = fork();
        if (pid == 0) {
                struct rig *g = begin(SIZE, LIMIT);
                pid_t worker;

                while (append(g, 10) != 0 && !more)
                        ;
                worker = worker_of(g->d);
                if (write(pair[1], &worker, sizeof(worker)) != sizeof(worker))
                        _exit(1);
                for (;;)
                        (void)pause();
        }
        assert_true(pid > 0);
        (void)close(pair[1]);
        if (ret_worker)
                assert_int_equal(read(pair[0], ret_worker, sizeof(*ret_worker)), sizeof(*ret_worker));
        (void)close(pair[0]);
        return pid;
}

/* Nothing of a store's worker is left when the store was killed. */
static void test_orphan(void **state)
{
        const usec_t limit = bl_now() + LIMIT;
        pid_t store, worker = 0;

        (void)state;
        assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
        store = start_store(false, &worker);
        assert_int_equal(kill(-worker, 0), 0);
        assert_int_equal(kill(store, SIGKILL), 0);
        while (kill(-worker, 0) == 0 && bl_now() < limit) {
                (void)reap();
                (void)usleep(1000);
        }
        assert_int_equal(kill(-worker, 0), -1);
        assert_int_equal(errno, ESRCH);
        (void)reap();
}

/* The second store writes nothing before the first one's last write has landed. */
static void test_successor(void **state)
{
        struct rig *g;
        pid_t store;

        (void)state;
        assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
        set_flag(true);
        bl_worker_io.pwrite = undying_pwrite;
        store = start_store(true, NULL);
        bl_worker_io.pwrite = pwrite;
        (void)usleep(200 * 1000); /* its append is under way: what follows would fail otherwise */
        assert_int_equal(kill(store, SIGKILL), 0);
        assert_int_equal(waitpid(store, NULL, 0), store);

        g = begin(SIZE, HANG);
        assert_int_equal(append(g, BATCH / 3), -ETIMEDOUT);
        assert_true(hangs(g->d));
        goes_on_when_it_landed(g);
        (void)usleep(10 * 1000);
        (void)reap();
}

/* How many are open: only these two may be. */
static unsigned check_descriptors(pid_t pid)
{
        char path[64];
        unsigned n = 0;

        (void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
        _cleanup_closedir_ DIR *fds = opendir(path);

        assert_non_null(fds);
        for (const struct dirent *e = readdir(fds); e; e = readdir(fds)) {
                char target[256];
                const ssize_t len = readlinkat(dirfd(fds), e->d_name, target, sizeof(target) - 1);

                if (len < 0)
                        continue; /* "." and ".." */
                target[len] = '\0';
                if (strcmp(target, "/dev/null") != 0)
                        assert_string_equal(target, disk_path);
                n++;
        }
        return n;
}

/* The worker's processes, none of which may have anything of the pool. */
static unsigned check_processes(pid_t worker, const char *pool_path)
{
        _cleanup_closedir_ DIR *proc = opendir("/proc");
        unsigned n = 0;

        assert_non_null(proc);
        for (const struct dirent *e = readdir(proc); e; e = readdir(proc)) {
                const pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);
                _cleanup_free_ char *maps = NULL;
                char path[64];

                if (pid <= 0 || getpgid(pid) != worker)
                        continue;
                (void)snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
                assert_int_equal(bl_fs_read_alloc(path, 16 * BL_MIB, &maps, NULL), 0);
                assert_null(strstr(maps, pool_path));
                assert_int_equal(check_descriptors(pid), 4);
                n++;
        }
        return n;
}

/* The worker has neither what the store has open nor what it has mapped. */
static void test_clean_hands(void **state)
{
        const unsigned all = 1 + BL_WORKER_READERS + BL_WORKER_WRITERS;
        const usec_t limit = bl_now() + LIMIT;
        char pool_path[80];
        unsigned n = 0;
        struct rig *g;
        void *pool;
        int fd;

        (void)state;
        (void)snprintf(pool_path, sizeof(pool_path), "%s/pool", dir);
        fd = open(pool_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        assert_int_equal(ftruncate(fd, PAGE), 0);
        assert_int_equal(flock(fd, LOCK_EX), 0);
        pool = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        assert_true(pool != MAP_FAILED);
        assert_int_equal(madvise(pool, PAGE, MADV_DONTFORK), 0);
        g = begin(SIZE, 0);
        assert_int_equal(append(g, 10), 0); /* the first of its processes works, so all are clean */
        while ((n = check_processes(worker_of(g->d), pool_path)) < all && bl_now() < limit)
                (void)usleep(1000);
        assert_int_equal(n, all);
        (void)munmap(pool, PAGE);
        (void)close(fd);
        /* so the lock is free while the worker lives */
        fd = open(pool_path, O_RDWR | O_CLOEXEC);
        assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
        (void)close(fd);
        assert_int_equal(unlink(pool_path), 0);
        finish(g);
}

static int setup(void **state)
{
        (void)state;
        (void)snprintf(dir, sizeof(dir), "%s", "/tmp/ballast-disk-XXXXXX");
        if (!mkdtemp(dir))
                return -1;
        (void)snprintf(disk_path, sizeof(disk_path), "%s/disk", dir);
        (void)snprintf(flag_path, sizeof(flag_path), "%s/flag", dir);
        (void)snprintf(mark_path, sizeof(mark_path), "%s/mark", dir);
        return 0;
}

static int teardown(void **state)
{
        (void)state;
        (void)unlink(flag_path);
        (void)unlink(mark_path);
        (void)unlink(disk_path);
        return rmdir(dir);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_open, setup, teardown),
                cmocka_unit_test_setup_teardown(test_claim, setup, teardown),
                cmocka_unit_test_setup_teardown(test_model, setup, teardown),
                cmocka_unit_test_setup_teardown(test_full, setup, teardown),
                cmocka_unit_test_setup_teardown(test_failing, setup, teardown),
                cmocka_unit_test_setup_teardown(test_kill, setup, teardown),
                cmocka_unit_test_setup_teardown(test_stop, setup, teardown),
                cmocka_unit_test_setup_teardown(test_late_write, setup, teardown),
                cmocka_unit_test_setup_teardown(test_undying, setup, teardown),
                cmocka_unit_test_setup_teardown(test_orphan, setup, teardown),
                cmocka_unit_test_setup_teardown(test_successor, setup, teardown),
                cmocka_unit_test_setup_teardown(test_clean_hands, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
