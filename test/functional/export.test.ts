/** Images taken out of the store by the built program, and what others make of them. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { busybox, writeAci } from '../images/aci-writer.ts';
import { fromLayout, shell, useSandbox } from './sandbox.ts';

const use = useSandbox();

function must(program: string, words: readonly string[]): string {
  const ended = spawnSync(program, words, { encoding: 'utf8' });
  if (ended.status !== 0) throw new Error(`${program} ${words.join(' ')}: ${ended.stderr}`);
  return ended.stdout;
}

async function tspod(...words: string[]): Promise<string> {
  const ended = await use.box.run(words);
  expect(ended).toMatchObject({ status: 0, stderr: '' });
  return ended.stdout;
}

/** Every name below a folder with type, mode, owner, size, target and time, as GNU find tells them. */
function treeOf(folder: string): string {
  const words = ['.', '-mindepth', '1', '-printf', '%P %y %m %U:%G %l %T@ %s\\n'];
  const ended = spawnSync('find', words, { cwd: folder, encoding: 'utf8' });
  expect(ended.status).toBe(0);
  // A folder's size is the file system's affair.
  return ended.stdout
    .split('\n')
    .map(line => (/ d /.test(line) ? line.replace(/\d+$/, '') : line))
    .sort()
    .join('\n');
}

describe('export', () => {
  test('oci: the digest stays, skopeo and umoci read it', async () => {
    const image = fromLayout('python');
    await tspod('fetch', image);
    const file = join(use.box.root, 'python.tar');
    await tspod('image', 'export', image, file);
    const digest = (source: string) => JSON.parse(must('skopeo', ['inspect', source])).Digest;
    expect(digest(`oci-archive:${file}`)).toBe(digest(image));
    expect(readdirSync(use.box.root).filter(name => name.startsWith('.'))).toEqual([]);
  });

  test.each(['oci', 'docker', 'aci'])('%s: comes back and runs', async format => {
    const image = fromLayout('busybox');
    const id = (await tspod('fetch', '--full', image)).trim();
    const file = join(use.box.root, `busybox.${format}`);
    await tspod('image', 'export', `--format=${format}`, image, file);
    expect(await use.box.run(['image', 'rm', id])).toMatchObject({ status: 0 });
    const [, ...words] = shell('cat /etc/motd; ls /var/gone 2>&1; cat /etc/replaced');
    const run = await use.box.run(['run', file, '--exec=/bin/sh', ...words]);
    expect(run.stdout).toContain('hello from the app layer\n');
    expect(run.stdout).toContain('app\n');
    expect(run.stdout).toMatch(/gone: No such file/);
  });

  test('docker: podman loads and runs it', async () => {
    const image = fromLayout('busybox');
    await tspod('fetch', image);
    const file = join(use.box.root, 'busybox.tar');
    await tspod('image', 'export', '--format=docker', image, file);
    const podman = `podman --root ${use.box.root}/c --runroot ${use.box.root}/r --storage-driver=vfs --events-backend=none`;
    const script = `${podman} load -q -i ${file} >/dev/null && ${podman} images -q | wc -l`;
    const words = ['-m', '--propagation', 'private', 'sh', '-ec', script];
    expect(must('unshare', words).trim()).toBe('1');
  });

  test('aci: the same bytes each time; its tree is the rendered one', async () => {
    const image = fromLayout('python');
    await tspod('fetch', image);
    const [one, two] = ['one.aci', 'two.aci'].map(name => join(use.box.root, name));
    await tspod('image', 'export', image, one ?? '');
    await tspod('image', 'export', image, two ?? '');
    expect(readFileSync(one ?? '').equals(readFileSync(two ?? ''))).toBe(true);
    const unpacked = join(use.box.root, 'unpacked');
    must('mkdir', [unpacked]);
    // Folders come first in it, and what goes into them would change their times.
    const flags = ['--numeric-owner', '--xattrs', '--delay-directory-restore'];
    must('tar', ['-xf', one ?? '', ...flags, '-C', unpacked]);
    await tspod('image', 'render', image, join(use.box.root, 'rendered'));
    expect(treeOf(join(unpacked, 'rootfs'))).toBe(treeOf(join(use.box.root, 'rendered/rootfs')));
    const manifest = JSON.parse(readFileSync(join(unpacked, 'manifest'), 'utf8'));
    expect(manifest).toMatchObject({
      acKind: 'ImageManifest',
      app: { exec: ['/usr/bin/python3', '/srv/app.py'], user: 'nobody' },
    });
  });

  test('an ACI goes out as it came, uncompressed', async () => {
    await tspod('fetch', fromLayout('busybox'));
    const first = join(use.box.root, 'first.aci');
    await tspod('image', 'export', fromLayout('busybox'), first);
    must('gzip', ['-k', first]);
    const packed = join(use.box.root, 'packed.aci');
    must('mv', [`${first}.gz`, packed]);
    const id = (await tspod('fetch', '--full', packed)).trim();
    const second = join(use.box.root, 'second.aci');
    await tspod('image', 'export', id, second);
    expect(readFileSync(second).equals(readFileSync(first))).toBe(true);
  });

  test('an ACI goes out as an OCI image, the same each time', async () => {
    const aci = join(use.box.root, 'hello.aci');
    writeAci(aci, 'example.com/hello', {
      rootfs: busybox,
      manifest: { app: { exec: ['/bin/sh', '-c', 'echo hello'], user: '0', group: '0' } },
    });
    const id = (await tspod('fetch', '--full', aci)).trim();
    const [one, two] = ['one.tar', 'two.tar'].map(name => join(use.box.root, name));
    await tspod('image', 'export', '--format=oci', id, one ?? '');
    await tspod('image', 'export', '--format=oci', id, two ?? '');
    const config = JSON.parse(must('skopeo', ['inspect', '--config', `oci-archive:${one}`]));
    expect(config.config.Cmd ?? config.config.Entrypoint).toContain('echo hello');
    expect(JSON.parse(must('skopeo', ['inspect', `oci-archive:${one}`])).Digest).toBe(
      JSON.parse(must('skopeo', ['inspect', `oci-archive:${two}`])).Digest,
    );
    expect(await use.box.run(['image', 'rm', id])).toMatchObject({ status: 0 });
    expect(await use.box.run(['run', one ?? ''])).toMatchObject({ status: 0, stdout: 'hello\n' });
  });

  test('to standard output, and by the end of the name', async () => {
    await tspod('fetch', fromLayout('busybox'));
    const ended = await use.box.run(['image', 'export', fromLayout('busybox'), '-']);
    expect(ended.status).toBe(0);
    writeFileSync(join(use.box.root, 'out.tar'), ended.bytes);
    expect(must('tar', ['-tf', join(use.box.root, 'out.tar')])).toContain('oci-layout');
  });

  test.each([
    [['image', 'export', 'x'], /takes an image and a file/],
    [['image', 'export', '--format=zip', 'x', 'y'], /--format: "zip" is unknown/],
    [['image', 'export', 'nothing', '/nonexistent/x.tar'], /no image IDs found/],
  ])('refused: %j', async (words, message) => {
    const ended = await use.box.run(words);
    expect(ended).toMatchObject({ status: 254, stdout: '' });
    expect(ended.stderr).toMatch(message);
  });

  test('a file that is there stays, unless --overwrite says otherwise', async () => {
    await tspod('fetch', fromLayout('busybox'));
    const file = join(use.box.root, 'there.tar');
    writeFileSync(file, 'mine');
    const refused = await use.box.run(['image', 'export', fromLayout('busybox'), file]);
    expect(refused.stderr).toMatch(/output file exists \(try --overwrite\)/);
    expect(readFileSync(file, 'utf8')).toBe('mine');
    await tspod('image', 'export', '--overwrite', fromLayout('busybox'), file);
    expect(readFileSync(file).length).toBeGreaterThan(1000);
  });
});

