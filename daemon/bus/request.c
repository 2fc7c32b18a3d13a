/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One call, from its arrival to its answer: who is asking, may they, ask the
 * manager, answer when it is done.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <ballast/cleanup.h>

#include "daemon/bus/errors.h"
#include "daemon/bus/internal.h"
#include "daemon/bus/methods.h"

/* More groups than anybody is in; the rest is not looked at. */
#define GROUPS_LOOKED_AT 1024U

struct bl_request {
        struct bl_bus *bus; /* NULL: it is gone, and with it the need for an answer */
        sd_bus_message *call;
        const struct bl_method *method;
        sd_bus_slot *slot; /* the broker is being asked who the caller is */
        struct bl_request *next, *prev;
};

static struct bl_request *request_free(struct bl_request *q)
{
        if (!q)
                return NULL;
        if (q->bus) {
                if (q->prev)
                        q->prev->next = q->next;
                else
                        q->bus->requests = q->next;
                if (q->next)
                        q->next->prev = q->prev;
                q->bus->n_requests--;
        }
        sd_bus_slot_unref(q->slot);
        sd_bus_message_unref(q->call);
        free(q);
        return NULL;
}

static int request_new(struct bl_bus *b, sd_bus_message *m, const struct bl_method *method, struct bl_request **ret)
{
        struct bl_request *q;

        if (b->n_requests >= BL_BUS_REQUESTS_MAX)
                return -EBUSY;
        q = calloc(1, sizeof(*q));
        if (!q)
                return -ENOMEM;
        q->bus = b;
        q->call = sd_bus_message_ref(m);
        q->method = method;
        q->next = b->requests;
        if (q->next)
                q->next->prev = q;
        b->requests = q;
        b->n_requests++;
        *ret = q;
        return 0;
}

void bl_request_abandon_all(struct bl_bus *b)
{
        struct bl_request *q, *next;

        for (q = b->requests; q; q = next) {
                next = q->next;
                if (q->slot) { /* not with the manager yet */
                        (void)request_free(q);
                        continue;
                }
                q->bus = NULL;
                q->next = q->prev = NULL;
        }
        b->requests = NULL;
        b->n_requests = 0;
}

/* Sentences come from guests' names and from libvirt; D-Bus wants UTF-8, and
 * refuses the message otherwise. */
static void reply_error(sd_bus_message *call, int r, const char *sentence)
{
        if (!sentence || !*sentence)
                sentence = bl_bus_error_sentence(r);
        if (sd_bus_reply_method_errorf(call, bl_bus_error_name(r), "%s", sentence) == -EINVAL)
                (void)sd_bus_reply_method_errorf(call, bl_bus_error_name(r), "%s", bl_bus_error_sentence(r));
}

static void reply_text(sd_bus_message *call, const char *text)
{
        if (sd_bus_reply_method_return(call, "s", text) == -EINVAL)
                reply_error(call, -EBADMSG, NULL);
}

static void on_done(void *userdata, int r, const char *message)
{
        struct bl_request *q = userdata;
        struct bl_bus *b = q->bus;

        if (b) {
                if (r < 0)
                        reply_error(q->call, r, message);
                else
                        reply_text(q->call, message ? message : "");
                bl_property_refresh(b);
        }
        (void)request_free(q);
}

static void run_read(struct bl_bus *b, sd_bus_message *call, const struct bl_method *method)
{
        _cleanup_free_ char *text = NULL, *error = NULL;
        int r;

        r = method->read(b, call, &text, &error);
        if (r < 0)
                reply_error(call, r, error);
        else
                reply_text(call, text);
}

/* Takes the request over. */
static void run(struct bl_request *q)
{
        _cleanup_free_ char *error = NULL;
        int r;

        if (q->method->read) {
                run_read(q->bus, q->call, q->method);
                (void)request_free(q);
                return;
        }
        r = q->method->change(q->bus, q->call, on_done, q, &error);
        if (r < 0) {
                reply_error(q->call, r, error);
                (void)request_free(q);
        }
}

