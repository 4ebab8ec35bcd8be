/** `tspod app list POD` and `tspod app status POD --app=NAME`: rkt's columns and lines. */
import type { Context } from '../../src/context.ts';
import { longTime } from '../../src/humanize.ts';
import { findPod } from '../../src/pod/lifecycle.ts';
import { type AppReport, reportPod } from '../../src/pod/report.ts';
import { renderTable } from '../../src/table.ts';
import { requireApp } from '../app/find.ts';
import { checkFormat, printJson } from '../output.ts';
import { appToJson } from '../pod-json.ts';

export async function list(
  context: Context,
  args: { readonly pod: string; readonly noLegend: boolean; readonly format: string | undefined },
): Promise<number> {
  checkFormat(args.format);
  const { apps } = reportPod(findPod(context.dir, args.pod));
  if (args.format !== undefined) {
    printJson(apps.map(appToJson), args.format);
    return 0;
  }
  const rows = apps.map(({ name, state }) => [name, state]);
  const table = renderTable(args.noLegend ? rows : [['NAME', 'STATE'], ...rows]);
  // rkt: nothing but a line feed where there is no app
  process.stdout.write(apps.length === 0 ? '\n' : table);
  return 0;
}

export async function status(
  context: Context,
  args: { readonly pod: string; readonly app: string; readonly format: string | undefined },
): Promise<number> {
  checkFormat(args.format);
  const pod = reportPod(findPod(context.dir, args.pod));
  requireApp(pod, args.app);
  for (const app of pod.apps) {
    if (app.name !== args.app) continue;
    if (args.format !== undefined) printJson(appToJson(app), args.format);
    else process.stdout.write(`${lines(app).join('\n')}\n`);
  }
  return 0;
}

function lines(app: AppReport): readonly string[] {
  const time = (name: string, ms: number | undefined) =>
    ms === undefined ? [] : [`${name}=${longTime(ms)}`];
  const map = (entries: Readonly<Record<string, string>>) =>
    Object.entries(entries)
      .map(([name, value]) => `${name}=${value}`)
      .join(',');
  return [
    `name=${app.name}`,
    `state=${app.state}`,
    `image_id=${app.imageId ?? ''}`,
    ...time('created_at', app.createdAt),
    ...time('started_at', app.startedAt),
    ...time('finished_at', app.finishedAt),
    ...(app.exitCode === undefined ? [] : [`exit_code=${app.exitCode}`]),
    `mounts=${app.mounts.map(mount => `${mount.hostPath}:${mount.containerPath}:${!mount.readOnly}`).join(',')}`,
    `user_annotations=${map(app.userAnnotations)}`,
    `user_labels=${map(app.userLabels)}`,
  ];
}
