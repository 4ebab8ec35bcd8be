/* The five capability sets of a thread (capabilities(7)). */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "app.h"
#include "common/die.h"

uint64_t all_capabilities(void)
{
    uint64_t all = 0;
    for (unsigned cap = 0; cap < 64 && prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        all |= UINT64_C(1) << cap;
    return all;
}

void drop_bounding(const struct capability_sets *sets)
{
    for (unsigned cap = 0; cap < 64; cap++) {
        int has = prctl(PR_CAPBSET_READ, cap, 0, 0, 0);
        if (has < 0)
            break; /* past the last that this kernel knows */
        if (has && !(sets->bounding & (UINT64_C(1) << cap)) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
            die_errno("can't drop capability %u from the bounding set", cap);
    }
}

/*
 * Loading a seccomp filter without no_new_privs takes CAP_SYS_ADMIN. An app that shall not have it may
 * still get its filter last: the capability stays in the permitted set of this process alone, for exec
 * computes the app's sets from the bounding, inheritable and ambient ones, which lack it.
 */
void set_capabilities(const struct capability_sets *sets, bool keep_admin_until_exec)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &header, data) < 0)
        die_errno("can't read the capabilities");
    uint64_t permitted = data[0].permitted | (uint64_t)data[1].permitted << 32;
    uint64_t wanted = sets->effective | sets->inheritable;
    if (keep_admin_until_exec)
        wanted |= UINT64_C(1) << CAP_SYS_ADMIN;
    /* Never more than there are: tspod itself may run with a reduced set. */
    wanted &= permitted;
    for (unsigned i = 0; i < 2; i++) {
        data[i].permitted = (uint32_t)(wanted >> (32 * i));
        data[i].effective = data[i].permitted;
        data[i].inheritable = (uint32_t)((sets->inheritable & permitted) >> (32 * i));
    }
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        die_errno("can't clear the ambient capabilities");
    if (syscall(SYS_capset, &header, data) < 0)
        die_errno("can't set the capabilities");
    for (unsigned cap = 0; cap < 64; cap++)
        if (sets->ambient & (UINT64_C(1) << cap) &&
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) < 0)
            die_errno("can't make capability %u ambient", cap);
}
