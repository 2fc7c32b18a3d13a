// SPDX-License-Identifier: LGPL-2.1-or-later
/* What is held where: the store's figures, and the kernel's tiers. */
#include <string.h>

#include "daemon/act/pageout.h"
#include "daemon/control.h"
#include "daemon/documents.h"
#include "daemon/manager-private.h"
#include "daemon/storelink.h"
#include "daemon/util/clock.h"

/* part of whole; 0 where there is nothing. */
static uint64_t ratio(uint64_t part, uint64_t whole)
{
        return whole == 0 || whole == BL_UNSET ? 0 : bl_mul_sat(bl_or_zero(part), BL_WHOLE) / whole;
}

/* --- the store -------------------------------------------------------------- */

static const char *state_to_string(enum bl_storelink_state s)
{
        switch (s) {
        case BL_STORELINK_NONE:
                return "none";
        case BL_STORELINK_AWAY:
                return "away";
        case BL_STORELINK_DEAF:
                return "deaf";
        case BL_STORELINK_THERE:
                return "there";
        case _BL_STORELINK_MAX:
                break;
        }
        return "?";
}

static json_t *pool_document(const struct bl_store_figures *f)
{
        return json_pack("{s:o, s:o, s:o}", "size", number(f->pool_size), "ready", number(f->pool_ready), "used",
                         number(f->pool_used));
}

static json_t *latency_document(const struct bl_store_figures *f)
{
        return json_pack("{s:o, s:o, s:o, s:o, s:o}", "write_p50_us", number(f->write_p50), "write_p99_us",
                         number(f->write_p99), "read_p50_us", number(f->read_p50), "read_p99_us", number(f->read_p99),
                         "oldest_us", number(f->oldest_request));
}

json_t *bl_document_store(enum bl_storelink_state state, const struct bl_store_reply *r, usec_t age)
{
        json_t *j = json_pack("{s:s}", "state", state_to_string(state));
        const struct bl_store_figures *f;
        uint64_t stored;

        if (!j || !r)
                return j;
        f = &r->figures;
        stored = bl_add_sat(f->pool_used, f->index);
        const struct {
                const char *name;
                uint64_t value;
        } numbers[] = {
                {"age_us", age},
                {"incarnation", f->incarnation},
                {"stored", stored},
                {"payload", f->payload},
                {"slack", f->slack},
                {"tables", f->tables},
                {"index", f->index},
                {"fixed", r->fixed},
                {"held", f->held},
                {"zero", f->zero},
                {"unique", f->unique},
                {"headroom", f->headroom},
                {"promised", f->promised},
                {"backing", f->backing},
                {"ratio", ratio(bl_add_sat(f->payload, f->disk_used), f->unique)},
                {"dedup", ratio(f->unique, f->held)},
                {"overall", ratio(bl_add_sat(stored, f->disk_used), f->held)},
                {"writes", f->writes},
                {"reads", f->reads},
                {"trims", f->trims},
                {"dedup_hits", f->dedup_hits},
                {"demoted", f->demoted},
                {"disk_reads", f->disk_reads},
                {"errors", f->errors},
                {"waiting", f->waiting},
        };

        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
                json_object_set_new(j, numbers[i].name, number(numbers[i].value));
        json_object_set_new(j, "pool", pool_document(f));
        json_object_set_new(j, "disk",
                            json_pack("{s:o, s:o, s:b}", "size", number(f->disk_size), "used", number(f->disk_used),
                                      "failed", (int)f->disk_failed));
        json_object_set_new(j, "latency", latency_document(f));
        return j;
}

static const struct bl_store_reply *figures(const struct bl_manager *m, usec_t *ret_at)
{
        return m->storelink ? bl_storelink_figures(m->storelink, ret_at) : NULL;
}

static enum bl_storelink_state state_of(const struct bl_manager *m)
{
        return m->storelink ? bl_storelink_state(m->storelink) : BL_STORELINK_NONE;
}

json_t *bl_document_store_in_short(const struct bl_manager *m)
{
        usec_t at = 0;
        const struct bl_store_reply *r = figures(m, &at);

        return json_pack("{s:s, s:o}", "state", state_to_string(state_of(m)), "pool",
                         r ? pool_document(&r->figures) : json_null());
}

