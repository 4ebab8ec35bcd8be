/** Contestants in turn, their medians and peaks, and a table of ratios. */
import { spawn } from 'node:child_process';
import { closeSync, openSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface Contestant {
  readonly name: string;
  readonly argv: readonly string[];
  /** Before each timed run, outside the time. @returns words to add to argv */
  readonly before?: () => readonly string[];
  /** Take the peak memory, by polling /proc; off where microseconds count. */
  readonly memory?: boolean;
}

export interface Figure {
  readonly name: string;
  readonly median: number;
  readonly best: number;
  /** Bytes, summed over the processes alive at one instant. */
  readonly peak: number;
}

export async function compare(
  contestants: readonly Contestant[],
  rounds: number,
): Promise<readonly Figure[]> {
  const times = contestants.map((): number[] => []);
  const peaks = contestants.map(() => 0);
  for (let round = -1; round < rounds; round++)
    for (const [index, contestant] of contestants.entries()) {
      const { milliseconds, peak } = await timed(contestant);
      if (round < 0) continue; // warms caches
      times[index]?.push(milliseconds);
      peaks[index] = Math.max(peaks[index] ?? 0, peak);
    }
  return contestants.map(({ name }, index) => {
    const sorted = (times[index] ?? []).sort((a, b) => a - b);
    return {
      name,
      median: sorted[Math.floor(sorted.length / 2)] ?? 0,
      best: sorted[0] ?? 0,
      peak: peaks[index] ?? 0,
    };
  });
}

export async function timed({
  name,
  argv,
  before,
  memory,
}: Contestant): Promise<{ milliseconds: number; peak: number }> {
  const [program = '', ...words] = [...argv, ...(before?.() ?? [])];
  const said = openSync(join(tmpdir(), `tspod-bench-${process.pid}.log`), 'w+');
  const begin = process.hrtime.bigint();
  const child = spawn(program, words, { stdio: ['ignore', 'ignore', said] });
  let peak = 0;
  const poll = memory
    ? setInterval(() => (peak = Math.max(peak, memoryBelow(child.pid ?? 0))), 20)
    : undefined;
  const status = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', resolve);
  });
  const milliseconds = Number(process.hrtime.bigint() - begin) / 1e6;
  clearInterval(poll);
  closeSync(said);
  const log = join(tmpdir(), `tspod-bench-${process.pid}.log`);
  const text = readFileSync(log, 'utf8');
  rmSync(log);
  if (status !== 0) throw new Error(`${name} ended with ${status}: ${text}`);
  return { milliseconds, peak };
}

/** Proportional set size in bytes of a process and all that it started. */
export function memoryBelow(pid: number): number {
  let sum = 0;
  try {
    const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
    sum += Number(/^Pss:\s+(\d+)/m.exec(rollup)?.[1] ?? 0) * 1024;
    for (const thread of readdirSync(`/proc/${pid}/task`))
      for (const child of readFileSync(`/proc/${pid}/task/${thread}/children`, 'utf8').split(' '))
        if (child !== '') sum += memoryBelow(Number(child));
  } catch {
    // it has ended
  }
  return sum;
}

export function table(title: string, figures: readonly Figure[], base: string): void {
  const one = figures.find(figure => figure.name === base)?.median ?? 1;
  console.log(`\n${title}\n${'-'.repeat(title.length)}`);
  console.log(
    `${''.padEnd(18)}${'median ms'.padStart(11)}${'best ms'.padStart(11)}${`× ${base}`.padStart(16)}${'peak memory'.padStart(14)}`,
  );
  for (const { name, median, best, peak } of figures)
    console.log(
      `${name.padEnd(18)}${median.toFixed(1).padStart(11)}${best.toFixed(1).padStart(11)}${(median / one).toFixed(2).padStart(16)}${(peak === 0 ? '' : mib(peak)).padStart(14)}`,
    );
  console.log('');
}

export function aim(name: string, base: string, most: number, figures: readonly Figure[]): void {
  const of = (wanted: string) =>
    figures.find(figure => figure.name === wanted)?.median ?? Number.NaN;
  const ratio = of(name) / of(base);
  console.log(
    `  ${name} ÷ ${base}: ${ratio.toFixed(2)} (aim: at most ${most})${ratio <= most ? '' : '  MISSED'}`,
  );
}

export function mib(bytes: number): string {
  return `${(bytes / 1e6).toFixed(0)} MB`;
}
