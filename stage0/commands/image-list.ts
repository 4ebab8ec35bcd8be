/**
 * `tspod image list`: rkt's columns, order and JSON keys; times in JSON are nanoseconds since the epoch.
 * Beyond rkt's keys: every name, the manifest's digest, the verdict, the form of the layers and why it is not
 * `erofs`; the field `form` shows it when asked for.
 */
import type { Context } from '../../src/context.ts';
import { TspodError } from '../../src/errors.ts';
import { humanSize, humanTime, longTime } from '../../src/humanize.ts';
import { toAppcHash } from '../../src/image/digest.ts';
import { openStore } from '../../src/store/store.ts';
import type { ImageRecord, Store } from '../../src/store/types.ts';
import { renderTable } from '../../src/table.ts';
import { erofsSupport } from '../unpack/erofs/support.ts';
import { layerForms } from '../unpack/forms.ts';
import { imageId, showImageId } from './image-id.ts';

const SHORT_DIGITS = 12;

export interface ImageListArgs {
  readonly positionals: readonly string[];
  readonly flags: {
    /** Of FIELDS, in the order to print; empty: all. */
    readonly fields: readonly string[];
    /** Of SORT_FIELDS, the first one decides first; empty: importtime. */
    readonly sort: readonly string[];
    readonly order: string;
    readonly noLegend: boolean;
    readonly full: boolean;
    /** `json`, `json-pretty`, or undefined for the table. */
    readonly format: string | undefined;
  };
}

type Flags = ImageListArgs['flags'];

interface Field {
  readonly header: string;
  readonly show: (image: ImageRecord, context: Context, full: boolean, store: Store) => string;
}

const FIELDS: ReadonlyMap<string, Field> = new Map([
  [
    'id',
    {
      header: 'ID',
      show: (image, context, full) =>
        showImageId(context, imageId(image), full ? undefined : SHORT_DIGITS),
    },
  ],
  ['name', { header: 'NAME', show: (image, context) => showName(context, image) || '<none>' }],
  [
    'size',
    {
      header: 'SIZE',
      show: (image, _, full) => (full ? String(image.size) : humanSize(image.size)),
    },
  ],
  ['importtime', { header: 'IMPORT TIME', show: (image, _, full) => time(image.importedAt, full) }],
  ['lastused', { header: 'LAST USED', show: (image, _, full) => time(image.lastUsedAt, full) }],
  ['form', { header: 'FORM', show: (image, _context, _full, store) => formOf(store, image) }],
]);

/** rkt's; what is more has to be asked for. */
const DEFAULT_FIELDS = ['id', 'name', 'size', 'importtime', 'lastused'];

type Order = (a: ImageRecord, b: ImageRecord) => number;

const SORT_FIELDS: ReadonlyMap<string, Order> = new Map<string, Order>([
  ['name', (a, b) => compareText(a.names[0] ?? '', b.names[0] ?? '')],
  ['importtime', (a, b) => a.importedAt - b.importedAt],
  ['lastused', (a, b) => a.lastUsedAt - b.lastUsedAt],
  ['size', (a, b) => a.size - b.size],
]);

export async function run(context: Context, { flags }: ImageListArgs): Promise<number> {
  const fields = flags.fields.length === 0 ? DEFAULT_FIELDS : flags.fields;
  const columns = fields.map(name => pick(FIELDS, name, '--fields'));
  const compare = order(flags);
  const format = checkFormat(flags.format);
  const store = openStore(context.dir, { forms: layerForms(context.dir) });
  try {
    const images = [...store.images()].sort(compare);
    process.stdout.write(
      format === undefined
        ? renderTable([
            ...(flags.noLegend ? [] : [columns.map(column => column.header)]),
            ...images.map(image =>
              columns.map(column => column.show(image, context, flags.full, store)),
            ),
          ])
        : `${JSON.stringify(
            images.map(image => toJson(store, context, image)),
            undefined,
            format === 'json' ? undefined : '\t',
          )}\n`,
    );
  } finally {
    store.close();
  }
  return 0;
}

function toJson(store: Store, context: Context, image: ImageRecord): Record<string, unknown> {
  const nanoseconds = (ms: number) => ms * 1e6;
  return {
    id: showImageId(context, imageId(image)),
    name: showName(context, image),
    import_time: nanoseconds(image.importedAt),
    last_used_time: nanoseconds(image.lastUsedAt),
    size: image.size,
    names: image.names,
    manifest_digest: image.manifestDigest,
    ...(image.appc === undefined
      ? {}
      : { aci: { id: toAppcHash(image.appc.id), oci_id: image.id } }),
    verdict: image.verdict,
    ...formJson(store, context, image),
    layers: image.layers.map(({ diffId, blob }) => ({
      diff_id: diffId,
      digest: blob.digest,
      size: blob.size,
      form: store.layers.form(diffId) ?? null,
      sealed: store.layers.sealed(diffId),
    })),
  };
}

/** In which form the image's layers are kept: one, several with commas, `-` for layers that are not there. */
function formOf(store: Store, image: ImageRecord): string {
  const forms = image.layers.map(({ diffId }) => store.layers.form(diffId) ?? '-');
  return [...new Set(forms)].sort().join(',') || '-';
}

function formJson(store: Store, { dir }: Context, image: ImageRecord): Record<string, unknown> {
  const form = formOf(store, image);
  if (image.layers.every(({ diffId }) => store.layers.form(diffId) === 'erofs')) return { form };
  return { form, why_not_erofs: whyNotErofs(form, dir) };
}

function whyNotErofs(form: string, dir: string): string {
  const { unavailable } = erofsSupport(dir);
  if (unavailable !== undefined) return unavailable;
  return form === '-'
    ? 'its layers are not there; they are made again of its blobs when it runs'
    : 'layers were unpacked when EROFS could not be used here; "image rm" and "fetch" bring it anew';
}

/** rkt shows images of Docker registries without the transport. */
function showName(context: Context, image: ImageRecord): string {
  const name = image.names.find(each => image.appc === undefined || !each.includes('://')) ?? '';
  return context.program === 'rkt' ? name.replace(/^docker:\/\//, '') : name;
}

function time(ms: number, full: boolean): string {
  return full ? longTime(ms) : humanTime(ms);
}

function order(flags: Flags): Order {
  if (flags.order !== 'asc' && flags.order !== 'desc') {
    throw new TspodError('usage', `image list: "${flags.order}" is not an order`, {
      hint: 'use --order=asc or --order=desc',
    });
  }
  const sign = flags.order === 'asc' ? 1 : -1;
  const names = flags.sort.length === 0 ? ['importtime'] : flags.sort;
  const orders = names.map(name => pick(SORT_FIELDS, name, '--sort'));
  return (a, b) => {
    for (const each of orders) {
      const result = each(a, b);
      if (result !== 0) return sign * result;
    }
    return compareText(a.id, b.id);
  };
}

function pick<T>(known: ReadonlyMap<string, T>, name: string, flag: string): T {
  const found = known.get(name);
  if (found !== undefined) return found;
  throw new TspodError('usage', `image list: unknown field "${name}" for ${flag}`, {
    hint: `choose of ${[...known.keys()].join(',')}`,
  });
}

function checkFormat(format: string | undefined): 'json' | 'json-pretty' | undefined {
  if (format === undefined || format === '') return undefined;
  if (format === 'json' || format === 'json-pretty') return format;
  throw new TspodError('usage', `image list: unknown format "${format}"`, {
    hint: 'use --format=json or --format=json-pretty',
  });
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
