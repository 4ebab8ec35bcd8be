/**
 * `tspod image cat-manifest IMAGE`: the appc manifest of what came as an ACI, as rkt; an OCI image's is its OCI
 * image manifest. With `--pretty-print=false` these are the very bytes, as they came.
 */
import type { Context } from '../../src/context.ts';
import { TspodError } from '../../src/errors.ts';
import { findImage } from '../../src/store/find-image.ts';
import { openStore } from '../../src/store/store.ts';
import { layerForms } from '../unpack/forms.ts';

export interface ImageCatManifestArgs {
  readonly positionals: readonly string[];
  readonly flags: { readonly prettyPrint: boolean };
}

export async function run(
  context: Context,
  { positionals, flags }: ImageCatManifestArgs,
): Promise<number> {
  const [text, ...more] = positionals;
  if (text === undefined || more.length > 0) {
    throw new TspodError('usage', 'image cat-manifest: takes exactly one image');
  }
  const store = openStore(context.dir, { forms: layerForms(context.dir) });
  try {
    const image = findImage(store, text);
    const { bytes } = store.appcManifest(image) ?? store.manifest(image);
    if (flags.prettyPrint) {
      const document: unknown = JSON.parse(Buffer.from(bytes).toString());
      process.stdout.write(`${JSON.stringify(document, undefined, '\t')}\n`);
    } else {
      process.stdout.write(bytes);
    }
  } finally {
    store.close();
  }
  return 0;
}
