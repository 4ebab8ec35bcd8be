/** The rig itself: a guest with systemd and cgroup v2 boots, runs scripts and boots again. */
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { Machine } from './machine.ts';

describe('a guest', () => {
  let machine: Machine;
  beforeAll(async () => {
    machine = await Machine.boot('trixie', inject('layouts'));
  }, 900_000);
  afterAll(() => machine?.end());

  it('has systemd as PID 1 and cgroup v2 alone', async () => {
    expect(
      await machine.ok('cat /proc/1/comm; stat -fc %T /sys/fs/cgroup; cat /proc/self/cgroup'),
    ).toBe('systemd\ncgroup2fs\n0::/user.slice/session-rig.scope\n');
  });
});
