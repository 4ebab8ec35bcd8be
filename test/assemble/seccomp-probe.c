/* Loads the filter on descriptor 3, then makes each system call named by number in a child of its own, with
 * arguments that can do nothing, and prints "NUMBER errno N" or "NUMBER signal N". */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    static struct sock_filter filter[4096];
    ssize_t length = read(3, filter, sizeof filter);
    struct sock_fprog program = { (unsigned short)(length / 8), filter };
    struct rlimit none = { 0, 0 };
    setrlimit(RLIMIT_CORE, &none);
    for (int i = 1; i < argc; i++) {
        long number = strtol(argv[i], NULL, 0);
        int answer[2];
        if (length <= 0 || pipe(answer) < 0)
            return 1;
        pid_t child = fork();
        if (child == 0) {
            if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
                _exit(2);
            errno = 0;
            long result = syscall(number, -1L, -1L, -1L, -1L, -1L, -1L);
            _exit(result < 0 ? errno : 0);
        }
        int status;
        waitpid(child, &status, 0);
        if (WIFSIGNALED(status))
            printf("%ld signal %d\n", number, WTERMSIG(status));
        else
            printf("%ld errno %d\n", number, WEXITSTATUS(status));
        close(answer[0]);
        close(answer[1]);
    }
    return 0;
}
