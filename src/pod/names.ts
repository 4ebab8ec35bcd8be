/** App and volume names: appc's ACName (appc 0.8.11 "AC Name Type"), in the bound of a file's name. */
import { TspodError } from '../errors.ts';

const AC_NAME = /^[a-z0-9]+(?:-[a-z0-9]+)*$/;
/** An app's name is a folder in the pod and in cgroups. */
const MAX_LENGTH = 128;

export function isAcName(text: string): boolean {
  return text.length <= MAX_LENGTH && AC_NAME.test(text);
}

/**
 * An app's name from its image's: the last path element without tag and digest, made to fit.
 * @throws TspodError 'pod' when nothing of it fits
 */
export function appNameFromImage(image: string): string {
  const bare = image
    .replace(/^[a-z-]+:(?:\/\/)?/, '')
    .replace(/@[^/]*$/, '')
    .replace(/\/+$/, '');
  const last = bare.slice(bare.lastIndexOf('/') + 1).replace(/:[^:]*$/, '');
  const name = last
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '')
    .slice(0, MAX_LENGTH)
    .replace(/-+$/, '');
  if (isAcName(name)) return name;
  throw new TspodError('pod', `image ${image}: its name gives no app name`, {
    hint: 'give one with --name',
  });
}
