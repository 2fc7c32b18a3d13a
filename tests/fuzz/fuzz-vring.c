/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libFuzzer target for virtqueues in memory that their driver changes at any
 * moment.  The input is where the ring lies, what the memory holds, what is
 * called in which order, and what is changed behind each single read.  Oracles,
 * beside the sanitizers:
 *
 *  - nothing outside the table of memory is touched, and nothing is written but
 *    the used ring and a chain's writable buffers;
 *  - what a chain says of itself is true, bounded, and lies in the table;
 *  - each chain is given back once, and the driver sees it in order;
 *  - a broken ring is left alone.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <ballast/units.h>

#include "daemon/vsock/vring.h"

#define RAM      4096U
#define FIRST    3072U /* bytes in the first region */
#define GPA      UINT64_C(0x1000)
#define UVA      UINT64_C(0x7f0000010000)
#define FAR      UINT64_C(0x10000) /* the second region is not beside the first in the VMM */
#define NUMBERS  6
#define MOST_OPS 256

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
        const uint8_t *data;
        size_t size;
};

static uint8_t ram[RAM];
static struct input changes; /* behind each read */
static bool may_write_used;
static const struct bl_vchain *may_write_chain;
static struct bl_vring *current;
static struct bl_gm gm;

static void check(bool ok)
{
        if (!ok)
                abort();
}

static uint8_t get(struct input *in)
{
        if (in->size == 0)
                return 0;
        in->size--;
        return *in->data++;
}

static uint16_t get16(struct input *in)
{
        const uint8_t low = get(in);

        return (uint16_t)(low | get(in) << 8);
}

static uint8_t *at(uint64_t uva, size_t size)
{
        check(size > 0 && bl_gm_contains(&gm, uva, size));
        return uva < UVA + FIRST ? ram + (uva - UVA) : ram + (uva - UVA - FAR);
}

static int fuzz_read(void *userdata, uint64_t uva, void *buf, size_t size)
{
        const uint8_t how = get(&changes);

        (void)userdata;
        memcpy(buf, at(uva, size), size);
        if (how & 1)
                ram[get16(&changes) % RAM] = get(&changes);
        return how == 0xfe ? -EFAULT : 0;
}

static bool in_chain(const struct bl_vchain *c, uint64_t uva, size_t size)
{
        for (unsigned i = 0; i < c->n_in; i++)
                for (uint64_t gpa = c->in[i].gpa, left = c->in[i].size; left > 0;) {
                        uint64_t start, n;

                        check(bl_gm_translate(&gm, gpa, left, &start, &n) == 0);
                        if (uva >= start && uva - start <= n && size <= n - (uva - start))
                                return true;
                        gpa += n;
                        left -= n;
                }
        return false;
}

static int fuzz_write(void *userdata, uint64_t uva, const void *buf, size_t size)
{
        uint8_t *to = at(uva, size);

        (void)userdata;
        if (may_write_chain)
                check(in_chain(may_write_chain, uva, size));
        else
                check(may_write_used && !current->broken && uva >= current->used &&
                      uva + size <= current->used + 6 + UINT64_C(8) * current->num);
        memcpy(to, buf, size);
        return 0;
}

static void check_buffers(const struct bl_vring_buffer *b, unsigned n, uint64_t sum)
{
        for (unsigned i = 0; i < n; i++) {
                sum -= b[i].size;
                for (uint64_t gpa = b[i].gpa, left = b[i].size; left > 0;) {
                        uint64_t uva, there;

                        check(bl_gm_translate(&gm, gpa, left, &uva, &there) == 0 && there > 0 && there <= left);
                        gpa += there;
                        left -= there;
                }
        }
        check(sum == 0);
}

static void check_chain(const struct bl_vring *r, const struct bl_vchain *c)
{
        check(c->head < r->num && c->n_out + c->n_in >= 1 && c->n_out + c->n_in <= bl_min(r->num, BL_VRING_CHAIN));
        check_buffers(c->out, c->n_out, c->out_size);
        check_buffers(c->in, c->n_in, c->in_size);
        check(r->last_avail == (uint16_t)(r->used_idx + 1));
}

static void use_chain(const struct bl_vchain *c, struct input *in)
{
        static uint8_t buf[256];
        const uint64_t offset = get16(in) % 512;
        const size_t n = get(in);
        int r;

        r = bl_vchain_read(c, &gm, offset, buf, n);
        check((r == -ENOBUFS) == (offset + n > c->out_size));
        may_write_chain = c;
        r = bl_vchain_write(c, &gm, offset, buf, n);
        check(r == (offset + n > c->in_size ? -ENOBUFS : 0));
        may_write_chain = NULL;
}

static void give_back(struct bl_vring *r, const struct bl_vchain *c, uint32_t written)
{
        const struct bl_vring before = *r;
        const bool owed = before.last_avail != before.used_idx;
        uint16_t idx;
        int k;

        may_write_used = true;
        k = bl_vring_give_back(r, &gm, c->head, written);
        may_write_used = false;
        if (k < 0) {
                check(r->used_idx == before.used_idx);
                return;
        }
        check(owed && !before.broken && r->used_idx == r->last_avail && r->last_avail == before.last_avail);
        memcpy(&idx, at(r->used + 2, sizeof idx), sizeof idx);
        check(idx == r->used_idx);
}

