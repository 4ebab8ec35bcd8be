/**
 * A pod's life, read from where its folder lies and whether its lock is held: never from a status word,
 * so a crash can't make it lie (rkt-1.30, Documentation/devel/pod-lifecycle). The folders below
 * `<data folder>/pods`, and what they mean with the lock held / free:
 *
 *   embryo            made, nothing in it yet
 *   prepare           preparing / aborted prepare
 *   prepared          ready to start
 *   run               running / exited
 *   exited-garbage    exited deleting / exited garbage
 *   garbage           deleting / garbage
 *
 * Every change is one rename(2) by the holder of the exclusive lock; while a pod is made, before its lock is
 * held, its maker shares the lock `pods/embryo.lock`. The lock is a flock(2) on the file
 * `lock` in the pod's folder, not on the folder as in rkt; and a pod in `run` with a free lock is still
 * running while the process in its `pid` file lives: docs/decisions.md says why.
 */
import {
  chmodSync,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { errnoOf, systemError, TspodError } from '../errors.ts';
import type { PodImageUse } from '../store/types.ts';
import { faultPoint } from '../sys/fault.ts';
import { native } from '../sys/native.ts';
import {
  bootId,
  childrenOf,
  isAlive,
  processStat,
  type RecordedProcess,
  readProcessFile,
} from '../sys/process.ts';
import { parseImageUse } from './folder.ts';

export type PodState =
  | 'embryo'
  | 'preparing'
  | 'aborted prepare'
  | 'prepared'
  | 'running'
  | 'exited'
  | 'exited garbage'
  | 'exited deleting'
  | 'garbage'
  | 'deleting';

/** In the order in which a pod goes through them. */
const FOLDERS = ['embryo', 'prepare', 'prepared', 'run', 'exited-garbage', 'garbage'] as const;
type Folder = (typeof FOLDERS)[number];

/** Where rkt looks for a UUID that somebody typed. */
const ADDRESSABLE: readonly Folder[] = ['prepare', 'prepared', 'run', 'exited-garbage'];

const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
/** A reader's probe holds a shared lock for an instant, which an exclusive attempt must outlast. */
const LOCK_ATTEMPTS = 40;
const LOCK_PAUSE_MS = 5;

/** A pod as it was at the moment of looking. */
export interface PodView {
  readonly uuid: string;
  readonly state: PodState;
  /** Absolute; a rename may have moved it since. */
  readonly dir: string;
  /** `--pod-name` */
  readonly name: string | undefined;
}

/** Read access to one pod. `listPods` gives these; nothing of them throws for a half-written pod. */
function view(dataDir: string, folder: Folder, uuid: string): PodView | undefined {
  const dir = join(dataDir, 'pods', folder, uuid);
  const held = probe(dir);
  if (held === undefined) return undefined;
  return { uuid, state: stateOf(folder, held, dir), dir, name: readName(dir) };
}

function stateOf(folder: Folder, held: boolean, dir: string): PodState {
  switch (folder) {
    case 'embryo':
      return 'embryo';
    case 'prepare':
      return held ? 'preparing' : 'aborted prepare';
    case 'prepared':
      return 'prepared';
    case 'run':
      return held || launchedProcess(dir) !== undefined ? 'running' : 'exited';
    case 'exited-garbage':
      return held ? 'exited deleting' : 'exited garbage';
    case 'garbage':
      return held ? 'deleting' : 'garbage';
  }
}

/** Whether the lock is held; undefined when the folder is not there (any more). */
function probe(dir: string): boolean | undefined {
  const fd = openLock(dir);
  if (fd === undefined) return isFolder(dir) ? false : undefined;
  try {
    return !native().flock(fd, 'shared', false);
  } finally {
    closeSync(fd);
  }
}

function isFolder(path: string): boolean {
  try {
    return lstatSync(path).isDirectory();
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'ENOENT' || errno === 'ENOTDIR') return false;
    throw systemError(`can't look at ${path}`, error);
  }
}

function openLock(dir: string): number | undefined {
  try {
    return openSync(
      join(dir, 'lock'),
      constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK,
    );
  } catch (error) {
    const errno = errnoOf(error);
    // A link is none of ours: nobody holds it.
    if (errno === 'ENOENT' || errno === 'ENOTDIR' || errno === 'ELOOP') return undefined;
    throw systemError(`can't open the lock of the pod in ${dir}`, error);
  }
}

