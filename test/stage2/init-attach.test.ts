/** init's sockets to attach to: what comes and goes over them, and what they must not cost. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Step } from '../../src/pod/launch-plan.ts';
import { ask, connectIn } from '../../stage1-flavors/nspawn/control.ts';
import { ended, InitPod, until } from '../support/init-pod.ts';

let pod: InitPod;
let sockets: Socket[];
beforeEach(() => {
  pod = new InitPod();
  sockets = [];
});
afterEach(async () => {
  for (const socket of sockets) socket.destroy();
  await pod.remove();
});

const STREAM: readonly Step[] = [
  ['stdin', 'stream'],
  ['stdout', 'stream'],
  ['stderr', 'stream'],
];
const TTY: readonly Step[] = [
  ['stdin', 'tty'],
  ['stdout', 'tty'],
  ['stderr', 'tty'],
];
const LOG: Step = ['log', 'file', '/rkt/logs/a.log', '100000000', '1'];

function plan(script: string, about: readonly Step[], more: readonly Step[] = []): void {
  pod.plan([{ name: 'a', script, about: [...about, LOG, ...more] }]);
}

async function connect(
  name: string,
): Promise<{ socket: Socket; all: Promise<string>; now(): string }> {
  const folder = join(pod.tree, 'rkt/attach');
  await pod.has(`rkt/attach/a-${name}`);
  const socket = await connectIn(folder, `a-${name}`);
  sockets.push(socket);
  let got = '';
  socket.on('data', (chunk: Buffer) => {
    got += chunk.toString('latin1');
  });
  socket.on('error', () => undefined);
  const all = new Promise<string>(resolve => {
    socket.once('end', () => resolve(got));
    socket.once('close', () => resolve(got));
  });
  return { socket, all, now: () => got };
}

/** Descriptors that init has open. */
function descriptors(): number {
  return readdirSync(`/proc/${initPid()}/fd`).length;
}

function initPid(): string {
  const name = pod.dir;
  for (const pid of readdirSync('/proc').filter(text => /^\d+$/.test(text))) {
    try {
      const root = readFileSync(`/proc/${pid}/cmdline`, 'latin1');
      const mounts = readFileSync(`/proc/${pid}/mountinfo`, 'latin1');
      if (root.startsWith('/init\0init') && mounts.includes(name)) return pid;
    } catch {
      // it has ended
    }
  }
  throw new Error('init does not run');
}

describe('streams', () => {
  test('input, its end, both outputs, and the end of all; the sockets are root’s alone', async () => {
    plan('cat; echo bye >&2; exit 3', STREAM);
    const end = ended(pod.start());
    const [out, err] = [await connect('stdout'), await connect('stderr')];
    const input = await connect('stdin');
    expect(statSync(join(pod.tree, 'rkt/attach/a-stdin')).mode & 0o777).toBe(0o600);
    input.socket.write('hello\n');
    input.socket.end('you\n');
    expect(await out.all).toBe('hello\nyou\n');
    expect(await err.all).toBe('bye\n');
    expect(await input.all).toBe('');
    expect(await end).toMatchObject({ status: 3, stdout: '', stderr: '' });
    expect(pod.log('a').sort()).toEqual(['stderr F bye', 'stdout F hello', 'stdout F you']);
    expect(readdirSync(join(pod.tree, 'rkt/attach'))).toEqual([]);
  });

  test('each reader gets what comes from then on', async () => {
    plan('while read -r line; do echo "$line"; done', STREAM);
    pod.start();
    const input = await connect('stdin');
    const first = await connect('stdout');
    input.socket.write('one\n');
    await until(() => first.now() === 'one\n');
    const second = await connect('stdout');
    const third = await connect('stdout');
    third.socket.destroy();
    input.socket.write('two\n');
    input.socket.end();
    expect(await first.all).toBe('one\ntwo\n');
    expect(await second.all).toBe('two\n');
  });

  test('one writer at a time; who goes away leaves the input open for the next', async () => {
    plan('while read -r line; do echo "$line"; done; echo over', STREAM);
    pod.start();
    const out = await connect('stdout');
    const first = await connect('stdin');
    first.socket.write('one\n');
    await until(() => out.now() === 'one\n');
    expect(await (await connect('stdin')).all).toBe('busy\n');
    first.socket.destroy();
    let next = await connect('stdin');
    // init may not have seen yet that the first has gone.
    await new Promise(resolve => setTimeout(resolve, 50));
    if (next.now() === 'busy\n') next = await connect('stdin');
    next.socket.write('two\n');
    next.socket.end();
    expect(await out.all).toBe('one\ntwo\nover\n');
  });

  test('who reads nothing is let go, and neither the app nor another reader waits for him', async () => {
    plan('read -r line; seq 1 1000000; sleep 1000', STREAM);
    pod.start();
    const slow = await connect('stdout');
    const input = await connect('stdin');
    slow.socket.pause();
    input.socket.write('go\n');
    // 6 888 896 bytes and 40 before each line; the log has them all when the app is through.
    const log = () => statSync(join(pod.logs, 'a.log'), { throwIfNoEntry: false })?.size ?? 0;
    await until(() => log() >= 6_888_896 + 40 * 1_000_000);
    const fresh = await connect('stdout');
    expect(fresh.now()).toBe('');
    slow.socket.resume();
    const got = await slow.all;
    expect(got.length).toBeGreaterThan(0);
    expect(got.length).toBeLessThan(6_888_896);
    expect(
      `${Array.from({ length: 1_000_000 }, (_, i) => `${i + 1}\n`).join('')}`.startsWith(got),
    ).toBe(true);
  });

  test('an app that does not read holds its writer up, not init', async () => {
    plan('sleep 1000', STREAM);
    pod.start();
    const input = await connect('stdin');
    const flushed = input.socket.write(Buffer.alloc(4 * 1024 * 1024));
    expect(flushed).toBe(false);
    await new Promise(resolve => setTimeout(resolve, 100));
    expect(await ask(pod.dir, ['status'])).toHaveLength(6);
    expect(input.socket.writableLength).toBeGreaterThan(0);
  });

  test('an app that closes its input ends the writer’s connection', async () => {
    plan('exec <&-; sleep 1000', STREAM);
    pod.start();
    const input = await connect('stdin');
    const timer = setInterval(() => input.socket.write('x\n'), 10);
    expect(await input.all).toBe('');
    clearInterval(timer);
  });

  test('CVE-2025-64329: five hundred who came and went left nothing behind', async () => {
    plan('while read -r line; do echo "$line"; done', STREAM);
    pod.start();
    await connect('stdin');
    const before = descriptors();
    for (let round = 0; round < 50; round++) {
      const some = await Promise.all(
        [
          'stdout',
          'stdout',
          'stdout',
          'stdout',
          'stderr',
          'stderr',
          'stderr',
          'stdin',
          'stdin',
          'stdin',
        ].map(connect),
      );
      for (const { socket } of some) socket.destroy();
    }
    await until(() => descriptors() === before);
  });

  test('over sixteen readers are turned away', async () => {
    plan('sleep 1000', STREAM);
    pod.start();
    const many = await Promise.all(Array.from({ length: 17 }, () => connect('stdout')));
    expect(await Promise.race(many.map(({ all }) => all))).toBe('');
    expect(await ask(pod.dir, ['status'])).toHaveLength(6);
  });

  test('a restarted app has its sockets, and an added one, too', async () => {
    plan('read -r line; echo "$line"; exit 1', STREAM, [['restart', 'always']]);
    pod.start();
    for (const word of ['one', 'two']) {
      const out = await connect('stdout');
      const input = await connect('stdin');
      input.socket.write(`${word}\n`);
      expect(await out.all).toBe(`${word}\n`);
    }
  });

  test('an app’s name of a hundred letters', async () => {
    const name = 'n'.repeat(120);
    pod.plan([{ name, script: 'read -r line; echo "$line"', about: STREAM }]);
    pod.start();
    await pod.has(`rkt/attach/${name}-stdout`);
    const folder = join(pod.tree, 'rkt/attach');
    const out = await connectIn(folder, `${name}-stdout`);
    const input = await connectIn(folder, `${name}-stdin`);
    sockets.push(out, input);
    input.write('hi\n');
    expect(await new Promise(resolve => out.once('data', chunk => resolve(String(chunk))))).toBe(
      'hi\n',
    );
  });
});

