/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libFuzzer target for the messages of vhost-user.  The input is a stream of
 * messages, each led by how it is made: as it stands, or with a header that is
 * right so that its body is reached; with how many descriptors; and whether a
 * worker takes over behind it.  Oracles, beside the sanitizers:
 *
 *  - every descriptor is closed, whatever it came with;
 *  - an answer is whole, of its request, and comes exactly when one is due;
 *  - the table of memory is sorted, bounded and without overlap;
 *  - rings, served between the messages, never touch what is not in the table;
 *  - what was said before survives one that takes over.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <ballast/units.h>

#include "daemon/vsock/vhost_user.h"

#define MOST_MESSAGES 32
#define MOST_FDS      (BL_VU_FDS + 4)

#define ACK         (1U << 3) /* protocol feature */
#define NEED_REPLY  (1U << 3) /* flag of a header */
#define REPLY_FLAGS 5U

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
        const uint8_t *data;
        size_t size;
};

/* requests, and what their bodies have */
static const uint8_t known[][2] = {
        {1, 0},  {2, 8},  {3, 0},  {4, 0},  {5, 40}, {5, 72}, {8, 8},   {9, 40}, {10, 8},  {11, 8},  {12, 8},
        {13, 8}, {14, 8}, {15, 0}, {16, 8}, {17, 0}, {18, 8}, {24, 20}, {36, 0}, {37, 40}, {38, 40},
};
static const uint32_t answering[] = {1, 11, 15, 17, 24, 36};

static const struct bl_gm *memory;

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

static void on_fd(void *userdata, unsigned i, int fd)
{
        (void)userdata;
        check(i < BL_VU_RINGS);
        check(fd < 0 || close(fd) == 0);
}

static void on_ring(void *userdata, unsigned i)
{
        (void)userdata;
        check(i < BL_VU_RINGS);
}

static void on_reset(void *userdata)
{
        (void)userdata;
}

/* Contents without much sense, the same at the same place. */
static int fuzz_read(void *userdata, uint64_t uva, void *buf, size_t size)
{
        (void)userdata;
        check(bl_gm_contains(memory, uva, size));
        for (size_t i = 0; i < size; i++)
                ((uint8_t *)buf)[i] = (uint8_t)((uva + i) * 0x9e37 >> 13 & 3);
        return 0;
}

static int fuzz_write(void *userdata, uint64_t uva, const void *buf, size_t size)
{
        (void)userdata;
        (void)buf;
        check(bl_gm_contains(memory, uva, size));
        return 0;
}

static struct bl_vu *new_vu(struct bl_vu_state *state)
{
        static const struct bl_gm_access access = {.read = fuzz_read, .write = fuzz_write};
        static const struct bl_vu_handler handler = {.kick = on_fd, .call = on_fd, .ring = on_ring, .reset = on_reset};
        struct bl_vu *v;

        check(bl_vu_new(state, &access, &handler, &v) == 0);
        memory = bl_vu_memory(v);
        return v;
}

static void check_state(const struct bl_vu_state *s)
{
        const struct bl_vu_table *t = &s->tables[s->table];

        check(s->table <= 1 && t->n <= BL_GM_REGIONS && t->n == memory->n);
        check(memcmp(t->regions, memory->regions, t->n * sizeof *t->regions) == 0);
        for (uint32_t i = 0; i < t->n; i++) {
                const struct bl_gm_region *r = &t->regions[i];

                check(r->size > 0 && r->gpa + r->size > r->gpa && r->uva + r->size > r->uva);
                check(i == 0 || r->gpa >= r[-1].gpa + r[-1].size);
        }
        for (unsigned i = 0; i < BL_VU_RINGS; i++) {
                const struct bl_vring *r = &s->rings[i];

                check(r->num <= BL_VRING_MAX && (r->num & (r->num - 1)) == 0);
                check(r->desc % 16 == 0 && r->avail % 2 == 0 && r->used % 4 == 0);
        }
        check(s->pending == 0 && s->stage == BL_VU_COLLECT && s->guest_cid == 3);
}

