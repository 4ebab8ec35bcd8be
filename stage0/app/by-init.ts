/** Apps of a pod that stage2's init runs: by its control socket, and mounts in its namespace. */
import { writeInsidePlans, writeManifest, writeRuntimeConfig } from '../../src/pod/folder.ts';
import { faultPoint } from '../../src/sys/fault.ts';
import { ask } from '../../stage1-flavors/nspawn/control.ts';
import { addedPlans, mountSteps, unmountSteps } from '../../stage1-flavors/nspawn/mutable.ts';
import type { AppsBy } from './apps-by.ts';
import { appStates } from './init.ts';
import { runPlan } from './run-plan.ts';

export const byInit: AppsBy = {
  mounts: true,

  async add(pod, app, running) {
    const { dir, lockFd } = running;
    writeInsidePlans(dir, addedPlans(pod, app));
    faultPoint('app-add-written');
    runPlan(dir, lockFd, `can't add app "${app.name}"`, mountSteps(pod, app, running));
    faultPoint('app-add-mounted');
    await ask(dir, ['add', app.name]);
    faultPoint('app-add-told');
    writeRuntimeConfig(dir, pod);
    faultPoint('app-add-config');
    writeManifest(dir, pod);
  },

  async start(_pod, app, { dir }) {
    await ask(dir, ['start', app]);
  },

  async stop(_pod, app, { dir }) {
    await ask(dir, ['stop', app], { timeoutMs: Number.POSITIVE_INFINITY });
  },

  async remove(pod, app, running) {
    const { dir, lockFd } = running;
    if ((await appStates(dir)).has(app)) {
      await byInit.stop(pod, app, running);
      faultPoint('app-rm-stopped');
      await ask(dir, ['remove', app]);
    }
    faultPoint('app-rm-removed');
    const steps = unmountSteps(pod.options.program, app, running);
    runPlan(dir, lockFd, `can't unmount app "${app}"`, steps);
    faultPoint('app-rm-unmounted');
  },
};
