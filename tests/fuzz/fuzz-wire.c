/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libFuzzer target for the guest protocol.  Oracles, beside the sanitizers:
 *
 *  - what was parsed, written again and parsed again is the same;
 *  - what is found does not depend on how the stream is cut into reads;
 *  - the reader never keeps a whole frame's worth of bytes, and loses none;
 *  - after any garbage without a magic the next frame is found, all garbage
 *    is skipped, and no more.
 *
 * Checksums would keep a fuzzer out, so the input is also used as a body, and
 * as a script from which a stream of sound and broken frames is made.
 */
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

/* Whatever can be decoded survives a round trip. */
static void check_frame(const struct bl_wire_frame *f)
{
        uint8_t buf[BL_WIRE_FRAME_MAX];
        struct bl_wire_iter it;
        struct bl_wire_frame again;
        struct bl_wire_field field;
        struct bl_wire_hello h[2] = {0};
        struct bl_wire_welcome w[2] = {0};
        struct bl_wire_stats s[2] = {0};
        size_t pos = 0;
        int n = 0;

        check(f->size <= BL_WIRE_BODY_MAX);
        while (bl_wire_field_next(f, &pos, &field) > 0)
                check(field.data >= f->body && field.data + field.size <= f->body + f->size && pos <= f->size);

        if (bl_wire_decode_hello(f, &h[0]) == 0) {
                check(memchr(h[0].version, 0, sizeof h[0].version) && memchr(h[0].kernel, 0, sizeof h[0].kernel));
                n = bl_wire_encode_hello(&h[0], buf, sizeof buf);
        } else if (bl_wire_decode_welcome(f, &w[0]) == 0) {
                n = bl_wire_encode_welcome(&w[0], buf, sizeof buf);
        } else if (bl_wire_decode_stats(f, &s[0]) == 0) {
                n = bl_wire_encode_stats(&s[0], buf, sizeof buf);
        } else {
                return;
        }
        check(n >= (int)BL_WIRE_HEADER);
        bl_wire_iter_init(&it, buf, (size_t)n);
        check(bl_wire_next(&it, &again) == 1);
        check(it.pos == (size_t)n && it.skipped == 0 && again.type == f->type);
        switch ((enum bl_wire_type)f->type) {
        case BL_WIRE_HELLO:
                check(bl_wire_decode_hello(&again, &h[1]) == 0 && memcmp(&h[0], &h[1], sizeof h[0]) == 0);
                break;
        case BL_WIRE_WELCOME:
                check(bl_wire_decode_welcome(&again, &w[1]) == 0 && memcmp(&w[0], &w[1], sizeof w[0]) == 0);
                break;
        case BL_WIRE_STATS:
                check(bl_wire_decode_stats(&again, &s[1]) == 0 && memcmp(&s[0], &s[1], sizeof s[0]) == 0);
                break;
        }
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
        static const uint16_t types[] = {BL_WIRE_HELLO, BL_WIRE_WELCOME, BL_WIRE_STATS, 0x7777};

        for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
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
                static const uint16_t types[] = {BL_WIRE_HELLO, BL_WIRE_WELCOME, BL_WIRE_STATS, 0x0042};
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
                        bl_wire_begin(&w, stream + len, BL_WIRE_FRAME_MAX, types[order >> 2 & 3]);
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
        check_resync(data, size);
        check_script(data, size, seed);
        return 0;
}
