/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Text from others that has to be UTF-8: JSON, D-Bus and OpenMetrics refuse the whole otherwise. */
#ifndef BALLAST_UTIL_UTF8_H
#define BALLAST_UTIL_UTF8_H

/* Puts '?' for each byte that is not part of a character (RFC 3629). */
void bl_utf8_clean(char *s);

#endif
