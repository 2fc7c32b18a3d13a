/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ballast-store: arguments and settings; becomes nbdkit, or holds its sockets. */
#include <errno.h>
#include <getopt.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "daemon/conf.h"
#include "daemon/store/control.h"
#include "daemon/store/holder.h"
#include "daemon/util/size.h"

#define PLUGIN      "ballast-store-plugin.so"
#define EXIT_USAGE  2 /* trying again does not mend it */
#define THREADS_MAX 16U

static const char help_text[] = "Usage: ballast-store [OPTION]...\n"
                                "Keep guests' swap: once, compressed, in memory that outlives this program.\n"
                                "\n"
                                "  --config FILE       instead of the standard places of ballast.conf(5)\n"
                                "  --pool-size SIZE    memory that may be taken (PoolSize=)\n"
                                "  --pool-ready SIZE   of it ahead of use (PoolReady=)\n"
                                "  --disk PATH         file or block device below it (Disk=)\n"
                                "  --disk-size SIZE    how much of it (DiskSize=)\n"
                                "  --socket PATH       where QEMU connects (Socket=)\n"
                                "  --control PATH      where ballastd connects (Control=)\n"
                                "  --dir PATH          runtime directory\n"
                                "                      (default " BL_STORE_DIR_DEFAULT ")\n"
                                "  --arena KIND        of memory: auto, tmpfs or sysv (default auto)\n"
                                "  --threads N         of each connection (default 3)\n"
                                "  --plugin PATH       for nbdkit\n"
                                "  --remove            throw away the pool and what is in it\n"
                                "  --help              show this\n"
                                "  --version           show the version\n"
                                "\n"
                                "See ballast-store(8).\n";

struct args {
        const char *config;
        struct bl_store_settings set; /* what was given; NULL and 0: was not */
        bool has_pool, has_ready, has_disk_size, remove;
        char *plugin; /* where it was found */
};

/* --- settings ------------------------------------------------------------------------ */

static void unload(struct bl_store_settings *s)
{
        s->conf = bl_conf_free(s->conf);
}

static int load_conf(const struct args *a, struct bl_conf **ret)
{
        const struct bl_conf_paths paths = {.file = a->config};
        struct bl_conf_report rep = {};
        const int r = bl_conf_load(&paths, ret, &rep);

        for (size_t i = 0; i < rep.n; i++)
                (void)fprintf(stderr, "ballast-store: %s\n", rep.messages[i].text);
        if (r < 0 && rep.n == 0)
                (void)fprintf(stderr, "ballast-store: cannot read the configuration: %s\n", strerror(-r));
        (void)bl_conf_report_clear(&rep);
        return r;
}

/* bl_holder_options.load */
static int load(void *userdata, struct bl_store_settings *ret)
{
        const struct args *a = userdata;
        struct bl_store_settings s = a->set;
        const int r = load_conf(a, &s.conf);

        if (r < 0)
                return r;
        s.plugin = a->plugin;
        s.socket = s.socket ?: s.conf->store_socket;
        s.control = s.control ?: s.conf->store_control;
        s.disk = s.disk ?: s.conf->store_disk;
        if (!a->has_pool)
                s.pool = s.conf->store_pool;
        if (!a->has_ready)
                s.ready = s.conf->store_ready;
        if (!a->has_disk_size)
                s.disk_size = s.conf->store_disk_size;
        if (s.pool == 0 && !a->remove) {
                (void)fputs("ballast-store: PoolSize= is 0: there is to be no store\n", stderr);
                unload(&s);
                return -EINVAL;
        }
        *ret = s;
        return 0;
}

/* Beside this program, as it is built; in the lib beside its sbin, wherever it was installed; where that was to be. */
static int find_plugin(const char *given, char **ret)
{
        char self[4096], *path;
        ssize_t n;

        if (given) {
                path = strdup(given);
        } else {
                const char *dir;

                n = readlink("/proc/self/exe", self, sizeof(self) - 1);
                self[n > 0 ? n : 0] = '\0';
                dir = dirname(self);
                if (asprintf(&path, "%s/" PLUGIN, dir) < 0)
                        return -ENOMEM;
                if (access(path, R_OK) < 0) {
                        free(path);
                        if (asprintf(&path, "%s/../lib/ballast/" PLUGIN, dir) < 0)
                                return -ENOMEM;
                }
                if (access(path, R_OK) < 0) {
                        free(path);
                        path = strdup(BALLAST_LIBDIR "/" PLUGIN);
                }
        }
        if (!path)
                return -ENOMEM;
        *ret = path;
        return 0;
}

static bool parse_size(const char *option, const char *value, uint64_t *ret)
{
        if (bl_size_parse(value, ret) >= 0)
                return true;
        (void)fprintf(stderr, "ballast-store: --%s %s is not a size\n", option, value);
        return false;
}

static bool parse_threads(const char *value, unsigned *ret)
{
        uint64_t n;

        if (bl_uint_parse(value, &n) < 0 || n < 2 || n > THREADS_MAX) {
                (void)fprintf(stderr, "ballast-store: --threads is from 2 to %u\n", THREADS_MAX);
                return false;
        }
        *ret = (unsigned)n;
        return true;
}

