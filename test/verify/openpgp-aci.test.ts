/** ACIs from files and URLs with detached signatures: what runs, and what is refused for which reason. */
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import type { Context } from '../../src/context.ts';
import { openStore } from '../../src/store/store.ts';
import type { Verdict } from '../../src/store/types.ts';
import { fetchImage } from '../../stage0/fetch/fetch.ts';
import { directoryForm } from '../../stage0/unpack/directory.ts';
import { FAST, serve, type TestServer, testContext } from '../fetch/support.ts';
import { files, writeAci } from '../images/aci-writer.ts';
import { Gpg } from './gpg.ts';

const NAME = 'example.com/app';

let gpg: Gpg;
let key: string;
let stranger: string;
let root: string;
let image: string;
let said: string[];
beforeAll(() => {
  gpg = new Gpg();
  key = gpg.key('signer', 'ed25519');
  stranger = gpg.key('stranger', 'ed25519');
});
afterAll(() => gpg.close());

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'tspod-signed-'));
  vi.stubEnv('HOME', root);
  image = writeAci(join(root, 'app.aci'), NAME, { rootfs: files({ 'etc/a': 'a' }) }).path;
  said = [];
  vi.spyOn(process.stderr, 'write').mockImplementation(text => {
    said.push(String(text));
    return true;
  });
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
  rmSync(root, { recursive: true, force: true });
});

function trust(fingerprint: string, prefix: string): void {
  const folder = join(root, 'local/trustedkeys/prefix.d', prefix);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, fingerprint), gpg.exported(fingerprint));
}

function sign(signer: string, to = `${image}.asc`, from = image): void {
  writeFileSync(to, gpg.sign(readFileSync(from), signer, ['--armor']));
}

async function get(
  text: string,
  { signature, ...changes }: Partial<Context> & { readonly signature?: string } = {},
): Promise<Verdict> {
  const context = testContext(root, {
    localConfig: join(root, 'local'),
    insecure: new Set(['http']),
    ...changes,
  });
  const store = openStore(join(root, 'store'), { forms: [directoryForm] });
  const lease = store.lease();
  try {
    const options = { pullPolicy: 'update', lease, timing: FAST, signature } as const;
    return (await fetchImage(context, store, text, options)).image.verdict;
  } finally {
    lease.release();
    store.close();
  }
}

describe('a file', () => {
  test('signed by a key that is trusted for its name', async () => {
    trust(key, 'example.com');
    sign(key);
    expect(await get(image)).toMatchObject({
      admitted: true,
      signers: [
        { name: NAME, kind: 'openpgp', signer: key, detail: 'signer <signer@example.com>' },
      ],
    });
  });

  test('with the signature that --signature names', async () => {
    trust(key, NAME);
    const signature = join(root, 'elsewhere.sig');
    sign(key, signature);
    expect(await get(image, { signature })).toMatchObject({ admitted: true });
  });

  test.each<[string, () => void, RegExp]>([
    ['unsigned', () => undefined, /not signed/],
    ['by an unknown key', () => sign(stranger), /openpgp: signature made by unknown entity/],
    [
      'by a key for another name',
      () => {
        trust(stranger, 'example.com/apple');
        sign(stranger);
      },
      /openpgp: signature made by unknown entity/,
    ],
    [
      'changed after it was signed',
      () => {
        const other = writeAci(join(root, 'other.aci'), NAME, { rootfs: files({ 'etc/a': 'b' }) });
        sign(key);
        copyFileSync(other.path, image);
      },
      /the content is not what was signed/,
    ],
    [
      'with garbage for a signature',
      () => writeFileSync(`${image}.asc`, 'x'),
      /BEGIN PGP SIGNATURE/,
    ],
    [
      'with a signature of SHA-1',
      () => writeFileSync(`${image}.asc`, weak()),
      /SHA-1 is not accepted/,
    ],
  ])('%s is refused', async (_name, prepare, why) => {
    trust(key, NAME);
    prepare();
    await expect(get(image)).rejects.toMatchObject({
      code: 'trust',
      message: expect.stringMatching(why),
    });
  });

  const weak = () => {
    const rsa = gpg.key('weak', 'rsa2048');
    trust(rsa, NAME);
    return gpg.sign(readFileSync(image), rsa, ['--digest-algo=SHA1']);
  };

  test('--signature that is not there', async () => {
    trust(key, NAME);
    sign(key);
    await expect(get(image, { signature: join(root, 'none.asc') })).rejects.toThrow(
      /error opening signature file: .*none.asc: no such file/,
    );
  });

  test('--insecure-options=image admits it and records so', async () => {
    expect(await get(image, { insecure: new Set(['image']) })).toMatchObject({
      by: '--insecure-options=image',
    });
  });
});

describe('a URL', () => {
  let server: TestServer;
  let asked: string[];
  let answer: (path: string) => number;
  beforeEach(async () => {
    asked = [];
    answer = () => 200;
    server = await serve((request, response) => {
      const path = request.url ?? '';
      asked.push(path);
      const status = answer(path);
      if (status !== 200) return void response.writeHead(status).end();
      try {
        response.end(readFileSync(join(dirname(image), path)));
      } catch {
        response.writeHead(404).end();
      }
    });
    trust(key, NAME);
    sign(key);
  });
  afterEach(() => server.close());
  const url = () => `http://${server.host}/app.aci`;

  test('the signature is asked for first', async () => {
    expect(await get(url())).toMatchObject({ admitted: true, signers: [{ signer: key }] });
    expect(asked).toEqual(['/app.aci.asc', '/app.aci']);
  });

  test('a server that defers it', async () => {
    answer = path => (path.endsWith('.asc') && !asked.includes('/app.aci') ? 202 : 200);
    expect(await get(url())).toMatchObject({ admitted: true });
    expect(asked).toEqual(['/app.aci.asc', '/app.aci', '/app.aci.asc']);
    expect(said.join('')).toContain('server requested deferring the signature download');
  });

  test.each([
    [202, /server asked to defer the download again/],
    [404, /not signed/],
    [500, /error downloading the signature file/],
  ])('a server that answers %i', async (status, why) => {
    answer = path => (path.endsWith('.asc') ? status : 200);
    await expect(get(url())).rejects.toThrow(why);
  });

  test('nothing is asked when nobody wants to know', async () => {
    await get(url(), { insecure: new Set(['image', 'http']) });
    expect(asked).toEqual(['/app.aci']);
  });

  test('--signature instead of the one beside it', async () => {
    rmSync(`${image}.asc`);
    const signature = join(root, 'elsewhere.sig');
    sign(key, signature);
    expect(await get(url(), { signature })).toMatchObject({ admitted: true });
  });
});
