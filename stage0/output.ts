/** JSON as rkt prints it: `--format=json` on one line, `--format=json-pretty` indented by tabs. */
import { TspodError } from '../src/errors.ts';

/** @throws TspodError 'usage' for any other format; call it before the work is done */
export function checkFormat(format: string | undefined): void {
  if (format === undefined || format === 'json' || format === 'json-pretty') return;
  throw new TspodError('usage', `--format: ${JSON.stringify(format.slice(0, 50))} is unknown`, {
    hint: 'give json or json-pretty',
  });
}

export function printJson(value: unknown, format: string): void {
  checkFormat(format);
  process.stdout.write(
    `${JSON.stringify(value, undefined, format === 'json' ? undefined : '\t')}\n`,
  );
}
