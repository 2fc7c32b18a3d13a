/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/ctl/scan_inputs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/ctl/scan_vms.h"
#include "daemon/util/fs.h"
#include "daemon/util/procstat.h"
#include "daemon/util/utf8.h"
#include "daemon/virt/proc.h"

void ctl_scan_input_clear(struct ctl_scan_input *in)
{
        free(in->name);
        free(in->uuid);
        free(in->path);
        in->source = bl_source_free(in->source);
        *in = (struct ctl_scan_input){0};
}

void ctl_scan_close(struct ctl_scan_inputs *i)
{
        for (size_t k = 0; k < i->n; k++)
                ctl_scan_input_clear(&i->input[k]);
        free(i->input);
        for (size_t k = 0; k < i->n_left_out; k++) {
                free(i->left_out[k].name);
                free(i->left_out[k].why);
        }
        free(i->left_out);
        if (i->conn)
                (void)virConnectClose(i->conn);
        *i = (struct ctl_scan_inputs){0};
}

static bool is_same(const struct ctl_scan_input *a, const struct ctl_scan_input *b)
{
        if (a->kind == CTL_SCAN_DUMP || b->kind == CTL_SCAN_DUMP)
                return a->kind == b->kind && a->dev == b->dev && a->ino == b->ino;
        return a->pid == b->pid;
}

/* Memory that is read twice would count as duplicate of itself. */
static enum ctl_exit check_new(const struct ctl *c, const struct ctl_scan_inputs *i, const struct ctl_scan_input *in)
{
        for (size_t k = 0; k < i->n; k++)
                if (is_same(&i->input[k], in))
                        return strcmp(i->input[k].name, in->name) == 0
                                       ? ctl_usage(c, "%s is named twice", in->name)
                                       : ctl_usage(c, "%s and %s are the same memory", i->input[k].name, in->name);
        if (i->n >= CTL_SCAN_MAX) {
                ctl_error("more than %d are too many for one scan; name some", CTL_SCAN_MAX);
                return CTL_REFUSED;
        }
        return CTL_OK;
}

static enum ctl_exit no_memory(void)
{
        ctl_error("out of memory");
        return CTL_FAILED;
}

enum ctl_exit ctl_scan_add(struct ctl *c, struct ctl_scan_inputs *i, struct ctl_scan_input *in)
{
        enum ctl_exit x = check_new(c, i, in);
        struct ctl_scan_input *p;

        if (x != CTL_OK)
                return x;
        p = reallocarray(i->input, i->n + 1, sizeof(*p));
        if (!p)
                return no_memory();
        i->input = p;
        p[i->n++] = *in;
        *in = (struct ctl_scan_input){0};
        return CTL_OK;
}

void ctl_scan_leave_out(struct ctl_scan_inputs *i, const char *name, const char *why)
{
        struct ctl_scan_left_out *p = reallocarray(i->left_out, i->n_left_out + 1, sizeof(*p));
        struct ctl_scan_left_out l = {strdup(name), strdup(why ? why : "out of memory")};

        if (p)
                i->left_out = p;
        if (!p || !l.name || !l.why) {
                free(l.name);
                free(l.why);
                return;
        }
        ctl_make_text_safe(l.name, false);
        bl_utf8_clean(l.name);
        ctl_make_text_safe(l.why, false);
        bl_utf8_clean(l.why);
        p[i->n_left_out++] = l;
}

/* --- processes ---------------------------------------------------------------------- */

static enum ctl_exit say(int r, const char *message)
{
        ctl_error("%s", message ? message : strerror(-r));
        return r == -EPERM || r == -EACCES ? CTL_NOT_PERMITTED : CTL_FAILED;
}

static void read_start(pid_t pid, uint64_t *ret)
{
        char path[32], text[2048], state;

        (void)snprintf(path, sizeof(path), "/%d/stat", (int)pid);
        if (bl_fs_read("/proc", path, text, sizeof(text)) > 0)
                (void)bl_proc_stat_parse(text, &state, ret);
}

static enum ctl_exit add_process(struct ctl *c, pid_t pid, bool again, struct ctl_scan_inputs *i)
{
        _cleanup_(ctl_scan_input_clear) struct ctl_scan_input in = {.kind = CTL_SCAN_PROCESS, .pid = pid};
        _cleanup_free_ char *message = NULL;
        int r;

        read_start(in.pid, &in.start);
        r = bl_source_process(in.pid, in.start, 0, NULL, &in.source, &message);
        if (again && (r == -ESRCH || r == -ENODATA)) {
                char name[32];

                (void)snprintf(name, sizeof(name), "pid %d", (int)pid);
                ctl_scan_leave_out(i, name, message);
                return CTL_OK;
        }
        if (r < 0)
                return say(r, message);
        in.name = strdup(in.source->name);
        if (!in.name)
                return no_memory();
        ctl_make_text_safe(in.name, false);
        bl_utf8_clean(in.name);
        return ctl_scan_add(c, i, &in);
}

static bool parse_pid(const char *word, pid_t *ret)
{
        uint64_t pid;

        if (bl_uint_parse(word, &pid) < 0 || pid == 0 || pid > INT32_MAX)
                return false;
        *ret = (pid_t)pid;
        return true;
}

/* One or, with commas, several.  `i` NULL: only looks whether they are numbers. */
static enum ctl_exit add_processes(struct ctl *c, const char *value, bool again, struct ctl_scan_inputs *i)
{
        _cleanup_free_ char *words = strdup(value);
        enum ctl_exit x = CTL_OK;
        char *p = words, *word;
        pid_t pid = 0;

