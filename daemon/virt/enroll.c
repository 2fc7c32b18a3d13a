/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/virt/enroll.h"

#include <errno.h>
#include <libxml/parser.h>
#include <libxml/xmlsave.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ballast/cleanup.h>

#include "daemon/virt/domain_xml.h"
#include "daemon/virt/xml_util.h"

/* --- nodes with the document's own indentation ------------------------------- */

/* The blanks before a node (a text node), or NULL. */
static xmlNode *blanks_before(const xmlNode *n)
{
        xmlNode *t = n ? n->prev : NULL;

        return t && t->type == XML_TEXT_NODE && xmlIsBlankNode(t) ? t : NULL;
}

/* Adds `child` as last element of `parent`, indented like its siblings. */
static int append_element(xmlNode *parent, xmlNode *child)
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

/* A child inside a new element, on a line of its own. */
static xmlNode *new_child(xmlNode *parent, const char *name)
{
        return xmlNewChild(parent, NULL, (const xmlChar *)name, NULL);
}

static int set_attr(xmlNode *n, const char *name, const char *value)
{
        return xmlSetProp(n, (const xmlChar *)name, (const xmlChar *)value) ? 0 : -ENOMEM;
}

/* --- what can be enrolled ----------------------------------------------------- */

/* 1 changed, 0 was so already, negative errno. */
typedef int (*change_fn)(xmlNode *devices);

static xmlNode *find_balloon(xmlNode *devices)
{
        return bl_xml_child(devices, "memballoon");
}

static int change_balloon_device(xmlNode *devices)
{
        xmlNode *b = find_balloon(devices);
        _cleanup_free_ char *model = bl_xml_attr(b, "model");

        if (model && strncmp(model, "virtio", 6) == 0)
                return 0;
        if (!b) {
                b = xmlNewDocNode(devices->doc, NULL, (const xmlChar *)"memballoon", NULL);
                if (!b)
                        return -ENOMEM;
                if (append_element(devices, b) < 0) {
                        xmlFreeNode(b);
                        return -ENOMEM;
                }
        }
        return set_attr(b, "model", "virtio") < 0 ? -ENOMEM : 1;
}

static int switch_on(xmlNode *devices, const char *attr)
{
        xmlNode *b = find_balloon(devices);

        if (!b || bl_xml_attr_is(b, attr, "on"))
                return 0;
        return set_attr(b, attr, "on") < 0 ? -ENOMEM : 1;
}

static int change_autodeflate(xmlNode *devices)
{
        return switch_on(devices, "autodeflate");
}

static int change_free_page_reporting(xmlNode *devices)
{
        return switch_on(devices, "freePageReporting");
}

static xmlNode *find_channel(xmlNode *devices)
{
        for (xmlNode *n = bl_xml_child(devices, "channel"); n; n = bl_xml_next(n->next, "channel"))
                if (bl_xml_attr_is(bl_xml_child(n, "target"), "name", BL_AGENT_CHANNEL))
                        return n;
        return NULL;
}

/* <channel type='unix'><target type='virtio' name='org.ballast.agent.0'/></channel>:
 * libvirt gives the socket its place, and adds the controller where there is none. */
static int change_channel(xmlNode *devices)
{
        xmlNode *channel, *target;

        if (find_channel(devices))
                return 0;
        channel = xmlNewDocNode(devices->doc, NULL, (const xmlChar *)"channel", NULL);
        if (!channel)
                return -ENOMEM;
        if (set_attr(channel, "type", "unix") < 0)
                goto fail;
        target = new_child(channel, "target");
        if (!target || set_attr(target, "type", "virtio") < 0 || set_attr(target, "name", BL_AGENT_CHANNEL) < 0)
                goto fail;
        if (append_element(devices, channel) < 0)
                goto fail;
        return 1;

fail:
        xmlUnlinkNode(channel);
        xmlFreeNode(channel);
        return -ENOMEM;
}

