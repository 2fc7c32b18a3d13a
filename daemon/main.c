// SPDX-License-Identifier: LGPL-2.1-or-later
/* ballastd: arguments, signals, the service manager. */
#include <getopt.h>
#include <signal.h>
#include <string.h>
#include <sysexits.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>

#include "daemon/act/ksm.h"
#include "daemon/control.h"
#include "daemon/log.h"
#include "daemon/manager.h"

#define MAX_OVERRIDES 8

struct arguments {
        bool check, restore_host;
        const char *state_dir;
        struct bl_manager_options manager;
        struct bl_override overrides[MAX_OVERRIDES];
};

static const char help_text[] = "ballastd [OPTION...]\n"
                                "\n"
                                "Watches host memory and moves it between the guests of libvirt by balloon.\n"
                                "A fresh installation only observes; 'ballastctl act on' lets it act.\n"
                                "\n"
                                "  --config FILE       read FILE and FILE.d/*.conf instead of the standard places\n"
                                "  --check-config      read the configuration, say what is wrong with it, and end\n"
                                "  --connect URI       libvirt to talk to (default qemu:///system)\n"
                                "  --state-dir DIR     what must outlive a restart (default /var/lib/ballast)\n"
                                "  --runtime-dir DIR   where the control socket is (default /run/ballast)\n"
                                "  --no-system-bus     serve only the private socket\n"
                                "  --restore-host      put back what a killed ballastd changed of the host's KSM\n"
                                "                      settings, and end\n"
                                "  --help              this text\n"
                                "  --version           the version\n"
                                "\n"
                                "Signals: SIGHUP reads the configuration again, SIGTERM and SIGINT end ballastd\n"
                                "and leave the guests as they are.  ballastd(8) has the rest.\n";

static void override(struct arguments *a, const char *section, const char *key, const char *value)
{
        a->overrides[a->manager.n_overrides++] = (struct bl_override){.section = section, .key = key, .value = value};
}

/* 1: go on; 0: done; negative: usage error, said. */
static int parse_arguments(int argc, char **argv, struct arguments *ret)
{
        enum {
                OPT_CONFIG = 256,
                OPT_CHECK,
                OPT_CONNECT,
                OPT_STATE,
                OPT_RUNTIME,
                OPT_NO_BUS,
                OPT_RESTORE,
                OPT_HELP,
                OPT_VERSION
        };
        static const struct option options[] = {
                {"config", required_argument, NULL, OPT_CONFIG},
                {"check-config", no_argument, NULL, OPT_CHECK},
                {"connect", required_argument, NULL, OPT_CONNECT},
                {"state-dir", required_argument, NULL, OPT_STATE},
                {"runtime-dir", required_argument, NULL, OPT_RUNTIME},
                {"no-system-bus", no_argument, NULL, OPT_NO_BUS},
                {"restore-host", no_argument, NULL, OPT_RESTORE},
                {"help", no_argument, NULL, OPT_HELP},
                {"version", no_argument, NULL, OPT_VERSION},
                {0},
        };
        const char *connect = NULL, *runtime = NULL;
        int c;

        while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0)
                switch (c) {
                case OPT_CONFIG:
                        ret->manager.conf_file = optarg;
                        break;
                case OPT_CHECK:
                        ret->check = true;
                        break;
                case OPT_CONNECT:
                        connect = optarg;
                        break;
                case OPT_STATE:
                        ret->state_dir = optarg;
                        break;
                case OPT_RUNTIME:
                        runtime = optarg;
                        break;
                case OPT_NO_BUS:
                        ret->manager.system_bus = false;
                        break;
                case OPT_RESTORE:
                        ret->restore_host = true;
                        break;
                case OPT_HELP:
                        fputs(help_text, stdout);
                        return 0;
                case OPT_VERSION:
                        puts("ballastd " BALLAST_VERSION);
                        return 0;
                default:
                        fputs("Try 'ballastd --help'.\n", stderr);
                        return -EINVAL;
                }
        if (optind < argc) {
                fprintf(stderr, "ballastd: unexpected argument '%s'. Try 'ballastd --help'.\n", argv[optind]);
                return -EINVAL;
        }
        if (connect)
                override(ret, "daemon", "libvirt_uri", connect);
        if (ret->state_dir)
                override(ret, "daemon", "state_dir", ret->state_dir);
        if (runtime)
                override(ret, "daemon", "runtime_dir", runtime);
        ret->manager.overrides = ret->overrides;
        return 1;
}

