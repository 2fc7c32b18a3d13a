/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/ctl/scan_json.h"

#include <errno.h>
#include <string.h>

#include "daemon/control.h"
#include "daemon/util/utf8.h"

/* What is set to a thing that could not be made is not there: only out of memory. */
static void set(json_t *o, const char *field, json_t *v)
{
        (void)json_object_set_new(o, field, v);
}

static void set_number(json_t *o, const char *field, uint64_t v)
{
        set(o, field, json_integer((json_int_t)bl_min(v, INT64_MAX)));
}

/* Names and paths are anybody's. */
static void set_string(json_t *o, const char *field, const char *s)
{
        _cleanup_free_ char *clean = s ? strdup(s) : NULL;

        if (clean) {
                ctl_make_text_safe(clean, false);
                bl_utf8_clean(clean);
        }
        set(o, field, clean ? json_string(clean) : json_null());
}

static json_t *numbers(const uint64_t *v, size_t n)
{
        json_t *a = json_array();

        for (size_t i = 0; i < n; i++)
                (void)json_array_append_new(a, json_integer((json_int_t)bl_min(v[i], INT64_MAX)));
        return a;
}

static void set_figures(json_t *o, const struct bl_scan_figures *f)
{
        const struct {
                const char *name;
                uint64_t value;
        } fields[] = {
                {"pages", f->pages},
                {"zero", f->zero},
                {"unique", f->unique},
                {"duplicate_intra", f->duplicate_intra},
                {"duplicate_inter", f->duplicate_inter},
                {"saved_pages", f->saved_pages},
                {"volatile", f->volatile_pages},
                {"unreadable", f->unreadable},
                {"merged", f->merged},
                {"merged_frames", f->merged_frames},
                {"merged_saved", f->merged_saved},
                {"with_others", f->with_copy_elsewhere},
                {"absent", f->absent},
                {"swapped", f->swapped},
                {"kernel_zero", f->kernel_zero},
        };

        for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
                set_number(o, fields[i].name, fields[i].value);
        set(o, "runs", numbers(f->run, BL_SCAN_RUNS));
}

static const char *kind_name(enum ctl_scan_kind kind)
{
        switch (kind) {
        case CTL_SCAN_VM:
                return "vm";
        case CTL_SCAN_PROCESS:
                return "process";
        case CTL_SCAN_DUMP:
                return "dump";
        }
        return "";
}

/* Why a source is not in the sums. */
static json_t *sentence(const char *name, int error)
{
        switch (-error) {
        case 0:
                return json_null();
        case ESRCH:
                return json_sprintf("%s ended during the scan; it is not in these figures", name);
        case ESTALE:
                return json_sprintf("the memory of %s was laid out anew during the scan (plugged in, or mapped); it is "
                                    "not in these figures",
                                    name);
        default:
                return json_sprintf("%s could not be read to the end: %s; it is not in these figures", name,
                                    strerror(-error));
        }
}

static json_t *one_input(const struct ctl_scan_input *in, const struct bl_scan_source *s)
{
        json_t *o = json_object();

        set_string(o, "name", in->name);
        set_string(o, "kind", kind_name(in->kind));
        set_string(o, "uuid", in->uuid);
        set(o, "pid", in->pid > 0 ? json_integer(in->pid) : json_null());
        set_string(o, "path", in->path);
        set(o, "still", json_boolean(in->source->still));
        set(o, "error", sentence(in->name, s->error));
        set_string(o, "warning", in->source->warning);
        set_number(o, "size", bl_mul_sat(in->source->n_pages, BL_PAGE_SIZE));
        set_number(o, "tail", in->source->tail_bytes);
        set_number(o, "unmergeable", in->source->shared_bytes);
        set_figures(o, &s->f);
        return o;
}

static json_t *matrix(const struct bl_scan_report *r)
{
        json_t *rows;

        if (!r->matrix)
                return json_null();
        rows = json_array();
        for (size_t i = 0; i < r->n; i++)
                (void)json_array_append_new(rows, numbers(r->matrix + i * r->n, r->n));
        return rows;
}

static json_t *verify(const struct ctl_scan_verdict *v)
{
        json_t *o = json_object();

        set(o, "ran", json_boolean(v->ran));
        set(o, "equal", v->ran ? json_boolean(v->equal) : json_null());
        set(o, "binding", v->ran ? json_boolean(v->binding) : json_null());
        set_string(o, "difference", v->difference);
        set_string(o, "failed", v->failed);
        set(o, "saved_pages", v->ran ? json_integer((json_int_t)v->saved_pages) : json_null());
        return o;
}

static json_t *left_out(const struct ctl_scan_inputs *i)
{
        json_t *a = json_array();

        for (size_t k = 0; k < i->n_left_out; k++) {
                json_t *o = json_object();

                set_string(o, "name", i->left_out[k].name);
                set_string(o, "why", i->left_out[k].why);
                (void)json_array_append_new(a, o);
        }
        return a;
}

/* What single sources know, added up. */
static void sum_up(const struct bl_scan_report *r, struct bl_scan_figures *all)
{
        all->with_copy_elsewhere = 0;
        memset(all->run, 0, sizeof(all->run));
        for (size_t i = 0; i < r->n; i++) {
                if (r->source[i].error != 0)
                        continue;
                all->with_copy_elsewhere += r->source[i].f.with_copy_elsewhere;
                for (size_t k = 0; k < BL_SCAN_RUNS; k++)
                        all->run[k] += r->source[i].f.run[k];
        }
}

bool ctl_scan_is_exact(const struct ctl_scan_outcome *o)
{
        const struct bl_scan_report *r = o->report;
        bool exact = !r || r->sample_shift == 0;

        for (size_t i = 0; r && exact && i < r->n; i++)
                exact = r->source[i].error != 0 || o->inputs->input[i].source->still;
        return exact;
}

json_t *ctl_scan_json(const struct ctl_scan_outcome *o)
{
        static const struct bl_scan_report nothing = {.still = true};
        const struct bl_scan_report *r = o->report ? o->report : &nothing;
        struct bl_scan_figures all = r->all;
        json_t *d = json_object(), *vms = json_array();

        sum_up(r, &all);
        set_number(d, "schema", BL_SCHEMA_VERSION);
        set_number(d, "at_us", o->at);
        set_number(d, "page_size", BL_PAGE_SIZE);
        set_figures(d, &all);
        for (size_t i = 0; i < r->n; i++)
                (void)json_array_append_new(vms, one_input(&o->inputs->input[i], &r->source[i]));
        set(d, "vms", vms);
        set(d, "matrix", r->n > 0 ? matrix(r) : json_array());
        set(d, "left_out", left_out(o->inputs));
        set(d, "compress_ratio", r->compressed > 0 ? json_real(r->compress_ratio) : json_null());
        set_number(d, "compressed", r->compressed);
        set(d, "exact", json_boolean(ctl_scan_is_exact(o)));
        set(d, "blind", json_boolean(r->blind));
        set(d, "sample", json_real(1.0 / (double)(UINT64_C(1) << r->sample_shift)));
        set(d, "error", json_real(r->saved_error));
        set_number(d, "seed", o->seed);
        set(d, "verify", verify(&o->verdict));
        set_number(d, "took_us", r->took);
        set_number(d, "cpu_us", r->cpu);
        set_number(d, "read", r->bytes_read);
        set_number(d, "memory", r->memory);
        return d;
}
