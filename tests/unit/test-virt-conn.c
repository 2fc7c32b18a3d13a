/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The connection, the questions and the engine against libvirt's own test
 * driver: it has memory statistics, setmem, metadata and their events.  It has
 * no balloon device, no balloon event and no QEMU process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <libvirt/libvirt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/act/balloon.h"
#include "daemon/fault.h"
#include "daemon/sense/balloon_watch.h"
#include "daemon/virt/domain.h"
#include "daemon/virt/event_bridge.h"
#include "tests/unit/test-loop.h"

struct fixture {
        sd_event *event;
        struct bl_event_bridge *bridge;
        struct bl_pool *pool;
        struct bl_conn *conn;
        int connects, losses;
        char message[256];
        int events[_BL_VIRT_EVENT_MAX];

        /* answers */
        int answers, r;
        uint8_t uuid[BL_UUID_LEN];
        size_t n;
        struct bl_domain_desc *desc;
        struct bl_domain_state s;
        struct bl_balloon_answer a;

        /* the engine's */
        int commands, results, ledger_errors;
        struct bl_balloon_result result;
};

static void on_state(void *userdata, bool connected, const char *message)
{
        struct fixture *f = userdata;

        f->connects += connected;
        f->losses += !connected;
        snprintf(f->message, sizeof(f->message), "%s", message ? message : "");
}

static void on_event(void *userdata, const struct bl_virt_event *ev)
{
        struct fixture *f = userdata;

        f->events[ev->kind]++;
}

#define SPIN_UNTIL(f, cond) SPIN_UNTIL_WITHIN(f, 10 * BL_SEC, cond)

static struct fixture *start(const char *uri)
{
        struct fixture *f = calloc(1, sizeof(*f));
        const struct bl_conn_options o = {.uri = uri,
                                          .retry_first = 20 * BL_MSEC,
                                          .retry_max = 50 * BL_MSEC,
                                          .handler = {.state = on_state, .event = on_event},
                                          .userdata = f};

        assert_int_equal(sd_event_new(&f->event), 0);
        assert_int_equal(bl_event_bridge_new(f->event, &f->bridge), 0);
        assert_int_equal(bl_pool_new(f->event, NULL, &f->pool), 0);
        assert_int_equal(bl_conn_new(f->event, f->pool, &o, &f->conn), 0);
        assert_int_equal(bl_conn_start(f->conn), 0);
        return f;
}

static int setup(void **state)
{
        struct fixture *f = start("test:///default");

        SPIN_UNTIL(f, f->connects == 1);
        assert_true(bl_conn_connected(f->conn));
        *state = f;
        return 0;
}

static int teardown(void **state)
{
        struct fixture *f = *state;

        (void)bl_domain_desc_free(f->desc);
        bl_conn_stop(f->conn);
        assert_int_equal(bl_pool_stop(f->pool, 2 * BL_SEC), 0);
        assert_int_equal(bl_conn_links(f->conn), 0);
        f->conn = bl_conn_free(f->conn);
        f->pool = bl_pool_free(f->pool);
        f->bridge = bl_event_bridge_free(f->bridge);
        sd_event_unref(f->event);
        free(f);
        return 0;
}

static void on_list(void *userdata, int r, const char *message, const struct bl_domain_ref *refs, size_t n)
{
        struct fixture *f = userdata;

        (void)message;
        f->answers++;
        f->r = r;
        f->n = n;
        if (n > 0) {
                assert_string_equal(refs[0].name, "test");
                memcpy(f->uuid, refs[0].uuid, BL_UUID_LEN);
        }
}

static void on_desc(void *userdata, int r, const char *message, struct bl_domain_desc *d)
{
        struct fixture *f = userdata;

        snprintf(f->message, sizeof(f->message), "%s", message ? message : "");
        f->answers++;
        f->r = r;
        (void)bl_domain_desc_free(f->desc);
        f->desc = d;
}

static void on_sense(void *userdata, int r, const char *message, const struct bl_domain_state *s)
{
        struct fixture *f = userdata;

        (void)message;
        f->answers++;
        f->r = r;
        if (s)
                f->s = *s;
}

static void on_done(void *userdata, int r, const char *message)
{
        struct fixture *f = userdata;

        snprintf(f->message, sizeof(f->message), "%s", message ? message : "");
        f->answers++;
        f->r = r;
}

static void on_balloon(void *userdata, int r, const char *message, const struct bl_balloon_answer *a)
{
        struct fixture *f = userdata;

        f->a = *a;
        on_done(userdata, r, message);
}

