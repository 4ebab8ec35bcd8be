/** Which kind of image an archive is, by what it begins with: names do not bind, as for rkt. */
import { closeSync, constants, openSync, readSync } from 'node:fs';
import { systemError } from '../../src/errors.ts';
import { FieldError, isZeroBlock, numberField } from '../unpack/tar-fields.ts';
import { headerName } from '../unpack/tar-reader.ts';
import { compressionOfBytes } from './compression.ts';

const BLOCK = 512;
/** Extension headers before the first member. */
const MAX_HEADERS = 16;

/** A compressed archive is an ACI: a layout's is read in place and can't be compressed. */
export function archiveKind(path: string): 'aci' | 'oci-archive' {
  if (path.endsWith('.aci')) return 'aci';
  let fd: number | undefined;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    return kindOf(fd);
  } catch (error) {
    if (error instanceof FieldError) return 'oci-archive';
    throw systemError(`image "${path}": can't read it`, error);
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

function kindOf(fd: number): 'aci' | 'oci-archive' {
  const block = Buffer.alloc(BLOCK);
  let at = 0;
  for (let headers = 0; headers < MAX_HEADERS; headers += 1) {
    if (readSync(fd, block, 0, BLOCK, at) < BLOCK || isZeroBlock(block)) return 'oci-archive';
    if (at === 0 && compressionOfBytes(block) !== 'none') return 'aci';
    const flag = String.fromCharCode(block[156] ?? 0);
    if (!'xgLKV'.includes(flag)) {
      const [first] = headerName(block)
        .toString('latin1')
        .split('/')
        .filter(part => part !== '' && part !== '.');
      return first === 'manifest' || first === 'rootfs' ? 'aci' : 'oci-archive';
    }
    const size = numberField(block, 124, 12, 'the size');
    at += BLOCK + Math.ceil(Math.max(0, size) / BLOCK) * BLOCK;
  }
  return 'oci-archive';
}
