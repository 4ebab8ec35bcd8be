/** Trust as a user meets it: `trust`, `image explain`, and images that run or are refused. */
import { generateKeyPairSync } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { parseDigest } from '../../src/image/digest.ts';
import { folder, json, type MadeImage, removeFolder } from '../fetch/support.ts';
import { type Registry, startRegistry } from '../support/registry.ts';
import { type Ended, TSPOD } from '../support/tspod.ts';
import { BUNDLE, cosignTag, pushSigned, referrer } from '../verify/signed-images.ts';
import { IDENTITY, ISSUER, makeInstance } from '../verify/sigstore/authority.ts';
import { signBundle } from '../verify/sigstore/signing.ts';
import { statementOf, subjectOf } from '../verify/sigstore/subject.ts';
import { useSandbox } from './sandbox.ts';

const use = useSandbox();
const instance = makeInstance();
const keys = generateKeyPairSync('ec', { namedCurve: 'P-256' });
let shared: string;
let registry: Registry;

beforeAll(async () => {
  shared = folder();
  registry = await startRegistry(shared);
});
afterAll(async () => {
  await registry.stop();
  removeFolder(shared);
});

/** The tool without --insecure-options=image. */
function tspod(...args: readonly string[]): Promise<Ended> {
  const { root, dir } = use.box;
  const flags = [
    `--dir=${dir}`,
    `--system-config=${root}/vendor`,
    `--local-config=${root}/local`,
    '--insecure-options=http',
  ];
  const command = ['-m', '--propagation', 'private', TSPOD, ...flags, ...args];
  return use.box.spawn('unshare', command).ended;
}

/** Busybox, as the layout of the test run has it. */
function busybox(): MadeImage {
  const layout = `${inject('layouts')}/busybox`;
  const blobs = new Map<string, Uint8Array>();
  for (const hex of readdirSync(join(layout, 'blobs/sha256'))) {
    blobs.set(`sha256:${hex}`, readFileSync(join(layout, 'blobs/sha256', hex)));
  }
  const index = JSON.parse(readFileSync(join(layout, 'index.json'), 'utf8'));
  const [{ mediaType, digest, size }] = index.manifests;
  const manifest = { mediaType, digest: parseDigest(digest, 'test'), size };
  return { blobs, manifest, config: manifest, layers: [] };
}

test('from a signed image in a registry to a pod, and back to a refusal', async () => {
  const image = busybox();
  const name = `${registry.host}/team/busybox`;
  const reference = `docker://${name}`;
  await pushSigned(registry.host, 'team/busybox', image, [cosignTag(image.manifest, name, keys)]);
  const run = () => tspod('run', reference, '--', '-c', 'echo up');

  const unknown = await run();
  expect(unknown).toMatchObject({ status: 254, stdout: '' });
  expect(unknown.stderr).toMatch(/^tspod: image ".*" has no accepted signature: .*\n$/);

  const file = join(use.box.root, 'team.pub');
  writeFileSync(file, keys.publicKey.export({ type: 'spki', format: 'pem' }));
  const prefix = `--prefix=${registry.host}/team`;
  const trusted = await tspod('trust', prefix, `--cosign-key=${file}`);
  expect(trusted).toMatchObject({ status: 0, stdout: '' });
  expect(trusted.stderr).toMatch(/^tspod: Added the trust rule for prefix ".*\/team" at ".*"\n$/);
  const listed = await tspod('trust', 'list');
  expect(listed.stdout).toMatch(/any\t+a signature by the cosign key sha256:[0-9a-f]{64}/);

  const first = await run();
  expect(first).toMatchObject({ status: 0, stdout: 'up\n' });
  expect(first.stderr).toMatch(/signature verified: cosign sha256:[0-9a-f]{64}/);
  expect(await run()).toMatchObject({ status: 0, stdout: 'up\n', stderr: '' });

  const [shown] = JSON.parse((await tspod('image', 'list', '--format=json')).stdout);
  expect(shown.verdict).toMatchObject({ admitted: true, signers: [{ kind: 'cosign', name }] });
  const pods = join(use.box.dir, 'pods/run');
  const uuids = readdirSync(pods);
  const [uuid = ''] = uuids;
  const use1 = readFileSync(join(pods, uuid, 'appsinfo/busybox/image.json'), 'utf8');
  expect(JSON.parse(use1).verdict).toEqual(shown.verdict);

  const explained = await tspod('image', 'explain', reference, '--format=json');
  expect(JSON.parse(explained.stdout)).toMatchObject({
    names: [{ name, require: 'any', rule: { prefix: `${registry.host}/team` } }],
    image: { may_run: true, verdict: shown.verdict },
  });

  await tspod('trust', 'remove', prefix);
  await tspod('trust', '--prefix=*', '--openpgp');
  const later = await run();
  expect(later.stderr).toMatch(/may not run: the trust rule for all names .* needs an OpenPGP/);
  expect((await tspod('image', 'explain', reference)).stdout).toMatch(/may run\t+no: /);
  // A pod manifest names images by id.
  const manifest = join(use.box.root, 'pod.json');
  const id = shown.id.replace(':', '-');
  const app = { exec: ['/bin/true'], user: '0', group: '0' };
  const apps = [{ name: 'busybox', image: { id }, app }];
  writeFileSync(manifest, JSON.stringify({ acKind: 'PodManifest', acVersion: '0.8.11', apps }));
  const byManifest = () => tspod('run', `--pod-manifest=${manifest}`);
  expect((await byManifest()).stderr).toMatch(/may not run: the trust rule for all names/);
  const replaced = await tspod('trust', '--prefix=*', '--allow-unsigned');
  expect(replaced).toMatchObject({ status: 254 });
  expect(replaced.stderr).toMatch(/has a rule that demands signatures/);
  await tspod('trust', 'remove', '--prefix=*');
  await tspod('trust', '--prefix=*', '--allow-unsigned');
  expect(await run()).toMatchObject({ status: 0, stdout: 'up\n' });
  expect(await byManifest()).toMatchObject({ status: 0, stderr: '' });
});

