/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* UUIDs of VMs as text. */
#ifndef BALLAST_UTIL_UUID_H
#define BALLAST_UTIL_UUID_H

#include <stdint.h>

#include <ballast/snapshot.h> /* BL_UUID_LEN */

/* 36 characters and a NUL, as libvirt writes them. */
void bl_uuid_to_string(const uint8_t uuid[BL_UUID_LEN], char ret[37]);
/* -EINVAL. */
int bl_uuid_from_string(const char *s, uint8_t ret[BL_UUID_LEN]);

#endif
