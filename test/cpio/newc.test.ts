/** Our cpio archives, read field by field as the kernel does. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type CpioEntry, cpioArchive } from '../../src/cpio/newc.ts';
import { cases } from '../support/fuzz.ts';

interface Read {
  readonly name: string;
  readonly mode: number;
  readonly content: string;
  readonly device: readonly [number, number];
}

/** As buffer-format.rst has it, and nothing of the writer's. */
function read(archive: Buffer): readonly Read[] {
  const found: Read[] = [];
  let at = 0;
  while (at < archive.length) {
    expect(archive.toString('latin1', at, at + 6)).toBe('070701');
    const field = (number: number) => {
      const text = archive.toString('latin1', at + 6 + number * 8, at + 14 + number * 8);
      expect(text).toMatch(/^[0-9a-f]{8}$/);
      return Number.parseInt(text, 16);
    };
    const nameAt = at + 110;
    const nameEnd = nameAt + field(11);
    const contentAt = nameEnd + (-nameEnd & 3);
    const contentEnd = contentAt + field(6);
    expect(archive[nameEnd - 1]).toBe(0);
    found.push({
      name: archive.toString('utf8', nameAt, nameEnd - 1),
      mode: field(1),
      content: archive.toString('latin1', contentAt, contentEnd),
      device: [field(9), field(10)],
    });
    at = contentEnd + (-contentEnd & 3);
  }
  expect(at).toBe(archive.length);
  return found;
}

describe('cpio archives', () => {
  it('of every kind of entry', () => {
    const entries: readonly CpioEntry[] = [
      { type: 'folder', name: 'dev', mode: 0o755 },
      { type: 'character-device', name: 'dev/console', mode: 0o600, major: 5, minor: 1 },
      { type: 'file', name: 'init', mode: 0o755, content: Buffer.from('#!') },
      { type: 'symlink', name: 'link', mode: 0o777, target: 'init' },
    ];
    expect(read(cpioArchive(entries))).toEqual([
      { name: 'dev', mode: 0o040755, content: '', device: [0, 0] },
      { name: 'dev/console', mode: 0o020600, content: '', device: [5, 1] },
      { name: 'init', mode: 0o100755, content: '#!', device: [0, 0] },
      { name: 'link', mode: 0o120777, content: 'init', device: [0, 0] },
      { name: 'TRAILER!!!', mode: 0, content: '', device: [0, 0] },
    ]);
  });

  it('of any names and contents', () => {
    const file = fc.record({
      name: fc.string({ minLength: 1, maxLength: 60 }).filter(name => !name.includes('\0')),
      content: fc.uint8Array({ maxLength: 50 }),
    });
    fc.assert(
      fc.property(fc.array(file, { maxLength: 6 }), files => {
        const archive = cpioArchive(
          files.map(one => ({ type: 'file' as const, mode: 0o644, ...one })),
        );
        expect(read(archive).slice(0, -1)).toEqual(
          files.map(({ name, content }) => ({
            name: Buffer.from(name).toString(),
            mode: 0o100644,
            content: Buffer.from(content).toString('latin1'),
            device: [0, 0],
          })),
        );
      }),
      { numRuns: cases(300) },
    );
  });

  it('what the form has no room for is refused', () => {
    const file = (name: string) => [{ type: 'file' as const, name, mode: 0, content: Buffer.of() }];
    for (const name of ['', 'a\0b', 'x'.repeat(4096)])
      expect(() => cpioArchive(file(name))).toThrow(RangeError);
  });
});
