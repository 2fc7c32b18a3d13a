/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* our fields say what matters; the file and line of a wrapper would not */
#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

#define LINE_SIZE      2048
#define JOURNAL_SOCKET "/run/systemd/journal/socket"

/* Random constants (systemd-id128 new); never change one. */
static const char *const message_ids[] = {
        [BL_EV_PLAIN] = NULL,
        [BL_EV_STARTED] = "e9601386e21d4b6c8fd316a425c9e928",
        [BL_EV_STOPPED] = "2d1a47fb301f4de08d7098324f79ede1",
        [BL_EV_STATE] = "bd921374a891490c9635cecac9f73651",
        [BL_EV_BALLOON] = "d7ce791806e74620a6d626b6d9d1a1bd",
        [BL_EV_BALLOON_FAILED] = "eeec350453e542569cbfe940c55d6745",
        [BL_EV_STUCK] = "858e1a2ca8f74c63b1e56c36be469ae7",
        [BL_EV_HAND] = "42ccc4002c3346c8ab19fb39962dc5cc",
        [BL_EV_OOM_DEFLATE] = "ce73589eddb34345950f4fcc81371ee7",
        [BL_EV_REBOOT] = "92771d43f82343f79bd6e7d9b6f888d9",
        [BL_EV_VM] = "baf54f24a8404ca8b56567cec503eccc",
        [BL_EV_NOT_RECLAIMABLE] = "8bac857f22304e2a8382e56914089d31",
        [BL_EV_LIBVIRT] = "76cc29dfaf654b56b4e6235b3de530a6",
        [BL_EV_CONFIG] = "833c2b92dff64d02802370fab8ec06f4",
        [BL_EV_RECOVERED] = "cd2172299ee241108b1ca661a1ee9f4e",
        [BL_EV_ROLLBACK] = "bf3113d05a634bdf8b1bcb9a07b3e63f",
        [BL_EV_CONFLICT] = "9e7f09b5ce644a3bb51edccdcd2917b0",
        [BL_EV_ADMIN] = "6b40be2d54e944fbaaad31975a3c167b",
};
_Static_assert(sizeof message_ids / sizeof *message_ids == _BL_EV_MAX, "an event has no message id");

static struct {
        int level;
        bool journal; /* stderr is the journal's, and its socket is there */
        bool prefix; /* stderr is the journal's, its socket is not: "<4>" is understood there */
} to = {.level = LOG_INFO};

/* systemd.exec(5): JOURNAL_STREAM is device:inode of the stream that stderr was connected to. */
static bool stderr_is_journal(void)
{
        const char *stream = getenv("JOURNAL_STREAM");
        uint64_t device, inode;
        struct stat st;
        char end;

        if (!stream || sscanf(stream, "%" SCNu64 ":%" SCNu64 "%c", &device, &inode, &end) != 2)
                return false;
        return fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}

void bl_log_init(int level)
{
        const bool is_journal = stderr_is_journal();

        to.level = level;
        to.journal = is_journal && access(JOURNAL_SOCKET, W_OK) == 0;
        to.prefix = is_journal && !to.journal;
}

const char *bl_event_message_id(enum bl_event ev)
{
        return ev < _BL_EV_MAX ? message_ids[ev] : NULL;
}

static const char *word(int priority)
{
        if (priority <= LOG_ERR)
                return "error: ";
        if (priority == LOG_WARNING)
                return "warning: ";
        return priority >= LOG_DEBUG ? "debug: " : "";
}

/* Names come from others: no line breaks, no escape sequences on a terminal. */
static void make_printable(char *s)
{
        for (; *s; s++)
                if ((unsigned char)*s < ' ' || *s == 0x7f)
                        *s = *s == '\n' || *s == '\t' ? ' ' : '?';
}

static int to_journal(int priority, enum bl_event ev, const char *vm, const char *reason, const char *message)
{
        char fields[6][LINE_SIZE + 16];
        struct iovec iov[6];
        int n = 0;

        (void)snprintf(fields[n++], sizeof fields[0], "MESSAGE=%s", message);
        (void)snprintf(fields[n++], sizeof fields[0], "PRIORITY=%d", priority);
        (void)snprintf(fields[n++], sizeof fields[0], "SYSLOG_IDENTIFIER=%s", program_invocation_short_name);
        if (bl_event_message_id(ev))
                (void)snprintf(fields[n++], sizeof fields[0], "MESSAGE_ID=%s", bl_event_message_id(ev));
        if (vm)
                (void)snprintf(fields[n++], sizeof fields[0], "VM=%s", vm);
        if (reason)
                (void)snprintf(fields[n++], sizeof fields[0], "REASON=%s", reason);
        for (int i = 0; i < n; i++)
                iov[i] = (struct iovec){.iov_base = fields[i], .iov_len = strlen(fields[i])};
        return sd_journal_sendv(iov, n);
}

static void to_stderr(int priority, const char *message)
{
        char line[LINE_SIZE + 64], prefix[8] = "";
        ssize_t written;
        int n;

        if (to.prefix)
                (void)snprintf(prefix, sizeof prefix, "<%d>", priority & LOG_PRIMASK);
        n = snprintf(line, sizeof line, "%s%s: %s%s\n", prefix, program_invocation_short_name,
                     to.prefix ? "" : word(priority), message);
        if (n < 0)
                return;
        if ((size_t)n >= sizeof line) {
                n = (int)sizeof line - 1;
                line[n - 1] = '\n';
        }
        /* one write, so that lines of several threads do not mix; a log that
         * cannot be written cannot be complained of either */
        do
                written = write(STDERR_FILENO, line, (size_t)n);
        while (written < 0 && errno == EINTR);
}

void bl_log(int priority, enum bl_event ev, const char *vm, const char *reason, const char *format, ...)
{
        const int saved = errno;
        char message[LINE_SIZE];
        va_list ap;

        if (priority > to.level)
                return;
        va_start(ap, format);
        errno = saved; /* for %m */
        if (vsnprintf(message, sizeof message, format, ap) < 0)
                message[0] = '\0';
        va_end(ap);
        make_printable(message);

        if (!to.journal || to_journal(priority, ev, vm, reason, message) < 0)
                to_stderr(priority, message);
        errno = saved;
}
