/** Makes the disks that a machine with an older kernel needs of a pod's layers; those that are there stay. */
import { spawn } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import '../hot.ts';
import { TspodError } from '../../src/errors.ts';
import type { Pod } from '../../src/pod/pod.ts';
import { DISK_FILE } from '../../src/store/disk-file.ts';
import { artifact } from '../../src/sys/artifacts.ts';

const OUTPUT_CAP = 64 * 1024;
/** At once: each is a Node. */
const WORKERS = 2;

/**
 * @param podDir where the pod's folder will be, to which the paths of its layers are relative
 * @throws TspodError
 */
export async function makeLayerDisks(pod: Pod, podDir: string): Promise<void> {
  if (pod.options.vm === undefined || pod.options.vm.smallBlocks) return;
  const folders = new Set(
    pod.apps.flatMap(({ rootfs }) =>
      rootfs.kind === 'copy'
        ? []
        : rootfs.layers.flatMap(layer =>
            layer.form === 'erofs' ? [dirname(dirname(join(podDir, layer.tar)))] : [],
          ),
    ),
  );
  const missing = [...folders].filter(folder => !existsSync(join(folder, DISK_FILE)));
  if (missing.length === 0) return;
  if (process.stderr.isTTY) {
    const bytes = missing.reduce(
      (sum, folder) => sum + statSync(join(folder, 'tree/layer.tar')).size,
      0,
    );
    process.stderr.write(
      `making disks of ${missing.length} layers for machines, ${Math.ceil(bytes / 1e6)} MB\n`,
    );
  }
  const worker = async () => {
    for (let folder = missing.pop(); folder !== undefined; folder = missing.pop())
      await makeDisk(folder);
  };
  await Promise.all(Array.from({ length: WORKERS }, worker));
}

function makeDisk(root: string): Promise<void> {
  const message = JSON.stringify({ parent: process.pid, root });
  const child = spawn(process.execPath, [artifact('disk-child.js'), message], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {},
    cwd: '/',
    detached: true,
  });
  let answer = '';
  let errors = '';
  child.stdout.on('data', chunk => {
    answer = `${answer}${chunk}`.slice(0, OUTPUT_CAP);
  });
  child.stderr.on('data', chunk => {
    errors = `${errors}${chunk}`.slice(0, OUTPUT_CAP);
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', status => {
      if (status === 0 && answer === '') resolve();
      else reject(failure(answer, errors));
    });
  });
}

function failure(answer: string, errors: string): TspodError {
  const message = /"message":"((?:[^"\\]|\\.)*)"/.exec(answer)?.[1];
  const why = message ?? errors.trim().split('\n').at(-1) ?? 'it was killed';
  return new TspodError('store', `layer: can't make a disk for the pod's machine: ${why}`);
}
