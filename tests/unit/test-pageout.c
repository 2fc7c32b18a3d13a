/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Paging out: the walk over a VMM's memory, and when the engine offers it.  The VMM is
 * this process, its /proc/PID a directory with a part of the real one in it, and the
 * kernel's reclaim a madvise(MADV_DONTNEED).
 */
#include "tests/unit/test-host-util.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "daemon/act/pageout.h"
#include "daemon/util/clock.h"
#include "tests/unit/test-loop.h"

#define RAM  (32 * BL_MIB)
#define N(a) (sizeof(a) / sizeof((a)[0]))

static unsigned char *ram;
static char proc[64];
static atomic_uint advised;

static int64_t fake_advise(int pidfd, uint64_t start, uint64_t size)
{
        (void)pidfd;
        assert_true(start >= (uintptr_t)ram && start + size <= (uintptr_t)ram + RAM && size <= BL_WALK_SLICE);
        atomic_fetch_add(&advised, 1);
        assert_int_equal(madvise((void *)(uintptr_t)start, size, MADV_DONTNEED), 0);
        return (int64_t)size;
}

static void put(const char *name, const char *text)
{
        char path[128];

        snprintf(path, sizeof path, "%s/%s", proc, name);
        (void)remove(test_path(path));
        test_write(path, text);
}

static void link_to_real(const char *name)
{
        char path[128], real[64];

        snprintf(path, sizeof path, "%s/%s", proc, name);
        snprintf(real, sizeof real, "/proc/self/%s", name);
        assert_int_equal(symlink(real, test_path(path)), 0);
}

static void put_maps(const char *mode)
{
        char text[256];

        snprintf(text, sizeof text, "1000-2000 r-xp 0 00:00 0\n%lx-%lx %s 00000000 00:00 0\n", (unsigned long)ram,
                 (unsigned long)ram + RAM, mode);
        put("maps", text);
}

/* State, major faults and ticks of CPU. */
static void put_stat(char state, unsigned long faults, unsigned long cpu)
{
        char text[256];

        snprintf(text, sizeof text, "%d (qemu) %c 1 1 1 0 -1 4194560 100 200 %lu 0 %lu 0 0 0 20 0 1 0 4711 1 1\n",
                 getpid(), state, faults, cpu);
        put("stat", text);
}

static void put_psi(unsigned long some)
{
        char text[256];

        snprintf(text, sizeof text,
                 "some avg10=0.00 avg60=0.00 avg300=0.00 total=%lu\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
                 some);
        test_write("/proc/pressure/memory", text);
}

static void put_swap(uint64_t size, uint64_t used)
{
        char text[256];

        snprintf(text, sizeof text, "Filename Type Size Used Priority\n/dev/sda2 partition %lu %lu 1\n",
                 (unsigned long)(size / BL_KIB), (unsigned long)(used / BL_KIB));
        test_write("/proc/swaps", text);
}

static int setup(void **state)
{
        if (test_root_make(state) < 0)
                return -1;
        ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (ram == MAP_FAILED)
                return -1;
        /* small pages, so that they are counted one by one */
        (void)madvise(ram, RAM, MADV_NOHUGEPAGE);
        memset(ram, 1, RAM);
        snprintf(proc, sizeof proc, "/proc/%d", getpid());
        put_maps("rw-p");
        put_stat('S', 10, 100);
        put("cgroup", "0::/user.slice\n");
        link_to_real("status");
        link_to_real("pagemap");
        put_psi(0);
        put_swap(BL_GIB, 0);
        atomic_store(&advised, 0);
        return 0;
}

static int teardown(void **state)
{
        (void)munmap(ram, RAM);
        return test_root_remove(state);
}

/* --- the walk ------------------------------------------------------------------------- */

