/** Networks of pods, by the distribution's plugins and the kernel's packet filter, on hosts of the tests' own. */
import { chmodSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { fromLayout, useSandbox } from '../functional/sandbox.ts';
import { Host } from './host.ts';

const use = useSandbox();
let host: Host;
beforeEach(async () => {
  host = await Host.start(use.box);
});

afterEach(async () => {
  // Cgroups of pods that have ended are gc's.
  await host.tspod('gc', '--grace-period=0s', '--expire-prepared=0s');
  await host.stop();
});

const RUN = ['run', '--stage1-name=nspawn'];
const busybox = () => fromLayout('busybox');
/** Words of `run` after the image. */
const script = (text: string) => ['--exec=/bin/sh', '--', '-c', text];
const HTTPD = 'exec busybox httpd -f -p 80 -h /etc';

function network(file: string, config: object): void {
  const folder = join(use.box.root, 'local/net.d');
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, file), JSON.stringify(config));
}

/** A request for /motd, as words of a shell. */
const ask = (ip: string, port: number) =>
  `printf 'GET /motd HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 2 ${ip} ${port}`;
const MOTD = 'hello from the app layer';

/** Asks from the host; waits until somebody answers. */
async function answered(ip: string, port: number): Promise<void> {
  await expect
    .poll(async () => (await host.run('sh', '-c', ask(ip, port))).stdout, { timeout: 20_000 })
    .toContain(MOTD);
}

async function pods(): Promise<readonly { name: string; networks?: { ip: string }[] }[]> {
  return JSON.parse((await host.tspod('list', '--format=json')).stdout);
}

