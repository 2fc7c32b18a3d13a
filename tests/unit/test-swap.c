/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A VM's swap on the store, from its start to its drain, against a store, a monitor and an agent that are the
 * test's.  Its process is one that has the VM's UUID among its arguments and does nothing. */
#include "tests/unit/test-manager-util.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/channel/vhost_user_vsock.h"
#include "daemon/documents.h"
#include "daemon/storelink.h"
#include "daemon/virt/domain_swap.h"
#include "tests/unit/test-store-fake.h"

#define UUID "7f000000-0000-4000-8000-0000000000aa"

/* --- the monitor ------------------------------------------------------------------- */

static struct {
        bool there; /* its disk is plugged in */
        int looks, attaches, detaches;
        enum bl_swap_attach attach; /* what comes of it */
        bool stuck; /* the guest does not let go */
} monitor;

struct answer {
        bl_domain_swap_fn swap;
        bl_domain_done_fn done;
        void *userdata;
        enum bl_swap_attach a;
        int r;
};

static sd_event *loop;

static int on_answer(sd_event_source *s, void *userdata)
{
        struct answer *a = userdata;

        if (a->swap)
                a->swap(a->userdata, a->r, NULL, a->a);
        else
                a->done(a->userdata, a->r, NULL);
        free(a);
        sd_event_source_unref(s);
        return 0;
}

/* From the loop, as the jobs answer. */
static int answer(bl_domain_swap_fn swap, bl_domain_done_fn done, void *userdata, enum bl_swap_attach what, int r)
{
        struct answer *a = malloc(sizeof(*a));
        sd_event_source *s;

        assert_non_null(a);
        *a = (struct answer){.swap = swap, .done = done, .userdata = userdata, .a = what, .r = r};
        return sd_event_add_defer(loop, &s, on_answer, a);
}

int bl_domain_look_swap(struct bl_conn *c, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *inst,
                        bl_domain_swap_fn fn, void *userdata)
{
        (void)c;
        (void)uuid;
        (void)inst;
        monitor.looks++;
        return answer(fn, NULL, userdata, monitor.there ? BL_SWAP_THERE : BL_SWAP_ABSENT, 0);
}

int bl_domain_attach_swap(struct bl_conn *c, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *inst,
                          const char *socket, bl_domain_swap_fn fn, void *userdata)
{
        (void)c;
        (void)uuid;
        (void)inst;
        assert_string_equal(socket, "/run/test-nbd.sock");
        monitor.attaches++;
        if (monitor.attach == BL_SWAP_ATTACHED)
                monitor.there = true;
        return answer(fn, NULL, userdata, monitor.attach, 0);
}

int bl_domain_detach_swap(struct bl_conn *c, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *inst,
                          bl_domain_done_fn fn, void *userdata)
{
        (void)c;
        (void)uuid;
        (void)inst;
        monitor.detaches++;
        if (!monitor.stuck)
                monitor.there = false;
        return answer(NULL, fn, userdata, BL_SWAP_FAILED, monitor.stuck ? -EAGAIN : 0);
}

/* --- the agent --------------------------------------------------------------------- */

static int agent = -1;
static uint64_t asked_on, asked_off, asked_give, last_id;

static void say(int len, const uint8_t *frame)
{
        assert_true(len > 0);
        assert_int_equal(send(agent, frame, (size_t)len, MSG_NOSIGNAL), len);
}

static void agent_comes(const struct fixture *f, uint64_t features)
{
        static unsigned n;
        struct bl_wire_hello h = {.major = BL_WIRE_MAJOR, .minor = BL_WIRE_MINOR, .features = features};
        struct sockaddr_un me = {.sun_family = AF_UNIX}, there = {.sun_family = AF_UNIX};
        uint8_t frame[BL_WIRE_FRAME_MAX];
        int len;

        agent = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        assert_true(agent >= 0);
        len = snprintf(me.sun_path + 1, sizeof(me.sun_path) - 1, BL_VHOST_USER_VSOCK_NAME UUID "/%d.%u", (int)getpid(),
                       ++n);
        assert_int_equal(bind(agent, (struct sockaddr *)&me,
                              (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len)),
                         0);
        snprintf(there.sun_path, sizeof(there.sun_path), "%s/run/" BL_VHOST_USER_VSOCK_SOCKET, f->dir);
        assert_int_equal(connect(agent, (struct sockaddr *)&there, sizeof(there)), 0);
        snprintf(h.version, sizeof(h.version), "test");
        say(bl_wire_encode_hello(&h, frame, sizeof(frame)), frame);
}

