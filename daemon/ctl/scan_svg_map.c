/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What each two VMs have in common, as a heat map. */
#include <inttypes.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/scan_svg_draw.h"
#include "daemon/ctl/scan_words.h"
#include "daemon/pages/page.h"

#define CELL_MIN   27.0
#define CELL_MAX   84.0
#define HEIGHT_MAX 40.0
#define SLANTED    20 /* characters of a name above, at most */
#define LEGEND     136.0 /* at the right */
#define DARK       0.72 /* from here on the text is in the page's colour */

static double room(size_t n)
{
        return SVG_MARGIN + SVG_LABEL + CELL_MIN * (double)n + LEGEND + SVG_MARGIN;
}

double svg_map_width(size_t n)
{
        return room(n);
}

static uint64_t cell(const struct svg *v, size_t i, size_t k)
{
        const json_t *row = json_array_get(json_object_get(v->d, "matrix"), v->index[i]);

        return (uint64_t)json_integer_value(json_array_get(row, v->index[k]));
}

static uint64_t largest(const struct svg *v)
{
        uint64_t max = 0;

        for (size_t i = 0; i < v->n; i++)
                for (size_t k = 0; k < v->n; k++)
                        max = bl_max(max, cell(v, i, k));
        return max;
}

/* Values are in GiB where in MiB they would have five digits. */
static bool in_gib(uint64_t max)
{
        return max * BL_PAGE_SIZE >= UINT64_C(10000) * BL_MIB;
}

static void put_value(FILE *f, uint64_t pages, uint64_t max)
{
        double v = (double)pages * BL_PAGE_SIZE / (double)(in_gib(max) ? BL_GIB : BL_MIB);
        int digits = in_gib(max) || max * BL_PAGE_SIZE < 10 * BL_MIB;

        fprintf(f, "%.*f", digits, v);
}

/* Of text in a cell that is so wide. */
static const char *size_class(double w)
{
        return w < 34 ? "tiny" : w < 48 ? "small" : "plain";
}

static void put_cell(const struct svg *v, size_t i, size_t k, uint64_t max, double x, double y, double w, double h)
{
        uint64_t pages = cell(v, i, k);
        double part = max > 0 ? (double)pages / (double)max : 0;

        fputs("  <g><title>", v->f);
        svg_text(v->f, ctl_string(v->vm[i], "name"));
        if (i != k) {
                fputs(" and ", v->f);
                svg_text(v->f, ctl_string(v->vm[k], "name"));
        }
        fprintf(v->f,
                ": %s</title><rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"2\" "
                "fill-opacity=\"%.2f\"/>",
                CTL_SCAN_SIZE(pages), i == k ? "within" : "others", x, y, w - 2, h - 2,
                pages == 0 ? 0.04 : 0.06 + 0.94 * part);
        if (pages > 0) {
                fprintf(v->f, "<text class=\"%s %s\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">",
                        part < DARK || i == k ? "on-light" : "on", size_class(w), x + w / 2 - 1, y + h / 2 + 3.5);
                put_value(v->f, pages, max);
                fputs("</text>", v->f);
        }
        fputs("</g>\n", v->f);
}

static void put_scale(const struct svg *v, double x, double y, uint64_t max)
{
        static const struct {
                const char *id, *from, *to, *text;
        } scales[] = {{"others-scale", "from", "to", "in common"}, {"within-scale", "from2", "to2", "within"}};

        for (size_t i = 0; i < 2; i++) {
                double at = x + 62.0 * (double)i;

                fprintf(v->f,
                        "  <linearGradient id=\"%s\" x1=\"0\" y1=\"1\" x2=\"0\" y2=\"0\"><stop class=\"%s\" "
                        "offset=\"0\"/><stop class=\"%s\" offset=\"1\"/></linearGradient>\n"
                        "  <rect x=\"%.1f\" y=\"%.1f\" width=\"14\" height=\"90\" rx=\"2\" fill=\"url(#%s)\"/>\n"
                        "  <text class=\"muted small\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>\n"
                        "  <text class=\"muted small\" x=\"%.1f\" y=\"%.1f\">",
                        scales[i].id, scales[i].from, scales[i].to, at, y, scales[i].id, at + 7, y + 106,
                        scales[i].text, at + 19, y + 9);
                put_value(v->f, max, max);
                fprintf(v->f,
                        "</text>\n"
                        "  <text class=\"muted small\" x=\"%.1f\" y=\"%.1f\">0</text>\n",
                        at + 19, y + 90);
        }
}

static void put_slanted(const struct svg *v, double x, double y, const char *name)
{
        fprintf(v->f, "  <text class=\"small\" x=\"%.1f\" y=\"%.1f\" transform=\"rotate(-45 %.1f %.1f)\"><title>", x, y,
                x, y);
        svg_text(v->f, name);
        fputs("</title>", v->f);
        svg_short(v->f, name, SLANTED);
        fputs("</text>\n", v->f);
}

/* Room for the names above, at 45 degrees. */
static double names_height(const struct svg *v)
{
        size_t longest = 0;

        for (size_t i = 0; i < v->n; i++)
                longest = bl_max(longest, bl_min(SLANTED, svg_characters(ctl_string(v->vm[i], "name"))));
        return 16 + 4.3 * (double)longest;
}

double svg_map(const struct svg *v, double y)
{
        const double x0 = SVG_MARGIN + SVG_LABEL, top = y + 28 + names_height(v);
        double w = (v->width - x0 - LEGEND - SVG_MARGIN) / (double)v->n, h, bottom;
        uint64_t max = largest(v);
        char more[128];

        w = w > CELL_MAX ? CELL_MAX : w;
        h = w > HEIGHT_MAX ? HEIGHT_MAX : w < 27 ? w : w * 0.8 < 24 ? 24 : w * 0.8;
        (void)snprintf(more, sizeof(more), "%s of equal pages; on the diagonal surplus copies within one",
                       in_gib(max) ? "GiB" : "MiB");
        svg_heading(v, y, "What each two have in common", more);
        for (size_t k = 0; k < v->n; k++)
                put_slanted(v, x0 + w * (double)k + w / 2, top - 6, ctl_string(v->vm[k], "name"));
        for (size_t i = 0; i < v->n; i++) {
                svg_name(v, x0 - 10, top + h * (double)i + h / 2 + 3.5, ctl_string(v->vm[i], "name"));
                for (size_t k = 0; k < v->n; k++)
                        put_cell(v, i, k, max, x0 + w * (double)k, top + h * (double)i, w, h);
        }
        put_scale(v, x0 + w * (double)v->n + 24, top, max);
        bottom = top + h * (double)v->n;
        return bottom > top + 110 ? bottom : top + 110;
}
