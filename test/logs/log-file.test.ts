/** Reading logs that are written, rotated and removed meanwhile. */
import {
  appendFileSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { LogFile } from '../../stage0/logs/log-file.ts';
import { cases } from '../support/fuzz.ts';

let dir: string;
let file: LogFile;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'tspod-logs-'));
  file = new LogFile(dir, 'a');
});
afterEach(() => {
  file.close();
  rmSync(dir, { recursive: true, force: true });
});

const path = (number = 0) => join(dir, number === 0 ? 'a.log' : `a.log.${number}`);
const line = (text: string, tag = 'F') => `2026-01-02T03:04:05.123456789Z stdout ${tag} ${text}\n`;
const read = () => [...file.read()].map(({ text }) => text.toString());

function rotate(kept: number): void {
  for (let number = kept; number > 0; number--) {
    try {
      renameSync(path(number - 1), path(number));
    } catch {
      // there are not so many yet
    }
  }
}

test('from the oldest file to the newest', () => {
  writeFileSync(path(2), line('1') + line('2'));
  writeFileSync(path(1), line('3'));
  writeFileSync(path(), line('4'));
  expect(read()).toEqual(['1', '2', '3', '4']);
  expect(read()).toEqual([]);
});

test('what comes later, in pieces, over a rotation', () => {
  expect(read()).toEqual([]);
  writeFileSync(path(), line('1') + line('2').slice(0, 20));
  expect(read()).toEqual(['1']);
  appendFileSync(path(), line('2').slice(20));
  expect(read()).toEqual(['2']);
  appendFileSync(path(), line('3', 'P'));
  rotate(3);
  expect(read()).toEqual([]);
  writeFileSync(path(), line('4'));
  expect(read()).toEqual(['34']);
  expect(file.missed).toBe(false);
});

test('rotated more than once between two looks, and out of sight', () => {
  writeFileSync(path(), line('1'));
  expect(read()).toEqual(['1']);
  for (const text of ['2', '3', '4']) {
    rotate(5);
    writeFileSync(path(), line(text));
  }
  expect(read()).toEqual(['2', '3', '4']);
  expect(file.missed).toBe(false);
  for (let number = 2; number <= 5; number++) rmSync(path(number), { force: true });
  for (const text of ['5', '6', '7']) {
    rotate(1);
    writeFileSync(path(), line(text));
  }
  expect(read()).toEqual(['6', '7']);
  expect(file.missed).toBe(true);
});

test('whatever a writer does, no line is lost, doubled or out of order', () => {
  const step = fc.oneof(
    { weight: 5, arbitrary: fc.constant('write') },
    { weight: 2, arbitrary: fc.constant('rotate') },
    { weight: 2, arbitrary: fc.constant('read') },
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), steps => {
      const folder = mkdtempSync(join(dir, 'run-'));
      const reader = new LogFile(folder, 'a');
      const at = (number: number) => join(folder, number === 0 ? 'a.log' : `a.log.${number}`);
      const got: string[] = [];
      const take = () => got.push(...[...reader.read()].map(({ text }) => text.toString()));
      let written = 0;
      let rotations = 0;
      for (const what of steps) {
        if (what === 'write') appendFileSync(at(0), line(String(written++)));
        else if (what === 'read') take();
        else if (rotations < 90) {
          for (let number = rotations + 1; number > 0; number--) {
            try {
              renameSync(at(number - 1), at(number));
            } catch {
              // a rotation of nothing
            }
          }
          rotations += 1;
          // As init does it: the new file is there with its first line.
          appendFileSync(at(0), line(String(written++)));
        }
      }
      take();
      reader.close();
      expect(got).toEqual(Array.from({ length: written }, (_, index) => String(index)));
      expect(reader.missed).toBe(false);
    }),
    { numRuns: cases(100) },
  );
});

test('garbage is counted and passed over, a line of any length too', () => {
  const long = 'x'.repeat(300_000);
  writeFileSync(path(), `garbage\n${line('1')}${long}\n${line('2')}\n\u0000\n${line('3')}`);
  expect(read()).toEqual(['1', '2', '3']);
  expect(file.malformed).toBe(4);
});

test('a link is not followed, and a folder is no log', () => {
  writeFileSync(join(dir, 'secret'), line('secret'));
  symlinkSync(join(dir, 'secret'), path());
  expect(read).toThrow(/ELOOP|symbolic link/);
  rmSync(path());
  symlinkSync('/', path());
  expect(read).toThrow();
});