describe('the default network', () => {
  test('an address, a route, the way out; nothing of it is left', async () => {
    const before = await host.state();
    const inside = 'ip -o -4 addr; ip route; busybox ping -c 1 -W 2 172.16.28.1';
    const ended = await host.tspod(...RUN, busybox(), ...script(inside));
    expect(ended).toMatchObject({ status: 0, stderr: '' });
    expect(ended.stdout).toMatch(/eth0 +inet 172\.16\.28\.[0-9]+\/24/);
    expect(ended.stdout).toMatch(/lo +inet 127\.0\.0\.1/);
    expect(ended.stdout).toContain('default via 172.16.28.1');
    expect(ended.stdout).toContain('1 packets received');
    expect(await host.state()).toBe(before);
    const [pod] = await pods();
    expect(pod?.networks).toMatchObject([
      { netName: 'default', ifName: 'eth0', mask: '255.255.255.0' },
    ]);
  });

  test('packets that leave the host have its address', async () => {
    // What is reached through another interface is another machine.
    const far =
      'ip link add out0 type veth peer name far0 && ip netns add far && ip link set far0 netns far';
    const addresses =
      'ip addr add 10.9.0.1/24 dev out0 && ip link set out0 up && ip -n far addr add 10.9.0.2/24 dev far0 && ip -n far link set far0 up';
    expect(await host.run('sh', '-ec', `${far} && ${addresses}`)).toMatchObject({ status: 0 });
    const reach = 'busybox ping -c 1 -W 2 10.9.0.2';
    const outside = await host.tspod(...RUN, '--net=default', busybox(), ...script(reach));
    expect(outside.stdout).toContain('1 packets received');
    // Without a way back or a route of its own the restricted one gets no answer.
    const restricted = [
      '--net=default-restricted',
      busybox(),
      ...script(`ip -o -4 addr; ${reach}`),
    ];
    const within = await host.tspod(...RUN, ...restricted);
    expect(within.stdout).toContain('172.31.');
    expect(within.stdout).not.toContain('1 packets received');
    expect(within.status).not.toBe(0);
  });

  test('a port by its number: from localhost and by an address of the host; a pod asks a pod', async () => {
    const before = await host.state();
    expect(await host.run('sh', '-ec', 'ip addr add 10.7.7.7/32 dev lo')).toMatchObject({
      status: 0,
    });
    const ports = ['--port=80:8080', '--port=80:10.7.7.7:8081'];
    const server = host.start([...RUN, ...ports, '--pod-name=web', busybox(), ...script(HTTPD)]);
    await answered('127.0.0.1', 8080);
    await answered('10.7.7.7', 8080);
    await answered('10.7.7.7', 8081);
    const refused = await host.run('sh', '-c', ask('127.0.0.1', 8081));
    expect(refused.stdout).not.toContain(MOTD);
    const ip = (await pods())[0]?.networks?.[0]?.ip;
    const listed = await host.tspod('list', '--no-legend');
    expect(listed.stdout).toMatch(new RegExp(`default:ip4=${ip}\\s*$`));
    const status = await host.tspod('status', 'web');
    expect(status.stdout).toContain(`networks=default:ip4=${ip}\n`);
    const other = await host.tspod(...RUN, busybox(), ...script(ask(ip ?? '', 80)));
    expect(other.stdout).toContain(MOTD);
    const entered = await host.tspod('enter', 'web', '/bin/sh', '-c', 'ip -o -4 addr');
    expect(entered.stdout).toContain(`${ip}/24`);
    // Two pods can't have one port.
    const second = await host.tspod(...RUN, '--port=80:8080', busybox(), ...script('true'));
    expect(second).toMatchObject({ status: 254, stdout: '' });
    expect(second.stderr).toMatch(/port 8080 of the host is pod [0-9a-f-]{36}'s; give another one/);
    expect(await host.tspod('stop', 'web')).toMatchObject({ status: 0 });
    await server.ended;
    await host.run('ip', 'addr', 'del', '10.7.7.7/32', 'dev', 'lo');
    expect(await host.state()).toBe(before);
  });

  test('a sandbox has its ports before it has apps', async () => {
    const before = await host.state();
    const sandbox = host.start([
      'app',
      'sandbox',
      '--pod-name=box',
      '--port=http:tcp:80:127.0.0.1:8080',
    ]);
    await expect.poll(async () => (await pods())[0]?.networks?.length, { timeout: 20_000 }).toBe(1);
    expect(await host.tspod('fetch', busybox())).toMatchObject({ status: 0 });
    const words = ['--name=web', '--stdout=log', '--stderr=log', ...script(HTTPD)];
    expect(await host.tspod('app', 'add', 'box', busybox(), ...words)).toMatchObject({ status: 0 });
    expect(await host.tspod('app', 'start', 'box', '--app=web')).toMatchObject({ status: 0 });
    await answered('127.0.0.1', 8080);
    await host.tspod('stop', 'box');
    await sandbox.ended;
    expect(await host.state()).toBe(before);
    const wrong = await host.tspod('app', 'sandbox', '--port=http:80:8080');
    expect(wrong.stderr).toMatch(
      /--port=http:80:8080: it must be NAME:PROTOCOL:PODPORT:HOSTIP:HOSTPORT/,
    );
  });

  test("a port that a program of the host has is that program's", async () => {
    const program = host.spawn('busybox', ['nc', '-l', '-p', '8080'], { keepInput: true });
    await expect
      .poll(async () => (await host.run('ss', '-ltnH')).stdout, { timeout: 10_000 })
      .toContain(':8080');
    const ended = await host.tspod(...RUN, '--port=80:8080', busybox(), ...script('true'));
    expect(ended.status).toBe(254);
    expect(ended.stderr).toMatch(/port 8080 of the host is a program's on the host/);
    program.child.kill('SIGKILL');
    expect(await host.state()).not.toContain('tspod-');
  });

  test('an address that one asks for; a second time it is taken', async () => {
    const asked = ['--net=default:IP=172.16.28.77', busybox()];
    const first = host.start([...RUN, '--pod-name=first', ...asked, ...script('sleep 1000')]);
    await expect
      .poll(async () => (await pods())[0]?.networks?.[0]?.ip, { timeout: 20_000 })
      .toBe('172.16.28.77');
    const second = await host.tspod(...RUN, ...asked, ...script('true'));
    expect(second.status).toBe(254);
    expect(second.stderr).toMatch(
      /failed to setup network: network "default": plugin ptp: .*172\.16\.28\.77/,
    );
    await host.tspod('stop', '--force', 'first');
    await first.ended;
  });

  test('a prepared pod gets them when it runs', async () => {
    const prepared = await host.tspod(
      'prepare',
      '--quiet',
      '--stage1-name=nspawn',
      '--port=80:8080',
      busybox(),
      ...script(HTTPD),
    );
    const uuid = prepared.stdout.trim();
    expect(await host.state()).not.toContain('tspod-');
    const running = host.start(['run-prepared', uuid]);
    await answered('127.0.0.1', 8080);
    await host.tspod('stop', uuid);
    await running.ended;
    expect(await host.state()).not.toContain('tspod');
  });
});

describe('configured networks', () => {
  const BRIDGE = {
    cniVersion: '1.0.0',
    name: 'inner',
    plugins: [
      {
        type: 'bridge',
        bridge: 'cni-inner',
        isGateway: true,
        hairpinMode: true,
        ipam: {
          type: 'host-local',
          dataDir: '/run/inner',
          ranges: [[{ subnet: '10.5.0.0/24' }], [{ subnet: 'fd05::/64' }]],
          routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }],
        },
      },
      { type: 'tuning', sysctl: { 'net.ipv4.conf.all.log_martians': '1' } },
    ],
  };

  test('a list of plugins, two networks at once, IPv6, ports of both families', async () => {
    network('10-inner.conflist', BRIDGE);
    const server = host.start([
      ...RUN,
      '--net=inner,default-restricted',
      '--port=80:8080',
      '--pod-name=web',
      busybox(),
      ...script(HTTPD),
    ]);
    await answered('127.0.0.1', 8080);
    const { stdout } = await host.tspod(
      'enter',
      'web',
      '/bin/sh',
      '-c',
      'ip -o addr; cat /proc/sys/net/ipv4/conf/all/log_martians',
    );
    expect(stdout).toMatch(/eth0 .*inet 10\.5\.0\./);
    expect(stdout).toMatch(/eth0 .*inet6 fd05::/);
    expect(stdout).toMatch(/eth1 .*inet 172\.31\./);
    expect(stdout).toMatch(/^1$/m);
    await host.run('sh', '-ec', 'ip addr add fd99::1/128 dev lo');
    const get =
      'import urllib.request as u; print(u.urlopen("http://[fd99::1]:8080/motd", timeout=5).read())';
    expect((await host.run('python3', '-c', get)).stdout).toContain(MOTD);
    const listed = await host.tspod('list', '--no-legend');
    expect(listed.stdout).toMatch(/inner:ip4=10\.5\.0\.[0-9]+, default-restricted:ip4=172\.31\./);
    await host.tspod('stop', 'web');
    await server.ended;
    const left = await host.state();
    expect(left).not.toContain('veth');
    expect(left).not.toContain('tspod');
  });

  test('a single configuration of version 0.2.0', async () => {
    network('old.conf', {
      cniVersion: '0.2.0',
      name: 'old',
      type: 'ptp',
      ipam: { type: 'host-local', subnet: '10.6.0.0/24' },
    });
    const ended = await host.tspod(...RUN, '--net=old', busybox(), ...script('ip -o -4 addr'));
    expect(ended.stdout).toContain('10.6.0.');
    expect((await host.run('ls', '/var/lib/cni/networks/old')).stdout).not.toContain('10.6.0.');
  });

  test('of version 1.1.0, which these plugins do not speak yet', async () => {
    network('new.conflist', { ...BRIDGE, cniVersion: '1.1.0' });
    const ended = await host.tspod(...RUN, '--net=inner', busybox(), ...script('ip -o -4 addr'));
    expect(ended).toMatchObject({ status: 0, stderr: '' });
    expect(ended.stdout).toContain('10.5.0.');
  });

  test('all; one that is called default takes the place of the built-in one', async () => {
    network('a.conf', {
      cniVersion: '0.4.0',
      name: 'default',
      type: 'ptp',
      ipam: { type: 'host-local', subnet: '10.8.0.0/24' },
    });
    network('b.conflist', BRIDGE);
    const ended = await host.tspod(...RUN, '--net=all', busybox(), ...script('ip -o -4 addr'));
    expect(ended.stdout).toMatch(/eth0 +inet 10\.8\.0\./);
    expect(ended.stdout).toMatch(/eth1 +inet 10\.5\.0\./);
    expect(ended.stdout).not.toContain('172.16');
  });

  test('what a network says about names; what the user says comes first', async () => {
    const plugin = { type: 'ptp', ipam: { type: 'host-local', subnet: '10.6.0.0/24' } };
    network('dns.conf', {
      cniVersion: '1.0.0',
      name: 'named',
      ...plugin,
      dns: { nameservers: ['10.6.0.1'], search: ['inner.example'] },
    });
    const resolv = ['cat', '/etc/resolv.conf'].join(' ');
    const said = await host.tspod(...RUN, '--net=named', busybox(), ...script(resolv));
    expect(said.stdout).toMatch(/search inner\.example\nnameserver 10\.6\.0\.1\n/);
    const other = await host.tspod(
      ...RUN,
      '--net=named',
      '--dns=9.9.9.9',
      busybox(),
      ...script(resolv),
    );
    expect(other.stdout).toMatch(/nameserver 9\.9\.9\.9\n/);
    expect(other.stdout).not.toContain('10.6.0.1');
  });
});

