/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A whole manager on a loop of its own, against libvirt's test driver: real
 * connection, domains, metadata and events.  It has no QEMU, and a
 * poll of it does not tell how large a balloon is: the tests say so (balloon_is).
 * The host is a fixture.
 */
#ifndef BALLAST_TEST_MANAGER_UTIL_H
#define BALLAST_TEST_MANAGER_UTIL_H

#include "tests/unit/test-host-util.h"

#include <errno.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <syslog.h>

#include "daemon/act/balloon.h"
#include "daemon/control.h"
#include "daemon/manager-private.h"
#include "daemon/util/clock.h"
#include "daemon/util/fs.h"
#include "tests/unit/test-loop.h"

struct fixture {
        char dir[64];
        char conf_file[128];
        sd_event *event;
        virConnectPtr other; /* keeps the driver's world alive, and is the administrator with virsh */
        struct bl_manager *m;
        virDomainPtr vms[3]; /* of vm_create */
        size_t n_vms;
        /* what `done` was called with */
        int answers, r;
        char message[256];
};

#define SPIN_UNTIL(f, cond) SPIN_UNTIL_WITHIN(f, 20 * BL_SEC, cond)

static inline void on_done(void *userdata, int r, const char *message)
{
        struct fixture *f = userdata;

        f->answers++;
        f->r = r;
        snprintf(f->message, sizeof(f->message), "%s", message ? message : "");
}

/* A changing call, and its one answer. */
#define ASK(f, call)                                         \
        do {                                                 \
                int _before = (f)->answers;                  \
                call;                                        \
                SPIN_UNTIL(f, (f)->answers > _before);       \
                assert_int_equal((f)->answers, _before + 1); \
        } while (0)

static inline void write_conf(const struct fixture *f, const char *uri, const char *more)
{
        FILE *file = fopen(f->conf_file, "we");

        assert_non_null(file);
        fprintf(file,
                "[daemon]\nlibvirt_uri=%s\nstate_dir=%s/state\nruntime_dir=%s/run\nlibvirt_run_dir=%s/qemu\n"
                "log_level=error\n[host]\npsi=no\nbudget=1G\nsample_min=50ms\n%s",
                uri, f->dir, f->dir, f->dir, more);
        assert_int_equal(fclose(file), 0);
}

static inline int try_start(struct fixture *f, struct bl_manager **ret)
{
        const struct bl_manager_options o = {.root = HOST_FIXTURE, .conf_file = f->conf_file};
        struct bl_conf_report rep = {0};
        struct bl_conf *conf = NULL;
        int r;

        assert_int_equal(bl_manager_load_conf(&o, &conf, &rep), 0);
        r = bl_manager_new(f->event, &o, conf, &rep, ret);
        bl_conf_report_clear(&rep);
        return r;
}

static inline void start(struct fixture *f)
{
        assert_int_equal(try_start(f, &f->m), 0);
}

static inline void stop(struct fixture *f)
{
        f->m = bl_manager_free(f->m);
}

static inline struct bl_guest *guest(const struct fixture *f, const char *name)
{
        return bl_manager_find_named(f->m, name);
}

static inline bool is_known(const struct fixture *f, const char *name)
{
        struct bl_guest *g = guest(f, name);

        return g && g->desc && !g->describing;
}

static inline void restart(struct fixture *f, const char *name)
{
        stop(f);
        start(f);
        SPIN_UNTIL(f, is_known(f, name));
}

/* A VM of 1 GiB with a balloon; the fixture frees it.  uuid NULL: any. */
static inline virDomainPtr vm_create_as(struct fixture *f, const char *name, const char *uuid, bool persistent)
{
        char xml[1024];
        virDomainPtr d;

        snprintf(xml, sizeof(xml),
                 "<domain type='test'><name>%s</name>%s%s%s<memory unit='MiB'>1024</memory>"
                 "<currentMemory unit='MiB'>1024</currentMemory><vcpu>1</vcpu><os><type>hvm</type></os>"
                 "<devices><memballoon model='virtio'/></devices></domain>",
                 name, uuid ? "<uuid>" : "", uuid ? uuid : "", uuid ? "</uuid>" : "");
        d = persistent ? virDomainDefineXML(f->other, xml) : virDomainCreateXML(f->other, xml, 0);
        assert_non_null(d);
        f->vms[f->n_vms++] = d;
        if (persistent)
                assert_int_equal(virDomainCreate(d), 0);
        return d;
}

static inline virDomainPtr vm_create(struct fixture *f, const char *name, bool persistent)
{
        return vm_create_as(f, name, NULL, persistent);
}

/* The balloon has this size, seen now or at another time. */
static inline void balloon_is_at(struct bl_guest *g, uint64_t actual, usec_t at)
{
        bl_poll_balloon_seen(g, actual, at);
}

static inline void balloon_is(struct bl_guest *g, uint64_t actual)
{
        balloon_is_at(g, actual, bl_now());
}

/* The n-th event of that reason, counted from the oldest; NULL. */
static inline const struct bl_history_event *event_of(const struct fixture *f, const char *reason, size_t n)
{
        for (size_t i = 0; i < bl_history_count(f->m->history); i++) {
                const struct bl_history_event *e = bl_history_get(f->m->history, i);

                if (strcmp(e->reason, reason) == 0 && n-- == 0)
                        return e;
        }
        return NULL;
}

static inline size_t events_of(const struct fixture *f, const char *reason)
{
        size_t n = 0;

        while (event_of(f, reason, n))
                n++;
        return n;
}

static inline const char *hold_of(const struct fixture *f, const char *name)
{
        const struct bl_ledger_vm *v = bl_ledger_find(f->m->ledger, guest(f, name)->uuid);

        return bl_hold_to_string(v ? v->hold : BL_HOLD_NONE);
}

static inline void silent(void *userdata, virErrorPtr error)
{
        (void)userdata;
        (void)error;
}

static inline int setup_dirs(void **state)
{
        struct fixture *f = calloc(1, sizeof(*f));
        char path[128];

        virSetErrorFunc(NULL, silent);
        bl_log_init(LOG_CRIT);
        snprintf(f->dir, sizeof(f->dir), "/tmp/ballast-test-manager-XXXXXX");
        if (!mkdtemp(f->dir))
                return -1;
        snprintf(path, sizeof(path), "%s/qemu", f->dir);
        if (mkdir(path, 0700) < 0)
                return -1;
        snprintf(f->conf_file, sizeof(f->conf_file), "%s/ballast.conf", f->dir);
        write_conf(f, "test:///default", "");
        if (sd_event_new(&f->event) < 0)
                return -1;
        *state = f;
        return 0;
}

static inline int setup_started(void **state)
{
        struct fixture *f;

        if (setup_dirs(state) < 0)
                return -1;
        f = *state;
        start(f);
        /* not before: libvirt's threads need the event bridge to be there */
        f->other = virConnectOpen("test:///default");
        if (!f->other)
                return -1;
        SPIN_UNTIL(f, is_known(f, "test"));
        return 0;
}

static inline int teardown(void **state)
{
        struct fixture *f = *state;

        stop(f);
        while (f->n_vms > 0)
                virDomainFree(f->vms[--f->n_vms]);
        if (f->other)
                virConnectClose(f->other);
        sd_event_unref(f->event);
        (void)nftw(f->dir, test_remove_one, 16, FTW_DEPTH | FTW_PHYS);
        free(f);
        return 0;
}

#endif