static void test_cgroup(void **state)
{
        static const struct {
                const char *text, *want;
        } all[] = {
                {"0::/machine.slice/machine-qemu\\x2d1\\x2dg1.scope/libvirt/emulator\n",
                 "/machine.slice/machine-qemu\\x2d1\\x2dg1.scope"},
                {"0::/machine.slice/machine-qemu\\x2d1\\x2dg1.scope\n",
                 "/machine.slice/machine-qemu\\x2d1\\x2dg1.scope"},
                {"12:memory:/a\n0::/machine/qemu-1-g1.libvirt-qemu/vcpu0\n", "/machine/qemu-1-g1.libvirt-qemu"},
                /* nobody else's */
                {"0::/system.slice/libvirtd.service\n", NULL},
                {"0::/machine.slice\n", NULL},
                {"0::/machine.slice/machine-lxc\\x2d1.scope\n", NULL},
                {"0::/machine-qemu\n", NULL},
                {"0::/x.scope\n", NULL},
                {"0::/.libvirt-qemu\n", NULL},
                {"0::/\n", NULL},
                {"0::", NULL},
                {"4:memory:/machine/qemu-1-g1.libvirt-qemu\n", NULL},
                {"", NULL},
        };
        char got[128], tiny[8];

        (void)state;
        for (size_t i = 0; i < N(all); i++) {
                assert_int_equal(bl_walk_cgroup(all[i].text, got, sizeof got), all[i].want != NULL);
                if (all[i].want)
                        assert_string_equal(got, all[i].want);
        }
        assert_false(bl_walk_cgroup(all[0].text, tiny, sizeof tiny));
}

static struct bl_walk *walk_of(pid_t pid)
{
        const struct bl_walk_options o = {.root = test_root, .advise = fake_advise};
        _cleanup_close_ int dirfd = open(test_path(proc), O_PATH | O_DIRECTORY | O_CLOEXEC);
        struct bl_walk *w = NULL;

        assert_int_equal(bl_walk_new(&o, pid, dirfd, RAM, &w), 0);
        return w;
}

static struct bl_walk_result run(struct bl_walk *w, uint64_t bytes, bool stopped)
{
        atomic_bool stop = stopped;
        struct bl_walk_result res;

        bl_walk_run(w, bytes, 10 * BL_SEC, &stop, &res);
        return res;
}

static void test_walk(void **state)
{
        _cleanup_(bl_walk_freep) struct bl_walk *w = walk_of(getpid());
        struct bl_walk_result res;
        unsigned n;

        (void)state;
        assert_false(bl_walk_by_cgroup(w));
        res = run(w, 8 * BL_MIB, true);
        assert_int_equal(res.error, 0);
        assert_int_equal(advised, 0);
        /* as much as is asked for, and no more than a slice above */
        res = run(w, 8 * BL_MIB, false);
        assert_int_equal(res.error, 0);
        assert_false(res.round);
        assert_true(res.tried >= 8 * BL_MIB && res.tried <= 12 * BL_MIB);
        assert_true(res.freed >= 7 * BL_MIB && res.freed <= 12 * BL_MIB);
        /* it goes on where it stopped, once round */
        res = run(w, 10 * RAM, false);
        assert_int_equal(res.error, 0);
        assert_true(res.round);
        assert_true(res.tried >= RAM - 12 * BL_MIB && res.tried < RAM);
        n = advised;
        /* nothing is there, so that nothing is asked for */
        res = run(w, 10 * RAM, false);
        assert_true(res.round);
        assert_int_equal(res.tried + res.freed, 0);
        assert_int_equal(advised, n);
        /* what has come back rests */
        memset(ram, 2, RAM / 2);
        res = run(w, 10 * RAM, false);
        assert_true(res.round);
        assert_int_equal(res.rested, RAM / 2);
        assert_int_equal(advised, n);
        /* memory that is another now was not learnt of */
        ram += BL_WALK_SLICE / 2;
        put_maps("rw-p");
        ram -= BL_WALK_SLICE / 2;
        res = run(w, BL_MIB, false);
        assert_int_equal(res.rested, 0);
        assert_true(res.tried > 0);
}

