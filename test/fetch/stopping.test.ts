/**
 * When one layer fails, the others stop at once, whatever they wait for: a byte, an answer, the time before
 * another try, another process. Their time-outs here are longer than a test may take.
 */
import { randomBytes } from 'node:crypto';
import { existsSync, readdirSync, statSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Store } from '../../src/store/types.ts';
import { fetchImage } from '../../stage0/fetch/fetch.ts';
import type { Timing } from '../../stage0/fetch/retry.ts';
import {
  folder,
  makeImage,
  registryOf,
  removeFolder,
  serve,
  type TestServer,
  testContext,
  testStore,
} from './support.ts';

const HOUR = 3_600_000;
const PATIENT: Timing = {
  connect: HOUR,
  headers: HOUR,
  idle: HOUR,
  attempts: 5,
  backoff: HOUR,
  longestWait: HOUR,
};
const image = makeImage([randomBytes(400_000), randomBytes(5000)]);
const [slow, bad] = image.layers;
if (slow === undefined || bad === undefined) throw new Error('no layers');

let dir: string;
let store: Store;
let server: TestServer | undefined;

beforeEach(() => {
  dir = folder();
  store = testStore(dir);
});
afterEach(async () => {
  store.close();
  await server?.close();
  server = undefined;
  removeFolder(dir);
});

/** The second layer is not what it should be, but only when `ready` says that the first one waits. */
async function fetchWith(
  hang: (request: IncomingMessage, response: ServerResponse) => void,
  ready: (hanging: boolean) => boolean = hanging => hanging,
): Promise<unknown> {
  let hanging = false;
  server = await serve(
    registryOf(image, (request, response) => {
      if (request.url?.endsWith(slow?.digest ?? '-')) {
        hang(request, response);
        hanging = true;
        return true;
      }
      if (!request.url?.endsWith(bad?.digest ?? '-')) return false;
      const answer = () => {
        if (ready(hanging)) response.end(randomBytes(bad?.size ?? 0));
        else setTimeout(answer, 5);
      };
      answer();
      return true;
    }),
  );
  const lease = store.lease();
  try {
    return await fetchImage(testContext(dir), store, `docker://${server.host}/test:1`, {
      pullPolicy: 'update',
      lease,
      timing: PATIENT,
    });
  } catch (error) {
    return error;
  } finally {
    lease.release();
  }
}

const partials = () => readdirSync(join(dir, 'cas/v1/tmp')).filter(name => /partial/.test(name));

test('waiting for a byte: what came is kept for a later try', async () => {
  const partial = join(dir, 'cas/v1/tmp', `blob.${slow.digest.replace(':', '.')}.partial`);
  const arrived = () => (statSync(partial, { throwIfNoEntry: false })?.size ?? 0) === head?.length;
  const head = image.blobs.get(slow.digest)?.subarray(0, 100_000);
  const error = await fetchWith((_, response) => {
    response.writeHead(200, { 'Content-Length': slow.size });
    response.write(head);
  }, arrived);
  expect(error).toMatchObject({ code: 'digest' });
  expect(partials().length).toBe(1);
  expect(arrived()).toBe(true);
  expect(store.images()).toEqual([]);
});

test('waiting for an answer', async () => {
  expect(await fetchWith(() => undefined)).toMatchObject({ code: 'digest' });
  expect(partials()).toEqual([]);
});

test('waiting for the time of another try', async () => {
  const error = await fetchWith((_, response) => {
    response.writeHead(503, { 'Retry-After': '3000' }).end();
  });
  expect(error).toMatchObject({ code: 'digest' });
});

test('waiting for another process that writes the same layer', async () => {
  const other = await store.blobs.open(slow);
  if (other === undefined) throw new Error('it is there');
  try {
    const error = await fetchWith(
      () => undefined,
      () => true,
    );
    expect(error).toMatchObject({ code: 'digest' });
  } finally {
    other.abort();
  }
  expect(existsSync(store.blobs.path(slow.digest))).toBe(false);
});
