/**
 * Who vouches for an image: every place where a signature can lie × every kind of signature, signed and not,
 * by the wrong key, for the wrong name, altered; and what the store makes of it later.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { Context } from '../../src/context.ts';
import { TspodError } from '../../src/errors.ts';
import type { ImageRecord } from '../../src/store/types.ts';
import { fetchImage, type PullPolicy } from '../../stage0/fetch/fetch.ts';
import {
  FAST,
  folder,
  json,
  type MadeImage,
  makeImage,
  registryOf,
  removeFolder,
  serve,
  type TestServer,
  testContext,
  testStore,
} from '../fetch/support.ts';
import { type Registry, startRegistry } from '../support/registry.ts';
import { Gpg } from './gpg.ts';
import {
  BUNDLE,
  cosignTag,
  PGP,
  pushSigned,
  referrer,
  referrersIndex,
  type Signature,
  writeSignedLayout,
} from './signed-images.ts';
import { IDENTITY, ISSUER, type Issued, makeInstance } from './sigstore/authority.ts';
import { ecKey, pem } from './sigstore/certificates.ts';
import { signBundle } from './sigstore/signing.ts';
import { statementOf, subjectOf } from './sigstore/subject.ts';

const keys = ecKey();
const otherKeys = ecKey();
const instance = makeInstance();
const issued = instance.issue();
let gpg: Gpg;
let fingerprint: string;
let otherFingerprint: string;
let registry: Registry;
let shared: string;
let dir: string;
let servers: TestServer[] = [];
let repositories = 0;

beforeAll(async () => {
  gpg = new Gpg();
  fingerprint = gpg.key('signer', 'ed25519');
  otherFingerprint = gpg.key('stranger', 'ed25519');
  shared = folder();
  registry = await startRegistry(join(shared, 'registry'));
});
afterAll(async () => {
  gpg.close();
  await registry.stop();
  removeFolder(shared);
});
beforeEach(() => {
  dir = folder();
  write('trusted_root.json', instance.trustedRoot());
});
afterEach(async () => {
  for (const server of servers) await server.close();
  servers = [];
  removeFolder(dir);
});

function write(path: string, value: object | string | Uint8Array): string {
  const file = join(dir, path);
  mkdirSync(join(file, '..'), { recursive: true });
  const raw = typeof value === 'string' || value instanceof Uint8Array;
  writeFileSync(file, raw ? value : JSON.stringify(value));
  return file;
}

function rule(prefix: string, more: object): void {
  write(`conf/trust.d/${encodeURIComponent(prefix)}.json`, {
    rktKind: 'trust',
    rktVersion: 'v1',
    prefixes: [prefix],
    ...more,
  });
}

function trustKey(id: string, scope: string): void {
  const at = scope === '' ? 'root.d' : `prefix.d/${scope}`;
  write(`conf/trustedkeys/${at}/${id}`, gpg.exported(id));
}

function context(changes: Partial<Context> = {}): Context {
  return testContext(dir, {
    localConfig: join(dir, 'conf'),
    insecure: new Set(['http']),
    ...changes,
  });
}

async function get(
  reference: string,
  changes: Partial<Context> = {},
  more: { pullPolicy?: PullPolicy; signature?: string } = {},
): Promise<ImageRecord> {
  const store = testStore(join(dir, 'data'));
  const lease = store.lease();
  const options = { pullPolicy: 'update' as const, timing: FAST, ...more };
  try {
    const { image } = await fetchImage(context(changes), store, reference, { ...options, lease });
    return image;
  } finally {
    store.close();
  }
}

async function refused(...args: Parameters<typeof get>): Promise<string> {
  const error: unknown = await get(...args).catch((e: unknown) => e);
  if (!(error instanceof TspodError)) throw error ?? new Error('it was admitted');
  if (error.code !== 'trust') throw error;
  expect(error.line).not.toMatch(/\n/);
  return error.line;
}

function image(): MadeImage {
  repositories += 1;
  return makeImage([`layer ${repositories}`]);
}

const flip = (bytes: Uint8Array, at: number): Buffer => {
  const copy = Buffer.from(bytes);
  copy[at] = (copy[at] ?? 0) ^ 1;
  return copy;
};

/** A place for an image with signatures. `name` is what rules and payloads call it. */
interface Place {
  readonly reference: string;
  readonly name: string;
}

