/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What `ballastctl scan` says: its document, sentences, tables and picture, of figures that are made up here. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <wchar.h>

#include <cmocka.h>

#include "daemon/ctl/scan_json.h"
#include "daemon/ctl/scan_output.h"
#include "daemon/ctl/scan_progress.h"
#include "daemon/ctl/scan_svg.h"
#include "daemon/ctl/scan_tables.h"
#include "daemon/ctl/scan_words.h"
#include "daemon/virt/xml_util.h"

#define MAX 100
#define MIB UINT64_C(256) /* pages */

/* --- a scan that never was ----------------------------------------------------------- */

struct fake {
        struct ctl_scan_inputs inputs;
        struct ctl_scan_input input[MAX];
        struct bl_source source[MAX];
        char name[MAX][64];
        struct bl_scan_report report;
        struct bl_scan_source result[MAX];
        uint64_t matrix[MAX * MAX];
        struct ctl_scan_outcome outcome;
};

/* n VMs of 100 MiB, 101 MiB and so on; each two of neighbouring numbers have 20 MiB in common. */
static void make(struct fake *f, size_t n)
{
        memset(f, 0, sizeof(*f));
        f->inputs = (struct ctl_scan_inputs){.n = n, .input = f->input, .all = true};
        f->report = (struct bl_scan_report){
                .n = n,
                .source = f->result,
                .matrix = f->matrix,
                .compress_ratio = 2.03,
                .compressed = 1000,
                .still = true,
                .took = 2 * BL_SEC,
                .cpu = BL_SEC,
                .bytes_read = BL_GIB,
                .memory = 5 * BL_MIB,
        };
        f->outcome = (struct ctl_scan_outcome){&f->inputs, &f->report, UINT64_C(1738000000) * BL_SEC, 42, {0}};
        for (size_t i = 0; i < n; i++) {
                struct bl_scan_figures *g = &f->result[i].f, *all = &f->report.all;

                (void)snprintf(f->name[i], sizeof(f->name[i]), "vm%zu", i + 1);
                f->source[i] = (struct bl_source){.n_pages = 256 * MIB, .still = true};
                f->input[i] = (struct ctl_scan_input){
                        .kind = CTL_SCAN_VM, .name = f->name[i], .pid = (pid_t)(100 + i), .source = &f->source[i]};
                g->pages = (100 + i) * MIB;
                g->zero = 4 * MIB;
                g->duplicate_intra = 6 * MIB;
                g->duplicate_inter = i > 0 ? 20 * MIB : 0;
                g->saved_pages = g->zero + g->duplicate_intra + g->duplicate_inter;
                g->unique = g->pages - g->saved_pages;
                g->with_copy_elsewhere = n == 1 ? 0 : (i > 0 && i + 1 < n ? 40 : 20) * MIB;
                g->run[0] = g->with_copy_elsewhere / 10;
                g->run[5] = g->with_copy_elsewhere - g->run[0] + 12 * MIB;
                g->kernel_zero = 10 * MIB;
                f->matrix[i * n + i] = g->duplicate_intra;
                if (i > 0)
                        f->matrix[i * n + i - 1] = f->matrix[(i - 1) * n + i] = 20 * MIB;
                all->pages += g->pages;
                all->zero += g->zero;
                all->unique += g->unique;
                all->duplicate_intra += g->duplicate_intra;
                all->duplicate_inter += g->duplicate_inter;
                all->saved_pages += g->saved_pages;
        }
}

static json_t *document(struct fake *f)
{
        json_t *d = ctl_scan_json(&f->outcome);

        assert_non_null(d);
        return d;
}

static void assert_says(char *sentence, const char *want)
{
        if (!sentence || !want)
                assert_ptr_equal(sentence, want);
        else
                assert_string_equal(sentence, want);
        free(sentence);
}

/* --- the document --------------------------------------------------------------------- */

