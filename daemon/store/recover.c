// SPDX-License-Identifier: LGPL-2.1-or-later
/* Opening: a new pool, or what the last process left. */
#include "daemon/store/internal.h"

#include <string.h>
#include <sys/random.h>

#include "daemon/util/clock.h"

static uint32_t pages_for(uint64_t bytes)
{
        return (uint32_t)((bytes + BL_STORE_PAGE - 1) / BL_STORE_PAGE);
}

/* Where things lie, which the size of the arena alone decides. */
static struct bl_super plan(const struct bl_store *s)
{
        struct bl_super p = {
                .magic = BL_LAYOUT_MAGIC,
                .version = BL_LAYOUT_VERSION,
                .pages = s->n_pages,
                .directory = 1,
                .groups = 2,
        };

        p.exports = p.groups + pages_for(BL_GROUPS * sizeof(struct bl_group));
        p.map = p.exports + pages_for(BL_EXPORTS * sizeof(struct bl_record));
        p.first = p.map + pages_for((uint64_t)s->n_pages * sizeof(uint32_t));
        return p;
}

static uint64_t check_of(const struct bl_super *p)
{
        return bl_codec_check(p, offsetof(struct bl_super, check));
}

static void point(struct bl_store *s, const struct bl_super *p)
{
        s->first = p->first;
        s->directory = bl_page_at(s, p->directory);
        s->groups = bl_page_at(s, p->groups);
        s->records = bl_page_at(s, p->exports);
        s->map = bl_page_at(s, p->map);
}

/* The chunks that the fixed part lies in. */
static int populate_fixed(struct bl_store *s, const struct bl_super *p)
{
        for (uint32_t i = 0; i * BL_CHUNK_PAGES < p->first; i++) {
                int r = bl_arena_populate(s->arena, i);

                if (r < 0)
                        return r;
        }
        return 0;
}

static int make(struct bl_store *s, struct bl_super p)
{
        int r = populate_fixed(s, &p);

        if (r < 0)
                return r;
        while (p.incarnation == 0)
                if (getrandom(&p.incarnation, sizeof(p.incarnation), 0) != (ssize_t)sizeof(p.incarnation))
                        return -EIO;
        p.check = check_of(&p);
        memset((uint8_t *)s->super + sizeof(p.magic), 0, (size_t)p.first * BL_STORE_PAGE - sizeof(p.magic));
        memcpy((uint8_t *)s->super + sizeof(p.magic), (const uint8_t *)&p + sizeof(p.magic),
               sizeof(p) - sizeof(p.magic));
        point(s, &p);
        /* from now on it is one */
        __atomic_store_n(&s->super->magic, p.magic, __ATOMIC_RELEASE);
        return 0;
}

static int verify(struct bl_store *s, struct bl_super p)
{
        const struct bl_super *is = s->super;

        p.incarnation = is->incarnation;
        p.check = check_of(&p);
        if (p.incarnation == 0 || memcmp(is, &p, sizeof(p)) != 0)
                return -EBADMSG;
        point(s, &p);
        return populate_fixed(s, &p);
}

static bool record_ok(const struct bl_store *s, const struct bl_record *rec)
{
        return rec->size > 0 && rec->size <= BL_EXPORT_MAX && rec->size % BL_STORE_PAGE == 0 &&
               rec->group < BL_GROUPS && s->groups[rec->group].seed != 0 &&
               memchr(s->groups[rec->group].name, 0, BL_STORE_GROUP);
}

static int load_exports(struct bl_store *s)
{
        for (uint16_t i = 0; i < BL_EXPORTS; i++) {
                struct bl_record *rec = &s->records[i];
                struct bl_export *e;
                int r;

                if (rec->state != BL_RECORD_LIVE)
                        continue;
                if (!record_ok(s, rec)) {
                        /* nobody may open what is not known to be his */
                        __atomic_store_n(&rec->state, 0, __ATOMIC_RELEASE);
                        s->errors++;
                        continue;
                }
                r = bl_export_new(s, i, &e);
                if (r < 0)
                        return r;
                bl_slots_load(e);
        }
        return 0;
}

int bl_recover(struct bl_store *s)
{
        struct bl_super p;
        int r;

        s->super = (struct bl_super *)(void *)s->arena->base;
        p = plan(s);
        if (p.first >= s->n_pages)
                return -EINVAL;
        r = bl_arena_survey(s->arena);
        if (r < 0)
                return r;
        if (s->arena->fresh) {
                r = make(s, p);
        } else {
                r = populate_fixed(s, &(struct bl_super){.first = 1});
                if (r >= 0)
                        r = s->super->magic == 0 ? make(s, p) : verify(s, p);
        }
        if (r < 0)
                return r;
        s->clock = (uint32_t)(bl_now() / BL_SEC);
        for (uint32_t i = 0; i < s->n_chunks; i++)
                if (bl_arena_is_populated(s->arena, i))
                        bl_pages_add_chunk(s, i);
        r = bl_entries_load(s);
        if (r < 0)
                return r;
        r = load_exports(s);
        if (r < 0)
                return r;
        /* all tables are taken before anything that a damaged word might take for payload */
        for (uint32_t i = 0; i < BL_EXPORTS; i++)
                if (s->exports[i])
                        bl_slots_claim(s->exports[i]);
        bl_entries_sweep(s);
        return 0;
}
