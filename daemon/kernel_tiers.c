// SPDX-License-Identifier: LGPL-2.1-or-later
/* The page-out engine's part in the manager: what it is told of the VMs, and what came of it. */
#include <string.h>

#include "daemon/act/pageout.h"
#include "daemon/manager-private.h"
#include "daemon/util/size.h"

static void on_paged_out(void *userdata, const uint8_t uuid[BL_UUID_LEN], enum bl_reason why, uint64_t bytes)
{
        struct bl_guest *g = bl_manager_find(userdata, uuid);
        char size[BL_SIZE_BUF];

        if (g)
                bl_manager_note(g->m, g, LOG_INFO, BL_EV_PLAIN, bl_reason_to_string(why), "done", BL_UNSET, BL_UNSET,
                                "the host's kernel paged %s of %s out", bl_size_format(bytes, size, sizeof size),
                                g->name);
}

static void on_backoff(void *userdata, const uint8_t *uuid, usec_t span, const char *sentence)
{
        struct bl_manager *m = userdata;
        struct bl_guest *g = uuid ? bl_manager_find(m, uuid) : NULL;
        char t[BL_SIZE_BUF];

        if (uuid && !g)
                return;
        bl_manager_note(m, g, LOG_NOTICE, BL_EV_PLAIN, "pageout.backoff", "seen", BL_UNSET, BL_UNSET,
                        "nothing%s%s is paged out for %s: %s", g ? " of " : "", g ? g->name : "",
                        bl_span_format(span, t, sizeof t), sentence);
}

static void on_error(void *userdata, const uint8_t uuid[BL_UUID_LEN], int r)
{
        struct bl_guest *g = bl_manager_find(userdata, uuid);

        if (g)
                bl_manager_note(g->m, g, LOG_WARNING, BL_EV_PLAIN, "pageout.failed", "failed", BL_UNSET, BL_UNSET,
                                "%s cannot be paged out: %s", g->name,
                                r == -EOPNOTSUPP ? "its memory is shared with other processes, or locked"
                                : r == -ENODATA  ? "no mapping of its process looks like guest memory"
                                                 : strerror(-r));
}

int bl_kernel_tiers_start(struct bl_manager *m)
{
        const struct bl_pageout_options o = {
                .walk = {.root = m->options.root},
                .handler = {.on_paged_out = on_paged_out, .on_backoff = on_backoff, .on_error = on_error},
                .userdata = m,
        };

        return bl_pageout_engine_new(m->pool, &o, &m->engines[BL_ENGINE_PAGEOUT]);
}

void bl_kernel_tiers_look(struct bl_manager *m, usec_t now)
{
        struct bl_engine *e = m->engines[BL_ENGINE_PAGEOUT];

        bl_pageout_enable(e, m->conf->pageout);
        for (size_t i = 0; i < m->n_guests; i++) {
                const struct bl_guest *g = m->guests[i];

                /* what cannot be watched is not offered; its process ends, or there is no memory: seen again in a
                 * second */
                if (g->resident && g->desc)
                        (void)bl_pageout_see(e, g->uuid, g->resident, &g->mem, bl_guest_max(g), now);
        }
        bl_pageout_looked(e, now);
}
