/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ballast-vsock: arguments. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/channel/vhost_user_vsock.h"
#include "daemon/vsock/control.h"
#include "daemon/vsock/supervisor.h"

#define HOST_SOCKET_DEFAULT "/run/ballast/" BL_VHOST_USER_VSOCK_SOCKET

static const char help_text[] = "Usage: ballast-vsock [OPTION]...\n"
                                "Carry guests' virtio-vsock connections to ballastd, by vhost-user.\n"
                                "\n"
                                "  --control PATH      where ballastd asks for backends\n"
                                "                      (default " BL_VSOCK_CONTROL_DEFAULT ")\n"
                                "  --host-socket PATH  where ballastd takes the guests' connections\n"
                                "                      (default " HOST_SOCKET_DEFAULT ")\n"
                                "  --help              show this\n"
                                "  --version           show the version\n"
                                "\n"
                                "See ballast-vsock(8).\n";

/* 1: go on; 0: done; -EINVAL: wrong usage, and said so. */
static int parse_args(int argc, char **argv, struct bl_supervisor_options *o)
{
        enum { OPT_CONTROL = 1, OPT_HOST_SOCKET, OPT_HELP, OPT_VERSION };
        static const struct option longopts[] = {
                {"control", required_argument, NULL, OPT_CONTROL},
                {"host-socket", required_argument, NULL, OPT_HOST_SOCKET},
                {"help", no_argument, NULL, OPT_HELP},
                {"version", no_argument, NULL, OPT_VERSION},
                {NULL},
        };
        int c;

        while ((c = getopt_long(argc, argv, "", longopts, NULL)) >= 0)
                switch (c) {
                case OPT_CONTROL:
                        o->control = optarg;
                        break;
                case OPT_HOST_SOCKET:
                        o->host_socket = optarg;
                        break;
                case OPT_HELP:
                        (void)fputs(help_text, stdout);
                        return 0;
                case OPT_VERSION:
                        (void)printf("ballast-vsock %s\n", BALLAST_VERSION);
                        return 0;
                default:
                        (void)fputs("Try 'ballast-vsock --help'.\n", stderr);
                        return -EINVAL;
                }
        if (optind < argc) {
                (void)fputs("ballast-vsock: no arguments expected\n", stderr);
                return -EINVAL;
        }
        return 1;
}

int main(int argc, char **argv)
{
        struct bl_supervisor_options o = {.control = BL_VSOCK_CONTROL_DEFAULT, .host_socket = HOST_SOCKET_DEFAULT};
        const int r = parse_args(argc, argv, &o);

        if (r == 0)
                return fflush(stdout) != 0 ? EXIT_FAILURE : EXIT_SUCCESS;
        if (r < 0)
                return 2;
        return bl_supervisor_run(&o) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
