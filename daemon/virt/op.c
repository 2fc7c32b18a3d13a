/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/virt/op.h"

#include <errno.h>
#include <libvirt/virterror.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/util/clock.h"

void bl_op_init(struct bl_op *op, struct bl_conn *c, const uint8_t *uuid, const struct bl_instance *instance)
{
        op->c = c;
        if (uuid) {
                op->has_uuid = true;
                memcpy(op->uuid, uuid, BL_UUID_LEN);
        }
        if (instance) {
                op->has_instance = true;
                op->instance = *instance;
        }
}

/* A QEMU that is stopped (SIGSTOP, a debugger) answers nothing, and would cost
 * us a thread and libvirtd a worker for as long as it is. */
static int check_process(struct bl_op *op)
{
        char state;

        if (!op->has_instance || bl_instance_state(NULL, &op->instance, &state) < 0)
                return 0;
        if (state != 'T' && state != 't')
                return 0;
        if (asprintf(&op->message, "its QEMU process %d is stopped (state %c)", (int)op->instance.pid, state) < 0)
                op->message = NULL;
        return -EHOSTDOWN;
}

static int run_on(struct bl_op *op, struct bl_conn_lease *lease)
{
        virDomainPtr dom = NULL;
        int r;

        if (op->has_uuid) {
                r = bl_conn_lease_domain(lease, op->uuid, &dom, &op->message);
                if (r < 0)
                        return r;
        }
        r = op->run(op, bl_conn_lease_get(lease), dom, &op->message);
        if (dom)
                (void)virDomainFree(dom);
        if (r == -ENOENT && op->has_uuid)
                bl_conn_lease_forget(lease, op->uuid);
        return r;
}

static void op_run(void *arg)
{
        struct bl_op *op = arg;
        struct bl_conn_lease *lease;

        op->r = check_process(op);
        if (op->r < 0)
                return;
        op->r = bl_conn_acquire(op->c, &lease, &op->message);
        if (op->r < 0)
                return;
        op->r = run_on(op, lease);
        virResetLastError();
        bl_conn_release(lease);
}

static void op_done(void *arg, int r)
{
        struct bl_op *op = arg;
        char *message = BL_TAKE(op->message);

        op->done(op, r < 0 ? r : op->r, message);
        free(message);
}

int bl_op_submit(struct bl_op *op)
{
        return bl_pool_submit(bl_conn_pool(op->c), op->has_uuid ? op->uuid : NULL, op_run, op_done, op);
}

int bl_op_submit_or_free(struct bl_op *op)
{
        int r = bl_op_submit(op);

        if (r < 0)
                free(op);
        return r;
}

int bl_op_read_state(virDomainPtr dom, struct bl_domain_state *ret, char **ret_message)
{
        virDomainPtr one[] = {dom, NULL};
        virDomainStatsRecordPtr *records = NULL;
        int n;

        n = virDomainListGetStats(one, VIR_DOMAIN_STATS_STATE | VIR_DOMAIN_STATS_BALLOON, &records,
                                  VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT);
        if (n < 0)
                return bl_virt_error(ret_message);
        if (n == 0) {
                virDomainStatsRecordListFree(records);
                return -ENOENT;
        }
        bl_domain_state_decode(records[0]->params, records[0]->nparams, bl_now_wall(), bl_now(), ret);
        virDomainStatsRecordListFree(records);
        return 0;
}

void bl_op_read_actual(virDomainPtr dom, struct bl_domain_state *s)
{
        virDomainMemoryStatStruct stats[VIR_DOMAIN_MEMORY_STAT_NR];
        int n = virDomainMemoryStats(dom, stats, VIR_DOMAIN_MEMORY_STAT_NR, 0);

        if (n < 0)
                virResetLastError();
        for (int i = 0; i < n; i++)
                if (stats[i].tag == VIR_DOMAIN_MEMORY_STAT_ACTUAL_BALLOON)
                        s->current = bl_mul_sat(stats[i].val, BL_KIB);
}

bool bl_op_migrating(virDomainPtr dom)
{
        virDomainJobInfo job;

        if (virDomainGetJobInfo(dom, &job) < 0) {
                virResetLastError();
                return false;
        }
        return job.type == VIR_DOMAIN_JOB_BOUNDED || job.type == VIR_DOMAIN_JOB_UNBOUNDED;
}
