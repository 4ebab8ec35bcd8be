/**
 * The command table: each command with its flags, what it is for, and how it is called. What starts a
 * pod is imported at once, all other commands together when one of them is called: the fewer and the smaller
 * the chunks, the sooner a pod runs. rkt's commands that are not in this version are refused by name.
 */

import { type FlagValues, parseBool } from '../stage0/args/flags.ts';
import {
  addedImage,
  podArgs,
  pullPolicy,
  runPreparedArgs,
  sandboxArgs,
} from '../stage0/args/pod-args.ts';
import { onePod, podAndCommand, somePods } from '../stage0/args/pods.ts';
import { FLAGS } from '../stage0/args/tables.ts';
import type { CommandShape, Tokens } from '../stage0/args/tokenizer.ts';
import { run as prepareCommand } from '../stage0/commands/prepare.ts';
import { run as runPod } from '../stage0/commands/run.ts';
import { run as runPreparedCommand } from '../stage0/commands/run-prepared.ts';
import type { Context } from './context.ts';
import { TspodError } from './errors.ts';

export interface Command extends CommandShape {
  /** After the program's name and the path. */
  readonly usage: string;
  readonly about: string;
  /** Further paragraphs of the help page; among them where tspod differs from rkt. */
  readonly more?: string;
  /** rkt has it for who asks for it, and not in its list. */
  readonly experiment?: boolean;
  readonly run: (context: Context, tokens: Tokens<Command>) => Promise<number>;
}

/** Every command that no pod is started by, as one chunk. */
const others = () => import('../stage0/commands/others.ts');

const UUID_NOTE = 'A pod is named by its UUID, the beginning of it, or its --pod-name.';

