/**
 * The flavors by name: short (`fly`) and as rkt spells them, with or without a version, behind any
 * prefix (`coreos.com/rkt/stage1-fly:1.30.0`, `example.com/stage1-fly`).
 */
import { TspodError } from '../src/errors.ts';
import type { Flavor } from './flavor.ts';
import { fly } from './fly/fly.ts';
import { foreign } from './foreign/foreign.ts';
import { kvm } from './kvm/kvm.ts';
import { nspawn } from './nspawn/nspawn.ts';

/** rkt's names of its stage1 images, after the prefix. `coreos`, `src` and `host` are kinds of nspawn. */
const BY_STAGE1: Readonly<Record<string, Flavor['name']>> = {
  fly: 'fly',
  nspawn: 'nspawn',
  coreos: 'nspawn',
  src: 'nspawn',
  host: 'nspawn',
  kvm: 'kvm',
  'kvm-lkvm': 'kvm',
  'kvm-qemu': 'kvm',
};

/** Those of this version. */
export const FLAVORS: readonly Flavor[] = [fly, nspawn, kvm, foreign];

/** Whether it names a flavor, of this version or not; every other name is a stage1 image's. */
export function isBuiltIn(name: string): boolean {
  return kindOf(name) !== undefined;
}

/** The flavor of a pod, by the name that its folder has. @throws TspodError as `flavorByName` */
export function flavorOfPod(name: string): Flavor {
  return name === foreign.name ? foreign : flavorByName(name);
}

function kindOf(name: string): Flavor['name'] | undefined {
  const bare = name.replace(/:[^:/]*$/, '').replace(/^.*\//, '');
  const kind = bare.replace(/^stage1-/, '');
  return Object.hasOwn(BY_STAGE1, kind) ? BY_STAGE1[kind] : undefined;
}

/**
 * @throws TspodError 'not-found' for a name of no flavor, 'unsupported' for one that this version does not
 * have
 */
export function flavorByName(name: string): Flavor {
  const found = kindOf(name);
  const flavor = FLAVORS.find(one => one.name === found);
  if (flavor !== undefined) return flavor;
  if (found === undefined) {
    throw new TspodError(
      'not-found',
      `stage1 ${JSON.stringify(name.slice(0, 200))}: there is no such flavor`,
      {
        hint: 'use --stage1-name=fly, nspawn or kvm',
      },
    );
  }
  throw new TspodError(
    'unsupported',
    `stage1 ${JSON.stringify(name.slice(0, 200))}: flavor ${found} is not in this version`,
    {
      hint: 'use --stage1-name=fly or --stage1-name=nspawn',
    },
  );
}
