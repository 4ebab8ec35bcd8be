import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { formatDuration, humanSize, humanTime, longTime, parseDuration } from '../src/humanize.ts';
import { cases } from './support/fuzz.ts';

test.each([
  [0, '0B'],
  [9, '9B'],
  [10, '10B'],
  [1023, '1023B'],
  [1024, '1.0KiB'],
  [1536, '1.5KiB'],
  [10 * 1024, '10KiB'],
  [19_922_944, '19MiB'],
  [2 ** 30, '1.0GiB'],
  [5 * 2 ** 60, '5.0EiB'],
])('size %d is %s', (bytes, text) => {
  expect(humanSize(bytes)).toBe(text);
});

const NOW = 1_700_000_000_000;

test.each([
  [0, 'now'],
  [1, '1 second ago'],
  [59, '59 seconds ago'],
  [60, '1 minute ago'],
  [120, '2 minutes ago'],
  [3600, '1 hour ago'],
  [7200, '2 hours ago'],
  [86_400, '1 day ago'],
  [3 * 86_400, '3 days ago'],
  [7 * 86_400, '1 week ago'],
  [60 * 86_400, '2 months ago'],
  [360 * 86_400, '1 year ago'],
  [3 * 360 * 86_400, '3 years ago'],
  [40 * 360 * 86_400, 'a long while ago'],
  [-120, '2 minutes from now'],
])('%d s ago is %s', (seconds, text) => {
  expect(humanTime(NOW - seconds * 1000, NOW)).toBe(text);
});

describe('long times', () => {
  test.each([
    ['UTC', '2017-02-03 14:05:06.18 +0000 UTC'],
    ['Europe/Berlin', '2017-02-03 15:05:06.18 +0100 CET'],
    ['America/New_York', '2017-02-03 09:05:06.18 -0500 EST'],
    ['America/St_Johns', '2017-02-03 10:35:06.18 -0330 '],
  ])('in %s', (zone, text) => {
    const before = process.env.TZ;
    process.env.TZ = zone;
    try {
      expect(longTime(Date.UTC(2017, 1, 3, 14, 5, 6, 180))).toContain(text);
    } finally {
      if (before === undefined) delete process.env.TZ;
      else process.env.TZ = before;
    }
  });

  test('a whole second has no fraction', () => {
    expect(longTime(Date.UTC(2017, 1, 3, 14, 5, 6))).toMatch(/^2017-02-03 \d\d:\d\d:06 [+-]/);
  });
});

describe('durations', () => {
  test.each([
    ['24h0m0s', 86_400_000],
    ['30m0s', 1_800_000],
    ['1.5h', 5_400_000],
    ['.5s', 500],
    ['0', 0],
    ['-2m', -120_000],
    ['+1s', 1000],
    ['100ms', 100],
    ['1h1m1s1ms', 3_661_001],
    ['10us', 0.01],
    ['10µs', 0.01],
  ])('%s', (text, ms) => {
    expect(parseDuration(text, 'x')).toBeCloseTo(ms, 9);
  });

  test.each([
    '',
    '1',
    'h',
    '1x',
    '1h 2m',
    '--1h',
    '1h-2m',
    '1..5s',
    'NaN',
    '1e3s',
    '-',
    '.s',
    `${'9'.repeat(40)}h`,
  ])('%s is refused', text => {
    expect(() => parseDuration(text, '--grace-period')).toThrow(
      /--grace-period: .* not a duration/,
    );
  });

  test.each([
    [0, '0s'],
    [86_400_000, '24h0m0s'],
    [1_800_000, '30m0s'],
    [90_500, '1m30.5s'],
    [1500, '1.5s'],
    [300, '300ms'],
    [0.0015, '1.5µs'],
    [-60_000, '-1m0s'],
  ])('%d ms is %s', (ms, text) => {
    expect(formatDuration(ms)).toBe(text);
  });

  test('what is printed is read back', () => {
    fc.assert(
      fc.property(fc.integer({ min: -1e12, max: 1e12 }), ms => {
        expect(parseDuration(formatDuration(ms), 'x')).toBeCloseTo(ms, 3);
      }),
      { numRuns: cases(100) },
    );
  });
});
