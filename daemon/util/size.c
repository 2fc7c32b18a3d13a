/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/util/size.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define FRACTION_ONE UINT64_C(1000000000)

__extension__ typedef unsigned __int128 wide_t;

static bool is_digit(char c)
{
        return c >= '0' && c <= '9';
}

static bool is_alpha(char c)
{
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static const char *skip_blanks(const char *s)
{
        while (*s == ' ' || *s == '\t')
                s++;
        return s;
}

/* "12" or "12.5" at *s, blanks around it: the whole part and billionths.  Digits beyond those are dropped. */
static int take_number(const char **s, uint64_t *ret_whole, uint64_t *ret_fraction, bool *ret_has_fraction)
{
        const char *p = skip_blanks(*s);
        uint64_t whole = 0, fraction = 0;
        bool has = false;

        if (!is_digit(*p))
                return -EINVAL;
        for (; is_digit(*p); p++)
                if (__builtin_mul_overflow(whole, 10U, &whole) ||
                    __builtin_add_overflow(whole, (uint64_t)(*p - '0'), &whole))
                        return -ERANGE;

        if (*p == '.') {
                uint64_t weight = FRACTION_ONE;

                if (!is_digit(*++p))
                        return -EINVAL;
                for (; is_digit(*p); p++) {
                        weight /= 10;
                        fraction += weight * (uint64_t)(*p - '0');
                }
                has = true;
        }

        *s = skip_blanks(p);
        *ret_whole = whole;
        *ret_fraction = fraction;
        *ret_has_fraction = has;
        return 0;
}

/* whole.fraction * unit */
static int scale(uint64_t whole, uint64_t fraction, uint64_t unit, uint64_t *ret)
{
        wide_t v = (wide_t)whole * unit + (wide_t)fraction * unit / FRACTION_ONE;

        /* BL_UNSET is no size */
        if (v >= BL_UNSET)
                return -ERANGE;
        *ret = (uint64_t)v;
        return 0;
}

int bl_size_parse(const char *s, uint64_t *ret)
{
        static const char letters[] = "KMGTPE";
        uint64_t whole, fraction, unit = 1;
        bool has_fraction;
        int r;

        r = take_number(&s, &whole, &fraction, &has_fraction);
        if (r < 0)
                return r;

        if (*s == 'B' || *s == 'b') {
                s++;
        } else if (*s) {
                const char *l = strchr(letters, *s >= 'a' && *s <= 'z' ? *s - 'a' + 'A' : *s);

                if (!l)
                        return -EINVAL;
                unit = UINT64_C(1) << (10 * (l - letters + 1));
                s++;
                if (strncasecmp(s, "iB", 2) == 0)
                        s += 2;
        }
        if (*skip_blanks(s))
                return -EINVAL;
        if (has_fraction && unit == 1)
                return -EINVAL;

        return scale(whole, fraction, unit, ret);
}

const char *bl_size_format(uint64_t bytes, char *buf, size_t size)
{
        static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
        const size_t last = sizeof units / sizeof *units - 1;
        size_t i = 0;

        if (bytes == BL_UNSET) {
                (void)snprintf(buf, size, "-");
                return buf;
        }

        for (;; i++) {
                const uint64_t unit = UINT64_C(1) << (10 * i);
                const uint64_t tenths = (uint64_t)(((wide_t)bytes * 10 + unit / 2) / unit);
                const uint64_t rounded = (uint64_t)(((wide_t)bytes + unit / 2) / unit);

                if (rounded >= 1024 && i < last)
                        continue;
                if (tenths < 1000 && tenths % 10)
                        (void)snprintf(buf, size, "%" PRIu64 ".%" PRIu64 " %s", tenths / 10, tenths % 10, units[i]);
                else
                        (void)snprintf(buf, size, "%" PRIu64 " %s", rounded, units[i]);
                return buf;
        }
}

const char *bl_size_format_exact(uint64_t bytes, char *buf, size_t size)
{
        static const char letters[] = "KMGTPE";
        size_t i = 0;

        while (bytes && bytes % 1024 == 0 && i < sizeof letters - 1) {
                bytes /= 1024;
                i++;
        }
        if (i)
                (void)snprintf(buf, size, "%" PRIu64 "%c", bytes, letters[i - 1]);
        else
                (void)snprintf(buf, size, "%" PRIu64, bytes);
        return buf;
}

int bl_permyriad_parse(const char *s, permyriad_t *ret)
{
        uint64_t whole, fraction, v;
        bool has_fraction;
        int r;

        r = take_number(&s, &whole, &fraction, &has_fraction);
        if (r < 0)
                return r;

        if (*s++ != '%' || *skip_blanks(s))
                return -EINVAL;
        /* finer than a permyriad: it would be lost in silence */
        if (fraction % (FRACTION_ONE / 100))
                return -EINVAL;

        r = scale(whole, fraction, 100, &v);
        if (r < 0)
                return r;
        if (v > UINT32_MAX)
                return -ERANGE;
        *ret = (permyriad_t)v;
        return 0;
}

const char *bl_permyriad_format(permyriad_t p, char *buf, size_t size)
{
        if (p % 100 == 0)
                (void)snprintf(buf, size, "%" PRIu32 "%%", p / 100);
        else if (p % 10 == 0)
                (void)snprintf(buf, size, "%" PRIu32 ".%" PRIu32 "%%", p / 100, p % 100 / 10);
        else
                (void)snprintf(buf, size, "%" PRIu32 ".%02" PRIu32 "%%", p / 100, p % 100);
        return buf;
}

static const struct {
        const char *name;
        usec_t usec;
} span_units[] = {
        /* the first of each size is the one that is written */
        {"h", 3600 * BL_SEC}, {"min", 60 * BL_SEC}, {"s", BL_SEC},         {"ms", BL_MSEC},       {"us", 1},
        {"m", 60 * BL_SEC},   {"sec", BL_SEC},      {"hr", 3600 * BL_SEC}, {"d", 86400 * BL_SEC},
};
#define SPAN_UNITS_WRITTEN 5

int bl_span_parse(const char *s, usec_t *ret)
{
        usec_t sum = 0;

        do {
                uint64_t whole, fraction, part;
                usec_t unit = BL_SEC;
                bool has_fraction;
                size_t len = 0;
                int r;

                r = take_number(&s, &whole, &fraction, &has_fraction);
                if (r < 0)
                        return r;

                while (is_alpha(s[len]))
                        len++;
                if (len) {
                        size_t i;

                        for (i = 0; i < sizeof span_units / sizeof *span_units; i++)
                                if (strlen(span_units[i].name) == len && strncmp(span_units[i].name, s, len) == 0)
                                        break;
                        if (i == sizeof span_units / sizeof *span_units)
                                return -EINVAL;
                        unit = span_units[i].usec;
                        s += len;
                } else if (*s) {
                        return -EINVAL;
                }

                r = scale(whole, fraction, unit, &part);
                if (r < 0)
                        return r;
                if (__builtin_add_overflow(sum, part, &sum) || sum == BL_UNSET)
                        return -ERANGE;
                s = skip_blanks(s);
        } while (*s);

        *ret = sum;
        return 0;
}

const char *bl_span_format(usec_t t, char *buf, size_t size)
{
        size_t used = 0;

        if (t == BL_UNSET) {
                (void)snprintf(buf, size, "infinity");
                return buf;
        }
        if (t == 0 || size == 0) {
                (void)snprintf(buf, size, "0");
                return buf;
        }

        buf[0] = '\0';
        for (size_t i = 0; i < SPAN_UNITS_WRITTEN && used < size; i++) {
                const usec_t n = t / span_units[i].usec;
                int len;

                if (n == 0)
                        continue;
                t %= span_units[i].usec;
                len = snprintf(buf + used, size - used, "%s%" PRIu64 "%s", used ? " " : "", n, span_units[i].name);
                if (len < 0)
                        break;
                used += (size_t)len;
        }
        return buf;
}

int bl_bool_parse(const char *s, bool *ret)
{
        static const char *const yes[] = {"yes", "true", "on", "1", "y"};
        static const char *const no[] = {"no", "false", "off", "0", "n"};

        for (size_t i = 0; i < sizeof yes / sizeof *yes; i++) {
                if (strcasecmp(s, yes[i]) == 0) {
                        *ret = true;
                        return 0;
                }
                if (strcasecmp(s, no[i]) == 0) {
                        *ret = false;
                        return 0;
                }
        }
        return -EINVAL;
}

int bl_uint_parse(const char *s, uint64_t *ret)
{
        uint64_t whole, fraction;
        bool has_fraction;
        int r;

        r = take_number(&s, &whole, &fraction, &has_fraction);
        if (r < 0)
                return r;
        if (has_fraction || *s)
                return -EINVAL;
        *ret = whole;
        return 0;
}
