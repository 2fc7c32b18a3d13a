/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The manager's life: VMs that come and go, what an administrator says, what
 * outlives it. */
#include "tests/unit/test-manager-util.h"

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

static json_t *status(const struct fixture *f)
{
        json_t *d = NULL;

        assert_int_equal(bl_control_status(f->m, &d), 0);
        return d;
}

/* A member of the status, by two names; borrowed from `*d`. */
static const json_t *in_status(const struct fixture *f, json_t **d, const char *a, const char *b)
{
        json_decref(*d);
        *d = status(f);
        return json_object_get(json_object_get(*d, a), b);
}

static bool rollback_is(const struct fixture *f, const char *what)
{
        json_t *d = NULL;
        bool is = json_is_true(in_status(f, &d, "rollback", what));

        json_decref(d);
        return is;
}

/* --- life -------------------------------------------------------------------- */

static void test_starts_and_ends(void **state)
{
        struct fixture *f = *state;
        char sock[128];

        snprintf(sock, sizeof(sock), "%s/run/ballast.sock", f->dir);
        assert_int_equal(access(sock, F_OK), 0);
        assert_true(f->m->connected);
        assert_true(f->m->listed);
        assert_int_equal(f->m->n_guests, 1);
        assert_false(bl_manager_acting(f->m));
        /* it ticks */
        SPIN_UNTIL(f, f->m->planned);
        stop(f);
        assert_int_not_equal(access(sock, F_OK), 0);
}

static void test_second_is_refused(void **state)
{
        struct fixture *f = *state;
        struct bl_manager *second = NULL;

        assert_int_equal(try_start(f, &second), -EBUSY);
        assert_null(second);
        ASK(f, bl_control_act(f->m, true, on_done, f));
        assert_int_equal(f->r, 0);
}

static void test_ends_with_calls_under_way(void **state)
{
        struct fixture *f = *state;

        /* their answers come while it is being taken apart */
        bl_discover_all(f->m);
        bl_discover_describe(guest(f, "test"));
        guest(f, "test")->sense_at = 1;
        bl_poll_rearm(f->m);
        (void)sd_event_run(f->event, 0);
        stop(f);
}

static void test_without_libvirt(void **state)
{
        struct fixture *f = *state;
        json_t *d = NULL;

        write_conf(f, "test:////nonexistent.xml", "");
        start(f);
        SPIN_UNTIL(f, f->m->conn_error);
        assert_true(json_is_false(in_status(f, &d, "libvirt", "connected")));
        assert_true(json_is_string(in_status(f, &d, "libvirt", "error")));
        /* it does not know what there is to put back, so it is not done */
        ASK(f, bl_control_rollback(f->m, on_done, f));
        assert_int_equal(f->r, 0);
        SPIN(f, 300 * BL_MSEC);
        assert_true(rollback_is(f, "running"));
        assert_false(rollback_is(f, "done"));
        json_decref(d);
}

/* --- VMs come and go ----------------------------------------------------------- */

static void test_come_and_go(void **state)
{
        struct fixture *f = *state;
        virDomainPtr d = vm_create(f, "v1", false);
        json_t *doc = NULL;

        SPIN_UNTIL(f, is_known(f, "v1"));
        assert_true(guest(f, "v1")->desc->live.balloon);
        assert_int_equal(guest(f, "v1")->birth, BL_BIRTH_BOOTED);
        balloon_is(guest(f, "v1"), BL_GIB);
        assert_int_equal(virDomainSuspend(d), 0);
        SPIN_UNTIL(f, guest(f, "v1")->run == BL_RUN_PAUSED);
        assert_int_equal(virDomainResume(d), 0);
        SPIN_UNTIL(f, guest(f, "v1")->run == BL_RUN_RUNNING);
        assert_int_equal(virDomainDestroy(d), 0);
        SPIN_UNTIL(f, !guest(f, "v1"));
        /* what became of it can still be asked */
        assert_int_equal(bl_control_explain(f->m, "v1", &doc), 0);
        assert_true(json_array_size(json_object_get(doc, "events")) >= 2);
        json_decref(doc);
        assert_int_equal(bl_control_explain(f->m, "v2", &doc), -ENOENT);
        assert_int_equal(bl_control_show(f->m, "v1", &doc), -ENOENT);
}

