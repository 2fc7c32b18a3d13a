/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The pool's memory: each kind outlives its process, is there once, and is never dropped unasked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/store/arena.h"
#include "daemon/util/clock.h"
#include "daemon/util/fs.h"

#define CHUNKS 4U

struct rig {
        char dir[64];
        struct bl_arena_options o;
        bool usable; /* this host lets us */
};

/* --- help ------------------------------------------------------------------------- */

static int rig_new(void **state, enum bl_arena_kind kind)
{
        struct rig *g = calloc(1, sizeof(*g));
        struct bl_arena *a;
        char *message = NULL;

        if (!g)
                return -1;
        (void)snprintf(g->dir, sizeof(g->dir), "/tmp/ballast-arena-XXXXXX");
        if (!mkdtemp(g->dir))
                return -1;
        g->o = (struct bl_arena_options){.kind = kind, .dir = g->dir, .size = CHUNKS * BL_ARENA_CHUNK, .version = 7};
        g->usable = geteuid() == 0 && bl_arena_open(&g->o, &a, &message) == 0;
        if (g->usable) {
                (void)bl_arena_close(a);
                g->usable = bl_arena_remove(g->dir, &message) == 0;
        }
        free(message);
        *state = g;
        return 0;
}

static int setup_tmpfs(void **state)
{
        return rig_new(state, BL_ARENA_TMPFS);
}

static int setup_sysv(void **state)
{
        return rig_new(state, BL_ARENA_SYSV);
}

static int setup_auto(void **state)
{
        return rig_new(state, BL_ARENA_AUTO);
}

static int teardown(void **state)
{
        struct rig *g = *state;
        char *message = NULL;
        const int r = bl_arena_remove(g->dir, &message);

        if (r < 0)
                print_error("%s\n", message);
        free(message);
        if (rmdir(g->dir) < 0) {
                print_error("%s: %s\n", g->dir, strerror(errno));
                return -1;
        }
        free(g);
        return r;
}

static struct rig *rig(void **state)
{
        struct rig *g = *state;

        if (!g->usable)
                skip();
        return g;
}

static struct bl_arena *open_right(const struct rig *g)
{
        struct bl_arena *a = NULL;
        char *message = NULL;
        const int r = bl_arena_open(&g->o, &a, &message);

        if (message)
                print_error("%s\n", message);
        assert_null(message);
        assert_int_equal(r, 0);
        return a;
}

static void open_wrong(const struct rig *g, int error, const char *words)
{
        struct bl_arena *a = NULL;
        char *message = NULL;

        assert_int_equal(bl_arena_open(&g->o, &a, &message), error);
        assert_null(a);
        assert_non_null(message);
        if (!strstr(message, words))
                fail_msg("'%s' is not in '%s'", words, message);
        free(message);
}

static bool all_are(const uint8_t *p, size_t n, uint8_t value)
{
        for (size_t i = 0; i < n; i++)
                if (p[i] != value)
                        return false;
        return true;
}

static uint8_t *chunk(struct bl_arena *a, size_t i)
{
        return a->base + i * BL_ARENA_CHUNK;
}

static void fill(struct bl_arena *a, size_t i, uint8_t value)
{
        assert_int_equal(bl_arena_populate(a, i), 0);
        memset(chunk(a, i), value, BL_ARENA_CHUNK);
}

/* The segment's key, as it is recorded. */
static int recorded_key(const struct rig *g)
{
        char path[96], text[512];
        const char *p;

        (void)snprintf(path, sizeof(path), "%s/arena", g->dir);
        assert_true(bl_fs_read(NULL, path, text, sizeof(text)) > 0);
        p = strstr(text, "key=");
        assert_non_null(p);
        return atoi(p + 4);
}

static int segment(const struct rig *g)
{
        return shmget(recorded_key(g), 0, 0);
}

/* Puts `with` in the place of as much text after `what`. */
static void rewrite(const struct rig *g, const char *what, const char *with)
{
        char path[96], text[512];
        char *p;

        (void)snprintf(path, sizeof(path), "%s/arena", g->dir);
        assert_true(bl_fs_read(NULL, path, text, sizeof(text)) > 0);
        p = strstr(text, what);
        assert_non_null(p);
        memcpy(p + strlen(what), with, strlen(with));
        assert_int_equal(bl_fs_write_atomic(path, text, strlen(text), 0600, false), 0);
}

/* --- tests of every kind ------------------------------------------------------------- */

