/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/ctl/scan_vms.h"

#include <errno.h>
#include <libvirt/virterror.h>
#include <string.h>

#include "daemon/conf.h"
#include "daemon/util/utf8.h"
#include "daemon/virt/proc.h"

static void free_domain(virDomainPtr *d)
{
        if (*d)
                (void)virDomainFree(*d);
}

static void be_quiet(void *userdata, virErrorPtr e)
{
        (void)userdata; /* we say it ourselves */
        (void)e;
}

/* ballastd's settings where they can be read, else the shipped ones. */
static struct bl_conf *settings(void)
{
        struct bl_conf_report rep = {0};
        struct bl_conf *conf = NULL;

        if (bl_conf_load(&(struct bl_conf_paths){0}, &conf, &rep) < 0 && bl_conf_new(&conf) < 0)
                conf = NULL;
        (void)bl_conf_report_clear(&rep);
        return conf;
}

static enum ctl_exit connect_libvirt(const struct ctl *c, const struct bl_conf *conf, struct ctl_scan_inputs *i)
{
        const char *uri = ctl_value(c, "connect");

        if (i->conn)
                return CTL_OK;
        uri = uri ? uri : conf->libvirt_uri;
        virSetErrorFunc(NULL, be_quiet);
        i->conn = virConnectOpenReadOnly(uri);
        if (i->conn)
                return CTL_OK;
        ctl_error("cannot reach libvirt at %s: %s; is it running? (systemctl status libvirtd)", uri,
                  virGetLastErrorMessage());
        return CTL_UNREACHABLE;
}

/* Do its vCPUs stand still, and nobody else fills its memory?  A migration that comes in does. */
static bool is_still(virDomainPtr d)
{
        int state, reason;

        if (virDomainGetState(d, &state, &reason, 0) < 0)
                return false;
        if (state == VIR_DOMAIN_CRASHED || state == VIR_DOMAIN_PMSUSPENDED)
                return true;
        return state == VIR_DOMAIN_PAUSED && reason != VIR_DOMAIN_PAUSED_STARTING_UP &&
               reason != VIR_DOMAIN_PAUSED_POSTCOPY && reason != VIR_DOMAIN_PAUSED_POSTCOPY_FAILED;
}

bool ctl_scan_vm_is_paused(const struct ctl_scan_inputs *i, const char *uuid)
{
        _cleanup_(free_domain) virDomainPtr d = virDomainLookupByUUIDString(i->conn, uuid);

        return d && is_still(d);
}

/* Why there is no process to be read, as a sentence. */
static char *explain_no_process(const char *name, const char *run_dir, int r)
{
        char *s = NULL;

        if (r == -ENOENT)
                (void)asprintf(&s,
                               "%s runs, says libvirt, but there is no %s/%s.pid; if libvirt keeps such files "
                               "elsewhere, --libvirt-run-dir says where",
                               name, run_dir, name);
        else if (r == -ESRCH)
                (void)asprintf(&s, "%s has ended: the process of %s/%s.pid is gone, or not its", name, run_dir, name);
        else
                (void)asprintf(&s, "%s: its process cannot be found by %s/%s.pid: %s", name, run_dir, name,
                               r == -EINVAL ? "there is no number in it" : strerror(-r));
        return s;
}

/* 0, or negative with a sentence in *ret_message. */
static int open_vm(virDomainPtr d, const struct ctl *c, const struct bl_conf *conf, struct ctl_scan_input *ret,
                   char **ret_message)
{
        const char *dir = ctl_value(c, "libvirt-run-dir"), *name = virDomainGetName(d);
        struct bl_instance instance = {0};
        char uuid[VIR_UUID_STRING_BUFLEN];
        uint8_t raw[BL_UUID_LEN];
        uint64_t ram;
        int r;

        dir = dir ? dir : conf->libvirt_run_dir;
        if (virDomainGetUUID(d, raw) < 0 || virDomainGetUUIDString(d, uuid) < 0)
                return -EIO;
        r = bl_instance_find(dir, NULL, name, raw, &instance);
        if (r < 0) {
                *ret_message = explain_no_process(name, dir, r);
                return r;
        }
        ram = bl_mul_sat(virDomainGetMaxMemory(d), BL_KIB);
        if (ram == 0) {
                (void)asprintf(ret_message, "libvirt does not say how much memory %s has: %s", name,
                               virGetLastErrorMessage());
                return -EIO;
        }
        ret->pid = instance.pid;
        ret->start = instance.start;
        ret->name = strdup(name);
        ret->uuid = strdup(uuid);
        if (!ret->name || !ret->uuid)
                return -ENOMEM;
        ctl_make_text_safe(ret->name, false);
        bl_utf8_clean(ret->name);
        r = bl_source_process(instance.pid, instance.start, ram, name, &ret->source, ret_message);
        if (r >= 0)
                ret->source->still = ret->source->still || is_still(d);
        return r;
}