/* How it ended is not lost when libvirt is just being asked about it. */
static void test_ends_while_described(void **state)
{
        struct fixture *f = *state;

        for (int i = 0; i < 10; i++) {
                virDomainPtr d = vm_create(f, "v1", false);
                json_t *doc = NULL;

                SPIN_UNTIL(f, is_known(f, "v1"));
                assert_int_equal(virDomainDestroy(d), 0);
                bl_discover_describe(guest(f, "v1"));
                SPIN_UNTIL(f, !guest(f, "v1"));
                assert_int_equal(bl_control_explain(f->m, "v1", &doc), 0);
                json_decref(doc);
                assert_int_equal(events_of(f, "vm.stopped"), i + 1);
                virDomainFree(f->vms[--f->n_vms]);
        }
}

/* A VM that starts while libvirt makes its list is not in the list. */
static void test_started_while_listing(void **state)
{
        struct fixture *f = *state;
        const struct bl_virt_event ev = {
                .kind = BL_VIRT_STARTED, .uuid = {1, 2, 3}, .name = "early", .actual = BL_UNSET};

        assert_false(f->m->listing);
        bl_discover_all(f->m);
        assert_true(f->m->listing);
        bl_discover_event(f->m, &ev);
        SPIN_UNTIL(f, !f->m->listing);
        /* only that libvirt does not know it takes it away */
        assert_int_equal(events_of(f, "vm.gone"), 0);
        SPIN_UNTIL(f, !guest(f, "early"));
}

/* What is said of a VM that was off is not taken for one that has started since. */
static void test_late_answer(void **state)
{
        struct fixture *f = *state;
        struct bl_virt_event ev = {.kind = BL_VIRT_STOPPED, .name = "test", .actual = BL_UNSET};
        struct bl_guest *g = guest(f, "test");
        virDomainPtr d = virDomainLookupByName(f->other, "test");
        uint64_t serial = g->serial;

        memcpy(ev.uuid, g->uuid, BL_UUID_LEN);
        assert_int_equal(virDomainDestroy(d), 0);
        /* asked while it is off; before the answer the loop hears that it went and that it came */
        bl_discover_describe(g);
        assert_true(g->describing);
        usleep(100 * 1000);
        assert_int_equal(virDomainCreate(d), 0);
        bl_discover_event(f->m, &ev);
        ev.kind = BL_VIRT_STARTED;
        bl_discover_event(f->m, &ev);
        g = guest(f, "test");
        assert_non_null(g);
        assert_true(g->serial > serial);
        serial = g->serial;
        g->seen = true;
        /* libvirt's own two events come once more; the last word is that it runs */
        SPIN_UNTIL(f, guest(f, "test") && guest(f, "test")->serial > serial && is_known(f, "test"));
        /* it was there when libvirt's own "stopped" came: the late answer had not taken it away */
        assert_int_equal(events_of(f, "vm.stopped"), 2);
        virDomainFree(d);
}

/* An administrator's hold is for the VM, whatever process it has; it ends with the VM. */
static void test_hold_outlives_the_process(void **state)
{
        struct fixture *f = *state;
        virDomainPtr d = vm_create(f, "v1", true);
        uint8_t uuid[BL_UUID_LEN];

        SPIN_UNTIL(f, is_known(f, "v1"));
        memcpy(uuid, guest(f, "v1")->uuid, sizeof(uuid));
        ASK(f, bl_control_hold(f->m, "v1", true, on_done, f));
        assert_int_equal(virDomainDestroy(d), 0);
        /* what was asked before it was off, and is answered afterwards */
        if (guest(f, "v1"))
                bl_discover_describe(guest(f, "v1"));
        SPIN_UNTIL(f, !guest(f, "v1"));
        assert_int_equal(virDomainCreate(d), 0);
        SPIN_UNTIL(f, is_known(f, "v1"));
        assert_string_equal(hold_of(f, "v1"), "admin");
        assert_int_equal(virDomainDestroy(d), 0);
        SPIN_UNTIL(f, !guest(f, "v1"));
        assert_non_null(bl_ledger_find(f->m->ledger, uuid));
        assert_int_equal(virDomainUndefine(d), 0);
        SPIN_UNTIL(f, !bl_ledger_find(f->m->ledger, uuid));
}

