/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A bar a VM: what it holds, by whether that has copies. */
#include <inttypes.h>
#include <string.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/scan_svg_draw.h"
#include "daemon/ctl/scan_words.h"
#include "daemon/pages/page.h"

enum part { OTHERS, WITHIN, ZERO, ALONE, REST, KERNEL_ZERO, N_PARTS };

static const struct {
        const char *class_name, *legend, *on;
} parts[N_PARTS] = {
        [OTHERS] = {"others", "another has it, too", "on"},
        [WITHIN] = {"within", "several times in it alone", "on-light"},
        [ZERO] = {"zero", "zero pages", "on"},
        [ALONE] = {"alone", "no copy", "on-light"},
        [REST] = {"rest", "changed, or unreadable", "on-light"},
        [KERNEL_ZERO] = {"none", "the kernel's zero page (costs nothing)", "muted"},
};

/* A sample has no runs, which tell what has copies only within: then it is not told from what has none. */
static const char *legend_of(const struct svg *v, size_t part)
{
        bool sampled = json_number_value(json_object_get(v->d, "sample")) < 1;

        return part == ALONE && sampled ? "not in another" : parts[part].legend;
}

static const char *merged_legend(const struct svg *v)
{
        return ctl_scan_only_ksm(v->d) ? "merged by KSM now" : "kept once now";
}

static uint64_t with_copies(const json_t *vm)
{
        const json_t *runs = json_object_get(vm, "runs");
        uint64_t sum = 0;

        for (size_t i = 0; i < json_array_size(runs); i++)
                sum += (uint64_t)json_integer_value(json_array_get(runs, i));
        return sum;
}

static void take_parts(const json_t *vm, uint64_t ret[N_PARTS])
{
        uint64_t rest = ctl_number(vm, "pages");

        ret[ZERO] = bl_min(rest, ctl_number(vm, "zero"));
        rest -= ret[ZERO];
        ret[REST] = bl_min(rest, bl_add_sat(ctl_number(vm, "volatile"), ctl_number(vm, "unreadable")));
        rest -= ret[REST];
        ret[OTHERS] = bl_min(rest, ctl_number(vm, "with_others"));
        rest -= ret[OTHERS];
        ret[WITHIN] = bl_min(rest, bl_sub_sat(with_copies(vm), ret[OTHERS]));
        ret[ALONE] = rest - ret[WITHIN];
        ret[KERNEL_ZERO] = ctl_number(vm, "kernel_zero");
}

static uint64_t longest(const struct svg *v, uint64_t sum[N_PARTS])
{
        uint64_t max = 1, p[N_PARTS];

        for (size_t i = 0; i < v->n; i++) {
                uint64_t all = 0;

                take_parts(v->vm[i], p);
                for (size_t k = 0; k < N_PARTS; k++) {
                        sum[k] += p[k];
                        all += p[k];
                }
                max = bl_max(max, all);
        }
        return max;
}

static double put_legend(const struct svg *v, double y, const uint64_t sum[N_PARTS], bool merged)
{
        double x = SVG_MARGIN;

        for (size_t k = 0; k < N_PARTS; k++) {
                if (sum[k] == 0)
                        continue;
                if (x > v->width - SVG_MARGIN - 290) {
                        x = SVG_MARGIN;
                        y += 20;
                }
                x = svg_legend(v, x, y, parts[k].class_name, legend_of(v, k));
        }
        if (merged)
                (void)svg_legend(v, x, y, "merged", merged_legend(v));
        return y;
}

/* A step that gives four to eight lines, a power of two of bytes. */
static uint64_t grid_step(uint64_t pages)
{
        uint64_t step = 1;

        while (pages / step >= 8)
                step *= 2;
        return step;
}

static void put_grid(const struct svg *v, double x0, double scale, uint64_t pages, double top, double bottom)
{
        for (uint64_t at = 0, step = grid_step(pages); at <= pages; at += step) {
                double x = x0 + (double)at * scale;

                fprintf(v->f,
                        "  <line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n"
                        "  <text class=\"muted small\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>\n",
                        x, top, x, bottom, x, bottom + 16, at == 0 ? "0" : CTL_SCAN_SIZE(at));
        }
}

static void put_bar(const struct svg *v, const json_t *vm, double x0, double scale, double y, double height)
{
        uint64_t p[N_PARTS], merged = ctl_number(vm, "merged");
        double x = x0;

        take_parts(vm, p);
        for (size_t k = 0; k < N_PARTS; k++) {
                double w = (double)p[k] * scale;
                const char *size = CTL_SCAN_SIZE(p[k]);

                if (p[k] == 0)
                        continue;
                fprintf(v->f,
                        "  <rect class=\"%s\" x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%.1f\"><title>%s: "
                        "%s</title></rect>\n",
                        parts[k].class_name, x, y, w, height, legend_of(v, k), size);
                if (w >= 7.5 * (double)strlen(size) && height >= 15)
                        fprintf(v->f,
                                "  <text class=\"%s small\" x=\"%.2f\" y=\"%.1f\" "
                                "text-anchor=\"middle\">%s</text>\n",
                                parts[k].on, x + w / 2, y + height / 2 + 4, size);
                x += w;
        }
        if (merged > 0)
                fprintf(v->f,
                        "  <rect class=\"merged\" x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"4\"><title>%s: "
                        "%s</title></rect>\n",
                        x0, y + height + 1, (double)merged * scale, merged_legend(v), CTL_SCAN_SIZE(merged));
}

double svg_bars(const struct svg *v, double y)
{
        const double x0 = SVG_MARGIN + SVG_LABEL, height = v->n <= 12 ? 24 : v->n <= 32 ? 18 : 15;
        uint64_t sum[N_PARTS] = {0}, pages = longest(v, sum);
        const double scale = (v->width - x0 - SVG_MARGIN - 80) / (double)pages;
        bool merged = ctl_number(v->d, "merged") > 0;
        const double pitch = height + (merged ? 12 : 8);
        double top = put_legend(v, y, sum, merged) + 20;

        put_grid(v, x0, scale, pages, top - 4, top + pitch * (double)v->n);
        for (size_t i = 0; i < v->n; i++) {
                double at = top + pitch * (double)i;
                uint64_t all = bl_add_sat(ctl_number(v->vm[i], "pages"), ctl_number(v->vm[i], "kernel_zero"));

                svg_name(v, x0 - 10, at + height / 2 + 4.5, ctl_string(v->vm[i], "name"));
                put_bar(v, v->vm[i], x0, scale, at, height);
                fprintf(v->f, "  <text x=\"%.1f\" y=\"%.1f\">%s</text>\n", x0 + (double)all * scale + 8,
                        at + height / 2 + 4.5, CTL_SCAN_SIZE(ctl_number(v->vm[i], "pages")));
        }
        return top + pitch * (double)v->n + 16;
}