/* Asks, and waits for the answer. */
#define ASK(f, call)                                        \
        do {                                                \
                int _before = (f)->answers;                 \
                assert_int_equal(call, 0);                  \
                SPIN_UNTIL(f, (f)->answers == _before + 1); \
        } while (0)

static void list(struct fixture *f)
{
        ASK(f, bl_domain_list(f->conn, on_list, f));
        assert_int_equal(f->r, 0);
        assert_int_equal(f->n, 1);
}

static void test_list_and_describe(void **state)
{
        struct fixture *f = *state;
        static const uint8_t nobody[BL_UUID_LEN] = {1, 2, 3};

        list(f);
        ASK(f, bl_domain_describe(f->conn, f->uuid, "/nonexistent", on_desc, f));
        assert_int_equal(f->r, 0);
        assert_string_equal(f->desc->live.name, "test");
        assert_int_equal(f->desc->live.memory, 8 * BL_GIB);
        assert_int_equal(f->desc->live.current, 2 * BL_GIB);
        assert_true(f->desc->persistent);
        assert_string_equal(f->desc->config.name, "test");
        assert_false(f->desc->has_instance);
        assert_int_equal(f->desc->instance_error, -ENOENT);

        ASK(f, bl_domain_describe(f->conn, nobody, NULL, on_desc, f));
        assert_int_equal(f->r, -ENOENT);
        assert_true(strlen(f->message) > 0);
        assert_null(f->desc);
}

static void test_sense(void **state)
{
        struct fixture *f = *state;

        list(f);
        ASK(f, bl_domain_sense(f->conn, f->uuid, NULL, false, on_sense, f));
        if (f->r == -EOPNOTSUPP)
                skip(); /* libvirt before the test driver had statistics */
        assert_int_equal(f->r, 0);
        assert_int_equal(f->s.run, BL_RUN_RUNNING);
}

/* A process that is stopped is not asked at all. */
static void test_stopped_process(void **state)
{
        struct fixture *f = *state;
        struct bl_instance i = {.pid = fork()};
        char path[64], buf[512], *p;
        FILE *file;

        if (i.pid == 0) {
                pause();
                _exit(0);
        }
        snprintf(path, sizeof(path), "/proc/%d/stat", i.pid);
        file = fopen(path, "re");
        assert_non_null(fgets(buf, sizeof(buf), file));
        fclose(file);
        p = strrchr(buf, ')') + 2;
        for (int n = 3; n < 22; n++)
                p = strchr(p, ' ') + 1;
        i.start = strtoull(p, NULL, 10);

        list(f);
        kill(i.pid, SIGSTOP);
        usleep(50000);
        ASK(f, bl_domain_sense(f->conn, f->uuid, &i, true, on_sense, f));
        assert_int_equal(f->r, -EHOSTDOWN);
        kill(i.pid, SIGKILL);
}

static void test_metadata(void **state)
{
        struct fixture *f = *state;
        struct bl_vm_metadata m = {
                .reservation = 512 * BL_MIB, .limit = BL_UNSET, .shares_kind = BL_SHARES_KIND_HIGH, .manage = -1};

        list(f);
        ASK(f, bl_domain_set_metadata(f->conn, f->uuid, &m, true, true, on_done, f));
        assert_int_equal(f->r, 0);
        SPIN_UNTIL(f, f->events[BL_VIRT_METADATA] >= 2);
        /* the fields that are not given stay */
        m = (struct bl_vm_metadata){.reservation = BL_UNSET, .limit = BL_GIB, .manage = 0};
        ASK(f, bl_domain_set_metadata(f->conn, f->uuid, &m, true, false, on_done, f));
        assert_int_equal(f->r, 0);
        ASK(f, bl_domain_describe(f->conn, f->uuid, NULL, on_desc, f));
        assert_true(f->desc->live.has_metadata && f->desc->config.has_metadata);
        assert_int_equal(f->desc->live.metadata.reservation, 512 * BL_MIB);
        assert_int_equal(f->desc->live.metadata.limit, BL_GIB);
        assert_int_equal(f->desc->live.metadata.shares_kind, BL_SHARES_KIND_HIGH);
        assert_int_equal(f->desc->live.metadata.manage, 0);
        assert_int_equal(f->desc->config.metadata.limit, BL_UNSET);
        /* together they would make no sense */
        m = (struct bl_vm_metadata){.reservation = 2 * BL_GIB, .limit = BL_UNSET, .manage = -1};
        ASK(f, bl_domain_set_metadata(f->conn, f->uuid, &m, true, false, on_done, f));
        assert_int_equal(f->r, -EINVAL);
        assert_non_null(strstr(f->message, "limit"));
}

