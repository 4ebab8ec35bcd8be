/**
 * Every source of images × every kind of signature that can exist for it, by the built program: signed by who is
 * trusted it runs; unsigned, by another key, for another name, expired, with an altered blob or signature it is
 * refused, by the reason, and nothing of it stays; `--insecure-options=image` admits it and the record says so.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, inject, test } from 'vitest';
import { parseDigest } from '../../src/image/digest.ts';
import {
  folder,
  json,
  type MadeImage,
  removeFolder,
  serve,
  type TestServer,
} from '../fetch/support.ts';
import { busybox as busyboxRoot, writeAci } from '../images/aci-writer.ts';
import { type Registry, startRegistry } from '../support/registry.ts';
import { type Ended, TSPOD } from '../support/tspod.ts';
import { Gpg } from '../verify/gpg.ts';
import {
  BUNDLE,
  cosignTag,
  PGP,
  pushSigned,
  referrer,
  type Signature,
  writeSignedLayout,
} from '../verify/signed-images.ts';
import { IDENTITY, ISSUER, makeInstance } from '../verify/sigstore/authority.ts';
import { ecKey, HOUR, pem } from '../verify/sigstore/certificates.ts';
import { signBundle } from '../verify/sigstore/signing.ts';
import { statementOf, subjectOf } from '../verify/sigstore/subject.ts';
import { useSandbox } from './sandbox.ts';

const use = useSandbox();
const keys = ecKey();
const otherKeys = ecKey();
const instance = makeInstance();
let gpg: Gpg;
let registry: Registry;
let shared: string;
let servers: TestServer[] = [];
let image: MadeImage;
const pgp = { signer: '', stranger: '', expired: '' };

beforeAll(async () => {
  gpg = new Gpg();
  pgp.signer = gpg.key('signer', 'ed25519');
  pgp.stranger = gpg.key('stranger', 'ed25519');
  pgp.expired = gpg.key('expired', 'ed25519', { expire: '30d', day: '2020-01-01' });
  shared = folder();
  registry = await startRegistry(shared);
  image = busybox();
});
afterAll(async () => {
  gpg.close();
  await registry.stop();
  removeFolder(shared);
});
afterEach(async () => {
  for (const server of servers) await server.close();
  servers = [];
});

/** Busybox, as the layout of the test run has it. */
function busybox(): MadeImage {
  const layout = `${inject('layouts')}/busybox`;
  const blobs = new Map<string, Uint8Array>();
  for (const hex of readdirSync(join(layout, 'blobs/sha256'))) {
    blobs.set(`sha256:${hex}`, readFileSync(join(layout, 'blobs/sha256', hex)));
  }
  const [{ mediaType, digest, size }] = JSON.parse(
    readFileSync(join(layout, 'index.json'), 'utf8'),
  ).manifests;
  const manifest = { mediaType, digest: parseDigest(digest, 'test'), size };
  const document = JSON.parse(Buffer.from(blobs.get(digest) ?? '').toString());
  return { blobs, manifest, config: document.config, layers: document.layers };
}

function manifestBytes(): Buffer {
  return Buffer.from(image.blobs.get(image.manifest.digest) ?? '');
}

/** Flips a bit in the middle. */
function altered(bytes: Uint8Array): Buffer {
  const copy = Buffer.from(bytes);
  const at = Math.floor(copy.length / 2);
  copy[at] = (copy[at] ?? 0) ^ 1;
  return copy;
}

type Case = 'signed' | 'unsigned' | 'wrong key' | 'wrong name' | 'expired' | 'tampered signature';

/** The signature of a manifest in this case; undefined: the kind knows no such case. */
interface ManifestKind {
  readonly rule: () => object;
  readonly sign: (how: Case, name: string) => readonly Signature[] | undefined;
  /** For cases whose reason is the kind's own. */
  readonly why: Partial<Record<Case, RegExp>>;
}

const bundleBy = (signer: Parameters<typeof signBundle>[0]['signer'], at = instance.now) =>
  json(signBundle({ instance, signer, at, payload: statementOf(subjectOf(manifestBytes())) }));

function detached(how: Case, content: Buffer): Buffer | undefined {
  switch (how) {
    case 'unsigned':
      return undefined;
    case 'wrong key':
      return gpg.sign(content, pgp.stranger);
    case 'expired':
      return gpg.sign(content, pgp.expired, [], '2020-01-02');
    case 'tampered signature': {
      const signature = gpg.sign(content, pgp.signer);
      const at = signature.length - 10;
      signature[at] = (signature[at] ?? 0) ^ 1;
      return signature;
    }
    default:
      return gpg.sign(content, pgp.signer);
  }
}