static void test_lives_on(void **state)
{
        const struct rig *g = rig(state);
        struct bl_arena *a = open_right(g);

        assert_true(a->fresh);
        assert_int_equal(a->size, CHUNKS * BL_ARENA_CHUNK);
        for (size_t i = 0; i < CHUNKS; i++)
                assert_false(bl_arena_is_populated(a, i));
        assert_int_equal(bl_arena_populate(a, 1), 0);
        assert_true(bl_arena_is_populated(a, 1));
        assert_true(all_are(chunk(a, 1), BL_ARENA_CHUNK, 0));
        fill(a, 1, 0x5a);
        fill(a, 3, 0xa5);
        assert_null(bl_arena_close(a));

        a = open_right(g);
        assert_false(a->fresh);
        assert_int_equal(a->size, CHUNKS * BL_ARENA_CHUNK);
        assert_false(bl_arena_is_populated(a, 0));
        assert_true(bl_arena_is_populated(a, 1));
        assert_false(bl_arena_is_populated(a, 2));
        assert_true(bl_arena_is_populated(a, 3));
        assert_true(all_are(chunk(a, 1), BL_ARENA_CHUNK, 0x5a));
        assert_true(all_are(chunk(a, 3), BL_ARENA_CHUNK, 0xa5));

        assert_int_equal(bl_arena_release(a, 1), 0);
        assert_false(bl_arena_is_populated(a, 1));
        assert_true(all_are(chunk(a, 1), BL_ARENA_CHUNK, 0));
        assert_int_equal(bl_arena_populate(a, CHUNKS), -EINVAL);
        assert_int_equal(bl_arena_release(a, CHUNKS), -EINVAL);
        assert_false(bl_arena_is_populated(a, CHUNKS));
        (void)bl_arena_close(a);
}

/* What is given back is the host's again. */
static uint64_t shmem_bytes(void)
{
        char text[8192];
        uint64_t kib;
        const char *p;

        assert_true(bl_fs_read(NULL, "/proc/meminfo", text, sizeof(text)) > 0);
        p = strstr(text, "\nShmem:");
        assert_non_null(p);
        assert_int_equal(sscanf(p, "\nShmem: %" SCNu64, &kib), 1);
        return kib * 1024;
}

static void test_takes_and_gives(void **state)
{
        const struct rig *g = rig(state);
        struct bl_arena *a = open_right(g);
        const uint64_t before = shmem_bytes();
        uint64_t taken;

        for (size_t i = 0; i < CHUNKS; i++)
                fill(a, i, 1);
        taken = shmem_bytes();
        /* others share the host: half of it is enough to see */
        assert_true(taken > before + CHUNKS * BL_ARENA_CHUNK / 2);
        for (size_t i = 0; i < CHUNKS; i++)
                assert_int_equal(bl_arena_release(a, i), 0);
        assert_true(shmem_bytes() < taken - CHUNKS * BL_ARENA_CHUNK / 2);
        (void)bl_arena_close(a);
}

/* A process that locks all its memory must be able to give back too. */
static void test_gives_under_mlockall(void **state)
{
        const struct rig *g = rig(state);
        struct bl_arena *a;

        if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) < 0)
                skip();
        a = open_right(g);
        fill(a, 0, 9);
        assert_int_equal(bl_arena_release(a, 0), 0);
        assert_true(all_are(chunk(a, 0), BL_ARENA_CHUNK, 0));
        (void)munlockall();
        (void)bl_arena_close(a);
}

/* A child that has it, wrote `value` into chunk 0, and waits to be killed. */
static pid_t child_with(const struct rig *g, uint8_t value)
{
        int pipe_fds[2];
        char c;
        pid_t pid;

        assert_int_equal(pipe(pipe_fds), 0);
        pid = fork();
        if (pid == 0) {
                struct bl_arena *a = NULL;
                char *message = NULL;

                if (bl_arena_open(&g->o, &a, &message) < 0 || bl_arena_populate(a, 0) < 0)
                        _exit(1);
                memset(a->base, value, BL_ARENA_CHUNK);
                if (write(pipe_fds[1], "", 1) != 1)
                        _exit(1);
                for (;;)
                        (void)pause();
        }
        assert_true(pid > 0);
        (void)close(pipe_fds[1]);
        assert_int_equal(read(pipe_fds[0], &c, 1), 1);
        (void)close(pipe_fds[0]);
        return pid;
}

