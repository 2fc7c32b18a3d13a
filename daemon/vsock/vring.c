/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/vsock/vring.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include <ballast/units.h>

/* offsets and bits: virtio_ring.h, and Virtual I/O Device 1.2, 2.7.5 to 2.7.8 */
#define DESC_SIZE      16U
#define DESC_NEXT      1U
#define DESC_WRITE     2U
#define DESC_INDIRECT  4U
#define RING_FLAGS     0U
#define RING_IDX       2U
#define RING_ENTRIES   4U
#define AVAIL_SIZE     2U
#define USED_SIZE      8U
#define NO_INTERRUPT   1U
#define INDEX_ATTEMPTS 4

struct descriptor {
        uint64_t gpa;
        uint32_t size;
        uint16_t flags, next;
};

/* What goes before this is in the guest's memory before what comes behind it:
 * the driver runs on other CPUs meanwhile. */
static void barrier(void)
{
        __sync_synchronize();
}

bool bl_vring_ready(const struct bl_vring *r)
{
        return r->num > 0 && r->desc && r->avail && r->used && r->started && r->enabled && !r->broken;
}

int bl_vring_set_addr(struct bl_vring *r, uint64_t desc, uint64_t avail, uint64_t used)
{
        if (desc % 16 || avail % 2 || used % 4)
                return -EINVAL;
        r->desc = desc;
        r->avail = avail;
        r->used = used;
        r->broken = false;
        return 0;
}

void bl_vring_set_base(struct bl_vring *r, uint16_t base)
{
        r->last_avail = base;
        r->used_idx = base;
        r->broken = false;
}

/* The table may have changed since the last time. */
static bool reachable(const struct bl_vring *r, const struct bl_gm *m)
{
        return r->num <= BL_VRING_MAX && bl_gm_contains(m, r->desc, UINT64_C(16) * r->num) &&
               bl_gm_contains(m, r->avail, 6 + UINT64_C(2) * r->num) &&
               bl_gm_contains(m, r->used, 6 + UINT64_C(8) * r->num);
}

static int ring_read(const struct bl_gm *m, uint64_t uva, void *buf, size_t size)
{
        return m->access.read(m->access.userdata, uva, buf, size);
}

static int ring_write(const struct bl_gm *m, uint64_t uva, const void *buf, size_t size)
{
        return m->access.write(m->access.userdata, uva, buf, size);
}

static int read_u16(const struct bl_gm *m, uint64_t uva, uint16_t *ret)
{
        uint16_t v;
        int r = ring_read(m, uva, &v, sizeof v);

        if (r < 0)
                return r;
        *ret = le16toh(v);
        return 0;
}

/*
 * The kernel may copy the two bytes of an index one by one (x86 does) while the
 * driver counts on.  A half old value can only come of a carry, so where the
 * high byte is new the index is read until it stands still; a driver that keeps
 * it from that spoils its own ring.
 */
static int read_index(const struct bl_gm *m, uint64_t uva, uint16_t last, uint16_t *ret)
{
        uint16_t idx, again;
        int r = read_u16(m, uva, &idx);

        for (int i = 0; r >= 0 && (idx ^ last) & 0xff00 && i < INDEX_ATTEMPTS; i++) {
                again = idx;
                r = read_u16(m, uva, &idx);
                if (again == idx)
                        break;
        }
        if (r < 0)
                return r;
        *ret = idx;
        return 0;
}

/*
 * For the same reason the driver might see half an index of ours.  Where both
 * bytes change, the 8 bytes that it lies in are written, which is one store where
 * a copy of 2 is two: flags, index, and the number in the first entry, which are
 * all ours alone to write.
 */
