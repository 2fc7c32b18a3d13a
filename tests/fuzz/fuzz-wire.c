/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libFuzzer target for the guest protocol.  Oracles, beside the sanitizers:
 *
 *  - what was parsed, written again and parsed again is the same;
 *  - the runs of a hint ascend, stay below 2^52 and are read again as written;
 *  - what is found does not depend on how the stream is cut into reads;
 *  - the reader never keeps a whole frame's worth of bytes, and loses none;
 *  - after any garbage without a magic the next frame is found, all garbage
 *    is skipped, and no more.
 *
 * Checksums would keep a fuzzer out, so the input is also used as a body, and
 * as a script from which a stream of sound and broken frames is made.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <ballast/wire.h>

#define STREAM_MAX 65536U

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
        if (!ok)
                abort();
}

/* All types, and of the last none. */
static const uint16_t types[] = {
        BL_WIRE_HELLO,  BL_WIRE_STATS,   BL_WIRE_PRESSURE,    BL_WIRE_REQUEST, BL_WIRE_HINTS,
        BL_WIRE_RESULT, BL_WIRE_WELCOME, BL_WIRE_ENTITLEMENT, BL_WIRE_ACTION,  0x7777,
};
#define N_TYPES (sizeof types / sizeof types[0])

union message {
        struct bl_wire_hello hello;
        struct bl_wire_stats stats;
        struct bl_wire_pressure pressure;
        struct bl_wire_request request;
        struct bl_wire_hints hints;
        struct bl_wire_result result;
        struct bl_wire_welcome welcome;
        struct bl_wire_entitlement entitlement;
        struct bl_wire_action action;
};

static int decode(const struct bl_wire_frame *f, union message *ret)
{
        switch (f->type) {
        case BL_WIRE_HELLO:
                return bl_wire_decode_hello(f, &ret->hello);
        case BL_WIRE_STATS:
                return bl_wire_decode_stats(f, &ret->stats);
        case BL_WIRE_PRESSURE:
                return bl_wire_decode_pressure(f, &ret->pressure);
        case BL_WIRE_REQUEST:
                return bl_wire_decode_request(f, &ret->request);
        case BL_WIRE_HINTS:
                return bl_wire_decode_hints(f, &ret->hints);
        case BL_WIRE_RESULT:
                return bl_wire_decode_result(f, &ret->result);
        case BL_WIRE_WELCOME:
                return bl_wire_decode_welcome(f, &ret->welcome);
        case BL_WIRE_ENTITLEMENT:
                return bl_wire_decode_entitlement(f, &ret->entitlement);
        case BL_WIRE_ACTION:
                return bl_wire_decode_action(f, &ret->action);
        default:
                return -1;
        }
}

static int encode(uint16_t type, const union message *m, void *buf, size_t size)
{
        switch (type) {
        case BL_WIRE_HELLO:
                return bl_wire_encode_hello(&m->hello, buf, size);
        case BL_WIRE_STATS:
                return bl_wire_encode_stats(&m->stats, buf, size);
        case BL_WIRE_PRESSURE:
                return bl_wire_encode_pressure(&m->pressure, buf, size);
        case BL_WIRE_REQUEST:
                return bl_wire_encode_request(&m->request, buf, size);
        case BL_WIRE_HINTS:
                return bl_wire_encode_hints(&m->hints, buf, size);
        case BL_WIRE_RESULT:
                return bl_wire_encode_result(&m->result, buf, size);
        case BL_WIRE_WELCOME:
                return bl_wire_encode_welcome(&m->welcome, buf, size);
        case BL_WIRE_ENTITLEMENT:
                return bl_wire_encode_entitlement(&m->entitlement, buf, size);
        default:
                return bl_wire_encode_action(&m->action, buf, size);
        }
}

/* Runs ascend, stay within their bounds, and written again read the same. */
static void check_runs(const struct bl_wire_hints *h)
{
        uint8_t buf[BL_WIRE_FRAME_MAX];
        struct bl_wire_hints copy = {.kind = h->kind, .runs = buf};
        uint64_t pfn = 0, put_pfn = 0, copy_pfn = 0, end = 0;
        size_t pos = 0, copy_pos = 0, n = 0, found = 0;
        struct bl_wire_run run, again;
        int r;

        while ((r = bl_wire_run_next(h, &pos, &pfn, &run)) > 0) {
                check(pos <= h->runs_size && run.pages > 0 && run.pfn >= end);
                end = run.pfn + run.pages;
                check(end == pfn && end <= UINT64_C(1) << 52 && run.index <= UINT64_C(1) << 52);
                /* never longer than it was: what we write is the shortest form */
                r = bl_wire_run_put(h->kind, &run, &put_pfn, buf + n, pos - n);
                check(r > 0 && put_pfn == pfn);
                n += (size_t)r;
                copy.runs_size = n;
                check(bl_wire_run_next(&copy, &copy_pos, &copy_pfn, &again) == 1);
                check(memcmp(&run, &again, sizeof run) == 0 && copy_pos == n && copy_pfn == pfn);
                found++;
        }
        check(found <= h->runs_size / 2);
        check(r < 0 || pos == h->runs_size);
}

