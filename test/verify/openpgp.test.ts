/** Detached OpenPGP signatures: each case is decided by gpgv, too. */
import { createHash } from 'node:crypto';
import * as openpgp from 'openpgp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parseDigest } from '../../src/image/digest.ts';
import { splitKeys } from '../../stage0/verify/openpgp/key-block.ts';
import type { TrustedKey } from '../../stage0/verify/openpgp/keystore.ts';
import { UNKNOWN_ENTITY, verifyOpenPgp } from '../../stage0/verify/openpgp/verify.ts';
import type { Outcome, Subject } from '../../stage0/verify/types.ts';
import { Gpg } from './gpg.ts';

const CONTENT = Buffer.from('{"schemaVersion":2,\n"layers":[]}\r\nend');

let gpg: Gpg;
beforeAll(() => {
  gpg = new Gpg();
});
afterAll(() => gpg.close());

function subjectOf(content: Uint8Array | (() => Iterable<Uint8Array>)): Subject {
  const chunks = typeof content === 'function' ? content : () => [content];
  const hash = createHash('sha512');
  for (const chunk of chunks()) hash.update(chunk);
  return {
    name: 'example.com/app',
    reference: 'example.com/app:1',
    digest: parseDigest(`sha512:${hash.digest('hex')}`, 'test'),
    content: chunks,
  };
}

function trusted(keyring: Uint8Array): TrustedKey[] {
  return splitKeys(keyring, 'test').map(({ fingerprint, bytes }) => ({
    fingerprint,
    bytes,
    scope: '',
    path: `/keys/${fingerprint}`,
  }));
}

function verify(
  keyring: Uint8Array | undefined,
  signature: Uint8Array,
  content: Uint8Array | (() => Iterable<Uint8Array>) = CONTENT,
): Promise<Outcome> {
  return verifyOpenPgp(
    { kind: 'openpgp', origin: 'image.asc', bytes: signature },
    subjectOf(content),
    keyring === undefined ? [] : trusted(keyring),
  );
}

/** Whether gpgv calls it good without a but. */
function oracle(keyring: Buffer, signature: Buffer, content: Buffer = CONTENT): boolean {
  const words = gpg.gpgv(keyring, signature, content);
  return words.includes('GOODSIG') && words.includes('VALIDSIG');
}

function flipped(bytes: Uint8Array, at: number, mask = 1): Buffer {
  const copy = Buffer.from(bytes);
  copy[at] = (copy[at] ?? 0) ^ mask;
  return copy;
}

function reason(outcome: Outcome): string {
  return outcome.ok ? 'accepted' : outcome.reason;
}

interface Case {
  readonly name: string;
  make(): {
    readonly keyring: Buffer;
    readonly signature: Buffer;
    readonly content?: Buffer;
  };
  /** 'accepted', or what the reason says. */
  readonly ours: string | RegExp;
  /** Where gpgv 2.2 decides otherwise, and why ours is right. */
  readonly gpgv?: { readonly accepts: boolean; readonly because: string };
}

const signedBy =
  (algorithm: string, more: readonly string[] = []): Case['make'] =>
  () => {
    const key = gpg.key(
      `k${createHash('md5')
        .update(algorithm + more)
        .digest('hex')
        .slice(0, 8)}`,
      algorithm,
    );
    return { keyring: gpg.exported(key), signature: gpg.sign(CONTENT, key, more) };
  };

