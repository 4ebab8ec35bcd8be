/**
 * What an app's standard streams are connected to. appc has no word for it; rkt has annotations of the app
 * (rkt-1.30, stage1/common/types), which no image can set, and so have we. `interactive` there is our `inherit`.
 */
import type { NameValue } from '../image/appc.ts';
import { oneOf } from './supervision.ts';

export const INPUT_MODES = ['null', 'tty', 'stream', 'inherit'] as const;
export const OUTPUT_MODES = ['log', 'null', 'tty', 'stream', 'inherit'] as const;
export type InputMode = (typeof INPUT_MODES)[number];
export type OutputMode = (typeof OUTPUT_MODES)[number];

export interface StreamModes {
  readonly stdin: InputMode;
  readonly stdout: OutputMode;
  readonly stderr: OutputMode;
}

export type StreamName = keyof StreamModes;

export const STREAMS: readonly StreamName[] = ['stdin', 'stdout', 'stderr'];

export function streamAnnotation(stream: StreamName): string {
  return `coreos.com/rkt/stage2/${stream}`;
}

/**
 * @param interactive the app has the terminal of whoever runs the pod, where nothing else is said
 * @throws TspodError 'pod' that names the annotation
 */
export function streamModes(annotations: readonly NameValue[], interactive: boolean): StreamModes {
  const said = (stream: StreamName): string | undefined => {
    const value = annotations.findLast(({ name }) => name === streamAnnotation(stream))?.value;
    return value === 'interactive' ? 'inherit' : value;
  };
  const output = (stream: 'stdout' | 'stderr') =>
    oneOf(
      said(stream) ?? (interactive ? 'inherit' : 'log'),
      OUTPUT_MODES,
      streamAnnotation(stream),
    );
  return {
    stdin: oneOf(
      said('stdin') ?? (interactive ? 'inherit' : 'null'),
      INPUT_MODES,
      streamAnnotation('stdin'),
    ),
    stdout: output('stdout'),
    stderr: output('stderr'),
  };
}

/** Any of them is what the process that runs the pod has. */
export function inheritsAny({ stdin, stdout, stderr }: StreamModes): boolean {
  return stdin === 'inherit' || stdout === 'inherit' || stderr === 'inherit';
}
