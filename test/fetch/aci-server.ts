/**
 * A web server for every host: a proxy (http_proxy) that answers itself, over plain HTTP, from a table of hosts
 * and paths; through its tunnels nobody speaks TLS. Knows ETag, Range and If-Range as RFC 9110 has them.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { vi } from 'vitest';

export interface Served {
  readonly body: string | Uint8Array;
  readonly headers?: Readonly<Record<string, string>>;
  /** Ends the connection after so many bytes, the first time. */
  breakAfter?: number;
}

export interface AciServer {
  /** By `host/path`. */
  readonly files: Map<string, Served>;
  readonly seen: {
    readonly url: string;
    readonly headers: IncomingMessage['headers'];
    readonly status: number;
  }[];
  /** What the table does not have; true: it has answered. */
  fallback: (request: IncomingMessage, response: ServerResponse) => boolean;
  /** For a tool that is started. */
  readonly environment: Readonly<Record<string, string>>;
  close(): Promise<void>;
}

export async function startAciServer(): Promise<AciServer> {
  const files = new Map<string, Served>();
  const seen: AciServer['seen'] = [];
  const sockets = new Set<Socket>();
  const server = createServer((request, response) => {
    response.on('close', () =>
      seen.push({ url: request.url ?? '', headers: request.headers, status: response.statusCode }),
    );
    const url = new URL(request.url ?? '');
    const file = files.get(url.host + url.pathname);
    if (file !== undefined) answer(request, response, file);
    else if (!made.fallback(request, response)) response.writeHead(404).end();
  });
  server.on('connection', socket => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  server.on('connect', (_request, socket) => {
    socket.on('error', () => undefined);
    socket.write('HTTP/1.1 200 OK\r\n\r\n');
    socket.once('data', () => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'));
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  const proxy = `http://127.0.0.1:${address.port}`;
  const environment = { http_proxy: proxy, https_proxy: proxy, no_proxy: '' };
  const made: AciServer = {
    files,
    seen,
    environment,
    fallback: () => false,
    close: () =>
      new Promise(resolve => {
        for (const socket of sockets) socket.destroy();
        server.close(() => resolve());
      }),
  };
  return made;
}

/** This process's own requests go there, until vi.unstubAllEnvs. */
export function useServer({ environment }: AciServer): void {
  for (const [name, value] of Object.entries(environment)) vi.stubEnv(name, value);
}

function answer(request: IncomingMessage, response: ServerResponse, file: Served): void {
  const body = Buffer.from(file.body);
  const etag = file.headers?.['ETag'];
  for (const [name, value] of Object.entries(file.headers ?? {})) response.setHeader(name, value);
  if (etag !== undefined && request.headers['if-none-match'] === etag) {
    response.writeHead(304).end();
    return;
  }
  const from = Number(/^bytes=([0-9]+)-$/.exec(request.headers.range ?? '')?.[1] ?? Number.NaN);
  const sameStill =
    request.headers['if-range'] === undefined || request.headers['if-range'] === etag;
  let start = 0;
  if (!Number.isNaN(from) && sameStill) {
    if (from >= body.length) {
      response.writeHead(416).end();
      return;
    }
    start = from;
    response.writeHead(206, {
      'Content-Range': `bytes ${start}-${body.length - 1}/${body.length}`,
      'Content-Length': body.length - start,
    });
  } else response.writeHead(200, { 'Content-Length': body.length });
  if (file.breakAfter === undefined) {
    response.end(body.subarray(start));
    return;
  }
  const end = file.breakAfter;
  delete file.breakAfter;
  response.write(body.subarray(start, end), () => response.destroy());
}
