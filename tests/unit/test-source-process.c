/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Processes as sources of pages: real children, and the kernel that runs. */
#include "tests/unit/test-source-util.h"

#include <grp.h>
#include <linux/magic.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/swap.h>
#include <sys/uio.h>
#include <sys/vfs.h>

#include "daemon/util/fs.h"

static struct child c, c2;

static int teardown(void **state)
{
        (void)state;
        child_end(&c);
        child_end(&c2);
        return 0;
}

/* What is skipped never returns. */
static void skip_if(bool yes, struct bl_source **s)
{
        if (!yes)
                return;
        *s = bl_source_free(*s);
        skip();
}

/* --- states ------------------------------------------------------------------ */

/* Pages of `ram`: 0 never touched, 1 read, 2 written with zeros, 3 to 9 written, 10 not again. */
static void touch_some(struct child *x, int step)
{
        if (step > 0)
                return;
        (void)*(volatile unsigned char *)(x->ram + PAGE);
        memset(x->ram + 2 * PAGE, 0, PAGE);
        for (size_t i = 3; i < 10; i++)
                fill_page(x->ram + i * PAGE, i);
}

static void test_states(void **state)
{
        static const uint8_t want[] = {BL_PAGE_ABSENT,  BL_PAGE_KERNEL_ZERO, BL_PAGE_PRESENT, BL_PAGE_PRESENT,
                                       BL_PAGE_PRESENT, BL_PAGE_PRESENT,     BL_PAGE_PRESENT, BL_PAGE_PRESENT,
                                       BL_PAGE_PRESENT, BL_PAGE_PRESENT,     BL_PAGE_ABSENT};
        _cleanup_(bl_source_freep) struct bl_source *s = NULL;
        struct bl_page_look l[N(want)];
        unsigned char buf[8][BL_PAGE_SIZE];
        uint64_t first, pages[8];
        bool ok[8];

        (void)state;
        child_start(&c, NULL, touch_some);
        s = source_of(c.pid, RAM);
        skip_if(s->blind, &s);
        assert_string_equal(s->name, "child");
        assert_false(s->still);
        first = page_at(c.pid, RAM, c.ram);
        assert_true(first + PAGES <= s->n_pages);
        assert_int_equal(s->ops->look(s, first, N(want), l), 0);
        for (size_t i = 0; i < N(want); i++) {
                assert_int_equal(l[i].state, want[i]);
                assert_int_equal(l[i].frame, 0);
        }
        for (size_t i = 0; i < 8; i++)
                pages[i] = first + 2 + i;
        memset(buf, 0xff, sizeof buf);
        assert_int_equal(s->ops->read(s, pages, 8, buf, ok), 0);
        assert_true(ok[0] && bl_page_is_zero(buf[0]));
        for (size_t i = 1; i < 8; i++)
                assert_true(ok[i] && is_page(buf[i], 2 + i));
        assert_int_equal(s->ops->again(s), 0);
        assert_int_equal(bl_source_process_address(s, first + 3), (uintptr_t)c.ram + 3 * PAGE);
        assert_true(bl_source_process_address(s, s->n_pages) == BL_UNSET);
        assert_true(bl_source_process_pidfd(s) >= 0);
}

/* Nothing of the child changes by looks and reads, whatever is asked for. */
static void test_untouched(void **state)
{
        static uint64_t before[PAGES], after[PAGES];
        static struct bl_page_look l[PAGES];
        static unsigned char buf[64 * BL_PAGE_SIZE];
        _cleanup_(bl_source_freep) struct bl_source *s = NULL;
        uint64_t first, pages[64];
        bool ok[64];

        (void)state;
        child_start(&c, NULL, touch_some);
        s = source_of(c.pid, RAM);
        first = page_at(c.pid, RAM, c.ram);
        read_pagemap(&c, before, PAGES);
        assert_int_equal(s->ops->look(s, first, PAGES, l), 0);
        for (size_t i = 0; i < N(pages); i++)
                pages[i] = first + i;
        assert_int_equal(s->ops->read(s, pages, N(pages), buf, ok), 0);
        for (size_t i = 0; i < N(pages); i++)
                assert_int_equal(ok[i], i >= 1 && i < 10);
        read_pagemap(&c, after, PAGES);
        assert_memory_equal(before, after, sizeof before);
}

