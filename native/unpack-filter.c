/*
 * The seccomp filter of the child that unpacks. It needs CAP_SYS_ADMIN for the attributes of overlayfs and
 * CAP_MKNOD for the image's devices, and either would be a way out of a chroot for whoever took the child
 * over. So what these capabilities allow besides is forbidden here. A list of what is forbidden, not of
 * what is allowed: V8 and libuv ask for other calls with every version.
 */
#define _GNU_SOURCE
#include "unpack-filter.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define OWN_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OWN_ARCH AUDIT_ARCH_AARCH64
#else
#error "no seccomp filter for this architecture"
#endif

#define DENY(number) (SECCOMP_RET_ERRNO | ((number) & SECCOMP_RET_DATA))

/* Numbers above 423 are the same on every architecture; older headers lack some. */
static const unsigned FORBIDDEN[] = {
    /* the network */
    SYS_socket, SYS_socketpair,
    /* programs */
    SYS_execve, SYS_execveat,
    /* mounts and roots */
    SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, 428 /* open_tree */, 429 /* move_mount */,
    430 /* fsopen */, 431 /* fsconfig */, 432 /* fsmount */, 433 /* fspick */, 442 /* mount_setattr */,
    SYS_swapon, SYS_swapoff, SYS_quotactl, SYS_name_to_handle_at, SYS_open_by_handle_at,
    /* namespaces */
    SYS_unshare, SYS_setns, SYS_sethostname, SYS_setdomainname,
    /* other processes */
    SYS_kill, SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp, 424 /* pidfd_send_signal */,
    438 /* pidfd_getfd */, 440 /* process_madvise */, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo,
    /* the kernel */
    SYS_bpf, SYS_perf_event_open, SYS_userfaultfd, SYS_add_key, SYS_request_key, SYS_keyctl, SYS_init_module,
    SYS_finit_module, SYS_delete_module, SYS_kexec_load, SYS_reboot, SYS_syslog, SYS_acct, SYS_settimeofday,
    SYS_clock_settime, SYS_adjtimex, SYS_clock_adjtime, 425 /* io_uring_setup */, 427 /* io_uring_register */,
    SYS_fanotify_init,
#ifdef __x86_64__
    SYS_iopl, SYS_ioperm, SYS_fork, SYS_vfork,
#endif
};

#define COUNT (sizeof FORBIDDEN / sizeof FORBIDDEN[0])
#define NAMESPACES                                                                                                     \
    (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET)

int forbid_what_unpacking_never_needs(void)
{
    struct sock_filter code[16 + COUNT * 2];
    unsigned short length = 0;
#define ADD(...) code[length++] = (struct sock_filter)__VA_ARGS__
    ADD(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)));
    ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OWN_ARCH, 1, 0));
    ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
    ADD(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)));
    /* x32's numbers would be others. */
    ADD(BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1));
    ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
    for (size_t i = 0; i < COUNT; i++) {
        ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, FORBIDDEN[i], 0, 1));
        ADD(BPF_STMT(BPF_RET | BPF_K, DENY(EPERM)));
    }
    /* Its flags lie in memory, where a filter can't see them; who gets ENOSYS takes clone(2). */
    ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 435 /* clone3 */, 0, 1));
    ADD(BPF_STMT(BPF_RET | BPF_K, DENY(ENOSYS)));
    /* Threads, but no processes in namespaces of their own. */
    ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 3));
    ADD(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])));
    ADD(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, NAMESPACES, 0, 1));
    ADD(BPF_STMT(BPF_RET | BPF_K, DENY(EPERM)));
    ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
#undef ADD
    struct sock_fprog program = { .len = length, .filter = code };
    long failed = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
    if (failed > 0)
        errno = EBUSY; /* a thread has a filter of its own that this one can't follow */
    return failed == 0 ? 0 : -1;
}
