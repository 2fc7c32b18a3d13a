/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/virt/metadata.h"

#include <errno.h>
#include <inttypes.h>
#include <libxml/parser.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ballast/cleanup.h>

#include "daemon/util/size.h"
#include "daemon/virt/xml_util.h"

/* More shares than this can only be a mistake, and would overflow products. */
#define SHARES_MAX UINT64_C(1000000000000)

/* Less is no swap area for Linux, and more no guest has. */
#define SWAP_MIN BL_MIB
#define SWAP_MAX (64 * 1024 * BL_GIB)

/* What the planned squeeze is multiplied with for swap='auto': pages that are swapped in stay in
 * their slots too, and one that runs full ends at the guest's OOM killer. */
#define SWAP_AUTO_LEAST       (16 * BL_MIB)
#define SWAP_AUTO_NUMERATOR   5
#define SWAP_AUTO_DENOMINATOR 4

static int bad(char **ret_message, const char *format, ...) __attribute__((format(printf, 2, 3)));

static int bad(char **ret_message, const char *format, ...)
{
        va_list ap;
        char *s = NULL;

        if (!ret_message)
                return -EINVAL;
        va_start(ap, format);
        if (vasprintf(&s, format, ap) < 0)
                s = NULL;
        va_end(ap);
        *ret_message = s;
        return -EINVAL;
}

static int parse_size(const char *name, const char *value, uint64_t *ret, char **ret_message)
{
        uint64_t bytes;

        if (bl_size_parse(value, &bytes) < 0 || bytes == BL_UNSET)
                return bad(ret_message, "%s='%s' is not a size: give a number with MiB or GiB, such as %s='512MiB'",
                           name, value, name);
        *ret = bytes;
        return 0;
}

static int parse_shares(const char *value, struct bl_vm_metadata *m, char **ret_message)
{
        uint64_t n;

        if (strcmp(value, "low") == 0)
                m->shares_kind = BL_SHARES_KIND_LOW;
        else if (strcmp(value, "normal") == 0)
                m->shares_kind = BL_SHARES_KIND_NORMAL;
        else if (strcmp(value, "high") == 0)
                m->shares_kind = BL_SHARES_KIND_HIGH;
        else if (bl_uint_parse(value, &n) == 0 && n > 0 && n <= SHARES_MAX) {
                m->shares_kind = BL_SHARES_KIND_NUMBER;
                m->shares = n;
        } else
                return bad(ret_message, "shares='%s' is not understood: give low, normal, high or a number above 0",
                           value);
        return 0;
}

static int parse_manage(const char *value, struct bl_vm_metadata *m, char **ret_message)
{
        if (strcmp(value, "yes") == 0)
                m->manage = 1;
        else if (strcmp(value, "no") == 0)
                m->manage = 0;
        else
                return bad(ret_message, "manage='%s' is not understood: give yes or no", value);
        return 0;
}

static int parse_channel(const char *value, struct bl_vm_metadata *m, char **ret_message)
{
        if (strcmp(value, "auto") == 0)
                m->channel = BL_CHANNEL_AUTO;
        else if (strcmp(value, BL_CHANNEL_NAME_VHOST_USER_VSOCK) == 0)
                m->channel = BL_CHANNEL_VHOST_USER_VSOCK;
        else
                return bad(ret_message, "channel='%s' is not understood: give auto or vhost-user-vsock", value);
        return 0;
}

static int parse_swap(const char *value, struct bl_vm_metadata *m, char **ret_message)
{
        uint64_t bytes;

        if (strcmp(value, "auto") == 0) {
                m->swap = BL_SWAP_AUTO;
                return 0;
        }
        if (bl_size_parse(value, &bytes) < 0 || bytes < SWAP_MIN || bytes > SWAP_MAX)
                return bad(ret_message,
                           "swap='%s' is not understood: give auto or a size from 1MiB to 64TiB, such as swap='1GiB'",
                           value);
        m->swap = bytes;
        return 0;
}

static int parse_group(const char *value, struct bl_vm_metadata *m, char **ret_message)
{
        if (!bl_metadata_group_ok(value))
                return bad(ret_message,
                           "group='%s' is not understood: give a name of 1 to %u letters, digits or signs, without "
                           "blanks",
                           value, BL_METADATA_GROUP - 1);
        (void)snprintf(m->group, sizeof(m->group), "%s", value);
        return 0;
}

static const char *const sharing_names[_BL_SHARE_MODE_MAX] = {
        [BL_SHARE_OFF] = "off",
        [BL_SHARE_ZERO] = "zero",
        [BL_SHARE_GROUP] = "group",
};