/* Describing failed while it hung, say: what changed is asked for again. */
static void test_describe_is_made_up_for(void **state)
{
        struct fixture *f = *state;
        struct bl_guest *g = guest(f, "test");

        g->looked_for_process = 100; /* it has none, and that is known */
        g->describe_due = true;
        free(g->name);
        g->name = strdup("another");
        bl_poll_soon(g, 0);
        SPIN_UNTIL(f, strcmp(g->name, "test") == 0);
        assert_false(g->describe_due);
        /* "migrating" ends without an event when the migration failed */
        g->desc->migrating = true;
        bl_poll_soon(g, 0);
        SPIN_UNTIL(f, !g->desc->migrating);
}

/* --- what an administrator says -------------------------------------------------- */

static void test_holds_and_act_are_kept(void **state)
{
        struct fixture *f = *state;
        json_t *d = NULL;

        ASK(f, bl_control_hold(f->m, "nobody", true, on_done, f));
        assert_int_equal(f->r, -ENOENT);
        ASK(f, bl_control_hold(f->m, "test", true, on_done, f));
        assert_int_equal(f->r, 0);
        ASK(f, bl_control_hold(f->m, NULL, true, on_done, f));
        ASK(f, bl_control_act(f->m, true, on_done, f));
        assert_int_equal(f->r, 0);
        /* on, and yet nothing happens: it says why */
        assert_non_null(strstr(f->message, "on hold"));
        assert_false(bl_manager_acting(f->m));

        restart(f, "test");
        assert_string_equal(hold_of(f, "test"), "admin");
        d = status(f);
        assert_true(json_is_true(json_object_get(d, "held")));
        assert_string_equal(json_string_value(json_object_get(d, "acting_from")), "ballastctl");
        json_decref(d);
        ASK(f, bl_control_hold(f->m, "", false, on_done, f));
        assert_true(bl_manager_acting(f->m));
        assert_string_equal(hold_of(f, "test"), "admin");
        ASK(f, bl_control_hold(f->m, guest(f, "test")->uuid_text, false, on_done, f));
        ASK(f, bl_control_act(f->m, false, on_done, f));

        restart(f, "test");
        assert_string_equal(hold_of(f, "test"), "none");
        assert_false(bl_ledger_held(f->m->ledger));
        assert_int_equal(bl_ledger_act(f->m->ledger), 0);
}

static void test_hand(void **state)
{
        struct fixture *f = *state;
        usec_t now = bl_now();
        struct bl_guest *g;

        (void)vm_create(f, "v1", false);
        SPIN_UNTIL(f, is_known(f, "v1"));
        g = guest(f, "v1");
        balloon_is_at(g, BL_GIB, now);
        balloon_is_at(g, BL_GIB, now + 5 * BL_SEC);
        balloon_is_at(g, 700 * BL_MIB + 12 * BL_KIB, now + 6 * BL_SEC);
        balloon_is_at(g, 700 * BL_MIB + 12 * BL_KIB, now + 10 * BL_SEC);
        assert_string_equal(hold_of(f, "v1"), "hand");
        assert_int_equal(events_of(f, "hold.hand"), 1);
        ASK(f, bl_control_hold(f->m, "v1", true, on_done, f));
        /* the administrator's hold is not weakened by another hand */
        balloon_is_at(g, 600 * BL_MIB + 12 * BL_KIB, now + 20 * BL_SEC);
        balloon_is_at(g, 600 * BL_MIB + 12 * BL_KIB, now + 30 * BL_SEC);
        assert_int_equal(events_of(f, "hold.hand"), 2);
        assert_string_equal(hold_of(f, "v1"), "admin");
}