static void says_all(uint64_t state, uint64_t used, uint64_t cached, uint64_t ahead)
{
        struct bl_wire_stats s;
        uint8_t frame[BL_WIRE_FRAME_MAX];

        bl_wire_stats_init(&s);
        s.v[BL_STAT_MEM_TOTAL] = 1000 * BL_MIB;
        s.v[BL_STAT_MEM_AVAILABLE] = 500 * BL_MIB;
        s.v[BL_STAT_STORE_STATE] = state;
        s.v[BL_STAT_STORE_USED] = used;
        s.v[BL_STAT_SWAP_CACHED] = cached;
        s.v[BL_STAT_SWAP_AHEAD] = ahead;
        say(bl_wire_encode_stats(&s, frame, sizeof(frame)), frame);
}

static void says(uint64_t state)
{
        says_all(state, 0, 0, 0);
}

static void agent_answers(uint64_t status, uint64_t need, uint64_t have)
{
        const struct bl_wire_result r = {
                .id = last_id, .status = status, .bytes = BL_UNSET, .took = BL_UNSET, .need = need, .have = have};
        uint8_t frame[BL_WIRE_FRAME_MAX];

        say(bl_wire_encode_result(&r, frame, sizeof(frame)), frame);
}

/* What it was asked for since. */
static void agent_hears(void)
{
        uint8_t buf[16384];
        ssize_t n = recv(agent, buf, sizeof(buf), MSG_DONTWAIT);
        struct bl_wire_action a;
        struct bl_wire_iter it;
        struct bl_wire_frame f;

        if (n <= 0)
                return;
        bl_wire_iter_init(&it, buf, (size_t)n);
        while (bl_wire_next(&it, &f) > 0) {
                if (f.type != BL_WIRE_ACTION || bl_wire_decode_action(&f, &a) < 0)
                        continue;
                last_id = a.id;
                asked_on += a.kind == BL_ACTION_SWAP_ON;
                asked_off += a.kind == BL_ACTION_SWAP_OFF;
                asked_give += a.kind == BL_ACTION_SWAP_GIVE;
        }
}

static bool heard(const uint64_t *what, uint64_t n)
{
        agent_hears();
        return *what >= n;
}

/* --- the VM ------------------------------------------------------------------------ */

static struct fake_store store;
static pid_t vmm;

static void vmm_start(const struct fixture *f)
{
        char path[128];
        FILE *file;

        vmm = fork();
        assert_true(vmm >= 0);
        if (vmm == 0) {
                (void)setpgid(0, 0); /* so that its sleep ends with it */
                execl("/bin/sh", "sh", "-c", "sleep 300; :", "-uuid", UUID, (char *)NULL);
                _exit(1);
        }
        (void)setpgid(vmm, vmm);
        snprintf(path, sizeof(path), "%s/qemu/v.pid", f->dir);
        file = fopen(path, "we");
        assert_non_null(file);
        fprintf(file, "%d", (int)vmm);
        assert_int_equal(fclose(file), 0);
}

static struct bl_guest *vm(struct fixture *f, const char *settings)
{
        char xml[1024];
        virDomainPtr d;

        snprintf(xml, sizeof(xml),
                 "<domain type='test'><name>v</name><uuid>" UUID "</uuid><metadata><ballast:memory "
                 "xmlns:ballast='urn:org.ballast1:vm:1' %s/></metadata><memory unit='MiB'>1024</memory>"
                 "<vcpu>1</vcpu><os><type>hvm</type></os><devices><memballoon model='virtio'/></devices></domain>",
                 settings);
        d = virDomainCreateXML(f->other, xml, 0);
        assert_non_null(d);
        f->vms[f->n_vms++] = d;
        SPIN_UNTIL(f, is_known(f, "v") && guest(f, "v")->desc->has_instance);
        return guest(f, "v");
}