export const COMMANDS: readonly Command[] = [
  {
    path: 'fetch',
    flags: FLAGS.fetch,
    usage: 'IMAGE...',
    about: 'Fetch images into the store, verify them and print their ids',
    more: 'IMAGE: docker://HOST[:PORT]/NAME[:TAG][@DIGEST], oci:FOLDER[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME:TAG], HOST/NAME[:VERSION][,LABEL=VALUE] or http(s)://….aci (an ACI), a path, - for an archive on standard input, an image id, or a name that is in the store.',
    run: async (context, { positionals, flags }) => {
      const { fetchCommand } = await others();
      return fetchCommand(context, {
        positionals,
        flags: {
          full: flags.bool('full'),
          pullPolicy: pullPolicy(flags),
          signature: flags.text('signature'),
        },
      });
    },
  },
  {
    path: 'run',
    flags: FLAGS.run,
    images: true,
    usage: '[FLAGS] IMAGE [IMAGE FLAGS] [-- ARGS [---]] ...',
    about: 'Run a pod: this process becomes it',
    more: 'Flags of an image follow it. "--" begins the arguments of its app, "---" ends them.\n\nUnlike rkt: the flavor is fly unless --stage1-name says otherwise; what a flavor can\'t honour is refused by name instead of ignored; with --rm or --result the launcher stays as the parent of the app.',
    run: async (context, { flags, images }) => {
      return runPod(context, podArgs(flags, images));
    },
  },
  {
    path: 'prepare',
    flags: FLAGS.prepare,
    images: true,
    usage: '[FLAGS] IMAGE [IMAGE FLAGS] [-- ARGS [---]] ...',
    about: 'Prepare a pod to be started later and print its UUID',
    run: async (context, { flags, images }) => {
      return prepareCommand(context, podArgs(flags, images));
    },
  },
  {
    path: 'run-prepared',
    flags: FLAGS['run-prepared'],
    usage: 'POD',
    about: 'Run a pod that was prepared: this process becomes it',
    more: UUID_NOTE,
    run: async (context, { flags, positionals }) => {
      return runPreparedCommand(
        context,
        runPreparedArgs(flags, onePod(context, positionals, flags)),
      );
    },
  },
  {
    path: 'list',
    flags: FLAGS.list,
    usage: '',
    about: 'List the pods',
    run: async (context, { flags }) => {
      const { listCommand } = await others();
      return listCommand(context, {
        full: flags.bool('full'),
        noLegend: flags.bool('no-legend'),
        format: flags.text('format'),
      });
    },
  },
  {
    path: 'status',
    flags: FLAGS.status,
    usage: 'POD',
    about: "Show a pod's state, times, process and exit statuses",
    more: UUID_NOTE,
    run: async (context, { flags, positionals }) => {
      const { statusCommand } = await others();
      return statusCommand(context, {
        pod: onePod(context, positionals, flags, 1),
        wait: flags.textOr('wait', 'false'),
        waitReady: flags.textOr('wait-ready', 'false'),
        format: flags.text('format'),
      });
    },
  },
  {
    path: 'cat-manifest',
    flags: FLAGS['cat-manifest'],
    usage: 'POD',
    about: "Print a pod's manifest",
    more: UUID_NOTE,
    run: async (context, { flags, positionals }) => {
      const { catManifestCommand } = await others();
      return catManifestCommand(context, {
        pod: onePod(context, positionals, flags),
        prettyPrint: flags.bool('pretty-print'),
      });
    },
  },
  {
    path: 'enter',
    flags: FLAGS.enter,
    // With --uuid-file the first word belongs to the command already.
    commandAfter: flags => (flags.has('uuid-file') ? 1 : 2),
    usage: '[--app=NAME] POD [COMMAND [ARGS...]]',
    about: 'Execute a command inside an app of a running pod, with the isolation of the app',
    more: `${UUID_NOTE}\n\nUnlike rkt: the command gets the app's user, capabilities, seccomp filter, limits and cgroups; without a command it is /bin/bash, or /bin/sh where the image has no bash.`,
    run: async (context, { flags, positionals }) => {
      const { enterCommand } = await others();
      return enterCommand(context, {
        ...podAndCommand(context, positionals, flags),
        app: flags.text('app'),
      });
    },
  },
  {
    path: 'attach',
    flags: FLAGS.attach,
    usage: '[--app=NAME] [--mode=MODE] POD',
    about: 'Connect this terminal with the standard streams of an app',
    more: `${UUID_NOTE} The app must have been run with --stdin, --stdout or --stderr as stream or tty. At a terminal ctrl-p,ctrl-q ends attaching and leaves the app alone.`,
    run: async (context, { flags, positionals }) => {
      const { attachCommand } = await others();
      return attachCommand(context, {
        pod: onePod(context, positionals, flags),
        app: flags.text('app'),
        mode: flags.textOr('mode', 'auto'),
        detachKeys: flags.textOr('detach-keys', ''),
      });
    },
  },
  {
    path: 'logs',
    wholeName: true,
    flags: FLAGS.logs,
    usage: '[-f] [--app=NAME] [--since=TIME] [--tail=N] POD',
    about: 'Print what the apps of a pod wrote to their standard streams (beyond rkt)',
    more: `${UUID_NOTE} What an app wrote to its standard error goes to standard error.`,
    run: async (context, { flags, positionals }) => {
      const { logsCommand } = await others();
      return logsCommand(context, {
        pod: onePod(context, positionals, flags),
        app: flags.text('app'),
        follow: flags.bool('follow'),
        since: flags.text('since'),
        tail: flags.text('tail'),
        timestamps: flags.bool('timestamps'),
        format: flags.text('format'),
      });
    },
  },
  {
    path: 'stop',
    flags: FLAGS.stop,
    usage: 'POD...',
    about: 'Ask pods to end (SIGTERM), or kill them with --force',
    more: UUID_NOTE,
    run: async (context, { flags, positionals }) => {
      const { stopCommand } = await others();
      return stopCommand(context, {
        pods: somePods(context, positionals, flags, 1),
        force: flags.bool('force'),
      });
    },
  },
  {
    path: 'rm',
    flags: FLAGS.rm,
    usage: 'POD...',
    about: 'Remove pods that do not run',
    more: UUID_NOTE,
    run: async (context, { flags, positionals }) => {
      const { rmCommand } = await others();
      return rmCommand(context, { pods: somePods(context, positionals, flags) });
    },
  },
  {
    path: 'gc',
    flags: FLAGS.gc,
    usage: '',
    about: 'Remove ended pods, expired prepared pods and what failed preparations left',
    run: async (context, { flags, positionals }) => {
      takesNoWords(context, positionals);
      const { gcCommand } = await others();
      return gcCommand(context, {
        gracePeriod: flags.textOr('grace-period', ''),
        expirePrepared: flags.textOr('expire-prepared', ''),
        markOnly: flags.bool('mark-only'),
      });
    },
  },
  {
    path: 'app sandbox',
    experiment: true,
    flags: FLAGS['app sandbox'],
    usage: '[FLAGS]',
    about: 'Run an empty pod, whose apps are added while it runs: this process becomes it',
    more: 'The pod goes on when its apps end; "stop" ends it.',
    run: async (context, { flags, positionals }) => {
      requireExperiment(context);
      takesNoWords(context, positionals);
      return failingWith(1, () => runPod(context, sandboxArgs(flags)));
    },
  },
  {
    path: 'app add',
    experiment: true,
    flags: FLAGS['app add'],
    images: true,
    usage: 'POD IMAGE [IMAGE FLAGS] [-- ARGS]',
    about: 'Add an app to a sandbox that runs; the image has to be in the store',
    more: `${UUID_NOTE} The app is not started: see "app start".`,
    run: async (context, { flags, images }) => {
      requireExperiment(context);
      const { appAddCommand } = await others();
      return appAddCommand(context, {
        ...addedImage(images),
        mntVolumes: flags.list('mnt-volume'),
      });
    },
  },
  {
    path: 'app start',
    experiment: true,
    flags: FLAGS['app start'],
    usage: '--app=NAME POD',
    about: 'Start an app of a pod that runs, also one that has ended or was stopped',
    more: UUID_NOTE,
    run: async (context, { flags, positionals }) => {
      const args = appOfPod(context, positionals, flags);
      const { appStartCommand } = await others();
      return appStartCommand(context, args);
    },
  },
  {
    path: 'app stop',
    experiment: true,
    flags: FLAGS['app stop'],
    usage: '--app=NAME POD',
    about: 'Stop an app of a pod that runs, and wait for its end',
    more: UUID_NOTE,
    run: async (context, { flags, positionals }) => {
      const args = appOfPod(context, positionals, flags);
      const { appStopCommand } = await others();
      return appStopCommand(context, args);
    },
  },
  {
    path: 'app rm',
    experiment: true,
    flags: FLAGS['app rm'],
    usage: '--app=NAME POD',
    about: 'Take an app out of a sandbox; one that runs is stopped first',
    more: UUID_NOTE,
    run: async (context, { flags, positionals }) => {
      const args = appOfPod(context, positionals, flags);
      const { appRmCommand } = await others();
      return appRmCommand(context, args);
    },
  },
  {
    path: 'app list',
    experiment: true,
    flags: FLAGS['app list'],
    usage: 'POD',
    about: 'List the apps of a pod',
    more: UUID_NOTE,
    run: async (context, { flags, positionals }) => {
      requireExperiment(context);
      const { appListCommand } = await others();
      const args = {
        pod: onePod(context, positionals, flags),
        noLegend: flags.bool('no-legend'),
        format: flags.text('format'),
      };
      return failingWith(1, () => appListCommand(context, args));
    },
  },
  {
    path: 'app status',
    experiment: true,
    flags: FLAGS['app status'],
    usage: '--app=NAME POD',
    about: "Show an app's state, times, exit status and mounts",
    more: UUID_NOTE,
    run: async (context, { flags, positionals }) => {
      const args = appOfPod(context, positionals, flags);
      const { appStatusCommand } = await others();
      const format = flags.text('format');
      return failingWith(1, () => appStatusCommand(context, { ...args, format }));
    },
  },
  {
    path: 'app exec',
    experiment: true,
    flags: FLAGS['app exec'],
    commandAfter: flags => (flags.has('uuid-file') ? 1 : 2),
    usage: '[--app=NAME] POD [COMMAND [ARGS...]]',
    about: 'Execute a command inside an app of a running pod: as "enter"',
    more: UUID_NOTE,
    run: async (context, tokens) => {
      requireExperiment(context);
      return commandAt('enter').run(context, { ...tokens, command: commandAt('enter') });
    },
  },
  {
    path: 'stage1 build',
    wholeName: true,
    flags: FLAGS['stage1 build'],
    usage: 'kvm',
    about: 'Build what the machines of pods of flavor kvm boot, and print its id',
    more: "The kernel is the distribution's, with the modules that a machine needs and our own programs as its initial file system. It is built by the first pod that needs it, too, and kept.",
    run: async (context, { flags, positionals }) => {
      const { stage1BuildCommand } = await others();
      return stage1BuildCommand(context, {
        positionals,
        kernel: flags.text('kernel'),
        out: flags.text('out'),
      });
    },
  },
  {
    path: 'stage1 list',
    wholeName: true,
    flags: FLAGS['stage1 list'],
    usage: '',
    about: 'List what can run a pod: the built-in flavors, and the stage1 images in the store',
    run: async (context, { flags, positionals }) => {
      takesNoWords(context, positionals);
      const { stage1ListCommand } = await others();
      return stage1ListCommand(context, {
        full: flags.bool('full'),
        noLegend: flags.bool('no-legend'),
        format: flags.text('format'),
      });
    },
  },
  {
    path: 'image list',
    flags: FLAGS['image list'],
    usage: '',
    about: 'List the images in the store',
    run: async (context, { flags, positionals }) => {
      const { imageListCommand } = await others();
      return imageListCommand(context, {
        positionals,
        flags: {
          fields: commaList(flags.list('fields')),
          sort: commaList(flags.list('sort')),
          order: flags.textOr('order', 'asc'),
          noLegend: flags.bool('no-legend'),
          full: flags.bool('full'),
          format: flags.text('format'),
        },
      });
    },
  },
  {
    path: 'image rm',
    flags: FLAGS['image rm'],
    usage: 'IMAGE...',
    about: 'Remove images from the store',
    run: async (context, { positionals }) => {
      const { imageRmCommand } = await others();
      return imageRmCommand(context, { positionals });
    },
  },
  {
    path: 'image gc',
    flags: FLAGS['image gc'],
    usage: '',
    about: 'Remove images that were not used for a while, and what nothing uses',
    run: async (context, { positionals, flags }) => {
      const { imageGcCommand } = await others();
      return imageGcCommand(context, {
        positionals,
        flags: {
          gracePeriod: flags.textOr('grace-period', ''),
          maxSize: flags.text('max-size'),
          dryRun: flags.bool('dry-run'),
        },
      });
    },
  },
  {
    path: 'image verify',
    flags: FLAGS['image verify'],
    usage: 'IMAGE...',
    about: 'Check what the store holds of an image, and make again what is damaged',
    run: async (context, { positionals }) => {
      const { imageVerifyCommand } = await others();
      return imageVerifyCommand(context, { positionals });
    },
  },
  {
    path: 'image cat-manifest',
    flags: FLAGS['image cat-manifest'],
    usage: 'IMAGE',
    about: "Print an image's manifest",
    run: async (context, { positionals, flags }) => {
      const { imageCatManifestCommand } = await others();
      return imageCatManifestCommand(context, {
        positionals,
        flags: { prettyPrint: flags.bool('pretty-print') },
      });
    },
  },
  {
    path: 'image explain',
    flags: FLAGS['image explain'],
    usage: 'IMAGE',
    about: 'Say which trust rule decides about an image, and whether it may run',
    more: 'IMAGE is an image of the store or any name; no server is asked.',
    run: async (context, { positionals, flags }) => {
      const { imageExplainCommand } = await others();
      return imageExplainCommand(context, {
        positionals,
        flags: { format: flags.text('format') },
      });
    },
  },
  {
    path: 'trust',
    flags: FLAGS.trust,
    usage: '[--prefix=PREFIX | --root] [PUBKEY...]',
    about: 'Trust OpenPGP keys, or write a rule: whose signatures admit images of a prefix',
    more: 'PUBKEY: files or URLs of OpenPGP keys; without any the keys are discovered at the prefix.\n\nBeyond rkt: --cosign-key, --identity with --issuer, --openpgp and --allow-unsigned write a rule for the prefix, or extend the one that is there. The rule of the longest prefix decides alone; --prefix="*" is for all names. "trust list" shows rules and keys, "trust remove" takes them away, "image explain" says what decides about a name.',
    run: async (context, { positionals, flags }) => {
      const { trustCommand } = await others();
      return trustCommand(context, {
        positionals,
        flags: {
          prefix: flags.text('prefix'),
          root: flags.bool('root'),
          skipFingerprintReview: flags.bool('skip-fingerprint-review'),
          insecureAllowHttp: flags.bool('insecure-allow-http'),
          cosignKeys: flags.list('cosign-key'),
          identity: flags.text('identity'),
          identityRegexp: flags.text('identity-regexp'),
          issuer: flags.text('issuer'),
          issuerRegexp: flags.text('issuer-regexp'),
          trustedRoot: flags.text('trusted-root'),
          openpgp: flags.bool('openpgp'),
          allowUnsigned: flags.bool('allow-unsigned'),
          require: flags.text('require'),
        },
      });
    },
  },
  {
    path: 'trust list',
    flags: FLAGS['trust list'],
    usage: '',
    about: 'List the rules of trust and the trusted OpenPGP keys',
    run: async (context, { positionals, flags }) => {
      takesNoWords(context, positionals);
      const { trustListCommand } = await others();
      return trustListCommand(context, { flags: { format: flags.text('format') } });
    },
  },
  {
    path: 'trust remove',
    flags: FLAGS['trust remove'],
    usage: '--prefix=PREFIX [FINGERPRINT...]',
    about: 'Remove the rule of a prefix, or take away the trust in OpenPGP keys',
    run: async (context, { positionals, flags }) => {
      const { trustRemoveCommand } = await others();
      return trustRemoveCommand(context, {
        positionals,
        flags: { prefix: flags.text('prefix'), root: flags.bool('root') },
      });
    },
  },
  {
    path: 'image fetch',
    flags: FLAGS.fetch,
    usage: 'IMAGE...',
    about: '',
    hidden: true,
    run: (context, tokens) => commandAt('fetch').run(context, tokens),
  },
  {
    path: 'config',
    flags: FLAGS.config,
    usage: '',
    about: 'Print the configuration in force, as JSON',
    run: async (context, { flags, positionals }) => {
      takesNoWords(context, positionals);
      const { configCommand } = await others();
      return configCommand(context, { flags: { prettyPrint: flags.bool('pretty-print') } });
    },
  },
  {
    path: 'image export',
    flags: FLAGS['image export'],
    usage: 'IMAGE FILE|-',
    about: 'Write an image to a file: a tar of an OCI layout, a docker-archive, or an ACI',
    run: async (context, { flags, positionals }) => {
      const { imageExportCommand } = await others();
      return imageExportCommand(context, {
        positionals,
        overwrite: flags.bool('overwrite'),
        format: flags.text('format'),
      });
    },
  },
  {
    path: 'image extract',
    flags: FLAGS['image extract'],
    usage: 'IMAGE DIR',
    about: "Unpack an image's manifest and root file system, without what an ACI depends on",
    run: async (context, { flags, positionals }) => {
      const { imageRenderCommand } = await others();
      return imageRenderCommand(context, {
        positionals,
        part: 'own',
        rootfsOnly: flags.bool('rootfs-only'),
        overwrite: flags.bool('overwrite'),
      });
    },
  },
  {
    path: 'image render',
    flags: FLAGS['image render'],
    usage: 'IMAGE DIR',
    about: "Unpack an image's manifest and root file system, with what an ACI depends on",
    run: async (context, { flags, positionals }) => {
      const { imageRenderCommand } = await others();
      return imageRenderCommand(context, {
        positionals,
        part: 'all',
        rootfsOnly: flags.bool('rootfs-only'),
        overwrite: flags.bool('overwrite'),
      });
    },
  },
  {
    path: 'push',
    flags: FLAGS.push,
    usage: 'IMAGE docker://HOST/NAME[:TAG]',
    about: 'Push an image of the store to a registry and print its digest (beyond rkt)',
    run: async (context, { flags, positionals }) => {
      const { pushCommand } = await others();
      return pushCommand(context, { positionals, format: flags.text('format') });
    },
  },
  {
    path: 'doctor',
    flags: FLAGS.doctor,
    usage: '',
    about: 'Say what works on this machine, and why the rest does not',
    run: async (context, { flags, positionals }) => {
      takesNoWords(context, positionals);
      const { doctorCommand } = await others();
      return doctorCommand(context, { format: flags.text('format') });
    },
  },
  {
    path: 'version',
    flags: FLAGS.version,
    usage: '',
    about: 'Print the version',
    run: async (context, { flags, positionals }) => {
      takesNoWords(context, positionals);
      const { showVersion } = await others();
      return showVersion(context, { format: flags.text('format') });
    },
  },
  {
    path: 'help',
    flags: FLAGS.help,
    usage: '[COMMAND]',
    about: 'Show the help of a command',
    run: async (context, { positionals }) => {
      const { printHelp } = await import('../stage0/args/help.ts');
      return printHelp(COMMANDS, context.program, positionals);
    },
  },
  {
    path: 'finish',
    flags: FLAGS.finish,
    usage: '',
    about: '',
    hidden: true,
    run: async (context, { positionals, flags }) => {
      const [uuid = '', kind = '', number = ''] = positionals;
      const { finishCommand } = await others();
      return finishCommand(context, {
        uuid,
        result: flags.text('result'),
        rm: flags.bool('rm'),
        kind,
        number: Number(number),
      });
    },
  },
];

