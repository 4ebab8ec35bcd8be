/** What of other people's work is shipped, and how. */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const dist = fileURLToPath(new URL('../dist/', import.meta.url));
const notices = readFileSync(`${dist}THIRD-PARTY-NOTICES`, 'utf8');
const root = fileURLToPath(new URL('../', import.meta.url));

test('every package that is needed at run time is named with its licence', () => {
  const { dependencies } = JSON.parse(readFileSync(`${root}package.json`, 'utf8'));
  for (const name of Object.keys(dependencies)) {
    const { version, license } = JSON.parse(
      readFileSync(`${root}node_modules/${name}/package.json`, 'utf8'),
    );
    // One that is declared and not in the bundle needs no notice, and should not be declared.
    expect(notices, name).toContain(`\n${name} ${version}\nLicence: ${license}\n`);
  }
  expect(notices).toContain('GNU LESSER GENERAL PUBLIC LICENSE');
  expect(notices).toContain('GNU GENERAL PUBLIC LICENSE\n                       Version 3');
});

test('OpenPGP.js is a file of its own, as it came', () => {
  const own = readFileSync(`${dist}openpgp.js`);
  expect(own).toEqual(readFileSync(`${root}node_modules/openpgp/dist/node/openpgp.min.mjs`));
  const chunks = readdirSync(dist).filter(name => name.startsWith('chunk-'));
  const texts = chunks.map(name => readFileSync(`${dist}${name}`, 'utf8'));
  expect(texts.some(text => /from ?"\.\/openpgp\.js"/.test(text))).toBe(true);
  expect(texts.some(text => text.includes('OpenPGP.js v'))).toBe(false);
});
