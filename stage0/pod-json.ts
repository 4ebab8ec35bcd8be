/** A pod as rkt's `list --format=json` and `status --format=json` print it; empty keys are left out. */
import type { AppReport, PodReport } from '../src/pod/report.ts';

/** Seconds for the pod's own times. */
export function podToJson(pod: PodReport): object {
  return dropEmpty({
    name: pod.uuid,
    state: pod.state,
    networks: pod.networks,
    app_names: pod.apps.map(app => app.name),
    apps: pod.apps.map(appToJson),
    created_at: seconds(pod.createdAt),
    started_at: seconds(pod.startedAt),
    pid: pod.pid,
    pod_name: pod.name,
    user_annotations: pod.userAnnotations,
    user_labels: pod.userLabels,
  });
}

/** One app; its times in nanoseconds, as rkt. */
export function appToJson(app: AppReport): object {
  return dropEmpty({
    name: app.name,
    state: app.state,
    created_at: nanoseconds(app.createdAt),
    started_at: nanoseconds(app.startedAt),
    finished_at: nanoseconds(app.finishedAt),
    exit_code: app.exitCode,
    // beyond rkt
    oom_killed: app.oomKilled ? true : undefined,
    image_id: app.imageId,
    image_name: app.imageName,
    mounts: app.mounts.map(mount => ({
      name: mount.name,
      container_path: mount.containerPath,
      host_path: mount.hostPath,
      read_only: mount.readOnly,
    })),
    user_annotations: app.userAnnotations,
    user_labels: app.userLabels,
  });
}

/** To the millisecond: finer than that, it would no longer fit into a JSON number. */
function nanoseconds(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : Math.floor(ms) * 1_000_000;
}

function seconds(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : Math.floor(ms / 1000);
}

function dropEmpty(object: Readonly<Record<string, unknown>>): object {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => !isEmpty(value)));
}

function isEmpty(value: unknown): boolean {
  if (value === undefined) return true;
  if (Array.isArray(value)) return value.length === 0;
  return typeof value === 'object' && value !== null && Object.keys(value).length === 0;
}
