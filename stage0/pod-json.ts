/** A pod as rkt's `list --format=json` and `status --format=json` print it; empty keys are left out. */
import type { PodReport } from '../src/pod/report.ts';

/** Seconds for the pod's own times, nanoseconds for nothing yet: fly records no times per app. */
export function podToJson(pod: PodReport): object {
  return dropEmpty({
    name: pod.uuid,
    state: pod.state,
    app_names: pod.apps.map(app => app.name),
    apps: pod.apps.map(app =>
      dropEmpty({
        name: app.name,
        state: app.state,
        exit_code: app.exitCode,
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
      }),
    ),
    created_at: seconds(pod.createdAt),
    started_at: seconds(pod.startedAt),
    pid: pod.pid,
    pod_name: pod.name,
    user_annotations: pod.userAnnotations,
    user_labels: pod.userLabels,
  });
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
