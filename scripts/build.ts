/**
 * Builds dist/: the bundle (esbuild, one chunk per lazily imported part), and the C parts with `cc`
 * alone. Run by `npm ci` (as its prepare step) and by `npm run build`.
 */
import { mkdirSync, rmSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { buildC } from './build-c.ts';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
process.chdir(root);
mkdirSync('dist', { recursive: true });

async function buildBundle(): Promise<void> {
  const result = await build({
    entryPoints: { tspod: 'src/main.ts', 'unpack-child': 'stage0/unpack/child.ts' },
    outdir: 'dist',
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node24',
    chunkNames: 'chunk-[hash]',
    minifySyntax: true,
    minifyWhitespace: true,
    legalComments: 'none',
    metafile: true,
    // yargs measures help text with it, at 30 ms of import; terminals here are not that wide.
    alias: { 'string-width': './scripts/string-width.ts' },
    // Packages in CommonJS ask for `require` of Node's own modules.
    banner: {
      js: "import{createRequire as __cr}from'node:module';const require=__cr(import.meta.url);",
    },
    define: { __TSPOD_VERSION__: JSON.stringify(process.env['npm_package_version'] ?? '0.1.0') },
    logLevel: 'warning',
  });
  removeStaleChunks(new Set(Object.keys(result.metafile.outputs)));
}

function removeStaleChunks(made: ReadonlySet<string>): void {
  for (const name of globChunks()) if (!made.has(name)) rmSync(name);
}

function globChunks(): string[] {
  return fs.readdirSync('dist').filter(name => /^chunk-.*\.js$/.test(name)).map(name => `dist/${name}`);
}

import fs from 'node:fs';

await Promise.all([buildBundle(), buildC(root)]);