static void place(struct bl_vring *r, struct input *in)
{
        const uint64_t desc = UVA + get16(in) % (RAM + 64) * UINT64_C(16);
        const uint64_t avail = UVA + get16(in) % (RAM + 64);
        const uint64_t used = UVA + get16(in) % (RAM + 64);
        const int k = bl_vring_set_addr(r, desc, avail, used);

        check((k < 0) == (avail % 2 != 0 || used % 4 != 0));
}

/* As an honest driver does: so that rings get far. */
static void offer(const struct bl_vring *r, struct input *in)
{
        uint16_t idx;
        const uint16_t head = get(in) % 64;

        if (!bl_gm_contains(&gm, r->avail, 6 + UINT64_C(2) * r->num))
                return;
        memcpy(&idx, at(r->avail + 2, sizeof idx), sizeof idx);
        memcpy(at(r->avail + 4 + (uint64_t)(idx % r->num) * 2, sizeof head), &head, sizeof head);
        idx++;
        memcpy(at(r->avail + 2, sizeof idx), &idx, sizeof idx);
}

static void describe(const struct bl_vring *r, struct input *in)
{
        const uint64_t i = get(in) % r->num, gpa = GPA + get16(in) % (RAM + 16);
        const uint32_t n = get(in);
        const uint16_t flags = get(in), next = get(in);
        uint8_t *d;

        if (!bl_gm_contains(&gm, r->desc, UINT64_C(16) * r->num))
                return;
        d = at(r->desc + i * 16, 16);
        memcpy(d, &gpa, sizeof gpa);
        memcpy(d + 8, &n, sizeof n);
        memcpy(d + 12, &flags, sizeof flags);
        memcpy(d + 14, &next, sizeof next);
}

static void step(struct bl_vring *r, struct bl_vchain *c, bool *have, struct input *in)
{
        const struct bl_vring before = *r;
        int k;

        switch (get(in) % 16) {
        case 0:
        case 1:
                k = bl_vring_next(r, &gm, c);
                if (k == 1)
                        check_chain(r, c);
                else
                        check(r->last_avail == before.last_avail);
                check(k != -EBADMSG || r->broken);
                check(k <= 0 || bl_vring_ready(&before));
                *have = k == 1 || (*have && k == -EBUSY);
                break;
        case 2:
        case 3:
                if (*have)
                        give_back(r, c, get(in));
                break;
        case 4:
                if (*have)
                        use_chain(c, in);
                break;
        case 5:
                bl_vring_put_back(r);
                *have = false;
                break;
        case 6:
                (void)bl_vring_take_over(r, &gm);
                check((uint16_t)(r->used_idx - before.used_idx) <= 1);
                *have = false;
                break;
        case 7:
                k = bl_vring_available(r, &gm);
                check(k <= 1 && r->last_avail == before.last_avail);
                break;
        case 8:
                (void)bl_vring_wants_call(r, &gm);
                break;
        case 9:
                (void)bl_vring_wants_call(r, &gm);
                break;
        case 10:
                place(r, in);
                break;
        case 11:
                bl_vring_set_base(r, get16(in));
                *have = false;
                break;
        case 12:
                r->num = 1U << get(in) % NUMBERS;
                break;
        case 13:
                ram[get16(in) % RAM] = get(in);
                break;
        case 14:
                offer(r, in);
                break;
        case 15:
                describe(r, in);
                break;
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static const struct bl_gm_region regions[] = {
                {.gpa = GPA, .size = FIRST, .uva = UVA},
                {.gpa = GPA + FIRST, .size = RAM - FIRST, .uva = UVA + FAR + FIRST},
        };
        struct input in = {.data = data, .size = size};
        struct bl_vring ring = {.num = 16, .started = true, .enabled = true};
        struct bl_vchain chain;
        bool have = false;
        size_t n;

        gm = (struct bl_gm){.access = {.read = fuzz_read, .write = fuzz_write}};
        check(bl_gm_set(&gm, regions, 2) == 0);
        current = &ring;
        memset(ram, 0, sizeof ram);
        check(bl_vring_set_addr(&ring, UVA, UVA + 0x200, UVA + 0x300) == 0);

        /* first the changes, then the memory, then what is called */
        n = bl_min(get(&in), in.size);
        changes = (struct input){.data = in.data, .size = n};
        in.data += n;
        in.size -= n;
        n = bl_min(get(&in) * UINT64_C(16), bl_min(in.size, RAM));
        if (n > 0)
                memcpy(ram, in.data, n);
        in.data += n;
        in.size -= n;
        for (int i = 0; i < MOST_OPS && in.size > 0; i++)
                step(&ring, &chain, &have, &in);
        return 0;
}
