/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* On real processes: what goes is what is zero twice, where it is worth it, and no byte changes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/act/zero_pages.h"
#include "daemon/util/clock.h"
#include "daemon/util/fs.h"

#define BLOCK   512U
#define BLOCKS  32U /* 64 MiB */
#define PAGES   (BLOCKS * BLOCK)
#define FOREVER (60 * BL_SEC)

static const atomic_bool go_on;

/* --- a process with memory ------------------------------------------------------------ */

/* How many pages of each 2 MiB are zeros; spread over it. */
typedef unsigned layout_t[BLOCKS];

static struct {
        uint8_t *ram;
        pid_t pid;
        int ask, answer; /* pipes */
        struct bl_source *source;
        uint64_t base; /* the source's number of our first page */
} p;

static bool is_zero(const layout_t zeros, unsigned page)
{
        return (page % BLOCK) * 167U % BLOCK < zeros[page / BLOCK];
}

static void fill(unsigned page)
{
        uint64_t *w = (uint64_t *)(void *)(p.ram + (size_t)page * BL_PAGE_SIZE);

        for (unsigned i = 0; i < BLOCK; i++)
                w[i] = ((uint64_t)page + 1) * 0x9e3779b97f4a7c15U + i;
}

/* How many pages are not as they were made. */
static unsigned wrong(const layout_t zeros)
{
        unsigned n = 0;

        for (unsigned page = 0; page < PAGES; page++) {
                const uint64_t *w = (const uint64_t *)(const void *)(p.ram + (size_t)page * BL_PAGE_SIZE);
                bool bad = false;

                for (unsigned i = 0; i < BLOCK; i++)
                        bad = bad ||
                              w[i] != (is_zero(zeros, page) ? 0 : ((uint64_t)page + 1) * 0x9e3779b97f4a7c15U + i);
                n += bad;
        }
        return n;
}

/* 'w' writes to the zero pages of the first 2 MiB, 'v' verifies. */
static void live(const layout_t zeros, bool huge, int ask, int answer)
{
        layout_t now;
        char c = 'x';

        memcpy(now, zeros, sizeof now);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)madvise(p.ram, (size_t)PAGES * BL_PAGE_SIZE, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
        for (unsigned page = 0; page < PAGES; page++)
                if (is_zero(now, page))
                        memset(p.ram + (size_t)page * BL_PAGE_SIZE, 0, BL_PAGE_SIZE);
                else
                        fill(page);
        do {
                uint32_t n = 0;

                if (c == 'w') {
                        for (unsigned page = 0; page < BLOCK; page++)
                                fill(page);
                        now[0] = 0;
                } else if (c == 'v') {
                        n = wrong(now);
                }
                (void)!write(answer, &n, sizeof n);
        } while (read(ask, &c, 1) == 1);
        _exit(0);
}

static uint32_t tell(char what)
{
        uint32_t n = UINT32_MAX;

        assert_int_equal(write(p.ask, &what, 1), 1);
        assert_int_equal(read(p.answer, &n, sizeof n), sizeof n);
        return n;
}

/* From a page of the source to the next that might be our first. */
static uint64_t skip_to(uint64_t page)
{
        const uint64_t address = bl_source_process_address(p.source, page);
        uint64_t step = 1;

        while (page + 2 * step < p.source->n_pages &&
               bl_source_process_address(p.source, page + 2 * step) == address + 2 * step * BL_PAGE_SIZE)
                step *= 2;
        return step;
}

