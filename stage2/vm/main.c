/*
 * vm: a pod's virtual machine, from both sides (docs/vm-agent.md).
 *
 *   vm host PLAN          on the host, in the pod's folder: starts QEMU, carries the pod's streams, ends as the pod ends
 *   vm enter APP PLAN-FD  on the host, in the pod's folder: a command in an app
 *   vm guest              PID 1 of the machine (as /init of its initramfs)
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/die.h"
#include "run-vm.h"

int main(int argc, char **argv)
{
    program_name = "tspod";
    if (getpid() == 1 || (argc == 2 && strcmp(argv[1], "guest") == 0))
        run_guest();
    if (argc == 3 && strcmp(argv[1], "host") == 0)
        run_host(argv[2]);
    if (argc == 4 && strcmp(argv[1], "enter") == 0)
        run_enter(argv[2], argv[3]);
    die("can't start: usage: vm host PLAN | vm enter APP PLAN-FD");
}