static void test_document(void **state)
{
        static struct fake f;
        const json_t *vm, *row;
        json_t *d;

        (void)state;
        make(&f, 3);
        d = document(&f);
        assert_int_equal(ctl_number(d, "schema"), 1);
        assert_int_equal(ctl_number(d, "page_size"), 4096);
        assert_int_equal(ctl_number(d, "pages"), 303 * MIB);
        assert_int_equal(ctl_number(d, "saved_pages"), (3 * 10 + 2 * 20) * MIB);
        assert_int_equal(ctl_number(d, "with_others"), 80 * MIB); /* what single ones know is added up */
        assert_int_equal(ctl_number(d, "seed"), 42);
        assert_true(ctl_true(d, "exact"));
        assert_int_equal(json_array_size(json_object_get(d, "runs")), BL_SCAN_RUNS);
        row = json_array_get(json_object_get(d, "matrix"), 1);
        assert_int_equal(json_integer_value(json_array_get(row, 0)), 20 * MIB);
        assert_int_equal(json_integer_value(json_array_get(row, 1)), 6 * MIB);
        assert_false(ctl_true(json_object_get(d, "verify"), "ran"));
        assert_true(json_is_null(json_object_get(json_object_get(d, "verify"), "equal")));
        vm = json_array_get(json_object_get(d, "vms"), 2);
        assert_string_equal(ctl_string(vm, "name"), "vm3");
        assert_string_equal(ctl_string(vm, "kind"), "vm");
        assert_int_equal(ctl_number(vm, "size"), 256 * BL_MIB);
        assert_int_equal(ctl_number(vm, "pages"), 102 * MIB);
        assert_true(json_is_null(json_object_get(vm, "error")));
        json_decref(d);

        /* one of them ran: nothing is exact; one that is gone does not matter */
        f.source[1].still = false;
        assert_false(ctl_scan_is_exact(&f.outcome));
        f.result[1].error = -ESRCH;
        assert_true(ctl_scan_is_exact(&f.outcome));
        f.report.sample_shift = 2;
        assert_false(ctl_scan_is_exact(&f.outcome));
}

static void test_strings_of_others(void **state)
{
        static struct fake f;
        char warning[] = "cut \xff off \033[2J", path[] = "/tmp/\x80";
        const json_t *vm;
        json_t *d;

        (void)state;
        make(&f, 1);
        f.input[0].path = path;
        f.source[0].warning = warning;
        d = document(&f);
        vm = json_array_get(json_object_get(d, "vms"), 0);
        assert_string_equal(ctl_string(vm, "warning"), "cut ? off ?[2J");
        assert_string_equal(ctl_string(vm, "path"), "/tmp/?");
        json_decref(d);
}

static void test_nothing_to_scan(void **state)
{
        struct ctl_scan_inputs none = {.all = true};
        struct ctl_scan_outcome o = {.inputs = &none, .seed = 1};
        _cleanup_free_ char *svg = NULL;
        size_t len;
        json_t *d;

        (void)state;
        d = ctl_scan_json(&o);
        assert_int_equal(json_array_size(json_object_get(d, "vms")), 0);
        assert_int_equal(ctl_number(d, "pages"), 0);
        assert_says(ctl_scan_headline(d), "There is no VM to be scanned.");
        assert_int_equal(ctl_scan_svg(d, &svg, &len), 0);
        assert_int_equal(strlen(svg), len);
        json_decref(d);
}

/* --- sentences ------------------------------------------------------------------------ */

static void test_figures(void **state)
{
        (void)state;
        assert_string_equal(CTL_SCAN_PERCENT(0, 0), "0 %");
        assert_string_equal(CTL_SCAN_PERCENT(0, 9), "0 %");
        assert_string_equal(CTL_SCAN_PERCENT(43, 100), "43 %");
        assert_string_equal(CTL_SCAN_PERCENT(100, 100), "100 %");
        assert_string_equal(CTL_SCAN_PERCENT(43, 1000), "4.3 %");
        assert_string_equal(CTL_SCAN_PERCENT(999, 10000), "10 %");
        assert_string_equal(CTL_SCAN_PERCENT(4, 10000), "0.04 %");
        assert_string_equal(CTL_SCAN_SIZE(0), "0 B");
        assert_string_equal(CTL_SCAN_SIZE(812 * MIB), "812 MiB");
}

