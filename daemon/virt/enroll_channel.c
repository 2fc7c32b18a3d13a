/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/virt/enroll_channel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <ballast/cleanup.h>

#include "daemon/util/size.h"
#include "daemon/virt/domain_xml.h"
#include "daemon/virt/xml_edit.h"
#include "daemon/virt/xml_util.h"

xmlNode *bl_enroll_find_channel(const xmlNode *devices)
{
        for (xmlNode *n = bl_xml_child(devices, "channel"); n; n = bl_xml_next(n->next, "channel"))
                if (bl_xml_attr_is(bl_xml_child(n, "target"), "name", BL_AGENT_CHANNEL))
                        return n;
        return NULL;
}

/* <channel type='unix'><target type='virtio' name='org.ballast.agent.0'/></channel>:
 * libvirt gives the socket its place, and adds the controller where there is none. */
int bl_enroll_add_channel(const struct bl_enroll_target *t)
{
        xmlNode *channel, *target;

        if (bl_enroll_find_channel(t->devices))
                return 0;
        channel = bl_xml_new(t->devices, "channel");
        if (!channel)
                return -ENOMEM;
        if (bl_xml_set(channel, "type", "unix") < 0)
                goto fail;
        target = bl_xml_new_child(channel, "target");
        if (!target || bl_xml_set(target, "type", "virtio") < 0 || bl_xml_set(target, "name", BL_AGENT_CHANNEL) < 0)
                goto fail;
        if (bl_xml_append(t->devices, channel) < 0)
                goto fail;
        return 1;

fail:
        xmlUnlinkNode(channel);
        xmlFreeNode(channel);
        return -ENOMEM;
}

/* <vsock model='virtio'><cid auto='yes'/></vsock> */
int bl_enroll_add_vsock(const struct bl_enroll_target *t)
{
        xmlNode *vsock, *cid;

        if (t->channel != BL_ENROLL_VHOST_VSOCK || bl_xml_child(t->devices, "vsock"))
                return 0;
        vsock = bl_xml_new(t->devices, "vsock");
        if (!vsock)
                return -ENOMEM;
        cid = bl_xml_new_child(vsock, "cid");
        if (cid && bl_xml_set(vsock, "model", "virtio") == 0 && bl_xml_set(cid, "auto", "yes") == 0 &&
            bl_xml_append(t->devices, vsock) == 0)
                return 1;
        xmlUnlinkNode(vsock);
        xmlFreeNode(vsock);
        return -ENOMEM;
}

/* --- vhost-user-vsock ---------------------------------------------------------- */

/* New elements go where libvirt writes them; it does not mind others. */
static xmlNode *add_below_domain(const struct bl_enroll_target *t, const char *name, const char *behind,
                                 const char *or_behind)
{
        xmlNode *sibling = bl_xml_child(t->domain, behind) ?: bl_xml_child(t->domain, or_behind);
        xmlNode *n = bl_xml_new(t->domain, name);

        if (!n)
                return NULL;
        if ((sibling ? bl_xml_insert_after(sibling, n) : bl_xml_append(t->domain, n)) == 0)
                return n;
        xmlUnlinkNode(n);
        xmlFreeNode(n);
        return NULL;
}

/* A child with one attribute; that of this name where there is one. */
static int set_child_attr(xmlNode *parent, const char *name, const char *attr, const char *value)
{
        xmlNode *n = bl_xml_child(parent, name);

        if (!n) {
                n = bl_xml_new(parent, name);
                if (!n)
                        return -ENOMEM;
                if (bl_xml_append(parent, n) < 0) {
                        xmlUnlinkNode(n);
                        xmlFreeNode(n);
                        return -ENOMEM;
                }
        }
        return bl_xml_set(n, attr, value);
}

/* A memfd without an access mode would be shared. */
int bl_enroll_change_memory(const struct bl_enroll_target *t)
{
        xmlNode *backing = bl_xml_child(t->domain, "memoryBacking");

        if (t->channel != BL_ENROLL_VHOST_USER_VSOCK || bl_backing_has_fd(backing))
                return 0;
        if (!backing)
                backing = add_below_domain(t, "memoryBacking", "currentMemory", "memory");
        if (!backing || set_child_attr(backing, "source", "type", "memfd") < 0 ||
            set_child_attr(backing, "access", "mode", "private") < 0)
                return -ENOMEM;
        return 1;
}

