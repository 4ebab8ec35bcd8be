/** Lines for the journal: what is sent, and that a journal that is gone or stuck holds no pod up. The real one: test/vm. */
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { InitPod, until } from '../support/init-pod.ts';

const SOCKET = `import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
print("ready", flush=True)
`;
const READER = `${SOCKET}while True: print(s.recv(1 << 20).hex(), flush=True)\n`;
const STUCK = `${SOCKET}import time\ntime.sleep(60)\n`;

let pod: InitPod;
let journal: ChildProcess | undefined;
beforeEach(() => {
  pod = new InitPod();
});
afterEach(async () => {
  journal?.kill('SIGKILL');
  journal = undefined;
  await pod.remove();
});

async function startJournal(program: string): Promise<string[]> {
  const child = spawn('python3', ['-c', program, join(pod.tree, 'rkt/journal')]);
  journal = child;
  let text = '';
  const entries: string[] = [];
  let ready = false;
  child.stdout.on('data', chunk => {
    const lines = `${text}${chunk}`.split('\n');
    text = lines.pop() ?? '';
    for (const line of lines)
      if (ready) entries.push(Buffer.from(line, 'hex').toString('latin1'));
      else ready = line === 'ready';
  });
  await until(() => ready);
  return entries;
}

const LOGGED = [
  ['stdout', 'log'],
  ['stderr', 'log'],
  ['log', 'journal'],
  ['log-field', 'NOTE', 'two\nlines'],
] as const;

test('each line is an entry with its fields; a long one comes in parts', async () => {
  const entries = await startJournal(READER);
  pod.plan([
    {
      name: 'web',
      script: 'echo one; sleep 0.1; echo two >&2; sleep 0.1; head -c 20000 /dev/zero | tr "\\0" x',
      about: LOGGED,
    },
  ]);
  const { status, stderr } = await pod.run();
  expect([status, stderr]).toEqual([0, 'two\n']);
  await until(() => entries.length === 4);
  const common =
    'SYSLOG_IDENTIFIER=web\nTSPOD_APP=web\nTSPOD_POD=a-pod\nNOTE\n\t\0\0\0\0\0\0\0two\nlines\n';
  expect(entries).toEqual([
    `${common}TSPOD_STREAM=stdout\nPRIORITY=6\nMESSAGE=one\n`,
    `${common}TSPOD_STREAM=stderr\nPRIORITY=3\nMESSAGE=two\n`,
    `${common}TSPOD_STREAM=stdout\nPRIORITY=6\nTSPOD_PARTIAL=true\nMESSAGE=${'x'.repeat(16384)}\n`,
    `${common}TSPOD_STREAM=stdout\nPRIORITY=6\nMESSAGE=${'x'.repeat(20000 - 16384)}\n`,
  ]);
});

test('where there is no journal that is said once', async () => {
  pod.plan([{ name: 'web', script: 'echo one; echo two', about: LOGGED }]);
  const { status, stdout, stderr } = await pod.run();
  expect([status, stdout]).toEqual([0, 'one\ntwo\n']);
  expect(stderr).toBe(
    'init: a line of app "web" does not reach the journal: No such file or directory\n',
  );
});

test('a journal that reads nothing costs lines, not the pod', async () => {
  await startJournal(STUCK);
  const script = 'i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done';
  pod.plan([{ name: 'web', script, about: LOGGED }]);
  const { status, stdout, stderr } = await pod.run();
  expect(status).toBe(0);
  expect(stdout.split('\n').length).toBe(3001);
  expect(stderr).toContain('does not reach the journal: Resource temporarily unavailable');
});

test('a field that is the journal’s own is refused with the plan', async () => {
  pod.plan([{ name: 'web', script: 'true', about: [['log-field', '_UID', '0']] }]);
  const { status, stderr } = await pod.run();
  expect(status).toBe(254);
  expect(stderr).toContain('log-field: "_UID" can\'t be one');
});