const CASES: readonly Case[] = [
  ...['rsa2048', 'rsa3072', 'ed25519', 'nistp256', 'nistp384', 'nistp521'].map(
    (algorithm): Case => ({ name: algorithm, make: signedBy(algorithm), ours: 'accepted' }),
  ),
  ...['SHA224', 'SHA256', 'SHA384', 'SHA512'].map(
    (hash): Case => ({
      name: `RSA with ${hash}`,
      make: signedBy('rsa2048', [`--digest-algo=${hash}`]),
      ours: 'accepted',
    }),
  ),
  {
    name: 'armored',
    make: signedBy('ed25519', ['--armor']),
    ours: 'accepted',
  },
  {
    name: 'SHA-1',
    make: signedBy('rsa2048', ['--digest-algo=SHA1']),
    ours: /hash algorithm SHA-1 is not accepted/,
    gpgv: { accepts: true, because: 'collisions of SHA-1 are for sale' },
  },
  {
    name: 'RIPEMD-160',
    make: signedBy('rsa2048', ['--digest-algo=RIPEMD160']),
    ours: /hash algorithm RIPEMD-160 is not accepted/,
    gpgv: { accepts: true, because: 'it is as short as SHA-1' },
  },
  {
    name: 'DSA',
    make: signedBy('dsa2048'),
    ours: /dsa/i,
    gpgv: { accepts: true, because: 'RFC 9580, 9.1, forbids making such signatures' },
  },
  {
    name: 'RSA of 1024 bits',
    make: signedBy('rsa1024'),
    ours: /RSA keys shorter than 2047 bits/i,
    gpgv: { accepts: true, because: 'RFC 9580, 12.4, wants 2048 at least' },
  },
  ...['secp256k1', 'brainpoolP256r1'].map(
    (curve): Case => ({
      name: curve,
      make: signedBy(curve),
      ours: new RegExp(`keys on the curve ${curve}`),
      gpgv: { accepts: true, because: 'the library can not' },
    }),
  ),
  {
    name: 'text, other line ends',
    make: () => {
      const key = gpg.key('texter', 'ed25519');
      const signature = gpg.sign(Buffer.from('one\ntwo\r\nthree'), key, ['--textmode']);
      return { keyring: gpg.exported(key), signature, content: Buffer.from('one\r\ntwo\nthree') };
    },
    ours: 'accepted',
  },
  {
    name: 'text, other text',
    make: () => {
      const key = gpg.key('texter2', 'ed25519');
      const signature = gpg.sign(Buffer.from('one\ntwo'), key, ['--textmode']);
      return { keyring: gpg.exported(key), signature, content: Buffer.from('one\n\ntwo') };
    },
    ours: /content is not what was signed/,
  },
  {
    name: 'binary, other line ends',
    make: () => {
      const key = gpg.key('binarist', 'ed25519');
      const signature = gpg.sign(Buffer.from('one\ntwo'), key);
      return { keyring: gpg.exported(key), signature, content: Buffer.from('one\r\ntwo') };
    },
    ours: /content is not what was signed/,
  },
  {
    name: 'empty content',
    make: () => {
      const key = gpg.key('empty', 'ed25519');
      const nothing = Buffer.alloc(0);
      return { keyring: gpg.exported(key), signature: gpg.sign(nothing, key), content: nothing };
    },
    ours: 'accepted',
  },
  {
    name: 'another key',
    make: () => {
      const key = gpg.key('known', 'ed25519');
      const other = gpg.key('stranger', 'ed25519');
      return { keyring: gpg.exported(key), signature: gpg.sign(CONTENT, other) };
    },
    ours: UNKNOWN_ENTITY,
  },
  {
    name: 'other content',
    make: () => {
      const key = gpg.key('other', 'rsa2048');
      const signature = gpg.sign(CONTENT, key);
      return { keyring: gpg.exported(key), signature, content: flipped(CONTENT, 3) };
    },
    ours: /content is not what was signed/,
  },
  {
    name: 'by a subkey',
    make: () => {
      const key = gpg.key('sub', 'rsa2048', { usage: 'cert' });
      const sub = gpg.subkey(key, 'ed25519');
      return { keyring: gpg.exported(key), signature: gpg.sign(CONTENT, `${sub}!`) };
    },
    ours: 'accepted',
  },
  {
    name: 'by an expired subkey',
    make: () => {
      const key = gpg.key('subexp', 'ed25519', { usage: 'cert', day: '2020-01-01' });
      const sub = gpg.subkey(key, 'ed25519', 'sign', '10d', '2020-01-01');
      const signature = gpg.sign(CONTENT, `${sub}!`, [], '2020-01-02');
      return { keyring: gpg.exported(key), signature };
    },
    ours: /expired/,
  },
  {
    name: 'by a revoked subkey',
    make: () => {
      const key = gpg.key('subrev', 'ed25519', { usage: 'cert' });
      const sub = gpg.subkey(key, 'ed25519');
      const signature = gpg.sign(CONTENT, `${sub}!`);
      gpg.edit(key, ['key 1', 'revkey', 'y', '1', '', 'y', 'save']);
      return { keyring: gpg.exported(key), signature };
    },
    ours: /revoked/,
  },
  {
    name: 'by a subkey that another primary key has not bound',
    make: () => {
      const key = gpg.key('victim', 'ed25519', { usage: 'cert' });
      const sub = gpg.subkey(key, 'ed25519');
      const signature = gpg.sign(CONTENT, `${sub}!`);
      const attacker = gpg.key('attacker', 'ed25519');
      const packets = packetsOf(gpg.exported(key));
      const stolen = packets.slice(packets.findIndex(({ tag }) => tag === 14));
      const keyring = Buffer.concat([gpg.exported(attacker), ...stolen.map(({ bytes }) => bytes)]);
      return { keyring, signature };
    },
    ours: /not accepted/,
  },
  {
    name: 'by a subkey that has not signed its primary key',
    make: () => {
      const key = gpg.key('noback', 'ed25519', { usage: 'cert' });
      const sub = gpg.subkey(key, 'ed25519');
      const signature = gpg.sign(CONTENT, `${sub}!`);
      return { keyring: withoutBackSignature(gpg.exported(key)), signature };
    },
    ours: /not accepted/,
  },
  {
    name: 'by a key whose self-signature is broken',
    make: () => {
      const key = gpg.key('broken', 'ed25519');
      const signature = gpg.sign(CONTENT, key);
      const keyring = gpg.exported(key);
      return { keyring: flipped(keyring, keyring.length - 1), signature };
    },
    ours: /not accepted/,
  },
  {
    name: 'by a key that may not sign any more',
    make: () => {
      const key = gpg.key('flags', 'rsa2048', { usage: 'sign,cert', day: '2020-01-01' });
      const signature = gpg.sign(CONTENT, key, [], '2020-01-02');
      gpg.edit(key, ['change-usage', 's', 'q', 'save']);
      const keyring = gpg.run(['--export-options=export-minimal', '--export', key]);
      return { keyring, signature };
    },
    ours: /not accepted/,
  },
  {
    name: 'an expired key',
    make: () => {
      const key = gpg.key('expired', 'ed25519', { expire: '10d', day: '2020-01-01' });
      return { keyring: gpg.exported(key), signature: gpg.sign(CONTENT, key, [], '2020-01-02') };
    },
    ours: /expired/,
  },
  {
    name: 'a key that was expired and renewed',
    make: () => {
      const key = gpg.key('renewed', 'ed25519', { expire: '10d', day: '2020-01-01' });
      const signature = gpg.sign(CONTENT, key, [], '2020-01-02');
      gpg.run(['--quick-set-expire', key, '0']);
      return { keyring: gpg.exported(key), signature };
    },
    ours: 'accepted',
  },
  {
    name: 'a renewed key of which only the newest self-signature is left',
    make: () => {
      const key = gpg.key('minimal', 'ed25519', { expire: '10d', day: '2020-01-01' });
      const signature = gpg.sign(CONTENT, key, [], '2020-01-02');
      gpg.run(['--quick-set-expire', key, '0']);
      const keyring = gpg.run(['--export-options=export-minimal', '--export', key]);
      return { keyring, signature };
    },
    ours: 'accepted',
  },
  {
    name: 'a revoked key',
    make: () => {
      const key = gpg.key('revoked', 'ed25519');
      const signature = gpg.sign(CONTENT, key);
      gpg.revoke(key);
      return { keyring: gpg.exported(key), signature };
    },
    ours: /revoked/,
  },
  {
    name: 'a key whose self-signature is with SHA-1',
    make: () => {
      const user = 'sha1 <sha1@example.com>';
      gpg.run([
        '--cert-digest-algo=SHA1',
        '--quick-generate-key',
        user,
        'rsa2048',
        'sign,cert',
        'never',
      ]);
      const key = gpg.fingerprints('<sha1@example.com>')[0] ?? '';
      return { keyring: gpg.exported(key), signature: gpg.sign(CONTENT, key) };
    },
    ours: 'accepted',
  },
  {
    name: 'a key with one of two user ids revoked',
    make: () => {
      const key = gpg.key('twonames', 'ed25519');
      gpg.run(['--quick-add-uid', key, 'second <second@example.com>']);
      const signature = gpg.sign(CONTENT, key);
      gpg.run(['--quick-revoke-uid', key, 'twonames <twonames@example.com>']);
      return { keyring: gpg.exported(key), signature };
    },
    ours: 'accepted',
  },
  {
    name: 'a key of the future',
    make: () => {
      const key = gpg.key('futurekey', 'ed25519', { day: '2090-01-01' });
      return { keyring: gpg.exported(key), signature: gpg.sign(CONTENT, key, [], '2090-01-01') };
    },
    ours: /made in the future/,
  },
  {
    name: 'a key that its designated revoker has revoked',
    make: () => {
      const key = gpg.key('designates', 'rsa2048');
      const revoker = gpg.key('revoker', 'rsa2048');
      const signature = gpg.sign(CONTENT, key);
      gpg.edit(key, ['addrevoker', revoker, 'y', 'save']);
      const certificate = gpg.edit(key, ['y', '0', '', 'y'], '--desig-revoke');
      gpg.run(['--import'], { input: certificate });
      return { keyring: gpg.exported(key, revoker), signature };
    },
    ours: /can't be used: .*: the key is revoked by another key/,
  },
  {
    name: 'a key with a designated revoker who has not revoked it',
    make: () => {
      const key = gpg.key('designates2', 'rsa2048');
      const revoker = gpg.key('revoker2', 'rsa2048');
      gpg.edit(key, ['addrevoker', revoker, 'y', 'save']);
      return { keyring: gpg.exported(key, revoker), signature: gpg.sign(CONTENT, key) };
    },
    ours: 'accepted',
  },
  {
    name: 'an expired signature',
    make: () => {
      const key = gpg.key('sigexp', 'ed25519', { day: '2020-01-01' });
      const signature = gpg.sign(CONTENT, key, ['--default-sig-expire=10d'], '2020-01-02');
      return { keyring: gpg.exported(key), signature };
    },
    ours: /expired/,
  },
  {
    name: 'a signature of the future',
    make: () => {
      const key = gpg.key('future', 'ed25519');
      const signature = gpg.sign(CONTENT, key, [], '2090-01-01');
      return { keyring: gpg.exported(key), signature };
    },
    ours: /made in the future/,
    gpgv: { accepts: true, because: 'it could have been made to outlive a revocation' },
  },
  {
    name: 'a signature older than its key',
    make: () => {
      const key = gpg.key('older', 'ed25519');
      const args = ['--ignore-time-conflict'];
      return { keyring: gpg.exported(key), signature: gpg.sign(CONTENT, key, args, '2020-01-01') };
    },
    ours: /not accepted/,
  },
  {
    name: 'an unknown critical notation',
    make: signedBy('ed25519', ['--sig-notation=!unknown@example.com=1']),
    ours: /not accepted.*notation/i,
  },
  {
    name: 'a notation that is not critical',
    make: signedBy('ed25519', ['--sig-notation=unknown@example.com=1']),
    ours: 'accepted',
  },
  {
    name: 'a certification instead of a signature of a document',
    make: () => {
      const key = gpg.key('certifier', 'ed25519');
      const keyring = gpg.exported(key);
      const signature = packetsOf(keyring).find(({ tag }) => tag === 2)?.bytes ?? Buffer.alloc(0);
      return { keyring, signature };
    },
    ours: /type 0x13 does not sign a document/,
  },
];

