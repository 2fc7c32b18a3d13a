/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The D-Bus face of the daemon: name org.ballast1, object /org/ballast1,
 * interface org.ballast1.Manager (org.ballast1(5) describes it).
 *
 * It is served in two places at once:
 *   - on the system bus, if there is one.  A bus that is missing, comes later
 *     or restarts is no error: the name is taken when the bus is there;
 *   - always on a private Unix stream socket that needs no broker, where every
 *     connection is a D-Bus connection of its own.
 *
 * Who may do what: root may do everything, members of the reader's group
 * (primary or supplementary) may read, everybody else is refused.  The kernel
 * (SO_PEERCRED, SO_PEERGROUPS) or the broker (GetConnectionCredentials) says
 * who is asking.
 *
 * Nothing here blocks the loop: calls that ask libvirt are answered when the
 * manager calls `done`, and credentials on the system bus are asked for
 * asynchronously.
 */
#ifndef BALLAST_BUS_BUS_H
#define BALLAST_BUS_BUS_H

#include <sys/types.h>
#include <systemd/sd-event.h>

#include "daemon/control.h"

#define BL_BUS_NAME      "org.ballast1"
#define BL_BUS_PATH      "/org/ballast1"
#define BL_BUS_INTERFACE "org.ballast1.Manager"

/* The group that may read, where it exists. */
#define BL_BUS_GROUP "ballast"

#define BL_BUS_NO_GROUP ((gid_t)-1)

/* Connections to the private socket: in all, of others than root, and of one
 * user other than root; so that root is never locked out. */
#define BL_BUS_MAX_CLIENTS  64U
#define BL_BUS_MAX_READERS  48U
#define BL_BUS_MAX_PER_USER 16U

struct bl_bus;

/* The calls of daemon/control.h as a table, so that a test can put a fake
 * manager behind the bus. */
struct bl_control_ops {
        int (*status)(struct bl_manager *m, json_t **ret);
        int (*list)(struct bl_manager *m, json_t **ret);
        int (*show)(struct bl_manager *m, const char *vm, json_t **ret);
        int (*tiers)(struct bl_manager *m, json_t **ret);
        int (*sharing)(struct bl_manager *m, json_t **ret);
        int (*plan)(struct bl_manager *m, json_t **ret);
        int (*explain)(struct bl_manager *m, const char *vm, json_t **ret);
        int (*config)(struct bl_manager *m, json_t **ret);
        int (*metrics)(struct bl_manager *m, char **ret);
        void (*set_vm)(struct bl_manager *m, const char *vm, const struct bl_vm_settings *s, bool live, bool persistent,
                       bl_done_fn done, void *userdata);
        void (*balloon)(struct bl_manager *m, const char *vm, uint64_t bytes, bool take, bl_done_fn done,
                        void *userdata);
        void (*hold)(struct bl_manager *m, const char *vm, bool hold, bl_done_fn done, void *userdata);
        void (*drain)(struct bl_manager *m, const char *vm, bool undo, bl_done_fn done, void *userdata);
        void (*ask)(struct bl_manager *m, const char *vm, const char *what, uint64_t bytes, bl_done_fn done,
                    void *userdata);
        void (*resume_sharing)(struct bl_manager *m, bl_done_fn done, void *userdata);
        void (*act)(struct bl_manager *m, bool on, bl_done_fn done, void *userdata);
        void (*rollback)(struct bl_manager *m, bl_done_fn done, void *userdata);
        int (*reload)(struct bl_manager *m, char **ret_message);
};

/* Something that an administrator should know about the bus, survivable:
 * `r` is a negative errno, or 0 for good news; `sentence` has no newline. */
typedef void (*bl_bus_note_fn)(void *userdata, int r, const char *sentence);

struct bl_bus_options {
        const char *socket_path; /* private socket; its directory must exist */
        bool system_bus; /* also serve on the system bus */
        gid_t group; /* who may read; BL_BUS_NO_GROUP: only root */
        mode_t mode; /* of the private socket; 0: 0660 with a group, 0600 without */
        const struct bl_control_ops *ops;
        bl_bus_note_fn note; /* may be NULL */
        void *note_userdata;
};

/*
 * Starts serving, with the calls of daemon/control.h behind it, group
 * BL_BUS_GROUP where it exists, and notes going to the log.
 *
 * -EADDRINUSE: another daemon lives behind the private socket; it is left
 * alone.  A socket left by a killed daemon is replaced.  -EEXIST: something
 * that is no socket is at that path.  -ENAMETOOLONG, -ENOENT, -EACCES and
 * others from making it.  A missing system bus is never an error.
 */
int bl_bus_new(sd_event *event, struct bl_manager *m, const char *private_socket_path, bool try_system_bus,
               struct bl_bus **ret);

/* The same with everything chosen by the caller. */
int bl_bus_new_with(sd_event *event, struct bl_manager *m, const struct bl_bus_options *options, struct bl_bus **ret);

/* Takes the socket file away, closes all connections.  Calls that the manager
 * has not answered yet may still be answered: `done` then does nothing.
 * NULL-safe; returns NULL. */
struct bl_bus *bl_bus_free(struct bl_bus *b);

/* The host state changed: signal HostStateChanged(from, to), and
 * PropertiesChanged of HostState.  NULL-safe on `b`. */
void bl_bus_state_changed(struct bl_bus *b, const char *from, const char *to);

/* Acting or Held may have changed other than by a call on the bus (a reload by
 * SIGHUP): emits PropertiesChanged for what did.  NULL-safe on `b`. */
void bl_bus_refresh(struct bl_bus *b);

#endif
