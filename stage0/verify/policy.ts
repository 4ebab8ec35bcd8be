/**
 * Whether an image may run, decided from its manifest or archive before any layer is unpacked. Digests are
 * always checked; what decides here is who vouches for the image (docs/trust.md):
 *
 *   1. `--insecure-options=image`: the user's word.
 *   2. The trust rule for the image's name (`trust.d`).
 *   3. Where no rule fits: an OpenPGP signature by a key that the key stores trust for the name, as with rkt.
 *   4. Else it is refused.
 *
 * The verdict is kept with the image. What was admitted once runs again from the store, as with rkt, unless a
 * rule fits its name: then the recorded signers have to satisfy the rule as it is now. So who has no rules pays
 * a look at the three folders, and who writes a rule has it obeyed for images that came before it, too.
 *
 * Every run passes here, so what verifies is loaded when it is needed (admission.ts).
 */
import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Context } from '../../src/context.ts';
import { errnoOf, systemError } from '../../src/errors.ts';
import { parseReference } from '../../src/image/reference.ts';
import type { ImageRecord, Verdict } from '../../src/store/types.ts';
import type { FoundSignature, SignatureKind, Subject } from './types.ts';

/** As what rules and keys know an archive that came by standard input. */
const STDIN_NAME = '/dev/stdin';
export const INSECURE = '--insecure-options=image';

export interface Admission {
  /** What may have been signed, each by itself enough: an index and the manifest it leads to, or an archive. */
  readonly subjects: readonly Subject[];
  /**
   * Signatures over a subject, unbelieved; asked for one by one, only as long as they are needed. Yields none
   * where the source has none; throws what keeps it from knowing.
   */
  signatures(subject: Subject, kinds: ReadonlySet<SignatureKind>): AsyncIterable<FoundSignature>;
  /** Of the same content (the same manifest, the same archive) in the store. */
  readonly former?: Verdict | undefined;
  /** `--signature` named an OpenPGP signature: it is verified, whatever else would admit the image. */
  readonly named?: boolean;
}

/**
 * @returns `former` itself where it still counts
 * @throws TspodError 'trust' that says why not and what would admit it; whatever the source throws
 */
export async function admit(context: Context, admission: Admission): Promise<Verdict> {
  const { former, subjects, named = false } = admission;
  const names = subjects.map(({ name }) => name);
  if (former !== undefined && !named) {
    if ((await whyRefused(context, former, names)) === undefined) return former;
  }
  if (context.insecure.has('image')) {
    const signers = former?.signers ?? [];
    return { admitted: true, by: INSECURE, ...(signers.length === 0 ? {} : { signers }) };
  }
  const { decide } = await import('./admission.ts');
  return decide(context, admission);
}

/**
 * Why an image of the store may not run under any of these names now, as a clause; undefined: it may. An image
 * without a name (it came by standard input, or its name moved on) is looked at under those that it was signed for,
 * else as one that only the rule for all names fits.
 */
export async function whyRefused(
  context: Context,
  verdict: Verdict,
  names: readonly string[],
): Promise<string | undefined> {
  if (!verdict.admitted) return 'it was never admitted';
  if (!hasRules(context)) return undefined;
  const { whyRulesRefuse } = await import('./admission.ts');
  return whyRulesRefuse(context, verdict, names);
}

/**
 * Refuses an image of the store that the present rules don't admit.
 * @param shown as the user knows it
 * @param names of the store, of which one has to be admitted: the one that was asked for, or all of them where
 *   it was asked for by its id, which is its content
 * @throws TspodError 'trust'
 */
export async function admitStored(
  context: Context,
  { verdict }: Pick<ImageRecord, 'verdict'>,
  shown: string,
  names: readonly string[],
): Promise<void> {
  if (verdict.admitted && (context.insecure.has('image') || !hasRules(context))) return;
  const why = await whyRefused(context, verdict, subjectNames({ names }));
  if (why === undefined) return;
  const { storedRefusal } = await import('./admission.ts');
  throw storedRefusal(shown, why);
}

/** Whether somebody has written rules: three looks at the file system. */
function hasRules({ systemConfig, localConfig, userConfig }: Context): boolean {
  return [systemConfig, localConfig, userConfig].some(
    folder => folder !== '' && isThere(`${folder}/trust.d`),
  );
}

/** A folder that can't be looked into may hold rules. */
function isThere(path: string): boolean {
  try {
    return statSync(path, { throwIfNoEntry: false }) !== undefined;
  } catch (error) {
    if (errnoOf(error) === 'ENOTDIR') return false;
    throw systemError(`can't look for trust rules in ${path}`, error);
  }
}

/** The names of an image as rules know them, each once. */
export function subjectNames({ names }: Pick<ImageRecord, 'names'>): readonly string[] {
  return [...new Set(names.flatMap(name => subjectName(name) ?? []))];
}

/**
 * A name that the store has, without scheme, tag and labels: a registry's repository, the path of a layout or an
 * archive, the name of an ACI. Undefined for a URL: its ACI has a name of its own.
 */
export function subjectName(name: string): string | undefined {
  const reference = parseReference(name);
  switch (reference.kind) {
    case 'registry':
      return `${reference.registry}/${reference.repository}`;
    case 'oci':
    case 'oci-archive':
    case 'docker-archive':
    case 'path':
      // What comes by standard input is not of the folder that it happens to be read in.
      return reference.path === '-' ? STDIN_NAME : resolve(reference.path);
    case 'name':
      return reference.name.replace(/[:,].*$/s, '');
    default:
      return undefined;
  }
}