static void touch_huge(struct child *x, int step)
{
        if (step > 0)
                return;
        (void)madvise(x->ram, RAM, MADV_HUGEPAGE);
        fill_page(x->ram + 700 * PAGE, 700);
        /* a whole huge page of zeros */
        (void)*(volatile unsigned char *)(x->ram + 4 * HUGE);
        x->ram[6 * HUGE] = 1;
        (void)madvise(x->ram + 6 * HUGE, HUGE, MADV_NOHUGEPAGE);
}

static void test_huge(void **state)
{
        static uint64_t entries[PAGES];
        static struct bl_page_look l[1024];
        _cleanup_(bl_source_freep) struct bl_source *s = NULL;
        unsigned char buf[BL_PAGE_SIZE];
        uint64_t first;

        (void)state;
        child_start(&c, NULL, touch_huge);
        read_pagemap(&c, entries, PAGES);
        /* only one page was touched, so more than one is there if it is huge */
        if (!(entries[512] >> 63) || !(entries[4 * 512 + 9] >> 63))
                skip();
        s = source_of(c.pid, 0);
        skip_if(s->blind, &s);
        first = page_at(c.pid, 0, c.ram);
        assert_int_equal(s->ops->look(s, first, 1024, l), 0);
        for (size_t i = 0; i < 1024; i++)
                assert_int_equal(l[i].state, i < 512 ? BL_PAGE_ABSENT : BL_PAGE_PRESENT);
        assert_true(read_at(s, first + 700, buf) && is_page(buf, 700));
        assert_true(read_at(s, first + 701, buf) && bl_page_is_zero(buf));
        assert_int_equal(s->ops->look(s, first + 4 * 512 - 1, 514, l), 0);
        for (size_t i = 0; i < 514; i++)
                assert_int_equal(l[i].state, i == 0 || i == 513 ? BL_PAGE_ABSENT : BL_PAGE_KERNEL_ZERO);
}

/* --- swap -------------------------------------------------------------------- */

static void page_out(struct child *x, int step)
{
        if (step > 0)
                return;
        for (size_t i = 0; i < 64; i++)
                fill_page(x->ram + i * PAGE, i);
        (void)madvise(x->ram, 32 * PAGE, MADV_PAGEOUT);
}

static char swap_file[] = "/var/tmp/ballast-test-swap-XXXXXX";
static bool swap_on;

/* A small swap file for this test alone, with the header that mkswap(8) makes. */
static bool add_swap(void)
{
        static uint32_t page[BL_PAGE_SIZE / 4];
        _cleanup_close_ int fd = mkstemp(swap_file);
        const uint32_t n = 1024;

        page[256] = 1; /* version */
        page[257] = n - 1; /* last page */
        memcpy((char *)page + BL_PAGE_SIZE - 10, "SWAPSPACE2", 10);
        for (uint32_t i = 0; i < n; i++) {
                if (write(fd, page, PAGE) != (ssize_t)PAGE)
                        return false;
                memset(page, 0, sizeof page);
        }
        swap_on = fsync(fd) == 0 && swapon(swap_file, 0) == 0;
        return swap_on;
}

static int remove_swap(void **state)
{
        int r = teardown(state);

        if (swap_on)
                (void)swapoff(swap_file);
        (void)unlink(swap_file);
        return r;
}

static void test_swapped(void **state)
{
        static uint64_t before[64], after[64];
        static unsigned char buf[64 * BL_PAGE_SIZE];
        _cleanup_(bl_source_freep) struct bl_source *s = NULL;
        struct bl_page_look l[64];
        uint64_t first, pages[64];
        unsigned out = 0;
        bool ok[64];

        (void)state;
        if (geteuid() != 0 || !add_swap())
                skip();
        child_start(&c, NULL, page_out);
        read_pagemap(&c, before, 64);
        for (size_t i = 0; i < 64; i++)
                out += before[i] >> 62 & 1;
        assert_true(out > 0);
        s = source_of(c.pid, RAM);
        first = page_at(c.pid, RAM, c.ram);
        assert_int_equal(s->ops->look(s, first, 64, l), 0);
        for (size_t i = 0; i < 64; i++)
                pages[i] = first + i;
        assert_int_equal(s->ops->read(s, pages, 64, buf, ok), 0);
        read_pagemap(&c, after, 64);
        for (size_t i = 0; i < 64; i++) {
                const bool swapped = before[i] >> 62 & 1;

                assert_int_equal(l[i].state, swapped ? BL_PAGE_SWAPPED : BL_PAGE_PRESENT);
                assert_int_equal(ok[i], !swapped);
                assert_true(swapped || is_page(buf + i * PAGE, i));
                assert_int_equal(after[i] >> 62, before[i] >> 62);
        }
}

