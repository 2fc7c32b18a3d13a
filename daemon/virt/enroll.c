/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/virt/enroll.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ballast/cleanup.h>

#include "daemon/virt/domain_xml.h"
#include "daemon/virt/enroll_channel.h"
#include "daemon/virt/xml_edit.h"
#include "daemon/virt/xml_util.h"

/* --- what can be enrolled ----------------------------------------------------- */

/* 1 changed, 0 was so already, negative errno. */
typedef int (*change_fn)(const struct bl_enroll_target *t);

static xmlNode *find_balloon(const xmlNode *devices)
{
        return bl_xml_child(devices, "memballoon");
}

static int change_balloon_device(const struct bl_enroll_target *t)
{
        xmlNode *b = find_balloon(t->devices);
        _cleanup_free_ char *model = bl_xml_attr(b, "model");

        if (model && strncmp(model, "virtio", 6) == 0)
                return 0;
        if (!b) {
                b = bl_xml_new(t->devices, "memballoon");
                if (!b)
                        return -ENOMEM;
                if (bl_xml_append(t->devices, b) < 0) {
                        xmlUnlinkNode(b);
                        xmlFreeNode(b);
                        return -ENOMEM;
                }
        }
        return bl_xml_set(b, "model", "virtio") < 0 ? -ENOMEM : 1;
}

static int switch_on(xmlNode *devices, const char *attr)
{
        xmlNode *b = find_balloon(devices);

        if (!b || bl_xml_attr_is(b, attr, "on"))
                return 0;
        return bl_xml_set(b, attr, "on") < 0 ? -ENOMEM : 1;
}

static int change_autodeflate(const struct bl_enroll_target *t)
{
        return switch_on(t->devices, "autodeflate");
}

static int change_free_page_reporting(const struct bl_enroll_target *t)
{
        return switch_on(t->devices, "freePageReporting");
}

#define DROPPED                                                                                                     \
        "ballastd plugs no vhost-user-vsock device in any more (its channel is taken out of the metadata); memory " \
        "that became a memfd stays one, which does no harm while ballastd runs"

#define NO_SWAP "it gets no swap on the host's store any more"

#define TAKEN "the channel for ballast-agent (" BL_AGENT_CHANNEL ") is taken away"

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
        {bl_enroll_add_channel, offsetof(struct bl_enroll_options, no_channel),
         "a channel for ballast-agent (" BL_AGENT_CHANNEL ")"},
        {bl_enroll_add_vsock, offsetof(struct bl_enroll_options, no_channel),
         "a virtio-vsock device for ballast-agent, by the host's kernel; libvirt chooses the CID"},
        {bl_enroll_change_memory, offsetof(struct bl_enroll_options, no_channel),
         "its memory, anonymous until now, becomes a private memfd when it is next started (a vhost-user backend "
         "needs memory with a descriptor)"},
        /* this one counts what those above added */
        {bl_enroll_add_root_port, SIZE_MAX, "a free PCIe root port for each device that is plugged in live"},
        {bl_enroll_choose_vhost_user, offsetof(struct bl_enroll_options, no_channel),
         "ballastd plugs a vhost-user-vsock device in at each start (channel='vhost-user-vsock' in the metadata)\n"
         "WARNING: while that device is plugged in, QEMU can neither migrate nor save this VM"},
        {bl_enroll_drop_vhost_user, offsetof(struct bl_enroll_options, no_channel), DROPPED},
        {bl_enroll_choose_swap, SIZE_MAX,
         "ballastd plugs a swap disk on the host's store in at each start, and its agent swaps on it\n"
         "WARNING: while that disk is plugged in, QEMU can neither migrate nor save this VM ('ballastctl drain' "
         "first)"},
        {bl_enroll_drop_swap, SIZE_MAX, NO_SWAP},
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