static int on_hangup(sd_event_source *s, const struct signalfd_siginfo *si, void *userdata)
{
        _cleanup_free_ char *message = NULL;
        int r;

        (void)s;
        (void)si;
        /* The service manager waits for READY=1 after RELOADING=1, whatever
         * came of it; what is wrong is in the log. */
        (void)sd_notify(false, "RELOADING=1");
        r = bl_control_reload(userdata, &message);
        if (r < 0)
                bl_log(LOG_ERR, BL_EV_CONFIG, NULL, "config.kept", "the old configuration stays: %s",
                       message ? message : strerror(-r));
        (void)sd_notify(false, "READY=1");
        return 0;
}

static int add_signals(sd_event *event, struct bl_manager *m)
{
        int r;

        r = sd_event_add_signal(event, NULL, SIGTERM, NULL, NULL);
        if (r >= 0)
                r = sd_event_add_signal(event, NULL, SIGINT, NULL, NULL);
        if (r >= 0)
                r = sd_event_add_signal(event, NULL, SIGHUP, on_hangup, m);
        return r;
}

/* Before any thread starts, so that all inherit it: signals come by signalfd only. */
static void block_signals(void)
{
        sigset_t set;

        sigemptyset(&set);
        sigaddset(&set, SIGTERM);
        sigaddset(&set, SIGINT);
        sigaddset(&set, SIGHUP);
        sigaddset(&set, SIGPIPE);
        (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
}

/* After a daemon that was killed; the unit's ExecStopPost=.  A configuration that is bad by now is no reason to leave
 * the host as it is. */
static int restore_host(const struct arguments *a, const struct bl_conf *conf)
{
        _cleanup_(bl_conf_freep) struct bl_conf *shipped = NULL;
        _cleanup_free_ char *message = NULL;
        const char *dir = a->state_dir;
        int r = 0;

        if (!dir && !conf)
                r = bl_conf_new(&shipped);
        if (r >= 0)
                r = bl_ksm_restore_host(a->manager.root, dir ? dir : (conf ? conf : shipped)->state_dir, &message);
        if (r < 0)
                bl_log_error("the host's KSM settings cannot be put back: %s", message ? message : bl_ksm_error(r));
        else if (message)
                bl_log(LOG_WARNING, BL_EV_RECOVERED, NULL, "restore.host", "%s", message);
        if (r > 0)
                bl_log(LOG_NOTICE, BL_EV_RECOVERED, NULL, "restore.host",
                       "%d of the host's settings are as they were before ballastd", r);
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int run(sd_event *event, const struct arguments *a, struct bl_conf *conf, const struct bl_conf_report *rep)
{
        _cleanup_(bl_manager_freep) struct bl_manager *m = NULL;
        int r;

        r = bl_manager_new(event, &a->manager, conf, rep, &m);
        if (r < 0)
                return r;
        r = add_signals(event, m);
        if (r < 0)
                return r;
        (void)sd_event_set_watchdog(event, true);
        (void)sd_notify(false, "READY=1");
        bl_log(LOG_INFO, BL_EV_STARTED, NULL, "daemon.started", "ballastd " BALLAST_VERSION " started");
        r = sd_event_loop(event);
        (void)sd_notify(false, "STOPPING=1\nSTATUS=Leaving the guests as they are");
        bl_log(LOG_INFO, BL_EV_STOPPED, NULL, "daemon.stopped", "ballastd stopped; the guests stay as they are");
        return r;
}

int main(int argc, char **argv)
{
        struct arguments a = {.manager.system_bus = true};
        struct bl_conf_report rep = {0};
        struct bl_conf *conf = NULL;
        sd_event *event = NULL;
        int r;

        bl_log_init(LOG_INFO);
        r = parse_arguments(argc, argv, &a);
        if (r <= 0)
                return r < 0 ? EX_USAGE : EXIT_SUCCESS;
        r = bl_manager_load_conf(&a.manager, &conf, &rep);
        if (r < 0 || a.check || a.restore_host)
                bl_conf_report_clear(&rep);
        if (a.restore_host) {
                r = restore_host(&a, conf);
                bl_conf_free(conf);
                return r;
        }
        if (r < 0)
                return r == -EINVAL || r == -ENOENT ? EX_CONFIG : EXIT_FAILURE;
        if (a.check) {
                bl_conf_free(conf);
                puts("ballastd: the configuration is good");
                return EXIT_SUCCESS;
        }
        bl_log_init(conf->log_level);
        block_signals();
        r = sd_event_default(&event);
        if (r < 0) {
                bl_log_error("cannot make an event loop: %s", strerror(-r));
                bl_conf_report_clear(&rep);
                bl_conf_free(conf);
                return EXIT_FAILURE;
        }
        r = run(event, &a, conf, &rep);
        bl_conf_report_clear(&rep);
        sd_event_unref(event);
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