static void test_walk_refused(void **state)
{
        struct bl_walk *w = walk_of(getpid());

        (void)state;
        put_stat('T', 10, 100);
        assert_int_equal(run(w, BL_MIB, false).error, -EBUSY);
        put_stat('Z', 10, 100);
        assert_int_equal(run(w, BL_MIB, false).error, -ESRCH);
        put_stat('S', 10, 100);
        put_maps("rw-s");
        assert_int_equal(run(w, BL_MIB, false).error, -EOPNOTSUPP);
        put_maps("r--p");
        assert_int_equal(run(w, BL_MIB, false).error, -ENODATA);
        put_maps("rw-p");
        put("status", "Name: q\nVmLck:\t 20000 kB\nRssAnon:\t 32768 kB\nRssFile: 0 kB\nRssShmem: 0 kB\n");
        assert_int_equal(run(w, BL_MIB, false).error, -EOPNOTSUPP);
        put("status", "Name: q\nRssAnon:\t 32768 kB\nRssFile: 0 kB\nRssShmem: 0 kB\nHugetlbPages:\t 32768 kB\n");
        assert_int_equal(run(w, BL_MIB, false).error, -EOPNOTSUPP);
        (void)bl_walk_free(w);
        w = walk_of(0x3ffffff);
        assert_int_equal(run(w, BL_MIB, false).error, -ESRCH);
        (void)bl_walk_free(w);
        assert_int_equal(advised, 0);
}

static void test_walk_by_cgroup(void **state)
{
#define SCOPE "/sys/fs/cgroup/machine.slice/machine-qemu\\x2d1\\x2dg1.scope"
        struct bl_walk *w;
        char text[64];
        struct bl_walk_result res;

        (void)state;
        put("cgroup", "0::/machine.slice/machine-qemu\\x2d1\\x2dg1.scope/libvirt\n");
        /* an older kernel, or cgroup v1 */
        w = walk_of(getpid());
        assert_false(bl_walk_by_cgroup(w));
        (void)bl_walk_free(w);
        test_write(SCOPE "/memory.reclaim", "");
        w = walk_of(getpid());
        assert_true(bl_walk_by_cgroup(w));
        res = run(w, 20 * BL_MIB, false);
        assert_int_equal(res.error, 0);
        assert_true(bl_fs_read(test_root, SCOPE "/memory.reclaim", text, sizeof text) > 0);
        assert_string_equal(text, "8388608 swappiness=max");
        /* nothing came of it: there is nothing cold */
        assert_true(res.round);
        assert_int_equal(res.tried, 8 * BL_MIB);
        assert_int_equal(advised, 0);
        assert_int_equal(unlink(test_path(SCOPE "/memory.reclaim")), 0);
        assert_int_equal(run(w, BL_MIB, false).error, -ESRCH);
        (void)bl_walk_free(w);
}

/* --- the engine ------------------------------------------------------------------------- */

struct fix {
        sd_event *event;
        struct bl_pool *pool;
        struct bl_engine *e;
        struct bl_resident *r;
        struct bl_proc_mem mem;
        struct bl_vm vm;
        usec_t now;
        unsigned backoffs, all_backoffs, said;
        usec_t span;
        char sentence[256];
        int error;
};

static void on_paged_out(void *userdata, const uint8_t uuid[BL_UUID_LEN], enum bl_reason why, uint64_t bytes)
{
        struct fix *f = userdata;

        (void)uuid;
        assert_int_equal(why, BL_WHY_TAKE_PAGEOUT);
        assert_true(bytes > 0);
        f->said++;
}

static void on_backoff(void *userdata, const uint8_t *uuid, usec_t span, const char *sentence)
{
        struct fix *f = userdata;

        if (uuid)
                f->backoffs++;
        else
                f->all_backoffs++;
        f->span = span;
        snprintf(f->sentence, sizeof f->sentence, "%s", sentence);
}

static void on_error(void *userdata, const uint8_t uuid[BL_UUID_LEN], int r)
{
        (void)uuid;
        ((struct fix *)userdata)->error = r;
}

