/**
 * appc discovery: the scanner against pages of every kind, and the walk up a name's components against a
 * server that answers as a proxy for the names' host.
 */
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { Config } from '../../src/config/config.ts';
import { discover, findTags } from '../../stage0/fetch/discovery.ts';
import { scanMetaTags } from '../../stage0/fetch/meta-tags.ts';
import { cases } from '../support/fuzz.ts';
import { type AciServer, startAciServer, useServer } from './aci-server.ts';
import { FAST } from './support.ts';

const NO_CONFIG: Pick<Config, 'auth' | 'registries'> = { auth: new Map(), registries: new Map() };
const HTTP = { insecure: new Set<'http'>(['http']), offline: false };

describe('meta elements', () => {
  test('quoted either way or not, in any case, among other things', () => {
    const html = `<!DOCTYPE html><HTML><head><title>a <meta name=x content=y></title>
      <!-- <meta name="no" content="no"> --><script>if (a<b) "<meta name='no' content='no'>"</script>
      <META NAME='One' Content="1 &amp; &#50; &quot;"/><meta content=two name=two>
      <meta name="half"><meta
        name = "three"
        content = '3'></head><meta name=late content=late></HTML>`;
    expect(scanMetaTags(html)).toEqual([
      { name: 'one', content: '1 & 2 "' },
      { name: 'two', content: 'two' },
      { name: 'three', content: '3' },
    ]);
  });

  test('never throws, and takes time in proportion', () => {
    const piece = fc.constantFrom(
      '<',
      '>',
      '"',
      "'",
      '=',
      '<meta ',
      '<!--',
      '-->',
      ' name=',
      ' content=',
      '<script>',
      '</',
      '/',
      '&#',
      '\u0130',
      'x',
      '\0',
    );
    fc.assert(
      fc.property(fc.array(fc.oneof(piece, fc.string())), parts => {
        for (const { name, content } of scanMetaTags(parts.join(''))) {
          expect(typeof name).toBe('string');
          expect(typeof content).toBe('string');
        }
      }),
      { numRuns: cases(2000) },
    );
    for (const unit of [
      '<',
      '<meta ',
      '<!--',
      '<script>',
      '<meta a="',
      "<a b='",
      '<a ',
      '</script',
    ]) {
      scanMetaTags(unit.repeat(Math.ceil(1024 ** 2 / unit.length)));
    }
  });

  test('a prefix ends where a component of the name ends', () => {
    const page = (content: string) =>
      findTags(
        `<meta name="ac-discovery" content="${content}">`,
        'example.com/app',
        'ac-discovery',
      );
    expect(page('example.com https://x/{name}')).toHaveLength(1);
    expect(page('example.com/app https://x/{name}')).toHaveLength(1);
    expect(page('example.com/ap https://x/{name}')).toHaveLength(0);
    expect(page('example.co https://x/{name}')).toHaveLength(0);
    expect(page('https://x/{name}')).toHaveLength(0);
    expect(page('example.com https://x/ more')).toHaveLength(0);
  });
});

describe('the walk', () => {
  let server: AciServer;
  beforeEach(async () => {
    server = await startAciServer();
    useServer(server);
  });
  afterEach(async () => {
    vi.unstubAllEnvs();
    await server.close();
  });

  /** Pages by host and path; nobody answers by TLS. */
  function pages(answers: Readonly<Record<string, string>>): void {
    for (const [place, page] of Object.entries(answers)) {
      if (!page.startsWith('->')) server.files.set(place, { body: page });
    }
    server.fallback = (request, response) => {
      const url = new URL(request.url ?? '');
      const page = answers[url.host + url.pathname];
      if (page === undefined) return false;
      response.writeHead(302, { Location: page.slice(2) }).end();
      return true;
    };
  }

  const meta = (content: string) => `<meta name="ac-discovery" content="${content}">`;
  const ask = (name: string, allowHttp = true) =>
    discover(HTTP, NO_CONFIG, name, 'ac-discovery', { allowHttp, timing: FAST });

  test('goes up until a page is for the name', async () => {
    pages({
      'host.test/a/b': meta('other.test https://other.test/'),
      'host.test/a': '<p>nothing</p>',
      'host.test/': meta('host.test https://host.test/{name}.{ext}'),
    });
    expect(await ask('host.test/a/b/c')).toEqual([
      { prefix: 'host.test', template: 'https://host.test/{name}.{ext}' },
    ]);
    expect(server.seen.map(({ url }) => url)).toEqual([
      'http://host.test/a/b/c?ac-discovery=1',
      'http://host.test/a/b?ac-discovery=1',
      'http://host.test/a?ac-discovery=1',
      'http://host.test/?ac-discovery=1',
    ]);
  });

  test('without the option plain HTTP is not tried', async () => {
    pages({ 'host.test/a': meta('host.test http://x/') });
    await expect(ask('host.test/a', false)).rejects.toMatchObject({ code: 'network' });
    expect(server.seen).toEqual([]);
  });

  test('refuses: nothing found, no name, too deep, endless pages, redirects without end', async () => {
    pages({
      'big.test/': ' '.repeat(1024 ** 2 + 1),
      'round.test/': '->http://round.test/?ac-discovery=1',
      'local.test/': '->http://169.254.169.254/?ac-discovery=1',
    });
    await expect(ask('host.test/a')).rejects.toMatchObject({ code: 'not-found' });
    await expect(ask('Host.test/../a')).rejects.toMatchObject({ code: 'reference' });
    await expect(ask(Array(17).fill('a').join('/'))).rejects.toMatchObject({ code: 'reference' });
    await expect(ask('big.test')).rejects.toMatchObject({ code: 'limit' });
    await expect(ask('round.test')).rejects.toMatchObject({ code: 'limit' });
    await expect(ask('local.test')).rejects.toMatchObject({ code: 'protocol' });
    await expect(
      discover({ ...HTTP, offline: true }, NO_CONFIG, 'host.test', 'ac-discovery', {
        allowHttp: true,
      }),
    ).rejects.toMatchObject({ code: 'offline' });
  });
});
