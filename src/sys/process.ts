/**
 * Processes by number, start time and boot, as the launcher records them in a pod's `pid` file
 * (`PID STARTTIME BOOT-ID\n`). A number alone may belong to another process by now.
 */
import { closeSync, readFileSync } from 'node:fs';
import { errnoOf, systemError, TspodError } from '../errors.ts';
import { native } from './native.ts';

export interface RecordedProcess {
  readonly pid: number;
  /** clock ticks after the boot: field 22 of /proc/PID/stat (proc(5)) */
  readonly startTime: string;
  readonly bootId: string;
}

/** Undefined when there is no such file or it was never written whole. */
export function readProcessFile(path: string): RecordedProcess | undefined {
  let text: string;
  try {
    text = readFileSync(path, 'latin1');
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'ENOENT' || errno === 'ENOTDIR' || errno === 'EISDIR') return undefined;
    throw systemError(`can't read ${path}`, error);
  }
  const match = /^([1-9]\d{0,9}) (\d{1,20}) ([0-9a-f-]{36})\n$/.exec(text);
  if (match === null) return undefined;
  return { pid: Number(match[1]), startTime: match[2] ?? '', bootId: match[3] ?? '' };
}

/** Whether that very process lives. A zombie has ended: only its parent has not looked yet. */
export function isAlive(process: RecordedProcess): boolean {
  if (process.bootId !== bootId()) return false;
  const stat = processStat(process.pid);
  return stat !== undefined && stat.startTime === process.startTime && !'ZX'.includes(stat.state);
}

/**
 * Sends a signal to that very process: the pidfd is opened first, then the start time is compared, so the
 * number can't be reused in between.
 * @returns false when it has ended
 */
export function signalProcess(process: RecordedProcess, signal: number): boolean {
  let fd: number;
  try {
    fd = native().pidfdOpen(process.pid);
  } catch (error) {
    if (errnoOf(error) === 'ESRCH') return false;
    throw systemError(`can't open process ${process.pid}`, error);
  }
  try {
    if (!isAlive(process)) return false;
    native().pidfdSend(fd, signal);
    return true;
  } catch (error) {
    if (errnoOf(error) === 'ESRCH') return false;
    throw systemError(`can't signal process ${process.pid}`, error);
  } finally {
    closeSync(fd);
  }
}

let cachedBootId: string | undefined;

export function bootId(): string {
  cachedBootId ??= readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
  return cachedBootId;
}

/** State letter and start time; undefined when there is no such process. */
export function processStat(
  pid: number,
): { readonly state: string; readonly startTime: string } | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ESRCH') return undefined;
    throw systemError(`can't read /proc/${pid}/stat`, error);
  }
  // The second field is the command's name in parentheses and may hold anything, parentheses included.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const [state, startTime] = [fields[0], fields[19]];
  if (state === undefined || startTime === undefined) {
    throw new TspodError('system', `/proc/${pid}/stat: it has not the fields of proc(5)`);
  }
  return { state, startTime };
}

/** Of its main thread; none when it has ended. */
export function childrenOf(pid: number): readonly number[] {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1')
      .split(' ')
      .filter(word => word !== '')
      .map(Number);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ESRCH') return [];
    throw systemError(`can't read the children of process ${pid}`, error);
  }
}