describe('a plugin that fails', () => {
  /** A plugin that writes down what it is told, and then does as `body` says. */
  function plugin(name: string, body: string): string {
    const folder = join(use.box.root, 'local/net.d');
    mkdirSync(folder, { recursive: true });
    const log = join(use.box.root, `${name}.log`);
    const text = `#!/bin/sh\n[ "$CNI_COMMAND" = VERSION ] && echo '{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}' && exit\n(env | grep ^CNI_ | sort; cat; echo) >>${log}\n${body}\n`;
    writeFileSync(join(folder, name), text);
    chmodSync(join(folder, name), 0o755);
    return log;
  }

  test('its own words, one line; what came before it is undone', async () => {
    const log = plugin(
      'broken',
      '[ "$CNI_COMMAND" = ADD ] || exit 0\nprintf %s \'{"code": 11, "msg": "try  later", "details": "because"}\'; exit 1',
    );
    network('x.conflist', {
      cniVersion: '1.0.0',
      name: 'x',
      plugins: [
        { type: 'ptp', ipam: { type: 'host-local', subnet: '10.6.0.0/24' } },
        { type: 'broken', mark: [1] },
      ],
    });
    const before = await host.state();
    const ended = await host.tspod(...RUN, '--net=x:A=b;C=d', busybox(), ...script('true'));
    expect(ended).toMatchObject({ status: 254, stdout: '' });
    expect(ended.stderr).toBe(
      'tspod: failed to setup network: network "x": plugin broken: try later: because\n',
    );
    expect(await host.state()).toBe(before);
    const told = readFileSync(log, 'utf8');
    expect(told).toMatch(
      /CNI_ARGS=IgnoreUnknown=1;A=b;C=d\nCNI_COMMAND=ADD\nCNI_CONTAINERID=[0-9a-f-]{36}\nCNI_IFNAME=eth0\nCNI_NETNS=\/run\/netns\/tspod-/,
    );
    expect(told).toContain('"mark":[1]');
    expect(told).toContain('"prevResult":{');
    expect(told).toContain('CNI_COMMAND=DEL');
    expect(await pods()).toEqual([]);
  });

  test('on DEL: said, and done by the next gc', async () => {
    const flag = join(use.box.root, 'mended');
    plugin(
      'sticky',
      `[ "$CNI_COMMAND" = ADD ] && echo '{"cniVersion":"1.0.0","ips":[]}' && exit 0\n[ -e ${flag} ] || { echo no >&2; exit 1; }`,
    );
    network('x.conf', { cniVersion: '1.0.0', name: 'x', type: 'sticky' });
    expect(await host.tspod(...RUN, '--net=x', busybox(), ...script('exit 3'))).toMatchObject({
      status: 3,
    });
    const kept = await host.tspod('gc', '--grace-period=0s');
    expect(kept.stderr).toMatch(/network "x": plugin sticky: no/);
    expect(kept.status).toBe(254);
    writeFileSync(flag, '');
    expect(await host.tspod('gc', '--grace-period=0s')).toMatchObject({ status: 0 });
    expect(await pods()).toEqual([]);
    expect(await host.state()).not.toContain('tspod-');
  });
});