        if (!words)
                return no_memory();
        while (x == CTL_OK && (word = strsep(&p, ",")))
                if (!parse_pid(word, &pid))
                        x = ctl_usage(c, "'%s' is no process number, as in --pid 4711", word);
                else if (i)
                        x = add_process(c, pid, again, i);
        return x;
}

/* --- dumps -------------------------------------------------------------------------- */

static enum ctl_exit add_dump(struct ctl *c, const char *path, struct ctl_scan_inputs *i)
{
        _cleanup_(ctl_scan_input_clear) struct ctl_scan_input in = {.kind = CTL_SCAN_DUMP};
        const char *slash = strrchr(path, '/');
        _cleanup_free_ char *message = NULL;
        struct stat st;
        int r;

        in.path = strdup(path);
        in.name = strdup(slash && slash[1] ? slash + 1 : path);
        if (!in.path || !in.name)
                return no_memory();
        ctl_make_text_safe(in.name, false);
        bl_utf8_clean(in.name);
        r = bl_source_file(path, in.name, &in.source, &message);
        if (r < 0)
                return say(r, message);
        if (stat(path, &st) < 0)
                return say(-errno, NULL);
        in.dev = st.st_dev;
        in.ino = st.st_ino;
        return ctl_scan_add(c, i, &in);
}

/* Two dumps of one name in two directories are told apart by their paths. */
static enum ctl_exit name_dumps(struct ctl_scan_inputs *in)
{
        for (size_t i = 0; i < in->n; i++) {
                struct ctl_scan_input *a = &in->input[i];
                const char *slash = a->path ? strrchr(a->path, '/') : NULL;
                bool twice = false;

                for (size_t k = 0; slash && k < in->n; k++) {
                        const struct ctl_scan_input *b = &in->input[k];
                        const char *s = b->path ? strrchr(b->path, '/') : NULL;

                        twice = twice || (k != i && b->path && strcmp(s ? s + 1 : b->path, slash + 1) == 0);
                }
                if (twice) {
                        free(a->name);
                        a->name = strdup(a->path);
                        if (!a->name)
                                return no_memory();
                        ctl_make_text_safe(a->name, false);
                        bl_utf8_clean(a->name);
                }
        }
        return CTL_OK;
}

/* --- all ---------------------------------------------------------------------------- */

static enum ctl_exit open_named(struct ctl *c, bool again, struct ctl_scan_inputs *i)
{
        enum ctl_exit x = CTL_OK;
        const char *v;
        size_t at;

        /* what is misspelt is said before anything is done */
        for (at = 0; x == CTL_OK && (v = ctl_next_value(c, "pid", &at));)
                x = add_processes(c, v, again, NULL);
        for (int k = 0; x == CTL_OK && k < c->n_args; k++)
                x = ctl_scan_open_vms(c, c->args[k], again, i);
        for (at = 0; x == CTL_OK && (v = ctl_next_value(c, "pid", &at));)
                x = add_processes(c, v, again, i);
        for (at = 0; x == CTL_OK && (v = ctl_next_value(c, "dump", &at));)
                x = add_dump(c, v, i);
        return x == CTL_OK ? name_dumps(i) : x;
}

enum ctl_exit ctl_scan_open(struct ctl *c, bool again, struct ctl_scan_inputs *ret)
{
        struct ctl_scan_inputs i = {.all = c->n_args == 0 && !ctl_value(c, "pid") && !ctl_value(c, "dump")};
        enum ctl_exit x = i.all ? ctl_scan_open_vms(c, NULL, again, &i) : open_named(c, again, &i);

        if (x == CTL_OK && i.n == 0 && !again) {
                for (size_t k = 0; k < i.n_left_out; k++)
                        ctl_error("%s", i.left_out[k].why);
                ctl_error("%s; --pid scans processes and --dump dumps",
                          i.n_left_out > 0 ? "no virtual machine can be read" : "no virtual machine is running");
                x = i.n_left_out > 0 ? CTL_FAILED : CTL_REFUSED;
        }
        if (x == CTL_OK)
                *ret = i;
        else
                ctl_scan_close(&i);
        return x;
}

void ctl_scan_recheck(struct ctl_scan_inputs *i)
{
        for (size_t k = 0; k < i->n; k++) {
                struct ctl_scan_input *in = &i->input[k];
                const struct bl_instance instance = {in->pid, in->start};
                bool still = in->source->still;
                char state = 0;

                if (!still || in->kind == CTL_SCAN_DUMP)
                        continue;
                still = bl_instance_state(NULL, &instance, &state) >= 0 && (state == 'T' || state == 't');
                if (!still && in->kind == CTL_SCAN_VM)
                        still = ctl_scan_vm_is_paused(i, in->uuid);
                in->source->still = still;
        }
}

const char *ctl_scan_noun(const struct ctl_scan_inputs *i, bool many)
{
        static const char *const one[] = {"VM", "process", "dump"}, *const several[] = {"VMs", "processes", "dumps"};
        bool mixed = false;

        for (size_t k = 1; k < i->n; k++)
                mixed = mixed || i->input[k].kind != i->input[0].kind;
        if (mixed)
                return many ? "sources" : "source";
        return (many ? several : one)[i->n > 0 ? i->input[0].kind : CTL_SCAN_VM];
}
