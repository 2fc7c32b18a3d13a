/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/ctl/scan_svg.h"

#include <errno.h>
#include <string.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/scan_svg_draw.h"
#include "daemon/ctl/scan_words.h"

#define WIDTH_MIN 960.0
#define LINE      18.0

/* Plain values first, for viewers that know no media queries; no variables, as not all know them either. */
static const char style[] =
        "  <style>\n"
        "    text { font-family: system-ui, 'Segoe UI', 'Liberation Sans', 'DejaVu Sans', Helvetica, Arial, "
        "sans-serif; "
        "font-size: 13px; fill: #1b1f24; }\n"
        "    .page { fill: #ffffff; }\n"
        "    .title { font-size: 24px; font-weight: 600; }\n"
        "    .heading { font-size: 16px; font-weight: 600; }\n"
        "    .figure { font-size: 26px; font-weight: 600; }\n"
        "    .muted { fill: #59636e; }\n"
        "    .small { font-size: 11px; } .tiny { font-size: 9px; }\n"
        "    .grid { stroke: #dfe3e8; stroke-width: 1; }\n"
        "    .tile { fill: #f4f6f8; }\n"
        "    .others { fill: #1f5fc4; } .within { fill: #e38b17; } .zero { fill: #1c9a8c; } .alone { fill: #cfd6de; }\n"
        "    .rest { fill: #98a2ae; } .merged { fill: #8e3fb5; }\n"
        "    .none { fill: none; stroke: #59636e; stroke-dasharray: 3 2; }\n"
        "    .on { fill: #ffffff; } .on-light { fill: #1b1f24; }\n"
        "    .from { stop-color: #1f5fc4; stop-opacity: 0.06; } .to { stop-color: #1f5fc4; }\n"
        "    .from2 { stop-color: #e38b17; stop-opacity: 0.06; } .to2 { stop-color: #e38b17; }\n"
        "    @media (prefers-color-scheme: dark) {\n"
        "      text { fill: #e6e9ed; }\n"
        "      .page { fill: #14181d; } .muted { fill: #9aa5b1; } .grid { stroke: #2c343d; } .tile { fill: #1d232a; }\n"
        "      .others { fill: #6ba4ff; } .within { fill: #ffb65c; } .zero { fill: #4fd1c3; } .alone { fill: #414c58; "
        "}\n"
        "      .rest { fill: #6b7682; } .merged { fill: #d08bff; } .none { stroke: #9aa5b1; }\n"
        "      .on { fill: #10141a; } .on-light { fill: #e6e9ed; }\n"
        "      .from, .to { stop-color: #6ba4ff; } .from2, .to2 { stop-color: #ffb65c; }\n"
        "    }\n"
        "  </style>\n";

/* --- text --------------------------------------------------------------------------- */

/* XML 1.0 has no C0 controls but three, and neither U+FFFE nor U+FFFF. */
static size_t put_character(FILE *f, const char *s)
{
        const unsigned char *p = (const unsigned char *)s;
        size_t n = p[0] < 0x80 ? 1 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;

        n = strnlen(s, n);
        if (p[0] < 0x20 || p[0] == 0x7f || (n == 3 && p[0] == 0xef && p[1] == 0xbf && p[2] >= 0xbe))
                fputc('?', f);
        else if (*s == '&')
                fputs("&amp;", f);
        else if (*s == '<')
                fputs("&lt;", f);
        else if (*s == '>')
                fputs("&gt;", f);
        else if (*s == '"')
                fputs("&quot;", f);
        else
                (void)fwrite(s, 1, n, f);
        return n;
}

void svg_text(FILE *f, const char *s)
{
        while (*s)
                s += put_character(f, s);
}

size_t svg_characters(const char *s)
{
        size_t n = 0;

        for (; *s; s++)
                n += ((unsigned char)*s & 0xc0) != 0x80;
        return n;
}

void svg_short(FILE *f, const char *s, size_t characters)
{
        size_t room = svg_characters(s) <= characters ? characters : characters - 1;

        for (size_t i = 0; *s && i < room; i++)
                s += put_character(f, s);
        if (*s)
                fputs("\xe2\x80\xa6", f);
}

void svg_name(const struct svg *v, double x, double y, const char *name)
{
        fprintf(v->f, "  <text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\"><title>", x, y);
        svg_text(v->f, name);
        fputs("</title>", v->f);
        svg_short(v->f, name, 24);
        fputs("</text>\n", v->f);
}