const PGP_WHY: ManifestKind['why'] = {
  'wrong key': /signature made by unknown entity/,
  'wrong name': /signature made by unknown entity/,
  expired: /expired/,
  'tampered signature': /not made by this key|not what was signed|malformed/,
};

const MANIFEST_KINDS: Readonly<Record<string, ManifestKind>> = {
  openpgp: {
    rule: () => ({ openpgp: true }),
    sign: how => {
      const signature = detached(how, manifestBytes());
      return signature === undefined ? [] : [referrer(image.manifest, PGP, signature)];
    },
    why: PGP_WHY,
  },
  'cosign key': {
    rule: () => ({ cosignKeys: [pem(keys.publicKey)] }),
    sign: (how, name) => {
      const by = how === 'wrong key' ? otherKeys : keys;
      switch (how) {
        case 'unsigned':
          return [];
        case 'expired':
          return undefined; // a key has no end
        case 'wrong name':
          // Images on disk have no repository that it could be for.
          if (name.startsWith('/')) return undefined;
          return [cosignTag(image.manifest, 'evil.example/app', by)];
        case 'tampered signature':
          return [
            cosignTag(image.manifest, name, by, {
              signature: text => altered(Buffer.from(text, 'base64')).toString('base64'),
            }),
          ];
        default:
          return [cosignTag(image.manifest, name, by)];
      }
    },
    why: {
      'wrong key': /was not made with the key/,
      'wrong name': /it was made for "evil\.example\/app", not for/,
      'tampered signature': /or was altered/,
    },
  },
  'sigstore bundle': {
    rule: () => ({
      identities: [{ identity: IDENTITY, issuer: ISSUER }],
      trustedRoot: join(use.box.root, 'trusted_root.json'),
    }),
    sign: how => {
      const attach = (bytes: Uint8Array) => [referrer(image.manifest, BUNDLE, bytes)];
      switch (how) {
        case 'unsigned':
          return [];
        case 'wrong key':
          return attach(bundleBy(makeInstance().issue()));
        case 'wrong name':
          return attach(bundleBy(instance.issue({ identity: 'https://evil.example/x' })));
        case 'expired':
          return attach(bundleBy(instance.issue(), new Date(instance.now.getTime() + HOUR)));
        case 'tampered signature': {
          const text = Buffer.from(bundleBy(instance.issue())).toString();
          const swap = (c: string) => (c === 'A' ? 'B' : 'A');
          return attach(
            Buffer.from(
              text.replace(/("sig":".{30})(.)/, (_, head: string, c: string) => head + swap(c)),
            ),
          );
        }
        default:
          return attach(bundleBy(instance.issue()));
      }
    },
    why: {
      'wrong key': /has no accepted signature/,
      'wrong name': /who is not accepted/,
      expired: /not valid|expired|outside|validity/,
      'tampered signature': /does not fit|signature/,
    },
  },
};

/** What the program gets: a reference, perhaps standard input, perhaps a named signature. */
interface Offer {
  readonly reference: string;
  readonly input?: Buffer;
  readonly flags?: readonly string[];
}

const LAYER = () => image.layers[0]?.digest ?? '';

/** Sources whose manifests carry signatures. @param damage a layer's blob no longer has its digest */
const MANIFEST_SOURCES: Readonly<
  Record<
    string,
    {
      readonly name: (at: string) => string;
      readonly offer: (
        signatures: readonly Signature[],
        at: string,
        damage: boolean,
      ) => Promise<Offer>;
    }
  >
> = {
  'docker://': {
    name: at => `${registry.host}/team/${at}`,
    offer: async (signatures, at, damage) => {
      await pushSigned(registry.host, `team/${at}`, image, signatures);
      if (damage) damageRegistry();
      return { reference: `docker://${registry.host}/team/${at}` };
    },
  },
  'oci:': {
    name: () => join(use.box.root, 'layout'),
    offer: async (signatures, _at, damage) => ({ reference: `oci:${layout(signatures, damage)}` }),
  },
  'oci-archive:': {
    name: () => join(use.box.root, 'image.tar'),
    offer: async (signatures, _at, damage) => ({
      reference: `oci-archive:${archive(signatures, damage)}`,
    }),
  },
  '- (an OCI archive)': {
    name: () => '/dev/stdin',
    offer: async (signatures, _at, damage) => ({
      reference: '-',
      input: readFileSync(archive(signatures, damage)),
    }),
  },
};

const pristine = new Map<string, Buffer>();

function damageRegistry(): void {
  const hex = LAYER().slice(7);
  const file = join(shared, 'docker/registry/v2/blobs/sha256', hex.slice(0, 2), hex, 'data');
  const bytes = readFileSync(file);
  pristine.set(file, bytes);
  writeFileSync(file, altered(bytes));
}

/** Other tests push the same layer. */
afterEach(() => {
  for (const [file, bytes] of pristine) writeFileSync(file, bytes);
  pristine.clear();
});

function layout(signatures: readonly Signature[], damage: boolean): string {
  const path = join(use.box.root, 'layout');
  writeSignedLayout(path, image, signatures);
  const blob = join(path, 'blobs', LAYER().replace(':', '/'));
  if (damage) writeFileSync(blob, altered(readFileSync(blob)));
  return `${path}:latest`.replace(/:latest$/, '');
}

function archive(signatures: readonly Signature[], damage: boolean): string {
  const path = layout(signatures, damage);
  const tar = join(use.box.root, 'image.tar');
  execFileSync('tar', ['-C', path, '-cf', tar, '.']);
  return tar;
}

const ACI_NAME = 'example.com/team/box';

/** Sources that are one file, with a detached OpenPGP signature. @returns what is signed, and how it is offered */
const FILE_SOURCES: Readonly<
  Record<
    string,
    {
      readonly make: () => Buffer;
      readonly offer: (content: Buffer, signature: Buffer | undefined) => Promise<Offer>;
    }
  >
> = {
  'oci-archive: with FILE.asc': {
    make: () => readFileSync(archive([], false)),
    offer: async (content, signature) => ({
      reference: `oci-archive:${put('signed.tar', content, signature)}`,
    }),
  },
  'docker-archive:': {
    make: dockerArchive,
    offer: async (content, signature) => ({
      reference: `docker-archive:${put('signed.tar', content, signature)}`,
    }),
  },
  '- (a docker archive)': {
    make: dockerArchive,
    offer: async (input, signature) => ({ reference: '-', input, flags: named(signature) }),
  },
  'an ACI file': {
    make: aci,
    offer: async (content, signature) => ({ reference: put('box.aci', content, signature) }),
  },
  'an ACI by URL': {
    make: aci,
    offer: async (content, signature) => {
      const server = await serve(({ url }, response) => {
        const body = url === '/box.aci' ? content : url === '/box.aci.asc' ? signature : undefined;
        response.statusCode = body === undefined ? 404 : 200;
        response.end(body);
      });
      servers.push(server);
      return { reference: `http://${server.host}/box.aci` };
    },
  },
  '- (an ACI)': {
    make: aci,
    offer: async (input, signature) => ({ reference: '-', input, flags: named(signature) }),
  },
};

function dockerArchive(): Buffer {
  const path = join(use.box.root, 'docker.tar');
  const words = [
    'copy',
    '--quiet',
    `oci:${layout([], false)}:latest`,
    `docker-archive:${path}:a:b`,
  ];
  execFileSync('skopeo', ['--insecure-policy', ...words], { stdio: 'pipe' });
  return readFileSync(path);
}

function aci(): Buffer {
  const app = { exec: ['/bin/sh'], user: '0', group: '0' };
  const options = { rootfs: busyboxRoot, manifest: { app } };
  return readFileSync(writeAci(join(use.box.root, 'made.aci'), ACI_NAME, options).path);
}

function put(name: string, content: Buffer, signature: Buffer | undefined): string {
  const path = join(use.box.root, name);
  writeFileSync(path, content);
  if (signature !== undefined) writeFileSync(`${path}.asc`, signature);
  return path;
}

function named(signature: Buffer | undefined): string[] {
  if (signature === undefined) return [];
  const path = join(use.box.root, 'named.sig');
  writeFileSync(path, signature);
  return [`--signature=${path}`];
}

/** Rules and keys; the signer's key for all names, or for another one only. */
function trust(rule: object, how: Case | 'tampered blob' | 'insecure'): void {
  const local = join(use.box.root, 'local');
  mkdirSync(join(local, 'trust.d'), { recursive: true });
  writeFileSync(join(use.box.root, 'trusted_root.json'), json(instance.trustedRoot()));
  const document = { rktKind: 'trust', rktVersion: 'v1', prefixes: ['*'], ...rule };
  writeFileSync(join(local, 'trust.d/all.json'), JSON.stringify(document));
  const place = how === 'wrong name' ? 'prefix.d/example.org/other' : 'root.d';
  for (const [key, at] of [
    [pgp.signer, place],
    [pgp.expired, 'root.d'],
  ] as const) {
    mkdirSync(join(local, 'trustedkeys', at), { recursive: true });
    writeFileSync(join(local, 'trustedkeys', at, key), gpg.exported(key));
  }
}

function tspod(insecure: string, words: readonly string[], input?: Buffer): Promise<Ended> {
  const { root, dir } = use.box;
  const flags = [`--dir=${dir}`, `--system-config=${root}/vendor`, `--local-config=${root}/local`];
  const command = ['-m', '--propagation', 'private', TSPOD, ...flags, insecure, ...words];
  return use.box.spawn('unshare', command, input === undefined ? {} : { input }).ended;
}

/** Fetched, then run by its id: what comes by standard input is not there a second time. */
async function admitted(offer: Offer, insecure = '--insecure-options=http'): Promise<unknown> {
  const { reference, input, flags = [] } = offer;
  const fetched = await tspod(insecure, ['fetch', '--full', reference, ...flags], input);
  expect(fetched, fetched.stderr).toMatchObject({ status: 0 });
  const ran = await tspod(insecure, ['run', fetched.stdout.trim(), '--', '-c', 'echo up']);
  expect(ran, ran.stderr).toMatchObject({ status: 0, stdout: 'up\n' });
  const listed = await tspod(insecure, ['image', 'list', '--format=json']);
  return JSON.parse(listed.stdout)[0].verdict;
}

async function refused(offer: Offer, why: RegExp): Promise<void> {
  const { reference, input, flags = [] } = offer;
  const ended = await tspod('--insecure-options=http', ['fetch', reference, ...flags], input);
  expect(ended).toMatchObject({ status: 254, stdout: '' });
  expect(ended.stderr.trimEnd().split('\n').at(-1)).toMatch(why);
  const listed = await tspod('--insecure-options=http', ['image', 'list', '--format=json']);
  expect(listed.stdout).toBe('[]\n');
}

const BAD: readonly Case[] = ['wrong key', 'wrong name', 'expired', 'tampered signature'];
const BY_OPTION = { admitted: true, by: '--insecure-options=image' };
let repositories = 0;

describe.each(Object.entries(MANIFEST_SOURCES))('%s', (_source, source) => {
  describe.each(Object.entries(MANIFEST_KINDS))('%s', (_kind, kind) => {
    const offer = (how: Case, damage = false): Promise<Offer> | undefined => {
      const at = `box${++repositories}`;
      const signatures = kind.sign(how, source.name(at));
      return signatures && source.offer(signatures, at, damage);
    };

    test('signed: runs; an altered blob: refused', async () => {
      trust(kind.rule(), 'signed');
      const bad = await offer('signed', true);
      await refused(bad ?? fail(), /digest/);
      for (const [file, bytes] of pristine) writeFileSync(file, bytes);
      const good = await offer('signed');
      expect(await admitted(good ?? fail())).toMatchObject({ admitted: true, signers: [{}] });
    });

    test('unsigned: refused, or admitted by the user’s word', async () => {
      trust(kind.rule(), 'unsigned');
      const unsigned = (await offer('unsigned')) ?? fail();
      await refused(unsigned, /it is not signed, and the trust rule for all names/);
      expect(await admitted(unsigned, '--insecure-options=http,image')).toEqual(BY_OPTION);
    });

    test.each(BAD)('%s: refused', async how => {
      trust(kind.rule(), how);
      const bad = await offer(how);
      const why = kind.why[how];
      // A kind that knows no such case says so by having no reason for it.
      if (bad !== undefined) await refused(bad, why ?? fail());
      else expect(why === undefined || how === 'wrong name').toBe(true);
    });
  });
});

describe.each(Object.entries(FILE_SOURCES))('%s, openpgp', (_source, { make, offer }) => {
  const rule = { openpgp: true };

  test('signed: runs; an altered blob: refused', async () => {
    trust(rule, 'signed');
    const content = make();
    const signature = detached('signed', content);
    await refused(
      await offer(altered(content), signature),
      /not what was signed|not made by this key|digest|checksum|malformed/,
    );
    expect(await admitted(await offer(content, signature))).toMatchObject({
      admitted: true,
      signers: [{ kind: 'openpgp', signer: pgp.signer }],
    });
  });

  test('unsigned: refused, or admitted by the user’s word', async () => {
    trust(rule, 'unsigned');
    const unsigned = await offer(make(), undefined);
    await refused(unsigned, /not signed/);
    expect(await admitted(unsigned, '--insecure-options=http,image')).toEqual(BY_OPTION);
  });

  test.each(BAD)('%s: refused', async how => {
    trust(rule, how);
    const content = make();
    await refused(await offer(content, detached(how, content)), PGP_WHY[how] ?? fail());
  });
});

function fail(): never {
  throw new Error('the table of this test has a hole');
}
