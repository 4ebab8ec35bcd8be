/** The documents name tests: each must exist, so that a promise can't outlive the test that held it. */
import { globSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { FUZZ_TARGETS } from './support/fuzz-targets.ts';

const read = (path: string) =>
  readFileSync(fileURLToPath(new URL(`../${path}`, import.meta.url)), 'utf8');

describe.each(['docs/promises.md', 'docs/security.md'])('%s', document => {
  const named = [...read(document).matchAll(/`(test\/[^ `]+\.ts) › ([^`]+)`/g)];

  test('names tests', () => {
    expect(named.length).toBeGreaterThan(10);
  });

  test.each(named.map(match => [match[1] ?? '', match[2] ?? '']))('%s › %s', (file, name) => {
    expect(read(file).replaceAll('\\', '')).toContain(name.replaceAll('\\', ''));
  });
});

test('the README’s test command is what .ci/run calls', () => {
  expect(read('README.md')).toContain('\nscripts/check\n');
  expect(read('.ci/run')).toContain('scripts/check');
});

test('npm run fuzz has every file with a fuzz target, and each of these can run for longer', () => {
  const root = fileURLToPath(new URL('..', import.meta.url));
  const having = globSync('test/**/*.test.ts', { cwd: root }).filter(file =>
    /^import .* from 'fast-check';$/m.test(read(file)),
  );
  expect(FUZZ_TARGETS.map(({ file }) => file).sort()).toEqual(having.sort());
  for (const file of having) {
    expect(read(file).match(/numRuns: [0-9]/g), file).toBeNull();
    expect(read(file), file).toMatch(/support\/fuzz\.ts'/);
  }
});
