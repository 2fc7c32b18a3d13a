/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the manager shows: the documents of daemon/control.h, the metrics, the
 * settings in force of a VM. */
#include "tests/unit/test-manager-util.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "daemon/storelink.h"

/* --- settings in force ------------------------------------------------------------ */

struct model {
        struct bl_conf conf;
        struct bl_manager m;
        struct bl_domain_desc desc;
        struct bl_guest g;
};

static void model_init(struct model *x)
{
        *x = (struct model){
                .conf = {.manage_default = true, .default_reservation = 128 * BL_MIB, .shares_per_mib = 10},
                .desc = {.live = {.memory = 2 * BL_GIB, .metadata = BL_VM_METADATA_NONE}},
        };
        x->m.conf = &x->conf;
        x->g.m = &x->m;
        x->g.desc = &x->desc;
}

static void test_managed(void **state)
{
        struct model x;

        (void)state;
        model_init(&x);
        assert_true(bl_guest_managed(&x.g));
        x.conf.manage_default = false;
        assert_false(bl_guest_managed(&x.g));
        x.desc.live.metadata.manage = 1;
        assert_true(bl_guest_managed(&x.g));
        x.conf.manage_default = true;
        x.desc.live.metadata.manage = 0;
        assert_false(bl_guest_managed(&x.g));
        /* what is not understood might have said no */
        x.desc.live.metadata.manage = -1;
        x.desc.live.metadata_error = (char *)"?";
        assert_false(bl_guest_managed(&x.g));
        /* before libvirt has described it */
        x.g.desc = NULL;
        assert_true(bl_guest_managed(&x.g));
}

static void test_limit(void **state)
{
        struct model x;

        (void)state;
        model_init(&x);
        assert_int_equal(bl_guest_max(&x.g), 2 * BL_GIB);
        assert_int_equal(bl_guest_limit(&x.g), 2 * BL_GIB);
        /* the persistent currentMemory, where it says less */
        x.desc.config = (struct bl_domain_info){.memory = 2 * BL_GIB, .current = BL_GIB};
        assert_int_equal(bl_guest_limit(&x.g), 2 * BL_GIB);
        x.desc.persistent = true;
        assert_int_equal(bl_guest_limit(&x.g), BL_GIB);
        x.desc.config.current = x.desc.config.memory;
        assert_int_equal(bl_guest_limit(&x.g), 2 * BL_GIB);
        /* of a definition with more than what runs */
        x.desc.config = (struct bl_domain_info){.memory = 8 * BL_GIB, .current = 4 * BL_GIB};
        assert_int_equal(bl_guest_limit(&x.g), 2 * BL_GIB);
        x.desc.live.metadata.limit = 512 * BL_MIB;
        assert_int_equal(bl_guest_limit(&x.g), 512 * BL_MIB);
        x.desc.live.metadata.limit = BL_UNSET - 1;
        assert_int_equal(bl_guest_limit(&x.g), 2 * BL_GIB);
        x.g.desc = NULL;
        assert_int_equal(bl_guest_limit(&x.g), 0);
        assert_int_equal(bl_guest_max(&x.g), 0);
}

static void test_reservation_and_shares(void **state)
{
        struct model x;

        (void)state;
        model_init(&x);
        assert_int_equal(bl_guest_reservation(&x.g), 128 * BL_MIB);
        x.desc.live.metadata.reservation = 0; /* said, and not the same as not said */
        assert_int_equal(bl_guest_reservation(&x.g), 0);
        x.desc.live.metadata.reservation = 4 * BL_GIB;
        assert_int_equal(bl_guest_reservation(&x.g), 2 * BL_GIB);
        x.desc.live.metadata.limit = BL_GIB;
        assert_int_equal(bl_guest_reservation(&x.g), BL_GIB);

        assert_int_equal(bl_guest_shares(&x.g), 20480);
        x.conf.shares_per_mib = 1;
        assert_int_equal(bl_guest_shares(&x.g), 2048);
        x.desc.live.metadata.shares_kind = BL_SHARES_KIND_HIGH;
        assert_int_equal(bl_guest_shares(&x.g), 40960);
        x.desc.live.metadata.shares_kind = BL_SHARES_KIND_NUMBER;
        x.desc.live.metadata.shares = 3;
        assert_int_equal(bl_guest_shares(&x.g), 3);
        x.g.desc = NULL;
        assert_int_equal(bl_guest_reservation(&x.g), 0);
        assert_int_equal(bl_guest_shares(&x.g), 0);
}

static void test_best_statistics(void **state)
{
        struct model x;
        usec_t now = 100 * BL_SEC;

        (void)state;
        model_init(&x);
        assert_int_equal(bl_guest_stats_best(&x.g, now)->source, BL_STATS_NONE);
        x.g.balloon_stats = (struct bl_guest_stats){.source = BL_STATS_BALLOON, .at = now, .period = 2 * BL_SEC};
        assert_int_equal(bl_guest_stats_best(&x.g, now)->source, BL_STATS_BALLOON);
        x.g.agent_stats = (struct bl_guest_stats){.source = BL_STATS_AGENT, .at = now - BL_SEC, .period = BL_SEC};
        assert_int_equal(bl_guest_stats_best(&x.g, now)->source, BL_STATS_AGENT);
        x.g.agent_stats.at = now - 4 * BL_SEC;
        assert_int_equal(bl_guest_stats_best(&x.g, now)->source, BL_STATS_BALLOON);
        x.g.balloon_stats.at = now - 5 * BL_SEC;
        assert_int_equal(bl_guest_stats_best(&x.g, now)->source, BL_STATS_AGENT);
}