static int write_index(const struct bl_vring *r, const struct bl_gm *m, uint16_t idx)
{
        uint8_t start[8];
        const uint16_t v = htole16(idx);
        int k;

        if (idx & 0xff || r->used % sizeof start)
                return ring_write(m, r->used + RING_IDX, &v, sizeof v);
        k = ring_read(m, r->used, start, sizeof start);
        if (k < 0)
                return k;
        memcpy(start + RING_IDX, &v, sizeof v);
        return ring_write(m, r->used, start, sizeof start);
}

static int read_descriptor(const struct bl_vring *r, const struct bl_gm *m, uint16_t i, struct descriptor *ret)
{
        uint8_t raw[DESC_SIZE];
        uint64_t gpa;
        uint32_t size;
        uint16_t flags, next;
        int k = ring_read(m, r->desc + (uint64_t)i * DESC_SIZE, raw, sizeof raw);

        if (k < 0)
                return k;
        memcpy(&gpa, raw, sizeof gpa);
        memcpy(&size, raw + 8, sizeof size);
        memcpy(&flags, raw + 12, sizeof flags);
        memcpy(&next, raw + 14, sizeof next);
        *ret = (struct descriptor){
                .gpa = le64toh(gpa), .size = le32toh(size), .flags = le16toh(flags), .next = le16toh(next)};
        return 0;
}

static bool covered(const struct bl_gm *m, uint64_t gpa, uint64_t size)
{
        while (size > 0) {
                uint64_t uva, n;

                if (bl_gm_translate(m, gpa, size, &uva, &n) < 0)
                        return false;
                gpa += n;
                size -= n;
        }
        return true;
}

static int add_buffer(struct bl_vchain *c, const struct bl_gm *m, const struct descriptor *d)
{
        const struct bl_vring_buffer b = {.gpa = d->gpa, .size = d->size};
        const bool in = d->flags & DESC_WRITE;

        if (d->flags & DESC_INDIRECT || !covered(m, d->gpa, d->size))
                return -EBADMSG;
        if (!in && c->n_in > 0)
                return -EBADMSG;
        if (in) {
                c->in[c->n_in++] = b;
                c->in_size += d->size;
        } else {
                c->out[c->n_out++] = b;
                c->out_size += d->size;
        }
        return 0;
}

static int read_chain(const struct bl_vring *r, const struct bl_gm *m, uint16_t head, struct bl_vchain *ret)
{
        const uint64_t most = bl_min(r->num, BL_VRING_CHAIN);
        struct descriptor d = {.flags = DESC_NEXT, .next = head};

        ret->head = head;
        ret->n_out = ret->n_in = 0;
        ret->out_size = ret->in_size = 0;
        for (unsigned n = 0; d.flags & DESC_NEXT; n++) {
                int k;

                /* more than there are: a loop */
                if (d.next >= r->num || n == most)
                        return -EBADMSG;
                k = read_descriptor(r, m, d.next, &d);
                if (k < 0)
                        return k;
                k = add_buffer(ret, m, &d);
                if (k < 0)
                        return k;
        }
        return 0;
}

static int breaks(struct bl_vring *r, int error)
{
        r->broken = true;
        return error;
}

int bl_vring_available(struct bl_vring *r, const struct bl_gm *m)
{
        uint16_t idx, ahead;
        int k;

        if (!bl_vring_ready(r))
                return 0;
        if (!reachable(r, m))
                return -EFAULT;
        k = read_index(m, r->avail + RING_IDX, r->last_avail, &idx);
        if (k < 0)
                return breaks(r, k);
        ahead = (uint16_t)(idx - r->last_avail);
        if (ahead > r->num)
                return breaks(r, -EBADMSG);
        return ahead > 0;
}

int bl_vring_next(struct bl_vring *r, const struct bl_gm *m, struct bl_vchain *ret)
{
        uint16_t head;
        int k;

        if (r->last_avail != r->used_idx)
                return -EBUSY;
        k = bl_vring_available(r, m);
        if (k <= 0)
                return k;
        barrier();
        k = read_u16(m, r->avail + RING_ENTRIES + (uint64_t)(r->last_avail % r->num) * AVAIL_SIZE, &head);
        if (k >= 0)
                k = read_chain(r, m, head, ret);
        if (k < 0)
                return breaks(r, k);
        r->last_avail++;
        return 1;
}