static void serve(struct bl_vu_state *s)
{
        for (unsigned i = 0; i < BL_VU_RINGS; i++) {
                static struct bl_vchain c;

                if (bl_vring_next(&s->rings[i], memory, &c) == 1)
                        (void)bl_vring_give_back(&s->rings[i], memory, c.head, 0);
        }
}

/* A message from the input, with as many bytes as there are. */
static size_t make(struct input *in, uint8_t *message)
{
        const uint8_t how = get(in), flags = get(in);
        const size_t which = how % (sizeof known / sizeof *known);
        uint32_t header[3] = {known[which][0], 1U | (flags & NEED_REPLY), known[which][1]};
        size_t n;

        if (how >= 0xf0) {
                n = bl_min(bl_min(get(in), BL_VU_HEADER + BL_VU_BODY_MAX), in->size);
                if (n > 0)
                        memcpy(message, in->data, n);
                in->data += n;
                in->size -= n;
                return n;
        }
        if (how >= 0xe8) {
                header[0] = get(in);
                header[1] = flags;
        }
        if (how >= 0xe0)
                header[2] = get(in) * (how & 1U ? 8U : 1U);
        memcpy(message, header, sizeof header);
        memset(message + BL_VU_HEADER, 0, header[2]);
        n = bl_min(header[2], in->size);
        if (n > 0)
                memcpy(message + BL_VU_HEADER, in->data, n);
        in->data += n;
        in->size -= n;
        return BL_VU_HEADER + header[2];
}

static void check_answer(const struct bl_vu_state *s, const uint8_t *message, const uint8_t *answer, int n)
{
        uint32_t asked[3], got[3];
        bool due;

        memcpy(asked, message, sizeof asked);
        due = (asked[1] & NEED_REPLY) && (s->protocol_features & ACK);
        for (size_t i = 0; i < sizeof answering / sizeof *answering; i++)
                due = due || asked[0] == answering[i];
        check((n > 0) == due);
        if (!due)
                return;
        memcpy(got, answer, sizeof got);
        check(got[0] == asked[0] && got[1] == REPLY_FLAGS && (size_t)n == BL_VU_HEADER + got[2]);
        check(got[2] <= BL_VU_BODY_MAX);
}

static unsigned get_fds(struct input *in, int *fds)
{
        const uint8_t how = get(in);
        const unsigned n = how == 0xff ? MOST_FDS : how & 3;

        for (unsigned i = 0; i < n; i++)
                fds[i] = how & 4 ? -1 : dup(STDIN_FILENO);
        return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct bl_vu_state state;
        static uint8_t message[BL_VU_HEADER + BL_VU_BODY_MAX], answer[BL_VU_HEADER + BL_VU_BODY_MAX];
        struct input in = {.data = data, .size = size};
        const int free_fd = dup(STDIN_FILENO);
        struct bl_vu *v;

        if (free_fd >= 0)
                (void)close(free_fd);
        memset(&state, 0, offsetof(struct bl_vu_state, message));
        state.guest_cid = 3;
        v = new_vu(&state);
        for (int i = 0; i < MOST_MESSAGES && in.size > 0; i++) {
                int fds[MOST_FDS], n;
                const unsigned n_fds = get_fds(&in, fds);
                const size_t length = make(&in, message);

                n = bl_vu_handle(v, message, length, fds, n_fds, answer);
                if (n >= 0)
                        check_answer(&state, message, answer, n);
                else
                        check(n == -EPROTO && *bl_vu_error(v));
                check_state(&state);
                serve(&state);
                if (n < 0 || length % 5 == 4) {
                        v = bl_vu_free(v);
                        v = new_vu(&state);
                        check_state(&state);
                }
        }
        (void)bl_vu_free(v);
        /* the lowest free number is what it was: nothing stayed open */
        check(dup(STDIN_FILENO) == free_fd);
        if (free_fd >= 0)
                (void)close(free_fd);
        return 0;
}
