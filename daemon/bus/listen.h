/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The private listening socket.
 *
 * A path left behind by a killed daemon is replaced; one with a living daemon
 * behind it is not.  Two daemons that start at once are told apart by a lock
 * on "PATH.lock", which the kernel drops when its holder dies.  The socket is
 * made under another name and moved into place with its owner and mode set,
 * so that it is never there with the wrong ones.
 */
#ifndef BALLAST_BUS_LISTEN_H
#define BALLAST_BUS_LISTEN_H

#include <stdbool.h>
#include <sys/types.h>

#include <ballast/cleanup.h>

struct bl_listener;

/* `group` BL_BUS_NO_GROUP: the group is left as it is.  Where the kernel does
 * not let us give the socket to the group (no CAP_CHOWN), it is for its owner
 * only.  The socket is non-blocking.  Errors as bl_bus_new() has them. */
int bl_listener_new(const char *path, gid_t group, mode_t mode, struct bl_listener **ret);

/* Closes it and takes its file away, if that is still ours.  NULL-safe;
 * returns NULL. */
struct bl_listener *bl_listener_free(struct bl_listener *l);
BL_DEFINE_CLEANUP(struct bl_listener *, bl_listener_free)

/* The group has it, if there was to be one. */
bool bl_listener_has_group(const struct bl_listener *l);

int bl_listener_fd(const struct bl_listener *l);

#endif
