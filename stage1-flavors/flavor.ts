/**
 * What a stage1 flavor is to stage0. A flavor is pure planning: it looks at a prepared pod and answers
 * with a launch plan, or refuses by name what it can't honour. It starts nothing itself.
 *
 * Life of a pod as a flavor sees it: `check` (before anything is written) -> `plan` (the pod's folder is
 * complete; the answer is stored there as `launch-plan`, and the launcher executes it, now or later,
 * with or without Node) -> any number of `enter` and `stop` while it runs -> `gc` when it has ended.
 * Every flavor passes test/flavors/contract.
 */
import type { LaunchPlan } from '../src/pod/launch-plan.ts';
import type { Pod } from '../src/pod/pod.ts';

export interface RunningPod {
  readonly uuid: string;
  /** absolute path of the pod's folder under pods/run */
  readonly dir: string;
  /** the process to enter: for fly the app itself */
  readonly pid: number;
}

export interface EnterRequest {
  readonly app: string;
  /** empty: the flavor's choice of shell */
  readonly command: readonly string[];
  /** passed into the app's environment, e.g. TERM */
  readonly environment: Readonly<Record<string, string>>;
}

export interface Flavor {
  /** `foreign`: a stage1 image, see foreign/foreign.ts. */
  readonly name: 'fly' | 'nspawn' | 'kvm' | 'foreign';
  /** rkt's stage1 interface version that this flavor corresponds to. */
  readonly interfaceVersion: number;
  /** Whether `recursive` is on for a host volume that does not say. */
  readonly recursiveByDefault: boolean;
  /** @throws TspodError 'unsupported' that names the option, isolator or field. */
  check(pod: Pod): void;
  /** What an image wishes and this machine can't do, one sentence each; what the user asked for is an error. */
  warnings?(pod: Pod): readonly string[];
  /** Paths in the plan are relative to the pod's folder where they lie in it. */
  plan(pod: Pod): LaunchPlan;
  /** A plan that ends in the command running inside the app with the app's whole isolation. */
  enter(pod: Pod, running: RunningPod, request: EnterRequest): LaunchPlan;
  /** Asks the pod to end (SIGTERM or what the flavor has), or ends it when `force`. */
  stop(running: RunningPod, force: boolean): void;
  /** Undoes on the host what the kernel has not undone by itself. Idempotent; the pod has ended. */
  gc(pod: { readonly uuid: string; readonly dir: string }): void;
}