static void test_balloon_by_hand(void **state)
{
        struct fixture *f = *state;
        virDomainPtr d = vm_create(f, "v1", false);
        const struct bl_ledger_vm *v;
        virDomainInfo info;
        struct bl_guest *g;

        SPIN_UNTIL(f, is_known(f, "v1"));
        g = guest(f, "v1");
        ASK(f, bl_control_balloon(f->m, "nobody", BL_GIB, false, on_done, f));
        assert_int_equal(f->r, -ENOENT);
        ASK(f, bl_control_balloon(f->m, "v1", BL_GIB, false, on_done, f));
        assert_int_equal(f->r, -EAGAIN);
        balloon_is(g, BL_GIB);
        ASK(f, bl_control_balloon(f->m, "v1", 2 * BL_GIB, false, on_done, f));
        assert_int_equal(f->r, -ERANGE);
        ASK(f, bl_control_balloon(f->m, "v1", 2 * BL_GIB, true, on_done, f));
        assert_int_equal(f->r, -ERANGE);
        ASK(f, bl_control_balloon(f->m, "v1", BL_MIB, false, on_done, f));
        assert_int_equal(f->r, -ERANGE);
        assert_int_equal(virDomainSuspend(d), 0);
        SPIN_UNTIL(f, g->run == BL_RUN_PAUSED);
        ASK(f, bl_control_balloon(f->m, "v1", 768 * BL_MIB, false, on_done, f));
        assert_int_equal(f->r, -ESTALE);
        assert_int_equal(virDomainResume(d), 0);
        SPIN_UNTIL(f, g->run == BL_RUN_RUNNING);
        assert_string_equal(hold_of(f, "v1"), "none");

        ASK(f, bl_control_balloon(f->m, "v1", 256 * BL_MIB, true, on_done, f));
        assert_int_equal(f->r, 0);
        assert_string_equal(hold_of(f, "v1"), "manual");
        ASK(f, bl_control_balloon(f->m, "v1", 512 * BL_MIB, false, on_done, f));
        assert_int_equal(f->r, -EBUSY);
        SPIN_UNTIL(f, events_of(f, "balloon.by-hand") == 1);
        assert_string_equal(event_of(f, "balloon.by-hand", 0)->outcome, "done");
        assert_int_equal(virDomainGetInfo(d, &info), 0);
        assert_int_equal(info.memory, 768 * 1024);
        v = bl_ledger_find(f->m->ledger, g->uuid);
        assert_int_equal(v->original, BL_GIB);
        assert_int_equal(g->target, 768 * BL_MIB);

        /* all of that is known after a restart, too */
        restart(f, "v1");
        balloon_is(guest(f, "v1"), 768 * BL_MIB);
        assert_string_equal(hold_of(f, "v1"), "manual");
        assert_int_equal(guest(f, "v1")->target, 768 * BL_MIB);
        assert_int_equal(bl_rollback_left(f->m), 1);
}

/* What cannot be written down is not done, and what is not done is not held. */
static void test_ledger_cannot_be_written(void **state)
{
        struct fixture *f = *state;
        struct bl_guest *g;
        char path[128];

        (void)vm_create(f, "v1", false);
        SPIN_UNTIL(f, is_known(f, "v1"));
        g = guest(f, "v1");
        balloon_is(g, BL_GIB);
        snprintf(path, sizeof(path), "%s/state/ledger.json.tmp", f->dir);
        assert_int_equal(mkdir(path, 0700), 0);
        ASK(f, bl_control_balloon(f->m, "v1", 512 * BL_MIB, false, on_done, f));
        assert_true(f->r < 0);
        assert_string_equal(hold_of(f, "v1"), "none");
        assert_false(bl_balloon_in_flight(f->m->balloon, g->uuid));
        ASK(f, bl_control_rollback(f->m, on_done, f));
        assert_true(f->r < 0);
        assert_false(rollback_is(f, "running"));
        assert_int_equal(bl_ledger_act(f->m->ledger), -1);
        ASK(f, bl_control_hold(f->m, "v1", true, on_done, f));
        assert_true(f->r < 0);
        assert_true(strlen(f->message) > 0);
        /* again when it can be */
        assert_int_equal(rmdir(path), 0);
        ASK(f, bl_control_act(f->m, false, on_done, f));
        assert_int_equal(f->r, 0);
        restart(f, "v1");
        assert_string_equal(hold_of(f, "v1"), "admin");
}

