// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Random operations of several threads against a model, in a child that is killed
 * at a random moment and followed by the next one on the same pool: each slot
 * reads as what was acknowledged, or as what was under way.
 *
 * In a build with fault points the child also dies at each of the store's in turn.
 * BALLAST_ROUNDS: how many children; default 60.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "daemon/fault.h"
#include "tests/unit/test-store-disk.h"

#define POOL    (2 * BL_ARENA_CHUNK)
#define DISK    (8 * BL_MIB)
#define PAGE    BL_STORE_PAGE
#define VMS     3U
#define SLOTS   120U /* of a VM */
#define THREADS 4U /* each has every fourth run of slots of every VM */
#define RUN     10U
#define BATCH   6U

/* What a slot holds: a content's number, and what bytes 100 to 299 were overwritten with; 0: zeros. */
#define VALUE(content, patch) ((uint32_t)(content) << 8 | (patch))

/* Shared with the child. */
struct model {
        uint32_t now[VMS][SLOTS], next[VMS][SLOTS]; /* `next` counts while it is not `now` */
        uint64_t operations[THREADS];
        int error;
};

static struct model *model;

static void fill_value(uint8_t *page, uint32_t v)
{
        fill_page(page, v >> 8);
        if (v & 0xff)
                memset(page + 100, (int)(v & 0xff), 200);
}

/* --- the child ----------------------------------------------------------------------- */

struct worker {
        struct bl_store *s;
        struct bl_export **e;
        uint64_t seed;
        uint32_t i;
        uint8_t buf[BATCH * PAGE], page[PAGE];
};

static void die(int line, int r)
{
        model->error = r < 0 ? r : -line;
        fprintf(stderr, "line %d: %d\n", line, r);
        _exit(9);
}

#define MUST(x)                            \
        do {                               \
                int _r = (x);              \
                if (_r < 0)                \
                        die(__LINE__, _r); \
        } while (0)

static uint64_t pick(struct worker *w, uint64_t n)
{
        return next_random(&w->seed) % n;
}

static void one(struct worker *w)
{
        uint32_t vm = (uint32_t)pick(w, VMS);
        uint32_t first = (w->i + THREADS * (uint32_t)pick(w, SLOTS / RUN / THREADS)) * RUN;
        uint32_t slot = first + (uint32_t)pick(w, RUN), n = 1 + (uint32_t)pick(w, bl_min(BATCH, first + RUN - slot));
        uint32_t *now = &model->now[vm][slot], *next = &model->next[vm][slot];
        uint64_t at = (uint64_t)slot * PAGE;
        uint32_t patch;

        switch (pick(w, 8)) {
        case 0:
        case 1:
        case 2:
                for (uint32_t k = 0; k < n; k++) {
                        next[k] = VALUE(pick(w, 3) ? pick(w, 40) : pick(w, 100000), 0);
                        fill_value(w->buf + (size_t)k * PAGE, next[k]);
                }
                MUST(bl_export_write(w->e[vm], w->buf, (size_t)n * PAGE, at));
                break;
        case 3:
                for (uint32_t k = 0; k < n; k++)
                        next[k] = 0;
                MUST(bl_export_zero(w->e[vm], (uint64_t)n * PAGE, at));
                break;
        case 4:
                n = 1;
                patch = 1 + (uint32_t)pick(w, 255);
                next[0] = (now[0] & ~UINT32_C(0xff)) | patch;
                memset(w->buf, (int)patch, 200);
                MUST(bl_export_write(w->e[vm], w->buf, 200, at + 100));
                break;
        default:
                MUST(bl_export_read(w->e[vm], w->buf, (size_t)n * PAGE, at));
                for (uint32_t k = 0; k < n; k++) {
                        fill_value(w->page, now[k]);
                        if (memcmp(w->page, w->buf + (size_t)k * PAGE, PAGE) != 0)
                                die(__LINE__, -EILSEQ);
                }
                return;
        }
        for (uint32_t k = 0; k < n; k++)
                __atomic_store_n(&now[k], next[k], __ATOMIC_RELEASE);
        model->operations[w->i]++;
}

static void *work(void *arg)
{
        for (;;)
                one(arg);
        return NULL;
}

/* Moves beside them all the time; others' reads of any slot must not fail. */
static void *upkeep(void *arg)
{
        struct worker *w = arg;

        for (unsigned i = 0;; i++) {
                uint8_t uuid[BL_UUID_LEN];
                struct timespec ts = {.tv_nsec = 300000};
                struct bl_export *other;
                struct bl_store_vm vms[VMS];

                if (i % 3 == 0)
                        (void)bl_store_compact(w->s, BL_SEC);
                (void)bl_tier_demote(w->s);
                w->s->disk->pick = true;
                (void)bl_tier_clean(w->s);
                (void)bl_store_vms(w->s, vms, VMS);
                MUST(bl_export_read(w->e[i % VMS], w->buf, BATCH * PAGE, pick(w, (SLOTS - BATCH) * PAGE)));
                /* one more comes and goes */
                MUST(register_vm(w->s, 9, 64 * PAGE, "all"));
                uuid_of(9, uuid);
                MUST(bl_export_open(w->s, uuid, getpid(), START, 0, &other));
                fill_page(w->page, i);
                MUST(bl_export_write(other, w->page, PAGE, 0));
                (void)bl_export_close(other);
                MUST(bl_store_forget(w->s, uuid));
                nanosleep(&ts, NULL);
        }
        return NULL;
}

static struct bl_store *attach(int memory, bool fresh, uint8_t *disk)
{
        struct bl_store *s = store_on(memory, fresh, fake_disk(disk, DISK));

        if (s)
                bl_tier_stop_thread(s);
        return s;
}

