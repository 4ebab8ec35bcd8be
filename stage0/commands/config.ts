/** `tspod config`: the merged configuration as JSON. */
import { loadConfig } from '../../src/config/config.ts';
import { configToJson } from '../../src/config/show.ts';
import type { Context } from '../../src/context.ts';

export interface ConfigArgs {
  readonly flags: { readonly prettyPrint: boolean };
}

export async function run(context: Context, { flags }: ConfigArgs): Promise<number> {
  const json = configToJson(loadConfig(context));
  process.stdout.write(
    `${JSON.stringify(json, undefined, flags.prettyPrint ? '\t' : undefined)}\n`,
  );
  return 0;
}