double svg_legend(const struct svg *v, double x, double y, const char *class_name, const char *text)
{
        fprintf(v->f,
                "  <rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"12\" height=\"12\" rx=\"2\"/>\n"
                "  <text class=\"muted\" x=\"%.1f\" y=\"%.1f\">",
                class_name, x, y - 11, x + 18, y);
        svg_text(v->f, text);
        fputs("</text>\n", v->f);
        return x + 18 + 7.0 * (double)svg_characters(text) + 14;
}

void svg_heading(const struct svg *v, double y, const char *text, const char *more)
{
        fprintf(v->f, "  <text class=\"heading\" x=\"%.1f\" y=\"%.1f\">", SVG_MARGIN, y);
        svg_text(v->f, text);
        fputs("</text>\n", v->f);
        if (!more)
                return;
        fprintf(v->f, "  <text class=\"muted\" x=\"%.1f\" y=\"%.1f\">", SVG_MARGIN, y + 20);
        svg_text(v->f, more);
        fputs("</text>\n", v->f);
}

double svg_paragraph(const struct svg *v, double y, const char *class_name, const char *text)
{
        _cleanup_free_ char *folded = text ? ctl_scan_fold(text, (size_t)((v->width - 2 * SVG_MARGIN) / 7)) : NULL;
        char *rest = folded, *line;

        while ((line = strsep(&rest, "\n"))) {
                fprintf(v->f, "  <text class=\"%s\" x=\"%.1f\" y=\"%.1f\">", class_name, SVG_MARGIN, y);
                svg_text(v->f, line);
                fputs("</text>\n", v->f);
                y += LINE;
        }
        return y;
}

/* --- the page ----------------------------------------------------------------------- */

/* What one sees first: four figures. */
static double tiles(const struct svg *v, double y)
{
        const double gap = 16, width = (v->width - 2 * SVG_MARGIN - 3 * gap) / 4, height = 76;
        uint64_t pages = ctl_number(v->d, "pages"), saved = ctl_number(v->d, "saved_pages");
        double ratio = json_number_value(json_object_get(v->d, "compress_ratio"));
        char figure[4][96], label[4][96], count[64];
        bool seen = ctl_scan_sees_merged(v->d);

        (void)snprintf(figure[0], sizeof(figure[0]), "%s", CTL_SCAN_SIZE(pages));
        (void)snprintf(label[0], sizeof(label[0]), "held by %s", ctl_scan_count(v->d, count, sizeof(count)));
        (void)snprintf(figure[1], sizeof(figure[1]), "%s", CTL_SCAN_SIZE(saved));
        (void)snprintf(label[1], sizeof(label[1]), "freed by merging all: %s", CTL_SCAN_PERCENT(saved, pages));
        (void)snprintf(figure[2], sizeof(figure[2]), "%s",
                       seen ? CTL_SCAN_SIZE(ctl_number(v->d, "merged_saved")) : "-");
        (void)snprintf(label[2], sizeof(label[2]), "%s",
                       !seen                     ? "what KSM frees is not seen"
                       : ctl_scan_only_ksm(v->d) ? "of that KSM frees now"
                                                 : "of that is kept once already");
        (void)snprintf(figure[3], sizeof(figure[3]), ratio > 0 ? "%.2f : 1" : "-", ratio);
        (void)snprintf(label[3], sizeof(label[3]), "LZ4 on what would be left");
        for (size_t i = 0; i < 4; i++) {
                double x = SVG_MARGIN + (double)i * (width + gap);

                fprintf(v->f,
                        "  <rect class=\"tile\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"6\"/>\n"
                        "  <text class=\"figure\" x=\"%.1f\" y=\"%.1f\">%s</text>\n"
                        "  <text class=\"muted\" x=\"%.1f\" y=\"%.1f\">",
                        x, y, width, height, x + 14, y + 36, figure[i], x + 14, y + 60);
                svg_text(v->f, label[i]);
                fputs("</text>\n", v->f);
        }
        return y + height;
}

static double caption(const struct svg *v, double y)
{
        static char *(*const sentences[])(const json_t *d) = {ctl_scan_headline, ctl_scan_say_runs,
                                                              ctl_scan_say_compression, ctl_scan_say_sampling,
                                                              ctl_scan_say_verdict};
        char *note;

        for (size_t i = 0; i < sizeof(sentences) / sizeof(sentences[0]); i++) {
                _cleanup_free_ char *s = sentences[i](v->d);

                if (s)
                        y = svg_paragraph(v, y, i == 0 ? "caption" : "muted", s);
        }
        for (size_t i = 0; (note = ctl_scan_note(v->d, i)); i++) {
                y = svg_paragraph(v, y, "muted", note);
                free(note);
        }
        return y;
}

