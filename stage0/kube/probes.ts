/** Probes of a container (Kubernetes API reference, core/v1, "Probe"). */
import { isHttpPath, PROBE_KINDS, type Probe } from '../../src/pod/probes.ts';
import type { YamlReader } from './yaml-reader.ts';

const MOST = 86_400;
const MAX_PORT = 65_535;

export function readProbes(container: YamlReader): readonly Probe[] {
  return PROBE_KINDS.flatMap((kind): readonly Probe[] => {
    const probe = container.get(`${kind}Probe`);
    if (probe.isAbsent) return [];
    const successes = probe.get('successThreshold');
    if (kind !== 'readiness' && successes.integerOr(1, 1, MOST) !== 1)
      throw successes.error('it has to be 1 for this probe');
    return [
      {
        kind,
        how: readHow(probe, container),
        delay: probe.get('initialDelaySeconds').integerOr(0, 0, MOST),
        period: probe.get('periodSeconds').integerOr(10, 1, MOST),
        timeout: probe.get('timeoutSeconds').integerOr(1, 1, MOST),
        failures: probe.get('failureThreshold').integerOr(3, 1, MOST),
        successes: successes.integerOr(1, 1, MOST),
      },
    ];
  });
}

function readHow(probe: YamlReader, container: YamlReader): Probe['how'] {
  const exec = probe.get('exec');
  if (!exec.isAbsent) {
    const words = exec.get('command').texts();
    if (words.length === 0) throw exec.get('command').error('it is missing');
    return { exec: words };
  }
  const tcp = probe.get('tcpSocket');
  if (!tcp.isAbsent) return { tcp: portOf(tcp.get('port'), container) };
  const http = probe.get('httpGet');
  if (http.isAbsent)
    throw probe.error('its kind is not in this version', 'give exec, tcpSocket or httpGet');
  http.get('scheme').oneOf(['HTTP'], 'HTTP');
  const path = http.get('path');
  const text = path.textOr('/');
  if (!isHttpPath(text)) throw path.error('it is not a path of a URL');
  return { http: portOf(http.get('port'), container), path: text };
}

/** A number, or the name of one of the container's ports. */
function portOf(port: YamlReader, container: YamlReader): number {
  if (typeof port.value !== 'string') {
    const number = port.integerOr(undefined, 1, MAX_PORT);
    if (number === undefined) throw port.error('it is missing');
    return number;
  }
  const named = container
    .get('ports')
    .list()
    .find(one => one.get('name').value === port.value);
  const number = named?.get('containerPort').integerOr(undefined, 1, MAX_PORT);
  if (number === undefined) throw port.error('the container has no port of that name');
  return number;
}
