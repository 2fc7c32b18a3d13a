// SPDX-License-Identifier: LGPL-2.1-or-later
#include "daemon/manager.h"

#include <limits.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>

#include "daemon/act/balloon.h"
#include "daemon/act/pageout.h"
#include "daemon/manager-private.h"
#include "daemon/util/clock.h"
#include "daemon/util/size.h"

/* How long a daemon that ends waits for libvirt calls that are under way. */
#define STOP_WAIT (2 * BL_SEC)

void bl_call_init(struct bl_call *c, struct bl_guest *g)
{
        c->m = g->m;
        memcpy(c->uuid, g->uuid, BL_UUID_LEN);
        c->serial = g->serial;
}

struct bl_call *bl_call_new(struct bl_guest *g)
{
        struct bl_call *c = malloc(sizeof *c);

        if (c)
                bl_call_init(c, g);
        return c;
}

struct bl_guest *bl_call_guest(const struct bl_call *c)
{
        struct bl_guest *g = bl_manager_find(c->m, c->uuid);

        return g && g->serial == c->serial ? g : NULL;
}

bool bl_manager_acting(const struct bl_manager *m)
{
        int told = bl_ledger_act(m->ledger);
        bool act = told < 0 ? m->conf->act : told;

        return act && bl_ledger_trusted(m->ledger) && !bl_ledger_held(m->ledger) && !bl_rollback_running(m);
}

static int guest_compare(const void *key, const void *element)
{
        return memcmp(key, (*(struct bl_guest *const *)element)->uuid, BL_UUID_LEN);
}

struct bl_guest *bl_manager_find(struct bl_manager *m, const uint8_t uuid[BL_UUID_LEN])
{
        struct bl_guest **p =
                m->n_guests ? bsearch(uuid, m->guests, m->n_guests, sizeof *m->guests, guest_compare) : NULL;

        return p ? *p : NULL;
}

struct bl_guest *bl_manager_find_named(struct bl_manager *m, const char *vm)
{
        uint8_t uuid[BL_UUID_LEN];

        for (size_t i = 0; i < m->n_guests; i++)
                if (strcmp(m->guests[i]->name, vm) == 0)
                        return m->guests[i];
        return bl_uuid_from_string(vm, uuid) == 0 ? bl_manager_find(m, uuid) : NULL;
}

void bl_manager_note(struct bl_manager *m, struct bl_guest *g, int priority, enum bl_event ev, const char *reason,
                     const char *outcome, uint64_t from, uint64_t to, const char *format, ...)
{
        struct bl_history_event e = {.at_wall = bl_now_wall(), .from = from, .to = to};
        va_list ap;

        va_start(ap, format);
        (void)vsnprintf(e.sentence, sizeof e.sentence, format, ap);
        va_end(ap);
        (void)snprintf(e.reason, sizeof e.reason, "%s", reason);
        (void)snprintf(e.outcome, sizeof e.outcome, "%s", outcome);
        if (g) {
                e.has_vm = true;
                memcpy(e.uuid, g->uuid, BL_UUID_LEN);
                (void)snprintf(e.vm, sizeof e.vm, "%s", g->name);
        }
        bl_history_add(m->history, &e);
        bl_log(priority, ev, g ? g->name : NULL, reason, "%s", e.sentence);
}

void bl_manager_not_saved(struct bl_manager *m, int r)
{
        bl_log(LOG_ERR, BL_EV_PLAIN, NULL, "ledger.failed", "cannot write %s: %s", bl_ledger_path(m->ledger),
               strerror(-r));
}

int bl_manager_save(struct bl_manager *m, bool durable)
{
        int r = bl_ledger_save(m->ledger, durable);

        if (r < 0)
                bl_manager_not_saved(m, r);
        return r;
}

void bl_manager_notify_status(struct bl_manager *m)
{
        char free[32];

        (void)sd_notifyf(false, "STATUS=%s, %s free of the budget, %zu VMs%s%s", bl_state_to_string(m->plan.state),
                         bl_size_format(m->host.free, free, sizeof free), m->n_guests,
                         bl_manager_acting(m) ? "" : ", only observing", m->connected ? "" : ", libvirt not connected");
}