static void test_headline(void **state)
{
        static struct fake f;
        json_t *d;

        (void)state;
        make(&f, 3);
        f.report.all.merged_saved = 8 * MIB;
        d = document(&f);
        assert_says(ctl_scan_headline(d), "3 VMs hold 303 MiB; merging equal pages would free 70 MiB (23 %): 40 MiB "
                                          "between VMs, 18 MiB within, 12 MiB zero pages. KSM frees 8 MiB of that "
                                          "now.");
        json_decref(d);

        f.report.sample_shift = 3;
        f.report.saved_error = 255.7;
        f.report.blind = true;
        d = document(&f);
        assert_says(ctl_scan_headline(d), "3 VMs hold 303 MiB; merging equal pages would free 70 MiB (23 %, give or "
                                          "take 1 MiB): 40 MiB between VMs, 18 MiB within, 12 MiB zero pages.");
        assert_says(ctl_scan_say_sampling(d),
                    "Estimated from 1/8 of all contents, as the index may have no more memory "
                    "(--memory): the standard error of what would be freed is 1 MiB.");
        json_decref(d);

        /* one that ended is not counted; mixed kinds have a common name */
        make(&f, 3);
        f.result[2].error = -ESRCH;
        f.input[1].kind = CTL_SCAN_PROCESS;
        d = document(&f);
        assert_non_null(strstr(ctl_scan_count(d, (char[64]){0}, 64), "2 sources"));
        assert_says(ctl_scan_note(d, 0), "vm3 ended during the scan; it is not in these figures.");
        assert_says(ctl_scan_note(d, 1), NULL);
        json_decref(d);

        make(&f, 1);
        f.input[0].kind = CTL_SCAN_DUMP; /* of which KSM knows nothing */
        d = document(&f);
        assert_says(ctl_scan_headline(d), "1 dump holds 100 MiB; merging equal pages would free 10 MiB (10 %): 6 MiB "
                                          "within it, 4 MiB zero pages.");
        json_decref(d);

        f.report.all = (struct bl_scan_figures){.pages = 100 * MIB, .unique = 100 * MIB};
        f.input[0].kind = CTL_SCAN_PROCESS;
        d = document(&f);
        assert_says(ctl_scan_headline(d), "1 process holds 100 MiB; merging equal pages would free 0 B (0 %). Of that "
                                          "0 B is kept once already, by KSM or since a fork.");
        json_decref(d);
}

static void test_sentences(void **state)
{
        char difference[] = "it says 5";
        static struct fake f;
        json_t *d;

        (void)state;
        make(&f, 3);
        d = document(&f);
        assert_says(ctl_scan_say_runs(d),
                    "116 MiB of pages have a copy somewhere. They lie together: 93 % of that is in "
                    "runs of 64 KiB or more, 0 % in runs of 2 MiB or more.");
        assert_says(ctl_scan_say_compression(d), "What would be left compresses to 49 % by LZ4 (2.03 to 1, a sample of "
                                                 "1000 pages).");
        assert_says(ctl_scan_say_cost(d),
                    "1 GiB read in 2.00 s with 1.00 s of CPU (1.1 GB a CPU-second); the index took 5 MiB.");
        assert_says(ctl_scan_say_sampling(d), NULL);
        assert_says(ctl_scan_say_verdict(d), NULL);
        json_decref(d);

        for (size_t i = 0; i < 3; i++) {
                memset(f.result[i].f.run, 0, sizeof(f.result[i].f.run));
                f.result[i].f.run[1] = MIB;
        }
        f.report.compressed = 0;
        f.outcome.verdict = (struct ctl_scan_verdict){.ran = true, .equal = true, .saved_pages = 70 * MIB};
        d = document(&f);
        assert_says(ctl_scan_say_runs(d), "3 MiB of pages have a copy somewhere. They lie scattered: 0 % of that is in "
                                          "runs of 64 KiB or more, 0 % in runs of 2 MiB or more.");
        assert_says(ctl_scan_say_compression(d), NULL);
        assert_says(ctl_scan_say_verdict(d), "Verified: brute force finds the same figures.");
        json_decref(d);

        f.outcome.verdict = (struct ctl_scan_verdict){
                .ran = true, .binding = true, .difference = difference, .saved_pages = 71 * MIB};
        d = document(&f);
        assert_says(ctl_scan_say_verdict(d), "NOT verified: brute force finds other figures: it says 5.");
        json_decref(d);
        f.outcome.verdict.binding = false;
        d = document(&f);
        assert_says(ctl_scan_say_verdict(d),
                    "Brute force, a moment later, finds 71 MiB to be freed, 1 MiB more than the "
                    "scan: what runs moves on.");
        json_decref(d);
}

