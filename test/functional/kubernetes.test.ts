/** Kubernetes Pods run by the built program under nspawn. */
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { stringify } from 'yaml';
import { fromLayout, useSandbox } from './sandbox.ts';

const use = useSandbox();
// Cgroups of pods that have ended are gc's.
afterEach(async () => {
  await use.box.run(['gc', '--grace-period=0s']);
});

const shell = (name: string, script: string, more: object = {}) => ({
  name,
  image: fromLayout('busybox'),
  imagePullPolicy: 'IfNotPresent',
  command: ['/bin/sh', '-c', script],
  ...more,
});

function pod(spec: object, more: readonly object[] = []): string {
  const whole = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'shop' },
    spec: { restartPolicy: 'Never', ...spec },
  };
  const text = [...more, whole].map(one => stringify(one)).join('---\n');
  const file = join(use.box.root, 'pod.yaml');
  writeFileSync(file, text);
  return file;
}

const run = (file: string, ...words: readonly string[]) =>
  use.box.run(['run', '--net=none', ...words, `--pod=${file}`]);

test('what runs first, in order; a folder that all share; files of a map; the rights that are named', async () => {
  const settings = {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'settings' },
    data: { 'app.conf': 'a=b\n' },
  };
  const mount = { volumeMounts: [{ name: 'work', mountPath: '/work' }] };
  const file = pod(
    {
      initContainers: [
        shell('one', 'sleep 0.3; echo one >>/work/order', mount),
        shell('two', 'echo two >>/work/order', mount),
      ],
      containers: [
        shell(
          'main',
          'cat /work/order /conf/app.conf; id -u; touch /x 2>&1; echo $(WHO); grep CapBnd /proc/self/status; exit 3',
          {
            env: [{ name: 'WHO', valueFrom: { fieldRef: { fieldPath: 'metadata.name' } } }],
            securityContext: {
              runAsUser: 0,
              readOnlyRootFilesystem: true,
              capabilities: { drop: ['ALL'], add: ['CHOWN'] },
            },
            volumeMounts: [
              { name: 'work', mountPath: '/work' },
              { name: 'conf', mountPath: '/conf' },
            ],
          },
        ),
      ],
      volumes: [
        { name: 'work', emptyDir: {} },
        { name: 'conf', configMap: { name: 'settings' } },
      ],
    },
    [settings],
  );
  const ended = await run(file);
  expect(ended.status).toBe(3);
  expect(ended.stdout).toMatch(
    /^one\ntwo\na=b\n0\ntouch: \/x: Read-only file system\nshop\nCapBnd:\s+0000000000000001\n$/,
  );
  const status = await use.box.run(['status', 'shop']);
  expect(status.stdout).toContain('app-one=0\napp-two=0\napp-main=3\n');
});

test('one that fails first ends the pod; nothing after it is started', async () => {
  const file = pod({
    initContainers: [shell('one', 'exit 7')],
    containers: [shell('main', 'echo started')],
  });
  expect(await run(file)).toMatchObject({ status: 7, stdout: '' });
});

test('what failed is started again, until it does not fail', async () => {
  const script =
    'echo x >>/work/tries; [ "$(wc -l </work/tries)" -ge 3 ] || exit 1; cat /work/tries';
  const file = pod({
    restartPolicy: 'OnFailure',
    containers: [shell('main', script, { volumeMounts: [{ name: 'work', mountPath: '/work' }] })],
    volumes: [{ name: 'work', emptyDir: {} }],
  });
  expect(await run(file)).toMatchObject({ status: 0, stdout: 'x\nx\nx\n' });
});

