/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tiers: what is held where; setup and rollback of the kernel's tiers on this host. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/conf.h"
#include "daemon/ctl/ctl.h"
#include "daemon/ctl/table.h"
#include "daemon/ctl/tiers.h"
#include "daemon/ctl/watch.h"
#include "daemon/util/size.h"

/* --- figures for people -------------------------------------------------------- */

/* So much smaller: 10000/permyriad as "3.3x"; "-" where there is nothing to compare. */
static const char *times(const json_t *o, const char *field, char buf[BL_SIZE_BUF])
{
        uint64_t p = ctl_number(o, field);

        if (p == 0)
                (void)snprintf(buf, BL_SIZE_BUF, "-");
        else
                (void)snprintf(buf, BL_SIZE_BUF, "%.1fx", (double)BL_WHOLE / (double)p);
        return buf;
}
#define TIMES(o, field) times(o, field, (char[BL_SIZE_BUF]){0})

/* Nothing is shown as such, so that what there is can be seen. */
static const char *size_or_dot(const json_t *o, const char *field, char buf[BL_SIZE_BUF])
{
        return ctl_number(o, field) == 0 ? "." : ctl_size(o, field, buf, BL_SIZE_BUF);
}

static const char *micros(const json_t *o, const char *field, char buf[BL_SIZE_BUF])
{
        uint64_t us = ctl_number(o, field);

        if (us == 0)
                (void)snprintf(buf, BL_SIZE_BUF, "-");
        else if (us < 10000)
                (void)snprintf(buf, BL_SIZE_BUF, "%" PRIu64 " us", us);
        else
                (void)snprintf(buf, BL_SIZE_BUF, "%" PRIu64 " ms", us / 1000);
        return buf;
}
#define MICROS(o, field) micros(o, field, (char[BL_SIZE_BUF]){0})

static uint64_t per_second(const json_t *now, const json_t *before, const char *field, usec_t span)
{
        return bl_mul_sat(bl_sub_sat(ctl_number(now, field), ctl_number(before, field)), BL_SEC) / span;
}

/* Since the document before, where there is one. */
static void print_rates(const json_t *now, const json_t *before, usec_t span)
{
        if (json_is_object(json_object_get(before, "pool")) && span > 0)
                ctl_field("Pages:", "%" PRIu64 " written, %" PRIu64 " read, %" PRIu64 " given back a second",
                          per_second(now, before, "writes", span), per_second(now, before, "reads", span),
                          per_second(now, before, "trims", span));
}

/* --- the store ----------------------------------------------------------------- */

static enum ctl_color store_color(const char *state)
{
        return strcmp(state, "there") == 0 ? CTL_GREEN : strcmp(state, "none") == 0 ? CTL_PLAIN : CTL_RED;
}

