/**
 * `tspod logs POD`: what the apps of a pod wrote to their standard streams, while it runs and after it has
 * ended, from the files that the pod's init writes or from the journal. docs/logs.md.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Context, warn } from '../../src/context.ts';
import { errnoOf, systemError, TspodError } from '../../src/errors.ts';
import { parseDuration } from '../../src/humanize.ts';
import { readFlavorName } from '../../src/pod/folder.ts';
import { findPod, type PodView, viewPod } from '../../src/pod/lifecycle.ts';
import { reportPod } from '../../src/pod/report.ts';
import { readJournal } from '../logs/journal.ts';
import { LogFile } from '../logs/log-file.ts';
import { merge, tail } from '../logs/merge.ts';
import { Printer } from '../logs/print.ts';
import type { LogRecord } from '../logs/record.ts';

const LOGS_FOLDER = 'stage1/rootfs/rkt/logs';
const POLL_MS = 100;
/** journalctl is given so long for what was written last. */
const JOURNAL_LAG_MS = 500;
const MAX_TAIL = 1_000_000;
/** Where the host's journal lies (systemd-journald.service(8)). */
const JOURNALS = ['/run/systemd/journal', '/run/log/journal', '/var/log/journal'];

export interface LogsArgs {
  readonly pod: string;
  readonly app: string | undefined;
  readonly follow: boolean;
  /** a time or a duration, as typed */
  readonly since: string | undefined;
  readonly tail: string | undefined;
  readonly timestamps: boolean;
  readonly format: string | undefined;
}

export async function run(context: Context, args: LogsArgs): Promise<number> {
  const since = args.since === undefined ? undefined : parseSince(args.since);
  const last = args.tail === undefined ? undefined : parseTail(args.tail);
  if (args.format !== undefined && args.format !== 'json') {
    throw new TspodError(
      'usage',
      `--format: ${JSON.stringify(args.format.slice(0, 50))} is unknown`,
      {
        hint: 'give json: one object per line',
      },
    );
  }
  const pod = findPod(context.dir, args.pod);
  refuseWithoutLogs(pod);
  const apps = logsOf(pod);
  if (args.app !== undefined && !apps.includes(args.app)) {
    throw new TspodError(
      'not-found',
      `pod ${pod.uuid}: it has no app ${JSON.stringify(args.app)}`,
      {
        hint: `its apps are ${apps.map(name => JSON.stringify(name)).join(', ')}`,
      },
    );
  }
  const printer = new Printer({
    timestamps: args.timestamps,
    json: args.format === 'json',
    names: args.app === undefined && apps.length > 1,
  });
  const query = { since, tail: last, follow: args.follow };
  const inJournal = !hasFiles(pod) && JOURNALS.some(path => existsSync(path));
  if (inJournal) await fromJournal(context, pod, args.app, query, printer);
  else await fromFiles(context, pod, args.app, query, printer);
  return 0;
}

interface Query {
  readonly since: string | undefined;
  readonly tail: number | undefined;
  readonly follow: boolean;
}

function refuseWithoutLogs(pod: PodView): void {
  if (pod.state === 'embryo' || pod.state === 'preparing' || pod.state === 'prepared') {
    throw new TspodError(
      'state',
      `logs: pod ${pod.uuid} is ${pod.state}: it has written nothing yet`,
    );
  }
  const flavor = readFlavorName(pod.dir);
  if (flavor === 'fly') {
    throw new TspodError(
      'unsupported',
      `logs: pod ${pod.uuid} is of flavor fly, which keeps no logs`,
      {
        hint: 'its app writes to the standard output of whoever started it; use --stage1-name=nspawn',
      },
    );
  }
  if (flavor !== 'nspawn' && flavor !== 'kvm') {
    throw new TspodError('unsupported', `logs: pod ${pod.uuid} was started by a stage1 image`, {
      hint: 'what keeps its logs is in that image',
    });
  }
}

/** The pod's apps, and those that were taken out of it and left their logs. */
function logsOf(pod: PodView): readonly string[] {
  const found = new Set(reportPod(pod).apps.map(({ name }) => name));
  for (const name of filesIn(join(pod.dir, LOGS_FOLDER))) {
    const app = /^(.+)\.log$/.exec(name)?.[1];
    if (app !== undefined) found.add(app);
  }
  return [...found];
}

