/**
 * Apps of a pod that a stage1 image runs: by its `app/…` programs, as rkt-1.30 calls them. They read the pod's
 * manifest and the app's environment from the pod's folder, and the times of its life are files that we make.
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { STATUS_FOLDER, writeManifest, writeRuntimeConfig } from '../../src/pod/folder.ts';
import type { PodApp } from '../../src/pod/pod.ts';
import { faultPoint } from '../../src/sys/fault.ts';
import { cross } from '../../stage1-flavors/foreign/crossing.ts';
import { TREE } from '../../stage1-flavors/foreign/foreign.ts';
import type { AppsBy } from './apps-by.ts';

/** What systemctl says of a unit that there is not; rkt passes over it. */
const NOT_THERE = 5;

export const byStage1: AppsBy = {
  mounts: false,

  async add(pod, app, running, before) {
    const { dir, uuid } = running;
    writeEnvironment(dir, app);
    writeRuntimeConfig(dir, pod);
    faultPoint('app-add-config');
    writeManifest(dir, pod);
    faultPoint('app-add-manifest');
    try {
      cross(pod, running, app.name, 'app/add', [`--uuid=${uuid}`, `--app=${app.name}`]);
    } catch (error) {
      writeManifest(dir, before);
      writeRuntimeConfig(dir, before);
      throw error;
    }
    writeFileSync(join(dir, STATUS_FOLDER, `${app.name}-created`), '');
  },

  async start(pod, app, running) {
    const status = join(running.dir, STATUS_FOLDER, app);
    // In this order nobody takes its last end for its new one.
    rmSync(`${status}-started`, { force: true });
    rmSync(status, { force: true });
    writeFileSync(`${status}-started`, '');
    cross(pod, running, app, 'app/start', [`--app=${app}`]);
  },

  async stop(pod, app, running) {
    cross(pod, running, app, 'app/stop', [`--app=${app}`]);
  },

  async remove(pod, app, running) {
    cross(pod, running, app, 'app/stop', [`--app=${app}`], NOT_THERE);
    faultPoint('app-rm-stopped');
    cross(pod, running, app, 'app/rm', [`--app=${app}`]);
  },
};

/** NAME=VALUE by lines, as rkt; the values are the stage1's to take apart. */
function writeEnvironment(dir: string, { name, app }: PodApp): void {
  const path = join(dir, TREE, 'rkt/env', name);
  const variables = new Map((app.environment ?? []).map(({ name, value }) => [name, value]));
  variables.set('AC_APP_NAME', name);
  mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
  const lines = [...variables].map(([name, value]) => `${name}=${value}\n`);
  writeFileSync(path, lines.join(''), { mode: 0o644 });
}