/* --- pages that processes share ----------------------------------------------- */

static void fork_at_once(struct child *x, int step)
{
        int written[2];
        char done = 0;

        if (step > 0 || pipe(written) < 0)
                return;
        for (size_t i = 0; i < 16; i++)
                fill_page(x->ram + i * PAGE, i);
        /* the grandchild writes to one page, and ends with its parent */
        if (fork() == 0) {
                (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
                fill_page(x->ram + 3 * PAGE, 1003);
                fill_page(x->ram + 15 * PAGE, 0);
                for (ssize_t n = write(written[1], &done, 1); n >= 0;)
                        (void)pause();
                _exit(1);
        }
        assert_int_equal(read(written[0], &done, 1), 1);
}

/* They are one physical page, and reading leaves them so.  process_vm_readv(2) would copy them. */
static void test_forked(void **state)
{
        static uint64_t before[16], after[16];
        static unsigned char buf[16 * BL_PAGE_SIZE];
        _cleanup_(bl_source_freep) struct bl_source *s = NULL;
        struct bl_page_look l[16];
        uint64_t first, pages[16];
        bool ok[16];

        (void)state;
        child_start(&c, NULL, fork_at_once);
        s = source_of(c.pid, 0);
        skip_if(s->blind, &s);
        first = page_at(c.pid, 0, c.ram);
        read_pagemap(&c, before, 16);
        assert_int_equal(s->ops->look(s, first, 16, l), 0);
        for (size_t i = 0; i < 16; i++) {
                const bool apart = i == 3 || i == 15;

                assert_int_equal(l[i].state, apart ? BL_PAGE_PRESENT : BL_PAGE_MERGED);
                assert_int_equal(l[i].relative, !apart);
                assert_int_equal(l[i].frame, apart ? 0 : before[i] & ((UINT64_C(1) << 55) - 1));
                pages[i] = first + i;
        }
        assert_int_equal(s->ops->read(s, pages, 16, buf, ok), 0);
        for (size_t i = 0; i < 16; i++)
                assert_true(ok[i] && is_page(buf + i * PAGE, i));
        read_pagemap(&c, after, 16);
        assert_memory_equal(before, after, sizeof before);
}

static void share_memory(struct child *x, int step)
{
        if (step > 0)
                return;
        (void)munmap(x->ram, RAM);
        (void)mmap(x->ram, RAM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        fill_page(x->ram, 0);
        fill_page(x->ram + 64 * PAGE, 64);
        /* a fault maps what is around it, too */
        if (fork() == 0) {
                (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
                (void)*(volatile unsigned char *)x->ram;
                x->ram[128 * PAGE] = 1;
                for (;;)
                        (void)pause();
        }
        while (*(volatile unsigned char *)(x->ram + 128 * PAGE) == 0)
                ;
}

static void test_shared_memory(void **state)
{
        _cleanup_(bl_source_freep) struct bl_source *s = NULL, *vm = NULL;
        unsigned char buf[BL_PAGE_SIZE];
        struct bl_page_look l;
        uint64_t first;

        (void)state;
        child_start(&c, NULL, share_memory);
        s = source_of(c.pid, 0);
        skip_if(s->blind, &s);
        assert_true(s->shared_bytes >= RAM);
        first = page_at(c.pid, 0, c.ram);
        l = look_at(s, first);
        assert_int_equal(l.state, BL_PAGE_MERGED);
        assert_true(l.relative && l.frame);
        assert_true(read_at(s, first, buf) && is_page(buf, 0));
        assert_int_equal(look_at(s, first + 64).state, BL_PAGE_PRESENT);
        /* guest RAM counts whoever else maps it */
        vm = source_of(c.pid, RAM);
        assert_int_equal(look_at(vm, page_at(c.pid, RAM, c.ram)).state, BL_PAGE_PRESENT);
        assert_true(vm->shared_bytes >= RAM);
}

static void map_memfd(struct child *x, int step)
{
        int fd;

        if (step > 0)
                return;
        fd = memfd_create("memory-backend-memfd", MFD_CLOEXEC);
        if (ftruncate(fd, (off_t)RAM) < 0)
                _exit(1);
        (void)mmap(x->ram, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0);
        (void)*(volatile unsigned char *)x->ram;
        fill_page(x->ram + PAGE, 1);
}

/* A page of the file that was only read takes memory, and holds zeros. */
static void test_private_memfd(void **state)
{
        _cleanup_(bl_source_freep) struct bl_source *s = NULL, *any = NULL;
        unsigned char buf[BL_PAGE_SIZE];
        uint64_t first;

        (void)state;
        child_start(&c, NULL, map_memfd);
        s = source_of(c.pid, RAM);
        assert_int_equal(s->shared_bytes, 0);
        first = page_at(c.pid, RAM, c.ram);
        assert_int_equal(look_at(s, first).state, BL_PAGE_PRESENT);
        assert_true(read_at(s, first, buf) && bl_page_is_zero(buf));
        assert_int_equal(look_at(s, first + 1).state, BL_PAGE_PRESENT);
        assert_true(read_at(s, first + 1, buf) && is_page(buf, 1));
        assert_int_equal(look_at(s, first + 100).state, BL_PAGE_ABSENT);
        any = source_of(c.pid, 0);
        assert_int_equal(look_at(any, page_at(c.pid, 0, c.ram)).state, BL_PAGE_PRESENT);
}

static void map_file(struct child *x, int step)
{
        char name[] = "/var/tmp/ballast-test-XXXXXX";
        int fd;

        if (step > 0)
                return;
        fd = mkstemp(name);
        (void)unlink(name);
        for (uint64_t i = 0; i < 16; i++) {
                unsigned char page[BL_PAGE_SIZE];

                fill_page(page, i);
                if (write(fd, page, PAGE) != (ssize_t)PAGE)
                        _exit(1);
        }
        (void)mmap(x->ram, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0);
        (void)*(volatile unsigned char *)(x->ram + PAGE);
        x->ram[2 * PAGE] = 1;
}

/* Of a file on disk only the process's own copies are its memory. */
static void test_private_file(void **state)
{
        _cleanup_(bl_source_freep) struct bl_source *s = NULL;
        struct statfs fs;
        uint64_t first;

        (void)state;
        if (statfs("/var/tmp", &fs) < 0 || fs.f_type == TMPFS_MAGIC)
                skip();
        child_start(&c, NULL, map_file);
        s = source_of(c.pid, 0);
        first = page_at(c.pid, 0, c.ram);
        assert_int_equal(look_at(s, first).state, BL_PAGE_ABSENT);
        assert_int_equal(look_at(s, first + 1).state, BL_PAGE_ABSENT);
        assert_int_equal(look_at(s, first + 2).state, BL_PAGE_PRESENT);
}

/* --- reading ------------------------------------------------------------------- */

static void fill_all(struct child *x, int step)
{
        if (step == 0)
                for (size_t i = 0; i < PAGES; i++)
                        fill_page(x->ram + i * PAGE, i);
        /* within a run of neighbours: one page that is there, and cannot be read; two that go */
        if (step == 1)
                (void)mprotect(x->ram + 100 * PAGE, PAGE, PROT_NONE);
        if (step == 2)
                (void)munmap(x->ram + 200 * PAGE, 2 * PAGE);
}

/* More ranges than one call takes. */
static void test_scattered(void **state)
{
        const size_t n = PAGES / 2;
        _cleanup_free_ unsigned char *buf = malloc(n * PAGE);
        _cleanup_free_ uint64_t *pages = calloc(n, sizeof *pages);
        _cleanup_free_ bool *ok = calloc(n, sizeof *ok);
        _cleanup_(bl_source_freep) struct bl_source *s = NULL;
        uint64_t first;

        (void)state;
        child_start(&c, NULL, fill_all);
        s = source_of(c.pid, RAM);
        first = page_at(c.pid, RAM, c.ram);
        for (size_t i = 0; i < n; i++)
                pages[i] = first + 2 * i + (i % 7 == 0);
        assert_int_equal(s->ops->read(s, pages, n, buf, ok), 0);
        for (size_t i = 0; i < n; i++)
                assert_true(ok[i] && is_page(buf + i * PAGE, pages[i] - first));
}

static void test_bad_pages(void **state)
{
        _cleanup_free_ unsigned char *buf = malloc(400 * PAGE);
        _cleanup_(bl_source_freep) struct bl_source *s = NULL;
        uint64_t first, pages[400];
        uint64_t count;
        bool ok[400];

        (void)state;
        child_start(&c, NULL, fill_all);
        s = source_of(c.pid, 0);
        first = page_at(c.pid, 0, c.ram);
        for (size_t i = 0; i < 400; i++)
                pages[i] = first + i;
        child_step(&c);
        child_step(&c);
        assert_int_equal(s->ops->read(s, pages, 400, buf, ok), 0);
        for (size_t i = 0; i < 400; i++) {
                assert_int_equal(ok[i], i != 100 && i != 200 && i != 201);
                assert_true(!ok[i] || is_page(buf + i * PAGE, i));
        }
        /* what is unmapped is absent, and all others keep their numbers */
        assert_int_equal(look_at(s, first + 200).state, BL_PAGE_ABSENT);
        count = s->n_pages;
        assert_int_equal(s->ops->again(s), 0);
        assert_int_equal(s->n_pages, count);
        assert_true(read_at(s, first + 300, buf));
        assert_true(is_page(buf, 300));
        /* numbers that there are not */
        assert_int_equal(look_at(s, count).state, BL_PAGE_ABSENT);
        assert_false(read_at(s, count, buf));
}

static void give_back(struct child *x, int step)
{
        for (size_t i = 0; i < 8 && step == 0; i++)
                fill_page(x->ram + i * PAGE, i);
        if (step == 1)
                (void)madvise(x->ram + 3 * PAGE, PAGE, MADV_DONTNEED);
}

/* A look is no promise: what went since is not brought back. */
static void test_gone_since_look(void **state)
{
        _cleanup_(bl_source_freep) struct bl_source *s = NULL;
        static unsigned char buf[8 * BL_PAGE_SIZE];
        struct bl_page_look l[8];
        uint64_t first, pages[8], entry[8];
        bool ok[8];

        (void)state;
        child_start(&c, NULL, give_back);
        s = source_of(c.pid, RAM);
        first = page_at(c.pid, RAM, c.ram);
        assert_int_equal(s->ops->look(s, first, 8, l), 0);
        for (size_t i = 0; i < 8; i++) {
                assert_int_equal(l[i].state, BL_PAGE_PRESENT);
                pages[i] = first + i;
        }
        child_step(&c);
        (void)usleep(20 * 1000);
        assert_int_equal(s->ops->read(s, pages, 8, buf, ok), 0);
        read_pagemap(&c, entry, 8);
        for (size_t i = 0; i < 8; i++) {
                assert_int_equal(ok[i], i != 3);
                assert_true(!ok[i] || is_page(buf + i * PAGE, i));
                assert_int_equal(entry[i] >> 63, i != 3);
        }
}

/* --- KSM ------------------------------------------------------------------------ */

static void merge_all(struct child *x, int step)
{
        if (step > 0)
                return;
        /* 64 contents, each in 4 places; 64 more that are alone; zeros that were written */
        for (size_t i = 0; i < 256; i++)
                fill_page(x->ram + i * PAGE, i % 64);
        for (size_t i = 256; i < 320; i++)
                fill_page(x->ram + i * PAGE, i);
        memset(x->ram + 320 * PAGE, 0, PAGE);
        (void)madvise(x->ram, RAM, MADV_MERGEABLE);
}

#define KSM "/sys/kernel/mm/ksm/"
static const char *const knobs[] = {KSM "sleep_millisecs", KSM "pages_to_scan", KSM "smart_scan", KSM "use_zero_pages",
                                    KSM "run"};
static char saved[N(knobs)][32];
static bool saved_knobs;
static int ksm_lock = -1;

static void set_knob(const char *path, const char *value)
{
        _cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);

        /* not every kernel has each */
        if (fd >= 0 && write(fd, value, strlen(value)) < 0)
                print_message("%s: %s\n", path, strerror(errno));
}

static bool drive_ksm(void)
{
        static const char *const fast[] = {"1", "5000", "0", "0", "1"};

        if (access(KSM "run", W_OK) < 0)
                return false;
        /* one KSM for all tests of the machine */
        ksm_lock = open("/tmp/ksm.lock", O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        for (int i = 0; ksm_lock < 0 || flock(ksm_lock, LOCK_EX | LOCK_NB) < 0; i++) {
                if (i == 1200)
                        return false;
                (void)usleep(50 * 1000);
        }
        for (size_t i = 0; i < N(knobs); i++)
                if (bl_fs_read(NULL, knobs[i], saved[i], sizeof saved[i]) < 0)
                        saved[i][0] = '\0';
        saved_knobs = true;
        for (size_t i = 0; i < N(knobs); i++)
                set_knob(knobs[i], fast[i]);
        return true;
}

static int restore_ksm(void **state)
{
        for (size_t i = 0; i < N(knobs) && saved_knobs; i++)
                set_knob(knobs[i], saved[i]);
        saved_knobs = false;
        bl_closep(&ksm_lock);
        ksm_lock = -1;
        return teardown(state);
}

static unsigned count_merged(struct bl_source *s, uint64_t first, struct bl_page_look *ret)
{
        unsigned n = 0;

        assert_int_equal(s->ops->look(s, first, 321, ret), 0);
        for (size_t i = 0; i < 321; i++)
                n += ret[i].state == BL_PAGE_MERGED && !ret[i].relative;
        return n;
}

static bool wait_merged(struct bl_source *s, uint64_t first, unsigned n, struct bl_page_look *ret)
{
        /* two passes of ksmd, over whatever else is mergeable on the machine */
        for (int i = 0; i < 1600; i++) {
                if (count_merged(s, first, ret) >= n)
                        return true;
                (void)usleep(50 * 1000);
        }
        return false;
}

static void test_merged(void **state)
{
        static struct bl_page_look l[321];
        static unsigned char buf[321 * BL_PAGE_SIZE];
        static uint64_t before[321], after[321];
        _cleanup_(bl_source_freep) struct bl_source *s = NULL;
        const struct iovec local = {.iov_base = buf, .iov_len = PAGE};
        struct iovec remote;
        uint64_t first, pages[321];
        bool ok[321];

        (void)state;
        child_start(&c, NULL, merge_all);
        s = source_of(c.pid, RAM);
        first = page_at(c.pid, RAM, c.ram);
        assert_int_equal(count_merged(s, first, l), 0);
        skip_if(s->blind || !drive_ksm(), &s);
        assert_true(wait_merged(s, first, 256, l));
        /* nothing more is merged while this looks */
        set_knob(KSM "run", "0");
        for (size_t i = 0; i < 256; i++) {
                assert_int_equal(l[i].state, BL_PAGE_MERGED);
                assert_true(l[i].frame != 0);
                for (size_t k = 0; k < i; k++)
                        assert_int_equal(l[i].frame == l[k].frame, i % 64 == k % 64);
        }
        /* (the zeros may have found others elsewhere on the machine) */
        for (size_t i = 256; i < 320; i++)
                assert_int_equal(l[i].state, BL_PAGE_PRESENT);
        /* reading gives the bytes, and leaves them merged */
        read_pagemap(&c, before, 321);
        for (size_t i = 0; i < 321; i++)
                pages[i] = first + i;
        assert_int_equal(s->ops->read(s, pages, 321, buf, ok), 0);
        for (size_t i = 0; i < 320; i++)
                assert_true(ok[i] && is_page(buf + i * PAGE, i < 256 ? i % 64 : i));
        assert_true(ok[320] && bl_page_is_zero(buf + 320 * PAGE));
        read_pagemap(&c, after, 321);
        assert_memory_equal(before, after, sizeof before);
        /* that is what /proc/PID/mem is for: since Linux 5.19 the other call un-merges */
        remote = (struct iovec){.iov_base = c.ram, .iov_len = PAGE};
        assert_int_equal(process_vm_readv(c.pid, &local, 1, &remote, 1, 0), PAGE);
        assert_int_equal(look_at(s, first).state, BL_PAGE_PRESENT);
        assert_int_equal(look_at(s, first + 64).state, BL_PAGE_MERGED);
}

static void test_merged_zero_pages(void **state)
{
        static struct bl_page_look l[321];
        _cleanup_(bl_source_freep) struct bl_source *s = NULL;
        uint64_t first;

        (void)state;
        child_start(&c, NULL, merge_all);
        s = source_of(c.pid, RAM);
        first = page_at(c.pid, RAM, c.ram);
        skip_if(s->blind || access(KSM "use_zero_pages", W_OK) < 0 || !drive_ksm(), &s);
        set_knob(KSM "use_zero_pages", "1");
        assert_true(wait_merged(s, first, 256, l));
        for (int i = 0; i < 200 && look_at(s, first + 320).state != BL_PAGE_KERNEL_ZERO; i++)
                (void)usleep(50 * 1000);
        /* merged with the kernel's own zero page: it costs nothing now */
        assert_int_equal(look_at(s, first + 320).state, BL_PAGE_KERNEL_ZERO);
}

/* --- life and death ---------------------------------------------------------------- */

static uint64_t start_of(pid_t pid)
{
        char path[32], text[2048];
        const char *p;
        uint64_t start;

        (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
        assert_true(bl_fs_read(NULL, path, text, sizeof text) > 0);
        p = strrchr(text, ')');
        assert_non_null(p);
        for (int field = 2; field < 22; field++)
                p = strchr(p + 1, ' ');
        start = strtoull(p + 1, NULL, 10);
        return start;
}

#define REFUSED(want, part, ...)                                   \
        do {                                                       \
                struct bl_source *_s = NULL;                       \
                char *_m = NULL;                                   \
                                                                   \
                assert_int_equal(bl_source_##__VA_ARGS__, (want)); \
                assert_null(_s);                                   \
                assert_non_null(_m);                               \
                if (!strstr(_m, (part)))                           \
                        fail_msg("\"%s\"", _m);                    \
                free(_m);                                          \
        } while (0)

static _Atomic(pid_t) tid;

static void *wait_for_end(void *fd)
{
        char b;

        tid = gettid();
        return read(*(int *)fd, &b, 1) == 0 ? fd : NULL;
}

static void test_no_such_process(void **state)
{
        pthread_t thread;
        uint64_t start;
        int ends[2];
        pid_t pid;

        (void)state;
        child_start(&c, NULL, touch_some);
        pid = c.pid;
        start = start_of(pid);
        {
                _cleanup_(bl_source_freep) struct bl_source *s = NULL;
                _cleanup_free_ char *message = NULL;

                assert_int_equal(bl_source_process(pid, start, 0, NULL, &s, &message), 0);
                assert_non_null(strstr(s->name, "(test-source-pro"));
        }
        REFUSED(-ESRCH, "another process's", process(pid, start + 1, 0, NULL, &_s, &_m));
        REFUSED(-ESRCH, "no process", process(0, 0, 0, NULL, &_s, &_m));
        REFUSED(-ESRCH, "no process", process(-1, 0, 0, NULL, &_s, &_m));
        REFUSED(-ESRCH, "no process", process(0x7ffffff0, 0, 0, NULL, &_s, &_m));
        REFUSED(-ENODATA, "guest memory", process(pid, 0, BL_GIB << 30, NULL, &_s, &_m));
        assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
        assert_int_equal(pthread_create(&thread, NULL, wait_for_end, &ends[0]), 0);
        while (tid == 0)
                (void)usleep(1000);
        REFUSED(-ESRCH, "thread", process(tid, 0, 0, NULL, &_s, &_m));
        (void)close(ends[1]);
        assert_int_equal(pthread_join(thread, NULL), 0);
        (void)close(ends[0]);
        /* a zombie */
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitid(P_PID, (id_t)pid, &(siginfo_t){0}, WEXITED | WNOWAIT), 0);
        REFUSED(-ESRCH, "has ended", process(pid, 0, 0, NULL, &_s, &_m));
}

static void test_kernel_thread(void **state)
{
        char comm[32];

        (void)state;
        if (bl_fs_read(NULL, "/proc/2/comm", comm, sizeof comm) < 0 || strcmp(comm, "kthreadd\n") != 0)
                skip();
        REFUSED(-ENODATA, "kernel thread", process(2, 0, 0, NULL, &_s, &_m));
}

static void expect_gone(struct bl_source *s, uint64_t page)
{
        unsigned char buf[BL_PAGE_SIZE];
        struct bl_page_look l;
        bool ok;

        assert_int_equal(s->ops->look(s, page, 1, &l), -ESRCH);
        assert_int_equal(s->ops->read(s, &page, 1, buf, &ok), -ESRCH);
        assert_int_equal(s->ops->again(s), -ESRCH);
}

static void test_dies(void **state)
{
        _cleanup_(bl_source_freep) struct bl_source *s = NULL;
        uint64_t first;

        (void)state;
        child_start(&c, NULL, touch_some);
        s = source_of(c.pid, RAM);
        first = page_at(c.pid, RAM, c.ram);
        assert_int_equal(look_at(s, first + 3).state, BL_PAGE_PRESENT);
        assert_int_equal(kill(c.pid, SIGKILL), 0);
        /* as a zombie, and when it is gone */
        assert_int_equal(waitid(P_PID, (id_t)c.pid, &(siginfo_t){0}, WEXITED | WNOWAIT), 0);
        expect_gone(s, first + 3);
        child_end(&c);
        expect_gone(s, first + 3);
}

static void exec_cat(struct child *x, int step)
{
        if (step == 0)
                fill_page(x->ram, 0);
        if (step == 1) {
                (void)dup2(x->sock, 0);
                (void)dup2(x->sock, 1);
                (void)execlp("cat", "cat", (char *)NULL);
                _exit(1);
        }
}

/* Another program in the same process: its number and start time are what they were. */
static void test_exec(void **state)
{
        _cleanup_(bl_source_freep) struct bl_source *s = NULL;
        unsigned char buf[BL_PAGE_SIZE];
        struct bl_page_look l;
        uint64_t first;
        bool ok;

        (void)state;
        child_start(&c, NULL, exec_cat);
        s = source_of(c.pid, RAM);
        first = page_at(c.pid, RAM, c.ram);
        /* cat says what it is told */
        assert_int_equal(write(c.sock, "go", 2), 2);
        assert_int_equal(read(c.sock, buf, 1), 1);
        assert_int_equal(s->ops->look(s, first, 1, &l), -ESRCH);
        assert_int_equal(s->ops->read(s, &first, 1, buf, &ok), -ESRCH);
}

static void test_stopped(void **state)
{
        _cleanup_(bl_source_freep) struct bl_source *s = NULL;

        (void)state;
        child_start(&c, NULL, touch_some);
        assert_int_equal(kill(c.pid, SIGSTOP), 0);
        assert_int_equal(waitpid(c.pid, NULL, WUNTRACED), c.pid);
        s = source_of(c.pid, RAM);
        assert_true(s->still);
}

/* --- rights ------------------------------------------------------------------------- */

/* As nobody; what of the test failed is the exit status. */
static int as_nobody(int (*f)(void))
{
        int status;
        pid_t pid;

        (void)fflush(NULL);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                const gid_t none = 65534;

                if (setgroups(0, NULL) < 0 || setresgid(none, none, none) < 0 || setresuid(none, none, none) < 0)
                        _exit(100);
                /* as if it had been started so: its /proc is its own */
                (void)prctl(PR_SET_DUMPABLE, 1);
                _exit(f());
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        return WEXITSTATUS(status);
}

static int scan_roots(void)
{
        struct bl_source *s = NULL;
        char *message = NULL;
        int r = bl_source_process(c.pid, 0, RAM, NULL, &s, &message);

        if (r != -EACCES && r != -EPERM)
                return 1;
        return s == NULL && message && strstr(message, "as root") && strstr(message, "test-source-pro") ? 0 : 2;
}

static int scan_own(void)
{
        struct bl_source *s = NULL;
        char *message = NULL;
        uint64_t first;
        unsigned char buf[BL_PAGE_SIZE];

        child_start(&c2, NULL, touch_some);
        if (kill(c2.pid, 0) < 0)
                return 1;
        if (bl_source_process(c2.pid, 0, RAM, NULL, &s, &message) < 0)
                return 2;
        if (!s->blind)
                return 3;
        first = page_at(c2.pid, RAM, c2.ram);
        /* the kernel's zero page is not told from others */
        if (look_at(s, first).state != BL_PAGE_ABSENT || look_at(s, first + 1).state != BL_PAGE_PRESENT ||
            look_at(s, first + 3).state != BL_PAGE_PRESENT)
                return 4;
        return read_at(s, first + 3, buf) && is_page(buf, 3) ? 0 : 5;
}

static void test_rights(void **state)
{
        (void)state;
        if (geteuid() != 0)
                skip();
        child_start(&c, NULL, touch_some);
        assert_int_equal(as_nobody(scan_roots), 0);
}

static void test_blind(void **state)
{
        (void)state;
        if (geteuid() != 0)
                skip();
        assert_int_equal(as_nobody(scan_own), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_states, teardown),
                cmocka_unit_test_teardown(test_untouched, teardown),
                cmocka_unit_test_teardown(test_huge, teardown),
                cmocka_unit_test_teardown(test_swapped, remove_swap),
                cmocka_unit_test_teardown(test_forked, teardown),
                cmocka_unit_test_teardown(test_shared_memory, teardown),
                cmocka_unit_test_teardown(test_private_memfd, teardown),
                cmocka_unit_test_teardown(test_private_file, teardown),
                cmocka_unit_test_teardown(test_scattered, teardown),
                cmocka_unit_test_teardown(test_bad_pages, teardown),
                cmocka_unit_test_teardown(test_gone_since_look, teardown),
                cmocka_unit_test_teardown(test_merged, restore_ksm),
                cmocka_unit_test_teardown(test_merged_zero_pages, restore_ksm),
                cmocka_unit_test_teardown(test_no_such_process, teardown),
                cmocka_unit_test_teardown(test_kernel_thread, teardown),
                cmocka_unit_test_teardown(test_dies, teardown),
                cmocka_unit_test_teardown(test_exec, teardown),
                cmocka_unit_test_teardown(test_stopped, teardown),
                cmocka_unit_test_teardown(test_rights, teardown),
                cmocka_unit_test_teardown(test_blind, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