static void end(pid_t pid)
{
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void test_one_at_a_time(void **state)
{
        struct rig *g = rig(state);
        const pid_t pid = child_with(g, 0x77);
        char words[32], *message = NULL;
        struct bl_arena *a;
        usec_t began;

        (void)snprintf(words, sizeof(words), "process %d", (int)pid);
        open_wrong(g, -EBUSY, words);
        g->o.lock_wait = 50 * BL_MSEC;
        began = bl_now();
        open_wrong(g, -EBUSY, words);
        assert_true(bl_now() - began >= 50 * BL_MSEC);
        assert_int_equal(bl_arena_remove(g->dir, &message), -EBUSY);
        assert_non_null(strstr(message, words));
        free(message);

        /* killed, and its content is there for the next one */
        end(pid);
        a = open_right(g);
        assert_false(a->fresh);
        assert_true(all_are(a->base, BL_ARENA_CHUNK, 0x77));
        (void)bl_arena_close(a);
}

static void *open_later(const struct rig *g, pid_t pid)
{
        const pid_t killer = fork();
        struct bl_arena *a;

        if (killer == 0) {
                (void)usleep(100000);
                _exit(kill(pid, SIGKILL) < 0);
        }
        assert_true(killer > 0);
        a = open_right(g);
        assert_int_equal(waitpid(killer, NULL, 0), killer);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        return a;
}

static void test_waits_for_the_one_before(void **state)
{
        struct rig *g = rig(state);
        const pid_t pid = child_with(g, 0x33);
        struct bl_arena *a;

        g->o.lock_wait = 10 * BL_SEC;
        a = open_later(g, pid);
        assert_true(all_are(a->base, BL_ARENA_CHUNK, 0x33));
        (void)bl_arena_close(a);
}

/* Is the arena among what this process has mapped? */
static bool is_mapped(void)
{
        _cleanup_free_ char *text = NULL;

        if (bl_fs_read_alloc("/proc/self/maps", 64 * BL_MIB, &text, NULL) < 0)
                return true;
        return strstr(text, "/pool/arena") || strstr(text, "/SYSV");
}

static void test_not_for_children(void **state)
{
        const struct rig *g = rig(state);
        struct bl_arena *a = open_right(g);
        const bool mapped = is_mapped();
        pid_t pid;
        int status;

        fill(a, 0, 1);
        pid = fork();
        if (pid == 0)
                _exit(is_mapped() ? 1 : 42);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        (void)bl_arena_close(a);
        assert_true(mapped);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 42);
        assert_false(is_mapped());
}

static void test_other_version_is_kept(void **state)
{
        struct rig *g = rig(state);
        struct bl_arena *a = open_right(g);

        fill(a, 0, 0x11);
        (void)bl_arena_close(a);
        g->o.version = 8;
        open_wrong(g, -EBADMSG, "--remove");
        g->o.version = 7;
        a = open_right(g);
        assert_true(all_are(a->base, BL_ARENA_CHUNK, 0x11));
        (void)bl_arena_close(a);
}

static void test_other_size_is_kept(void **state)
{
        struct rig *g = rig(state);
        const uint64_t sizes[] = {2 * CHUNKS * BL_ARENA_CHUNK, BL_ARENA_CHUNK};
        struct bl_arena *a = open_right(g);

        fill(a, CHUNKS - 1, 0x22);
        (void)bl_arena_close(a);
        for (size_t i = 0; i < 2; i++) {
                char *message = NULL;

                g->o.size = sizes[i];
                assert_int_equal(bl_arena_open(&g->o, &a, &message), 0);
                assert_non_null(message);
                assert_non_null(strstr(message, "8 MiB"));
                free(message);
                assert_int_equal(a->size, CHUNKS * BL_ARENA_CHUNK);
                assert_true(all_are(chunk(a, CHUNKS - 1), BL_ARENA_CHUNK, 0x22));
                (void)bl_arena_close(a);
        }
}

static void test_other_boot_is_gone(void **state)
{
        const struct rig *g = rig(state);
        struct bl_arena *a = open_right(g);
        char *message = NULL;
        const int old = g->o.kind == BL_ARENA_SYSV ? segment(g) : -1;

        fill(a, 0, 0x44);
        (void)bl_arena_close(a);
        rewrite(g, "boot=", "00000000-0000-0000-0000-000000000000");
        a = open_right(g);
        assert_true(a->fresh);
        assert_true(all_are(a->base, 4096, 0));
        (void)bl_arena_close(a);
        assert_int_equal(bl_arena_remove(g->dir, &message), 0);
        /* of a real other boot there would be no segment */
        if (old >= 0)
                assert_int_equal(shmctl(old, IPC_RMID, NULL), 0);
}

