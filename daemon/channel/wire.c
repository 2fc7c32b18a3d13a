/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The guest protocol's encoder and decoder: pure, libc only, shared with the agent. */
#include <errno.h>
#include <string.h>

#include <ballast/wire.h>

static const uint8_t magic[4] = {0xBA, 'L', 'S', 'T'};

#define FIELD_HEADER 4U

enum hello_tag {
        HELLO_MAJOR = 1,
        HELLO_MINOR = 2,
        HELLO_FEATURES = 3,
        HELLO_BOOT_ID = 4,
        HELLO_VERSION = 5,
        HELLO_KERNEL = 6,
};

enum welcome_tag {
        WELCOME_MAJOR = 1,
        WELCOME_MINOR = 2,
        WELCOME_PERIOD = 3,
        WELCOME_ASK = 4,
};

enum pressure_tag {
        PRESSURE_STALL = 1,
        PRESSURE_WINDOW = 2,
        PRESSURE_FULL = 3,
        _PRESSURE_MAX,
};

enum request_tag {
        REQUEST_BYTES = 1,
        REQUEST_URGENCY = 2,
        REQUEST_DEADLINE = 3,
        _REQUEST_MAX,
};

enum hints_tag {
        HINTS_SCAN = 1,
        HINTS_KIND = 2,
        HINTS_FLAGS = 3,
        HINTS_FILE = 4,
        HINTS_RUNS = 5,
};

enum result_tag {
        RESULT_ID = 1,
        RESULT_STATUS = 2,
        RESULT_BYTES = 3,
        RESULT_TOOK = 4,
        RESULT_SPARED = 5, /* a text in the stored stream of an imagined newer version: never used */
        RESULT_NEED = 6,
        RESULT_HAVE = 7,
        _RESULT_MAX,
};

enum action_tag {
        ACTION_ID = 1,
        ACTION_KIND = 2,
        ACTION_BYTES = 3,
        _ACTION_MAX,
};

/* Larger page numbers are no guest's: 2^52 pages are 16 EiB. */
#define PAGES_MAX (UINT64_C(1) << 52)

#define LEB_MAX 10U /* bytes of a number of 64 bits, 7 in each */

