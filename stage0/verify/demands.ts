/** What a trust rule asks for, with the keys at hand that it names, and whether given signers satisfy it. */
import '../hot.ts';
import { readFileSync, statSync } from 'node:fs';
import type { TrustedIdentity, TrustRule } from '../../src/config/trust.ts';
import { reasonOf, TspodError } from '../../src/errors.ts';
import type { VerdictSigner } from '../../src/store/types.ts';
import { type ConfigFolders, type TrustedKey, trustedKeys } from './openpgp/keystore.ts';
import { matchesIdentity } from './sigstore/identity.ts';
import { type CosignPublicKey, parseCosignPublicKey } from './sigstore/public-key.ts';
import type { SignatureKind } from './types.ts';

/** One thing that has to be vouched for. */
interface Demand {
  readonly shown: string;
  metBy(signer: VerdictSigner): boolean;
}

export interface Demands {
  readonly rule: TrustRule;
  readonly openPgpKeys: readonly TrustedKey[];
  readonly cosignKeys: readonly CosignPublicKey[];
  readonly list: readonly Demand[];
  /** `an OpenPGP signature by a trusted key or a signature by the cosign key sha256:…` */
  readonly shown: string;
}

const MAX_PEM = 64 * 1024;

/** What holds where no rule fits, as with rkt. */
export function keyStoreRule(): TrustRule {
  return {
    prefix: '*',
    require: 'any',
    openpgp: true,
    cosignKeys: [],
    identities: [],
    trustedRoot: undefined,
    file: '',
  };
}

/** @throws TspodError 'config' naming the rule's file for a key that can't be read */
export function demandsOf(context: ConfigFolders, rule: TrustRule, name: string): Demands {
  const known = rule.openpgp === false || name === '' ? [] : trustedKeys(context, name);
  const wanted = rule.openpgp;
  const openPgpKeys =
    typeof wanted === 'boolean'
      ? known
      : known.filter(({ fingerprint }) => wanted.includes(fingerprint));
  const cosignKeys = rule.cosignKeys.map((key, index) => readKey(rule, key, index));
  const list = [
    ...openPgpDemands(rule, openPgpKeys),
    ...cosignKeys.map(({ id }) => ({
      shown: `a signature by the cosign key ${id}`,
      metBy: ({ kind, signer }: VerdictSigner) => kind === 'cosign' && signer === id,
    })),
    ...rule.identities.map(identity => ({
      shown: `a signature by ${shownIdentity(identity)}`,
      metBy: ({ kind, signer, detail }: VerdictSigner) =>
        kind === 'sigstore' &&
        matchesIdentity({ identity: signer, issuer: detail ?? '' }, identity),
    })),
  ];
  const shown = list.map(demand => demand.shown).join(rule.require === 'all' ? ' and ' : ' or ');
  return { rule, openPgpKeys, cosignKeys, list, shown };
}

export function satisfies({ rule, list }: Demands, signers: readonly VerdictSigner[]): boolean {
  if (rule.require === 'none') return true;
  const met = (demand: Demand) => signers.some(signer => demand.metBy(signer));
  return rule.require === 'all' ? list.length > 0 && list.every(met) : list.some(met);
}

/** The kinds of signatures that can satisfy a rule. A key signs cosign's payloads and bundles. */
export function kindsOf({
  openpgp,
  cosignKeys,
  identities,
}: TrustRule): ReadonlySet<SignatureKind> {
  const kinds = new Set<SignatureKind>();
  if (openpgp !== false) kinds.add('openpgp');
  if (cosignKeys.length + identities.length > 0) kinds.add('cosign').add('sigstore');
  return kinds;
}

export function shownIdentity({ identity, issuer }: TrustedIdentity): string {
  const text = (pattern: TrustedIdentity['identity']) =>
    typeof pattern === 'string' ? pattern : `/${pattern.regexp}/`;
  return `${text(identity)} (issuer ${text(issuer)})`;
}

function openPgpDemands({ openpgp }: TrustRule, keys: readonly TrustedKey[]): readonly Demand[] {
  if (openpgp === false) return [];
  const by = (fingerprints: readonly string[], shown: string): Demand => ({
    shown,
    metBy: ({ kind, signer }) => kind === 'openpgp' && fingerprints.includes(signer),
  });
  const trusted = keys.map(({ fingerprint }) => fingerprint);
  if (openpgp === true) return [by(trusted, 'an OpenPGP signature by a key trusted for its name')];
  return openpgp.map(fingerprint =>
    by(
      trusted.filter(each => each === fingerprint),
      `a signature by the OpenPGP key ${fingerprint}${
        trusted.includes(fingerprint) ? '' : ' (which no key store trusts for its name)'
      }`,
    ),
  );
}

function readKey({ file }: TrustRule, key: string, index: number): CosignPublicKey {
  const where = `configuration ${file}: cosignKeys[${index}]`;
  try {
    return parseCosignPublicKey(key.includes('-----BEGIN ') ? key : readPem(key));
  } catch (error) {
    const path = key.includes('-----BEGIN ') ? '' : ` ${key}`;
    throw new TspodError('config', `${where}${path}: ${reasonOf(error)}`, { cause: error });
  }
}

/** A PEM file, of bounded size. */
export function readPem(path: string): string {
  const { size } = statSync(path);
  if (size > MAX_PEM) throw new TspodError('limit', `it is over the limit of ${MAX_PEM} bytes`);
  return readFileSync(path, 'latin1');
}
