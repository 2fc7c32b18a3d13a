/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/virt/domain_xml.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/util/size.h"
#include "daemon/virt/proc.h"
#include "daemon/virt/xml_util.h"

/* virScaleInteger's names, as libvirt's schema allows them. */
static const struct {
        const char *name;
        uint64_t bytes;
} units[] = {
        {"b", 1},
        {"bytes", 1},
        {"KB", 1000},
        {"k", 1024},
        {"K", 1024},
        {"KiB", 1024},
        {"MB", UINT64_C(1000) * 1000},
        {"M", BL_MIB},
        {"MiB", BL_MIB},
        {"GB", UINT64_C(1000) * 1000 * 1000},
        {"G", BL_GIB},
        {"GiB", BL_GIB},
        {"TB", UINT64_C(1000) * 1000 * 1000 * 1000},
        {"T", BL_GIB * 1024},
        {"TiB", BL_GIB * 1024},
};

int bl_xml_size(const char *number, const char *unit, uint64_t *ret)
{
        uint64_t n, bytes;
        int r;

        r = bl_uint_parse(number, &n);
        if (r < 0)
                return r;
        if (!unit)
                unit = "KiB";
        for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
                if (strcmp(units[i].name, unit) != 0)
                        continue;
                if (__builtin_mul_overflow(n, units[i].bytes, &bytes) || bytes == BL_UNSET)
                        return -ERANGE;
                *ret = bytes;
                return 0;
        }
        return -EINVAL;
}

/* An element such as <memory unit='KiB'>1048576</memory>. */
static int element_size(const xmlNode *n, uint64_t *ret)
{
        _cleanup_free_ char *number = bl_xml_text(n);
        _cleanup_free_ char *unit = bl_xml_attr(n, "unit");

        if (!number)
                return -EINVAL;
        return bl_xml_size(number, unit, ret);
}

static unsigned attr_uint(const xmlNode *n, const char *name)
{
        _cleanup_free_ char *text = bl_xml_attr(n, name);
        uint64_t v;

        return text && bl_uint_parse(text, &v) == 0 && v <= UINT32_MAX ? (unsigned)v : 0;
}

static void parse_balloon(const xmlNode *devices, struct bl_domain_info *i)
{
        const xmlNode *b = bl_xml_child(devices, "memballoon");
        _cleanup_free_ char *model = bl_xml_attr(b, "model");

        /* virtio, virtio-transitional, virtio-non-transitional; xen is another device */
        i->balloon = model && strncmp(model, "virtio", 6) == 0;
        i->autodeflate = i->balloon && bl_xml_attr_is(b, "autodeflate", "on");
        i->free_page_reporting = i->balloon && bl_xml_attr_is(b, "freePageReporting", "on");
        i->stats_period = attr_uint(bl_xml_child(b, "stats"), "period");
}

/* Devices whose DMA pins the guest's memory.  USB and SCSI devices do not. */
static void parse_hostdevs(const xmlNode *devices, struct bl_domain_info *i)
{
        for (xmlNode *n = bl_xml_child(devices, "hostdev"); n; n = bl_xml_next(n->next, "hostdev"))
                i->hostdevs += bl_xml_attr_is(n, "type", "pci") || bl_xml_attr_is(n, "type", "mdev");
        for (xmlNode *n = bl_xml_child(devices, "interface"); n; n = bl_xml_next(n->next, "interface"))
                i->hostdevs += bl_xml_attr_is(n, "type", "hostdev") || bl_xml_attr_is(n, "type", "vdpa") ||
                               /* an SR-IOV network: the live XML says which device it got */
                               bl_xml_attr_is(bl_xml_child(n, "actual"), "type", "hostdev");
}

/* As libvirt 9.0 chooses the backend (qemuBuildMemoryBackendProps): only with none of
 * these it is memory-backend-ram.  A given access mode makes it a file. */
bool bl_backing_has_fd(const xmlNode *backing)
{
        const xmlNode *source = bl_xml_child(backing, "source");

        return bl_xml_attr_is(source, "type", "memfd") || bl_xml_attr_is(source, "type", "file") ||
               bl_xml_child(backing, "access") || bl_xml_child(backing, "hugepages");
}

static void parse_backing(const xmlNode *domain, struct bl_domain_info *i)
{
        const xmlNode *backing = bl_xml_child(domain, "memoryBacking");
        const xmlNode *source = bl_xml_child(backing, "source"), *access = bl_xml_child(backing, "access");
        bool memfd = bl_xml_attr_is(source, "type", "memfd");

        i->hugepages = bl_xml_child(backing, "hugepages") != NULL;
        i->locked = bl_xml_child(backing, "locked") != NULL;
        i->memfd = memfd || bl_xml_attr_is(source, "type", "file");
        i->shared = access ? bl_xml_attr_is(access, "mode", "shared") : memfd;
        i->memory_fd = bl_backing_has_fd(backing);
        i->nosharepages = bl_xml_child(backing, "nosharepages") != NULL;
        i->confidential = bl_xml_child(domain, "launchSecurity") != NULL;
}

