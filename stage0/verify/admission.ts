/**
 * The part of the policy that needs rules, keys and signatures, in a chunk of its own (policy.ts says what is
 * decided in which order). A rule is a list of demands; a signature that verifies is a signer; `any` wants a
 * demand met, `all` wants each met. Verifying stops as soon as the rule is satisfied.
 */
import '../hot.ts';
import { ruleFor, type TrustRule } from '../../src/config/trust.ts';
import { type Context, warn } from '../../src/context.ts';
import { reasonOf, TspodError } from '../../src/errors.ts';
import type { Verdict, VerdictSigner } from '../../src/store/types.ts';
import { loadConfig } from '../config.ts';
import { type Demands, demandsOf, keyStoreRule, kindsOf, satisfies } from './demands.ts';
import { trustedKeys } from './openpgp/keystore.ts';
import { discoverAndTrustKeys } from './openpgp/trust-keys.ts';
import { UNKNOWN_ENTITY, verifyOpenPgp } from './openpgp/verify.ts';
import type { Admission } from './policy.ts';
import { verifyCosignKey } from './sigstore/cosign-key.ts';
import type { FoundSignature, Outcome, SignatureKind, Subject } from './types.ts';

/** Of one image, over all subjects and places; each costs a public-key operation or more. */
export const MAX_SIGNATURES = 64;
/** Kept with an image that has many names. */
const MAX_SIGNERS = 64;

type Failed = Extract<Outcome, { ok: false }>;

/** As `admit`, when neither a former verdict nor an option has decided. */
export async function decide(context: Context, admission: Admission): Promise<Verdict> {
  const [first] = admission.subjects;
  if (first === undefined) throw new Error('an image has at least one subject');
  const { name } = first;
  const fitting = ruleFor(loadConfig(context).trust, name);
  if (admission.named && fitting?.require !== 'none' && fitting?.openpgp === false) {
    throw new TspodError('usage', `image "${first.reference}": --signature is of no use`, {
      hint: `${shownRule(fitting)} takes no OpenPGP signatures`,
    });
  }
  const given = admission.named && fitting?.require === 'none' ? undefined : fitting;
  if (given?.require === 'none') {
    return { admitted: true, by: shownRule(given), rule: given.prefix, ...others(admission, name) };
  }
  const rule = given ?? keyStoreRule();
  const verifier = new Verifier(context, demandsOf(context, rule, name), name);
  const signers: VerdictSigner[] = [];
  const failed: Failed[] = [];
  let count = 0;
  // Without a rule the other kinds can't admit, but they make a better reason.
  const kinds = given === undefined ? ALL_KINDS : kindsOf(rule);
  for (const subject of admission.subjects) {
    for await (const found of admission.signatures(subject, kinds)) {
      count += 1;
      if (count > MAX_SIGNATURES) {
        throw new TspodError(
          'limit',
          `image "${first.reference}": over the limit of ${MAX_SIGNATURES} signatures`,
        );
      }
      for (const outcome of await verifier.verify(found, subject)) {
        if (outcome.ok) signers.push(signerOf(outcome, subject));
        else failed.push(outcome);
      }
      if (satisfies(verifier.demands, signers)) {
        announce(context, first, signers);
        return {
          admitted: true,
          by: given === undefined ? 'trusted OpenPGP key' : shownRule(given),
          ...(given === undefined ? {} : { rule: given.prefix }),
          signers: [...signers, ...(others(admission, name).signers ?? [])].slice(0, MAX_SIGNERS),
        };
      }
    }
  }
  throw refusal(first, given, verifier.demands, signers, failed);
}

const ALL_KINDS: ReadonlySet<SignatureKind> = new Set(['openpgp', 'cosign', 'sigstore']);

/** What is recorded for other names of the same content. */
function others({ former }: Admission, name: string): Pick<Verdict, 'signers'> {
  const signers = (former?.signers ?? []).filter(signer => signer.name !== name);
  return signers.length === 0 ? {} : { signers };
}

function signerOf(
  { kind, signer, detail }: Extract<Outcome, { ok: true }>,
  { name, digest }: Subject,
): VerdictSigner {
  return { name, kind, signer, ...(detail === undefined ? {} : { detail }), digest };
}

/** Verifies one signature at a time by what the demands name. */
class Verifier {
  readonly #context: Context;
  readonly #name: string;
  #demands: Demands;
  #discovered = false;

  constructor(context: Context, demands: Demands, name: string) {
    this.#context = context;
    this.#demands = demands;
    this.#name = name;
  }

  get demands(): Demands {
    return this.#demands;
  }

