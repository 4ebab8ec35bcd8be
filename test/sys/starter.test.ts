/** The command as npm links it: bin/tspod, dist/tspod, and what reaches the bundle of them. */
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { artifact } from '../../src/sys/artifacts.ts';
import { callerEnvironment } from '../../src/sys/caller-env.ts';

let dir: string;
/** An installed package whose bundle prints what it got. */
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'tspod-starter-'));
  const home = join(dir, 'node_modules/tspod');
  for (const folder of ['bin', 'dist', '../.bin'])
    mkdirSync(join(home, folder), { recursive: true });
  mkdirSync(join(dir, `node_modules/node-linux-${process.arch}/bin`), { recursive: true });
  symlinkSync(process.execPath, join(dir, `node_modules/node-linux-${process.arch}/bin/node`));
  copyFileSync(join(artifact('tspod.js'), '../../bin/tspod'), join(home, 'bin/tspod'));
  copyFileSync(artifact('launch').replace('launch', 'tspod'), join(home, 'dist/tspod'));
  writeFileSync(
    join(home, 'dist/tspod.js'),
    'console.log(JSON.stringify({ args: process.argv.slice(2), env: process.env }));',
  );
  for (const name of ['tspod', 'rkt']) {
    symlinkSync('../tspod/bin/tspod', join(dir, 'node_modules/.bin', name));
  }
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const run = (name: string, env: NodeJS.ProcessEnv, args: readonly string[] = []) =>
  spawnSync(join(dir, 'node_modules/.bin', name), args, { encoding: 'utf8', env });

test('finds the hoisted Node through links, without any on the PATH', () => {
  const result = run('rkt', { PATH: '/usr/bin:/bin' }, ['a b', '--', "c'd"]);
  expect(result.stderr).toBe('');
  expect(JSON.parse(result.stdout)).toMatchObject({
    args: ['a b', '--', "c'd"],
    env: {
      TSPOD_ARGV0: 'rkt',
      TSPOD_START: expect.stringMatching(/^1:[0-9a-f]+:[0-9a-f]+:[0-9a-f]+:\d$/),
    },
  });
});

test('NODE_OPTIONS and its like do not reach Node, but the pod can inherit them', () => {
  const result = run('tspod', {
    PATH: '/usr/bin:/bin',
    NODE_OPTIONS: '--require=/no/such/file',
    NODE_TLS_REJECT_UNAUTHORIZED: '0',
    NODE_EXTRA_CA_CERTS: '/dev/null',
    TSPOD_SAVED_OLD: 'x',
  });
  const { env } = JSON.parse(result.stdout);
  expect(env).not.toHaveProperty('NODE_OPTIONS');
  expect(env).not.toHaveProperty('TSPOD_SAVED_OLD');
  expect(env).toMatchObject({ NODE_EXTRA_CA_CERTS: '/dev/null' });
  expect(callerEnvironment(env)).toMatchObject({
    NODE_OPTIONS: '--require=/no/such/file',
    NODE_TLS_REJECT_UNAUTHORIZED: '0',
  });
  expect(callerEnvironment(env)).not.toHaveProperty('TSPOD_START');
});

test('a missing build and a missing Node are one line each', () => {
  rmSync(join(dir, `node_modules/node-linux-${process.arch}`), { recursive: true });
  const noNode = spawnSync(join(dir, 'node_modules/tspod/dist/tspod'), [], {
    encoding: 'utf8',
    env: { PATH: '/none' },
  });
  expect(noNode).toMatchObject({ status: 254 });
  expect(noNode.stderr).toMatch(
    /^tspod: can't start: the package node-linux-\w+ is not installed and [^\n]+\n$/,
  );
  rmSync(join(dir, 'node_modules/tspod/dist/tspod'));
  const noBuild = run('tspod', { PATH: '/usr/bin:/bin' });
  expect(noBuild).toMatchObject({ status: 254 });
  expect(noBuild.stderr).toMatch(
    /^tspod: can't start: [^\n]+ is missing; build it with npm run build[^\n]+\n$/,
  );
});
