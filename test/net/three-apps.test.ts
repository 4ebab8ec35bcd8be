/**
 * A pod of three real programs: nginx in front of a web application in Python, which counts its visits in Redis, all by
 * the pod's own loopback; one port of the host; a volume that two of them share.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { fromLayout, useSandbox } from '../functional/sandbox.ts';
import { giveVmImage, KVM_FLAGS } from '../support/vm-image.ts';
import { Host } from './host.ts';

const use = useSandbox();
let host: Host;
beforeEach(async () => {
  host = await Host.start(use.box);
});
afterEach(async () => {
  await host.tspod('gc', '--grace-period=0s');
  await host.stop();
});

const NGINX = `daemon off;
user www-data;
worker_processes 1;
pid /tmp/nginx.pid;
error_log stderr;
events { worker_connections 64; }
http {
  access_log /dev/stdout;
  client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fcgi;
  uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
  server {
    listen 8080;
    location /shared/ { root /; }
    location / { proxy_pass http://127.0.0.1:9000; }
  }
}
`;

const WEB = `import http.server, socket
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with socket.create_connection(("127.0.0.1", 6379)) as store:
            store.sendall(b"INCR visits\\r\\n")
            count = store.recv(100).decode().strip().lstrip(":")
        with open("/shared/last", "w") as last:
            last.write("visit " + count)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(("you are visitor " + count).encode())
http.server.ThreadingHTTPServer(("127.0.0.1", 9000), Handler).serve_forever()
`;

/** By a client that stays until it has its answer, as nginx expects. */
const CLIENT = `import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())
except urllib.error.HTTPError as error:
    print(error)
`;

async function ask(path: string): Promise<string> {
  const { stdout } = await host.run('python3', '-c', CLIENT, `http://127.0.0.1:9090${path}`);
  return stdout;
}

const answers = (path: string, text: string) =>
  expect.poll(() => ask(path), { timeout: 30_000 }).toContain(text);

test.each<[string, readonly string[]]>([
  ['nspawn', ['--stage1-name=nspawn']],
  ['kvm', [...KVM_FLAGS, '--vm-memory=512Mi']],
])(
  '%s: nginx, Python and Redis: talk, share, are entered, stopped, started again, and end',
  async (flavor, flags) => {
    if (flavor === 'kvm') giveVmImage(use.box);
    const before = await host.state();
    const files = join(use.box.root, 'files');
    mkdirSync(files);
    writeFileSync(join(files, 'nginx.conf'), NGINX);
    writeFileSync(join(files, 'web.py'), WEB);
    const pod = host.start([
      'run',
      ...flags,
      '--pod-name=shop',
      '--port=8080:9090',
      `--volume=files,kind=host,source=${files},readOnly=true`,
      '--volume=shared,kind=empty,mode=1777',
      fromLayout('nginx'),
      '--name=front',
      '--exec=/usr/sbin/nginx',
      '--stdout=log',
      '--stderr=log',
      '--mount=volume=files,target=/files',
      '--mount=volume=shared,target=/shared',
      '--',
      '-c',
      '/files/nginx.conf',
      '---',
      fromLayout('python'),
      '--name=web',
      '--exec=/usr/bin/python3',
      '--stdout=log',
      '--stderr=log',
      '--mount=volume=files,target=/files',
      '--mount=volume=shared,target=/shared',
      '--',
      '/files/web.py',
      '---',
      fromLayout('redis'),
      '--name=store',
      '--stdout=log',
      '--stderr=log',
    ]);
    await answers('/', 'you are visitor 1');
    expect(await ask('/')).toContain('you are visitor 2');
    expect(await ask('/shared/last')).toContain('visit 2');

    // Each is entered with what is its own: its files, its user's rights, one network.
    const entered = (app: string, script: string) =>
      host.tspod('enter', `--app=${app}`, 'shop', '/bin/sh', '-c', script);
    expect(
      (await entered('front', 'ls /usr/sbin/nginx; ls /usr/bin/redis-server 2>&1')).stdout,
    ).toMatch(/^\/usr\/sbin\/nginx\n.*No such file/);
    expect((await entered('store', 'redis-cli get visits')).stdout.trim()).toBe('2');
    expect((await entered('web', 'cat /shared/last; echo x >/files/new')).stdout).toBe('visit 2');

    // The logs are apart.
    const logs = async (app: string) => {
      const { stdout, stderr } = await host.tspod('logs', 'shop', `--app=${app}`);
      return stdout + stderr;
    };
    expect(await logs('web')).toContain('"GET / HTTP/1.0" 200');
    expect(await logs('store')).toContain('Ready to accept connections');
    expect(await logs('front')).toContain('GET /shared/last');
    expect(await logs('front')).not.toContain('Ready to accept');

    // One is stopped and started again; the others go on, and Redis has kept the count.
    expect(await host.tspod('app', 'stop', 'shop', '--app=web')).toMatchObject({ status: 0 });
    expect(await ask('/')).toContain('502: Bad Gateway');
    expect(await ask('/shared/last')).toContain('visit 2');
    expect(await host.tspod('app', 'start', 'shop', '--app=web')).toMatchObject({ status: 0 });
    await answers('/', 'you are visitor');
    expect((await entered('store', 'redis-cli get visits')).stdout.trim()).toMatch(/^[3-9]$/);

    expect(await host.tspod('stop', 'shop')).toMatchObject({ status: 0 });
    await pod.ended;
    const [told] = JSON.parse((await host.tspod('list', '--format=json')).stdout);
    expect(told).toMatchObject({ state: 'exited', app_names: ['front', 'web', 'store'] });
    expect(await host.state()).toBe(before);
  },
  120_000,
);
