/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* "Did you mean": the closest of some known words. */
#ifndef BALLAST_UTIL_SUGGEST_H
#define BALLAST_UTIL_SUGGEST_H

#include <stddef.h>

/* Damerau-Levenshtein distance (adjacent swap counts one), deaf to case and to
 * '-', '_' and blanks; SIZE_MAX when a word is longer than 64. */
size_t bl_word_distance(const char *a, const char *b);

/* The closest of `n` words if it is near enough to be worth saying (a third of
 * the word's length), otherwise NULL. */
const char *bl_suggest(const char *word, const char *const *words, size_t n);

#endif
