/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Changes to a document that a person wrote, or libvirt: what is added is indented
 * like its neighbours, and the rest stays as it is. */
#ifndef BALLAST_VIRT_XML_EDIT_H
#define BALLAST_VIRT_XML_EDIT_H

#include <libxml/tree.h>

/* An element that belongs nowhere yet; NULL when out of memory. */
xmlNode *bl_xml_new(const xmlNode *in_document_of, const char *name);
/* A child of a new element, not indented; NULL when out of memory. */
xmlNode *bl_xml_new_child(xmlNode *parent, const char *name);

/* As the last element of `parent`; behind `sibling`.  -ENOMEM: `child` may or may not
 * be in its place: unlink it, then free it. */
int bl_xml_append(xmlNode *parent, xmlNode *child);
int bl_xml_insert_after(xmlNode *sibling, xmlNode *child);

/* Takes it out, with the blanks before it, and frees it. */
void bl_xml_take_out(xmlNode *n);

/* -ENOMEM. */
int bl_xml_set(xmlNode *n, const char *attr, const char *value);

/* The document's text, with the declaration and the quotes of `original`, which it
 * was read from.  -ENOMEM. */
int bl_xml_write(xmlDoc *doc, const char *original, char **ret);

#endif
