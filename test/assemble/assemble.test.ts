/** From flags and image config to a Pod: precedence, grammars, refusals; and the manifest out and back. */
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TspodError } from '../../src/errors.ts';
import { parseDns, parseHosts } from '../../src/pod/dns.ts';
import {
  cpuSharesIsolator,
  memoryIsolator,
  oomScoreAdjIsolator,
  readIsolation,
} from '../../src/pod/isolators.ts';
import { parsePodManifest } from '../../src/pod/manifest.ts';
import { appNameFromImage } from '../../src/pod/names.ts';
import { parseQuantity } from '../../src/pod/quantity.ts';
import { parseRlimit } from '../../src/pod/rlimits.ts';
import { parseMount, parseVolume } from '../../src/pod/volumes.ts';
import { assemble, imageOf } from '../support/fly-pod.ts';
import { cases } from '../support/fuzz.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'tspod-assemble-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const appOf = (...wanted: Parameters<typeof assemble>) => {
  const [app] = assemble(...wanted).apps;
  if (app === undefined) throw new Error('no app');
  return app;
};

describe('the image’s config', () => {
  it('becomes an appc app under docker2aci’s names', () => {
    const { app, name } = appOf({
      config: {
        Entrypoint: ['/a'],
        Cmd: ['b'],
        ExposedPorts: ['80/tcp', '53/udp', '9'],
        Volumes: ['/var/lib/x'],
        WorkingDir: '/w',
      },
      appArgs: ['c'],
    });
    expect(name).toBe('busybox');
    expect(app.exec).toEqual(['/a', 'b', 'c']);
    expect(app.ports?.map(port => port.name)).toEqual(['53-udp', '80-tcp', '9-tcp']);
    expect(app.mountPoints).toEqual([{ name: 'volume-var-lib-x', path: '/var/lib/x' }]);
    expect(app.workingDirectory).toBe('/w');
  });

  it.each([
    ['CVE-2026-30892', 'a:b:c'],
    ['CVE-2026-30892', ':1'],
    ['CVE-2026-30892', 'ann:'],
    ['CVE-2026-30892', 'ann\n'],
    ['CVE-2026-30892', '/etc/passwd'],
    ['CVE-2024-40635', '4294967295'],
    ['CVE-2024-40635', '2147483648000'],
    ['CVE-2026-30892', '-1'],
  ])('%s: User %j is refused', (_, User) => {
    expect(() => assemble({ config: { User } })).toThrow(/its config's User is wrong/);
  });

  it.each(['/../etc', 'data', '/', '/a\0b'])('CVE-2022-23648: volume %j is refused', volume => {
    expect(() => assemble({ config: { Volumes: [volume] } })).toThrow(
      /its config's Volumes is wrong/,
    );
  });

  it('CVE-2019-16884: nothing is mounted on /proc', () => {
    expect(() => parseMount('volume=a,target=/proc/self')).toThrow('/proc');
    expect(() => parseMount('volume=a,target=//proc/')).toThrow('/proc');
  });

  it('CVE-2026-53488: labels stay below their own prefix', () => {
    const { manifest } = assemble({
      config: { Labels: { 'coreos.com/rkt/stage1/mutable': 'true', 'tspod/groups': 'x' } },
    });
    expect(manifest.apps[0]?.annotations?.slice(0, 3)).toEqual([
      { name: 'oci/label/coreos.com/rkt/stage1/mutable', value: 'true' },
      { name: 'oci/label/tspod/groups', value: 'x' },
      { name: 'appc.io/docker/entrypoint', value: '["/bin/busybox"]' },
    ]);
    for (const { name } of manifest.apps[0]?.annotations?.slice(3) ?? []) {
      expect(name).toMatch(/^appc\.io\/docker\//);
    }
  });
});

describe('volumes', () => {
  it.each([
    ['a,kind=bogus', 'unknown volume kind "bogus"'],
    ['A,kind=empty', 'not a volume’s name'.replace('’', "'")],
    ['a', 'it has no kind'],
    ['a,kind=host', 'needs a source'],
    ['a,kind=host,source=rel', 'not an absolute path'],
    ['a,kind=host,source=/x,mode=0755', "mode can't be given with kind=host"],
    ['a,kind=empty,source=/x', "source can't be given with kind=empty"],
    ['a,kind=empty,size=1Mi', "size can't be given with kind=empty"],
    ['a,kind=empty,mode=999', 'not octal'],
    ['a,kind=empty,uid=4294967295', 'is not an id'],
    ['a,kind=empty,kind=host', 'kind is given twice'],
    ['a,kind=empty,x=y', 'unknown volume parameter "x"'],
    ['a,kind=empty,readOnly=maybe', 'neither true nor false'],
    ['a,kind=tmpfs,size=1', 'not a number of bytes'],
  ])('%s: %s', (text, message) => expect(() => parseVolume(text)).toThrow(message));

  it('a source that is not there has rkt’s words', () => {
    expect(() => assemble({ args: { volumes: ['a,kind=host,source=/nonexistent/x'] } })).toThrow(
      'Failed to stat /nonexistent/x: No such file or directory',
    );
  });
  it('CVE-2024-1753: a source is resolved once', () => {
    symlinkSync('/etc', join(folder, 'link'));
    const pod = assemble({
      args: { volumes: [`a,kind=host,source=${folder}/link`], mounts: ['volume=a,target=/a'] },
    });
    expect(pod.manifest.volumes[0]?.source).toBe('/etc');
  });
  it('dangling, doubled and unknown', () => {
    expect(() => assemble({ flags: { mounts: ['volume=a,target=/a'] } })).toThrow(
      'dangling mount point "/a": volume "a" not found',
    );
    expect(() => assemble({ args: { volumes: ['a,kind=empty', 'a,kind=empty'] } })).toThrow(
      'more than one volume "a"',
    );
    expect(() => parseMount('volume=a,target=/a,x=y')).toThrow('unknown mount parameter "x"');
  });
  it('a mount wins over the image’s mount point, a volume of its name fills it', () => {
    const config = { Volumes: ['/data', '/logs'] };
    const { mounts } = appOf({
      config,
      args: {
        volumes: ['volume-data,kind=empty', 'b,kind=tmpfs'],
        mounts: ['volume=b,target=/logs/'],
      },
    });
    expect(mounts.map(({ volume, path }) => [volume.name, path])).toEqual([
      ['b', '/logs'],
      ['volume-data', '/data'],
    ]);
  });
});

describe('refusals', () => {
  it.each<[string, Parameters<typeof assemble>]>([
    ['multiple apps with name busybox', [{}, { images: [imageOf({}), imageOf({})] }]],
    ['has an empty "exec" (try --exec=BINARY)', [{ config: { Entrypoint: [], Cmd: [] } }]],
    ['mutually exclusive', [{ flags: { capsRetain: ['CAP_KILL'], capsRemove: ['CAP_KILL'] } }]],
    ['"CAP_BOGUS" is not a capability', [{ flags: { capsRetain: ['CAP_BOGUS'] } }]],
    ['no app has a port "x"', [{ args: { ports: ['x:80'] } }]],
    [
      'interactive option only supports one image',
      [{ args: { interactive: true } }, { images: [imageOf({}), imageOf({})] }],
    ],
    ['cannot use both overlay and user namespace', [{ args: { privateUsers: true } }]],
    ['must provide at least one image', [{}, { images: [] }]],
    ['--environment=X: it must be of the form NAME=VALUE', [{ flags: { environment: ['X'] } }]],
    ['--supplementary-gids=1,x', [{ flags: { supplementaryGids: '1,x' } }]],
    ['--user: ', [{ flags: { user: 'a:b' } }]],
  ])('%s', (message, input) => expect(() => assemble(...input)).toThrow(message));
});

describe('grammars', () => {
  it('quantities', () => {
    expect(parseQuantity('16Mi', 0, 'x')).toBe(16n << 20n);
    expect(parseQuantity('50M', 0, 'x')).toBe(50_000_000n);
    expect(parseQuantity('500m', 3, 'x')).toBe(500n);
    expect(parseQuantity('1.5', 3, 'x')).toBe(1500n);
    expect(parseQuantity('1e3', 0, 'x')).toBe(1000n);
    expect(parseQuantity('0.5', 0, 'x')).toBe(1n);
    for (const bad of ['', '-1', '1 M', '1MM', '0x10', 'M', '1e999', 'Infinity']) {
      expect(() => parseQuantity(bad, 0, 'x')).toThrow('is not a quantity');
    }
    expect(() => memoryIsolator('4095')).toThrow('less than 4096');
    expect(() => oomScoreAdjIsolator('1001')).toThrow('not a whole number');
    expect(() => cpuSharesIsolator('x')).toThrow('not a whole number');
  });
  it('isolators of one kind come once', () => {
    const both = ['retain', 'remove'].map(mode => ({
      name: `os/linux/seccomp-${mode}-set`,
      value: { set: ['mount'] },
    }));
    expect(() => readIsolation(both, 'app "a"')).toThrow('more than one');
  });
  it('rlimits', () => {
    expect(parseRlimit('RLIMIT_NOFILE=1:2')).toEqual({ name: 'nofile', soft: '1', hard: '2' });
    expect(parseRlimit('core=unlimited')).toEqual({
      name: 'core',
      soft: 'infinity',
      hard: 'infinity',
    });
    for (const bad of ['nofile=2:1', 'x=1', 'nofile', 'nofile=1:2:3', 'nofile=infinity:1'])
      expect(() => parseRlimit(bad)).toThrow(TspodError);
  });
  it('DNS', () => {
    const flags = { servers: [], search: [], options: [], domain: '' };
    expect(parseDns(flags)).toEqual({ mode: 'default' });
    expect(parseDns({ ...flags, servers: ['host'] })).toEqual({ mode: 'host' });
    expect(() => parseDns({ ...flags, servers: ['host', '1.1.1.1'] })).toThrow('--dns=host');
    expect(() => parseDns({ ...flags, servers: ['example.com'] })).toThrow('neither an IP address');
    expect(() => parseDns({ ...flags, search: ['a\nnameserver 6.6.6.6'] })).toThrow('not one word');
    expect(() => parseHosts(['host', '1.1.1.1=a'])).toThrow('host');
    expect(() => parseHosts(['1.1.1.1=a b'])).toThrow('IP=NAME');
  });
  it.each([
    ['docker://127.0.0.1:5000/a/Busy_Box:1.0@sha256:ab', 'busy-box'],
    ['oci:/tmp/layout:v1', 'layout'],
    ['busybox', 'busybox'],
  ])('app name of %s', (image, name) => expect(appNameFromImage(image)).toBe(name));
});

describe('the pod manifest', () => {
  it('reads back as it was written', () => {
    const { manifest } = assemble({
      config: {
        Volumes: ['/data'],
        ExposedPorts: ['80/tcp'],
        Env: ['A=1'],
        User: 'ann',
        StopSignal: 'SIGINT',
        Labels: { a: 'b' },
      },
      flags: {
        memory: '16Mi',
        capsRetain: ['CAP_KILL'],
        seccomp: 'mode=remove,mount',
        rlimits: ['nofile=1:2'],
        readonlyRootfs: true,
        userLabels: ['x=y'],
      },
      args: {
        volumes: ['t,kind=tmpfs,size=64Ki', 'volume-data,kind=empty'],
        mounts: ['volume=t,target=/t'],
        ports: ['80-tcp:8080'],
      },
    });
    expect(parsePodManifest(Buffer.from(JSON.stringify(manifest)))).toEqual(manifest);
  });

  it('names what does not fit', () => {
    const parse = (value: unknown) => () => parsePodManifest(Buffer.from(JSON.stringify(value)));
    const app = {
      name: 'a',
      image: { id: 'sha256-x' },
      app: { exec: ['/a'], user: '0', group: '0' },
    };
    const good = { acVersion: '0.8.11', acKind: 'PodManifest', apps: [app], volumes: null };
    expect(parse(good)).not.toThrow();
    expect(parse({ ...good, acKind: 'ImageManifest' })).toThrow('acKind');
    expect(parse({ ...good, apps: [] })).toThrow('it has no apps');
    expect(parse({ ...good, apps: [app, app] })).toThrow('multiple apps with name a');
    expect(parse({ ...good, bogus: 1 })).toThrow('bogus: there is no such field');
    expect(parse({ ...good, apps: [{ ...app, app: { ...app.app, user: '' } }] })).toThrow(
      'apps[0].app.user',
    );
    expect(parse({ ...good, volumes: [{ name: 'v', kind: 'host' }] })).toThrow(
      'volumes[0]: kind=host needs a source',
    );
    expect(() => parsePodManifest(Buffer.alloc(5 << 20))).toThrow('over the limit');
    expect(() => parsePodManifest(Buffer.from([0xff]))).toThrow('not JSON in UTF-8');
  });

  it('answers any bytes and any JSON with a manifest or a TspodError', () => {
    const orError = (bytes: Uint8Array) => {
      try {
        parsePodManifest(bytes);
      } catch (error) {
        expect(error).toBeInstanceOf(TspodError);
      }
    };
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), orError));
    fc.assert(
      fc.property(fc.json(), text => orError(Buffer.from(text))),
      { numRuns: cases(300) },
    );
    const base = assemble({
      flags: { memory: '16Mi', seccomp: 'mode=remove,mount', rlimits: ['nofile=1:2'] },
    }).manifest;
    const text = JSON.stringify(base);
    const odd = fc.constantFrom(
      'null',
      '{}',
      '[]',
      '-1',
      '1e999',
      '"\\u0000"',
      'true',
      '[[[]]]',
      '{"__proto__":1}',
      '""',
    );
    fc.assert(
      fc.property(fc.nat(text.length), fc.nat(40), odd, (at, length, put) =>
        orError(Buffer.from(text.slice(0, at) + put + text.slice(at + length))),
      ),
      { numRuns: cases(2000) },
    );
  });
});
