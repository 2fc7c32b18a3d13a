/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdarg.h>
#include <stdio.h>

#include "daemon/ctl/ctl.h"

__attribute__((format(printf, 1, 0))) static void say(const char *format, va_list ap)
{
        _cleanup_free_ char *s = NULL;

        if (vasprintf(&s, format, ap) < 0)
                return;
        ctl_make_text_safe(s, true);
        (void)fflush(stdout);
        fprintf(stderr, "ballastctl: %s\n", s);
}

void ctl_error(const char *format, ...)
{
        va_list ap;

        va_start(ap, format);
        say(format, ap);
        va_end(ap);
}

enum ctl_exit ctl_try_help(const struct ctl *c)
{
        if (c->command)
                fprintf(stderr, "Try 'ballastctl %s --help'.\n", c->command->name);
        else
                fputs("Try 'ballastctl --help'.\n", stderr);
        return CTL_USAGE;
}

enum ctl_exit ctl_usage(const struct ctl *c, const char *format, ...)
{
        va_list ap;

        va_start(ap, format);
        say(format, ap);
        va_end(ap);
        return ctl_try_help(c);
}
