/**
 * Which stage1 a pod gets: the flavor named on the command line, else the one that a `stage1`
 * configuration names, else `fly`.
 */
import { existsSync } from 'node:fs';
import type { Context } from '../src/context.ts';
import { TspodError } from '../src/errors.ts';
import type { Flavor } from '../stage1-flavors/flavor.ts';
import { flavorByName } from '../stage1-flavors/index.ts';

export const DEFAULT_FLAVOR = 'fly';

export interface Stage1Selection {
  /** `--stage1-name` */
  readonly name?: string;
}

/** @throws TspodError 'unsupported' or 'usage' that names the flavor. */
export async function selectFlavor(
  context: Context,
  selection: Stage1Selection,
  otherwise = DEFAULT_FLAVOR,
): Promise<Flavor> {
  if (selection.name !== undefined) return flavorByName(selection.name);
  const configured = await configuredName(context);
  return flavorByName(configured ?? otherwise);
}

/** The name in a `stage1` configuration file; read only where there is a stage1.d folder. */
async function configuredName(context: Context): Promise<string | undefined> {
  const folders = [context.systemConfig, context.localConfig, context.userConfig];
  if (!folders.some(folder => folder !== '' && existsSync(`${folder}/stage1.d`))) return undefined;
  const { loadConfig } = await import('./config.ts');
  const stage1 = loadConfig(context).stage1;
  if (stage1 === undefined) return undefined;
  if (stage1.name === undefined) {
    throw new TspodError(
      'unsupported',
      `stage1 configuration: location "${stage1.location}" without a name`,
      {
        hint: 'give "name" and "version" of a built-in flavor, e.g. coreos.com/rkt/stage1-fly',
      },
    );
  }
  return stage1.name;
}
