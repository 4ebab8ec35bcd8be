/** `tspod doctor` tells what a pod is run by, and why a flavor can't be had. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { TSPOD } from '../support/tspod.ts';
import { useSandbox } from './sandbox.ts';

const use = useSandbox();

interface Check {
  readonly name: string;
  readonly state: string;
  readonly detail: string;
  readonly hint?: string;
}

async function doctor(before = '', more: readonly string[] = []): Promise<readonly Check[]> {
  const command = [TSPOD, ...use.box.globalFlags, ...more, 'doctor', '--format=json'];
  const script = ['-m', '--propagation', 'private', 'sh', '-ec', `${before}\nexec "$@"`, 'sh'];
  const ended = await use.box.spawn('unshare', [...script, ...command]).ended;
  expect(ended).toMatchObject({ status: 0, stderr: '' });
  return JSON.parse(ended.stdout) as readonly Check[];
}

const named = (checks: readonly Check[], name: string) => checks.find(check => check.name === name);

test('each flavor, and the one that is taken by default', async () => {
  const checks = await doctor();
  expect(named(checks, 'stage1')).toMatchObject({
    state: 'ok',
    detail: expect.stringMatching(/^flavor (fly|nspawn) by default/),
  });
  expect(named(checks, 'flavor fly')).toMatchObject({ state: 'ok' });
  expect(named(checks, 'flavor nspawn')).toMatchObject({
    state: 'ok',
    detail: expect.stringMatching(/^systemd-nspawn \d+; /),
  });
  expect(named(checks, 'flavor kvm')).toBeDefined();
});

test('a configured default', async () => {
  const folder = join(use.box.root, 'config');
  mkdirSync(join(folder, 'stage1.d'), { recursive: true });
  const stage1 = (about: object) =>
    writeFileSync(
      join(folder, 'stage1.d/one.json'),
      JSON.stringify({ rktKind: 'stage1', rktVersion: 'v1', ...about }),
    );
  stage1({ name: 'coreos.com/rkt/stage1-coreos', version: '1.30.0' });
  const flags = [`--user-config=${folder}`];
  expect(named(await doctor('', flags), 'stage1')?.detail).toMatch(/^flavor nspawn by default/);
  stage1({ name: 'coreos.com/rkt/stage1-kvm', version: '1.30.0', location: 'x' });
  const [check] = (await doctor('', flags)).filter(({ name }) => name === 'stage1');
  expect(check).toMatchObject({ state: 'warn', hint: 'name one: --stage1-name' });
});

test.each([
  ['another program', '#!/bin/sh\\necho 7\\n', 0o755, 'it tells no version'],
  ['no program', '', 0o644, 'does not start'],
  ['an old one', '#!/bin/sh\\necho "systemd 219"\\n', 0o755, 'systemd-nspawn 219 is older than'],
])('systemd-nspawn is %s', async (_what, text, mode, why) => {
  const file = join(use.box.root, 'nspawn');
  const before = `printf '${text}' >${file}; chmod ${mode.toString(8)} ${file}; mount --bind ${file} /usr/bin/systemd-nspawn`;
  expect(named(await doctor(before), 'flavor nspawn')).toMatchObject({
    state: 'warn',
    detail: expect.stringContaining(why),
  });
});
