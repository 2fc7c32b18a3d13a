/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vm-peek PID: reads a word of that process's memory and writes it back, as
 * daemon/vsock/guest_memory.c does with a guest's.  For sandboxes that might not
 * let it.  Exit status: 0; 1 with a sentence.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>

#include <ballast/cleanup.h>

/* Somewhere that it may write; 0: nowhere. */
static uint64_t writable(const char *pid)
{
        char path[64], perms[5], line[4352];
        _cleanup_fclose_ FILE *f = NULL;
        uint64_t at;

        (void)snprintf(path, sizeof path, "/proc/%s/maps", pid);
        f = fopen(path, "re");
        while (f && fgets(line, sizeof line, f))
                if (sscanf(line, "%" SCNx64 "-%*x %4s", &at, perms) == 2 && perms[0] == 'r' && perms[1] == 'w')
                        return at;
        return 0;
}

int main(int argc, char **argv)
{
        const uint64_t at = argc == 2 ? writable(argv[1]) : 0;
        const pid_t pid = argc == 2 ? (pid_t)strtol(argv[1], NULL, 10) : 0;
        uint64_t word;
        struct iovec here = {&word, sizeof word}, there = {(void *)(uintptr_t)at, sizeof word};

        if (at == 0) {
                perror("vm-peek: its mappings");
                return EXIT_FAILURE;
        }
        if (process_vm_readv(pid, &here, 1, &there, 1, 0) != sizeof word) {
                perror("vm-peek: reading");
                return EXIT_FAILURE;
        }
        if (process_vm_writev(pid, &here, 1, &there, 1, 0) != sizeof word) {
                perror("vm-peek: writing");
                return EXIT_FAILURE;
        }
        return EXIT_SUCCESS;
}
