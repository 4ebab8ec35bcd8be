/**
 * Runs the tool as a user does: the program named by TSPOD (default: bin/tspod of this checkout), with a
 * data folder and configuration of the test's own, inside a mount namespace of its own: `unshare` executes
 * what follows, so the process id is the tool's. `Sandbox.leftovers` says what a test left on the machine.
 */
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmdirSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const TSPOD =
  process.env['TSPOD'] ?? fileURLToPath(new URL('../../bin/tspod', import.meta.url));

export interface Ended {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly bytes: Buffer;
}

export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly input?: string | Buffer;
  /** Standard input stays open, for the test to write to. */
  readonly keepInput?: boolean;
  readonly cwd?: string;
  /** Put between `unshare` and the tool, e.g. `['setpriv', …]`. */
  readonly through?: readonly string[];
  readonly timeout?: number;
}

export interface Started {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly ended: Promise<Ended>;
}

export class Sandbox {
  readonly root = mkdtempSync(join(tmpdir(), 'tspod-functional-'));
  readonly dir = join(this.root, 'data');
  readonly #started: ChildProcess[] = [];
  readonly #loops = loopDevices();
  readonly #mounts = readFileSync('/proc/self/mountinfo', 'utf8');
  readonly #cgroups = cgroupFolders();

  constructor() {
    for (const name of ['vendor', 'local']) mkdirSync(join(this.root, name));
  }

  get globalFlags(): readonly string[] {
    return [
      `--dir=${this.dir}`,
      `--system-config=${this.root}/vendor`,
      `--local-config=${this.root}/local`,
      '--insecure-options=image,http',
    ];
  }

  /** Starts `tspod ARGS` and hands back the live process. */
  start(args: readonly string[], options: RunOptions = {}, stdio?: SpawnOptions['stdio']): Started {
    return this.spawn('unshare', this.command(args, options.through), options, stdio);
  }

  /** The arguments of `unshare` that make it `tspod ARGS`. */
  command(args: readonly string[], through: readonly string[] = []): string[] {
    return ['-m', '--propagation', 'private', ...through, TSPOD, ...this.globalFlags, ...args];
  }

  /** Any program that this test's clean-up shall watch over. */
  spawn(
    program: string,
    args: readonly string[],
    options: RunOptions = {},
    stdio: SpawnOptions['stdio'] = 'pipe',
  ): Started {
    const child = spawn(program, args, {
      cwd: options.cwd ?? this.root,
      env: { PATH: process.env['PATH'], HOME: this.root, ...options.env },
      stdio,
      timeout: options.timeout ?? 60_000,
      killSignal: 'SIGKILL',
    });
    this.#started.push(child);
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    child.stdout?.on('data', (chunk: Buffer) => out.push(chunk));
    child.stderr?.on('data', (chunk: Buffer) => err.push(chunk));
    child.stdin?.on('error', () => undefined); // an app that reads nothing may end first
    if (options.input !== undefined) child.stdin?.end(options.input);
    else if (!options.keepInput) child.stdin?.end();
    const ended = new Promise<Ended>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (status, signal) => {
        const bytes = Buffer.concat(out);
        resolve({
          status,
          signal,
          bytes,
          stdout: bytes.toString(),
          stderr: Buffer.concat(err).toString(),
        });
      });
    });
    if (child.pid === undefined) throw new Error(`can't start ${program}`);
    return { child, pid: child.pid, ended };
  }

  /** Runs `tspod ARGS` to its end. */
  run(args: readonly string[], options: RunOptions = {}): Promise<Ended> {
    return this.start(args, options).ended;
  }

  /** Ends what still runs. */
  async endAll(): Promise<void> {
    for (const child of this.#started.splice(0)) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const gone = new Promise(resolve => child.once('exit', resolve));
      child.kill('SIGKILL');
      await gone;
    }
  }

  /** Ends what still runs, removes the data folder and the cgroups of pods. */
  async close(): Promise<void> {
    await this.endAll();
    // those of a pod whose parent was killed take a moment to follow
    for (let tries = 0; tries < 40 && processesOf(this.root).length > 0; tries++)
      await new Promise(resolve => setTimeout(resolve, 50));
    this.removeCgroups();
    rmSync(this.root, { recursive: true, force: true });
  }

  /** What of this sandbox is still on the machine: processes, mounts, loop devices, cgroups. */
  async leftovers(): Promise<string[]> {
    let found = this.#leftovers();
    // a killed process takes a moment to be gone
    for (let tries = 0; found.length > 0 && tries < 40; tries++) {
      await new Promise(resolve => setTimeout(resolve, 50));
      found = this.#leftovers();
    }
    return found;
  }

  #leftovers(): string[] {
    const found = processesOf(this.root).map(line => `process ${line}`);
    if (readFileSync('/proc/self/mountinfo', 'utf8') !== this.#mounts) {
      const now = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
      found.push(...now.filter(line => line.includes(this.root)).map(line => `mount ${line}`));
    }
    for (const loop of loopDevices()) if (!this.#loops.has(loop)) found.push(`loop device ${loop}`);
    found.push(...this.#ownCgroups().map(cgroup => `cgroup ${cgroup}`));
    return found;
  }

  /** What a test that failed has left: cgroups of pods that nobody can collect any more. */
  removeCgroups(): void {
    for (const cgroup of this.#ownCgroups()) {
      removeCgroup(cgroup);
    }
  }

  /** New ones of pods, but for those of pods that lie in another data folder: tests run beside each other. */
  #ownCgroups(): string[] {
    const found = [...cgroupFolders()].filter(
      cgroup => !this.#cgroups.has(cgroup) && /\/tspod-[0-9a-f-]{36}$/.test(cgroup),
    );
    if (found.length === 0) return [];
    const others = podsOfOthers(this.root);
    return found.filter(cgroup => !others.has(cgroup.slice(-36)));
  }
}