static void test_notes(void **state)
{
        struct ctl_scan_left_out out = {"vm9", "vm9 runs, but has no process"};
        char warning[] = "the file ends too early.";
        static struct fake f;
        json_t *d;

        (void)state;
        make(&f, 8);
        f.inputs.left_out = &out;
        f.inputs.n_left_out = 1;
        f.source[0].warning = warning;
        f.result[1].error = -ESTALE;
        f.result[2].error = -EIO;
        f.report.all.swapped = MIB;
        f.report.all.volatile_pages = 2 * MIB;
        f.report.all.unreadable = 3 * MIB;
        f.report.blind = true;
        f.report.matrix = NULL;
        for (size_t i = 0; i < 8; i++)
                f.source[i].shared_bytes = BL_MIB;
        d = document(&f);
        assert_says(ctl_scan_note(d, 0), "the memory of vm2 was laid out anew during the scan (plugged in, or mapped); "
                                         "it is not in these figures.");
        assert_says(ctl_scan_note(d, 1),
                    "vm3 could not be read to the end: Input/output error; it is not in these figures.");
        assert_says(ctl_scan_note(d, 2), "the file ends too early.");
        assert_says(ctl_scan_note(d, 3), "vm9 runs, but has no process.");
        assert_says(ctl_scan_note(d, 4), "1 MiB is in swap, and was not read.");
        assert_says(ctl_scan_note(d, 5), "2 MiB changed while it was looked at, and counts as no copy.");
        assert_says(ctl_scan_note(d, 6), "3 MiB could not be read.");
        assert_says(ctl_scan_note(d, 7),
                    "What KSM has merged, and the kernel's zero page, could not be told from other "
                    "pages: that takes CAP_SYS_ADMIN.");
        assert_says(ctl_scan_note(d, 8),
                    "KSM cannot merge shared memory and huge pages: mappings of 6 MiB here, of vm1, "
                    "vm4, vm5, vm6, vm7 and 1 more.");
        assert_says(ctl_scan_note(d, 9), "There are too many VMs to compare each two of them.");
        assert_says(ctl_scan_note(d, 10), NULL);
        json_decref(d);
}

static void test_fold(void **state)
{
        (void)state;
        assert_says(ctl_scan_fold("would free 812 MiB (43 %) of it", 16), "would free\n812 MiB (43 %)\nof it");
        assert_says(ctl_scan_fold("a b", 0), "a b");
}

/* --- tables --------------------------------------------------------------------------- */

/* What is printed of a document at that width. */
static char *printed(const json_t *d, int width)
{
        static char text[1 << 16];
        struct ctl c = {.width = width};
        FILE *f = tmpfile();
        int saved = dup(STDOUT_FILENO);
        size_t n;

        assert_non_null(f);
        (void)fflush(stdout);
        assert_true(dup2(fileno(f), STDOUT_FILENO) >= 0);
        ctl_scan_print(&c, d);
        (void)fflush(stdout);
        assert_true(dup2(saved, STDOUT_FILENO) >= 0);
        (void)close(saved);
        rewind(f);
        n = fread(text, 1, sizeof(text) - 1, f);
        text[n] = 0;
        (void)fclose(f);
        return text;
}

static size_t widest(const char *text)
{
        size_t max = 0;

        while (*text) {
                size_t n = strcspn(text, "\n");

                max = n > max ? n : max;
                text += n + (text[n] == '\n');
        }
        return max;
}