static void test_balloon(void **state)
{
        struct fixture *f = *state;
        struct bl_balloon_request q = {.from = 2 * BL_GIB, .to = BL_GIB, .available = BL_UNSET, .force = true};

        list(f);
        memcpy(q.uuid, f->uuid, BL_UUID_LEN);
        ASK(f, bl_domain_set_balloon(f->conn, &q, on_balloon, f));
        if (f->r == -EOPNOTSUPP)
                skip();
        assert_int_equal(f->r, 0);
        assert_int_equal(f->a.look, BL_LOOK_OK);
        assert_false(f->a.unknown);
        ASK(f, bl_domain_describe(f->conn, f->uuid, NULL, on_desc, f));
        assert_int_equal(f->desc->live.current, BL_GIB);
        /* back, for the tests that follow: the driver's state outlives us */
        q.to = 2 * BL_GIB;
        ASK(f, bl_domain_set_balloon(f->conn, &q, on_balloon, f));
        assert_int_equal(f->r, 0);
        /* more than there is: libvirt says so */
        q.to = 64 * BL_GIB;
        ASK(f, bl_domain_set_balloon(f->conn, &q, on_balloon, f));
        assert_true(f->r < 0);
        assert_true(strlen(f->message) > 0);
        assert_int_equal(f->a.look, BL_LOOK_OK);
}

static void test_lifecycle(void **state)
{
        struct fixture *f = *state;
        struct bl_balloon_request q = {.from = 2 * BL_GIB, .to = BL_GIB, .available = BL_UNSET, .force = true};
        virConnectPtr other = virConnectOpen("test:///default");
        virDomainPtr dom = virDomainLookupByName(other, "test");

        list(f);
        memcpy(q.uuid, f->uuid, BL_UUID_LEN);
        assert_int_equal(virDomainSuspend(dom), 0);
        SPIN_UNTIL(f, f->events[BL_VIRT_SUSPENDED] == 1);
        ASK(f, bl_domain_set_balloon(f->conn, &q, on_balloon, f));
        if (f->r != -EOPNOTSUPP) {
                assert_int_equal(f->r, -ESTALE);
                assert_int_equal(f->a.look, BL_LOOK_NOT_RUNNING);
                assert_true(strlen(f->message) > 0);
        }
        assert_int_equal(virDomainResume(dom), 0);
        SPIN_UNTIL(f, f->events[BL_VIRT_RESUMED] == 1);
        assert_int_equal(virDomainDestroy(dom), 0);
        SPIN_UNTIL(f, f->events[BL_VIRT_STOPPED] == 1);
        ASK(f, bl_domain_describe(f->conn, f->uuid, NULL, on_desc, f));
        assert_int_equal(f->r, -ENOENT);
        assert_int_equal(virDomainCreate(dom), 0);
        SPIN_UNTIL(f, f->events[BL_VIRT_STARTED] == 1);
        ASK(f, bl_domain_describe(f->conn, f->uuid, NULL, on_desc, f));
        assert_int_equal(f->r, 0);
        virDomainFree(dom);
        virConnectClose(other);
}

/* --- several connections ------------------------------------------------------------- */

struct hold {
        struct fixture *f;
        uint8_t key[BL_UUID_LEN];
        int *stop; /* under the pool's eyes only: set by the loop, read by workers */
        int r;
};

static void hold_run(void *arg)
{
        struct hold *h = arg;
        struct bl_conn_lease *l = NULL;
        char *message = NULL;

        h->r = bl_conn_acquire(h->f->conn, &l, &message);
        free(message);
        if (h->r < 0)
                return;
        assert_non_null(bl_conn_lease_get(l));
        while (!__atomic_load_n(h->stop, __ATOMIC_RELAXED))
                usleep(1000);
        bl_conn_release(l);
}

static void hold_done(void *arg, int r)
{
        struct hold *h = arg;

        h->f->answers++;
        h->f->r |= r | h->r;
        free(h);
}

