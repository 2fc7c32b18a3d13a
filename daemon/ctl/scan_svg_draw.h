/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The parts of the picture, scan_svg.h; each draws at `y` and says where it ends. */
#ifndef BALLAST_CTL_SCAN_SVG_DRAW_H
#define BALLAST_CTL_SCAN_SVG_DRAW_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

struct svg {
        FILE *f;
        double width;
        const json_t *d;
        size_t n; /* VMs that are drawn: */
        const json_t **vm;
        size_t *index; /* their places in the document, in its order */
};

#define SVG_MARGIN 32.0
#define SVG_LABEL  190.0 /* for names, left of bars and map */

size_t svg_characters(const char *s);
/* Text for XML, whatever is in it. */
void svg_text(FILE *f, const char *s);
/* At most so many characters of it, the last an ellipsis. */
void svg_short(FILE *f, const char *s, size_t characters);
/* A name before (right-aligned to x), with the whole of it as a tooltip. */
void svg_name(const struct svg *v, double x, double y, const char *name);
/* A small square and what its colour means; returns the x behind it. */
double svg_legend(const struct svg *v, double x, double y, const char *class_name, const char *text);
void svg_heading(const struct svg *v, double y, const char *text, const char *more);
/* Sentences folded to the width, a line each 18 units. */
double svg_paragraph(const struct svg *v, double y, const char *class_name, const char *text);

double svg_bars(const struct svg *v, double y);
double svg_map(const struct svg *v, double y);
/* Which the map needs. */
double svg_map_width(size_t n);

#endif
