/**
 * The lines of a pod in the host's journal, asked by journalctl(1), which knows where journals lie and how they are
 * read. init gives each line TSPOD_POD, TSPOD_APP, TSPOD_STREAM, and TSPOD_PARTIAL where it was split.
 */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { errnoOf, systemError, TspodError } from '../../src/errors.ts';
import { Joiner, type LogRecord } from './record.ts';

export interface JournalQuery {
  readonly uuid: string;
  readonly app: string | undefined;
  /** as of LogRecord.time, or the beginning of one */
  readonly since: string | undefined;
  readonly follow: boolean;
  /** Only for `follow`: how many of those that are there. */
  readonly tail: number | undefined;
  /** Ends the reading. */
  readonly ended: AbortSignal;
}

/** What is kept of journalctl's complaints. */
const MAX_COMPLAINT = 4096;

/** The words of journalctl. */
export function journalWords(query: JournalQuery): readonly string[] {
  const { uuid, app, since, follow, tail } = query;
  return [
    '--quiet',
    '--no-pager',
    '--all',
    '--output=json',
    `TSPOD_POD=${uuid}`,
    // Anybody may write to the journal what looks like a line of a pod. init is the host's root.
    '_UID=0',
    ...(app === undefined ? [] : [`TSPOD_APP=${app}`]),
    // To the second; what is before that is left out when it is read.
    ...(since === undefined ? [] : [`--since=@${Math.floor(Date.parse(toMillis(since)) / 1000)}`]),
    ...(follow ? ['--follow', `--lines=${tail ?? 'all'}`] : []),
  ];
}

/** `2026-01-02T03:04:05.123456789Z` or a beginning with at least milliseconds. */
function toMillis(time: string): string {
  return `${time.slice(0, '2026-01-02T03:04:05.123'.length)}Z`;
}

/** @throws TspodError 'unsupported' without journalctl, 'system' where it fails */
export async function* readJournal(query: JournalQuery): AsyncGenerator<LogRecord> {
  const child = spawn('journalctl', journalWords(query), { stdio: ['ignore', 'pipe', 'pipe'] });
  const stop = () => child.kill('SIGTERM');
  query.ended.addEventListener('abort', stop);
  let complaint = '';
  child.stderr.on('data', (chunk: Buffer) => {
    complaint = (complaint + chunk.toString()).slice(0, MAX_COMPLAINT);
  });
  const end = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  // Looked at below; until then nobody awaits it.
  end.catch(() => undefined);
  const joiners = new Map<string, Joiner>();
  try {
    for await (const line of createInterface({ input: child.stdout })) {
      const record = parseEntry(line);
      if (record === undefined) continue;
      const joiner = joiners.get(record.app) ?? new Joiner();
      joiners.set(record.app, joiner);
      const joined = joiner.add(record);
      if (joined !== undefined) yield joined;
    }
    const status = await end;
    if (status !== 0 && !query.ended.aborted) {
      throw new TspodError(
        'system',
        `journalctl failed: ${complaint.trim() || `it ended with ${status}`}`,
      );
    }
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') {
      throw new TspodError(
        'unsupported',
        "the pod's log is in the journal, and there is no journalctl",
        {
          hint: 'install systemd',
          cause: error,
        },
      );
    }
    throw systemError("can't read the journal", error);
  } finally {
    query.ended.removeEventListener('abort', stop);
    child.kill('SIGTERM');
  }
  for (const joiner of joiners.values()) yield* joiner.rest();
}

/**
 * One entry as journalctl prints it with --output=json: a field is text, an array of bytes where it is not
 * UTF-8, an array of those where it is there twice.
 * @returns undefined for what is no line of an app
 */
export function parseEntry(line: string): LogRecord | undefined {
  let entry: unknown;
  try {
    entry = JSON.parse(line);
  } catch {
    return undefined;
  }
  if (typeof entry !== 'object' || entry === null) return undefined;
  const field = (name: string): Buffer | undefined =>
    bytesOf(Object.getOwnPropertyDescriptor(entry, name)?.value);
  const app = field('TSPOD_APP')?.toString();
  const stream = field('TSPOD_STREAM')?.toString();
  const micros = field('__REALTIME_TIMESTAMP')?.toString() ?? '';
  const text = field('MESSAGE');
  if (app === undefined || text === undefined || !/^\d{1,16}$/.test(micros)) return undefined;
  return {
    time: timeOf(micros),
    app,
    stream: stream === 'stderr' ? 'stderr' : 'stdout',
    text,
    whole: field('TSPOD_PARTIAL')?.toString() !== 'true',
  };
}

function bytesOf(value: unknown): Buffer | undefined {
  if (typeof value === 'string') return Buffer.from(value);
  if (!Array.isArray(value)) return undefined;
  if (value.every(byte => typeof byte === 'number')) return Buffer.from(value);
  return bytesOf(value[0]);
}

/** Microseconds since the epoch as LogRecord's time. */
function timeOf(micros: string): string {
  const seconds = Number(micros.slice(0, -6) || '0');
  const date = new Date(seconds * 1000).toISOString().slice(0, '2026-01-02T03:04:05'.length);
  return `${date}.${micros.slice(-6).padStart(6, '0')}000Z`;
}
