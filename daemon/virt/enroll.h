/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A domain's persistent XML made ready for Ballast.  Pure; everything that is
 * not Ballast's business is kept as it is.
 *
 * What can be added is a table of peers in enroll.c (a name, a sentence, a
 * function); a new one is one entry there and one flag here.
 */
#ifndef BALLAST_VIRT_ENROLL_H
#define BALLAST_VIRT_ENROLL_H

#include <stdbool.h>

struct bl_enroll_options {
        bool no_autodeflate; /* leave deflate-on-oom as it is */
        bool no_free_page_reporting; /* leave it as it is */
        bool no_channel; /* no org.ballast.agent.0 channel */
};

/*
 * 1: *ret_new is the changed XML; 0: nothing to change, *ret_new untouched;
 * -EINVAL not a domain XML, -EOPNOTSUPP not a QEMU/KVM domain, -ENOMEM; all
 * with *ret_message (allocated).  On 1 *ret_message says what was changed, one
 * sentence a line.  `o` may be NULL.  ret_message may be NULL.
 */
int bl_enroll_xml(const char *xml, const struct bl_enroll_options *o, char **ret_new, char **ret_message);

/* The opposite: takes away the agent channel (the balloon options stay; they
 * are harmless).  Same results. */
int bl_unenroll_xml(const char *xml, char **ret_new, char **ret_message);

#endif
