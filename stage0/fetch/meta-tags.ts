/**
 * The `<meta name=… content=…>` elements of an HTML page's head, found as browsers find them and no better:
 * case does not matter, attributes are quoted either way or not at all, comments and scripts are passed over,
 * and what is no tag is text. Nothing is thrown: a page that makes no sense has no meta elements. One pass,
 * every character is looked at a bounded number of times.
 */
export interface MetaTag {
  /** lower case */
  readonly name: string;
  readonly content: string;
}

/** More than any page for discovery has. */
const MAX_TAGS = 1000;
/** Elements whose content is text, whatever it looks like. */
const RAW_TEXT = new Set(['script', 'style', 'title', 'textarea', 'noscript', 'template']);
const BLANK = /[\t\n\f\r ]/;

export function scanMetaTags(html: string): readonly MetaTag[] {
  const found: MetaTag[] = [];
  const lower = asciiLower(html);
  let at = 0;
  while (found.length < MAX_TAGS) {
    const open = html.indexOf('<', at);
    if (open < 0) return found;
    if (html.startsWith('<!--', open)) {
      const end = html.indexOf('-->', open + 4);
      if (end < 0) return found;
      at = end + 3;
      continue;
    }
    const element = tagName(lower, open + 1);
    if (element === '') {
      at = open + 1;
      continue;
    }
    // The head has ended: what a user of the page may have written follows.
    if (element === 'body' || element === '/head') return found;
    const tag = readAttributes(html, open + 1 + element.length);
    if (tag === undefined) return found;
    at = tag.end;
    if (element === 'meta') {
      const name = tag.attributes.get('name');
      const content = tag.attributes.get('content');
      if (name !== undefined && content !== undefined) {
        found.push({ name: name.toLowerCase(), content });
      }
    } else if (RAW_TEXT.has(element)) {
      const end = lower.indexOf(`</${element}`, at);
      if (end < 0) return found;
      at = end;
    }
  }
  return found;
}

/** Of the same length, which toLowerCase does not promise for all of Unicode. */
function asciiLower(text: string): string {
  return text.replace(/[A-Z]+/g, part => part.toLowerCase());
}

const TAG_NAME = /\/?[a-z][a-z0-9-]*/y;

function tagName(lower: string, at: number): string {
  TAG_NAME.lastIndex = at;
  return TAG_NAME.exec(lower)?.[0] ?? '';
}

/** Up to the `>`; undefined when there is none. The first of two attributes of one name counts. */
function readAttributes(
  html: string,
  start: number,
): { readonly attributes: ReadonlyMap<string, string>; readonly end: number } | undefined {
  const attributes = new Map<string, string>();
  let at = start;
  for (;;) {
    while (at < html.length && (BLANK.test(html.charAt(at)) || html[at] === '/')) at += 1;
    if (at >= html.length) return undefined;
    if (html[at] === '>') return { attributes, end: at + 1 };
    const nameAt = at;
    // An equals sign in the first place belongs to the name.
    at += 1;
    while (at < html.length && !/[\t\n\f\r />=]/.test(html.charAt(at))) at += 1;
    const name = html.slice(nameAt, at).toLowerCase();
    while (at < html.length && BLANK.test(html.charAt(at))) at += 1;
    let value = '';
    if (html[at] === '=') {
      at += 1;
      while (at < html.length && BLANK.test(html.charAt(at))) at += 1;
      const quote = html[at];
      if (quote === '"' || quote === "'") {
        const end = html.indexOf(quote, at + 1);
        if (end < 0) return undefined;
        value = html.slice(at + 1, end);
        at = end + 1;
      } else {
        const valueAt = at;
        while (at < html.length && !/[\t\n\f\r >]/.test(html.charAt(at))) at += 1;
        value = html.slice(valueAt, at);
      }
    }
    if (!attributes.has(name)) attributes.set(name, decode(value));
  }
}

const ENTITIES: Readonly<Record<string, string>> = {
  amp: '&',
  lt: '<',
  gt: '>',
  quot: '"',
  apos: "'",
};

/** The references that a URL in an attribute may need. */
function decode(value: string): string {
  return value.replace(
    /&(?:#(\d{1,7})|#x([0-9a-f]{1,6})|(amp|lt|gt|quot|apos));/gi,
    (whole, ...parts) => {
      const [decimal, hex, name]: (string | undefined)[] = parts;
      if (name !== undefined) return ENTITIES[name.toLowerCase()] ?? whole;
      const code = decimal === undefined ? Number.parseInt(hex ?? '', 16) : Number(decimal);
      return code <= 0x10ffff ? String.fromCodePoint(code) : whole;
    },
  );
}