/* --- configuration ------------------------------------------------------- */

static char **report_warnings(const struct bl_conf_report *rep)
{
        char **w = calloc(rep->n + 1, sizeof *w);

        for (size_t i = 0, k = 0; w && i < rep->n; i++)
                if ((w[k] = strdup(rep->messages[i].text)))
                        k++;
        return w;
}

static char **strings_free(char **s)
{
        for (size_t i = 0; s && s[i]; i++)
                free(s[i]);
        free(s);
        return NULL;
}

/* The first error's text, for whoever asked for a reload. */
static char *report_error(const struct bl_conf_report *rep)
{
        for (size_t i = 0; i < rep->n; i++)
                if (rep->messages[i].priority <= LOG_ERR)
                        return strdup(rep->messages[i].text);
        return NULL;
}

int bl_manager_load_conf(const struct bl_manager_options *o, struct bl_conf **ret, struct bl_conf_report *rep)
{
        struct bl_conf_paths paths = {.root = o->root, .file = o->conf_file};
        _cleanup_(bl_conf_freep) struct bl_conf *conf = NULL;
        int r = bl_conf_load(&paths, &conf, rep);

        for (size_t i = 0; i < rep->n; i++)
                bl_log(rep->messages[i].priority, BL_EV_CONFIG, NULL, NULL, "%s", rep->messages[i].text);
        for (size_t i = 0; r >= 0 && i < o->n_overrides; i++) {
                _cleanup_free_ char *allowed = NULL;

                r = bl_conf_set(conf, o->overrides[i].section, o->overrides[i].key, o->overrides[i].value,
                                "command line", &allowed);
                if (r < 0)
                        bl_log(LOG_ERR, BL_EV_CONFIG, NULL, NULL, "command line: %s: bad value '%s'%s%s",
                               o->overrides[i].key, o->overrides[i].value, allowed ? "; allowed is " : "",
                               allowed ? allowed : "");
        }
        if (r >= 0)
                *ret = BL_TAKE(conf);
        return r;
}

/* What was changed and takes a restart; NULL: nothing. */
static const char *restart_needed(const struct bl_conf *now, const struct bl_conf *before)
{
        if (strcmp(now->libvirt_uri, before->libvirt_uri) == 0 && strcmp(now->state_dir, before->state_dir) == 0 &&
            strcmp(now->runtime_dir, before->runtime_dir) == 0 && (now->store_pool > 0) == (before->store_pool > 0) &&
            strcmp(now->store_control, before->store_control) == 0)
                return NULL;
        return "the configuration was read again; LibvirtURI, StateDir, RuntimeDir, Control, and whether there is a "
               "store, change only when ballastd is restarted";
}

int bl_control_reload(struct bl_manager *m, char **ret_message)
{
        struct bl_conf_report rep = {0};
        struct bl_conf *conf = NULL;
        const char *restart;
        int r = bl_manager_load_conf(&m->options, &conf, &rep);

        if (r < 0) {
                if (ret_message)
                        *ret_message = report_error(&rep);
                bl_conf_report_clear(&rep);
                /* a file that is gone is a bad configuration, and no missing VM */
                return r == -ENOMEM ? r : -EINVAL;
        }
        strings_free(m->warnings);
        m->warnings = report_warnings(&rep);
        bl_conf_report_clear(&rep);
        restart = restart_needed(conf, m->conf);
        if (restart) {
                bl_log(LOG_WARNING, BL_EV_CONFIG, NULL, "config.restart", "%s", restart);
                if (ret_message)
                        *ret_message = strdup(restart);
        }
        bl_conf_free(m->conf);
        m->conf = conf;
        bl_log_init(conf->log_level);
        bl_sample_reconfigure(m);
        bl_share_reconfigure(m);
        /* what a VM may have, and the statistics period, depend on it */
        for (size_t i = 0; i < m->n_guests; i++)
                bl_discover_describe(m->guests[i]);
        bl_bus_refresh(m->bus);
        bl_manager_note(m, NULL, LOG_INFO, BL_EV_CONFIG, "config.read", "done", BL_UNSET, BL_UNSET,
                        "the configuration was read again");
        bl_manager_notify_status(m);
        bl_tick_soon(m, 0);
        return 0;
}

