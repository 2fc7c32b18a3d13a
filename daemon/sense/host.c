/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/sense/host.h"

#include <errno.h>
#include <string.h>

#include "daemon/sense/growth.h"
#include "daemon/sense/psi.h"

/* Windows of triggers by whom the kernel does not trust: multiples of this (psi.rst). */
#define PSI_UNPRIVILEGED (2 * BL_SEC)

/* The totals at one time, for finding pressure without a trigger. */
struct stall {
        usec_t at;
        uint64_t some;
};

struct bl_host_sensor {
        char *root;
        struct bl_reader meminfo_file;
        struct bl_reader psi_file;
        int psi_error; /* why psi_file is not open: 0 or negative errno */
        int trigger_error; /* why the caller has no trigger: 0 or negative errno */
        bool psi_triggered; /* the caller has a trigger */
        bool psi_pressure;
        struct stall stall;
        bool have_stall;

        struct bl_budget_conf budget;
        bool psi;
        usec_t psi_stall;
        usec_t psi_window;

        struct bl_meminfo meminfo;
        bool have_meminfo;
        struct bl_growth growth;
        uint64_t growth_budget; /* what `growth` is scaled for */
};

static void open_psi(struct bl_host_sensor *s)
{
        s->psi_error = s->psi ? bl_psi_open(&s->psi_file, s->root) : -EOPNOTSUPP;
}

int bl_host_sensor_new(const char *root, const struct bl_conf *conf, struct bl_host_sensor **ret)
{
        _cleanup_(bl_host_sensor_freep) struct bl_host_sensor *s = NULL;
        struct bl_meminfo first;
        int r;

        s = calloc(1, sizeof *s);
        if (!s)
                return -ENOMEM;
        s->meminfo_file.fd = s->psi_file.fd = -1;
        s->root = strdup(root ? root : "");
        if (!s->root)
                return -ENOMEM;

        r = bl_meminfo_open(&s->meminfo_file, s->root);
        if (r < 0)
                return r;
        r = bl_meminfo_read(&s->meminfo_file, &first);
        if (r < 0)
                return r;

        bl_host_sensor_configure(s, conf);
        *ret = BL_TAKE(s);
        return 0;
}

struct bl_host_sensor *bl_host_sensor_free(struct bl_host_sensor *s)
{
        if (!s)
                return NULL;
        bl_reader_close(&s->meminfo_file);
        bl_reader_close(&s->psi_file);
        free(s->root);
        free(s);
        return NULL;
}

static bool same_budget(const struct bl_budget_conf *a, const struct bl_budget_conf *b)
{
        if (a->kind != b->kind)
                return false;
        switch (a->kind) {
        case BL_BUDGET_RAM:
                return true;
        case BL_BUDGET_SIZE:
                return a->bytes == b->bytes;
        case BL_BUDGET_PERCENT:
                return a->ratio == b->ratio;
        }
        return false;
}

void bl_host_sensor_configure(struct bl_host_sensor *s, const struct bl_conf *conf)
{
        if (!same_budget(&s->budget, &conf->budget))
                s->growth_budget = 0;
        s->budget = conf->budget;
        s->psi_stall = conf->psi_stall;
        s->psi_window = conf->psi_window;
        if (s->psi != conf->psi || (conf->psi && s->psi_file.fd < 0)) {
                bl_reader_close(&s->psi_file);
                s->psi = conf->psi;
                s->psi_pressure = s->have_stall = false;
                s->trigger_error = 0;
                open_psi(s);
        }
}

void bl_host_growth_forget(struct bl_host_sensor *s)
{
        s->growth_budget = 0;
}

bool bl_host_needs_usage(const struct bl_host_sensor *s)
{
        return bl_budget_needs_usage(&s->budget);
}

int bl_host_psi_open(struct bl_host_sensor *s)
{
        int fd;

        if (s->psi_file.fd < 0)
                return s->psi_error < 0 ? s->psi_error : -EOPNOTSUPP;
        fd = bl_psi_trigger_open(s->root, "some", s->psi_stall, s->psi_window);
        if (fd == -EINVAL || fd == -EPERM) {
                /* Without CAP_SYS_RESOURCE (a container, a confined unit) the
                 * kernel takes multiples of 2 s only: the same part of that. */
                usec_t window = (s->psi_window + PSI_UNPRIVILEGED - 1) / PSI_UNPRIVILEGED * PSI_UNPRIVILEGED;

                fd = bl_psi_trigger_open(s->root, "some", s->psi_stall * window / s->psi_window, window);
        }
        s->trigger_error = fd < 0 ? fd : 0;
        s->psi_triggered = fd >= 0;
        return fd;
}

void bl_host_psi_fired(struct bl_host_sensor *s)
{
        s->psi_pressure = true;
}

void bl_host_psi_lost(struct bl_host_sensor *s)
{
        s->psi_triggered = s->have_stall = false;
}

void bl_host_psi_clear(struct bl_host_sensor *s)
{
        s->psi_pressure = false;
}

/* Without a trigger: did the totals rise by as much as it would have fired for? */
static void look_at_totals(struct bl_host_sensor *s, uint64_t some, usec_t now)
{
        if (s->have_stall && bl_sub_sat(some, s->stall.some) >= s->psi_stall) {
                s->psi_pressure = true;
        } else if (s->have_stall && now < bl_add_sat(s->stall.at, s->psi_window)) {
                return;
        }
        s->stall = (struct stall){.at = now, .some = some};
        s->have_stall = true;
}

int bl_host_sense(struct bl_host_sensor *s, const struct bl_usage *usage, usec_t now, struct bl_host *ret)
{
        static const struct bl_usage nothing;
        struct bl_host h = {0};
        struct bl_budget b;
        struct bl_psi p;
        int r;

        r = bl_meminfo_read(&s->meminfo_file, &s->meminfo);
        if (r < 0)
                return r;
        s->have_meminfo = true;

        bl_budget_compute(&s->budget, &s->meminfo, usage ? usage : &nothing, &b);
        /* 0 is "not yet" as well: a budget of nothing has no growth */
        if (s->growth_budget != b.total) {
                bl_growth_init(&s->growth, b.total);
                s->growth_budget = b.total;
        }
        bl_growth_add(&s->growth, now, b.free);

        h.budget_is_ram = b.is_ram;
        h.budget = b.total;
        h.used = b.used;
        h.free = b.free;
        h.growth = bl_growth_rate(&s->growth);
        h.swap_total = bl_or_zero(s->meminfo.swap_total);
        h.swap_free = bl_min(bl_or_zero(s->meminfo.swap_free), h.swap_total);

        if (s->psi_file.fd >= 0 && bl_psi_read(&s->psi_file, &p) == 0) {
                h.psi_known = true;
                h.psi_some = p.some;
                h.psi_full = p.full;
                if (!s->psi_triggered)
                        look_at_totals(s, p.some, now);
        }
        h.psi_pressure = s->psi_pressure;

        *ret = h;
        return 0;
}

const struct bl_meminfo *bl_host_meminfo(const struct bl_host_sensor *s)
{
        return s->have_meminfo ? &s->meminfo : NULL;
}

const char *bl_host_psi_why_not(const struct bl_host_sensor *s)
{
        if (!s->psi)
                return "memory pressure is not watched: psi=no in the configuration";
        if (s->psi_file.fd < 0)
                return bl_psi_why_not(s->psi_error);
        return s->trigger_error < 0 ? bl_psi_why_not(s->trigger_error) : NULL;
}
