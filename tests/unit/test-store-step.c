// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Every operation stepped store by store: a child works in a pool that it may only
 * read; each instruction that writes to it faults, is let through alone, and
 * stops after it.  There the parent opens a copy of the pool and compares every
 * page with the model: exactly what was acknowledged, or what is under way.
 *
 * BALLAST_STEP=N checks every Nth of the stores that one instruction repeats (rep
 * movsb, rep stosb); default 16, 1: all.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <ucontext.h>

#include "daemon/fault.h"
#include "tests/unit/test-store-disk.h"

#define POOL  BL_ARENA_CHUNK
#define DISK  (2 * BL_MIB)
#define SLOTS 12U
#define VMS   3U
#define SIZE  ((uint64_t)SLOTS * BL_STORE_PAGE)

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define CAN_STEP 1
#else
#define CAN_STEP 0
#endif

#if CAN_STEP
/* --- operations ---------------------------------------------------------------------- */

enum kind { REGISTER, FORGET, WRITE, PART, ZERO, COMPACT, DEMOTE, CLEAN, RESERVE, REGROUP, FRESH_BOOT };

struct op {
        enum kind kind;
        uint32_t vm, slot, n;
        uint64_t content; /* of the first page; the next ones have the next numbers; see content_of */
};

#define SAME_CLASS 1000U

/* The i-th page of a write; from SAME_CLASS on they all compress to the same size. */
static uint64_t content_of(const struct op *o, uint32_t i)
{
        if (o->content == 0)
                return 0;
        return o->content < SAME_CLASS ? o->content + i : UINT64_C(37) * 4 * (o->content - SAME_CLASS + i) + 36;
}

static const struct op script[] = {
        {REGISTER, 0},
        {REGISTER, 1},
        {WRITE, 0, 0, 1, 20}, /* new, and the first table */
        {WRITE, 0, 1, 1, 20}, /* again the same */
        {WRITE, 1, 0, 1, 20}, /* of another VM of the group */
        {WRITE, 0, 0, 1, 21}, /* one reference less */
        {WRITE, 0, 1, 1, 22},
        {WRITE, 1, 0, 1, 24}, /* the last one is gone: its number and place are used again */
        {WRITE, 1, 1, 1, 25},
        {WRITE, 0, 2, 4, 40}, /* several */
        {WRITE, 0, 2, 4, 40}, /* all of them again */
        {WRITE, 1, 4, 1, 23}, /* does not compress */
        {WRITE, 1, 5, 1, 0}, /* zeros */
        {WRITE, 0, 3, 1, 0}, /* zeros over something */
        {PART, 0, 4, 1, 7},
        {PART, 0, 9, 1, 8}, /* into a hole */
        {PART, 1, 4, 1, 9}, /* of one that does not compress, twice */
        {PART, 1, 4, 1, 10},
        {ZERO, 0, 2, 1},
        {WRITE, 1, 6, 6, 60},
        {WRITE, 0, 6, 6, 80},
        {ZERO, 0, 6, 5}, /* sparse now */
        {ZERO, 1, 7, 4},
        {REGROUP, 1},
        {WRITE, 1, 2, 1, 22}, /* no longer the same as VM 0's */
        {DEMOTE, 0},
        {WRITE, 0, 10, 1, 20},
        {WRITE, 0, 1, 1, 90}, /* what it was is on the disk */
        {PART, 1, 2, 1, 11},
        {DEMOTE, 0},
        {CLEAN, 0},
        {ZERO, 0, 0, 12}, /* the table goes */
        {WRITE, 0, 5, 2, 100},
        {REGISTER, 2},
        {WRITE, 2, 0, 3, 100},

        /* several spans of a class, and then holes in them */
        {WRITE, 0, 0, 12, SAME_CLASS},
        {WRITE, 1, 0, 12, SAME_CLASS + 100},
        {ZERO, 0, 2, 8},
        {ZERO, 1, 3, 6},
        {COMPACT, 0},
        {RESERVE, 0},
        {FORGET, 1},
        {REGISTER, 1},
        {WRITE, 1, 3, 1, 60},
        {FRESH_BOOT, 2},
        {WRITE, 2, 1, 2, 130},
};

#define N_OPS (sizeof(script) / sizeof(script[0]))

struct model {
        bool there[VMS];
        uint8_t pages[VMS][SLOTS][BL_STORE_PAGE];
};

