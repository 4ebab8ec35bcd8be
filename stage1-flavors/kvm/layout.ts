/**
 * How layers and volumes come into the machine. What the host serves lies, mounted read-only where it has to be, in one
 * folder of the pod's mount namespace, which one file server exports: nothing else of the host can be reached through it.
 */
import type { Step } from '../../src/pod/launch-plan.ts';
import type { Pod } from '../../src/pod/pod.ts';
import { holdVolume } from '../volume-steps.ts';
import { SHARE } from './places.ts';

export interface Layout {
  /** Disks with a layer each. */
  readonly disks: readonly {
    readonly serial: string;
    readonly folder: string;
    readonly file: string;
  }[];
  /** Paths below the served folder, with what puts them there. */
  readonly shares: readonly { readonly hold: readonly Step[]; readonly place: readonly Step[] }[];
  /** Lowest first, by app; paths in the machine. */
  readonly layers: ReadonlyMap<string, readonly string[]>;
  /** Apps whose root is a copy that the host serves. */
  readonly copies: ReadonlyMap<string, string>;
  /** By volume; paths in the machine. */
  readonly volumes: ReadonlyMap<string, string>;
}

export function planLayout(pod: Pod): Layout {
  const shares: { hold: readonly Step[]; place: readonly Step[] }[] = [];
  const layers = new Map<string, readonly string[]>();
  const copies = new Map<string, string>();
  const volumes = new Map<string, string>();
  const places = new Map<string, string>();
  let slot = 0;
  const share = (source: string, name: string, ...flags: readonly string[]): string => {
    const number = String(slot++);
    shares.push({
      hold: [['hold', number, source, 'single']],
      place: [['attach', number, SHARE, `/${name}`, ...flags, 'private']],
    });
    return `${SHARE}/${name}`;
  };
  for (const app of pod.apps) {
    if (app.rootfs.kind === 'copy') {
      copies.set(app.name, share(app.root, `roots/${app.name}`));
      continue;
    }
    layers.set(
      app.name,
      app.rootfs.layers.map(layer => {
        const key = layer.form === 'directory' ? layer.path : layer.tar;
        const known = places.get(key);
        if (known !== undefined) return known;
        const name = `layers/${places.size}`;
        let place = `${SHARE}/${name}`;
        if (layer.form === 'directory') place = share(layer.path, name, 'ro');
        else shares.push({ hold: [], place: [['erofs', place, layer.meta, layer.tar, layer.by]] });
        places.set(key, place);
        return place;
      }),
    );
  }
  for (const { volume } of pod.apps.flatMap(app => app.mounts)) {
    if (volume.kind === 'tmpfs' || volumes.has(volume.name)) continue;
    const number = String(slot++);
    const name = `volumes/${volumes.size}`;
    shares.push({
      hold: holdVolume(volume, number),
      place: [
        [
          'attach',
          number,
          SHARE,
          `/${name}`,
          ...(volume.readOnly === true ? ['ro'] : []),
          'private',
        ],
      ],
    });
    volumes.set(volume.name, `${SHARE}/${name}`);
  }
  return { disks: [], shares, layers, copies, volumes };
}
