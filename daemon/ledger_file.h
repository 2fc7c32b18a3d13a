/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The ledger's contents, and their form in the file.  Private to ledger.c. */
#ifndef BALLAST_LEDGER_FILE_H
#define BALLAST_LEDGER_FILE_H

#include "daemon/ledger.h"

struct bl_ledger_data {
        char *boot_id;
        int act;
        bool held;
        bool trusted;
        enum bl_ledger_rollback rollback;
        uint64_t phase;
        size_t n_knobs;
        struct bl_ledger_knob knobs[BL_LEDGER_KNOBS];
        size_t n, size;
        struct bl_ledger_vm **vms; /* each allocated, so that pointers stay */
};

void bl_ledger_data_clear(struct bl_ledger_data *d);
int bl_ledger_data_add(struct bl_ledger_data *d, const uint8_t uuid[BL_UUID_LEN], const char *name,
                       struct bl_ledger_vm **ret);
void bl_ledger_data_remove_knob(struct bl_ledger_data *d, size_t i);
/* -ENOSPC: there are BL_LEDGER_KNOBS; `before` may be NULL. */
int bl_ledger_data_add_knob(struct bl_ledger_data *d, const char *path, const char *was, const char *ours,
                            const char *before);
void bl_ledger_data_remove(struct bl_ledger_data *d, size_t i);

/* READ fills `ret`; anything else leaves it alone and says why. */
enum bl_ledger_found bl_ledger_data_parse(const char *text, size_t len, struct bl_ledger_data *ret, char **ret_why);
int bl_ledger_data_format(const struct bl_ledger_data *d, char **ret, size_t *ret_len);

#endif
