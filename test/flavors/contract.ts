/**
 * What every flavor must keep, as executable tests: from the words of a command line to what a process in
 * the pod sees, and what is left of it. The tests ask only through the program that TSPOD names, with
 * `--stage1-name`; what a flavor has of its own is in its traits, and what is asked of the others then differs.
 */
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, inject, it } from 'vitest';
import type { ImageConfig } from '../images/oci-writer.ts';
import { type Ended, Sandbox, type Started } from '../support/tspod.ts';
import { giveVmImage } from '../support/vm-image.ts';
import { ContractImage } from './contract-image.ts';

export interface FlavorTraits {
  /** The value of --stage1-name. */
  readonly name: string;
  /**
   * The process that was started becomes the app: its number, its signals, and a signal that ends the app
   * ends it. Otherwise it ends with 128+n.
   */
  readonly oneProcess: boolean;
  /** Sockets of socket activation reach the app. */
  readonly listenFds: boolean;
  /** Somebody in the pod keeps the app's exit status, without --rm or --result. */
  readonly keepsStatus: boolean;
  /** The network, and so by default resolv.conf, is the host's. */
  readonly hostNetwork: boolean;
  /** --no-overlay is honoured. */
  readonly copies: boolean;
  /** Standard input reaches the app without --interactive. */
  readonly readsInput: boolean;
  /** Limits on memory are kept by cgroups of version 1, too. */
  readonly limitsByV1: boolean;
  /** Names of the host's processes are seen in the pod. */
  readonly hostProcesses: boolean;
  /** Further flags of every pod. */
  readonly flags?: readonly string[];
  /** The root filesystems are put together where the host does not see them. */
  readonly ownKernel?: boolean;
}

interface Wanted {
  readonly config?: ImageConfig;
  /** Flags of the pod, before the image. */
  readonly pod?: readonly string[];
  /** Flags of the app, after it. */
  readonly app?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly input?: Buffer;
}

/** Seconds that a flavor may take to do anything at all, a machine under emulation included. */
const PATIENCE = 120_000;

