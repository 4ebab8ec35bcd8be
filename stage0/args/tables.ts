/**
 * The flags of every command: rkt's (rkt-1.30, rkt/*.go), with its defaults, and tspod's own. A flag that
 * rkt has and this version can't honour is refused by name, never passed over.
 */
import type { FlagTable } from './flags.ts';

const NOT_METADATA = 'the metadata service is not in this version';

export const GLOBAL_FLAGS = {
  debug: { kind: 'bool', default: 'false', help: 'print more to standard error' },
  dir: { kind: 'text', help: 'the data folder' },
  'system-config': { kind: 'text', help: "the vendor's configuration" },
  'local-config': { kind: 'text', help: "the administrator's configuration" },
  'user-config': {
    kind: 'text',
    default: '',
    help: 'one more configuration, which wins over the local one',
  },
  'insecure-options': {
    kind: 'list',
    help: 'checks to switch off: none, image, tls, ondisk, http, pubkey, capabilities, paths, seccomp, all-fetch, all-run, all',
  },
  'trust-keys-from-https': {
    kind: 'bool',
    default: 'false',
    help: "trust an image's OpenPGP keys that are discovered by https, without review",
  },
  offline: {
    kind: 'bool',
    default: 'false',
    help: 'any use of the network is an error that names it (beyond rkt)',
  },
  help: { kind: 'bool', help: 'show the help of a command' },
  h: { kind: 'bool', help: '', hidden: true, aliasOf: 'help' },
} as const satisfies FlagTable;

const FORMAT: FlagTable = {
  format: { kind: 'text', help: 'json or json-pretty instead of text' },
};

const UUID_FILE: FlagTable = {
  'uuid-file': { kind: 'text', help: 'read the UUID from this file' },
};

const STAGE1: FlagTable = {
  'stage1-name': {
    kind: 'text',
    help: "the stage1: fly, nspawn or kvm, their long names, coreos.com/rkt/stage1-fly:VERSION, or an image's name",
  },
  'stage1-url': { kind: 'text', help: 'a stage1 image by its file, http, https or docker URL' },
  'stage1-path': { kind: 'text', help: 'a stage1 image by its file' },
  'stage1-hash': { kind: 'text', help: 'a stage1 image of the store by its id' },
  'stage1-from-dir': {
    kind: 'text',
    help: "a stage1 image by its file's name in the folder of stage1 images",
  },
};

const SURROUNDINGS: FlagTable = {
  net: {
    kind: 'optional',
    bare: 'default',
    help: "networks: default, default-restricted, none, host, all, or NAME[:K=V;…],…; fly has the host's",
  },
  dns: { kind: 'list', help: 'name servers for resolv.conf, or host, or none' },
  'dns-search': { kind: 'list', help: 'search domains for resolv.conf' },
  'dns-opt': { kind: 'list', help: 'options for resolv.conf' },
  'dns-domain': { kind: 'text', help: 'the domain for resolv.conf' },
  'hosts-entry': {
    kind: 'list',
    help: "IP=NAME[,IP=NAME] for /etc/hosts, or host for a copy of the host's",
  },
  hostname: { kind: 'text', help: "the pod's host name (fly has the host's)" },
  interactive: { kind: 'bool', default: 'false', help: 'one app, with the terminal' },
  ipc: { kind: 'text', help: 'auto, private or parent' },
  'mds-register': { kind: 'bool', default: 'false', help: '', refused: NOT_METADATA },
};

const MACHINE: FlagTable = {
  'vm-memory': {
    kind: 'text',
    help: "memory of a kvm pod's machine, e.g. 1Gi; default: its apps' limits and 128Mi, or 512Mi (beyond rkt)",
  },
  'vm-cpus': {
    kind: 'text',
    help: "processors of a kvm pod's machine; default: its apps' limits, or 1 (beyond rkt)",
  },
  'disk-size': {
    kind: 'text',
    help: "a disk of this size for what a kvm pod's apps write; default: its memory (beyond rkt)",
  },
  'qemu-accel': {
    kind: 'text',
    help: 'kvm, tcg (emulation), or auto, which tries kvm once per boot (beyond rkt)',
  },
};