static int open_domain(const char *xml, xmlDoc **ret_doc, struct bl_enroll_target *ret, char **ret_message)
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
        *ret = (struct bl_enroll_target){.domain = root, .devices = devices};
        return 0;
}

/* Which channel it is to be.  -EOPNOTSUPP: it cannot. */
static int choose_channel(struct bl_enroll_target *t, const struct bl_enroll_options *o, char **ret_message)
{
        bool chosen = o && o->chosen;
        const char *why;

        t->channel = !chosen && bl_enroll_is_vhost_user(t->domain) ? BL_ENROLL_VHOST_USER_VSOCK
                     : o                                           ? o->channel
                                                                   : BL_ENROLL_VIRTIO_SERIAL;
        why = t->channel == BL_ENROLL_VHOST_USER_VSOCK && !(o && o->no_channel) ? bl_enroll_why_no_vhost_user(t) : NULL;
        if (!why)
                return 0;
        say(ret_message, why);
        return -EOPNOTSUPP;
}

int bl_enroll_xml(const char *xml, const struct bl_enroll_options *o, char **ret_new, char **ret_message)
{
        _cleanup_(bl_xml_docp) xmlDoc *doc = NULL;
        _cleanup_free_ char *text = NULL, *new_xml = NULL;
        bool changed = false;
        struct bl_enroll_target t;
        size_t len;
        FILE *said;
        int r;

        r = open_domain(xml, &doc, &t, ret_message);
        if (r == 0 && o) {
                t.swap = o->swap;
                t.no_swap = o->no_swap;
                t.no_channel = o->no_channel;
        }
        if (r == 0)
                r = choose_channel(&t, o, ret_message);
        if (r < 0)
                return r;
        said = open_memstream(&text, &len);
        if (!said)
                return -ENOMEM;
        for (size_t i = 0; i < sizeof(features) / sizeof(features[0]) && r >= 0; i++) {
                if (is_off(o, &features[i]))
                        continue;
                r = features[i].change(&t);
                if (r > 0) {
                        fprintf(said, "%s%s", changed ? "\n" : "", features[i].sentence);
                        changed = true;
                }
        }
        if (fclose(said) != 0 || r < 0)
                return -ENOMEM;
        if (!changed)
                return 0;
        r = bl_xml_write(doc, xml, &new_xml);
        if (r < 0)
                return r;
        if (ret_message)
                *ret_message = BL_TAKE(text);
        *ret_new = BL_TAKE(new_xml);
        return 1;
}

static void say_taken(char **ret_message, bool channel, bool dropped, bool swap)
{
        const char *const texts[] = {channel ? TAKEN : "", dropped ? DROPPED : "", swap ? NO_SWAP : ""};
        char *s = NULL;

        if (!ret_message)
                return;
        if (asprintf(&s, "%s%s%s%s%s", texts[0], channel && (dropped || swap) ? "\n" : "", texts[1],
                     dropped && swap ? "\n" : "", texts[2]) < 0)
                s = NULL;
        *ret_message = s;
}

int bl_unenroll_xml(const char *xml, char **ret_new, char **ret_message)
{
        _cleanup_(bl_xml_docp) xmlDoc *doc = NULL;
        _cleanup_free_ char *new_xml = NULL;
        xmlNode *channel;
        struct bl_enroll_target t;
        bool dropped, swap;
        int r;

        r = open_domain(xml, &doc, &t, ret_message);
        if (r < 0)
                return r;
        t.no_swap = true;
        swap = bl_enroll_drop_swap(&t) > 0;
        dropped = bl_enroll_drop_vhost_user(&t) > 0;
        channel = bl_enroll_find_channel(t.devices);
        if (!channel && !dropped && !swap)
                return 0;
        if (channel)
                bl_xml_take_out(channel);
        r = bl_xml_write(doc, xml, &new_xml);
        if (r < 0)
                return r;
        say_taken(ret_message, channel, dropped, swap);
        *ret_new = BL_TAKE(new_xml);
        return 1;
}
