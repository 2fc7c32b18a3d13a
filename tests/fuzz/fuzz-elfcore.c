/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libFuzzer target for the headers of ELF cores.  The input is a file.  Oracles, beside the sanitizers:
 *
 *  - nothing is read beyond the file's end;
 *  - segments are within bounds, none wraps, and no two overlap in memory or in the file, by brute force;
 *  - a refusal of what the file says comes with its reason, a success with none;
 *  - the same file gives the same answer;
 *  - a file that goes on behind what was read (a core that is still being written) gives the same segments.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/pages/elfcore.h"

#define COMPARED 256U /* segments that are compared each with each */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
        const uint8_t *data;
        size_t size; /* bytes of data; behind them the file has zeros */
        uint64_t file;
};

static void check(bool ok)
{
        if (!ok)
                abort();
}

static int read_input(void *userdata, void *buf, size_t n, uint64_t at)
{
        const struct input *in = userdata;

        check(at <= in->file && n <= in->file - at);
        memset(buf, 0, n);
        if (at < in->size)
                memcpy(buf, in->data + at, n < in->size - at ? n : in->size - at);
        return 0;
}

static bool apart(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
        return a < b ? b - a >= a_size : a - b >= b_size;
}

static void check_segments(const struct bl_elf_segment *s, size_t n)
{
        uint64_t sum = 0;

        check(n > 0 && n <= BL_ELFCORE_SEGMENTS_MAX);
        for (size_t i = 0; i < n; i++) {
                check(s[i].memsz > 0 && s[i].memsz <= BL_ELFCORE_SIZE_MAX && s[i].filesz <= s[i].memsz);
                check(s[i].address + (s[i].memsz - 1) >= s[i].address);
                check(s[i].offset <= INT64_MAX && s[i].filesz <= INT64_MAX - s[i].offset);
                sum += s[i].memsz;
                check(sum <= BL_ELFCORE_SIZE_MAX);
                for (size_t k = 0; k < i && i < COMPARED; k++) {
                        check(apart(s[i].address, s[i].memsz, s[k].address, s[k].memsz));
                        check(s[i].filesz == 0 || s[k].filesz == 0 ||
                              apart(s[i].offset, s[i].filesz, s[k].offset, s[k].filesz));
                }
        }
}

static int parse(struct input *in, struct bl_elf_segment **ret, size_t *ret_n)
{
        const struct bl_elf_file f = {.read = read_input, .userdata = in, .size = in->file};
        char why[64];
        int r;

        memset(why, 'x', sizeof why);
        r = bl_elfcore_parse(&f, ret, ret_n, why, sizeof why);
        check(memchr(why, '\0', sizeof why) != NULL);
        check(r == 0 ? why[0] == '\0' : r == -ENOMEM || why[0] != '\0');
        check(r == 0 || r == -EBADMSG || r == -ENOTSUP || r == -ENODATA || r == -ENOMEM);
        if (r == 0)
                check_segments(*ret, *ret_n);
        return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct input in = {.data = data, .size = size, .file = size};
        struct bl_elf_segment *a = NULL, *b = NULL;
        size_t n_a = 0, n_b = 0;
        int r = parse(&in, &a, &n_a);

        /* what was found does not depend on what is behind it; what was cut off may now be whole */
        in.file = (uint64_t)size + (UINT64_C(1) << 20);
        if (parse(&in, &b, &n_b) == 0 && r == 0)
                check(n_a == n_b && memcmp(a, b, n_a * sizeof *a) == 0);
        else
                check(r != 0);
        free(a);
        free(b);
        return 0;
}
