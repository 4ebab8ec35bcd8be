/**
 * `tspod image explain IMAGE`: which rule decides about a name and what it needs; for an image of the store
 * also the verdict that it has and whether it may run now. Asks no server: the name need not exist.
 */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { loadConfig } from '../../src/config/config.ts';
import { ruleFor } from '../../src/config/trust.ts';
import type { Context } from '../../src/context.ts';
import { TspodError } from '../../src/errors.ts';
import { parseReference, parseRegistryReference } from '../../src/image/reference.ts';
import { findImage } from '../../src/store/find-image.ts';
import { openStore } from '../../src/store/store.ts';
import type { ImageRecord, Store, VerdictSigner } from '../../src/store/types.ts';
import { renderTable } from '../../src/table.ts';
import { layerForms } from '../unpack/forms.ts';
import { keysFor, shownRule, shownSigner } from '../verify/admission.ts';
import { demandsOf } from '../verify/demands.ts';
import { subjectName, subjectNames, whyRefused } from '../verify/policy.ts';
import { imageId, showImageId } from './image-id.ts';

export interface ImageExplainArgs {
  readonly positionals: readonly string[];
  readonly flags: { readonly format: string | undefined };
}

interface NameExplained {
  readonly name: string;
  /** The prefix and file of the rule; null where the key stores decide. */
  readonly rule: { readonly prefix: string; readonly file: string } | null;
  readonly require: 'any' | 'all' | 'none';
  readonly needs: string;
  readonly openpgp_keys: number;
}

interface Explained {
  readonly names: readonly NameExplained[];
  readonly image: {
    readonly id: string;
    readonly names: readonly string[];
    readonly verdict: ImageRecord['verdict'];
    readonly may_run: boolean;
    readonly why_not: string | null;
  } | null;
}

export async function run(
  context: Context,
  { positionals, flags }: ImageExplainArgs,
): Promise<number> {
  const [text, ...more] = positionals;
  if (text === undefined || more.length > 0) {
    throw new TspodError('usage', 'image explain: takes exactly one image');
  }
  const { format = '' } = flags;
  if (!['', 'json', 'json-pretty'].includes(format)) {
    throw new TspodError('usage', `image explain: unknown format "${format}"`, {
      hint: 'use --format=json or --format=json-pretty',
    });
  }
  const store = openStore(context.dir, { forms: layerForms(context.dir), readOnly: true });
  try {
    const explained = await explain(context, store, text);
    process.stdout.write(
      format === ''
        ? render(explained)
        : `${JSON.stringify(explained, undefined, format === 'json' ? undefined : '\t')}\n`,
    );
  } finally {
    store.close();
  }
  return 0;
}

async function explain(context: Context, store: Store, text: string): Promise<Explained> {
  const image = stored(store, text);
  const named = nameOf(text);
  const names = named === undefined ? (image === undefined ? [] : subjectNames(image)) : [named];
  if (image === undefined && names.length === 0) findImage(store, text); // says that it is not there
  const why = image && (await whyRefused(context, image.verdict, names));
  return {
    names: names.map(name => explainName(context, name)),
    image:
      image === undefined
        ? null
        : {
            id: showImageId(context, imageId(image)),
            names: image.names,
            verdict: image.verdict,
            may_run: why === undefined,
            why_not: why ?? null,
          },
  };
}

function stored(store: Store, text: string): ImageRecord | undefined {
  try {
    return findImage(store, text);
  } catch (error) {
    if (error instanceof TspodError && error.code === 'not-found') return undefined;
    throw error;
  }
}

/** The name that rules are asked for; undefined for an id. */
function nameOf(text: string): string | undefined {
  const { kind } = parseReference(text);
  if (kind === 'id') return undefined;
  if (kind !== 'name') return subjectName(text);
  if (/^[0-9a-f]+$/.test(text)) return undefined;
  if (existsSync(text)) return resolve(text);
  if (/^[^/]*[.:][^/]*\//.test(text)) return subjectName(text);
  try {
    const { registry, repository } = parseRegistryReference(text);
    return `${registry}/${repository}`;
  } catch {
    return subjectName(text);
  }
}

function explainName(context: Context, name: string): NameExplained {
  const rule = ruleFor(loadConfig(context).trust, name);
  const keys = keysFor(context, name);
  if (rule === undefined) {
    const needs =
      keys === 0
        ? 'refused: no rule fits, and no key store has a key for it'
        : `an OpenPGP signature by one of ${keys} trusted keys`;
    return { name, rule: null, require: 'any', needs, openpgp_keys: keys };
  }
  const { prefix, file, require } = rule;
  const needs = require === 'none' ? 'nothing' : demandsOf(context, rule, name).shown;
  return { name, rule: { prefix, file }, require, needs, openpgp_keys: keys };
}

function render({ names, image }: Explained): string {
  const rows: string[][] = [];
  for (const { name, rule, needs } of names) {
    rows.push(['name', name]);
    rows.push(['decided by', rule === null ? 'the OpenPGP key stores' : shownRule(rule)]);
    rows.push(['needs', needs]);
  }
  if (image === null) rows.push(['image', 'not in the store']);
  else {
    rows.push(['image', image.id]);
    rows.push(['admitted by', image.verdict.by]);
    for (const signer of image.verdict.signers ?? []) rows.push(['signer', showSigner(signer)]);
    rows.push(['may run', image.may_run ? 'yes' : `no: ${image.why_not}`]);
  }
  return renderTable(rows);
}

function showSigner(signer: VerdictSigner): string {
  return `${shownSigner(signer)} of ${signer.digest} as ${signer.name}`;
}
