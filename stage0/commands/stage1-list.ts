/** `tspod stage1 list`: what a pod can be run by: the built-in flavors, and the stage1 images of the store. */
import type { Context } from '../../src/context.ts';
import { reasonOf, TspodError } from '../../src/errors.ts';
import { isStage1, readStage1Annotations } from '../../src/pod/stage1-image.ts';
import { currentVmImage, readVmImage } from '../../src/pod/vm-image.ts';
import { openStore } from '../../src/store/store.ts';
import type { ImageRecord, Store } from '../../src/store/types.ts';
import { renderTable } from '../../src/table.ts';
import { FLAVORS } from '../../stage1-flavors/index.ts';
import { checkFormat, printJson } from '../output.ts';
import { selectStage1 } from '../stage1.ts';
import { imageId, showImageId } from './image-id.ts';

interface Stage1Entry {
  readonly name: string;
  readonly kind: 'built-in' | 'image';
  readonly interface_version: number | null;
  readonly id?: string;
  /** Release of the kernel that machines boot. */
  readonly kernel?: string;
  /** What a pod gets that names none. */
  readonly default?: true;
  /** Why it can't be used. */
  readonly unusable?: string;
}

const SHORT_ID = 12;

export async function run(
  context: Context,
  args: { readonly full: boolean; readonly noLegend: boolean; readonly format: string | undefined },
): Promise<number> {
  checkFormat(args.format);
  const chosen = await selectStage1(context, {});
  const store = openStore(context.dir, { forms: [] });
  try {
    const builtIn = FLAVORS.filter(({ name }) => name !== 'foreign').map((flavor): Stage1Entry => {
      const isDefault = chosen.image === undefined && chosen.flavor === flavor;
      return {
        name: flavor.name,
        kind: 'built-in',
        interface_version: flavor.interfaceVersion,
        ...(flavor.name === 'kvm' ? vmImage(context, args.full) : {}),
        ...(isDefault ? { default: true } : {}),
      };
    });
    const images = store.images().flatMap(image => describe(context, store, image, args.full));
    const entries = [...builtIn, ...images];
    if (args.format !== undefined) printJson(entries, args.format);
    else process.stdout.write(renderTable(rows(entries, args.noLegend)));
  } finally {
    store.close();
  }
  return 0;
}

/** What machines boot; the first pod of kvm builds it. */
function vmImage({ dir }: Context, full: boolean): Pick<Stage1Entry, 'id' | 'kernel'> {
  const id = currentVmImage(dir);
  const image = id === undefined ? undefined : readVmImage(dir, id);
  if (image === undefined) return {};
  const short = image.id.slice(0, 'sha256-'.length + SHORT_ID);
  return { id: full ? image.id : short, kernel: image.release };
}

function describe(
  context: Context,
  store: Store,
  image: ImageRecord,
  full: boolean,
): readonly Stage1Entry[] {
  const manifest = store.appcManifest(image)?.value;
  if (manifest === undefined || !isStage1(manifest.annotations)) return [];
  const version = manifest.labels.find(label => label.name === 'version')?.value;
  const about = {
    name: version === undefined ? manifest.name : `${manifest.name}:${version}`,
    kind: 'image' as const,
    id: showImageId(context, imageId(image), full ? undefined : SHORT_ID),
  };
  try {
    const { interfaceVersion } = readStage1Annotations(manifest.name, manifest.annotations);
    return [{ ...about, interface_version: interfaceVersion }];
  } catch (error) {
    if (!(error instanceof TspodError)) throw error;
    return [{ ...about, interface_version: null, unusable: reasonOf(error) }];
  }
}

function rows(entries: readonly Stage1Entry[], noLegend: boolean): readonly (readonly string[])[] {
  const body = entries.map(entry => [
    entry.name,
    entry.kind,
    entry.interface_version === null ? '-' : String(entry.interface_version),
    entry.id ?? '-',
    entry.unusable ?? entry.kernel ?? (entry.default === true ? 'default' : ''),
  ]);
  return noLegend ? body : [['NAME', 'KIND', 'INTERFACE', 'ID', 'NOTE'], ...body];
}