describe('refused', () => {
  test.each([
    [['--net=nothing'], /networks not found: nothing; .*net\.d has them/],
    [['--net=default,none'], /--net=default,none: "none" stands alone/],
    [['--net=a b'], /"a b" is not the name of a network/],
    [['--net=default:x'], /"x" is not KEY=VALUE/],
    [['--net=default,default'], /names a network twice/],
    [['--port=80:8080', '--port=81:8080'], /--port=81-tcp: port 8080 of the host is given twice/],
    [['--net=none', '--port=80:8080'], /--port flag does not work with 'none' networking/],
    [['--net=host', '--port=80:8080'], /--port flag does not work with 'host' networking/],
  ])('%j', async (words, message) => {
    const ended = await host.tspod(...RUN, ...words, busybox(), ...script('true'));
    expect(ended).toMatchObject({ status: 254, stdout: '' });
    expect(ended.stderr).toMatch(message);
    expect(ended.stderr.trim().split('\n')).toHaveLength(1);
    expect(await host.state()).not.toContain('tspod');
    expect(await pods()).toEqual([]);
  });

  test.each([
    ['{', /it is not JSON/],
    ['{"name": "x", "plugins": []}', /plugins is empty/],
    ['{"name": "x", "type": "../../bin/sh"}', /type is not the name of a plugin/],
    ['{"name": "../x", "type": "ptp"}', /name is not the name of a network/],
    ['{"name": "x", "type": "ptp", "cniVersion": "9.0.0"}', /cniVersion is "9\.0\.0"/],
    [
      '{"name": "x", "type": "nosuch"}',
      /network plugin "nosuch": there is no such program; install/,
    ],
  ])('a file with %s', async (text, message) => {
    const folder = join(use.box.root, 'local/net.d');
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, 'x.conf'), text);
    const ended = await host.tspod(...RUN, '--net=x', busybox(), ...script('true'));
    expect(ended.status).toBe(254);
    expect(ended.stderr).toMatch(message);
    expect(ended.stderr.trim().split('\n')).toHaveLength(1);
  });
});