const ENDING: FlagTable = {
  'dry-run': {
    kind: 'bool',
    default: 'false',
    help: 'print the launch plan as JSON and start nothing (beyond rkt)',
  },
  rm: {
    kind: 'bool',
    default: 'false',
    help: "remove the pod when it has ended; the launcher stays as the app's parent (beyond rkt)",
  },
  result: {
    kind: 'text',
    help: "write one JSON record of how the run ended to this file; the launcher stays as the app's parent (beyond rkt)",
  },
};

const APP: FlagTable = {
  name: {
    kind: 'text',
    image: 'only',
    help: "the app's name; default: the last element of the image's",
  },
  exec: { kind: 'text', image: 'only', help: "what to execute instead of the image's exec" },
  mount: {
    kind: 'list',
    image: 'both',
    help: 'volume=NAME,target=PATH; before the first image: for all apps',
  },
  user: {
    kind: 'text',
    image: 'only',
    help: 'user: a number, a name, or a path in the image whose owner it is',
  },
  group: { kind: 'text', image: 'only', help: 'group: likewise' },
  'supplementary-gids': { kind: 'text', image: 'only', help: 'GID[,GID]: supplementary groups' },
  'working-dir': { kind: 'text', image: 'only', help: 'the working directory' },
  'readonly-rootfs': {
    kind: 'bool',
    default: 'false',
    image: 'only',
    help: 'mount the root filesystem read-only',
  },
  environment: { kind: 'list', image: 'only', help: 'NAME=VALUE for this app' },
  annotation: { kind: 'list', image: 'only', help: 'NAME=VALUE' },
  'user-annotation': { kind: 'list', image: 'only', help: 'NAME=VALUE' },
  'user-label': { kind: 'list', image: 'only', help: 'NAME=VALUE' },
  memory: { kind: 'text', image: 'only', help: 'memory limit, e.g. 16Mi or 50M' },
  cpu: { kind: 'text', image: 'only', help: 'CPU limit, e.g. 500m' },
  'cpu-shares': { kind: 'text', image: 'only', help: 'CPU weight' },
  'pids-limit': {
    kind: 'text',
    image: 'only',
    help: 'most processes and threads of the app at once',
  },
  'caps-retain': { kind: 'list', image: 'only', help: 'capabilities to keep' },
  'caps-remove': { kind: 'list', image: 'only', help: 'capabilities to take away' },
  'cap-retain': { kind: 'list', image: 'only', help: '', hidden: true, aliasOf: 'caps-retain' },
  'cap-remove': { kind: 'list', image: 'only', help: '', hidden: true, aliasOf: 'caps-remove' },
  seccomp: { kind: 'text', image: 'only', help: 'mode=retain|remove,errno=E,CALL,@SET' },
  'oom-score-adj': { kind: 'text', image: 'only', help: "the kernel's OOM adjustment" },
  rlimit: {
    kind: 'list',
    image: 'only',
    help: 'NAME=SOFT[:HARD], e.g. nofile=1024:4096 (beyond rkt)',
  },
  'no-new-privileges': {
    kind: 'bool',
    default: 'false',
    image: 'only',
    help: 'no_new_privs (beyond rkt)',
  },
  restart: {
    kind: 'text',
    image: 'only',
    help: 'never, on-failure or always: whether the app is started again when it ends (beyond rkt; not fly)',
  },
  signature: {
    kind: 'text',
    image: 'only',
    help: "a file or URL of the image's detached OpenPGP signature",
  },
  stdin: {
    kind: 'text',
    image: 'only',
    help: "the app's standard input: null, tty, stream (see attach), inherit",
  },
  stdout: {
    kind: 'text',
    image: 'only',
    help: "the app's standard output: log, null, tty, stream, inherit",
  },
  stderr: { kind: 'text', image: 'only', help: "the app's standard error: likewise" },
};

