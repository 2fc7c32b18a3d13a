/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* enroll: the XML that a virtual machine needs, shown and written.  Speaks to
 * libvirt itself: a VM is prepared before, or without, a running daemon. */
#include <errno.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/control.h"
#include "daemon/ctl/ctl.h"
#include "daemon/ctl/diff.h"
#include "daemon/ctl/enroll_swap.h"
#include "daemon/virt/enroll.h"
#include "daemon/virt/xml_util.h"

#define URI_DEFAULT "qemu:///system"

static void unref_conn(virConnectPtr *p)
{
        if (*p)
                (void)virConnectClose(*p);
}

static void unref_domain(virDomainPtr *p)
{
        if (*p)
                (void)virDomainFree(*p);
}

static void be_quiet(void *userdata, virErrorPtr e)
{
        (void)userdata; /* we say it ourselves */
        (void)e;
}

static enum ctl_exit say_libvirt(const char *what, const char *name)
{
        ctl_error("%s %s: %s", what, name, virGetLastErrorMessage());
        return CTL_FAILED;
}

static enum ctl_exit find_domain(virConnectPtr conn, const char *vm, virDomainPtr *ret)
{
        virDomainPtr d = virDomainLookupByName(conn, vm);

        if (!d)
                d = virDomainLookupByUUIDString(conn, vm);
        if (!d) {
                ctl_error("libvirt knows no domain '%s'; 'virsh list --all' shows them", vm);
                return CTL_NO_SUCH_VM;
        }
        if (virDomainIsPersistent(d) == 0) {
                ctl_error("%s is transient: it has no persistent definition to enroll; add it to the XML that it is "
                          "made from",
                          vm);
                (void)virDomainFree(d);
                return CTL_REFUSED;
        }
        *ret = d;
        return CTL_OK;
}

#define VHOST_VSOCK "/dev/vhost-vsock"

static const struct {
        const char *name;
        enum bl_enroll_channel channel;
} channels[] = {
        {"virtio-serial", BL_ENROLL_VIRTIO_SERIAL},
        {"vsock", BL_ENROLL_VHOST_VSOCK},
        {"vhost-user-vsock", BL_ENROLL_VHOST_USER_VSOCK},
};

/* The channel that was asked for.  CTL_OK, or what is wrong, said. */
static enum ctl_exit choose_channel(const struct ctl *c, struct bl_enroll_options *o)
{
        const char *name = ctl_value(c, "channel");
        bool vsock = access(VHOST_VSOCK, F_OK) == 0;

        o->channel = vsock ? BL_ENROLL_VHOST_VSOCK : BL_ENROLL_VIRTIO_SERIAL;
        if (!name || strcmp(name, "auto") == 0)
                return CTL_OK;
        for (size_t i = 0; i < sizeof(channels) / sizeof(channels[0]); i++)
                if (strcmp(channels[i].name, name) == 0) {
                        o->channel = channels[i].channel;
                        o->chosen = true;
                }
        if (!o->chosen)
                return ctl_usage(c,
                                 "there is no channel '%s': there are auto, vsock, virtio-serial and "
                                 "vhost-user-vsock",
                                 name);
        if (ctl_value(c, "no-channel") || ctl_value(c, "remove"))
                return ctl_usage(c, "--channel does not go with --no-channel or --remove");
        if (o->channel == BL_ENROLL_VHOST_VSOCK && !vsock) {
                ctl_error("this host has no " VHOST_VSOCK ", so that %s could not start: 'modprobe vhost_vsock', or "
                          "choose another channel",
                          c->args[0]);
                return CTL_REFUSED;
        }
        return CTL_OK;
}

static int change_xml(const struct ctl *c, const struct bl_enroll_options *o, const char *xml, char **ret_new,
                      char **ret_message)
{
        if (ctl_value(c, "remove"))
                return bl_unenroll_xml(xml, ret_new, ret_message);
        return bl_enroll_xml(xml, o, ret_new, ret_message);
}

