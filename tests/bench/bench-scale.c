/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What one tick of the policy costs with 10, 100 and 1,000 VMs: under
 * pressure, which is the costly path, and at rest.  Writes JSON to argv[1].
 *
 * The sizes take turns, so that a busy machine disturbs all alike.  Each
 * sample is a tick of its own on guests that move meanwhile.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <ballast/policy.h>

#define ROUNDS  40
#define TICKS   10 /* in a round */
#define SAMPLES ((size_t)ROUNDS * TICKS)

static const size_t sizes[] = {10, 100, 1000};
#define N_SIZES (sizeof(sizes) / sizeof(sizes[0]))

struct world {
        struct bl_policy *p;
        struct bl_policy_config c;
        struct bl_snapshot s;
        uint64_t seed;
        bool pressure;
        double us[SAMPLES];
        size_t n_us;
        uint64_t commands;
};

static uint64_t next(uint64_t *seed)
{
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        return *seed;
}

static void die(const char *what)
{
        fprintf(stderr, "bench-scale: %s: %s\n", what, strerror(errno));
        exit(1);
}

static void world_new(struct world *w, size_t n, bool pressure)
{
        memset(w, 0, sizeof(*w));
        if (bl_policy_new(&w->p) < 0)
                die("policy");
        bl_policy_config_default(&w->c);
        w->seed = 88172645463325252U + n;
        w->pressure = pressure;
        w->s.at = 1000 * BL_SEC;
        w->s.n_vms = n;
        w->s.vms = calloc(n, sizeof(*w->s.vms));
        if (!w->s.vms)
                die("memory");
        w->s.host.budget = n * 3 * BL_GIB / 2;
        for (size_t i = 0; i < n; i++) {
                struct bl_vm *v = &w->s.vms[i];

                for (size_t k = 0; k < BL_UUID_LEN; k++)
                        v->uuid[k] = (uint8_t)next(&w->seed);
                v->name = strdup("vm");
                v->managed = true;
                v->booted_at = BL_SEC;
                v->max = v->limit = 2 * BL_GIB;
                v->shares = 500 + next(&w->seed) % 4 * 500;
                v->overhead = 40 * BL_MIB;
                v->actual = v->target = pressure ? 2 * BL_GIB : BL_GIB + next(&w->seed) % 512 * BL_MIB;
                v->stats.source = BL_STATS_BALLOON;
                v->stats.available = next(&w->seed) % 1024 * BL_MIB;
        }
}

/* Guests follow their targets, report, and change their minds a little. */
static void world_move(struct world *w)
{
        uint64_t used = 0;

        w->s.at += BL_SEC;
        for (size_t i = 0; i < w->s.n_vms; i++) {
                struct bl_vm *v = &w->s.vms[i];
                uint64_t need = (300 + next(&w->seed) % 8 + i % 7 * 100) * BL_MIB;

                /* 200 MiB/s, and one in fifty is stuck */
                if (i % 50 != 7) {
                        if (v->actual > v->target)
                                v->actual -= bl_min(v->actual - v->target, 200 * BL_MIB);
                        else
                                v->actual = v->target;
                }
                v->resident = v->actual + v->overhead;
                v->resident_at = w->s.at;
                v->stats.at = w->s.at - BL_SEC / 4;
                v->stats.period = BL_SEC;
                v->stats.actual = v->actual;
                v->stats.total = v->actual - 40 * BL_MIB;
                v->stats.available = bl_sub_sat(v->stats.total, need);
                v->stats.unused = v->stats.available / 2;
                v->stats.caches = v->stats.available / 2;
                v->stats.swap_total = v->stats.swap_free = BL_UNSET;
                v->stats.unevictable = v->stats.hugetlb = v->stats.psi_some = v->stats.swap_in = BL_UNSET;
                v->offer[BL_ENGINE_BALLOON] = (struct bl_offer){
                        .takes = v->actual, .gives = v->max - v->actual, .grain = BL_MIB, .phase = 4 * BL_KIB};
                used += v->resident;
        }
        w->s.host.free = w->pressure ? w->s.host.budget / 400 + next(&w->seed) % 8 * BL_MIB : w->s.host.budget / 5;
        w->s.host.used = used;
        w->s.host.growth = w->pressure ? 50 * BL_MIB : 0;
}

static void world_tick(struct world *w, bool keep)
{
        struct bl_plan plan;
        struct timespec a, b;

        world_move(w);
        clock_gettime(CLOCK_MONOTONIC, &a);
        if (bl_policy_decide(w->p, &w->s, &w->c, w->s.at, &plan) < 0)
                die("decide");
        clock_gettime(CLOCK_MONOTONIC, &b);
        if (keep)
                w->us[w->n_us++] = (double)(b.tv_sec - a.tv_sec) * 1e6 + (double)(b.tv_nsec - a.tv_nsec) / 1e3;

        for (size_t i = 0; i < plan.n; i++) {
                if (!plan.d[i].act)
                        continue;
                w->s.vms[i].target = plan.d[i].to;
                w->s.vms[i].target_at = w->s.at;
                w->commands++;
        }
        bl_plan_clear(&plan);
}