static void test_remove(void **state)
{
        const struct rig *g = rig(state);
        char path[96], *message = NULL;
        struct bl_arena *a = open_right(g);
        const int id = a->kind == BL_ARENA_SYSV ? segment(g) : -1;
        struct shmid_ds ds;

        fill(a, 0, 0x66);
        (void)bl_arena_close(a);
        assert_int_equal(bl_arena_remove(g->dir, &message), 0);
        assert_int_equal(bl_arena_remove(g->dir, &message), 0);
        if (id >= 0)
                assert_int_equal(shmctl(id, IPC_STAT, &ds), -1);
        (void)snprintf(path, sizeof(path), "%s/pool", g->dir);
        assert_int_equal(access(path, F_OK), -1);
        a = open_right(g);
        assert_true(a->fresh);
        (void)bl_arena_close(a);
}

/* What is beside it may be anything. */
static void test_damaged_record(void **state)
{
        const struct rig *g = rig(state);
        char path[96];
        struct bl_arena *a;

        (void)snprintf(path, sizeof(path), "%s/arena", g->dir);
        assert_int_equal(bl_fs_write_atomic(path, "nonsense", 8, 0600, false), 0);
        a = open_right(g);
        assert_true(a->fresh);
        (void)bl_arena_close(a);
}

/* --- of one kind -------------------------------------------------------------------------- */

static void test_sysv_is_locked(void **state)
{
        const struct rig *g = rig(state);
        struct bl_arena *a = open_right(g);
        const int id = segment(g);
        struct shmid_ds ds;

        assert_true(id >= 0);
        assert_int_equal(shmctl(id, IPC_STAT, &ds), 0);
        assert_int_equal(ds.shm_perm.mode & 0777, 0600);
        assert_int_not_equal(ds.shm_perm.mode & SHM_LOCKED, 0);
        fill(a, 0, 1);
        (void)bl_arena_close(a);
        /* an administrator may have undone it */
        assert_int_equal(shmctl(id, SHM_UNLOCK, NULL), 0);
        a = open_right(g);
        assert_false(a->fresh);
        assert_int_equal(shmctl(id, IPC_STAT, &ds), 0);
        assert_int_not_equal(ds.shm_perm.mode & SHM_LOCKED, 0);
        (void)bl_arena_close(a);
}

/* A segment of the right key that others may write is not ours. */
static void test_sysv_of_somebody_else(void **state)
{
        const struct rig *g = rig(state);
        struct bl_arena *a = open_right(g);
        const int key = recorded_key(g);
        int other;

        (void)bl_arena_close(a);
        assert_int_equal(shmctl(segment(g), IPC_RMID, NULL), 0);
        other = shmget(key, CHUNKS * BL_ARENA_CHUNK, IPC_CREAT | IPC_EXCL | 0666);
        assert_true(other >= 0);
        a = open_right(g);
        assert_true(a->fresh);
        assert_int_not_equal(recorded_key(g), key);
        (void)bl_arena_close(a);
        assert_int_equal(shmctl(other, IPC_RMID, NULL), 0);
}

static void test_sysv_removed_by_hand(void **state)
{
        const struct rig *g = rig(state);
        struct bl_arena *a = open_right(g);
        const int id = segment(g);
        void *held = shmat(id, NULL, 0);

        assert_true(held != (void *)-1);
        fill(a, 0, 1);
        (void)bl_arena_close(a);
        assert_int_equal(shmctl(id, IPC_RMID, NULL), 0); /* SHM_DEST as long as we have it */
        a = open_right(g);
        assert_true(a->fresh);
        (void)bl_arena_close(a);
        assert_int_equal(shmdt(held), 0);
}

static void test_tmpfs_is_noswap(void **state)
{
        const struct rig *g = rig(state);
        struct bl_arena *a = open_right(g);
        _cleanup_free_ char *text = NULL;
        struct stat st;
        char path[96];
        const char *p;

        (void)snprintf(path, sizeof(path), "%s/pool", g->dir);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0700);
        assert_int_equal(bl_fs_read_alloc("/proc/self/mountinfo", BL_MIB, &text, NULL), 0);
        p = strstr(text, path);
        assert_non_null(p);
        p = strndupa(p, strcspn(p, "\n"));
        assert_non_null(strstr(p, "noswap"));
        (void)bl_arena_close(a);
}

