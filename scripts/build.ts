/**
 * Builds dist/: the bundle (esbuild, one chunk per lazily imported part), and the C parts with `cc`
 * alone. Run by `npm ci` (as its prepare step) and by `npm run build`.
 */
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, type Metafile, type Plugin } from 'esbuild';
import { buildC } from './build-c.ts';
import { buildErofsSample } from './build-erofs-sample.ts';
import { OPENPGP_FILE, writeNotices } from './notices.ts';
import { warmUp } from './warm-up.ts';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
process.chdir(root);
mkdirSync('dist', { recursive: true });

/**
 * Modules of Node as the bundle gets them. Slow ones are loaded at the first call (scripts/lazy/README.md); of the
 * others each name is taken from process.getBuiltinModule, because an `import` looks at all their exports, and a
 * look at those that Node itself makes at the first look loads the streams (`fs.promises`, `fs.ReadStream`; 3 ms)
 * or undici (`http.WebSocket`; 25 ms). Packages keep their other imports.
 */
const builtins: Plugin = {
  name: 'builtins',
  setup({ onLoad, onResolve }) {
    // See notices.ts: a file of its own beside the bundle, as it comes.
    onResolve({ filter: /^openpgp$/ }, () => ({ path: `./${OPENPGP_FILE}`, external: true }));
    onResolve({ filter: /^node:/ }, ({ path, importer, kind }) => {
      if (kind !== 'import-statement') return undefined;
      if (importer.includes('/node_modules/')) {
        return path === 'node:http' ? { path, namespace: 'builtin' } : undefined;
      }
      const lazy = join(root, 'scripts/lazy', `${path.slice('node:'.length).replace('/', '-')}.ts`);
      if (existsSync(lazy)) return { path: lazy, sideEffects: false };
      return { path, namespace: 'builtin' };
    });
    onLoad({ filter: /.*/, namespace: 'builtin' }, async ({ path }) => {
      const module: object = await import(path);
      const names = Object.keys(module).filter(
        name => /^[a-z]\w*$/i.test(name) && name !== 'default' && !isLazy(module, name),
      );
      return {
        contents: [
          `const module = process.getBuiltinModule(${JSON.stringify(path)});`,
          'export default module;',
          ...names.map(name => `export const ${name} = module.${name};`),
        ].join('\n'),
        loader: 'js',
      };
    });
  },
};

/**
 * What a package loads later is a part of the tool as any other (stage0/hot.ts). With one part that does not share the
 * hot chunk, the bundler's own helpers become a chunk more, that every command loads.
 */
const laterParts: Plugin = {
  name: 'later-parts',
  setup({ onLoad }) {
    onLoad(
      { filter: /node_modules\/node-fetch\/src\/utils\/multipart-parser\.js$/ },
      ({ path }) => ({
        contents: `import ${JSON.stringify(join(root, 'stage0/hot.ts'))};\n${readFileSync(path, 'utf8')}`,
        loader: 'js',
      }),
    );
  },
};

/** Whether the module has a getter there. An import of such a name fails the build. */
function isLazy(module: object, name: string): boolean {
  const real: unknown = Reflect.get(module, 'default');
  if (typeof real !== 'object' || real === null) return false;
  return Object.getOwnPropertyDescriptor(real, name)?.get !== undefined;
}

async function buildBundle(name: string, source: string): Promise<Metafile> {
  const result = await build({
    entryPoints: { [name]: source },
    outdir: 'dist',
    bundle: true,
    splitting: true,
    plugins: [builtins, laterParts],
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
      js: "const require=process.getBuiltinModule('node:module').createRequire(import.meta.url);",
    },
    define: { __TSPOD_VERSION__: JSON.stringify(process.env['npm_package_version'] ?? '0.1.0') },
    logLevel: 'warning',
  });
  return result.metafile;
}

function removeStaleChunks(made: ReadonlySet<string>): void {
  for (const name of globChunks()) if (!made.has(name)) rmSync(name);
}

function globChunks(): string[] {
  return readdirSync('dist')
    .filter(name => /^chunk-.*\.js$/.test(name))
    .map(name => `dist/${name}`);
}

buildErofsSample(root);
// Apart, so that they share no chunks: the fewer files an entry consists of, the sooner it runs.
copyFileSync('node_modules/openpgp/dist/node/openpgp.min.mjs', `dist/${OPENPGP_FILE}`);
const [metafiles] = await Promise.all([
  Promise.all([
    buildBundle('tspod', 'src/main.ts'),
    buildBundle('unpack-child', 'stage0/unpack/child.ts'),
    buildBundle('index-child', 'stage0/unpack/erofs/child.ts'),
    buildBundle('disk-child', 'stage0/unpack/erofs/disk-child.ts'),
  ]),
  buildC(root),
]);
removeStaleChunks(new Set(metafiles.flatMap(({ outputs }) => Object.keys(outputs))));
writeNotices(metafiles, ['node_modules/openpgp']);
warmUp(root);
