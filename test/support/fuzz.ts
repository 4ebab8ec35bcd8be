/**
 * How long the fuzz targets run: `TSPOD_FUZZ` multiplies the cases of each, and the time that it may take
 * (docs/testing.md; `npm run fuzz`). fast-check prints seed and path of a failure, which repeat it.
 */
const MOST = 100_000;

/** Times the usual number of cases. */
export const FUZZ_FACTOR = readFactor(process.env['TSPOD_FUZZ']);

/** @param usual in a run of the tests */
export function cases(usual: number): number {
  return Math.max(1, Math.round(usual * FUZZ_FACTOR));
}

/** @param usual ms */
export function fuzzTimeout(usual: number): number {
  return Math.max(usual, Math.round(usual * FUZZ_FACTOR));
}

function readFactor(text: string | undefined): number {
  if (text === undefined || text === '') return 1;
  const factor = Number(text);
  if (factor > 0 && factor <= MOST) return factor;
  throw new Error(`TSPOD_FUZZ=${text}: it is not a number over 0, up to ${MOST}`);
}