static bool is_q35(const xmlNode *domain)
{
        _cleanup_free_ char *machine = bl_xml_attr(bl_xml_child(bl_xml_child(domain, "os"), "type"), "machine");

        return machine && strstr(machine, "q35");
}

static bool is_root_port(const xmlNode *controller)
{
        return bl_xml_attr_is(controller, "type", "pci") && bl_xml_attr_is(controller, "model", "pcie-root-port") &&
               !bl_xml_attr_is(bl_xml_child(controller, "target"), "hotplug", "off");
}

/* -1: none, or not a number */
static long attr_number(const xmlNode *n, const char *name)
{
        _cleanup_free_ char *text = bl_xml_attr(n, name);
        char *end;
        long v;

        if (!text || !*text)
                return -1;
        v = strtol(text, &end, 0);
        return *end ? -1 : v;
}

static bool has_pci_address(const xmlNode *device)
{
        return bl_xml_attr_is(bl_xml_child(device, "address"), "type", "pci");
}

static bool bus_is_used(const xmlNode *devices, long bus)
{
        for (xmlNode *n = bl_xml_child(devices, NULL); n; n = bl_xml_next(n->next, NULL))
                if (has_pci_address(n) && attr_number(bl_xml_child(n, "address"), "bus") == bus)
                        return true;
        return false;
}

static int free_ports(const xmlNode *devices)
{
        int n = 0;

        for (xmlNode *c = bl_xml_child(devices, "controller"); c; c = bl_xml_next(c->next, "controller"))
                n += is_root_port(c) && !bus_is_used(devices, attr_number(c, "index"));
        return n;
}

/* Ports that libvirt will give to what was added above. */
static int ports_spoken_for(const xmlNode *devices)
{
        bool serial = false;

        for (xmlNode *c = bl_xml_child(devices, "controller"); c; c = bl_xml_next(c->next, "controller"))
                serial = serial || (bl_xml_attr_is(c, "type", "virtio-serial") && has_pci_address(c));
        return !serial + !has_pci_address(bl_xml_child(devices, "memballoon"));
}

static xmlNode *find_metadata(const xmlNode *domain)
{
        xmlNode *n = bl_xml_child(bl_xml_child(domain, "metadata"), NULL);

        while (n && !(n->ns && strcmp((const char *)n->ns->href, BL_METADATA_URI) == 0))
                n = bl_xml_next(n->next, NULL);
        return n;
}

static bool wants_vsock_port(const struct bl_enroll_target *t)
{
        return t->channel == BL_ENROLL_VHOST_USER_VSOCK && !t->no_channel;
}

static bool wants_swap(const struct bl_enroll_target *t)
{
        _cleanup_free_ char *now = bl_xml_attr(find_metadata(t->domain), "swap");

        return !t->no_swap && (now || (t->swap && t->swap->swap != BL_UNSET));
}

/* pcie.0 itself cannot be plugged into, and libvirt leaves a port free only in a
 * definition that came without any. */
int bl_enroll_add_root_port(const struct bl_enroll_target *t)
{
        int wanted = wants_vsock_port(t) + wants_swap(t), missing, changed = 0;

        if (wanted == 0 || !is_q35(t->domain))
                return 0;
        missing = wanted + ports_spoken_for(t->devices) - free_ports(t->devices);
        for (; missing > 0; missing--, changed = 1) {
                xmlNode *c = bl_xml_new(t->devices, "controller");

                if (!c)
                        return -ENOMEM;
                if (bl_xml_set(c, "type", "pci") < 0 || bl_xml_set(c, "model", "pcie-root-port") < 0 ||
                    bl_xml_append(t->devices, c) < 0) {
                        xmlUnlinkNode(c);
                        xmlFreeNode(c);
                        return -ENOMEM;
                }
        }
        return changed;
}

bool bl_enroll_is_vhost_user(const xmlNode *domain)
{
        return bl_xml_attr_is(find_metadata(domain), "channel", BL_CHANNEL_NAME_VHOST_USER_VSOCK);
}

