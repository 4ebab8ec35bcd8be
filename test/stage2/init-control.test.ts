/** init's control socket, as the client asks it and as somebody asks who means harm. */
import { spawnSync } from 'node:child_process';
import { openSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { encodePlan, PLAN_MAGIC, type Step } from '../../src/pod/launch-plan.ts';
import { ask } from '../../stage1-flavors/nspawn/control.ts';
import { cases } from '../support/fuzz.ts';
import { ended, type InitEnd, InitPod } from '../support/init-pod.ts';

let pod: InitPod;
beforeEach(() => {
  pod = new InitPod();
});
afterEach(() => pod.remove());

const SLEEPER = {
  name: 'one',
  script: 'trap "exit 7" TERM; touch /tmp/up; while :; do sleep 0.02; done',
};

/** In a box of its own: a promise of a promise would be waited for. */
async function started(): Promise<{ readonly end: Promise<InitEnd> }> {
  pod.plan([SLEEPER], [['exit-policy', 'never']]);
  const end = ended(pod.start());
  await pod.has('tmp/up');
  return { end };
}

function framed(words: [string, ...string[]]): Buffer {
  const message = encodePlan([words]).subarray(PLAN_MAGIC.length);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(message.length);
  return Buffer.concat([length, message]);
}

function open(): Promise<Socket> {
  const folder = openSync(join(pod.tree, 'rkt'), 'r');
  return new Promise((resolve, reject) => {
    const socket = connect(`/proc/self/fd/${folder}/control`, () => resolve(socket));
    socket.once('error', reject);
  });
}

/** All that comes until the other side closes. */
function rest(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  socket.on('error', () => undefined);
  return new Promise(resolve => socket.once('close', () => resolve(Buffer.concat(chunks))));
}

test('status, stop, start, remove and add; the pod ends with what was asked', async () => {
  const { end } = await started();
  const [name, state, pid, status, restarts, ready] = await ask(pod.dir, ['status']);
  expect([name, state, status, restarts, ready]).toEqual(['one', 'running', '-', '0', '1']);
  expect(Number(pid)).toBeGreaterThan(1);
  await expect(ask(pod.dir, ['start', 'one'])).rejects.toThrow('start: it is running');
  expect(await ask(pod.dir, ['stop', 'one'])).toEqual([]);
  expect((await ask(pod.dir, ['status'])).slice(1, 4)).toEqual(['exited', '0', '7']);
  expect(await ask(pod.dir, ['remove', 'one'])).toEqual([]);
  expect(await ask(pod.dir, ['status'])).toEqual([]);
  await expect(ask(pod.dir, ['start', 'one'])).rejects.toMatchObject({ code: 'state' });
  pod.addPlans({ name: 'two', script: 'exec sleep 1000', about: [['manual']] });
  expect(await ask(pod.dir, ['add', 'two'])).toEqual([]);
  expect(await ask(pod.dir, ['start', 'two'])).toEqual([]);
  expect(await ask(pod.dir, ['stop-pod', '0'])).toEqual([]);
  expect(await end).toMatchObject({ status: 137 });
  await expect(ask(pod.dir, ['status'])).rejects.toMatchObject({ code: 'state' });
});

test('a message in single bytes, and two in one piece', async () => {
  await started();
  const socket = await open();
  const all = rest(socket);
  for (const byte of framed(['status'])) {
    socket.write(Buffer.from([byte]));
    await new Promise(resolve => setImmediate(resolve));
  }
  socket.write(Buffer.concat([framed(['kill', 'one', '0']), framed(['nonsense'])]));
  await new Promise(resolve => setTimeout(resolve, 200));
  socket.end();
  const text = (await all).toString('latin1');
  expect(text).toMatch(/one\0.*that is no signal\0.*the request is not understood\0$/s);
});

test.each<[string, Buffer, RegExp]>([
  ['a length over the bound', Buffer.from([1, 0, 1, 0]), /^$/],
  ['the longest length', Buffer.from([255, 255, 255, 255, 1, 2, 3]), /^$/],
  ['no words at all', Buffer.from([0, 0, 0, 0]), /the request is malformed\0$/],
  ['a count without words', Buffer.from([4, 0, 0, 0, 255, 255, 255, 255]), /malformed\0$/],
  [
    'two steps',
    (() => {
      const step = framed(['status']).subarray(4);
      return Buffer.concat([Buffer.from([step.length * 2, 0, 0, 0]), step, step]);
    })(),
    /malformed\0$/,
  ],
  ['a NUL in a word', framed(['status']).fill(0, 14, 15), /malformed\0$/],
])('%s is answered or let go, and init goes on', async (_, bytes, answer) => {
  await started();
  const socket = await open();
  const all = rest(socket);
  socket.write(bytes);
  await new Promise(resolve => setTimeout(resolve, 100));
  socket.end();
  expect((await all).toString('latin1')).toMatch(answer);
  expect(await ask(pod.dir, ['status'])).toHaveLength(6);
});

test('who asks and goes, or asks and never reads, keeps nobody from being answered', async () => {
  await started();
  const sockets = await Promise.all(Array.from({ length: 31 }, () => open()));
  for (const socket of sockets) socket.on('error', () => undefined);
  sockets[0]?.write(framed(['stop', 'one', '3600']).subarray(0, 9));
  sockets[1]?.write(Buffer.concat(Array.from({ length: 20_000 }, () => framed(['status']))));
  expect(await ask(pod.dir, ['status'])).toHaveLength(6);
  for (const socket of sockets) socket.destroy();
  const waiting = await open();
  waiting.write(framed(['stop', 'one']));
  waiting.destroy();
  await expect(ask(pod.dir, ['stop', 'one'])).resolves.toEqual([]);
  expect(await ask(pod.dir, ['status'])).toContain('exited');
});

test('apps come and go as often as one likes', async () => {
  await started();
  for (let round = 0; round < 300; round++) {
    pod.addPlans({ name: 'two', script: 'exit 3', about: [['manual']] });
    expect(await ask(pod.dir, ['add', 'two'])).toEqual([]);
    if (round % 50 === 0) {
      expect(await ask(pod.dir, ['start', 'two'])).toEqual([]);
      await ask(pod.dir, ['stop', 'two']);
    }
    expect(await ask(pod.dir, ['remove', 'two'])).toEqual([]);
  }
  expect(await ask(pod.dir, ['status'])).toHaveLength(6);
});

test.each<[string, readonly Step[], RegExp]>([
  [
    'about another app',
    [
      ['app', 'other'],
      ['launch', '/x'],
    ],
    /not about app "two" alone/,
  ],
  [
    'about two apps',
    [
      ['app', 'two'],
      ['launch', '/x'],
      ['app', 'three'],
      ['launch', '/x'],
    ],
    /not about app "two" alone/,
  ],
  [
    'about the app that there is',
    [
      ['app', 'one'],
      ['launch', '/x'],
    ],
    /is in it twice/,
  ],
  [
    'about the pod',
    [
      ['exit-policy', 'any'],
      ['app', 'two'],
      ['launch', '/x'],
    ],
    /about the pod/,
  ],
  [
    'about its time-out',
    [
      ['stop-timeout', '1'],
      ['app', 'two'],
      ['launch', '/x'],
    ],
    /about the pod/,
  ],
  ['without a launch plan', [['app', 'two']], /not about app "two" alone/],
  ['a verb without its word', [['app', 'two'], ['launch']], /can't have 0 words/],
  ['a verb that there is not', [['app', 'two'], ['nonsense']], /unknown verb/],
  [
    'a stream that it can not have',
    [
      ['app', 'two'],
      ['stdin', 'log'],
    ],
    /stdin/,
  ],
])('a plan %s is refused, and the pod goes on', async (_, steps, why) => {
  await started();
  pod.addPlans({ name: 'two', script: 'exit 3', about: [['manual']] });
  writeFileSync(join(pod.tree, 'rkt/apps/two/init-plan'), encodePlan(steps));
  await expect(ask(pod.dir, ['add', 'two'])).rejects.toThrow(why);
  expect(await ask(pod.dir, ['status'])).toHaveLength(6);
  pod.addPlans({ name: 'two', script: 'exit 3', about: [['manual']] });
  expect(await ask(pod.dir, ['add', 'two'])).toEqual([]);
});

test('what is no plan is refused, and the pod goes on', async () => {
  await started();
  pod.addPlans({ name: 'two', script: 'exit 3' });
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), fc.boolean(), async (bytes, magic) => {
      const path = join(pod.tree, 'rkt/apps/two/init-plan');
      writeFileSync(path, magic ? Buffer.concat([Buffer.from(PLAN_MAGIC), bytes]) : bytes);
      await expect(ask(pod.dir, ['add', 'two'])).rejects.toMatchObject({ code: 'state' });
    }),
    { numRuns: cases(60) },
  );
  await expect(ask(pod.dir, ['add', '../two'])).rejects.toThrow('that is no app name');
  expect(await ask(pod.dir, ['status'])).toHaveLength(6);
});

test('systemd-nspawn that was killed before init could ask to be told: no app is started', async () => {
  const bound = `import socket; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).bind('${pod.tree}/notify')`;
  expect(spawnSync('python3', ['-c', bound]).status).toBe(0);
  pod.environment['NOTIFY_SOCKET'] = '/notify';
  pod.plan([{ name: 'a', script: 'echo started' }]);
  expect(await pod.run()).toMatchObject({ status: 137, stdout: '' });
  expect(pod.status('a-created')).toBeUndefined();
});