static void begin(const layout_t zeros, bool huge)
{
        char *message = NULL;
        uint8_t *raw;
        int to[2], from[2];
        uint32_t n;

        /* memory of another process is read, and swap set up */
        if (geteuid() != 0)
                skip();
#ifdef __SANITIZE_THREAD__
        /* its own mappings are more than a guest has */
        skip();
#endif
        /* at 2 MiB, as VMMs have it, and with nothing beside it */
        raw = mmap(NULL, ((size_t)PAGES + 2 * BLOCK) * BL_PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_ptr_not_equal(raw, MAP_FAILED);
        p.ram = raw + (-(uintptr_t)raw & (2 * BL_MIB - 1));
        if (p.ram == raw)
                p.ram += 2 * BL_MIB;
        assert_int_equal(mprotect(p.ram, (size_t)PAGES * BL_PAGE_SIZE, PROT_READ | PROT_WRITE), 0);
        assert_int_equal(pipe2(to, O_CLOEXEC), 0);
        assert_int_equal(pipe2(from, O_CLOEXEC), 0);
        p.pid = fork();
        if (p.pid == 0)
                live(zeros, huge, to[0], from[1]);
        close(to[0]);
        close(from[1]);
        p.ask = to[1];
        p.answer = from[0];
        assert_int_equal(read(p.answer, &n, sizeof n), sizeof n);
        if (bl_source_process(p.pid, 0, (uint64_t)PAGES * BL_PAGE_SIZE, "guest", &p.source, &message) < 0)
                fail_msg("%s", message);
        /* a sanitizer has large mappings of its own beside it */
        while (p.base < p.source->n_pages && bl_source_process_address(p.source, p.base) != (uintptr_t)p.ram)
                p.base += skip_to(p.base);
        assert_true(p.base + PAGES <= p.source->n_pages);
}

static int setup(void **state)
{
        (void)state;
        memset(&p, 0, sizeof p);
        p.ask = p.answer = -1;
        return 0;
}

static int teardown(void **state)
{
        (void)state;
        p.source = bl_source_free(p.source);
        if (p.pid > 0) {
                (void)kill(p.pid, SIGKILL);
                (void)waitpid(p.pid, NULL, 0);
        }
        if (p.ask >= 0)
                close(p.ask);
        if (p.answer >= 0)
                close(p.answer);
        if (p.ram)
                munmap(p.ram, (size_t)PAGES * BL_PAGE_SIZE);
        return 0;
}

struct states {
        unsigned present, swapped, absent, kernel_zero;
};

static struct states states_of(unsigned first, unsigned n)
{
        struct bl_page_look look[BLOCK];
        struct states s = {0};

        for (unsigned i = 0; i < n; i += BLOCK) {
                assert_int_equal(p.source->ops->look(p.source, p.base + first + i, BLOCK, look), 0);
                for (unsigned k = 0; k < BLOCK; k++) {
                        s.present += look[k].state == BL_PAGE_PRESENT;
                        s.swapped += look[k].state == BL_PAGE_SWAPPED;
                        s.absent += look[k].state == BL_PAGE_ABSENT;
                        s.kernel_zero += look[k].state == BL_PAGE_KERNEL_ZERO;
                }
        }
        return s;
}

static struct bl_zero_result out(uint64_t first, uint64_t pages, uint64_t bytes)
{
        struct bl_zero_result r;

        bl_zero_pages_out(p.source, p.base + first, pages, bytes, FOREVER, BL_WHOLE, 20 * BL_MSEC, &go_on, &r);
        return r;
}

/* --- swap ---------------------------------------------------------------------------------- */

static char swap_device[32];
static int swap_alive = -1; /* its keeper sees by this when we are done, or dead */
static pid_t swap_keeper;

static void write_to(const char *path, const char *text)
{
        FILE *f = fopen(path, "we");

        if (f) {
                (void)fputs(text, f);
                (void)fclose(f);
        }
}

/* Takes it away again, whatever becomes of the test. */
static void keep_swap(int alive)
{
        const char *name = swap_device + strlen("/dev/");
        char path[64], c;
        bool failed;

        while (read(alive, &c, 1) > 0)
                ;
        snprintf(path, sizeof path, "/sys/block/%s/reset", name);
        failed = swapoff(swap_device) < 0;
        write_to(path, "1");
        write_to("/sys/class/zram-control/hot_remove", name + strlen("zram"));
        _exit(failed);
}

/* A small zram of our own. */
static int swap_on(void **state)
{
        char n[16], text[256];
        int alive[2];

        setup(state);
        swap_device[0] = '\0';
        if (bl_fs_read(NULL, "/sys/class/zram-control/hot_add", n, sizeof n) <= 0)
                return 0;
        n[strcspn(n, "\n")] = '\0';
        snprintf(swap_device, sizeof swap_device, "/dev/zram%s", n);
        assert_int_equal(pipe2(alive, O_CLOEXEC), 0);
        swap_keeper = fork();
        if (swap_keeper == 0) {
                close(alive[1]);
                (void)setsid();
                keep_swap(alive[0]);
        }
        close(alive[0]);
        swap_alive = alive[1];
        snprintf(text, sizeof text, "/sys/block/zram%s/disksize", n);
        write_to(text, "128M");
        snprintf(text, sizeof text, "mkswap %s >/dev/null 2>&1", swap_device);
        assert_int_equal(system(text), 0);
        assert_int_equal(swapon(swap_device, 0), 0);
        return 0;
}

static int swap_off(void **state)
{
        int r = teardown(state), status;

        if (!swap_device[0])
                return r;
        close(swap_alive);
        return waitpid(swap_keeper, &status, 0) == swap_keeper && status == 0 ? r : -1;
}

static bool host_has_swap(void)
{
        char text[4096];

        return bl_fs_read(NULL, "/proc/swaps", text, sizeof text) > 0 && strchr(text, '\n') &&
               strchr(text, '\n')[1] != '\0';
}

/* --- what goes -------------------------------------------------------------------------------- */

static void test_small_pages(void **state)
{
        const layout_t zeros = {[0] = 512, [1] = BL_ZERO_WORTH, [2] = BL_ZERO_WORTH + 1, [3] = 300, [9] = 1};
        struct bl_zero_result r;

        (void)state;
        if (!swap_device[0])
                skip();
        begin(zeros, false);
        assert_int_equal(states_of(0, PAGES).present, PAGES);
        r = out(0, PAGES, UINT64_MAX);
        assert_int_equal(r.error, 0);
        assert_int_equal(r.looked, PAGES);
        assert_int_equal(r.zero, 512 + 65 + 300);
        assert_int_equal(r.out, 512 + 65 + 300);
        assert_int_equal(states_of(0, BLOCK).present, 0);
        /* khugepaged would bring these back */
        assert_int_equal(states_of(BLOCK, BLOCK).present, BLOCK);
        assert_int_equal(states_of(2 * BLOCK, BLOCK).present, BLOCK - 65);
        assert_int_equal(states_of(3 * BLOCK, BLOCK).present, BLOCK - 300);
        assert_int_equal(states_of(0, PAGES).present, PAGES - (512 + 65 + 300));
        /* what is out is not read again */
        r = out(0, PAGES, UINT64_MAX);
        assert_int_equal(r.error, 0);
        assert_int_equal(r.zero, 0);
        assert_int_equal(states_of(0, PAGES).present, PAGES - (512 + 65 + 300));
        assert_int_equal(tell('v'), 0);
        assert_int_equal(states_of(0, PAGES).swapped, 0);
}

static void *writer(void *unused)
{
        (void)unused;
        usleep(300 * 1000);
        (void)tell('w');
        return NULL;
}

/* Pages that are zero at the first look only. */
static void test_changing(void **state)
{
        const layout_t zeros = {[0] = 512, [1] = 200};
        struct bl_zero_result r;
        pthread_t thread;

        (void)state;
        if (!swap_device[0])
                skip();
        begin(zeros, false);
        assert_int_equal(pthread_create(&thread, NULL, writer, NULL), 0);
        bl_zero_pages_out(p.source, p.base, 2 * BLOCK, UINT64_MAX, FOREVER, BL_WHOLE, BL_SEC, &go_on, &r);
        pthread_join(thread, NULL);
        assert_int_equal(r.error, 0);
        assert_int_equal(r.zero, 200);
        assert_int_equal(r.out, 200);
        assert_int_equal(states_of(0, BLOCK).present, BLOCK);
        assert_int_equal(tell('v'), 0);
}

static bool huge_pages_of(pid_t pid)
{
        char path[64], *line = NULL;
        size_t size = 0;
        unsigned long kib = 0, one;
        FILE *f;

        snprintf(path, sizeof path, "/proc/%d/smaps", (int)pid);
        f = fopen(path, "re");
        assert_non_null(f);
        while (getline(&line, &size, f) >= 0)
                if (sscanf(line, "AnonHugePages: %lu", &one) == 1)
                        kib += one;
        free(line);
        fclose(f);
        return kib >= (unsigned long)(PAGES - 4 * BLOCK) * 4;
}

/* Huge pages are broken up where it is worth it, and their zero pages cost nothing from then on: 6.12.  Also without
 * swap. */
static void test_huge_pages(void **state)
{
        const layout_t zeros = {[8] = 400, [9] = BL_ZERO_WORTH, [10] = 511};
        struct bl_zero_result r;
        struct states s;

        (void)state;
        begin(zeros, true);
        if (!huge_pages_of(p.pid))
                skip();
        r = out(0, PAGES, UINT64_MAX);
        s = states_of(0, PAGES);
        if (s.kernel_zero == 0 && !host_has_swap()) {
                assert_int_equal(r.error, -EOPNOTSUPP);
                skip();
        }
        assert_int_equal(r.error, 0);
        assert_int_equal(r.zero, 400 + 511);
        assert_int_equal(r.out, 400 + 511);
        assert_int_equal(s.present, PAGES - (400 + 511));
        assert_int_equal(states_of(9 * BLOCK, BLOCK).present, BLOCK);
        assert_int_equal(tell('v'), 0);
}

/* --- what does not ------------------------------------------------------------------------------- */

static void test_no_swap(void **state)
{
        const layout_t zeros = {[4] = 512};
        struct bl_zero_result r;
        bool swap = host_has_swap();

        (void)state;
        begin(zeros, false);
        r = out(0, PAGES, UINT64_MAX);
        /* other tests may have swap for a while */
        if (swap || host_has_swap())
                skip();
        assert_int_equal(r.error, -EOPNOTSUPP);
        assert_int_equal(r.zero, 512);
        assert_int_equal(r.out, 0);
        assert_int_equal(tell('v'), 0);
}

static void test_bounds(void **state)
{
        layout_t zeros;
        struct bl_zero_result r;
        atomic_bool stop = true;
        usec_t at;

        (void)state;
        for (unsigned i = 0; i < BLOCKS; i++)
                zeros[i] = 256;
        begin(zeros, true);
        if (!huge_pages_of(p.pid) && !host_has_swap())
                skip();
        /* so many pages, and where to go on */
        r = out(3 * BLOCK, 2 * BLOCK, UINT64_MAX);
        if (r.error == -EOPNOTSUPP)
                skip();
        assert_int_equal(r.error, 0);
        assert_int_equal(r.looked, 2 * BLOCK);
        assert_int_equal(r.out, 2 * 256);
        assert_int_equal(r.next, p.base + 5 * BLOCK);
        assert_false(r.round);
        assert_int_equal(states_of(0, 3 * BLOCK).present, 3 * BLOCK);
        assert_int_equal(states_of(5 * BLOCK, PAGES - 5 * BLOCK).present, PAGES - 5 * BLOCK);
        /* so many bytes, in whole 2 MiB */
        r = out(5 * BLOCK, PAGES, 300 * BL_PAGE_SIZE);
        assert_int_equal(r.out, 512);
        assert_int_equal(r.next, p.base + 7 * BLOCK);
        assert_int_equal(out(5 * BLOCK, PAGES, 0).looked, 0);
        /* past the last one, where there is no other mapping */
        if (p.source->n_pages == PAGES) {
                r = out(PAGES - BLOCK, PAGES, UINT64_MAX);
                assert_int_equal(r.looked, BLOCK);
                assert_int_equal(r.next, 0);
                assert_true(r.round);
                r = out(PAGES + 5, BLOCK, UINT64_MAX);
                assert_int_equal(r.next, BLOCK);
        }
        /* stopped before it began */
        bl_zero_pages_out(p.source, p.base + 8 * BLOCK, PAGES, UINT64_MAX, FOREVER, BL_WHOLE, 0, &stop, &r);
        assert_int_equal(r.error, 0);
        assert_int_equal(r.looked, 0);
        assert_int_equal(r.next, p.base + 8 * BLOCK);
        /* no more time than that */
        at = bl_now();
        bl_zero_pages_out(p.source, p.base + 8 * BLOCK, PAGES, UINT64_MAX, 20 * BL_MSEC, BL_WHOLE, 5 * BL_MSEC, &go_on,
                          &r);
        assert_int_equal(r.error, 0);
        assert_in_range(bl_now() - at, 0, 500 * BL_MSEC);
        assert_int_equal(tell('v'), 0);
}

/* A tenth of a core takes ten times as long. */
static void test_pace(void **state)
{
        const layout_t zeros = {0};
        struct bl_zero_result r;
        usec_t at;

        (void)state;
        begin(zeros, false);
        at = bl_now();
        bl_zero_pages_out(p.source, p.base, PAGES, UINT64_MAX, FOREVER, BL_WHOLE / 10, 0, &go_on, &r);
        assert_int_equal(r.looked, PAGES);
        assert_true(bl_now() - at >= 8 * r.cpu);
        assert_true(r.cpu > 0);
}

static void test_ended(void **state)
{
        const layout_t zeros = {[0] = 512};
        struct bl_zero_result r;

        (void)state;
        begin(zeros, false);
        kill(p.pid, SIGKILL);
        assert_int_equal(waitpid(p.pid, NULL, 0), p.pid);
        p.pid = 0;
        r = out(0, PAGES, UINT64_MAX);
        assert_int_equal(r.error, -ESRCH);
        assert_int_equal(r.out, 0);
}

/* Pages that are no process's have nowhere to go. */
static void test_no_process(void **state)
{
        static uint8_t page[2 * BL_PAGE_SIZE];
        struct bl_zero_result r;

        (void)state;
        assert_int_equal(bl_source_memory("memory", page, 2, &p.source), 0);
        r = out(0, 2, UINT64_MAX);
        assert_int_equal(r.error, -EINVAL);
        assert_int_equal(r.looked, 0);
}

/* In a child that gave the right away. */
static void test_no_right(void **state)
{
        struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
        struct __user_cap_data_struct d[2];
        const layout_t zeros = {[0] = 512};
        int status;
        pid_t pid;

        (void)state;
        begin(zeros, false);
        pid = fork();
        if (pid == 0) {
                if (syscall(SYS_capget, &h, d) < 0)
                        _exit(99);
                d[0].effective &= ~(1U << CAP_SYS_NICE);
                if (syscall(SYS_capset, &h, d) < 0)
                        _exit(98);
                _exit(-out(0, PAGES, UINT64_MAX).error);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), EPERM);
        assert_int_equal(tell('v'), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_small_pages, swap_on, swap_off),
                cmocka_unit_test_setup_teardown(test_changing, swap_on, swap_off),
                cmocka_unit_test_setup_teardown(test_huge_pages, setup, teardown),
                cmocka_unit_test_setup_teardown(test_no_swap, setup, teardown),
                cmocka_unit_test_setup_teardown(test_bounds, setup, teardown),
                cmocka_unit_test_setup_teardown(test_pace, setup, teardown),
                cmocka_unit_test_setup_teardown(test_ended, setup, teardown),
                cmocka_unit_test_setup_teardown(test_no_process, setup, teardown),
                cmocka_unit_test_setup_teardown(test_no_right, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
