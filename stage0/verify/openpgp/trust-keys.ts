/**
 * The logic of `trust` for OpenPGP keys: fetch the keys, show them, ask, store them; with rkt's messages. And
 * `--trust-keys-from-https`, which trusts what discovery finds without asking anybody.
 *
 * Keys come over https with certificates checked, whatever --insecure-options says of images: what is trusted
 * here admits images ever after. Only `--insecure-options=pubkey`, and --insecure-allow-http, change that.
 */
import '../../hot.ts';
import { type Context, warn } from '../../../src/context.ts';
import { TspodError } from '../../../src/errors.ts';
import { isTerminal } from '../../../src/sys/terminal.ts';
import type { Timing } from '../../fetch/retry.ts';
import { discoverKeys, fetchKeys, type Transport } from './fetch-keys.ts';
import { groupFingerprint, type InspectedKey, inspectKey } from './inspect-key.ts';
import type { KeyBlock } from './key-block.ts';
import { addTrustedKey, checkScope, standingOf } from './keystore.ts';

export interface TrustOptions {
  /** Empty with `root`. */
  readonly prefix: string;
  readonly root: boolean;
  readonly skipFingerprintReview: boolean;
  readonly insecureAllowHttp: boolean;
  /** Files or URLs; none: discovery at the prefix. */
  readonly keys: readonly string[];
  /** For tests. */
  readonly timing?: Timing;
}

export interface AddedKey {
  readonly location: string;
  readonly fingerprint: string;
  readonly path: string;
}

/** Identities or subkeys of a key. */
const MAX_SHOWN = 10;

/** Asks a question on the terminal; undefined at its end. */
export type Ask = (question: string) => Promise<string | undefined>;

/**
 * Adds keys to the key store after a review on the terminal; what is asked and told goes to standard error.
 * @returns what was added; a key that the user said no to is not among it
 * @throws TspodError 'usage' for options that don't go together or no terminal, else by cause
 */
export async function trustOpenPgpKeys(
  context: Context,
  options: TrustOptions,
  ask: Ask | undefined = isTerminal(0) ? askOnTerminal : undefined,
): Promise<readonly AddedKey[]> {
  checkOptions(options);
  if (!options.skipFingerprintReview && ask === undefined) {
    throw new TspodError('usage', 'trust: no terminal to review the fingerprints of keys on', {
      hint: 'compare them otherwise and use --skip-fingerprint-review',
    });
  }
  const transport: Transport = {
    allowHttp: options.insecureAllowHttp || context.insecure.has('pubkey'),
    verifyTls: !context.insecure.has('pubkey'),
    timing: options.timing,
  };
  const locations = await locate(context, options, transport);
  const added: AddedKey[] = [];
  for (const { location, told } of locations) {
    const shown = JSON.stringify(location);
    const blocks = await fetchKeys(context, location, told, transport);
    for (const line of await describe(blocks, options.prefix, shown)) showLine(line);
    if (!options.skipFingerprintReview && !(await review(ask))) {
      warn(context, `Not trusting ${shown}`);
      continue;
    }
    const how = options.skipFingerprintReview ? 'without' : 'after';
    const prefix = JSON.stringify(options.prefix);
    warn(context, `Trusting ${shown} for prefix ${prefix} ${how} fingerprint review.`);
    added.push(...store(context, blocks, options.prefix, location));
  }
  return added;
}

/**
 * Trusts, for this very name, what `ac-discovery-pubkeys` over https leads to; for `--trust-keys-from-https`,
 * when the key of a signature is unknown. Keys whose trust somebody took away stay untrusted.
 * @returns what was added; empty when the server has no keys for the name
 * @throws TspodError when they can't be fetched; nothing has been trusted then
 */
export async function discoverAndTrustKeys(
  context: Context,
  name: string,
  timing?: Timing,
): Promise<readonly AddedKey[]> {
  checkScope(name);
  const transport: Transport = { allowHttp: false, verifyTls: true, timing };
  const loaded: { readonly location: string; readonly blocks: readonly KeyBlock[] }[] = [];
  for (const location of await discoverKeys(context, name, transport)) {
    loaded.push({ location, blocks: await fetchKeys(context, location, true, transport) });
  }
  const added: AddedKey[] = [];
  for (const { location, blocks } of loaded) {
    const shown = JSON.stringify(location);
    const fresh = blocks.filter(({ fingerprint }) => {
      const standing = standingOf(context, name, fingerprint);
      if (standing === 'trusted') warn(context, `Key ${shown} already in the keystore`);
      if (standing === 'masked') warn(context, `Not trusting ${shown}: ${fingerprint} is masked`);
      return standing === 'unknown';
    });
    if (fresh.length === 0) continue;
    for (const line of await describe(fresh, name, shown)) showLine(line);
    const prefix = JSON.stringify(name);
    warn(context, `Trusting ${shown} for prefix ${prefix} without fingerprint review.`);
    added.push(...store(context, fresh, name, location));
  }
  return added;
}

