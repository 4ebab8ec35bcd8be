/** The configuration as `rkt config` prints it: every entry under `stage0`, as it would be in a file. */
import type { Auth } from './auth.ts';
import type { Config } from './config.ts';
import { trustToJson } from './trust.ts';

/** Entries come sorted by key, whatever files they were in. Credentials are part of it, as in rkt. */
export function configToJson(config: Config): { readonly stage0: readonly object[] } {
  const { paths, stage1 } = config;
  return {
    stage0: [
      ...sorted(config.auth).map(showAuth),
      ...sorted(config.dockerAuth).map(({ registry, user, password }) => ({
        rktVersion: 'v1',
        rktKind: 'dockerAuth',
        registries: [registry],
        credentials: { user, password },
      })),
      ...(paths.data === undefined && paths.stage1Images === undefined
        ? []
        : [
            {
              rktVersion: 'v1',
              rktKind: 'paths',
              ...(paths.data === undefined ? {} : { data: paths.data }),
              ...(paths.stage1Images === undefined ? {} : { 'stage1-images': paths.stage1Images }),
            },
          ]),
      ...(stage1 === undefined ? [] : [{ rktVersion: 'v1', rktKind: 'stage1', ...stage1 }]),
      ...sorted(config.registries).map(({ registry, mirrors, insecure, lookaside, ...files }) => ({
        rktVersion: 'v1',
        rktKind: 'registries',
        registries: [registry],
        mirrors: mirrors.map(({ registry: host, prefix }) =>
          prefix === '' ? host : `${host}/${prefix.slice(0, -1)}`,
        ),
        insecure: [...insecure],
        ...files,
        ...(lookaside === undefined ? {} : { lookaside: lookaside.href }),
      })),
      ...sorted(config.trust).map(trustToJson),
    ],
  };
}

function showAuth({ domain, credentials }: Auth): object {
  const { type, ...rest } = credentials;
  return { rktVersion: 'v1', rktKind: 'auth', domains: [domain], type, credentials: rest };
}

function sorted<T>(entries: ReadonlyMap<string, T>): readonly T[] {
  return [...entries].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, value]) => value);
}