describe('a terminal', () => {
  test('of its own: named, controlling, resized, logged', async () => {
    plan(
      'trap "stty size; exit 2" WINCH; tty; echo x > /dev/tty; while :; do sleep 0.02; done',
      TTY,
    );
    const end = ended(pod.start());
    const tty = await connect('tty');
    await until(() => pod.logFiles().length > 0 && pod.log('a').length >= 2);
    expect(pod.log('a')[0]).toMatch(/^stdout F \/dev\/pts\/\d+\r$/);
    expect(pod.log('a')[1]).toBe('stdout F x\r');
    expect(await ask(pod.dir, ['resize', 'a', '12', '34'])).toEqual([]);
    expect(await tty.all).toContain('12 34\r\n');
    expect(await end).toMatchObject({ status: 2, stdout: '', stderr: '' });
  });

  test('what is typed reaches it, ^C its foreground', async () => {
    plan(
      'trap "echo caught; exit 5" INT; read -r line; echo "got $line"; while :; do sleep 0.02; done',
      TTY,
    );
    const end = ended(pod.start());
    const tty = await connect('tty');
    tty.socket.write('hello\n');
    await until(() => tty.now().includes('got hello\r\n'));
    tty.socket.write('\x03');
    expect(await tty.all).toContain('caught\r\n');
    expect(await end).toMatchObject({ status: 5 });
  });

  test('the size that was said before it starts; a size that is none', async () => {
    plan('stty size', TTY, [['manual']]);
    pod.start();
    await pod.has('rkt/control');
    await ask(pod.dir, ['resize', 'a', '7', '9']);
    await expect(ask(pod.dir, ['resize', 'a', 'x', '9'])).rejects.toThrow(/size/);
    await expect(ask(pod.dir, ['resize', 'a', '65536', '9'])).rejects.toThrow(/size/);
    await ask(pod.dir, ['start', 'a']);
    await until(() => pod.status('a') === '0');
    expect(pod.log('a')).toEqual(['stdout F 7 9\r']);
  });

  test('an app without one', async () => {
    plan('sleep 1000', STREAM);
    pod.start();
    await pod.has('rkt/control');
    await expect(ask(pod.dir, ['resize', 'a', '7', '9'])).rejects.toThrow('it has no terminal');
  });

  test('long output at the end arrives whole', async () => {
    plan('read -r line; seq 1 20000', TTY);
    pod.start();
    const tty = await connect('tty');
    tty.socket.write('\n');
    const wanted = Array.from({ length: 20_000 }, (_, index) => `${index + 1}\r\n`).join('');
    expect(await tty.all).toBe(`\r\n${wanted}`);
  });
});
