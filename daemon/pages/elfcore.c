// SPDX-License-Identifier: LGPL-2.1-or-later
#include "daemon/pages/elfcore.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ballast/cleanup.h>

#define HEADERS_AT_A_TIME 64U

struct parse {
        const struct bl_elf_file *f;
        char *why;
        size_t why_size;
        Elf64_Ehdr ehdr;
        uint64_t n_headers;
        struct bl_elf_segment *segments;
        size_t n, room;
        uint64_t sum; /* of memsz */
        bool virtual; /* some segment has a virtual address: they are the addresses */
        uint64_t *physical; /* of each segment */
};

__attribute__((format(printf, 3, 4))) static int refuse(const struct parse *p, int error, const char *format, ...)
{
        va_list ap;

        va_start(ap, format);
        (void)vsnprintf(p->why, p->why_size, format, ap);
        va_end(ap);
        return error;
}

/* --- headers ---------------------------------------------------------------- */

static int read_header(struct parse *p)
{
        const Elf64_Ehdr *e = &p->ehdr;
        int r;

        if (p->f->size < sizeof *e)
                return refuse(p, -EBADMSG, "it ends within its ELF header, after %" PRIu64 " bytes", p->f->size);
        r = p->f->read(p->f->userdata, &p->ehdr, sizeof *e, 0);
        if (r < 0)
                return r;
        if (memcmp(e->e_ident, ELFMAG, SELFMAG) != 0)
                return refuse(p, -EBADMSG, "it does not begin as an ELF file does");
        if (e->e_ident[EI_CLASS] != ELFCLASS64)
                return refuse(p, -ENOTSUP, "it is no 64-bit ELF file (class %u)", e->e_ident[EI_CLASS]);
        if (e->e_ident[EI_DATA] != ELFDATA2LSB)
                return refuse(p, -ENOTSUP, "it is no little-endian ELF file (data encoding %u)", e->e_ident[EI_DATA]);
        if (e->e_type != ET_CORE)
                return refuse(p, -ENOTSUP, "it is an ELF file, but no core (type %u)", e->e_type);
        return 0;
}

/* More than 65,534 program headers do not fit into e_phnum, and are counted in the first section header (elf(5)). */
static int count_headers(struct parse *p)
{
        const Elf64_Ehdr *e = &p->ehdr;
        uint64_t end;
        Elf64_Shdr s;
        int r;

        p->n_headers = e->e_phnum;
        if (e->e_phnum == PN_XNUM) {
                if (e->e_shoff == 0 || e->e_shentsize != sizeof s ||
                    __builtin_add_overflow(e->e_shoff, sizeof s, &end) || end > p->f->size)
                        return refuse(p, -EBADMSG,
                                      "the number of its program headers is in a section header that it does not have");
                r = p->f->read(p->f->userdata, &s, sizeof s, e->e_shoff);
                if (r < 0)
                        return r;
                p->n_headers = s.sh_info;
        }
        if (p->n_headers == 0)
                return refuse(p, -ENODATA, "it has no program headers");
        if (p->n_headers > BL_ELFCORE_SEGMENTS_MAX)
                return refuse(p, -EBADMSG, "it says that it has %" PRIu64 " program headers", p->n_headers);
        if (e->e_phentsize != sizeof(Elf64_Phdr))
                return refuse(p, -EBADMSG, "its program headers have %u bytes each, not %zu", e->e_phentsize,
                              sizeof(Elf64_Phdr));
        if (__builtin_add_overflow(e->e_phoff, p->n_headers * sizeof(Elf64_Phdr), &end) || end > p->f->size)
                return refuse(p, -EBADMSG,
                              "its table of %" PRIu64 " program headers at byte %" PRIu64
                              " reaches beyond its end at byte %" PRIu64,
                              p->n_headers, e->e_phoff, p->f->size);
        return 0;
}

/* --- segments --------------------------------------------------------------- */

static int grow(struct parse *p)
{
        const size_t room = p->room ? p->room * 2 : HEADERS_AT_A_TIME;
        struct bl_elf_segment *s = reallocarray(p->segments, room, sizeof *s);
        uint64_t *physical;

        if (!s)
                return -ENOMEM;
        p->segments = s;
        physical = reallocarray(p->physical, room, sizeof *physical);
        if (!physical)
                return -ENOMEM;
        p->physical = physical;
        p->room = room;
        return 0;
}