test('probes: ready when it says so, started again when it lives no more', async () => {
  const script =
    'echo start >>/work/starts; sleep 1; touch /work/ready; sleep 2; [ "$(wc -l </work/starts)" -ge 2 ] && exec sleep 1000; rm /work/ready; exec sleep 1000';
  const exec = {
    exec: { command: ['test', '-e', '/work/ready'] },
    periodSeconds: 1,
    failureThreshold: 1,
  };
  const file = pod({
    restartPolicy: 'Always',
    terminationGracePeriodSeconds: 1,
    containers: [
      shell('main', script, {
        volumeMounts: [{ name: 'work', mountPath: '/work' }],
        startupProbe: { ...exec, failureThreshold: 20 },
        livenessProbe: exec,
        readinessProbe: exec,
      }),
    ],
    volumes: [{ name: 'work', emptyDir: {} }],
  });
  const running = use.box.start(['run', '--net=none', `--pod=${file}`]);
  await expect
    .poll(async () => (await use.box.run(['app', 'list', 'shop'])).stdout, { timeout: 20_000 })
    .toContain('running');
  const waited = await use.box.run(['status', '--wait-ready', 'shop']);
  expect(waited).toMatchObject({ status: 0 });
  const starts = async () =>
    (await use.box.run(['enter', 'shop', '/bin/sh', '-c', 'cat /work/starts'])).stdout;
  await expect.poll(starts, { timeout: 30_000 }).toBe('start\nstart\n');
  await use.box.run(['stop', 'shop']);
  expect((await running.ended).stderr).toMatch(/app "main": its liveness probe failed 1 times/);
}, 60_000);

test('a pod is ready when its readiness probe says so', async () => {
  const file = pod({
    containers: [
      shell('main', 'sleep 2; touch /work/ready; sleep 60', {
        volumeMounts: [{ name: 'work', mountPath: '/work' }],
        readinessProbe: { exec: { command: ['test', '-e', '/work/ready'] }, periodSeconds: 1 },
      }),
    ],
    volumes: [{ name: 'work', emptyDir: {} }],
  });
  const running = use.box.start(['run', '--net=none', `--pod=${file}`]);
  await expect
    .poll(async () => (await use.box.run(['list', '--no-legend'])).stdout, { timeout: 20_000 })
    .toContain('running');
  expect(await use.box.run(['status', '--wait-ready=60s', 'shop'])).toMatchObject({ status: 0 });
  expect(await use.box.run(['enter', 'shop', '/bin/test', '-e', '/work/ready'])).toMatchObject({
    status: 0,
  });
  await use.box.run(['stop', 'shop']);
  await running.ended;
}, 60_000);

test('arguments alone follow the image’s entrypoint; from standard input; prepared and run later', async () => {
  const python = {
    name: 'main',
    image: fromLayout('python'),
    imagePullPolicy: 'IfNotPresent',
    args: ['5'],
  };
  const text = stringify({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'py' },
    spec: { restartPolicy: 'Never', containers: [python] },
  });
  const prepared = await use.box.start(['prepare', '--quiet', '--pod=-'], { input: text }).ended;
  expect(prepared).toMatchObject({ status: 0, stderr: '' });
  const ended = await use.box.run(['run-prepared', '--net=none', prepared.stdout.trim()]);
  expect(ended.status).toBe(5);
  expect(ended.stdout).toContain('"sum": 45');
});

test('refused: one line that names the field; nothing is left', async () => {
  const file = pod({
    containers: [shell('main', 'true', { lifecycle: { preStop: { exec: { command: ['x'] } } } })],
  });
  const ended = await run(file);
  expect(ended).toMatchObject({ status: 254, stdout: '' });
  expect(ended.stderr).toMatch(
    /pod\.yaml: spec\.containers\[0\]\.lifecycle \(line \d+\): .*; leave it out\n$/,
  );
  expect(existsSync(join(use.box.dir, 'pods'))).toBe(false);
  for (const [words, message] of [
    [['run', '--pod=/nonexistent'], /--pod: can't read \/nonexistent: ENOENT/],
    [['run', `--pod=${file}`, fromLayout('busybox')], /conflicting flags/],
    [['run', `--pod=${file}`, '--pod-manifest=x'], /give one of them/],
  ] as const) {
    expect((await use.box.run(words)).stderr).toMatch(message);
  }
});
