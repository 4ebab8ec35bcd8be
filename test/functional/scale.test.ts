/** Many at once, and many at rest. */
import { expect, test } from 'vitest';
import { fromLayout, fromRegistry, shell, useSandbox } from './sandbox.ts';

const use = useSandbox();

test('50 runs at once on one store that is empty at first all succeed', async () => {
  const runs = Array.from({ length: 50 }, (_, index) =>
    use.box.run(['run', fromRegistry('busybox'), '--', '-c', `echo ${index}`], {
      timeout: 110_000,
    }),
  );
  const ended = await Promise.all(runs);
  expect(ended.map(({ status, stdout }) => ({ status, stdout }))).toEqual(
    ended.map((_, index) => ({ status: 0, stdout: `${index}\n` })),
  );
  // who waits for another's download says so; nothing else is said
  const said = ended
    .flatMap(({ stderr }) => stderr.split('\n'))
    .filter(line => !/waiting|^$/.test(line));
  expect(said).toEqual([]);
  const listed: unknown = JSON.parse((await use.box.run(['list', '--format=json'])).stdout);
  expect(listed).toHaveLength(50);
}, 120_000);

test('500 exited pods: list and gc work', async () => {
  expect(await use.box.run(['fetch', fromLayout('busybox')])).toMatchObject({ status: 0 });
  for (let batch = 0; batch < 50; batch++) {
    const ended = await Promise.all(
      Array.from({ length: 10 }, () => use.box.run(['run', ...shell('true')])),
    );
    expect(ended.filter(({ status }) => status !== 0)).toEqual([]);
  }
  const listed = await use.box.run(['list', '--no-legend', '--full']);
  expect(listed.stdout.trimEnd().split('\n')).toHaveLength(500);
  expect(await use.box.run(['gc', '--grace-period=0s'])).toMatchObject({ status: 0 });
  expect((await use.box.run(['list', '--no-legend'])).stdout).toBe('');
}, 240_000);
