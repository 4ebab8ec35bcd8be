/**
 * One attached session: this process's standard streams on one side, an app's on the other. It ends with the
 * app, by the detach keys, or when there is nothing more to carry; the app goes on without it.
 */
import type { Socket } from 'node:net';
import { TspodError } from '../../src/errors.ts';
import { ask, connectIn } from '../../stage1-flavors/nspawn/control.ts';
import { DetachFilter } from './detach-keys.ts';
import type { Selection } from './endpoints.ts';

export interface SessionOptions {
  readonly podDir: string;
  /** absolute path of the folder of the sockets */
  readonly folder: string;
  readonly app: string;
  readonly selection: Selection;
  readonly detachKeys: Uint8Array;
}

export type SessionEnd = 'ended' | 'detached';

/** What init answers the second writer; nothing else ever comes from a standard input. */
const BUSY = 'busy\n';

export async function attach(options: SessionOptions): Promise<SessionEnd> {
  const { folder, app, selection } = options;
  const sockets: Socket[] = [];
  const connect = async (name: string): Promise<Socket> => {
    const socket = await connectIn(folder, `${app}-${name}`);
    sockets.push(socket);
    return socket;
  };
  const terminal = selection.ttyIn && process.stdin.isTTY === true;
  try {
    const outputs: Promise<void>[] = [];
    if (selection.stdout) outputs.push(carry(await connect('stdout'), process.stdout));
    if (selection.stderr) outputs.push(carry(await connect('stderr'), process.stderr));
    const tty = selection.ttyIn || selection.ttyOut ? await connect('tty') : undefined;
    if (tty !== undefined) outputs.push(carry(tty, selection.ttyOut ? process.stdout : undefined));
    const stdin = selection.stdin ? await connect('stdin') : undefined;
    if (terminal) startTerminal(options);
    const targets = [stdin, selection.ttyIn ? tty : undefined].filter(one => one !== undefined);
    const input = targets.length > 0 ? sendInput(targets, options, terminal) : undefined;
    const written = stdin === undefined ? undefined : untilClosed(stdin, app);
    // Whose input has ended still waits for the output; with nothing but input that is all there is.
    const over = outputs.length > 0 ? Promise.all(outputs) : Promise.resolve(written);
    const end = await Promise.race([
      over.then((): SessionEnd => 'ended'),
      ...(input === undefined ? [] : [input]),
      // Only its failure counts.
      ...(written === undefined ? [] : [written.then(() => new Promise<never>(() => undefined))]),
    ]);
    return end;
  } finally {
    if (terminal) process.stdin.setRawMode(false);
    process.stdin.pause();
    process.stdin.removeAllListeners();
    process.removeAllListeners('SIGWINCH');
    for (const socket of sockets) socket.destroy();
  }
}

/** Until the other side closes; a slow reader here holds the socket up, not the app. */
function carry(socket: Socket, output: NodeJS.WriteStream | undefined): Promise<void> {
  socket.on('data', (chunk: Buffer) => {
    if (output === undefined || output.write(chunk)) return;
    socket.pause();
    output.once('drain', () => socket.resume());
  });
  return closed(socket);
}

function closed(socket: Socket): Promise<void> {
  return new Promise(resolve => {
    // A reset is an end, too: the pod may be gone at once.
    socket.on('error', () => undefined);
    socket.once('end', () => resolve());
    socket.once('close', () => resolve());
  });
}

async function untilClosed(stdin: Socket, app: string): Promise<void> {
  let said = '';
  stdin.on('data', (chunk: Buffer) => {
    said = (said + chunk.toString('latin1')).slice(0, BUSY.length + 1);
  });
  await closed(stdin);
  if (said === BUSY) {
    throw new TspodError(
      'busy',
      `attach: somebody else writes to the standard input of app "${app}"`,
      {
        hint: 'leave it out: --mode=stdout,stderr',
      },
    );
  }
}

/** Resolves only when the detach keys were typed. */
function sendInput(
  targets: readonly Socket[],
  { detachKeys }: SessionOptions,
  terminal: boolean,
): Promise<SessionEnd> {
  // Keys are typed at a terminal; in a file they are bytes like others.
  const filter = new DetachFilter(terminal ? detachKeys : new Uint8Array());
  return new Promise(resolve => {
    process.stdin.on('data', (chunk: Buffer) => {
      const { pass, detach } = filter.take(chunk);
      for (const socket of targets) {
        if (socket.destroyed || pass.length === 0 || socket.write(pass)) continue;
        process.stdin.pause();
        socket.once('drain', () => process.stdin.resume());
      }
      if (detach) resolve('detached');
    });
    process.stdin.once('end', () => {
      for (const socket of targets) socket.end();
    });
    process.stdin.on('error', () => undefined);
  });
}

function startTerminal({ podDir, app }: SessionOptions): void {
  process.stdin.setRawMode(true);
  const tellSize = () => {
    if (!process.stdout.isTTY) return;
    const [columns, rows] = process.stdout.getWindowSize();
    // The app may have ended; then the session ends, too.
    ask(podDir, ['resize', app, String(rows), String(columns)]).catch(() => undefined);
  };
  process.on('SIGWINCH', tellSize);
  tellSize();
}