static void print_diff(const struct ctl *c, const char *diff)
{
        for (const char *p = diff; *p;) {
                size_t n = strcspn(p, "\n");
                enum ctl_color color = CTL_PLAIN;

                if (strncmp(p, "---", 3) == 0 || strncmp(p, "+++", 3) == 0)
                        color = CTL_BOLD;
                else if (*p == '-')
                        color = CTL_RED;
                else if (*p == '+')
                        color = CTL_GREEN;
                printf("%s%.*s%s\n", ctl_color(c, color), (int)n, p, ctl_color_end(c));
                p += n + (p[n] == '\n');
        }
}

/* What came of it: `diff` NULL when there is nothing to change. */
static void report(const struct ctl *c, const char *diff, const char *message, bool written)
{
        const char *channel = ctl_value(c, "channel");
        json_t *d;

        if (c->json) {
                d = json_pack("{s:i, s:s, s:b, s:b, s:s, s:s}", "schema", BL_SCHEMA_VERSION, "vm", c->args[0],
                              "changed", diff != NULL, "written", (int)written, "message", message ? message : "",
                              "diff", diff ? diff : "");
                if (d)
                        (void)ctl_print_json(c, d);
                json_decref(d);
                return;
        }
        if (!diff) {
                printf("Nothing to change: %s is as Ballast needs it.\n", c->args[0]);
                return;
        }
        print_diff(c, diff);
        if (message && *message)
                printf("\n%s%s", message, message[strlen(message) - 1] == '\n' ? "" : "\n");
        if (written)
                printf("\nWritten; it takes effect when %s is next started.\n", c->args[0]);
        else
                printf("\nNot written; 'ballastctl enroll %s --write%s%s%s' does that.\n", c->args[0],
                       ctl_value(c, "remove") ? " --remove" : "", channel ? " --channel " : "", channel ? channel : "");
}

/* libxml writes attributes in double quotes, libvirt in single ones.  Values
 * have no '<' or '>': libxml escapes them. */
static void quote_as_libvirt(char *xml)
{
        char *p, *end, *first, *last;

        for (p = strchr(xml, '<'); p; p = strchr(end, '<')) {
                end = strchr(p, '>');
                if (!end)
                        return;
                while ((first = memchr(p, '"', (size_t)(end - p))) &&
                       (last = memchr(first + 1, '"', (size_t)(end - first - 1)))) {
                        if (!memchr(first, '\'', (size_t)(last - first)))
                                *first = *last = '\'';
                        p = last + 1;
                }
        }
}

/* Both sides of the diff in one hand: libxml orders namespaces and attributes
 * otherwise than libvirt does, which is no change.  NULL when out of memory. */
static char *in_one_hand(const char *xml)
{
        _cleanup_(bl_xml_docp) xmlDoc *doc = bl_xml_read(xml, strlen(xml));
        xmlBuffer *b = doc ? xmlBufferCreate() : NULL;
        char *s = NULL;

        if (b && xmlNodeDump(b, doc, xmlDocGetRootElement(doc), 0, 0) >= 0)
                s = strdup((const char *)xmlBufferContent(b));
        if (b)
                xmlBufferFree(b);
        if (s)
                quote_as_libvirt(s);
        return s;
}

static int make_diff(const char *name, const char *xml, const char *changed, char **ret)
{
        _cleanup_free_ char *before = in_one_hand(xml), *after = in_one_hand(changed);

        if (!before || !after)
                return -ENOMEM;
        return ctl_diff(name, before, after, ret);
}

#define SHOWN   VIR_DOMAIN_XML_INACTIVE
#define WRITTEN (VIR_DOMAIN_XML_INACTIVE | VIR_DOMAIN_XML_SECURE)