static int take(struct parse *p, uint64_t number, const Elf64_Phdr *h)
{
        uint64_t end;
        int r;

        if (h->p_type != PT_LOAD || h->p_memsz == 0)
                return 0;
        if (h->p_filesz > h->p_memsz)
                return refuse(p, -EBADMSG,
                              "its program header %" PRIu64 " has more bytes in the file than in memory (%" PRIu64
                              " and %" PRIu64 ")",
                              number, h->p_filesz, h->p_memsz);
        p->sum += h->p_memsz <= BL_ELFCORE_SIZE_MAX ? h->p_memsz : BL_ELFCORE_SIZE_MAX + 1;
        if (p->sum > BL_ELFCORE_SIZE_MAX)
                return refuse(p, -EBADMSG, "its program header %" PRIu64 " makes it larger than any memory", number);
        if (__builtin_add_overflow(h->p_offset, h->p_filesz, &end) || end > INT64_MAX ||
            __builtin_add_overflow(h->p_vaddr, h->p_memsz - 1, &end) ||
            __builtin_add_overflow(h->p_paddr, h->p_memsz - 1, &end))
                return refuse(p, -EBADMSG, "its program header %" PRIu64 " has a range that wraps around", number);
        if (p->n == p->room) {
                r = grow(p);
                if (r < 0)
                        return r;
        }
        p->physical[p->n] = h->p_paddr;
        p->segments[p->n++] = (struct bl_elf_segment){
                .address = h->p_vaddr, .memsz = h->p_memsz, .offset = h->p_offset, .filesz = h->p_filesz};
        p->virtual = p->virtual || h->p_vaddr != 0;
        return 0;
}

static int read_segments(struct parse *p)
{
        Elf64_Phdr h[HEADERS_AT_A_TIME];

        for (uint64_t i = 0; i < p->n_headers; i += HEADERS_AT_A_TIME) {
                const uint64_t left = p->n_headers - i;
                const size_t n = left < HEADERS_AT_A_TIME ? (size_t)left : HEADERS_AT_A_TIME;
                int r = p->f->read(p->f->userdata, h, n * sizeof *h, p->ehdr.e_phoff + i * sizeof *h);

                for (size_t k = 0; k < n && r >= 0; k++)
                        r = take(p, i + k, &h[k]);
                if (r < 0)
                        return r;
        }
        /* QEMU gives a guest's memory no virtual addresses, the kernel and gcore a process's no physical ones */
        for (size_t i = 0; i < p->n && !p->virtual; i++)
                p->segments[i].address = p->physical[i];
        return p->n == 0 ? refuse(p, -ENODATA, "it has no segment with memory in it") : 0;
}

/* --- overlaps --------------------------------------------------------------- */

struct range {
        uint64_t start, size;
};

static int by_start(const void *a, const void *b)
{
        const struct range *x = a, *y = b;

        return x->start < y->start ? -1 : x->start > y->start;
}

static bool overlap(struct range *r, size_t n, uint64_t *ret_at)
{
        qsort(r, n, sizeof *r, by_start);
        for (size_t i = 1; i < n; i++) {
                if (r[i].start - r[i - 1].start < r[i - 1].size) {
                        *ret_at = r[i].start;
                        return true;
                }
        }
        return false;
}

static int check_overlaps(const struct parse *p)
{
        _cleanup_free_ struct range *r = calloc(p->n, sizeof *r);
        uint64_t at;
        size_t n = 0;

        if (!r)
                return -ENOMEM;
        for (size_t i = 0; i < p->n; i++)
                r[i] = (struct range){p->segments[i].address, p->segments[i].memsz};
        if (overlap(r, p->n, &at))
                return refuse(p, -EBADMSG, "two of its segments have the address 0x%" PRIx64, at);
        for (size_t i = 0; i < p->n; i++)
                if (p->segments[i].filesz)
                        r[n++] = (struct range){p->segments[i].offset, p->segments[i].filesz};
        if (overlap(r, n, &at))
                return refuse(p, -EBADMSG,
                              "two of its segments share byte %" PRIu64
                              " of the file (a guest's dump is to be made without paging)",
                              at);
        return 0;
}

int bl_elfcore_parse(const struct bl_elf_file *f, struct bl_elf_segment **ret, size_t *ret_n, char *why,
                     size_t why_size)
{
        struct parse p = {.f = f, .why = why, .why_size = why_size};
        int r;

        why[0] = '\0';
        r = read_header(&p);
        if (r >= 0)
                r = count_headers(&p);
        if (r >= 0)
                r = read_segments(&p);
        if (r >= 0)
                r = check_overlaps(&p);
        free(p.physical);
        if (r < 0) {
                free(p.segments);
                return r;
        }
        *ret = p.segments;
        *ret_n = p.n;
        return 0;
}
