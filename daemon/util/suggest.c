/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/util/suggest.h"

#include <stdint.h>

#define WORD_MAX 64

/* Lower case, without separators; the length, or SIZE_MAX. */
static size_t fold(const char *s, char out[static WORD_MAX])
{
        size_t n = 0;

        for (; *s; s++) {
                if (*s == '-' || *s == '_' || *s == ' ')
                        continue;
                if (n == WORD_MAX)
                        return SIZE_MAX;
                out[n++] = *s >= 'A' && *s <= 'Z' ? (char)(*s - 'A' + 'a') : *s;
        }
        return n;
}

static size_t min3(size_t a, size_t b, size_t c)
{
        const size_t m = a < b ? a : b;

        return m < c ? m : c;
}

size_t bl_word_distance(const char *a, const char *b)
{
        char x[WORD_MAX], y[WORD_MAX];
        const size_t nx = fold(a, x), ny = fold(b, y);
        size_t row[3][WORD_MAX + 1];

        if (nx == SIZE_MAX || ny == SIZE_MAX)
                return SIZE_MAX;

        for (size_t j = 0; j <= ny; j++)
                row[0][j] = j;
        for (size_t i = 1; i <= nx; i++) {
                size_t *now = row[i % 3];
                const size_t *above = row[(i - 1) % 3];

                now[0] = i;
                for (size_t j = 1; j <= ny; j++) {
                        now[j] = min3(above[j] + 1, now[j - 1] + 1, above[j - 1] + (x[i - 1] != y[j - 1]));
                        if (i > 1 && j > 1 && x[i - 1] == y[j - 2] && x[i - 2] == y[j - 1]) {
                                const size_t swapped = row[(i - 2) % 3][j - 2] + 1;

                                if (swapped < now[j])
                                        now[j] = swapped;
                        }
                }
        }
        return row[nx % 3][ny];
}

const char *bl_suggest(const char *word, const char *const *words, size_t n)
{
        const char *best = NULL;
        size_t best_distance = SIZE_MAX;
        char folded[WORD_MAX];
        const size_t len = fold(word, folded);

        if (len == SIZE_MAX)
                return NULL;
        for (size_t i = 0; i < n; i++) {
                const size_t d = bl_word_distance(word, words[i]);

                if (d < best_distance) {
                        best_distance = d;
                        best = words[i];
                }
        }
        return best && best_distance <= (len + 2) / 3 ? best : NULL;
}
