/**
 * A registry as an image source (OCI distribution specification 1.1, "Pull"): the registry of the
 * reference, and the mirrors that the configuration has for it, in order. What one of them cannot give,
 * the next is asked for; all must give the same bytes, because a digest names them.
 */
import type { Config } from '../../src/config/config.ts';
import type { RegistrySettings } from '../../src/config/registries.ts';
import type { Context } from '../../src/context.ts';
import { TspodError } from '../../src/errors.ts';
import { type Digest, isDigest } from '../../src/image/digest.ts';
import { type Descriptor, MEDIA } from '../../src/image/oci.ts';
import { MANIFEST_MAX_BYTES } from '../../src/image/oci-validate.ts';
import { canonicalReference, type RegistryReference } from '../../src/image/reference.ts';
import type { FoundSignature, SignatureKind } from '../verify/types.ts';
import { findCredentials } from './credentials.ts';
import { findSignatures, type SignaturePlace } from './find-signatures.ts';
import { Endpoint } from './registry-endpoint.ts';
import { TIMING, type Timing } from './retry.ts';
import { lookasideSignatures, registryPlace } from './signatures-registry.ts';
import {
  checkContent,
  checkDigest,
  collect,
  digestOf,
  type ImageSource,
  type TopDocument,
} from './source.ts';

const ACCEPT = [MEDIA.ociIndex, MEDIA.dockerIndex, MEDIA.ociManifest, MEDIA.dockerManifest].join(
  ', ',
);

/** Where Docker Hub answers. */
export const HUB_HOST = 'registry-1.docker.io';

/** @param signal stops whatever is under way, with an AbortError */
export function openRegistry(
  context: Pick<Context, 'insecure'>,
  config: Config,
  reference: RegistryReference,
  timing: Timing = TIMING,
  signal?: AbortSignal,
): ImageSource {
  return new Registry(context, config, reference, timing, signal);
}

class Registry implements ImageSource {
  readonly name: string;
  readonly #reference: RegistryReference;
  readonly #endpoints: readonly Endpoint[];
  /** Of each endpoint. */
  readonly #places: readonly SignaturePlace[];
  readonly #lookaside: (subject: Digest) => AsyncIterable<FoundSignature>;

  constructor(
    context: Pick<Context, 'insecure'>,
    config: Config,
    reference: RegistryReference,
    timing: Timing,
    signal: AbortSignal | undefined,
  ) {
    this.name = canonicalReference(reference);
    this.#reference = reference;
    const at = (registry: string, repository: string) => {
      const settings = config.registries.get(registry);
      return new Endpoint({
        host: registry === 'docker.io' ? HUB_HOST : registry,
        repository,
        image: this.name,
        timing,
        signal,
        allowHttp: allows(context, settings, 'http'),
        tls: {
          verify: !allows(context, settings, 'tls'),
          caCertificate: settings?.caCertificate,
          clientCertificate: settings?.clientCertificate,
          clientKey: settings?.clientKey,
        },
        credentials: () => findCredentials(config, registry, repository),
      });
    };
    const mirrors = config.registries.get(reference.registry)?.mirrors ?? [];
    const sites = [
      ...mirrors.map(({ registry, prefix }) => ({
        registry,
        repository: `${prefix}${reference.repository}`,
      })),
      reference,
    ].map(({ registry, repository }) => {
      const endpoint = at(registry, repository);
      return { endpoint, place: registryPlace(endpoint, registry, repository) };
    });
    this.#endpoints = sites.map(({ endpoint }) => endpoint);
    this.#places = sites.map(({ place }) => place);
    const base = config.registries.get(reference.registry)?.lookaside;
    this.#lookaside = subject =>
      base === undefined
        ? none()
        : lookasideSignatures(context, config, base, reference.repository, subject, timing);
  }

