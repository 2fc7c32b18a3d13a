/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What documents are made of: documents.c, documents_tiers.c, documents_share.c, and nobody else. */
#ifndef BALLAST_DAEMON_DOCUMENTS_H
#define BALLAST_DAEMON_DOCUMENTS_H

#include <string.h>

#include <ballast/cleanup.h>

#include "daemon/control.h"
#include "daemon/guest.h"
#include "daemon/storelink.h"
#include "daemon/util/utf8.h"

/* JSON has no 64-bit unsigned; nothing here comes near 2^63, but a guest's
 * claims may: those are cut there. */
static inline json_t *number(uint64_t v)
{
        return json_integer((json_int_t)bl_min(v, INT64_MAX));
}

static inline json_t *number_or_null(uint64_t v)
{
        return v == BL_UNSET ? json_null() : number(v);
}

/* Guests and other people choose names, and a sentence may be cut within a
 * character: what is no UTF-8 must not spoil the document. */
static inline json_t *text(const char *s)
{
        _cleanup_free_ char *clean = NULL;
        json_t *j = json_string(s ? s : "");

        if (j)
                return j;
        clean = strdup(s ? s : "");
        if (!clean)
                return NULL;
        bl_utf8_clean(clean);
        return json_string(clean);
}

static inline json_t *text_or_null(const char *s)
{
        return s ? text(s) : json_null();
}

static inline json_t *document(void)
{
        return json_pack("{s:i}", "schema", BL_SCHEMA_VERSION);
}

/* Out of memory shows as a NULL somewhere; a document is whole or not there. */
static inline int finish(json_t *d, int failed, json_t **ret)
{
        if (!d || failed) {
                json_decref(d);
                return -ENOMEM;
        }
        *ret = d;
        return 0;
}

/* --- documents_share.c ------------------------------------------------------ */

/* As status has it. */
json_t *bl_document_sharing_in_short(const struct bl_manager *m);

/* --- documents_tiers.c ------------------------------------------------------ */

/* Adds the fields of `one` (NULL: nothing) to those of `all`. */
void bl_document_add_up(json_t *all, const json_t *one, const char *const *names, size_t n);
/* Of one VM, as list and show have them. */
json_t *bl_document_store_of(const struct bl_guest *g);
json_t *bl_document_kernel_of(struct bl_guest *g, usec_t now);
/* Of the store; `r` NULL: it has not answered yet. */
json_t *bl_document_store(enum bl_storelink_state state, const struct bl_store_reply *r, usec_t age);
/* The same, as status has it. */
json_t *bl_document_store_in_short(const struct bl_manager *m);

#endif
