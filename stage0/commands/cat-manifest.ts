/** `tspod cat-manifest POD`: the appc pod manifest as it is in the pod's folder. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Context } from '../../src/context.ts';
import { errnoOf, systemError, TspodError } from '../../src/errors.ts';
import { findPod } from '../../src/pod/lifecycle.ts';

export async function run(
  context: Context,
  { pod, prettyPrint }: { readonly pod: string; readonly prettyPrint: boolean },
): Promise<number> {
  const { dir, uuid } = findPod(context.dir, pod);
  const text = read(join(dir, 'pod'), uuid);
  process.stdout.write(
    prettyPrint ? `${JSON.stringify(parse(text, uuid), undefined, '\t')}\n` : `${text}\n`,
  );
  return 0;
}

function parse(text: string, uuid: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new TspodError('pod', `pod ${uuid}: its manifest is damaged`, {
      hint: 'see it as it is with --pretty-print=false',
      cause: error,
    });
  }
}

function read(path: string, uuid: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT')
      throw systemError(`pod ${uuid}: can't read its manifest`, error);
    throw new TspodError('state', `pod ${uuid}: it has no manifest yet`, {
      hint: 'it is being prepared, or its preparation failed',
    });
  }
}