  async top(): Promise<TopDocument> {
    const wanted = this.#reference.digest;
    return this.#first(async endpoint => {
      const { bytes, mediaType, told } = await this.#manifest(
        endpoint,
        wanted ?? this.#reference.tag ?? 'latest',
      );
      const what = `manifest of ${this.name}`;
      if (wanted !== undefined) checkDigest(bytes, wanted, what);
      else if (told !== undefined) checkDigest(bytes, told, what);
      return { bytes, digest: wanted ?? told ?? digestOf(bytes), mediaType };
    });
  }

  async manifest(descriptor: Descriptor): Promise<Uint8Array> {
    return this.#first(async endpoint => {
      const { bytes } = await this.#manifest(endpoint, descriptor.digest);
      checkContent(bytes, descriptor, `manifest ${descriptor.digest}`);
      return bytes;
    });
  }

  async document(descriptor: Descriptor, maxBytes: number): Promise<Uint8Array> {
    const what = `blob ${descriptor.digest}`;
    if (descriptor.size > maxBytes) {
      throw new TspodError(
        'limit',
        `${what}: ${descriptor.size} bytes is over the limit of ${maxBytes}`,
      );
    }
    return this.#first(async endpoint => {
      const bytes = await collect(endpoint.blob(descriptor, 0), descriptor.size, what);
      checkContent(bytes, descriptor, what);
      return bytes;
    });
  }

  async *blob(descriptor: Descriptor, offset: number): AsyncGenerator<Uint8Array> {
    let at = offset;
    for (const [index, endpoint] of this.#endpoints.entries()) {
      try {
        for await (const chunk of endpoint.blob(descriptor, at)) {
          at += chunk.length;
          yield chunk;
        }
        return;
      } catch (error) {
        if (index === this.#endpoints.length - 1 || !mayBeElsewhere(error)) throw error;
      }
    }
  }

  /** A mirror need not have them; what none of the mirrors has, the registry itself is asked for. */
  async *signatures(
    subject: Digest,
    kinds: ReadonlySet<SignatureKind>,
  ): AsyncGenerator<FoundSignature> {
    if (kinds.has('openpgp')) yield* this.#lookaside(subject);
    for (const [index, place] of this.#places.entries()) {
      try {
        yield* findSignatures(place, subject, kinds);
      } catch (error) {
        if (index === this.#places.length - 1 || !mayBeElsewhere(error)) throw error;
      }
    }
  }

  close(): void {
    for (const endpoint of this.#endpoints) endpoint.close();
  }

  async #manifest(
    endpoint: Endpoint,
    reference: string,
  ): Promise<{ bytes: Uint8Array; mediaType: string | undefined; told: Digest | undefined }> {
    return endpoint.get(`manifests/${reference}`, ACCEPT, async ({ response, body }) => {
      const bytes = await collect(body(), MANIFEST_MAX_BYTES, `manifest of ${this.name}`);
      const type = response.headers.get('content-type')?.split(';')[0]?.trim().toLowerCase();
      const told = response.headers.get('docker-content-digest');
      return {
        bytes,
        // A server that does not know the type says so in one of these ways.
        mediaType: type && !UNKNOWN_TYPES.has(type) ? type : undefined,
        told: isDigest(told) ? told : undefined,
      };
    });
  }

  /** The first endpoint that can; the registry's own failure is the one to tell. */
  async #first<T>(ask: (endpoint: Endpoint) => Promise<T>): Promise<T> {
    for (const endpoint of this.#endpoints.slice(0, -1)) {
      try {
        return await ask(endpoint);
      } catch (error) {
        if (!mayBeElsewhere(error)) throw error;
      }
    }
    const own = this.#endpoints.at(-1);
    if (own === undefined) throw new Error('a registry has at least one endpoint');
    return ask(own);
  }
}

async function* none(): AsyncGenerator<never> {}

const UNKNOWN_TYPES = new Set(['application/octet-stream', 'text/plain', 'application/json']);

/** A mirror that is down, lacks the image, or hands out something else. */
function mayBeElsewhere(error: unknown): boolean {
  if (!(error instanceof TspodError)) return false;
  return ['network', 'not-found', 'denied', 'protocol', 'digest', 'limit'].includes(error.code);
}

/** Whether the user, or the configuration of this registry, has switched the check off. */
export function allows(
  context: Pick<Context, 'insecure'>,
  settings: RegistrySettings | undefined,
  what: 'tls' | 'http',
): boolean {
  return context.insecure.has(what) || (settings?.insecure.has(what) ?? false);
}
