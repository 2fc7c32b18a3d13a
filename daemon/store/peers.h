/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who may connect at all: the processes that are registered, and only a few times
 * each.  The socket is open to every local user, so who is not among them must
 * cost little; and a VMM gone bad must not use up what others need.  Which export
 * it gets is for bl_export_open to decide.  Thread-safe.
 */
#ifndef BALLAST_STORE_PEERS_H
#define BALLAST_STORE_PEERS_H

#include <pthread.h>
#include <stdint.h>
#include <sys/types.h>

#include <ballast/cleanup.h>

struct bl_store;
struct bl_peers;

/* Connections at a time of one process: the one that serves, and those that come while it ends. */
#define BL_PEER_CONNECTIONS 8U

int bl_peers_new(struct bl_peers **ret);
struct bl_peers *bl_peers_free(struct bl_peers *p);
BL_DEFINE_CLEANUP(struct bl_peers *, bl_peers_free)

/* Takes over who is registered now.  -ENOMEM: nothing has changed. */
int bl_peers_refresh(struct bl_peers *p, struct bl_store *s);

/* When a process started: /proc/PID/stat field 22.  -ESRCH. */
int bl_peer_start(pid_t pid, uint64_t *ret);

/* The calling thread serves a connection of `pid` until it ends.  -EPERM: it is not registered, or its
 * number is another process's now; -EAGAIN: it has too many; -ENOMEM. */
int bl_peers_admit(struct bl_peers *p, pid_t pid);

#endif
