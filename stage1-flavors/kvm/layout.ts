/**
 * How layers and volumes come into the machine. What the host serves lies, mounted read-only where it has to be, in one
 * folder of the pod's mount namespace, which one file server exports: nothing else of the host can be reached through it.
 */
import { dirname, join } from 'node:path';
import type { Step } from '../../src/pod/launch-plan.ts';
import type { Pod } from '../../src/pod/pod.ts';
import { DISK_FILE } from '../../src/store/disk-file.ts';
import { holdVolume, imageOf, placeVolume } from '../volume-steps.ts';
import { SHARE } from './places.ts';

/** A machine has 24 devices, some of which are others. What is beyond is served as folders. */
const MOST_DISKS = 14;
/** By what the machine's kernel mounts: blocks of 512 bytes, as the store has them, or of 4096. */
const DISKS_OF_A_LAYER = { small: 2, large: 1 } as const;

export interface Layout {
  /** Read-only; the paths of files are relative to the pod's folder. */
  readonly disks: readonly { readonly serial: string; readonly file: string }[];
  /** Layers on disks: an image, and where it is only an index the data that it points to. */
  readonly mounts: readonly {
    readonly serial: string;
    readonly data?: string;
    readonly folder: string;
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
  const disks: { serial: string; file: string }[] = [];
  const mounts: { serial: string; data?: string; folder: string }[] = [];
  const shares: { hold: readonly Step[]; place: readonly Step[] }[] = [];
  const layers = new Map<string, readonly string[]>();
  const copies = new Map<string, string>();
  const volumes = new Map<string, string>();
  const places = new Map<string, string>();
  const blocks = pod.options.vm?.smallBlocks === true ? 'small' : 'large';
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
        const number = places.size;
        let place = `${SHARE}/layers/${number}`;
        if (layer.form === 'directory') place = share(layer.path, `layers/${number}`, 'ro');
        else if (disks.length + DISKS_OF_A_LAYER[blocks] <= MOST_DISKS) {
          place = `layers/${number}`;
          const serial = `layer${number}`;
          if (blocks === 'small') {
            const data = `data${number}`;
            disks.push({ serial, file: layer.meta }, { serial: data, file: layer.tar });
            mounts.push({ serial, data, folder: place });
          } else {
            disks.push({ serial, file: join(dirname(dirname(layer.tar)), DISK_FILE) });
            mounts.push({ serial, folder: place });
          }
        } else
          shares.push({ hold: [], place: [['erofs', place, layer.meta, layer.tar, layer.by]] });
        places.set(key, place);
        return place;
      }),
    );
  }
  for (const [index, { volume, app }] of pod.apps
    .flatMap(app => app.mounts.map(({ volume }) => ({ volume, app })))
    .entries()) {
    if (volume.kind === 'tmpfs' || volumes.has(volume.name)) continue;
    if (volume.kind === 'image') {
      const name = `volumes/${volumes.size}`;
      const image = imageOf(pod, app, volume, index);
      shares.push({ hold: [], place: placeVolume(volume, `/${name}`, '0', SHARE, image) });
      volumes.set(volume.name, `${SHARE}/${name}`);
      continue;
    }
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
  return { disks, mounts, shares, layers, copies, volumes };
}