/* --- documents -------------------------------------------------------------------- */

/* A field and what it may be: string, integer (not negative), boolean, object, array, null. */
struct field {
        const char *name;
        const char *types; /* of "sibodn"; a is an array */
};

static char type_of(const json_t *v)
{
        switch (json_typeof(v)) {
        case JSON_STRING:
                return 's';
        case JSON_INTEGER:
                assert_true(json_integer_value(v) >= 0);
                return 'i';
        case JSON_TRUE:
        case JSON_FALSE:
                return 'b';
        case JSON_OBJECT:
                return 'o';
        case JSON_ARRAY:
                return 'a';
        case JSON_NULL:
                return 'n';
        case JSON_REAL:
                break;
        }
        return '?';
}

/* Exactly these fields: what is added is added to control.h and ballastctl-json(7), too. */
static void assert_fields(json_t *o, const struct field *fields, size_t n)
{
        const char *key;
        json_t *v;

        assert_true(json_is_object(o));
        for (size_t i = 0; i < n; i++) {
                v = json_object_get(o, fields[i].name);
                if (!v)
                        fail_msg("there is no '%s'", fields[i].name);
                if (!strchr(fields[i].types, type_of(v)))
                        fail_msg("'%s' is of type %c", fields[i].name, type_of(v));
        }
        json_object_foreach(o, key, v)
        {
                bool found = false;

                for (size_t i = 0; i < n; i++)
                        found = found || strcmp(fields[i].name, key) == 0;
                if (!found)
                        fail_msg("'%s' is not described", key);
        }
}

#define FIELDS(o, ...)                                                        \
        do {                                                                  \
                const struct field _f[] = {__VA_ARGS__};                      \
                assert_fields((json_t *)(o), _f, sizeof(_f) / sizeof(_f[0])); \
        } while (0)

static void assert_schema(const json_t *d)
{
        assert_int_equal(json_integer_value(json_object_get(d, "schema")), BL_SCHEMA_VERSION);
}

static void test_status(void **state)
{
        struct fixture *f = *state;
        json_t *d = NULL;

        SPIN_UNTIL(f, f->m->planned);
        assert_int_equal(bl_control_status(f->m, &d), 0);
        assert_schema(d);
        FIELDS(d, {"schema", "i"}, {"version", "s"}, {"acting", "b"}, {"acting_from", "s"}, {"held", "b"},
               {"state", "s"}, {"since_us", "i"}, {"budget", "o"}, {"marks", "o"}, {"psi", "o"}, {"swap", "o"},
               {"store", "o"}, {"sharing", "o"}, {"libvirt", "o"}, {"vms", "o"}, {"totals", "o"}, {"conflicts", "a"},
               {"warnings", "a"}, {"rollback", "o"});
        FIELDS(json_object_get(d, "budget"), {"kind", "s"}, {"bytes", "i"}, {"used", "i"}, {"free", "i"},
               {"growth_per_s", "i"});
        FIELDS(json_object_get(d, "marks"), {"min_free", "i"}, {"high", "i"}, {"clear", "i"}, {"soft", "i"},
               {"hard", "i"}, {"low", "i"});
        FIELDS(json_object_get(d, "psi"), {"known", "b"}, {"some_us", "i"}, {"full_us", "i"});
        FIELDS(json_object_get(d, "swap"), {"total", "i"}, {"free", "i"});
        FIELDS(json_object_get(d, "store"), {"state", "s"}, {"pool", "n"});
        FIELDS(json_object_get(d, "sharing"), {"mode", "s"}, {"state", "s"}, {"saved", "i"}, {"error", "sn"});
        FIELDS(json_object_get(d, "libvirt"), {"uri", "s"}, {"connected", "b"}, {"error", "sn"});
        FIELDS(json_object_get(d, "vms"), {"known", "i"}, {"managed", "i"}, {"held", "i"}, {"stuck", "i"},
               {"not_reclaimable", "i"});
        FIELDS(json_object_get(d, "totals"), {"max", "i"}, {"actual", "i"}, {"resident", "i"}, {"taken", "i"});
        FIELDS(json_object_get(d, "rollback"), {"running", "b"}, {"done", "b"}, {"vms_left", "i"});
        /* a balloon that was not seen yet has not taken all of the memory */
        assert_int_equal(json_integer_value(json_object_get(json_object_get(d, "totals"), "taken")), 0);
        json_decref(d);
}