/* Under pressure the guests are full again at the beginning of each round. */
static void world_round(struct world *w, bool keep)
{
        if (w->pressure) {
                for (size_t i = 0; i < w->s.n_vms; i++) {
                        w->s.vms[i].actual = w->s.vms[i].target = 2 * BL_GIB;
                        w->s.vms[i].target_at = w->s.at;
                }
        }
        for (int i = 0; i < TICKS; i++)
                world_tick(w, keep);
}

static int compare(const void *a, const void *b)
{
        double x = *(const double *)a, y = *(const double *)b;

        return x < y ? -1 : x > y;
}

static void cpu_model(char *buf, size_t size)
{
        FILE *f = fopen("/proc/cpuinfo", "re");
        char line[256];

        snprintf(buf, size, "unknown");
        while (f && fgets(line, sizeof(line), f)) {
                char *v = strchr(line, ':');

                if (strncmp(line, "model name", 10) != 0 || !v)
                        continue;
                v[strcspn(v, "\n")] = '\0';
                snprintf(buf, size, "%s", v + 2);
                break;
        }
        if (f)
                (void)fclose(f);
        for (char *c = buf; *c; c++) {
                if (*c == '"' || *c == '\\' || (unsigned char)*c < 0x20)
                        *c = ' ';
        }
}

static double print_case(FILE *f, struct world *w)
{
        static double sorted[SAMPLES];
        double p50;

        memcpy(sorted, w->us, sizeof(sorted));
        qsort(sorted, SAMPLES, sizeof(*sorted), compare);
        p50 = sorted[SAMPLES / 2];
        fprintf(f, "{\"p50\": %.1f, \"p99\": %.1f, \"max\": %.1f, \"commands\": %llu, \"samples\": [", p50,
                sorted[SAMPLES * 99 / 100], sorted[SAMPLES - 1], (unsigned long long)w->commands);
        for (size_t i = 0; i < SAMPLES; i++)
                fprintf(f, "%s%.1f", i ? ", " : "", w->us[i]);
        fprintf(f, "]}");
        return p50;
}

int main(int argc, char *argv[])
{
        static struct world pressed[N_SIZES], rest[N_SIZES];
        double p50[N_SIZES], p50_rest[N_SIZES];
        struct utsname u;
        char cpu[128];
        FILE *f;

        if (argc != 2) {
                fprintf(stderr, "usage: bench-scale FILE.json\n");
                return 2;
        }
        for (size_t i = 0; i < N_SIZES; i++) {
                world_new(&pressed[i], sizes[i], true);
                world_new(&rest[i], sizes[i], false);
                world_round(&pressed[i], false);
                world_round(&rest[i], false);
        }
        for (int r = 0; r < ROUNDS; r++) {
                for (size_t i = 0; i < N_SIZES; i++) {
                        world_round(&pressed[i], true);
                        world_round(&rest[i], true);
                }
        }

        f = fopen(argv[1], "we");
        if (!f)
                die(argv[1]);
        cpu_model(cpu, sizeof(cpu));
        uname(&u);
        fprintf(f,
                "{\n  \"schema\": 1,\n  \"machine\": {\"cpu\": \"%s\", \"cores\": %ld, \"kernel\": \"%s\"},\n"
                "  \"command\": \"make bench-scale\",\n  \"sizes\": [\n",
                cpu, sysconf(_SC_NPROCESSORS_ONLN), u.release);
        for (size_t i = 0; i < N_SIZES; i++) {
                fprintf(f, "    {\"vms\": %zu, \"tick_us\": ", sizes[i]);
                p50[i] = print_case(f, &pressed[i]);
                fprintf(f, ", \"rest_us\": ");
                p50_rest[i] = print_case(f, &rest[i]);
                fprintf(f, "}%s\n", i + 1 < N_SIZES ? "," : "");
        }
        fprintf(f, "  ],\n  \"growth_1000_over_100\": %.3f,\n  \"growth_1000_over_100_rest\": %.3f\n}\n",
                p50[2] / 1000 / (p50[1] / 100), p50_rest[2] / 1000 / (p50_rest[1] / 100));
        if (fclose(f) != 0)
                die(argv[1]);

        for (size_t i = 0; i < N_SIZES; i++) {
                printf("%5zu VMs: %8.1f us under pressure, %8.1f us at rest (medians of %zu ticks)\n", sizes[i], p50[i],
                       p50_rest[i], SAMPLES);
                bl_snapshot_clear(&pressed[i].s);
                bl_snapshot_clear(&rest[i].s);
                bl_policy_free(pressed[i].p);
                bl_policy_free(rest[i].p);
        }
        return 0;
}