const PLACES: Readonly<
  Record<string, (made: MadeImage, signatures: (name: string) => Signature[]) => Promise<Place>>
> = {
  'a registry without the referrers API': async (made, signatures) => {
    const repository = `team/app${repositories}`;
    const name = `${registry.host}/${repository}`;
    await pushSigned(registry.host, repository, made, signatures(name));
    return { reference: `docker://${name}`, name };
  },
  'a registry with the referrers API': withReferrersApi,
  'an OCI layout': async (made, signatures) => {
    const name = join(dir, 'layout');
    writeSignedLayout(name, made, signatures('example.com/app'));
    return { reference: `oci:${name}:latest`, name };
  },
  'an OCI archive': async (made, signatures) => {
    writeSignedLayout(join(dir, 'layout'), made, signatures('example.com/app'));
    const name = join(dir, 'app.tar');
    spawnSync('tar', ['-C', join(dir, 'layout'), '-cf', name, '.']);
    return { reference: `oci-archive:${name}:latest`, name };
  },
};

/** The signatures are made when the server's name is known. */
async function withReferrersApi(
  made: MadeImage,
  signatures: (name: string) => Signature[],
): Promise<Place> {
  const live: Signature[] = [];
  const blobs = new Map<string, Uint8Array>();
  const server = await serve(
    registryOf(made, ({ url = '' }, response) => {
      const last = url.split('/').at(-1) ?? '';
      if (url.includes('/referrers/')) {
        response.setHeader('Content-Type', 'application/vnd.oci.image.index.v1+json');
        const mine = last === made.manifest.digest;
        response.end(referrersIndex(live.filter(({ tag }) => mine && tag === undefined)));
        return true;
      }
      const tagged = live.find(({ tag }) => tag === last);
      const bytes = blobs.get(tagged?.manifest.digest ?? last);
      if (bytes === undefined && !/\.sig$|\/sha256-/.test(url)) return false;
      response.statusCode = bytes === undefined ? 404 : 200;
      response.end(bytes);
      return true;
    }),
  );
  servers.push(server);
  const name = `${server.host}/team/app`;
  live.push(...signatures(name));
  for (const each of live) for (const [digest, bytes] of each.blobs) blobs.set(digest, bytes);
  return { reference: `docker://${name}`, name };
}

const bundle = (made: MadeImage, signer: Issued | { keys: typeof keys }): Uint8Array => {
  const bytes = made.blobs.get(made.manifest.digest) ?? new Uint8Array();
  const payload = statementOf(subjectOf(bytes));
  return json(signBundle({ instance, signer, payload }));
};

const KINDS: Readonly<
  Record<
    string,
    {
      readonly rule: () => object;
      readonly good: (made: MadeImage, name: string) => Signature;
      readonly signer: () => object;
      readonly bad: Readonly<
        Record<string, [(made: MadeImage, name: string) => Signature, RegExp]>
      >;
    }
  >
