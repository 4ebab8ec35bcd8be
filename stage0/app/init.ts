/** What a running pod's init says about its apps. */
import { TspodError } from '../../src/errors.ts';
import { ask } from '../../stage1-flavors/nspawn/control.ts';

const WORDS = 6;

/** By app: `created running stopping exited waiting`. */
export async function appStates(podDir: string): Promise<ReadonlyMap<string, string>> {
  const words = await ask(podDir, ['status']);
  const states = new Map<string, string>();
  for (let at = 0; at < words.length; at += WORDS) {
    const [name, state] = words.slice(at, at + WORDS);
    if (name === undefined || state === undefined || at + WORDS > words.length)
      throw new TspodError('protocol', "status: the pod's init gave no answer that makes sense");
    states.set(name, state);
  }
  return states;
}