/* Of one VM; `named`: it is in a list of its own. */
static void assert_store_part(json_t *s, bool named)
{
        json_t *copy = json_copy(s);

        if (named) {
                assert_true(json_is_string(json_object_get(copy, "name")) &&
                            json_is_string(json_object_get(copy, "uuid")));
                (void)json_object_del(copy, "name");
                (void)json_object_del(copy, "uuid");
        }
        FIELDS(copy, {"stage", "s"}, {"why", "sn"}, {"size", "i"}, {"used", "in"}, {"swapped", "i"}, {"held", "i"},
               {"zero", "i"}, {"shared", "i"}, {"stored", "i"}, {"disk", "i"}, {"stale", "i"}, {"twice", "i"},
               {"ratio", "in"}, {"limit", "in"}, {"group", "s"}, {"writes", "i"}, {"reads", "i"}, {"errors", "i"});
        json_decref(copy);
}

static void assert_kernel_part(json_t *k, bool named)
{
        json_t *copy = json_copy(k);

        if (named) {
                assert_true(json_is_string(json_object_get(copy, "name")) &&
                            json_is_string(json_object_get(copy, "uuid")));
                (void)json_object_del(copy, "name");
                (void)json_object_del(copy, "uuid");
        }
        FIELDS(copy, {"swapped", "i"}, {"paged_out", "i"}, {"read_back", "i"}, {"read_back_per_s", "i"},
               {"backoff_us", "i"}, {"idle_us", "i"}, {"by_cgroup", "b"}, {"why", "sn"});
        json_decref(copy);
}

static void assert_vm(json_t *vm, bool with_history)
{
        const char *key;
        json_t *v, *copy = json_copy(vm);
        static const struct field stats[] = {
                {"source", "s"},   {"age_us", "i"},    {"total", "in"},        {"available", "in"},
                {"unused", "in"},  {"caches", "in"},   {"swap_total", "in"},   {"swap_free", "in"},
                {"swap_in", "in"}, {"swap_out", "in"}, {"major_faults", "in"}, {"psi_some_us", "in"},
        };

        if (with_history) {
                assert_schema(vm);
                json_object_foreach(vm, key, v)
                {
                        if (strcmp(key, "history") == 0)
                                assert_true(json_is_array(v));
                }
                assert_int_equal(json_object_del(copy, "schema"), 0);
                assert_int_equal(json_object_del(copy, "history"), 0);
        }
        FIELDS(copy, {"name", "s"}, {"uuid", "s"}, {"pid", "i"}, {"run", "s"}, {"managed", "b"}, {"hold", "s"},
               {"hold_reason", "sn"}, {"reclaimable", "b"}, {"why_not", "sn"}, {"settings_error", "sn"}, {"max", "i"},
               {"limit", "i"}, {"reservation", "i"}, {"shares", "i"}, {"actual", "in"}, {"target", "in"},
               {"original", "in"}, {"resident", "i"}, {"overhead", "i"}, {"held_twice", "i"}, {"held_twice_freed", "i"},
               {"shared_saved", "i"}, {"floor", "i"}, {"want", "i"}, {"speed", "i"}, {"asked", "b"}, {"deaf_us", "i"},
               {"stuck", "b"}, {"lying", "b"}, {"hung", "b"}, {"oom_deflates", "i"}, {"stats", "o"}, {"agent", "on"},
               {"store", "o"}, {"kernel", "o"}, {"decision", "on"});
        assert_store_part(json_object_get(copy, "store"), false);
        assert_kernel_part(json_object_get(copy, "kernel"), false);
        v = json_object_get(copy, "stats");
        if (strcmp(json_string_value(json_object_get(v, "source")), "none") != 0)
                assert_fields(v, stats, sizeof(stats) / sizeof(stats[0]));
        v = json_object_get(copy, "decision");
        if (json_is_object(v))
                FIELDS(v, {"reason", "s"}, {"sentence", "s"}, {"act", "b"}, {"from", "i"}, {"to", "i"});
        json_decref(copy);
}

/* A guest of which everything is known, and that says absurd things. */
static struct bl_guest *full_guest(struct fixture *f)
{
        usec_t now = bl_now();
        struct bl_guest *g;

        (void)vm_create(f, "v1", false);
        SPIN_UNTIL(f, is_known(f, "v1"));
        g = guest(f, "v1");
        balloon_is(g, BL_GIB);
        g->agent_stats = (struct bl_guest_stats){
                .source = BL_STATS_AGENT,
                .at = now,
                .period = 3600 * BL_SEC,
                .total = BL_GIB,
                .available = UINT64_MAX - 1,
                .unused = BL_UNSET,
        };
        bl_tick_now(f->m);
        assert_true(g->decided);
        return g;
}

static void test_list_and_show(void **state)
{
        struct fixture *f = *state;
        struct bl_guest *g = full_guest(f);
        json_t *d = NULL, *vms, *stats;

        assert_int_equal(bl_control_list(f->m, &d), 0);
        FIELDS(d, {"schema", "i"}, {"vms", "a"});
        assert_schema(d);
        vms = json_object_get(d, "vms");
        assert_int_equal(json_array_size(vms), 2);
        for (size_t i = 0; i < 2; i++)
                assert_vm(json_array_get(vms, i), false);
        json_decref(d);

        assert_int_equal(bl_control_show(f->m, g->uuid_text, &d), 0);
        assert_vm(d, true);
        assert_int_equal(json_integer_value(json_object_get(d, "actual")), BL_GIB);
        assert_true(json_is_object(json_object_get(d, "decision")));
        stats = json_object_get(d, "stats");
        assert_true(json_is_null(json_object_get(stats, "unused")));
        /* no figure is so large that it looks negative */
        assert_int_equal(json_integer_value(json_object_get(stats, "available")), INT64_MAX);
        json_decref(d);
        /* not seen: not known, and not nothing */
        assert_int_equal(bl_control_show(f->m, "test", &d), 0);
        assert_vm(d, true);
        assert_true(json_is_null(json_object_get(d, "actual")));
        assert_true(json_is_null(json_object_get(d, "target")));
        json_decref(d);
        assert_int_equal(bl_control_show(f->m, "nobody", &d), -ENOENT);
}

