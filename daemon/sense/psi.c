/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/sense/psi.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <ballast/cleanup.h>

#define PSI_FILE "/proc/pressure/memory"
#define PSI_MAX  512

static int parse_number(const char **s, uint64_t *ret)
{
        uint64_t v = 0;
        const char *p = *s;

        if (*p < '0' || *p > '9')
                return -EBADMSG;
        for (; *p >= '0' && *p <= '9'; p++)
                if (__builtin_mul_overflow(v, 10U, &v) || __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
                        return -EBADMSG;
        *s = p;
        *ret = v;
        return 0;
}

/* "1.23" of 100 */
static int parse_percent(const char *p, permyriad_t *ret)
{
        uint64_t whole, hundredths;

        if (parse_number(&p, &whole) < 0 || *p++ != '.' || parse_number(&p, &hundredths) < 0 || *p != ' ' ||
            whole > 100 || hundredths > 99)
                return -EBADMSG;
        *ret = (permyriad_t)(whole * 100 + hundredths);
        return 0;
}

/* "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n" */
static int parse_line(const char *text, const char *kind, permyriad_t *ret_avg10, uint64_t *ret_total)
{
        const size_t len = strlen(kind);

        for (const char *line = text; line; line = strchr(line, '\n')) {
                char copy[128];
                const char *avg10, *total;
                size_t n;

                if (*line == '\n')
                        line++;
                if (strncmp(line, kind, len) != 0 || line[len] != ' ')
                        continue;
                n = strcspn(line, "\n");
                if (line[n] != '\n' || n >= sizeof copy)
                        return -EBADMSG;
                memcpy(copy, line, n);
                copy[n] = '\0';

                avg10 = strstr(copy, " avg10=");
                total = strstr(copy, " total=");
                if (!avg10 || !total || parse_percent(avg10 + strlen(" avg10="), ret_avg10) < 0)
                        return -EBADMSG;
                total += strlen(" total=");
                if (parse_number(&total, ret_total) < 0 || *total)
                        return -EBADMSG;
                return 0;
        }
        return -EBADMSG;
}

int bl_psi_parse(const char *text, struct bl_psi *ret)
{
        struct bl_psi p;
        int r;

        r = parse_line(text, "some", &p.some_avg10, &p.some);
        if (r < 0)
                return r;
        r = parse_line(text, "full", &p.full_avg10, &p.full);
        if (r < 0)
                return r;
        *ret = p;
        return 0;
}

int bl_psi_open(struct bl_reader *r, const char *root)
{
        struct bl_reader reader = BL_READER_INIT;
        struct bl_psi first;
        int k;

        k = bl_reader_open(&reader, root, PSI_FILE);
        if (k < 0)
                return k;
        k = bl_psi_read(&reader, &first);
        if (k < 0) {
                bl_reader_close(&reader);
                return k;
        }
        *r = reader;
        return 0;
}

int bl_psi_read(const struct bl_reader *r, struct bl_psi *ret)
{
        char buf[PSI_MAX];
        const ssize_t n = bl_reader_read_once(r, buf, sizeof buf);

        return n < 0 ? (int)n : bl_psi_parse(buf, ret);
}

int bl_psi_trigger_open(const char *root, const char *kind, usec_t stall, usec_t window)
{
        _cleanup_close_ int fd = -1;
        char path[PATH_MAX], command[64];
        ssize_t k;
        int r, n;

        n = snprintf(command, sizeof command, "%s %" PRIu64 " %" PRIu64, kind, stall, window);
        if (n < 0 || (size_t)n >= sizeof command)
                return -EINVAL;
        r = bl_path_join(path, sizeof path, root, PSI_FILE);
        if (r < 0)
                return r;
        fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        /* with its NUL, as psi.rst asks */
        k = write(fd, command, (size_t)n + 1);
        if (k < 0)
                return -errno;
        if (k != n + 1)
                return -EIO;
        return bl_take_fd(&fd);
}

const char *bl_psi_why_not(int error)
{
        switch (error < 0 ? -error : error) {
        case ENOENT:
                return "this kernel has no pressure stall information (CONFIG_PSI), or it was started with psi=0";
        case EOPNOTSUPP:
                return "pressure stall information is switched off; start the kernel with psi=1";
        case EINVAL:
                return "the kernel refuses this pressure window without CAP_SYS_RESOURCE";
        case EPERM:
        case EACCES:
                return "no permission to watch memory pressure (CAP_SYS_RESOURCE is needed)";
        case EBADMSG:
                return "/proc/pressure/memory is not in a form that is known";
        default:
                return "memory pressure cannot be watched";
        }
}
