/** ImageManifests and names from outside: what is read, what is refused, and that nothing else ever happens. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { TspodError } from '../../src/errors.ts';
import {
  appcImageName,
  checkAppcPlatform,
  hostLabels,
  parseAppcImageManifest,
} from '../../src/image/appc-manifest.ts';
import {
  type AppcReference,
  parseAppcReference,
  renderTemplate,
  showAppcReference,
  whyNotReferred,
} from '../../src/image/appc-reference.ts';
import { cases } from '../support/fuzz.ts';

const parse = (value: unknown) =>
  parseAppcImageManifest(Buffer.from(JSON.stringify(value)), 'image x');

/** The example of the specification, with the labels of this machine. */
const EXAMPLE = {
  acKind: 'ImageManifest',
  acVersion: '0.8.11',
  name: 'example.com/reduce-worker',
  labels: [
    { name: 'version', value: '1.0.0' },
    { name: 'arch', value: hostLabels().arch },
    { name: 'os', value: 'linux' },
  ],
  app: {
    exec: ['/usr/bin/reduce-worker', '--quiet'],
    user: '100',
    group: '300',
    supplementaryGIDs: [400, 500],
    eventHandlers: [
      { exec: ['/usr/bin/data-downloader'], name: 'pre-start' },
      { exec: ['/usr/bin/deregister-worker', '--verbose'], name: 'post-stop' },
    ],
    workingDirectory: '/opt/work',
    environment: [{ name: 'REDUCE_WORKER_DEBUG', value: 'true' }],
    isolators: [
      { name: 'resource/cpu', value: { request: '250m', limit: '500m' } },
      { name: 'resource/memory', value: { request: '1G', limit: '2G' } },
      { name: 'os/linux/capabilities-retain-set', value: { set: ['CAP_NET_BIND_SERVICE'] } },
    ],
    mountPoints: [{ name: 'work', path: '/var/lib/work', readOnly: false }],
    ports: [
      { name: 'health', port: 4000, protocol: 'tcp', socketActivated: true },
      { name: 'ftp-data', port: 20_000, count: 1000, protocol: 'tcp' },
    ],
  },
  dependencies: [
    {
      imageName: 'example.com/reduce-worker-base',
      imageID: `sha512-${'a'.repeat(128)}`,
      labels: [{ name: 'os', value: 'linux' }],
      size: 22_017_258,
    },
  ],
  pathWhitelist: ['/etc/ca/example.com/crt', '/etc/systemd/system/'],
  annotations: [{ name: 'created', value: '2014-10-27T19:32:27.67021798Z' }],
};

describe('the ImageManifest', () => {
  test('the example of the specification', () => {
    const manifest = parse(EXAMPLE);
    expect(manifest).toEqual({
      name: EXAMPLE.name,
      labels: EXAMPLE.labels,
      app: EXAMPLE.app,
      annotations: EXAMPLE.annotations,
      dependencies: EXAMPLE.dependencies,
      pathWhitelist: EXAMPLE.pathWhitelist,
    });
    expect(appcImageName(manifest)).toBe('example.com/reduce-worker:1.0.0');
    checkAppcPlatform(manifest, 'x');
  });

  test('the least', () => {
    const least = { acKind: 'ImageManifest', acVersion: '0.8.11', name: 'a' };
    expect(parse(least)).toEqual({
      name: 'a',
      labels: [],
      annotations: [],
      dependencies: [],
      pathWhitelist: [],
    });
    expect(parse({ ...least, labels: null, dependencies: null, unknown: 1 })).toMatchObject({
      name: 'a',
    });
  });

  test('any change of a field gives a manifest or a TspodError of one line', () => {
    const paths: (readonly (string | number)[])[] = [];
    const walk = (value: unknown, path: readonly (string | number)[]) => {
      paths.push(path);
      if (typeof value !== 'object' || value === null) return;
      for (const [key, item] of Object.entries(value)) walk(item, [...path, key]);
    };
    walk(EXAMPLE, []);
    fc.assert(
      fc.property(fc.constantFrom(...paths), fc.jsonValue(), (path, value) => {
        try {
          parse(replaced(EXAMPLE, path, value));
        } catch (error) {
          if (!(error instanceof TspodError)) throw error;
          expect(error.line).not.toMatch(/\n/);
          expect(error.line.length).toBeLessThan(2000);
        }
      }),
      { numRuns: cases(5000) },
    );
  });

  test('any bytes', () => {
    const text = JSON.stringify(EXAMPLE);
    fc.assert(
      fc.property(
        fc.nat({ max: text.length - 1 }),
        fc.uint8Array({ maxLength: 8 }),
        (at, bytes) => {
          const changed = Buffer.concat([
            Buffer.from(text.slice(0, at)),
            bytes,
            Buffer.from(text.slice(at + 1)),
          ]);
          try {
            parseAppcImageManifest(changed, 'image x');
          } catch (error) {
            expect(error).toBeInstanceOf(TspodError);
          }
        },
      ),
      { numRuns: cases(3000) },
    );
  });

  test('nested without end, endless lists', () => {
    const deep = Buffer.from(`{"annotations":${'['.repeat(100_000)}${']'.repeat(100_000)}}`);
    expect(() => parseAppcImageManifest(deep, 'image x')).toThrow(TspodError);
    const many = Array.from({ length: 101 }, () => ({ imageName: 'a' }));
    expect(() => parse({ ...EXAMPLE, dependencies: many })).toThrow(/over the limit of 100/);
    const paths = Array.from({ length: 100_001 }, () => '/a');
    expect(() => parse({ ...EXAMPLE, pathWhitelist: paths })).toThrow(/over the limit of 100000/);
  });

  test.each([['1:2'], ['a,b'], ['../x'], ['a b'], ['x'.repeat(200)], ['a\u0007']])(
    'the version %j stays out of the name',
    value => {
      const labels = [{ name: 'version', value }];
      expect(appcImageName(parse({ ...EXAMPLE, labels }))).toBe('example.com/reduce-worker');
    },
  );
});

