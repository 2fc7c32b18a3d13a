/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/util/fields.h"

#include <errno.h>
#include <string.h>

static const char *skip_blanks(const char *p)
{
        while (*p == ' ' || *p == '\t')
                p++;
        return p;
}

/* "   123 kB" and the end of the line */
static int parse_value(const char *p, uint64_t *ret)
{
        uint64_t v = 0;

        p = skip_blanks(p);
        if (*p < '0' || *p > '9')
                return -EBADMSG;
        for (; *p >= '0' && *p <= '9'; p++)
                if (__builtin_mul_overflow(v, 10U, &v) || __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
                        return -ERANGE;
        p = skip_blanks(p);
        if (p[0] == 'k' && p[1] == 'B') {
                if (__builtin_mul_overflow(v, 1024U, &v))
                        return -ERANGE;
                p = skip_blanks(p + 2);
        }
        if (*p != '\n' || v == BL_UNSET)
                return -EBADMSG;
        *ret = v;
        return 0;
}

/* Up to a colon, a blank or the end; strcspn costs several times as much for such short words. */
static size_t word_length(const char *p)
{
        size_t n = 0;

        while (p[n] && p[n] != ':' && p[n] != ' ' && p[n] != '\t' && p[n] != '\n')
                n++;
        return n;
}

static bool matches(const struct bl_field *f, const char *line, size_t key_len)
{
        if (f->sum ? key_len < f->len : key_len != f->len)
                return false;
        return memcmp(f->key, line, f->len) == 0;
}

int bl_fields_parse(const char *text, const struct bl_field *fields, size_t n, void *ret)
{
        size_t expected = 0;
        int found = 0;

        for (size_t i = 0; i < n; i++)
                *(uint64_t *)((char *)ret + fields[i].offset) = BL_UNSET;

        for (const char *line = text; *line;) {
                const size_t key_len = word_length(line);
                const char *end;

                /* the kernel's order is ours mostly, so look where the last one was found first */
                for (size_t k = 0; k < n; k++) {
                        const struct bl_field *f = &fields[(expected + k) % n];
                        uint64_t *value = (uint64_t *)((char *)ret + f->offset), v;
                        int r;

                        if (!matches(f, line, key_len))
                                continue;
                        if (*value != BL_UNSET && !f->sum)
                                break;
                        r = parse_value(line + key_len + (line[key_len] == ':'), &v);
                        if (r < 0)
                                return r;
                        if (*value == BL_UNSET)
                                found++;
                        *value = *value == BL_UNSET ? v : bl_add_sat(*value, v);
                        expected = (expected + k) % n;
                        break;
                }

                end = strchr(line, '\n');
                if (!end)
                        break;
                line = end + 1;
        }
        return found;
}
