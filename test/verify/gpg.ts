/**
 * Keys and signatures by GnuPG in a home folder of the test's own, and gpgv as the oracle. `close` ends the
 * agent that gpg starts.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface GpgOptions {
  /** The day on which it is done, YYYY-MM-DD. */
  readonly day?: string | undefined;
  readonly input?: string | Buffer;
}

export class Gpg {
  /** Short: the agent's socket lies in it. */
  readonly home = mkdtempSync(join(tmpdir(), 'gpg-'));

  constructor() {
    chmodSync(this.home, 0o700);
  }

  run(args: readonly string[], { day, input = '' }: GpgOptions = {}): Buffer {
    const time =
      day === undefined ? [] : [`--faked-system-time=${day.replaceAll('-', '')}T120000!`];
    const base = ['--batch', '--yes', '--quiet', '--no-tty', '--passphrase', ''];
    return execFileSync('gpg', [...base, '--pinentry-mode=loopback', ...time, ...args], {
      env: { PATH: process.env['PATH'], GNUPGHOME: this.home },
      input,
      stdio: ['pipe', 'pipe', 'pipe'],
      maxBuffer: 64 * 1024 ** 2,
    });
  }

  /** @param expire as gpg takes it, e.g. `1d` or `never`. @returns the fingerprint, lower case */
  key(
    name: string,
    algorithm: string,
    {
      usage = 'sign,cert',
      expire = 'never',
      day,
    }: { usage?: string; expire?: string; day?: string } = {},
  ): string {
    const user = `${name} <${name}@example.com>`;
    this.run(['--quick-generate-key', user, algorithm, usage, expire], { day });
    return this.fingerprints(`<${name}@example.com>`)[0] ?? '';
  }

  subkey(
    fingerprint: string,
    algorithm: string,
    usage = 'sign',
    expire = 'never',
    day?: string,
  ): string {
    this.run(['--quick-add-key', fingerprint, algorithm, usage, expire], { day });
    return this.fingerprints(fingerprint).at(-1) ?? '';
  }

  /** Of the key and its subkeys. */
  fingerprints(name: string): string[] {
    const lines = this.run(['--with-colons', '--list-keys', name]).toString().split('\n');
    return lines
      .filter(line => line.startsWith('fpr:'))
      .map(line => (line.split(':')[9] ?? '').toLowerCase());
  }

  /** The revocation certificate that gpg made with the key. */
  revoke(fingerprint: string): void {
    const path = join(this.home, 'openpgp-revocs.d', `${fingerprint.toUpperCase()}.rev`);
    // gpg puts a colon there, so that nobody revokes by accident
    this.run(['--import'], {
      input: readFileSync(path, 'utf8').replace(':-----BEGIN', '-----BEGIN'),
    });
  }

  /** A dialogue of --edit-key, or of another command. */
  edit(fingerprint: string, answers: readonly string[], command = '--edit-key'): string {
    const args = ['--expert', '--command-fd=0', '--status-fd=2', command, fingerprint];
    const env = { PATH: process.env['PATH'], GNUPGHOME: this.home };
    const run = spawnSync(
      'gpg',
      ['--no-tty', '--pinentry-mode=loopback', '--passphrase', '', ...args],
      {
        env,
        input: `${answers.join('\n')}\n`,
        encoding: 'utf8',
      },
    );
    if (run.status !== 0) throw new Error(`gpg ${command}: ${run.stderr}`);
    return run.stdout;
  }

  exported(...names: readonly string[]): Buffer {
    return this.run(['--export', ...names]);
  }

  /** A detached signature, binary. */
  sign(content: Buffer, signer: string, more: readonly string[] = [], day?: string): Buffer {
    return this.run(['--local-user', signer, ...more, '--detach-sign'], { day, input: content });
  }

  /** gpgv's status words. */
  gpgv(keyring: Buffer, signature: Buffer, content: Buffer): string[] {
    const file = (name: string, bytes: Buffer) => {
      const path = join(this.home, name);
      writeFileSync(path, bytes);
      return path;
    };
    const run = spawnSync(
      'gpgv',
      [
        '--status-fd=1',
        `--keyring=${file('oracle.gpg', keyring)}`,
        file('oracle.sig', signature),
        file('oracle.content', content),
      ],
      { env: { PATH: process.env['PATH'], GNUPGHOME: this.home }, encoding: 'utf8' },
    );
    return run.stdout
      .split('\n')
      .filter(line => line.startsWith('[GNUPG:]'))
      .map(line => line.split(' ')[1] ?? '');
  }

  close(): void {
    execFileSync('gpgconf', ['--homedir', this.home, '--kill', 'all'], { stdio: 'ignore' });
    rmSync(this.home, { recursive: true, force: true });
  }
}
