/** A file that a thread of its own writes and hashes, while this one looks at what the bytes mean. */
import { type DigestFile, native } from './native.ts';

export interface DigestOutput {
  /** The bytes are not copied: nobody may change them any more. */
  write(bytes: Uint8Array): void;
  /** Waits until all is written. @returns the digest in hexadecimal. @throws the write's error */
  end(): string;
  /** Ends what `end` has not; to be called in any case. */
  close(): void;
}

/** @param fd gets the bytes from its position on; it stays the caller's */
export function openDigestFile(fd: number, algorithm: 'sha256' | 'sha512'): DigestOutput {
  const { digestFile, digestFileWrite, digestFileEnd } = native();
  const file: DigestFile = digestFile(fd, algorithm);
  let ended = false;
  const end = () => {
    ended = true;
    return digestFileEnd(file);
  };
  return {
    write: bytes => digestFileWrite(file, bytes),
    end,
    close: () => {
      if (ended) return;
      try {
        end();
      } catch {
        // Whoever closes without an end has failed for another reason.
      }
    },
  };
}
