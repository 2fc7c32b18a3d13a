/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <ballast/cleanup.h>

#include "guestagent/report.h"

enum unit { UNIT_ONE, UNIT_KIB, UNIT_PAGE };

struct key {
        const char *name;
        enum bl_wire_stat stat;
        enum unit unit;
};

static const struct key meminfo_keys[] = {
        {"MemTotal", BL_STAT_MEM_TOTAL, UNIT_KIB},
        {"MemAvailable", BL_STAT_MEM_AVAILABLE, UNIT_KIB},
        {"MemFree", BL_STAT_MEM_FREE, UNIT_KIB},
        {"Buffers", BL_STAT_BUFFERS, UNIT_KIB},
        {"Cached", BL_STAT_CACHED, UNIT_KIB},
        {"Shmem", BL_STAT_SHMEM, UNIT_KIB},
        {"SReclaimable", BL_STAT_SRECLAIMABLE, UNIT_KIB},
        {"SwapCached", BL_STAT_SWAP_CACHED, UNIT_KIB},
        {"SwapTotal", BL_STAT_SWAP_TOTAL, UNIT_KIB},
        {"SwapFree", BL_STAT_SWAP_FREE, UNIT_KIB},
        {"Unevictable", BL_STAT_UNEVICTABLE, UNIT_KIB},
        {"Mlocked", BL_STAT_MLOCKED, UNIT_KIB},
        {"Hugetlb", BL_STAT_HUGETLB, UNIT_KIB},
        {"Zswapped", BL_STAT_ZSWAPPED, UNIT_KIB}, /* Linux 5.19 */
        {NULL},
};

static const struct key vmstat_keys[] = {
        {"pswpin", BL_STAT_SWAP_IN, UNIT_PAGE},
        {"pswpout", BL_STAT_SWAP_OUT, UNIT_PAGE},
        {"pgmajfault", BL_STAT_MAJOR_FAULTS, UNIT_ONE},
        {"oom_kill", BL_STAT_OOM_KILLS, UNIT_ONE},
        {"balloon_inflate", BL_STAT_BALLOON_INFLATE, UNIT_PAGE},
        {"balloon_deflate", BL_STAT_BALLOON_DEFLATE, UNIT_PAGE},
        {NULL},
};