static int check(enum bl_access access, const struct bl_method *method, const char **ret_sentence)
{
        enum bl_access need = method->change ? BL_ACCESS_CHANGE : BL_ACCESS_READ;

        if (access >= need)
                return 0;
        *ret_sentence = need == BL_ACCESS_CHANGE ? "only root may change anything; try with sudo" : BL_BUS_MAY_NOT_READ;
        return -EPERM;
}

/* ---- the broker says who it is ---- */

/* a{sv} with UnixUserID u and, where the broker knows, UnixGroupIDs au. */
static int read_credentials(sd_bus_message *m, gid_t group, enum bl_access *ret)
{
        uid_t uid = (uid_t)-1;
        const void *groups = NULL;
        size_t size = 0;
        int r;

        r = sd_bus_message_enter_container(m, 'a', "{sv}");
        if (r < 0)
                return r;
        while ((r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
                const char *key = NULL;

                r = sd_bus_message_read_basic(m, 's', &key);
                if (r < 0)
                        return r;
                if (strcmp(key, "UnixUserID") == 0)
                        r = sd_bus_message_read(m, "v", "u", &uid);
                else if (strcmp(key, "UnixGroupIDs") == 0) {
                        r = sd_bus_message_enter_container(m, 'v', "au");
                        if (r >= 0)
                                r = sd_bus_message_read_array(m, 'u', &groups, &size);
                        if (r >= 0)
                                r = sd_bus_message_exit_container(m);
                } else
                        r = sd_bus_message_skip(m, "v");
                if (r < 0)
                        return r;
                r = sd_bus_message_exit_container(m);
                if (r < 0)
                        return r;
        }
        if (r < 0)
                return r;
        if (uid == (uid_t)-1)
                return -ENODATA;
        size /= sizeof(gid_t);
        *ret = bl_access_for(uid, groups, bl_min(size, GROUPS_LOOKED_AT), group);
        return 0;
}

static int on_credentials(sd_bus_message *m, void *userdata, sd_bus_error *e)
{
        struct bl_request *q = userdata;
        enum bl_access access = BL_ACCESS_NONE;
        const char *sentence = NULL;
        int r;

        (void)e;
        q->slot = sd_bus_slot_unref(q->slot);
        if (sd_bus_message_is_method_error(m, NULL))
                r = -EPERM; /* the caller has left, mostly */
        else
                r = read_credentials(m, q->bus->group, &access);
        if (r >= 0)
                r = check(access, q->method, &sentence);
        if (r < 0) {
                reply_error(q->call, r, sentence);
                (void)request_free(q);
        } else
                run(q);
        return 0;
}

static int ask_broker(struct bl_request *q, sd_bus *conn)
{
        const char *sender = sd_bus_message_get_sender(q->call);

        if (!sender)
                return -EPERM;
        return sd_bus_call_method_async(conn, &q->slot, "org.freedesktop.DBus", "/org/freedesktop/DBus",
                                        "org.freedesktop.DBus", "GetConnectionCredentials", on_credentials, q, "s",
                                        sender);
}

/* ---- arrival ---- */

int bl_request_handle(sd_bus_message *m, void *userdata, sd_bus_error *e)
{
        struct bl_link *l = userdata;
        const struct bl_method *method = bl_method_find(sd_bus_message_get_member(m));
        struct bl_bus *b = l->bus;
        const char *sentence = NULL;
        struct bl_request *q = NULL;
        int r = 0;

        (void)e;
        if (!method)
                return 0; /* sd-bus says that there is none */
        if (l->known) {
                if (bl_bus_reader_is_slow(l->conn)) {
                        bl_private_drop((struct bl_client *)l);
                        return 1;
                }
                r = check(l->access, method, &sentence);
        }
        if (r >= 0)
                r = request_new(b, m, method, &q);
        if (r >= 0 && !l->known)
                r = ask_broker(q, l->conn);
        if (r < 0) {
                reply_error(m, r, sentence);
                (void)request_free(q);
        } else if (l->known)
                run(q);
        return 1;
}