/* --- libvirt ------------------------------------------------------------- */

static void on_connection(void *userdata, bool connected, const char *message)
{
        struct bl_manager *m = userdata;
        bool first = m->connected || !m->conn_error;

        m->connected = connected;
        free(m->conn_error);
        m->conn_error = connected || !message ? NULL : strdup(message);
        if (connected) {
                bl_manager_note(m, NULL, LOG_INFO, BL_EV_LIBVIRT, "libvirt.connected", "seen", BL_UNSET, BL_UNSET,
                                "connected to libvirt at %s", bl_conn_uri(m->conn));
                bl_discover_all(m);
        } else if (!first) {
                bl_log_debug("still no connection to libvirt: %s", message ? message : "unknown reason");
        } else {
                bl_manager_note(m, NULL, LOG_WARNING, BL_EV_LIBVIRT, "libvirt.lost", "seen", BL_UNSET, BL_UNSET,
                                "no connection to libvirt at %s: %s; trying again", bl_conn_uri(m->conn),
                                message ? message : "unknown reason");
        }
        bl_manager_notify_status(m);
}

static void on_event(void *userdata, const struct bl_virt_event *ev)
{
        bl_discover_event(userdata, ev);
}

static void on_overdue(void *userdata, const uint8_t key[BL_UUID_LEN], bool hung)
{
        struct bl_manager *m = userdata;
        struct bl_guest *g = bl_manager_find(m, key);

        if (!g)
                return;
        if (hung)
                bl_manager_note(m, g, LOG_WARNING, BL_EV_VM, "vm.hung", "seen", BL_UNSET, BL_UNSET,
                                "%s does not answer libvirt; it is left alone until it does, the others go on",
                                g->name);
        else
                bl_manager_note(m, g, LOG_INFO, BL_EV_VM, "vm.answers", "seen", BL_UNSET, BL_UNSET, "%s answers again",
                                g->name);
}

static int start_libvirt(struct bl_manager *m)
{
        struct bl_conn_options o = {
                .uri = m->conf->libvirt_uri,
                .handler = {.state = on_connection, .event = on_event},
                .userdata = m,
        };
        int r;

        r = bl_event_bridge_new(m->event, &m->bridge);
        if (r >= 0)
                r = bl_pool_new(m->event, NULL, &m->pool);
        if (r < 0)
                return r;
        bl_pool_set_overdue_handler(m->pool, on_overdue, m);
        return bl_conn_new(m->event, m->pool, &o, &m->conn);
}

/* --- life ---------------------------------------------------------------- */

static int make_directory(const char *path, mode_t mode)
{
        int r = 0;

        if (mkdir(path, mode) < 0 && errno != EEXIST) {
                r = -errno;
                bl_log_error("cannot make the directory %s: %s", path, strerror(errno));
        }
        return r;
}

static int open_ledger(struct bl_manager *m)
{
        _cleanup_free_ char *message = NULL;
        int r;

        r = make_directory(m->conf->state_dir, 0700);
        if (r < 0)
                return r;
        r = bl_ledger_open(m->conf->state_dir, NULL, &m->ledger, &message);
        if (r < 0) {
                bl_log_error("%s", message ? message : strerror(-r));
                return r;
        }
        if (message)
                bl_manager_note(m, NULL, LOG_WARNING, BL_EV_RECOVERED, "recover.ledger", "seen", BL_UNSET, BL_UNSET,
                                "%s", message);
        /* a first ledger holds the phase: without it on disk a killed daemon
         * would take its own targets for somebody else's */
        return bl_manager_save(m, true);
}

static int open_bus(struct bl_manager *m)
{
        char path[PATH_MAX];
        int r;

        r = make_directory(m->conf->runtime_dir, 0755);
        if (r < 0)
                return r;
        (void)snprintf(path, sizeof path, "%s/ballast.sock", m->conf->runtime_dir);
        r = bl_bus_new(m->event, m, path, m->options.system_bus, &m->bus);
        if (r == -EADDRINUSE)
                bl_log_error("another ballastd answers at %s; there can be one only", path);
        else if (r < 0)
                bl_log_error("cannot serve %s: %s", path, strerror(-r));
        return r;
}