static void test_plan(void **state)
{
        struct fixture *f = *state;
        json_t *d = NULL, *list;

        (void)full_guest(f);
        assert_int_equal(bl_control_plan(f->m, &d), 0);
        assert_schema(d);
        FIELDS(d, {"schema", "i"}, {"state", "s"}, {"shortfall", "i"}, {"coming", "i"}, {"unmet", "i"}, {"lead", "i"},
               {"acting", "b"}, {"decisions", "a"});
        list = json_object_get(d, "decisions");
        assert_int_equal(json_array_size(list), 1);
        FIELDS(json_array_get(list, 0), {"vm", "s"}, {"act", "b"}, {"reason", "s"}, {"sentence", "s"}, {"from", "i"},
               {"to", "i"}, {"floor", "i"});
        json_decref(d);
}

static void test_explain(void **state)
{
        struct fixture *f = *state;
        json_t *d = NULL, *events;
        uint64_t before = 0;

        bl_manager_note(f->m, guest(f, "test"), LOG_INFO, BL_EV_VM, "a", "seen", BL_UNSET, 5, "of the VM");
        bl_manager_note(f->m, NULL, LOG_INFO, BL_EV_STATE, "b", "seen", BL_UNSET, BL_UNSET, "of the host");
        assert_int_equal(bl_control_explain(f->m, NULL, &d), 0);
        assert_schema(d);
        FIELDS(d, {"schema", "i"}, {"events", "a"});
        events = json_object_get(d, "events");
        for (size_t i = 0; i < json_array_size(events); i++) {
                json_t *e = json_array_get(events, i);
                uint64_t at = (uint64_t)json_integer_value(json_object_get(e, "at_us"));

                FIELDS(e, {"at_us", "i"}, {"vm", "sn"}, {"reason", "s"}, {"sentence", "s"}, {"from", "in"},
                       {"to", "in"}, {"outcome", "s"});
                assert_true(at >= before);
                before = at;
        }
        json_decref(d);
        assert_int_equal(bl_control_explain(f->m, "test", &d), 0);
        events = json_object_get(d, "events");
        for (size_t i = 0; i < json_array_size(events); i++)
                assert_string_equal(json_string_value(json_object_get(json_array_get(events, i), "vm")), "test");
        json_decref(d);
        assert_int_equal(bl_control_explain(f->m, "", &d), 0);
        json_decref(d);
}

static void test_config(void **state)
{
        struct fixture *f = *state;
        json_t *d = NULL, *list, *act = NULL;

        ASK(f, bl_control_act(f->m, true, on_done, f));
        assert_int_equal(bl_control_config(f->m, &d), 0);
        assert_schema(d);
        list = json_object_get(d, "settings");
        assert_true(json_array_size(list) > 20);
        for (size_t i = 0; i < json_array_size(list); i++) {
                json_t *s = json_array_get(list, i);

                FIELDS(s, {"section", "s"}, {"key", "s"}, {"value", "s"}, {"source", "s"});
                if (strcmp(json_string_value(json_object_get(s, "key")), "Act") == 0)
                        act = s;
        }
        assert_non_null(act);
        assert_string_equal(json_string_value(json_object_get(act, "value")), "yes");
        assert_string_equal(json_string_value(json_object_get(act, "source")), "ballastctl");
        json_decref(d);
}

/* --- names from others --------------------------------------------------------------- */

#define HOSTILE "a\"b\\c\nd\xff\xc3,\xed\xa0\x80z"

static void rename_guest(struct bl_guest *g, const char *name)
{
        free(g->name);
        g->name = strdup(name);
        assert_non_null(g->name);
}

static void test_hostile_names(void **state)
{
        struct fixture *f = *state;
        struct bl_guest *g = full_guest(f);
        json_t *d = NULL;
        char *text, name[300];

        rename_guest(g, HOSTILE);
        bl_manager_note(f->m, g, LOG_INFO, BL_EV_VM, "a", "seen", BL_UNSET, BL_UNSET, "%s", g->name);
        assert_int_equal(bl_control_list(f->m, &d), 0);
        text = json_dumps(d, 0);
        assert_non_null(text);
        /* as much of it as can be said */
        assert_non_null(strstr(text, "a\\\"b\\\\c\\nd??,???z"));
        free(text);
        json_decref(d);

        /* so long that it is cut within a character */
        for (size_t i = 0; i + 2 < sizeof(name); i += 2)
                memcpy(name + i, "\xc3\xa4", 2);
        name[0] = 'x';
        name[1] = 'y';
        name[sizeof(name) - 2] = '\0';
        memmove(name, name + 1, strlen(name));
        rename_guest(g, name);
        bl_manager_note(f->m, g, LOG_INFO, BL_EV_VM, "a", "seen", BL_UNSET, BL_UNSET, "%s", g->name);
        assert_int_equal(bl_control_explain(f->m, NULL, &d), 0);
        text = json_dumps(d, JSON_ENSURE_ASCII);
        assert_non_null(text);
        assert_non_null(strstr(text, "y\\u00E4\\u00E4"));
        free(text);
        json_decref(d);
}

