/**
 * Debian's docker-registry on a free port of loopback. The one with the images is started once per test
 * run over storage that is kept in the cache; a test that needs to break something starts one of its own.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface Registry {
  /** `127.0.0.1:PORT` */
  readonly host: string;
  readonly stop: () => Promise<void>;
}

/** @param htpasswd a bcrypt htpasswd file's text; with it the registry asks for basic auth. */
export async function startRegistry(storage: string, htpasswd?: string): Promise<Registry> {
  const work = mkdtempSync(join(tmpdir(), 'tspod-registry-'));
  const port = await freePort();
  const host = `127.0.0.1:${port}`;
  mkdirSync(storage, { recursive: true });
  const auth =
    htpasswd === undefined
      ? ''
      : `auth:\n  htpasswd:\n    realm: test\n    path: ${work}/htpasswd\n`;
  if (htpasswd !== undefined) writeFileSync(join(work, 'htpasswd'), htpasswd);
  const config = `version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage:\n  filesystem: {rootdirectory: ${storage}}\n  delete: {enabled: true}\nhttp: {addr: "${host}", secret: tests}\n${auth}`;
  writeFileSync(join(work, 'config.yml'), config);
  const child = spawn('docker-registry', ['serve', join(work, 'config.yml')], { stdio: 'ignore' });
  await waitForPort(port, child);
  return {
    host,
    stop: async () => {
      await ended(child);
      rmSync(work, { recursive: true, force: true });
    },
  };
}

/** Copies a layout's `latest` to the registry under `name`. @throws Error with skopeo's words. */
export function push(
  layout: string,
  registry: Registry,
  name: string,
  more: readonly string[] = [],
): void {
  const target = `docker://${registry.host}/${name}`;
  const args = ['copy', '-q', '--dest-tls-verify=false', ...more, `oci:${layout}:latest`, target];
  const copied = spawnSync('skopeo', args, { encoding: 'utf8' });
  if (copied.status !== 0)
    throw new Error(`skopeo ${args.join(' ')}: ${copied.stderr}${copied.error ?? ''}`);
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise(resolve => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

export async function waitForPort(port: number, child?: ChildProcess): Promise<void> {
  for (let tries = 0; tries < 600; tries++) {
    if (child !== undefined && (child.exitCode !== null || child.signalCode !== null))
      throw new Error(
        `the server at port ${port} ended with ${child.exitCode ?? child.signalCode}`,
      );
    if (await accepts(port)) return;
    await new Promise(resolve => setTimeout(resolve, 50));
  }
  throw new Error(`nothing answers at port ${port}`);
}

function accepts(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect({ host: '127.0.0.1', port });
    const answer = (value: boolean) => {
      socket.destroy();
      resolve(value);
    };
    socket.once('connect', () => answer(true));
    socket.once('error', () => answer(false));
  });
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  await new Promise<void>(resolve => {
    child.once('exit', () => resolve());
    child.kill('SIGKILL');
  });
}
