/**
 * A stage1 that came as an image: programs that start, enter, stop and clean up a pod, by the interface of rkt's
 * "Stage1 ACI implementor's guide" (rkt-1.30, Documentation/devel). The image's manifest names them in annotations.
 */
import { TspodError } from '../errors.ts';
import type { NameValue } from '../image/appc.ts';

const PREFIX = 'coreos.com/rkt/stage1/';
/** The newest version of the interface that is known here. */
export const NEWEST_INTERFACE = 6;
const ENTRY_POINTS = [
  'run',
  'enter',
  'gc',
  'stop',
  'app/add',
  'app/rm',
  'app/start',
  'app/stop',
] as const;
export type EntryPoint = (typeof ENTRY_POINTS)[number];

/** As a pod keeps it. */
export interface Stage1Image {
  /** For messages. */
  readonly name: string;
  /** The store's id of the image. */
  readonly id: string;
  readonly interfaceVersion: number;
  /** Paths in the image, absolute; `run` is always there. */
  readonly entryPoints: Readonly<Partial<Record<EntryPoint, string>>>;
  /** The folder that `--local-config` names. */
  readonly localConfig: string;
}

/**
 * @param name for messages
 * @throws TspodError 'unsupported' when it is no stage1, or one of an interface that is not known
 */
export function readStage1Annotations(
  name: string,
  annotations: readonly NameValue[],
): Pick<Stage1Image, 'interfaceVersion' | 'entryPoints'> {
  const annotated = (key: string) =>
    annotations.find(annotation => annotation.name === PREFIX + key)?.value;
  const entryPoints: Partial<Record<EntryPoint, string>> = {};
  for (const key of ENTRY_POINTS) {
    const path = annotated(key);
    if (path === undefined) continue;
    if (!isEntryPath(path)) {
      throw new TspodError(
        'unsupported',
        `stage1 ${name}: its annotation ${PREFIX}${key} is no absolute path within it`,
      );
    }
    entryPoints[key] = path;
  }
  if (entryPoints.run === undefined) {
    throw new TspodError('unsupported', `image ${name} is no stage1: it has no ${PREFIX}run`, {
      hint: 'give a stage1 image, or --stage1-name=nspawn',
    });
  }
  const text = annotated('interface-version') ?? '1';
  const interfaceVersion = /^[1-9]\d{0,3}$/.test(text) ? Number(text) : Number.NaN;
  if (!(interfaceVersion <= NEWEST_INTERFACE)) {
    throw new TspodError(
      'unsupported',
      `stage1 ${name}: its interface version is ${JSON.stringify(text.slice(0, 40))}, not 1 to ${NEWEST_INTERFACE}`,
    );
  }
  return { interfaceVersion, entryPoints };
}

/** Whether the manifest of an image says that it is a stage1. */
export function isStage1(annotations: readonly NameValue[]): boolean {
  return annotations.some(({ name }) => name === `${PREFIX}run`);
}

function isEntryPath(path: unknown): path is string {
  return (
    typeof path === 'string' &&
    /^\/[^\0]{1,4000}$/.test(path) &&
    !path.split('/').some(part => part === '..' || part === '.')
  );
}

/** Of a pod's runtime-config. */
export function isStage1Image(value: unknown): value is Stage1Image {
  if (typeof value !== 'object' || value === null) return false;
  const { name, id, interfaceVersion, entryPoints, localConfig } = value as Partial<
    Record<keyof Stage1Image, unknown>
  >;
  return (
    typeof name === 'string' &&
    typeof id === 'string' &&
    typeof localConfig === 'string' &&
    Number.isInteger(interfaceVersion) &&
    typeof entryPoints === 'object' &&
    entryPoints !== null &&
    'run' in entryPoints &&
    Object.values(entryPoints).every(isEntryPath)
  );
}