static void test_tables(void **state)
{
        static struct fake f;
        const char *text;
        json_t *d;

        (void)state;
        make(&f, 3);
        d = document(&f);
        text = printed(d, 80);
        assert_non_null(strstr(text, "\nVM       HELD   ZERO WITHIN OTHERS MERGED\n"
                                     "vm1   100 MiB  4 MiB  6 MiB 20 MiB      .\n"
                                     "vm2   101 MiB  4 MiB  6 MiB 40 MiB      .\n"
                                     "vm3   102 MiB  4 MiB  6 MiB 20 MiB      .\n"
                                     "3 VMs 303 MiB 12 MiB 18 MiB 80 MiB      .\n"));
        assert_non_null(strstr(text, "\n# VM     1    2    3\n"
                                     "1 vm1  6.0 20.0    .\n"
                                     "2 vm2 20.0  6.0 20.0\n"
                                     "3 vm3    . 20.0  6.0\n"));
        json_decref(d);

        /* what there is none of has no column; what there is has one */
        f.result[1].f.swapped = f.report.all.swapped = MIB;
        f.result[2].error = -ESRCH;
        d = document(&f);
        text = printed(d, 80);
        assert_non_null(strstr(text, " MERGED SWAPPED\n"));
        assert_null(strstr(text, "VOLATILE"));
        assert_non_null(strstr(text, "\nvm3         -"));
        json_decref(d);
}

static void test_widths(void **state)
{
        static struct fake f;
        const char *text;
        json_t *d;

        (void)state;
        make(&f, 12);
        (void)strcpy(f.name[4], "a-name-that-is-rather-long-for-a-terminal-of-40-columns");
        d = document(&f);
        for (int width = 48; width <= 160; width += 16) {
                text = printed(d, width);
                if (widest(text) > (size_t)width)
                        fail_msg("%zu columns at width %d:\n%s", widest(text), width, text);
                assert_true((strstr(text, "Equal memory of each two") != NULL) == (width >= 96));
                assert_true((strstr(text, "The 10 of 11 pairs") != NULL) == (width < 96));
        }
        /* no bound: all of it */
        text = printed(d, 0);
        assert_non_null(strstr(text, "Equal memory of each two"));
        assert_non_null(strstr(text, "5 a-name-that-is-rather-long-for-a-terminal-of-40-columns "));
        json_decref(d);
}

/* --- the picture ---------------------------------------------------------------------- */

static xmlDoc *draw(const json_t *d, char **ret)
{
        xmlDoc *doc;
        size_t len;

        assert_int_equal(ctl_scan_svg(d, ret, &len), 0);
        doc = bl_xml_read(*ret, len);
        assert_non_null(doc);
        assert_string_equal((const char *)xmlDocGetRootElement(doc)->name, "svg");
        return doc;
}

/* How many elements of that name and class there are; with `text` (if any) in them. */
static size_t count(const xmlNode *n, const char *name, const char *class_name, const char *text)
{
        size_t sum = 0;

        for (; n; n = n->next) {
                _cleanup_free_ char *c = n->type == XML_ELEMENT_NODE ? bl_xml_attr(n, "class") : NULL;
                xmlChar *content = n->type == XML_ELEMENT_NODE ? xmlNodeGetContent(n) : NULL;

                if (content && strcmp((const char *)n->name, name) == 0 &&
                    (!class_name || (c && strstr(c, class_name))) &&
                    (!text || strcmp((const char *)content, text) == 0))
                        sum++;
                xmlFree(content);
                sum += count(n->children, name, class_name, text);
        }
        return sum;
}

