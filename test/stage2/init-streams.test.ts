/** What init does with the apps' output: every byte arrives, in the log and on init's own streams. */
import { type ChildProcess, spawn } from 'node:child_process';
import { openSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Step } from '../../src/pod/launch-plan.ts';
import { ask } from '../../stage1-flavors/nspawn/control.ts';
import { ended, InitPod, until } from '../support/init-pod.ts';

let pod: InitPod;
beforeEach(() => {
  pod = new InitPod();
});
afterEach(() => pod.remove());

const LOG: readonly Step[] = [
  ['stdin', 'null'],
  ['stdout', 'log'],
  ['stderr', 'log'],
];

function logged(
  script: string,
  bytes = 10 * 1024 * 1024,
  kept = 3,
  more: readonly Step[] = [],
): void {
  const file: Step = ['log', 'file', '/rkt/logs/a.log', String(bytes), String(kept)];
  pod.plan([{ name: 'a', script, about: [...LOG, file, ...more] }]);
}

/** The text of a log: parts put together again, a newline after each whole line. */
function text(lines: readonly string[], stream: string): string {
  return lines
    .filter(line => line.startsWith(`${stream} `))
    .map(line => line.slice(stream.length + 3) + (line[stream.length + 1] === 'F' ? '\n' : ''))
    .join('');
}

