/** What is typed and what is asked for, before anything is connected. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { DetachFilter, parseDetachKeys } from '../../stage0/attach/detach-keys.ts';
import { endpointsJson, select } from '../../stage0/attach/endpoints.ts';

describe('detach keys', () => {
  test.each([
    ['ctrl-p,ctrl-q', [16, 17]],
    ['ctrl-a,d', [1, 100]],
    ['ctrl-@,ctrl-[,ctrl-]', [0, 27, 29]],
    ['none', []],
    ['', []],
  ])('%s', (text, keys) => {
    expect([...parseDetachKeys(text)]).toEqual(keys);
  });

  test.each(['ctrl-', 'ctrl-P', 'ab', ',', 'ctrl-p,', 'ü', Array(17).fill('a').join(',')])(
    'refused: %s',
    text => {
      expect(() => parseDetachKeys(text)).toThrow(/--detach-keys/);
    },
  );

  test.each([
    ['ab', 'xaby', 'x', true],
    ['ab', 'xaay', 'xaay', false],
    ['aab', 'aaab', 'a', true],
    ['aba', 'ababx', '', true],
    ['aab', 'aaac', 'aaac', false],
  ])('keys %s in %s', (keys, typed, passed, detach) => {
    const filter = new DetachFilter(Buffer.from(keys));
    const found = filter.take(Buffer.from(typed));
    expect([found.pass.toString(), found.detach]).toEqual([passed, detach]);
  });

  test('however it comes in pieces, they are found where they first are', () => {
    const letters = fc.array(fc.constantFrom(97, 98), { maxLength: 12 });
    fc.assert(
      fc.property(letters, fc.array(letters), (keys, pieces) => {
        const filter = new DetachFilter(Uint8Array.from(keys));
        const typed = Buffer.from(pieces.flat());
        const at = keys.length === 0 ? -1 : typed.indexOf(Buffer.from(keys));
        const passed: number[] = [];
        let detached = false;
        for (const piece of pieces) {
          const found = filter.take(Uint8Array.from(piece));
          passed.push(...found.pass);
          detached = found.detach;
          if (detached) break;
        }
        expect(detached).toBe(at >= 0);
        if (at >= 0) expect(passed).toEqual([...typed.subarray(0, at)]);
        // What may still become the keys is held back.
        else expect(typed.subarray(0, passed.length)).toEqual(Buffer.from(passed));
        if (at < 0) expect(typed.length - passed.length).toBeLessThan(Math.max(keys.length, 1));
      }),
    );
  });
});

describe('modes', () => {
  const none = { stdin: false, stdout: false, stderr: false, ttyIn: false, ttyOut: false };

  test.each([
    ['auto', ['stdout'], { ...none, stdout: true }],
    ['auto', ['tty'], { ...none, ttyIn: true, ttyOut: true }],
    ['stdin,stderr', ['stdin', 'stdout', 'stderr'], { ...none, stdin: true, stderr: true }],
    ['tty', ['tty'], { ...none, ttyIn: true, ttyOut: true }],
    ['tty-in', ['tty'], { ...none, ttyIn: true }],
    ['tty-in,tty-out', ['tty'], { ...none, ttyIn: true, ttyOut: true }],
  ] as const)('%s of %j', (mode, endpoints, wanted) => {
    expect(select(mode, 'a', endpoints)).toEqual(wanted);
  });

  test.each([
    ['stdout,tty', ['stdout', 'tty'], 'usage'],
    ['nonsense', ['stdout'], 'usage'],
    ['', ['stdout'], 'usage'],
    ['stdin', ['stdout'], 'state'],
    ['tty-in', ['stdout'], 'state'],
    ['auto', [], 'state'],
  ] as const)('refused: %s of %j', (mode, endpoints, code) => {
    expect(() => select(mode, 'a', endpoints)).toThrow(expect.objectContaining({ code }));
  });

  test('the list has the form of rkt’s', () => {
    expect(endpointsJson('web', ['stdin'])).toEqual({
      version: 1,
      targets: [{ name: 'stdin', domain: 'unix', address: '/rkt/attach/web-stdin' }],
    });
  });
});