int bl_metadata_sharing(const char *value)
{
        for (int i = 0; i < _BL_SHARE_MODE_MAX; i++)
                if (strcmp(value, sharing_names[i]) == 0)
                        return i;
        return -EINVAL;
}

static int parse_sharing(const char *value, struct bl_vm_metadata *m, char **ret_message)
{
        int mode = bl_metadata_sharing(value);

        if (mode < 0)
                return bad(ret_message, "sharing='%s' is not understood: give off, zero or group", value);
        m->sharing = mode;
        return 0;
}

static int parse_attribute(const char *name, const char *value, struct bl_vm_metadata *m, char **ret_message)
{
        if (strcmp(name, "reservation") == 0)
                return parse_size(name, value, &m->reservation, ret_message);
        if (strcmp(name, "limit") == 0)
                return parse_size(name, value, &m->limit, ret_message);
        if (strcmp(name, "shares") == 0)
                return parse_shares(value, m, ret_message);
        if (strcmp(name, "manage") == 0)
                return parse_manage(value, m, ret_message);
        if (strcmp(name, "channel") == 0)
                return parse_channel(value, m, ret_message);
        if (strcmp(name, "swap") == 0)
                return parse_swap(value, m, ret_message);
        if (strcmp(name, "group") == 0)
                return parse_group(value, m, ret_message);
        if (strcmp(name, "swap-limit") == 0)
                return parse_size(name, value, &m->swap_limit, ret_message);
        if (strcmp(name, "sharing") == 0)
                return parse_sharing(value, m, ret_message);
        return bad(ret_message,
                   "there is no setting '%s': there are reservation, limit, shares, manage, channel, swap, group, "
                   "swap-limit and sharing",
                   name);
}

bool bl_metadata_group_ok(const char *name)
{
        size_t len = strlen(name);

        if (len == 0 || len >= BL_METADATA_GROUP)
                return false;
        for (size_t i = 0; i < len; i++)
                if (name[i] <= ' ' || name[i] > '~')
                        return false;
        return true;
}

int bl_vm_metadata_parse_node(const xmlNode *element, struct bl_vm_metadata *ret, char **ret_message)
{
        struct bl_vm_metadata m = BL_VM_METADATA_NONE;

        if (strcmp((const char *)element->name, "memory") != 0)
                return bad(ret_message, "the element is <%s>, it should be <memory>", (const char *)element->name);
        for (const xmlAttr *a = element->properties; a; a = a->next) {
                xmlChar *value = xmlNodeListGetString(element->doc, a->children, 1);
                int r;

                r = parse_attribute((const char *)a->name, value ? (const char *)value : "", &m, ret_message);
                xmlFree(value);
                if (r < 0)
                        return r;
        }
        for (const xmlNode *n = element->children; n; n = n->next)
                if (n->type == XML_ELEMENT_NODE)
                        return bad(ret_message, "<%s> is not understood inside <memory>", (const char *)n->name);
        if (m.reservation != BL_UNSET && m.limit != BL_UNSET && m.reservation > m.limit)
                return bad(ret_message, "reservation is larger than limit: lower the one or raise the other");
        *ret = m;
        return 0;
}

int bl_vm_metadata_parse(const char *xml, struct bl_vm_metadata *ret, char **ret_message)
{
        _cleanup_(bl_xml_docp) xmlDoc *doc = bl_xml_read(xml, strlen(xml));
        const xmlNode *root = doc ? xmlDocGetRootElement(doc) : NULL;

        if (!root)
                return bad(ret_message, "the metadata is not XML");
        return bl_vm_metadata_parse_node(root, ret, ret_message);
}

/* A text that may hold what XML gives a meaning to. */
static void put_attribute(FILE *f, const char *name, const char *value)
{
        fprintf(f, " %s='", name);
        for (const char *p = value; *p; p++)
                switch (*p) {
                case '&':
                        fputs("&amp;", f);
                        break;
                case '<':
                        fputs("&lt;", f);
                        break;
                case '\'':
                        fputs("&apos;", f);
                        break;
                default:
                        fputc(*p, f);
                }
        fputc('\'', f);
}

