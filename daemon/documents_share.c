// SPDX-License-Identifier: LGPL-2.1-or-later
/* What VMs share: figures, and why it is so. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/documents.h"
#include "daemon/manager-private.h"
#include "daemon/util/clock.h"
#include "daemon/util/size.h"

static const char *state_of(const struct bl_share_status *s)
{
        if (s->mode == BL_SHARE_OFF)
                return "off";
        if (s->mode == BL_SHARE_ZERO)
                return "rest"; /* KSM has no part in it */
        if (!s->there)
                return "unavailable";
        if (s->yielded)
                return "yielded";
        return s->driven ? "driven" : "rest";
}

/* Why ksmd does what it does, for people. */
static void explain_state(const struct bl_share_status *s, char *buf, size_t size)
{
        char gain[BL_SIZE_BUF];

        buf[0] = '\0';
        if (s->mode == BL_SHARE_ZERO)
                (void)snprintf(buf, size, "pages of zeros go out; nothing is merged");
        else if (s->mode == BL_SHARE_GROUP && !s->there)
                (void)snprintf(buf, size, "this kernel has no KSM");
        else if (s->mode != BL_SHARE_GROUP)
                return;
        else if (s->yielded)
                (void)snprintf(buf, size, "%s", s->yield_reason ? s->yield_reason : "somebody else drives KSM");
        else if (s->gate)
                (void)snprintf(buf, size, "%s", s->gate);
        else if (s->driven)
                (void)snprintf(buf, size, "%s; about %s to merge",
                               s->why == BL_WHY_SHARE_DRIVE_NEW ? "a VM has come" : "there are duplicates that pay",
                               bl_size_format(s->gain, gain, sizeof gain));
        else if (s->why == BL_WHY_SHARE_DRIVE || s->why == BL_WHY_SHARE_DRIVE_NEW)
                (void)snprintf(buf, size, "about %s to merge, as soon as %s",
                               bl_size_format(s->gain, gain, sizeof gain),
                               s->acting ? "VMs have been registered" : "Ballast may act (ballastctl act on)");
        else
                (void)snprintf(buf, size, "%s",
                               s->why == BL_WHY_SHARE_REST ? "the last pass did not pay any more"
                                                           : "there is too little to merge");
}

static json_t *ksm_document(const struct bl_share_status *s)
{
        const struct bl_ksm_figures *f = s->ksm;

        if (!f || !f->there)
                return json_null();
        return json_pack("{s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "run", (int)f->run, "full_scans",
                         number(f->full_scans), "shared", number(f->pages_shared), "sharing", number(f->pages_sharing),
                         "zero", number(f->zero_pages), "unshared", number(f->pages_unshared), "volatile",
                         number(f->pages_volatile), "cow", number(f->cow), "scan_cost_ns", number(s->scan_cost),
                         "merge_cost_ns", number(s->merge_cost));
}

/* By the evidence; where there is none, what its process holds. */
static uint64_t present(const struct bl_guest *g, const struct bl_vm_share *v)
{
        return v->present ? v->present : bl_sub_sat(bl_proc_mem_resident(&g->mem), g->overhead);
}

static json_t *vm_document(struct bl_guest *g, usec_t now)
{
        const struct bl_guest_share *h = &g->share;
        struct bl_vm_share v = {0};
        json_t *j;

        bl_share_to_vm(g, &v);
        j = json_pack("{s:o, s:o, s:o, s:s, s:s, s:o, s:o}", "name", text(g->name), "uuid", text(g->uuid_text), "group",
                      text(h->group), "asked", bl_share_mode_to_string(h->asked), "mode",
                      bl_share_mode_to_string(h->mode), "why_not",
                      h->no_share == BL_NO_SHARE_OK || (h->no_share == BL_NO_SHARE_HOST && h->asked <= h->mode)
                              ? json_null()
                              : text(bl_no_share_explain(h->no_share)),
                      "merging", v.merging < 0 ? json_null() : json_boolean(v.merging));
        const struct {
                const char *name;
                uint64_t value;
        } numbers[] = {
                {"evidence_age_us", v.evidence_at ? bl_sub_sat(now, v.evidence_at) : BL_UNSET},
                {"present", present(g, &v)},
                {"zero", v.zero},
                {"gain", v.gain},
                {"gain_low", v.gain_low},
                {"gain_high", v.gain_high},
                {"merged", v.merged},
                {"saved", v.saved},
                {"breaks", v.breaks},
                {"zero_out", h->zero_out},
                {"cpu_us", bl_share_cpu(g)},
        };

        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
                json_object_set_new(j, numbers[i].name, number_or_null(numbers[i].value));
        json_object_set_new(j, "reason", text(h->decided ? bl_reason_to_string(h->decision.why) : ""));
        json_object_set_new(j, "sentence", text(h->sentence));
        return j;
}