static void test_set(void **state)
{
        struct fixture *f = *state;
        const struct bl_vm_settings none = BL_VM_SETTINGS_NONE;
        struct bl_vm_settings s = none;
        virDomainPtr d = vm_create(f, "v1", false);
        json_t *doc = NULL;
        struct bl_guest *g;

        SPIN_UNTIL(f, is_known(f, "v1"));
        g = guest(f, "v1");
        s.limit = 512 * BL_MIB;
        s.reservation = 256 * BL_MIB;
        s.shares = 77;
        s.managed = 0;
        ASK(f, bl_control_set_vm(f->m, "nobody", &s, true, false, on_done, f));
        assert_int_equal(f->r, -ENOENT);
        ASK(f, bl_control_set_vm(f->m, "v1", &s, true, true, on_done, f));
        assert_int_equal(f->r, -EOPNOTSUPP);
        ASK(f, bl_control_set_vm(f->m, "v1", &s, true, false, on_done, f));
        assert_int_equal(f->r, 0);
        SPIN_UNTIL(f, !bl_guest_managed(g));
        assert_int_equal(bl_guest_limit(g), 512 * BL_MIB);
        assert_int_equal(bl_guest_reservation(g), 256 * BL_MIB);
        assert_int_equal(bl_guest_shares(g), 77);

        s = none;
        s.limit = 2 * BL_GIB;
        ASK(f, bl_control_set_vm(f->m, "v1", &s, true, false, on_done, f));
        assert_int_equal(f->r, -ERANGE);
        s.limit = 128 * BL_MIB; /* below the reservation that it has */
        ASK(f, bl_control_set_vm(f->m, "v1", &s, true, false, on_done, f));
        assert_int_equal(f->r, -ERANGE);
        s.limit = BL_UNSET;
        s.shares = 0;
        ASK(f, bl_control_set_vm(f->m, "v1", &s, true, false, on_done, f));
        assert_int_equal(f->r, -ERANGE);

        /* somebody else's nonsense: said, and left alone */
        assert_int_equal(virDomainSetMetadata(d, VIR_DOMAIN_METADATA_ELEMENT, "<memory limit='lots'/>", "ballast",
                                              BL_METADATA_URI, VIR_DOMAIN_AFFECT_LIVE),
                         0);
        SPIN_UNTIL(f, g->desc->live.metadata_error);
        assert_false(bl_guest_managed(g));
        assert_int_equal(bl_control_show(f->m, "v1", &doc), 0);
        assert_true(json_is_string(json_object_get(doc, "settings_error")));
        json_decref(doc);
        assert_int_equal(events_of(f, "vm.metadata"), 1);
}

/* A call that libvirt has not answered is answered once when the daemon ends. */
static void test_set_while_ending(void **state)
{
        struct fixture *f = *state;
        const struct bl_vm_settings s = {BL_UNSET, BL_UNSET, 5, -1, -1};

        bl_control_set_vm(f->m, "test", &s, true, false, on_done, f);
        assert_int_equal(f->answers, 0);
        stop(f);
        assert_int_equal(f->answers, 1);
}

/* --- reload -------------------------------------------------------------------- */

static uint64_t budget(const struct fixture *f)
{
        bl_sample_now(f->m);
        return f->m->host.budget;
}

static size_t warnings(const struct fixture *f)
{
        json_t *d = status(f);
        size_t n = json_array_size(json_object_get(d, "warnings"));

        json_decref(d);
        return n;
}

static void test_reload(void **state)
{
        struct fixture *f = *state;
        char *message = NULL;

        assert_int_equal(budget(f), BL_GIB);
        assert_int_equal(warnings(f), 0);
        write_conf(f, "test:///default", "budget=2G\n[vm]\nmanage=perhaps\n");
        assert_int_equal(bl_control_reload(f->m, &message), -EINVAL);
        assert_non_null(strstr(message, "perhaps"));
        free(BL_TAKE(message));
        assert_int_equal(budget(f), BL_GIB);

        write_conf(f, "test:///default",
                   "budget=2G\nnonsense=1\n[vm]\nmanage=no\nreservation=64M\n[daemon]\nact=yes\n");
        assert_int_equal(bl_control_reload(f->m, &message), 0);
        assert_null(message);
        assert_int_equal(budget(f), 2 * BL_GIB);
        assert_int_equal(warnings(f), 1);
        assert_false(bl_guest_managed(guest(f, "test")));
        assert_int_equal(bl_guest_reservation(guest(f, "test")), 64 * BL_MIB);
        assert_true(bl_manager_acting(f->m));

        /* what takes a restart is said to who asked */
        write_conf(f, "test:///elsewhere", "");
        assert_int_equal(bl_control_reload(f->m, &message), 0);
        assert_non_null(strstr(message, "restarted"));
        free(BL_TAKE(message));
        assert_true(f->m->connected);

        assert_int_equal(unlink(f->conf_file), 0);
        assert_int_equal(bl_control_reload(f->m, &message), -EINVAL);
        free(message);
        assert_int_equal(bl_control_reload(f->m, NULL), -EINVAL);
}

static void test_warnings_of_the_start(void **state)
{
        struct fixture *f = *state;

        write_conf(f, "test:///default", "nonsense=1\n");
        start(f);
        assert_int_equal(warnings(f), 1);
}

/* --- rollback ------------------------------------------------------------------ */