/**
 * The live process of a running pod: the launcher's record, or what a stage1 image has written down, which is
 * a bare number and so counts only while the pod runs. Undefined before its start and after its end.
 */
export function podProcess(dir: string): RecordedProcess | undefined {
  return launchedProcess(dir) ?? foreignProcess(dir);
}

/** `pid`: the process itself; `ppid`: the parent of one child, which it is. */
function foreignProcess(dir: string): RecordedProcess | undefined {
  const own = bareNumber(join(dir, 'pid'));
  const parent = own === undefined ? bareNumber(join(dir, 'ppid')) : undefined;
  const [pid, ...others] = parent === undefined ? [own] : childrenOf(parent);
  if (pid === undefined || others.length > 0) return undefined;
  const stat = processStat(pid);
  if (stat === undefined || 'ZX'.includes(stat.state)) return undefined;
  return { pid, startTime: stat.startTime, bootId: bootId() };
}

function bareNumber(path: string): number | undefined {
  const text = readOrNone(path)?.subarray(0, 64).toString();
  const match = /^([1-9]\d{0,9})\s*$/.exec(text ?? '');
  return match === null ? undefined : Number(match[1]);
}

/** From the launcher's record: number, start time and boot. */
function launchedProcess(dir: string): RecordedProcess | undefined {
  const recorded = readProcessFile(join(dir, 'pid'));
  return recorded !== undefined && isAlive(recorded) ? recorded : undefined;
}

/** Whether a live process makes or runs the pod in `dir`. */
export function isLocked(dir: string): boolean {
  return probe(dir) === true;
}

/** Every pod, sorted by UUID. What is no folder, or has no UUID for a name, is passed over. */
export function listPods(dataDir: string): readonly PodView[] {
  const pods = new Map<string, PodView>();
  // In forward order: a pod that moves while we look is met again further on, and that is its state.
  for (const folder of FOLDERS) {
    for (const uuid of uuids(dataDir, folder)) {
      const pod = view(dataDir, folder, uuid);
      if (pod !== undefined) pods.set(uuid, pod);
    }
  }
  return [...pods.values()].sort((a, b) => (a.uuid < b.uuid ? -1 : 1));
}

function uuids(dataDir: string, folder: Folder): readonly string[] {
  try {
    return readdirSync(join(dataDir, 'pods', folder), { withFileTypes: true })
      .filter(entry => entry.isDirectory() && UUID.test(entry.name))
      .map(entry => entry.name);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'ENOENT' || errno === 'ENOTDIR') return [];
    throw systemError(
      `can't list the pods in ${dataDir}`,
      error,
      'run it as the owner of the data folder',
    );
  }
}

/**
 * The pod that a user means by a UUID, the beginning of one, or a name given by `--pod-name`.
 * @throws TspodError 'usage' (nothing given), 'not-found', 'ambiguous'; rkt's messages
 */
export function findPod(dataDir: string, text: string): PodView {
  const wanted = text.trim();
  if (wanted === '')
    throw new TspodError('usage', 'UUID cannot be empty', {
      hint: 'give a UUID, the beginning of one, or a pod name',
    });
  const byPrefix = new Map<string, PodView>();
  let abandoned: PodView | undefined;
  for (const folder of ADDRESSABLE) {
    for (const uuid of uuids(dataDir, folder)) {
      const byUuid = uuid.startsWith(wanted);
      if (!byUuid && readName(join(dataDir, 'pods', folder, uuid)) !== wanted) continue;
      const pod = view(dataDir, folder, uuid);
      if (pod === undefined) continue;
      // A whole UUID and a name are exact; only one pod has them, besides those that lost the name.
      if (uuid === wanted) return latest(dataDir, pod);
      if (pod.name !== wanted) byPrefix.set(uuid, pod);
      else if (keepsName(pod)) return latest(dataDir, pod);
      else abandoned = pod;
    }
  }
  if (abandoned !== undefined) return latest(dataDir, abandoned);
  const [only, ...others] = byPrefix.values();
  if (only === undefined) {
    throw new TspodError('not-found', `no matches found for ${JSON.stringify(wanted)}`, {
      hint: '"list" shows what is there',
    });
  }
  if (others.length > 0) {
    throw new TspodError('ambiguous', `ambiguous uuid, ${others.length + 1} matches`, {
      hint: 'give more of the UUID',
    });
  }
  return only;
}

