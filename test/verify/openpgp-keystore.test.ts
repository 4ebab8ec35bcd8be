/** Key stores: which keys are trusted for a name, masks, what is odd, writing and removing. */
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import fc from 'fast-check';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { TspodError } from '../../src/errors.ts';
import { splitKeys } from '../../stage0/verify/openpgp/key-block.ts';
import {
  addTrustedKey,
  allTrustedKeys,
  removeTrustedKey,
  standingOf,
  trustedKeys,
} from '../../stage0/verify/openpgp/keystore.ts';
import { readSignatureFile } from '../../stage0/verify/openpgp/signature-file.ts';
import { cases } from '../support/fuzz.ts';
import { Gpg } from './gpg.ts';

let gpg: Gpg;
let a: string;
let b: string;
let files: Map<string, Buffer>;
beforeAll(() => {
  gpg = new Gpg();
  a = gpg.key('a', 'ed25519');
  b = gpg.key('b', 'ed25519');
  files = new Map([a, b].map(key => [key, gpg.run(['--armor', '--export', key])]));
});
afterAll(() => gpg.close());

let root: string;
const folders = () => ({
  systemConfig: join(root, 'system'),
  localConfig: join(root, 'local'),
  userConfig: join(root, 'user'),
});
const withoutUser = () => ({ ...folders(), userConfig: '' });
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'tspod-keys-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

/** @param place e.g. `local/root.d`, `system/prefix.d/example.com` */
function put(place: string, key: string, bytes = files.get(key) ?? Buffer.alloc(0)): string {
  const [folder = '', ...rest] = place.split('/');
  const path = join(root, folder, 'trustedkeys', ...rest, key);
  mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
  writeFileSync(path, bytes, { mode: 0o644 });
  return path;
}
const mask = (place: string, key: string) => put(place, key, Buffer.alloc(0));
const fingerprints = (name: string) =>
  trustedKeys(folders(), name)
    .map(key => key.fingerprint)
    .sort();

describe('which keys are trusted', () => {
  test('none without folders', () => {
    expect(trustedKeys(folders(), 'example.com/app')).toEqual([]);
    expect(allTrustedKeys(folders())).toEqual([]);
  });

  test('root keys for every name, also for a path', () => {
    const path = put('system/root.d', a);
    expect(trustedKeys(folders(), 'example.com')).toMatchObject([
      { fingerprint: a, scope: '', path },
    ]);
    expect(fingerprints('/srv/image.tar')).toEqual([a]);
  });

  test('a prefix is whole components', () => {
    put('local/prefix.d/example.com/app', a);
    put('local/prefix.d/localhost:5000', b);
    expect(fingerprints('example.com/app')).toEqual([a]);
    expect(fingerprints('example.com/app/worker')).toEqual([a]);
    for (const name of ['example.com/apple', 'example.com', 'example.com/ap', 'example.co/app']) {
      expect([name, fingerprints(name)]).toEqual([name, []]);
    }
    expect(fingerprints('localhost:5000/team/app')).toEqual([b]);
  });

  test('a prefix that is a path', () => {
    put('system/prefix.d/srv', b);
    const { path } = addTrustedKey(withoutUser(), files.get(a) ?? Buffer.alloc(0), '/srv/Images');
    expect(path).toBe(join(root, 'local/trustedkeys/prefix.d/_/srv/Images', a));
    expect(fingerprints('/srv/Images/app.tar')).toEqual([a]);
    expect(fingerprints('/srv/Images/odd name/app.tar')).toEqual([a]);
    for (const name of [
      '/srv/ImagesToo/a',
      '/srv/images/a',
      '/srv',
      'srv/Images/a',
      '_/srv/Images',
    ]) {
      expect([name, fingerprints(name).includes(a)]).toEqual([name, false]);
    }
    expect(fingerprints('srv/app')).toEqual([b]);
    expect(allTrustedKeys(folders()).map(({ scope }) => scope)).toEqual(['srv', '/srv/Images']);
    addTrustedKey(withoutUser(), files.get(b) ?? Buffer.alloc(0), '/');
    expect(fingerprints('/anything')).toEqual([b]);
    expect(fingerprints('anything')).toEqual([]);
    removeTrustedKey(withoutUser(), b, '/');
    removeTrustedKey(withoutUser(), a, '/srv/Images');
    expect(fingerprints('/srv/Images/app.tar')).toEqual([]);
  });

  test.each([
    '../root.d',
    'example.com/../../root.d',
    './example.com',
    'example.com//app',
    '/example.com/app',
    'EXAMPLE.com/app',
    'example.com\0/app',
    '',
  ])('the name %j leads nowhere', name => {
    put('local/root.d', a);
    put('local/prefix.d/example.com/app', b);
    mkdirSync(join(root, 'local/trustedkeys/prefix.d'), { recursive: true });
    expect(fingerprints(name)).toEqual([a]);
  });

  test('an armored and a binary key', () => {
    put('local/root.d', a);
    put('local/root.d', b, gpg.exported(b));
    expect(fingerprints('x')).toEqual([a, b].sort());
  });
});

