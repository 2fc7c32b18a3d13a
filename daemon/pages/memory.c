/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/pages/source.h"

struct memory {
        struct bl_source source;
        const uint8_t *bytes;
};

static int memory_look(struct bl_source *s, uint64_t first, size_t n, struct bl_page_look *ret)
{
        for (size_t i = 0; i < n; i++)
                ret[i] = (struct bl_page_look){
                        .state = first + i < s->n_pages ? BL_PAGE_PRESENT : BL_PAGE_ABSENT,
                };
        return 0;
}

static int memory_read(struct bl_source *s, const uint64_t *pages, size_t n, void *buf, bool *ret_ok)
{
        const struct memory *m = (const struct memory *)s;

        for (size_t i = 0; i < n; i++) {
                ret_ok[i] = pages[i] < s->n_pages;
                if (ret_ok[i])
                        memcpy((uint8_t *)buf + i * BL_PAGE_SIZE, m->bytes + pages[i] * BL_PAGE_SIZE, BL_PAGE_SIZE);
        }
        return 0;
}

static int memory_again(struct bl_source *s)
{
        (void)s;
        return 0;
}

static struct bl_source *memory_free(struct bl_source *s)
{
        free(s->name);
        free(s);
        return NULL;
}

static const struct bl_source_ops memory_ops = {
        .look = memory_look,
        .read = memory_read,
        .again = memory_again,
        .free = memory_free,
};

int bl_source_memory(const char *name, const void *pages, uint64_t n_pages, struct bl_source **ret)
{
        struct memory *m = calloc(1, sizeof(*m));

        if (!m)
                return -ENOMEM;
        m->source = (struct bl_source){.ops = &memory_ops, .name = strdup(name), .n_pages = n_pages, .still = true};
        m->bytes = pages;
        if (!m->source.name) {
                free(m);
                return -ENOMEM;
        }
        *ret = &m->source;
        return 0;
}