static uint16_t get16(const uint8_t *p)
{
        return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t get32(const uint8_t *p)
{
        return (uint32_t)get16(p) | (uint32_t)get16(p + 2) << 16;
}

static uint64_t get64(const uint8_t *p)
{
        return (uint64_t)get32(p) | (uint64_t)get32(p + 4) << 32;
}

static void put16(uint8_t *p, uint16_t v)
{
        p[0] = (uint8_t)v;
        p[1] = (uint8_t)(v >> 8);
}

static void put32(uint8_t *p, uint32_t v)
{
        put16(p, (uint16_t)v);
        put16(p + 2, (uint16_t)(v >> 16));
}

static void put64(uint8_t *p, uint64_t v)
{
        put32(p, (uint32_t)v);
        put32(p + 4, (uint32_t)(v >> 32));
}

/* Four bits at a time: half a kilobyte a second needs no larger table, and the
 * agent counts its bytes. */
uint32_t bl_wire_crc(const void *data, size_t size)
{
        static const uint32_t table[16] = {
                0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
                0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
        };
        const uint8_t *p = data;
        uint32_t crc = UINT32_MAX;

        for (size_t i = 0; i < size; i++) {
                crc ^= p[i];
                crc = crc >> 4 ^ table[crc & 15];
                crc = crc >> 4 ^ table[crc & 15];
        }
        return ~crc;
}

/* --- reading --------------------------------------------------------------- */

void bl_wire_iter_init(struct bl_wire_iter *it, const void *data, size_t size)
{
        *it = (struct bl_wire_iter){.data = data, .size = size};
}

static void skip_to(struct bl_wire_iter *it, size_t pos)
{
        it->skipped += pos - it->pos;
        it->pos = pos;
}

/* Moves to the next place that is a magic, or its start where the data ends.
 * False: there is none, and all is skipped. */
static bool find_magic(struct bl_wire_iter *it)
{
        while (it->pos < it->size) {
                const uint8_t *p = memchr(it->data + it->pos, magic[0], it->size - it->pos);
                size_t left;

                if (!p)
                        break;
                skip_to(it, (size_t)(p - it->data));
                left = it->size - it->pos;
                if (memcmp(p, magic, left < sizeof magic ? left : sizeof magic) == 0)
                        return true;
                skip_to(it, it->pos + 1);
        }
        skip_to(it, it->size);
        return false;
}

int bl_wire_next(struct bl_wire_iter *it, struct bl_wire_frame *ret)
{
        while (find_magic(it)) {
                const uint8_t *p = it->data + it->pos;
                size_t left = it->size - it->pos;
                size_t n;

                if (left < BL_WIRE_HEADER)
                        return 0;
                n = get16(p + 6);
                it->checked += 12;
                if (n > BL_WIRE_BODY_MAX || get32(p + 12) != bl_wire_crc(p, 12)) {
                        skip_to(it, it->pos + 1);
                        continue;
                }
                if (left - BL_WIRE_HEADER < n)
                        return 0;
                it->checked += n;
                if (get32(p + 8) != bl_wire_crc(p + BL_WIRE_HEADER, n)) {
                        skip_to(it, it->pos + 1);
                        continue;
                }
                it->pos += BL_WIRE_HEADER + n;
                *ret = (struct bl_wire_frame){.type = get16(p + 4), .size = n, .body = p + BL_WIRE_HEADER};
                return 1;
        }
        return 0;
}

int bl_wire_field_next(const struct bl_wire_frame *f, size_t *pos, struct bl_wire_field *ret)
{
        size_t left = f->size - *pos;
        size_t n;

        if (left == 0)
                return 0;
        if (left < FIELD_HEADER)
                return -EBADMSG;
        n = get16(f->body + *pos + 2);
        if (left - FIELD_HEADER < n)
                return -EBADMSG;
        *ret = (struct bl_wire_field){
                .tag = get16(f->body + *pos),
                .size = (uint16_t)n,
                .data = f->body + *pos + FIELD_HEADER,
        };
        *pos += FIELD_HEADER + n;
        return 1;
}

static int field_u64(const struct bl_wire_field *f, uint64_t *ret)
{
        if (f->size < 8)
                return -EBADMSG;
        *ret = get64(f->data);
        return 0;
}

/* These texts go into logs and terminals: only printable ASCII passes. */
static int field_text(const struct bl_wire_field *f, char *ret, size_t size)
{
        size_t n = f->size < size - 1 ? f->size : size - 1;

        memset(ret, 0, size);
        for (size_t i = 0; i < n; i++)
                ret[i] = f->data[i] >= 0x20 && f->data[i] < 0x7f ? (char)f->data[i] : '?';
        return 0;
}

/* Takes one field into a message; 0 also for one that it does not know. */
typedef int (*take_field_fn)(void *message, const struct bl_wire_field *f);

static int decode(const struct bl_wire_frame *f, enum bl_wire_type type, take_field_fn take, void *message)
{
        struct bl_wire_field field;
        size_t pos = 0;
        int r;

        if (f->type != type)
                return -EBADMSG;
        while ((r = bl_wire_field_next(f, &pos, &field)) > 0) {
                r = take(message, &field);
                if (r < 0)
                        return r;
        }
        return r;
}

static int hello_field(void *message, const struct bl_wire_field *f)
{
        struct bl_wire_hello *m = message;

        switch (f->tag) {
        case HELLO_MAJOR:
                return field_u64(f, &m->major);
        case HELLO_MINOR:
                return field_u64(f, &m->minor);
        case HELLO_FEATURES:
                return field_u64(f, &m->features);
        case HELLO_BOOT_ID:
                if (f->size < sizeof m->boot_id)
                        return -EBADMSG;
                memcpy(m->boot_id, f->data, sizeof m->boot_id);
                return 0;
        case HELLO_VERSION:
                return field_text(f, m->version, sizeof m->version);
        case HELLO_KERNEL:
                return field_text(f, m->kernel, sizeof m->kernel);
        default: /* of a newer minor version */
                return 0;
        }
}

int bl_wire_decode_hello(const struct bl_wire_frame *f, struct bl_wire_hello *ret)
{
        struct bl_wire_hello m = {.major = BL_UNSET};
        int r = decode(f, BL_WIRE_HELLO, hello_field, &m);

        if (r < 0)
                return r;
        if (m.major == BL_UNSET)
                return -EBADMSG;
        /* "not known" of these reads as none */
        m.minor = bl_or_zero(m.minor);
        m.features = bl_or_zero(m.features);
        *ret = m;
        return 0;
}

static int welcome_field(void *message, const struct bl_wire_field *f)
{
        struct bl_wire_welcome *m = message;

        switch (f->tag) {
        case WELCOME_MAJOR:
                return field_u64(f, &m->major);
        case WELCOME_MINOR:
                return field_u64(f, &m->minor);
        case WELCOME_PERIOD:
                return field_u64(f, &m->period);
        case WELCOME_ASK:
                return field_u64(f, &m->ask);
        default: /* of a newer minor version */
                return 0;
        }
}

int bl_wire_decode_welcome(const struct bl_wire_frame *f, struct bl_wire_welcome *ret)
{
        struct bl_wire_welcome m = {.major = BL_UNSET, .period = BL_UNSET};
        int r = decode(f, BL_WIRE_WELCOME, welcome_field, &m);

        if (r < 0)
                return r;
        if (m.major == BL_UNSET)
                return -EBADMSG;
        m.minor = bl_or_zero(m.minor);
        m.ask = bl_or_zero(m.ask);
        *ret = m;
        return 0;
}

/* --- messages that are numbers and nothing else, in an array by tag --- */

static void unset(uint64_t *v, size_t n)
{
        for (size_t i = 0; i < n; i++)
                v[i] = BL_UNSET;
}

struct numbers {
        uint64_t *v;
        size_t n;
};

static int numbers_field(void *message, const struct bl_wire_field *f)
{
        struct numbers *m = message;

        if (f->tag == 0 || f->tag >= m->n)
                return 0; /* of a newer minor version */
        return field_u64(f, &m->v[f->tag]);
}

/* BL_UNSET where there is none. */
static int decode_numbers(const struct bl_wire_frame *f, enum bl_wire_type type, uint64_t *v, size_t n)
{
        struct numbers m = {.v = v, .n = n};

        unset(v, n);
        return decode(f, type, numbers_field, &m);
}

void bl_wire_stats_init(struct bl_wire_stats *ret)
{
        unset(ret->v, _BL_STAT_MAX);
}

void bl_wire_entitlement_init(struct bl_wire_entitlement *ret)
{
        unset(ret->v, _BL_GRANT_MAX);
}

int bl_wire_decode_stats(const struct bl_wire_frame *f, struct bl_wire_stats *ret)
{
        struct bl_wire_stats m = {0};
        int r = decode_numbers(f, BL_WIRE_STATS, m.v, _BL_STAT_MAX);

        if (r < 0)
                return r;
        *ret = m;
        return 0;
}

int bl_wire_decode_entitlement(const struct bl_wire_frame *f, struct bl_wire_entitlement *ret)
{
        struct bl_wire_entitlement m = {0};
        int r = decode_numbers(f, BL_WIRE_ENTITLEMENT, m.v, _BL_GRANT_MAX);

        if (r < 0)
                return r;
        *ret = m;
        return 0;
}

int bl_wire_decode_pressure(const struct bl_wire_frame *f, struct bl_wire_pressure *ret)
{
        uint64_t v[_PRESSURE_MAX];
        int r = decode_numbers(f, BL_WIRE_PRESSURE, v, _PRESSURE_MAX);

        if (r < 0)
                return r;
        if (v[PRESSURE_STALL] == BL_UNSET)
                return -EBADMSG;
        *ret = (struct bl_wire_pressure){
                .stall = v[PRESSURE_STALL],
                .window = v[PRESSURE_WINDOW],
                .full = bl_or_zero(v[PRESSURE_FULL]),
        };
        return 0;
}

int bl_wire_decode_request(const struct bl_wire_frame *f, struct bl_wire_request *ret)
{
        uint64_t v[_REQUEST_MAX];
        int r = decode_numbers(f, BL_WIRE_REQUEST, v, _REQUEST_MAX);

        if (r < 0)
                return r;
        if (v[REQUEST_BYTES] == BL_UNSET)
                return -EBADMSG;
        *ret = (struct bl_wire_request){
                .bytes = v[REQUEST_BYTES],
                .urgency =
                        v[REQUEST_URGENCY] == BL_UNSET ? BL_URGENCY_NOW : bl_min(v[REQUEST_URGENCY], BL_URGENCY_STOP),
                .deadline = v[REQUEST_DEADLINE],
        };
        return 0;
}

static int result_field(void *message, const struct bl_wire_field *f)
{
        return f->tag == RESULT_SPARED ? 0 : numbers_field(message, f);
}

int bl_wire_decode_result(const struct bl_wire_frame *f, struct bl_wire_result *ret)
{
        uint64_t v[_RESULT_MAX];
        int r;

        unset(v, _RESULT_MAX);
        r = decode(f, BL_WIRE_RESULT, result_field, &(struct numbers){.v = v, .n = _RESULT_MAX});
        if (r < 0)
                return r;
        if (v[RESULT_ID] == BL_UNSET || v[RESULT_STATUS] == BL_UNSET)
                return -EBADMSG;
        *ret = (struct bl_wire_result){
                .id = v[RESULT_ID],
                .status = v[RESULT_STATUS],
                .bytes = v[RESULT_BYTES],
                .took = v[RESULT_TOOK],
                .need = v[RESULT_NEED],
                .have = v[RESULT_HAVE],
        };
        return 0;
}

int bl_wire_decode_action(const struct bl_wire_frame *f, struct bl_wire_action *ret)
{
        uint64_t v[_ACTION_MAX];
        int r = decode_numbers(f, BL_WIRE_ACTION, v, _ACTION_MAX);

        if (r < 0)
                return r;
        if (v[ACTION_ID] == BL_UNSET || v[ACTION_KIND] == BL_UNSET)
                return -EBADMSG;
        *ret = (struct bl_wire_action){.id = v[ACTION_ID], .kind = v[ACTION_KIND], .bytes = v[ACTION_BYTES]};
        return 0;
}

/* --- hints --- */

static int hints_field(void *message, const struct bl_wire_field *f)
{
        struct bl_wire_hints *m = message;

        switch (f->tag) {
        case HINTS_SCAN:
                return field_u64(f, &m->scan);
        case HINTS_KIND:
                return field_u64(f, &m->kind);
        case HINTS_FLAGS:
                return field_u64(f, &m->flags);
        case HINTS_FILE:
                return field_u64(f, &m->file);
        case HINTS_RUNS:
                m->runs = f->data;
                m->runs_size = f->size;
                return 0;
        default: /* of a newer minor version */
                return 0;
        }
}

int bl_wire_decode_hints(const struct bl_wire_frame *f, struct bl_wire_hints *ret)
{
        struct bl_wire_hints m = {.scan = BL_UNSET, .kind = BL_UNSET, .file = BL_UNSET};
        int r = decode(f, BL_WIRE_HINTS, hints_field, &m);

        if (r < 0)
                return r;
        if (m.scan == BL_UNSET || m.kind == BL_UNSET)
                return -EBADMSG;
        /* how its runs are written is not known here */
        if (m.kind == 0 || m.kind >= _BL_HINT_MAX)
                return -EOPNOTSUPP;
        m.flags = bl_or_zero(m.flags);
        *ret = m;
        return 0;
}

static int get_leb(const uint8_t *data, size_t size, size_t *pos, uint64_t *ret)
{
        uint64_t v = 0;

        for (size_t i = 0; i < LEB_MAX && *pos + i < size; i++) {
                uint8_t byte = data[*pos + i];

                if (i == LEB_MAX - 1 && byte > 1) /* bit 63 is the last */
                        return -EBADMSG;
                v |= (uint64_t)(byte & 0x7f) << (7 * i);
                if (byte & 0x80)
                        continue;
                *pos += i + 1;
                *ret = v;
                return 0;
        }
        return -EBADMSG;
}

static size_t put_leb(uint8_t *buf, uint64_t v)
{
        size_t n = 0;

        for (; v >= 0x80; v >>= 7)
                buf[n++] = (uint8_t)(v | 0x80);
        buf[n++] = (uint8_t)v;
        return n;
}

int bl_wire_run_next(const struct bl_wire_hints *h, size_t *pos, uint64_t *pfn, struct bl_wire_run *ret)
{
        struct bl_wire_run run = {0};
        uint64_t gap;
        size_t at = *pos;

        if (at >= h->runs_size)
                return 0;
        if (get_leb(h->runs, h->runs_size, &at, &gap) < 0 || get_leb(h->runs, h->runs_size, &at, &run.pages) < 0)
                return -EBADMSG;
        if (h->kind == BL_HINT_FILE && get_leb(h->runs, h->runs_size, &at, &run.index) < 0)
                return -EBADMSG;
        run.pfn = bl_add_sat(*pfn, gap);
        if (run.pages == 0 || bl_add_sat(run.pfn, run.pages) > PAGES_MAX ||
            bl_add_sat(run.index, run.pages) > PAGES_MAX)
                return -EBADMSG;
        *pos = at;
        *pfn = run.pfn + run.pages;
        *ret = run;
        return 1;
}

int bl_wire_run_put(uint64_t kind, const struct bl_wire_run *run, uint64_t *pfn, void *buf, size_t size)
{
        uint8_t leb[3 * LEB_MAX];
        size_t n;

        if (run->pages == 0 || run->pfn < *pfn || bl_add_sat(run->pfn, run->pages) > PAGES_MAX)
                return -EINVAL;
        n = put_leb(leb, run->pfn - *pfn);
        n += put_leb(leb + n, run->pages);
        if (kind == BL_HINT_FILE) {
                if (bl_add_sat(run->index, run->pages) > PAGES_MAX)
                        return -EINVAL;
                n += put_leb(leb + n, run->index);
        }
        if (n > size)
                return -ENOBUFS;
        memcpy(buf, leb, n);
        *pfn = run->pfn + run->pages;
        return (int)n;
}

/* --- writing --------------------------------------------------------------- */

void bl_wire_begin(struct bl_wire_writer *w, void *buf, size_t size, uint16_t type)
{
        *w = (struct bl_wire_writer){.buf = buf, .size = size < BL_WIRE_FRAME_MAX ? size : BL_WIRE_FRAME_MAX};
        if (w->size < BL_WIRE_HEADER) {
                w->full = true;
                return;
        }
        memcpy(w->buf, magic, sizeof magic);
        put16(w->buf + 4, type);
        w->len = BL_WIRE_HEADER;
}

void bl_wire_put(struct bl_wire_writer *w, uint16_t tag, const void *data, size_t size)
{
        if (w->full || w->size - w->len < FIELD_HEADER || w->size - w->len - FIELD_HEADER < size) {
                w->full = true;
                return;
        }
        put16(w->buf + w->len, tag);
        put16(w->buf + w->len + 2, (uint16_t)size);
        if (size > 0)
                memcpy(w->buf + w->len + FIELD_HEADER, data, size);
        w->len += FIELD_HEADER + size;
}

void bl_wire_put_u64(struct bl_wire_writer *w, uint16_t tag, uint64_t value)
{
        uint8_t v[8];

        if (value == BL_UNSET)
                return;
        put64(v, value);
        bl_wire_put(w, tag, v, sizeof v);
}

int bl_wire_end(struct bl_wire_writer *w)
{
        if (w->full)
                return -ENOBUFS;
        put16(w->buf + 6, (uint16_t)(w->len - BL_WIRE_HEADER));
        put32(w->buf + 8, bl_wire_crc(w->buf + BL_WIRE_HEADER, w->len - BL_WIRE_HEADER));
        put32(w->buf + 12, bl_wire_crc(w->buf, 12));
        return (int)w->len;
}

static void put_text(struct bl_wire_writer *w, uint16_t tag, const char *text, size_t size)
{
        bl_wire_put(w, tag, text, strnlen(text, size));
}

int bl_wire_encode_hello(const struct bl_wire_hello *m, void *buf, size_t size)
{
        struct bl_wire_writer w;

        bl_wire_begin(&w, buf, size, BL_WIRE_HELLO);
        bl_wire_put_u64(&w, HELLO_MAJOR, m->major);
        bl_wire_put_u64(&w, HELLO_MINOR, m->minor);
        bl_wire_put_u64(&w, HELLO_FEATURES, m->features);
        bl_wire_put(&w, HELLO_BOOT_ID, m->boot_id, sizeof m->boot_id);
        put_text(&w, HELLO_VERSION, m->version, sizeof m->version);
        put_text(&w, HELLO_KERNEL, m->kernel, sizeof m->kernel);
        return bl_wire_end(&w);
}

int bl_wire_encode_welcome(const struct bl_wire_welcome *m, void *buf, size_t size)
{
        struct bl_wire_writer w;

        bl_wire_begin(&w, buf, size, BL_WIRE_WELCOME);
        bl_wire_put_u64(&w, WELCOME_MAJOR, m->major);
        bl_wire_put_u64(&w, WELCOME_MINOR, m->minor);
        bl_wire_put_u64(&w, WELCOME_PERIOD, m->period);
        bl_wire_put_u64(&w, WELCOME_ASK, m->ask);
        return bl_wire_end(&w);
}

/* Those of an array by tag. */
static int encode_numbers(uint16_t type, const uint64_t *v, size_t n, void *buf, size_t size)
{
        struct bl_wire_writer w;

        bl_wire_begin(&w, buf, size, type);
        for (size_t tag = 1; tag < n; tag++)
                bl_wire_put_u64(&w, (uint16_t)tag, v[tag]);
        return bl_wire_end(&w);
}

int bl_wire_encode_stats(const struct bl_wire_stats *m, void *buf, size_t size)
{
        return encode_numbers(BL_WIRE_STATS, m->v, _BL_STAT_MAX, buf, size);
}

int bl_wire_encode_entitlement(const struct bl_wire_entitlement *m, void *buf, size_t size)
{
        return encode_numbers(BL_WIRE_ENTITLEMENT, m->v, _BL_GRANT_MAX, buf, size);
}

int bl_wire_encode_pressure(const struct bl_wire_pressure *m, void *buf, size_t size)
{
        uint64_t v[_PRESSURE_MAX] = {
                [PRESSURE_STALL] = m->stall,
                [PRESSURE_WINDOW] = m->window,
                [PRESSURE_FULL] = m->full,
        };

        return encode_numbers(BL_WIRE_PRESSURE, v, _PRESSURE_MAX, buf, size);
}

int bl_wire_encode_request(const struct bl_wire_request *m, void *buf, size_t size)
{
        uint64_t v[_REQUEST_MAX] = {
                [REQUEST_BYTES] = m->bytes,
                [REQUEST_URGENCY] = m->urgency,
                [REQUEST_DEADLINE] = m->deadline,
        };

        return encode_numbers(BL_WIRE_REQUEST, v, _REQUEST_MAX, buf, size);
}

int bl_wire_encode_hints(const struct bl_wire_hints *m, void *buf, size_t size)
{
        struct bl_wire_writer w;

        bl_wire_begin(&w, buf, size, BL_WIRE_HINTS);
        bl_wire_put_u64(&w, HINTS_SCAN, m->scan);
        bl_wire_put_u64(&w, HINTS_KIND, m->kind);
        bl_wire_put_u64(&w, HINTS_FLAGS, m->flags);
        bl_wire_put_u64(&w, HINTS_FILE, m->file);
        bl_wire_put(&w, HINTS_RUNS, m->runs, m->runs_size);
        return bl_wire_end(&w);
}

int bl_wire_encode_result(const struct bl_wire_result *m, void *buf, size_t size)
{
        uint64_t v[_RESULT_MAX] = {
                [RESULT_ID] = m->id,     [RESULT_STATUS] = m->status, [RESULT_BYTES] = m->bytes,
                [RESULT_TOOK] = m->took, [RESULT_SPARED] = BL_UNSET,  [RESULT_NEED] = m->need,
                [RESULT_HAVE] = m->have,
        };

        return encode_numbers(BL_WIRE_RESULT, v, _RESULT_MAX, buf, size);
}

int bl_wire_encode_action(const struct bl_wire_action *m, void *buf, size_t size)
{
        uint64_t v[_ACTION_MAX] = {[ACTION_ID] = m->id, [ACTION_KIND] = m->kind, [ACTION_BYTES] = m->bytes};

        return encode_numbers(BL_WIRE_ACTION, v, _ACTION_MAX, buf, size);
}
