/**
 * A line that an app wrote, from whatever keeps the logs, and Kubernetes' form of it in a file:
 * `TIME STREAM F|P TEXT` (kubernetes, pkg/kubelet/kuberuntime/logs). A line that init had to split comes as
 * several, all but the last marked P.
 */
export type StreamName = 'stdout' | 'stderr';

export interface LogRecord {
  /** RFC 3339, UTC, to the nanosecond; the same length always, so that texts compare as times do */
  readonly time: string;
  readonly app: string;
  readonly stream: StreamName;
  readonly text: Buffer;
  /** False: the line goes on in the next record of this app and stream. */
  readonly whole: boolean;
}

const TIME_LENGTH = '2026-01-02T03:04:05.123456789Z'.length;
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z$/;
const STREAM_LENGTH = 6;
const SPACE = 0x20;

/**
 * @param line without its newline
 * @returns undefined for what has not the form: an older or a broken writer, half a line after a crash
 */
export function parseRecord(line: Buffer, app: string): LogRecord | undefined {
  const time = line.toString('latin1', 0, TIME_LENGTH);
  const streamAt = TIME_LENGTH + 1;
  const stream = line.toString('latin1', streamAt, streamAt + STREAM_LENGTH);
  const tagAt = streamAt + STREAM_LENGTH + 1;
  const tag = line[tagAt];
  if (
    !TIME.test(time) ||
    (stream !== 'stdout' && stream !== 'stderr') ||
    (tag !== 0x46 && tag !== 0x50) ||
    line[TIME_LENGTH] !== SPACE ||
    line[tagAt - 1] !== SPACE ||
    line[tagAt + 1] !== SPACE
  ) {
    return undefined;
  }
  return { time, app, stream, text: line.subarray(tagAt + 2), whole: tag === 0x46 };
}

/** How much of one line is put together again; a longer one stays in parts. */
const MAX_LINE = 1024 * 1024;

/** Puts the parts of lines together; state for one app. */
export class Joiner {
  readonly #parts = new Map<StreamName, { first: LogRecord; texts: Buffer[]; length: number }>();

  /** @returns a line, or a part of at least 1 MiB of one; undefined while its end has not come */
  add(record: LogRecord): LogRecord | undefined {
    const open = this.#parts.get(record.stream);
    if (open === undefined && record.whole) return record;
    const line = open ?? { first: record, texts: [], length: 0 };
    line.texts.push(record.text);
    line.length += record.text.length;
    if (!record.whole && line.length < MAX_LINE) {
      this.#parts.set(record.stream, line);
      return undefined;
    }
    this.#parts.delete(record.stream);
    return { ...line.first, text: Buffer.concat(line.texts), whole: record.whole };
  }

  /** What never came to an end. */
  rest(): readonly LogRecord[] {
    const left = [...this.#parts.values()].map(({ first, texts }) => ({
      ...first,
      text: Buffer.concat(texts),
      whole: false,
    }));
    this.#parts.clear();
    return left;
  }
}
