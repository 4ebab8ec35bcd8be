import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { openStore } from '../../src/store/store.ts';
import { makeErofsForm } from '../../stage0/unpack/erofs/form.ts';
import { viewErofs } from '../support/erofs-view.ts';
import { layerContract } from './layer-contract.ts';
import { sha256, temporaryFolder } from './support.ts';
import { tar } from './tar.ts';
import { readTree } from './tree.ts';

const dir = mkdtempSync(join(tmpdir(), 'tspod-erofs-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

layerContract(makeErofsForm(dir), { view: viewErofs });

describe('by loop devices, as before Linux 6.12', () => {
  /** Loop devices whose files lie in a folder: other tests have some of their own. */
  const loopsOf = (folder: string) =>
    readdirSync('/sys/block').filter(name => {
      try {
        return readFileSync(`/sys/block/${name}/loop/backing_file`, 'utf8').includes(folder);
      } catch {
        return false;
      }
    });

  test('the tree is the same, and the devices end with the mount', async () => {
    const folder = temporaryFolder();
    const store = openStore(folder.path, { forms: [makeErofsForm(folder.path)] });
    try {
      const bytes = tar([
        { name: 'etc/', type: '5', mode: 0o700 },
        { name: 'etc/passwd', content: 'root:x:0:0::/:/bin/sh\n', mode: 0o640, gid: 42 },
        { name: 'big', content: Buffer.alloc(1_000_001, 'big ') },
      ]);
      const writer = await store.layers.open(sha256(bytes), 'none');
      await writer?.write(bytes);
      await writer?.commit();
      await store.layers.rest();
      const tree = store.layers.tree(sha256(bytes));
      if (tree.form !== 'erofs') throw new Error('not in this form');
      const views = (['file', 'loop'] as const).map(by => {
        using view = viewErofs({ ...tree, by });
        expect(loopsOf(folder.path)).toHaveLength(by === 'loop' ? 2 : 0);
        return readTree(view.path);
      });
      expect(views[1]).toEqual(views[0]);
      await expect.poll(() => loopsOf(folder.path)).toEqual([]);
    } finally {
      store.close();
      folder[Symbol.dispose]();
    }
  });
});
