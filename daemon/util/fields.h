/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The kernel's "Key:   123 kB" and "key 123" files, in one pass into a struct
 * of uint64_t.  Pure; does not allocate. */
#ifndef BALLAST_UTIL_FIELDS_H
#define BALLAST_UTIL_FIELDS_H

#include <stddef.h>

#include <ballast/units.h>

struct bl_field {
        const char *key;
        size_t len; /* of key */
        size_t offset; /* of the uint64_t in the struct */
        bool sum; /* all lines that begin with key, added up */
};

#define BL_FIELD(type, member, name)                                                     \
        {                                                                                \
                .key = (name), .len = sizeof(name) - 1, .offset = offsetof(type, member) \
        }
#define BL_FIELD_SUM(type, member, prefix)                                                                \
        {                                                                                                 \
                .key = (prefix), .len = sizeof(prefix) - 1, .offset = offsetof(type, member), .sum = true \
        }

/*
 * Sets the fields that are there and makes the others BL_UNSET.  A "kB" value
 * becomes bytes.  Of a key that stands twice the first counts.  Returns how
 * many fields were found; -EBADMSG: a field's value is not a number, or its
 * line is cut off; -ERANGE: it does not fit.  On failure the struct holds
 * anything: parse into a local one.
 */
int bl_fields_parse(const char *text, const struct bl_field *fields, size_t n, void *ret);

#endif
