/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The few libxml2 idioms that our readers share.  No network, no external
 * entities, no printing to standard error. */
#ifndef BALLAST_VIRT_XML_UTIL_H
#define BALLAST_VIRT_XML_UTIL_H

#include <libxml/tree.h>
#include <stddef.h>

/* NULL when it is not well-formed, or larger than 16 MiB. */
xmlDoc *bl_xml_read(const char *text, size_t len);

static inline void bl_xml_docp(xmlDoc **d)
{
        if (*d)
                xmlFreeDoc(*d);
}

/* The next element named `name` (NULL: any) at or after `n` among its siblings. */
xmlNode *bl_xml_next(xmlNode *n, const char *name);
/* First child element of that name, or NULL; `n` may be NULL. */
xmlNode *bl_xml_child(const xmlNode *n, const char *name);
/* Attribute's value; free() it.  NULL: absent, or `n` is NULL. */
char *bl_xml_attr(const xmlNode *n, const char *name);
/* Is the attribute there and equal? */
int bl_xml_attr_is(const xmlNode *n, const char *name, const char *value);
/* Text content without surrounding blanks; free() it.  NULL: `n` is NULL. */
char *bl_xml_text(const xmlNode *n);

#endif