void bl_vring_put_back(struct bl_vring *r)
{
        r->last_avail = r->used_idx;
}

int bl_vring_give_back(struct bl_vring *r, const struct bl_gm *m, uint16_t head, uint32_t written)
{
        const uint32_t element[2] = {htole32(head), htole32(written)};
        int k;

        if (!bl_vring_ready(r) || r->last_avail == r->used_idx)
                return -EINVAL;
        if (!reachable(r, m))
                return -EFAULT;
        k = ring_write(m, r->used + RING_ENTRIES + (uint64_t)(r->used_idx % r->num) * USED_SIZE, element,
                       sizeof element);
        barrier();
        if (k >= 0)
                k = write_index(r, m, (uint16_t)(r->used_idx + 1));
        if (k < 0)
                return breaks(r, k);
        /* before the driver's flags are read */
        barrier();
        r->used_idx++;
        return 0;
}

/* There was at most one chain under way, so the driver's memory can only be
 * where we noted, or one further; anything else was written by the driver. */
int bl_vring_take_over(struct bl_vring *r, const struct bl_gm *m)
{
        const bool taken = r->last_avail != r->used_idx;
        uint16_t idx;
        int k;

        bl_vring_put_back(r);
        if (!taken || !bl_vring_ready(r))
                return 0;
        if (!reachable(r, m))
                return -EFAULT;
        k = read_u16(m, r->used + RING_IDX, &idx);
        if (k < 0)
                return breaks(r, k);
        if (idx == (uint16_t)(r->used_idx + 1))
                bl_vring_set_base(r, idx);
        return 0;
}

bool bl_vring_wants_call(const struct bl_vring *r, const struct bl_gm *m)
{
        uint16_t flags;

        if (!bl_vring_ready(r) || !reachable(r, m) || read_u16(m, r->avail + RING_FLAGS, &flags) < 0)
                return false;
        return !(flags & NO_INTERRUPT);
}

/* The part of buffer `b` that holds bytes from `*offset` of the rest: its guest
 * address and size; `*offset` becomes that of what follows. */
static size_t part_of(const struct bl_vring_buffer *b, uint64_t *offset, size_t size, uint64_t *ret_gpa)
{
        const uint64_t skip = bl_min(*offset, b->size);

        *ret_gpa = b->gpa + skip;
        *offset -= skip;
        return (size_t)bl_min(b->size - skip, size);
}

static bool fits(uint64_t offset, size_t size, uint64_t total)
{
        return offset <= total && size <= total - offset;
}

int bl_vchain_read(const struct bl_vchain *c, const struct bl_gm *m, uint64_t offset, void *buf, size_t size)
{
        uint8_t *p = buf;

        if (!fits(offset, size, c->out_size))
                return -ENOBUFS;
        for (unsigned i = 0; size > 0 && i < c->n_out; i++) {
                uint64_t gpa;
                const size_t n = part_of(&c->out[i], &offset, size, &gpa);
                int r = bl_gm_read(m, gpa, p, n);

                if (r < 0)
                        return r;
                p += n;
                size -= n;
        }
        return 0;
}

int bl_vchain_write(const struct bl_vchain *c, const struct bl_gm *m, uint64_t offset, const void *buf, size_t size)
{
        const uint8_t *p = buf;

        if (!fits(offset, size, c->in_size))
                return -ENOBUFS;
        for (unsigned i = 0; size > 0 && i < c->n_in; i++) {
                uint64_t gpa;
                const size_t n = part_of(&c->in[i], &offset, size, &gpa);
                int r = bl_gm_write(m, gpa, p, n);

                if (r < 0)
                        return r;
                p += n;
                size -= n;
        }
        return 0;
}
