/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ask: something of the agent in a guest. */
#include <errno.h>
#include <string.h>

#include "daemon/ctl/ctl.h"
#include "daemon/util/size.h"

enum ctl_exit ctl_cmd_ask(struct ctl *c)
{
        static const char *const known[] = {"ping", "trim", "compact", "hints"};
        const char *size = ctl_value(c, "size");
        uint64_t bytes = BL_UNSET;
        bool found = false;

        for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
                found = found || strcmp(c->args[1], known[i]) == 0;
        if (!found)
                return ctl_usage(c, "'%s' is nothing that an agent can be asked for: ping, trim, compact, hints",
                                 c->args[1]);
        if (size && bl_size_parse(size, &bytes) < 0)
                return ctl_usage(c, "'%s' is no size, as in 64M", size);
        return ctl_change(c, "Ask", "Done.", "sst", c->args[0], c->args[1], bytes);
}