describe('masks', () => {
  test('a later folder takes away what an earlier gave, not the other way round', () => {
    put('system/root.d', a);
    mask('local/root.d', a);
    expect(fingerprints('example.com/app')).toEqual([]);
    expect(standingOf(folders(), 'example.com/app', a)).toBe('masked');
    put('user/root.d', a);
    expect(fingerprints('example.com/app')).toEqual([a]);
    expect(standingOf(folders(), 'example.com/app', a)).toBe('trusted');
    expect(standingOf(folders(), 'example.com/app', b)).toBe('unknown');
  });

  test('of a root key leaves a prefix key alone', () => {
    put('system/prefix.d/example.com', a);
    mask('local/root.d', a);
    expect(fingerprints('example.com/app')).toEqual([a]);
  });

  test('below a prefix', () => {
    put('system/root.d', a);
    put('system/prefix.d/example.com', b);
    mask('local/prefix.d/example.com/app', a);
    mask('local/prefix.d/example.com/app', b);
    expect(fingerprints('example.com/app')).toEqual([]);
    expect(fingerprints('example.com/other')).toEqual([a, b].sort());
  });

  test('a longer prefix of the same folder gives it back', () => {
    mask('local/prefix.d/example.com', a);
    put('local/prefix.d/example.com/app', a);
    put('local/root.d', a);
    expect(fingerprints('example.com/app')).toEqual([a]);
    expect(fingerprints('example.com/other')).toEqual([]);
  });

  test('the list says what masks what', () => {
    const given = put('system/root.d', a);
    const by = mask('local/root.d', a);
    put('system/prefix.d/example.com', b);
    mask('local/prefix.d/example.com/app', b);
    expect(allTrustedKeys(folders())).toMatchObject([
      { fingerprint: a, scope: '', folder: 'system', path: given, maskedBy: by, maskedBelow: [] },
      {
        fingerprint: b,
        scope: 'example.com',
        folder: 'system',
        maskedBy: undefined,
        maskedBelow: ['example.com/app'],
      },
    ]);
  });
});

describe('what is odd is an error', () => {
  const refused = (why: RegExp) => {
    expect(() => trustedKeys(folders(), 'example.com/app')).toThrow(why);
    expect(() => allTrustedKeys(folders())).toThrow(why);
    expect(() => trustedKeys(folders(), 'example.com/app')).toThrow(
      expect.objectContaining({ code: expect.stringMatching(/^(?:config|limit)$/) }),
    );
  };

  test('a key under the name of another', () => {
    put('local/root.d', a, files.get(b));
    refused(/the key inside has the fingerprint/);
  });
  test('an upper-case name', () => {
    put('local/root.d', a.toUpperCase(), Buffer.alloc(0));
    refused(/its name is not a lower-case fingerprint/);
  });
  test('a symbolic link, to a key or to nothing', () => {
    const folder = dirname(put('system/root.d', a));
    symlinkSync('/dev/null', join(folder, b));
    refused(/symbolic link/);
  });
  test('a folder that is a link', () => {
    put('system/root.d', a);
    mkdirSync(join(root, 'local/trustedkeys'), { recursive: true });
    symlinkSync(join(root, 'system/trustedkeys/root.d'), join(root, 'local/trustedkeys/root.d'));
    refused(/root\.d: it is not a folder/);
  });
  test('a prefix that is a link', () => {
    put('system/prefix.d/example.com', a);
    mkdirSync(join(root, 'local/trustedkeys/prefix.d'), { recursive: true });
    const target = join(root, 'system/trustedkeys/prefix.d/example.com');
    symlinkSync(target, join(root, 'local/trustedkeys/prefix.d/example.com'));
    refused(/example\.com: it is not /);
  });
  test('a file or folder that everybody may write', () => {
    const path = put('local/root.d', a);
    chmodSync(path, 0o666);
    refused(/everybody may write it/);
    chmodSync(path, 0o644);
    chmodSync(dirname(path), 0o777);
    refused(/everybody may write it/);
  });
  test('a store of another user', () => {
    const path = put('local/root.d', a);
    chownSync(dirname(dirname(path)), 12345, 12345);
    refused(/belongs to user 12345/);
  });
  test('a FIFO does not block', () => {
    const folder = dirname(put('local/root.d', a));
    mkfifo(join(folder, b));
    refused(/not a regular file/);
  });
  test('two keys in one file', () => {
    put('local/root.d', a, Buffer.concat([gpg.exported(a), gpg.exported(b)]));
    refused(/more than one key/);
  });
  test('a private key', () => {
    put('local/root.d', a, gpg.run(['--export-secret-keys', a]));
    refused(/private key/);
  });
  test('a file over 1 MiB', () => {
    put('local/root.d', a, Buffer.alloc(1024 ** 2 + 1, 0x99));
    refused(/over the limit of 1048576/);
  });
  test('garbage', () => {
    put('local/root.d', a, Buffer.from('hello'));
    refused(/no line -----BEGIN PGP PUBLIC KEY BLOCK-----/);
  });
});

