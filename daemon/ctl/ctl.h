/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ballastctl: one table of commands (command.c) drives parsing, dispatch and
 * help; tests/cli compares the man page and the bash completion with it.
 *
 * A new command: an entry in command.c and a function in a file cmd-*.c.
 */
#ifndef BALLAST_CTL_CTL_H
#define BALLAST_CTL_CTL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <systemd/sd-bus.h>

#include <ballast/cleanup.h>
#include <ballast/units.h>

#include "daemon/util/size.h"

/* Exit codes, documented in ballastctl(1); never renumbered. */
enum ctl_exit {
        CTL_OK = 0,
        CTL_FAILED = 1,
        CTL_USAGE = 2,
        CTL_UNREACHABLE = 3,
        CTL_NO_SUCH_VM = 4,
        CTL_NOT_PERMITTED = 5,
        CTL_REFUSED = 6, /* not in this state; the sentence says which */
};

#define CTL_OPTIONS_MAX 12

struct ctl_option {
        const char *name;
        const char *arg; /* NULL: a flag */
        bool arg_optional; /* --name[=ARG] */
        const char *help;
};

/* One option of a command, as it was given. */
struct ctl_given {
        const struct ctl_option *option;
        const char *value;
};

struct ctl;

struct ctl_command {
        const char *name;
        const char *args; /* "VM", "[VM]", "on|off" or "" */
        int min_args, max_args;
        const char *summary; /* one line */
        const char *details; /* further lines of its help, or NULL */
        enum ctl_exit (*run)(struct ctl *c);
        struct ctl_option options[CTL_OPTIONS_MAX]; /* ended by a NULL name */
};

extern const struct ctl_command ctl_commands[]; /* ended by a NULL name */
extern const struct ctl_option ctl_global_options[];

/* One invocation. */
struct ctl {
        const struct ctl_command *command;
        const char *values[CTL_OPTIONS_MAX]; /* of the command's options; "" for a flag */
        struct ctl_given *given; /* the same, all of them in their order; allocated */
        size_t n_given;
        int n_args;
        char **args;

        const char *socket; /* NULL: the usual place, then the system bus */
        bool json;
        bool color;
        int width; /* of the terminal; 0: no bound */

        sd_bus *bus;
        char *where; /* what we are connected to, for messages */
};

/* The value of an option of this command: NULL when it was not given; of several the last. */
const char *ctl_value(const struct ctl *c, const char *name);
/* All values of one that may be given several times, from *i = 0 on; NULL: there are no more. */
const char *ctl_next_value(const struct ctl *c, const char *name, size_t *i);

/* --- command.c, options.c --- */
const struct ctl_command *ctl_command_find(const char *name);
void ctl_help(FILE *f);
void ctl_command_help(FILE *f, const struct ctl_command *command);
/* -1: go on; otherwise end with that exit code. */
int ctl_parse(struct ctl *c, int argc, char **argv);
/* Of standard output; 0: no terminal, or one too narrow to heed. */
int ctl_terminal_width(void);

/* --- message.c: "ballastctl: ..." to standard error --- */
__attribute__((format(printf, 1, 2))) void ctl_error(const char *format, ...);
/* "Try 'ballastctl CMD --help'." after what is wrong; returns CTL_USAGE. */
enum ctl_exit ctl_try_help(const struct ctl *c);
/* The two in one. */
__attribute__((format(printf, 2, 3))) enum ctl_exit ctl_usage(const struct ctl *c, const char *format, ...);

/* --- connect.c --- */
enum ctl_exit ctl_connect(struct ctl *c);
/* For what can do without ballastd: connects, and says nothing where it cannot. */
bool ctl_is_reachable(struct ctl *c);

/* --- call.c: all connect first, and say what went wrong --- */

/* A reading method; `vm` NULL: it has no argument.  The document's strings
 * are harmless to a terminal. */
enum ctl_exit ctl_read(struct ctl *c, const char *method, const char *vm, json_t **ret);
/* The same for what is no document. */
enum ctl_exit ctl_read_text(struct ctl *c, const char *method, char **ret);

