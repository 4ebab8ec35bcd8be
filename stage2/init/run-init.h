/* The mode `init` of stage2. */
#pragma once

/* Executes the init plan at `plan`; ends with the pod's status. */
_Noreturn void run_init(const char *plan);