test('an image of a sigstore of one’s own', async () => {
  const image = busybox();
  const bytes = image.blobs.get(image.manifest.digest) ?? Buffer.alloc(0);
  const payload = statementOf(subjectOf(bytes));
  const bundle = json(signBundle({ instance, signer: instance.issue(), payload }));
  await pushSigned(registry.host, 'own/busybox', image, [referrer(image.manifest, BUNDLE, bundle)]);
  const run = () => tspod('run', `docker://${registry.host}/own/busybox`, '--', '-c', 'echo up');
  const rule = [`--prefix=${registry.host}/own`, `--identity=${IDENTITY}`, `--issuer=${ISSUER}`];
  expect(await tspod('trust', ...rule)).toMatchObject({ status: 0 });
  expect(await run()).toMatchObject({ status: 254, stdout: '' });
  const file = join(use.box.root, 'trusted_root.json');
  writeFileSync(file, JSON.stringify(instance.trustedRoot()));
  expect(await tspod('trust', ...rule, `--trusted-root=${file}`)).toMatchObject({ status: 0 });
  expect(await run()).toMatchObject({ status: 0, stdout: 'up\n' });
});

test('a rule by hand is left alone; what is wrong on the command line changes nothing', async () => {
  const folderOf = join(use.box.root, 'local/trust.d');
  const root = join(use.box.root, 'trusted_root.json');
  writeFileSync(root, JSON.stringify(instance.trustedRoot()));
  for (const args of [
    ['--prefix=x.y', '--cosign-key=/nonexistent'],
    ['--prefix=x.y', '--identity=a'],
    ['--prefix=x.y', '--require=all'],
    ['--prefix=x.y', '--require=some', '--openpgp'],
    ['--prefix=docker://x.y', '--allow-unsigned'],
    ['--allow-unsigned'],
    ['--root', '--allow-unsigned'],
    ['--prefix=x.y', '--allow-unsigned', 'key.asc'],
    ['--prefix=x.y', '--identity-regexp=(', '--issuer=b'],
    ['--prefix=x.y', '--identity=a', '--issuer=b', '--trusted-root=/nonexistent'],
    ['--prefix=x.y', '--identity=a', '--issuer=b', '--trusted-root=/etc/passwd'],
    ['--prefix=x.y', '--allow-unsigned', `--trusted-root=${root}`],
    ['--prefix=x.y', `--trusted-root=${root}`],
  ]) {
    expect(await tspod('trust', ...args)).toMatchObject({ status: 254, stdout: '' });
  }
  expect(() => readdirSync(folderOf)).toThrow(/ENOENT/);
  await tspod('trust', '--prefix=x.y', '--allow-unsigned');
  const [name = ''] = readdirSync(folderOf);
  const byHand = readFileSync(join(folderOf, name), 'utf8').replace('x.y', 'a.b');
  writeFileSync(join(folderOf, 'own.json'), byHand);
  const refused = await tspod('trust', '--prefix=a.b', '--openpgp');
  expect(refused.stderr).toMatch(/has a rule in .*own\.json already; edit that file/);
  const kept = await tspod('trust', 'remove', '--prefix=a.b');
  expect(kept.stderr).toMatch(/own\.json; edit that file/);
  expect(readFileSync(join(folderOf, 'own.json'), 'utf8')).toBe(byHand);
});