static void test_picture(void **state)
{
        _cleanup_free_ char *svg = NULL;
        static struct fake f;
        xmlNode *root;
        xmlDoc *doc;
        json_t *d;

        (void)state;
        make(&f, 3);
        (void)strcpy(f.name[0], "<b>&\"it's\"</b>");
        (void)strcpy(f.name[1], "odd \xef\xbf\xbe end"); /* U+FFFE, which XML has not */
        (void)strcpy(f.name[2], "\xd1\x84\xd1\x83"); /* two letters of Cyrillic */
        f.result[1].f.merged = MIB;
        f.report.all.merged = MIB;
        d = document(&f);
        doc = draw(d, &svg);
        root = xmlDocGetRootElement(doc);
        assert_int_equal(count(root, "text", NULL, "<b>&\"it's\"</b><b>&\"it's\"</b>"),
                         3); /* tooltip and text: of the bar, and of a row and a column of the map */
        assert_int_equal(count(root, "text", NULL, "odd ? endodd ? end"), 3);
        assert_int_equal(count(root, "text", NULL, "\xd1\x84\xd1\x83\xd1\x84\xd1\x83"), 3);
        assert_int_equal(count(root, "b", NULL, NULL), 0);
        /* a bar each: with its sizes, in common and not, and what KSM has of one */
        assert_int_equal(count(root, "text", NULL, "101 MiB"), 1);
        assert_int_equal(count(root, "rect", NULL, "another has it, too: 20 MiB"), 2);
        assert_int_equal(count(root, "rect", NULL, "another has it, too: 40 MiB"), 1);
        assert_int_equal(count(root, "rect", NULL, "several times in it alone: 12 MiB"), 3);
        assert_int_equal(count(root, "rect", NULL, "no copy: 64 MiB"), 1);
        assert_int_equal(count(root, "rect", NULL, "zero pages: 4 MiB"), 3);
        assert_int_equal(count(root, "rect", NULL, "the kernel's zero page (costs nothing): 10 MiB"), 3);
        assert_int_equal(count(root, "rect", "merged", "merged by KSM now: 1 MiB"), 1);
        /* the map: nine cells, of which seven have a figure */
        assert_int_equal(count(root, "g", NULL, NULL), 9);
        assert_int_equal(count(root, "text", "on-light", "6"), 3);
        assert_int_equal(count(root, "text", "on", "20"), 4);
        /* the figures that are seen first */
        assert_int_equal(count(root, "text", "figure", "303 MiB"), 1);
        assert_int_equal(count(root, "text", "figure", "70 MiB"), 1);
        assert_int_equal(count(root, "text", "figure", "2.03 : 1"), 1);
        /* nothing that runs, or comes from elsewhere */
        assert_null(strstr(svg, "<script"));
        assert_null(strstr(svg, "href"));
        assert_null(strstr(svg, "@import"));
        assert_null(strstr(strstr(svg, "http://www.w3.org/2000/svg") + 1, "http"));
        assert_non_null(strstr(svg, "prefers-color-scheme: dark"));
        xmlFreeDoc(doc);
        json_decref(d);
}

static void test_large_picture(void **state)
{
        _cleanup_free_ char *svg = NULL;
        static struct fake f;
        xmlNode *root;
        xmlDoc *doc;
        json_t *d;

        (void)state;
        make(&f, 100);
        f.result[99].error = -ESRCH;
        d = document(&f);
        doc = draw(d, &svg);
        root = xmlDocGetRootElement(doc);
        assert_int_equal(count(root, "g", NULL, NULL), CTL_SVG_MAX * CTL_SVG_MAX);
        assert_non_null(strstr(svg, "of 100 VMs the 64 largest are drawn"));
        /* the largest that did not end are vm36 to vm99, in their order */
        assert_int_equal(count(root, "title", NULL, "vm35"), 0);
        assert_int_equal(count(root, "title", NULL, "vm36"), 3);
        assert_int_equal(count(root, "title", NULL, "vm99"), 3);
        assert_int_equal(count(root, "title", NULL, "vm100"), 0);
        assert_true(strstr(svg, "<title>vm36<") < strstr(svg, "<title>vm37<"));
        /* a cell shows its own pair: the matrix is of all 100 */
        assert_int_equal(count(root, "title", NULL, "vm36 and vm37: 20 MiB"), 1);
        assert_int_equal(count(root, "title", NULL, "vm36 and vm38: 0 B"), 1);
        xmlFreeDoc(doc);
        json_decref(d);
}

