/** Which kind of image an archive is, by what it begins with: names do not bind, as for rkt. */
import { closeSync, constants, createReadStream, fstatSync, openSync } from 'node:fs';
import { systemError, TspodError } from '../../src/errors.ts';
import { DEFAULT_BOUNDS } from '../unpack/bounds.ts';
import { decompress } from '../unpack/decompress.ts';
import { FieldError, isZeroBlock, numberField } from '../unpack/tar-fields.ts';
import { headerName } from '../unpack/tar-reader.ts';
import { compressionOfBytes, SNIFF_BYTES } from './compression.ts';

const BLOCK = 512;
/** Extension headers and folders before the first member that tells. */
const MAX_HEADERS = 16;
/** So much of the uncompressed archive is looked at. */
const LOOK = 256 * 1024;

/**
 * An ACI begins with `manifest` or `rootfs`; any other tar holds images of Docker or of an OCI layout.
 * @throws TspodError when it can't be read
 */
export async function archiveKind(path: string): Promise<'aci' | 'images'> {
  if (path.endsWith('.aci')) return 'aci';
  const what = `image "${path}"`;
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    throw systemError(`${what}: can't read it`, error);
  }
  try {
    if (!fstatSync(fd).isFile()) throw new TspodError('not-found', `${what}: not a regular file`);
    return kindOf(await beginning(fd));
  } catch (error) {
    if (error instanceof FieldError) return 'images';
    // A decoder that is not there, or damaged data: whoever reads the whole says so.
    if (error instanceof TspodError && error.code === 'unsupported') return 'aci';
    if (error instanceof TspodError && error.code === 'unpack') return 'images';
    throw systemError(`${what}: can't read it`, error);
  } finally {
    closeSync(fd);
  }
}

async function beginning(fd: number): Promise<Buffer> {
  const sniff = createReadStream('', { fd, start: 0, end: SNIFF_BYTES - 1, autoClose: false });
  const parts: Buffer[] = [];
  for await (const chunk of sniff) parts.push(chunk);
  const compression = compressionOfBytes(Buffer.concat(parts));
  // A descriptor of its own: destroying a stream closes it.
  const input = createReadStream(`/proc/self/fd/${fd}`);
  const found: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of decompress(input, compression, DEFAULT_BOUNDS)) {
      found.push(chunk);
      length += chunk.length;
      if (length >= LOOK) break;
    }
  } finally {
    input.destroy();
  }
  return Buffer.concat(found);
}

function kindOf(start: Buffer): 'aci' | 'images' {
  let at = 0;
  for (let headers = 0; headers < MAX_HEADERS; headers += 1) {
    const block = start.subarray(at, at + BLOCK);
    if (block.length < BLOCK || isZeroBlock(block)) return 'images';
    const flag = String.fromCharCode(block[156] ?? 0);
    if (!'xgLKV'.includes(flag)) {
      const [first] = headerName(block)
        .toString('latin1')
        .split('/')
        .filter(part => part !== '' && part !== '.');
      if (first !== undefined) return first === 'manifest' || first === 'rootfs' ? 'aci' : 'images';
    }
    const size = numberField(block, 124, 12, 'the size');
    at += BLOCK + Math.ceil(Math.max(0, size) / BLOCK) * BLOCK;
  }
  return 'images';
}
