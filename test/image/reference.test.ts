/** References by the grammar of the distribution specification, completed as Docker does. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { TspodError } from '../../src/errors.ts';
import { canonicalReference, parseReference } from '../../src/image/reference.ts';
import { cases } from '../support/fuzz.ts';

const HEX = 'a'.repeat(64);

function canonical(text: string): string {
  const reference = parseReference(text);
  if (
    reference.kind === 'registry' ||
    reference.kind === 'oci' ||
    reference.kind === 'oci-archive' ||
    reference.kind === 'docker-archive'
  ) {
    return canonicalReference(reference);
  }
  return reference.kind;
}

test.each([
  ['docker://busybox', 'docker://docker.io/library/busybox:latest'],
  ['docker:busybox:1.36', 'docker://docker.io/library/busybox:1.36'],
  ['docker://registry-1.docker.io/a/b', 'docker://docker.io/a/b:latest'],
  ['docker://localhost/a', 'docker://localhost/a:latest'],
  ['docker://127.0.0.1:5000/a/b__c:T', 'docker://127.0.0.1:5000/a/b__c:T'],
  ['docker://[::1]:5000/a', 'docker://[::1]:5000/a:latest'],
  ['docker://Quay.IO/a', 'docker://quay.io/a:latest'],
  [`docker://a/b@sha256:${HEX}`, `docker://docker.io/a/b@sha256:${HEX}`],
  [`docker://a/b:1@sha256:${HEX}`, `docker://docker.io/a/b:1@sha256:${HEX}`],
  ['oci:/a/b:1', 'oci:/a/b:1'],
  ['oci:/a:b/c', 'oci:/a:b/c'],
  ['oci-archive:/x.tar', 'oci-archive:/x.tar'],
  ['docker-archive:/x.tar', 'docker-archive:/x.tar'],
  ['docker-archive:/x.tar:a', 'docker-archive:/x.tar:docker.io/library/a:latest'],
  ['docker-archive:/x.tar:h.x:5/a/b:1', 'docker-archive:/x.tar:h.x:5/a/b:1'],
  ['docker-archive:-:@02', 'docker-archive:-:@2'],
  ['oci-archive:-', 'oci-archive:-'],
  ['-', 'path'],
  ['./x', 'path'],
  ['/x', 'path'],
  [`sha256-${HEX}`, 'id'],
  ['sha256:ab', 'id'],
  ['busybox', 'name'],
  ['127.0.0.1:5000/x', 'name'],
])('%s', (text, expected) => {
  expect(canonical(text)).toBe(expected);
});

test.each([
  '',
  'docker://',
  'docker://A',
  'docker://a//b',
  'docker://a/../b',
  'docker://h.x:99999/a',
  'docker://h.x:0/a',
  'docker://a@sha256:x',
  'docker://a@sha256:../x',
  'docker://a:',
  'docker://a:.x',
  `docker://a:${'x'.repeat(129)}`,
  'docker://user@h.x/a',
  'docker://h.x/a?b',
  'docker://a\n',
  `docker://${'a'.repeat(256)}`,
  `docker://${HEX}`,
  'sha256:',
  'sha256:XY',
  `sha256:${HEX}a`,
  'oci:',
  'oci:x:',
  'https://x/y',
  'https://user:secret@x/y.aci',
  'ftp://x/y.aci',
  'file://host/y.aci',
  'docker-archive:',
  'docker-archive:x:',
  'docker-archive:x:Upper',
  'docker-archive:x:@-1',
  'docker-archive:x:busybox@sha256:0',
])('refused: %j', text => {
  expect(() => parseReference(text)).toThrow(TspodError);
});

describe('properties', () => {
  test('any text gives a reference or a TspodError of one line', () => {
    const text = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.string().map(rest => `docker://${rest}`),
      fc.stringMatching(/^docker:\/\/[a-zA-Z0-9.:@/_-]{0,60}$/),
    );
    fc.assert(
      fc.property(text, each => {
        try {
          const reference = parseReference(each);
          if (reference.kind === 'registry') {
            expect(parseReference(canonicalReference(reference))).toEqual(reference);
            expect(
              new URL(`https://${reference.registry}/v2/${reference.repository}/x`).pathname,
            ).toBe(`/v2/${reference.repository}/x`);
          }
        } catch (error) {
          expect(error).toBeInstanceOf(TspodError);
        }
      }),
      { numRuns: cases(3000) },
    );
  });
});
