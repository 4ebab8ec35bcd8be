/**
 * The client of init's control socket (docs/stage2-init.md): one connection, one request, one answer.
 *
 * The path of a socket is limited to 107 bytes (unix(7)), a pod's folder is not: the socket is named through
 * a descriptor, and what was opened is what is connected to.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { errnoOf, systemError, TspodError } from '../../src/errors.ts';
import { encodePlan, PLAN_MAGIC } from '../../src/pod/launch-plan.ts';
import { TREE } from './stage1-tree.ts';

/** open(2); Node has no name for it. */
const O_PATH = 0o10000000;
/** Both ways, without the length. */
const MAX_MESSAGE = 64 * 1024;
const LENGTH = 4;
const DEFAULT_TIMEOUT_MS = 30_000;

export interface AskOptions {
  /** Until the answer is there; `stop` is answered when the app has ended. Infinity: no limit. */
  readonly timeoutMs?: number;
}

/**
 * Asks a running pod's init.
 * @param podDir absolute path of the pod's folder
 * @param words the request and its words: `['stop', 'web', '10']`
 * @returns the words of the answer, without `ok`
 * @throws TspodError 'state' with init's own text where it refuses, or when no init listens (it has ended, or
 * has not begun); 'limit' when it does not answer in time; 'protocol' for an answer without sense
 */
export async function ask(
  podDir: string,
  words: readonly [request: string, ...words: string[]],
  { timeoutMs = DEFAULT_TIMEOUT_MS }: AskOptions = {},
): Promise<readonly string[]> {
  const [request] = words;
  const message = encodePlan([words]).subarray(PLAN_MAGIC.length);
  if (message.length > MAX_MESSAGE) {
    throw new TspodError('limit', `${request}: over ${MAX_MESSAGE} bytes for a pod's init`);
  }
  const length = Buffer.alloc(LENGTH);
  length.writeUInt32LE(message.length);
  const socket = await connectIn(join(podDir, TREE, 'rkt'), 'control');
  try {
    socket.write(Buffer.concat([length, message]));
    const [kind, ...rest] = parseWords(await answerOf(socket, request, timeoutMs));
    if (kind === 'ok') return rest;
    if (kind === 'error') throw new TspodError('state', `${request}: ${rest.join(' ')}`);
    throw malformed(request);
  } finally {
    socket.destroy();
  }
}

/**
 * Connects to the Unix socket `name` in the folder at `path`.
 * @throws TspodError 'state' when nobody listens there
 */
export async function connectIn(path: string, name: string): Promise<Socket> {
  const nobody = (cause: unknown) =>
    new TspodError('state', `the pod's init does not listen on ${name}`, {
      hint: 'it has ended or has not begun yet: see status',
      cause,
    });
  const where = join(path, name);
  let fd: number;
  try {
    fd = openSync(where, O_PATH | constants.O_NOFOLLOW);
  } catch (error) {
    throw errnoOf(error) === 'ENOENT' ? nobody(error) : systemError(`can't open ${where}`, error);
  }
  try {
    return await new Promise((resolve, reject) => {
      const socket = connect({ path: `/proc/self/fd/${fd}`, allowHalfOpen: true });
      socket.once('error', reject);
      socket.once('connect', () => {
        socket.off('error', reject);
        resolve(socket);
      });
    });
  } catch (error) {
    const errno = errnoOf(error);
    throw errno === 'ENOENT' || errno === 'ECONNREFUSED'
      ? nobody(error)
      : systemError(`can't connect to ${where}`, error);
  } finally {
    closeSync(fd);
  }
}

function answerOf(socket: Socket, request: string, timeoutMs: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    let got: Buffer = Buffer.alloc(0);
    const timer = Number.isFinite(timeoutMs) ? setTimeout(late, timeoutMs) : undefined;
    function end(): void {
      clearTimeout(timer);
      socket.off('data', take).off('error', fail).off('end', fail).off('close', fail);
    }
    function late(): void {
      end();
      reject(
        new TspodError('limit', `${request}: the pod's init did not answer within ${timeoutMs} ms`),
      );
    }
    function fail(error?: unknown): void {
      end();
      // A reset is an end: the pod may be gone at once.
      reject(
        error instanceof Error && errnoOf(error) !== 'ECONNRESET' && errnoOf(error) !== 'EPIPE'
          ? systemError(`${request}: can't ask the pod's init`, error)
          : new TspodError('state', `${request}: the pod's init ended before it answered`),
      );
    }
    function take(chunk: Buffer): void {
      got = Buffer.concat([got, chunk]);
      if (got.length < LENGTH) return;
      const length = got.readUInt32LE();
      if (length > MAX_MESSAGE || got.length > LENGTH + length) {
        end();
        reject(malformed(request));
      } else if (got.length === LENGTH + length) {
        end();
        resolve(got.subarray(LENGTH));
      }
    }
    socket.on('data', take).on('error', fail).on('end', fail).on('close', fail);
  });
}

/** The words of one step, as launch-plan.ts writes it; what does not parse has none. */
function parseWords(message: Buffer): readonly string[] {
  const words: string[] = [];
  if (message.length < 4) return [];
  const count = message.readUInt32LE();
  let at = 4;
  for (let index = 0; index < count; index++) {
    if (at + 4 > message.length) return [];
    const length = message.readUInt32LE(at);
    const end = at + 4 + length;
    if (end + 1 > message.length || message[end] !== 0) return [];
    words.push(message.toString('utf8', at + 4, end));
    at = end + 1;
  }
  return at === message.length ? words : [];
}

function malformed(request: string): TspodError {
  return new TspodError('protocol', `${request}: the pod's init gave no answer that makes sense`);
}
