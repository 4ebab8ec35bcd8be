/** One sandbox per test, closed after it; a test that leaves anything on the machine fails. */
import { afterEach, beforeEach, expect, inject } from 'vitest';
import { Sandbox } from '../support/tspod.ts';

export function useSandbox(): { readonly box: Sandbox } {
  let current: Sandbox | undefined;
  beforeEach(() => {
    current = new Sandbox();
  });
  afterEach(async () => {
    const sandbox = current;
    current = undefined;
    const left = (await sandbox?.leftovers()) ?? [];
    await sandbox?.close();
    expect(left).toEqual([]);
  });
  return {
    get box() {
      if (current === undefined) throw new Error('outside a test');
      return current;
    },
  };
}

export type FixtureName = 'busybox' | 'python' | 'nginx' | 'redis';

/** The image as the registry of this test run serves it. */
export function fromRegistry(name: FixtureName): string {
  return `docker://${inject('registry')}/tools/${name}:latest`;
}

/** The image as an OCI layout. */
export function fromLayout(name: FixtureName): string {
  return `oci:${inject('layouts')}/${name}:latest`;
}

/** Busybox's shell with a script, as the words after `run`. */
export function shell(script: string, ...imageFlags: readonly string[]): string[] {
  return [fromLayout('busybox'), ...imageFlags, '--', '-c', script];
}
