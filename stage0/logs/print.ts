/** How lines of logs are printed: what an app wrote to its standard error goes to ours. */
import type { LogRecord, StreamName } from './record.ts';

export interface PrintOptions {
  readonly timestamps: boolean;
  readonly json: boolean;
  /** The app's name before each line. */
  readonly names: boolean;
}

export class Printer {
  readonly #options: PrintOptions;
  /** Which app's line is not ended on an output. */
  readonly #open = new Map<StreamName, string>();

  constructor(options: PrintOptions) {
    this.#options = options;
  }

  /** Waits when the reader is slow. */
  async print(record: LogRecord): Promise<void> {
    const { json, timestamps, names } = this.#options;
    if (json) {
      await write('stdout', Buffer.from(`${JSON.stringify(toJson(record))}\n`));
      return;
    }
    const open = this.#open.get(record.stream);
    const parts: Buffer[] = [];
    if (open !== undefined && open !== record.app) parts.push(NEWLINE);
    if (open !== record.app) {
      const head = `${timestamps ? `${record.time} ` : ''}${names ? `${record.app}: ` : ''}`;
      parts.push(Buffer.from(head));
    }
    parts.push(record.text);
    if (record.whole) parts.push(NEWLINE);
    if (record.whole) this.#open.delete(record.stream);
    else this.#open.set(record.stream, record.app);
    await write(record.stream, Buffer.concat(parts));
  }
}

const NEWLINE = Buffer.from('\n');

function toJson({ time, app, stream, text, whole }: LogRecord): unknown {
  const utf8 = text.toString('utf8');
  const isText = Buffer.from(utf8).equals(text);
  return {
    time,
    app,
    stream,
    ...(isText ? { text: utf8 } : { base64: text.toString('base64') }),
    ...(whole ? {} : { partial: true }),
  };
}

function write(stream: StreamName, bytes: Buffer): Promise<void> | void {
  const output = stream === 'stdout' ? process.stdout : process.stderr;
  if (output.write(bytes)) return;
  return new Promise(resolve => output.once('drain', resolve));
}