static void test_links(void **state)
{
        struct fixture *f = *state;
        int stop = 0;

        f->answers = f->r = 0;
        for (int i = 0; i < 10; i++) {
                struct hold *h = calloc(1, sizeof(*h));

                *h = (struct hold){.f = f, .key = {9, (uint8_t)i}, .stop = &stop};
                assert_int_equal(bl_pool_submit(f->pool, h->key, hold_run, hold_done, h), 0);
        }
        /* each has its own */
        SPIN_UNTIL(f, bl_conn_links(f->conn) == 10);
        list(f);
        assert_int_equal(bl_conn_links(f->conn), 11);
        __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
        SPIN_UNTIL(f, f->answers == 11);
        assert_int_equal(f->r, 0);
        /* and they are used again */
        list(f);
        assert_int_equal(bl_conn_links(f->conn), 11);
}

static void test_never_connects(void **state)
{
        struct fixture *f = start("qemu+unix:///system?socket=/nonexistent/libvirt-sock");

        SPIN_UNTIL(f, f->losses == 1);
        assert_non_null(strstr(f->message, "/nonexistent/libvirt-sock"));
        assert_false(bl_conn_connected(f->conn));
        /* it tries again and again, and says the same only once */
        SPIN(f, 200 * BL_MSEC);
        assert_int_equal(f->losses, 1);
        ASK(f, bl_domain_list(f->conn, on_list, f));
        assert_int_equal(f->r, -ENOTCONN);
        *state = f;
        teardown(state);
}

static void test_needs_bridge(void **state)
{
        const struct bl_conn_options o = {.uri = "test:///default"};
        struct bl_conn *c = NULL;
        struct bl_pool *p = NULL;
        sd_event *e = NULL;

        (void)state;
        assert_int_equal(sd_event_new(&e), 0);
        assert_int_equal(bl_pool_new(e, NULL, &p), 0);
        assert_int_equal(bl_conn_new(e, p, &o, &c), -ENOTCONN);
        assert_null(c);
        p = bl_pool_free(p);
        sd_event_unref(e);
}

/* --- the engine ------------------------------------------------------------------------ */

static void on_command(void *userdata, const uint8_t uuid[BL_UUID_LEN], uint64_t from, uint64_t to)
{
        struct fixture *f = userdata;

        (void)uuid;
        (void)from;
        (void)to;
        f->commands++;
}

static void on_result(void *userdata, const struct bl_balloon_result *r)
{
        struct fixture *f = userdata;

        f->results++;
        f->result = *r;
        snprintf(f->message, sizeof(f->message), "%s", r->message ? r->message : "");
}

static void on_ledger_error(void *userdata, int r)
{
        struct fixture *f = userdata;

        (void)r;
        f->ledger_errors++;
}

