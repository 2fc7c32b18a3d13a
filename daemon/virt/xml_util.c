/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/virt/xml_util.h"

#include <libxml/parser.h>
#include <stdlib.h>
#include <string.h>

#define XML_SIZE_MAX ((size_t)16 * 1024 * 1024)

xmlDoc *bl_xml_read(const char *text, size_t len)
{
        if (len == 0 || len > XML_SIZE_MAX)
                return NULL;
        return xmlReadMemory(text, (int)len, "domain.xml", NULL,
                             XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
}

xmlNode *bl_xml_next(xmlNode *n, const char *name)
{
        for (; n; n = n->next)
                if (n->type == XML_ELEMENT_NODE && (!name || strcmp((const char *)n->name, name) == 0))
                        return n;
        return NULL;
}

xmlNode *bl_xml_child(const xmlNode *n, const char *name)
{
        return n ? bl_xml_next(n->children, name) : NULL;
}

/* libxml2's allocator may be another than malloc. */
static char *take(xmlChar *x)
{
        char *s = x ? strdup((const char *)x) : NULL;

        if (x)
                xmlFree(x);
        return s;
}

char *bl_xml_attr(const xmlNode *n, const char *name)
{
        return n ? take(xmlGetNoNsProp(n, (const xmlChar *)name)) : NULL;
}

int bl_xml_attr_is(const xmlNode *n, const char *name, const char *value)
{
        char *v = bl_xml_attr(n, name);
        int is = v && strcmp(v, value) == 0;

        free(v);
        return is;
}

char *bl_xml_text(const xmlNode *n)
{
        char *s, *begin;
        size_t len;

        if (!n)
                return NULL;
        s = take(xmlNodeGetContent(n));
        if (!s)
                return NULL;
        begin = s + strspn(s, " \t\r\n");
        len = strlen(begin);
        while (len > 0 && strchr(" \t\r\n", begin[len - 1]))
                len--;
        memmove(s, begin, len);
        s[len] = '\0';
        return s;
}