static int setup(void **state)
{
        char more[400], path[100];
        struct fixture *f;

        if (setup_dirs(state) < 0)
                return -1;
        f = *state;
        loop = f->event;
        memset(&monitor, 0, sizeof(monitor));
        monitor.attach = BL_SWAP_ATTACHED;
        asked_on = asked_off = asked_give = 0;
        snprintf(path, sizeof(path), "%s/store.sock", f->dir);
        fake_store_init(&store, f->event, path);
        snprintf(more, sizeof(more),
                 "[store]\npool_size=1G\ncontrol=%s\nsocket=/run/test-nbd.sock\ndefault_group=all\n", path);
        write_conf(f, "test:///default", more);
        vmm_start(f);
        fake_store_start(&store);
        start(f);
        f->other = virConnectOpen("test:///default");
        if (!f->other)
                return -1;
        SPIN_UNTIL(f, is_known(f, "test"));
        bl_storelink_set_period(f->m->storelink, 50 * BL_MSEC);
        return 0;
}

static int teardown_swap(void **state)
{
        if (agent >= 0)
                (void)close(agent);
        agent = -1;
        fake_store_stop(&store);
        (void)kill(-vmm, SIGKILL);
        (void)waitpid(vmm, NULL, 0);
        return teardown(state);
}

static bool at(const struct bl_guest *g, enum bl_swap_stage s)
{
        return g->swap.stage == s;
}

static struct bl_guest *up(struct fixture *f, const char *settings)
{
        struct bl_guest *g = vm(f, settings);

        agent_comes(f, BL_WIRE_FEATURE_SWAP);
        SPIN_UNTIL(f, g->agent.hello);
        says(BL_STORE_SWAP_NONE);
        SPIN_UNTIL(f, heard(&asked_on, 1));
        agent_answers(BL_RESULT_DONE, BL_UNSET, BL_UNSET);
        says(BL_STORE_SWAP_PREPARING);
        SPIN(f, 50 * BL_MSEC);
        assert_true(at(g, BL_SWAP_STAGE_PLUGGED));
        says(BL_STORE_SWAP_ON);
        SPIN_UNTIL(f, at(g, BL_SWAP_STAGE_ON));
        return g;
}

/* --- tests ------------------------------------------------------------------------- */

static void test_on(void **state)
{
        struct fixture *f = *state;
        struct bl_guest *g = vm(f, "swap='256MiB' swap-limit='100MiB' reservation='512MiB'");

        /* not before its agent can use it: the monitor's passthrough taints */
        SPIN_UNTIL(f, at(g, BL_SWAP_STAGE_WAITING) && strstr(g->swap.why, "agent"));
        assert_int_equal(store.n_register + monitor.attaches, 0);
        agent_comes(f, BL_WIRE_FEATURE_SWAP);
        SPIN_UNTIL(f, monitor.attaches == 1);
        assert_int_equal(store.n_register, 1);
        assert_int_equal(store.registration.size, 256 * BL_MIB);
        assert_int_equal(store.registration.limit, 100 * BL_MIB);
        assert_int_equal(store.registration.pid, vmm);
        assert_int_equal(store.registration.incarnation, 0);
        assert_int_equal(store.registration.stamp, BL_UNSET);
        assert_string_equal(store.registration.group, "all");
        assert_memory_equal(store.registration.uuid, g->uuid, BL_UUID_LEN);
        says(BL_STORE_SWAP_NONE);
        SPIN_UNTIL(f, heard(&asked_on, 1));
        agent_answers(BL_RESULT_DONE, BL_UNSET, BL_UNSET);
        says_all(BL_STORE_SWAP_ON, 0, 0, 64 * BL_MIB);
        SPIN_UNTIL(f, at(g, BL_SWAP_STAGE_ON));
        assert_string_equal(g->swap.why, "");
        assert_int_equal(events_of(f, "swap.on"), 1);
        SPIN_UNTIL(f, events_of(f, "swap.ahead") == 1);
        /* its guest boots anew in the same process: asked again, not plugged in again */
        says(BL_STORE_SWAP_NONE);
        SPIN_UNTIL(f, heard(&asked_on, 2));
        assert_int_equal(monitor.attaches, 1);
        assert_int_equal(store.n_register, 1);
}