int bl_vm_metadata_format(const struct bl_vm_metadata *m, char **ret)
{
        static const char *const shares_names[] = {
                [BL_SHARES_KIND_LOW] = "low", [BL_SHARES_KIND_NORMAL] = "normal", [BL_SHARES_KIND_HIGH] = "high"};
        static const char *const channel_names[] = {
                [BL_CHANNEL_AUTO] = "auto", [BL_CHANNEL_VHOST_USER_VSOCK] = BL_CHANNEL_NAME_VHOST_USER_VSOCK};
        char size[BL_SIZE_BUF], *text = NULL;
        size_t len;
        FILE *f;

        if (m->reservation == BL_UNSET && m->limit == BL_UNSET && m->shares_kind == BL_SHARES_KIND_UNSET &&
            m->manage < 0 && m->channel == BL_CHANNEL_UNSET && m->swap == BL_UNSET && m->swap_limit == BL_UNSET &&
            !m->group[0] && m->sharing < 0) {
                *ret = NULL;
                return 0;
        }
        f = open_memstream(&text, &len);
        if (!f)
                return -ENOMEM;
        fputs("<memory", f);
        if (m->reservation != BL_UNSET)
                fprintf(f, " reservation='%s'", bl_size_format_exact(m->reservation, size, sizeof(size)));
        if (m->limit != BL_UNSET)
                fprintf(f, " limit='%s'", bl_size_format_exact(m->limit, size, sizeof(size)));
        if (m->shares_kind == BL_SHARES_KIND_NUMBER)
                fprintf(f, " shares='%" PRIu64 "'", m->shares);
        else if (m->shares_kind != BL_SHARES_KIND_UNSET)
                fprintf(f, " shares='%s'", shares_names[m->shares_kind]);
        if (m->manage >= 0)
                fprintf(f, " manage='%s'", m->manage ? "yes" : "no");
        if (m->channel != BL_CHANNEL_UNSET)
                fprintf(f, " channel='%s'", channel_names[m->channel]);
        if (m->swap == BL_SWAP_AUTO)
                fputs(" swap='auto'", f);
        else if (m->swap != BL_UNSET)
                fprintf(f, " swap='%s'", bl_size_format_exact(m->swap, size, sizeof(size)));
        if (m->group[0])
                put_attribute(f, "group", m->group);
        if (m->swap_limit != BL_UNSET)
                fprintf(f, " swap-limit='%s'", bl_size_format_exact(m->swap_limit, size, sizeof(size)));
        if (m->sharing >= 0)
                fprintf(f, " sharing='%s'", sharing_names[m->sharing]);
        fputs("/>", f);
        if (fclose(f) != 0) {
                free(text);
                return -ENOMEM;
        }
        *ret = text;
        return 0;
}

uint64_t bl_vm_metadata_shares(const struct bl_vm_metadata *m, uint64_t max)
{
        uint64_t per_mib = BL_SHARES_NORMAL;

        switch (m->shares_kind) {
        case BL_SHARES_KIND_NUMBER:
                return m->shares;
        case BL_SHARES_KIND_LOW:
                per_mib = BL_SHARES_LOW;
                break;
        case BL_SHARES_KIND_HIGH:
                per_mib = BL_SHARES_HIGH;
                break;
        case BL_SHARES_KIND_UNSET:
        case BL_SHARES_KIND_NORMAL:
                break;
        }
        return bl_max(1, bl_mul_sat(max / BL_MIB, per_mib));
}

void bl_vm_metadata_merge(struct bl_vm_metadata *m, const struct bl_vm_metadata *over)
{
        if (over->reservation != BL_UNSET)
                m->reservation = over->reservation;
        if (over->limit != BL_UNSET)
                m->limit = over->limit;
        if (over->shares_kind != BL_SHARES_KIND_UNSET) {
                m->shares_kind = over->shares_kind;
                m->shares = over->shares;
        }
        if (over->manage >= 0)
                m->manage = over->manage;
        if (over->channel != BL_CHANNEL_UNSET)
                m->channel = over->channel;
        if (over->swap != BL_UNSET)
                m->swap = over->swap;
        if (over->swap_limit != BL_UNSET)
                m->swap_limit = over->swap_limit;
        if (over->group[0])
                memcpy(m->group, over->group, sizeof(m->group));
        if (over->sharing >= 0)
                m->sharing = over->sharing;
}

uint64_t bl_vm_metadata_swap(const struct bl_vm_metadata *m, uint64_t max, uint64_t reservation)
{
        uint64_t squeeze = bl_sub_sat(max, reservation), bytes = m->swap;

        if (m->swap == BL_UNSET)
                return 0;
        if (m->swap == BL_SWAP_AUTO) {
                bytes = bl_mul_sat(squeeze / SWAP_AUTO_DENOMINATOR, SWAP_AUTO_NUMERATOR);
                /* nothing can be squeezed of all that it has; and a larger one keeps pages twice */
                bytes = bl_max(SWAP_AUTO_LEAST, bl_min(bytes, max));
        }
        return bl_min(bl_add_sat(bytes, BL_MIB - 1), SWAP_MAX) / BL_MIB * BL_MIB;
}
