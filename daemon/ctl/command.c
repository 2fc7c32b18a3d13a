/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The table of commands, and the help that is made of it. */
#include <stdio.h>
#include <string.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/scan_inputs.h"
#include "daemon/ctl/tiers.h"

const struct ctl_command ctl_commands[] = {
        {
                .name = "status",
                .args = "",
                .summary = "The host, the daemon, and whether all is well",
                .run = ctl_cmd_status,
        },
        {
                .name = "list",
                .args = "",
                .summary = "The virtual machines and their memory",
                .run = ctl_cmd_list,
                .options = {{"watch", "SEC", true, "again every SEC seconds (default: 2)"},
                            {"sharing", NULL, false, "what they share: merged, saved, what could be"}},
        },
        {
                .name = "show",
                .args = "VM",
                .min_args = 1,
                .max_args = 1,
                .summary = "Everything about one virtual machine",
                .run = ctl_cmd_show,
        },
        {
                .name = "tiers",
                .args = "[WHAT]",
                .max_args = 3,
                .summary = "What is held where: the store, zswap, zram, swap",
                .details = "WHAT changes the host's own tiers, as root, without ballastd:\n"
                           "  tiers setup zram|zswap|swapfile SIZE   prepares one\n"
                           "  tiers rollback                         undoes what setup did",
                .run = ctl_cmd_tiers,
                .options = {{"watch", "SEC", true, "again every SEC seconds (default: 2)"},
                            {"path", "FILE", false, "the swap file (default: " CTL_TIERS_SWAPFILE ")"},
                            {"force", NULL, false, "set zram up beside what others have set up"},
                            {"state-dir", "DIR", false, "where it is written down (default: ballastd's)"}},
        },
        {
                .name = "scan",
                .args = "[VM...]",
                .max_args = CTL_SCAN_MAX,
                .summary = "How much memory equal pages could save, exactly",
                .details = "Reads the memory of running VMs (without VM, --pid and --dump: of all), of any\n"
                           "processes and of dumps, as root; ballastd need not run.  Changes nothing.",
                .run = ctl_cmd_scan,
                .options = {{"pid", "PID", false, "a process; several: again, or with commas"},
                            {"dump", "FILE", false, "an ELF core (virsh dump) or raw memory; again"},
                            {"svg", "FILE", false, "draw the report into a file"},
                            {"verify", NULL, false, "check the figures by brute force"},
                            {"watch", "SEC", true, "again every SEC seconds (default: 10)"},
                            {"cpu", "PERCENT", false, "of one core, at most (default: 100)"},
                            {"memory", "SIZE", false, "for the index (default: 0.5 % of what is read)"},
                            {"seed", "N", false, "of the hash and of samples, to repeat a scan"},
                            {"connect", "URI", false, "libvirt to use (default: ballastd's)"},
                            {"libvirt-run-dir", "DIR", false, "where its VM.pid files are (default: ballastd's)"}},
        },
        {
                .name = "plan",
                .args = "",
                .summary = "What Ballast would do now, and why; changes nothing",
                .run = ctl_cmd_plan,
        },
        {
                .name = "explain",
                .args = "[VM]",
                .max_args = 1,
                .summary = "What was done or left alone, when and why",
                .run = ctl_cmd_explain,
        },
        {
                .name = "set",
                .args = "VM",
                .min_args = 1,
                .max_args = 1,
                .summary = "Change the settings of a virtual machine",
                .details = "SIZE is a number with K, M, G or T (binary units), as in 512M or 1.5G.\n"
                           "Without --live and --persistent both are changed, where the VM has both.",
                .run = ctl_cmd_set,
                .options = {{"reservation", "SIZE", false, "never squeeze it below this"},
                            {"limit", "SIZE", false, "never give it more than this"},
                            {"shares", "N", false, "its weight: low, normal, high or a number"},
                            {"manage", "yes|no", false, "whether Ballast acts on it"},
                            {"sharing", "MODE", false, "of its pages: off, zero or group"},
                            {"group", "NAME", false, "its trust group, with which it shares them"},
                            {"live", NULL, false, "for the running VM only"},
                            {"persistent", NULL, false, "for its next boot only"}},
        },
        {
                .name = "balloon",
                .args = "VM",
                .min_args = 1,
                .max_args = 1,
                .summary = "Set a balloon by hand; the VM is held afterwards",
                .details = "'ballastctl release VM' gives it back to automatic action.",
                .run = ctl_cmd_balloon,
                .options = {{"leave", "SIZE", false, "leave this much memory to the VM"},
                            {"take", "SIZE", false, "take this much from what it has now"}},
        },
        {
                .name = "hold",
                .args = "[VM]",
                .max_args = 1,
                .summary = "Leave a virtual machine alone; without VM, all of them",
                .run = ctl_cmd_hold,
        },
        {
                .name = "release",
                .args = "[VM]",
                .max_args = 1,
                .summary = "End a hold, also one that came from virsh setmem",
                .run = ctl_cmd_release,
        },
        {
                .name = "ask",
                .args = "VM WHAT",
                .min_args = 2,
                .max_args = 2,
                .summary = "Ask the agent in a guest for something",
                .details = "WHAT is ping (does it answer?), trim (give clean page cache back), compact\n"
                           "(its memory, so that it can give whole huge pages) or hints (say which pages\n"
                           "it can do without; 'ballastctl show VM' counts them).",
                .run = ctl_cmd_ask,
                .options = {{"size", "SIZE", false, "how much, for trim and hints"}},
        },
        {
                .name = "drain",
                .args = "[VM]",
                .max_args = 1,
                .summary = "Bring back what a virtual machine has swapped on the store",
                .details = "Its guest takes its pages back, then the disk is unplugged.  It gets no swap on\n"
                           "the store until it is started anew, or --undo.  Refused, with the figures,\n"
                           "where its memory or the host's would not hold it.",
                .run = ctl_cmd_drain,
                .options = {{"all", NULL, false, "all virtual machines"},
                            {"wait", NULL, false, "return when it is done"},
                            {"undo", NULL, false, "let it swap on the store again"}},
        },
        {
                .name = "share",
                .args = "[resume]",
                .max_args = 1,
                .summary = "Page sharing: what is merged, what that saves and costs",
                .details = "share resume: drive KSM again after somebody else changed its settings.",
                .run = ctl_cmd_share,
                .options = {{"watch", "SEC", true, "again every SEC seconds (default: 2)"}},
        },
        {
                .name = "act",
                .args = "on|off",
                .min_args = 1,
                .max_args = 1,
                .summary = "Let Ballast act, or only say what it would do",
                .run = ctl_cmd_act,
        },
        {
                .name = "config",
                .args = "",
                .summary = "The settings in force and where each comes from",
                .run = ctl_cmd_config,
        },
        {
                .name = "metrics",
                .args = "",
                .summary = "Figures for a monitoring system, in OpenMetrics text",
                .run = ctl_cmd_metrics,
        },
        {
                .name = "rollback",
                .args = "",
                .summary = "Stop acting and put every virtual machine back as it was",
                .run = ctl_cmd_rollback,
                .options = {{"wait", NULL, false, "return when it is finished"}},
        },
        {
                .name = "reload",
                .args = "",
                .summary = "Read the configuration again",
                .run = ctl_cmd_reload,
        },
        {
                .name = "enroll",
                .args = "VM",
                .min_args = 1,
                .max_args = 2, /* the size that --swap may be followed by */
                .summary = "Show or write the XML that a virtual machine needs",
                .details = "Shows the change as a unified diff.  What is written takes effect when the VM\n"
                           "is next started.  Works on libvirt directly; ballastd need not run.",
                .run = ctl_cmd_enroll,
                .options = {{"write", NULL, false, "write it to the VM's persistent definition"},
                            {"connect", "URI", false, "libvirt to use (default: qemu:///system)"},
                            {"remove", NULL, false, "take the guest agent's channel out again"},
                            {"no-autodeflate", NULL, false, "leave the balloon's autodeflate as it is"},
                            {"no-free-page-reporting", NULL, false, "leave free page reporting as it is"},
                            {"channel", "KIND", false, "auto, vsock, virtio-serial or vhost-user-vsock"},
                            {"no-channel", NULL, false, "no channel for the guest agent"},
                            {"swap", "SIZE", true, "swap on the host's store (default: by its memory)"},
                            {"no-swap", NULL, false, "none any more, from its next start on"},
                            {"group", "NAME", false, "VMs that it shares equal pages with"},
                            {"swap-limit", "SIZE", false, "host memory that its swap may take"}},
        },
        {0},
};

