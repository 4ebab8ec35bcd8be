/** The programs of a stage1 image that change a running pod: how they get into it is their own affair, with `enter`. */
import { spawnSync } from 'node:child_process';
import { systemError, TspodError } from '../../src/errors.ts';
import type { Pod } from '../../src/pod/pod.ts';
import type { RunningPod } from '../flavor.ts';
import { stage1Of } from './check.ts';
import { program } from './foreign.ts';

/**
 * @param words behind `--debug=…`
 * @param passedOver an exit status that is no failure, besides 0
 * @throws TspodError 'unsupported' when the stage1 has no such program, 'state' when that fails
 */
export function cross(
  pod: Pod,
  running: RunningPod,
  app: string,
  kind: 'app/add' | 'app/start' | 'app/stop' | 'app/rm',
  words: readonly string[],
  passedOver = 0,
): void {
  const path = program(pod, running.dir, kind);
  const { error, status, signal } = spawnSync(path, [`--debug=${pod.options.debug}`, ...words], {
    cwd: running.dir,
    env: {
      PATH: process.env['PATH'],
      RKT_STAGE1_ENTERCMD: program(pod, running.dir, 'enter'),
      RKT_STAGE1_ENTERPID: String(running.pid),
      RKT_STAGE1_ENTERAPP: app,
    },
    stdio: ['ignore', 2, 2],
  });
  if (error !== undefined) throw systemError(`pod ${pod.uuid}: can't execute ${path}`, error);
  if (status === 0 || status === passedOver) return;
  const how = signal === null ? `ended with ${status}` : `was killed by ${signal}`;
  throw new TspodError(
    'state',
    `pod ${pod.uuid}: ${kind} of stage1 ${stage1Of(pod).name} ${how} for app "${app}"`,
  );
}
