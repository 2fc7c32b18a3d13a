/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/virt/xml_edit.h"

#include <errno.h>
#include <libxml/parser.h>
#include <libxml/xmlsave.h>
#include <string.h>

#include "daemon/virt/xml_util.h"

/* The blanks before a node (a text node), or NULL. */
static xmlNode *blanks_before(const xmlNode *n)
{
        xmlNode *t = n ? n->prev : NULL;

        return t && t->type == XML_TEXT_NODE && xmlIsBlankNode(t) ? t : NULL;
}

/* Adds `child` as last element of `parent`, indented like its siblings. */
int bl_xml_append(xmlNode *parent, xmlNode *child)
{
        const xmlNode *sibling = bl_xml_child(parent, NULL), *indent = blanks_before(sibling);
        xmlNode *last = parent->last, *blank;

        if (!indent)
                return xmlAddChild(parent, child) ? 0 : -ENOMEM;
        blank = xmlNewDocText(parent->doc, indent->content);
        if (!blank)
                return -ENOMEM;
        /* the blanks before the closing tag stay last */
        if (last->type == XML_TEXT_NODE && xmlIsBlankNode(last)) {
                if (!xmlAddPrevSibling(last, child))
                        return -ENOMEM;
                /* not a neighbour of `last` now, so the texts are not merged */
                return xmlAddPrevSibling(child, blank) ? 0 : -ENOMEM;
        }
        if (!xmlAddChild(parent, child))
                return -ENOMEM;
        return xmlAddPrevSibling(child, blank) ? 0 : -ENOMEM;
}

/* The same behind `sibling`. */
int bl_xml_insert_after(xmlNode *sibling, xmlNode *child)
{
        const xmlNode *indent = blanks_before(sibling);
        xmlNode *blank;

        if (!xmlAddNextSibling(sibling, child))
                return -ENOMEM;
        if (!indent)
                return 0;
        blank = xmlNewDocText(child->doc, indent->content);
        return blank && xmlAddPrevSibling(child, blank) ? 0 : -ENOMEM;
}

/* Takes it out, with the blanks before it. */
void bl_xml_take_out(xmlNode *n)
{
        xmlNode *blank = blanks_before(n);

        if (blank) {
                xmlUnlinkNode(blank);
                xmlFreeNode(blank);
        }
        xmlUnlinkNode(n);
        xmlFreeNode(n);
}

xmlNode *bl_xml_new(const xmlNode *parent, const char *name)
{
        return xmlNewDocNode(parent->doc, NULL, (const xmlChar *)name, NULL);
}

/* A child inside a new element. */
xmlNode *bl_xml_new_child(xmlNode *parent, const char *name)
{
        return xmlNewChild(parent, NULL, (const xmlChar *)name, NULL);
}

int bl_xml_set(xmlNode *n, const char *name, const char *value)
{
        return xmlSetProp(n, (const xmlChar *)name, (const xmlChar *)value) ? 0 : -ENOMEM;
}

/* libxml2 writes attributes in double quotes, libvirt in single ones: where the
 * original does so, so does the result, and a diff shows what was changed. */
static void keep_quotes(char *s, const char *original)
{
        const char *eq = strchr(original, '=');

        if (!eq || eq[1] != '\'')
                return;
        while (*s) {
                const char *skip_to = NULL;

                if (*s != '<') {
                        s++;
                        continue;
                }
                if (strncmp(s, "<!--", 4) == 0)
                        skip_to = "-->";
                else if (strncmp(s, "<![CDATA[", 9) == 0)
                        skip_to = "]]>";
                if (skip_to) {
                        s = strstr(s, skip_to);
                        if (!s)
                                return;
                        continue;
                }
                /* a tag or the declaration: values hold neither quotes of their own kind nor '<' */
                while (*s && *s != '>') {
                        char *end;

                        if (*s != '"' && *s != '\'') {
                                s++;
                                continue;
                        }
                        end = strchr(s + 1, *s);
                        if (!end)
                                return;
                        if (*s == '"' && !memchr(s, '\'', (size_t)(end - s)))
                                *s = *end = '\'';
                        s = end + 1;
                }
        }
}

/* As it came: libxml2 keeps blanks and comments; the declaration only where there was one. */
int bl_xml_write(xmlDoc *doc, const char *original, char **ret)
{
        int options = XML_SAVE_AS_XML | (strncmp(original, "<?xml", 5) == 0 ? 0 : XML_SAVE_NO_DECL);
        xmlBuffer *buf = xmlBufferCreate();
        xmlSaveCtxt *save = buf ? xmlSaveToBuffer(buf, NULL, options) : NULL;
        char *s = NULL;

        if (save && xmlSaveDoc(save, doc) >= 0 && xmlSaveClose(save) >= 0)
                s = strdup((const char *)xmlBufferContent(buf));
        if (s)
                keep_quotes(s, original);
        if (buf)
                xmlBufferFree(buf);
        if (!s)
                return -ENOMEM;
        *ret = s;
        return 0;
}
