/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "daemon/ctl/ctl.h"
#include "daemon/util/size.h"
#include "daemon/util/suggest.h"

#define GLOBALS_MAX 8
/* getopt's answer for the i-th option: above all characters */
#define FIRST_GLOBAL  1000
#define FIRST_COMMAND 2000

static size_t add(struct option *to, size_t n, const struct ctl_option *from, int first)
{
        for (int i = 0; from[i].name; i++)
                to[n++] = (struct option){
                        .name = from[i].name,
                        .has_arg = !from[i].arg           ? no_argument
                                   : from[i].arg_optional ? optional_argument
                                                          : required_argument,
                        .val = first + i,
                };
        return n;
}

/* -1: go on. */
static int global_option(struct ctl *c, const char *name, const char *value)
{
        if (strcmp(name, "socket") == 0)
                c->socket = value;
        else if (strcmp(name, "json") == 0)
                c->json = true;
        else if (strcmp(name, "no-color") == 0)
                c->color = false;
        else if (strcmp(name, "help") == 0) {
                if (c->command)
                        ctl_command_help(stdout, c->command);
                else
                        ctl_help(stdout);
                return CTL_OK;
        } else if (strcmp(name, "version") == 0) {
                puts("ballastctl " BALLAST_VERSION);
                return CTL_OK;
        }
        return -1;
}

static int parse_some(struct ctl *c, int argc, char **argv, const char *mode)
{
        struct option all[GLOBALS_MAX + CTL_OPTIONS_MAX + 1] = {0};
        size_t n = add(all, 0, ctl_global_options, FIRST_GLOBAL);
        int k, r;

        if (c->command)
                (void)add(all, n, c->command->options, FIRST_COMMAND);
        while ((k = getopt_long(argc, argv, mode, all, NULL)) >= 0) {
                if (k >= FIRST_COMMAND) {
                        const struct ctl_option *o = &c->command->options[k - FIRST_COMMAND];

                        c->values[k - FIRST_COMMAND] = optarg ? optarg : "";
                        c->given[c->n_given++] = (struct ctl_given){o, c->values[k - FIRST_COMMAND]};
                } else if (k >= FIRST_GLOBAL) {
                        r = global_option(c, ctl_global_options[k - FIRST_GLOBAL].name, optarg);
                        if (r >= 0)
                                return r;
                } else
                        return (int)ctl_try_help(c); /* getopt has said what is wrong */
        }
        return -1;
}

static int unknown_command(const struct ctl *c, const char *word)
{
        const char *words[32];
        const char *near;
        size_t n = 0;

        for (const struct ctl_command *k = ctl_commands; k->name && n < 32; k++)
                words[n++] = k->name;
        near = bl_suggest(word, words, n);
        if (near)
                return (int)ctl_usage(c, "no command is called '%s'; did you mean '%s'?", word, near);
        return (int)ctl_usage(c, "no command is called '%s'", word);
}

int ctl_terminal_width(void)
{
        struct winsize w;

        return ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col >= 20 ? w.ws_col : 0;
}

static void look_at_terminal(struct ctl *c)
{
        const char *columns = getenv("COLUMNS"), *term = getenv("TERM"), *no = getenv("NO_COLOR");
        bool tty = isatty(STDOUT_FILENO);
        uint64_t n;

        c->color = tty && !(no && *no) && !(term && strcmp(term, "dumb") == 0);
        if (columns && bl_uint_parse(columns, &n) >= 0 && n >= 20 && n <= 10000)
                c->width = (int)n;
        else if (tty) {
                c->width = ctl_terminal_width();
                if (c->width == 0)
                        c->width = 80;
        }
}

int ctl_parse(struct ctl *c, int argc, char **argv)
{
        const char *from_env = getenv("BALLAST_SOCKET");
        char name[] = "ballastctl";
        int r, first;

        if (argc < 1)
                return CTL_USAGE;
        if (from_env && *from_env)
                c->socket = from_env;
        look_at_terminal(c);
        argv[0] = name; /* for getopt's messages */
        r = parse_some(c, argc, argv, "+");
        if (r >= 0)
                return r;
        if (optind >= argc)
                return (int)ctl_usage(c, "a command is needed");
        first = optind;
        c->command = ctl_command_find(argv[first]);
        if (!c->command)
                return unknown_command(c, argv[first]);
        argv[first] = name;
        argv += first;
        argc -= first;
        c->given = calloc((size_t)argc, sizeof(*c->given)); /* one a word at most */
        if (!c->given) {
                ctl_error("out of memory");
                return CTL_FAILED;
        }
        optind = 0; /* getopt starts anew */
        r = parse_some(c, argc, argv, "");
        if (r >= 0)
                return r;
        c->args = argv + optind;
        c->n_args = argc - optind;
        if (c->n_args < c->command->min_args)
                return (int)ctl_usage(c, "'%s' needs %s", c->command->name, c->command->args);
        if (c->n_args > c->command->max_args)
                return (int)ctl_usage(c, "'%s' is one argument too many for '%s'", c->args[c->command->max_args],
                                      c->command->name);
        if (c->n_args > 0 && !*c->args[0])
                return (int)ctl_usage(c, "the argument is empty");
        return -1;
}

const char *ctl_value(const struct ctl *c, const char *name)
{
        for (size_t i = 0; c->command->options[i].name; i++)
                if (strcmp(c->command->options[i].name, name) == 0)
                        return c->values[i];
        return NULL;
}

const char *ctl_next_value(const struct ctl *c, const char *name, size_t *i)
{
        while (*i < c->n_given) {
                const struct ctl_given *g = &c->given[(*i)++];

                if (strcmp(g->option->name, name) == 0)
                        return g->value;
        }
        return NULL;
}