static void test_not_wanted(void **state)
{
        struct fixture *f = *state;
        struct bl_guest *g = vm(f, "shares='high'");

        agent_comes(f, BL_WIRE_FEATURE_SWAP);
        SPIN_UNTIL(f, g->agent.hello);
        SPIN(f, 500 * BL_MSEC);
        assert_int_equal(monitor.looks + monitor.attaches + store.n_register, 0);
        assert_true(at(g, BL_SWAP_STAGE_NONE));
}

static void test_agent_that_cannot(void **state)
{
        struct fixture *f = *state;
        struct bl_guest *g = vm(f, "swap='auto'");

        agent_comes(f, BL_WIRE_FEATURE_TRIM);
        SPIN_UNTIL(f, strstr(g->swap.why, "cannot swap"));
        assert_int_equal(monitor.attaches + store.n_register, 0);
        SPIN_UNTIL(f, events_of(f, "swap.refused") == 1);
}

static void test_refused(void **state)
{
        struct fixture *f = *state;
        struct bl_guest *g;

        store.refuse = -ENOSPC;
        store.figures.promised = 900 * BL_MIB;
        g = vm(f, "swap='256MiB'");
        agent_comes(f, BL_WIRE_FEATURE_SWAP);
        SPIN_UNTIL(f, strstr(g->swap.why, "900 MiB"));
        assert_non_null(strstr(g->swap.why, "1 GiB"));
        assert_true(at(g, BL_SWAP_STAGE_WAITING));
        assert_int_equal(monitor.attaches, 0);
        assert_int_equal(events_of(f, "swap.refused"), 1);
}

static void test_no_place(void **state)
{
        struct fixture *f = *state;
        struct bl_guest *g;

        monitor.attach = BL_SWAP_NO_ROOM;
        g = vm(f, "swap='256MiB'");
        agent_comes(f, BL_WIRE_FEATURE_SWAP);
        SPIN_UNTIL(f, strstr(g->swap.why, "root port"));
        assert_int_equal(asked_on, 0);
}

static void test_store_away(void **state)
{
        struct fixture *f = *state;
        struct bl_guest *g;

        SPIN_UNTIL(f, bl_storelink_state(f->m->storelink) == BL_STORELINK_THERE);
        fake_store_stop(&store);
        SPIN_UNTIL(f, bl_storelink_state(f->m->storelink) == BL_STORELINK_AWAY);
        assert_int_equal(events_of(f, "store.away"), 1);
        g = vm(f, "swap='256MiB'");
        agent_comes(f, BL_WIRE_FEATURE_SWAP);
        SPIN_UNTIL(f, strstr(g->swap.why, "ballast-store"));
        assert_int_equal(monitor.attaches, 0);
        fake_store_start(&store);
        SPIN_UNTIL(f, monitor.attaches == 1);
        assert_int_equal(events_of(f, "store.back"), 2);
}

static void test_drain(void **state)
{
        struct fixture *f = *state;
        struct bl_guest *g = up(f, "swap='256MiB'");

        ASK(f, bl_control_drain(f->m, "v", false, on_done, f));
        assert_int_equal(f->r, 0);
        SPIN_UNTIL(f, heard(&asked_off, 1));
        assert_true(at(g, BL_SWAP_STAGE_DRAINING));
        agent_answers(BL_RESULT_NO_ROOM, 80 * BL_MIB, 10 * BL_MIB);
        SPIN_UNTIL(f, strstr(g->swap.why, "80 MiB") && strstr(g->swap.why, "10 MiB"));
        says(BL_STORE_SWAP_ON);
        SPIN(f, 200 * BL_MSEC);
        assert_int_equal(monitor.detaches, 0);
        /* asked again: it has room by then */
        SPIN_UNTIL(f, heard(&asked_off, 2));
        agent_answers(BL_RESULT_DONE, BL_UNSET, BL_UNSET);
        says(BL_STORE_SWAP_LEAVING);
        SPIN(f, 200 * BL_MSEC);
        assert_int_equal(monitor.detaches, 0);
        assert_int_equal(store.n_forget, 0);
        /* only now may the disk go */
        monitor.stuck = true;
        says(BL_STORE_SWAP_OFF);
        SPIN_UNTIL(f, monitor.detaches == 1);
        assert_true(at(g, BL_SWAP_STAGE_UNPLUGGING));
        assert_int_equal(store.n_forget, 0);
        monitor.stuck = false;
        SPIN_UNTIL(f, at(g, BL_SWAP_STAGE_NONE));
        assert_int_equal(store.n_forget, 1);
        assert_memory_equal(store.forgotten, g->uuid, BL_UUID_LEN);
        assert_int_equal(events_of(f, "swap.off"), 1);
        /* and it stays so */
        says(BL_STORE_SWAP_NONE);
        SPIN(f, 300 * BL_MSEC);
        assert_int_equal(monitor.attaches, 1);
        ASK(f, bl_control_drain(f->m, "v", true, on_done, f));
        SPIN_UNTIL(f, monitor.attaches == 2);
        assert_int_equal(store.registration.incarnation, 0);
}