static void print_store(const struct ctl *c, const json_t *s, const json_t *before, usec_t span)
{
        const json_t *pool = json_object_get(s, "pool"), *disk = json_object_get(s, "disk");
        const json_t *latency = json_object_get(s, "latency");
        const char *state = ctl_string(s, "state");
        char size[BL_SIZE_BUF];

        if (strcmp(state, "none") == 0) {
                ctl_field("Store:", "none (PoolSize= of ballast.conf)");
                return;
        }
        ctl_field("Store:", "%s%s%s%s", ctl_color(c, store_color(state)), state, ctl_color_end(c),
                  strcmp(state, "away") == 0   ? ": nobody answers at its socket; guests that need it wait"
                  : strcmp(state, "deaf") == 0 ? ": it does not answer; guests that need it wait"
                                               : "");
        if (!json_is_object(pool))
                return;
        ctl_field("Pool:", "%s used of %s, %s taken from the host", CTL_SIZE(pool, "used"), CTL_SIZE(pool, "size"),
                  CTL_SIZE(pool, "ready"));
        ctl_field("Swapped:", "%s: %s of zeros, %s else, of that %s distinct",
                  bl_size_format(bl_add_sat(ctl_number(s, "held"), ctl_number(s, "zero")), size, sizeof size),
                  CTL_SIZE(s, "zero"), CTL_SIZE(s, "held"), CTL_SIZE(s, "unique"));
        ctl_field("Takes:", "%s: pages %s, slack %s, tables %s, index %s", CTL_SIZE(s, "stored"),
                  CTL_SIZE(s, "payload"), CTL_SIZE(s, "slack"), CTL_SIZE(s, "tables"), CTL_SIZE(s, "index"));
        ctl_field("Ratio:", "%s compressed, %s shared, %s in all", TIMES(s, "ratio"), TIMES(s, "dedup"),
                  TIMES(s, "overall"));
        if (ctl_number(disk, "size") > 0)
                ctl_field("Disk:", "%s used of %s%s%s%s", CTL_SIZE(disk, "used"), CTL_SIZE(disk, "size"),
                          ctl_color(c, CTL_RED), ctl_true(disk, "failed") ? "; it has FAILED" : "", ctl_color_end(c));
        ctl_field("Room:", "%s at once; %s promised, %s backed", CTL_SIZE(s, "headroom"), CTL_SIZE(s, "promised"),
                  CTL_SIZE(s, "backing"));
        ctl_field("Requests:", "write %s, read %s (p99 %s, %s)", MICROS(latency, "write_p50_us"),
                  MICROS(latency, "read_p50_us"), MICROS(latency, "write_p99_us"), MICROS(latency, "read_p99_us"));
        print_rates(s, before, span);
        if (ctl_number(s, "waiting") > 0)
                ctl_field("Waiting:", "%s%" PRIu64 " requests, for room%s", ctl_color(c, CTL_RED),
                          ctl_number(s, "waiting"), ctl_color_end(c));
        if (ctl_number(s, "errors") > 0)
                ctl_field("Lost:", "%s%" PRIu64 " pages damaged or lost%s", ctl_color(c, CTL_RED),
                          ctl_number(s, "errors"), ctl_color_end(c));
}

/* --- the kernel's tiers ----------------------------------------------------------- */

static void print_kernel(const struct ctl *c, const json_t *k)
{
        const json_t *zswap = json_object_get(k, "zswap"), *x;
        size_t i;

        json_array_foreach(json_object_get(k, "zram"), i, x)
        {
                ctl_field("Zram:", "%s, %s: %s and %s of zeros in %s (%s)", ctl_string(x, "name"),
                          ctl_string(x, "algorithm"), CTL_SIZE(x, "held"), CTL_SIZE(x, "same"), CTL_SIZE(x, "used"),
                          TIMES(x, "ratio"));
        }
        if (ctl_true(zswap, "enabled"))
                ctl_field("Zswap:", "%s: %s in %s (%s), at most %" PRIu64 " %% of memory",
                          ctl_string(zswap, "compressor"), CTL_SIZE(zswap, "held"), CTL_SIZE(zswap, "used"),
                          TIMES(zswap, "ratio"), ctl_number(zswap, "max_pool_percent"));
        json_array_foreach(json_object_get(k, "swaps"), i, x)
        {
                ctl_field("Swap:", "%s used of %s, priority %d: %s", CTL_SIZE(x, "used"), CTL_SIZE(x, "size"),
                          (int)json_integer_value(json_object_get(x, "priority")), ctl_string(x, "path"));
        }
        if (i == 0)
                ctl_field("Swap:",
                          "%snone%s; 'ballastctl tiers setup' prepares some for what the host's kernel pages "
                          "out",
                          ctl_color(c, CTL_YELLOW), ctl_color_end(c));
}

/* --- per VM ----------------------------------------------------------------------- */

static const struct ctl_column columns[] = {
        {"VM", .trunc = true},     {"SWAPPED", .right = true}, {"ZERO", .right = true},
        {"SHARED", .right = true}, {"STORED", .right = true},  {"DISK", .right = true},
        {"STALE", .right = true},  {"TWICE", .right = true},   {"KERNEL", .right = true},
};
enum { VM, SWAPPED, ZERO, SHARED, STORED, DISK, STALE, TWICE, KERNEL, N_COLUMNS };

