/** What every command is given: the global flags, resolved once. */
export type InsecureOption =
  | 'image'
  | 'tls'
  | 'ondisk'
  | 'http'
  | 'pubkey'
  | 'capabilities'
  | 'paths'
  | 'seccomp';

export interface Context {
  /** `tspod`, or `rkt` when started under that name. */
  readonly program: 'tspod' | 'rkt';
  /** The leaf command, e.g. `run`; rkt prints it as the prefix of messages. */
  readonly command: string;
  /** Absolute, symbolic links resolved where it exists. */
  readonly dir: string;
  readonly systemConfig: string;
  readonly localConfig: string;
  /** Empty: none. */
  readonly userConfig: string;
  readonly insecure: ReadonlySet<InsecureOption>;
  readonly trustKeysFromHttps: boolean;
  readonly offline: boolean;
  readonly debug: boolean;
}

/** `tspod`, or as rkt the leaf command: what stands before the colon of a message. */
export function messagePrefix(context: Pick<Context, 'program' | 'command'>): string {
  return context.program === 'rkt' ? context.command : 'tspod';
}

/** The whole line: a text that begins with the prefix already, as rkt's leaf commands, gets it once. */
export function prefixed(context: Pick<Context, 'program' | 'command'>, text: string): string {
  const prefix = `${messagePrefix(context)}: `;
  const line = text.replace(/\p{Cc}+/gu, ' ');
  return line.startsWith(prefix) ? line : prefix + line;
}

/** A line on standard error with the prefix. */
export function warn(context: Pick<Context, 'program' | 'command'>, text: string): void {
  process.stderr.write(`${prefixed(context, text)}\n`);
}
