/** The lines of several apps as one, by time; the order of one app's own lines is never changed. */
import type { LogRecord } from './record.ts';

/** Takes all that the sources have now. */
export function* merge(sources: readonly Iterable<LogRecord>[]): Generator<LogRecord> {
  const heads = sources.flatMap(source => {
    const iterator = source[Symbol.iterator]();
    const first = iterator.next();
    return first.done === true ? [] : [{ iterator, record: first.value }];
  });
  while (heads.length > 0) {
    const earliest = heads.reduce((a, b) => (b.record.time < a.record.time ? b : a));
    yield earliest.record;
    const next = earliest.iterator.next();
    if (next.done === true) heads.splice(heads.indexOf(earliest), 1);
    else earliest.record = next.value;
  }
}

/** The last `count`. */
export function tail(records: Iterable<LogRecord>, count: number): readonly LogRecord[] {
  const ring: LogRecord[] = [];
  let total = 0;
  for (const record of records) {
    if (count > 0) ring[total % count] = record;
    total += 1;
  }
  const from = total % Math.max(count, 1);
  return total <= count ? ring : [...ring.slice(from), ...ring.slice(0, from)];
}
