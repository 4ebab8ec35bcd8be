/** Where the parts lie that the project's build makes; beside the bundle, or in dist/ for tests that run the sources. */
import { fileURLToPath } from 'node:url';

const folder = fileURLToPath(
  new URL(import.meta.url.includes('/dist/') ? '.' : '../../dist/', import.meta.url),
);

/** Absolute path of a built part. */
export function artifact(
  name:
    | 'launch'
    | 'stage2'
    | 'vm'
    | 'native.node'
    | 'tspod.js'
    | 'unpack-child.js'
    | 'index-child.js'
    | 'disk-child.js'
    | 'erofs-sample.tar'
    | 'erofs-sample.meta',
): string {
  return folder + name;
}