static void test_drain_refused_by_host(void **state)
{
        struct fixture *f = *state;
        struct bl_guest *g = up(f, "swap='256MiB'");

        fake_store_find(&store, g->uuid)->held = 100 * BL_GIB;
        SPIN_UNTIL(f, g->swap.held.held == 100 * BL_GIB);
        ASK(f, bl_control_drain(f->m, "v", false, on_done, f));
        assert_int_equal(f->r, -ESTALE);
        assert_non_null(strstr(f->message, "100 GiB"));
        assert_true(at(g, BL_SWAP_STAGE_ON));
        ASK(f, bl_control_drain(f->m, "nobody", false, on_done, f));
        assert_int_equal(f->r, -ENOENT);
}

/* What its guest has no room for is refused with the figures before anything is begun. */
static void test_drain_refused_by_guest(void **state)
{
        struct fixture *f = *state;
        struct bl_guest *g = up(f, "swap='256MiB'");

        /* it has 500 MiB available, of which its agent keeps 50 */
        says_all(BL_STORE_SWAP_ON, 520 * BL_MIB, 60 * BL_MIB, 0);
        SPIN_UNTIL(f, g->swap.used == 520 * BL_MIB);
        ASK(f, bl_control_drain(f->m, "v", false, on_done, f));
        assert_int_equal(f->r, -ESTALE);
        assert_non_null(strstr(f->message, "takes 460 MiB"));
        assert_non_null(strstr(f->message, "450 MiB of it are available"));
        SPIN(f, 300 * BL_MSEC);
        assert_true(at(g, BL_SWAP_STAGE_ON));
        assert_false(heard(&asked_off, 1));
        assert_true(!bl_ledger_find(f->m->ledger, g->uuid) || bl_ledger_find(f->m->ledger, g->uuid)->drained.pid == 0);
        /* what it has in memory, too, needs no room */
        says_all(BL_STORE_SWAP_ON, 520 * BL_MIB, 80 * BL_MIB, 0);
        SPIN_UNTIL(f, g->swap.cached == 80 * BL_MIB);
        ASK(f, bl_control_drain(f->m, "v", false, on_done, f));
        assert_int_equal(f->r, 0);
        assert_null(strstr(f->message, "waits"));
        SPIN_UNTIL(f, heard(&asked_off, 1));
}

