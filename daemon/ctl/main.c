/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/ctl/ctl.h"

int main(int argc, char **argv)
{
        struct ctl c = {0};
        int r;

        (void)setlocale(LC_CTYPE, ""); /* how wide a character is; nothing else is translated */
        r = ctl_parse(&c, argc, argv);
        if (r < 0)
                r = (int)c.command->run(&c);
        if (c.bus)
                sd_bus_close_unref(c.bus);
        free(c.where);
        free(c.given);
        if (fflush(stdout) != 0 && r == CTL_OK) {
                ctl_error("cannot write to standard output: %m");
                r = CTL_FAILED;
        }
        return r;
}
