/**
 * The images of the functional tests, made from Debian's packages once per machine and kept below the
 * cache folder, keyed by a hash of these recipes: busybox, Python, nginx, Redis, and a large one for the
 * benches. Each has a base layer and a layer with the application that also takes files away.
 */
import { createHash } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { debianRootfs } from '../unpack/debian-rootfs.ts';
import {
  type Compression,
  type ImageConfig,
  tarFolder,
  writeImage,
  writeLayer,
} from './oci-writer.ts';

export const CACHE = process.env['TSPOD_TEST_CACHE'] ?? '/tmp/tspod-test-cache';

export type ImageName = 'busybox' | 'python' | 'nginx' | 'redis' | 'large';

interface Recipe {
  /** The base layer: a tar, or what fills a folder. */
  readonly base: () => string | ((folder: string) => void);
  /** The layer above it. */
  readonly app: (folder: string) => void;
  readonly compression: Compression;
  readonly config: ImageConfig;
}

const APPLETS =
  'sh ash cat echo env id ls mkdir mount nc ps pwd rm sleep stat true false test touch tr wc kill head dd';

const RECIPES: Readonly<Record<ImageName, Recipe>> = {
  busybox: {
    base: () => folder => {
      for (const name of ['bin', 'dev', 'etc', 'proc', 'root', 'sys', 'tmp', 'var/gone', 'data'])
        mkdirSync(join(folder, name), { recursive: true });
      copyFileSync('/usr/bin/busybox', join(folder, 'bin/busybox'));
      chmodSync(join(folder, 'bin/busybox'), 0o755);
      for (const applet of APPLETS.split(' ')) symlinkSync('busybox', join(folder, 'bin', applet));
      chmodSync(join(folder, 'tmp'), 0o1777);
      put(folder, 'etc/passwd', 'root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001::/data:/bin/sh\n');
      put(folder, 'etc/group', 'root:x:0:\nweb:x:1001:\nlog:x:1002:web\n');
      put(folder, 'etc/replaced', 'base\n');
      put(folder, 'var/gone/file', 'must not be seen\n');
      chownSync(join(folder, 'data'), 1000, 1001);
    },
    app: folder => {
      put(folder, 'var/.wh.gone', '');
      put(folder, 'etc/replaced', 'app\n');
      put(folder, 'etc/motd', 'hello from the app layer\n');
    },
    compression: 'gzip',
    config: {
      Entrypoint: [],
      Cmd: ['/bin/sh'],
      Env: ['PATH=/bin', 'FROM_IMAGE=yes'],
      WorkingDir: '/data',
      Labels: { 'org.opencontainers.image.title': 'busybox' },
    },
  },
  python: {
    base: () => debianRootfs(['python3']),
    app: folder => {
      put(
        folder,
        'srv/app.py',
        'import json, platform, sys\nprint(json.dumps({"sum": sum(range(10)), "python": platform.python_version()}))\nsys.exit(int(sys.argv[1]) if len(sys.argv) > 1 else 0)\n',
      );
      put(folder, 'usr/share/.wh.doc', '');
    },
    compression: 'zstd',
    config: {
      Entrypoint: ['/usr/bin/python3', '/srv/app.py'],
      Env: ['PATH=/usr/bin:/bin'],
      WorkingDir: '/srv',
      User: 'nobody',
    },
  },
  nginx: {
    base: () => debianRootfs(['nginx-light']),
    app: folder => {
      put(folder, 'etc/nginx/nginx.template', NGINX);
      put(folder, 'srv/www/index.html', 'hello from nginx\n');
      put(
        folder,
        'usr/local/bin/serve',
        '#!/bin/sh\nset -e\nsed "s/PORT/$PORT/" /etc/nginx/nginx.template >/tmp/nginx.conf\nexec /usr/sbin/nginx -c /tmp/nginx.conf\n',
        0o755,
      );
      put(folder, 'usr/share/.wh.doc', '');
    },
    compression: 'gzip',
    config: {
      Entrypoint: ['/usr/local/bin/serve'],
      Env: ['PATH=/usr/local/bin:/usr/sbin:/usr/bin:/bin', 'PORT=8080'],
      ExposedPorts: { '8080/tcp': {} },
      StopSignal: 'SIGQUIT',
    },
  },
  redis: {
    base: () => debianRootfs(['redis-server']),
    app: folder => {
      put(folder, 'usr/share/.wh.doc', '');
      mkdirSync(join(folder, 'data'));
      chmodSync(join(folder, 'data'), 0o1777);
    },
    compression: 'gzip',
    config: {
      Entrypoint: ['/usr/bin/redis-server'],
      Cmd: ['--port', '6379'],
      User: 'redis',
      Env: ['PATH=/usr/bin:/bin'],
      WorkingDir: '/data',
      Volumes: { '/data': {} },
    },
  },
  large: {
    base: () => debianRootfs(['python3', 'build-essential', 'git']),
    app: folder => put(folder, 'srv/motd', 'large\n'),
    compression: 'gzip',
    config: { Cmd: ['/bin/true'], Env: ['PATH=/usr/bin:/bin'] },
  },
};

const NGINX = `daemon off;
user www-data;
worker_processes 1;
pid /tmp/nginx.pid;
error_log stderr;
events { worker_connections 64; }
http {
  access_log off;
  client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fcgi;
  uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
  server { listen 127.0.0.1:PORT; root /srv/www; }
}
`;

/** Names an image: the layout's folder; its tag is `latest`. Made when it is not in the cache yet. */
export async function imageLayout(name: ImageName): Promise<string> {
  const layout = join(CACHE, `layouts-${recipesKey()}`, name);
  if (existsSync(layout)) return layout;
  mkdirSync(dirname(layout), { recursive: true });
  const work = mkdtempSync(join(CACHE, 'making-'));
  try {
    const recipe = RECIPES[name];
    const making = join(work, 'layout');
    const base = recipe.base();
    const baseTar = typeof base === 'string' ? base : tarOf(work, 'base', base);
    const layers = [
      await writeLayer(making, baseTar, recipe.compression),
      await writeLayer(making, tarOf(work, 'app', recipe.app), recipe.compression),
    ];
    writeImage(making, 'latest', layers, recipe.config);
    renameSync(making, layout);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return layout;
}

/** Changes whenever a recipe does. */
export function recipesKey(): string {
  const hash = createHash('sha256');
  for (const file of [
    fileURLToPath(import.meta.url),
    fileURLToPath(new URL('oci-writer.ts', import.meta.url)),
  ])
    hash.update(readFileSync(file));
  return hash.digest('hex').slice(0, 12);
}

function tarOf(work: string, name: string, fill: (folder: string) => void): string {
  const folder = join(work, name);
  mkdirSync(folder);
  chmodSync(folder, 0o755);
  fill(folder);
  tarFolder(folder, `${folder}.tar`);
  return `${folder}.tar`;
}

function put(folder: string, path: string, text: string, mode = 0o644): void {
  const file = join(folder, path);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
  chmodSync(file, mode);
}
