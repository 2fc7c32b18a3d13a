/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Equal pages, from the settings to /sys: a whole manager over libvirt's test driver.  The monitor, the VMs' memory and
 * the host's /sys and /proc are the test's; sampling, policy and executor are the real ones. */
#include "tests/unit/test-manager-util.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/act/zero_pages.h"
#include "daemon/virt/domain_merge.h"

#define VMS   3
#define PAGES ((size_t)8192) /* of a VM: 32 MiB */

/* --- the VMs ------------------------------------------------------------------------ */

static const char *const names[VMS] = {"a", "b", "c"};

static struct vm {
        char uuid[37];
        pid_t pid;
        bool merge; /* as QEMU has it */
        bool was; /* as it starts */
        int reads, sets;
        bool deaf; /* questions are answered later (monitor_answers) */
        int refuse; /* what a set is answered with; 0 */
} vms[VMS];

/* The same in all of them, and no page is another's. */
static uint64_t *memory;
static atomic_uint opened;
static atomic_bool blocked; /* opening it takes until this is false */
static uint64_t zero_asked; /* bytes */

static struct vm *vm_of(const uint8_t uuid[BL_UUID_LEN])
{
        char text[37];

        bl_uuid_to_string(uuid, text);
        for (size_t i = 0; i < VMS; i++)
                if (strcmp(vms[i].uuid, text) == 0)
                        return &vms[i];
        fail_msg("the monitor of another VM was asked: %s", text);
        return NULL;
}

/* --- the monitor ---------------------------------------------------------------------- */

struct answer {
        struct answer *next;
        bl_domain_merge_fn fn;
        void *userdata;
        struct vm *vm;
        int r;
};

static sd_event *loop;
static struct answer *kept;

static int give(sd_event_source *s, void *userdata)
{
        struct answer *a = userdata;
        const struct bl_merge_state m = {.backends = 1, .on = a->vm->merge, .machine = true};

        a->fn(a->userdata, a->r, a->r < 0 ? "QEMU said no" : NULL, a->r < 0 ? NULL : &m);
        free(a);
        sd_event_source_unref(s);
        return 0;
}

static int defer(struct answer *a)
{
        sd_event_source *s;

        return sd_event_add_defer(loop, &s, give, a);
}

static int answer(struct vm *vm, int r, bl_domain_merge_fn fn, void *userdata)
{
        struct answer *a = malloc(sizeof(*a));

        assert_non_null(a);
        *a = (struct answer){.fn = fn, .userdata = userdata, .vm = vm, .r = r};
        if (!vm->deaf)
                return defer(a);
        a->next = kept;
        kept = a;
        return 0;
}

static void monitor_answers(void)
{
        while (kept) {
                struct answer *a = kept;

                kept = a->next;
                a->vm->deaf = false;
                assert_true(defer(a) >= 0);
        }
}

int bl_domain_read_merge(struct bl_conn *c, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *inst,
                         bl_domain_merge_fn fn, void *userdata)
{
        struct vm *vm = vm_of(uuid);

        (void)c;
        (void)inst;
        vm->reads++;
        return answer(vm, 0, fn, userdata);
}

static void record_is_on_disk(const char *uuid, bool was);

int bl_domain_set_merge(struct bl_conn *c, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *inst, bool on,
                        bl_domain_merge_fn fn, void *userdata)
{
        struct vm *vm = vm_of(uuid);

        (void)c;
        (void)inst;
        vm->sets++;
        record_is_on_disk(vm->uuid, vm->was);
        if (!vm->refuse)
                vm->merge = on;
        return answer(vm, vm->refuse, fn, userdata);
}

/* --- memory --------------------------------------------------------------------------- */

int bl_source_process(pid_t pid, uint64_t start, uint64_t guest_ram, const char *name, struct bl_source **ret,
                      char **ret_message)
{
        bool known = false;

        (void)ret_message;
        (void)guest_ram;
        for (size_t i = 0; i < VMS; i++)
                known = known || vms[i].pid == pid;
        assert_true(known && start > 0);
        opened++;
        while (blocked)
                (void)usleep(1000);
        return bl_source_memory(name, memory, PAGES, ret);
}

uint64_t bl_source_process_address(const struct bl_source *s, uint64_t page)
{
        (void)s;
        (void)page;
        return BL_UNSET;
}

int bl_source_process_pidfd(const struct bl_source *s)
{
        (void)s;
        return -1;
}

