/** Before any test: the images are made and lie in a registry on loopback. After the last: it is stopped. */
import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import { CACHE, type ImageName, imageLayout, recipesKey } from '../images/images.ts';
import { push, startRegistry } from './registry.ts';

const NAMES: readonly ImageName[] = ['busybox', 'python', 'nginx', 'redis'];

declare module 'vitest' {
  export interface ProvidedContext {
    /** `127.0.0.1:PORT`; holds tools/busybox, tools/python, tools/nginx and tools/redis, tag latest. */
    registry: string;
    /** Folder with the same images as OCI layouts. */
    layouts: string;
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  mkdirSync(CACHE, { recursive: true });
  for (const name of NAMES) await imageLayout(name);
  const storage = join(CACHE, `registry-${recipesKey()}`);
  if (!existsSync(storage)) await fill(storage);
  const registry = await startRegistry(storage);
  project.provide('registry', registry.host);
  project.provide('layouts', join(CACHE, `layouts-${recipesKey()}`));
  return registry.stop;
}

async function fill(storage: string): Promise<void> {
  const making = `${storage}.${process.pid}`;
  const registry = await startRegistry(making);
  try {
    for (const name of NAMES) push(await imageLayout(name), registry, `tools/${name}:latest`);
  } finally {
    await registry.stop();
  }
  try {
    renameSync(making, storage);
  } catch {
    rmSync(making, { recursive: true, force: true }); // another run was first
  }
}
