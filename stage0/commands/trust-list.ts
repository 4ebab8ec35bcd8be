/** `tspod trust list`: the rules in force and the OpenPGP keys of the key stores. */
import { loadConfig } from '../../src/config/config.ts';
import { type TrustRule, trustToJson } from '../../src/config/trust.ts';
import type { Context } from '../../src/context.ts';
import { TspodError } from '../../src/errors.ts';
import { renderTable } from '../../src/table.ts';
import { demandsOf } from '../verify/demands.ts';
import { allTrustedKeys, type ListedKey } from '../verify/openpgp/keystore.ts';

export interface TrustListArgs {
  readonly flags: { readonly format: string | undefined };
}

export async function run(context: Context, { flags }: TrustListArgs): Promise<number> {
  const rules = [...loadConfig(context).trust.values()].sort((a, b) =>
    a.prefix < b.prefix ? -1 : 1,
  );
  const keys = allTrustedKeys(context);
  const { format = '' } = flags;
  if (format === 'json' || format === 'json-pretty') {
    const json = { rules: rules.map(showRule), openpgp: keys.map(showKey) };
    const text = JSON.stringify(json, undefined, format === 'json' ? undefined : '\t');
    process.stdout.write(`${text}\n`);
    return 0;
  }
  if (format !== '') {
    throw new TspodError('usage', `trust list: unknown format "${format}"`, {
      hint: 'use --format=json or --format=json-pretty',
    });
  }
  process.stdout.write(
    renderTable([
      ['PREFIX', 'REQUIRES', 'ACCEPTS', 'FILE'],
      ...rules.map(rule => [rule.prefix, rule.require, accepts(context, rule), rule.file]),
      ...keys.map(key => [
        key.scope === '' ? '*' : key.scope,
        key.maskedBy === undefined ? 'key' : 'masked',
        `openpgp ${key.fingerprint}`,
        key.maskedBy ?? key.path,
      ]),
    ]),
  );
  return 0;
}

function accepts(context: Context, rule: TrustRule): string {
  if (rule.require === 'none') return 'unsigned images';
  return demandsOf(context, { ...rule, openpgp: rule.openpgp }, '').shown;
}

function showRule(rule: TrustRule): object {
  return { prefix: rule.prefix, file: rule.file, ...rest(trustToJson(rule)) };
}

function rest(json: object): object {
  const kept = Object.entries(json).filter(
    ([key]) => !['rktKind', 'rktVersion', 'prefixes'].includes(key),
  );
  return Object.fromEntries(kept);
}

function showKey({ fingerprint, scope, path, folder, maskedBy, maskedBelow }: ListedKey): object {
  return {
    fingerprint,
    prefix: scope,
    path,
    folder,
    masked_by: maskedBy ?? null,
    masked_below: maskedBelow,
  };
}