/* A drain is of the VM's process, not of ballastd's. */
static void test_drain_outlives_ballastd(void **state)
{
        struct fixture *f = *state;
        struct bl_guest *g = up(f, "swap='256MiB'");

        ASK(f, bl_control_drain(f->m, "v", false, on_done, f));
        assert_int_equal(f->r, 0);
        SPIN_UNTIL(f, heard(&asked_off, 1));
        /* half-way */
        stop(f);
        (void)close(agent);
        start(f);
        SPIN_UNTIL(f, is_known(f, "v") && guest(f, "v")->desc->has_instance);
        g = guest(f, "v");
        agent_comes(f, BL_WIRE_FEATURE_SWAP);
        SPIN_UNTIL(f, g->agent.hello);
        says(BL_STORE_SWAP_ON);
        SPIN_UNTIL(f, heard(&asked_off, 2));
        assert_true(at(g, BL_SWAP_STAGE_DRAINING));
        agent_answers(BL_RESULT_DONE, BL_UNSET, BL_UNSET);
        says(BL_STORE_SWAP_OFF);
        SPIN_UNTIL(f, monitor.detaches == 1 && at(g, BL_SWAP_STAGE_NONE));
        assert_int_equal(asked_on, 1);
        /* and when nothing is left of it */
        stop(f);
        (void)close(agent);
        start(f);
        SPIN_UNTIL(f, is_known(f, "v") && guest(f, "v")->desc->has_instance);
        g = guest(f, "v");
        agent_comes(f, BL_WIRE_FEATURE_SWAP);
        SPIN_UNTIL(f, g->agent.hello);
        SPIN(f, 500 * BL_MSEC);
        assert_int_equal(monitor.attaches, 1);
        ASK(f, bl_control_drain(f->m, "v", true, on_done, f));
        SPIN_UNTIL(f, monitor.attaches == 2);
        assert_int_equal(bl_ledger_find(f->m->ledger, g->uuid)->drained.pid, 0);
}

/* A group that a running VM gets is the store's from then on. */
static void test_group(void **state)
{
        struct fixture *f = *state;
        struct bl_guest *g = up(f, "swap='256MiB'");
        json_t *d;

        assert_string_equal(store.registration.group, "all");
        assert_int_equal(virDomainSetMetadata(f->vms[f->n_vms - 1], VIR_DOMAIN_METADATA_ELEMENT,
                                              "<memory swap='256MiB' group='web'/>", "ballast", "urn:org.ballast1:vm:1",
                                              VIR_DOMAIN_AFFECT_LIVE),
                         0);
        SPIN_UNTIL(f, strcmp(store.registration.group, "web") == 0);
        SPIN_UNTIL(f, strcmp(g->swap.held.group, "web") == 0);
        d = bl_document_store_of(g);
        assert_string_equal(json_string_value(json_object_get(d, "group")), "web");
        json_decref(d);
        SPIN(f, 300 * BL_MSEC);
        assert_int_equal(store.n_register, 2);
        assert_int_equal(monitor.attaches, 1);
        assert_true(at(g, BL_SWAP_STAGE_ON));
}

/* Slots that hold what nobody needs are asked back while the host is short, and not each tick. */
static void test_give(void **state)
{
        struct fixture *f = *state;
        struct bl_guest *g = up(f, "swap='256MiB'");
        struct bl_store_vm *v = fake_store_find(&store, g->uuid);

        bl_ledger_set_act(f->m->ledger, 1);
        assert_true(bl_manager_acting(f->m));
        v->held = 200 * BL_MIB;
        says_all(BL_STORE_SWAP_ON, 180 * BL_MIB, 30 * BL_MIB, 0);
        SPIN_UNTIL(f, g->swap.held.held == 200 * BL_MIB && g->swap.cached == 30 * BL_MIB);
        f->m->plan.state = BL_STATE_HIGH;
        f->m->plan.shortfall = 0;
        bl_swap_tick(f->m, bl_now());
        f->m->plan.state = BL_STATE_SOFT;
        /* 20 MiB that it freed and 30 that it has in memory: not worth it */
        bl_swap_tick(f->m, bl_now());
        SPIN(f, 100 * BL_MSEC);
        assert_false(heard(&asked_give, 1));
        says_all(BL_STORE_SWAP_ON, 180 * BL_MIB, 60 * BL_MIB, 0);
        SPIN_UNTIL(f, g->swap.cached == 60 * BL_MIB);
        f->m->plan.state = BL_STATE_HIGH;
        f->m->plan.shortfall = 0;
        bl_swap_tick(f->m, bl_now());
        SPIN(f, 100 * BL_MSEC);
        assert_false(heard(&asked_give, 1));
        f->m->plan.state = BL_STATE_SOFT;
        bl_swap_tick(f->m, bl_now());
        SPIN_UNTIL(f, heard(&asked_give, 1));
        agent_answers(BL_RESULT_DONE, BL_UNSET, BL_UNSET);
        f->m->plan.state = BL_STATE_SOFT;
        bl_swap_tick(f->m, bl_now());
        SPIN(f, 100 * BL_MSEC);
        assert_int_equal(asked_give, 1);
        bl_swap_tick(f->m, bl_now() + 120 * BL_SEC);
        f->m->plan.state = BL_STATE_SOFT;
        bl_swap_tick(f->m, bl_now() + 120 * BL_SEC);
        SPIN_UNTIL(f, heard(&asked_give, 2));
        /* what the plan says of the pool, and never less than is to be ready anyway */
        f->m->plan.pool_to = 384 * BL_MIB;
        bl_swap_tick(f->m, bl_now());
        f->m->plan.pool_to = 0;
        SPIN_UNTIL(f, store.reserved == 384 * BL_MIB);
        f->m->plan.pool_to = 4096;
        bl_swap_tick(f->m, bl_now());
        f->m->plan.pool_to = 0;
        SPIN_UNTIL(f, store.reserved == bl_max(f->m->conf->store_ready, 4096));
}