const POD: FlagTable = {
  ...STAGE1,
  ...APP,
  'exit-policy': {
    kind: 'text',
    help: 'first-failure, all or any: which ends of apps end the pod (beyond rkt; not fly)',
  },
  'stop-timeout': {
    kind: 'text',
    help: 'SECONDS from the signal that asks an app to stop to SIGKILL (beyond rkt; not fly)',
  },
  volume: {
    kind: 'list',
    help: 'NAME,kind=host|empty|tmpfs,source=…,readOnly=…,recursive=…,propagation=…,mode=…,uid=…,gid=…,size=…',
  },
  port: {
    kind: 'list',
    help: "NAME:[HOSTIP:]HOSTPORT (fly has the host's network: refused there)",
  },
  'inherit-env': {
    kind: 'bool',
    default: 'false',
    help: "add the caller's environment where the app does not set it",
  },
  'set-env': { kind: 'list', help: 'NAME=VALUE for all apps' },
  'set-env-file': { kind: 'list', help: 'a file of NAME=VALUE lines for all apps' },
  'no-overlay': { kind: 'bool', default: 'false', help: 'copy the image instead of an overlay' },
  'private-users': { kind: 'bool', default: 'false', help: 'a user namespace (fly: refused)' },
  'pull-policy': { kind: 'text', default: 'new', help: 'when to fetch: new, update or never' },
  'store-only': { kind: 'bool', help: '', hidden: true },
  'no-store': { kind: 'bool', help: '', hidden: true },
  'pod-manifest': { kind: 'text', help: 'an appc pod manifest instead of images' },
  pod: {
    kind: 'text',
    help: 'a Kubernetes Pod in YAML instead of images, - for standard input; nspawn unless --stage1-name says otherwise',
  },
  'uuid-file-save': { kind: 'text', help: "write the pod's UUID to this file" },
  'pod-name': { kind: 'text', help: 'a name for the pod, usable wherever a UUID is (beyond rkt)' },
};