/* --- tiers --------------------------------------------------------------------------- */

/* A store that says this, whatever it is asked. */
struct fake_store {
        int listener, fd;
        sd_event_source *accept, *io;
        struct bl_store_reply reply;
};

static int on_request(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
        struct fake_store *x = userdata;
        struct bl_store_request q;

        (void)revents;
        if (recv(fd, &q, sizeof q, MSG_DONTWAIT) <= 0) {
                (void)sd_event_source_set_enabled(s, SD_EVENT_OFF);
                return 0;
        }
        x->reply.magic = BL_STORE_CONTROL_MAGIC;
        assert_int_equal(send(fd, &x->reply, sizeof x->reply, MSG_NOSIGNAL), sizeof x->reply);
        return 0;
}

static int on_caller(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
        struct fake_store *x = userdata;

        (void)revents;
        x->fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        assert_true(x->fd >= 0);
        assert_int_equal(sd_event_add_io(sd_event_source_get_event(s), &x->io, x->fd, EPOLLIN, on_request, x), 0);
        return 0;
}

/* The manager starts anew, with a store that the configuration names. */
static void with_store(struct fixture *f, struct fake_store *x)
{
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        char conf[256];

        (void)snprintf(a.sun_path, sizeof a.sun_path, "%s/store.sock", f->dir);
        x->fd = -1;
        x->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(x->listener, (struct sockaddr *)&a, sizeof a), 0);
        assert_int_equal(listen(x->listener, 1), 0);
        assert_int_equal(sd_event_add_io(f->event, &x->accept, x->listener, EPOLLIN, on_caller, x), 0);
        (void)snprintf(conf, sizeof conf, "[store]\npool_size=1G\ncontrol=%s\n", a.sun_path);
        write_conf(f, "test:///default", conf);
        restart(f, "test");
        SPIN_UNTIL(f, bl_storelink_figures(f->m->storelink, NULL));
}

static void without_store(struct fake_store *x)
{
        sd_event_source_disable_unref(x->io);
        sd_event_source_disable_unref(x->accept);
        if (x->fd >= 0)
                close(x->fd);
        if (x->listener >= 0)
                close(x->listener);
        *x = (struct fake_store){.fd = -1, .listener = -1};
}

static uint64_t figure(const json_t *o, const char *name)
{
        return (uint64_t)json_integer_value(json_object_get(o, name));
}

static void test_tiers(void **state)
{
        struct fixture *f = *state;
        json_t *d = NULL, *k;

        SPIN_UNTIL(f, f->m->planned);
        assert_int_equal(bl_control_tiers(f->m, &d), 0);
        assert_schema(d);
        FIELDS(d, {"schema", "i"}, {"store", "o"}, {"vms", "a"}, {"all", "o"}, {"kernel", "o"});
        FIELDS(json_object_get(d, "store"), {"state", "s"});
        assert_string_equal(json_string_value(json_object_get(json_object_get(d, "store"), "state")), "none");
        FIELDS(json_object_get(d, "all"), {"swapped", "i"}, {"held", "i"}, {"zero", "i"}, {"shared", "i"},
               {"stored", "i"}, {"disk", "i"}, {"stale", "i"}, {"twice", "i"});
        assert_int_equal(json_array_size(json_object_get(d, "vms")), 1);
        assert_store_part(json_array_get(json_object_get(d, "vms"), 0), true);
        k = json_object_get(d, "kernel");
        FIELDS(k, {"zram", "a"}, {"zswap", "o"}, {"swaps", "a"}, {"vms", "a"}, {"all", "o"}, {"cpu_us", "i"});
        FIELDS(json_object_get(k, "zswap"), {"there", "b"}, {"enabled", "b"}, {"compressor", "s"},
               {"max_pool_percent", "i"}, {"held", "in"}, {"used", "in"}, {"ratio", "i"});
        FIELDS(json_object_get(k, "all"), {"swapped", "i"}, {"paged_out", "i"}, {"read_back", "i"});
        assert_int_equal(json_array_size(json_object_get(k, "vms")), 1);
        assert_kernel_part(json_array_get(json_object_get(k, "vms"), 0), true);
        json_decref(d);
}