interface Location {
  /** A file or URL. */
  readonly location: string;
  /** A server named it, not the user. */
  readonly told: boolean;
}

function checkOptions({ prefix, root, keys }: TrustOptions): void {
  if (prefix === '' && !root) {
    const why =
      keys.length > 0 ? '--root required for non-prefixed (root) keys' : 'nothing to trust';
    throw new TspodError('usage', `trust: ${why}`, {
      hint: 'use --prefix PREFIX, or --root to trust a key for every image',
    });
  }
  if (prefix !== '' && root) {
    throw new TspodError('usage', 'trust: --root and --prefix usage mutually exclusive');
  }
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(prefix)?.[1];
  if (scheme !== undefined) {
    const message = `trust: --prefix must not contain a URL scheme, omit ${scheme}://`;
    throw new TspodError('usage', message);
  }
  if (prefix === '*') {
    throw new TspodError('usage', 'trust: a key for all names is a root key', {
      hint: 'use --root instead of --prefix="*"',
    });
  }
  checkScope(prefix);
  if (prefix === '' && keys.length === 0) {
    throw new TspodError('usage', 'trust: at least one key or --prefix required');
  }
}

async function locate(
  context: Context,
  { prefix, keys }: TrustOptions,
  transport: Transport,
): Promise<readonly Location[]> {
  if (keys.length > 0) return keys.map(location => ({ location, told: false }));
  const found = await discoverKeys(context, prefix, transport);
  return found.map(location => ({ location, told: true }));
}

/** The lines of a review, as rkt words them. */
async function describe(
  blocks: readonly KeyBlock[],
  prefix: string,
  location: string,
): Promise<readonly string[]> {
  const lines = [`prefix: ${JSON.stringify(prefix)}`, `key: ${location}`];
  for (const block of blocks) lines.push(...describeKey(await inspectKey(block)));
  return lines;
}

function describeKey(key: InspectedKey): readonly string[] {
  return [
    `gpg key fingerprint is: ${groupFingerprint(key.fingerprint)}`,
    ...first(key.subkeys.map(subkey => `    subkey fingerprint: ${groupFingerprint(subkey)}`)),
    ...first(key.identities.map(identity => `\t${identity}`)),
    ...(key.unusable === undefined ? [] : [`\twarning: it can't verify now: ${key.unusable}`]),
  ];
}

/** So many that the fingerprint stays on the screen. */
function first(lines: readonly string[]): readonly string[] {
  if (lines.length <= MAX_SHOWN) return lines;
  return [...lines.slice(0, MAX_SHOWN), `\t… and ${lines.length - MAX_SHOWN} more`];
}

function showLine(line: string): void {
  process.stderr.write(`${line}\n`);
}

async function review(ask: Ask | undefined): Promise<boolean> {
  const question = 'Are you sure you want to trust this key (yes/no)?';
  for (;;) {
    const answer = await ask?.(question);
    if (answer === 'yes') return true;
    if (answer === 'no') return false;
    if (answer === undefined) {
      throw new TspodError('usage', 'trust: the review was broken off', {
        hint: 'answer yes or no',
      });
    }
    showLine("Please enter 'yes' or 'no'");
  }
}

async function askOnTerminal(question: string): Promise<string | undefined> {
  const { createInterface } = await import('node:readline');
  const lines = createInterface({ input: process.stdin });
  try {
    showLine(question);
    for await (const line of lines) return line.trim();
    return undefined;
  } finally {
    lines.close();
  }
}

function store(
  context: Context,
  blocks: readonly KeyBlock[],
  scope: string,
  location: string,
): readonly AddedKey[] {
  return blocks.map(block => {
    const added = addKey(context, block, scope);
    const at = JSON.stringify(added.path);
    const what =
      scope === ''
        ? `Added root key at ${at}`
        : `Added key for prefix ${JSON.stringify(scope)} at ${at}`;
    warn(context, what);
    return { location, ...added };
  });
}

function addKey(
  context: Context,
  block: KeyBlock,
  scope: string,
): { readonly path: string; readonly fingerprint: string } {
  try {
    return addTrustedKey(context, block.bytes, scope);
  } catch (error) {
    const what =
      scope === ''
        ? 'Error adding root key'
        : `Error adding key for prefix ${JSON.stringify(scope)}`;
    if (!(error instanceof TspodError)) throw error;
    throw new TspodError(error.code, `${what}: ${error.message}`, {
      ...(error.hint === undefined ? {} : { hint: error.hint }),
      cause: error,
    });
  }
}