static void test_engine(void **state)
{
        struct fixture *f = *state;
        const struct bl_balloon_options o = {
                .handler = {.on_command = on_command, .on_result = on_result, .on_ledger_error = on_ledger_error},
                .userdata = f};
        struct bl_decision d = {
                .engine = BL_ENGINE_BALLOON, .act = true, .from = 2 * BL_GIB, .to = 1536 * BL_MIB + 320 * BL_KIB};
        struct bl_vm vm = {.name = "test",
                           .max = 8 * BL_GIB,
                           .limit = 4 * BL_GIB,
                           .reservation = 256 * BL_MIB,
                           .actual = 2 * BL_GIB};
        char dir[] = "/tmp/ballast-test-engine-XXXXXX", path[128], *message = NULL;
        const struct bl_ledger_vm *lv;
        struct bl_ledger *l = NULL;
        struct bl_engine *e = NULL;
        struct bl_offer offer;

        assert_non_null(mkdtemp(dir));
        assert_int_equal(bl_ledger_open(dir, "boot", &l, &message), 0);
        assert_int_equal(bl_balloon_engine_new(f->conn, l, &o, &e), 0);
        list(f);
        memcpy(vm.uuid, f->uuid, BL_UUID_LEN);

        /* what it offers */
        assert_int_equal(e->ops->probe(e, &vm), BL_RECLAIM_OK);
        e->ops->propose(e, &vm, &offer);
        assert_int_equal(offer.takes, 2 * BL_GIB - 256 * BL_MIB);
        assert_int_equal(offer.gives, 2 * BL_GIB);
        assert_int_equal(offer.grain, BL_MIB);
        assert_int_equal(offer.phase, bl_ledger_phase(l));
        vm.no_reclaim = BL_RECLAIM_VFIO;
        e->ops->propose(e, &vm, &offer);
        assert_int_equal(offer.takes + offer.gives, 0);
        assert_int_equal(e->ops->apply(e, &vm, &d), -EOPNOTSUPP);
        vm.no_reclaim = BL_RECLAIM_OK;

        /* refused before anything is written */
        d.act = false;
        assert_int_equal(e->ops->apply(e, &vm, &d), -EINVAL);
        d.act = true;
        vm.actual = 3 * BL_GIB;
        assert_int_equal(e->ops->apply(e, &vm, &d), -ESTALE);
        vm.actual = 2 * BL_GIB;
        assert_int_equal(bl_ledger_count(l), 0);
        assert_int_equal(e->ops->undo(e, &vm, BL_GIB), 1);

        /* a command, written down before it is given */
        assert_int_equal(e->ops->apply(e, &vm, &d), 0);
        assert_int_equal(f->commands, 1);
        assert_true(bl_balloon_in_flight(e, vm.uuid));
        assert_int_equal(e->ops->apply(e, &vm, &d), -EBUSY);
        lv = bl_ledger_find(l, vm.uuid);
        assert_int_equal(lv->original, 2 * BL_GIB);
        assert_int_equal(lv->targets[0].state, BL_TARGET_IN_FLIGHT);
        snprintf(path, sizeof(path), "%s/ledger.json", dir);
        assert_int_equal(access(path, F_OK), 0);
        SPIN_UNTIL(f, f->results == 1);
        assert_false(bl_balloon_in_flight(e, vm.uuid));
        if (f->result.outcome == BL_OUTCOME_REFUSED || f->result.error == -EOPNOTSUPP) {
                /* this libvirt's test driver has no statistics: nothing done, nothing remembered */
                assert_int_equal(lv->original, BL_UNSET);
                assert_int_equal(lv->n_targets, 0);
                assert_int_equal(bl_balloon_set_by_hand(e, &vm, d.to), 0);
                SPIN_UNTIL(f, f->results == 2);
        }
        if (f->result.error == -EOPNOTSUPP)
                goto end;
        assert_int_equal(f->result.outcome, BL_OUTCOME_DONE);
        assert_int_equal(lv->original, 2 * BL_GIB);
        assert_int_equal(lv->targets[0].state, BL_TARGET_DONE);
        assert_int_equal(lv->targets[0].to, d.to);
        ASK(f, bl_domain_describe(f->conn, f->uuid, NULL, on_desc, f));
        assert_int_equal(f->desc->live.current, d.to);

        /* undo: paced by the room there is, step after step, until it is as it was */
        vm.actual = vm.target = d.to;
        assert_int_equal(e->ops->undo(e, &vm, 0), 0);
        assert_int_equal(f->commands, f->results);
        for (int i = 0; i < 10; i++) {
                int before = f->results, r = e->ops->undo(e, &vm, 200 * BL_MIB);

                assert_in_range(r, 0, 1);
                if (r == 1)
                        break;
                SPIN_UNTIL(f, f->results == before + 1);
                assert_int_equal(f->result.outcome, BL_OUTCOME_DONE);
                assert_true(f->result.undo);
                assert_true(f->result.to > vm.actual && f->result.to - vm.actual <= 200 * BL_MIB);
                vm.actual = vm.target = f->result.to;
        }
        assert_int_equal(vm.actual, 2 * BL_GIB);
        assert_false(bl_ledger_vm_dirty(lv));
        assert_int_equal(lv->n_targets, 0);

end:
        assert_int_equal(f->ledger_errors, 0);
        assert_int_equal(bl_balloon_set_instance(e, vm.uuid, NULL), 0);
        e = bl_balloon_engine_free(e);
        l = bl_ledger_free(l);
        free(message);
        unlink(path);
        snprintf(path, sizeof(path), "%s/lock", dir);
        unlink(path);
        rmdir(dir);
}

#ifdef BALLAST_FAULTS
/* --- killed at every step: in the build that has fault points (make FAULTS=1) ----------- */

/* What a daemon does in the life of one command: its record, the command, the
 * answer, undo, the statistics period.  Ends by itself, or is killed. */
