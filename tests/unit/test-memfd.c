/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a private memory file holds twice: with a memfd of this process's own, as
 * QEMU has it, and the kernel that runs. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include <ballast/cleanup.h>
#include <ballast/units.h>

#include "daemon/sense/memfd.h"
#include "daemon/sense/resident.h"

#define SIZE (16 * BL_MIB)

struct ram {
        int proc; /* /proc/self */
        int fd;
        unsigned char *p;
        struct bl_memfds found;
};

static int setup(void **state)
{
        static struct ram r;

        r.proc = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);
        r.fd = memfd_create("memory-backend-memfd", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (r.proc < 0 || r.fd < 0 || ftruncate(r.fd, (off_t)SIZE) < 0)
                return -1;
        r.p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, r.fd, 0);
        *state = &r;
        return r.p == MAP_FAILED || bl_memfd_find(r.proc, &r.found) < 0 ? -1 : 0;
}

static int teardown(void **state)
{
        struct ram *r = *state;

        (void)munmap(r->p, SIZE);
        bl_closep(&r->fd);
        bl_closep(&r->proc);
        return 0;
}

static void fill(struct ram *r)
{
        for (size_t i = 0; i < SIZE; i += 4096)
                memset(r->p + i, (int)(i / 4096 % 255) + 1, 4096);
}

static void check(const struct ram *r)
{
        for (size_t i = 0; i < SIZE; i++)
                if (r->p[i] != i / 4096 % 255 + 1)
                        fail_msg("byte %zu is %u", i, r->p[i]);
}

static void test_found(void **state)
{
        struct ram *r = *state;
        int other = memfd_create("something-else", MFD_CLOEXEC);
        struct bl_memfds f;

        assert_int_equal(bl_memfd_find(r->proc, &f), 0);
        assert_int_equal(f.n, 1);
        assert_int_equal(f.fds[0], r->fd);
        assert_int_equal(bl_memfd_held(r->proc, &f), 0);
        close(other);
}

static void test_drop(void **state)
{
        struct ram *r = *state;
        uint64_t freed = 0;

        fill(r);
        /* the kernel does hold them twice: the reason for all this */
        assert_true(bl_memfd_held(r->proc, &r->found) >= SIZE / 2);
        assert_int_equal(bl_memfd_drop(r->proc, &r->found, &freed), 0);
        assert_true(freed >= SIZE / 2);
        assert_int_equal(bl_memfd_held(r->proc, &r->found), 0);
        check(r);
        /* what was dropped and is discarded by the balloon reads as zeros */
        assert_int_equal(madvise(r->p, 4096, MADV_DONTNEED), 0);
        assert_int_equal(r->p[0], 0);
        assert_int_equal(r->p[4096], 2);
}

/* Only read: such pages are mapped, and come back as zeros. */
static void test_read_only_pages(void **state)
{
        struct ram *r = *state;
        uint64_t freed, sum = 0;

        for (size_t i = 0; i < SIZE; i += 4096)
                sum += r->p[i];
        assert_int_equal(sum, 0);
        assert_int_equal(bl_memfd_drop(r->proc, &r->found, &freed), 0);
        for (size_t i = 0; i < SIZE; i += 4096)
                sum += r->p[i];
        assert_int_equal(sum, 0);
        fill(r);
        check(r);
}

static void test_shared_mapping(void **state)
{
        struct ram *r = *state;
        unsigned char *s = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, 0);
        uint64_t freed = 1;

        assert_true(s != MAP_FAILED);
        fill(r);
        assert_int_equal(bl_memfd_drop(r->proc, &r->found, &freed), -EBUSY);
        assert_int_equal(freed, 0);
        (void)munmap(s, SIZE);
}

/* Another process shares the file, and wrote: not a byte of it is lost. */
static void test_data_in_it(void **state)
{
        struct ram *r = *state;
        uint64_t freed;

        assert_int_equal(pwrite(r->fd, "x", 1, (off_t)(SIZE / 2 + 12345)), 1);
        assert_int_equal(r->p[SIZE / 2 + 12345], 'x');
        assert_int_equal(bl_memfd_drop(r->proc, &r->found, &freed), -EBUSY);
        assert_int_equal(r->p[SIZE / 2 + 12345], 'x');
}

/* The number is another file's by now. */
static void test_another_file(void **state)
{
        struct ram *r = *state;
        int file = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), kept = dup(r->fd);
        uint64_t freed;

        assert_true(file >= 0 && kept >= 0);
        assert_int_equal(ftruncate(file, 1 << 20), 0);
        assert_int_equal(dup2(file, r->fd), r->fd);
        assert_int_equal(bl_memfd_drop(r->proc, &r->found, &freed), -EBUSY);
        assert_int_equal(dup2(kept, r->fd), r->fd);
        close(file);
        close(kept);
}

static void test_counted(void **state)
{
        struct ram *r = *state;
        struct bl_resident *self = NULL;
        struct bl_proc_mem before, after;
        uint64_t freed;

        assert_int_equal(bl_resident_open("", getpid(), 0, &self), 0);
        assert_int_equal(bl_resident_memfds(self)->n, 1);
        fill(r);
        assert_int_equal(bl_resident_read(self, &before), 0);
        assert_true(before.memfd >= SIZE / 2);
        assert_true(bl_proc_mem_resident(&before) >= before.anon + before.memfd);
        assert_int_equal(bl_memfd_drop(r->proc, &r->found, &freed), 0);
        assert_int_equal(bl_resident_read(self, &after), 0);
        assert_int_equal(after.memfd, 0);
        assert_true(bl_proc_mem_resident(&after) <= bl_proc_mem_resident(&before) - SIZE / 2 + BL_MIB);
        (void)bl_resident_free(self);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_found, setup, teardown),
                cmocka_unit_test_setup_teardown(test_drop, setup, teardown),
                cmocka_unit_test_setup_teardown(test_read_only_pages, setup, teardown),
                cmocka_unit_test_setup_teardown(test_shared_mapping, setup, teardown),
                cmocka_unit_test_setup_teardown(test_data_in_it, setup, teardown),
                cmocka_unit_test_setup_teardown(test_another_file, setup, teardown),
                cmocka_unit_test_setup_teardown(test_counted, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