/* Any runs at all, also those that no frame would hold. */
static void check_as_runs(const uint8_t *data, size_t size)
{
        size = size < BL_WIRE_BODY_MAX ? size : BL_WIRE_BODY_MAX;
        for (uint64_t kind = BL_HINT_FREE; kind < _BL_HINT_MAX; kind++) {
                struct bl_wire_hints h = {.kind = kind, .runs = data, .runs_size = size};

                check_runs(&h);
        }
}

static void check_bounds(uint16_t type, const union message *m)
{
        if (type == BL_WIRE_HELLO) {
                check(memchr(m->hello.version, 0, sizeof m->hello.version) != NULL);
                check(memchr(m->hello.kernel, 0, sizeof m->hello.kernel) != NULL);
        } else if (type == BL_WIRE_REQUEST) {
                check(m->request.urgency < _BL_URGENCY_MAX && m->request.bytes != BL_UNSET);
        } else if (type == BL_WIRE_HINTS) {
                check(m->hints.kind > 0 && m->hints.kind < _BL_HINT_MAX);
        }
}

/* Whatever can be decoded survives a round trip. */
static void check_frame(const struct bl_wire_frame *f)
{
        static union message m[2];
        uint8_t buf[BL_WIRE_FRAME_MAX];
        struct bl_wire_iter it;
        struct bl_wire_frame again;
        struct bl_wire_field field;
        size_t pos = 0;
        int n;

        check(f->size <= BL_WIRE_BODY_MAX);
        while (bl_wire_field_next(f, &pos, &field) > 0)
                check(field.data >= f->body && field.data + field.size <= f->body + f->size && pos <= f->size);
        memset(m, 0, sizeof m);
        if (decode(f, &m[0]) != 0)
                return;
        check_bounds(f->type, &m[0]);
        n = encode(f->type, &m[0], buf, sizeof buf);
        /* flags that were absent are written: a full message has no room for them */
        if (n == -ENOBUFS && f->type == BL_WIRE_HINTS)
                return;
        check(n >= (int)BL_WIRE_HEADER);
        bl_wire_iter_init(&it, buf, (size_t)n);
        check(bl_wire_next(&it, &again) == 1);
        check(it.pos == (size_t)n && it.skipped == 0 && again.type == f->type);
        check(decode(&again, &m[1]) == 0);
        if (f->type == BL_WIRE_HINTS) {
                const struct bl_wire_hints *a = &m[0].hints;

                check(a->runs_size == 0 || (a->runs >= f->body && a->runs + a->runs_size <= f->body + f->size));
                check(a->runs_size == m[1].hints.runs_size);
                check(a->runs_size == 0 || memcmp(a->runs, m[1].hints.runs, a->runs_size) == 0);
                check_runs(a);
                m[0].hints.runs = m[1].hints.runs; /* each in a frame of its own */
        }
        check(memcmp(&m[0], &m[1], sizeof m[0]) == 0);
}

/* The frames of a stream as one number, read from one buffer. */
static uint32_t digest(uint32_t so_far, const struct bl_wire_frame *f)
{
        return so_far * 31 + bl_wire_crc(f->body, f->size) + f->type;
}

static uint32_t read_whole(const uint8_t *data, size_t size, size_t *ret_left, size_t *ret_skipped)
{
        struct bl_wire_iter it;
        struct bl_wire_frame f;
        uint32_t d = 0;
        size_t used = 0;

        bl_wire_iter_init(&it, data, size);
        while (bl_wire_next(&it, &f) > 0) {
                check(f.body >= data && f.body + f.size <= data + size);
                used += BL_WIRE_HEADER + f.size;
                check(it.pos == used + it.skipped);
                check_frame(&f);
                d = digest(d, &f);
        }
        check(it.pos == used + it.skipped && size - it.pos < BL_WIRE_FRAME_MAX);
        *ret_left = size - it.pos;
        *ret_skipped = it.skipped;
        return d;
}

