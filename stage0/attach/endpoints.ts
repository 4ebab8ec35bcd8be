/** Where one can attach to an app: init's sockets, and what of them a mode means. */
import { readdirSync } from 'node:fs';
import { errnoOf, systemError, TspodError } from '../../src/errors.ts';

export type Endpoint = 'stdin' | 'stdout' | 'stderr' | 'tty';

/** In the pod's folder. */
export const ATTACH_FOLDER = 'stage1/rootfs/rkt/attach';

const ENDPOINTS: readonly Endpoint[] = ['stdin', 'stdout', 'stderr', 'tty'];
const STREAMS = new Set(['stdin', 'stdout', 'stderr']);
const TERMINAL = new Set(['tty', 'tty-in', 'tty-out']);

/** What is connected with what. */
export interface Selection {
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly ttyIn: boolean;
  readonly ttyOut: boolean;
}

/** Those that an app has. @param folder absolute path of ATTACH_FOLDER */
export function endpointsOf(folder: string, app: string): readonly Endpoint[] {
  let names: readonly string[];
  try {
    names = readdirSync(folder);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw systemError(`can't read ${folder}`, error);
  }
  return ENDPOINTS.filter(name => names.includes(`${app}-${name}`));
}

/** As rkt's iottymux told it. */
export function endpointsJson(app: string, endpoints: readonly Endpoint[]): unknown {
  return {
    version: 1,
    targets: endpoints.map(name => ({
      name,
      domain: 'unix',
      address: `/rkt/attach/${app}-${name}`,
    })),
  };
}

/**
 * @param mode `auto`, or names with commas
 * @throws TspodError 'usage' for another word, 'state' for what the app does not have
 */
export function select(mode: string, app: string, endpoints: readonly Endpoint[]): Selection {
  const has = (name: Endpoint) => endpoints.includes(name);
  if (endpoints.length === 0) {
    throw new TspodError('state', `attach: app "${app}" has nothing to attach to`, {
      hint: 'run it with --stdout=stream or --stdin=tty --stdout=tty; what it wrote is told by logs',
    });
  }
  if (mode === 'auto') {
    return {
      stdin: has('stdin'),
      stdout: has('stdout'),
      stderr: has('stderr'),
      ttyIn: has('tty'),
      ttyOut: has('tty'),
    };
  }
  const wanted = mode.split(',');
  const kinds = [STREAMS, TERMINAL].filter(kind => wanted.every(word => kind.has(word)));
  if (kinds.length === 0) {
    throw new TspodError('usage', `attach: --mode=${mode.slice(0, 60)} is unknown`, {
      hint: 'give list, auto, of stdin,stdout,stderr, or of tty,tty-in,tty-out',
    });
  }
  for (const word of wanted) {
    const name = ENDPOINTS.find(endpoint => endpoint === word) ?? 'tty';
    if (!has(name)) {
      throw new TspodError('state', `attach: app "${app}" has no ${name} to attach to`, {
        hint: `it has ${endpoints.join(', ')}`,
      });
    }
  }
  return {
    stdin: wanted.includes('stdin'),
    stdout: wanted.includes('stdout'),
    stderr: wanted.includes('stderr'),
    ttyIn: wanted.includes('tty') || wanted.includes('tty-in'),
    ttyOut: wanted.includes('tty') || wanted.includes('tty-out'),
  };
}
