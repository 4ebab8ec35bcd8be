/**
 * From an archive to the source that fits what is in it: an OCI layout, or what `docker save` wrote. One that
 * is both (Docker since 25) is read as the layout, whose manifests are those of registries, unless the
 * reference says docker-archive.
 */
import { closeSync } from 'node:fs';
import { resolve } from 'node:path';
import { TspodError } from '../../src/errors.ts';
import type { LayoutReference } from '../../src/image/reference.ts';
import { fileContent } from '../verify/openpgp/find-signature.ts';
import { type ArchiveFiles, openArchiveFiles } from './archive-files.ts';
import { DockerArchiveSource } from './docker-archive.ts';
import { LayoutSource } from './layout-source.ts';
import type { ImageSource } from './source.ts';
import { openPlainArchive, STDIN } from './spool.ts';

/**
 * @param dir the data folder, where a copy is made of what can't be read in place
 * @param kind undefined: by content
 * @param input for `-`: what `copyOfInput` gave
 * @throws TspodError 'not-found', 'protocol', 'limit'
 */
export async function openArchive(
  dir: string,
  path: string,
  kind: 'oci-archive' | 'docker-archive' | undefined,
  tag: string | undefined,
  input?: number,
): Promise<ImageSource> {
  const shown = kind === undefined ? `image ${path}` : `image ${kind}:${path}`;
  const { plain, whole } = await openPlainArchive(dir, path, shown, input);
  const files = filesOf(plain, whole, shown);
  // What lies beside it would be a stranger's: standard input has no place.
  const at = path === STDIN ? '/dev/stdin' : resolve(path);
  const archive = { path: at, content: () => fileContent(whole) };
  try {
    const found = kind ?? kindOf(files.resolve('oci-layout'), files.resolve('manifest.json'));
    if (found === undefined) {
      const old = files.resolve('repositories') !== undefined;
      throw new TspodError(
        'protocol',
        `${shown}: neither "oci-layout" nor "manifest.json" is in it`,
        old ? { hint: 'it is of a Docker before 1.10: load and save it with a newer one' } : {},
      );
    }
    if (found === 'docker-archive' && path.includes(':')) {
      throw new TspodError('reference', `${shown}: the path of a docker-archive has no colon`, {
        hint: 'rename it, or redirect it into "-"',
      });
    }
    const reference: LayoutReference = { kind: found, path, tag };
    return found === 'oci-archive'
      ? new LayoutSource(reference, files, archive)
      : new DockerArchiveSource(reference, files, archive);
  } catch (error) {
    files.close();
    throw error;
  }
}

/** Closing them closes both descriptors. */
function filesOf(plain: number, whole: number, shown: string): ArchiveFiles {
  const other = whole === plain ? undefined : whole;
  try {
    const files = openArchiveFiles(plain, shown);
    if (other === undefined) return files;
    return {
      ...files,
      close: () => {
        files.close();
        closeSync(other);
      },
    };
  } catch (error) {
    if (other !== undefined) closeSync(other);
    throw error;
  }
}

function kindOf(
  layout: string | undefined,
  saved: string | undefined,
): 'oci-archive' | 'docker-archive' | undefined {
  if (layout !== undefined) return 'oci-archive';
  return saved === undefined ? undefined : 'docker-archive';
}