static void apply(struct model *m, const struct op *o)
{
        switch (o->kind) {
        case REGISTER:
        case FRESH_BOOT:
                m->there[o->vm] = true;
                memset(m->pages[o->vm], 0, sizeof(m->pages[o->vm]));
                break;
        case FORGET:
                m->there[o->vm] = false;
                break;
        case WRITE:
                for (uint32_t i = 0; i < o->n; i++)
                        fill_page(m->pages[o->vm][o->slot + i], content_of(o, i));
                break;
        case PART:
                for (uint32_t i = 100; i < 300; i++)
                        m->pages[o->vm][o->slot][i] = (uint8_t)o->content;
                break;
        case ZERO:
                memset(m->pages[o->vm][o->slot], 0, (size_t)o->n * BL_STORE_PAGE);
                break;
        case COMPACT:
        case DEMOTE:
        case CLEAN:
        case RESERVE:
        case REGROUP:
                break;
        }
}

static int act(struct bl_store *s, struct bl_export **e, const struct op *o)
{
        static uint8_t buf[SLOTS * BL_STORE_PAGE];
        struct bl_store_registration r = registration((uint8_t)o->vm, SIZE, "all");
        uint64_t at = (uint64_t)o->slot * BL_STORE_PAGE;
        int k = 0;

        r.pid = 77;
        switch (o->kind) {
        case FRESH_BOOT:
                e[o->vm] = bl_export_close(e[o->vm]);
                r.start++;
                /* fall through */
        case REGISTER:
                k = bl_store_register(s, &r);
                return k < 0 ? k : bl_export_open(s, r.uuid, r.pid, r.start, 0, &e[o->vm]);
        case REGROUP:
                memcpy(r.group, "other", sizeof("other"));
                return bl_store_register(s, &r);
        case FORGET:
                k = bl_store_forget(s, r.uuid);
                e[o->vm] = bl_export_close(e[o->vm]);
                return k;
        case WRITE:
                for (uint32_t i = 0; i < o->n; i++)
                        fill_page(buf + (size_t)i * BL_STORE_PAGE, content_of(o, i));
                return bl_export_write(e[o->vm], buf, (size_t)o->n * BL_STORE_PAGE, at);
        case PART:
                memset(buf, (int)o->content, 200);
                return bl_export_write(e[o->vm], buf, 200, at + 100);
        case ZERO:
                return bl_export_zero(e[o->vm], (uint64_t)o->n * BL_STORE_PAGE, at);
        case COMPACT:
                return bl_store_compact(s, BL_SEC) > 0 ? 0 : -ENODATA;
        case DEMOTE:
                k = bl_tier_demote(s);
                return k > 0 ? 0 : -ENODATA;
        case CLEAN:
                s->disk->pick = true;
                k = bl_tier_clean(s);
                return k > 0 ? 0 : -ENODATA;
        case RESERVE:
                return bl_store_reserve(s, POOL);
        }
        return -EINVAL;
}

/* --- the child --------------------------------------------------------------------------- */

#define TRAP_FLAG 0x100

/* Shared with the parent. */
struct shared {
        uint32_t begun, done; /* operations */
        uint64_t stores;
        int error; /* of which operation was last done */
};

static struct shared *shared;
static uint8_t *base;
static int to_parent;
static uint64_t every, repeats;
static const char *wrong; /* rule of fault.h */
static greg_t last_rip;

static void on_fault(int sig, siginfo_t *info, void *context)
{
        ucontext_t *uc = context;
        uint8_t *at = info->si_addr;

        if (at < base || at >= base + POOL) {
                signal(sig, SIG_DFL);
                return;
        }
        (void)mprotect(base, POOL, PROT_READ | PROT_WRITE);
        uc->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
        /* an instruction that is not yet over starts once more at its own address */
        repeats = uc->uc_mcontext.gregs[REG_RIP] == last_rip ? repeats + 1 : 0;
        last_rip = uc->uc_mcontext.gregs[REG_RIP];
}

static void stop(void)
{
        char c = 's';

        if (write(to_parent, &c, 1) != 1 || read(to_parent, &c, 1) != 1)
                _exit(3);
}

static void on_trap(int sig, siginfo_t *info, void *context)
{
        ucontext_t *uc = context;

        (void)sig;
        (void)info;
        uc->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)TRAP_FLAG;
        (void)mprotect(base, POOL, PROT_READ);
        shared->stores++;
        if (repeats % every == 0)
                stop();
}