static json_t *warnings_document(const struct bl_share_status *s)
{
        json_t *j = json_array();

        if (s->thp_warning)
                json_array_append_new(j, text(s->thp_warning));
        return j;
}

int bl_control_sharing(struct bl_manager *m, json_t **ret)
{
        static const char *const sums[] = {"present", "merged", "saved", "gain", "zero", "breaks"};
        json_t *d = document(), *vms = json_array(), *all = json_object();
        struct bl_share_status s = {0};
        usec_t now = bl_now();
        char sentence[300];
        int failed = 0;

        bl_share_status(m, &s);
        explain_state(&s, sentence, sizeof sentence);
        bl_document_add_up(all, NULL, sums, sizeof sums / sizeof *sums);
        for (size_t i = 0; i < m->n_guests; i++) {
                json_t *vm = vm_document(m->guests[i], now);

                bl_document_add_up(all, vm, sums, sizeof sums / sizeof *sums);
                failed |= json_array_append_new(vms, vm);
        }
        failed |= json_object_set_new(d, "mode", text(bl_share_mode_to_string(s.mode)));
        failed |= json_object_set_new(d, "group", text(s.group));
        failed |= json_object_set_new(d, "error", text_or_null(s.error));
        failed |= json_object_set_new(d, "state", text(state_of(&s)));
        failed |= json_object_set_new(d, "reason", text(s.mode == BL_SHARE_GROUP ? bl_reason_to_string(s.why) : ""));
        failed |= json_object_set_new(d, "sentence", text(sentence));
        failed |= json_object_set_new(d, "warnings", warnings_document(&s));
        failed |= json_object_set_new(d, "ksm", ksm_document(&s));
        failed |= json_object_set_new(d, "cpu_us",
                                      json_pack("{s:o, s:o, s:o}", "ksmd", number(s.ksmd_cpu), "khugepaged",
                                                number(s.khugepaged_cpu), "scan", number(s.scan_cpu)));
        failed |= json_object_set_new(d, "cpu_us_per_mib", number_or_null(s.cpu_per_mib));
        failed |= json_object_set_new(d, "gain", number(s.gain));
        failed |= json_object_set_new(d, "reserve", number(s.reserve));
        failed |= json_object_set_new(d, "all", all);
        failed |= json_object_set_new(d, "vms", vms);
        return finish(d, failed, ret);
}

json_t *bl_document_sharing_in_short(const struct bl_manager *m)
{
        struct bl_share_status s = {0};

        bl_share_status(m, &s);
        return json_pack("{s:s, s:s, s:o, s:o}", "mode", bl_share_mode_to_string(s.mode), "state", state_of(&s),
                         "saved", number(s.saved), "error", text_or_null(s.error));
}

void bl_control_resume_sharing(struct bl_manager *m, bl_done_fn done, void *userdata)
{
        int r = bl_share_resume(m);

        if (r == -EALREADY)
                done(userdata, 0, "Ballast drives KSM already");
        else if (r == -ESRCH)
                done(userdata, -EOPNOTSUPP, "nothing is shared: Mode= of [Sharing] in ballast.conf is not 'group'");
        else if (r == -ENODEV)
                done(userdata, -EOPNOTSUPP, "this kernel has no KSM");
        else
                done(userdata, r,
                     r < 0 ? strerror(-r) : "Ballast drives KSM again; what it finds now is what it will put back");
}