static int setup_engine(void **state)
{
        struct fix *f = calloc(1, sizeof *f);
        const struct bl_pageout_options o = {
                .walk = {.root = test_root, .advise = fake_advise},
                .handler = {on_paged_out, on_backoff, on_error},
                .userdata = f,
        };

        if (setup(state) < 0 || sd_event_new(&f->event) < 0 || bl_pool_new(f->event, NULL, &f->pool) < 0 ||
            bl_pageout_engine_new(f->pool, &o, &f->e) < 0 || bl_resident_open(test_root, getpid(), 0, &f->r) < 0)
                return -1;
        f->vm = (struct bl_vm){.uuid = {7},
                               .run = BL_RUN_RUNNING,
                               .managed = true,
                               .max = RAM,
                               .limit = RAM,
                               .resident = RAM,
                               .overhead = 2 * BL_MIB,
                               .reservation = 4 * BL_MIB};
        f->mem = (struct bl_proc_mem){.anon = RAM, .swap = 100 * BL_MIB};
        f->now = bl_now();
        bl_pageout_enable(f->e, true);
        *state = f;
        return 0;
}

static int teardown_engine(void **state)
{
        struct fix *f = *state;

        (void)bl_resident_free(f->r);
        (void)bl_pool_stop(f->pool, 5 * BL_SEC);
        (void)bl_pageout_engine_free(f->e);
        (void)bl_pool_free(f->pool);
        sd_event_unref(f->event);
        free(f);
        return teardown(state);
}

/* A look, `span` after the one before. */
static void look(struct fix *f, usec_t span)
{
        f->now += span;
        assert_int_equal(bl_pageout_see(f->e, f->vm.uuid, f->r, &f->mem, RAM, f->now), 0);
        bl_pageout_looked(f->e, f->now);
}

static struct bl_offer offer(struct fix *f)
{
        struct bl_offer o;

        f->e->ops->propose(f->e, &f->vm, &o);
        return o;
}

static const char *why_not(struct fix *f)
{
        struct bl_pageout_vm v;

        return bl_pageout_vm(f->e, &f->vm, &v) ? v.why_not : "not known";
}

static void assert_refused(struct fix *f, const char *words)
{
        const struct bl_decision d = {.engine = BL_ENGINE_PAGEOUT, .act = true, .from = RAM, .to = RAM / 2};

        assert_int_equal(offer(f).takes, 0);
        assert_non_null(why_not(f));
        if (!strstr(why_not(f), words))
                fail_msg("'%s' does not have '%s'", why_not(f), words);
        assert_int_equal(f->e->ops->apply(f->e, &f->vm, &d), -ESTALE);
}

static void test_offers(void **state)
{
        struct fix *f = *state;

        assert_int_equal(offer(f).takes, 0);
        look(f, BL_SEC);
        assert_int_equal(offer(f).takes, RAM - 6 * BL_MIB);
        assert_int_equal(offer(f).gives, 0);
        assert_null(why_not(f));
        f->vm.resident = BL_GIB;
        assert_int_equal(offer(f).takes, 64 * BL_MIB);
        f->vm.reservation = BL_GIB;
        assert_refused(f, "reservation");
        f->vm.reservation = 0;
        /* no balloon is needed, but memory that can go */
        f->vm.no_reclaim = BL_RECLAIM_NO_BALLOON;
        assert_int_equal(offer(f).takes, 64 * BL_MIB);
        assert_int_equal(f->e->ops->probe(f->e, &f->vm), BL_RECLAIM_OK);
        for (enum bl_no_reclaim r = BL_RECLAIM_VFIO; r < _BL_RECLAIM_MAX; r++) {
                f->vm.no_reclaim = r;
                assert_int_equal(f->e->ops->probe(f->e, &f->vm), r);
                assert_refused(f, "");
        }
        f->vm.no_reclaim = BL_RECLAIM_OK;
        f->vm.run = BL_RUN_MIGRATING;
        assert_refused(f, "migrated");
        f->vm.run = BL_RUN_PAUSED;
        assert_int_equal(offer(f).takes, 64 * BL_MIB);
        f->vm.hung = true;
        assert_refused(f, "does not answer");
        f->vm.hung = false;
        /* a sixteenth of the swap is left to the host */
        put_swap(BL_GIB, BL_GIB - 80 * BL_MIB);
        look(f, BL_SEC);
        assert_int_equal(offer(f).takes, 16 * BL_MIB);
        put_swap(BL_GIB, BL_GIB - 60 * BL_MIB);
        look(f, BL_SEC);
        assert_refused(f, "swap is full");
        put_swap(0, 0);
        look(f, BL_SEC);
        assert_refused(f, "no swap");
        put_swap(BL_GIB, 0);
        look(f, BL_SEC);
        bl_pageout_enable(f->e, false);
        assert_refused(f, "switched off");
        bl_pageout_enable(f->e, true);
        assert_int_equal(offer(f).takes, 64 * BL_MIB);
        /* it is gone */
        bl_pageout_looked(f->e, f->now + 2 * BL_SEC);
        assert_int_equal(offer(f).takes, 0);
        assert_string_equal(why_not(f), "not known");
}