static void child(int memory, uint8_t *disk_memory)
{
        struct sigaction fault = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
        struct sigaction trap = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
        struct bl_export *e[VMS] = {0};
        struct bl_store *s = store_on(memory, true, fake_disk(disk_memory, DISK));

        if (!s)
                _exit(2);
        /* nothing goes on beside the steps */
        bl_tier_stop_thread(s);
        base = s->arena->base;
        if (wrong && bl_fault_set(wrong) < 0)
                _exit(5);
        sigaction(SIGSEGV, &fault, NULL);
        sigaction(SIGTRAP, &trap, NULL);
        (void)mprotect(base, POOL, PROT_READ);
        for (uint32_t i = 0; i < N_OPS; i++) {
                last_rip = 0;
                __atomic_store_n(&shared->begun, i + 1, __ATOMIC_SEQ_CST);
                shared->error = act(s, e, &script[i]);
                __atomic_store_n(&shared->done, i + 1, __ATOMIC_SEQ_CST);
                if (shared->error < 0)
                        _exit(4);
                stop();
        }
        _exit(0);
}

/* --- the parent ------------------------------------------------------------------------------ */

static struct model before, after;

/* 0: the pool in `copy` is as the model may have it. */
static int compare_vm(struct bl_store *s, uint32_t vm)
{
        uint8_t uuid[BL_UUID_LEN], page[BL_STORE_PAGE];
        struct bl_export *e = NULL;
        bool was = before.there[vm], will = after.there[vm];
        int r;

        uuid_of((uint8_t)vm, uuid);
        r = bl_export_open(s, uuid, 77, START, 0, &e);
        if (r < 0)
                r = bl_export_open(s, uuid, 77, START + 1, 0, &e);
        if (r < 0)
                return was && will && script[shared->begun - 1].kind != FRESH_BOOT ? -ENOENT : 0;
        if (!was && !will)
                r = -EEXIST;
        for (uint32_t i = 0; r >= 0 && i < SLOTS; i++) {
                r = bl_export_read(e, page, sizeof(page), (uint64_t)i * BL_STORE_PAGE);
                if (r < 0)
                        fprintf(stderr, "vm %u slot %u: %s\n", vm, i, strerror(-r));
                else if ((!was || memcmp(page, before.pages[vm][i], sizeof(page)) != 0) &&
                         (!will || memcmp(page, after.pages[vm][i], sizeof(page)) != 0))
                        r = -EILSEQ;
                if (r == -EILSEQ)
                        fprintf(stderr, "vm %u slot %u: content that was never there\n", vm, i);
        }
        (void)bl_export_close(e);
        return r < 0 ? r : 0;
}

static int check_copy(int copy, uint8_t *disk_memory)
{
        struct bl_store *s = store_on(copy, false, fake_disk(disk_memory, DISK));
        int r;

        if (!s)
                return -EBADMSG;
        bl_tier_stop_thread(s);
        r = store_check(s);
        for (uint32_t vm = 0; vm < VMS && r >= 0; vm++)
                r = compare_vm(s, vm);
        if (r >= 0 && s->errors > 0)
                r = -EBADMSG;
        (void)bl_store_close(s);
        return r;
}

struct stepper {
        int memory, copy, sock;
        uint8_t *pool, *copied, *disk;
        pid_t pid;
};

