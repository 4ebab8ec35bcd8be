import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { makeErofsForm } from '../../stage0/unpack/erofs/form.ts';
import { viewErofs } from '../support/erofs-view.ts';
import { layerContract } from './layer-contract.ts';

const dir = mkdtempSync(join(tmpdir(), 'tspod-erofs-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

layerContract(makeErofsForm(dir), { view: viewErofs });