static void test_picture_without_matrix(void **state)
{
        _cleanup_free_ char *svg = NULL;
        static struct fake f;
        xmlDoc *doc;
        json_t *d;

        (void)state;
        make(&f, 3);
        f.report.matrix = NULL;
        d = document(&f);
        doc = draw(d, &svg);
        assert_int_equal(count(xmlDocGetRootElement(doc), "g", NULL, NULL), 0);
        assert_int_equal(count(xmlDocGetRootElement(doc), "text", NULL, "101 MiB"), 1);
        xmlFreeDoc(doc);
        json_decref(d);
}

/* --- the rest ------------------------------------------------------------------------- */

static void test_time_left(void **state)
{
        char buf[64];

        (void)state;
        assert_string_equal(ctl_scan_time_left(BL_SEC, 0, buf, sizeof(buf)), "");
        assert_string_equal(ctl_scan_time_left(100 * BL_MSEC, 5000, buf, sizeof(buf)), "");
        assert_string_equal(ctl_scan_time_left(10 * BL_SEC, 2500, buf, sizeof(buf)), "about 31 s left");
        assert_string_equal(ctl_scan_time_left(60 * BL_SEC, 2500, buf, sizeof(buf)), "about 3 min 1 s left");
        assert_string_equal(ctl_scan_time_left(3600 * BL_SEC, 2500, buf, sizeof(buf)), "about 3 h 0 min left");
        assert_string_equal(ctl_scan_time_left(UINT64_MAX / 2, 10000, buf, sizeof(buf)), "about 1 s left");
}

static void test_output(void **state)
{
        char dir[] = "/tmp/test-scan-XXXXXX", path[64], link[64], got[8] = "";
        struct stat st;
        FILE *f;

        (void)state;
        assert_non_null(mkdtemp(dir));
        (void)snprintf(path, sizeof(path), "%s/a.svg", dir);
        (void)snprintf(link, sizeof(link), "%s/link", dir);
        assert_int_equal(ctl_scan_output_check(path), 0);
        assert_int_equal(stat(path, &st), -1); /* asking makes nothing */
        assert_int_equal(ctl_scan_output_write(path, "old", 3), 0);
        assert_int_equal(symlink("a.svg", link), 0);
        assert_int_equal(ctl_scan_output_check(link), 0);
        assert_int_equal(ctl_scan_output_write(link, "new", 3), 0);
        assert_int_equal(lstat(link, &st), 0);
        assert_true(S_ISLNK(st.st_mode)); /* it stays one */
        f = fopen(path, "r");
        assert_non_null(f);
        assert_int_equal(fread(got, 1, 7, f), 3);
        (void)fclose(f);
        assert_string_equal(got, "new");
        assert_int_equal(ctl_scan_output_check(dir), -EISDIR);
        assert_int_equal(ctl_scan_output_check("/dev/full"), 0);
        assert_int_equal(ctl_scan_output_write("/dev/full", "x", 1), -ENOSPC);
        assert_int_equal(ctl_scan_output_check("/proc/no/such/place"), -ENOENT);
        assert_int_equal(ctl_scan_output_check("/proc/file"), -ENOENT);
        assert_int_equal(ctl_scan_output_check(""), -ENOENT);
        (void)unlink(link);
        (void)unlink(path);
        assert_int_equal(rmdir(dir), 0); /* no probe was left */
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_document),
                cmocka_unit_test(test_strings_of_others),
                cmocka_unit_test(test_nothing_to_scan),
                cmocka_unit_test(test_figures),
                cmocka_unit_test(test_headline),
                cmocka_unit_test(test_sentences),
                cmocka_unit_test(test_notes),
                cmocka_unit_test(test_fold),
                cmocka_unit_test(test_tables),
                cmocka_unit_test(test_widths),
                cmocka_unit_test(test_picture),
                cmocka_unit_test(test_large_picture),
                cmocka_unit_test(test_picture_without_matrix),
                cmocka_unit_test(test_time_left),
                cmocka_unit_test(test_output),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
