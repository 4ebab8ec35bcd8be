/** `trust` for OpenPGP keys, keys by discovery, and finding detached signatures: with real servers and a terminal. */
import { spawn, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createServer, type Server } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import type { Context, InsecureOption } from '../../src/context.ts';
import { openStore } from '../../src/store/store.ts';
import { fetchImage } from '../../stage0/fetch/fetch.ts';
import { directoryForm } from '../../stage0/unpack/directory.ts';
import {
  fileContent,
  findDetachedSignature,
  signatureUrl,
} from '../../stage0/verify/openpgp/find-signature.ts';
import { groupFingerprint } from '../../stage0/verify/openpgp/inspect-key.ts';
import { trustedKeys } from '../../stage0/verify/openpgp/keystore.ts';
import {
  discoverAndTrustKeys,
  type TrustOptions,
  trustOpenPgpKeys,
} from '../../stage0/verify/openpgp/trust-keys.ts';
import { makeCertificate } from '../fetch/certificates.ts';
import { type ProxyServer, startProxy } from '../fetch/proxy-server.ts';
import { FAST, serve, type TestServer, testContext } from '../fetch/support.ts';
import { files, writeAci } from '../images/aci-writer.ts';
import { Gpg } from './gpg.ts';

const PREFIX = 'registry.test/team';
const NAME = `${PREFIX}/app`;

let gpg: Gpg;
let key: string;
let other: string;
let sub: string;
let armored: Buffer;
let root: string;
let answers: Map<string, Answer>;
let secure: Server;
let plain: TestServer;
let tunnel: ProxyServer;
/** Whether port 443 speaks TLS. */
let encrypts: boolean;
let said: string[];

type Answer = {
  readonly status?: number;
  readonly body?: Buffer | string;
  readonly location?: string;
};

beforeAll(() => {
  gpg = new Gpg();
  key = gpg.key('trusty', 'ed25519', { usage: 'cert' });
  sub = gpg.subkey(key, 'ed25519');
  other = gpg.key('other', 'ed25519');
  armored = gpg.run(['--armor', '--export', key]);
});
afterAll(() => gpg.close());

beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), 'tspod-trust-'));
  vi.stubEnv('HOME', root);
  answers = new Map();
  const certificate = makeCertificate(root, 'server');
  const handle = (asked: string, end: (answer: Answer) => void) =>
    end(answers.get(asked) ?? { status: 404 });
  secure = createServer({ key: certificate.key, cert: certificate.cert }, (request, response) => {
    handle(`https ${request.url}`, ({ status = 200, body = '', location }) => {
      response.writeHead(status, location === undefined ? {} : { Location: location }).end(body);
    });
  });
  await new Promise<void>(resolve => secure.listen(0, '127.0.0.1', resolve));
  plain = await serve((request, response) => {
    const { pathname, search } = new URL(request.url ?? '');
    handle(`http ${pathname}${search}`, ({ status = 200, body = '' }) => {
      response.writeHead(status).end(body);
    });
  });
  encrypts = true;
  tunnel = await startProxy(() => (encrypts ? `127.0.0.1:${portOf(secure)}` : plain.host));
  vi.stubEnv('https_proxy', `http://${tunnel.host}`);
  vi.stubEnv('http_proxy', `http://${plain.host}`);
  vi.stubEnv('no_proxy', '');
  registries({ caCertificate: certificate.certFile });
  said = [];
  vi.spyOn(process.stderr, 'write').mockImplementation(text => {
    said.push(String(text));
    return true;
  });
});
afterEach(async () => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
  await plain.close();
  await tunnel.close();
  secure.closeAllConnections();
  await new Promise(resolve => secure.close(resolve));
  rmSync(root, { recursive: true, force: true });
});