/* 1: changed, 0: nothing to change; negative: said, with the exit code in `ret_exit`. */
static int prepare(const struct ctl *c, const struct bl_enroll_options *o, virDomainPtr d, unsigned int flags,
                   char **ret_xml, char **ret_changed, char **ret_message, enum ctl_exit *ret_exit)
{
        _cleanup_free_ char *xml = NULL, *message = NULL;
        int r;

        *ret_exit = CTL_FAILED;
        xml = virDomainGetXMLDesc(d, flags);
        if (!xml) {
                (void)say_libvirt("cannot read the XML of", c->args[0]);
                return -EIO;
        }
        r = change_xml(c, o, xml, ret_changed, &message);
        if (r == -EOPNOTSUPP) {
                ctl_error("%s cannot be enrolled: %s", c->args[0], message ? message : "it is no QEMU domain");
                *ret_exit = CTL_REFUSED;
        } else if (r < 0)
                ctl_error("cannot prepare the XML of %s: %s", c->args[0], message ? message : strerror(-r));
        else {
                *ret_xml = BL_TAKE(xml);
                *ret_message = BL_TAKE(message);
        }
        return r;
}

/* From what it is now, with its secrets (a VNC password), which would be lost
 * by writing it back without. */
static enum ctl_exit write_xml(const struct ctl *c, const struct bl_enroll_options *o, virConnectPtr conn,
                               virDomainPtr d)
{
        _cleanup_free_ char *xml = NULL, *changed = NULL, *message = NULL;
        virDomainPtr defined;
        enum ctl_exit x;
        int r;

        r = prepare(c, o, d, WRITTEN, &xml, &changed, &message, &x);
        if (r < 0)
                return x;
        if (r == 0)
                return CTL_OK;
        defined = virDomainDefineXMLFlags(conn, changed, VIR_DOMAIN_DEFINE_VALIDATE);
        if (!defined)
                return say_libvirt("libvirt refuses the new XML of", c->args[0]);
        (void)virDomainFree(defined);
        return CTL_OK;
}

static enum ctl_exit enroll(struct ctl *c, const struct bl_enroll_options *o, virConnectPtr conn, virDomainPtr d)
{
        _cleanup_free_ char *xml = NULL, *changed = NULL, *message = NULL, *diff = NULL;
        bool write = ctl_value(c, "write") != NULL;
        enum ctl_exit x;
        int r;

        r = prepare(c, o, d, SHOWN, &xml, &changed, &message, &x);
        if (r < 0)
                return x;
        if (r > 0) {
                r = make_diff(virDomainGetName(d), xml, changed, &diff);
                if (r < 0) {
                        ctl_error("cannot compare the XML of %s: %s", c->args[0], strerror(-r));
                        return CTL_FAILED;
                }
        }
        x = o->swap ? ctl_enroll_swap_check(c, conn, changed ? changed : xml) : CTL_OK;
        if (x == CTL_OK && diff && write)
                x = write_xml(c, o, conn, d);
        if (x == CTL_OK && o->swap && write)
                x = ctl_enroll_swap_live(c, d, o->swap);
        if (x == CTL_OK)
                report(c, diff, message, diff && write);
        return x;
}

enum ctl_exit ctl_cmd_enroll(struct ctl *c)
{
        _cleanup_(unref_conn) virConnectPtr conn = NULL;
        _cleanup_(unref_domain) virDomainPtr d = NULL;
        const char *uri = ctl_value(c, "connect");
        struct bl_vm_metadata swap;
        struct bl_enroll_options o = {
                .no_autodeflate = ctl_value(c, "no-autodeflate") != NULL,
                .no_free_page_reporting = ctl_value(c, "no-free-page-reporting") != NULL,
                .no_channel = ctl_value(c, "no-channel") != NULL,
                .no_swap = ctl_value(c, "no-swap") != NULL,
        };
        enum ctl_exit x;
        bool given;

        x = choose_channel(c, &o);
        if (x == CTL_OK)
                x = ctl_enroll_swap_options(c, &swap, &given);
        if (x != CTL_OK)
                return x;
        o.swap = given ? &swap : NULL;
        virSetErrorFunc(NULL, be_quiet);
        uri = uri ? uri : URI_DEFAULT;
        conn = ctl_value(c, "write") ? virConnectOpen(uri) : virConnectOpenReadOnly(uri);
        if (!conn) {
                ctl_error("cannot reach libvirt at %s: %s; is it running? (systemctl status libvirtd)", uri,
                          virGetLastErrorMessage());
                return CTL_UNREACHABLE;
        }
        x = find_domain(conn, c->args[0], &d);
        return x == CTL_OK ? enroll(c, &o, conn, d) : x;
}
