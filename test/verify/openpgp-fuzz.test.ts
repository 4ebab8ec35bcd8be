/** Keys and signatures of strangers never throw anything but an error of ours, and are never accepted. */
import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { TspodError } from '../../src/errors.ts';
import { parseDigest } from '../../src/image/digest.ts';
import { CanonicalText, hashContent } from '../../stage0/verify/openpgp/digests.ts';
import { inspectKey } from '../../stage0/verify/openpgp/inspect-key.ts';
import { splitKeys } from '../../stage0/verify/openpgp/key-block.ts';
import { verifyOpenPgp } from '../../stage0/verify/openpgp/verify.ts';
import { cases } from '../support/fuzz.ts';
import { Gpg } from './gpg.ts';

const CONTENT = Buffer.from('content');
let gpg: Gpg;
let keyring: Buffer;
let signature: Buffer;
beforeAll(() => {
  gpg = new Gpg();
  const key = gpg.key('fuzz', 'rsa2048');
  gpg.subkey(key, 'ed25519');
  keyring = gpg.exported(key);
  signature = gpg.sign(CONTENT, key);
});
afterAll(() => gpg.close());

const subjectOf = (content: Buffer) => ({
  name: 'example.com/app',
  reference: 'example.com/app',
  digest: parseDigest(`sha256:${createHash('sha256').update(content).digest('hex')}`, 'test'),
  content: () => [content],
});
const subject = subjectOf(CONTENT);
const other = subjectOf(Buffer.from('other'));

/** Several bytes changed, removed or repeated. */
const mutated = (original: () => Buffer) =>
  fc
    .array(
      fc.tuple(
        fc.nat(4000),
        fc.nat(255),
        fc.constantFrom(...Array<string>(12).fill('set'), 'cut', 'twice'),
      ),
      {
        minLength: 1,
        maxLength: 6,
      },
    )
    .map(changes => {
      let bytes = Buffer.from(original());
      for (const [where, value, how] of changes) {
        const at = where % Math.max(bytes.length, 1);
        if (how === 'set') bytes[at] = value;
        else if (how === 'cut')
          bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1 + (value >> 4))]);
        else
          bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(Math.max(0, at - value))]);
      }
      return bytes;
    });

test('signatures', async () => {
  const [block] = splitKeys(keyring, 'it');
  if (block === undefined) throw new Error('no key');
  const keys = [{ ...block, scope: '', path: '/key' }];
  await fc.assert(
    fc.asyncProperty(
      fc.oneof(
        mutated(() => signature),
        fc.uint8Array({ maxLength: 200 }),
      ),
      async bytes => {
        const found = { kind: 'openpgp', origin: 'x', bytes } as const;
        const outcome = await verifyOpenPgp(found, other, keys);
        expect(outcome.ok).toBe(false);
        if (!outcome.ok) expect(outcome.reason).toMatch(/^[^\n]{5,600}$/);
      },
    ),
    { numRuns: cases(5000) },
  );
});

test('keys', async () => {
  await fc.assert(
    fc.asyncProperty(
      mutated(() => keyring),
      async bytes => {
        try {
          for (const block of splitKeys(bytes, 'it')) {
            await inspectKey(block);
            const found = { kind: 'openpgp', origin: 'x', bytes: signature } as const;
            await verifyOpenPgp(found, subject, [{ ...block, scope: '', path: '/key' }]);
          }
        } catch (error) {
          expect(error).toBeInstanceOf(TspodError);
        }
      },
    ),
    { numRuns: cases(2000) },
  );
});

test('canonical text does not depend on the chunks', async () => {
  const bytes = fc.array(fc.constantFrom('\r', '\n', 'a', '\r\n'), { maxLength: 40 });
  await fc.assert(
    fc.asyncProperty(bytes, fc.array(fc.nat(3), { maxLength: 30 }), async (parts, sizes) => {
      const text = parts.join('');
      const chunks: Buffer[] = [];
      let at = 0;
      for (const size of [...sizes, text.length]) {
        chunks.push(Buffer.from(text.slice(at, at + size)));
        at += size;
      }
      const canonical = new CanonicalText();
      const made = Buffer.concat(chunks.flatMap(chunk => canonical.convert(chunk)));
      expect(made.toString()).toBe(text.replace(/(?<!\r)\n/g, '\r\n'));
      const none = new Uint8Array(0);
      const wanted = { algorithm: 'sha256', salt: none, text: true, suffix: none };
      const [digest] = await hashContent(chunks, [wanted]);
      expect(Buffer.from(digest ?? none)).toEqual(createHash('sha256').update(made).digest());
    }),
    { numRuns: cases(500) },
  );
});

test('the library’s own exceptions don’t come through for keys that it can’t read', async () => {
  // A public key packet of an unknown algorithm.
  const body = Buffer.from([4, 0, 0, 0, 0, 77, 1, 2, 3]);
  const [block] = splitKeys(Buffer.concat([Buffer.from([0x98, body.length]), body]), 'it');
  if (block === undefined) throw new Error('no key');
  await expect(inspectKey(block)).rejects.toBeInstanceOf(TspodError);
  const found = { kind: 'openpgp', origin: 'x', bytes: signature } as const;
  const outcome = await verifyOpenPgp(found, subject, [{ ...block, scope: '', path: '/key' }]);
  expect(outcome).toMatchObject({
    ok: false,
    reason: expect.stringContaining("can't be used: /key: "),
  });
});
