/**
 * A layer in EROFS form as a folder to walk: mounted by the launcher in a mount namespace that lives as long
 * as a sleeping process in it, and looked at through /proc/PID/root.
 */
import { spawn, spawnSync } from 'node:child_process';
import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmdirSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { encodePlan, type Step } from '../../src/pod/launch-plan.ts';
import type { LayerTree } from '../../src/store/types.ts';
import { artifact } from '../../src/sys/artifacts.ts';

/** @throws Error with the launcher's words when it can't be mounted */
export function viewErofs(tree: LayerTree): { readonly path: string } & Disposable {
  if (tree.form !== 'erofs') throw new Error('not a layer in EROFS form');
  const place = mkdtempSync(join(tmpdir(), 'tspod-view-'));
  const steps: Step[] = [
    ['program', 'view'],
    ['unshare', 'mount'],
    ['propagation', '/', 'rprivate'],
    ['erofs', place, tree.meta, tree.tar, tree.by],
    ['exec', '/bin/sleep', '3600'],
  ];
  const plan = `${place}.plan`;
  writeFileSync(plan, encodePlan(steps));
  const fd = openSync(plan, 'r');
  const child = spawn(artifact('launch'), ['--plan-fd', '3'], {
    cwd: '/',
    stdio: ['ignore', 'ignore', 'inherit', fd],
  });
  closeSync(fd);
  const pid = child.pid ?? 0;
  child.unref();
  const end = () => {
    child.kill('SIGKILL');
    waitGone(pid);
    unlinkSync(plan);
    rmdirSync(place);
  };
  if (!waitFor(() => commandOf(pid) === '/bin/sleep')) {
    end();
    throw new Error('the layer was not mounted');
  }
  return { path: `/proc/${pid}/root${place}`, [Symbol.dispose]: end };
}

function commandOf(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')[0];
  } catch {
    return undefined;
  }
}

function waitGone(pid: number): void {
  // A zombie has no command line any more, and no mounts.
  waitFor(() => !commandOf(pid));
}

function waitFor(condition: () => boolean): boolean {
  for (let tries = 0; tries < 1000; tries++) {
    if (condition()) return true;
    spawnSync('sleep', ['0.01']);
  }
  return false;
}
