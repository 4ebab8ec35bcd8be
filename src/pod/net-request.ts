/**
 * What `--net` asks for (rkt-1.30, Documentation/networking): `host`, `none`, `all`, or names of networks, each with
 * arguments for its plugins: `NAME[:K=V;K2=V2],NAME2`.
 */
import { TspodError } from '../errors.ts';

export interface NamedNetwork {
  readonly name: string;
  /** CNI_ARGS: `K=V;K2=V2`; '' for none */
  readonly args: string;
}

export type NetRequest =
  | { readonly kind: 'host' | 'none' }
  | { readonly kind: 'all' }
  | { readonly kind: 'named'; readonly networks: readonly NamedNetwork[] };

/** CNI specification 1.1, section 1: the name of a network is an identifier. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$/;
const ARG = /^[A-Za-z0-9_.-]{1,100}=[^;,=\p{Cc}]{0,200}$/u;
const MOST = 16;

/** One that asks for networks to be set up. */
export type NetworksRequest = Exclude<NetRequest, { readonly kind: 'host' | 'none' }>;

/** @param text as typed, several flags joined by commas. @throws TspodError 'usage' */
export function parseNet(text: string): NetRequest {
  const wrong = (why: string) => new TspodError('usage', `--net=${text.slice(0, 200)}: ${why}`);
  const words = text === '' ? ['default'] : text.split(',');
  for (const kind of ['host', 'none', 'all'] as const) {
    if (!words.includes(kind)) continue;
    if (words.length > 1) throw wrong(`"${kind}" stands alone`);
    return { kind };
  }
  const networks = words.map((word): NamedNetwork => {
    const colon = word.indexOf(':');
    const name = colon < 0 ? word : word.slice(0, colon);
    const args = colon < 0 ? '' : word.slice(colon + 1);
    if (!NAME.test(name)) throw wrong(`${JSON.stringify(name)} is not the name of a network`);
    const pairs = args.split(';').filter(pair => pair !== '');
    const odd = pairs.find(pair => !ARG.test(pair));
    if (odd !== undefined) throw wrong(`${JSON.stringify(odd)} is not KEY=VALUE`);
    return { name, args: pairs.join(';') };
  });
  if (new Set(networks.map(({ name }) => name)).size < networks.length)
    throw wrong('it names a network twice');
  if (networks.length > MOST) throw wrong(`over ${MOST} networks`);
  return { kind: 'named', networks };
}

/** Where the pod's network namespace is kept: `ip netns` finds it there. */
export function netnsPath(uuid: string): string {
  return `/run/netns/tspod-${uuid}`;
}

/** Not just a loopback, not the host's. */
export function asksForNetworks(request: NetRequest): request is NetworksRequest {
  return request.kind === 'all' || request.kind === 'named';
}

/** Whether the pod has networks that somebody has to set up. */
export function wantsNetworks(net: string | undefined): boolean {
  return net !== undefined && asksForNetworks(parseNet(net));
}