> = {
  'cosign key': {
    rule: () => ({ cosignKeys: [pem(keys.publicKey)] }),
    good: (made, name) => cosignTag(made.manifest, name, keys),
    signer: () => ({ kind: 'cosign', signer: expect.stringMatching(/^sha256:/) }),
    bad: {
      'another key': [
        (made, name) => cosignTag(made.manifest, name, otherKeys),
        /was not made with the key/,
      ],
      'another image': [
        (made, name) => {
          const other = cosignTag(makeImage(['other']).manifest, name, keys);
          return { ...other, tag: `${made.manifest.digest.replace(':', '-')}.sig` };
        },
        /it is for another image/,
      ],
      'an altered payload': [
        (made, name) => cosignTag(made.manifest, name, keys, { payload: bytes => flip(bytes, 40) }),
        /or was altered/,
      ],
      'an altered signature': [
        (made, name) =>
          cosignTag(made.manifest, name, keys, {
            signature: text => flip(Buffer.from(text, 'base64'), 20).toString('base64'),
          }),
        /or was altered/,
      ],
      'no signature': [
        (made, name) => cosignTag(made.manifest, name, keys, { signature: () => '' }),
        /has no accepted signature/,
      ],
    },
  },
  'sigstore identity': {
    rule: () => ({
      identities: [{ identity: IDENTITY, issuer: ISSUER }],
      trustedRoot: join(dir, 'trusted_root.json'),
    }),
    good: made => referrer(made.manifest, BUNDLE, bundle(made, issued)),
    signer: () => ({ kind: 'sigstore', signer: IDENTITY, detail: ISSUER }),
    bad: {
      'somebody else': [
        made =>
          referrer(
            made.manifest,
            BUNDLE,
            bundle(made, instance.issue({ identity: 'https://evil.example/x' })),
          ),
        /who is not accepted/,
      ],
      'another image': [
        made => referrer(made.manifest, BUNDLE, bundle(makeImage(['other']), issued)),
        /about another image/,
      ],
      'an altered bundle': [
        made => {
          const text = Buffer.from(bundle(made, issued)).toString();
          const swap = (c: string) => (c === 'A' ? 'B' : 'A');
          const altered = text.replace(
            /("sig":".{30})(.)/,
            (_, a: string, c: string) => a + swap(c),
          );
          return referrer(made.manifest, BUNDLE, Buffer.from(altered));
        },
        /does not fit|signature/,
      ],
      'another sigstore': [
        made => {
          const elsewhere = makeInstance();
          const bytes = made.blobs.get(made.manifest.digest) ?? new Uint8Array();
          const payload = statementOf(subjectOf(bytes));
          const signed = signBundle({ instance: elsewhere, signer: elsewhere.issue(), payload });
          return referrer(made.manifest, BUNDLE, json(signed));
        },
        /has no accepted signature/,
      ],
    },
  },
  'key of a bundle': {
    rule: () => ({
      cosignKeys: [write('key.pub', pem(keys.publicKey))],
      trustedRoot: join(dir, 'trusted_root.json'),
    }),
    good: made => referrer(made.manifest, BUNDLE, bundle(made, { keys })),
    signer: () => ({ kind: 'cosign' }),
    bad: {
      'another key': [
        made => referrer(made.manifest, BUNDLE, bundle(made, { keys: otherKeys })),
        /does not fit: made with another key/,
      ],
    },
  },
  'OpenPGP key': {
    rule: () => {
      trustKey(fingerprint, '');
      return { openpgp: true };
    },
    good: made => referrer(made.manifest, PGP, pgp(made, fingerprint)),
    signer: () => ({ kind: 'openpgp', signer: fingerprint }),
    bad: {
      'an unknown key': [
        made => referrer(made.manifest, PGP, pgp(made, otherFingerprint)),
        /signature made by unknown entity/,
      ],
      'another image': [
        made => referrer(made.manifest, PGP, pgp(makeImage(['other']), fingerprint)),
        /the content is not what was signed|not made by this key over this content/,
      ],
    },
  },
};

function pgp(made: MadeImage, signer: string): Buffer {
  return gpg.sign(Buffer.from(made.blobs.get(made.manifest.digest) ?? ''), signer);
}

describe.each(Object.entries(PLACES))('%s', (_place, place) => {
  describe.each(Object.entries(KINDS))('%s', (_kind, kind) => {
    test('signed: admitted, and the record says by whom', async () => {
      const made = image();
      const { reference, name } = await place(made, at => [kind.good(made, at)]);
      rule('*', kind.rule());
      const { verdict } = await get(reference);
      expect(verdict).toMatchObject({ admitted: true, rule: '*' });
      expect(verdict.signers).toEqual([
        expect.objectContaining({ name, digest: made.manifest.digest, ...kind.signer() }),
      ]);
    });

    test('not signed: refused; --insecure-options=image admits and says so', async () => {
      const made = image();
      const { reference } = await place(made, () => []);
      rule('*', kind.rule());
      expect(await refused(reference)).toMatch(
        /has no accepted signature: it is not signed, and the trust rule for all names \(.*\) needs .*--insecure-options=image/,
      );
      const { verdict } = await get(reference, { insecure: new Set(['http', 'image']) });
      expect(verdict).toEqual({ admitted: true, by: '--insecure-options=image' });
      expect(await refused(reference)).toMatch(/it is not signed/);
    });

    test.each(Object.entries(kind.bad))('signed by or for %s: refused', async (_, [make, why]) => {
      const made = image();
      const { reference } = await place(made, at => [make(made, at)]);
      rule('*', kind.rule());
      expect(await refused(reference)).toMatch(why);
    });
  });
});

describe('which rule decides', () => {
  const layout = (made: MadeImage, ...signatures: Signature[]): string => {
    writeSignedLayout(join(dir, 'srv/app'), made, signatures);
    return `oci:${join(dir, 'srv/app')}:latest`;
  };
  const byKey = { cosignKeys: [pem(keys.publicKey)] };

  test('without rules and keys everything is refused, and the kind of signature that is there is told', async () => {
    const made = image();
    expect(await refused(layout(made))).toMatch(/it is not signed; .*--insecure-options=image$/);
    const signed = layout(image(), cosignTag(made.manifest, 'x', keys));
    expect(await refused(signed)).toMatch(/has no accepted signature: it is not signed/);
  });

  test('without a rule the OpenPGP key stores decide, as with rkt', async () => {
    const made = image();
    const reference = layout(made, referrer(made.manifest, PGP, pgp(made, fingerprint)));
    expect(await refused(reference)).toMatch(/unknown entity.*tspod trust --prefix=.* KEY-FILE/);
    trustKey(fingerprint, '');
    expect((await get(reference)).verdict).toMatchObject({
      by: 'trusted OpenPGP key',
      signers: [{ kind: 'openpgp', signer: fingerprint, detail: 'signer <signer@example.com>' }],
    });
  });

  test('a key that is trusted for another name does not count', async () => {
    const made = image();
    const repository = `team/app${repositories}`;
    await pushSigned(registry.host, repository, made, [
      referrer(made.manifest, PGP, pgp(made, fingerprint)),
    ]);
    trustKey(fingerprint, `${registry.host}/team/app`);
    expect(await refused(`docker://${registry.host}/${repository}`)).toMatch(/unknown entity/);
    trustKey(fingerprint, `${registry.host}/${repository}`);
    await get(`docker://${registry.host}/${repository}`);
  });

  test('a cosign signature that was made for another name does not count', async () => {
    const made = image();
    const repository = `team/app${repositories}`;
    const name = `${registry.host}/${repository}`;
    await pushSigned(registry.host, repository, made, [
      cosignTag(made.manifest, `${registry.host}/evil/app`, keys),
    ]);
    rule(registry.host, byKey);
    expect(await refused(`docker://${name}`)).toMatch(/it was made for ".*evil\/app", not for/);
  });

  test('the longest prefix of whole components decides alone; none admits', async () => {
    const made = image();
    const reference = layout(made);
    rule('*', byKey);
    rule(dir, { require: 'none' });
    expect((await get(reference)).verdict).toMatchObject({ rule: dir, by: /trust rule for/ });
    rule(join(dir, 'srv/ap'), byKey);
    await get(reference);
    rule(join(dir, 'srv'), byKey);
    expect(await refused(reference)).toContain(`trust rule for ${join(dir, 'srv')} (`);
  });

  test('a later folder replaces the rule of a prefix', async () => {
    const reference = layout(image());
    rule('*', byKey);
    write('user/trust.d/x.json', {
      rktKind: 'trust',
      rktVersion: 'v1',
      prefixes: ['*'],
      require: 'none',
    });
    await refused(reference);
    await get(reference, { userConfig: join(dir, 'user') });
  });

  test('all wants each, any wants one', async () => {
    const made = image();
    const one = cosignTag(made.manifest, 'x', keys);
    const both = { cosignKeys: [pem(keys.publicKey), pem(otherKeys.publicKey)] };
    const reference = layout(made, one);
    rule('*', { ...both, require: 'all' });
    expect(await refused(reference)).toMatch(/its signatures do not suffice|not made with the key/);
    rule('*', { ...both, require: 'any' });
    expect((await get(reference)).verdict.signers).toHaveLength(1);
    const two = cosignTag(made.manifest, 'x', otherKeys);
    writeSignedLayout(join(dir, 'srv/app'), made, [one, two]);
    rule('*', { ...both, require: 'all' });
    expect((await get(reference)).verdict.signers).toHaveLength(2);
  });

  test('all over kinds: a key of OpenPGP and one of cosign', async () => {
    const made = image();
    trustKey(fingerprint, '');
    rule('*', { ...byKey, openpgp: [fingerprint.toUpperCase()], require: 'all' });
    const cosign = cosignTag(made.manifest, 'x', keys);
    expect(await refused(layout(made, cosign))).toContain(fingerprint);
    const openpgp = referrer(made.manifest, PGP, pgp(made, fingerprint));
    expect((await get(layout(made, cosign, openpgp))).verdict.signers).toHaveLength(2);
  });

  test('a signature over the index admits its manifests, and the record says what was signed', async () => {
    const made = image();
    const index = json({
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.index.v1+json',
      manifests: [made.manifest],
    });
    const top = makeTop(index);
    const blobs = new Map([...made.blobs, [top.digest, index]]);
    const whole = { ...made, manifest: top, blobs };
    const reference = layout(whole, cosignTag(top, 'x', keys));
    rule('*', byKey);
    const { verdict, manifestDigest } = await get(reference);
    expect(manifestDigest).toBe(made.manifest.digest);
    expect(verdict.signers).toMatchObject([{ digest: top.digest }]);
  });

  test.each<[string, object, RegExp]>([
    ['no prefixes', { prefixes: [] }, /prefixes is empty/],
    ['a scheme', { prefixes: ['docker://x.y'] }, /prefixes\[0\] .* has a scheme/],
    ['upper case', { prefixes: ['Docker.io'] }, /prefixes\[0\] .* lower case/],
    ['dots', { prefixes: ['/a/../b'] }, /is not a plain path/],
    ['a tag', { prefixes: ['a.b/c:1'] }, /is not a prefix of image names/],
    ['nothing asked', { require: 'all', cosignKeys: [] }, /require is all, of nothing/],
    ['none and a key', { require: 'none', openpgp: true }, /require is none, which does not go/],
    ['a typo', { cosignKey: ['x'], openpgp: true }, /"cosignKey" is not known/],
    ['a relative key', { cosignKeys: ['x.pub'] }, /cosignKeys\[0\] is neither PEM nor/],
    ['no key', { cosignKeys: ['/nonexistent.pub'] }, /cosignKeys\[0\] \/nonexistent.pub: ENOENT/],
    ['no PEM', { cosignKeys: ['-----BEGIN X-----'] }, /cosignKeys\[0\]: /],
    ['half an identity', { identities: [{ identity: 'x' }] }, /identities\[0\].issuer/],
    ['a bad pattern', { identities: [{ identityRegexp: '(', issuer: 'x' }] }, /regular expression/],
    ['a fingerprint', { openpgp: ['abc'] }, /openpgp\[0\] is not a fingerprint/],
    ['a word', { require: 'most', openpgp: true }, /require "most" is not any, all or none/],
  ])('a rule with %s is an error that names file and key', async (_, more, why) => {
    const reference = layout(image());
    rule('*', more);
    const error: unknown = await get(reference).catch((e: unknown) => e);
    expect(error).toMatchObject({ code: 'config', message: expect.stringMatching(why) });
    expect(String(error)).toContain('trust.d/');
  });
});

function makeTop(bytes: Uint8Array): MadeImage['manifest'] {
  const digest = subjectOf(bytes).digest;
  return { mediaType: 'application/vnd.oci.image.index.v1+json', digest, size: bytes.length };
}

describe('images of the store', () => {
  const byKey = { cosignKeys: [pem(keys.publicKey)] };
  const insecure = { insecure: new Set(['http', 'image'] as const) };

  async function pushed(signed: boolean): Promise<{ made: MadeImage; reference: string }> {
    const made = image();
    const name = `${registry.host}/team/app${repositories}`;
    const signatures = signed ? [cosignTag(made.manifest, name, keys)] : [];
    await pushSigned(registry.host, `team/app${repositories}`, made, signatures);
    return { made, reference: `docker://${name}` };
  }

  test('what an option admitted runs again without it, as with rkt, until a rule is written', async () => {
    const { reference } = await pushed(false);
    const { id } = await get(reference, insecure);
    await get(reference, {}, { pullPolicy: 'new' });
    await get(id, {}, { pullPolicy: 'never' });
    rule('*', byKey);
    for (const text of [reference, id]) {
      expect(await refused(text, {}, { pullPolicy: 'new' })).toMatch(
        /may not run: the trust rule for all names .* needs .*no signature.*fetch it again/,
      );
      await get(text, insecure, { pullPolicy: 'never' });
    }
    rule('*', { require: 'none' });
    await get(id, {}, { pullPolicy: 'never' });
  });

  test('what lacks a signature in its record gets it by fetching again', async () => {
    const { reference } = await pushed(true);
    await get(reference, insecure);
    rule('*', byKey);
    await refused(reference, {}, { pullPolicy: 'new' });
    expect((await get(reference)).verdict).toMatchObject({ rule: '*', signers: [{}] });
    await get(reference, { offline: true }, { pullPolicy: 'new' });
  });

  test('a key that was taken out of the rule admits no more', async () => {
    const { reference } = await pushed(true);
    rule('*', byKey);
    await get(reference);
    await get(reference, {}, { pullPolicy: 'never' });
    rule('*', { cosignKeys: [pem(otherKeys.publicKey)] });
    expect(await refused(reference, {}, { pullPolicy: 'never' })).toMatch(/its record has cosign/);
  });

  test('signers are kept for each name; one name does not vouch for another', async () => {
    const { made, reference } = await pushed(true);
    rule('*', byKey);
    const first = await get(reference);
    const name = `${registry.host}/copy/app${repositories}`;
    await pushSigned(registry.host, `copy/app${repositories}`, made, []);
    expect(await refused(`docker://${name}`)).toMatch(/it is not signed/);
    await get(`docker://${name}`, insecure);
    expect(await refused(`docker://${name}`, {}, { pullPolicy: 'never' })).toMatch(/may not run/);
    await pushSigned(registry.host, `copy/app${repositories}`, made, [
      cosignTag(made.manifest, name, keys),
    ]);
    const both = await get(`docker://${name}`);
    expect(both.verdict.signers?.map(signer => signer.name).sort()).toEqual(
      [name, first.verdict.signers?.[0]?.name ?? ''].sort(),
    );
    await get(reference, {}, { pullPolicy: 'never' });
  });

  test('the verdict survives the loss of the database', async () => {
    const { reference } = await pushed(true);
    rule('*', byKey);
    const { verdict } = await get(reference);
    rmSync(join(dir, 'data/cas/v1/store.db'));
    expect((await get(reference, {}, { pullPolicy: 'never' })).verdict).toEqual(verdict);
  });
});

describe('detached signatures', () => {
  test.each(['plain', 'gzip'])('of an archive (%s): FILE.asc, --signature', async form => {
    const made = image();
    writeSignedLayout(join(dir, 'layout'), made, []);
    const file = join(dir, 'app.tar');
    spawnSync('tar', ['-C', join(dir, 'layout'), form === 'gzip' ? '-czf' : '-cf', file, '.']);
    trustKey(fingerprint, '');
    expect(await refused(file)).toMatch(/it is not signed/);
    const signature = gpg.run(['--local-user', fingerprint, '--detach-sign', '-o', '-', file]);
    const elsewhere = write('elsewhere.sig', signature);
    expect((await get(file, {}, { signature: elsewhere })).verdict.signers).toMatchObject([
      { kind: 'openpgp', name: file },
    ]);
    rmSync(join(dir, 'data'), { recursive: true });
    write('app.tar.asc', flip(signature, signature.length - 3));
    expect(await refused(file)).toMatch(/not made by this key over this content|malformed/);
    write('app.tar.asc', signature);
    await get(file);
    // What is named is verified, though the image has been admitted before.
    expect(await refused(file, {}, { signature: '/nonexistent' })).toMatch(/no such file/);
    rule(dir, { require: 'none' });
    const wrong = write('wrong.sig', flip(signature, signature.length - 3));
    await refused(file, {}, { signature: wrong });
    await get(file, {}, { signature: elsewhere });
    rule(dir, { cosignKeys: [pem(keys.publicKey)] });
    await expect(get(file, {}, { signature: elsewhere })).rejects.toMatchObject({ code: 'usage' });
  });

  test('--signature of what the store has is refused', async () => {
    writeSignedLayout(join(dir, 'layout'), image(), []);
    const insecure = new Set(['image'] as const);
    const { id } = await get(`oci:${dir}/layout`, { insecure });
    await expect(get(id, {}, { signature: '/x' })).rejects.toMatchObject({ code: 'usage' });
  });

  test.each(['file', 'http'])('in a lookaside location (%s)', async scheme => {
    const made = image();
    const repository = `team/app${repositories}`;
    await pushSigned(registry.host, repository, made, []);
    const at = `look/${repository}@${made.manifest.digest.replace(':', '=')}/signature-`;
    write(`${at}1`, pgp(made, otherFingerprint));
    write(`${at}2`, pgp(made, fingerprint));
    let lookaside = `file://${dir}/look`;
    if (scheme === 'http') {
      const { readFileSync } = await import('node:fs');
      const server = await serve(({ url = '' }, response) => {
        try {
          response.end(readFileSync(join(dir, decodeURIComponent(url))));
        } catch {
          response.writeHead(404).end();
        }
      });
      servers.push(server);
      lookaside = `http://${server.host}/look/`;
    }
    write('conf/registries.d/x.json', {
      rktKind: 'registries',
      rktVersion: 'v1',
      registries: [registry.host],
      lookaside,
    });
    const reference = `docker://${registry.host}/${repository}`;
    expect(await refused(reference)).toMatch(/unknown entity/);
    trustKey(fingerprint, '');
    expect((await get(reference)).verdict.signers).toMatchObject([{ signer: fingerprint }]);
  });
});

describe('attacks', () => {
  const byIdentity = () => ({
    identities: [{ identity: IDENTITY, issuer: ISSUER }],
    trustedRoot: join(dir, 'trusted_root.json'),
  });
  const code = async (reference: string): Promise<string> => {
    const error: unknown = await get(reference).catch((e: unknown) => e);
    return error instanceof TspodError ? `${error.code}: ${error.line}` : 'admitted';
  };

  test('a registry that lists endless signatures is cut off by a named limit', async () => {
    const made = image();
    const many = Array.from({ length: 65 }, (_, n) => referrer(made.manifest, BUNDLE, json({ n })));
    const { reference } = await withReferrersApi(made, () => many);
    rule('*', byIdentity());
    expect(await code(reference)).toMatch(/^limit: .*limit of 64/);
  });

  test('a list of referrers that goes on for ever, or on another host', async () => {
    const made = image();
    for (const [link, why] of [
      ['?more=1', /limit of 8 pages/],
      ['http://127.0.0.1:1/v2/x', /goes on somewhere else/],
    ] as const) {
      const server = await serve(
        registryOf(made, ({ url = '' }, response) => {
          if (!url.includes('/referrers/')) return false;
          response.setHeader('Content-Type', 'application/vnd.oci.image.index.v1+json');
          response.setHeader('Link', `<${link}>; rel="next"`);
          response.end(referrersIndex([]));
          return true;
        }),
      );
      servers.push(server);
      rule('*', byIdentity());
      expect(await code(`docker://${server.host}/a/b`)).toMatch(why);
    }
  });

  test('what refers to another image, or is too large, does not count', async () => {
    const made = image();
    const other = image();
    rule('*', byIdentity());
    const foreign = referrer(other.manifest, BUNDLE, bundle(made, issued));
    const one = await withReferrersApi(made, () => [foreign]);
    expect(await code(one.reference)).toMatch(/^trust: .*it is not signed/);
    const large = referrer(made.manifest, BUNDLE, Buffer.alloc(5 * 1024 * 1024, 0x20));
    const two = await withReferrersApi(made, () => [large]);
    expect(await code(two.reference)).toMatch(/^limit: .*over the limit of 4194304/);
  });

  test('an attestation by the right identity is no signature', async () => {
    const made = image();
    const bytes = made.blobs.get(made.manifest.digest) ?? new Uint8Array();
    const payload = statementOf(subjectOf(bytes), {
      predicateType: 'https://slsa.dev/provenance/v1',
    });
    const attested = json(signBundle({ instance, signer: issued, payload }));
    const { reference } = await withReferrersApi(made, () => [
      referrer(made.manifest, BUNDLE, attested),
    ]);
    rule('*', byIdentity());
    expect(await code(reference)).toMatch(/it is an attestation/);
  });

  test('a layer that was altered after signing is refused by its digest', async () => {
    const made = image();
    const [layer] = made.layers;
    if (layer === undefined) throw new Error('no layer');
    const blobs = new Map(made.blobs);
    const bytes = blobs.get(layer.digest) ?? new Uint8Array();
    blobs.set(layer.digest, flip(bytes, bytes.length - 5));
    writeSignedLayout(join(dir, 'layout'), { ...made, blobs }, [
      cosignTag(made.manifest, 'x', keys),
    ]);
    rule('*', { cosignKeys: [pem(keys.publicKey)] });
    expect(await code(`oci:${dir}/layout`)).toMatch(/^(?:digest|unpack): /);
  });
});