static void child(int memory, uint8_t *disk, uint64_t seed, const char *fault, pid_t parent)
{
        static struct worker workers[THREADS + 1];
        struct bl_export *e[VMS];
        struct bl_store *s = attach(memory, false, disk);
        pthread_t t;

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (!s || s->errors > 0)
                die(__LINE__, -EBADMSG);
        for (uint8_t vm = 0; vm < VMS; vm++) {
                uint8_t uuid[BL_UUID_LEN];

                uuid_of(vm, uuid);
                MUST(bl_export_open(s, uuid, parent, START, 0, &e[vm]));
        }
        if (fault)
                MUST(bl_fault_set(fault));
        for (uint32_t i = 0; i <= THREADS; i++) {
                workers[i] = (struct worker){.s = s, .e = e, .seed = seed * 31 + i + 1, .i = i};
                if (pthread_create(&t, NULL, i < THREADS ? work : upkeep, &workers[i]) != 0)
                        die(__LINE__, -EAGAIN);
        }
        pthread_join(t, NULL);
}

/* --- the parent ----------------------------------------------------------------------------- */

struct bed {
        int memory;
        uint8_t *disk;
};

static void bed_new(struct bed *b)
{
        struct bl_store *s;

        b->memory = memory_new(POOL);
        b->disk = mmap(NULL, DISK, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        model = mmap(NULL, sizeof(*model), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        assert_true(b->memory >= 0 && b->disk != MAP_FAILED && model != MAP_FAILED);
        s = attach(b->memory, true, b->disk);
        assert_non_null(s);
        for (uint8_t vm = 0; vm < VMS; vm++)
                assert_int_equal(register_vm(s, vm, (uint64_t)SLOTS * PAGE, vm < 2 ? "all" : ""), 0);
        (void)bl_store_close(s);
}

static void bed_free(struct bed *b)
{
        close(b->memory);
        munmap(b->disk, DISK);
        munmap(model, sizeof(*model));
}

/* The next process' view; the model becomes what it found. */
static void recover(const struct bed *b)
{
        struct bl_store *s = attach(b->memory, false, b->disk);

        assert_non_null(s);
        assert_int_equal(store_check(s), 0);
        assert_int_equal(s->errors, 0);
        for (uint8_t vm = 0; vm < VMS; vm++) {
                struct bl_export *e = open_vm(s, vm);

                assert_non_null(e);
                for (uint32_t i = 0; i < SLOTS; i++) {
                        uint8_t is[PAGE], page[PAGE];

                        assert_int_equal(bl_export_read(e, is, PAGE, (uint64_t)i * PAGE), 0);
                        fill_value(page, model->now[vm][i]);
                        if (memcmp(is, page, PAGE) != 0) {
                                fill_value(page, model->next[vm][i]);
                                assert_memory_equal(is, page, PAGE);
                                model->now[vm][i] = model->next[vm][i];
                        }
                        model->next[vm][i] = model->now[vm][i];
                }
                (void)bl_export_close(e);
        }
        (void)bl_store_close(s);
}

/* Did the child die by itself? */
static bool round_of(const struct bed *b, uint64_t seed, const char *fault, unsigned most_ms)
{
        struct timespec ts = {.tv_nsec = (long)(1000000 + seed * 7919 % 40 * 1000000)};
        pid_t parent = getpid(), pid = fork();
        bool itself = false;
        int status;

        if (pid == 0)
                child(b->memory, b->disk, seed, fault, parent);
        if (fault)
                ts = (struct timespec){.tv_sec = most_ms / 1000, .tv_nsec = most_ms % 1000 * 1000000L};
        for (unsigned i = 0; i < 100 && !itself; i++) {
                long part = ts.tv_sec * 10000000 + ts.tv_nsec / 100;

                nanosleep(&(struct timespec){.tv_nsec = part}, NULL);
                itself = waitpid(pid, &status, WNOHANG) == pid;
        }
        if (!itself) {
                kill(pid, SIGKILL);
                assert_int_equal(waitpid(pid, &status, 0), pid);
        }
        assert_int_equal(model->error, 0);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        recover(b);
        return itself;
}

static void test_kills(void **state)
{
        uint64_t rounds = getenv("BALLAST_ROUNDS") ? strtoull(getenv("BALLAST_ROUNDS"), NULL, 10) : 60, done = 0;
        struct bed b;

        (void)state;
        bed_new(&b);
        for (uint64_t i = 0; i < rounds; i++)
                (void)round_of(&b, i + 1, NULL, 0);
        for (uint32_t i = 0; i < THREADS; i++)
                done += model->operations[i];
        print_message("%llu kills, %llu writes and TRIMs acknowledged\n", (unsigned long long)rounds,
                      (unsigned long long)done);
        assert_true(done > rounds * 10);
        bed_free(&b);
}

/* At each numbered step, the first and a later time, others being anywhere. */
static void test_kill_at_steps(void **state)
{
        const char *const *names;
        size_t n, tried = 0;
        struct bed b;

        (void)state;
        if (!bl_fault_enabled())
                skip();
        names = bl_fault_names(&n);
        bed_new(&b);
        for (size_t i = 0; i < n; i++)
                for (unsigned nth = 1; nth < 200 && strncmp(names[i], "store-", 6) == 0; nth = nth * 5 + 1) {
                        char rule[128];

                        snprintf(rule, sizeof(rule), "kill@%s:%u", names[i], nth);
                        /* the first time comes soon, or the test is none of this step */
                        if (!round_of(&b, 1000 + nth, rule, nth == 1 ? 20000 : 900) && nth == 1)
                                fail_msg("%s was not reached", names[i]);
                        tried++;
                }
        assert_true(tried >= 20);
        bed_free(&b);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_kills),
                cmocka_unit_test(test_kill_at_steps),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
