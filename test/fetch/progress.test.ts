/**
 * Progress as a user sees it: the built program fetching into a pseudo-terminal of a given size (python3's pty,
 * which the tests' set-up has anyway), and into a pipe.
 */
import { randomBytes } from 'node:crypto';
import type { ServerResponse } from 'node:http';
import { afterEach, expect, test } from 'vitest';
import { useSandbox } from '../functional/sandbox.ts';
import { TSPOD } from '../support/tspod.ts';
import { makeImage, registryOf, serve, type TestServer } from './support.ts';

const use = useSandbox();
let server: TestServer | undefined;
afterEach(async () => {
  await server?.close();
  server = undefined;
});

/** Runs its arguments on a terminal of ROWS × COLUMNS; a word to standard input sends Ctrl-C. */
const ON_TERMINAL = `
import fcntl, os, pty, select, struct, sys, termios
rows, columns = int(sys.argv[1]), int(sys.argv[2])
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[3], sys.argv[3:])
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('HHHH', rows, columns, 0, 0))
watched = [fd, 0]
while True:
    ready, _, _ = select.select(watched, [], [])
    if 0 in ready:
        watched.remove(0)
        if os.read(0, 100):
            os.write(fd, b'\\x03')
    if fd in ready:
        try:
            data = os.read(fd, 65536)
        except OSError:
            data = b''
        if not data:
            break
        os.write(1, data)
_, status = os.waitpid(pid, 0)
sys.exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
`;

const HIDE = '\x1b[?25l';
const SHOW = '\x1b[?25h';
const CSI = '\x1b\\[';
const ESCAPE = new RegExp(`${CSI}[?0-9]*[a-zA-Z]`, 'g');
const UP = new RegExp(`${CSI}([0-9]+)A`, 'g');

/** A registry of an image of `layers` layers, none of which unpacks: it is the way there that is looked at. */
async function registry(layers: number, hold?: (response: ServerResponse) => void, all = false) {
  const image = makeImage(Array.from({ length: layers }, () => randomBytes(3000)));
  const seen = new Set<string>();
  const held = image.layers.slice(0, all ? layers : 1);
  server = await serve(
    registryOf(image, (request, response) => {
      const layer = held.find(({ digest }) => request.url?.endsWith(digest));
      if (hold === undefined || layer === undefined || seen.has(layer.digest)) return false;
      seen.add(layer.digest);
      response.writeHead(200, { 'Content-Length': layer.size });
      response.write(image.blobs.get(layer.digest)?.subarray(0, 5));
      hold(response);
      return true;
    }),
  );
  return { name: `docker://${server.host}/test:1`, image };
}

function onTerminal(rows: number, columns: number, name: string, keepInput = false) {
  const words = ['-m', '--propagation', 'private', TSPOD, ...use.box.globalFlags, 'fetch', name];
  const size = [String(rows), String(columns)];
  return use.box.spawn('python3', ['-c', ON_TERMINAL, ...size, 'unshare', ...words], {
    keepInput,
  });
}

/** What stands on the screen in the end: cursor up, clear to the end, carriage return and line feed. */
function screen(text: string): string[] {
  const lines: string[] = [''];
  let at = 0;
  for (const [piece] of text.matchAll(new RegExp(`${ESCAPE.source}|\r|\n|[^\x1b\r\n]+`, 'g'))) {
    const [up] = piece.matchAll(UP);
    if (up !== undefined) at = Math.max(0, at - Number(up[1]));
    else if (piece === '\x1b[J') lines.splice(at, lines.length, '');
    else if (piece === '\n') lines[++at] ??= '';
    else if (piece !== '\r' && !piece.startsWith('\x1b')) lines[at] = (lines[at] ?? '') + piece;
  }
  return lines.filter(line => line !== '');
}

test('one line per layer and a total; the cursor is given back', async () => {
  let release: ServerResponse | undefined;
  const { name, image } = await registry(3, response => {
    release = response;
  });
  const fetching = onTerminal(24, 80, name);
  await expect.poll(() => release, { timeout: 20_000 }).toBeDefined();
  // Half of it is there for longer than a redraw takes.
  await new Promise(resolve => setTimeout(resolve, 300));
  release?.destroy();
  const { stdout } = await fetching.ended;
  expect(stdout).toContain(HIDE);
  expect(stdout.lastIndexOf(SHOW)).toBeGreaterThan(stdout.lastIndexOf(HIDE));
  const shown = screen(stdout);
  for (const { digest } of image.layers) {
    const [, hex = ''] = digest.split(':');
    expect(shown.filter(line => line.includes(hex.slice(0, 8))).length).toBe(1);
  }
  expect(shown.filter(line => line.startsWith('total')).length).toBe(1);
});

test.each([
  [24, 20],
  [4, 80],
  [1, 1],
])('a terminal of %i × %i: no line is longer, none is drawn twice', async (rows, columns) => {
  const { name } = await registry(
    9,
    response => void setTimeout(() => response.destroy(), 300),
    true,
  );
  const { stdout } = await onTerminal(rows, columns, name).ended;
  const drawn = stdout.slice(stdout.indexOf(HIDE), stdout.lastIndexOf(SHOW));
  const lines = drawn.replaceAll(ESCAPE, '').replaceAll('\r', '').split('\n');
  expect(Math.max(...lines.map(line => line.length))).toBeLessThan(Math.max(columns, 2));
  // What goes up never goes further than the screen.
  const ups = [...drawn.matchAll(UP)].map(match => Number(match[1]));
  expect(ups.length).toBeGreaterThan(0);
  expect(Math.max(...ups)).toBeLessThan(Math.max(rows, 3));
  expect(screen(stdout).filter(line => line.startsWith('total')).length).toBeLessThanOrEqual(1);
});

test('Ctrl-C ends it at once, by SIGINT, with the cursor back', async () => {
  let held = false;
  // All of them: one that came whole would be found to be no layer.
  const { name } = await registry(
    2,
    () => {
      held = true;
    },
    true,
  );
  const fetching = onTerminal(24, 80, name, true);
  let seen = '';
  fetching.child.stdout?.on('data', (text: Buffer) => {
    seen += text.toString();
  });
  await expect.poll(() => held && seen.includes(HIDE), { timeout: 20_000 }).toBe(true);
  fetching.child.stdin?.end('stop');
  const { status, stdout } = await fetching.ended;
  expect(status).toBe(130);
  expect(stdout.lastIndexOf(SHOW)).toBeGreaterThan(stdout.lastIndexOf(HIDE));
});

test('a pipe gets nothing of it', async () => {
  const { name } = await registry(2);
  const { stdout, stderr } = await use.box.run(['fetch', name]);
  expect(`${stdout}${stderr}`).not.toContain('\x1b');
  expect(stderr.trimEnd().split('\n').length).toBe(1);
});