/** With what systemd-nspawn made below it. */
function removeCgroup(folder: string): void {
  try {
    for (const entry of readdirSync(folder, { withFileTypes: true }))
      if (entry.isDirectory()) removeCgroup(join(folder, entry.name));
    rmdirSync(folder);
  } catch {
    // a process is still in it: leftovers names that
  }
}

/** Processes that have `path` in their arguments, their root, or a mount of their namespace. */
export function processesOf(path: string): string[] {
  const found: string[] = [];
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) continue;
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
      if (/docker-registry/.test(command)) continue;
      const seen = [
        command,
        readlinkSync(`/proc/${pid}/cwd`),
        readFileSync(`/proc/${pid}/mountinfo`, 'utf8'),
      ];
      if (seen.some(text => text.includes(path))) found.push(`${pid} ${command}`);
    } catch {
      // it has ended, or is a zombie
    }
  }
  return found;
}

/** UUIDs of the pods in the data folders of other tests. */
function podsOfOthers(root: string): ReadonlySet<string> {
  const found = new Set<string>();
  const names = (folder: string): string[] => {
    try {
      return readdirSync(folder);
    } catch {
      return [];
    }
  };
  for (const name of names(tmpdir())) {
    const folder = join(tmpdir(), name);
    if (folder === root) continue;
    for (const pods of [join(folder, 'pods'), join(folder, 'data/pods')])
      for (const phase of names(pods)) for (const uuid of names(join(pods, phase))) found.add(uuid);
  }
  return found;
}

function loopDevices(): ReadonlySet<string> {
  const used = readdirSync('/sys/block').filter(name => {
    if (!name.startsWith('loop')) return false;
    try {
      readFileSync(`/sys/block/${name}/loop/backing_file`);
      return true;
    } catch {
      return false;
    }
  });
  return new Set(used);
}

function cgroupFolders(): ReadonlySet<string> {
  const found = new Set<string>();
  const walk = (folder: string, depth: number): void => {
    if (depth > 4) return;
    try {
      for (const entry of readdirSync(folder, { withFileTypes: true }))
        if (entry.isDirectory()) {
          const path = join(folder, entry.name);
          found.add(path);
          walk(path, depth + 1);
        }
    } catch {
      // it went away
    }
  };
  walk('/sys/fs/cgroup', 0);
  return found;
}