static bool busy(struct fix *f)
{
        const struct bl_decision d = {.engine = BL_ENGINE_PAGEOUT, .act = true, .from = RAM, .to = RAM - BL_MIB};

        return !why_not(f) && f->e->ops->apply(f->e, &f->vm, &d) == -EBUSY;
}

static void page_out(struct fix *f, uint64_t bytes)
{
        const struct bl_decision d = {.engine = BL_ENGINE_PAGEOUT,
                                      .act = true,
                                      .why = BL_WHY_TAKE_PAGEOUT,
                                      .from = f->vm.resident,
                                      .to = f->vm.resident - bytes};
        struct bl_pageout_vm before, v;

        assert_true(bl_pageout_vm(f->e, &f->vm, &before));
        assert_int_equal(f->e->ops->apply(f->e, &f->vm, &d), 0);
        assert_true(busy(f));
        assert_int_equal(offer(f).takes, 0);
        assert_int_equal(offer(f).gives, 0);
        SPIN_UNTIL_WITHIN(f, 20 * BL_SEC, bl_pageout_vm(f->e, &f->vm, &v) && v.out > before.out);
}

static void test_pages_out(void **state)
{
        struct fix *f = *state;
        struct bl_decision d = {.engine = BL_ENGINE_BALLOON, .act = true, .from = RAM, .to = 0};

        look(f, BL_SEC);
        assert_int_equal(f->e->ops->apply(f->e, &f->vm, &d), -EINVAL);
        page_out(f, 8 * BL_MIB);
        assert_true(advised >= 4 && advised <= 6);
        assert_true(bl_pageout_cpu(f->e) > 0);
        /* said when ten seconds have gone, and once */
        look(f, BL_SEC);
        look(f, 10 * BL_SEC);
        look(f, 10 * BL_SEC);
        assert_int_equal(f->said, 1);
        assert_int_equal(f->e->ops->undo(f->e, &f->vm, 0), 1);
        assert_int_equal(f->error, 0);
}

static void test_never(void **state)
{
        struct fix *f = *state;
        const struct bl_decision d = {.engine = BL_ENGINE_PAGEOUT, .act = true, .from = RAM, .to = 0};

        put_maps("rw-s");
        look(f, BL_SEC);
        assert_int_equal(f->e->ops->apply(f->e, &f->vm, &d), 0);
        SPIN_UNTIL_WITHIN(f, 20 * BL_SEC, f->error);
        assert_int_equal(f->error, -EOPNOTSUPP);
        assert_refused(f, "shared with other processes");
}

