/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/sense/controllers.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include <ballast/cleanup.h>

#include "daemon/util/fs.h"
#include "daemon/util/size.h"

/* A host with more processes than that is looked at in part. */
#define PROCESSES_MAX 65536
#define COMM_MAX      32
#define CMDLINE_MAX   1024
#define CMDLINE_ARGS  6

static const struct {
        const char *comm; /* as in /proc/PID/comm: 15 characters at most */
        const char *name;
        const char *what;
} known[] = {
        {"momd", "MOM",
         "momd sets the same balloons and KSM every few seconds; stop it (systemctl disable --now momd) or leave "
         "act=no"},
        {"vdsmd", "VDSM",
         "vdsmd runs oVirt's MOM, which sets the same balloons and KSM; switch ballooning and KSM off in the cluster's "
         "policy, or leave act=no"},
        {"pvestatd", "pvestatd",
         "Proxmox's pvestatd balloons its VMs towards 80 % of the host's memory; set a VM's balloon to 0 or leave it "
         "to pvestatd"},
        {"ksmtuned", "ksmtuned",
         "ksmtuned starts and stops KSM and changes its speed every minute; stop it (systemctl disable --now ksmtuned) "
         "if Ballast is to drive sharing"},
        {"systemd-oomd", "systemd-oomd",
         "systemd-oomd may kill a VM's whole cgroup under memory pressure that Ballast is about to relieve; set "
         "ManagedOOMMemoryPressure=auto for machine.slice"},
        {"oomd", "oomd",
         "oomd may kill VMs under memory pressure that Ballast is about to relieve; exclude the VMs in its "
         "configuration"},
        {"earlyoom", "earlyoom",
         "earlyoom kills the largest process, most likely a VM, when little memory is available; start it with --avoid "
         "'^qemu'"},
        {"nohang", "nohang", "nohang may kill VMs when little memory is available; exclude qemu in its configuration"},
        {"ballastd", "ballastd", "another ballastd is running; two of them fight over the same balloons: stop one"},
};
#define N_KNOWN (sizeof known / sizeof *known)

#define ADVISOR_NAME "KSM advisor"
#define ADVISOR_WHAT                                                                                                  \
        "the kernel's KSM advisor changes pages_to_scan by itself; write none to /sys/kernel/mm/ksm/advisor_mode if " \
        "Ballast is to drive sharing"

static const char *base_name(const char *path)
{
        const char *slash = strrchr(path, '/');

        return slash ? slash + 1 : path;
}

static bool is_interpreter(const char *comm)
{
        static const char *const names[] = {"python", "perl", "bash", "sh", "dash"};

        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
                const size_t len = strlen(names[i]);

                if (strncmp(comm, names[i], len) == 0 && strspn(comm + len, "0123456789.") == strlen(comm + len))
                        return true;
        }
        return false;
}

static int find_known(const char *word)
{
        for (size_t i = 0; i < N_KNOWN; i++)
                if (strcmp(known[i].comm, word) == 0)
                        return (int)i;
        return -1;
}

/* `python3 -u /usr/sbin/momd -c ...`: the script is among the first arguments. */
static int find_in_cmdline(int proc, const char *pid)
{
        char path[NAME_MAX + sizeof "/cmdline"], cmdline[CMDLINE_MAX];
        ssize_t n;
        const char *p;

        (void)snprintf(path, sizeof path, "%s/cmdline", pid);
        n = bl_fs_read_at(proc, path, cmdline, sizeof cmdline);
        if (n == -EFBIG)
                n = (ssize_t)sizeof cmdline - 1;
        if (n <= 0)
                return -1;

        p = cmdline;
        for (int i = 0; i < CMDLINE_ARGS && p < cmdline + n; i++) {
                /* the first that is no option is the script; what comes after it is only its arguments */
                if (i > 0 && *p && *p != '-')
                        return find_known(base_name(p));
                p += strlen(p) + 1;
        }
        return -1;
}

static int find_process(int proc, const char *pid)
{
        char path[NAME_MAX + sizeof "/comm"], comm[COMM_MAX];
        ssize_t n;

        (void)snprintf(path, sizeof path, "%s/comm", pid);
        n = bl_fs_read_at(proc, path, comm, sizeof comm);
        if (n <= 0)
                return -1;
        comm[strcspn(comm, "\n")] = '\0';
        return is_interpreter(comm) ? find_in_cmdline(proc, pid) : find_known(comm);
}

/* "[none] scan-time" or "none [scan-time]" */
static bool advisor_active(const char *root)
{
        char buf[128];

        return bl_fs_read(root, "/sys/kernel/mm/ksm/advisor_mode", buf, sizeof buf) > 0 && strchr(buf, '[') &&
               !strstr(buf, "[none]");
}

int bl_controllers_find(const char *root, pid_t self, struct bl_controller *ret, size_t max)
{
        _cleanup_closedir_ DIR *proc = NULL;
        pid_t pids[N_KNOWN] = {0};
        char path[PATH_MAX];
        size_t n = 0;
        int r;

        r = bl_path_join(path, sizeof path, root, "/proc");
        if (r < 0)
                return r;
        proc = opendir(path);
        if (!proc)
                return -errno;

        for (int i = 0; i < PROCESSES_MAX; i++) {
                const struct dirent *e = readdir(proc);
                uint64_t pid;
                int k;

                if (!e)
                        break;
                if (bl_uint_parse(e->d_name, &pid) < 0 || pid > INT_MAX || (pid_t)pid == self)
                        continue;
                k = find_process(dirfd(proc), e->d_name);
                if (k >= 0 && pids[k] == 0)
                        pids[k] = (pid_t)pid;
        }

        for (size_t i = 0; i < N_KNOWN && n < max; i++)
                if (pids[i])
                        ret[n++] = (struct bl_controller){.name = known[i].name, .what = known[i].what, .pid = pids[i]};
        if (n < max && advisor_active(root))
                ret[n++] = (struct bl_controller){.name = ADVISOR_NAME, .what = ADVISOR_WHAT};
        return (int)n;
}
