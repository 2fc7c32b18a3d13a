/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* scan, scan --watch: how much memory equal pages could save.  Works on libvirt, /proc and files itself. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>

#include "daemon/ctl/scan_inputs.h"
#include "daemon/ctl/scan_json.h"
#include "daemon/ctl/scan_output.h"
#include "daemon/ctl/scan_progress.h"
#include "daemon/ctl/scan_svg.h"
#include "daemon/ctl/scan_tables.h"
#include "daemon/ctl/watch.h"
#include "daemon/pages/oracle.h"
#include "daemon/util/clock.h"

#define STEP          (200 * BL_MSEC) /* between two looks at how far it is */
#define EVERY_DEFAULT (10 * BL_SEC)
#define MEMORY_MIN    BL_MIB
/* Where memory moved that stands still, --verify looks again so often, so much later, and twice as late each time. */
#define TRIES     4U
#define TRY_AGAIN (250 * BL_MSEC)

struct options {
        struct bl_scan_options scan;
        const char *svg;
        bool verify;
        usec_t every; /* 0: once */
};

/* --- interruption ------------------------------------------------------------------- */

/* The scan ends at its next step, so that its progress is taken off the terminal; a second one ends at once. */
static atomic_bool stopped;

static void on_interrupt(int signo)
{
        (void)signo;
        atomic_store(&stopped, true);
}

/* true: it is heeded from now on; not where there is no progress, or who started us wants none. */
static bool heed_interrupt(const struct ctl_scan_progress *p)
{
        const struct sigaction a = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};
        struct sigaction old;

        if (p->width == 0 || sigaction(SIGINT, NULL, &old) < 0 || old.sa_handler == SIG_IGN)
                return false;
        return sigaction(SIGINT, &a, NULL) == 0;
}

static void heed_it_no_more(void)
{
        (void)signal(SIGINT, SIG_DFL);
        if (atomic_load(&stopped))
                (void)raise(SIGINT);
}

/* --- options ------------------------------------------------------------------------ */

static enum ctl_exit take_cpu(const struct ctl *c, permyriad_t *ret)
{
        const char *cpu = ctl_value(c, "cpu");
        char buf[BL_SIZE_BUF];

        if (!cpu)
                return CTL_OK;
        (void)snprintf(buf, sizeof(buf), "%s%s", cpu, strchr(cpu, '%') ? "" : "%");
        if (strlen(cpu) >= sizeof(buf) - 1 || bl_permyriad_parse(buf, ret) < 0 || *ret == 0 || *ret > BL_WHOLE)
                return ctl_usage(c, "'%s' is no part of a core: from 0.01%% to 100%%", cpu);
        return CTL_OK;
}

static enum ctl_exit take_memory(const struct ctl *c, size_t *ret)
{
        const char *memory = ctl_value(c, "memory");
        uint64_t v;

        if (!memory)
                return CTL_OK;
        if (bl_size_parse(memory, &v) < 0 || v < MEMORY_MIN || v > SIZE_MAX / 2)
                return ctl_usage(c, "'%s' is no size for the index: 1M or more, as in 64M", memory);
        *ret = (size_t)v;
        return CTL_OK;
}

/* A seed that is not given is chosen here, so that the document can say it. */
static enum ctl_exit take_seed(const struct ctl *c, uint64_t *ret)
{
        const char *seed = ctl_value(c, "seed");

        if (seed && (bl_uint_parse(seed, ret) < 0 || *ret == 0 || *ret > INT64_MAX))
                return ctl_usage(c, "'%s' is no seed: a number from 1 to 9223372036854775807", seed);
        while (!seed && *ret == 0) {
                if (getrandom(ret, sizeof(*ret), 0) != (ssize_t)sizeof(*ret))
                        *ret = bl_now();
                *ret &= INT64_MAX;
        }
        return CTL_OK;
}

static enum ctl_exit take_options(struct ctl *c, struct options *o)
{
        const char *watch = ctl_value(c, "watch");
        enum ctl_exit x;
        int r;