/* A faulting VM is left alone: 30 s, a minute, ... ten; and from the beginning when it was quiet for long. */
static void test_refaults(void **state)
{
        struct fix *f = *state;
        static const unsigned spans[] = {30, 60, 120, 240, 480, 600, 600};
        unsigned long faults = 10;
        struct bl_pageout_vm v;

        look(f, BL_SEC);
        /* what it reads before anything was paged out is not ours */
        put_stat('S', faults += 100000, 100);
        look(f, BL_SEC);
        assert_int_equal(f->backoffs, 0);
        page_out(f, 4 * BL_MIB);
        /* little does no harm: what its kernel needs, and a page now and then */
        put_stat('S', faults += 1500, 100);
        look(f, BL_SEC);
        for (int i = 0; i < 20; i++) {
                put_stat('S', faults += 100, 100);
                look(f, BL_SEC);
        }
        assert_int_equal(f->backoffs, 0);
        for (size_t i = 0; i < N(spans); i++) {
                unsigned before = f->backoffs;

                put_stat('S', faults += 10000, 100);
                look(f, BL_SEC);
                assert_int_equal(f->backoffs, before + 1);
                assert_int_equal(f->span, spans[i] * BL_SEC);
                assert_non_null(strstr(f->sentence, "reads back"));
                assert_true(bl_pageout_vm(f->e, &f->vm, &v));
                assert_true(v.back > 0 && v.back_rate >= BL_PAGEOUT_HURT);
                if (i == 0) {
                        assert_refused(f, "read back");
                        assert_true(offer(f).gives == f->mem.swap);
                }
                /* not more than once a time, whatever it does */
                put_stat('S', faults += 10000, 100);
                look(f, BL_SEC);
                assert_int_equal(f->backoffs, before + 1);
                for (int k = 0; k < 20; k++)
                        look(f, BL_SEC); /* the rate falls */
                look(f, spans[i] * BL_SEC);
        }
        look(f, 700 * BL_SEC);
        put_stat('S', faults += 10000000, 100);
        look(f, BL_SEC);
        assert_int_equal(f->span, 30 * BL_SEC);
        assert_int_equal(f->all_backoffs, 0);
}

/* KVM has some faults taken by the kernel's own threads: swap empties, and memory fills. */
static void test_refaults_unseen(void **state)
{
        struct fix *f = *state;

        look(f, BL_SEC);
        page_out(f, 4 * BL_MIB);
        /* the balloon discards: swap empties, and no memory fills */
        f->mem.swap -= 50 * BL_MIB;
        look(f, BL_SEC);
        assert_int_equal(f->backoffs, 0);
        f->mem.swap -= 40 * BL_MIB;
        f->mem.anon += 40 * BL_MIB;
        look(f, BL_SEC);
        assert_int_equal(f->backoffs, 1);
}

static void test_stalls(void **state)
{
        struct fix *f = *state;
        unsigned long some = 0;

        look(f, BL_SEC);
        /* tasks stall for half of the time already: that is why something is done */
        for (int i = 0; i < 3; i++) {
                put_psi(some += 500000);
                look(f, BL_SEC);
        }
        f->now = bl_now();
        page_out(f, 4 * BL_MIB);
        put_psi(some += 550000);
        look(f, BL_SEC);
        assert_int_equal(f->all_backoffs, 0);
        put_psi(some += 700000);
        look(f, BL_SEC);
        assert_int_equal(f->all_backoffs, 1);
        assert_int_equal(f->span, BL_PAGEOUT_BACKOFF);
        assert_refused(f, "stall");
        assert_int_equal(f->backoffs, 0);
}

static void test_idle(void **state)
{
        struct fix *f = *state;
        usec_t begin;

        look(f, BL_SEC);
        begin = f->now;
        for (int i = 0; i < 61; i++)
                look(f, BL_SEC);
        assert_int_equal(bl_pageout_idle_since(f->e, f->vm.uuid), begin);
        put_stat('S', 10, 100000);
        look(f, BL_SEC);
        assert_int_equal(bl_pageout_idle_since(f->e, f->vm.uuid), 0);
}

