/** The app that a command means. */
import { TspodError } from '../../src/errors.ts';

interface Named {
  readonly uuid: string;
  readonly apps: readonly { readonly name: string }[];
}

/** @throws TspodError 'not-found' */
export function requireApp(pod: Named, name: string): void {
  if (pod.apps.some(app => app.name === name)) return;
  const names = pod.apps.map(app => `"${app.name}"`).join(', ');
  throw new TspodError('not-found', `pod ${pod.uuid}: it has no app ${JSON.stringify(name)}`, {
    hint: names === '' ? 'it has no apps' : `its apps are ${names}`,
  });
}