        o->svg = ctl_value(c, "svg");
        o->verify = ctl_value(c, "verify") != NULL;
        for (int i = 0; i < c->n_args; i++)
                if (!*c->args[i])
                        return ctl_usage(c, "the name of a virtual machine is empty");
        if (o->verify && watch)
                return ctl_usage(c, "--verify does not go with --watch");
        x = ctl_watch_every(c, &o->every);
        if (x == CTL_OK && watch && !*watch)
                o->every = EVERY_DEFAULT;
        if (x == CTL_OK)
                x = take_cpu(c, &o->scan.cpu);
        if (x == CTL_OK)
                x = take_memory(c, &o->scan.memory_max);
        if (x == CTL_OK)
                x = take_seed(c, &o->scan.seed);
        r = x == CTL_OK && o->svg ? ctl_scan_output_check(o->svg) : 0;
        if (r < 0) {
                ctl_error("cannot write %s: %s", *o->svg ? o->svg : "--svg", strerror(-r));
                return r == -EACCES || r == -EPERM ? CTL_NOT_PERMITTED : CTL_FAILED;
        }
        return x;
}

/* Each source keeps some files open. */
static void allow_many_files(void)
{
        struct rlimit l;

        if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < l.rlim_max) {
                l.rlim_cur = l.rlim_max;
                (void)setrlimit(RLIMIT_NOFILE, &l);
        }
}

/* --- one scan ----------------------------------------------------------------------- */

static enum ctl_exit fail(int r)
{
        ctl_error("the scan failed: %s", r == -ENOMEM ? "out of memory; --memory bounds the index" : strerror(-r));
        return CTL_FAILED;
}

static void sleep_until(usec_t t)
{
        usec_t now = bl_now();
        struct timespec ts;

        if (t <= now)
                return;
        ts = (struct timespec){(time_t)((t - now) / BL_SEC), (long)((t - now) % BL_SEC * 1000)};
        (void)nanosleep(&ts, NULL);
}

/* To its end, or until interrupted. */
static int go_on(struct bl_scan *s, const struct ctl_scan_progress *p)
{
        bool heeded = heed_interrupt(p);
        struct bl_scan_progress now;
        int r = 0;

        while (r == 0 && !atomic_load(&stopped)) {
                r = bl_scan_step(s, STEP, &stopped);
                bl_scan_progress(s, &now);
                if (r == 0)
                        ctl_scan_progress_show(p, &now);
        }
        ctl_scan_progress_end(p);
        if (heeded)
                heed_it_no_more();
        return r;
}

/* A scan of what is open; frees the one before. */
static int look(const struct options *o, struct bl_source **sources, struct ctl_scan_inputs *i,
                const struct ctl_scan_progress *p, struct bl_scan **s, struct ctl_scan_outcome *out)
{
        int r;

        out->report = NULL;
        *s = bl_scan_free(*s);
        r = bl_scan_new(sources, i->n, &o->scan, s);
        if (r >= 0)
                r = go_on(*s, p);
        if (r < 0)
                return r;
        out->report = bl_scan_report(*s);
        ctl_scan_recheck(i);
        return 0;
}

/* By brute force; where that cannot be done, NULL, and what the scan found is said all the same. */
static struct bl_scan_report *count(struct bl_source **sources, struct ctl_scan_inputs *i,
                                    const struct ctl_scan_progress *p, struct ctl_scan_outcome *out)
{
        struct bl_scan_report *oracle = NULL;
        struct ctl_scan_verdict *v = &out->verdict;
        _cleanup_free_ char *message = NULL;
        int r;

        ctl_scan_progress_say(p, "Checking by brute force; Ctrl-C ends");
        r = bl_oracle_run(sources, i->n, NULL, &oracle, &message);
        ctl_scan_progress_end(p);
        v->ran = r >= 0;
        if (r < 0) {
                v->failed = strdup(message ? message : strerror(-r));
                v->binding = false;
                return NULL;
        }
        ctl_scan_recheck(i);
        v->binding = ctl_scan_is_exact(out);
        v->saved_pages = oracle->all.saved_pages;
        return oracle;
}