/** A pod whose preparation failed, or that is being removed, does not keep its name from others. */
export function keepsName(pod: PodView): boolean {
  switch (pod.state) {
    case 'embryo':
      return isLocked(pod.dir);
    case 'aborted prepare':
    case 'exited deleting':
    case 'garbage':
    case 'deleting':
      return false;
    default:
      return true;
  }
}

/** The pod again, if it has moved on since. */
function latest(dataDir: string, pod: PodView): PodView {
  return viewPod(dataDir, pod.uuid) ?? pod;
}

/** One pod by its whole UUID, wherever its folder lies; undefined when there is none. */
export function viewPod(dataDir: string, uuid: string): PodView | undefined {
  // Twice: a rename between two looks hides a pod only from the look that it overtook.
  for (let attempt = 0; attempt < 2; attempt++) {
    for (const folder of FOLDERS) {
      const pod = view(dataDir, folder, uuid);
      if (pod !== undefined) return pod;
    }
  }
  return undefined;
}

/** A pod whose exclusive lock this process holds. */
export class PodHandle {
  readonly uuid: string;
  /** Inherited by what this process executes; TSPOD_LOCK_FD names it. */
  readonly lockFd: number;
  readonly #pods: string;
  #folder: Folder;

  constructor(pods: string, folder: Folder, uuid: string, lockFd: number) {
    this.#pods = pods;
    this.#folder = folder;
    this.uuid = uuid;
    this.lockFd = lockFd;
  }

  get folder(): Folder {
    return this.#folder;
  }