function hasFiles(pod: PodView): boolean {
  return filesIn(join(pod.dir, LOGS_FOLDER)).length > 0;
}

function filesIn(path: string): readonly string[] {
  try {
    return readdirSync(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw systemError(`can't read ${path}`, error);
  }
}

async function fromFiles(
  context: Context,
  pod: PodView,
  only: string | undefined,
  query: Query,
  printer: Printer,
): Promise<void> {
  let dir = pod.dir;
  const files = new Map<string, LogFile>();
  /** Apps may come into a pod that runs. */
  const lookForFiles = () => {
    const apps = only === undefined ? logsOf({ ...pod, dir }) : [only];
    for (const app of apps)
      if (!files.has(app)) files.set(app, new LogFile(join(dir, LOGS_FOLDER), app));
  };
  const wanted = function* (): Generator<LogRecord> {
    for (const record of merge([...files.values()].map(file => file.read())))
      if (query.since === undefined || record.time >= query.since) yield record;
  };
  try {
    lookForFiles();
    const now = query.tail === undefined ? wanted() : tail(wanted(), query.tail);
    for (const record of now) await printer.print(record);
    for (let running = query.follow; running; ) {
      // Asked before the last look: what was written before the end is seen by it.
      const view = viewPod(context.dir, pod.uuid);
      running = view?.state === 'running';
      if (view !== undefined && view.dir === dir) lookForFiles();
      else if (view !== undefined) dir = view.dir;
      for (const record of wanted()) await printer.print(record);
      if (running) await sleep(POLL_MS);
    }
    for (const file of files.values())
      for (const record of file.unfinished()) await printer.print(record);
  } finally {
    for (const file of files.values()) {
      file.close();
      if (file.missed)
        warn(context, `logs: lines of app ${file.app} were removed before they were read`);
      if (file.malformed > 0)
        warn(
          context,
          `logs: ${file.malformed} line(s) in the log of app ${file.app} are malformed`,
        );
    }
  }
}

async function fromJournal(
  context: Context,
  pod: PodView,
  app: string | undefined,
  { since, tail: last, follow }: Query,
  printer: Printer,
): Promise<void> {
  const ended = new AbortController();
  const watching = follow ? abortAtEnd(context, pod, ended) : undefined;
  const kept: LogRecord[] = [];
  const records = readJournal({
    uuid: pod.uuid,
    app,
    since,
    follow,
    tail: last,
    ended: ended.signal,
  });
  try {
    for await (const record of records) {
      if (since !== undefined && record.time < since) continue;
      if (follow || last === undefined) await printer.print(record);
      else {
        kept.push(record);
        if (kept.length > last) kept.shift();
      }
    }
  } finally {
    ended.abort();
    await watching;
  }
  for (const record of kept) await printer.print(record);
}

async function abortAtEnd(context: Context, pod: PodView, ended: AbortController): Promise<void> {
  while (!ended.signal.aborted && viewPod(context.dir, pod.uuid)?.state === 'running')
    await sleep(POLL_MS);
  if (!ended.signal.aborted) await sleep(JOURNAL_LAG_MS);
  ended.abort();
}

/** @returns comparable with LogRecord.time */
function parseSince(text: string): string {
  const isTime = /^\d{4}-\d\d-\d\d(?:T\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d))?$/.test(
    text,
  );
  const ms = isTime ? Date.parse(text) : Date.now() - parseDuration(text, 'logs: --since');
  if (!Number.isFinite(ms) || Math.abs(ms) > 8.64e15) {
    throw new TspodError(
      'usage',
      `logs: --since: ${JSON.stringify(text.slice(0, 50))} is no time`,
      {
        hint: 'give a time like 2026-01-31T12:00:00Z or a duration like 10m',
      },
    );
  }
  return new Date(ms).toISOString().slice(0, -1);
}

function parseTail(text: string): number {
  const count = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
  if (count <= MAX_TAIL) return count;
  throw new TspodError(
    'usage',
    `logs: --tail: ${JSON.stringify(text.slice(0, 50))} is no number up to ${MAX_TAIL}`,
  );
}
