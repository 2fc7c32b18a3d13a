/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "daemon/control.h"
#include "daemon/ctl/ctl.h"
#include "daemon/util/size.h"

bool ctl_print_json(const struct ctl *c, const json_t *doc)
{
        size_t flags = isatty(STDOUT_FILENO) ? JSON_INDENT(2) | JSON_ENSURE_ASCII : JSON_COMPACT;

        if (!c->json)
                return false;
        (void)json_dumpf(doc, stdout, flags);
        putchar('\n');
        return true;
}

void ctl_print_message(const struct ctl *c, const char *message)
{
        _cleanup_free_ char *s = strdup(message ? message : "");
        json_t *doc;

        if (!s)
                return;
        ctl_make_text_safe(s, false);
        if (!c->json) {
                if (*s)
                        puts(s);
                return;
        }
        doc = json_pack("{s:i, s:b, s:s}", "schema", BL_SCHEMA_VERSION, "ok", 1, "message", s);
        (void)ctl_print_json(c, doc);
        json_decref(doc);
}

/* C0 and C1 (which UTF-8 spells 0xc2 0x80..0x9f), and DEL: names and
 * sentences come from guests and from whoever names VMs. */
void ctl_make_text_safe(char *s, bool keep_newlines)
{
        for (unsigned char *p = (unsigned char *)s; *p; p++) {
                if ((*p < 0x20 && !(keep_newlines && *p == '\n')) || *p == 0x7f)
                        *p = '?';
                else if (p[0] == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0)
                        p[0] = p[1] = '?';
        }
}

void ctl_make_safe(json_t *v)
{
        const char *key;
        json_t *child;
        size_t i;
        char *s;

        switch (json_typeof(v)) {
        case JSON_OBJECT:
                json_object_foreach(v, key, child)
                {
                        ctl_make_safe(child);
                }
                break;
        case JSON_ARRAY:
                json_array_foreach(v, i, child)
                {
                        ctl_make_safe(child);
                }
                break;
        case JSON_STRING:
                s = strdup(json_string_value(v));
                if (s) {
                        ctl_make_text_safe(s, false);
                        (void)json_string_set(v, s);
                }
                free(s);
                break;
        case JSON_INTEGER:
        case JSON_REAL:
        case JSON_TRUE:
        case JSON_FALSE:
        case JSON_NULL:
                break;
        }
}

uint64_t ctl_number(const json_t *object, const char *field)
{
        json_int_t v = json_integer_value(json_object_get(object, field));

        return v < 0 ? 0 : (uint64_t)v;
}

const char *ctl_size(const json_t *object, const char *field, char *buf, size_t size)
{
        const json_t *v = json_object_get(object, field);

        return bl_size_format(json_is_integer(v) ? ctl_number(object, field) : BL_UNSET, buf, size);
}

const char *ctl_string(const json_t *object, const char *field)
{
        const char *s = json_string_value(json_object_get(object, field));

        return s ? s : "";
}

bool ctl_true(const json_t *object, const char *field)
{
        return json_is_true(json_object_get(object, field));
}

const char *ctl_time(uint64_t us, char *buf, size_t size)
{
        time_t t = (time_t)(us / BL_SEC);
        struct tm tm;

        if (!localtime_r(&t, &tm) || strftime(buf, size, "%Y-%m-%d %H:%M:%S", &tm) == 0)
                (void)snprintf(buf, size, "-");
        return buf;
}

const char *ctl_color(const struct ctl *c, enum ctl_color color)
{
        if (!c->color)
                return "";
        switch (color) {
        case CTL_PLAIN:
                return "";
        case CTL_BOLD:
                return "\033[1m";
        case CTL_RED:
                return "\033[31m";
        case CTL_GREEN:
                return "\033[32m";
        case CTL_YELLOW:
                return "\033[33m";
        }
        return "";
}

const char *ctl_color_end(const struct ctl *c)
{
        return c->color ? "\033[0m" : "";
}

enum ctl_color ctl_state_color(const char *state)
{
        if (strcmp(state, "high") == 0 || strcmp(state, "clear") == 0)
                return CTL_GREEN;
        if (strcmp(state, "soft") == 0)
                return CTL_YELLOW;
        return CTL_RED;
}

void ctl_field(const char *label, const char *format, ...)
{
        va_list ap;

        printf("%-14s", label);
        va_start(ap, format);
        (void)vprintf(format, ap);
        va_end(ap);
        putchar('\n');
}