static void test_sharing(void **state)
{
        struct fixture *f = *state;
        json_t *d = NULL, *vm;

        SPIN_UNTIL(f, f->m->planned);
        assert_int_equal(bl_control_sharing(f->m, &d), 0);
        assert_schema(d);
        FIELDS(d, {"schema", "i"}, {"mode", "s"}, {"group", "s"}, {"error", "sn"}, {"state", "s"}, {"reason", "s"},
               {"sentence", "s"}, {"warnings", "a"}, {"ksm", "on"}, {"cpu_us", "o"}, {"cpu_us_per_mib", "in"},
               {"gain", "i"}, {"reserve", "i"}, {"all", "o"}, {"vms", "a"});
        assert_string_equal(json_string_value(json_object_get(d, "mode")), "off");
        assert_string_equal(json_string_value(json_object_get(d, "state")), "off");
        FIELDS(json_object_get(d, "cpu_us"), {"ksmd", "i"}, {"khugepaged", "i"}, {"scan", "i"});
        FIELDS(json_object_get(d, "all"), {"present", "i"}, {"merged", "i"}, {"saved", "i"}, {"gain", "i"},
               {"zero", "i"}, {"breaks", "i"});
        assert_int_equal(json_array_size(json_object_get(d, "vms")), 1);
        vm = json_array_get(json_object_get(d, "vms"), 0);
        FIELDS(vm, {"name", "s"}, {"uuid", "s"}, {"group", "s"}, {"asked", "s"}, {"mode", "s"}, {"why_not", "sn"},
               {"merging", "bn"}, {"evidence_age_us", "in"}, {"present", "i"}, {"zero", "i"}, {"gain", "i"},
               {"gain_low", "i"}, {"gain_high", "i"}, {"merged", "i"}, {"saved", "i"}, {"breaks", "i"},
               {"zero_out", "i"}, {"cpu_us", "i"}, {"reason", "s"}, {"sentence", "s"});
        assert_string_equal(json_string_value(json_object_get(vm, "mode")), "off");
        assert_true(json_is_null(json_object_get(vm, "merging")));
        json_decref(d);
}

static void test_tiers_with_store(void **state)
{
        struct fixture *f = *state;
        struct fake_store x = {
                .reply = {.fixed = 5 * BL_MIB,
                          .figures = {.incarnation = UINT64_MAX, /* more than JSON has */
                                      .pool_size = BL_GIB,
                                      .pool_ready = 512 * BL_MIB,
                                      .pool_used = 90 * BL_MIB,
                                      .payload = 50 * BL_MIB,
                                      .index = 10 * BL_MIB,
                                      .disk_size = BL_GIB,
                                      .disk_used = 25 * BL_MIB,
                                      .held = 300 * BL_MIB,
                                      .unique = 150 * BL_MIB,
                                      .writes = 1000,
                                      .read_p99 = 1500}},
        };
        struct bl_guest *g;
        json_t *d = NULL, *s, *vm;

        with_store(f, &x);
        g = guest(f, "test");
        g->swap = (struct bl_guest_swap){.stage = BL_SWAP_STAGE_ON,
                                         .size = BL_GIB,
                                         .seen = true,
                                         .used = 80 * BL_MIB,
                                         .cached = 3 * BL_MIB,
                                         .held = {.held = 70 * BL_MIB,
                                                  .zero = 30 * BL_MIB,
                                                  .shared = 9,
                                                  .stored = 20 * BL_MIB,
                                                  .limit = BL_UNSET,
                                                  .group = "web",
                                                  .ratio = 2500,
                                                  .write_pages = 7,
                                                  .read_pages = 8}};
        assert_int_equal(bl_control_tiers(f->m, &d), 0);
        s = json_object_get(d, "store");
        FIELDS(s, {"state", "s"}, {"age_us", "i"}, {"incarnation", "i"}, {"pool", "o"}, {"stored", "i"},
               {"payload", "i"}, {"slack", "i"}, {"tables", "i"}, {"index", "i"}, {"fixed", "i"}, {"held", "i"},
               {"zero", "i"}, {"unique", "i"}, {"disk", "o"}, {"headroom", "i"}, {"promised", "i"}, {"backing", "i"},
               {"ratio", "i"}, {"dedup", "i"}, {"overall", "i"}, {"writes", "i"}, {"reads", "i"}, {"trims", "i"},
               {"dedup_hits", "i"}, {"demoted", "i"}, {"disk_reads", "i"}, {"errors", "i"}, {"waiting", "i"},
               {"latency", "o"});
        FIELDS(json_object_get(s, "pool"), {"size", "i"}, {"ready", "i"}, {"used", "i"});
        FIELDS(json_object_get(s, "disk"), {"size", "i"}, {"used", "i"}, {"failed", "b"});
        FIELDS(json_object_get(s, "latency"), {"write_p50_us", "i"}, {"write_p99_us", "i"}, {"read_p50_us", "i"},
               {"read_p99_us", "i"}, {"oldest_us", "i"});
        assert_string_equal(json_string_value(json_object_get(s, "state")), "there");
        assert_int_equal(figure(s, "stored"), 100 * BL_MIB);
        /* 75 of 150 MiB, 150 of 300, 125 of 300 */
        assert_int_equal(figure(s, "ratio"), 5000);
        assert_int_equal(figure(s, "dedup"), 5000);
        assert_int_equal(figure(s, "overall"), 4166);
        vm = json_array_get(json_object_get(d, "vms"), 0);
        assert_store_part(vm, true);
        assert_string_equal(json_string_value(json_object_get(vm, "stage")), "on");
        assert_string_equal(json_string_value(json_object_get(vm, "group")), "web");
        assert_int_equal(figure(vm, "swapped"), 100 * BL_MIB);
        assert_int_equal(figure(vm, "stale"), 20 * BL_MIB);
        assert_int_equal(figure(vm, "twice"), 3 * BL_MIB);
        assert_int_equal(figure(vm, "ratio"), 2500);
        assert_true(json_is_null(json_object_get(vm, "limit")));
        assert_int_equal(figure(json_object_get(d, "all"), "swapped"), 100 * BL_MIB);
        json_decref(d);

        /* what it says of another process of the VM is nothing of this one */
        g->swap.seen = false;
        assert_int_equal(bl_control_tiers(f->m, &d), 0);
        assert_int_equal(figure(json_object_get(d, "all"), "swapped"), 0);
        json_decref(d);
        /* what the guest does not say is not reckoned with */
        g->swap.seen = true;
        g->swap.used = g->swap.cached = BL_UNSET;
        assert_int_equal(bl_control_tiers(f->m, &d), 0);
        assert_int_equal(figure(json_object_get(d, "all"), "stale"), 0);
        assert_int_equal(figure(json_object_get(d, "all"), "twice"), 0);
        json_decref(d);

        without_store(&x);
        SPIN_UNTIL(f, bl_storelink_state(f->m->storelink) == BL_STORELINK_AWAY);
        assert_int_equal(bl_control_status(f->m, &d), 0);
        s = json_object_get(d, "store");
        assert_string_equal(json_string_value(json_object_get(s, "state")), "away");
        assert_int_equal(figure(json_object_get(s, "pool"), "used"), 90 * BL_MIB);
        json_decref(d);
}