/* What stands still is the kernel's to change all the same: khugepaged fills holes of it, and pages go to swap.  So
 * where the two differ it is scanned a second time.  If that agrees with the count, or with the first, it is the
 * answer; if with neither, memory changed, and all is done again a little later. */
static int verify(const struct options *o, struct bl_source **sources, struct ctl_scan_inputs *i,
                  const struct ctl_scan_progress *p, struct bl_scan **s, struct ctl_scan_outcome *out)
{
        struct ctl_scan_verdict *v = &out->verdict;

        for (unsigned try = 0;; try++) {
                _cleanup_(bl_oracle_freep) struct bl_scan_report *oracle = count(sources, i, p, out);
                _cleanup_free_ char *moved = NULL;
                struct bl_scan *first;
                int r;

                v->difference = oracle ? bl_oracle_difference(out->report, oracle) : NULL;
                v->equal = oracle && !v->difference;
                if (!v->difference || !v->binding || try == TRIES || atomic_load(&stopped))
                        return 0;
                first = BL_TAKE(*s);
                r = look(o, sources, i, p, s, out);
                if (r >= 0)
                        moved = bl_oracle_difference(out->report, bl_scan_report(first));
                (void)bl_scan_free(first);
                if (r < 0 || !moved)
                        return r;
                free(v->difference);
                v->difference = bl_oracle_difference(out->report, oracle);
                v->equal = !v->difference;
                if (v->equal)
                        return 0;
                free(BL_TAKE(v->difference));
                sleep_until(bl_now() + (TRY_AGAIN << try));
        }
}

/* The document of what is open; a new reference. */
static enum ctl_exit scan(const struct options *o, struct ctl_scan_inputs *i, json_t **ret)
{
        _cleanup_free_ struct bl_source **sources = calloc(i->n + 1, sizeof(struct bl_source *));
        struct ctl_scan_outcome out = {.inputs = i, .at = bl_now_wall(), .seed = o->scan.seed};
        _cleanup_(bl_scan_freep) struct bl_scan *s = NULL;
        struct ctl_scan_progress p;
        char what[64];
        int r = 0;

        if (!sources)
                return fail(-ENOMEM);
        for (size_t k = 0; k < i->n; k++)
                sources[k] = i->input[k].source;
        if (i->n > 0) {
                (void)snprintf(what, sizeof(what), "%zu %s", i->n, ctl_scan_noun(i, i->n != 1));
                ctl_scan_progress_begin(&p, what);
                r = look(o, sources, i, &p, &s, &out);
                if (r >= 0 && o->verify)
                        r = verify(o, sources, i, &p, &s, &out);
                if (r < 0) {
                        free(out.verdict.difference);
                        free(out.verdict.failed);
                        return fail(r);
                }
        }
        *ret = ctl_scan_json(&out);
        free(out.verdict.difference);
        free(out.verdict.failed);
        return *ret ? CTL_OK : fail(-ENOMEM);
}

/* --- what came of it ---------------------------------------------------------------- */

static enum ctl_exit draw(const struct options *o, const json_t *d)
{
        _cleanup_free_ char *svg = NULL;
        size_t len = 0;
        int r;

        if (!o->svg)
                return CTL_OK;
        r = ctl_scan_svg(d, &svg, &len);
        if (r >= 0)
                r = ctl_scan_output_write(o->svg, svg, len);
        if (r >= 0)
                return CTL_OK;
        ctl_error("cannot write %s: %s", o->svg, strerror(-r));
        return CTL_FAILED;
}

/* What was named and is not in the figures is a failure; of all running VMs some come and go. */
static enum ctl_exit judge(const struct ctl *c, const struct ctl_scan_inputs *i, const json_t *d)
{
        const json_t *v = json_object_get(d, "verify"), *vm;
        enum ctl_exit x = CTL_OK;
        size_t k, wrong = 0;

