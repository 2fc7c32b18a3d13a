/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/ctl/scan_words.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "daemon/ctl/table.h"
#include "daemon/pages/page.h"

__attribute__((format(printf, 1, 2))) static char *say(const char *format, ...)
{
        char *s = NULL;
        va_list ap;

        va_start(ap, format);
        if (vasprintf(&s, format, ap) < 0)
                s = NULL;
        va_end(ap);
        return s;
}

/* --- figures ------------------------------------------------------------------------ */

const char *ctl_scan_size(uint64_t pages, char *buf, size_t size)
{
        return bl_size_format(bl_mul_sat(pages, BL_PAGE_SIZE), buf, size);
}

const char *ctl_scan_percent(uint64_t part, uint64_t whole, char *buf, size_t size)
{
        double p = whole > 0 ? 100.0 * (double)part / (double)whole : 0;

        (void)snprintf(buf, size, "%.*f %%", part == 0 || p >= 9.95 ? 0 : p >= 0.095 ? 1 : 2, p);
        return buf;
}

#define KEPT '\001' /* a blank that is no place to fold at */

char *ctl_scan_fold(const char *text, size_t width)
{
        _cleanup_free_ char *s = strdup(text);
        char *folded;

        if (!s)
                return NULL;
        for (char *p = s; *p; p++)
                if (p > s && *p == ' ' && p[-1] >= '0' && p[-1] <= '9' && (p[1] == '%' || (p[1] >= 'A' && p[1] <= 'Z')))
                        *p = KEPT;
        folded = ctl_table_fold(s, width);
        for (char *p = folded; p && *p; p++)
                if (*p == KEPT)
                        *p = ' ';
        return folded;
}

/* The error is a fraction of pages. */
static uint64_t error_pages(const json_t *d)
{
        return (uint64_t)(json_number_value(json_object_get(d, "error")) + 0.5);
}

/* In the sums? */
static bool counts(const json_t *vm)
{
        return !json_is_string(json_object_get(vm, "error"));
}

static size_t count(const json_t *d)
{
        const json_t *vm;
        size_t i, n = 0;

        json_array_foreach(json_object_get(d, "vms"), i, vm)
        {
                n += counts(vm);
        }
        return n;
}

const char *ctl_scan_kind(const json_t *d, bool many)
{
        static const char *const names[][3] = {
                {"vm", "VM", "VMs"}, {"process", "process", "processes"}, {"dump", "dump", "dumps"}};
        const json_t *vms = json_object_get(d, "vms"), *vm;
        const char *first = json_array_size(vms) > 0 ? ctl_string(json_array_get(vms, 0), "kind") : "vm";
        size_t i;

        json_array_foreach(vms, i, vm)
        {
                if (strcmp(ctl_string(vm, "kind"), first) != 0)
                        return many ? "sources" : "source";
        }
        for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
                if (strcmp(names[i][0], first) == 0)
                        return names[i][many ? 2 : 1];
        return many ? "sources" : "source";
}

const char *ctl_scan_count(const json_t *d, char *buf, size_t size)
{
        size_t n = count(d);

        (void)snprintf(buf, size, "%zu %s", n, ctl_scan_kind(d, n != 1));
        return buf;
}

/* --- the headline ------------------------------------------------------------------- */

static bool has_kind(const json_t *d, const char *kind)
{
        const json_t *vm;
        size_t i;

        json_array_foreach(json_object_get(d, "vms"), i, vm)
        {
                if (strcmp(ctl_string(vm, "kind"), kind) == 0)
                        return true;
        }
        return false;
}

bool ctl_scan_sees_merged(const json_t *d)
{
        return (has_kind(d, "vm") || has_kind(d, "process")) && !ctl_true(d, "blind");
}

bool ctl_scan_only_ksm(const json_t *d)
{
        return !has_kind(d, "process");
}

static char *say_merged(const json_t *d)
{
        const char *size = CTL_SCAN_SIZE(ctl_number(d, "merged_saved"));

        if (!ctl_scan_sees_merged(d))
                return strdup("");
        if (ctl_scan_only_ksm(d))
                return say(" KSM frees %s of that now.", size);
        return say(" Of that %s is kept once already, by KSM or since a fork.", size);
}