/* --- metrics ------------------------------------------------------------------------- */

/* Each family once, its samples with it, UNIT and HELP before them. */
static void assert_openmetrics(const char *text)
{
        _cleanup_free_ char *copy = strdup(text);
        char families[96][64], family[64] = "", type[16] = "", *save = NULL;
        size_t n = 0, len = strlen(text);

        assert_non_null(copy);
        assert_true(len > 6);
        assert_string_equal(text + len - 6, "# EOF\n");
        for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
                char name[64];

                if (strcmp(line, "# EOF") == 0) {
                        assert_null(strtok_r(NULL, "\n", &save));
                        return;
                }
                if (sscanf(line, "# TYPE %63s %15s", name, type) == 2) {
                        for (size_t i = 0; i < n; i++)
                                assert_string_not_equal(families[i], name);
                        assert_true(n < 96);
                        memcpy(families[n++], name, sizeof(name));
                        memcpy(family, name, sizeof(name));
                } else if (line[0] == '#') {
                        assert_int_equal(sscanf(line, "# %*s %63s", name), 1);
                        assert_string_equal(name, family);
                } else {
                        size_t k = strcspn(line, "{ ");
                        const char *suffix = strcmp(type, "counter") == 0 ? "_total"
                                             : strcmp(type, "info") == 0  ? "_info"
                                                                          : "";

                        assert_int_equal(k, strlen(family) + strlen(suffix));
                        assert_memory_equal(line, family, strlen(family));
                        assert_memory_equal(line + strlen(family), suffix, strlen(suffix));
                }
        }
        fail_msg("no # EOF");
}

static void test_metrics_of_the_store(void **state)
{
        struct fixture *f = *state;
        struct fake_store x = {.reply = {.figures = {.pool_size = BL_GIB, .writes = 1000, .read_p99 = 1500}}};
        struct bl_guest *g;
        char *text = NULL;

        with_store(f, &x);
        g = guest(f, "test");
        assert_int_equal(bl_control_metrics(f->m, &text), 0);
        assert_openmetrics(text);
        assert_non_null(strstr(text, "\nballast_store_there 1\n"));
        assert_non_null(strstr(text, "\nballast_store_pool_size_bytes 1073741824\n"));
        assert_non_null(strstr(text, "\nballast_store_written_pages_total 1000\n"));
        assert_non_null(strstr(text, "\nballast_store_request_seconds{op=\"read\",quantile=\"0.99\"} 0.001500\n"));
        assert_null(strstr(text, "ballast_vm_store_swapped_bytes{"));
        assert_non_null(strstr(text, "\nballast_vm_host_swapped_bytes{vm=\"test\""));
        free(BL_TAKE(text));
        g->swap.seen = true;
        g->swap.held.held = 4096;
        g->swap.held.read_pages = 3;
        assert_int_equal(bl_control_metrics(f->m, &text), 0);
        assert_openmetrics(text);
        assert_non_null(strstr(text, "\nballast_vm_store_swapped_bytes{vm=\"test\""));
        assert_non_null(strstr(text, "\nballast_vm_store_pages_in_total{vm=\"test\""));
        free(text);
        without_store(&x);
}

