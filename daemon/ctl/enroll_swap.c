/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/ctl/enroll_swap.h"

#include <errno.h>
#include <libvirt/virterror.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "daemon/conf.h"
#include "daemon/store/control.h"
#include "daemon/util/size.h"
#include "daemon/util/sock.h"
#include "daemon/virt/domain_xml.h"

#define ANSWER_SECONDS 2

static void clear_info(struct bl_domain_info *i)
{
        (void)bl_domain_info_clear(i);
}

/* --- options ------------------------------------------------------------------------ */

enum ctl_exit ctl_enroll_swap_options(const struct ctl *c, struct bl_vm_metadata *ret, bool *ret_given)
{
        const char *swap = ctl_value(c, "swap"), *group = ctl_value(c, "group"), *limit = ctl_value(c, "swap-limit");
        struct bl_vm_metadata m = BL_VM_METADATA_NONE;

        /* "enroll VM --swap 1G": getopt takes the size for an argument */
        if (c->n_args > 1 && !(swap && !*swap))
                return ctl_usage(c, "'%s' is one argument too many for 'enroll'", c->args[1]);
        if (c->n_args > 1)
                swap = c->args[1];
        *ret_given = swap || group || limit;
        if (*ret_given && (ctl_value(c, "no-swap") || ctl_value(c, "remove")))
                return ctl_usage(c, "--swap, --group and --swap-limit do not go with --no-swap or --remove");
        if (swap && (!*swap || strcmp(swap, "auto") == 0))
                m.swap = BL_SWAP_AUTO;
        else if (swap && (bl_size_parse(swap, &m.swap) < 0 || m.swap < BL_MIB))
                return ctl_usage(c, "'%s' is no size for swap, as in --swap=1G", swap);
        if (limit && bl_size_parse(limit, &m.swap_limit) < 0)
                return ctl_usage(c, "'%s' is no size, as in 256M", limit);
        if (group && !bl_metadata_group_ok(group))
                return ctl_usage(c, "'%s' is no name for a group: at most %u characters, without blanks", group,
                                 BL_METADATA_GROUP - 1);
        if (group)
                (void)snprintf(m.group, sizeof(m.group), "%s", group);
        *ret = m;
        return CTL_OK;
}

/* --- would it fit? ------------------------------------------------------------------ */

static int ask_store(const char *path, struct bl_store_figures *ret)
{
        const struct bl_store_request q = {.magic = BL_STORE_CONTROL_MAGIC, .op = BL_STORE_OP_STATUS};
        const struct timeval limit = {.tv_sec = ANSWER_SECONDS};
        _cleanup_close_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        struct bl_store_reply r;
        struct sockaddr_un a;
        int e = bl_sock_address(path, &a);

        if (e < 0)
                return e;
        if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0 ||
            connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || send(fd, &q, sizeof(q), MSG_NOSIGNAL) < 0)
                return -errno;
        if (recv(fd, &r, sizeof(r), 0) != (ssize_t)sizeof(r) || r.magic != BL_STORE_CONTROL_MAGIC || r.status < 0)
                return -ENOTCONN;
        *ret = r.figures;
        return 0;
}

static uint64_t swap_of(const char *xml, const struct bl_conf *conf, uint8_t uuid[BL_UUID_LEN])
{
        _cleanup_(clear_info) struct bl_domain_info i = {0};
        uint64_t reservation;

        if (!xml || bl_domain_info_parse(xml, &i, NULL) < 0)
                return 0;
        memcpy(uuid, i.uuid, BL_UUID_LEN);
        reservation = i.metadata.reservation == BL_UNSET ? conf->default_reservation : i.metadata.reservation;
        return bl_vm_metadata_swap(&i.metadata, i.memory, reservation);
}

/* Of all other VMs that libvirt knows, whether they run or not. */
static uint64_t swap_of_others(virConnectPtr conn, const struct bl_conf *conf, const uint8_t uuid[BL_UUID_LEN])
{
        virDomainPtr *all = NULL;
        int n = virConnectListAllDomains(conn, &all, 0);
        uint64_t sum = 0;

        for (int i = 0; i < n; i++) {
                _cleanup_free_ char *xml = virDomainGetXMLDesc(all[i], VIR_DOMAIN_XML_INACTIVE);
                uint8_t its[BL_UUID_LEN] = {0};
                uint64_t bytes = swap_of(xml, conf, its);

                if (memcmp(its, uuid, BL_UUID_LEN) != 0)
                        sum = bl_add_sat(sum, bytes);
                (void)virDomainFree(all[i]);
        }
        free(all);
        return sum;
}

