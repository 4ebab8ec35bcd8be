/** Help pages: every command has one, in rkt's layout, within the terminal's width. */
import { describe, expect, test } from 'vitest';
import { COMMANDS } from '../../src/cli.ts';
import { TspodError } from '../../src/errors.ts';
import type { FlagTable } from '../../stage0/args/flags.ts';
import { helpPage } from '../../stage0/args/help.ts';
import { GLOBAL_FLAGS } from '../../stage0/args/tables.ts';

const SHOWN = COMMANDS.filter(({ hidden }) => !hidden);

function page(words: readonly string[], width = 80): Promise<string> {
  return helpPage(COMMANDS, 'tspod', words, width);
}

describe.each([40, 60, 80, 100])('%i columns', width => {
  test.each(SHOWN.map(({ path }) => path))('%s', async path => {
    const text = await page(path.split(' '), width);
    const lines = text.split('\n');
    expect(lines[0]).toBe('NAME:');
    expect(lines[1]).toMatch(new RegExp(`^  tspod ${path} - .`));
    expect(text).toMatch(new RegExp(`\nUSAGE:\n  tspod ${path}\\b`));
    expect(text.endsWith('\n')).toBe(true);
    for (const line of lines) {
      // what is under a title is indented, and there are never two empty lines
      expect(line === '' || /^(?: {2,}\S|[A-Z ]+:$)/.test(line), line).toBe(true);
      // yargs keeps its column of names whole, and a single word may be longer than a line
      if (width >= 80) expect(line.length, line).toBeLessThanOrEqual(width);
    }
    expect(text).not.toContain('\n\n\n');
  });
});

test.each(SHOWN)(
  '$path: all flags that it has, and none that it refuses',
  async ({ path, flags }) => {
    const text = await page(path.split(' '));
    const table: FlagTable = { ...flags, ...GLOBAL_FLAGS };
    for (const [name, spec] of Object.entries(table)) {
      const shown = new RegExp(`^ +--${name}\\b(?!-)`, 'm').test(text);
      expect(shown, `--${name}`).toBe(!spec.hidden && spec.refused === undefined);
    }
  },
);

test('the whole: every command once, with what it is for', async () => {
  const text = await page([]);
  expect(text).toMatch(/^NAME:\n {2}tspod - .*\n\nUSAGE:\n {2}tspod COMMAND/);
  const commands = text.slice(text.indexOf('COMMANDS:\n'), text.indexOf('\n\nGLOBAL OPTIONS:\n'));
  for (const { path, about } of SHOWN) {
    const found = commands.split('\n').filter(line => line.startsWith(`  ${path}  `));
    expect(found, path).toHaveLength(1);
    expect(commands.replace(/\n +/g, ' ')).toContain(about);
  }
  expect(text).not.toContain('finish');
});

test('a group: its commands', async () => {
  const text = await page(['image']);
  expect(text).toContain('USAGE:\n  tspod image COMMAND');
  expect(text).toContain('  image list ');
  expect(text).not.toContain('run-prepared');
  expect(text).not.toContain('image fetch');
});

test('a default is shown, an empty one is not', async () => {
  expect(await page(['gc'])).toMatch(/--grace-period .*\[default: 30m0s\]/s);
  expect(await page(['list'])).not.toMatch(/--user-config[^-]*default/);
});

test('paragraphs of a description are apart, their lines indented', async () => {
  const text = await page(['run']);
  expect(text).toMatch(
    /\nDESCRIPTION:\n {2}Flags of an image[^\n]*\n(?: {2}[^\n]*\n)*\n {2}Unlike rkt:/,
  );
});

test('an unknown command', async () => {
  await expect(page(['bogus'])).rejects.toThrow(TspodError);
  await expect(page(['bogus'])).rejects.toThrow('unknown command "bogus" for "tspod"');
});

test('rkt has mutable pods for who asks for them, not in its list', async () => {
  expect(await helpPage(COMMANDS, 'rkt', [], 80)).not.toContain('app sandbox');
  expect(await helpPage(COMMANDS, 'rkt', ['app'], 80)).toContain('app sandbox');
  expect(await page([])).toContain('app sandbox');
});