describe('the log', () => {
  test('lines of both streams, empty ones, and one without an end', async () => {
    logged('echo one; echo; echo two >&2; printf "last\\nno end"');
    expect(await pod.run()).toMatchObject({
      status: 0,
      stdout: 'one\n\nlast\nno end',
      stderr: 'two\n',
    });
    const lines = pod.log('a');
    expect(text(lines, 'stdout')).toBe('one\n\nlast\nno end\n');
    expect(text(lines, 'stderr')).toBe('two\n');
    const whole = readFileSync(join(pod.logs, 'a.log'), 'latin1');
    for (const line of whole.split('\n').slice(0, -1))
      expect(line).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (stdout|stderr) F /);
    expect(statSync(join(pod.logs, 'a.log')).mode & 0o777).toBe(0o640);
  });

  test.each([16_383, 16_384, 16_385, 32_768, 40_000])('a line of %i bytes', async length => {
    logged(`head -c ${length} /dev/zero | tr "\\0" x; echo; echo after`);
    const end = await pod.run();
    expect(end.stdout).toBe(`${'x'.repeat(length)}\nafter\n`);
    const lines = pod.log('a');
    expect(text(lines, 'stdout')).toBe(end.stdout);
    expect(lines.filter(line => line.includes('P '))).toHaveLength(Math.ceil(length / 16_384) - 1);
    expect(Math.max(...lines.map(line => line.length))).toBeLessThanOrEqual(16_384 + 9);
  });

  test('binary: every byte as it is', async () => {
    logged('i=0; while [ $i -lt 256 ]; do printf "\\\\$(printf %03o $i)"; i=$((i+1)); done');
    const end = await pod.run();
    const all = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
    expect(end.bytes.equals(all)).toBe(true);
    expect(text(pod.log('a'), 'stdout')).toBe(`${all.toString('latin1')}\n`);
  });

  test('a hundred thousand lines at once', async () => {
    logged('seq 1 100000', 100 * 1024 * 1024);
    const end = await pod.run();
    const wanted = Array.from({ length: 100_000 }, (_, index) => `${index + 1}\n`).join('');
    expect(end.stdout).toBe(wanted);
    expect(text(pod.log('a'), 'stdout')).toBe(wanted);
  });

  test('rotation: no file over the bound, as many kept as asked, nothing between them lost', async () => {
    logged('seq 1 1000', 4096, 100);
    await pod.run();
    const files = pod.logFiles();
    const numbers = files.length - 1;
    expect(numbers).toBeGreaterThan(5);
    for (const file of files) expect(statSync(join(pod.logs, file)).size).toBeLessThanOrEqual(4096);
    const lines: string[] = [];
    for (let number = numbers; number > 0; number--) lines.push(...pod.log('a', number));
    lines.push(...pod.log('a'));
    expect(text(lines, 'stdout')).toBe(
      Array.from({ length: 1000 }, (_, i) => `${i + 1}\n`).join(''),
    );
  });

  test('rotation at the very size', async () => {
    // 30 of time, 10 of "\x20stdout F ", 23 of text, 1: three records are 192 bytes to the byte.
    const line = 'x'.repeat(23);
    logged(`for i in 1 2 3 4 5 6; do echo ${line}; done`, 192, 5);
    await pod.run();
    expect(pod.logFiles()).toEqual(['a.log', 'a.log.1']);
    for (const file of pod.logFiles()) expect(statSync(join(pod.logs, file)).size).toBe(192);
  });

  test('only so many are kept, and with none the file begins anew', async () => {
    logged('seq 1 1000', 2048, 2);
    await pod.run();
    expect(pod.logFiles()).toEqual(['a.log', 'a.log.1', 'a.log.2']);
    await pod.remove();
    pod = new InitPod();
    logged('seq 1 1000', 2048, 0);
    await pod.run();
    expect(pod.logFiles()).toEqual(['a.log']);
    expect(pod.log('a').at(-1)).toBe('stdout F 1000');
  });

  test('one line that is over the bound is written all the same', async () => {
    logged('head -c 1000 /dev/zero | tr "\\0" x; echo; echo y', 100, 3);
    await pod.run();
    expect(text(pod.log('a', 1), 'stdout')).toBe(`${'x'.repeat(1000)}\n`);
    expect(text(pod.log('a'), 'stdout')).toBe('y\n');
  });

  test('a restarted app goes on with its log', async () => {
    logged('echo run; [ -e /tmp/again ] && exit 0; touch /tmp/again; exit 1', 1e6, 3, [
      ['restart', 'on-failure'],
    ]);
    expect(await pod.run()).toMatchObject({ status: 0, stdout: 'run\nrun\n' });
    expect(text(pod.log('a'), 'stdout')).toBe('run\nrun\n');
  });

  test('where the log cannot be written it is told once, and the app goes on', async () => {
    const file: Step = ['log', 'file', '/rkt/none/a.log', '1000', '1'];
    pod.plan([{ name: 'a', script: 'seq 1 5', about: [...LOG, file] }]);
    const end = await pod.run();
    expect(end).toMatchObject({ status: 0, stdout: '1\n2\n3\n4\n5\n' });
    expect(end.stderr.match(/can't write its log/g)).toHaveLength(1);
  });

  test('a link where the log should be is not followed', async () => {
    logged('echo hi');
    spawn('ln', ['-s', '/rkt/init-plan', join(pod.logs, 'a.log')]);
    await until(() => readdirSync(pod.logs).length === 1);
    const before = readFileSync(join(pod.tree, 'rkt/init-plan'));
    const end = await pod.run();
    expect(end.stderr).toContain("can't write its log");
    expect(readFileSync(join(pod.tree, 'rkt/init-plan')).equals(before)).toBe(true);
  });
});

describe("init's own streams", () => {
  /** init's output goes into a FIFO's or pipe's other end that `reader` (shell text) reads. */
  function readBy(reader: string): { child: ChildProcess; output: Promise<string> } {
    const child = spawn('sh', ['-c', reader], { stdio: ['pipe', 'pipe', 'inherit'] });
    return { child, output: ended(child).then(({ stdout }) => stdout) };
  }

  const MANY = 'seq 1 60000';
  const WANTED = Array.from({ length: 60_000 }, (_, index) => `${index + 1}\n`).join('');

  test('a slow reader of a socket gets all, also when the app has long ended', async () => {
    const { child, output } = readBy('sleep 0.5; cat');
    logged(MANY, 1e9);
    const init = pod.start(['ignore', child.stdin, 'inherit']);
    child.stdin?.destroy();
    expect(await output).toBe(WANTED);
    await until(() => init.exitCode !== null);
    expect(init.exitCode).toBe(0);
    expect(text(pod.log('a'), 'stdout')).toBe(WANTED);
  });

  test('and so does the slow reader of a pipe', async () => {
    logged(MANY, 1e9);
    const end = await ended(pod.start(['ignore', 'pipe', 'inherit'], '"$@" | { sleep 0.5; cat; }'));
    expect(end.stdout).toBe(WANTED);
    expect(text(pod.log('a'), 'stdout')).toBe(WANTED);
  });

  test('a reader that goes early: the app goes on, the log has all', async () => {
    const { child, output } = readBy('head -n 1');
    logged(`${MANY}; echo done > /tmp/done`, 1e9);
    const init = pod.start(['ignore', child.stdin, 'inherit']);
    child.stdin?.destroy();
    await output;
    await new Promise(resolve => init.once('exit', resolve));
    expect(init.exitCode).toBe(0);
    expect(text(pod.log('a'), 'stdout')).toBe(WANTED);
  });

  test('who never reads holds up the end, but not the one that is forced', async () => {
    const { child } = readBy('exec sleep 1000');
    logged(MANY, 1e9);
    const init = pod.start(['ignore', child.stdin, 'inherit']);
    child.stdin?.destroy();
    await pod.has('rkt/control');
    const [, state] = await ask(pod.dir, ['status']);
    expect(state).toBe('running');
    expect(await ask(pod.dir, ['stop-pod', '0'])).toEqual([]);
    await until(() => init.exitCode !== null);
    child.kill('SIGKILL');
    expect(init.exitCode).toBe(137);
  });

  test('what the app wrote last is read, what its descendants write later is not waited for', async () => {
    logged('(sleep 1000; echo late) & echo early; exit 4');
    expect(await pod.run()).toMatchObject({ status: 4, stdout: 'early\n' });
    expect(text(pod.log('a'), 'stdout')).toBe('early\n');
  });

  test('a descendant that never stops writing does not keep the pod', async () => {
    logged('yes & exec sleep 0.2', 1e9);
    const init = pod.start(['ignore', openSync('/dev/null', 'w'), 'inherit']);
    await until(() => init.exitCode !== null);
    expect(init.exitCode).toBe(0);
  });

  test('an app that closes its output runs on', async () => {
    logged('exec >&- 2>&-; sleep 0.3; exit 6');
    expect(await pod.run()).toMatchObject({ status: 6, stdout: '' });
  });

  test('init does not spin while it waits', async () => {
    const { child } = readBy('exec sleep 1000');
    logged(`${MANY} & sleep 0.1`, 1e9);
    const init = pod.start(['ignore', child.stdin, 'inherit']);
    child.stdin?.destroy();
    await until(() => pod.status('a') === '0');
    const before = ticks(init);
    await new Promise(resolve => setTimeout(resolve, 500));
    expect(ticks(init) - before).toBeLessThanOrEqual(5);
    init.kill('SIGKILL');
    child.kill('SIGKILL');
  });

  /** CPU time of init, which is the only child of unshare. */
  function ticks(unshare: ChildProcess): number {
    const pid = readFileSync(`/proc/${unshare.pid}/task/${unshare.pid}/children`, 'latin1').trim();
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return Number(fields[11]) + Number(fields[12]);
  }
});
