/** What a Kubernetes Pod comes to, and what of it is refused by its field's name and line. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { stringify } from 'yaml';
import { TspodError } from '../../src/errors.ts';
import type { PodArgs } from '../../stage0/args/types.ts';
import { expand } from '../../stage0/kube/environment.ts';
import { podFromYaml } from '../../stage0/kube/pod-yaml.ts';
import { cases } from '../support/fuzz.ts';

const NOTHING: PodArgs = {
  images: [],
  stage1: {},
  volumes: [],
  mounts: [],
  ports: [],
  inheritEnv: false,
  setEnv: [],
  setEnvFile: [],
  noOverlay: false,
  privateUsers: false,
  pullPolicy: 'new',
  dryRun: true,
  rm: false,
  quiet: false,
  dns: [],
  dnsSearch: [],
  dnsOpt: [],
  hostsEntry: [],
  interactive: false,
  mdsRegister: false,
  vm: {},
};

const read = (text: string, args: PodArgs = NOTHING) =>
  podFromYaml(Buffer.from(text), 'pod.yaml', args);

function pod(spec: object, container: object = {}, more: readonly object[] = []): string {
  const containers = [{ name: 'main', image: 'web:1', ...container }];
  const whole = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'shop' },
    spec: { containers, ...spec },
  };
  return [whole, ...more].map(one => stringify(one)).join('---\n');
}

const app = (container: object, spec: object = {}, more: readonly object[] = []) =>
  read(pod(spec, container, more)).images[0];

const SETTINGS = {
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name: 'settings' },
  data: { one: '1', 'app.conf': 'a=b\n' },
};
const SECRET = {
  apiVersion: 'v1',
  kind: 'Secret',
  metadata: { name: 'keys' },
  type: 'Opaque',
  data: { token: Buffer.from('s3cret').toString('base64') },
};

describe('a pod', () => {
  test('the least that one can say', () => {
    expect(read(pod({}))).toMatchObject({
      podName: 'shop',
      exitPolicy: 'all',
      stopTimeout: '30',
      pullPolicy: 'new',
      images: [
        { reference: 'docker://web:1', appArgs: [], flags: { name: 'main', restart: 'always' } },
      ],
    });
  });

  test('latest is asked for each time', () => {
    expect(read(pod({}, { image: 'b:latest' })).pullPolicy).toBe('update');
    expect(read(pod({}, { image: 'host:5000/b' })).pullPolicy).toBe('update');
    expect(read(pod({}, { image: 'b', imagePullPolicy: 'Never' })).pullPolicy).toBe('never');
  });

  test('command and arguments, as Kubernetes puts them together with the image’s', () => {
    expect(app({ command: ['a', 'b'], args: ['c'] })).toMatchObject({
      flags: { exec: 'a' },
      appArgs: ['b', 'c'],
    });
    expect(app({ args: ['c'] })).toMatchObject({
      flags: { withoutArguments: true },
      appArgs: ['c'],
    });
    expect(app({ args: ['c'] })?.flags.exec).toBeUndefined();
  });

  test('variables: expanded, from maps and secrets, from the pod', () => {
    const env = [
      { name: 'A', value: 'x' },
      { name: 'B', value: '$(A)-$(NONE)-$$(A)' },
      { name: 'C', valueFrom: { configMapKeyRef: { name: 'settings', key: 'one' } } },
      { name: 'D', valueFrom: { secretKeyRef: { name: 'keys', key: 'token' } } },
      { name: 'E', valueFrom: { fieldRef: { fieldPath: 'metadata.name' } } },
      { name: 'F', valueFrom: { configMapKeyRef: { name: 'none', key: 'x', optional: true } } },
    ];
    const envFrom = [{ prefix: 'P_', configMapRef: { name: 'settings' } }];
    expect(app({ env, envFrom, args: ['$(C)'] }, {}, [SETTINGS, SECRET])).toMatchObject({
      appArgs: ['1'],
      flags: {
        environment: [
          'P_one=1',
          'P_app.conf=a=b\n',
          'A=x',
          'B=x-$(NONE)-$(A)',
          'C=1',
          'D=s3cret',
          'E=shop',
        ],
      },
    });
  });

  test('volumes', () => {
    const volumes = [
      { name: 'work', emptyDir: {} },
      { name: 'fast', emptyDir: { medium: 'Memory', sizeLimit: '1Mi' } },
      { name: 'etc', hostPath: { path: '/etc', type: 'Directory' } },
      {
        name: 'conf',
        configMap: { name: 'settings', items: [{ key: 'app.conf', path: 'd/x', mode: 0o400 }] },
      },
    ];
    const volumeMounts = [
      { name: 'work', mountPath: '/work' },
      { name: 'fast', mountPath: '/fast' },
      { name: 'etc', mountPath: '/host', readOnly: true },
      { name: 'conf', mountPath: '/conf', readOnly: true },
    ];
    const made = read(pod({ volumes }, { volumeMounts }, [SETTINGS]));
    expect(made.volumes).toEqual([
      'work,kind=empty,mode=0777',
      'fast,kind=tmpfs,mode=1777,size=1Mi',
      'etc,kind=host,source=/etc',
      'etc-read-only,kind=host,source=/etc,readOnly=true',
      'conf,kind=empty,mode=0755,readOnly=true',
    ]);
    expect(made.images[0]?.flags.mounts).toEqual([
      'volume=work,target=/work',
      'volume=fast,target=/fast',
      'volume=etc-read-only,target=/host',
      'volume=conf,target=/conf',
    ]);
    expect(made.volumeFiles?.get('conf')).toEqual([
      { path: 'd/x', mode: 0o400, data: Buffer.from('a=b\n') },
    ]);
  });

  test('rights and limits', () => {
    const securityContext = {
      runAsUser: 1000,
      readOnlyRootFilesystem: true,
      allowPrivilegeEscalation: false,
      capabilities: { drop: ['ALL'], add: ['NET_BIND_SERVICE'] },
      seccompProfile: { type: 'Unconfined' },
    };
    const resources = {
      limits: { memory: '64Mi', cpu: '500m' },
      requests: { cpu: 0.25, memory: '1Mi' },
    };
    const spec = { securityContext: { runAsGroup: 7, fsGroup: 9, supplementalGroups: [8] } };
    expect(app({ securityContext, resources }, spec)?.flags).toMatchObject({
      user: '1000',
      group: '7',
      supplementaryGids: '8,9',
      readonlyRootfs: true,
      noNewPrivileges: true,
      capsRetain: ['CAP_NET_BIND_SERVICE'],
      seccomp: 'mode=retain,@appc.io/all',
      memory: '64Mi',
      cpu: '500m',
      cpuShares: '256',
    });
  });

  test('probes', () => {
    const made = app({
      ports: [{ containerPort: 80, name: 'web' }],
      startupProbe: { exec: { command: ['a', 'b'] }, failureThreshold: 30 },
      livenessProbe: { tcpSocket: { port: 'web' }, initialDelaySeconds: 3 },
      readinessProbe: { httpGet: { path: '/ok', port: 80 }, periodSeconds: 1, successThreshold: 2 },
    });
    expect(JSON.parse(made?.flags.probes ?? '')).toEqual([
      {
        kind: 'startup',
        how: { exec: ['a', 'b'] },
        delay: 0,
        period: 10,
        timeout: 1,
        failures: 30,
        successes: 1,
      },
      {
        kind: 'liveness',
        how: { tcp: 80 },
        delay: 3,
        period: 10,
        timeout: 1,
        failures: 3,
        successes: 1,
      },
      {
        kind: 'readiness',
        how: { http: 80, path: '/ok' },
        delay: 0,
        period: 1,
        timeout: 1,
        failures: 3,
        successes: 2,
      },
    ]);
  });

  test('ports, names, networks, what runs first', () => {
    const made = read(
      pod(
        {
          restartPolicy: 'OnFailure',
          hostname: 'box',
          hostNetwork: false,
          dnsPolicy: 'None',
          dnsConfig: {
            nameservers: ['9.9.9.9'],
            searches: ['a.example'],
            options: [{ name: 'ndots', value: '2' }],
          },
          hostAliases: [{ ip: '10.0.0.1', hostnames: ['a', 'b'] }],
          initContainers: [
            { name: 'make', image: 'oci:/x:latest', imagePullPolicy: 'IfNotPresent' },
          ],
          terminationGracePeriodSeconds: 5,
        },
        {
          ports: [
            { containerPort: 80, hostPort: 8080, name: 'web' },
            { containerPort: 53, protocol: 'UDP', hostPort: 53, hostIP: '::1' },
            { containerPort: 1 },
          ],
        },
      ),
    );
    expect(made).toMatchObject({
      ports: ['80-tcp:8080', '53-udp:[::1]:53'],
      hostname: 'box',
      dns: ['9.9.9.9'],
      dnsSearch: ['a.example'],
      dnsOpt: ['ndots:2'],
      hostsEntry: ['10.0.0.1=a', '10.0.0.1=b'],
      stopTimeout: '5',
      images: [
        { reference: 'oci:/x:latest', flags: { first: true, restart: 'on-failure' } },
        { flags: { restart: 'on-failure' } },
      ],
    });
  });

  test('what the command line says of the pod comes first', () => {
    const args = {
      ...NOTHING,
      podName: 'other',
      stopTimeout: '1',
      exitPolicy: 'any',
      net: 'none',
      dns: ['1.1.1.1'],
    };
    const made = read(pod({ hostNetwork: true, dnsConfig: { nameservers: ['9.9.9.9'] } }), args);
    expect(made).toMatchObject({
      podName: 'other',
      stopTimeout: '1',
      exitPolicy: 'any',
      net: 'none',
      dns: ['1.1.1.1'],
    });
  });
});

describe('refused, by field and line', () => {
  test.each<[string, RegExp]>([
    [
      pod({ nodeName: 'x' }),
      /^pod\.yaml: spec\.nodeName \(line \d+\): it is not known, or not in this version$/,
    ],
    [pod({}, { lifecycle: { preStop: {} } }), /spec\.containers\[0\]\.lifecycle/],
    [
      pod({}, { securityContext: { privileged: true } }),
      /securityContext\.privileged .*no pod has all rights/,
    ],
    [pod({}, { securityContext: { runAsNonRoot: true } }), /runAsNonRoot .*runAsUser/],
    [
      pod({}, { volumeMounts: [{ name: 'x', mountPath: '/x' }] }),
      /volumeMounts\[0\]\.name .*the pod has no such volume/,
    ],
    [
      pod({}, { volumeMounts: [{ name: 'x', mountPath: '/x', subPath: 'y' }] }),
      /the pod has no such volume/,
    ],
    [
      pod({ volumes: [{ name: 'x', nfs: { server: 'y' } }] }),
      /spec\.volumes\[0\] .*its kind is not in this version/,
    ],
    [
      pod({ volumes: [{ name: 'x', configMap: { name: 'none' } }] }),
      /there is no ConfigMap "none" in the stream/,
    ],
    [
      pod({}, { env: [{ name: 'A', valueFrom: { fieldRef: { fieldPath: 'status.podIP' } } }] }),
      /status\.podIP is not known before the pod runs/,
    ],
    [pod({}, { env: [{ name: 'A', value: 1 }] }), /env\[0\]\.value .*it is not a text/],
    [pod({}, { resources: { limits: { 'nvidia.com/gpu': 1 } } }), /limits\.nvidia\.com\/gpu/],
    [pod({ restartPolicy: 'Sometimes' }), /spec\.restartPolicy .*"Sometimes" is unknown/],
    [pod({ containers: [] }), /spec\.containers .*there is none/],
    ['kind: Deployment\n', /kind \(line 1\): "Deployment" is unknown/],
    ['apiVersion: v2\nkind: Pod\n', /apiVersion/],
    ['', /there is no Pod in it/],
    ['a: [', /line \d/],
    [
      `${[...'abcdefgh'].map((name, at) => `${name}: &${name} [${at === 0 ? 'x' : Array(9).fill(`*${'abcdefgh'[at - 1]}`)}]`).join('\n')}\n`,
      /its aliases come to over 100 copies/,
    ],
    ['- 1\n', /it is not an object/],
    [`${pod({})}---\n${pod({})}`, /there is a second Pod/],
  ])('%#', (text, message) => {
    expect(() => read(text)).toThrow(message);
    expect(() => read(text)).toThrow(TspodError);
  });

  test('the line is the one where it stands', () => {
    expect(() =>
      read(
        'apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\nspec:\n  containers:\n  - name: a\n    image: b\n    foo: 1\n',
      ),
    ).toThrow('spec.containers[0].foo (line 9)');
  });
});

test('$(NAME)', () => {
  const variables = new Map([['A', 'x']]);
  expect(expand('$(A)$$(A)$(B)$A$($)', variables)).toBe('x$(A)$(B)$A$($)');
});

describe('any bytes', () => {
  const refusedOrRead = (bytes: Uint8Array) => {
    try {
      podFromYaml(bytes, 'pod.yaml', NOTHING);
    } catch (error) {
      expect(error).toBeInstanceOf(TspodError);
      expect(String(error)).not.toContain('\n');
    }
  };

  test('are a pod or refused', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), refusedOrRead), {
      numRuns: cases(200),
    });
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(...'a:-[]{}&*!|>#\n \'"%@`0') }), text =>
        refusedOrRead(Buffer.from(text)),
      ),
      { numRuns: cases(500) },
    );
  });

  test('any value in the place of any field', () => {
    const keys = [
      'env',
      'args',
      'ports',
      'resources',
      'securityContext',
      'volumeMounts',
      'image',
      'envFrom',
    ];
    fc.assert(
      fc.property(fc.constantFrom(...keys), fc.jsonValue({ maxDepth: 4 }), (key, value) =>
        refusedOrRead(Buffer.from(pod({}, { [key]: value }))),
      ),
      { numRuns: cases(300) },
    );
    const ofSpec = [
      'volumes',
      'initContainers',
      'securityContext',
      'dnsConfig',
      'hostAliases',
      'containers',
    ];
    fc.assert(
      fc.property(fc.constantFrom(...ofSpec), fc.jsonValue({ maxDepth: 4 }), (key, value) =>
        refusedOrRead(Buffer.from(pod({ [key]: value }))),
      ),
      { numRuns: cases(300) },
    );
  });
});