static const struct feature {
        change_fn change;
        size_t off; /* offset of the option that leaves it alone */
        const char *sentence;
} features[] = {
        {change_balloon_device, SIZE_MAX, "the balloon device is virtio"},
        {change_autodeflate, offsetof(struct bl_enroll_options, no_autodeflate),
         "the balloon gives memory back before the guest's OOM killer runs (autodeflate)"},
        {change_free_page_reporting, offsetof(struct bl_enroll_options, no_free_page_reporting),
         "the guest reports free pages, which go back to the host (freePageReporting)"},
        {change_channel, offsetof(struct bl_enroll_options, no_channel),
         "a channel for ballast-agent (" BL_AGENT_CHANNEL ")"},
};

static bool is_off(const struct bl_enroll_options *o, const struct feature *f)
{
        return o && f->off != SIZE_MAX && *(const bool *)((const char *)o + f->off);
}

/* --- the document --------------------------------------------------------------- */

static void say(char **ret_message, const char *text)
{
        if (ret_message)
                *ret_message = strdup(text);
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
static int serialize(xmlDoc *doc, const char *original, char **ret)
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

static int open_devices(const char *xml, xmlDoc **ret_doc, xmlNode **ret_devices, char **ret_message)
{
        _cleanup_(bl_xml_docp) xmlDoc *doc = bl_xml_read(xml, strlen(xml));
        xmlNode *root = doc ? xmlDocGetRootElement(doc) : NULL, *devices;

        if (!root || strcmp((const char *)root->name, "domain") != 0) {
                say(ret_message, "this is not a domain XML");
                return -EINVAL;
        }
        devices = bl_xml_child(root, "devices");
        if (!devices) {
                say(ret_message, "the domain XML has no <devices>");
                return -EINVAL;
        }
        if (!bl_xml_attr_is(root, "type", "kvm") && !bl_xml_attr_is(root, "type", "qemu")) {
                say(ret_message, "only QEMU and KVM domains can be enrolled");
                return -EOPNOTSUPP;
        }
        *ret_doc = BL_TAKE(doc);
        *ret_devices = devices;
        return 0;
}

int bl_enroll_xml(const char *xml, const struct bl_enroll_options *o, char **ret_new, char **ret_message)
{
        _cleanup_(bl_xml_docp) xmlDoc *doc = NULL;
        _cleanup_free_ char *text = NULL, *new_xml = NULL;
        xmlNode *devices = NULL;
        bool changed = false;
        size_t len;
        FILE *said;
        int r;

        r = open_devices(xml, &doc, &devices, ret_message);
        if (r < 0)
                return r;
        said = open_memstream(&text, &len);
        if (!said)
                return -ENOMEM;
        for (size_t i = 0; i < sizeof(features) / sizeof(features[0]) && r >= 0; i++) {
                if (is_off(o, &features[i]))
                        continue;
                r = features[i].change(devices);
                if (r > 0) {
                        fprintf(said, "%s%s", changed ? "\n" : "", features[i].sentence);
                        changed = true;
                }
        }
        if (fclose(said) != 0 || r < 0)
                return -ENOMEM;
        if (!changed)
                return 0;
        r = serialize(doc, xml, &new_xml);
        if (r < 0)
                return r;
        if (ret_message)
                *ret_message = BL_TAKE(text);
        *ret_new = BL_TAKE(new_xml);
        return 1;
}

int bl_unenroll_xml(const char *xml, char **ret_new, char **ret_message)
{
        _cleanup_(bl_xml_docp) xmlDoc *doc = NULL;
        _cleanup_free_ char *new_xml = NULL;
        xmlNode *devices = NULL, *channel, *blank;
        int r;

        r = open_devices(xml, &doc, &devices, ret_message);
        if (r < 0)
                return r;
        channel = find_channel(devices);
        if (!channel)
                return 0;
        blank = blanks_before(channel);
        if (blank) {
                xmlUnlinkNode(blank);
                xmlFreeNode(blank);
        }
        xmlUnlinkNode(channel);
        xmlFreeNode(channel);
        r = serialize(doc, xml, &new_xml);
        if (r < 0)
                return r;
        say(ret_message, "the channel for ballast-agent (" BL_AGENT_CHANNEL ") is taken away");
        *ret_new = BL_TAKE(new_xml);
        return 1;
}