static enum ctl_exit exit_of(int r)
{
        return r == -EPERM || r == -EACCES ? CTL_NOT_PERMITTED : CTL_FAILED;
}

/* `lenient`: what cannot be opened is left out. */
static enum ctl_exit add_vm(struct ctl *c, const struct bl_conf *conf, virDomainPtr d, bool lenient,
                            struct ctl_scan_inputs *i)
{
        _cleanup_(ctl_scan_input_clear) struct ctl_scan_input in = {.kind = CTL_SCAN_VM};
        _cleanup_free_ char *message = NULL;
        int r = open_vm(d, c, conf, &in, &message);

        if (r >= 0)
                return ctl_scan_add(c, i, &in);
        if (!message)
                (void)asprintf(&message, "cannot scan %s: %s", virDomainGetName(d), strerror(-r));
        if (lenient) {
                ctl_scan_leave_out(i, virDomainGetName(d), message);
                return CTL_OK;
        }
        ctl_error("%s", message ? message : strerror(-r));
        return exit_of(r);
}

static enum ctl_exit say_unknown(const char *name)
{
        uint64_t number;

        if (bl_uint_parse(name, &number) >= 0)
                ctl_error("libvirt knows no domain '%s'; for a process, say --pid %s", name, name);
        else if (access(name, F_OK) == 0)
                ctl_error("libvirt knows no domain '%s'; for a dump, say --dump %s", name, name);
        else
                ctl_error("libvirt knows no domain '%s'; 'virsh list --all' shows them", name);
        return CTL_NO_SUCH_VM;
}

static enum ctl_exit add_named(struct ctl *c, const struct bl_conf *conf, const char *name, bool again,
                               struct ctl_scan_inputs *i)
{
        _cleanup_(free_domain) virDomainPtr d = virDomainLookupByName(i->conn, name);

        if (!d)
                d = virDomainLookupByUUIDString(i->conn, name);
        if (d && virDomainIsActive(d) == 1)
                return add_vm(c, conf, d, again, i);
        if (again) {
                _cleanup_free_ char *why = NULL;

                (void)asprintf(&why, "%s has ended", name);
                ctl_scan_leave_out(i, name, why);
                return CTL_OK;
        }
        if (!d)
                return say_unknown(name);
        ctl_error("%s does not run, so it holds no memory; 'virsh start %s' starts it", name, name);
        return CTL_REFUSED;
}

static int by_name(const void *a, const void *b)
{
        return strverscmp(virDomainGetName(*(const virDomainPtr *)a), virDomainGetName(*(const virDomainPtr *)b));
}

static enum ctl_exit add_all(struct ctl *c, const struct bl_conf *conf, struct ctl_scan_inputs *i)
{
        virDomainPtr *all = NULL;
        int n = virConnectListAllDomains(i->conn, &all, VIR_CONNECT_LIST_DOMAINS_ACTIVE);
        enum ctl_exit x = CTL_OK;

        if (n < 0) {
                ctl_error("libvirt does not list its domains: %s", virGetLastErrorMessage());
                return CTL_FAILED;
        }
        if (n > 0)
                qsort(all, (size_t)n, sizeof(*all), by_name);
        for (int k = 0; k < n; k++) {
                if (x == CTL_OK)
                        x = add_vm(c, conf, all[k], true, i);
                (void)virDomainFree(all[k]);
        }
        free(all);
        return x;
}

enum ctl_exit ctl_scan_open_vms(struct ctl *c, const char *name, bool again, struct ctl_scan_inputs *i)
{
        _cleanup_(bl_conf_freep) struct bl_conf *conf = NULL;
        enum ctl_exit x;

        if (geteuid() != 0) {
                ctl_error("only root may read the memory of virtual machines; try with sudo");
                return CTL_NOT_PERMITTED;
        }
        conf = settings();
        if (!conf)
                return CTL_FAILED;
        x = connect_libvirt(c, conf, i);
        if (x != CTL_OK)
                return x;
        return name ? add_named(c, conf, name, again, i) : add_all(c, conf, i);
}