/* 1: go on; 0: done; -EINVAL: wrong usage, and said so. */
static int parse_args(int argc, char **argv, struct args *a)
{
        enum {
                OPT_CONFIG = 1,
                OPT_POOL_SIZE,
                OPT_POOL_READY,
                OPT_DISK,
                OPT_DISK_SIZE,
                OPT_SOCKET,
                OPT_CONTROL,
                OPT_DIR,
                OPT_ARENA,
                OPT_THREADS,
                OPT_PLUGIN,
                OPT_REMOVE,
                OPT_HELP,
                OPT_VERSION,
        };
        static const struct option longopts[] = {
                {"config", required_argument, NULL, OPT_CONFIG},
                {"pool-size", required_argument, NULL, OPT_POOL_SIZE},
                {"pool-ready", required_argument, NULL, OPT_POOL_READY},
                {"disk", required_argument, NULL, OPT_DISK},
                {"disk-size", required_argument, NULL, OPT_DISK_SIZE},
                {"socket", required_argument, NULL, OPT_SOCKET},
                {"control", required_argument, NULL, OPT_CONTROL},
                {"dir", required_argument, NULL, OPT_DIR},
                {"arena", required_argument, NULL, OPT_ARENA},
                {"threads", required_argument, NULL, OPT_THREADS},
                {"plugin", required_argument, NULL, OPT_PLUGIN},
                {"remove", no_argument, NULL, OPT_REMOVE},
                {"help", no_argument, NULL, OPT_HELP},
                {"version", no_argument, NULL, OPT_VERSION},
                {NULL},
        };
        bool right = true;
        int c;

        while (right && (c = getopt_long(argc, argv, "", longopts, NULL)) >= 0)
                switch (c) {
                case OPT_CONFIG:
                        a->config = optarg;
                        break;
                case OPT_POOL_SIZE:
                        a->has_pool = right = parse_size("pool-size", optarg, &a->set.pool);
                        break;
                case OPT_POOL_READY:
                        a->has_ready = right = parse_size("pool-ready", optarg, &a->set.ready);
                        break;
                case OPT_DISK:
                        a->set.disk = optarg;
                        break;
                case OPT_DISK_SIZE:
                        a->has_disk_size = right = parse_size("disk-size", optarg, &a->set.disk_size);
                        break;
                case OPT_SOCKET:
                        a->set.socket = optarg;
                        break;
                case OPT_CONTROL:
                        a->set.control = optarg;
                        break;
                case OPT_DIR:
                        a->set.dir = optarg;
                        break;
                case OPT_ARENA:
                        a->set.arena = optarg;
                        break;
                case OPT_THREADS:
                        right = parse_threads(optarg, &a->set.threads);
                        break;
                case OPT_PLUGIN:
                        a->set.plugin = optarg;
                        break;
                case OPT_REMOVE:
                        a->remove = true;
                        break;
                case OPT_HELP:
                        (void)fputs(help_text, stdout);
                        return 0;
                case OPT_VERSION:
                        (void)printf("ballast-store %s\n", BALLAST_VERSION);
                        return 0;
                default:
                        right = false;
                        break;
                }
        if (right && a->set.dir[0] != '/') {
                (void)fputs("ballast-store: --dir is an absolute path\n", stderr);
                right = false;
        }
        if (right && optind < argc) {
                (void)fputs("ballast-store: no arguments expected\n", stderr);
                right = false;
        }
        if (!right)
                (void)fputs("Try 'ballast-store --help'.\n", stderr);
        return right ? 1 : -EINVAL;
}

/* --- what it becomes ------------------------------------------------------------------- */

/* With systemd's sockets: nbdkit in our place, and whoever started us starts it again. */
static int become_store(struct args *a, int n)
{
        struct bl_store_settings s;
        int nbd = -1, control = -1, r;

        for (int fd = SD_LISTEN_FDS_START; fd < SD_LISTEN_FDS_START + n; fd++)
                if (sd_is_socket_unix(fd, SOCK_STREAM, 1, NULL, 0) > 0)
                        nbd = fd;
                else if (sd_is_socket_unix(fd, SOCK_SEQPACKET, 1, NULL, 0) > 0)
                        control = fd;
        if (nbd < 0 || control < 0) {
                (void)fputs("ballast-store: both sockets are needed, ballast-store.socket and "
                            "ballast-store-control.socket\n",
                            stderr);
                return EXIT_USAGE;
        }
        if (load(a, &s) < 0)
                return EXIT_USAGE;
        r = bl_store_exec(&s, nbd, control);
        (void)fprintf(stderr, "ballast-store: cannot start nbdkit: %s\n", strerror(-r));
        unload(&s);
        return EXIT_FAILURE;
}

static int remove_store(struct args *a)
{
        struct bl_store_settings s;
        int r;

        if (load(a, &s) < 0)
                return EXIT_USAGE;
        r = bl_holder_remove(&s);
        unload(&s);
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int run(struct args *a)
{
        const struct bl_holder_options o = {.load = load, .unload = unload, .userdata = a};
        int n, r;

        if (a->remove)
                return remove_store(a);
        n = sd_listen_fds(0);
        if (n > 0)
                return become_store(a, n);
        r = bl_holder_run(&o);
        return r == -EINVAL ? EXIT_USAGE : r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
        struct args a = {.set = {.dir = BL_STORE_DIR_DEFAULT, .threads = BL_STORE_THREADS_DEFAULT}};
        int r = parse_args(argc, argv, &a);

        if (r == 0)
                return fflush(stdout) != 0 ? EXIT_FAILURE : EXIT_SUCCESS;
        if (r < 0)
                return EXIT_USAGE;
        if (find_plugin(a.set.plugin, &a.plugin) < 0)
                return EXIT_FAILURE;
        r = run(&a);
        free(a.plugin);
        return r;
}
