/**
 * Sizes, times and durations as rkt prints them: sizes and ages as the go-humanize of its day (no space
 * before the unit), long times in its layout `2006-01-02 15:04:05.999 -0700 MST`, and Go's durations
 * (time.ParseDuration, Duration.String).
 */
import { TspodError } from './errors.ts';

const SIZE_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];

/** `512B`, `1.5KiB`, `19MiB`. */
export function humanSize(bytes: number): string {
  if (bytes < 10) return `${bytes}B`;
  let unit = 0;
  let scale = 1;
  while (bytes / scale >= 1024 && unit < SIZE_UNITS.length - 1) {
    unit++;
    scale *= 1024;
  }
  const value = Math.floor((bytes / scale) * 10 + 0.5) / 10;
  return `${value < 10 ? value.toFixed(1) : value.toFixed(0)}${SIZE_UNITS[unit]}`;
}

const SECOND = 1;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const WEEK = 7 * DAY;
const MONTH = 30 * DAY;
const YEAR = 12 * MONTH;

/** Up to which difference, what to say of it, and what to divide it by. */
const AGES: readonly (readonly [below: number, text: string, unit: number])[] = [
  [1, 'now', 1],
  [2, '1 second %s', 1],
  [MINUTE, '%d seconds %s', 1],
  [2 * MINUTE, '1 minute %s', 1],
  [HOUR, '%d minutes %s', MINUTE],
  [2 * HOUR, '1 hour %s', 1],
  [DAY, '%d hours %s', HOUR],
  [2 * DAY, '1 day %s', 1],
  [WEEK, '%d days %s', DAY],
  [2 * WEEK, '1 week %s', 1],
  [MONTH, '%d weeks %s', WEEK],
  [2 * MONTH, '1 month %s', 1],
  [YEAR, '%d months %s', MONTH],
  [18 * MONTH, '1 year %s', 1],
  [2 * YEAR, '2 years %s', 1],
  [37 * YEAR, '%d years %s', YEAR],
  [Number.POSITIVE_INFINITY, 'a long while %s', 1],
];

/** `now`, `2 minutes ago`, `3 hours from now`. Both in ms since the epoch. */
export function humanTime(time: number, now: number = Date.now()): string {
  const seconds = Math.floor(now / 1000) - Math.floor(time / 1000);
  const difference = Math.abs(seconds);
  const age = AGES.find(([below]) => difference < below);
  if (age === undefined) return 'a long while ago';
  return age[1]
    .replace('%d', String(Math.floor(difference / age[2])))
    .replace('%s', seconds < 0 ? 'from now' : 'ago');
}

/** `2006-01-02 15:04:05.999 -0700 MST` in the local time zone; zeros at the end of the fraction fall away. */
export function longTime(time: number): string {
  const date = new Date(time);
  const two = (value: number) => String(value).padStart(2, '0');
  const day = `${String(date.getFullYear()).padStart(4, '0')}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  const clock = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  const fraction = String(date.getMilliseconds()).padStart(3, '0').replace(/0+$/, '');
  const offset = zoneOffset(date);
  return `${day} ${clock}${fraction && `.${fraction}`} ${offset} ${zoneName(date, offset)}`;
}

function zoneOffset(date: Date): string {
  const minutes = -date.getTimezoneOffset();
  const two = (value: number) => String(Math.floor(value)).padStart(2, '0');
  return `${minutes < 0 ? '-' : '+'}${two(Math.abs(minutes) / 60)}${two(Math.abs(minutes) % 60)}`;
}

/** The zone's abbreviation; each locale of English knows those of its own part of the world. */
function zoneName(date: Date, offset: string): string {
  for (const locale of ['en-US', 'en-GB', 'en-AU', 'en-IN', 'en-ZA', 'en-CA']) {
    const name = new Intl.DateTimeFormat(locale, { timeZoneName: 'short' })
      .formatToParts(date)
      .find(part => part.type === 'timeZoneName')?.value;
    if (name !== undefined && /^[A-Z]{2,5}$/.test(name)) return name;
  }
  // Go prints the offset where a zone has no name.
  return offset;
}

const UNITS_NS: ReadonlyMap<string, number> = new Map([
  ['ns', 1],
  ['us', 1e3],
  ['µs', 1e3],
  ['μs', 1e3],
  ['ms', 1e6],
  ['s', 1e9],
  ['m', 60e9],
  ['h', 3600e9],
]);

/**
 * Go's time.ParseDuration: `24h0m0s`, `1.5h`, `300ms`, `-2m`, `0`.
 * @param what names the option in the error
 * @returns milliseconds, with a fraction for units below
 */
export function parseDuration(text: string, what: string): number {
  const wrong = () =>
    new TspodError('usage', `${what}: "${text.slice(0, 100)}" is not a duration`, {
      hint: 'write it like 24h, 1h30m or 90s',
    });
  const match = /^([+-]?)(.*)$/su.exec(text);
  const sign = match?.[1] === '-' ? -1 : 1;
  const body = match?.[2] ?? '';
  if (body === '0') return 0;
  let total = 0;
  let rest = body;
  do {
    const part = /^(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)/u.exec(rest);
    const unit = UNITS_NS.get(part?.[2] ?? '');
    if (part === null || unit === undefined) throw wrong();
    total += Number(part[1]) * unit;
    rest = rest.slice(part[0].length);
  } while (rest !== '');
  // Go keeps nanoseconds in 63 bits.
  if (total > 2 ** 63) throw wrong();
  return (sign * total) / 1e6;
}

/** Go's Duration.String: `24h0m0s`, `1m30s`, `1.5s`, `300ms`, `0s`. */
export function formatDuration(ms: number): string {
  const ns = Math.round(Math.abs(ms) * 1e6);
  const sign = ms < 0 && ns > 0 ? '-' : '';
  if (ns === 0) return '0s';
  if (ns < 1e3) return `${sign}${ns}ns`;
  if (ns < 1e6) return `${sign}${decimal(ns, 3)}µs`;
  if (ns < 1e9) return `${sign}${decimal(ns, 6)}ms`;
  const seconds = Math.floor(ns / 1e9);
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor((seconds % 3600) / 60);
  const last = `${decimal((seconds % 60) * 1e9 + (ns % 1e9), 9)}s`;
  if (hours > 0) return `${sign}${hours}h${minutes}m${last}`;
  return minutes > 0 ? `${sign}${minutes}m${last}` : `${sign}${last}`;
}

/** An integer of 10^-digits, without zeros at the end. */
function decimal(value: number, digits: number): string {
  const whole = Math.floor(value / 10 ** digits);
  const fraction = String(value % 10 ** digits)
    .padStart(digits, '0')
    .replace(/0+$/, '');
  return fraction === '' ? String(whole) : `${whole}.${fraction}`;
}
