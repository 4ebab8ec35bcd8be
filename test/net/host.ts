/**
 * A host of the test's own: network, mount table and /run apart from the machine's, so that nothing of what networks do
 * (interfaces, rules, forwarding, leases, kept namespaces) reaches the machine.
 */
import type { ChildProcess } from 'node:child_process';
import {
  type Ended,
  type RunOptions,
  type Sandbox,
  type Started,
  TSPOD,
} from '../support/tspod.ts';

const SET_UP = [
  'mount -t tmpfs none /run',
  'mkdir -p /var/lib/cni',
  'mount -t tmpfs none /var/lib/cni',
  'ip link set lo up',
  'echo ready',
  'exec cat',
].join(' && ');

export class Host {
  readonly #box: Sandbox;
  readonly #keeper: ChildProcess;

  private constructor(box: Sandbox, keeper: ChildProcess) {
    this.#box = box;
    this.#keeper = keeper;
  }

  static async start(box: Sandbox): Promise<Host> {
    const words = ['-n', '-m', '--propagation', 'private', 'sh', '-c', SET_UP];
    // Its end is that of its standard input, so that it never outlives the test.
    const { child } = box.spawn('unshare', words, {
      keepInput: true,
      timeout: 900_000,
    });
    await new Promise<void>((resolve, reject) => {
      child.stdout?.once('data', () => resolve());
      child.once('exit', () => reject(new Error('no host')));
    });
    return new Host(box, child);
  }

  async stop(): Promise<void> {
    const gone = new Promise(resolve => this.#keeper.once('close', resolve));
    this.#keeper.stdin?.end();
    await gone;
  }

  spawn(program: string, words: readonly string[], options: RunOptions = {}): Started {
    const pid = String(this.#keeper.pid);
    return this.#box.spawn('nsenter', ['-t', pid, '-n', '-m', program, ...words], options);
  }

  run(program: string, ...words: readonly string[]): Promise<Ended> {
    return this.spawn(program, words).ended;
  }

  start(words: readonly string[], options: RunOptions = {}): Started {
    return this.spawn(TSPOD, [...this.#box.globalFlags, ...words], options);
  }

  tspod(...words: readonly string[]): Promise<Ended> {
    return this.start(words).ended;
  }

  /** What networks leave on a host, as one text. */
  async state(): Promise<string> {
    const words =
      'ip -o link; ip -o addr | grep -v fe80; ip route; nft list tables; ls /run/netns /run/tspod/ports 2>/dev/null; find /run/tspod/networks -name "[0-9]*.*[0-9]" 2>/dev/null';
    const { stdout } = await this.run('sh', '-c', words);
    return stdout.replaceAll('/run/netns:\n', '').replaceAll('/run/tspod/ports:\n', '').trim();
  }
}
