/** `npm run fuzz`: the files that have fuzz targets, for longer than in a run of the tests (docs/testing.md). */
import { defineConfig } from 'vitest/config';
import { fuzzTimeout } from './test/support/fuzz.ts';
import { FUZZ_TARGETS } from './test/support/fuzz-targets.ts';

export default defineConfig({
  test: {
    include: FUZZ_TARGETS.map(({ file }) => file),
    globalSetup: ['test/support/global-setup.ts'],
    testTimeout: fuzzTimeout(60_000),
    hookTimeout: 120_000,
    pool: 'forks',
  },
});
