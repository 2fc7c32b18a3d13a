/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/store/peers.h"

#include <stdbool.h>

#include "daemon/store/store.h"
#include "daemon/util/fs.h"
#include "daemon/util/procstat.h"

struct peer {
        pid_t pid;
        uint64_t start;
        unsigned connections;
};

struct bl_peers {
        pthread_mutex_t lock;
        pthread_key_t key; /* a thread's struct hold */
        struct peer *peers; /* by pid */
        size_t n;
};

/* A connection has its thread from accept to close, and no other callback tells of one that never got an export. */
struct hold {
        struct bl_peers *peers;
        pid_t pid;
        uint64_t start;
};

static int compare_pid(const void *a, const void *b)
{
        const struct peer *x = a, *y = b;

        return (x->pid > y->pid) - (x->pid < y->pid);
}

static int compare(const void *a, const void *b)
{
        const struct peer *x = a, *y = b;

        return compare_pid(a, b) ?: (x->start > y->start) - (x->start < y->start);
}

/* A process that is gone may have had the same number: its VM is known until it is forgotten. */
static struct peer *find(const struct bl_peers *p, pid_t pid, uint64_t start)
{
        const struct peer wanted = {.pid = pid, .start = start};

        return p->n > 0 ? bsearch(&wanted, p->peers, p->n, sizeof(*p->peers), compare) : NULL;
}

static bool is_known(struct bl_peers *p, pid_t pid)
{
        const struct peer wanted = {.pid = pid};
        bool ret;

        (void)pthread_mutex_lock(&p->lock);
        ret = p->n > 0 && bsearch(&wanted, p->peers, p->n, sizeof(*p->peers), compare_pid);
        (void)pthread_mutex_unlock(&p->lock);
        return ret;
}

static void thread_ends(void *value)
{
        struct hold *h = value;
        struct peer *peer;

        (void)pthread_mutex_lock(&h->peers->lock);
        peer = find(h->peers, h->pid, h->start);
        if (peer && peer->connections > 0)
                peer->connections--;
        (void)pthread_mutex_unlock(&h->peers->lock);
        free(h);
}

int bl_peers_new(struct bl_peers **ret)
{
        struct bl_peers *p = calloc(1, sizeof(*p));
        int r;

        if (!p)
                return -ENOMEM;
        r = pthread_key_create(&p->key, thread_ends);
        if (r > 0) {
                free(p);
                return -r;
        }
        (void)pthread_mutex_init(&p->lock, NULL);
        *ret = p;
        return 0;
}

struct bl_peers *bl_peers_free(struct bl_peers *p)
{
        if (!p)
                return NULL;
        (void)pthread_key_delete(p->key);
        (void)pthread_mutex_destroy(&p->lock);
        free(p->peers);
        free(p);
        return NULL;
}

int bl_peers_refresh(struct bl_peers *p, struct bl_store *s)
{
        _cleanup_free_ struct bl_store_vm *vms = NULL;
        struct peer *peers;
        size_t n = 0, there;

        while ((there = bl_store_vms(s, vms, n)) > n) {
                free(vms);
                n = there;
                vms = calloc(n, sizeof(*vms));
                if (!vms)
                        return -ENOMEM;
        }
        peers = calloc(there + 1, sizeof(*peers));
        if (!peers)
                return -ENOMEM;
        for (size_t i = 0; i < there; i++)
                peers[i] = (struct peer){.pid = vms[i].pid, .start = vms[i].start};
        qsort(peers, there, sizeof(*peers), compare);
        n = 0;
        for (size_t i = 0; i < there; i++)
                if (n == 0 || compare(&peers[n - 1], &peers[i]) != 0)
                        peers[n++] = peers[i];

        (void)pthread_mutex_lock(&p->lock);
        for (size_t i = 0; i < n; i++) {
                const struct peer *old = find(p, peers[i].pid, peers[i].start);

                if (old)
                        peers[i].connections = old->connections;
        }
        free(p->peers);
        p->peers = peers;
        p->n = n;
        (void)pthread_mutex_unlock(&p->lock);
        return 0;
}

int bl_peer_start(pid_t pid, uint64_t *ret)
{
        char path[32], text[1024], state;
        ssize_t n;

        (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
        n = bl_fs_read(NULL, path, text, sizeof(text));
        if (n < 0 || bl_proc_stat_parse(text, &state, ret) < 0)
                return -ESRCH;
        return 0;
}

static int take(struct bl_peers *p, pid_t pid, uint64_t start)
{
        struct peer *peer;
        int r = 0;

        (void)pthread_mutex_lock(&p->lock);
        peer = find(p, pid, start);
        if (!peer)
                r = -EPERM;
        else if (peer->connections >= BL_PEER_CONNECTIONS)
                r = -EAGAIN;
        else
                peer->connections++;
        (void)pthread_mutex_unlock(&p->lock);
        return r;
}

int bl_peers_admit(struct bl_peers *p, pid_t pid)
{
        struct hold *h;
        uint64_t start;
        int r;

        if (!is_known(p, pid) || bl_peer_start(pid, &start) < 0)
                return -EPERM;
        h = calloc(1, sizeof(*h));
        if (!h)
                return -ENOMEM;
        *h = (struct hold){.peers = p, .pid = pid, .start = start};
        r = take(p, pid, start);
        if (r < 0) {
                free(h);
                return r;
        }
        r = pthread_setspecific(p->key, h);
        if (r > 0) {
                thread_ends(h);
                return -r;
        }
        return 0;
}