/* libvirt makes an alias such as "pc" or "q35" what it stands for when it defines a domain. */
static void parse_machine(const xmlNode *domain, struct bl_domain_info *i)
{
        _cleanup_free_ char *machine = bl_xml_attr(bl_xml_child(bl_xml_child(domain, "os"), "type"), "machine");

        if (machine && (strncmp(machine, "pc-q35", 6) == 0 || strcmp(machine, "q35") == 0))
                i->machine = BL_MACHINE_Q35;
        else if (machine && (strncmp(machine, "pc-i440fx", 9) == 0 || strcmp(machine, "pc") == 0))
                i->machine = BL_MACHINE_PC;
}

static void parse_channels(const xmlNode *devices, struct bl_domain_info *i)
{
        const xmlNode *cid = bl_xml_child(bl_xml_child(devices, "vsock"), "cid");

        i->vsock_cid = attr_uint(cid, "address");
        for (xmlNode *n = bl_xml_child(devices, "channel"); n; n = bl_xml_next(n->next, "channel")) {
                const xmlNode *target = bl_xml_child(n, "target");

                if (!bl_xml_attr_is(target, "name", BL_AGENT_CHANNEL))
                        continue;
                i->agent_path = bl_xml_attr(bl_xml_child(n, "source"), "path");
                i->agent_state = bl_xml_attr(target, "state");
                return;
        }
}

static int parse_metadata(const xmlNode *domain, struct bl_domain_info *i)
{
        const xmlNode *metadata = bl_xml_child(domain, "metadata");

        for (xmlNode *n = bl_xml_child(metadata, NULL); n; n = bl_xml_next(n->next, NULL)) {
                char *why = NULL;
                int r;

                if (!n->ns || strcmp((const char *)n->ns->href, BL_METADATA_URI) != 0)
                        continue;
                i->has_metadata = true;
                r = bl_vm_metadata_parse_node(n, &i->metadata, &why);
                if (r < 0) {
                        const char *text = why ?: "it is not understood";

                        if (asprintf(&i->metadata_error,
                                     "VM %s: its <ballast:memory> metadata is ignored: %s (mend it with 'virsh edit "
                                     "%s', or set it anew with 'ballastctl set %s')",
                                     i->name, text, i->name, i->name) < 0)
                                i->metadata_error = NULL;
                        free(why);
                        return i->metadata_error ? 0 : -ENOMEM;
                }
                return 0;
        }
        return 0;
}

static int refuse(char **ret_message, const char *what)
{
        if (ret_message)
                *ret_message = strdup(what);
        return -EINVAL;
}

static int parse(const xmlNode *domain, struct bl_domain_info *i, char **ret_message)
{
        _cleanup_free_ char *uuid = bl_xml_text(bl_xml_child(domain, "uuid"));
        const xmlNode *devices = bl_xml_child(domain, "devices");
        _cleanup_free_ char *id = bl_xml_attr(domain, "id");
        const xmlNode *current = bl_xml_child(domain, "currentMemory");
        uint64_t n;

        i->id = id && bl_uint_parse(id, &n) == 0 && n <= INT32_MAX ? (int)n : -1;
        i->type = bl_xml_attr(domain, "type");
        i->name = bl_xml_text(bl_xml_child(domain, "name"));
        if (!i->name || !*i->name)
                return refuse(ret_message, "the domain XML has no <name>");
        if (!uuid || bl_uuid_from_string(uuid, i->uuid) < 0)
                return refuse(ret_message, "the domain XML has no <uuid>, or it is not one");
        if (element_size(bl_xml_child(domain, "memory"), &i->memory) < 0)
                return refuse(ret_message, "the domain XML has no <memory>, or it is not a size");
        i->current = i->memory;
        if (current && element_size(current, &i->current) < 0)
                return refuse(ret_message, "the domain XML's <currentMemory> is not a size");

        parse_balloon(devices, i);
        parse_hostdevs(devices, i);
        parse_backing(domain, i);
        parse_machine(domain, i);
        parse_channels(devices, i);
        return parse_metadata(domain, i);
}

int bl_domain_info_parse(const char *xml, struct bl_domain_info *ret, char **ret_message)
{
        struct bl_domain_info i = {.id = -1, .metadata = BL_VM_METADATA_NONE};
        _cleanup_(bl_xml_docp) xmlDoc *doc = bl_xml_read(xml, strlen(xml));
        const xmlNode *root = doc ? xmlDocGetRootElement(doc) : NULL;
        int r;

        if (!root || strcmp((const char *)root->name, "domain") != 0)
                return refuse(ret_message, "this is not a domain XML");
        r = parse(root, &i, ret_message);
        if (r < 0) {
                (void)bl_domain_info_clear(&i);
                return r;
        }
        *ret = i;
        return 0;
}

struct bl_domain_info *bl_domain_info_clear(struct bl_domain_info *i)
{
        if (!i)
                return NULL;
        free(i->name);
        free(i->type);
        free(i->agent_path);
        free(i->agent_state);
        free(i->metadata_error);
        *i = (struct bl_domain_info){0};
        return NULL;
}

enum bl_no_reclaim bl_domain_info_no_reclaim(const struct bl_domain_info *i)
{
        if (i->confidential)
                return BL_RECLAIM_CONFIDENTIAL;
        if (i->hostdevs > 0)
                return BL_RECLAIM_VFIO;
        if (i->locked)
                return BL_RECLAIM_LOCKED;
        if (i->hugepages)
                return BL_RECLAIM_HUGEPAGES;
        if (!i->balloon)
                return BL_RECLAIM_NO_BALLOON;
        return BL_RECLAIM_OK;
}
