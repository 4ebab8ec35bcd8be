/**
 * What tspod is on a host with systemd and cgroup v2, tried in a guest: pods are machines, limits hold, units start
 * and stop pods, the journal has what apps say, and nothing of a pod outlives a reboot. Every suite of Debian that the
 * rig knows runs the same tests.
 */
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import type { Suite } from './guest.ts';
import { Machine } from './machine.ts';

const TSPOD = 'tspod --insecure-options=image';
const IMAGE = 'oci:/srv/layouts/busybox:latest';
const RUN = `${TSPOD} run --stage1-name=nspawn --net=none`;

/** An app that is a shell script, as words of `run`; flags come before it. */
function app(script: string, flags = ''): string {
  return `${IMAGE} ${flags} --exec=/bin/sh -- -c ${quoted(script)}`;
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** Under systemd-run, so without the rig's own processes beside it. */
const DELEGATED = 'systemd-run --quiet --scope -p Delegate=yes --';
/** Bash: until a condition holds; a test's time-out ends it. */
const until = (condition: string) => `until ${condition}; do sleep 0.1; done`;
const running = (name: string) =>
  until(`tspod list --no-legend 2>/dev/null | grep -q '${name}.*running'`);

/** Waits until every app of the pod has been started. */
const ready = (name: string) =>
  `${running(name)}; tspod status --wait-ready=60s ${name} >/dev/null`;

/** A test of this part; a test of the other part is not one of this guest's. */
const when = (part: boolean) => (name: string, body: () => Promise<void>, limit?: number) => {
  if (part) it(name, body, limit);
};

interface About {
  /** What doctor says of layers. */
  readonly layers: string;
  /** Each part costs a minute of emulation: what hardly depends on the versions is tried on one of the guests. */
  readonly part: 'one' | 'two';
}

export function hostSuite(suite: Suite, about: About): void {
  const one = about.part === 'one';
  describe(`a host with systemd: ${suite}`, () => {
    let machine: Machine;
    beforeAll(async () => {
      machine = await Machine.boot(suite, inject('layouts'));
      await machine.ok(`${TSPOD} fetch ${IMAGE}`);
    }, 900_000);
    afterAll(async () => {
      await machine?.end();
    });

    it('the rig: systemd is PID 1, cgroup v2 alone, all units are well', async () => {
      expect(
        await machine.ok(
          'cat /proc/1/comm; stat -fc %T /sys/fs/cgroup; cat /proc/self/cgroup; systemctl --failed --no-legend',
        ),
      ).toBe('systemd\ncgroup2fs\n0::/user.slice/session-rig.scope\n');
    });

    when(one)('the rig: a status, both streams, a time-out', async () => {
      expect(await machine.run('echo out; echo err >&2; exit 3')).toEqual({
        status: 3,
        stdout: 'out\n',
        stderr: 'err\n',
      });
      expect((await machine.run('kill -9 $$')).status).toBe(137);
      await expect(machine.run('sleep 60', 0.2)).rejects.toThrow('not ended after 0.2 s');
    });

    it('doctor finds what there is', async () => {
      const checks: unknown = JSON.parse(await machine.ok('tspod doctor --format=json'));
      expect(checks).toContainEqual(
        expect.objectContaining({
          name: 'cgroups',
          detail: expect.stringMatching(/^version 2 with .*memory.*pids/),
        }),
      );
      expect(checks).toContainEqual(
        expect.objectContaining({ name: 'layers', detail: expect.stringContaining(about.layers) }),
      );
    });

    it('a pod is a machine in a scope of its own while it runs', async () => {
      const script = `
        ${RUN} --uuid-file-save=/root/uuid ${app('sleep 60', '--name=lone')} >/dev/null & pid=$!
        ${ready('lone')}
        machinectl list --no-legend
        cat /proc/$(machinectl show -p Leader --value rkt-$(cat /root/uuid))/cgroup
        machinectl poweroff rkt-$(cat /root/uuid); wait $pid; echo status $?
        machinectl list --no-legend; cat /root/uuid`;
      const lines = (await machine.ok(script)).split('\n');
      const uuid = lines.at(-1) ?? '';
      expect(lines[0]).toMatch(new RegExp(`^rkt-${uuid} +container +systemd-nspawn`));
      expect(lines[1]).toBe(
        `0::/machine.slice/machine-rkt\\x2d${uuid.replaceAll('-', '\\x2d')}.scope/payload/init`,
      );
      expect(lines.slice(2, -1)).toEqual(['status 143']);
    });

    when(!one)(
      'three apps, each with its own limits; enter has the app’s; stop; gc leaves nothing',
      async () => {
        const script = `
        ${RUN} --uuid-file-save=/root/three ${app('sleep 60', '--name=one --memory=64Mi')} --- ${app('sleep 60', '--name=two --cpu=500m --cpu-shares=1024')} --- ${app('sleep 60', '--name=three --pids-limit=33')} & pid=$!
        ${running('one')}
        ${until('[ -e /var/lib/tspod/pods/run/$(cat /root/three)/stage1/rootfs/rkt/supervisor-status -o -L /var/lib/tspod/pods/run/$(cat /root/three)/stage1/rootfs/rkt/supervisor-status ]')}
        cd /sys/fs/cgroup/machine.slice/machine-*/payload
        cat app-one/memory.max app-two/cpu.max app-two/cpu.weight app-three/pids.max app-one/pids.max
        tspod enter --app=three $(cat /root/three) /bin/sh -c 'echo $$' >/dev/null && echo entered
        tspod enter --app=one $(cat /root/three) /bin/sh -c 'sleep 3' & 
        ${until('[ $(wc -l <app-one/cgroup.procs) -ge 2 ]')}; echo in the cgroup of one
        tspod stop $(cat /root/three) >/dev/null; wait $pid; echo status $?
        cd /; tspod gc --grace-period=0 >/dev/null 2>&1; tspod list --no-legend
        find /sys/fs/cgroup/machine.slice -name 'machine-*'; losetup -n; ls /var/lib/tspod/pods/*/`;
        const out = await machine.ok(script);
        expect(out.split('\n').slice(0, 8)).toEqual([
          '67108864',
          '50000 100000',
          '39',
          '33',
          'max',
          'entered',
          'in the cgroup of one',
          'status 143',
        ]);
        expect(out).not.toContain('machine-');
        expect(out).not.toContain('/dev/loop');
      },
    );

    when(!one)('a memory limit kills its app alone', async () => {
      const hog = 'dd if=/dev/zero of=/dev/null bs=200M count=1 2>/dev/null; echo hog $?';
      const command = `${RUN} ${app(hog, '--name=hog --memory=24Mi')} --- ${app('sleep 2; echo calm', '--name=calm')}`;
      expect(await machine.run(command)).toMatchObject({ status: 0, stdout: 'hog 137\ncalm\n' });
    });

    when(!one)('a limit on processes stops a fork bomb', async () => {
      const bomb = 'b() { b | b & }; b; sleep 1; echo over';
      const script = `${RUN} ${app(bomb, '--name=bomb --pids-limit=20')} >/dev/null 2>&1 & pid=$!
        ${until('[ "$(cat /sys/fs/cgroup/machine.slice/machine-*/payload/app-bomb/pids.events 2>/dev/null)" ] && ! grep -q "max 0" /sys/fs/cgroup/machine.slice/machine-*/payload/app-bomb/pids.events')}
        cat /sys/fs/cgroup/machine.slice/machine-*/payload/app-bomb/pids.peak 2>/dev/null || echo 20
        kill $pid; wait $pid; echo over; pgrep -c launch`;
      const { stdout } = await machine.run(script);
      const [peak, over, left] = stdout.split('\n');
      expect(Number(peak)).toBeLessThanOrEqual(20);
      expect([over, left]).toEqual(['over', '0']);
    });

    when(one)('a CPU limit: a busy app gets about its share', async () => {
      const stat =
        "sed -n 's/usage_usec //p' /sys/fs/cgroup/machine.slice/machine-*/payload/app-slow/cpu.stat";
      const script = `${RUN} ${app('while :; do :; done', '--name=slow --cpu=200m')} & pid=$!
        ${until(`[ "$(${stat} 2>/dev/null)" ]`)}
        a=$(${stat}); s=$(date +%s%N); sleep 5; b=$(${stat}); e=$(date +%s%N)
        echo $(((b - a) * 1000000 / (e - s)))
        grep nr_throttled /sys/fs/cgroup/machine.slice/machine-*/payload/app-slow/cpu.stat
        tspod stop --force $(tspod list --full --no-legend | sed -n 's/ .*//;/-/p' | tail -1) >/dev/null 2>&1; kill -9 $pid; wait`;
      const [share, throttled] = (await machine.run(script)).stdout.split('\n');
      // thousandths of a CPU; a busy machine may give less, the kernel never more than a period's rest
      expect(Number(share)).toBeLessThan(300);
      expect(Number(throttled?.split(' ')[1])).toBeGreaterThan(0);
    });

    when(!one)('fly: limits in a delegated cgroup, refused where others are in it', async () => {
      const fly = `${TSPOD} run --stage1-name=fly`;
      const refused = await machine.run(`${fly} ${app('true', '--memory=24Mi')}`);
      expect(refused.status).toBe(254);
      expect(refused.stderr).toContain("can't hand controllers down while process");
      const script =
        'p=/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup); cat $p/memory.max $p/pids.max $p/cpu.max; dd if=/dev/zero of=/dev/null bs=200M count=1 2>/dev/null; echo $?';
      const flags = '--memory=24Mi --pids-limit=30 --cpu=1500m';
      for (const rm of ['', '--rm'])
        expect(await machine.run(`${DELEGATED} ${fly} ${rm} ${app(script, flags)}`)).toMatchObject({
          status: 0,
          stdout: '25165824\n30\n150000 100000\n137\n',
        });
    });

    when(!one)(
      'a unit: ready when the apps are, stopped gracefully, with the app’s status',
      async () => {
        const script =
          'sleep 1; trap "echo bye; exit 3" TERM; echo up; while :; do sleep 0.1; done';
        await putUnit(machine, 'web.service', [
          'Type=notify',
          'NotifyAccess=all',
          'Delegate=yes',
          'KillMode=mixed',
          `ExecStart=/opt/tspod/bin/${RUN} ${app(script, '--name=web --memory=64Mi')}`,
        ]);
        await machine.ok('systemctl start web; systemctl is-active web');
        expect(
          await machine.ok(
            `${until('journalctl -u web -o cat | grep -qx up')}; cat /sys/fs/cgroup/system.slice/web.service/tspod-*/payload/app-web/memory.max; machinectl list --no-legend | wc -l`,
          ),
        ).toBe('67108864\n1\n');
        expect(
          await machine.ok(
            'systemctl stop web; systemctl show web -p ExecMainStatus -p ExecMainCode; journalctl -u web -o cat | grep -x -e up -e bye; ls -d /sys/fs/cgroup/system.slice/web.service 2>/dev/null || echo gone',
          ),
        ).toBe('ExecMainCode=1\nExecMainStatus=3\nup\nbye\ngone\n');
      },
    );

    when(one)('socket activation: the app gets the socket that systemd listens on', async () => {
      const script =
        'echo $LISTEN_FDS $((LISTEN_PID == $$)); readlink /proc/self/fd/3 | cut -c1-7; sleep 60';
      await putUnit(machine, 'echo.service', [
        'Delegate=yes',
        'KillMode=mixed',
        `ExecStart=/opt/tspod/bin/${RUN} ${app(script, '--name=listener')}`,
      ]);
      await machine.ok(
        `printf '[Socket]\\nListenStream=127.0.0.1:7777\\n' >/etc/systemd/system/echo.socket; systemctl daemon-reload; systemctl start echo.socket; (echo >/dev/tcp/127.0.0.1/7777)`,
      );
      expect(
        await machine.ok(
          `${until('[ $(journalctl TSPOD_APP=listener -o cat | wc -l) -ge 2 ]')}; journalctl TSPOD_APP=listener -o cat; systemctl stop echo.socket echo.service`,
        ),
      ).toBe('1 1\nsocket:\n');
    });

    when(!one)('the journal has each line with its pod, app and stream', async () => {
      const script = `${RUN} --uuid-file-save=/root/log ${app('echo out; sleep 0.3; echo err >&2; sleep 0.3; head -c 20000 /dev/zero | tr "\\0" x', '--name=talker')} >/dev/null 2>&1
        journalctl --sync; journalctl TSPOD_POD=$(cat /root/log) --all -o json --output-fields=MESSAGE,PRIORITY,SYSLOG_IDENTIFIER,TSPOD_APP,TSPOD_STREAM,TSPOD_PARTIAL,_UID`;
      const entries: unknown[] = (await machine.ok(script))
        .trim()
        .split('\n')
        .map(line => JSON.parse(line));
      const common = { SYSLOG_IDENTIFIER: 'talker', TSPOD_APP: 'talker', _UID: '0' };
      expect(entries).toMatchObject([
        { ...common, MESSAGE: 'out', PRIORITY: '6', TSPOD_STREAM: 'stdout' },
        { ...common, MESSAGE: 'err', PRIORITY: '3', TSPOD_STREAM: 'stderr' },
        { ...common, MESSAGE: 'x'.repeat(16384), TSPOD_PARTIAL: 'true' },
        { ...common, MESSAGE: 'x'.repeat(20000 - 16384) },
      ]);
    });

    when(!one)('a journal that is started anew costs nothing', async () => {
      const script = `${RUN} --uuid-file-save=/root/anew ${app('echo before; sleep 4; echo after', '--name=patient')} >/dev/null & pid=$!
        ${running('patient')}; systemctl restart systemd-journald; wait $pid
        journalctl --sync; journalctl TSPOD_POD=$(cat /root/anew) -o cat`;
      expect(await machine.ok(script)).toBe('before\nafter\n');
    });

    when(one)('lines are read back from the journal, and nobody else’s', async () => {
      const talk =
        'echo one; sleep 0.5; echo two >&2; sleep 2; printf "\\377\\n"; echo a long >/dev/null; printf end';
      const script = `${RUN} --uuid-file-save=/root/read ${app(talk, '--name=a')} --- ${app('sleep 1; echo other', '--name=b')} >/dev/null 2>&1 & pid=$!
        ${running('a')}; tspod logs -f $(cat /root/read) 2>&1; wait $pid
        printf 'MESSAGE=forged\nTSPOD_POD=%s\nTSPOD_APP=a\n' $(cat /root/read) >/tmp/forged
        su -s /bin/sh nobody -c 'logger --journald' </tmp/forged; journalctl --sync
        journalctl -o cat MESSAGE=forged; echo --; tspod logs --app=a $(cat /root/read) 2>/dev/null | od -An -c
        tspod logs --since=1h --tail=1 $(cat /root/read); tspod logs --format=json $(cat /root/read)`;
      const out = await machine.ok(script);
      const [followed = '', rest = ''] = out.split('forged\n--\n');
      expect(followed.split('\n').slice(0, 3)).toEqual(['a: one', 'a: two', 'b: other']);
      const lines = rest.trimEnd().split('\n');
      expect(lines.slice(0, 2)).toEqual(['   o   n   e  \\n 377  \\n   e   n   d  \\n', 'a: end']);
      expect(lines.slice(2).map((line): unknown => JSON.parse(line))).toMatchObject([
        { app: 'a', stream: 'stdout', text: 'one' },
        { app: 'a', stream: 'stderr', text: 'two' },
        { app: 'b', stream: 'stdout', text: 'other' },
        { app: 'a', stream: 'stdout', base64: '/w==' },
        { app: 'a', stream: 'stdout', text: 'end' },
      ]);
    });

    when(one)(
      'each way to end is in the record',
      async () => {
        const two = `${app('sleep 100', '--name=a')} --- ${app('sleep 100', '--name=b')}`;
        const hog = `--exit-policy=all ${app('dd if=/dev/zero of=/dev/null bs=100M count=1', '--name=a --memory=24Mi')} --- ${app('sleep 1', '--name=b')}`;
        const ways: readonly (readonly [string, string, string])[] = [
          ['stop', two, 'tspod stop $u'],

          ['terminate', two, 'machinectl terminate rkt-$u'],
          ['init', two, 'machinectl kill --kill-whom=leader -s KILL rkt-$u'],
          ['nspawn', two, 'kill -9 $(pgrep -x systemd-nspawn)'],

          ['oom', hog, 'true'],
        ];
        const up = until(
          '[ -L /var/lib/tspod/pods/run/$u/stage1/rootfs/rkt/supervisor-status ] || ! kill -0 $pid 2>/dev/null',
        );
        const script = ways.map(
          ([way, apps, end]) => `rm -f /root/u
          ${RUN} --result=/root/result-${way} --uuid-file-save=/root/u ${apps} >/dev/null 2>&1 & pid=$!
          ${until('[ -s /root/u ]')}; u=$(cat /root/u); ${up}; sleep 1; ${end} >/dev/null; wait $pid 2>/dev/null; cat /root/result-${way}`,
        );
        script.push(
          'machinectl list --no-legend; pgrep -x sleep; ls /sys/fs/cgroup/machine.slice | grep machine-',
        );
        const records = (await machine.run(script.join('\n'), 100)).stdout.trimEnd().split('\n');
        const told = records.map(line => {
          const { reason, exitCode, signal, apps } = JSON.parse(line) as {
            readonly [key: string]: unknown;
            readonly apps: readonly { readonly exitCode: number; readonly oomKilled: boolean }[];
          };
          const codes = apps.map(one => `${one.exitCode}${one.oomKilled ? ' oom' : ''}`);
          return [reason, exitCode ?? signal, ...codes];
        });
        expect(Object.fromEntries(ways.map(([way], index) => [way, told[index]]))).toEqual({
          stop: ['exited', 143, '143', '143'],

          terminate: ['exited', 143, '143', '143'],
          init: ['signaled', 'SIGKILL', '137', '137'],
          nspawn: ['signaled', 'SIGKILL', '137', '137'],

          oom: ['exited', 137, '137 oom', '0'],
        });
        expect(told).toHaveLength(ways.length);
      },
      120_000,
    );

    when(one)(
      'without systemd-machined a pod does not start, and that is tspod’s failure',
      async () => {
        const script = `systemctl mask --now --quiet systemd-machined
        ${RUN} --result=/dev/stdout ${app('exit 1')}; echo status $?; systemctl unmask --quiet systemd-machined`;
        const { stdout, stderr } = await machine.run(script);
        const [record = '', status] = stdout.split('\n');
        expect(status).toBe('status 254');
        expect(JSON.parse(record)).toMatchObject({
          reason: 'launch-failed',
          exitCode: 254,
          apps: [{ exitCode: null }],
        });
        expect(stderr).toContain("can't start the pod: what was to start its init ended with 1");
      },
    );

    when(one)('a unit of the launcher alone; a deaf app is killed in time', async () => {
      const script = 'trap "" TERM; echo up; while :; do sleep 0.1; done';
      await machine.ok(
        `${TSPOD} prepare --stage1-name=nspawn --stop-timeout=1 ${app(script, '--name=deaf --memory=64Mi')} >/root/deaf`,
      );
      const uuid = (await machine.ok('cat /root/deaf')).trim();
      await putUnit(machine, 'alone.service', [
        'Type=notify',
        'NotifyAccess=all',
        'Delegate=yes',
        'KillMode=mixed',
        `ExecStart=/opt/tspod/dist/launch /var/lib/tspod/pods/prepared/${uuid}`,
      ]);
      expect(
        await machine.ok(
          `systemctl start alone; systemctl is-active alone; ps -o comm= -p $(systemctl show -p MainPID --value alone); pgrep -c '^node' || true
           cat $(find /sys/fs/cgroup -path '*/app-deaf/memory.max'); tspod status ${uuid} | head -1`,
        ),
      ).toBe('active\nlaunch\n0\n67108864\nstate=running\n');
      expect(
        await machine.ok(
          `systemctl stop alone; systemctl show alone -p ExecMainStatus -p Result; tspod status ${uuid} | grep -e state -e app-; machinectl list --no-legend; tspod logs ${uuid}`,
        ),
      ).toBe('Result=exit-code\nExecMainStatus=137\nstate=exited\napp-deaf=137\nup\n');
    });

    it('the machine starts again: what ran has exited, and gc takes it away', async () => {
      await putUnit(machine, 'old.service', [
        'Delegate=yes',
        'KillMode=mixed',
        `ExecStart=/opt/tspod/bin/${RUN} --uuid-file-save=/root/unit ${app('sleep 600', '--name=new')}`,
      ]);
      await machine.ok(
        `systemctl start --no-block old; (setsid ${RUN} --uuid-file-save=/root/booted ${app('sleep 600', '--name=old')} >/dev/null 2>&1 &) ; ${running('old')}; ${running('new')}; sync`,
      );
      await (one ? machine.reboot() : machine.powerCut());
      const script = `for u in $(cat /root/booted) $(cat /root/unit); do tspod status $u | grep state; done; tspod list --no-legend | grep -c running
        ${RUN} ${app('exit 5')} ; echo status $?
        tspod gc --grace-period=0 >/dev/null 2>&1; tspod list --no-legend | wc -l; losetup -n; find /sys/fs/cgroup -name 'tspod-*' -o -name 'machine-*'; systemctl --failed --no-legend; ls /var/lib/tspod/pods/*/`;
      const { stdout } = await machine.run(script);
      expect(stdout.split('\n').slice(0, 5)).toEqual([
        'state=exited',
        'state=exited',
        '0',
        'status 5',
        '0',
      ]);
      expect(stdout).not.toMatch(/loop|tspod-|machine-|\d{8}/);
    }, 240_000);
  });
}

async function putUnit(machine: Machine, name: string, lines: readonly string[]): Promise<void> {
  const text = `[Service]\n${lines.join('\n')}\n`.replaceAll('$', '$$$$');
  const encoded = Buffer.from(text).toString('base64');
  await machine.ok(
    `echo ${encoded} | base64 -d >/etc/systemd/system/${name}; systemctl daemon-reload`,
  );
}
