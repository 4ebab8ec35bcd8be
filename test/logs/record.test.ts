/** The forms in which lines come: from files and from the journal. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { journalWords, parseEntry } from '../../stage0/logs/journal.ts';
import { merge, tail } from '../../stage0/logs/merge.ts';
import { Joiner, type LogRecord, parseRecord } from '../../stage0/logs/record.ts';
import { cases } from '../support/fuzz.ts';

const TIME = '2026-01-02T03:04:05.123456789Z';

function record(text: string, more: Partial<LogRecord> = {}): LogRecord {
  return { time: TIME, app: 'a', stream: 'stdout', text: Buffer.from(text), whole: true, ...more };
}

describe('a line of a file', () => {
  test.each([
    [`${TIME} stdout F hello`, record('hello')],
    [`${TIME} stderr P `, record('', { stream: 'stderr', whole: false })],
    [`${TIME} stdout F  two spaces `, record(' two spaces ')],
  ])('%s', (line, wanted) => {
    expect(parseRecord(Buffer.from(line), 'a')).toEqual(wanted);
  });

  test.each([
    '',
    'hello',
    TIME,
    `${TIME} stdout F`,
    `${TIME} stdin F x`,
    `${TIME} stdout Q x`,
    `${TIME}  stdout F x`,
    `2026-01-02T03:04:05Z stdout F x`,
    `2026-01-02T03:04:05.123456789+ stdout F x`,
    `\u0000${TIME} stdout F x`,
  ])('malformed: %j', line => {
    expect(parseRecord(Buffer.from(line), 'a')).toBeUndefined();
  });

  test('any text comes through, any bytes are told apart or refused', () => {
    fc.assert(
      fc.property(fc.uint8Array(), fc.boolean(), (bytes, whole) => {
        const line = Buffer.concat([Buffer.from(`${TIME} stderr ${whole ? 'F' : 'P'} `), bytes]);
        const found = parseRecord(line, 'a');
        expect(found?.text.equals(bytes)).toBe(true);
        expect(found?.whole).toBe(whole);
        parseRecord(Buffer.from(bytes), 'a');
      }),
      { numRuns: cases(100) },
    );
  });
});

describe('parts of lines', () => {
  const part = (text: string, more: Partial<LogRecord> = {}) =>
    record(text, { whole: false, ...more });

  test('are put together by stream', () => {
    const joiner = new Joiner();
    expect(joiner.add(part('a'))).toBeUndefined();
    expect(joiner.add(record('x', { stream: 'stderr' }))).toEqual(
      record('x', { stream: 'stderr' }),
    );
    expect(joiner.add(part('b', { time: '2027' }))).toBeUndefined();
    expect(joiner.add(record('c'))).toEqual(record('abc'));
    expect(joiner.rest()).toEqual([]);
  });

  test('a line without end is handed on in pieces of a bounded size', () => {
    const joiner = new Joiner();
    const text = 'x'.repeat(16_384);
    const found = Array.from({ length: 200 }, () => joiner.add(part(text))).filter(Boolean);
    expect(found).toHaveLength(3);
    expect(found[0]).toMatchObject({ whole: false });
    expect(joiner.rest()[0]?.text.length).toBe(200 * 16_384 - 3 * 1024 * 1024);
  });
});

describe('an entry of the journal', () => {
  const entry = (more: object) =>
    JSON.stringify({
      __REALTIME_TIMESTAMP: '1767323045123456',
      TSPOD_APP: 'a',
      TSPOD_STREAM: 'stdout',
      MESSAGE: 'hi',
      ...more,
    });

  test('text, bytes, parts, and what is none of ours', () => {
    const time = '2026-01-02T03:04:05.123456000Z';
    expect(parseEntry(entry({}))).toEqual(record('hi', { time }));
    expect(parseEntry(entry({ MESSAGE: [255, 0, 65] }))?.text).toEqual(Buffer.from([255, 0, 65]));
    expect(parseEntry(entry({ TSPOD_PARTIAL: 'true' }))?.whole).toBe(false);
    expect(parseEntry(entry({ TSPOD_STREAM: ['stderr', 'x'] }))?.stream).toBe('stderr');
    expect(parseEntry(entry({ MESSAGE: null }))).toBeUndefined();
    expect(parseEntry(entry({ TSPOD_APP: 7 }))).toBeUndefined();
    expect(parseEntry(entry({ __REALTIME_TIMESTAMP: 'soon' }))).toBeUndefined();
  });

  test('any JSON and any text is an entry or none', () => {
    fc.assert(
      fc.property(fc.json(), text => void parseEntry(text)),
      { numRuns: cases(100) },
    );
    fc.assert(
      fc.property(fc.string(), text => void parseEntry(text)),
      { numRuns: cases(100) },
    );
    const values = fc.record({
      __REALTIME_TIMESTAMP: fc.oneof(fc.string(), fc.nat().map(String)),
      TSPOD_APP: fc.jsonValue(),
      MESSAGE: fc.jsonValue(),
    });
    fc.assert(
      fc.property(values, value => void parseEntry(JSON.stringify(value))),
      { numRuns: cases(100) },
    );
  });

  test('journalctl is asked for this pod, from the second on', () => {
    const query = {
      uuid: 'u',
      app: 'a',
      follow: true,
      tail: 5,
      ended: new AbortController().signal,
    };
    expect(journalWords({ ...query, since: '2026-01-02T03:04:05.123' })).toEqual(
      expect.arrayContaining([
        'TSPOD_POD=u',
        '_UID=0',
        'TSPOD_APP=a',
        '--since=@1767323045',
        '--follow',
        '--lines=5',
      ]),
    );
  });
});

test('apps are merged by time, each in its own order', () => {
  const at = (app: string, time: string) => record(time, { app, time });
  const merged = merge([
    [at('a', '1'), at('a', '4'), at('a', '2')],
    [at('b', '2'), at('b', '3')],
    [],
  ]);
  expect([...merged].map(({ app, time }) => app + time)).toEqual(['a1', 'b2', 'b3', 'a4', 'a2']);
});

test('the last lines', () => {
  fc.assert(
    fc.property(fc.nat(20), fc.nat(25), (length, count) => {
      const all = Array.from({ length }, (_, index) => record(String(index)));
      expect(tail(all, count)).toEqual(count === 0 ? [] : all.slice(-count));
    }),
    { numRuns: cases(100) },
  );
});
