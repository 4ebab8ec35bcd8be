/**
 * dist/THIRD-PARTY-NOTICES: what of other people's work is in dist/, and under which terms, from what the bundler
 * says that it took. A package of unknown licence stops the build: nobody may pass it on.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Metafile } from 'esbuild';

/** Shipped as a file of its own, so that whoever wants can put another version in its place (LGPL 3.0, 4 d). */
export const OPENPGP_FILE = 'openpgp.js';

const HEAD = `tspod is under the Apache License 2.0 (LICENSE). It comes with the packages below.

OpenPGP.js is under the GNU Lesser General Public License, version 3 or later. It is not part of a bundle: dist/${OPENPGP_FILE} is
the package's own file, dist/node/openpgp.min.mjs, unchanged. To use a modified version put it in that file's place; it has
to export the same names. Its source: https://github.com/openpgpjs/openpgpjs.

The programs dist/launch, dist/stage2 and dist/tspod are linked with the C library of the machine that built them; for the
GNU C Library the LGPL 2.1 or later holds. Their sources and the script that builds them (scripts/build-c.ts) are in this
package, so that they can be linked with another one: "node scripts/build.ts".
`;

/** @param also packages that are shipped outside of the bundles */
export function writeNotices(metafiles: readonly Metafile[], also: readonly string[]): void {
  const packages = new Set(also);
  for (const { outputs } of metafiles) {
    for (const { inputs } of Object.values(outputs)) {
      for (const [path, { bytesInOutput }] of Object.entries(inputs)) {
        const name = /^.*node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[0];
        if (name !== undefined && bytesInOutput > 0) packages.add(name.replace(/\/$/, ''));
      }
    }
  }
  const notices = [...packages].sort().map(noticeOf);
  // The Lesser General Public License is the General one with additions, and wants both to come along.
  const gpl = readFileSync('licenses/GPL-3.0.txt', 'utf8');
  writeFileSync('dist/THIRD-PARTY-NOTICES', [HEAD, ...notices, gpl].join(`\n${'-'.repeat(72)}\n`));
}

function noticeOf(folder: string): string {
  const { name, version, license, homepage, author } = JSON.parse(
    readFileSync(join(folder, 'package.json'), 'utf8'),
  );
  const bodies = textsOf(folder);
  if (bodies.length === 0) bodies.push(standardText(folder, license, author));
  const lines = [`${name} ${version}`, `Licence: ${license}`];
  if (typeof homepage === 'string') lines.push(homepage);
  return `${lines.join('\n')}\n\n${bodies.join('\n\n')}\n`;
}

/** Of a package that names a licence and does not have its text. */
function standardText(folder: string, license: unknown, author: unknown): string {
  // The same for everybody; it lies beside tspod's own sources.
  if (license === 'Apache-2.0') return 'Its text is that of the file LICENSE.';
  const holder =
    typeof author === 'object' && author !== null && 'name' in author ? author.name : author;
  if (license === 'MIT' && typeof holder === 'string') return `Copyright ${holder}\n\n${MIT}`;
  throw new Error(`${folder}: it has no licence text, and can't be passed on`);
}

/** https://spdx.org/licenses/MIT */
const MIT = `Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.`;

/** Files of that name, else the chapter of the README: some packages have it there. */
function textsOf(folder: string): string[] {
  const files = readdirSync(folder);
  const own = files.filter(file => /^(?:licen[cs]e|copying|notice)/i.test(file));
  if (own.length > 0) return own.map(file => readFileSync(join(folder, file), 'utf8').trim());
  const readme = files.find(file => /^readme/i.test(file));
  if (readme === undefined) return [];
  const text = readFileSync(join(folder, readme), 'utf8');
  const heading = /^(?:#+ *licen[cs]e *|licen[cs]e *\r?\n-+ *)$/im.exec(text);
  const chapter = heading === null ? undefined : text.slice(heading.index + heading[0].length);
  return chapter !== undefined && /permission|warranty/i.test(chapter) ? [chapter.trim()] : [];
}
