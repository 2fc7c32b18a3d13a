/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/vsock/guest_memory.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/uio.h>

#include <ballast/units.h>

static bool wraps(uint64_t start, uint64_t size)
{
        uint64_t end;

        return __builtin_add_overflow(start, size, &end);
}

/* Into its place by gpa.  -EINVAL: it overlaps one that is there. */
static int insert(struct bl_gm_region *sorted, uint32_t n, const struct bl_gm_region *r)
{
        uint32_t at = n;

        while (at > 0 && sorted[at - 1].gpa > r->gpa)
                at--;
        if (at > 0 && r->gpa - sorted[at - 1].gpa < sorted[at - 1].size)
                return -EINVAL;
        if (at < n && sorted[at].gpa - r->gpa < r->size)
                return -EINVAL;
        memmove(sorted + at + 1, sorted + at, (n - at) * sizeof *sorted);
        sorted[at] = *r;
        return 0;
}

int bl_gm_set(struct bl_gm *m, const struct bl_gm_region *regions, size_t n)
{
        struct bl_gm_region sorted[BL_GM_REGIONS];

        if (n > BL_GM_REGIONS)
                return -EINVAL;
        for (uint32_t i = 0; i < n; i++) {
                const struct bl_gm_region *r = &regions[i];
                int k;

                if (r->size == 0 || wraps(r->gpa, r->size) || wraps(r->uva, r->size))
                        return -EINVAL;
                k = insert(sorted, i, r);
                if (k < 0)
                        return k;
        }
        memcpy(m->regions, sorted, n * sizeof *sorted);
        m->n = (uint32_t)n;
        return 0;
}

int bl_gm_translate(const struct bl_gm *m, uint64_t gpa, uint64_t size, uint64_t *ret_uva, uint64_t *ret_size)
{
        uint64_t uva, there;
        uint32_t i = 0;

        while (i < m->n && (gpa < m->regions[i].gpa || gpa - m->regions[i].gpa >= m->regions[i].size))
                i++;
        if (i == m->n || size == 0)
                return -EFAULT;
        uva = m->regions[i].uva + (gpa - m->regions[i].gpa);
        there = m->regions[i].size - (gpa - m->regions[i].gpa);
        for (; there < size && i + 1 < m->n; i++) {
                if (m->regions[i + 1].gpa != gpa + there || m->regions[i + 1].uva != uva + there)
                        break;
                there += m->regions[i + 1].size;
        }
        *ret_uva = uva;
        *ret_size = bl_min(there, size);
        return 0;
}

bool bl_gm_contains(const struct bl_gm *m, uint64_t uva, uint64_t size)
{
        for (uint32_t i = 0; i < m->n; i++) {
                const struct bl_gm_region *r = &m->regions[i];

                if (uva >= r->uva && uva - r->uva <= r->size && size <= r->size - (uva - r->uva))
                        return true;
        }
        return false;
}

int bl_gm_read(const struct bl_gm *m, uint64_t gpa, void *buf, size_t size)
{
        uint8_t *p = buf;

        while (size > 0) {
                uint64_t uva, n;
                int r = bl_gm_translate(m, gpa, size, &uva, &n);

                if (r >= 0)
                        r = m->access.read(m->access.userdata, uva, p, (size_t)n);
                if (r < 0)
                        return r;
                gpa += n;
                p += n;
                size -= (size_t)n;
        }
        return 0;
}

int bl_gm_write(const struct bl_gm *m, uint64_t gpa, const void *buf, size_t size)
{
        const uint8_t *p = buf;

        while (size > 0) {
                uint64_t uva, n;
                int r = bl_gm_translate(m, gpa, size, &uva, &n);

                if (r >= 0)
                        r = m->access.write(m->access.userdata, uva, p, (size_t)n);
                if (r < 0)
                        return r;
                gpa += n;
                p += n;
                size -= (size_t)n;
        }
        return 0;
}

/* A pidfd polls readable once its process has ended (pidfd_open(2)). */
static bool alive(const struct bl_gm_process *p)
{
        struct pollfd pfd = {.fd = p->pidfd, .events = POLLIN};

        return poll(&pfd, 1, 0) == 0;
}

static int access_result(ssize_t n, size_t size)
{
        if (n >= 0)
                return (size_t)n == size ? 0 : -EFAULT;
        return -errno;
}

static int process_read(void *userdata, uint64_t uva, void *buf, size_t size)
{
        const struct bl_gm_process *p = userdata;
        const struct iovec local = {.iov_base = buf, .iov_len = size};
        const struct iovec remote = {.iov_base = (void *)(uintptr_t)uva, .iov_len = size};

        if (!alive(p))
                return -ESRCH;
        return access_result(process_vm_readv(p->pid, &local, 1, &remote, 1, 0), size);
}

static int process_write(void *userdata, uint64_t uva, const void *buf, size_t size)
{
        const struct bl_gm_process *p = userdata;
        const struct iovec local = {.iov_base = (void *)(uintptr_t)buf, .iov_len = size};
        const struct iovec remote = {.iov_base = (void *)(uintptr_t)uva, .iov_len = size};

        if (!alive(p))
                return -ESRCH;
        return access_result(process_vm_writev(p->pid, &local, 1, &remote, 1, 0), size);
}

struct bl_gm_access bl_gm_process_access(struct bl_gm_process *p)
{
        return (struct bl_gm_access){.read = process_read, .write = process_write, .userdata = p};
}
