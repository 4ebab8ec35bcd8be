/** A proxy on loopback that leads every name to where the test says: by CONNECT, and by absolute URLs. */
import { createServer, request as send } from 'node:http';
import { connect, type Socket } from 'node:net';

export interface ProxyServer {
  readonly host: string;
  /** `CONNECT host:port` and `GET url`, as they came. */
  readonly asked: string[];
  /** The Proxy-Authorization headers. */
  readonly authorized: (string | undefined)[];
  close(): Promise<void>;
}

/** @param upstream HOST:PORT that everything is led to; undefined: answers 502. */
export async function startProxy(upstream: () => string | undefined): Promise<ProxyServer> {
  const asked: string[] = [];
  const authorized: (string | undefined)[] = [];
  const sockets = new Set<Socket>();
  const server = createServer((request, response) => {
    asked.push(`${request.method} ${request.url}`);
    authorized.push(request.headers['proxy-authorization']);
    const to = upstream();
    if (to === undefined) return void response.writeHead(502).end();
    const { pathname } = new URL(request.url ?? '');
    const { method, headers } = request;
    const onward = send(`http://${to}${pathname}`, { method, headers }, answer => {
      response.writeHead(answer.statusCode ?? 500, answer.headers);
      answer.pipe(response);
    });
    onward.on('error', () => response.destroy());
    request.pipe(onward);
  });
  server.on('connect', (request, socket: Socket) => {
    asked.push(`CONNECT ${request.url}`);
    authorized.push(request.headers['proxy-authorization']);
    sockets.add(socket.on('error', () => undefined));
    const to = upstream();
    if (to === undefined) return void socket.end('HTTP/1.1 502 Bad Gateway\r\n\r\n');
    const [host, port] = to.split(':');
    const onward = connect(Number(port), host, () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n');
      socket.pipe(onward).pipe(socket);
    });
    sockets.add(onward.on('error', () => socket.destroy()));
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return {
    host: `127.0.0.1:${address.port}`,
    asked,
    authorized,
    close: () =>
      new Promise(resolve => {
        for (const socket of sockets) socket.destroy();
        server.closeAllConnections();
        server.close(() => resolve());
      }),
  };
}
