/** Which flavors run on this machine, what a pod gets by default, and what the machine adds to each flavor or lacks. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import type { Context } from '../../src/context.ts';
import { reasonOf, TspodError } from '../../src/errors.ts';
import { currentVmImage, readVmImage } from '../../src/pod/vm-image.ts';
import { findFileServer, findQemu } from '../../stage1-flavors/kvm/qemu.ts';
import { findNspawn } from '../../stage1-flavors/nspawn/command.ts';
import { hasJournal, hostPlace } from '../../stage1-flavors/nspawn/host.ts';
import { selectStage1 } from '../stage1.ts';
import type { Check } from './checks.ts';

/** Debian 11's: it knows the words that pods are started with. Tests run with 252 and newer ones. */
const OLDEST_SYSTEMD = 247;
const VERSION_MS = 10_000;
/** Where systemd-nspawn finds systemd-machined, which the bus starts. */
const BUS = '/run/dbus/system_bus_socket';

/** One of each built-in flavor, and which one `run` takes when nothing is said. */
export async function examineFlavors(context: Context): Promise<readonly Check[]> {
  return [await byDefault(context), fly(), nspawn(), kvm(context)];
}

async function byDefault(context: Context): Promise<Check> {
  const name = 'stage1';
  try {
    const choice = await selectStage1(context, {});
    const chosen =
      choice.image === undefined
        ? `flavor ${choice.flavor.name}`
        : `image ${choice.image.reference}`;
    return { name, state: 'ok', detail: `${chosen} by default; --stage1-name takes another` };
  } catch (error) {
    if (!(error instanceof TspodError)) throw error;
    return {
      name,
      state: 'warn',
      detail: `the configured default can't be had: ${reasonOf(error)}`,
      hint: 'name one: --stage1-name',
    };
  }
}

function fly(): Check {
  return {
    name: 'flavor fly',
    state: 'ok',
    detail: "one app, with the host's processes, network and IPC",
  };
}

function nspawn(): Check {
  const name = 'flavor nspawn';
  let program: string;
  try {
    program = findNspawn();
  } catch (error) {
    if (!(error instanceof TspodError)) throw error;
    return {
      name,
      state: 'warn',
      detail: 'there is no systemd-nspawn',
      hint: 'install it (Debian: systemd-container)',
    };
  }
  const version = versionOf(program);
  if (typeof version === 'string')
    return { name, state: 'warn', detail: `${program} does not start: ${version}` };
  if (version < OLDEST_SYSTEMD) {
    return {
      name,
      state: 'warn',
      detail: `systemd-nspawn ${version} is older than ${OLDEST_SYSTEMD}`,
      hint: 'use a newer systemd',
    };
  }
  const detail = `systemd-nspawn ${version}`;
  if (hostPlace() === 'own') {
    const what = 'without systemd as PID 1 no pod is a machine of machinectl, and logs are files';
    return { name, state: 'ok', detail: `${detail}; ${what}` };
  }
  if (!existsSync(BUS)) {
    return {
      name,
      state: 'warn',
      detail: `${detail} can't register pods with systemd: there is no system bus`,
      hint: 'install and start dbus',
    };
  }
  const logs = hasJournal() ? 'logs are in the journal' : 'logs are files';
  return { name, state: 'ok', detail: `${detail}; pods are machines of machinectl, ${logs}` };
}

/** Why it tells none, or the number. */
function versionOf(program: string): number | string {
  const { error, stdout } = spawnSync(program, ['--version'], {
    encoding: 'utf8',
    timeout: VERSION_MS,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  if (error !== undefined) return reasonOf(error);
  const version = /^systemd (\d{1,6})/.exec(stdout)?.[1];
  return version === undefined ? 'it tells no version' : Number(version);
}

function kvm({ dir }: Context): Check {
  const name = 'flavor kvm';
  try {
    findQemu();
    findFileServer();
  } catch (error) {
    if (!(error instanceof TspodError)) throw error;
    return {
      name,
      state: 'warn',
      detail: reasonOf(error).replace(/^flavor kvm: /, ''),
      ...(error.hint === undefined ? {} : { hint: error.hint }),
    };
  }
  const id = currentVmImage(dir);
  const image = id === undefined ? undefined : readVmImage(dir, id);
  const boots =
    image === undefined
      ? 'the first pod builds what machines boot'
      : `machines boot ${image.release}`;
  const fast = existsSync('/dev/kvm') ? '' : '; there is no /dev/kvm: machines are emulated';
  return { name, state: 'ok', detail: `QEMU; ${boots}${fast}` };
}