static char *say_parts(const json_t *d, bool several)
{
        uint64_t zero = ctl_number(d, "zero"), intra = ctl_number(d, "duplicate_intra");
        char between[64] = "";

        if (several)
                (void)snprintf(between, sizeof(between), "%s between %s, ",
                               CTL_SCAN_SIZE(ctl_number(d, "duplicate_inter")), ctl_scan_kind(d, true));
        return say(": %s%s within%s, %s zero pages", between, CTL_SCAN_SIZE(intra), several ? "" : " it",
                   CTL_SCAN_SIZE(zero));
}

char *ctl_scan_headline(const json_t *d)
{
        uint64_t pages = ctl_number(d, "pages"), saved = ctl_number(d, "saved_pages");
        _cleanup_free_ char *parts = NULL, *merged = NULL, *give = NULL;
        size_t n = count(d);
        char who[64];

        if (n == 0)
                return say("There is no %s to be scanned.", ctl_scan_kind(d, false));
        parts = saved > 0 ? say_parts(d, n > 1) : strdup("");
        merged = say_merged(d);
        give = error_pages(d) > 0 ? say(", give or take %s", CTL_SCAN_SIZE(error_pages(d))) : strdup("");
        if (!parts || !merged || !give)
                return NULL;
        return say("%s %s %s; merging equal pages would free %s (%s%s)%s.%s", ctl_scan_count(d, who, sizeof(who)),
                   n == 1 ? "holds" : "hold", CTL_SCAN_SIZE(pages), CTL_SCAN_SIZE(saved),
                   CTL_SCAN_PERCENT(saved, pages), give, parts, merged);
}

/* --- below the tables --------------------------------------------------------------- */

/* Pages that lie in runs of at least 2^from. */
static uint64_t in_runs(const json_t *d, size_t from)
{
        const json_t *runs = json_object_get(d, "runs");
        uint64_t sum = 0;

        for (size_t i = from; i < json_array_size(runs); i++)
                sum += (uint64_t)json_integer_value(json_array_get(runs, i));
        return sum;
}

char *ctl_scan_say_runs(const json_t *d)
{
        uint64_t all = in_runs(d, 0), large = in_runs(d, 4), huge = in_runs(d, 9); /* 64 KiB, 2 MiB */
        const char *what;

        if (all == 0)
                return NULL;
        what = large >= all / 4 * 3 ? "They lie together" : large <= all / 4 ? "They lie scattered" : "They lie mixed";
        return say("%s of pages have a copy somewhere. %s: %s of that is in runs of 64 KiB or more, %s in runs of "
                   "2 MiB or more.",
                   CTL_SCAN_SIZE(all), what, CTL_SCAN_PERCENT(large, all), CTL_SCAN_PERCENT(huge, all));
}

char *ctl_scan_say_compression(const json_t *d)
{
        double ratio = json_number_value(json_object_get(d, "compress_ratio"));
        uint64_t n = ctl_number(d, "compressed");

        if (ratio <= 0)
                return NULL;
        return say("What would be left compresses to %.0f %% by LZ4 (%.2f to 1, a sample of %" PRIu64 " pages).",
                   100 / ratio, ratio, n);
}

char *ctl_scan_say_sampling(const json_t *d)
{
        double sample = json_number_value(json_object_get(d, "sample"));

        if (sample <= 0 || sample >= 1)
                return NULL;
        return say("Estimated from 1/%.0f of all contents, as the index may have no more memory (--memory): the "
                   "standard error of what would be freed is %s.",
                   1 / sample, CTL_SCAN_SIZE(error_pages(d)));
}

char *ctl_scan_say_verdict(const json_t *d)
{
        const json_t *v = json_object_get(d, "verify");
        uint64_t here = ctl_number(d, "saved_pages"), there = ctl_number(v, "saved_pages");

        if (!ctl_true(v, "ran"))
                return NULL;
        if (ctl_true(v, "equal"))
                return say("Verified: brute force finds the same figures.");
        if (ctl_true(v, "binding"))
                return say("NOT verified: brute force finds other figures: %s.", ctl_string(v, "difference"));
        return say("Brute force, a moment later, finds %s to be freed, %s %s%s.", CTL_SCAN_SIZE(there),
                   here == there ? "as much" : CTL_SCAN_SIZE(bl_distance(here, there)),
                   here == there  ? "as the scan"
                   : there > here ? "more than the scan"
                                  : "less than the scan",
                   json_number_value(json_object_get(d, "sample")) < 1 ? ", which sampled" : ": what runs moves on");
}