/* A changing method with the arguments of `types`.  Prints its sentence, or
 * `otherwise` when it has none (NULL: nothing). */
enum ctl_exit ctl_change(struct ctl *c, const char *method, const char *otherwise, const char *types, ...);
/* The same with a message that the caller made; its errors are left in `e` and not said when `e` is given. */
enum ctl_exit ctl_change_message(struct ctl *c, sd_bus_message *m, const char *otherwise, sd_bus_error *e);
enum ctl_exit ctl_new_message(struct ctl *c, const char *method, sd_bus_message **ret);
enum ctl_exit ctl_say_bus_error(struct ctl *c, int r, const sd_bus_error *e);

/* --- print.c --- */

/* Prints the document if --json was given: true when it did. */
bool ctl_print_json(const struct ctl *c, const json_t *doc);
/* A document {schema, ok, message}. */
void ctl_print_message(const struct ctl *c, const char *message);
/* Takes control characters out of all strings of the document. */
void ctl_make_safe(json_t *doc);
void ctl_make_text_safe(char *s, bool keep_newlines);

/* Fields, tolerant of absence: "-", 0, "". */
const char *ctl_size(const json_t *object, const char *field, char *buf, size_t size);
/* The same in a buffer of its own, which lasts to the end of the block. */
#define CTL_SIZE(object, field) ctl_size(object, field, (char[BL_SIZE_BUF]){0}, BL_SIZE_BUF)
uint64_t ctl_number(const json_t *object, const char *field);
const char *ctl_string(const json_t *object, const char *field);
bool ctl_true(const json_t *object, const char *field);

/* Local time "2025-01-31 13:45:00" of microseconds since the epoch. */
const char *ctl_time(uint64_t us, char *buf, size_t size);

enum ctl_color { CTL_PLAIN, CTL_BOLD, CTL_RED, CTL_GREEN, CTL_YELLOW };
const char *ctl_color(const struct ctl *c, enum ctl_color color);
const char *ctl_color_end(const struct ctl *c);
/* How a host state is shown. */
enum ctl_color ctl_state_color(const char *state);

/* "Label:      value", the same width for all. */
__attribute__((format(printf, 2, 3))) void ctl_field(const char *label, const char *format, ...);

/* --- share_print.c --- */
/* The table of `list --sharing` and `share`; `stamp` NULL: no column for the time. */
void ctl_print_sharing(const struct ctl *c, const json_t *doc, const char *stamp, bool heading);

/* --- cmd-*.c --- */
enum ctl_exit ctl_cmd_status(struct ctl *c);
enum ctl_exit ctl_cmd_config(struct ctl *c);
enum ctl_exit ctl_cmd_metrics(struct ctl *c);
enum ctl_exit ctl_cmd_list(struct ctl *c);
enum ctl_exit ctl_cmd_show(struct ctl *c);
enum ctl_exit ctl_cmd_tiers(struct ctl *c);
enum ctl_exit ctl_cmd_drain(struct ctl *c);
enum ctl_exit ctl_cmd_share(struct ctl *c);
enum ctl_exit ctl_cmd_plan(struct ctl *c);
enum ctl_exit ctl_cmd_explain(struct ctl *c);
enum ctl_exit ctl_cmd_set(struct ctl *c);
enum ctl_exit ctl_cmd_balloon(struct ctl *c);
enum ctl_exit ctl_cmd_hold(struct ctl *c);
enum ctl_exit ctl_cmd_release(struct ctl *c);
enum ctl_exit ctl_cmd_act(struct ctl *c);
enum ctl_exit ctl_cmd_ask(struct ctl *c);
enum ctl_exit ctl_cmd_rollback(struct ctl *c);
enum ctl_exit ctl_cmd_reload(struct ctl *c);
enum ctl_exit ctl_cmd_enroll(struct ctl *c);
enum ctl_exit ctl_cmd_scan(struct ctl *c);

#endif
