/**
 * The one error class, the closed union of its codes, and the one table from code to exit status.
 *
 * Whoever finds a failure throws a TspodError; only the entry point prints it, as
 *   tspod: <what failed>: <why>; <what to do>
 * An error of any other class that reaches the entry point is a bug and is printed as one.
 */

/** Why tspod itself failed. Each code has one exit status, see EXIT_STATUS. */
export type ErrorCode =
  | 'usage' // the command line is wrong
  | 'config' // a configuration file is wrong or unreadable
  | 'privilege' // needs root
  | 'reference' // an image reference does not follow its grammar
  | 'not-found' // no such image, pod, app, file
  | 'ambiguous' // a prefix or name that fits several
  | 'exists' // a name or output that is taken
  | 'offline' // the network would be needed
  | 'network' // a server can't be reached or broke off
  | 'denied' // a server answered 401 or 403
  | 'protocol' // a server or an archive does not follow its specification
  | 'digest' // content does not have the digest it was named by
  | 'trust' // no accepted signature
  | 'limit' // a bound on something from outside was hit; the message names the bound
  | 'unpack' // a layer can't be unpacked
  | 'store' // the store is damaged or of a newer version
  | 'disk-full'
  | 'busy' // somebody else holds the lock
  | 'state' // the pod is not in the state that the command needs
  | 'pod' // the pod manifest or the options for a pod are wrong
  | 'unsupported' // the flavor or the kernel can't honour what was asked
  | 'launch' // the pod could not be started
  | 'system'; // a system call failed

/**
 * Exit status by code. rkt exits with 254 almost everywhere; scripts rely on it, so every code has
 * 254. A status that an app gave can be told apart by `run --result=FILE`.
 */
export const EXIT_FAILURE = 254;

export interface ErrorOptions {
  /** What the user can do about it: the part after the semicolon. */
  readonly hint?: string;
  readonly cause?: unknown;
  /** Exit status where rkt has another one than 254. */
  readonly exitStatus?: number;
}

export class TspodError extends Error {
  override readonly name = 'TspodError';
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly exitStatus: number;

  /** @param message "<what failed>: <why>", one line, no full stop, no credentials. */
  constructor(code: ErrorCode, message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.hint = options.hint;
    this.exitStatus = options.exitStatus ?? EXIT_FAILURE;
  }

  /** The line to print, without the program's prefix. */
  get line(): string {
    const text = this.hint === undefined ? this.message : `${this.message}; ${this.hint}`;
    // Text from outside (a server's answer, a file name) may carry control characters.
    return text.replace(/\p{Cc}+/gu, ' ');
  }
}

/** The errno name of a Node system error ("ENOENT"), or undefined for anything else. */
export function errnoOf(error: unknown): string | undefined {
  if (error instanceof Error && 'code' in error && typeof error.code === 'string')
    return error.code;
  return undefined;
}

/** One short sentence for an unknown thrown value, without stack or class name. */
export function reasonOf(error: unknown): string {
  if (error instanceof TspodError) return error.line;
  if (error instanceof Error) return error.message;
  return String(error);
}

/**
 * Wraps a failed system call: "<what>: <reason>". ENOSPC and EDQUOT become 'disk-full', a
 * TspodError passes through unchanged.
 */
export function systemError(what: string, error: unknown, hint?: string): TspodError {
  if (error instanceof TspodError) return error;
  const errno = errnoOf(error);
  if (errno === 'ENOSPC' || errno === 'EDQUOT') {
    return new TspodError('disk-full', `${what}: no space left on the device`, {
      hint: hint ?? 'free space there or choose another data folder with --dir',
      cause: error,
    });
  }
  return new TspodError('system', `${what}: ${reasonOf(error)}`, {
    ...(hint === undefined ? {} : { hint }),
    cause: error,
  });
}
