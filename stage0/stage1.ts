/**
 * Which stage1 a pod gets: what the command line names, else what a `stage1` configuration names, else the
 * default flavor. A name of a built-in flavor is that flavor; every other one is an image's.
 */
import { existsSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import type { Context } from '../src/context.ts';
import { TspodError } from '../src/errors.ts';
import type { Flavor } from '../stage1-flavors/flavor.ts';
import { flavorByName, isBuiltIn } from '../stage1-flavors/index.ts';
import type { PullPolicy, Stage1Args } from './args/types.ts';

export const DEFAULT_FLAVOR = 'fly';

/** An image that is to be a pod's stage1. */
export interface Stage1Reference {
  /** As for `fetch`. */
  readonly reference: string;
  readonly pullPolicy: PullPolicy;
  /** It lies where the administrator keeps stage1 images, and needs no signature: as rkt. */
  readonly trusted: boolean;
}

export type Stage1Choice =
  | { readonly flavor: Flavor; readonly image?: undefined }
  | { readonly image: Stage1Reference };

/** @throws TspodError 'unsupported', 'usage' or 'not-found' that names it */
export async function selectStage1(
  context: Context,
  args: Stage1Args,
  otherwise = DEFAULT_FLAVOR,
): Promise<Stage1Choice> {
  const { name, path, url, hash, fromDir } = args;
  if (name !== undefined) return byName(name);
  if (hash !== undefined) return byHash(hash);
  if (url !== undefined) return byUrl(url, '--stage1-url');
  if (path !== undefined) return byPath(context, path);
  if (fromDir !== undefined)
    return byPath(context, join(await imagesFolder(context), fileName(fromDir)));
  return (await configured(context)) ?? { flavor: flavorByName(otherwise) };
}

function byName(name: string): Stage1Choice {
  // An image's name begins with a domain.
  if (isBuiltIn(name) || !name.includes('/')) return { flavor: flavorByName(name) };
  return { image: { reference: name, pullPolicy: 'new', trusted: false } };
}

function byHash(hash: string): Stage1Choice {
  if (!/^(?:sha256|sha512)[:-][0-9a-f]{2,128}$/.test(hash)) {
    throw new TspodError('usage', `--stage1-hash=${hash.slice(0, 200)}: it is no image's id`, {
      hint: '"image list --full" shows them',
    });
  }
  return { image: { reference: hash, pullPolicy: 'never', trusted: false } };
}

function byUrl(url: string, what: string): Stage1Choice {
  if (!/^(?:file|https?|docker):\/\//.test(url)) {
    throw new TspodError('usage', `${what}=${url.slice(0, 200)}: it is no URL of a stage1 image`, {
      hint: 'give a file, http, https or docker URL',
    });
  }
  return { image: { reference: url, pullPolicy: 'new', trusted: false } };
}

async function byPath(context: Context, path: string): Promise<Stage1Choice> {
  const reference = resolve(path);
  const folder = resolve(await imagesFolder(context));
  const trusted = dirname(reference) === folder && onlyRootWrites(folder);
  return { image: { reference, pullPolicy: 'new', trusted } };
}

/** Whoever else may write there must sign what he puts there. */
function onlyRootWrites(folder: string): boolean {
  const stat = statSync(folder, { throwIfNoEntry: false });
  return stat !== undefined && stat.uid === 0 && (stat.mode & 0o022) === 0;
}

function fileName(name: string): string {
  if (name !== '' && name !== '.' && name !== '..' && !name.includes('/')) return name;
  throw new TspodError('usage', `--stage1-from-dir=${name.slice(0, 200)}: it is no file's name`);
}

/** Where `--stage1-from-dir` looks. */
async function imagesFolder(context: Context): Promise<string> {
  const { loadConfig } = await import('./config.ts');
  return loadConfig(context).paths.stage1Images ?? join(context.systemConfig, 'stage1-images');
}

/** The `stage1` of the configuration; read only where there is a stage1.d folder. */
async function configured(context: Context): Promise<Stage1Choice | undefined> {
  const folders = [context.systemConfig, context.localConfig, context.userConfig];
  if (!folders.some(folder => folder !== '' && existsSync(`${folder}/stage1.d`))) return undefined;
  const { loadConfig } = await import('./config.ts');
  const stage1 = loadConfig(context).stage1;
  if (stage1 === undefined) return undefined;
  const { name, version, location } = stage1;
  if (name !== undefined && isBuiltIn(name)) return { flavor: flavorByName(name) };
  // rkt: by name where the store has it, else from its place.
  if (
    name !== undefined &&
    (location === undefined || (await isStored(context, `${name}:${version}`)))
  )
    return byName(`${name}:${version}`);
  if (location === undefined) return undefined;
  return location.startsWith('/')
    ? byPath(context, location)
    : byUrl(location, 'stage1 configuration: location');
}

async function isStored(context: Context, name: string): Promise<boolean> {
  const { hasImage } = await import('./stage1-stored.ts');
  return hasImage(context, name);
}
