// SPDX-License-Identifier: LGPL-2.1-or-later
#include "daemon/sense/overhead.h"

#include <inttypes.h>
#include <string.h>

#include <ballast/cleanup.h>

struct mapping {
        uint64_t size, rss, anonymous;
        bool shmem; /* shared memory is not "Anonymous", but resident all the same */
};

static bool is_guest_ram(const struct mapping *v, uint64_t guest_ram)
{
        return v->size >= guest_ram / 4 && v->size >= 16 * BL_MIB;
}

static void count(const struct mapping *v, uint64_t guest_ram, uint64_t *own, bool *found)
{
        if (is_guest_ram(v, guest_ram))
                *found = true;
        else
                *own = bl_add_sat(*own, v->shmem ? v->rss : v->anonymous);
}

int bl_overhead_parse(FILE *smaps, uint64_t guest_ram, uint64_t *ret)
{
        struct mapping v = {0};
        bool found = false, any = false;
        uint64_t own = 0;
        char line[512];

        while (fgets(line, sizeof line, smaps)) {
                uint64_t start, end, kib;
                char name[32];

                if (sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &start, &end) == 2 && end > start) {
                        if (any)
                                count(&v, guest_ram, &own, &found);
                        any = true;
                        v = (struct mapping){
                                .size = end - start,
                                .shmem = strstr(line, "/memfd:") || strstr(line, "/dev/shm/"),
                        };
                } else if (sscanf(line, "%31[^:]: %" SCNu64 " kB", name, &kib) == 2) {
                        if (strcmp(name, "Rss") == 0)
                                v.rss = bl_mul_sat(kib, BL_KIB);
                        else if (strcmp(name, "Anonymous") == 0)
                                v.anonymous = bl_mul_sat(kib, BL_KIB);
                }
        }
        if (ferror(smaps))
                return -errno;
        if (any)
                count(&v, guest_ram, &own, &found);
        if (!found)
                return -ENODATA;
        *ret = own;
        return 0;
}

int bl_overhead_measure(const char *root, pid_t pid, uint64_t guest_ram, uint64_t *ret)
{
        _cleanup_fclose_ FILE *f = NULL;
        char path[4096];

        (void)snprintf(path, sizeof path, "%s/proc/%d/smaps", root ? root : "", (int)pid);
        f = fopen(path, "re");
        if (!f)
                return errno == ENOENT ? -ESRCH : -errno;
        return bl_overhead_parse(f, guest_ram, ret);
}