/* The store that ballastd is configured with, as far as it has heard of it. */
static bool ask_ballastd(struct ctl *c, uint64_t *ret_backing)
{
        const json_t *store, *backing;
        json_t *d = NULL;
        bool known;

        if (!ctl_is_reachable(c) || ctl_read(c, "Tiers", NULL, &d) != CTL_OK)
                return false;
        store = json_object_get(d, "store");
        backing = json_object_get(store, "backing");
        known = json_is_integer(backing) && strcmp(ctl_string(store, "state"), "there") == 0;
        if (known)
                *ret_backing = (uint64_t)json_integer_value(backing);
        json_decref(d);
        return known;
}

enum ctl_exit ctl_enroll_swap_check(struct ctl *c, virConnectPtr conn, const char *xml)
{
        _cleanup_(bl_conf_freep) struct bl_conf *conf = NULL;
        char a[BL_SIZE_BUF], b[BL_SIZE_BUF], d[BL_SIZE_BUF];
        struct bl_conf_report rep = {0};
        struct bl_store_figures f = {0};
        uint8_t uuid[BL_UUID_LEN] = {0};
        uint64_t own, others;
        int r = 0;

        r = bl_conf_load(&(struct bl_conf_paths){0}, &conf, &rep);
        bl_conf_report_clear(&rep);
        if (r < 0 && bl_conf_new(&conf) < 0)
                return CTL_FAILED;
        own = swap_of(xml, conf, uuid);
        if (own == 0)
                return CTL_OK;
        if (!ask_ballastd(c, &f.backing))
                r = ask_store(conf->store_control, &f);
        if (r < 0) {
                fprintf(stderr,
                        "ballast-store cannot be asked at %s (%s): whether it can hold this VM's swap is seen when the "
                        "VM starts\n",
                        conf->store_control, strerror(-r));
                return CTL_OK;
        }
        others = swap_of_others(conn, conf, uuid);
        if (bl_add_sat(own, others) <= f.backing)
                return CTL_OK;
        ctl_error("the store cannot back it: %s of swap beside the %s of other VMs, and pool and disk hold %s "
                  "uncompressed (PoolSize= and DiskSize= in ballast.conf)",
                  bl_size_format(own, a, sizeof(a)), bl_size_format(others, b, sizeof(b)),
                  bl_size_format(f.backing, d, sizeof(d)));
        return CTL_REFUSED;
}

/* --- the VM that runs ----------------------------------------------------------------- */

/* As far as ballastd runs: 'drain --undo' does it where it did not. */
static void end_drain(struct ctl *c, const char *vm)
{
        _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;

        if (ctl_is_reachable(c) && ctl_new_message(c, "Drain", &m) == CTL_OK &&
            sd_bus_message_append(m, "sb", vm, 1) >= 0)
                (void)ctl_change_message(c, m, NULL, &e);
}

enum ctl_exit ctl_enroll_swap_live(struct ctl *c, virDomainPtr d, const struct bl_vm_metadata *m)
{
        struct bl_vm_metadata now = BL_VM_METADATA_NONE;
        _cleanup_free_ char *before = NULL, *after = NULL;

        if (virDomainIsActive(d) <= 0)
                return CTL_OK;
        before = virDomainGetMetadata(d, VIR_DOMAIN_METADATA_ELEMENT, BL_METADATA_URI, VIR_DOMAIN_AFFECT_LIVE);
        if (before)
                (void)bl_vm_metadata_parse(before, &now, NULL);
        bl_vm_metadata_merge(&now, m);
        if (bl_vm_metadata_format(&now, &after) < 0)
                return CTL_FAILED;
        if (after && virDomainSetMetadata(d, VIR_DOMAIN_METADATA_ELEMENT, after, BL_METADATA_KEY, BL_METADATA_URI,
                                          VIR_DOMAIN_AFFECT_LIVE) < 0) {
                ctl_error("it is written, but the running VM was not told: %s", virGetLastErrorMessage());
                return CTL_FAILED;
        }
        end_drain(c, virDomainGetName(d));
        return CTL_OK;
}