  /** One outcome for each way in which the signature could count. */
  async verify(found: FoundSignature, subject: Subject): Promise<readonly Outcome[]> {
    const { rule, cosignKeys } = this.#demands;
    switch (found.kind) {
      case 'openpgp':
        return rule.openpgp === false ? [] : [await this.#openPgp(found, subject)];
      case 'cosign': {
        const byKey = cosignKeys.map(({ pem }) => verifyCosignKey(found, subject, pem));
        if (rule.identities.length === 0 || found.certificate === undefined) return lean(byKey);
        const { loadTrustedRoot, verifyCosignKeyless } = await import('./sigstore/index.ts');
        const want = { identities: rule.identities, keys: [] };
        const root = loadTrustedRoot(rule.trustedRoot);
        return lean([await verifyCosignKeyless(found, subject, want, root), ...byKey]);
      }
      case 'bundle': {
        if (rule.identities.length + cosignKeys.length === 0) return [foreign('sigstore', found)];
        const { loadTrustedRoot, verifyBundle } = await import('./sigstore/index.ts');
        const want = { identities: rule.identities, keys: cosignKeys.map(({ pem }) => pem) };
        return [await verifyBundle(found, subject, want, loadTrustedRoot(rule.trustedRoot))];
      }
    }
  }

  async #openPgp(
    found: Extract<FoundSignature, { kind: 'openpgp' }>,
    subject: Subject,
  ): Promise<Outcome> {
    const outcome = await verifyOpenPgp(found, subject, this.#demands.openPgpKeys);
    const unknown = !outcome.ok && outcome.reason.startsWith(UNKNOWN_ENTITY);
    const discoverable = this.#context.trustKeysFromHttps && !this.#name.startsWith('/');
    if (!unknown || !discoverable || this.#discovered) return outcome;
    this.#discovered = true;
    try {
      const added = await discoverAndTrustKeys(this.#context, this.#name);
      if (added.length === 0) return outcome;
    } catch (error) {
      const reason = `${outcome.reason}, and no key was discovered: ${reasonOf(error)}`;
      return { ...outcome, reason };
    }
    this.#demands = demandsOf(this.#context, this.#demands.rule, this.#name);
    return verifyOpenPgp(found, subject, this.#demands.openPgpKeys);
  }
}

/** The good ones, else the first failure: the same signature by five keys has failed once. */
function lean(outcomes: readonly Outcome[]): readonly Outcome[] {
  const good = outcomes.filter(({ ok }) => ok);
  return good.length > 0 ? good : outcomes.slice(0, 1);
}

/** A signature of a kind that nobody asked for. */
function foreign(kind: SignatureKind, { origin }: FoundSignature): Outcome {
  return { ok: false, kind, reason: 'no rule says whose sigstore signatures to accept', origin };
}

/** As `whyRefused` of policy.ts, where there are rules. */
export function whyRulesRefuse(
  context: Context,
  verdict: Verdict,
  names: readonly string[],
): string | undefined {
  const { trust } = loadConfig(context);
  let refused: string | undefined;
  const signedFor = [...new Set(verdict.signers?.map(({ name }) => name) ?? [])];
  for (const name of [names, signedFor, ['']].find(list => list.length > 0) ?? []) {
    const rule = ruleFor(trust, name);
    if (rule === undefined || rule.require === 'none') return undefined;
    const signers = (verdict.signers ?? []).filter(signer => signer.name === name);
    const demands = demandsOf(context, rule, name);
    if (satisfies(demands, signers)) return undefined;
    refused ??= `${shownRule(rule)} needs ${demands.shown}, and its record has ${
      signers.length === 0 ? 'no signature' : signers.map(shownSigner).join(', ')
    } (it was admitted by ${verdict.by})`;
  }
  return refused;
}

export function storedRefusal(name: string, why: string): TspodError {
  return new TspodError('trust', `image "${name}" may not run: ${why}`, {
    hint: 'fetch it again to have its signatures verified, or use --insecure-options=image',
  });
}

/** For `verdict.by` and messages. */
export function shownRule({ prefix, file }: Pick<TrustRule, 'prefix' | 'file'>): string {
  return `the trust rule for ${prefix === '*' ? 'all names' : prefix} (${file})`;
}

export function shownSigner({ kind, signer, detail }: VerdictSigner): string {
  return `${kind} ${signer}${detail === undefined ? '' : ` (${detail})`}`;
}

/** rkt's words under its name. */
function announce(context: Context, { reference }: Subject, signers: readonly VerdictSigner[]) {
  if (context.program === 'rkt') {
    const lines = signers.map(({ signer, detail }) => `  ${detail ?? signer}\n`);
    process.stderr.write(`image: signature verified:\n${lines.join('')}`);
    return;
  }
  for (const signer of signers) {
    warn(context, `image "${reference}": signature verified: ${shownSigner(signer)}`);
  }
}

function refusal(
  { reference, name }: Subject,
  rule: TrustRule | undefined,
  demands: Demands,
  signers: readonly VerdictSigner[],
  failed: readonly Failed[],
): TspodError {
  const needs = rule === undefined ? '' : `${shownRule(rule)} needs ${demands.shown}`;
  const prefix = `--prefix=${name.startsWith('/') ? JSON.stringify(name) : name}`;
  const admitAll = 'to run it all the same use --insecure-options=image';
  const failure = failed.find(({ reason }) => !reason.startsWith(UNKNOWN_ENTITY)) ?? failed[0];
  if (failure === undefined) {
    const has = signers.length === 0 ? 'it is not signed' : 'its signatures do not suffice';
    const found = signers.length === 0 ? '' : ` (${signers.map(shownSigner).join(', ')})`;
    const why = needs === '' ? has : `${has}${found}, and ${needs}`;
    return new TspodError('trust', `image "${reference}" has no accepted signature: ${why}`, {
      hint: admitAll,
    });
  }
  const more = failed.length > 1 ? `, and ${failed.length - 1} more failed` : '';
  const enough = needs === '' ? '' : `; ${needs}`;
  const why = `${failure.reason}${more} (${failure.kind} signature ${failure.origin})${enough}`;
  const trust = {
    openpgp: `tspod trust ${prefix} KEY-FILE`,
    cosign: `tspod trust ${prefix} --cosign-key=FILE`,
    sigstore: `tspod trust ${prefix} --identity=WHO --issuer=URL`,
  }[failure.kind];
  return new TspodError('trust', `image "${reference}" has no accepted signature: ${why}`, {
    hint: `to trust another signer use "${trust}"; ${admitAll}`,
  });
}

/** Whether the key stores have any key for a name; `image explain` tells. */
export function keysFor(context: Context, name: string): number {
  return new Set(trustedKeys(context, name).map(({ fingerprint }) => fingerprint)).size;
}
