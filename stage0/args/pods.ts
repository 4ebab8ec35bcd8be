/** The pods that a command is given: words of the command line, or `--uuid-file`. */
import { readFileSync } from 'node:fs';
import type { Context } from '../../src/context.ts';
import { EXIT_FAILURE, reasonOf, TspodError } from '../../src/errors.ts';
import type { FlagValues } from './flags.ts';

/** @param unreadable exit status for a --uuid-file that can't be read; rkt has 1 for some commands */
export function onePod(
  context: Context,
  words: readonly string[],
  flags: FlagValues,
  unreadable = EXIT_FAILURE,
): string {
  const [pod, ...more] = somePods(context, words, flags, unreadable);
  if (pod === undefined || more.length > 0) {
    throw new TspodError('usage', `${context.command}: takes exactly one pod`, {
      hint: `see '${context.program} help ${context.command}'`,
    });
  }
  return pod;
}

/** At least one. */
export function somePods(
  context: Context,
  words: readonly string[],
  flags: FlagValues,
  unreadable = EXIT_FAILURE,
): readonly string[] {
  const file = flags.text('uuid-file');
  const pods = file === undefined ? words : [...words, readUuidFile(file, unreadable)];
  if (pods.length === 0) {
    throw new TspodError('usage', `${context.command}: must provide at least one pod`, {
      hint: 'give a UUID, the beginning of one, a pod name, or --uuid-file',
    });
  }
  return pods;
}

/** For `enter`: the first word is the pod unless --uuid-file names it. */
export function podAndCommand(
  context: Context,
  words: readonly string[],
  flags: FlagValues,
): { readonly pod: string; readonly command: readonly string[] } {
  const file = flags.text('uuid-file');
  if (file !== undefined) return { pod: readUuidFile(file, EXIT_FAILURE), command: words };
  const [pod, ...command] = words;
  if (pod === undefined) {
    throw new TspodError('usage', `${context.command}: must provide the pod`, {
      hint: 'give a UUID, the beginning of one, a pod name, or --uuid-file',
    });
  }
  return { pod, command };
}

function readUuidFile(file: string, exitStatus: number): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch (error) {
    throw new TspodError('system', `unable to read UUID from ${file}: ${reasonOf(error)}`, {
      exitStatus,
      cause: error,
    });
  }
}