/* --- of one VM -------------------------------------------------------------- */

static const char *stage_to_string(enum bl_swap_stage s)
{
        switch (s) {
        case BL_SWAP_STAGE_NONE:
                return "none";
        case BL_SWAP_STAGE_WAITING:
                return "waiting";
        case BL_SWAP_STAGE_REGISTERED:
                return "registered";
        case BL_SWAP_STAGE_PLUGGED:
                return "plugged";
        case BL_SWAP_STAGE_ON:
                return "on";
        case BL_SWAP_STAGE_DRAINING:
                return "draining";
        case BL_SWAP_STAGE_UNPLUGGING:
                return "unplugging";
        case _BL_SWAP_STAGE_MAX:
                break;
        }
        return "?";
}

/* What is summed up over all VMs, too. */
static const char *const sums[] = {"swapped", "held", "zero", "shared", "stored", "disk", "stale", "twice"};

/* As the store has it; before that, as it will be. */
static const char *group_of(const struct bl_guest *g)
{
        if (g->swap.seen)
                return g->swap.held.group;
        if (!g->desc)
                return "";
        return *g->desc->live.metadata.group ? g->desc->live.metadata.group : g->m->conf->store_default_group;
}

json_t *bl_document_store_of(const struct bl_guest *g)
{
        const struct bl_guest_swap *s = &g->swap;
        const struct bl_store_vm none = {.limit = BL_UNSET}, *h = s->seen ? &s->held : &none;
        bool on = s->stage == BL_SWAP_STAGE_ON || s->stage == BL_SWAP_STAGE_DRAINING;
        uint64_t used = on ? s->used : BL_UNSET, swapped = bl_add_sat(h->held, h->zero);
        const struct {
                const char *name;
                uint64_t value; /* BL_UNSET: null */
        } numbers[] = {
                {"size", s->size},
                {"used", used},
                {"swapped", swapped},
                {"held", h->held},
                {"zero", h->zero},
                {"shared", h->shared},
                {"stored", h->stored},
                {"disk", h->disk},
                {"stale", used == BL_UNSET ? 0 : bl_sub_sat(swapped, used)},
                {"twice", on ? bl_or_zero(s->cached) : 0},
                {"ratio", h->write_pages > 0 ? h->ratio : BL_UNSET},
                {"limit", h->limit},
                {"writes", h->write_pages},
                {"reads", h->read_pages},
                {"errors", h->errors},
        };
        json_t *j = json_pack("{s:s, s:o, s:o}", "stage", stage_to_string(s->stage), "why",
                              *s->why ? text(s->why) : json_null(), "group", text(group_of(g)));

        for (size_t i = 0; j && i < sizeof numbers / sizeof *numbers; i++)
                json_object_set_new(j, numbers[i].name, number_or_null(numbers[i].value));
        return j;
}

json_t *bl_document_kernel_of(struct bl_guest *g, usec_t now)
{
        struct bl_pageout_vm p = {.why_not = "its process is not known"};
        struct bl_vm vm = {0};

        /* what is known of it is filled in, whether its balloon is known or not */
        (void)bl_guest_to_vm(g, now, &vm);
        if (g->desc)
                (void)bl_pageout_vm(g->m->engines[BL_ENGINE_PAGEOUT], &vm, &p);
        return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:o}", "swapped", number(g->mem.swap), "paged_out",
                         number(p.out), "read_back", number(p.back), "read_back_per_s", number(p.back_rate),
                         "backoff_us", number(bl_sub_sat(p.backoff_until, now)), "idle_us",
                         number(p.idle_since ? bl_sub_sat(now, p.idle_since) : 0), "by_cgroup", (int)p.by_cgroup, "why",
                         text_or_null(p.why_not));
}

/* --- the kernel's ----------------------------------------------------------- */