void bl_zero_pages_out(struct bl_source *s, uint64_t first, uint64_t pages, uint64_t bytes, usec_t time,
                       permyriad_t cpu, usec_t settle, const atomic_bool *stop, struct bl_zero_result *ret)
{
        (void)s;
        (void)pages;
        (void)time;
        (void)cpu;
        (void)settle;
        (void)stop;
        zero_asked = bytes;
        *ret = (struct bl_zero_result){.looked = 10, .out = 5, .next = first + 10, .cpu = 7};
}

/* --- the host ------------------------------------------------------------------------- */

static char root[128];

static const char *root_path(const char *path)
{
        static char full[256];

        snprintf(full, sizeof(full), "%s%s", root, path);
        return full;
}

static void put(const char *path, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void put(const char *path, const char *format, ...)
{
        FILE *f = fopen(root_path(path), "we");
        va_list ap;

        assert_non_null(f);
        va_start(ap, format);
        vfprintf(f, format, ap);
        va_end(ap);
        assert_int_equal(fclose(f), 0);
}

static uint64_t get(const char *path)
{
        char buf[64] = "";

        assert_true(bl_fs_read(root, path, buf, sizeof(buf) - 1) > 0);
        return strtoull(buf, NULL, 10);
}

#define KSM "/sys/kernel/mm/ksm/"
#define THP "/sys/kernel/mm/transparent_hugepage/"

static const struct {
        const char *knob, *value;
} knobs[] = {
        {KSM "run", "0"},
        {KSM "pages_to_scan", "100"},
        {KSM "sleep_millisecs", "20"},
        {KSM "smart_scan", "1"},
        {KSM "use_zero_pages", "0"},
        {KSM "max_page_sharing", "256"},
        {KSM "merge_across_nodes", "1"},
        {KSM "advisor_mode", "[none] scan-time"},
        {KSM "full_scans", "100"},
        {KSM "pages_shared", "0"},
        {KSM "pages_sharing", "0"},
        {KSM "pages_unshared", "0"},
        {KSM "pages_volatile", "0"},
        {KSM "ksm_zero_pages", "0"},
        {KSM "pages_scanned", "0"},
        {KSM "pages_skipped", "0"},
        {KSM "stable_node_chains", "0"},
        {KSM "stable_node_dups", "0"},
        {KSM "general_profit", "0"},
        {THP "enabled", "always madvise [never]"},
        {THP "khugepaged/max_ptes_none", "511"},
        {THP "khugepaged/max_ptes_shared", "256"},
        {THP "khugepaged/max_ptes_swap", "64"},
        {THP "khugepaged/pages_collapsed", "0"},
};

static bool knobs_are_found(void)
{
        for (size_t i = 0; i < sizeof(knobs) / sizeof(knobs[0]); i++) {
                char buf[64] = "";

                assert_true(bl_fs_read(root, knobs[i].knob, buf, sizeof(buf) - 1) > 0);
                buf[strcspn(buf, "\n")] = '\0';
                if (strcmp(buf, knobs[i].value) != 0) {
                        if (!strstr(knobs[i].knob, "scan") && !strstr(knobs[i].knob, "run"))
                                print_message("%s: %s\n", knobs[i].knob, buf);
                        return false;
                }
        }
        return true;
}

static void make_host(const struct fixture *f)
{
        char command[512];

        snprintf(root, sizeof(root), "%s/root", f->dir);
        snprintf(command, sizeof(command),
                 "cp -r " HOST_FIXTURE " %s && mkdir -p %s" THP "khugepaged && chmod -R u+w %s", root, root, root);
        assert_int_equal(system(command), 0); // NOLINT(cert-env33-c)
        for (size_t i = 0; i < sizeof(knobs) / sizeof(knobs[0]); i++)
                put(knobs[i].knob, "%s\n", knobs[i].value);
        for (size_t i = 0; i < PAGES; i++)
                memory[i * BL_PAGE_SIZE / sizeof(*memory)] = i + 1;
}

/* What the manager reads of a VM's process: the real one's files, but for its size. */
static void make_process(const struct vm *vm)
{
        char path[64], stat[1024] = "", to[128];

        snprintf(path, sizeof(path), "/proc/%d", (int)vm->pid);
        assert_int_equal(mkdir(root_path(path), 0755), 0);
        snprintf(path, sizeof(path), "/proc/%d/stat", (int)vm->pid);
        assert_true(bl_fs_read(NULL, path, stat, sizeof(stat) - 1) > 0);
        put(path, "%s", stat);
        snprintf(to, sizeof(to), "/proc/%d/status", (int)vm->pid);
        put(to,
            "Name:\tqemu\nVmLck:\t0 kB\nVmPin:\t0 kB\nRssAnon:\t%u kB\nRssFile:\t1000 kB\nRssShmem:\t0 kB\n"
            "VmSwap:\t0 kB\nHugetlbPages:\t0 kB\n",
            (unsigned)(PAGES * 4 + 32 * 1024));
        snprintf(to, sizeof(to), "/proc/%d/ksm_merging_pages", (int)vm->pid);
        put(to, "0\n");
        snprintf(to, sizeof(to), "/proc/%d/ksm_stat", (int)vm->pid);
        put(to, "ksm_rmap_items 0\nksm_zero_pages 0\nksm_merging_pages 0\nksm_process_profit 0\n");
}

static void vm_merged(const struct vm *vm, uint64_t pages)
{
        char to[128];

        snprintf(to, sizeof(to), "/proc/%d/ksm_merging_pages", (int)vm->pid);
        put(to, "%llu\n", (unsigned long long)pages);
        snprintf(to, sizeof(to), "/proc/%d/ksm_stat", (int)vm->pid);
        put(to, "ksm_rmap_items %zu\nksm_zero_pages 0\nksm_merging_pages %llu\nksm_process_profit 0\n", PAGES,
            (unsigned long long)pages);
}

/* --- a fixture ------------------------------------------------------------------------- */

static void vmm_start(const struct fixture *f, size_t i)
{
        struct vm *vm = &vms[i];
        char path[128];
        FILE *file;

        *vm = (struct vm){.was = true, .merge = true};
        snprintf(vm->uuid, sizeof(vm->uuid), "7f000000-0000-4000-8000-0000000000%02zx", 0xa0 + i);
        vm->pid = fork();
        assert_true(vm->pid >= 0);
        if (vm->pid == 0) {
                (void)setpgid(0, 0); /* so that its sleep ends with it */
                execl("/bin/sh", "sh", "-c", "sleep 300; :", "-uuid", vm->uuid, (char *)NULL);
                _exit(1);
        }
        (void)setpgid(vm->pid, vm->pid);
        snprintf(path, sizeof(path), "%s/qemu/%s.pid", f->dir, names[i]);
        file = fopen(path, "we");
        assert_non_null(file);
        fprintf(file, "%d", (int)vm->pid);
        assert_int_equal(fclose(file), 0);
        make_process(vm);
}

/* Runs it; `settings` are attributes of its metadata, `more` elements of its XML. */
static struct bl_guest *vm_run(struct fixture *f, size_t i, const char *settings, const char *more)
{
        char xml[1200];
        virDomainPtr d;

        snprintf(xml, sizeof(xml),
                 "<domain type='test'><name>%s</name><uuid>%s</uuid><metadata><ballast:memory "
                 "xmlns:ballast='urn:org.ballast1:vm:1' %s/></metadata><memory unit='KiB'>%zu</memory>"
                 "<vcpu>1</vcpu><os><type>hvm</type></os>%s<devices><memballoon model='virtio'/></devices></domain>",
                 names[i], vms[i].uuid, settings, PAGES * 4, more);
        d = virDomainCreateXML(f->other, xml, 0);
        assert_non_null(d);
        f->vms[f->n_vms++] = d;
        SPIN_UNTIL(f, is_known(f, names[i]) && guest(f, names[i])->desc->has_instance);
        balloon_is(guest(f, names[i]), PAGES * BL_PAGE_SIZE);
        return guest(f, names[i]);
}

static void configure(const struct fixture *f, const char *sharing)
{
        char more[512];

        snprintf(more, sizeof(more), "[daemon]\nact=yes\n[sharing]\nwake_at=4M\npays_at=1M\n%s\n", sharing);
        write_conf(f, "test:///default", more);
}

static void begin(struct fixture *f)
{
        const struct bl_manager_options o = {.root = root, .conf_file = f->conf_file};
        struct bl_conf_report rep = {0};
        struct bl_conf *conf = NULL;
        virDomainPtr d;

        assert_int_equal(bl_manager_load_conf(&o, &conf, &rep), 0);
        assert_int_equal(bl_manager_new(f->event, &o, conf, &rep, &f->m), 0);
        bl_conf_report_clear(&rep);
        SPIN_UNTIL(f, f->m->listed);
        if (f->other)
                return;
        /* the driver's own VM has no part in this */
        f->other = virConnectOpen("test:///default");
        assert_non_null(f->other);
        SPIN_UNTIL(f, is_known(f, "test"));
        d = virDomainLookupByName(f->other, "test");
        assert_int_equal(virDomainDestroy(d), 0);
        virDomainFree(d);
        SPIN_UNTIL(f, !guest(f, "test"));
}

static int setup(void **state)
{
        struct fixture *f;

        if (setup_dirs(state) < 0)
                return -1;
        f = *state;
        loop = f->event;
        opened = 0;
        blocked = false;
        zero_asked = 0;
        memory = calloc(PAGES, BL_PAGE_SIZE);
        assert_non_null(memory);
        make_host(f);
        for (size_t i = 0; i < VMS; i++)
                vmm_start(f, i);
        return 0;
}

static int teardown_share(void **state)
{
        struct fixture *f = *state;
        int r;

        monitor_answers();
        SPIN(f, 20 * BL_MSEC);
        for (size_t i = 0; i < VMS; i++) {
                (void)kill(-vms[i].pid, SIGKILL);
                (void)waitpid(vms[i].pid, NULL, 0);
        }
        r = teardown(state);
        free(memory);
        memory = NULL;
        return r;
}

static void record_is_on_disk(const char *uuid, bool was)
{
        char path[128];
        const json_t *vm;
        json_t *d;

        snprintf(path, sizeof(path), "%.*s/state/ledger.json", (int)(strrchr(root, '/') - root), root);
        d = json_load_file(path, 0, NULL);
        assert_non_null(d);
        vm = json_object_get(json_object_get(d, "vms"), uuid);
        assert_non_null(vm);
        assert_true(json_is_boolean(json_object_get(vm, "merge_was")));
        assert_int_equal(json_is_true(json_object_get(vm, "merge_was")), was);
        json_decref(d);
}

static bool driven(void)
{
        return get(KSM "run") == 1;
}

/* ksmd ended a pass in which it merged so many pages of each of the first `n` VMs in all. */
static void pass(size_t n, uint64_t merged)
{
        put(KSM "full_scans", "%llu\n", (unsigned long long)get(KSM "full_scans") + 1);
        put(KSM "pages_scanned", "%llu\n", (unsigned long long)(get(KSM "pages_scanned") + n * PAGES));
        put(KSM "pages_shared", "%llu\n", (unsigned long long)merged);
        put(KSM "pages_sharing", "%llu\n", (unsigned long long)(merged * (n - 1)));
        for (size_t i = 0; i < n; i++)
                vm_merged(&vms[i], merged);
}

#define TICKS(f)                         \
        for (int _i = 0; _i < 4; _i++) { \
                bl_tick_now((f)->m);     \
                SPIN(f, 100 * BL_MSEC);  \
        }

/* --- tests ----------------------------------------------------------------------------- */

static void test_off(void **state)
{
        struct fixture *f = *state;
        char events[4096];
        int fd, r;

        configure(f, "mode=off");
        begin(f);
        /* other controllers are looked for once, by reading ksm/run */
        SPIN_UNTIL(f, f->m->conflicts_at > 0);
        fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
        assert_true(inotify_add_watch(fd, root_path(KSM), IN_ALL_EVENTS) >= 0);
        (void)vm_run(f, 0, "group='web'", "");
        (void)vm_run(f, 1, "group='web' sharing='group'", "");
        TICKS(f);
        r = (int)read(fd, events, sizeof(events));
        assert_int_equal(r, -1);
        assert_int_equal(errno, EAGAIN);
        (void)close(fd);
        assert_int_equal(opened + (unsigned)(vms[0].reads + vms[0].sets + vms[1].reads + vms[1].sets), 0);
        assert_null(f->m->share.ksm);
        assert_null(f->m->share.evidence);
        assert_int_equal(guest(f, "b")->share.no_share, BL_NO_SHARE_HOST);
}

/* Two VMs that have everything in common: registered already, as QEMU does by itself. */
static void up(struct fixture *f)
{
        configure(f, "mode=group");
        begin(f);
        (void)vm_run(f, 0, "group='web'", "");
        (void)vm_run(f, 1, "group='web'", "");
        SPIN_UNTIL(f, driven());
}

static void test_drive_and_rest(void **state)
{
        struct fixture *f = *state;
        struct bl_share_status s;
        struct bl_vm_share vm;

        up(f);
        assert_int_equal(events_of(f, "share.drive") + events_of(f, "share.drive-new"), 1);
        assert_int_equal(get(KSM "smart_scan"), 0);
        bl_share_to_vm(guest(f, "a"), &vm);
        assert_int_equal(vm.mode, BL_SHARE_GROUP);
        assert_int_equal(vm.merging, 1);
        assert_true(vm.evidence_at > 0);
        /* a sample of an eighth says so; all that it has, but half of it counts as the other's */
        assert_in_range(vm.gain, PAGES * BL_PAGE_SIZE / 64, PAGES * BL_PAGE_SIZE);
        /* the tick is fast while it is driven */
        SPIN(f, 300 * BL_MSEC);
        assert_true(bl_now() - f->m->tick_at < 200 * BL_MSEC);

        for (int i = 0; i < 40 && driven(); i++) {
                pass(2, PAGES);
                SPIN(f, 150 * BL_MSEC);
        }
        assert_false(driven());
        assert_true(f->m->share.drives >= 1);
        bl_share_status(f->m, &s);
        assert_int_equal(s.merged, 2 * PAGES * BL_PAGE_SIZE);
        assert_false(s.driven);
        assert_string_equal(s.group, "web");
        /* at rest the knobs are ours still, and go back when it ends */
        assert_false(knobs_are_found());
        stop(f);
        put(KSM "full_scans", "100\n");
        put(KSM "pages_shared", "0\n");
        put(KSM "pages_sharing", "0\n");
        put(KSM "pages_scanned", "0\n");
        assert_true(knobs_are_found());
        /* and the VMs stay as they are */
        assert_true(vms[0].merge && vms[1].merge);
}

/* No VM outside the group may be registered when ksmd runs. */
static void test_outsider(void **state)
{
        struct fixture *f = *state;

        configure(f, "mode=group");
        vms[2].deaf = true;
        begin(f);
        (void)vm_run(f, 2, "sharing='zero'", "");
        (void)vm_run(f, 0, "group='web'", "");
        (void)vm_run(f, 1, "group='web'", "");
        SPIN_UNTIL(f, guest(f, "a")->share.met && guest(f, "b")->share.met);
        TICKS(f);
        assert_int_equal(vms[2].reads, 1);
        assert_int_equal(vms[2].sets, 0);
        assert_false(driven());
        /* whatever is planned */
        assert_false(bl_share_may_drive(f->m));
        assert_non_null(strstr(f->m->share.gate, "c: "));
        /* it says that it is registered: it is taken out first, and that is not answered either */
        monitor_answers();
        vms[2].deaf = true;
        SPIN_UNTIL(f, vms[2].sets == 1);
        TICKS(f);
        assert_false(vms[2].merge);
        assert_false(driven());
        monitor_answers();
        SPIN_UNTIL(f, driven());
        assert_int_equal(guest(f, "c")->share.merge_on, 0);
        /* back to what it was */
        ASK(f, bl_control_rollback(f->m, on_done, f));
        assert_false(driven());
        SPIN_UNTIL(f, bl_ledger_rollback(f->m->ledger) == BL_ROLLBACK_DONE);
        assert_true(vms[2].merge);
        assert_int_equal(vms[2].sets, 2);
        put(KSM "full_scans", "100\n");
        assert_true(knobs_are_found());
}

static void test_outsider_that_refuses(void **state)
{
        struct fixture *f = *state;

        configure(f, "mode=group");
        vms[2].refuse = -EIO;
        begin(f);
        (void)vm_run(f, 2, "manage='no'", "");
        (void)vm_run(f, 0, "group='web'", "");
        (void)vm_run(f, 1, "group='web'", "");
        SPIN_UNTIL(f, vms[2].sets == 1 && guest(f, "a")->share.met);
        TICKS(f);
        assert_false(driven());
        assert_int_equal(events_of(f, "share.failed"), 1);
        assert_non_null(strstr(event_of(f, "share.failed", 0)->sentence, "QEMU said no"));
}

static void test_leaves_the_group(void **state)
{
        struct fixture *f = *state;

        up(f);
        vms[1].deaf = true;
        assert_int_equal(virDomainSetMetadata(f->vms[1], VIR_DOMAIN_METADATA_ELEMENT,
                                              "<memory group='web' sharing='off'/>", "ballast", "urn:org.ballast1:vm:1",
                                              VIR_DOMAIN_AFFECT_LIVE),
                         0);
        SPIN_UNTIL(f, guest(f, "b")->share.mode == BL_SHARE_OFF);
        /* at once, before QEMU has done anything about it */
        SPIN_UNTIL_WITHIN(f, 300 * BL_MSEC, !driven());
        monitor_answers();
        SPIN_UNTIL(f, vms[1].sets == 1 && !vms[1].merge);
        assert_null(guest(f, "b")->share.source);
}

/* One that comes is not known: nothing is merged until it is. */
static void test_newcomer(void **state)
{
        struct fixture *f = *state;

        up(f);
        vms[2].deaf = true;
        (void)vm_run(f, 2, "group='web'", "");
        assert_false(driven());
        SPIN_UNTIL(f, vms[2].reads == 1);
        TICKS(f);
        assert_false(driven());
        monitor_answers();
        SPIN_UNTIL(f, driven());
}

static void test_two_groups(void **state)
{
        struct fixture *f = *state;
        struct bl_share_status s;

        configure(f, "mode=group");
        begin(f);
        (void)vm_run(f, 0, "group='web'", "");
        (void)vm_run(f, 1, "group='db'", "");
        TICKS(f);
        TICKS(f);
        assert_false(driven());
        assert_int_equal(events_of(f, "share.two-groups"), 1);
        bl_share_status(f->m, &s);
        assert_non_null(strstr(s.error, "'web'"));
        configure(f, "mode=group\ngroup=web");
        assert_int_equal(bl_control_reload(f->m, NULL), 0);
        SPIN_UNTIL(f, guest(f, "a")->share.mode == BL_SHARE_GROUP);
        assert_int_equal(guest(f, "b")->share.no_share, BL_NO_SHARE_OTHER_GROUP);
        bl_share_status(f->m, &s);
        assert_null(s.error);
}

static void test_yields(void **state)
{
        struct fixture *f = *state;

        up(f);
        put(KSM "pages_to_scan", "4711\n");
        SPIN_UNTIL(f, events_of(f, "share.yielded") == 1);
        assert_non_null(strstr(event_of(f, "share.yielded", 0)->sentence, "4711"));
        SPIN_UNTIL(f, !driven());
        TICKS(f);
        assert_false(driven());
        assert_int_equal(get(KSM "pages_to_scan"), 4711);
        assert_int_equal(get(KSM "smart_scan"), 1);
        assert_int_equal(bl_share_resume(f->m), 0);
        assert_int_equal(bl_share_resume(f->m), -EALREADY);
        SPIN_UNTIL(f, driven());
        stop(f);
        assert_int_equal(get(KSM "pages_to_scan"), 4711);
        assert_int_equal(get(KSM "run"), 0);
}

static void test_only_observing(void **state)
{
        struct fixture *f = *state;

        configure(f, "mode=group\n[daemon]\nact=no");
        begin(f);
        (void)vm_run(f, 2, "sharing='off'", "");
        (void)vm_run(f, 0, "group='web'", "");
        (void)vm_run(f, 1, "group='web'", "");
        SPIN_UNTIL(f, events_of(f, "share.leave") == 1);
        assert_string_equal(event_of(f, "share.leave", 0)->outcome, "not-acting");
        assert_int_equal(virDomainDestroy(f->vms[0]), 0);
        SPIN_UNTIL(f, events_of(f, "share.drive") + events_of(f, "share.drive-new") == 1);
        TICKS(f);
        assert_true(knobs_are_found());
        assert_int_equal(vms[0].sets + vms[1].sets + vms[2].sets, 0);
        ASK(f, bl_control_act(f->m, true, on_done, f));
        SPIN_UNTIL(f, driven());
        /* and off again: nothing of the host's is ours any more */
        ASK(f, bl_control_act(f->m, false, on_done, f));
        SPIN_UNTIL(f, knobs_are_found());
}

static void test_reload_to_off(void **state)
{
        struct fixture *f = *state;

        vms[0].was = vms[0].merge = false;
        configure(f, "mode=group");
        begin(f);
        (void)vm_run(f, 0, "group='web'", "");
        (void)vm_run(f, 1, "group='web'", "");
        SPIN_UNTIL(f, driven());
        assert_true(vms[0].merge);
        pass(2, 100);
        SPIN_UNTIL(f, guest(f, "a")->share.merged == 100 * BL_PAGE_SIZE);
        configure(f, "mode=off");
        assert_int_equal(bl_control_reload(f->m, NULL), 0);
        assert_false(driven());
        /* un-merged, as it was: the host has room */
        SPIN_UNTIL(f, !vms[0].merge);
        SPIN_UNTIL(f, bl_ledger_find(f->m->ledger, guest(f, "a")->uuid)->merge_was < 0);
        assert_true(vms[1].merge);
        SPIN_UNTIL(f, !f->m->share.evidence);
}

/* As if it had been killed just now: what it wrote, in /sys and on disk, is there still. */
static void kill_it(struct fixture *f)
{
        static char left[sizeof(knobs) / sizeof(knobs[0])][64], ledger[65536];
        char path[128];
        FILE *file;

        snprintf(path, sizeof(path), "%s/state/ledger.json", f->dir);
        memset(ledger, 0, sizeof(ledger));
        memset(left, 0, sizeof(left));
        assert_true(bl_fs_read(NULL, path, ledger, sizeof(ledger) - 1) > 0);
        for (size_t i = 0; i < sizeof(knobs) / sizeof(knobs[0]); i++)
                assert_true(bl_fs_read(root, knobs[i].knob, left[i], sizeof(left[i]) - 1) > 0);
        stop(f);
        for (size_t i = 0; i < sizeof(knobs) / sizeof(knobs[0]); i++)
                put(knobs[i].knob, "%s", left[i]);
        file = fopen(path, "we");
        assert_non_null(file);
        fputs(ledger, file);
        assert_int_equal(fclose(file), 0);
}

/* What a killed daemon left is put back by the next, with what its configuration says then. */
static void test_killed(void **state)
{
        struct fixture *f = *state;

        up(f);
        kill_it(f);
        assert_true(driven());
        configure(f, "mode=off");
        begin(f);
        assert_true(knobs_are_found());
        assert_int_equal(events_of(f, "share.release"), 1);
        assert_int_equal(bl_ledger_count_knobs(f->m->ledger), 0);
}

/* One that goes on: not before it knows which VMs there are. */
static void test_killed_goes_on(void **state)
{
        struct fixture *f = *state;

        up(f);
        kill_it(f);
        vms[0].deaf = true;
        begin(f);
        assert_false(driven());
        TICKS(f);
        assert_false(driven());
        assert_int_equal(events_of(f, "share.yielded"), 0);
        monitor_answers();
        for (size_t i = 0; i < 2; i++) {
                SPIN_UNTIL(f, is_known(f, names[i]));
                balloon_is(guest(f, names[i]), PAGES * BL_PAGE_SIZE);
        }
        SPIN_UNTIL(f, driven());
        stop(f);
        assert_true(knobs_are_found());
}

/* A VM that cannot be read, or not now, keeps nobody waiting but the evidence. */
static void test_blocked(void **state)
{
        struct fixture *f = *state;
        usec_t before;

        blocked = true;
        configure(f, "mode=group");
        begin(f);
        (void)vm_run(f, 0, "group='web'", "");
        (void)vm_run(f, 1, "group='web'", "");
        SPIN_UNTIL(f, opened > 0);
        before = f->m->tick_at;
        SPIN_UNTIL_WITHIN(f, 3 * BL_SEC, f->m->tick_at > before + BL_SEC / 2);
        assert_false(guest(f, "a")->share.met);
        assert_false(driven());
        /* one that ends meanwhile is not missed */
        assert_int_equal(virDomainDestroy(f->vms[1]), 0);
        SPIN_UNTIL(f, !guest(f, "b"));
        blocked = false;
        SPIN_UNTIL(f, guest(f, "a")->share.met);
        SPIN_UNTIL(f, f->m->share.jobs == 0);
}

/* Un-merging takes memory at once. */
static void test_undo_needs_room(void **state)
{
        struct fixture *f = *state;
        struct bl_guest *g;
        uint64_t room;

        vms[0].was = vms[0].merge = false;
        up(f);
        assert_true(vms[0].merge);
        pass(2, PAGES);
        g = guest(f, "a");
        SPIN_UNTIL(f, g->share.merged == PAGES * BL_PAGE_SIZE);
        SPIN_UNTIL(f, !g->share.merge_busy);
        assert_true(g->share.breaks > PAGES * BL_PAGE_SIZE / 4);
        room = g->share.breaks - 1;
        assert_int_equal(bl_share_undo(g, &room), -EAGAIN);
        assert_int_equal(room, g->share.breaks - 1);
        room = g->share.breaks + 5;
        assert_int_equal(bl_share_undo(g, &room), 0);
        assert_int_equal(room, 5);
        assert_false(vms[0].merge);
}

/* A guest may say what it likes, as often as it likes. */
static void test_hints(void **state)
{
        struct fixture *f = *state;
        struct bl_guest *g;
        uint8_t runs[8192];
        struct bl_wire_hints w = {.kind = BL_HINT_FILE, .runs = runs, .flags = BL_HINTS_LAST};

        up(f);
        g = guest(f, "a");
        while (w.runs_size + 2 < sizeof(runs)) {
                runs[w.runs_size++] = 1; /* a page is left out */
                runs[w.runs_size++] = 1;
        }
        for (w.scan = 1; w.scan < 10; w.scan++)
                for (int i = 0; i < 10; i++)
                        bl_share_hints(g, &w);
        bl_share_hints_apply(g, bl_now());
        runs[0] = 0xff;
        w.scan++;
        bl_share_hints(g, &w);
        w.kind = 99;
        bl_share_hints(g, &w);
        bl_share_hints_again(g);
        bl_share_hints_apply(g, bl_now());
        TICKS(f);
        /* nobody listens where nothing comes of it */
        configure(f, "mode=off");
        assert_int_equal(bl_control_reload(f->m, NULL), 0);
        SPIN_UNTIL(f, !g->share.source);
        g->share.hints = bl_share_hints_free(g->share.hints);
        bl_share_hints(g, &w);
        assert_null(g->share.hints);
}

static void test_zero(void **state)
{
        struct fixture *f = *state;

        for (size_t i = 0; i < PAGES / 2; i++)
                memory[i * BL_PAGE_SIZE / sizeof(*memory)] = 0;
        configure(f, "mode=zero");
        begin(f);
        (void)vm_run(f, 0, "sharing='zero'", "");
        TICKS(f);
        assert_int_equal(guest(f, "a")->share.no_share, BL_NO_SHARE_NO_SWAP);
        assert_int_equal(opened, 0);
        put("/proc/meminfo", "MemTotal: 8000000 kB\nMemFree: 7000000 kB\nMemAvailable: 7500000 kB\nCached: 100000 kB\n"
                             "SwapCached: 0 kB\nSwapTotal: 1000000 kB\nSwapFree: 1000000 kB\nShmem: 0 kB\n");
        SPIN_UNTIL(f, zero_asked > 0);
        SPIN_UNTIL(f, guest(f, "a")->share.zero_out == 5 * BL_PAGE_SIZE);
        assert_int_equal(vms[0].reads + vms[0].sets, 0);
        assert_null(f->m->share.ksm);
}

/* --- parts ------------------------------------------------------------------------------- */

static void test_breaks(void **state)
{
        (void)state;
        assert_int_equal(bl_share_breaks(0, 0, 0), 0);
        /* the only one: what Pss says that it saves */
        assert_int_equal(bl_share_breaks(1000, 400, 1000), 400);
        /* one of ten: nearly all of it has copies elsewhere that stay */
        assert_int_equal(bl_share_breaks(1000, 900, 10000), 990);
        /* never more than it has, nor less than it saves */
        for (uint64_t merged = 0; merged <= 1000; merged += 100)
                for (uint64_t saved = 0; saved <= merged; saved += 50)
                        for (uint64_t all = merged; all <= 5000; all += 500)
                                assert_in_range(bl_share_breaks(merged, saved, all), all ? saved : 0, merged);
}

static void test_translate(void **state)
{
        const uint64_t gib = BL_GIB / BL_PAGE_SIZE;
        const struct bl_share_run runs[] = {{4 * gib, 10},          {100, 5},     {105, 5},       {102, 2},
                                            {3 * gib - 1, gib + 2}, {9 * gib, 1}, {0, UINT64_MAX}};
        struct bl_share_run out[14];

        (void)state;
        /* 8 GiB of a pc: 3 below the hole, 5 from 4 GiB on */
        assert_int_equal(bl_share_translate(BL_MACHINE_PC, 8 * BL_GIB, runs, 5, out), 2);
        assert_int_equal(out[0].first, 100);
        assert_int_equal(out[0].n, 10);
        assert_int_equal(out[1].first, 3 * gib - 1);
        assert_int_equal(out[1].n, 11);
        /* the end of memory */
        assert_int_equal(bl_share_translate(BL_MACHINE_PC, 8 * BL_GIB, &runs[5], 1, out), 0);
        assert_int_equal(bl_share_translate(BL_MACHINE_PC, 8 * BL_GIB, &runs[6], 1, out), 1);
        assert_int_equal(out[0].n, 8 * gib);
        /* 2 GiB below the hole of a q35, and all of a small one */
        assert_int_equal(bl_share_translate(BL_MACHINE_Q35, 8 * BL_GIB, runs, 1, out), 1);
        assert_int_equal(out[0].first, 2 * gib);
        assert_int_equal(bl_share_translate(BL_MACHINE_Q35, 2 * BL_GIB, runs, 1, out), 0);
        assert_int_equal(bl_share_translate(BL_MACHINE_Q35, 2 * BL_GIB, &runs[1], 1, out), 1);
        assert_int_equal(bl_share_translate(BL_MACHINE_PC, 3 * BL_GIB, &runs[6], 1, out), 1);
        assert_int_equal(out[0].n, 3 * gib);
        assert_int_equal(bl_share_translate(BL_MACHINE_OTHER, 2 * BL_GIB, &runs[1], 1, out), 0);
}

#define CASE(t) cmocka_unit_test_setup_teardown(t, setup, teardown_share)

int main(void)
{
        const struct CMUnitTest tests[] = {
                CASE(test_off),
                CASE(test_drive_and_rest),
                CASE(test_outsider),
                CASE(test_outsider_that_refuses),
                CASE(test_leaves_the_group),
                CASE(test_newcomer),
                CASE(test_two_groups),
                CASE(test_yields),
                CASE(test_only_observing),
                CASE(test_reload_to_off),
                CASE(test_killed),
                CASE(test_killed_goes_on),
                CASE(test_blocked),
                CASE(test_undo_needs_room),
                CASE(test_hints),
                CASE(test_zero),
                cmocka_unit_test(test_breaks),
                cmocka_unit_test(test_translate),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