static void test_metrics(void **state)
{
        struct fixture *f = *state;
        struct bl_guest *g = full_guest(f);
        char *text = NULL;

        assert_int_equal(bl_control_metrics(f->m, &text), 0);
        assert_openmetrics(text);
        assert_non_null(strstr(text, "ballast_vm_balloon_bytes{vm=\"v1\",uuid=\""));
        /* not seen is not nothing */
        assert_null(strstr(text, "ballast_vm_balloon_bytes{vm=\"test\""));
        assert_null(strstr(text, "ballast_vm_target_bytes{vm=\"test\""));
        assert_non_null(strstr(text, "ballast_vm_limit_bytes{vm=\"test\""));
        free(BL_TAKE(text));

        rename_guest(g, HOSTILE);
        assert_int_equal(bl_control_metrics(f->m, &text), 0);
        assert_openmetrics(text);
        assert_non_null(strstr(text, "ballast_vm_balloon_bytes{vm=\"a\\\"b\\\\c\\nd??,???z\",uuid=\""));
        free(text);
}

/* --- the policy's view --------------------------------------------------------------- */

static void test_to_vm(void **state)
{
        struct fixture *f = *state;
        usec_t now = bl_now();
        struct bl_guest *g;
        json_t *d = NULL;
        struct bl_vm vm;

        (void)vm_create(f, "v1", false);
        SPIN_UNTIL(f, is_known(f, "v1"));
        g = guest(f, "v1");
        /* what libvirt described is there, and that is not enough */
        assert_false(bl_guest_to_vm(g, now, &vm));
        assert_int_equal(vm.max, BL_GIB);
        balloon_is(g, 512 * BL_MIB);
        assert_true(bl_guest_to_vm(g, now, &vm));
        assert_memory_equal(vm.uuid, g->uuid, BL_UUID_LEN);
        assert_int_equal(vm.actual, 512 * BL_MIB);
        assert_int_equal(vm.target, 512 * BL_MIB);
        assert_int_equal(vm.target_at, 0);
        assert_true(vm.managed);
        assert_false(vm.hung);
        assert_false(vm.in_flight);
        assert_int_equal(vm.hold, BL_HOLD_NONE);
        assert_int_equal(vm.run, BL_RUN_RUNNING);
        assert_int_equal(vm.no_reclaim, BL_RECLAIM_OK);
        assert_true(vm.booted_at <= now);
        assert_int_equal(vm.offer[BL_ENGINE_BALLOON].gives, 512 * BL_MIB);
        assert_true(vm.offer[BL_ENGINE_BALLOON].takes > 0);
        assert_int_equal(vm.offer[BL_ENGINE_BALLOON].phase, bl_ledger_phase(f->m->ledger));
        g->target = 256 * BL_MIB;
        g->target_at = now;
        g->stopped = true;
        g->desc->migrating = true;
        ASK(f, bl_control_hold(f->m, "v1", true, on_done, f));
        assert_true(bl_guest_to_vm(g, now, &vm));
        assert_int_equal(vm.target, 256 * BL_MIB);
        assert_true(vm.hung);
        assert_int_equal(vm.run, BL_RUN_MIGRATING);
        assert_int_equal(vm.hold, BL_HOLD_ADMIN);
        /* one without a balloon */
        g->desc->live.balloon = false;
        assert_true(bl_guest_to_vm(g, now, &vm));
        assert_int_equal(vm.no_reclaim, BL_RECLAIM_NO_BALLOON);
        assert_int_equal(vm.offer[BL_ENGINE_BALLOON].takes, 0);
        assert_int_equal(vm.offer[BL_ENGINE_BALLOON].gives, 0);
        assert_int_equal(bl_control_show(f->m, "v1", &d), 0);
        assert_true(json_is_string(json_object_get(d, "why_not")));
        json_decref(d);
        ASK(f, bl_control_balloon(f->m, "v1", 512 * BL_MIB, false, on_done, f));
        assert_int_equal(f->r, -EOPNOTSUPP);
}

/* What would be done is said once for each thing, not once a tick. */
static void test_not_acting_is_said_once(void **state)
{
        struct fixture *f = *state;
        struct bl_guest *g = full_guest(f);
        size_t n = 0;

        g->agent_stats = (struct bl_guest_stats){0};
        assert_int_equal(virDomainSetMetadata(f->vms[0], VIR_DOMAIN_METADATA_ELEMENT, "<memory limit='512MiB'/>",
                                              "ballast", BL_METADATA_URI, VIR_DOMAIN_AFFECT_LIVE),
                         0);
        SPIN_UNTIL(f, bl_guest_limit(g) == 512 * BL_MIB);
        for (int i = 0; i < 20; i++)
                bl_tick_now(f->m);
        for (size_t i = 0; i < bl_history_count(f->m->history); i++)
                n += strcmp(bl_history_get(f->m->history, i)->outcome, "not-acting") == 0;
        assert_true(n <= 1);
}

#define STARTED(test) cmocka_unit_test_setup_teardown(test, setup_started, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_managed),
                cmocka_unit_test(test_limit),
                cmocka_unit_test(test_reservation_and_shares),
                cmocka_unit_test(test_best_statistics),
                STARTED(test_status),
                STARTED(test_list_and_show),
                STARTED(test_plan),
                STARTED(test_explain),
                STARTED(test_config),
                STARTED(test_hostile_names),
                STARTED(test_tiers),
                STARTED(test_sharing),
                STARTED(test_tiers_with_store),
                STARTED(test_metrics),
                STARTED(test_metrics_of_the_store),
                STARTED(test_to_vm),
                STARTED(test_not_acting_is_said_once),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
