/** `tspod list`: rkt's columns and order. A pod that can't be told fully is told as far as it can, the error after the table. */
import type { Context } from '../../src/context.ts';
import { reasonOf } from '../../src/errors.ts';
import { humanTime, longTime } from '../../src/humanize.ts';
import { listPods, type PodView } from '../../src/pod/lifecycle.ts';
import { showNetworks } from '../../src/pod/networks.ts';
import { type PodReport, reportPod } from '../../src/pod/report.ts';
import { renderTable } from '../../src/table.ts';
import { checkFormat, printJson } from '../output.ts';
import { podToJson } from '../pod-json.ts';
import { showImageId } from './image-id.ts';

const SHORT_UUID = 8;
const SHORT_IMAGE_ID = 12;

export interface ListArgs {
  readonly full: boolean;
  readonly noLegend: boolean;
  readonly format: string | undefined;
}

export async function run(context: Context, args: ListArgs): Promise<number> {
  checkFormat(args.format);
  const errors: string[] = [];
  const pods = listPods(context.dir).map(pod => report(pod, errors));
  if (args.format !== undefined) {
    printJson(pods.map(podToJson), args.format);
  } else {
    const header = args.full
      ? ['UUID', 'APP', 'IMAGE NAME', 'IMAGE ID', 'STATE', 'CREATED', 'STARTED', 'NETWORKS']
      : ['UUID', 'APP', 'IMAGE NAME', 'STATE', 'CREATED', 'STARTED', 'NETWORKS'];
    const rows = pods.flatMap(pod => podRows(context, pod, args.full));
    process.stdout.write(renderTable(args.noLegend ? rows : [header, ...rows]));
  }
  if (errors.length > 0) {
    process.stderr.write(`${errors.length} error(s) encountered when listing pods:\n`);
    for (const error of errors)
      process.stderr.write(`----------------------------------------\n${error}\n`);
  }
  return 0;
}

function report(pod: PodView, errors: string[]): PodReport {
  try {
    return reportPod(pod);
  } catch (error) {
    errors.push(`pod ${pod.uuid}: ${reasonOf(error)}`);
    return {
      ...pod,
      apps: [],
      createdAt: undefined,
      startedAt: undefined,
      pid: undefined,
      networks: [],
      userAnnotations: {},
      userLabels: {},
    };
  }
}

/** The pod's own columns stand in the row of its first app. */
function podRows(context: Context, pod: PodReport, full: boolean): readonly (readonly string[])[] {
  const time = (ms: number | undefined) =>
    ms === undefined ? '' : full ? longTime(ms) : humanTime(ms);
  const own = [pod.state, time(pod.createdAt), time(pod.startedAt), showNetworks(pod.networks)];
  const uuid = full ? pod.uuid : pod.uuid.slice(0, SHORT_UUID);
  if (pod.apps.length === 0) return [[uuid, '-', '-', ...(full ? ['-'] : []), ...own]];
  return pod.apps.map((app, index) => {
    const id = app.imageId === undefined ? '--' : showImageId(context, app.imageId, SHORT_IMAGE_ID);
    return [
      index === 0 ? uuid : '',
      app.name,
      app.imageName ?? '--',
      ...(full ? [id] : []),
      ...(index === 0 ? own : ['', '', '', '']),
    ];
  });
}
