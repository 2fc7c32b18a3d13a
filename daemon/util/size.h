/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sizes, ratios and time spans as people write them.
 *
 * All parsers take the whole string (blanks around it and between number and
 * unit are allowed, nothing else may follow), ignore the locale, never round
 * what the caller would not expect, and leave `ret` alone on failure:
 * -EINVAL for what cannot be read, -ERANGE for what does not fit.
 */
#ifndef BALLAST_UTIL_SIZE_H
#define BALLAST_UTIL_SIZE_H

#include <stddef.h>

#include <ballast/units.h>

/* Enough for every formatter here. */
#define BL_SIZE_BUF 32

/* "512M", "512MiB", "512 MiB", "1.5G", "4K", "536870912", "4096B".  Units are
 * binary only, in either case: B K M G T P E, with or without "iB"; "MB" is
 * refused, as nobody can say which of two sizes it means.  A fraction of a
 * byte is dropped. */
int bl_size_parse(const char *s, uint64_t *ret);

/* "812 MiB", "1.5 GiB", "0 B"; BL_UNSET is "-".  Three digits or so: for
 * people, not for reading back.  Returns buf. */
const char *bl_size_format(uint64_t bytes, char *buf, size_t size);

/* Exact and short, for files: "512M", "1536K", "536870913".  Reads back. */
const char *bl_size_format_exact(uint64_t bytes, char *buf, size_t size);

/* "75%", "0.5 %", "12.34%"; steps of 0.01 %; the sign is required.  Ratios
 * above 100 % are allowed; callers bound them. */
int bl_permyriad_parse(const char *s, permyriad_t *ret);

/* "75%", "0.5%", "12.34%".  Reads back. */
const char *bl_permyriad_format(permyriad_t p, char *buf, size_t size);

/* "2s", "500ms", "100us", "1min", "1.5s", "2h"; several may follow each other
 * ("1min 30s"); a bare number is seconds, as in systemd.time(7). */
int bl_span_parse(const char *s, usec_t *ret);

/* "2s", "500ms", "1min 30s"; BL_UNSET is "infinity".  Reads back, but for that. */
const char *bl_span_format(usec_t t, char *buf, size_t size);

/* yes/no, true/false, on/off, 1/0, in either case. */
int bl_bool_parse(const char *s, bool *ret);

/* Decimal digits only: no sign, no unit. */
int bl_uint_parse(const char *s, uint64_t *ret);

#endif