        json_array_foreach(json_object_get(d, "vms"), k, vm)
        {
                if (!json_is_string(json_object_get(vm, "error")))
                        continue;
                wrong++;
                if (c->json)
                        ctl_error("%s", ctl_string(vm, "error"));
        }
        if (wrong > 0 && (!i->all || wrong == i->n))
                x = CTL_FAILED;
        if (json_is_string(json_object_get(v, "failed"))) {
                ctl_error("cannot verify: %s", ctl_string(v, "failed"));
                x = CTL_FAILED;
        }
        if (ctl_true(v, "binding") && !ctl_true(v, "equal")) {
                if (c->json)
                        ctl_error("brute force finds other figures: %s", ctl_string(v, "difference"));
                x = CTL_FAILED;
        }
        return x;
}

static enum ctl_exit scan_once(struct ctl *c, const struct options *o)
{
        struct ctl_scan_inputs i = {0};
        json_t *d = NULL;
        enum ctl_exit x;

        x = ctl_scan_open(c, false, &i);
        if (x == CTL_OK)
                x = scan(o, &i, &d);
        if (x == CTL_OK) {
                if (!ctl_print_json(c, d))
                        ctl_scan_print(c, d);
                x = draw(o, d);
        }
        if (x == CTL_OK)
                x = judge(c, &i, d);
        json_decref(d);
        ctl_scan_close(&i);
        return x;
}

/* --- --watch ------------------------------------------------------------------------ */

#define ROUNDS 6 /* that a terminal shows below the newest one's report */

/* The newest rounds, the oldest first. */
struct rounds {
        json_t *d[ROUNDS];
        size_t n;
};

static void keep_round(struct rounds *r, json_t *d)
{
        if (r->n == ROUNDS) {
                json_decref(r->d[0]);
                memmove(r->d, r->d + 1, (ROUNDS - 1) * sizeof(r->d[0]));
                r->n--;
        }
        r->d[r->n++] = d;
}

static void redraw(struct ctl *c, const struct options *o, const struct rounds *r)
{
        const json_t *d = r->d[r->n - 1];
        char now[32], span[BL_SIZE_BUF];
        int width = getenv("COLUMNS") ? 0 : ctl_terminal_width();

        if (width > 0)
                c->width = width;
        printf("\033[H\033[J%s, every %s; Ctrl-C ends\n\n", ctl_time(ctl_number(d, "at_us"), now, sizeof(now)),
               bl_span_format(o->every, span, sizeof(span)));
        ctl_scan_print(c, d);
        if (r->n > 1)
                putchar('\n');
        for (size_t i = 0; r->n > 1 && i < r->n; i++)
                ctl_scan_print_line(r->d[i], i == 0, true);
}

static void print_round(struct ctl *c, const struct options *o, const struct rounds *r, bool first)
{
        const json_t *d = r->d[r->n - 1];

        if (c->json) {
                (void)json_dumpf(d, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
                putchar('\n');
        } else if (ctl_watch_redraws())
                redraw(c, o, r);
        else
                ctl_scan_print_line(d, first, false);
}

/* VMs come and go: each round looks anew. */
static enum ctl_exit watch(struct ctl *c, const struct options *o)
{
        struct rounds rounds = {0};
        enum ctl_exit x = CTL_OK;

        for (bool first = true; x == CTL_OK; first = false) {
                struct ctl_scan_inputs i = {0};
                usec_t began = bl_now();
                json_t *d = NULL;

                x = ctl_scan_open(c, !first, &i);
                if (x == CTL_OK)
                        x = scan(o, &i, &d);
                ctl_scan_close(&i);
                if (x == CTL_OK) {
                        keep_round(&rounds, d);
                        print_round(c, o, &rounds, first);
                        x = fflush(stdout) == 0 ? draw(o, d) : CTL_FAILED;
                }
                if (x == CTL_OK)
                        sleep_until(began + o->every);
        }
        while (rounds.n > 0)
                json_decref(rounds.d[--rounds.n]);
        return x;
}

enum ctl_exit ctl_cmd_scan(struct ctl *c)
{
        struct options o = {0};
        enum ctl_exit x = take_options(c, &o);

        if (x != CTL_OK)
                return x;
        allow_many_files();
        return o.every > 0 ? watch(c, &o) : scan_once(c, &o);
}
