/**
 * `manifest.json` of an archive that `docker save` wrote (since Docker 1.10; "Docker Image Specification v1.2",
 * "Combined Image JSON + Filesystem Changeset Format"): a list of images, each with the member names of its
 * config and layers and with tags. Tags choose among the images; they name nothing in the store.
 */
import { TspodError } from '../../src/errors.ts';
import { JsonReader, parseBoundedJson } from '../../src/image/json.ts';
import { MANIFEST_MAX_BYTES, MAX_LAYERS } from '../../src/image/oci-validate.ts';
import { dockerArchiveRef } from '../../src/image/reference.ts';

const MAX_IMAGES = 1000;
const MAX_TAGS = 1000;
const MAX_SHOWN = 20;

export interface SavedImage {
  /** A member's name. */
  readonly config: string;
  /** Members' names, lowest first. */
  readonly layers: readonly string[];
  /** Complete, e.g. `docker.io/library/busybox:latest`; those that are no references are left out. */
  readonly tags: readonly string[];
}

/**
 * @param shown e.g. `image docker-archive:/x.tar`
 * @throws TspodError 'protocol' with the JSON path, or 'limit'
 */
export function parseSavedImages(bytes: Uint8Array, shown: string): readonly SavedImage[] {
  const reader = new JsonReader({ what: `${shown}: manifest.json`, code: 'protocol' });
  const value = parseBoundedJson(bytes, MANIFEST_MAX_BYTES, reader.kind);
  return reader.array(value, '', MAX_IMAGES).map((item, index) => {
    const object = reader.object(item, `[${index}]`);
    const layers = reader.strings(object.Layers, `[${index}].Layers`, MAX_LAYERS);
    return {
      config: reader.nonEmptyString(object.Config, `[${index}].Config`),
      layers: layers.map(memberName),
      tags: reader.strings(object.RepoTags, `[${index}].RepoTags`, MAX_TAGS).flatMap(complete),
    };
  });
}

function memberName(name: string): string {
  return name.replace(/^(?:\.\/)+/, '');
}

function complete(tag: string): string[] {
  try {
    return [dockerArchiveRef(tag, tag)];
  } catch (error) {
    if (error instanceof TspodError) return [];
    throw error;
  }
}

/**
 * @param ref `NAME:TAG` in its complete form, `@INDEX`, or undefined for the only image
 * @throws TspodError 'not-found' or 'ambiguous' that lists what there is
 */
export function chooseSavedImage(
  images: readonly SavedImage[],
  ref: string | undefined,
  shown: string,
): SavedImage {
  const there = images.flatMap(({ tags }, index) => (tags.length > 0 ? tags : [`@${index}`]));
  const more = there.length > MAX_SHOWN ? ` and ${there.length - MAX_SHOWN} more` : '';
  const hint = `there is ${there.slice(0, MAX_SHOWN).join(', ')}${more}`;
  const [first] = images;
  if (first === undefined) throw new TspodError('not-found', `${shown}: there is no image in it`);
  if (ref === undefined) {
    if (images.length === 1) return first;
    throw new TspodError('ambiguous', `${shown}: there are ${images.length} images in it`, {
      hint,
    });
  }
  const found = ref.startsWith('@')
    ? images.slice(Number(ref.slice(1)), Number(ref.slice(1)) + 1)
    : images.filter(({ tags }) => tags.includes(ref));
  const [image] = found;
  if (image === undefined) {
    throw new TspodError('not-found', `${shown}: no image of this name in it`, { hint });
  }
  if (found.length > 1) {
    throw new TspodError('ambiguous', `${shown}: ${found.length} images have this name`);
  }
  return image;
}