export const FLAGS = {
  run: { ...POD, ...SURROUNDINGS, ...MACHINE, ...ENDING },
  prepare: {
    ...POD,
    ...MACHINE,
    quiet: {
      kind: 'bool',
      default: 'false',
      help: 'print nothing but the UUID, which is so without it, too',
    },
  },
  'run-prepared': { ...SURROUNDINGS, ...MACHINE, ...ENDING, ...UUID_FILE },
  fetch: {
    full: { kind: 'bool', default: 'false', help: 'print the whole id' },
    'pull-policy': { kind: 'text', default: 'update', help: 'when to fetch: new, update or never' },
    'store-only': { kind: 'bool', help: '', hidden: true },
    'no-store': { kind: 'bool', help: '', hidden: true },
    signature: {
      kind: 'text',
      help: "a file or URL of the image's detached OpenPGP signature",
    },
  },
  list: {
    full: { kind: 'bool', default: 'false', help: 'whole UUIDs, image ids and times' },
    'no-legend': { kind: 'bool', default: 'false', help: 'no header' },
    ...FORMAT,
  },
  status: {
    wait: {
      kind: 'optional',
      bare: 'true',
      default: 'false',
      help: 'wait until the pod has ended, or this long',
    },
    'wait-ready': {
      kind: 'optional',
      bare: 'true',
      default: 'false',
      help: 'wait until the pod is ready, or this long',
    },
    ...FORMAT,
    ...UUID_FILE,
  },
  'cat-manifest': {
    'pretty-print': { kind: 'bool', default: 'true', help: 'indented' },
    ...UUID_FILE,
  },
  enter: { app: { kind: 'text', help: 'the app to enter' }, ...UUID_FILE },
  attach: {
    app: { kind: 'text', help: 'the app to attach to' },
    mode: {
      kind: 'text',
      default: 'auto',
      help: 'list, auto, or of stdin,stdout,stderr or of tty,tty-in,tty-out',
    },
    'detach-keys': {
      kind: 'text',
      default: 'ctrl-p,ctrl-q',
      help: 'the keys that end attaching; none: none (beyond rkt)',
    },
    ...UUID_FILE,
  },
  logs: {
    app: { kind: 'text', help: 'only of this app' },
    follow: { kind: 'bool', default: 'false', help: 'go on until the pod has ended' },
    f: { kind: 'bool', help: '', hidden: true, aliasOf: 'follow' },
    since: {
      kind: 'text',
      help: 'only from this time (2026-01-31T12:00:00Z) or so long ago (10m)',
    },
    tail: { kind: 'text', help: 'only the last so many lines' },
    timestamps: { kind: 'bool', default: 'false', help: 'the time before each line' },
    format: { kind: 'text', help: 'json: one object per line' },
    ...UUID_FILE,
  },
  stop: { force: { kind: 'bool', default: 'false', help: 'kill at once' }, ...UUID_FILE },
  rm: { ...UUID_FILE },
  gc: {
    'grace-period': { kind: 'text', default: '30m0s', help: 'how long an ended pod is kept' },
    'expire-prepared': {
      kind: 'text',
      default: '24h0m0s',
      help: 'how long a prepared pod is kept',
    },
    'mark-only': {
      kind: 'bool',
      default: 'false',
      help: 'move pods to the garbage and remove nothing',
    },
  },
  'image list': {
    fields: { kind: 'list', help: 'id,name,size,importtime,lastused, and form' },
    sort: { kind: 'list', help: 'name, importtime, lastused, size' },
    order: { kind: 'text', default: 'asc', help: 'asc or desc' },
    'no-legend': { kind: 'bool', default: 'false', help: 'no header' },
    full: { kind: 'bool', default: 'false', help: 'whole ids, sizes and times' },
    ...FORMAT,
  },
  'image rm': {},
  'image verify': {},
  'image gc': {
    'grace-period': { kind: 'text', default: '24h0m0s', help: 'how long an unused image is kept' },
    'max-size': {
      kind: 'text',
      help: 'e.g. 10GiB: then the least recently used go, until it fits',
    },
    'dry-run': { kind: 'bool', default: 'false', help: 'print what would be removed' },
  },
  'image cat-manifest': { 'pretty-print': { kind: 'bool', default: 'true', help: 'indented' } },
  'image explain': { ...FORMAT },
  trust: {
    prefix: {
      kind: 'text',
      help: 'the names that it is for: docker.io/library, example.com/app, *',
    },
    root: { kind: 'bool', default: 'false', help: 'OpenPGP keys for every image' },
    'skip-fingerprint-review': {
      kind: 'bool',
      default: 'false',
      help: 'do not ask whether the fingerprints of OpenPGP keys are right',
    },
    'insecure-allow-http': {
      kind: 'bool',
      default: 'false',
      help: 'fetch OpenPGP keys over plain HTTP, too',
    },
    'cosign-key': {
      kind: 'list',
      help: 'a file with a public key in PEM whose cosign signatures count (beyond rkt)',
    },
    identity: { kind: 'text', help: 'whom a sigstore certificate has to name (beyond rkt)' },
    'identity-regexp': { kind: 'text', help: 'the same; has to match the whole (beyond rkt)' },
    issuer: { kind: 'text', help: 'the OpenID issuer that vouched for the identity (beyond rkt)' },
    'issuer-regexp': { kind: 'text', help: 'the same; has to match the whole (beyond rkt)' },
    'trusted-root': {
      kind: 'text',
      help: "a file with sigstore's trusted root instead of the public one (beyond rkt)",
    },
    openpgp: {
      kind: 'bool',
      default: 'false',
      help: 'demand a signature by an OpenPGP key that is trusted for the name (beyond rkt)',
    },
    'allow-unsigned': {
      kind: 'bool',
      default: 'false',
      help: 'images of these names need no signature (beyond rkt)',
    },
    require: { kind: 'text', help: 'any or all of what the rule names (beyond rkt)' },
  },
  'trust list': { ...FORMAT },
  'trust remove': {
    prefix: { kind: 'text', help: 'the prefix of the rule, or of the key' },
    root: { kind: 'bool', default: 'false', help: 'a key that is trusted for every image' },
  },
  'app sandbox': {
    ...STAGE1,
    ...SURROUNDINGS,
    ...ENDING,
    port: { kind: 'list', help: 'NAME:PROTOCOL:PODPORT:HOSTIP:HOSTPORT; may be repeated' },
    'no-overlay': { kind: 'bool', default: 'false', help: 'copy images instead of overlays' },
    'uuid-file-save': { kind: 'text', help: "write the pod's UUID to this file" },
    'pod-name': {
      kind: 'text',
      help: 'a name for the pod, usable wherever a UUID is (beyond rkt)',
    },
    annotation: { kind: 'list', help: 'NAME=VALUE' },
    'user-annotation': { kind: 'list', help: 'NAME=VALUE' },
    'user-label': { kind: 'list', help: 'NAME=VALUE' },
  },
  'stage1 build': {
    kernel: {
      kind: 'text',
      help: "a kernel's file whose modules are in /lib/modules, or a package linux-image-…; default: the newest of /boot, else the distribution's for clouds",
    },
    out: { kind: 'text', help: 'copy what was built into this new folder, too' },
  },
  'stage1 list': {
    full: { kind: 'bool', default: 'false', help: 'whole ids' },
    'no-legend': { kind: 'bool', default: 'false', help: 'no header' },
    ...FORMAT,
  },
  'app add': {
    ...APP,
    'mnt-volume': {
      kind: 'list',
      help: 'name=NAME,kind=host|empty|tmpfs,source=…,target=PATH: a volume and where it is mounted',
    },
  },
  'app start': { app: { kind: 'text', help: 'the app' } },
  'app stop': { app: { kind: 'text', help: 'the app' } },
  'app rm': { app: { kind: 'text', help: 'the app' } },
  'app list': { 'no-legend': { kind: 'bool', default: 'false', help: 'no header' }, ...FORMAT },
  'app status': { app: { kind: 'text', help: 'the app' }, ...FORMAT },
  'app exec': { app: { kind: 'text', help: 'the app to enter' }, ...UUID_FILE },
  config: { 'pretty-print': { kind: 'bool', default: 'true', help: 'indented' } },
  push: { ...FORMAT },
  'image export': {
    overwrite: { kind: 'bool', default: 'false', help: 'replace FILE' },
    format: {
      kind: 'text',
      help: 'oci, docker or aci; by default aci for a FILE that ends so, else oci',
    },
  },
  'image extract': {
    'rootfs-only': { kind: 'bool', default: 'false', help: 'the root file system alone' },
    overwrite: { kind: 'bool', default: 'false', help: 'replace DIR' },
  },
  'image render': {
    'rootfs-only': { kind: 'bool', default: 'false', help: 'the root file system alone' },
    overwrite: { kind: 'bool', default: 'false', help: 'replace DIR' },
  },
  version: { ...FORMAT },
  doctor: { ...FORMAT },
  help: {},
  finish: { result: { kind: 'text', help: '' }, rm: { kind: 'bool', default: 'false', help: '' } },
} as const satisfies Record<string, FlagTable>;

/** By path; what their refusal says. */
export const REFUSED_COMMANDS: ReadonlyMap<string, string> = new Map([
  ['metadata-service', NOT_METADATA],
  ['api-service', 'use list and status with --format=json'],
  ['export', 'exporting a pod is not in this version'],
  ['completion', 'completions are not in this version'],
]);