static void test_ram(void **state)
{
        struct fix *f = *state;

        test_write("/sys/block/zram0/disksize", "1073741824\n");
        test_write("/sys/block/zram0/mm_stat", "209715200 50000000 52428800 0 0 0 0 0 0\n");
        put_swap(BL_GIB, 200 * BL_MIB);
        look(f, BL_SEC);
        /* half of what is swapped is this VM's, so half of the memory is */
        assert_int_equal(bl_pageout_ram(f->e), 25 * BL_MIB);
        assert_int_equal(bl_pageout_tiers(f->e)->n_zrams, 1);
        f->mem.swap = 0;
        look(f, BL_SEC);
        assert_int_equal(bl_pageout_ram(f->e), 0);
        f->mem.swap = BL_GIB;
        look(f, BL_SEC);
        assert_int_equal(bl_pageout_ram(f->e), 50 * BL_MIB);
}

/* zram grows by as much as is paged out into it. */
static int64_t stiff_advise(int pidfd, uint64_t start, uint64_t size)
{
        static uint64_t used;
        char text[128];

        used += size;
        snprintf(text, sizeof text, "%lu %lu %lu 0 0 0 0 0 0\n", (unsigned long)used, (unsigned long)used,
                 (unsigned long)used);
        test_write("/sys/block/zram0/mm_stat", text);
        return fake_advise(pidfd, start, size);
}

static void test_stiff(void **state)
{
        struct fix *f = *state;
        const struct bl_pageout_options o = {.walk = {.root = test_root, .advise = stiff_advise}};

        test_write("/sys/block/zram0/disksize", "1073741824\n");
        (void)bl_pageout_engine_free(f->e);
        assert_int_equal(bl_pageout_engine_new(f->pool, &o, &f->e), 0);
        bl_pageout_enable(f->e, true);
        look(f, BL_SEC);
        page_out(f, 8 * BL_MIB);
        assert_refused(f, "did not shrink");
        assert_int_equal(offer(f).gives, 0);
}

/* The engine ends, or its VM does, while a job is under way. */
static void test_gone_meanwhile(void **state)
{
        struct fix *f = *state;
        const struct bl_decision d = {.engine = BL_ENGINE_PAGEOUT, .act = true, .from = RAM, .to = 0};

        look(f, BL_SEC);
        assert_int_equal(f->e->ops->apply(f->e, &f->vm, &d), 0);
        bl_pageout_looked(f->e, f->now + 2 * BL_SEC);
        bl_pageout_looked(f->e, f->now + 4 * BL_SEC);
        assert_string_equal(why_not(f), "not known");
        f->now += 5 * BL_SEC;
        look(f, BL_SEC);
        SPIN_UNTIL_WITHIN(f, 20 * BL_SEC, offer(f).takes > 0);
        assert_int_equal(f->e->ops->apply(f->e, &f->vm, &d), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_cgroup),
                cmocka_unit_test_setup_teardown(test_walk, setup, teardown),
                cmocka_unit_test_setup_teardown(test_walk_refused, setup, teardown),
                cmocka_unit_test_setup_teardown(test_walk_by_cgroup, setup, teardown),
                cmocka_unit_test_setup_teardown(test_offers, setup_engine, teardown_engine),
                cmocka_unit_test_setup_teardown(test_pages_out, setup_engine, teardown_engine),
                cmocka_unit_test_setup_teardown(test_never, setup_engine, teardown_engine),
                cmocka_unit_test_setup_teardown(test_refaults, setup_engine, teardown_engine),
                cmocka_unit_test_setup_teardown(test_refaults_unseen, setup_engine, teardown_engine),
                cmocka_unit_test_setup_teardown(test_stalls, setup_engine, teardown_engine),
                cmocka_unit_test_setup_teardown(test_idle, setup_engine, teardown_engine),
                cmocka_unit_test_setup_teardown(test_ram, setup_engine, teardown_engine),
                cmocka_unit_test_setup_teardown(test_stiff, setup_engine, teardown_engine),
                cmocka_unit_test_setup_teardown(test_gone_meanwhile, setup_engine, teardown_engine),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