/* The same through a reader's buffer, with reads of odd sizes. */
static uint32_t read_in_parts(const uint8_t *data, size_t size, unsigned int seed, size_t *ret_left,
                              size_t *ret_skipped)
{
        static uint8_t in[BL_WIRE_FRAME_MAX];
        size_t len = 0, skipped = 0;
        uint32_t d = 0;

        while (size > 0) {
                struct bl_wire_iter it;
                struct bl_wire_frame f;
                size_t n;

                seed = seed * 1103515245 + 12345;
                n = 1 + (seed >> 16) % (seed >> 8 & 1 ? 17 : 3000);
                n = n < size ? n : size;
                n = n < sizeof in - len ? n : sizeof in - len;
                check(n > 0); /* the buffer never fills without a frame */
                memcpy(in + len, data, n);
                data += n;
                size -= n;
                len += n;
                bl_wire_iter_init(&it, in, len);
                while (bl_wire_next(&it, &f) > 0)
                        d = digest(d, &f);
                skipped += it.skipped;
                len -= it.pos;
                memmove(in, in + it.pos, len);
        }
        *ret_left = len;
        *ret_skipped = skipped;
        return d;
}

static void check_stream(const uint8_t *data, size_t size, unsigned int seed)
{
        size_t left[2], skipped[2];
        uint32_t whole = read_whole(data, size, &left[0], &skipped[0]);
        uint32_t parts = read_in_parts(data, size, seed, &left[1], &skipped[1]);

        check(whole == parts && left[0] == left[1] && skipped[0] == skipped[1]);
}

static void check_as_body(const uint8_t *data, size_t size)
{
        for (size_t i = 0; i < N_TYPES; i++) {
                struct bl_wire_frame f = {
                        .type = types[i],
                        .size = size < BL_WIRE_BODY_MAX ? size : BL_WIRE_BODY_MAX,
                        .body = data,
                };

                check_frame(&f);
        }
}

static void check_resync(const uint8_t *data, size_t size)
{
        static uint8_t stream[2 * BL_WIRE_FRAME_MAX];
        struct bl_wire_stats stats;
        struct bl_wire_iter it;
        struct bl_wire_frame f;
        int n;

        size = size < BL_WIRE_FRAME_MAX ? size : BL_WIRE_FRAME_MAX;
        if (size > 0)
                memcpy(stream, data, size);
        for (size_t i = 0; i + 4 <= size; i++)
                if (memcmp(stream + i, "\xbaLST", 4) == 0)
                        stream[i] = 0;
        bl_wire_stats_init(&stats);
        stats.v[BL_STAT_SEQUENCE] = size;
        n = bl_wire_encode_stats(&stats, stream + size, BL_WIRE_FRAME_MAX);
        check(n > 0);
        bl_wire_iter_init(&it, stream, size + (size_t)n);
        check(bl_wire_next(&it, &f) == 1 && it.skipped == size && it.pos == it.size);
        check(bl_wire_decode_stats(&f, &stats) == 0 && stats.v[BL_STAT_SEQUENCE] == size);
}

/* Reads the input as orders: a sound frame, one cut short, one with a damaged
 * byte, or plain bytes. */
static void check_script(const uint8_t *data, size_t size, unsigned int seed)
{
        static uint8_t stream[STREAM_MAX];
        size_t len = 0;

        while (size >= 4 && len + BL_WIRE_FRAME_MAX <= sizeof stream) {
                struct bl_wire_writer w;
                uint8_t order = data[0], arg = data[1];
                size_t n = data[2] | (size_t)(data[3] & 15) << 8;
                int framed;

                data += 4;
                size -= 4;
                n = n < size ? n : size;
                if ((order & 3) == 3) {
                        memcpy(stream + len, data, n);
                        len += n;
                } else {
                        bl_wire_begin(&w, stream + len, BL_WIRE_FRAME_MAX, types[(order >> 2) % N_TYPES]);
                        bl_wire_put(&w, arg & 31, data, n);
                        bl_wire_put_u64(&w, 1, arg);
                        framed = bl_wire_end(&w);
                        if (framed < 0)
                                return;
                        if ((order & 3) == 1)
                                stream[len + arg % (size_t)framed] ^= (uint8_t)(order | 1);
                        len += (order & 3) == 2 ? arg % (size_t)framed : (size_t)framed;
                }
                data += n;
                size -= n;
        }
        check_stream(stream, len, seed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        unsigned int seed = size > 0 ? data[size - 1] : 0;

        check_stream(data, size, seed);
        check_as_body(data, size);
        check_as_runs(data, size);
        check_resync(data, size);
        check_script(data, size, seed);
        return 0;
}
