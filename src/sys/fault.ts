/**
 * Fault points for crash tests: a named instant at which this process can be made to die as by `kill -9`.
 * TSPOD_FAULT names the point; the launcher honours the same variable. It gives nobody a power that he
 * lacks: who sets the environment of a process that runs as himself may kill that process anyway, and
 * nothing of tspod is setuid.
 */
export function faultPoint(name: string): void {
  if (process.env['TSPOD_FAULT'] === name) process.kill(process.pid, 'SIGKILL');
}