function portOf(server: Server): number {
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

function registries(settings: Readonly<Record<string, unknown>>): void {
  const folder = join(root, 'local/registries.d');
  mkdirSync(folder, { recursive: true });
  writeFileSync(
    join(folder, 'test.json'),
    JSON.stringify({
      rktKind: 'registries',
      rktVersion: 'v1',
      registries: ['registry.test'],
      ...settings,
    }),
  );
}

function context(insecure: readonly InsecureOption[] = [], more: Partial<Context> = {}): Context {
  return testContext(root, {
    command: 'trust',
    localConfig: join(root, 'local'),
    insecure: new Set(insecure),
    ...more,
  });
}

const OPTIONS: TrustOptions = {
  prefix: PREFIX,
  root: false,
  skipFingerprintReview: false,
  insecureAllowHttp: false,
  keys: [],
  timing: FAST,
};

function file(bytes = armored, name = 'key.asc'): string {
  const path = join(root, name);
  writeFileSync(path, bytes);
  return path;
}

/** Answers the questions of a review in turn. */
const answering = (...texts: string[]) => {
  return async () => texts.shift();
};
const stored = (name: string) => [
  ...new Set(trustedKeys(context(), name).map(each => each.fingerprint)),
];

describe('trust', () => {
  test('a file for a prefix, after review', async () => {
    const path = file();
    const added = await trustOpenPgpKeys(
      context(),
      { ...OPTIONS, keys: [path] },
      answering('maybe', 'yes'),
    );
    const at = join(root, 'local/trustedkeys/prefix.d', PREFIX, key);
    expect(added).toEqual([{ location: path, fingerprint: key, path: at }]);
    expect(said.join('')).toBe(
      [
        `prefix: "${PREFIX}"`,
        `key: "${path}"`,
        `gpg key fingerprint is: ${groupFingerprint(key)}`,
        `    subkey fingerprint: ${groupFingerprint(sub)}`,
        '\ttrusty <trusty@example.com>',
        "Please enter 'yes' or 'no'",
        `tspod: Trusting "${path}" for prefix "${PREFIX}" after fingerprint review.`,
        `tspod: Added key for prefix "${PREFIX}" at "${at}"`,
        '',
      ].join('\n'),
    );
    expect(stored(NAME)).toEqual([key]);
    expect(stored('registry.test/teamwork')).toEqual([]);
  });

  test('a root key without review, under the name rkt', async () => {
    const path = file();
    await trustOpenPgpKeys(context([], { program: 'rkt' }), {
      ...OPTIONS,
      prefix: '',
      root: true,
      skipFingerprintReview: true,
      keys: [path],
    });
    expect(said).toContain(`trust: Trusting "${path}" for prefix "" without fingerprint review.\n`);
    const at = join(root, 'local/trustedkeys/root.d', key);
    expect(said).toContain(`trust: Added root key at "${at}"\n`);
    expect(stored('anything')).toEqual([key]);
  });

  test('no is no, and the end of the input is an error', async () => {
    const path = file();
    expect(
      await trustOpenPgpKeys(context(), { ...OPTIONS, keys: [path] }, answering('no')),
    ).toEqual([]);
    expect(said.join('')).toContain(`Not trusting "${path}"`);
    await expect(
      trustOpenPgpKeys(context(), { ...OPTIONS, keys: [path] }, answering()),
    ).rejects.toThrow(/broken off/);
    expect(existsSync(join(root, 'local/trustedkeys'))).toBe(false);
  });

  test('without a terminal it says so', async () => {
    await expect(
      trustOpenPgpKeys(context(), { ...OPTIONS, keys: [file()] }, undefined),
    ).rejects.toMatchObject({
      code: 'usage',
      line: expect.stringMatching(/no terminal.*--skip-fingerprint-review/),
    });
  });

  test.each([
    [{ prefix: '', keys: ['x'] }, /--root required for non-prefixed \(root\) keys/],
    [{ prefix: '' }, /nothing to trust/],
    [{ root: true, keys: ['x'] }, /usage mutually exclusive/],
    [{ prefix: 'https://example.com' }, /must not contain a URL scheme, omit https:\/\//],
    [{ prefix: '../etc', keys: ['x'] }, /not a prefix of image names/],
    [{ prefix: '*', keys: ['x'] }, /a key for all names is a root key/],
    [{ prefix: '', root: true }, /at least one key or --prefix required/],
    [{ keys: ['/nonexistent/key'] }, /error accessing the key "\/nonexistent\/key": no such file/],
    [{ keys: ['ftp://example.com/key'] }, /only local files and http or https URLs supported/],
    [{ keys: ['/dev/null'] }, /not a file/],
  ] as const)('%j is refused', async (changes, why) => {
    const options = { ...OPTIONS, skipFingerprintReview: true, ...changes };
    await expect(trustOpenPgpKeys(context(), options)).rejects.toThrow(why);
    expect(existsSync(join(root, 'local/trustedkeys'))).toBe(false);
  });

  test('several keys of one file are each stored under their own name', async () => {
    const path = file(Buffer.concat([gpg.exported(key), gpg.exported(other)]));
    const options = { ...OPTIONS, skipFingerprintReview: true, keys: [path] };
    expect(await trustOpenPgpKeys(context(), options)).toHaveLength(2);
    expect(stored(NAME).sort()).toEqual([key, other].sort());
  });

  test('identities and subkeys that a stranger added are not shown; an expired key is told', async () => {
    const expired = gpg.key('old', 'ed25519', { expire: '10d', day: '2020-01-01' });
    const mine = gpg.exported(key);
    const stranger = gpg.exported(other);
    // The other key's user id and certification, put behind the first key's own.
    const added = stranger.subarray(stranger.indexOf('other <other@') - 2);
    const path = file(Buffer.concat([mine, added, gpg.exported(expired)]));
    await trustOpenPgpKeys(context(), { ...OPTIONS, keys: [path] }, answering('no'));
    const shown = said.join('');
    expect(shown).toContain('trusty@example.com');
    expect(shown).not.toContain('other@example.com');
    expect(shown).toMatch(/old@example.com>\n\twarning: it can't verify now: .*expired/);
  });

  test('a key with many names does not push its fingerprint off the screen', async () => {
    const many = gpg.key('many', 'ed25519');
    for (let n = 0; n < 12; n += 1) gpg.run(['--quick-add-uid', many, `name${n} <n@example.com>`]);
    const path = file(gpg.exported(many));
    await trustOpenPgpKeys(context(), { ...OPTIONS, keys: [path] }, answering('no'));
    expect(said.filter(line => line.includes('@example.com'))).toHaveLength(10);
    expect(said).toContain('\t… and 3 more\n');
  });

  test('a private key is refused', async () => {
    const path = file(gpg.run(['--export-secret-keys', key]));
    const options = { ...OPTIONS, skipFingerprintReview: true, keys: [path] };
    await expect(trustOpenPgpKeys(context(), options)).rejects.toThrow(/private key/);
  });

  test('the review on a terminal, key by key', async () => {
    const paths = [file(), file(gpg.exported(other), 'second'), file(gpg.exported(key), 'third')];
    const driver = fileURLToPath(new URL('trust-driver.ts', import.meta.url));
    const command = [process.execPath, driver, join(root, 'local'), ...paths].join(' ');
    // `script` gives the command a terminal; an answer comes once its question is there.
    const child = spawn('script', ['-qec', command, '/dev/null'], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const texts = ['yes\n', 'what?\n', 'no\n', 'yes\n'];
    let shown = '';
    let asked = 0;
    child.stdout.on('data', (text: Buffer) => {
      shown += text.toString();
      for (; asked < shown.split('(yes/no)?').length - 1; asked += 1) {
        child.stdin.write(texts.shift() ?? '');
      }
    });
    const status = await new Promise(resolve => child.once('close', resolve));
    expect(shown.match(/Are you sure you want to trust this key \(yes\/no\)\?/g)).toHaveLength(4);
    expect(shown.match(/after fingerprint review\./g)).toHaveLength(2);
    expect(shown).toContain("Please enter 'yes' or 'no'");
    expect(shown).toContain(`Not trusting "${paths[1]}"`);
    expect(shown).toContain('added 2');
    expect(status).toBe(0);
  });

  test('a shell’s <(…)', async () => {
    const path = file();
    const driver = fileURLToPath(new URL('trust-driver.ts', import.meta.url));
    const run = spawnSync(
      'script',
      [
        '-qec',
        `bash -c '${process.execPath} ${driver} ${join(root, 'local')} <(cat ${path})'`,
        '/dev/null',
      ],
      { input: 'no\n', encoding: 'utf8' },
    );
    expect(run.stdout).toContain('trusty@example.com');
    expect(run.stdout).toContain('added 0');
  });
});

describe('keys from servers', () => {
  const skip = { ...OPTIONS, skipFingerprintReview: true };
  const page = (content: string) => `<html><meta name="ac-discovery-pubkeys" content="${content}">`;

  test('a URL', async () => {
    answers.set('https /key.asc', { body: armored });
    const url = 'https://registry.test/key.asc';
    expect(await trustOpenPgpKeys(context(), { ...skip, keys: [url] })).toHaveLength(1);
    expect(said.join('')).toContain(`key: "${url}"`);
  });

  test('plain HTTP only when it is allowed', async () => {
    answers.set('http /key.asc', { body: armored });
    const keys = ['http://registry.test/key.asc'];
    await expect(
      trustOpenPgpKeys(context(['http', 'tls', 'image']), { ...skip, keys }),
    ).rejects.toThrow(/--insecure-allow-http required for http URLs/);
    expect(
      await trustOpenPgpKeys(context(), { ...skip, keys, insecureAllowHttp: true }),
    ).toHaveLength(1);
    expect(await trustOpenPgpKeys(context(['pubkey']), { ...skip, keys })).toHaveLength(1);
  });

  test('a certificate that is wrong, whatever is insecure for images', async () => {
    answers.set('https /key.asc', { body: armored });
    registries({ insecure: ['tls'] });
    const keys = ['https://registry.test/key.asc'];
    await expect(
      trustOpenPgpKeys(context(['tls', 'http', 'image']), { ...skip, keys }),
    ).rejects.toThrow(/TLS: its certificate is of an unknown authority/);
    expect(await trustOpenPgpKeys(context(['pubkey']), { ...skip, keys })).toHaveLength(1);
  });

  test.each([
    ['a page', { body: '<html>hello' }, /no line -----BEGIN PGP PUBLIC KEY BLOCK-----/],
    ['nothing', { status: 404 }, /bad HTTP status code: 404/],
    ['an endless body', { body: Buffer.alloc(1024 ** 2 + 1) }, /limit of 1048576 bytes/],
    [
      'a way down to plain HTTP',
      { status: 302, location: 'http://registry.test/k' },
      /from https to http/,
    ],
  ] as const)('%s instead of a key', async (_name, answer, why) => {
    answers.set('https /key.asc', answer);
    answers.set('http /k', { body: armored });
    await expect(
      trustOpenPgpKeys(context(), { ...skip, keys: ['https://registry.test/key.asc'] }),
    ).rejects.toThrow(why);
    expect(existsSync(join(root, 'local/trustedkeys'))).toBe(false);
  });

  test('offline', async () => {
    const offline = context([], { offline: true });
    await expect(
      trustOpenPgpKeys(offline, { ...skip, keys: ['https://registry.test/key.asc'] }),
    ).rejects.toMatchObject({ code: 'offline' });
  });

  test('discovery at the prefix', async () => {
    answers.set('https /team?ac-discovery=1', {
      body: page(`${PREFIX} https://registry.test/k.gpg`),
    });
    answers.set('https /k.gpg', { body: gpg.exported(key) });
    expect(await trustOpenPgpKeys(context(), skip)).toMatchObject([
      { location: 'https://registry.test/k.gpg', fingerprint: key },
    ]);
    expect(stored(NAME)).toEqual([key]);
  });

  test('discovery over plain HTTP, where it is allowed and nobody speaks TLS', async () => {
    answers.set('http /team?ac-discovery=1', {
      body: page(`${PREFIX} http://registry.test/k.gpg`),
    });
    answers.set('http /k.gpg', { body: gpg.exported(key) });
    encrypts = false;
    await expect(trustOpenPgpKeys(context(['http']), skip)).rejects.toMatchObject({
      code: 'network',
    });
    expect(await trustOpenPgpKeys(context(), { ...skip, insecureAllowHttp: true })).toMatchObject([
      { location: 'http://registry.test/k.gpg' },
    ]);
  });

  test('a URL that deceives the eye is shown as it is asked for', async () => {
    answers.set('https /team?ac-discovery=1', {
      body: page(`${PREFIX} https://registry.test/\u202egpg.k`),
    });
    answers.set('https /%E2%80%AEgpg.k', { body: gpg.exported(key) });
    await trustOpenPgpKeys(context(), skip);
    expect(said.join('')).toContain('key: "https://registry.test/%E2%80%AEgpg.k"');
    expect(said.join('')).not.toContain('\u202e');
  });

  test('a page that leads to a file of this machine', async () => {
    const path = file();
    for (const place of [`file://${path}`, path]) {
      answers.set('https /team?ac-discovery=1', { body: page(`${PREFIX} ${place}`) });
      await expect(trustOpenPgpKeys(context(), skip)).rejects.toThrow(/only local files|not a URL/);
    }
    expect(existsSync(join(root, 'local/trustedkeys'))).toBe(false);
  });

  describe('--trust-keys-from-https', () => {
    const discovered = (insecure: readonly InsecureOption[] = []) =>
      discoverAndTrustKeys(context(insecure), NAME, FAST);
    beforeEach(() => {
      answers.set('https /?ac-discovery=1', {
        body: page('registry.test https://registry.test/k.gpg'),
      });
      answers.set('https /k.gpg', { body: gpg.exported(key) });
    });

    test('trusts for the very name', async () => {
      expect(await discovered()).toMatchObject([{ fingerprint: key }]);
      expect(stored(NAME)).toEqual([key]);
      expect(stored(PREFIX)).toEqual([]);
      expect(said.join('')).toContain('without fingerprint review.');
      expect(await discovered()).toEqual([]);
      expect(said.join('')).toContain('already in the keystore');
    });

    test('not what somebody has masked', async () => {
      const folder = join(root, 'local/trustedkeys/prefix.d/registry.test');
      mkdirSync(folder, { recursive: true });
      writeFileSync(join(folder, key), '');
      expect(await discovered()).toEqual([]);
      expect(said.join('')).toContain('is masked');
      expect(stored(NAME)).toEqual([]);
      expect(readdirSync(folder)).toEqual([key]);
    });

    test('never over plain HTTP or with a wrong certificate, whatever is insecure', async () => {
      const all = ['image', 'tls', 'http', 'pubkey'] as const;
      answers.set('https /?ac-discovery=1', {
        body: page('registry.test http://registry.test/k.gpg'),
      });
      answers.set('http /k.gpg', { body: gpg.exported(key) });
      await expect(discovered(all)).rejects.toMatchObject({ code: 'usage' });
      registries({ insecure: ['tls', 'http'] });
      await expect(discovered(all)).rejects.toThrow(/TLS: its certificate/);
      expect(stored(NAME)).toEqual([]);
    });

    test('fetch trusts the key of an image by it, and only when asked to', async () => {
      const { path } = writeAci(join(root, 'app.aci'), NAME, { rootfs: files({ a: 'a' }) });
      writeFileSync(`${path}.asc`, gpg.sign(readFileSync(path), key));
      const store = openStore(join(root, 'store'), { forms: [directoryForm] });
      const lease = store.lease();
      const get = (more: Partial<Context>) =>
        fetchImage(context([], more), store, path, { pullPolicy: 'update', lease, timing: FAST });
      try {
        await expect(get({})).rejects.toThrow(/signature made by unknown entity/);
        expect(stored(NAME)).toEqual([]);
        const { image } = await get({ trustKeysFromHttps: true });
        expect(image.verdict).toMatchObject({ admitted: true, signers: [{ signer: key }] });
        expect(stored(NAME)).toEqual([key]);
      } finally {
        lease.release();
        store.close();
      }
    });

    test('no page, no keys', async () => {
      answers.clear();
      await expect(discovered()).rejects.toMatchObject({ code: 'not-found' });
    });

    test('one key that can not be fetched: none is trusted', async () => {
      answers.set('https /?ac-discovery=1', {
        body:
          page('registry.test https://registry.test/k.gpg') +
          page('registry.test https://registry.test/gone'),
      });
      await expect(discovered()).rejects.toThrow(/404/);
      expect(stored(NAME)).toEqual([]);
    });
  });
});

describe('detached signatures', () => {
  const image = () => join(root, 'app.aci');

  test('beside a file', async () => {
    writeFileSync(`${image()}.asc`, 'signature');
    expect(await findDetachedSignature(context(), { path: image() })).toEqual({
      state: 'found',
      signature: { kind: 'openpgp', origin: `${image()}.asc`, bytes: Buffer.from('signature') },
    });
  });

  test('not there', async () => {
    expect(await findDetachedSignature(context(), { path: image() })).toEqual({
      state: 'absent',
      why: `error opening signature file: ${image()}.asc: no such file`,
    });
    const named = join(root, 'none.asc');
    await expect(
      findDetachedSignature(context(), { path: image() }, { named }),
    ).rejects.toMatchObject({ code: 'trust', message: expect.stringContaining(named) });
  });

  test('by --signature: a file, a URL', async () => {
    writeFileSync(`${image()}.asc`, 'beside');
    const named = file(Buffer.from('named'), 'elsewhere.sig');
    expect(await findDetachedSignature(context(), { path: image() }, { named })).toMatchObject({
      signature: { origin: named, bytes: Buffer.from('named') },
    });
    answers.set('https /s.asc', { body: 'served' });
    const url = 'https://registry.test/s.asc';
    expect(
      await findDetachedSignature(context(), { path: image() }, { named: url, timing: FAST }),
    ).toMatchObject({ signature: { origin: url, bytes: Buffer.from('served') } });
  });

  test('beside a URL, with its query', async () => {
    const url = new URL('https://registry.test/a/app.aci?token=1');
    expect(signatureUrl(url).href).toBe('https://registry.test/a/app.aci.asc?token=1');
    answers.set('https /a/app.aci.asc?token=1', { body: 'served' });
    const found = await findDetachedSignature(context(), { url }, { timing: FAST });
    expect(found).toMatchObject({
      state: 'found',
      // The query may be a credential.
      signature: { origin: 'https://registry.test/a/app.aci.asc' },
    });
  });

  test.each([401, 403, 404, 410])('status %i: there is none', async status => {
    answers.set('https /app.aci.asc', { status });
    const url = new URL('https://registry.test/app.aci');
    expect(await findDetachedSignature(context(), { url }, { timing: FAST })).toMatchObject({
      state: 'absent',
      why: expect.stringMatching(/^error downloading the signature file: .*status/),
    });
  });

  test('status 500 is not "there is none"', async () => {
    answers.set('https /app.aci.asc', { status: 500 });
    const url = new URL('https://registry.test/app.aci');
    await expect(findDetachedSignature(context(), { url }, { timing: FAST })).rejects.toMatchObject(
      {
        code: 'network',
        message: expect.stringMatching(/^error downloading the signature file/),
      },
    );
  });

  test('a server defers, once', async () => {
    const url = new URL('https://registry.test/app.aci');
    answers.set('https /app.aci.asc', { status: 202 });
    const told: string[] = [];
    const options = { timing: FAST, onDeferred: (message: string) => told.push(message) };
    const found = await findDetachedSignature(context(), { url }, options);
    expect(told).toEqual(['server requested deferring the signature download']);
    if (found.state !== 'deferred') throw new Error(found.state);
    await expect(found.again()).rejects.toThrow(/server asked to defer the download again/);
    answers.set('https /app.aci.asc', { body: 'late' });
    expect(await found.again()).toMatchObject({ bytes: Buffer.from('late') });
    answers.clear();
    await expect(found.again()).rejects.toMatchObject({ code: 'trust' });
  });

  test('bounds, FIFOs, folders', async () => {
    writeFileSync(`${image()}.asc`, Buffer.alloc(1024 ** 2 + 1));
    await expect(findDetachedSignature(context(), { path: image() })).rejects.toMatchObject({
      code: 'limit',
    });
    rmSync(`${image()}.asc`);
    spawnSync('mkfifo', [`${image()}.asc`]);
    const found = await findDetachedSignature(context(), { path: image() });
    expect(found).toMatchObject({ state: 'found', signature: { bytes: Buffer.alloc(0) } });
    rmSync(`${image()}.asc`);
    mkdirSync(`${image()}.asc`);
    await expect(findDetachedSignature(context(), { path: image() })).rejects.toThrow(/not a file/);
    answers.set('https /app.aci.asc', { body: Buffer.alloc(1024 ** 2 + 1) });
    const url = new URL('https://registry.test/app.aci');
    await expect(findDetachedSignature(context(), { url }, { timing: FAST })).rejects.toMatchObject(
      {
        code: 'limit',
      },
    );
  });

  test('offline', async () => {
    const url = new URL('https://registry.test/app.aci');
    await expect(
      findDetachedSignature(context([], { offline: true }), { url }),
    ).rejects.toMatchObject({ code: 'offline' });
  });

  test('the content of a file, as often as asked', async () => {
    const { closeSync, openSync } = await import('node:fs');
    const bytes = Buffer.alloc(3 * 1024 ** 2 + 5, 'abc');
    const fd = openSync(file(bytes, 'image'), 'r');
    try {
      for (let times = 0; times < 2; times += 1) {
        expect(Buffer.concat([...fileContent(fd)]).equals(bytes)).toBe(true);
      }
    } finally {
      closeSync(fd);
    }
  });
});
