/**
 * `tspod trust`: whose signatures admit an image. Without flags of its own it is rkt's: OpenPGP keys into the key
 * stores. With --cosign-key, --identity, --openpgp or --allow-unsigned it writes a rule (trust.d) for a prefix.
 */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { loadConfig } from '../../src/config/config.ts';
import {
  ALL_NAMES,
  normalPrefix,
  type Pattern,
  prefixFault,
  type TrustedIdentity,
  type TrustRule,
} from '../../src/config/trust.ts';
import { trustFile, writeTrustRule } from '../../src/config/trust-files.ts';
import { type Context, warn } from '../../src/context.ts';
import { reasonOf, TspodError } from '../../src/errors.ts';
import { readPem } from '../verify/demands.ts';
import { trustOpenPgpKeys } from '../verify/openpgp/trust-keys.ts';
import { parseCosignPublicKey } from '../verify/sigstore/cosign-key.ts';

export interface TrustArgs {
  /** OpenPGP keys: files or URLs. */
  readonly positionals: readonly string[];
  readonly flags: {
    readonly prefix: string | undefined;
    readonly root: boolean;
    readonly skipFingerprintReview: boolean;
    readonly insecureAllowHttp: boolean;
    readonly cosignKeys: readonly string[];
    readonly identity: string | undefined;
    readonly identityRegexp: string | undefined;
    readonly issuer: string | undefined;
    readonly issuerRegexp: string | undefined;
    readonly trustedRoot: string | undefined;
    readonly openpgp: boolean;
    readonly allowUnsigned: boolean;
    readonly require: string | undefined;
  };
}

type Flags = TrustArgs['flags'];

export async function run(context: Context, { positionals, flags }: TrustArgs): Promise<number> {
  if (asksForRule(flags)) {
    await addRule(context, positionals, flags);
    return 0;
  }
  await trustOpenPgpKeys(context, {
    prefix: flags.prefix ?? '',
    root: flags.root,
    skipFingerprintReview: flags.skipFingerprintReview,
    insecureAllowHttp: flags.insecureAllowHttp,
    keys: positionals,
  });
  return 0;
}

function asksForRule(flags: Flags): boolean {
  const { identity, identityRegexp, issuer, issuerRegexp, trustedRoot, require } = flags;
  return (
    flags.cosignKeys.length > 0 ||
    flags.openpgp ||
    flags.allowUnsigned ||
    [identity, identityRegexp, issuer, issuerRegexp, trustedRoot, require].some(
      value => value !== undefined,
    )
  );
}

async function addRule(
  context: Context,
  positionals: readonly string[],
  flags: Flags,
): Promise<void> {
  checkFlags(positionals, flags);
  if (flags.trustedRoot !== undefined) await checkTrustedRoot(flags.trustedRoot);
  const prefix = checkedPrefix(flags.prefix ?? ALL_NAMES);
  const file = trustFile(context, prefix);
  const former = loadConfig(context).trust.get(prefix);
  if (former !== undefined && former.file !== file) refuseElsewhere(former, file);
  const rule = flags.allowUnsigned
    ? allowUnsigned(prefix, former, file)
    : extend(former ?? emptyRule(prefix, file), flags, wanted(flags));
  writeTrustRule(file, rule);
  const names = prefix === ALL_NAMES ? 'all names' : `prefix ${JSON.stringify(prefix)}`;
  const what = former === undefined ? 'Added' : 'Extended';
  warn(context, `${what} the trust rule for ${names} at ${JSON.stringify(file)}`);
}

function checkFlags(positionals: readonly string[], flags: Flags): void {
  const usage = (why: string, hint?: string) =>
    new TspodError('usage', `trust: ${why}`, hint === undefined ? {} : { hint });
  if (positionals.length > 0) {
    throw usage(
      'OpenPGP keys go into the key stores, not into a rule',
      'trust them in a call of their own, and demand one of them with --openpgp',
    );
  }
  if (flags.root || flags.skipFingerprintReview || flags.insecureAllowHttp) {
    throw usage(
      '--root, --skip-fingerprint-review and --insecure-allow-http are for OpenPGP keys',
      'a rule has a --prefix; --prefix="*" stands for all names',
    );
  }
  if (flags.prefix === undefined || flags.prefix === '') {
    throw usage('a rule needs --prefix', '--prefix="*" stands for all names');
  }
  if (flags.require !== undefined && flags.require !== 'any' && flags.require !== 'all') {
    throw usage(`--require: ${JSON.stringify(flags.require)} is not any or all`);
  }
  const who = flags.identity ?? flags.identityRegexp;
  const issuer = flags.issuer ?? flags.issuerRegexp;
  if ((who === undefined) !== (issuer === undefined)) {
    throw usage('an identity and its issuer go together', 'give --identity and --issuer');
  }
  if (
    (flags.identity !== undefined && flags.identityRegexp !== undefined) ||
    (flags.issuer !== undefined && flags.issuerRegexp !== undefined)
  ) {
    throw usage('give a text or a regular expression, not both');
  }
  if (
    flags.allowUnsigned &&
    (who ?? flags.cosignKeys[0] ?? flags.require ?? flags.trustedRoot) !== undefined
  ) {
    throw usage('--allow-unsigned does not go with keys, identities, --require and --trusted-root');
  }
}