  /** Absolute. */
  get dir(): string {
    return join(this.#pods, this.#folder, this.uuid);
  }

  /**
   * Moves the pod on. A pod that is going to run in this boot only needs no fsync: after a power failure
   * it is not running, whichever folder it lies in.
   */
  moveTo(folder: Folder): void {
    faultPoint(`pod-to-${folder}`);
    const target = join(this.#pods, folder);
    try {
      makeFolder(target);
      renameSync(this.dir, join(target, this.uuid));
    } catch (error) {
      throw systemError(`pod ${this.uuid}: can't move it to ${target}`, error);
    }
    this.#folder = folder;
    faultPoint(`pod-in-${folder}`);
  }

  /** As `moveTo('prepared')`, for good: the pod's files and its place survive a power failure. */
  moveToPrepared(): void {
    try {
      const fd = openSync(this.dir, constants.O_RDONLY | constants.O_DIRECTORY);
      try {
        native().syncfs(fd);
      } finally {
        closeSync(fd);
      }
      this.moveTo('prepared');
      native().fsync(join(this.#pods, 'prepared'));
      native().fsync(join(this.#pods, 'prepare'));
    } catch (error) {
      throw systemError(`pod ${this.uuid}: can't keep it`, error);
    }
  }

  close(): void {
    closeSync(this.lockFd);
  }
}

/**
 * A new pod in `embryo`, locked.
 * @param uuid lower case; free
 */
export function createPod(dataDir: string, uuid: string): PodHandle {
  const pods = join(dataDir, 'pods');
  const dir = join(pods, 'embryo', uuid);
  try {
    makeFolder(join(pods, 'embryo'));
    const fd = whileMaking(pods, 'shared', () => {
      mkdirSync(dir, { mode: 0o750 });
      faultPoint('pod-made');
      const lock = openSync(
        join(dir, 'lock'),
        constants.O_RDONLY | constants.O_CREAT | constants.O_EXCL,
        0o600,
      );
      native().flock(lock, 'exclusive', true);
      return lock;
    });
    writeFileSync(join(dir, 'pod-created'), '');
    faultPoint('pod-created');
    return new PodHandle(pods, 'embryo', uuid, fd);
  } catch (error) {
    throw systemError(`can't make a pod in ${pods}`, error);
  }
}

/**
 * Calls `action` at an instant at which nobody is between making a pod's folder and locking it: an
 * `embryo` whose lock is free then was left by somebody who died.
 */
export function whileNobodyMakesPods(dataDir: string, action: () => void): void {
  const pods = join(dataDir, 'pods');
  if (lstatSync(pods, { throwIfNoEntry: false }) === undefined) return;
  whileMaking(pods, 'exclusive', action);
}

function whileMaking<T>(pods: string, mode: 'shared' | 'exclusive', action: () => T): T {
  const path = join(pods, 'embryo.lock');
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
  } catch (error) {
    throw systemError(`can't open ${path}`, error);
  }
  try {
    native().flock(fd, mode, true);
    return action();
  } finally {
    closeSync(fd);
  }
}

/**
 * Takes a pod's exclusive lock, wherever its folder lies. Undefined when somebody holds it, when its
 * process lives without the lock, or when it is gone.
 */
export function lockPod(dataDir: string, uuid: string): PodHandle | undefined {
  const pods = join(dataDir, 'pods');
  for (let attempt = 0; attempt < LOCK_ATTEMPTS; attempt++) {
    const pod = viewPod(dataDir, uuid);
    if (pod === undefined) return undefined;
    const handle = tryLock(pods, pod);
    if (handle === 'held') {
      pause(LOCK_PAUSE_MS);
      continue;
    }
    if (handle !== undefined) {
      if (handle.folder !== 'run' || launchedProcess(handle.dir) === undefined) return handle;
      handle.close();
      return undefined;
    }
  }
  return undefined;
}

/** Undefined when the pod has moved: look again. */
function tryLock(pods: string, pod: PodView): PodHandle | 'held' | undefined {
  let fd = openLock(pod.dir);
  if (fd === undefined) {
    // Killed between mkdir and the making of the lock, or damaged: nobody can hold what is not there.
    if (!isFolder(pod.dir)) return undefined;
    const lock = join(pod.dir, 'lock');
    try {
      // Not tspod's, and nobody's lock: launcher and stage0 follow no link.
      if (lstatSync(lock, { throwIfNoEntry: false })?.isSymbolicLink()) unlinkSync(lock);
      fd = openSync(lock, constants.O_RDONLY | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined;
      throw systemError(`pod ${pod.uuid}: can't make its lock`, error);
    }
  }
  if (!native().flock(fd, 'exclusive', false)) {
    closeSync(fd);
    return 'held';
  }
  // Locked; but is it still the lock of the pod in that folder?
  const there = lstatSync(join(pod.dir, 'lock'), { throwIfNoEntry: false });
  const folder = FOLDERS.find(name => pod.dir === join(pods, name, pod.uuid));
  if (there?.ino === fstatSync(fd).ino && folder !== undefined) {
    return new PodHandle(pods, folder, pod.uuid, fd);
  }
  closeSync(fd);
  return undefined;
}

/**
 * What every pod uses of the store, for `image gc`.
 * @throws TspodError when a pod's record can't be read: gc must not guess
 */
export function* podImageUses(dataDir: string): Iterable<PodImageUse> {
  for (const folder of FOLDERS) {
    for (const uuid of uuids(dataDir, folder)) yield* imageUses(dataDir, folder, uuid);
  }
}

function* imageUses(dataDir: string, folder: Folder, uuid: string): Iterable<PodImageUse> {
  // A pod that moves while we read is read again in the folder after this one.
  const appsinfo = join(dataDir, 'pods', folder, uuid, 'appsinfo');
  for (const app of readdirOrNone(appsinfo)) {
    const bytes = readOrNone(join(appsinfo, app, 'image.json'));
    if (bytes !== undefined) yield parseImageUse(bytes, uuid);
  }
}

function readdirOrNone(path: string): readonly string[] {
  try {
    return readdirSync(path);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'ENOENT' || errno === 'ENOTDIR') return [];
    throw systemError(`can't read ${path}`, error);
  }
}

function readOrNone(path: string): Buffer | undefined {
  try {
    return readFileSync(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw systemError(`can't read ${path}`, error);
  }
}

function readName(dir: string): string | undefined {
  try {
    return readFileSync(join(dir, 'name'), 'utf8');
  } catch {
    return undefined;
  }
}

/** Readable by root only: what lies below has setuid files of images (CVE-2021-41091). */
function makeFolder(path: string): void {
  if (mkdirSync(path, { recursive: true, mode: 0o700 }) !== undefined) chmodSync(path, 0o700);
}

function pause(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

export type { Folder as PodFolder };
