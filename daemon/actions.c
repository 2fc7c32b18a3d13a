// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * What the daemon asks of agents: what makes giving easier for the guest before
 * its balloon grows, and what an administrator asks for.
 */
#include <errno.h>
#include <string.h>

#include "daemon/channel/agent.h"
#include "daemon/control.h"
#include "daemon/manager-private.h"
#include "daemon/util/clock.h"
#include "daemon/util/size.h"

/* Less is not worth waking the guest for. */
#define WORTH (64 * BL_MIB)

/* What may be asked by hand or before an inflation; those of swap have their own way (swap.c). */
static const struct {
        const char *name, *what;
} kinds[_BL_ACTION_MAX] = {
        [BL_ACTION_PING] = {"ping", "answered"},
        [BL_ACTION_TRIM] = {"trim", "gave clean page cache back"},
        [BL_ACTION_COMPACT] = {"compact", "compacted its memory"},
        [BL_ACTION_HINTS] = {"hints", "said which pages it can do without"},
};

/* Of a result that is not good: the error, and why. */
static int failure(uint64_t status, const char **ret_why)
{
        switch (status) {
        case BL_RESULT_UNKNOWN:
                *ret_why = "its agent or kernel cannot do that";
                return -EOPNOTSUPP;
        case BL_RESULT_BUSY:
                *ret_why = "its agent is busy, or was asked for this a moment ago; try again later";
                return -EBUSY;
        default:
                *ret_why = "it failed in the guest, or its agent did not answer";
                return -ETIMEDOUT;
        }
}

/* Whoever asked by hand gets the one answer. */
static bool answer(struct bl_guest *g, int r, const char *sentence)
{
        struct bl_guest_ask ask = g->agent.ask;

        g->agent.ask = (struct bl_guest_ask){0};
        if (ask.done)
                ask.done(ask.userdata, r, sentence);
        return ask.done != NULL;
}

void bl_actions_result(struct bl_guest *g, enum bl_wire_action_kind kind, const struct bl_wire_result *r)
{
        char size[BL_SIZE_BUF], took[BL_SIZE_BUF], sentence[200];
        /* of a ping the way there and back is what matters */
        usec_t time = kind == BL_ACTION_PING ? bl_sub_sat(bl_now(), g->agent.ask.at) : r->took;
        const char *why;

        if (r->status != BL_RESULT_DONE && r->status != BL_RESULT_PARTLY) {
                int error = failure(r->status, &why);

                (void)snprintf(sentence, sizeof sentence, "%s: %s", g->name, why);
                (void)answer(g, error, sentence);
                return;
        }
        (void)snprintf(sentence, sizeof sentence, "%s %s%s%s%s%s", g->name, kinds[kind].what,
                       r->bytes == BL_UNSET ? "" : ": ",
                       r->bytes == BL_UNSET ? "" : bl_size_format(r->bytes, size, sizeof size),
                       time == BL_UNSET ? "" : " in ", time == BL_UNSET ? "" : bl_span_format(time, took, sizeof took));
        if (!answer(g, 0, sentence) || kind != BL_ACTION_PING)
                bl_manager_note(g->m, g, LOG_INFO, BL_EV_PLAIN, "agent.action", "done", BL_UNSET, BL_UNSET, "%s",
                                sentence);
}

void bl_actions_lost(struct bl_guest *g)
{
        (void)answer(g, -ESTALE, "the connection to its agent ended before it answered");
}

void bl_actions_before_taking(struct bl_guest *g, uint64_t from, uint64_t to)
{
        const struct bl_guest_stats *s = &g->agent_stats;
        const struct bl_manager *m = g->m;
        uint64_t give = bl_sub_sat(from, to);
        struct bl_wire_action a = {.kind = BL_ACTION_COMPACT, .bytes = BL_UNSET};

        if (!g->agent.hello || give < WORTH || s->source != BL_STATS_AGENT || s->unused == BL_UNSET)
                return;
        /* The balloon takes free pages; what it has to press out of the page cache comes
         * slower, and the guest knows best which of that is cold. */
        if (s->unused < give)
                a = (struct bl_wire_action){.kind = BL_ACTION_TRIM, .bytes = give - s->unused};
        /* Compacting takes the guest seconds of CPU, which it and the host do not have while anybody is short:
         * on 2 cores an inflation took 0.7 s longer with it. */
        if (a.kind == BL_ACTION_COMPACT && (m->plan.state > BL_STATE_HIGH || m->plan.shortfall > 0 || m->waiting))
                return;
        (void)bl_agent_act(g->agent.link.agent, &a);
}

static enum bl_wire_action_kind kind_of(const char *what)
{
        for (int k = 1; k < _BL_ACTION_MAX; k++)
                if (kinds[k].name && strcmp(what, kinds[k].name) == 0)
                        return (enum bl_wire_action_kind)k;
        return _BL_ACTION_MAX;
}

void bl_control_ask(struct bl_manager *m, const char *vm, const char *what, uint64_t bytes, bl_done_fn done,
                    void *userdata)
{
        struct bl_guest *g = bl_manager_find_named(m, vm);
        struct bl_wire_action a = {.kind = kind_of(what), .bytes = bytes};
        char sentence[200];
        int r;

        if (a.kind == _BL_ACTION_MAX) {
                done(userdata, -EINVAL, "an agent can be asked for ping, trim, compact and hints");
                return;
        }
        if (!g) {
                done(userdata, -ENOENT, NULL);
                return;
        }
        r = g->agent.hello ? bl_agent_act(g->agent.link.agent, &a) : -ENOTCONN;
        if (r >= 0) {
                g->agent.ask = (struct bl_guest_ask){.done = done, .userdata = userdata, .at = bl_now()};
                return;
        }
        (void)snprintf(sentence, sizeof sentence, "%s: %s", g->name,
                       r == -ENOTCONN     ? "no agent of it answers; is ballast-agent started in the guest?"
                       : r == -EOPNOTSUPP ? "its agent or kernel cannot do that"
                       : r == -EBUSY      ? "its agent was asked for something else a moment ago; try again"
                                          : strerror(-r));
        done(userdata, r == -ENOTCONN ? -ESTALE : r, sentence);
}