/* A tmpfs that is full is no SIGBUS. */
static void test_tmpfs_full(void **state)
{
        const struct rig *g = rig(state);
        struct bl_arena *a;
        char path[96];

        (void)snprintf(path, sizeof(path), "%s/pool", g->dir);
        assert_int_equal(mkdir(path, 0700), 0);
        assert_int_equal(mount("test", path, "tmpfs", 0, "noswap,size=5m"), 0);
        a = open_right(g);
        assert_int_equal(bl_arena_populate(a, 0), 0);
        assert_int_equal(bl_arena_populate(a, 1), 0);
        assert_int_equal(bl_arena_populate(a, 2), -ENOMEM);
        assert_false(bl_arena_is_populated(a, 2));
        assert_int_equal(bl_arena_release(a, 0), 0);
        assert_int_equal(bl_arena_populate(a, 2), 0);
        (void)bl_arena_close(a);
}

static void test_kind_is_kept(void **state)
{
        struct rig *g = rig(state);
        struct bl_arena *a;

        g->o.kind = BL_ARENA_SYSV;
        a = open_right(g);
        (void)bl_arena_close(a);
        g->o.kind = BL_ARENA_AUTO;
        a = open_right(g);
        assert_false(a->fresh);
        assert_int_equal(a->kind, BL_ARENA_SYSV);
        (void)bl_arena_close(a);
        g->o.kind = BL_ARENA_TMPFS;
        open_wrong(g, -EEXIST, "another kind");
        g->o.kind = BL_ARENA_AUTO;
}

static void test_private(void **state)
{
        const struct bl_arena_options o = {.kind = BL_ARENA_PRIVATE, .size = BL_ARENA_CHUNK + 1};
        char *message = NULL;
        struct bl_arena *a;
        pid_t pid;

        (void)state;
        assert_int_equal(bl_arena_open(&o, &a, &message), 0);
        assert_true(a->fresh);
        assert_int_equal(a->size, 2 * BL_ARENA_CHUNK);
        fill(a, 1, 0x10);
        pid = fork();
        if (pid == 0) {
                chunk(a, 1)[5] = 0x20;
                _exit(0);
        }
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        assert_int_equal(chunk(a, 1)[5], 0x20);
        assert_int_equal(bl_arena_survey(a), 0);
        assert_false(bl_arena_is_populated(a, 0));
        assert_true(bl_arena_is_populated(a, 1));
        assert_int_equal(bl_arena_release(a, 1), 0);
        assert_int_equal(chunk(a, 1)[5], 0);
        assert_null(bl_arena_close(a));
        assert_null(bl_arena_close(NULL));
}

static void test_wrong_sizes(void **state)
{
        struct bl_arena_options o = {.kind = BL_ARENA_PRIVATE};
        char *message = NULL;
        struct bl_arena *a;

        (void)state;
        assert_int_equal(bl_arena_open(&o, &a, &message), -EINVAL);
        o.size = UINT64_MAX;
        assert_int_equal(bl_arena_open(&o, &a, &message), -EINVAL);
}

#define BOTH(f)                                                 \
        {#f " (tmpfs)", f, setup_tmpfs, teardown, NULL},        \
        {                                                       \
#f " (System V)", f, setup_sysv, teardown, NULL \
        }

int main(void)
{
        const struct CMUnitTest tests[] = {
                BOTH(test_lives_on),
                BOTH(test_takes_and_gives),
                BOTH(test_gives_under_mlockall),
                BOTH(test_one_at_a_time),
                BOTH(test_waits_for_the_one_before),
                BOTH(test_not_for_children),
                BOTH(test_other_version_is_kept),
                BOTH(test_other_size_is_kept),
                BOTH(test_other_boot_is_gone),
                BOTH(test_remove),
                BOTH(test_damaged_record),
                cmocka_unit_test_setup_teardown(test_sysv_is_locked, setup_sysv, teardown),
                cmocka_unit_test_setup_teardown(test_sysv_of_somebody_else, setup_sysv, teardown),
                cmocka_unit_test_setup_teardown(test_sysv_removed_by_hand, setup_sysv, teardown),
                cmocka_unit_test_setup_teardown(test_tmpfs_is_noswap, setup_tmpfs, teardown),
                cmocka_unit_test_setup_teardown(test_tmpfs_full, setup_tmpfs, teardown),
                cmocka_unit_test_setup_teardown(test_kind_is_kept, setup_auto, teardown),
                cmocka_unit_test(test_private),
                cmocka_unit_test(test_wrong_sizes),
        };

        cmocka_set_message_output(CM_OUTPUT_TAP);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
