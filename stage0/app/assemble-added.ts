/** From the words of `app add` to the pod with one more app, checked as if it had been there from the start. */
import { join } from 'node:path';
import type { Context } from '../../src/context.ts';
import { TspodError } from '../../src/errors.ts';
import type { Mount, Volume } from '../../src/image/appc.ts';
import type { Pod, PodApp } from '../../src/pod/pod.ts';
import { parseMount, parseVolume } from '../../src/pod/volumes.ts';
import type { ImageRecord, Store } from '../../src/store/types.ts';
import type { ImageArgs } from '../args/types.ts';
import { joinParts } from '../assemble.ts';
import { appFromFlags } from '../assemble-app.ts';
import { relativeTo, stored, withVisibleLayers } from '../prepare.ts';

const NO_ENVIRONMENT = { files: [], set: [], inherited: undefined, term: undefined };

export interface AddedInput {
  readonly context: Context;
  readonly store: Store;
  readonly pod: Pod;
  readonly image: ImageArgs;
  readonly record: ImageRecord;
  readonly name: string;
  /** `--mnt-volume`, as typed. */
  readonly mntVolumes: readonly string[];
  readonly overlay: boolean;
}

/** @throws TspodError that names the flag or field */
export function withAddedApp(input: AddedInput): { readonly pod: Pod; readonly app: PodApp } {
  const { context, store, pod } = input;
  const added = input.mntVolumes.map(parseMntVolume);
  const runtimeApp = appFromFlags(
    stored(store, input.record, input.name),
    input.image,
    NO_ENVIRONMENT,
    added.map(({ mount }) => mount),
  );
  if (pod.apps.some(({ name }) => name === runtimeApp.name)) {
    throw new TspodError('exists', `pod ${pod.uuid}: it has an app "${runtimeApp.name}"`, {
      hint: 'give this one a name of its own with --name',
    });
  }
  const late = added.find(({ volume: { kind } }) => kind === 'image' || kind === 'device');
  if (late !== undefined) {
    throw new TspodError(
      'unsupported',
      `--mnt-volume: kind=${late.volume.kind} can't come into a pod that runs`,
    );
  }
  const volumes = [...pod.manifest.volumes, ...added.map(({ volume }) => volume)];
  const twice = volumes.find(({ name }, at) => volumes.findIndex(v => v.name === name) !== at);
  if (twice !== undefined)
    throw new TspodError('exists', `--mnt-volume: the pod has a volume "${twice.name}"`);
  const joined = joinParts(
    {
      context,
      overlay: input.overlay,
      layerTree: diffId =>
        relativeTo(join(context.dir, 'pods/run', pod.uuid), store.layers.tree(diffId)),
    },
    {
      manifest: { ...pod.manifest, apps: [runtimeApp], volumes },
      images: new Map([[runtimeApp.name, stored(store, input.record, input.name)]]),
    },
  );
  const [app] = withVisibleLayers({ ...pod, ...joined }, store).apps;
  if (app === undefined) throw new TspodError('pod', `app "${runtimeApp.name}": nothing to add`);
  return {
    app,
    pod: {
      ...pod,
      manifest: { ...joined.manifest, apps: [...pod.manifest.apps, ...joined.manifest.apps] },
      apps: [...pod.apps, app],
    },
  };
}

/** rkt's `name=NAME,kind=…,source=…,target=PATH`: a volume and its mount in one. */
function parseMntVolume(text: string): { readonly volume: Volume; readonly mount: Mount } {
  const fields = text.split(',');
  const field = (key: string) =>
    fields.find(text => text.startsWith(`${key}=`))?.slice(key.length + 1);
  const name = field('name');
  const target = field('target');
  if (name === undefined || target === undefined) {
    throw new TspodError('usage', `--mnt-volume=${text.slice(0, 300)}: name or target is missing`, {
      hint: 'give name=NAME,kind=host,source=PATH,target=PATH',
    });
  }
  const rest = fields.filter(field => !/^(?:name|target)=/.test(field));
  return {
    volume: parseVolume([name, ...rest].join(',')),
    mount: parseMount(`volume=${name},target=${target}`),
  };
}

/** The pod without the app, and without the volumes that only it had. */
export function withoutApp(
  pod: Pod,
  name: string,
): { readonly pod: Pod; readonly volumes: readonly Volume[] } {
  const apps = pod.manifest.apps.filter(app => app.name !== name);
  const rest = pod.apps.filter(app => app.name !== name);
  const used = new Set(rest.flatMap(app => app.mounts.map(({ volume }) => volume.name)));
  const own = new Set(
    pod.apps.flatMap(app => (app.name === name ? app.mounts.map(m => m.volume.name) : [])),
  );
  const goes = (volume: Volume) => own.has(volume.name) && !used.has(volume.name);
  return {
    pod: {
      ...pod,
      manifest: {
        ...pod.manifest,
        apps,
        volumes: pod.manifest.volumes.filter(volume => !goes(volume)),
      },
      apps: rest,
    },
    volumes: pod.manifest.volumes.filter(goes),
  };
}
