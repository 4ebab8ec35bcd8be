/** A data folder with pods put into it by hand, and processes that hold their locks. */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { PodFolder } from '../../src/pod/lifecycle.ts';

export class PodsFolder {
  readonly dir = mkdtempSync(join(tmpdir(), 'tspod-pods-'));
  readonly #holders: ChildProcess[] = [];

  path(folder: string, uuid: string): string {
    return join(this.dir, 'pods', folder, uuid);
  }

  /** A pod with a lock that nobody holds. @returns its UUID */
  add(
    folder: PodFolder,
    files: Readonly<Record<string, string>> = {},
    uuid: string = randomUUID(),
  ): string {
    const path = this.path(folder, uuid);
    mkdirSync(path, { recursive: true });
    for (const [name, text] of Object.entries({ lock: '', ...files }))
      writeFileSync(join(path, name), text);
    return uuid;
  }

  /** A process of its own that holds the lock until it is ended. */
  async hold(folder: PodFolder, uuid: string): Promise<ChildProcess> {
    const lock = join(this.path(folder, uuid), 'lock');
    // -o: the lock is flock's own, so that killing it frees the lock
    const child = spawn('flock', ['-x', '-o', lock, 'sh', '-c', 'echo held; read line'], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.#holders.push(child);
    await new Promise<void>((resolve, reject) => {
      child.stdout?.once('data', () => resolve());
      child.once('exit', () => reject(new Error(`the lock of ${uuid} could not be taken`)));
      child.once('error', reject);
    });
    return child;
  }

  async close(): Promise<void> {
    for (const child of this.#holders) await ended(child);
    rmSync(this.dir, { recursive: true, force: true });
  }
}

/** Kills it as `kill -9` does, and waits until it is gone. */
export async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise(resolve => child.once('exit', resolve));
  child.kill('SIGKILL');
  await gone;
  child.stdin?.destroy();
}