export function flavorContract(traits: FlavorTraits): void {
  describe(`flavor ${traits.name}`, { timeout: PATIENCE }, () => {
    let work: string;
    let image: ContractImage;
    let box: Sandbox;
    beforeAll(async () => {
      work = mkdtempSync(join(tmpdir(), 'tspod-contract-'));
      image = await ContractImage.make(join(inject('layouts'), 'busybox'), work);
      box = new Sandbox();
      if (traits.ownKernel === true) giveVmImage(box);
    }, PATIENCE);
    afterAll(async () => {
      await box.close();
      rmSync(work, { recursive: true, force: true });
    });
    // Nothing outlives a test: neither one that failed nor what gc takes care of.
    afterEach(async () => {
      await box.endAll();
      const collected = await box.run(['gc', '--grace-period=0s', '--expire-prepared=0s']);
      const left = await box.leftovers();
      box.removeCgroups();
      expect(collected).toMatchObject({ status: 0 });
      expect(left).toEqual([]);
      expect(pods()).toEqual([]);
    });

    /** The folders of pods, in any phase. */
    function pods(): string[] {
      const phases = readdirSync(join(box.dir, 'pods'), { withFileTypes: true });
      return phases
        .filter(phase => phase.isDirectory())
        .flatMap(phase => readdirSync(join(box.dir, 'pods', phase.name)));
    }

    /** The words of a command that makes a pod, whose app is a shell with `script`. */
    function words(command: string, script: string | undefined, wanted: Wanted): string[] {
      return [
        command,
        `--stage1-name=${traits.name}`,
        ...(traits.flags ?? []),
        ...(wanted.pod ?? []),
        image.with(wanted.config ?? {}),
        ...(wanted.app ?? []),
        ...(script === undefined ? [] : ['--', script]),
      ];
    }

    function run(script: string | undefined, wanted: Wanted = {}): Promise<Ended> {
      const { env = {}, input } = wanted;
      return box.run(words('run', script, wanted), {
        env,
        timeout: PATIENCE,
        ...(input === undefined ? {} : { input }),
      });
    }

    /** What a shell script in the pod prints. */
    async function output(script: string, wanted: Wanted = {}): Promise<string> {
      const ended = await run(script, wanted);
      expect(ended.stderr).toBe('');
      expect(ended.status).toBe(0);
      return ended.stdout;
    }

    /** A pod whose app has said that it is up: after `first`, before `script`. */
    async function start(script: string, wanted: Wanted = {}, first = ':'): Promise<Started> {
      const whole = `${first}; echo up; ${script}`;
      const pod = box.start(words('run', whole, wanted), { timeout: PATIENCE });
      await new Promise<void>((resolve, reject) => {
        pod.child.stdout?.once('data', () => resolve());
        pod.child.once('exit', () => reject(new Error('it ended before it was up')));
      });
      return pod;
    }

    function endedBy(signal: NodeJS.Signals): Partial<Ended> {
      return traits.oneProcess ? { signal } : { status: 128 + constants.signals[signal] };
    }

    const sleeping = 'exec sleep 1000';
    const forEver = 'while :; do sleep 0.05; done';

    describe('ending', () => {
      it.each([0, 1, 77, 254])('exits with the app’s own status %i', async status => {
        expect(await run(`exit ${status}`)).toMatchObject({ status, stderr: '' });
      });
      it.each(['SIGUSR1', 'SIGKILL', 'SIGSEGV'] as const)(
        'ends as the app that %s ends',
        async signal => {
          expect(await run(`kill -${signal.slice(3)} $$; sleep 60`)).toMatchObject(endedBy(signal));
        },
      );
      it('names an executable that is not there, with 254', async () => {
        const ended = await run(undefined, { app: ['--exec=/bin/nothing'] });
        expect(ended.status).toBe(254);
        expect(ended.stderr).toMatch(/^tspod: .*\/bin\/nothing.*\n$/);
      });
      it('a signal to the process that was started reaches the app', async () => {
        const pod = await start(forEver, {}, 'trap "exit 3" TERM');
        process.kill(pod.pid, 'SIGTERM');
        expect(await pod.ended).toMatchObject({ status: 3 });
      });
      it('killed, it takes the app with it', async () => {
        const mark = String(process.pid * 1000 + 7);
        const pod = await start(`exec sleep ${mark}`);
        process.kill(pod.pid, 'SIGKILL');
        await pod.ended;
        await expect.poll(() => commands().filter(text => text.includes(mark))).toEqual([]);
      });
      it.runIf(traits.oneProcess)('is the process that was started, and its only one', async () => {
        const pod = await start(`echo $$; ${sleeping}`);
        await expect
          .poll(() => readFileSync(`/proc/${pod.pid}/cmdline`, 'utf8'))
          .toBe('sleep\x001000\0');
        expect(readFileSync(`/proc/${pod.pid}/task/${pod.pid}/children`, 'utf8')).toBe('');
        process.kill(pod.pid, 'SIGKILL');
        expect((await pod.ended).stdout).toBe(`up\n${pod.pid}\n`);
      });
      it.runIf(!traits.hostProcesses)('sees no process but the pod’s own', async () => {
        const seen = (await output('ls -d /proc/[0-9]* | wc -l')).trim();
        expect(Number(seen)).toBeLessThan(10);
      });
    });

    describe('streams', () => {
      it('binary input and output pass untouched', async () => {
        const input = Buffer.from(Array.from({ length: 70_000 }, (_, index) => index % 256));
        const pod = traits.readsInput ? [] : ['--interactive'];
        const ended = await run('exec cat', { input, pod });
        expect(ended.status).toBe(0);
        expect(ended.bytes.equals(input)).toBe(true);
      });
      it('output and error stay apart, and tspod adds nothing', async () => {
        expect(await run('echo out; echo err >&2')).toMatchObject({
          stdout: 'out\n',
          stderr: 'err\n',
          status: 0,
        });
      });
      it.runIf(traits.listenFds)('sockets of socket activation reach the app', async () => {
        const file = join(work, 'socket');
        writeFileSync(file, 'from the socket\n');
        const command = box.command(
          words('run', 'cat <&3; echo $LISTEN_FDS; test "$LISTEN_PID" = $$ && echo mine', {}),
        );
        const through = `exec 3<"$0"; LISTEN_PID=$$ LISTEN_FDS=1 exec unshare "$@"`;
        expect(await box.spawn('sh', ['-c', through, file, ...command]).ended).toMatchObject({
          status: 0,
          stdout: 'from the socket\n1\nmine\n',
          stderr: '',
        });
      });
    });

    const overlays = traits.copies ? [[], ['--no-overlay']] : [[]];
    describe.each(overlays)('root file system %s', (...pod: string[]) => {
      it('is the image’s, writable, and the image stays as it was', async () => {
        expect(await output('echo x > /bin/new && cat /bin/new', { pod })).toBe('x\n');
        expect(await output('ls /bin/new 2>/dev/null || echo none', { pod })).toBe('none\n');
      });
      it('is read-only on demand, volumes and /tmp are not', async () => {
        const ended = await run(
          'touch /x 2>&1; touch /tmp/x && echo tmp; touch /data/x && echo data',
          { pod, app: ['--readonly-rootfs'], config: { Volumes: { '/data': {} } } },
        );
        expect(ended.stdout).toBe('touch: /x: Read-only file system\ntmp\ndata\n');
      });
      it('an image’s volume starts with the image’s content, and is there if it was not', async () => {
        const config = { Volumes: { '/etc': {}, '/new/one': {}, '/new/one/below': {} } };
        const script = 'cat /etc/replaced; echo x > /etc/y && cat /etc/y; ls -d /new/one/below';
        const look = `${script}; stat -c "%a %u" /etc /new/one; touch /new/x 2>&1`;
        expect(await output(`${look} && echo made`, { pod, config })).toBe(
          'app\nx\n/new/one/below\n755 0\n755 0\nmade\n',
        );
        const ended = await run(look, { pod, config, app: ['--readonly-rootfs'] });
        expect(ended.stdout).toBe(
          'app\nx\n/new/one/below\n755 0\n755 0\ntouch: /new/x: Read-only file system\n',
        );
      });
      it('an empty volume by name on an image’s volume is empty', async () => {
        const config = { Volumes: { '/etc': {} } };
        const volume = [...pod, '--volume=volume-etc,kind=empty'];
        expect(await output('test -e /etc/replaced || echo none', { pod: volume, config })).toBe(
          'none\n',
        );
      });
      it('CVE-2022-23648: an image’s volume is made in the pod’s layer, whatever it is called', async () => {
        const outside = join('/dev', `made-${process.pid}`);
        const config = { Volumes: { [outside]: {}, '/dev/../../../made': {} } };
        const ended = await run('true', { pod, config: { Volumes: { [outside]: {} } } });
        expect(ended.status).toBe(0);
        expect(existsSync(outside)).toBe(false);
        expect((await run('true', { pod, config })).status).toBe(254);
      });
      it('upper layers win and take away', async () => {
        expect(await output('cat /etc/replaced; ls /var', { pod })).toBe('app\n');
      });
    });

    describe('volumes', () => {
      it('host: read-write and read-only, parents before children', async () => {
        const source = mkdtempSync(join(work, 'source-'));
        const text = await output('echo a > /work/v/a; touch /work/v/ro/b 2>&1; ls /work/v', {
          pod: [
            `--volume=ro,kind=host,source=${source},readOnly=true`,
            `--volume=rw,kind=host,source=${source}`,
            '--mount=volume=ro,target=/work/v/ro',
            '--mount=volume=rw,target=/work/v',
          ],
        });
        expect(text).toBe('touch: /work/v/ro/b: Read-only file system\na\nro\n');
        expect(readFileSync(join(source, 'a'), 'utf8')).toBe('a\n');
      });
      it('host: a single file', async () => {
        const source = join(work, 'file');
        writeFileSync(source, 'content');
        const pod = [
          `--volume=f,kind=host,source=${source},readOnly=true`,
          '--mount=volume=f,target=/etc/some/file',
        ];
        expect(await output('cat /etc/some/file', { pod })).toBe('content');
      });
      it('tmpfs: size, mode and owner', async () => {
        const pod = [
          '--volume=t,kind=tmpfs,size=64Ki,mode=0710,uid=5,gid=6',
          '--mount=volume=t,target=/t',
        ];
        const script =
          'stat -c "%a %u %g" /t; /bin/busybox df -k /t | /bin/busybox tail -n1 | /bin/busybox awk "{print \\$2}"';
        expect(await output(script, { pod })).toBe('710 5 6\n64\n');
      });
      it('empty: mode and owner, writable, not shared with another pod', async () => {
        const pod = ['--volume=e,kind=empty,mode=0710,uid=5,gid=6', '--mount=volume=e,target=/e'];
        for (let times = 0; times < 2; times += 1) {
          expect(await output('stat -c "%a %u %g" /e; ls /e; touch /e/x', { pod })).toBe(
            '710 5 6\n',
          );
        }
      });
      it('one that is not there is refused by name, before anything runs', async () => {
        const ended = await run('echo ran', { pod: ['--mount=volume=none,target=/v'] });
        expect(ended).toMatchObject({ status: 254, stdout: '' });
        expect(ended.stderr).toMatch(/^tspod: .*none.*\n$/);
      });
    });

    describe('environment', () => {
      it('image < file < set-env < environment, gaps filled from the caller, the user’s own from his entry', async () => {
        const file = join(work, 'env');
        writeFileSync(file, '# comment\n; comment\nB=file\nC=file\n');
        const text = await output('env | /bin/busybox sort', {
          config: { Env: ['A=image', 'B=image', 'C=image', 'D=image'], User: 'ann' },
          pod: [
            `--set-env-file=${file}`,
            '--set-env=C=set',
            '--set-env=D=set',
            '--inherit-env=true',
          ],
          app: ['--environment=D=app'],
          env: { A: 'caller', E: 'caller' },
        });
        const lines = text.split('\n');
        for (const line of [
          'A=image',
          'B=file',
          'C=set',
          'D=app',
          'E=caller',
          'LOGNAME=ann',
          'SHELL=/bin/ash',
          'USER=ann',
        ]) {
          expect(lines).toContain(line);
        }
        expect(text).not.toMatch(/LOCK_FD|TSPOD|RKT/);
      });
      it('without --inherit-env nothing of the caller’s, and a PATH and HOME of the pod’s own', async () => {
        const text = await output('/bin/busybox env', {
          config: { Env: [], User: 'ann' },
          env: { E: 'caller' },
        });
        expect(text).toContain('PATH=/usr/local/sbin:');
        expect(text).toContain('HOME=/home/ann\n');
        expect(text).not.toContain('caller');
      });
    });

    describe('identity', () => {
      const ids = 'id -u; id -g; id -G';
      it.each<[string, Wanted, string]>([
        ['root', {}, '0\n0\n0\n'],
        [
          'a name: primary group and the image’s groups',
          { config: { User: 'ann' } },
          '1001\n1002\n1002 1003\n',
        ],
        ['user:group: no others', { config: { User: 'ann:music' } }, '1001\n1003\n1003\n'],
        [
          'CVE-2016-3697: digits are a number',
          { config: { User: '4711:4712' } },
          '4711\n4712\n4712\n',
        ],
        [
          'flags win',
          {
            config: { User: 'ann' },
            app: ['--user=7', '--group=8', '--supplementary-gids=9,10'],
          },
          '7\n8\n8 9 10\n',
        ],
        [
          'the owner of a path',
          { app: ['--user=/etc/passwd', '--group=/etc/passwd'] },
          '0\n0\n0\n',
        ],
      ])('%s', async (_, wanted, expected) => {
        expect(await output(ids, wanted)).toBe(expected);
      });
      it('a user that is not in the image is one clear line', async () => {
        const ended = await run('echo ran', { app: ['--user=nobody-here'] });
        expect(ended).toMatchObject({ status: 254, stdout: '' });
        expect(ended.stderr).toMatch(/^tspod: .*nobody-here.*\n$/);
      });
      it('works in the folder asked for', async () => {
        expect(await output('pwd', { app: ['--working-dir=/work'] })).toBe('/work\n');
        expect(await output('pwd', { config: { WorkingDir: '/etc' } })).toBe('/etc\n');
      });
      it('makes the folder where the image lacks it, root’s, also when the rest is read-only', async () => {
        const script = 'pwd; stat -c "%a %u %g" . ..';
        const made = '/a/b c\n755 0 0\n755 0 0\n';
        const config = { WorkingDir: '/a/b c', User: 'ann' };
        expect(await output(script, { config })).toBe(made);
        expect(await output(script, { config, app: ['--readonly-rootfs'] })).toBe(made);
        expect(await output('pwd', { app: ['--working-dir=/tmp/x/y'] })).toBe('/tmp/x/y\n');
      });
      it('CVE-2024-45310: makes it inside the root, whatever links are on the way', async () => {
        const outside = mkdtempSync(join(work, 'outside-'));
        const evil = mkdtempSync(join(work, 'evil-'));
        symlinkSync(outside, join(evil, 'absolute'));
        symlinkSync(`${'../'.repeat(20)}${outside.slice(1)}`, join(evil, 'up'));
        const pod = [`--volume=e,kind=host,source=${evil}`, '--mount=volume=e,target=/e'];
        for (const link of ['absolute', 'up']) {
          const ended = await run('pwd', { pod, app: [`--working-dir=/e/${link}/made`] });
          expect(ended.stdout).toBe(`${outside}/made\n`);
          expect(readdirSync(outside)).toEqual([]);
        }
        const proc = await run('pwd', { app: ['--working-dir=/proc/self/fd/3/made'] });
        expect(proc).toMatchObject({ status: 254, stdout: '' });
      });
    });

    describe('rights', () => {
      const status =
        '/bin/busybox grep -E "^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):" /proc/self/status';
      it('CVE-2022-29162: inheritable and ambient sets are empty', async () => {
        expect(await output(status)).toMatch(/CapInh:\t0+\n(?:.*\n)*CapAmb:\t0+\n/);
      });
      it('capabilities retained are all there are', async () => {
        expect(await output(status, { app: ['--caps-retain=CAP_KILL,CAP_CHOWN'] })).toMatch(
          /CapPrm:\t0{14}21\nCapEff:\t0{14}21\nCapBnd:\t0{14}21\n/,
        );
      });
      it('capabilities removed are gone', async () => {
        const bounding = (text: string) => BigInt(`0x${/CapBnd:\t([0-9a-f]+)/.exec(text)?.[1]}`);
        const all = bounding(await output(status));
        expect(bounding(await output(status, { app: ['--caps-remove=CAP_KILL'] }))).toBe(
          all & ~(1n << 5n),
        );
      });
      it('no_new_privs on demand, and always with a filter for a user that is not root', async () => {
        expect(await output(status, { app: ['--no-new-privileges'] })).toContain('NoNewPrivs:\t1');
        const seccomp = '--seccomp=mode=remove,mount';
        expect(await output(status, { app: ['--user=ann', seccomp] })).toMatch(
          /NoNewPrivs:\t1\nSeccomp:\t2/,
        );
        expect(await output(status, { app: [seccomp] })).toMatch(/Seccomp:\t2/);
        const off = '--insecure-options=image,http,seccomp';
        if (traits.hostProcesses) {
          expect(await output(status)).toContain('NoNewPrivs:\t0');
          expect(await output(status, { pod: [off], app: [seccomp] })).toContain('Seccomp:\t0');
        }
      });
      it('a call that the filter forbids fails with the errno asked for', async () => {
        const ended = await run('mkdir /forbidden', {
          app: ['--seccomp=mode=remove,errno=EXDEV,mkdir,mkdirat'],
        });
        expect(ended.stderr).toContain('Invalid cross-device link');
      });
      it('the default whitelist runs a shell', async () => {
        const app = ['--seccomp=mode=retain,@rkt/default-whitelist'];
        expect(await output('ls / | head -n1', { app })).toBe('bin\n');
      });
      it('rlimits and oom_score_adj', async () => {
        const app = ['--rlimit=nofile=100:200', '--oom-score-adj=321'];
        const script = 'ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj';
        expect(await output(script, { app })).toBe('100\n200\n321\n');
      });
    });

    describe('name service files', () => {
      it('--dns and --hosts-entry write theirs', async () => {
        const pod = [
          '--dns=192.0.2.1',
          '--dns-search=example.com',
          '--hosts-entry=192.0.2.2=a,192.0.2.2=b',
        ];
        expect(await output('cat /etc/resolv.conf /etc/hosts', { pod })).toBe(
          '# Generated by tspod\nsearch example.com\nnameserver 192.0.2.1\n192.0.2.2 a b\n',
        );
      });
      it.runIf(traits.hostNetwork)('without --dns the host’s resolv.conf, read-only', async () => {
        const host = readFileSync('/etc/resolv.conf', 'utf8');
        expect(await output('cat /etc/resolv.conf')).toBe(host);
        const ended = await run(': >>/etc/resolv.conf');
        expect(ended.stderr).toContain('Read-only file system');
        expect(ended.status).not.toBe(0);
      });
    });

    describe('enter', () => {
      const isolated: Wanted = {
        config: { User: 'ann', Env: ['PATH=/bin', 'COLOR=blue'] },
        app: [
          '--caps-retain=CAP_KILL',
          '--seccomp=mode=remove,errno=EPERM,mount',
          '--rlimit=nofile=100:200',
          '--oom-score-adj=100',
          ...(traits.limitsByV1 && existsSync('/sys/fs/cgroup/memory') ? ['--memory=64Mi'] : []),
        ],
      };
      it('has the command’s own status, input and output', async () => {
        await start(sleeping, { pod: ['--pod-name=e'] });
        const ended = await box.run(['enter', 'e', '/bin/sh', '-c', 'cat; echo x >&2; exit 5'], {
          input: 'in',
        });
        expect(ended).toMatchObject({ status: 5, stdout: 'in', stderr: 'x\n' });
      });
      it('CVE-2019-10144, -10145, -10147: who enters has the app’s user, rights and limits', async () => {
        const properties =
          '/bin/busybox grep -E "^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp|Seccomp_filters):" /proc/self/status; cat /proc/self/limits /proc/self/oom_score_adj /proc/self/cgroup';
        const descriptors = 'ls /proc/self/fd | wc -l';
        const pod = ['--pod-name=e'];
        await start(sleeping, { ...isolated, pod }, `{ ${properties}; } >/tmp/own`);
        const enter = async (script: string) => {
          const ended = await box.run(['enter', 'e', '/bin/sh', '-c', script]);
          expect(ended).toMatchObject({ stderr: '', status: 0 });
          return ended.stdout;
        };
        const own = await enter('cat /tmp/own');
        expect(own).toContain('1001');
        expect(await enter(properties)).toBe(own);
        // Input, output, error, and what `ls` itself opens.
        expect(await enter(descriptors)).toBe('4\n');
        expect(await enter('echo $COLOR $HOME')).toBe('blue /home/ann\n');
        expect(await enter('mount -t tmpfs x /work 2>/dev/null || echo refused')).toBe('refused\n');
      });
      it('a pod that has ended can’t be entered', async () => {
        await run('exit 0', { pod: ['--pod-name=e'] });
        const ended = await box.run(['enter', 'e', '/bin/sh']);
        expect(ended).toMatchObject({ status: 254, stdout: '' });
        expect(ended.stderr).toMatch(/^tspod: .*\n$/);
      });
      it('a command that is not there is one clear line', async () => {
        await start(sleeping, { pod: ['--pod-name=e'] });
        const ended = await box.run(['enter', 'e', '/bin/nothing']);
        expect(ended.status).toBe(254);
        expect(ended.stderr).toMatch(/^tspod: .*\/bin\/nothing.*\n$/);
      });
    });

    describe('a pod’s life', () => {
      const state = async (pod: string) =>
        /state=(\S+)/.exec((await box.run(['status', pod])).stdout)?.[1];

      it('stop asks with SIGTERM; the pod is then exited, listed, and gone after gc', async () => {
        const pod = await start(forEver, { pod: ['--pod-name=s'] }, 'trap "exit 3" TERM');
        expect(await state('s')).toBe('running');
        expect((await box.run(['list', '--no-legend'])).stdout).toContain('running');
        expect(await box.run(['stop', 's'])).toMatchObject({ status: 0 });
        expect(await pod.ended).toMatchObject({ status: 3 });
        expect(await state('s')).toBe('exited');
        expect(await box.run(['gc', '--grace-period=0s'])).toMatchObject({ status: 0 });
        expect((await box.run(['status', 's'])).status).toBe(254);
      });
      it('stop --force does not ask', async () => {
        const pod = await start(forEver, { pod: ['--pod-name=s'] }, 'trap "" TERM');
        expect(await box.run(['stop', '--force', 's'])).toMatchObject({ status: 0 });
        expect(await pod.ended).toMatchObject(endedBy('SIGKILL'));
      });
      it('gc and rm leave a running pod alone', async () => {
        const pod = await start(sleeping, { pod: ['--pod-name=s'] });
        expect((await box.run(['gc', '--grace-period=0s'])).status).toBe(0);
        expect((await box.run(['rm', 's'])).status).not.toBe(0);
        expect(await state('s')).toBe('running');
        await box.run(['stop', '--force', 's']);
        await pod.ended;
      });
      it('its UUID goes to a file that every command reads', async () => {
        const file = join(box.root, 'uuid');
        const pod = await start(sleeping, { pod: [`--uuid-file-save=${file}`] });
        expect(readFileSync(file, 'utf8')).toMatch(/^[0-9a-f-]{36}$/);
        const named = `--uuid-file=${file}`;
        expect((await box.run(['status', named])).stdout).toContain('state=running');
        expect(await box.run(['enter', named, '/bin/sh', '-c', 'exit 4'])).toMatchObject({
          status: 4,
        });
        expect((await box.run(['stop', '--force', named])).status).toBe(0);
        await pod.ended;
        expect((await box.run(['rm', named])).status).toBe(0);
        expect(pods()).toEqual([]);
      });
      it('--rm leaves no pod, and ends as the app ended', async () => {
        expect(await run('exit 7', { pod: ['--rm'] })).toMatchObject({ status: 7, stderr: '' });
        expect(pods()).toEqual([]);
        expect(await run('kill -KILL $$', { pod: ['--rm'] })).toMatchObject(endedBy('SIGKILL'));
        expect(pods()).toEqual([]);
      });
      it('--result says how it ended; status knows it too', async () => {
        const file = join(work, 'result');
        const record = (): unknown => JSON.parse(readFileSync(file, 'utf8'));
        const pod = [`--result=${file}`, '--pod-name=s'];
        expect(await run('exit 7', { pod, app: ['--name=app'] })).toMatchObject({ status: 7 });
        expect(record()).toMatchObject({
          reason: 'exited',
          exitCode: 7,
          flavor: traits.name,
          name: 's',
          apps: [{ name: 'app', exitCode: 7 }],
        });
        expect((await box.run(['status', 's'])).stdout).toContain('app-app=7\n');
        await run('kill -KILL $$', { pod: [`--result=${file}`] });
        expect(record()).toMatchObject({ apps: [{ exitCode: 137 }] });
        await run(undefined, { pod: [`--result=${file}`], app: ['--exec=/bin/nothing'] });
        expect(record()).toMatchObject({ reason: 'launch-failed', exitCode: 254 });
      });
      it.runIf(traits.keepsStatus)('status knows the exit status without them', async () => {
        await run('exit 7', { pod: ['--pod-name=s'], app: ['--name=app'] });
        expect((await box.run(['status', 's'])).stdout).toContain('app-app=7\n');
      });
      it('status --wait returns when it has ended', async () => {
        const pod = await start(forEver, { pod: ['--pod-name=s'] }, 'trap "exit 0" TERM');
        const waiting = box.run(['status', '--wait', 's']);
        process.kill(pod.pid, 'SIGTERM');
        expect((await waiting).stdout).toContain('state=exited');
        await pod.ended;
      });
      it('prepared, then run', async () => {
        const prepared = await box.run(words('prepare', 'echo ran; exit 5', {}));
        expect(prepared).toMatchObject({ status: 0, stderr: '' });
        const uuid = prepared.stdout.trim();
        expect(await state(uuid)).toBe('prepared');
        expect(await box.run(['run-prepared', uuid])).toMatchObject({
          status: 5,
          stdout: 'ran\n',
          stderr: '',
        });
        expect(await state(uuid)).toBe('exited');
      });
      it('an image of a registry', async () => {
        const name = `docker://${inject('registry')}/tools/busybox:latest`;
        const flavor = `--stage1-name=${traits.name}`;
        const ended = await box.run(['run', flavor, name, '--', '-c', 'cat /etc/motd; pwd']);
        expect(ended).toMatchObject({ status: 0, stdout: 'hello from the app layer\n/data\n' });
      });
      it('the plan can be seen, and nothing is made', async () => {
        const ended = await run('exit 1', { pod: ['--dry-run'] });
        expect(ended.status).toBe(0);
        expect(JSON.parse(ended.stdout)).toBeTruthy();
        expect(pods()).toEqual([]);
      });
    });
  });
}

/** The command lines of the machine's processes. */
function commands(): string[] {
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .map(pid => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
      } catch {
        return '';
      }
    });
}