static xmlNode *add_metadata(const struct bl_enroll_target *t)
{
        xmlNode *metadata = bl_xml_child(t->domain, "metadata"), *n;
        xmlNs *ns;

        if (!metadata)
                metadata = add_below_domain(t, "metadata", "uuid", "name");
        n = metadata ? bl_xml_new(metadata, "memory") : NULL;
        ns = n ? xmlNewNs(n, (const xmlChar *)BL_METADATA_URI, (const xmlChar *)BL_METADATA_KEY) : NULL;
        if (ns) {
                xmlSetNs(n, ns);
                if (bl_xml_append(metadata, n) == 0)
                        return n;
        }
        if (n) {
                xmlUnlinkNode(n);
                xmlFreeNode(n);
        }
        return NULL;
}

int bl_enroll_choose_vhost_user(const struct bl_enroll_target *t)
{
        xmlNode *n = find_metadata(t->domain);

        if (t->channel != BL_ENROLL_VHOST_USER_VSOCK || bl_enroll_is_vhost_user(t->domain))
                return 0;
        if (!n)
                n = add_metadata(t);
        return n && bl_xml_set(n, "channel", BL_CHANNEL_NAME_VHOST_USER_VSOCK) == 0 ? 1 : -ENOMEM;
}

static void drop_if_empty(xmlNode *n)
{
        xmlNode *metadata = n->parent;

        if (n->properties || bl_xml_child(n, NULL))
                return;
        bl_xml_take_out(n);
        if (!bl_xml_child(metadata, NULL))
                bl_xml_take_out(metadata);
}

int bl_enroll_drop_vhost_user(const struct bl_enroll_target *t)
{
        xmlNode *n = find_metadata(t->domain);

        if (!n || t->channel == BL_ENROLL_VHOST_USER_VSOCK || !bl_enroll_is_vhost_user(t->domain))
                return 0;
        (void)xmlUnsetProp(n, (const xmlChar *)"channel");
        drop_if_empty(n);
        return 1;
}

/* --- swap -------------------------------------------------------------------------- */

static const char *const swap_attributes[] = {"swap", "group", "swap-limit"};

int bl_enroll_choose_swap(const struct bl_enroll_target *t)
{
        char size[BL_SIZE_BUF], limit[BL_SIZE_BUF];
        const char *values[] = {NULL, NULL, NULL};
        xmlNode *n = find_metadata(t->domain);
        int changed = 0;

        if (!t->swap || t->no_swap)
                return 0;
        if (t->swap->swap == BL_SWAP_AUTO)
                values[0] = "auto";
        else if (t->swap->swap != BL_UNSET)
                values[0] = bl_size_format_exact(t->swap->swap, size, sizeof(size));
        if (t->swap->group[0])
                values[1] = t->swap->group;
        if (t->swap->swap_limit != BL_UNSET)
                values[2] = bl_size_format_exact(t->swap->swap_limit, limit, sizeof(limit));
        for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
                if (!values[i] || (n && bl_xml_attr_is(n, swap_attributes[i], values[i])))
                        continue;
                if (!n)
                        n = add_metadata(t);
                if (!n || bl_xml_set(n, swap_attributes[i], values[i]) < 0)
                        return -ENOMEM;
                changed = 1;
        }
        return changed;
}

int bl_enroll_drop_swap(const struct bl_enroll_target *t)
{
        xmlNode *n = find_metadata(t->domain);
        int changed = 0;

        if (!n || !t->no_swap)
                return 0;
        for (size_t i = 0; i < sizeof(swap_attributes) / sizeof(*swap_attributes); i++)
                if (xmlUnsetProp(n, (const xmlChar *)swap_attributes[i]) == 0)
                        changed = 1;
        if (changed)
                drop_if_empty(n);
        return changed;
}

const char *bl_enroll_why_no_vhost_user(const struct bl_enroll_target *t)
{
        _cleanup_free_ char *machine = bl_xml_attr(bl_xml_child(bl_xml_child(t->domain, "os"), "type"), "machine");

        /* libvirt's default is pc */
        if (machine && strcmp(machine, "pc") != 0 && strncmp(machine, "pc-", 3) != 0 && !is_q35(t->domain))
                return "a vhost-user-vsock device can be plugged into machines pc and q35 only";
        if (bl_xml_child(t->domain, "launchSecurity"))
                return "its memory is encrypted (launchSecurity), which a vhost-user backend cannot read";
        if (bl_xml_child(t->devices, "vsock"))
                return "it has a <vsock> device already, and Linux drives one only: use --channel vsock";
        return NULL;
}