/* Statistics that were on their way when it was asked to switch swap on do not count as "it is off". */
static void test_stale_word(void **state)
{
        struct fixture *f = *state;

        (void)vm(f, "swap='256MiB'");
        agent_comes(f, BL_WIRE_FEATURE_SWAP);
        SPIN_UNTIL(f, guest(f, "v")->agent.hello);
        says(BL_STORE_SWAP_NONE);
        SPIN_UNTIL(f, heard(&asked_on, 1));
        ASK(f, bl_control_drain(f->m, "v", false, on_done, f));
        SPIN(f, 300 * BL_MSEC);
        assert_int_equal(monitor.detaches, 0);
        agent_answers(BL_RESULT_DONE, BL_UNSET, BL_UNSET);
        SPIN(f, 100 * BL_MSEC);
        assert_int_equal(monitor.detaches, 0);
        says(BL_STORE_SWAP_PREPARING);
        SPIN_UNTIL(f, heard(&asked_off, 1));
        assert_int_equal(monitor.detaches, 0);
}

/* ballastd is started anew: what is there is found, and nothing is dropped. */
static void test_restart(void **state)
{
        struct fixture *f = *state;
        struct bl_guest *g = up(f, "swap='256MiB'");

        (void)g;
        stop(f);
        close(agent);
        store.n_register = 0;
        start(f);
        SPIN_UNTIL(f, store.n_register == 1);
        assert_int_equal(store.registration.incarnation, 1000);
        assert_int_equal(store.registration.size, 256 * BL_MIB);
        assert_int_equal(monitor.attaches, 1);
        assert_int_equal(store.n_forget, 0);
        g = guest(f, "v");
        SPIN_UNTIL(f, at(g, BL_SWAP_STAGE_PLUGGED));
        agent_comes(f, BL_WIRE_FEATURE_SWAP);
        SPIN_UNTIL(f, g->agent.hello);
        says(BL_STORE_SWAP_ON);
        SPIN_UNTIL(f, at(g, BL_SWAP_STAGE_ON));
        assert_int_equal(asked_on, 1);
        assert_int_equal(monitor.attaches, 1);
}

/* The pool is another one while a guest has its disk: what it had is lost, never zeros. */
static void test_another_pool(void **state)
{
        struct fixture *f = *state;
        struct bl_guest *g = up(f, "swap='256MiB'");

        store.n_vms = 0;
        store.n_register = 0;
        store.figures.incarnation = 2000;
        SPIN_UNTIL(f, store.n_register == 1);
        assert_true(store.registration.incarnation != 0 && store.registration.incarnation != 2000);
        SPIN_UNTIL(f, g->swap.held.lost);
        assert_int_equal(events_of(f, "store.lost"), 1);
        assert_int_equal(monitor.attaches, 1);
        SPIN(f, 300 * BL_MSEC);
        assert_int_equal(store.n_register, 1);
}

/* What a process left that is gone, nobody can read. */
static void test_left_over(void **state)
{
        struct fixture *f = *state;

        store.vms[0] = (struct bl_store_vm){.uuid = {9}, .pid = 999999, .start = 1, .size = BL_MIB};
        store.n_vms = 1;
        SPIN_UNTIL(f, store.n_forget == 1);
        assert_int_equal(store.forgotten[0], 9);
}

