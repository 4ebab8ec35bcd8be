/**
 * `tspod image gc`: removes images unused for the grace period, and everything that no image, pod or live
 * fetch uses. Runs beside everything else; killed, the next one finishes.
 */
import { type Context, warn } from '../../src/context.ts';
import { EXIT_FAILURE, TspodError } from '../../src/errors.ts';
import { humanSize, parseDuration } from '../../src/humanize.ts';
import type { Digest } from '../../src/image/digest.ts';
import { podImageUses } from '../../src/pod/lifecycle.ts';
import { openStore } from '../../src/store/store.ts';
import { layerForms } from '../unpack/forms.ts';
import { imageId, showImageId } from './image-id.ts';

export interface ImageGcArgs {
  readonly positionals: readonly string[];
  readonly flags: {
    /** A Go duration; rkt's default is 24h0m0s. */
    readonly gracePeriod: string;
    /** e.g. `10GiB`; undefined: no budget */
    readonly maxSize?: string | undefined;
    readonly dryRun?: boolean;
  };
}

export async function run(context: Context, { flags, positionals }: ImageGcArgs): Promise<number> {
  if (positionals[0] !== undefined) {
    throw new TspodError('usage', `image gc: takes no arguments, not "${positionals[0]}"`, {
      hint: 'to remove one image use "image rm"',
    });
  }
  const graceMs = parseDuration(flags.gracePeriod, 'image gc: --grace-period');
  const maxBytes = flags.maxSize === undefined ? undefined : parseSize(flags.maxSize);
  const store = openStore(context.dir, { forms: layerForms(context.dir) });
  try {
    const known = new Map(store.images().map(image => [image.id, imageId(image)]));
    const result = store.gc({
      graceMs,
      inUse: () => podImageUses(context.dir),
      seal: true,
      dryRun: flags.dryRun ?? false,
      ...(maxBytes === undefined ? {} : { maxBytes }),
    });
    const images = result.images.map(id => known.get(id) ?? id);
    if (flags.dryRun) {
      for (const id of images) {
        process.stdout.write(`would remove image "${showImageId(context, id)}"\n`);
      }
      if (result.bytes > 0) warn(context, `${humanSize(result.bytes)} would be freed`);
      return 0;
    }
    const what = context.program === 'rkt' ? 'treestore' : 'layer';
    for (const diffId of result.layers) {
      warn(context, `removed ${what} "${showImageId(context, diffId)}"`);
    }
    reportRemoved(context, images, result.failures);
    if (result.bytes > 0 && context.program !== 'rkt') {
      warn(context, `${humanSize(result.bytes)} freed`);
    }
    return result.failures.length > 0 ? EXIT_FAILURE : 0;
  } finally {
    store.close();
  }
}

const UNITS = ['', 'K', 'M', 'G', 'T'];

/** `10GiB`, `500MB`, `10G` (binary, as Docker has it), or bytes. */
function parseSize(text: string): number {
  const [, number, unit = '', binary, ending] =
    /^([0-9]{1,15}(?:\.[0-9]{1,3})?)([KMGT]?)(i?)(B?)$/i.exec(text) ?? [];
  const decimal = unit !== '' && binary === '' && ending !== '';
  const bytes = Number(number) * (decimal ? 1000 : 1024) ** UNITS.indexOf(unit.toUpperCase());
  if (
    number === undefined ||
    (unit === '' && binary !== '') ||
    !Number.isSafeInteger(Math.floor(bytes))
  ) {
    throw new TspodError('usage', `image gc: --max-size=${text.slice(0, 60)}: it is not a size`, {
      hint: 'write for example 10GiB or 500MB',
    });
  }
  return Math.floor(bytes);
}

/** rkt's lines for removed images: each on stdout, the count on stderr. */
export function reportRemoved(
  context: Context,
  images: readonly Digest[],
  failures: readonly string[],
): void {
  const what = context.program === 'rkt' ? 'aci for image:' : 'image';
  for (const id of images) {
    process.stdout.write(`successfully removed ${what} "${showImageId(context, id)}"\n`);
  }
  if (images.length > 0) warn(context, `${images.length} image(s) successfully removed`);
  for (const failure of failures) warn(context, failure);
  if (failures.length > 0) warn(context, 'error(s) found while removing images');
}
