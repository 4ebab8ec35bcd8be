/** `tspod rm POD...`: removes pods that do not run; prints each UUID in quotes, as rkt. */
import { type Context, warn } from '../../src/context.ts';
import { reasonOf, TspodError } from '../../src/errors.ts';
import { findPod, lockPod } from '../../src/pod/lifecycle.ts';
import { requireRoot } from '../../src/sys/privilege.ts';
import { removeLockedPod } from '../remove-pod.ts';

export async function run(
  context: Context,
  { pods }: { readonly pods: readonly string[] },
): Promise<number> {
  requireRoot(context.command);
  let failed = 0;
  for (const text of pods) {
    try {
      process.stdout.write(`${JSON.stringify(removePod(context.dir, text))}\n`);
    } catch (error) {
      if (!(error instanceof TspodError)) throw error;
      warn(context, `rm: ${reasonOf(error)}`);
      failed++;
    }
  }
  if (failed > 0) throw new TspodError('state', 'rm: failed to remove one or more pods');
  return 0;
}

/** Removes a pod that does not run. @returns its UUID */
export function removePod(dataDir: string, text: string): string {
  const { uuid } = findPod(dataDir, text);
  const pod = lockPod(dataDir, uuid);
  if (pod !== undefined) {
    removeLockedPod(pod);
    return uuid;
  }
  const { state } = findPod(dataDir, uuid);
  throw new TspodError('state', `pod ${JSON.stringify(uuid)} is ${state}`, {
    hint:
      state === 'running'
        ? `stop it first, with "stop ${uuid.slice(0, 8)}"`
        : 'try again when that has ended',
  });
}