describe('adding and removing', () => {
  const bytes = (key: string) => files.get(key) ?? Buffer.alloc(0);

  test('as a root key and for a prefix', () => {
    const added = addTrustedKey(withoutUser(), bytes(a), '');
    const path = join(root, 'local/trustedkeys/root.d', a);
    expect(added).toEqual({ path, fingerprint: a });
    expect(statSync(path).mode & 0o777).toBe(0o644);
    const prefixed = addTrustedKey(withoutUser(), bytes(b), 'localhost:5000/app');
    expect(prefixed.path).toBe(join(root, 'local/trustedkeys/prefix.d/localhost:5000/app', b));
    expect(fingerprints('localhost:5000/app/x')).toEqual([a, b].sort());
    expect(readdirSync(dirname(path))).toEqual([a]);
  });

  test('in the folder of the user, when there is one, and over a mask', () => {
    mask('user/root.d', a);
    expect(addTrustedKey(folders(), bytes(a), '').path).toBe(
      join(root, 'user/trustedkeys/root.d', a),
    );
    expect(fingerprints('x')).toEqual([a]);
  });

  test.each([
    '../x',
    '/srv/..',
    '/srv/',
    '/a b',
    '//',
    '_',
    '_/srv',
    'a//b',
    'example.com/',
    'Example.com',
    'a/../b',
    'https://x',
    'a b',
  ])('the prefix %j is refused', prefix => {
    expect(() => addTrustedKey(folders(), bytes(a), prefix)).toThrow(/is not a prefix/);
    expect(() => removeTrustedKey(folders(), a, prefix)).toThrow(/is not a prefix/);
  });

  test('not through a folder that is a link', () => {
    mkdirSync(join(root, 'local'), { recursive: true });
    mkdirSync(join(root, 'elsewhere'));
    symlinkSync(join(root, 'elsewhere'), join(root, 'local/trustedkeys'));
    expect(() => addTrustedKey(withoutUser(), bytes(a), '')).toThrow(/not a folder/);
    expect(readdirSync(join(root, 'elsewhere'))).toEqual([]);
  });

  test('a key for a prefix whose folder would have a key’s name', () => {
    put('local/prefix.d/example.com', a);
    expect(() => addTrustedKey(withoutUser(), bytes(b), `example.com/${a}`)).toThrow(TspodError);
    expect(fingerprints(`example.com/${a}`)).toEqual([a]);
  });

  test('removing what is one’s own deletes it', () => {
    const { path } = addTrustedKey(withoutUser(), bytes(a), 'example.com');
    expect(removeTrustedKey(withoutUser(), a.toUpperCase(), 'example.com')).toEqual({
      removed: path,
      masked: undefined,
    });
    expect(readdirSync(dirname(path))).toEqual([]);
  });

  test('removing what another folder gives masks it', () => {
    put('system/root.d', a);
    const path = join(root, 'local/trustedkeys/root.d', a);
    expect(removeTrustedKey(withoutUser(), a, '')).toEqual({ removed: undefined, masked: path });
    expect(readFileSync(path).length).toBe(0);
    expect(fingerprints('x')).toEqual([]);
    addTrustedKey(withoutUser(), bytes(a), '');
    expect(removeTrustedKey(withoutUser(), a, '')).toEqual({ removed: path, masked: path });
    expect(fingerprints('x')).toEqual([]);
  });

  test('removing what is not trusted there', () => {
    put('system/root.d', a);
    expect(() => removeTrustedKey(folders(), b, '')).toThrow(/not trusted as a root key/);
    expect(() => removeTrustedKey(folders(), a, 'example.com')).toThrow(/for prefix "example.com"/);
    expect(() => removeTrustedKey(folders(), 'abc', '')).toThrow(/not a fingerprint/);
    removeTrustedKey(folders(), a, '');
    expect(() => removeTrustedKey(folders(), a, '')).toThrow(/not trusted/);
  });
});