static void start(struct stepper *t)
{
        int pair[2];

        *t = (struct stepper){.memory = memory_new(POOL), .copy = memory_new(POOL)};
        t->pool = mmap(NULL, POOL, PROT_READ, MAP_SHARED | MAP_POPULATE, t->memory, 0);
        t->copied = mmap(NULL, POOL, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, t->copy, 0);
        t->disk = mmap(NULL, DISK, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        assert_true(t->pool != MAP_FAILED && t->copied != MAP_FAILED && t->disk != MAP_FAILED && shared != MAP_FAILED);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        memset(&before, 0, sizeof(before));
        memset(&after, 0, sizeof(after));
        t->pid = fork();
        if (t->pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                close(pair[0]);
                to_parent = pair[1];
                child(t->memory, t->disk);
        }
        close(pair[1]);
        t->sock = pair[0];
}

static void end(struct stepper *t, int *ret_status)
{
        assert_int_equal(waitpid(t->pid, ret_status, 0), t->pid);
        close(t->sock);
        close(t->memory);
        close(t->copy);
        munmap(t->pool, POOL);
        munmap(t->copied, POOL);
        munmap(t->disk, DISK);
        munmap(shared, sizeof(*shared));
}

/* Brings the model to where the child is. */
static void follow(uint32_t *begun, uint32_t *done)
{
        if (shared->begun > *begun) {
                *begun = shared->begun;
                before = after;
                apply(&after, &script[*begun - 1]);
        }
        if (shared->done > *done) {
                *done = shared->done;
                before = after;
        }
}

static void test_every_store(void **state)
{
        uint32_t begun = 0, done = 0, checked = 0;
        struct stepper t;
        int status;
        char c;

        (void)state;
        every = getenv("BALLAST_STEP") ? strtoull(getenv("BALLAST_STEP"), NULL, 10) : 16;
        assert_true(every > 0);
        start(&t);
        while (read(t.sock, &c, 1) == 1) {
                int r;

                follow(&begun, &done);
                memcpy(t.copied, t.pool, POOL);
                r = check_copy(t.copy, t.disk);
                if (r < 0) {
                        fprintf(stderr, "operation %u (kind %d), %s, store %llu: %s\n", begun - 1,
                                (int)script[begun - 1].kind, done == begun ? "over" : "under way",
                                (unsigned long long)shared->stores, strerror(-r));
                        kill(t.pid, SIGKILL);
                        end(&t, &status);
                        fail_msg("a kill there loses something");
                }
                checked++;
                assert_int_equal(write(t.sock, &c, 1), 1);
        }
        if (shared->error < 0)
                fprintf(stderr, "operation %u: %s\n", shared->done - 1, strerror(-shared->error));
        assert_int_equal(shared->done, N_OPS);
        print_message("%u operations, %llu stores, %u of them recovered from\n", done,
                      (unsigned long long)shared->stores, checked);
        assert_true(checked > 1000);
        end(&t, &status);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* The store itself, made to commit a page before its bytes are there (test builds): it is noticed.  Of the first
 * passings those write what is new. */
static void test_wrong_order_is_found(void **state)
{
        (void)state;
        if (!bl_fault_enabled())
                skip();
        every = 16;
        for (unsigned nth = 1; nth <= 7; nth += 3) {
                uint32_t begun = 0, done = 0;
                struct stepper t;
                bool found = false;
                char rule[64], c;
                int status;

                snprintf(rule, sizeof(rule), "fail@store-taken:%u", nth);
                wrong = rule;
                start(&t);
                wrong = NULL;
                while (!found && read(t.sock, &c, 1) == 1) {
                        follow(&begun, &done);
                        memcpy(t.copied, t.pool, POOL);
                        found = check_copy(t.copy, t.disk) < 0;
                        assert_int_equal(write(t.sock, &c, 1), 1);
                }
                kill(t.pid, SIGKILL);
                end(&t, &status);
                assert_true(found);
        }
}

/*
 * The stepper sees it when the order is wrong: of one write, the table with the new slot
 * word is taken from after it, all else from before it, as if the commit came first.
 */
static void test_order_is_seen(void **state)
{
        uint32_t begun = 0, done = 0, seen = 0;
        uint8_t *old = malloc(POOL);
        struct stepper t;
        int status;
        char c;

        (void)state;
        assert_non_null(old);
        every = UINT64_MAX;
        start(&t);
        while (read(t.sock, &c, 1) == 1) {
                uint32_t was = done;

                follow(&begun, &done);
                if (done > was && script[done - 1].kind == WRITE && script[done - 1].content != 0 &&
                    memcmp(old, t.pool, sizeof(uint64_t)) == 0) {
                        const struct bl_super *super = (const void *)t.pool;
                        const uint32_t *map = (const void *)(t.pool + (size_t)super->map * BL_STORE_PAGE);

                        memcpy(t.copied, old, POOL);
                        for (uint32_t p = super->first; p < super->pages; p++)
                                if ((map[p] & 0xff) == BL_PAGE_TABLE)
                                        memcpy(t.copied + (size_t)p * BL_STORE_PAGE, t.pool + (size_t)p * BL_STORE_PAGE,
                                               BL_STORE_PAGE);
                        seen += check_copy(t.copy, t.disk) < 0;
                }
                if (done > was)
                        memcpy(old, t.pool, POOL);
                assert_int_equal(write(t.sock, &c, 1), 1);
        }
        end(&t, &status);
        free(old);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        /* not all: some write what is there already */
        assert_true(seen >= 5);
}
#endif

int main(void)
{
        const struct CMUnitTest tests[] = {
#if CAN_STEP
                cmocka_unit_test(test_every_store),
                cmocka_unit_test(test_order_is_seen),
                cmocka_unit_test(test_wrong_order_is_found),
#endif
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