/** The rule keeps the path, so that a newer file can take the place; what is there now has to be one. */
async function checkTrustedRoot(path: string): Promise<void> {
  if (!existsSync(path)) throw new TspodError('not-found', `trusted root ${path}: no such file`);
  const { loadTrustedRoot } = await import('../verify/sigstore/index.ts');
  loadTrustedRoot(resolve(path));
}

function checkedPrefix(text: string): string {
  const prefix = normalPrefix(text);
  const fault = prefixFault(prefix);
  if (fault === undefined) return prefix;
  throw new TspodError('usage', `trust: --prefix: ${fault}`);
}

function refuseElsewhere({ prefix, file }: TrustRule, own: string): void {
  // A rule of the system is replaced by one in a later folder; one by hand in the same folder is not touched.
  const sameFolder = file.slice(0, file.lastIndexOf('/')) === own.slice(0, own.lastIndexOf('/'));
  if (!sameFolder) return;
  throw new TspodError('exists', `trust: ${JSON.stringify(prefix)} has a rule in ${file} already`, {
    hint: 'edit that file',
  });
}

function emptyRule(prefix: string, file: string): TrustRule {
  return {
    prefix,
    require: 'any',
    openpgp: false,
    cosignKeys: [],
    identities: [],
    trustedRoot: undefined,
    file,
  };
}

/** A weaker rule in place of a stronger one is to be asked for by name. */
function allowUnsigned(prefix: string, former: TrustRule | undefined, file: string): TrustRule {
  if (former !== undefined && former.require !== 'none') {
    throw new TspodError(
      'exists',
      `trust: ${JSON.stringify(prefix)} has a rule that demands signatures (${former.file})`,
      { hint: `remove it first with "trust remove --prefix=${prefix}"` },
    );
  }
  return { ...emptyRule(prefix, file), require: 'none' };
}

type Wanted = Pick<TrustRule, 'cosignKeys' | 'identities'>;

function wanted(flags: Flags): Wanted {
  const cosignKeys = flags.cosignKeys.map(path => {
    try {
      // The key itself: a file that somebody changes later would change whom the rule trusts.
      return parseCosignPublicKey(readPem(path)).pem;
    } catch (error) {
      if (!existsSync(path)) throw new TspodError('not-found', `cosign key ${path}: no such file`);
      throw new TspodError('usage', `cosign key ${path}: ${reasonOf(error)}`, { cause: error });
    }
  });
  const identity = pattern('--identity', flags.identity, flags.identityRegexp);
  const issuer = pattern('--issuer', flags.issuer, flags.issuerRegexp);
  const identities: TrustedIdentity[] =
    identity === undefined || issuer === undefined ? [] : [{ identity, issuer }];
  return { cosignKeys, identities };
}

function pattern(
  flag: string,
  text: string | undefined,
  regexp: string | undefined,
): Pattern | undefined {
  if (text === '' || regexp === '') throw new TspodError('usage', `trust: ${flag} is empty`);
  if (regexp === undefined) return text;
  try {
    new RegExp(regexp, 'v');
  } catch (error) {
    throw new TspodError('usage', `trust: ${flag}-regexp: it is not a regular expression`, {
      cause: error,
    });
  }
  return { regexp };
}

function extend(former: TrustRule, flags: Flags, { cosignKeys, identities }: Wanted): TrustRule {
  if (former.require === 'none') {
    throw new TspodError(
      'exists',
      `trust: ${JSON.stringify(former.prefix)} has a rule that allows unsigned images (${former.file})`,
      { hint: `remove it first with "trust remove --prefix=${former.prefix}"` },
    );
  }
  const rule: TrustRule = {
    ...former,
    file: former.file,
    require: flags.require === 'all' ? 'all' : flags.require === 'any' ? 'any' : former.require,
    openpgp: former.openpgp === false ? flags.openpgp : former.openpgp,
    cosignKeys: [...new Set([...former.cosignKeys, ...cosignKeys])],
    identities: distinct([...former.identities, ...identities]),
    trustedRoot: flags.trustedRoot === undefined ? former.trustedRoot : resolve(flags.trustedRoot),
  };
  if (rule.openpgp === false && rule.cosignKeys.length + rule.identities.length === 0) {
    throw new TspodError('usage', 'trust: the rule would demand nothing', {
      hint: 'give --cosign-key, --identity with --issuer, or --openpgp',
    });
  }
  return rule;
}

function distinct(identities: readonly TrustedIdentity[]): readonly TrustedIdentity[] {
  return [...new Map(identities.map(each => [JSON.stringify(each), each])).values()];
}
