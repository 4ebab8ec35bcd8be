/** What machines boot, built once for all tests: a kernel is 25 MB to fetch. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { CACHE } from '../images/images.ts';
import { type Sandbox, TSPOD } from './tspod.ts';

/** Flags of every pod of kvm in tests: no other accelerator works on every machine that runs them. */
export const KVM_FLAGS = ['--stage1-name=kvm', '--qemu-accel=tcg'] as const;

/** Puts it into the sandbox's data folder, as `stage1 build kvm` does. */
export function giveVmImage(box: Pick<Sandbox, 'dir'>): void {
  const kept = join(CACHE, 'stage1-kvm');
  if (!existsSync(join(kept, 'current'))) {
    mkdirSync(CACHE, { recursive: true });
    const work = mkdtempSync(join(CACHE, 'making-kvm-'));
    try {
      const build = [`--dir=${work}`, 'stage1', 'build', 'kvm'];
      try {
        run(TSPOD, build);
      } catch {
        // What the machine knows of its mirror may be old.
        run('apt-get', ['update', '-q']);
        run(TSPOD, build);
      }
      renameSync(join(work, 'stage1/kvm'), kept);
    } catch (error) {
      // Another test was quicker.
      if (!existsSync(join(kept, 'current'))) throw error;
    } finally {
      rmSync(work, { recursive: true, force: true });
    }
  }
  mkdirSync(join(box.dir, 'stage1'), { recursive: true });
  run('cp', ['-a', kept, join(box.dir, 'stage1/kvm')]);
}

function run(program: string, words: readonly string[]): void {
  const { status, stderr } = spawnSync(program, words, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${program} ${words.join(' ')}: ${stderr}`);
}
