/** Archives as real tools write them, run by the built program. */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { fromLayout, useSandbox } from './sandbox.ts';

const use = useSandbox();

/** skopeo's archive of the busybox image. */
function saved(kind: 'docker-archive' | 'oci-archive', ref: string): string {
  const path = join(use.box.root, `${kind}.tar`);
  const words = ['copy', '--quiet', fromLayout('busybox'), `${kind}:${path}:${ref}`];
  execFileSync('skopeo', ['--insecure-policy', ...words], { stdio: 'pipe' });
  return path;
}

test.each([
  ['docker-archive', 'example.com/box:1'],
  ['oci-archive', 'one'],
] as const)('%s: run as it is, compressed, and from standard input', async (kind, ref) => {
  const path = saved(kind, ref);
  const packed = `${path}.bin`;
  writeFileSync(packed, gzipSync(readFileSync(path)));
  const command = ['--', '-c', 'cat /etc/motd'];
  const answer = { status: 0, stdout: 'hello from the app layer\n' };
  for (const image of [`${kind}:${path}:${ref}`, path, packed]) {
    expect(await use.box.run(['run', image, ...command]), image).toMatchObject(answer);
  }
  const fetched = await use.box.run(['fetch', '--full', '-'], { input: readFileSync(packed) });
  expect(fetched).toMatchObject({ status: 0 });
  expect(await use.box.run(['run', fetched.stdout.trim(), ...command])).toMatchObject(answer);
  expect(await use.box.run(['image', 'verify', fetched.stdout.trim()])).toMatchObject({
    status: 0,
    stdout: expect.stringContaining('successfully verified checksum for image: '),
  });
  expect(readdirSync(join(use.box.dir, 'cas/v1/tmp'))).toEqual([]);
  expect(await use.box.run(['fetch', '-'], { input: 'no archive' })).toMatchObject({ status: 254 });
});
