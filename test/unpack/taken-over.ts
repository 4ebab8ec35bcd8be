/**
 * Run as a program: confined as the unpacker is, it tries what somebody would try who has taken the unpacker
 * over, and prints how each ended as JSON.
 */
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { Worker } from 'node:worker_threads';
import { errnoOf } from '../../src/errors.ts';
import { native } from '../../src/sys/native.ts';

function outcome(attempt: () => unknown): string {
  try {
    attempt();
    return 'done';
  } catch (error) {
    return errnoOf(error) ?? String(error);
  }
}

const [victim = ''] = process.argv.slice(2);
const { chroot, confine } = native();
confine((1n << 21n) | (1n << 1n) | (1n << 27n));
const tried: Record<string, string> = {
  chroot: outcome(() => chroot('/')),
  kill: outcome(() => process.kill(Number(victim), 'SIGTERM')),
  spawn: String(errnoOf(spawnSync('/bin/true').error)),
  thread: outcome(() => new Worker('0', { eval: true })),
  write: outcome(() => writeFileSync('/dev/null', 'x')),
};
const socket = connect({ host: '127.0.0.1', port: 9 });
socket.on('error', error => {
  tried['connect'] = errnoOf(error) ?? String(error);
  process.stdout.write(JSON.stringify(tried));
});