/** @throws Error when the table has no such command */
export function commandAt(path: string): Command {
  const found = COMMANDS.find(command => command.path === path);
  if (found === undefined) throw new TspodError('usage', `unknown command ${JSON.stringify(path)}`);
  return found;
}

/** For the commands whose failures have another status in rkt. */
async function failingWith(exitStatus: number, action: () => Promise<number>): Promise<number> {
  try {
    return await action();
  } catch (error) {
    if (!(error instanceof TspodError)) throw error;
    const { code, message, hint, cause } = error;
    const rest = { ...(hint === undefined ? {} : { hint }), exitStatus, cause };
    throw new TspodError(code, message, rest);
  }
}

/** rkt has these commands only for who asks for them. */
function requireExperiment({ program }: Context): void {
  if (program !== 'rkt') return;
  const value = process.env['RKT_EXPERIMENT_APP'];
  if (value !== undefined && value !== '' && parseBool(value, 'RKT_EXPERIMENT_APP')) return;
  throw new TspodError('usage', 'unknown command "app" for "rkt"', {
    hint: 'set RKT_EXPERIMENT_APP=true to have it',
  });
}

function appOfPod(
  context: Context,
  positionals: readonly string[],
  flags: FlagValues,
): { readonly pod: string; readonly app: string } {
  requireExperiment(context);
  const app = flags.text('app');
  if (app === undefined || app === '') {
    throw new TspodError('usage', `${context.command}: must provide the app with --app`);
  }
  return { pod: onePod(context, positionals, flags), app };
}

/** `gc UUID` would not do what it seems to. */
function takesNoWords({ program, command }: Context, words: readonly string[]): void {
  const [word] = words;
  if (word === undefined) return;
  throw new TspodError('usage', `${command}: takes no arguments, not ${JSON.stringify(word)}`, {
    hint: `see '${program} help ${command}'`,
  });
}

/** Go's list flags: repeated, and separated by commas. */
function commaList(values: readonly string[]): readonly string[] {
  return values.flatMap(value => value.split(',')).filter(value => value !== '');
}