/* Digits at the start of the text; 0 if there are none or too many. */
static size_t parse_number(const char *p, const char *end, uint64_t *ret)
{
        const char *start = p;
        uint64_t v = 0;

        for (; p < end && *p >= '0' && *p <= '9'; p++)
                if (__builtin_mul_overflow(v, UINT64_C(10), &v) || __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
                        return 0;
        if (p > start)
                *ret = v;
        return (size_t)(p - start);
}

/* One line "NAME[:] NUMBER[ kB]". */
static void parse_line(const char *p, const char *end, const struct key *keys, uint64_t page,
                       struct bl_wire_stats *stats)
{
        const char *name_end = p;
        uint64_t scale[] = {[UNIT_ONE] = 1, [UNIT_KIB] = BL_KIB, [UNIT_PAGE] = page};
        uint64_t v = 0;

        while (name_end < end && *name_end != ':' && *name_end != ' ')
                name_end++;
        for (; keys->name; keys++)
                if (keys->name[0] == p[0] && strlen(keys->name) == (size_t)(name_end - p) &&
                    memcmp(keys->name, p, (size_t)(name_end - p)) == 0)
                        break;
        if (!keys->name)
                return;
        p = name_end;
        while (p < end && (*p == ':' || *p == ' '))
                p++;
        if (parse_number(p, end, &v) > 0 && !__builtin_mul_overflow(v, scale[keys->unit], &v))
                stats->v[keys->stat] = v;
}

static void parse_lines(const char *text, size_t size, const struct key *keys, uint64_t page,
                        struct bl_wire_stats *stats)
{
        const char *end = text + size;
        const char *eol;

        for (; (eol = memchr(text, '\n', (size_t)(end - text))); text = eol + 1)
                parse_line(text, eol, keys, page, stats);
}

void guest_parse_meminfo(const char *text, size_t size, struct bl_wire_stats *stats)
{
        parse_lines(text, size, meminfo_keys, 0, stats);
}

void guest_parse_vmstat(const char *text, size_t size, uint64_t page, struct bl_wire_stats *stats)
{
        parse_lines(text, size, vmstat_keys, page, stats);
}

/* "some avg10=0.00 avg60=0.00 avg300=0.00 total=0" */
void guest_parse_psi(const char *text, size_t size, struct bl_wire_stats *stats)
{
        static const char total[] = " total=";
        const char *end = text + size;
        const char *eol;

        for (; (eol = memchr(text, '\n', (size_t)(end - text))); text = eol + 1) {
                size_t n = (size_t)(eol - text);
                const char *p = memmem(text, n, total, sizeof total - 1);
                uint64_t v = 0;

                if (!p || parse_number(p + sizeof total - 1, eol, &v) == 0)
                        continue;
                if (n > 5 && memcmp(text, "some ", 5) == 0)
                        stats->v[BL_STAT_PSI_SOME] = v;
                else if (n > 5 && memcmp(text, "full ", 5) == 0)
                        stats->v[BL_STAT_PSI_FULL] = v;
        }
}

static int hex_digit(char c)
{
        if (c >= '0' && c <= '9')
                return c - '0';
        if (c >= 'a' && c <= 'f')
                return c - 'a' + 10;
        return -1;
}

bool guest_parse_uuid(const char *text, size_t size, uint8_t ret[16])
{
        uint8_t id[16] = {0};
        size_t digits = 0;

        memset(ret, 0, sizeof id);
        for (size_t i = 0; i < size && text[i] != '\n'; i++) {
                int d = hex_digit(text[i]);

                if (text[i] == '-')
                        continue;
                if (d < 0 || digits == 32)
                        return false;
                id[digits / 2] = (uint8_t)(id[digits / 2] << 4 | d);
                digits++;
        }
        if (digits != 32)
                return false;
        memcpy(ret, id, sizeof id);
        return true;
}

static int open_below(const char *root, const char *path)
{
        char full[PATH_MAX];
        int fd;

        if ((size_t)snprintf(full, sizeof full, "%s%s", root, path) >= sizeof full)
                return -ENAMETOOLONG;
        fd = open(full, O_RDONLY | O_CLOEXEC | O_NOCTTY);
        return fd < 0 ? -errno : fd;
}

/* As much of the file as fits; a seq_file gives a page at a time.  The size, or
 * negative errno. */
static ssize_t read_again(int fd, char *buf, size_t size)
{
        size_t len = 0;

        while (len < size) {
                ssize_t n = pread(fd, buf + len, size - len, (off_t)len);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                if (n == 0)
                        break;
                len += (size_t)n;
        }
        return (ssize_t)len;
}

int guest_reader_open(struct guest_reader *r, const char *root)
{
        int meminfo = open_below(root, "/proc/meminfo");

        if (meminfo < 0)
                return meminfo;
        r->meminfo = meminfo;
        r->vmstat = open_below(root, "/proc/vmstat");
        r->psi = open_below(root, "/proc/pressure/memory");
        r->zswap = open_below(root, "/sys/module/zswap/parameters/enabled");
        r->page = (uint64_t)sysconf(_SC_PAGESIZE);
        return 0;
}

void guest_reader_close(struct guest_reader *r)
{
        bl_closep(&r->meminfo);
        bl_closep(&r->vmstat);
        bl_closep(&r->psi);
        bl_closep(&r->zswap);
        r->meminfo = r->vmstat = r->psi = r->zswap = -1;
}

/* A balloon that moves, or a program that allocates, can be megabytes further by
 * the time that the second file is read. */
static int64_t drift(const char *text, size_t size, uint64_t page, uint64_t was_free)
{
        static const struct key keys[] = {{"nr_free_pages", BL_STAT_MEM_FREE, UNIT_PAGE}, {NULL}};
        const char *eol = memchr(text, '\n', size); /* it is the first line */
        struct bl_wire_stats now;

        bl_wire_stats_init(&now);
        if (eol)
                parse_line(text, eol, keys, page, &now);
        if (now.v[BL_STAT_MEM_FREE] > INT64_MAX || was_free > INT64_MAX)
                return 0;
        return (int64_t)now.v[BL_STAT_MEM_FREE] - (int64_t)was_free;
}

int guest_reader_glance(struct guest_reader *r, struct bl_wire_stats *ret)
{
        struct bl_wire_stats stats;
        ssize_t n;

        bl_wire_stats_init(&stats);
        n = read_again(r->meminfo, r->text, sizeof r->text);
        if (n <= 0)
                return -ENODATA;
        guest_parse_meminfo(r->text, (size_t)n, &stats);
        r->drift = 0;
        if (r->vmstat >= 0 && (n = read_again(r->vmstat, r->text, sizeof r->text)) > 0) {
                guest_parse_vmstat(r->text, (size_t)n, r->page, &stats);
                r->drift = drift(r->text, (size_t)n, r->page, stats.v[BL_STAT_MEM_FREE]);
        }
        *ret = stats;
        return 0;
}

int guest_reader_read(struct guest_reader *r, struct bl_wire_stats *ret)
{
        struct bl_wire_stats stats;
        struct timespec up;
        ssize_t n;
        int e = guest_reader_glance(r, &stats);

        if (e < 0)
                return e;
        /* with psi=0 the file opens and reading it fails: not known */
        if (r->psi >= 0 && (n = read_again(r->psi, r->text, sizeof r->text)) > 0)
                guest_parse_psi(r->text, (size_t)n, &stats);
        if (r->zswap >= 0 && read_again(r->zswap, r->text, sizeof r->text) > 0)
                stats.v[BL_STAT_ZSWAP] = r->text[0] == 'Y';
        if (clock_gettime(CLOCK_BOOTTIME, &up) == 0)
                stats.v[BL_STAT_UPTIME] = (uint64_t)up.tv_sec * BL_SEC + (uint64_t)up.tv_nsec / 1000;
        *ret = stats;
        return 0;
}

void guest_identity(const struct guest_reader *r, const char *root, struct bl_wire_hello *ret)
{
        char text[128];
        _cleanup_close_ int boot_id = open_below(root, "/proc/sys/kernel/random/boot_id");
        _cleanup_close_ int release = open_below(root, "/proc/sys/kernel/osrelease");
        ssize_t n;

        *ret = (struct bl_wire_hello){
                .major = BL_WIRE_MAJOR,
                .minor = BL_WIRE_MINOR,
                .version = BALLAST_VERSION,
        };
        if (r->psi >= 0 && read_again(r->psi, text, sizeof text) > 0)
                ret->features |= BL_WIRE_FEATURE_PSI;
        if (boot_id >= 0 && (n = read_again(boot_id, text, sizeof text)) > 0)
                (void)guest_parse_uuid(text, (size_t)n, ret->boot_id);
        if (release >= 0 && (n = read_again(release, text, sizeof text)) > 0) {
                const char *eol = memchr(text, '\n', (size_t)n);
                size_t len = eol ? (size_t)(eol - text) : (size_t)n;

                memcpy(ret->kernel, text, bl_min(len, sizeof ret->kernel - 1));
        }
}
