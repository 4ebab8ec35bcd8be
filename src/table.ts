/**
 * Tables as Go's text/tabwriter prints them with minwidth 0, tabwidth 8, padding 1, padchar '\t', which is
 * what rkt's `list` and `image list` use and what scripts split on `\t+`. A column is a run of consecutive
 * lines that have a cell there; the last cell of a line belongs to no column (text/tabwriter,
 * "Writer.Init").
 */
const TAB_WIDTH = 8;
const PADDING = 1;

/** @returns one line per row, each with its newline */
export function renderTable(rows: readonly (readonly string[])[]): string {
  const lines = rows.map(row => (row.length === 0 ? [''] : row.map(printable)));
  const out: string[] = [];
  format(lines, 0, lines.length, [], out);
  return out.join('');
}

/** The block of lines from `start` to `end`, whose leading columns have these widths. */
function format(
  lines: readonly (readonly string[])[],
  start: number,
  end: number,
  widths: readonly number[],
  out: string[],
): void {
  const column = widths.length;
  const inColumn = (index: number) => column < (lines[index]?.length ?? 0) - 1;
  let written = start;
  for (let index = start; index < end; index++) {
    if (!inColumn(index)) continue;
    writeLines(lines.slice(written, index), widths, out);
    written = index;
    let width = 0;
    while (index < end && inColumn(index)) {
      width = Math.max(width, widthOf(lines[index]?.[column] ?? '') + PADDING);
      index++;
    }
    format(lines, written, index, [...widths, width], out);
    written = index;
    index--;
  }
  writeLines(lines.slice(written, end), widths, out);
}

function writeLines(
  lines: readonly (readonly string[])[],
  widths: readonly number[],
  out: string[],
): void {
  for (const line of lines) {
    for (const [column, cell] of line.entries()) {
      const width = widths[column];
      out.push(width === undefined ? cell : cell + tabs(widthOf(cell), width));
    }
    out.push('\n');
  }
}

/** Tabs that fill a cell to the next multiple of the tab width. */
function tabs(used: number, width: number): string {
  const cell = Math.ceil(width / TAB_WIDTH) * TAB_WIDTH;
  return '\t'.repeat(Math.ceil((cell - used) / TAB_WIDTH));
}

/** Characters, as tabwriter counts them. */
function widthOf(text: string): number {
  let width = 0;
  for (const _ of text) width++;
  return width;
}

/** Names come from images: a tab or newline in one would forge columns, an escape would drive the terminal. */
function printable(cell: string): string {
  return cell.replace(/\p{Cc}/gu, '?');
}