describe('decided as gpgv does', () => {
  test.each(CASES)('$name', async ({ make, ours, gpgv }) => {
    const { keyring, signature, content = CONTENT } = make();
    const outcome = await verify(keyring, signature, content);
    if (typeof ours === 'string' && ours === 'accepted') expect(reason(outcome)).toBe(ours);
    else expect(reason(outcome)).toMatch(ours);
    expect(oracle(keyring, signature, content)).toBe(gpgv?.accepts ?? outcome.ok);
  });

  test('the outcome names the key and its user', async () => {
    const key = gpg.key('namely', 'ed25519');
    expect(await verify(gpg.exported(key), gpg.sign(CONTENT, key))).toEqual({
      ok: true,
      kind: 'openpgp',
      signer: key,
      detail: 'namely <namely@example.com>',
      origin: 'image.asc',
    });
  });

  test('content that is not what the subject’s digest says', async () => {
    const key = gpg.key('swapped', 'ed25519');
    const found = { kind: 'openpgp', origin: 'x', bytes: gpg.sign(CONTENT, key) } as const;
    const subject = { ...subjectOf(flipped(CONTENT, 0)), content: () => [CONTENT] };
    const outcome = await verifyOpenPgp(found, subject, trusted(gpg.exported(key)));
    expect(reason(outcome)).toMatch(/^the content that was read is not sha512:/);
  });

  test('MD5', async () => {
    const key = gpg.key('md5', 'rsa2048');
    const signature = gpg.sign(CONTENT, key, ['--digest-algo=SHA256']);
    const body = signature.indexOf(Buffer.from([4, 0, 1, 8]));
    expect(reason(await verify(gpg.exported(key), flipped(signature, body + 3, 9)))).toBe(
      'the hash algorithm MD5 is not accepted',
    );
  });

  test('each byte of a signature changed', async () => {
    const key = gpg.key('bytes', 'ed25519');
    const keyring = gpg.exported(key);
    const signature = gpg.sign(CONTENT, key);
    const accepted: number[] = [];
    for (let at = 0; at < signature.length; at += 1) {
      const bad = flipped(signature, at, 0x10);
      const outcome = await verify(keyring, bad);
      if (!outcome.ok) continue;
      accepted.push(at);
      expect(oracle(keyring, bad)).toBe(true);
    }
    // Only what is not signed can be changed: the unhashed key id.
    expect(accepted.length).toBeLessThanOrEqual(8);
  });

  test('each byte of a key changed', async () => {
    const key = gpg.key('keybytes', 'ed25519', { usage: 'cert' });
    const sub = gpg.subkey(key, 'ed25519');
    const signature = gpg.sign(CONTENT, `${sub}!`);
    const keyring = gpg.exported(key);
    const keyIds = positions(keyring, Buffer.from(`0910${key.slice(-16)}`, 'hex'));
    for (let at = 0; at < keyring.length; at += 1) {
      const bad = flipped(keyring, at, 0x04);
      let outcome: Outcome;
      try {
        outcome = await verify(bad, signature);
      } catch {
        continue; // not even a key
      }
      // What is accepted gpgv accepts as well; but for the key id in a part that is not signed, which gpgv needs.
      if (outcome.ok && !keyIds.some(id => at >= id && at < id + 10)) {
        expect([at, oracle(bad, signature)]).toEqual([at, true]);
      }
    }
  });
});