const struct ctl_option ctl_global_options[] = {
        {"socket", "PATH", false, "talk to the daemon there (also: BALLAST_SOCKET)"},
        {"json", NULL, false, "print the JSON document, see ballastctl-json(7)"},
        {"no-color", NULL, false, "no colours (also: NO_COLOR)"},
        {"help", NULL, false, "this text"},
        {"version", NULL, false, "the version"},
        {0},
};

const struct ctl_command *ctl_command_find(const char *name)
{
        for (const struct ctl_command *k = ctl_commands; k->name; k++)
                if (strcmp(k->name, name) == 0)
                        return k;
        return NULL;
}

static void print_option(FILE *f, const struct ctl_option *o)
{
        char left[64];

        (void)snprintf(left, sizeof(left), "--%s%s%s%s", o->name,
                       o->arg_optional ? "[="
                       : o->arg        ? " "
                                       : "",
                       o->arg ? o->arg : "", o->arg_optional ? "]" : "");
        fprintf(f, "  %-25s %s\n", left, o->help);
}

static void print_global_options(FILE *f)
{
        for (const struct ctl_option *o = ctl_global_options; o->name; o++)
                print_option(f, o);
}

void ctl_help(FILE *f)
{
        fputs("Usage: ballastctl [OPTION...] COMMAND [ARGUMENT...]\n\n"
              "Asks and steers ballastd, the memory-overcommit daemon of this host.\n\n"
              "Commands:\n",
              f);
        for (const struct ctl_command *k = ctl_commands; k->name; k++)
                fprintf(f, "  %-8s %-7s %s\n", k->name, k->args, k->summary);
        fputs("\nOptions, for every command:\n", f);
        print_global_options(f);
        fputs("\n'ballastctl COMMAND --help' tells more of a command, ballastctl(1) all.\n", f);
}

void ctl_command_help(FILE *f, const struct ctl_command *k)
{
        fprintf(f, "Usage: ballastctl %s%s%s%s\n\n%s.\n", k->name, *k->args ? " " : "", k->args,
                k->options[0].name ? " [OPTION...]" : "", k->summary);
        if (k->details)
                fprintf(f, "%s\n", k->details);
        if (k->options[0].name)
                fputs("\nOptions:\n", f);
        for (const struct ctl_option *o = k->options; o->name; o++)
                print_option(f, o);
        fputs("\nOptions, for every command:\n", f);
        print_global_options(f);
}