static void put_subtitle(const struct svg *v)
{
        size_t all = json_array_size(json_object_get(v->d, "vms"));
        char when[32];

        fprintf(v->f, "  <text class=\"muted\" x=\"%.1f\" y=\"68\">%s; ", SVG_MARGIN,
                ctl_time(ctl_number(v->d, "at_us"), when, sizeof(when)));
        if (json_number_value(json_object_get(v->d, "sample")) < 1)
                fputs("estimated from a sample", v->f);
        else
                fputs(ctl_true(v->d, "exact") ? "exact" : "as found while it ran", v->f);
        if (v->n < all)
                fprintf(v->f, "; of %zu %s the %zu largest are drawn", all, ctl_scan_kind(v->d, true), v->n);
        fputs("</text>\n", v->f);
}

static double draw(const struct svg *v)
{
        char title[64];
        double y;

        fprintf(v->f, "  <text class=\"title\" x=\"%.1f\" y=\"46\">Memory that equal pages could save</text>\n",
                SVG_MARGIN);
        put_subtitle(v);
        y = tiles(v, 88) + 44;
        if (v->n == 0)
                return caption(v, y);
        (void)snprintf(title, sizeof(title), "What each %s holds", ctl_scan_kind(v->d, false));
        svg_heading(v, y, title, NULL);
        y = svg_bars(v, y + 26) + 48;
        if (v->n > 1 && json_is_array(json_object_get(v->d, "matrix")))
                y = svg_map(v, y) + 36;
        return caption(v, y);
}

/* --- which VMs ---------------------------------------------------------------------- */

struct sized {
        size_t index;
        uint64_t pages;
};

static int larger_first(const void *a, const void *b)
{
        const struct sized *p = a, *q = b;

        if (p->pages != q->pages)
                return p->pages < q->pages ? 1 : -1;
        return p->index < q->index ? -1 : p->index > q->index;
}

static int by_index(const void *a, const void *b)
{
        const struct sized *p = a, *q = b;

        return p->index < q->index ? -1 : p->index > q->index;
}

/* The largest, in their order; those that could not be scanned have no bar. */
static int choose(struct svg *v)
{
        const json_t *vms = json_object_get(v->d, "vms"), *vm;
        _cleanup_free_ struct sized *all = calloc(json_array_size(vms) + 1, sizeof(*all));
        size_t i;

        v->vm = calloc(CTL_SVG_MAX, sizeof(json_t *));
        v->index = calloc(CTL_SVG_MAX, sizeof(*v->index));
        if (!all || !v->vm || !v->index)
                return -ENOMEM;
        json_array_foreach(vms, i, vm)
        {
                if (!json_is_string(json_object_get(vm, "error")))
                        all[v->n++] = (struct sized){i, ctl_number(vm, "pages")};
        }
        qsort(all, v->n, sizeof(*all), larger_first);
        v->n = v->n < CTL_SVG_MAX ? v->n : CTL_SVG_MAX;
        qsort(all, v->n, sizeof(*all), by_index);
        for (i = 0; i < v->n; i++) {
                v->index[i] = all[i].index;
                v->vm[i] = json_array_get(vms, all[i].index);
        }
        return 0;
}

/* The height is known when all is drawn: so what is drawn goes into a buffer first. */
static int draw_page(struct svg *v, FILE *out)
{
        _cleanup_free_ char *body = NULL;
        size_t len = 0;
        double height;

        v->f = open_memstream(&body, &len);
        if (!v->f)
                return -ENOMEM;
        height = draw(v) + SVG_MARGIN - LINE / 2;
        if (fclose(v->f) != 0)
                return -ENOMEM;
        fprintf(out,
                "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\" "
                "role=\"img\">\n  <title>Memory that equal pages could save</title>\n",
                v->width, height, v->width, height);
        fputs(style, out);
        fprintf(out, "  <rect class=\"page\" width=\"%.0f\" height=\"%.0f\"/>\n", v->width, height);
        (void)fwrite(body, 1, len, out);
        fputs("</svg>\n", out);
        return 0;
}

int ctl_scan_svg(const json_t *d, char **ret, size_t *ret_len)
{
        struct svg v = {.d = d};
        _cleanup_free_ char *text = NULL;
        size_t len = 0;
        FILE *out;
        int r;

        r = choose(&v);
        if (r >= 0) {
                double width = json_is_array(json_object_get(d, "matrix")) ? svg_map_width(v.n) : 0;

                v.width = width > WIDTH_MIN ? width : WIDTH_MIN;
                out = open_memstream(&text, &len);
                r = out ? draw_page(&v, out) : -ENOMEM;
                if (out && fclose(out) != 0)
                        r = -ENOMEM;
        }
        free(v.vm);
        free(v.index);
        if (r < 0)
                return r;
        *ret = BL_TAKE(text);
        *ret_len = len;
        return 0;
}
