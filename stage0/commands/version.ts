/** `tspod version`. rkt's lines, with Node in the place of Go. */
import type { Context } from '../../src/context.ts';
import { APPC_VERSION } from '../../src/image/appc.ts';
import { printJson } from '../output.ts';

declare const __TSPOD_VERSION__: string;

export async function run(
  context: Context,
  { format }: { readonly format: string | undefined },
): Promise<number> {
  const version = typeof __TSPOD_VERSION__ === 'string' ? __TSPOD_VERSION__ : 'source';
  const platform = `${process.platform}/${process.arch}`;
  if (format !== undefined) {
    printJson(
      { version, appcVersion: APPC_VERSION, nodeVersion: process.versions.node, platform },
      format,
    );
    return 0;
  }
  process.stdout.write(
    `${context.program} Version: ${version}\nappc Version: ${APPC_VERSION}\nNode Version: ${process.versions.node}\nNode OS/Arch: ${platform}\n`,
  );
  return 0;
}
