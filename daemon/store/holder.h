/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who has the store's listening sockets and starts nbdkit with them.
 *
 * The sockets outlive the store: whoever connects while it is away waits in their
 * queue, and QEMU, whose connection broke, is served again as soon as the next
 * store is there, and not when it tries again.
 *
 * With systemd the .socket units have them.  Without, a process of ours does.
 */
#ifndef BALLAST_STORE_HOLDER_H
#define BALLAST_STORE_HOLDER_H

#include <stdint.h>

#define BL_STORE_DIR_DEFAULT     "/run/ballast-store"
#define BL_STORE_THREADS_DEFAULT 3U

struct bl_conf;

struct bl_store_settings {
        const char *dir; /* runtime directory: locks, what is known of the pool */
        const char *socket, *control;
        const char *plugin; /* for nbdkit */
        const char *disk; /* "": none */
        const char *arena; /* as the plugin knows it; NULL: it chooses */
        uint64_t pool, disk_size, ready; /* bytes */
        unsigned threads; /* of each connection, 2 or more */
        struct bl_conf *conf; /* whose some of the strings are; NULL: nobody's */
};

/* Becomes nbdkit over these two descriptors.  Returns only when it cannot: negative errno. */
int bl_store_exec(const struct bl_store_settings *s, int nbd_fd, int control_fd);

struct bl_holder_options {
        /* What it is to be, at the start and at SIGHUP; says itself what is wrong. */
        int (*load)(void *userdata, struct bl_store_settings *ret);
        void (*unload)(struct bl_store_settings *s);
        void *userdata;
};

/*
 * Holds the sockets and starts a store whenever there is none, until SIGTERM or
 * SIGINT; SIGHUP starts one with new settings.  0: it was told to end; -EBUSY: somebody
 * else does this here; others.  Says what is wrong on standard error.
 */
int bl_holder_run(const struct bl_holder_options *o);

/* Removes pool and sockets: off for good.  -EBUSY: a store runs.  Says so. */
int bl_holder_remove(const struct bl_store_settings *s);

#endif