test.each(['net-written', 'net-namespace', 'net-added', 'run-handoff'])(
  'killed at %s: gc takes everything back',
  async fault => {
    const before = await host.state();
    const words = [...RUN, '--port=80:8080', busybox(), ...script('true')];
    const killed = await host.start(words, { env: { TSPOD_FAULT: fault } }).ended;
    expect(killed.signal).toBe('SIGKILL');
    expect(await host.tspod('gc', '--grace-period=0s')).toMatchObject({ status: 0 });
    expect(await host.state()).toBe(before);
    expect(await host.tspod(...words)).toMatchObject({ status: 0 });
    expect(await host.state()).toBe(before);
  },
);

test('the pod, its parent and all: killed together, and gc gives the address back', async () => {
  const before = await host.state();
  const running = host.start([...RUN, '--port=80:8080', busybox(), ...script('sleep 1000')]);
  await expect.poll(async () => (await pods())[0]?.networks?.length, { timeout: 20_000 }).toBe(1);
  running.child.kill('SIGKILL');
  await running.ended;
  await expect
    .poll(
      async () =>
        (await host.tspod('gc', '--grace-period=0s')).status === 0 && (await pods()).length,
      { timeout: 20_000 },
    )
    .toBe(0);
  expect(await host.state()).toBe(before);
});

test.each(['net-rules-removed', 'net-deleted'])(
  'gc is killed at %s: the next one does the rest',
  async fault => {
    const before = await host.state();
    const words = [...RUN, '--port=80:8080', busybox(), ...script('true')];
    await host.start(words, { env: { TSPOD_FAULT: 'run-handoff' } }).ended;
    expect(await host.state()).not.toBe(before);
    const gc = ['gc', '--grace-period=0s'];
    const killed = await host.start(gc, { env: { TSPOD_FAULT: fault } }).ended;
    expect(killed.signal).toBe('SIGKILL');
    expect(await host.tspod(...gc)).toMatchObject({ status: 0 });
    expect(await pods()).toEqual([]);
    expect(await host.state()).toBe(before);
  },
);

test('after a reboot gc gives back addresses that are written on a disk', async () => {
  const leases = join(use.box.root, 'leases');
  const ipam = { type: 'host-local', subnet: '10.6.0.0/24', dataDir: leases };
  network('kept.conf', { cniVersion: '1.0.0', name: 'kept', type: 'ptp', ipam });
  const taken = () => readdirSync(join(leases, 'kept')).filter(name => name.startsWith('10.'));
  const words = [...RUN, '--net=kept', '--port=80:8080', busybox(), ...script('true')];
  await host.start(words, { env: { TSPOD_FAULT: 'run-handoff' } }).ended;
  expect(taken()).toHaveLength(1);
  // Namespaces, rules and /run go with the host; the pod's folder and the leases stay.
  await host.stop();
  host = await Host.start(use.box);
  const before = await host.state();
  const collected = await host.tspod('gc', '--grace-period=0s');
  expect(collected, collected.stderr).toMatchObject({ status: 0 });
  expect(taken()).toEqual([]);
  expect(await pods()).toEqual([]);
  expect(await host.state()).toBe(before);
});
