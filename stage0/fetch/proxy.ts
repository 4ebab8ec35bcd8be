/**
 * Which proxy a URL goes through: HTTP_PROXY, HTTPS_PROXY, NO_PROXY in either case, as curl and Go read
 * them. The upper-case HTTP_PROXY is not read under CGI, where a client can set it (httpoxy).
 */
import { BlockList, isIP } from 'node:net';
import { TspodError } from '../../src/errors.ts';

/** @throws TspodError 'config' when the variable is not a URL. */
export function proxyFor(url: URL, environment: NodeJS.ProcessEnv): URL | undefined {
  const name = url.protocol === 'https:' ? 'https_proxy' : 'http_proxy';
  const upper = name.toUpperCase();
  const cgi = upper === 'HTTP_PROXY' && environment.REQUEST_METHOD !== undefined;
  const text = environment[name] || (cgi ? undefined : environment[upper]);
  if (!text || bypassed(url, environment.no_proxy || environment.NO_PROXY || '')) return undefined;
  try {
    const proxy = new URL(text.includes('://') ? text : `http://${text}`);
    if (proxy.protocol === 'http:' || proxy.protocol === 'https:') return proxy;
  } catch {
    // told below, without the text: it may hold a password
  }
  throw new TspodError('config', `environment variable ${name}: not an http or https URL`);
}

/** Loopback never goes through a proxy, as in Go: a proxy's loopback is another machine's. */
function bypassed(url: URL, list: string): boolean {
  const host = url.hostname.replace(/^\[|\]$/g, '').toLowerCase();
  const port = url.port || (url.protocol === 'https:' ? '443' : '80');
  if (host === 'localhost' || host === '::1' || host.startsWith('127.')) return true;
  return list
    .split(',')
    .map(item => item.trim().toLowerCase())
    .some(item => item === '*' || (item !== '' && matches(item, host, port)));
}

function matches(item: string, host: string, port: string): boolean {
  const cidr = /^([0-9a-f.:]+)\/([0-9]{1,3})$/.exec(item);
  if (cidr !== null) return inSubnet(host, cidr[1] ?? '', Number(cidr[2]));
  const [, name = item, itsPort] =
    /^(.*?)(?::([0-9]+))?$/.exec(item.includes('::') ? '' : item) ?? [];
  if (itsPort !== undefined && itsPort !== port) return false;
  const bare = (name || item).replace(/^\*?\./, '').replace(/^\[|\]$/g, '');
  return host === bare || (isIP(host) === 0 && host.endsWith(`.${bare}`));
}

function inSubnet(host: string, net: string, bits: number): boolean {
  const family = isIP(net);
  if (family === 0 || isIP(host) === 0 || bits > (family === 4 ? 32 : 128)) return false;
  const list = new BlockList();
  list.addSubnet(net, bits, family === 4 ? 'ipv4' : 'ipv6');
  return list.check(host, isIP(host) === 4 ? 'ipv4' : 'ipv6');
}
