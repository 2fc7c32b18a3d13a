/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sentences for people, put together in a buffer of the caller (explain.c, share_explain.c). */
#ifndef BALLAST_POLICY_TEXT_H
#define BALLAST_POLICY_TEXT_H

#include <stddef.h>

#include <ballast/units.h>

struct bl_text {
        char *buf;
        size_t size;
        size_t len; /* that it would have with room enough, as snprintf counts */
};

void bl_text_add(struct bl_text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* "812 MiB", "1.0 GiB" */
void bl_text_size(struct bl_text *t, uint64_t bytes);
/* A VM's name; what could disturb a terminal is replaced, what is too long is cut. */
void bl_text_name(struct bl_text *t, const char *name);
/* "20 s", "3 min", rounded up */
void bl_text_time(struct bl_text *t, usec_t time);

#endif