describe('render and extract', () => {
  test('whiteouts are applied, owners kept, the manifest beside', async () => {
    await tspod('fetch', fromLayout('busybox'));
    const folder = join(use.box.root, 'out');
    await tspod('image', 'render', fromLayout('busybox'), folder);
    expect(readdirSync(folder).sort()).toEqual(['manifest', 'rootfs']);
    expect(existsSync(join(folder, 'rootfs/var/gone'))).toBe(false);
    expect(readFileSync(join(folder, 'rootfs/etc/replaced'), 'utf8')).toBe('app\n');
    expect(must('stat', ['-c', '%u:%g', join(folder, 'rootfs/data')]).trim()).toBe('1000:1001');
  });

  test('the root file system alone; in place of what was there only with --overwrite', async () => {
    await tspod('fetch', fromLayout('busybox'));
    const folder = join(use.box.root, 'out');
    await tspod('image', 'extract', '--rootfs-only', fromLayout('busybox'), folder);
    expect(readdirSync(folder)).toContain('bin');
    const again = await use.box.run(['image', 'extract', fromLayout('busybox'), folder]);
    expect(again).toMatchObject({ status: 254 });
    expect(again.stderr).toMatch(/output directory exists \(try --overwrite\)/);
    await tspod('image', 'extract', '--overwrite', fromLayout('busybox'), folder);
    expect(readdirSync(folder).sort()).toEqual(['manifest', 'rootfs']);
    expect(readdirSync(use.box.root).filter(name => name.startsWith('.'))).toEqual([]);
  });
});
