/**
 * What every flavor must keep, as executable tests: from flags to what a process in the pod sees. A
 * flavor brings a house that starts pods; the tests ask only through it.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Ended, Wanted } from '../support/fly-pod.ts';

export interface FlavorHouse {
  /** A scratch folder that goes with the house. */
  readonly dir: string;
  /** The image's only layer, which no pod may change. */
  readonly layer: string;
  /** Runs a pod to its end; the image's entrypoint is busybox. */
  run(wanted: Wanted, env?: NodeJS.ProcessEnv, input?: Uint8Array): Ended;
  remove(): void;
}

export function flavorContract(flavor: string, build: () => FlavorHouse): void {
  describe(`flavor ${flavor}`, () => {
    let house: FlavorHouse;
    beforeAll(() => {
      house = build();
    });
    afterAll(() => house.remove());

    /** What a shell script in the pod prints. */
    function output(script: string, wanted: Wanted = {}, env: NodeJS.ProcessEnv = {}): string {
      const ended = house.run({ ...wanted, appArgs: ['sh', '-c', script] }, env);
      expect(ended.stderr).toBe('');
      expect(ended.status).toBe(0);
      return ended.stdout;
    }

    const busybox = (applet: string) => `/bin/busybox ${applet}`;

    describe('ending', () => {
      it.each([0, 1, 77, 254])('exits with the app’s own status %i', status => {
        expect(house.run({ appArgs: ['sh', '-c', `exit ${status}`] }).status).toBe(status);
      });
      it('is killed by the signal that kills the app', () => {
        expect(house.run({ appArgs: ['sh', '-c', 'kill -USR1 $$'] }).signal).toBe('SIGUSR1');
      });
      it('names an executable that is not there, with 254', () => {
        const ended = house.run({ flags: { exec: '/bin/nothing' } });
        expect(ended.status).toBe(254);
        expect(ended.stderr).toMatch(/^tspod: .*\/bin\/nothing.*\n$/);
      });
    });

    it('hands binary input and output through untouched', () => {
      const bytes = Buffer.from(Array.from({ length: 256 }, (_, index) => index));
      const ended = house.run({ appArgs: ['od', '-An', '-v', '-tu1'] }, {}, bytes);
      expect(ended.stdout.trim().split(/\s+/).map(Number)).toEqual([...bytes]);
    });

    describe.each([true, false])('root file system, overlay %s', overlay => {
      it('is the image’s, writable, and the image stays as it was', () => {
        expect(output('echo x > /bin/new && cat /bin/new', { overlay })).toBe('x\n');
        expect(() => readFileSync(join(house.layer, 'bin/new'))).toThrow('ENOENT');
      });
      it('is read-only on demand, volumes and /tmp are not', () => {
        const text = output(
          `${busybox('touch')} /x 2>&1; touch /tmp/x && echo tmp; touch /data/x && echo data`,
          { overlay, flags: { readonlyRootfs: true }, config: { Volumes: ['/data'] } },
        );
        expect(text).toBe('touch: /x: Read-only file system\ntmp\ndata\n');
      });
    });

    describe('volumes', () => {
      it('host: read-write and read-only, parents before children', () => {
        const source = join(house.dir, 'source');
        mkdirSync(source);
        const text = output('echo a > /work/v/a; touch /work/v/ro/b 2>&1; ls /work/v', {
          args: {
            volumes: [
              `ro,kind=host,source=${source},readOnly=true`,
              `rw,kind=host,source=${source}`,
            ],
            mounts: ['volume=ro,target=/work/v/ro', 'volume=rw,target=/work/v'],
          },
        });
        expect(text).toBe('touch: /work/v/ro/b: Read-only file system\na\nro\n');
        expect(readFileSync(join(source, 'a'), 'utf8')).toBe('a\n');
      });
      it('host: a single file', () => {
        const source = join(house.dir, 'file');
        writeFileSync(source, 'content');
        expect(
          output('cat /etc/some/file', {
            args: {
              volumes: [`f,kind=host,source=${source},readOnly=true`],
              mounts: ['volume=f,target=/etc/some/file'],
            },
          }),
        ).toBe('content');
      });
      it('tmpfs: size, mode and owner', () => {
        const text = output('stat -c "%a %u %g" /t; df -k /t | tail -n1 | awk "{print \\$2}"', {
          args: {
            volumes: ['t,kind=tmpfs,size=64Ki,mode=0710,uid=5,gid=6'],
            mounts: ['volume=t,target=/t'],
          },
        });
        expect(text).toBe('710 5 6\n64\n');
      });
    });

    describe('environment', () => {
      it('image < file < set-env < environment, gaps filled from the caller, the user’s own from his entry', () => {
        const file = join(house.dir, 'env');
        writeFileSync(file, '# comment\n; comment\nB=file\nC=file\n');
        const text = output('env | sort', {
          config: { Env: ['A=image', 'B=image', 'C=image', 'D=image'], User: 'ann' },
          args: { setEnvFile: [file], setEnv: ['C=set', 'D=set'] },
          flags: { environment: ['D=app'] },
        });
        for (const line of [
          'A=image',
          'B=file',
          'C=set',
          'D=app',
          'HOME=/home/ann',
          'USER=ann',
          'LOGNAME=ann',
          'SHELL=/bin/ash',
        ]) {
          expect(text.split('\n')).toContain(line);
        }
        expect(text).not.toMatch(/LOCK_FD|TSPOD|RKT/);
        expect(text).toContain('PATH=/usr/local/sbin:');
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
          { config: { User: 'ann' }, flags: { user: '7', group: '8', supplementaryGids: '9,10' } },
          '7\n8\n8 9 10\n',
        ],
        [
          'the owner of a path',
          { flags: { user: '/etc/passwd', group: '/etc/passwd' } },
          '0\n0\n0\n',
        ],
      ])('%s', (_, wanted, expected) => {
        expect(output(ids, wanted)).toBe(expected);
      });
      it('works in the folder asked for', () => {
        expect(output('pwd', { flags: { workingDir: '/work' } })).toBe('/work\n');
        expect(output('pwd', { config: { WorkingDir: '/etc' } })).toBe('/etc\n');
      });
    });

    describe('rights', () => {
      const status =
        'grep -E "^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):" /proc/self/status';
      it('CVE-2022-29162: inheritable and ambient sets are empty', () => {
        expect(output(status)).toMatch(/CapInh:\t0+\n(?:.*\n)*CapAmb:\t0+\n/);
      });
      it('capabilities retained are all there are', () => {
        expect(output(status, { flags: { capsRetain: ['CAP_KILL,CAP_CHOWN'] } })).toMatch(
          /CapPrm:\t0{14}21\nCapEff:\t0{14}21\nCapBnd:\t0{14}21\n/,
        );
      });
      it('capabilities removed are gone', () => {
        const bounding = (text: string) => BigInt(`0x${/CapBnd:\t([0-9a-f]+)/.exec(text)?.[1]}`);
        const all = bounding(output(status));
        expect(bounding(output(status, { flags: { capsRemove: ['sys_admin'] } }))).toBe(
          all & ~(1n << 21n),
        );
      });
      it('no_new_privs on demand, and always with a filter for a user that is not root', () => {
        expect(output(status, { flags: { noNewPrivileges: true } })).toContain('NoNewPrivs:\t1');
        expect(output(status)).toContain('NoNewPrivs:\t0');
        const seccomp = 'mode=remove,mount';
        expect(output(status, { flags: { user: 'ann', seccomp } })).toMatch(
          /NoNewPrivs:\t1\nSeccomp:\t2/,
        );
        expect(output(status, { flags: { seccomp } })).toMatch(/NoNewPrivs:\t0\nSeccomp:\t2/);
        expect(
          output(status, { flags: { seccomp }, context: { insecure: new Set(['seccomp']) } }),
        ).toContain('Seccomp:\t0');
      });
      it('the default whitelist runs a shell', () => {
        expect(
          output('ls / | head -n1', { flags: { seccomp: 'mode=retain,@rkt/default-whitelist' } }),
        ).toBe('bin\n');
      });
      it('rlimits and oom_score_adj', () => {
        const text = output('ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj', {
          flags: { rlimits: ['nofile=100:200'], oomScoreAdj: '321' },
        });
        expect(text).toBe('100\n200\n321\n');
      });
    });

    describe('name service files', () => {
      it('--dns and --hosts-entry write theirs', () => {
        const text = output('cat /etc/resolv.conf /etc/hosts', {
          args: {
            dns: ['192.0.2.1'],
            dnsSearch: ['example.com'],
            hostsEntry: ['192.0.2.2=a,192.0.2.2=b'],
          },
        });
        expect(text).toBe(
          '# Generated by tspod\nsearch example.com\nnameserver 192.0.2.1\n192.0.2.2 a b\n',
        );
      });
      it('without --dns the host’s resolv.conf, read-only', () => {
        expect(output('cat /etc/resolv.conf')).toBe(readFileSync('/etc/resolv.conf', 'utf8'));
      });
    });
  });
}
