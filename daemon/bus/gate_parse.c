/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <string.h>

#include <ballast/units.h>

#include "daemon/bus/gate.h"

/* Without its NUL. */
static ssize_t put(uint8_t *out, const char *s)
{
        size_t n = 0;

        for (; s[n]; n++)
                out[n] = (uint8_t)s[n];
        return (ssize_t)n;
}

static bool is(const struct bl_gate_parser *p, const char *word)
{
        return p->line_len == strlen(word) && memcmp(p->line, word, p->line_len) == 0;
}

static bool begins(const struct bl_gate_parser *p, const char *word)
{
        size_t n = strlen(word);

        return p->line_len > n && memcmp(p->line, word, n) == 0 && p->line[n] == ' ';
}

/* One line of the dialogue, without its end.  Each is answered by sd-bus with
 * exactly one line, so one goes out for each, save after BEGIN. */
static ssize_t auth_line(struct bl_gate_parser *p, uint8_t *out)
{
        if (is(p, "AUTH EXTERNAL")) {
                p->mechanism = true;
                return put(out, "AUTH EXTERNAL\r\n"); /* answer: DATA */
        }
        if (begins(p, "AUTH EXTERNAL")) {
                p->mechanism = true;
                return put(out, "AUTH EXTERNAL 30\r\n"); /* answer: OK */
        }
        if (is(p, "AUTH") || begins(p, "AUTH"))
                return put(out, "AUTH\r\n"); /* answer: REJECTED EXTERNAL ... */
        if (is(p, "DATA") || begins(p, "DATA")) {
                if (!p->mechanism)
                        return -EBADMSG;
                return put(out, "DATA\r\n"); /* answer: OK */
        }
        if (is(p, "NEGOTIATE_UNIX_FD"))
                return put(out, "NEGOTIATE_UNIX_FD\r\n"); /* answer: ERROR, we take none */
        if (is(p, "BEGIN")) {
                if (!p->mechanism)
                        return -EBADMSG;
                p->running = true;
                return put(out, "BEGIN\r\n");
        }
        return -EBADMSG;
}

static ssize_t auth_byte(struct bl_gate_parser *p, uint8_t byte, uint8_t *out)
{
        ssize_t r;

        if (++p->auth_seen > BL_GATE_AUTH_MAX)
                return -EMSGSIZE;
        if (!p->started) {
                if (byte != 0)
                        return -EBADMSG;
                p->started = true;
                out[0] = 0;
                return 1;
        }
        if (byte == '\n' && p->line_len > 0 && p->line[p->line_len - 1] == '\r') {
                p->line_len--;
                r = auth_line(p, out);
                p->line_len = 0;
                return r;
        }
        if (byte == 0 || byte >= 0x80 || p->line_len >= sizeof(p->line))
                return -EBADMSG;
        p->line[p->line_len++] = (char)byte;
        return 0;
}

static uint32_t number(const uint8_t *p, bool little)
{
        return little ? (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24
                      : (uint32_t)p[3] | (uint32_t)p[2] << 8 | (uint32_t)p[1] << 16 | (uint32_t)p[0] << 24;
}

/* byte order, type, flags, version, body length, serial, length of the header
 * fields, which are padded to eight */
static int check_header(struct bl_gate_parser *p)
{
        const uint8_t *h = p->header;
        uint64_t body, fields, total;

        if ((h[0] != 'l' && h[0] != 'B') || h[3] != 1)
                return -EBADMSG;
        body = number(h + 4, h[0] == 'l');
        fields = number(h + 12, h[0] == 'l');
        total = sizeof(p->header) + (fields + 7) / 8 * 8 + body;
        if (total > BL_GATE_MESSAGE_MAX)
                return -EMSGSIZE;
        p->body_left = (size_t)total - sizeof(p->header);
        return 0;
}

static ssize_t message_bytes(struct bl_gate_parser *p, const uint8_t *in, size_t n, uint8_t *out, size_t *ret_used)
{
        size_t take;
        int r;

        if (p->body_left > 0) {
                take = bl_min(n, p->body_left);
                memcpy(out, in, take);
                p->body_left -= take;
                *ret_used = take;
                return (ssize_t)take;
        }
        take = bl_min(n, sizeof(p->header) - p->header_len);
        memcpy(p->header + p->header_len, in, take);
        p->header_len += take;
        *ret_used = take;
        if (p->header_len < sizeof(p->header))
                return 0;
        r = check_header(p);
        if (r < 0)
                return r;
        p->header_len = 0;
        memcpy(out, p->header, sizeof(p->header));
        return sizeof(p->header);
}

ssize_t bl_gate_parse(struct bl_gate_parser *p, const uint8_t *in, size_t n, uint8_t *out)
{
        size_t n_out = 0, used;
        ssize_t r;

        for (size_t i = 0; i < n; i += used) {
                used = 1;
                r = p->running ? message_bytes(p, in + i, n - i, out + n_out, &used) : auth_byte(p, in[i], out + n_out);
                if (r < 0)
                        return r;
                n_out += (size_t)r;
        }
        return (ssize_t)n_out;
}