char *ctl_scan_say_cost(const json_t *d)
{
        uint64_t read = ctl_number(d, "read"), took = ctl_number(d, "took_us"), cpu = ctl_number(d, "cpu_us");

        return say("%s read in %.*f s with %.*f s of CPU (%.1f GB a CPU-second); the index took %s.",
                   CTL_SIZE(d, "read"), took < 10 * BL_SEC ? 2 : 0, (double)took / 1e6, cpu < 10 * BL_SEC ? 2 : 0,
                   (double)cpu / 1e6, cpu > 0 ? (double)read / 1e3 / (double)cpu : 0, CTL_SIZE(d, "memory"));
}

/* --- notes -------------------------------------------------------------------------- */

/* The n-th string `field` of the objects of an array. */
static const char *nth(const json_t *array, const char *field, size_t *n)
{
        const json_t *o;
        size_t i;

        json_array_foreach(array, i, o)
        {
                const char *s = json_string_value(json_object_get(o, field));

                if (s && (*n)-- == 0)
                        return s;
        }
        return NULL;
}

static char *sentence(const char *s)
{
        size_t n = strlen(s);

        return say("%s%s", s, n > 0 && strchr(".!?", s[n - 1]) ? "" : ".");
}

#define NAMES_MAX 5

/* "1.0 GiB of this is ... (web1, web2)": of all that have `field`. */
static char *say_unmergeable(const json_t *d)
{
        char names[512] = "";
        const json_t *vm;
        uint64_t sum = 0;
        size_t i, n = 0;

        json_array_foreach(json_object_get(d, "vms"), i, vm)
        {
                if (ctl_number(vm, "unmergeable") == 0 || !counts(vm))
                        continue;
                sum = bl_add_sat(sum, ctl_number(vm, "unmergeable"));
                if (n++ < NAMES_MAX)
                        (void)snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s%s", n > 1 ? ", " : "",
                                       ctl_string(vm, "name"));
        }
        if (n > NAMES_MAX)
                (void)snprintf(names + strlen(names), sizeof(names) - strlen(names), " and %zu more", n - NAMES_MAX);
        return n == 0 ? NULL
                      : say("KSM cannot merge shared memory and huge pages: mappings of %s here, of %s.",
                            CTL_SCAN_SIZE(sum / BL_PAGE_SIZE), names);
}

static char *say_swapped(const json_t *d)
{
        return ctl_number(d, "swapped") == 0
                       ? NULL
                       : say("%s is in swap, and was not read.", CTL_SCAN_SIZE(ctl_number(d, "swapped")));
}

static char *say_volatile(const json_t *d)
{
        return ctl_number(d, "volatile") == 0 ? NULL
                                              : say("%s changed while it was looked at, and counts as no copy.",
                                                    CTL_SCAN_SIZE(ctl_number(d, "volatile")));
}

static char *say_unreadable(const json_t *d)
{
        return ctl_number(d, "unreadable") == 0
                       ? NULL
                       : say("%s could not be read.", CTL_SCAN_SIZE(ctl_number(d, "unreadable")));
}

static char *say_blind(const json_t *d)
{
        return !ctl_true(d, "blind") ? NULL
                                     : say("What KSM has merged, and the kernel's zero page, could not be told from "
                                           "other pages: that takes CAP_SYS_ADMIN.");
}

static char *say_too_many(const json_t *d)
{
        return !json_is_null(json_object_get(d, "matrix"))
                       ? NULL
                       : say("There are too many %s to compare each two of them.", ctl_scan_kind(d, true));
}

char *ctl_scan_note(const json_t *d, size_t i)
{
        static char *(*const notes[])(const json_t *d) = {say_swapped, say_volatile,    say_unreadable,
                                                          say_blind,   say_unmergeable, say_too_many};
        const char *s;

        s = nth(json_object_get(d, "vms"), "error", &i);
        if (!s)
                s = nth(json_object_get(d, "vms"), "warning", &i);
        if (!s)
                s = nth(json_object_get(d, "left_out"), "why", &i);
        if (s)
                return sentence(s);
        for (size_t k = 0; k < sizeof(notes) / sizeof(notes[0]); k++) {
                char *note = notes[k](d);

                if (note && i-- == 0)
                        return note;
                free(note);
        }
        return NULL;
}
