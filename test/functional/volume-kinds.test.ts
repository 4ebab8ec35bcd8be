/** Volumes that are another image, and volumes that are a device of the host. */
import { existsSync, statSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { TSPOD } from '../support/tspod.ts';
import { fromLayout, shell, useSandbox } from './sandbox.ts';

const use = useSandbox();

describe.each([
  ['fly', []],
  ['nspawn', ['--net=none']],
])('%s: an image as a volume', (flavor, flags) => {
  const run = (...words: readonly string[]) =>
    use.box.run(['run', '--rm', `--stage1-name=${flavor}`, ...flags, ...words]);
  const volume = `--volume=other,kind=image,source=${fromLayout('redis')}`;

  test('is there, twice, and can’t be written to', async () => {
    const script =
      'ls /one/usr/bin/redis-server /two/deep/usr/bin/redis-server; echo x 2>/dev/null >/one/new || echo no; ls /opt/other 2>/dev/null; grep -c redis /proc/self/mounts';
    const mounts = ['--mount=volume=other,target=/one', '--mount=volume=other,target=/two/deep'];
    const ended = await run(volume, ...shell(script, ...mounts));
    expect(ended.stdout).toMatch(
      /^\/one\/usr\/bin\/redis-server\n\/two\/deep\/usr\/bin\/redis-server\nno\n/,
    );
    expect(ended.stderr).not.toContain('tspod:');
  });

  test('is kept from image gc while the pod is there, and gone with it', async () => {
    const prepare = ['prepare', `--stage1-name=${flavor}`, volume];
    const words = shell(
      'cat /v/etc/hostname >/dev/null; ls /v/usr/bin/redis-server',
      '--mount=volume=other,target=/v',
    );
    const prepared = await use.box.run([...prepare, ...words]);
    expect(prepared).toMatchObject({ status: 0 });
    const uuid = prepared.stdout.trim();
    await use.box.run(['image', 'gc', '--grace-period=0s']);
    const ran = await use.box.run(['run-prepared', ...flags, uuid]);
    expect(ran.stdout).toBe('/v/usr/bin/redis-server\n');
    expect(await use.box.run(['rm', uuid])).toMatchObject({ status: 0 });
    await use.box.run(['image', 'gc', '--grace-period=0s']);
    const left = JSON.parse((await use.box.run(['image', 'list', '--format=json'])).stdout);
    expect(JSON.stringify(left)).not.toContain('redis');
  });

  test('has to be admitted as every image', async () => {
    await use.box.run(['fetch', fromLayout('busybox')]);
    const words = [`--dir=${use.box.dir}`, 'run', `--stage1-name=${flavor}`, ...flags, volume];
    const { ended } = use.box.spawn(TSPOD, [
      ...words,
      ...shell('true', '--mount=volume=other,target=/v'),
    ]);
    const { status, stderr } = await ended;
    expect(status).toBe(254);
    expect(stderr).toMatch(/^tspod: .*signature|trust/);
  });
});

describe('a device as a volume', () => {
  const volume = '--volume=net,kind=device,source=/dev/net/tun';
  const script = (path: string) => `test -c ${path} && exec 3<>${path} && echo opened`;

  test.each(['/dev/net/tun', '/opt/tun'])('nspawn: at %s, in that app alone', async path => {
    const ended = await use.box.run([
      'run',
      '--rm',
      '--stage1-name=nspawn',
      '--net=none',
      '--exit-policy=all',
      volume,
      ...shell(script(path), '--name=with', `--mount=volume=net,target=${path}`),
      '---',
      ...shell('ls /dev /opt 2>/dev/null | grep -cE "tun|net|volume"; sleep 0.1', '--name=without'),
    ]);
    expect(ended.stdout.split('\n').sort()).toEqual(['', '0', 'opened']);
  });

  test('fly: anywhere but in the host’s /dev', async () => {
    const run = (path: string) =>
      use.box.run(['run', volume, ...shell(script(path), `--mount=volume=net,target=${path}`)]);
    expect(await run('/opt/tun')).toMatchObject({ status: 0, stdout: 'opened\n' });
    const refused = await run('/dev/tspod-test');
    expect(refused.status).toBe(254);
    expect(refused.stderr).toContain("/dev/tspod-test lies in the host's /dev");
    expect(existsSync('/dev/tspod-test')).toBe(false);
    expect(statSync('/dev/net/tun').isCharacterDevice()).toBe(true);
  });

  test.each([
    ['kind=device,source=/etc/passwd', 'is not a device in /dev'],
    ['kind=device,source=/dev/shm', 'it is no device'],
    ['kind=device,source=/dev/absent', 'No such file'],
    ['kind=device', 'needs a source'],
    ['kind=device,source=/dev/null,readOnly=true', "readOnly can't be kept"],
    ['kind=image', 'needs a source'],
    ['kind=image,source=oci:/absent', 'no such folder'],
    ['kind=image,source=x,readOnly=false', 'is always read-only'],
    ['kind=image,source=x,recursive=true', "recursive can't be given"],
  ])('%s is refused', async (words, why) => {
    const ended = await use.box.run([
      'run',
      `--volume=v,${words}`,
      ...shell('true', '--mount=volume=v,target=/v'),
    ]);
    expect(ended.status).toBe(254);
    expect(ended.stderr).toContain(why);
  });
});