static void child(const char *dir, const char *rule)
{
        struct fixture *f = start("test:///default");
        const struct bl_balloon_options o = {
                .handler = {.on_command = on_command, .on_result = on_result, .on_ledger_error = on_ledger_error},
                .userdata = f};
        struct bl_vm vm = {.name = "test", .max = 8 * BL_GIB, .limit = 8 * BL_GIB, .actual = 2 * BL_GIB};
        struct bl_ledger *l = NULL;
        struct bl_engine *e = NULL;
        char *message = NULL;
        int r = 0;

        SPIN_UNTIL(f, f->connects == 1);
        list(f);
        memcpy(vm.uuid, f->uuid, BL_UUID_LEN);
        if (bl_ledger_open(dir, "boot", &l, &message) < 0 || bl_ledger_save(l, false) < 0 ||
            bl_balloon_engine_new(f->conn, l, &o, &e) < 0 || bl_fault_set(rule) < 0)
                _exit(9);
        ASK(f, bl_balloon_set_period(e, vm.uuid, "test", 0, 2, on_done, f));
        if (bl_balloon_set_by_hand(e, &vm, BL_GIB) < 0)
                _exit(8);
        SPIN_UNTIL(f, f->results == 1);
        vm.actual = vm.target = BL_GIB;
        for (int i = 0; i < 100 && r == 0; i++) {
                r = e->ops->undo(e, &vm, 8 * BL_GIB);
                SPIN(f, 20 * BL_MSEC);
                if (f->results == 2)
                        vm.actual = vm.target = 2 * BL_GIB;
        }
        _exit(r == 1 ? 0 : 7);
}

static void test_killed_anywhere(void **state)
{
        size_t n;
        const char *const *names = bl_fault_names(&n);

        (void)state;
        for (size_t i = 0; i < n; i++)
                for (int pass = 1; pass <= 12; pass++) {
                        char dir[] = "/tmp/ballast-test-kill-XXXXXX", path[128], rule[96], *message = NULL;
                        const struct bl_ledger_vm *v;
                        struct bl_ledger *l = NULL;
                        int status;
                        pid_t pid;

                        assert_non_null(mkdtemp(dir));
                        snprintf(rule, sizeof(rule), "kill@%s:%d", names[i], pass);
                        pid = fork();
                        if (pid == 0)
                                child(dir, rule);
                        assert_int_equal(waitpid(pid, &status, 0), pid);
                        if (WIFEXITED(status) && WEXITSTATUS(status) != 0)
                                fail_msg("%s: exit status %d", rule, WEXITSTATUS(status));

                        /* whatever happened: the ledger is whole, and what was changed is in it */
                        assert_int_equal(bl_ledger_open(dir, "boot", &l, &message), 0);
                        assert_null(message);
                        assert_int_equal(bl_ledger_found(l), BL_LEDGER_READ);
                        v = bl_ledger_get(l, 0);
                        if (v && v->n_targets > 0)
                                assert_int_equal(v->original, 2 * BL_GIB);
                        if (strncmp(names[i], "balloon-", 8) == 0 && pass == 1) {
                                assert_true(WIFSIGNALED(status));
                                assert_int_equal(v->n_targets, 1);
                                assert_int_equal(v->targets[0].to, BL_GIB);
                                assert_int_equal(v->targets[0].state, strcmp(names[i], "balloon-after-result") == 0
                                                                              ? BL_TARGET_DONE
                                                                              : BL_TARGET_IN_FLIGHT);
                        }
                        if (!WIFSIGNALED(status))
                                assert_false(v && bl_ledger_vm_dirty(v));
                        l = bl_ledger_free(l);
                        for (const char *const *name =
                                     (const char *const[]){"ledger.json", "ledger.json.tmp", "lock", NULL};
                             *name; name++) {
                                snprintf(path, sizeof(path), "%s/%s", dir, *name);
                                unlink(path);
                        }
                        rmdir(dir);
                        if (!WIFSIGNALED(status))
                                break; /* there are no further passings */
                }
}

#endif

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_list_and_describe, setup, teardown),
                cmocka_unit_test_setup_teardown(test_sense, setup, teardown),
                cmocka_unit_test_setup_teardown(test_stopped_process, setup, teardown),
                cmocka_unit_test_setup_teardown(test_metadata, setup, teardown),
                cmocka_unit_test_setup_teardown(test_balloon, setup, teardown),
                cmocka_unit_test_setup_teardown(test_lifecycle, setup, teardown),
                cmocka_unit_test_setup_teardown(test_links, setup, teardown),
                cmocka_unit_test_setup_teardown(test_engine, setup, teardown),
                cmocka_unit_test(test_never_connects),
                cmocka_unit_test(test_needs_bridge),
#ifdef BALLAST_FAULTS
                cmocka_unit_test(test_killed_anywhere),
#endif
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