static const json_t *kernel_part(const json_t *k, const char *uuid)
{
        const json_t *x;
        size_t i;

        json_array_foreach(json_object_get(k, "vms"), i, x)
        {
                if (strcmp(ctl_string(x, "uuid"), uuid) == 0)
                        return x;
        }
        return NULL;
}

static void print_line(const struct ctl *c, struct libscols_table *t, const char *name, const json_t *vm,
                       const json_t *kernel)
{
        static const char *const fields[] = {"swapped", "zero", "shared", "stored", "disk", "stale", "twice"};
        struct libscols_line *l = ctl_table_line(t);
        char size[BL_SIZE_BUF];

        ctl_table_set(c, l, VM, CTL_PLAIN, name);
        for (size_t k = 0; k < sizeof fields / sizeof fields[0]; k++)
                ctl_table_set(c, l, SWAPPED + k, CTL_PLAIN, size_or_dot(vm, fields[k], size));
        ctl_table_set(c, l, KERNEL, CTL_PLAIN, size_or_dot(kernel, "swapped", size));
}

/* Why it is not on, or does not go on, in the order of the table. */
static void print_reasons(const struct ctl *c, const json_t *vms)
{
        const json_t *vm;
        size_t i;

        json_array_foreach(vms, i, vm)
        {
                const char *stage = ctl_string(vm, "stage"), *why = ctl_string(vm, "why");

                if (strcmp(stage, "none") != 0 && (strcmp(stage, "on") != 0 || *why))
                        printf("%s: %s%s%s%s%s\n", ctl_string(vm, "name"), ctl_color(c, CTL_YELLOW), stage,
                               ctl_color_end(c), *why ? ": " : "", why);
        }
}

/* What the host's kernel leaves alone, since it did harm. */
static void print_backoffs(const json_t *kernel)
{
        const json_t *x;
        size_t i;

        json_array_foreach(json_object_get(kernel, "vms"), i, x)
        {
                if (ctl_number(x, "backoff_us") > 0)
                        printf("%s: not paged out for %" PRIu64 " s: %s\n", ctl_string(x, "name"),
                               ctl_number(x, "backoff_us") / BL_SEC + 1, ctl_string(x, "why"));
        }
}

static void print_vms(const struct ctl *c, const json_t *d)
{
        _cleanup_(ctl_table_unrefp) struct libscols_table *t = ctl_table_new(c, columns, N_COLUMNS);
        const json_t *vms = json_object_get(d, "vms"), *kernel = json_object_get(d, "kernel"), *vm;
        char all[32];
        size_t i;

        json_array_foreach(vms, i, vm)
        {
                print_line(c, t, ctl_string(vm, "name"), vm, kernel_part(kernel, ctl_string(vm, "uuid")));
        }
        if (i == 0) {
                puts("No virtual machine is running.");
                return;
        }
        (void)snprintf(all, sizeof all, "%zu VMs", i);
        if (i > 1)
                print_line(c, t, all, json_object_get(d, "all"), json_object_get(kernel, "all"));
        ctl_table_print(t);
        print_reasons(c, vms);
        print_backoffs(kernel);
}

/* --- the view --------------------------------------------------------------------- */

struct view {
        json_t *before; /* NULL: this is the first round */
        usec_t at;
};

static void print_tiers(const struct ctl *c, const json_t *d, const struct view *v, usec_t now)
{
        print_store(c, json_object_get(d, "store"), json_object_get(v->before, "store"), now - v->at);
        print_kernel(c, json_object_get(d, "kernel"));
        putchar('\n');
        print_vms(c, d);
}

static void print_round(struct ctl *c, json_t *d, usec_t now, void *userdata)
{
        struct view *v = userdata;

        print_tiers(c, d, v, now);
        json_decref(v->before);
        v->before = json_incref(d);
        v->at = now;
}

static enum ctl_exit show(struct ctl *c)
{
        struct view v = {0};
        json_t *d = NULL;
        usec_t every;
        enum ctl_exit x;

