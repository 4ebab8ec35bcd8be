/** `tspod image export IMAGE FILE|-`: an image of the store as a file that others can read. */
import type { Context } from '../../src/context.ts';
import { TspodError } from '../../src/errors.ts';
import { imageDigests } from '../../src/store/digests.ts';
import { findImage } from '../../src/store/find-image.ts';
import { openStore } from '../../src/store/store.ts';
import type { ImageRecord, Store } from '../../src/store/types.ts';
import { isTerminal } from '../../src/sys/terminal.ts';
import { writeAci } from '../export/aci.ts';
import { checkTarget, writeFileAside } from '../export/aside.ts';
import { writeDockerArchive } from '../export/docker-archive.ts';
import { tagOf, writeOciArchive } from '../export/oci-archive.ts';
import { portableImage } from '../export/portable.ts';
import { layerForms } from '../unpack/forms.ts';

const FORMATS = ['oci', 'docker', 'aci'] as const;
type Format = (typeof FORMATS)[number];

export interface ImageExportArgs {
  readonly positionals: readonly string[];
  readonly overwrite: boolean;
  readonly format: string | undefined;
}

export async function run(context: Context, args: ImageExportArgs): Promise<number> {
  const [text, file, ...more] = args.positionals;
  if (text === undefined || file === undefined || more.length > 0) {
    throw new TspodError('usage', 'image export: takes an image and a file', {
      hint: 'for example: image export web web.tar',
    });
  }
  const format = formatOf(args.format, file);
  if (file === '-') refuseTerminal();
  else checkTarget('image export', file, args.overwrite);
  const store = openStore(context.dir, { forms: layerForms(context.dir) });
  const lease = store.lease();
  try {
    const image = findImage(store, text);
    lease.add(...imageDigests(image));
    const write = async (fd: number) => {
      if (format === 'oci') await writeOci(store, image, fd);
      else if (format === 'docker') await writeDockerArchive(store, image, fd);
      else await writeAci(store, image, fd);
    };
    if (file === '-') await write(1);
    else await writeFileAside(file, write);
  } finally {
    lease.release();
    store.close();
  }
  return 0;
}

async function writeOci(store: Store, image: ImageRecord, fd: number): Promise<void> {
  const portable = await portableImage(store, image);
  try {
    await writeOciArchive(portable, tagOf(image), fd);
  } finally {
    portable.close();
  }
}

/** rkt exports ACIs, by a name that ends so. */
function formatOf(asked: string | undefined, file: string): Format {
  if (asked === undefined) return file.endsWith('.aci') ? 'aci' : 'oci';
  const found = FORMATS.find(format => format === asked);
  if (found !== undefined) return found;
  throw new TspodError('usage', `image export: --format: ${JSON.stringify(asked)} is unknown`, {
    hint: 'give oci, docker or aci',
  });
}

function refuseTerminal(): void {
  if (!isTerminal(1)) return;
  throw new TspodError('usage', 'image export: refusing to write an archive to a terminal', {
    hint: 'give a file, or pipe it on',
  });
}
