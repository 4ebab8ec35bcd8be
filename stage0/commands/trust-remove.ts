/** `tspod trust remove`: takes away a rule, or the trust in an OpenPGP key. */
import { loadConfig } from '../../src/config/config.ts';
import { normalPrefix } from '../../src/config/trust.ts';
import { ownTrustFolder, removeTrustFile, trustFile } from '../../src/config/trust-files.ts';
import { type Context, warn } from '../../src/context.ts';
import { TspodError } from '../../src/errors.ts';
import { removeTrustedKey } from '../verify/openpgp/keystore.ts';

export interface TrustRemoveArgs {
  /** Fingerprints; none: the prefix's rule. */
  readonly positionals: readonly string[];
  readonly flags: { readonly prefix: string | undefined; readonly root: boolean };
}

export async function run(
  context: Context,
  { positionals, flags }: TrustRemoveArgs,
): Promise<number> {
  const { prefix, root } = flags;
  if (root === (prefix !== undefined)) {
    throw new TspodError('usage', 'trust remove: give --prefix, or --root with a fingerprint');
  }
  if (positionals.length === 0) {
    if (prefix === undefined) {
      throw new TspodError('usage', 'trust remove: --root needs the fingerprint of a key');
    }
    removeRule(context, normalPrefix(prefix));
    return 0;
  }
  for (const fingerprint of positionals) {
    const { removed, masked } = removeTrustedKey(context, fingerprint, prefix ?? '');
    if (removed !== undefined) warn(context, `Removed the key at ${JSON.stringify(removed)}`);
    if (masked !== undefined) {
      warn(context, `Masked the key by the empty file ${JSON.stringify(masked)}`);
    }
  }
  return 0;
}

function removeRule(context: Context, prefix: string): void {
  const rule = loadConfig(context).trust.get(prefix);
  const shown = JSON.stringify(prefix);
  if (rule === undefined) {
    throw new TspodError('not-found', `trust remove: there is no rule for ${shown}`, {
      hint: '"trust list" shows the rules; for a key give its fingerprint, too',
    });
  }
  if (rule.file !== trustFile(context, prefix)) {
    const elsewhere = !rule.file.startsWith(`${ownTrustFolder(context)}/`);
    throw new TspodError('exists', `trust remove: the rule for ${shown} is in ${rule.file}`, {
      hint: elsewhere
        ? 'edit that file, or replace the rule by one of your own with "trust --prefix"'
        : 'edit that file',
    });
  }
  removeTrustFile(rule.file);
  warn(context, `Removed the trust rule for ${shown} at ${JSON.stringify(rule.file)}`);
  const left = loadConfig(context).trust.get(prefix);
  if (left !== undefined) warn(context, `The rule for ${shown} in ${left.file} holds again`);
}
