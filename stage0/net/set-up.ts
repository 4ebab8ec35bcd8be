/**
 * Gives a pod its networks: a namespace that a file in /run/netns keeps, in it what the plugins make, ports of the host
 * that lead there. Nothing is done that is not written down before, so that whoever comes later, after a crash or a
 * reboot, can undo it.
 */
import { closeSync, mkdirSync, openSync } from 'node:fs';
import '../hot.ts';
import type { Context } from '../../src/context.ts';
import { systemError, TspodError } from '../../src/errors.ts';
import { asksForNetworks, netnsPath, parseNet } from '../../src/pod/net-request.ts';
import type { PodNetwork } from '../../src/pod/networks.ts';
import type { Pod, RuntimeOptions } from '../../src/pod/pod.ts';
import { faultPoint } from '../../src/sys/fault.ts';
import { native } from '../../src/sys/native.ts';
import { addNetwork, type CniResult, commonVersion, findPlugin } from './cni.ts';
import { chosenNetworks, type NetworkConfig } from './config.ts';
import { addRules } from './filter.ts';
import { claimPorts, type PortMapping, portMappings } from './ports.ts';
import { type NetworkRecord, writeInfo, writeRecord } from './records.ts';
import { tearDownNetworks } from './tear-down.ts';

interface Added {
  readonly network: NetworkConfig;
  readonly record: NetworkRecord;
  readonly result: CniResult;
}

/**
 * @param dir the pod's folder, which this process has locked
 * @returns what the networks say about names, when the user has said nothing
 * @throws TspodError; nothing is left then
 */
export function setUpNetworks(
  { localConfig }: Pick<Context, 'localConfig'>,
  pod: Pod,
  dir: string,
): RuntimeOptions['dns'] | undefined {
  const request = parseNet(pod.options.net ?? 'default');
  if (!asksForNetworks(request)) throw new Error('there is nothing to do');
  // Everything that can be refused is refused before anything is done.
  const chosen = chosenNetworks(localConfig, request).map(({ network, args }) => ({
    network,
    args,
    version: commonVersion(network, localConfig),
    programs: network.plugins.map(({ type }) => findPlugin(type, localConfig)),
  }));
  const mappings = portMappings(pod.manifest.ports, pod.apps);
  try {
    const records = chosen.map(
      ({ network, args, version }, index): NetworkRecord => ({
        network,
        cniVersion: version,
        ifName: `eth${index}`,
        args,
        runtimeConfig: runtimeConfig(network, mappings),
        localConfig,
        result: null,
      }),
    );
    for (const [index, record] of records.entries()) writeRecord(dir, index, record);
    faultPoint('net-written');
    const netns = netnsPath(pod.uuid);
    keepNamespace(netns);
    claimPorts(pod.uuid, mappings);
    faultPoint('net-namespace');
    const added = records.map((record, index): Added => {
      const { network, cniVersion, ifName, args, runtimeConfig } = record;
      const attachment = { containerId: pod.uuid, netns, ifName, args, runtimeConfig };
      const result = addNetwork(network, cniVersion, attachment, localConfig);
      const complete = { ...record, result: result.raw };
      writeRecord(dir, index, complete);
      faultPoint('net-added');
      return { network, record: complete, result };
    });
    addRules(rulesOf(pod.uuid, added, mappings));
    const programs = chosen.map(one => one.programs[0] ?? '');
    writeInfo(
      dir,
      added.map((one, index) => info(one, programs[index] ?? '')),
    );
    return pod.options.dns.mode === 'default' ? dnsOf(added) : undefined;
  } catch (error) {
    const failure =
      error instanceof TspodError
        ? new TspodError(error.code, `failed to setup network: ${error.message}`, {
            ...(error.hint === undefined ? {} : { hint: error.hint }),
            cause: error,
          })
        : error;
    try {
      tearDownNetworks(pod.uuid, dir);
    } catch {
      // The pod's folder still says what there is to undo: gc does it.
    }
    throw failure;
  }
}

/** What plugins that say so do themselves: `portmap` (conventions of CNI, "portMappings"). */
function runtimeConfig(network: NetworkConfig, mappings: readonly PortMapping[]) {
  if (!doesPorts(network) || mappings.length === 0) return {};
  return {
    portMappings: mappings.map(({ protocol, hostPort, hostIp, podPort }) => ({
      hostPort,
      containerPort: podPort,
      protocol,
      ...(hostIp === '*' ? {} : { hostIP: hostIp }),
    })),
  };
}

function doesPorts({ plugins }: NetworkConfig): boolean {
  return plugins.some(({ capabilities }) => capabilities['portMappings'] === true);
}

function keepNamespace(path: string): void {
  try {
    mkdirSync('/run/netns', { recursive: true, mode: 0o755 });
    closeSync(openSync(path, 'wx', 0o444));
    native().pinNetNamespace(path);
  } catch (error) {
    throw systemError(`can't make a network namespace in ${path}`, error);
  }
}

/** Ports lead to the network that the pod's default route is in, else to its first. */
function rulesOf(uuid: string, added: readonly Added[], mappings: readonly PortMapping[]) {
  const main =
    added.find(({ result }) => result.routes.some(route => /^(?:0\.0\.0\.0|::)\/0$/.test(route))) ??
    added[0];
  const addresses = (main?.result.ips ?? []).map(({ address }) => address.split('/')[0] ?? '');
  const targets = [
    addresses.find(address => !address.includes(':')),
    addresses.find(address => address.includes(':')),
  ].filter(address => address !== undefined);
  const isOurs = added.every(({ network }) => !doesPorts(network));
  if (isOurs && mappings.length > 0 && targets.length === 0) {
    throw new TspodError('network', `--port: no network has given the pod an address`, {
      hint: 'give a network that does',
    });
  }
  return {
    uuid,
    masquerade: added.flatMap(({ network, result }) =>
      network.masquerade ? result.ips.map(({ address }) => address) : [],
    ),
    ports: isOurs ? mappings : [],
    targets,
    hostInterfaces: main?.result.hostInterfaces ?? [],
  };
}

function info({ network, record, result }: Added, pluginPath: string): PodNetwork {
  const [ip = '', prefix] = (result.ips[0]?.address ?? '').split('/');
  return {
    netName: network.name,
    netConf: network.path ?? '',
    pluginPath,
    ifName: record.ifName,
    ip,
    args: record.args,
    mask: ip.includes(':') || prefix === undefined ? '' : maskOf(Number(prefix)),
  };
}

function maskOf(prefix: number): string {
  const bits = prefix === 0 ? 0 : (0xff_ff_ff_ff << (32 - prefix)) >>> 0;
  return [24, 16, 8, 0].map(shift => (bits >>> shift) & 0xff).join('.');
}

function dnsOf(added: readonly Added[]): RuntimeOptions['dns'] | undefined {
  const dns = added.find(({ result }) => result.dns.nameservers.length > 0)?.result.dns;
  if (dns === undefined) return undefined;
  const { nameservers, search, options, domain } = dns;
  return { mode: 'servers', servers: nameservers, search, options, domain };
}