static void test_figures(void **state)
{
        struct fixture *f = *state;
        struct bl_guest *g = up(f, "swap='256MiB' swap-limit='7MiB'");
        struct bl_store_vm *v = fake_store_find(&store, g->uuid);
        struct bl_store_state s;
        struct bl_vm_store t;

        v->held = 100 * BL_MIB;
        v->zero = 20 * BL_MIB;
        v->stored = 30 * BL_MIB;
        v->ratio = 2500;
        v->write_pages = 100000;
        store.figures.payload = 24 * BL_MIB;
        store.figures.slack = 6 * BL_MIB;
        store.figures.headroom = 500 * BL_MIB;
        store.figures.index = 2 * BL_MIB;
        says_all(BL_STORE_SWAP_ON, 90 * BL_MIB, 40 * BL_MIB, 0);
        SPIN_UNTIL(f, g->swap.held.held == 100 * BL_MIB && g->swap.used == 90 * BL_MIB);
        bl_swap_to_vm(g, &t);
        assert_true(t.on && !t.leaving && t.ratio_known);
        assert_int_equal(t.stale, 30 * BL_MIB);
        assert_int_equal(t.twice, 40 * BL_MIB);
        assert_int_equal(t.ratio, 2500);
        assert_int_equal(t.limit, 7 * BL_MIB);
        assert_int_equal(t.size, 256 * BL_MIB);
        bl_swap_store_state(f->m, bl_now(), &s);
        assert_true(s.there && !s.slow);
        assert_int_equal(s.headroom, 500 * BL_MIB);
        assert_int_equal(s.room, 994 * BL_MIB);
        assert_int_equal(bl_swap_host_memory(f->m), 66 * BL_MIB);
        assert_int_equal(bl_swap_room_left(g), 166 * BL_MIB);
        /* figures that are old are none */
        bl_swap_store_state(f->m, bl_now() + 60 * BL_SEC, &s);
        assert_false(s.there);
        store.figures.waiting = 1;
        SPIN_UNTIL(f, (bl_swap_store_state(f->m, bl_now(), &s), s.slow));
        /* a guest may say what it likes */
        says_all(BL_STORE_SWAP_ON, 0, UINT64_MAX - 1, 0);
        SPIN_UNTIL(f, g->swap.used == 0);
        bl_swap_to_vm(g, &t);
        assert_int_equal(t.stale, 120 * BL_MIB);
        assert_int_equal(t.twice, 0);
}

static void test_events(void **state)
{
        struct fixture *f = *state;
        struct bl_guest *g = up(f, "swap='256MiB'");

        store.events[0] = (struct bl_store_event){.kind = BL_STORE_DAMAGED, .offset = 4096};
        memcpy(store.events[0].uuid, g->uuid, BL_UUID_LEN);
        store.events[1] = (struct bl_store_event){.kind = BL_STORE_FULL};
        store.n_events = 2;
        SPIN_UNTIL(f, events_of(f, "store.full") == 1);
        assert_int_equal(events_of(f, "store.damaged"), 1);
        assert_string_equal(event_of(f, "store.damaged", 0)->vm, "v");
        assert_non_null(strstr(event_of(f, "store.damaged", 0)->sentence, " v "));
}

#define CASE(t) cmocka_unit_test_setup_teardown(t, setup, teardown_swap)

int main(void)
{
        const struct CMUnitTest tests[] = {
                CASE(test_on),
                CASE(test_not_wanted),
                CASE(test_agent_that_cannot),
                CASE(test_refused),
                CASE(test_no_place),
                CASE(test_store_away),
                CASE(test_drain),
                CASE(test_drain_refused_by_host),
                CASE(test_drain_refused_by_guest),
                CASE(test_drain_outlives_ballastd),
                CASE(test_group),
                CASE(test_give),
                CASE(test_stale_word),
                CASE(test_restart),
                CASE(test_another_pool),
                CASE(test_left_over),
                CASE(test_figures),
                CASE(test_events),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
