/**
 * The launcher as a child: executes a plan in the folder of a pod that runs already. It holds the lock of the
 * manifest, too: killed, we leave it at work, and the next command has to wait for its end.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, openSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { systemError, TspodError } from '../../src/errors.ts';
import { encodePlan, type Step } from '../../src/pod/launch-plan.ts';
import { artifact } from '../../src/sys/artifacts.ts';

const PLAN_FD = 3;
/** The launcher says one line. */
const MAX_MESSAGE = 4096;

/**
 * @param lockFd of pod.lck
 * @param what for the message: `can't add app "web"`
 * @throws TspodError 'launch' with what the launcher said
 */
export function runPlan(dir: string, lockFd: number, what: string, steps: readonly Step[]): void {
  const path = join(dir, `.plan-${process.pid}`);
  let fd: number;
  try {
    writeFileSync(path, encodePlan(steps), { flag: 'wx', mode: 0o600 });
    fd = openSync(path, 'r');
    unlinkSync(path);
  } catch (error) {
    throw systemError(`${what}: can't write a plan into ${dir}`, error);
  }
  try {
    const { error, status, stderr } = spawnSync(artifact('launch'), ['--plan-fd', `${PLAN_FD}`], {
      cwd: dir,
      env: {},
      stdio: ['ignore', 'ignore', 'pipe', fd, lockFd],
    });
    if (error !== undefined) throw systemError(`${what}: can't execute the launcher`, error);
    if (status === 0) return;
    const said = stderr.toString('utf8', 0, MAX_MESSAGE).trim();
    throw new TspodError('launch', `${what}: ${said.replace(/^[^:]*: /, '')}`);
  } finally {
    closeSync(fd);
  }
}