static void test_rollback_of_nothing(void **state)
{
        struct fixture *f = *state;

        ASK(f, bl_control_act(f->m, true, on_done, f));
        ASK(f, bl_control_rollback(f->m, on_done, f));
        assert_int_equal(f->r, 0);
        assert_false(bl_manager_acting(f->m));
        assert_true(rollback_is(f, "running"));
        SPIN_UNTIL(f, rollback_is(f, "done"));
        assert_false(rollback_is(f, "running"));
        assert_null(f->m->rollback_timer);
        /* nothing is touched from now on, whoever restarts it */
        restart(f, "test");
        assert_true(rollback_is(f, "done"));
        assert_false(bl_manager_acting(f->m));
        ASK(f, bl_control_act(f->m, true, on_done, f));
        assert_false(rollback_is(f, "done"));
        assert_true(bl_manager_acting(f->m));
        restart(f, "test");
        assert_false(rollback_is(f, "done"));
}

static size_t n_of(const struct fixture *f, const char *reason, const char *outcome)
{
        size_t n = 0;

        for (size_t i = 0; event_of(f, reason, i); i++)
                n += strcmp(event_of(f, reason, i)->outcome, outcome) == 0;
        return n;
}

/* It ends with the daemon, and goes on with the next. */
static void test_rollback_goes_on(void **state)
{
        struct fixture *f = *state;
        virDomainPtr vm = vm_create(f, "v1", false);
        struct bl_guest *g;
        virDomainInfo info;
        json_t *d = NULL;

        SPIN_UNTIL(f, is_known(f, "v1"));
        balloon_is(guest(f, "v1"), BL_GIB);
        ASK(f, bl_control_balloon(f->m, "v1", 768 * BL_MIB, false, on_done, f));
        SPIN_UNTIL(f, events_of(f, "balloon.by-hand") == 1);
        balloon_is(guest(f, "v1"), 768 * BL_MIB);
        ASK(f, bl_control_rollback(f->m, on_done, f));
        assert_non_null(strstr(f->message, "1 VM"));

        restart(f, "v1");
        assert_true(rollback_is(f, "running"));
        assert_false(bl_manager_acting(f->m));
        assert_int_equal(events_of(f, "recover.rollback"), 1);
        assert_int_equal(json_integer_value(in_status(f, &d, "rollback", "vms_left")), 1);
        json_decref(d);
        g = guest(f, "v1");
        balloon_is(g, 768 * BL_MIB);
        ASK(f, bl_control_balloon(f->m, "v1", 512 * BL_MIB, false, on_done, f));
        assert_int_equal(f->r, -EBUSY);
        /* one step is enough for so little; the driver has no guest that follows */
        SPIN_UNTIL(f, n_of(f, "rollback", "done") == 1);
        assert_int_equal(virDomainGetInfo(vm, &info), 0);
        assert_int_equal(info.memory, 1024 * 1024);
        assert_true(rollback_is(f, "running"));
        balloon_is(g, BL_GIB);
        SPIN_UNTIL(f, rollback_is(f, "done"));
        assert_null(f->m->rollback_timer);
        assert_false(bl_ledger_vm_dirty(bl_ledger_find(f->m->ledger, g->uuid)));
        /* the step, the VM, the whole */
        assert_int_equal(n_of(f, "rollback", "done"), 3);
}

/* Without libvirt nothing is tried, and a failure that repeats is told once. */
static void test_rollback_waits(void **state)
{
        struct fixture *f = *state;
        virDomainPtr vm = vm_create(f, "v1", false);
        struct bl_guest *g;

        SPIN_UNTIL(f, is_known(f, "v1"));
        g = guest(f, "v1");
        balloon_is(g, BL_GIB);
        assert_int_equal(bl_ledger_set_original(f->m->ledger, g->uuid, 768 * BL_MIB), 1);
        assert_int_equal(virDomainSuspend(vm), 0);
        SPIN_UNTIL(f, g->run == BL_RUN_PAUSED);
        ASK(f, bl_control_rollback(f->m, on_done, f));
        SPIN(f, 500 * BL_MSEC);
        assert_int_equal(n_of(f, "rollback", "waits"), 1);
        assert_true(rollback_is(f, "running"));
        f->m->connected = false;
        g->run = BL_RUN_RUNNING;
        SPIN(f, 300 * BL_MSEC);
        assert_int_equal(f->m->n_commands + f->m->n_failed, 0);
        f->m->connected = true;
        /* the daemon takes it to run; it is looked at once more */
        SPIN_UNTIL(f, f->m->n_failed > 2 || g->run == BL_RUN_PAUSED);
        assert_true(n_of(f, "rollback", "refused") <= 1);
        assert_int_equal(g->target_at, 0);
}

