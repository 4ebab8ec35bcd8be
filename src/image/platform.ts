/**
 * Which entry of an image index this machine runs (image-index.md, "platform"; Go's GOOS and GOARCH
 * names; variants as containerd compares them).
 */
import { TspodError } from '../errors.ts';
import type { Descriptor, Platform } from './oci.ts';

/** Node's names of architectures that are spelled otherwise in images. */
const GOARCH: Readonly<Record<string, string>> = { x64: 'amd64', ia32: '386', ppc64: 'ppc64le' };
const MAX_SHOWN = 20;

export function hostPlatform(arch: string = process.arch): Platform {
  const architecture = GOARCH[arch] ?? arch;
  return architecture === 'arm64'
    ? { os: 'linux', architecture, variant: 'v8' }
    : { os: 'linux', architecture };
}

/**
 * The first entry for `host`; one of the baseline variant before one without a variant. An index with a
 * single entry and no platform at all is taken at its word: the config says what it is.
 * @throws TspodError 'unsupported' that lists what there is.
 */
export function choosePlatform(
  entries: readonly Descriptor[],
  host: Platform,
  what: string,
): Descriptor {
  const fitting = entries.filter(({ platform }) => platform !== undefined && fits(platform, host));
  const best = fitting.find(({ platform }) => platform?.variant === host.variant) ?? fitting[0];
  if (best !== undefined) return best;
  const [only] = entries;
  if (entries.length === 1 && only !== undefined && only.platform === undefined) return only;
  const there = [...new Set(entries.map(({ platform }) => platform && showPlatform(platform)))]
    .filter(text => text !== undefined && text !== 'unknown/unknown')
    .slice(0, MAX_SHOWN);
  throw new TspodError(
    'unsupported',
    `${what}: there is none for ${showPlatform(host)}; there is ${there.join(', ') || 'no image with a platform'}`,
  );
}

/** @throws TspodError 'unsupported' when an image's config says that it is for another machine. */
export function checkPlatform(config: Platform, host: Platform, what: string): void {
  if (fits(config, host)) return;
  throw new TspodError(
    'unsupported',
    `${what}: it is for ${showPlatform(config)}, and this machine is ${showPlatform(host)}`,
  );
}

/** Variants above the baseline (amd64 v2 to v4, arm64 v9) may use instructions that are not there. */
function fits(platform: Platform, host: Platform): boolean {
  if (platform.os !== host.os || platform.architecture !== host.architecture) return false;
  const { variant } = platform;
  if (variant === undefined || variant === host.variant) return true;
  return host.architecture === 'amd64' && variant === 'v1';
}

export function showPlatform({ os, architecture, variant }: Platform): string {
  return `${os}/${architecture}${variant === undefined ? '' : `/${variant}`}`;
}
