/** `tspod prepare`: everything that `run` does up to the start; prints the UUID. */
import type { Context } from '../../src/context.ts';
import type { PodArgs } from '../args/types.ts';
import { withPlannedPod, writePreparedPod } from '../prepare.ts';

export async function run(context: Context, args: PodArgs): Promise<number> {
  const handle = await withPlannedPod(context, args, undefined, (planned, store) => {
    // The pod may be started after a power failure.
    store.settle();
    return writePreparedPod(context, store, planned, {
      uuidFile: args.uuidFileSave,
    });
  });
  handle.moveToPrepared();
  handle.close();
  process.stdout.write(`${handle.uuid}\n`);
  return 0;
}