static void test_act_ends_rollback(void **state)
{
        struct fixture *f = *state;

        (void)vm_create(f, "v1", false);
        SPIN_UNTIL(f, is_known(f, "v1"));
        balloon_is(guest(f, "v1"), BL_GIB);
        ASK(f, bl_control_balloon(f->m, "v1", 768 * BL_MIB, false, on_done, f));
        SPIN_UNTIL(f, events_of(f, "balloon.by-hand") == 1);
        ASK(f, bl_control_rollback(f->m, on_done, f));
        ASK(f, bl_control_rollback(f->m, on_done, f)); /* twice is once */
        assert_int_equal(f->r, 0);
        ASK(f, bl_control_act(f->m, true, on_done, f));
        assert_int_equal(f->r, 0);
        assert_non_null(strstr(f->message, "1 VMs not put back"));
        assert_false(rollback_is(f, "running"));
        assert_false(rollback_is(f, "done"));
        assert_true(bl_manager_acting(f->m));
        SPIN(f, 50 * BL_MSEC);
        assert_true(bl_manager_acting(f->m));
}

/* A VM that was in a file while everything was put back is put back when it returns. */
static void test_rollback_of_a_saved_vm(void **state)
{
        struct fixture *f = *state;
        struct bl_guest *g;

        ASK(f, bl_control_rollback(f->m, on_done, f));
        SPIN_UNTIL(f, rollback_is(f, "done"));
        (void)vm_create(f, "v1", false);
        SPIN_UNTIL(f, is_known(f, "v1"));
        g = guest(f, "v1");
        assert_int_equal(bl_ledger_add(f->m->ledger, g->uuid, g->name, NULL), 0);
        assert_int_equal(bl_ledger_set_original(f->m->ledger, g->uuid, BL_GIB), 1);
        g->birth = BL_BIRTH_MOVED;
        balloon_is(g, 768 * BL_MIB);
        assert_true(rollback_is(f, "running"));
}

/* --- after kill -9 ------------------------------------------------------------- */

static void test_in_flight_is_told_once(void **state)
{
        struct fixture *f = *state;
        struct bl_guest *g;

        (void)vm_create(f, "v1", false);
        SPIN_UNTIL(f, is_known(f, "v1"));
        g = guest(f, "v1");
        balloon_is(g, BL_GIB);
        assert_int_equal(bl_ledger_set_original(f->m->ledger, g->uuid, BL_GIB), 1);
        assert_int_equal(bl_ledger_begin(f->m->ledger, g->uuid, BL_GIB, 640 * BL_MIB, bl_now_wall()), 0);
        assert_int_equal(bl_manager_save(f->m, false), 0);
        restart(f, "v1");
        balloon_is(guest(f, "v1"), 640 * BL_MIB);
        assert_int_equal(events_of(f, "recover.in-flight"), 1);
        assert_int_equal(guest(f, "v1")->target, 640 * BL_MIB);
        restart(f, "v1");
        balloon_is(guest(f, "v1"), 640 * BL_MIB);
        assert_int_equal(events_of(f, "recover.in-flight"), 0);
        assert_int_equal(guest(f, "v1")->target, 640 * BL_MIB);
        assert_string_equal(hold_of(f, "v1"), "none");
}

/* Something that passes for the QEMU of vm_create_as. */
static pid_t process_start(const struct fixture *f, const char *name, const char *uuid)
{
        char arg0[64], seconds[] = "60", *argv[] = {arg0, seconds, NULL}, *env[] = {NULL};
        char path[128], cmdline[64] = "";
        FILE *file;
        pid_t pid;

        snprintf(arg0, sizeof(arg0), "%s", uuid);
        assert_int_equal(posix_spawn(&pid, "/bin/sleep", NULL, NULL, argv, env), 0);
        /* the parent goes on a little before the new program has its arguments */
        snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
        while (strcmp(cmdline, uuid) != 0)
                assert_true(bl_fs_read(NULL, path, cmdline, sizeof(cmdline)) >= 0);
        snprintf(path, sizeof(path), "%s/qemu/%s.pid", f->dir, name);
        file = fopen(path, "we");
        assert_non_null(file);
        fprintf(file, "%d\n", (int)pid);
        assert_int_equal(fclose(file), 0);
        return pid;
}