static int start_engines(struct bl_manager *m)
{
        struct bl_balloon_options o = {.handler = bl_tick_balloon_handler, .userdata = m};
        int r = bl_balloon_engine_new(m->conn, m->ledger, &o, &m->balloon);

        m->engines[BL_ENGINE_BALLOON] = m->balloon;
        return r < 0 ? r : bl_kernel_tiers_start(m);
}

int bl_manager_new(sd_event *event, const struct bl_manager_options *o, struct bl_conf *conf,
                   const struct bl_conf_report *rep, struct bl_manager **ret)
{
        _cleanup_(bl_manager_freep) struct bl_manager *m = calloc(1, sizeof *m);
        int r;

        if (!m) {
                bl_conf_free(conf);
                return -ENOMEM;
        }
        m->conf = conf;
        m->event = sd_event_ref(event);
        m->options = *o;
        m->psi_fd = -1;
        m->state_since = bl_now_wall();
        m->warnings = rep ? report_warnings(rep) : NULL;
        r = bl_history_new(&m->history);
        if (r >= 0)
                r = bl_policy_new(&m->policy);
        if (r >= 0)
                r = open_ledger(m);
        if (r >= 0)
                r = start_libvirt(m);
        if (r >= 0)
                r = start_engines(m);
        if (r >= 0)
                r = bl_sample_start(m);
        if (r >= 0)
                r = bl_poll_start(m);
        if (r >= 0)
                r = bl_tick_start(m);
        if (r >= 0)
                r = open_bus(m);
        if (r >= 0)
                r = bl_attach_start(m);
        /* behind the bus, which knows whether another ballastd has this directory */
        if (r >= 0)
                r = bl_guests_start(m);
        if (r >= 0)
                r = bl_swap_start(m);
        if (r >= 0)
                r = bl_share_start(m);
        if (r >= 0)
                r = bl_rollback_resume(m);
        if (r >= 0)
                r = bl_conn_start(m->conn);
        if (r < 0)
                return r;
        if (!bl_manager_acting(m))
                bl_log_info("only observing: 'ballastctl plan' shows what would be done, 'ballastctl act on' lets it");
        *ret = BL_TAKE(m);
        return 0;
}

struct bl_manager *bl_manager_free(struct bl_manager *m)
{
        unsigned left;

        if (!m)
                return NULL;
        m->bus = bl_bus_free(m->bus);
        bl_share_release(m);
        bl_guests_stop(m);
        if (m->conn)
                bl_conn_stop(m->conn);
        /* completes jobs, which may set the timers below */
        left = m->pool ? bl_pool_stop(m->pool, STOP_WAIT) : 0;
        if (left > 0) {
                /* they use the connection and what it stands on; the process ends anyway */
                bl_log_warning("%u calls to libvirt have not come back, ignoring", left);
                return NULL;
        }
        bl_swap_stop(m);
        bl_share_stop(m);
        sd_event_source_disable_unref(m->rollback_timer);
        sd_event_source_disable_unref(m->attach_timer);
        sd_event_source_disable_unref(m->tick_timer);
        sd_event_source_disable_unref(m->poll_timer);
        sd_event_source_disable_unref(m->sample_timer);
        sd_event_source_disable_unref(m->psi_source);
        if (m->psi_fd >= 0)
                (void)close(m->psi_fd);
        for (size_t i = 0; i < m->n_guests; i++)
                bl_guest_free(m->guests[i]);
        free(m->guests);
        bl_balloon_engine_free(m->balloon);
        bl_pageout_engine_free(m->engines[BL_ENGINE_PAGEOUT]);
        bl_conn_free(m->conn);
        bl_pool_free(m->pool);
        bl_event_bridge_free(m->bridge);
        bl_ledger_free(m->ledger);
        bl_plan_clear(&m->plan);
        bl_policy_free(m->policy);
        bl_host_sensor_free(m->host_sensor);
        bl_history_free(m->history);
        strings_free(m->warnings);
        free(m->conn_error);
        bl_conf_free(m->conf);
        sd_event_unref(m->event);
        free(m);
        return NULL;
}
