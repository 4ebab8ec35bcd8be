/** `tspod push IMAGE docker://HOST/NAME:TAG`: prints the digest under which the registry has it. */
import type { Context } from '../../src/context.ts';
import { TspodError } from '../../src/errors.ts';
import { canonicalReference } from '../../src/image/reference.ts';
import { imageDigests } from '../../src/store/digests.ts';
import { findImage } from '../../src/store/find-image.ts';
import { openStore } from '../../src/store/store.ts';
import { checkFormat, printJson } from '../output.ts';
import { layerForms } from '../unpack/forms.ts';

export interface PushArgs {
  readonly positionals: readonly string[];
  readonly format: string | undefined;
}

export async function run(context: Context, { positionals, format }: PushArgs): Promise<number> {
  const [text, place, ...more] = positionals;
  if (text === undefined || place === undefined || more.length > 0) {
    throw new TspodError('usage', 'push: takes an image and where to push it', {
      hint: 'for example: push web docker://registry.example/web:1.2',
    });
  }
  checkFormat(format);
  const push = await import('../push/open.ts');
  const target = push.parseTarget(place);
  const name = canonicalReference(target);
  if (context.offline) {
    throw new TspodError('offline', `push: ${target.registry} would be contacted`, {
      hint: 'push without --offline',
    });
  }
  const store = openStore(context.dir, { forms: layerForms(context.dir) });
  const lease = store.lease();
  try {
    const image = findImage(store, text);
    lease.add(...imageDigests(image));
    const portable = await push.portableImage(store, image);
    const stop = new AbortController();
    const endpoint = push.openTarget(context, target, stop.signal);
    const progress = push.openProgress();
    try {
      const from = push.otherRepository(target, image);
      const timing = push.TIMING;
      const digest = await push.pushImage(
        { endpoint, stop, target, from, progress, timing },
        portable,
      );
      if (format === undefined) process.stdout.write(`${digest}\n`);
      else printJson({ name, digest }, format);
    } finally {
      progress.close();
      endpoint.close();
      portable.close();
    }
  } finally {
    lease.release();
    store.close();
  }
  return 0;
}