/* The record of what a VM had is not made before it is told to which process
 * it belongs: else that would void it. */
static void test_period_is_recorded_for_the_process(void **state)
{
        static const char uuid[] = "11111111-2222-4333-8444-555555555555";
        struct fixture *f = *state;
        pid_t pid = process_start(f, "v1", uuid);
        const struct bl_ledger_vm *v;
        struct bl_guest *g;

        (void)vm_create_as(f, "v1", uuid, false);
        SPIN_UNTIL(f, is_known(f, "v1"));
        g = guest(f, "v1");
        assert_true(g->desc->has_instance);
        assert_int_equal(g->desc->instance.pid, pid);
        assert_int_equal(g->birth, BL_BIRTH_BOOTED);
        assert_false(g->watching);
        assert_null(bl_ledger_find(f->m->ledger, g->uuid));
        balloon_is(g, BL_GIB);
        assert_true(g->watching);
        v = bl_ledger_find(f->m->ledger, g->uuid);
        assert_int_equal(v->instance.pid, pid);
        assert_int_equal(v->original_period, 0);
        /* and rollback undoes it */
        ASK(f, bl_control_rollback(f->m, on_done, f));
        SPIN_UNTIL(f, rollback_is(f, "done"));
        assert_false(bl_ledger_vm_dirty(v));
        bl_discover_describe(g);
        SPIN_UNTIL(f, is_known(f, "v1"));
        assert_int_equal(g->desc->live.stats_period, 0);
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* One that is not ours to ask any more has its period back. */
static void test_period_goes_back(void **state)
{
        struct fixture *f = *state;
        struct bl_vm_settings s = {BL_UNSET, BL_UNSET, BL_UNSET, 0, -1};
        const struct bl_ledger_vm *v;
        struct bl_guest *g;

        (void)vm_create(f, "v1", false);
        SPIN_UNTIL(f, is_known(f, "v1"));
        g = guest(f, "v1");
        balloon_is(g, BL_GIB);
        v = bl_ledger_find(f->m->ledger, g->uuid);
        assert_int_equal(v->original_period, 0);
        assert_int_equal(g->desc->live.stats_period, 2);
        ASK(f, bl_control_set_vm(f->m, "v1", &s, true, false, on_done, f));
        SPIN_UNTIL(f, v->original_period < 0);
        assert_int_equal(g->desc->live.stats_period, 0);
        s.managed = 1;
        ASK(f, bl_control_set_vm(f->m, "v1", &s, true, false, on_done, f));
        SPIN_UNTIL(f, v->original_period == 0 && g->desc->live.stats_period == 2);
        /* and when the configuration leaves it alone */
        write_conf(f, "test:///default", "[vm]\nstats_period=0\n");
        assert_int_equal(bl_control_reload(f->m, NULL), 0);
        SPIN_UNTIL(f, v->original_period < 0 && g->desc->live.stats_period == 0);
}

#define STARTED(test) cmocka_unit_test_setup_teardown(test, setup_started, teardown)
#define ALONE(test)   cmocka_unit_test_setup_teardown(test, setup_dirs, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                STARTED(test_starts_and_ends),
                STARTED(test_second_is_refused),
                STARTED(test_ends_with_calls_under_way),
                ALONE(test_without_libvirt),
                STARTED(test_come_and_go),
                STARTED(test_ends_while_described),
                STARTED(test_started_while_listing),
                STARTED(test_late_answer),
                STARTED(test_hold_outlives_the_process),
                STARTED(test_describe_is_made_up_for),
                STARTED(test_holds_and_act_are_kept),
                STARTED(test_hand),
                STARTED(test_balloon_by_hand),
                STARTED(test_ledger_cannot_be_written),
                STARTED(test_set),
                STARTED(test_set_while_ending),
                STARTED(test_reload),
                ALONE(test_warnings_of_the_start),
                STARTED(test_rollback_of_nothing),
                STARTED(test_rollback_goes_on),
                STARTED(test_rollback_waits),
                STARTED(test_act_ends_rollback),
                STARTED(test_rollback_of_a_saved_vm),
                STARTED(test_in_flight_is_told_once),
                STARTED(test_period_is_recorded_for_the_process),
                STARTED(test_period_goes_back),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
