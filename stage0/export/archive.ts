/** Regular files into a tar, one after another: what layouts and docker-archives are made of. */
import { Header } from 'tar/header';
import { writeAll } from './write-all.ts';

const BLOCK = 512;

export class Archive {
  readonly #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  async file(
    path: string,
    size: number,
    content: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  ): Promise<void> {
    const header = new Header({
      path,
      size,
      mode: 0o644,
      uid: 0,
      gid: 0,
      mtime: new Date(0),
      type: 'File',
    });
    const block = Buffer.alloc(BLOCK);
    if (header.encode(block)) throw new Error(`${path} needs more than a header`);
    await this.#write(block);
    let written = 0;
    for await (const chunk of content) {
      await this.#write(chunk);
      written += chunk.length;
    }
    if (written !== size) throw new Error(`${path} has ${written} bytes, not ${size}`);
    if (size % BLOCK !== 0) await this.#write(Buffer.alloc(BLOCK - (size % BLOCK)));
  }

  bytes(path: string, content: string | Uint8Array): Promise<void> {
    const bytes = Buffer.from(content);
    return this.file(path, bytes.length, [bytes]);
  }

  async end(): Promise<void> {
    await this.#write(Buffer.alloc(2 * BLOCK));
  }

  #write(chunk: Uint8Array): Promise<void> {
    return writeAll(this.#fd, chunk);
  }
}
