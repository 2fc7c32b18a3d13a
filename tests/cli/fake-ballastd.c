/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fake-ballastd SOCKET [GROUP-ID]: the daemon's bus over a fake manager, for
 * the tests of ballastctl.  Writes "ready" when it serves; ends on SIGTERM.
 * On the system bus, too, when DBUS_SYSTEM_BUS_ADDRESS names one.
 */
#include <signal.h>
#include <stdio.h>

#include "tests/cli/fake-manager.h"

static int on_soft(sd_event_source *s, const struct signalfd_siginfo *si, void *userdata)
{
        struct bl_bus *b = userdata;

        (void)s;
        (void)si;
        bl_bus_state_changed(b, "clear", "soft");
        return 0;
}

int main(int argc, char **argv)
{
        struct bl_bus_options o = {.group = BL_BUS_NO_GROUP, .ops = &fake_ops, .mode = 0666};
        struct bl_manager m = {.acting = true, .state = "soft"};
        struct bl_bus *bus = NULL;
        sd_event *event = NULL;
        sigset_t set;
        int r;

        if (argc < 2)
                return 2;
        o.socket_path = argv[1];
        o.system_bus = getenv("DBUS_SYSTEM_BUS_ADDRESS") != NULL;
        if (argc > 2)
                o.group = (gid_t)atoi(argv[2]);
        (void)sigemptyset(&set);
        (void)sigaddset(&set, SIGTERM);
        (void)sigaddset(&set, SIGINT);
        (void)sigaddset(&set, SIGUSR1);
        (void)sigaddset(&set, SIGPIPE);
        (void)sigprocmask(SIG_BLOCK, &set, NULL);
        if (sd_event_default(&event) < 0)
                return 1;
        m.event = event;
        r = bl_bus_new_with(event, &m, &o, &bus);
        if (r < 0) {
                fprintf(stderr, "fake-ballastd: %s: %s\n", argv[1], strerror(-r));
                return 1;
        }
        (void)sd_event_add_signal(event, NULL, SIGTERM, NULL, NULL);
        (void)sd_event_add_signal(event, NULL, SIGINT, NULL, NULL);
        (void)sd_event_add_signal(event, NULL, SIGUSR1, on_soft, bus);
        puts("ready");
        (void)fflush(stdout);
        r = sd_event_loop(event);
        bus = bl_bus_free(bus);
        for (size_t i = 0; i < m.n_mute; i++)
                m.mute[i].done(m.mute[i].userdata, 0, NULL);
        sd_event_unref(event);
        return r < 0 ? 1 : 0;
}
