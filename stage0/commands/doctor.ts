/** `tspod doctor`: what works on this machine, and why the rest does not. */
import type { Context } from '../../src/context.ts';
import { renderTable } from '../../src/table.ts';
import { examine } from '../doctor/checks.ts';
import { examineFlavors } from '../doctor/flavors.ts';
import { printJson } from '../output.ts';

/** @returns 1 when something fails without which no pod can run */
export async function run(
  context: Context,
  { format }: { readonly format: string | undefined },
): Promise<number> {
  const checks = [...examine(context.dir), ...(await examineFlavors(context))];
  if (format === undefined) {
    process.stdout.write(
      renderTable([
        ['CHECK', 'STATE', 'DETAIL'],
        ...checks.map(({ name, state, detail, hint }) => [
          name,
          state,
          hint === undefined ? detail : `${detail}; ${hint}`,
        ]),
      ]),
    );
  } else printJson(checks, format);
  return checks.some(({ state }) => state === 'fail') ? 1 : 0;
}