        x = ctl_watch_every(c, &every);
        if (x != CTL_OK)
                return x;
        if (every > 0) {
                x = ctl_watch(c, "Tiers", every, print_round, &v);
                json_decref(v.before);
                return x;
        }
        x = ctl_read(c, "Tiers", NULL, &d);
        if (x != CTL_OK)
                return x;
        if (!ctl_print_json(c, d))
                print_tiers(c, d, &v, 0);
        json_decref(d);
        return CTL_OK;
}

/* --- setup, rollback ---------------------------------------------------------------- */

static enum ctl_exit exit_of(int r)
{
        switch (-r) {
        case 0:
                return CTL_OK;
        case EALREADY:
        case ENOTSUP:
        case ENOSPC:
        case ERANGE:
        case ENOENT:
        case ENOMEM:
        case EBUSY:
                return CTL_REFUSED;
        case EPERM:
        case EACCES:
                return CTL_NOT_PERMITTED;
        default:
                return CTL_FAILED;
        }
}

/* ballastd's own, where it has a configuration that can be read. */
static char *state_dir(const struct ctl *c)
{
        _cleanup_(bl_conf_freep) struct bl_conf *conf = NULL;
        struct bl_conf_paths paths = {0};
        struct bl_conf_report rep = {0};
        const char *given = ctl_value(c, "state-dir");

        if (given)
                return strdup(given);
        if (bl_conf_load(&paths, &conf, &rep) < 0)
                (void)bl_conf_new(&conf);
        (void)bl_conf_report_clear(&rep);
        return conf ? strdup(conf->state_dir) : NULL;
}

static enum ctl_exit change(struct ctl *c, bool setup, enum ctl_tier_kind kind, uint64_t size)
{
        _cleanup_free_ char *dir = state_dir(c);
        struct ctl_tiers t = {
                .root = "",
                .state_dir = dir,
                .ops = &ctl_tiers_kernel,
                .force = ctl_value(c, "force") != NULL,
                .path = ctl_value(c, "path"),
                .lock = -1,
        };
        int r;

        if (!dir)
                return CTL_FAILED;
        if (geteuid() != 0) {
                ctl_error("only root may change the host's swap; try with sudo");
                return CTL_NOT_PERMITTED;
        }
        r = ctl_tiers_open(&t);
        if (r >= 0)
                r = setup ? ctl_tiers_setup(&t, kind, size) : ctl_tiers_rollback(&t);
        if (r < 0)
                ctl_error("%s", t.said ? t.said : strerror(-r));
        else
                ctl_print_message(c, t.said);
        ctl_tiers_close(&t);
        return exit_of(r);
}

static enum ctl_exit setup(struct ctl *c)
{
        static const struct {
                const char *name;
                enum ctl_tier_kind kind;
        } kinds[] = {{"zram", CTL_TIER_ZRAM}, {"zswap", CTL_TIER_ZSWAP}, {"swapfile", CTL_TIER_SWAPFILE}};
        uint64_t size;

        if (c->n_args < 3)
                return ctl_usage(c, "'tiers setup' needs a kind and a size, as in 'tiers setup zram 4G'");
        if (bl_size_parse(c->args[2], &size) < 0)
                return ctl_usage(c, "'%s' is no size, as in 4G", c->args[2]);
        for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
                if (strcmp(c->args[1], kinds[i].name) == 0)
                        return change(c, true, kinds[i].kind, size);
        return ctl_usage(c, "'%s' is no kind of tier: there are zram, zswap and swapfile", c->args[1]);
}

enum ctl_exit ctl_cmd_tiers(struct ctl *c)
{
        if (c->n_args == 0)
                return show(c);
        if (ctl_value(c, "watch"))
                return ctl_usage(c, "--watch goes with 'tiers' alone");
        if (strcmp(c->args[0], "setup") == 0)
                return setup(c);
        if (strcmp(c->args[0], "rollback") != 0)
                return ctl_usage(c, "'tiers %s' is nothing: there are setup and rollback", c->args[0]);
        if (c->n_args > 1)
                return ctl_usage(c, "'%s' is one argument too many for 'tiers rollback'", c->args[1]);
        return change(c, false, CTL_TIER_ZRAM, 0);
}
