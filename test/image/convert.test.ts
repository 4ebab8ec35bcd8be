/** An OCI image's config in appc's words, with the names that docker2aci gave (appc/docker2aci, lib/internal). */
import { describe, expect, test } from 'vitest';
import { TspodError } from '../../src/errors.ts';
import { appFromImageConfig, originAnnotations } from '../../src/image/convert.ts';
import { parseImageConfig } from '../../src/image/oci-validate.ts';
import { sha256 } from '../fetch/support.ts';

function convert(config: object, top: object = {}) {
  const bytes = Buffer.from(
    JSON.stringify({
      os: 'linux',
      architecture: 'amd64',
      rootfs: { type: 'layers' },
      config,
      ...top,
    }),
  );
  return appFromImageConfig(parseImageConfig(bytes, sha256(bytes)).value, 'x');
}

test.each([
  [{ Entrypoint: ['/a', 'b'], Cmd: ['c'] }, { exec: ['/a', 'b', 'c'] }],
  [{ Cmd: ['sh', '-c', 'x'] }, { exec: ['sh', '-c', 'x'] }],
  [{ User: '' }, { user: '0', group: '0' }],
  [{ User: '7:8' }, { user: '7', group: '8' }],
  [{ WorkingDir: '/w' }, { workingDirectory: '/w' }],
  [{ Env: ['A=b=c', 'A=d'] }, { environment: [{ name: 'A', value: 'd' }] }],
  [
    { ExposedPorts: { '80/tcp': {}, '53/udp': {}, '443': {} } },
    {
      ports: [
        { name: '443-tcp', protocol: 'tcp', port: 443 },
        { name: '53-udp', protocol: 'udp', port: 53 },
        { name: '80-tcp', protocol: 'tcp', port: 80 },
      ],
    },
  ],
  [
    { Volumes: { '/var/lib/x': {}, '/data': {}, '/a/b': {}, '/a.b': {}, '/A-b/': {} } },
    {
      mountPoints: [
        { name: 'volume-a-b', path: '/a/b' },
        { name: 'volume-a-b-1', path: '/a.b' },
        { name: 'volume-a-b-2', path: '/A-b' },
        { name: 'volume-data', path: '/data' },
        { name: 'volume-var-lib-x', path: '/var/lib/x' },
      ],
    },
  ],
])('%j', (config, app) => {
  expect(convert(config).app).toMatchObject(app);
});

describe('annotations', () => {
  test('Docker’s health check is kept as it is, and a malformed one is refused', () => {
    const Healthcheck = { Test: ['CMD-SHELL', 'true || exit 1'], Interval: 3e10, Retries: 3 };
    expect(convert({ Healthcheck }).annotations).toEqual([
      { name: 'oci/healthcheck', value: JSON.stringify(Healthcheck) },
    ]);
    expect(convert({ Healthcheck: null }).annotations).toEqual([]);
    for (const wrong of [{ Test: 'x' }, { Test: [1] }, { Interval: -1 }, { Retries: 'x' }, []]) {
      expect(() => convert({ Healthcheck: wrong })).toThrow(TspodError);
    }
  });

  test('docker2aci’s words for where an image came from', () => {
    const id = sha256('config');
    const values = (name: string) =>
      Object.fromEntries(originAnnotations(name, id).map(({ name, value }) => [name, value]));
    expect(values('docker://docker.io/library/busybox:1')).toEqual({
      'appc.io/docker/registryurl': 'docker.io',
      'appc.io/docker/repository': 'library/busybox',
      'appc.io/docker/tag': '1',
      'appc.io/docker/imageid': id.slice(7),
      'appc.io/docker/originalname': 'docker.io/library/busybox:1',
    });
    expect(values(`docker://h:5/a@${id}`)).toMatchObject({
      'appc.io/docker/manifesthash': id,
    });
    expect(values('oci:/a/b')).toEqual({});
  });

  test('those of docker2aci, the labels, the stop signal', () => {
    const { annotations } = convert(
      { Entrypoint: ['/a'], Cmd: ['b "c"'], Labels: { k: 'v' }, StopSignal: 'SIGUSR1' },
      { author: 'me', created: '2026-01-02T03:04:05Z' },
    );
    expect(Object.fromEntries(annotations.map(({ name, value }) => [name, value]))).toEqual({
      'oci/label/k': 'v',
      author: 'me',
      created: '2026-01-02T03:04:05Z',
      'appc.io/docker/entrypoint': '["/a"]',
      'appc.io/docker/cmd': '["b "c""]'.replace('b "c"', 'b \\"c\\"'),
      'oci/stop-signal': 'SIGUSR1',
    });
  });

  test('CVE-2026-53488: a label can not pass for one of them', () => {
    const { annotations } = convert({
      Labels: { 'oci/stop-signal': 'x', 'appc.io/docker/cmd': 'y' },
    });
    expect(annotations.every(({ name }) => name.startsWith('oci/label/'))).toBe(true);
  });
});

test.each([
  { Volumes: { '/../etc': {} } },
  { Volumes: { '/': {} } },
  { Volumes: { etc: {} } },
  { ExposedPorts: { '0/tcp': {} } },
  { ExposedPorts: { '80/icmp': {} } },
  { User: 'a:b:c' },
])('CVE-2022-23648 and its like: %j is refused', config => {
  expect(() => convert(config)).toThrow(TspodError);
});
