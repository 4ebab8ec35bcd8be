import fc from 'fast-check';
import { expect, test } from 'vitest';
import { parseChallenges } from '../../stage0/fetch/challenge.ts';
import { cases } from '../support/fuzz.ts';

const plain = (header: string) =>
  parseChallenges(header)?.map(({ scheme, parameters }) => [
    scheme,
    Object.fromEntries(parameters),
  ]);

test('the challenges of the specifications', () => {
  expect(
    plain('Bearer realm="https://a/t",service="r.x",scope="repository:a/b:pull,push"'),
  ).toEqual([
    ['bearer', { realm: 'https://a/t', service: 'r.x', scope: 'repository:a/b:pull,push' }],
  ]);
  expect(plain('Basic realm="a \\"b\\"", Negotiate, Bearer realm=x , a="1"')).toEqual([
    ['basic', { realm: 'a "b"' }],
    ['negotiate', {}],
    ['bearer', { realm: 'x', a: '1' }],
  ]);
  expect(plain('')).toEqual([]);
  for (const bad of [
    'Bearer realm="',
    'Bearer a=1, a=2',
    '"x"',
    'Bearer a="1" b="2"',
    'Bearer a=1, b=',
  ]) {
    expect(plain(bad)).toBeUndefined();
  }
});

test('any header ends, fast, with challenges or undefined', () => {
  const text = fc.oneof(fc.string({ maxLength: 9000 }), fc.stringMatching(/^[Ba",= \\]{0,200}$/));
  fc.assert(
    fc.property(text, header => void parseChallenges(header)),
    { numRuns: cases(3000) },
  );
});