static json_t *zrams_document(const struct bl_kernel_tiers *t)
{
        json_t *list = json_array();

        for (size_t i = 0; i < t->n_zrams; i++) {
                const struct bl_zram *z = &t->zrams[i];

                json_array_append_new(list, json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o}", "name", z->name,
                                                      "algorithm", z->algorithm, "size", number(z->disksize), "held",
                                                      number(z->held), "same", number(z->same), "compressed",
                                                      number(z->compressed), "used", number(z->used), "ratio",
                                                      number(ratio(z->used, z->held))));
        }
        return list;
}

static json_t *zswap_document(const struct bl_zswap *z)
{
        return json_pack("{s:b, s:b, s:o, s:o, s:o, s:o, s:o}", "there", (int)z->there, "enabled", (int)z->enabled,
                         "compressor", text(z->compressor), "max_pool_percent", number(z->max_pool_percent), "held",
                         number_or_null(z->there ? z->held : BL_UNSET), "used",
                         number_or_null(z->there ? z->used : BL_UNSET), "ratio", number(ratio(z->used, z->held)));
}

static json_t *swaps_document(const struct bl_kernel_tiers *t)
{
        json_t *list = json_array();

        for (size_t i = 0; i < t->n_swaps; i++)
                json_array_append_new(list,
                                      json_pack("{s:o, s:s, s:o, s:o, s:i}", "path", text(t->swaps[i].path), "kind",
                                                t->swaps[i].file ? "file" : "device", "size", number(t->swaps[i].size),
                                                "used", number(t->swaps[i].used), "priority", t->swaps[i].priority));
        return list;
}

/* --- all -------------------------------------------------------------------- */

void bl_document_add_up(json_t *all, const json_t *one, const char *const *names, size_t n)
{
        for (size_t i = 0; i < n; i++) {
                json_int_t v = json_integer_value(json_object_get(all, names[i])) +
                               json_integer_value(json_object_get(one, names[i]));

                json_object_set_new(all, names[i], json_integer(v));
        }
}

static json_t *named(json_t *j, const struct bl_guest *g)
{
        json_object_set_new(j, "name", text(g->name));
        json_object_set_new(j, "uuid", text(g->uuid_text));
        return j;
}

int bl_control_tiers(struct bl_manager *m, json_t **ret)
{
        static const char *const kernel_sums[] = {"swapped", "paged_out", "read_back"};
        struct bl_engine *e = m->engines[BL_ENGINE_PAGEOUT];
        const struct bl_kernel_tiers *t = bl_pageout_tiers(e);
        usec_t now = bl_now(), at = now;
        const struct bl_store_reply *r = figures(m, &at);
        json_t *d = document(), *vms = json_array(), *all = json_object();
        json_t *kernel = json_object(), *kernel_vms = json_array(), *kernel_all = json_object();
        int failed = 0;

        bl_document_add_up(all, NULL, sums, sizeof sums / sizeof *sums);
        bl_document_add_up(kernel_all, NULL, kernel_sums, sizeof kernel_sums / sizeof *kernel_sums);
        for (size_t i = 0; i < m->n_guests; i++) {
                json_t *s = bl_document_store_of(m->guests[i]), *k = bl_document_kernel_of(m->guests[i], now);

                bl_document_add_up(all, s, sums, sizeof sums / sizeof *sums);
                bl_document_add_up(kernel_all, k, kernel_sums, sizeof kernel_sums / sizeof *kernel_sums);
                failed |= json_array_append_new(vms, named(s, m->guests[i]));
                failed |= json_array_append_new(kernel_vms, named(k, m->guests[i]));
        }
        failed |= json_object_set_new(kernel, "zram", zrams_document(t));
        failed |= json_object_set_new(kernel, "zswap", zswap_document(&t->zswap));
        failed |= json_object_set_new(kernel, "swaps", swaps_document(t));
        failed |= json_object_set_new(kernel, "vms", kernel_vms);
        failed |= json_object_set_new(kernel, "all", kernel_all);
        failed |= json_object_set_new(kernel, "cpu_us", number(bl_pageout_cpu(e)));
        failed |= json_object_set_new(d, "store", bl_document_store(state_of(m), r, bl_sub_sat(now, at)));
        failed |= json_object_set_new(d, "vms", vms);
        failed |= json_object_set_new(d, "all", all);
        failed |= json_object_set_new(d, "kernel", kernel);
        return finish(d, failed, ret);
}
