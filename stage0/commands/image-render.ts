/**
 * `tspod image extract IMAGE DIR` and `tspod image render IMAGE DIR`: an image as files, without and with what
 * an ACI depends on; of an OCI image all layers either way.
 */
import type { Context } from '../../src/context.ts';
import { TspodError } from '../../src/errors.ts';
import { imageDigests } from '../../src/store/digests.ts';
import { findImage } from '../../src/store/find-image.ts';
import { openStore } from '../../src/store/store.ts';
import { requireRoot } from '../../src/sys/privilege.ts';
import { checkTarget, makeFolderAside } from '../export/aside.ts';
import { keepRootfsOnly, type Part, renderImage } from '../export/render.ts';
import { layerForms } from '../unpack/forms.ts';

export interface ImageRenderArgs {
  readonly positionals: readonly string[];
  readonly part: Part;
  readonly rootfsOnly: boolean;
  readonly overwrite: boolean;
}

export async function run(context: Context, args: ImageRenderArgs): Promise<number> {
  const command = args.part === 'own' ? 'image extract' : 'image render';
  const [text, folder, ...more] = args.positionals;
  if (text === undefined || folder === undefined || more.length > 0) {
    throw new TspodError('usage', `${command}: takes an image and a folder`);
  }
  requireRoot(context.command);
  checkTarget(command, folder, args.overwrite);
  const store = openStore(context.dir, { forms: layerForms(context.dir) });
  const lease = store.lease();
  try {
    const image = findImage(store, text);
    lease.add(...imageDigests(image));
    await makeFolderAside(folder, async aside => {
      await renderImage(store, image, args.part, aside);
      if (args.rootfsOnly) keepRootfsOnly(aside);
    });
  } finally {
    lease.release();
    store.close();
  }
  return 0;
}
