import { expect, test } from 'vitest';
import { renderTable } from '../src/table.ts';

test('as Go’s tabwriter prints rkt’s image list', () => {
  expect(
    renderTable([
      ['ID', 'NAME', 'SIZE', 'IMPORT TIME', 'LAST USED'],
      ['sha512-91e98d7f1679', 'coreos.com/etcd:v3.0.3', '31MiB', '2 minutes ago', 'now'],
    ]),
  ).toBe(
    'ID\t\t\tNAME\t\t\tSIZE\tIMPORT TIME\tLAST USED\n' +
      'sha512-91e98d7f1679\tcoreos.com/etcd:v3.0.3\t31MiB\t2 minutes ago\tnow\n',
  );
});

test('a cell that fills its tab stop gets one more', () => {
  expect(
    renderTable([
      ['1234567', 'x'],
      ['12345678', 'y'],
    ]),
  ).toBe('1234567\t\tx\n12345678\ty\n');
});

test('empty cells, a header alone, an empty table', () => {
  expect(
    renderTable([
      ['UUID', 'APP', 'STATE'],
      ['0f1e2d3c', 'one', 'running'],
      ['', 'two', ''],
    ]),
  ).toBe('UUID\t\tAPP\tSTATE\n0f1e2d3c\tone\trunning\n\t\ttwo\t\n');
  expect(renderTable([['NAME', 'STATE']])).toBe('NAME\tSTATE\n');
  expect(renderTable([])).toBe('');
});

test('a line with fewer cells ends the run of a column', () => {
  expect(renderTable([['long name here', 'x'], ['alone'], ['a', 'y']])).toBe(
    'long name here\tx\nalone\na\ty\n',
  );
});

test('names count by characters, and control characters can’t forge cells', () => {
  expect(renderTable([['äöüßäöü', 'x']])).toBe('äöüßäöü\tx\n');
  expect(renderTable([['a\tb\nc\u001b[2J', 'x']])).toBe('a?b?c?[2J\tx\n');
});
