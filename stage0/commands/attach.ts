/** `tspod attach POD`: connects this process's standard streams with those of an app whose modes allow it. */
import { join } from 'node:path';
import { type Context, warn } from '../../src/context.ts';
import { TspodError } from '../../src/errors.ts';
import { readFlavorName } from '../../src/pod/folder.ts';
import { findPod, type PodView } from '../../src/pod/lifecycle.ts';
import { reportPod } from '../../src/pod/report.ts';
import { requireRoot } from '../../src/sys/privilege.ts';
import { ask } from '../../stage1-flavors/nspawn/control.ts';
import { parseDetachKeys } from '../attach/detach-keys.ts';
import { ATTACH_FOLDER, endpointsJson, endpointsOf, select } from '../attach/endpoints.ts';
import { attach } from '../attach/session.ts';
import { printJson } from '../output.ts';

/** Of an app in init's answer to `status`. */
const WORDS_OF_APP = 6;

export interface AttachArgs {
  readonly pod: string;
  readonly app: string | undefined;
  readonly mode: string;
  readonly detachKeys: string;
}

export async function run(context: Context, args: AttachArgs): Promise<number> {
  requireRoot(context.command);
  const detachKeys = parseDetachKeys(args.detachKeys);
  const pod = findPod(context.dir, args.pod);
  refuse(pod);
  const app = oneApp(context, pod, args.app);
  const folder = join(pod.dir, ATTACH_FOLDER);
  const endpoints = endpointsOf(folder, app);
  if (args.mode === 'list') {
    printJson(endpointsJson(app, endpoints), 'json');
    return 0;
  }
  const selection = select(args.mode, app, endpoints);
  const before = await stateOf(pod, app);
  if (before?.state === 'exited') {
    throw new TspodError('state', `attach: app "${app}" has ended`, {
      hint: '"logs" prints what it wrote',
    });
  }
  const end = await attach({ podDir: pod.dir, folder, app, selection, detachKeys });
  if (end === 'detached') {
    // The app's prompt is still on this line.
    process.stderr.write('\n');
    warn(context, `attach: detached, app "${app}" goes on`);
    return 0;
  }
  const after = await stateOf(pod, app);
  const hasOutput = selection.stdout || selection.stderr || selection.ttyIn || selection.ttyOut;
  if (hasOutput && after?.state === 'running' && after.pid === before?.pid) {
    throw new TspodError('limit', `attach: app "${app}" goes on without us`, {
      hint: 'this side read too slowly, or over 16 were attached; what was missed is in the log',
    });
  }
  return 0;
}

function refuse(pod: PodView): void {
  if (pod.state !== 'running') {
    throw new TspodError(
      'state',
      `attach: pod ${JSON.stringify(pod.uuid)} isn't currently running`,
      {
        hint: `it is ${pod.state}${pod.state.startsWith('exited') ? '; "logs" prints what its apps wrote' : ''}`,
      },
    );
  }
  const flavor = readFlavorName(pod.dir);
  if (flavor === 'nspawn' || flavor === 'kvm') return;
  throw new TspodError('unsupported', `attach: pod ${pod.uuid} is of flavor ${flavor}`, {
    hint:
      flavor === 'fly'
        ? 'fly leaves the app the standard streams of its caller'
        : 'only pods of flavors nspawn and kvm can be attached to',
  });
}

function oneApp(context: Context, pod: PodView, asked: string | undefined): string {
  const names = reportPod(pod).apps.map(({ name }) => name);
  const found = asked === undefined ? names[0] : names.find(name => name === asked);
  if (asked !== undefined && found === undefined) {
    throw new TspodError('not-found', `pod ${pod.uuid}: it has no app ${JSON.stringify(asked)}`, {
      hint: `its apps are ${names.join(', ')}`,
    });
  }
  if (found === undefined) throw new TspodError('pod', `pod ${pod.uuid}: it has no app`);
  if (asked !== undefined || names.length === 1) return found;
  throw new TspodError('usage', `attach: pod ${pod.uuid} has several apps: ${names.join(', ')}`, {
    hint: `specify app using "${context.program} attach --app= ..."`,
  });
}

interface AppState {
  /** `created`, `running`, `stopping`, `waiting` (for its restart), `exited` */
  readonly state: string;
  /** Of its process inside the pod. */
  readonly pid: string;
}

/** What init says of the app; undefined when the pod has ended. */
async function stateOf(pod: PodView, app: string): Promise<AppState | undefined> {
  let words: readonly string[];
  try {
    words = await ask(pod.dir, ['status']);
  } catch (error) {
    if (error instanceof TspodError && error.code === 'state') return undefined;
    throw error;
  }
  for (let at = 0; at + WORDS_OF_APP <= words.length; at += WORDS_OF_APP)
    if (words[at] === app) return { state: words[at + 1] ?? '', pid: words[at + 2] ?? '' };
  return undefined;
}
