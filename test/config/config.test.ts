/** Configuration files in the folders of system, administrator and user. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { loadConfig } from '../../src/config/config.ts';
import { configToJson } from '../../src/config/show.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'tspod-config-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

function write(path: string, value: object | string): void {
  mkdirSync(dirname(join(dir, path)), { recursive: true });
  writeFileSync(join(dir, path), typeof value === 'string' ? value : JSON.stringify(value));
}
const config = () =>
  loadConfig({ systemConfig: `${dir}/s`, localConfig: `${dir}/l`, userConfig: `${dir}/u` });
const docker = (registry: string, user: string) => ({
  rktKind: 'dockerAuth',
  rktVersion: 'v1',
  registries: [registry],
  credentials: { user, password: 'p' },
});

test('a later folder replaces by key', () => {
  write('s/auth.d/a.json', docker('a.x', 'system'));
  write('s/auth.d/b.json', docker('b.x', 'system'));
  write('l/auth.d/z.json', docker('a.x', 'local'));
  const { dockerAuth } = config();
  expect(dockerAuth.get('a.x')?.user).toBe('local');
  expect(dockerAuth.get('b.x')?.user).toBe('system');
  write('s/paths.d/p.json', {
    rktKind: 'paths',
    rktVersion: 'v1',
    data: '/a',
    'stage1-images': '/b',
  });
  write('u/paths.d/p.json', { rktKind: 'paths', rktVersion: 'v1', data: '/c' });
  expect(config().paths).toEqual({ data: '/c', stage1Images: '/b' });
});

test('one key twice in a folder is an error that names both files', () => {
  write('s/auth.d/a.json', docker('a.x', 'one'));
  write('s/auth.d/b.json', docker('a.x', 'two'));
  expect(() => config().dockerAuth).toThrow(/b\.json: "a\.x" is also configured in .*a\.json/);
});

test('links, folders and other names are passed over; a kind that is not asked for is not read', () => {
  write('outside.json', docker('a.x', 'one'));
  write('s/auth.d/a.txt', 'garbage');
  write('s/auth.d/sub.json/x.json', 'garbage');
  symlinkSync(join(dir, 'outside.json'), join(dir, 's/auth.d/link.json'));
  write('s/stage1.d/bad.json', 'garbage');
  expect(config().dockerAuth.size).toBe(0);
  expect(() => config().stage1).toThrow(/bad\.json: it is not JSON/);
});

test.each([
  [{ rktKind: 'auth' }, /rktVersion/],
  [{ rktKind: 'paths', rktVersion: 'v1' }, /rktKind "paths" does not belong here/],
  [{ rktKind: 'auth', rktVersion: 'v2' }, /rktVersion "v2"/],
  [{ rktKind: 'auth', rktVersion: 'v1', domains: [], type: 'basic' }, /domains is empty/],
  [
    {
      rktKind: 'auth',
      rktVersion: 'v1',
      domains: ['x'],
      type: 'basic',
      credentials: { user: 'a' },
    },
    /credentials\.password/,
  ],
])('a wrong file names file and key: %j', (value, expected) => {
  write('l/auth.d/x.json', value);
  expect(() => config().auth).toThrow(expected);
  expect(() => config().auth).toThrow(/l\/auth\.d\/x\.json/);
});

test('registries and the printed shape', () => {
  write('l/registries.d/r.json', {
    rktKind: 'registries',
    rktVersion: 'v1',
    registries: ['docker.io'],
    mirrors: ['mirror.x:5000/hub'],
    insecure: ['tls'],
  });
  write('l/auth.d/a.json', docker('a.x', 'me'));
  expect(config().registries.get('docker.io')?.mirrors).toEqual([
    { registry: 'mirror.x:5000', prefix: 'hub/' },
  ]);
  expect(configToJson(config())).toEqual({
    stage0: [
      {
        rktVersion: 'v1',
        rktKind: 'dockerAuth',
        registries: ['a.x'],
        credentials: { user: 'me', password: 'p' },
      },
      {
        rktVersion: 'v1',
        rktKind: 'registries',
        registries: ['docker.io'],
        mirrors: ['mirror.x:5000/hub'],
        insecure: ['tls'],
      },
    ],
  });
});