describe('several signatures and keys', () => {
  test('one good signature among others suffices', async () => {
    const good = gpg.key('good', 'ed25519');
    const stranger = gpg.key('strange', 'ed25519');
    const keyring = gpg.exported(good);
    const files = [
      [gpg.sign(CONTENT, stranger), gpg.sign(CONTENT, good)],
      [gpg.sign(flipped(CONTENT, 0), good), gpg.sign(CONTENT, good)],
      [gpg.sign(CONTENT, good), gpg.sign(flipped(CONTENT, 0), good)],
      [gpg.sign(CONTENT, good, ['--digest-algo=SHA384']), gpg.sign(CONTENT, stranger)],
    ];
    for (const signatures of files) {
      const outcome = await verify(keyring, Buffer.concat(signatures));
      expect(outcome).toMatchObject({ ok: true, signer: good });
    }
    const armored = [stranger, good].map(key => gpg.sign(CONTENT, key, ['--armor']));
    expect(await verify(keyring, Buffer.concat(armored))).toMatchObject({ ok: true });
  });

  test('the fault of a trusted key is told rather than that of a stranger', async () => {
    const key = gpg.key('faulty', 'ed25519');
    const stranger = gpg.key('strange2', 'ed25519');
    const signature = Buffer.concat([
      gpg.sign(CONTENT, stranger),
      gpg.sign(flipped(CONTENT, 0), key),
    ]);
    expect(reason(await verify(gpg.exported(key), signature))).toMatch(/is not what was signed/);
  });

  test('a revocation in one copy of a key holds for all', async () => {
    const key = gpg.key('copies', 'ed25519');
    const signature = gpg.sign(CONTENT, key);
    const before = trusted(gpg.exported(key));
    gpg.revoke(key);
    const after = trusted(gpg.exported(key));
    const found = { kind: 'openpgp', origin: 'x', bytes: signature } as const;
    const subject = subjectOf(CONTENT);
    expect(await verifyOpenPgp(found, subject, before)).toMatchObject({ ok: true });
    for (const keys of [
      [...before, ...after],
      [...after, ...before],
    ]) {
      expect(reason(await verifyOpenPgp(found, subject, keys))).toMatch(/revoked/);
    }
  });

  test('a copy that can not be read bars the key', async () => {
    const key = gpg.key('copies2', 'ed25519');
    const [good] = trusted(gpg.exported(key));
    if (good === undefined) throw new Error('no key');
    const found = { kind: 'openpgp', origin: 'x', bytes: gpg.sign(CONTENT, key) } as const;
    const bad = { ...good, bytes: good.bytes.subarray(0, 60), path: '/bad' };
    for (const keys of [
      [good, bad],
      [bad, good],
    ]) {
      const outcome = await verifyOpenPgp(found, subjectOf(CONTENT), keys);
      expect(reason(outcome)).toMatch(/^the trusted key [0-9a-f]{40} can't be used: \/bad: /);
    }
  });

  test('more signatures than anybody makes', async () => {
    const key = gpg.key('many', 'ed25519');
    const signature = gpg.sign(CONTENT, key);
    const many = Buffer.concat(Array(33).fill(signature));
    expect(reason(await verify(gpg.exported(key), many))).toMatch(/more than 32 packets/);
  });
});

describe('what is no detached signature', () => {
  test.each([
    ['nothing', () => Buffer.alloc(0), /it is empty/],
    ['text', () => Buffer.from('hello'), /no line -----BEGIN PGP SIGNATURE-----/],
    ['a web page', () => Buffer.from('<html>404</html>'), /no line -----BEGIN/],
    ['a key', () => gpg.run(['--armor', '--export', 'known']), /PUBLIC KEY BLOCK, not a SIGNATURE/],
    ['a binary key', () => gpg.exported('known'), /packet of type 6/],
    [
      'a signed message',
      () => gpg.run(['-u', 'known', '--sign'], { input: CONTENT }),
      /is not a detached|no definite length/,
    ],
    [
      'clear text',
      () => gpg.run(['-u', 'known', '--clearsign'], { input: 'hello\n' }),
      /PGP SIGNED MESSAGE, not a/,
    ],
    ['over 1 MiB', () => Buffer.alloc(1024 ** 2 + 1, 0x20), /over the limit of 1048576/],
    ['a packet without length', () => Buffer.from([0x8b, 1, 2]), /no definite length/],
    ['a packet in parts', () => Buffer.from([0xc2, 0xe1, 1, 2]), /no definite length/],
    ['a packet cut short', () => Buffer.from([0xc2, 0x20, 4]), /cut short/],
  ])('%s', async (_name, make, why) => {
    const key = gpg.fingerprints('known').length > 0 ? 'known' : gpg.key('known', 'ed25519');
    expect(reason(await verify(gpg.exported(key), make()))).toMatch(why);
  });
});

describe('version 6', () => {
  // RFC 9580, A.3 and A.6: the certificate and a signature of type 0x01 by it.
  const CERTIFICATE = `-----BEGIN PGP PUBLIC KEY BLOCK-----

xioGY4d/4xsAAAAg+U2nu0jWCmHlZ3BqZYfQMxmZu52JGggkLq2EVD34laPCsQYf
GwoAAABCBYJjh3/jAwsJBwUVCg4IDAIWAAKbAwIeCSIhBssYbE8GCaaX5NUt+mxy
KwwfHifBilZwj2Ul7Ce62azJBScJAgcCAAAAAK0oIBA+LX0ifsDm185Ecds2v8lw
gyU2kCcUmKfvBXbAf6rhRYWzuQOwEn7E/aLwIwRaLsdry0+VcallHhSu4RN6HWaE
QsiPlR4zxP/TP7mhfVEe7XWPxtnMUMtf15OyA51YBM4qBmOHf+MZAAAAIIaTJINn
+eUBXbki+PSAld2nhJh/LVmFsS+60WyvXkQ1wpsGGBsKAAAALAWCY4d/4wKbDCIh
BssYbE8GCaaX5NUt+mxyKwwfHifBilZwj2Ul7Ce62azJAAAAAAQBIKbpGG2dWTX8
j+VjFM21J0hqWlEg+bdiojWnKfA5AQpWUWtnNwDEM0g12vYxoWM8Y81W+bHBw805
I8kWVkXU6vFOi+HWvv/ira7ofJu16NnoUkhclkUrk0mXubZvyl4GBg==
-----END PGP PUBLIC KEY BLOCK-----
`;
  const SIGNATURE = `-----BEGIN PGP SIGNATURE-----

wpgGARsKAAAAKQWCY5ijYyIhBssYbE8GCaaX5NUt+mxyKwwfHifBilZwj2Ul7Ce6
2azJAAAAAGk2IHZJX1AhiJD39eLuPBgiUU9wUA9VHYblySHkBONKU/usJ9BvuAqo
/FvLFuGWMbKAdA+epq7V4HOtAPlBWmU8QOd6aud+aSunHQaaEJ+iTFjP2OMW0KBr
NK2ay45cX1IVAQ==
-----END PGP SIGNATURE-----
`;
  const TEXT = 'What we need from the grocery store:\n\n- tofu\n- vegetables\n- noodles\n';
  const FINGERPRINT = 'cb186c4f0609a697e4d52dfa6c722b0c1f1e27c18a56708f6525ec27bad9acc9';

  test('the example of RFC 9580', async () => {
    const outcome = await verify(
      Buffer.from(CERTIFICATE),
      Buffer.from(SIGNATURE),
      Buffer.from(TEXT),
    );
    expect(outcome).toMatchObject({ ok: true, signer: FINGERPRINT });
    const other = await verify(
      Buffer.from(CERTIFICATE),
      Buffer.from(SIGNATURE),
      Buffer.from(TEXT.replace('tofu', 'pork')),
    );
    expect(reason(other)).toMatch(/content is not what was signed/);
  });

  test.each(['curve25519', 'rsa', 'nistP256', 'ed448'] as const)('%s', async kind => {
    const { privateKey, publicKey } = await openpgp.generateKey({
      userIDs: [{ name: 'six', email: 'six@example.com' }],
      type:
        kind === 'rsa'
          ? 'rsa'
          : kind === 'nistP256'
            ? 'ecc'
            : kind === 'ed448'
              ? 'curve448'
              : 'curve25519',
      ...(kind === 'nistP256' ? { curve: 'nistP256' as const } : {}),
      ...(kind === 'rsa' ? { rsaBits: 2048 } : {}),
      format: 'object',
      config: { v6Keys: true },
    });
    const message = await openpgp.createMessage({ binary: new Uint8Array(CONTENT) });
    const made = await openpgp.sign({
      message,
      signingKeys: privateKey,
      detached: true,
      format: 'object',
    });
    const signature = made.packets.write();
    const keyring = publicKey.write();
    expect(await verify(keyring, signature)).toMatchObject({
      ok: true,
      signer: publicKey.getFingerprint(),
    });
    expect(reason(await verify(keyring, signature, flipped(CONTENT, 1)))).toMatch(/not what was/);
    // RSA and ECDSA end in numbers with their lengths in bits, of which only the bytes count.
    const numbers = { rsa: 258, nistP256: 68, curve25519: 0, ed448: 0 }[kind];
    for (let at = 2; at < signature.length - numbers; at += 1) {
      expect([at, (await verify(keyring, flipped(signature, at))).ok]).toEqual([at, false]);
    }
  });

  test('a salt of another length', async () => {
    const [packet] = packetsOf(dearmored(SIGNATURE));
    const at = (packet?.bytes.length ?? 0) - 64 - 33;
    expect(packet?.bytes[at]).toBe(32);
    const short = Buffer.concat([
      Buffer.from([0xc2, (packet?.bytes.length ?? 0) - 3]),
      packet?.bytes.subarray(2, at) ?? Buffer.alloc(0),
      Buffer.from([31]),
      packet?.bytes.subarray(at + 2) ?? Buffer.alloc(0),
    ]);
    expect(reason(await verify(Buffer.from(CERTIFICATE), short, Buffer.from(TEXT)))).toMatch(
      /its salt has 31 bytes instead of 32/,
    );
  });
});

test('an image of any size costs no memory', async () => {
  const key = gpg.key('large', 'ed25519');
  const chunk = Buffer.alloc(1024 ** 2, 'x');
  const size = 300;
  function* content(): Generator<Uint8Array> {
    for (let sent = 0; sent < size; sent += 1) yield chunk;
  }
  const signature = gpg.sign(Buffer.concat([...content()]), key);
  const keyring = gpg.exported(key);
  await verify(keyring, signature, Buffer.from('warm up'));
  const before = process.memoryUsage();
  const outcome = await verify(keyring, signature, content);
  const after = process.memoryUsage();
  expect(outcome.ok).toBe(true);
  const grown = after.arrayBuffers + after.heapTotal - before.arrayBuffers - before.heapTotal;
  expect(grown).toBeLessThan(64 * chunk.length);
});

function positions(bytes: Buffer, wanted: Buffer): number[] {
  const found: number[] = [];
  for (let at = bytes.indexOf(wanted); at >= 0; at = bytes.indexOf(wanted, at + 1)) found.push(at);
  return found;
}

interface TestPacket {
  readonly tag: number;
  readonly bytes: Buffer;
}

/** Packets of an export of gpg, which have old headers with definite lengths. */
function packetsOf(bytes: Buffer): TestPacket[] {
  const packets: TestPacket[] = [];
  for (let at = 0; at < bytes.length; ) {
    const head = bytes.readUInt8(at);
    const old = (head & 0x40) === 0;
    const tag = old ? (head >> 2) & 15 : head & 63;
    const octets = old ? ([1, 2, 4][head & 3] ?? 0) : bytes.readUInt8(at + 1) < 192 ? 1 : 2;
    const length = old
      ? bytes.readUIntBE(at + 1, octets)
      : octets === 1
        ? bytes.readUInt8(at + 1)
        : ((bytes.readUInt8(at + 1) - 192) << 8) + bytes.readUInt8(at + 2) + 192;
    const end = at + 1 + octets + length;
    packets.push({ tag, bytes: bytes.subarray(at, end) });
    at = end;
  }
  return packets;
}

function dearmored(text: string): Buffer {
  return Buffer.from(text.replace(/-----.*-----\n/g, ''), 'base64');
}

/** Takes the unhashed area, in which gpg puts the back signature, out of the last packet. */
function withoutBackSignature(keyring: Buffer): Buffer {
  const packets = packetsOf(keyring);
  const binding = packets.pop();
  if (binding === undefined) throw new Error('no packets');
  const octets = [1, 2, 4][binding.bytes.readUInt8(0) & 3] ?? 0;
  const body = binding.bytes.subarray(1 + octets);
  const hashedEnd = 6 + body.readUInt16BE(4);
  const unhashedEnd = hashedEnd + 2 + body.readUInt16BE(hashedEnd);
  const changed = Buffer.concat([
    body.subarray(0, hashedEnd),
    Buffer.from([0, 0]),
    body.subarray(unhashedEnd),
  ]);
  const header = Buffer.from([0x89, changed.length >> 8, changed.length & 0xff]);
  return Buffer.concat([...packets.map(({ bytes }) => bytes), header, changed]);
}