describe('parsing what strangers made', () => {
  const parse = (bytes: Uint8Array) => {
    for (const read of [splitKeys, readSignatureFile]) {
      try {
        read(bytes, 'it');
      } catch (error) {
        expect(error).toBeInstanceOf(TspodError);
        expect(error).toMatchObject({ code: expect.stringMatching(/^(?:protocol|limit)$/) });
      }
    }
  };

  test('random bytes', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), parse), { numRuns: cases(3000) });
    const packet = fc
      .tuple(fc.integer({ min: 0x80, max: 0xff }), fc.uint8Array({ maxLength: 80 }))
      .map(([head, body]) => Buffer.from([head, body.length, ...body]));
    const packets = fc.array(packet, { maxLength: 5 }).map(parts => Buffer.concat(parts));
    fc.assert(fc.property(packets, parse), { numRuns: cases(3000) });
  });

  test('armor cut short anywhere, or with a byte changed', () => {
    const armored = gpg.run(['--armor', '--export', a]);
    for (let end = 0; end < armored.length; end += 1) parse(armored.subarray(0, end));
    fc.assert(
      fc.property(fc.nat(armored.length - 1), fc.nat(255), (at, value) => {
        const changed = Buffer.from(armored);
        changed[at] = value;
        parse(changed);
      }),
      { numRuns: cases(2000) },
    );
  });

  test('a key cut short anywhere is no key, or one with the same fingerprint', () => {
    const whole = gpg.exported(a);
    for (let end = 0; end < whole.length; end += 1) {
      try {
        expect(splitKeys(whole.subarray(0, end), 'it')[0]?.fingerprint).toBe(a);
      } catch (error) {
        expect(error).toBeInstanceOf(TspodError);
      }
    }
  });

  test('a line of blanks that takes a bad pattern for ever', () => {
    const blanks = `${' '.repeat(1024 ** 2 - 100)}x`;
    for (const text of [blanks, `-----BEGIN PGP PUBLIC KEY BLOCK-----\n${blanks}`]) {
      expect(() => splitKeys(Buffer.from(text), 'it')).toThrow(/armor|BEGIN/);
    }
  });

  test('an RSA key that takes minutes to verify with', () => {
    const number = (bits: number) =>
      Buffer.concat([
        Buffer.from([bits >> 8, bits & 0xff]),
        Buffer.alloc(Math.ceil(bits / 8), 0xff),
      ]);
    const packet = (modulus: number, exponent: number) => {
      const head = Buffer.from([4, 0, 0, 0, 0, 1]);
      const body = Buffer.concat([head, number(modulus), number(exponent)]);
      const length = Buffer.alloc(4);
      length.writeUInt32BE(body.length);
      return Buffer.concat([Buffer.from([0x9a]), length, body]);
    };
    expect(splitKeys(packet(16384, 17), 'it')).toHaveLength(1);
    for (const bad of [packet(16392, 17), packet(65528, 17), packet(2048, 2048)]) {
      expect(() => splitKeys(bad, 'it')).toThrow(/over the limits of 16384 and 64/);
    }
  });

  test('armor with Windows line ends, headers, spaces, a mark, text around it', () => {
    const text = gpg.run(['--armor', '--export', a]).toString();
    const [begin = '', ...rest] = text.split('\n');
    for (const form of [
      text.replaceAll('\n', '\r\n'),
      `Dear user,\n\n${text}\nYours`,
      `\ufeff${text}`,
      [`${begin}  `, 'Version: GnuPG v2', 'Comment: x', ...rest].join('\n'),
    ]) {
      expect(splitKeys(Buffer.from(form), 'it')[0]?.fingerprint).toBe(a);
    }
  });
});

function mkfifo(path: string): void {
  const { status } = spawnSync('mkfifo', [path]);
  expect(status).toBe(0);
}