function replaced(value: unknown, path: readonly (string | number)[], by: unknown): unknown {
  const [key, ...rest] = path;
  if (key === undefined) return by;
  if (Array.isArray(value)) {
    return value.map((item: unknown, index) =>
      String(index) === String(key) ? replaced(item, rest, by) : item,
    );
  }
  return Object.fromEntries(
    Object.entries(value ?? {}).map(([name, item]) => [
      name,
      name === key ? replaced(item, rest, by) : item,
    ]),
  );
}

describe('a name', () => {
  test.each<[string, AppcReference | undefined]>([
    ['example.com/app', { name: 'example.com/app', labels: [] }],
    [
      'example.com/app:1.0',
      { name: 'example.com/app', labels: [{ name: 'version', value: '1.0' }] },
    ],
    ['localhost/app', { name: 'localhost/app', labels: [] }],
    [
      'example.com/app:1,env=canary,os=linux',
      {
        name: 'example.com/app',
        labels: [
          { name: 'version', value: '1' },
          { name: 'env', value: 'canary' },
          { name: 'os', value: 'linux' },
        ],
      },
    ],
    ['busybox', undefined],
    ['team/busybox', undefined],
    ['Example.com/x', undefined],
    ['example.com/../x', undefined],
    ['example.com//x', undefined],
    ['127.0.0.1:5000/x', undefined],
  ])('%s', (text, expected) => {
    const parsed = tryParse(text);
    if (expected === undefined)
      expect(
        parsed === undefined || parsed instanceof TspodError || parsed.name === '127.0.0.1',
      ).toBe(true);
    else expect(parsed).toEqual(expected);
  });

  test.each([
    'a.b/c:',
    'a.b/c,x',
    'a.b/c,x=',
    'a.b/c,=y',
    'a.b/c:1,version=2',
    'a.b/c,name=d',
    'a.b/c,X=y',
  ])('%s is refused', text => {
    expect(() => parseAppcReference(text)).toThrow(TspodError);
  });

  test('what is shown is read as the same', () => {
    const label = fc.constantFrom('env', 'os', 'arch', 'a/b', 'x-y');
    const value = fc.string({ minLength: 1, maxLength: 20 }).filter(text => !text.includes(','));
    fc.assert(
      fc.property(fc.uniqueArray(fc.tuple(label, value), { selector: ([key]) => key }), pairs => {
        const labels = pairs.map(([name, each]) => ({ name, value: each }));
        const shown = showAppcReference({ name: 'a.b/c', labels });
        const again = parseAppcReference(shown);
        expect(again && showAppcReference(again)).toBe(shown);
        expect(again?.labels).toHaveLength(labels.length);
      }),
    );
  });

  test('labels can not leave their place in a template', () => {
    const { os, arch } = hostLabels();
    const reference = parseAppcReference('a.b/c:../../x?y#z,env=e v');
    if (reference === undefined) throw new Error('not read');
    expect(renderTemplate('https://s/{os}/{arch}/{name}-{version}.{ext}', reference)).toBe(
      `https://s/${os}/${arch}/a.b/c-..%2F..%2Fx%3Fy%23z.aci`,
    );
    expect(renderTemplate('https://s/{env}/{name}.{ext}', reference)).toBe(
      'https://s/e%20v/a.b/c.aci',
    );
    expect(renderTemplate('https://s/{other}.{ext}', reference)).toBeUndefined();
    expect(renderTemplate('https://s/{name', reference)).toBeUndefined();
  });

  test('what is found has to be what was asked for', () => {
    const manifest = parse(EXAMPLE);
    const why = (text: string) => {
      const reference = parseAppcReference(text);
      if (reference === undefined) throw new Error('not read');
      return whyNotReferred(reference, manifest);
    };
    expect(why('example.com/reduce-worker')).toBeUndefined();
    expect(why('example.com/reduce-worker:1.0.0')).toBeUndefined();
    expect(why('example.com/reduce-worker:latest')).toBeUndefined();
    expect(why('example.com/reduce-worker:2')).toMatch(/label version/);
    expect(why('example.com/reduce-worker,env=x')).toMatch(/no such label/);
    expect(why('example.com/reduce')).toMatch(/its manifest says that it is/);
  });
});

function tryParse(text: string): AppcReference | TspodError | undefined {
  try {
    return parseAppcReference(text);
  } catch (error) {
    if (error instanceof TspodError) return error;
    throw error;
  }
}
