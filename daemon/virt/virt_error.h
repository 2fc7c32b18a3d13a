/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* libvirt's errors as negative errno. */
#ifndef BALLAST_VIRT_VIRT_ERROR_H
#define BALLAST_VIRT_VIRT_ERROR_H

/* This thread's last libvirt error as a negative errno, and its text
 * (allocated, may be NULL when out of memory).  For workers. */
int bl_virt_error(char **ret_message);

#endif
