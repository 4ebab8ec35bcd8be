/**
 * Builds dist/: the bundle (esbuild, one chunk per lazily imported part), and the C parts with `cc`
 * alone. Run by `npm ci` (as its prepare step) and by `npm run build`.
 */
import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, type Plugin } from 'esbuild';
import { buildC } from './build-c.ts';
import { warmUp } from './warm-up.ts';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
process.chdir(root);
mkdirSync('dist', { recursive: true });

/** See scripts/lazy/README.md. Packages keep the real modules. */
const lazyBuiltins: Plugin = {
  name: 'lazy-builtins',
  setup({ onResolve }) {
    onResolve(
      { filter: /^node:(crypto|child_process|net|fs\/promises|timers\/promises)$/ },
      ({ path, importer }) =>
        importer.includes('/node_modules/')
          ? undefined
          : {
              path: join(
                root,
                'scripts/lazy',
                `${path.slice('node:'.length).replace('/', '-')}.ts`,
              ),
              sideEffects: false,
            },
    );
  },
};

async function buildBundle(name: string, source: string): Promise<readonly string[]> {
  const result = await build({
    entryPoints: { [name]: source },
    outdir: 'dist',
    bundle: true,
    splitting: true,
    plugins: [lazyBuiltins],
    format: 'esm',
    platform: 'node',
    target: 'node24',
    chunkNames: 'chunk-[hash]',
    minify: true,
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
  return Object.keys(result.metafile.outputs);
}

function removeStaleChunks(made: ReadonlySet<string>): void {
  for (const name of globChunks()) if (!made.has(name)) rmSync(name);
}

function globChunks(): string[] {
  return readdirSync('dist')
    .filter(name => /^chunk-.*\.js$/.test(name))
    .map(name => `dist/${name}`);
}

// Apart, so that they share no chunks: the fewer files an entry consists of, the sooner it runs.
const [outputs] = await Promise.all([
  Promise.all([
    buildBundle('tspod', 'src/main.ts'),
    buildBundle('unpack-child', 'stage0/unpack/child.ts'),
  ]),
  buildC(root),
]);
removeStaleChunks(new Set(outputs.flat()));
warmUp(root);
